"""Bands: what a thread copies of an image before it works on it, so that nothing that it reads is outside.

A band holds, for some images, the planes, rows and pixels that some rows of points read, with zeros where they lie
outside of the image, and some of the channels. Copying also moves them into the second-level cache, converts small
types, and gives pixels a step whose multiples do not collide in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .blocking import PAGE_BYTES
from .geometry import Axes
from .packing import ALL, Copy
from .values import I64, Builder, Value, Vectors, counted
from .work import linear


@dataclass(frozen=True, slots=True)
class Band:
    """The sizes of a band.

    axes:         what is read for a point (`points` of the rows does not count)
    images, rows: at most so many images, and rows of points
    channels:     of a pixel in the image
    taken:        at most so many of them in the band
    """

    axes: Axes
    images: int
    rows: int
    channels: int
    taken: int
    stored: Vectors
    packed: Vectors

    @property
    def steps(self) -> tuple[int, int, int, int]:
        """Between images, planes, rows and pixels, in elements."""
        planes, rows, columns = self.axes
        pixel = self.taken
        if pixel * self.packed.dtype.size_bytes % (PAGE_BYTES // 4) == 0:
            pixel += self.packed.lanes
        row = columns.reach * pixel
        plane = rows.reach_of(self.rows) * row
        return planes.taps * plane, plane, row, pixel

    @property
    def elements(self) -> int:
        """In the band, with what copies of whole vectors may write behind it."""
        return self.images * self.steps[0] + 2 * self.packed.lanes


@dataclass(frozen=True, slots=True)
class BandCopy:
    """Which band is copied, from where to where: ranges of images and of rows of points, a plane, a first channel.

    `taken` is how many channels there are when they are not always as many.
    """

    builder: Builder
    call: Callable[[Copy, list[Value]], None]
    band: Band
    source: Value
    goal: Value
    images: tuple[Value, Value]
    plane: Value
    rows: tuple[Value, Value]
    channel: Value
    taken: Value | None = None

    def emit(self) -> None:
        """Writes the loops."""
        builder, band = self.builder, self.band
        planes, rows, columns = band.axes
        if not (planes.taps and rows.taps and columns.taps):
            return
        image_step, plane_step, row_step, _ = band.steps
        first_plane = linear(builder, (self.plane, planes.step), (I64(1), planes.start))
        first_row = linear(builder, (self.rows[0], rows.step), (I64(1), rows.start))
        points = builder.sub(self.rows[1], self.rows[0])
        reach = linear(builder, (points, rows.step), (I64(1), rows.reach_of(1) - rows.step))

        def image(i: Value, _: list[Value]) -> None:
            def plane(p: Value, _: list[Value]) -> None:
                z = linear(builder, (p, planes.tap_step), (first_plane, 1))

                def line(r: Value, _: list[Value]) -> None:
                    y = builder.add(first_row, r)
                    begin = builder.sub(i, self.images[0])
                    offset = linear(builder, (begin, image_step), (p, plane_step), (r, row_step))
                    goal = band.packed.at(builder, self.goal, offset)
                    there = builder.and_(self._within(z, planes.source), self._within(y, rows.source))
                    with builder.if_else(there) as (inside, outside):
                        with inside:
                            self._line(goal, i, z, y)
                        with outside:
                            self._zeros(goal, 0, row_step)

                counted(builder, 0, reach, line, name="line")

            counted(builder, 0, planes.taps, plane, name="plane")

        counted(builder, *self.images, image, name="image")

    def _within(self, position: Value, size: int) -> Value:
        return self.builder.icmp_unsigned("<", position, I64(size))

    def _line(self, goal: Value, image: Value, plane: Value, row: Value) -> None:
        """One row, with what is outside of it to the left and to the right."""
        builder, band = self.builder, self.band
        planes, rows, columns = band.axes
        pixel = band.steps[3]
        first, last = max(0, columns.start), min(columns.source, columns.start + columns.reach)
        before = min(columns.reach, max(0, -columns.start))
        pixels = max(0, last - first)
        self._zeros(goal, 0, before * pixel)
        if pixels:
            line = columns.source * band.channels
            offset = linear(
                builder,
                (image, planes.source * rows.source * line),
                (plane, rows.source * line),
                (row, line),
                (self.channel, 1),
                (I64(1), first * band.channels),
            )
            source = band.stored.at(builder, self.source, offset)
            target = band.packed.at(builder, goal, before * pixel)
            taken = I64(band.taken) if self.taken is None else self.taken
            dense = self.taken is None and band.taken == band.channels == pixel
            counts = [I64(1), I64(pixels * pixel)] if dense else [I64(pixels), taken]
            copy = Copy.of(band.stored, band.packed, 0, 1)
            self.call(copy, [source, target, *counts, I64(band.channels), I64(1), I64(pixel), ALL, I64(0)])
        self._zeros(goal, (before + pixels) * pixel, columns.reach * pixel)

    def _zeros(self, goal: Value, start: int, end: int) -> None:
        """In whole vectors; what they overwrite behind the end is written after them."""
        builder, packed = self.builder, self.band.packed

        def vector(v: Value, _: list[Value]) -> None:
            offset = linear(builder, (v, packed.lanes), (I64(1), start))
            packed.store(builder, packed.zero, packed.at(builder, goal, offset))

        counted(builder, 0, -(-(end - start) // packed.lanes), vector, name="zeros")
