"""What functions of images share: the layout they compute in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import float32, promote, to_float
from highlevel.ir.operators import cast, operand

from .. import core
from ..arguments import check_rank, is_channels_first
from ..movement import moveaxis


def to_batch(images: Any, name: str, data_format: str | None) -> tuple[Any, Callable[[Any], Any]]:
    """Images as (batch, height, width, channels), and the function that brings a result back to the layout they had."""
    x = operand(images)
    check_rank(name, x, (3, 4), "an image or a batch of images")
    first = is_channels_first(name, data_format)
    single = x.ndim == 3
    x = operators.reshape(x, 1, *x.shape) if single else x
    x = moveaxis(x, 1, -1) if first else x

    def back(y: Any) -> Any:
        y = moveaxis(y, -1, 1) if first else y
        return operators.reshape(y, y.shape[1:]) if single else y

    return x, back


def in_type(y: Any, dtype: Any) -> Any:
    """Results in the type of the images; integers rounded, and within their range."""
    if dtype.is_float:
        return cast(y, dtype)
    return core.saturate_cast(primitives.round(y) if y.dtype.is_float else y, dtype)


def widened(x: Any) -> Any:
    """The values in float32 or wider."""
    return cast(x, promote(to_float(x.dtype), float32))
