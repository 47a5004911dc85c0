"""Graphs: immutable nodes, the symbols that are their outputs, and walks over them.

Invariants. A node is created after its inputs, and ids count upwards, so sorting by id is a topological order. Tracing
never merges nodes; `merge_common` does, as a pass that keeps one origin of each merged group. A graph owns nothing but its
boundary (inputs, outputs, updates): the nodes in between are those reachable from it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from highlevel.errors import TraceError

from .operand import Operand
from .spec import Spec

if TYPE_CHECKING:
    from .primitive import Primitive
    from .variable import Variable

_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from: the path of the layer that was running, and the user's file and line."""

    layer: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        return "  ".join(part for part in (self.layer, place) if part)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A node without operator: an "input" (named), a "constant" (a Tensor) or the value of a "variable" at the start."""

    kind: str
    value: Any


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """One application of an operator, or a leaf.

    `owner` is the serial number of the trace that the node belongs to: a sub-graph (of a loop, a branch) takes
    nodes of other owners as captured inputs. `values` holds the computed outputs while a trace runs eagerly.
    """

    primitive: Primitive | None
    inputs: tuple[Symbol, ...]
    attrs: Mapping[str, Any]
    specs: tuple[Spec, ...]
    owner: int
    origin: Origin = Origin()
    leaf: Leaf | None = None
    values: tuple[Any, ...] | None = None
    id: int = field(default_factory=_ids.__next__)

    @property
    def name(self) -> str:
        return self.primitive.name if self.primitive else self.leaf.kind if self.leaf else "?"

    @property
    def outputs(self) -> tuple[Symbol, ...]:
        return tuple(Symbol(self, index) for index in range(len(self.specs)))

    def __repr__(self) -> str:
        return f"Node({self.name}, {', '.join(map(str, self.specs))})"


class Abstract(Operand):
    """An operand that is not a number (yet): operators applied to it are handed to `apply`."""

    __slots__ = ()

    def apply(self, primitive: Primitive, operands: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        raise NotImplementedError


class Symbol(Abstract):
    """An output of a node. Two symbols are the same if they are the same output of the same node."""

    __slots__ = ("__weakref__", "index", "node")

    node: Node
    index: int

    def __init__(self, node: Node, index: int = 0) -> None:
        self.node = node
        self.index = index

    @property
    def spec(self) -> Spec:
        return self.node.specs[self.index]

    @property
    def key(self) -> tuple[int, int]:
        """What identifies the symbol in dictionaries (`==` builds a graph)."""
        return self.node.id, self.index

    def apply(self, primitive: Primitive, operands: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
        return trace.record(primitive, operands, attrs)

    def numpy(self) -> np.ndarray[Any, Any]:
        if self.node.values is None:
            raise TraceError(
                f"a symbolic value was used as a number: {self.spec} of {self.node.name}",
                expected="concrete values where Python needs a number (float(), bool(), if, print of values, NumPy)",
                layer=self.node.origin.layer or None,
                hint="use ops.cond, ops.where or ops.while_loop, or compile(..., run_eagerly=True) to look at values",
            )
        return np.asarray(self.node.values[self.index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype)

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __index__(self) -> int:
        return self.numpy().__index__()

    def item(self) -> Any:
        return self.numpy().item()

    def __repr__(self) -> str:
        return f"<Symbol {self.spec} of {self.node.name}>"


def key_of(symbol: Symbol) -> tuple[int, int]:
    return symbol.node.id, symbol.index


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A program: inputs to outputs, with the variables it reads and the new values that it gives them.

    inputs:   symbols of "input" leaves, in calling order
    outputs:  symbols
    reads:    (variable, its symbol) – the value that the variable has when the program starts
    updates:  (variable, symbol) – the value that it has when the program ends
    captures: symbols of enclosing graphs that the graph uses (sub-graphs only; they become operands of the loop)
    """

    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    reads: tuple[tuple[Variable, Symbol], ...] = ()
    updates: tuple[tuple[Variable, Symbol], ...] = ()

    @property
    def results(self) -> tuple[Symbol, ...]:
        """Everything the program has to compute: outputs, then new values of variables."""
        return (*self.outputs, *(symbol for _, symbol in self.updates))

    def nodes(self) -> list[Node]:
        """The nodes that the results depend on, in topological order, inputs included."""
        return reachable(self.results)

    def __str__(self) -> str:
        from .printer import format_graph

        return format_graph(self)

    __repr__ = __str__


