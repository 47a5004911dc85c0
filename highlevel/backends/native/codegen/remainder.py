"""Quotients rounded down and their remainders, of floats and of integers, and powers of integers: NumPy's results.

The remainder of floats is exact, for which it divides as integers, a few bits at a time; that is a loop, and so a
function of its own in the module, as the power of integers is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .registers import Real, constant, element, lane_by_lane, where

I64 = ir.IntType(64)


# Floats --------------------------------------------------------------------------------------------------------------
def mod(a: Real, b: Real) -> Real:
    """a − b ⌊a / b⌋: the sign of b, NaN for b = 0."""
    return where(b.equals(0.0), _fmod(a, b), _quotient_and_remainder(a, b)[1])


def floor_div(a: Real, b: Real) -> Real:
    """⌊a / b⌋ from the exact remainder; a / b for b = 0."""
    return where(b.equals(0.0), a / b, _quotient_and_remainder(a, b)[0])


def _quotient_and_remainder(a: Real, b: Real) -> tuple[Real, Real]:
    rest = _fmod(a, b)
    quotient = (a - rest) / b
    nonzero = ~rest.equals(0.0)
    other_sign = nonzero & ((b < 0.0) ^ (rest < 0.0))
    quotient = where(other_sign, quotient - 1.0, quotient)
    rest = where(nonzero, where(other_sign, rest + b, rest), rest.constant(0.0).with_sign_of(b))
    down = quotient.floor()
    down = where(quotient - down > 0.5, down + 1.0, down)
    return where(quotient.equals(0.0), quotient.constant(0.0).with_sign_of(a / b), down), rest


def _fmod(a: Real, b: Real) -> Real:
    """The remainder of a / b cut off, with the sign of a."""
    module, name = a.code.builder.module, f"highlevel.fmod{a.bits}"
    function = module.globals.get(name) or _define(module, name, element(a.type), _Fmod(a).emit)
    rest = Real(_called(a.code.builder, function, a.abs().value, b.abs().value), a.code).with_sign_of(a)
    rest = where(b.abs() < float("inf"), rest, where(b.is_nan(), b, a))
    return where((a.abs() < float("inf")) & ~b.equals(0.0), rest, float("nan"))


def _called(builder: Any, function: Any, *operands: Any) -> Any:
    return lane_by_lane(builder, lambda *lanes: builder.call(function, lanes), *operands)


def _define(module: Any, name: str, kind: ir.Type, body: Callable[[Any, Any], None]) -> ir.Function:
    function = ir.Function(module, ir.FunctionType(kind, [kind, kind]), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    body(ir.IRBuilder(function.append_basic_block("entry")), function)
    return function


class _Fmod:
    """The remainder of two positive floats as integers m · 2ᵉ: m₁ 2^(e₁ − e₂) mod m₂."""

    def __init__(self, like: Real) -> None:
        self.mantissa = 52 if like.is_double else 23
        self.bias = 1023 if like.is_double else 127
        self.code, self.bits = like.code, like.bits

    def emit(self, builder: Any, function: ir.Function) -> None:
        a, b = (self._parts(builder, argument) for argument in function.args)
        (top, exponent), (bottom, lowest) = a, b
        zero, chunk = ir.Constant(I64, 0), ir.Constant(I64, 63 - self.mantissa)
        bottom = builder.select(builder.icmp_unsigned("==", bottom, zero), ir.Constant(I64, 1), bottom)
        first = builder.urem(top, bottom)
        distance = builder.sub(exponent, lowest)
        entry = builder.block
        loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed(">", distance, zero), loop, after)
        builder.position_at_end(loop)
        rest, left = builder.phi(I64), builder.phi(I64)
        step = builder.select(builder.icmp_signed("<", left, chunk), left, chunk)
        next_rest, next_left = builder.urem(builder.shl(rest, step), bottom), builder.sub(left, step)
        for phi, start, following in ((rest, first, next_rest), (left, distance, next_left)):
            phi.add_incoming(start, entry)
            phi.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed(">", next_left, zero), loop, after)
        builder.position_at_end(after)
        final = builder.phi(I64)
        final.add_incoming(first, entry)
        final.add_incoming(next_rest, loop)
        smaller = builder.icmp_signed("<", distance, zero)  # then a < b, and a is the remainder
        builder.ret(builder.select(smaller, function.args[0], self._float(builder, function, final, lowest)))

    def _parts(self, builder: Any, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(mantissa, exponent of its last bit), the exponent counted from that of denormals."""
        bits = builder.bitcast(x, ir.IntType(self.bits))
        bits = bits if self.bits == 64 else builder.zext(bits, I64)
        exponent = builder.lshr(bits, ir.Constant(I64, self.mantissa))
        normal = builder.icmp_unsigned("!=", exponent, ir.Constant(I64, 0))
        fraction = builder.and_(bits, ir.Constant(I64, (1 << self.mantissa) - 1))
        whole = builder.or_(fraction, ir.Constant(I64, 1 << self.mantissa))
        shifted = builder.sub(exponent, ir.Constant(I64, 1))
        return builder.select(normal, whole, fraction), builder.select(normal, shifted, ir.Constant(I64, 0))

    def _float(self, builder: Any, function: ir.Function, whole: ir.Value, exponent: ir.Value) -> ir.Value:
        """whole · 2^exponent of the smallest denormal: exact, since each step only raises it."""
        kind, bits = function.args[0].type, ir.IntType(self.bits)
        value = builder.fmul(builder.uitofp(whole, kind), builder.bitcast(ir.Constant(bits, 1), kind))
        bias = ir.Constant(I64, self.bias)
        low = builder.select(builder.icmp_unsigned("<", exponent, bias), exponent, bias)
        for part in (low, builder.sub(exponent, low)):
            field = builder.shl(builder.add(part, bias), ir.Constant(I64, self.mantissa))
            field = field if self.bits == 64 else builder.trunc(field, bits)
            value = builder.fmul(value, builder.bitcast(field, kind))
        return value


