"""What is known of a value before it exists: its shape and its data type. Sizes are always integers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .dtypes import DType, as_dtype


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and data type of an array.

    >>> Spec((2, 3), as_dtype("float32"))
    float32 (2, 3)
    """

    shape: tuple[int, ...]
    dtype: DType

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.size * self.dtype.size_bytes

    def with_shape(self, shape: Iterable[int]) -> Spec:
        return Spec(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> Spec:
        return Spec(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype.name} {self.shape}"

    __repr__ = __str__


def spec(shape: Iterable[int], dtype: Any = "float32") -> Spec:
    """A `Spec` from any iterable of sizes and anything that names a data type."""
    return Spec(tuple(int(size) for size in shape), as_dtype(dtype))
