"""What layers of images have in common: single images and batches, both layouts, and what belongs to the images.

A layer says what it draws for a batch, `draw(shape, seed)`, and what it does with it, `change(images, transformation)`.
`call` brings its input into one form – batches, channels last – and back, and lets labels, bounding boxes and
segmentation masks follow their images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from highlevel import config, ops, random
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import tree

from ... import base
from ...arguments import image_axes, is_shape
from . import boxes as bounding_boxes

Shape = tuple[int, int, int, int]


class ImageLayer(base.Layer):
    """Base of layers that work on images.

    They take images, or a dictionary with "images" and what belongs to them: "labels", "segmentation_masks", and
    "bounding_boxes", itself a dictionary of "boxes" (…, boxes, 4) and "labels" (…, boxes). Other keys are left alone.

    Called by itself, a layer changes its images unless it is told `training=False`, as in Keras; inside a model it
    does while the model is being trained.

    bounding_box_format: how boxes are given, such as "xyxy"; needed if there are any
    data_format:         "channels_last" or "channels_first"
    """

    autocast = False  # images are cast here; labels, boxes and masks keep their types
    always: ClassVar[bool] = False  # whether it is at work in inference, too
    keeps_type: ClassVar[bool] = False  # whether integers stay integers
    channels: int | None = None  # how many channels the images must have

    def __init__(
        self, *, bounding_box_format: str | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bounding_box_format = bounding_boxes.check_format(bounding_box_format)
        self.data_format = config.data_format(data_format)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, always with the data format."""
        return {**super().get_config(), "data_format": self.data_format}

    # Checks -----------------------------------------------------------------------------------------------------------
    def check_input(self, input_shape: Any) -> None:
        shape = input_shape.get("images") if isinstance(input_shape, dict) else input_shape
        if shape is None or not is_shape(shape):
            raise ArgumentError(
                f"{self.name}: no images", got=input_shape, expected='images, or a dictionary with "images"'
            )
        if len(shape) not in (3, 4):
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {tuple(shape)} (rank {len(shape)})",
                expected=f"rank 4: {image_axes(2, self.data_format)}, or rank 3: one image",
                hint="add the channel axis: x[..., None]" if len(shape) == 2 else None,
            )
        found = shape[-1] if self.data_format == "channels_last" else shape[-3]
        if self.channels is not None and found not in (None, self.channels):
            raise ShapeError(
                f"{self.name}: the images do not have {self.channels} channels",
                got=f"shape {tuple(shape)} ({self.data_format})",
                expected=f"{self.channels} channels",
                hint=_channels_hint(self, shape),
            )

    # Calls ------------------------------------------------------------------------------------------------------------
    def bind_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = super().bind_call(args, kwargs)
        if bound.arguments.get("training") is None:
            inside = base.training_context()
            bound.arguments["training"] = True if inside is None else inside
        return bound

    def call(self, data: Any, training: bool = True) -> Any:
        given = dict(data) if isinstance(data, dict) else {"images": data}
        single = given["images"].ndim == 3
        batch = {key: self._enter(key, value, single) for key, value in given.items()}
        transformation = self.get_random_transformation(batch, training=training)
        for key, follow in self._followers().items():
            if key in batch:
                batch[key] = follow(batch[key], transformation, training=training)
        found = {key: self._leave(key, value, single) for key, value in batch.items()}
        return found if isinstance(data, dict) else found["images"]

    def _followers(self) -> dict[str, Any]:
        return {
            "images": self.transform_images,
            "labels": self.transform_labels,
            "bounding_boxes": self._follow_boxes,
            "segmentation_masks": self.transform_segmentation_masks,
        }

    def _enter(self, key: str, value: Any, single: bool) -> Any:
        """As a batch with channels last."""
        if key not in self._followers():
            return value
        if key == "bounding_boxes":
            value = bounding_boxes.check(self, value, single)
        value = tree.map(lambda x: ops.expand_dims(x, 0), value) if single else value
        if key in ("images", "segmentation_masks") and self.data_format == "channels_first":
            value = ops.moveaxis(value, 1, -1)
        return ops.cast(value, self.compute_dtype) if key == "images" and not self.keeps_type else value

    def _leave(self, key: str, value: Any, single: bool) -> Any:
        if key not in self._followers():
            return value
        if key in ("images", "segmentation_masks") and self.data_format == "channels_first":
            value = ops.moveaxis(value, -1, 1)
        return tree.map(lambda x: ops.squeeze(x, 0), value) if single else value

    def _follow_boxes(self, value: Any, transformation: Any, training: bool) -> Any:
        if self.bounding_box_format is None:
            raise ArgumentError(
                f"{self.name}: bounding boxes of an unknown format",
                expected=" | ".join(map(repr, bounding_boxes.FORMATS)),
                hint=f'{type(self).__name__}(…, bounding_box_format="xyxy")',
            )
        return self.transform_bounding_boxes(value, transformation, training=training)

    # What subclasses say ---------------------------------------------------------------------------------------------
    def draw(self, shape: Shape, seed: Any) -> Any:
        """What is random, for a batch of that shape: a dictionary of numbers for each image."""
        return {}

    def change(self, images: Any, transformation: Any) -> Any:
        """The images (batch, height, width, channels) after a transformation that was drawn."""
        raise NotImplementedError(f"{type(self).__name__} has no `change`")

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        """Boxes (batch, boxes, 4), "xyxy" in pixels, after the transformation."""
        return boxes

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        """Segmentation masks after the transformation."""
        return masks

    # Keras's names ---------------------------------------------------------------------------------------------------
    def get_random_transformation(self, data: Any, training: bool = True, seed: Any = None) -> Any:
        """What is drawn for a batch (with channels last), with the size of its images; None if nothing will happen."""
        if not (training or self.always):
            return None
        shape = tuple((data["images"] if isinstance(data, dict) else data).shape)
        return {"size": shape[1:3], **self.draw(shape, self._seed(seed))}

    def _seed(self, seed: Any = None) -> Any:
        return getattr(self, "generator", None) if seed is None else seed

    def transform_images(self, images: Any, transformation: Any, training: bool = True) -> Any:
        return self.change(images, transformation) if training or self.always else images

    def transform_labels(self, labels: Any, transformation: Any, training: bool = True) -> Any:
        return labels

    def transform_bounding_boxes(self, bounding: Any, transformation: Any, training: bool = True) -> Any:
        """Boxes that follow their images; those of which nothing is left get the label −1."""
        if not (training or self.always) or type(self).change_boxes is ImageLayer.change_boxes:
            return bounding
        source, size = str(self.bounding_box_format), transformation["size"]
        moved = self.change_boxes(bounding_boxes.convert(bounding["boxes"], source, "xyxy", *size), transformation)
        new_size = self.new_size(*size)
        moved, labels = bounding_boxes.clip(moved, bounding["labels"], *new_size)
        return {**bounding, "boxes": bounding_boxes.convert(moved, "xyxy", source, *new_size), "labels": labels}

    def transform_segmentation_masks(self, masks: Any, transformation: Any, training: bool = True) -> Any:
        return self.change_masks(masks, transformation) if training or self.always else masks

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of the images that it makes of images of a size."""
        return height, width


class RandomImageLayer(ImageLayer):
    """Base of layers of images with a random generator of their own."""

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = random.SeedGenerator(seed)


def _channels_hint(layer: ImageLayer, shape: Sequence[int | None]) -> str | None:
    other = shape[-3] if layer.data_format == "channels_last" else shape[-1]
    name = "channels_first" if layer.data_format == "channels_last" else "channels_last"
    return f'data_format="{name}", if the channels are there' if other == layer.channels else None


# Arguments -----------------------------------------------------------------------------------------------------------
def factor_range(
    layer: base.Layer, value: Any, what: str, low: float, high: float, *, above: bool = False
) -> tuple[float, float]:
    """(lowest, highest) of what is drawn: two numbers in low … high, or one, which stands for −value … value.

    above: whether `low` itself is not allowed
    """
    one = not isinstance(value, (tuple, list))
    numbers = [value] if one else list(value)
    fits = all(_is_number(x) and (low < x if above else low <= x) and x <= high for x in numbers)
    if not fits or len(numbers) != (1 if one else 2):
        raise ArgumentError(
            f"{layer.name}: {what} is out of range",
            got=f"{what}={value!r}",
            expected=f"a number, or two, {'above' if above else 'from'} {low:g} {'up ' if above else ''}to {high:g}",
        )
    if one:
        size = abs(numbers[0])
        return max(-size, low), size
    return min(numbers), max(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def two_values(layer: base.Layer, value: Any) -> tuple[float, float]:
    """A value range: the lowest and the highest value of a pixel."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(map(_is_number, value)):
        raise ArgumentError(f"{layer.name}: value_range is two numbers", got=repr(value), expected="(lowest, highest)")
    if value[0] == value[1]:
        raise ArgumentError(f"{layer.name}: value_range is empty", got=repr(value), expected="(lowest, highest)")
    return min(value), max(value)


