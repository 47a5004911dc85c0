"""The place of the first extreme along an axis: vectors of keys, with vectors of positions beside them.

    void kernel(i64 begin, i64 end, T* x, R* result)         whole lines
    void kernel(i64 begin, i64 end, T* x, workspace)         parts of lines, then
    void kernel(i64 begin, i64 end, workspace, R* result)    the first of the best of each line's parts

A lane keeps the largest key that it has seen and where that was; a later key must be larger to take its place, so what
remains is the first. Along the last axis the lanes are neighbours on a line, and at the end the best lane is
looked for; along other axes they are neighbouring lines. Tails overlap (see `Blocks`): an element that is seen twice
has the same position twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from highlevel.ir import DType

from ..cache import Unit
from .contraction.values import I64, POINTER, Builder, Value, counted, intrinsic, mangled, smaller, splat
from .kernel import element, forward, kernel
from .keys import Keys
from .lines import Blocks
from .targets import Target

UNROLLED = 8  # vectors of a line; more take a loop
VECTORS = 4  # of neighbouring lines that are searched together
ARGUMENTS = (I64, I64, POINTER, POINTER)

Store = Callable[[Value, Value, Value], None]  # (the line's first number among results, keys, positions)


@dataclass(frozen=True, slots=True)
class Search:
    """Lines of `size` elements, `inner` apart, each searched in `parts`.

    smallest: for the smallest element instead of the largest
    """

    dtype: DType
    size: int
    inner: int
    parts: int
    smallest: bool

    @property
    def keys(self) -> Keys:
        """The largest is looked for, so that NaN wins. As wide as positions, which stand beside them in vectors."""
        return Keys(self.dtype, self.smallest, 64 if self.size >= 2**31 else 32)

    @property
    def part_size(self) -> int:
        return -(-self.size // self.parts)

    def blocks(self, target: Target) -> Blocks:
        """Neighbours that are searched together: on a line, or lines."""
        lanes = target.lanes(self.keys.bits)
        return Blocks.of(self.inner, lanes, VECTORS) if self.inner > 1 else Blocks.of(self.part_size, lanes, 1)

    def units(self, outer: int, target: Target) -> int:
        """How much there is to share: blocks of lines, or their parts."""
        return outer * self.parts * (self.blocks(target).count if self.inner > 1 else 1)


def search_unit(search: Search, result: DType, target: Target) -> Unit:
    """The kernel for whole lines."""

    def write(builder: Builder, begin: Value, end: Value, x: Value, found: Value) -> None:
        def store(place: Value, _: Value, position: Value) -> None:
            lanes = position.type.count if isinstance(position.type, ir.VectorType) else 0
            number = _resized(builder, position, ir.IntType(8 * result.size_bytes), lanes)
            builder.store(number, element(builder, found, place, result), align=result.size_bytes)

        _Searcher(builder, search, target, x, store).emit(begin, end)

    return kernel(target, ARGUMENTS, write)


def partial_unit(search: Search, outer: int, target: Target) -> Unit:
    """The kernel for parts: their best keys, and behind all of these their positions, go to the workspace."""
    size_bytes = search.keys.bits // 8

    def write(builder: Builder, begin: Value, end: Value, x: Value, workspace: Value) -> None:
        positions = forward(builder, workspace, outer * search.parts * search.inner, size_bytes)

        def store(place: Value, key: Value, position: Value) -> None:
            for value, array in ((key, workspace), (position, positions)):
                builder.store(value, forward(builder, array, place, size_bytes), align=size_bytes)

        _Searcher(builder, search, target, x, store).emit(begin, end)

    return kernel(target, ARGUMENTS, write)


def merge_unit(search: Search, outer: int, result: DType, target: Target) -> Unit:
    """The kernel that chooses among a line's parts; units are lines."""
    kind = ir.IntType(search.keys.bits)
    size_bytes = kind.width // 8

    def write(builder: Builder, begin: Value, end: Value, workspace: Value, found: Value) -> None:
        positions = forward(builder, workspace, outer * search.parts * search.inner, size_bytes)

        def line(number: Value, _: list[Value]) -> None:
            o, j = _divided(builder, number, search.inner)
            first = builder.add(builder.mul(o, I64(search.parts * search.inner)), j)

            def loaded(part: Value) -> list[Value]:
                place = builder.add(first, builder.mul(part, I64(search.inner)))
                return [builder.load(forward(builder, a, place, size_bytes), typ=kind) for a in (workspace, positions)]

            def choose(part: Value, best: list[Value]) -> list[Value]:
                other = loaded(part)
                larger = builder.icmp_signed(">", other[0], best[0])
                return [builder.select(larger, a, b) for a, b in zip(other, best, strict=True)]

            _, position = counted(builder, 1, search.parts, choose, loaded(I64(0)))
            value = _resized(builder, position, ir.IntType(8 * result.size_bytes), 0)
            builder.store(value, element(builder, found, number, result), align=result.size_bytes)

        counted(builder, begin, end, line)

    return kernel(target, ARGUMENTS, write)


def _divided(builder: Builder, number: Value, divisor: int) -> tuple[Value, Value]:
    """Quotient and remainder of a number that is not negative."""
    if divisor == 1:
        return number, I64(0)
    return builder.udiv(number, I64(divisor)), builder.urem(number, I64(divisor))


