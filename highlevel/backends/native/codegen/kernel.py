"""Kernels written by hand: functions of a unit, elements of buffers, copies.

`kernel` makes a unit of a function that writes instructions; loops are `counted`, see contraction/values.py. Names in
the text are canonical, so equal kernels are one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from llvmlite import ir

from highlevel.ir import DType

from ..cache import ENTRY, Unit
from .contraction.values import I1, I64, POINTER, VOID, Builder, Value, intrinsic
from .targets import Target


def kernel(
    target: Target,
    arguments: Sequence[Value],
    write: Callable[..., None],
    *,
    level: int = 0,
    noalias: Collection[int] = (),
    plain: bool = False,
) -> Unit:
    """A unit with the function `void kernel(arguments…)`.

    write:   `write(builder, *arguments)` emits the body; the return is added
    noalias: positions of pointers to memory that is reached through them alone
    plain:   only addresses are computed, for functions that it calls: LLVM is asked not to optimise
    """
    module = ir.Module()
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(VOID, list(arguments)), ENTRY)
    for attribute in ("nounwind", *(("noinline", "optnone") if plain else ())):
        function.attributes.add(attribute)
    for position in noalias:
        function.args[position].add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    write(builder, *function.args)
    builder.ret_void()
    return Unit(str(module), target, level)


def element(builder: Builder, pointer: Value, place: Value | int, dtype: DType) -> Value:
    """The address of an element of a buffer."""
    return forward(builder, pointer, place, dtype.size_bytes)


def forward(builder: Builder, pointer: Value, count: Value | int, size_bytes: int = 1) -> Value:
    """The address `count` things of that size further on."""
    if isinstance(count, int):
        return pointer if count == 0 else builder.gep(pointer, [I64(count * size_bytes)], source_etype=ir.IntType(8))
    kind = ir.IntType(8) if size_bytes == 1 else ir.ArrayType(ir.IntType(8), size_bytes)
    return builder.gep(pointer, [count], source_etype=kind)


def copy(builder: Builder, goal: Value, source: Value, size_bytes: Value | int) -> None:
    """Copies bytes between places that do not overlap; a small known number of them without a call."""
    size = I64(size_bytes) if isinstance(size_bytes, int) else size_bytes
    function = intrinsic(builder, "llvm.memcpy.p0.p0.i64", VOID, (POINTER, POINTER, I64, I1))
    builder.call(function, [goal, source, size, I1(0)])


def clear(builder: Builder, goal: Value, size_bytes: Value | int) -> None:
    """Sets bytes to 0."""
    size = I64(size_bytes) if isinstance(size_bytes, int) else size_bytes
    function = intrinsic(builder, "llvm.memset.p0.i64", VOID, (POINTER, ir.IntType(8), I64, I1))
    builder.call(function, [goal, ir.IntType(8)(0), size, I1(0)])


def to_i64(builder: Builder, value: Value, dtype: DType) -> Value:
    """An integer of a buffer as 64 bits; uint64 beyond 2⁶³ comes out negative."""
    if value.type.width == 64:
        return value
    return (builder.sext if dtype.kind == "int" else builder.zext)(value, I64)


class _Callee(ir.Value):  # type: ignore[misc]
    """The address of a function `void (arguments…)`; llvmlite knows functions of the module only."""

    def __init__(self, address: Value, arguments: Sequence[Value]) -> None:
        self.type, self.address = address.type, address
        self.function_type = ir.FunctionType(VOID, [argument.type for argument in arguments])

    def get_reference(self) -> str:
        return str(self.address.get_reference())


def call(builder: Builder, address: Value, arguments: Sequence[Value]) -> None:
    """Calls the function at an address."""
    builder.call(_Callee(address, arguments), arguments)
