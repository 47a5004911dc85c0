"""Sorting lines, and taking their first elements.

An element becomes one integer: its key (see keys.py) above its position on the line. No two are equal, so any way of
sorting them is stable, and an element moves with its position in one register: 64 bits, or 128 for types of 64 bits.

    runs     of RUN elements: an element's place is the number of smaller ones, a comparison of vectors
    merges   of neighbours of equal length, from both ends at once: two chains of dependent steps instead of one, and no
             end to look out for, since neither half is used up before all places are filled
    merges   of others: with an eye on both ends

A line's last run is filled up with keys that come after all others. Nothing branches on data, and LLVM's
optimiser is not asked: it would make branches of what is chosen here by masks, at half the speed.

    void kernel(i64 begin, i64 end, T* x, result…, workspace, i32 tid)     lines, each in a thread's own workspace

Long lines are cut into parts; what two parts become together is cut into segments, each of which finds by bisection
where in both of its sources it begins (O. Green et al., "Merge path", 2012).

    void kernel(i64 begin, i64 end, T* x, workspace)                       parts, sorted
    void kernel(i64 begin, i64 end, workspace)                             segments of merges, level by level
    void kernel(i64 begin, i64 end, T* x, result…, workspace)              results
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from highlevel.ir import DType
from highlevel.ir.dtypes import int32

from ..cache import Unit
from .contraction.values import I1, I32, I64, POINTER, Builder, Value, counted, intrinsic, mangled, smaller, splat
from .kernel import element, forward, kernel
from .keys import Keys
from .targets import Target

PARTS = 8  # of a long line
SEGMENTS = 2 * PARTS
LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Sorting:
    """Lines of `size` elements, `inner` apart; of each the first `taken` in order.

    values, positions: which results there are, in this order
    """

    dtype: DType
    size: int
    inner: int
    falling: bool
    taken: int
    values: bool
    positions: bool

    @property
    def keys(self) -> Keys:
        return Keys(self.dtype, self.falling)

    @property
    def packed(self) -> ir.Type:
        """The integer that stands for an element."""
        return ir.IntType(2 * self.keys.bits)

    @property
    def packed_bytes(self) -> int:
        return self.keys.bits // 4

    @property
    def run(self) -> int:
        """The length of runs: a power of 2."""
        return 16 if self.keys.bits == 32 else 8

    @property
    def results(self) -> int:
        return self.values + self.positions

    def padded(self, parts: int = 1) -> int:
        """The length of lines (of whole runs, equal in all parts)."""
        return -(-self.size // (parts * self.run)) * parts * self.run

    def workspace_bytes(self, parts: int = 1) -> int:
        """Two copies of a line, with room to look beyond the end."""
        return 2 * self._copy_bytes(parts)

    def _copy_bytes(self, parts: int) -> int:
        return -(-(self.padded(parts) + 1) * self.packed_bytes // LINE_BYTES) * LINE_BYTES

    def copies(self, builder: Builder, workspace: Value, parts: int = 1) -> tuple[Value, Value]:
        return workspace, forward(builder, workspace, self._copy_bytes(parts))

    def levels(self, length: int) -> int:
        """How often runs are merged until that many elements are one."""
        return (-(-length // self.run) - 1).bit_length()


# Kernels -------------------------------------------------------------------------------------------------------------
def lines_unit(sorting: Sorting, target: Target) -> Unit:
    """The kernel for whole lines."""

    def write(builder: Builder, begin: Value, end: Value, x: Value, *rest: Value) -> None:
        *results, workspace, tid = rest
        sorter = _Sorter(builder, sorting, x)
        mine = builder.mul(builder.zext(tid, I64), I64(sorting.workspace_bytes()))
        copies = sorting.copies(builder, forward(builder, workspace, mine))

        def line(number: Value, _: list[Value]) -> None:
            sorter.pack(number, copies[0], I64(0), sorting.padded())
            done = sorter.sort(copies, sorting.padded())
            sorter.unpack(number, done, I64(0), I64(sorting.taken), results)

        counted(builder, begin, end, line)

    pointers = [POINTER] * (2 + sorting.results)
    return kernel(target, (I64, I64, *pointers, I32), write)


def parts_unit(sorting: Sorting, target: Target) -> Unit:
    """The kernel that sorts the parts of long lines."""
    size = sorting.padded(PARTS) // PARTS

    def write(builder: Builder, begin: Value, end: Value, x: Value, workspace: Value) -> None:
        sorter = _Sorter(builder, sorting, x)

        def part(unit: Value, _: list[Value]) -> None:
            number, start = sorter.place(unit, PARTS, size)
            copies = sorter.copies_of(workspace, number)
            mine = [forward(builder, copy, start, sorting.packed_bytes) for copy in copies]
            sorter.pack(number, mine[0], start, size)
            sorter.sort((mine[0], mine[1]), size)

        counted(builder, begin, end, part)

    return kernel(target, (I64, I64, POINTER, POINTER), write)


def merge_unit(sorting: Sorting, level: int, target: Target) -> Unit:
    """The kernel that merges parts: `level` 0 takes two parts each, 1 four, …"""
    size = sorting.padded(PARTS) // PARTS
    width, segment = size << level, size // 2
    first = _final(sorting.levels(size))

    def write(builder: Builder, begin: Value, end: Value, workspace: Value) -> None:
        sorter = _Sorter(builder, sorting, workspace)

        def unit(unit: Value, _: list[Value]) -> None:
            number, start = sorter.place(unit, SEGMENTS, segment)
            copies = sorter.copies_of(workspace, number)
            source, goal = copies[(first + level) % 2], copies[(first + level + 1) % 2]
            pair = builder.mul(builder.udiv(start, I64(2 * width)), I64(2 * width))
            middle = builder.add(pair, I64(width))
            from_first = sorter.bisect(source, pair, middle, width, builder.sub(start, pair))
            from_second = builder.sub(builder.sub(start, pair), from_first)
            bounds = (builder.add(pair, from_first), middle, builder.add(middle, from_second))
            sorter.merge(source, goal, start, bounds, builder.add(middle, I64(width)), I64(segment))

        counted(builder, begin, end, unit)

    return kernel(target, (I64, I64, POINTER), write)


def results_unit(sorting: Sorting, target: Target) -> Unit:
    """The kernel that writes the results of long lines."""
    size = sorting.padded(PARTS) // PARTS
    done = (_final(sorting.levels(size)) + (PARTS - 1).bit_length()) % 2

    def write(builder: Builder, begin: Value, end: Value, x: Value, *rest: Value) -> None:
        *results, workspace = rest
        sorter = _Sorter(builder, sorting, x)

        def segment(unit: Value, _: list[Value]) -> None:
            number, start = sorter.place(unit, SEGMENTS, size // 2)
            source = sorter.copies_of(workspace, number)[done]
            stop = smaller(builder, builder.add(start, I64(size // 2)), I64(sorting.taken))
            sorter.unpack(number, source, start, stop, results)

        counted(builder, begin, end, segment)

    pointers = [POINTER] * (2 + sorting.results)
    return kernel(target, (I64, I64, *pointers), write)


def first_unit(sorting: Sorting, target: Target) -> Unit:
    """The kernel that takes the first few elements of lines without sorting the rest.

    They are kept in order. Vectors of keys are compared with the last of them: most have nothing that comes before it.
    """

    def write(builder: Builder, begin: Value, end: Value, x: Value, *results: Value) -> None:
        kept = builder.alloca(sorting.packed, size=I64(sorting.taken))
        kept.align = sorting.packed_bytes
        chooser = _Chooser(builder, sorting, x, kept, target)

        def line(number: Value, _: list[Value]) -> None:
            chooser.choose(number)
            chooser.sorter.unpack(number, kept, I64(0), I64(sorting.taken), list(results))

        counted(builder, begin, end, line)

    return kernel(target, (I64, I64, *[POINTER] * (1 + sorting.results)), write)


def _final(levels: int) -> int:
    """In which of two copies a line is after runs – they go to the second – and that many merges."""
    return (levels + 1) % 2


# Their insides -------------------------------------------------------------------------------------------------------
class _Sorter:
    """Emits the steps of sorting a line."""

    def __init__(self, builder: Builder, sorting: Sorting, x: Value) -> None:
        self.builder, self.sorting, self.x = builder, sorting, x
        self.kind = sorting.packed

    def place(self, unit: Value, count: int, size: int) -> tuple[Value, Value]:
        """(line, where its piece begins) of a unit, with `count` pieces of that size on every line."""
        builder = self.builder
        return builder.udiv(unit, I64(count)), builder.mul(builder.urem(unit, I64(count)), I64(size))

    def copies_of(self, workspace: Value, number: Value) -> tuple[Value, Value]:
        """A long line's two copies."""
        offset = self.builder.mul(number, I64(self.sorting.workspace_bytes(PARTS)))
        return self.sorting.copies(self.builder, forward(self.builder, workspace, offset), PARTS)

    def at(self, copy: Value, place: Value) -> Value:
        return forward(self.builder, copy, place, self.sorting.packed_bytes)

    def get(self, copy: Value, place: Value) -> Value:
        return self.builder.load(self.at(copy, place), typ=self.kind, align=self.sorting.packed_bytes)

    def put(self, value: Value, copy: Value, place: Value) -> None:
        self.builder.store(value, self.at(copy, place), align=self.sorting.packed_bytes)

    # Elements ↔ integers ---------------------------------------------------------------------------------------------
    def source(self, number: Value, position: Value) -> Value:
        """The address of an element of x."""
        builder, sorting = self.builder, self.sorting
        outer, j = builder.udiv(number, I64(sorting.inner)), builder.urem(number, I64(sorting.inner))
        on_line = builder.add(builder.mul(outer, I64(sorting.size)), position)
        return element(builder, self.x, builder.add(builder.mul(on_line, I64(sorting.inner)), j), sorting.dtype)

    def packed(self, number: Value, position: Value) -> Value:
        key = self.sorting.keys.load(self.builder, self.source(number, position))
        return self.join(key, position)

    def join(self, key: Value, position: Value) -> Value:
        builder, half = self.builder, self.sorting.keys.bits
        upper = builder.shl(builder.sext(key, self.kind), ir.Constant(self.kind, half))
        return builder.or_(upper, builder.zext(position, self.kind) if half == 64 else position)

    def key_of(self, value: Value) -> Value:
        half = self.sorting.keys.bits
        return self.builder.trunc(self.builder.ashr(value, ir.Constant(self.kind, half)), ir.IntType(half))

    def pack(self, number: Value, copy: Value, start: Value, count: int) -> None:
        """Elements of a line from `start` on, and behind its end what comes last."""
        builder, sorting = self.builder, self.sorting
        stop = smaller(builder, I64(count), builder.sub(I64(sorting.size), start))

        def one(i: Value, _: list[Value]) -> None:
            self.put(self.packed(number, builder.add(start, i)), copy, i)

        def last(i: Value, _: list[Value]) -> None:
            key = ir.Constant(ir.IntType(sorting.keys.bits), sorting.keys.highest)
            self.put(self.join(key, builder.add(start, i)), copy, i)

        counted(builder, I64(0), stop, one)
        zero = builder.select(builder.icmp_signed("<", stop, I64(0)), I64(0), stop)
        counted(builder, zero, I64(count), last)

    def unpack(self, number: Value, copy: Value, start: Value, stop: Value, results: list[Value]) -> None:
        """What was asked for, at the places from `start` on."""
        builder, sorting = self.builder, self.sorting
        outer, j = builder.udiv(number, I64(sorting.inner)), builder.urem(number, I64(sorting.inner))
        stored = ir.IntType(8 * sorting.dtype.size_bytes)

        def one(i: Value, _: list[Value]) -> None:
            on_line = builder.add(builder.mul(outer, I64(sorting.taken)), i)
            goal = builder.add(builder.mul(on_line, I64(sorting.inner)), j)
            position = builder.trunc(self.get(copy, i), I32)
            if sorting.values:
                source = self.source(number, builder.zext(position, I64))
                value = builder.load(source, typ=stored, align=sorting.dtype.size_bytes)
                builder.store(value, element(builder, results[0], goal, sorting.dtype), align=sorting.dtype.size_bytes)
            if sorting.positions:
                builder.store(position, element(builder, results[-1], goal, int32), align=4)

        counted(builder, start, stop, one)

    # Sorting ---------------------------------------------------------------------------------------------------------
    def sort(self, copies: tuple[Value, Value], count: int) -> Value:
        """Sorts `count` elements (whole runs) of the first copy; gives the copy in which they are then."""
        builder, run = self.builder, self.sorting.run
        counted(builder, 0, count // run, lambda r, _: self.run(builder.mul(r, I64(run)), *copies))
        levels = self.sorting.levels(count)

        def level(_: Value, carried: list[Value]) -> list[Value]:
            source, goal, width = carried
            double = builder.shl(width, I64(1))
            whole = builder.udiv(I64(count), double)
            counted(builder, I64(0), whole, lambda p, _: self.merge_equal(source, goal, builder.mul(p, double), width))
            start = builder.mul(whole, double)
            middle = smaller(builder, builder.add(start, width), I64(count))
            rest = builder.sub(I64(count), start)
            self.merge(source, goal, start, (start, middle, middle), I64(count), rest)
            return [goal, source, double]

        counted(builder, 0, levels, level, [copies[1], copies[0], I64(run)])
        return copies[_final(levels)]

    def run(self, start: Value, source: Value, goal: Value) -> None:
        """A run in order: every element goes to the place that is the number of smaller ones."""
        builder, run = self.builder, self.sorting.run
        kind = ir.VectorType(self.kind, run)
        all_ = builder.load(self.at(source, start), typ=kind, align=self.sorting.packed_bytes)
        count = intrinsic(builder, f"llvm.ctpop.i{run}", ir.IntType(run), (ir.IntType(run),))

        def one(i: Value, _: list[Value]) -> None:
            value = self.get(source, builder.add(start, i))
            less = builder.icmp_signed("<", all_, splat(builder, value, run))
            rank = builder.call(count, [builder.bitcast(less, ir.IntType(run))])
            self.put(value, goal, builder.add(start, builder.zext(rank, I64)))

        counted(builder, 0, run, one)

    def merge_equal(self, source: Value, goal: Value, start: Value, width: Value) -> None:
        """Two neighbours of equal length: the lower half of the result from the front, the upper one from the back."""
        builder = self.builder
        middle = builder.add(start, width)
        last, end = builder.sub(middle, I64(1)), builder.sub(builder.add(middle, width), I64(1))

        def step(i: Value, carried: list[Value]) -> list[Value]:
            taken, left = carried  # of the first neighbour: from its front, from its back
            a = self.get(source, builder.add(start, taken))
            b = self.get(source, builder.add(middle, builder.sub(i, taken)))
            first = builder.icmp_signed("<", a, b)
            self.put(builder.select(first, a, b), goal, builder.add(start, i))
            c = self.get(source, builder.sub(last, left))
            d = self.get(source, builder.sub(end, builder.sub(i, left)))
            later = builder.icmp_signed(">", c, d)
            self.put(builder.select(later, c, d), goal, builder.sub(end, i))
            return [builder.add(taken, builder.zext(first, I64)), builder.add(left, builder.zext(later, I64))]

        counted(builder, I64(0), width, step, [I64(0), I64(0)])

    def merge(
        self, source: Value, goal: Value, start: Value, bounds: tuple[Value, Value, Value], end: Value, count: Value
    ) -> None:
        """`count` elements from `start` on, of (a, its end, b) and `end`, b's end; either may be used up."""
        builder, (a, a_end, b) = self.builder, bounds

        def step(i: Value, carried: list[Value]) -> list[Value]:
            a, b = carried
            x, y = self.get(source, a), self.get(source, b)
            b_left = builder.icmp_signed("<", b, end)
            a_left = builder.icmp_signed("<", a, a_end)
            second = builder.and_(b_left, builder.or_(builder.not_(a_left), builder.icmp_signed("<", y, x)))
            self.put(builder.select(second, y, x), goal, builder.add(start, i))
            one = builder.zext(second, I64)
            return [builder.add(a, builder.sub(I64(1), one)), builder.add(b, one)]

        counted(builder, I64(0), count, step, [a, b])

    def bisect(self, source: Value, a: Value, b: Value, width: int, place: Value) -> Value:
        """How many of the first `place` elements of a merge of two neighbours come from the first."""
        builder = self.builder
        excess = builder.sub(place, I64(width))
        low = builder.select(builder.icmp_signed(">", excess, I64(0)), excess, I64(0))
        high = smaller(builder, place, I64(width))

        def halve(_: Value, carried: list[Value]) -> list[Value]:
            low, high = carried
            middle = builder.lshr(builder.add(low, high), I64(1))
            open_ = builder.icmp_signed("<", low, high)
            other = builder.sub(builder.sub(place, middle), I64(1))
            # When nothing is left to halve, the places may be beyond the ends: others are read, and not regarded.
            x = self.get(source, builder.add(a, builder.select(open_, middle, I64(0))))
            y = self.get(source, builder.add(b, builder.select(open_, other, I64(0))))
            more = builder.icmp_signed("<", x, y)
            up, down = builder.and_(open_, more), builder.and_(open_, builder.not_(more))
            return [
                builder.select(up, builder.add(middle, I64(1)), low),
                builder.select(down, middle, high),
            ]

        return counted(builder, 0, width.bit_length() + 1, halve, [low, high])[0]


class _Chooser:
    """Emits the search for a line's first elements; `kept` has them in order."""

    def __init__(self, builder: Builder, sorting: Sorting, x: Value, kept: Value, target: Target) -> None:
        self.builder, self.sorting, self.kept = builder, sorting, kept
        self.sorter = _Sorter(builder, sorting, x)
        self.lanes = target.lanes(sorting.keys.bits)
        self.last = I64(sorting.taken - 1)

    def choose(self, number: Value) -> None:
        builder, sorting, lanes = self.builder, self.sorting, self.lanes
        none = ir.Constant(self.sorter.kind, 2 ** (2 * sorting.keys.bits - 1) - 1)
        counted(builder, 0, sorting.taken, lambda i, _: self.sorter.put(none, self.kept, i))
        counted(builder, 0, sorting.taken, lambda i, _: self.offer(number, i))  # whatever they are, NaN too
        groups, rest = divmod(sorting.size - sorting.taken, lanes)

        def group(g: Value, _: list[Value]) -> None:
            start = builder.add(builder.mul(g, I64(lanes)), I64(sorting.taken))
            keys = sorting.keys.load(builder, self.sorter.source(number, start), lanes)
            last = self.sorter.key_of(self.sorter.get(self.kept, self.last))
            better = builder.icmp_signed("<", keys, splat(builder, last, lanes))
            any_ = intrinsic(builder, f"llvm.vector.reduce.or.{mangled(better.type)}", I1, (better.type,))
            with builder.if_then(builder.call(any_, [better]), likely=False):
                counted(builder, 0, lanes, lambda i, _: self.offer(number, builder.add(start, i)))

        counted(builder, 0, groups, group)
        counted(builder, sorting.size - rest, sorting.size, lambda i, _: self.offer(number, i))

    def offer(self, number: Value, position: Value) -> None:
        """Puts an element among those that are kept, if it comes before the last of them."""
        builder, sorter = self.builder, self.sorter
        value = sorter.packed(number, position)
        with builder.if_then(builder.icmp_signed("<", value, sorter.get(self.kept, self.last))):

            def goes_on(place: Value) -> Value:
                before = smaller(builder, builder.sub(place, I64(1)), place)
                inside = builder.icmp_signed(">", place, I64(0))
                at = builder.select(inside, before, I64(0))
                return builder.and_(inside, builder.icmp_signed("<", value, sorter.get(self.kept, at)))

            def shift(place: Value) -> Value:
                before = builder.sub(place, I64(1))
                sorter.put(sorter.get(self.kept, before), self.kept, place)
                return before

            sorter.put(value, self.kept, _while(builder, self.last, goes_on, shift))


def _while(builder: Builder, start: Value, test: Callable[[Value], Value], body: Callable[[Value], Value]) -> Value:
    """`while test(i): i = body(i)`; gives the last i."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("while", "while_do", "while_end"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(I64)
    i.add_incoming(start, before)
    builder.cbranch(test(i), inside, after)
    builder.position_at_end(inside)
    i.add_incoming(body(i), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return i
