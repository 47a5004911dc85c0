"""Sorting, the largest elements and running sums in machine code, against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel.backends.native.codegen.targets import host
from highlevel.ir import REGISTRY, as_dtype
from highlevel.ir.dtypes import ALL

TYPES = tuple(dtype.name for dtype in ALL)
WITHOUT = [(), ("avx512f",), ("avx",)]


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Few different numbers, so that there are ties; floats with NaN, infinities and both zeros."""
    kind = as_dtype(dtype)
    if kind.is_float:
        special = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, 3.0, 0.25]
        x = np.where(rng.random(shape) < 0.5, rng.choice(special, shape), rng.standard_normal(shape))
        return np.where(rng.random(shape) < 0.05, np.nan, x).astype(kind.numpy)
    if kind.is_bool:
        return rng.random(shape) < 0.5
    limits = np.iinfo(kind.numpy)
    return rng.choice(np.array([limits.min, limits.max, 0, 1, limits.max // 2], kind.numpy), shape)


def defined(name: str, x: np.ndarray, **attrs: Any) -> list[np.ndarray]:
    found = REGISTRY[name].numpy(np, x, **attrs)
    return list(found) if isinstance(found, tuple) else [found]


# Running sums --------------------------------------------------------------------------------------------------------
def check_sums(lowered: Callable, x: np.ndarray, **options: Any) -> None:
    target, nthreads = options.pop("target", None), options.pop("nthreads", 1)
    for reverse, exclusive in itertools.product((False, True), repeat=2):
        attrs = {"reverse": reverse, "exclusive": exclusive, **options}
        (found,) = lowered("cumsum", x, target=target, nthreads=nthreads, **attrs)
        (wanted,) = defined("cumsum", x, **attrs)
        if x.dtype.kind in "iu":
            np.testing.assert_array_equal(found, wanted, strict=True)
        else:  # sums of either order are as far from the true ones
            scale = float(np.abs(x.astype("float64")).sum(axis=attrs["axis"]).max(initial=0.0))
            rounding = {"float64": 1e-15, "float32": 6e-7}.get(x.dtype.name, 1e-2)
            np.testing.assert_allclose(
                found.astype("float64"), wanted.astype("float64"), rtol=rounding, atol=rounding * scale
            )


@pytest.mark.parametrize("dtype", [name for name in TYPES if name != "bool"])
def test_running_sums_of_every_type(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    kind = as_dtype(dtype)
    draw = rng.standard_normal if kind.is_float else lambda shape: rng.integers(0, 100, shape)
    for shape, axis in (((3, 37), 1), ((2, 9, 20), 1)):
        check_sums(lowered, np.asarray(draw(shape)).astype(kind.numpy), axis=axis)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5,), 0), ((1,), 0), ((4, 1), 1), ((1, 4), 0), ((7, 2), 0), ((2, 3, 70), 1), ((6, 64), 1), ((3, 100), 1)],
)
@pytest.mark.parametrize("without", WITHOUT)
def test_running_sums_of_every_shape(
    lowered: Callable, shape: tuple[int, ...], axis: int, without: tuple[str, ...], rng: np.random.Generator
) -> None:
    for dtype in ("float32", "float16", "int64"):
        check_sums(lowered, (rng.standard_normal(shape) * 9).astype(dtype), axis=axis, target=host(without))


