"""How convolutions are cut. Numbers in, numbers out, as in `blocking`.

The convolution and its input gradient are one thing, a *lattice* convolution: points of the result lie on a lattice,
and each is a sum over taps and channels of what is read at steps from where the point is,

    out[goal(p), j] = Σ_t,c in[p · step + start + t · tap_step, c] · kernel[kernel_start + t · kernel_step, c, j]

for each spatial axis; what lies outside of `in` is zero. A convolution is one lattice. Its input gradient has one for
each remainder of the input positions by the strides, since a kernel's tap meets only every stride-th position; taps
run backwards there, channels and filters change places.

A row of points is cut into tiles for the micro-kernel, whose reduction runs over taps and channels. Where the window
reaches over the border, a thread first copies the *band* of rows that it works on, borders included, which also moves
what it needs into its second-level cache; elsewhere it reads in place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from highlevel.ir.dtypes import DType, float32

from .blocking import (
    L2_BYTES,
    PAGE_BYTES,
    UNIT_FLOPS,
    Cut,
    Gemm,
    Matrix,
    Target,
    aligned,
    choose_tiles,
    converts_halves,
    runs_of_panels,
)
from .microkernel import Level
from .values import Vectors, computed_in

BAND_ROWS = 8  # of points: what a band has in common with the next one is copied twice
FEW_UNITS = 16
PACKING_POINTS = 512  # with fewer points than this, packing the kernel costs more than it saves


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, channels last: x (images, *sizes, channels), kernel (*window, channels / groups, filters).

    `packed` says that the kernel comes as `emit_conv_pack` left it.
    """

    images: int
    sizes: tuple[int, ...]
    channels: int
    filters: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    dtype: DType = float32
    packed: bool = False

    @classmethod
    def same(cls, images: int, size: int, channels: int, filters: int, window: int, stride: int = 1) -> Conv:
        """A square 2-D convolution that keeps the size, but for strides: what most networks are made of."""
        low = (window - 1) // 2
        pads = ((low, window - 1 - low),) * 2
        return cls(images, (size,) * 2, channels, filters, (window,) * 2, (stride,) * 2, pads, (1, 1))

    @property
    def points(self) -> tuple[int, ...]:
        """The spatial sizes of the result."""
        axes = zip(self.sizes, self.window, self.strides, self.padding, self.dilation, strict=True)
        return tuple((s + low + high - (w - 1) * d - 1) // step + 1 for s, w, step, (low, high), d in axes)

    @property
    def flops(self) -> int:
        """Multiplications and additions, those with zeros of the border included."""
        taps = math.prod(self.window) * self.channels // self.groups
        return 2 * self.images * math.prod(self.points) * self.filters * taps

    @property
    def pointwise(self) -> bool:
        """Whether this is a matrix product of pixels and kernel."""
        ones = (1,) * len(self.window)
        return self.window == ones and self.strides == ones and not any(sum(pads) for pads in self.padding)

    @property
    def depthwise(self) -> bool:
        """Whether each channel has a filter of its own."""
        return self.groups == self.channels == self.filters and self.groups > 1

    def in_three_dimensions(self) -> Conv:
        """The same with spatial axes of size 1 in front, so that there are three."""
        more = 3 - len(self.sizes)
        return dataclasses.replace(
            self,
            sizes=(1,) * more + self.sizes,
            window=(1,) * more + self.window,
            strides=(1,) * more + self.strides,
            padding=((0, 0),) * more + self.padding,
            dilation=(1,) * more + self.dilation,
        )

    def as_gemm(self, *, transposed: bool) -> Gemm:
        """A pointwise convolution of one group: pixels times kernel. Its input gradient: cotangents times kernelᵀ."""
        pixels, inner, outer = self.images * math.prod(self.sizes), self.channels, self.filters
        if transposed:
            gemm = Gemm.dense(pixels, inner, outer, self.dtype, transpose_b=True)
        else:
            gemm = Gemm.dense(pixels, outer, inner, self.dtype)
        return dataclasses.replace(gemm, packed=self.packed)


# Lattices ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a lattice, as in the module's formula; `source`, `goal`: sizes of what is read, written."""

    source: int
    goal: int
    points: int
    step: int
    start: int
    taps: int
    tap_step: int
    goal_start: int = 0
    goal_step: int = 1
    kernel_start: int = 0
    kernel_step: int = 1

    @property
    def reach(self) -> int:
        """How many positions all points together read from, the first and the last included."""
        return self.reach_of(self.points)

    def reach_of(self, points: int) -> int:
        """How many positions so many neighbouring points read from."""
        return (points - 1) * self.step + (self.taps - 1) * self.tap_step + 1 if self.taps else 0

    @property
    def inside(self) -> bool:
        """Whether nothing is read outside."""
        return self.start >= 0 and self.start + self.reach <= self.source


Axes = tuple[Axis, Axis, Axis]


def forward_axes(conv: Conv) -> Axes:
    """The lattice of a convolution (three spatial axes)."""
    depth, row, column = (
        Axis(size, points, points, stride, -low, window, dilation)
        for size, points, stride, (low, _), window, dilation in zip(
            conv.sizes, conv.points, conv.strides, conv.padding, conv.window, conv.dilation, strict=True
        )
    )
    return depth, row, column


def gradient_axes(conv: Conv) -> Iterator[Axes]:
    """The lattices of the input gradient: one for each remainder of the input positions by the strides."""
    for rests in product(*(range(stride) for stride in conv.strides)):
        depth, row, column = (_gradient_axis(conv, i, rest) for i, rest in enumerate(rests))
        if depth.points > 0 and row.points > 0 and column.points > 0:
            yield depth, row, column


def _gradient_axis(conv: Conv, i: int, rest: int) -> Axis:
    stride, dilation, (low, _) = conv.strides[i], conv.dilation[i], conv.padding[i]
    meets = [tap for tap in range(conv.window[i]) if (rest + low - tap * dilation) % stride == 0]
    size = conv.sizes[i]
    axis = Axis(conv.points[i], size, -(-(size - rest) // stride), 1, 0, len(meets), 0, rest, stride)
    if not meets:
        return axis
    last, apart = meets[-1], meets[-1] - meets[-2] if len(meets) > 1 else 1
    return dataclasses.replace(
        axis,
        start=(rest + low - last * dilation) // stride,
        tap_step=apart * dilation // stride if len(meets) > 1 else 1,
        kernel_start=last,
        kernel_step=-apart,
    )


# Plans ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Lattice:
    """One lattice, cut: a row of points into tiles, rows into bands. `copy` says that bands are copied."""

    axes: Axes
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
    def stored(self) -> Vectors:
        """Elements of the operands and of the result."""
        return Vectors(self.conv.dtype, self.lanes, self.fused, self.halves)

    @property
    def packed(self) -> Vectors:
        """Elements of bands and of the packed kernel."""
        return dataclasses.replace(self.stored, dtype=computed_in(self.conv.dtype))

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

    # Bands -----------------------------------------------------------------------------------------------------------
    @property
    def band_pixel(self) -> int:
        """Elements of a pixel in a band; more than there are where tiles would collide in the cache."""
        channels = self.source_channels if self.lanewise else self.summed
        size = self.packed.dtype.size_bytes
        return channels + self.lanes if channels * size % (PAGE_BYTES // 2) == 0 else channels

    def band_row(self, axes: Axes) -> int:
        """Elements of a row in a band."""
        return axes[2].reach * self.band_pixel

    def band_rows(self, lattice: Lattice) -> int:
        """Rows in a band, of one plane."""
        return lattice.axes[1].reach_of(lattice.bands.size)

    def band_elements(self, lattice: Lattice) -> int:
        """In a band, with what copies of whole vectors may write behind it."""
        if not lattice.copy:
            return 0
        return lattice.axes[0].taps * self.band_rows(lattice) * self.band_row(lattice.axes) + 2 * self.lanes

    # Steps -----------------------------------------------------------------------------------------------------------
    def steps(self, lattice: Lattice) -> tuple[int, int, int]:
        """Between planes, rows and pixels of what the micro-kernel reads."""
        if lattice.copy:
            row = self.band_row(lattice.axes)
            return self.band_rows(lattice) * row, row, self.band_pixel
        _, rows, columns = (axis.source for axis in lattice.axes)
        return rows * columns * self.source_channels, columns * self.source_channels, self.source_channels

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
        for i, (axis, step) in enumerate(zip(lattice.axes, self.steps(lattice), strict=True)):
            apart = 1 if lattice.copy and i == 0 else axis.tap_step  # a band holds the planes that are needed
            level = Level(apart * step, axis.kernel_step * self.tap_step(i, b_row))
            if axis.taps > 1:
                found.append((axis.taps, level))
        if not self.lanewise:
            found.append((None, Level(1, b_row)))
        if self.reduction.pieces == 1 and len(found) > 1 and not self.lanewise:
            (outer, level), count = found[-2], self.summed
            if outer is not None and level == Level(count, count * b_row):
                found[-2:] = [(outer * count, Level(1, b_row))]
        return found or [(1, Level(0, 0))]

    # Work ------------------------------------------------------------------------------------------------------------
    def units(self, lattice: Lattice) -> int:
        """How many pieces of work there are."""
        return self.conv.images * self.groups * lattice.axes[0].points * lattice.bands.pieces * self.panel_groups.pieces

    @property
    def shared_elements(self) -> int:
        """What all threads share in the workspace: the packed kernel."""
        return aligned(self.packed_elements, self.packed) if self.b == "shared" else 0

    @property
    def private_elements(self) -> int:
        """A thread's own part of the workspace: its band."""
        return aligned(max((self.band_elements(lattice) for lattice in self.lattices), default=0), self.packed)

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
    units = sum(draft.units(lattice) for lattice in lattices)
    groups = Cut.by(columns.pieces, 1 if not units else max(1, columns.pieces * units // FEW_UNITS))
    return dataclasses.replace(draft, lattices=lattices, panel_groups=groups)


def _plan_lattice(plan: ConvPlan, axes: Axes, height: int) -> Lattice:
    copy = not all(axis.inside for axis in axes) or plan.packed.dtype is not plan.stored.dtype
    tiles = Cut.by(axes[2].points, height)
    row_flops = 2 * axes[2].points * math.prod(axis.taps for axis in axes) * plan.summed * plan.width
    worth = -(-UNIT_FLOPS // max(1, row_flops))
    row_bytes = axes[0].taps * axes[2].reach * plan.band_pixel * plan.packed.dtype.size_bytes
    fit = (L2_BYTES // 4 // max(1, row_bytes) - (axes[1].taps - 1) * axes[1].tap_step - 1) // axes[1].step + 1
    rows = max(1, min(fit, max(worth, BAND_ROWS))) if copy else max(1, worth)
    return Lattice(axes, tiles, Cut.by(axes[1].points, rows), copy)


def _cut_channels(plan: ConvPlan, panel: int) -> Cut:
    """Blocks whose part of a panel stays in the second-level cache. Small types cannot hold partial sums."""
    if plan.lanewise or plan.packed.dtype is not plan.stored.dtype:
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
