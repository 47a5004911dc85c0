"""Where the time of a training step goes: each kernel run alone, on the buffers that it has in the step.

    python benchmarks/profile_step.py resnet50 [--kind train|infer] [--batch 8] [--top 20] [--output FILE.md]

One thread, processor time. Kernels with the same machine code and the same amount of work are one line. GFLOP/s are
operations as the task counts them; GB/s are the sizes of what it reads and writes, once each – more than the machine
copies means that it comes from a cache. Both are beside what the machine is capable of, measured in the same run. The
values in the buffers are spoilt by running kernels again and again, which changes nothing for the time they take.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HIGHLEVEL_THREADS"] = "1"
os.environ["HIGHLEVEL_BACKEND"] = "native"

import numpy as np
from counting import largest, recorded
from report import table
from workloads import WORKLOADS, Workload, find

import highlevel as hl
from highlevel.backends.native.devices.sequencer import HEAD
from highlevel.backends.native.lower.task import Argument, Call, Task
from highlevel.backends.native.program import Branch, Loop, Program, While, size_bytes

SECONDS = 0.01  # of processor time, per measurement of a kernel
LEAST_S = 5e-8  # what a kernel takes at least


@dataclass(frozen=True, slots=True)
class Located:
    """A task with the address of every buffer, the shapes of what it writes, and how often a step runs it."""

    task: Task
    addresses: Mapping[str, int]
    workspace: int
    bytes_moved: int
    shapes: str
    times: int


@dataclass(slots=True)
class Line:
    """Kernels that are the same: their sum."""

    name: str
    shapes: str
    origins: list[str]
    count: int = 0
    seconds: float = 0.0
    flops: int = 0
    bytes_moved: int = 0


def located(program: Program, arena: int, addresses: Mapping[str, int], times: int = 1) -> Iterator[Located]:
    """All tasks of a program, those of loops with their first slices."""
    places = {name: arena + offset for name, offset in program.memory.offsets.items()} | dict(addresses)

    def found(task: Task, work: int) -> Located:
        buffers = [program.buffers[name] for name in (*task.reads, *task.writes)]
        written = ["×".join(map(str, buffer.shape)) or "1" for buffer in buffers[len(task.reads) :]]
        shapes = ", ".join(written[:2]) + (f" … ({len(written)})" if len(written) > 2 else "")
        return Located(task, places, work, sum(map(size_bytes, buffers)), shapes, times)

    for i, step in enumerate(program.steps):
        work = places.get(f"work{i}", arena)
        match step:
            case Task():
                yield found(step, work)
            case Loop():
                yield from (found(task, work) for task in step.prologue)
                outside = [places[name] for name in (*step.constants, *step.ends, *step.sequences)]
                results = [places[name] for name in (*step.ends, *step.stacks)]
                inside = dict(zip(step.body.inputs, outside, strict=False))
                inside |= dict(zip(step.body.results, results, strict=True))
                yield from located(step.body, work, inside, times * step.length)
            case While():  # how often is not known: once
                outside = [places[name] for name in (*step.constants, *step.ends)]
                inside = dict(zip(step.body.inputs, outside, strict=True))
                inside |= dict(zip(step.body.results, [places[name] for name in step.ends], strict=True))
                yield from located(step.body, work + 64, inside, times)
            case Branch():
                inside = dict(zip(step.then.inputs, [places[name] for name in step.operands], strict=True))
                inside |= dict(zip(step.then.results, [places[name] for name in step.writes], strict=True))
                yield from located(step.then, work, inside, times)


def bound_call(call: Call, place: Located, code: Any) -> Callable[[], None]:
    """A call with all its arguments, as thread 0 of 1."""
    fixed: dict[Argument, Any] = {
        Argument.BEGIN: ctypes.c_int64(0),
        Argument.END: ctypes.c_int64(call.units),
        Argument.TID: ctypes.c_int32(0),
        Argument.THREADS: ctypes.c_int32(1),
        Argument.WORKSPACE: ctypes.c_void_p(place.workspace),
    }
    arguments = [ctypes.c_void_p(place.addresses[a]) if isinstance(a, str) else fixed[a] for a in call.arguments]
    prototype = ctypes.CFUNCTYPE(None, *[type(argument) for argument in arguments])
    function = prototype(code.address(call.unit.symbol))
    return lambda: function(*arguments)


def seconds_of(calls: Sequence[Callable[[], None]]) -> float:
    """Processor time of running them once, the median of five."""
    for call in calls:
        call()
    start = time.thread_time()
    for call in calls:
        call()
    once = max(time.thread_time() - start, 1e-6)
    repeats = max(1, round(SECONDS / once))
    found = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(repeats):
            for call in calls:
                call()
        found.append((time.thread_time() - start) / repeats)
    return max(statistics.median(found) - len(calls) * call_seconds(), LEAST_S)


@functools.cache
def call_seconds() -> float:
    """What it costs to call a function that does nothing, with five arguments."""
    function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 5)(("labs", ctypes.CDLL(None)))
    arguments = [ctypes.c_long(0)] * 5
    times = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(2000):
            function(*arguments)
        times.append((time.thread_time() - start) / 2000)
    return min(times)


def lines(program: Program, executable: Any) -> list[Line]:
    """The kernels of a program, costliest first."""
    names = [*program.inputs, *program.results, *program.kept]
    addresses = dict(zip(names, map(int, executable.frame[HEAD + 1 :]), strict=False))
    arena = executable.arena.address(program.memory.size_bytes)
    known: dict[Any, tuple[Line, float]] = {}
    for place in located(program, arena, addresses):
        task = place.task
        if task.callback is not None:
            continue  # computed by a function in Python
        key = place.bytes_moved, tuple((call.unit.key, call.units) for call in task.phases)
        if key not in known:
            seconds = seconds_of([bound_call(call, place, executable.code) for call in task.phases])
            known[key] = Line(task.name, place.shapes, []), seconds
        line, seconds = known[key]
        line.origins += task.origins
        line.count += place.times
        line.seconds += place.times * seconds
        line.flops += place.times * task.flops
        line.bytes_moved += place.times * place.bytes_moved
    return sorted((line for line, _ in known.values()), key=lambda line: -line.seconds)


def copy_rate() -> float:
    """Bytes per second, read and written, of copying what is in no cache; one thread."""
    source = np.ones(64 << 20, np.uint8)
    goal = np.empty_like(source)
    times = []
    for _ in range(5):
        start = time.thread_time()
        np.copyto(goal, source)
        times.append(time.thread_time() - start)
    return 2 * source.nbytes / statistics.median(times)


def peak_rate() -> float:
    """Operations per second of the micro-kernel, one thread."""
    from contraction import peak_program

    from highlevel.backends.native.devices.team import Team, default_runtime

    program, flops = peak_program(Team(1, default_runtime()))
    return flops / seconds_of([program])


def profile(workload: Workload, kind: str, batch: int | None) -> tuple[list[Line], float]:
    """Kernels, and the processor time of a whole step on one thread."""
    model = workload.compiled(hl)
    x, y = workload.batch(batch)
    call = (lambda: model.train_on_batch(x, y)) if kind == "train" else (lambda: model.predict_on_batch(x))
    with recorded() as programs:
        call()
    whole = seconds_of([call])
    _, executable = largest(programs)
    kept = fill_frame(executable, x, y)
    found = lines(executable.program, executable)
    del kept
    return found, whole


def fill_frame(executable: Any, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Gives an executable inputs and outputs that stay where they are for as long as the list does."""
    kept = []
    for place, symbol in enumerate(executable.graph.inputs, start=HEAD + 1):
        data = next((a for a in (x, y) if a.shape == symbol.shape), np.ones(symbol.shape))
        kept.append(np.ascontiguousarray(data, symbol.dtype.numpy))
        executable.frame[place] = kept[-1].ctypes.data
    for place, (shape, dtype) in enumerate(executable.outputs, start=executable.first_output):
        kept.append(np.empty(shape, dtype))
        executable.frame[place] = kept[-1].ctypes.data
    return kept


