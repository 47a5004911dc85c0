"""Times loop kernels of the native backend beside a plain copy, NumPy and PyTorch: GB/s of what must be moved.

    python benchmarks/loops.py [--rounds 15] [--without avx512f] [name…]

One thread; calls of all take turns, medians count. What must be moved: every operand once and every result once –
once more for each level of totals, since a mean must be known before the deviations from it. `copy` is what memcpy of
as many bytes reaches. Compile: milliseconds for all of a kernel's units.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from highlevel import ops
from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import Target, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.lower.loops import loop_task
from highlevel.backends.native.lower.task import BEGIN, END, WORKSPACE
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import Buffer, LoopKernel
from highlevel.ir import Spec, as_dtype, trace_graph, tree

Shape = tuple[int, ...]
IMAGES: Shape = (8, 56, 56, 64)


def batch_norm(x: Any, gamma: Any, beta: Any) -> Any:
    mean = ops.mean(x, axis=(0, 1, 2), keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=(0, 1, 2), keepdims=True)
    return (x - mean) * ops.rsqrt(variance + 1e-3) * gamma + beta


def batch_norm_gradient(g: Any, x: Any, mean: Any, scale: Any) -> Any:
    count = math.prod(x.shape[:3])
    h = (x - mean) * scale
    total = ops.sum(g, axis=(0, 1, 2), keepdims=True)
    product = ops.sum(g * h, axis=(0, 1, 2), keepdims=True)
    return (g - (total + h * product) * (1.0 / count)) * scale


def softmax(x: Any) -> Any:
    e = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return e / ops.sum(e, axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    return centred * ops.rsqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + 1e-3)


def _torch_images(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of images as PyTorch likes them: channels last in memory, first in the shape."""
    return lambda torch, x, *rest: f(torch, x.permute(0, 3, 1, 2), *rest)


# name: (function, shapes, passes over operands (the largest) and results, the same in PyTorch or None)
CASES: dict[str, tuple[Callable[..., Any], list[Shape], float, Callable[..., Any] | None]] = {
    "bias, ReLU": (
        lambda x, b: ops.maximum(x + b, 0.0), [IMAGES, (64,)], 2,
        lambda torch, x, b: torch.relu(x + b),
    ),
    "x + y": (lambda x, y: x + y, [IMAGES, IMAGES], 3, lambda torch, x, y: x + y),
    "x + y, 64 KiB": (lambda x, y: x + y, [(16384,), (16384,)], 3, lambda torch, x, y: x + y),
    "tanh": (lambda x: ops.tanh(x), [(4096, 512)], 2, lambda torch, x: torch.tanh(x)),
    "sum over N, H, W": (lambda x: ops.sum(x, axis=(0, 1, 2)), [IMAGES], 1, lambda torch, x: x.sum((0, 1, 2))),
    "sum over N, H, W; 2048": (
        lambda x: ops.sum(x, axis=(0, 1, 2)), [(8, 7, 7, 2048)], 1, lambda torch, x: x.sum((0, 1, 2))
    ),
    "bias gradient, 128 x 10": (lambda x: ops.sum(x, axis=0), [(128, 10)], 1, lambda torch, x: x.sum(0)),
    "sum of all": (lambda x: ops.sum(x * x), [IMAGES], 1, lambda torch, x: (x * x).sum()),
    "global mean": (
        lambda x: ops.mean(x, axis=(1, 2)), [(8, 7, 7, 2048)], 1, lambda torch, x: x.mean((1, 2))
    ),
    "batch norm": (
        batch_norm, [IMAGES, (64,), (64,)], 4,
        _torch_images(lambda torch, x, g, b: torch.nn.functional.batch_norm(x, None, None, g, b, True, 0.0, 1e-3)),
    ),
    "batch norm, gradient": (
        batch_norm_gradient, [IMAGES, IMAGES, (64,), (64,)], 5,
        lambda torch, g, x, m, s: torch.ops.aten.native_batch_norm_backward(
            g.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), s, None, None, m, s, True, 1e-3, [True, True, True]
        )[0],
    ),
    "softmax, 1000": (softmax, [(512, 1000)], 2, lambda torch, x: torch.softmax(x, -1)),
    "softmax, 128": (softmax, [(8192, 128)], 2, lambda torch, x: torch.softmax(x, -1)),
    "layer norm, 256": (
        layer_norm, [(2048, 256)], 2, lambda torch, x: torch.nn.functional.layer_norm(x, (256,), eps=1e-3)
    ),
    "transpose": (lambda x: ops.transpose(x) * 2.0, [(1000, 1536)], 2, lambda torch, x: (x.T * 2.0).contiguous()),
    "to channels last": (
        lambda x: ops.transpose(x, (0, 2, 3, 1)) * 1.0, [(8, 64, 56, 56)], 2,
        lambda torch, x: x.permute(0, 2, 3, 1).contiguous(),
    ),
    "heads": (
        lambda x: ops.transpose(x.reshape((16, 128, 4, 64)), (0, 2, 1, 3)) * 1.0, [(16, 128, 256)], 2,
        lambda torch, x: x.reshape(16, 128, 4, 64).permute(0, 2, 1, 3).contiguous(),
    ),
    "padding": (
        lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), [IMAGES], 2,
        lambda torch, x: torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1)),
    ),
    "padding, 3 channels": (
        lambda x: ops.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0))), [(8, 224, 224, 3)], 2,
        lambda torch, x: torch.nn.functional.pad(x, (0, 0, 3, 3, 3, 3)),
    ),
    "concatenation": (
        lambda x, y: ops.concatenate([x, y], axis=-1), [IMAGES, (8, 56, 56, 32)], 3,
        lambda torch, x, y: torch.cat([x, y], -1),
    ),
    "scale of 3 channels": (
        lambda x, s: x * s, [(8, 224, 224, 3), (3,)], 2, lambda torch, x, s: x * s
    ),
}  # fmt: skip


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins with a cache line."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    copy = memory[-memory.ctypes.data % 64 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Program:
    """Kernels compiled and bound to arrays."""

    def __init__(self, kernels: Sequence[LoopKernel], buffers: dict[str, np.ndarray], target: Target) -> None:
        self.buffers = buffers
        self.calls = []
        self.compile_ms = 0.0
        dtypes = {name: as_dtype(array.dtype) for name, array in buffers.items()}
        for kernel in kernels:
            task = loop_task(kernel, dtypes, target)
            workspace = aligned(np.zeros(task.workspace_bytes(1) + 64, np.uint8))
            for call in task.phases:
                job = call.unit.job()
                before = time.process_time()
                code = compile_ir(job.text, target, job.level)
                self.compile_ms += 1e3 * (time.process_time() - before)
                types = [ctypes.c_int64 if a in (BEGIN, END) else ctypes.c_void_p for a in call.arguments]
                function = link([Object(call.unit.symbol, code)]).function(call.unit.symbol, *types)
                values: dict[Any, int] = {BEGIN: 0, END: call.units, WORKSPACE: workspace.ctypes.data}
                arguments = [values[a] if a in values else buffers[a].ctypes.data for a in call.arguments]
                self.calls.append((function, arguments, workspace))

    def __call__(self) -> None:
        for function, arguments, _ in self.calls:
            function(*arguments)


