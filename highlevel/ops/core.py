"""Tensors themselves: conversion, types, pieces of them read and replaced, and gradients stopped."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor, Variable, autodiff, control, operators, primitives, tree
from highlevel.ir import custom_gradient as _custom_gradient
from highlevel.ir.dtypes import as_dtype, int32, weak_value
from highlevel.ir.graph import Symbol
from highlevel.ir.operand import Operand
from highlevel.ir.operators import cast as _cast
from highlevel.ir.operators import operand

from .arguments import largest, normalize_axis, sizes_of
from .registry import op


@op
def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """The value as a tensor; a list may hold symbols, which are stacked.

    >>> convert_to_tensor([1, 2]).dtype
    int32
    """
    if sparse or ragged:
        raise ArgumentError("convert_to_tensor: tensors are dense", got=f"sparse={sparse}, ragged={ragged}")
    if isinstance(x, (list, tuple)) and any(isinstance(leaf, Operand) for leaf in tree.leaves(x)):
        rows = operators.match(*[convert_to_tensor(item) for item in x], operator="convert_to_tensor")
        rows = tuple(operators.reshape(row, 1, *row.shape) for row in rows)
        x = rows[0] if len(rows) == 1 else primitives.concatenate(*rows, axis=0)
    return operand(x, None if dtype is None else as_dtype(dtype))


@op
def array(x: Any, dtype: Any = None) -> Any:
    """The value as a tensor."""
    return convert_to_tensor(x, dtype)


def convert_to_numpy(x: Any) -> np.ndarray[Any, Any]:
    """The values as a NumPy array of one's own."""
    return np.array(operand(x).numpy())


def is_tensor(x: Any) -> bool:
    """Whether the value is a tensor: concrete, symbolic or a variable's."""
    return isinstance(x, (Tensor, Symbol, Variable))


@op
def cast(x: Any, dtype: Any) -> Any:
    """Another data type; floats become integers towards zero, saturating."""
    return _cast(x, dtype)


@op
def saturate_cast(x: Any, dtype: Any) -> Any:
    """Another data type; values out of its range become the nearest end of it."""
    x, target = operand(x), as_dtype(dtype)
    if target.is_bool or x.dtype.is_bool:
        return _cast(x, target)
    if target.is_float:
        if not x.dtype.is_float or x.dtype.size_bytes <= target.size_bytes:
            return _cast(x, target)
        top = largest(target)
        clipped = primitives.minimum(*operators.match(x, top))
        return _cast(primitives.maximum(*operators.match(clipped, -top)), target)
    if x.dtype.is_float:
        return _cast(x, target)  # the conversion itself saturates
    low, high = np.iinfo(target.numpy), np.iinfo(x.dtype.numpy)
    floor, top_value = max(int(low.min), int(high.min)), min(int(low.max), int(high.max))
    clipped = primitives.maximum(x, operators.full(x.shape, floor, x.dtype))
    return _cast(primitives.minimum(clipped, operators.full(x.shape, top_value, x.dtype)), target)


@op
def view(x: Any, dtype: Any = None) -> Any:
    """The same bits read as another type of the same width."""
    x = operand(x)
    target = x.dtype if dtype is None else as_dtype(dtype)
    if target.size_bytes == x.dtype.size_bytes:
        return primitives.bitcast(x, dtype=target)
    raise ArgumentError(
        "view: the types differ in width", got=f"{x.spec} as {target}", expected=f"a type of {x.dtype.size_bytes} bytes"
    )


def dtype(x: Any) -> str:
    """The name of the data type."""
    return str(x.dtype) if hasattr(x, "dtype") else str(operand(x).dtype)


def shape(x: Any) -> tuple[int, ...]:
    """The sizes of all axes; always integers."""
    return tuple(x.shape) if hasattr(x, "shape") else operand(x).shape


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(shape(x))


@op
def size(x: Any) -> int:
    """The number of elements."""
    return int(operand(x).size)


@op
def copy(x: Any) -> Any:
    """The value itself: tensors never change, so nothing has to be copied."""
    return operand(x)


@op
def stop_gradient(variable: Any) -> Any:
    """The same value, through which no gradient flows."""
    return control.stop_gradient(variable)


