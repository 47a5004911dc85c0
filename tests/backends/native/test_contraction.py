"""Contractions: what the generated code computes, against NumPy in wider types and the interpreter."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from highlevel.backends.native.codegen.contraction import (
    Cut,
    Epilogue,
    Gemm,
    GemmPlan,
    Matrix,
    Tile,
    emit_gemm,
    emit_pack,
    helper_module,
    packed_bytes,
    phase_names,
    plan_gemm,
)
from highlevel.backends.native.codegen.targets import Target, aarch64, assembly, compile_ir, host
from highlevel.errors import ArgumentError
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
    """Functions of a module, compiled and loaded."""

    def __init__(self, module: Any, target: Target, *others: Any) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for each in (module, *others):
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(compile_ir(str(each), target)))
        self._engine.finalize_object()

    def __call__(self, name: str, *arguments: Any) -> None:
        """Arrays as pointers, numbers as 32-bit integers."""
        kinds = [ctypes.c_int32 if isinstance(a, int) else ctypes.c_void_p for a in arguments]
        values = [a if isinstance(a, int) else a.ctypes.data for a in arguments]
        ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address(name))(*values)


def new_module(target: Target) -> Any:
    module = ir.Module()
    module.triple = target.triple
    return module


def workspace(size_bytes: int) -> np.ndarray:
    """Bytes that hold no zeros, aligned to a cache line."""
    memory = np.full(size_bytes + 64, 0xA5, np.uint8)
    return memory[-memory.ctypes.data % 64 :]


def run(code: Code, name: str, plan: GemmPlan, arrays: Sequence[np.ndarray], nthreads: int = 1) -> None:
    """All phases, one after the other; threads take turns, in falling order."""
    memory = workspace(plan.workspace_bytes(nthreads))
    a, b, c, *operands = arrays
    for phase in phase_names(name, plan.phases):
        for tid in reversed(range(nthreads)):
            code(phase, a, b, c, memory, tid, nthreads, *operands)


def compiled(plan: GemmPlan, target: Target, epilogue: Epilogue | None = None) -> Code:
    module = new_module(target)
    emit_gemm(module, "product", plan, epilogue)
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
    module = new_module(target)
    plans = {}
    for number, (m, n, k) in enumerate(sizes):
        gemm = Gemm.dense(m, n, k, transpose_a=number % 2 == 1, transpose_b=number % 3 == 1)
        plans[f"product{number}"] = plan_gemm(gemm, target)
        emit_gemm(module, f"product{number}", plans[f"product{number}"])
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
    module = new_module(target)
    emit_pack(module, "pack", plain)
    emit_gemm(module, "product", plan)
    code = Code(module, target)
    a, b = (operand(rng, shape, gemm.dtype) for shape in ((2, 30, 60), (2, 60, 75)))
    packed = workspace(packed_bytes(plain))
    for tid in range(3):
        code("pack", laid_out(b, gemm.b), packed, tid, 3)
    c = np.empty((2, 30, 75), gemm.dtype.numpy)
    assert plan.phases == ("compute",)
    run(code, "product", plan, (a, packed, c), 2)
    check(c, a, b)


def test_helpers_are_shared(target: Target, rng: np.random.Generator) -> None:
    """Products of other sizes need the same micro-kernels; compiled once, they serve both."""
    module = new_module(target)
    helpers: dict[str, Any] = {}
    plans = [plan_gemm(Gemm.dense(m, 64, 50, transpose_b=True), target) for m in (60, 1200)]
    for number, plan in enumerate(plans):
        emit_gemm(module, f"product{number}", plan, helpers=helpers)
        if not number:
            first = dict(helpers)
    assert helpers == first
    code = Code(module, target, *(helper_module(helper, target.triple) for helper in helpers.values()))
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
def bias_relu(builder: Any, tile: Tile) -> list[list[Any]]:
    biases = [tile.load(builder, 0, j, column) for j, column in enumerate(tile.columns)]
    return [
        [maximum_with_zero(builder, tile, builder.fadd(value, bias)) for value, bias in zip(row, biases, strict=True)]
        for row in tile.values
    ]


def maximum_with_zero(builder: Any, tile: Tile, value: Any) -> Any:
    zero = ir.Constant(value.type, [0.0] * tile.vectors.lanes)
    return builder.select(builder.fcmp_ordered(">", value, zero), value, zero)


def add_residual(builder: Any, tile: Tile) -> list[list[Any]]:
    """Adds operand 0, a matrix of 43 columns per row, 25 rows per product."""
    i64 = ir.IntType(64)
    found: list[list[Any]] = []
    for i, row in enumerate(tile.rows):
        line = builder.add(builder.mul(tile.batch, i64(25)), row)
        found.append([])
        for j, column in enumerate(tile.columns):
            residual = tile.load(builder, 0, j, builder.add(builder.mul(line, i64(43)), column))
            found[-1].append(builder.fadd(tile.values[i][j], residual))
    return found


@pytest.mark.parametrize("k", [1, 30, 3000, 40000])
def test_bias_and_activation(target: Target, rng: np.random.Generator, k: int) -> None:
    """Once for each result, after the whole sum, however the sum is cut."""
    plan = plan_gemm(Gemm.dense(25, 43, k), target)
    code = compiled(plan, target, Epilogue("bias_relu", bias_relu, operands=1))
    a, b, bias = (rng.integers(-3, 4, shape).astype("float32") for shape in ((25, k), (k, 43), (43,)))
    c = np.empty((25, 43), "float32")
    run(code, "product", plan, (a, b, c, bias), 2)
    np.testing.assert_array_equal(c, np.maximum(a @ b + bias, 0))


def test_residual_in_place(target: Target, rng: np.random.Generator) -> None:
    plan = plan_gemm(Gemm.dense(25, 43, 30, batch=(3,)), target)
    code = compiled(plan, target, Epilogue("residual", add_residual, operands=1))
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


# Other CPUs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
def test_aarch64(dtype: str) -> None:
    """LLVM accepts the code and makes objects of it, without calls of functions that a linker would have to find."""
    module = new_module(aarch64())
    emit_gemm(module, "product", plan_gemm(Gemm.dense(40, 37, 700, as_dtype(dtype), transpose_b=True), aarch64()))
    text = assembly(str(module), aarch64())
    calls = {line.split()[-1] for line in text.splitlines() if line.strip().startswith("bl\t")}
    assert all(name.startswith(("tile_", "copy_")) for name in calls), calls


def kept_on_the_stack(plan: GemmPlan, cpu: Target) -> int:
    """How many stores of vector registers to the stack there are in the micro-kernels."""
    module = new_module(cpu)
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
