"""Trigonometric functions and their inverses as branch-free formulas on registers: see vecmath.py.

Arguments of any size are reduced correctly, in the way of M. H. Payne and R. N. Hanek (1983) but with floats: of 2/π
only those bits count that the argument does not make a multiple of 4, so that x · 2/π is reduced to a quarter turn with
as many bits as the result needs.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any

from llvmlite import ir

from . import polynomials as table
from .registers import (
    DOUBLE,
    I64,
    Real,
    Whole,
    axpy,
    fast_two_sum,
    fma,
    lane_by_lane,
    polynomial,
    two_product,
    two_sum,
    where,
)
from .vecmath import BIAS, INF, MAGIC_BITS, NAN

PI_PARTS = (math.pi, 1.2246467991473532e-16, -2.9947698097183397e-33)
HALF_PI, HALF_PI_LOW = PI_PARTS[0] / 2, PI_PARTS[1] / 2
MAGIC = 1.5 * 2.0**52


# Reduction -----------------------------------------------------------------------------------------------------------
@functools.cache
def _two_over_pi() -> Fraction:
    """2/π to 1280 bits, by Machin's formula."""
    bits = 1280

    def arctan_of_inverse(n: int) -> int:
        total, term, k = 0, (1 << (bits + 64)) // n, 0
        while term:
            total += (-term if k % 2 else term) // (2 * k + 1)
            term, k = term // (n * n), k + 1
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    return Fraction(2 << (bits + 64), pi)


@functools.cache
def _turns(shift: int, parts: int) -> tuple[float, ...]:
    """(2^shift · 2/π) mod 4 as a sum of floats."""
    value, result = _two_over_pi() * 2**shift % 4, []
    for _ in range(parts):
        result.append(float(value))
        value -= Fraction(result[-1])
    return tuple(result)


def _quarter_turns(magnitude: Real) -> tuple[Whole, Real]:
    """(quadrant, rest in radians) of a float32 given as float64: |rest| ≤ π/4, to 2⁻²⁹ of itself.

    From 2⁴⁴ on a float32 is a multiple of 2²⁰, from 2⁶⁴ on of 2⁴⁰, and so on.
    """
    high, low = (magnitude.constant(part) for part in _turns(0, 2))
    for shift in (20, 40, 60, 80, 100):
        beyond = magnitude >= 2.0 ** (shift + 24)
        scaled = [math.ldexp(part, -shift) for part in _turns(shift, 2)]
        high, low = where(beyond, scaled[0], high), where(beyond, scaled[1], low)
    product = magnitude * high
    rest = fma(magnitude, low, fma(magnitude, high, -product))
    shifted = product + MAGIC
    return shifted.as_bits() - MAGIC_BITS[64], ((product - (shifted - MAGIC)) + rest) * HALF_PI


def _quarter_turns_wide(magnitude: Real) -> tuple[Whole, Real, Real]:
    """(quadrant, rest, what the rest lacks) of a float64; four floats of 2/π come from a table, by the exponent."""
    row = (magnitude.as_bits().shift_in_zeros(52) - (BIAS[64] + 52)) >> 4
    row = where(row < 0, row - row, row)
    small = (magnitude.as_bits() - (row << 56)).as_real()  # magnitude / 2^(16 row) < 2⁶⁸
    parts = [_entry(row, column) for column in range(4)]
    (a, b), (c, d), (e, f) = (two_product(small, part) for part in parts[:3])
    whole, lost_1 = two_sum(_mod_4(a), _mod_4(b))
    whole, lost_2 = two_sum(whole, _mod_4(c))
    shifted = whole + MAGIC
    lost, lost_low = two_sum(lost_1, lost_2)
    rest, rest_low = two_sum(d, e)
    rest, carry = two_sum(rest, lost)
    turns, turns_low = two_sum(whole - (shifted - MAGIC), rest)
    turns_low = turns_low + (carry + (rest_low + (lost_low + axpy(small, parts[3], f))))
    radians, radians_low = two_product(turns, turns.constant(HALF_PI))
    radians_low = axpy(turns, HALF_PI_LOW, axpy(turns_low, HALF_PI, radians_low))
    radians, radians_low = fast_two_sum(radians, radians_low)
    return shifted.as_bits() - MAGIC_BITS[64], where(magnitude < INF, radians, NAN), radians_low


