"""Fusion: from a graph to kernels.

In: a graph of loop operators (elementwise, movement, reductions, fills) and others (contractions, sorts, …). Out: the
kernels of the loop operators, and which symbols are buffers. Invariants: every other node reads buffers only; every
result is a buffer; a kernel writes each buffer once.

A symbol becomes a buffer if it must – it is a result, or an operand or result of a node that is not a loop operator –
or if it pays: several kernels would compute it again, and it is more than movement or a cheap operator. Everything else
is computed where it is needed.

Totals join the kernel that uses them if they run over the same rows: a consumer takes in every reduction whose
result it
reads at its own row – so softmax, layer normalisation and cross-entropy are one kernel each. P. Tillet et al.,
"Triton", 2019, and T. Chen et al., "TVM", 2018, fuse along the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from highlevel.ir import DType, Graph, Node, Symbol, as_dtype
from highlevel.ir.graph import key_of

from ..codegen import indexing as ix
from ..codegen.threefry import random_term
from .kernel import Apply, Buffer, Choose, Index, Load, LoopKernel, Number, Output, Stage, Term, Total

Key = tuple[int, int]
REDUCTIONS = {"reduce_sum": "sum", "reduce_prod": "prod", "reduce_max": "max", "reduce_min": "min"}
DRAW = "random_bits"  # computed where it is used; its key is a buffer
# Operators that cost no more than the memory traffic of keeping their result.
CHEAP = {"neg", "abs", "add", "sub", "mul", "maximum", "minimum", "select", "cast"}


@dataclass(frozen=True, slots=True)
class Fusion:
    """Kernels in an order that can run, and the buffer of each symbol that has one (by key)."""

    kernels: tuple[LoopKernel, ...]
    buffers: Mapping[Key, Buffer]


def is_loop(node: Node) -> bool:
    """Whether the node is computed inside of loop kernels."""
    primitive = node.primitive
    if primitive is None:
        return False
    if primitive.family == "elementwise":
        return primitive.scalar is not None
    return primitive.family in ("movement", "creation") or primitive.name in (*REDUCTIONS, DRAW)


def plan_fusion(graph: Graph) -> Fusion:
    """Chooses buffers and makes the kernels that fill them."""
    nodes = graph.nodes()
    names = _names(graph, nodes)
    return _Planner(nodes, names, _forced(graph, nodes)).plan()


def _names(graph: Graph, nodes: Sequence[Node]) -> dict[Key, str]:
    """A name for each symbol: in%d for inputs, v%d for all else, counted along the program."""
    names = {key_of(symbol): f"in{i}" for i, symbol in enumerate(graph.inputs)}
    for node in nodes:
        for symbol in node.outputs:
            names.setdefault(key_of(symbol), f"v{len(names)}")
    return names


def _forced(graph: Graph, nodes: Sequence[Node]) -> set[Key]:
    """Symbols that are buffers whatever the planner thinks."""
    forced = {key_of(symbol) for symbol in graph.results}
    for node in nodes:
        if node.name == DRAW:
            forced |= {key_of(symbol) for symbol in node.inputs}
        elif not is_loop(node):
            forced |= {key_of(symbol) for symbol in (*node.inputs, *node.outputs)}
    return forced


class _Planner:
    """The state of planning: which symbols are buffers so far, and how often each is used by kernels."""

    def __init__(self, nodes: Sequence[Node], names: Mapping[Key, str], forced: set[Key]) -> None:
        self.nodes = nodes
        self.names = names
        self.buffers: dict[Key, Buffer] = {}
        for node in nodes:
            for symbol in node.outputs:
                if key_of(symbol) in forced:
                    self.keep(symbol)
        self._keep_what_pays()

    def keep(self, symbol: Symbol) -> Buffer:
        key = key_of(symbol)
        if key not in self.buffers:
            self.buffers[key] = Buffer(self.names[key], symbol.shape, symbol.dtype)
        return self.buffers[key]

    def _keep_what_pays(self) -> None:
        """Goes from the results back to the inputs, so that the consumers of a node are known when its turn comes."""
        roots: dict[Key, set[Key]] = {}  # the buffers into whose kernels a symbol would be computed
        for node in reversed(self.nodes):
            if not is_loop(node):
                continue
            key = key_of(node.outputs[0])
            consumers = roots.get(key, set())
            if key not in self.buffers and len(consumers) > 1 and not self._is_cheap(node):
                self.keep(node.outputs[0])
            target = {key} if key in self.buffers else consumers
            for source in node.inputs:
                roots.setdefault(key_of(source), set()).update(target)

    def _is_cheap(self, node: Node) -> bool:
        assert node.primitive is not None
        if node.primitive.family in ("movement", "creation"):
            return True
        operands_kept = all(key_of(s) in self.buffers or not is_loop(s.node) for s in node.inputs)
        return node.primitive.name in CHEAP and operands_kept

    def plan(self) -> Fusion:
        """All kernels; a total that cannot join its consumer gets a buffer, and the consumer is built anew."""
        kernels: dict[int, LoopKernel] = {}
        pending = [node for node in self.nodes if is_loop(node) and key_of(node.outputs[0]) in self.buffers]
        while pending:
            node = pending.pop()
            try:
                kernels[node.id] = self.kernel(node)
            except _CannotJoin as apart:
                self.keep(apart.total)
                pending += [node, apart.total.node]
        return Fusion(tuple(kernels[id] for id in sorted(kernels)), self.buffers)

    def kernel(self, node: Node) -> LoopKernel:
        """The kernel that fills the buffer of a node."""
        symbol = node.outputs[0]
        buffer = self.buffers[key_of(symbol)]
        first = self._first_total(symbol)
        per_element = True
        if first is None:
            scope = _RowScope(self, (), buffer.shape)
        else:
            operand, axes = first.inputs[0], first.attrs["axes"]
            scope = _RowScope(self, axes, operand.shape)
            per_element = buffer.shape == operand.shape
            if not per_element and not scope.is_per_row(buffer.shape):
                raise _CannotJoin(first.outputs[0])
        if per_element:
            indices = scope.indices
        else:
            indices = ix.unravel(ix.ravel(scope.own, scope.row_shape), buffer.shape)
        term = scope.term(symbol, indices, at_root=True)
        output = Output(buffer, ix.ravel(indices, buffer.shape), term, per_element)
        origins = tuple(dict.fromkeys(origin for origin in scope.origins if origin))
        return LoopKernel(buffer.name, scope.rows, scope.columns, tuple(scope.stages), (output,), origins)

    def _first_total(self, symbol: Symbol) -> Node | None:
        """The nearest reduction that the kernel of a symbol would take in."""
        seen: set[int] = set()
        queue = [symbol.node]
        for node in queue:
            if node.id in seen or not is_loop(node):
                continue
            seen.add(node.id)
            if node.name in REDUCTIONS:
                return node
            queue += [source.node for source in node.inputs if key_of(source) not in self.buffers]
        return None


class _CannotJoin(Exception):
    """A total is read at another row, or runs over other columns, than the kernel's own; or a draw is repeated."""

    def __init__(self, total: Symbol) -> None:
        super().__init__(total)
        self.total = total


