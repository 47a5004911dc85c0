"""What many layers do with their arguments: sizes per axis, padding, and the checks of what comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .base import Layer


def whole(layer: Layer, value: Any, what: str, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(
            f"{layer.name}: {what} is a number of things", got=repr(value), expected=f"an integer ≥ {least}"
        )
    return int(value)


def per_axis(layer: Layer, value: Any, count: int, what: str, least: int = 1) -> tuple[int, ...]:
    """A number for each spatial axis: one for all of them, or a sequence with as many."""
    if not isinstance(value, (list, tuple)):
        return (whole(layer, value, what, least),) * count
    if len(value) != count:
        raise ArgumentError(
            f"{layer.name}: {what} does not fit the axes", got=value, expected=f"an integer, or {count} of them"
        )
    return tuple(whole(layer, item, what, least) for item in value)


def pairs(layer: Layer, value: Any, count: int, what: str) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis: one number for all sides, one per axis, or a pair per axis."""
    items = value if isinstance(value, (list, tuple)) else (value,) * count
    if count == 1 and len(items) == 2:
        items = (items,)
    if len(items) != count or any(isinstance(item, (list, tuple)) and len(item) != 2 for item in items):
        raise ArgumentError(
            f"{layer.name}: {what} does not fit the axes",
            got=value,
            expected="an integer, or a pair (before, after)"
            if count == 1
            else f"an integer, {count} of them, or {count} pairs",
        )
    before_after = (item if isinstance(item, (list, tuple)) else (item, item) for item in items)
    return tuple((whole(layer, a, what, 0), whole(layer, b, what, 0)) for a, b in before_after)


def one_of(layer: Layer, value: Any, what: str, choices: Sequence[str]) -> str:
    """A word, in any case."""
    word = value.lower() if isinstance(value, str) else value
    if word not in choices:
        raise ArgumentError(f"{layer.name}: unknown {what}", got=repr(value), expected=" | ".join(map(repr, choices)))
    return str(word)


def fraction(layer: Layer, value: Any, what: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ArgumentError(f"{layer.name}: {what} is a fraction", got=repr(value), expected="a number from 0 to 1")
    return value


def check_known(layer: Layer, shape: Sequence[int | None], axis: int, what: str) -> int:
    """The size of an axis that variables depend on; raises if it is not known."""
    size = shape[axis]
    if size is None:
        raise ShapeError(
            f"{layer.name}: {what} must be known before the first call",
            got=f"shape {tuple(shape)}",
            expected=f"a number on axis {axis}",
            hint="give the size in Input(shape=…)",
        )
    return int(size)


def check_axes(layer: Layer, axes: Sequence[int], shape: Sequence[int | None]) -> None:
    """Raises if an axis does not exist."""
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ArgumentError(
                f"{layer.name}: axis {axis} does not exist",
                got=f"shape {tuple(shape)} (rank {len(shape)})",
                expected=f"an axis in −{len(shape)}…{len(shape) - 1}",
            )


def check_floating(layer: Layer, inputs: Any) -> None:
    """Raises for integers, which a kernel of floating-point numbers would be rounded for."""
    if not inputs.dtype.is_float:
        raise DTypeError(
            f"{layer.name}: the input holds integers",
            got=f"inputs {inputs.dtype} {tuple(inputs.shape)}",
            expected="floating-point numbers",
            hint="scale pixels: x.astype('float32') / 255; give indices of words or classes to an Embedding"
            if inputs.dtype == "uint8"
            else "x.astype('float32'); indices of words or classes go to an Embedding, or to ops.one_hot",
        )


def spatial_axes(rank: int, data_format: str) -> tuple[int, ...]:
    """The axes of a batch of images (sequences, volumes) that are neither samples nor channels."""
    return tuple(range(1, rank + 1)) if data_format == "channels_last" else tuple(range(2, rank + 2))


def image_axes(rank: int, data_format: str) -> str:
    """The axes of a batch by name, for messages."""
    names = {1: ["steps"], 2: ["height", "width"], 3: ["depth", "height", "width"]}[rank]
    axes = [*names, "channels"] if data_format == "channels_last" else ["channels", *names]
    return f"({', '.join(['batch', *axes])})"


def check_images(layer: Layer, shape: Any, rank: int, data_format: str) -> None:
    """Raises unless the input is a batch of images (sequences, volumes) with channels."""
    if not is_shape(shape):
        raise ShapeError(f"{layer.name}: one input, please", got=f"a list of {len(shape)} inputs", expected="one array")
    if len(shape) == rank + 2:
        return
    hint = None
    if len(shape) == rank + 1:
        channels = shape[-1] if data_format == "channels_last" else shape[0]
        looks_like_channels = channels is not None and channels <= 4
        hint = "one sample has no batch axis: x[None]" if looks_like_channels else "add the channel axis: x[..., None]"
        if not looks_like_channels and data_format == "channels_first":
            hint = "add the channel axis: x[:, None]"
    elif len(shape) == 2:
        hint = "is there a Flatten or Dense before? ops.reshape or Reshape makes images of rows"
    raise ShapeError(
        f"{layer.name}: the input has the wrong rank",
        got=f"shape {tuple(shape)} (rank {len(shape)})",
        expected=f"rank {rank + 2}: {image_axes(rank, data_format)}",
        hint=hint,
    )


def is_shape(value: Any) -> bool:
    """Whether it is one shape, and not a list or dictionary of them."""
    return isinstance(value, (tuple, list)) and all(
        size is None or isinstance(size, (int, np.integer)) for size in value
    )
