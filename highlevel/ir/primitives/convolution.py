"""Convolution: three operators that are each other's derivatives. Channels last, kernels `(*K, C / groups, O)`.

    conv(x, kernel)          y[n, p, o] = Σ_k,c x[n, p·stride + k·dilation − low, c] · kernel[k, c, o]
    conv_input_grad(g, k)    the transposed map: what `g` weighs each input with
    conv_kernel_grad(x, g)   what `g` weighs each kernel entry with

The definition unfolds blocks of images into matrices (K. Chellapilla et al., "High performance convolutional neural
networks for document processing", 2006), one product per block; depthwise kernels multiply and add tap by tap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import oracles
from ..primitive import define
from ..sample import Sample, normal
from ..spec import Spec
from .spatial import (
    Padding,
    check_geometry,
    inner_region,
    is_half,
    output_sizes,
    pad_spatial,
    tap_region,
    taps,
    widen,
    windows_view,
)

FAMILY = "convolution"
BLOCK_BYTES = 8 << 20  # images are unfolded in blocks of about this size, which stay in the cache


# Shapes --------------------------------------------------------------------------------------------------------------
def _infer(name: str, x: Spec, kernel: Spec, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    """The shape of a convolution of `x` with `kernel`."""
    if x.ndim < 3 or kernel.ndim != x.ndim:
        raise ShapeError(
            f"{name}: ranks do not fit",
            got=f"x {x}, kernel {kernel}",
            expected="x (batch, *spatial, channels) and kernel (*window, channels / groups, filters)",
            hint="x[None] adds a batch axis, x[..., None] a channel axis" if x.ndim == kernel.ndim - 1 else None,
        )
    if x.dtype is not kernel.dtype or x.dtype.is_bool:
        raise DTypeError(f"{name}: data types do not fit", got=f"{x} and {kernel}", expected="numbers of one data type")
    check_geometry(name, x.ndim - 2, strides, padding, dilation, kernel.shape[:-2])
    channels, filters = kernel.shape[-2:]
    if groups < 1 or filters % groups or x.shape[-1] % groups:
        raise ArgumentError(
            f"{name}: groups do not divide the channels",
            got=f"groups={groups} for {x.shape[-1]} channels and {filters} filters",
            expected="a number that divides both",
        )
    if x.shape[-1] != channels * groups:
        raise ShapeError(
            f"{name}: the channels do not fit the kernel",
            got=f"x {x}, kernel {kernel}, groups={groups}",
            expected=f"{channels * groups} channels on the last axis",
            hint=_channels_hint(x, channels * groups),
        )
    sizes = output_sizes(name, x, kernel.shape[:-2], strides, padding, dilation)
    return Spec((x.shape[0], *sizes, filters), x.dtype)


def _channels_hint(x: Spec, channels: int) -> str | None:
    if x.shape[1] == channels:
        return "the input looks channels-first: data_format='channels_first', or move axis 1 to the end"
    return None


def _infer_conv(x: Spec, kernel: Spec, *, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    return _infer("conv", x, kernel, strides, padding, dilation, groups)


def _infer_input_grad(
    g: Spec, kernel: Spec, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Spec:
    x = g.with_shape(shape)
    _check_cotangent("conv_input_grad", g, _infer("conv_input_grad", x, kernel, strides, padding, dilation, groups))
    return x


def _infer_kernel_grad(x: Spec, g: Spec, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    kernel = x.with_shape(shape)
    _check_cotangent("conv_kernel_grad", g, _infer("conv_kernel_grad", x, kernel, strides, padding, dilation, groups))
    return kernel


def _check_cotangent(name: str, g: Spec, expected: Spec) -> None:
    if g != expected:
        raise ShapeError(f"{name}: the cotangent does not fit", got=g, expected=f"{expected}, what conv gives")


# Blocks --------------------------------------------------------------------------------------------------------------
def _blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // max(1, bytes_per_image))
    return (slice(start, min(start + step, images)) for start in range(0, images, step))


def _is_pointwise(kernel_shape: Sequence[int], padding: Padding, groups: int) -> bool:
    """A 1×1 kernel: one matrix product, nothing unfolded."""
    return groups == 1 and math.prod(kernel_shape[:-2]) == 1 and not any(low or high for low, high in padding)


def _subsample(strides: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(None, None, stride) for stride in strides), slice(None))


def _split_groups(x: Any, groups: int) -> Any:
    """(rows, taps, C) → (groups, rows, taps · C / groups)."""
    rows, window, channels = x.shape
    split = x.reshape(rows, window, groups, channels // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, rows, window * (channels // groups))


def _group_kernel(kernel: Any, groups: int) -> Any:
    """(*K, C / groups, O) → (groups, taps · C / groups, O / groups)."""
    filters = kernel.shape[-1]
    return kernel.reshape(-1, groups, filters // groups).transpose(1, 0, 2)


def _unfold(xp: Any, x: Any, sizes: Any, window: Any, strides: Any, dilation: Any) -> Any:
    """All windows of padded images as rows: (images · windows, taps, C)."""
    view = windows_view(xp, x, sizes, window, strides, dilation)
    return xp.ascontiguousarray(view).reshape(-1, math.prod(window), x.shape[-1])


# conv ----------------------------------------------------------------------------------------------------------------
def _conv(xp: Any, x: Any, kernel: Any, *, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    half, dtype = is_half(x), x.dtype
    x, kernel = widen(xp, x, kernel)
    channels, filters = kernel.shape[-2:]
    if _is_pointwise(kernel.shape, padding, groups):
        pixels = x[_subsample(strides)]
        y = xp.matmul(pixels.reshape(-1, channels), kernel.reshape(channels, filters))
        y = y.reshape(*pixels.shape[:-1], filters)
    else:
        spec = _infer_conv(
            *map(_spec, (x, kernel)), strides=strides, padding=padding, dilation=dilation, groups=groups
        )
        sizes = spec.shape[1:-1]
        compute = _depthwise if channels == 1 and groups > 1 else _unfolded
        y = compute(xp, pad_spatial(xp, x, padding), kernel, sizes, strides, dilation, groups)
    return y.astype(dtype) if half else y


def _spec(array: Any) -> Spec:
    from ..dtypes import as_dtype

    return Spec(array.shape, as_dtype(array.dtype))


def _unfolded(xp: Any, x: Any, kernel: Any, sizes: Any, strides: Any, dilation: Any, groups: int) -> Any:
    window, filters = kernel.shape[:-2], kernel.shape[-1]
    y = xp.empty((x.shape[0], *sizes, filters), dtype=x.dtype)
    matrix = _group_kernel(kernel, groups) if groups > 1 else kernel.reshape(-1, filters)
    for block in _blocks(x.shape[0], math.prod(sizes) * math.prod(window) * x.shape[-1] * x.dtype.itemsize):
        columns = _unfold(xp, x[block], sizes, window, strides, dilation)
        out = y[block].reshape(-1, filters)
        if groups == 1:
            xp.matmul(columns.reshape(out.shape[0], -1), matrix, out=out)
        else:
            product = xp.matmul(_split_groups(columns, groups), matrix)
            out[...] = product.transpose(1, 0, 2).reshape(out.shape)
    return y


def _depthwise(xp: Any, x: Any, kernel: Any, sizes: Any, strides: Any, dilation: Any, groups: int) -> Any:
    """One input channel per group: each tap is a product of an image with a row of numbers."""
    window, filters = kernel.shape[:-2], kernel.shape[-1]
    y = xp.zeros((x.shape[0], *sizes, filters), dtype=x.dtype)
    rows = _row_kernel(xp, kernel, sizes[-1])
    for block in _blocks(x.shape[0], 4 * math.prod(sizes) * filters * x.dtype.itemsize):
        images, out = x[block], _rows(y[block])
        product = xp.empty_like(out)
        for tap in taps(window):
            part = _tap_rows(xp, images[tap_region(tap, sizes, strides, dilation)], filters // groups)
            xp.multiply(part, rows[tap], out=product)
            out += product
    return y


def _row_kernel(xp: Any, kernel: Any, width: int) -> Any:
    """The kernel repeated along the last spatial axis, so that inner loops run over whole rows: (*K, width · O)."""
    return xp.tile(kernel.reshape(*kernel.shape[:-2], kernel.shape[-1]), (1,) * (kernel.ndim - 3) + (1, width))


def _rows(x: Any) -> Any:
    """The last spatial axis and the channels as one axis (a view where the array is contiguous)."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _tap_rows(xp: Any, x: Any, multiplier: int) -> Any:
    return _rows(xp.repeat(x, multiplier, axis=-1) if multiplier > 1 else x)


