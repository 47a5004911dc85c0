"""The random bits: published vectors, JAX, and what a statistician would ask first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import ShapeError
from highlevel.ir import Tensor
from highlevel.ir.primitives import random_bits
from highlevel.ir.primitives.random import threefry

PUBLISHED = [  # Random123, kat_vectors, "threefry2x32 20": counter, key, result
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(*values: int) -> Any:
    return np.array(values, np.uint32)


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_published_vectors(counter: Any, key: Any, result: Any) -> None:
    x0, x1 = threefry(np, words(*key).reshape(2, 1), words(counter[0]), words(counter[1]))
    assert (int(x0[0]), int(x1[0])) == result


def test_a_long_stream_is_jaxs() -> None:
    jax = pytest.importorskip("jax")
    key, shape = words(7, 99), (3, 40_000)
    want = jax.random.bits(jax.random.wrap_key_data(jax.numpy.asarray(key), impl="threefry2x32"), shape, "uint32")
    np.testing.assert_array_equal(random_bits(Tensor.of(key), shape=shape).numpy(), np.asarray(want))


def test_an_element_depends_on_key_and_position_alone() -> None:
    key = Tensor.of(words(1, 2))
    long = random_bits(key, shape=(70_000,)).numpy()
    np.testing.assert_array_equal(random_bits(key, shape=(10, 7)).numpy().reshape(-1), long[:70])
    assert len(np.unique(long)) > 69_990  # 2³² values: about half a collision is due
    other = random_bits(Tensor.of(words(1, 3)), shape=(70_000,)).numpy()
    assert abs(np.corrcoef(long.astype(float), other.astype(float))[0, 1]) < 0.02


def test_every_bit_is_set_half_of_the_time() -> None:
    bits = np.unpackbits(random_bits(Tensor.of(words(3, 4)), shape=(100_000,)).numpy().view(np.uint8)).reshape(-1, 32)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(100_000)


@pytest.mark.parametrize("key", [np.zeros(3, np.uint32), np.zeros(2, np.int32)])
def test_what_is_not_a_key_is_refused(key: Any) -> None:
    with pytest.raises(ShapeError, match="not a key"):
        random_bits(Tensor.of(key), shape=(3,))
