"""Looking into programs: what reports say is what programs are and do."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import ops
from highlevel.backends.native.executable import Executable
from highlevel.errors import ArgumentError, BackendError

F32 = np.float32


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highlevel.backends.registry._current", hl.backends.get("native"))


@pytest.fixture
def model() -> Any:
    hl.set_random_seed(0)
    made = hl.Sequential([
        hl.Input((8, 8, 3)), hl.layers.Conv2D(8, 3, name="edges"), hl.layers.BatchNormalization(), hl.layers.ReLU(),
        hl.layers.Flatten(), hl.layers.Dense(10, name="classes"),
    ])  # fmt: skip
    made.compile("adam", hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return made


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(16, 8, 8, 3)).astype(F32), rng.integers(0, 10, 16)


# explain -------------------------------------------------------------------------------------------------------------
def test_operations_and_bytes_are_those_of_the_arrays() -> None:
    found = hl.explain(lambda a, b: a @ b, np.ones((64, 32), F32), np.ones((32, 16), F32))
    (kernel,) = found.kernels
    assert kernel.name == "matmul"
    assert kernel.flops == found.flops == 2 * 64 * 32 * 16
    assert kernel.bytes_moved == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert [array.spec.shape for array in kernel.reads] == [(64, 32), (32, 16)]
    assert [array.spec.shape for array in kernel.writes] == [(64, 16)]
    assert found.memory.input_bytes == 4 * (64 * 32 + 32 * 16)
    assert found.memory.output_bytes == 4 * 64 * 16
    assert found.memory.variable_bytes == 0


def test_explaining_runs_nothing(model: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hl.explain(model, *batch)  # the machine has been measured, and weights made
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy().copy() for variable in variables]
    ran: list[int] = []
    run = Executable.run
    monkeypatch.setattr(
        Executable, "run", lambda self, inputs: ran.append(len(self.graph.nodes())) or run(self, inputs)
    )
    hl.explain(model, *batch)
    hl.explain(model, batch[0])
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert max(ran, default=0) < 5  # tracing computes with numbers, one operator at a time


def test_kernels_are_of_layers_and_lines(model: Any, batch: Any) -> None:
    found = hl.explain(model, *batch)
    convolutions = [kernel for kernel in found.kernels if kernel.name.startswith("conv")]
    assert len(convolutions) >= 2  # forward and backward
    assert all("sequential/edges" in kernel.layers for kernel in convolutions)
    assert all(Path(kernel.source.rpartition(":")[0]) == Path(__file__) for kernel in convolutions)
    everything = {layer for kernel in found.kernels for layer in kernel.layers}
    assert {"sequential/edges", "sequential/classes", "optimizer", "loss", "metrics"} <= everything


def test_a_step_is_longer_than_inference(model: Any, batch: Any) -> None:
    inference, training = hl.explain(model, batch[0]), hl.explain(model, *batch)
    assert training.flops > 2 * inference.flops
    assert training.memory.arena_bytes > inference.memory.arena_bytes
    assert len(training.kernels) > len(inference.kernels)
    assert training.nodes_traced >= training.passes[0].nodes_before
    assert training.barriers > 0
    assert training.compilation.kernels == sum((
        training.compilation.in_memory, training.compilation.on_disk, training.compilation.compiled
    ))  # fmt: skip
    again = hl.explain(model, *batch)
    assert again.compilation.in_memory == again.compilation.kernels


def test_the_memory_map_fits_the_arena(model: Any, batch: Any) -> None:
    memory = hl.explain(model, *batch).memory
    assert max(value.offset + value.size_bytes for value in memory.values) <= memory.arena_bytes
    at_once = {value.offset: value.size_bytes for value in reversed(memory.at_peak)}
    assert sum(at_once.values()) <= memory.arena_bytes
    assert sum(at_once.values()) >= 0.5 * memory.bound_bytes
    sizes = [value.size_bytes for value in memory.values]
    assert sizes == sorted(sizes, reverse=True)


def test_loops_say_how_often_they_run() -> None:
    model = hl.Sequential([hl.Input((12, 4)), hl.layers.LSTM(8)])
    found = hl.explain(model, np.zeros((2, 12, 4), F32))
    inside = [kernel for kernel in found.kernels if kernel.within]
    assert inside
    assert all(kernel.times == 12 and "12" in kernel.within[0] for kernel in inside)


def test_the_text_is_a_report(model: Any, batch: Any) -> None:
    text = str(hl.explain(model, *batch))
    words = ("Graph:", "simplify", "Kernels:", "conv", "sequential/edges", "test_inspection.py:", "in place")
    for word in (*words, "Memory:", "arena", "variables", "Compilation:"):
        assert word in text
    assert repr(hl.explain(model, batch[0])).startswith("Graph:")


def test_specs_stand_for_arrays(model: Any) -> None:
    x, y = hl.Spec((4, 8, 8, 3), hl.ops.ones(()).dtype), hl.Spec((4,), hl.ops.ones((), "int32").dtype)
    assert hl.explain(model, x).memory.input_bytes == 4 * 8 * 8 * 3 * 4
    assert hl.explain(model, x, y).memory.input_bytes == 4 * 8 * 8 * 3 * 4 + 16


def test_compiled_functions_and_others_are_the_same() -> None:
    x = np.ones((4, 5), F32)
    compiled = hl.jit(lambda x: ops.softmax(x))
    assert [k.name for k in hl.explain(compiled, x).kernels] == [
        k.name for k in hl.explain(lambda x: ops.softmax(x), x).kernels
    ]
    assert compiled.traces == 0


def test_what_cannot_be_explained_is_an_error(model: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="there is no program"):
        hl.explain(3)
    with pytest.raises(ArgumentError, match="arguments"):
        hl.explain(model)
    with pytest.raises(ArgumentError, match="not compiled"):
        hl.explain(hl.Sequential([hl.Input((3,)), hl.layers.Dense(2)]), np.ones((1, 3), F32), np.ones((1, 2), F32))
    with pytest.raises(ArgumentError, match="steps"):
        hl.profile(model, batch[0], steps=0)
    monkeypatch.setattr("highlevel.backends.registry._current", hl.backends.get("numpy"))
    for look in (hl.explain, hl.profile):
        with pytest.raises(BackendError, match="'numpy' cannot") as caught:
            look(model, batch[0])
        assert "native" in str(caught.value)
    with pytest.raises(BackendError, match="native"):
        model.memory_plan()


# profile -------------------------------------------------------------------------------------------------------------
def test_a_profile_leaves_the_variables_alone(model: Any, batch: Any) -> None:
    model.train_on_batch(*batch)
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy().copy() for variable in variables]
    profile = hl.profile(model, *batch, steps=3)
    assert profile.restored >= len(model.trainable_variables)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    model.train_on_batch(*batch)
    assert any((v.numpy() != old).any() for v, old in zip(variables, before, strict=True))


def test_times_fit_into_the_step(rng: np.random.Generator) -> None:
    a, b = (rng.normal(size=(512, 512)).astype(F32) for _ in range(2))
    found = hl.profile(lambda a, b: ops.tanh(a @ b) @ b, a, b, steps=5)
    assert found.steps == 5
    assert sum(row.share for row in found.kernels) == pytest.approx(1)
    assert sum(row.ms for row in found.layers) == pytest.approx(found.kernel_ms)
    assert 0 < found.kernel_ms < 1.5 * found.step_ms  # nothing else of weight is in this step
    assert found.kernel_ms > 0.2 * found.step_ms
    costs = [row.ms for row in found.kernels]
    assert costs == sorted(costs, reverse=True)
    first = found.kernels[0]
    assert first.kernel.name == "matmul"
    assert first.flops_per_s == pytest.approx(2 * 512**3 / first.ms * 1e3)
    assert all(len(row.thread_ms) == found.machine.threads for row in found.kernels)


def test_the_profile_s_clock_is_right(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4_000_000,)).astype(F32)
    found = hl.profile(lambda x: ops.sum(ops.sin(x)), x, steps=3)
    last = max(event.start_us + event.elapsed_us for event in found.events)
    assert 0.1 * found.step_ms < last / 1e3 < 10 * found.step_ms


def test_loops_count_all_rounds() -> None:
    model = hl.Sequential([hl.Input((50, 4)), hl.layers.LSTM(8)])
    found = hl.profile(model, np.zeros((2, 50, 4), F32), steps=2)
    inside = [row for row in found.kernels if row.kernel.within]
    assert inside
    assert sum(row.ms for row in inside) > 0


def test_the_text_of_a_profile(model: Any, batch: Any) -> None:
    text = str(hl.profile(model, *batch, steps=2))
    for word in ("GFLOP/s", "GB/s", "share", "Layers:", "sequential/edges", "given their values back"):
        assert word in text
    assert "given their values back" not in str(hl.profile(model, batch[0], steps=2))


def test_a_chrome_trace_has_a_row_per_thread(model: Any, batch: Any, tmp_path: Path) -> None:
    found = hl.profile(model, *batch, steps=2)
    found.chrome_trace(tmp_path / "step.json")
    trace = json.loads((tmp_path / "step.json").read_text(encoding="utf-8"))["traceEvents"]
    names = {row["tid"]: row["args"]["name"] for row in trace if row["ph"] == "M"}
    events = [row for row in trace if row["ph"] == "X"]
    assert {event["tid"] for event in events} == set(names)
    assert {"conv", "matmul"} <= {event["name"] for event in events}
    assert min(event["ts"] for event in events) == 0
    assert all(event["dur"] >= 0 for event in events)
    for tid in names:  # a thread does one thing at a time
        mine = sorted((event["ts"], event["dur"]) for event in events if event["tid"] == tid)
        assert all(ts + dur <= later + 1e-3 for (ts, dur), (later, _) in itertools.pairwise(mine))


# memory_plan ---------------------------------------------------------------------------------------------------------
PEAK = """
import numpy as np
import highlevel as hl


