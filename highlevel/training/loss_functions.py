"""Losses as functions: `f(y_true, y_pred)`, with one value per sample. Names and numerics are Keras's.

None of them broadcasts. Labels `(N,)` against outputs `(N, 1)` are aligned; every other difference is a
`TargetError`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from highlevel import ops
from highlevel.errors import TargetError
from highlevel.ir import Spec
from highlevel.serialization import register_function

EPSILON = 1e-7


# Shapes -------------------------------------------------------------------------------------------------------------
def aligned_shape(y_true: tuple[int, ...], y_pred: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that both are reshaped to, or None if they do not fit.

    Equal shapes fit; a last axis of size 1 that only one of the two has is added to vectors and dropped otherwise.
    """
    if y_true == y_pred:
        return y_true
    short, long = sorted((y_true, y_pred), key=len)
    if (*short, 1) != long:
        return None
    return long if len(short) == 1 else short


def align(y_true: Any, y_pred: Any, name: str = "loss") -> tuple[Any, Any]:
    """Targets and outputs in one shape; a `TargetError` where NumPy would have broadcast."""
    shape = aligned_shape(y_true.shape, y_pred.shape)
    if shape is None:
        raise misaligned(name, y_true.spec, y_pred.spec)
    return ops.reshape(y_true, shape), ops.reshape(y_pred, shape)


def misaligned(name: str, y_true: Spec, y_pred: Spec) -> TargetError:
    """The error for targets and outputs of different shapes, with the likeliest cure."""
    hint = None
    classes = y_pred.shape[-1] if y_pred.shape else 0
    if y_true.shape in (y_pred.shape[:-1], (*y_pred.shape[:-1], 1)) and classes > 1:
        if not name.startswith("sparse"):
            hint = f"targets that are class numbers go with sparse_categorical_crossentropy ({classes} classes)"
    elif y_true.shape[:-1] == y_pred.shape[:-1] and y_true.ndim > 0:
        hint = f"the head has {classes} units, the targets {y_true.shape[-1]} values: they have to be as many"
    elif y_true.shape[:1] != y_pred.shape[:1]:
        hint = "the numbers of samples differ"
    expected = f"targets of shape {y_pred.shape}" + (f" or {y_pred.shape[:-1]}" if classes == 1 else "")
    return TargetError(
        f"{name}: targets and outputs have different shapes",
        got=f"targets {y_true}, outputs {y_pred}",
        expected=expected + ": losses and metrics never broadcast",
        hint=hint,
    )


def as_float(y_pred: Any) -> Any:
    """The outputs as a floating-point operand."""
    y_pred = ops.convert_to_tensor(y_pred)
    return y_pred if y_pred.dtype.is_float else ops.cast(y_pred, "float32")


def _same_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Aligns targets and outputs and gives the targets the outputs' type before the formula sees them."""

    @functools.wraps(function)
    def loss(y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
        y_pred = as_float(y_pred)
        y_true, y_pred = align(ops.convert_to_tensor(y_true), y_pred, function.__name__)
        return function(ops.cast(y_true, y_pred.dtype), y_pred, *args, **kwargs)

    return loss


def sparse_labels(y_true: Any, y_pred: Any, axis: int = -1, name: str = "sparse_categorical_crossentropy") -> Any:
    """Class numbers as int32, in the shape of the outputs without the class axis."""
    labels = ops.convert_to_tensor(y_true)
    position = axis % y_pred.ndim
    wanted = y_pred.shape[:position] + y_pred.shape[position + 1 :]
    with_axis = (*y_pred.shape[:position], 1, *y_pred.shape[position + 1 :])
    if labels.shape not in (wanted, with_axis, (*wanted, 1)):
        classes = y_pred.shape[position]
        one_hot = labels.shape == y_pred.shape
        raise TargetError(
            f"{name}: the targets do not have the shape of class numbers",
            got=f"targets {labels.spec}, outputs {y_pred.spec}",
            expected=f"targets of shape {wanted}, each 0…{classes - 1}",
            hint="one-hot targets go with categorical_crossentropy" if one_hot else None,
        )
    return ops.cast(ops.reshape(labels, wanted), "int32")


# Regression ---------------------------------------------------------------------------------------------------------
@_same_shape
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """mean((y − p)²)"""
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


@_same_shape
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """mean(|y − p|)"""
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@_same_shape
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 · mean(|y − p| / max(|y|, ε))"""
    return 100.0 * ops.mean(ops.abs(y_true - y_pred) / ops.maximum(ops.abs(y_true), EPSILON), axis=-1)


@_same_shape
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """mean((log(1 + y) − log(1 + p))²), values below ε taken as ε"""
    difference = ops.log(ops.maximum(y_pred, EPSILON) + 1.0) - ops.log(ops.maximum(y_true, EPSILON) + 1.0)
    return ops.mean(ops.square(difference), axis=-1)


@_same_shape
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """mean of ½e² where |e| ≤ δ, δ|e| − ½δ² elsewhere (P. J. Huber, 1964)"""
    error = ops.abs(y_pred - y_true)
    return ops.mean(ops.where(error <= delta, 0.5 * error * error, delta * error - 0.5 * delta * delta), axis=-1)


@_same_shape
def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """mean(log(cosh(p − y))), without overflow"""
    error = y_pred - y_true
    return ops.mean(error + ops.softplus(-2.0 * error) - math.log(2.0), axis=-1)


@_same_shape
def poisson(y_true: Any, y_pred: Any) -> Any:
    """mean(p − y log p)"""
    return ops.mean(y_pred - y_true * ops.log(y_pred + EPSILON), axis=-1)


def cosine(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Σ y p / (‖y‖ ‖p‖) of aligned operands."""
    return ops.sum(ops.normalize(y_true, axis=axis) * ops.normalize(y_pred, axis=axis), axis=axis)


@_same_shape
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """−Σ y p / (‖y‖ ‖p‖): −1 for the same direction"""
    return -cosine(y_true, y_pred, axis)


# Distributions and classes ------------------------------------------------------------------------------------------
@_same_shape
def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """Σ y log(y / p), both clipped to [ε, 1]"""
    y_true, y_pred = ops.clip(y_true, EPSILON, 1.0), ops.clip(y_pred, EPSILON, 1.0)
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


def _smooth(y_true: Any, label_smoothing: float, share: float) -> Any:
    return y_true * (1.0 - label_smoothing) + label_smoothing * share if label_smoothing else y_true


@_same_shape
def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """−mean(y log p + (1 − y) log(1 − p))"""
    y_true = _smooth(y_true, label_smoothing, 0.5)
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits), axis=axis)


