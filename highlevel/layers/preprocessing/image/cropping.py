"""Images of another size: resized, cut out of the middle, or cut out at random."""

from __future__ import annotations

from typing import Any

from highlevel import ops, random

from ...arguments import whole
from . import boxes as bounding_boxes
from .base import ImageLayer, RandomImageLayer, Shape, choice

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


class Resizing(ImageLayer):
    """Resizes images, while training and otherwise; integers stay integers.

    Arguments:
        height, width: the new size
        interpolation: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5"
        crop_to_aspect_ratio: whether to cut the images in the middle to the new shape first
        pad_to_aspect_ratio: whether to pad the images to the new shape first
        fill_mode, fill_value: "constant", and the value to pad with
        antialias: whether all pixels count when images are made smaller
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same with the new size

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Resizing(2, 3)(np.zeros((1, 4, 6, 1), "uint8")).shape
    (1, 2, 3, 1)
    """

    always = True
    keeps_type = True

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.height = whole(self, height, "height")
        self.width = whole(self, width, "width")
        self.interpolation = choice(self, interpolation, "interpolation", INTERPOLATIONS)
        self.crop_to_aspect_ratio = crop_to_aspect_ratio
        self.pad_to_aspect_ratio = pad_to_aspect_ratio
        self.fill_mode = choice(self, fill_mode, "fill_mode", ("constant",))
        self.fill_value = fill_value
        self.antialias = bool(antialias)

    def change(self, images: Any, transformation: Any) -> Any:
        return self._resized(images, self.interpolation)

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self._resized(masks, "nearest")

    def _resized(self, images: Any, interpolation: str) -> Any:
        return ops.image.resize(
            images,
            (self.height, self.width),
            interpolation=interpolation,
            antialias=self.antialias,
            crop_to_aspect_ratio=self.crop_to_aspect_ratio,
            pad_to_aspect_ratio=self.pad_to_aspect_ratio,
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
            data_format="channels_last",
        )

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        top, left, rows, columns = self._window(*transformation["size"])
        down, across = self.height / rows, self.width / columns
        x1, y1, x2, y2 = bounding_boxes.parts(boxes)
        moved = [(x1 - left) * across, (y1 - top) * down, (x2 - left) * across, (y2 - top) * down]
        empty = ops.all(ops.equal(boxes, 0.0), axis=-1, keepdims=True)
        filler = ops.all(ops.equal(boxes, -1.0), axis=-1, keepdims=True)
        return ops.where(ops.logical_or(empty, filler), ops.zeros_like(boxes), ops.stack(moved, axis=-1))

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is resized; it reaches beyond an image that is padded."""
        rows, columns = int(width * self.height / self.width), int(height * self.width / self.height)
        if self.crop_to_aspect_ratio:
            rows, columns = max(min(rows, height), 1), max(min(columns, width), 1)
            return (height - rows) // 2, (width - columns) // 2, rows, columns
        if self.pad_to_aspect_ratio:
            above, beside = max(rows - height, 0) // 2, max(columns - width, 0) // 2
            return -above, -beside, height + 2 * above, width + 2 * beside
        return 0, 0, height, width

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width


class _Crop(ImageLayer):
    """Cuts out a piece of a size; where images are too small, the largest piece of that shape, which is resized."""

    height: int
    width: int

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the largest piece of the right shape in the middle of an image."""
        rows = max(min(height, int(width * self.height / self.width)), 1)
        columns = max(min(width, int(height * self.width / self.height)), 1)
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def fits(self, height: int, width: int) -> bool:
        return height >= self.height and width >= self.width

    def whole_window(self, images: Any, interpolation: str = "bilinear") -> Any:
        top, left, rows, columns = self.window(*images.shape[1:3])
        piece = images[:, top : top + rows, left : left + columns]
        size = (self.height, self.width)
        resized = ops.image.resize(piece, size, interpolation=interpolation, data_format="channels_last")
        return ops.cast(resized, images.dtype)

    def boxes_in_window(self, boxes: Any, height: int, width: int) -> Any:
        top, left, rows, columns = self.window(height, width)
        x1, y1, x2, y2 = bounding_boxes.parts(boxes)
        across, down = self.width / columns, self.height / rows
        moved = [(x1 - left) * across, (y1 - top) * down, (x2 - left) * across, (y2 - top) * down]
        return ops.stack(moved, axis=-1)

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width