class _RowScope:
    """Builds terms inside of one kernel: rows and columns of an iteration space, and the totals found on the way."""

    def __init__(self, planner: _Planner, columns: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.planner = planner
        self.shape = shape
        self.column_axes = columns
        self.indices = tuple(ix.var(f"i{axis}", size) for axis, size in enumerate(shape))
        self.own = tuple(x for axis, x in enumerate(self.indices) if axis not in columns)
        self.rows = tuple((f"i{axis}", size) for axis, size in enumerate(shape) if axis not in columns)
        self.columns = tuple((f"i{axis}", size) for axis, size in enumerate(shape) if axis in columns)
        self.row_shape = tuple(size for axis, size in enumerate(shape) if axis not in columns)
        self.stages: list[Stage] = []
        self.origins: list[str] = []
        self.totals: dict[Key, Total] = {}
        self._terms: dict[tuple[Key, tuple[ix.Expr, ...]], Term] = {}

    def is_per_row(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of that shape has one element for each row."""
        return math.prod(shape) == math.prod(self.row_shape)

    def term(self, symbol: Symbol, indices: tuple[ix.Expr, ...], at_root: bool = False) -> Term:
        """The element of a symbol at indices."""
        key = key_of(symbol)
        if not at_root and key in self.planner.buffers:
            return Load(self.planner.names[key], ix.ravel(indices, symbol.shape), symbol.dtype)
        if (key, indices) not in self._terms:
            self._terms[key, indices] = self._build(symbol, indices)
        return self._terms[key, indices]

    def _build(self, symbol: Symbol, indices: tuple[ix.Expr, ...]) -> Term:
        node = symbol.node
        primitive = node.primitive
        assert primitive is not None
        self.origins.append(node.origin.layer)
        if primitive.name in REDUCTIONS:
            if node.attrs["axes"] != self.column_axes or node.inputs[0].shape != self.shape or indices != self.own:
                raise _CannotJoin(symbol)
            return self.total(node)
        if primitive.family == "elementwise":
            operands = tuple(self.term(source, indices) for source in node.inputs)
            return Apply(primitive, operands, tuple(sorted(node.attrs.items())), symbol.dtype)
        if primitive.name == DRAW:
            if math.prod(self.shape) > symbol.size:  # drawn once, not once for each element that it is repeated for
                raise _CannotJoin(symbol)
            return random_term(self.planner.names[key_of(node.inputs[0])], ix.ravel(indices, symbol.shape))
        if primitive.name == "full":
            return Number(node.attrs["value"], symbol.dtype)
        if primitive.name == "iota":
            return Index(indices[node.attrs["axis"]], symbol.dtype)
        if primitive.name == "concatenate":
            return self._concatenated(node, indices)
        return self._moved(node, indices)

    def _moved(self, node: Node, indices: tuple[ix.Expr, ...]) -> Term:
        source = node.inputs[0]
        place = ix.move(node.name, source.shape, indices, node.attrs)
        if not source.spec.size:
            return Number(place.padding, source.dtype)  # nothing but padding
        inside = self.term(source, place.indices)
        if not place.conditions:
            return inside
        return Choose(place.conditions, inside, Number(place.padding, source.dtype), source.dtype)

    def _concatenated(self, node: Node, indices: tuple[ix.Expr, ...]) -> Term:
        axis, end = node.attrs["axis"], node.specs[0].shape[node.attrs["axis"]]
        result: Term | None = None
        for source in reversed(node.inputs):
            start = end - source.shape[axis]
            if source.shape[axis]:
                moved = tuple(ix.add(x, ix.const(-start)) if a == axis else x for a, x in enumerate(indices))
                inside = self.term(source, moved)
                bound = ix.Bound(indices[axis], start, end)
                result = inside if result is None else Choose((bound,), inside, result, source.dtype)
            end = start
        return result if result is not None else Number(0, node.specs[0].dtype)

    def total(self, node: Node) -> Total:
        """The stage of a reduction, made once."""
        key = key_of(node.outputs[0])
        if key not in self.totals:
            operand = node.inputs[0]
            term = self.term(operand, self.indices)
            wide = _accumulator(operand.dtype, node.name)
            name = f"t{len(self.stages)}"
            self.stages.append(Stage(name, REDUCTIONS[node.name], term, wide, operand.dtype))
            self.totals[key] = Total(name, operand.dtype)
        return self.totals[key]


def _accumulator(dtype: DType, name: str) -> DType:
    """Half types add up in float32, as the interpreter does."""
    return as_dtype("float32") if name == "reduce_sum" and dtype.is_float and dtype.size_bytes == 2 else dtype
