"""Images smoothed, sharpened, distorted, seen from elsewhere, and with a piece missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel import ops, random
from highlevel.errors import ArgumentError
from highlevel.ops.image.warping import sampled

from . import boxes as bounding_boxes
from .base import RandomImageLayer, Shape, between, chance, choice, factor_range, per_image
from .colour import ColourLayer
from .geometry import INTERPOLATIONS


def smoothed(images: Any, size: tuple[int, int], sigma_x: Any, sigma_y: Any) -> Any:
    """Images (batch, height, width, channels) smoothed by bells of a width of their own, (batch,); zeros around them.

    size: how many columns, and how many rows, a bell reaches over, odd
    """
    batch, height, width, channels = images.shape
    down = _bells(height, size[1], sigma_y, images.dtype)
    across = _bells(width, size[0], sigma_x, images.dtype)
    y = ops.matmul(down, ops.reshape(images, (batch, height, width * channels)))
    y = ops.matmul(ops.expand_dims(across, 1), ops.reshape(y, (batch, height, width, channels)))
    return ops.cast(y, images.dtype)


def _bells(length: int, size: int, sigma: Any, dtype: Any) -> Any:
    """The matrix (batch, length, length) that smooths an axis: a bell around each place, cut off, of sum 1."""
    sigma = ops.reshape(ops.cast(sigma, dtype), (-1, 1, 1))
    reach = size // 2
    kernel = ops.convert_to_tensor(np.arange(-reach, reach + 1).reshape(1, 1, -1), dtype)
    total = ops.sum(ops.exp(-0.5 * ops.square(kernel / sigma)), axis=-1, keepdims=True)
    distance = np.arange(length) - np.arange(length)[:, None]
    bell = ops.exp(-0.5 * ops.square(ops.convert_to_tensor(distance[None], dtype) / sigma)) / total
    return ops.where(ops.convert_to_tensor(np.abs(distance)[None] <= reach), bell, ops.zeros_like(bell))


class RandomGaussianBlur(ColourLayer):
    """Smooths images, with a random probability and a random width, while training.

    Arguments:
        factor: the range of the probability: two numbers from 0 to 1, or one for 0 … factor
        kernel_size: how many columns and rows the bell reaches over: an odd number, or two
        sigma: the range of its standard deviation in pixels: two numbers from 0 to 1, or one for 0 … sigma
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomGaussianBlur(kernel_size=5, sigma=(1.0, 1.0))(np.ones((1, 8, 8, 3), "float32")).shape
    (1, 8, 8, 3)
    """

    def __init__(
        self,
        factor: Any = 1.0,
        kernel_size: Any = 3,
        sigma: Any = 1.0,
        value_range: Any = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)
        self.sigma = factor_range(self, sigma, "sigma", 0, 1)
        sizes = tuple(kernel_size) if isinstance(kernel_size, (tuple, list)) else (kernel_size, kernel_size)
        if len(sizes) != 2 or any(not isinstance(n, int) or n < 1 or n % 2 == 0 for n in sizes):
            raise ArgumentError(f"{self.name}: kernel_size is odd", got=repr(kernel_size), expected="1, 3, 5 …, or two")
        self.kernel_size = sizes

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {
            "should_apply_blur": chance(seed, shape[0], self.factor),
            "blur_factor": between(seed, (shape[0], 2), self.sigma) + 1e-6,
        }

    def change(self, images: Any, transformation: Any) -> Any:
        sigma = transformation["blur_factor"]
        blurred = smoothed(images, self.kernel_size, sigma[:, 0], sigma[:, 1])
        return self.clipped(ops.where(per_image(transformation["should_apply_blur"], images), blurred, images))


class RandomSharpness(ColourLayer):
    """Makes each image softer or sharper while training.

    y = clip(x + (1 − 2 · factor) · (smoothed x − x)): smoothed at 0, unchanged at 0.5, sharpened at 1

    Arguments:
        factor: the range of factors: two numbers from 0 to 1, or one for 0 … factor
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomSharpness((0.5, 0.5))(np.float32([[[10], [20]]]))[..., 0].tolist()
    [[10.0, 20.0]]
    """

    def __init__(
        self,
        factor: Any,
        value_range: Any = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"factor": between(seed, (shape[0],), self.factor)}

    def change(self, images: Any, transformation: Any) -> Any:
        kernel = np.full((3, 3, 1, 1), 1 / 13)
        kernel[1, 1] = 5 / 13
        kernels = ops.convert_to_tensor(np.tile(kernel, (1, 1, images.shape[-1], 1)), images.dtype)
        soft = ops.depthwise_conv(images, kernels, 1, "same", data_format="channels_last")
        away = 1.0 - 2.0 * per_image(transformation["factor"], images)
        return self.clipped(images + away * (ops.cast(soft, images.dtype) - images))


class RandomErasing(ColourLayer):
    """Covers a random rectangle of each image, with a random probability, while training.

    Arguments:
        factor: the range of the probability: two numbers from 0 to 1, or one for 0 … factor
        scale: the range of the rectangle's part of the image: two numbers from 0 to 1, or one for 0 … scale. Height and
            width are drawn each for itself
        fill_value: what covers it: a number, three numbers, or None for noise
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    Reference: Z. Zhong et al., "Random erasing data augmentation", 2017

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.RandomErasing((1.0, 1.0), scale=(1.0, 1.0), fill_value=7.0)
    >>> layer(np.zeros((1, 2, 1), "float32")).tolist()
    [[[7.0], [7.0]]]
    """

    def __init__(
        self,
        factor: Any = 1.0,
        scale: Any = (0.02, 0.33),
        fill_value: Any = None,
        value_range: Any = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)
        self.scale = factor_range(self, scale, "scale", 0, 1)
        size = np.size(fill_value) if fill_value is not None else 1
        if size not in (1, 3):
            raise ArgumentError(f"{self.name}: not a colour", got=repr(fill_value), expected="one or three numbers")
        self.fill_value = fill_value
        self.channels = 3 if size == 3 else None

    def draw(self, shape: Shape, seed: Any) -> Any:
        batch, height, width, _ = shape
        part = ops.sqrt(between(seed, (batch, 2), self.scale))
        columns, rows = rectangle(seed, width, part[:, 0]), rectangle(seed, height, part[:, 1])
        drawn = {"apply_erasing": chance(seed, batch, self.factor), "rows": rows, "columns": columns}
        if self.fill_value is None:
            drawn["noise"] = random.normal(shape, seed=seed) * self.value_range[1]
        return drawn

    def change(self, images: Any, transformation: Any) -> Any:
        cover = transformation["noise"] if self.fill_value is None else np.array(self.fill_value, "float32")
        cover = self.clipped(ops.cast(cover, images.dtype))
        inside = in_rectangle(images.shape, transformation["rows"], transformation["columns"])
        here = ops.logical_and(inside, per_image(transformation["apply_erasing"], images))
        return ops.where(here, cover, images)


def rectangle(seed: Any, size: int, part: Any) -> Any:
    """(first, end) along an axis for a part of its size, (2, batch), anywhere."""
    length = part * size
    start = random.uniform(tuple(part.shape), seed=seed) * (size - length)
    return ops.stack([start, start + length])


def in_rectangle(shape: Any, rows: Any, columns: Any) -> Any:
    """Whether each pixel lies in its image's rectangle, (batch, height, width, 1)."""
    _, height, width, _ = shape
    inside = None
    for (start, end), place in zip(
        ((rows[0], rows[1]), (columns[0], columns[1])),
        (np.arange(height).reshape(1, -1, 1, 1), np.arange(width).reshape(1, 1, -1, 1)),
        strict=True,
    ):
        at = ops.convert_to_tensor(place, "float32")
        first, last = (ops.reshape(ops.cast(x, "float32"), (-1, 1, 1, 1)) for x in (start, end))
        within = ops.logical_and(ops.greater_equal(at, first), ops.less(at, last))
        inside = within if inside is None else ops.logical_and(inside, within)
    return inside


