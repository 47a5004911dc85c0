"""Functions of each element by itself. Operands broadcast; integers become float32 where results are real."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import DTypeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import as_dtype, bool_, int32
from highlevel.ir.operators import cast, match, operand

from .arguments import floating, largest
from .registry import COVERED, op, register

Function = Callable[..., Any]


def named(name: str, function: Function, summary: str) -> Function:
    """Registers a function that was made by another one."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = summary
    function.__module__ = __name__
    return register(name, function)


def _real(name: str, primitive: str, summary: str) -> Function:
    """A primitive of one floating operand."""
    COVERED.add(primitive)
    return named(name, lambda x: getattr(primitives, primitive)(floating(x)), summary)


def _number(x: Any) -> Any:
    """The operand; bool, which primitives of numbers do not take, becomes int32."""
    x = operand(x)
    return cast(x, int32) if x.dtype.is_bool else x


def _paired(name: str, primitive: str, summary: str, *, real: bool = False, numbers: bool = False) -> Function:
    """A primitive of two operands; `real` results are floating, and `numbers` turns two bools into int32."""
    COVERED.add(primitive)

    def call(x1: Any, x2: Any) -> Any:
        a, b = match(x1, x2, operator=name, floating=real)
        if numbers and a.dtype.is_bool:
            a, b = cast(a, int32), cast(b, int32)
        return getattr(primitives, primitive)(a, b)

    return named(name, call, summary)


# One operand -----------------------------------------------------------------------------------------------------
arccos = _real("arccos", "acos", "Inverse cosine.")
arccosh = _real("arccosh", "acosh", "Inverse hyperbolic cosine.")
arcsin = _real("arcsin", "asin", "Inverse sine.")
arcsinh = _real("arcsinh", "asinh", "Inverse hyperbolic sine.")
arctan = _real("arctan", "atan", "Inverse tangent.")
arctanh = _real("arctanh", "atanh", "Inverse hyperbolic tangent.")
ceil = _real("ceil", "ceil", "The next integer above, as a float.")
cos = _real("cos", "cos", "Cosine.")
cosh = _real("cosh", "cosh", "Hyperbolic cosine.")
erf = _real("erf", "erf", "The error function: 2/√π · ∫₀ˣ exp(−t²) dt.")
erfinv = _real("erfinv", "erfinv", "Inverse of the error function.")
exp = _real("exp", "exp", "eˣ.")
expm1 = _real("expm1", "expm1", "eˣ − 1, accurate near zero.")
fabs = _real("fabs", "abs", "Absolute value, as a float.")
floor = _real("floor", "floor", "The next integer below, as a float.")
log = _real("log", "log", "Natural logarithm.")
log1p = _real("log1p", "log1p", "log(1 + x), accurate near zero.")
rsqrt = _real("rsqrt", "rsqrt", "1 / √x.")
sin = _real("sin", "sin", "Sine.")
sinh = _real("sinh", "sinh", "Hyperbolic sine.")
sqrt = _real("sqrt", "sqrt", "Square root.")
tan = _real("tan", "tan", "Tangent.")
tanh = _real("tanh", "tanh", "Hyperbolic tangent.")
COVERED.update(("neg", "sign", "round", "isfinite", "invert", "select", "cast", "bitcast", "pow"))


@op
def absolute(x: Any) -> Any:
    """Absolute value."""
    return operators.absolute(x)


@op
def abs(x: Any) -> Any:
    """Absolute value."""
    return operators.absolute(x)


@op
def negative(x: Any) -> Any:
    """−x."""
    x = operand(x)
    if x.dtype.is_bool:
        raise DTypeError("negative: bool has no sign", got=x.spec, hint="logical_not")
    return primitives.neg(x)


@op
def sign(x: Any) -> Any:
    """−1, 0 or 1."""
    return primitives.sign(_number(x))


@op
def signbit(x: Any) -> Any:
    """Whether the sign is set: also of −0.0 and of NaN."""
    x = _number(x)
    if not x.dtype.is_float:
        return operators.less(x, 0)
    signed = as_dtype(f"int{8 * x.dtype.size_bytes}")
    return operators.less(primitives.bitcast(x, dtype=signed), 0)


@op
def square(x: Any) -> Any:
    """x²."""
    x = _number(x)
    return primitives.mul(x, x)


@op
def reciprocal(x: Any) -> Any:
    """1 / x."""
    return operators.divide(1.0, x)