def report(workload: Workload, kind: str, batch: int | None, top: int) -> str:
    """The table of the costliest kernels."""
    found, whole = profile(workload, kind, batch)
    peak, copied = peak_rate(), copy_rate()
    total = sum(line.seconds for line in found)
    head = (
        f"{workload.name}, {kind}, one thread: a step takes {whole * 1e3:.1f} ms, the sum of its {len(found)} "
        f"different kernels, each run alone, {total * 1e3:.1f} ms. The machine: {peak / 1e9:.0f} GFLOP/s in the "
        f"micro-kernel, {copied / 1e9:.0f} GB/s copying.\n\n"
    )
    rows = []
    for line in found[:top]:
        layers = list(dict.fromkeys(line.origins))
        where = ", ".join(layers[:2]) + (f" … ({len(layers)})" if len(layers) > 2 else "")
        rate = line.flops / line.seconds
        rows.append(
            [
                f"{line.name} × {line.count}",
                line.shapes,
                where,
                f"{line.seconds * 1e3:.2f}",
                f"{line.seconds / total:.1%}",
                f"{rate / 1e9:.0f}",
                f"{rate / peak:.0%}",
                f"{line.bytes_moved / line.seconds / 1e9:.1f}",
            ]
        )
    return head + table(["kernel", "writes", "layers", "ms", "share", "GFLOP/s", "of peak", "GB/s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=[*WORKLOADS, "tiny"])
    parser.add_argument("--kind", choices=("train", "infer"), default="train")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    text = report(find(options.workload), options.kind, options.batch, options.top)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
