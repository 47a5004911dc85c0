"""Matrix products in numbers: sizes, where elements lie, and how things are cut. How they are computed: `blocking`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Protocol

from highlevel.errors import ArgumentError
from highlevel.ir.dtypes import DType, float32


class Target(Protocol):
    """What planning needs to know of a CPU (see `codegen.targets`)."""

    @property
    def vector_bytes(self) -> int: ...
    @property
    def vector_registers(self) -> int: ...
    @property
    def fma(self) -> bool: ...
    @property
    def masking(self) -> bool: ...
    @property
    def features(self) -> str: ...
    @property
    def triple(self) -> str: ...
    @property
    def cpu(self) -> str: ...
    @property
    def bfloat16_dot(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """`extent` things in `pieces` pieces that differ by at most one: first the `tall` ones, then those one smaller."""

    extent: int
    pieces: int

    @property
    def size(self) -> int:
        """The size of the larger pieces."""
        return -(-self.extent // self.pieces)

    @property
    def tall(self) -> int:
        """How many pieces have the larger size."""
        return self.extent - (self.size - 1) * self.pieces

    @property
    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """Runs of pieces of one size: (first piece, end, size)."""
        runs = ((0, self.tall, self.size), (self.tall, self.pieces, self.size - 1))
        return tuple(run for run in runs if run[0] < run[1])

    def start(self, piece: int) -> int:
        """Where a piece begins."""
        return piece * self.size - max(0, piece - self.tall)

    @classmethod
    def by(cls, extent: int, limit: int) -> Cut:
        """The fewest pieces of at most `limit`."""
        return cls(extent, max(1, -(-extent // max(1, limit))))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Where the elements of an operand lie: steps between rows, columns and products of the batch, in elements."""

    row: int
    column: int
    batch: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Gemm:
    """A batch of matrix products: sizes, element type, and where the elements lie. C has consecutive columns.

    `packed` says that B comes as `emit_pack` left it, for weights that stay the same for many products. `offsets`
    says how many elements A, B and C begin behind where the functions' arguments a, b and c point. `finished` is the
    type of what an epilogue writes into C, or None where there is no epilogue. `pairs` says that each step of the
    reduction is a pair of bfloat16: k and the steps along it count pairs.
    """

    m: int
    n: int
    k: int
    dtype: DType
    a: Matrix
    b: Matrix
    c: Matrix
    batch: tuple[int, ...] = ()
    packed: bool = False
    offsets: tuple[int, int, int] = (0, 0, 0)
    finished: DType | None = None
    pairs: bool = False

    def __post_init__(self) -> None:
        if self.c.column != 1:
            raise ArgumentError(
                "gemm: the columns of the result are not consecutive",
                got=f"steps of {self.c.column}",
                expected="steps of 1",
                hint="Cᵀ = Bᵀ Aᵀ has them consecutive when the rows of C are",
            )
        if any(len(operand.batch) != len(self.batch) for operand in (self.a, self.b, self.c)):
            raise ArgumentError("gemm: each operand needs a step for each batch axis", got=self)

    @classmethod
    def dense(
        cls,
        m: int,
        n: int,
        k: int,
        dtype: DType = float32,
        batch: tuple[int, ...] = (),
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        packed: bool = False,
    ) -> Gemm:
        """Operands without gaps, in C order; A is (…, m, k) or transposed (…, k, m), B (…, k, n) or (…, n, k)."""

        def steps(rows: int, columns: int, transposed: bool) -> Matrix:
            inner = tuple(math.prod(batch[i + 1 :]) * rows * columns for i in range(len(batch)))
            return Matrix(1, rows, inner) if transposed else Matrix(columns, 1, inner)

        a, b, c = steps(m, k, transpose_a), steps(k, n, transpose_b), steps(m, n, False)
        return cls(m, n, k, dtype, a, b, c, batch, packed)

    @property
    def batches(self) -> int:
        """How many products there are."""
        return math.prod(self.batch)

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return (4 if self.pairs else 2) * self.batches * self.m * self.n * self.k

    def in_pairs(self) -> Gemm | None:
        """The same in pairs, where those can be read as 32 bits or be made of two rows."""
        a, b = self.a, self.b
        evens = (
            self.k,
            *(a.row, *a.batch, self.offsets[0]) * (a.column == 1),
            *(b.column, *b.batch, self.offsets[1]) * (b.row == 1 and b.column != 1),
        )
        if (
            self.dtype != "bfloat16"
            or any(n % 2 for n in evens)
            or 1 not in (a.row, a.column)
            or 1 not in (b.row, b.column)
        ):
            return None
        wider_a, wider_b = Matrix(a.row, 2 * a.column, a.batch), Matrix(2 * b.row, b.column, b.batch)
        return dataclasses.replace(self, k=self.k // 2, a=wider_a, b=wider_b, pairs=True)
