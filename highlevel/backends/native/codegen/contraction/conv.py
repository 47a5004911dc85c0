"""Convolutions and their input gradients as LLVM IR. What a lattice is: `geometry`; how they are cut: `convolution`.

Functions have the form of those in `gemm`: `void name(a, b, c, workspace, i32 tid, i32 nthreads, operands…)`, one for
each phase; a is what is read (x, or the cotangent of y), b the kernel, c the result (y, or the cotangent of x).
"""

from __future__ import annotations

from dataclasses import dataclass

from .band import BandCopy
from .blocking import GemmPlan, plan_gemm
from .convolution import ConvPlan, Lattice, plan_lattices
from .finish import Epilogue, Finish
from .gemm import emit_gemm, emit_pack, phase_names
from .geometry import Conv
from .helpers import Helpers, place
from .microkernel import MicroKernel, Steps
from .packing import ALL, Copy
from .products import Target
from .values import I1, I64, Builder, Value, counted, larger, smaller
from .work import Share, define, digits, linear, piece_range, piece_start, reserve, shifted


def plan_conv(conv: Conv, target: Target) -> ConvPlan | GemmPlan:
    """The plan for a convolution: a matrix product where it is one."""
    return _plan(conv, target, transposed=False)


def plan_conv_input_grad(conv: Conv, target: Target) -> ConvPlan | GemmPlan:
    """The plan for the cotangent of a convolution's input."""
    return _plan(conv, target, transposed=True)


def _plan(conv: Conv, target: Target, *, transposed: bool) -> ConvPlan | GemmPlan:
    if conv.pointwise and conv.groups == 1:
        return plan_gemm(conv.as_gemm("dx" if transposed else "y"), target)
    return plan_lattices(conv, target, transposed=transposed)


def emit_conv(
    module: Value,
    name: str,
    plan: ConvPlan | GemmPlan,
    epilogue: Epilogue | None = None,
    helpers: Helpers | None = None,
) -> tuple[Value, ...]:
    """Defines a convolution, or its input gradient, in a module: functions as `emit_gemm` makes them.

    For the epilogue, rows are pixels of the result, all images counted through, and columns are channels.
    """
    if isinstance(plan, GemmPlan):
        return emit_gemm(module, name, plan, epilogue, helpers)
    names = zip(phase_names(name, plan.phases), plan.phases, strict=True)
    return tuple(emit_conv_phase(module, symbol, plan, phase, epilogue, helpers) for symbol, phase in names)


def emit_conv_phase(
    module: Value,
    name: str,
    plan: ConvPlan,
    phase: str,
    epilogue: Epilogue | None = None,
    helpers: Helpers | None = None,
) -> Value:
    """Defines the function of one phase."""
    writer = _Writer.begin(module, name, plan, epilogue, helpers)
    if phase == "pack":
        writer.pack(writer.workspace)
    else:
        writer.compute()
    writer.builder.ret_void()
    return writer.function


def emit_conv_pack(module: Value, name: str, plan: ConvPlan | GemmPlan, helpers: Helpers | None = None) -> Value:
    """Defines `void name(kernel, packed, i32 tid, i32 nthreads)`, which packs the kernel once for many convolutions.

    `plan` is that of the convolution whose kernel is not packed yet; `packed_bytes(plan)` says how large the result is.
    """
    if isinstance(plan, GemmPlan):
        return emit_pack(module, name, plan, helpers)
    function, builder, (kernel, packed, tid, nthreads) = define(module, name, 2)
    (kernel,) = shifted(builder, plan.stored, (kernel,), plan.offsets[1:2])
    share = Share.of(builder, tid, nthreads)
    _Writer(module, function, builder, plan, None, helpers, kernel, kernel, kernel, packed, share, ()).pack(packed)
    builder.ret_void()
    return function


