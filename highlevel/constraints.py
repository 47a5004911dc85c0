"""Projections of weights: `constraint(weight)` is what the weight becomes after each update."""

from __future__ import annotations

from typing import Any

from highlevel import ops, serialization
from highlevel.serialization import Configurable

EPSILON = 1e-7


class Constraint(Configurable, kind="constraint"):
    """Base of constraints: define `__call__(weight)`."""

    def __init__(self) -> None:
        """Without arguments of its own."""

    def __call__(self, w: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(weight)")


def _norms(w: Any, axis: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(w), axis=axis, keepdims=True))


class MaxNorm(Constraint):
    """Shrinks vectors along `axis` to a norm of at most `max_value`

    axis: 0 for kernels of Dense (inputs, units), [0, 1, 2] for kernels of Conv2D
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value, self.axis = max_value, axis

    def __call__(self, w: Any) -> Any:
        w = ops.convert_to_tensor(w)
        norms = _norms(w, self.axis)
        return w * (ops.clip(norms, 0.0, float(self.max_value)) / (EPSILON + norms))


class NonNeg(Constraint):
    """Negative weights become 0"""

    def __call__(self, w: Any) -> Any:
        w = ops.convert_to_tensor(w)
        return ops.maximum(w, 0.0)


class UnitNorm(Constraint):
    """Scales vectors along `axis` to norm 1"""

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Any:
        w = ops.convert_to_tensor(w)
        return w / (EPSILON + _norms(w, self.axis))


class MinMaxNorm(Constraint):
    """Moves the norms of vectors along `axis` towards [min_value, max_value], by the share `rate` of the way"""

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0) -> None:
        self.min_value, self.max_value, self.rate, self.axis = min_value, max_value, rate, axis

    def __call__(self, w: Any) -> Any:
        w = ops.convert_to_tensor(w)
        norms = _norms(w, self.axis)
        inside = ops.clip(norms, float(self.min_value), float(self.max_value))
        return w * ((self.rate * inside + (1.0 - self.rate) * norms) / (EPSILON + norms))


def get(identifier: Any) -> Any:
    """A constraint for a name ("max_norm"), a class, an object, a description or a function; None stays None."""
    return serialization.get(identifier, "constraint")
