"""Where the time of a program goes: every call of machine code is timed by the threads that make it.

The sequencer notes the CPU's counter of cycles before and after each call, in a table of its own; nothing else in the
program changes. How fast the counter runs is measured against the clock. What a kernel takes is the time of the thread
that needs longest; kernels between two barriers may run beside each other, so their sum can exceed that of the step.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from highlevel.errors import BackendError
from highlevel.ir import Spec, Variable
from highlevel.ir.dtypes import float32
from highlevel.ir.primitives import contraction, elementwise
from highlevel.ir.trace import trace_graph

from .devices.sequencer import TIMES
from .executable import Executable
from .report import Kernel, Machine, count_text, format_table, kernels_of, short_source

SIDE = 1024  # of the square matrices whose product is timed
MANY, FEW = 1 << 24, 1 << 17  # float32 numbers that are negated in place: 64 MB, and what caches hold
TRIALS = 5
PAUSE_S = 0.02  # between two looks at counter and clock


# Records -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel's part in a step: the median over the steps of the time of the slowest thread, summed over its calls."""

    kernel: Kernel
    ms: float
    share: float
    thread_ms: tuple[float, ...]

    @property
    def flops_per_s(self) -> float:
        return self.kernel.flops / self.ms * 1e3 if self.ms else 0.0

    @property
    def bytes_per_s(self) -> float:
        return self.kernel.bytes_moved / self.ms * 1e3 if self.ms else 0.0


@dataclass(frozen=True, slots=True)
class LayerTime:
    """A layer's part in a step; kernels that compute for several layers count in equal parts."""

    layer: str
    kernels: int
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Event:
    """The calls that one thread made for a kernel's phase in the last step: when it first began, its whole time."""

    kernel: Kernel
    phase: int
    thread: int
    start_us: float
    elapsed_us: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Times of a program, kernel by kernel; as text, a report.

    steps:   how many were run; step_ms: the median time of one, measured from outside
    kernels: costliest first; layers: likewise
    events:  of the last step
    restored: variables that the program updates and that were given their values back
    """

    machine: Machine
    steps: int
    step_ms: float
    kernels: tuple[KernelTime, ...]
    layers: tuple[LayerTime, ...]
    events: tuple[Event, ...] = field(repr=False)
    restored: int

    @property
    def kernel_ms(self) -> float:
        """The sum over all kernels."""
        return sum(row.ms for row in self.kernels)

    def chrome_trace(self, path: str | Path) -> None:
        """Writes the last step as a trace for chrome://tracing or ui.perfetto.dev, one row per thread."""
        threads = sorted({event.thread for event in self.events})
        name = {"name": "thread_name", "ph": "M", "pid": 0}
        rows: list[dict[str, Any]] = [{**name, "tid": tid, "args": {"name": f"thread {tid}"}} for tid in threads]
        for event in self.events:
            kernel = event.kernel
            arguments = {
                "layers": ", ".join(kernel.layers), "source": kernel.source, "flops": kernel.flops,
                "bytes": kernel.bytes_moved, "times": kernel.times, "phase": event.phase,
            }  # fmt: skip
            rows.append({
                "name": kernel.name, "cat": "kernel", "ph": "X", "pid": 0, "tid": event.thread,
                "ts": event.start_us, "dur": event.elapsed_us, "args": arguments,
            })  # fmt: skip
        Path(path).write_text(json.dumps({"traceEvents": rows, "displayTimeUnit": "ms"}), encoding="utf-8")

    def __str__(self) -> str:
        return format_profile(self)

    __repr__ = __str__


