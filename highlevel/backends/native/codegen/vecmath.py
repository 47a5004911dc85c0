"""Exponentials, logarithms, powers and hyperbolic functions as branch-free formulas on registers.

Every function takes float32 or float64 (`Real`) and follows IEEE and C at NaN, ±∞ and −0.0, on overflow, and into
denormals. Nothing calls the C library, so a loop around any of them is vectorised. Largest errors, in units in the last
place, as tests/backends/native/test_vecmath.py has them; float32 over all numbers. Where a function says "in float64",
float32 takes that way as well, which costs half of the speed and gives 0.5.

The reductions are the classical ones (W. J. Cody and W. Waite, Software Manual for the Elementary Functions, 1980;
fdlibm); the coefficients are our own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from . import polynomials as table
from .registers import Real, Whole, axpy, fast_two_sum, fma, polynomial, two_product, where

INF, NAN = math.inf, math.nan
LN2 = math.log(2.0)
# ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
LN2_PARTS = {32: (0.693359375, -2.12194440054690581e-4), 64: (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
MANTISSA_BITS = {32: 23, 64: 52}
BIAS = {32: 127, 64: 1023}
MAGIC_BITS = {32: 0x4B400000, 64: 0x4338000000000000}  # of 1.5 · 2ᵐ
SQRT_HALF_BITS = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}


def in_float64(function: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """The function computed in float64 also for float32, which leaves one rounding."""

    @functools.wraps(function)
    def wrapped(x: Real) -> Real:
        y = function(x.widen())
        return y if x.is_double else y.narrow()

    return wrapped


def odd(function: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """The function of |x|, with the sign of x."""

    @functools.wraps(function)
    def wrapped(x: Real) -> Real:
        return function(x.abs()).with_sign_of(x)

    return wrapped


def clamp(x: Real, low: float, high: float) -> Real:
    """NaN stays NaN."""
    x = where(x < low, low, x)
    return where(x > high, high, x)


# Exponential ---------------------------------------------------------------------------------------------------------
def split_by_ln2(x: Real) -> tuple[Whole, Real, Real]:
    """(n, n as a float, r) with x = n ln 2 + r, |r| ≤ ln 2 / 2; for |x| below about a thousand.

    Adding 1.5 · 2ᵐ rounds to a whole number and leaves it in the lowest bits.
    """
    m = MANTISSA_BITS[x.bits]
    magic = 1.5 * 2.0**m
    shifted = axpy(x, 1.0 / LN2, magic)
    n = shifted - magic
    high, low = LN2_PARTS[x.bits]
    whole = shifted.as_bits() - MAGIC_BITS[x.bits]
    return whole, n, axpy(n, -low, axpy(n, -high, x))


def power_of_two(n: Whole) -> Real:
    """2ⁿ for exponents of normal numbers."""
    return ((n + BIAS[n.bits]) << MANTISSA_BITS[n.bits]).as_real()


def scaled(x: Real, n: Whole) -> Real:
    """x 2ⁿ in two steps, of which only the last may round (into denormals) or overflow."""
    half = n >> 1
    return x * power_of_two(half) * power_of_two(n - half)


def _exp_minus_1(r: Real, *, exact: bool) -> Real:
    """exp(r) − 1 for |r| ≤ ln 2 / 2; `exact`: relative to itself, not to exp(r)."""
    narrow, wide = (table.EXPM1_32, table.EXPM1_64) if exact else (table.EXP32, table.EXP64)
    return axpy(r * r, polynomial(r, wide if r.is_double else narrow), r)


def exp(x: Real) -> Real:
    """exp(x)"""
    low, high = (-746.0, 710.0) if x.is_double else (-104.0, 89.0)
    n, _, r = split_by_ln2(clamp(x, low, high))
    return scaled(_exp_minus_1(r, exact=False) + 1.0, n)


def exp_of_moderate(x: Real) -> Real:
    """exp(x) for |x| ≤ 80 (or NaN), a little faster."""
    n, _, r = split_by_ln2(x)
    return (_exp_minus_1(r, exact=False) + 1.0) * power_of_two(n)


def expm1(x: Real) -> Real:
    """exp(x) − 1, exact for small x"""
    low, high, tiny = (-44.0, 710.0, 2.0**-54) if x.is_double else (-20.0, 89.0, 2.0**-25)
    n, _, r = split_by_ln2(clamp(x, low, high))
    half_scale = power_of_two(n - 1)  # 2ⁿ itself may overflow
    y = axpy(half_scale, _exp_minus_1(r, exact=True), half_scale - 0.5) * 2.0
    return where(x.abs() < tiny, x, y)


def _half_exp(x: Real) -> Real:
    """exp(x) / 2 for x ≥ 0, which overflows later than exp(x)."""
    n, _, r = split_by_ln2(where(x > (712.0 if x.is_double else 91.0), 712.0 if x.is_double else 91.0, x))
    return scaled(_exp_minus_1(r, exact=False) + 1.0, n - 1)


# Hyperbolic functions ------------------------------------------------------------------------------------------------
def sinh(x: Real) -> Real:
    """A polynomial below 1, (exp(x) − exp(−x)) / 2 above."""
    magnitude = x.abs()
    e = _half_exp(magnitude)
    large = (e - 0.25 / e).with_sign_of(x)
    z = x * x
    small = axpy(x * z, polynomial(z, table.SINH64 if x.is_double else table.SINH32), x)
    return where(magnitude < 1.0, small, large)


def cosh(x: Real) -> Real:
    """(exp(x) + exp(−x)) / 2"""
    e = _half_exp(x.abs())
    return e + 0.25 / e


def tanh(x: Real) -> Real:
    """A polynomial where the result is below ½, 1 − 2 / (exp(2x) + 1) above."""
    magnitude, top = x.abs(), 20.0 if x.is_double else 10.0
    n, _, r = split_by_ln2(where(magnitude > top, top, magnitude) * 2.0)
    scale = power_of_two(n)
    large = 1.0 - 2.0 / axpy(scale, _exp_minus_1(r, exact=False), scale + 1.0)
    z = x * x
    small = axpy(magnitude * z, polynomial(z, table.TANH64 if x.is_double else table.TANH32), magnitude)
    return where(magnitude < 0.55, small, large).with_sign_of(x)


# Logarithm -----------------------------------------------------------------------------------------------------------
def _exponent_and_mantissa(x: Real) -> tuple[Whole, Real]:
    """(k, m) with x = m 2ᵏ, √½ ≤ m < √2, for positive x, denormal or not."""
    bits, m = x.bits, MANTISSA_BITS[x.bits]
    denormal = x < 2.0 ** (1 - BIAS[bits])
    shifted = where(denormal, x * 2.0**m, x).as_bits() - SQRT_HALF_BITS[bits]
    k = shifted >> m
    mantissa = ((shifted & ((1 << m) - 1)) + SQRT_HALF_BITS[bits]).as_real()
    return where(denormal, k - m, k), mantissa


def _log_of_parts(k: Whole, f: Real) -> Real:
    """k ln 2 + log(1 + f) for √½ ≤ 1 + f ≤ √2."""
    n, (high, low) = k.to_real(), LN2_PARTS[f.bits]
    square = f * f
    if f.is_double:
        half = square * 0.5
        s = f / (f + 2.0)
        z = s * s
        rest = s * (half + z * polynomial(z, table.LOG64))
        return n * high - ((half - axpy(n, low, rest)) - f)
    rest = axpy(square * f, polynomial(f, table.LOG32), n * low)
    return axpy(n, high, f + axpy(square, -0.5, rest))


def _log_at_ends(x: Real, distance: Real, y: Real) -> Real:
    """y, but −∞ where the distance from the pole is 0, NaN below, and x where it is +∞ or NaN."""
    y = where(x < INF, y, x)
    y = where(distance < 0.0, NAN, y)
    return where(distance.equals(0.0), -INF, y)


def log(x: Real) -> Real:
    """The natural logarithm"""
    k, mantissa = _exponent_and_mantissa(x)
    return _log_at_ends(x, x, _log_of_parts(k, mantissa - 1.0))


def log1p(x: Real) -> Real:
    """log(1 + x), exact for small x: the exponent is that of 1 + x rounded, the rest is taken from x itself."""
    k, _ = _exponent_and_mantissa(x + 1.0)
    quadruple = power_of_two(2 - k)  # 2⁻ᵏ itself may be denormal
    f = (x * 0.25) * quadruple + (quadruple * 0.25 - 1.0)
    y = _log_at_ends(x, x + 1.0, _log_of_parts(k, f))
    return where(x.abs() < (2.0**-54 if x.is_double else 2.0**-25), x, y)


@odd
@in_float64
def asinh(a: Real) -> Real:
    """In float64, by log1p: x + (√(x² + 1) − 1) without its difference."""
    large = a > 2.0**60
    square = a * a
    y = log1p(where(large, a, a + square / ((square + 1.0).sqrt() + 1.0)))
    return where(large, y + LN2, y)


@in_float64
def acosh(x: Real) -> Real:
    """In float64, by log1p: t + √(t² + 2t) for t = x − 1."""
    t, large = x - 1.0, x > 2.0**60
    y = log1p(where(large, x, t + (t * (t + 2.0)).sqrt()))
    return where(x < 1.0, NAN, where(large, y + LN2, y))


@odd
@in_float64
def atanh(a: Real) -> Real:
    """In float64: log1p(2x / (1 − x)) / 2"""
    doubled, rest = a + a, 1.0 - a
    y = log1p(where(a < 0.5, doubled + doubled * a / rest, doubled / rest))
    return y * 0.5


# Power ---------------------------------------------------------------------------------------------------------------
def pow(a: Real, b: Real) -> Real:
    """exp(b log |a|) with the logarithm to more digits than the result, and the sign of odd powers."""
    magnitude = a.abs()
    y = _pow_wide(magnitude, b) if a.is_double else _pow_narrow(magnitude.widen(), b.widen()).narrow()
    whole = b.round().equals(b)
    half = b * 0.5
    odd = whole & ~half.round().equals(half)
    negative = a.as_bits() < 0
    y = where(odd & negative, -y, y)
    y = where((a < 0.0) & (magnitude < INF) & ~whole & ~b.is_nan(), NAN, y)
    one = b.equals(0.0) | a.equals(1.0) | (magnitude.equals(1.0) & b.abs().equals(INF))
    return where(one, 1.0, y)


def _log_ends_for_pow(magnitude: Real, logarithm: Real) -> Real:
    logarithm = where(magnitude < INF, logarithm, magnitude)
    return where(magnitude.equals(0.0), -INF, logarithm)


def _pow_narrow(magnitude: Real, b: Real) -> Real:
    """For float32, in float64: no denormals, and bits to spare."""
    shifted = magnitude.as_bits() - SQRT_HALF_BITS[64]
    f = ((shifted & ((1 << 52) - 1)) + SQRT_HALF_BITS[64]).as_real() - 1.0
    logarithm = axpy((shifted >> 52).to_real(), LN2, f * polynomial(f, table.LOG_POW))
    n, _, r = split_by_ln2(clamp(b * _log_ends_for_pow(magnitude, logarithm), -110.0, 90.0))
    return polynomial(r, table.EXP_POW) * power_of_two(n)


def _pow_wide(magnitude: Real, b: Real) -> Real:
    """For float64: the logarithm as a sum of two."""
    high, low = _log_as_sum(magnitude)
    high = _log_ends_for_pow(magnitude, high)
    exponent = b * high
    rest = fma(b, high, -exponent) + b * low
    rest = where(exponent.abs() < 1000.0, rest, 0.0)
    exponent = clamp(exponent, -746.0, 710.0)
    n, whole, _ = split_by_ln2(exponent)
    ln2_high, ln2_low = LN2_PARTS[64]
    r = axpy(whole, -ln2_high, exponent) + axpy(whole, -ln2_low, rest)
    return scaled(_exp_minus_1(r, exact=False) + 1.0, n)


def _log_as_sum(x: Real) -> tuple[Real, Real]:
    """log(x) of a positive float64 to about 65 bits: 2 atanh(s) + k ln 2 for s = (m − 1) / (m + 1)."""
    k, mantissa = _exponent_and_mantissa(x)
    f = mantissa - 1.0
    below, below_low = fast_two_sum(f.constant(2.0), f)
    s = f / below
    s_low = (fma(-s, below, f) - s * below_low) / below
    z, z_low = two_product(s, s)
    z_low = axpy(s * 2.0, s_low, z_low)
    third, third_low = 1.0 / 3.0, 1.850371707708594e-17
    u, u_low = two_product(z, z.constant(third))
    u_low = axpy(z, third_low, axpy(z_low, third, u_low))
    u, carry = fast_two_sum(u, z * z * polynomial(z, table.LOG_WIDE))
    u_low = u_low + carry
    v, v_low = two_product(s, u)
    v_low = axpy(s, u_low, axpy(s_low, u, v_low))
    w, w_low = fast_two_sum(s, v)
    w_low = (w_low + v_low) + s_low
    n, (ln2_high, ln2_low) = k.to_real(), LN2_PARTS[64]
    total, carry = fast_two_sum(n * ln2_high, w * 2.0)
    return fast_two_sum(total, carry + axpy(n, ln2_low, w_low * 2.0))
