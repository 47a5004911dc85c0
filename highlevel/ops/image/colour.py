"""Colours."""

from __future__ import annotations

from typing import Any

from highlevel.errors import DTypeError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.operators import cast, operand

from ..arguments import check_rank, floating, is_channels_first
from ..movement import along, stack
from ..registry import op_in

op = op_in("image")


def _planes(images: Any, name: str, data_format: str | None) -> tuple[list[Any], int]:
    x = operand(images)
    check_rank(name, x, (3, 4), "an image or a batch of images")
    axis = x.ndim - (3 if is_channels_first(name, data_format) else 1)
    if x.shape[axis] != 3:
        raise ShapeError(f"{name}: not three channels", got=x.spec, expected=f"size 3 on axis {axis}")
    return [x[along(axis, i)] for i in range(3)], axis


def _floats(x: Any, name: str) -> None:
    if not x.dtype.is_float:
        raise DTypeError(f"{name}: images are not floating point", got=x.spec, expected="values from 0 to 1")


@op
def rgb_to_grayscale(images: Any, data_format: str | None = None) -> Any:
    """The luminance, as one channel: 0.2989 red + 0.587 green + 0.114 blue."""
    x = operand(images)
    check_rank("rgb_to_grayscale", x, (3, 4), "an image or a batch of images")
    axis = x.ndim - (3 if is_channels_first("rgb_to_grayscale", data_format) else 1)
    if x.shape[axis] == 1:
        return x
    planes, _ = _planes(x, "rgb_to_grayscale", data_format)
    weighted = [floating(plane) * w for plane, w in zip(planes, (0.2989, 0.5870, 0.1140), strict=True)]
    return cast(stack([weighted[0] + weighted[1] + weighted[2]], axis), x.dtype)


@op
def rgb_to_hsv(images: Any, data_format: str | None = None) -> Any:
    """Hue, saturation and value, all from 0 to 1."""
    (r, g, b), axis = _planes(images, "rgb_to_hsv", data_format)
    _floats(r, "rgb_to_hsv")
    value = primitives.maximum(primitives.maximum(r, g), b)
    spread = value - primitives.minimum(primitives.minimum(r, g), b)
    one, zero = operators.ones_like(value), operators.zeros_like(value)
    coloured, lit = operators.less(0.0, spread), operators.less(0.0, value)
    saturation = primitives.select(lit, spread / primitives.select(lit, value, one), zero)
    sixth = 1.0 / (6.0 * primitives.select(coloured, spread, one))
    hue = primitives.select(primitives.equal(value, g), sixth * (b - r) + 2.0 / 6.0, sixth * (r - g) + 4.0 / 6.0)
    hue = primitives.select(primitives.equal(value, r), sixth * (g - b), hue)
    hue = primitives.select(coloured, primitives.select(operators.less(hue, 0.0), hue + 1.0, hue), zero)
    return stack([hue, saturation, value], axis)


@op
def hsv_to_rgb(images: Any, data_format: str | None = None) -> Any:
    """Red, green and blue from hue, saturation and value, all from 0 to 1."""
    (h, s, v), axis = _planes(images, "hsv_to_rgb", data_format)
    _floats(h, "hsv_to_rgb")
    turn = (h - primitives.floor(h)) * 6.0
    ramps = (primitives.abs(turn - 3.0) - 1.0, 2.0 - primitives.abs(turn - 2.0), 2.0 - primitives.abs(turn - 4.0))
    zero, one = operators.zeros_like(turn), operators.ones_like(turn)
    return stack([v * (1.0 - s + s * primitives.minimum(primitives.maximum(w, zero), one)) for w in ramps], axis)
