"""The gradient of maxima of windows that overlap: each window's cotangent goes to the first position of its maximum.

First which position won is written into the workspace, for the windows that a band of elements needs; then each element
adds up the cotangents of the windows that it has won, in the order of positions. Nothing is added to what another
thread writes.

An element at `q · stride + r − low` of an axis is at position t of window `q + (r − t · dilation) / stride`: which t
there are depends on r alone, so elements are unrolled by their r. Windows beyond the edges are moved inside, and asked
for a position that there is not.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from highlevel.ir import DType

from ..cache import Unit
from .contraction.values import I32, I64, POINTER, Builder, Value, counted, larger, smaller
from .contraction.work import digits
from .kernel import element, forward, kernel
from .lanes import Piece, along, can_stream, is_aligned, lanes_of
from .targets import Target
from .window import (
    Axis,
    Positions,
    State,
    Windows,
    each_window,
    is_looped,
    most_registers,
    number_type,
    positions,
    winners,
)

WRITTEN_OUT = 128  # the most pairs of elements and positions that are written out
BAND_BYTES = 64 << 10  # the workspace for positions, per thread, if a band can be so small
NOWHERE = -(1 << 29)  # a position that there is not, whatever is added along other axes


# Bands ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Bands:
    """How an image is cut: into bands of `rows` strides along the first axis.

    first, end: the strides q that hold elements of the image
    before:     how many rows of windows a band needs that begin before it
    """

    windows: Windows
    rows: int
    first: int
    end: int
    before: int

    @classmethod
    def of(cls, windows: Windows) -> Bands:
        axis = windows.axes[0]
        first, end = _strides(axis)
        before = (axis.extent - 1) // axis.stride
        fitting = BAND_BYTES // max(1, row_bytes(windows)) - before
        rows = min(max(1, end - first), max(1, 4 * before, fitting))
        count = max(1, -(-(end - first) // rows))
        return cls(windows, -(-(end - first) // count), first, end, before)

    @property
    def count(self) -> int:
        return -(-(self.end - self.first) // self.rows) if self.rows else 0

    @property
    def workspace_bytes(self) -> int:
        """For the winners of a band, per thread."""
        return -(-(self.rows + self.before) * row_bytes(self.windows) // 64) * 64


def row_bytes(windows: Windows) -> int:
    """Of the winners of a row of windows."""
    return windows.axes[1].windows * windows.axes[2].windows * windows.channels * number_type(windows).size_bytes


def overlapping_unit(windows: Windows, dtype: DType, result: DType, target: Target, *, streamed: bool = False) -> Unit:
    """`kernel(begin, end, x, g, out, i32 tid, workspace)`; units are the bands of all images.

    streamed: the result is too large for caches, and is written past them if it is aligned
    """
    lanes = lanes_of(target, dtype, result)
    streamed = streamed and can_stream(target, lanes, windows.channels, result)
    bands = Bands.of(windows)
    axis = windows.axes[0]

    def write(
        builder: Builder, begin: Value, end: Value, x: Value, g: Value, out: Value, tid: Value, workspace: Value
    ) -> None:
        private = builder.mul(builder.sext(tid, I64), I64(bands.workspace_bytes))
        winners_at = forward(builder, workspace, private)

        def band(u: Value, _: State) -> None:
            image, number = digits(builder, u, (0, bands.count))
            q = builder.add(builder.mul(number, I64(bands.rows)), I64(bands.first))
            q_end = smaller(builder, builder.add(q, I64(bands.rows)), I64(bands.end))
            first = larger(builder, builder.sub(q, I64(bands.before)), I64(0))
            last = smaller(builder, q_end, I64(axis.windows))
            offset = builder.mul(image, I64(windows.image))
            pixels = element(builder, x, offset, dtype)
            _write_winners(builder, windows, pixels, dtype, (first, last), winners_at, target)
            cotangents = builder.mul(image, I64(_windows_in(windows) * windows.channels))
            emitter = _Gather(
                builder,
                windows,
                result,
                target,
                lanes,
                (winners_at, element(builder, g, cotangents, result), element(builder, out, offset, result)),
                (first, last),
            )
            if not streamed:
                emitter.band(q, q_end)
                return
            with builder.if_else(is_aligned(builder, out)) as (aligned, anywhere):
                with aligned:
                    emitter.streamed = True
                    emitter.band(q, q_end)
                with anywhere:
                    emitter.streamed = False
                    emitter.band(q, q_end)

        counted(builder, begin, end, band)
        if streamed:
            builder.fence("seq_cst")

    arguments = [I64, I64, POINTER, POINTER, POINTER, I32, POINTER]
    return kernel(target, arguments, write, noalias=(4, 6))


def _windows_in(windows: Windows) -> int:
    return math.prod(axis.windows for axis in windows.axes)


def _write_winners(
    builder: Builder,
    windows: Windows,
    image: Value,
    dtype: DType,
    rows: tuple[Value, Value],
    goal: Value,
    target: Target,
) -> None:
    """The winners of rows of windows, one after the other."""
    looped = is_looped(windows)
    start = positions(windows, [(image, dtype)], looped=looped)
    kind, lanes, most = number_type(windows), lanes_of(target, dtype), most_registers(target, looped)

    def row(o0: Value, _: State) -> None:
        to = forward(builder, goal, builder.mul(builder.sub(o0, rows[0]), I64(row_bytes(windows))))

        def window(number: Value, found: Positions) -> None:
            place = element(builder, to, builder.mul(number, I64(windows.channels)), kind)

            def channels(c: Value | int, pieces: Sequence[Piece]) -> None:
                won = winners(builder, found, c, pieces, dtype)[1::2]
                for piece, value in zip(pieces, won, strict=True):
                    piece.store(builder, value, element(builder, place, c, kind), kind)

            along(builder, target, lanes, windows.channels, most, channels)

        each_window(builder, windows, start, o0, window)

    counted(builder, *rows, row)


@dataclass(frozen=True, slots=True)
class _Source:
    """A window that an element may be in: the position that it has there, and where its winners and cotangents are."""

    position: Value
    winners: Value
    cotangents: Value


class _Gather:
    """Writes the elements of a band."""

    def __init__(
        self,
        builder: Builder,
        windows: Windows,
        result: DType,
        target: Target,
        lanes: int,
        pointers: tuple[Value, Value, Value],
        rows: tuple[Value, Value],
    ) -> None:
        self.builder, self.windows, self.result = builder, windows, result
        self.target, self.lanes, self.rows = target, lanes, rows
        self.winners, self.cotangents, self.out = pointers
        self.numbers = number_type(windows)
        self.streamed = False
        pairs = math.prod(axis.window for axis in windows.axes) + math.prod(axis.stride for axis in windows.axes)
        self.looped = pairs > WRITTEN_OUT

    def band(self, q: Value, q_end: Value) -> None:
        """Its strides along the first axis, from q to q_end."""
        if not self.looped:
            self._axis(0, (q, q_end), self.out, [_Source(I64(0), self.winners, self.cotangents)])
            return
        builder, axis = self.builder, self.windows.axes[0]
        begin, end = (builder.sub(builder.mul(each, I64(axis.stride)), I64(axis.low)) for each in (q, q_end))
        reach = larger(builder, begin, I64(0)), smaller(builder, end, I64(axis.size))
        self._axis_looped(0, reach, self.out, [])

    # Elements --------------------------------------------------------------------------------------------------------
    def _axis(
        self, number: int, strides: tuple[Value | int, Value | int], out: Value, sources: Sequence[_Source]
    ) -> None:
        """All elements of some strides along an axis, and of the axes after it."""
        builder, axis = self.builder, self.windows.axes[number]

        def stride(q: Value, _: State) -> None:
            for r in range(axis.stride):
                i = builder.add(builder.mul(q, I64(axis.stride)), I64(r - axis.low))
                with _if_inside(builder, axis, i, r):
                    place = element(builder, out, builder.mul(i, I64(self.windows.step(number))), self.result)
                    found = self._sources(number, q, r, sources)
                    if number == 2:
                        self._element(place, lambda start, pieces: self._sum(found, start, pieces))  # noqa: B023
                    else:
                        self._axis(number + 1, _strides(self.windows.axes[number + 1]), place, found)

        counted(builder, *strides, stride)

    def _sources(self, number: int, q: Value, r: int, sources: Sequence[_Source]) -> list[_Source]:
        """The sources of an element with that remainder, along one axis more."""
        axis = self.windows.axes[number]
        return [
            self._source(number, source, q, t, (r - t * axis.dilation) // axis.stride)
            for source in sources
            for t in range(axis.window)
            if (r - t * axis.dilation) % axis.stride == 0
        ]

    def _source(self, number: int, source: _Source, q: Value, t: Value | int, ahead: int | None = None) -> _Source:
        """The source one axis further on: of window q + ahead, at position t; q may lie anywhere if that is None."""
        builder, axis = self.builder, self.windows.axes[number]
        low, end = self.rows if number == 0 else (I64(0), I64(axis.windows))
        window = builder.add(q, I64(ahead)) if ahead else q
        position = _times(builder, t, self.windows.weight(number))
        first_q, end_q = _strides(axis)
        inside = window
        if number == 0 or ahead is None or end_q - 1 + ahead >= axis.windows:
            exists = builder.icmp_signed("<", window, end)
            position = builder.select(exists, position, I64(NOWHERE))
            inside = builder.select(exists, inside, builder.sub(end, I64(1)))
        if number == 0 or ahead is None or first_q + ahead < 0:
            exists = builder.icmp_signed(">=", window, low)
            position = builder.select(exists, position, I64(NOWHERE))
            inside = larger(builder, inside, low)
        step = math.prod(other.windows for other in self.windows.axes[number + 1 :]) * self.windows.channels
        kept = builder.sub(inside, low) if number == 0 else inside
        if number == 0:  # where a band has no windows at all
            inside = smaller(builder, inside, I64(axis.windows - 1))
        return _Source(
            builder.add(position, source.position),
            element(builder, source.winners, builder.mul(kept, I64(step)), self.numbers),
            element(builder, source.cotangents, builder.mul(inside, I64(step)), self.result),
        )

    # Elements of windows with very many positions --------------------------------------------------------------------
    def _axis_looped(
        self, number: int, elements: tuple[Value | int, Value | int], out: Value, before: Sequence[Value]
    ) -> None:
        """All elements along an axis and the axes after it; `before` has where they are along those before it."""
        builder = self.builder

        def each(i: Value, _: State) -> None:
            place = element(builder, out, builder.mul(i, I64(self.windows.step(number))), self.result)
            here = [*before, i]
            if number == 2:
                self._element(place, lambda start, pieces: self._sum_looped(here, start, pieces))
            else:
                self._axis_looped(number + 1, (0, self.windows.axes[number + 1].size), place, here)

        counted(builder, *elements, each)

    def _sum_looped(self, here: Sequence[Value], start: Value | int, pieces: Sequence[Piece]) -> State:
        builder = self.builder

        def level(number: int, source: _Source, totals: State) -> State:
            if number == len(here):
                return self._add(source, start, pieces, totals)
            axis = self.windows.axes[number]
            padded = builder.add(here[number], I64(axis.low))
            remainder = builder.srem(padded, I64(axis.stride))

            def position(j: Value, carried: State) -> State:
                t = builder.add(remainder, builder.mul(j, I64(axis.stride))) if axis.dilation == 1 else j
                distance = builder.sub(padded, builder.mul(t, I64(axis.dilation)))
                window = builder.sdiv(distance, I64(axis.stride))
                exact = builder.icmp_signed("==", builder.mul(window, I64(axis.stride)), distance)
                window = builder.select(exact, window, I64(-1))
                return level(number + 1, self._source(number, source, window, t), carried)

            count: Value = I64(axis.window)
            if axis.dilation == 1:  # the others are not at a multiple of the stride
                left = builder.sub(I64(axis.window + axis.stride - 1), remainder)
                count = builder.sdiv(left, I64(axis.stride))
            return counted(builder, 0, count, position, totals)

        first = _Source(I64(0), self.winners, self.cotangents)
        return level(0, first, [piece.zero(self.result) for piece in pieces])

    # Channels --------------------------------------------------------------------------------------------------------
    def _element(self, place: Value, total: Callable[[Value | int, Sequence[Piece]], State]) -> None:
        builder = self.builder

        def channels(start: Value | int, pieces: Sequence[Piece]) -> None:
            goal = element(builder, place, start, self.result)
            for piece, value in zip(pieces, total(start, pieces), strict=True):
                piece.store(builder, value, goal, self.result, streamed=self.streamed)

        along(builder, self.target, self.lanes, self.windows.channels, most_registers(self.target, False), channels)

    def _sum(self, sources: Sequence[_Source], start: Value | int, pieces: Sequence[Piece]) -> State:
        totals = [piece.zero(self.result) for piece in pieces]
        for source in sources:
            totals = self._add(source, start, pieces, totals)
        return totals

    def _add(self, source: _Source, start: Value | int, pieces: Sequence[Piece], totals: State) -> State:
        builder, after = self.builder, []
        for piece, total in zip(pieces, totals, strict=True):
            won = piece.load(builder, element(builder, source.winners, start, self.numbers), self.numbers)
            here = builder.icmp_signed("==", won, piece.splat(builder, source.position, I32))
            value = piece.load(builder, element(builder, source.cotangents, start, self.result), self.result)
            plus = builder.fadd(total, value) if self.result.is_float else builder.add(total, value)
            after.append(builder.select(here, plus, total))
        return after


def _times(builder: Builder, t: Value | int, weight: int) -> Value:
    return I64(t * weight) if isinstance(t, int) else builder.mul(t, I64(weight))


def _strides(axis: Axis) -> tuple[int, int]:
    """The strides that hold elements of an axis: the first, and the one after the last."""
    return axis.low // axis.stride, (axis.low + axis.size - 1) // axis.stride + 1


@contextlib.contextmanager
def _if_inside(builder: Builder, axis: Axis, i: Value, r: int) -> Iterator[None]:
    """For elements with remainder r: a condition where a stride reaches beyond the axis."""
    first, end = _strides(axis)
    conditions = []
    if first * axis.stride + r < axis.low:
        conditions.append(builder.icmp_signed(">=", i, I64(0)))
    if (end - 1) * axis.stride + r - axis.low >= axis.size:
        conditions.append(builder.icmp_signed("<", i, I64(axis.size)))
    if not conditions:
        yield
        return
    with builder.if_then(functools.reduce(builder.and_, conditions)):
        yield
