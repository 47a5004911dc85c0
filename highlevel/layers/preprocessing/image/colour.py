"""The colours of images, changed a little: brightness, contrast, hue, saturation, and grey."""

from __future__ import annotations

from typing import Any

from highlevel import config, ops, random

from ...arguments import fraction
from .base import RandomImageLayer, Shape, between, factor_range, per_image, rescaled, two_values


class ColourLayer(RandomImageLayer):
    """Base of layers that change colours: boxes, masks and labels stay as they are."""

    def __init__(self, value_range: Any = (0, 255), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_range = two_values(self, value_range)

    def clipped(self, images: Any) -> Any:
        return ops.clip(images, float(self.value_range[0]), float(self.value_range[1]))


class RandomBrightness(ColourLayer):
    """Adds a random number to all pixels of each image while training.

    y = clip(x + delta · (highest − lowest value))

    Arguments:
        factor: the range of delta: two numbers from −1 to 1, or one for −factor … factor
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomBrightness((0.2, 0.2))(np.full((1, 1, 2), 100, "uint8")).tolist()
    [[[151.0, 151.0]]]
    """

    def __init__(self, factor: Any, value_range: Any = (0, 255), seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(value_range, seed=seed, **kwargs)
        self.factor = factor_range(self, factor, "factor", -1, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        low, high = self.value_range
        return {"rgb_delta": between(seed, (shape[0], 1, 1, 1), self.factor) * (high - low)}

    def change(self, images: Any, transformation: Any) -> Any:
        return self.clipped(images + per_image(transformation["rgb_delta"], images))


class RandomContrast(ColourLayer):
    """Moves the pixels of each image away from their mean (of each channel) while training.

    y = clip((x − mean) · contrast + mean)

    Arguments:
        factor: contrast is drawn from 1 − lowest to 1 + highest of two numbers from 0 to 1; one number stands for
            (0, factor)
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomContrast(0.5)(np.float32([[[1], [3]]]), training=False)[..., 0].tolist()
    [[1.0, 3.0]]
    """

    def __init__(self, factor: Any, value_range: Any = (0, 255), seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(value_range, seed=seed, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"contrast_factor": between(seed, (shape[0], 1, 1, 1), (1 - self.factor[0], 1 + self.factor[1]))}

    def change(self, images: Any, transformation: Any) -> Any:
        mean = ops.mean(images, axis=(1, 2), keepdims=True)
        return self.clipped((images - mean) * per_image(transformation["contrast_factor"], images) + mean)


class RandomHue(ColourLayer):
    """Turns the colours of each image by a random angle while training.

    Arguments:
        factor: the range of half turns, to one or the other side: two numbers from 0 to 1, or one for 0 … factor
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> cyan = hl.layers.RandomHue((1.0, 1.0))(np.float32([[[255, 0, 0]]]))
    >>> np.round(cyan).tolist()
    [[[0.0, 255.0, 255.0]]]
    """

    channels = 3

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
        side = ops.where(ops.greater(random.uniform((shape[0],), seed=seed), 0.5), -1.0, 1.0)
        return {"factor": side * between(seed, (shape[0],), self.factor) * 0.5}

    def change(self, images: Any, transformation: Any) -> Any:
        hsv = ops.image.rgb_to_hsv(rescaled(images, self.value_range, (0, 1)), data_format="channels_last")
        hue = hsv[..., :1] + per_image(transformation["factor"], images)
        hue = ops.where(ops.greater(hue, 1.0), hue - 1.0, hue)
        hue = ops.where(ops.less(hue, 0.0), hue + 1.0, hue)
        turned = ops.image.hsv_to_rgb(ops.concatenate([hue, hsv[..., 1:]], axis=-1), data_format="channels_last")
        return rescaled(ops.clip(turned, 0.0, 1.0), (0, 1), self.value_range)


class RandomSaturation(ColourLayer):
    """Makes the colours of each image paler or stronger while training.

    saturation · f / (1 − f), at most 1, with a random f: 0 is grey, 0.5 changes nothing, 1 is as strong as can be

    Arguments:
        factor: the range of f: two numbers, or one for −factor … factor
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> np.round(hl.layers.RandomSaturation((0.0, 0.0))(np.float32([[[200, 100, 0]]]))).tolist()
    [[[200.0, 200.0, 200.0]]]
    """

    channels = 3

    def __init__(
        self,
        factor: Any,
        value_range: Any = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", -1, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        factor = between(seed, (shape[0],), self.factor)
        return {"factor": factor / (1 - factor + config.epsilon())}

    def change(self, images: Any, transformation: Any) -> Any:
        hsv = ops.image.rgb_to_hsv(rescaled(images, self.value_range, (0, 1)), data_format="channels_last")
        strength = ops.clip(hsv[..., 1:2] * per_image(transformation["factor"], images), 0.0, 1.0)
        changed = ops.concatenate([hsv[..., :1], strength, hsv[..., 2:]], axis=-1)
        return rescaled(ops.image.hsv_to_rgb(changed, data_format="channels_last"), (0, 1), self.value_range)


class RandomColorJitter(ColourLayer):
    """Changes brightness, contrast, saturation and hue of each image, in this order, while training.

    Arguments:
        value_range: the lowest and the highest value of a pixel
        brightness_factor, contrast_factor, saturation_factor, hue_factor: as for the layers of these names; None leaves
            one out
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.RandomColorJitter(brightness_factor=0.2, hue_factor=0.1)
    >>> layer(np.zeros((2, 4, 4, 3), "uint8")).shape
    (2, 4, 4, 3)
    """

    def __init__(
        self,
        value_range: Any = (0, 255),
        brightness_factor: Any = None,
        contrast_factor: Any = None,
        saturation_factor: Any = None,
        hue_factor: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        more: Any = {"value_range": self.value_range, "seed": seed, "data_format": self.data_format}
        more["dtype"] = kwargs.get("dtype")
        for name, kind, factor in (
            ("random_brightness", RandomBrightness, brightness_factor),
            ("random_contrast", RandomContrast, contrast_factor),
            ("random_saturation", RandomSaturation, saturation_factor),
            ("random_hue", RandomHue, hue_factor),
        ):
            setattr(self, name, None if factor is None else kind(factor, **more))
        self.channels = None if saturation_factor is None and hue_factor is None else 3

    def _steps(self) -> dict[str, ColourLayer]:
        names = ("random_brightness", "random_contrast", "random_saturation", "random_hue")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {name: layer.draw(shape, seed) for name, layer in self._steps().items()}

    def change(self, images: Any, transformation: Any) -> Any:
        for name, layer in self._steps().items():
            images = layer.change(images, transformation[name])
        return images


class RandomColorDegeneration(ColourLayer):
    """Mixes each image with its grey version while training.

    y = clip(x + factor · (grey − x))

    Arguments:
        factor: the range of factors: two numbers, or one for −factor … factor; 0 is the image, 1 its grey version
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> grey = hl.layers.RandomColorDegeneration((1.0, 1.0))(np.float32([[[200, 100, 0]]]))
    >>> np.round(grey).tolist()
    [[[118.0, 118.0, 118.0]]]
    """

    channels = 3

    def __init__(
        self,
        factor: Any,
        value_range: Any = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", -1, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"factor": between(seed, (shape[0], 1, 1, 1), self.factor)}

    def change(self, images: Any, transformation: Any) -> Any:
        grey = ops.image.rgb_to_grayscale(images, data_format="channels_last")
        return self.clipped(images + per_image(transformation["factor"], images) * (grey - images))


class RandomGrayscale(RandomImageLayer):
    """Makes images grey with a probability while training; they keep three channels.

    Arguments:
        factor: the probability
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> np.round(hl.layers.RandomGrayscale(1.0)(np.float32([[[200, 100, 0]]]))).tolist()
    [[[118.0, 118.0, 118.0]]]
    """

    channels = 3
    keeps_type = True

    def __init__(
        self, factor: float = 0.5, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.factor = fraction(self, factor, "factor")

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"should_apply": ops.less(random.uniform((shape[0],), seed=seed), self.factor)}

    def change(self, images: Any, transformation: Any) -> Any:
        grey = ops.image.rgb_to_grayscale(images, data_format="channels_last")
        return ops.where(per_image(transformation["should_apply"], images), grey, images)