def _mod_4(x: Real) -> Real:
    return x - (x * 0.25).round() * 4.0


def _entry(row: Whole, column: int) -> Real:
    """From the table with a row for each 16 exponents."""
    builder, name = row.code.builder, "highlevel.two_over_pi"
    values = builder.module.globals.get(name)
    if values is None:
        numbers = [part for i in range(61) for part in _turns(16 * i, 4)]
        kind = ir.ArrayType(DOUBLE, len(numbers))
        values = ir.GlobalVariable(builder.module, kind, name)
        values.linkage, values.global_constant, values.unnamed_addr = "internal", True, True
        values.initializer = ir.Constant(kind, numbers)

    def look_up(index: Any) -> Any:
        return builder.load(builder.gep(values, [I64(0), index], inbounds=True), typ=DOUBLE)

    return Real(lane_by_lane(builder, look_up, (row * 4 + column).value), row.code)


# Sine, cosine, tangent -----------------------------------------------------------------------------------------------
def _sine(r: Real) -> Real:
    """For |r| ≤ π/4."""
    z = r * r
    return axpy(z * r, polynomial(z, table.SIN64 if r.is_double else table.SIN32), r)


def _cosine(r: Real) -> Real:
    """For |r| ≤ π/4."""
    z = r * r
    return axpy(z * z, polynomial(z, table.COS64 if r.is_double else table.COS32), axpy(z, -0.5, z.constant(1.0)))


def _both(r: Real, low: Real) -> tuple[Real, Real, Real, Real]:
    """Sine and cosine of r + low, each as a sum of two floats."""
    z = r * r
    half = z * 0.5
    cosine = 1.0 - half
    sine, sine_low = fast_two_sum(r, axpy(z * r, polynomial(z, table.SIN64), low * cosine))
    lost = (1.0 - cosine) - half
    return sine, sine_low, *fast_two_sum(cosine, lost + axpy(z * z, polynomial(z, table.COS64), -(r * low)))


def _circular(x: Real, advance: int) -> Real:
    """sin(x + advance · π/2)"""
    if x.is_double:
        quadrant, r, low = _quarter_turns_wide(x.abs())
        sine, _, cosine, _ = _both(r, low)
    else:
        quadrant, wide = _quarter_turns(x.abs().widen())
        sine, cosine = _sine(wide.narrow()), _cosine(wide.narrow())
    quadrant = (quadrant + advance).resized(x.bits)
    sign = (quadrant & 2) << (x.bits - 2)
    if not advance:
        sign = sign ^ (x.as_bits() & (-1 << (x.bits - 1)))
    return (where(quadrant.has(1), cosine, sine).as_bits() ^ sign).as_real()


def sin(x: Real) -> Real:
    """The sine of any number"""
    return _circular(x, 0)


def cos(x: Real) -> Real:
    """The cosine of any number"""
    return _circular(x, 1)


def tan(x: Real) -> Real:
    """Sine over cosine, in float64; the quotient is corrected by what sine, cosine and division rounded off."""
    magnitude = x.abs().widen()
    if x.is_double:
        quadrant, r, low = _quarter_turns_wide(magnitude)
        sine, sine_low, cosine, cosine_low = _both(r, low)
    else:
        quadrant, r = _quarter_turns(magnitude)
        sine, cosine = _sine(r), _cosine(r)
    odd = quadrant.has(1)
    top, bottom = where(odd, -cosine, sine), where(odd, sine, cosine)
    y = top / bottom
    if x.is_double:
        top_low, bottom_low = where(odd, -cosine_low, sine_low), where(odd, sine_low, cosine_low)
        correction = (fma(-y, bottom, top) + (top_low - y * bottom_low)) / bottom
        y = where(correction.abs() < INF, y + correction, y)
    else:
        y = y.narrow()
    return (y.as_bits() ^ (x.as_bits() & (-1 << (x.bits - 1)))).as_real()