class RandomPerspective(RandomImageLayer):
    """Shows images from a random side, with a random probability, while training.

    Each corner is moved by up to half its distance from the first one, times `scale`.

    Arguments:
        factor: the range of the probability: two numbers from 0 to 1, or one for 0 … factor
        scale: how far corners move, from 0 to 1
        interpolation: "nearest" or "bilinear"
        fill_value: beyond the edges
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomPerspective(scale=0.5)(np.ones((2, 8, 8, 3), "float32")).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        factor: Any = 1.0,
        scale: float = 1.0,
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)
        self.scale = factor_range(self, (0, scale), "scale", 0, 1)[1]
        self.interpolation = choice(self, interpolation, "interpolation", INTERPOLATIONS)
        self.fill_value = fill_value

    def draw(self, shape: Shape, seed: Any) -> Any:
        batch, height, width, _ = shape
        apply = chance(seed, batch, self.factor)
        part = between(seed, (batch, 4, 2), (-0.5 * self.scale, 0.5 * self.scale))
        right, bottom = width - 1.0, height - 1.0
        start = np.array([[[0, 0], [right, 0], [0, bottom], [right, bottom]]], "float32")
        start = ops.broadcast_to(ops.convert_to_tensor(start), (batch, 4, 2))
        return {"apply_perspective": apply, "start_points": start, "end_points": start + start * part}

    def change(self, images: Any, transformation: Any) -> Any:
        return self._seen(images, transformation, self.interpolation)

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self._seen(masks, transformation, "nearest")

    def _seen(self, images: Any, transformation: Any, interpolation: str) -> Any:
        seen = ops.image.perspective_transform(
            images,
            transformation["start_points"],
            transformation["end_points"],
            interpolation=interpolation,
            fill_value=self.fill_value,
            data_format="channels_last",
        )
        return ops.where(per_image(transformation["apply_perspective"], images), seen, images)

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        maps = _projective_map(transformation["start_points"], transformation["end_points"])
        a, b, c, d, e, f, g, h = (maps[:, i : i + 1] for i in range(8))
        places = list(zip(*bounding_boxes.corners(boxes), strict=True))
        depths = [g * x + h * y + 1.0 for x, y in places]
        xs = [(a * x + b * y + c) / depth for (x, y), depth in zip(places, depths, strict=True)]
        ys = [(d * x + e * y + f) / depth for (x, y), depth in zip(places, depths, strict=True)]
        apply = ops.reshape(transformation["apply_perspective"], (-1, 1, 1))
        return ops.where(apply, bounding_boxes.around(xs, ys), boxes)


def _projective_map(start: Any, end: Any) -> Any:
    """The eight numbers (batch, 8) of the map that takes four points to four points, (batch, 4, 2)."""
    x, y, u, v = (ops.cast(points[..., i], "float32") for points in (start, end) for i in (0, 1))
    one, zero = ops.ones_like(x), ops.zeros_like(x)
    across = ops.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=-1)
    down = ops.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=-1)
    return ops.solve(ops.concatenate([across, down], axis=1), ops.concatenate([u, v], axis=1))


class RandomElasticTransform(ColourLayer):
    """Distorts images like rubber, with a random probability, while training.

    Each pixel is moved by a smooth field of random directions.

    Arguments:
        factor: the range of the probability: two numbers from 0 to 1, or one for 0 … factor
        scale: the range of the strength, drawn for each image: two numbers from 0 to 1, or one for 0 … scale
        interpolation: "nearest" or "bilinear"
        fill_mode: what is beyond the edges: "constant", "nearest", "wrap", "mirror" or "reflect"
        fill_value: for fill_mode="constant"
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    Reference: P. Simard et al., "Best practices for convolutional neural networks applied to visual document
    analysis", 2003

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomElasticTransform(scale=0.5)(np.ones((2, 8, 8, 3), "float32")).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        factor: Any = 1.0,
        scale: Any = 1.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        value_range: Any = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)
        self.scale = factor_range(self, scale, "scale", 0, 1)
        self.interpolation = choice(self, interpolation, "interpolation", INTERPOLATIONS)
        self.fill_mode = choice(self, fill_mode, "fill_mode", ("constant", "nearest", "wrap", "mirror", "reflect"))
        self.fill_value = fill_value

    def draw(self, shape: Shape, seed: Any) -> Any:
        batch, height, width, _ = shape
        strength = between(seed, (batch,), self.scale)
        noise = random.normal((batch, height, width, 2), seed=seed)
        apply = ops.logical_and(chance(seed, batch, self.factor), ops.greater(strength, 0.0))
        return {"apply_transform": apply, "distortion_factor": strength, "noise": noise}

    def change(self, images: Any, transformation: Any) -> Any:
        return self.clipped(self._distorted(images, transformation, self.interpolation))

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self._distorted(masks, transformation, "nearest")

    def shifts(self, transformation: Any) -> Any:
        """How far each pixel is moved, (batch, height, width, 2): across and down."""
        noise = transformation["noise"]
        _, height, width, _ = noise.shape
        strength = ops.reshape(transformation["distortion_factor"], (-1, 1, 1, 1))
        sigma = ops.maximum(strength * (0.05 * min(height, width)), 1e-6)
        size = int(6 * 0.05 * min(height, width) * self.scale[1]) | 1  # what the widest bell reaches over
        smooth = smoothed(noise * sigma, (size, size), sigma, sigma)
        return smooth * strength * (0.1 * max(height, width))

    def _distorted(self, images: Any, transformation: Any, interpolation: str) -> Any:
        shift = self.shifts(transformation)

        def locate(x: Any, y: Any, dtype: Any, shape: Any) -> tuple[Any, Any]:
            return x + ops.cast(shift[..., :1], dtype), y + ops.cast(shift[..., 1:], dtype)

        moved = sampled(images, self.name, interpolation, self.fill_mode, self.fill_value, "channels_last", locate)
        return ops.where(per_image(transformation["apply_transform"], images), moved, images)
