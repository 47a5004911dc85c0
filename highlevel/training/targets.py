"""Targets looked at on the host before anything runs: do they fit the loss and the outputs of the model?

A label outside the range of the classes gives NaN on one device, an error on another and silence on a third; here
it gives one message that names the sample and the value. The checks are a few passes over the targets, vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import TargetError
from highlevel.ir.tensor import to_numpy
from highlevel.serialization import FUNCTIONS, names_of

from .loss_functions import aligned_shape

Shape = tuple[Any, ...]  # sizes; None for one that is not known


def classification_kind(y_true: Shape, y_pred: Shape) -> str:
    """ "binary" (one output unit), "sparse" (targets are class numbers) or "categorical" (one-hot targets)."""
    if y_pred[-1:] == (1,):
        return "binary"
    if len(y_true) < len(y_pred) or (y_true[-1] == 1 and y_pred[-1] > 1):
        return "sparse"
    return "categorical"


def check_targets(loss: Any, y_true: Any, output: Any) -> None:
    """Raises a `TargetError` if targets in memory do not fit a loss and the spec of the model's output.

    loss:   a `Loss`; those of users are checked for finite numbers only
    y_true: all targets, or those of a batch
    output: anything with a `shape`, whose first size (of the batch) does not matter
    """
    y = _numbers(loss.name, y_true)
    if y.ndim == 0:
        raise TargetError(f"{loss.name}: the targets are a single number", got=y.dtype, expected="one row per sample")
    shape: Shape = (len(y), *output.shape[1:])
    if hasattr(loss, "fitting"):
        loss = loss.fitting(y, output)
    kind = kind_of_targets(loss)
    _check_finite(loss.name, y)
    if kind == "sparse":
        _check_sparse(loss, y, shape)
    elif kind is not None:
        _check_shape(loss.name, y, shape, kind)
        _check_values(loss.name, y, kind)


def kind_of_targets(loss: Any) -> str | None:
    """What targets a loss takes (`Loss.targets`); None if that is the user's business."""
    function = getattr(loss, "fn", None)
    name = getattr(function, "__name__", "")
    if function is not None and FUNCTIONS["loss"].get(name) is function:
        kind: str | None = names_of("loss")[name].targets  # type: ignore[attr-defined]
        return kind
    kind = type(loss).targets
    return kind


def _numbers(name: str, y_true: Any) -> np.ndarray:
    array = y_true if isinstance(y_true, np.ndarray) else to_numpy(y_true)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TargetError(
            f"{name}: the targets are not numbers",
            got=f"{array.dtype} {array.shape}",
            expected="class numbers or floating-point numbers",
            hint="labels that are words become numbers with np.unique(words, return_inverse=True)",
        )
    return array


def _at(index: tuple[Any, ...]) -> str:
    """An index for people: `sample 3` or `sample 3, position (0, 2)`"""
    place = tuple(int(i) for i in index)
    return f"sample {place[0]}" + (f", position {place[1:]}" if any(place[1:]) else "")


def _first(wrong: np.ndarray) -> tuple[tuple[Any, ...], str]:
    """The index of the first wrong target, and how many there are besides."""
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    more = int(np.count_nonzero(wrong)) - 1
    return index, f" (and {more} more)" if more else ""


def _check_finite(name: str, y: np.ndarray) -> None:
    if y.dtype.kind in "biu":
        return
    finite = np.isfinite(y)
    if not finite.all():
        index, more = _first(~finite)
        raise TargetError(
            f"{name}: a target is not a finite number",
            got=f"{y[index]} at {_at(index)}{more}",
            expected="finite numbers",
        )


