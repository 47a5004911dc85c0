"""Pooling: the largest value or the mean of windows, or of all there is, channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from highlevel import config, ops
from highlevel.errors import ShapeError

from .arguments import check_images, one_of, per_axis, spatial_axes
from .base import Layer


class _Pooling(Layer):
    """A window that slides over the spatial axes."""

    rank: ClassVar[int]
    operator: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.pool_size = per_axis(self, pool_size, self.rank, "pool_size")
        self.strides = self.pool_size if strides is None else per_axis(self, strides, self.rank, "strides")
        self.padding = one_of(self, padding, "padding", ("valid", "same"))
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)
        if self.padding == "same":
            return
        for axis, size in zip(spatial_axes(self.rank, self.data_format), self.pool_size, strict=True):
            if input_shape[axis] is not None and input_shape[axis] < size:
                raise ShapeError(
                    f"{self.name}: the window is larger than the input",
                    got=f"shape {tuple(input_shape)}, a window of {size} on axis {axis}",
                    expected=f"at least {size} elements on axis {axis}",
                    hint="padding='same', a larger input, or fewer down-sampling layers before this one",
                )

    def call(self, inputs: Any) -> Any:
        return self.operator(
            inputs, self.pool_size, strides=self.strides, padding=self.padding, data_format=self.data_format
        )


class MaxPooling1D(_Pooling):
    """The largest value of each window of a sequence.

    Arguments: those of `MaxPooling2D`.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, channels), or (batch, channels, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.MaxPooling1D(2)(np.float32([[[1], [4], [3], [2]]])).tolist()
    [[[4.0], [3.0]]]
    """

    rank = 1
    operator = staticmethod(ops.max_pool)


class MaxPooling2D(_Pooling):
    """The largest value of each window of an image.

    Arguments:
        pool_size: height and width of the window; one integer for both
        strides: steps of the window; pool_size if None, so that windows do not overlap
        padding: "valid" (the window stays inside) or "same" (windows at the border see what there is)
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, channels), or (batch, channels, new_height, new_width), with
    new = ⌊(size − pool_size) / stride⌋ + 1 for "valid", ⌈size / stride⌉ for "same"

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.MaxPooling2D()(np.ones((2, 9, 8, 3), "float32")).shape
    (2, 4, 4, 3)
    """

    rank = 2
    operator = staticmethod(ops.max_pool)


class MaxPooling3D(_Pooling):
    """The largest value of each window of a volume.

    Arguments: those of `MaxPooling2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same axes, with new depth, height and width

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.MaxPooling3D()(np.ones((1, 4, 6, 8, 2), "float32")).shape
    (1, 2, 3, 4, 2)
    """

    rank = 3
    operator = staticmethod(ops.max_pool)


class AveragePooling1D(_Pooling):
    """The mean of each window of a sequence.

    Arguments: those of `AveragePooling2D`.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, channels), or (batch, channels, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AveragePooling1D(2)(np.float32([[[1], [4], [3], [2]]])).tolist()
    [[[2.5], [2.5]]]
    """

    rank = 1
    operator = staticmethod(ops.average_pool)


class AveragePooling2D(_Pooling):
    """The mean of each window of an image.

    Arguments: those of `MaxPooling2D`; at the border, "same" takes the mean of those elements that exist.

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, channels), or (batch, channels, new_height, new_width)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AveragePooling2D(2, strides=1, padding="same")(np.ones((2, 9, 8, 3), "float32")).shape
    (2, 9, 8, 3)
    """

    rank = 2
    operator = staticmethod(ops.average_pool)


class AveragePooling3D(_Pooling):
    """The mean of each window of a volume.

    Arguments: those of `AveragePooling2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same axes, with new depth, height and width

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AveragePooling3D(2)(np.ones((1, 4, 6, 8, 2), "float32")).shape
    (1, 2, 3, 4, 2)
    """

    rank = 3
    operator = staticmethod(ops.average_pool)


class _GlobalPooling(Layer):
    """One number per channel."""

    rank: ClassVar[int]
    operator: ClassVar[Callable[..., Any]]

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = config.data_format(data_format)
        self.keepdims = keepdims

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)

    def call(self, inputs: Any) -> Any:
        axes = spatial_axes(self.rank, self.data_format)
        return self.operator(inputs, axis=axes, keepdims=self.keepdims)


class GlobalMaxPooling1D(_GlobalPooling):
    """The largest value of each channel of a sequence.

    Arguments: those of `GlobalAveragePooling2D`.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalMaxPooling1D()(np.float32([[[1], [4], [3], [2]]])).tolist()
    [[4.0]]
    """

    rank = 1
    operator = staticmethod(ops.max)


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value of each channel of an image.

    Arguments: those of `GlobalAveragePooling2D`.

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalMaxPooling2D()(np.ones((2, 7, 7, 3), "float32")).shape
    (2, 3)
    """

    rank = 2
    operator = staticmethod(ops.max)


class GlobalMaxPooling3D(_GlobalPooling):
    """The largest value of each channel of a volume.

    Arguments: those of `GlobalAveragePooling2D`.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: (batch, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalMaxPooling3D()(np.ones((2, 4, 5, 6, 3), "float32")).shape
    (2, 3)
    """

    rank = 3
    operator = staticmethod(ops.max)


class GlobalAveragePooling1D(_GlobalPooling):
    """The mean of each channel of a sequence; steps that a mask leaves out do not count.

    Arguments: those of `GlobalAveragePooling2D`. Call argument: mask (batch, steps), true where a step counts.

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> x = np.float32([[[1], [3], [9]]])
    >>> hl.layers.GlobalAveragePooling1D()(x, mask=np.array([[True, True, False]])).tolist()
    [[2.0]]
    """

    rank = 1
    operator = staticmethod(ops.mean)
    supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return super().call(inputs)
        (axis,) = spatial_axes(self.rank, self.data_format)
        counted = ops.expand_dims(ops.cast(mask, "bool"), 3 - axis)
        total = ops.sum(ops.where(counted, inputs, 0.0), axis=axis, keepdims=self.keepdims)
        return total / ops.sum(ops.cast(counted, inputs.dtype), axis=axis, keepdims=self.keepdims)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel of an image.

    y[c] = Σ_ij x[i, j, c] / (height · width)

    Arguments:
        data_format: "channels_last" or "channels_first"; the library's setting if None
        keepdims: whether the spatial axes are kept, with size 1

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, channels)

    Reference: M. Lin et al., "Network in network", 2013

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalAveragePooling2D()(np.ones((2, 7, 7, 3), "float32")).shape
    (2, 3)
    """

    rank = 2
    operator = staticmethod(ops.mean)


class GlobalAveragePooling3D(_GlobalPooling):
    """The mean of each channel of a volume.

    Arguments: those of `GlobalAveragePooling2D`.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: (batch, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GlobalAveragePooling3D(keepdims=True)(np.ones((2, 4, 5, 6, 3), "float32")).shape
    (2, 1, 1, 1, 3)
    """

    rank = 3
    operator = staticmethod(ops.mean)
