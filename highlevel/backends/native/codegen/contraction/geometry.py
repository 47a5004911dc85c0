"""Convolutions in numbers: what they are, and the lattices that they and their input gradients run over.

A convolution and its input gradient are one thing, a *lattice* convolution: points of the result lie on a lattice, and
each is a sum over taps and channels of what is read at steps from where the point is,

    out[goal(p), j] = Σ_t,c in[p · step + start + t · tap_step, c] · kernel[kernel_start + t · kernel_step, c, j]

for each spatial axis; what lies outside of `in` is zero. A convolution is one lattice. Its input gradient has one for
each remainder of the input positions by the strides, since a kernel's tap meets only every stride-th position; taps
run backwards there, channels and filters change places.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from highlevel.ir.dtypes import DType, float32

from .products import Gemm


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, channels last: x (images, *sizes, channels), kernel (*window, channels / groups, filters).

    `packed` says that the kernel comes as `emit_conv_pack` left it. `offsets` says how many elements operands and
    result begin behind where the functions' arguments a, b and c point. `finished`: the type that an epilogue writes.
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
    offsets: tuple[int, int, int] = (0, 0, 0)
    finished: DType | None = None

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

    def as_gemm(self, kind: Literal["y", "dx", "dk"]) -> Gemm:
        """A pointwise convolution of one group: pixels · kernel, cotangents · kernelᵀ, pixelsᵀ · cotangents."""
        pixels, inner, outer = self.images * math.prod(self.sizes), self.channels, self.filters
        if kind == "y":
            gemm = Gemm.dense(pixels, outer, inner, self.dtype)
        elif kind == "dx":
            gemm = Gemm.dense(pixels, inner, outer, self.dtype, transpose_b=True)
        else:
            gemm = Gemm.dense(inner, outer, pixels, self.dtype, transpose_a=True)
        return dataclasses.replace(gemm, packed=self.packed, offsets=self.offsets, finished=self.finished)


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