# Running -------------------------------------------------------------------------------------------------------------
def profile_program(executable: Executable, inputs: Sequence[Any], steps: int, machine: Machine) -> Profile:
    """Runs a program several times and gives the variables that it updates their values back."""
    threads = executable.device.threads
    ticks_per_us = counter_rate(executable.backend)
    walls, found = [], []
    with executable.device.exclusive(), restored(executable):
        executable.run(inputs)  # memory is touched for the first time
        for _ in range(steps):
            start = time.perf_counter()
            found.append(_run_timed(executable, inputs))
            walls.append(1e3 * (time.perf_counter() - start))
    kernels, numbers = kernels_of(executable.program, executable.table, machine)
    owner = [numbers[id(task)] for task, _ in executable.table.calls]
    each = np.zeros((steps, len(kernels), threads))
    for step, times in enumerate(found):
        np.add.at(each[step], owner, times[:, :, 1] / ticks_per_us / 1e3)
    thread_ms = np.median(each, axis=0)
    ms = np.median(each.max(axis=2), axis=0) if threads else each
    total = max(float(ms.sum()), 1e-12)
    rows = [
        KernelTime(kernel, float(ms[i]), float(ms[i]) / total, tuple(map(float, thread_ms[i])))
        for i, kernel in enumerate(kernels)
    ]
    return Profile(
        machine=machine,
        steps=steps,
        step_ms=float(np.median(walls)),
        kernels=tuple(sorted(rows, key=lambda row: (-row.ms, row.kernel.number))),
        layers=_layers(rows, total),
        events=_events(executable, kernels, owner, found[-1], ticks_per_us),
        restored=len(executable.graph.updates),
    )


def _run_timed(executable: Executable, inputs: Sequence[Any]) -> np.ndarray[Any, Any]:
    """One run; (first start, time spent) in ticks of each call and thread."""
    times = np.zeros((len(executable.table.calls), executable.device.threads, 2), np.int64)
    with executable.device.exclusive():
        executable.frame[TIMES] = times.ctypes.data
        try:
            executable.run(inputs)
        finally:
            executable.frame[TIMES] = 0
    if executable.table.alone:  # run as by a team of one
        flat = times.reshape(-1, 2)[: len(times)].copy()
        times[:] = 0
        times[:, 0] = flat
    return times


@contextmanager
def restored(executable: Executable) -> Any:
    """Afterwards the variables that a program updates have the values that they had before."""
    kept = [(v, np.array(v.handle_on(executable.backend))) for v, _ in executable.graph.updates]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.set_handle(value, executable.backend)


@functools.lru_cache(maxsize=4)
def counter_rate(backend: Any) -> float:
    """Ticks of the CPU's counter per microsecond."""
    small = _executable(backend, elementwise.neg, Spec((1,), float32))
    operand = [np.ones(1, np.float32)]

    def look() -> tuple[int, float]:
        """Counter and clock at nearly the same time: the closest of some looks."""
        best = None
        for _ in range(20):
            before = time.perf_counter_ns()
            ticks = int(_run_timed(small, operand)[0, 0, 0])
            after = time.perf_counter_ns()
            if best is None or after - before < best[0]:
                best = after - before, ticks, (before + after) / 2
        assert best is not None
        return best[1:]

    first_ticks, first_ns = look()
    time.sleep(PAUSE_S)
    last_ticks, last_ns = look()
    rate = (last_ticks - first_ticks) / (last_ns - first_ns) * 1e3
    if rate <= 0:
        raise BackendError("this CPU has no counter that programs can read", hint="hl.explain estimates times")
    return rate


def _executable(backend: Any, function: Callable[..., Any], *specs: Spec) -> Executable:
    """A function of symbols, compiled."""
    graph, _ = trace_graph(lambda *symbols: [r for r in [function(*symbols)] if r is not None], specs)
    executable: Executable = backend.compile(graph, {})
    return executable


def _events(
    executable: Executable, kernels: Sequence[Kernel], owner: Sequence[int], times: np.ndarray[Any, Any], rate: float
) -> tuple[Event, ...]:
    ran = times[:, :, 0][times[:, :, 0] > 0]
    begin = int(ran.min()) if ran.size else 0
    events = []
    for number, (task, call) in enumerate(executable.table.calls):
        phase = next(i for i, other in enumerate(task.phases) if other is call)
        for thread in range(times.shape[1]):
            start, spent = times[number, thread]
            if start:
                at = (int(start) - begin) / rate
                events.append(Event(kernels[owner[number]], phase, thread, at, int(spent) / rate))
    return tuple(sorted(events, key=lambda event: (event.thread, event.start_us)))


