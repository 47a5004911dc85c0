"""Elements picked by place or by condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import Tensor, operators, primitives
from highlevel.ir.dtypes import bool_, float32, int32, weak_value
from highlevel.ir.operand import Operand
from highlevel.ir.operators import cast, match, operand, wrap_negative
from highlevel.ir.tensor import to_numpy

from .arguments import dtype_or, normalize_axis, sizes_of
from .core import scatter_update
from .movement import from_last, to_last
from .reduction import reduce, without_nan
from .registry import op


@op
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """The slices at `indices` along an axis (or the elements, of all in one row); negative ones count from the end."""
    x = operand(x)
    if axis is None:
        x, axis = operators.reshape(x, -1), 0
    axis = normalize_axis(axis, x.ndim, "take")
    index = _places(indices, x.shape[axis], "take")
    column = operators.reshape(index, *index.shape, 1)
    front = operators.transpose(x, (axis, *(a for a in range(x.ndim) if a != axis)))
    picked = primitives.gather(front, column)
    rank = index.ndim
    order = (*range(rank, rank + axis), *range(rank), *range(rank + axis, picked.ndim))
    return operators.transpose(picked, order)


def _places(indices: Any, size: int, name: str) -> Any:
    """Indices that count from the end made non-negative; those that are plain numbers at once, and checked."""
    if isinstance(indices, Operand):
        return wrap_negative(indices.read(), size)
    array = to_numpy(indices)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{name}: an index is not an integer", got=array.dtype, expected="integers")
    if array.size and not (-size <= array.min() and array.max() < size):
        raise ArgumentError(f"{name}: an index is outside of the axis", got=indices, expected=f"−{size}…{size - 1}")
    return Tensor.of(np.where(array < 0, array + size, array).astype(np.int32))


@op
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """For each row along an axis the elements at that row's indices; the other axes broadcast."""
    x, index = operand(x), operand(indices)
    if axis is None:
        x, index, axis = operators.reshape(x, -1), operators.reshape(index, -1), 0
    if x.ndim != index.ndim:
        raise ShapeError("take_along_axis: ranks differ", got=f"{x.spec} and {index.spec}", expected="equal ranks")
    axis = normalize_axis(axis, x.ndim, "take_along_axis")
    x, index = to_last(x, axis), to_last(index, axis)
    batch = operators.broadcast_shapes(x.shape[:-1], index.shape[:-1], operator="take_along_axis")
    x = operators.broadcast_to(x, (*batch, x.shape[-1]))
    index = operators.broadcast_to(wrap_negative(index, x.shape[-1]), (*batch, index.shape[-1]))
    rows = int(np.prod(batch))
    picked = pick_per_row(operators.reshape(x, rows, x.shape[-1]), operators.reshape(index, rows, index.shape[-1]))
    return from_last(operators.reshape(picked, *batch, index.shape[-1]), axis)


def pick_per_row(x: Any, index: Any) -> Any:
    """x[row, index[row, i]] for matrices of non-negative indices."""
    row = primitives.iota(shape=(*index.shape, 1), axis=0, dtype=index.dtype)
    return primitives.gather(x, primitives.concatenate(row, operators.reshape(index, *index.shape, 1), axis=2))


@op
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """x1 where the condition holds, else x2; with the condition alone, the places where it holds (of numbers only)."""
    if x1 is None and x2 is None:
        return nonzero(condition)
    if x1 is None or x2 is None:
        raise ArgumentError(
            "where: one of two values is missing", got="where(condition, x1)", expected="both, or neither"
        )
    chosen = cast(condition, bool_)
    shape = operators.broadcast_shapes(chosen.shape, _shape(x1), _shape(x2), operator="where")
    a, b = match(x1, x2, operator="where")
    return primitives.select(*(operators.broadcast_to(v, shape) for v in (chosen, a, b)))


def _shape(value: Any) -> tuple[int, ...]:
    return () if isinstance(value, operators.Scalar) else operand(value).shape


@op
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """The choice of the first condition that holds, else the default."""
    if len(condlist) != len(choicelist) or not condlist:
        raise ArgumentError(
            "select: one choice for each condition", got=f"{len(condlist)} conditions, {len(choicelist)} choices"
        )
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = where(condition, choice, result)
    return result


@op
def nonzero(x: Any) -> tuple[Any, ...]:
    """The places of the elements that are not zero, one array of indices per axis; of numbers only."""
    return tuple(Tensor.of(places.astype(np.int32)) for places in np.nonzero(operand(x).numpy()))


# Extremes --------------------------------------------------------------------------------------------------------
def _arg(primitive: Any, x: Any, axis: Any, keepdims: bool, name: str) -> Any:
    x = operand(x)
    if axis is None:
        place = primitive(operators.reshape(x, -1), axis=0, dtype=int32)
        return operators.reshape(place, (1,) * x.ndim) if keepdims else place
    axis = normalize_axis(axis, x.ndim, name)
    place = primitive(x, axis=axis, dtype=int32)
    return operators.reshape(place, tuple(1 if a == axis else n for a, n in enumerate(x.shape))) if keepdims else place


@op
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The place of the (first) largest element along an axis, or of all in one row."""
    return _arg(primitives.argmax, x, axis, keepdims, "argmax")


@op
def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The place of the (first) smallest element along an axis, or of all in one row."""
    return _arg(primitives.argmin, x, axis, keepdims, "argmin")


def _nan_arg(primitive: Any, x: Any, axis: Any, keepdims: bool, name: str, last: float) -> Any:
    x = operand(x)
    if not x.dtype.is_float:
        return _arg(primitive, x, axis, keepdims, name)
    place = _arg(primitive, without_nan(x, last), axis, keepdims, name)
    numbers = reduce(primitives.reduce_sum, cast(primitives.equal(x, x), int32), axis, keepdims, name)
    return primitives.select(operators.equal(numbers, 0), operators.full(place.shape, -1, int32), place)


