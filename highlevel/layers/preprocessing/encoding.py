"""Numbers of categories as rows of zeros and ones, or of counts."""

from __future__ import annotations

import math
from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

from ..arguments import one_of, whole
from ..base import Layer

MODES = ("int", "one_hot", "multi_hot", "count")


def mode_of(layer: Layer, value: Any, choices: tuple[str, ...] = MODES) -> str:
    """A checked output mode; "binary" and "tf-idf" are old names."""
    old = {"binary": "multi_hot", "tf-idf": "tf_idf"}
    return one_of(layer, old.get(value, value) if isinstance(value, str) else value, "output_mode", choices)


def dense_only(layer: Layer, sparse: Any) -> bool:
    """Raises for sparse=True."""
    if sparse:
        raise ArgumentError(f"{layer.name}: there are no sparse tensors", got="sparse=True", expected="sparse=False")
    return False


def encode(indices: Any, mode: str, depth: int, dtype: Any, weights: Any = None) -> Any:
    """Whole numbers as they are ("int"), or as rows of `depth` elements; numbers that are out of range count nowhere.

    "one_hot": a row for each number (a last axis of 1 is left out) · "multi_hot": a one wherever a number occurs in a
    sample · "count": how often (or with which weight) it occurs
    """
    if mode == "int":
        return ops.cast(indices, dtype)
    x = ops.cast(indices, "int64" if str(indices.dtype) == "int64" else "int32")
    x = ops.reshape(x, (1,)) if x.ndim == 0 else x
    if mode == "one_hot":
        x = ops.squeeze(x, -1) if x.ndim > 1 and x.shape[-1] == 1 else x
        return ops.one_hot(x, depth, dtype=dtype)
    axis = 1 if x.ndim > 1 else 0  # what is counted: the elements of a sample
    x = ops.moveaxis(x, axis, -1)
    kept = x.shape[:-1]
    rows = math.prod(kept)
    flat = ops.reshape(x, (rows, x.shape[-1]))
    known = ops.logical_and(ops.greater_equal(flat, 0), ops.less(flat, depth))
    places = ops.where(known, flat + ops.reshape(ops.arange(rows, dtype=flat.dtype), (-1, 1)) * depth, rows * depth)
    shares = ops.ones(places.shape, dtype) if weights is None else _like(weights, axis, places.shape, dtype)
    counts = ops.segment_sum(ops.reshape(shares, (-1,)), ops.reshape(places, (-1,)), rows * depth + 1)[:-1]
    counts = ops.reshape(counts, (*kept, depth))
    return ops.cast(ops.greater(counts, 0), dtype) if mode == "multi_hot" else counts


def _like(weights: Any, axis: int, shape: tuple[int, ...], dtype: Any) -> Any:
    weights = ops.cast(weights, dtype)
    if math.prod(weights.shape) != math.prod(shape):
        raise ShapeError("one weight per number", got=tuple(weights.shape), expected=f"{math.prod(shape)} in all")
    return ops.reshape(ops.moveaxis(weights, axis, -1), shape)


class CategoryEncoding(Layer):
    """Numbers of categories as rows of zeros and ones, or of counts.

    Arguments:
        num_tokens: the number of categories; numbers are from 0 to num_tokens − 1
        output_mode: "one_hot" (a row for each number), "multi_hot" (a row for each sample, with 1 for the numbers that
            are in it) or "count" (how often they are)
        sparse: only False

    Call argument: count_weights, a number for each of the inputs, which is counted in place of 1

    Input shape: (batch, numbers), or (numbers,) for one sample

    Output shape: (batch, num_tokens); for "one_hot" (batch, numbers, num_tokens)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.CategoryEncoding(4, output_mode="count")(np.array([[0, 1, 1], [3, 3, 3]])).tolist()
    [[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]]
    """

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", sparse: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.output_mode = mode_of(self, output_mode, ("count", "one_hot", "multi_hot"))
        if num_tokens is None:
            raise ArgumentError(
                f"{self.name}: how many categories are there?",
                expected="num_tokens=…",
                hint="if that is not known, IntegerLookup finds out",
            )
        self.num_tokens = whole(self, num_tokens, "num_tokens")
        self.sparse = dense_only(self, sparse)

    def call(self, inputs: Any, count_weights: Any = None) -> Any:
        if count_weights is not None and self.output_mode != "count":
            raise ArgumentError(
                f"{self.name}: weights are for counting",
                got=f"output_mode={self.output_mode!r}",
                expected='output_mode="count"',
            )
        x = ops.convert_to_tensor(inputs)
        weights = None if count_weights is None else ops.convert_to_tensor(count_weights)
        return encode(x, self.output_mode, self.num_tokens, self.compute_dtype, weights)

