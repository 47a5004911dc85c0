"""Random sequences of changes: RandAugment and AugMix.

Every image has a sequence of its own. All changes are computed for all images, and the one that was drawn is taken; the
three that only say where pixels are read – shear, translation, rotation – are one reading, with a matrix per image.
"""

from __future__ import annotations

from typing import Any

from highlevel import ops, random
from highlevel.errors import ArgumentError

from ...arguments import whole
from . import boxes as bounding_boxes
from .base import ImageLayer, Shape, choice, factor_range, per_image
from .colour import ColourLayer, RandomBrightness, RandomColorDegeneration, RandomContrast
from .filtering import RandomSharpness
from .geometry import INTERPOLATIONS, AffineLayer, RandomRotation, RandomShear, RandomTranslation, rows_of
from .tones import AutoContrast, Equalization, RandomPosterization, Solarization

ALL = (
    "random_shear", "random_translation", "random_rotation", "random_brightness", "random_color_degeneration",
    "random_contrast", "random_sharpness", "random_posterization", "solarization", "auto_contrast", "equalization",
)  # fmt: skip
FEW = (
    "random_shear", "random_translation", "random_rotation", "random_posterization", "solarization", "auto_contrast",
    "equalization",
)  # fmt: skip


class _Policy(ColourLayer):
    """Base of both: the changes, and one of them for each image."""

    channels = 3

    def __init__(
        self,
        names: tuple[str, ...],
        value_range: Any,
        factor: Any,
        interpolation: str,
        seed: int | None,
        data_format: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)
        self.interpolation = choice(self, interpolation, "interpolation", INTERPOLATIONS)
        self.changes = names
        both: Any = {"value_range": self.value_range}
        where: Any = {"interpolation": interpolation}
        f = self.factor
        makers: dict[str, tuple[Any, dict[str, Any]]] = {
            "random_shear": (RandomShear, {"x_factor": f, "y_factor": f, **where}),
            "random_translation": (RandomTranslation, {"height_factor": f, "width_factor": f, **where}),
            "random_rotation": (RandomRotation, {"factor": f, **where}),
            "random_brightness": (RandomBrightness, {"factor": f, **both}),
            "random_color_degeneration": (RandomColorDegeneration, {"factor": f, **both}),
            "random_contrast": (RandomContrast, {"factor": f, **both}),
            "random_sharpness": (RandomSharpness, {"factor": f, **both}),
            "random_posterization": (RandomPosterization, {"factor": max(1, int(8 * f[1])), **both}),
            "solarization": (Solarization, {"addition_factor": f, "threshold_factor": f, **both}),
            "auto_contrast": (AutoContrast, both),
            "equalization": (Equalization, both),
        }
        for name in names:
            kind, arguments = makers[name]
            seeds = {} if kind in (AutoContrast, Equalization) else {"seed": seed}
            more = {"data_format": self.data_format, "dtype": kwargs.get("dtype")}
            setattr(self, name, kind(**arguments, **seeds, **more))

    def _layers(self) -> dict[str, ImageLayer]:
        return {name: getattr(self, name) for name in self.changes}

    def draw_changes(self, shape: Shape, seed: Any) -> dict[str, Any]:
        """What each of the changes draws."""
        return {name: layer.draw(shape, seed) for name, layer in self._layers().items()}

    def one_each(self, images: Any, index: Any, drawn: dict[str, Any]) -> Any:
        """Each image after the change of its index, (batch,); an index beyond the last leaves it as it is."""
        moved = self._moved(images, index, drawn, self.interpolation)
        result = images
        for number, (name, layer) in enumerate(self._layers().items()):
            changed = moved if isinstance(layer, AffineLayer) else layer.change(images, drawn[name])
            result = ops.where(per_image(ops.equal(index, number), images), ops.cast(changed, images.dtype), result)
        return result

    def _matrix(self, index: Any, drawn: dict[str, Any], size: tuple[int, int], batch: int) -> Any:
        """The matrix of each image, (batch, 8); where nothing moves, that of the image itself."""
        rows = rows_of([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], batch)
        for number, (name, layer) in enumerate(self._layers().items()):
            if isinstance(layer, AffineLayer):
                here = ops.reshape(ops.equal(index, number), (-1, 1))
                rows = ops.where(here, rows_of(layer.matrix(drawn[name], *size), batch), rows)
        return rows

    def _moved(self, images: Any, index: Any, drawn: dict[str, Any], interpolation: str) -> Any:
        batch, height, width, _ = images.shape
        matrix = self._matrix(index, drawn, (height, width), batch)
        return ops.image.affine_transform(
            images, matrix, interpolation=interpolation, fill_mode="reflect", data_format="channels_last"
        )


