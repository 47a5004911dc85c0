"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError
from highlevel.ir import tree

from .. import base
from .strings import is_text


class Pipeline(base.Layer):
    """Applies layers one after the other, as one layer: for preprocessing and augmentation.

    Called by itself it varies images unless it is told `training=False`; inside a model it does while that is trained.

    Arguments:
        layers: the layers

    Input shape: that of the first layer

    Output shape: that of the last layer

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.Pipeline([hl.layers.Rescaling(1 / 255), hl.layers.CenterCrop(2, 2)])
    >>> layer(np.zeros((1, 4, 4, 3), "uint8")).shape
    (1, 2, 2, 3)
    """

    autocast = False
    supports_masking = True

    def __init__(self, layers: Sequence[base.Layer], name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.layers = list(layers)
        wrong = next((layer for layer in self.layers if not isinstance(layer, base.Layer)), None)
        if wrong is not None or not self.layers:
            raise ArgumentError(f"{self.name}: not layers", got=repr(wrong or layers), expected="a list of layers")

    def bind_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = super().bind_call(args, kwargs)
        if bound.arguments.get("training") is None:
            inside = base.training_context()
            bound.arguments["training"] = True if inside is None else inside
        return bound

    def _to_operands(self, value: Any) -> Any:
        texts = any(is_text(leaf) for leaf in tree.leaves(value))
        return value if texts else super()._to_operands(value)  # strings stay what they are for the first layer

    def call(self, inputs: Any, training: bool = True, mask: Any = None) -> Any:
        for layer in self.layers:
            takes = base.call_signature(type(layer)).parameters
            given = {"mask": mask} if "mask" in takes and mask is not None else {}
            inputs = layer(inputs, training=training, **given)
            mask = base.mask_of(inputs)
        return inputs
