"""Statistics of activations, and normalisation by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import float32, promote
from highlevel.ir.operators import cast, match, operand

from .arguments import axes_of, floating, normalize_axis
from .core import saturate_cast
from .elementwise import log10
from .reduction import mean, reduce
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
    wide = _compute(x)
    centre = mean(wide, axes, True)
    centred = wide - centre
    variance = mean(centred * centred, axes, True)
    if not keepdims:
        kept = axes_of(axes, x.ndim, "moments")
        shape = tuple(n for a, n in enumerate(x.shape) if a not in kept)
        centre, variance = operators.reshape(centre, shape), operators.reshape(variance, shape)
    return _clipped(centre, x), _clipped(variance, x)


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


@op
def batch_normalization(
    x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> Any:
    """(x − mean) / √(variance + ε) · scale + offset, with one number per index of `axis`."""
    original = floating(x)
    x = _compute(original)
    axes = (normalize_axis(axis, x.ndim, "batch_normalization"),)
    centre, spread = (_along(x, v, axes, "batch_normalization") for v in (mean, variance))
    factor = primitives.rsqrt(spread + epsilon)
    if scale is not None:
        factor = factor * _along(x, scale, axes, "batch_normalization")
    shift = -centre * factor
    if offset is not None:
        shift = shift + _along(x, offset, axes, "batch_normalization")
    return cast(x * factor + shift, original.dtype)


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
    centre = mean(x, axes, True)
    centred = x - centre
    factor = primitives.rsqrt(mean(centred * centred, axes, True) + (EPSILON if epsilon is None else epsilon))
    y = (x if rms_scaling else centred) * factor
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
