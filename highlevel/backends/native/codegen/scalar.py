"""The scalar language as LLVM instructions: what elementwise records mean, in machine code.

`LlvmScalars` has the methods of the interpreter's `NumpyScalars` and their results: the same for integers and bool, and
for floats within the bounds of vecmath.py. Nothing branches and (but for remainders of floats and powers of integers)
nothing is called, so that loops around it are vectorised.

In registers a bool is one bit and float16 and bfloat16 are float32 that the type can hold: every operation computes
in float32 and rounds to the type. In memory (`memory_type`) a bool is a byte, and the half types are 16-bit integers.

With `lanes` a scalar is a vector of them: neighbours in memory, computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from llvmlite import ir

from highlevel.ir import DType
from highlevel.ir.dtypes import bfloat16, bool_, float16, float32, float64

from . import remainder, special_functions, trigonometry, vecmath
from .registers import BIT, DOUBLE, FLOAT, I32, Code, Flag, Real, Whole, constant, element, mangled, where

I16 = ir.IntType(16)


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A value in a register, and the element type it stands for."""

    value: ir.Value
    dtype: DType


class Machine(Protocol):
    """What of a target matters here."""

    @property
    def arch(self) -> str: ...
    @property
    def features(self) -> str: ...
    @property
    def fma(self) -> bool: ...


def register_type(dtype: DType) -> ir.Type:
    """The LLVM type of `Scalar.value`."""
    if dtype.is_float:
        return DOUBLE if dtype is float64 else FLOAT
    return BIT if dtype.is_bool else ir.IntType(8 * dtype.size_bytes)


def memory_type(dtype: DType) -> ir.Type:
    """The LLVM type of an element of a buffer."""
    if dtype in (float32, float64):
        return register_type(dtype)
    return ir.IntType(8 * dtype.size_bytes)


def _function(name: str) -> Callable[..., Any]:
    """A function of floats, from whichever file has it."""
    for module in (vecmath, trigonometry, special_functions):
        if hasattr(module, name):
            found: Callable[..., Any] = getattr(module, name)
            return found
    raise AssertionError(name)


