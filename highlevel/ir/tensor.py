"""`Tensor`: an immutable array on some backend, at home with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import ArgumentError

from .dtypes import DType, as_dtype, bfloat16, float32, int32, int64, weak_value
from .executor import executor
from .operand import Operand
from .scalar import NumpyScalars
from .spec import Spec


class Tensor(Operand):
    """An array. Operators on it compute at once.

    >>> x = Tensor.of([[1.0, 2.0], [3.0, 4.0]])
    >>> (x @ x + 1).numpy()
    array([[ 8., 11.],
           [16., 23.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "_backend", "_handle", "_spec", "mask")

    mask: Any  # which steps of a sequence count: put there and read by layers

    def __init__(self, handle: Any, spec: Spec, backend: Any) -> None:
        self._handle = handle
        self._spec = spec
        self._backend = backend
        self.mask = None

    @classmethod
    def of(cls, value: Any, dtype: Any = None) -> Tensor:
        """A tensor from numbers, nested lists, NumPy arrays or anything that speaks DLPack or the array interface.

        Python floats and lists of them become float32, Python integers int32 (int64 where they do not fit).
        """
        if isinstance(value, Tensor) and (dtype is None or value.dtype is as_dtype(dtype)):
            return value
        array = to_numpy(value)
        wanted = as_dtype(dtype) if dtype is not None else _natural_dtype(value, array)
        if array.dtype != wanted.numpy:
            array = _converted(value, array, wanted)
        elif array is value or not array.flags.owndata or isinstance(value, Operand):
            array = array.copy()  # tensors are immutable; the caller may go on writing to his array
        backend = executor()
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
        array = np.asarray(self._backend.to_host(self._handle)).view()
        array.flags.writeable = False
        return array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        # Nothing but the tensor keeps the memory alive: it has to be the tensor's own. The interface has no bfloat16.
        if not isinstance(self._handle, np.ndarray) or self._spec.dtype is bfloat16:
            raise AttributeError("__array_interface__")
        interface: dict[str, Any] = self.numpy().__array_interface__
        return interface

    def __dlpack__(self, **options: Any) -> Any:
        array = np.asarray(self._backend.to_host(self._handle))
        if not array.flags.writeable:
            array = array.copy()  # a fill, which is one number repeated: DLPack before 1.0 cannot say "read only"
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # what is exported lies in the memory of the host

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=50)
        return f"Tensor({values}, {self._spec.dtype} {self._spec.shape})"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        return Tensor.of, (self.numpy().copy(), self._spec.dtype.name)


def _converted(value: Any, array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """The array in another type: arrays by the rules of `cast`; Python's integers have to fit."""
    if dtype.is_integer and array.dtype.kind in "iu" and isinstance(value, (int, list, tuple)) and array.size:
        for extreme in (array.min(), array.max()):
            weak_value(extreme, dtype)
    converted: np.ndarray[Any, Any] = NumpyScalars(np).cast(array, dtype)
    return converted


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
    if array.dtype == object or (array.dtype.kind in "USV" and array.dtype.name != "bfloat16"):
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
            return int32 if array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31) else int64
    return as_dtype(array.dtype)


def _holds(value: Any, kind: Any) -> bool:
    """Whether a nested list holds NumPy scalars or arrays, whose width is meant."""
    if isinstance(value, (list, tuple)):
        return any(_holds(item, kind) for item in value)
    return isinstance(value, (np.generic, np.ndarray)) and np.issubdtype(value.dtype, kind)
