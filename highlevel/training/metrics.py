"""Metrics: numbers that are gathered over batches. State is Variables, so they work eagerly and in traced steps.

    accuracy = SparseCategoricalAccuracy()
    accuracy.update_state(y_true, y_pred)      # once per batch
    accuracy.result()                          # so far
    accuracy.reset_state()

Like losses, metrics never broadcast: targets `(N,)` and outputs `(N, 1)` are aligned, all else is a `TargetError`.
"""

from __future__ import annotations

from typing import Any

from highlevel import ops, serialization
from highlevel.errors import ArgumentError
from highlevel.ir import Spec
from highlevel.serialization import FUNCTIONS, names_of, register_function

from . import loss_functions as losses
from .confusion import (
    AUC,
    F1Score,
    FalseNegatives,
    FalsePositives,
    FBetaScore,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from .loss import align_weight, spread
from .loss_functions import align, as_float, sparse_labels
from .metric import Mean, MeanMetricWrapper, MeanOf, Metric, Sum
from .targets import classification_kind

__all__ = [
    "AUC",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "get",
    "resolve_metric",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]


# Accuracies ---------------------------------------------------------------------------------------------------------
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether outputs equal targets."""
    y_true, y_pred = align(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred), "accuracy")
    return ops.cast(ops.equal(ops.cast(y_true, y_pred.dtype), y_pred), "float32")


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Whether outputs lie on the targets' side of the threshold."""
    y_true, y_pred = align(ops.convert_to_tensor(y_true), as_float(y_pred), "binary_accuracy")
    positive = ops.cast(ops.greater(y_pred, threshold), "float32")
    return ops.cast(ops.equal(ops.cast(y_true, "float32"), positive), "float32")


def categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest output is where the largest target is."""
    y_true, y_pred = _one_hot_pair(y_true, y_pred, "categorical_accuracy")
    return ops.cast(ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)), "float32")


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the largest output is that of the class numbered by the target."""
    y_pred = as_float(y_pred)
    labels = sparse_labels(y_true, y_pred, name="sparse_categorical_accuracy")
    return ops.cast(ops.equal(labels, ops.cast(ops.argmax(y_pred, axis=-1), "int32")), "float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Any:
    """Whether the largest target is among the k largest outputs."""
    y_true, y_pred = _one_hot_pair(y_true, y_pred, "top_k_categorical_accuracy")
    return _in_top_k(ops.argmax(y_true, axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Any:
    """Whether the target's class is among the k largest outputs (or the first k, if outputs are class numbers)."""
    y_pred = ops.convert_to_tensor(y_pred)
    labels = sparse_labels(y_true, y_pred, name="sparse_top_k_categorical_accuracy")
    if from_sorted_ids:
        hits = ops.equal(ops.expand_dims(labels, -1), ops.cast(y_pred[..., :k], "int32"))
        return ops.cast(ops.any(hits, axis=-1), "float32")
    return _in_top_k(labels, y_pred, k)


def _one_hot_pair(y_true: Any, y_pred: Any, name: str) -> tuple[Any, Any]:
    y_true, y_pred = ops.convert_to_tensor(y_true), as_float(y_pred)
    if y_true.shape != y_pred.shape:
        raise losses.misaligned(name, y_true.spec, y_pred.spec)
    return y_true, y_pred


def _in_top_k(labels: Any, y_pred: Any, k: int) -> Any:
    """Whether fewer than k outputs are larger than that of the label; NaN and infinity there count as wrong."""
    own = ops.take_along_axis(y_pred, ops.expand_dims(ops.cast(labels, "int32"), -1), axis=-1)
    larger = ops.sum(ops.cast(ops.greater(y_pred, own), "int32"), axis=-1)
    return ops.cast(ops.logical_and(larger < k, ops.isfinite(own[..., 0])), "float32")


class Accuracy(MeanOf):
    """Share of outputs that equal their targets."""

    direction = "up"
    function = accuracy


class BinaryAccuracy(MeanOf):
    """Share of outputs on the targets' (0 or 1) side of `threshold`."""

    direction = "up"
    function = binary_accuracy

    def __init__(self, name: str = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(name, dtype)
        if not 0.0 <= threshold <= 1.0:
            raise ArgumentError("BinaryAccuracy: the threshold is out of range", got=threshold, expected="0…1")
        self.options = {"threshold": threshold}


class CategoricalAccuracy(MeanOf):
    """Share of samples whose largest output is that of the one-hot target's class."""

    direction = "up"
    function = categorical_accuracy


class SparseCategoricalAccuracy(MeanOf):
    """Share of samples whose largest output is that of the class numbered by the target."""

    direction = "up"
    function = sparse_categorical_accuracy


class TopKCategoricalAccuracy(MeanOf):
    """Share of samples whose class (one-hot) is among the k largest outputs."""

    direction = "up"
    function = top_k_categorical_accuracy

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.options = {"k": k}


class SparseTopKCategoricalAccuracy(MeanOf):
    """Share of samples whose class (a number) is among the k largest outputs."""

    direction = "up"
    function = sparse_top_k_categorical_accuracy

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.options = {"k": k, "from_sorted_ids": from_sorted_ids}


# Losses as metrics --------------------------------------------------------------------------------------------------
class MeanSquaredError(MeanOf):
    """mean((y − p)²)"""

    aliases = ("mse", "MSE")
    direction = "down"
    function = losses.mean_squared_error


class RootMeanSquaredError(MeanOf):
    """√mean((y − p)²)"""

    aliases = ("rmse", "RMSE")
    direction = "down"

    def values(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = align(ops.convert_to_tensor(y_true), as_float(y_pred), self.name)
        return ops.square(y_pred - ops.cast(y_true, y_pred.dtype))

    def result(self) -> Any:
        return ops.sqrt(super().result())


class MeanAbsoluteError(MeanOf):
    """mean(|y − p|)"""

    aliases = ("mae", "MAE")
    direction = "down"
    function = losses.mean_absolute_error


class MeanAbsolutePercentageError(MeanOf):
    """100 · mean(|y − p| / |y|)"""

    aliases = ("mape", "MAPE")
    direction = "down"
    function = losses.mean_absolute_percentage_error


class MeanSquaredLogarithmicError(MeanOf):
    """mean((log(1 + y) − log(1 + p))²)"""

    aliases = ("msle", "MSLE")
    direction = "down"
    function = losses.mean_squared_logarithmic_error


class LogCoshError(MeanOf):
    """mean(log(cosh(p − y)))"""

    direction = "down"
    function = losses.log_cosh

    def __init__(self, name: str = "logcosh", dtype: Any = None) -> None:
        super().__init__(name, dtype)


class CosineSimilarity(MeanOf):
    """Mean cosine of the angle between targets and outputs along `axis`; 1 for the same direction, unlike the loss."""

    direction = "up"

    def __init__(self, name: str = "cosine_similarity", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(name, dtype)
        self.axis = axis

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return -losses.cosine_similarity(y_true, y_pred, self.axis)


class KLDivergence(MeanOf):
    """Mean of Σ y log(y / p)."""

    aliases = ("kld", "KLD")
    direction = "down"
    function = losses.kl_divergence

    def __init__(self, name: str = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(name, dtype)


class Poisson(MeanOf):
    """Mean of p − y log p."""

    direction = "down"
    function = losses.poisson


class Hinge(MeanOf):
    """Mean of max(1 − y p, 0)."""

    direction = "down"
    function = losses.hinge


class SquaredHinge(MeanOf):
    """Mean of max(1 − y p, 0)²."""

    direction = "down"
    function = losses.squared_hinge


class CategoricalHinge(MeanOf):
    """Mean of max(1 + max((1 − y) p) − Σ y p, 0)."""

    direction = "down"
    function = losses.categorical_hinge


class BinaryCrossentropy(MeanOf):
    """Mean binary cross-entropy."""

    aliases = ("bce", "BCE")
    direction = "down"
    function = losses.binary_crossentropy

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(name, dtype)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing}


class CategoricalCrossentropy(MeanOf):
    """Mean cross-entropy with one-hot targets."""

    direction = "down"
    function = losses.categorical_crossentropy

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}


class SparseCategoricalCrossentropy(Mean):
    """Mean cross-entropy with class numbers as targets; samples of `ignore_class` do not count, as in the loss."""

    direction = "down"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        y_pred = as_float(y_pred)
        values = losses.sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.ignore_class, self.axis)
        if self.ignore_class is not None:
            valid = ops.not_equal(sparse_labels(y_true, y_pred, self.axis), self.ignore_class)
            weight = ops.cast(valid, self.dtype)
            if sample_weight is not None:
                weight = weight * spread(ops.cast(align_weight(sample_weight, weight), self.dtype), weight)
            sample_weight = weight
        super().update_state(values, sample_weight)


# By name ------------------------------------------------------------------------------------------------------------
for _accuracy in (
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    top_k_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
):
    register_function("metric", _accuracy)


def get(identifier: Any) -> Any:
    """A `Metric` for a name, a class, an object, a description or a function of (y_true, y_pred); None stays None.

    >>> get("mae"), get("auc").num_thresholds
    (<MeanAbsoluteError 'mean_absolute_error'>, 200)
    """
    words = names_of("metric")
    if isinstance(identifier, str) and identifier in words:
        return words[identifier]()
    if isinstance(identifier, str) and identifier in FUNCTIONS["loss"]:
        return MeanMetricWrapper(identifier)
    metric = serialization.get(identifier, "metric")
    return metric if metric is None or isinstance(metric, Metric) else MeanMetricWrapper(metric)


def resolve_metric(identifier: Any, y_true: Spec, y_pred: Spec) -> Any:
    """As `get`, with the name that was asked for; "accuracy" (or "acc") means the one that fits the shapes.

    >>> from highlevel.ir import spec
    >>> resolve_metric("accuracy", spec((8,), "int64"), spec((8, 10)))
    <SparseCategoricalAccuracy 'accuracy'>
    """
    if isinstance(identifier, str) and identifier.lower() in ("accuracy", "acc"):
        kind = classification_kind(y_true.shape, y_pred.shape)
        kinds: dict[str, Any] = {"binary": BinaryAccuracy, "sparse": SparseCategoricalAccuracy}
        metric = kinds.get(kind, CategoricalAccuracy)(name=identifier)
    else:
        metric = get(identifier)
        if isinstance(identifier, str):
            metric.name = identifier
    return metric
