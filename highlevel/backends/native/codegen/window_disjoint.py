"""The gradient of maxima of windows that do not overlap: a cotangent goes to the first position of its maximum.

A window writes all of its own elements; what is in no window is set to 0 before. Of windows with many elements the
winners are kept in the workspace, so that each position is written as one run of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from highlevel.ir import DType

from ..cache import Unit
from .contraction.values import I32, I64, POINTER, Builder, Value, counted, larger, smaller
from .contraction.work import digits
from .kernel import clear, element, forward, kernel
from .lanes import Piece, along, can_stream, is_aligned, lanes_of
from .targets import Target
from .window import (
    Axis,
    Positions,
    State,
    Tap,
    Windows,
    each_window,
    is_looped,
    most_registers,
    number_type,
    positions,
    winners,
)


def is_disjoint(windows: Windows) -> bool:
    """Whether no two windows have an element in common."""
    return all(axis.extent <= axis.stride or axis.windows == 1 for axis in windows.axes)


def winner_bytes(windows: Windows) -> int:
    """The workspace, per thread: for the winners of one window."""
    size = windows.channels * number_type(windows).size_bytes if is_looped(windows) else 0
    return -(-size // 64) * 64


def disjoint_unit(windows: Windows, dtype: DType, result: DType, target: Target, *, streamed: bool = False) -> Unit:
    """`kernel(begin, end, x, g, out, i32 tid, workspace)`; units are the rows of windows of all images.

    streamed: the result is too large for caches, and is written past them if it is aligned
    """
    writer = _Disjoint(windows, dtype, result, target)
    covered = all(_is_covered(axis) for axis in windows.axes)
    streamed = streamed and covered and can_stream(target, writer.lanes, windows.channels, result)

    def write(
        builder: Builder, begin: Value, end: Value, x: Value, g: Value, out: Value, tid: Value, workspace: Value
    ) -> None:
        private = forward(builder, workspace, builder.mul(builder.sext(tid, I64), I64(winner_bytes(windows))))

        def rows(streamed: bool) -> None:
            counted(builder, begin, end, lambda u, _: writer.row(builder, u, (x, g, out), private, covered, streamed))

        if not streamed:
            rows(False)
            return
        with builder.if_else(is_aligned(builder, out)) as (aligned, anywhere):
            with aligned:
                rows(True)
                builder.fence("seq_cst")
            with anywhere:
                rows(False)

    return kernel(target, [I64, I64, POINTER, POINTER, POINTER, I32, POINTER], write, noalias=(4, 6))


@dataclass(frozen=True, slots=True)
class _Disjoint:
    """Writes rows of windows."""

    windows: Windows
    dtype: DType
    result: DType
    target: Target

    @property
    def lanes(self) -> int:
        return lanes_of(self.target, self.dtype, self.result)

    def row(
        self,
        builder: Builder,
        u: Value,
        pointers: tuple[Value, Value, Value],
        private: Value,
        covered: bool,
        streamed: bool,
    ) -> None:
        """Row number `u` of all images."""
        windows, result = self.windows, self.result
        first, middle, inner = windows.axes
        x, g, out = pointers
        image, o0 = digits(builder, u, (0, first.windows))
        offset = builder.mul(image, I64(windows.image))
        goal = element(builder, out, offset, result)
        arrays = [(element(builder, x, offset, self.dtype), self.dtype), (goal, result)]
        if not covered:
            _clear_rows(builder, windows, o0, goal, result)
        in_row = middle.windows * inner.windows * windows.channels
        cotangents = element(builder, g, builder.mul(u, I64(in_row)), result)

        def window(number: Value, found: Positions) -> None:
            cotangent = element(builder, cotangents, builder.mul(number, I64(windows.channels)), result)
            if is_looped(windows):
                self._large(builder, found, cotangent, private, streamed)
            else:
                self._small(builder, found, cotangent, streamed)

        each_window(builder, windows, positions(windows, arrays, looped=is_looped(windows)), o0, window)

    def _along(self, builder: Builder, body: Callable[[Value | int, Sequence[Piece]], None]) -> None:
        most = most_registers(self.target, is_looped(self.windows))
        along(builder, self.target, self.lanes, self.windows.channels, most, body)

    def _small(self, builder: Builder, found: Positions, cotangent: Value, streamed: bool) -> None:
        """All positions of some channels, then of the next ones: winners stay in registers."""

        def channels(start: Value | int, pieces: Sequence[Piece]) -> None:
            won = winners(builder, found, start, pieces, self.dtype)[1::2]
            place = element(builder, cotangent, start, self.result)
            values = [piece.load(builder, place, self.result) for piece in pieces]

            def then(tap: Tap, _: State) -> State:
                self._store(builder, tap, start, pieces, won, values, streamed)
                return []

            found.fold(builder, list, lambda tap: then(tap, []), then)

        self._along(builder, channels)

    def _large(self, builder: Builder, found: Positions, cotangent: Value, private: Value, streamed: bool) -> None:
        """The winners of all channels, then all channels of one position after the other."""
        kind = number_type(self.windows)

        def find(start: Value | int, pieces: Sequence[Piece]) -> None:
            won = winners(builder, found, start, pieces, self.dtype)[1::2]
            for piece, winner in zip(pieces, won, strict=True):
                piece.store(builder, winner, element(builder, private, start, kind), kind)

        def then(tap: Tap, _: State) -> State:
            def spread(start: Value | int, pieces: Sequence[Piece]) -> None:
                at, place = element(builder, private, start, kind), element(builder, cotangent, start, self.result)
                won = [piece.load(builder, at, kind) for piece in pieces]
                values = [piece.load(builder, place, self.result) for piece in pieces]
                self._store(builder, tap, start, pieces, won, values, streamed)

            self._along(builder, spread)
            return []

        self._along(builder, find)
        found.fold(builder, list, lambda tap: then(tap, []), then)

    def _store(
        self,
        builder: Builder,
        tap: Tap,
        start: Value | int,
        pieces: Sequence[Piece],
        won: State,
        values: State,
        streamed: bool,
    ) -> None:
        """Some channels of one position: the cotangent where it won, else 0."""
        place = element(builder, tap.places[1], start, self.result)
        for piece, winner, value in zip(pieces, won, values, strict=True):
            here = builder.icmp_signed("==", winner, piece.splat(builder, tap.number, I32))
            chosen = builder.select(here, value, piece.zero(self.result))
            piece.store(builder, chosen, place, self.result, streamed=streamed)


def _is_covered(axis: Axis) -> bool:
    """Whether every element is in a window."""
    dense = axis.dilation == 1 or axis.window == 1
    if axis.windows == 1:
        return dense and axis.window - axis.low >= axis.size
    return dense and axis.window == axis.stride and (axis.size - 1 + axis.low) // axis.stride < axis.windows


def _clear_rows(builder: Builder, windows: Windows, o0: Value, image: Value, result: DType) -> None:
    """Zeros for the elements from where this row of windows begins to where the next one does."""
    axis = windows.axes[0]

    def clamped(window: Value) -> Value:
        return smaller(builder, larger(builder, axis.start(builder, window), I64(0)), I64(axis.size))

    begin = builder.select(builder.icmp_signed("==", o0, I64(0)), I64(0), clamped(o0))
    last = builder.icmp_signed("==", o0, I64(axis.windows - 1))
    end = builder.select(last, I64(axis.size), clamped(builder.add(o0, I64(1))))
    step = windows.step(0)
    place = element(builder, image, builder.mul(begin, I64(step)), result)
    clear(builder, place, builder.mul(builder.sub(end, begin), I64(step * result.size_bytes)))
