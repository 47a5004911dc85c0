"""The simplest layers."""

from __future__ import annotations

from typing import Any

from highlevel import ops

from .base import Layer, check_rank


class Identity(Layer):
    """The input itself.

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Identity()(np.float32([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs


class Masking(Layer):
    """Marks the steps of sequences that do not count: those whose features all have one value.

    Arguments:
        mask_value: that value

    Input shape: (batch, steps, features)

    Output shape: the same, zero where steps are masked

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Masking()(np.float32([[[1, 2], [0, 0]]])).mask.tolist()
    [[True, False]]
    """

    supports_masking = True

    def __init__(self, mask_value: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def check_input(self, input_shape: Any) -> None:
        check_rank(self, input_shape, tuple(range(2, 9)), "(batch, steps, features)")

    def call(self, inputs: Any) -> Any:
        counts = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        return ops.where(counts, inputs, 0)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)
