"""Times matrix products and convolutions of the native backend beside NumPy's and PyTorch's: GFLOP/s, float32.

    python benchmarks/contraction.py [--threads 1 2] [--rounds 15] [--without avx512f] [gemm conv]

Calls of all are interleaved and medians compared; with one thread processor time is measured, with more the clock on
the wall, so figures of several threads need an idle machine. `peak` is the micro-kernel on data that stay in the
first-level cache, measured in the same rounds. Convolutions: y, gradients of x and of the kernel; PyTorch gets its best
layout, channels last. Kernels are packed anew in each call, as in training.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.contraction import (
    Conv,
    Gemm,
    Matrix,
    emit_conv,
    emit_conv_kernel_grad,
    emit_gemm,
    phase_names,
    plan_conv,
    plan_conv_input_grad,
    plan_conv_kernel_grad,
    plan_gemm,
)
from highlevel.backends.native.codegen.targets import Target, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.devices.team import Team, default_runtime, emit_barrier
from highlevel.ir.dtypes import float32

I32, I64, PTR = ir.IntType(32), ir.IntType(64), ir.PointerType()
GEMMS = {  # m, n, k
    "128 x 784 x 512": Gemm.dense(128, 512, 784),
    "128 x 784 x 512, A^T": Gemm.dense(784, 512, 128, transpose_a=True),
    "128 x 784 x 512, B^T": Gemm.dense(128, 784, 512, transpose_b=True),
    "2048 x 256 x 1024": Gemm.dense(2048, 1024, 256),
    "512^3": Gemm.dense(512, 512, 512),
    "1024^3": Gemm.dense(1024, 1024, 1024),
}
CONVS = {
    "3x3, 64 -> 64, 56^2": Conv.same(4, 56, 64, 64, 3),
    "3x3, 128 -> 128, 28^2": Conv.same(4, 28, 128, 128, 3),
    "3x3, 256 -> 256, 14^2": Conv.same(4, 14, 256, 256, 3),
    "3x3, 512 -> 512, 7^2": Conv.same(4, 7, 512, 512, 3),
    "1x1, 256 -> 64, 56^2": Conv.same(4, 56, 256, 64, 1),
    "1x1, 64 -> 256, 56^2": Conv.same(4, 56, 64, 256, 1),
    "1x1, 1024 -> 256, 14^2": Conv.same(4, 14, 1024, 256, 1),
    "1x1 / 2, 256 -> 512, 56^2": Conv.same(4, 56, 256, 512, 1, 2),
    "7x7 / 2, 3 -> 64, 224^2": Conv.same(4, 224, 3, 64, 7, 2),
    "depthwise 3x3, 96, 56^2": Conv(4, (56, 56), 96, 96, (3, 3), (1, 1), ((1, 1),) * 2, (1, 1), 96),
}


def aligned(size: int, dtype: str = "float32") -> np.ndarray:
    """Memory that begins with a cache line, with normal numbers in it."""
    memory = np.zeros(size * 4 + 64, np.uint8)
    array = memory[-memory.ctypes.data % 64 :][: size * 4].view(dtype)
    array[:] = np.random.default_rng(0).standard_normal(size, "float32") if dtype == "float32" else 0
    return array


class Program:
    """A contraction as a step of a team: its phases, with barriers between them."""

    def __init__(self, emit: Callable[[Any, str], Any], plan: Any, sizes: tuple[int, int, int], team: Team) -> None:
        target = team_target
        module = ir.Module()
        module.triple = target.triple
        phases = emit(module, "product")
        assert tuple(phase.name for phase in phases) == phase_names("product", plan.phases)
        step = ir.Function(module, ir.FunctionType(ir.VoidType(), [I32, I32, PTR, PTR]), "step")
        tid, nthreads, arena, state = step.args
        builder = ir.IRBuilder(step.append_basic_block("entry"))
        pointers = [builder.load(builder.gep(arena, [I64(i)], source_etype=I64), typ=PTR) for i in range(4)]
        for i, phase in enumerate(phases):
            if i:
                emit_barrier(builder, state, nthreads)
            builder.call(phase, [*pointers, tid, nthreads])
        builder.ret_void()
        code = Object("step", compile_ir(str(module), target))
        self.library = link([code], team.runtime.imports)
        self.arrays = [aligned(max(1, size)) for size in sizes]
        self.arrays.append(aligned(plan.workspace_bytes(team.threads) // 4 + 16))
        self.arena = np.array([array.ctypes.data for array in self.arrays], np.int64)
        self.team, self.address = team, self.library.address("step")

    def __call__(self) -> None:
        self.team.run(self.address, self.arena.ctypes.data)


team_target: Target = host(())


def peak_program(team: Team) -> tuple[Program, int]:
    """The tile that large products get, over and over on the same operands."""
    tile = plan_gemm(Gemm.dense(960, 960, 960), team_target)
    rows, columns = tile.rows.size, tile.columns.size * tile.lanes
    depth = 24 * 1024 // (4 * (rows + columns)) // 16 * 16
    still = (0, 0)
    gemm = Gemm(
        rows,
        columns,
        depth,
        float32,
        Matrix(depth, 1, still),
        Matrix(columns, 1, still),
        Matrix(columns, 1, (1024, 0)),
        (team.threads, 4000),
    )
    plan = plan_gemm(gemm, team_target)
    sizes = (rows * depth, depth * columns, team.threads * 1024 + rows * columns)
    return Program(lambda module, name: emit_gemm(module, name, plan), plan, sizes, team), gemm.flops


def medians(calls: list[Callable[[], Any]], rounds: int, threads: int) -> list[float]:
    """Median seconds of each, taking turns."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, found in zip(calls, times, strict=True):
            start = clock()
            call()
            found.append(clock() - start)
    return [statistics.median(found) for found in times]


