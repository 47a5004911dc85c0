"""Metrics made of true and false positives and negatives: precision, recall, F scores, areas under curves.

A prediction is positive for a threshold if it is larger. All thresholds are served by one histogram: predictions
fall into buckets between thresholds, and sums over the buckets above a threshold are its positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel import ops
from highlevel.errors import ArgumentError, TargetError
from highlevel.ir import Variable

from .loss import align_weight, spread
from .loss_functions import EPSILON, align, as_float
from .metric import Metric

BELOW_ALL = -1e10  # the threshold that everything but filtered predictions exceeds

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


class Thresholds:
    """Thresholds in rising order, and the counts at each of them."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = np.sort(np.asarray(values, np.float64))
        self.order = np.argsort(np.argsort(np.asarray(values), kind="stable"), kind="stable")  # back to the given order
        even = np.linspace(0.0, 1.0, len(values))
        self.even = len(values) > 2 and bool(np.allclose(self.values, even, atol=2 * EPSILON))
        self.wide = self.even and (self.values[0] < 0.0 or self.values[-1] > 1.0)

    def __len__(self) -> int:
        return len(self.values)

    def bucket(self, y_pred: Any) -> Any:
        """How many thresholds each prediction exceeds."""
        if not self.even:
            above = ops.greater(ops.expand_dims(y_pred, -1), self.values.astype(np.float32))
            return ops.sum(ops.cast(above, "int32"), axis=-1)
        steps = ops.ceil(ops.clip(y_pred, 0.0, 1.0) * float(len(self) - 1))
        return ops.cast(ops.maximum(steps, 1.0) if self.wide else steps, "int32")

    def above(self, weight: Any, bucket: Any, labels: int) -> Any:
        """Sums of the weights of predictions above each threshold: (thresholds, labels)."""
        label = ops.arange(weight.size, dtype="int32") % labels
        segments = ops.reshape(bucket, (-1,)) * labels + label
        sums = ops.segment_sum(ops.reshape(weight, (-1,)), segments, num_segments=(len(self) + 1) * labels)
        sums = ops.reshape(sums, (len(self) + 1, labels))
        totals = ops.flip(ops.cumsum(ops.flip(sums, axis=0), axis=0), axis=0)[1:]
        return totals[self.order] if np.any(np.diff(self.order) < 0) else totals


def confusion_counts(
    y_true: Any,
    y_pred: Any,
    thresholds: Thresholds,
    sample_weight: Any = None,
    *,
    labels: int = 1,
    label_weights: Any = None,
    top_k: int | None = None,
    class_id: int | None = None,
    name: str = "metric",
) -> dict[str, Any]:
    """Weighted numbers of true and false positives and negatives at each threshold, for each of `labels` columns."""
    y_true, y_pred = align(ops.convert_to_tensor(y_true), ops.cast(as_float(y_pred), "float32"), name)
    weight = ops.ones_like(y_pred)
    if sample_weight is not None:
        weight = spread(ops.cast(align_weight(sample_weight, y_pred), "float32"), y_pred)
    if label_weights is not None:
        weight = weight * ops.cast(label_weights, "float32")
    if top_k is not None:
        y_pred = _only_top(y_pred, top_k)
    if class_id is not None:
        if y_pred.ndim < 2 or not 0 <= class_id < y_pred.shape[-1]:
            raise TargetError(
                f"{name}: class_id is not a column of the outputs", got=f"{class_id}, outputs {y_pred.spec}"
            )
        y_true, y_pred, weight = y_true[..., class_id], y_pred[..., class_id], weight[..., class_id]
    is_true = ops.cast(ops.not_equal(y_true, 0), "float32")
    bucket = thresholds.bucket(y_pred)
    true_weight, false_weight = is_true * weight, (1.0 - is_true) * weight
    tp, fp = thresholds.above(true_weight, bucket, labels), thresholds.above(false_weight, bucket, labels)
    trues = ops.sum(ops.reshape(true_weight, (-1, labels)), axis=0)
    falses = ops.sum(ops.reshape(false_weight, (-1, labels)), axis=0)
    return dict(zip(COUNTS, (tp, fp, falses - fp, trues - tp), strict=True))


def _only_top(y_pred: Any, k: int) -> Any:
    """All but the k largest outputs of a sample replaced by a value below every threshold."""
    _, indices = ops.top_k(y_pred, k)
    kept = ops.any(ops.equal(ops.expand_dims(indices, -1), ops.arange(y_pred.shape[-1], dtype="int32")), axis=-2)
    return ops.where(kept, y_pred, BELOW_ALL)


