"""Reductions over sliding windows of `(N, *S, C)`: what pooling is made of.

`window_max` picks one element per window. Its derivative puts a cotangent back there (`window_max_grad`), and the
derivative of that reads there (`window_max_take`), so the three are closed under differentiation. The first maximum in
row-major order of the window wins a tie; padding never wins; NaN counts as largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from highlevel.errors import DTypeError, ShapeError

from .. import oracles
from ..primitive import define
from ..sample import Sample, distinct, normal
from ..spec import Spec
from .movement import pad, slice_
from .spatial import (
    check_geometry,
    extents,
    inner_region,
    is_half,
    output_sizes,
    pad_spatial,
    tap_region,
    taps,
    widen,
)

FAMILY = "window"


# Shapes --------------------------------------------------------------------------------------------------------------
def _infer(name: str, x: Spec, window: Any, strides: Any, padding: Any, dilation: Any) -> Spec:
    if x.ndim < 3:
        raise ShapeError(
            f"{name}: no spatial axis", got=x, expected="(batch, *spatial, channels)", hint="x[None] adds a batch axis"
        )
    if x.dtype.is_bool:
        raise DTypeError(f"{name}: wrong data type", got=x, expected="numbers", hint="cast the operand first")
    check_geometry(name, x.ndim - 2, strides, padding, dilation, window)
    for (low, high), extent in zip(padding, extents(window, dilation), strict=True):
        if max(low, high) >= extent:
            raise ShapeError(
                f"{name}: windows that hold nothing but padding",
                got=f"padding {tuple(padding)} for windows of {tuple(extents(window, dilation))}",
                expected="padding smaller than the window",
            )
    sizes = output_sizes(name, x, window, strides, padding, dilation)
    return x.with_shape((x.shape[0], *sizes, x.shape[-1]))


def _infer_max(x: Spec, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Spec:
    return _infer("window_max", x, window, strides, padding, dilation)


def _infer_max_grad(x: Spec, g: Spec, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Spec:
    y = _infer("window_max_grad", x, window, strides, padding, dilation)
    if g.shape != y.shape:
        raise ShapeError("window_max_grad: the cotangent does not fit", got=g, expected=f"shape {y.shape}")
    return g.with_shape(x.shape)


def _infer_max_take(x: Spec, t: Spec, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Spec:
    y = _infer("window_max_take", x, window, strides, padding, dilation)
    if t.shape != x.shape:
        raise ShapeError("window_max_take: shapes differ", got=f"{x} and {t}", expected="operands of one shape")
    return t.with_shape(y.shape)


def _infer_sum(x: Spec, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Spec:
    return _infer("window_sum", x, window, strides, padding, dilation)


# Meaning -------------------------------------------------------------------------------------------------------------
def _lowest(xp: Any, x: Any) -> Any:
    """What never wins a maximum: −∞, or the smallest integer."""
    return xp.iinfo(x.dtype).min if x.dtype.kind in "iu" else -float("inf")


def _reduce_windows(
    xp: Any, combine: Any, x: Any, fill: Any, window: Any, strides: Any, padding: Any, dilation: Any
) -> Any:
    """One spatial axis after the other: a window is the product of its axes."""
    x = pad_spatial(xp, x, padding, fill)
    for axis, (size, stride, d) in enumerate(zip(window, strides, dilation, strict=True), start=1):
        count = (x.shape[axis] - (size - 1) * d - 1) // stride + 1
        before = (slice(None),) * axis
        total = None
        for position in range(size):
            start = position * d
            part = x[(*before, slice(start, start + (count - 1) * stride + 1, stride))]
            total = part if total is None else combine(total, part)
        x = total
    return x


def _max(xp: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    return _reduce_windows(xp, xp.maximum, x, _lowest(xp, x), window, strides, padding, dilation)


def _sum(xp: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    (wide,) = widen(xp, x)
    y = _reduce_windows(xp, xp.add, wide, 0, window, strides, padding, dilation)
    return y.astype(x.dtype) if is_half(x) else y


def _hits(
    xp: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any
) -> Iterator[tuple[tuple[slice, ...], Any]]:
    """For each position in a window: where its elements are, and which of them are their window's maximum."""
    y = _max(xp, x, window=window, strides=strides, padding=padding, dilation=dilation)
    sizes, lowest = y.shape[1:-1], _lowest(xp, x)
    padded = pad_spatial(xp, x, padding, lowest)
    real = pad_spatial(xp, xp.ones((1, *x.shape[1:-1], 1), dtype=bool), padding, False)
    has_nan, could_be_padding = bool((y != y).any()), bool((y == lowest).any())
    undecided = xp.ones(y.shape, dtype=bool)
    for tap in taps(window):
        region = tap_region(tap, sizes, strides, dilation)
        part = padded[region]
        hit = part == y
        if has_nan:
            hit |= part != part
        if could_be_padding:
            hit &= real[region]
        hit &= undecided
        undecided ^= hit
        yield region, hit


def _max_grad(xp: Any, x: Any, g: Any, **geometry: Any) -> Any:
    padding = geometry["padding"]
    (wide,) = widen(xp, g)
    zero = wide.dtype.type(0)
    out = pad_spatial(xp, xp.zeros(x.shape, dtype=wide.dtype), padding)
    for image in range(x.shape[0]):  # one at a time stays in the cache
        only = slice(image, image + 1)
        for region, hit in _hits(xp, x[only], **geometry):
            out[only][region] += xp.where(hit, wide[only], zero)
    out = out[inner_region(x.shape, padding)]
    return out.astype(g.dtype) if is_half(g) else out


