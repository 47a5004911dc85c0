"""Registers: LLVM values with the operators of Python, for formulas that read like formulas.

`Real` (float32 or float64), `Whole` (an integer, signed where it matters) and `Flag` (one bit). An operation appends
one instruction; there are no branches, so that a loop around any formula can be vectorised. Python numbers beside a
register become constants of its type. No fast-math flags: every operation rounds once, as IEEE says.

A register may as well hold a vector: all operations go lane by lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from llvmlite import ir

FLOAT, DOUBLE, BIT = ir.FloatType(), ir.DoubleType(), ir.IntType(1)
I32, I64 = ir.IntType(32), ir.IntType(64)


# Types that may be vectors -------------------------------------------------------------------------------------------
def element(kind: Any) -> Any:
    """The type of a lane."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def shaped(kind: Any, like: Any) -> Any:
    """A type of lanes, with as many of them as another type has."""
    return ir.VectorType(kind, like.count) if isinstance(like, ir.VectorType) else kind


def mangled(kind: Any) -> str:
    """The type as names of intrinsics have it: f32, v16i1."""
    lane = element(kind)
    name = f"i{lane.width}" if isinstance(lane, ir.IntType) else {FLOAT: "f32", DOUBLE: "f64"}.get(lane, "f16")
    return f"v{kind.count}{name}" if isinstance(kind, ir.VectorType) else name


class Splat(ir.Constant):  # type: ignore[misc]
    """A number in all lanes, written once: llvmlite spells vectors out lane by lane."""

    def __init__(self, kind: Any, value: Any) -> None:
        self.type, self.constant = kind, value

    def _get_reference(self) -> str:
        return f"splat ({ir.Constant(self.type.element, self.constant)})"

    def _to_string(self) -> str:
        return f"{self.type} {self._get_reference()}"


def constant(kind: Any, value: Any) -> Any:
    """A number, in all lanes."""
    if isinstance(kind, ir.VectorType):
        return Splat(kind, value)
    return ir.Constant(kind, value)


def lane_by_lane(builder: Any, function: Callable[..., Any], *operands: Any) -> Any:
    """A function of scalars, for each lane of its operands."""
    kind = operands[0].type
    if not isinstance(kind, ir.VectorType):
        return function(*operands)
    result = None
    for lane in range(kind.count):
        found = function(*(builder.extract_element(operand, I32(lane)) for operand in operands))
        if result is None:
            result = ir.Constant(ir.VectorType(found.type, kind.count), ir.Undefined)
        result = builder.insert_element(result, found, I32(lane))
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """Where instructions go, and what the machine has.

    fma:      `fma` is an instruction; else it is composed, since a call of the C library does not vectorise
    rounding: floor, ceil and round to even are instructions
    """

    builder: Any
    fma: bool = True
    rounding: bool = True

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """A call of an intrinsic of LLVM, by its full name."""
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(function, arguments)


