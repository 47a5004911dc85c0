"""Fourier transforms in machine code, beside SciPy's in the widest type there is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.fft

from highlevel.backends.native.codegen.fourier import Transform
from highlevel.backends.native.codegen.fourier.plan import (
    coarse_and_fine,
    convolution_size,
    is_smooth,
    radices,
    roots,
    stages_of,
    twiddles,
)
from highlevel.backends.native.codegen.targets import compile_ir, host
from highlevel.backends.native.codegen.targets.symbols import foreign
from highlevel.ir import as_dtype

Array = np.ndarray[Any, Any]
Lowered = Callable[..., list[Array]]
TYPES = ("float32", "float64")
WITHOUT: list[tuple[str, ...]] = [("avx512f",), ("avx",)]
SMALL = (*range(1, 10), 11, 13, 15, 16, 17, 20, 22, 32, 48, 60, 64, 97, 100, 128, 243)
LARGE = (512, 1000, 1031, 8192, 10007, 30030)


def check(
    lowered: Lowered,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: str,
    inverses: bool = True,
    **how: Any,
) -> None:
    re, im = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    wide = re.astype(np.longdouble) + 1j * im.astype(np.longdouble)
    for inverse in (False, True) if inverses else (False,):
        transform = scipy.fft.ifft if inverse else scipy.fft.fft
        found = lowered("fft", re, im, inverse=inverse, **how)
        assert [part.dtype for part in found] == [re.dtype] * 2
        expected = transform(wide, axis=-1)
        error = found[0].astype(np.longdouble) + 1j * found[1].astype(np.longdouble) - expected
        size = np.linalg.norm(expected.astype(np.complex128), axis=-1)
        assert (np.linalg.norm(error.astype(np.complex128), axis=-1) <= 4 * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("dtype", TYPES)
def test_small_lengths(lowered: Lowered, rng: np.random.Generator, size: int, dtype: str) -> None:
    check(lowered, rng, (3, 7, size), dtype, dtype == "float32")  # lines side by side, the last vector not full


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("dtype", TYPES)
def test_large_lengths(lowered: Lowered, rng: np.random.Generator, size: int, dtype: str) -> None:
    check(lowered, rng, (size,), dtype, inverses=size == 1000)


@pytest.mark.parametrize("without", WITHOUT)
@pytest.mark.parametrize("size", [6, 16, 40, 97, 5000])
def test_on_smaller_machines(
    lowered: Lowered, rng: np.random.Generator, size: int, without: tuple[str, ...]
) -> None:
    for dtype in TYPES:
        check(lowered, rng, (5, size), dtype, inverses=False, target=host(without))


@pytest.fixture
def few_numbers_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tables are computed for short lines as well."""

    @dataclasses.dataclass(frozen=True)
    class Computed(Transform):
        kept: int = 8

    monkeypatch.setattr("highlevel.backends.native.lower.fourier.Transform", Computed)
    yield


@pytest.mark.parametrize("size", [9, 60, 74, 256])
def test_tables_that_are_computed(
    lowered: Lowered, rng: np.random.Generator, few_numbers_kept: None, size: int
) -> None:
    for dtype in TYPES:
        check(lowered, rng, (19, size), dtype, inverses=False, nthreads=3)
    x = rng.standard_normal((19, size))
    one, four = (lowered("fft", x, x, inverse=False, nthreads=nthreads) for nthreads in (1, 4))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in four]


def test_bits_depend_neither_on_threads_nor_on_other_lines(lowered: Lowered, rng: np.random.Generator) -> None:
    for size in (8, 12, 37, 64):
        re, im = (rng.standard_normal((21, size)).astype(np.float32) for _ in range(2))
        once = lowered("fft", re, im, inverse=False)
        for nthreads in (2, 3, 4):
            again = lowered("fft", re, im, inverse=False, nthreads=nthreads)
            assert [part.tobytes() for part in again] == [part.tobytes() for part in once]
        alone = lowered("fft", re[17], im[17], inverse=False)
        assert [part.tobytes() for part in alone] == [part[17].tobytes() for part in once]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(lowered: Lowered, rng: np.random.Generator, dtype: str) -> None:
    kind = as_dtype(dtype).numpy
    for shape in ((20, 6), (2, 64), (3, 17), (2, 1)):
        parts = [rng.standard_normal(shape).astype(kind) for _ in range(2)]
        halves = lowered("fft", *parts, inverse=True)
        singles = lowered("fft", *(part.astype(np.float32) for part in parts), inverse=True)
        for half, single in zip(halves, singles, strict=True):
            assert half.dtype == kind and half.tobytes() == single.astype(kind).tobytes()