def report(name: str, labels: list[str], flops: list[int], seconds: list[float]) -> None:
    rates = [count / second / 1e9 for count, second in zip(flops, seconds, strict=True)]
    cells = "".join(f"  {label} {rate:5.0f}" for label, rate in zip(labels, rates, strict=True))
    print(f"{name:<26}{cells}", flush=True)


def time_gemms(team: Team, rounds: int) -> None:
    torch = _torch(team.threads)
    peak, peak_flops = peak_program(team)
    for name, gemm in GEMMS.items():
        plan = plan_gemm(gemm, team_target)
        sizes = (gemm.m * gemm.k, gemm.k * gemm.n, gemm.m * gemm.n)
        ours = Program(lambda module, symbol, plan=plan: emit_gemm(module, symbol, plan), plan, sizes, team)
        a = ours.arrays[0].reshape((gemm.k, gemm.m)).T if gemm.a.row == 1 else ours.arrays[0].reshape(gemm.m, gemm.k)
        b = ours.arrays[1].reshape((gemm.n, gemm.k)).T if gemm.b.row == 1 else ours.arrays[1].reshape(gemm.k, gemm.n)
        out = np.empty((gemm.m, gemm.n), "float32")
        calls: list[Callable[[], Any]] = [peak, ours, lambda a=a, b=b, out=out: np.matmul(a, b, out=out)]
        labels = ["peak", "ours", "NumPy"]
        if torch:
            x, y, z = (torch.from_numpy(array) for array in (a, b, out))
            calls.append(lambda x=x, y=y, z=z: torch.matmul(x, y, out=z))
            labels.append("PyTorch")
        flops = [peak_flops, *[gemm.flops] * (len(calls) - 1)]
        report(name, labels, flops, medians(calls, rounds, team.threads))


def time_convs(team: Team, rounds: int) -> None:
    torch = _torch(team.threads)
    peak, peak_flops = peak_program(team)
    for name, conv in CONVS.items():
        x = (conv.images, *conv.sizes, conv.channels)
        kernel = (*conv.window, conv.channels // conv.groups, conv.filters)
        y = (conv.images, *conv.points, conv.filters)
        planned: list[tuple[str, Any, Any, tuple[tuple[int, ...], ...]]] = [
            ("y", plan_conv, emit_conv, (x, kernel, y)),
            ("dx", plan_conv_input_grad, emit_conv, (y, kernel, x)),
            ("dk", plan_conv_kernel_grad, emit_conv_kernel_grad, (x, y, kernel)),
        ]
        calls, labels = [peak], ["peak"]
        for label, plan_it, emit, shapes in planned:
            plan = plan_it(conv, team_target)
            sizes = tuple(int(np.prod(shape)) for shape in shapes)
            write = lambda module, symbol, plan=plan, emit=emit: emit(module, symbol, plan)  # noqa: E731
            calls.append(Program(write, plan, sizes, team))  # type: ignore[arg-type]
            labels.append(label)
        if torch:
            calls += torch_convs(torch, conv, x, kernel, y)
            labels += ["| PyTorch y", "dx", "dk"]
        flops = [peak_flops, *[conv.flops] * (len(calls) - 1)]
        report(name, labels, flops, medians(calls, rounds, team.threads))


def torch_convs(torch: Any, conv: Conv, x: Any, kernel: Any, y: Any) -> list[Any]:
    """The same three in PyTorch, channels last."""
    last = torch.channels_last
    signal, cotangent = (torch.randn(shape).permute(0, 3, 1, 2) for shape in (x, y))
    weights = torch.randn(kernel).permute(3, 2, 0, 1).contiguous(memory_format=last)
    padding = [low for low, _ in conv.padding]

    def forward() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(signal, weights, stride=conv.strides, padding=padding, groups=conv.groups)

    def backward(*wanted: bool) -> Any:
        geometry = (list(conv.strides), padding, [1, 1], False, [0, 0], conv.groups)
        with torch.inference_mode():
            return torch.ops.aten.convolution_backward(cotangent, signal, weights, None, *geometry, list(wanted))

    return [forward, lambda: backward(True, False, False), lambda: backward(False, True, False)]


def _torch(threads: int) -> Any:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(threads)
    return torch


def main() -> None:
    global team_target
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="gemm, conv; both by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", action="append", default=[], help="a feature that the CPU shall not have")
    options = parser.parse_args()
    if len(options.threads) > 1:  # libraries read how many threads they may have when they are loaded
        arguments = [*options.what, "--rounds", str(options.rounds)]
        arguments += [word for feature in options.without for word in ("--without", feature)]
        for threads in options.threads:
            _again(threads, arguments)
        return
    (threads,) = options.threads
    if os.environ.get("OMP_NUM_THREADS") != str(threads):
        _again(threads, sys.argv[1:])
        return
    team_target = host(options.without)
    team = Team(threads, default_runtime())
    print(f"GFLOP/s, {threads} thread{'s' if threads > 1 else ''}, {team_target.cpu}")
    if not options.what or "gemm" in options.what:
        time_gemms(team, options.rounds)
    if not options.what or "conv" in options.what:
        time_convs(team, options.rounds)
    team.close()


def _again(threads: int, arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, __file__, *arguments, "--threads", str(threads)], env=environment, check=True)


if __name__ == "__main__":
    main()