def _resized(builder: Builder, value: Value, kind: ir.IntType, lanes: int) -> Value:
    width = value.type.element.width if lanes else value.type.width
    if width == kind.width:
        return value
    wanted = ir.VectorType(kind, lanes) if lanes else kind
    return builder.trunc(value, wanted) if kind.width < width else builder.zext(value, wanted)


class _Searcher:
    """Emits the search of one unit after the other."""

    def __init__(self, builder: Builder, search: Search, target: Target, x: Value, store: Store) -> None:
        self.builder, self.search, self.x, self.store = builder, search, x, store
        self.keys = search.keys
        self.blocks = search.blocks(target)
        self.lanes = self.blocks.lanes
        self.kind = ir.VectorType(ir.IntType(self.keys.bits), self.lanes)

    def emit(self, begin: Value, end: Value) -> None:
        counted(self.builder, begin, end, lambda unit, _: self._unit(unit))

    def _unit(self, unit: Value) -> None:
        builder, search = self.builder, self.search
        numbered, block = _divided(builder, unit, self.blocks.count if search.inner > 1 else 1)
        o, part = _divided(builder, numbered, search.parts)
        start = smaller(builder, builder.mul(part, I64(search.part_size)), I64(search.size - search.part_size))
        j = smaller(builder, builder.mul(block, I64(self.blocks.width)), I64(search.inner - self.blocks.width))
        j = j if search.inner > 1 else I64(0)
        place = builder.add(builder.mul(o, I64(search.size)), start)
        first = builder.add(builder.mul(place, I64(search.inner)), j)
        result = builder.add(builder.mul(numbered, I64(search.inner)), j)
        narrow = _resized(builder, start, ir.IntType(self.keys.bits), 0)
        if search.inner > 1:
            self._across(first, narrow, result)
        else:
            self._along(first, narrow, result)

    def _load(self, place: Value) -> Value:
        return self.keys.load(self.builder, element(self.builder, self.x, place, self.search.dtype), self.lanes)

    def _better(self, seen: tuple[Value, Value], key: Value, position: Value) -> tuple[Value, Value]:
        """What has been seen, and one more."""
        builder, (best, where) = self.builder, seen
        larger = builder.icmp_signed(">", key, best)
        maximum = intrinsic(builder, f"llvm.smax.{mangled(self.kind)}", self.kind, (self.kind, self.kind))
        return builder.call(maximum, [key, best]), builder.select(larger, position, where)

    def _numbers(self, start: int = 0) -> Value:
        return ir.Constant(self.kind, list(range(start, start + self.lanes)))

    def _along(self, first: Value, start: Value, result: Value) -> None:
        """One line, or a part of it."""
        builder, size, lanes = self.builder, self.search.part_size, self.lanes
        seen = self._load(first), self._numbers()
        whole = size // lanes
        if whole <= UNROLLED:
            for i in range(1, whole):
                key = self._load(builder.add(first, I64(i * lanes)))
                seen = self._better(seen, key, self._numbers(i * lanes))
        else:
            step = ir.Constant(self.kind, [lanes] * lanes)

            def more(i: Value, carried: list[Value]) -> list[Value]:
                position = builder.add(carried[2], step)
                key = self._load(builder.add(first, builder.mul(i, I64(lanes))))
                return [*self._better((carried[0], carried[1]), key, position), position]

            best, where, _ = counted(builder, 1, whole, more, [*seen, self._numbers()])
            seen = best, where
        if size % lanes:
            seen = self._better(seen, self._load(builder.add(first, I64(size - lanes))), self._numbers(size - lanes))
        key, position = self._first(*seen)
        self.store(result, key, builder.add(position, start))

    def _first(self, best: Value, where: Value) -> tuple[Value, Value]:
        """The largest key of all lanes, and the first position that has it."""
        builder, kind = self.builder, self.kind
        largest = intrinsic(builder, f"llvm.vector.reduce.smax.{mangled(kind)}", kind.element, (kind,))
        least = intrinsic(builder, f"llvm.vector.reduce.smin.{mangled(kind)}", kind.element, (kind,))
        key = builder.call(largest, [best])
        is_best = builder.icmp_signed("==", best, splat(builder, key, self.lanes))
        none = ir.Constant(kind, [self.keys.highest] * self.lanes)
        return key, builder.call(least, [builder.select(is_best, where, none)])

    def _across(self, first: Value, start: Value, result: Value) -> None:
        """Neighbouring lines, or a part of each."""
        builder, search, vectors = self.builder, self.search, self.blocks.vectors
        offsets = [I64(v * self.lanes) for v in range(vectors)]
        zero = ir.Constant(self.kind, [0] * self.lanes)
        one = ir.Constant(self.kind, [1] * self.lanes)
        best = [self._load(builder.add(first, offset)) for offset in offsets]

        def more(i: Value, carried: list[Value]) -> list[Value]:
            position = builder.add(carried[-1], one)
            row = builder.add(first, builder.mul(i, I64(search.inner)))
            keys = [self._load(builder.add(row, offset)) for offset in offsets]
            seen = zip(carried[:vectors], carried[vectors:-1], strict=True)
            found = [self._better(s, key, position) for s, key in zip(seen, keys, strict=True)]
            return [*(key for key, _ in found), *(where for _, where in found), position]

        carried = counted(builder, 1, search.part_size, more, [*best, *[zero] * (vectors + 1)])
        start = splat(builder, start, self.lanes)
        for v, offset in enumerate(offsets):
            position = builder.add(carried[vectors + v], start)
            self.store(builder.add(result, offset), carried[v], position)
