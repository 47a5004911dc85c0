"""Normalization by the responses of other channels: local, and global."""

from __future__ import annotations

from typing import Any

from highlevel import initializers, ops
from highlevel.errors import ArgumentError

from .arguments import check_known, whole
from .base import Layer, check_axis, check_rank
from .normalization import widened


class LocalResponseNormalization(Layer):
    """Each channel divided by the strength of its neighbours, as in AlexNet and GoogLeNet.

    y_c = x_c / (k + alpha · Σ x_d²)^beta, with the sum over the n channels d around c, as far as they exist

    Arguments:
        alpha: weight of the squares (Caffe and PyTorch divide theirs by n)
        k: offset
        beta: exponent
        n: number of channels in the sum, an odd number
        axis: the channels

    Input shape: (batch, …) with channels on `axis`

    Output shape: the same

    Reference: A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.LocalResponseNormalization(alpha=1.0, k=0.0, beta=0.5, n=1)
    >>> layer(np.float32([[[[3.0, -4.0]]]])).tolist()
    [[[[1.0, -1.0]]]]
    """

    supports_masking = True

    def __init__(
        self,
        alpha: float = 1e-4,
        k: float = 2.0,
        beta: float = 0.75,
        n: int = 5,
        axis: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha, self.k, self.beta = float(alpha), float(k), float(beta)
        self.n = whole(self, n, "n")
        if self.n % 2 == 0:
            raise ArgumentError(f"{self.name}: n has no middle", got=f"n={n}", expected="an odd number of channels")
        self.axis = axis

    def check_input(self, input_shape: Any) -> None:
        check_rank(self, input_shape, tuple(range(2, 9)), "(batch, …, channels)")

    def call(self, inputs: Any) -> Any:
        axis, half = self.axis % inputs.ndim, self.n // 2
        around = [(half, half) if a == axis else (0, 0) for a in range(inputs.ndim)]
        x = widened(inputs)
        squares = ops.pad(ops.square(x), around)
        size = inputs.shape[axis]
        window = tuple(slice(None) for _ in range(axis))
        total = squares[(*window, slice(0, size))]
        for offset in range(1, self.n):
            total = total + squares[(*window, slice(offset, offset + size))]
        return ops.cast(x * ops.power(self.k + self.alpha * total, -self.beta), inputs.dtype)


class GlobalResponseNormalization(Layer):
    """Each channel strengthened by how it compares with the others, as in ConvNeXt V2.

    y_c = gamma_c · x_c · g_c / (mean of all g + ε) + beta_c + x_c, with g_c = √Σ x_c² over all positions

    Arguments:
        epsilon: ε, keeps the division finite
        axis: the channels
        gamma_initializer, beta_initializer: what gamma and beta start as

    Weights: gamma, beta (channels,)

    Input shape: (batch, …) with channels on `axis`

    Output shape: the same

    Reference: S. Woo et al., "ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders", 2023

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalResponseNormalization()(np.ones((2, 5, 5, 4), "float32")).shape
    (2, 5, 5, 4)
    """

    def __init__(
        self,
        epsilon: float = 1e-6,
        axis: int = -1,
        gamma_initializer: Any = "zeros",
        beta_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = float(epsilon)
        self.axis = axis
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_initializer = initializers.get(beta_initializer)

    def check_input(self, input_shape: Any) -> None:
        check_rank(self, input_shape, tuple(range(3, 9)), "(batch, …, channels)")
        check_known(self, input_shape, self.axis, "the number of channels")
        if self.built:
            check_axis(self, input_shape, self.axis, self.gamma.shape[0])

    def build(self, input_shape: Any) -> None:
        channels = input_shape[self.axis]
        self.gamma = self.add_weight((channels,), self.gamma_initializer, name="gamma")
        self.beta = self.add_weight((channels,), self.beta_initializer, name="beta")

    def call(self, inputs: Any) -> Any:
        channels = self.axis % inputs.ndim
        positions = tuple(axis for axis in range(1, inputs.ndim) if axis != channels)
        along = tuple(size if axis == channels else 1 for axis, size in enumerate(inputs.shape))
        x = widened(inputs)
        total = ops.sum(ops.square(x), axis=positions, keepdims=True)
        strength = ops.sqrt(ops.maximum(total, 1e-24))  # channels that are zero have a gradient, which is zero
        relative = strength / (ops.mean(strength, axis=channels, keepdims=True) + self.epsilon)
        gamma, beta = (ops.reshape(ops.cast(weight, x.dtype), along) for weight in (self.gamma, self.beta))
        return ops.cast(gamma * (x * relative) + beta + x, inputs.dtype)
