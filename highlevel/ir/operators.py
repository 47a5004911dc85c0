"""Promotion, broadcasting and indexing: from what people write to what primitives take.

Primitives want operands of one shape and one type. Here – and for functions in `ops`, through `binary` and `match` – types are
promoted (Python scalars are weak) and shapes broadcast explicitly, so that no gradient rule ever mentions either.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from . import dtypes
from .dtypes import DType, as_dtype, promote, promote_scalar, to_float
from .operand import Operand
from .spec import Spec

Scalar = (bool, int, float)


def is_deferred(value: Any) -> bool:
    """Whether the value stands for a call to be made later (a placeholder of a functional model)."""
    return hasattr(type(value), "__highlevel_function__")


def operand(value: Any, dtype: DType | None = None) -> Any:
    """The value as a tensor or symbol, of that type if one is given."""
    if isinstance(value, Operand):
        result = value.read()
    else:
        result = tensor.Tensor.of(value, dtype)
    return result if dtype is None else cast(result, dtype)


def cast(x: Any, dtype: Any) -> Any:
    x, dtype = operand(x), as_dtype(dtype)
    return x if x.dtype is dtype else primitives.cast(x, dtype=dtype)


def full(shape: Sequence[int], value: float, dtype: DType) -> Any:
    return primitives.full(shape=tuple(shape), value=value, dtype=dtype)


def zeros_like(x: Any) -> Any:
    return primitives.creation.zeros_like(operand(x))


def ones_like(x: Any) -> Any:
    x = operand(x)
    return full(x.shape, 1.0 if x.dtype.is_float else 1, x.dtype)


# Shapes ------------------------------------------------------------------------------------------------------------------
def broadcast_shapes(*shapes: tuple[int, ...], operator: str = "broadcast") -> tuple[int, ...]:
    """The common shape by NumPy's rule: sizes are equal or 1, counted from the last axis."""
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        if len(sizes) > 1:
            raise ShapeError(
                f"{operator}: shapes do not broadcast",
                got=" and ".join(map(str, shapes)),
                expected="sizes that are equal or 1, counted from the last axis",
                hint=_broadcast_hint(shapes),
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _broadcast_hint(shapes: Sequence[tuple[int, ...]]) -> str | None:
    if len(shapes) == 2 and shapes[0] and shapes[1] and shapes[0][0] == shapes[1][0]:
        return "add the missing axis with x[:, None] or ops.expand_dims"
    return None


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    x, shape = operand(x), tuple(shape)
    if x.shape == shape:
        return x
    if len(shape) < x.ndim:
        raise ShapeError("broadcast_to: the rank would shrink", got=x.spec, expected=f"shape {shape}")
    if len(shape) > x.ndim:
        x = primitives.reshape(x, shape=(1,) * (len(shape) - x.ndim) + x.shape)
    return x if x.shape == shape else primitives.broadcast(x, shape=shape)


def reshape(x: Any, *shape: Any) -> Any:
    """`reshape(x, (2, 3))` or `reshape(x, 2, 3)`; one size may be −1."""
    x = operand(x)
    sizes = tuple(int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape))
    if -1 in sizes:
        rest = math.prod(n for n in sizes if n != -1)
        if sizes.count(-1) > 1 or rest == 0 or x.size % rest:
            raise ShapeError(
                "reshape: the size −1 cannot be found", got=f"{x.spec} ({x.size} elements) to {sizes}",
                expected=f"a number of elements that {rest} divides",
            )  # fmt: skip
        sizes = tuple(x.size // rest if n == -1 else n for n in sizes)
    return x if x.shape == sizes else primitives.reshape(x, shape=sizes)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    x = operand(x)
    if axes is None:
        order = tuple(reversed(range(x.ndim)))
    else:
        order = tuple(normalize_axis(axis, x.ndim, "transpose") for axis in axes)
    return x if order == tuple(range(x.ndim)) else primitives.transpose(x, axes=order)


def normalize_axis(axis: int, ndim: int, operator: str = "axis") -> int:
    """A non-negative axis; negative ones count from the end."""
    if not -ndim <= axis < ndim:
        raise ArgumentError(f"{operator}: axis {axis} does not exist", got=f"rank {ndim}", expected=f"−{ndim}…{ndim - 1}")
    return int(axis) % ndim


# Two operands --------------------------------------------------------------------------------------------------------------
def match(*values: Any, operator: str = "op", dtype: DType | None = None, floating: bool = False) -> tuple[Any, ...]:
    """The values as operands of one type and one shape.

    Python scalars take the type of the arrays beside them; `floating` makes integers float32; `dtype` decides instead.
    """
    arrays = [None if isinstance(value, Scalar) else operand(value) for value in values]
    if dtype is None:
        dtype = common_dtype(values, arrays)
        dtype = to_float(dtype) if floating else dtype
    shape = broadcast_shapes(*(array.shape for array in arrays if array is not None), operator=operator)
    matched = []
    for value, array in zip(values, arrays, strict=True):
        if array is None:
            matched.append(full(shape, weak_value(value, dtype), dtype))
        else:
            array = array if array.dtype is dtype else primitives.cast(array, dtype=dtype)
            matched.append(array if array.shape == shape else broadcast_to(array, shape))
    return tuple(matched)


def weak_value(value: Any, dtype: DType) -> Any:
    """A Python scalar as the attribute of a fill: exactly the number the type holds."""
    if dtype.is_float:
        return float(value)
    return bool(value) if dtype.is_bool else int(value)


def common_dtype(values: Sequence[Any], arrays: Sequence[Any]) -> DType:
    result: DType | None = None
    for array in arrays:
        if array is not None:
            result = array.dtype if result is None else promote(result, array.dtype)
    for value, array in zip(values, arrays, strict=True):
        if array is None:
            result = as_dtype(type(value)) if result is None else promote_scalar(result, value)
    assert result is not None
    return result


def binary(primitive: Any, a: Any, b: Any, *, floating: bool = False, operator: str = "") -> Any:
    if is_deferred(a) or is_deferred(b):
        return NotImplemented
    return primitive(*match(a, b, operator=operator or primitive.name, floating=floating))


def add(a: Any, b: Any) -> Any:
    return binary(primitives.add, a, b)


def subtract(a: Any, b: Any) -> Any:
    return binary(primitives.sub, a, b)


def multiply(a: Any, b: Any) -> Any:
    return binary(primitives.mul, a, b)


def divide(a: Any, b: Any) -> Any:
    return binary(primitives.div, a, b, floating=True)


def floor_divide(a: Any, b: Any) -> Any:
    return binary(primitives.floor_div, a, b)


def remainder(a: Any, b: Any) -> Any:
    return binary(primitives.mod, a, b)


def power(a: Any, b: Any) -> Any:
    if isinstance(b, (int, float)) and not isinstance(b, bool) and isinstance(a, Operand):
        shortcut = _POWERS.get(b)
        x = a.read()
        if shortcut is not None and (x.dtype.is_float or b in (1, 2, 3)):
            return shortcut(x)
    return binary(primitives.pow, a, b)


_POWERS: dict[float, Any] = {
    1: lambda x: x,
    2: lambda x: primitives.mul(x, x),
    3: lambda x: primitives.mul(primitives.mul(x, x), x),
    0.5: lambda x: primitives.sqrt(x),
    -0.5: lambda x: primitives.rsqrt(x),
    -1: lambda x: divide(1.0, x),
}


def bitwise_and(a: Any, b: Any) -> Any:
    return binary(primitives.bit_and, a, b)


def bitwise_or(a: Any, b: Any) -> Any:
    return binary(primitives.bit_or, a, b)


def bitwise_xor(a: Any, b: Any) -> Any:
    return binary(primitives.bit_xor, a, b)


def left_shift(a: Any, b: Any) -> Any:
    return binary(primitives.shift_left, a, b)


def right_shift(a: Any, b: Any) -> Any:
    return binary(primitives.shift_right, a, b)


def less(a: Any, b: Any) -> Any:
    return binary(primitives.less, a, b)


def less_equal(a: Any, b: Any) -> Any:
    return binary(primitives.less_equal, a, b)


def equal(a: Any, b: Any) -> Any:
    return binary(primitives.equal, a, b) if _comparable(b) else False


def not_equal(a: Any, b: Any) -> Any:
    return binary(primitives.not_equal, a, b) if _comparable(b) else True


def _comparable(value: Any) -> bool:
    return not (value is None or isinstance(value, (str, bytes, type)))


def negative(x: Any) -> Any:
    return primitives.neg(operand(x))


def absolute(x: Any) -> Any:
    x = operand(x)
    return x if x.dtype.is_bool or x.dtype.kind == "uint" else primitives.abs(x)


def invert(x: Any) -> Any:
    return primitives.invert(operand(x))


# Matrix product ------------------------------------------------------------------------------------------------------------
def matmul(a: Any, b: Any) -> Any:
    """NumPy's rule: vectors gain an axis that the result loses; batch axes broadcast."""
    if is_deferred(a) or is_deferred(b):
        return NotImplemented
    a, b = operand(a), operand(b)
    dtype = promote(a.dtype, b.dtype)
    a, b = cast(a, dtype), cast(b, dtype)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("matmul: a scalar has no inner size", got=f"{a.spec} and {b.spec}", expected="rank of at least 1")
    drop_row, drop_column = a.ndim == 1, b.ndim == 1
    a = reshape(a, 1, *a.shape) if drop_row else a
    b = reshape(b, *b.shape, 1) if drop_column else b
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            "matmul: the inner sizes differ",
            got=f"{a.spec} and {b.spec}",
            expected=f"last size of the first ({a.shape[-1]}) = second-last of the second ({b.shape[-2]})",
        )
    if b.ndim == 2 and a.ndim > 2:  # one matrix for the whole batch: a single product
        y = primitives.matmul(reshape(a, math.prod(a.shape[:-1]), a.shape[-1]), b)
        y = reshape(y, *a.shape[:-1], b.shape[-1])
    else:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2], operator="matmul")
        y = primitives.matmul(broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:])))
    shape = y.shape
    if drop_column:
        shape = shape[:-1]
    if drop_row:
        shape = (*shape[:-2], *shape[-1:]) if not drop_column else shape[:-1]
    return reshape(y, shape)


