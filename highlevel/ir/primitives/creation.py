"""Operators without operands. While a trace is open they become nodes, so large fills never enter a program as data."""

from __future__ import annotations

from typing import Any

from highlevel.errors import ArgumentError

from ..dtypes import DType, float32, int32
from ..primitive import define
from ..sample import Sample
from ..spec import Spec

FAMILY = "creation"


def _infer(*, shape: tuple[int, ...], dtype: DType, **attrs: Any) -> Spec:
    if any(size < 0 for size in shape):
        raise ArgumentError("a size is negative", got=shape, expected="sizes of at least 0")
    return Spec(shape, dtype)


full = define(
    "full",
    FAMILY,
    infer=_infer,
    numpy=lambda xp, *, shape, value, dtype: xp.broadcast_to(xp.asarray(value, dtype=dtype.numpy), shape),
    vjp=lambda g, y, *, shape, value, dtype: (),
    samples=(
        Sample((), "numpy.full", lambda f, shape, value, dtype: f(shape, value, dtype.numpy),
               {"shape": (2, 3), "value": 1.5, "dtype": float32}, gradient=False),
    ),
    summary="an array filled with one number",
)  # fmt: skip


def _infer_iota(*, shape: tuple[int, ...], axis: int, dtype: DType) -> Spec:
    if not 0 <= axis < len(shape):
        raise ArgumentError(f"iota: axis {axis} does not exist", got=f"shape {shape}", expected="an axis of the shape")
    return _infer(shape=shape, dtype=dtype)


def _iota(xp: Any, *, shape: tuple[int, ...], axis: int, dtype: DType) -> Any:
    column = xp.arange(shape[axis]).astype(dtype.numpy)
    return xp.broadcast_to(column.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


iota = define(
    "iota",
    FAMILY,
    infer=_infer_iota,
    numpy=_iota,
    vjp=lambda g, y, *, shape, axis, dtype: (),
    samples=(
        Sample((), "numpy.indices", lambda f, shape, axis, dtype: f(shape, dtype.numpy)[axis],
               {"shape": (2, 3), "axis": 1, "dtype": int32}, gradient=False),
    ),
    summary="each element is its own index along one axis",
)  # fmt: skip


def zeros_like(x: Any) -> Any:
    return full(shape=x.shape, value=0 if not x.dtype.is_float else 0.0, dtype=x.dtype)


def full_like(x: Any, value: float) -> Any:
    return full(shape=x.shape, value=value, dtype=x.dtype)
