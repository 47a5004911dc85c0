"""The CPU of this machine: cached object code, one team of threads, memory that NumPy sees as well."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from highlevel.backends.native.cache import Object, ObjectCache, Unit, default_cache
from highlevel.backends.native.codegen.targets import Target, host
from highlevel.errors import ArgumentError, BackendError

from .device import Memory, Step
from .loader import Library, link
from .team import SEQUENCE, Runtime, Team, default_runtime


class CpuDevice:
    """The device "cpu".

    threads: how many take part in a step; by default one for each CPU that this process may use
    target:  by default this CPU as it is; `host(without=...)` for one that can do less
    cache:   where object code is kept; by default the cache of the process
    """

    name = "cpu"

    def __init__(
        self, threads: int | None = None, *, target: Target | None = None, cache: ObjectCache | None = None
    ) -> None:
        self.target = target or host()
        if not self.target.is_host:
            raise BackendError(
                "this machine cannot run code for another CPU",
                got=self.target.triple,
                expected=host().triple,
                hint='the device "null" compiles for any target',
            )
        self.cache = cache or default_cache()
        self._runtime = Runtime(cache) if cache is not None else default_runtime()
        self.team = Team(threads, self._runtime)

    @property
    def threads(self) -> int:
        return self.team.threads

    def compile(self, units: Sequence[Unit]) -> list[Object]:
        check_targets(units, self.target)
        return self.cache.objects(units)

    def load(self, objects: Sequence[Object]) -> Library:
        return link(objects, self._runtime.imports)

    def allocate(self, size_bytes: int, alignment: int = 64) -> Memory:
        check_alignment(alignment)
        # NumPy asks the system for huge pages where it has them, and memory that is not touched costs nothing.
        base = np.empty(size_bytes + alignment - 1, np.uint8)
        start = -base.ctypes.data % alignment
        array = base[start : start + size_bytes]
        return Memory(base.ctypes.data + start, size_bytes, array)

    def run(self, step: Step, arena: Memory) -> None:
        self.team.run(step.code.address(step.symbol), arena.address, alone=step.alone)

    def sequence(self, *, alone: bool) -> Step:
        return Step(self._runtime.library, SEQUENCE, alone)

    def exclusive(self) -> AbstractContextManager[Any]:
        return self.team.exclusive()  # type: ignore[no-any-return]

    def close(self) -> None:
        self.team.close()


@functools.cache
def default_cpu() -> CpuDevice:
    """The CPU as the whole process shares it."""
    return CpuDevice()


def check_targets(units: Sequence[Unit], target: Target) -> None:
    """Code for another CPU may contain instructions that this one does not have."""
    for unit in units:
        if unit.target != target:
            raise BackendError(
                "a unit was generated for another target",
                got=f"{unit.target.triple} {unit.target.cpu}, {unit.target.vector_bytes} bytes",
                expected=f"{target.triple} {target.cpu}, {target.vector_bytes} bytes",
            )


def check_alignment(alignment: int) -> None:
    if alignment < 1 or alignment & (alignment - 1):
        raise ArgumentError("an alignment is a power of two", got=alignment)
