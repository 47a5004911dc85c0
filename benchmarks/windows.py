"""Times pooling, embedding look-ups and their gradients of the native backend beside PyTorch's: one thread, float32.

    python benchmarks/windows.py [--rounds 30] [--without avx512f] [--only pool]

Calls of both are interleaved, and medians of processor time compared. PyTorch gets channels-last arrays. The gradient
of an embedding includes the zeros that it is added to, as PyTorch's does. GB/s count operands and result once.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import Target, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.lower.registry import LOWERINGS
from highlevel.backends.native.lower.task import BEGIN, END, FUNCTION, THREADS, TID, WORKSPACE
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.ir import REGISTRY, Spec, as_dtype, trace_graph

INTEGERS = {BEGIN: ctypes.c_int64, END: ctypes.c_int64, TID: ctypes.c_int32, THREADS: ctypes.c_int32}


@dataclass(frozen=True)
class Case:
    """An operator on arrays, and the same by PyTorch: a function of nothing."""

    label: str
    name: str
    arrays: tuple[np.ndarray, ...]
    attrs: dict[str, Any]
    peer: Callable[[], Any]
    zeroed: bool = False  # the first operand is the result, set to 0 in each run


def ours(case: Case, target: Target) -> tuple[Callable[[], None], np.ndarray, float]:
    """The operator as a function of nothing, its result, and how long it took to compile."""
    specs = [Spec(array.shape, as_dtype(array.dtype)) for array in case.arrays]
    graph, _ = trace_graph(lambda *symbols: [REGISTRY[case.name](*symbols, **case.attrs)], specs)
    node = graph.outputs[0].node
    buffers = [Buffer(f"b{i}", spec.shape, spec.dtype) for i, spec in enumerate((*specs, *node.specs))]
    task = LOWERINGS[case.name](node, buffers[:-1], buffers[-1:], target)
    start = time.perf_counter()
    objects = [Object(c.unit.symbol, compile_ir(c.unit.job().text, target, c.unit.level)) for c in task.phases]
    compiled = time.perf_counter() - start
    library = link(objects)
    result = case.arrays[0] if case.zeroed else aligned(buffers[-1])
    workspace = np.zeros(task.workspace_bytes(1) + 64, np.uint8)
    addresses: dict[Any, int | None] = {f"b{i}": array.ctypes.data for i, array in enumerate((*case.arrays, result))}
    addresses |= {BEGIN: 0, TID: 0, THREADS: 1, FUNCTION: None, WORKSPACE: workspace.ctypes.data}
    calls = []
    for call in task.phases:
        kinds = [INTEGERS.get(argument, ctypes.c_void_p) for argument in call.arguments]  # type: ignore[call-overload]
        values = [{**addresses, END: call.units}[argument] for argument in call.arguments]
        calls.append((library.function(call.unit.symbol, *kinds), values))

    def run() -> None:
        if case.zeroed:
            ctypes.memset(result.ctypes.data, 0, result.nbytes)
        for function, values in calls:
            function(*values)

    run.kept = (workspace, case.arrays)  # type: ignore[attr-defined]
    return run, result, compiled


def aligned(buffer: Buffer) -> np.ndarray:
    """An array for a buffer that begins with a cache line, as those in an arena do."""
    count = int(np.prod(buffer.shape)) * buffer.dtype.size_bytes
    memory = np.empty(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count].view(buffer.dtype.numpy).reshape(buffer.shape)


def pooling(shape: tuple[int, ...], k: int, s: int, p: int, label: str, rng: np.random.Generator) -> list[Case]:
    """Maxima, their gradient and sums of windows k × k."""
    import torch

    attrs = {"window": (k, k), "strides": (s, s), "padding": ((p, p),) * 2, "dilation": (1, 1)}
    x = rng.standard_normal(shape, np.float32)
    y = REGISTRY["window_max"].numpy(np, x, **attrs)
    g = rng.standard_normal(y.shape, np.float32)
    images, cotangents = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, g))
    functional, aten = torch.nn.functional, torch.ops.aten
    _, indices = functional.max_pool2d(images, k, s, p, return_indices=True)
    backward = aten.max_pool2d_with_indices_backward
    return [
        Case(f"{label}, max", "window_max", (x,), attrs, lambda: functional.max_pool2d(images, k, s, p)),
        Case(
            f"{label}, gradient of max",
            "window_max_grad",
            (x, g),
            attrs,
            lambda: backward(cotangents, images, [k, k], [s, s], [p, p], [1, 1], False, indices),
        ),
        Case(f"{label}, sum", "window_sum", (x,), attrs, lambda: functional.avg_pool2d(images, k, s, p)),
    ]


def embedding(rows: int, width: int, count: int, label: str, rng: np.random.Generator) -> list[Case]:
    """Rows of a table looked up, and cotangents added to a table of zeros."""
    import torch

    table, g = rng.standard_normal((rows, width), np.float32), rng.standard_normal((count, width), np.float32)
    indices = rng.integers(0, rows, (count, 1)).astype(np.int32)
    tensors = [torch.from_numpy(a) for a in (table, indices[:, 0].copy(), g)]
    backward = torch.ops.aten.embedding_dense_backward
    return [
        Case(
            f"{label}, look-up",
            "gather",
            (table, indices),
            {},
            lambda: torch.nn.functional.embedding(tensors[1], tensors[0]),
        ),
        Case(
            f"{label}, gradient",
            "scatter_add",
            (np.zeros_like(table), indices, g),
            {},
            lambda: backward(tensors[2], tensors[1], rows, -1, False),
            zeroed=True,
        ),
    ]


def cases(rng: np.random.Generator) -> list[Case]:
    return [
        *pooling((16, 112, 112, 64), 3, 2, 1, "pool 3x3/2, 16 x 112^2 x 64", rng),
        *pooling((128, 24, 24, 6), 2, 2, 0, "pool 2x2/2, 128 x 24^2 x 6", rng),
        *pooling((32, 7, 7, 2048), 7, 7, 0, "pool 7x7, 32 x 7^2 x 2048", rng),
        *embedding(10_000, 128, 3200, "embedding 10,000 x 128, 3200", rng),
        *embedding(30_000, 768, 4096, "embedding 30,000 x 768, 4096", rng),
    ]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    target = host(options.without)
    print(f"{'':44}{'ours µs':>10}{'GB/s':>7}{'PyTorch µs':>12}{'ratio':>7}{'compile ms':>12}")
    for case in cases(np.random.default_rng(0)):
        if options.only not in case.label:
            continue
        run, result, compiled = ours(case, target)
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        with torch.no_grad():
            for _ in range(options.rounds):
                for name, function in (("ours", run), ("peer", case.peer)):
                    start = time.process_time()
                    function()
                    times[name].append(time.process_time() - start)
        mine, theirs = (statistics.median(times[name]) * 1e6 for name in ("ours", "peer"))
        size = result.nbytes + sum(a.nbytes for a in case.arrays[case.name in ("gather", "scatter_add") :])
        line = f"{case.label:44}{mine:10.0f}{size / mine / 1e3:7.1f}{theirs:12.0f}{theirs / mine:7.2f}"
        print(f"{line}{compiled * 1e3:12.1f}")


if __name__ == "__main__":
    main()
