"""Vectors of one element type: how they are loaded, widened, multiplied, narrowed and stored; and counted loops.

Half types and small integers are stored small and computed wide: bfloat16 and float16 in float32, 8- and 16-bit
integers and truth values in 32-bit integers. Cutting the wide result off is what wrapping around in the small type
gives, because sums and products modulo 2³² are also right modulo 2⁸. A product of truth values is `and`, a sum `or`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

from highlevel.ir.dtypes import DType, float32, int32

Value: TypeAlias = Any  # llvmlite has no type hints
Builder: TypeAlias = Any

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
POINTER = ir.PointerType()
VOID = ir.VoidType()


class Literal(ir.Constant):  # type: ignore[misc]
    """A constant written as LLVM has it: llvmlite spells vectors out lane by lane."""

    def __init__(self, kind: Value, text: str) -> None:
        self.type, self.constant = kind, text

    def _get_reference(self) -> str:
        return str(self.constant)

    def _to_string(self) -> str:
        return f"{self.type} {self.constant}"


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's type of bfloat16, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def computed_in(dtype: DType) -> DType:
    """The type in which elements of `dtype` are multiplied and added."""
    if dtype.size_bytes >= 4:
        return dtype
    return float32 if dtype.is_float else int32


@dataclass(frozen=True, slots=True)
class Vectors:
    """`lanes` elements at a time, stored as `dtype`.

    `fused` says that the target has a fused multiply-add, `halves` that it converts float16; what a target has not
    would become a call of a library that may not be there.
    """

    dtype: DType
    lanes: int
    fused: bool = True
    halves: bool = True

    @property
    def storage(self) -> Value:
        """The type of an element in memory."""
        if self.dtype.is_float and self.dtype != "bfloat16":
            return {2: ir.HalfType(), 4: ir.FloatType(), 8: ir.DoubleType()}[self.dtype.size_bytes]
        return ir.IntType(8 * self.dtype.size_bytes)

    @property
    def compute(self) -> Value:
        """The type of a lane in a register."""
        wide = computed_in(self.dtype)
        return Vectors(wide, self.lanes).storage if wide is not self.dtype else self.storage

    @property
    def vector(self) -> Value:
        """The type of a register."""
        return ir.VectorType(self.compute, self.lanes)

    @property
    def zero(self) -> Value:
        """A register of zeros."""
        return Literal(self.vector, "zeroinitializer")

    # Memory ----------------------------------------------------------------------------------------------------------
    def at(self, builder: Builder, pointer: Value, offset: Value | int) -> Value:
        """The address `offset` elements further on."""
        if isinstance(offset, int):
            if offset == 0:
                return pointer
            offset = I64(offset)
        return builder.gep(pointer, [offset], source_etype=self.storage)

    def load(self, builder: Builder, pointer: Value, mask: Value | None = None) -> Value:
        """Consecutive elements; lanes that the mask leaves out are not read and are 0."""
        kind = ir.VectorType(self.storage, self.lanes)
        if mask is None:
            loaded = builder.load(pointer, typ=kind, align=self.dtype.size_bytes)
        else:
            call = intrinsic(builder, f"llvm.masked.load.{mangled(kind)}.p0", kind, (POINTER, I32, mask.type, kind))
            zeros = Literal(kind, "zeroinitializer")
            loaded = builder.call(call, [pointer, I32(self.dtype.size_bytes), mask, zeros])
        return self.widen(builder, loaded)

    def gather(self, builder: Builder, pointer: Value, step: Value, mask: Value) -> Value:
        """Elements `step` apart; lanes that the mask leaves out are not read and are 0."""
        kind = ir.VectorType(self.storage, self.lanes)
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        bytes_apart = splat(builder, builder.mul(step, I64(self.dtype.size_bytes)), self.lanes)
        steps = builder.mul(numbers, bytes_apart)
        start = splat(builder, builder.ptrtoint(pointer, I64), self.lanes)
        addresses = builder.inttoptr(builder.add(start, steps), ir.VectorType(POINTER, self.lanes))
        call = intrinsic(
            builder,
            f"llvm.masked.gather.{mangled(kind)}.v{self.lanes}p0",
            kind,
            (addresses.type, I32, mask.type, kind),
        )
        zeros = Literal(kind, "zeroinitializer")
        return self.widen(builder, builder.call(call, [addresses, I32(self.dtype.size_bytes), mask, zeros]))

    def load_splat(self, builder: Builder, pointer: Value) -> Value:
        """One element, in all lanes."""
        element = builder.load(pointer, typ=self.storage, align=self.dtype.size_bytes)
        return self.widen(builder, splat(builder, element, self.lanes))

    def store(self, builder: Builder, value: Value, pointer: Value, mask: Value | None = None) -> None:
        """Writes consecutive elements, those that the mask names."""
        value = self.narrow(builder, value)
        if mask is None:
            builder.store(value, pointer, align=self.dtype.size_bytes)
            return
        name = f"llvm.masked.store.{mangled(value.type)}.p0"
        call = intrinsic(builder, name, VOID, (value.type, POINTER, I32, mask.type))
        builder.call(call, [value, pointer, I32(self.dtype.size_bytes), mask])

    def first(self, builder: Builder, count: Value) -> Value:
        """The mask of the first `count` lanes; all when there are more."""
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return builder.icmp_signed("<", numbers, splat(builder, count, self.lanes))

    # Storage ↔ registers ---------------------------------------------------------------------------------------------
    def widen(self, builder: Builder, value: Value) -> Value:
        """From the stored type to the computed one."""
        if computed_in(self.dtype) is self.dtype:
            return value
        if self.dtype == "bfloat16":  # the upper half of a float32
            bits = builder.zext(value, ir.VectorType(I32, self.lanes))
            return builder.bitcast(builder.shl(bits, self._bits(16)), self.vector)
        if self.dtype.is_float and not self.halves:
            return self._widen_half(builder, value)
        if self.dtype.is_float:
            return builder.fpext(value, self.vector)
        return builder.sext(value, self.vector) if self.dtype.kind == "int" else builder.zext(value, self.vector)

    def narrow(self, builder: Builder, value: Value) -> Value:
        """From the computed type to the stored one: to nearest, ties to even; integers wrap around."""
        if computed_in(self.dtype) is self.dtype:
            return value
        stored = ir.VectorType(self.storage, self.lanes)
        if self.dtype == "bfloat16":
            return self._round_to_bfloat16(builder, value, stored)
        if self.dtype.is_float and not self.halves:
            return self._round_to_half(builder, value)
        return builder.fptrunc(value, stored) if self.dtype.is_float else builder.trunc(value, stored)

    def _round_to_bfloat16(self, builder: Builder, value: Value, stored: Value) -> Value:
        bits = builder.bitcast(value, ir.VectorType(I32, self.lanes))
        upper = builder.lshr(bits, self._bits(16))
        odd = builder.and_(upper, self._bits(1))
        rounded = builder.lshr(builder.add(builder.add(bits, self._bits(0x7FFF)), odd), self._bits(16))
        quiet = builder.or_(upper, self._bits(0x40))  # adding to the bits of a NaN could make it an infinity
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(is_nan, quiet, rounded), stored)

    def _widen_half(self, builder: Builder, value: Value) -> Value:
        """Float16 by integer arithmetic: shift, and let a multiplication by 2¹¹² mend the exponent, exactly."""
        integers = ir.VectorType(I32, self.lanes)
        bits = builder.zext(builder.bitcast(value, ir.VectorType(ir.IntType(16), self.lanes)), integers)
        sign = builder.shl(builder.and_(bits, self._bits(0x8000)), self._bits(16))
        size = builder.and_(bits, self._bits(0x7FFF))
        shifted = builder.shl(size, self._bits(13))
        factor = ir.Constant(self.vector, [2.0**112] * self.lanes)
        finite = builder.bitcast(builder.fmul(builder.bitcast(shifted, self.vector), factor), integers)
        special = builder.icmp_unsigned(">=", size, self._bits(0x7C00))
        chosen = builder.select(special, builder.or_(shifted, self._bits(0x7F800000)), finite)
        return builder.bitcast(builder.or_(chosen, sign), self.vector)

    def _round_to_half(self, builder: Builder, value: Value) -> Value:
        """To nearest, ties to even. Tiny numbers are rounded by adding ½: its last place is float16's least number."""
        integers, narrow = (ir.VectorType(kind, self.lanes) for kind in (I32, ir.IntType(16)))
        bits = builder.bitcast(value, integers)
        sign = builder.and_(builder.lshr(bits, self._bits(16)), self._bits(0x8000))
        size = builder.and_(bits, self._bits(0x7FFFFFFF))
        odd = builder.and_(builder.lshr(size, self._bits(13)), self._bits(1))
        rounded = builder.add(builder.add(size, self._bits(0xFFF)), odd)
        normal = builder.lshr(builder.sub(rounded, self._bits(112 << 23)), self._bits(13))
        half = ir.Constant(self.vector, [0.5] * self.lanes)
        shifted = builder.bitcast(builder.fadd(builder.bitcast(size, self.vector), half), integers)
        tiny = builder.sub(shifted, builder.bitcast(half, integers))
        result = builder.select(builder.icmp_unsigned("<", size, self._bits(0x38800000)), tiny, normal)
        result = builder.select(builder.icmp_unsigned(">=", size, self._bits(0x477FF000)), self._bits(0x7C00), result)
        is_nan = builder.icmp_unsigned(">", size, self._bits(0x7F800000))
        result = builder.select(is_nan, self._bits(0x7E00), result)
        stored = builder.trunc(builder.or_(result, sign), narrow)
        return builder.bitcast(stored, ir.VectorType(self.storage, self.lanes))

    def _bits(self, number: int) -> Value:
        return ir.Constant(ir.VectorType(I32, self.lanes), [number] * self.lanes)

    # Pairs -----------------------------------------------------------------------------------------------------------
    def dot(self, builder: Builder, a: Value, b: Value, c: Value) -> Value:
        """c plus the products of bfloat16 pairs, which a and b hold as 32 bits; denormal ones count as 0."""
        halves = ir.VectorType(BFloat(), 2 * self.lanes)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        function = intrinsic(builder, name, self.vector, (self.vector, halves, halves))
        return builder.call(function, [c, builder.bitcast(a, halves), builder.bitcast(b, halves)])

    # Arithmetic ------------------------------------------------------------------------------------------------------
    def multiply_add(self, builder: Builder, a: Value, b: Value, c: Value) -> Value:
        """a · b + c."""
        if self.dtype.is_bool:
            return builder.or_(builder.and_(a, b), c)
        if not self.dtype.is_float:
            return builder.add(builder.mul(a, b), c)
        if not self.fused:
            return builder.fadd(builder.fmul(a, b), c)
        fma = intrinsic(builder, f"llvm.fma.{mangled(self.vector)}", self.vector, (self.vector,) * 3)
        return builder.call(fma, [a, b, c])

    def add(self, builder: Builder, a: Value, b: Value) -> Value:
        """a + b."""
        if self.dtype.is_bool:
            return builder.or_(a, b)
        return builder.fadd(a, b) if self.dtype.is_float else builder.add(a, b)


