"""Copies of blocks of operands: with friendlier steps, in whole vectors, transposed and converted where needed.

A block has an outer and an inner axis; in the copy, inner elements are consecutive – or in chunks, panels of a matrix,
so that rows are read as a whole – and filled up with zeros to whole vectors. Inner elements that are consecutive come
as vectors; where the outer elements are, square blocks of vectors are read and transposed in registers; else vectors
are gathered. Two rows of bfloat16 become one of pairs, of 32 bits each; pairs that are neighbours already are copied as
such.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from llvmlite import ir

from highlevel.ir.dtypes import uint16

from .values import I32, I64, POINTER, VOID, Builder, Value, Vectors, counted, smaller

ALL = I64(1 << 40)  # a chunk that holds everything


@dataclass(frozen=True, slots=True)
class Copy:
    """All that the machine code of a copy depends on: element types, and which elements of the source are consecutive.

    void (source, target, outer count, inner count, outer step, inner step, outer step of target, chunk, chunk step)

    A chunk is a number of inner elements, in whole vectors; the next one is written so many elements further on. For
    "pairs", the inner step is how far apart the two rows of a pair are.
    """

    source: Vectors
    target: Vectors
    consecutive: Literal["inner", "outer", "neither", "pairs"]

    @classmethod
    def of(cls, source: Vectors, target: Vectors, outer: int, inner: int) -> Copy:
        """The copy for these steps in the source."""
        return cls(source, target, "inner" if inner == 1 else "outer" if outer == 1 else "neither")

    @classmethod
    def of_pairs(cls, pairs: Vectors, outer: int, inner: int) -> tuple[Copy, tuple[int, int]]:
        """The copy of bfloat16 in pairs – which are 2 apart where they are neighbours already – and its steps."""
        if inner == 1:
            return cls(dataclasses.replace(pairs, dtype=uint16), pairs, "pairs"), (outer, outer // 2)
        return cls.of(pairs, pairs, outer // 2, inner // 2), (outer // 2, inner // 2)

    @property
    def symbol(self) -> str:
        """A name that stands for the machine code."""
        halves = "" if self.source.halves else "_soft"
        return f"copy_{self.consecutive}_{self.source.dtype}_{self.source.lanes}{halves}"

    @property
    def type(self) -> Value:
        """See above."""
        return ir.FunctionType(VOID, [POINTER, POINTER, *[I64] * 7])

    def emit(self, function: Value) -> None:
        """Writes the function's body."""
        for pointer in function.args[:2]:
            pointer.add_attribute("noalias")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        writer = _Writer(builder, self, *function.args)
        if self.consecutive == "outer":
            writer.transposed()
        else:
            writer.straight()
        builder.ret_void()


