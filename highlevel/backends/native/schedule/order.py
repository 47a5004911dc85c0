"""The order of kernels: any topological order is right; a good one keeps little alive.

In: tasks with the values that they read and write. Out: an order. Greedy list scheduling: of the tasks that could
    run, the one
that frees most memory, net of what it writes, goes first; ties keep the order of creation, so that a program without
choices is left alone and the same program is always ordered alike. The result is used only if its peak is lower than
that of the order in which the tasks were made.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .memory import Value, peak_bytes


@dataclass(frozen=True, slots=True)
class Task:
    """A kernel as far as its order matters: values by name."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def plan_order(tasks: Sequence[Task], sizes: Mapping[str, int], kept: frozenset[str] = frozenset()) -> list[int]:
    """Positions of the tasks in the order in which they should run.

    sizes: bytes of each value; kept: values that live to the end (results), or from the beginning (inputs)
    """
    original = list(range(len(tasks)))
    greedy = _greedy(tasks, sizes, kept)
    if peak(tasks, greedy, sizes, kept) < peak(tasks, original, sizes, kept):
        return greedy
    return original


def lifetimes(
    tasks: Sequence[Task], order: Sequence[int], sizes: Mapping[str, int], kept: frozenset[str]
) -> list[Value]:
    """The values that tasks write, with the steps from their writing to their last reading."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for step, position in enumerate(order):
        for name in tasks[position].writes:
            starts[name] = ends[name] = step
        for name in tasks[position].reads:
            if name in starts:
                ends[name] = step
    last = len(order)
    return [Value(name, sizes[name], start, last if name in kept else ends[name]) for name, start in starts.items()]


def peak(tasks: Sequence[Task], order: Sequence[int], sizes: Mapping[str, int], kept: frozenset[str]) -> int:
    return peak_bytes(lifetimes(tasks, order, sizes, kept))


def _greedy(tasks: Sequence[Task], sizes: Mapping[str, int], kept: frozenset[str]) -> list[int]:
    writer = {name: position for position, task in enumerate(tasks) for name in task.writes}
    readers: dict[str, set[int]] = {}
    for position, task in enumerate(tasks):
        for name in task.reads:
            readers.setdefault(name, set()).add(position)
    waiting = [len({writer[name] for name in task.reads if name in writer}) for task in tasks]
    left = {name: len(found) for name, found in readers.items()}
    ready: list[tuple[int, int]] = []
    current: dict[int, int] = {}

    def cost(position: int) -> int:
        """Bytes that the task adds, less those that it is the last to read."""
        task = tasks[position]
        freed = sum(sizes[n] for n in set(task.reads) if n in writer and n not in kept and left[n] == 1)
        return sum(sizes[name] for name in task.writes) - freed

    def offer(position: int) -> None:
        current[position] = cost(position)
        heapq.heappush(ready, (current[position], position))

    for position, count in enumerate(waiting):
        if count == 0:
            offer(position)
    order: list[int] = []
    done = [False] * len(tasks)
    while ready:
        price, position = heapq.heappop(ready)
        if done[position] or price != current[position]:
            continue  # an entry from before a neighbour changed its price
        done[position] = True
        order.append(position)
        for name in set(tasks[position].reads):
            left[name] -= 1
            for other in readers[name]:
                if not done[other] and other in current and left[name] == 1:
                    offer(other)
        unlocked = {reader for name in tasks[position].writes for reader in readers.get(name, ())}
        for reader in sorted(unlocked):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                offer(reader)
    return order