@dataclass(frozen=True, slots=True)
class _Writer:
    """A phase's function while it is written."""

    module: Value
    function: Value
    builder: Builder
    plan: ConvPlan
    epilogue: Epilogue | None
    helpers: Helpers | None
    a: Value
    b: Value
    c: Value
    workspace: Value
    share: Share
    operands: tuple[Value, ...]
    tile: Value = None  # where micro-kernels leave what is to be finished

    @classmethod
    def begin(
        cls, module: Value, name: str, plan: ConvPlan, epilogue: Epilogue | None, helpers: Helpers | None
    ) -> _Writer:
        function, builder, arguments = define(module, name, 4, epilogue.operands if epilogue else 0)
        a, b, c, workspace, tid, nthreads, *operands = arguments
        a, b = shifted(builder, plan.stored, (a, b), plan.offsets[:2])
        (c,) = shifted(builder, plan.result, (c,), plan.offsets[2:])
        height = max((lattice.tiles.size for lattice in plan.lattices), default=1)
        tile = reserve(builder, plan.stored, height * plan.columns.size) if plan.scratch else None
        share = Share.of(builder, tid, nthreads)
        return cls(module, function, builder, plan, epilogue, helpers, a, b, c, workspace, share, tuple(operands), tile)

    def call(self, helper: Copy | MicroKernel | Finish, arguments: list[Value]) -> None:
        """Calls a function that is shared."""
        self.builder.call(place(self.module, helper, self.helpers), arguments)

    # The kernel ------------------------------------------------------------------------------------------------------
    def pack(self, goal: Value) -> None:
        """The kernel into panels: (group, panel, tap, summed channel, column)."""
        plan, builder, kernel = self.plan, self.builder, self.plan.kernel
        if not (plan.width and plan.summed):
            return
        copy = Copy.of(plan.stored, plan.packed, kernel.row, kernel.column)
        bases = (plan.groups, plan.columns.pieces, plan.taps)
        first, end = self.share.range(builder, plan.groups * plan.columns.pieces * plan.taps)

        def unit(u: Value, _: list[Value]) -> None:
            group, panel, tap = digits(builder, u, bases)
            column = self._column(panel)
            vectors = builder.sub(
                piece_start(builder, plan.columns, builder.add(panel, I64(1))),
                piece_start(builder, plan.columns, panel),
            )
            width = builder.mul(vectors, I64(plan.lanes))
            inside = smaller(builder, width, builder.sub(I64(plan.width), column))
            steps = (tap, kernel.batch[0]), (group, kernel.batch[1]), (column, kernel.column)
            source = plan.stored.at(builder, self.b, linear(builder, *steps))
            before = linear(
                builder, (group, plan.taps * plan.summed * plan.padded_columns), (column, plan.taps * plan.summed)
            )
            offset = builder.add(before, builder.mul(tap, builder.mul(width, I64(plan.summed))))
            numbers = [I64(plan.summed), inside, I64(kernel.row), I64(kernel.column), width, ALL, I64(0)]
            self.call(copy, [source, plan.packed.at(builder, goal, offset), *numbers])

        counted(builder, first, end, unit, name="pack")

    def _column(self, panel: Value) -> Value:
        """Where a panel begins."""
        return linear(self.builder, (piece_start(self.builder, self.plan.columns, panel), self.plan.lanes))

    def kernel_at(
        self, lattice: Lattice, group: Value, channel: Value, column: Value, vectors: int
    ) -> tuple[Value, int]:
        """Where the lattice's first tap begins for a panel, and the step between summed channels."""
        plan, builder = self.plan, self.builder
        if plan.b == "direct":
            b, row = self.b, plan.kernel.row
            before = linear(builder, (group, plan.kernel.batch[1]), (column, plan.kernel.column))
        else:
            b, row = self.workspace if plan.b == "shared" else self.b, vectors * plan.lanes
            panel = plan.taps * plan.summed
            before = linear(builder, (group, panel * plan.padded_columns), (column, panel))
        tap = sum(axis.kernel_start * plan.tap_step(i, row) for i, axis in enumerate(lattice.axes))
        offset = builder.add(before, linear(builder, (channel, row), (I64(1), tap)))
        elements = plan.stored if plan.b == "direct" else plan.packed
        return elements.at(builder, b, offset), row

    # Work ------------------------------------------------------------------------------------------------------------
    def compute(self) -> None:
        """All lattices, one after the other: each thread its units."""
        plan, builder = self.plan, self.builder
        if not (plan.conv.images and plan.width):
            return
        lattices = [lattice for lattice in plan.lattices if all(axis.points > 0 for axis in lattice.axes)]
        first, end = self.share.range(builder, sum(plan.units_of(lattice) for lattice in lattices))
        before = 0
        for lattice in lattices:
            units = plan.units_of(lattice)
            low = larger(builder, builder.sub(first, I64(before)), I64(0))
            high = smaller(builder, builder.sub(end, I64(before)), I64(units))

            def unit(u: Value, _: list[Value], lattice: Lattice = lattice, low: Value = low) -> None:
                image, group, depth, band, panels = digits(builder, u, plan.unit_bases(lattice))
                begins = builder.or_(builder.icmp_signed("==", u, low), builder.icmp_signed("==", panels, I64(0)))
                images, rows = piece_range(builder, lattice.images, image), piece_range(builder, lattice.bands, band)
                chosen = piece_range(builder, plan.panel_groups, panels)
                _Unit(self, lattice, images, group, depth, rows, chosen).emit(begins)

            counted(builder, low, high, unit, name="unit")
            before += units


