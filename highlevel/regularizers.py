"""Penalties on weights: `regularizer(weight)` is a number that training adds to the loss."""

from __future__ import annotations

import math
from typing import Any

from highlevel import ops, serialization
from highlevel.errors import ArgumentError, ShapeError
from highlevel.serialization import Configurable


class Regularizer(Configurable, kind="regularizer"):
    """Base of regularizers: define `__call__(weight)`."""

    def __init__(self) -> None:
        """Without arguments of its own."""

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(weight)")


def _factor(name: str, value: float | None, default: float) -> float:
    value = default if value is None else float(value)
    if not (value >= 0.0 and math.isfinite(value)):
        raise ArgumentError(f"regularizer: {name} is out of range", got=value, expected="a number ≥ 0")
    return value


class L1L2(Regularizer):
    """l1 · Σ|w| + l2 · Σw²

    >>> import numpy as np
    >>> float(L1L2(l1=1.0, l2=0.5)(np.array([1.0, -2.0])))
    5.5
    """

    aliases = ("l1_l2",)

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = _factor("l1", l1, 0.0), _factor("l2", l2, 0.0)

    def __call__(self, x: Any) -> Any:
        x = ops.convert_to_tensor(x)
        total = ops.zeros((), dtype=x.dtype)
        if self.l1:
            total = total + self.l1 * ops.sum(ops.abs(x))
        if self.l2:
            total = total + self.l2 * ops.sum(ops.square(x))
        return total


class L1(Regularizer):
    """l1 · Σ|w|"""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _factor("l1", l1, 0.01)

    def __call__(self, x: Any) -> Any:
        return self.l1 * ops.sum(ops.abs(ops.convert_to_tensor(x)))


class L2(Regularizer):
    """l2 · Σw²"""

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _factor("l2", l2, 0.01)

    def __call__(self, x: Any) -> Any:
        return self.l2 * ops.sum(ops.square(ops.convert_to_tensor(x)))


class OrthogonalRegularizer(Regularizer):
    """factor · mean |cos| of the angles between different rows (or columns) of a matrix"""

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor, self.mode = _factor("factor", factor, 0.01), mode
        if mode not in ("rows", "columns"):
            raise ArgumentError("OrthogonalRegularizer: unknown mode", got=repr(mode), expected="'rows' or 'columns'")

    def __call__(self, x: Any) -> Any:
        x = ops.convert_to_tensor(x)
        if x.ndim != 2:
            raise ShapeError("OrthogonalRegularizer: the weight is not a matrix", got=x.spec, expected="rank 2")
        rows = ops.normalize(x if self.mode == "rows" else ops.transpose(x), axis=1)
        size = rows.shape[0]
        cosines = ops.matmul(rows, ops.transpose(rows)) * (1.0 - ops.eye(size, dtype=x.dtype))
        return self.factor * ops.sum(ops.abs(cosines)) / float(size * (size - 1))


def get(identifier: Any) -> Any:
    """A regularizer for a name ("l2"), a class, an object, a description or a function; None stays None."""
    return serialization.get(identifier, "regularizer")
