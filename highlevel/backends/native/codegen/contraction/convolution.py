"""How convolutions and their input gradients are cut. Numbers in, numbers out, as in `blocking`.

A row of points of a lattice (see `geometry`) is cut into tiles for the micro-kernel, whose reduction runs over taps and
channels. Where the window reaches over the border, a thread first copies the band that it works on (see `band`);
elsewhere it reads in place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .band import Band
from .blocking import L2_BYTES, UNIT_FLOPS, aligned, choose_tiles, converts_halves, runs_of_panels
from .geometry import Axes, Conv, forward_axes, gradient_axes
from .microkernel import Level, MicroKernel
from .products import Cut, Matrix, Target
from .values import Vectors, computed_in

BAND_BYTES = L2_BYTES // 4
BAND_ROWS = 8  # of points: what a band has in common with the next one is copied twice
BAND_POINTS = 256  # of the last images: the kernel is read once for each band, so bands must not be small
FEW_UNITS = 16
PACKING_POINTS = 128  # with fewer points than this, packing the kernel costs more than it saves


# Plans ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Lattice:
    """One lattice, cut: a row of points into tiles, rows and images into bands. `copy` says that bands are copied."""

    axes: Axes
    images: Cut
    tiles: Cut
    bands: Cut
    copy: bool


@dataclass(frozen=True, slots=True)
class ConvPlan:
    """How a convolution or its input gradient is computed.

    lattices:              see there
    columns, panel_groups: channels of the result (of one group), counted in vectors, cut into panels; panels grouped
    reduction:             channels that are summed over (of one group), cut into blocks
    b:                     "direct": the kernel is read in place; "shared": packed before, by all threads; "packed"
    """

    conv: Conv
    transposed: bool
    lanes: int
    fused: bool
    halves: bool
    lattices: tuple[Lattice, ...]
    columns: Cut
    panel_groups: Cut
    reduction: Cut
    b: Literal["direct", "shared", "packed"]

    @property
    def phases(self) -> tuple[str, ...]:
        """Functions to run one after the other, with a barrier between them."""
        return ("pack", "compute") if self.b == "shared" else ("compute",)

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Where operands and result begin; a kernel that is packed has an argument of its own."""
        a, b, c = self.conv.offsets
        return a, 0 if self.conv.packed else b, c

    @property
    def stored(self) -> Vectors:
        """Elements of the operands and of the result."""
        return Vectors(self.conv.dtype, self.lanes, self.fused, self.halves)

    @property
    def packed(self) -> Vectors:
        """Elements of bands and of the packed kernel."""
        return dataclasses.replace(self.stored, dtype=computed_in(self.conv.dtype))

    @property
    def result(self) -> Vectors:
        """Elements of the result."""
        return dataclasses.replace(self.stored, dtype=self.conv.finished or self.conv.dtype)

    @property
    def scratch(self) -> bool:
        """Whether tiles are finished on their way from a piece of the stack to the result."""
        return self.conv.finished is not None and self.reduction.pieces == 1

    # Channels --------------------------------------------------------------------------------------------------------
    @property
    def lanewise(self) -> bool:
        """Depthwise: no sum over channels; all groups are the columns of one."""
        return self.conv.depthwise

    @property
    def groups(self) -> int:
        """Groups that are computed apart."""
        return 1 if self.lanewise else self.conv.groups

    @property
    def source_channels(self) -> int:
        """Of what is read."""
        return self.conv.filters if self.transposed else self.conv.channels

    @property
    def goal_channels(self) -> int:
        """Of the result."""
        return self.conv.channels if self.transposed else self.conv.filters

    @property
    def summed(self) -> int:
        """Channels that are summed over, of one group."""
        return 1 if self.lanewise else self.source_channels // self.groups

    @property
    def width(self) -> int:
        """Channels of the result, of one group."""
        return self.goal_channels // self.groups

    @property
    def ragged(self) -> bool:
        """Whether the last vector is partly outside."""
        return self.width % self.lanes != 0

    def panels(self) -> Iterator[tuple[int, int, int, bool]]:
        """Runs of panels of one kind."""
        return runs_of_panels(self.columns, self.ragged)

    # The kernel as B -------------------------------------------------------------------------------------------------
    @property
    def taps(self) -> int:
        """Of the window."""
        return math.prod(self.conv.window)

    @property
    def kernel(self) -> Matrix:
        """Steps in the kernel between summed channels, between columns, and (batch) between taps, between groups."""
        conv = self.conv
        inner, filters = conv.channels // conv.groups, conv.filters
        steps = (inner * filters, filters // conv.groups)
        if self.lanewise:
            return Matrix(0, 1, (filters, 0))
        return Matrix(1, filters, steps) if self.transposed else Matrix(filters, 1, steps)

    @property
    def padded_columns(self) -> int:
        """Columns of a group in whole vectors."""
        return self.columns.extent * self.lanes

    @property
    def packed_elements(self) -> int:
        """Of the packed kernel: (group, panel, tap, summed channel, column)."""
        return self.groups * self.taps * self.summed * self.padded_columns

    # Reading ---------------------------------------------------------------------------------------------------------
    def band(self, lattice: Lattice) -> Band:
        """What a thread copies."""
        taken = self.source_channels if self.lanewise else self.summed
        return Band(
            lattice.axes, lattice.images.size, lattice.bands.size, self.source_channels, taken, self.stored, self.packed
        )

    def steps(self, lattice: Lattice) -> tuple[int, int, int, int]:
        """Between images, planes, rows and pixels of what the micro-kernel reads."""
        if lattice.copy:
            return self.band(lattice).steps
        planes, rows, columns = (axis.source for axis in lattice.axes)
        row = columns * self.source_channels
        return planes * rows * row, rows * row, row, self.source_channels

    def tap_step(self, axis: int, b_row: int) -> int:
        """Between taps of the kernel along an axis, when summed channels are `b_row` apart."""
        window = self.conv.window[axis + 1 :]
        one = self.kernel.batch[0] if self.b == "direct" else self.summed * b_row
        return math.prod(window) * one

    def levels(self, lattice: Lattice, b_row: int) -> list[tuple[int | None, Level]]:
        """The loops of the reduction, outermost first: (count, steps). None counts the channels of a block.

        Loops of one step are left out, and a loop that continues where the next one ends is merged with it.
        """
        if not all(axis.taps for axis in lattice.axes):
            return [(0, Level(0, 0))]
        found: list[tuple[int | None, Level]] = []
        for i, (axis, step) in enumerate(zip(lattice.axes, self.steps(lattice)[1:], strict=True)):
            between = 1 if lattice.copy and i == 0 else axis.tap_step  # a band holds the planes that are needed
            level = Level(between * step, axis.kernel_step * self.tap_step(i, b_row))
            if axis.taps > 1:
                found.append((axis.taps, level))
        if not self.lanewise:
            found.append((None, Level(1, b_row)))
        apart = self.skipped(lattice) is not None and lattice.axes[2].taps == 1  # rows of taps are the last axis
        if self.reduction.pieces == 1 and len(found) > 1 and not self.lanewise and not apart:
            (outer, level), count = found[-2], self.summed
            if outer is not None and level == Level(count, count * b_row):
                found[-2:] = [(outer * count, Level(1, b_row))]
        return found or [(1, Level(0, 0))]

    def skipped(self, lattice: Lattice) -> int | None:
        """The loop of the reduction over rows of taps, where those that meet nothing but the border are left out.

        That is what an input gradient means; in a convolution the zeros of the border count, times what they meet.
        """
        planes, rows, _ = lattice.axes
        taken = self.transposed and all(axis.taps for axis in lattice.axes) and rows.taps > 1 and not rows.inside
        return int(planes.taps > 1) if taken else None

    # Functions that are called ---------------------------------------------------------------------------------------
    def micro_kernel(self, lattice: Lattice, height: int, vectors: int, ragged: bool) -> MicroKernel:
        """For tiles of so many points of a lattice."""
        b_row = self.kernel.row if self.b == "direct" else vectors * self.lanes
        return MicroKernel(
            rows=height,
            vectors=vectors,
            inputs=self.packed if lattice.copy or self.b != "direct" else self.stored,
            output=self.stored,
            levels=len(self.levels(lattice, b_row)),
            lanewise=self.lanewise,
            masked=ragged and not self.scratch,
            masked_a=ragged and self.lanewise and not lattice.copy,
            masked_b=ragged and self.b == "direct",
            partial=self.reduction.pieces > 1,
        )

    # Work ------------------------------------------------------------------------------------------------------------
    def units_of(self, lattice: Lattice) -> int:
        """How many pieces of work a lattice has."""
        return math.prod(self.unit_bases(lattice))

    @property
    def units(self) -> int:
        """How many pieces of work there are."""
        return sum(self.units_of(lattice) for lattice in self.lattices)

    def unit_bases(self, lattice: Lattice) -> tuple[int, int, int, int, int]:
        """Images, groups, planes, bands, groups of panels."""
        planes = lattice.axes[0].points
        return lattice.images.pieces, self.groups, planes, lattice.bands.pieces, self.panel_groups.pieces

    @property
    def shared_elements(self) -> int:
        """What all threads share in the workspace: the packed kernel."""
        return aligned(self.packed_elements, self.packed) if self.b == "shared" else 0

    @property
    def private_elements(self) -> int:
        """A thread's own part of the workspace: its band."""
        bands = (self.band(lattice).elements for lattice in self.lattices if lattice.copy)
        return aligned(max(bands, default=0), self.packed)

    def workspace_bytes(self, nthreads: int) -> int:
        """How large the workspace has to be; it is best aligned to 64 bytes."""
        return (self.shared_elements + nthreads * self.private_elements) * self.packed.dtype.size_bytes


def plan_lattices(conv: Conv, target: Target, *, transposed: bool) -> ConvPlan:
    """The plan for a convolution that is no matrix product, or (`transposed`) for its input gradient."""
    conv = conv.in_three_dimensions()
    compute = computed_in(conv.dtype)
    lanes = target.vector_bytes // compute.size_bytes
    draft = ConvPlan(
        conv=conv,
        transposed=transposed,
        lanes=lanes,
        fused=target.fma,
        halves=converts_halves(target),
        lattices=(),
        columns=Cut(1, 1),
        panel_groups=Cut(1, 1),
        reduction=Cut(1, 1),
        b="direct",
    )
    all_axes = list(gradient_axes(conv)) if transposed else [forward_axes(conv)]
    points = max((axes[2].points for axes in all_axes), default=1)
    depth = max((math.prod(axis.taps for axis in axes) for axes in all_axes), default=1) * draft.summed
    tiles, columns = choose_tiles(points, -(-draft.width // lanes), max(1, depth), target.vector_registers)
    draft = dataclasses.replace(
        draft,
        columns=columns,
        reduction=_cut_channels(draft, columns.size * lanes * draft.taps),
        b=_place_kernel(draft, target),
    )
    lattices = tuple(_plan_lattice(draft, axes, tiles.size) for axes in all_axes)
    units = sum(draft.units_of(lattice) for lattice in lattices)
    groups = Cut.by(columns.pieces, 1 if not units else max(1, columns.pieces * units // FEW_UNITS))
    return dataclasses.replace(draft, lattices=lattices, panel_groups=groups)


def _plan_lattice(plan: ConvPlan, axes: Axes, height: int) -> Lattice:
    copy = not all(axis.inside for axis in axes) or plan.packed.dtype is not plan.stored.dtype
    tiles = Cut.by(axes[2].points, height)
    row_flops = 2 * axes[2].points * math.prod(axis.taps for axis in axes) * plan.summed * plan.width
    worth = -(-UNIT_FLOPS // max(1, row_flops))
    kernel_bytes = plan.taps * plan.summed * plan.padded_columns * plan.packed.dtype.size_bytes
    large = kernel_bytes > L2_BYTES // 2 and not plan.lanewise  # it is read once for each band
    least = BAND_POINTS // max(1, axes[2].points) if large else BAND_ROWS if copy else 1
    images, rows = 1, max(1, min(axes[1].points, max(worth, least)))
    points = rows * axes[2].points
    if rows >= axes[1].points and axes[0].points == 1:  # whole images: perhaps several
        images = max(1, min(plan.conv.images, BAND_POINTS // max(1, points)))
    lattice = Lattice(axes, Cut.by(plan.conv.images, images), tiles, Cut.by(axes[1].points, rows), copy)
    limit = L2_BYTES if large else BAND_BYTES
    while copy and images > 1 and _band_bytes(plan, lattice) > max(limit, 2 * BAND_BYTES):
        images -= 1
        lattice = dataclasses.replace(lattice, images=Cut.by(plan.conv.images, images))
    while copy and lattice.bands.size > 1 and _band_bytes(plan, lattice) > max(limit, BAND_BYTES * min(images, 2)):
        lattice = dataclasses.replace(lattice, bands=Cut.by(axes[1].points, lattice.bands.size - 1))
    return lattice


def _band_bytes(plan: ConvPlan, lattice: Lattice) -> int:
    return plan.band(lattice).elements * plan.packed.dtype.size_bytes


def _cut_channels(plan: ConvPlan, panel: int) -> Cut:
    """Blocks whose part of a panel stays in the second-level cache. The result must be able to hold partial sums."""
    if plan.lanewise or not plan.packed.dtype is plan.stored.dtype is plan.result.dtype:
        return Cut(plan.summed, 1)
    return Cut.by(plan.summed, max(16, L2_BYTES // 4 // (panel * plan.packed.dtype.size_bytes)))


def _place_kernel(plan: ConvPlan, target: Target) -> Literal["direct", "shared", "packed"]:
    conv = plan.conv
    if conv.packed:
        return "packed"
    widens = plan.packed.dtype is not plan.stored.dtype
    points = conv.images * math.prod(conv.sizes if plan.transposed else conv.points)
    few = plan.lanewise or points < PACKING_POINTS
    readable = plan.kernel.column == 1 and (target.masking or not plan.ragged)
    return "direct" if readable and few and not widens else "shared"
