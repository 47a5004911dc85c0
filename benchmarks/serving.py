"""Processes that wait for work: each library computes in its own, with its own threads, and only when it is asked.

Requests and replies are lines of JSON. A worker is a Python module that calls `serve` with its actions, functions by
name; the parent has a `Worker` for it. Two actions every worker has: `turn` calls what was prepared, again and again
for some time, and tells how long each call took; `prepare`, given by the module, makes such a call.

    worker = Worker("peers.torch_peer", threads=2)
    worker.ask("prepare", case="mlp", kind="train")          # {"first_s": …}
    worker.ask("turn", case="mlp", kind="train", seconds=1)  # {"times_ms": […]}
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent
REPLIES = "BENCHMARK_REPLIES"  # the environment variable that tells a worker where to write
WARM_UP_MS = 50.0  # the first call of a turn, if it is shorter than this, is not counted


class WorkerError(Exception):
    """A worker could not do what it was asked, or is gone. `summary` is one line, `details` its traceback."""

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary)
        self.summary, self.details = summary, details


class Worker:
    """A process that serves, as its parent sees it. It starts when it is first asked something."""

    def __init__(self, module: str, threads: int, environment: Mapping[str, str] | None = None) -> None:
        self.module, self.threads = module, threads
        self.environment = {**thread_settings(threads), **(environment or {})}
        self.process: subprocess.Popen[str] | None = None
        self.replies: TextIO | None = None

    def start(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            # Replies have a pipe of their own, because libraries print what they like.
            reading, writing = os.pipe()
            self.replies = os.fdopen(reading, encoding="utf-8")
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=HERE,
                pass_fds=(writing,),
                env={**os.environ, **self.environment, "PYTHONPATH": python_path(), REPLIES: str(writing)},
            )
            os.close(writing)
        return self.process

    def ask(self, action: str, timeout_s: float = 300.0, **arguments: Any) -> dict[str, Any]:
        """The reply to a request. A worker that takes too long is ended."""
        process = self.start()
        assert process.stdin is not None and self.replies is not None
        try:
            process.stdin.write(json.dumps({"action": action, **arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"{self.module} has ended with status {process.wait()}") from None
        if not select.select([self.replies], [], [], timeout_s)[0]:
            self.close()
            raise WorkerError(f"{self.module}: no answer within {timeout_s:.0f} s")
        line = self.replies.readline()
        if not line:
            raise WorkerError(f"{self.module} has ended with status {process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], reply["traceback"])
        return reply

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        if self.replies is not None:
            self.replies.close()
            self.replies = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def thread_settings(threads: int) -> dict[str, str]:
    """The environment that gives every library that many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HIGHLEVEL_THREADS")
    return {**dict.fromkeys(names, str(threads)), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0"}


def python_path() -> str:
    """Workers find this library where this file found it, installed or not."""
    return os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


# In the worker -------------------------------------------------------------------------------------------------------
Call = Callable[[], Any]


def serve(prepare: Callable[[str, str, str], Call], **actions: Callable[..., dict[str, Any]]) -> None:
    """Answers requests until there are no more.

    prepare: `prepare(case, kind, variant)` gives what a turn calls, and the call's result is ready when it returns
    """
    replies = os.fdopen(int(os.environ[REPLIES]), "w", encoding="utf-8")
    calls: dict[tuple[str, str, str], Call] = {}

    def first(case: str, kind: str, variant: str = "") -> dict[str, Any]:
        call = prepare(case, kind, variant)
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        call()
        calls[case, kind, variant] = call
        return {"first_s": seconds}

    def turn(case: str, kind: str, variant: str = "", seconds: float = 1.0) -> dict[str, Any]:
        return {"times_ms": timed(calls[case, kind, variant], seconds)}

    def release(case: str) -> dict[str, Any]:
        for key in [key for key in calls if key[0] == case]:
            del calls[key]
        return {}

    known = {"prepare": first, "turn": turn, "release": release, **actions}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = known[request.pop("action")](**request)
        except Exception as error:
            summary = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            reply = {"error": summary, "traceback": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def timed(call: Call, seconds: float) -> list[float]:
    """Milliseconds of each call, of at least one, in about that many seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append((now - start) * 1e3)
        if now >= end:
            break
    return times[1:] if len(times) > 1 and times[0] < WARM_UP_MS else times


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has used since `reset_peak`, or since its start."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Lets the system forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status does not tell {field}")


def peak_of_step(step: Call) -> dict[str, Any]:
    """Memory that training takes on top of the model, its data and the library, which are there already.

    first:  with all that the first step does, compilation included; steady: two more steps
    """
    before = resident_bytes()
    reset_peak()
    step()
    first = peak_bytes() - before
    reset_peak()
    step()
    step()
    return {"before_bytes": before, "first_bytes": first, "steady_bytes": peak_bytes() - before}
