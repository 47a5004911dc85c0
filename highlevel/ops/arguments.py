"""What many functions do with their arguments: convert, normalise axes and sizes, and complain in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir.dtypes import DType, as_dtype, float32, to_float
from highlevel.ir.operators import cast, operand
from highlevel.ir.operators import normalize_axis as normalize_axis

DEFAULT_FLOAT = float32


def floating(x: Any) -> Any:
    """The value as an operand of floating type: floats keep theirs, all else becomes float32."""
    x = operand(x)
    return cast(x, to_float(x.dtype))


def largest(dtype: DType) -> float:
    """The largest finite number of a floating type."""
    return float(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]


def dtype_or(dtype: Any, default: DType) -> DType:
    return default if dtype is None else as_dtype(dtype)


def axes_of(axis: Any, ndim: int, name: str) -> tuple[int, ...]:
    """Distinct non-negative axes in rising order; None stands for all."""
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(sorted(normalize_axis(int(a), ndim, name) for a in given))
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{name}: an axis is named twice", got=given, expected="distinct axes")
    return axes


def sizes_of(shape: Any) -> tuple[int, ...]:
    """A shape given as a number, a list, or an array of numbers."""
    if isinstance(shape, (tuple, list)):
        return tuple(int(size) for size in shape)
    array = operand(shape)
    return (int(array),) if array.ndim == 0 else tuple(int(size) for size in array)


def per_axis(value: Any, count: int, name: str, what: str) -> tuple[int, ...]:
    """A number for each spatial axis: one for all of them, or a sequence with as many."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return (int(value[0]),) * count
        if len(value) != count:
            raise ArgumentError(f"{name}: {what} does not fit the rank", got=value, expected=f"one number, or {count}")
        return tuple(int(v) for v in value)
    return (int(value),) * count


def check_rank(name: str, x: Any, ranks: Sequence[int], what: str) -> None:
    if x.ndim not in ranks:
        raise ShapeError(f"{name}: wrong rank", got=x.spec, expected=f"rank {' or '.join(map(str, ranks))}: {what}")


def is_channels_first(name: str, data_format: str | None) -> bool:
    if data_format not in (None, "channels_last", "channels_first"):
        raise ArgumentError(
            f"{name}: unknown data_format", got=repr(data_format), expected="'channels_last' or 'channels_first'"
        )
    return data_format == "channels_first"


def moved(ndim: int, source: int, target: int) -> tuple[int, ...]:
    """The permutation that moves one axis and keeps the order of the others."""
    order = [axis for axis in range(ndim) if axis != source]
    order.insert(target, source)
    return tuple(order)
