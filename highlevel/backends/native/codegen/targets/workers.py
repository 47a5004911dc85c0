"""Compiling many kernels at once, in worker processes.

llvmlite allows one call at a time in a process, and each run of its optimiser leaks about 0.1 MB; processes have
neither problem, since they end. They are started when first needed, run `compiler.py` as a script (so nothing of the
user's program is imported again), and end with this process, after a minute without work, or when they have grown old.
Where processes cannot be started, everything is compiled here.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from highlevel.errors import BackendError

from . import compiler
from .target import Target, compile_ir, invalid_ir

IN_PROCESS = 4  # fewer kernels than this do not pay for starting a process (about 0.2 s)
LEAK_LIMIT = 48  # optimised modules that this process compiles itself, at 0.1 MB each; workers get the rest
RETIREMENT = 1000  # modules that a worker compiles before it makes room for a fresh one
CRASHES = {
    -number for name in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE") if (number := getattr(signal, name, 0))
}


@dataclass(frozen=True, slots=True)
class Job:
    """IR text to compile for a target; the level is that of `compile_ir`."""

    text: str
    target: Target
    level: int = 0


Queue: TypeAlias = "deque[tuple[Job, Future[bytes]]]"


class WorkerGone(Exception):
    """A worker ended without an answer, and not by a crash: idle, or killed from outside."""


class Worker:
    """One process that compiles, and the pipes to it. Used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(Path(compiler.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._streams = (self.process.stdin, self.process.stdout)
        self.done = 0

    def compile(self, job: Job) -> bytes:
        request = json.dumps([job.text, job.target.triple, job.target.cpu, job.target.features, job.level])
        requests, replies = (stream.fileno() for stream in self._streams)
        try:
            compiler.write_frame(requests, request.encode())
            reply = compiler.read_frame(replies)
        except OSError:
            reply = None
        if reply is None:
            if self.process.wait() in CRASHES:
                raise BackendError("LLVM crashed on the generated code", got=f"exit code {self.process.returncode}")
            raise WorkerGone
        self.done += 1
        if reply[:1] == b"-":
            raise invalid_ir(reply[1:].decode(errors="replace"))
        return reply[1:]

    def forget(self) -> None:
        """Closes this side of the pipes, whereupon the process ends; waits for nothing."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()

    def close(self) -> None:
        """Ends the process."""
        self.forget()
        self.process.wait()


def _can_start() -> bool:
    """Whether sys.executable is a Python that runs scripts (in frozen or embedding programs it is something else)."""
    name = Path(sys.executable or "").name.lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


class Workers:
    """A pool of compiling processes, empty until many kernels come at once."""

    leaks = 0  # optimised modules that this process has compiled itself, for all pools together

    def __init__(self, count: int | None = None) -> None:
        self.count = count if count is not None else min(8, _cpus())
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(self.count)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._usable = self.count > 0 and _can_start()

    def compile(self, jobs: Sequence[Job]) -> list[bytes]:
        """The objects of all jobs, in their order. Where jobs fail, the first of them raises, after all have ended."""
        results: list[Future[bytes]] = [Future() for _ in jobs]
        queue = deque(zip(jobs, results, strict=True))
        try:
            helpers = self._start_helpers(queue)
            # This thread compiles as well, as long as that leaks little …
            while queue and (not helpers or self._may_leak(1)):
                _take_here(queue)
            for helper in helpers:
                helper.join()
            while queue:  # … and whatever is left, if processes could not be had.
                _take_here(queue)
        finally:
            queue.clear()  # interrupted: helpers end after the kernel they are at
        return [result.result() for result in results]

    def _may_leak(self, count: int) -> bool:
        return Workers.leaks + count <= LEAK_LIMIT

    def _start_helpers(self, queue: Queue) -> list[threading.Thread]:
        few = len(queue) < IN_PROCESS and not self._idle and self._may_leak(len(queue))
        helpers = []
        if self._usable and not few:
            for i in range(min(self.count, len(queue))):
                helper = threading.Thread(target=self._help, args=(queue,), name=f"highlevel-compile-{i}", daemon=True)
                try:
                    helper.start()
                except RuntimeError:  # no more threads, or Python is about to end
                    break
                helpers.append(helper)
        return helpers

    def _help(self, queue: Queue) -> None:
        """Has a worker compile what is in the queue; where that is impossible, leaves the rest there."""
        worker: Worker | None = None
        with self._slots:
            while self._usable:
                try:
                    job, result = queue.popleft()
                except IndexError:
                    break
                try:
                    worker = worker or self._hire()
                    _settle(result, functools.partial(worker.compile, job))
                except (WorkerGone, OSError):
                    queue.appendleft((job, result))
                    if worker is None or worker.done == 0:  # a fresh one: there is something wrong with processes
                        self._usable = False
                    self._dismiss(worker)
                    worker = None
            if worker is not None:
                self._release(worker)

    def _hire(self) -> Worker:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or Worker()
        with self._lock:
            self._busy.add(worker)
        return worker

    def _release(self, worker: Worker) -> None:
        if worker.done >= RETIREMENT:
            self._dismiss(worker)
        else:
            with self._lock:
                self._busy.discard(worker)
                self._idle.append(worker)

    def _dismiss(self, worker: Worker | None) -> None:
        if worker is not None:
            with self._lock:
                self._busy.discard(worker)
            worker.close()

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that are there now."""
        with self._lock:
            return [worker.process.pid for worker in (*self._idle, *self._busy)]

    def close(self) -> None:
        """Ends the processes that have nothing to do; a later call of `compile` starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """In a child: the workers are the parent's, and must not live on because the child holds their pipes."""
        for worker in (*self._idle, *self._busy):
            worker.forget()
            worker.process.returncode = 0  # the parent's to wait for
        self._reset()


def _take_here(queue: Queue) -> None:
    """Compiles the last job of the queue in this process (helpers take the first)."""
    with contextlib.suppress(IndexError):
        job, result = queue.pop()
        Workers.leaks += job.level > 0
        _settle(result, functools.partial(compile_ir, job.text, job.target, job.level))


def _settle(result: Future[bytes], run: Callable[[], bytes]) -> None:
    """Runs, and keeps the object or what is wrong with the kernel; other errors pass on."""
    try:
        result.set_result(run())
    except BackendError as error:
        result.set_exception(error)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def default_workers() -> Workers:
    """The pool that the whole process shares."""
    return Workers()


_pools: weakref.WeakSet[Workers] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.after_fork()


@atexit.register
def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
