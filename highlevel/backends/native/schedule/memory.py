"""Places in memory: which bytes of the one arena each value of a program has, and for how long.

In: values with their sizes and lifetimes, counted in steps of the program. Out: an offset for each, and the size of
    the arena,
which is known before anything runs. Two values whose lifetimes overlap never share a byte – unless one is written in
the place of the other, which dies in that very step.

Values are placed largest first, each in the smallest gap that is free for its whole life (Y. Pisarchyk and J. Lee,
"Efficient memory
management for deep neural net inference", 2020); small values fill the gaps that large ones leave. The plan is
compared with the lower
bound, the largest sum of sizes alive at one time: if largest-first misses it, placing in order of time is tried as
well and the better plan is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass(frozen=True, slots=True)
class Value:
    """Something that needs memory from step `start`, which writes it, to step `end`, which reads it last.

    inside: the name of a value in whose place it is written, where the kernel allows that: equal in size, last read
            at `start`
    """

    name: str
    size_bytes: int
    start: int
    end: int
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Offsets by name, the arena's size, and the largest sum of sizes alive at one step: no plan can be smaller."""

    offsets: Mapping[str, int]
    size_bytes: int
    bound_bytes: int

    def __str__(self) -> str:
        waste = self.size_bytes / self.bound_bytes - 1 if self.bound_bytes else 0.0
        return f"{len(self.offsets)} values in {self.size_bytes:,} bytes, {waste:.1%} above the bound"


@dataclass(frozen=True, slots=True)
class Block:
    """Values that share one place, one after the other: a value, and what is written in its place."""

    names: tuple[str, ...]
    size_bytes: int
    start: int
    end: int


def plan_memory(values: Sequence[Value]) -> MemoryPlan:
    """Places for all values; see the module."""
    blocks = join_in_place(values)
    bound = peak_bytes(blocks)
    orders: tuple[Callable[[Block], tuple[int, ...]], ...] = (
        lambda block: (-block.size_bytes, block.start),
        lambda block: (block.start, -block.size_bytes),
        lambda block: (-block.size_bytes * (block.end - block.start + 1), block.start),
    )
    best: dict[str, int] | None = None
    size = 0
    for order in orders:
        placed = _place(sorted(blocks, key=lambda block: (*order(block), block.names)))
        needed = max((placed[b.names[0]] + aligned(b.size_bytes) for b in blocks), default=0)
        if best is None or needed < size:
            best, size = placed, needed
        if size == bound:
            break
    offsets = {name: (best or {})[block.names[0]] for block in blocks for name in block.names}
    return MemoryPlan(offsets, size, bound)


def join_in_place(values: Sequence[Value]) -> list[Block]:
    """Chains of values, each written in the place of the one before."""
    by_name = {value.name: value for value in values}
    successor: dict[str, Value] = {}
    for value in values:
        host = by_name.get(value.inside or "")
        fits = host is not None and host.end <= value.start and host.size_bytes >= value.size_bytes
        if host is not None and fits and host.name not in successor:
            successor[host.name] = value
    followers = {value.name for value in successor.values()}
    blocks = []
    for value in values:
        if value.name in followers:
            continue
        chain = [value]
        while chain[-1].name in successor:
            chain.append(successor[chain[-1].name])
        blocks.append(Block(tuple(v.name for v in chain), value.size_bytes, value.start, max(v.end for v in chain)))
    return blocks


def aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def peak_bytes(blocks: Iterable[Block | Value]) -> int:
    """The largest sum of sizes that are alive at one step."""
    changes: dict[int, int] = {}
    for block in blocks:
        changes[block.start] = changes.get(block.start, 0) + aligned(block.size_bytes)
        changes[block.end + 1] = changes.get(block.end + 1, 0) - aligned(block.size_bytes)
    peak = alive = 0
    for step in sorted(changes):
        alive += changes[step]
        peak = max(peak, alive)
    return peak


def _place(blocks: Sequence[Block]) -> dict[str, int]:
    """Offsets by first name, blocks placed in the given order, each in the tightest free gap."""
    placed: list[tuple[int, int, Block]] = []  # (offset, end of bytes, block), sorted by offset
    offsets: dict[str, int] = {}
    for block in blocks:
        size = aligned(block.size_bytes)
        best_gap, best_offset, cursor = None, 0, 0
        for offset, end, other in placed:
            if other.end < block.start or block.end < other.start:
                continue
            gap = offset - cursor
            if gap >= size and (best_gap is None or gap < best_gap):
                best_gap, best_offset = gap, cursor
            cursor = max(cursor, end)
        offset = best_offset if best_gap is not None else cursor
        offsets[block.names[0]] = offset
        entry = (offset, offset + size, block)
        position = next((i for i, row in enumerate(placed) if row[0] > offset), len(placed))
        placed.insert(position, entry)
    return offsets
