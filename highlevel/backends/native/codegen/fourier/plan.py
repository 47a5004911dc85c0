"""How a transform of some length is cut into stages, and the numbers that it is multiplied with.

A length whose prime factors are small is transformed in stages, one for each factor (T. G. Stockham, "High-speed
convolution and correlation", 1966): no element is ever put in another order. Any other is a convolution of a longer,
smooth length (L. I. Bluestein, "A linear filtering approach to the computation of discrete Fourier transform", 1970).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = "np.ndarray[Any, Any]"
LARGEST_RADIX = 13  # larger ones take long to compile, and Bluestein's way is no slower
KEPT = 4096  # complex numbers that a unit holds as data; more are computed when it runs


@dataclass(frozen=True, slots=True)
class Stage:
    """For all p < length / radix: transforms `radix` numbers, `stride` of them side by side.

    table: where its factors e^(−2πi·p·j/length) begin: those of j = 1 for all p, then those of j = 2, …
    """

    radix: int
    length: int
    stride: int
    table: int

    @property
    def count(self) -> int:
        """How many p there are."""
        return self.length // self.radix

    @property
    def entries(self) -> int:
        """The last stage multiplies with 1 only."""
        return (self.radix - 1) * self.count if self.count > 1 else 0


@functools.lru_cache(maxsize=256)
def stages_of(size: int, group: int) -> tuple[Stage, ...]:
    """The stages for a smooth length; `group` lines are transformed side by side."""
    stages: list[Stage] = []
    length, stride, table = size, group, 0
    for radix in radices(size):
        stages.append(Stage(radix, length, stride, table))
        table += stages[-1].entries
        length, stride = length // radix, stride * radix
    return tuple(stages)


@functools.lru_cache(maxsize=256)
def radices(size: int) -> tuple[int, ...]:
    """Fours, a two, then odd primes."""
    found: list[int] = []
    for radix in (4, 2, *range(3, LARGEST_RADIX + 1, 2)):
        while size % radix == 0:
            found.append(radix)
            size //= radix
    return tuple(found) if size == 1 else (*found, size)


def is_smooth(size: int) -> bool:
    return all(radix <= LARGEST_RADIX for radix in radices(size))


def table_entries(stages: Sequence[Stage]) -> int:
    return sum(stage.entries for stage in stages)


def convolution_size(size: int, lanes: int) -> int:
    """The length of Bluestein's convolution: at least 2·size − 1, and whole vectors in every stage."""
    sizes = []
    for odd in (1, 3, 5):
        power = 4 * lanes
        while odd * power < 2 * size - 1:
            power *= 2
        sizes.append(odd * power)
    return min(sizes)


# Numbers -------------------------------------------------------------------------------------------------------------
def roots(size: int, indices: Numbers) -> Numbers:
    """e^(−2πi·index/size), each part within one unit in its last place: angles are reduced as whole numbers."""
    quadrant, rest = np.divmod(4 * (indices % size), size)
    near = 2 * rest <= size
    angle = (math.pi / 2) * np.where(near, rest, size - rest) / size
    cosine, sine = np.where(near, np.cos(angle), np.sin(angle)), np.where(near, np.sin(angle), np.cos(angle))
    turned: Numbers = (cosine - 1j * sine) * np.array([1, -1j, -1, 1j])[quadrant]
    return turned


def twiddles(size: int, stages: Sequence[Stage]) -> Numbers:
    """The factors of all stages."""
    parts = [np.zeros(0, np.int64)]
    for stage in stages:
        if stage.entries:
            products = np.outer(np.arange(1, stage.radix), np.arange(stage.count))
            parts.append(products.ravel() * (size // stage.length))
    return roots(size, np.concatenate(parts))


def chirp(size: int) -> Numbers:
    """e^(−πi·j²/size)"""
    j = np.arange(size, dtype=np.int64)
    return roots(2 * size, j * j % (2 * size))


def chirp_filter(size: int, length: int) -> Numbers:
    """The transform of the conjugate chirp, both ways from 0 in a circle of that length, divided by the length."""
    circle = np.zeros(length, np.complex128)
    circle[:size] = chirp(size).conj()
    circle[length - size + 1 :] = circle[1:size][::-1]
    spectrum: Numbers = np.fft.fft(circle) / length
    return spectrum


def coarse_and_fine(size: int) -> tuple[int, Numbers, Numbers]:
    """(shift, c, f): root j of that size is c[j >> shift] · (1 + f[j & (2^shift − 1)]), all but exactly.

    f is small, so its rounding errors, and those of the product, are small beside the result.
    """
    shift = max(1, math.ceil(math.log2(size) / 2))
    coarse = roots(size, np.arange(-(-size >> shift) + 1, dtype=np.int64) << shift)
    angle = 2 * math.pi * np.arange(1 << shift) / size
    fine = -2 * np.sin(angle / 2) ** 2 - 1j * np.sin(angle)
    return shift, coarse, fine
