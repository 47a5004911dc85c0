"""How an operator is tested: the operands to draw, and the function by somebody else to compare with.

Samples stand in the operator's record, so that an operator cannot exist without them, and so that any backend can be
proved with them (`python -m highlevel.backends.conformance`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .dtypes import DType, as_dtype


@dataclass(frozen=True, slots=True)
class Draw:
    """One random operand: its shape, and a function from (generator, shape) to values."""

    shape: tuple[int, ...]
    values: Callable[[np.random.Generator, tuple[int, ...]], Any]
    dtype: DType | None = None  # None: the floating type under test

    def __call__(self, rng: np.random.Generator, floating: DType) -> np.ndarray[Any, Any]:
        return np.asarray(self.values(rng, self.shape), dtype=(self.dtype or floating).numpy)


@dataclass(frozen=True, slots=True)
class Sample:
    """One way to test an operator.

    operands:  how to draw them
    oracle:    dotted name of a function that we did not write ("numpy.tanh", "torch.nn.functional.conv2d")
    call:      `call(oracle, *arrays, **attrs)`, where the oracle's signature differs from ours
    attrs:     attributes of the operator
    gradient:  compare first and second derivatives with finite differences
    special:   also test NaN, ±inf, ±0 and denormals
    tolerance: largest allowed relative error against the oracle, as a multiple of the type's resolution
    invariant: where the results are not unique (signs of eigenvectors): `invariant(*results)`, made of primitives,
               gives what is compared and differentiated instead
    """

    operands: tuple[Draw, ...]
    oracle: str
    call: Callable[..., Any] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    gradient: bool = True
    special: bool = False
    tolerance: float = 64.0
    invariant: Callable[..., Any] | None = None


def normal(*shape: int) -> Draw:
    """Standard normal values, none of them within 0.01 of zero (where kinks usually are)."""

    def values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        x = rng.standard_normal(shape)
        return x + np.copysign(0.01, x)

    return Draw(shape, values)


def uniform(*shape: int, low: float, high: float) -> Draw:
    return Draw(shape, lambda rng, shape: rng.uniform(low, high, shape))


def positive(*shape: int) -> Draw:
    return uniform(*shape, low=0.2, high=3.0)


def distinct(*shape: int) -> Draw:
    """Values at least 0.1 apart, in random order: no ties, so that maxima and sorting are differentiable."""

    def values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape))
        return (rng.permutation(size).reshape(shape) - size / 2) * 0.1 + rng.uniform(0.0, 0.05)

    return Draw(shape, values)


def integers(*shape: int, low: int = -9, high: int = 10, dtype: Any = "int32") -> Draw:
    return Draw(shape, lambda rng, shape: rng.integers(low, high, shape), as_dtype(dtype))


def booleans(*shape: int) -> Draw:
    return Draw(shape, lambda rng, shape: rng.integers(0, 2, shape), as_dtype("bool"))


def positive_definite(*shape: int) -> Draw:
    """Symmetric positive-definite matrices with well-separated eigenvalues."""

    def values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        size = shape[-1]
        basis, _ = np.linalg.qr(rng.standard_normal(shape))
        eigenvalues = 1.0 + np.arange(size) + rng.uniform(0.0, 0.3, (*shape[:-2], size))
        product = (basis * eigenvalues[..., None, :]) @ np.swapaxes(basis, -1, -2)
        return (product + np.swapaxes(product, -1, -2)) / 2

    return Draw(shape, values)


def triangular(*shape: int) -> Draw:
    """Lower-triangular matrices far from singular."""

    def values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return np.tril(rng.uniform(-0.5, 0.5, shape)) + 2.0 * np.eye(shape[-1])

    return Draw(shape, values)
