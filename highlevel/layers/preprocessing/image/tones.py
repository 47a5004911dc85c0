"""Tables from values to values: inverted, posterised, solarised images, and images whose histogram is spread."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from highlevel import ops, random
from highlevel.errors import ArgumentError

from ...arguments import per_axis, whole
from .base import ImageLayer, Shape, between, chance, factor_range, per_image, rescaled, two_values
from .colour import ColourLayer


class RandomInvert(ColourLayer):
    """Turns light into dark with a random probability while training.

    y = highest + lowest value − x

    Arguments:
        factor: the range of the probability: two numbers from 0 to 1, or one for 0 … factor
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomInvert((1.0, 1.0))(np.float32([[[200, 100, 0]]])).tolist()
    [[[55.0, 155.0, 255.0]]]
    """

    def __init__(
        self,
        factor: Any = 1.0,
        value_range: Any = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor_range(self, factor, "factor", 0, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        return {"apply_inversion": chance(seed, shape[0], self.factor)}

    def change(self, images: Any, transformation: Any) -> Any:
        inverted = float(sum(self.value_range)) - images
        return ops.where(per_image(transformation["apply_inversion"], images), inverted, images)


class RandomPosterization(ColourLayer):
    """Keeps only the first few bits of each value while training.

    Arguments:
        factor: how many bits are kept: two whole numbers from 1 to 8, of which the second is not reached, or one for
            1 … factor
        value_range: the lowest and the highest value of a pixel
        data_format: "channels_last" or "channels_first"
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RandomPosterization((2, 2))(np.float32([[[200, 100, 0]]])).tolist()
    [[[192.0, 64.0, 0.0]]]
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
        low, high = factor_range(self, factor, "factor", 1, 8)
        self.factor = int(low), int(high)

    def draw(self, shape: Shape, seed: Any) -> Any:
        low, high = self.factor
        kept = random.randint((shape[0],), low, high, seed=seed) if low != high else ops.full((shape[0],), low, "int32")
        return {"shift_factor": 8 - kept}

    def change(self, images: Any, transformation: Any) -> Any:
        bytes_ = ops.floor(ops.clip(rescaled(images, self.value_range, (0, 255)), 0.0, 255.0))
        step = ops.power(ops.full_like(bytes_[:, :1, :1, :1], 2.0), per_image(transformation["shift_factor"], images))
        return rescaled(ops.floor(bytes_ / step) * step, (0, 255), self.value_range)


class Solarization(ColourLayer):
    """Inverts the values above a random threshold while training, after a random number has been added.

    On the scale 0 … 255: y = clip(x + addition); 255 − y where y is not below the threshold.

    Arguments:
        addition_factor, threshold_factor: the ranges of both as fractions of 255: two numbers from 0 to 1, or one for
            0 … factor
        value_range: the lowest and the highest value of a pixel
        seed: of the layer's random generator

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Solarization(threshold_factor=(0.5, 0.5))(np.float32([[[200, 100, 0]]])).tolist()
    [[[55.0, 100.0, 0.0]]]
    """

    def __init__(
        self,
        addition_factor: Any = 0.0,
        threshold_factor: Any = 0.0,
        value_range: Any = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed=seed, **kwargs)
        self.addition_factor = factor_range(self, addition_factor, "addition_factor", 0, 1)
        self.threshold_factor = factor_range(self, threshold_factor, "threshold_factor", 0, 1)

    def draw(self, shape: Shape, seed: Any) -> Any:
        count = (shape[0], 1, 1, 1)
        additions = between(seed, count, self.addition_factor) * 255.0
        return {"additions": additions, "thresholds": between(seed, count, self.threshold_factor) * 255.0}

    def change(self, images: Any, transformation: Any) -> Any:
        x = rescaled(images, self.value_range, (0, 255)) + per_image(transformation["additions"], images)
        x = ops.clip(x, 0.0, 255.0)
        y = ops.where(ops.less(x, per_image(transformation["thresholds"], images)), x, 255.0 - x)
        return rescaled(y, (0, 255), self.value_range)


