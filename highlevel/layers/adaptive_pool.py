"""Pooling to a given size: as many regions as the output has elements, whatever the size of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from highlevel import config, ops

from .arguments import check_images, one_of, per_axis, whole
from .base import Layer


class _AdaptivePooling(Layer):
    """Regions of nearly equal length along each spatial axis; they overlap where the length does not divide."""

    rank: ClassVar[int]
    operator: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size = per_axis(self, output_size, self.rank, "output_size")
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)

    def call(self, inputs: Any) -> Any:
        return self.operator(inputs, self.output_size, data_format=self.data_format)


class AdaptiveAveragePooling1D(_AdaptivePooling):
    """The means of as many regions of a sequence as the output has steps.

    Arguments: those of `AdaptiveAveragePooling2D`.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, output_size, channels), or (batch, channels, output_size)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveAveragePooling1D(2)(np.float32([[[1], [3], [5], [7]]])).tolist()
    [[[2.0], [6.0]]]
    """

    rank = 1
    operator = staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling2D(_AdaptivePooling):
    """The means of as many regions of an image as the output has pixels.

    y[i, j, c] = mean of x[⌊i · h / p⌋ … ⌈(i + 1) · h / p⌉ − 1, ⌊j · w / q⌋ … ⌈(j + 1) · w / q⌉ − 1, c], for an output
    of p × q

    Arguments:
        output_size: height and width of the output; one integer for both
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, *output_size, channels), or (batch, channels, *output_size)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveAveragePooling2D((3, 4))(np.ones((2, 7, 9, 5), "float32")).shape
    (2, 3, 4, 5)
    """

    rank = 2
    operator = staticmethod(ops.adaptive_average_pool)


class AdaptiveAveragePooling3D(_AdaptivePooling):
    """The means of as many regions of a volume as the output has elements.

    Arguments: those of `AdaptiveAveragePooling2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same axes, with depth, height and width of `output_size`

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveAveragePooling3D(2)(np.ones((1, 4, 5, 7, 2), "float32")).shape
    (1, 2, 2, 2, 2)
    """

    rank = 3
    operator = staticmethod(ops.adaptive_average_pool)


class AdaptiveMaxPooling1D(_AdaptivePooling):
    """The largest values of as many regions of a sequence as the output has steps.

    Arguments: those of `AdaptiveAveragePooling2D`.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, output_size, channels), or (batch, channels, output_size)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveMaxPooling1D(2)(np.float32([[[1], [3], [5], [7]]])).tolist()
    [[[3.0], [7.0]]]
    """

    rank = 1
    operator = staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling2D(_AdaptivePooling):
    """The largest values of as many regions of an image as the output has pixels.

    Arguments: those of `AdaptiveAveragePooling2D`, with the same regions.

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, *output_size, channels), or (batch, channels, *output_size)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveMaxPooling2D(1)(np.ones((2, 7, 9, 5), "float32")).shape
    (2, 1, 1, 5)
    """

    rank = 2
    operator = staticmethod(ops.adaptive_max_pool)


class AdaptiveMaxPooling3D(_AdaptivePooling):
    """The largest values of as many regions of a volume as the output has elements.

    Arguments: those of `AdaptiveAveragePooling2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same axes, with depth, height and width of `output_size`

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AdaptiveMaxPooling3D((1, 2, 3))(np.ones((1, 4, 5, 7, 2), "float32")).shape
    (1, 1, 2, 3, 2)
    """

    rank = 3
    operator = staticmethod(ops.adaptive_max_pool)


class SpatialPyramidPooling(Layer):
    """Images of any size pooled to a fixed number of regions, at several scales at once.

    The image is pooled to p × p regions for each p of `pool_dims`, those of `AdaptiveMaxPooling2D`; the regions of all
    scales, row by row, follow one another.

    Arguments:
        pool_dims: regions per axis at each scale
        mode: "max" or "average"
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, Σ p², channels), or (batch, channels, Σ p²); a Flatten after it makes the vector for a Dense

    Reference: K. He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SpatialPyramidPooling((4, 2, 1))(np.ones((2, 13, 9, 5), "float32")).shape
    (2, 21, 5)
    """

    def __init__(
        self,
        pool_dims: Sequence[int] = (4, 2, 1),
        mode: str = "max",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        dims = pool_dims if isinstance(pool_dims, (list, tuple)) else [pool_dims]
        self.pool_dims = tuple(whole(self, size, "each of pool_dims") for size in dims)
        self.mode = one_of(self, mode, "mode", ("max", "average"))
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, 2, self.data_format)

    def call(self, inputs: Any) -> Any:
        pool = ops.adaptive_max_pool if self.mode == "max" else ops.adaptive_average_pool
        channels_last = self.data_format == "channels_last"
        scales = []
        for size in self.pool_dims:
            pooled = pool(inputs, size, data_format=self.data_format)
            batch, channels = pooled.shape[0], pooled.shape[-1 if channels_last else 1]
            flat = (batch, size * size, channels) if channels_last else (batch, channels, size * size)
            scales.append(ops.reshape(pooled, flat))
        return ops.concatenate(scales, axis=1 if channels_last else 2)
