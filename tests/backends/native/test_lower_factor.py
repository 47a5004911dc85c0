"""Factorisations in machine code: products of the factors, orthogonality and order, in wider types and beside NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel.backends.native.codegen.targets import compile_ir, host
from highlevel.backends.native.codegen.targets.symbols import foreign
from highlevel.backends.native.lower.factor import CORES
from highlevel.backends.native.lower.registry import LOWERINGS
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.errors import ArgumentError
from highlevel.ir import REGISTRY, Node, Spec, as_dtype

Array = np.ndarray[Any, Any]
Lowered = Callable[..., list[Array]]
TYPES = ("float32", "float64")
HALVES = ("float16", "bfloat16")
WITHOUT: list[tuple[str, ...]] = [("avx512f",), ("avx",)]
SQUARE = (1, 2, 3, 16, 17, 33, 70)
SHAPES = [(1, 1), (1, 5), (5, 1), (3, 3), (4, 7), (7, 4), (17, 17), (33, 20), (20, 33), (100, 37), (64, 70)]
LARGER = [(n, n) for n in SQUARE]


def matrices(rng: np.random.Generator, rows: int, columns: int, dtype: str) -> Array:
    """Matrices that are easy, singular, of low rank, badly scaled, and so on, as one batch."""
    a = rng.standard_normal((rows, columns))
    half = columns // 2 + 1
    kinds = [
        a,
        np.outer(a[:, 0], a[0]),
        a * 0,
        a * 0 + 1,
        a * np.logspace(0, -12, columns),
        a * np.logspace(-12, 0, rows)[:, None],
        a * np.logspace(0, -38, columns),
        np.rint(a),
        np.eye(rows, columns),
        -np.eye(rows, columns)[::-1],
        a * 1e30,
        a * 1e-30,
        np.concatenate([a[:, :half], a[:, :half]], 1)[:, :columns],
        1 / (1 + np.arange(rows)[:, None] + np.arange(columns)),
    ]
    return np.stack(kinds).astype(dtype)


def transposed(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def wide(*arrays: Array) -> list[Array]:
    """In a type whose rounding does not count."""
    kinds = {"float32": np.float64, "float64": np.longdouble}
    return [array.astype(kinds.get(array.dtype.name, np.float64)) for array in arrays]


def norms(a: Array) -> Array:
    """Frobenius norms, at least the smallest that counts."""
    largest = np.abs(a).max((-1, -2), keepdims=True) + 1e-300
    return largest * np.sqrt(((a / largest) ** 2).sum((-1, -2), keepdims=True)) + 1e-300


def close(found: Array, expected: Array, dtype: str, size: Array | float = 1.0, factor: float = 8.0) -> None:
    """Within some units in the last place of numbers of that size, times the root of the number of terms."""
    allowed = factor * np.sqrt(max(found.shape[-2:])) * float(np.finfo(dtype).eps) * size
    assert (np.abs(found - expected) <= allowed + 4 * np.finfo(dtype).smallest_subnormal).all()


def orthonormal(columns: Array, dtype: str) -> None:
    (q,) = wide(columns)
    close(transposed(q) @ q, np.eye(q.shape[-1]), dtype, factor=24.0)


def both(cases: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("shape", "dtype"), list(itertools.product(cases, TYPES)))


# What each of them promises ------------------------------------------------------------------------------------------
def check_qr(a: Array, q: Array, r: Array) -> None:
    dtype = a.dtype.name
    wide_a, wide_q, wide_r = wide(a, q, r)
    close(wide_q @ wide_r, wide_a, dtype, norms(wide_a))
    orthonormal(q, dtype)
    assert (np.tril(r, -1) == 0).all()


def check_svd(a: Array, u: Array, s: Array, vh: Array) -> None:
    dtype = a.dtype.name
    wide_a, wide_u, wide_s, wide_vh = wide(a, u, s, vh)
    close(wide_u * wide_s[..., None, :] @ wide_vh, wide_a, dtype, norms(wide_a))
    orthonormal(u, dtype)
    orthonormal(transposed(vh), dtype)
    assert (s >= 0).all() and (np.diff(s) <= 0).all()
    expected = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    close(s[..., None, :].astype(np.float64), expected[..., None, :], dtype, norms(a.astype(np.float64)))


def check_eigh(a: Array, w: Array, v: Array) -> None:
    dtype = a.dtype.name
    wide_a, wide_w, wide_v = wide(a, w, v)
    symmetric = (wide_a + transposed(wide_a)) / 2
    close(wide_v * wide_w[..., None, :] @ transposed(wide_v), symmetric, dtype, norms(symmetric))
    orthonormal(v, dtype)
    assert (np.diff(w) >= 0).all()
    expected = np.linalg.eigvalsh(symmetric.astype(np.float64))
    close(w[..., None, :].astype(np.float64), expected[..., None, :], dtype, norms(symmetric.astype(np.float64)))


def check_lu(a: Array, packed: Array, order: Array) -> None:
    dtype, (rows, columns) = a.dtype.name, a.shape[-2:]
    size = min(rows, columns)
    assert order.dtype == np.int32
    assert (np.sort(order, -1) == np.arange(rows)).all()
    wide_a, wide_lu = wide(a, packed)
    lower = np.tril(wide_lu[..., :, :size], -1) + np.eye(rows, size)
    upper = np.triu(wide_lu[..., :size, :])
    assert (np.abs(lower) <= 1).all()
    taken = np.take_along_axis(wide_a, order[..., None].astype(np.int64), -2)
    close(lower @ upper, taken, dtype, np.abs(upper).max((-1, -2), keepdims=True))


def check_cholesky(a: Array, lower: Array) -> None:
    wide_a, wide_l = wide(a, lower)
    close(wide_l @ transposed(wide_l), wide_a, a.dtype.name, norms(wide_a))
    assert (np.triu(lower, 1) == 0).all() and (np.einsum("...ii->...i", lower) > 0).all()


CHECKS = {"qr": check_qr, "svd": check_svd, "eigh": check_eigh, "lu": check_lu}


def positive_definite(rng: np.random.Generator, n: int, dtype: str) -> Array:
    a = rng.standard_normal((5, n, n))
    scales = np.array([1e-10, 1e10, 1, 1, 1])[:, None, None]
    graded = np.logspace(0, -3, n)
    products = (a @ transposed(a) / n + np.eye(n)) * scales
    products[2] *= np.outer(graded, graded)
    return products.astype(dtype)


# Values --------------------------------------------------------------------------------------------------------------
@both(SHAPES)
@pytest.mark.parametrize("name", ["qr", "svd", "lu"])
def test_factors(
    lowered: Lowered, rng: np.random.Generator, name: str, shape: tuple[int, int], dtype: str
) -> None:
    a = matrices(rng, *shape, dtype)
    CHECKS[name](a, *lowered(name, a))


@both(LARGER)
def test_eigenvalues(lowered: Lowered, rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> None:
    a = matrices(rng, *shape, dtype)
    check_eigh(a, *lowered("eigh", a))


@both(LARGER)
def test_cholesky(lowered: Lowered, rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> None:
    a = positive_definite(rng, shape[0], dtype)
    check_cholesky(a, *lowered("cholesky", a))


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("unit_diagonal", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_triangular_solve(
    lowered: Lowered, rng: np.random.Generator, dtype: str, lower: bool, transpose: bool, unit_diagonal: bool
) -> None:
    attrs = {"lower": lower, "transpose": transpose, "unit_diagonal": unit_diagonal}
    for n, columns in ((1, 1), (3, 1), (16, 3), (33, 20), (70, 40)):
        factor = np.linalg.cholesky(positive_definite(rng, n, "float64"))[:2]
        factor /= np.einsum("...ii->...i", factor)[..., None] if attrs["unit_diagonal"] else 1.0
        a = factor if attrs["lower"] else transposed(factor)
        other = np.triu(np.ones((n, n), bool), 1) if attrs["lower"] else np.tril(np.ones((n, n), bool), -1)
        a = np.where(other, np.nan, a).astype(dtype)  # the other triangle is never read
        b = rng.standard_normal((2, n, columns)).astype(dtype)
        (x,) = lowered("triangular_solve", a, b, **attrs)
        matrix, wide_b, wide_x = wide(np.where(other, 0, a), b, x)
        matrix = transposed(matrix) if attrs["transpose"] else matrix
        error = np.abs(matrix @ wide_x - wide_b)
        assert (error <= 2 * n * np.finfo(dtype).eps * (np.abs(matrix) @ np.abs(wide_x))).all()


def test_signs_are_those_of_lapack(lowered: Lowered, rng: np.random.Generator) -> None:
    for rows, columns in ((6, 6), (9, 4), (4, 9), (1, 1), (40, 40)):
        a = rng.standard_normal((rows, columns))
        found, expected = lowered("qr", a), np.linalg.qr(a)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-10)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-10)


def test_pivots_are_those_of_the_definition(lowered: Lowered, rng: np.random.Generator) -> None:
    for shape in ((3, 5, 5), (2, 40, 40), (2, 33, 70), (2, 70, 33), (4, 1, 3), (4, 3, 1)):
        a = rng.standard_normal(shape)
        found, expected = lowered("lu", a), REGISTRY["lu"].numpy(np, a)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(found[1], expected[1])
    ties = rng.integers(-1, 2, (20, 6, 6)).astype(np.float64)  # the first of equal pivots, columns of zeros
    for got, want in zip(lowered("lu", ties), REGISTRY["lu"].numpy(np, ties), strict=True):
        np.testing.assert_array_equal(got, want)


def test_small_singular_values_of_scaled_columns(lowered: Lowered, rng: np.random.Generator) -> None:
    q, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    scales = np.logspace(0, -12, 20)
    _, s, _ = lowered("svd", q * scales)
    np.testing.assert_allclose(s, scales, rtol=1e-10)


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_types_are_computed_in_float32(
    lowered: Lowered, rng: np.random.Generator, name: str, dtype: str
) -> None:
    kind = as_dtype(dtype).numpy
    attrs = {"lower": True, "transpose": False, "unit_diagonal": False} if name == "triangular_solve" else {}
    arrays = [positive_definite(rng, 6, "float32")[3:].astype(kind)]
    if attrs:
        arrays.append(rng.standard_normal((2, 6, 3)).astype(kind))
    found = lowered(name, *arrays, **attrs)
    singles = lowered(name, *(array.astype(np.float32) for array in arrays), **attrs)
    for half, single in zip(found, singles, strict=True):
        rounded = single if single.dtype == np.int32 else single.astype(kind)
        assert half.dtype == rounded.dtype and half.tobytes() == rounded.tobytes()


# Bad matrices --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_gives_nan(
    lowered: Lowered, rng: np.random.Generator, bad: float, dtype: str
) -> None:
    a = rng.standard_normal((4, 9, 9)).astype(dtype)
    a[1, 4, 2] = a[2, 0, 0] = a[3, 8, 8] = bad
    for name in ("svd", "eigh"):
        for result in lowered(name, a):
            assert np.isfinite(result[0]).all() and np.isnan(result[1:]).all()
    q = lowered("qr", a)[0]
    assert np.isfinite(q[0]).all() and np.isnan(q[1:3]).any((-1, -2)).all()
    packed, order = lowered("lu", a)
    assert not np.isfinite(packed[1:]).all((-1, -2)).any()
    assert (np.sort(order, -1) == np.arange(9)).all()
    (x,) = lowered("triangular_solve", a, a, lower=True, transpose=False, unit_diagonal=False)
    assert np.isfinite(x[0]).all() and not np.isfinite(x[1]).all()


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_matrices_without_a_factor_are_an_error(lowered: Lowered, rng: np.random.Generator, n: int) -> None:
    a = positive_definite(rng, n, "float64")
    a[3] *= -1
    for part in (a, a[2:].astype(np.float16)):
        with pytest.raises(ArgumentError, match="not positive definite"):
            lowered("cholesky", part, nthreads=2)
    indefinite = np.eye(n)
    indefinite[n - 1, n - 1] = 0
    with pytest.raises(ArgumentError, match="not positive definite"):
        lowered("cholesky", indefinite)


def test_cholesky_looks_at_the_symmetric_part(lowered: Lowered, rng: np.random.Generator) -> None:
    a = positive_definite(rng, 7, "float64")[4:]
    skew = rng.standard_normal((7, 7))
    (found,) = lowered("cholesky", a + skew - skew.T)
    np.testing.assert_allclose(found, np.linalg.cholesky(a), rtol=1e-10)


# Threads, batches and machines ---------------------------------------------------------------------------------------
def operands(rng: np.random.Generator, name: str, batch: tuple[int, ...], dtype: str) -> tuple[list[Array], Any]:
    a = rng.standard_normal((*batch, 12, 12)).astype(dtype)
    a = (a @ transposed(a) + np.eye(12, dtype=dtype)).astype(dtype)
    if name != "triangular_solve":
        return [a], {}
    return [a, rng.standard_normal((*batch, 12, 5)).astype(dtype)], {
        "lower": False,
        "transpose": True,
        "unit_diagonal": False,
    }


@pytest.mark.parametrize("name", CORES)
def test_bits_do_not_depend_on_threads_or_batches(lowered: Lowered, rng: np.random.Generator, name: str) -> None:
    arrays, attrs = operands(rng, name, (3, 5), "float32")
    once = lowered(name, *arrays, **attrs)
    for nthreads in (2, 3, 4):
        for got, want in zip(lowered(name, *arrays, nthreads=nthreads, **attrs), once, strict=True):
            assert got.tobytes() == want.tobytes()
    alone = lowered(name, *(array[2, 3] for array in arrays), **attrs)
    for got, want in zip(alone, once, strict=True):
        assert got.tobytes() == want[2, 3].tobytes()
    empty = lowered(name, *(array[:0] for array in arrays), **attrs)
    assert [result.shape for result in empty] == [(0, *want.shape[1:]) for want in once]


@pytest.mark.parametrize("without", WITHOUT)
@pytest.mark.parametrize("name", CORES)
def test_on_smaller_machines(
    lowered: Lowered, rng: np.random.Generator, name: str, without: tuple[str, ...]
) -> None:
    target = host(without)
    for dtype in TYPES:
        if name in CHECKS:
            a = matrices(rng, 33, 33, dtype)
            CHECKS[name](a, *lowered(name, a, target=target))
        elif name == "cholesky":
            a = positive_definite(rng, 33, dtype)
            check_cholesky(a, *lowered(name, a, target=target))
        else:
            arrays, attrs = operands(rng, name, (2,), dtype)
            (found,) = lowered(name, *arrays, target=target, **attrs)
            expected = REGISTRY[name].numpy(np, *arrays, **attrs)
            np.testing.assert_allclose(found, expected, rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", CORES)
def test_nothing_is_called_that_may_not_be_there(name: str) -> None:
    target = host(("fma", "f16c", "sse4.1"))
    unit = CORES[name].unit(as_dtype("float16"), target)
    assert not foreign(compile_ir(unit.text, target, unit.level))


@pytest.mark.parametrize("name", CORES)
def test_code_for_aarch64_is_accepted(
    accepted_for_aarch64: Callable[..., None], rng: np.random.Generator, name: str
) -> None:
    arrays, attrs = operands(rng, name, (2,), "float32")
    accepted_for_aarch64(name, *arrays, **attrs)


def test_one_function_serves_all_sizes() -> None:
    def helpers(*shape: int) -> set[str]:
        spec = Spec(shape, as_dtype("float32"))
        a = Node(None, (), {}, (spec,), 0).outputs[0]
        results = REGISTRY["qr"].infer(spec)
        node = Node(REGISTRY["qr"], (a,), {}, results, 0)
        buffers = [Buffer(f"out{i}", tuple(s.shape), s.dtype) for i, s in enumerate(results)]
        task = LOWERINGS["qr"](node, [Buffer("a", shape, as_dtype("float32"))], buffers, host())
        return {unit.key for unit in task.helpers}

    assert helpers(5, 3) == helpers(7, 2, 9) and len(helpers(5, 3)) == 1


def test_results_that_nobody_takes(run_task: Callable[..., None], rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 6, 4))
    spec = Spec(a.shape, as_dtype("float64"))
    for name, kept in (("qr", 1), ("qr", 0), ("svd", 1), ("lu", 0)):
        results = REGISTRY[name].infer(spec)
        node = Node(REGISTRY[name], (Node(None, (), {}, (spec,), 0).outputs[0],), {}, results, 0)
        goal = np.full(tuple(results[kept].shape), np.nan)
        goals = [Buffer("out", goal.shape, as_dtype("float64")) if i == kept else None for i in range(len(results))]
        task = LOWERINGS[name](node, [Buffer("a", a.shape, spec.dtype)], goals, host())
        assert task.writes == ("out",)
        run_task(task, {"a": a.ctypes.data, "out": goal.ctypes.data}, 2)
        expected = REGISTRY[name].numpy(np, a)[kept]
        np.testing.assert_allclose(np.abs(goal), np.abs(expected), rtol=1e-9, atol=1e-9)


# Larger --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
def test_large_matrices(lowered: Lowered, rng: np.random.Generator, dtype: str) -> None:
    a = rng.standard_normal((1, 150, 130)).astype(dtype)
    square = a[:, :130]
    check_qr(a, *lowered("qr", a))
    check_svd(a, *lowered("svd", a))
    check_lu(a, *lowered("lu", a))
    check_eigh(square, *lowered("eigh", square))


@pytest.mark.soak
@pytest.mark.parametrize("rows", range(1, 71))
@pytest.mark.parametrize("dtype", TYPES)
def test_all_sizes(lowered: Lowered, rng: np.random.Generator, rows: int, dtype: str) -> None:
    for columns in range(1, 71, 3):
        a = matrices(rng, rows, columns, dtype)
        for name in ("qr", "svd", "lu"):
            CHECKS[name](a, *lowered(name, a))
    a = matrices(rng, rows, rows, dtype)
    check_eigh(a, *lowered("eigh", a))
    positive = positive_definite(rng, rows, dtype)
    check_cholesky(positive, *lowered("cholesky", positive))
