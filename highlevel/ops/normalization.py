"""Statistics of activations, and normalisation by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import float32, promote
from highlevel.ir.operators import cast, match, operand

from .arguments import axes_of, floating, normalize_axis
from .core import saturate_cast
from .elementwise import log10
from .reduction import mean, reduce, squared_distance
from .registry import op

EPSILON = 1e-7


def _compute(x: Any) -> Any:
    """The value in float32 or wider."""
    x = floating(x)
    return cast(x, promote(x.dtype, float32))


@op
def moments(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> tuple[Any, Any]:
    """Mean and variance over axes, in two passes and in float32 or wider."""
    x = floating(x)
    reduced = axes_of(axes, x.ndim, "moments")
    centre, variance = _moments(_compute(x), reduced)
    if not keepdims:
        shape = tuple(n for a, n in enumerate(x.shape) if a not in reduced)
        centre, variance = operators.reshape(centre, shape), operators.reshape(variance, shape)
    return _clipped(centre, x), _clipped(variance, x)


def _moments(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean and variance, the axes kept."""
    centre = mean(x, axes, True)
    return centre, squared_distance(x, centre, axes)


def _clipped(value: Any, x: Any) -> Any:
    """In the type of x; statistics that float16 cannot hold become its largest number."""
    return saturate_cast(value, x.dtype)


def _along(x: Any, value: Any, axes: Sequence[int], name: str) -> Any:
    """A parameter with the sizes of some axes, shaped to broadcast along the others."""
    value = operand(value, x.dtype)
    sizes = tuple(x.shape[a] for a in axes)
    if value.ndim == x.ndim and all(n in (1, m) for n, m in zip(value.shape, x.shape, strict=True)):
        return value
    if value.shape != sizes:
        raise ShapeError(
            f"{name}: a parameter does not fit", got=f"{value.spec} for {x.spec}", expected=f"shape {sizes}"
        )
    return operators.reshape(value, tuple(n if a in axes else 1 for a, n in enumerate(x.shape)))


def _standardize(x: Any, centre: Any, spread: Any, epsilon: float, scale: Any = None, offset: Any = None) -> Any:
    """(x − centre) / √(spread + ε) · scale + offset, with parameters of one shape, that of x or 1 along each axis.

    All its gradients are made of two totals, of g and of g · (x − centre): they are taken in one pass. (Of g · x it
    would be the same with the mean taken off later – and cancel, where the mean is large.)
    """
    present = [operand for operand in (scale, offset) if operand is not None]
    axes = tuple(a for a, (n, m) in enumerate(zip(x.shape, centre.shape, strict=True)) if n != m)

    def function(*_: Any) -> tuple[Any, Any]:
        inverse = primitives.rsqrt(spread + epsilon)
        factor = inverse if scale is None else inverse * scale

        def gradient(g: Any) -> list[Any]:
            total, moment = (
                operators.reshape(primitives.reduce_sum(v, axes=axes), centre.shape) for v in (g, g * (x - centre))
            )
            by_scale = inverse * moment
            found = [g * factor, -(factor * total), -0.5 * (inverse * by_scale * factor)]
            return found + [v for v, p in ((by_scale, scale), (total, offset)) if p is not None]

        if not present:
            return (x - centre) * factor, gradient
        shift = -centre * factor
        return x * factor + (shift if offset is None else shift + offset), gradient

    return control.custom_gradient(function)(x, centre, spread, *present)


@op
def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> Any:
    """(x − mean) / √(variance + ε) · scale + offset, with one number per index of `axis`."""
    original = floating(x)
    x = _compute(original)
    axes = (normalize_axis(axis, x.ndim, "batch_normalization"),)
    parameters = [
        None if value is None else _along(x, value, axes, "batch_normalization")
        for value in (mean, variance, scale, offset)
    ]
    shape = tuple(n if a in axes else 1 for a, n in enumerate(x.shape))
    centre, spread, scale, offset = (None if p is None else operators.broadcast_to(p, shape) for p in parameters)
    return cast(_standardize(x, centre, spread, epsilon, scale, offset), original.dtype)


@op
def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None, **kwargs: Any
) -> Any:
    """(x − mean) / √(variance + ε) · γ + β, with mean and variance of each row along `axis`."""
    rms_scaling = kwargs.pop("rms_scaling", False)
    if kwargs:
        raise ArgumentError("layer_normalization: unknown argument", got=", ".join(kwargs))
    original = floating(x)
    x = _compute(original)
    axes = axes_of(axis, x.ndim, "layer_normalization")
    centre, spread = _moments(x, axes)
    epsilon = EPSILON if epsilon is None else epsilon
    y = x * primitives.rsqrt(spread + epsilon) if rms_scaling else _standardize(x, centre, spread, epsilon)
    if gamma is not None:
        y = y * _along(x, gamma, axes, "layer_normalization")
    if beta is not None and not rms_scaling:
        y = y + _along(x, beta, axes, "layer_normalization")
    return cast(y, original.dtype)


@op
def rms_normalization(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    """x / √(mean(x²) + ε) · scale, with the mean of each row along `axis`."""
    original = floating(x)
    x = _compute(original)
    x = operators.reshape(x, 1) if x.ndim == 0 else x
    axes = axes_of(axis, x.ndim, "rms_normalization")
    y = x * primitives.rsqrt(mean(x * x, axes, True) + (EPSILON if epsilon is None else epsilon))
    if scale is not None:
        y = y * operand(scale, x.dtype)
    return cast(y, original.dtype)


@op
def normalize(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """x / ‖x‖ along an axis, in the norm of that order; ε is the smallest norm divided by."""
    if not isinstance(order, int) or order < 1:
        raise ArgumentError("normalize: the order is not a positive integer", got=order)
    x = floating(x)
    x = operators.reshape(x, 1) if x.ndim == 0 else x
    least = EPSILON if epsilon is None else epsilon
    if order == 2:
        squares = reduce(primitives.reduce_sum, x * x, axis, True, "normalize")
        safe = primitives.maximum(*match(squares, least * least))  # so that a row of zeros has finite slopes
        return x * primitives.rsqrt(safe)
    powers = reduce(primitives.reduce_sum, operators.power(primitives.abs(x), float(order)), axis, True, "normalize")
    safe = primitives.maximum(*match(powers, least**order))
    return x / operators.power(safe, 1.0 / order)


@op
def psnr(x1: Any, x2: Any, max_val: float) -> Any:
    """Peak signal-to-noise ratio in decibels: 20·log₁₀(max_val) − 10·log₁₀(mean squared error)."""
    a, b = floating(x1), floating(x2)
    if a.shape != b.shape:
        raise ShapeError("psnr: shapes differ", got=f"{a.spec} and {b.spec}", expected="one shape")
    gap = a - b
    return 20.0 * log10(operand(max_val, gap.dtype)) - 10.0 * log10(mean(gap * gap))
