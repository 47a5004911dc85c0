"""Holding out a part of the data for validation; weights of classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from highlevel.data.images import stratified_split
from highlevel.data.loader import arrays_of, count_samples
from highlevel.errors import ArgumentError
from highlevel.ir import tree

from .targets import kind_of_targets


def split_validation(
    x: Any, y: Any, weight: Any, fraction: float, how: str
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """((x, y, weight) to train on, the same to validate on).

    how: "tail", the last samples, as they stand; "stratified", the same fraction of each class
    """
    if not 0 < fraction < 1:
        raise ArgumentError("validation_split is a part of the data", got=fraction, expected="between 0 and 1")
    x, y, weight = arrays_of(x, "x"), arrays_of(y, "y"), arrays_of(weight, "sample_weight")
    count = count_samples(x=x, y=y, sample_weight=weight)
    if how == "tail":
        first = int(np.floor(count * (1.0 - fraction)))
        if first == 0 or first == count:
            raise ArgumentError("validation_split leaves one part empty", got=f"{fraction} of {count} samples")
        kept, held = np.arange(first), np.arange(first, count)
        _warn_about_classes(y, kept, held)
    elif how == "stratified":
        kept, held = stratified_split(_labels(y), fraction, seed=0)
    else:
        raise ArgumentError("unknown split", got=repr(how), expected='"tail" or "stratified"')

    def rows(chosen: Any) -> tuple[Any, Any, Any]:
        parts = [None if part is None else tree.map(lambda array: array[chosen], part) for part in (x, y, weight)]
        return parts[0], parts[1], parts[2]

    return rows(kept), rows(held)


def _labels(y: Any) -> np.ndarray:
    leaves = tree.leaves(y)
    if len(leaves) != 1 or y is None:
        raise ArgumentError('split="stratified" needs one target', got=f"{0 if y is None else len(leaves)} targets")
    labels = np.asarray(leaves[0])
    return labels.argmax(axis=-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(len(labels))


def _warn_about_classes(y: Any, kept: np.ndarray, held: np.ndarray) -> None:
    leaves = [] if y is None else tree.leaves(y)
    if len(leaves) != 1:
        return
    target = np.asarray(leaves[0])
    is_one_hot = target.ndim == 2 and target.shape[1] > 1 and bool(np.isin(target[:100], (0, 1)).all())
    if not is_one_hot and (target.dtype.kind not in "iub" or target.size != len(target)):
        return
    labels = _labels(y)
    missing = sorted(set(np.unique(labels[held]).tolist()) - set(np.unique(labels[kept]).tolist()))
    absent = sorted(set(np.unique(labels[kept]).tolist()) - set(np.unique(labels[held]).tolist()))
    if missing or absent:
        where = f"classes {missing} only in validation" if missing else f"classes {absent} not in validation"
        warnings.warn(
            f"validation_split takes the last samples as they stand: {where}. "
            'Shuffle the data first, or use fit(..., split="stratified").',
            stacklevel=5,
        )


# Weights of classes --------------------------------------------------------------------------------------------------
def class_weights(y: np.ndarray, class_weight: Mapping[int, float], loss: Any, rank: int) -> np.ndarray:
    """The weight of each target from its class.

    y:    class numbers – one per sample, pixel or step, perhaps with a last axis of size 1 – or one-hot
    loss: tells which of the two they are
    rank: of the outputs
    """
    sparse = kind_of_targets(loss) == "sparse"
    labels = y
    if y.ndim == rank and y.shape[-1] == 1:
        labels = y[..., 0]
    elif y.ndim == rank and rank > 1 and not sparse:
        if kind_of_targets(loss) == "binary":
            raise ArgumentError(
                f"class_weight: each sample has {y.shape[-1]} answers, not one class", hint="use sample_weight"
            )
        labels = y.argmax(axis=-1)
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ArgumentError("class_weight: the targets are not classes", got=f"{labels.dtype} {labels.shape}")
    labels = labels.astype(np.int64)
    ignored = getattr(loss, "ignore_class", None)
    present = {int(label) for label in np.unique(labels)} - {ignored}
    unknown = [key for key in class_weight if not isinstance(key, (int, np.integer))]
    missing = sorted(present - set(class_weight))
    if unknown or missing:
        raise ArgumentError(
            "class_weight does not fit the labels",
            got=f"keys {sorted(class_weight, key=str)}",
            expected=f"a weight for each class: {sorted(present)}",
            hint="the keys are class numbers" if unknown else None,
        )
    weights = np.ones(labels.shape, np.float32)
    for label in present:
        weights[labels == label] = class_weight[label]
    return weights


def combine_weights(weights: np.ndarray, sample_weight: Any) -> np.ndarray:
    """The product of two kinds of weights, of which one may have more axes; nothing is broadcast but whole samples."""
    given = [] if sample_weight is None else tree.leaves(sample_weight)
    if not given:
        return weights
    other = np.asarray(given[0])
    if other.ndim == weights.ndim + 1 and other.shape[-1] == 1:
        other = other[..., 0]
    shared = min(weights.ndim, other.ndim)
    if weights.shape[:shared] != other.shape[:shared]:
        raise ArgumentError(
            "class_weight and sample_weight do not fit together",
            got=f"sample_weight {other.shape}",
            expected=f"one weight per sample or per target, {weights.shape}",
        )
    rank = max(weights.ndim, other.ndim)
    expanded = [part.reshape(part.shape + (1,) * (rank - part.ndim)) for part in (weights, other)]
    product: np.ndarray = expanded[0] * expanded[1]
    return product
