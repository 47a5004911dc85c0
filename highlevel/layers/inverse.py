"""A layer run backwards."""

from __future__ import annotations

from typing import Any

from highlevel import ops
from highlevel.errors import ShapeError
from highlevel.ir import vjp

from .arguments import is_shape
from .wrappers import Wrapper


class Inverse(Wrapper):
    """What a layer did, backwards: its output's gradient by its input, as in the decoder of an auto-encoder.

    y = Jᵀ · code, with J = ∂ layer(input) / ∂ input. The inverse of a convolution is the transposed one with the same
    kernel; of a max-pooling, unpooling to where the largest values were; of a cropping, padding by zeros.

    Arguments:
        layer: the layer; it shares its weights with the inverse

    Input shape: [code, in the shape of the layer's output; the input that the layer had]

    Output shape: that of the layer's input

    Reference: J. Zhao et al., "Stacked what-where auto-encoders", 2015; the layer of that name in Lasagne

    >>> import numpy as np
    >>> import highlevel as hl
    >>> pool = hl.layers.MaxPooling1D(2)
    >>> x = np.float32([[[1], [4], [3], [2]]])
    >>> hl.layers.Inverse(pool)([pool(x), x]).numpy().ravel().tolist()
    [0.0, 4.0, 3.0, 0.0]
    """

    def check_input(self, input_shape: Any) -> None:
        if is_shape(input_shape) or len(input_shape) != 2 or not all(map(is_shape, input_shape)):
            raise ShapeError(
                f"{self.name}: this layer takes a code and what the layer saw",
                got="one input" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected="[code, input of the layer]",
            )
        self.layer.check_input(input_shape[1])

    def build(self, input_shape: Any = None) -> None:
        self.layer.build(input_shape[1])

    def call(self, inputs: Any, training: bool = False) -> Any:
        code, original = inputs
        outputs, pull_back = vjp(lambda x: self.layer(x, training=training), original)
        if tuple(outputs.shape) != tuple(code.shape):
            raise ShapeError(
                f"{self.name}: the code is not what the layer gives",
                got=f"code {tuple(code.shape)} for an input {tuple(original.shape)} of the layer",
                expected=f"code {tuple(outputs.shape)}",
            )
        return pull_back(ops.cast(code, outputs.dtype))[0]