def _max_take(xp: Any, x: Any, t: Any, **geometry: Any) -> Any:
    padded = pad_spatial(xp, t, geometry["padding"])
    out: Any = t.dtype.type(0)
    for region, hit in _hits(xp, x, **geometry):
        out = xp.where(hit, padded[region], out)
    return out


# Derivatives ---------------------------------------------------------------------------------------------------------
def _max_vjp(g: Any, y: Any, x: Any, **geometry: Any) -> Any:
    return (window_max_grad(x, g, **geometry),)


def _max_grad_vjp(c: Any, y: Any, x: Any, g: Any, **geometry: Any) -> Any:
    return None, window_max_take(x, c, **geometry)


def _max_take_vjp(c: Any, y: Any, x: Any, t: Any, **geometry: Any) -> Any:
    return None, window_max_grad(x, c, **geometry)


def _sum_vjp(g: Any, y: Any, x: Any, *, window: Any, strides: Any, padding: Any, dilation: Any) -> Any:
    """Zeros between the cotangents, a margin around them, and the same window at stride 1 over that."""
    ones, zeros = (1,) * len(window), ((0, 0),) * len(window)
    low, high = [0], [0]
    for size, count, extent, stride, (before, _) in zip(
        x.shape[1:-1], g.shape[1:-1], extents(window, dilation), strides, padding, strict=True
    ):
        low.append(extent - 1 - before)
        high.append(max(size + before - ((count - 1) * stride + 1), 0))
    spread = pad(
        g,
        low=(*low, 0),
        high=(*high, 0),
        interior=(0, *(stride - 1 for stride in strides), 0),
        value=0.0,
    )
    summed = window_sum(spread, window=window, strides=ones, padding=zeros, dilation=dilation)
    if summed.shape != x.shape:
        summed = slice_(summed, start=(0,) * x.ndim, stop=x.shape, step=(1,) * x.ndim)
    return (summed,)


def _case(window: Any, strides: Any, padding: Any = None, dilation: Any = None) -> dict[str, Any]:
    rank = len(window)
    return {
        "window": window,
        "strides": strides,
        "padding": padding or ((0, 0),) * rank,
        "dilation": dilation or (1,) * rank,
    }


_CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 9, 3), _case((3,), (2,), ((1, 1),))),
    ((2, 6, 8, 3), _case((2, 2), (2, 2))),
    ((2, 6, 7, 2), _case((3, 2), (1, 2), ((1, 0), (0, 1)))),
    ((1, 4, 5, 4, 2), _case((2, 3, 2), (2, 1, 2), ((0, 1), (1, 1), (0, 0)))),
)
_DILATED = ((1, 8, 7, 2), _case((3, 2), (2, 1), ((1, 1), (0, 0)), (2, 3)))
_NUMPY_WINDOWS = "numpy.lib.stride_tricks.sliding_window_view"

window_max = define(
    "window_max",
    FAMILY,
    infer=_infer_max,
    numpy=_max,
    vjp=_max_vjp,
    samples=(
        *(
            Sample((distinct(*s),), _NUMPY_WINDOWS, oracles.numpy_window("max", -float("inf")), attrs)
            for s, attrs in (*_CASES, _DILATED)
        ),
        *(
            Sample((distinct(*s),), f"torch.nn.functional.max_pool{len(s) - 2}d", oracles.torch_max_pool, attrs)
            for s, attrs in (*_CASES, _DILATED)
        ),
    ),
    summary="the largest element of each window; padding never wins",
)


def _two(x_shape: tuple[int, ...], attrs: dict[str, Any], second: str) -> tuple[Any, ...]:
    y = _infer_max(Spec(x_shape, oracles.FLOAT64), **attrs)
    return distinct(*x_shape), normal(*(y.shape if second == "y" else x_shape))


window_max_grad = define(
    "window_max_grad",
    FAMILY,
    infer=_infer_max_grad,
    numpy=_max_grad,
    vjp=_max_grad_vjp,
    samples=(
        *(
            Sample(_two(s, attrs, "y"), "numpy.put_along_axis", oracles.numpy_window_grad, attrs)
            for s, attrs in (*_CASES, _DILATED)
        ),
        *(
            Sample(_two(s, attrs, "y"), f"torch.nn.functional.max_pool{len(s) - 2}d", oracles.torch_pool_grad, attrs)
            for s, attrs in (*_CASES, _DILATED)
        ),
    ),
    summary="cotangents of windows put where x is largest",
)
window_max_take = define(
    "window_max_take",
    FAMILY,
    infer=_infer_max_take,
    numpy=_max_take,
    vjp=_max_take_vjp,
    samples=tuple(
        Sample(_two(s, attrs, "x"), "numpy.take", oracles.numpy_window_take, attrs) for s, attrs in (*_CASES, _DILATED)
    ),
    summary="the value of t where x is largest in its window",
)
window_sum = define(
    "window_sum",
    FAMILY,
    infer=_infer_sum,
    numpy=_sum,
    vjp=_sum_vjp,
    samples=(
        *(
            Sample((normal(*s),), _NUMPY_WINDOWS, oracles.numpy_window("sum", 0.0), attrs)
            for s, attrs in (*_CASES, _DILATED)
        ),
        *(
            Sample((normal(*s),), f"torch.nn.functional.avg_pool{len(s) - 2}d", oracles.torch_avg_pool, attrs)
            for s, attrs in _CASES
        ),
    ),
    summary="the sum of each window",
)
