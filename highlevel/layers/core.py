"""The simplest layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from highlevel import config, ops, serialization
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import as_dtype

from .base import Layer, check_rank
from .input_spec import InputSpec


def serialize(layer: Layer) -> dict[str, Any]:
    """A description of a layer in plain data."""
    return dict(serialization.serialize(layer))


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """The layer that a description means; weights are new.

    custom_objects: classes of your own by name, where they are not registered

    >>> import highlevel as hl
    >>> hl.layers.deserialize(hl.layers.serialize(hl.layers.Dense(3))).units
    3
    """
    layer: Layer = serialization.deserialize(config, kind="layer", custom_objects=custom_objects)
    return layer


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


class InputLayer(Layer):
    """The input of a `Sequential` as its first layer; `Input` says the same.

    Arguments:
        shape: the shape of one sample, without the batch axis; sizes may be None
        batch_size: size of the batch axis, if it is fixed
        dtype: data type of the input
        batch_shape: the shape with the batch axis, instead of shape and batch_size
        name: of the input
        sparse, ragged, input_tensor, optional: accepted where they ask for nothing

    Input shape: batch_shape

    Output shape: the same

    >>> import highlevel as hl
    >>> hl.Sequential([hl.layers.InputLayer((4,)), hl.layers.Dense(3)]).output_shape
    (None, 3)
    """

    autocast = False

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        refused = {"sparse": sparse, "ragged": ragged, "input_tensor": input_tensor, "optional": optional}
        for argument, value in refused.items():
            if value is not None and value is not False:
                raise ArgumentError(
                    f"{self.name}: this library has no {argument} inputs", got=f"{argument}={value!r}", expected="None"
                )
        if (shape is None) == (batch_shape is None):
            raise ArgumentError(
                f"{self.name}: a shape, please",
                got=f"shape={shape!r}, batch_shape={batch_shape!r}",
                expected="shape=(…) of one sample, or batch_shape=(…) with the batch axis",
            )
        if batch_shape is None:
            batch_shape = (batch_size, *((shape,) if isinstance(shape, int) else shape))
        self.batch_shape = tuple(batch_shape)
        self.input_dtype = as_dtype(dtype or config.floatx()).name

    def check_input(self, input_shape: Any) -> None:
        problem = InputSpec(shape=self.batch_shape).problem(tuple(input_shape))
        if problem is not None:
            raise ShapeError(f"{self.name}: not the declared input", got=f"shape {input_shape}", expected=problem)

    def call(self, inputs: Any) -> Any:
        return inputs
