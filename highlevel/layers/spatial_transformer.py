"""Spatial transformers: images seen through a map of their coordinates that another network has found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from highlevel import config, ops
from highlevel.errors import ArgumentError, ShapeError

from .arguments import is_shape, one_of, whole
from .base import Layer

BORDERS = ("nearest", "mirror", "wrap")


class _Transformer(Layer):
    """Images sampled at points between their pixels, given by parameters of each sample."""

    def __init__(
        self,
        downsample_factor: Any = 1,
        border_mode: str = "nearest",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        factors = downsample_factor if isinstance(downsample_factor, (list, tuple)) else (downsample_factor,) * 2
        if len(factors) != 2 or any(isinstance(f, bool) or not isinstance(f, (int, float)) or f <= 0 for f in factors):
            raise ArgumentError(
                f"{self.name}: how many times smaller?", got=repr(downsample_factor), expected="a number > 0, or two"
            )
        self.downsample_factor = tuple(float(factor) for factor in factors)
        self.border_mode = one_of(self, border_mode, "border_mode", BORDERS)
        self.data_format = config.data_format(data_format)

    def _parameters(self) -> int:
        """The number of parameters of a sample."""
        raise NotImplementedError

    def _points(self, parameters: Any, height: int, width: int) -> tuple[Any, Any]:
        """x and y, each (batch, height · width) in −1…1, at which the pixels of an output of that size lie."""
        raise NotImplementedError

    def check_input(self, input_shape: Any) -> None:
        count = self._parameters()
        images = "(batch, height, width, channels)"
        if is_shape(input_shape) or len(input_shape) != 2 or not all(map(is_shape, input_shape)):
            raise ShapeError(
                f"{self.name}: this layer takes images and parameters of their maps",
                got="one input" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected=f"[images, parameters], {images} and (batch, {count})",
            )
        shape, parameters = input_shape
        if len(shape) != 4 or len(parameters) != 2 or parameters[1] != count:
            raise ShapeError(
                f"{self.name}: images or parameters have the wrong shape",
                got=f"images {tuple(shape)}, parameters {tuple(parameters)}",
                expected=f"{images} and (batch, {count})",
                hint=f"the last layer of the localization network is Dense({count})",
            )

    def call(self, inputs: Any) -> Any:
        images, parameters = inputs
        channels_first = self.data_format == "channels_first"
        images = ops.moveaxis(images, 1, -1) if channels_first else images
        height, width = (
            max(int(size // factor), 1) for size, factor in zip(images.shape[1:3], self.downsample_factor, strict=True)
        )
        x, y = self._points(parameters, height, width)
        outputs = self._sample(images, x, y)
        outputs = ops.reshape(outputs, (images.shape[0], height, width, images.shape[-1]))
        return ops.moveaxis(outputs, -1, 1) if channels_first else outputs

    def _sample(self, images: Any, x: Any, y: Any) -> Any:
        """(batch, points, channels): values between four pixels, weighted by how near they are."""
        batch, height, width, channels = images.shape
        pixels = ops.reshape(images, (batch * height * width, channels))
        first = ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (batch, 1))
        corners = []
        for position, size in ((y, height), (x, width)):
            place = (position + 1) * ((size - 1) / 2)
            if self.border_mode == "nearest":
                place = ops.clip(place, 0, size - 1)
            low = ops.floor(place)
            share = place - low
            corners.append([(self._index(low, size), 1 - share), (self._index(low + 1, size), share)])
        total: Any = 0.0
        for row, near_y in corners[0]:
            for column, near_x in corners[1]:
                values = ops.take(pixels, first + row * width + column, axis=0)
                total = total + values * ops.expand_dims(near_y * near_x, -1)
        return total

    def _index(self, place: Any, size: int) -> Any:
        """The pixel that stands for a place, which may be outside."""
        if self.border_mode == "mirror" and size > 1:
            period = 2 * (size - 1)
            place = ops.mod(place, period)
            place = ops.minimum(place, period - place)
        elif self.border_mode == "wrap":
            place = ops.mod(place, size)
        return ops.cast(ops.clip(place, 0, size - 1), "int32")


def _grid(height: int, width: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """x and y of the pixels of an image in −1…1, row by row."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return x.reshape(-1), y.reshape(-1)