def custom_gradient(f: Any) -> Any:
    """A function that brings its own gradient: it returns `(y, gradient)`; see `highlevel.ir.custom_gradient`."""
    return _custom_gradient(f)


def jvp(fun: Any, primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """`(y, J·tangents)`: the outputs of a function, and their derivative in a direction.

    has_aux: the function returns `(y, more)`; the result is `(y, J·tangents, more)`
    """
    if not has_aux:
        return autodiff.jvp(fun, primals, tangents)
    y, direction = autodiff.jvp(lambda *xs: fun(*xs)[0], primals, tangents)
    return y, direction, fun(*primals)[1]


# Pieces ----------------------------------------------------------------------------------------------------------
def _is_static(values: Any) -> bool:
    return not any(isinstance(leaf, Symbol) for leaf in tree.leaves(values))


def _starts(start_indices: Any, x: Any, name: str) -> list[Any]:
    """One start per axis: numbers where they are known, otherwise scalar symbols."""
    items = list(start_indices) if isinstance(start_indices, (list, tuple)) else None
    if items is None:
        array = operand(start_indices)
        items = [array] if array.ndim == 0 else [array[i] for i in range(array.shape[0])]
    if len(items) != x.ndim:
        raise ShapeError(
            f"{name}: one start per axis", got=f"{len(items)} starts for {x.spec}", expected=f"{x.ndim} starts"
        )
    return items


@op
def slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    """A block of the input that begins at `start_indices` (numbers or symbols) and has the size `shape`.

    A block with a symbolic start that would reach beyond the end is moved back inside.
    """
    x = operand(inputs)
    starts, sizes = _starts(start_indices, x, "slice"), sizes_of(shape)
    if len(sizes) != x.ndim:
        raise ShapeError("slice: one size per axis", got=f"{sizes} for {x.spec}", expected=f"{x.ndim} sizes")
    for axis, (start, length) in enumerate(zip(starts, sizes, strict=True)):
        if length == -1:
            length = x.shape[axis] - int(start)
        if isinstance(start, Symbol) and start.node.values is None:
            last = x.shape[axis] - length
            begin = operators.match(_cast(start, int32), last)
            begin = primitives.maximum(primitives.minimum(*begin), operators.full((), 0, int32))
            x = _take_range(x, begin, length, axis)
        else:
            at = int(start)
            if at < 0 or length < 0 or at + length > x.shape[axis]:
                raise ShapeError(
                    "slice: the block is not inside of the input",
                    got=f"start {at}, size {length} on axis {axis} of {x.spec}",
                    expected=f"0 ≤ start and start + size ≤ {x.shape[axis]}",
                )
            x = x[(builtins.slice(None),) * axis + (builtins.slice(at, at + length),)]
    return x


def _take_range(x: Any, begin: Any, length: int, axis: int) -> Any:
    index = operators.add(primitives.iota(shape=(length,), axis=0, dtype=int32), begin)
    return x[(builtins.slice(None),) * axis + (index,)]


@op
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    """The input with the block that begins at `start_indices` (numbers or symbols) replaced by `updates`."""
    x, new = operand(inputs), operand(updates)
    starts = _starts(start_indices, x, "slice_update")
    if new.ndim != x.ndim:
        raise ShapeError("slice_update: ranks differ", got=f"{x.spec} and {new.spec}", expected="equal ranks")
    new = _cast(new, x.dtype)
    if not _is_static(starts):
        return _slice_update_symbolic(x, starts, new)
    low = tuple(int(start) for start in starts)
    high = tuple(n - a - m for n, a, m in zip(x.shape, low, new.shape, strict=True))
    if min((*low, *high), default=0) < 0:
        raise ShapeError(
            "slice_update: the block is not inside of the input",
            got=f"{new.spec} at {low} in {x.spec}",
            expected="0 ≤ start and start + size ≤ the input's size, on each axis",
        )
    zero = (0,) * x.ndim
    inside = primitives.pad(
        operators.full(new.shape, True, as_dtype(bool)), low=low, high=high, interior=zero, value=False
    )
    block = primitives.pad(new, low=low, high=high, interior=zero, value=weak_value(0, x.dtype))
    return primitives.select(inside, block, x)


def _slice_update_symbolic(x: Any, starts: list[Any], new: Any) -> Any:
    columns = []
    for axis, start in enumerate(starts):
        along = primitives.iota(shape=new.shape, axis=axis, dtype=int32)
        last = x.shape[axis] - new.shape[axis]
        begin = operators.match(_cast(start, int32), last)
        begin = primitives.maximum(primitives.minimum(*begin), operators.full((), 0, int32))
        columns.append(operators.reshape(operators.add(along, begin), *new.shape, 1))
    index = columns[0] if len(columns) == 1 else primitives.concatenate(*columns, axis=new.ndim)
    return primitives.scatter_set(x, index, new)


@op
def scatter(indices: Any, values: Any, shape: Any) -> Any:
    """Zeros of the given shape, with `values` added at `indices` (…, k), which address the first k axes."""
    values = operand(values)
    target = operators.full(sizes_of(shape), weak_value(0, values.dtype), values.dtype)
    return primitives.scatter_add(target, _index_columns(indices, target, "scatter"), values)


@op
def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """The input with elements at `indices` (…, k), which address the first k axes, replaced.

    reduction: None replaces; "add", "max", "min" and "mul" combine the old value and all updates of it
    """
    x = operand(inputs)
    index, new = _index_columns(indices, x, "scatter_update"), _cast(updates, x.dtype)
    if reduction == "mul":
        return operators.multiply(x, _scatter_product(x, index, new))
    rules = {None: "scatter_set", "add": "scatter_add", "max": "scatter_max", "min": "scatter_min"}
    if reduction not in rules:
        raise ArgumentError(
            "scatter_update: unknown reduction", got=repr(reduction), expected="None, 'add', 'max', 'min' or 'mul'"
        )
    return getattr(primitives, rules[reduction])(x, index, new)


def _scatter_product(x: Any, index: Any, new: Any) -> Any:
    """For each element of x the product of its updates, by multiplication alone, so that zeros do no harm.

    Updates are sorted by their place; running products of those at one place double their reach in each round.
    """
    k = index.shape[-1]
    rows = operators.reshape(new, -1, *x.shape[k:])
    index = operators.reshape(index, -1, k)
    place = operators.full((index.shape[0],), 0, index.dtype)
    for axis in range(k):
        place = place * x.shape[axis] + index[:, axis]
    order = primitives.argsort(place, axis=0, descending=False)
    place, rows, index = (v[order] for v in (place, rows, index))
    distance, count = 1, rows.shape[0]
    while distance < count:
        same = primitives.equal(place[distance:], place[:-distance])
        same = operators.broadcast_to(operators.reshape(same, -1, *(1,) * (rows.ndim - 1)), rows[distance:].shape)
        more = primitives.select(same, rows[:-distance], operators.ones_like(rows[distance:]))
        rows = primitives.concatenate(rows[:distance], rows[distance:] * more, axis=0)
        distance *= 2
    return primitives.scatter_set(
        operators.ones_like(x), index, rows
    )  # of several the last one stays: the whole product


def _index_columns(indices: Any, x: Any, name: str) -> Any:
    index = operand(indices)
    if index.ndim < 1 or not 1 <= index.shape[-1] <= x.ndim:
        raise ShapeError(
            f"{name}: the last axis of the indices addresses the axes of the input",
            got=f"indices {index.spec} into {x.spec}",
            expected=f"a last size of 1…{x.ndim}",
        )
    sizes = Tensor.of(np.asarray(x.shape[: index.shape[-1]], np.int32))
    index = _cast(index, int32) if index.dtype.size_bytes < 4 or index.dtype.kind == "uint" else index
    return primitives.select(operators.less(index, 0), operators.add(index, _cast(sizes, index.dtype)), index)


@op
def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Any]:
    """The slices along an axis, as a list."""
    x = operand(x)
    axis = normalize_axis(axis, x.ndim, "unstack")
    if num is not None and num != x.shape[axis]:
        raise ShapeError("unstack: the axis has another size", got=f"num={num} for {x.spec}", expected=x.shape[axis])
    return [x[(builtins.slice(None),) * axis + (i,)] for i in range(x.shape[axis])]


@op
def get_item(x: Any, key: Any) -> Any:
    """`x[key]`, by NumPy's rules."""
    return operand(x)[tuple(key) if isinstance(key, list) else key]