def choice(layer: base.Layer, value: Any, what: str, choices: Sequence[str]) -> str:
    """One of some words."""
    if value not in choices:
        raise ArgumentError(f"{layer.name}: unknown {what}", got=repr(value), expected=" | ".join(map(repr, choices)))
    return str(value)


# What many do --------------------------------------------------------------------------------------------------------
def between(seed: Any, shape: Sequence[int], bounds: tuple[float, float]) -> Any:
    """Numbers spread evenly over a range."""
    return random.uniform(tuple(shape), float(bounds[0]), float(bounds[1]), seed=seed)


def chance(seed: Any, count: int, bounds: tuple[float, float]) -> Any:
    """Whether something happens to each image, with a probability that is itself drawn."""
    probability = between(seed, (count,), bounds)
    return ops.less(random.uniform((count,), seed=seed), probability)


def per_image(numbers: Any, like: Any) -> Any:
    """One number for each image, in the type and rank of the images."""
    shaped = ops.reshape(numbers, (-1, 1, 1, 1))
    return shaped if str(shaped.dtype) == "bool" else ops.cast(shaped, like.dtype)


def rescaled(images: Any, source: Sequence[float], target: Sequence[float]) -> Any:
    """Values moved from one range to another."""
    if tuple(source) == tuple(target):
        return images
    scale = (target[1] - target[0]) / (source[1] - source[0])
    return (images - source[0]) * scale + target[0]
