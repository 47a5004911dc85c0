"""The scalar language: what elementwise operators are written in.

An elementwise row gives its meaning once, as `scalar(k, *values)`. `k` is a builder: `NumpyScalars` computes on whole
arrays (and on CuPy's); a code generator's builder emits instructions. IEEE semantics everywhere: NaN
propagates, overflow gives infinity, −0.0 stays apart from 0.0.
"""

from __future__ import annotations

import math
from typing import Any

from . import special
from .dtypes import DType


class NumpyScalars:
    """The scalar language on arrays of an array module `xp`."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def constant(self, value: float, like: Any) -> Any:
        return like.dtype.type(value)

    def cast(self, x: Any, dtype: DType) -> Any:
        kind_in, kind_out = x.dtype.kind, dtype.numpy.kind
        if kind_out in "iu" and kind_in not in "biu":
            return saturating_cast(self.xp, x, dtype)
        return x.astype(dtype.numpy)

    def bitcast(self, x: Any, dtype: DType) -> Any:
        return self.xp.ascontiguousarray(x).reshape(x.shape).view(dtype.numpy)

    def neg(self, x: Any) -> Any:
        return self.xp.negative(x)

    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)

    def sign(self, x: Any) -> Any:
        return self.xp.sign(x)

    def floor(self, x: Any) -> Any:
        return self.xp.floor(x)

    def ceil(self, x: Any) -> Any:
        return self.xp.ceil(x)

    def round(self, x: Any) -> Any:
        return self.xp.rint(x)

    def sqrt(self, x: Any) -> Any:
        return self.xp.sqrt(x)

    def exp(self, x: Any) -> Any:
        return self.xp.exp(x)

    def expm1(self, x: Any) -> Any:
        return self.xp.expm1(x)

    def log(self, x: Any) -> Any:
        return self.xp.log(x)

    def log1p(self, x: Any) -> Any:
        return self.xp.log1p(x)

    def sin(self, x: Any) -> Any:
        return self.xp.sin(x)

    def cos(self, x: Any) -> Any:
        return self.xp.cos(x)

    def tan(self, x: Any) -> Any:
        return self.xp.tan(x)

    def asin(self, x: Any) -> Any:
        return self.xp.arcsin(x)

    def acos(self, x: Any) -> Any:
        return self.xp.arccos(x)

    def atan(self, x: Any) -> Any:
        return self.xp.arctan(x)

    def sinh(self, x: Any) -> Any:
        return self.xp.sinh(x)

    def cosh(self, x: Any) -> Any:
        return self.xp.cosh(x)

    def tanh(self, x: Any) -> Any:
        return self.xp.tanh(x)

    def asinh(self, x: Any) -> Any:
        return self.xp.arcsinh(x)

    def acosh(self, x: Any) -> Any:
        return self.xp.arccosh(x)

    def atanh(self, x: Any) -> Any:
        return self.xp.arctanh(x)

    def erf(self, x: Any) -> Any:
        return special.erf(self.xp, x)

    def erfinv(self, x: Any) -> Any:
        return special.erfinv(self.xp, x)

    def lgamma(self, x: Any) -> Any:
        return special.lgamma(self.xp, x)

    def digamma(self, x: Any) -> Any:
        return special.digamma(self.xp, x)

    def isfinite(self, x: Any) -> Any:
        return self.xp.isfinite(x)

    def invert(self, x: Any) -> Any:
        return self.xp.invert(x)

    def add(self, a: Any, b: Any) -> Any:
        return self.xp.add(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.xp.subtract(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.xp.multiply(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.xp.divide(a, b).astype(a.dtype)

    def floor_div(self, a: Any, b: Any) -> Any:
        return self.xp.floor_divide(a, b)

    def mod(self, a: Any, b: Any) -> Any:
        return self.xp.remainder(a, b)

    def pow(self, a: Any, b: Any) -> Any:
        return self.xp.power(a, b)

    def atan2(self, a: Any, b: Any) -> Any:
        return self.xp.arctan2(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self.xp.maximum(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return self.xp.minimum(a, b)

    def equal(self, a: Any, b: Any) -> Any:
        return self.xp.equal(a, b)

    def not_equal(self, a: Any, b: Any) -> Any:
        return self.xp.not_equal(a, b)

    def less(self, a: Any, b: Any) -> Any:
        return self.xp.less(a, b)

    def less_equal(self, a: Any, b: Any) -> Any:
        return self.xp.less_equal(a, b)

    def bit_and(self, a: Any, b: Any) -> Any:
        return self.xp.bitwise_and(a, b)

    def bit_or(self, a: Any, b: Any) -> Any:
        return self.xp.bitwise_or(a, b)

    def bit_xor(self, a: Any, b: Any) -> Any:
        return self.xp.bitwise_xor(a, b)

    def shift_left(self, a: Any, b: Any) -> Any:
        return self.xp.left_shift(a, b)

    def shift_right(self, a: Any, b: Any) -> Any:
        return self.xp.right_shift(a, b)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        return self.xp.where(condition, a, b)


def saturating_cast(xp: Any, x: Any, dtype: DType) -> Any:
    """Float to integer: towards zero, values out of range to the nearest end, NaN to 0 – on every machine alike."""
    info = xp.iinfo(dtype.numpy)
    wide = x.astype(xp.float64)
    clipped = xp.clip(xp.where(xp.isnan(wide), 0.0, xp.trunc(wide)), float(info.min), float(info.max))
    top = clipped >= math.ldexp(1.0, info.bits - (info.min < 0))
    return xp.where(top, dtype.numpy.type(info.max), xp.where(top, 0.0, clipped).astype(dtype.numpy))