def _given(thresholds: Any, default: float) -> list[float]:
    values = [default] if thresholds is None else list(np.atleast_1d(np.asarray(thresholds, np.float64)))
    if thresholds is not None and not all(0.0 <= value <= 1.0 for value in values):
        raise ArgumentError("thresholds are out of range", got=thresholds, expected="0…1")
    return [float(value) for value in values]


class _Counting(Metric):
    """Gathers some of the four counts, at each threshold."""

    counts: tuple[str, ...] = COUNTS

    def _make_counts(self, thresholds: Sequence[float], top_k: int | None = None, class_id: int | None = None) -> None:
        self._thresholds = Thresholds(thresholds)
        self.top_k, self.class_id = top_k, class_id
        self._state = {name: self.add_variable((len(thresholds),), name=name) for name in self.counts}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        found = confusion_counts(
            y_true, y_pred, self._thresholds, sample_weight, top_k=self.top_k, class_id=self.class_id, name=self.name
        )
        for name, variable in self._state.items():
            variable.assign_add(found[name][:, 0])

    def _ratio(self, part: str, rest: str) -> Any:
        return share(self._state[part].read(), self._state[rest].read())

    def _single(self, values: Any) -> Any:
        return values[0] if len(self._thresholds) == 1 else values


def share(part: Any, rest: Any) -> Any:
    """part / (part + rest); 0 where there is nothing"""
    return ops.divide_no_nan(part, part + rest)


class _Count(_Counting):
    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self._make_counts(_given(thresholds, 0.5))

    def result(self) -> Any:
        return self._single(self._state[self.counts[0]].read())


class TruePositives(_Count):
    """Number of true positives, at each threshold."""

    counts = ("true_positives",)


class FalsePositives(_Count):
    """Number of false positives, at each threshold."""

    counts = ("false_positives",)


class TrueNegatives(_Count):
    """Number of true negatives, at each threshold."""

    counts = ("true_negatives",)


class FalseNegatives(_Count):
    """Number of false negatives, at each threshold."""

    counts = ("false_negatives",)


class _Retrieval(_Counting):
    direction = "up"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        self._make_counts(_given(thresholds, 0.5 if top_k is None else BELOW_ALL), top_k, class_id)

    def result(self) -> Any:
        return self._single(self._ratio(*self.counts))


class Precision(_Retrieval):
    """tp / (tp + fp): which part of what is predicted is right

    thresholds: one (½ by default) or several; the result has one value for each
    top_k:      only the k largest outputs of a sample are predictions
    class_id:   looks at one column of targets and outputs
    """

    counts = ("true_positives", "false_positives")


class Recall(_Retrieval):
    """tp / (tp + fn): which part of what is there is found; arguments as for `Precision`"""

    counts = ("true_positives", "false_negatives")


class _BestUnder(_Counting):
    """The best value of one ratio at the thresholds where another reaches a bound."""

    direction = "up"
    wanted: tuple[str, str]
    bounded: tuple[str, str]

    def _bound(self, value: float, num_thresholds: int, class_id: int | None) -> None:
        if not 0.0 <= value <= 1.0:
            raise ArgumentError(f"{self.name}: the bound is a share", got=value, expected="0…1")
        if num_thresholds < 1:
            raise ArgumentError(f"{self.name}: num_thresholds", got=num_thresholds, expected="at least 1")
        self.bound, self.num_thresholds = value, num_thresholds
        even = np.linspace(0.0, 1.0, num_thresholds)
        self._make_counts([0.5] if num_thresholds == 1 else list(even), class_id=class_id)

    def result(self) -> Any:
        reached = ops.greater_equal(self._ratio(*self.bounded), self.bound)
        return ops.max(ops.where(reached, self._ratio(*self.wanted), 0.0))


class SensitivityAtSpecificity(_BestUnder):
    """The best tp / (tp + fn) where tn / (tn + fp) ≥ specificity"""

    wanted, bounded = ("true_positives", "false_negatives"), ("true_negatives", "false_positives")

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str = "sensitivity_at_specificity",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        self._bound(specificity, num_thresholds, class_id)


