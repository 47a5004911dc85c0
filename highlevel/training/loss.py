"""Losses as objects: `loss(y_true, y_pred, sample_weight=None, mask=None)` gives the number to minimize.

A loss is its function (see `loss_functions`) and a reduction:

    "sum_over_batch_size"      the mean over all values (also "mean"); masked values do not count
    "mean_with_sample_weight"  the weighted sum divided by the sum of the weights
    "sum"                      the sum
    None                       no reduction: one value per sample

Weights apply to samples (`(batch,)`), or to the leading axes of the loss values; like targets, they never broadcast
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from highlevel import ops
from highlevel.errors import ArgumentError, TargetError
from highlevel.ir import as_dtype, tree
from highlevel.serialization import FUNCTIONS, Configurable, snake_case

from .loss_functions import as_float

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None)


# Weights, masks and reductions --------------------------------------------------------------------------------------
def align_weight(weight: Any, values: Any, name: str = "sample_weight") -> Any:
    """A weight (or mask) whose shape is a beginning of the values' shape, trailing axes of size 1 dropped."""
    weight = ops.convert_to_tensor(weight)
    shape = weight.shape
    while shape and shape != values.shape[: len(shape)] and shape[-1] == 1:
        shape = shape[:-1]
    if shape != values.shape[: len(shape)]:
        raise TargetError(
            f"{name}: the weights do not fit the loss values",
            got=f"{weight.spec} for values of shape {values.shape}",
            expected=f"one weight per sample {values.shape[:1]}, or one per value {values.shape}",
            hint="weights belong to samples, not to outputs: the last axis has been reduced already"
            if weight.ndim > values.ndim
            else None,
        )
    return ops.reshape(weight, shape)


def spread(weight: Any, values: Any) -> Any:
    """An aligned weight in the shape of the values."""
    return ops.broadcast_to(ops.reshape(weight, weight.shape + (1,) * (values.ndim - weight.ndim)), values.shape)


def masked_weight(sample_weight: Any, mask: Any) -> Any:
    """Sample weights with the masked samples' weights set to 0; either may be None."""
    if mask is None:
        return sample_weight
    mask = ops.cast(ops.convert_to_tensor(mask), "float32")
    if sample_weight is None:
        return mask
    weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    if weight.ndim > mask.ndim:
        return weight * spread(align_weight(mask, weight, "mask"), weight)
    return mask * spread(align_weight(weight, mask), mask)


def reduce_values(values: Any, sample_weight: Any = None, mask: Any = None, reduction: str | None = "mean") -> Any:
    """Weighted loss values, reduced."""
    weight = None
    if mask is not None:
        mask = ops.cast(align_weight(mask, values, "mask"), values.dtype)
        weight = spread(mask, values)
        if reduction in ("mean", "sum_over_batch_size"):  # the mean is over what is not masked
            weight = weight * ops.divide_no_nan(ops.full((), float(mask.size), dtype=values.dtype), ops.sum(mask))
    if sample_weight is not None:
        given = spread(ops.cast(align_weight(sample_weight, values), values.dtype), values)
        weight = given if weight is None else given * weight
    if weight is not None:
        values = values * weight
    if reduction is None or values.ndim == 0:
        return values
    total = ops.sum(values)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weight is not None:
        return ops.divide_no_nan(total, ops.sum(weight))
    return total / max(values.size, 1)


# Loss objects -------------------------------------------------------------------------------------------------------
class Loss(Configurable, kind="loss"):
    """Base of losses: `call(y_true, y_pred)` gives one value per sample, this class weights and reduces them.

    name, reduction: see above
    dtype:           type in which the loss is computed; by default the outputs' own, but at least float32

    >>> import numpy as np
    >>> class MeanFourthPower(Loss):
    ...     def call(self, y_true, y_pred):
    ...         return ops.mean((y_true - y_pred) ** 4, axis=-1)
    >>> float(MeanFourthPower()(np.zeros((2, 2)), np.array([[1.0, 1.0], [0.0, 2.0]])))
    4.5
    """

    function: ClassVar[Callable[..., Any] | None] = None
    targets: ClassVar[str | None] = None  # "values", "binary", "categorical", "sparse" or "counts"; see `check_targets`

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.reduction = None if reduction == "none" else reduction
        self.dtype = None if dtype is None else as_dtype(dtype)
        if self.reduction not in REDUCTIONS:
            raise ArgumentError(
                f"{self.name}: unknown reduction", got=repr(reduction), expected=", ".join(map(repr, REDUCTIONS))
            )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define call(y_true, y_pred)")

    def valid(self, y_true: Any, y_pred: Any) -> Any:
        """A mask of the values that count, or None for all."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None) -> Any:
        y_true = tree.map(ops.convert_to_tensor, y_true)
        y_pred = tree.map(self._in_loss_type, y_pred)
        values = self.call(y_true, y_pred)
        valid = self.valid(y_true, y_pred)
        if mask is not None and valid is not None:
            mask = ops.logical_and(spread(align_weight(ops.cast(mask, "bool"), valid, "mask"), valid), valid)
        return reduce_values(values, sample_weight, valid if mask is None else mask, self.reduction)

    def _in_loss_type(self, y_pred: Any) -> Any:
        y_pred = as_float(y_pred)
        dtype = self.dtype or ("float32" if y_pred.dtype.size_bytes < 4 else y_pred.dtype)
        return ops.cast(y_pred, dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class LossFunctionWrapper(Loss):
    """A function `fn(y_true, y_pred, **options)` with one value per sample as a loss."""

    open_arguments = True

    def __init__(
        self,
        fn: Callable[..., Any] | str,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        self.fn: Callable[..., Any] = FUNCTIONS["loss"][fn] if isinstance(fn, str) else fn
        super().__init__(name or getattr(self.fn, "__name__", None), reduction, dtype)
        self.options = options

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.fn(y_true, y_pred, **self.options)
