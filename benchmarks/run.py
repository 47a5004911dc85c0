"""This library beside PyTorch, Keras on JAX and ONNX Runtime on the CPU: one command, one run, all taking turns.

    python benchmarks/run.py                       # everything, about twelve minutes
    python benchmarks/run.py --quick               # everything with short rounds, under three
    python benchmarks/run.py --only steps --workloads mlp lstm
    python benchmarks/run.py --with torch-compile  # also what takes minutes to compile
    python benchmarks/run.py --publish             # also brings docs/benchmarks.md up to date

Results go to benchmarks/results/cpu.json and cpu.md. Each library computes in a process of its own, on two threads,
and only when it is its turn. A library that is not installed is left out; what fails is a line of the table.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compare import Comparison, Contestant, compare
from eager_cases import LAYERS, OPERATORS
from report import OURS, publish, write_report
from serving import Worker, WorkerError
from workloads import WORKLOADS, find

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("steps", "compilation", "memory", "overhead", "eager", "applications")
OPTIONAL = ("torch-fused", "torch-compile")
PEERS = {"torch": ["torch"], "keras-jax": ["keras", "jax"], "onnxruntime": ["onnxruntime", "torch"]}  # and their needs
PACKAGES = ("numpy", "llvmlite", "torch", "jax", "keras", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long things are measured."""

    train_s: float  # all rounds of a workload
    infer_s: float
    turn_s: float  # one turn of one contestant
    eager_s: float
    overhead_s: float
    repeats: int  # processes that start anew, per figure
    epochs: int  # of the LeNet example
    demo: bool


FULL = Effort(32.0, 16.0, 0.25, 2.0, 2.0, 3, 8, True)
QUICK = Effort(5.0, 2.5, 0.1, 0.3, 0.3, 1, 2, False)


class Run:
    """The workers, and the sections that use them."""

    def __init__(
        self, effort: Effort, threads: int, backend: str, wait: str, peers: list[str], extra: list[str]
    ) -> None:
        self.effort, self.threads = effort, threads
        self.environment = {"HIGHLEVEL_BACKEND": backend}
        if wait:
            self.environment["OMP_WAIT_POLICY"] = wait
        modules = ("highlevel_peer", "peak", "torch_peer", "keras_peer", "onnxruntime_peer")
        self.ours, self.peak, self.torch, keras, runtime = (self.fresh(f"peers.{module}") for module in modules)
        self.workers = [self.ours, self.peak, self.torch, keras, runtime]
        contestants = [
            Contestant(OURS, self.ours),
            Contestant("peak", self.peak),
            Contestant("torch", self.torch),
            Contestant("torch channels_last", self.torch, "channels_last", images=True),
        ]
        if "torch-fused" in extra:
            contestants.append(Contestant("torch fused Adam", self.torch, "fused channels_last", kinds=("train",)))
        if "torch-compile" in extra:
            contestants.append(Contestant("torch.compile", self.torch, "compile channels_last"))
        contestants += [Contestant("keras-jax", keras), Contestant("onnxruntime", runtime, kinds=("infer",))]
        self.torch_takes_part = "torch" in peers
        libraries = {self.torch: "torch", keras: "keras-jax", runtime: "onnxruntime"}
        self.contestants = [c for c in contestants if c.worker not in libraries or libraries[c.worker] in peers]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def steps(self, names: list[str]) -> dict[str, Any]:
        """Training steps and inferences of the workloads, with the machine's peak in the same rounds."""
        found: dict[str, Any] = {"peak_flops_per_call": self.peak.ask("flops")["flops"], "workloads": {}}
        for name in names:
            entry: dict[str, Any] = {}
            try:
                entry["count"] = self.ours.ask("count", case=name)
            except WorkerError as error:
                entry["count"] = {"error": error.summary}
            images = find(name).has_images
            racing = [c for c in self.contestants if images or not c.images]
            for kind, seconds in (("train", self.effort.train_s), ("infer", self.effort.infer_s)):
                comparison = compare(name, kind, racing, seconds=seconds, turn_s=self.effort.turn_s)
                entry[kind] = comparison.record(OURS)
                _show(comparison)
            found["workloads"][name] = entry
        return found

    def compilation(self, case: str, batch: int) -> dict[str, Any]:
        """First steps with an empty and with a full cache, in processes that start anew."""
        found: dict[str, Any] = {"case": case, "other_batch": batch, "cold": [], "warm": []}
        for _ in range(self.effort.repeats):
            with tempfile.TemporaryDirectory() as folder:
                for state in ("cold", "warm"):
                    with self.fresh("peers.highlevel_peer", HIGHLEVEL_CACHE=folder) as worker:
                        found[state].append(worker.ask("compilation", case=case, other_batch=batch))
        return found

    def memory(self, case: str) -> dict[str, Any]:
        """Peaks of a training step, in processes that start anew."""
        found: dict[str, Any] = {"case": case}
        rows = [(OURS, "peers.highlevel_peer", ""), ("torch", "peers.torch_peer", "")]
        rows.append(("torch channels_last", "peers.torch_peer", "channels_last"))
        for label, module, variant in rows if find(case).has_images else rows[:2]:
            if label == OURS or self.torch_takes_part:
                with self.fresh(module) as worker:
                    found[label] = _or_error(lambda w=worker, v=variant: w.ask("peak_memory", case=case, variant=v))
        return found

    def overhead(self) -> dict[str, Any]:
        with self.fresh("peers.highlevel_peer") as worker:
            return worker.ask("overhead", seconds=self.effort.overhead_s)

    def eager(self) -> dict[str, Any]:
        """Operators and layers computed at once."""
        racing = [Contestant(OURS, self.ours, kinds=("eager",))]
        if self.torch_takes_part:
            racing.append(Contestant("torch", self.torch, kinds=("eager",)))
        rows = []
        for case in (*OPERATORS, *LAYERS):
            seconds = self.effort.eager_s
            comparison = compare(case, "eager", racing, seconds=seconds, turn_s=seconds / 20)
            rows.append(comparison.record(OURS))
        return {"cases": rows}

    def applications(self) -> dict[str, Any]:
        """Whole scripts, compilation included, in processes that start anew; ours with what the cache has."""
        found: dict[str, Any] = {}
        jobs: dict[str, dict[str, Any]] = {"lenet_example": {"epochs": self.effort.epochs}}
        if self.effort.demo:
            jobs["demo"] = {}
        for job, arguments in jobs.items():
            found[job] = {}
            for label, module in ((OURS, "peers.highlevel_peer"), ("torch", "peers.torch_peer")):
                if label == OURS or self.torch_takes_part:
                    with self.fresh(module) as worker:
                        ask = lambda w=worker, j=job, a=arguments: w.ask(j, timeout_s=600, **a)  # noqa: E731
                        found[job][label] = _or_error(ask)
        return found

    def fresh(self, module: str, **environment: str) -> Worker:
        return Worker(module, self.threads, {**self.environment, **environment})