@op
def nanargmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The place of the largest element that is not NaN; −1 if there is none."""
    return _nan_arg(primitives.argmax, x, axis, keepdims, "nanargmax", -np.inf)


@op
def nanargmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The place of the smallest element that is not NaN; −1 if there is none."""
    return _nan_arg(primitives.argmin, x, axis, keepdims, "nanargmin", np.inf)


@op
def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each element of x1 occurs in x2."""
    a, b = operand(x1), operand(x2)
    dtype = operators.common_dtype((a, b), (a, b))
    a, b = cast(a, dtype), operators.reshape(cast(b, dtype), -1)
    found = primitives.equal(*match(operators.reshape(a, *a.shape, 1), b))
    inside = cast(primitives.reduce_sum(cast(found, int32), axes=(a.ndim,)), bool_)
    return ~inside if invert else inside


# Numbers as places -----------------------------------------------------------------------------------------------
@op
def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Any:
    """1 at the place that the number names, 0 elsewhere, along a new axis; all 0 for numbers that name no place."""
    x = operand(x)
    if sparse:
        raise ArgumentError("one_hot: tensors are dense", got="sparse=True")
    if x.dtype.is_float:
        raise DTypeError(
            "one_hot: labels are not integers", got=x.spec, expected="integers", hint="ops.cast(labels, 'int32')"
        )
    x = cast(x, int32) if x.dtype.size_bytes < 4 or x.dtype.is_bool else x
    axis = normalize_axis(axis, x.ndim + 1, "one_hot")
    shape = (*x.shape[:axis], int(num_classes), *x.shape[axis:])
    labels = operators.broadcast_to(operators.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:])), shape)
    return cast(
        primitives.equal(labels, primitives.iota(shape=shape, axis=axis, dtype=x.dtype)), dtype_or(dtype, float32)
    )


@op
def multi_hot(
    inputs: Any, num_classes: int | None = None, axis: int = -1, dtype: Any = None, sparse: bool = False, **kwargs: Any
) -> Any:
    """1 at all the places that the numbers of a row name, 0 elsewhere. A vector is one row."""
    num_classes = kwargs.pop("num_tokens", num_classes)
    if kwargs or num_classes is None:
        raise ArgumentError("multi_hot: unknown or missing argument", got=kwargs or None, expected="num_classes")
    x = operand(inputs)
    rows = 1 if x.ndim > 1 else 0
    hot = one_hot(x, num_classes, axis, dtype, sparse)
    return primitives.reduce_max(hot, axes=(rows,))


@op
def unravel_index(indices: Any, shape: Any) -> tuple[Any, ...]:
    """The index along each axis for places in the row of all elements."""
    index, sizes = operand(indices), sizes_of(shape)
    index = wrap_negative(index, int(np.prod(sizes)))
    found = []
    for size in reversed(sizes):
        found.append(operators.remainder(index, size))
        index = operators.floor_divide(index, size)
    return tuple(reversed(found))


# Segments --------------------------------------------------------------------------------------------------------
def _segments(data: Any, segment_ids: Any, num_segments: int | None, name: str) -> tuple[Any, Any, int]:
    """The data, an index column in which ids of no segment name one row beyond the last, and the number of segments."""
    x, ids = operand(data), operand(segment_ids)
    if ids.ndim != 1 or x.ndim == 0 or ids.shape[0] != x.shape[0]:
        raise ShapeError(
            f"{name}: one segment id per row", got=f"data {x.spec}, ids {ids.spec}", expected="(n, …) and (n,)"
        )
    count = int(np.max(ids.numpy(), initial=-1)) + 1 if num_segments is None else int(num_segments)
    ids = cast(ids, int32)
    none = operators.less(ids, 0) | operators.less_equal(count, ids)
    ids = primitives.select(none, operators.full(ids.shape, count, int32), ids)
    return x, operators.reshape(ids, -1, 1), count


@op
def segment_sum(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The sum of the rows of each segment; rows whose id names no segment are left out."""
    x, index, count = _segments(data, segment_ids, num_segments, "segment_sum")
    start = operators.full((count + 1, *x.shape[1:]), weak_value(0, x.dtype), x.dtype)
    return primitives.scatter_add(start, index, x)[:count]


def _segment_extreme(primitive: Any, data: Any, ids: Any, num_segments: int | None, name: str, largest: bool) -> Any:
    x, index, count = _segments(data, ids, num_segments, name)
    if x.dtype.is_float:
        empty: Any = -np.inf if largest else np.inf
    else:
        info = np.iinfo(x.dtype.numpy)
        empty = int(info.min if largest else info.max)
    return primitive(operators.full((count + 1, *x.shape[1:]), empty, x.dtype), index, x)[:count]


@op
def segment_max(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The largest of the rows of each segment, by element; −∞ (the smallest integer) for empty segments."""
    return _segment_extreme(primitives.scatter_max, data, segment_ids, num_segments, "segment_max", True)


@op
def segment_min(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The smallest of the rows of each segment, by element; +∞ (the largest integer) for empty segments."""
    return _segment_extreme(primitives.scatter_min, data, segment_ids, num_segments, "segment_min", False)


@op
def segment_prod(data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False) -> Any:
    """The product of the rows of each segment; 1 for empty segments."""
    x, index, count = _segments(data, segment_ids, num_segments, "segment_prod")
    ones = operators.full((count + 1, *x.shape[1:]), weak_value(1, x.dtype), x.dtype)
    return scatter_update(ones, index, x, reduction="mul")[:count]
