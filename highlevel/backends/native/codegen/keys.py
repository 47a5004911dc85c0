"""Order as integers: a signed integer for each element, so that comparing the integers is comparing the elements.

Equal elements – also 0 and −0 – have equal keys, and NaN the largest one, whichever way the order goes. With keys,
order needs no case of its own for any type: what follows is integer arithmetic, on one element or on a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from highlevel.ir import DType

from .contraction.values import Builder, Value

INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of elements of a type: `bits` wide; `falling` turns the order around, but for NaN."""

    dtype: DType
    falling: bool = False
    bits: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", max(self.bits, 64 if self.dtype.size_bytes == 8 else 32))

    @property
    def highest(self) -> int:
        """The key of NaN."""
        return int(2 ** (self.bits - 1) - 1)

    def load(self, builder: Builder, pointer: Value, lanes: int = 0) -> Value:
        """The key of the element at an address, or of as many as there are lanes."""
        stored: ir.Type = ir.IntType(8 * self.dtype.size_bytes)
        kind = ir.VectorType(stored, lanes) if lanes else stored
        return self.of(builder, builder.load(pointer, typ=kind, align=self.dtype.size_bytes))

    def of(self, builder: Builder, stored: Value) -> Value:
        """The keys of elements as they lie in memory: integers, or a vector of them."""
        lanes = stored.type.count if isinstance(stored.type, ir.VectorType) else 0
        narrow = 64 if self.dtype.size_bytes == 8 else 32
        key = _Integers(builder, lanes, narrow).key(stored, self.dtype, self.falling)
        if narrow == self.bits:
            return key
        if not self.dtype.is_float:
            return builder.sext(key, _typed(ir.IntType(self.bits), lanes))
        wide = _Integers(builder, lanes, self.bits)
        is_nan = builder.icmp_signed("==", key, _Integers(builder, lanes, narrow).number(2 ** (narrow - 1) - 1))
        return builder.select(is_nan, wide.number(self.highest), builder.sext(key, wide.kind))


def _typed(kind: ir.Type, lanes: int) -> ir.Type:
    return ir.VectorType(kind, lanes) if lanes else kind


class _Integers:
    """Integers of one width, or vectors of them."""

    def __init__(self, builder: Builder, lanes: int, bits: int) -> None:
        self.builder, self.lanes, self.bits = builder, lanes, bits
        self.kind = _typed(ir.IntType(bits), lanes)

    def number(self, value: int) -> Value:
        return ir.Constant(self.kind, [value] * self.lanes if self.lanes else value)

    def key(self, stored: Value, dtype: DType, falling: bool) -> Value:
        builder = self.builder
        extend: Callable[..., Value] = builder.sext if dtype.kind in ("int", "float") else builder.zext
        value = stored if stored.type == self.kind else extend(stored, self.kind)
        if dtype.is_float:
            return self._float(value, dtype, falling)
        if dtype.kind == "uint" and 8 * dtype.size_bytes == self.bits:
            value = builder.xor(value, self.number(-(2 ** (self.bits - 1))))
        return builder.not_(value) if falling else value

    def _float(self, value: Value, dtype: DType, falling: bool) -> Value:
        """Sign and magnitude as a signed number."""
        builder = self.builder
        magnitude = builder.and_(value, self.number(2 ** (8 * dtype.size_bytes - 1) - 1))
        sign = builder.ashr(value, self.number(self.bits - 1))
        flipped = builder.xor(magnitude, sign)
        signed = builder.sub(sign, flipped) if falling else builder.sub(flipped, sign)
        is_nan = builder.icmp_unsigned(">", magnitude, self.number(INFINITY[dtype.name]))
        return builder.select(is_nan, self.number(2 ** (self.bits - 1) - 1), signed)
