"""Contractions as tasks: compiled, linked and run, against the operators' records."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen import indexing as ix
from highlevel.backends.native.codegen.contraction import (
    Conv,
    ConvPlan,
    Gemm,
    GemmPlan,
    emit_conv_phase,
    emit_gemm_phase,
    emit_kernel_grad_phase,
    helpers_of,
    part_of_plan,
    plan_conv,
    plan_conv_input_grad,
    plan_conv_kernel_grad,
    plan_gemm,
)
from highlevel.backends.native.codegen.targets import Target, compile_ir, host
from highlevel.backends.native.devices.loader import Library, link
from highlevel.backends.native.lower.contraction import (
    contraction_task,
    pack_task,
    packed_operand,
    packed_size_bytes,
    supports_epilogue,
)
from highlevel.backends.native.lower.described import Described
from highlevel.backends.native.lower.registry import lower
from highlevel.backends.native.lower.task import THREADS, TID, WORKSPACE, Argument, Task
from highlevel.backends.native.schedule.contraction import Contraction, View
from highlevel.backends.native.schedule.kernel import (
    Apply,
    Buffer,
    Index,
    Load,
    LoopKernel,
    Number,
    Output,
    Term,
    Total,
    evaluate,
)
from highlevel.errors import BackendError
from highlevel.ir import REGISTRY, Node, Spec
from highlevel.ir.dtypes import DType, as_dtype

CPUS = {"native": (), "AVX2": ("avx512f",)}


@pytest.fixture(params=CPUS)
def target(request: pytest.FixtureRequest) -> Target:
    features = host(()).features.split(",")
    if any(f"+{feature}" not in features for feature in CPUS[request.param]):
        pytest.skip(f"this CPU is no more than {request.param}")
    return host(CPUS[request.param])


# Running tasks -------------------------------------------------------------------------------------------------------
COMPILED: dict[str, bytes] = {}  # by key


def load(task: Task) -> Library:
    units = {unit.symbol: unit for unit in (*(call.unit for call in task.phases), *task.helpers)}
    objects = []
    for unit in units.values():
        if unit.key not in COMPILED:
            job = unit.job()
            COMPILED[unit.key] = compile_ir(job.text, job.target, job.level)
        objects.append(Object(unit.symbol, COMPILED[unit.key]))
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


EDGES = (1, 2, 3, 7, 13, 16, 17, 33, 48, 70)


def check_sizes(sizes: Sequence[tuple[int, int, int]], target: Target, rng: np.random.Generator) -> None:
    """Products of all sizes, transposed in turn."""
    for number, (m, n, k) in enumerate(sizes):
        arrays = []
        for bit, (rows, columns) in enumerate(((m, k), (k, n), (m, n))):
            swapped = bool(number >> bit & 1)
            base = drawn(rng, (columns, rows) if swapped else (rows, columns), as_dtype("float32"))
            arrays.append((base, base.T if swapped else base))
        check_views(*arrays, target)


@pytest.mark.parametrize("m", EDGES)
def test_sizes_in_pairs(target: Target, rng: np.random.Generator, m: int) -> None:
    """Every pair of sizes in every pair of places: a Latin square."""
    pairs = itertools.product(range(len(EDGES)), repeat=2)
    sizes = [(EDGES[i], EDGES[j], EDGES[(i + j) % len(EDGES)]) for i, j in pairs]
    check_sizes([each for each in sizes if each[0] == m], target, rng)


@pytest.mark.soak
@pytest.mark.parametrize("m", range(71))
def test_all_rows_and_columns(target: Target, rng: np.random.Generator, m: int) -> None:
    """With every fifth reduction; the generator itself is tried with all."""
    check_sizes([(m, n, k) for n in range(71) for k in range((m + n) % 5, 71, 5)], target, rng)


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


# Epilogues -----------------------------------------------------------------------------------------------------------
def apply(name: str, *operands: Term, **attrs: Any) -> Term:
    specs = [Spec((), operand.dtype) for operand in operands]
    primitive = REGISTRY[name]
    return Apply(primitive, operands, tuple(sorted(attrs.items())), primitive.infer(*specs, **attrs).dtype)


def indices(shape: Sequence[int]) -> list[ix.Expr]:
    return [ix.var(f"i{axis}", size) for axis, size in enumerate(shape)]


def load_at(name: str, dtype: str, shape: Sequence[int], at: Sequence[ix.Expr]) -> Load:
    return Load(name, ix.ravel(at, shape), as_dtype(dtype))


def number(value: float, dtype: str = "float32") -> Number:
    return Number(value, as_dtype(dtype))


@dataclasses.dataclass
class Case:
    """An epilogue: its term, for (shape, dtype) of the result, and the arrays that it reads."""

    term: Callable[[Sequence[int], str], Term]
    operands: Callable[[Sequence[int], str], dict[str, tuple[tuple[int, ...], str]]] = lambda shape, dtype: {}
    tolerance: float = 0.0


def _bias_relu(shape: Sequence[int], dtype: str) -> Term:
    biased = apply("add", Total("product", as_dtype(dtype)), load_at("bias", dtype, shape[-1:], indices(shape)[-1:]))
    return apply("maximum", biased, number(0, dtype))


def _residual(shape: Sequence[int], dtype: str) -> Term:
    scaled = apply("mul", Total("product", as_dtype(dtype)), number(2, dtype))
    return apply("sub", scaled, load_at("residual", dtype, shape, indices(shape)))


def _by_row(shape: Sequence[int], dtype: str) -> Term:
    """Per row, and per image alone."""
    row = load_at("row", dtype, shape[:-1], indices(shape)[:-1])
    first = load_at("first", dtype, shape[:1], indices(shape)[:1])
    return apply("mul", apply("add", Total("product", as_dtype(dtype)), row), first)


def _gelu(shape: Sequence[int], dtype: str) -> Term:
    x = Total("product", as_dtype(dtype))
    inner = apply("erf", apply("mul", x, number(0.5**0.5, dtype)))
    return apply("mul", apply("mul", x, number(0.5, dtype)), apply("add", inner, number(1, dtype)))


def _masked(shape: Sequence[int], dtype: str) -> Term:
    """Causal, and by a mask of truth values."""
    row, column = (Index(x, as_dtype("int32")) for x in indices(shape)[-2:])
    ahead = apply("less", row, column)
    kept = load_at("mask", "bool", shape[-1:], indices(shape)[-1:])
    either = apply("bit_or", ahead, kept)
    return apply("select", either, number(-np.inf, dtype), Total("product", as_dtype(dtype)))


def _flags(shape: Sequence[int], dtype: str) -> Term:
    return apply("less", Total("product", as_dtype(dtype)), number(3, dtype))


def _cast(shape: Sequence[int], dtype: str) -> Term:
    other = "float64" if dtype != "float64" else "float32"
    return apply("cast", apply("abs", apply("neg", Total("product", as_dtype(dtype)))), dtype=as_dtype(other))


EPILOGUES = {
    "bias and ReLU": Case(_bias_relu, lambda shape, dtype: {"bias": (tuple(shape[-1:]), dtype)}),
    "residual": Case(_residual, lambda shape, dtype: {"residual": (tuple(shape), dtype)}),
    "by row": Case(
        _by_row, lambda shape, dtype: {"row": (tuple(shape[:-1]), dtype), "first": (tuple(shape[:1]), dtype)}
    ),
    "gelu": Case(_gelu, tolerance=4e-6),
    "masks": Case(_masked, lambda shape, dtype: {"mask": (tuple(shape[-1:]), "bool")}),
    "truth values": Case(_flags),
    "another type": Case(_cast),
}


def evaluated(term: Term, shape: Sequence[int], product: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The meaning of kernels, on the product that the interpreter has."""
    buffer = Buffer("result", tuple(shape), term.dtype)
    whole = Load("product", ix.ravel(indices(shape), shape), as_dtype(product.dtype))

    def with_product(node: Term) -> Term:
        if isinstance(node, Total):
            return whole
        if isinstance(node, Apply):
            return dataclasses.replace(node, operands=tuple(map(with_product, node.operands)))
        return node

    rows = tuple((f"i{axis}", size) for axis, size in enumerate(shape))
    output = Output(buffer, ix.ravel(indices(shape), shape), with_product(term), True)
    found = np.zeros(shape, term.dtype.numpy)
    evaluate(LoopKernel("epilogue", rows, (), (), (output,)), {**arrays, "product": product, "result": found})
    return found


