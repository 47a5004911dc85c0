"""Contractions: what the generated code computes, against NumPy in wider types and the interpreter."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from highlevel.backends.native.codegen.contraction import (
    Conv,
    Cut,
    Epilogue,
    Gemm,
    GemmPlan,
    Matrix,
    emit_conv,
    emit_conv_kernel_grad,
    emit_conv_pack,
    emit_gemm,
    emit_pack,
    helper_module,
    packed_bytes,
    phase_names,
    plan_conv,
    plan_conv_input_grad,
    plan_conv_kernel_grad,
    plan_gemm,
)
from highlevel.backends.native.codegen.targets import Target, aarch64, assembly, compile_ir, host
from highlevel.errors import ArgumentError
from highlevel.ir import REGISTRY
from highlevel.ir.dtypes import DType, as_dtype

CPUS = {"native": (), "AVX2": ("avx512f",), "SSE": ("avx",)}
TYPES = ("float32", "float64", "bfloat16", "float16", "int8", "uint8", "int16", "int32", "int64", "uint64", "bool")
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}
EDGES = (1, 2, 3, 5, 7, 8, 12, 13, 16, 17, 25, 31, 33, 48, 64, 70)


@pytest.fixture(params=CPUS)
def target(request: pytest.FixtureRequest) -> Target:
    features = host(()).features.split(",")
    if any(f"+{feature}" not in features for feature in CPUS[request.param]):
        pytest.skip(f"this CPU is no more than {request.param}")
    return host(CPUS[request.param])


# Running generated code ----------------------------------------------------------------------------------------------
class Code:
    """Functions of a module, compiled and loaded, with the helpers that it calls; those are compiled once for all."""

    compiled: ClassVar[dict[tuple[str, str], bytes]] = {}

    def __init__(self, module: Any, target: Target) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        objects = [
            compile_ir(str(module), target),
            *(self._helper(helper, target) for helper in module.called.values()),
        ]
        for code in objects:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def _helper(self, helper: Any, target: Target) -> bytes:
        key = target.key, helper.symbol
        if key not in self.compiled:
            self.compiled[key] = compile_ir(str(helper_module(helper, target.triple)), target)
        return self.compiled[key]

    def __call__(self, name: str, *arguments: Any) -> None:
        """Arrays as pointers, numbers as 32-bit integers."""
        kinds = [ctypes.c_int32 if isinstance(a, int) else ctypes.c_void_p for a in arguments]
        values = [a if isinstance(a, int) else a.ctypes.data for a in arguments]
        ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address(name))(*values)


class Module(ir.Module):
    """A module that takes note of the helpers that its functions call."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.triple = target.triple
        self.called: dict[str, Any] = {}

    def named(self, helper: Any) -> str:
        self.called[helper.symbol] = helper
        return str(helper.symbol)


def workspace(size_bytes: int) -> np.ndarray:
    """Bytes that hold no zeros, aligned to a cache line."""
    memory = np.full(size_bytes + 64, 0xA5, np.uint8)
    return memory[-memory.ctypes.data % 64 :]


def run(code: Code, name: str, plan: Any, arrays: Sequence[np.ndarray], nthreads: int = 1) -> None:
    """All phases, one after the other; threads take turns, in falling order."""
    memory = workspace(plan.workspace_bytes(nthreads))
    a, b, c, *operands = arrays
    for phase in phase_names(name, plan.phases):
        for tid in reversed(range(nthreads)):
            code(phase, a, b, c, memory, tid, nthreads, *operands)


def compiled(plan: GemmPlan, target: Target, epilogue: Epilogue | None = None) -> Code:
    module = Module(target)
    emit_gemm(module, "product", plan, epilogue, module.named)
    return Code(module, target)


