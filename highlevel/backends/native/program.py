"""Programs as data: steps on buffers, each buffer with its place in memory.

A program is handed its inputs and the places of its results as pointers; everything else lies in its arena, whose
size is known before it runs. Bodies of loops and branches are programs as well, and their arenas are workspaces of the
steps that run them. How a graph becomes one: `planner.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from highlevel.ir import Origin
from highlevel.ir.graph import Leaf

from .lower.task import Task
from .schedule.kernel import Buffer
from .schedule.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Loop:
    """A `scan`: the body runs `length` times, in place on the carry.

    prologue:  copies of the first carry to where the last one will be
    constants: the body's first inputs; ends: the carry; sequences: sliced in each step; stacks: written slice by slice
    """

    name: str
    body: Program
    length: int
    reverse: bool
    prologue: tuple[Task, ...]
    constants: tuple[str, ...]
    ends: tuple[str, ...]
    sequences: tuple[str, ...]
    stacks: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()

    def workspace_bytes(self, nthreads: int) -> int:
        return self.body.memory.size_bytes


@dataclass(frozen=True, slots=True)
class While:
    """A `while_loop`: `body` runs, in place on the carry, while `test` gives true, and at most `max_steps` times."""

    name: str
    test: Program
    body: Program
    max_steps: int | None
    prologue: tuple[Task, ...]
    constants: tuple[str, ...]
    ends: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()

    def workspace_bytes(self, nthreads: int) -> int:
        return FLAG_BYTES + max(self.test.memory.size_bytes, self.body.memory.size_bytes)


@dataclass(frozen=True, slots=True)
class Branch:
    """A `cond`: one of two programs with the same inputs and results."""

    name: str
    predicate: str
    then: Program
    otherwise: Program
    operands: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()

    def workspace_bytes(self, nthreads: int) -> int:
        return max(self.then.memory.size_bytes, self.otherwise.memory.size_bytes)


FLAG_BYTES = 64  # where a loop's test puts its answer: at the beginning of the workspace
Step: TypeAlias = Task | Loop | While | Branch


@dataclass(frozen=True, slots=True)
class Program:
    """Steps in order.

    inputs:  buffers that the caller provides, in the order of the graph's inputs and then of `leaves`
    leaves:  constants and variables
    results: buffers that the caller provides to be written: the graph's outputs, then its updates
    donated: results (by name) that are the same memory as an input
    buffers: all buffers by name
    memory:  places of the others in the arena, and of the workspace of step i, called `work<i>`
    setup:   what depends on leaves alone that stay the same from run to run – packed weights, for one – is computed by
             a program of its own, with the same inputs, whose results are `kept`, and provided by the caller as well
    sources: the operators that made what is in the buffers, by name, and where these come from
    """

    inputs: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    results: tuple[str, ...]
    donated: Mapping[str, str]
    buffers: Mapping[str, Buffer]
    steps: tuple[Step, ...]
    memory: MemoryPlan
    sources: Mapping[str, tuple[str, Origin]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    setup: Program | None = None

    def tasks(self) -> Iterable[Task]:
        """All tasks, those of bodies included."""
        for step in self.steps:
            match step:
                case Task():
                    yield step
                case Loop():
                    yield from (*step.prologue, *step.body.tasks())
                case While():
                    yield from (*step.prologue, *step.test.tasks(), *step.body.tasks())
                case Branch():
                    yield from (*step.then.tasks(), *step.otherwise.tasks())


def size_bytes(buffer: Buffer) -> int:
    return math.prod(buffer.shape) * buffer.dtype.size_bytes
