"""The order of kernels: any topological order is right; a good one keeps little alive.

In: tasks with the values that they read and write, in an order that could run. Out: an order. Greedy list scheduling:
of the tasks that could run, the one that frees most memory, net of what it writes, goes first. Where that makes no
difference worth mentioning, the one that reads what was written last goes first, since that is still in the cache, and
then the one that was made first; so the same program is always ordered alike. The result is used only if its peak is
lower than that of the order in which the tasks came.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from highlevel.errors import BackendError

from .memory import Value, aligned

STEPS_OF_PEAK = 2048  # memory is counted in this fraction of the peak: smaller differences make none


@dataclass(frozen=True, slots=True)
class Task:
    """A kernel as far as its order matters: values by name.

    after: positions of tasks that come first although no value says so: who overwrites a variable comes after all who
           read its old value
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    after: tuple[int, ...] = ()


def plan_order(tasks: Sequence[Task], sizes: Mapping[str, int], kept: frozenset[str] = frozenset()) -> list[int]:
    """Positions of the tasks in the order in which they should run.

    sizes: bytes of each value; kept: values that live to the end (results), or from the beginning (inputs)
    """
    original = list(range(len(tasks)))
    least = peak(tasks, original, sizes, kept)
    if not least:
        return original
    greedy = _Greedy(tasks, sizes, kept, max(least // STEPS_OF_PEAK, 1)).order()
    return greedy if peak(tasks, greedy, sizes, kept) < least else original


def freeing_order(tasks: Sequence[Task], sizes: Mapping[str, int], kept: Collection[str] = ()) -> list[int]:
    """The order of the tasks as they are, but that what frees at least as much as it takes runs as soon as it can.

    So variables are updated as soon as their gradients are there. It does not help where a program's peak is, but frees
    what is alive elsewhere; `kept` as in `plan_order`.
    """
    writers = {name: i for i, task in enumerate(tasks) for name in task.writes}
    reads = [{name for name in task.reads if name in writers} for task in tasks]
    needs = [{writers[name] for name in reads[i]} | {*task.after} for i, task in enumerate(tasks)]
    followers: list[list[int]] = [[] for _ in tasks]
    left: dict[str, int] = {}
    for i, found in enumerate(needs):
        found.discard(i)
        for other in found:
            followers[other].append(i)
        for name in reads[i]:
            left[name] = left.get(name, 0) + 1
    order: list[int] = []
    done: set[int] = set()
    for first in range(len(tasks)):
        stack = [first]
        while stack:
            i = stack.pop()
            if i in done or not done.issuperset(needs[i]):
                continue
            if i != first:
                freed = sum([sizes[name] for name in reads[i] if left[name] == 1 and name not in kept])
                if freed < sum([sizes[name] for name in tasks[i].writes if name not in kept]) or not freed:
                    continue
            done.add(i)
            order.append(i)
            for name in reads[i]:
                left[name] -= 1
            around = {other for name in reads[i] for other in followers[writers[name]]} | {*followers[i]}
            stack += sorted(around - done, reverse=True)
    return order


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
    """The largest sum of sizes that are alive at one step."""
    last: dict[str, int] = {}
    for step, position in enumerate(order):
        task = tasks[position]
        for name in task.reads:
            last[name] = step
        for name in task.writes:
            last[name] = step
    dying = [0] * (len(order) + 1)
    alive = most = 0
    for step, position in enumerate(order):
        for name in tasks[position].writes:
            size = aligned(sizes[name])
            alive += size
            if name not in kept:
                dying[last[name]] += size
        most = max(most, alive)
        alive -= dying[step]
    return most


class _Greedy:
    """List scheduling.

    left:    how many tasks that have not run read a value
    waiting: how many tasks have to run before one can
    prices:  bytes that a task adds if it runs now, less those that it is the last to read; in units
    latest:  the step that wrote the last of what a task reads
    """

    def __init__(self, tasks: Sequence[Task], sizes: Mapping[str, int], kept: frozenset[str], unit: int) -> None:
        self.unit = unit
        writer = {name: position for position, task in enumerate(tasks) for name in task.writes}
        self.bytes = {name: 0 if name in kept else aligned(sizes[name]) for name in writer}
        self.added = [sum([aligned(sizes[name]) for name in task.writes]) for task in tasks]
        self.reads = [tuple(dict.fromkeys([name for name in task.reads if name in writer])) for task in tasks]
        self.readers: dict[str, list[int]] = {name: [] for name in writer}
        self.followers: list[list[int]] = [[] for _ in tasks]
        self.waiting = [0] * len(tasks)
        for position, task in enumerate(tasks):
            for name in self.reads[position]:
                self.readers[name].append(position)
            for other in {*[writer[name] for name in self.reads[position]], *task.after} - {position}:
                self.followers[other].append(position)
                self.waiting[position] += 1
        self.left = {name: len(found) for name, found in self.readers.items()}
        self.prices: dict[int, int] = {}
        self.latest = [0] * len(tasks)
        self.ready: list[tuple[int, int, int]] = []

    def offer(self, position: int) -> None:
        """Puts a task that can run, or has become cheaper, among those to choose from."""
        freed = sum([self.bytes[name] for name in self.reads[position] if self.left[name] == 1])
        price = self.prices[position] = (self.added[position] - freed) // self.unit
        heapq.heappush(self.ready, (price, -self.latest[position], position))

    def order(self) -> list[int]:
        for position, count in enumerate(self.waiting):
            if count == 0:
                self.offer(position)
        order: list[int] = []
        done = [False] * len(self.waiting)
        while self.ready:
            price, _, position = heapq.heappop(self.ready)
            if done[position] or price != self.prices[position]:
                continue  # an entry from before a neighbour changed its price
            done[position] = True
            order.append(position)
            for name in self.reads[position]:
                self.left[name] -= 1
                if self.left[name] == 1:
                    for other in self.readers[name]:
                        if not done[other] and other in self.prices:
                            self.offer(other)
            for follower in self.followers[position]:
                self.latest[follower] = len(order)
                self.waiting[follower] -= 1
                if self.waiting[follower] == 0:
                    self.offer(follower)
        if len(order) < len(done):
            stuck = [position for position, ran in enumerate(done) if not ran]
            raise BackendError("steps wait for each other", got=stuck[:10], expected="an order that can run")
        return order
