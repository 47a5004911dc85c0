"""The benchmarks measure what they say: networks are what they are called, workers answer, reports add up."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import highlevel as hl

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODULES = ("workloads", "serving", "counting", "compare", "report", "eager_cases", "peers", "peers.torch_networks")


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """Imports modules as the scripts do, which find each other beside them."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def workloads(load: Any) -> ModuleType:
    return load("workloads")


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
    assert workloads.WORKLOADS[name].build(hl).count_params() == PARAMETERS[name]


def test_there_are_no_others(workloads):
    assert set(workloads.WORKLOADS) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_pytorch_has_the_same_networks(name, load):
    """As many parameters; its LSTM has two biases where ours has one, its statistics are buffers."""
    pytest.importorskip("torch")
    model = load("peers.torch_networks").NETWORKS[name]()
    statistics = sum(value.numel() for key, value in model.named_buffers() if "running" in key)
    second_bias = 4 * 128 if name == "lstm" else 0
    assert sum(p.numel() for p in model.parameters()) + statistics - second_bias == PARAMETERS[name]


@pytest.mark.parametrize("name", ["mlp", "lenet", "lstm"])
def test_workloads_train(name, workloads):
    hl.set_random_seed(0)
    workload = workloads.WORKLOADS[name]
    model = workload.compiled(hl)
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
    model = workloads.WORKLOADS[name].compiled(hl)
    x, y = workloads.WORKLOADS[name].batch(4)
    assert np.isfinite(model.train_on_batch(x, y))


def test_arithmetic_is_counted(load):
    """Two dense layers by hand: forward, and backward but for the first layer's input."""
    counting, tiny = load("counting"), load("workloads").TINY
    model, (x, y) = tiny.compiled(hl), tiny.batch()
    counts = {}
    for kind, call in (("train", lambda: model.train_on_batch(x, y)), ("infer", lambda: model.predict_on_batch(x))):
        with counting.recorded() as programs:
            call()
        counts[kind] = counting.contraction_flops(counting.largest(programs)[0])
    first, second = 2 * 16 * 8 * 16, 2 * 16 * 16 * 4
    assert counts == {"infer": first + second, "train": 2 * first + 3 * second}
    conv = hl.Sequential([hl.Input((9, 9, 3)), hl.layers.Conv2D(5, 3, strides=2)])
    with counting.recorded() as programs:
        conv.predict_on_batch(np.zeros((2, 9, 9, 3), "float32"))
    assert counting.contraction_flops(counting.largest(programs)[0]) == 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
    assert "compile" not in vars(hl.backends.current()), "recording leaves nothing behind"


def test_turns_count_what_they_call(load):
    serving = load("serving")
    calls: list[int] = []
    times = serving.timed(lambda: calls.append(0), 0.0)
    assert len(times) == len(calls) == 1
    times = serving.timed(lambda: calls.append(0), 0.01)
    assert len(times) == len(calls) - 2, "the first of several short calls warms up"
    found = serving.peak_of_step(lambda: np.ones(1 << 24))
    assert found["steady_bytes"] >= 0.9 * (8 << 24)


SLOW_SERVER = """
import time
from serving import serve

def prepare(case, kind, variant):
    if case == "broken":
        raise ValueError("no such thing")
    return lambda: time.sleep({"fast": 0.002, "slow": 0.01}[variant])

print("something that a library has to say")
serve(prepare, die=lambda: exit(3))
"""


