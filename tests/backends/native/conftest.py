"""What tests of lowerings share: one operator as machine code, run by threads that take turns."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel.backends.native.cache import Object, Unit
from highlevel.backends.native.codegen.targets import Target, aarch64, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.lower.registry import LOWERINGS
from highlevel.backends.native.lower.task import BEGIN, END, FUNCTION, THREADS, TID, WORKSPACE, Call, Task
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.ir import REGISTRY, Node, Spec, as_dtype

KINDS = {BEGIN: ctypes.c_int64, END: ctypes.c_int64, TID: ctypes.c_int32, THREADS: ctypes.c_int32}
MARGIN = 64  # bytes around results, which must stay as they are
Array = np.ndarray[Any, Any]
Lowered = Callable[..., list[Array]]


def node_of(name: str, arrays: list[Array], attrs: dict[str, Any]) -> Node:
    primitive = REGISTRY[name]
    specs = [Spec(array.shape, as_dtype(array.dtype)) for array in arrays]
    found = primitive.infer(*specs, **attrs)
    inputs = tuple(Node(None, (), {}, (spec,), 0).outputs[0] for spec in specs)
    return Node(primitive, inputs, attrs, tuple(found) if primitive.multiple else (found,), 0)


def task_of(node: Node, target: Target) -> tuple[Task, list[Buffer]]:
    reads = [Buffer(f"in{i}", tuple(s.shape), s.dtype) for i, s in enumerate(node.inputs)]
    writes = [Buffer(f"out{i}", tuple(s.shape), s.dtype) for i, s in enumerate(node.specs)]
    return LOWERINGS[node.name](node, reads, writes, target), writes


def shares(call: Call, nthreads: int) -> list[tuple[int, int]]:
    """(begin, end) of each thread."""
    if call.serial:
        return [(0, call.units), *[(0, 0)] * (nthreads - 1)]
    each = -(-call.units // (nthreads * call.grain)) * call.grain
    return [(min(tid * each, call.units), min((tid + 1) * each, call.units)) for tid in range(nthreads)]


def units_of(task: Task) -> list[Unit]:
    units = [*(call.unit for call in task.phases), *task.helpers]
    return list({unit.key: unit for unit in units}.values())


@functools.lru_cache(maxsize=256)
def compiled(unit: Unit) -> Object:
    job = unit.job()
    return Object(unit.symbol, compile_ir(job.text, job.target, job.level))


def run_task(task: Task, addresses: dict[str, int], nthreads: int) -> None:
    """All phases, one after the other; threads take turns, in falling order."""
    library = link([compiled(unit) for unit in units_of(task)])
    memory = np.full(task.workspace_bytes(nthreads) + 64, 0xA5, np.uint8)
    workspace = memory[-memory.ctypes.data % 64 :].ctypes.data
    failures: list[BaseException] = []
    back = task.callback.function(failures.append) if task.callback else None
    common = {WORKSPACE: workspace, FUNCTION: ctypes.cast(back, ctypes.c_void_p).value, **addresses}
    for call in task.phases:
        kinds = [KINDS.get(a, ctypes.c_void_p) for a in call.arguments]
        function = library.function(call.unit.symbol, *kinds)
        for tid, (begin, end) in reversed(list(enumerate(shares(call, nthreads)))):
            if call.serial and tid:
                continue
            values = {BEGIN: begin, END: end, TID: tid, THREADS: nthreads, **common}
            function(*(values[a] for a in call.arguments))
            if failures:
                raise failures[0]


def run_lowered(
    name: str, *arrays: Array, target: Target | None = None, nthreads: int = 1, **attrs: Any
) -> list[Array]:
    """The results of an operator in machine code. Nothing but the results may be written."""
    task, writes = task_of(node_of(name, list(arrays), attrs), target or host())
    frames = [np.full(2 * MARGIN + w.dtype.size_bytes * int(np.prod(w.shape)), 0xA5, np.uint8) for w in writes]
    operands = [np.array(array, order="C") for array in arrays]
    addresses = {f"in{i}": array.ctypes.data for i, array in enumerate(operands)}
    addresses |= {f"out{i}": frame.ctypes.data + MARGIN for i, frame in enumerate(frames)}
    run_task(task, addresses, nthreads)
    for before, after in zip(arrays, operands, strict=True):
        assert before.tobytes() == after.tobytes(), "an operand was changed"
    for frame in frames:
        assert (frame[:MARGIN] == 0xA5).all() and (frame[-MARGIN:] == 0xA5).all(), "written beside a result"
    return [f[MARGIN:-MARGIN].view(w.dtype.numpy).reshape(w.shape) for f, w in zip(frames, writes, strict=True)]


@pytest.fixture
def lowered() -> Lowered:
    """`lowered(name, *arrays, target=…, nthreads=…, **attrs)`: an operator's results by its lowering."""
    return run_lowered


@pytest.fixture(name="run_task")
def _run_task() -> Callable[..., None]:
    """`run_task(task, addresses, nthreads)`."""
    return run_task


@pytest.fixture
def accepted_for_aarch64() -> Callable[..., None]:
    """`accepted_for_aarch64(name, *arrays, **attrs)`: LLVM makes code of all units for another architecture."""

    def check(name: str, *arrays: Array, **attrs: Any) -> None:
        task, _ = task_of(node_of(name, list(arrays), attrs), aarch64())
        units = units_of(task)
        assert units
        for unit in units:
            assert compile_ir(unit.text, unit.target, unit.level)

    return check