def _or_error(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except WorkerError as error:
        print(f"{error.summary}\n{error.details}", file=sys.stderr)
        return {"error": error.summary}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _show(comparison: Comparison) -> None:
    cells = [f"{label} {record['ms']:.2f}" for label, record in comparison.record(OURS)["figures"].items()]
    print(f"{comparison.case}, {comparison.kind}, ms: {', '.join(cells)}", flush=True)


# The machine ---------------------------------------------------------------------------------------------------------
def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before."""
    from highlevel.diagnostics import processor

    versions = {package: _version(package) for package in PACKAGES}
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "caches": _caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: found for package, found in versions.items() if found},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind.lower()}"] = size
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def use_cpus(threads: int) -> None:
    """Confines this process and its workers to as many CPUs as there shall be threads: some libraries ask for no
    setting but use what they find."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def measure(run: Run, sections: list[str], names: list[str], compiled_case: str, batch: int) -> dict[str, Any]:
    """All sections, by name; one that fails is recorded as failed."""
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "steps": lambda: run.steps(names),
        "compilation": lambda: run.compilation(compiled_case, batch),
        "memory": lambda: run.memory(compiled_case),
        "overhead": run.overhead,
        "eager": run.eager,
        "applications": run.applications,
    }
    found = {}
    for section in sections:
        start = time.perf_counter()
        found[section] = _or_error(jobs[section])
        found[section]["took_s"] = round(time.perf_counter() - start, 1)
        print(f"{section}: {found[section]['took_s']} s", flush=True)
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), help="all by default")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    installed = [peer for peer, packages in PEERS.items() if all(map(_installed, packages))]
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=installed, help="all that are installed")
    parser.add_argument("--with", dest="extra", nargs="+", choices=OPTIONAL, default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, help="of training rounds per workload; inference gets half of it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="native")
    parser.add_argument("--wait", default="PASSIVE", help="OMP_WAIT_POLICY; empty for each library's own")
    parser.add_argument("--compile-workload", default="resnet50", help="whose compilation and memory are measured")
    parser.add_argument("--other-batch", type=int, default=6, help="a second batch size for it")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.json", help="with a table beside it, .md")
    parser.add_argument("--publish", action="store_true", help="also write the summary into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.seconds:
        effort = Effort(options.seconds, options.seconds / 2, *[getattr(effort, name) for name in Effort.__slots__[2:]])
    use_cpus(options.threads)
    description = machine(options.threads)
    run = Run(effort, options.threads, options.backend, options.wait, options.peers, options.extra)
    try:
        sections = measure(run, options.only, options.workloads, options.compile_workload, options.other_batch)
    finally:
        run.close()
    settings = {"backend": options.backend, "wait": options.wait, "quick": options.quick}
    results = {"machine": description, **settings, **sections}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(results, options.output.with_suffix(".md"))
    if options.publish:
        publish(results)
    return results


if __name__ == "__main__":
    main()
