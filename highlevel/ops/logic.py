"""Truth and bits: logical functions, comparisons within a tolerance, bits and divisors of whole numbers."""

from __future__ import annotations

from typing import Any

from highlevel.errors import DTypeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import bool_, int32
from highlevel.ir.operators import cast, match, operand

from .elementwise import Function, isfinite, isnan, named
from .registry import COVERED, op


def _truth(x: Any) -> Any:
    return cast(x, bool_)


@op
def logical_and(x1: Any, x2: Any) -> Any:
    """Whether both are true (not zero)."""
    return operators.bitwise_and(_truth(x1), _truth(x2))


@op
def logical_or(x1: Any, x2: Any) -> Any:
    """Whether either is true (not zero)."""
    return operators.bitwise_or(_truth(x1), _truth(x2))


@op
def logical_xor(x1: Any, x2: Any) -> Any:
    """Whether just one is true (not zero)."""
    return operators.bitwise_xor(_truth(x1), _truth(x2))


@op
def logical_not(x: Any) -> Any:
    """Whether the value is false (zero)."""
    return primitives.invert(_truth(x))


@op
def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether |x1 − x2| ≤ atol + rtol·|x2|."""
    a, b = match(x1, x2, operator="isclose", floating=True)
    near = operators.less_equal(primitives.abs(a - b), atol + rtol * primitives.abs(b)) & isfinite(b)
    same = primitives.equal(a, b) | near
    return same | (isnan(a) & isnan(b)) if equal_nan else same


@op
def allclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether all elements are close; see `isclose`."""
    close = isclose(x1, x2, rtol, atol, equal_nan)
    return primitives.invert(cast(primitives.reduce_sum(cast(~close, int32), axes=tuple(range(close.ndim))), bool_))


# Bits ------------------------------------------------------------------------------------------------------------
def _bits(name: str, primitive: str, summary: str) -> Function:
    COVERED.add(primitive)

    def call(x: Any, y: Any) -> Any:
        a, b = match(x, y, operator=name)
        if a.dtype.is_float:
            raise DTypeError(
                f"{name}: bits of integers only", got=f"{a.spec} and {b.spec}", expected="integers or bool"
            )
        return getattr(primitives, primitive)(a, b)

    return named(name, call, summary)


bitwise_and = _bits("bitwise_and", "bit_and", "The bits that both have.")
bitwise_or = _bits("bitwise_or", "bit_or", "The bits that either has.")
bitwise_xor = _bits("bitwise_xor", "bit_xor", "The bits that just one has.")
bitwise_left_shift = _bits("bitwise_left_shift", "shift_left", "The bits of x moved up by y places.")
left_shift = _bits("left_shift", "shift_left", "The bits of x moved up by y places.")
bitwise_right_shift = _bits("bitwise_right_shift", "shift_right", "The bits of x moved down by y places.")
right_shift = _bits("right_shift", "shift_right", "The bits of x moved down by y places.")


@op
def bitwise_invert(x: Any) -> Any:
    """All bits flipped; for bool: not."""
    return primitives.invert(operand(x))


@op
def bitwise_not(x: Any) -> Any:
    """All bits flipped; for bool: not."""
    return primitives.invert(operand(x))


# Divisors --------------------------------------------------------------------------------------------------------
def _integers(name: str, x1: Any, x2: Any) -> Any:
    a, b = match(x1, x2, operator=name)
    if not a.dtype.is_integer:
        raise DTypeError(f"{name}: operands are not integers", got=f"{a.spec} and {b.spec}", expected="integers")
    return a, b


@op
def gcd(x1: Any, x2: Any) -> Any:
    """The greatest common divisor, by Euclid's algorithm."""
    a, b = _integers("gcd", x1, x2)

    def step(a: Any, b: Any) -> Any:
        done = operators.equal(b, 0)
        rest = primitives.mod(a, primitives.select(done, operators.ones_like(b), b))
        return primitives.select(done, a, b), primitives.select(done, b, rest)

    def goes_on(a: Any, b: Any) -> Any:
        return primitives.reduce_max(operators.not_equal(b, 0), axes=tuple(range(b.ndim)))

    if a.size == 0:
        return a
    return operators.absolute(control.while_loop(goes_on, step, (a, b))[0])


@op
def lcm(x1: Any, x2: Any) -> Any:
    """The least common multiple."""
    a, b = _integers("lcm", x1, x2)
    divisor = gcd(a, b)
    safe = primitives.maximum(divisor, operators.ones_like(divisor))
    return operators.absolute(primitives.floor_div(a, safe) * b)
