"""Windows that slide over `(N, *S, C)`: sums and maxima, vectorised along the channels.

All geometries are brought to three spatial axes, of which the first is the one that threads share: (L, 1, 1), (H, 1, W)
or (D, H, W). A kernel is `kernel(i64 begin, i64 end, ptr…)`; its units are the rows of windows of all images, so the
code does not depend on the number of images.

Windows of few elements are unrolled: a position beyond the edge is moved to the nearest one inside, which changes no
maximum, so that there is no branch. Larger ones, and sums with padding, are loops between bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from highlevel.ir import DType
from highlevel.ir.dtypes import int32, uint8

from ..cache import Unit
from .contraction.values import I32, I64, POINTER, Builder, Value, counted, larger, smaller
from .contraction.work import digits
from .kernel import element, forward, kernel
from .lanes import Piece, along, exceeds, lanes_of, maximum
from .targets import Target

UNROLLED = 32  # the most elements of a window whose positions are written out
NONE = -1  # the winner of a window that holds nothing
State: TypeAlias = list[Value]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis: its size, the number of windows along it, and the window's geometry."""

    size: int
    windows: int
    window: int
    stride: int
    dilation: int
    low: int

    @property
    def extent(self) -> int:
        return (self.window - 1) * self.dilation + 1

    @property
    def cut_low(self) -> bool:
        """Whether a window begins before the first element."""
        return self.low > 0

    @property
    def cut_high(self) -> bool:
        """Whether a window ends beyond the last element."""
        return (self.windows - 1) * self.stride - self.low + self.extent > self.size

    @property
    def padded(self) -> bool:
        return self.cut_low or self.cut_high

    @property
    def may_miss(self) -> bool:
        """Whether a window may hold nothing but padding: where its steps are longer than the axis."""
        return self.padded and self.size < self.dilation

    def start(self, builder: Builder, window: Value) -> Value:
        """The element at which a window begins; negative in the padding."""
        return builder.sub(builder.mul(window, I64(self.stride)), I64(self.low))

    def bounds(self, builder: Builder, start: Value) -> tuple[Value, Value]:
        """The positions of a window that are elements: from, to."""
        first: Value = I64(0)
        end: Value = I64(self.window)
        if self.cut_low:
            before = larger(builder, builder.neg(start), I64(0))
            first = builder.sdiv(builder.add(before, I64(self.dilation - 1)), I64(self.dilation))
        if self.cut_high:
            inside = builder.sub(I64(self.size + self.dilation - 1), start)
            end = smaller(builder, builder.sdiv(inside, I64(self.dilation)), end)
        return first, end


UNIT = Axis(1, 1, 1, 1, 1, 0)


@dataclass(frozen=True, slots=True)
class Windows:
    """Three axes, and the number of channels."""

    axes: tuple[Axis, Axis, Axis]
    channels: int

    @classmethod
    def of(cls, spatial: Sequence[Axis], channels: int) -> Windows:
        first, *others = spatial
        middle = others[0] if len(others) == 2 else UNIT
        return cls((first, middle, others[-1] if others else UNIT), channels)

    @property
    def elements(self) -> int:
        """Of a window."""
        return math.prod(axis.window for axis in self.axes)

    @property
    def may_miss(self) -> bool:
        return any(axis.may_miss for axis in self.axes)

    @property
    def padded(self) -> bool:
        return any(axis.padded for axis in self.axes)

    @property
    def image(self) -> int:
        """Elements of an image."""
        return math.prod(axis.size for axis in self.axes) * self.channels

    def step(self, axis: int) -> int:
        """From an element to the next one along a spatial axis."""
        return math.prod(other.size for other in self.axes[axis + 1 :]) * self.channels

    def weight(self, axis: int) -> int:
        """Of a position along an axis in a position of the window, counted row by row."""
        return math.prod(other.window for other in self.axes[axis + 1 :])


# Positions of a window -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tap:
    """A position of a window: its number, and where its elements are in each array."""

    number: Value | int
    places: tuple[Value, ...]


