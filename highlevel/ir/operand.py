"""What `Tensor`, `Symbol` and `Variable` have in common: a spec, Python's operators, and indexing."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError

from .dtypes import DType
from .spec import Spec

operators: Any = None  # the module of that name: it is made of primitives, which are made of operands


def install_operators(module: Any) -> None:
    """Called by `operators`, to give Python's operators their meaning."""
    global operators
    operators = module


class Operand:
    """Something that stands for an array: concrete, symbolic, or a variable."""

    __slots__ = ()
    __array_priority__ = 100.0  # NumPy arrays on the left leave operators to us
    __hash__ = object.__hash__

    @property
    def spec(self) -> Spec:
        raise NotImplementedError

    def read(self) -> Operand:
        """The value to compute with: itself, except for variables."""
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def size(self) -> int:
        return self.spec.size

    @property
    def T(self) -> Any:
        return operators.transpose(self)

    def astype(self, dtype: Any) -> Any:
        return operators.cast(self, dtype)

    def reshape(self, *shape: Any) -> Any:
        return operators.reshape(self, *shape)

    # As numbers ------------------------------------------------------------------------------------------------------
    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a read-only NumPy array (`.numpy().copy()` for one to write to)."""
        return self.read().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"cannot give {self.spec} as {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> Any:
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(
                "the truth of an array is not one answer",
                got=self.spec,
                expected="one element",
                hint="ops.any or ops.all",
            )
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __format__(self, format: str) -> str:
        return builtins.format(self.item(), format) if format and self.ndim == 0 else str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(len(self))])

    # Operators -------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return operators.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return operators.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return operators.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return operators.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return operators.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return operators.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return operators.divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return operators.divide(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return operators.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return operators.floor_divide(other, self)

    def __mod__(self, other: Any) -> Any:
        return operators.remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return operators.remainder(other, self)

    def __pow__(self, other: Any) -> Any:
        return operators.power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return operators.power(other, self)

    def __matmul__(self, other: Any) -> Any:
        return operators.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return operators.matmul(other, self)

    def __neg__(self) -> Any:
        return operators.negative(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return operators.absolute(self)

    def __invert__(self) -> Any:
        return operators.invert(self)

    def __and__(self, other: Any) -> Any:
        return operators.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Any:
        return operators.bitwise_and(other, self)

    def __or__(self, other: Any) -> Any:
        return operators.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Any:
        return operators.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Any:
        return operators.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Any:
        return operators.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Any:
        return operators.left_shift(self, other)

    def __rlshift__(self, other: Any) -> Any:
        return operators.left_shift(other, self)

    def __rshift__(self, other: Any) -> Any:
        return operators.right_shift(self, other)

    def __rrshift__(self, other: Any) -> Any:
        return operators.right_shift(other, self)

    def __lt__(self, other: Any) -> Any:
        return operators.less(self, other)

    def __le__(self, other: Any) -> Any:
        return operators.less_equal(self, other)

    def __gt__(self, other: Any) -> Any:
        return operators.less(other, self)

    def __ge__(self, other: Any) -> Any:
        return operators.less_equal(other, self)

    def __eq__(self, other: Any) -> Any:
        return operators.equal(self, other)

    def __ne__(self, other: Any) -> Any:
        return operators.not_equal(self, other)

    def __getitem__(self, index: Any) -> Any:
        return operators.getitem(self, index)
