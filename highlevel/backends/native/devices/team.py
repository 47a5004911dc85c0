"""A team of threads that run steps: functions in machine code that share their work among threads.

`void step(i32 tid, i32 nthreads, ptr arena, ptr team_state)` is called once by every thread of the team, with tid
from 0 to nthreads - 1, and may contain barriers. The thread that asks for the step is number 0; the others belong to
the team, wait in machine code (never holding Python's lock) and are woken once for each step.

A step is one foreign call: it has run or it has not, whatever exception arrives, since Ctrl-C is looked at when the
call is over. One step at a time is run; other Python threads wait for their turn. After a fork the child builds its own
threads with its first step. At the end of the interpreter all threads end.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from highlevel.backends.native.cache import ObjectCache, default_cache
from highlevel.backends.native.codegen.targets import host
from highlevel.errors import ArgumentError

from .loader import Library, link
from .runtime import BOUND, EXPORTS, IDLE_SPIN, SPIN, STATE_BYTES, THREADS, System, runtime, system
from .sequencer import sequencer

SPIN_S = 100e-6  # the longest wait before sleeping, see runtime.py
ALIGNMENT = 128
BARRIER, SEQUENCE = "hl_barrier", "hl_sequence"


def emit_barrier(builder: Any, team_state: Any, nthreads: Any) -> None:
    """Puts a barrier into generated code (of llvmlite.ir): no thread goes on before all `nthreads` have come here.

    What threads wrote before the barrier, all read after it. Every thread must meet the same barriers in the same
    order. The function is one of the device's; text IR calls it as `call void @hl_barrier(ptr %state, i32 %nthreads)`.
    """
    from llvmlite import ir

    module = builder.module
    barrier = module.globals.get(BARRIER)
    if barrier is None:
        kind = ir.FunctionType(ir.VoidType(), [team_state.type, ir.IntType(32)])
        barrier = ir.Function(module, kind, name=BARRIER)
    builder.call(barrier, [team_state, nthreads])


class Runtime:
    """The functions of `runtime.py` in this process's memory, and how many pauses make up the longest spin."""

    def __init__(self, cache: ObjectCache | None = None, way: System | None = None) -> None:
        target = host()
        way = way or system(target.arch)
        objects = (cache or default_cache()).objects([runtime(target, way), sequencer(target)])
        self.library: Library = link(objects, way.imports, (*EXPORTS, SEQUENCE))
        self.imports = {BARRIER: self.library.address(BARRIER)}
        self.sequence = self.library.address(SEQUENCE)
        self.run = self.library.function("hl_run", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.run_alone = self.library.function("hl_run_alone", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.worker = self.library.function("hl_worker", ctypes.c_int32, ctypes.c_void_p)
        self.stop = self.library.function("hl_stop", ctypes.c_void_p)
        pause = self.library.function("hl_pause", ctypes.c_int32)
        self.spin = max(16, int(SPIN_S / min(_measure(pause) for _ in range(5))))


def _measure(pause: Any, count: int = 500) -> float:
    start = time.perf_counter()
    pause(count)
    return (time.perf_counter() - start) / count


@functools.cache
def default_runtime() -> Runtime:
    """The runtime that the whole process shares."""
    return Runtime()


class Crew:
    """The threads of a team in one process, and the memory through which they meet."""

    def __init__(self, count: int, runtime: Runtime) -> None:
        self.runtime = runtime
        self.buffer = ctypes.create_string_buffer(STATE_BYTES + ALIGNMENT)
        self.state = -(-ctypes.addressof(self.buffer) // ALIGNMENT) * ALIGNMENT
        bound = runtime.spin if count <= available() else 0
        for place in (BOUND, SPIN, IDLE_SPIN):
            self._set(place, bound)
        self.threads: list[threading.Thread] = []
        try:
            for tid in range(1, count):
                arguments = (runtime, tid, self.state, self.buffer)
                thread = threading.Thread(target=_work, args=arguments, name=f"highlevel-{tid}", daemon=True)
                thread.start()
                self.threads.append(thread)
        except RuntimeError:  # no more threads, or the interpreter is about to end: with those that there are
            pass
        except BaseException:
            self.stop()
            raise
        self._set(THREADS, 1 + len(self.threads))

    def _set(self, offset: int, value: int) -> None:
        ctypes.c_int32.from_address(self.state + offset).value = value

    def stop(self) -> None:
        self.runtime.stop(self.state)
        for thread in self.threads:
            thread.join()


def _work(runtime: Runtime, tid: int, state: int, buffer: Any) -> None:
    """The life of a thread; it keeps what it needs: the code, and the memory."""
    runtime.worker(tid, state)


class Team:
    """Threads that run steps together.

    threads: how many, with the one that asks. Steps must not depend on it: fewer may be had.
    """

    def __init__(self, threads: int | None = None, runtime: Runtime | None = None) -> None:
        self.threads = cpus() if threads is None else threads
        if self.threads < 1:
            raise ArgumentError("a team has at least one thread", got=threads)
        self.runtime = runtime or default_runtime()
        self._abandon()
        _teams.add(self)

    def _abandon(self) -> None:
        """To begin with, and after a fork: the threads are not there, and nobody would release a lock."""
        self._lock = threading.RLock()  # a signal handler may run a step while its thread is about to begin one
        self._crew: Crew | None = None

    def run(self, step: int, arena: int, *, alone: bool = False) -> None:
        """Runs the function at an address on the memory at another; it is done when this returns or raises.

        alone: by this thread only, as one of one: nobody is woken
        """
        with self._lock:
            crew = self._crew or self._assemble()
            (self.runtime.run_alone if alone else self.runtime.run)(crew.state, step, arena)

    def exclusive(self) -> Any:
        """A context in which no other Python thread runs a step."""
        return self._lock

    def _assemble(self) -> Crew:
        self._crew = crew = Crew(self.threads, self.runtime)
        return crew

    @property
    def running(self) -> bool:
        """Whether its threads are there: from the first step until `close`."""
        return self._crew is not None

    def close(self) -> None:
        """Ends the threads, after the step that may be running. A later step builds new ones."""
        with self._lock:
            crew, self._crew = self._crew, None
            if crew is not None:
                crew.stop()

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_crew", None) is not None and not ending():
            self.close()


def cpus() -> int:
    """How many threads a team has by default: $HIGHLEVEL_THREADS, or one for each CPU that this process may use."""
    setting = os.environ.get("HIGHLEVEL_THREADS", "").strip()
    if setting:
        if not setting.isdecimal() or int(setting) < 1:
            raise ArgumentError("HIGHLEVEL_THREADS is a number of threads", got=repr(setting), expected="1, 2, …")
        return int(setting)
    return available()


def available() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_teams: weakref.WeakSet[Team] = weakref.WeakSet()


def _abandon_all() -> None:
    for team in list(_teams):
        team._abandon()


@atexit.register
def close_all() -> None:
    """Ends the threads of all teams, before the interpreter takes itself apart."""
    for team in list(_teams):
        team.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
