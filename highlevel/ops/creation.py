"""Arrays from nothing but sizes and numbers. While a trace is open these are nodes, never data inside the program."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import DType, as_dtype, int32, promote, to_float, weak_value
from highlevel.ir.operators import cast, operand

from .arguments import DEFAULT_FLOAT, dtype_or, moved, normalize_axis, sizes_of
from .registry import op


@op
def zeros(shape: Any, dtype: Any = None) -> Any:
    """An array of zeros."""
    return full(shape, 0, dtype)


@op
def ones(shape: Any, dtype: Any = None) -> Any:
    """An array of ones."""
    return full(shape, 1, dtype)


@op
def empty(shape: Any, dtype: Any = None) -> Any:
    """An array whose values do not matter: zeros."""
    return full(shape, 0, dtype)


@op
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array filled with one number (or with an array that broadcasts to the shape)."""
    kind, sizes = dtype_or(dtype, DEFAULT_FLOAT), sizes_of(shape)
    if isinstance(fill_value, operators.Scalar):
        return operators.full(sizes, weak_value(fill_value, kind), kind)
    return operators.broadcast_to(operand(fill_value, kind), sizes)


@op
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of the operand's shape."""
    return full_like(x, 0, dtype)


@op
def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the operand's shape."""
    return full_like(x, 1, dtype)


@op
def empty_like(x: Any, dtype: Any = None) -> Any:
    """An array of the operand's shape whose values do not matter: zeros."""
    return full_like(x, 0, dtype)


@op
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """One number in the operand's shape."""
    x = operand(x)
    return full(x.shape, fill_value, dtype_or(dtype, x.dtype))


def iota(size: int, dtype: DType = int32) -> Any:
    """0, 1, 2, …"""
    return primitives.iota(shape=(size,), axis=0, dtype=dtype)


@op
def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """Numbers from `start`, at distance `step`, below `stop`; one argument alone is the stop.

    >>> arange(3).numpy(), arange(1.0, 2.0, 0.5).numpy()
    (array([0, 1, 2], dtype=int32), array([1. , 1.5], dtype=float32))
    """
    given = [v for v in (start, stop, step) if v is not None]
    if dtype is None:
        arrays = [None if isinstance(v, operators.Scalar) else operand(v) for v in given]
        kind = operators.common_dtype(given, arrays)
        kind = int32 if kind.is_bool else kind
    else:
        kind = as_dtype(dtype)
    numbers = [v if isinstance(v, operators.Scalar) else operand(v).item() for v in given]
    first, last = (0, numbers[0]) if stop is None else numbers[:2]
    distance = 1 if step is None else numbers[-1]
    if distance == 0:
        raise ArgumentError("arange: the step is zero", expected="a step other than 0")
    size = builtins.max(0, math.ceil((last - first) / distance))
    if not kind.is_float:
        return iota(size, kind) * int(distance) + int(first) if (first, distance) != (0, 1) else iota(size, kind)
    wide = kind if kind.size_bytes > 2 else DEFAULT_FLOAT
    values = iota(size, wide)
    return cast(values if (first, distance) == (0, 1) else values * float(distance) + float(first), kind)


def _spaced(start: Any, stop: Any, num: int, endpoint: bool) -> tuple[Any, Any, Any]:
    """The fractions 0 … 1 as a column, and both ends in a floating type."""
    kind = to_float(promote(operand(start).dtype, operand(stop).dtype))
    low, high = operators.match(start, stop, operator="linspace", dtype=kind)
    divisions = builtins.max(num - 1 if endpoint else num, 1)
    column = operators.reshape(iota(num, kind), num, *(1 for _ in low.shape))
    return column / float(divisions), low, high


@op
def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """`num` numbers at equal distances from `start` to `stop`, which is the last one unless `endpoint` is false.

    retstep: also return the distance
    """
    if num < 0:
        raise ArgumentError("linspace: a negative number of samples", got=num, expected="at least 0")
    fraction, low, high = _spaced(start, stop, num, endpoint)
    values = low * (1.0 - fraction) + high * fraction  # exact at both ends
    values = operators.transpose(values, moved(values.ndim, 0, normalize_axis(axis, values.ndim, "linspace")))
    if dtype is not None and not as_dtype(dtype).is_float:
        values = primitives.floor(values)
    values = cast(values, dtype_or(dtype, values.dtype))
    divisions = num - 1 if endpoint else num
    return (values, (high - low) / float(divisions) if divisions else high * math.nan) if retstep else values


@op
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10, dtype: Any = None, axis: int = 0
) -> Any:
    """Numbers at equal ratios, from base^start to base^stop."""
    exponents = linspace(start, stop, num, endpoint, axis=axis)
    values = operators.power(base if isinstance(base, operators.Scalar) else operand(base), exponents)
    return cast(values, dtype_or(dtype, values.dtype))


@op
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """Numbers at equal ratios, from `start` to `stop`, which have one sign."""
    fraction, low, high = _spaced(start, stop, num, endpoint)
    values = low * primitives.pow(*operators.match(high / low, fraction))
    values = operators.transpose(values, moved(values.ndim, 0, normalize_axis(axis, values.ndim, "geomspace")))
    return cast(values, dtype_or(dtype, values.dtype))


# Matrices --------------------------------------------------------------------------------------------------------
def _on_diagonal(rows: int, columns: int, k: int) -> Any:
    """True where column = row + k."""
    shape = (rows, columns)
    row = primitives.iota(shape=shape, axis=0, dtype=int32)
    return primitives.equal(row + k if k else row, primitives.iota(shape=shape, axis=1, dtype=int32))


def _below_diagonal(rows: int, columns: int, k: int) -> Any:
    """True where column ≤ row + k."""
    shape = (rows, columns)
    row = primitives.iota(shape=shape, axis=0, dtype=int32)
    return primitives.less_equal(primitives.iota(shape=shape, axis=1, dtype=int32), row + k if k else row)


