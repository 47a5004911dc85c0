"""Running sums along an axis, in registers.

    void kernel(i64 begin, i64 end, T* x, T* result)               lines, or blocks of neighbouring lines
    void kernel(i64 begin, i64 end, T* x, workspace)               totals of parts of lines, then
    void kernel(i64 begin, i64 end, workspace)                     what comes before each part, in place, then
    void kernel(i64 begin, i64 end, T* x, workspace, T* result)    parts

Neighbouring lines are lanes, each added up one element after the other. A line by itself is added up a vector at a
time: lane i gets the sum of lanes up to i by adding the vector, shifted by 1, 2, 4, … lanes, to itself; then comes what
was before. Half types add up in float32. What is shifted in is −0, which changes no number, not even −0.

Sums that run backwards are the same thing with lanes turned around; an exclusive sum is stored one step further on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from highlevel.ir import DType

from ..cache import Unit
from .contraction.blocking import converts_halves
from .contraction.values import (
    I32,
    I64,
    POINTER,
    Builder,
    Literal,
    Value,
    Vectors,
    computed_in,
    counted,
    smaller,
    splat,
)
from .kernel import element, forward, kernel
from .lines import Blocks
from .targets import Target

VECTORS = 4  # of neighbouring lines that are added up together


@dataclass(frozen=True, slots=True)
class Running:
    """Lines of `size` elements, `inner` apart, each (where inner is 1) in `parts`."""

    dtype: DType
    size: int
    inner: int
    parts: int
    reverse: bool
    exclusive: bool

    @property
    def steps(self) -> int:
        """How many elements are added: the last one counts for nobody else."""
        return self.size - self.exclusive

    @property
    def part_size(self) -> int:
        return -(-self.steps // self.parts)

    def vectors(self, target: Target, lanes: int = 0) -> Vectors:
        lanes = lanes or target.vector_bytes // computed_in(self.dtype).size_bytes
        return Vectors(self.dtype, lanes, target.fma, converts_halves(target))

    def blocks(self, target: Target) -> Blocks:
        """Neighbouring lines that are added up together."""
        return Blocks.of(self.inner, self.vectors(target).lanes, VECTORS)

    def units(self, outer: int, target: Target) -> int:
        return outer * (self.blocks(target).count if self.inner > 1 else self.parts)

    @property
    def total_bytes(self) -> int:
        """The size of a total in the workspace."""
        return computed_in(self.dtype).size_bytes


def lines_unit(running: Running, target: Target) -> Unit:
    """The kernel for whole lines."""

    def write(builder: Builder, begin: Value, end: Value, x: Value, result: Value) -> None:
        lines = _Lines(builder, running, target, x, result)
        if running.inner > 1:
            counted(builder, begin, end, lambda unit, _: _across(lines, unit, running.blocks(target)))
        else:
            nothing = lines.nothing(lines.wide)
            counted(builder, begin, end, lambda line, _: lines.part(line, I64(0), nothing))

    return kernel(target, (I64, I64, POINTER, POINTER), write)


def totals_unit(running: Running, target: Target) -> Unit:
    """The kernel that adds up parts; units are parts of lines."""

    def write(builder: Builder, begin: Value, end: Value, x: Value, workspace: Value) -> None:
        lines = _Lines(builder, running, target, x, x)

        def part(unit: Value, _: list[Value]) -> None:
            line, number = builder.udiv(unit, I64(running.parts)), builder.urem(unit, I64(running.parts))
            goal = forward(builder, workspace, unit, running.total_bytes)
            builder.store(lines.total(line, number), goal, align=running.total_bytes)

        counted(builder, begin, end, part)

    return kernel(target, (I64, I64, POINTER, POINTER), write)


def before_unit(running: Running, target: Target) -> Unit:
    """The kernel that turns the totals of a line's parts into what comes before each; units are lines."""

    def write(builder: Builder, begin: Value, end: Value, workspace: Value) -> None:
        one = running.vectors(target, 1)
        nothing = ir.Constant(one.compute, -0.0 if running.dtype.is_float else 0)

        def line(number: Value, _: list[Value]) -> None:
            first = builder.mul(number, I64(running.parts))

            def part(p: Value, before: list[Value]) -> list[Value]:
                place = forward(builder, workspace, builder.add(first, p), running.total_bytes)
                total = builder.load(place, typ=one.compute)
                builder.store(before[0], place)
                return [one.add(builder, before[0], total)]

            counted(builder, 0, running.parts, part, [nothing])

        counted(builder, begin, end, line)

    return kernel(target, (I64, I64, POINTER), write)