class AutoContrast(ImageLayer):
    """Spreads the values of each channel of each image over the whole range, while training and otherwise.

    Arguments:
        value_range: the lowest and the highest value of a pixel

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.AutoContrast()(np.float32([[[100], [110], [120]]]))[..., 0].tolist()
    [[0.0, 127.5, 255.0]]
    """

    always = True

    def __init__(self, value_range: Any = (0, 255), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_range = two_values(self, value_range)

    def change(self, images: Any, transformation: Any) -> Any:
        x = rescaled(images, self.value_range, (0, 255))
        low, high = ops.min(x, axis=(1, 2), keepdims=True), ops.max(x, axis=(1, 2), keepdims=True)
        spread = ops.greater(high, low)
        scale = 255.0 / ops.where(spread, high - low, 1.0)
        y = rescaled(ops.clip(x * scale - low * scale, 0.0, 255.0), (0, 255), self.value_range)
        return ops.where(spread, y, images)


def histograms(places: Any, groups: Any, count: int, bins: int) -> Any:
    """How often each number below `bins` occurs in each group, (count, bins), float32."""
    flat = ops.reshape(groups * bins + places, (-1,))
    return ops.reshape(ops.segment_sum(ops.ones(flat.shape, "float32"), flat, count * bins), (count, bins))


class Equalization(ImageLayer):
    """Makes all values of each channel equally frequent, image by image, while training.

    Arguments:
        value_range: the lowest and the highest value of a pixel
        bins: how many values are told apart
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Equalization()(np.float32([[[100], [110], [120]]]))[..., 0].tolist()
    [[0.0, 128.0, 255.0]]
    """

    def __init__(
        self, value_range: Any = (0, 255), bins: int = 256, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.value_range = two_values(self, value_range)
        self.bins = whole(self, bins, "bins", 2)

    def change(self, images: Any, transformation: Any) -> Any:
        batch, height, width, channels = images.shape
        planes = ops.cast(ops.transpose(images, (0, 3, 1, 2)), "float32")
        x = ops.reshape(rescaled(planes, self.value_range, (0, 255)), (batch * channels, height * width))
        places = ops.cast(ops.clip(x * ((self.bins - 1) / 255.0), 0.0, self.bins - 1.0), "int32")
        plane = ops.reshape(ops.arange(batch * channels, dtype="int32"), (-1, 1))
        counts = histograms(places, plane, batch * channels, self.bins)
        below = ops.cumsum(counts, axis=1)
        first = ops.min(ops.where(ops.greater(below, 0.0), below, float(height * width)), axis=1, keepdims=True)
        rest = below[:, -1:] - first
        table = ops.clip(ops.round((below - first) * 255.0 / ops.where(ops.greater(rest, 0.0), rest, 1.0)), 0.0, 255.0)
        found = ops.where(ops.greater(rest, 0.0), ops.take_along_axis(table, places, axis=1), x)
        y = ops.reshape(rescaled(found, (0, 255), self.value_range), (batch, channels, height, width))
        return ops.cast(ops.transpose(y, (0, 2, 3, 1)), images.dtype)


class ContrastLimitedAdaptiveHistogramEqualization(ImageLayer):
    """Equalises the histograms of the tiles of a grid, with limited contrast, while training and otherwise.

    A pixel's new value is interpolated between those that the four tiles around it give.

    Arguments:
        value_range: the lowest and the highest value of a pixel
        clip_limit: the most that a value may occur, in multiples of the mean; what is above is spread over all values.
            No limit at 0
        tile_grid_size: the number of rows and columns of tiles
        data_format: "channels_last" or "channels_first"

    Input shape: (batch, height, width, channels), or one image without the batch axis

    Output shape: the same

    Reference: K. Zuiderveld, "Contrast limited adaptive histogram equalization", 1994

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 2))
    >>> layer(np.zeros((1, 8, 8, 3), "uint8")).shape
    (1, 8, 8, 3)
    """

    always = True
    keeps_type = True

    def __init__(
        self,
        value_range: Any = (0, 255),
        clip_limit: float = 4.0,
        tile_grid_size: Any = (8, 8),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.value_range = two_values(self, value_range)
        if not isinstance(clip_limit, (int, float)) or clip_limit < 0:
            raise ArgumentError(f"{self.name}: clip_limit is a number", got=repr(clip_limit), expected="at least 0")
        self.clip_limit = float(clip_limit)
        self.tile_grid_size = per_axis(self, tile_grid_size, 2, "tile_grid_size")

    def change(self, images: Any, transformation: Any) -> Any:
        height, width = images.shape[1:3]
        (rows, columns), dtype = self.tile_grid_size, images.dtype
        tall, wide = math.ceil(height / rows), math.ceil(width / columns)
        x = rescaled(ops.cast(images, "float32"), self.value_range, (0, 255))
        edges = ((0, 0), (0, tall * rows - height), (0, wide * columns - width), (0, 0))
        if any(map(any, edges)):
            x = _mirrored(x, edges[1][1], edges[2][1])
        places = ops.cast(ops.clip(x, 0.0, 255.0), "int32")
        y = self._interpolated(self._tables(places, tall, wide), places, tall, wide)[:, :height, :width]
        return ops.cast(rescaled(y, (0, 255), self.value_range), dtype)

    def _tables(self, places: Any, tall: int, wide: int) -> Any:
        """The new value of each value, for each tile of each channel: (batch, rows, columns, channels, 256)."""
        batch, height, width, channels = places.shape
        rows, columns = self.tile_grid_size
        row = np.arange(height).reshape(1, -1, 1, 1) // tall
        column = np.arange(width).reshape(1, 1, -1, 1) // wide
        number = np.arange(batch).reshape(-1, 1, 1, 1) * rows + row
        tile = ((number * columns + column) * channels + np.arange(channels)).astype("int32")
        counts = histograms(places, ops.convert_to_tensor(tile), batch * rows * columns * channels, 256)
        size = tall * wide
        if self.clip_limit > 0:
            kept = ops.minimum(counts, self.clip_limit * size / 256.0)
            counts = kept + ops.sum(counts - kept, axis=1, keepdims=True) / 256.0
        below = ops.cumsum(counts, axis=1)
        first = ops.min(below, axis=1, keepdims=True)
        rest = size - first
        table = (below - first) * 255.0 / ops.where(ops.equal(rest, 0.0), 1.0, rest)
        return ops.reshape(ops.clip(table, 0.0, 255.0), (batch, rows, columns, channels, 256))

    def _interpolated(self, tables: Any, places: Any, tall: int, wide: int) -> Any:
        batch, height, width, channels = places.shape
        rows, columns = self.tile_grid_size
        flat = ops.reshape(tables, (-1,))
        image = np.arange(batch).reshape(-1, 1, 1, 1)
        total = None
        for row, share_down in _neighbours(height, tall, rows):
            for column, share_across in _neighbours(width, wide, columns):
                tile = (image * rows + row.reshape(1, -1, 1, 1)) * columns + column.reshape(1, 1, -1, 1)
                start = ((tile * channels + np.arange(channels)) * 256).astype("int32")
                share = share_down.reshape(1, -1, 1, 1) * share_across.reshape(1, 1, -1, 1)
                part = ops.take(flat, places + ops.convert_to_tensor(start)) * ops.convert_to_tensor(share)
                total = part if total is None else total + part
        return total


def _neighbours(size: int, tile: int, count: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """For each place on an axis the tiles before and after it, and their shares, by the distance of their middles."""
    place = (np.arange(size, dtype="float32") - np.float32(tile / 2)) / np.float32(tile)
    before = np.floor(place)
    share = (place - before).astype("float32")
    numbers = [np.clip(tiles, 0, count - 1).astype("int64") for tiles in (before, before + 1)]
    return [(numbers[0], 1 - share), (numbers[1], share)]


def _mirrored(x: Any, below: int, beside: int) -> Any:
    """Rows and columns added at the end, the image mirrored at its edge as often as that takes."""
    for axis, more in ((1, below), (2, beside)):
        size = x.shape[axis]
        turned = np.arange(size + more) % (2 * size)
        x = ops.take(x, np.minimum(turned, 2 * size - 1 - turned).astype("int32"), axis=axis)
    return x
