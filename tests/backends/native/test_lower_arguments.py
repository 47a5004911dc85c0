"""The place of the extreme in machine code, against NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from highlevel.backends.native.codegen.targets import host
from highlevel.ir import REGISTRY, as_dtype
from highlevel.ir.dtypes import ALL, int32

TYPES = tuple(dtype.name for dtype in ALL)
# Lines of all lengths around a vector, along the last axis and others.
SHAPES = (((7,), 0), ((3, 10), 1), ((2, 100), 1), ((1, 1), 1), ((5, 1), 1), ((33, 1), 0), ((6, 130), 0), ((2, 5, 3), 1),
          ((2, 9, 70), 1), ((4, 3), 0))  # fmt: skip


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Few different numbers, so that there are ties; floats with NaN, infinities and both zeros."""
    kind = as_dtype(dtype)
    if kind.is_float:
        special = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, 3.0, 0.25]
        x = rng.choice(special, shape)
        return np.where(rng.random(shape) < 0.05, np.nan, x).astype(kind.numpy)
    if kind.is_bool:
        return rng.random(shape) < 0.5
    limits = np.iinfo(kind.numpy)
    return rng.choice(np.array([limits.min, limits.max, 0, 1, limits.max // 2], kind.numpy), shape)


def check(lowered: Callable, name: str, x: np.ndarray, axis: int, **options: object) -> np.ndarray:
    attrs = {"axis": axis, "dtype": options.pop("dtype", int32)}
    (found,) = lowered(name, x, **options, **attrs)
    np.testing.assert_array_equal(found, REGISTRY[name].numpy(np, x, **attrs), strict=True)
    return found


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_every_type(lowered: Callable, name: str, dtype: str, rng: np.random.Generator) -> None:
    for shape, axis in (((3, 10), 1), ((2, 9, 70), 1)):
        check(lowered, name, drawn(rng, shape, dtype), axis)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("without", [(), ("avx512f",), ("avx",)])
def test_every_shape(
    lowered: Callable, shape: tuple[int, ...], axis: int, without: tuple[str, ...], rng: np.random.Generator
) -> None:
    for name, dtype in (("argmax", "float32"), ("argmin", "float64")):
        check(lowered, name, drawn(rng, shape, dtype), axis, target=host(without))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint32"])
def test_types_of_positions(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    for axis in (0, 1):
        check(lowered, "argmax", rng.standard_normal((40, 20)).astype("float32"), axis, dtype=as_dtype(dtype))


@pytest.mark.parametrize("first", [0, 1, 15, 16, 17, 98, 99])
def test_the_first_of_equals_and_of_nan(lowered: Callable, first: int) -> None:
    for value in (5.0, np.nan):
        x = np.zeros((2, 100), "float32")
        x[:, first:] = value
        np.testing.assert_array_equal(lowered("argmax", x, axis=1, dtype=int32)[0], [first, first])
        np.testing.assert_array_equal(lowered("argmin", -x, axis=1, dtype=int32)[0], [first, first])


@pytest.mark.parametrize(("shape", "axis"), [((200_003,), 0), ((2, 90_001), 1), ((70_001, 3), 0), ((40, 3000), 1)])
def test_any_number_of_threads_gives_the_same(
    lowered: Callable, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> None:
    x = rng.integers(0, 1000, shape).astype("float32")
    for nthreads in (1, 2, 3, 4):
        check(lowered, "argmax", x, axis, nthreads=nthreads)


@pytest.mark.parametrize(("shape", "axis"), [((3, 10), 1), ((9, 70), 0), ((200_000,), 0)])
def test_code_for_aarch64_is_accepted(accepted_for_aarch64: Callable, shape: tuple[int, ...], axis: int) -> None:
    for dtype in ("float32", "float64", "float16", "uint8"):
        accepted_for_aarch64("argmax", np.zeros(shape, dtype), axis=axis, dtype=int32)


def test_nothing_to_search(lowered: Callable) -> None:
    assert lowered("argmax", np.zeros((0, 3), "float32"), axis=1, dtype=int32)[0].shape == (0,)
