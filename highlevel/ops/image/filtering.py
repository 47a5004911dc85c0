"""Images convolved with fixed kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.operators import cast, match, operand

from ..arguments import check_rank, floating, is_channels_first, per_axis
from ..convolution import depthwise_conv
from ..movement import moveaxis, stack
from ..padding import pad
from ..reduction import mean
from ..registry import op_in
from .layout import to_batch, widened

op = op_in("image")


def _filtered(x: Any, kernel: Any, padding: str) -> Any:
    """Each channel convolved with one kernel (height, width)."""
    channels = x.shape[-1]
    wide = operators.broadcast_to(operators.reshape(kernel, *kernel.shape, 1, 1), (*kernel.shape, channels, 1))
    return depthwise_conv(x, wide, 1, padding)


def _bell(size: int, sigma: Any, dtype: Any) -> Any:
    x = primitives.iota(shape=(size,), axis=0, dtype=dtype) - (size - 1) / 2
    values = primitives.exp(-0.5 * operators.power(operators.divide(x, sigma), 2))
    return values / primitives.reduce_sum(values, axes=(0,))


@op
def gaussian_blur(
    images: Any, kernel_size: Any = (3, 3), sigma: Any = (1.0, 1.0), data_format: str | None = None
) -> Any:
    """Images smoothed by a bell of standard deviation `sigma`, cut off at `kernel_size`; zeros around them."""
    x, back = to_batch(images, "gaussian_blur", data_format)
    wide = widened(x)
    sizes = per_axis(kernel_size, 2, "gaussian_blur", "kernel_size")
    spread = operand(sigma, wide.dtype)
    spread = operators.broadcast_to(spread, (2,))
    across, down = (_bell(size, spread[i], wide.dtype) for i, size in enumerate(sizes))
    kernel = operators.multiply(operators.reshape(down, -1, 1), across)
    return back(cast(_filtered(wide, kernel, "same"), x.dtype))


@op
def sobel_edges(images: Any, data_format: str | None = None) -> Any:
    """The slopes down and across, as a new last axis of 2; the edges of images are mirrored."""
    x = operand(images)
    check_rank("sobel_edges", x, (4,), "a batch of images")
    first = is_channels_first("sobel_edges", data_format)
    last = moveaxis(x, 1, -1) if first else x
    wide = pad(floating(last), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    smooth, slope = np.array([1.0, 2.0, 1.0]), np.array([-1.0, 0.0, 1.0])
    kernels = [np.outer(slope, smooth), np.outer(smooth, slope)]
    edges = [_filtered(wide, operand(kernel.astype(wide.dtype.numpy)), "valid") for kernel in kernels]
    y = cast(stack(edges, -1), x.dtype)
    return moveaxis(y, 3, 1) if first else y


@op
def ssim(
    image1: Any, image2: Any, max_val: float = 1.0, filter_size: int = 11, filter_sigma: float = 1.5, k1: float = 0.01,
    k2: float = 0.03, data_format: str | None = None,
) -> Any:  # fmt: skip
    """Structural similarity, one number per image (Z. Wang et al., 2004)."""
    a, _ = to_batch(image1, "ssim", data_format)
    b, _ = to_batch(image2, "ssim", data_format)
    if a.shape != b.shape:
        raise ShapeError("ssim: shapes differ", got=f"{a.spec} and {b.spec}", expected="one shape")
    a, b = match(a, b, floating=True)
    bell = _bell(int(filter_size), float(filter_sigma), a.dtype)
    kernel = operators.multiply(operators.reshape(bell, -1, 1), bell)
    mean_a, mean_b, aa, bb, ab = (_filtered(v, kernel, "valid") for v in (a, b, a * a, b * b, a * b))
    c1, c2 = (k1 * max_val) ** 2, (k2 * max_val) ** 2
    product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    numerator = (2.0 * product + c1) * (2.0 * (ab - product) + c2)
    similarity = mean(numerator / ((squares + c1) * (aa + bb - squares + c2)), (1, 2, 3))
    similarity = cast(similarity, operand(image1).dtype)
    return similarity[0] if operand(image1).ndim == 3 else similarity
