"""Activation functions.

Where a formula has a kink, the slope there is the one that Keras and PyTorch take (0 for relu at 0). Smooth ones are
written so that nothing overflows and all derivatives are right everywhere.
"""

from __future__ import annotations

import math
from typing import Any

from highlevel.errors import ShapeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import weak_value
from highlevel.ir.operators import cast, operand

from .arguments import axes_of, floating, normalize_axis
from .movement import cut
from .reduction import finite_or_zero
from .registry import op

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _choose(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b; Python numbers stand for arrays of them."""
    like = b if isinstance(a, operators.Scalar) else a
    filled = [operators.full(like.shape, weak_value(v, like.dtype), like.dtype)
              if isinstance(v, operators.Scalar) else v for v in (a, b)]  # fmt: skip
    return primitives.select(condition, *filled)


# Piecewise -------------------------------------------------------------------------------------------------------
@op
def relu(x: Any) -> Any:
    """max(x, 0)."""
    x = operand(x)
    zero = operators.zeros_like(x)
    return primitives.select(primitives.less_equal(x, zero), zero, x)


@op
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6)."""
    return _between(operand(x), 0, 6)


def _between(x: Any, low: float, high: float) -> Any:
    """x clipped, with slope 0 at both ends; NaN stays."""
    return _choose(operators.less_equal(x, low), low, _choose(operators.less_equal(high, x), high, x))


@op
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x, times `negative_slope` where it is negative."""
    x = floating(x)
    return _choose(operators.less(0.0, x), x, x * negative_slope)


@op
def hard_sigmoid(x: Any) -> Any:
    """x/6 + 1/2, clipped to 0 … 1."""
    return _between(floating(x) / 6.0 + 0.5, 0.0, 1.0)


@op
def hard_silu(x: Any) -> Any:
    """x · hard_sigmoid(x)."""
    x = floating(x)
    return x * hard_sigmoid(x)


@op
def hard_swish(x: Any) -> Any:
    """x · hard_sigmoid(x)."""
    return hard_silu(x)


@op
def hard_tanh(x: Any) -> Any:
    """x clipped to −1 … 1."""
    return _between(floating(x), -1.0, 1.0)


@op
def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x, and 0 where |x| ≤ threshold."""
    x = floating(x)
    return _choose(operators.less(threshold, primitives.abs(x)), x, 0.0)


@op
def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved towards 0 by the threshold, as far as 0."""
    x = floating(x)
    below = _choose(operators.less(x, -threshold), x + threshold, 0.0 * x)
    return _choose(operators.less(threshold, x), x - threshold, below)


@op
def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x where it exceeds the threshold, elsewhere the default."""
    x = floating(x)
    return _choose(operators.less(threshold, x), x, float(default_value))


@op
def sparse_sigmoid(x: Any) -> Any:
    """(x + 1)/2, clipped to 0 … 1."""
    return _between((floating(x) + 1.0) * 0.5, 0.0, 1.0)


@op
def sparse_plus(x: Any) -> Any:
    """0 below −1, (x + 1)²/4 up to 1, x above."""
    x = floating(x)
    middle = (x + 1.0) * (x + 1.0) * 0.25
    return _choose(operators.less_equal(x, -1.0), 0.0, _choose(operators.less(x, 1.0), middle, x))


# Smooth ----------------------------------------------------------------------------------------------------------
@op
def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ)."""
    return control.call("sigmoid", _sigmoid, floating(x), rule=lambda g, y, x: (g * y * (1.0 - y),))


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + primitives.exp(-x))  # where e⁻ˣ overflows the quotient is 0, as it should


@op
def log_sigmoid(x: Any) -> Any:
    """log(1 / (1 + e⁻ˣ))."""
    return -softplus(-floating(x))


@op
def softplus(x: Any) -> Any:
    """log(1 + eˣ)."""
    return control.call("softplus", _softplus, floating(x), rule=lambda g, y, x: (g * sigmoid(x),))


def _softplus(x: Any) -> Any:
    return primitives.maximum(x, operators.zeros_like(x)) + primitives.log1p(primitives.exp(-primitives.abs(x)))


@op
def silu(x: Any) -> Any:
    """x · sigmoid(x)."""
    x = floating(x)
    return x * sigmoid(x)


@op
def swish(x: Any) -> Any:
    """x · sigmoid(x)."""
    return silu(x)


@op
def gelu(x: Any, approximate: bool = True) -> Any:
    """x·Φ(x), with the normal distribution function Φ or its approximation by tanh."""
    x = floating(x)
    if approximate:
        slope = math.sqrt(2.0 / math.pi)
        return 0.5 * x * (1.0 + primitives.tanh(x * (slope + slope * 0.044715 * (x * x))))
    return 0.5 * x * (1.0 + primitives.erf(x * math.sqrt(0.5)))


@op
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, α(eˣ − 1) below."""
    x = floating(x)
    return _choose(operators.less(0.0, x), x, alpha * primitives.expm1(_choose(operators.less(0.0, x), 0.0, x)))