def operand(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    if dtype.is_bool:
        return rng.random(shape) < 0.2
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    return rng.integers(0, 100, shape).astype(dtype.numpy)


def check(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Equal for integers; for floats, within what adding up k rounded products may lose."""
    name = c.dtype.name
    if name not in ROUNDING:
        np.testing.assert_array_equal(c, np.matmul(a, b))
        return
    wide = np.longdouble if name == "float64" else np.float64
    a, b = a.astype(wide), b.astype(wide)
    k = a.shape[-1]
    sums = max(1.0, k / 4) * ROUNDING["float32" if c.itemsize == 2 else name]
    allowed = np.abs(a) @ np.abs(b) * (sums + (ROUNDING[name] if c.itemsize == 2 else 0))
    assert (np.abs(c.astype(wide) - a @ b) <= allowed + 1e-30).all()


def check_gemm(gemm: Gemm, target: Target, rng: np.random.Generator, **changes: Any) -> None:
    """A dense product in all its transpositions, with 1 and 3 threads: right, and equal to the bit."""
    plan = dataclasses.replace(plan_gemm(gemm, target), **changes)
    code = compiled(plan, target)
    a = operand(rng, (*gemm.batch, gemm.m, gemm.k), gemm.dtype)
    b = operand(rng, (*gemm.batch, gemm.k, gemm.n), gemm.dtype)
    results = []
    for nthreads in (1, 3):
        c = np.full((*gemm.batch, gemm.m, gemm.n), 77).astype(gemm.dtype.numpy)
        run(code, "product", plan, (laid_out(a, gemm.a), laid_out(b, gemm.b), c), nthreads)
        results.append(c)
    check(results[0], a, b)
    assert results[0].tobytes() == results[1].tobytes()


def laid_out(x: np.ndarray, matrix: Matrix) -> np.ndarray:
    """In the order in memory that a dense product says."""
    return np.ascontiguousarray(x if matrix.column == 1 and matrix.row == x.shape[-1] else x.swapaxes(-1, -2))


# Matrix products -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("transpose", list(itertools.product((False, True), repeat=2)))
def test_types_and_transpositions(
    target: Target, rng: np.random.Generator, dtype: str, transpose: tuple[bool, bool]
) -> None:
    a, b = transpose
    check_gemm(Gemm.dense(37, 45, 29, as_dtype(dtype), (2,), transpose_a=a, transpose_b=b), target, rng)


def squares(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(m, n, k) such that every pair of sizes comes up in every pair of places: a Latin square."""
    for i, j in itertools.product(range(len(sizes)), repeat=2):
        yield sizes[i], sizes[j], sizes[(i + j) % len(sizes)]


def check_sizes(sizes: Sequence[tuple[int, int, int]], target: Target, rng: np.random.Generator) -> None:
    """Many products in one module; integers in floats, so that results are exact."""
    module = Module(target)
    plans = {}
    for number, (m, n, k) in enumerate(sizes):
        gemm = Gemm.dense(m, n, k, transpose_a=number % 2 == 1, transpose_b=number % 3 == 1)
        plans[f"product{number}"] = plan_gemm(gemm, target)
        emit_gemm(module, f"product{number}", plans[f"product{number}"], helpers=module.named)
    code = Code(module, target)
    for name, plan in plans.items():
        gemm = plan.gemm
        a, b = (rng.integers(-9, 10, shape).astype("float32") for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n)))
        c = np.full((gemm.m + 1, gemm.n), 77, "float32")
        run(code, name, plan, (laid_out(a, gemm.a), laid_out(b, gemm.b), c), 2)
        np.testing.assert_array_equal(c[: gemm.m], a @ b, err_msg=str(gemm))
        assert (c[gemm.m :] == 77).all(), gemm


@pytest.mark.parametrize("m", EDGES)
def test_sizes_in_pairs(target: Target, rng: np.random.Generator, m: int) -> None:
    check_sizes([sizes for sizes in squares(EDGES) if sizes[0] == m], target, rng)


@pytest.mark.soak
@pytest.mark.parametrize("m", range(1, 71))
def test_all_sizes(target: Target, rng: np.random.Generator, m: int) -> None:
    for n in range(1, 71):
        check_sizes([(m, n, k) for k in range(1, 71)], target, rng)


@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("batch", [(), (2,), (0,)])
def test_empty(target: Target, rng: np.random.Generator, sizes: tuple[int, int, int], batch: tuple[int, ...]) -> None:
    check_gemm(Gemm.dense(*sizes, batch=batch), target, rng)


@pytest.mark.parametrize(
    "sizes",
    [
        (130, 200, 2000),  # several blocks of the reduction
        (16, 40, 9000),  # … in parts that are joined
        (1, 10, 70000),
        (600, 33, 700),  # several blocks of rows
        (300, 256, 256),
        (200, 600, 70),
        (1, 1000, 300),
        (1000, 1, 300),
    ],
)
@pytest.mark.parametrize("transpose", list(itertools.product((False, True), repeat=2)))
def test_larger_sizes(
    target: Target, rng: np.random.Generator, sizes: tuple[int, int, int], transpose: tuple[bool, bool]
) -> None:
    check_gemm(Gemm.dense(*sizes, transpose_a=transpose[0], transpose_b=transpose[1]), target, rng)