class Unrolled:
    """Positions one by one, each along the axes entered so far."""

    def __init__(self, windows: Windows, dtypes: Sequence[DType], taps: Sequence[Tap]) -> None:
        self.windows, self.dtypes, self.taps = windows, dtypes, taps

    def enter(self, builder: Builder, number: int, window: Value) -> Unrolled:
        """The positions along one axis more, for a window there."""
        axis, step, weight = self.windows.axes[number], self.windows.step(number), self.windows.weight(number)
        start = axis.start(builder, window)
        first, end = axis.bounds(builder, start)
        along_axis = []
        for position in range(axis.window):
            t: Value | int = position
            if axis.cut_low and position < axis.low:
                t = larger(builder, I64(position), first)
            if axis.cut_high:
                t = smaller(builder, I64(t) if isinstance(t, int) else t, builder.sub(end, I64(1)))
            along_axis.append((t, self._offset(builder, axis, start, t, step)))
        taps = []
        for tap in self.taps:
            for t, offset in along_axis:
                places = [element(builder, p, offset, d) for p, d in zip(tap.places, self.dtypes, strict=True)]
                taps.append(Tap(_plus(builder, tap.number, t, weight), tuple(places)))
        return Unrolled(self.windows, self.dtypes, taps)

    def _offset(self, builder: Builder, axis: Axis, start: Value, t: Value | int, step: int) -> Value:
        if isinstance(t, int):
            moved = builder.mul(start, I64(step))
            return builder.add(moved, I64(t * axis.dilation * step)) if t else moved
        return builder.mul(builder.add(start, builder.mul(t, I64(axis.dilation))), I64(step))

    def fold(
        self, builder: Builder, start: Callable[[], State], first: Callable[[Tap], State], then: Fold
    ) -> State:
        """first(tap), then then(tap, state) for each position, in order."""
        state = first(self.taps[0])
        for tap in self.taps[1:]:
            state = then(tap, state)
        return state


class Looped:
    """Positions in loops between bounds, along the axes entered so far."""

    def __init__(
        self,
        windows: Windows,
        dtypes: Sequence[DType],
        places: Sequence[Value],
        bounds: Sequence[tuple[Value, Value]] = (),
    ) -> None:
        self.windows, self.dtypes, self.places, self.bounds = windows, dtypes, places, bounds

    def enter(self, builder: Builder, number: int, window: Value) -> Looped:
        axis = self.windows.axes[number]
        start = axis.start(builder, window)
        offset = builder.mul(start, I64(self.windows.step(number)))
        places = [element(builder, p, offset, d) for p, d in zip(self.places, self.dtypes, strict=True)]
        return Looped(self.windows, self.dtypes, places, [*self.bounds, axis.bounds(builder, start)])

    def fold(
        self, builder: Builder, start: Callable[[], State], first: Callable[[Tap], State], then: Fold
    ) -> State:
        """As `Unrolled` does it, but with the first position twice; from start() on where there may be none."""

        def level(number: int, tap: Tap, state: State) -> State:
            if number == len(self.bounds):
                return then(tap, state)
            body = lambda t, carried: level(number + 1, self._moved(builder, number, tap, t), carried)  # noqa: E731
            return counted(builder, *self.bounds[number], body, state)

        corner = Tap(I64(0), tuple(self.places))
        if self.windows.may_miss:
            return level(0, corner, start())
        beginning = corner
        for number, (lowest, _) in enumerate(self.bounds):
            beginning = self._moved(builder, number, beginning, lowest)
        return level(0, corner, first(beginning))

    def sums(self, builder: Builder, zeros: State, values: Callable[[Tap], State], add: Callable[..., Value]) -> State:
        """Sums of what the positions hold: of sums along the last axis, so that few numbers are added in one row."""

        def level(number: int, tap: Tap) -> State:
            if number == len(self.bounds):
                return values(tap)

            def body(t: Value, carried: State) -> State:
                parts = level(number + 1, self._moved(builder, number, tap, t))
                return [add(a, b) for a, b in zip(carried, parts, strict=True)]

            return counted(builder, *self.bounds[number], body, zeros)

        return level(0, Tap(I64(0), tuple(self.places)))

    def _moved(self, builder: Builder, number: int, tap: Tap, t: Value) -> Tap:
        step = self.windows.axes[number].dilation * self.windows.step(number)
        offset = builder.mul(t, I64(step))
        places = [element(builder, p, offset, d) for p, d in zip(tap.places, self.dtypes, strict=True)]
        return Tap(_plus(builder, tap.number, t, self.windows.weight(number)), tuple(places))


