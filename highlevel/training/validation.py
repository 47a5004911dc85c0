"""Holding out a part of the data for validation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from highlevel.data.images import stratified_split
from highlevel.data.loader import arrays_of, count_samples
from highlevel.errors import ArgumentError
from highlevel.ir import tree


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

    def rows(part: Any, chosen: Any) -> Any:
        return None if part is None else tree.map(lambda array: array[chosen], part)

    return tuple(rows(p, kept) for p in (x, y, weight)), tuple(rows(p, held) for p in (x, y, weight))  # type: ignore[return-value]


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
