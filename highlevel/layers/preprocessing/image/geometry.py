"""Images mirrored, turned, enlarged, moved and sheared."""

from __future__ import annotations

import math
from typing import Any

from highlevel import ops, random

from . import boxes as bounding_boxes
from .base import RandomImageLayer, Shape, between, choice, factor_range

FILL_MODES = ("reflect", "wrap", "constant", "nearest")
INTERPOLATIONS = ("nearest", "bilinear")
MODES = ("horizontal", "vertical", "horizontal_and_vertical")


class RandomFlip(RandomImageLayer):
    """Mirrors each image with probability ½ while training; for both directions, each for itself.

    Arguments:
        mode: "horizontal", "vertical" or "horizontal_and_vertical"
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> images = np.arange(4.0).reshape(2, 1, 2, 1)
    >>> hl.layers.RandomFlip("horizontal", seed=3)(images, training=False).tolist()
    [[[[0.0], [1.0]]], [[[2.0], [3.0]]]]
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.mode = choice(self, mode, "mode", MODES)

    def draw(self, shape: Shape, seed: Any) -> Any:
        axes = [axis for axis in ("horizontal", "vertical") if axis in self.mode]
        return {axis: ops.less_equal(random.uniform((shape[0],), seed=seed), 0.5) for axis in axes}

    def change(self, images: Any, transformation: Any) -> Any:
        for key, axis in (("horizontal", 2), ("vertical", 1)):
            if key in transformation:
                flips = ops.reshape(transformation[key], (-1, 1, 1, 1))
                images = ops.where(flips, ops.flip(images, axis), images)
        return images

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self.change(masks, transformation)

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        height, width = transformation["size"]
        for key, size, (low, high) in (("horizontal", width, (0, 2)), ("vertical", height, (1, 3))):
            if key in transformation:
                parts = bounding_boxes.parts(boxes)
                parts[low], parts[high] = size - parts[high], size - parts[low]
                boxes = ops.where(ops.reshape(transformation[key], (-1, 1, 1)), ops.stack(parts, axis=-1), boxes)
        return boxes


class AffineLayer(RandomImageLayer):
    """Base of layers whose images are read through a matrix: pixel (x, y) is the input's at the matrix times (x, y, 1).

    The matrix is (a₀, a₁, a₂, b₀, b₁, b₂, 0, 0), one for each image.
    """

    def __init__(self, fill_mode: str, interpolation: str, fill_value: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fill_mode = choice(self, fill_mode, "fill_mode", FILL_MODES)
        self.interpolation = choice(self, interpolation, "interpolation", INTERPOLATIONS)
        self.fill_value = fill_value

    def matrix(self, transformation: Any, height: int, width: int) -> list[Any]:
        """(a₀, a₁, a₂, b₀, b₁, b₂), each a number or (batch,)."""
        raise NotImplementedError(f"{type(self).__name__} has no `matrix`")

    def change(self, images: Any, transformation: Any) -> Any:
        return self._read(images, transformation, self.interpolation)

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self._read(masks, transformation, "nearest")

    def _read(self, images: Any, transformation: Any, interpolation: str) -> Any:
        batch, height, width, _ = images.shape
        return ops.image.affine_transform(
            images,
            rows_of(self.matrix(transformation, height, width), batch),
            interpolation=interpolation,
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
            data_format="channels_last",
        )

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        """The boxes that just hold what their corners become."""
        numbers = self.matrix(transformation, *transformation["size"])
        return bounding_boxes.through(rows_of(numbers, boxes.shape[0]), boxes)


def rows_of(numbers: list[Any], batch: int) -> Any:
    """Numbers, some of them one for each image, as rows of eight (two zeros at the end)."""
    columns = [ops.broadcast_to(ops.cast(number, "float32"), (batch,)) for number in (*numbers, 0.0, 0.0)]
    return ops.stack(columns, axis=-1)


class RandomRotation(AffineLayer):
    """Turns each image by a random angle around its middle while training.

    Arguments:
        factor: the range of angles as fractions of a full turn: two numbers, or one for −factor … factor. Positive
            angles turn counter-clockwise
        fill_mode: what is beyond the edges: "reflect", "wrap", "constant" or "nearest"
        interpolation: "nearest" or "bilinear"
        seed: of the layer's random generator
        fill_value: for fill_mode="constant"
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> quarter = hl.layers.RandomRotation((0.25, 0.25), interpolation="nearest")
    >>> quarter(np.arange(4.0).reshape(2, 2, 1))[..., 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """

    def __init__(
        self,
        factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", -1, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"angle": between(seed, (shape[0],), (self.factor[0] * 360, self.factor[1] * 360))}

    def matrix(self, transformation: Any, height: int, width: int) -> list[Any]:
        angle = transformation["angle"] * (math.pi / 180.0)
        cos, sin = ops.cos(angle), ops.sin(angle)
        x, y = (width - 1) / 2, (height - 1) / 2
        return [cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos]


class RandomZoom(AffineLayer):
    """Shows each image larger or smaller, by a random factor, while training.

    Arguments:
        height_factor: the range of factors: two numbers, or one for −factor … factor. At −0.2 a fifth less of the
            height is seen (larger), at 0.2 a fifth more (smaller)
        width_factor: the same for the width; None: that of the height, so that the aspect ratio stays
        fill_mode: what is beyond the edges: "reflect", "wrap", "constant" or "nearest"
        interpolation: "nearest" or "bilinear"
        seed: of the layer's random generator
        fill_value: for fill_mode="constant"
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomZoom((-0.5, -0.5))(np.ones((1, 4, 4, 1))).shape
    (1, 4, 4, 1)
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs)
        self.height_factor = factor_range(self, height_factor, "height_factor", -1, 1, above=True)
        self.width_factor = (
            None if width_factor is None else factor_range(self, width_factor, "width_factor", -1, 1, above=True)
        )

    def draw(self, shape: Shape, seed: Any) -> Any:
        height = between(seed, (shape[0],), self.height_factor) + 1.0
        width = height if self.width_factor is None else between(seed, (shape[0],), self.width_factor) + 1.0
        return {"height_zoom": height, "width_zoom": width}

    def matrix(self, transformation: Any, height: int, width: int) -> list[Any]:
        across, down = transformation["width_zoom"], transformation["height_zoom"]
        return [across, 0.0, (width - 1) / 2 * (1 - across), 0.0, down, (height - 1) / 2 * (1 - down)]


