"""Loop kernels as tasks, run, against their definition."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from highlevel.backends.native.cache import Object, Unit
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.lower.task import BEGIN, END, WORKSPACE, Task
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import LoopKernel, evaluate
from highlevel.ir import Spec, as_dtype, trace_graph, tree

from highlevel import ops
from highlevel.backends.native.lower.loops import loop_task


def kernels_of(function: Callable[..., Any], shapes: list[tuple[int, ...]], dtype: str) -> tuple[LoopKernel, ...]:
    specs = [Spec(shape, as_dtype(dtype)) for shape in shapes]
    graph, _ = trace_graph(lambda *symbols: tree.leaves(function(*symbols)), specs)
    return plan_fusion(graph).kernels


def run(task: Task, buffers: dict[str, np.ndarray], parts: int = 1) -> None:
    """Runs the phases one after the other, each cut into as many shares as there would be threads."""
    objects = {call.unit: Object(call.unit.symbol, compiled(call.unit)) for call in task.phases}
    if not objects:
        return
    library = link(list(objects.values()))
    workspace = np.full(task.workspace_bytes(parts) + 64, 0x7F, np.uint8)
    workspace = workspace[-workspace.ctypes.data % 64 :]
    for call in task.phases:
        types = [ctypes.c_int64 if a in (BEGIN, END) else ctypes.c_void_p for a in call.arguments]
        function = library.function(call.unit.symbol, *types)
        blocks = -(-call.units // call.grain)
        cuts = [min(blocks * part // parts * call.grain, call.units) for part in range(parts + 1)]
        for begin, end in [(0, call.units)] if call.serial else itertools.pairwise(cuts):
            known = {BEGIN: begin, END: end, WORKSPACE: workspace.ctypes.data}
            function(*(known[a] if a in known else buffers[a].ctypes.data for a in call.arguments))


def compiled(unit: Unit) -> bytes:
    from highlevel.backends.native.codegen.targets import compile_ir

    job = unit.job()
    return compile_ir(job.text, job.target, job.level)


def softmax(x: Any) -> Any:
    e = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return e / ops.sum(e, axis=-1, keepdims=True)


@pytest.mark.parametrize("parts", [1, 3])
def test_softmax(parts: int, rng: np.random.Generator) -> None:
    (kernel,) = kernels_of(softmax, [(6, 37)], "float32")
    x = rng.standard_normal((6, 37)).astype("float32")
    buffers = {"in0": x, kernel.name: np.zeros_like(x)}
    run(loop_task(kernel, {"in0": as_dtype("float32")}, host()), buffers, parts)
    expected = {"in0": x, kernel.name: np.zeros_like(x)}
    evaluate(kernel, expected)
    np.testing.assert_allclose(buffers[kernel.name], expected[kernel.name], rtol=1e-5)


def test_equal_kernels_have_equal_units() -> None:
    kernel, other = kernels_of(lambda x, y: (softmax(x), softmax(y)), [(6, 37), (6, 37)], "float32")
    first, second = (
        loop_task(k, dict.fromkeys(k.reads, as_dtype("float32")), host()).phases[0].unit for k in (kernel, other)
    )
    assert first == second


def test_nothing_to_do() -> None:
    (kernel,) = kernels_of(lambda x: x[:0] * 2.0, [(3, 4)], "float32")
    assert not loop_task(kernel, {"in0": as_dtype("float32")}, host()).phases