def parts_unit(running: Running, target: Target) -> Unit:
    """The kernel for parts of lines, when what comes before them is known."""

    def write(builder: Builder, begin: Value, end: Value, x: Value, workspace: Value, result: Value) -> None:
        lines = _Lines(builder, running, target, x, result)

        def part(unit: Value, _: list[Value]) -> None:
            line, number = builder.udiv(unit, I64(running.parts)), builder.urem(unit, I64(running.parts))
            before = builder.load(forward(builder, workspace, unit, running.total_bytes), typ=lines.wide.compute)
            lines.part(line, number, splat(builder, before, lines.wide.lanes))

        counted(builder, begin, end, part)

    return kernel(target, (I64, I64, POINTER, POINTER, POINTER), write)


class _Lines:
    """What running sums read and write: vectors along a line, or elements of neighbouring lines."""

    def __init__(self, builder: Builder, running: Running, target: Target, x: Value, result: Value) -> None:
        self.builder, self.running, self.x, self.result = builder, running, x, result
        self.wide, self.one = running.vectors(target), running.vectors(target, 1)

    def nothing(self, vectors: Vectors) -> Value:
        """What can be added to anything."""
        return ir.Constant(vectors.vector, [-0.0 if self.running.dtype.is_float else 0] * vectors.lanes)

    def place(self, step: Value, lanes: int = 1) -> Value:
        """Where on a line the elements of the next steps begin."""
        return self.builder.sub(I64(self.running.size - lanes), step) if self.running.reverse else step

    def address(self, pointer: Value, first: Value, step: Value, lanes: int, later: int = 0) -> Value:
        """The elements of the next steps on the line that begins at `first`, or those that come `later`."""
        place = self.place(self.builder.add(step, I64(later)), lanes)
        return element(self.builder, pointer, self.builder.add(first, place), self.running.dtype)

    def part(self, line: Value, number: Value, before: Value) -> None:
        """The running sums of a part; `before` is what comes before it, in all lanes."""
        builder, running = self.builder, self.running
        first = builder.mul(line, I64(running.size))
        later = int(running.exclusive)
        if later:
            self.clear_first(first, number)

        def more(vectors: Vectors, step: Value, total: Value) -> Value:
            x = vectors.load(builder, self.address(self.x, first, step, vectors.lanes))
            sums = vectors.add(builder, total, self.scanned(x, vectors))
            vectors.store(builder, sums, self.address(self.result, first, step, vectors.lanes, later))
            return self.chosen(sums, 0 if running.reverse else vectors.lanes - 1, vectors.lanes)

        self.over(number, before, more)

    def clear_first(self, first: Value, number: Value) -> None:
        """The first of the exclusive sums is 0."""
        with self.builder.if_then(self.builder.icmp_signed("==", number, I64(0))):
            self.one.store(self.builder, self.one.zero, self.address(self.result, first, I64(0), 1))

    def total(self, line: Value, number: Value) -> Value:
        """The sum of a part."""
        builder, lanes = self.builder, self.wide.lanes
        first = builder.mul(line, I64(self.running.size))
        start, stop, whole = self.bounds(number)

        def more(i: Value, carried: list[Value]) -> list[Value]:
            step = builder.add(start, builder.mul(i, I64(lanes)))
            x = self.wide.load(builder, self.address(self.x, first, step, lanes))
            return [self.wide.add(builder, carried[0], x)]

        (sums,) = counted(builder, 0, whole, more, [self.nothing(self.wide)])
        last = self.scanned(sums, self.wide)
        total = self.chosen(last, 0 if self.running.reverse else lanes - 1, 1)

        def single(step: Value, carried: list[Value]) -> list[Value]:
            return [self.one.add(builder, carried[0], self.one.load(builder, self.address(self.x, first, step, 1)))]

        (total,) = counted(builder, builder.add(start, builder.mul(whole, I64(lanes))), stop, single, [total])
        return builder.extract_element(total, I32(0))

    def bounds(self, number: Value) -> tuple[Value, Value, Value]:
        """The first step of a part, the one after its last, and how many whole vectors there are between."""
        builder, running = self.builder, self.running
        start = smaller(builder, builder.mul(number, I64(running.part_size)), I64(running.steps))
        stop = smaller(builder, builder.add(start, I64(running.part_size)), I64(running.steps))
        return start, stop, builder.udiv(builder.sub(stop, start), I64(self.wide.lanes))

    def over(self, number: Value, before: Value, more: Callable[[Vectors, Value, Value], Value]) -> None:
        """`more(vectors, step, total) -> total` for the vectors of a part, then for what is left, one by one."""
        builder, lanes = self.builder, self.wide.lanes
        start, stop, whole = self.bounds(number)

        def vector(i: Value, carried: list[Value]) -> list[Value]:
            return [more(self.wide, builder.add(start, builder.mul(i, I64(lanes))), carried[0])]

        (total,) = counted(builder, 0, whole, vector, [before])
        total = self.chosen(total, 0, 1)
        rest = builder.add(start, builder.mul(whole, I64(lanes)))
        counted(builder, rest, stop, lambda step, carried: [more(self.one, step, carried[0])], [total])

    def scanned(self, x: Value, vectors: Vectors) -> Value:
        """The running sums of a vector's lanes. In masks, lane number `lanes` is the first of `nothing`."""
        nothing, lanes, shift = self.nothing(vectors), vectors.lanes, 1
        while shift < lanes:
            if self.running.reverse:
                order = [min(lane + shift, lanes) for lane in range(lanes)]
            else:
                order = [lane - shift if lane >= shift else lanes for lane in range(lanes)]
            mask = ir.Constant(ir.VectorType(I32, lanes), order)
            x = vectors.add(self.builder, x, self.builder.shuffle_vector(x, nothing, mask))
            shift *= 2
        return x

    def chosen(self, vector: Value, lane: int, lanes: int) -> Value:
        """One lane of a vector in all lanes of another."""
        mask = ir.Constant(ir.VectorType(I32, lanes), [lane] * lanes)
        return self.builder.shuffle_vector(vector, Literal(vector.type, "poison"), mask)