class SpatialTransformer(_Transformer):
    """Images turned, scaled, moved and sheared, each by six numbers that a localization network has found.

    y[i, j] = x at (θ · (u, v, 1)ᵀ), where (u, v) ∈ [−1, 1]² is the place of pixel (i, j), horizontal first; values
    between pixels are interpolated linearly

    Arguments:
        downsample_factor: how many times smaller the output is; one number, or two for height and width
        border_mode: what lies around the image: "nearest" (its border goes on), "mirror" or "wrap"
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: [images (batch, height, width, channels), θ (batch, 6)]; images (batch, channels, height, width) with
    data_format="channels_first". The localization network starts best as the identity: weights zero and the bias
    (1, 0, 0, 0, 1, 0)

    Output shape: (batch, height / factor, width / factor, channels), or (batch, channels, …)

    Reference: M. Jaderberg et al., "Spatial transformer networks", 2015

    >>> import numpy as np
    >>> import highlevel as hl
    >>> image = np.float32([[[[1.0], [2.0], [3.0]]]])
    >>> hl.layers.SpatialTransformer()([image, np.float32([[-1, 0, 0, 0, 1, 0]])]).numpy().ravel().tolist()
    [3.0, 2.0, 1.0]
    """

    def _parameters(self) -> int:
        return 6

    def _points(self, parameters: Any, height: int, width: int) -> tuple[Any, Any]:
        u, v = _grid(height, width)
        places = np.stack([u, v, np.ones_like(u)]).astype(parameters.dtype.numpy)
        points = ops.matmul(ops.reshape(parameters, (-1, 2, 3)), places)
        return points[:, 0], points[:, 1]


class TPSTransformer(_Transformer):
    """Images bent smoothly, each by where a localization network has moved the points of a grid.

    y[i, j] = x at s(u, v), where s is the thin plate spline – the smoothest map – that takes the points of a regular
    grid over [−1, 1]² to the given ones

    Arguments:
        downsample_factor: how many times smaller the output is; one number, or two for height and width
        control_points: number of points of the grid, a square number
        border_mode: what lies around the image: "nearest" (its border goes on), "mirror" or "wrap"
        data_format: "channels_last" or "channels_first"; the library's setting if None

    Input shape: [images, points (batch, 2 · control_points)]: all x, then all y, row by row; images as for
    `SpatialTransformer`. The localization network starts best with the grid itself as its bias: `identity()`

    Output shape: (batch, height / factor, width / factor, channels), or (batch, channels, …)

    References: M. Jaderberg et al., "Spatial transformer networks", 2015; F. Bookstein, "Principal warps: thin-plate
    splines and the decomposition of deformations", 1989

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.TPSTransformer(control_points=4)
    >>> image = np.float32([[[[1.0], [2.0], [3.0]]]])
    >>> layer([image, layer.identity()[None]]).numpy().ravel().round(4).tolist()
    [1.0, 2.0, 3.0]
    """

    def __init__(
        self,
        downsample_factor: Any = 1,
        control_points: int = 16,
        border_mode: str = "nearest",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(downsample_factor, border_mode, data_format, **kwargs)
        self.control_points = whole(self, control_points, "control_points", least=4)
        if math.isqrt(control_points) ** 2 != control_points:
            raise ArgumentError(f"{self.name}: the points form no square", got=control_points, expected="4, 9, 16, …")

    def _parameters(self) -> int:
        return 2 * self.control_points

    def identity(self) -> np.ndarray[Any, Any]:
        """The points where they are in the grid: parameters that leave an image as it is."""
        side = math.isqrt(self.control_points)
        return np.concatenate(_grid(side, side)).astype("float32")

    def _points(self, parameters: Any, height: int, width: int) -> tuple[Any, Any]:
        points = ops.reshape(parameters, (-1, 2, self.control_points))
        moved = ops.matmul(points, self._weights(height, width).astype(parameters.dtype.numpy))
        return moved[:, 0], moved[:, 1]

    def _weights(self, height: int, width: int) -> np.ndarray[Any, Any]:
        """(control points, pixels): how much the place of each pixel depends on each of the points."""
        side = math.isqrt(self.control_points)
        grid, places = (np.stack(_grid(*size), axis=1) for size in ((side, side), (height, width)))
        count = self.control_points
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _radial(grid, grid)
        system[:count, count:] = np.column_stack([np.ones(count), grid])
        system[count:, :count] = system[:count, count:].T
        basis = np.column_stack([_radial(places, grid), np.ones(len(places)), places])
        return np.linalg.solve(system, basis.T)[:count]


def _radial(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """r² log r for all distances r between two sets of points."""
    squares = np.square(a[:, None] - b[None]).sum(axis=-1)
    radial: np.ndarray[Any, Any] = squares * np.log(np.maximum(squares, 1e-300)) / 2
    return radial
