"""Pairs of images made into one, and their labels with them."""

from __future__ import annotations

from typing import Any

from highlevel import ops, random
from highlevel.errors import ArgumentError

from ...arguments import check_floating
from .base import RandomImageLayer, Shape, between, factor_range, per_image
from .filtering import in_rectangle, rectangle


class _Mix(RandomImageLayer):
    """Mixes each image of a batch with another one."""

    def transform_labels(self, labels: Any, transformation: Any, training: bool = True) -> Any:
        if not training:
            return labels
        if labels.ndim < 2:
            raise ArgumentError(
                f"{self.name}: numbers of classes cannot be mixed",
                got=f"labels {labels.dtype} {tuple(labels.shape)}",
                expected="labels (batch, classes)",
                hint="hl.ops.one_hot(labels, classes) first",
            )
        labels = labels if labels.dtype.is_float else ops.cast(labels, "float32")
        check_floating(self, labels)
        share = ops.reshape(ops.cast(transformation["mix_weight"], labels.dtype), (-1,) + (1,) * (labels.ndim - 1))
        return share * labels + (1.0 - share) * self.others(labels, transformation)

    def others(self, values: Any, transformation: Any) -> Any:
        """What each image is mixed with."""
        return ops.take(values, transformation["permutation_order"], axis=0)

    def permutation(self, count: int, seed: Any) -> Any:
        return random.shuffle(ops.arange(count, dtype="int32"), seed=seed)


class MixUp(_Mix):
    """Makes weighted means of images, and of their labels, while training.

    y = w · x + (1 − w) · other, w ~ Beta(alpha, alpha)

    Labels are rows of probabilities, such as one-hot ones. An image gets the boxes of both.

    Arguments:
        alpha: of the distribution of weights: the larger, the closer to ½ they are
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or a dictionary of "images" and "labels"

    Output shape: the same

    Reference: H. Zhang et al., "mixup: beyond empirical risk minimization", 2017

    >>> import numpy as np
    >>> import highlevel as hl
    >>> data = {"images": np.ones((2, 4, 4, 3), "float32"), "labels": np.eye(2, dtype="float32")}
    >>> hl.layers.MixUp()(data)["labels"].shape
    (2, 2)
    """

    def __init__(
        self, alpha: float = 0.2, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        if not isinstance(alpha, (int, float)) or alpha <= 0:
            raise ArgumentError(f"{self.name}: alpha is a number", got=repr(alpha), expected="more than 0")
        self.alpha = float(alpha)

    def draw(self, shape: Shape, seed: Any) -> Any:
        order = self.permutation(shape[0], seed)
        return {"permutation_order": order, "mix_weight": random.beta((shape[0],), self.alpha, self.alpha, seed=seed)}

    def change(self, images: Any, transformation: Any) -> Any:
        share = per_image(transformation["mix_weight"], images)
        return share * images + (1.0 - share) * self.others(images, transformation)

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self.change(masks if masks.dtype.is_float else ops.cast(masks, "float32"), transformation)

    def transform_bounding_boxes(self, bounding: Any, transformation: Any, training: bool = True) -> Any:
        if not training:
            return bounding
        both = {key: (bounding[key], self.others(bounding[key], transformation)) for key in ("boxes", "labels")}
        return {**bounding, **{key: ops.concatenate(pair, axis=1) for key, pair in both.items()}}


class CutMix(_Mix):
    """Puts a random rectangle of another image into each image, and mixes their labels, while training.

    Labels are rows of probabilities, such as one-hot ones; they are mixed by the parts that are seen of both images.

    Arguments:
        factor: the range of a number a, two from 0 to 1, or one for 0 … factor: the share of the image that stays is
            drawn from Beta(a, a)
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or a dictionary of "images" and "labels"

    Output shape: the same

    Reference: S. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features",
    2019

    >>> import numpy as np
    >>> import highlevel as hl
    >>> data = {"images": np.ones((2, 4, 4, 3), "float32"), "labels": np.eye(2, dtype="float32")}
    >>> hl.layers.CutMix()(data)["images"].shape
    (2, 4, 4, 3)
    """

    def __init__(
        self, factor: Any = 1.0, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        batch, height, width, _ = shape
        alpha = between(seed, (batch,), self.factor) + 1e-6
        part = ops.sqrt(1.0 - random.beta((batch,), alpha, alpha, seed=seed))
        columns, rows = rectangle(seed, width, part), rectangle(seed, height, part)
        stays = 1.0 - (rows[1] - rows[0]) * (columns[1] - columns[0]) / (height * width)
        order = self.permutation(batch, seed)
        return {"permutation_order": order, "mix_weight": stays, "rows": rows, "columns": columns}

    def change(self, images: Any, transformation: Any) -> Any:
        inside = in_rectangle(images.shape, transformation["rows"], transformation["columns"])
        return ops.where(inside, self.others(images, transformation), images)

    def change_masks(self, masks: Any, transformation: Any) -> Any:
        return self.change(masks, transformation)

    def transform_bounding_boxes(self, bounding: Any, transformation: Any, training: bool = True) -> Any:
        if not training:
            return bounding
        raise ArgumentError(
            f"{self.name}: boxes that are partly covered have no right answer", hint="use MixUp for images with boxes"
        )