Fold: TypeAlias = Callable[[Tap, State], State]
Positions: TypeAlias = Unrolled | Looped


def _plus(builder: Builder, a: Value | int, t: Value | int, weight: int) -> Value | int:
    """a + t · weight."""
    if isinstance(t, int):
        b: Value | int = t * weight
    else:
        b = builder.mul(t, I64(weight)) if weight != 1 else t
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return builder.add(*(I64(x) if isinstance(x, int) else x for x in (a, b)))


def positions(windows: Windows, arrays: Sequence[tuple[Value, DType]], *, looped: bool) -> Positions:
    """The positions before any axis is entered; arrays at the image that the windows slide over."""
    pointers, dtypes = [pointer for pointer, _ in arrays], [dtype for _, dtype in arrays]
    if looped:
        return Looped(windows, dtypes, pointers)
    return Unrolled(windows, dtypes, [Tap(0, tuple(pointers))])


def is_looped(windows: Windows) -> bool:
    """Whether a maximum's positions are loops."""
    return windows.elements > UNROLLED or windows.may_miss


def most_registers(target: Target, looped: bool) -> int:
    """How many registers of channels to work on at a time; more where positions are far from each other."""
    return 8 if looped else target.vector_registers // 8


def number_type(windows: Windows) -> DType:
    """In which positions are kept; 255 is none."""
    return uint8 if windows.elements < 255 else int32


def each_window(
    builder: Builder, windows: Windows, first: Positions, row: Value, body: Callable[[Value, Positions], None]
) -> None:
    """`body(number within the row, positions)` for all windows of a row, which is number `row` of its image."""
    _, middle, inner = windows.axes
    in_row = first.enter(builder, 0, row)

    def plane(o1: Value, _: State) -> None:
        in_plane = in_row.enter(builder, 1, o1)
        before = builder.mul(o1, I64(inner.windows))

        def window(o2: Value, _: State) -> None:
            body(builder.add(before, o2), in_plane.enter(builder, 2, o2))

        counted(builder, 0, inner.windows, window)

    counted(builder, 0, middle.windows, plane)


# Forward -------------------------------------------------------------------------------------------------------------
def forward_unit(kind: str, windows: Windows, dtypes: tuple[DType, ...], target: Target) -> Unit:
    """`kernel(begin, end, x, [t,] y)`: kind is "sum", "max" or "take"; units are rows of windows."""
    looped = windows.padded or windows.elements > UNROLLED if kind == "sum" else is_looped(windows)
    lanes = lanes_of(target, *dtypes)
    most = most_registers(target, looped)
    writer = {"sum": _sum, "max": _max, "take": _take}[kind]
    rows, row_windows = windows.axes[0].windows, windows.axes[1].windows * windows.axes[2].windows

    def write(builder: Builder, begin: Value, end: Value, *pointers: Value) -> None:
        *sources, y = pointers
        result = dtypes[-1]

        def row(u: Value, _: State) -> None:
            image, o0 = digits(builder, u, (0, rows))
            arrays = [
                (forward(builder, pointer, builder.mul(image, I64(windows.image)), dtype.size_bytes), dtype)
                for pointer, dtype in zip(sources, dtypes, strict=True)
            ]
            goal = element(builder, y, builder.mul(u, I64(row_windows * windows.channels)), result)

            def window(number: Value, found: Positions) -> None:
                place = element(builder, goal, builder.mul(number, I64(windows.channels)), result)

                def channels(start: Value | int, pieces: Sequence[Piece]) -> None:
                    for piece, value in zip(pieces, writer(builder, found, start, pieces, dtypes), strict=True):
                        piece.store(builder, value, element(builder, place, start, result), result)

                along(builder, target, lanes, windows.channels, most, channels)

            each_window(builder, windows, positions(windows, arrays, looped=looped), o0, window)

        counted(builder, begin, end, row)

    # The result is no operand's memory; two operands may be one array.
    arguments = [I64, I64, *[POINTER] * (len(dtypes) + 1)]
    return kernel(target, arguments, write, noalias=(len(arguments) - 1,))


