"""Reading and writing at places that integers name: rows that are copied, and rows that are combined.

`k` indices address the first k axes of `x`; a row is what lies under them. Threads that gather share the rows to write.
Threads that scatter share `x`: each goes through all indices, in order, and takes what falls into its own rows (or, of
long rows, its own columns), so that nothing is written by two and every sum has one order.

An index outside of its axis is never followed. It is reported by a call of `function` with the addresses of all
operands and of the result, and the thread returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from highlevel.ir import DType
from highlevel.ir.dtypes import float32

from ..cache import Unit
from .contraction.values import I1, I64, POINTER, Builder, Value, counted, smaller
from .contraction.work import digits
from .kernel import call, copy, element, forward, kernel, to_i64
from .lanes import Piece, along
from .scalar import LlvmScalars, Scalar, memory_type
from .targets import Target

CHUNK_BYTES = 64 << 10  # of a row that is copied: what threads share
MOST = 8  # registers at a time


@dataclass(frozen=True, slots=True)
class Rows:
    """An array as rows: sizes of the axes that indices address, and elements of a row."""

    sizes: tuple[int, ...]
    inner: int
    dtype: DType
    indices: DType

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    @property
    def row_bytes(self) -> int:
        return self.inner * self.dtype.size_bytes

    @property
    def chunks(self) -> int:
        """Into how many parts a row is cut to be copied."""
        return max(1, -(-self.row_bytes // CHUNK_BYTES))

    def position(self, builder: Builder, indices: Value, number: Value) -> tuple[Value, Value]:
        """Which row the index number `number` names, and whether it is one."""
        row, exists = I64(0), I1(1)
        first = builder.mul(number, I64(len(self.sizes)))
        for axis, size in enumerate(self.sizes):
            place = element(builder, indices, builder.add(first, I64(axis)), self.indices)
            loaded = builder.load(place, typ=memory_type(self.indices), align=self.indices.size_bytes)
            index = to_i64(builder, loaded, self.indices)
            exists = builder.and_(exists, builder.icmp_unsigned("<", index, I64(size)))  # what is negative is large
            row = builder.add(builder.mul(row, I64(size)), index)
        return row, exists


def _report(builder: Builder, function: Value, pointers: Sequence[Value]) -> None:
    """Calls the function with an array of addresses, and returns."""
    with builder.goto_entry_block():
        addresses = builder.alloca(POINTER, size=I64(len(pointers)))
    for i, pointer in enumerate(pointers):
        builder.store(pointer, builder.gep(addresses, [I64(i)], source_etype=POINTER))
    call(builder, function, [addresses])
    builder.ret_void()


# Gather --------------------------------------------------------------------------------------------------------------
def gather_unit(rows: Rows, target: Target) -> Unit:
    """`kernel(begin, end, function, x, indices, out)`; units are the chunks of all rows of the result."""
    chunks = rows.chunks

    def write(
        builder: Builder, begin: Value, end: Value, function: Value, x: Value, indices: Value, out: Value
    ) -> None:
        def unit(u: Value, _: list[Value]) -> None:
            number, chunk = digits(builder, u, (0, chunks)) if chunks > 1 else (u, I64(0))
            row, exists = rows.position(builder, indices, number)
            with builder.if_then(builder.not_(exists), likely=False):
                _report(builder, function, (x, indices, out))
            source = element(builder, x, builder.mul(row, I64(rows.inner)), rows.dtype)
            goal = element(builder, out, builder.mul(number, I64(rows.inner)), rows.dtype)
            if chunks == 1:
                copy(builder, goal, source, rows.row_bytes)
                return
            start = builder.mul(chunk, I64(CHUNK_BYTES))
            size = smaller(builder, I64(CHUNK_BYTES), builder.sub(I64(rows.row_bytes), start))
            copy(builder, forward(builder, goal, start), forward(builder, source, start), size)

        counted(builder, begin, end, unit)

    return kernel(target, [I64, I64, *[POINTER] * 4], write)


# Scatter -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Scatter:
    """How updates are brought in: kind is "set", "add", "max" or "min"; `updates` is the number of rows."""

    rows: Rows
    updates: int
    kind: str

    @property
    def wide(self) -> bool:
        """Whether sums are rounded once, when all is added: half types, as float32 in the workspace."""
        return self.kind == "add" and self.rows.dtype.is_float and self.rows.dtype.size_bytes == 2

    @property
    def by_columns(self) -> bool:
        """Whether threads share the columns: long rows, or few of some length."""
        size = self.rows.row_bytes
        return not self.wide and (size >= 2048 or (size >= 512 and self.rows.count < 64))

    @property
    def units(self) -> int:
        if not self.rows.count * self.rows.inner:
            return 1  # nothing but indices to check
        return self.rows.inner if self.by_columns else self.rows.count

    @property
    def workspace_bytes(self) -> int:
        return 4 * self.rows.count * self.rows.inner if self.wide else 0


def scatter_unit(scatter: Scatter, target: Target) -> Unit:
    """`kernel(begin, end, function, x, indices, updates, out, workspace)`; units are rows or columns of `x`.

    `out` may be `x` itself: only then is nothing copied.
    """

    def write(builder: Builder, begin: Value, end: Value, function: Value, *pointers: Value) -> None:
        writer = _ScatterWriter(builder, scatter, target, (begin, end), pointers)
        with builder.if_then(builder.icmp_signed("<", begin, end)):
            writer.bring_in_operand()
            writer.go_through_indices(function)
            writer.bring_out_result()

    return kernel(target, [I64, I64, *[POINTER] * 6], write)


class _ScatterWriter:
    """Writes the kernel: for a part of the rows, or of the columns."""

    def __init__(
        self, builder: Builder, scatter: Scatter, target: Target, part: tuple[Value, Value], pointers: Sequence[Value]
    ) -> None:
        self.builder, self.scatter, self.target = builder, scatter, target
        self.begin, self.end = part
        self.operands = tuple(pointers[:4])
        self.x, self.indices, self.updates, self.out, self.workspace = pointers
        self.rows = rows = scatter.rows
        self.empty = not rows.count * rows.inner
        self.dtype = float32 if scatter.wide else rows.dtype
        self.lanes = target.vector_bytes // max(rows.dtype.size_bytes, 4 if rows.dtype.is_float else 1)

    # Before and after ------------------------------------------------------------------------------------------------
    def bring_in_operand(self) -> None:
        """What this thread has of x: into the result, unless it is there, or – wide – into the workspace."""
        builder, rows = self.builder, self.rows
        if self.empty:
            return
        if self.scatter.wide:
            self._convert(self.x, rows.dtype, self.workspace, float32)
            return
        addresses = (builder.ptrtoint(pointer, I64) for pointer in (self.x, self.out))
        with builder.if_then(builder.icmp_unsigned("!=", *addresses)):
            if not self.scatter.by_columns:
                first = builder.mul(self.begin, I64(rows.inner))
                self._copy(self.out, self.x, first, builder.mul(builder.sub(self.end, self.begin), I64(rows.inner)))
                return

            def row(number: Value, _: list[Value]) -> None:
                first = builder.add(builder.mul(number, I64(rows.inner)), self.begin)
                self._copy(self.out, self.x, first, builder.sub(self.end, self.begin))

            counted(builder, 0, rows.count, row)

    def _copy(self, goal: Value, source: Value, start: Value, count: Value) -> None:
        """As many elements, from the same place of one array to that of another."""
        builder, dtype = self.builder, self.rows.dtype
        to, from_ = (element(builder, pointer, start, dtype) for pointer in (goal, source))
        copy(builder, to, from_, builder.mul(count, I64(dtype.size_bytes)))

    def bring_out_result(self) -> None:
        if self.scatter.wide and not self.empty:
            self._convert(self.workspace, float32, self.out, self.rows.dtype)

    def _convert(self, source: Value, old: DType, goal: Value, new: DType) -> None:
        """This thread's rows as another type."""
        builder, inner = self.builder, self.rows.inner
        first, end = (builder.mul(each, I64(inner)) for each in (self.begin, self.end))

        def convert(i: Value, lanes: int) -> None:
            k = LlvmScalars(builder, self.target, lanes)
            k.store(element(builder, goal, i, new), k.cast(k.load(element(builder, source, i, old), old), new))

        self._span(first, end, convert)

    # Updates ---------------------------------------------------------------------------------------------------------
    def go_through_indices(self, function: Value) -> None:
        builder, rows = self.builder, self.rows

        def update(number: Value, _: list[Value]) -> None:
            row, exists = rows.position(builder, self.indices, number)
            with builder.if_then(builder.not_(exists), likely=False):
                _report(builder, function, self.operands)
            if self.empty:
                return
            source = element(builder, self.updates, builder.mul(number, I64(rows.inner)), rows.dtype)
            base = self.workspace if self.scatter.wide else self.out
            goal = element(builder, base, builder.mul(row, I64(rows.inner)), self.dtype)
            if self.scatter.by_columns:
                self._bring_in_columns(goal, source)
                return
            mine = builder.icmp_unsigned("<", builder.sub(row, self.begin), builder.sub(self.end, self.begin))
            with builder.if_then(mine):
                self._bring_in_row(goal, source)

        counted(builder, 0, self.scatter.updates, update)

    def _bring_in_row(self, goal: Value, source: Value) -> None:
        builder, rows = self.builder, self.rows
        if self.scatter.kind == "set":
            copy(builder, goal, source, rows.row_bytes)
            return

        def columns(start: Value | int, pieces: Sequence[Piece]) -> None:
            for piece in pieces:
                place = piece.offset + start if isinstance(start, int) else builder.add(start, I64(piece.offset))
                self._combine(goal, source, place, piece.lanes, piece.mask)

        along(builder, self.target, self.lanes, rows.inner, MOST, columns)

    def _bring_in_columns(self, goal: Value, source: Value) -> None:
        if self.scatter.kind == "set":
            self._copy(goal, source, self.begin, self.builder.sub(self.end, self.begin))
            return
        self._span(self.begin, self.end, lambda i, lanes: self._combine(goal, source, i, lanes))

    def _combine(self, goal: Value, source: Value, place: Value | int, lanes: int, mask: Value | None = None) -> None:
        """`goal = goal ∘ source` for neighbouring elements."""
        builder, dtype = self.builder, self.rows.dtype
        k = LlvmScalars(builder, self.target, lanes)
        at = element(builder, goal, place, self.dtype)
        old = k.load(at, self.dtype, mask)
        new = k.cast(k.load(element(builder, source, place, dtype), dtype, mask), self.dtype)
        combine = {"add": k.add, "max": k.maximum, "min": k.minimum}[self.scatter.kind]
        found: Scalar = combine(old, new)
        k.store(at, found, mask)

    def _span(self, first: Value, end: Value, body: Callable[[Value, int], None]) -> None:
        """`body(i, lanes)` for elements from first to end: registers of them, and the rest one by one."""
        builder = self.builder
        registers = builder.sdiv(builder.sub(end, first), I64(self.lanes))
        whole = builder.add(first, builder.mul(registers, I64(self.lanes)))
        counted(
            builder, 0, registers, lambda i, _: body(builder.add(first, builder.mul(i, I64(self.lanes))), self.lanes)
        )
        counted(builder, whole, end, lambda i, _: body(i, 1))