@dataclass(frozen=True, slots=True)
class _Writer:
    builder: Builder
    copy: Copy
    source: Value
    target: Value
    outer: Value
    inner: Value
    outer_step: Value
    inner_step: Value
    target_step: Value
    chunk: Value
    chunk_step: Value

    def straight(self) -> None:
        """Row by row, chunk by chunk: vectors, and the rest of the last chunk under a mask."""
        builder, copy, lanes = self.builder, self.copy, self.copy.source.lanes
        chunks = builder.sdiv(builder.add(self.inner, builder.sub(self.chunk, I64(1))), self.chunk)
        last = builder.sub(chunks, I64(1))
        left = builder.sub(self.inner, builder.mul(last, self.chunk))
        full, rest = builder.sdiv(left, I64(lanes)), builder.srem(left, I64(lanes))
        whole = builder.sdiv(self.chunk, I64(lanes))
        mask = copy.source.first(builder, rest)
        everything = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [1] * lanes)

        def chunk(o: Value, c: Value, last: Value) -> None:
            step = I64(1) if copy.consecutive == "pairs" else self.inner_step
            offset = builder.mul(builder.mul(c, self.chunk), step)
            start = copy.source.at(builder, self.source, builder.add(builder.mul(o, self.outer_step), offset))
            offset = builder.add(builder.mul(o, self.target_step), builder.mul(c, self.chunk_step))
            goal = copy.target.at(builder, self.target, offset)

            def move(v: Value, mask: Value | None) -> None:
                lane = builder.mul(v, I64(lanes))
                begin = copy.source.at(builder, start, builder.mul(lane, step))
                if copy.consecutive == "pairs":
                    value, upper = (
                        copy.source.load(builder, begin, mask),
                        copy.source.at(builder, begin, self.inner_step),
                    )
                    sixteen = ir.Constant(copy.source.vector, [16] * lanes)
                    value = builder.or_(value, builder.shl(copy.source.load(builder, upper, mask), sixteen))
                elif copy.consecutive == "inner":
                    value = copy.source.load(builder, begin, mask)
                else:
                    value = copy.source.gather(builder, begin, self.inner_step, mask or everything)
                copy.target.store(builder, value, copy.target.at(builder, goal, lane))

            counted(builder, 0, builder.select(last, full, whole), lambda v, _: move(v, None), name="vector")
            with builder.if_then(builder.and_(last, builder.icmp_signed(">", rest, I64(0)))):
                move(full, mask)

        def row(o: Value, _: list[Value]) -> None:
            counted(builder, 0, chunks, lambda c, _: chunk(o, c, builder.icmp_signed("==", c, last)), name="chunk")

        counted(builder, 0, self.outer, row, name="outer")

    def transposed(self) -> None:
        """Square blocks."""
        builder, lanes = self.builder, self.copy.source.lanes

        def blocks(extent: Value) -> Value:
            return builder.sdiv(builder.add(extent, I64(lanes - 1)), I64(lanes))

        def strip(v: Value, _: list[Value]) -> None:
            def block(w: Value, _: list[Value]) -> None:
                self.block(builder.mul(w, I64(lanes)), builder.mul(v, I64(lanes)))

            counted(builder, 0, blocks(self.outer), block, name="block")

        counted(builder, 0, blocks(self.inner), strip, name="strip")

    def block(self, o: Value, lane: Value) -> None:
        """Rows and lanes outside are neither read nor, beyond the outer count, written."""
        builder, copy, lanes = self.builder, self.copy, self.copy.source.lanes
        along, across = builder.sub(self.outer, o), builder.sub(self.inner, lane)
        begin = copy.source.at(builder, self.source, builder.add(o, builder.mul(lane, self.inner_step)))
        place = builder.add(
            builder.mul(builder.sdiv(lane, self.chunk), self.chunk_step), builder.srem(lane, self.chunk)
        )
        goal = copy.target.at(builder, self.target, builder.add(place, builder.mul(o, self.target_step)))
        addresses = [copy.source.at(builder, begin, builder.mul(I64(i), self.inner_step)) for i in range(lanes)]
        whole = builder.icmp_signed(">=", smaller(builder, along, across), I64(lanes))
        with builder.if_else(whole) as (inside, edge):
            with inside:
                full = [copy.source.load(builder, address) for address in addresses]
                after_full = builder.block
            with edge:
                partial = []
                for i, address in enumerate(addresses):
                    there = builder.icmp_signed("<", I64(i), across)
                    mask = copy.source.first(builder, builder.select(there, along, I64(0)))
                    partial.append(copy.source.load(builder, address, mask))
                after_partial = builder.block
        rows = []
        for one, other in zip(full, partial, strict=True):
            phi = builder.phi(one.type)
            phi.add_incoming(one, after_full)
            phi.add_incoming(other, after_partial)
            rows.append(phi)
        after = builder.append_basic_block("written")
        for r, value in enumerate(transpose(builder, rows)):
            copy.target.store(builder, value, copy.target.at(builder, goal, builder.mul(I64(r), self.target_step)))
            if r + 1 < lanes:
                more = builder.append_basic_block("row")
                builder.cbranch(builder.icmp_signed("<", I64(r + 1), along), more, after)
                builder.position_at_end(more)
        builder.branch(after)
        builder.position_at_end(after)


def transpose(builder: Builder, rows: list[Value]) -> list[Value]:
    """A square block of registers, transposed: halves of pairs of rows change places, at all distances.

    (J. O. Eklundh, "A fast computer method for matrix transposing", 1972.)
    """
    lanes = len(rows)
    distance = 1
    while distance < lanes:
        upper = _lanes([lane + lanes - distance if lane & distance else lane for lane in range(lanes)])
        lower = _lanes([lane + lanes if lane & distance else lane + distance for lane in range(lanes)])
        rows = list(rows)
        for i in range(lanes):
            if not i & distance:
                low, high = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(low, high, upper)
                rows[i + distance] = builder.shuffle_vector(low, high, lower)
        distance *= 2
    return rows


def _lanes(numbers: list[int]) -> Value:
    return ir.Constant(ir.VectorType(I32, len(numbers)), numbers)
