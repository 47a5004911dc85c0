"""What a device offers: compiling units, loading them, memory, and running steps. Small on purpose.

    units ─compile→ objects ─load→ library ─address→ step ─run(step, arena)→ done
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from highlevel.backends.native.cache import Object, Unit
from highlevel.backends.native.codegen.targets import Target


class Code(Protocol):
    """Code that is ready to run, for as long as this object is there."""

    def address(self, symbol: str) -> int:
        """Where a unit's function is, by the unit's symbol."""

    def close(self) -> None:
        """Unloads it; nothing of it may be running."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A piece of a device's memory, for as long as this object or an array on it is there.

    address:    of its first byte, in the device's address space
    size_bytes: how much there is
    array:      the same bytes, where the host can see them: uint8, shape (size_bytes,)
    """

    address: int
    size_bytes: int
    array: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """A function `step(i32 tid, i32 nthreads, ptr arena, ptr team_state)`, and the code that it is in.

    alone: it has no work for several threads, so one runs it as the only one
    """

    code: Code
    symbol: str
    alone: bool = False


@runtime_checkable
class Device(Protocol):
    """A place where programs run.

    name:   "cpu", …
    target: what code is generated for
    threads: how many take part in a step, at most
    """

    name: str
    target: Target

    @property
    def threads(self) -> int: ...

    def compile(self, units: Sequence[Unit]) -> list[Object]:
        """Object code for units, in their order; each is compiled once, ever, if it can be kept."""

    def load(self, objects: Sequence[Object]) -> Code:
        """Makes objects that call each other, and the device's functions, ready to run."""

    def allocate(self, size_bytes: int, alignment: int = 64) -> Memory:
        """New memory with any content, its address a multiple of `alignment` (a power of two)."""

    def run(self, step: Step, arena: Memory) -> None:
        """Runs a step and waits for its end."""

    def sequence(self, *, alone: bool) -> Step:
        """The step that carries out tables (see `sequencer`); its arena is a frame. `alone`: by one thread."""

    def exclusive(self) -> AbstractContextManager[Any]:
        """A context in which no other Python thread runs a step."""

    def close(self) -> None:
        """Gives back threads and the like; using the device again takes them again."""