def test_running_sums_of_special_numbers(lowered: Callable) -> None:
    attrs = {"axis": 0, "reverse": False, "exclusive": False}
    x = np.array([-0.0, -0.0, 0.0, 1.0] + [1.0] * 20 + [np.inf, 1.0, -np.inf, 1.0], "float32")
    (found,) = lowered("cumsum", x, **attrs)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, np.cumsum(x))
    assert np.signbit(found[:4]).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("shape", "axis"), [((150_001,), 0), ((2, 70_000), 1), ((50, 3000), 1), ((500, 300), 0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_running_sums_by_any_number_of_threads(
    lowered: Callable, shape: tuple[int, ...], axis: int, dtype: str, rng: np.random.Generator
) -> None:
    numbers = rng.integers(-9, 9, shape) if dtype == "int32" else rng.standard_normal(shape)
    x = numbers.astype(as_dtype(dtype).numpy)
    check_sums(lowered, x, axis=axis)
    for reverse, exclusive in ((False, False), (True, True)):
        attrs = {"axis": axis, "reverse": reverse, "exclusive": exclusive}
        results = [lowered("cumsum", x, nthreads=nthreads, **attrs)[0].tobytes() for nthreads in (1, 2, 3, 4)]
        assert len(set(results)) == 1


# Sorting -------------------------------------------------------------------------------------------------------------
def check_order(lowered: Callable, name: str, x: np.ndarray, **options: Any) -> None:
    """Equal to the bit: signs of zeros and the NaNs themselves move along."""
    attrs = {key: value for key, value in options.items() if key not in ("target", "nthreads")}
    found, wanted = lowered(name, x, **options), defined(name, x, **attrs)
    assert len(found) == len(wanted)
    for mine, other in zip(found, wanted, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        kind = np.dtype(f"uint{8 * mine.itemsize}")
        np.testing.assert_array_equal(mine.view(kind), np.ascontiguousarray(other).view(kind))


def check_orders(lowered: Callable, x: np.ndarray, axis: int, **options: Any) -> None:
    for name, descending in itertools.product(("sort", "argsort"), (False, True)):
        check_order(lowered, name, x, axis=axis, descending=descending, **options)


@pytest.mark.parametrize("dtype", TYPES)
def test_sorting_every_type(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    check_orders(lowered, drawn(rng, (2, 83), dtype), 1)
    check_orders(lowered, drawn(rng, (2, 37, 3), dtype), 1)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 130, 1000])
def test_sorting_every_length(lowered: Callable, size: int, rng: np.random.Generator) -> None:
    check_order(lowered, "argsort", drawn(rng, (3, size), "float32"), axis=1, descending=False)
    check_order(lowered, "sort", drawn(rng, (size, 2), "int64"), axis=0, descending=True)


@pytest.mark.parametrize("without", WITHOUT)
def test_sorting_on_smaller_cpus(lowered: Callable, without: tuple[str, ...], rng: np.random.Generator) -> None:
    for dtype in ("float32", "float16", "float64"):
        check_orders(lowered, drawn(rng, (4, 100), dtype), 1, target=host(without))


def test_what_is_in_order_already(lowered: Callable) -> None:
    for x in (np.arange(500.0), np.arange(500.0)[::-1], np.zeros(500), np.full(500, np.nan)):
        check_orders(lowered, np.ascontiguousarray(x, "float32"), 0)


@pytest.mark.parametrize("size", [16_384, 16_385, 40_003])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_long_lines_by_any_number_of_threads(
    lowered: Callable, size: int, dtype: str, rng: np.random.Generator
) -> None:
    x = drawn(rng, (size, 2) if size == 40_003 else (size,), dtype)
    for nthreads in (1, 2, 3, 4):
        check_order(lowered, "argsort", x, axis=0, descending=False, nthreads=nthreads)
    check_order(lowered, "sort", x, axis=0, descending=True)


@pytest.mark.parametrize("nthreads", [2, 4])
def test_lines_by_several_threads(lowered: Callable, nthreads: int, rng: np.random.Generator) -> None:
    check_orders(lowered, drawn(rng, (9, 200, 5), "float32"), 1, nthreads=nthreads)
    check_order(lowered, "top_k", drawn(rng, (50, 300), "float32"), k=7, nthreads=nthreads)


# The largest ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_of_every_type(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    check_order(lowered, "top_k", drawn(rng, (3, 90), dtype), k=5)
    check_order(lowered, "top_k", drawn(rng, (2, 2, 20), dtype), k=9)


@pytest.mark.parametrize(("size", "k"), [(1, 1), (10, 1), (10, 10), (17, 1), (17, 4), (100, 25), (300, 64), (300, 65)])
@pytest.mark.parametrize("without", WITHOUT)
def test_the_largest_of_every_length(
    lowered: Callable, size: int, k: int, without: tuple[str, ...], rng: np.random.Generator
) -> None:
    check_order(lowered, "top_k", drawn(rng, (3, size), "float32"), k=k, target=host(without))


def test_the_largest_among_little_else_than_nan(lowered: Callable) -> None:
    x = np.full((2, 200), np.nan, "float32")
    x[0, [3, 150]] = 1.0, 2.0
    check_order(lowered, "top_k", x, k=4)


def test_the_largest_of_what_rises(lowered: Callable) -> None:
    check_order(lowered, "top_k", np.arange(1000, dtype="float32"), k=10)


# All of them ---------------------------------------------------------------------------------------------------------
ATTRS: dict[str, dict[str, Any]] = {
    "sort": {"axis": 0, "descending": True},
    "argsort": {"axis": 0, "descending": False},
    "cumsum": {"axis": 0, "reverse": True, "exclusive": True},
    "top_k": {"k": 3},
}


@pytest.mark.parametrize("name", ATTRS)
def test_nothing_to_order(lowered: Callable, name: str) -> None:
    shapes = [(0, 4)] if name == "top_k" else [(0, 4), (4, 0)]
    for shape in shapes:
        assert lowered(name, np.zeros(shape, "float32"), **ATTRS[name])[0].size == 0


@pytest.mark.parametrize("name", ATTRS)
@pytest.mark.parametrize("shape", [(5, 7), (200_000,)])
def test_code_for_aarch64_is_accepted(accepted_for_aarch64: Callable, name: str, shape: tuple[int, ...]) -> None:
    for dtype in ("float32", "float16", "int64"):
        accepted_for_aarch64(name, np.zeros(shape, dtype), **ATTRS[name])
