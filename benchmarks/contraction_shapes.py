"""The contractions of known networks, one by one: share of the micro-kernel's rate, and what compiling them costs.

    python benchmarks/contraction_shapes.py [resnet transformer lstm mlp lenet depthwise single] [--below 75]
    python benchmarks/contraction_shapes.py --compile [resnet …]

One thread, processor time, medians; `peak` – the micro-kernel on data in the first-level cache – is measured in the
same rounds. Each line: GFLOP/s, per cent of the peak, and GB/s over operands and result, each counted once: what is
small in the first is bounded by the second. `x 3` says how often the network has it; the last line weighs by that.
`--compile` compiles everything that the chosen networks need, from nothing, in this process.

On one core of a Sapphire Rapids beside busy neighbours (peak 175 to 205 GFLOP/s), per cent of the peak, all in all:
ResNet-50 88, transformer 89, LSTM 83, MLP 86, LeNet 57, depthwise 13, single samples at 15 to 26 GB/s of weights.
Compiling ResNet-50's 71 contractions: 1.2 s, 33 micro-kernels, copies and 119 phases. What was tried:

* Steps of micro-kernels as arguments, not constants: as fast (14 x 2 vectors: 207 to 209), and a quarter as many. LLVM
  must not see that the pointers to rows belong together: it chains or spills them (28 x 1: 107; opaque: 174 of 183).
* Gradients of weights (both operands with the reduction across rows): whole reduction at once 36 to 53 per cent; blocks
  of 128 with private copies of both 80 to 86. A packed tile by tile instead: no better, its copy costs more.
* Few rows by large weights: blocks of 32 of the reduction over whole rows of B: 19 to 44 GFLOP/s for 8 x 4096 x 4096.
* Strided convolutions with large kernels: bands of up to a megabyte instead of a quarter: 50 to 75 per cent. Copying
  bands for the sake of their steps alone (1 x 1, stride 2): slower.
* Taps that meet only the border left out of input gradients (LeNet's second: 28 to 39 per cent, zeros counted);
  neighbouring taps of few channels as rows of one product (LeNet's first kernel gradient: 17 to 35).
* Epilogues on a tile on the stack instead of in registers, so that one micro-kernel serves all: scale and ReLU cost 0
  to 10 per cent for k = 64 and nothing for k = 256, GELU 0.5 ns for each element.
* Dot products of bfloat16: 91 to 104 where float32 has 157 to 167 on this CPU; so they are for AMD's alone.

Open: what comes from memory is copied while nothing is computed (pointwise kernel gradients, 60 to 75 per cent);
depthwise convolutions reach a fifth of the peak, two loads for each multiply-add; 20 columns fill 2 vectors of 16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from contraction import I32, I64, PTR, aligned, medians, peak_program
from llvmlite import ir

from highlevel.backends.native.cache import Object, Unit
from highlevel.backends.native.codegen.targets import compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.devices.team import Team, default_runtime, emit_barrier
from highlevel.backends.native.lower.contraction import contraction_task
from highlevel.backends.native.lower.task import THREADS, TID, WORKSPACE, Task
from highlevel.backends.native.schedule.contraction import Contraction, View
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.ir import REGISTRY, Node, Spec
from highlevel.ir.dtypes import as_dtype


@dataclass(frozen=True)
class Shape:
    """A contraction, and how often there is one."""

    name: str
    contraction: Contraction
    count: int = 1


# Contractions --------------------------------------------------------------------------------------------------------
def product(name: str, a: View, b: View, c: View, count: int = 1) -> Shape:
    primitive = REGISTRY["matmul"]
    node = Node(primitive, (), {}, (primitive.infer(Spec(a.shape, a.dtype), Spec(b.shape, b.dtype)),), 0)
    return Shape(name, Contraction(node, (a, b), c), count)


def matrix(letter: str, shape: Sequence[int], dtype: str, *, transposed: bool = False) -> View:
    """A whole buffer, or its last axes exchanged."""
    if not transposed:
        return View.whole(Buffer(letter, tuple(shape), as_dtype(dtype)))
    *batch, m, n = shape
    whole = View.whole(Buffer(letter, (*batch, n, m), as_dtype(dtype)))
    return View(whole.buffer, tuple(shape), (*whole.strides[:-2], 1, m))


def dense(
    name: str, m: int, k: int, n: int, count: int = 1, dtype: str = "float32", *, first: bool = False
) -> Iterator[Shape]:
    """A layer of (k, n) weights on m rows, and both gradients (a first layer has one)."""
    x, w, y = (matrix(letter, shape, dtype) for letter, shape in (("a", (m, k)), ("b", (k, n)), ("c", (m, n))))
    yield product(f"{name} {m} x {k} x {n}", x, w, y, count)
    if not first:
        g, wt, dx = matrix("a", (m, n), dtype), matrix("b", (n, k), dtype, transposed=True), matrix("c", (m, k), dtype)
        yield product(f"{name} {m} x {n} x {k}, dx", g, wt, dx, count)
    xt, g, dw = matrix("a", (k, m), dtype, transposed=True), matrix("b", (m, n), dtype), matrix("c", (k, n), dtype)
    yield product(f"{name} {k} x {m} x {n}, dw", xt, g, dw, count)


def heads(letter: str, batch: int, length: int, many: int, size: int, dtype: str, *, transposed: bool = False) -> View:
    """(batch, heads, length, size) in a buffer (batch, length, heads, size), or its last axes exchanged."""
    buffer = Buffer(letter, (batch, length, many, size), as_dtype(dtype))
    step = many * size
    if transposed:
        return View(buffer, (batch, many, size, length), (length * step, size, 1, step))
    return View(buffer, (batch, many, length, size), (length * step, size, step, 1))


def attention(batch: int, length: int, many: int, size: int, count: int, dtype: str = "float32") -> Iterator[Shape]:
    """Scores and contexts, and their gradients: keys and queries where the projection left them."""
    at = (batch, length, many, size, dtype)
    square = (batch, many, length, length)
    s, name = f"{batch * many} x", f"{length} x {size} x {length}"
    whole = lambda letter: matrix(letter, square, dtype)  # noqa: E731
    flipped = lambda letter: matrix(letter, square, dtype, transposed=True)  # noqa: E731
    yield product(f"{s} {name}, scores", heads("a", *at), heads("b", *at, transposed=True), whole("c"), 2 * count)
    name = f"{length} x {length} x {size}"
    yield product(f"{s} {name}, context", whole("a"), heads("b", *at), heads("c", *at), 2 * count)
    yield product(f"{s} {name}, dk dv", flipped("a"), heads("b", *at), heads("c", *at), 2 * count)


def conv(
    name: str, images: int, size: int, channels: int, filters: int, window: int, stride: int = 1, count: int = 1,
    *, groups: int = 1, valid: bool = False, first: bool = False, train: bool = True, dtype: str = "float32",
) -> Iterator[Shape]:  # fmt: skip
    """A convolution and both gradients."""
    pad = (0, 0) if valid else ((window - 1) // 2, window - 1 - (window - 1) // 2)
    attrs = {"strides": (stride,) * 2, "padding": (pad,) * 2, "dilation": (1, 1), "groups": groups}
    x = Spec((images, size, size, channels), as_dtype(dtype))
    kernel = Spec((window, window, channels // groups, filters), as_dtype(dtype))
    y = REGISTRY["conv"].infer(x, kernel, **attrs)
    cases = [("conv", "y", x, kernel, y, {})]
    if train and not first:
        cases.append(("conv_input_grad", "dx", y, kernel, x, {"shape": x.shape}))
    if train:
        cases.append(("conv_kernel_grad", "dk", x, y, kernel, {"shape": kernel.shape}))
    title = f"{name} {window}x{window}{f' / {stride}' if stride > 1 else ''}, {channels} -> {filters}, {size}^2"
    for kind, label, a, b, c, more in cases:
        node = Node(REGISTRY[kind], (), {**attrs, **more}, (c,), 0)
        views = [
            View.whole(Buffer(letter, spec.shape, spec.dtype)) for letter, spec in zip("abc", (a, b, c), strict=True)
        ]
        yield Shape(f"{title}, {label}", Contraction(node, (views[0], views[1]), views[2]), count)


def resnet(images: int = 8, dtype: str = "float32") -> Iterator[Shape]:
    """ResNet-50 at 224 x 224."""
    yield from conv("", images, 224, 3, 64, 7, 2, first=True, dtype=dtype)
    for size, channels, window, stride, filters, count in (
        (56, 64, 1, 1, 64, 1), (56, 64, 3, 1, 64, 3), (56, 64, 1, 1, 256, 4), (56, 256, 1, 1, 64, 2),
        (56, 256, 1, 1, 128, 1), (56, 128, 3, 2, 128, 1), (28, 128, 1, 1, 512, 4), (56, 256, 1, 2, 512, 1),
        (28, 512, 1, 1, 128, 3), (28, 128, 3, 1, 128, 3), (28, 512, 1, 1, 256, 1), (28, 256, 3, 2, 256, 1),
        (14, 256, 1, 1, 1024, 6), (28, 512, 1, 2, 1024, 1), (14, 1024, 1, 1, 256, 5), (14, 256, 3, 1, 256, 5),
        (14, 1024, 1, 1, 512, 1), (14, 512, 3, 2, 512, 1), (7, 512, 1, 1, 2048, 3), (14, 1024, 1, 2, 2048, 1),
        (7, 2048, 1, 1, 512, 2), (7, 512, 3, 1, 512, 2),
    ):  # fmt: skip
        yield from conv("", images, size, channels, filters, window, stride, count, dtype=dtype)
    yield from dense("", images, 2048, 1000, dtype=dtype)


def transformer(dtype: str = "float32") -> Iterator[Shape]:
    """Four encoder layers: d = 256, four heads, ff = 1024, 16 sequences of 128."""
    yield from dense("", 2048, 256, 256, 16, dtype)
    yield from attention(16, 128, 4, 64, 4, dtype)
    yield from dense("", 2048, 256, 1024, 4, dtype)
    yield from dense("", 2048, 1024, 256, 4, dtype)


def lstm() -> Iterator[Shape]:
    """128 units on 32 sequences of 100 steps."""
    yield from dense("all steps:", 3200, 128, 512)
    forward, backward, _ = dense("one step:", 32, 128, 512)
    yield Shape(forward.name, forward.contraction, 100)
    yield Shape(backward.name, backward.contraction, 100)


def mlp() -> Iterator[Shape]:
    yield from dense("", 128, 784, 512, first=True)
    yield from dense("", 128, 512, 512)
    yield from dense("", 128, 512, 10)


def lenet() -> Iterator[Shape]:
    yield from conv("", 64, 28, 1, 20, 5, valid=True, first=True)
    yield from conv("", 64, 12, 20, 50, 5, valid=True)
    yield from dense("", 64, 800, 500)
    yield from dense("", 64, 500, 10)


def depthwise() -> Iterator[Shape]:
    """MobileNet's."""
    for size, channels, stride in ((112, 32, 1), (112, 64, 2), (56, 128, 1), (28, 256, 1), (14, 512, 1), (7, 1024, 1)):
        yield from conv("", 4, size, channels, channels, 3, stride, groups=channels)