@pytest.fixture
def server(load, tmp_path, monkeypatch):
    (tmp_path / "slow_server.py").write_text(SLOW_SERVER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with load("serving").Worker("slow_server", threads=1) as worker:
        yield worker


def test_contestants_take_turns(load, server):
    compare = load("compare")
    contestants = [compare.Contestant("ours", server, "fast"), compare.Contestant("theirs", server, "slow")]
    contestants.append(compare.Contestant("not asked", server, kinds=("infer",)))
    found = compare.compare("case", "train", contestants, seconds=0.3, turn_s=0.03)
    record = found.record("ours")
    assert set(record["figures"]) == {"ours", "theirs"} and record["rounds"] >= 3 and not record["errors"]
    assert 2 <= record["figures"]["ours"]["ms"] < record["figures"]["theirs"]["ms"]
    assert 1.5 < record["figures"]["theirs"]["ratio_to_ours"] < 6


def test_who_fails_is_out_and_the_others_go_on(load, server):
    compare, serving = load("compare"), load("serving")
    with pytest.raises(serving.WorkerError, match="ValueError: no such thing"):
        server.ask("prepare", case="broken", kind="train", variant="")
    contestants = [compare.Contestant("ours", server, "fast"), compare.Contestant("wrong", server, "unknown")]
    found = compare.compare("case", "train", contestants, seconds=0.0, turn_s=0.01, say=False).record("ours")
    assert list(found["figures"]) == ["ours"] and found["errors"] == {"wrong": "KeyError: 'unknown'"}
    with pytest.raises(serving.WorkerError, match="ended with status 3"):
        server.ask("die")
    assert server.ask("prepare", case="again", kind="train", variant="fast")["first_s"] > 0, "a new process"


def test_the_whole_command(tmp_path):
    """Ours alone, on a tiny network, in real processes."""
    output = tmp_path / "cpu.json"
    options = ["--workloads", "tiny", "--compile-workload", "tiny", "--quick", "--seconds", "0.1", "--threads", "1"]
    options += ["--only", "steps", "compilation", "memory", "overhead", "--peers", "--output", str(output)]
    command = [sys.executable, str(BENCHMARKS / "run.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text(encoding="utf-8"))
    tiny = results["steps"]["workloads"]["tiny"]
    assert tiny["count"]["train_flops"] == 14_336 and tiny["count"]["train_arena_bytes"] > 0
    for kind in ("train", "infer"):
        assert set(tiny[kind]["figures"]) == {"highlevel", "peak"} and not tiny[kind]["errors"]
    (cold,), (warm,) = results["compilation"]["cold"], results["compilation"]["warm"]
    assert cold["compile_s"] > warm["compile_s"] > 0
    assert results["overhead"]["python_calls_4_layers"] == results["overhead"]["python_calls_40_layers"]
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert "| tiny | " in text and results["machine"]["processor"] in text


# Reports -------------------------------------------------------------------------------------------------------------
def figures(ours: float, **others: float) -> dict[str, Any]:
    rows = {"highlevel": ours, **others}
    names = ("ms", "low_ms", "high_ms")
    found = {key: {**dict.fromkeys(names, ms), "first_s": 1.0, "ratio_to_ours": ms / ours} for key, ms in rows.items()}
    return {"figures": found, "errors": {"absent": "gone"}}


@pytest.fixture
def results() -> dict[str, Any]:
    entries = {
        "mlp": {"train": figures(1.0, torch=4.0, keras=2.0, peak=0.5), "infer": figures(1.0, torch=1.0, peak=0.5)},
        "lstm": {"train": figures(2.0, torch=16.0, peak=0.5), "infer": figures(4.0, torch=3.0, peak=0.5)},
    }
    entries["mlp"]["count"] = {"train_flops": 1600, "infer_flops": 800}
    entries["lstm"]["count"] = {"error": "gone"}
    machine = {"processor": "P", "cores": 2, "threads": 2, "caches": {"L1": "1K"}, "memory_gib": 1.0, "system": "S"}
    machine |= {"python": "3", "versions": {"numpy": "2"}, "date": "today", "load_before": 0.0}
    memory = {"case": "mlp", "took_s": 1.0, "highlevel": {"first_bytes": 9, "steady_bytes": 6}}
    memory["torch"] = {"first_bytes": 9, "steady_bytes": 12}
    steps = {"peak_flops_per_call": 1000, "workloads": entries}
    return {"machine": machine, "backend": "native", "wait": "", "steps": steps, "memory": memory}


def test_reports_derive_what_was_promised(load, results, tmp_path):
    report = load("report")
    found = {target.what: target for target in report.targets(results)}
    mean, least = (found[f"training step, best peer ÷ ours, {which}"] for which in ("geometric mean", "the least"))
    assert mean.measured == pytest.approx((2 * 8) ** 0.5) and mean.met
    assert least.measured == 2
    assert found["inference, best peer ÷ ours, the least"].met is False
    (memory,) = (target for what, target in found.items() if "peak memory" in what)
    assert memory.measured == 0.5 and memory.met
    assert report.share_of_floor(results, "mlp", "train") == pytest.approx(1600 / 1000 * 0.5 / 1.0)
    assert report.share_of_floor(results, "lstm", "train") is None
    text = report.report(results)
    assert "**2.00** (keras)" in text and "80%" in text and "absent: `gone`" in text
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\nout of date\n{report.END}\nafter\n", encoding="utf-8")
    report.publish(results, page)
    published = page.read_text(encoding="utf-8")
    assert published.startswith("before\n") and published.endswith("after\n") and "out of date" not in published
    assert "geometric mean | ≥ 1.6 × | 4 ×" in published
