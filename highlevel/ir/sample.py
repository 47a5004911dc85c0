"""How an operator is tested: the operands to draw, and the function by somebody else to compare with.

Samples stand in the operator's record, so that an operator cannot exist without them, and so that any backend can be
proved with them (`python -m highlevel.backends.conformance`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
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
    function:  operators with sub-graphs: a function of the operands whose trace holds the operator, instead of `attrs`
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
    function: Callable[..., Any] | None = None
    gradient: bool = True
    special: bool = False
    tolerance: float = 64.0
    invariant: Callable[..., Any] | None = None

    def draw(self, rng: np.random.Generator, floating: DType) -> list[np.ndarray[Any, Any]]:
        return [draw(rng, floating) for draw in self.operands]

    def apply(self, primitive: Callable[..., Any], *operands: Any) -> tuple[Any, ...]:
        """What is compared, for tensors or symbols."""
        results = primitive(*operands, **self.attrs) if self.function is None else self.function(*operands)
        return self.comparable(*_as_tuple(results))

    def comparable(self, *results: Any) -> tuple[Any, ...]:
        return results if self.invariant is None else _as_tuple(self.invariant(*results))

    def load_oracle(self) -> Callable[..., Any]:
        """The function by others; ImportError where its package is not installed."""
        parts = self.oracle.split(".")
        found: Any = importlib.import_module(parts[0])
        for i, part in enumerate(parts[1:], start=1):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[: i + 1]))
            found = getattr(found, part)
        oracle: Callable[..., Any] = found
        return oracle

    def expected(self, *arrays: Any) -> tuple[Any, ...]:
        """What the oracle makes of the operands."""
        oracle = self.load_oracle()
        return _as_tuple(self.call(oracle, *arrays, **self.attrs) if self.call else oracle(*arrays, **self.attrs))


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def mismatch(got: Any, expected: Any, tolerance: float = 0.0, *, elementwise: bool = False) -> str | None:
    """What is wrong with an array, or None: shape and type equal, NaN and ±inf in the same places, integers equal.

    Numbers may differ by `tolerance` times the resolution of their type, relative to themselves (`elementwise`) or to
    the larger of themselves and the typical size of the array, which is what sums of many terms can promise.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}"
    if as_dtype(got.dtype).kind != "float":
        wrong = got != expected
        return _worst(got, expected, wrong) if wrong.any() else None
    resolution = ml_dtypes.finfo(got.dtype)  # type: ignore[no-untyped-call]
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    scale = np.abs(np.where(finite, b, 0.0))
    if not elementwise and finite.any():
        scale = np.maximum(scale, np.sqrt(np.mean(np.square(scale[finite]))))
    allowed = tolerance * (float(resolution.eps) * scale + float(resolution.smallest_subnormal))
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (finite & (np.abs(a - b) <= allowed))
    return None if same.all() else _worst(got, expected, ~same)


def _worst(got: Any, expected: Any, wrong: Any) -> str:
    place = tuple(int(i[0]) for i in np.nonzero(wrong))
    return f"{int(wrong.sum())} of {wrong.size} differ; at {place}: {got[place]!r} instead of {expected[place]!r}"


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
