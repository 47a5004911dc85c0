"""From a `LoopKernel` to LLVM IR in vectors.

In: a kernel (collapsed). Out: a function in an LLVM module,

    void name(i64 begin, i64 end, ptr buffer…)       buffers: what the kernel reads, then what it writes

that computes the rows begin … end − 1 of the outermost row axis – so that threads can share the work. A row is always
computed whole and in the same order, whatever the cut, so the result does not depend on the number of threads. A
kernel without row axes has one row.

There are four ways to go, by what lies side by side in memory:

    map        no totals: elements of the last row axis in lanes
    along      totals along the last column axis, in lanes; the lanes are added up at the end of each row
    across     few columns (the taps of a window): rows in lanes, totals in registers, columns written out
    down       many columns, rows side by side (sums over leading axes): a line of totals, to which a few columns at a
               time are added, so that memory is walked in order

No fast-math flags anywhere: how lanes and parts are combined is written out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from highlevel.ir import DType

from ...schedule.collapse import substitute
from ...schedule.kernel import LoopKernel, Output, Stage
from ...schedule.split import early_outputs, identity, levels_of, style_of
from .. import indexing as ix
from ..scalar import LlvmScalars, Scalar, memory_type
from .cost import cost_of, is_short, lanes_for, terms_of
from .kept import KeptTerms
from .nest import Axis, Nest
from .streams import fits, streamed_outputs
from .terms import I64, Terms, i64
from .tiles import Tiles

LINE = 512  # rows in a line of totals
JAM = 8  # columns that are added to a line at once


def emit_kernel(
    module: Any,
    kernel: LoopKernel,
    name: str,
    dtypes: Mapping[str, DType],
    target: Any,
    workspace: Mapping[str, int] | None = None,
) -> Any:
    """Adds the kernel's function to a module; `dtypes` has the element type of each buffer by name.

    workspace: buffers that lie in the workspace, at an offset in bytes; its address is then the last argument
    """
    inner = workspace or {}
    names = [buffer for buffer in dict.fromkeys((*kernel.reads, *kernel.writes)) if buffer not in inner]
    pointers = [ir.PointerType()] * (len(names) + bool(inner))
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64, *pointers]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    begin, end, *addresses = function.args
    buffers = dict(zip(names, addresses, strict=False))
    for buffer, offset in inner.items():
        buffers[buffer] = builder.gep(addresses[-1], [i64(offset)], source_etype=ir.IntType(8))
    work, done = (function.append_basic_block(label) for label in ("work", "done"))
    emitter = KernelEmitter(builder, kernel, buffers, dtypes, target, (begin, end))
    emitter.reserve()
    builder.cbranch(builder.icmp_signed("<", begin, end), work, done)
    builder.position_at_end(work)
    streamed = streamed_outputs(kernel, target)
    if streamed:
        past, through = (function.append_basic_block(label) for label in ("past", "through"))
        builder.cbranch(fits(builder, kernel, streamed, buffers, begin, dtypes), past, through)
        builder.position_at_end(past)
        emitter.streaming(streamed).emit()
        builder.fence("seq_cst")
        builder.branch(done)
        builder.position_at_end(through)
    emitter.emit()
    builder.branch(done)
    builder.position_at_end(done)
    builder.ret_void()
    return function


@dataclass(frozen=True, slots=True)
class Line:
    """Totals of neighbouring rows, in memory: of rows `start` and on."""

    memory: Any
    start: Any
    row: str


class KernelEmitter:
    """Emits one kernel."""

    def __init__(
        self,
        builder: Any,
        kernel: LoopKernel,
        pointers: Mapping[str, Any],
        dtypes: Mapping[str, DType],
        target: Any,
        bounds: tuple[Any, Any],
    ) -> None:
        self.builder = builder
        self.kernel = kernel
        self.dtypes = {**dtypes, **{output.buffer.name: output.buffer.dtype for output in kernel.outputs}}
        self.target = target
        self.style = style_of(kernel)
        self.terms = Terms(builder, pointers, self.dtypes, frozenset(name for name, _ in kernel.rows), target)
        self.nest = Nest(builder, self.terms, target.masking, is_short(kernel))
        rows = kernel.rows or (("", 1),)
        self.rows: list[Axis] = [(rows[0][0], *bounds), *((name, 0, size) for name, size in rows[1:])]
        self.columns: list[Axis] = [(name, 0, size) for name, size in kernel.columns]
        self.early = early_outputs(kernel)
        self.each = [output for output in kernel.outputs if output.per_element and output not in self.early]
        self.once = [output for output in kernel.outputs if not output.per_element]
        self.slots: dict[str, Any] = {}
        self.tiles: Tiles | None = None
        self.kept = KeptTerms("")

    def reserve(self) -> None:
        """Memory that the function needs on its stack; it belongs into the first block."""
        self.tiles = Tiles.reserve(self.builder, self.kernel, self.dtypes, self.target)
        if self.style == "along":
            walks = [[*(stage.term for stage in level), *(o.term for o in more)] for level, more in self._levels()]
            walks.append([output.term for output in self.each])
            self.kept = KeptTerms.reserve(self.builder, self.terms, self.kernel, walks)
        if self.style == "down":
            for stage in self.kernel.stages:
                kind = ir.ArrayType(memory_type(stage.dtype), self._line)
                memory = self.builder.alloca(kind)
                memory.align = 64
                memory.type = ir.PointerType()  # llvmlite would have it typed
                self.slots[stage.name] = memory

    def streaming(self, outputs: Sequence[Output]) -> KernelEmitter:
        """The same with outputs that are written past the caches, in the same memory on the stack."""
        bounds = self.rows[0][1:]
        other = KernelEmitter(self.builder, self.kernel, self.terms.pointers, self.dtypes, self.target, bounds)
        other.slots, other.tiles, other.kept = self.slots, self.tiles, self.kept
        other.terms.streamed = frozenset(output.buffer.name for output in outputs)
        return other

    @property
    def _line(self) -> int:
        return min(self.kernel.rows[-1][1], LINE) if len(self.kernel.rows) > 1 else LINE

    def emit(self) -> None:
        {"map": self._map, "along": self._along, "across": self._across, "down": self._down}[self.style]()

    def _lanes(self, axis: tuple[str, int] | None, dynamic: bool) -> int:
        if axis is None:
            return 1
        return lanes_for(self.kernel, self.dtypes, self.target, None if dynamic else axis[1])

    # Map -------------------------------------------------------------------------------------------------------------
    def _map(self) -> None:
        """Outputs alone. Those per row come first: nothing per element is theirs to read."""
        if self.tiles:
            self.tiles.emit(self.nest, self.rows, lambda: self._store(self.kernel.outputs))
            return
        outputs = [(self.once, self.rows)] if self.once else []
        if self.each:
            outputs.append((self.each, [*self.rows, *self.columns]))
        for some, axes in outputs:
            name, _, size = axes[-1]
            lanes = self._lanes((name, size) if name else None, len(axes) == 1)
            self._store_over(axes, some, lanes)

    def _store_over(self, axes: Sequence[Axis], outputs: Sequence[Output], lanes: int) -> None:
        """Outputs for all of some axes, the last of them in lanes; all is loaded before anything is stored."""
        if not outputs:
            return
        roots, places = [output.term for output in outputs], [output.place for output in outputs]
        *outer, last = axes

        def body(_: list[Any]) -> list[Any]:
            self.kept.recall(self.terms, roots, len(self._levels()))
            return self._store(outputs)

        def inner(_: list[Any]) -> list[Any]:
            self.terms.prepare(roots, places, lanes)
            self.nest.along(last, lanes, body)
            return []

        self.nest.over(outer, [], inner, roots, places, lanes)

    def _store(self, outputs: Sequence[Output]) -> list[Any]:
        values = [self.terms.vector(output.term) for output in outputs]
        for output, value in zip(outputs, values, strict=True):
            self.terms.store_value(output.buffer.name, output.place, value)
        return []

    def _levels(self) -> list[tuple[list[Stage], tuple[Output, ...]]]:
        """Passes over the columns: totals, and what is stored."""
        return [(level, () if i else self.early) for i, level in enumerate(levels_of(self.kernel.stages))]

    # Totals along columns, in lanes ----------------------------------------------------------------------------------
    def _along(self) -> None:
        lanes = self._lanes(self.kernel.columns[-1], False)
        roots = terms_of(self.kernel)
        places = [output.place for output in self.kernel.outputs]

        def row(_: list[Any]) -> list[Any]:
            for i, (level, outputs) in enumerate(self._levels()):
                self._totals_along(i, level, outputs)
            values = [self.terms.value(output.term) for output in self.once]
            self._store_over(self.columns, self.each, lanes)
            for output, value in zip(self.once, values, strict=True):
                self.terms.store_value(output.buffer.name, output.place, value)
            return []

        self.nest.over(self.rows, [], row, roots, places, lanes)

    def _totals_along(self, number: int, level: Sequence[Stage], outputs: Sequence[Output]) -> None:
        """The totals of a level, in one walk over the columns."""
        lanes = lanes_for(self.kernel, self.dtypes, self.target, self.kernel.columns[-1][1], level)
        nest, terms = self.nest, self.terms
        *outer, last = self.columns
        roots = [*(stage.term for stage in level), *(output.term for output in outputs)]
        places = [output.place for output in outputs]
        terms.prepare(roots, places, lanes)
        wide, narrow = (self._identities(level, count) for count in (lanes, 1))
        split = len(wide)

        def body(values: list[Any]) -> list[Any]:
            self.kept.recall(terms, roots, number)
            totals = [self._added(stage, value) for stage, value in zip(level, values, strict=True)]
            self.kept.store(terms, number)
            self._store(outputs)
            return totals

        def walk_row(values: list[Any]) -> list[Any]:
            carried, single = nest.along(last, lanes, body, values[:split], values[split:])
            return [*carried, *single]

        found = nest.over(outer, [*wide, *narrow], walk_row, roots, places, lanes)
        for i, stage in enumerate(level):
            total = Scalar(found[split + i], stage.dtype)
            if lanes > 1:
                of_lanes = nest.total_of_lanes(
                    Scalar(found[i], stage.dtype), functools.partial(_combined, stage.combine)
                )
                rest = isinstance(found[split + i], ir.Constant)
                total = of_lanes if rest else combine(terms.language(1), stage.combine, of_lanes, total)
            result = terms.language(1).cast(total, stage.result)
            terms.totals[stage.name] = lambda result=result: result  # type: ignore[misc]

    def _identities(self, level: Sequence[Stage], lanes: int) -> list[Any]:
        k = self.terms.language(lanes)
        return [k.number(identity(stage.combine, stage.dtype), stage.dtype).value for stage in level]

    def _added(self, stage: Stage, value: Any) -> Any:
        """A total with the current element added; lanes that are masked stay as they are."""
        terms = self.terms
        k = terms.language(terms.lanes)
        total = Scalar(value, stage.dtype)
        more = combine(k, stage.combine, total, k.cast(terms.vector(stage.term), stage.dtype))
        return more.value if terms.mask is None else self.builder.select(terms.mask, more.value, value)

    # Few columns, rows in lanes --------------------------------------------------------------------------------------
    def _across(self) -> None:
        columns = math.prod(size for _, size in self.kernel.columns)
        *outer, last = self.rows
        lanes = self._lanes(self.kernel.rows[-1] if self.kernel.rows else None, len(self.rows) == 1)
        taps = [self._at(index) for index in range(columns)]
        roots = [stage.term for tap in taps for stage in tap.stages]
        roots += [o.term for o in self.once] + [o.term for tap in taps for o in tap.outputs if o.per_element]
        places = [o.place for o in self.once] + [o.place for tap in taps for o in tap.outputs if o.per_element]

        def body(_: list[Any]) -> list[Any]:
            k, terms = self.terms.language(self.terms.lanes), self.terms
            for level in levels_of(self.kernel.stages):
                for stage in level:
                    position = self.kernel.stages.index(stage)
                    values = [k.cast(terms.vector(tap.stages[position].term), stage.dtype) for tap in taps]
                    total = k.cast(self._tree(k, stage, values), stage.result)
                    terms.totals[stage.name] = lambda total=total: total  # type: ignore[misc]
            return self._store([*self.once, *(o for tap in taps for o in tap.outputs if o.per_element)])

        def inner(_: list[Any]) -> list[Any]:
            self.terms.prepare(roots, places, lanes)
            self.nest.along(last, lanes, body)
            return []

        self.nest.over(outer, [], inner, roots, places, lanes)

    def _at(self, index: int) -> LoopKernel:
        """The kernel at one of its columns."""
        values: dict[str, ix.Expr] = {}
        for name, size in reversed(self.kernel.columns):
            values[name] = ix.const(index % size)
            index //= size
        return substitute(self.kernel, values)

    def _tree(self, k: LlvmScalars, stage: Stage, values: list[Scalar]) -> Scalar:
        """Neighbours are combined until one is left."""
        if not values:
            return k.number(identity(stage.combine, stage.dtype), stage.dtype)
        while len(values) > 1:
            pairs = [combine(k, stage.combine, a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
            values = [*pairs, *([values[-1]] if len(values) % 2 else [])]
        return values[0]

    # Many columns, lines of totals -----------------------------------------------------------------------------------
    def _down(self) -> None:
        *outer, (row, start, stop) = self.rows
        size = self._line
        if outer and size == self.kernel.rows[-1][1]:
            self.nest.over(outer, [], lambda _: self._lines(row, 0, size))
            return
        lines = f"{row}.line"

        def block(_: list[Any]) -> list[Any]:
            first = self.terms.variables[lines]
            last = i64(stop) if isinstance(stop, int) else stop
            following = self.builder.add(first, i64(size))
            shorter = self.builder.icmp_signed("<", following, last)
            return self._lines(row, first, self.builder.select(shorter, following, last))

        def steps(_: list[Any]) -> list[Any]:
            def step(i: Any, _: list[Any]) -> list[Any]:
                with self.terms.scope():
                    self.terms.variables[lines] = i
                    return block([])

            return self.nest.count(start, stop, [], step, size)

        self.nest.over(outer, [], steps)

    def _lines(self, row: str, start: Any, stop: Any) -> list[Any]:
        """Totals and outputs of neighbouring rows."""
        nest, kernel = self.nest, self.kernel
        known = isinstance(start, int)
        lanes = lanes_for(kernel, self.dtypes, self.target, stop - start if known else None)
        first = i64(start) if known else start
        axis = (row, start, stop)
        for level, outputs in self._levels():
            lines = {stage.name: Line(self.slots[stage.name], first, row) for stage in level}

            def clear(_: list[Any], level: list[Stage] = level, lines: dict[str, Line] = lines) -> list[Any]:
                k = self.terms.language(self.terms.lanes)
                for stage in level:
                    zero = k.number(identity(stage.combine, stage.dtype), stage.dtype)
                    self._store_line(lines[stage.name], zero)
                return []

            nest.along(axis, lanes, clear)
            self._add_columns(level, outputs, lines, axis, lanes)
            for stage in level:
                line = lines[stage.name]
                self.terms.totals[stage.name] = lambda s=stage, line=line: self.terms.language(self.terms.lanes).cast(  # type: ignore[misc]
                    self._load_line(line, s.dtype), s.result
                )
        if self.each:
            *outer, last = self.columns
            self._store_over([*outer, last, axis], self.each, lanes)
        self._store_over([axis], self.once, lanes)
        return []

    def _add_columns(
        self, level: Sequence[Stage], outputs: Sequence[Output], lines: Mapping[str, Line], axis: Axis, lanes: int
    ) -> None:
        *outer, (column, _, size) = self.columns
        roots = [*(stage.term for stage in level), *(output.term for output in outputs)]
        places = [output.place for output in outputs]
        jam = 1 if self.nest.short else max(1, min(JAM, 64 // max(cost_of(roots), 1)))
        jam = max((n for n in range(jam, 0, -1) if size % n == 0 and 2 * n > jam), default=jam)

        def several(count: int, base: Any) -> None:
            def body(_: list[Any]) -> list[Any]:
                k, terms = self.terms.language(self.terms.lanes), self.terms
                terms.prepare(roots, places, terms.lanes)
                found: list[list[Scalar]] = [[] for _ in level]
                for i in range(count):
                    with terms.scope():
                        terms.variables[column] = self.builder.add(base, i64(i)) if i else base
                        for values, stage in zip(found, level, strict=True):
                            values.append(k.cast(terms.vector(stage.term), stage.dtype))
                        self._store(outputs)
                for values, stage in zip(found, level, strict=True):
                    before = self._load_line(lines[stage.name], stage.dtype)
                    total = combine(k, stage.combine, before, self._tree(k, stage, values))
                    self._store_line(lines[stage.name], total)
                return []

            self.nest.along(axis, lanes, body)

        def columns(_: list[Any]) -> list[Any]:
            whole = size // jam * jam
            for start, stop, count in ((0, whole, jam), (whole, size, 1)):
                self.nest.count(start, stop, [], lambda i, _, count=count: several(count, i) or [], count)  # type: ignore[misc, func-returns-value]
            return []

        self.nest.over(outer, [], columns, roots, places, lanes)

    def _line_address(self, line: Line, dtype: DType) -> Any:
        place = self.builder.sub(self.terms.variables[line.row], line.start)
        return self.builder.gep(line.memory, [place], inbounds=True, source_etype=memory_type(dtype))

    def _load_line(self, line: Line, dtype: DType) -> Scalar:
        k = self.terms.language(self.terms.lanes)
        return k.load(self._line_address(line, dtype), dtype, self.terms.mask)

    def _store_line(self, line: Line, x: Scalar) -> None:
        k = self.terms.language(self.terms.lanes)
        k.store(self._line_address(line, x.dtype), x, self.terms.mask)


def _combined(name: str, k: LlvmScalars, a: Scalar, b: Scalar) -> Scalar:
    return combine(k, name, a, b)


def combine(k: LlvmScalars, name: str, total: Scalar, value: Scalar) -> Scalar:
    """One more value in a total."""
    operation = {"sum": k.add, "prod": k.mul, "max": k.maximum, "min": k.minimum}[name]
    return operation(total, value)