def _check_sparse(loss: Any, y: np.ndarray, shape: Shape) -> None:
    axis = getattr(loss, "axis", -1) % len(shape)
    classes = shape[axis]
    wanted = shape[:axis] + shape[axis + 1 :]
    if y.shape not in (wanted, (*wanted, 1)):
        one_hot = y.shape == shape
        raise TargetError(
            f"{loss.name}: the targets do not have the shape of class numbers",
            got=f"targets {y.dtype} {y.shape}, outputs {_batch(shape)}",
            expected=f"targets of shape {_batch(wanted)}, each 0…{classes - 1}",
            hint="one-hot targets go with categorical_crossentropy, or np.argmax(y, axis=-1)" if one_hot else None,
        )
    if y.size == 0:
        return
    if y.dtype.kind not in "biu" and (y != np.round(y)).any():
        index, more = _first(y != np.round(y))
        raise TargetError(
            f"{loss.name}: a target is not a class number",
            got=f"{y[index]} at {_at(index)}{more}",
            expected=f"whole numbers 0…{classes - 1}",
            hint="targets that are quantities, not classes, go with mean_squared_error",
        )
    _check_range(loss, y, classes)


def _check_range(loss: Any, y: np.ndarray, classes: int) -> None:
    if y.min() >= 0 and y.max() < classes:
        return
    wrong = (y < 0) | (y >= classes)
    ignored = getattr(loss, "ignore_class", None)
    if ignored is not None:
        wrong &= y != ignored
    if not wrong.any():
        return
    index, more = _first(wrong)
    hint = f"the head has {classes} units: it needs {int(y.max()) + 1}"
    if y.min() == 1 and y.max() == classes:
        hint = "the classes are counted from 1: use y - 1"
    elif y.min() < 0:
        hint = f"ignore_class={int(y.min())} leaves such samples out"
    raise TargetError(
        f"{loss.name}: a label is outside of the classes",
        got=f"label {y[index]:.0f} at {_at(index)}{more}",
        expected=f"0…{classes - 1}: the outputs are {_batch((len(y), classes))}",
        hint=hint,
    )


def _batch(shape: Shape) -> str:
    return f"(batch, {', '.join(map(str, shape[1:]))})" if len(shape) > 1 else "(batch,)"


def _check_shape(name: str, y: np.ndarray, shape: Shape, kind: str) -> None:
    if aligned_shape(y.shape, shape) is not None:
        return
    units = shape[-1] if len(shape) > 1 else 1
    hint = None
    if y.shape in (shape[:-1], (*shape[:-1], 1)) and units > 1:
        if kind == "categorical" or y.dtype.kind in "iu":
            hint = "targets that are class numbers go with sparse_categorical_crossentropy"
        if kind == "binary":
            hint = f"one answer per sample needs a head of 1 unit; {units} classes need sparse_categorical_crossentropy"
    elif y.shape[:-1] == shape[:-1]:
        hint = f"the head has {units} units, the targets {y.shape[-1]} values: they have to be as many"
    raise TargetError(
        f"{name}: targets and outputs have different shapes",
        got=f"targets {y.dtype} {_batch(y.shape)}, outputs {_batch(shape)}",
        expected=f"targets of shape {_batch(shape)}: losses never broadcast",
        hint=hint,
    )


def _check_values(name: str, y: np.ndarray, kind: str) -> None:
    if kind == "values" or y.size == 0:
        return
    low, high = y.min(), y.max()
    if low >= 0 and (kind == "counts" or high <= 1):
        return
    index, more = _first(y < 0 if kind == "counts" else (y < 0) | (y > 1))
    hint = None
    if kind == "binary" and low == -1 and high == 1:
        hint = "targets −1 and 1 go with hinge; or use (y + 1) / 2"
    elif kind == "binary" and y.dtype.kind in "iu":
        hint = (
            f"targets that are class numbers need a head of {int(high) + 1} units and sparse_categorical_crossentropy"
        )
    elif kind == "binary" and high == 255:
        hint = "masks of 0 and 255: use y / 255"
    raise TargetError(
        f"{name}: a target is out of range",
        got=f"{y[index]} at {_at(index)}{more}",
        expected="counts ≥ 0" if kind == "counts" else "0…1",
        hint=hint,
    )
