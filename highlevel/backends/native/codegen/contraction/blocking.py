"""How a matrix product is cut: register tiles, blocks for the caches, units for the threads. Numbers in, numbers out.

    C[i, j] = Σ_k A[i, k] · B[k, j]      rows i < m, columns j < n, reduction k < K; a batch of such products

Rows are cut into *tiles* of at most MR rows, columns into *panels* of at most NR = NV · lanes columns; a micro-kernel
makes one tile of one panel in registers. Cuts are balanced – 128 rows by at most 14 are 8 tiles of 13 and 2 of 12 – so
that no tile is nearly empty. Tiles are grouped into row blocks whose part of A stays in the second-level cache, the
reduction into blocks whose part of a panel of B stays in the first-level one; a *unit* is a row block times a group of
panels, and units are what threads share (after K. Goto, R. van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008).

Invariant: every cut follows from shapes and from the target. The number of threads decides only who computes a unit,
never in which order numbers are added, so results are equal to the bit for any number of threads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from highlevel.ir.dtypes import int32

from .microkernel import MicroKernel
from .packing import Copy
from .products import Cut, Gemm, Matrix, Target
from .values import Vectors, computed_in

L2_BYTES = 1 << 20  # what is common today; not measured, so that sums are cut alike everywhere
PAGE_BYTES = 4096  # addresses this far apart compete for the same few places in the first-level cache
UNIT_FLOPS = 2_000_000  # the least that is worth handing to a thread: about 10 µs
UNIT_BYTES = 256 << 10  # or so much of B to read
PACKING_ROWS = 192  # with fewer rows than this, packing B costs more than it saves
SMALL_B = L2_BYTES // 4  # that much of B stays in the cache while all rows pass over it
UNITS = 64  # more units than that balance no better
LONG_BLOCK = 128  # of a reduction of which both operands are copied block by block
STREAMED_BLOCK = 32  # of a reduction of which B is read in place while it comes from memory
STREAMED_BYTES = 2048  # of a row of B at a time, at least
FEW_ROWS = 48  # with fewer than this, B that comes from memory is not packed
PARTIAL_UNITS = 8  # a long reduction with fewer units than this is itself cut into parts


@dataclass(frozen=True, slots=True)
class GemmPlan:
    """How a product is computed.

    rows, row_blocks:     rows cut into tiles, tiles grouped into blocks
    columns, panel_groups: columns, counted in vectors, cut into panels; panels grouped
    reduction, parts:     the reduction cut into blocks; blocks grouped into parts, summed apart and joined in order
    a:  "direct" (read where it lies) or "copy" (each thread copies the block that it works on, with a friendlier step)
    b:  "direct"; "private" (each thread packs the panels that it uses, which nobody else does); "shared" (all threads
        pack B before, phase "pack"); "packed" (it comes so)
    """

    gemm: Gemm
    lanes: int
    fused: bool
    halves: bool
    rows: Cut
    row_blocks: Cut
    columns: Cut
    panel_groups: Cut
    reduction: Cut
    parts: Cut
    a: Literal["direct", "copy"]
    b: Literal["direct", "private", "shared", "packed"]

    @property
    def rows_first(self) -> bool:
        """Whether a tile goes over all panels before the next one comes, so that rows of C are written as a whole.

        That suits short reductions, where writing C takes the most time, and needs all panels in the cache.
        """
        panels = self.gemm.k * self.panel_groups.size * self.columns.size * self.lanes * self.packed.dtype.size_bytes
        return self.reduction.pieces == 1 and panels <= SMALL_B

    @property
    def phases(self) -> tuple[str, ...]:
        """Functions to run one after the other, with a barrier between them."""
        pack = ("pack",) if self.b == "shared" else ()
        return (*pack, "compute", *(("combine",) if self.parts.pieces > 1 else ()))

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Where operands and result begin; B that is packed has an argument of its own."""
        a, b, c = self.gemm.offsets
        return a, 0 if self.gemm.packed else b, c

    @property
    def units(self) -> int:
        """How many pieces of work there are for threads to share."""
        if not (self.gemm.batches and self.gemm.m and self.gemm.n):
            return 0
        return self.gemm.batches * self.parts.pieces * self.row_blocks.pieces * self.panel_groups.pieces

    # Vectors and panels ----------------------------------------------------------------------------------------------
    @property
    def stored(self) -> Vectors:
        """Elements of the operands and of the result."""
        return Vectors(self.gemm.dtype, self.lanes, self.fused, self.halves)

    @property
    def packed(self) -> Vectors:
        """Elements of copies and packed panels; pairs are 32 bits."""
        return dataclasses.replace(self.stored, dtype=int32 if self.gemm.pairs else computed_in(self.gemm.dtype))

    @property
    def sums(self) -> Vectors:
        """Partial sums; as large as elements of copies."""
        return dataclasses.replace(self.stored, dtype=computed_in(self.gemm.dtype))

    @property
    def result(self) -> Vectors:
        """Elements of C."""
        return dataclasses.replace(self.stored, dtype=self.gemm.finished or self.gemm.dtype)

    @property
    def scratch(self) -> bool:
        """Whether tiles are finished on their way from a piece of the stack to C."""
        return self.gemm.finished is not None and self.reduction.pieces == 1

    @property
    def tail(self) -> int:
        """Columns in the last vector; 0 when it is full."""
        return self.gemm.n % self.lanes

    def panels(self) -> Iterator[tuple[int, int, int, bool]]:
        """Runs of panels of one kind."""
        return runs_of_panels(self.columns, self.tail > 0)

    # Functions that are called ---------------------------------------------------------------------------------------
    def micro_kernel(self, rows: int, vectors: int, ragged: bool) -> MicroKernel:
        """For tiles of so many rows of such panels."""
        to_parts = self.parts.pieces > 1
        return MicroKernel(
            rows=rows,
            vectors=vectors,
            inputs=self.packed if self.a == "copy" or self.b != "direct" else self.stored,
            output=self.sums if to_parts else self.stored,
            levels=1,
            pairs=self.gemm.pairs,
            masked=ragged and not (to_parts or self.scratch),
            masked_b=ragged and self.b == "direct",
            partial=self.reduction.pieces > 1,
        )

    def copy(self, operand: Matrix) -> tuple[Copy, tuple[int, int]]:
        """For blocks of an operand, and its steps. Rows and columns of A change places where rows are consecutive."""
        steps = operand.row, operand.column
        if operand is self.gemm.a and operand.row == 1:
            steps = operand.column, operand.row
        return (
            Copy.of_pairs(self.packed, *steps)
            if self.gemm.pairs
            else (Copy.of(self.stored, self.packed, *steps), steps)
        )

    # Workspace -------------------------------------------------------------------------------------------------------
    @property
    def padded_columns(self) -> int:
        """Columns in whole vectors."""
        return self.columns.extent * self.lanes

    @property
    def packed_elements(self) -> int:
        """Of B, packed, for one product."""
        return self.gemm.k * self.padded_columns

    @property
    def a_copy_step(self) -> int:
        """Between rows of the copied block of A – or, where A is transposed, between its columns."""
        inner = self.row_blocks.size * self.rows.size if self.gemm.a.row == 1 else self.reduction.size
        return friendly_step(inner, self.lanes, self.packed.dtype.size_bytes)

    @property
    def a_copy_elements(self) -> int:
        """In a thread's copy of a block of A."""
        if self.a == "direct":
            return 0
        outer = self.reduction.size if self.gemm.a.row == 1 else self.row_blocks.size * self.rows.size
        return self.a_copy_step * outer

    @property
    def private_elements(self) -> int:
        """A thread's own part of the workspace."""
        panels = self.reduction.size * self.panel_groups.size * self.columns.size * self.lanes
        return aligned(self.a_copy_elements + (panels if self.b == "private" else 0), self.packed)

    @property
    def shared_elements(self) -> int:
        """What all threads share in the workspace: packed B, partial sums."""
        return self.partial_offset + aligned(self.partial_elements, self.packed)

    @property
    def partial_offset(self) -> int:
        """Where partial sums begin in the workspace."""
        return aligned(self.gemm.batches * self.packed_elements, self.packed) if self.b == "shared" else 0

    @property
    def partial_elements(self) -> int:
        """Partial sums: (batch, part, m, padded columns)."""
        if self.parts.pieces == 1:
            return 0
        return self.gemm.batches * self.parts.pieces * self.gemm.m * self.padded_columns

    def workspace_bytes(self, nthreads: int) -> int:
        """How large the workspace has to be; it is best aligned to 64 bytes."""
        return (self.shared_elements + nthreads * self.private_elements) * self.packed.dtype.size_bytes


