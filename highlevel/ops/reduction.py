"""Reductions: sums, means, extremes, and their relatives. `axis` is an integer, a tuple, or None for all axes."""

from __future__ import annotations

import builtins
import math
from typing import Any

from highlevel.errors import ShapeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import DType, bool_, int32, uint32, weak_value
from highlevel.ir.operators import cast, match, operand

from .arguments import axes_of, floating, normalize_axis
from .registry import op


def _keep(y: Any, x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    return operators.reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else y


def reduce(primitive: Any, x: Any, axis: Any, keepdims: bool, name: str) -> Any:
    """A reducing primitive by the user's axes."""
    axes = axes_of(axis, x.ndim, name)
    return _keep(primitive(x, axes=axes), x, axes, keepdims)


def _accumulator(dtype: DType) -> DType:
    """The type of sums of small integers: 32 bits wide."""
    if dtype.is_integer and dtype.size_bytes < 4:
        return uint32 if dtype.kind == "uint" else int32
    return int32 if dtype.is_bool else dtype


def count_of(x: Any, axis: Any, name: str) -> int:
    """How many elements are reduced into one."""
    return math.prod(x.shape[a] for a in axes_of(axis, x.ndim, name))


def _wide(x: Any) -> Any:
    """Half types in float32, in which sums do not overflow."""
    return cast(x, "float32") if x.dtype.is_float and x.dtype.size_bytes == 2 else x


@op
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum; small integers add up in 32 bits."""
    x = operand(x)
    return reduce(primitives.reduce_sum, cast(x, _accumulator(x.dtype)), axis, keepdims, "sum")


@op
def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """The product; small integers multiply in 32 bits."""
    x = operand(x)
    return reduce(primitives.reduce_prod, cast(x, dtype or _accumulator(x.dtype)), axis, keepdims, "prod")


@op
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean; of integers as float32."""
    x = floating(x)
    count = count_of(x, axis, "mean")
    total = reduce(primitives.reduce_sum, _wide(x), axis, keepdims, "mean")
    return cast(total * (1.0 / count) if count else total / 0.0, x.dtype)


@op
def max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The largest value; NaN if there is one. `initial` is a further candidate."""
    return _extreme(primitives.reduce_max, primitives.maximum, x, axis, keepdims, initial, "max")


@op
def min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """The smallest value; NaN if there is one. `initial` is a further candidate."""
    return _extreme(primitives.reduce_min, primitives.minimum, x, axis, keepdims, initial, "min")


def _extreme(reducer: Any, choose: Any, x: Any, axis: Any, keepdims: bool, initial: Any, name: str) -> Any:
    x = operand(x)
    if initial is None:
        return reduce(reducer, x, axis, keepdims, name)
    if count_of(x, axis, name) == 0:
        axes = axes_of(axis, x.ndim, name)
        shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes)
        return operators.broadcast_to(operand(initial, x.dtype), shape)
    return choose(*match(reduce(reducer, x, axis, keepdims, name), initial, dtype=x.dtype))


@op
def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest value; NaN if there is one."""
    return max(x, axis, keepdims)


@op
def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest value; NaN if there is one."""
    return min(x, axis, keepdims)


@op
def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest value minus the smallest."""
    return operators.subtract(max(x, axis, keepdims), min(x, axis, keepdims))


@op
def all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all are true (not zero)."""
    return ~any(~cast(x, bool_), axis, keepdims)


@op
def any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any is true (not zero)."""
    counted = reduce(primitives.reduce_sum, cast(cast(x, bool_), int32), axis, keepdims, "any")
    return cast(counted, bool_)


@op
def count_nonzero(x: Any, axis: Any = None) -> Any:
    """How many values are not zero."""
    return reduce(primitives.reduce_sum, cast(cast(x, bool_), int32), axis, False, "count_nonzero")


@op
def var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The variance: the mean of squared distances from the mean, in two passes, so that large means cost no digits."""
    x = floating(x)
    wide = _wide(x)
    axes = axes_of(axis, x.ndim, "var")
    found = squared_distance(wide, mean(wide, axes, True), axes)
    return cast(found if keepdims else operators.reshape(found, _left(x.shape, axes)), x.dtype)


def _left(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def squared_distance(x: Any, centre: Any, axes: tuple[int, ...], counted: Any = None, count: Any = None) -> Any:
    """The mean of (x − centre)² over axes, where `centre` is the mean of x; both have the axes with size 1.

    counted, count: which elements count (bool, like x), and how many they are for each result; all of them without

    By the mean it has no derivative, since distances from it add up to zero: that is not left to be found out by adding
    them up in each step.
    """
    number = math.prod(x.shape[a] for a in axes)

    def shared(total: Any) -> Any:
        if count is not None:
            return total / count
        return total * (1.0 / number) if number else total / 0.0

    def function(_: Any) -> tuple[Any, Any]:
        gap = x - centre
        if counted is not None:
            gap = primitives.select(counted, gap, operators.zeros_like(gap))
        total = operators.reshape(primitives.reduce_sum(gap * gap, axes=axes), centre.shape)
        return shared(total), lambda g: 2.0 * shared(g) * gap

    return control.custom_gradient(function)(x)


@op
def std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The standard deviation: the square root of the variance."""
    return primitives.sqrt(var(x, axis, keepdims))


@op
def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
    """The weighted mean; a vector of weights belongs to the axis."""
    x = floating(x)
    if weights is None:
        return mean(x, axis)
    w = floating(weights)
    if w.shape != x.shape:
        axes = axes_of(axis, x.ndim, "average")
        if axis is None or w.shape != tuple(x.shape[a] for a in axes):
            raise ShapeError(
                "average: the weights do not fit", got=f"weights {w.spec} for {x.spec}, axis={axis}",
                expected="the shape of x, or its sizes along the axis",
            )  # fmt: skip
        w = operators.reshape(w, tuple(n if a in axes else 1 for a, n in enumerate(x.shape)))
    x, w = match(x, w, operator="average")
    return sum(x * w, axis) / sum(w, axis)


@op
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(Σ exp(x)), without overflow on the way; −∞ where all are −∞."""
    x = floating(x)
    axes = axes_of(axis, x.ndim, "logsumexp")
    if not axes:
        return x
    return _keep(control.call("logsumexp", _logsumexp, x, rule=_logsumexp_rule, axes=axes), x, axes, keepdims)


def finite_or_zero(x: Any) -> Any:
    return primitives.select(primitives.isfinite(x), x, operators.zeros_like(x))


def _logsumexp(x: Any, *, axes: tuple[int, ...]) -> Any:
    top = finite_or_zero(primitives.reduce_max(x, axes=axes))
    total = primitives.reduce_sum(primitives.exp(x - _keep(top, x, axes, True)), axes=axes)
    return primitives.log(total) + top


def _logsumexp_rule(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    share = primitives.exp(x - _keep(finite_or_zero(y), x, axes, True))
    return (_keep(g, x, axes, True) * share,)


# Running ---------------------------------------------------------------------------------------------------------
@op
def cumsum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running sums along an axis, or of all elements in order."""
    x, axis = _running(x, axis, dtype, "cumsum")
    return primitives.cumsum(x, axis=axis, reverse=False, exclusive=False)


@op
def cumprod(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running products along an axis, or of all elements in order."""
    x, axis = _running(x, axis, dtype, "cumprod")
    length, distance = x.shape[axis], 1
    while distance < length:  # after each round an element is the product of twice as many (Hillis and Steele, 1986)
        shape = tuple(distance if a == axis else n for a, n in enumerate(x.shape))
        ones = operators.full(shape, weak_value(1, x.dtype), x.dtype)
        kept = x[(builtins.slice(None),) * axis + (builtins.slice(0, length - distance),)]
        x = x * primitives.concatenate(ones, kept, axis=axis)
        distance *= 2
    return x


def _running(x: Any, axis: Any, dtype: Any, name: str) -> tuple[Any, int]:
    x = operand(x)
    x = cast(x, dtype or (int32 if x.dtype.is_bool else x.dtype))
    if axis is None:
        return operators.reshape(x, -1), 0
    return x, normalize_axis(axis, x.ndim, name)


# Without NaN -----------------------------------------------------------------------------------------------------
def without_nan(x: Any, value: float) -> Any:
    """NaN replaced by a number."""
    return primitives.select(primitives.not_equal(x, x), operators.full(x.shape, value, x.dtype), x)


def _numbers(x: Any) -> Any:
    """1 for numbers, 0 for NaN, in float32 or wider."""
    return cast(primitives.equal(x, x), "float32" if x.dtype.size_bytes < 4 else x.dtype)


@op
def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum of what is not NaN."""
    x = operand(x)
    return sum(without_nan(x, 0.0) if x.dtype.is_float else x, axis, keepdims)


@op
def nanprod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The product of what is not NaN."""
    x = operand(x)
    return prod(without_nan(x, 1.0) if x.dtype.is_float else x, axis, keepdims)


@op
def nancumsum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running sums, NaN counting as 0."""
    x = operand(x)
    return cumsum(without_nan(x, 0.0) if x.dtype.is_float else x, axis, dtype)


@op
def nancumprod(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Running products, NaN counting as 1."""
    x = operand(x)
    return cumprod(without_nan(x, 1.0) if x.dtype.is_float else x, axis, dtype)


def _nan_extreme(x: Any, axis: Any, keepdims: bool, choose: Any, empty: float) -> Any:
    x = operand(x)
    if not x.dtype.is_float:
        return choose(x, axis, keepdims)
    best = choose(without_nan(x, empty), axis, keepdims)
    none_left = ~any(primitives.equal(x, x), axis, keepdims)
    return primitives.select(none_left, operators.full(best.shape, math.nan, best.dtype), best)


@op
def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest value that is not NaN; NaN if there is none."""
    return _nan_extreme(x, axis, keepdims, max, -math.inf)


@op
def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest value that is not NaN; NaN if there is none."""
    return _nan_extreme(x, axis, keepdims, min, math.inf)


@op
def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean of what is not NaN."""
    x = floating(x)
    wide = _wide(x)
    return cast(nansum(wide, axis, keepdims) / sum(_numbers(wide), axis, keepdims), x.dtype)


@op
def nanvar(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The variance of what is not NaN."""
    x = floating(x)
    wide = _wide(x)
    centred = wide - nanmean(wide, axis, True)
    return cast(nanmean(centred * centred, axis, keepdims), x.dtype)


@op
def nanstd(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The standard deviation of what is not NaN."""
    return primitives.sqrt(nanvar(x, axis, keepdims))
