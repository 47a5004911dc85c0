"""Our side of the comparison, as a worker (see serving.py)."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from counting import contraction_flops, largest, recorded
from eager_cases import layer_arguments, operands
from serving import Call, peak_of_step, serve, timed
from workloads import dense_network, find

import highlevel as hl

EXAMPLES = Path(__file__).parents[2] / "examples"


def prepare(case: str, kind: str, variant: str) -> Call:
    if kind == "eager":
        return eager(case)
    workload = find(case)
    x, y = workload.batch()
    model = workload.compiled(hl)
    if kind == "train":
        return lambda: model.train_on_batch(x, y)
    return lambda: model.predict_on_batch(x)


def eager(case: str) -> Call:
    """An operator or a layer, computed at once."""
    if case.startswith("layer "):
        name, shape, arguments = layer_arguments(case)
        layer = getattr(hl.layers, name)(*arguments)
        x = hl.ops.convert_to_tensor(operands(shape)[0])
        return lambda: layer(x)
    arrays = [hl.ops.convert_to_tensor(array) for array in operands(case)]
    functions: dict[str, Any] = {
        "add": hl.ops.add,
        "exp": hl.ops.exp,
        "sum": hl.ops.sum,
        "matmul": hl.ops.matmul,
        "softmax": hl.ops.softmax,
        "transpose": lambda a: hl.ops.transpose(a, (1, 0)),
    }
    function = functions[case.split()[0]]
    return lambda: function(*arrays)


def count(case: str) -> dict[str, Any]:
    """Arithmetic of a training step and of an inference, and the memory that they are planned to take."""
    workload = find(case)
    x, y = workload.batch()
    model = workload.compiled(hl)
    found = {"parameters": model.count_params()}
    for kind, call in (("train", lambda: model.train_on_batch(x, y)), ("infer", lambda: model.predict_on_batch(x))):
        with recorded() as programs:
            call()
        graph, executable = largest(programs)
        found[f"{kind}_flops"] = contraction_flops(graph)
        program = getattr(executable, "program", None)
        if program is not None:
            found[f"{kind}_arena_bytes"] = program.memory.size_bytes
            found[f"{kind}_arena_bound_bytes"] = program.memory.bound_bytes
    return found


def compilation(case: str, other_batch: int) -> dict[str, Any]:
    """First training steps in this process, whose cache is as the caller has made it; then for another batch size."""
    workload = find(case)
    model = workload.compiled(hl)
    found = {}
    for label, size in (("", None), ("other_", other_batch)):
        x, y = workload.batch(size)
        start = time.perf_counter()
        model.train_on_batch(x, y)
        first = time.perf_counter() - start
        step = min(timed(lambda x=x, y=y: model.train_on_batch(x, y), 0.2)) / 1e3  # type: ignore[misc]
        found |= {f"{label}first_s": first, f"{label}step_s": step, f"{label}compile_s": first - step}
    return found


def peak_memory(case: str, variant: str = "") -> dict[str, Any]:
    workload = find(case)
    x, y = workload.batch()
    model = workload.compiled(hl)
    return peak_of_step(lambda: model.train_on_batch(x, y))


# Python's part of the work -------------------------------------------------------------------------------------------
def overhead(seconds: float) -> dict[str, Any]:
    """Microseconds of calls with next to nothing to compute, and how many Python calls a training step makes."""
    model = dense_network(hl, 32, 64, 64, 10)
    model.compile(hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 32), dtype="float32"), np.array([3], "int32")
    calls: dict[str, Call] = {
        "predict_us": lambda: model.predict(x, verbose=0),
        "predict_on_batch_us": lambda: model.predict_on_batch(x),
        "train_on_batch_us": lambda: model.train_on_batch(x, y),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        call()
        found[name] = float(np.median(timed(call, seconds))) * 1e3
    for layers in (4, 40):
        found[f"python_calls_{layers}_layers"] = python_calls(layers)
    return found


def python_calls(layers: int) -> int:
    """How many functions, in Python and in C, one training step of a network with that many layers calls."""
    model = dense_network(hl, *[16] * (layers + 1))
    model.compile(hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.ones((4, 16), "float32"), np.zeros(4, "int32")
    for _ in range(3):
        model.train_on_batch(x, y)
    events: list[str] = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    model.train_on_batch(x, y)
    sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


# Whole scripts -------------------------------------------------------------------------------------------------------
def lenet_example(epochs: int) -> dict[str, Any]:
    """examples/mnist_lenet.py as it is."""
    spec = importlib.util.spec_from_file_location("mnist_lenet", EXAMPLES / "mnist_lenet.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    start = time.perf_counter()
    accuracy = example.main(epochs, verbose=0)
    return {"seconds": time.perf_counter() - start, "accuracy": accuracy}


def demo() -> dict[str, Any]:
    """`highlevel demo`, as it is."""
    from highlevel.demo import run_demo

    with tempfile.TemporaryDirectory() as folder:
        result = run_demo(Path(folder) / "demo", verbose=0, say=lambda line: None)
    return {"seconds": result.elapsed_s, "accuracy": result.after, "from_random": result.from_random}


if __name__ == "__main__":
    serve(
        prepare,
        count=count,
        compilation=compilation,
        peak_memory=peak_memory,
        overhead=overhead,
        lenet_example=lenet_example,
        demo=demo,
    )
