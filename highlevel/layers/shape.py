"""Layers that move, repeat, pad or crop, and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from highlevel import config, ops
from highlevel.errors import ArgumentError, ShapeError

from .arguments import check_images, one_of, pairs, per_axis, spatial_axes, whole
from .base import Layer, check_rank
from .shapes import known_size


class Flatten(Layer):
    """Each sample as one row.

    Arguments:
        data_format: "channels_first" moves the channels to the end before, so that both formats give the same rows

    Input shape: (batch, …)

    Output shape: (batch, number of elements of a sample)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Flatten()(np.ones((2, 3, 4), "float32")).shape
    (2, 12)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        if not input_shape:
            raise ShapeError(
                f"{self.name}: a scalar has no batch axis", got="shape ()", expected="(batch, …)", hint="x[None]"
            )

    def call(self, inputs: Any) -> Any:
        if self.data_format == "channels_first" and inputs.ndim > 2:
            inputs = ops.moveaxis(inputs, 1, -1)
        return ops.reshape(inputs, (inputs.shape[0], math.prod(inputs.shape[1:])))


class Reshape(Layer):
    """The elements of each sample, in their order, in another shape.

    Arguments:
        target_shape: the shape of a sample, without the batch; one size may be −1, and is found

    Input shape: (batch, …)

    Output shape: (batch, *target_shape)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Reshape((-1, 2))(np.ones((5, 12), "float32")).shape
    (5, 6, 2)
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = tuple(target_shape) if isinstance(target_shape, (list, tuple)) else (target_shape,)
        if sizes.count(-1) > 1 or any(not isinstance(size, int) or size < -1 for size in sizes):
            raise ArgumentError(
                f"{self.name}: not a shape",
                got=f"target_shape={target_shape!r}",
                expected="sizes, one of which may be −1",
            )
        self.target_shape = sizes

    def check_input(self, input_shape: Any) -> None:
        size, wanted = known_size(tuple(input_shape)), math.prod(n for n in self.target_shape if n != -1)
        if size is None:
            return
        fits = size == wanted if -1 not in self.target_shape else wanted != 0 and size % wanted == 0
        if not fits:
            raise ShapeError(
                f"{self.name}: the elements do not fit the target shape",
                got=f"shape {tuple(input_shape)}: {size} elements per sample",
                expected=f"{self.target_shape}: {'a multiple of ' if -1 in self.target_shape else ''}{wanted} elements",
                hint="target_shape does not hold the batch axis"
                if len(self.target_shape) > 1 and math.prod(self.target_shape[1:]) == size
                else None,
            )

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, (inputs.shape[0], *self._sizes(math.prod(inputs.shape[1:]))))

    def _sizes(self, size: int) -> tuple[int, ...]:
        """The target shape, with the number that −1 stands for (found here, since a batch may be empty)."""
        known = math.prod(n for n in self.target_shape if n != -1)
        return tuple(size // known if n == -1 else n for n in self.target_shape)


class Permute(Layer):
    """The axes of each sample in another order.

    Arguments:
        dims: the axes in their new order, counted from 1, as the batch stays first

    Input shape: (batch, …)

    Output shape: the same sizes in the new order

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Permute((2, 1))(np.ones((5, 10, 64), "float32")).shape
    (5, 64, 10)
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                f"{self.name}: not an order of axes",
                got=f"dims={dims!r}",
                expected=f"each of 1…{len(self.dims)} once",
                hint="the batch axis, 0, is not among them" if 0 in self.dims else None,
            )

    def check_input(self, input_shape: Any) -> None:
        check_rank(
            self, input_shape, len(self.dims) + 1, f"the batch and the {len(self.dims)} axes of dims={self.dims}"
        )

    def call(self, inputs: Any) -> Any:
        return ops.transpose(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """Each sample, several times, as the steps of a sequence.

    Arguments:
        n: how many times

    Input shape: (batch, features)

    Output shape: (batch, n, features)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RepeatVector(3)(np.ones((2, 4), "float32")).shape
    (2, 3, 4)
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = whole(self, n, "n")

    def check_input(self, input_shape: Any) -> None:
        check_rank(self, input_shape, 2, "(batch, features)")

    def call(self, inputs: Any) -> Any:
        batch, features = inputs.shape
        return ops.broadcast_to(ops.expand_dims(inputs, 1), (batch, self.n, features))


class _Spatial(Layer):
    """A layer that does something to each spatial axis."""

    rank: ClassVar[int]
    data_format: str

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        return spatial_axes(self.rank, self.data_format)


class _ZeroPadding(_Spatial):
    def __init__(self, padding: Any, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = pairs(self, padding, self.rank, "padding")
        self.data_format = config.data_format(data_format)

    def call(self, inputs: Any) -> Any:
        around = [(0, 0)] * inputs.ndim
        for axis, before_after in zip(self.spatial_axes, self.padding, strict=True):
            around[axis] = before_after
        return ops.pad(inputs, tuple(around))


class ZeroPadding1D(_ZeroPadding):
    """Zeros before and after a sequence.

    Arguments:
        padding: number of zeros on each side, or (before, after)
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: the same, with before + steps + after

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ZeroPadding1D((1, 2))(np.ones((2, 5, 3), "float32")).shape
    (2, 8, 3)
    """

    rank = 1

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding2D(_ZeroPadding):
    """Zeros around an image.

    Arguments:
        padding: number of rows and columns on all sides; (rows, columns); or ((top, bottom), (left, right))
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: the same, with top + height + bottom and left + width + right

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ZeroPadding2D(((1, 0), (2, 2)))(np.ones((2, 5, 5, 3), "float32")).shape
    (2, 6, 9, 3)
    """

    rank = 2

    def __init__(self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding3D(_ZeroPadding):
    """Zeros around a volume.

    Arguments: those of `ZeroPadding2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same, with the padded sizes

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ZeroPadding3D()(np.ones((1, 2, 3, 4, 5), "float32")).shape
    (1, 4, 5, 6, 5)
    """

    rank = 3

    def __init__(self, padding: Any = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class _Cropping(_Spatial):
    def __init__(self, cropping: Any, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cropping = pairs(self, cropping, self.rank, "cropping")
        self.data_format = config.data_format(data_format)

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        for axis, (before, after) in zip(self.spatial_axes, self.cropping, strict=True):
            if input_shape[axis] is not None and input_shape[axis] <= before + after:
                raise ShapeError(
                    f"{self.name}: nothing would be left",
                    got=f"shape {tuple(input_shape)}, {before} + {after} to cut from axis {axis}",
                    expected=f"more than {before + after} elements on axis {axis}",
                )

    def call(self, inputs: Any) -> Any:
        kept = [slice(None)] * inputs.ndim
        for axis, (before, after) in zip(self.spatial_axes, self.cropping, strict=True):
            kept[axis] = slice(before, inputs.shape[axis] - after)
        return inputs[tuple(kept)]


class Cropping1D(_Cropping):
    """A sequence without its first and last steps.

    Arguments:
        cropping: number of steps on each side, or (before, after)
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: the same, with steps − before − after

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Cropping1D((1, 2))(np.ones((2, 8, 3), "float32")).shape
    (2, 5, 3)
    """

    rank = 1

    def __init__(self, cropping: Any = (1, 1), data_format: str | None = "channels_last", **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping2D(_Cropping):
    """An image without its border.

    Arguments:
        cropping: number of rows and columns on all sides; (rows, columns); or ((top, bottom), (left, right))
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: the same, with the smaller sizes

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Cropping2D(((1, 0), (2, 2)))(np.ones((2, 6, 9, 3), "float32")).shape
    (2, 5, 5, 3)
    """

    rank = 2

    def __init__(self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(_Cropping):
    """A volume without its border.

    Arguments: those of `Cropping2D`, for three axes.

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same, with the smaller sizes

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Cropping3D()(np.ones((1, 4, 5, 6, 2), "float32")).shape
    (1, 2, 3, 4, 2)
    """

    rank = 3

    def __init__(self, cropping: Any = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class _UpSampling(_Spatial):
    def __init__(self, size: Any, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = per_axis(self, size, self.rank, "size")
        self.data_format = config.data_format(data_format)

    def call(self, inputs: Any) -> Any:
        for axis, times in zip(self.spatial_axes, self.size, strict=True):
            inputs = ops.repeat(inputs, times, axis=axis) if times > 1 else inputs
        return inputs


class UpSampling1D(_UpSampling):
    """Every step of a sequence, several times.

    Arguments:
        size: how many times

    Input shape: (batch, steps, channels)

    Output shape: (batch, steps · size, channels)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.UpSampling1D(2)(np.float32([[[1], [2]]])).tolist()
    [[[1.0], [1.0], [2.0], [2.0]]]
    """

    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(size, "channels_last", **kwargs)


class UpSampling2D(_UpSampling):
    """A larger image: every pixel several times, or interpolated.

    Arguments:
        size: factors of height and width; one integer for both
        data_format: "channels_last" or "channels_first"; the library's setting if None
        interpolation: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5"

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: the same, with height · size[0] and width · size[1]

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.UpSampling2D(2)(np.ones((2, 3, 4, 5), "float32")).shape
    (2, 6, 8, 5)
    """

    rank = 2

    def __init__(
        self, size: Any = (2, 2), data_format: str | None = None, interpolation: str = "nearest", **kwargs: Any
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        choices = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
        self.interpolation = one_of(self, interpolation, "interpolation", choices)

    def call(self, inputs: Any) -> Any:
        if self.interpolation == "nearest":
            return super().call(inputs)
        sizes = tuple(inputs.shape[axis] * times for axis, times in zip(self.spatial_axes, self.size, strict=True))
        return ops.image.resize(inputs, sizes, interpolation=self.interpolation, data_format=self.data_format)


class UpSampling3D(_UpSampling):
    """A larger volume: every element several times.

    Arguments:
        size: factors of depth, height and width; one integer for all
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: the same, with the larger sizes

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.UpSampling3D(2)(np.ones((1, 2, 3, 4, 5), "float32")).shape
    (1, 4, 6, 8, 5)
    """

    rank = 3

    def __init__(self, size: Any = (2, 2, 2), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(size, data_format, **kwargs)