def test_one_operand_for_both_parts_and_no_lines(lowered: Lowered, rng: np.random.Generator) -> None:
    assert [part.shape for part in lowered("fft", np.zeros((0, 8)), np.zeros((0, 8)), inverse=False)] == [(0, 8)] * 2
    re = rng.standard_normal((2, 16))
    found = lowered("fft", re, np.zeros_like(re), inverse=False)
    expected = np.fft.fft(re)
    np.testing.assert_allclose(found[0], expected.real, atol=1e-13)
    np.testing.assert_allclose(found[1], expected.imag, atol=1e-13)


def test_what_is_not_finite_stays_in_its_line(lowered: Lowered, rng: np.random.Generator) -> None:
    for size in (6, 17, 64):
        re, im = (rng.standard_normal((5, size)) for _ in range(2))
        re[1, size // 2], im[3, 0] = np.nan, np.inf
        sizes = np.hypot(*lowered("fft", re, im, inverse=False))
        assert np.isfinite(sizes[::2]).all() and not np.isfinite(sizes[1::2]).any()


# Plans ---------------------------------------------------------------------------------------------------------------
def test_factors_give_the_length() -> None:
    for size in range(1, 400):
        assert math.prod(radices(size)) == size
        assert is_smooth(size) == all(size % p or p <= 13 for p in range(2, size + 1) if _is_prime(p))
        stages = stages_of(size, 3)
        assert len(twiddles(size, stages)) == sum(stage.entries for stage in stages)
        assert all(stage.length * stage.stride == 3 * size for stage in stages)


def _is_prime(p: int) -> bool:
    return all(p % q for q in range(2, p))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 12, 97, 1000, 12345])
def test_roots_to_the_last_place(size: int) -> None:
    index = np.arange(3 * size)
    angle = -2 * np.arctan2(np.longdouble(0), np.longdouble(-1)) * (index % size) / size
    found = roots(size, index)
    for part, exact in ((found.real, np.cos(angle)), (found.imag, np.sin(angle))):
        assert np.abs(part - exact).max() <= 2.0**-52
    shift, coarse, fine = coarse_and_fine(size)
    index = np.arange(size)
    joined = coarse[index >> shift] * (1 + fine[index & ((1 << shift) - 1)])
    assert np.abs(joined - roots(size, index)).max() <= 2.0**-51
    assert roots(size, np.array([0]))[0] == 1


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_convolutions_are_long_enough_and_smooth(lanes: int) -> None:
    for size in range(2, 3000, 7):
        length = convolution_size(size, lanes)
        assert length >= 2 * size - 1 and is_smooth(length) and length % (4 * lanes) == 0
        assert length < 4 * max(size, lanes) + 4 * lanes


def test_equal_transforms_share_their_code() -> None:
    """Of other numbers of lines, if they are transformed in the same way."""
    many = [Transform(64, as_dtype("float32"), host(), lines).unit().key for lines in (1, 7, 1000)]
    assert len(set(many)) == 1


# Machines ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [5, 48, 97, 5000, 5003])
def test_code_for_aarch64_is_accepted(
    accepted_for_aarch64: Callable[..., None], rng: np.random.Generator, size: int
) -> None:
    x = rng.standard_normal((4, size)).astype(np.float32)
    accepted_for_aarch64("fft", x, x, inverse=False)


@pytest.mark.parametrize("size", [48, 5003])
def test_nothing_is_called_that_may_not_be_there(size: int) -> None:
    target = host(("fma", "f16c", "sse4.1"))
    transform = Transform(size, as_dtype("float16"), target, 1)
    units = [transform.unit()]
    if not transform.is_kept:
        units += [transform.tables_unit(), transform.filter_unit()]
    for unit in units:
        assert not foreign(compile_ir(unit.text, target, unit.level))


@pytest.mark.soak
@pytest.mark.parametrize("start", range(1, 1100, 100))
@pytest.mark.parametrize("dtype", TYPES)
def test_all_lengths(lowered: Lowered, rng: np.random.Generator, dtype: str, start: int) -> None:
    for size in range(start, start + 100):
        check(lowered, rng, (2, size), dtype, inverses=False)


@pytest.mark.soak
@pytest.mark.parametrize("size", [*(2**i for i in range(11, 21)), *(3**i for i in range(7, 12)), 65537, 100003])
def test_long_lines(lowered: Lowered, rng: np.random.Generator, size: int) -> None:
    for dtype in TYPES:
        check(lowered, rng, (2, size), dtype)