# Integers ------------------------------------------------------------------------------------------------------------
def divide_integers(builder: Any, a: ir.Value, b: ir.Value, signed: bool) -> tuple[ir.Value, ir.Value]:
    """(quotient rounded down, remainder with the sign of b); both 0 for b = 0; the lowest number by −1 is itself."""
    zero, one = constant(a.type, 0), constant(a.type, 1)
    by_zero = builder.icmp_unsigned("==", b, zero)
    if not signed:
        safe = builder.select(by_zero, one, b)
        quotient = builder.select(by_zero, zero, builder.udiv(a, safe))
        return quotient, builder.select(by_zero, zero, builder.urem(a, safe))
    by_minus_one = builder.icmp_signed("==", b, constant(a.type, -1))
    safe = builder.select(builder.or_(by_zero, by_minus_one), one, b)
    quotient, rest = builder.sdiv(a, safe), builder.srem(a, safe)
    other_sign = builder.icmp_signed("<", builder.xor(rest, b), zero)
    adjust = builder.and_(builder.icmp_signed("!=", rest, zero), other_sign)
    quotient = builder.select(adjust, builder.sub(quotient, one), quotient)
    rest = builder.select(adjust, builder.add(rest, b), rest)
    quotient = builder.select(by_minus_one, builder.sub(zero, a), quotient)
    return builder.select(by_zero, zero, quotient), rest


def integer_power(builder: Any, a: ir.Value, b: ir.Value, signed: bool) -> ir.Value:
    """a to the b by squaring, modulo the width; with a negative exponent what is left of the fraction: 0, 1 or −1.

    (The interpreter refuses negative exponents; a compiled loop cannot.)
    """
    module, name = builder.module, f"highlevel.power{element(a.type).width}"
    function = module.globals.get(name) or _define(module, name, element(a.type), _emit_power)
    if not signed:
        return _called(builder, function, a, b)
    zero, one = constant(a.type, 0), constant(a.type, 1)
    negative = builder.icmp_signed("<", b, zero)
    unit = builder.or_(
        builder.icmp_signed("==", a, one), builder.icmp_signed("==", a, constant(a.type, -1))
    )
    power = _called(builder, function, a, builder.select(negative, builder.and_(b, one), b))
    return builder.select(builder.and_(negative, builder.not_(unit)), zero, power)


def _emit_power(builder: Any, function: ir.Function) -> None:
    base, exponent = function.args
    kind = base.type
    zero, one = ir.Constant(kind, 0), ir.Constant(kind, 1)
    entry, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    result, square, left = builder.phi(kind), builder.phi(kind), builder.phi(kind)
    odd = builder.icmp_unsigned("!=", builder.and_(left, one), zero)
    next_result = builder.select(odd, builder.mul(result, square), result)
    next_square, next_left = builder.mul(square, square), builder.lshr(left, one)
    for phi, start, following in (
        (result, one, next_result), (square, base, next_square), (left, exponent, next_left)
    ):  # fmt: skip
        phi.add_incoming(start, entry)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_unsigned("!=", next_left, zero), loop, after)
    builder.position_at_end(after)
    builder.ret(next_result)