@dataclass(frozen=True, slots=True, eq=False)
class Flag:
    """A truth value."""

    value: ir.Value
    code: Code

    def __and__(self, other: Flag) -> Flag:
        return Flag(self.code.builder.and_(self.value, other.value), self.code)

    def __or__(self, other: Flag) -> Flag:
        return Flag(self.code.builder.or_(self.value, other.value), self.code)

    def __xor__(self, other: Flag) -> Flag:
        return Flag(self.code.builder.xor(self.value, other.value), self.code)

    def __invert__(self) -> Flag:
        return Flag(self.code.builder.not_(self.value), self.code)


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """A float32 or float64."""

    value: ir.Value
    code: Code

    @property
    def type(self) -> Any:
        return self.value.type

    @property
    def is_double(self) -> bool:
        return bool(element(self.value.type) == DOUBLE)

    @property
    def bits(self) -> int:
        return 64 if self.is_double else 32

    def constant(self, value: float) -> Real:
        return Real(constant(self.type, value), self.code)

    def _with(self, instruction: str, other: Real | float, *, swap: bool = False) -> Real:
        right = other if isinstance(other, Real) else self.constant(other)
        a, b = (right, self) if swap else (self, right)
        return Real(getattr(self.code.builder, instruction)(a.value, b.value), self.code)

    def __add__(self, other: Real | float) -> Real:
        return self._with("fadd", other)

    def __radd__(self, other: float) -> Real:
        return self._with("fadd", other, swap=True)

    def __sub__(self, other: Real | float) -> Real:
        return self._with("fsub", other)

    def __rsub__(self, other: float) -> Real:
        return self._with("fsub", other, swap=True)

    def __mul__(self, other: Real | float) -> Real:
        return self._with("fmul", other)

    def __rmul__(self, other: float) -> Real:
        return self._with("fmul", other, swap=True)

    def __truediv__(self, other: Real | float) -> Real:
        return self._with("fdiv", other)

    def __rtruediv__(self, other: float) -> Real:
        return self._with("fdiv", other, swap=True)

    def __neg__(self) -> Real:
        return Real(self.code.builder.fneg(self.value), self.code)

    def _compare(self, predicate: str, other: Real | float) -> Flag:
        right = other if isinstance(other, Real) else self.constant(other)
        return Flag(self.code.builder.fcmp_ordered(predicate, self.value, right.value), self.code)

    def __lt__(self, other: Real | float) -> Flag:
        return self._compare("<", other)

    def __le__(self, other: Real | float) -> Flag:
        return self._compare("<=", other)

    def __gt__(self, other: Real | float) -> Flag:
        return self._compare(">", other)

    def __ge__(self, other: Real | float) -> Flag:
        return self._compare(">=", other)

    def equals(self, other: Real | float) -> Flag:
        return self._compare("==", other)

    def is_nan(self) -> Flag:
        return Flag(self.code.builder.fcmp_unordered("uno", self.value, self.value), self.code)

    def _intrinsic(self, name: str, *others: Real) -> Real:
        values = [self.value, *(other.value for other in others)]
        return Real(self.code.call(f"llvm.{name}.{mangled(self.type)}", self.type, *values), self.code)

    def abs(self) -> Real:
        return self._intrinsic("fabs")

    def sqrt(self) -> Real:
        return self._intrinsic("sqrt")

    def with_sign_of(self, other: Real) -> Real:
        return self._intrinsic("copysign", other)

    def round(self) -> Real:
        """The nearest whole number, ties to even."""
        if self.code.rounding:
            return self._intrinsic("rint")
        return self._rounded_by_adding()

    def floor(self) -> Real:
        if self.code.rounding:
            return self._intrinsic("floor")
        near = self._rounded_by_adding()
        return where(near > self, near - 1.0, near).with_sign_of(self)

    def ceil(self) -> Real:
        if self.code.rounding:
            return self._intrinsic("ceil")
        near = self._rounded_by_adding()
        return where(near < self, near + 1.0, near).with_sign_of(self)

    def _rounded_by_adding(self) -> Real:
        """Beyond `limit` all numbers are whole; below, adding it drops the fraction."""
        limit = 2.0**52 if self.is_double else 2.0**23
        magnitude = self.abs()
        return where(magnitude < limit, ((magnitude + limit) - limit).with_sign_of(self), self)

    def as_bits(self) -> Whole:
        return Whole(self.code.builder.bitcast(self.value, shaped(ir.IntType(self.bits), self.type)), self.code)

    def widen(self) -> Real:
        """As float64."""
        if self.is_double:
            return self
        return Real(self.code.builder.fpext(self.value, shaped(DOUBLE, self.type)), self.code)

    def narrow(self) -> Real:
        """As float32, rounded to nearest even."""
        if not self.is_double:
            return self
        return Real(self.code.builder.fptrunc(self.value, shaped(FLOAT, self.type)), self.code)


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """An integer; `>>` copies the sign, comparisons and conversions are signed."""

    value: ir.Value
    code: Code

    @property
    def bits(self) -> int:
        return int(element(self.value.type).width)

    def _with(self, instruction: str, other: Whole | int) -> Whole:
        right = other.value if isinstance(other, Whole) else constant(self.value.type, other)
        return Whole(getattr(self.code.builder, instruction)(self.value, right), self.code)

    def __add__(self, other: Whole | int) -> Whole:
        return self._with("add", other)

    def __sub__(self, other: Whole | int) -> Whole:
        return self._with("sub", other)

    def __rsub__(self, other: int) -> Whole:
        return Whole(constant(self.value.type, other), self.code) - self

    def __mul__(self, other: Whole | int) -> Whole:
        return self._with("mul", other)

    def __and__(self, other: Whole | int) -> Whole:
        return self._with("and_", other)

    def __or__(self, other: Whole | int) -> Whole:
        return self._with("or_", other)

    def __xor__(self, other: Whole | int) -> Whole:
        return self._with("xor", other)

    def __lshift__(self, count: Whole | int) -> Whole:
        return self._with("shl", count)

    def __rshift__(self, count: Whole | int) -> Whole:
        return self._with("ashr", count)

    def shift_in_zeros(self, count: Whole | int) -> Whole:
        """To the right."""
        return self._with("lshr", count)

    def _compare(self, predicate: str, other: Whole | int) -> Flag:
        right = other.value if isinstance(other, Whole) else constant(self.value.type, other)
        return Flag(self.code.builder.icmp_signed(predicate, self.value, right), self.code)

    def __lt__(self, other: Whole | int) -> Flag:
        return self._compare("<", other)

    def __gt__(self, other: Whole | int) -> Flag:
        return self._compare(">", other)

    def equals(self, other: Whole | int) -> Flag:
        return self._compare("==", other)

    def has(self, mask: int) -> Flag:
        """Whether any bit of the mask is set."""
        return (self & mask)._compare("!=", 0)

    def resized(self, bits: int) -> Whole:
        """In another width: cut off, or with the sign copied."""
        builder, wanted = self.code.builder, shaped(ir.IntType(bits), self.value.type)
        if bits == self.bits:
            return self
        return Whole((builder.trunc if bits < self.bits else builder.sext)(self.value, wanted), self.code)

    def as_real(self) -> Real:
        """The float with these bits."""
        return Real(self.code.builder.bitcast(self.value, self._real_type), self.code)

    def to_real(self) -> Real:
        """The float of this value, as wide as the integer."""
        return Real(self.code.builder.sitofp(self.value, self._real_type), self.code)

    @property
    def _real_type(self) -> Any:
        return shaped(DOUBLE if self.bits == 64 else FLOAT, self.value.type)


