"""How kernel gradients of convolutions are cut; how they are written: `kernel_grad`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from .band import Band
from .blocking import (
    L2_BYTES,
    PARTIAL_UNITS,
    UNIT_FLOPS,
    GemmPlan,
    aligned,
    choose_tiles,
    converts_halves,
    plan_gemm,
    runs_of_panels,
)
from .geometry import Axes, Conv, forward_axes
from .microkernel import Level, MicroKernel, Steps
from .products import Cut, Target
from .values import Vectors, computed_in

BLOCK_POINTS = 128  # their panels fit the first-level cache; a tile is read and written once for each block
FEW_CHANNELS = 8  # of neighbouring taps at a time
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
    def offsets(self) -> tuple[int, int, int]:
        """Where operands and result begin."""
        return self.conv.offsets

    @property
    def apart(self) -> bool:
        """Whether sums are kept in the workspace first: of parts, or in a wider type."""
        return self.parts.pieces > 1 or computed_in(self.conv.dtype) is not self.conv.dtype

    @property
    def stored(self) -> Vectors:
        """Elements of the operands and of the result."""
        return Vectors(self.conv.dtype, self.lanes, self.fused, self.halves)

    @property
    def packed(self) -> Vectors:
        """Elements of copies and of partial sums."""
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
    def channels(self) -> int:
        """Input channels of a group."""
        return self.conv.channels // self.conv.groups

    @property
    def merged(self) -> bool:
        """Whether taps beside each other are rows of one product: (tap, channel)."""
        alone = self.conv.groups == 1 and self.conv.dilation[2] == 1 and self.conv.window[2] > 1
        return alone and self.conv.channels <= FEW_CHANNELS

    @property
    def height(self) -> int:
        """Rows of a product."""
        return self.channels * (self.conv.window[2] if self.merged else 1)

    @property
    def window(self) -> tuple[int, int, int]:
        """Taps with a product each."""
        planes, rows, columns = self.conv.window
        return planes, rows, 1 if self.merged else columns

    @property
    def width(self) -> int:
        """Filters of a group."""
        return self.conv.filters // self.groups

    @property
    def axes(self) -> Axes:
        """Of what x is read for."""
        return forward_axes(self.conv)

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
        return math.prod(self.conv.window) * self.channels * self.conv.filters

    @property
    def sums_elements(self) -> int:
        """Of one part's sums, in whole vectors and cache lines."""
        return aligned(-(-self.kernel_elements // self.lanes) * self.lanes, self.packed)

    @property
    def units(self) -> int:
        """How many pieces of work there are."""
        return self.parts.pieces * self.groups * self.row_blocks.pieces * self.panel_groups.pieces

    @property
    def unit_bases(self) -> tuple[int, int, int, int]:
        """Parts, groups, blocks of rows, groups of panels."""
        return self.parts.pieces, self.groups, self.row_blocks.pieces, self.panel_groups.pieces

    # Products --------------------------------------------------------------------------------------------------------
    def steps(self, vectors: int) -> Steps:
        """What the micro-kernel is told of places; rows of points that follow each other are one loop."""
        image_step, _, row_step, pixel_step = self.band.steps
        width, points = vectors * self.lanes, self.conv.points[2]
        image = Level(image_step, self.bands.size * points * width)
        row = Level(self.conv.strides[1] * row_step, points * width)
        point = Level(self.conv.strides[2] * pixel_step, width)
        merged = row.a == points * point.a
        return Steps(1, self.conv.filters, (image, point) if merged else (image, row, point))

    def micro_kernel(self, rows: int, vectors: int, ragged: bool) -> MicroKernel:
        """For tiles of so many rows."""
        return MicroKernel(
            rows=rows,
            vectors=vectors,
            inputs=self.packed,
            output=self.packed if self.apart else self.stored,
            levels=len(self.steps(vectors).levels),
            lanewise=self.lanewise,
            masked=ragged,
            partial=self.parts.extent > 1,
        )

    # Copies ----------------------------------------------------------------------------------------------------------
    @property
    def group_width(self) -> int:
        """Columns of a group of panels, at most."""
        return self.panel_groups.size * self.columns.size * self.lanes

    @property
    def band(self) -> Band:
        """What is copied of x."""
        rows = self.row_blocks.size * self.rows.size
        taken = min(self.width, self.group_width) if self.lanewise else min(self.channels, rows)
        return Band(self.axes, self.images.size, self.bands.size, self.conv.channels, taken, self.stored, self.packed)

    @property
    def block_points(self) -> int:
        """Points of a block, at most."""
        return self.images.size * self.bands.size * self.conv.points[2]

    @property
    def private_elements(self) -> int:
        """A thread's own part of the workspace: a band of x, panels of g."""
        return aligned(self.panels_offset + self.block_points * self.group_width, self.packed)

    @property
    def panels_offset(self) -> int:
        """Where the panels are in it."""
        return aligned(self.band.elements, self.packed)

    @property
    def shared_elements(self) -> int:
        """What all threads share in the workspace: sums of the parts."""
        return self.parts.pieces * self.sums_elements if self.apart else 0

    def workspace_bytes(self, nthreads: int) -> int:
        """How large the workspace has to be; it is best aligned to 64 bytes."""
        return (self.shared_elements + nthreads * self.private_elements) * self.packed.dtype.size_bytes


def plan_conv_kernel_grad(conv: Conv, target: Target) -> KernelGradPlan | GemmPlan:
    """The plan for the cotangent of a convolution's kernel: a matrix product where it is one."""
    if conv.pointwise and conv.groups == 1 and computed_in(conv.dtype) is conv.dtype:
        return plan_gemm(conv.as_gemm("dk"), target)
    conv = _pixels_in_rows(conv.in_three_dimensions())
    lanes = target.vector_bytes // computed_in(conv.dtype).size_bytes
    planes, rows, points = conv.points
    one = Cut(1, 1)
    plan = KernelGradPlan(conv, lanes, target.fma, converts_halves(target), one, one, one, one, one, one, one)
    tiles, columns = choose_tiles(plan.height, -(-plan.width // lanes), BLOCK_POINTS, target.vector_registers)
    images = max(1, BLOCK_POINTS // max(1, rows * points)) if planes == 1 else 1
    bands = Cut.by(rows, max(1, BLOCK_POINTS // max(1, points)))
    chunk = L2_BYTES // 4 // (math.prod(plan.window) * plan.packed.dtype.size_bytes)  # elements of the result, per tap
    row_blocks = Cut.by(tiles.pieces, max(1, math.isqrt(max(1, chunk)) // max(1, tiles.size)))
    across = max(1, chunk // max(1, -(-plan.height // row_blocks.pieces)) // (columns.size * lanes))
    plan = dataclasses.replace(
        plan,
        rows=tiles,
        columns=columns,
        row_blocks=Cut(tiles.pieces, 1) if plan.merged else row_blocks,
        panel_groups=Cut.by(columns.pieces, min(across, 1) if plan.lanewise else across),
        images=Cut.by(conv.images, images),
        bands=bands,
    )
    limit = L2_BYTES // 2 // plan.packed.dtype.size_bytes
    while plan.row_blocks.size > 1 and plan.band.elements > limit and not plan.merged:
        plan = dataclasses.replace(plan, row_blocks=Cut.by(tiles.pieces, plan.row_blocks.size // 2))
    blocks = plan.images.pieces * max(planes, 0) * bands.pieces
    worth = conv.flops // max(1, plan.units) // UNIT_FLOPS
    parts = max(1, min(-(-PARTIAL_UNITS // max(1, plan.units)), worth, blocks))
    return dataclasses.replace(plan, parts=Cut(blocks, parts))


def _pixels_in_rows(conv: Conv) -> Conv:
    """A pointwise convolution does not care which pixels are beside each other: rows of a good length, of one image."""
    if not conv.pointwise:
        return conv
    pixels = conv.images * math.prod(conv.sizes)
    points = max((n for n in range(1, BLOCK_POINTS + 1) if pixels % n == 0), default=1)
    return dataclasses.replace(conv, images=1, sizes=(1, pixels // points, points))
