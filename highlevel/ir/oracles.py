"""How functions by others are called whose layout or signature is far from ours: the `call` of samples.

Each takes the function by others, our operands and our attributes, and gives the result in our layout. Nothing here is
used outside of tests; PyTorch and SciPy are whatever the sample's oracle comes from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .dtypes import float64

FLOAT64 = float64


def _dilate(x: Any, steps: tuple[int, ...], first: int = 0) -> Any:
    """Zeros put between the elements of the axes from `first` on."""
    shape = list(x.shape)
    index = [slice(None)] * x.ndim
    for axis, step in enumerate(steps, start=first):
        shape[axis] = (x.shape[axis] - 1) * step + 1
        index[axis] = slice(None, None, step)
    out = np.zeros(shape, x.dtype)
    out[tuple(index)] = x
    return out


def _padded(x: Any, padding: Any) -> Any:
    return np.pad(x, [(0, 0), *padding, (0, 0)])


def _pairs(channels: int, filters: int, groups: int) -> Any:
    """(input channel, its place in the kernel, filter) for all that are connected."""
    inside, outside = channels // groups, filters // groups
    for group, c, o in itertools.product(range(groups), range(inside), range(outside)):
        yield group * inside + c, c, group * outside + o


# Elementwise ---------------------------------------------------------------------------------------------------------
def per_number(f: Any, x: Any) -> Any:
    """A function of one Python number applied to each; errors of the domain are poles."""

    def one(value: float) -> float:
        try:
            return float(f(value))
        except (ValueError, OverflowError):
            return math.inf

    return np.array([one(value) for value in x.reshape(-1).tolist()], np.float64).astype(x.dtype).reshape(x.shape)


# Convolution by SciPy: one image, one channel and one filter at a time -----------------------------------------------
def _scipy_conv(
    correlate: Any, x: Any, kernel: Any, *, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    x, kernel = _padded(x, padding), _dilate(kernel, dilation)
    step = tuple(slice(None, None, s) for s in strides)
    planes: dict[tuple[int, int], Any] = {}
    for n in range(x.shape[0]):
        for c, k, o in _pairs(x.shape[-1], kernel.shape[-1], groups):
            plane = correlate(x[n, ..., c], kernel[..., k, o], mode="valid")[step]
            planes[n, o] = planes.get((n, o), 0) + plane
    return np.stack([np.stack([planes[n, o] for o in range(kernel.shape[-1])], -1) for n in range(x.shape[0])])


def _scipy_input(
    convolve: Any, g: Any, kernel: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    g, kernel = _dilate(g, strides, first=1), _dilate(kernel, dilation)
    spatial = [size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
    out = np.zeros((shape[0], *spatial, shape[-1]), g.dtype)
    for n in range(shape[0]):
        for c, k, o in _pairs(shape[-1], kernel.shape[-1], groups):
            full = convolve(g[n, ..., o], kernel[..., k, o], mode="full")
            out[(n, *map(slice, full.shape), c)] += full
    inside = (slice(low, low + size) for size, (low, _) in zip(shape[1:-1], padding, strict=True))
    return out[(slice(None), *inside, slice(None))]


def _scipy_kernel(
    correlate: Any, x: Any, g: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    x, g = _padded(x, padding), _dilate(g, strides, first=1)
    region = tuple(slice(0, (size - 1) * d + 1, d) for size, d in zip(shape[:-2], dilation, strict=True))
    out = np.zeros(shape, x.dtype)
    for n in range(x.shape[0]):
        for c, k, o in _pairs(x.shape[-1], shape[-1], groups):
            out[..., k, o] += correlate(x[n, ..., c], g[n, ..., o], mode="valid")[region]
    return out


SCIPY_CONV: dict[str, Callable[..., Any]] = {"conv": _scipy_conv, "input": _scipy_input, "kernel": _scipy_kernel}


# PyTorch: channels first, filters first, symmetric padding -----------------------------------------------------------
def _to_torch(x: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(x))


def _channels_first(x: Any) -> Any:
    return _to_torch(np.moveaxis(x, -1, 1))


def _channels_last(x: Any) -> Any:
    return np.moveaxis(x.numpy(), 1, -1)


def _filters_first(kernel: Any) -> Any:
    return _to_torch(np.moveaxis(kernel, (-1, -2), (0, 1)))


def _torch_conv(f: Any, x: Any, kernel: Any, *, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    x = _channels_first(_padded(x, padding))
    return _channels_last(f(x, _filters_first(kernel), stride=strides, dilation=dilation, groups=groups))


def _torch_input(
    f: Any, g: Any, kernel: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    spatial = [size + low + high for size, (low, high) in zip(shape[1:-1], padding, strict=True)]
    size = (shape[0], shape[-1], *spatial)
    found = f(size, _filters_first(kernel), _channels_first(g), stride=strides, dilation=dilation, groups=groups)
    inside = (slice(low, low + size) for size, (low, _) in zip(shape[1:-1], padding, strict=True))
    return _channels_last(found)[(slice(None), *inside, slice(None))]


def _torch_kernel(
    f: Any, x: Any, g: Any, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    x = _channels_first(_padded(x, padding))
    size = (shape[-1], shape[-2], *shape[:-2])
    found = f(x, size, _channels_first(g), stride=strides, dilation=dilation, groups=groups)
    return np.moveaxis(found.numpy(), (0, 1), (-1, -2))


TORCH_CONV: dict[str, Callable[..., Any]] = {"conv": _torch_conv, "input": _torch_input, "kernel": _torch_kernel}


# Windows -------------------------------------------------------------------------------------------------------------
def numpy_window(reduce: str, fill: float) -> Callable[..., Any]:
    """Pooling by NumPy's own sliding windows, reduced by one of its functions."""

    def call(sliding_window_view: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
        x = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)
        extents = [(size - 1) * d + 1 for size, d in zip(window, dilation, strict=True)]
        views = sliding_window_view(x, extents, axis=tuple(range(1, x.ndim - 1)))
        steps = [slice(None), *(slice(None, None, s) for s in strides), slice(None)]
        gaps = [slice(None, None, d) for d in dilation]
        return getattr(np, reduce)(views[(*steps, *gaps)], axis=tuple(range(-len(window), 0)))

    return call


