"""Times the workloads on a backend: first step, training step and inference (medians).

python benchmarks/run.py --backend numpy mlp lenet lstm
python benchmarks/run.py --output benchmarks/results/interpreter.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workloads import WORKLOADS, Workload

import highlevel as hl
from highlevel.diagnostics import processor


def median_ms(step: Callable[[], Any], seconds: float, least: int = 3) -> tuple[float, int]:
    """The median time of a call, and the number of calls, in about that many seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), len(times)


def measure(workload: Workload, seconds: float) -> dict[str, Any]:
    """All figures of one workload."""
    x, y = workload.batch()
    model = workload.compiled()
    start = time.perf_counter()
    model.train_on_batch(x, y)
    first = time.perf_counter() - start
    train, steps = median_ms(lambda: model.train_on_batch(x, y), seconds)
    start = time.perf_counter()
    model.predict_on_batch(x)
    first_inference = time.perf_counter() - start
    infer, calls = median_ms(lambda: model.predict_on_batch(x), seconds / 2)
    return {
        "workload": workload.name,
        "parameters": model.count_params(),
        "first_step_s": round(first, 3),
        "train_step_ms": round(train, 3),
        "train_steps": steps,
        "first_inference_s": round(first_inference, 3),
        "inference_ms": round(infer, 3),
        "inferences": calls,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "highlevel": hl.__version__,
        "backend": hl.config.backend(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--backend", default=None)
    parser.add_argument("--seconds", type=float, default=6.0, help="per figure")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.backend:
        hl.config.set_backend(options.backend)
    rows = []
    for name in options.workloads or WORKLOADS:
        rows.append(measure(WORKLOADS[name], options.seconds))
        print(json.dumps(rows[-1]), flush=True)
    if options.output:
        options.output.write_text(
            json.dumps({"machine": machine(), "results": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
