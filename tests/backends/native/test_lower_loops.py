"""Loop kernels as tasks, run phase by phase, against their definition."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from highlevel import ops
from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen import indexing as ix
from highlevel.backends.native.codegen.loops import streams
from highlevel.backends.native.codegen.targets import Target, aarch64, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.lower.loops import loop_task
from highlevel.backends.native.lower.task import BEGIN, END, WORKSPACE, Task
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import (
    Apply,
    Buffer,
    Choose,
    Load,
    LoopKernel,
    Number,
    Output,
    Stage,
    Term,
    Total,
    evaluate,
    walk,
)
from highlevel.backends.native.schedule.split import style_of
from highlevel.ir import REGISTRY, DType, Spec, as_dtype, trace_graph, tree

FLOAT = as_dtype("float32")
Arrays = dict[str, np.ndarray]


# Kernels -------------------------------------------------------------------------------------------------------------
def term(name: str, *operands: Term) -> Term:
    dtype = REGISTRY[name].infer(*(Spec((), operand.dtype) for operand in operands)).dtype
    return Apply(REGISTRY[name], operands, (), dtype)


def number(value: float) -> Term:
    return Number(value, FLOAT)


def at(name: str, shape: tuple[int, ...], *indices: ix.Expr, dtype: DType = FLOAT) -> Load:
    return Load(name, ix.ravel(indices, shape), dtype)


def output(name: str, shape: tuple[int, ...], value: Term, *indices: ix.Expr, per_element: bool = True) -> Output:
    return Output(Buffer(name, shape, value.dtype), ix.ravel(indices, shape), value, per_element)


def batch_norm(count: int, channels: int, elements: bool = True) -> LoopKernel:
    """Mean, variance and normalised values of (count, channels), each total needing the one before."""
    n, c = ix.var("n", count), ix.var("c", channels)
    x = at("x", (count, channels), n, c)
    mean = term("mul", Total("t0", FLOAT), number(1.0 / count))
    centred = term("sub", x, mean)
    variance = term("mul", Total("t1", FLOAT), number(1.0 / count))
    factor = term("mul", term("rsqrt", term("add", variance, number(1e-3))), at("g", (channels,), c))
    scaled = term("mul", centred, factor)
    stages = (
        Stage("t0", "sum", x, FLOAT, FLOAT),
        Stage("t1", "sum", term("mul", centred, centred), FLOAT, FLOAT, "t0"),
    )
    outputs = [output("mean", (channels,), mean, c, per_element=False)]
    outputs.append(output("var", (channels,), variance, c, per_element=False))
    if elements:
        outputs.append(output("y", (count, channels), scaled, n, c))
    return LoopKernel("bn", (("c", channels),), (("n", count),), stages, tuple(outputs))


def both_totals(count: int, channels: int) -> LoopKernel:
    """Two totals in one walk, and a maximum: the gradient of a batch normalisation needs such."""
    n, c = ix.var("n", count), ix.var("c", channels)
    x, g = (at(name, (count, channels), n, c) for name in "xg")
    stages = (
        Stage("t0", "sum", g, FLOAT, FLOAT),
        Stage("t1", "sum", term("mul", x, g), FLOAT, FLOAT),
        Stage("t2", "max", x, FLOAT, FLOAT),
    )
    outputs = tuple(output(f"y{i}", (channels,), Total(f"t{i}", FLOAT), c, per_element=False) for i in range(3))
    return LoopKernel("sums", (("c", channels),), (("n", count),), stages, outputs)


def loss(count: int) -> LoopKernel:
    """A softmax over everything: two levels of totals without rows."""
    i = ix.var("i", count)
    x = at("x", (count,), i)
    e = term("exp", term("sub", x, Total("t0", FLOAT)))
    stages = (Stage("t0", "max", x, FLOAT, FLOAT), Stage("t1", "sum", e, FLOAT, FLOAT))
    outputs = (
        output("y", (count,), term("div", e, Total("t1", FLOAT)), i),
        output("s", (), Total("t1", FLOAT), per_element=False),
    )
    return LoopKernel("loss", (), (("i", count),), stages, outputs)


def adam(count: int) -> LoopKernel:
    """Three outputs over the same elements, which share terms."""
    i = ix.var("i", count)
    m, v, w, g = (at(name, (count,), i) for name in "mvwg")
    m1 = term("add", term("mul", m, number(0.9)), term("mul", g, number(0.1)))
    v1 = term("add", term("mul", v, number(0.99)), term("mul", term("mul", g, g), number(0.01)))
    v1_too = term("add", term("mul", v, number(0.99)), term("mul", term("mul", g, g), number(0.01)))
    w1 = term("sub", w, term("div", m1, term("add", term("sqrt", v1_too), number(1e-7))))
    outputs = (output("m1", (count,), m1, i), output("v1", (count,), v1, i), output("w1", (count,), w1, i))
    return LoopKernel("adam", (("i", count),), (), (), outputs)


def pooling(batch: int, size: int, channels: int, kind: str = "max") -> LoopKernel:
    """3 × 3 windows with stride 2 and padding 1: taps are columns."""
    out = (size + 1) // 2
    shape, result = (batch, size, size, channels), (batch, out, out, channels)
    n, y, x, c = (ix.var(name, extent) for name, extent in zip("nyxc", result, strict=True))
    ky, kx = ix.var("ky", 3), ix.var("kx", 3)
    h, w = (ix.add(ix.mul(i, 2), k, ix.const(-1)) for i, k in ((y, ky), (x, kx)))
    outside = number(-math.inf if kind == "max" else 0.0)
    conditions = tuple(bound for bound in (ix.bound(h, 0, size), ix.bound(w, 0, size)) if not bound.always)
    tap = Choose(conditions, at("x", shape, n, h, w, c), outside, FLOAT)
    rows = tuple(zip("nyxc", result, strict=True))
    stage = Stage("t0", kind, tap, FLOAT, FLOAT)
    outputs = (output("y", result, Total("t0", FLOAT), n, y, x, c, per_element=False),)
    return LoopKernel("pool", rows, (("ky", 3), ("kx", 3)), (stage,), outputs)


def layer_norm(rows: int, columns: int) -> LoopKernel:
    r, c = ix.var("r", rows), ix.var("c", columns)
    x = at("x", (rows, columns), r, c)
    centred = term("sub", x, term("mul", Total("t0", FLOAT), number(1.0 / columns)))
    stages = (
        Stage("t0", "sum", x, FLOAT, FLOAT),
        Stage("t1", "sum", term("mul", centred, centred), FLOAT, FLOAT, "t0"),
    )
    y = term("mul", term("div", centred, term("sqrt", Total("t1", FLOAT))), at("g", (columns,), c))
    outputs = (
        output("y", (rows, columns), y, r, c),
        output("mean", (rows,), Total("t0", FLOAT), r, per_element=False),
    )
    return LoopKernel("ln", (("r", rows),), (("c", columns),), stages, outputs)


def layer_norm_parameters(rows: int, columns: int) -> LoopKernel:
    """The gradients of scale and offset: sums over rows, with factors that are the same for a whole row."""
    r, c = ix.var("r", rows), ix.var("c", columns)
    g, x = (at(name, (rows, columns), r, c) for name in "gx")
    mean, factor = (at(name, (rows,), r) for name in ("mean", "factor"))
    normal = term("mul", term("sub", x, mean), factor)
    stages = Stage("t0", "sum", term("mul", g, normal), FLOAT, FLOAT), Stage("t1", "sum", g, FLOAT, FLOAT)
    outputs = tuple(output(f"y{i}", (columns,), Total(f"t{i}", FLOAT), c, per_element=False) for i in range(2))
    return LoopKernel("ln_parameters", (("c", columns),), (("r", rows),), stages, outputs)


def relu_gradient(count: int, channels: int, along: bool = False, squares: bool = False) -> LoopKernel:
    """A gradient that is stored and totalled; and the squares of what is left when a total is taken off x."""
    n, c = ix.var("n", count), ix.var("c", channels)
    shape, where = ((channels, count), (c, n)) if along else ((count, channels), (n, c))
    g, x = (at(name, shape, *where) for name in "gx")
    dx = term("mul", g, term("maximum", term("sign", x), number(0.0)))
    rest = term("sub", x, Total("t0", FLOAT))
    stages = [Stage("t0", "sum", dx, FLOAT, FLOAT), Stage("t1", "sum", term("mul", rest, rest), FLOAT, FLOAT)]
    outputs = [output("dx", shape, dx, *where)]
    outputs += [output(s.name, (channels,), Total(s.name, FLOAT), c, per_element=False) for s in stages]
    wanted = 2 if squares else 1
    return LoopKernel("relu", (("c", channels),), (("n", count),), tuple(stages[:wanted]), tuple(outputs[: wanted + 1]))


def first_axis_softmax(rows: int, columns: int) -> LoopKernel:
    """Few columns, rows side by side, outputs per element."""
    r, c = ix.var("r", rows), ix.var("c", columns)
    x = at("x", (columns, rows), c, r)
    e = term("exp", term("sub", x, Total("t0", FLOAT)))
    stages = (Stage("t0", "max", x, FLOAT, FLOAT), Stage("t1", "sum", e, FLOAT, FLOAT))
    outputs = (output("y", (columns, rows), term("div", e, Total("t1", FLOAT)), c, r),)
    return LoopKernel("softmax", (("r", rows),), (("c", columns),), stages, outputs)


KERNELS: dict[str, LoopKernel] = {
    "batch norm": batch_norm(8 * 14 * 14, 24),
    "batch norm, 3 channels": batch_norm(8 * 49 * 37, 3),
    "batch norm, a prime number of images": batch_norm(1009, 40),
    "batch norm, 700 channels": batch_norm(99, 700),
    "batch norm, small": batch_norm(5, 17),
    "batch norm, statistics": batch_norm(8 * 49, 130, elements=False),
    "several totals": both_totals(8 * 28 * 28, 33),
    "several totals, 5000 columns": both_totals(40, 5000),
    "loss": loss(100_003),
    "loss, even": loss(1 << 17),
    "loss, small": loss(10),
    "adam": adam(40_001),
    "max pooling": pooling(2, 13, 20),
    "sums of windows": pooling(3, 8, 64, "sum"),
    "max pooling, one channel": pooling(2, 13, 1),
    "layer norm": layer_norm(70, 100),
    "layer norm, few rows": layer_norm(3, 40_000),
    "layer norm, ten columns": layer_norm(500, 10),
    "layer norm, parameters": layer_norm_parameters(700, 96),
    "gradient": relu_gradient(2048, 70),
    "gradient, a prime number of images": relu_gradient(1009, 40),
    "gradient of 64 channels": relu_gradient(2048, 64),
    "gradient, small": relu_gradient(40, 33),
    "gradient, few": relu_gradient(7, 33),
    "gradient along rows": relu_gradient(1500, 40, along=True),
    "gradient along three rows": relu_gradient(1 << 14, 3, along=True),
    "gradient, then squares": relu_gradient(2048, 70, squares=True),
    "gradient, then squares, small": relu_gradient(40, 33, squares=True),
    "gradient, then squares along rows": relu_gradient(99, 40, along=True, squares=True),
    "softmax of a first axis": first_axis_softmax(700, 10),
    "softmax of a longer first axis": first_axis_softmax(1200, 40),
}  # fmt: skip


def arrays_for(kernel: LoopKernel, rng: np.random.Generator) -> Arrays:
    """Arrays as large as the buffers: what is read is drawn, what is written is not what is expected."""
    arrays: Arrays = {}
    for name, extent in extents(kernel).items():
        arrays[name] = rng.standard_normal(extent).astype("float32")
        if name == "v":
            arrays[name] = np.abs(arrays[name])
    for out in kernel.outputs:
        arrays[out.buffer.name] = np.full(out.buffer.shape, 77, out.buffer.dtype.numpy)
    return arrays


def extents(kernel: LoopKernel) -> dict[str, int]:
    """How large buffers have to be that are read."""
    found: dict[str, int] = {}
    terms = [*(stage.term for stage in kernel.stages), *(out.term for out in kernel.outputs)]
    for node in (node for root in terms for node in walk(root)):
        if isinstance(node, Load):
            found[node.buffer] = max(found.get(node.buffer, 1), node.place.high + 1)
    return found


# Running -------------------------------------------------------------------------------------------------------------
def run(task: Task, buffers: Arrays, parts: int = 1) -> None:
    """Runs the phases one after the other, each cut into as many shares as there would be threads, the last first."""
    if not task.phases:
        return
    units = dict.fromkeys(call.unit for call in task.phases)
    library = link([Object(unit.symbol, compile_ir(unit.job().text, unit.target, unit.level)) for unit in units])
    workspace = np.full(task.workspace_bytes(parts) + 64, 0x7F, np.uint8)
    workspace = workspace[-workspace.ctypes.data % 64 :]
    for call in task.phases:
        types = [ctypes.c_int64 if a in (BEGIN, END) else ctypes.c_void_p for a in call.arguments]
        function = library.function(call.unit.symbol, *types)
        blocks = -(-call.units // call.grain)
        cuts = [min(blocks * part // parts * call.grain, call.units) for part in range(parts + 1)]
        for begin, end in [(0, call.units)] if call.serial else reversed(list(itertools.pairwise(cuts))):
            known = {BEGIN: begin, END: end, WORKSPACE: workspace.ctypes.data}
            function(*(known[a] if a in known else buffers[a].ctypes.data for a in call.arguments))  # type: ignore[index]


def task_of(kernel: LoopKernel, target: Target | None = None) -> Task:
    return loop_task(kernel, dict.fromkeys(kernel.reads, FLOAT), target or host())


def check(kernel: LoopKernel, rng: np.random.Generator, target: Target | None = None) -> None:
    """Values as defined, and the same bits for any cut of the work."""
    arrays = arrays_for(kernel, rng)
    task = task_of(kernel, target)
    expected = {name: array.copy() for name, array in arrays.items()}
    evaluate(kernel, expected)
    first: Arrays = {}
    for parts in (1, 2, 5):
        found = {name: array.copy() for name, array in arrays.items()}
        run(task, found, parts)
        for out in kernel.outputs:
            name = out.buffer.name
            if parts == 1:
                np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-4, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], first[name], err_msg=name)
        first = first or found


@pytest.mark.parametrize("name", KERNELS)
def test_tasks_do_what_kernels_mean_for_any_number_of_threads(name: str, rng: np.random.Generator) -> None:
    check(KERNELS[name], rng)


MOVEMENTS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "transposed": (lambda x: ops.transpose(x), [(37, 70)]),
    "transposed, whole squares": (lambda x: ops.transpose(x), [(64, 128)]),
    "channels last": (lambda x: ops.transpose(x, (0, 2, 3, 1)), [(2, 40, 9, 10)]),
    "channels first": (lambda x: ops.transpose(x, (0, 3, 1, 2)), [(2, 9, 11, 33)]),
    "turned and added": (lambda x, y: ops.transpose(x) + y + ops.transpose(x), [(40, 50), (50, 40)]),
    "turned in two ways": (
        lambda x, y: ops.transpose(x, (2, 1, 0)) + ops.transpose(y, (0, 2, 1)), [(17, 18, 19), (19, 17, 18)]
    ),
    "large, few images": (lambda x, y: ops.transpose(x, (0, 2, 1)) + y, [(3, 64, 640), (3, 640, 64)]),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVEMENTS)
@pytest.mark.parametrize("without", [(), ("avx512f",)], ids=["host", "no AVX-512"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
def test_movements(name: str, dtype: str, without: tuple[str, ...], rng: np.random.Generator) -> None:
    function, shapes = MOVEMENTS[name]
    graph, _ = trace_graph(
        lambda *symbols: tree.leaves(function(*symbols)), [Spec(shape, as_dtype(dtype)) for shape in shapes]
    )
    (kernel,) = plan_fusion(graph).kernels
    arrays = {f"in{i}": rng.integers(-9, 9, shape).astype(as_dtype(dtype).numpy) for i, shape in enumerate(shapes)}
    task = loop_task(kernel, dict.fromkeys(kernel.reads, as_dtype(dtype)), host(without))
    for parts in (1, 3):
        (out,) = kernel.outputs
        found = {**arrays, out.buffer.name: np.zeros(out.buffer.shape, out.buffer.dtype.numpy)}
        expected = {name: array.copy() for name, array in found.items()}
        evaluate(kernel, expected)
        run(task, found, parts)
        np.testing.assert_array_equal(found[out.buffer.name], expected[out.buffer.name])


@pytest.mark.parametrize("name", KERNELS)
def test_without_avx512(name: str, rng: np.random.Generator) -> None:
    check(KERNELS[name], rng, host(without=("avx512f",)))


@pytest.mark.parametrize("name", KERNELS)
def test_code_for_aarch64_is_accepted(name: str) -> None:
    for call in task_of(KERNELS[name], aarch64()).phases:
        assert compile_ir(call.unit.job().text, aarch64(), call.unit.level)


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy that begins `offset` bytes behind a cache line's beginning."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


STREAMED = ["adam", "gradient", "gradient along rows", "gradient, then squares, small", "gradient of 64 channels"]


@pytest.mark.parametrize("target", [host(), host(without=("avx512f",))], ids=["host", "without AVX-512"])
@pytest.mark.parametrize("name", STREAMED)
def test_large_results_are_written_past_the_caches(
    name: str, target: Target, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers wherever buffers begin, and where they are the same."""
    kernel = KERNELS[name]
    plain = task_of(kernel, target)
    monkeypatch.setattr(streams, "LEAST_BYTES", 0)
    task = task_of(kernel, target)
    regular = name in ("adam", "gradient of 64 channels")
    assert any("nontemporal" in call.unit.text for call in task.phases) == (regular and target.arch == "x86_64")
    assert not any("nontemporal" in call.unit.text for call in plain.phases)
    arrays = {name: aligned(array) for name, array in arrays_for(kernel, rng).items()}
    run(plain, arrays)
    for offset in (0, 4):
        for parts in (1, 3):
            found = {name: aligned(array, offset) for name, array in arrays.items()}
            for out in kernel.outputs:
                found[out.buffer.name][...] = 77
            if parts == 3 and task.in_place:
                written, read = task.in_place[0]
                found[written] = found[read].reshape(found[written].shape)
            run(task, found, parts)
            for out in kernel.outputs:
                np.testing.assert_array_equal(found[out.buffer.name], arrays[out.buffer.name])


