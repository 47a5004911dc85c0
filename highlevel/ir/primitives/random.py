"""Random bits as a pure function of a key: the same bits on every backend, device and number of threads.

Threefry-2x32 with 20 rounds (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Element i of
the result enciphers the counter i. Distributions are made of these bits in `ops.random`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError

from .. import oracles
from ..dtypes import uint32
from ..primitive import define
from ..sample import Draw, Sample
from ..spec import Spec

FAMILY = "random"
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of even and odd groups of four rounds
PARITY = 0x1BD11BDA
BLOCK = 1 << 15  # elements that stay in the cache through all rounds


def threefry(xp: Any, key: Any, high: Any, low: Any) -> tuple[Any, Any]:
    """Two words per counter (high, low); uint32 throughout, addition wraps."""
    schedule = [key[0], key[1], key[0] ^ key[1] ^ xp.uint32(PARITY)]
    x0, x1 = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 += x1
            x1 = (x1 << xp.uint32(rotation)) | (x1 >> xp.uint32(32 - rotation))
            x1 ^= x0
        x0 += schedule[(group + 1) % 3]
        x1 += schedule[(group + 2) % 3] + xp.uint32(group + 1)
    return x0, x1


def _infer(key: Spec, *, shape: tuple[int, ...]) -> Spec:
    if key.shape != (2,) or key.dtype is not uint32:
        raise ShapeError("random_bits: not a key", got=key, expected="uint32 (2,)")
    if any(size < 0 for size in shape):
        raise ArgumentError("random_bits: a size is negative", got=shape, expected="sizes of at least 0")
    return Spec(shape, uint32)


def _random_bits(xp: Any, key: Any, *, shape: tuple[int, ...]) -> Any:
    bits = xp.empty(math.prod(shape), dtype=xp.uint32)
    for start in range(0, bits.size, BLOCK):
        counter = xp.arange(start, min(start + BLOCK, bits.size), dtype=xp.uint64)
        high = (counter >> xp.uint64(32)).astype(xp.uint32)
        x0, x1 = threefry(xp, key.reshape(2, 1), high, counter.astype(xp.uint32))
        xp.bitwise_xor(x0, x1, out=bits[start : start + BLOCK])
    return bits.reshape(shape)


_KEY = Draw((2,), lambda rng, shape: rng.integers(0, 2**32, shape, dtype=np.uint64), uint32)
# What `jax.random.bits` (0.6, partitionable) gives for this key: a check that runs without JAX.
_KNOWN_KEY = Draw((2,), lambda rng, shape: (0x13198A2E, 0x03707344), uint32)
_KNOWN_BITS = (0x90101073, 0xCBF4AA01, 0x70C84C97, 0x7BB09A04)

random_bits = define(
    "random_bits",
    FAMILY,
    infer=_infer,
    numpy=_random_bits,
    vjp=lambda g, y, key, *, shape: (None,),
    samples=(
        Sample(
            (_KNOWN_KEY,),
            "numpy.array",
            lambda array, key, shape: array(_KNOWN_BITS, np.uint32).reshape(shape),
            {"shape": (2, 2)},
            gradient=False,
        ),
        Sample((_KEY,), "jax.random.bits", oracles.jax_bits, {"shape": (3, 5, 2)}, gradient=False),
        Sample((_KEY,), "jax.random.bits", oracles.jax_bits, {"shape": (0, 2)}, gradient=False),
        Sample((_KEY,), "jax.random.bits", oracles.jax_bits, {"shape": ()}, gradient=False),
    ),
    summary="uint32 noise: Threefry-2x32 of the element's number under a key",
)
