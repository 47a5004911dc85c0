"""Fully connected layers."""

from __future__ import annotations

from typing import Any

from highlevel import activations, constraints, initializers, ops, regularizers
from highlevel.errors import ShapeError

from .arguments import check_floating, check_known, is_shape, whole
from .base import Layer, check_axis


class Dense(Layer):
    """Every output is a weighted sum of all inputs, plus a bias, through an activation function.

    y = activation(x · kernel + bias)

    Arguments:
        units: number of outputs
        activation: function or its name; none if None
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: what the weights start as
        kernel_regularizer, bias_regularizer: terms of the loss that weights cost
        activity_regularizer: term of the loss that outputs cost
        kernel_constraint, bias_constraint: applied to the weights after each update

    Weights: kernel (features, units), bias (units,)

    Input shape: (batch, …, features)

    Output shape: (batch, …, units); axes between the first and the last are kept, and share the kernel

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.Dense(5, activation="relu")
    >>> layer(np.ones((2, 3), "float32")).shape, layer.kernel.shape
    ((2, 5), (3, 5))
    """

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = whole(self, units, "units")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def check_input(self, input_shape: Any) -> None:
        if not is_shape(input_shape) or len(input_shape) < 2:
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {input_shape}" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected="(batch, …, features)",
                hint="add the batch axis: x[None]" if len(input_shape) == 1 else "join several inputs with Concatenate",
            )
        check_known(self, input_shape, -1, "the number of features")
        if self.built:
            check_axis(self, input_shape, -1, self.kernel.shape[0], hint=self._features_hint(input_shape))

    def _features_hint(self, shape: Any) -> str | None:
        features = self.kernel.shape[0]
        if all(size is not None for size in shape[1:]):
            flat = 1
            for size in shape[1:]:
                flat *= size
            if flat == features:
                return "put a Flatten before this layer"
        return None

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            (input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        outputs = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)