# What tasks say ------------------------------------------------------------------------------------------------------
def kernels_of(function: Callable[..., Any], shapes: list[tuple[int, ...]]) -> tuple[LoopKernel, ...]:
    graph, _ = trace_graph(lambda *symbols: tree.leaves(function(*symbols)), [Spec(shape, FLOAT) for shape in shapes])
    return plan_fusion(graph).kernels


def test_memory_is_walked_in_order() -> None:
    """What is read once per row of memory says nothing about how to go through the rest."""
    assert style_of(layer_norm_parameters(700, 96)) == "down"
    assert style_of(batch_norm(700, 96)) == "down"
    assert style_of(layer_norm(700, 96)) == "along"


def test_equal_kernels_have_equal_units() -> None:
    kernels = kernels_of(lambda x, y: (ops.tanh(x), ops.tanh(y)), [(6, 37), (6, 37)])
    units = {call.unit for kernel in kernels for call in task_of(kernel).phases}
    assert len(units) == 1


@pytest.mark.parametrize("make", [adam, lambda n: layer_norm(n, 100)])
def test_code_does_not_depend_on_the_outermost_size(make: Callable[[int], LoopKernel]) -> None:
    first, second = (task_of(make(count)).phases[0] for count in (5000, 6000))
    assert first.unit == second.unit and first.units == 5000


