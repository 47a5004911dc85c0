"""Images cut, padded, and taken to pieces."""

from __future__ import annotations

import math
from typing import Any

from highlevel.errors import ArgumentError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import int32
from highlevel.ir.operators import cast, operand

from ..arguments import check_rank, is_channels_first, per_axis
from ..convolution import conv
from ..padding import pad
from ..registry import op_in
from .layout import to_batch

op = op_in("image")


def _edges(
    name: str, size: int, before: int | None, after: int | None, target: int | None, sign: int
) -> tuple[int, int]:
    """What is added to (sign 1) or taken from (−1) both ends of an axis; two of three are given."""
    if [before, after, target].count(None) != 1:
        raise ArgumentError(
            f"{name}: two of three are needed for each axis", got=f"before={before}, after={after}, target={target}",
            expected="two of: before, after, target size",
        )  # fmt: skip
    if target is not None:
        total = sign * (int(target) - size)
        before, after = (total - int(after or 0), after) if before is None else (before, total - int(before))
    edges = int(before or 0), int(after or 0)
    if min(edges) < 0 or (sign < 0 and sum(edges) > size):
        raise ArgumentError(
            f"{name}: the size does not fit", got=f"{edges} of {size}, target {target}", expected="at least 0"
        )
    return edges


@op
def pad_images(
    images: Any, top_padding: int | None = None, left_padding: int | None = None, bottom_padding: int | None = None,
    right_padding: int | None = None, target_height: int | None = None, target_width: int | None = None,
    data_format: str | None = None,
) -> Any:  # fmt: skip
    """Zeros around images; of top, bottom and target height two are given, of left, right and target width as well."""
    x, back = to_batch(images, "pad_images", data_format)
    rows = _edges("pad_images", x.shape[1], top_padding, bottom_padding, target_height, 1)
    columns = _edges("pad_images", x.shape[2], left_padding, right_padding, target_width, 1)
    return back(pad(x, ((0, 0), rows, columns, (0, 0))))


@op
def crop_images(
    images: Any, top_cropping: int | None = None, left_cropping: int | None = None, bottom_cropping: int | None = None,
    right_cropping: int | None = None, target_height: int | None = None, target_width: int | None = None,
    data_format: str | None = None,
) -> Any:  # fmt: skip
    """Images cut; of top, bottom and target height two are given, of left, right and target width as well."""
    x, back = to_batch(images, "crop_images", data_format)
    top, bottom = _edges("crop_images", x.shape[1], top_cropping, bottom_cropping, target_height, -1)
    left, right = _edges("crop_images", x.shape[2], left_cropping, right_cropping, target_width, -1)
    return back(x[:, top : x.shape[1] - bottom, left : x.shape[2] - right])


@op
def extract_patches(
    images: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """The windows of images (or, with three sizes, of volumes), the elements of each as channels."""
    if isinstance(size, (tuple, list)) and len(size) == 3:
        return extract_patches_3d(images, size, strides, dilation_rate, padding, data_format)
    return _patches("extract_patches", images, 2, size, strides, dilation_rate, padding, data_format)


@op
def extract_patches_3d(
    volumes: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """The windows of volumes, the elements of each as channels."""
    return _patches("extract_patches_3d", volumes, 3, size, strides, dilation_rate, padding, data_format)


def _patches(
    name: str, images: Any, rank: int, size: Any, strides: Any, dilation: Any, padding: str, data_format: str | None
) -> Any:
    x = operand(images)
    check_rank(name, x, (rank + 1, rank + 2), "one or a batch")
    single = x.ndim == rank + 1
    x = operators.reshape(x, 1, *x.shape) if single else x
    window = per_axis(size, rank, name, "size")
    channels = x.shape[1 if is_channels_first(name, data_format) else -1]
    count = math.prod(window) * channels
    shape = (count, count)
    rows, columns = (primitives.iota(shape=shape, axis=i, dtype=int32) for i in range(2))
    kernel = operators.reshape(cast(primitives.equal(rows, columns), x.dtype), *window, channels, count)
    y = conv(x, kernel, window if strides is None else strides, padding, data_format, dilation)
    y = cast(y, x.dtype)
    return operators.reshape(y, y.shape[1:]) if single else y
