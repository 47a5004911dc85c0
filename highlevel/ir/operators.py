"""Promotion, broadcasting and indexing: from what people write to what primitives take.

Primitives want operands of one shape and one type. Here – and for functions in `ops`, through `binary` and `match` –
types are promoted (Python scalars are weak) and shapes broadcast explicitly, so that no gradient rule ever mentions
either.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from . import dtypes, primitives, trace
from .dtypes import DType, as_dtype, promote, promote_scalar, to_float, weak_value
from .graph import Symbol
from .operand import Operand, install_operators
from .tensor import Tensor

Scalar = (bool, int, float)


def is_deferred(value: Any) -> bool:
    """Whether the value stands for a call to be made later (a placeholder of a functional model)."""
    return hasattr(type(value), "__highlevel_function__")


def operand(value: Any, dtype: DType | None = None) -> Any:
    """The value as a tensor or symbol, of that type if one is given."""
    if isinstance(value, Operand):
        result = value.read()
    else:
        result = Tensor.of(value, dtype)
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


# Shapes --------------------------------------------------------------------------------------------------------------
def broadcast_shapes(*shapes: tuple[int, ...], operator: str = "broadcast") -> tuple[int, ...]:
    """The common shape by NumPy's rule: sizes are equal or 1, counted from the last axis."""
    if len(shapes) == 1 or (len(shapes) == 2 and shapes[0] == shapes[1]):
        return tuple(shapes[0])
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
        raise ArgumentError(
            f"{operator}: axis {axis} does not exist", got=f"rank {ndim}", expected=f"−{ndim}…{ndim - 1}"
        )
    return int(axis) % ndim


# Two operands --------------------------------------------------------------------------------------------------------
def match(*values: Any, operator: str = "op", dtype: DType | None = None, floating: bool = False) -> tuple[Any, ...]:
    """The values as operands of one type and one shape.

    Python scalars take the type of the arrays beside them; `floating` makes integers float32; `dtype` decides instead.
    """
    arrays = [None if isinstance(value, Scalar) else operand(value) for value in values]
    if len(arrays) == 2 and dtype is None:
        alike = _match_alike(values, arrays, floating)
        if alike is not None:
            return alike
    if dtype is None:
        dtype = common_dtype(values, arrays)
        dtype = to_float(dtype) if floating else dtype
    shape = broadcast_shapes(*(array.shape for array in arrays if array is not None), operator=operator)
    symbolic = any(isinstance(array, Symbol) for array in arrays)
    matched = []
    for value, array in zip(values, arrays, strict=True):
        if array is None:
            matched.append(full(shape, weak_value(value, dtype), dtype))
            continue
        array = array if array.dtype is dtype else primitives.cast(array, dtype=dtype)
        if array.shape != shape:
            # A constant enters a program as it is, not repeated to the shape of what it meets.
            array = broadcast_to(trace.lift(array) if symbolic else array, shape)
        matched.append(array)
    return tuple(matched)


def _match_alike(values: Sequence[Any], arrays: Sequence[Any], floating: bool) -> tuple[Any, Any] | None:
    """Two operands of one shape and type, or a float beside a number: most are, so this has to be quick."""
    a, b = arrays
    if a is not None and b is not None:
        x, y = a.spec, b.spec
        return (a, b) if x.shape == y.shape and x.dtype is y.dtype and (x.dtype.is_float or not floating) else None
    spec = a.spec if a is not None else b.spec if b is not None else None
    if spec is None or not spec.dtype.is_float:
        return None
    number = full(spec.shape, weak_value(values[0] if a is None else values[1], spec.dtype), spec.dtype)
    return (number, b) if a is None else (a, number)


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


def _square(x: Any) -> Any:
    return primitives.mul(x, x)


def _cube(x: Any) -> Any:
    return primitives.mul(primitives.mul(x, x), x)


