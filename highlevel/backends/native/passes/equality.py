"""What makes two nodes equal: keys of operators, of constants, and of sub-graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from highlevel.ir.dtypes import DType
from highlevel.ir.graph import Graph, Node, Symbol, attribute_key, key_of
from highlevel.ir.primitive import Primitive

from .pattern import COMMUTATIVE

LARGEST_CONSTANT_COMPARED = 1 << 16  # bytes
_PLAIN = frozenset({int, float, str, tuple, bool, type(None), DType})


def operator_key(primitive: Primitive, inputs: Sequence[Symbol], attrs: Mapping[str, Any]) -> Any:
    """Equal for operators that compute the same."""
    if len(inputs) == 2 and primitive.name in COMMUTATIVE and key_of(inputs[0]) > key_of(inputs[1]):
        inputs = inputs[::-1]
    operands = [s.node.id if s.index == 0 else (s.node.id, s.index) for s in inputs]
    return (primitive, attributes_key(attrs) if attrs else None, *operands)


def constant_key(leaf: Node) -> Any:
    """Equal for constants of the same type, shape and bits; None for those that are too large to compare."""
    assert leaf.leaf is not None
    if leaf.specs[0].size_bytes > LARGEST_CONSTANT_COMPARED:
        return None
    return "constant", leaf.specs, leaf.leaf.value.numpy().tobytes()


def attributes_key(attrs: Mapping[str, Any]) -> Any:
    """Attributes as a key: 1, 1.0 and True stay apart, as do 0.0 and −0.0; sub-graphs are equal if written the same."""
    for value in attrs.values():
        if type(value) not in _PLAIN:
            return tuple([(name, _attribute_key(attrs[name])) for name in sorted(attrs)])
    return repr(sorted(attrs.items()))  # which tells types and bits of numbers apart, and is quick to make


def _attribute_key(value: Any) -> Any:
    return graph_key(value) if isinstance(value, Graph) else attribute_key(value)


def graph_key(graph: Graph) -> Any:
    """What a closed graph computes, as a key: its nodes by number."""
    numbers = {key_of(symbol): i for i, symbol in enumerate(graph.inputs)}
    rows = tuple([symbol.spec for symbol in graph.inputs])
    nodes: list[Any] = []
    for node in graph.nodes():
        if node.primitive is not None:
            nodes.append((node.name, tuple(numbers[key_of(s)] for s in node.inputs), attributes_key(node.attrs)))
            for index in range(len(node.specs)):
                numbers[node.id, index] = len(numbers)
    return rows, tuple(nodes), tuple([numbers[key_of(symbol)] for symbol in graph.outputs])
