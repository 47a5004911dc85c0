"""The gradient of a convolution's kernel: for each tap, a matrix product of pixels, as LLVM IR.

    dk[k, c, o] = Σ_n,p x[n, p · stride + k · dilation − low, c] · g[n, p, o]

For each tap, rows of the micro-kernel are input channels, columns are filters, and the reduction runs over images and
points. Points are taken in *blocks* of a few hundred, so that what they need of x and g stays in the second-level
cache while all taps and tiles pass over it. Where a tap reaches over the border, the range of points is clipped.

A unit is a block of rows times a group of panels, all taps included; when those are few, the blocks of points are
divided into parts, which are summed apart and joined in order by a second phase.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from llvmlite import ir

from .blocking import (
    L2_BYTES,
    PARTIAL_UNITS,
    UNIT_FLOPS,
    Cut,
    Target,
    aligned,
    choose_tiles,
    converts_halves,
    runs_of_panels,
)
from .convolution import Conv
from .gemm import phase_names
from .helpers import Helpers, place
from .microkernel import ACCUMULATE, FINISH, Level, MicroKernel
from .values import I32, I64, POINTER, VOID, Builder, Value, Vectors, computed_in, counted, larger, smaller
from .work import Share, digits, linear, piece_range, piece_start

BLOCK_POINTS = 256  # a tile is read and written once for each block, so blocks must not be short
COMBINED = 64  # vectors that a thread joins at a time


@dataclass(frozen=True, slots=True)
class KernelGradPlan:
    """How a kernel gradient is computed.

    rows, row_blocks:      input channels of a group, cut into tiles; tiles grouped
    columns, panel_groups: filters of a group, counted in vectors, cut into panels; panels grouped
    images, bands:         images, and the rows of points of an image, cut: a block is a piece of each, of one plane
    parts:                 blocks, grouped into parts that are summed apart
    """

    conv: Conv
    lanes: int
    fused: bool
    halves: bool
    rows: Cut
    row_blocks: Cut
    columns: Cut
    panel_groups: Cut
    images: Cut
    bands: Cut
    parts: Cut

    @property
    def phases(self) -> tuple[str, ...]:
        """Functions to run one after the other, with a barrier between them."""
        return ("compute", "combine") if self.apart else ("compute",)

    @property
    def apart(self) -> bool:
        """Whether sums are kept in the workspace first: of parts, or in a wider type."""
        return self.parts.pieces > 1 or computed_in(self.conv.dtype) is not self.conv.dtype

    @property
    def stored(self) -> Vectors:
        """Elements of the operands and of the result."""
        return Vectors(self.conv.dtype, self.lanes, self.fused, self.halves)

    @property
    def sums(self) -> Vectors:
        """Elements of partial sums."""
        return dataclasses.replace(self.stored, dtype=computed_in(self.conv.dtype))

    @property
    def lanewise(self) -> bool:
        """Depthwise: all groups are the columns of one, which has one row."""
        return self.conv.depthwise

    @property
    def groups(self) -> int:
        """Groups that are computed apart."""
        return 1 if self.lanewise else self.conv.groups

    @property
    def height(self) -> int:
        """Input channels of a group."""
        return self.conv.channels // self.conv.groups

    @property
    def width(self) -> int:
        """Filters of a group."""
        return self.conv.filters // self.groups

    @property
    def ragged(self) -> bool:
        """Whether the last vector is partly outside."""
        return self.width % self.lanes != 0

    def panels(self) -> Iterator[tuple[int, int, int, bool]]:
        """Runs of panels of one kind."""
        return runs_of_panels(self.columns, self.ragged)

    @property
    def kernel_elements(self) -> int:
        """Of the result."""
        return math.prod(self.conv.window) * self.height * self.conv.filters

    @property
    def sums_elements(self) -> int:
        """Of one part's sums, in whole vectors and cache lines."""
        return aligned(-(-self.kernel_elements // self.lanes) * self.lanes, self.sums)

    @property
    def units(self) -> int:
        """How many pieces of work there are."""
        return self.parts.pieces * self.groups * self.row_blocks.pieces * self.panel_groups.pieces

    def workspace_bytes(self, nthreads: int) -> int:
        """How large the workspace has to be, for any number of threads; it is best aligned to 64 bytes."""
        return self.parts.pieces * self.sums_elements * self.sums.dtype.size_bytes if self.apart else 0


def plan_conv_kernel_grad(conv: Conv, target: Target) -> KernelGradPlan:
    """The plan for the cotangent of a convolution's kernel."""
    conv = conv.in_three_dimensions()
    if conv.pointwise:  # images and rows are one axis
        rows = conv.images * math.prod(conv.sizes[:-1])
        conv = dataclasses.replace(conv, images=1, sizes=(1, rows, conv.sizes[-1]))
    lanes = target.vector_bytes // computed_in(conv.dtype).size_bytes
    planes, rows, points = conv.points
    one = Cut(1, 1)
    halves = converts_halves(target)
    plan = KernelGradPlan(conv, lanes, target.fma, halves, one, one, one, one, one, one, one)
    tiles, columns = choose_tiles(plan.height, -(-plan.width // lanes), BLOCK_POINTS, target.vector_registers)
    images = max(1, BLOCK_POINTS // max(1, rows * points))
    bands = Cut.by(rows, max(1, BLOCK_POINTS // max(1, points)))
    chunk = L2_BYTES // 4 // (math.prod(conv.window) * plan.sums.dtype.size_bytes)  # elements of the result, per tap
    row_blocks = Cut.by(tiles.pieces, max(1, math.isqrt(max(1, chunk)) // max(1, tiles.size)))
    across = max(1, chunk // max(1, -(-plan.height // row_blocks.pieces)) // (columns.size * lanes))
    plan = dataclasses.replace(
        plan,
        rows=tiles,
        columns=columns,
        row_blocks=row_blocks,
        panel_groups=Cut.by(columns.pieces, across),
        images=Cut.by(conv.images, images),
        bands=bands,
    )
    blocks = plan.images.pieces * max(planes, 0) * bands.pieces
    worth = conv.flops // max(1, plan.units) // UNIT_FLOPS
    parts = max(1, min(-(-PARTIAL_UNITS // max(1, plan.units)), worth, blocks))
    return dataclasses.replace(plan, parts=Cut(blocks, parts))


def emit_conv_kernel_grad(
    module: Value, name: str, plan: KernelGradPlan, helpers: Helpers | None = None
) -> tuple[Value, ...]:
    """Defines a kernel gradient in a module: functions as `emit_gemm` makes them; a is x, b the cotangent of y."""
    functions = []
    for symbol, phase in zip(phase_names(name, plan.phases), plan.phases, strict=True):
        function = ir.Function(module, ir.FunctionType(VOID, [POINTER] * 4 + [I32, I32]), symbol)
        function.attributes.add("nounwind")
        x, g, goal, workspace, tid, nthreads = function.args
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        share = Share.of(builder, tid, nthreads)
        writer = _Writer(module, builder, plan, helpers, x, g, goal, workspace, share)
        if plan.kernel_elements:
            writer.compute() if phase == "compute" else writer.combine()
        builder.ret_void()
        functions.append(function)
    return tuple(functions)


@dataclass(frozen=True, slots=True)
class _Range:
    """Points of one axis that a tap meets: from `first`, `count` of them; `position` is what the first one reads."""

    first: Value
    count: Value
    position: Value


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

    def compute(self) -> None:
        """All units of this thread."""
        plan, builder = self.plan, self.builder
        first, end = self.share.range(builder, plan.units)
        bases = (plan.parts.pieces, plan.groups, plan.row_blocks.pieces, plan.panel_groups.pieces)

        def unit(u: Value, _: list[Value]) -> None:
            part, group, block, panels = digits(builder, u, bases)
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
        source = plan.sums.at(builder, self.workspace, offset)
        total = plan.sums.load(builder, source)
        for part in range(1, plan.parts.pieces):
            more = plan.sums.load(builder, plan.sums.at(builder, source, part * plan.sums_elements))
            total = plan.stored.add(builder, total, more)
        plan.stored.store(builder, total, plan.stored.at(builder, self.goal, offset), mask)

    def met(self, axis: int, tap: Value, low: Value, high: Value) -> _Range:
        """Points p of [low, high) with 0 ≤ p · stride + tap · dilation − padding < size."""
        builder, conv = self.builder, self.plan.conv
        stride, size = conv.strides[axis], conv.sizes[axis]
        shift = linear(builder, (tap, conv.dilation[axis]), (I64(1), -conv.padding[axis][0]))
        missing = larger(builder, builder.sub(I64(stride - 1), shift), I64(0))  # rounded up by the division
        first = larger(builder, low, builder.sdiv(missing, I64(stride)))
        room = builder.sub(I64(size + stride - 1), shift)
        end = smaller(builder, high, builder.sdiv(larger(builder, room, I64(0)), I64(stride)))
        position = builder.add(builder.mul(first, I64(stride)), shift)
        return _Range(first, builder.sub(end, first), position)


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
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        conv = plan.conv
        first, end = piece_range(builder, plan.parts, self.part)
        bases = (plan.images.pieces, max(1, conv.points[0]), plan.bands.pieces)

        def block(b: Value, _: list[Value]) -> None:
            images, plane, band = digits(builder, b, bases)
            chosen = piece_range(builder, plan.images, images)
            rows = piece_range(builder, plan.bands, band)
            later = builder.select(builder.icmp_signed(">", b, first), I32(ACCUMULATE | FINISH), I32(FINISH))

            def tap(t: Value, _: list[Value]) -> None:
                k = digits(builder, t, conv.window)
                planes = writer.met(0, k[0], plane, builder.add(plane, I64(1)))
                ranges = [
                    planes,
                    writer.met(1, k[1], *rows),
                    writer.met(2, k[2], I64(0), I64(conv.points[2])),
                ]
                # a plane outside is as good as no images
                count = builder.mul(builder.sub(chosen[1], chosen[0]), larger(builder, planes.count, I64(0)))
                self.multiply(t, chosen[0], count, ranges, later)

            counted(builder, 0, math.prod(conv.window), tap, name="tap")

        if plan.parts.extent:
            counted(builder, first, end, block, name="block")
        else:
            self.clear()

    def clear(self) -> None:
        """No points at all: the sum of nothing is zero."""
        plan, builder = self.writer.plan, self.writer.builder
        ranges = [_Range(I64(0), I64(0), I64(0))] * 3
        window = math.prod(plan.conv.window)
        counted(builder, 0, window, lambda t, _: self.multiply(t, I64(0), I64(0), ranges, I32(FINISH)), name="tap")

    def multiply(self, tap: Value, image: Value, images: Value, ranges: list[_Range], flags: Value) -> None:
        """All tiles for one tap and one block of points."""
        writer, plan, builder, conv = self.writer, self.writer.plan, self.writer.builder, self.writer.plan.conv
        planes, rows, points = ranges
        _, height, width = conv.sizes
        _, goal_height, goal_width = conv.points
        x_pixel = linear(
            builder,
            (image, math.prod(conv.sizes)),
            (planes.position, height * width),
            (rows.position, width),
            (points.position, 1),
        )
        g_pixel = linear(
            builder,
            (image, math.prod(conv.points)),
            (planes.first, goal_height * goal_width),
            (rows.first, goal_width),
            (points.first, 1),
        )
        counts = [images, rows.count, points.count]

        def panel(p: Value, vectors: int, ragged: bool) -> None:
            column = linear(builder, (piece_start(builder, plan.columns, p), plan.lanes))
            filters = builder.add(column, linear(builder, (self.group, plan.width)))
            g = plan.stored.at(builder, writer.g, linear(builder, (g_pixel, conv.filters), (filters, 1)))
            inside = builder.sub(I64(plan.width), column) if ragged else I64(vectors * plan.lanes)
            for first, last, size in plan.rows.segments:
                kernel = self.kernel(size, vectors, ragged)

                def tile(t: Value, _: list[Value], kernel: MicroKernel = kernel) -> None:
                    row = piece_start(builder, plan.rows, t)
                    channel = filters if plan.lanewise else linear(builder, (self.group, plan.height), (row, 1))
                    x = plan.stored.at(builder, writer.x, linear(builder, (x_pixel, conv.channels), (channel, 1)))
                    line = linear(builder, (tap, plan.height), (row, 1))
                    goal = self.goal(linear(builder, (line, conv.filters), (filters, 1)))
                    function = place(writer.module, kernel, writer.helpers)
                    builder.call(function, [x, g, goal, inside, flags, row, column, self.group, *counts])

                low, high = larger(builder, self.tiles[0], I64(first)), smaller(builder, self.tiles[1], I64(last))
                counted(builder, low, high, tile, name="tile")

        for first, last, vectors, ragged in plan.panels():
            low, high = larger(builder, self.panels[0], I64(first)), smaller(builder, self.panels[1], I64(last))

            def one(p: Value, _: list[Value], vectors: int = vectors, ragged: bool = ragged) -> None:
                panel(p, vectors, ragged)

            counted(builder, low, high, one, name="panel")

    def goal(self, offset: Value) -> Value:
        """Where an element of the result is summed up."""
        writer, plan, builder = self.writer, self.writer.plan, self.writer.builder
        if not plan.apart:
            return plan.stored.at(builder, writer.goal, offset)
        whole = builder.add(offset, linear(builder, (self.part, plan.sums_elements)))
        return plan.sums.at(builder, writer.workspace, whole)

    def kernel(self, rows: int, vectors: int, ragged: bool) -> MicroKernel:
        """The micro-kernel for tiles of so many input channels."""
        plan, conv = self.writer.plan, self.writer.plan.conv
        _, _, width = conv.sizes
        levels = (
            Level(math.prod(conv.sizes) * conv.channels, math.prod(conv.points) * conv.filters),
            Level(conv.strides[1] * width * conv.channels, conv.points[2] * conv.filters),
            Level(conv.strides[2] * conv.channels, conv.filters),
        )
        return MicroKernel(
            rows=rows,
            vectors=vectors,
            inputs=plan.stored,
            output=plan.sums if plan.apart else plan.stored,
            levels=levels,
            a_row=1,
            c_row=conv.filters,
            lanewise=plan.lanewise,
            masked=ragged,
            masked_a=ragged and plan.lanewise,
            masked_b=ragged,
            partial=plan.parts.extent > 1,
        )
