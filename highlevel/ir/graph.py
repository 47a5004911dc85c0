"""Graphs: immutable nodes, the symbols that are their outputs, and walks over them.

Invariants. A node is created after its inputs, and ids count upwards, so sorting by id is a topological order. Tracing
never merges nodes; `rewrite.merge_common` does, as a pass that keeps the first origin of each merged group. A graph
owns nothing but its boundary (inputs, outputs, updates): the nodes in between are those reachable from it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from highlevel.errors import TraceError

from .executor import executor
from .operand import Operand
from .printer import format_graph
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
    """A node without operator: an "input" (named), a "constant" (a Tensor), or what a "variable" holds at the start."""

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
        if len(self.specs) == 1:
            return (Symbol(self),)
        return tuple([Symbol(self, index) for index in range(len(self.specs))])

    def __repr__(self) -> str:
        return f"Node({self.name}, {', '.join(map(str, self.specs))})"


class Symbol(Operand):
    """An output of a node. Two symbols are the same if they are the same output of the same node."""

    __slots__ = ("__weakref__", "index", "mask", "node")

    node: Node
    index: int
    mask: Any  # which steps of a sequence count: put there and read by layers

    def __init__(self, node: Node, index: int = 0) -> None:
        self.node = node
        self.index = index
        self.mask = None

    @property
    def spec(self) -> Spec:
        return self.node.specs[self.index]

    @property
    def key(self) -> tuple[int, int]:
        """What identifies the symbol in dictionaries (`==` builds a graph)."""
        return self.node.id, self.index

    def numpy(self) -> np.ndarray[Any, Any]:
        """The value, if the trace runs eagerly; otherwise an error that says what to do instead."""
        if self.node.values is None:
            raise TraceError(
                f"a symbolic value was used as a number: {self.spec} of {self.node.name}",
                got=str(self.node.origin) or None,
                expected="concrete values where Python needs a number (float(), bool(), if, print of values, NumPy)",
                hint="use ops.cond, ops.where or ops.while_loop, or compile(..., run_eagerly=True) to look at values",
            )
        array = np.asarray(executor().to_host(self.node.values[self.index])).view()
        array.flags.writeable = False
        return array

    def __repr__(self) -> str:
        shown = f": {np.array2string(self.numpy(), separator=', ', threshold=50)}" if self.node.values else ""
        return f"<Symbol {self.spec} of {self.node.name}{shown}>"


def key_of(symbol: Symbol) -> tuple[int, int]:
    return symbol.node.id, symbol.index


@dataclass(frozen=True, eq=False)
class Graph:
    """A program: inputs to outputs, with the variables it reads and the new values that it gives them.

    inputs:   symbols of "input" leaves, in calling order
    outputs:  symbols
    reads:    (variable, its symbol) – the value that the variable has when the program starts; in order of first use
    updates:  (variable, symbol) – the value that it has when the program ends; in order of first assignment

    A sub-graph (of a loop, a branch) is closed: it reads no variables; what it uses of its surroundings is an input.
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
        return list(self._nodes)

    @cached_property
    def _nodes(self) -> list[Node]:
        return reachable(self.results)

    @property
    def owner(self) -> int:
        """The serial number of the trace that made it."""
        return max((symbol.node.owner for symbol in (*self.inputs, *self.results)), default=0)

    def __str__(self) -> str:
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


def attribute_key(value: Any) -> Any:
    """A hashable form of an attribute: 1, 1.0 and True stay apart, as do 0.0 and −0.0; NaN equals itself."""
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
