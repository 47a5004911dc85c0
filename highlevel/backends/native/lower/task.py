"""Tasks: what a program does, one after the other – calls of machine code on buffers.

A task has phases. All threads of the team make the calls of a phase together, each its share, and meet before the next
one. What a function is called with is said by name, so that tasks know nothing of addresses:

    void kernel(i64 begin, i64 end, ptr…)       `units` of work are shared out: BEGIN, END
    void kernel(ptr…, i32 tid, i32 nthreads)    the function shares its work itself: TID, THREADS

Results may not depend on the number of threads, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..cache import Unit

if TYPE_CHECKING:
    from .callback import Callback


class Argument(Enum):
    """What a function can be called with, other than buffers."""

    BEGIN = "begin"  # i64: the first unit of this thread's share of `Call.units`
    END = "end"  # i64: the one after the last
    TID = "tid"  # i32
    THREADS = "threads"  # i32
    FUNCTION = "function"  # ptr: what `Task.callback` is called by, `void (ptr)`
    WORKSPACE = "workspace"  # ptr: `Task.workspace_bytes(nthreads)` bytes with any content, aligned to a cache line


BEGIN, END, TID, THREADS, FUNCTION, WORKSPACE = Argument


@dataclass(frozen=True, slots=True)
class Call:
    """A call that every thread makes.

    unit:      the function, `void @kernel(…)`
    arguments: a buffer's name stands for its address
    units:     how much work there is to share, where the function takes BEGIN and END
    grain:     shares begin at multiples of this many units
    serial:    only thread 0 makes the call (with all units): work too small to share
    """

    unit: Unit
    arguments: tuple[str | Argument, ...]
    units: int = 0
    grain: int = 1
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A step of a program.

    reads, writes: buffers by name; all that calls read and write, but for the workspace
    phases:        calls; between two phases all threads meet
    helpers:       functions that the calls' functions call (their own symbols, see `Unit`)
    shared_bytes, thread_bytes: the workspace is as large as the one, and as many of the other as there are threads
    in_place:      pairs (written, read): buffers that may be the same memory
    origins:       layers that it comes from; flops: additions and multiplications
    callback:      what a function calls back that takes FUNCTION
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    phases: tuple[Call, ...]
    helpers: tuple[Unit, ...] = ()
    shared_bytes: int = 0
    thread_bytes: int = 0
    in_place: tuple[tuple[str, str], ...] = ()
    origins: tuple[str, ...] = ()
    flops: int = 0
    callback: Callback | None = None

    def workspace_bytes(self, nthreads: int) -> int:
        return self.shared_bytes + nthreads * self.thread_bytes
