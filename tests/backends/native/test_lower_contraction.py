"""Contractions as tasks: compiled, linked and run, against the operators' records."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import Target, compile_ir, host
from highlevel.backends.native.devices.loader import Library, link
from highlevel.backends.native.lower.contraction import contraction_task
from highlevel.backends.native.lower.registry import lower
from highlevel.backends.native.lower.task import THREADS, TID, WORKSPACE, Argument, Task
from highlevel.backends.native.schedule.contraction import Contraction, View
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.errors import BackendError
from highlevel.ir import REGISTRY, Node, Spec
from highlevel.ir.dtypes import DType, as_dtype

CPUS = {"native": (), "AVX2": ("avx512f",)}
FLOATS = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}


@pytest.fixture(params=CPUS)
def target(request: pytest.FixtureRequest) -> Target:
    features = host(()).features.split(",")
    if any(f"+{feature}" not in features for feature in CPUS[request.param]):
        pytest.skip(f"this CPU is no more than {request.param}")
    return host(CPUS[request.param])


# Running tasks -------------------------------------------------------------------------------------------------------
def load(task: Task) -> Library:
    units = {unit.symbol: unit for unit in (*(call.unit for call in task.phases), *task.helpers)}
    objects = []
    for unit in units.values():
        job = unit.job()
        objects.append(Object(unit.symbol, compile_ir(job.text, job.target, job.level)))
    return link(objects)


def run(task: Task, arrays: Mapping[str, np.ndarray], nthreads: int = 1, library: Library | None = None) -> None:
    """All phases, one after the other; threads take turns, in falling order."""
    library = library or load(task)
    memory = np.full(task.workspace_bytes(nthreads) + 64, 0xA5, np.uint8)
    workspace = memory[-memory.ctypes.data % 64 :]
    for call in task.phases:
        for tid in reversed(range(nthreads)):
            values: dict[str | Argument, Any] = {TID: tid, THREADS: nthreads, WORKSPACE: workspace.ctypes.data}
            numbers = [values[a] if isinstance(a, Argument) else arrays[a].ctypes.data for a in call.arguments]
            kinds = [ctypes.c_int32 if a in (TID, THREADS) else ctypes.c_void_p for a in call.arguments]
            library.function(call.unit.symbol, *kinds)(*numbers)


def node_of(name: str, operands: Sequence[Spec], **attrs: Any) -> Node:
    primitive = REGISTRY[name]
    return Node(primitive, (), attrs, (primitive.infer(*operands, **attrs),), 0)


def drawn(rng: np.random.Generator, shape: Sequence[int], dtype: DType) -> np.ndarray:
    if dtype.is_bool:
        return rng.random(shape) < 0.2
    return rng.integers(-4 if dtype.kind != "uint" else 0, 5, shape).astype(dtype.numpy)


def check(node: Node, got: np.ndarray, *operands: np.ndarray) -> None:
    """Sums of small whole numbers are exact in every type that is wide enough; others are rounded once."""
    with np.errstate(all="ignore"):
        expected = np.asarray(node.primitive.numpy(np, *operands, **node.attrs))  # type: ignore[union-attr]
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.astype("float64"), expected.astype("float64"))


def check_node(node: Node, target: Target, rng: np.random.Generator, specs: Sequence[Spec]) -> None:
    """Whole buffers, as the registry calls it."""
    buffers = [Buffer(name, spec.shape, spec.dtype) for name, spec in zip("abc", (*specs, *node.specs), strict=True)]
    task = lower(node, buffers[:2], buffers[2:], target)
    arrays = {buffer.name: drawn(rng, buffer.shape, buffer.dtype) for buffer in buffers}
    library = load(task)
    found = []
    for nthreads in (1, 2, 3, 4):
        arrays["c"] = np.full(buffers[2].shape, 77).astype(buffers[2].dtype.numpy)
        run(task, arrays, nthreads, library)
        found.append(arrays["c"])
    check(node, found[0], arrays["a"], arrays["b"])
    assert len({result.tobytes() for result in found}) == 1


# Nodes by themselves -------------------------------------------------------------------------------------------------
TYPES = ("float32", "float64", "bfloat16", "float16", "int8", "uint8", "int16", "int32", "int64", "uint64", "bool")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shapes", [((5, 7), (7, 9)), ((2, 3, 17, 8), (2, 3, 8, 21)), ((3, 0), (0, 4)), ((0, 3), (3, 4))]
)
def test_products(target: Target, rng: np.random.Generator, dtype: str, shapes: Any) -> None:
    specs = [Spec(shape, as_dtype(dtype)) for shape in shapes]
    check_node(node_of("matmul", specs), target, rng, specs)


@pytest.mark.parametrize("name", ["conv", "conv_input_grad", "conv_kernel_grad"])
@pytest.mark.parametrize("number", range(0, 16, 2))
def test_convolutions(target: Target, rng: np.random.Generator, name: str, number: int) -> None:
    """The shapes of the operators' own samples."""
    sample = REGISTRY[name].samples[number]
    for dtype in ("float32", "int32"):
        specs = [Spec(draw.shape, as_dtype(dtype)) for draw in sample.operands]
        check_node(node_of(name, specs, **sample.attrs), target, rng, specs)


