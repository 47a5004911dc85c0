"""Epilogues: what is done with results once they are complete – bias, scale, activation, residual.

The micro-kernel leaves a tile in a small piece of the stack, which stays in the first-level cache; a `Finish` reads it
from there and writes the result. So micro-kernels are the same whatever is done afterwards, C is written once, and an
operand of the epilogue may be what is overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from llvmlite import ir

from highlevel.ir.dtypes import DType

from .values import I64, POINTER, VOID, Builder, Value, Vectors, counted

# (column, source, goal, mask): finishes the lanes of one vector
WriteVector: TypeAlias = Callable[[Value, Value, Value, Value | None], None]
# (builder, batch, row, operands): prepares what is the same for a whole row
StartRow: TypeAlias = Callable[[Builder, Value, Value, tuple[Value, ...]], WriteVector]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done with each element of a result.

    name:     stands for it: equal names, equal instructions
    dtype:    of what is written
    operands: how many pointers it needs; they follow the other arguments of the generated functions
    row:      writes the instructions; rows and columns are those of the product – of a convolution, rows are pixels of
              the result, all images counted through, and columns are channels
    """

    name: str
    dtype: DType
    operands: int
    row: StartRow = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """The function that applies an epilogue to a tile, as all that its machine code depends on.

    void (source, goal, rows, columns, source step, goal step, batch, row, row step, column, operands…)
    """

    source: Vectors
    goal: Vectors
    epilogue: Epilogue

    @property
    def symbol(self) -> str:
        """A name that stands for the machine code."""
        return f"finish_{hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"

    @property
    def type(self) -> Value:
        """See above."""
        return ir.FunctionType(VOID, [POINTER, POINTER, *[I64] * 8, *[POINTER] * self.epilogue.operands])

    def emit(self, function: Value) -> None:
        """Writes the function's body."""
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        source, goal, rows, columns, source_step, goal_step, batch, row, row_step, column, *operands = function.args
        lanes = self.source.lanes
        full, rest = builder.sdiv(columns, I64(lanes)), builder.srem(columns, I64(lanes))
        ragged = builder.icmp_signed(">", rest, I64(0))
        mask = self.source.first(builder, rest)

        def line(i: Value, _: list[Value]) -> None:
            here = builder.add(row, builder.mul(i, row_step))
            write = self.epilogue.row(builder, batch, here, tuple(operands))
            begin = self.source.at(builder, source, builder.mul(i, source_step))
            end = self.goal.at(builder, goal, builder.mul(i, goal_step))

            def vector(v: Value, mask: Value | None) -> None:
                lane = builder.mul(v, I64(lanes))
                places = self.source.at(builder, begin, lane), self.goal.at(builder, end, lane)
                write(builder.add(column, lane), *places, mask)

            counted(builder, 0, full, lambda v, _: vector(v, None), name="vector")
            with builder.if_then(ragged):
                vector(full, mask)

        counted(builder, 0, rows, line, name="row")
        builder.ret_void()