def program(function: Callable[..., Any], arrays: Sequence[np.ndarray], target: Target) -> Program:
    specs = [Spec(array.shape, as_dtype(array.dtype)) for array in arrays]
    graph, _ = trace_graph(lambda *symbols: tree.leaves(function(*symbols)), specs)
    fusion = plan_fusion(graph)
    buffers = {f"in{i}": array for i, array in enumerate(arrays)}
    found: list[Buffer] = [output.buffer for kernel in fusion.kernels for output in kernel.outputs]
    buffers |= {buffer.name: aligned(np.zeros(buffer.shape, buffer.dtype.numpy)) for buffer in found}
    return Program(fusion.kernels, buffers, target)


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns; short ones are repeated."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        before = time.perf_counter()
        call()
        repeats[name] = max(1, int(1e-3 / max(time.perf_counter() - before, 1e-7)))
    for _ in range(rounds):
        for name, call in calls.items():
            before = time.process_time()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.process_time() - before) / repeats[name])
    return {name: statistics.median(found) for name, found in times.items()}


def measure(name: str, target: Target, rounds: int, torch: Any) -> dict[str, Any]:
    function, shapes, passes, theirs = CASES[name]
    rng = np.random.default_rng(0)
    arrays = [aligned(rng.standard_normal(shape).astype("float32")) for shape in shapes]
    ours = program(function, arrays, target)
    sizes = sorted(array.nbytes for array in arrays)
    size_bytes = passes * sizes[-1]
    source, goal = (np.zeros(int(size_bytes) // 2, np.uint8) for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {"ours": ours, "copy": lambda: np.copyto(goal, source)}
    calls["numpy"] = lambda: function(*arrays)
    if torch is not None and theirs is not None:
        tensors = [torch.from_numpy(array) for array in arrays]
        calls["torch"] = lambda: theirs(torch, *tensors)
    found = medians(calls, rounds)
    rates = {which: size_bytes / seconds / 1e9 for which, seconds in found.items()}
    return {"rates": rates, "compile_ms": ours.compile_ms, "units": len(ours.calls), "ms": 1e3 * found["ours"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="kernels, by the beginning of their names")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", nargs="*", default=[], help="features of the CPU to do without")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from highlevel import config

    config.set_backend("numpy")
    try:
        import torch

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
    except ImportError:
        torch = None  # type: ignore[assignment]
    target = host(tuple(options.without))
    print(f"{'':28}{'ours':>8}{'copy':>8}{'numpy':>8}{'torch':>8} GB/s {'ms':>8} {'calls':>6} {'compile':>9}")
    for name in CASES:
        if not options.names or any(name.startswith(wanted) for wanted in options.names):
            found = measure(name, target, options.rounds, torch)
            rates = "".join(f"{found['rates'].get(who, math.nan):8.1f}" for who in ("ours", "copy", "numpy", "torch"))
            rest = f"{found['ms']:8.3f} {found['units']:6} {found['compile_ms']:6.1f} ms"
            print(f"{name:28}{rates}      {rest}", flush=True)


if __name__ == "__main__":
    main()
