"""The losses that come with the library; `loss` has their base, and what weights, masks and reductions mean."""

from __future__ import annotations

from typing import Any

from highlevel import ops, serialization
from highlevel.errors import ArgumentError
from highlevel.serialization import names_of

from .loss import (
    Loss,
    LossFunctionWrapper,
    align_weight,
    masked_weight,
    reduce_values,
    spread,
)
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
    sparse_labels,
    squared_hinge,
    tversky,
)
from .targets import check_targets, classification_kind

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Crossentropy",
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
    "sparse_categorical_crossentropy",
    "spread",
    "squared_hinge",
    "tversky",
]


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
        return ops.not_equal(sparse_labels(y_true, y_pred, self.axis), self.ignore_class)


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


class Crossentropy(Loss):
    """The cross-entropy that fits the shapes of targets and outputs: binary, categorical or sparse

    from_logits: whether outputs are logits or probabilities
    """

    aliases = ("ce",)

    def __init__(
        self,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits

    def fitting(self, y_true: Any, y_pred: Any) -> Loss:
        """The loss for targets and outputs (or specs) of these shapes."""
        kinds: dict[str, Any] = {"binary": BinaryCrossentropy, "sparse": SparseCategoricalCrossentropy}
        cls = kinds.get(classification_kind(y_true.shape, y_pred.shape), CategoricalCrossentropy)
        return cls(from_logits=self.from_logits)  # type: ignore[no-any-return]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.fitting(y_true, y_pred).call(y_true, y_pred)


def get(identifier: Any) -> Any:
    """A `Loss` for a name, a class, an object, a description or a function of (y_true, y_pred); None stays None.

    >>> get("mse"), get("sparse_categorical_crossentropy").from_logits
    (<MeanSquaredError 'mean_squared_error'>, False)
    """
    if isinstance(identifier, str) and identifier in names_of("loss"):
        return names_of("loss")[identifier]()
    loss = serialization.get(identifier, "loss")
    return loss if loss is None or isinstance(loss, Loss) else LossFunctionWrapper(loss)
