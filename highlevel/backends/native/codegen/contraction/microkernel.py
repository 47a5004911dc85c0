"""The micro-kernel: a tile of the result in registers, and the loops that reduce into it.

    for level in levels:                                 # loops, outermost first; each moves A and B by constant steps
        for i < rows, j < vectors:  tile[i, j] += A[i · a_row] · B[j · lanes …]

A is read one element at a time, broadcast to a vector, B one vector at a time – or, where each column has an A of its
own (depthwise convolutions), both are vectors. Everything that multiplies and adds is this kernel; a matrix product
has one level, a convolution one for each axis of the window and one for the channels.

All steps are constants of the machine code, so that the addresses of a tile's rows cost nothing; counts are arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from .values import I1, I64, POINTER, VOID, Builder, Value, Vectors, counted


@dataclass(frozen=True, slots=True)
class Level:
    """A loop of the reduction: how far A and B move with each step, in elements."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """All that the machine code of a micro-kernel depends on.

    inputs, output: element types of A and B, and of C
    lanewise:       whether A is a vector as well
    partial:        whether calls may begin with what C holds
    masked:         whether the last vector is partly outside (the argument `columns` says how much is inside)
    """

    rows: int
    vectors: int
    inputs: Vectors
    output: Vectors
    levels: tuple[Level, ...]
    a_row: int
    c_row: int
    lanewise: bool = False
    masked: bool = False
    masked_a: bool = False
    masked_b: bool = False
    partial: bool = False

    @property
    def symbol(self) -> str:
        """A name that stands for the machine code."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return f"tile_{self.rows}x{self.vectors}_{self.inputs.dtype}_{digest}"

    @property
    def type(self) -> Value:
        """(a, b, c, columns, whether to begin with what C holds, counts…)."""
        return ir.FunctionType(VOID, [POINTER, POINTER, POINTER, I64, I1, *[I64] * len(self.levels)])

    def emit(self, function: Value) -> None:
        """Writes the function's body."""
        function.args[2].add_attribute("noalias")
        _emit(self, function)


# Emission ------------------------------------------------------------------------------------------------------------
def _emit(kernel: MicroKernel, function: Value) -> None:
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    a, b, c, columns, accumulate, *counts = function.args
    vectors = kernel.output
    masks: list[Value | None] = [None] * kernel.vectors
    a_mask, b_mask = None, None
    if kernel.masked or kernel.masked_a or kernel.masked_b:
        before = (kernel.vectors - 1) * vectors.lanes
        mask = vectors.first(builder, builder.sub(columns, I64(before)) if before else columns)
        masks[-1] = mask if kernel.masked else None
        a_mask, b_mask = mask if kernel.masked_a else None, mask if kernel.masked_b else None
    zeros = [vectors.zero] * (kernel.rows * kernel.vectors)
    sums = _reduce(builder, kernel, (a_mask, b_mask), kernel.levels, counts, a, b, zeros)
    if kernel.partial:
        sums = _add_previous(builder, kernel, accumulate, masks, c, sums)
    for position, (address, value) in enumerate(zip(_addresses(builder, kernel, c), sums, strict=True)):
        vectors.store(builder, value, address, masks[position % kernel.vectors])
    builder.ret_void()


def _reduce(
    builder: Builder,
    kernel: MicroKernel,
    masks: tuple[Value | None, Value | None],
    levels: Sequence[Level],
    counts: Sequence[Value],
    a: Value,
    b: Value,
    sums: list[Value],
) -> list[Value]:
    """The loops of the reduction, one in the other; the sums are carried through all of them in registers."""
    if not levels:
        return _multiply_add(builder, kernel, masks, a, b, sums)
    level = levels[0]

    def step(_: Value, carried: list[Value]) -> list[Value]:
        a, b, *sums = carried
        sums = _reduce(builder, kernel, masks, levels[1:], counts[1:], a, b, sums)
        return [kernel.inputs.at(builder, a, level.a), kernel.inputs.at(builder, b, level.b), *sums]

    return counted(builder, 0, counts[0], step, [a, b, *sums], "reduce")[2:]


def _multiply_add(
    builder: Builder,
    kernel: MicroKernel,
    masks: tuple[Value | None, Value | None],
    a: Value,
    b: Value,
    sums: list[Value],
) -> list[Value]:
    vectors = kernel.inputs

    def load(pointer: Value, j: int, mask: Value | None) -> Value:
        address = vectors.at(builder, pointer, j * vectors.lanes)
        return vectors.load(builder, address, mask if j + 1 == kernel.vectors else None)

    columns = [load(b, j, masks[1]) for j in range(kernel.vectors)]
    new = []
    for i in range(kernel.rows):
        row = vectors.at(builder, a, i * kernel.a_row)
        element = None if kernel.lanewise else vectors.load_splat(builder, row)
        for j, column in enumerate(columns):
            factor = load(row, j, masks[0]) if element is None else element
            new.append(kernel.output.multiply_add(builder, factor, column, sums[i * kernel.vectors + j]))
    return new


def _addresses(builder: Builder, kernel: MicroKernel, c: Value) -> list[Value]:
    steps = [(i, j) for i in range(kernel.rows) for j in range(kernel.vectors)]
    return [kernel.output.at(builder, c, i * kernel.c_row + j * kernel.output.lanes) for i, j in steps]


def _add_previous(
    builder: Builder,
    kernel: MicroKernel,
    accumulate: Value,
    masks: Sequence[Value | None],
    c: Value,
    sums: list[Value],
) -> list[Value]:
    before = builder.block
    with builder.if_then(accumulate):
        added = []
        for position, (address, value) in enumerate(zip(_addresses(builder, kernel, c), sums, strict=True)):
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