# Indexing -----------------------------------------------------------------------------------------------------------------
def getitem(x: Any, index: Any) -> Any:
    """NumPy's indexing: integers, slices, None, `...`, integer arrays, and (on numbers only) boolean masks."""
    x = operand(x)
    items = _expand_mask(list(index) if isinstance(index, tuple) else [index])
    consumed = sum(1 for item in items if item is not None and item is not Ellipsis)
    if consumed > x.ndim:
        raise ShapeError("too many indices", got=f"{consumed} for {x.spec}", expected=f"at most {x.ndim}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("an index holds more than one ellipsis", got=index)
    at = dots[0] if dots else len(items)
    items = items[:at] + [builtins.slice(None)] * (x.ndim - consumed) + items[at + 1 :]
    return _advanced(*_basic(x, items))


def _expand_mask(items: list[Any]) -> list[Any]:
    expanded: list[Any] = []
    for item in items:
        is_array = isinstance(item, (Operand, np.ndarray, list))
        array = operand(item) if is_array else item
        if is_array and array.dtype.is_bool:
            expanded += [np.asarray(axis, np.int64) for axis in np.nonzero(np.asarray(array))]
        else:
            expanded.append(array)
    return expanded


def _basic(x: Any, items: list[Any]) -> tuple[Any, list[Any]]:
    """Applies integers, slices and new axes; leaves index arrays, one entry per axis of the result."""
    start, stop, step, flips, shape, arrays = [], [], [], [], [], []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            arrays.append(None)
            continue
        size = x.shape[axis]
        if isinstance(item, builtins.slice):
            bounds = (None if v is None else int(v) for v in (item.start, item.stop, item.step))
            a, b, s = builtins.slice(*bounds).indices(size)
            length = len(range(a, b, s))
            if s < 0:
                flips.append(axis)
                a, b, s = a + (length - 1) * s, a + 1, -s
            a, b = (a, max(a, b)) if length else (0, 0)
            shape.append(length)
            arrays.append(None)
        elif isinstance(item, (Operand, np.ndarray)):
            a, b, s = 0, size, 1
            shape.append(size)
            arrays.append(item)
        else:
            i = item.__index__()
            if not -size <= i < size:
                raise ArgumentError(f"index {i} is outside of axis {axis}", got=x.spec, expected=f"−{size}…{size - 1}")
            a, b, s = i % size, i % size + 1, 1
        start.append(a)
        stop.append(b)
        step.append(s)
        axis += 1
    if tuple(start) != (0,) * x.ndim or tuple(stop) != x.shape or any(s != 1 for s in step):
        x = primitives.slice(x, start=tuple(start), stop=tuple(stop), step=tuple(step))
    if flips:
        x = primitives.flip(x, axes=tuple(flips))
    return reshape(x, tuple(shape)), arrays


def _advanced(x: Any, arrays: list[Any]) -> Any:
    axes = [axis for axis, array in enumerate(arrays) if array is not None]
    if not axes:
        return x
    indices = [wrap_negative(operand(arrays[axis]), x.shape[axis]) for axis in axes]
    shape = broadcast_shapes(*(index.shape for index in indices), operator="index")
    columns = [reshape(broadcast_to(index, shape), *shape, 1) for index in indices]
    stacked = columns[0] if len(columns) == 1 else primitives.concatenate(*columns, axis=len(shape))
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    picked = primitives.gather(transpose(x, (*axes, *rest)), stacked)
    if axes != list(range(axes[0], axes[0] + len(axes))):
        return picked  # NumPy puts the axes of separated index arrays first
    before = [len(shape) + i for i in range(axes[0])]
    after = [len(shape) + i for i in range(axes[0], len(rest))]
    return transpose(picked, (*before, *range(len(shape)), *after))


def wrap_negative(index: Any, size: int) -> Any:
    """Indices that count from the end, made non-negative; unsigned ones and lists of numbers stay cheap."""
    if not index.dtype.is_integer:
        raise DTypeError("an index is not an integer", got=index.spec, expected="integers (or a boolean mask)")
    index = cast(index, dtypes.int64 if index.dtype.size_bytes == 8 else dtypes.int32)
    return primitives.select(less(index, 0), add(index, size), index)


def spec_of(value: Any) -> Spec:
    return operand(value).spec


from . import primitives, tensor  # noqa: E402
