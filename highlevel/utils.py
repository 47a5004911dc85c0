"""Small helpers with Keras's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError
from highlevel.random import set_random_seed
from highlevel.serialization import register_serializable

__all__ = ["normalize", "pad_sequences", "register_serializable", "set_random_seed", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Integer labels as one-hot rows, float32.

    >>> to_categorical([0, 2], 3)
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.dtype.kind not in "iub":
        if not np.array_equal(labels, np.floor(labels)):
            raise ArgumentError("to_categorical: labels are not integers", got=labels.dtype, expected="class numbers")
        labels = labels.astype(np.int64)
    count = int(num_classes) if num_classes is not None else int(labels.max(initial=-1)) + 1
    bad = (labels < 0) | (labels >= count)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ArgumentError(
            "to_categorical: a label is out of range", got=f"{labels[place]} at {place}", expected=f"0…{count - 1}"
        )
    return np.asarray(labels[..., None] == np.arange(count), np.float32)


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """Vectors along an axis divided by their norm; zero vectors stay.

    >>> normalize([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    array = np.asarray(x)
    norm = np.atleast_1d(np.linalg.norm(array, order, axis))
    norm[norm == 0] = 1
    return np.asarray(array / np.expand_dims(norm, axis))


def pad_sequences(
    sequences: Sequence[Sequence[Any]],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """Sequences of unequal lengths as one array (samples, maxlen, …), filled up or cut at the beginning or the end.

    >>> pad_sequences([[1, 2, 3], [4]], padding="post")
    array([[1, 2, 3],
           [4, 0, 0]], dtype=int32)
    """
    for name, choice in (("padding", padding), ("truncating", truncating)):
        if choice not in ("pre", "post"):
            raise ArgumentError(f"pad_sequences: unknown {name}", got=repr(choice), expected='"pre" or "post"')
    length = maxlen if maxlen is not None else max((len(sequence) for sequence in sequences), default=0)
    rest = next((np.asarray(sequence).shape[1:] for sequence in sequences if len(sequence)), ())
    padded = np.full((len(sequences), length, *rest), value, dtype=dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        kept = sequence[len(sequence) - min(length, len(sequence)) :] if truncating == "pre" else sequence[:length]
        if len(kept):
            row[len(row) - len(kept) if padding == "pre" else 0 :][: len(kept)] = kept
    return padded
