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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llvmlite import ir

from .values import I32, I64, POINTER, VOID, Builder, Value, Vectors, counted

ACCUMULATE, FINISH = 1, 2  # flags of a call: begin with what C holds; apply the epilogue


@dataclass(frozen=True, slots=True)
class Tile:
    """What an epilogue gets: values of the result that are in registers, and where they belong.

    values[i][j]:  lanes of row rows[i], columns columns[j], columns[j] + 1, …
    rows, columns: 64-bit numbers; of a convolution, rows are output pixels (all images counted through)
    batch:         which product of the batch
    masks[j]:      lanes that are inside of the result, or None for all; loads must keep to it
    operands:      the additional pointers that the function was called with
    """

    values: tuple[tuple[Value, ...], ...]
    rows: tuple[Value, ...]
    columns: tuple[Value, ...]
    batch: Value
    masks: tuple[Value | None, ...]
    operands: tuple[Value, ...]
    vectors: Vectors

    def load(self, builder: Builder, operand: int, j: int, index: Value) -> Value:
        """Elements `index`, `index` + 1, … of an additional operand, for the columns of vector j."""
        pointer = self.vectors.at(builder, self.operands[operand], index)
        return self.vectors.load(builder, pointer, self.masks[j])


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done with results before they are stored: bias, scale, activation, residual.

    `emit(builder, tile)` writes instructions for one tile and gives the new values, in the form of `tile.values`. It is
    called wherever results are finished, with tiles of several sizes, and must treat each element by itself. `name`
    stands for it in the names of functions: equal names, equal instructions. `operands` is how many pointers it needs;
    they follow the other arguments of the generated functions.
    """

    name: str
    emit: Callable[[Builder, Tile], Sequence[Sequence[Value]]] = field(compare=False, repr=False)
    operands: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """A loop of the reduction: how far A and B move with each step, in elements."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """All that the machine code of a micro-kernel depends on.

    inputs, output: element types of A and B, and of C
    place:          how many rows of the result lie between two rows of the tile
    lanewise:       whether A is a vector as well
    partial:        whether calls may begin with what C holds, and leave the epilogue to a later call
    masked:         whether the last vector is partly outside (the argument `columns` says how much is inside)
    """

    rows: int
    vectors: int
    inputs: Vectors
    output: Vectors
    levels: tuple[Level, ...]
    a_row: int
    c_row: int
    place: int = 1
    lanewise: bool = False
    masked: bool = False
    masked_a: bool = False
    masked_b: bool = False
    partial: bool = False
    epilogue: Epilogue | None = None

    @property
    def symbol(self) -> str:
        """A name that stands for the machine code."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        return f"tile_{self.rows}x{self.vectors}_{self.inputs.dtype}_{digest}"

    @property
    def type(self) -> Value:
        """(a, b, c, columns, flags, row, column, batch, counts…, operands…)."""
        counts = [I64] * len(self.levels)
        operands = [POINTER] * (self.epilogue.operands if self.epilogue else 0)
        return ir.FunctionType(VOID, [POINTER, POINTER, POINTER, I64, I32, I64, I64, I64, *counts, *operands])

    def emit(self, function: Value) -> None:
        """Writes the function's body."""
        if not (self.epilogue and self.epilogue.operands):  # which may be what is overwritten
            function.args[2].add_attribute("noalias")
        _emit(self, function)


# Emission ------------------------------------------------------------------------------------------------------------
def _emit(kernel: MicroKernel, function: Value) -> None:
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    a, b, c, columns, flags, row, column, batch = function.args[:8]
    counts, operands = function.args[8 : 8 + len(kernel.levels)], function.args[8 + len(kernel.levels) :]
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
        sums = _add_previous(builder, kernel, flags, masks, c, sums)
    if kernel.partial and kernel.epilogue:
        finish = builder.icmp_signed("!=", builder.and_(flags, I32(FINISH)), I32(0))
        with builder.if_else(finish) as (last, otherwise):
            with last:
                _store(builder, kernel, masks, c, _finish(builder, kernel, sums, masks, row, column, batch, operands))
            with otherwise:
                _store(builder, kernel, masks, c, sums)
    else:
        _store(builder, kernel, masks, c, _finish(builder, kernel, sums, masks, row, column, batch, operands))
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
    builder: Builder, kernel: MicroKernel, flags: Value, masks: Sequence[Value | None], c: Value, sums: list[Value]
) -> list[Value]:
    before = builder.block
    accumulate = builder.icmp_signed("!=", builder.and_(flags, I32(ACCUMULATE)), I32(0))
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


def _finish(
    builder: Builder,
    kernel: MicroKernel,
    sums: list[Value],
    masks: Sequence[Value | None],
    row: Value,
    column: Value,
    batch: Value,
    operands: Sequence[Value],
) -> list[Value]:
    if kernel.epilogue is None:
        return sums
    across = range(kernel.vectors)
    tile = Tile(
        values=tuple(tuple(sums[i * kernel.vectors + j] for j in across) for i in range(kernel.rows)),
        rows=tuple(builder.add(row, I64(i * kernel.place)) if i else row for i in range(kernel.rows)),
        columns=tuple(builder.add(column, I64(j * kernel.output.lanes)) if j else column for j in across),
        batch=batch,
        masks=tuple(masks),
        operands=tuple(operands),
        vectors=kernel.output,
    )
    return [value for values in kernel.epilogue.emit(builder, tile) for value in values]


def _store(
    builder: Builder, kernel: MicroKernel, masks: Sequence[Value | None], c: Value, values: Sequence[Value]
) -> None:
    for position, (address, value) in enumerate(zip(_addresses(builder, kernel, c), values, strict=True)):
        kernel.output.store(builder, value, address, masks[position % kernel.vectors])