# Formulas ------------------------------------------------------------------------------------------------------------
@overload
def where(condition: Flag, a: Real, b: Real | float) -> Real: ...
@overload
def where(condition: Flag, a: float, b: Real) -> Real: ...
@overload
def where(condition: Flag, a: Whole, b: Whole) -> Whole: ...
def where(condition: Flag, a: Any, b: Any) -> Any:
    """a where the condition holds, else b: both of one kind; one of two Reals may be a Python number."""
    if isinstance(a, (int, float)):
        a = b.constant(a)
    if isinstance(b, (int, float)):
        b = a.constant(b)
    return type(a)(condition.code.builder.select(condition.value, a.value, b.value), condition.code)


def fma(a: Real, b: Real | float, c: Real | float) -> Real:
    """a·b + c, rounded once: for formulas whose correctness depends on it."""
    b = b if isinstance(b, Real) else a.constant(b)
    c = c if isinstance(c, Real) else a.constant(c)
    if a.code.fma:
        return a._intrinsic("fma", b, c)
    if not a.is_double:  # the product is exact in float64
        return (a.widen() * b.widen() + c.widen()).narrow()
    product, rest = _product_by_halves(a, b)
    total, lost = two_sum(product, c)
    return total + (lost + rest)


def axpy(a: Real, b: Real | float, c: Real | float) -> Real:
    """a·b + c, rounded once or twice, whichever is faster: for polynomials."""
    return fma(a, b, c) if a.code.fma else a * b + c


def polynomial(x: Real, coefficients: Sequence[float]) -> Real:
    """Σ cᵢ xⁱ by Horner's rule."""
    result: Real | float = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = axpy(x, result, coefficient)
    assert isinstance(result, Real)
    return result


# Unevaluated sums of two floats ----------------------------------------------------------------------------------
def two_sum(a: Real, b: Real) -> tuple[Real, Real]:
    """(a + b rounded, what was lost), exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def fast_two_sum(a: Real, b: Real) -> tuple[Real, Real]:
    """`two_sum` for |a| ≥ |b|."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Real, b: Real) -> tuple[Real, Real]:
    """(a·b rounded, what was lost), exactly unless it underflows."""
    if not a.code.fma and a.is_double:
        return _product_by_halves(a, b)
    product = a * b
    return product, fma(a, b, -product)


def _product_by_halves(a: Real, b: Real) -> tuple[Real, Real]:
    """Dekker's product of float64: halves of 26 bits (the lower one signed), cut as integers so that none overflows."""
    product = a * b
    a_high, b_high = (((x.as_bits() + (1 << 26)) & -(1 << 27)).as_real() for x in (a, b))
    a_low, b_low = a - a_high, b - b_high
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, rest
