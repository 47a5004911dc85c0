"""The innermost axis in registers: pieces of it, and what compares and chooses lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from highlevel.ir import DType

from .contraction.blocking import converts_halves
from .contraction.values import I1, I32, I64, Builder, Value, Vectors, computed_in, counted, splat
from .kernel import forward
from .loops import identity
from .targets import Target

LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring elements in a register: how far on they begin, how many lanes there are, and which of them count."""

    target: Target
    offset: int
    lanes: int
    mask: Value | None = None

    def vectors(self, dtype: DType) -> Vectors:
        return Vectors(dtype, self.lanes, self.target.fma, converts_halves(self.target))

    def load(self, builder: Builder, pointer: Value, dtype: DType) -> Value:
        """The elements at `pointer` and `offset` further on; lanes that do not count are 0."""
        return self.vectors(dtype).load(builder, forward(builder, pointer, self.offset, dtype.size_bytes), self.mask)

    def store(self, builder: Builder, value: Value, pointer: Value, dtype: DType, *, streamed: bool = False) -> None:
        """Writes the elements; `streamed` ones – see `can_stream` – past the caches, which need not read them first."""
        place = forward(builder, pointer, self.offset, dtype.size_bytes)
        vectors = self.vectors(dtype)
        if not streamed:
            vectors.store(builder, value, place, self.mask)
            return
        stored = builder.store(vectors.narrow(builder, value), place, align=self.lanes * dtype.size_bytes)
        stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))

    def zero(self, dtype: DType) -> Value:
        return self.vectors(dtype).zero

    def lowest(self, dtype: DType) -> Value:
        """What never wins a maximum: −∞, or the smallest integer."""
        return constant(self.vectors(dtype).vector, identity("max", dtype))

    def splat(self, builder: Builder, value: Value | int, kind: Value) -> Value:
        """The same integer in all lanes."""
        if isinstance(value, int):
            return constant(ir.VectorType(kind, self.lanes), value)
        return splat(builder, builder.trunc(value, kind) if value.type.width > kind.width else value, self.lanes)


def constant(kind: Value, value: float | int) -> Value:
    """A register with the same number in all lanes."""
    return ir.Constant(kind, [value] * kind.count)


def lanes_of(target: Target, *dtypes: DType) -> int:
    """How many elements of the widest of the types, as they are computed, a register holds."""
    return target.vector_bytes // max(computed_in(dtype).size_bytes for dtype in dtypes)


def rest(target: Target, lanes: int, start: int, count: int) -> list[Piece]:
    """Pieces for fewer elements than a register has lanes: one with a mask, or several of falling powers of 2."""
    pieces: list[Piece] = []
    while count:
        width = 1 << (count.bit_length() - 1)
        if target.masking and width != count:
            mask = ir.Constant(ir.VectorType(I1, 2 * width), [int(lane < count) for lane in range(2 * width)])
            return [*pieces, Piece(target, start, 2 * width, mask)]
        pieces.append(Piece(target, start, width))
        start, count = start + width, count - width
    return pieces


def along(
    builder: Builder,
    target: Target,
    lanes: int,
    count: int,
    most: int,
    body: Callable[[Value | int, Sequence[Piece]], None],
) -> None:
    """Covers `count` elements with pieces, at most `most` whole registers at a time.

    `body(start, pieces)` is called while a loop is written, and for what is left over.
    """
    whole, left = divmod(count, lanes)
    rounds, extra = divmod(whole, most)
    if rounds == 1 and extra == 0:  # no loop, and the rest in the same go
        rounds, extra = 0, most
    done = rounds * most * lanes
    full = [Piece(target, i * lanes, lanes) for i in range(most)]

    def round_(i: Value, _: list[Value]) -> None:
        body(builder.mul(i, I64(most * lanes)), full)

    counted(builder, 0, rounds, round_)
    pieces = [*full[:extra], *rest(target, lanes, extra * lanes, left)]
    if pieces:
        body(done, pieces)


def can_stream(target: Target, lanes: int, count: int, dtype: DType) -> bool:
    """Whether rows of `count` elements are whole cache lines, and the target can write them past its caches.

    Their addresses have to be multiples of a line's length, and the kernel has to end with `fence`.
    """
    return target.arch == "x86_64" and count % lanes == 0 and count * dtype.size_bytes % LINE_BYTES == 0


def is_aligned(builder: Builder, pointer: Value) -> Value:
    """Whether a cache line begins there."""
    return builder.icmp_unsigned("==", builder.and_(builder.ptrtoint(pointer, I64), I64(LINE_BYTES - 1)), I64(0))


# Comparing -----------------------------------------------------------------------------------------------------------
def exceeds(builder: Builder, dtype: DType, value: Value, best: Value) -> Value:
    """Lanes in which `value` is to replace `best` as the maximum so far: it is larger, or the first NaN."""
    if not dtype.is_float:
        wide = computed_in(dtype)
        return (builder.icmp_signed if wide.kind == "int" else builder.icmp_unsigned)(">", value, best)
    above = builder.fcmp_unordered(">", value, best)
    return builder.and_(above, builder.fcmp_ordered("ord", best, best))


def maximum(builder: Builder, dtype: DType, best: Value, value: Value) -> Value:
    """The larger one; NaN if either is."""
    if not dtype.is_float:
        return builder.select(exceeds(builder, dtype, value, best), value, best)
    larger = builder.select(builder.fcmp_ordered(">", best, value), best, value)  # value where it is NaN
    return builder.select(builder.fcmp_unordered("uno", best, best), best, larger)

