"""What metrics are made of: state, and means and sums of values over batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from highlevel import initializers, ops
from highlevel.ir import Variable, as_dtype, trace
from highlevel.serialization import FUNCTIONS, Configurable, snake_case

from .loss import align_weight


class Metric(Configurable, kind="metric"):
    """Base of metrics: make state with `add_variable`, then define `update_state` and `result`.

    direction: "up" if larger is better, "down" if smaller is, None if that is not known
    """

    direction: ClassVar[str | None] = None

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.dtype = as_dtype(dtype or "float32")
        self._variables: list[Variable] = []

    def add_variable(
        self, shape: tuple[int, ...] = (), initializer: Any = "zeros", dtype: Any = None, name: str = "state"
    ) -> Variable:
        """State of the metric; `reset_state` sets it to zero."""
        with trace.suspended():  # metrics may be made in the middle of a traced step
            value = np.asarray(initializers.get(initializer)(tuple(shape), dtype=as_dtype(dtype or self.dtype)))
        variable = Variable(value, trainable=False, name=name, path=f"{self.name}/{name}")
        self._variables.append(variable)
        return variable

    add_weight = add_variable

    @property
    def variables(self) -> list[Variable]:
        return list(self._variables)

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define update_state")

    def result(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define result")

    def reset_state(self) -> None:
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype.numpy))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


# Means and sums -----------------------------------------------------------------------------------------------------
def _per_sample(values: Any, sample_weight: Any, reduce: Callable[..., Any], dtype: Any) -> tuple[Any, Any]:
    """Weighted values and weights, both reduced to one number per sample."""
    values = ops.cast(values, dtype)
    if sample_weight is not None:
        weight = ops.cast(align_weight(sample_weight, values), dtype)
        rest = tuple(range(weight.ndim, values.ndim))
        values = (reduce(values, axis=rest) if rest else values) * weight
        sample_weight = reduce(weight, axis=tuple(range(1, weight.ndim))) if weight.ndim > 1 else weight
    if values.ndim > 1:
        values = reduce(values, axis=tuple(range(1, values.ndim)))
    return values, sample_weight


class Sum(Metric):
    """The (weighted) sum of all values."""

    def __init__(self, name: str = "sum", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, _ = _per_sample(ops.convert_to_tensor(values), sample_weight, ops.sum, self.dtype)
        self.total.assign_add(ops.sum(values))

    def result(self) -> Any:
        return self.total.read()


class Mean(Metric):
    """The (weighted) mean of all values; 0 before there are any."""

    def __init__(self, name: str = "mean", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values, weight = _per_sample(ops.convert_to_tensor(values), sample_weight, ops.mean, self.dtype)
        self.total.assign_add(ops.sum(values))
        self.count.assign_add(ops.sum(weight) if weight is not None else float(values.shape[0] if values.ndim else 1))

    def result(self) -> Any:
        return ops.divide_no_nan(self.total.read(), self.count.read())


class MeanOf(Mean):
    """The mean of what `function(y_true, y_pred, **options)` gives for each sample."""

    function: ClassVar[Callable[..., Any]]
    options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name or snake_case(type(self).__name__), dtype)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return type(self).function(y_true, y_pred, **self.options)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        super().update_state(self.values(y_true, y_pred), sample_weight)


class MeanMetricWrapper(MeanOf):
    """The mean of a function `fn(y_true, y_pred, **options)` with one value per sample."""

    open_arguments = True

    def __init__(
        self, fn: Callable[..., Any] | str, name: str | None = None, dtype: Any = None, **options: Any
    ) -> None:
        self.fn: Callable[..., Any] = (FUNCTIONS["metric"] | FUNCTIONS["loss"])[fn] if isinstance(fn, str) else fn
        super().__init__(name or getattr(self.fn, "__name__", "mean"), dtype)
        self.options = options

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self.options)
