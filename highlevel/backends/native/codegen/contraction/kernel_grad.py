"""The gradient of a convolution's kernel: for each tap, a matrix product of pixels, as LLVM IR.

    dk[k, c, o] = Σ_n,p x[n, p · stride + k · dilation − low, c] · g[n, p, o]

For each tap, rows of the micro-kernel are input channels, columns are filters, and the reduction runs over images and
points. Where channels are few, those of neighbouring taps, which are neighbours in memory, are rows of one product.
Points are taken in *blocks* of a hundred or so: a thread copies what it needs of x (a band, borders included)
and of g (panels of filters), and lets all taps and tiles pass over them while they are in its caches.

A unit is a block of rows times a group of panels, all taps included; when those are few, the blocks of points are
divided into parts, which are summed apart and joined in order by a second phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .band import BandCopy
from .blocking import GemmPlan
from .gemm import emit_gemm, phase_names
from .helpers import Helpers, place
from .kernel_grad_plan import COMBINED, KernelGradPlan
from .microkernel import MicroKernel
from .packing import Copy
from .values import I1, I64, Builder, Value, counted, larger, smaller
from .work import Share, define, digits, linear, piece_range, piece_start, shifted


def emit_conv_kernel_grad(
    module: Value, name: str, plan: KernelGradPlan | GemmPlan, helpers: Helpers | None = None
) -> tuple[Value, ...]:
    """Defines a kernel gradient in a module: functions as `emit_gemm` makes them; a is x, b the cotangent of y."""
    if isinstance(plan, GemmPlan):
        return emit_gemm(module, name, plan, helpers=helpers)
    names = zip(phase_names(name, plan.phases), plan.phases, strict=True)
    return tuple(emit_kernel_grad_phase(module, symbol, plan, phase, helpers) for symbol, phase in names)


def emit_kernel_grad_phase(
    module: Value, name: str, plan: KernelGradPlan, phase: str, helpers: Helpers | None = None
) -> Value:
    """Defines the function of one phase."""
    function, builder, arguments = define(module, name, 4, plain=phase != "combine")
    x, g, goal, workspace, tid, nthreads = arguments
    x, g, goal = shifted(builder, plan.stored, (x, g, goal), plan.offsets)
    writer = _Writer(module, builder, plan, helpers, x, g, goal, workspace, Share.of(builder, tid, nthreads))
    if plan.kernel_elements:
        writer.compute() if phase == "compute" else writer.combine()
    builder.ret_void()
    return function


@dataclass(frozen=True, slots=True)
class _Writer:
    """A phase's function while it is written."""

    module: Value
    builder: Builder
    plan: KernelGradPlan
    helpers: Helpers | None
    x: Value
    g: Value
    goal: Value
    workspace: Value
    share: Share

    def call(self, helper: Copy | MicroKernel, arguments: list[Value]) -> None:
        """Calls a function that is shared."""
        self.builder.call(place(self.module, helper, self.helpers), arguments)

    def compute(self) -> None:
        """All units of this thread."""
        plan, builder = self.plan, self.builder
        first, end = self.share.range(builder, plan.units)

        def unit(u: Value, _: list[Value]) -> None:
            part, group, block, panels = digits(builder, u, plan.unit_bases)
            tiles = piece_range(builder, plan.row_blocks, block)
            _Unit(self, part, group, tiles, piece_range(builder, plan.panel_groups, panels)).emit()

        counted(builder, first, end, unit, name="unit")

    def combine(self) -> None:
        """The sums of all parts, in order."""
        plan, builder = self.plan, self.builder
        full, rest = divmod(plan.kernel_elements, plan.lanes)
        vectors = full + (rest > 0)
        first, end = self.share.range(builder, -(-vectors // COMBINED))

        def chunk(u: Value, _: list[Value]) -> None:
            start = builder.mul(u, I64(COMBINED))
            stop = smaller(builder, builder.add(start, I64(COMBINED)), I64(full))
            counted(builder, start, stop, lambda v, _: self._join(v, None), name="vector")
            if rest:
                with builder.if_then(builder.icmp_signed("==", u, I64(full // COMBINED))):
                    self._join(I64(full), plan.stored.first(builder, I64(rest)))

        counted(builder, first, end, chunk, name="chunk")

    def _join(self, vector: Value, mask: Value | None) -> None:
        plan, builder = self.plan, self.builder
        offset = builder.mul(vector, I64(plan.lanes))
        source = plan.packed.at(builder, self.workspace, offset)
        total = plan.packed.load(builder, source)
        for part in range(1, plan.parts.pieces):
            more = plan.packed.load(builder, plan.packed.at(builder, source, part * plan.sums_elements))
            total = plan.stored.add(builder, total, more)
        plan.stored.store(builder, total, plan.stored.at(builder, self.goal, offset), mask)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A block of rows times a group of panels, over one part of the blocks of points."""

    writer: _Writer
    part: Value
    group: Value
    tiles: tuple[Value, Value]
    panels: tuple[Value, Value]

    def emit(self) -> None:
        """Blocks of points, taps, panels, tiles."""
        plan, builder = self.writer.plan, self.writer.builder
        first, end = piece_range(builder, plan.parts, self.part)
        bases = (plan.images.pieces, max(1, plan.conv.points[0]), plan.bands.pieces)
        window = math.prod(plan.window)
        nothing = I64(0)

        def block(b: Value, _: list[Value]) -> None:
            image, plane, band = digits(builder, b, bases)
            images, rows = piece_range(builder, plan.images, image), piece_range(builder, plan.bands, band)
            self.copy(images, plane, rows)
            many, high = builder.sub(images[1], images[0]), builder.sub(rows[1], rows[0])
            later = builder.icmp_signed(">", b, first)
            counted(builder, 0, window, lambda t, _: self.multiply(t, many, high, later), name="tap")

        if plan.parts.extent:
            counted(builder, first, end, block, name="block")
        else:  # the sum of nothing is zero
            counted(builder, 0, window, lambda t, _: self.multiply(t, nothing, nothing, I1(0)), name="tap")

    # Copies ----------------------------------------------------------------------------------------------------------
    def private(self) -> Value:
        """This thread's band; its panels come behind it."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        offset = linear(builder, (writer.share.tid, plan.private_elements), (I64(1), plan.shared_elements))
        return plan.packed.at(builder, writer.workspace, offset)

    def first_column(self) -> Value:
        """Of the panels."""
        plan, builder = self.writer.plan, self.writer.builder
        return linear(builder, (piece_start(builder, plan.columns, self.panels[0]), plan.lanes))

    def first_row(self) -> Value:
        """Of the tiles."""
        return piece_start(self.writer.builder, self.writer.plan.rows, self.tiles[0])

    def copy(self, images: tuple[Value, Value], plane: Value, rows: tuple[Value, Value]) -> None:
        """What this block of points needs of x and of g."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        if plan.lanewise:
            channel = self.first_column()
            last = linear(builder, (piece_start(builder, plan.columns, self.panels[1]), plan.lanes))
            taken = builder.sub(smaller(builder, last, I64(plan.width)), channel)
        elif plan.merged:
            channel, taken = I64(0), I64(plan.channels)
        else:
            channel = linear(builder, (self.group, plan.channels), (self.first_row(), 1))
            taken = builder.sub(piece_start(builder, plan.rows, self.tiles[1]), self.first_row())
        always = plan.band.taken == (plan.width if plan.lanewise else plan.channels)
        source, band = writer.x, self.private()
        BandCopy(
            builder,
            writer.call,
            plan.band,
            source,
            band,
            images,
            plane,
            rows,
            channel,
            None if always else taken,
        ).emit()
        counted(builder, *images, lambda i, _: self.copy_points(i, images[0], plane, rows), name="image")

    def copy_points(self, image: Value, first_image: Value, plane: Value, rows: tuple[Value, Value]) -> None:
        """Rows of g, one panel after the other."""
        writer, plan, builder, conv = self.writer, self.writer.plan, self.writer.builder, self.writer.plan.conv
        planes, height, width = conv.points
        pixel = linear(builder, (image, planes * height * width), (plane, height * width), (rows[0], width))
        points = builder.mul(builder.sub(rows[1], rows[0]), I64(width))
        copy = Copy.of(plan.stored, plan.packed, 0, 1)
        for first, last, vectors in plan.columns.segments:
            low, high = larger(builder, self.panels[0], I64(first)), smaller(builder, self.panels[1], I64(last))
            with builder.if_then(builder.icmp_signed("<", low, high)):
                starts = (piece_start(builder, plan.columns, p) for p in (low, high))
                column, end = (linear(builder, (start, plan.lanes)) for start in starts)
                inside = builder.sub(smaller(builder, end, I64(plan.width)), column)
                filters = builder.add(column, linear(builder, (self.group, plan.width)))
                source = plan.stored.at(builder, writer.g, linear(builder, (pixel, conv.filters), (filters, 1)))
                size = vectors * plan.lanes
                before = linear(builder, (builder.sub(image, first_image), plan.bands.size * width * size))
                goal = plan.packed.at(builder, self.panel_at(column), before)
                steps = [I64(conv.filters), I64(1), I64(size), I64(size), I64(plan.block_points * size)]
                writer.call(copy, [source, goal, points, inside, *steps])

    def panel_at(self, column: Value) -> Value:
        """Where a panel's copy begins."""
        plan, builder = self.writer.plan, self.writer.builder
        before = builder.sub(column, self.first_column())
        offset = linear(builder, (before, plan.block_points), (I64(1), plan.panels_offset))
        return plan.packed.at(builder, self.private(), offset)

    def each_panel(self, body: Callable[[Value, int, bool], None]) -> None:
        """For each panel: its first column, how many vectors it has, whether it is partly outside."""
        plan, builder = self.writer.plan, self.writer.builder
        for first, last, vectors, ragged in plan.panels():
            low, high = larger(builder, self.panels[0], I64(first)), smaller(builder, self.panels[1], I64(last))

            def panel(p: Value, _: list[Value], vectors: int = vectors, ragged: bool = ragged) -> None:
                body(linear(builder, (piece_start(builder, plan.columns, p), plan.lanes)), vectors, ragged)

            counted(builder, low, high, panel, name="panel")

    # Products --------------------------------------------------------------------------------------------------------
    def multiply(self, tap: Value, images: Value, rows: Value, later: Value) -> None:
        """All tiles for one tap and one block of points."""
        writer, plan, builder, conv = self.writer, self.writer.plan, self.writer.builder, self.writer.plan.conv
        _, plane_step, row_step, pixel_step = plan.band.steps
        depth, down, across = digits(builder, tap, plan.window)
        apart = conv.dilation[1] * row_step, conv.dilation[2] * pixel_step
        corner = linear(builder, (depth, plane_step), (down, apart[0]), (across, apart[1]))

        def panel(column: Value, vectors: int, ragged: bool) -> None:
            filters = builder.add(column, linear(builder, (self.group, plan.width)))
            g = self.panel_at(column)
            inside = builder.sub(I64(plan.width), column) if ragged else I64(vectors * plan.lanes)
            for first, last, size in plan.rows.segments:
                kernel, steps = plan.micro_kernel(size, vectors, ragged), plan.steps(vectors)
                merged = kernel.levels == 2
                counts = [images, builder.mul(rows, I64(conv.points[2])) if merged else rows]
                counts += [] if merged else [I64(conv.points[2])]

                def tile(
                    t: Value, _: list[Value], kernel: Any = kernel, steps: Any = steps, counts: Any = counts
                ) -> None:
                    row = piece_start(builder, plan.rows, t)
                    begin = builder.sub(*((column, self.first_column()) if plan.lanewise else (row, self.first_row())))
                    x = plan.packed.at(builder, self.private(), builder.add(corner, begin))
                    line = linear(builder, (tap, plan.height), (row, 1))
                    goal = self.goal(linear(builder, (line, conv.filters), (filters, 1)))
                    writer.call(kernel, [x, g, goal, inside, later, *steps.arguments(counts)])

                low, high = larger(builder, self.tiles[0], I64(first)), smaller(builder, self.tiles[1], I64(last))
                counted(builder, low, high, tile, name="tile")

        self.each_panel(panel)

    def goal(self, offset: Value) -> Value:
        """Where an element of the result is summed up."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        if not plan.apart:
            return plan.stored.at(builder, writer.goal, offset)
        whole = builder.add(offset, linear(builder, (self.part, plan.sums_elements)))
        return plan.packed.at(builder, writer.workspace, whole)