def aligned(elements: int, vectors: Vectors) -> int:
    """Rounded up to whole cache lines, of 64 bytes."""
    line = 64 // vectors.dtype.size_bytes
    return -(-elements // line) * line


def friendly_step(elements: int, lanes: int, size_bytes: int) -> int:
    """A step of at least so many elements, in whole vectors, whose multiples spread over the first-level cache."""
    step = -(-elements // lanes) * lanes
    return step + lanes if step * size_bytes % (PAGE_BYTES // 4) == 0 else step


def runs_of_panels(columns: Cut, ragged: bool) -> Iterator[tuple[int, int, int, bool]]:
    """Runs of panels of one kind: (first panel, end, vectors, whether the last vector is partly outside)."""
    for first, end, vectors in columns.segments:
        if ragged and end == columns.pieces:
            if first < end - 1:
                yield first, end - 1, vectors, False
            yield end - 1, end, vectors, True
        else:
            yield first, end, vectors, False


# Choices -------------------------------------------------------------------------------------------------------------
def plan_gemm(gemm: Gemm, target: Target, pairs: bool | None = None) -> GemmPlan:
    """The plan for a matrix product on a CPU; `pairs`: whether by dot products of bfloat16, where that can be."""
    if has_fast_dots(target) if pairs is None else pairs:
        gemm = gemm.in_pairs() or gemm
    compute = computed_in(gemm.dtype)
    lanes = target.vector_bytes // compute.size_bytes
    rows, columns = choose_tiles(gemm.m, -(-gemm.n // lanes), gemm.k, target.vector_registers)
    narrow = compute is not gemm.dtype
    widens = narrow and not gemm.pairs
    whole = narrow or gemm.finished not in (None, gemm.dtype)  # C cannot hold partial sums
    reduction = Cut(gemm.k, 1) if whole else _cut_reduction(gemm, columns.size * lanes)
    row_blocks = Cut.by(rows.pieces, L2_BYTES // 2 // max(1, rows.size * min(gemm.k, 4096) * compute.size_bytes))
    groups = _group_panels(gemm, row_blocks.pieces, columns)
    if (
        reduction.pieces == 1
        and gemm.m >= PACKING_ROWS
        and gemm.k * columns.extent * lanes * compute.size_bytes <= SMALL_B
    ):
        row_blocks, groups = _block_rows(gemm, rows, row_blocks), Cut(columns.pieces, 1)  # rows of C written as a whole
    a, b = _place_a(gemm, rows, widens), _place_b(gemm, row_blocks, widens, lanes, target)
    if not whole and b != "packed" and _is_long(gemm):
        a, b, reduction = "copy", "private", Cut.by(gemm.k, LONG_BLOCK)
        row_blocks, groups = _block_result(rows, columns, lanes * compute.size_bytes)
    elif not whole and b != "packed" and _streams_b(gemm):
        few = gemm.m < FEW_ROWS and b == "direct"
        b, reduction = b if few else "private", Cut.by(gemm.k, STREAMED_BLOCK if few else LONG_BLOCK)
        wide = -(-STREAMED_BYTES // (columns.size * lanes * compute.size_bytes))  # panels
        groups = Cut.by(columns.pieces, max(groups.size, wide, -(-columns.pieces // PARTIAL_UNITS)))
        row_blocks = Cut(rows.pieces, 1)
    units = gemm.batches * row_blocks.pieces * groups.pieces
    parts = _cut_parts(gemm, reduction, units)
    return GemmPlan(
        gemm=gemm,
        lanes=lanes,
        fused=target.fma,
        halves=converts_halves(target),
        rows=rows,
        row_blocks=row_blocks,
        columns=columns,
        panel_groups=groups,
        reduction=reduction,
        parts=parts,
        a=a,
        b=b,
    )


def _is_long(gemm: Gemm) -> bool:
    """Whether neighbours of the reduction are far apart in both operands and there are many: gradients of weights.

    Then every step reads other lines, and both are best copied block by block, rows as a whole.
    """
    along = gemm.a.row == 1 and gemm.b.column == 1 and gemm.a.column != 1
    return along and gemm.k >= 4 * LONG_BLOCK and gemm.m >= 32 and gemm.n >= 32


def _streams_b(gemm: Gemm) -> bool:
    """Whether B comes from memory, once, for few rows: then it is best read as it lies, a few whole rows at a time."""
    large = gemm.k * gemm.n * gemm.dtype.size_bytes > (L2_BYTES // 2 if gemm.m < FEW_ROWS else 2 * L2_BYTES)
    return large and gemm.b.column == 1 and gemm.m < PACKING_ROWS


def _block_result(rows: Cut, columns: Cut, vector_bytes: int) -> tuple[Cut, Cut]:
    """Blocks of the result that stay in the second-level cache while all blocks of the reduction pass over them."""
    elements = L2_BYTES // 4 * (64 // vector_bytes) // 4
    row_blocks = Cut.by(rows.pieces, max(1, 2 * math.isqrt(elements) // rows.size))
    panel = row_blocks.size * rows.size * columns.size * vector_bytes // 4
    return row_blocks, Cut.by(columns.pieces, max(1, 2 * elements // max(1, panel)))


def has_fast_dots(target: Target) -> bool:
    """Whether dot products of bfloat16 take half the time of float32: on AMD's CPUs, from Zen 4 on.

    Intel's need two cycles for what two multiply-adds of float32 do in one (Sapphire Rapids: 117 and 200 GFLOP/s).
    """
    return target.bfloat16_dot and target.masking and target.cpu.startswith("znver")


def converts_halves(target: Target) -> bool:
    """Whether the target has instructions that convert float16."""
    return "+f16c" in target.features or target.triple.startswith(("aarch64", "arm64"))


def choose_tiles(m: int, vectors: int, k: int, registers: int) -> tuple[Cut, Cut]:
    """Rows into tiles and columns (counted in vectors) into panels, for the least time that arithmetic can take."""
    if not (m and vectors):
        return Cut(max(1, m), 1), Cut(max(1, vectors), 1)
    best, least = None, math.inf
    for width in range(1, min(vectors, 8) + 1):
        columns = Cut.by(vectors, width)
        height = max(1, (registers - 1 - columns.size) // columns.size)
        rows = Cut.by(m, height)
        time = tiles_time(rows, columns, k)
        if time < least:
            best, least = (rows, columns), time
    assert best is not None
    return best


def tiles_time(rows: Cut, columns: Cut, k: int) -> float:
    """Cycles for all tiles, by two multiply-adds of latency 4 and two loads a cycle; a tile costs some by itself.

    Among tiles that arithmetic alone would not tell apart, those with fewer loads win: they wait less for memory.
    """
    total = 0.0
    for first, end, height in rows.segments:
        for low, high, width in columns.segments:
            products, loads = height * width, height + width
            step = max(products / 2, loads / 2, 4.0) + 0.05 * loads
            total += (end - first) * (high - low) * (step * k + 30 + 2 * products)
    return total * (1 + 0.01 * len(rows.segments) * len(columns.segments))  # each kind is one more kernel to compile


def _cut_reduction(gemm: Gemm, panel: int) -> Cut:
    """Blocks whose part of a panel of B stays in the second-level cache: reading it from there costs nothing, while
    every block more reads and writes C once more.
    """
    limit = max(64, L2_BYTES // 8 // (panel * gemm.dtype.size_bytes))
    return Cut.by(gemm.k, limit)


def _group_panels(gemm: Gemm, row_blocks: int, columns: Cut) -> Cut:
    """Groups of panels such that units are worth a thread's while, and are not needlessly many."""
    flops = gemm.flops / max(1, gemm.batches * row_blocks * columns.pieces)  # of one panel
    least = math.ceil(UNIT_FLOPS / flops) if flops else columns.pieces
    enough = columns.pieces * gemm.batches * row_blocks // UNITS
    return Cut.by(columns.pieces, max(1, least, enough))


def _block_rows(gemm: Gemm, rows: Cut, most: Cut) -> Cut:
    """Blocks of rows that are units by themselves: as small as is worth a thread's while, but not needlessly many."""
    flops = gemm.flops / max(1, gemm.batches * rows.pieces)  # of one tile
    least = math.ceil(UNIT_FLOPS / flops) if flops else rows.pieces
    return Cut.by(rows.pieces, min(most.size, max(1, least, rows.pieces * gemm.batches // UNITS)))


def _cut_parts(gemm: Gemm, reduction: Cut, units: int) -> Cut:
    """Few results, each a long sum: cut the sum, so that there is work for several threads."""
    if not units or units >= PARTIAL_UNITS:
        return Cut(reduction.pieces, 1)
    work = max(gemm.flops // UNIT_FLOPS, gemm.batches * gemm.k * gemm.n * gemm.dtype.size_bytes // UNIT_BYTES)
    most = max(1, min(-(-PARTIAL_UNITS // units), work // units))
    return Cut(reduction.pieces, min(most, reduction.pieces))


def _place_a(gemm: Gemm, rows: Cut, widens: bool) -> Literal["direct", "copy"]:
    if widens:
        return "copy"
    if gemm.pairs and gemm.a.row == 1:
        return "copy"
    if not gemm.pairs and 1 not in (gemm.a.row, gemm.a.column):
        return "copy" if gemm.n > 8 else "direct"
    step = max(gemm.a.row, gemm.a.column) * gemm.dtype.size_bytes
    if gemm.a.row == 1:
        colliding = step % (PAGE_BYTES // 8) == 0 and gemm.k >= 64
    else:
        colliding = step % (PAGE_BYTES // 2) == 0 and rows.size > 6
    return "copy" if colliding and gemm.n >= 64 else "direct"


def _place_b(
    gemm: Gemm, row_blocks: Cut, widens: bool, lanes: int, target: Target
) -> Literal["direct", "private", "shared", "packed"]:
    if gemm.packed:
        return "packed"
    ragged = gemm.n % lanes != 0 and not target.masking
    step = gemm.b.row * gemm.dtype.size_bytes
    colliding = step % PAGE_BYTES == 0 and gemm.k >= 256 and gemm.m >= PACKING_ROWS // 4
    crowded = step % (PAGE_BYTES // 4) == 0 and gemm.k >= 128 and gemm.m >= PACKING_ROWS // 2
    reused = gemm.m >= PACKING_ROWS or colliding or crowded
    if gemm.b.column == 1 and not (widens or gemm.pairs) and not ragged and not reused:
        return "direct"
    return "private" if row_blocks.pieces == 1 else "shared"