@pytest.mark.parametrize("a", ["direct", "copy"])
@pytest.mark.parametrize("b", ["direct", "private", "shared"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_every_way_to_reach_the_operands(
    rng: np.random.Generator, a: str, b: str, transpose_a: bool, dtype: str
) -> None:
    if dtype == "int16" and "direct" in (a, b):
        pytest.skip("small types are widened while they are copied")
    gemm = Gemm.dense(50, 70, 700, as_dtype(dtype), (2,), transpose_a=transpose_a, transpose_b=b == "private")
    check_gemm(gemm, host(()), rng, a=a, b=b)


def test_any_strides(target: Target, rng: np.random.Generator) -> None:
    """Views: every second column of A, every third row and column of B, gaps in C; the batch of B is broadcast."""
    a, b = rng.standard_normal((3, 2, 17, 42), "float32"), rng.standard_normal((2, 60, 99), "float32")
    c = np.full((3, 2, 17, 40), 77, "float32")
    view_a, view_b = a[..., ::2], np.broadcast_to(b[:, ::3, ::3][:, :21], (3, 2, 20, 33))[..., :20, :]
    view_a, view_b = view_a[..., :20], view_b

    def matrix(view: np.ndarray) -> Matrix:
        *batch, row, column = (step // 4 for step in view.strides)
        return Matrix(row, column, tuple(batch))

    gemm = Gemm(17, 33, 20, as_dtype("float32"), matrix(view_a), matrix(view_b), Matrix(40, 1, (2 * 680, 680)), (3, 2))
    plan = plan_gemm(gemm, target)
    run(compiled(plan, target), "product", plan, (a, b, c), 2)
    check(c[..., :33], view_a, view_b)
    assert (c[..., 33:] == 77).all()


def test_the_result_needs_consecutive_columns() -> None:
    matrix = Matrix(4, 1)
    with pytest.raises(ArgumentError, match="not consecutive"):
        Gemm(4, 4, 4, as_dtype("float32"), matrix, matrix, Matrix(1, 4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_packed_once(target: Target, rng: np.random.Generator, transpose_b: bool, dtype: str) -> None:
    gemm = Gemm.dense(30, 75, 60, as_dtype(dtype), (2,), transpose_b=transpose_b)
    plain = plan_gemm(gemm, target)
    plan = plan_gemm(dataclasses.replace(gemm, packed=True), target)
    module = Module(target)
    emit_pack(module, "pack", plain, module.named)
    emit_gemm(module, "product", plan, helpers=module.named)
    code = Code(module, target)
    a, b = (operand(rng, shape, gemm.dtype) for shape in ((2, 30, 60), (2, 60, 75)))
    packed = workspace(packed_bytes(plain))
    for tid in range(3):
        code("pack", laid_out(b, gemm.b), packed, tid, 3)
    c = np.empty((2, 30, 75), gemm.dtype.numpy)
    assert plan.phases == ("compute",)
    run(code, "product", plan, (a, packed, c), 2)
    check(c, a, b)


@pytest.fixture
def dots() -> Target:
    if not (host(()).bfloat16_dot and host(()).masking):
        pytest.skip("this CPU has no dot products of bfloat16")
    return host(())


@pytest.mark.parametrize("transpose", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize(
    "sizes",
    [(37, 45, 30), (1, 40, 64), (300, 70, 48), (70, 1, 20), (260, 600, 514), (5, 7, 2), (20, 30, 31), (0, 3, 4)],
)
def test_dot_products_of_pairs(
    dots: Target, rng: np.random.Generator, sizes: tuple[int, int, int], transpose: tuple[bool, bool]
) -> None:
    """Where pairs can be read, or made of two rows; elsewhere (an odd step or reduction) float32 does it."""
    gemm = Gemm.dense(*sizes, as_dtype("bfloat16"), (2,), transpose_a=transpose[0], transpose_b=transpose[1])
    plan = plan_gemm(gemm, dots, pairs=True)
    assert plan.gemm.flops == gemm.flops and (plan.gemm.pairs or sizes[2] % 2 or 1 in sizes)
    code = compiled(plan, dots)
    a, b = (operand(rng, shape, gemm.dtype) for shape in ((2, gemm.m, gemm.k), (2, gemm.k, gemm.n)))
    results = []
    for nthreads in (1, 3):
        c = np.full((2, gemm.m, gemm.n), 77).astype(gemm.dtype.numpy)
        run(code, "product", plan, (laid_out(a, gemm.a), laid_out(b, gemm.b), c), nthreads)
        results.append(c)
    check(results[0], a, b)
    assert results[0].tobytes() == results[1].tobytes()


def test_pairs_with_an_epilogue_and_packed_once(dots: Target, rng: np.random.Generator) -> None:
    gemm = dataclasses.replace(Gemm.dense(30, 75, 60, as_dtype("bfloat16")), finished=as_dtype("bfloat16"))
    plain, plan = (plan_gemm(dataclasses.replace(gemm, packed=packed), dots, pairs=True) for packed in (False, True))
    assert plan.gemm.pairs and packed_bytes(plain) == 60 * 80 * 2
    module = Module(dots)
    emit_pack(module, "pack", plain, module.named)
    emit_gemm(module, "product", plan, epilogue("bias_relu_pairs", plan, 1, bias_relu), module.named)
    code = Code(module, dots)
    a, b, bias = (rng.integers(-3, 4, shape).astype(gemm.dtype.numpy) for shape in ((30, 60), (60, 75), (75,)))
    packed, c = workspace(packed_bytes(plain)), np.empty((30, 75), gemm.dtype.numpy)
    for tid in range(2):
        code("pack", b, packed, tid, 2)
    run(code, "product", plan, (a, packed, c, bias), 2)
    wide = (a.astype("float32") @ b.astype("float32")).astype(gemm.dtype.numpy).astype("float32")
    np.testing.assert_array_equal(c, np.maximum(wide + bias.astype("float32"), 0).astype(gemm.dtype.numpy))


def test_pairs_of_numbers_that_are_none(dots: Target) -> None:
    """NaN and infinity, and nothing of them where they are not."""
    dtype = as_dtype("bfloat16")
    a, b = np.ones((17, 10), dtype.numpy), np.ones((10, 21), dtype.numpy)
    a[3, 4], b[2, 20], b[5, 0], a[9, 5] = np.nan, np.inf, np.inf, 0
    plan = plan_gemm(Gemm.dense(17, 21, 10, dtype), dots, pairs=True)
    c = np.empty((17, 21), dtype.numpy)
    run(compiled(plan, dots), "product", plan, (a, b, c))
    with np.errstate(invalid="ignore"):
        expected = a.astype("float32") @ b.astype("float32")
    np.testing.assert_array_equal(c.astype("float32"), expected)


def test_helpers_are_shared(target: Target, rng: np.random.Generator) -> None:
    """Products of other sizes need the same micro-kernels; compiled once, they serve both."""
    module = Module(target)
    plans = [plan_gemm(Gemm.dense(m, 64, 50, transpose_b=True), target) for m in (60, 1200)]
    for number, plan in enumerate(plans):
        emit_gemm(module, f"product{number}", plan, helpers=module.named)
        if not number:
            first = dict(module.called)
    assert module.called == first
    code = Code(module, target)
    for number, plan in enumerate(plans):
        a, b = rng.standard_normal((plan.gemm.m, 50), "float32"), rng.standard_normal((64, 50), "float32")
        c = np.empty((plan.gemm.m, 64), "float32")
        run(code, f"product{number}", plan, (a, b, c))
        check(c, a, b.T)


def test_threads_at_the_same_time(rng: np.random.Generator) -> None:
    """All threads start a phase together; who is faster does not matter."""
    gemm = Gemm.dense(700, 300, 600, transpose_b=True)
    plan = plan_gemm(gemm, host(()))
    assert plan.phases == ("pack", "compute")
    code = compiled(plan, host(()))
    a, b = rng.standard_normal((700, 600), "float32"), rng.standard_normal((300, 600), "float32")
    results = []
    for nthreads in (1, 2, 4):
        c, memory = np.empty((700, 300), "float32"), workspace(plan.workspace_bytes(nthreads))
        barrier = threading.Barrier(nthreads)

        def work(tid: int, c: Any = c, memory: Any = memory, barrier: Any = barrier, n: int = nthreads) -> None:
            for phase in phase_names("product", plan.phases):
                barrier.wait()
                code(phase, a, b, c, memory, tid, n)

        threads = [threading.Thread(target=work, args=(tid,)) for tid in range(nthreads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results.append(c)
    check(results[0], a, b.T)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_plans_do_not_know_about_threads() -> None:
    """Work is cut by shapes; the number of threads only sizes the workspace."""
    plan = plan_gemm(Gemm.dense(64, 64, 12544, transpose_a=True), host(()))
    assert plan.parts.pieces > 1 and plan.phases == ("compute", "combine")
    assert plan.workspace_bytes(3) - plan.workspace_bytes(2) == plan.private_elements * 4


@pytest.mark.parametrize("m", [0, 1, 5, 14, 29, 70, 1000])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_cuts_cover_everything_once(m: int, pieces: int) -> None:
    cut = Cut(m, pieces)
    assert [cut.start(0), cut.start(pieces)] == [0, m]
    assert sum((end - first) * size for first, end, size in cut.segments) == m
    assert all(cut.start(p + 1) - cut.start(p) in (cut.size, cut.size - 1) for p in range(pieces))


# Epilogues -----------------------------------------------------------------------------------------------------------
Change = Callable[[Any, Any, Any, Any, Any], Any]  # (builder, value, row, column, load) -> value


def epilogue(name: str, plan: Any, operands: int, change: Change) -> Epilogue:
    """An epilogue that changes each vector; `load(operand, index)` has neighbours of an operand."""
    vectors = plan.stored

    def start(builder: Any, batch: Any, row: Any, pointers: Any) -> Any:
        def write(column: Any, source: Any, goal: Any, mask: Any) -> None:
            def load(operand: int, index: Any) -> Any:
                return vectors.load(builder, vectors.at(builder, pointers[operand], index), mask)

            line = builder.add(builder.mul(batch, ir.IntType(64)(25)), row)
            value = change(builder, vectors.load(builder, source), line, column, load)
            vectors.store(builder, value, goal, mask)

        return write

    return Epilogue(name, vectors.dtype, operands, start)


def bias_relu(builder: Any, value: Any, row: Any, column: Any, load: Any) -> Any:
    value = builder.fadd(value, load(0, column))
    zero = ir.Constant(value.type, [0.0] * value.type.count)
    return builder.select(builder.fcmp_ordered(">", value, zero), value, zero)


def add_residual(builder: Any, value: Any, row: Any, column: Any, load: Any) -> Any:
    """Adds operand 0, a matrix of 43 columns per row, 25 rows per product."""
    return builder.fadd(value, load(0, builder.add(builder.mul(row, ir.IntType(64)(43)), column)))


@pytest.mark.parametrize("k", [1, 30, 3000, 40000])
def test_bias_and_activation(target: Target, rng: np.random.Generator, k: int) -> None:
    """Once for each result, after the whole sum, however the sum is cut."""
    plan = plan_gemm(dataclasses.replace(Gemm.dense(25, 43, k), finished=as_dtype("float32")), target)
    code = compiled(plan, target, epilogue("bias_relu", plan, 1, bias_relu))
    a, b, bias = (rng.integers(-3, 4, shape).astype("float32") for shape in ((25, k), (k, 43), (43,)))
    c = np.empty((25, 43), "float32")
    run(code, "product", plan, (a, b, c, bias), 2)
    np.testing.assert_array_equal(c, np.maximum(a @ b + bias, 0))


def test_residual_in_place(target: Target, rng: np.random.Generator) -> None:
    plan = plan_gemm(dataclasses.replace(Gemm.dense(25, 43, 30, batch=(3,)), finished=as_dtype("float32")), target)
    code = compiled(plan, target, epilogue("residual", plan, 1, add_residual))
    a, b, c = (rng.integers(-3, 4, shape).astype("float32") for shape in ((3, 25, 30), (3, 30, 43), (3, 25, 43)))
    before = c.copy()
    run(code, "product", plan, (a, b, c, c), 2)
    np.testing.assert_array_equal(c, a @ b + before)


def test_not_a_number_and_infinity(target: Target) -> None:
    """As IEEE has it: 0 · ∞ is NaN, and nothing outside of the operands gets in."""
    a, b = np.ones((17, 9), "float32"), np.ones((9, 21), "float32")
    a[3, 4], b[2, 20], b[5, 0], a[9, 5] = np.nan, np.inf, np.inf, 0
    plan = plan_gemm(Gemm.dense(17, 21, 9), target)
    c = np.empty((17, 21), "float32")
    run(compiled(plan, target), "product", plan, (a, b, c))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(c, a @ b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_of_half_types(target: Target, dtype: str) -> None:
    """All values there are, times 1, and float32 between and beyond them: as ml_dtypes and NumPy round."""
    kind = as_dtype(dtype)
    every = np.arange(1 << 16, dtype="uint16").view(kind.numpy)
    with np.errstate(over="ignore", invalid="ignore"):
        halves = every.astype("float32")
        pairs = np.stack([every, np.roll(every, -1)], 1)  # a · 1 + b · 1 lies between values, exact in float32 or not
        expected = (halves + np.roll(halves, -1)).astype(kind.numpy)
    plan = plan_gemm(Gemm.dense(1 << 16, 1, 2, kind), target)
    c = np.empty(1 << 16, kind.numpy)
    run(compiled(plan, target), "product", plan, (pairs, np.ones(2, kind.numpy), c))
    both = np.isnan(expected.astype("float32")) & np.isnan(c.astype("float32"))
    np.testing.assert_array_equal(np.where(both, 0, c.view("uint16")), np.where(both, 0, expected.view("uint16")))


# Convolutions --------------------------------------------------------------------------------------------------------
KINDS = ("conv", "conv_input_grad", "conv_kernel_grad")
PLANNERS: dict[str, Callable[[Conv, Target], Any]] = {
    "conv": plan_conv,
    "conv_input_grad": plan_conv_input_grad,
    "conv_kernel_grad": plan_conv_kernel_grad,
}


def square(
    size: int, channels: int, filters: int, window: int, stride: int = 1, pad: tuple[int, int] = (0, 0), **more: Any
) -> Conv:
    """Two images of two spatial axes that are treated alike."""
    conv = Conv(2, (size, size), channels, filters, (window,) * 2, (stride,) * 2, (pad, pad), (1, 1))
    return dataclasses.replace(conv, **more)


CONVS = {
    "3x3": square(9, 5, 40, 3, pad=(1, 1)),
    "3x3 without border": square(9, 16, 16, 3),
    "pointwise": square(7, 20, 33, 1),
    "pointwise in groups": square(7, 20, 34, 1, groups=2),
    "pointwise with strides": square(9, 20, 33, 1, 2),
    "pointwise with a border": square(5, 3, 18, 1, pad=(1, 2)),
    "strides": square(11, 3, 17, 3, 2, (1, 1)),
    "strides beyond the window": square(11, 4, 16, 2, 3, (0, 1)),
    "strides that leave a rest": square(12, 4, 16, 3, 4),
    "dilation": square(13, 4, 18, 3, pad=(2, 2), dilation=(2, 2)),
    "dilation and strides": square(15, 4, 18, 3, 2, (3, 2), dilation=(2, 3)),
    "dilation that misses positions": square(15, 4, 18, 3, 2, dilation=(2, 2)),
    "a border beyond the window": square(4, 3, 16, 2, pad=(5, 3)),
    "a window as large as the image": square(6, 8, 50, 6),
    "groups": square(8, 12, 40, 3, pad=(1, 1), groups=4),
    "groups of one filter": square(8, 12, 6, 3, 2, (1, 1), groups=6),
    "depthwise": square(9, 37, 37, 3, pad=(1, 1), groups=37),
    "depthwise with strides": square(9, 16, 16, 5, 2, (2, 1), groups=16),
    "depthwise pointwise": square(5, 19, 19, 1, groups=19),
    "depthwise, two filters each": square(8, 9, 18, 3, pad=(1, 1), groups=9),
    "one axis": Conv(3, (30,), 6, 20, (5,), (2,), ((3, 1),), (1,)),
    "three axes": Conv(2, (5, 6, 7), 3, 18, (3, 2, 3), (1, 2, 1), ((1, 1), (0, 1), (2, 0)), (2, 1, 1)),
    "rank 3, depthwise": Conv(1, (4, 5, 6), 20, 20, (3, 3, 3), (2, 1, 2), ((1, 1),) * 3, (1, 1, 1), 20),
    "many channels": square(7, 600, 40, 3, pad=(1, 1)),
    "steps of a page": square(7, 512, 32, 3, pad=(1, 1), images=1),
    "first layer": square(40, 3, 32, 7, 2, (3, 2)),
    "one image": square(30, 16, 32, 3, pad=(1, 1), images=1),
    "no images": square(5, 4, 8, 3, images=0),
    "no channels": square(5, 0, 8, 3, pad=(1, 1)),
    "no filters": square(5, 4, 0, 3, pad=(1, 1)),
}


def shapes(conv: Conv) -> dict[str, tuple[tuple[int, ...], ...]]:
    """What each of the three operators reads, and what it makes."""
    x = (conv.images, *conv.sizes, conv.channels)
    kernel = (*conv.window, conv.channels // conv.groups, conv.filters)
    y = (conv.images, *conv.points, conv.filters)
    return {"conv": (x, kernel, y), "conv_input_grad": (y, kernel, x), "conv_kernel_grad": (x, y, kernel)}


def interpreted(kind: str, conv: Conv, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What the language says."""
    if 0 in a.shape or 0 in b.shape:
        return np.zeros(shapes(conv)[kind][2], a.dtype)  # sums of nothing
    shape = {} if kind == "conv" else {"shape": shapes(conv)[kind][2]}
    geometry = {name: getattr(conv, name) for name in ("strides", "padding", "dilation", "groups")}
    return np.asarray(REGISTRY[kind].numpy(np, a, b, **shape, **geometry))


def emit(module: Module, kind: str, plan: Any) -> None:
    if kind == "conv_kernel_grad":
        emit_conv_kernel_grad(module, "product", plan, module.named)
    else:
        emit_conv(module, "product", plan, helpers=module.named)


def check_conv(kind: str, conv: Conv, target: Target, rng: np.random.Generator) -> None:
    """Right, and equal to the bit with 1 and 3 threads."""
    plan = PLANNERS[kind](conv, target)
    module = Module(target)
    emit(module, kind, plan)
    code = Code(module, target)
    *sources, goal = shapes(conv)[kind]
    a, b = (operand(rng, shape, conv.dtype) for shape in sources)
    results = []
    for nthreads in (1, 3):
        c = np.full(goal, 77).astype(conv.dtype.numpy)
        run(code, "product", plan, (a, b, c), nthreads)
        results.append(c)
    assert results[0].tobytes() == results[1].tobytes()
    if not conv.dtype.is_float:
        np.testing.assert_array_equal(results[0], interpreted(kind, conv, a, b))
        return
    name, wide = conv.dtype.name, [x.astype("float64") for x in (a, b)]
    sizes = interpreted(kind, conv, *(np.abs(x) for x in wide))
    terms = np.maximum(1, interpreted(kind, conv, *(np.ones_like(x) for x in wide)))  # how many products each sum has
    half = conv.dtype.size_bytes == 2
    relative = terms / 4 * ROUNDING["float32" if half else name] + ROUNDING[name] * (2 if half else 4)
    assert (np.abs(results[0].astype("float64") - interpreted(kind, conv, *wide)) <= relative * sizes + 1e-30).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(target: Target, rng: np.random.Generator, kind: str, name: str) -> None:
    check_conv(kind, CONVS[name], target, rng)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["3x3", "depthwise", "strides", "pointwise"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int8", "int32"])
def test_types_of_convolutions(target: Target, rng: np.random.Generator, kind: str, name: str, dtype: str) -> None:
    check_conv(kind, dataclasses.replace(CONVS[name], dtype=as_dtype(dtype)), target, rng)


def drawn(rng: np.random.Generator) -> Conv:
    """Some convolution."""
    rank = int(rng.integers(1, 4))

    def axes(*choices: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.choice(choices, rank))

    groups, inner, outer = (int(rng.choice(n)) for n in ((1, 1, 2, 3), (1, 2, 5, 16, 17), (1, 3, 16, 33, 50)))
    if rng.random() < 0.3:
        groups, inner, outer = int(rng.choice((2, 7, 16, 40))), 1, 1
    window, dilation = axes(1, 2, 3, 5), axes(1, 1, 2)
    padding = tuple(zip(axes(0, 0, 1, 2, 4), axes(0, 0, 1, 2), strict=True))
    least = [(w - 1) * d + 1 - sum(pad) for w, d, pad in zip(window, dilation, padding, strict=True)]
    sizes = tuple(max(1, low) + more for low, more in zip(least, axes(0, 1, 2, 5, 9), strict=True))
    strides, images = axes(1, 1, 2, 3), int(rng.integers(1, 4))
    return Conv(images, sizes, inner * groups, outer * groups, window, strides, padding, dilation, groups)


@pytest.mark.parametrize("seed", range(20))
def test_convolutions_at_random(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv = drawn(rng)
    for kind in KINDS:
        check_conv(kind, conv, target, rng)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 2100))
def test_many_convolutions_at_random(target: Target, seed: int) -> None:
    test_convolutions_at_random(target, seed)


@pytest.mark.parametrize("name", ["3x3", "pointwise in groups", "strides", "groups", "depthwise", "many channels"])
@pytest.mark.parametrize("kind", ["conv", "conv_input_grad"])
def test_kernels_packed_once(target: Target, rng: np.random.Generator, name: str, kind: str) -> None:
    conv = CONVS[name]
    plain, plan = (PLANNERS[kind](dataclasses.replace(conv, packed=packed), target) for packed in (False, True))
    module = Module(target)
    emit_conv_pack(module, "pack", plain, module.named)
    emit_conv(module, "product", plan, helpers=module.named)
    code = Code(module, target)
    *sources, goal = shapes(conv)[kind]
    a, kernel = (rng.integers(-4, 5, shape).astype("float32") for shape in sources)
    packed, c = workspace(packed_bytes(plain)), np.empty(goal, "float32")
    for tid in range(3):
        code("pack", kernel, packed, tid, 3)
    assert plan.phases == ("compute",)
    run(code, "product", plan, (a, packed, c), 2)
    np.testing.assert_array_equal(c, interpreted(kind, conv, a, kernel))


@pytest.mark.parametrize("name", ["3x3", "pointwise in groups", "strides", "groups", "depthwise", "many channels"])
@pytest.mark.parametrize("kind", ["conv", "conv_input_grad"])
def test_epilogues_of_convolutions(target: Target, rng: np.random.Generator, name: str, kind: str) -> None:
    """Bias and ReLU by channel, then a residual by pixel and channel: every result knows its place."""
    conv = CONVS[name]
    *sources, goal = shapes(conv)[kind]

    def finish(builder: Any, value: Any, row: Any, column: Any, load: Any) -> Any:
        value = bias_relu(builder, value, row, column, load)
        return builder.fadd(value, load(1, builder.add(builder.mul(row, ir.IntType(64)(goal[-1])), column)))

    plan = PLANNERS[kind](dataclasses.replace(conv, finished=as_dtype("float32")), target)
    module = Module(target)
    emit_conv(module, "product", plan, epilogue(f"bias_relu_residual_{goal[-1]}", plan, 2, finish), module.named)
    a, kernel, bias, residual = (rng.integers(-4, 5, shape).astype("float32") for shape in (*sources, goal[-1:], goal))
    c = np.empty(goal, "float32")
    run(Code(module, target), "product", plan, (a, kernel, c, bias, residual), 2)
    np.testing.assert_array_equal(c, np.maximum(interpreted(kind, conv, a, kernel) + bias, 0) + residual)


def test_convolution_flops() -> None:
    assert Conv.same(4, 56, 64, 128, 3, 2).flops == 2 * 4 * 28 * 28 * 9 * 64 * 128


# Other CPUs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
def test_aarch64(dtype: str) -> None:
    """LLVM accepts the code and makes objects of it, without calls of functions that a linker would have to find."""
    module = Module(aarch64())
    emit_gemm(module, "product", plan_gemm(Gemm.dense(40, 37, 700, as_dtype(dtype), transpose_b=True), aarch64()))
    text = assembly(str(module), aarch64())
    calls = {line.split()[-1] for line in text.splitlines() if line.strip().startswith("bl\t")}
    assert all(name.startswith(("tile_", "copy_")) for name in calls), calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["3x3", "depthwise", "strides", "three axes"])
def test_convolutions_on_aarch64(name: str, kind: str) -> None:
    module = Module(aarch64())
    emit(module, kind, PLANNERS[kind](CONVS[name], aarch64()))
    for each in (module, *(helper_module(helper, aarch64().triple) for helper in module.called.values())):
        assert compile_ir(str(each), aarch64())[:4] == b"\x7fELF"


def kept_on_the_stack(plan: GemmPlan, cpu: Target) -> int:
    """How many stores of vector registers to the stack there are in the micro-kernels."""
    module = Module(cpu)
    emit_gemm(module, "product", plan)
    text = assembly(str(module), cpu)
    return len(re.findall(r"^\s*(?:v?mov[au]p[sd]\s+%[xyz]mm\d+, .*\(%rsp\)|st[rp]\s+q\d+.*\[sp)", text, re.MULTILINE))


@pytest.mark.parametrize("cpu", ["native", "AVX2", "NEON"])
def test_tiles_fit_the_registers(cpu: str) -> None:
    """No sum is ever kept on the stack; one more row, and some are."""
    target = aarch64() if cpu == "NEON" else host(CPUS[cpu])
    gemm = Gemm.dense(240, 240, 100)
    plan = plan_gemm(gemm, target)
    assert kept_on_the_stack(plan, target) == 0
    larger = dataclasses.replace(plan, rows=Cut(240, 20), columns=Cut(plan.columns.extent, plan.columns.extent // 5))
    assert kept_on_the_stack(dataclasses.replace(larger, row_blocks=Cut(20, 1), panel_groups=Cut(1, 1)), target) > 0