def test_nothing_to_do() -> None:
    (kernel,) = kernels_of(lambda x: x[:0] * 2.0, [(3, 4)])
    assert not task_of(kernel).phases


def test_what_may_be_the_same_memory() -> None:
    assert set(task_of(adam(100)).in_place) == set(itertools.product(("m1", "v1", "w1"), "mvwg"))
    assert ("y", "x") in task_of(batch_norm(1568, 24)).in_place
    assert ("y", "x") in task_of(layer_norm(70, 100)).in_place
    assert ("y", "g") not in task_of(layer_norm(70, 100)).in_place
    assert not task_of(pooling(2, 13, 20)).in_place
    (turned,) = kernels_of(lambda x: ops.transpose(x) * 2.0, [(40, 40)])
    assert not task_of(turned).in_place


def test_what_needs_no_total_is_stored_in_the_first_pass() -> None:
    assert len(task_of(relu_gradient(2048, 70)).phases) == 2
    assert len(task_of(relu_gradient(40, 33)).phases) == 1
    assert ("dx", "x") in task_of(relu_gradient(40, 33)).in_place
    assert ("dx", "x") not in task_of(relu_gradient(40, 33, squares=True)).in_place


VARIANCES = {  # name: (kernel, axis of the columns)
    "side by side": (batch_norm(8 * 28 * 28, 33), 0),
    "a prime number": (batch_norm(10007, 50), 0),
    "along": (layer_norm(3, 100_003), 1),
}


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1000.0, 1e-2), (-1e4, 1.0), (3.1, 0.0)])
@pytest.mark.parametrize("case", VARIANCES)
def test_squares_about_the_mean_in_one_pass(case: str, mean: float, deviation: float, rng: np.random.Generator) -> None:
    """Beside float64, no worse than two passes over memory: also when the mean is far from 0."""
    whole, axis = VARIANCES[case]
    count, columns = whole.rows[0][1], whole.columns[0][1]
    name, place = next(stage.name for stage in whole.stages if stage.centre), whole.outputs[1].place
    kernel = replace(whole, outputs=(Output(Buffer("q", (count,), FLOAT), place, Total(name, FLOAT), False),))
    x = (mean + deviation * rng.standard_normal((count, columns) if axis else (columns, count))).astype("float32")
    expected = np.sum((x - np.mean(x, axis, np.float64, keepdims=True)) ** 2, axis)
    errors = []
    for passes in (1, 2):
        stages = tuple(replace(stage, centre=stage.centre if passes == 1 else None) for stage in kernel.stages)
        task = task_of(replace(kernel, stages=stages))
        assert len(task.phases) == 2 * passes
        found = np.empty(count, "float32")
        run(task, {"x": x, "q": found})
        errors.append(np.max(np.abs(found - expected)))
    assert errors[0] <= 1.1 * errors[1] + 4 * np.spacing(np.float32(np.max(expected)))
    assert errors[0] <= 1e-3 * np.max(expected) + columns * (16 * np.spacing(np.float32(mean))) ** 2


