"""What is known already: numbers computed now, equal nodes merged, branches decided.

Constants are computed by the definitions in the operators' records, so they are those of the interpreter. Large ones
stay expressions: a program should not carry data that it can compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.ir.executor import executor
from highlevel.ir.graph import Graph, Leaf, Node, Symbol, attribute_key, key_of
from highlevel.ir.primitives.creation import full
from highlevel.ir.tensor import Tensor

from .driver import map_nodes, spliced
from .facts import FULL, fill_value, uniform_value
from .pattern import COMMUTATIVE

FOLD_LIMIT_BYTES = 1 << 16  # of operands and results of what is computed while compiling
_NEVER = frozenset({"control", "random"})  # families that are not folded


# Constants -----------------------------------------------------------------------------------------------------------
def fold_constants(graph: Graph, limit_bytes: int = FOLD_LIMIT_BYTES, *, nested: bool = False) -> Graph:
    """Computes what depends on constants only; what turns out to be one number becomes a fill.

    Sub-graphs hold no data of their own (what they use comes in as operands), so there only fills are made.
    """

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        return _decided(node) if node.name == "cond" else _folded(node, limit_bytes, nested)

    return map_nodes(
        graph, visit, lambda body: fold_constants(body, limit_bytes, nested=True), lambda leaf: _uniform_leaf(leaf)
    )


def _folded(node: Node, limit_bytes: int, nested: bool) -> Sequence[Symbol] | None:
    primitive = node.primitive
    if primitive is None or primitive.multiple or primitive.family in _NEVER or not node.inputs:
        return None
    if primitive.family == "elementwise":
        numbers = list(itertools.takewhile(lambda number: number is not None, map(fill_value, node.inputs)))
        if len(numbers) == len(node.inputs):
            return (_fill(node.outputs[0], _one_element(node, numbers)),)
    sizes = [spec.size_bytes for spec in node.specs] + [symbol.spec.size_bytes for symbol in node.inputs]
    if nested or max(sizes) > limit_bytes or primitive.name == "broadcast":  # which is cheaper than its result
        return None
    operands = [_constant(symbol) for symbol in node.inputs]
    if any(operand is None for operand in operands):
        return None
    with np.errstate(all="ignore"):
        array = np.asarray(primitive.numpy(np, *operands, **node.attrs))
    return (_constant_symbol(array, node),)


def _one_element(node: Node, numbers: Sequence[Any]) -> Any:
    """An elementwise operator on numbers, computed as for arrays."""
    assert node.primitive is not None
    operands = [np.full(1, number, symbol.dtype.numpy) for number, symbol in zip(numbers, node.inputs, strict=True)]
    with np.errstate(all="ignore"):
        return uniform_value(np.asarray(node.primitive.numpy(np, *operands, **node.attrs)))


def _fill(like: Symbol, number: Any) -> Symbol:
    made: Symbol = full(shape=like.shape, value=number, dtype=like.dtype)
    return made


def _constant(symbol: Symbol) -> Any:
    """The array that a symbol is known to be, or None."""
    node = symbol.node
    if node.primitive is FULL:
        return np.full(symbol.shape, node.attrs["value"], symbol.dtype.numpy)
    return node.leaf.value.numpy() if node.leaf is not None and node.leaf.kind == "constant" else None


def _constant_symbol(array: Any, like: Node) -> Symbol:
    number = uniform_value(array) if array.size else None
    if number is not None:
        return _fill(like.outputs[0], number)
    backend = executor()
    spec = like.specs[0]
    tensor = Tensor(backend.from_host(np.ascontiguousarray(array).reshape(spec.shape)), spec, backend)
    return Symbol(Node(None, (), {}, (spec,), like.owner, like.origin, Leaf("constant", tensor)))


def _uniform_leaf(leaf: Node) -> Symbol | None:
    number = fill_value(Symbol(leaf))
    return None if number is None else _fill(Symbol(leaf), number)


# Branches ------------------------------------------------------------------------------------------------------------
def _decided(node: Node) -> Sequence[Symbol] | None:
    """The branch of a `cond` whose condition is a number."""
    condition = fill_value(node.inputs[0])
    if condition is None:
        return None
    return spliced(node.attrs["then" if condition else "otherwise"], node.inputs[1:], node.owner)


# Equal nodes ---------------------------------------------------------------------------------------------------------
def merge_equal(graph: Graph) -> Graph:
    """Equal operators on equal inputs become one node, in sub-graphs as well; equal constants become one."""
    seen: dict[Any, Sequence[Symbol]] = {}
    bodies: dict[int, Any] = {}

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        inputs = [(s.node.id, s.index) for s in node.inputs]
        if node.name in COMMUTATIVE:
            inputs.sort()
        key = (node.name, tuple(inputs), _attributes_key(node, bodies))
        first = seen.get(key)
        if first is None:
            seen[key] = node.outputs
        return first

    def leaf(node: Node) -> Symbol | None:
        assert node.leaf is not None
        array = node.leaf.value.numpy()
        if array.nbytes > FOLD_LIMIT_BYTES:
            return None
        return seen.setdefault(("constant", node.specs, array.tobytes()), node.outputs)[0]

    return map_nodes(graph, visit, merge_equal, leaf)


def _attributes_key(node: Node, bodies: dict[int, Any]) -> Any:
    """Attributes as a key; sub-graphs count as equal if they are written the same."""
    if not node.attrs:
        return ()
    if not any(isinstance(value, Graph) for value in node.attrs.values()):
        return attribute_key(dict(node.attrs))
    keys = []
    for name in sorted(node.attrs):
        value = node.attrs[name]
        if isinstance(value, Graph):
            if id(value) not in bodies:
                bodies[id(value)] = _graph_key(value)
            keys.append((name, bodies[id(value)]))
        else:
            keys.append((name, attribute_key(value)))
    return tuple(keys)


def _graph_key(graph: Graph) -> Any:
    """What a closed graph computes, as a key: its nodes by number."""
    numbers = {key_of(symbol): i for i, symbol in enumerate(graph.inputs)}
    rows = [symbol.spec for symbol in graph.inputs]
    bodies: dict[int, Any] = {}
    nodes: list[Any] = []
    for node in graph.nodes():
        if node.primitive is not None:
            nodes.append((node.name, tuple(numbers[key_of(s)] for s in node.inputs), _attributes_key(node, bodies)))
            for index in range(len(node.specs)):
                numbers[node.id, index] = len(numbers)
    return tuple(rows), tuple(nodes), tuple(numbers[key_of(symbol)] for symbol in graph.outputs)