@_same_shape
def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Any:
    """−Σ y log p; targets are one-hot or probabilities"""
    y_true = _smooth(y_true, label_smoothing, 1.0 / y_true.shape[axis])
    return ops.categorical_crossentropy(y_true, y_pred, from_logits=from_logits, axis=axis)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Any:
    """−log p[y]; targets are class numbers; samples of `ignore_class` cost nothing"""
    y_pred = as_float(y_pred)
    labels = sparse_labels(y_true, y_pred, axis)
    if ignore_class is None:
        return ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=from_logits, axis=axis)
    valid = ops.not_equal(labels, ignore_class)
    values = ops.sparse_categorical_crossentropy(
        ops.where(valid, labels, 0), y_pred, from_logits=from_logits, axis=axis
    )
    return ops.where(valid, values, 0.0)


@_same_shape
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Binary cross-entropy times (1 − p_t)^γ, p_t being the probability of the true class (T.-Y. Lin et al., 2017)"""
    y_true = _smooth(y_true, label_smoothing, 0.5)
    p = ops.sigmoid(y_pred) if from_logits else y_pred
    p_true = y_true * p + (1.0 - y_true) * (1.0 - p)
    values = ops.power(1.0 - p_true, gamma) * ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits)
    if apply_class_balancing:
        values = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * values
    return ops.mean(values, axis=axis)


@_same_shape
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """−Σ α (1 − p)^γ y log p; `alpha` is a number or one per class"""
    y_true = _smooth(y_true, label_smoothing, 1.0 / y_true.shape[axis])
    p = ops.softmax(y_pred, axis=axis) if from_logits else y_pred
    p = ops.clip(p / ops.sum(p, axis=axis, keepdims=True), EPSILON, 1.0 - EPSILON)
    weight = ops.power(1.0 - p, gamma) * (alpha if isinstance(alpha, (int, float)) else ops.cast(alpha, p.dtype))
    return ops.sum(-weight * y_true * ops.log(p), axis=axis)


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Any:
    """(1 − p[y]^q) / q: between cross-entropy (q → 0) and mean absolute error (q = 1) (Z. Zhang, M. Sabuncu, 2018)"""
    y_pred = as_float(y_pred)
    labels = sparse_labels(y_true, y_pred, name="categorical_generalized_cross_entropy")
    p = ops.sum(y_pred * ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype), axis=-1)
    return (1.0 - ops.power(p, q)) / q


# Margins and overlaps -----------------------------------------------------------------------------------------------
def _signs(y_true: Any) -> Any:
    """Targets −1 and 1; if they all are 0 and 1, these are turned into them."""
    is_binary = ops.all(ops.logical_or(ops.equal(y_true, 0.0), ops.equal(y_true, 1.0)))
    return ops.where(is_binary, 2.0 * y_true - 1.0, y_true)


@_same_shape
def hinge(y_true: Any, y_pred: Any) -> Any:
    """mean(max(1 − y p, 0)), targets −1 and 1 (or 0 and 1)"""
    return ops.mean(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


@_same_shape
def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """mean(max(1 − y p, 0)²), targets −1 and 1 (or 0 and 1)"""
    return ops.mean(ops.square(ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)), axis=-1)


@_same_shape
def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """max(1 + max((1 − y) p) − Σ y p, 0), targets one-hot"""
    right = ops.sum(y_true * y_pred, axis=-1)
    wrong = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(wrong - right + 1.0, 0.0)


@_same_shape
def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """1 − 2 Σ y p / (Σ y + Σ p), over everything or over `axis`"""
    overlap = ops.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * overlap / (ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis) + EPSILON)


@_same_shape
def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Any:
    """1 − Σ y p / (Σ y p + α Σ y (1 − p) + β Σ (1 − y) p)"""
    overlap = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum(y_true * (1.0 - y_pred), axis=axis)
    invented = ops.sum((1.0 - y_true) * y_pred, axis=axis)
    return 1.0 - overlap / (overlap + alpha * missed + beta * invented + EPSILON)


for _function, *_names in (
    (mean_squared_error, "mse", "MSE"),
    (mean_absolute_error, "mae", "MAE"),
    (mean_absolute_percentage_error, "mape", "MAPE"),
    (mean_squared_logarithmic_error, "msle", "MSLE"),
    (kl_divergence, "kld", "KLD"),
    (binary_crossentropy, "bce", "BCE"),
    (huber, "huber_loss"),
    (log_cosh, "logcosh"),
    (cosine_similarity,),
    (poisson,),
    (categorical_crossentropy,),
    (sparse_categorical_crossentropy,),
    (binary_focal_crossentropy,),
    (categorical_focal_crossentropy,),
    (categorical_generalized_cross_entropy,),
    (hinge,),
    (squared_hinge,),
    (categorical_hinge,),
    (dice,),
    (tversky,),
):
    register_function("loss", _function, *_names)
