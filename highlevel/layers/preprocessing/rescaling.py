"""Layers that bring data into the form that networks take."""

from __future__ import annotations

from typing import Any

from highlevel import config, ops

from ..base import Layer


class Rescaling(Layer):
    """Scales and moves the values: bytes of images into −1…1, for one.

    y = x · scale + offset, in floating point also for integers

    Arguments:
        scale, offset: numbers, or one for each channel

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Rescaling(1 / 127.5, offset=-1)(np.array([0, 255], "uint8")).tolist()
    [-1.0, 1.0]
    """

    supports_masking = True

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        scale, offset = (ops.convert_to_tensor(value, self.compute_dtype) for value in (self.scale, self.offset))
        if config.image_data_format() == "channels_first":
            scale, offset = (ops.reshape(v, (*v.shape, 1, 1)) if v.ndim == 1 else v for v in (scale, offset))
        return ops.cast(inputs, self.compute_dtype) * scale + offset
