"""Arrays of different sizes cut to one size, for the layers that join them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError

from .arguments import is_shape, one_of
from .base import Layer

WAYS = ("none", "lower", "center", "upper")


class Autocrop(Layer):
    """Several arrays, each cut to the smallest size among them: before an Add or Concatenate of branches of a U-Net.

    Arguments:
        cropping: for each axis, the batch's first: None ("none") leaves it as it is, "lower" keeps the first elements,
            "center" the middle ones, "upper" the last ones; axes that are not listed are left as they are

    Input shape: a list of shapes of one rank

    Output shape: the list of shapes, with the smallest size of all on axes that are cropped

    Reference: the `cropping` of Lasagne's merging layers

    >>> import numpy as np
    >>> import highlevel as hl
    >>> crop = hl.layers.Autocrop([None, "center", "center"])
    >>> a, b = np.ones((2, 9, 8, 3), "float32"), np.ones((2, 5, 8, 3), "float32")
    >>> hl.layers.Add()(crop([a, b])).shape
    (2, 5, 8, 3)
    """

    def __init__(self, cropping: Sequence[str | None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(cropping, str) or not isinstance(cropping, (list, tuple)):
            raise ArgumentError(
                f"{self.name}: cropping is a list", got=repr(cropping), expected='[None, "center", "center"], say'
            )
        self.cropping = [one_of(self, "none" if way is None else way, "cropping", WAYS) for way in cropping]

    def check_input(self, input_shape: Any) -> None:
        if is_shape(input_shape) or not all(map(is_shape, input_shape)):
            raise ShapeError(f"{self.name}: this layer takes several inputs", got=input_shape, expected="a list")
        ranks = sorted({len(shape) for shape in input_shape})
        if len(ranks) > 1 or ranks[0] < len(self.cropping):
            raise ShapeError(
                f"{self.name}: the inputs do not fit the cropping",
                got=f"ranks {', '.join(map(str, ranks))}, cropping of {len(self.cropping)} axes",
                expected=f"one rank for all, {len(self.cropping)} or more",
            )

    def call(self, inputs: Any) -> list[Any]:
        spans = []
        for axis, way in enumerate(self.cropping):
            size = min(x.shape[axis] for x in inputs)
            spans.append([self._span(x.shape[axis], size, way) for x in inputs])
        return [x[tuple(own)] for x, own in zip(inputs, zip(*spans, strict=True), strict=True)] if spans else [*inputs]

    def _span(self, length: int, size: int, way: str) -> slice:
        """The part of an axis that is kept."""
        if way == "none":
            return slice(0, length)
        start = {"lower": 0, "center": (length - size) // 2, "upper": length - size}[way]
        return slice(start, start + size)
