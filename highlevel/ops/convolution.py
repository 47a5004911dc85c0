"""Convolution and pooling of batches of sequences, images and volumes.

Layouts: inputs (N, *S, C), or (N, C, *S) with data_format="channels_first"; kernels (*K, C/groups, O) always. "same"
pads so that the output has ⌈size / stride⌉ elements, the extra one of odd padding at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import to_float, weak_value
from highlevel.ir.operators import cast, operand

from .arguments import check_rank, floating, is_channels_first, moved, per_axis
from .movement import along
from .registry import op


def to_channels_last(x: Any, first: bool) -> Any:
    return operators.transpose(x, moved(x.ndim, 1, x.ndim - 1)) if first else x


def from_channels_last(x: Any, first: bool) -> Any:
    return operators.transpose(x, moved(x.ndim, x.ndim - 1, 1)) if first else x


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The padding before and after an axis of which ⌈size / stride⌉ windows are wanted."""
    extent = (window - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def _padding(
    name: str, mode: str, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if not isinstance(mode, str) or mode.lower() not in ("valid", "same"):
        raise ArgumentError(f"{name}: unknown padding", got=repr(mode), expected="'valid' or 'same'")
    if mode.lower() == "valid":
        return ((0, 0),) * len(sizes)
    return tuple(map(same_padding, sizes, window, strides, dilation))


def _check_kernel(name: str, x: Any, kernel: Any) -> None:
    check_rank(name, x, (3, 4, 5), "(batch, sizes…, channels)")
    if kernel.ndim != x.ndim:
        raise ShapeError(
            f"{name}: the kernel's rank does not fit", got=f"inputs {x.spec}, kernel {kernel.spec}",
            expected=f"a kernel of rank {x.ndim}: (sizes…, input channels, output channels)",
        )  # fmt: skip


def _one_type(x: Any, *others: Any) -> list[Any]:
    items = [operand(x), *map(operand, others)]
    dtype = to_float(operators.common_dtype(items, items))
    return [cast(item, dtype) for item in items]


@op
def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Convolution (without flipping the kernel), in as many groups as the kernel's channels go into the input's."""
    x, kernel = _one_type(inputs, kernel)
    _check_kernel("conv", x, kernel)
    first = is_channels_first("conv", data_format)
    x = to_channels_last(x, first)
    channels, per_group = x.shape[-1], kernel.shape[-2]
    if per_group == 0 or channels % per_group:
        raise ShapeError(
            "conv: the channels do not fit", got=f"inputs {x.spec} (channels last), kernel {kernel.spec}",
            expected=f"a multiple of {per_group} input channels",
            hint="data_format says which axis holds the channels",
        )  # fmt: skip
    return from_channels_last(_conv("conv", x, kernel, strides, padding, dilation_rate, channels // per_group), first)


def _conv(name: str, x: Any, kernel: Any, strides: Any, padding: str, dilation_rate: Any, groups: int) -> Any:
    rank = x.ndim - 2
    stride = per_axis(strides, rank, name, "strides")
    dilation = per_axis(dilation_rate, rank, name, "dilation_rate")
    pads = _padding(name, padding, x.shape[1:-1], kernel.shape[:rank], stride, dilation)
    return primitives.conv(x, kernel, strides=stride, padding=pads, dilation=dilation, groups=groups)


@op
def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Convolution of each channel by itself, with kernels (*K, C, multiplier); C·multiplier channels result."""
    x, kernel = _one_type(inputs, kernel)
    _check_kernel("depthwise_conv", x, kernel)
    first = is_channels_first("depthwise_conv", data_format)
    x = to_channels_last(x, first)
    channels, multiplier = kernel.shape[-2:]
    if x.shape[-1] != channels:
        raise ShapeError(
            "depthwise_conv: the channels do not fit", got=f"{x.spec} and {kernel.spec}", expected="as many"
        )
    kernel = operators.reshape(kernel, *kernel.shape[:-2], 1, channels * multiplier)
    return from_channels_last(_conv("depthwise_conv", x, kernel, strides, padding, dilation_rate, channels), first)


@op
def separable_conv(
    inputs: Any, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = 1, padding: str = "valid",
    data_format: str | None = None, dilation_rate: Any = 1,
) -> Any:  # fmt: skip
    """A depthwise convolution, then one with kernels of size 1 that mixes channels."""
    x = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(x, pointwise_kernel, 1, "valid", data_format)


@op
def conv_transpose(
    inputs: Any, kernel: Any, strides: Any = 1, padding: str = "valid", output_padding: Any = None,
    data_format: str | None = None, dilation_rate: Any = 1,
) -> Any:  # fmt: skip
    """The transpose of a convolution, which enlarges inputs by the stride; kernels are (*K, output, input channels).

    Sizes: "same" gives size·stride, "valid" (size − 1)·stride + max(kernel, stride), unless `output_padding` is given.
    """
    x, kernel = _one_type(inputs, kernel)
    _check_kernel("conv_transpose", x, kernel)
    first = is_channels_first("conv_transpose", data_format)
    x = to_channels_last(x, first)
    rank = x.ndim - 2
    if x.shape[-1] != kernel.shape[-1]:
        raise ShapeError(
            "conv_transpose: the channels do not fit", got=f"inputs {x.spec} (channels last), kernel {kernel.spec}",
            expected=f"{kernel.shape[-1]} input channels, the kernel's last size",
        )  # fmt: skip
    stride = per_axis(strides, rank, "conv_transpose", "strides")
    dilation = per_axis(dilation_rate, rank, "conv_transpose", "dilation_rate")
    extra: Sequence[int | None] = (None,) * rank
    if output_padding is not None:
        extra = per_axis(output_padding, rank, "conv_transpose", "output_padding")
    _padding("conv_transpose", padding, (), (), (), ())
    rows = [
        transposed_geometry(*row, padding.lower())
        for row in zip(x.shape[1:-1], kernel.shape[:rank], stride, dilation, extra, strict=True)
    ]
    shape = (x.shape[0], *(size for size, _, _ in rows), kernel.shape[-2])
    y = primitives.conv_input_grad(
        x, kernel, shape=shape, strides=stride, padding=tuple(pads for _, pads, _ in rows), dilation=dilation, groups=1
    )
    if any(beyond for _, _, beyond in rows):
        high = (0, *(beyond for _, _, beyond in rows), 0)
        y = primitives.pad(y, low=(0,) * y.ndim, high=high, interior=(0,) * y.ndim, value=0.0)
    return from_channels_last(y, first)


def transposed_geometry(
    size: int, window: int, stride: int, dilation: int, extra: int | None, mode: str
) -> tuple[int, tuple[int, int], int]:
    """Along one axis of a transposed convolution: the size it reaches, the padding of the convolution that it
    transposes, and how many zeros follow beyond that."""
    extent = (window - 1) * dilation + 1
    if mode == "valid":
        left = extent - 1
        right = left + (max(extent, stride) - extent if extra is None else extra)
    else:
        total = stride + extent - 2 if extra is None else extent + extent % 2 - 2 + extra
        left = min(total // 2 + total % 2, extent - 1)
        right = total - left
    length = (size - 1) * stride + left + right - extent + 2
    low, high = extent - 1 - left, extent - 1 - right
    if high >= 0:
        return length, (low, high), 0
    return length + high, (low, 0), -high


# Pooling ---------------------------------------------------------------------------------------------------------
def _pool_geometry(name: str, x: Any, pool_size: Any, strides: Any, padding: str) -> dict[str, Any]:
    check_rank(name, x, (3, 4, 5), "(batch, sizes…, channels)")
    rank = x.ndim - 2
    window = per_axis(pool_size, rank, name, "pool_size")
    stride = window if strides is None else per_axis(strides, rank, name, "strides")
    ones = (1,) * rank
    pads = _padding(name, padding, x.shape[1:-1], window, stride, ones)
    return {"window": window, "strides": stride, "padding": pads, "dilation": ones}


@op
def max_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The largest value in each window; windows touch unless `strides` is given."""
    first = is_channels_first("max_pool", data_format)
    x = to_channels_last(operand(inputs), first)
    return from_channels_last(
        primitives.window_max(x, **_pool_geometry("max_pool", x, pool_size, strides, padding)), first
    )


@op
def average_pool(
    inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
) -> Any:
    """The mean of each window; padding does not count."""
    first = is_channels_first("average_pool", data_format)
    x = to_channels_last(floating(inputs), first)
    geometry = _pool_geometry("average_pool", x, pool_size, strides, padding)
    total = primitives.window_sum(x, **geometry)
    if any(a or b for a, b in geometry["padding"]):
        ones = operators.full((1, *x.shape[1:-1], 1), 1.0, x.dtype)
        return from_channels_last(total / primitives.window_sum(ones, **geometry), first)
    return from_channels_last(total * (1.0 / math.prod(geometry["window"])), first)


def _regions(size: int, parts: int) -> list[tuple[int, int]]:
    """`parts` ranges that cover an axis, of nearly equal length, overlapping where it does not divide."""
    return [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def _adaptive(name: str, inputs: Any, output_size: Any, data_format: str | None, shrink: Callable[..., Any]) -> Any:
    first = is_channels_first(name, data_format)
    x = to_channels_last(floating(inputs), first)
    check_rank(name, x, (3, 4, 5), "(batch, sizes…, channels)")
    for axis, parts in enumerate(per_axis(output_size, x.ndim - 2, name, "output_size"), start=1):
        if parts < 1:
            raise ArgumentError(f"{name}: an output size is not positive", got=output_size)
        x = shrink(x, axis, _regions(x.shape[axis], parts))
    return from_channels_last(x, first)


@op
def adaptive_average_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Any:
    """The means of as many regions, of nearly equal size, as the output has elements."""

    def shrink(x: Any, axis: int, regions: list[tuple[int, int]]) -> Any:
        weights = np.zeros((x.shape[axis], len(regions)), x.dtype.numpy)
        for i, (start, stop) in enumerate(regions):
            weights[start:stop, i] = 1.0 / (stop - start)
        return along_axis(x, axis, operand(weights))

    return _adaptive("adaptive_average_pool", inputs, output_size, data_format, shrink)


@op
def adaptive_max_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Any:
    """The largest values of as many regions, of nearly equal size, as the output has elements."""

    def shrink(x: Any, axis: int, regions: list[tuple[int, int]]) -> Any:
        longest = max(stop - start for start, stop in regions)
        places = np.array([[min(start + i, stop - 1) for i in range(longest)] for start, stop in regions], np.int32)
        return primitives.reduce_max(x[along(axis, places)], axes=(axis + 1,))

    return _adaptive("adaptive_max_pool", inputs, output_size, data_format, shrink)


def along_axis(x: Any, axis: int, matrix: Any) -> Any:
    """One axis of x multiplied by a matrix (old size, new size)."""
    last = operators.transpose(x, moved(x.ndim, axis, x.ndim - 1))
    y = operators.matmul(last, cast(matrix, x.dtype))
    return operators.transpose(y, moved(y.ndim, y.ndim - 1, axis))


# Columns ---------------------------------------------------------------------------------------------------------
def _pairs(*values: Any) -> list[tuple[int, ...]]:
    return [per_axis(value, 2, "unfold", "a size") for value in values]


@op
def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The windows of images (N, C, H, W) as columns: (N, C·kh·kw, windows)."""
    x = operand(x)
    check_rank("unfold", x, (4,), "(batch, channels, height, width)")
    window, spread, pads, step = _pairs(kernel_size, dilation, padding, stride)
    n, c = x.shape[:2]
    low = (0, 0, *pads)
    zero = weak_value(0, x.dtype)
    x = primitives.pad(x, low=low, high=low, interior=(0, 0, 0, 0), value=zero) if any(pads) else x
    counts = [(x.shape[2 + i] - (window[i] - 1) * spread[i] - 1) // step[i] + 1 for i in range(2)]
    columns = []
    for i in range(window[0]):
        for j in range(window[1]):
            corner = (i * spread[0], j * spread[1])
            ends = [a + (m - 1) * s + 1 for a, m, s in zip(corner, counts, step, strict=True)]
            columns.append(x[:, :, corner[0] : ends[0] : step[0], corner[1] : ends[1] : step[1]])
    parts = [operators.reshape(part, n, c, 1, counts[0] * counts[1]) for part in columns]
    return operators.reshape(primitives.concatenate(*parts, axis=2), n, c * window[0] * window[1], -1)


@op
def fold(x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Columns (N, C·kh·kw, windows) added up to images (N, C, H, W): the transpose of `unfold`."""
    x = operand(x)
    check_rank("fold", x, (3,), "(batch, channels · window, windows)")
    size, window, spread, pads, step = _pairs(output_size, kernel_size, dilation, padding, stride)
    full = [a + 2 * b for a, b in zip(size, pads, strict=True)]
    counts = [(full[i] - (window[i] - 1) * spread[i] - 1) // step[i] + 1 for i in range(2)]
    taps = window[0] * window[1]
    if x.shape[1] % taps or x.shape[2] != counts[0] * counts[1]:
        raise ShapeError("fold: the columns do not fit", got=x.spec, expected=f"(N, C·{taps}, {counts[0] * counts[1]})")
    n, c = x.shape[0], x.shape[1] // taps
    x = operators.reshape(x, n, c, *window, *counts)
    total = None
    for i in range(window[0]):
        for j in range(window[1]):
            corner = (i * spread[0], j * spread[1])
            covered = [(m - 1) * s + 1 for m, s in zip(counts, step, strict=True)]
            high = [f - a - b for f, a, b in zip(full, corner, covered, strict=True)]
            part = primitives.pad(
                x[:, :, i, j], low=(0, 0, *corner), high=(0, 0, *high), interior=(0, 0, step[0] - 1, step[1] - 1),
                value=weak_value(0, x.dtype),
            )  # fmt: skip
            total = part if total is None else primitives.add(total, part)
    assert total is not None
    return total[:, :, pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]
