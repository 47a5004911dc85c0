"""`Tensor`: an immutable array on some backend, at home with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import ArgumentError

from . import trace
from .dtypes import DType, as_dtype, bool_, float32, float64, int32, int64
from .operand import Operand
from .spec import Spec


class Tensor(Operand):
    """An array. Operators on it compute at once.

    >>> x = Tensor.of([[1.0, 2.0], [3.0, 4.0]])
    >>> (x @ x + 1).numpy()
    array([[ 8., 11.],
           [16., 23.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "_backend", "_handle", "_spec")

    def __init__(self, handle: Any, spec: Spec, backend: Any) -> None:
        self._handle = handle
        self._spec = spec
        self._backend = backend

    @classmethod
    def of(cls, value: Any, dtype: Any = None) -> Tensor:
        """A tensor from numbers, nested lists, NumPy arrays or anything that speaks DLPack or the array interface.

        Python floats and lists of them become float32, Python integers int32 (int64 where they do not fit).
        """
        array = to_numpy(value)
        wanted = as_dtype(dtype) if dtype is not None else _natural_dtype(value, array)
        if array.dtype != wanted.numpy:
            array = array.astype(wanted.numpy)
        elif array is value or not array.flags.owndata:
            array = array.copy()  # tensors are immutable; the caller may go on writing to his array
        backend = trace.executor()
        return cls(backend.from_host(array), Spec(array.shape, wanted), backend)

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def device(self) -> str:
        return str(self._backend.name)

    def handle_on(self, backend: Any) -> Any:
        """The backend's own handle of the data, moved there if it lives elsewhere."""
        if backend is self._backend:
            return self._handle
        return backend.from_host(self._backend.to_host(self._handle))

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array (`.numpy().copy()` for one to write to)."""
        array = np.asarray(self._backend.to_host(self._handle)).view()
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"cannot give a {self._spec.dtype} tensor as {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self.numpy().__array_interface__
        return interface

    def __dlpack__(self, **options: Any) -> Any:
        # NumPy refuses to export read-only memory; the consumer gets the same memory, as the protocol wants.
        return np.asarray(self._backend.to_host(self._handle)).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.numpy().__dlpack_device__()
        return device

    def item(self) -> Any:
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __format__(self, format: str) -> str:
        return builtins_format(self.item(), format) if self.ndim == 0 else str(self)

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=50)
        return f"Tensor({values}, {self._spec.dtype} {self._spec.shape})"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        return Tensor.of, (self.numpy().copy(), self._spec.dtype.name)


builtins_format = format


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """Any array-like as a NumPy array, without copying where that is possible."""
    if isinstance(value, (np.ndarray, bool, int, float, list, tuple, np.generic)):
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.empty((), dtype=object)
    elif isinstance(value, Operand):
        return np.asarray(value.read())
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        array = np.from_dlpack(value)
    else:
        array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "USV" and array.dtype.name not in ("bfloat16",):
        raise ArgumentError(
            "cannot make a tensor of this value",
            got=f"{type(value).__name__} with elements of type {array.dtype}",
            expected="numbers in a rectangular (nested) list or array",
            hint="lists of unequal lengths need padding (utils.pad_sequences); strings need a lookup layer first",
        )
    return array


def _natural_dtype(value: Any, array: np.ndarray[Any, Any]) -> DType:
    """The type of the array itself, but float32 and int32 for Python's own numbers, which have no width."""
    if isinstance(value, (bool, int, float, list, tuple)):
        if array.dtype == np.float64 and not _holds(value, np.floating):
            return float32
        if array.dtype == np.int64 and not _holds(value, np.integer):
            return int32 if array.size == 0 or (-(2**31) <= array.min() and array.max() < 2**31) else int64
    if array.dtype == np.float64:
        return float64
    return bool_ if array.dtype == np.bool_ else as_dtype(array.dtype)


def _holds(value: Any, kind: Any) -> bool:
    """Whether a nested list holds NumPy scalars or arrays, whose width is meant."""
    if isinstance(value, (list, tuple)):
        return any(_holds(item, kind) for item in value)
    return isinstance(value, (np.generic, np.ndarray)) and np.issubdtype(value.dtype, kind)
