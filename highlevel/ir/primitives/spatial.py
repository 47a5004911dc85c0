"""Sliding windows over the spatial axes of channels-last arrays `(N, *S, C)`: what convolution and pooling share.

A window has a size, a stride and a dilation per spatial axis; padding is a pair (low, high) per axis. No records here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError

from ..spec import Spec

Padding = Sequence[tuple[int, int]]


def check_geometry(
    name: str, rank: int, strides: Sequence[int], padding: Padding, dilation: Sequence[int], window: Sequence[int]
) -> None:
    """One stride, padding pair, dilation and window size per spatial axis, each in its range."""
    given = {"strides": strides, "padding": padding, "dilation": dilation, "window": window}
    for label, values in given.items():
        if len(values) != rank:
            raise ArgumentError(f"{name}: {label} does not fit the operand", got=values, expected=f"{rank} entries")
    if min(*strides, *dilation, *window) < 1:
        raise ArgumentError(
            f"{name}: sizes, strides and dilation start at 1",
            got=f"window {tuple(window)}, strides {tuple(strides)}, dilation {tuple(dilation)}",
            expected="whole numbers of at least 1",
        )
    if any(low < 0 or high < 0 for low, high in padding):
        raise ArgumentError(f"{name}: negative padding", got=tuple(padding), expected="pairs (low, high) of at least 0")


def extents(window: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """How many elements each axis of a window spans, gaps of the dilation included."""
    return [(size - 1) * d + 1 for size, d in zip(window, dilation, strict=True)]


def output_sizes(
    name: str, x: Spec, window: Sequence[int], strides: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> tuple[int, ...]:
    """How many windows fit along each spatial axis of `x`."""
    sizes = []
    for axis, (size, extent, stride, (low, high)) in enumerate(
        zip(x.shape[1:-1], extents(window, dilation), strides, padding, strict=True), start=1
    ):
        padded = size + low + high
        if padded < extent:
            raise ShapeError(
                f"{name}: the window is larger than the padded input",
                got=f"{x} padded to {padded} along axis {axis}, window of {extent}",
                expected=f"at least {extent} elements along axis {axis}",
                hint="padding='same', a larger input, or fewer down-sampling layers before this one",
            )
        sizes.append((padded - extent) // stride + 1)
    return tuple(sizes)


def pad_spatial(xp: Any, x: Any, padding: Padding, value: Any = 0) -> Any:
    """The spatial axes padded with one value; the array itself where there is nothing to add."""
    if not any(low or high for low, high in padding):
        return x
    spatial = [size + low + high for size, (low, high) in zip(x.shape[1:-1], padding, strict=True)]
    out = xp.full((x.shape[0], *spatial, x.shape[-1]), value, dtype=x.dtype)
    out[inner_region(x.shape, padding)] = x
    return out


def inner_region(shape: Sequence[int], padding: Padding) -> tuple[slice, ...]:
    """Where the unpadded array lies inside the padded one."""
    inside = (slice(low, low + size) for size, (low, _) in zip(shape[1:-1], padding, strict=True))
    return (slice(None), *inside, slice(None))


def taps(window: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The positions inside a window, in row-major order."""
    return itertools.product(*map(range, window))


def tap_region(
    tap: Sequence[int], sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[slice, ...]:
    """The elements of the padded array that stand at one position of all windows: a strided slice."""
    region = []
    for position, size, stride, d in zip(tap, sizes, strides, dilation, strict=True):
        start = position * d
        region.append(slice(start, start + (size - 1) * stride + 1, stride))
    return (slice(None), *region, slice(None))


def windows_view(
    xp: Any, x: Any, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Any:
    """A view `(N, *sizes, *window, C)` of the padded array: every window, nothing copied."""
    steps = x.strides[1:-1]
    outer = [step * stride for step, stride in zip(steps, strides, strict=True)]
    inner = [step * d for step, d in zip(steps, dilation, strict=True)]
    return xp.lib.stride_tricks.as_strided(
        x, (x.shape[0], *sizes, *window, x.shape[-1]), (x.strides[0], *outer, *inner, x.strides[-1])
    )


def is_half(x: Any) -> bool:
    """Whether an array is float16 or bfloat16, which add up in float32."""
    return bool(x.dtype.itemsize == 2 and x.dtype.kind not in "iu")


def widen(xp: Any, *arrays: Any) -> list[Any]:
    """Half types as float32, anything else as it is."""
    return [array.astype(xp.float32) if is_half(array) else array for array in arrays]