# conv_input_grad -----------------------------------------------------------------------------------------------------
def _conv_input_grad(
    xp: Any, g: Any, kernel: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    half, dtype = is_half(g), g.dtype
    g, kernel = widen(xp, g, kernel)
    channels, filters = kernel.shape[-2:]
    if _is_pointwise(kernel.shape, padding, groups):
        product = xp.matmul(g.reshape(-1, filters), kernel.reshape(channels, filters).T)
        out = product = product.reshape(*g.shape[:-1], channels)
        if product.shape != tuple(shape):
            out = xp.zeros(shape, dtype=g.dtype)
            out[_subsample(strides)] = product
    else:
        spatial = [size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
        padded = xp.zeros((shape[0], *spatial, shape[-1]), dtype=g.dtype)
        if channels == 1 and groups > 1:
            _depthwise_input_grad(xp, padded, g, kernel, strides, dilation, groups)
        else:
            _unfolded_input_grad(xp, padded, g, kernel, strides, dilation, groups)
        out = padded[inner_region(shape, padding)]
    return out.astype(dtype) if half else out


def _unfolded_input_grad(
    xp: Any, padded: Any, g: Any, kernel: Any, strides: Any, dilation: Any, groups: int
) -> None:
    window, filters = kernel.shape[:-2], kernel.shape[-1]
    sizes, channels = g.shape[1:-1], padded.shape[-1]
    matrix = _group_kernel(kernel, groups).transpose(0, 2, 1) if groups > 1 else kernel.reshape(-1, filters).T
    for block in _blocks(g.shape[0], math.prod(sizes) * math.prod(window) * channels * g.dtype.itemsize):
        part = g[block].reshape(-1, 1, filters)
        if groups == 1:
            columns = xp.matmul(part[:, 0], matrix)
        else:
            product = xp.matmul(_split_groups(part, groups), matrix)
            product = product.reshape(groups, part.shape[0], math.prod(window), channels // groups)
            columns = product.transpose(1, 2, 0, 3)
        columns = columns.reshape(-1, *sizes, math.prod(window), channels)
        images = padded[block]
        for i, tap in enumerate(taps(window)):
            images[tap_region(tap, sizes, strides, dilation)] += columns[..., i, :]


def _depthwise_input_grad(
    xp: Any, padded: Any, g: Any, kernel: Any, strides: Any, dilation: Any, groups: int
) -> None:
    window, filters = kernel.shape[:-2], kernel.shape[-1]
    sizes, multiplier = g.shape[1:-1], filters // groups
    rows = _row_kernel(xp, kernel, sizes[-1])
    for block in _blocks(g.shape[0], 4 * math.prod(sizes) * filters * g.dtype.itemsize):
        part, images = _rows(g[block]), padded[block]
        product = xp.empty_like(part)
        for tap in taps(window):
            xp.multiply(part, rows[tap], out=product)
            split = product.reshape(-1, *sizes, groups, multiplier)
            images[tap_region(tap, sizes, strides, dilation)] += (
                split[..., 0] if multiplier == 1 else split.sum(axis=-1)
            )


# conv_kernel_grad ----------------------------------------------------------------------------------------------------
def _conv_kernel_grad(
    xp: Any, x: Any, g: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    half, dtype = is_half(x), x.dtype
    x, g = widen(xp, x, g)
    channels, filters = shape[-2:]
    if _is_pointwise(shape, padding, groups):
        rows = x[_subsample(strides)].reshape(-1, channels)
        out = xp.matmul(rows.T, g.reshape(-1, filters)).reshape(shape)
    else:
        compute = _depthwise_kernel_grad if channels == 1 and groups > 1 else _unfolded_kernel_grad
        out = compute(xp, pad_spatial(xp, x, padding), g, shape, strides, dilation, groups)
    return out.astype(dtype) if half else out


def _unfolded_kernel_grad(xp: Any, x: Any, g: Any, shape: Any, strides: Any, dilation: Any, groups: int) -> Any:
    window, filters = tuple(shape[:-2]), shape[-1]
    sizes = g.shape[1:-1]
    total = xp.zeros((groups, math.prod(shape[:-1]), filters // groups), dtype=x.dtype)
    for block in _blocks(x.shape[0], math.prod(sizes) * math.prod(window) * x.shape[-1] * x.dtype.itemsize):
        columns = _unfold(xp, x[block], sizes, window, strides, dilation)
        part = g[block].reshape(-1, 1, filters)
        if groups == 1:
            total += xp.matmul(columns.reshape(part.shape[0], -1).T, part[:, 0])
        else:
            total += xp.matmul(_split_groups(columns, groups).transpose(0, 2, 1), _split_groups(part, groups))
    return total.transpose(1, 0, 2).reshape(shape)


def _depthwise_kernel_grad(xp: Any, x: Any, g: Any, shape: Any, strides: Any, dilation: Any, groups: int) -> Any:
    window, filters = tuple(shape[:-2]), shape[-1]
    sizes = g.shape[1:-1]
    out = xp.zeros(shape, dtype=x.dtype)
    for block in _blocks(x.shape[0], 4 * math.prod(sizes) * filters * x.dtype.itemsize):
        images, part = x[block], _rows(g[block])
        rows = part.reshape(-1, part.shape[-1])
        for tap in taps(window):
            product = _tap_rows(xp, images[tap_region(tap, sizes, strides, dilation)], filters // groups)
            sums = xp.einsum("rc,rc->c", product.reshape(rows.shape), rows)
            out[tap][0] += sums.reshape(-1, filters).sum(axis=0)
    return out


# Records -------------------------------------------------------------------------------------------------------------
def _conv_vjp(g: Any, y: Any, x: Any, kernel: Any, **attrs: Any) -> Any:
    return (
        conv_input_grad(g, kernel, shape=x.shape, **attrs),
        conv_kernel_grad(x, g, shape=kernel.shape, **attrs),
    )


def _conv_input_grad_vjp(c: Any, y: Any, g: Any, kernel: Any, *, shape: Any, **attrs: Any) -> Any:
    return conv(c, kernel, **attrs), conv_kernel_grad(c, g, shape=kernel.shape, **attrs)


def _conv_kernel_grad_vjp(c: Any, y: Any, x: Any, g: Any, *, shape: Any, **attrs: Any) -> Any:
    return conv_input_grad(g, c, shape=x.shape, **attrs), conv(x, c, **attrs)


def _geometry(rank: int, stride: int = 1, padding: tuple[int, int] = (0, 0), dilation: int = 1, groups: int = 1) -> Any:
    return {
        "strides": (stride,) * rank,
        "padding": (padding,) * rank,
        "dilation": (dilation,) * rank,
        "groups": groups,
    }


_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 9, 3), (4, 3, 5), _geometry(1, stride=2, padding=(1, 2))),
    ((2, 6, 7, 3), (3, 3, 3, 4), _geometry(2)),
    ((2, 5, 6, 4), (1, 1, 4, 3), _geometry(2, stride=2)),
    ((1, 7, 9, 2), (3, 2, 2, 3), _geometry(2, stride=2, padding=(0, 1), dilation=2)),
    ((2, 5, 6, 4), (3, 3, 2, 6), _geometry(2, padding=(1, 1), groups=2)),
    ((2, 6, 5, 3), (3, 3, 1, 3), _geometry(2, stride=2, padding=(1, 0), groups=3)),
    ((2, 5, 5, 3), (3, 2, 1, 6), _geometry(2, padding=(1, 1), groups=3)),
    ((1, 4, 5, 4, 2), (2, 3, 2, 2, 3), _geometry(3, stride=2, padding=(1, 0))),
)


def _samples(kind: str, scipy_name: str, torch_name: str) -> tuple[Sample, ...]:
    """Each case against SciPy's correlation, and against PyTorch's operator for that rank."""
    samples = []
    for x_shape, k_shape, attrs in _CASES:
        x, k = (Spec(shape, oracles.FLOAT64) for shape in (x_shape, k_shape))
        g_shape = _infer_conv(x, k, **attrs).shape
        shapes = {"conv": (x_shape, k_shape), "input": (g_shape, k_shape), "kernel": (x_shape, g_shape)}[kind]
        extra = {"conv": {}, "input": {"shape": x_shape}, "kernel": {"shape": k_shape}}[kind]
        draws = tuple(normal(*shape) for shape in shapes)
        torch = torch_name.format(rank=len(x_shape) - 2)
        samples.append(Sample(draws, scipy_name, oracles.SCIPY_CONV[kind], {**extra, **attrs}))
        samples.append(Sample(draws, torch, oracles.TORCH_CONV[kind], {**extra, **attrs}))
    return tuple(samples)


conv = define(
    "conv",
    FAMILY,
    infer=_infer_conv,
    numpy=_conv,
    vjp=_conv_vjp,
    samples=_samples("conv", "scipy.signal.correlate", "torch.nn.functional.conv{rank}d"),
    summary="convolution (correlation) of (N, *S, C) with (*K, C / groups, O)",
)
conv_input_grad = define(
    "conv_input_grad",
    FAMILY,
    infer=_infer_input_grad,
    numpy=_conv_input_grad,
    vjp=_conv_input_grad_vjp,
    samples=_samples("input", "scipy.signal.convolve", "torch.nn.grad.conv{rank}d_input"),
    summary="the transposed convolution: the cotangent of conv's input, of the given shape",
)
conv_kernel_grad = define(
    "conv_kernel_grad",
    FAMILY,
    infer=_infer_kernel_grad,
    numpy=_conv_kernel_grad,
    vjp=_conv_kernel_grad_vjp,
    samples=_samples("kernel", "scipy.signal.correlate", "torch.nn.grad.conv{rank}d_weight"),
    summary="the cotangent of conv's kernel, of the given shape",
)
