"""The functions that transform lines, and the memory that they take.

Real and imaginary parts lie in arrays of their own. A line is transformed by one thread; where a single line gives no
whole vectors, as many lines as a vector has lanes are transformed side by side. Every line sees the same operations in
the same order, alone or not, so its result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from llvmlite import ir

from highlevel.ir import DType
from highlevel.ir.dtypes import float64

from ...cache import Unit
from ..contraction.values import I32, I64, POINTER, Builder, Value, computed_in
from ..factor.language import Language, X
from ..kernel import forward, kernel
from ..targets import Target
from .plan import (
    KEPT,
    Numbers,
    Stage,
    chirp,
    chirp_filter,
    coarse_and_fine,
    convolution_size,
    is_smooth,
    stages_of,
    table_entries,
    twiddles,
)
from .stages import Line, Z, emit_stages

LINE_BYTES = 64
PIECE = 64  # elements of a line that are put beside those of others at a time


@dataclass(frozen=True, slots=True)
class Transform:
    """The transform of lines of one length and type: its functions, and the memory that they take.

    lines: how many there are: only whether they are transformed side by side follows from it
    scale: the result is multiplied with it
    kept:  complex numbers that may be data of a unit
    """

    size: int
    dtype: DType
    target: Target
    lines: int
    scale: float = 1.0
    kept: int = KEPT

    @property
    def number(self) -> DType:
        return computed_in(self.dtype)

    @property
    def lanes(self) -> int:
        return self.target.lanes(8 * self.number.size_bytes)

    @property
    def smooth(self) -> bool:
        return is_smooth(self.size)

    @property
    def length(self) -> int:
        """Of the transforms that are made: of the line itself, or of Bluestein's convolution."""
        return self.size if self.smooth else convolution_size(self.size, self.lanes)

    @property
    def group(self) -> int:
        """How many lines are transformed side by side."""
        alone = all(s.stride >= self.lanes or self._is_narrow(s) for s in stages_of(self.length, 1))
        return 1 if alone or 2 * self.lines < self.lanes else self.lanes

    def _is_narrow(self, stage: Stage) -> bool:
        return self.lanes % stage.stride == 0 and (self.length // stage.radix) % self.lanes == 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        return stages_of(self.length, self.group)

    @property
    def is_kept(self) -> bool:
        """Whether all tables are data of the unit."""
        return max(self.length, table_entries(self.stages)) <= self.kept

    # Memory ----------------------------------------------------------------------------------------------------------
    def _bytes(self, count: int) -> int:
        return -(-count * self.number.size_bytes // LINE_BYTES) * LINE_BYTES

    @property
    def _tables(self) -> list[int]:
        """Elements of the tables: of factors; with Bluestein, of the chirp and of the filter."""
        padded = -(-self.size // self.lanes) * self.lanes
        return [max(1, table_entries(self.stages)), *(() if self.smooth else (padded, self.length))]

    @property
    def shared_bytes(self) -> int:
        return 0 if self.is_kept else sum(2 * self._bytes(count) for count in self._tables)

    @property
    def thread_bytes(self) -> int:
        return 4 * self._bytes(self.length * self.group)

    def _work(self, k: Language, workspace: Value, tid: Value) -> tuple[Line, Line]:
        """This thread's memory."""
        own = k.builder.mul(k.builder.sext(tid, I64), I64(self.thread_bytes))
        base = forward(k.builder, forward(k.builder, workspace, self.shared_bytes), own)
        step = self._bytes(self.length * self.group)
        parts = [forward(k.builder, base, i * step) for i in range(4)]
        return Line.at(k, *parts[:2]), Line.at(k, *parts[2:])

    def _shared(self, k: Language, workspace: Value) -> list[Line]:
        """The tables: data of this unit, or in the workspace."""
        if self.is_kept:
            found = [twiddles(self.length, self.stages)]
            if not self.smooth:
                found += [chirp(self.size), chirp_filter(self.size, self.length)]
            pairs = zip(found, self._tables, ("factors", "chirp", "filter"), strict=False)
            return [_data(k, np.pad(numbers, (0, count - len(numbers))), name) for numbers, count, name in pairs]
        lines, offset = [], 0
        for count in self._tables:
            parts = [forward(k.builder, workspace, offset + i * self._bytes(count)) for i in range(2)]
            lines.append(Line.at(k, *parts))
            offset += 2 * self._bytes(count)
        return lines

    # Functions -------------------------------------------------------------------------------------------------------
    def unit(self) -> Unit:
        """`kernel(begin, end, tid, workspace, re, im, goal_re, goal_im)`: transforms lines begin … end − 1.

        `begin` has to be a multiple of `group`.
        """

        def write(builder: Builder, begin: Value, end: Value, tid: Value, workspace: Value, *arrays: Value) -> None:
            k = Language(builder, self.number, self.target)
            work, tables = self._work(k, workspace, tid), self._shared(k, workspace)
            emit = self._emit_group if self.smooth else self._emit_chirped
            with k.loop(X(begin, k), X(end, k), self.group) as first:
                count = k.minimum(X(end, k) - first, self.group)
                starts = [forward(builder, a, (first * self.size).value, self.dtype.size_bytes) for a in arrays]
                emit(k, starts, count, work, tables)

        return kernel(self.target, [I64, I64, I32, *[POINTER] * 5], write, level=2)

    def _emit_group(
        self, k: Language, arrays: Sequence[Value], count: X, work: tuple[Line, Line], tables: Sequence[Line]
    ) -> None:
        size = self.length * self.group
        if self.group == 1 and self.stages and self.dtype is self.number:
            source, goal = Line.at(k, *arrays[:2]), Line.at(k, *arrays[2:])
            emit_stages(k, self.stages, size, source, work, tables[0], goal, self.scale)
            return
        self._load(k, arrays[:2], count, work[0])
        result = emit_stages(k, self.stages, size, work[0], work, tables[0], None, self.scale)
        self._store(k, arrays[2:], count, result)

    def _load(self, k: Language, arrays: Sequence[Value], count: X, goal: Line) -> None:
        """Lines side by side; zeros where there is none."""
        for array, row in zip(arrays, (goal.re, goal.im), strict=True):
            with self._elements(k, count) as (line, j):
                row[j * self.group + line] = k.read(array, line * self.size + j, self.dtype)
            with k.loop(count, self.group) as line, k.loop(0, self.size) as j:
                row[j * self.group + line] = 0.0

    def _store(self, k: Language, arrays: Sequence[Value], count: X, source: Line) -> None:
        for array, row in zip(arrays, (source.re, source.im), strict=True):
            with self._elements(k, count) as (line, j):
                k.write(array, line * self.size + j, self.dtype, row[j * self.group + line])

    @contextmanager
    def _elements(self, k: Language, count: X) -> Iterator[tuple[X, X]]:
        """A loop over the elements of lines, in pieces that stay in the nearest cache when they are transposed."""
        with k.loop(0, self.size, PIECE) as start:
            stop = k.minimum(start + PIECE, self.size)
            with k.loop(0, count) as line, k.loop(start, stop) as j:
                yield line, j

    def _emit_chirped(
        self, k: Language, arrays: Sequence[Value], count: X, work: tuple[Line, Line], tables: Sequence[Line]
    ) -> None:
        """x · chirp, convolved with the conjugate chirp, times the chirp again."""
        table, wave, spectrum = tables
        padded, line = self._tables[1], work[0]
        self._load(k, arrays[:2], count, line)
        _clear(k, line, self.size, padded)
        _multiply(k, line, wave, padded)
        with k.loop(padded, self.length, k.lanes) as j:
            zero = k.constant(k.vector, 0.0)
            line.put(j, Z(zero, zero))
        line = self._transform(k, work, table)
        _multiply(k, line, spectrum, self.length)
        other = work[1] if line is work[0] else work[0]
        line = self._transform(k, (line.swapped, other.swapped), table).swapped
        _multiply(k, line, wave, padded, self.scale)
        self._store(k, arrays[2:], count, line)

    def _transform(self, k: Language, work: tuple[Line, Line], table: Line) -> Line:
        """The transform of work[0], as a call; where it is."""

        def write(k: Language, *pointers: Value) -> None:
            lines = [Line.at(k, pointers[i], pointers[i + 1]) for i in (0, 2, 4)]
            emit_stages(k, self.stages, self.length, lines[0], (lines[0], lines[1]), lines[2])

        function = k.function("transform", [POINTER] * 6, write)
        pointers = [row.pointer for line in (*work, table) for row in (line.re, line.im)]
        k.builder.call(function, pointers)
        return work[len(self.stages) % 2]

    # Tables that are computed ----------------------------------------------------------------------------------------
    @property
    def table_units(self) -> int:
        """How much there is to compute before lines are transformed."""
        return 0 if self.is_kept else sum(self._tables[:2])

    def tables_unit(self) -> Unit:
        """`kernel(begin, end, workspace)`: the factors and the chirp, entries begin … end − 1."""

        def write(builder: Builder, begin: Value, end: Value, workspace: Value) -> None:
            k = Language(builder, self.number, self.target)
            tables = self._shared(k, workspace)
            first, last = X(begin, k), X(end, k)
            root = _Roots.of(k, self.length, "roots")
            for stage in self.stages:
                with _part_of(k, first, last, stage.table, stage.entries) as u:
                    j, p = u // stage.count + 1, u % stage.count
                    tables[0][u + stage.table] = root[j * p * (self.length // stage.length)]
            if not self.smooth:
                root = _Roots.of(k, 2 * self.size, "chirp_roots")
                with _part_of(k, first, last, self._tables[0], self.size) as j:
                    tables[1][j] = root[j * j % (2 * self.size)]
                with _part_of(k, first, last, self._tables[0] + self.size, self._tables[1] - self.size) as j:
                    tables[1][j + self.size] = Z(k.number(0.0), k.number(0.0))

        return kernel(self.target, [I64, I64, POINTER], write, level=2)

    def filter_unit(self) -> Unit:
        """`kernel(tid, workspace)`: the transform of the conjugate chirp, which the tables of the chirp precede."""

        def write(builder: Builder, tid: Value, workspace: Value) -> None:
            k = Language(builder, self.number, self.target)
            table, wave, spectrum = self._shared(k, workspace)
            work = self._work(k, workspace, tid)
            _clear(k, work[0], 0, self.length)
            with k.loop(0, self.size) as j:
                value = Z(wave.re[j], -wave.im[j]).scaled(1.0 / self.length)
                work[0][j] = value
                with k.when(j > 0):
                    work[0][self.length - j] = value
            result = self._transform(k, work, table)
            with k.loop(0, self.length, k.lanes) as j:
                spectrum.put(j, result.vector(j))

        return kernel(self.target, [I32, POINTER], write, level=2)


def _clear(k: Language, line: Line, start: int, stop: int) -> None:
    with k.loop(start, stop) as j:
        line[j] = Z(k.number(0.0), k.number(0.0))


def _multiply(k: Language, line: Line, by: Line, count: int, scale: float = 1.0) -> None:
    with k.loop(0, count, k.lanes) as j:
        line.put(j, (line.vector(j) * by.vector(j)).scaled(scale))


def _part_of(k: Language, first: X, last: X, start: int, count: int) -> AbstractContextManager[X]:
    """A loop over those of `count` things, the first of which has the number `start`, that are in first … last − 1."""
    return k.loop(k.maximum(first - start, 0), k.minimum(last - start, count))


def _data(k: Language, numbers: Numbers, name: str) -> Line:
    """Numbers as data of the module."""
    rows = []
    for part, values in (("re", numbers.real), ("im", numbers.imag)):
        content = bytearray(np.ascontiguousarray(values, k.dtype.numpy).tobytes())
        kind = ir.ArrayType(ir.IntType(8), len(content))
        data = ir.GlobalVariable(k.builder.module, kind, f"{name}_{part}")
        data.linkage, data.global_constant, data.align = "private", True, LINE_BYTES
        data.initializer = ir.Constant(kind, content)
        rows.append(k.row(data))
    return Line(*rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Roots:
    """Roots of unity from two small tables, in double precision."""

    k: Language
    wide: Language
    shift: int
    coarse: Line
    fine: Line

    @classmethod
    def of(cls, k: Language, size: int, name: str) -> _Roots:
        wide = replace(k, dtype=float64)
        shift, coarse, fine = coarse_and_fine(size)
        return cls(k, wide, shift, _data(wide, coarse, f"{name}_coarse"), _data(wide, fine, f"{name}_fine"))

    def __getitem__(self, j: X) -> Z:
        a = self.coarse[j // (1 << self.shift)]
        value = a + a * self.fine[j % (1 << self.shift)]
        return Z(self._narrow(value.re), self._narrow(value.im))

    def _narrow(self, x: X) -> X:
        if self.k.dtype is float64:
            return X(x.value, self.k)
        return X(self.k.builder.fptrunc(x.value, self.k.real), self.k)