@op
def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on the k-th diagonal of an N × M matrix."""
    return cast(_on_diagonal(int(N), int(N if M is None else M), int(k)), dtype_or(dtype, DEFAULT_FLOAT))


@op
def identity(n: int, dtype: Any = None) -> Any:
    """The n × n identity matrix."""
    return eye(n, dtype=dtype)


@op
def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on and below the k-th diagonal of an N × M matrix."""
    return cast(_below_diagonal(int(N), int(N if M is None else M), int(k)), dtype_or(dtype, DEFAULT_FLOAT))


def _matrix(x: Any, name: str) -> Any:
    x = operand(x)
    if x.ndim == 1:
        x = operators.broadcast_to(x, (x.shape[0], x.shape[0]))  # NumPy's rule: every row is the vector
    if x.ndim < 2:
        raise ShapeError(f"{name}: not a matrix", got=x.spec, expected="rank of at least 2")
    return x


@op
def tril(x: Any, k: int = 0) -> Any:
    """The matrix with zeros above the k-th diagonal."""
    x = _matrix(x, "tril")
    keep = operators.broadcast_to(_below_diagonal(x.shape[-2], x.shape[-1], k), x.shape)
    return primitives.select(keep, x, operators.zeros_like(x))


@op
def triu(x: Any, k: int = 0) -> Any:
    """The matrix with zeros below the k-th diagonal."""
    x = _matrix(x, "triu")
    drop = operators.broadcast_to(_below_diagonal(x.shape[-2], x.shape[-1], k - 1), x.shape)
    return primitives.select(drop, operators.zeros_like(x), x)


@op
def diag(x: Any, k: int = 0) -> Any:
    """A matrix with the vector on its k-th diagonal; of a matrix, its k-th diagonal."""
    x = operand(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ShapeError("diag: neither vector nor matrix", got=x.spec, expected="rank 1 or 2", hint="diagonal")
    offset = builtins.abs(k)
    size = x.shape[0] + offset
    padded = primitives.pad(
        x,
        low=(offset if k > 0 else 0,),
        high=(offset if k < 0 else 0,),
        interior=(0,),
        value=weak_value(0, x.dtype),
    )
    rows = operators.broadcast_to(padded, (size, size))
    return primitives.select(_on_diagonal(size, size, k), rows, operators.zeros_like(rows))


@op
def diagflat(x: Any, k: int = 0) -> Any:
    """A matrix with all elements on its k-th diagonal."""
    return diag(operators.reshape(x, -1), k)


@op
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of the matrices formed by two axes, as a new last axis."""
    x = operand(x)
    if x.ndim < 2:
        raise ShapeError("diagonal: no matrix", got=x.spec, expected="rank of at least 2")
    a, b = normalize_axis(axis1, x.ndim, "diagonal"), normalize_axis(axis2, x.ndim, "diagonal")
    if a == b:
        raise ArgumentError("diagonal: two different axes are needed", got=f"axes {axis1} and {axis2}")
    x = operators.transpose(x, (*(i for i in range(x.ndim) if i not in (a, b)), a, b))
    *batch, rows, columns = x.shape
    count = builtins.max(
        0, builtins.min(rows, columns - offset) if offset >= 0 else builtins.min(rows + offset, columns)
    )
    flat = operators.reshape(x, *batch, rows * columns)
    start = offset if offset >= 0 else -offset * columns
    stop = start + (count - 1) * (columns + 1) + 1 if count else start
    return flat[..., start : stop : columns + 1] if count else flat[..., 0:0]


@op
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Powers of a vector as columns, from the highest to 0 unless increasing."""
    x = operand(x)
    if x.ndim != 1:
        raise ShapeError("vander: not a vector", got=x.spec, expected="rank 1")
    count = x.shape[0] if N is None else int(N)
    exponents = operators.reshape(iota(count, x.dtype), 1, count)
    powers = primitives.pow(*operators.match(operators.reshape(x, -1, 1), exponents, operator="vander"))
    return powers if increasing else primitives.flip(powers, axes=(1,))


# Windows ---------------------------------------------------------------------------------------------------------
def _cosines(size: Any, weights: tuple[float, ...]) -> Any:
    """Σ (−1)ᵏ wₖ cos(2πkn / (N − 1)); the window of one sample is 1."""
    count = int(size)
    if count <= 1:
        return ones((builtins.max(count, 0),))
    phase = iota(count, DEFAULT_FLOAT) * (2.0 * math.pi / (count - 1))
    terms = [primitives.cos(phase * float(k)) * ((-1) ** k * w) for k, w in enumerate(weights) if k]
    return operators.add(sum(terms[1:], terms[0]), weights[0])


@op
def hanning(x: Any) -> Any:
    """The Hann window of x samples."""
    return _cosines(x, (0.5, 0.5))


@op
def hamming(x: Any) -> Any:
    """The Hamming window of x samples."""
    return _cosines(x, (0.54, 0.46))


@op
def blackman(x: Any) -> Any:
    """The Blackman window of x samples."""
    return _cosines(x, (0.42, 0.5, 0.08))


@op
def bartlett(x: Any) -> Any:
    """The triangular window of x samples, zero at both ends."""
    count = int(x)
    if count <= 1:
        return ones((builtins.max(count, 0),))
    return 1.0 - primitives.abs(iota(count, DEFAULT_FLOAT) * (2.0 / (count - 1)) - 1.0)


@op
def kaiser(x: Any, beta: float) -> Any:
    """The Kaiser window of x samples: I₀(β√(1 − t²)) / I₀(β)."""
    return operand(np.kaiser(int(x), float(beta)).astype(np.float32))