@dataclass(frozen=True, slots=True)
class _Unit:
    """A band of rows of one plane, of some images and one group, times a group of panels."""

    writer: _Writer
    lattice: Lattice
    images: tuple[Value, Value]
    group: Value
    depth: Value
    rows: tuple[Value, Value]
    panels: tuple[Value, Value]

    def emit(self, begins: Value) -> None:
        """Copies the band when it `begins`, then multiplies: blocks of channels, panels, rows, tiles."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        if self.lattice.copy:
            with builder.if_then(begins):
                channel = I64(0) if plan.lanewise else linear(builder, (self.group, plan.summed))
                band = plan.band(self.lattice)
                copy = BandCopy(
                    builder, writer.call, band, writer.a, self.band(), self.images, self.depth, self.rows, channel
                )
                copy.emit()

        def block(k: Value, _: list[Value]) -> None:
            for first, last, vectors, ragged in plan.panels():
                low, high = larger(builder, self.panels[0], I64(first)), smaller(builder, self.panels[1], I64(last))

                def panel(p: Value, _: list[Value], vectors: int = vectors, ragged: bool = ragged) -> None:
                    self.multiply(k, writer._column(p), vectors, ragged)

                counted(builder, low, high, panel, name="panel")

        counted(builder, 0, plan.reduction.pieces, block, name="reduction")

    def multiply(self, block: Value, column: Value, vectors: int, ragged: bool) -> None:
        """All tiles of the band, of one panel, for one block of channels."""
        writer, plan, builder, lattice = self.writer, self.writer.plan, self.writer.builder, self.lattice
        channel, end = piece_range(builder, plan.reduction, block)
        kernel_begin, b_row = writer.kernel_at(lattice, self.group, channel, column, vectors)
        inside = builder.sub(I64(plan.width), column) if ragged else I64(vectors * plan.lanes)
        counts = [
            builder.sub(end, channel) if count is None else I64(count) for count, _ in plan.levels(lattice, b_row)
        ]
        goal_column = builder.add(column, linear(builder, (self.group, plan.width)))

        later = builder.icmp_signed(">", block, I64(0))
        last = builder.icmp_signed("==", block, I64(plan.reduction.pieces - 1))

        def image(i: Value, _: list[Value]) -> None:
            counted(builder, *self.rows, lambda r, _: row(i, r), name="row")

        def row(i: Value, r: Value) -> None:
            tap, taps = self.taps(r, counts)
            for first, end, height in lattice.tiles.segments:
                kernel, steps = plan.micro_kernel(lattice, height, vectors, ragged), self.steps(vectors, b_row)

                def tile(t: Value, _: list[Value], kernel: MicroKernel = kernel, steps: Steps = steps) -> None:
                    point = piece_start(builder, lattice.tiles, t)
                    a, b = self.source(i, r, point, channel, column), kernel_begin
                    if (skipped := plan.skipped(lattice)) is not None:
                        level = steps.levels[skipped]
                        a = kernel.inputs.at(builder, a, builder.mul(tap, I64(level.a)))
                        b = kernel.inputs.at(builder, b, builder.mul(tap, I64(level.b)))
                    pixel = self.goal(i, r, point)
                    c = linear(builder, (pixel, plan.goal_channels), (goal_column, 1))
                    goal = plan.result.at(builder, writer.c, c)
                    tile = writer.tile if plan.scratch else goal
                    writer.call(kernel, [a, b, tile, inside, later, *steps.arguments(taps)])
                    if writer.epilogue:
                        self.finish((tile, I64(steps.c_row)), goal, I64(kernel.rows), inside, pixel, goal_column, last)

                counted(builder, first, end, tile, name="tile")

        counted(builder, *self.images, image, name="image")

    def taps(self, row: Value, counts: list[Value]) -> tuple[Value, list[Value]]:
        """The first row of taps that meets something, and how often the loops of the reduction run then."""
        builder, axis, skipped = self.writer.builder, self.lattice.axes[1], self.writer.plan.skipped(self.lattice)
        if skipped is None:
            return I64(0), counts
        before = builder.sub(I64(-axis.start), builder.mul(row, I64(axis.step)))  # positions until there is something
        first = builder.sdiv(larger(builder, builder.add(before, I64(axis.tap_step - 1)), I64(0)), I64(axis.tap_step))
        reach = larger(builder, builder.add(before, I64(axis.source + axis.tap_step - 1)), I64(0))
        end = smaller(builder, builder.sdiv(reach, I64(axis.tap_step)), I64(axis.taps))
        taken = larger(builder, builder.sub(end, first), I64(0))
        return first, [*counts[:skipped], taken, *counts[skipped + 1 :]]

    def steps(self, vectors: int, b_row: int) -> Steps:
        """What the micro-kernel is told of places."""
        plan, axis = self.writer.plan, self.lattice.axes[2]
        return Steps(
            axis.step * plan.steps(self.lattice)[-1],
            vectors * plan.lanes if plan.scratch else axis.goal_step * plan.goal_channels,
            tuple(level for _, level in plan.levels(self.lattice, b_row)),
        )

    def finish(
        self,
        tile: tuple[Value, Value],
        goal: Value,
        rows: Value,
        inside: Value,
        pixel: Value,
        column: Value,
        last: Value,
    ) -> None:
        """The epilogue of a tile – where it is, the step between its rows – after the last block of channels."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        assert writer.epilogue
        step = self.lattice.axes[2].goal_step
        steps = [tile[1], I64(step * plan.goal_channels)]
        with builder.if_then(I1(1) if plan.scratch else last):
            finish = Finish(plan.stored, plan.result, writer.epilogue)
            place = [I64(0), pixel, I64(step), column]
            writer.call(finish, [tile[0], goal, rows, inside, *steps, *place, *writer.operands])

    # Addresses -------------------------------------------------------------------------------------------------------
    def band(self) -> Value:
        """This thread's band."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        offset = linear(builder, (writer.share.tid, plan.private_elements), (I64(1), plan.shared_elements))
        return plan.packed.at(builder, writer.workspace, offset)

    def source(self, image: Value, row: Value, point: Value, channel: Value, column: Value) -> Value:
        """Where the first tap of a point reads."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        planes, rows, columns = self.lattice.axes
        image_step, plane_step, row_step, pixel_step = plan.steps(self.lattice)
        inner = (column if plan.lanewise else channel, 1)
        if self.lattice.copy:
            i, r = builder.sub(image, self.images[0]), builder.sub(row, self.rows[0])
            steps = (i, image_step), (r, rows.step * row_step), (point, columns.step * pixel_step)
            offset = linear(builder, *steps, inner)
            return plan.packed.at(builder, self.band(), offset)
        start = planes.start * plane_step + rows.start * row_step + columns.start * pixel_step
        offset = linear(
            builder,
            (image, image_step),
            (self.depth, planes.step * plane_step),
            (row, rows.step * row_step),
            (point, columns.step * pixel_step),
            (self.group, 0 if plan.lanewise else plan.summed),
            inner,
            (I64(1), start),
        )
        return plan.stored.at(builder, writer.a, offset)

    def goal(self, image: Value, row: Value, point: Value) -> Value:
        """Which pixel of the result a point is, all images counted through."""
        planes, rows, columns = self.lattice.axes
        plane = rows.goal * columns.goal
        start = planes.goal_start * plane + rows.goal_start * columns.goal + columns.goal_start
        return linear(
            self.writer.builder,
            (image, planes.goal * plane),
            (self.depth, planes.goal_step * plane),
            (row, rows.goal_step * columns.goal),
            (point, columns.goal_step),
            (I64(1), start),
        )
