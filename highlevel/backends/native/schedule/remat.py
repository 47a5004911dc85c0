"""Rematerialisation: values are computed again where they are needed late, rather than kept until then.

In: tasks in the order in which they run, with what each reads and writes and costs; how much memory there may be at a
time. Out: runs, each of one of the tasks, some of them a second time. Invariants: a run reads what the task reads – the
same values, be it in other buffers – so results are equal to the bit; nothing new has to be compiled.

Step by step, as long as too much is alive somewhere: of the values that lie idle where most is alive, one goes whose
bytes cost least to compute again right before it is needed next – and, where its operands are gone by then, they as
well. So elementwise kernels come first, then contractions, one after the other; where operands of what is computed
again have gone too, segments form between values that stay. A. Gruslys et al., "Memory-efficient backpropagation
through time", 2016, and M. Kirisame et al., "Dynamic tensor rematerialization", 2021, trade alike; segments are those
of T. Chen et al., "Training deep nets with sublinear memory cost", 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .memory import aligned

LONGEST_CHAIN = 64  # tasks run again for one value
TRIED = 6  # candidates that turn out to free nothing, before giving up
SMALL = 16  # what is that many times smaller may as well be kept longer
STEP = 0.95  # of the peak is what is aimed at next: far goals tell changes for the better from others badly
DEAREST = 1.0  # a program may cost that much more than before, as a part


@dataclass(frozen=True, slots=True)
class Job:
    """A task: values by name.

    in_place:   pairs (written, read) that may be the same memory
    work_bytes: workspace
    cost:       of running it again, in any unit; None: it must not
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...] = ()
    work_bytes: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job, by its number; which buffers stand for its values."""

    job: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    def names(self, job: Job) -> dict[str, str]:
        """Buffers by the names that the job has for them."""
        return dict(zip((*job.reads, *job.writes), (*self.reads, *self.writes), strict=True))


class Lives:
    """Who writes and reads which buffer, and how much is alive during each run."""

    def __init__(self, plan: Rematerialisation, runs: Sequence[Run]) -> None:
        self.first: dict[str, int] = {}
        self.uses: dict[str, list[int]] = {}
        for i, run in enumerate(runs):
            for name in run.writes:
                self.first[name] = i
                self.uses[name] = []
            for name in run.reads:
                if name in self.uses and (not self.uses[name] or self.uses[name][-1] != i):
                    self.uses[name].append(i)
        self.arena = [name for name in self.first if name not in plan.external]
        self.buffers: dict[str, list[str]] = {}  # in the arena, of each value
        for name in self.arena:
            self.buffers.setdefault(plan.value(name), []).append(name)
        changes = [0] * (len(runs) + 2)
        late = self._written_over(plan, runs)
        for name in self.arena:
            size, start = plan.size(name), self.first[name]
            changes[start + (name in late)] += size
            changes[max(self.last(name), start) + 1] -= size
        alive = list(itertools.accumulate(changes[: len(runs)]))
        self.alive = [bytes_ + plan.jobs[run.job].work_bytes for bytes_, run in zip(alive, runs, strict=True)]

    def last(self, name: str) -> int:
        uses = self.uses[name]
        return uses[-1] if uses else self.first[name]

    def _written_over(self, plan: Rematerialisation, runs: Sequence[Run]) -> set[str]:
        """Buffers that are written in the place of one that is read for the last time."""
        found: set[str] = set()
        for i, run in enumerate(runs):
            job = plan.jobs[run.job]
            if not job.in_place:
                continue
            names = run.names(job)
            taken: set[str] = set()
            for written, read in job.in_place:
                new, old = names[written], names[read]
                dies = old in self.first and old not in plan.external and old not in taken and self.last(old) == i
                lives_on = new not in found and new not in plan.external and self.last(new) > i
                if dies and lives_on and plan.size(old) >= plan.size(new):
                    found.add(new)
                    taken.add(old)
        return found


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A buffer to be dropped while it lies idle.

    at:     the run before which it is needed again
    chain:  runs that make it again
    price:  for each byte that is freed
    """

    price: float
    at: int
    name: str
    chain: tuple[Run, ...]