IN_PLACE = ["adam", "gradient", "gradient, then squares, small", "gradient along rows"]
IN_PLACE += ["batch norm", "batch norm, small", "layer norm", "layer norm, few rows", "loss"]


@pytest.mark.parametrize("name", IN_PLACE)
def test_kernels_work_in_place(name: str, rng: np.random.Generator) -> None:
    """With all pairs that the task names, one after the other."""
    kernel = KERNELS[name]
    arrays = arrays_for(kernel, rng)
    task = task_of(kernel)
    apart = {name: array.copy() for name, array in arrays.items()}
    run(task, apart)
    assert task.in_place
    for written, read in task.in_place:
        buffers = {name: array.copy() for name, array in arrays.items()}
        shape = buffers[written].shape
        if buffers[read].size >= buffers[written].size:
            buffers[written] = buffers[read].reshape(-1)[: math.prod(shape)].reshape(shape)
            run(task, buffers, 3)
            for out in kernel.outputs:
                np.testing.assert_array_equal(buffers[out.buffer.name], apart[out.buffer.name])


def test_threads_do_not_share_cache_lines() -> None:
    for kernel in KERNELS.values():
        for call in task_of(kernel).phases:
            assert call.serial or call.grain * 4 >= 64 or len(kernel.rows) > 1 or kernel.columns
