"""The workloads are what they are called: parameters as many as Keras's, and they train."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import highlevel as hl

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def workloads() -> ModuleType:
    spec = importlib.util.spec_from_file_location("workloads", BENCHMARKS / "workloads.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["workloads"] = module  # run.py imports it by this name
    spec.loader.exec_module(module)
    return module


# Counted by hand, or by Keras's applications where there are some: ResNet-50 has a bias in each of its 53
# convolutions there.
PARAMETERS = {
    "mlp": 785 * 512 + 513 * 512 + 513 * 10,
    "lenet": 20 * 26 + 50 * 501 + 500 * 801 + 10 * 501,
    "resnet18": 11_173_962 + 2 * 4_800,
    "resnet50": 25_636_712 - 26_560,
    "lstm": 10_000 * 128 + 4 * 128 * (128 + 128 + 1) + 129 * 2,
    "transformer": 10_000 * 256 + 4 * (4 * 257 * 256 + 257 * 1024 + 1025 * 256 + 4 * 256) + 257 * 2,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_workloads_have_their_parameters(name, workloads):
    assert workloads.WORKLOADS[name].build().count_params() == PARAMETERS[name]


def test_there_are_no_others(workloads):
    assert set(workloads.WORKLOADS) == set(PARAMETERS)


@pytest.mark.parametrize("name", ["mlp", "lenet", "lstm"])
def test_workloads_train(name, workloads):
    hl.set_random_seed(0)
    workload = workloads.WORKLOADS[name]
    model = workload.compiled()
    x, y = workload.batch()
    assert x.shape == workload.batch_shape and set(np.unique(y)) <= set(range(workload.classes))
    first = model.train_on_batch(x, y)
    assert first == pytest.approx(np.log(workload.classes), rel=0.35)
    for _ in range(3):
        model.reset_metrics()
        last = model.train_on_batch(x, y)
    assert last < first
    assert model.predict_on_batch(x).shape == (len(x), workload.classes)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["resnet18", "transformer"])
def test_large_workloads_train(name, workloads):
    model = workloads.WORKLOADS[name].compiled()
    x, y = workloads.WORKLOADS[name].batch()
    assert np.isfinite(model.train_on_batch(x[:4], y[:4]))


def test_the_runner_measures(workloads, monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmarks_run", BENCHMARKS / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    small = workloads.Workload("small", workloads.mlp, (4, 784), 10)
    row = run.measure(small, seconds=0.01)
    assert row["parameters"] == PARAMETERS["mlp"] and row["train_steps"] >= 3 and row["inference_ms"] > 0
    assert run.machine()["backend"] == hl.config.backend()
    median, count = run.median_ms(lambda: None, 0.0, least=5)
    assert count == 5 and median >= 0
