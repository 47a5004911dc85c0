"""Random bits in machine code: those of the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from highlevel.backends.native.codegen import threefry
from highlevel.backends.native.codegen.scalar import LlvmScalars, Scalar
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.codegen.ufunc import ufunc
from highlevel.ir import REGISTRY
from highlevel.ir.primitives.random import threefry as definition

KEY = np.array([0x13198A2E, 0x03707344], np.uint32)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 2), (17,), (64, 129), (0, 3), (3, 0)])
@pytest.mark.parametrize("without", [(), ("avx512f",), ("avx",)])
def test_bits_are_the_interpreters(lowered: Callable, shape: tuple[int, ...], without: tuple[str, ...]) -> None:
    (found,) = lowered("random_bits", KEY, target=host(without), shape=shape)
    np.testing.assert_array_equal(found, REGISTRY["random_bits"].numpy(np, KEY, shape=shape), strict=True)


def test_any_number_of_threads_gives_the_same_bits(lowered: Callable) -> None:
    wanted = REGISTRY["random_bits"].numpy(np, KEY, shape=(100_003,))
    for nthreads in (1, 2, 3, 4):
        (found,) = lowered("random_bits", KEY, nthreads=nthreads, shape=(100_003,))
        np.testing.assert_array_equal(found, wanted)


def test_numbers_of_elements_beyond_32_bits(rng: np.random.Generator) -> None:
    def formula(k: LlvmScalars, key0: Scalar, key1: Scalar, index: Scalar) -> Scalar:
        return threefry.bits(k, key0, key1, index)

    index = rng.integers(0, 2**64, 100, np.uint64)
    keys = [np.full(100, word, np.uint32) for word in KEY]
    found = ufunc(formula, ["uint32", "uint32", "uint64"])(*keys, index)
    words = definition(np, KEY.reshape(2, 1), (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32))
    np.testing.assert_array_equal(found, words[0] ^ words[1])


def test_code_for_aarch64_is_accepted(accepted_for_aarch64: Callable) -> None:
    accepted_for_aarch64("random_bits", KEY, shape=(3, 5))