def single() -> Iterator[Shape]:
    """Few rows or columns: one sample, one result."""
    for m in (1, 2, 4, 8, 16):
        yield next(dense("", m, 2048, 1000))
        yield next(dense("", m, 4096, 4096))
    yield next(dense("", 1, 784, 512))
    yield from dense("", 256, 512, 1)
    yield from conv("", 1, 14, 256, 256, 3, train=False)
    yield from conv("", 1, 7, 512, 512, 3, train=False)
    yield from conv("", 1, 7, 2048, 512, 1, train=False)


NETWORKS: dict[str, Callable[[], Iterator[Shape]]] = {
    "resnet": resnet,
    "transformer": transformer,
    "lstm": lstm,
    "mlp": mlp,
    "lenet": lenet,
    "depthwise": depthwise,
    "single": single,
    "resnet_bfloat16": lambda: resnet(dtype="bfloat16"),
    "transformer_bfloat16": lambda: transformer("bfloat16"),
}


# Running -------------------------------------------------------------------------------------------------------------
def units_of(task: Task) -> dict[str, Unit]:
    return {unit.symbol: unit for unit in (*(call.unit for call in task.phases), *task.helpers)}


class Program:
    """A task as a step of a team."""

    compiled: dict[str, bytes] = {}  # noqa: RUF012

    def __init__(self, c: Contraction, team: Team) -> None:
        target = host()
        task = contraction_task(c, target)
        module = ir.Module()
        module.triple = target.triple
        step = ir.Function(module, ir.FunctionType(ir.VoidType(), [I32, I32, PTR, PTR]), "step")
        tid, nthreads, arena, state = step.args
        builder = ir.IRBuilder(step.append_basic_block("entry"))
        names = [c.operands[0].buffer.name, c.operands[1].buffer.name, c.result.buffer.name, WORKSPACE]
        slots = [builder.load(builder.gep(arena, [I64(i)], source_etype=I64), typ=PTR) for i in range(4)]
        values: dict[Any, Any] = {**dict(zip(names, slots, strict=True)), TID: tid, THREADS: nthreads}
        for i, call in enumerate(task.phases):
            if i:
                emit_barrier(builder, state, nthreads)
            arguments = [values[argument] for argument in call.arguments]
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            function = module.globals.get(call.unit.symbol) or ir.Function(module, kind, call.unit.symbol)
            builder.call(function, arguments)
        builder.ret_void()
        objects = [Object("step", compile_ir(str(module), target))]
        for symbol, unit in units_of(task).items():
            if symbol not in self.compiled:
                self.compiled[symbol] = compile_ir(unit.job().text, target, unit.level)
            objects.append(Object(symbol, self.compiled[symbol]))
        self.library = link(objects, team.runtime.imports)
        buffers = [view.buffer for view in (*c.operands, c.result)]
        self.arrays = [aligned(int(np.prod(buffer.shape)) * buffer.dtype.size_bytes // 4 + 1) for buffer in buffers]
        for array, buffer in zip(self.arrays, buffers, strict=True):
            if buffer.dtype == "bfloat16":  # halves of float32 would be denormal now and then, which takes its time
                array.view("uint32")[:] &= 0xFFFF0000
        self.arrays.append(aligned(task.workspace_bytes(team.threads) // 4 + 16))
        self.arena = np.array([array.ctypes.data for array in self.arrays], np.int64)
        self.team, self.address = team, self.library.address("step")
        self.flops = task.flops
        self.bytes = sum(int(np.prod(buffer.shape)) * buffer.dtype.size_bytes for buffer in buffers)

    def __call__(self) -> None:
        self.team.run(self.address, self.arena.ctypes.data)


def time_network(name: str, team: Team, rounds: int, below: float) -> None:
    peak, peak_flops = peak_program(team)
    total, ideal = 0.0, 0.0
    print(name)
    for shape in NETWORKS[name]():
        program = Program(shape.contraction, team)
        again = max(1, int(2e8 // max(1, program.flops)))

        def call(program: Program = program, again: int = again) -> None:
            for _ in range(again):
                program()

        peak_seconds, seconds = medians([peak, call], rounds, 1)
        seconds /= again
        best = peak_flops / peak_seconds
        total += shape.count * seconds
        ideal += shape.count * program.flops / best
        percent = 100 * program.flops / seconds / best
        if percent < below:
            rate, bandwidth = program.flops / seconds / 1e9, program.bytes / seconds / 1e9
            milliseconds = f"{seconds * 1e3:8.3f} ms x {shape.count:<3}"
            print(
                f"  {shape.name:<40}{milliseconds} {rate:6.1f} GFLOP/s {percent:5.0f} % {bandwidth:6.1f} GB/s",
                flush=True,
            )
    print(
        f"  all: {total * 1e3:.1f} ms, {100 * ideal / total:.0f} % of the peak rate of {best / 1e9:.0f} GFLOP/s",
        flush=True,
    )


def time_compilation(names: Sequence[str]) -> None:
    target = host()
    for name in names:
        shapes = list(NETWORKS[name]())
        contraction_task(shapes[0].contraction, target)
        start = time.process_time()
        found: dict[str, tuple[str, Unit]] = {}
        for shape in shapes:
            task = contraction_task(shape.contraction, target)
            for call in task.phases:
                found.setdefault(call.unit.symbol, ("phases", call.unit))
            for unit in task.helpers:
                kind = next((kind for kind in ("tile", "copy", "finish") if f"{kind}_" in unit.text), "helpers")
                found.setdefault(unit.symbol, (kind, unit))
        written = time.process_time() - start
        report: dict[str, list[float]] = {}
        for kind, unit in found.values():
            start = time.process_time()
            code = compile_ir(unit.job().text, target, unit.level)
            row = report.setdefault(kind, [0, 0.0, 0, 0])
            row[0] += 1
            row[1] += time.process_time() - start
            row[2] += len(code)
            row[3] += len(unit.text)
        seconds = sum(row[1] for row in report.values())
        print(f"{name}: {len(shapes)} contractions, IR written in {written:.2f} s, compiled in {seconds:.2f} s")
        for kind, (count, spent, size, text) in sorted(report.items()):
            print(
                f"  {kind:<8} {count:4} units {spent:6.2f} s {size / 1e3:8.0f} kB of objects {text / 1e3:8.0f} kB of IR"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", default=["resnet", "transformer", "lstm", "mlp", "lenet", "depthwise", "single"]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--below", type=float, default=1000, help="print only what is slower than so many per cent")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.compile:
        time_compilation(options.what)
        return
    team = Team(1, default_runtime())
    for name in options.what:
        time_network(name, team, options.rounds, options.below)
    team.close()


if __name__ == "__main__":
    main()