@op
def cbrt(x: Any) -> Any:
    """Cube root, also of negative numbers."""
    x = floating(x)
    return primitives.sign(x) * primitives.pow(primitives.abs(x), operators.full(x.shape, 1.0 / 3.0, x.dtype))


@op
def exp2(x: Any) -> Any:
    """2ˣ."""
    x = floating(x)
    return primitives.pow(operators.full(x.shape, 2.0, x.dtype), x)


@op
def log2(x: Any) -> Any:
    """Logarithm to base 2."""
    return primitives.log(floating(x)) * (1.0 / math.log(2.0))


@op
def log10(x: Any) -> Any:
    """Logarithm to base 10."""
    return primitives.log(floating(x)) * (1.0 / math.log(10.0))


@op
def erfc(x: Any) -> Any:
    """1 − erf(x)."""
    return 1.0 - primitives.erf(floating(x))


@op
def sinc(x: Any) -> Any:
    """sin(πx) / (πx), and 1 at zero."""
    x = floating(x) * math.pi
    at_zero = operators.equal(x, 0.0)
    safe = primitives.select(at_zero, operators.ones_like(x), x)
    near = 1.0 - x * x * (1.0 / 6.0)  # its series: value, slope and curvature are right at zero
    return primitives.select(at_zero, near, primitives.sin(safe) / safe)


@op
def deg2rad(x: Any) -> Any:
    """Degrees to radians."""
    return floating(x) * (math.pi / 180.0)


@op
def rad2deg(x: Any) -> Any:
    """Radians to degrees."""
    return floating(x) * (180.0 / math.pi)


@op
def trunc(x: Any) -> Any:
    """The next integer towards zero, of the operand's type."""
    x = operand(x)
    if not x.dtype.is_float:
        return x
    return primitives.select(operators.less(x, 0.0), primitives.ceil(x), primitives.floor(x))


@op
def round(x: Any, decimals: int = 0) -> Any:
    """The nearest number with so many decimals; ties go to the even one. Negative `decimals` round to tens, …"""
    x = _number(x)
    if not x.dtype.is_float:
        if decimals >= 0:
            return x
        unit = 10**-decimals
        return cast(primitives.round(cast(x, "float64") / float(unit)) * float(unit), x.dtype)
    if decimals == 0:
        return primitives.round(x)
    unit_value = 10.0 ** builtins.abs(decimals)
    if decimals > 0:
        return primitives.round(x * unit_value) / unit_value
    return primitives.round(x / unit_value) * unit_value


@op
def isfinite(x: Any) -> Any:
    """Whether the value is neither infinite nor NaN."""
    x = operand(x)
    return primitives.isfinite(x) if x.dtype.is_float else operators.full(x.shape, True, bool_)


@op
def isnan(x: Any) -> Any:
    """Whether the value is NaN."""
    x = operand(x)
    return primitives.not_equal(x, x)


@op
def isinf(x: Any) -> Any:
    """Whether the value is +∞ or −∞."""
    x = operand(x)
    return operators.equal(primitives.abs(x), math.inf) if x.dtype.is_float else operators.full(x.shape, False, bool_)


@op
def isposinf(x: Any) -> Any:
    """Whether the value is +∞."""
    x = operand(x)
    return operators.equal(x, math.inf) if x.dtype.is_float else operators.full(x.shape, False, bool_)


@op
def isneginf(x: Any) -> Any:
    """Whether the value is −∞."""
    x = operand(x)
    return operators.equal(x, -math.inf) if x.dtype.is_float else operators.full(x.shape, False, bool_)


@op
def isreal(x: Any) -> Any:
    """Whether the imaginary part is zero: always, since there are no complex numbers here."""
    return operators.full(operand(x).shape, True, bool_)


@op
def real(x: Any) -> Any:
    """The real part: the value itself, since there are no complex numbers here."""
    return operand(x)


@op
def imag(x: Any) -> Any:
    """The imaginary part: zeros, since there are no complex numbers here."""
    return operators.zeros_like(x)


@op
def conjugate(x: Any) -> Any:
    """The complex conjugate: the value itself, since there are no complex numbers here."""
    return operand(x)


@op
def conj(x: Any) -> Any:
    """The complex conjugate: the value itself, since there are no complex numbers here."""
    return operand(x)