class RandomTranslation(AffineLayer):
    """Moves each image by a random distance while training.

    Arguments:
        height_factor, width_factor: the ranges of distances as fractions of height and width: two numbers, or one for
            −factor … factor. Positive is down, and to the right
        fill_mode: what is beyond the edges: "reflect", "wrap", "constant" or "nearest"
        interpolation: "nearest" or "bilinear"
        seed: of the layer's random generator
        fill_value: for fill_mode="constant"
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.RandomTranslation(0.0, (0.5, 0.5), fill_mode="constant")
    >>> layer(np.float32([[[1], [2], [3], [4]]]))[..., 0].tolist()
    [[0.0, 0.0, 1.0, 2.0]]
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs)
        self.height_factor = factor_range(self, height_factor, "height_factor", -1, 1)
        self.width_factor = factor_range(self, width_factor, "width_factor", -1, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        down = between(seed, (shape[0],), self.height_factor) * shape[1]
        return {"down": down, "right": between(seed, (shape[0],), self.width_factor) * shape[2]}

    def matrix(self, transformation: Any, height: int, width: int) -> list[Any]:
        return [1.0, 0.0, -transformation["right"], 0.0, 1.0, -transformation["down"]]


class RandomShear(AffineLayer):
    """Shears each image, by a random factor to one or the other side, while training.

    Arguments:
        x_factor, y_factor: the ranges of factors: two numbers from −1 to 1, or one from 0 to 1 for −factor … factor. A
            row is moved by its distance from the top times the factor, a column by its distance from the left
        interpolation: "nearest" or "bilinear"
        fill_mode: what is beyond the edges: "reflect", "wrap", "constant" or "nearest"
        fill_value: for fill_mode="constant"
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomShear(x_factor=0.3)(np.ones((1, 4, 4, 1))).shape
    (1, 4, 4, 1)
    """

    def __init__(
        self,
        x_factor: Any = 0.0,
        y_factor: Any = 0.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, fill_value, seed=seed, data_format=data_format, **kwargs)
        self.x_factor = self._factor(x_factor, "x_factor")
        self.y_factor = self._factor(y_factor, "y_factor")

    def _factor(self, value: Any, what: str) -> tuple[float, float]:
        if isinstance(value, (tuple, list)):
            return factor_range(self, value, what, -1, 1)
        high = factor_range(self, (0, value), what, 0, 1)[1]
        return -high, high

    def draw(self, shape: Shape, seed: Any) -> Any:
        side = ops.where(ops.greater(random.uniform((shape[0],), seed=seed), 0.5), -1.0, 1.0)
        y = between(seed, (shape[0],), self.y_factor) * side
        return {"shear_x": between(seed, (shape[0],), self.x_factor) * side, "shear_y": y}

    def matrix(self, transformation: Any, height: int, width: int) -> list[Any]:
        return [1.0, transformation["shear_x"], 0.0, transformation["shear_y"], 1.0, 0.0]
