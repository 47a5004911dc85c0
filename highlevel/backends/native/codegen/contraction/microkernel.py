"""The micro-kernel: a tile of the result in registers, and the loops that reduce into it.

    for level in levels:                                 # loops, outermost first; each moves A and B by constant steps
        for i < rows, j < vectors:  tile[i, j] += A[i · a_row] · B[j · lanes …]

A is read one element at a time, broadcast to a vector, B one vector at a time – or, where each column has an A of its
own (depthwise convolutions), both are vectors. Everything that multiplies and adds is this kernel; a matrix product
has one level, a convolution one for each axis of the window and one for the channels.

Sizes of the tile are constants of the machine code, all steps and counts are arguments, so that few kernels serve all
shapes. Rows of A are addressed from one pointer for every three rows, as this is what addresses of x86 can say without
arithmetic: p, p + step, p + 2 · step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from .values import I1, I64, POINTER, VOID, Builder, Value, Vectors, counted

ROWS_OF_POINTER = 3


@dataclass(frozen=True, slots=True)
class Level:
    """A loop of the reduction: how far A and B move with each step, in elements."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Steps:
    """What a call of a micro-kernel says of places: steps between rows of A and of C, loops of the reduction."""

    a_row: int
    c_row: int
    levels: tuple[Level, ...]

    def arguments(self, counts: Sequence[Value]) -> list[Value]:
        """For a call, with how often each loop runs."""
        loops = zip(counts, self.levels, strict=True)
        return [I64(self.a_row), I64(self.c_row), *(x for n, level in loops for x in (n, I64(level.a), I64(level.b)))]


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """All that the machine code of a micro-kernel depends on.

    inputs, output: element types of A and B, and of C
    levels:         how many loops the reduction has
    lanewise:       whether A is a vector as well
    partial:        whether calls may begin with what C holds
    pairs:          whether elements of A and B are pairs of bfloat16, seen as 32 bits
    masked:         whether the last vector is partly outside (the argument `columns` says how much is inside)
    """

    rows: int
    vectors: int
    inputs: Vectors
    output: Vectors
    levels: int
    lanewise: bool = False
    masked: bool = False
    masked_a: bool = False
    masked_b: bool = False
    partial: bool = False
    pairs: bool = False

    @property
    def symbol(self) -> str:
        """A name that stands for the machine code."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return f"tile_{self.rows}x{self.vectors}_{self.inputs.dtype}_{digest}"

    @property
    def type(self) -> Value:
        """(a, b, c, columns, whether to begin with what C holds, steps of rows of A and C, (count, a, b) of loops…)."""
        return ir.FunctionType(VOID, [POINTER] * 3 + [I64, I1, I64, I64] + [I64] * (3 * self.levels))

    def emit(self, function: Value) -> None:
        """Writes the function's body."""
        function.args[2].add_attribute("noalias")
        _emit(self, function)


# Emission ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop of the reduction: values."""

    count: Value
    a: Value
    b: Value


def _emit(kernel: MicroKernel, function: Value) -> None:
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    a, b, c, columns, accumulate, a_row, c_row, *numbers = function.args
    loops = [_Loop(*numbers[i : i + 3]) for i in range(0, len(numbers), 3)]
    vectors = kernel.output
    masks: list[Value | None] = [None] * kernel.vectors
    a_mask, b_mask = None, None
    if kernel.masked or kernel.masked_a or kernel.masked_b:
        before = (kernel.vectors - 1) * vectors.lanes
        mask = vectors.first(builder, builder.sub(columns, I64(before)) if before else columns)
        masks[-1] = mask if kernel.masked else None
        a_mask, b_mask = mask if kernel.masked_a else None, mask if kernel.masked_b else None
    rows = [
        _opaque(builder, kernel.inputs.at(builder, a, builder.mul(a_row, I64(i))))
        for i in range(0, kernel.rows, ROWS_OF_POINTER)
    ]
    reduction = _Reduction(builder, kernel, (a_mask, b_mask), a_row)
    sums = reduction.emit(loops, rows, b, [vectors.zero] * (kernel.rows * kernel.vectors))
    addresses = _addresses(builder, kernel, c, c_row)
    if kernel.partial:
        sums = _add_previous(builder, kernel, accumulate, masks, addresses, sums)
    for position, (address, value) in enumerate(zip(addresses, sums, strict=True)):
        vectors.store(builder, value, address, masks[position % kernel.vectors])
    builder.ret_void()