class Rematerialisation:
    """The runs of jobs, and how they become more, that keep less.

    sizes:       bytes by value
    external:    values that others provide the memory of
    overwritten: of these, those that a job writes over, by its number
    """

    def __init__(
        self, jobs: Sequence[Job], sizes: Mapping[str, int], external: set[str], overwritten: Mapping[str, int]
    ) -> None:
        self.jobs, self.external, self.overwritten = jobs, external, overwritten
        self.sizes = {name: aligned(size) for name, size in sizes.items()}
        self.runs = [Run(i, job.reads, job.writes) for i, job in enumerate(jobs)]
        self.base: dict[str, str] = {}  # of buffers that were added: the value
        self.writer = {name: i for i, job in enumerate(jobs) for name in job.writes}
        self.lives = Lives(self, self.runs)
        self.numbers = itertools.count()
        self.cost = self._cost_of(self.runs)
        self.most = (1 + DEAREST) * self.cost

    @property
    def peak(self) -> int:
        return max(self.lives.alive, default=0)

    def value(self, buffer: str) -> str:
        return self.base.get(buffer, buffer)

    def size(self, buffer: str) -> int:
        return self.sizes[self.value(buffer)]

    def _cost_of(self, runs: Sequence[Run]) -> float:
        return sum([self.jobs[run.job].cost or 0.0 for run in runs])

    def reduce(self, goal_bytes: int) -> bool:
        """Runs more until no more is alive at a time; False if that cannot be."""
        least = max((self._own_bytes(job) for job in self.jobs), default=0)
        goal = max(goal_bytes, least)
        while self.peak > goal:
            if not self._drop_one(max(goal, int(STEP * self.peak))):
                return False
        return goal == goal_bytes

    def _own_bytes(self, job: Job) -> int:
        names = {*job.reads, *job.writes} - self.external - {written for written, _ in job.in_place}
        return job.work_bytes + sum(self.sizes[name] for name in names)

    def _drop_one(self, goal: int) -> bool:
        """Makes one change for the better; False if there is none."""
        alive = self.lives.alive
        place = alive.index(max(alive))
        excess = _excess(alive, goal)
        found = sorted(self._candidates(place), key=lambda c: (c.price, -c.at, c.name))
        for candidate in found[:TRIED]:
            for shared in (True, False) if len(candidate.chain) > 1 else (True,):
                runs = self._without_unused(self._changed(candidate, shared))
                cost, lives = self._cost_of(runs), Lives(self, runs)
                if cost <= self.most and _excess(lives.alive, goal) < excess:
                    self.runs, self.lives, self.cost = runs, lives, cost
                    return True
        return False

    # Candidates ------------------------------------------------------------------------------------------------------
    def _candidates(self, place: int) -> Iterator[_Candidate]:
        """What lies idle during a run, and can be made again."""
        lives = self.lives
        for name in lives.arena:
            if not lives.first[name] < place < lives.last(name) or place in lives.uses[name]:
                continue
            at = next(use for use in lives.uses[name] if use > place)
            chain = _Chain(self, place, at)
            if not chain.make(self.value(name), drop=name):
                continue
            freed = self.size(name) - chain.kept_bytes
            if freed * SMALL > self.size(name):
                yield _Candidate(self._cost_of(chain.runs) / freed, at, name, tuple(chain.runs))

    # Changes ---------------------------------------------------------------------------------------------------------
    def _changed(self, candidate: _Candidate, shared: bool) -> list[Run]:
        """The runs with a candidate's chain; all that it makes serves later readers, or only its last run's results."""
        names: dict[str, str] = {}  # by value
        for run in candidate.chain:
            writes = self.jobs[run.job].writes
            self.base.update(zip(run.writes, writes, strict=True))
            if shared or run is candidate.chain[-1]:
                names.update(zip(writes, run.writes, strict=True))
        runs = [*self.runs[: candidate.at], *candidate.chain]
        for run in self.runs[candidate.at :]:
            reads = tuple([self._now(name, names) for name in run.reads])
            runs.append(Run(run.job, reads, run.writes))
        return runs

    def _now(self, name: str, names: Mapping[str, str]) -> str:
        return name if name in self.external else names.get(self.value(name), name)

    def _without_unused(self, runs: list[Run]) -> list[Run]:
        """The runs but for those that may be repeated and whose results nobody reads."""
        used: set[str] = set()
        kept = []
        for run in reversed(runs):
            needed = self.jobs[run.job].cost is None or any(x in used or x in self.external for x in run.writes)
            if needed or not run.writes:
                kept.append(run)
                used.update(run.reads)
        return kept[::-1]


class _Chain:
    """The runs by which a value is made again before some run, from what is there; see `Rematerialisation`.

    kept_bytes: what has to be kept for it during the run where least should be alive
    """

    def __init__(self, plan: Rematerialisation, place: int, at: int) -> None:
        self.plan, self.place, self.at = plan, place, at
        self.runs: list[Run] = []
        self.made: dict[str, str] = {}
        self.failed: set[str] = set()
        self.kept: set[str] = set()
        self.kept_bytes = 0

    def make(self, value: str, drop: str = "") -> bool:
        """Adds the runs that make a value, operands first; False if it cannot be made."""
        plan = self.plan
        number = plan.writer[value]
        job = plan.jobs[number]
        if job.cost is None or len(self.runs) >= LONGEST_CHAIN:
            return False
        reads = []
        for operand in job.reads:
            name = self._available(operand, drop)
            if name is None:
                return False
            reads.append(name)
        count = next(plan.numbers)
        writes = tuple([f"{name}~{count}" for name in job.writes])
        self.runs.append(Run(number, tuple(reads), writes))
        self.made.update(zip(job.writes, writes, strict=True))
        return True

    def _available(self, value: str, drop: str) -> str | None:
        """A buffer that holds a value, or will; None if there is none."""
        plan, lives = self.plan, self.plan.lives
        if value in self.made:
            return self.made[value]
        if value in plan.external:
            return value if self._is_unchanged(value) else None
        there = [x for x in lives.buffers.get(value, ()) if x != drop and lives.first[x] < self.at]
        name = max(there, key=lives.last, default=None)
        if name is not None:
            crosses = lives.last(name) < self.place and name not in self.kept
            if not crosses or plan.size(name) * SMALL <= plan.size(drop):
                return self._keep(name, crosses)
        runs, made, kept, kept_bytes = len(self.runs), dict(self.made), set(self.kept), self.kept_bytes
        if value not in self.failed and self.make(value, drop):
            return self.made[value]
        self.failed.add(value)
        del self.runs[runs:]
        self.made, self.kept, self.kept_bytes = made, kept, kept_bytes
        return None if name is None else self._keep(name, True)

    def _keep(self, name: str, crosses: bool) -> str:
        if crosses:
            self.kept.add(name)
            self.kept_bytes += self.plan.size(name)
        return name

    def _is_unchanged(self, value: str) -> bool:
        """Whether an external value has not been written over yet."""
        number = self.plan.overwritten.get(value)
        if number is None:
            return True
        written = self.plan.jobs[number].writes
        return all(self.plan.lives.first[name] >= self.at for name in written if name in self.plan.external)


def _excess(alive: Sequence[int], goal: int) -> int:
    """By how much too much is alive, over all runs."""
    return sum([bytes_ - goal for bytes_ in alive if bytes_ > goal])