class CenterCrop(_Crop):
    """Cuts a piece out of the middle of images, while training and otherwise.

    Images that are smaller than the piece are cut to its shape, and resized.

    Arguments:
        height, width: size of the piece
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same with the new size

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.CenterCrop(2, 3)(np.zeros((1, 4, 6, 1))).shape
    (1, 2, 3, 1)
    """

    always = True

    def __init__(self, height: int, width: int, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.height = whole(self, height, "height")
        self.width = whole(self, width, "width")

    def _start(self, height: int, width: int) -> tuple[int, int]:
        return (height - self.height) // 2, (width - self.width) // 2

    def change(self, images: Any, transformation: Any, interpolation: str = "bilinear") -> Any:
        height, width = images.shape[1:3]
        if not self.fits(height, width):
            return self.whole_window(images, interpolation)
        top, left = self._start(height, width)
        return images[:, top : top + self.height, left : left + self.width]

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self.change(masks, transformation, "nearest")

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        height, width = transformation["size"]
        if not self.fits(height, width):
            return self.boxes_in_window(boxes, height, width)
        top, left = self._start(height, width)
        x1, y1, x2, y2 = bounding_boxes.parts(boxes)
        return ops.stack([x1 - left, y1 - top, x2 - left, y2 - top], axis=-1)


class RandomCrop(_Crop, RandomImageLayer):
    """Cuts a piece out of each image, anywhere while training, and the middle otherwise.

    Otherwise, and where images are smaller than the piece, it is the largest piece of that shape, resized. So the shape
    of the result is always the same.

    Arguments:
        height, width: size of the piece
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same with the new size

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.RandomCrop(2, 3, seed=1)
    >>> layer(np.zeros((1, 4, 6, 1))).shape, layer(np.zeros((1, 4, 6, 1)), training=False).shape
    ((1, 2, 3, 1), (1, 2, 3, 1))
    """

    always = True

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, name=name, **kwargs)
        self.height = whole(self, height, "height")
        self.width = whole(self, width, "width")

    def get_random_transformation(self, data: Any, training: bool = True, seed: Any = None) -> Any:
        shape = tuple((data["images"] if isinstance(data, dict) else data).shape)
        if not (training and self.fits(*shape[1:3])):
            return {"size": shape[1:3]}
        return {"size": shape[1:3], **self.draw(shape, self._seed(seed))}

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {
            "top": random.randint((shape[0],), 0, shape[1] - self.height + 1, seed=seed),
            "left": random.randint((shape[0],), 0, shape[2] - self.width + 1, seed=seed),
        }

    def change(self, images: Any, transformation: Any, interpolation: str = "bilinear") -> Any:
        if "top" not in transformation:
            return self.whole_window(images, interpolation)
        number = ops.reshape(ops.arange(images.shape[0]), (-1, 1, 1))
        rows = ops.reshape(transformation["top"], (-1, 1, 1)) + ops.reshape(ops.arange(self.height), (1, -1, 1))
        columns = ops.reshape(transformation["left"], (-1, 1, 1)) + ops.reshape(ops.arange(self.width), (1, 1, -1))
        return images[number, rows, columns]

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self.change(masks, transformation, "nearest")

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        if "top" not in transformation:
            return self.boxes_in_window(boxes, *transformation["size"])
        top, left = (ops.cast(ops.expand_dims(transformation[key], 1), boxes.dtype) for key in ("top", "left"))
        x1, y1, x2, y2 = bounding_boxes.parts(boxes)
        return ops.stack([x1 - left, y1 - top, x2 - left, y2 - top], axis=-1)