def _opaque(builder: Builder, pointer: Value) -> Value:
    """The same pointer, of which LLVM does not know where it comes from: it would make one of each row, else."""
    return builder.asm(ir.FunctionType(POINTER, [POINTER]), "", "=r,0", [pointer], False)


@dataclass(frozen=True, slots=True)
class _Reduction:
    """The loops of the reduction, one in the other; sums are carried through all of them in registers."""

    builder: Builder
    kernel: MicroKernel
    masks: tuple[Value | None, Value | None]
    a_row: Value

    def emit(self, loops: Sequence[_Loop], rows: Sequence[Value], b: Value, sums: list[Value]) -> list[Value]:
        """The sums after all loops; `rows` are pointers into A."""
        if not loops:
            return self.multiply_add(rows, b, sums)
        builder, inputs, loop, many = self.builder, self.kernel.inputs, loops[0], len(rows)

        def step(_: Value, carried: list[Value]) -> list[Value]:
            rows, b, sums = carried[:many], carried[many], carried[many + 1 :]
            sums = self.emit(loops[1:], rows, b, sums)
            moved = [_opaque(builder, inputs.at(builder, row, loop.a)) for row in rows]
            return [*moved, inputs.at(builder, b, loop.b), *sums]

        return counted(builder, 0, loop.count, step, [*rows, b, *sums], "reduce")[many + 1 :]

    def multiply_add(self, rows: Sequence[Value], b: Value, sums: list[Value]) -> list[Value]:
        """One step of the innermost loop."""
        builder, kernel, vectors = self.builder, self.kernel, self.kernel.inputs

        def load(pointer: Value, j: int, mask: Value | None) -> Value:
            address = vectors.at(builder, pointer, j * vectors.lanes)
            return vectors.load(builder, address, mask if j + 1 == kernel.vectors else None)

        columns = [load(b, j, self.masks[1]) for j in range(kernel.vectors)]
        new = []
        for i in range(kernel.rows):
            pointer, offset = rows[i // ROWS_OF_POINTER], i % ROWS_OF_POINTER
            row = vectors.at(builder, pointer, builder.mul(self.a_row, I64(offset)) if offset > 1 else self.a_row)
            row = row if offset else pointer
            element = None if kernel.lanewise else vectors.load_splat(builder, row)
            for j, column in enumerate(columns):
                factor = load(row, j, self.masks[0]) if element is None else element
                multiply_add = kernel.output.dot if kernel.pairs else kernel.output.multiply_add
                new.append(multiply_add(builder, factor, column, sums[i * kernel.vectors + j]))
        return new


def _addresses(builder: Builder, kernel: MicroKernel, c: Value, c_row: Value) -> list[Value]:
    found = []
    for i in range(kernel.rows):
        row = kernel.output.at(builder, c, builder.mul(c_row, I64(i))) if i else c
        found += [kernel.output.at(builder, row, j * kernel.output.lanes) for j in range(kernel.vectors)]
    return found


def _add_previous(
    builder: Builder,
    kernel: MicroKernel,
    accumulate: Value,
    masks: Sequence[Value | None],
    addresses: Sequence[Value],
    sums: list[Value],
) -> list[Value]:
    before = builder.block
    with builder.if_then(accumulate):
        added = []
        for position, (address, value) in enumerate(zip(addresses, sums, strict=True)):
            previous = kernel.output.load(builder, address, masks[position % kernel.vectors])
            added.append(kernel.output.add(builder, previous, value))
        adding = builder.block
    merged = []
    for value, more in zip(sums, added, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(more, adding)
        merged.append(phi)
    return merged