def check_epilogue(
    node: Node,
    case: Case,
    target: Target,
    rng: np.random.Generator,
    result: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Task:
    """Right, and equal to the bit for any number of threads; `result` is a view of the array that is written."""
    (spec,) = node.specs
    term = case.term(spec.shape, spec.dtype.name)
    more = {
        name: drawn(rng, shape, as_dtype(dtype))
        for name, (shape, dtype) in case.operands(spec.shape, spec.dtype.name).items()
    }
    a, b = (drawn(rng, shape, spec.dtype) for shape in OPERANDS[id(node)])
    base = np.zeros(spec.shape, term.dtype.numpy)
    goal = result(base)
    assert goal.shape == spec.shape
    c = Contraction(node, (whole("a", a), whole("b", b)), view_of("c", base, goal), term)
    assert supports_epilogue(c)
    task = contraction_task(c, target)
    library = load(task)
    expected = evaluated(term, spec.shape, np.asarray(node.primitive.numpy(np, a, b, **node.attrs)), more)
    found = []
    for nthreads in (1, 2, 3):
        base.reshape(-1).view("uint8")[...] = 77
        run(task, {"a": a, "b": b, "c": base, **more}, nthreads, library)
        found.append(goal.tobytes())
        np.testing.assert_allclose(
            goal.astype("float64"), expected.astype("float64"), rtol=case.tolerance, atol=case.tolerance
        )
    assert len(set(found)) == 1
    return task


OPERANDS: dict[int, tuple[tuple[int, ...], ...]] = {}


def contraction_node(name: str, *shapes: tuple[int, ...], dtype: str = "float32", **attrs: Any) -> Node:
    node = node_of(name, [Spec(shape, as_dtype(dtype)) for shape in shapes], **attrs)
    OPERANDS[id(node)] = shapes
    return node


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize(
    "shapes",
    [
        ((19, 30), (30, 37)),
        ((2, 3, 5, 8), (2, 3, 8, 21)),
        ((3, 3000), (3000, 20)),  # several blocks of the reduction
        ((2, 9, 40000), (2, 40000, 5)),  # … in parts
        ((4, 7), (7, 1)),
        ((5, 0), (0, 9)),
    ],
)
def test_epilogues_of_products(target: Target, rng: np.random.Generator, name: str, shapes: Any) -> None:
    check_epilogue(contraction_node("matmul", *shapes), EPILOGUES[name], target, rng)


@pytest.mark.parametrize("name", ["bias and ReLU", "residual", "by row", "masks", "truth values", "another type"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int8", "int32"])
def test_types_of_epilogues(target: Target, rng: np.random.Generator, name: str, dtype: str) -> None:
    if name == "masks" and "int" in dtype:
        pytest.skip("integers have no infinity")
    check_epilogue(contraction_node("matmul", (19, 30), (30, 37), dtype=dtype), EPILOGUES[name], target, rng)


@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues_of_transposed_results(target: Target, rng: np.random.Generator, name: str) -> None:
    """Rows of the node's result are columns of the product: what moves with them is a vector then, or refused."""
    node = contraction_node("matmul", (2, 19, 30), (2, 30, 37))
    term = EPILOGUES[name].term(node.specs[0].shape, "float32")
    base = np.zeros((2, 37, 19), term.dtype.numpy)
    view = view_of("c", base, base.swapaxes(1, 2))
    buffers = [
        View.whole(Buffer(letter, shape, as_dtype("float32")))
        for letter, shape in zip("ab", OPERANDS[id(node)], strict=True)
    ]
    c = Contraction(node, (buffers[0], buffers[1]), view, term)
    assert supports_epilogue(c) == (name != "residual")
    if name == "residual":
        with pytest.raises(BackendError, match="no code for this epilogue"):
            contraction_task(c, target)
        return

    def swapped(array: np.ndarray) -> np.ndarray:
        return array.reshape(2, 37, 19).swapaxes(1, 2)

    check_epilogue(node, EPILOGUES[name], target, rng, swapped)


@pytest.mark.parametrize("kind", ["conv", "conv_input_grad"])
@pytest.mark.parametrize("name", ["bias and ReLU", "residual", "by row", "another type"])
@pytest.mark.parametrize("geometry", ["3x3", "pointwise", "strides", "groups", "depthwise", "many channels"])
def test_epilogues_of_convolutions(
    target: Target, rng: np.random.Generator, kind: str, name: str, geometry: str
) -> None:
    channels, filters, window, stride, groups = {
        "3x3": (5, 20, 3, 1, 1),
        "pointwise": (5, 20, 1, 1, 1),
        "strides": (5, 20, 3, 2, 1),
        "groups": (4, 20, 3, 1, 2),
        "depthwise": (20, 20, 3, 1, 20),
        "many channels": (700, 20, 3, 1, 1),
    }[geometry]
    pad = window // 2
    attrs = {"strides": (stride,) * 2, "padding": ((pad, pad),) * 2, "dilation": (1, 1), "groups": groups}
    x, kernel = (2, 7, 6, channels), (window, window, channels // groups, filters)
    if kind == "conv":
        node = contraction_node("conv", x, kernel, **attrs)
    else:
        g = REGISTRY["conv"].infer(Spec(x, as_dtype("float32")), Spec(kernel, as_dtype("float32")), **attrs).shape
        node = contraction_node(kind, g, kernel, shape=x, **attrs)
    check_epilogue(node, EPILOGUES[name], target, rng)


def test_not_a_number_passes_through_maximum(target: Target) -> None:
    node = contraction_node("matmul", (4, 3), (3, 20))
    term = apply("maximum", Total("product", as_dtype("float32")), number(0))
    a, b, c = np.ones((4, 3), "float32"), np.ones((3, 20), "float32"), np.zeros((4, 20), "float32")
    b[1, 5], b[0, 7], b[2, 9] = np.nan, -np.inf, np.inf
    run(
        contraction_task(Contraction(node, (whole("a", a), whole("b", b)), whole("c", c), term), target),
        {"a": a, "b": b, "c": c},
    )
    np.testing.assert_array_equal(c, np.maximum(a @ b, 0))


@pytest.mark.parametrize("k", [30, 3000, 90000])
def test_a_residual_in_place(target: Target, rng: np.random.Generator, k: int) -> None:
    """Where the task says so, what is read by the epilogue may be what is written."""
    node = contraction_node("matmul", (9, k), (k, 20))
    term = _residual((9, 20), "float32")
    a, b, c = (drawn(rng, shape, as_dtype("float32")) for shape in ((9, k), (k, 20), (9, 20)))
    task = contraction_task(Contraction(node, (whole("a", a), whole("b", b)), whole("c", c), term), target)
    before = c.copy()
    if k == 3000:
        assert task.in_place == ()  # the result holds sums before the epilogue comes
        return
    assert task.in_place == (("c", "residual"),)
    run(task, {"a": a, "b": b, "c": c, "residual": c}, 2)
    np.testing.assert_array_equal(c, 2 * (a @ b) - before)


def test_equal_epilogues_are_one(target: Target) -> None:
    """Names of buffers are not in the code."""
    node = contraction_node("matmul", (9, 30), (30, 20))
    views = (
        View.whole(Buffer("a", (9, 30), as_dtype("float32"))),
        View.whole(Buffer("b", (30, 20), as_dtype("float32"))),
    )
    units = []
    for name in ("x", "y"):
        bias = Load(name, ix.var("i1", 20), as_dtype("float32"))
        term = apply("add", Total("product", as_dtype("float32")), bias)
        c = Contraction(node, views, View.whole(Buffer("c", (9, 20), as_dtype("float32"))), term)
        task = contraction_task(c, target)
        assert task.reads == ("a", "b", name) and task.phases[-1].arguments[-1] == name
        units.append([call.unit for call in task.phases] + list(task.helpers))
    assert units[0] == units[1]


# Packed once ---------------------------------------------------------------------------------------------------------
def check_packed(c: Contraction, arrays: Mapping[str, np.ndarray], target: Target) -> None:
    """What comes out without; sums of small whole numbers are exact, however they are cut."""
    plain = contraction_task(c, target)
    run(plain, arrays, 2)
    expected = arrays["c"].copy()
    arrays["c"][...] = 77
    packed = np.full(packed_size_bytes(c, target) + 64, 0xA5, np.uint8)
    packed = packed[-packed.ctypes.data % 64 :]
    name = "ab"[packed_operand(c) or 0]
    run(pack_task(c, target, "packed"), {name: arrays[name], "packed": packed}, 3)
    task = contraction_task(c, target, "packed")
    assert name not in task.reads and "packed" in task.reads
    run(task, {**arrays, name: np.zeros(1), "packed": packed}, 2)
    np.testing.assert_array_equal(arrays["c"], expected)


@pytest.mark.parametrize("m", [1, 5, 200])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_packed_once(target: Target, rng: np.random.Generator, m: int, dtype: str) -> None:
    node = contraction_node("matmul", (m, 50), (50, 70), dtype=dtype)
    arrays = {
        name: drawn(rng, shape, as_dtype(dtype))
        for name, shape in zip("abc", (*OPERANDS[id(node)], (m, 70)), strict=True)
    }
    operands = whole("a", arrays["a"]), whole("b", arrays["b"])
    check_packed(Contraction(node, operands, whole("c", arrays["c"])), arrays, target)
    arrays["c"] = np.zeros((70, m), as_dtype(dtype).numpy)  # a transposed result: A is packed
    c = Contraction(node, operands, view_of("c", arrays["c"], arrays["c"].T))
    assert packed_operand(c) == (1 if m == 1 else 0)
    check_packed(c, arrays, target)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("name", ["conv", "conv_input_grad"])
def test_kernels_packed_once(target: Target, rng: np.random.Generator, name: str, window: int) -> None:
    x, kernel, y = (2, 7, 6, 5), (window, window, 5, 20), (2, 7, 6, 20)
    attrs = {"strides": (1, 1), "padding": ((window // 2,) * 2,) * 2, "dilation": (1, 1), "groups": 1}
    shapes, more = ((x, kernel, y), {}) if name == "conv" else ((y, kernel, x), {"shape": x})
    arrays = {letter: drawn(rng, shape, as_dtype("float32")) for letter, shape in zip("abc", shapes, strict=True)}
    node = contraction_node(name, *shapes[:2], **attrs, **more)
    bias = apply(
        "add",
        Total("product", as_dtype("float32")),
        load_at("bias", "float32", shapes[2][-1:], [ix.var("i3", shapes[2][-1])]),
    )
    c = Contraction(node, (whole("a", arrays["a"]), whole("b", arrays["b"])), whole("c", arrays["c"]), bias)
    check_packed(c, {**arrays, "bias": drawn(rng, shapes[2][-1:], as_dtype("float32"))}, target)


def test_kernel_gradients_have_nothing_to_pack() -> None:
    x, kernel, y = (2, 7, 6, 5), (3, 3, 5, 20), (2, 7, 6, 20)
    attrs = {"strides": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1, "shape": kernel}
    node = contraction_node("conv_kernel_grad", x, y, **attrs)
    views = [
        View.whole(Buffer(letter, shape, as_dtype("float32")))
        for letter, shape in zip("abc", (x, y, kernel), strict=True)
    ]
    c = Contraction(node, (views[0], views[1]), views[2])
    assert packed_operand(c) is None
    with pytest.raises(BackendError, match="nothing to pack"):
        pack_task(c, host(()), "packed")


# Descriptions --------------------------------------------------------------------------------------------------------
def described() -> list[tuple[Any, str]]:
    """Plans of all kinds, and their phases."""
    float32 = as_dtype("float32")
    gemms = [
        Gemm.dense(m, n, k, float32, batch, transpose_a=a, transpose_b=b)
        for m, n, k in ((5, 40, 30), (300, 70, 64), (256, 256, 2048), (16, 40, 9000), (8, 3000, 300))
        for batch in ((), (2,))
        for a, b in itertools.product((False, True), repeat=2)
    ]
    convs = [
        Conv.same(images, size, channels, filters, window, stride)
        for images in (1, 4)
        for size, channels, filters, window, stride in (
            (14, 3, 20, 5, 1), (14, 64, 70, 3, 1), (28, 64, 20, 3, 2), (14, 40, 64, 1, 1), (14, 40, 64, 1, 2)
        )
    ]  # fmt: skip
    convs.append(dataclasses.replace(Conv.same(2, 14, 40, 40, 3), groups=40))
    plans = [plan_gemm(gemm, host(())) for gemm in gemms]
    planners = (plan_conv, plan_conv_input_grad, plan_conv_kernel_grad)
    plans += [plan(conv, host(())) for conv in convs for plan in planners]  # type: ignore[operator]
    return [(plan, phase) for plan in plans for phase in plan.phases]


def written(plan: Any, phase: str) -> tuple[str, set[str]]:
    """The text of a phase, and the functions that it calls."""
    module, called = ir.Module(), set()

    def name(helper: Any) -> str:
        called.add(helper.symbol)
        return str(helper.symbol)

    if isinstance(plan, GemmPlan):
        emit_gemm_phase(module, "kernel", plan, phase, None, name)
    elif isinstance(plan, ConvPlan):
        emit_conv_phase(module, "kernel", plan, phase, None, name)
    else:
        emit_kernel_grad_phase(module, "kernel", plan, phase, name)
    return str(module), called


def test_a_phase_depends_on_no_more_than_its_part_of_the_plan() -> None:
    for plan, phase in described():
        assert written(part_of_plan(plan, phase), phase) == written(plan, phase)


def test_what_a_phase_calls_is_known_before() -> None:
    for plan, phase in described():
        part = part_of_plan(plan, phase)
        assert written(plan, phase)[1] <= {helper.symbol for helper in helpers_of(part, phase)}


def test_packing_is_the_same_for_every_batch_size(target: Target) -> None:
    units = set()
    for images in (1, 2, 7):
        x, kernel, y = (images, 14, 14, 64), (3, 3, 64, 70), (images, 14, 14, 70)
        attrs = {"strides": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1}
        views = [
            View.whole(Buffer(letter, shape, as_dtype("float32")))
            for letter, shape in zip("abc", (x, kernel, y), strict=True)
        ]
        c = Contraction(contraction_node("conv", x, kernel, **attrs), (views[0], views[1]), views[2])
        task = contraction_task(c, target)
        assert len(task.phases) == 2
        units.add(task.phases[0].unit)
    assert len(units) == 1


def test_text_is_written_only_to_be_compiled() -> None:
    asked = []

    def write() -> str:
        asked.append("text")
        return "define void @kernel() {\n  ret void\n}\n"

    unit, same = (Described("nothing", "these sources", write, host(())) for _ in range(2))
    assert unit == same and hash(unit) == hash(same) and unit.symbol == same.symbol and not asked
    assert unit != Described("nothing", "other sources", write, host(()))
    assert unit != Described("something", "these sources", write, host(()))
    assert unit.symbol in unit.job().text and unit.text and asked == ["text"]
