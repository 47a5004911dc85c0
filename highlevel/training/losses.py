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

from highlevel import ops, serialization
from highlevel.errors import ArgumentError, TargetError
from highlevel.ir import Spec, as_dtype, tree
from highlevel.serialization import FUNCTIONS, Configurable, names_of, snake_case

from . import loss_functions as functions
from .loss_functions import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    cosine_similarity,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)
from .targets import check_targets

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
    "align_weight",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "check_targets",
    "classification_kind",
    "cosine_similarity",
    "dice",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "masked_weight",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "reduce_values",
    "resolve_loss",
    "sparse_categorical_crossentropy",
    "spread",
    "squared_hinge",
    "tversky",
]

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
        y_pred = functions.as_float(y_pred)
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


class _Plain(Loss):
    """A loss without options of its own."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return type(self).function(y_true, y_pred)  # type: ignore[misc]


class MeanSquaredError(_Plain):
    """mean((y − p)²)"""

    targets = "values"
    aliases = ("mse", "MSE")
    function = mean_squared_error


class MeanAbsoluteError(_Plain):
    """mean(|y − p|)"""

    targets = "values"
    aliases = ("mae", "MAE")
    function = mean_absolute_error


class MeanAbsolutePercentageError(_Plain):
    """100 · mean(|y − p| / |y|)"""

    targets = "values"
    aliases = ("mape", "MAPE")
    function = mean_absolute_percentage_error


class MeanSquaredLogarithmicError(_Plain):
    """mean((log(1 + y) − log(1 + p))²)"""

    targets = "values"
    aliases = ("msle", "MSLE")
    function = mean_squared_logarithmic_error


class LogCosh(_Plain):
    """mean(log(cosh(p − y))): like squared error near 0, like absolute error far from it"""

    targets = "values"
    aliases = ("logcosh",)
    function = log_cosh


class Hinge(_Plain):
    """mean(max(1 − y p, 0)), targets −1 and 1 (or 0 and 1)"""

    targets = "values"
    function = hinge


class SquaredHinge(_Plain):
    """mean(max(1 − y p, 0)²), targets −1 and 1 (or 0 and 1)"""

    targets = "values"
    function = squared_hinge


class CategoricalHinge(_Plain):
    """max(1 + max((1 − y) p) − Σ y p, 0), targets one-hot"""

    targets = "categorical"
    function = categorical_hinge


class KLDivergence(_Plain):
    """Σ y log(y / p)"""

    targets = "values"
    aliases = ("kld", "KLD")
    function = kl_divergence


class Poisson(_Plain):
    """mean(p − y log p): negative log-likelihood of counts"""

    targets = "counts"
    function = poisson


class CosineSimilarity(Loss):
    """−cos of the angle between targets and outputs along `axis`"""

    targets = "values"

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return cosine_similarity(y_true, y_pred, axis=self.axis)


class Huber(Loss):
    """Squared error up to `delta`, absolute error beyond it"""

    targets = "values"
    aliases = ("huber_loss",)

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.delta = delta

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return huber(y_true, y_pred, delta=self.delta)


class _Crossentropy(Loss):
    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ArgumentError(f"{self.name}: label_smoothing is a share", got=label_smoothing, expected="0…1")
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        function: Any = type(self).function
        return function(
            y_true, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing, axis=self.axis
        )


class BinaryCrossentropy(_Crossentropy):
    """−mean(y log p + (1 − y) log(1 − p)): targets 0…1, one per output unit

    from_logits:     whether outputs are logits (then the sigmoid is part of the loss) or probabilities
    label_smoothing: targets move by this share towards ½
    """

    targets = "binary"
    aliases = ("bce", "BCE")
    function = binary_crossentropy


class CategoricalCrossentropy(_Crossentropy):
    """−Σ y log p: targets one-hot, or probabilities of classes along `axis`

    from_logits:     whether outputs are logits (then the softmax is part of the loss) or probabilities
    label_smoothing: targets move by this share towards the uniform distribution
    """

    targets = "categorical"
    function = categorical_crossentropy


class SparseCategoricalCrossentropy(Loss):
    """−log p[y]: targets are class numbers 0…classes − 1

    from_logits:  whether outputs are logits (then the softmax is part of the loss) or probabilities
    ignore_class: samples (or pixels) of this class number do not count
    axis:         axis of the classes in the outputs
    """

    targets = "sparse"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.ignore_class, self.axis)

    def valid(self, y_true: Any, y_pred: Any) -> Any:
        if self.ignore_class is None:
            return None
        return ops.not_equal(functions.sparse_labels(y_true, y_pred, self.axis), self.ignore_class)


class BinaryFocalCrossentropy(Loss):
    """Binary cross-entropy that counts easy samples less, by (1 − p_t)^gamma

    apply_class_balancing: weight class 1 with `alpha` and class 0 with 1 − `alpha`

    T.-Y. Lin et al., "Focal loss for dense object detection", 2017.
    """

    targets = "binary"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.options = {
            "apply_class_balancing": apply_class_balancing,
            "alpha": alpha,
            "gamma": gamma,
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
        }

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return binary_focal_crossentropy(y_true, y_pred, **self.options)


class CategoricalFocalCrossentropy(Loss):
    """Categorical cross-entropy that counts easy samples less, by (1 − p)^gamma; `alpha`: a number, or one per class

    T.-Y. Lin et al., "Focal loss for dense object detection", 2017.
    """

    targets = "categorical"

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.options = {
            "alpha": alpha,
            "gamma": gamma,
            "from_logits": from_logits,
            "label_smoothing": label_smoothing,
            "axis": axis,
        }

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_focal_crossentropy(y_true, y_pred, **self.options)


class CategoricalGeneralizedCrossEntropy(Loss):
    """(1 − p[y]^q) / q, robust against wrong labels; targets are class numbers"""

    targets = "sparse"

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0.0 < q < 1.0:
            raise ArgumentError("CategoricalGeneralizedCrossEntropy: q is out of range", got=q, expected="0 < q < 1")
        super().__init__(name, reduction, dtype)
        self.q = q

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_generalized_cross_entropy(y_true, y_pred, q=self.q)


class Dice(Loss):
    """1 − 2 Σ y p / (Σ y + Σ p): overlap of segmentations, over everything or over `axis`"""

    targets = "values"

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return dice(y_true, y_pred, axis=self.axis)


class Tversky(Loss):
    """Dice with separate weights for what is missed (alpha) and what is invented (beta)"""

    targets = "values"

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.alpha, self.beta, self.axis = alpha, beta, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return tversky(y_true, y_pred, self.alpha, self.beta, self.axis)


# By name ------------------------------------------------------------------------------------------------------------
def get(identifier: Any) -> Any:
    """A `Loss` for a name, a class, an object, a description or a function of (y_true, y_pred); None stays None.

    >>> get("mse"), get("sparse_categorical_crossentropy").from_logits
    (<MeanSquaredError 'mean_squared_error'>, False)
    """
    if isinstance(identifier, str) and identifier in names_of("loss"):
        return names_of("loss")[identifier]()
    loss = serialization.get(identifier, "loss")
    return loss if loss is None or isinstance(loss, Loss) else LossFunctionWrapper(loss)


def resolve_loss(identifier: Any, y_true: Spec, y_pred: Spec) -> Any:
    """As `get`; besides, "crossentropy" (or "ce") means the one that fits the shapes of targets and outputs."""
    if not isinstance(identifier, str) or identifier.lower() not in ("crossentropy", "ce"):
        return get(identifier)
    kind = classification_kind(y_true, y_pred)
    return {"binary": BinaryCrossentropy, "sparse": SparseCategoricalCrossentropy}.get(kind, CategoricalCrossentropy)()


def classification_kind(y_true: Spec, y_pred: Spec) -> str:
    """ "binary" (one output unit), "sparse" (targets are class numbers) or "categorical" (one-hot targets)."""
    if y_pred.shape[-1:] == (1,):
        return "binary"
    if y_true.ndim < y_pred.ndim or (y_true.shape[-1] == 1 and y_pred.shape[-1] > 1):
        return "sparse"
    return "categorical"