def reachable(symbols: Iterable[Symbol], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """All nodes that `symbols` depend on, in topological order; inputs of nodes where `stop` holds are not followed."""
    found: dict[int, Node] = {}
    stack = [symbol.node for symbol in symbols]
    while stack:
        node = stack.pop()
        if node.id in found:
            continue
        found[node.id] = node
        if stop is None or not stop(node):
            stack.extend(symbol.node for symbol in node.inputs)
    return [found[id] for id in sorted(found)]


def captures(symbols: Iterable[Symbol], owner: int) -> list[Symbol]:
    """The symbols of other traces that a sub-graph made by trace `owner` uses, each once, in order of creation."""
    results = list(symbols)
    inside = [node for node in reachable(results, stop=lambda node: node.owner != owner) if node.owner == owner]
    used = [symbol for node in inside for symbol in node.inputs] + results
    outside = {key_of(symbol): symbol for symbol in used if symbol.node.owner != owner}
    return [outside[key] for key in sorted(outside)]


def substitute(symbols: Sequence[Symbol], replacements: Mapping[tuple[int, int], Symbol]) -> list[Symbol]:
    """The same expressions with some symbols (by key) replaced; only what depends on them is built anew."""
    known = dict(replacements)

    def lookup(symbol: Symbol) -> Symbol:
        return known.get(key_of(symbol), symbol)

    for node in reachable(symbols, stop=lambda node: all((node.id, i) in replacements for i in range(len(node.specs)))):
        if node.primitive is None or (node.id, 0) in known:
            continue
        if any(key_of(symbol) in known for symbol in node.inputs):
            rebuilt = trace.record_many(node.primitive, tuple(map(lookup, node.inputs)), node.attrs, node.origin)
            for index, symbol in enumerate(rebuilt):
                known.setdefault((node.id, index), symbol)
    return [lookup(symbol) for symbol in symbols]


def attribute_key(value: Any) -> Any:
    """A hashable form of an attribute in which 1, 1.0 and True stay apart, as do 0.0 and −0.0, and NaN equals itself."""
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    if isinstance(value, (bool, int, str, bytes, type(None))):
        return type(value).__name__, value
    if isinstance(value, (tuple, list)):
        return "tuple", tuple(map(attribute_key, value))
    if isinstance(value, dict):
        return "dict", tuple((name, attribute_key(value[name])) for name in sorted(value))
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    return type(value).__name__, id(value)


def merge_common(graph: Graph) -> Graph:
    """Hash-consing: equal operators on equal inputs become one node. Two different constants or inputs stay apart."""
    known: dict[tuple[int, int], Symbol] = {}
    seen: dict[Any, tuple[Symbol, ...]] = {}

    def lookup(symbol: Symbol) -> Symbol:
        return known.get(key_of(symbol), symbol)

    for node in graph.nodes():
        if node.primitive is None:
            continue
        inputs = tuple(map(lookup, node.inputs))
        key = (node.name, tuple(map(key_of, inputs)), attribute_key(dict(node.attrs)))
        if key not in seen:
            changed = any(key_of(a) != key_of(b) for a, b in zip(inputs, node.inputs, strict=True))
            if changed:
                node_symbols = trace.record_many(node.primitive, inputs, node.attrs, node.origin)
                known.update({(node.id, i): symbol for i, symbol in enumerate(node_symbols)})
                seen[key] = node_symbols
            else:
                seen[key] = node.outputs
        else:
            known.update({(node.id, i): symbol for i, symbol in enumerate(seen[key])})
    return Graph(
        graph.inputs,
        tuple(map(lookup, graph.outputs)),
        graph.reads,
        tuple((variable, lookup(symbol)) for variable, symbol in graph.updates),
    )


# A trace records symbols; symbols record in the open trace.
from . import trace  # noqa: E402
