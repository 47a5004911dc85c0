"""Batches of pictures, normalised as they are needed, and – for training – varied a little each time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from highlevel.errors import ArgumentError

from .loader import Batch
from .preprocess import Preprocessing


class ImageBatches:
    """Batches of (network input, labels) from pictures in memory.

    images:  uint8 (n, height, width, 3), in the network's size
    labels:  integers (n,), or None
    varied:  mirror and shift each picture at random (by up to an eighth), anew in every epoch
    shuffle: another order in every epoch
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        varied: bool = False,
        seed: int = 0,
    ) -> None:
        if labels is not None and len(labels) != len(images):
            raise ArgumentError("one label per picture", got=f"{len(labels)} labels", expected=f"{len(images)}")
        self.images = images
        self.labels = labels
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.varied = varied
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self.rng.permutation(len(self.images)) if self.shuffle else np.arange(len(self.images))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            images = self.images[rows]
            if self.varied:
                images = vary(images, self.rng)
            yield Batch(self.preprocessing.normalize(images), None if self.labels is None else self.labels[rows])


def vary(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture mirrored or not, and shifted by up to an eighth of its size; edges are reflected."""
    height, width = images.shape[1:3]
    reach = max(height // 8, 1), max(width // 8, 1)
    padded = np.pad(images, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="reflect")
    varied = np.empty_like(images)
    for i, picture in enumerate(padded):
        top, left = rng.integers(0, 2 * reach[0] + 1), rng.integers(0, 2 * reach[1] + 1)
        piece = picture[top : top + height, left : left + width]
        varied[i] = piece[:, ::-1] if rng.random() < 0.5 else piece
    return varied
