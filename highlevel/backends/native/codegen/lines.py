"""Arrays as lines: what operators along one axis work on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lines:
    """An array (outer, size, inner): a line is what lies along the middle axis, its elements `inner` apart."""

    outer: int
    size: int
    inner: int

    @staticmethod
    def along(axis: int, shape: Sequence[int]) -> Lines:
        return Lines(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))

    @property
    def elements(self) -> int:
        return self.outer * self.size * self.inner


def power_of_two(limit: int) -> int:
    """The largest one that is not more than `limit`."""
    return 1 << (limit.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Blocks:
    """`size` neighbours in blocks of `width` = vectors · lanes. The last one ends at the end: it may overlap the one
    before, so that no block is smaller than the others and nothing is masked. What two blocks have in common is
    computed twice, with the same result.
    """

    size: int
    lanes: int
    vectors: int

    @staticmethod
    def of(size: int, lanes: int, vectors: int) -> Blocks:
        """Vectors of `lanes`, as many as there may be; fewer where there are not so many neighbours."""
        lanes = min(lanes, power_of_two(size))
        return Blocks(size, lanes, min(vectors, size // lanes))

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    @property
    def count(self) -> int:
        return -(-self.size // self.width)