def turned(x: Real) -> tuple[Real, Real]:
    """Sine and cosine of π x for |x| ≤ ½."""
    magnitude = x.abs()
    beyond = magnitude > 0.25
    r = where(beyond, 0.5 - magnitude, magnitude) * math.pi
    sine, cosine = _sine(r), _cosine(r)
    return where(beyond, cosine, sine).with_sign_of(x), where(beyond, sine, cosine)


# Inverses ------------------------------------------------------------------------------------------------------------
def _pi(x: Real, quarters: int) -> tuple[float, float]:
    """quarters · π/4 as a sum of two floats of the type."""
    if x.is_double:
        return PI_PARTS[0] * quarters / 4, PI_PARTS[1] * quarters / 4
    high = {1: 0.78539818525314331, 2: 1.5707963705062866, 4: 3.1415927410125732}[quarters]
    return high, math.pi * quarters / 4 - high


def _asin_of_half(x: Real) -> Real:
    """asin(x) − x for |x| ≤ ½."""
    z = x * x
    return x * z * polynomial(z, table.ASIN64 if x.is_double else table.ASIN32)


def _root(magnitude: Real) -> tuple[Real, Real]:
    """√((1 − magnitude) / 2) as a sum of two floats: asin(x) = π/2 − 2 asin of it."""
    z = (1.0 - magnitude) * 0.5
    root = z.sqrt()
    low = fma(-root, root, z) / (root + root)
    return root, where(root > 0.0, low, 0.0)


def asin(x: Real) -> Real:
    """A polynomial below ½, the complement above; NaN beyond 1."""
    magnitude = x.abs()
    root, low = _root(magnitude)
    high_pi, low_pi = _pi(x, 2)
    large = (high_pi - root * 2.0) - ((_asin_of_half(root) + low) * 2.0 - low_pi)
    return where(magnitude <= 0.5, x + _asin_of_half(x), large.with_sign_of(x))


def acos(x: Real) -> Real:
    """π/2 − asin(x) below ½; above, twice the arcsine of √((1 − |x|) / 2)."""
    magnitude = x.abs()
    high_pi, low_pi = _pi(x, 2)
    small = high_pi - (x - (low_pi - _asin_of_half(x)))
    root, low = _root(magnitude)
    doubled = (root + (_asin_of_half(root) + low)) * 2.0
    large = where(x < 0.0, _pi(x, 4)[0] - (doubled - _pi(x, 4)[1]), doubled)
    return where(magnitude <= 0.5, small, large)


def _atan_of_ratio(top: Real, bottom: Real) -> Real:
    """atan(top / bottom) for 0 ≤ top ≤ bottom, bottom > 0; float64 turns by π/4 above ½."""
    if not top.is_double:
        t = top / bottom
        z = t * t
        return axpy(t * z, polynomial(z, table.ATAN32), t)
    scale = where(bottom > 2.0**1000, bottom.constant(2.0**-100), bottom.constant(1.0))
    top, bottom = top * scale, bottom * scale
    large = top > bottom * 0.5
    t = where(large, top - bottom, top) / where(large, top + bottom, bottom)
    z = t * t
    rest = t * z * polynomial(z, table.ATAN64)
    high, low = _pi(t, 1)
    return where(large, high + ((rest + low) + t), t + rest)


def atan(x: Real) -> Real:
    """The arctangent, by that of the inverse beyond 1."""
    magnitude, one = x.abs(), x.constant(1.0)
    large = magnitude > 1.0
    y = _atan_of_ratio(where(large, one, magnitude), where(large, magnitude, one))
    high, low = _pi(x, 2)
    return where(large, high - (y - low), y).with_sign_of(x)


def atan2(a: Real, b: Real) -> Real:
    """The angle of the point (b, a)."""
    x, y = b.abs(), a.abs()
    steep = y > x
    top, bottom = where(steep, x, y), where(steep, y, x)
    both_infinite = top.equals(INF)
    top, bottom = where(both_infinite, 1.0, top), where(both_infinite | bottom.equals(0.0), 1.0, bottom)
    angle = _atan_of_ratio(top, bottom)
    high, low = _pi(a, 2)
    angle = where(steep, high - (angle - low), angle)
    high, low = _pi(a, 4)
    angle = where(b.as_bits() < 0, high - (angle - low), angle).with_sign_of(a)
    return where(a.is_nan() | b.is_nan(), NAN, angle)