class RandAugment(_Policy):
    """Changes each image by a few randomly chosen changes of a random strength while training.

    They are shear, translation, rotation, brightness, colour degeneration, contrast, sharpness, posterisation,
    solarisation, automatic contrast and equalisation. Boxes and segmentation masks follow.

    Arguments:
        value_range: the lowest and the highest value of a pixel
        num_ops: how many changes, one after the other
        factor: the range of their strength: two numbers from 0 to 1, or one for 0 … factor
        interpolation: "nearest" or "bilinear"
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    Reference: E. Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2019

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandAugment(num_ops=1)(np.zeros((2, 8, 8, 3), "uint8")).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        value_range: Any = (0, 255),
        num_ops: int = 2,
        factor: Any = 0.5,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ALL, value_range, factor, interpolation, seed, data_format, **kwargs)
        self.num_ops = whole(self, num_ops, "num_ops", 0)

    def draw(self, shape: Shape, seed: Any) -> Any:
        chosen = random.randint((self.num_ops, shape[0]), 0, len(self.changes), seed=seed)
        return {"layer_idxes": chosen, "transforms": self.draw_changes(shape, seed)}

    def change(self, images: Any, transformation: Any) -> Any:
        for i in range(self.num_ops):
            images = self.one_each(images, transformation["layer_idxes"][i], transformation["transforms"])
        return images

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        for i in range(self.num_ops):
            masks = self._moved(masks, transformation["layer_idxes"][i], transformation["transforms"], "nearest")
        return masks

    def change_boxes(self, boxes: Any, transformation: Any) -> Any:
        for i in range(self.num_ops):
            index, drawn = transformation["layer_idxes"][i], transformation["transforms"]
            matrix = self._matrix(index, drawn, transformation["size"], boxes.shape[0])
            boxes = bounding_boxes.through(matrix, boxes)
        return boxes


class AugMix(_Policy):
    """Mixes each image with several randomly changed versions of it while training.

    Each of the chains is a sequence of randomly chosen changes (see `RandAugment`), or of none in their place.
    y = w · x + (1 − w) · Σ vᵢ · chainᵢ(x), w ~ Beta(alpha, alpha), v ~ Dirichlet(alpha)

    Arguments:
        value_range: the lowest and the highest value of a pixel
        num_chains, chain_depth: the number of chains, and of changes in each
        factor: the range of their strength: two numbers from 0 to 1, or one for 0 … factor
        alpha: of the distributions of weights
        all_ops: whether brightness, colour degeneration, contrast and sharpness are among the changes
        interpolation: "nearest" or "bilinear"
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, 3), or one image without the batch axis

    Output shape: the same

    Reference: D. Hendrycks et al., "AugMix: a simple data processing method to improve robustness and uncertainty",
    2020

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AugMix(num_chains=2, chain_depth=1)(np.zeros((2, 8, 8, 3), "uint8")).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        value_range: Any = (0, 255),
        num_chains: int = 3,
        chain_depth: int = 3,
        factor: Any = 0.3,
        alpha: float = 1.0,
        all_ops: bool = True,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        names = ALL if all_ops else FEW
        super().__init__(names, value_range, factor, interpolation, seed, data_format, **kwargs)
        self.num_chains = whole(self, num_chains, "num_chains")
        self.chain_depth = whole(self, chain_depth, "chain_depth")
        if not isinstance(alpha, (int, float)) or alpha <= 0:
            raise ArgumentError(f"{self.name}: alpha is a number", got=repr(alpha), expected="more than 0")
        self.alpha = float(alpha)
        self.all_ops = all_ops

    def draw(self, shape: Shape, seed: Any) -> Any:
        batch = shape[0]
        shares = random.gamma((self.num_chains, batch), self.alpha, seed=seed) + 1e-30
        many = (self.num_chains * batch, *shape[1:])
        return {
            "chain_mixing_weights": shares / ops.sum(shares, axis=0, keepdims=True),
            "weight_sample": random.beta((batch,), self.alpha, self.alpha, seed=seed),
            "layer_idxes": random.randint((self.chain_depth, many[0]), 0, len(self.changes) + 1, seed=seed),
            "chain_transforms": [self.draw_changes(many, seed) for _ in range(self.chain_depth)],
        }

    def change(self, images: Any, transformation: Any) -> Any:
        chains = ops.tile(images, (self.num_chains, 1, 1, 1))
        for i, drawn in enumerate(transformation["chain_transforms"]):
            chains = self.one_each(chains, transformation["layer_idxes"][i], drawn)
        shares = per_image(transformation["chain_mixing_weights"], images)
        mixed = ops.sum(ops.reshape(chains * shares, (self.num_chains, *images.shape)), axis=0)
        share = per_image(transformation["weight_sample"], images)
        return self.clipped(share * images + (1.0 - share) * mixed)
