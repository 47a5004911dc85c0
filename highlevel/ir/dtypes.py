"""Data types and the promotion lattice.

Invariant: promotion is commutative, associative and never silently widens to float64. The lattice is the one of JAX and
Keras 3: an integer that meets a float takes the float's type, float16 and bfloat16 meet at float32, and a Python
scalar is *weak* – it takes the type of the array beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from highlevel.errors import ArgumentError, DTypeError, did_you_mean


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type: its name, its kind ("bool", "uint", "int" or "float"), its width and NumPy's type for it.

    There is one object per type. It equals its name and NumPy's dtype, so that `x.dtype == "float32"` works.
    """

    name: str
    kind: str
    size_bytes: int
    numpy: np.dtype[Any] = field(repr=False)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self is other
        if isinstance(other, (np.dtype, type)):
            return bool(self.numpy == other)
        return isinstance(other, str) and self.name == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)  # copies and unpickled types are the same object

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _row(name: str, kind: str, numpy_type: Any) -> DType:
    dtype = np.dtype(numpy_type)
    return DType(name, kind, dtype.itemsize, dtype)


bool_ = _row("bool", "bool", np.bool_)
uint8 = _row("uint8", "uint", np.uint8)
uint16 = _row("uint16", "uint", np.uint16)
uint32 = _row("uint32", "uint", np.uint32)
uint64 = _row("uint64", "uint", np.uint64)
int8 = _row("int8", "int", np.int8)
int16 = _row("int16", "int", np.int16)
int32 = _row("int32", "int", np.int32)
int64 = _row("int64", "int", np.int64)
float16 = _row("float16", "float", np.float16)
bfloat16 = _row("bfloat16", "float", ml_dtypes.bfloat16)
float32 = _row("float32", "float", np.float32)
float64 = _row("float64", "float", np.float64)

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64)
FLOATS = (float16, bfloat16, float32, float64)
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL}
_BY_NUMPY: dict[Any, DType] = {dtype.numpy: dtype for dtype in ALL}
_BY_PYTHON: dict[Any, DType] = {bool: bool_, int: int32, float: float32, "int": int32, "float": float32}


def as_dtype(value: Any) -> DType:
    """The `DType` for a name, a NumPy type or dtype, a Python scalar type, or a `DType` itself."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    if isinstance(value, (type, str)) and value in _BY_PYTHON:
        return _BY_PYTHON[value]
    try:
        if value is not None:  # which NumPy takes for float64
            return _BY_NUMPY[np.dtype(value).newbyteorder("=")]
    except (TypeError, KeyError):
        pass
    raise DTypeError(f"{value!r} is not a data type of this library", hint=did_you_mean(value, BY_NAME))


# The lattice as its covering relation: from each type to the next wider ones.
_WIDER: dict[str, tuple[str, ...]] = {
    "bool": ("uint8", "int8"),
    "uint8": ("uint16", "int16"),
    "uint16": ("uint32", "int32"),
    "uint32": ("uint64", "int64"),
    "uint64": ("float16", "bfloat16"),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": ("float16", "bfloat16"),
    "float16": ("float32",),
    "bfloat16": ("float32",),
    "float32": ("float64",),
    "float64": (),
}


@cache
def _above(name: str) -> frozenset[str]:
    return frozenset({name}).union(*(_above(wider) for wider in _WIDER[name]))


@cache
def promote(a: DType, b: DType) -> DType:
    """The narrowest type that both `a` and `b` convert to.

    >>> promote(int64, float32), promote(uint8, int8), promote(float16, bfloat16)
    (float32, int16, float32)
    """
    if a is b:
        return a
    if "uint64" in (a.name, b.name) and "int" in (a.kind, b.kind):
        return float32  # no integer type holds both
    common = _above(a.name) & _above(b.name)
    least = [name for name in common if common <= _above(name)]
    return BY_NAME[least[0]] if least else float32


def promote_scalar(dtype: DType, scalar: bool | int | float) -> DType:
    """The type of an operation between an array of `dtype` and a Python scalar, which is weak.

    >>> promote_scalar(float16, 2.5), promote_scalar(int8, 2), promote_scalar(int64, 0.5), promote_scalar(bool_, 3)
    (float16, int8, float32, int32)
    """
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return int32 if dtype.is_bool else dtype
    return dtype if dtype.is_float else float32


def holds_kind(target: DType, source: DType) -> bool:
    """Whether values of `source` may be stored as `target` without being asked for: never a float as an integer.

    >>> holds_kind(float16, float32), holds_kind(float32, int32), holds_kind(int32, float32), holds_kind(bool_, int8)
    (True, True, False, False)
    """
    rank = {"bool": 0, "uint": 1, "int": 1, "float": 2}
    return rank[source.kind] <= rank[target.kind]


def to_float(dtype: DType) -> DType:
    """The type in which a function with real results computes: floats stay, all else is float32."""
    return dtype if dtype.is_float else float32


def weak_value(value: Any, dtype: DType) -> Any:
    """A Python scalar as the attribute of a fill: exactly the number the type holds."""
    if dtype.is_float:
        return float(value)
    if dtype.is_bool:
        return bool(value)
    limits = np.iinfo(dtype.numpy)
    if not limits.min <= value <= limits.max:
        raise ArgumentError(f"{value} does not fit into {dtype}", expected=f"{limits.min}…{limits.max}")
    return int(value)