class SpecificityAtSensitivity(_BestUnder):
    """The best tn / (tn + fp) where tp / (tp + fn) ≥ sensitivity"""

    wanted, bounded = ("true_negatives", "false_positives"), ("true_positives", "false_negatives")

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str = "specificity_at_sensitivity",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        self._bound(sensitivity, num_thresholds, class_id)


class PrecisionAtRecall(_BestUnder):
    """The best tp / (tp + fp) where tp / (tp + fn) ≥ recall"""

    wanted, bounded = ("true_positives", "false_positives"), ("true_positives", "false_negatives")

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str = "precision_at_recall",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        self._bound(recall, num_thresholds, class_id)


class RecallAtPrecision(_BestUnder):
    """The best tp / (tp + fn) where tp / (tp + fp) ≥ precision"""

    wanted, bounded = ("true_positives", "false_negatives"), ("true_positives", "false_positives")

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str = "recall_at_precision",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        self._bound(precision, num_thresholds, class_id)


class AUC(Metric):
    """Area under a curve over all thresholds, from `num_thresholds` points of it

    curve:            "ROC" (recall over false-positive rate), "PR" (precision over recall) or "PRGAIN"
    summation_method: "interpolation", "minoring" or "majoring" rectangles
    thresholds:       instead of evenly spaced ones
    multi_label:      the mean of the areas of each output column (weighted by `label_weights`), not of all together
    from_logits:      whether outputs are logits

    J. Davis and M. Goadrich, "The relationship between precision-recall and ROC curves", 2006 (interpolation of PR).
    """

    direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(dtype, name)
        self.curve, self.summation_method = curve.upper(), summation_method.lower()
        if self.curve not in ("ROC", "PR", "PRGAIN"):
            raise ArgumentError("AUC: unknown curve", got=repr(curve), expected="'ROC', 'PR' or 'PRGAIN'")
        if self.summation_method not in ("interpolation", "minoring", "majoring"):
            expected = "'interpolation', 'minoring' or 'majoring'"
            raise ArgumentError("AUC: unknown summation_method", got=repr(summation_method), expected=expected)
        if num_thresholds < 2:
            raise ArgumentError("AUC: num_thresholds", got=num_thresholds, expected="at least 2")
        inner = sorted(thresholds) if thresholds is not None else list(np.linspace(0.0, 1.0, num_thresholds)[1:-1])
        self._thresholds = Thresholds([-EPSILON, *inner, 1.0 + EPSILON])
        self.num_thresholds = len(self._thresholds)
        self.multi_label, self.label_weights, self.from_logits = multi_label, label_weights, from_logits
        self._state: dict[str, Variable] = {}
        if num_labels and not multi_label:
            raise ArgumentError("AUC: num_labels is for multi_label=True", got=num_labels)
        if num_labels or not multi_label:
            self._build(num_labels or 1)

    def _build(self, labels: int) -> None:
        self._state = {name: self.add_variable((self.num_thresholds, labels), name=name) for name in COUNTS}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = as_float(y_pred)
        if self.multi_label and y_pred.ndim != 2:
            raise TargetError(
                "AUC: multi_label needs one column per label", got=f"outputs {y_pred.spec}", expected="rank 2"
            )
        labels = y_pred.shape[-1] if self.multi_label else 1
        if not self._state:
            self._build(labels)
        found = confusion_counts(
            y_true,
            ops.sigmoid(y_pred) if self.from_logits else y_pred,
            self._thresholds,
            sample_weight,
            labels=labels,
            label_weights=None if self.multi_label else self.label_weights,
            name=self.name,
        )
        for name, variable in self._state.items():
            variable.assign_add(found[name])

    def result(self) -> Any:
        if not self._state:
            return ops.full((), 0.0, dtype="float32")
        tp, fp, tn, fn = (self._state[name].read() for name in COUNTS)
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = _interpolated_precision_recall(tp, fp, fn)
        else:
            x, y = _curve(self.curve, tp, fp, tn, fn)
            left, right = y[:-1], y[1:]
            methods = {"interpolation": lambda: (left + right) / 2.0, "minoring": lambda: ops.minimum(left, right)}
            heights = methods.get(self.summation_method, lambda: ops.maximum(left, right))()
            areas = ops.sum((x[:-1] - x[1:]) * heights, axis=0)
        if self.multi_label and self.label_weights is not None:
            weights = ops.convert_to_tensor(self.label_weights, dtype="float32")
            return ops.divide_no_nan(ops.sum(areas * weights), ops.sum(weights))
        return ops.mean(areas)


