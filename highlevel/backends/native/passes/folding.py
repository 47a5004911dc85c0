"""Numbers that are known already, computed now.

Constants are computed by the definitions in the operators' records, so they are those of the interpreter. Large ones
stay expressions: a program should not carry data that it can compute. Sub-graphs hold no data of their own – what they
use comes in as operands –, so there only fills are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.ir.executor import executor
from highlevel.ir.graph import Leaf, Node, Symbol
from highlevel.ir.primitives.creation import full
from highlevel.ir.tensor import Tensor

from .facts import FULL, fill_value, uniform_value

FOLD_LIMIT_BYTES = 1 << 16  # of operands and results of what is computed while compiling
_NEVER = frozenset({"control", "random"})  # families that are not folded


def folded(node: Node, limit_bytes: int, nested: bool) -> Symbol | None:
    """What an operator on constants gives: a fill, if that is one number, or a constant; None if it is not known."""
    primitive = node.primitive
    for symbol in node.inputs:
        source = symbol.node
        if source.primitive is not FULL and (source.leaf is None or source.leaf.kind != "constant"):
            return None
    if primitive is None or primitive.multiple or primitive.family in _NEVER or not node.inputs:
        return None
    if primitive.family == "elementwise":
        numbers = [fill_value(symbol) for symbol in node.inputs]
        if None not in numbers:
            return _fill(Symbol(node), _one_element(node, numbers))
    sizes = [spec.size_bytes for spec in node.specs] + [symbol.spec.size_bytes for symbol in node.inputs]
    if nested or max(sizes) > limit_bytes or primitive.name == "broadcast":  # which is cheaper than its result
        return None
    with np.errstate(all="ignore"):
        array = np.asarray(primitive.numpy(np, *[_constant(symbol) for symbol in node.inputs], **node.attrs))
    number = uniform_value(array) if array.size else None
    if number is not None:
        return _fill(Symbol(node), number)
    if primitive.family == "movement" and not any([symbol.node.leaf for symbol in node.inputs]):
        return None  # numbers side by side: an expression that rules understand, and no data
    return _constant_symbol(array, node)


def folded_leaf(leaf: Node) -> Symbol | None:
    """A constant as a fill, if it is one number."""
    number = fill_value(Symbol(leaf))
    return None if number is None else _fill(Symbol(leaf), number)


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
    """The array that a fill or a constant is."""
    node = symbol.node
    if node.leaf is not None:
        return node.leaf.value.numpy()
    return np.full(symbol.shape, node.attrs["value"], symbol.dtype.numpy)


def _constant_symbol(array: Any, like: Node) -> Symbol:
    backend = executor()
    spec = like.specs[0]
    tensor = Tensor(backend.from_host(np.ascontiguousarray(array).reshape(spec.shape)), spec, backend)
    return Symbol(Node(None, (), {}, (spec,), like.owner, like.origin, Leaf("constant", tensor)))
