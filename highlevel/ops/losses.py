"""Losses of single examples. Nothing here reduces over the batch."""

from __future__ import annotations

from typing import Any

from highlevel.errors import ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import int32
from highlevel.ir.operators import cast, operand

from .activation import centred, softplus
from .arguments import floating, normalize_axis
from .registry import op

EPSILON = 1e-7  # probabilities are clipped to EPSILON … 1 − EPSILON


def _same_shape(name: str, target: Any, output: Any) -> tuple[Any, Any]:
    y, p = operand(target), floating(output)
    if y.shape != p.shape:
        raise ShapeError(f"{name}: shapes differ", got=f"target {y.spec}, output {p.spec}", expected="one shape")
    return cast(y, p.dtype), p


def clipped(p: Any) -> Any:
    """Probabilities without 0 and 1, whose logarithms would be infinite."""
    low, high = (operators.full(p.shape, v, p.dtype) for v in (EPSILON, 1.0 - EPSILON))
    return primitives.minimum(primitives.maximum(p, low), high)


def _log_total(x: Any, axis: int) -> Any:
    """log Σ eˣ of what is not large."""
    return primitives.log(primitives.reduce_sum(primitives.exp(x), axes=(axis,)))


@op
def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:
    """−t·log(p) − (1 − t)·log(1 − p), of probabilities or – without overflow – of their logits."""
    y, p = _same_shape("binary_crossentropy", target, output)
    if from_logits:
        return softplus(p) - p * y
    p = clipped(p)
    return -(y * primitives.log(p) + (1.0 - y) * primitives.log(1.0 - p))


@op
def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """−Σ t·log(p) over the classes, of probabilities (scaled to the sum 1) or of logits."""
    y, p = _same_shape("categorical_crossentropy", target, output)
    if p.ndim == 0:
        raise ShapeError("categorical_crossentropy: no classes", got=p.spec, expected="rank of at least 1")
    axis = normalize_axis(axis, p.ndim, "categorical_crossentropy")
    if from_logits:  # of two terms that are not negative, each a number per row
        p = centred(p, (axis,))
        return _log_total(p, axis) * primitives.reduce_sum(y, axes=(axis,)) - primitives.reduce_sum(y * p, axes=(axis,))
    total = primitives.reduce_sum(p, axes=(axis,))
    kept = operators.reshape(total, tuple(1 if a == axis else n for a, n in enumerate(p.shape)))
    return -primitives.reduce_sum(y * primitives.log(clipped(p / kept)), axes=(axis,))


@op
def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    """−log(p) of the class that the label names; 0 for a label that names none (−1, for one)."""
    y, p = operand(target), floating(output)
    if p.ndim == 0:
        raise ShapeError("sparse_categorical_crossentropy: no classes", got=p.spec, expected="rank of at least 1")
    axis = normalize_axis(axis, p.ndim, "sparse_categorical_crossentropy")
    kept = (*p.shape[:axis], *p.shape[axis + 1 :])
    if y.ndim == p.ndim and y.shape[-1] == 1:
        y = operators.reshape(y, y.shape[:-1])
    if y.shape != kept:
        raise ShapeError(
            "sparse_categorical_crossentropy: labels do not fit", got=f"labels {y.spec}, output {p.spec}",
            expected=f"labels of shape {kept}", hint="one-hot labels belong to categorical_crossentropy",
        )  # fmt: skip
    labels = cast(y, int32)
    places = operators.broadcast_to(operators.reshape(labels, (*kept[:axis], 1, *kept[axis:])), p.shape)
    here = primitives.equal(places, primitives.iota(shape=p.shape, axis=axis, dtype=int32))

    def named(values: Any) -> Any:
        """Of each row the value that the label names: what is left to compute is one number per row."""
        return primitives.reduce_sum(primitives.select(here, values, operators.zeros_like(values)), axes=(axis,))

    if from_logits:
        p = centred(p, (axis,))
        loss = _log_total(p, axis) - named(p)
    else:
        loss = -primitives.log(clipped(named(p) / primitives.reduce_sum(p, axes=(axis,))))
    names_one = primitives.bit_and(operators.less_equal(0, labels), operators.less(labels, p.shape[axis]))
    return primitives.select(names_one, loss, operators.zeros_like(loss))