@op
def selu(x: Any) -> Any:
    """Scaled elu, which keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


@op
def celu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, α(e^(x/α) − 1) below."""
    x = floating(x)
    return _choose(operators.less(0.0, x), x, alpha * primitives.expm1(_choose(operators.less(0.0, x), 0.0, x) / alpha))


@op
def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    x = floating(x)
    return x / (1.0 + primitives.abs(x))


@op
def squareplus(x: Any, b: float = 4) -> Any:
    """(x + √(x² + b)) / 2."""
    x = floating(x)
    return (x + primitives.sqrt(x * x + float(b))) * 0.5


@op
def tanh_shrink(x: Any) -> Any:
    """x − tanh(x)."""
    x = floating(x)
    return x - primitives.tanh(x)


@op
def glu(x: Any, axis: int = -1) -> Any:
    """The first half of an axis times the sigmoid of the second."""
    x = floating(x)
    axis = normalize_axis(axis, x.ndim, "glu")
    size = x.shape[axis]
    if size % 2:
        raise ShapeError("glu: the axis has no halves", got=x.spec, expected=f"an even size of axis {axis}")
    return cut(x, axis, 0, size // 2) * sigmoid(cut(x, axis, size // 2, size))


# Of whole rows ---------------------------------------------------------------------------------------------------
def keep(y: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """The reduced axes put back with size 1."""
    return operators.reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape)))


def centred(x: Any, axes: tuple[int, ...]) -> Any:
    """x less its maximum, by which no result may depend: no gradient flows through the maximum."""
    top = finite_or_zero(primitives.reduce_max(control.stop_gradient(x), axes=axes))
    return x - keep(top, x, axes)


@op
def softmax(x: Any, axis: Any = -1) -> Any:
    """eˣ / Σ eˣ along an axis (or several). Exactly 0 where x is −∞."""
    x = floating(x)
    return control.call("softmax", _softmax, x, rule=_softmax_rule, axes=axes_of(axis, x.ndim, "softmax"))


def _softmax(x: Any, *, axes: tuple[int, ...]) -> Any:
    e = primitives.exp(centred(x, axes))
    return e / keep(primitives.reduce_sum(e, axes=axes), x, axes)


def _softmax_rule(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return (y * (g - keep(primitives.reduce_sum(g * y, axes=axes), x, axes)),)


@op
def log_softmax(x: Any, axis: Any = -1) -> Any:
    """x − log Σ eˣ along an axis (or several)."""
    x = floating(x)
    return control.call(
        "log_softmax", _log_softmax, x, rule=_log_softmax_rule, axes=axes_of(axis, x.ndim, "log_softmax")
    )


def _log_softmax(x: Any, *, axes: tuple[int, ...]) -> Any:
    x = centred(x, axes)
    return x - keep(primitives.log(primitives.reduce_sum(primitives.exp(x), axes=axes)), x, axes)


def _log_softmax_rule(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return (g - primitives.exp(y) * keep(primitives.reduce_sum(g, axes=axes), x, axes),)


@op
def sparsemax(x: Any, axis: int = -1) -> Any:
    """The nearest point to x on the simplex: like softmax, with exact zeros (Martins and Astudillo, 2016)."""
    x = floating(x)
    axis = normalize_axis(axis, x.ndim, "sparsemax")
    ordered = primitives.sort(x, axis=axis, descending=True)
    running = primitives.cumsum(ordered, axis=axis, reverse=False, exclusive=False)
    rank = primitives.iota(shape=x.shape, axis=axis, dtype=x.dtype) + 1.0
    support = cast(primitives.less((running - 1.0) / rank, ordered), x.dtype)
    size = primitives.reduce_sum(support, axes=(axis,))
    level = (primitives.reduce_sum(ordered * support, axes=(axis,)) - 1.0) / size
    above = x - keep(level, x, (axis,))
    return _choose(operators.less_equal(above, 0.0), 0.0, above)