@op
def angle(x: Any) -> Any:
    """The angle of a real number in the complex plane: 0, or π if it is negative."""
    x = floating(x)
    return primitives.atan2(operators.zeros_like(x), x)


@op
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN and infinities replaced; infinities by the largest finite numbers unless told otherwise."""
    x = operand(x)
    if not x.dtype.is_float:
        return x
    top = largest(x.dtype)
    fills = (
        (isnan(x), nan),
        (isposinf(x), top if posinf is None else posinf),
        (isneginf(x), -top if neginf is None else neginf),
    )
    for where, value in fills:
        x = primitives.select(where, operators.full(x.shape, float(value), x.dtype), x)
    return x


@op
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """The value, not below `x_min` and not above `x_max`; None leaves an end open."""
    x = _number(x)
    if x_min is not None:
        x = primitives.maximum(*_beside(x, x_min))
    return x if x_max is None else primitives.minimum(*_beside(x, x_max))


def _beside(x: Any, bound: Any) -> Any:
    return match(x, bound, operator="clip", dtype=x.dtype)


@op
def i0(x: Any) -> Any:
    """The modified Bessel function of order 0: the mean of exp(x cos t) over a period.

    The trapezoid rule converges exponentially on a periodic integrand, so 64 nodes (256 for float64) are enough.
    """
    x = floating(x)
    nodes = 256 if x.dtype.size_bytes == 8 else 64
    slopes = np.cos((np.arange(nodes // 2) + 0.5) * (math.pi / (nodes // 2)))
    terms = operators.reshape(x, *x.shape, 1) * operand(slopes.astype(x.dtype.numpy))
    return primitives.reduce_sum(primitives.exp(terms), axes=(x.ndim,)) * (2.0 / nodes)


# Two operands ----------------------------------------------------------------------------------------------------
add = _paired("add", "add", "x1 + x2; for bools: or.")
arctan2 = _paired("arctan2", "atan2", "The angle of the point (x2, x1), from −π to π.", real=True)
divide = _paired("divide", "div", "x1 / x2.", real=True)
true_divide = _paired("true_divide", "div", "x1 / x2.", real=True)
equal = _paired("equal", "equal", "Whether x1 = x2.")
floor_divide = _paired("floor_divide", "floor_div", "x1 / x2, rounded towards −∞.", numbers=True)
less = _paired("less", "less", "Whether x1 < x2.")
less_equal = _paired("less_equal", "less_equal", "Whether x1 ≤ x2.")
maximum = _paired("maximum", "maximum", "The larger value; NaN if either is NaN.")
minimum = _paired("minimum", "minimum", "The smaller value; NaN if either is NaN.")
mod = _paired("mod", "mod", "The remainder of floor division: it has the sign of x2.", numbers=True)
multiply = _paired("multiply", "mul", "x1 · x2.")
not_equal = _paired("not_equal", "not_equal", "Whether x1 ≠ x2.")
subtract = _paired("subtract", "sub", "x1 − x2.")


@op
def greater(x1: Any, x2: Any) -> Any:
    """Whether x1 > x2."""
    return primitives.less(*reversed(match(x1, x2, operator="greater")))


@op
def greater_equal(x1: Any, x2: Any) -> Any:
    """Whether x1 ≥ x2."""
    return primitives.less_equal(*reversed(match(x1, x2, operator="greater_equal")))


@op
def power(x1: Any, x2: Any) -> Any:
    """x1 to the power x2."""
    if isinstance(x1, operators.Scalar):
        return operators.power(x1, _number(x2))
    return operators.power(_number(x1), x2)


@op
def fmod(x1: Any, x2: Any) -> Any:
    """The remainder of division rounded towards zero: it has the sign of x1."""
    a, b = match(x1, x2, operator="fmod")
    if a.dtype.is_bool:
        a, b = cast(a, int32), cast(b, int32)
    rest = primitives.mod(operators.absolute(a), operators.absolute(b))
    return rest if a.dtype.kind == "uint" else primitives.select(operators.less(a, 0), -rest, rest)


@op
def fmax(x1: Any, x2: Any) -> Any:
    """The larger value; a NaN gives way to a number."""
    a, b = match(x1, x2, operator="fmax")
    return _unless_nan(a, b, primitives.maximum)


@op
def fmin(x1: Any, x2: Any) -> Any:
    """The smaller value; a NaN gives way to a number."""
    a, b = match(x1, x2, operator="fmin")
    return _unless_nan(a, b, primitives.minimum)


def _unless_nan(a: Any, b: Any, choose: Function) -> Any:
    if not a.dtype.is_float:
        return choose(a, b)
    return primitives.select(isnan(a), b, primitives.select(isnan(b), a, choose(a, b)))


@op
def divide_no_nan(x1: Any, x2: Any) -> Any:
    """x1 / x2, and 0 where x2 is 0."""
    a, b = match(x1, x2, operator="divide_no_nan", floating=True)
    empty = operators.equal(b, 0.0)
    safe = primitives.select(empty, operators.ones_like(b), b)
    return primitives.select(empty, operators.zeros_like(a), primitives.div(a, safe))


@op
def hypot(x1: Any, x2: Any) -> Any:
    """√(x1² + x2²), without overflow on the way."""
    a, b = match(x1, x2, operator="hypot", floating=True)
    a, b = primitives.abs(a), primitives.abs(b)
    large, small = primitives.maximum(a, b), primitives.minimum(a, b)
    plain = primitives.select(isfinite(large) & operators.less(0.0, large), large, operators.ones_like(large))
    ratio = primitives.select(isfinite(small), small, operators.zeros_like(small)) / plain
    root = large * primitives.sqrt(1.0 + ratio * ratio)
    return primitives.select(isinf(a) | isinf(b), operators.full(a.shape, math.inf, a.dtype), root)


@op
def logaddexp(x1: Any, x2: Any) -> Any:
    """log(eˣ¹ + eˣ²), without overflow on the way."""
    a, b = match(x1, x2, operator="logaddexp", floating=True)
    ordered = primitives.less(a, b)  # a choice, not max and abs: where x1 = x2 all derivatives are right, too
    large, small = primitives.select(ordered, b, a), primitives.select(ordered, a, b)
    gap = primitives.select(isinf(large), operators.zeros_like(large), small - large)
    return large + primitives.log1p(primitives.exp(gap))


@op
def logaddexp2(x1: Any, x2: Any) -> Any:
    """log₂(2ˣ¹ + 2ˣ²), without overflow on the way."""
    a, b = match(x1, x2, operator="logaddexp2", floating=True)
    return logaddexp(a * math.log(2.0), b * math.log(2.0)) * (1.0 / math.log(2.0))


@op
def heaviside(x1: Any, x2: Any) -> Any:
    """0 below zero, 1 above, and x2 at zero."""
    a, b = match(x1, x2, operator="heaviside", floating=True)
    step = cast(operators.less(0.0, a), a.dtype)
    at_zero = primitives.select(operators.equal(a, 0.0), b, step)
    return primitives.select(isnan(a), a, at_zero)


@op
def ldexp(x1: Any, x2: Any) -> Any:
    """x1 · 2ˣ² for integers x2; two steps, so that the power alone may over- or underflow."""
    exponent = operand(x2)
    if not exponent.dtype.is_integer:
        raise DTypeError("ldexp: the exponent is not an integer", got=exponent.spec, expected="integers")
    a, b = match(x1, exponent, operator="ldexp", floating=True)
    half = primitives.floor(b * 0.5)
    two = operators.full(b.shape, 2.0, b.dtype)
    return a * primitives.pow(two, half) * primitives.pow(two, b - half)


@op
def nextafter(x1: Any, x2: Any) -> Any:
    """The next floating-point number after x1 in the direction of x2."""
    a, b = match(x1, x2, operator="nextafter", floating=True)
    integer = as_dtype(f"int{8 * a.dtype.size_bytes}")
    bits = primitives.bitcast(a, dtype=integer)
    towards_infinity = operators.equal(primitives.less(a, b), operators.less(0, bits))
    step = primitives.select(towards_infinity, operators.ones_like(bits), operators.full(bits.shape, -1, integer))
    moved = primitives.bitcast(primitives.add(bits, step), dtype=a.dtype)
    smallest = operators.full(bits.shape, 1, integer)
    tiny = primitives.bitcast(smallest, dtype=a.dtype)
    from_zero = primitives.select(operators.less(b, 0.0), -tiny, tiny)
    moved = primitives.select(operators.equal(a, 0.0), from_zero, moved)
    return primitives.select(isnan(a) | isnan(b), a + b, primitives.select(primitives.equal(a, b), b, moved))