def torch_max_pool(f: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    pads = [(0, 0), *padding, (0, 0)]
    x = _channels_first(np.pad(x, pads, constant_values=-np.inf))
    return _channels_last(f(x, window, stride=strides, dilation=dilation))


def torch_avg_pool(f: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    x = _channels_first(_padded(x, padding))
    return _channels_last(f(x, window, stride=strides)) * math.prod(window)


def torch_pool_grad(f: Any, x: Any, g: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    """What PyTorch's own differentiation gives for its max pooling."""
    leaf = _to_torch(x).requires_grad_(True)
    pads = [amount for pair in reversed(padding) for amount in pair]
    y = f(_pad_torch(leaf.movedim(-1, 1), pads, float("-inf")), window, stride=strides, dilation=dilation)
    y.backward(_channels_first(g))
    return leaf.grad.numpy()


def _pad_torch(x: Any, pads: list[int], value: float) -> Any:
    import torch

    return torch.nn.functional.pad(x, pads, value=value)


def numpy_window_grad(put_along_axis: Any, x: Any, g: Any, **geometry: Any) -> Any:
    """Each window's cotangent put at the place that NumPy's argmax finds in it."""
    owners, shape = _winners(x, **geometry)
    out = np.zeros((g.size, math.prod(shape)), g.dtype)
    put_along_axis(out, owners.reshape(-1, 1), g.reshape(-1, 1), axis=1)
    return _crop(out.sum(axis=0).reshape(shape), geometry["padding"])


def numpy_window_take(take: Any, x: Any, t: Any, **geometry: Any) -> Any:
    """The values of `t` at the places that NumPy's argmax finds in each window of `x`."""
    owners, _ = _winners(x, **geometry)
    return take(_padded(t, geometry["padding"]), owners)


def _winners(x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> tuple[Any, tuple[int, ...]]:
    """Position of each window's first maximum in the padded array, flattened."""
    padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=-np.inf)
    places = np.arange(padded.size).reshape(padded.shape)

    def windows(array: Any) -> Any:
        extents = [(size - 1) * d + 1 for size, d in zip(window, dilation, strict=True)]
        views = np.lib.stride_tricks.sliding_window_view(array, extents, axis=tuple(range(1, x.ndim - 1)))
        steps = [slice(None), *(slice(None, None, s) for s in strides), slice(None)]
        chosen = views[(*steps, *(slice(None, None, d) for d in dilation))]
        return chosen.reshape(*chosen.shape[: x.ndim], -1)

    best = windows(padded).argmax(axis=-1)
    return np.take_along_axis(windows(places), best[..., None], axis=-1)[..., 0], padded.shape


def _crop(x: Any, padding: Any) -> Any:
    spatial = zip(x.shape[1:-1], padding, strict=True)
    return x[(slice(None), *(slice(low, size - high) for size, (low, high) in spatial), slice(None))]


# Indexing ------------------------------------------------------------------------------------------------------------
def numpy_gather(get: Any, x: Any, indices: Any) -> Any:
    return get(x, tuple(np.moveaxis(indices, -1, 0)))


def numpy_scatter(write: Any, x: Any, indices: Any, updates: Any) -> Any:
    """`ufunc.at` or `__setitem__`, which change their operand."""
    out = x.copy()
    write(out, tuple(np.moveaxis(indices, -1, 0)), updates)
    return out


def jax_bits(bits: Any, key: Any, *, shape: Any) -> Any:
    import jax

    return np.asarray(bits(jax.random.wrap_key_data(jax.numpy.asarray(key), impl="threefry2x32"), shape, "uint32"))


# Ordering ------------------------------------------------------------------------------------------------------------
def numpy_argsort(argsort: Any, x: Any, *, axis: int, descending: bool) -> Any:
    key = -x.astype(np.float64) if descending else x
    return argsort(key, axis=axis, kind="stable").astype(np.int32)


def numpy_sort(sort: Any, x: Any, *, axis: int, descending: bool) -> Any:
    y = sort(x, axis=axis)
    return np.flip(y, axis) if descending else y


def numpy_top_k(argsort: Any, x: Any, *, k: int) -> Any:
    order = argsort(-x.astype(np.float64), axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(x, order, -1), order.astype(np.int32)


def torch_top_k(topk: Any, x: Any, *, k: int) -> Any:
    values, indices = topk(_to_torch(x), k)
    return values.numpy(), indices.numpy().astype(np.int32)


def numpy_cumsum(cumsum: Any, x: Any, *, axis: int, reverse: bool, exclusive: bool) -> Any:
    y = cumsum(np.flip(x, axis) if reverse else x, axis=axis, dtype=x.dtype)
    if exclusive:
        y = np.roll(y, 1, axis)
        y[(slice(None),) * axis + (0,)] = 0
    return np.flip(y, axis) if reverse else y


# Fourier and factorisations ------------------------------------------------------------------------------------------
def complex_fft(transform: Any, re: Any, im: Any, *, inverse: bool) -> Any:
    z = transform(re + 1j * im, axis=-1)
    return z.real.astype(re.dtype), z.imag.astype(re.dtype)


def per_matrix(**options: Any) -> Callable[..., Any]:
    """A function of one matrix applied to each of a batch."""

    def call(f: Any, a: Any) -> Any:
        results = [f(matrix, **options) for matrix in a.reshape(-1, *a.shape[-2:])]
        if isinstance(results[0], tuple):
            return tuple(_stack(a, [result[i] for result in results]) for i in range(len(results[0])))
        return _stack(a, results)

    return call


def _stack(batch: Any, results: Any) -> Any:
    return np.stack(results).reshape(*batch.shape[:-2], *results[0].shape)


def scipy_triangular(solve: Any, a: Any, b: Any, *, lower: bool, transpose: bool, unit_diagonal: bool) -> Any:
    matrices, sides = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
    options = {"lower": lower, "trans": int(transpose), "unit_diagonal": unit_diagonal}
    return _stack(a, [solve(matrix, side, **options) for matrix, side in zip(matrices, sides, strict=True)])


def scipy_lu(lu_factor: Any, a: Any) -> Any:
    """LAPACK's row exchanges turned into a permutation."""

    def one(matrix: Any) -> Any:
        packed, exchanges = lu_factor(matrix)
        order = np.arange(matrix.shape[0], dtype=np.int32)
        for i, j in enumerate(exchanges):
            order[[i, j]] = order[[j, i]]
        return packed, order

    return per_matrix()(one, a)


# Control flow --------------------------------------------------------------------------------------------------------
def scipy_recurrence(lfilter: Any, start: Any, xs: Any, rate: Any) -> Any:
    """y = rate · y + x as a digital filter; its last value, and all of them."""
    ys, _ = lfilter([1.0], [1.0, -float(rate)], xs, axis=0, zi=(rate * start)[None])
    ys = ys.astype(xs.dtype)
    return ys[-1], ys


def numpy_choice(where: Any, condition: Any, x: Any) -> Any:
    return where(condition > 0, np.sin(x) * condition, x * x).astype(x.dtype)
