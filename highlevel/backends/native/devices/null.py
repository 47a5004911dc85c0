"""A device that compiles everything and runs nothing.

It serves to check that code for other CPUs is accepted by LLVM, to measure compilation, and to plan memory for a
machine that is not there. Its memory has sizes and no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from highlevel.backends.native.cache import Object, ObjectCache, Unit, default_cache
from highlevel.backends.native.codegen.targets import Target, host
from highlevel.errors import BackendError

from .cpu import check_alignment, check_targets
from .device import Memory, Step
from .sequencer import sequencer


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Objects that are known, and not in executable memory: every address is 0."""

    objects: dict[str, bytes] = field(repr=False)

    def address(self, symbol: str) -> int:
        if symbol not in self.objects:
            raise KeyError(symbol)
        return 0

    def close(self) -> None:
        """Nothing to unload."""


class NullDevice:
    """The device "null", for any target (by default this machine's CPU)."""

    name = "null"

    def __init__(self, target: Target | None = None, *, threads: int = 1, cache: ObjectCache | None = None) -> None:
        self.target = target or host()
        self.threads = threads
        self.cache = cache or default_cache()
        self.steps_run = 0
        self.allocated_bytes = 0

    def compile(self, units: Sequence[Unit]) -> list[Object]:
        check_targets(units, self.target)
        return self.cache.objects(units)

    def load(self, objects: Sequence[Object]) -> Unloaded:
        return Unloaded({made.symbol: made.code for made in objects})

    def allocate(self, size_bytes: int, alignment: int = 64) -> Memory:
        check_alignment(alignment)
        self.allocated_bytes += size_bytes
        return Memory(0, size_bytes)

    def run(self, step: Step, arena: Memory) -> None:
        """Counts the step, and leaves memory as it is."""
        if not isinstance(step.code, Unloaded):
            raise BackendError("the step was loaded by another device", got=type(step.code).__name__)
        step.code.address(step.symbol)
        self.steps_run += 1

    def sequence(self, *, alone: bool) -> Step:
        unit = sequencer(self.target)
        return Step(self.load(self.compile([unit])), unit.symbol, alone)

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        """Nothing to give back."""