class LlvmScalars:
    """The scalar language; instructions go where the builder stands.

    target: the CPU, where it matters that it may lack fused multiply-add, rounding or conversion of float16
    lanes:  how many scalars a register holds; all operands have as many
    """

    def __init__(self, builder: Any, target: Machine | None = None, lanes: int = 1) -> None:
        self.builder = builder
        self.lanes = lanes
        lacks = set(target.features.split(",")) if target is not None and target.arch == "x86_64" else set()
        self.converts_half = "-f16c" not in lacks
        self.code = Code(builder, fma=target is None or target.fma, rounding="-sse4.1" not in lacks)

    # Registers -------------------------------------------------------------------------------------------------------
    def of_lanes(self, kind: ir.Type) -> ir.Type:
        """The type of a register with that type in each lane."""
        return ir.VectorType(kind, self.lanes) if self.lanes > 1 else kind

    def register_type(self, dtype: DType) -> ir.Type:
        """The LLVM type of `Scalar.value`."""
        return self.of_lanes(register_type(dtype))

    def spread(self, x: Scalar) -> Scalar:
        """A single scalar in all lanes."""
        if self.lanes == 1 or isinstance(x.value.type, ir.VectorType):
            return x
        if isinstance(x.value, ir.Constant):
            return Scalar(constant(self.of_lanes(x.value.type), x.value.constant), x.dtype)
        kind = self.of_lanes(x.value.type)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), x.value, I32(0))
        order = ir.Constant(self.of_lanes(I32), [0] * self.lanes)
        return Scalar(self.builder.shuffle_vector(first, first, order), x.dtype)

    def number(self, value: Any, dtype: DType) -> Scalar:
        """A constant of a type."""
        if dtype.is_float:
            with np.errstate(over="ignore"):
                value = float(np.asarray(value, np.float64).astype(dtype.numpy))
        else:
            value = int(bool(value) if dtype.is_bool else value)
        return Scalar(constant(self.register_type(dtype), value), dtype)

    def constant(self, value: float, like: Scalar) -> Scalar:
        return self.number(value, like.dtype)

    def load(self, pointer: ir.Value, dtype: DType, mask: ir.Value | None = None) -> Scalar:
        """An element of a buffer, or as many neighbours as there are lanes; 0 in lanes that a mask leaves out."""
        kind = self.of_lanes(memory_type(dtype))
        if mask is None:
            value = self.builder.load(pointer, typ=kind, align=dtype.size_bytes)
        else:
            name, align = f"llvm.masked.load.{mangled(kind)}.p0", I32(dtype.size_bytes)
            value = self.code.call(name, kind, pointer, align, mask, constant(kind, 0))
        return self._from_memory(value, dtype)

    def store(self, pointer: ir.Value, x: Scalar, mask: ir.Value | None = None) -> None:
        value = self._to_memory(x)
        if mask is None:
            self.builder.store(value, pointer, align=x.dtype.size_bytes)
        else:
            name, align = f"llvm.masked.store.{mangled(value.type)}.p0", I32(x.dtype.size_bytes)
            self.code.call(name, ir.VoidType(), value, pointer, align, mask)

    def _from_memory(self, value: ir.Value, dtype: DType) -> Scalar:
        if dtype.is_bool:
            value = self.builder.icmp_unsigned("!=", value, constant(value.type, 0))
        elif dtype is bfloat16:
            wide = self.builder.zext(value, self.of_lanes(I32))
            value = self.builder.bitcast(self.builder.shl(wide, constant(wide.type, 16)), self.of_lanes(FLOAT))
        elif dtype is float16 and self.converts_half:
            halves = self.builder.bitcast(value, self.of_lanes(ir.HalfType()))
            value = self.builder.fpext(halves, self.of_lanes(FLOAT))
        elif dtype is float16:
            value = _widen_half(Whole(self.builder.zext(value, self.of_lanes(I32)), self.code)).value
        return Scalar(value, dtype)

    def _to_memory(self, x: Scalar) -> ir.Value:
        if x.dtype.is_bool:
            return self.builder.zext(x.value, self.of_lanes(memory_type(x.dtype)))
        if x.dtype is bfloat16:
            return self.builder.trunc(self._real(x).as_bits().shift_in_zeros(16).value, self.of_lanes(I16))
        if x.dtype is float16 and self.converts_half:
            halves = self.builder.fptrunc(x.value, self.of_lanes(ir.HalfType()))
            return self.builder.bitcast(halves, self.of_lanes(I16))
        if x.dtype is float16:
            return self.builder.trunc(_narrow_half(self._real(x)).value, self.of_lanes(I16))
        return x.value

    def _real(self, x: Scalar) -> Real:
        return Real(x.value, self.code)

    def _whole(self, x: Scalar) -> Whole:
        return Whole(x.value, self.code)

    def _flag(self, x: Scalar) -> Flag:
        return Flag(x.value, self.code)

    def _rounded(self, x: Real, dtype: DType) -> Scalar:
        """A result as a number of the type; half types round here."""
        if dtype is bfloat16:
            x = _round_to_bfloat16(x)
        elif dtype is float16 and self.converts_half:
            halves = self.builder.fptrunc(x.value, self.of_lanes(ir.HalfType()))
            x = Real(self.builder.fpext(halves, self.of_lanes(FLOAT)), self.code)
        elif dtype is float16:
            x = _round_to_half(x)
        return Scalar(x.value, dtype)

    def _float(self, name: str, *operands: Scalar) -> Scalar:
        return self._rounded(_function(name)(*map(self._real, operands)), operands[0].dtype)

    # Conversion ------------------------------------------------------------------------------------------------------
    def cast(self, x: Scalar, dtype: DType) -> Scalar:
        if dtype is x.dtype:
            return x
        if dtype.is_bool:
            zero = constant(x.value.type, 0)
            test = self.builder.fcmp_unordered if x.dtype.is_float else self.builder.icmp_unsigned
            return Scalar(test("!=", x.value, zero), dtype)
        if dtype.is_float:
            return self._cast_to_float(x, dtype)
        if x.dtype.is_float:
            return self._cast_saturating(x, dtype)
        wanted = self.register_type(dtype)
        if dtype.size_bytes < x.dtype.size_bytes:
            return Scalar(self.builder.trunc(x.value, wanted), dtype)
        if not x.dtype.is_bool and dtype.size_bytes == x.dtype.size_bytes:
            return Scalar(x.value, dtype)
        return Scalar((self.builder.sext if x.dtype.kind == "int" else self.builder.zext)(x.value, wanted), dtype)

    def _cast_to_float(self, x: Scalar, dtype: DType) -> Scalar:
        wanted = self.register_type(dtype)
        if not x.dtype.is_float:
            convert = self.builder.sitofp if x.dtype.kind == "int" else self.builder.uitofp
            return self._rounded(Real(convert(x.value, wanted), self.code), dtype)
        real = self._real(x)
        if dtype is float64:
            return Scalar(real.widen().value, dtype)
        if x.dtype is float64:
            real = _narrow_to_odd(real) if dtype is float16 else real.narrow()
        return self._rounded(real, dtype)

    def _cast_saturating(self, x: Scalar, dtype: DType) -> Scalar:
        sign, wanted = "s" if dtype.kind == "int" else "u", self.register_type(dtype)
        name = f"llvm.fpto{sign}i.sat.{mangled(wanted)}.{mangled(x.value.type)}"
        return Scalar(self.code.call(name, wanted, x.value), dtype)

    def bitcast(self, x: Scalar, dtype: DType) -> Scalar:
        bits, wanted = self._to_memory(x), self.of_lanes(memory_type(dtype))
        return self._from_memory(bits if bits.type == wanted else self.builder.bitcast(bits, wanted), dtype)

    # One operand -----------------------------------------------------------------------------------------------------
    def neg(self, x: Scalar) -> Scalar:
        if x.dtype.is_float:
            return Scalar(self.builder.fneg(x.value), x.dtype)
        return Scalar(self.builder.sub(constant(x.value.type, 0), x.value), x.dtype)

    def abs(self, x: Scalar) -> Scalar:
        if x.dtype.is_float:
            return Scalar(self._real(x).abs().value, x.dtype)
        if x.dtype.kind != "int":
            return x
        whole = self._whole(x)
        return Scalar(where(whole < 0, 0 - whole, whole).value, x.dtype)

    def sign(self, x: Scalar) -> Scalar:
        if x.dtype.is_float:
            real = self._real(x)
            return Scalar(where(real > 0.0, 1.0, where(real < 0.0, -1.0, real + 0.0)).value, x.dtype)  # −0 gives 0
        wanted, zero = x.value.type, constant(x.value.type, 0)
        positive = self.builder.zext(self.builder.icmp_unsigned("!=", x.value, zero), wanted)
        if x.dtype.kind != "int":
            return Scalar(positive, x.dtype)
        negative = self.builder.ashr(x.value, constant(wanted, element(wanted).width - 1))
        return Scalar(self.builder.or_(positive, negative), x.dtype)

    def floor(self, x: Scalar) -> Scalar:
        return Scalar(self._real(x).floor().value, x.dtype)

    def ceil(self, x: Scalar) -> Scalar:
        return Scalar(self._real(x).ceil().value, x.dtype)

    def round(self, x: Scalar) -> Scalar:
        return Scalar(self._real(x).round().value, x.dtype)

    def sqrt(self, x: Scalar) -> Scalar:
        return self._rounded(self._real(x).sqrt(), x.dtype)

    def exp(self, x: Scalar) -> Scalar:
        return self._float("exp", x)

    def expm1(self, x: Scalar) -> Scalar:
        return self._float("expm1", x)

    def log(self, x: Scalar) -> Scalar:
        return self._float("log", x)

    def log1p(self, x: Scalar) -> Scalar:
        return self._float("log1p", x)

    def sin(self, x: Scalar) -> Scalar:
        return self._float("sin", x)

    def cos(self, x: Scalar) -> Scalar:
        return self._float("cos", x)

    def tan(self, x: Scalar) -> Scalar:
        return self._float("tan", x)

    def asin(self, x: Scalar) -> Scalar:
        return self._float("asin", x)

    def acos(self, x: Scalar) -> Scalar:
        return self._float("acos", x)

    def atan(self, x: Scalar) -> Scalar:
        return self._float("atan", x)

    def sinh(self, x: Scalar) -> Scalar:
        return self._float("sinh", x)

    def cosh(self, x: Scalar) -> Scalar:
        return self._float("cosh", x)

    def tanh(self, x: Scalar) -> Scalar:
        return self._float("tanh", x)

    def asinh(self, x: Scalar) -> Scalar:
        return self._float("asinh", x)

    def acosh(self, x: Scalar) -> Scalar:
        return self._float("acosh", x)

    def atanh(self, x: Scalar) -> Scalar:
        return self._float("atanh", x)

    def erf(self, x: Scalar) -> Scalar:
        return self._float("erf", x)

    def erfinv(self, x: Scalar) -> Scalar:
        return self._float("erfinv", x)

    def lgamma(self, x: Scalar) -> Scalar:
        return self._float("lgamma", x)

    def digamma(self, x: Scalar) -> Scalar:
        return self._float("digamma", x)

    def isfinite(self, x: Scalar) -> Scalar:
        return Scalar((self._real(x).abs() < vecmath.INF).value, bool_)

    def invert(self, x: Scalar) -> Scalar:
        return Scalar(self.builder.not_(x.value), x.dtype)

    # Arithmetic ------------------------------------------------------------------------------------------------------
    def _arithmetic(self, a: Scalar, b: Scalar, of_floats: str, of_integers: str, of_bools: str) -> Scalar:
        if a.dtype.is_float:
            return self._rounded(Real(getattr(self.builder, of_floats)(a.value, b.value), self.code), a.dtype)
        instruction = of_bools if a.dtype.is_bool else of_integers
        return Scalar(getattr(self.builder, instruction)(a.value, b.value), a.dtype)

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        return self._arithmetic(a, b, "fadd", "add", "or_")

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        return self._arithmetic(a, b, "fsub", "sub", "xor")

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        return self._arithmetic(a, b, "fmul", "mul", "and_")

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        return self._rounded(self._real(a) / self._real(b), a.dtype)

    def floor_div(self, a: Scalar, b: Scalar) -> Scalar:
        if a.dtype.is_float:
            return self._rounded(remainder.floor_div(self._real(a), self._real(b)), a.dtype)
        return Scalar(remainder.divide_integers(self.builder, a.value, b.value, a.dtype.kind == "int")[0], a.dtype)

    def mod(self, a: Scalar, b: Scalar) -> Scalar:
        if a.dtype.is_float:
            return self._rounded(remainder.mod(self._real(a), self._real(b)), a.dtype)
        return Scalar(remainder.divide_integers(self.builder, a.value, b.value, a.dtype.kind == "int")[1], a.dtype)

    def pow(self, a: Scalar, b: Scalar) -> Scalar:
        if a.dtype.is_float:
            return self._float("pow", a, b)
        return Scalar(remainder.integer_power(self.builder, a.value, b.value, a.dtype.kind == "int"), a.dtype)

    def atan2(self, a: Scalar, b: Scalar) -> Scalar:
        return self._float("atan2", a, b)

    # Comparison ------------------------------------------------------------------------------------------------------
    def _compared(self, predicate: str, a: Scalar, b: Scalar) -> ir.Value:
        """False where an operand is NaN."""
        if a.dtype.is_float:
            return self.builder.fcmp_ordered(predicate, a.value, b.value)
        compare = self.builder.icmp_signed if a.dtype.kind == "int" else self.builder.icmp_unsigned
        return compare(predicate, a.value, b.value)

    def _extreme(self, predicate: str, a: Scalar, b: Scalar) -> Scalar:
        """a where it compares, else b; NaN if an operand is."""
        if isinstance(b.value, ir.Constant):  # one test less: a constant is not NaN, or all results are
            a, b = b, a
        chosen = self.builder.select(self._compared(predicate, a, b), a.value, b.value)  # b where unordered
        if a.dtype.is_float:
            chosen = self.builder.select(self._real(a).is_nan().value, a.value, chosen)
        return Scalar(chosen, a.dtype)

    def maximum(self, a: Scalar, b: Scalar) -> Scalar:
        return self._extreme(">", a, b)

    def minimum(self, a: Scalar, b: Scalar) -> Scalar:
        return self._extreme("<", a, b)

    def equal(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self._compared("==", a, b), bool_)

    def not_equal(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self.builder.not_(self._compared("==", a, b)), bool_)

    def less(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self._compared("<", a, b), bool_)

    def less_equal(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self._compared("<=", a, b), bool_)

    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self.builder.select(condition.value, a.value, b.value), a.dtype)

    # Bits ------------------------------------------------------------------------------------------------------------
    def bit_and(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self.builder.and_(a.value, b.value), a.dtype)

    def bit_or(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self.builder.or_(a.value, b.value), a.dtype)

    def bit_xor(self, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(self.builder.xor(a.value, b.value), a.dtype)

    def shift_left(self, a: Scalar, b: Scalar) -> Scalar:
        """0 where all bits leave; a negative count counts as a large one. A bool is a small number, true if not 0."""
        if a.dtype.is_bool:
            return a
        wanted, (inside, count) = a.value.type, self._shift_count(b)
        shifted = self.builder.shl(a.value, count)
        return Scalar(self.builder.select(inside, shifted, constant(wanted, 0)), a.dtype)

    def shift_right(self, a: Scalar, b: Scalar) -> Scalar:
        """Copies the sign of signed integers; 0 or −1 where all bits leave."""
        wanted, (inside, count) = a.value.type, self._shift_count(b)
        if a.dtype.kind == "int":
            count = self.builder.select(inside, count, constant(wanted, element(wanted).width - 1))
            return Scalar(self.builder.ashr(a.value, count), a.dtype)
        shifted = self.builder.lshr(a.value, count)
        return Scalar(self.builder.select(inside, shifted, constant(wanted, 0)), a.dtype)

    def _shift_count(self, b: Scalar) -> tuple[ir.Value, ir.Value]:
        """(whether the count is less than the width, a count that is)."""
        width = element(b.value.type).width
        inside = self.builder.icmp_unsigned("<", b.value, constant(b.value.type, width))
        return inside, self.builder.select(inside, b.value, constant(b.value.type, 0))


# Half types by integer arithmetic ------------------------------------------------------------------------------------
def _round_to_bfloat16(x: Real) -> Real:
    bits = x.as_bits()
    rounded = (bits + (bits.shift_in_zeros(16) & 1) + 0x7FFF) & -0x10000
    quiet = (bits | 0x400000) & -0x10000
    return where(x.is_nan(), quiet, rounded).as_real()


def _round_to_half(x: Real) -> Real:
    """Normal numbers as bits, denormals by adding ½, whose last bit is the smallest denormal."""
    bits, magnitude = x.as_bits(), x.abs()
    normal = ((bits + (bits.shift_in_zeros(13) & 1) + 0xFFF) & -0x2000).as_real()
    small = ((magnitude + 0.5) - 0.5).with_sign_of(x)
    finite = where(magnitude < 2.0**-14, small, normal)
    return where(magnitude < 65520.0, finite, x * vecmath.INF)


def _narrow_half(x: Real) -> Whole:
    """The 16 bits of a float32 that float16 can hold."""
    magnitude, bits = x.abs(), x.as_bits()
    sign = bits.shift_in_zeros(16) & 0x8000
    normal = ((bits & 0x7FFFFFFF) - (112 << 23)) >> 13
    small = (magnitude + 0.5).as_bits() - (126 << 23)
    special = where(x.is_nan(), (bits & 0) + 0x7E00, (bits & 0) + 0x7C00)
    finite = where(magnitude < 2.0**-14, small, normal)
    return sign | where(magnitude < vecmath.INF, finite, special)


def _widen_half(bits: Whole) -> Real:
    """A float16 in the low bits, as float32."""
    magnitude = bits & 0x7FFF
    normal = (magnitude << 13) + (112 << 23)
    small = (magnitude.to_real() * 2.0**-24).as_bits()
    special = where(magnitude > 0x7C00, (bits & 0) + 0x7FC00000, (bits & 0) + 0x7F800000)
    value = where(magnitude < 0x400, small, where(magnitude < 0x7C00, normal, special))
    return (value | ((bits & 0x8000) << 16)).as_real()


def _narrow_to_odd(x: Real) -> Real:
    """float64 as float32, cut off, the last bit telling that something was lost: rounding once more is then exact."""
    near = x.narrow()
    back = near.widen()
    bits = near.as_bits()
    cut = where(back.abs() > x.abs(), bits - 1, bits) | 1
    inexact = ~(back.equals(x) | x.is_nan())
    return where(inexact, cut, bits).as_real()