def _curve(curve: str, tp: Any, fp: Any, tn: Any, fn: Any) -> tuple[Any, Any]:
    """x and y of the points of a curve."""
    recall = share(tp, fn)
    if curve == "ROC":
        return share(fp, tn), recall
    if curve == "PR":
        return recall, share(tp, fp)
    odds = ops.divide_no_nan(tp + fn, tn + fp)
    none = ops.equal(tp, 0.0)
    recall_gain = ops.where(none, 0.0, 1.0 - odds * ops.divide_no_nan(fn, tp))
    precision_gain = ops.where(none, 1.0, 1.0 - odds * ops.divide_no_nan(fp, tp))
    return ops.maximum(recall_gain, 0.0), precision_gain


def _interpolated_precision_recall(tp: Any, fp: Any, fn: Any) -> Any:
    """The area under the precision-recall curve; between points, false positives grow in proportion to true ones."""
    predicted = tp + fp
    new_true, new = tp[:-1] - tp[1:], predicted[:-1] - predicted[1:]
    slope = ops.divide_no_nan(new_true, ops.maximum(new, 0.0))
    intercept = tp[1:] - slope * predicted[1:]
    both = ops.logical_and(predicted[:-1] > 0.0, predicted[1:] > 0.0)
    ratio = ops.where(both, ops.divide_no_nan(predicted[:-1], ops.maximum(predicted[1:], 0.0)), 1.0)
    areas = ops.divide_no_nan(slope * (new_true + intercept * ops.log(ratio)), ops.maximum(tp[1:] + fn[1:], 0.0))
    return ops.sum(areas, axis=0)


class FBetaScore(Metric):
    """(1 + β²) · precision · recall / (β² · precision + recall), of each class

    average:   None for one value per class, "micro" (all together), "macro" (mean) or "weighted" (by frequency)
    threshold: outputs above it are positive; None: the largest output of a sample is
    """

    aliases = ("fbeta_score",)
    direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(dtype, name)
        if average not in (None, "micro", "macro", "weighted"):
            expected = "None, 'micro', 'macro' or 'weighted'"
            raise ArgumentError(f"{name}: unknown average", got=repr(average), expected=expected)
        if beta <= 0.0:
            raise ArgumentError(f"{name}: beta has to be positive", got=beta)
        if threshold is not None and not 0.0 < threshold <= 1.0:
            raise ArgumentError(f"{name}: the threshold is out of range", got=threshold, expected="0 < threshold ≤ 1")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._state: dict[str, Variable] = {}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = align(
            ops.cast(ops.convert_to_tensor(y_true), "float32"), ops.cast(y_pred, "float32"), self.name
        )
        if y_pred.ndim != 2:
            raise TargetError(f"{self.name}: one row per sample, one column per class", got=f"outputs {y_pred.spec}")
        if not self._state:
            shape = () if self.average == "micro" else (y_pred.shape[-1],)
            names = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")
            self._state = {name: self.add_variable(shape, name=name) for name in names}
        if self.threshold is None:
            largest = ops.max(y_pred, axis=-1, keepdims=True)
            y_pred = ops.logical_and(y_pred >= largest, ops.abs(y_pred) > 1e-9)
        else:
            y_pred = y_pred > self.threshold
        y_pred = ops.cast(y_pred, "float32")
        parts = (y_pred * y_true, y_pred * (1.0 - y_true), (1.0 - y_pred) * y_true, y_true)
        for variable, part in zip(self._state.values(), parts, strict=True):
            if sample_weight is not None:
                part = part * spread(ops.cast(align_weight(sample_weight, part), "float32"), part)
            variable.assign_add(ops.sum(part, axis=None if self.average == "micro" else 0))

    def result(self) -> Any:
        if not self._state:
            return ops.full((), 0.0, dtype="float32")
        tp, fp, fn, frequency = (variable.read() for variable in self._state.values())
        precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
        square = self.beta * self.beta
        score = (1.0 + square) * (precision * recall / (square * precision + recall + EPSILON))
        if self.average == "weighted":
            return ops.sum(score * (frequency / (ops.sum(frequency) + EPSILON)))
        return score if self.average is None else ops.mean(score)


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall; arguments as for `FBetaScore`"""

    aliases = ("f1_score",)

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average=average, threshold=threshold, name=name, dtype=dtype)
