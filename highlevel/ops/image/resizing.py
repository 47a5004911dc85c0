"""Images of other sizes: every axis is resampled by a matrix of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.operators import cast, operand

from ..arguments import normalize_axis, per_axis
from ..convolution import along_axis
from ..movement import along
from ..padding import pad
from ..registry import op_in
from .layout import in_type, to_batch, widened

op = op_in("image")


def _triangle(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(0.0, 1.0 - x)


def _cubic(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """R. Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = −1/2."""
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(radius: float) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    return lambda x: np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0.0)


KERNELS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "bilinear": _triangle, "linear": _triangle, "triangle": _triangle, "trilinear": _triangle,
    "bicubic": _cubic, "cubic": _cubic, "tricubic": _cubic, "lanczos3": _lanczos(3.0), "lanczos5": _lanczos(5.0),
}  # fmt: skip


def _weights(
    old: int, new: int, scale: float, shift: float, kernel: Callable[..., np.ndarray[Any, Any]], antialias: bool
) -> np.ndarray[Any, Any]:
    """The matrix (old, new) that resamples one axis: element j lies at (j + ½ − shift) / scale − ½ of the old."""
    at = (np.arange(new) + 0.5 - shift) / scale - 0.5
    width = max(1.0 / scale, 1.0) if antialias else 1.0
    weights = kernel(np.abs(at[None, :] - np.arange(old)[:, None]) / width)
    total = weights.sum(axis=0, keepdims=True)
    usable = np.abs(total) > 1000.0 * np.finfo(np.float32).eps
    weights = np.where(usable, weights / np.where(usable, total, 1.0), 0.0)
    return np.where((at >= -0.5) & (at <= old - 0.5), weights, 0.0)


@op
def resize(
    images: Any, size: Any, interpolation: str = "bilinear", antialias: bool = False,
    crop_to_aspect_ratio: bool = False, pad_to_aspect_ratio: bool = False, fill_mode: str = "constant",
    fill_value: float = 0.0, data_format: str | None = None,
) -> Any:  # fmt: skip
    """Images of another size (height, width), pixels being squares with their values in the middle.

    interpolation: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5"
    antialias:     widen the kernel when shrinking, so that all pixels count
    crop_to_aspect_ratio, pad_to_aspect_ratio: first cut the images in the middle, or pad them with `fill_value`, to
                   the target's shape
    """
    x, back = to_batch(images, "resize", data_format)
    height, width = per_axis(size, 2, "resize", "size")
    if interpolation != "nearest" and interpolation not in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
        raise ArgumentError(
            "resize: unknown interpolation", got=repr(interpolation),
            expected="'nearest', 'bilinear', 'bicubic', 'lanczos3' or 'lanczos5'",
        )  # fmt: skip
    if fill_mode != "constant" or (crop_to_aspect_ratio and pad_to_aspect_ratio):
        raise ArgumentError(
            "resize: arguments exclude one another", got=f"fill_mode={fill_mode!r}, crop {crop_to_aspect_ratio}, pad"
            f" {pad_to_aspect_ratio}", expected="fill_mode 'constant', and cropping or padding",
        )  # fmt: skip
    if min(height, width) < 1 or min(x.shape[1:3]) < 1:
        raise ShapeError("resize: a size is not positive", got=f"{x.spec} to {(height, width)}")
    if crop_to_aspect_ratio or pad_to_aspect_ratio:
        x = _to_aspect(x, height, width, crop_to_aspect_ratio, fill_value)
    y = x
    for axis, new in ((1, height), (2, width)):
        y = _resample(y, axis, new, interpolation, antialias)
    if interpolation not in ("nearest", "bilinear") and not x.dtype.is_float:
        low, high = (
            operators.broadcast_to(cast(reducer(x, axes=tuple(range(x.ndim))), y.dtype), y.shape)
            for reducer in (primitives.reduce_min, primitives.reduce_max)
        )
        y = primitives.minimum(primitives.maximum(y, low), high)  # overshoot of the kernel stays in the images' range
    return back(in_type(y, x.dtype))


def _resample(x: Any, axis: int, new: int, interpolation: str, antialias: bool) -> Any:
    old = x.shape[axis]
    if old == new:
        return x
    if interpolation == "nearest":
        places = np.floor((np.arange(new, dtype=np.float32) + np.float32(0.5)) * old / new).astype(np.int32)
        return x[along(axis, places)]
    x = widened(x)
    return along_axis(x, axis, operand(_weights(old, new, new / old, 0.0, KERNELS[interpolation], antialias)))


def _to_aspect(x: Any, height: int, width: int, crop: bool, fill_value: float) -> Any:
    """Cut or padded, evenly on both sides, to the aspect ratio of the target."""
    old_height, old_width = x.shape[1:3]
    rows, columns = int(old_width * height / width), int(old_height * width / height)
    if crop:
        rows, columns = (max(min(new, old), 1) for new, old in ((rows, old_height), (columns, old_width)))
        top, left = (old_height - rows) // 2, (old_width - columns) // 2
        return x[:, top : top + rows, left : left + columns]
    above, beside = ((max(new - old, 0)) // 2 for new, old in ((rows, old_height), (columns, old_width)))
    edges = ((0, 0), (above, above), (0, 0), (0, 0)) if above else ((0, 0), (0, 0), (beside, beside), (0, 0))
    return pad(x, edges, constant_values=fill_value)


@op
def scale_and_translate(
    images: Any,
    output_shape: Any,
    scale: Any,
    translation: Any,
    spatial_dims: Sequence[int],
    method: str,
    antialias: bool = True,
) -> Any:
    """Any axes resampled: element i of the input goes to (i + ½) · scale + translation − ½. Scales are numbers."""
    if method not in KERNELS:
        raise ArgumentError("scale_and_translate: unknown method", got=repr(method), expected=", ".join(KERNELS))
    x = operand(images)
    scales, shifts = (np.asarray(operand(v).numpy(), np.float64).reshape(-1) for v in (scale, translation))
    y = widened(x)
    for axis, factor, shift in zip(spatial_dims, scales, shifts, strict=True):
        axis = normalize_axis(axis, x.ndim, "scale_and_translate")
        matrix = _weights(
            x.shape[axis], int(output_shape[axis]), float(factor), float(shift), KERNELS[method], antialias
        )
        y = along_axis(y, axis, operand(matrix))
    return in_type(y, x.dtype)