# LLVM ----------------------------------------------------------------------------------------------------------------
def splat(builder: Builder, scalar: Value, lanes: int) -> Value:
    """A register with the same value in all lanes."""
    vector = ir.VectorType(scalar.type, lanes)
    nothing = Literal(vector, "poison")
    first = builder.insert_element(nothing, scalar, I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def mangled(kind: Value) -> str:
    """A vector type as LLVM spells it in the names of intrinsic functions."""
    element = kind.element
    if isinstance(element, ir.IntType):
        return f"v{kind.count}i{element.width}"
    return f"v{kind.count}f{ {ir.HalfType: 16, ir.FloatType: 32, ir.DoubleType: 64}[type(element)] }"


def intrinsic(builder: Builder, name: str, result: Value, arguments: Sequence[Value]) -> Value:
    """The declaration of a function of LLVM's."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def counted(
    builder: Builder,
    start: Value | int,
    stop: Value | int,
    body: Callable[[Value, list[Value]], Sequence[Value] | None],
    carried: Sequence[Value] = (),
    name: str = "loop",
) -> list[Value]:
    """`for i in range(start, stop): carried = body(i, carried)`; gives what is carried out.

    Nothing runs for stop ≤ start. The test is at the end of the loop, so that a run costs one branch; the one in front
    is left out where both bounds are known.
    """
    start = I64(start) if isinstance(start, int) else start
    known = isinstance(stop, int) and isinstance(start, ir.Constant)
    if known and start.constant >= stop:
        return list(carried)
    stop = I64(stop) if isinstance(stop, int) else stop
    before = builder.block
    head, after = builder.append_basic_block(name), builder.append_basic_block(name + "_end")
    if known:
        builder.branch(head)
    else:
        builder.cbranch(builder.icmp_signed("<", start, stop), head, after)
    builder.position_at_end(head)
    i = builder.phi(I64, name + "_i")
    i.add_incoming(start, before)
    phis = [_incoming(builder, value, before) for value in carried]
    results = list(body(i, phis) or ())
    following = builder.add(i, I64(1))
    i.add_incoming(following, builder.block)
    for phi, value in zip(phis, results, strict=True):
        phi.add_incoming(value, builder.block)
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", following, stop), head, after)
    builder.position_at_end(after)
    if known:
        return results
    merged = []
    for value, result in zip(carried, results, strict=True):
        merged.append(_incoming(builder, value, before))
        merged[-1].add_incoming(result, last)
    return merged


def _incoming(builder: Builder, value: Value, block: Value) -> Value:
    phi = builder.phi(value.type)
    phi.add_incoming(value, block)
    return phi


def smaller(builder: Builder, a: Value, b: Value) -> Value:
    """The minimum of two signed numbers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def larger(builder: Builder, a: Value, b: Value) -> Value:
    """The maximum of two signed numbers."""
    return builder.select(builder.icmp_signed(">", a, b), a, b)
