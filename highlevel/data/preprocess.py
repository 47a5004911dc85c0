"""How images become a network's input. It belongs to the weights: it is saved with them and travels with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError

from .images import center_crop, resize


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, crop, colour order and normalisation: `(x − mean) / std` on values 0…255.

    size:          (height, width) that the network takes
    crop_fraction: the part of the resized image that the crop keeps: the shorter side is resized to size /
                   crop_fraction
    interpolation, antialias: how to resize
    channels:      "RGB", "BGR" or "grey"
    mean, std:     per channel, on the scale 0…255
    """

    size: tuple[int, int]
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    antialias: bool = True
    channels: str = "RGB"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From plain data, as files have it."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(self, images: Any) -> np.ndarray:
        """Network input, float32 (batch, height, width, channels).

        images: uint8 RGB `(batch, height, width, 3)`, one image without the batch axis, or a list of images of any
                sizes
        """
        return self.normalize(self.fit_all(images, stacklevel=4))

    def fit_all(self, images: Any, stacklevel: int = 3) -> np.ndarray:
        """Images as `__call__` takes them in the network's size, still as they were otherwise; pixels are checked."""
        pictures = _as_list(images)
        if any([_check(image) for image in pictures]):
            warnings.warn(
                "preprocess: values from 0 to 1 where pixels from 0 to 255 are expected; were they normalised before? "
                "Multiply by 255 if they are pictures.",
                stacklevel=stacklevel,  # where `model.preprocess` is called
            )
        return np.stack([self.fit(image) for image in pictures])

    def fit(self, image: np.ndarray) -> np.ndarray:
        """One image in the network's size, still as it was otherwise: uint8 (height, width, 3)."""
        height, width = image.shape[:2]
        wanted_height, wanted_width = self.size
        scale = max(wanted_height / height, wanted_width / width) / self.crop_fraction
        enlarged = max(wanted_height, round(height * scale)), max(wanted_width, round(width * scale))
        fitted = resize(image, enlarged, interpolation=self.interpolation, antialias=self.antialias)
        return center_crop(fitted, self.size)

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Images in the network's size, normalised."""
        x = images.astype(np.float32)
        if self.channels == "BGR":
            x = x[..., ::-1]
        elif self.channels == "grey":
            x = x @ np.array([[0.299], [0.587], [0.114]], np.float32)
        return (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


def _as_list(images: Any) -> Sequence[np.ndarray]:
    items = list(images) if isinstance(images, (list, tuple)) else None
    if items is None:
        array = np.asarray(images)
        items = [array] if array.ndim == 3 else list(array) if array.ndim == 4 else [array]
    return [np.asarray(image) for image in items]


def _check(image: np.ndarray) -> bool:
    """Raises unless it is a picture; returns whether it looks as if it were normalised already."""
    if image.ndim != 3 or image.shape[-1] != 3:
        hint = None
        if image.ndim == 2:
            hint = "grey pictures: np.stack([image] * 3, axis=-1)"
        elif image.ndim == 3 and image.shape[0] == 3:
            hint = "channels come last: np.moveaxis(image, 0, -1)"
        raise ShapeError(
            "preprocess: this is not an RGB image", got=f"shape {image.shape}", expected="(height, width, 3)", hint=hint
        )
    if image.dtype == np.uint8:
        return False
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255:
        raise ArgumentError(
            "preprocess: values outside of 0…255",
            got=f"{image.dtype} from {low:.3g} to {high:.3g}",
            expected="uint8 pixels",
            hint="these look normalised already: give the pixels themselves",
        )
    return 0 < high <= 1.0