def _layers(rows: Sequence[KernelTime], total: float) -> tuple[LayerTime, ...]:
    ms: dict[str, float] = {}
    count: dict[str, int] = {}
    for row in rows:
        layers = row.kernel.layers or ("",)
        for layer in layers:
            ms[layer] = ms.get(layer, 0.0) + row.ms / len(layers)
            count[layer] = count.get(layer, 0) + 1
    found = [LayerTime(layer, count[layer], spent, spent / total) for layer, spent in ms.items()]
    return tuple(sorted(found, key=lambda row: (-row.ms, row.layer)))


# The machine ---------------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=4)
def measure_machine(backend: Any) -> Machine:
    """What the machine can do, seen once per process: a product of matrices, and numbers negated in place."""
    threads = backend.device.threads
    square = Spec((SIDE, SIDE), float32)
    goal = Variable(np.zeros(square.shape, np.float32), name="goal")
    product = _executable(backend, lambda a, b: _assigned(goal, contraction.matmul(a, b)), square, square)
    operands = [np.full(square.shape, value, np.float32) for value in (0.5, 2.0)]
    flops_per_s = 2 * SIDE**3 / _best_s(product, operands)
    return Machine(threads, flops_per_s, _negation_rate(backend, MANY), _negation_rate(backend, FEW))


def _negation_rate(backend: Any, count: int) -> float:
    """Bytes per second, read and written."""
    numbers = Variable(np.ones(count, np.float32), name="numbers")
    negation = _executable(backend, lambda: _assigned(numbers, -numbers.value))
    return 2 * numbers.spec.size_bytes / _best_s(negation, [])


def _assigned(variable: Variable, value: Any) -> None:
    variable.assign(value)


def _best_s(executable: Executable, inputs: Sequence[Any]) -> float:
    """The shortest time that the kernels of a program have taken, the first run not counted."""
    executable.run(inputs)
    times = [_run_timed(executable, inputs)[:, :, 1].max(axis=1).sum() for _ in range(TRIALS)]
    return float(min(times)) / counter_rate(executable.backend) / 1e6


# Text ----------------------------------------------------------------------------------------------------------------
def format_profile(profile: Profile) -> str:
    """The report: kernels, then layers."""
    flops = sum(row.kernel.flops for row in profile.kernels)
    head = (
        f"A step takes {profile.step_ms:.3g} ms (the median of {profile.steps}), its {len(profile.kernels)} kernels "
        f"{profile.kernel_ms:.3g} ms: {count_text(flops / max(profile.step_ms, 1e-9) * 1e3)}FLOP/s. "
        f"The machine has {profile.machine}."
    )
    if profile.restored:
        head += f"\n{profile.restored} variables were updated, and have been given their values back."
    columns = {
        "ms": ">", "share": ">", "kernel": "<", "layers": "<", "from": "<", "calls": ">", "GFLOP/s": ">", "GB/s": ">",
        "of estimate": ">",
    }  # fmt: skip
    rows = []
    for row in profile.kernels:
        kernel = row.kernel
        speed = kernel.estimate_ms / row.ms if row.ms else 0.0
        rows.append([
            f"{row.ms:.4f}", f"{row.share:.1%}", kernel.name, kernel.where, short_source(kernel.source),
            str(kernel.times), f"{row.flops_per_s / 1e9:.1f}", f"{row.bytes_per_s / 1e9:.1f}", f"{speed:.0%}",
        ])  # fmt: skip
    layers = [
        [f"{row.ms:.4f}", f"{row.share:.1%}", row.layer or "(no layer)", str(row.kernels)] for row in profile.layers
    ]
    table = format_table({"ms": ">", "share": ">", "layer": "<", "kernels": ">"}, layers)
    return f"{head}\n\n{format_table(columns, rows)}\n\nLayers:\n{table}"
