"""erf, erfinv, lgamma and digamma as branch-free formulas on registers: see vecmath.py.

Next to the zeros of lgamma and digamma on the negative axis the error is that of a difference: small against the
terms, not against the result. (Python's math.lgamma does the same.)
"""

from __future__ import annotations

import math

from . import polynomials as table
from .registers import Real, axpy, fma, polynomial, two_product, where
from .trigonometry import turned
from .vecmath import INF, NAN, exp_of_moderate, in_float64, log, odd

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
LOG_PI = math.log(math.pi)


def _ratio(x: Real, top: tuple[float, ...], bottom: tuple[float, ...]) -> Real:
    return polynomial(x, top) / polynomial(x, bottom)


def erf(x: Real) -> Real:
    """A polynomial below 1, 1 − erfc(x) above: exp of a polynomial (float32), or exp(−x²) times a ratio (float64)."""
    magnitude, z = x.abs(), x * x
    small = axpy(x, polynomial(z, table.ERF64 if x.is_double else table.ERF32), x)
    if x.is_double:
        bounded = where(magnitude > 6.0, 6.0, magnitude)
        erfc = exp_of_moderate(-(bounded * bounded)) * _ratio(bounded, table.ERFC64_TOP, table.ERFC64_BOTTOM)
    else:
        erfc = exp_of_moderate(polynomial(where(magnitude > 4.0, 4.0, magnitude), table.ERFC32))
    return where(magnitude < 1.0, small, (1.0 - erfc).with_sign_of(x))


@odd
@in_float64
def erfinv(x: Real) -> Real:
    """In float64: one ratio for the centre, two for the tails."""
    ratio = _ratio(fma(-x, x, 0.7225), table.ERFINV_CENTRE_TOP, table.ERFINV_CENTRE_BOTTOM)
    centre = axpy(x, 0.875, x * ratio)
    square = -log((1.0 - x) * 0.5)
    r = square.sqrt()
    near = _ratio(r - 1.6, table.ERFINV_NEAR_TOP, table.ERFINV_NEAR_BOTTOM)
    far = _ratio(r - 3.3, table.ERFINV_FAR_TOP, table.ERFINV_FAR_BOTTOM)
    tail = r + (fma(-r, r, square) / (r + r) - where(r < 3.3, near, far))
    return where(x <= 0.85, centre, where(x.equals(1.0), INF, tail))


@in_float64
def lgamma(x: Real) -> Real:
    """log |Γ(x)|, in float64; +∞ at 0, at the negative integers and at ±∞; below 0 by Γ(x) Γ(1 − x) = π / sin(π x)."""
    magnitude = x.abs()
    positive = _lgamma_positive(magnitude)
    turn = magnitude - magnitude.round()
    sine, _ = turned(turn)
    reflected = (LOG_PI - log(sine.abs() * magnitude)) - positive
    y = where(x < -1e-20, reflected, positive)  # nearer to 0 both are −log |x|
    pole = (x <= 0.0) & turn.equals(0.0)
    return where(pole | magnitude.equals(INF), INF, y)


def _lgamma_positive(x: Real) -> Real:
    """A ratio times the distances from the zeros 1 and 2 (below ½ by Γ(x) = Γ(x + 1) / x), a ratio, a series."""
    logarithm = log(x)
    below = x < 0.5
    z = where(below, x + 1.0, x)
    product, product_low = two_product(where(below, x, z - 1.0), where(below, x - 1.0, z - 2.0))
    ratio = _ratio(z - 0.5, table.LGAMMA_TOP, table.LGAMMA_BOTTOM)
    small = axpy(product, 0.5, axpy(product, ratio, product_low * 0.5))
    u = x - 3.0
    middle = axpy(u, 1.25, _ratio(u, table.LGAMMA_MIDDLE_TOP, table.LGAMMA_MIDDLE_BOTTOM) + 0.6875)
    inverse = 1.0 / x
    series = axpy(inverse, polynomial(inverse * inverse, table.LGAMMA_SERIES), inverse.constant(HALF_LOG_2PI - 0.5))
    stirling = axpy(x - 0.5, logarithm - 1.0, series)
    return where(x < 3.0, where(below, small - logarithm, small), where(x < 8.0, middle, stirling))


@in_float64
def digamma(x: Real) -> Real:
    """The derivative of lgamma, in float64; ∓∞ at ±0, NaN at the negative integers."""
    negative = x < 0.0
    positive = _digamma_positive(where(negative, 1.0 - x, x))
    turn = x - x.round()
    sine, cosine = turned(turn)
    y = where(negative, positive - math.pi * cosine / sine, positive)
    y = where((negative & turn.equals(0.0)) | x.equals(-INF), NAN, y)
    y = where(x.equals(INF), x, y)
    return where(x.equals(0.0), x.constant(-INF).with_sign_of(-x), y)


def _digamma_positive(x: Real) -> Real:
    """A ratio times the distance from the zero (below 1 by ψ(x) = ψ(x + 1) − 1/x); log(x) less a ratio or a series."""
    below, inverse = x < 1.0, 1.0 / x
    z = where(below, x + 1.0, x)
    distance = (z - table.DIGAMMA_ROOT[0]) - table.DIGAMMA_ROOT[1]
    small = axpy(distance, 0.5, distance * _ratio(z - 1.0, table.DIGAMMA_TOP, table.DIGAMMA_BOTTOM))
    middle = _ratio(x - 2.5, table.DIGAMMA_MIDDLE_TOP, table.DIGAMMA_MIDDLE_BOTTOM)
    square = inverse * inverse
    series = axpy(square, polynomial(square, table.DIGAMMA_SERIES), 0.5 * inverse)
    large = log(x) - where(x < 8.0, middle, series)
    return where(x < 2.5, where(below, small - inverse, small), large)
