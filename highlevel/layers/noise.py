"""Layers that are at work while training only: dropout, noise, and losses on activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from highlevel import config, ops, random, regularizers
from highlevel.errors import ArgumentError

from .arguments import check_images, fraction
from .base import Layer


class _Random(Layer):
    """A layer with a random generator of its own."""

    supports_masking = True

    def __init__(self, strength: float, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        if strength > 0:
            self.seed_generator = random.SeedGenerator(seed)


class Dropout(_Random):
    """Sets elements to zero at random while training, and scales the others, so that the expected sum stays.

    y = x · b / (1 − rate), with b = 0 with probability `rate`, else 1

    Arguments:
        rate: the fraction of elements to drop, from 0 to 1
        noise_shape: shape of the random choices: elements share one along axes of size 1; None is the input's size
        seed: of the layer's random generator

    Call argument: training; nothing is dropped otherwise

    Input shape: any

    Output shape: the same

    Reference: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.Dropout(0.5, seed=1)
    >>> layer(np.ones(4, "float32")).tolist(), sorted(set(layer(np.ones(99, "float32"), training=True).tolist()))
    ([1.0, 1.0, 1.0, 1.0], [0.0, 2.0])
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate if isinstance(rate, (int, float)) else 1, seed, **kwargs)
        self.rate = fraction(self, rate, "rate")
        if noise_shape is not None and any(n is not None and (not isinstance(n, int) or n < 1) for n in noise_shape):
            raise ArgumentError(
                f"{self.name}: not a shape", got=f"noise_shape={noise_shape!r}", expected="sizes, or None"
            )
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        if self.rate == 1:
            return ops.zeros_like(inputs)
        return random.dropout(inputs, self.rate, noise_shape=self._noise_shape(inputs.shape), seed=self.seed_generator)

    def _noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if self.noise_shape is None:
            return None
        if len(self.noise_shape) != len(shape):
            raise ArgumentError(
                f"{self.name}: noise_shape does not fit the input",
                got=f"noise_shape={self.noise_shape} for shape {shape}",
                expected=f"{len(shape)} sizes",
            )
        return tuple(n if size is None else size for n, size in zip(shape, self.noise_shape, strict=True))


class _SpatialDropout(Dropout):
    rank: ClassVar[int]

    def __init__(self, rate: float, data_format: str | None, seed: int | None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)

    def _noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        between = (1,) * self.rank
        return (shape[0], *between, shape[-1]) if self.data_format == "channels_last" else (*shape[:2], *between)


class SpatialDropout1D(_SpatialDropout):
    """Drops whole channels of sequences at random while training.

    Arguments: rate and seed, as for `Dropout`.

    Input shape: (batch, steps, channels)

    Output shape: the same

    Reference: J. Tompson et al., "Efficient object localization using convolutional networks", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SpatialDropout1D(0.5)(np.ones((2, 5, 3), "float32"), training=True).shape
    (2, 5, 3)
    """

    rank = 1

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, "channels_last", seed, **kwargs)


class SpatialDropout2D(_SpatialDropout):
    """Drops whole channels of images at random while training, as neighbouring pixels say much the same.

    Arguments: rate and seed, as for `Dropout`, and data_format ("channels_last" or "channels_first").

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: the same

    Reference: J. Tompson et al., "Efficient object localization using convolutional networks", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SpatialDropout2D(0.5)(np.ones((2, 5, 5, 3), "float32"), training=True).shape
    (2, 5, 5, 3)
    """

    rank = 2

    def __init__(self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, data_format, seed, **kwargs)


class SpatialDropout3D(_SpatialDropout):
    """Drops whole channels of volumes at random while training.

    Arguments: rate and seed, as for `Dropout`, and data_format ("channels_last" or "channels_first").

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SpatialDropout3D(0.5)(np.ones((2, 3, 4, 5, 6), "float32"), training=True).shape
    (2, 3, 4, 5, 6)
    """

    rank = 3

    def __init__(self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, data_format, seed, **kwargs)


class GaussianNoise(_Random):
    """Adds normally distributed noise while training.

    y = x + n, n ~ N(0, stddev²)

    Arguments:
        stddev: standard deviation of the noise, from 0 to 1
        seed: of the layer's random generator

    Call argument: training; nothing is added otherwise

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GaussianNoise(0.1)(np.ones(3, "float32")).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(1, seed, **kwargs)
        self.stddev = fraction(self, stddev, "stddev")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.stddev == 0:
            return inputs
        return inputs + random.normal(inputs.shape, 0.0, self.stddev, dtype=inputs.dtype, seed=self.seed_generator)


class GaussianDropout(_Random):
    """Multiplies with normally distributed noise around 1 while training.

    y = x · n, n ~ N(1, rate / (1 − rate))

    Arguments:
        rate: as for `Dropout`, whose noise has the same variance; from 0 to 1, without 1
        seed: of the layer's random generator

    Call argument: training; the input stays as it is otherwise

    Input shape: any

    Output shape: the same

    Reference: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GaussianDropout(0.1)(np.ones(3, "float32")).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(1, seed, **kwargs)
        self.rate = _less_than_one(self, rate)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        deviation = math.sqrt(self.rate / (1.0 - self.rate))
        return inputs * random.normal(inputs.shape, 1.0, deviation, dtype=inputs.dtype, seed=self.seed_generator)


class AlphaDropout(_Random):
    """Dropout that keeps mean and variance, for networks with "selu" activations.

    Dropped elements take the value that selu goes to far below zero, −α · λ; then all are scaled and moved.

    Arguments: those of `Dropout`; the rate is less than 1.

    Call argument: training; nothing is dropped otherwise

    Input shape: any

    Output shape: the same

    Reference: G. Klambauer et al., "Self-normalizing neural networks", 2017

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AlphaDropout(0.1)(np.ones(3, "float32")).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(1, seed, **kwargs)
        self.rate = _less_than_one(self, rate)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        lowest = -1.6732632423543772 * 1.0507009873554805
        shape = inputs.shape
        if self.noise_shape is not None:
            shape = tuple(n if size is None else size for n, size in zip(shape, self.noise_shape, strict=True))
        kept = ops.greater_equal(random.uniform(shape, seed=self.seed_generator), self.rate)
        scale = ((1 - self.rate) * (1 + self.rate * lowest**2)) ** -0.5
        return ops.where(kept, inputs, lowest) * scale - scale * lowest * self.rate


def _less_than_one(layer: Layer, rate: Any) -> float:
    if fraction(layer, rate, "rate") == 1:
        raise ArgumentError(f"{layer.name}: nothing would be left", got="rate=1", expected="a rate below 1")
    return float(rate)


class ActivityRegularization(Layer):
    """Leaves its input as it is, and adds a term for it to the loss.

    loss += (l1 · Σ|x| + l2 · Σx²) / batch

    Arguments:
        l1, l2: weights of the sums of absolute values and of squares

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ActivityRegularization(l1=0.1)(np.float32([[1.0, -2.0]])).tolist()
    [[1.0, -2.0]]
    """

    supports_masking = True

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1=l1, l2=l2), **kwargs)
        self.l1 = l1
        self.l2 = l2

    def call(self, inputs: Any) -> Any:
        return inputs
