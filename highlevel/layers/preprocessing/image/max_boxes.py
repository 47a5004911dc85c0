"""One number of bounding boxes for all images."""

from __future__ import annotations

from typing import Any

from highlevel import ops

from ...arguments import whole
from .base import ImageLayer


class MaxNumBoundingBoxes(ImageLayer):
    """Cuts or fills up the boxes of all images to one number, while training and otherwise.

    Arguments:
        max_number: the number of boxes
        fill_value: what boxes and labels are filled up with

    Input: a dictionary of "images" and "bounding_boxes"

    Output: the same, with boxes (batch, max_number, 4) and labels (batch, max_number)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> boxes = {"boxes": np.ones((1, 1, 4), "float32"), "labels": np.array([[3]])}
    >>> layer = hl.layers.MaxNumBoundingBoxes(2, bounding_box_format="xyxy")
    >>> layer({"images": np.ones((1, 4, 4, 3)), "bounding_boxes": boxes})["bounding_boxes"]["labels"].tolist()
    [[3, -1]]
    """

    always = True
    keeps_type = True

    def __init__(self, max_number: int, fill_value: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_number = whole(self, max_number, "max_number")
        self.fill_value = int(fill_value)

    def change(self, images: Any, transformation: Any) -> Any:
        return images

    def transform_bounding_boxes(self, bounding: Any, transformation: Any, training: bool = True) -> Any:
        def fit(values: Any) -> Any:
            kept = values[:, : self.max_number]
            more = self.max_number - kept.shape[1]
            edges = ((0, 0), (0, more), *((0, 0),) * (values.ndim - 2))
            return ops.pad(kept, edges, constant_values=self.fill_value) if more else kept

        return {**bounding, "boxes": fit(bounding["boxes"]), "labels": fit(bounding["labels"])}