_POWERS: dict[float, Any] = {
    1: lambda x: x,
    2: _square,
    3: _cube,
    0.5: primitives.sqrt,
    -0.5: primitives.rsqrt,
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
    numbers = isinstance(value, (Operand, bool, int, float, list, tuple, np.ndarray, np.generic))
    return numbers or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def negative(x: Any) -> Any:
    return primitives.neg(operand(x))


def absolute(x: Any) -> Any:
    x = operand(x)
    return x if x.dtype.is_bool or x.dtype.kind == "uint" else primitives.abs(x)


def invert(x: Any) -> Any:
    return primitives.invert(operand(x))


# Matrix product ------------------------------------------------------------------------------------------------------
def matmul(a: Any, b: Any) -> Any:
    """NumPy's rule: vectors gain an axis that the result loses; batch axes broadcast."""
    if is_deferred(a) or is_deferred(b):
        return NotImplemented
    a, b = operand(a), operand(b)
    dtype = promote(a.dtype, b.dtype)
    a, b = cast(a, dtype), cast(b, dtype)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(
            "matmul: a scalar has no inner size", got=f"{a.spec} and {b.spec}", expected="rank of at least 1"
        )
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


# Indexing ------------------------------------------------------------------------------------------------------------
def getitem(x: Any, index: Any) -> Any:
    """NumPy's indexing: integers, slices, None, `...`, integer arrays, and (on numbers only) boolean masks."""
    x = operand(x)
    given = [_index_item(item) for item in (index if isinstance(index, tuple) else (index,))]
    items = _complete_index(x, given)
    sliced, arrays = _basic(x, items)
    if all(array is None for array in arrays):
        return sliced
    # As in NumPy, the axes of index arrays – integers beside them count as such – stand where these stand if they stand
    # together, and first if something is between them, be it an ellipsis for no axis at all.
    advanced = [i for i, item in enumerate(given) if _is_advanced(item)]
    together = advanced[-1] - advanced[0] + 1 == len(advanced)
    return _advanced(sliced, arrays, next(i for i, item in enumerate(items) if _is_advanced(item)) if together else 0)


def _is_advanced(item: Any) -> bool:
    return not (item is None or item is Ellipsis or isinstance(item, builtins.slice))


def _complete_index(x: Any, items: list[Any]) -> list[Any]:
    """One item per axis of x – an int, a slice or an index array – and None for each new axis."""
    taken = [0 if item is None or item is Ellipsis else item.ndim if _is_mask(item) else 1 for item in items]
    if sum(taken) > x.ndim:
        raise ShapeError("too many indices", got=f"{sum(taken)} for {x.spec}", expected=f"at most {x.ndim}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("an index holds more than one ellipsis", got=len(dots), expected="at most one")
    at = dots[0] if dots else len(items)
    rest = [builtins.slice(None)] * (x.ndim - sum(taken))
    complete: list[Any] = []
    axis = 0
    for item in (*items[:at], *rest, *items[at + 1 :]):
        found = _places(item, x, axis) if _is_mask(item) else [item]
        axis += sum(1 for part in found if part is not None)
        complete += found
    return complete


def _index_item(item: Any) -> Any:
    if item is None or item is Ellipsis or isinstance(item, builtins.slice):
        return item
    if isinstance(item, list):
        item = np.asarray(item, dtype=None if item else np.int64)
    if isinstance(item, Operand):
        item = item.read()
    if isinstance(item, Tensor):
        item = item.numpy()
    if isinstance(item, (np.ndarray, Operand)) and (item.ndim or not isinstance(item, np.ndarray)):
        if item.dtype == "bool" or (item.dtype.kind if isinstance(item, np.ndarray) else item.dtype.kind[0]) in "iu":
            return item
    elif hasattr(item, "__index__") and not isinstance(item, (bool, np.bool_)):
        return item.__index__()
    raise DTypeError("an index is not an integer", got=repr(item), expected="integers, slices, None, ... or a mask")


def _is_mask(item: Any) -> bool:
    return isinstance(item, (np.ndarray, Operand)) and bool(item.dtype == "bool")


def _places(mask: Any, x: Any, axis: int) -> list[Any]:
    """A mask as the indices of the places where it holds."""
    if tuple(mask.shape) != x.shape[axis : axis + mask.ndim]:
        raise ShapeError(
            "a mask does not fit what it selects from",
            got=f"mask {tuple(mask.shape)} at axis {axis} of {x.spec}",
            expected=f"shape {x.shape[axis : axis + mask.ndim]}",
        )
    return list(np.nonzero(np.asarray(mask)))


def _basic(x: Any, items: list[Any]) -> tuple[Any, list[Any]]:
    """Applies integers, slices and new axes; leaves index arrays, one entry per axis of the result."""
    ranges: list[tuple[int, int, int]] = []
    shape: list[int] = []
    arrays: list[Any] = []
    flips: list[int] = []
    for item in items:
        if item is None:
            shape.append(1)
            arrays.append(None)
            continue
        axis, size = len(ranges), x.shape[len(ranges)]
        if isinstance(item, builtins.slice):
            start, stop, step = item.indices(size)
            length = len(range(start, stop, step))
            if step < 0:
                flips.append(axis)
                start, stop, step = start + (length - 1) * step, start + 1, -step
            ranges.append((start, max(start, stop), step) if length else (0, 0, 1))
            shape.append(length)
            arrays.append(None)
        elif isinstance(item, int):
            if not -size <= item < size:
                raise ArgumentError(
                    f"index {item} is outside of axis {axis}", got=x.spec, expected=f"−{size}…{size - 1}"
                )
            ranges.append((item % size, item % size + 1, 1))
        else:
            ranges.append((0, size, 1))
            shape.append(size)
            arrays.append(item)
    if any(taken != (0, size, 1) for taken, size in zip(ranges, x.shape, strict=True)):
        first, end, by = (tuple(column) for column in zip(*ranges, strict=True))
        x = primitives.slice(x, start=first, stop=end, step=by)
    if flips:
        x = primitives.flip(x, axes=tuple(flips))
    return reshape(x, tuple(shape)), arrays


def _advanced(x: Any, arrays: list[Any], place: int) -> Any:
    """Picks by index arrays, the axes of which go to `place`."""
    axes = [axis for axis, array in enumerate(arrays) if array is not None]
    indices = [_checked(arrays[axis], x, axis) for axis in axes]
    wide = dtypes.int64 if any(index.dtype is dtypes.int64 for index in indices) else dtypes.int32
    indices = list(match(*indices, operator="index", dtype=wide))
    shape = indices[0].shape
    columns = [reshape(index, *shape, 1) for index in indices]
    stacked = columns[0] if len(columns) == 1 else primitives.concatenate(*columns, axis=len(shape))
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    picked = primitives.gather(transpose(x, (*axes, *rest)), stacked)
    before = [len(shape) + i for i in range(place)]
    after = [len(shape) + i for i in range(place, len(rest))]
    return transpose(picked, (*before, *range(len(shape)), *after))


def _checked(index: Any, x: Any, axis: int) -> Any:
    """Indices as int32 or int64 from 0 on; those that are known are checked here, others by the gather."""
    if not isinstance(index, np.ndarray):
        return wrap_negative(index, x.shape[axis])
    size = x.shape[axis]
    outside = index[(index < -size) | (index >= size)]
    if outside.size:
        raise ArgumentError(f"index {outside[0]} is outside of axis {axis}", got=x.spec, expected=f"−{size}…{size - 1}")
    wide = np.int64 if size > np.iinfo(np.int32).max else np.int32
    return operand(np.where(index < 0, index + size, index).astype(wide))


def wrap_negative(index: Any, size: int) -> Any:
    """Indices that count from the end, made non-negative; unsigned ones and lists of numbers stay cheap."""
    if not index.dtype.is_integer:
        raise DTypeError("an index is not an integer", got=index.spec, expected="integers (or a boolean mask)")
    index = cast(index, dtypes.int64 if index.dtype.size_bytes == 8 else dtypes.int32)
    return primitives.select(less(index, 0), add(index, size), index)


install_operators(sys.modules[__name__])