def _sum(
    builder: Builder, found: Positions, start: Value | int, pieces: Sequence[Piece], dtypes: tuple[DType, ...]
) -> State:
    (dtype,) = dtypes

    def values(tap: Tap) -> State:
        place = element(builder, tap.places[0], start, dtype)
        return [piece.load(builder, place, dtype) for piece in pieces]

    def add(a: Value, b: Value) -> Value:
        return builder.fadd(a, b) if dtype.is_float else builder.add(a, b)

    def plus(tap: Tap, state: State) -> State:
        return [add(a, b) for a, b in zip(state, values(tap), strict=True)]

    if isinstance(found, Looped):
        return found.sums(builder, [piece.zero(dtype) for piece in pieces], values, add)
    return found.fold(builder, list, values, plus)


def _max(
    builder: Builder, found: Positions, start: Value | int, pieces: Sequence[Piece], dtypes: tuple[DType, ...]
) -> State:
    (dtype,) = dtypes

    def values(tap: Tap) -> State:
        place = element(builder, tap.places[0], start, dtype)
        return [piece.load(builder, place, dtype) for piece in pieces]

    def then(tap: Tap, state: State) -> State:
        return [maximum(builder, dtype, a, b) for a, b in zip(state, values(tap), strict=True)]

    return found.fold(builder, lambda: [piece.lowest(dtype) for piece in pieces], values, then)


def _take(
    builder: Builder, found: Positions, start: Value | int, pieces: Sequence[Piece], dtypes: tuple[DType, ...]
) -> State:
    return winners(builder, found, start, pieces, dtypes[0], dtypes[1])[2::3]


def winners(
    builder: Builder,
    found: Positions,
    start: Value | int,
    pieces: Sequence[Piece],
    dtype: DType,
    taken: DType | None = None,
) -> State:
    """For each piece: the maximum, the number of the position that has it first, and – given `taken` – what the
    second array holds there; `NONE` and 0 where the window has no position."""
    careful = found.windows.may_miss

    def loads(tap: Tap, piece: Piece) -> State:
        value = piece.load(builder, element(builder, tap.places[0], start, dtype), dtype)
        number = piece.splat(builder, tap.number, I32)
        if taken is None:
            return [value, number]
        return [value, number, piece.load(builder, element(builder, tap.places[1], start, taken), taken)]

    def nothing() -> State:
        return [
            value
            for piece in pieces
            for value in (
                piece.lowest(dtype),
                piece.splat(builder, NONE, I32),
                *([piece.zero(taken)] if taken else []),
            )
        ]

    def then(tap: Tap, state: State) -> State:
        each = len(state) // len(pieces)
        after: State = []
        for i, piece in enumerate(pieces):
            best, old = state[i * each], state[i * each + 1]
            new = loads(tap, piece)
            better = exceeds(builder, dtype, new[0], best)
            if careful:
                better = builder.or_(better, builder.icmp_signed("<", old, piece.zero(int32)))
            after += [builder.select(better, a, b) for a, b in zip(new, state[i * each : (i + 1) * each], strict=True)]
        return after

    return found.fold(builder, nothing, lambda tap: [v for piece in pieces for v in loads(tap, piece)], then)


