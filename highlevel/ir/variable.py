"""`Variable`: a named array that programs read and update."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import DTypeError, ShapeError

from . import trace
from .dtypes import holds_kind, promote_scalar
from .executor import executor
from .graph import Symbol
from .operand import Operand
from .spec import Spec
from .spec import spec as make_spec
from .tensor import Tensor

_epoch = itertools.count(1)
_current_epoch = next(_epoch)


def epoch() -> int:
    """Counts the changes of all settings; programs compare it to know that nothing can have changed."""
    return _current_epoch


_data_epoch = 0


def data_epoch() -> int:
    """Counts the events after which a variable's data may lie elsewhere, or may be in somebody else's hands."""
    return _data_epoch


def _note_data() -> None:
    global _data_epoch
    _data_epoch += 1


class Setting:
    """An attribute that traced programs depend on, such as `trainable`.

    A program that read the attribute while it was traced is only used again while it has the same value, so a change
    takes effect at once, without recompiling by hand; changing it back finds the earlier program.
    """

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.slot = f"_setting_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = getattr(instance, self.slot, self.default)
        if trace.is_open():
            trace.note_setting(instance, self.name, value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        global _current_epoch
        if getattr(instance, self.slot, self.default) != value:
            _current_epoch = next(_epoch)
        object.__setattr__(instance, self.slot, value)


class Variable(Operand):
    """State: a weight, a moving average, an optimizer's moment, a random seed.

    value:        initial value (anything array-like), or a function `(shape, dtype) -> value`
    shape, dtype: needed if `value` is a function; otherwise taken from it
    name, path:   the variable's own name, and the names of the layers that hold it, joined by "/"
    trainable:    whether optimizers update it; takes effect at once
    tags:         words that select variables ("weight_decay", "moving_average", "seed" …)
    regularizer, constraint: called on the value by training
    autocast:     whether layers that compute in another floating-point type read it in that type
    """

    trainable = Setting(True)

    def __init__(
        self,
        value: Any,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: Any = None,
        trainable: bool = True,
        name: str = "variable",
        path: str | None = None,
        tags: tuple[str, ...] = (),
        regularizer: Callable[[Any], Any] | None = None,
        constraint: Callable[[Any], Any] | None = None,
        autocast: bool = True,
    ) -> None:
        if callable(value) and not isinstance(value, Operand):
            wanted = make_spec(shape or (), dtype or "float32")
            value = value(wanted.shape, dtype=wanted.dtype)
        tensor = Tensor.of(value, dtype)
        if shape is not None and tensor.shape != tuple(shape):
            raise ShapeError(
                f"variable {name!r}: the initial value has another shape",
                got=tensor.spec,
                expected=f"shape {tuple(shape)}",
            )
        self._spec = tensor.spec
        self._backend = tensor._backend
        self._handle = tensor._handle
        self.name = name
        self.path = path or name
        self.tags = tags
        self.regularizer = regularizer
        self.constraint = constraint
        self.autocast = autocast
        self.trainable = trainable

    @property
    def spec(self) -> Spec:
        return self._spec

    def read(self) -> Any:
        """The value: a tensor, or the symbol of it in the open trace; cast where a layer computes in another type."""
        value, wanted = self.master(), trace.autocast_dtype()
        if wanted is None or wanted is self._spec.dtype or not self._spec.dtype.is_float or not self.autocast:
            return value
        return value.astype(wanted)

    def master(self) -> Any:
        """The value in the variable's own type."""
        traces = trace.open_traces()
        if not traces:
            backend = executor()
            _note_data()
            return Tensor(self.handle_on(backend), self._spec, backend)
        for level in reversed(traces):
            if id(self) in level.values:
                return level.values[id(self)][-1]
        root = traces[0]
        values = (self.handle_on(executor()),) if root.eager else None
        symbol = root.leaf("variable", self, self._spec, values)
        root.read(self, symbol)
        return symbol

    def values_in_trace(self) -> list[Symbol]:
        """All values that the variable has had in the open traces, the latest last."""
        self.master()
        return [symbol for level in trace.open_traces() for symbol in level.values.get(id(self), ())]

    @property
    def value(self) -> Any:
        return self.master()

    def assign(self, value: Any) -> Any:
        """Sets the value (at the end of the program, if a trace is open) and returns it."""
        if isinstance(value, (bool, int, float)) and promote_scalar(self._spec.dtype, value) is self._spec.dtype:
            value = Tensor.of(value, self._spec.dtype)  # Python's numbers have no type of their own
        else:
            value = value.read() if isinstance(value, Operand) else Tensor.of(value)
        if value.shape != self._spec.shape:
            raise ShapeError(
                f"variable {self.path!r}: cannot assign a value of another shape",
                got=value.spec,
                expected=str(self._spec),
            )
        if value.dtype is not self._spec.dtype:
            if not holds_kind(self._spec.dtype, value.dtype):
                raise DTypeError(
                    f"variable {self.path!r}: cannot assign {value.dtype} to {self._spec.dtype}",
                    hint="cast the value first: ops.cast(value, variable.dtype)",
                )
            value = value.astype(self._spec.dtype)
        if trace.is_open() or isinstance(value, Symbol):
            symbol = trace.lift(value)
            trace.open_traces()[-1].update(self, symbol)
            return symbol
        backend = executor()
        self.set_handle(value.handle_on(backend), backend)
        return value

    def assign_add(self, value: Any) -> Any:
        return self.assign(self.master() + value)

    def assign_sub(self, value: Any) -> Any:
        return self.assign(self.master() - value)

    def handle_on(self, backend: Any) -> Any:
        """The backend's handle; the variable moves to the backend that uses it."""
        if backend is not self._backend:
            self.set_handle(backend.from_host(self._backend.to_host(self._handle)), backend)
        return self._handle

    def set_handle(self, handle: Any, backend: Any) -> None:
        """Replaces the data; for backends, which have checked shape and type."""
        self._handle = handle
        self._backend = backend
        _note_data()

    def numpy(self) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = self.master().numpy()
        return array

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the values themselves instead of a backend's handle."""
        with trace.suspended():
            return {**self.__dict__, "_handle": self.numpy().copy(), "_backend": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._backend = executor()
        self._handle = self._backend.from_host(state["_handle"])

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", not trainable"
        return f"<Variable {self.path}: {self._spec}{frozen}>"
