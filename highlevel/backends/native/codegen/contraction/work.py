"""Which thread does what: shares of units, pieces of cuts and addresses, computed at run time."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from .products import Cut
from .values import I32, I64, POINTER, VOID, Builder, Value, Vectors, larger


def define(
    module: Value, name: str, pointers: int, more_pointers: int = 0, *, plain: bool = True
) -> tuple[Value, Builder, list[Value]]:
    """A function of pointers, then `i32 tid, i32 nthreads`, then more pointers: itself, where to write it, arguments.

    A `plain` one does nothing but find addresses for the functions that it calls: LLVM is asked not to optimise it,
    which costs no measurable time, and it compiles in a third of the time.
    """
    function = ir.Function(
        module, ir.FunctionType(VOID, [POINTER] * pointers + [I32, I32] + [POINTER] * more_pointers), name
    )
    for attribute in ("noinline", "nounwind", *(("optnone",) if plain else ())):
        function.attributes.add(attribute)
    return function, ir.IRBuilder(function.append_basic_block("entry")), list(function.args)


@dataclass(frozen=True, slots=True)
class Share:
    """Which thread this is, and of how many, as 64-bit numbers."""

    tid: Value
    nthreads: Value

    @classmethod
    def of(cls, builder: Builder, tid: Value, nthreads: Value) -> Share:
        return cls(builder.sext(tid, I64), builder.sext(nthreads, I64))

    def range(self, builder: Builder, units: int) -> tuple[Value, Value]:
        """This thread's units: consecutive ones, as many as the others have, give or take one."""
        first = builder.sdiv(builder.mul(self.tid, I64(units)), self.nthreads)
        end = builder.sdiv(builder.mul(builder.add(self.tid, I64(1)), I64(units)), self.nthreads)
        return first, end


def shifted(
    builder: Builder, vectors: Vectors, pointers: tuple[Value, ...], offsets: tuple[int, ...]
) -> tuple[Value, ...]:
    """Pointers, so many elements further on."""
    return tuple(vectors.at(builder, pointer, offset) for pointer, offset in zip(pointers, offsets, strict=True))


def reserve(builder: Builder, vectors: Vectors, count: int) -> Value:
    """So many vectors on the stack, aligned to a cache line; `builder` is still where the function begins."""
    size_bytes = count * vectors.lanes * vectors.dtype.size_bytes
    place = builder.alloca(ir.ArrayType(ir.IntType(8), size_bytes))
    place.align = 64
    place.type = POINTER  # llvmlite gives it a type of its own, which nothing else takes
    return place


def piece_start(builder: Builder, cut: Cut, piece: Value) -> Value:
    """`cut.start(piece)`, computed."""
    start = builder.mul(piece, I64(cut.size))
    if cut.tall == cut.pieces:
        return start
    return builder.sub(start, larger(builder, builder.sub(piece, I64(cut.tall)), I64(0)))


def piece_range(builder: Builder, cut: Cut, piece: Value) -> tuple[Value, Value]:
    """Where a piece begins and ends."""
    return piece_start(builder, cut, piece), piece_start(builder, cut, builder.add(piece, I64(1)))


def digits(builder: Builder, number: Value, bases: tuple[int, ...]) -> list[Value]:
    """A linear index, taken apart into indices below `bases`, the last one running fastest."""
    found = []
    for base in reversed(bases[1:]):
        found.append(builder.srem(number, I64(base)) if base > 1 else I64(0))
        number = builder.sdiv(number, I64(base)) if base > 1 else number
    return [number, *reversed(found)] if bases else []


def linear(builder: Builder, *products: tuple[Value, int]) -> Value:
    """Σ value · step."""
    total = None
    for value, step in products:
        if step:
            term = builder.mul(value, I64(step)) if step != 1 else value
            total = term if total is None else builder.add(total, term)
    return I64(0) if total is None else total