def memory(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what)) * 1024


layers = [hl.Input((64, 64, 16))]
for _ in range(4):
    layers += [hl.layers.Conv2D(32, 1), hl.layers.BatchNormalization(), hl.layers.ReLU()]
model = hl.Sequential([*layers, hl.layers.GlobalAveragePooling2D(), hl.layers.Dense(10)])
model.compile("sgd", "mse")
plan = model.memory_plan(64)
model.train_on_batch(np.zeros((2, 64, 64, 16), "float32"), np.zeros((2, 10), "float32"))
x, y = np.ones((64, 64, 64, 16), "float32"), np.ones((64, 10), "float32")
program, arguments = model.trainer.program(x, y)
program.prepared(*arguments)  # compiled, which takes memory as well
before = memory("VmRSS")
model.train_on_batch(x, y)
print(memory("VmHWM") - before, plan.activation_bytes + plan.input_bytes + plan.output_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory in use as Linux tells it")
def test_memory_in_use_is_as_planned() -> None:
    """Beside the interpreter, what it has loaded, and the weights, a step of training takes what the plan says."""
    environment = {**os.environ, "HIGHLEVEL_BACKEND": "native"}
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    grown, planned = map(int, done.stdout.split())
    assert planned > 200e6
    assert grown == pytest.approx(planned, rel=0.05)


def test_the_plan_is_the_arena(model: Any, batch: Any) -> None:
    plan = model.memory_plan(16)
    assert plan.activation_bytes == hl.explain(model, *batch).memory.arena_bytes
    program, arguments = model.trainer.program(*batch)
    executable, _ = program.prepared(*arguments)
    assert plan.activation_bytes == executable.program.memory.size_bytes
    assert hl.memory_plan(model, 16).total_bytes == plan.total_bytes


def test_weights_in_another_order_are_counted() -> None:
    hl.set_random_seed(0)
    model = hl.Sequential([hl.Input((512,)), hl.layers.Dense(512)])
    x = np.zeros((64, 512), F32)
    found, plan = hl.explain(model, x), model.memory_plan(64, training=False)
    program, arguments = model.trainer.program(x)
    kept = program.prepared(*arguments)[0].kept
    assert found.memory.kept_bytes == plan.kept_bytes == sum(array.nbytes for array in kept)
    assert bool(found.once) == bool(kept)