def _across(lines: _Lines, unit: Value, blocks: Blocks) -> None:
    """Neighbouring lines, from their beginning to their end."""
    builder, running = lines.builder, lines.running
    vectors = Vectors(running.dtype, blocks.lanes, lines.wide.fused, lines.wide.halves)
    outer, block = builder.udiv(unit, I64(blocks.count)), builder.urem(unit, I64(blocks.count))
    j = smaller(builder, builder.mul(block, I64(blocks.width)), I64(blocks.size - blocks.width))
    first = builder.add(builder.mul(outer, I64(running.size * running.inner)), j)

    def addresses(pointer: Value, step: Value) -> list[Value]:
        row = builder.add(first, builder.mul(lines.place(step), I64(running.inner)))
        start = element(builder, pointer, row, running.dtype)
        return [forward(builder, start, v * blocks.lanes, running.dtype.size_bytes) for v in range(blocks.vectors)]

    if running.exclusive:
        for goal in addresses(lines.result, I64(0)):
            vectors.store(builder, vectors.zero, goal)

    def more(step: Value, totals: list[Value]) -> list[Value]:
        sources = addresses(lines.x, step)
        goals = addresses(lines.result, builder.add(step, I64(int(running.exclusive))))
        sums = [vectors.add(builder, t, vectors.load(builder, s)) for t, s in zip(totals, sources, strict=True)]
        for total, goal in zip(sums, goals, strict=True):
            vectors.store(builder, total, goal)
        return sums

    counted(builder, 0, running.steps, more, [lines.nothing(vectors)] * blocks.vectors)
