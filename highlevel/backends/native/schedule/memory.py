"""Places in memory: which bytes of the one arena each value of a program has, and for how long.

In: values with their sizes and lifetimes, counted in steps of the program. Out: an offset for each, and the size of the
arena, which is known before anything runs. Two values whose lifetimes overlap never share a byte – unless one is
written in the place of the other, which dies in that very step.

No plan is smaller than the largest sum of sizes that are alive at one step, and plans are tried until one comes near:

    by size: largest first, each in the smallest gap that is free for its whole life; small values fill the gaps that
             large ones leave (Y. Pisarchyk and J. Lee, "Efficient memory management for deep neural net inference",
             2020). What sticks out above the bound goes first in the next attempt. Quadratic: the more values, the
             fewer attempts
    in time: as an allocator would, in the order in which values begin, long-lived ones from the bottom and short-lived
             ones from the top of the smallest space that has room; what is short differs from attempt to attempt.
             Linear, but for the list of free spaces, which stays short
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
NEAR, FAR = 1.002, 1.03  # times the bound: no need to try further; worth to take the time
PAIRS = 1_000_000  # of blocks, that are looked at without hesitation
ATTEMPTS = 6  # by size, at most
SHORT = (0, 2, 10, 30, 100)  # steps: what lives shorter goes to the top


@dataclass(frozen=True, slots=True)
class Value:
    """Something that needs memory from step `start`, which writes it, to step `end`, which reads it last.

    A task's workspace, which nothing else sees, starts and ends at its step.

    inside: the name of a value in whose place it is written, where the kernel allows that: at least as large, last read
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
    sizes = [aligned(block.size_bytes) for block in blocks]
    bound = peak_bytes(blocks)
    best: list[int] = []
    least: int | None = None
    for offsets, is_last in _attempts(blocks, sizes, bound):
        needed = max([offset + size for offset, size in zip(offsets, sizes, strict=True)], default=0)
        if least is None or needed < least:
            best, least = offsets, needed
        if least <= (FAR if is_last else NEAR) * bound:
            break
    places = {name: best[i] for i, block in enumerate(blocks) for name in block.names}
    return MemoryPlan(places, least or 0, bound)


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
        size = aligned(block.size_bytes)
        changes[block.start] = changes.get(block.start, 0) + size
        changes[block.end + 1] = changes.get(block.end + 1, 0) - size
    return max(itertools.accumulate([changes[step] for step in sorted(changes)]), default=0)


# Attempts ------------------------------------------------------------------------------------------------------------
def _attempts(blocks: Sequence[Block], sizes: Sequence[int], bound: int) -> Iterator[tuple[list[int], bool]]:
    """Offsets of the blocks, in their order, by one method after the other; and whether what follows takes long."""
    order = sorted(range(len(blocks)), key=lambda i: (-sizes[i], blocks[i].start, blocks[i].names))
    attempts = min(PAIRS // max(len(blocks), 1) ** 2, ATTEMPTS)
    for _ in range(attempts):
        offsets = _placed_by_size(blocks, sizes, order)
        yield offsets, False
        above = [offset + size > bound for offset, size in zip(offsets, sizes, strict=True)]
        order.sort(key=lambda i: not above[i])
    for short in SHORT:
        yield _placed_in_time(blocks, sizes, bound, short), short == SHORT[-1]
    if not attempts:
        yield _placed_by_size(blocks, sizes, order), True


def _placed_by_size(blocks: Sequence[Block], sizes: Sequence[int], order: Iterable[int]) -> list[int]:
    """Blocks placed in the given order, each in the tightest gap that is free for all of its life."""
    offsets = [0] * len(blocks)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end of bytes, start, end of life), sorted
    for i in order:
        size, start, end = sizes[i], blocks[i].start, blocks[i].end
        tightest, place, cursor = None, 0, 0
        for offset, limit, first, last in placed:
            if last < start or end < first:
                continue
            gap = offset - cursor
            if gap >= size and (tightest is None or gap < tightest):
                tightest, place = gap, cursor
            if limit > cursor:
                cursor = limit
        offsets[i] = cursor if tightest is None else place
        bisect.insort(placed, (offsets[i], offsets[i] + size, start, end))
    return offsets


def _placed_in_time(blocks: Sequence[Block], sizes: Sequence[int], bound: int, short: int) -> list[int]:
    """Blocks placed in the order in which they begin, in an arena that grows beyond its bound where it has to."""
    offsets = [0] * len(blocks)
    free = _FreeList(bound)
    dying: list[tuple[int, int, int]] = []  # (last step, offset, size)
    for i in sorted(range(len(blocks)), key=lambda i: (blocks[i].start, -sizes[i], blocks[i].names)):
        block, size = blocks[i], sizes[i]
        while dying and dying[0][0] < block.start:
            _, offset, gone = heapq.heappop(dying)
            free.give_back(offset, gone)
        offsets[i] = free.take(size, from_top=block.end - block.start < short)
        heapq.heappush(dying, (block.end, offsets[i], size))
    return offsets


class _FreeList:
    """The free spaces of an arena, in order of address."""

    def __init__(self, size_bytes: int) -> None:
        self.top = size_bytes
        self.spaces = [(0, size_bytes)] if size_bytes else []  # (offset, end)

    def take(self, size: int, from_top: bool) -> int:
        """The offset of that many bytes, now taken: from one end of the smallest space that has them."""
        if not size:
            return 0
        spaces = self.spaces
        tightest = found = -1
        for i, (offset, end) in enumerate(spaces):
            room = end - offset
            if room >= size and (found < 0 or room < tightest or (from_top and room == tightest)):
                tightest, found = room, i
        if found < 0:
            offset = spaces.pop()[0] if spaces and spaces[-1][1] == self.top else self.top
            self.top = offset + size
            return offset
        offset, end = spaces[found]
        if tightest == size:
            del spaces[found]
            return offset
        spaces[found] = (offset, end - size) if from_top else (offset + size, end)
        return end - size if from_top else offset

    def give_back(self, offset: int, size: int) -> None:
        """Frees what was taken, joined with its free neighbours."""
        if not size:
            return
        spaces, end = self.spaces, offset + size
        i = bisect.bisect_left(spaces, (offset, end))
        if i < len(spaces) and spaces[i][0] == end:
            end = spaces.pop(i)[1]
        if i > 0 and spaces[i - 1][1] == offset:
            i -= 1
            offset = spaces.pop(i)[0]
        spaces.insert(i, (offset, end))