# Views ---------------------------------------------------------------------------------------------------------------
def whole(name: str, array: np.ndarray) -> View:
    return View.whole(Buffer(name, array.shape, as_dtype(array.dtype)))


def view_of(name: str, base: np.ndarray, view: np.ndarray) -> View:
    """How NumPy has it."""
    size = base.itemsize
    offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // size
    steps = tuple(step // size for step in view.strides)
    return View(Buffer(name, base.shape, as_dtype(base.dtype)), view.shape, steps, offset)


def check_views(a: Any, b: Any, c: Any, target: Target, dtype: str = "float32") -> None:
    """Of (buffer, view) each."""
    (base_a, view_a), (base_b, view_b), (base_c, view_c) = a, b, c
    node = node_of("matmul", [Spec(view.shape, as_dtype(view.dtype)) for view in (view_a, view_b)])
    views = view_of("a", base_a, view_a), view_of("b", base_b, view_b)
    task = contraction_task(Contraction(node, views, view_of("c", base_c, view_c)), target)
    library = load(task)
    outside = np.ones(base_c.shape, bool)
    view_of_same(outside, base_c, view_c)[...] = False
    found = []
    for nthreads in (1, 3):
        base_c[...] = 77
        run(task, {"a": base_a, "b": base_b, "c": base_c}, nthreads, library)
        found.append(base_c.copy())
        check(node, view_c, view_a, view_b)
        assert (base_c[outside] == 77).all()
    assert found[0].tobytes() == found[1].tobytes()


def view_of_same(array: np.ndarray, base: np.ndarray, view: np.ndarray) -> np.ndarray:
    """The view of `array` that `view` is of `base`."""
    offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
    steps = tuple(step // base.itemsize * array.itemsize for step in view.strides)
    return np.lib.stride_tricks.as_strided(array.reshape(-1)[offset:], view.shape, steps)


@pytest.mark.parametrize("transposed", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_every_transposition(
    target: Target, rng: np.random.Generator, transposed: tuple[bool, bool, bool], batch: tuple[int, ...]
) -> None:
    m, n, k = 19, 37, 11
    arrays = []
    for (rows, columns), swapped in zip(((m, k), (k, n), (m, n)), transposed, strict=True):
        base = drawn(rng, (*batch, columns, rows) if swapped else (*batch, rows, columns), as_dtype("float32"))
        arrays.append((base, base.swapaxes(-1, -2) if swapped else base))
    check_views(*arrays, target)


def test_views_with_offsets_and_gaps(target: Target, rng: np.random.Generator) -> None:
    """Heads of attention: (batch, time, heads, size) read and written in place, as (batch, heads, time, size)."""
    base = drawn(rng, (2, 13, 3, 4, 16), as_dtype("float32"))
    heads = base.transpose(0, 2, 3, 1, 4)  # (batch, q k v, heads, time, size)
    query, key, value = heads[:, 0], heads[:, 1], heads[:, 2]
    scores = np.zeros((2, 4, 13, 13), "float32")
    check_views((base, query), (base, key.swapaxes(-1, -2)), (scores, scores), target)
    out = np.zeros((2, 13, 4, 16), "float32")
    weights = drawn(rng, (2, 4, 13, 13), as_dtype("float32"))
    check_views((weights, weights), (base, value), (out, out.transpose(0, 2, 1, 3)), target)


def test_a_batch_that_shares_an_operand(target: Target, rng: np.random.Generator) -> None:
    """Steps of 0; where B is shared, all is one product."""
    for batch in ((5,), (2, 5)):
        a, b = drawn(rng, (*batch, 6, 9), as_dtype("float32")), drawn(rng, (9, 20), as_dtype("float32"))
        c = np.zeros((*batch, 6, 20), "float32")
        check_views((a, a), (b, np.broadcast_to(b, (*batch, 9, 20))), (c, c), target)
        node = node_of("matmul", [Spec(a.shape, as_dtype("float32")), Spec((*batch, 9, 20), as_dtype("float32"))])
        views = (
            whole("a", a),
            View(Buffer("b", b.shape, as_dtype("float32")), (*batch, 9, 20), (0,) * len(batch) + (20, 1)),
        )
        task = contraction_task(Contraction(node, views, whole("c", c)), target)
        flat = node_of("matmul", [Spec((a.size // 9, 9), as_dtype("float32")), Spec((9, 20), as_dtype("float32"))])
        other = contraction_task(
            Contraction(flat, (whole("a", a.reshape(-1, 9)), whole("b", b)), whole("c", c.reshape(-1, 20))), target
        )
        assert [call.unit for call in task.phases] == [call.unit for call in other.phases]
        a, b = drawn(rng, (6, 9), as_dtype("float32")), drawn(rng, (*batch, 9, 20), as_dtype("float32"))
        check_views((a, np.broadcast_to(a, (*batch, 6, 9))), (b, b), (c, c), target)


def test_a_result_with_gaps_everywhere_is_refused() -> None:
    f32 = as_dtype("float32")
    node = node_of("matmul", [Spec((3, 4), f32), Spec((4, 5), f32)])
    operands = View.whole(Buffer("a", (3, 4), f32)), View.whole(Buffer("b", (4, 5), f32))
    with pytest.raises(BackendError, match="consecutive"):
        contraction_task(Contraction(node, operands, View(Buffer("c", (3, 10), f32), (3, 5), (10, 2))), host(()))


@pytest.mark.parametrize("name", ["conv", "conv_input_grad", "conv_kernel_grad"])
def test_convolutions_somewhere_in_a_buffer(target: Target, rng: np.random.Generator, name: str) -> None:
    f32 = as_dtype("float32")
    for window in (1, 3):
        x, kernel, y = (2, 7, 7, 5), (window, window, 5, 20), (2, 7, 7, 20)
        shapes = {"conv": (x, kernel, y), "conv_input_grad": (y, kernel, x), "conv_kernel_grad": (x, y, kernel)}[name]
        pad = window // 2
        attrs = {"strides": (1, 1), "padding": ((pad, pad),) * 2, "dilation": (1, 1), "groups": 1}
        attrs |= {} if name == "conv" else {"shape": shapes[2]}
        node = node_of(name, [Spec(shape, f32) for shape in shapes[:2]], **attrs)
        arrays, views = {}, []
        for letter, shape, offset in zip("abc", shapes, (16, 3, 7), strict=True):
            arrays[letter] = drawn(rng, (int(np.prod(shape)) + 40,), f32)
            steps = View.whole(Buffer("", shape, f32)).strides
            views.append(View(Buffer(letter, arrays[letter].shape, f32), shape, steps, offset))
        before = arrays["c"].copy()
        run(contraction_task(Contraction(node, (views[0], views[1]), views[2]), target), arrays, 2)
        a, b, c = (
            array[view.offset :][: int(np.prod(view.shape))].reshape(view.shape)
            for array, view in zip(arrays.values(), views, strict=True)
        )
        check(node, c, a, b)
        assert (arrays["c"][:7] == before[:7]).all() and (arrays["c"][7 + c.size :] == before[7 + c.size :]).all()
