"""What the convolutions mean, on arrays of a module `xp`. Records and shape rules are in `convolution`.

Windows are unfolded into the rows of a matrix (K. Chellapilla et al., "High performance convolutional neural networks
for document processing", 2006), a block at a time that stays in the cache, and one product per block does the rest.
Kernels of size 1 need no unfolding; depthwise kernels multiply and add tap by tap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .spatial import Padding, extents, inner_region, is_half, pad_spatial, tap_region, taps, widen, windows_view

UNFOLDED_BYTES = 2 << 20  # of windows at a time: few enough for the cache, enough for a fast product
DEPTHWISE_BYTES = 1 << 18
SHORT_RUN = 16  # elements: shorter pieces are moved plane by plane, one channel of one tap after the other


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows lie in a padded input: how many along each axis, their size and spacing."""

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]

    def blocks(self, images: int, limit_bytes: int, bytes_per_window: int) -> Iterator[Block]:
        """Whole images, or rows of one image where that is too large; an axis of rows is the first spatial one."""
        rows, bytes_per_row = self.sizes[0], max(1, math.prod(self.sizes[1:]) * bytes_per_window)
        count = limit_bytes // (rows * bytes_per_row)
        if count >= 1:
            for start in range(0, images, count):
                yield self._block(slice(start, min(start + count, images)), 0, rows)
            return
        step = max(1, limit_bytes // bytes_per_row)
        for image in range(images):
            for start in range(0, rows, step):
                yield self._block(slice(image, image + 1), start, min(start + step, rows))

    def _block(self, images: slice, start: int, stop: int) -> Block:
        extent = extents(self.window, self.dilation)[0]
        inputs = slice(start * self.strides[0], (stop - 1) * self.strides[0] + extent)
        part = Windows((stop - start, *self.sizes[1:]), self.window, self.strides, self.dilation)
        return Block((images, inputs), (images, slice(start, stop)), part)

    def region(self, tap: Sequence[int]) -> tuple[slice, ...]:
        return tap_region(tap, self.sizes, self.strides, self.dilation)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the work: which images and rows of the padded input, of the output, and the windows in it."""

    inputs: tuple[slice, slice]
    outputs: tuple[slice, slice]
    windows: Windows


# The three operators -------------------------------------------------------------------------------------------------
def conv(
    xp: Any, x: Any, kernel: Any, *, sizes: Any, strides: Any, padding: Padding, dilation: Any, groups: int
) -> Any:
    """`sizes` is what the shape rule gives for the spatial axes."""
    half, dtype = is_half(x), x.dtype
    x, kernel = widen(xp, x, kernel)
    channels, filters = kernel.shape[-2:]
    if _is_pointwise(kernel.shape, padding, groups):
        pixels = x[_every(strides)].reshape(-1, channels)
        y = xp.matmul(pixels, kernel.reshape(channels, filters)).reshape(x.shape[0], *sizes, filters)
    else:
        windows = Windows(tuple(sizes), kernel.shape[:-2], strides, dilation)
        y = xp.empty((x.shape[0], *sizes, filters), dtype=x.dtype)
        compute = _depthwise if channels == 1 and groups > 1 else _unfolded
        compute(xp, pad_spatial(xp, x, padding), kernel, y, windows, groups)
    return y.astype(dtype) if half else y


def conv_input_grad(
    xp: Any, g: Any, kernel: Any, *, shape: Any, strides: Any, padding: Padding, dilation: Any, groups: int
) -> Any:
    half, dtype = is_half(g), g.dtype
    g, kernel = widen(xp, g, kernel)
    channels, filters = kernel.shape[-2:]
    if _is_pointwise(kernel.shape, padding, groups):
        product = xp.matmul(g.reshape(-1, filters), kernel.reshape(channels, filters).T)
        out = product = product.reshape(*g.shape[:-1], channels)
        if product.shape != tuple(shape):
            out = xp.zeros(shape, dtype=g.dtype)
            out[_every(strides)] = product
    else:
        windows = Windows(g.shape[1:-1], kernel.shape[:-2], strides, dilation)
        spatial = [size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
        padded = xp.zeros((shape[0], *spatial, shape[-1]), dtype=g.dtype)
        compute = _depthwise_input_grad if channels == 1 and groups > 1 else _unfolded_input_grad
        compute(xp, padded, kernel, g, windows, groups)
        out = padded[inner_region(shape, padding)]
    return out.astype(dtype) if half else out


def conv_kernel_grad(
    xp: Any, x: Any, g: Any, *, shape: Any, strides: Any, padding: Padding, dilation: Any, groups: int
) -> Any:
    half, dtype = is_half(x), x.dtype
    x, g = widen(xp, x, g)
    channels, filters = shape[-2:]
    if _is_pointwise(shape, padding, groups):
        pixels = x[_every(strides)].reshape(-1, channels)
        out = xp.matmul(pixels.T, g.reshape(-1, filters)).reshape(shape)
    else:
        windows = Windows(g.shape[1:-1], tuple(shape[:-2]), strides, dilation)
        compute = _depthwise_kernel_grad if channels == 1 and groups > 1 else _unfolded_kernel_grad
        out = compute(xp, pad_spatial(xp, x, padding), g, windows, groups).reshape(shape)
    return out.astype(dtype) if half else out


def _is_pointwise(kernel_shape: Sequence[int], padding: Padding, groups: int) -> bool:
    return groups == 1 and math.prod(kernel_shape[:-2]) == 1 and not any(low or high for low, high in padding)


def _every(strides: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(None, None, stride) for stride in strides), slice(None))


# Unfolded windows ----------------------------------------------------------------------------------------------------
def _unfold(xp: Any, x: Any, windows: Windows) -> Any:
    """All windows of a padded block as the rows of a matrix (windows, taps · C)."""
    channels, count = x.shape[-1], math.prod(windows.window)
    if windows.window[-1] * channels >= SHORT_RUN:
        view = windows_view(xp, x, windows.sizes, windows.window, windows.strides, windows.dilation)
        return xp.ascontiguousarray(view).reshape(-1, count * channels)
    planes = xp.empty((count, channels, x.shape[0], *windows.sizes), dtype=x.dtype)
    for plane, tap in zip(planes, taps(windows.window), strict=True):
        plane[...] = xp.moveaxis(x[windows.region(tap)], -1, 0)
    return planes.reshape(count * channels, -1).T


def _fold(xp: Any, x: Any, rows: Any, matrix: Any, windows: Windows) -> None:
    """Adds rows · matrix, (windows, taps · C), back to where the windows lie in a padded block."""
    channels = x.shape[-1]
    if channels >= SHORT_RUN:
        _add_windows(x, xp.matmul(rows, matrix), windows)
        return
    planes = xp.matmul(matrix.T, rows.T).reshape(-1, channels, x.shape[0], *windows.sizes)
    for plane, tap in zip(planes, taps(windows.window), strict=True):
        region = windows.region(tap)
        for channel in range(channels):
            x[(*region[:-1], channel)] += plane[channel]


def _add_windows(x: Any, columns: Any, windows: Windows) -> None:
    shaped = columns.reshape(x.shape[0], *windows.sizes, -1, x.shape[-1])
    for i, tap in enumerate(taps(windows.window)):
        x[windows.region(tap)] += shaped[..., i, :]


def _bytes_per_window(x: Any, windows: Windows) -> int:
    return int(math.prod(windows.window) * x.shape[-1] * x.dtype.itemsize)


def _group_columns(columns: Any, groups: int, channels: int) -> Any:
    """(rows, taps · groups · C) → (groups, rows, taps · C)"""
    split = columns.reshape(columns.shape[0], -1, groups, channels)
    return split.transpose(2, 0, 1, 3).reshape(groups, columns.shape[0], -1)


def _ungroup_columns(columns: Any, channels: int) -> Any:
    """(groups, rows, taps · C) → (rows, taps · groups · C)"""
    split = columns.reshape(*columns.shape[:2], -1, channels)
    return split.transpose(1, 2, 0, 3).reshape(columns.shape[1], -1)


def _group_kernel(kernel: Any, groups: int) -> Any:
    """(*K, C, O) → (groups, taps · C, O / groups)"""
    return kernel.reshape(-1, groups, kernel.shape[-1] // groups).transpose(1, 0, 2)


def _unfolded(xp: Any, x: Any, kernel: Any, y: Any, windows: Windows, groups: int) -> None:
    channels, filters = kernel.shape[-2:]
    matrix = _group_kernel(kernel, groups)
    for block in windows.blocks(x.shape[0], UNFOLDED_BYTES, _bytes_per_window(x, windows)):
        columns = _unfold(xp, x[block.inputs], block.windows)
        out = y[block.outputs].reshape(-1, filters)  # a view: blocks are contiguous
        if groups == 1:
            xp.matmul(columns, matrix[0], out=out)
        else:
            product = xp.matmul(_group_columns(columns, groups, channels), matrix)
            out[...] = product.transpose(1, 0, 2).reshape(out.shape)


def _unfolded_input_grad(xp: Any, padded: Any, kernel: Any, g: Any, windows: Windows, groups: int) -> None:
    channels, filters = kernel.shape[-2:]
    matrix = _group_kernel(kernel, groups).transpose(0, 2, 1)
    for block in windows.blocks(g.shape[0], UNFOLDED_BYTES, _bytes_per_window(padded, windows)):
        rows = g[block.outputs].reshape(-1, filters)
        if groups == 1:
            _fold(xp, padded[block.inputs], rows, matrix[0], block.windows)
        else:
            product = xp.matmul(_group_columns(rows, groups, filters // groups), matrix)
            _add_windows(padded[block.inputs], _ungroup_columns(product, channels), block.windows)


def _unfolded_kernel_grad(xp: Any, x: Any, g: Any, windows: Windows, groups: int) -> Any:
    filters, channels = g.shape[-1], x.shape[-1] // groups
    total = xp.zeros((groups, math.prod(windows.window) * channels, filters // groups), dtype=x.dtype)
    for block in windows.blocks(x.shape[0], UNFOLDED_BYTES, _bytes_per_window(x, windows)):
        columns = _unfold(xp, x[block.inputs], block.windows)
        rows = g[block.outputs].reshape(-1, filters)
        if groups == 1:
            total[0] += xp.matmul(columns.T, rows)
        else:
            grouped = _group_columns(columns, groups, channels).transpose(0, 2, 1)
            total += xp.matmul(grouped, _group_columns(rows, groups, filters // groups))
    return total.transpose(1, 0, 2)


# Depthwise: one input channel per group ------------------------------------------------------------------------------
def _merge_last(x: Any) -> Any:
    """The last spatial axis and the channels as one axis, so that inner loops are long."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _repeated_kernel(xp: Any, kernel: Any, width: int) -> Any:
    """(*K, 1, O) → (*K, width · O), to go with the merged axes."""
    return xp.tile(kernel[..., 0, :], (*(1,) * (kernel.ndim - 2), width))


def _tap(xp: Any, x: Any, windows: Windows, tap: Sequence[int], multiplier: int) -> Any:
    part = x[windows.region(tap)]
    return _merge_last(xp.repeat(part, multiplier, axis=-1) if multiplier > 1 else part)


def _depthwise(xp: Any, x: Any, kernel: Any, y: Any, windows: Windows, groups: int) -> None:
    filters, rows = kernel.shape[-1], _repeated_kernel(xp, kernel, windows.sizes[-1])
    for block in windows.blocks(x.shape[0], DEPTHWISE_BYTES, filters * x.dtype.itemsize):
        part, out = x[block.inputs], _merge_last(y[block.outputs])
        product = None
        for tap in taps(windows.window):
            values = _tap(xp, part, block.windows, tap, filters // groups)
            if product is None:
                xp.multiply(values, rows[tap], out=out)
                product = xp.empty_like(out)
            else:
                xp.multiply(values, rows[tap], out=product)
                out += product


def _depthwise_input_grad(xp: Any, padded: Any, kernel: Any, g: Any, windows: Windows, groups: int) -> None:
    filters, rows = kernel.shape[-1], _repeated_kernel(xp, kernel, windows.sizes[-1])
    multiplier = filters // groups
    for block in windows.blocks(g.shape[0], DEPTHWISE_BYTES, filters * g.dtype.itemsize):
        part, out = _merge_last(g[block.outputs]), padded[block.inputs]
        product = xp.empty_like(part)
        for tap in taps(windows.window):
            xp.multiply(part, rows[tap], out=product)
            split = product.reshape(-1, *block.windows.sizes, groups, multiplier)
            out[block.windows.region(tap)] += split[..., 0] if multiplier == 1 else split.sum(axis=-1)


def _depthwise_kernel_grad(xp: Any, x: Any, g: Any, windows: Windows, groups: int) -> Any:
    filters = g.shape[-1]
    total = xp.zeros((*windows.window, filters), dtype=x.dtype)
    for block in windows.blocks(x.shape[0], DEPTHWISE_BYTES, filters * x.dtype.itemsize):
        part = x[block.inputs]
        rows = _merge_last(g[block.outputs])
        rows = rows.reshape(-1, rows.shape[-1])
        for tap in taps(windows.window):
            values = _tap(xp, part, block.windows, tap, filters // groups).reshape(rows.shape)
            total[tap] += xp.einsum("rc,rc->c", values, rows).reshape(-1, filters).sum(axis=0)
    return total
