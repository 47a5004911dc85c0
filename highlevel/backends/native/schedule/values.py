"""A graph as fusion sees it: values with their users, whose memory they could share, and whether they are kept.

A `Value` is an output of a node. `root` is the value whose elements it has, in the same order: itself, unless it is a
reshape – or a transposition or broadcast that comes to the same – of another one; the two never need two buffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from highlevel.ir import DType, Graph, Node, Primitive, Spec
from highlevel.ir.graph import key_of

from .kernel import Buffer

Key = tuple[int, int]
REDUCTIONS = {"reduce_sum": "sum", "reduce_prod": "prod", "reduce_max": "max", "reduce_min": "min"}


class Kind(Enum):
    """What makes a value: a leaf (input, constant, variable), or an operator of some kind."""

    LEAF = "leaf"
    OTHER = "other"  # not computed inside of loop kernels, and not a contraction
    CONTRACTION = "contraction"
    ELEMENTWISE = "elementwise"
    MOVEMENT = "movement"
    FILL = "fill"
    REDUCTION = "reduction"
    DRAW = "draw"  # random bits: computed where they are used, from a key that is a buffer


LOOPS = {Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.FILL, Kind.REDUCTION, Kind.DRAW}


@dataclass(slots=True, eq=False)
class Value:
    """An output of a node, with what planning has found out about it.

    label:    the name of its buffer
    users:    values computed from it (of nodes with several outputs the first), each once
    wanted:   it is a result of the program
    kept:     it has a buffer, or may have; of several values with one root, the root has it
    forced:   it has one whatever planning thinks of it
    depth:    how many operators stand upon each other between it and buffers
    """

    node: Node
    index: int
    kind: Kind
    name: str
    primitive: Primitive | None
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: DType
    size: int
    order: int
    root: Value = field(init=False)
    label: str = ""
    users: list[Value] = field(default_factory=list)
    wanted: bool = False
    kept: bool = False
    forced: bool = False
    depth: int = 0

    def __post_init__(self) -> None:
        self.root = self

    def release(self) -> None:
        """Forgets the graph: values know each other, and would keep it – and the variables – until they are found."""
        del self.node, self.inputs, self.users, self.root

    @property
    def key(self) -> Key:
        return self.node.id, self.index

    @property
    def size_bytes(self) -> int:
        return self.size * self.dtype.size_bytes

    def force(self) -> Value:
        """Gives it a buffer; returns the value that has it."""
        root = self.root
        self.forced = root.kept = root.forced = True
        return root

    def __repr__(self) -> str:
        return f"Value({self.order}: {self.name} {self.dtype}{list(self.shape)})"


def kind_of(node: Node) -> Kind:
    primitive = node.primitive
    if primitive is None:
        return Kind.LEAF
    match primitive.family:
        case "elementwise":
            return Kind.ELEMENTWISE if primitive.scalar is not None else Kind.OTHER
        case "movement":
            return Kind.MOVEMENT
        case "creation":
            return Kind.FILL
        case "contraction" | "convolution":
            return Kind.CONTRACTION
        case "random":
            return Kind.DRAW if primitive.name == "random_bits" else Kind.OTHER
    return Kind.REDUCTION if primitive.name in REDUCTIONS else Kind.OTHER


def read_values(graph: Graph) -> list[Value]:
    """All values of a graph in topological order; those that have to be buffers are forced."""
    found: dict[Key, Value] = {}
    values: list[Value] = []
    for node in graph.nodes():
        kind = kind_of(node)
        inputs = tuple([found[s.node.id, s.index] for s in node.inputs])
        for index, spec in enumerate(node.specs):
            value = _value(node, index, kind, inputs, spec, len(values))
            values.append(value)
            found[node.id, index] = value
        first = values[-len(node.specs)]
        for x in inputs:
            if not x.users or x.users[-1] is not first:
                x.users.append(first)
    for symbol in graph.results:
        value = found[key_of(symbol)]
        value.wanted = True
        value.force()
    for value in values:
        if value.kind in (Kind.OTHER, Kind.LEAF):
            value.force()
        if value.kind in (Kind.OTHER, Kind.DRAW):
            for x in value.inputs:
                x.force()
    _name(graph, values)
    return values


def _value(node: Node, index: int, kind: Kind, inputs: tuple[Value, ...], spec: Spec, order: int) -> Value:
    shape = spec.shape
    name, attrs, size = node.name, node.attrs, math.prod(shape)
    value = Value(node, index, kind, name, node.primitive, inputs, attrs, shape, spec.dtype, size, order)
    if kind is Kind.MOVEMENT and _is_reshape(value):
        value.root = inputs[0].root
    return value


def _is_reshape(value: Value) -> bool:
    """Whether a movement keeps all elements in their order."""
    if value.name == "reshape":
        return True
    source = value.inputs[0]
    if value.size != source.size:
        return False
    if value.name == "broadcast":
        return True
    if value.name == "transpose":
        moving = [axis for axis in value.attrs["axes"] if source.shape[axis] != 1]
        return moving == sorted(moving)
    return False


def _name(graph: Graph, values: Sequence[Value]) -> None:
    """Names for all values: in%d for inputs, v%d for all else, counted along the program."""
    inputs = {key_of(symbol): f"in{i}" for i, symbol in enumerate(graph.inputs)}
    for number, value in enumerate(values, len(inputs)):
        value.label = f"v{number}"
        if value.kind is Kind.LEAF:
            value.label = inputs.get(value.key, value.label)


def buffer_of(value: Value) -> Buffer:
    return Buffer(value.label, value.shape, value.dtype)
