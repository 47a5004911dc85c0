"""Metrics against Keras, over several batches, with and without weights."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel import ops
from highlevel.errors import ArgumentError, TargetError
from highlevel.ir import Tensor, jit, spec
from highlevel.serialization import deserialize, serialize
from highlevel.training import metrics

keras = pytest.importorskip("keras")


def probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.uniform(0.02, 1.0, shape)
    return (values / values.sum(-1, keepdims=True)).astype("float32")


def one_hot(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.eye(shape[-1], dtype="float32")[rng.integers(0, shape[-1], shape[:-1])]


def real(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.1, 3.0, shape).astype("float32")


def binary(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 2, shape).astype("float32")


def coarse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities that fall on thresholds, 0 and 1 among them."""
    return (rng.integers(0, 11, shape) / 10).astype("float32")


def unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.0, 1.0, shape).astype("float32")


def classes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, shape[-1], shape[:-1])


def few(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 3, shape).astype("float32")


# metric, options, targets, outputs
MEANS = [
    ("MeanSquaredError", {}, real, real),
    ("RootMeanSquaredError", {}, real, real),
    ("MeanAbsoluteError", {}, real, real),
    ("MeanAbsolutePercentageError", {}, real, real),
    ("MeanSquaredLogarithmicError", {}, positive, positive),
    ("LogCoshError", {}, real, real),
    ("CosineSimilarity", {}, real, real),
    ("KLDivergence", {}, probabilities, probabilities),
    ("Poisson", {}, positive, positive),
    ("Hinge", {}, binary, real),
    ("SquaredHinge", {}, binary, real),
    ("CategoricalHinge", {}, one_hot, real),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, binary, unit),
    ("BinaryCrossentropy", {"from_logits": True}, binary, real),
    ("CategoricalCrossentropy", {}, one_hot, probabilities),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, one_hot, real),
    ("SparseCategoricalCrossentropy", {}, classes, probabilities),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, classes, real),
    ("Accuracy", {}, few, few),
    ("BinaryAccuracy", {}, binary, unit),
    ("BinaryAccuracy", {"threshold": 0.3}, binary, coarse),
    ("CategoricalAccuracy", {}, one_hot, probabilities),
    ("SparseCategoricalAccuracy", {}, classes, probabilities),
    ("TopKCategoricalAccuracy", {"k": 2}, one_hot, real),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, classes, real),
]

COUNTS = [
    ("TruePositives", {}, binary, unit),
    ("FalsePositives", {"thresholds": [0.2, 0.9]}, binary, unit),
    ("TrueNegatives", {"thresholds": [0.7, 0.1, 0.4]}, binary, unit),
    ("FalseNegatives", {}, binary, coarse),
    ("Precision", {}, binary, unit),
    ("Precision", {"thresholds": [0.1, 0.5, 0.8]}, binary, coarse),
    ("Precision", {"top_k": 2}, binary, unit),
    ("Precision", {"top_k": 2, "thresholds": 0.4}, binary, unit),
    ("Precision", {"class_id": 1}, binary, unit),
    ("Recall", {}, binary, unit),
    ("Recall", {"top_k": 1}, binary, unit),
    ("Recall", {"class_id": 0, "thresholds": [0.3, 0.6]}, binary, unit),
    ("SensitivityAtSpecificity", {"specificity": 0.4}, binary, unit),
    ("SpecificityAtSensitivity", {"sensitivity": 0.4, "num_thresholds": 50}, binary, unit),
    ("PrecisionAtRecall", {"recall": 0.5}, binary, unit),
    ("RecallAtPrecision", {"precision": 0.5, "num_thresholds": 20}, binary, unit),
    ("RecallAtPrecision", {"precision": 0.5, "num_thresholds": 1}, binary, unit),
    ("AUC", {}, binary, unit),
    ("AUC", {"num_thresholds": 11}, binary, coarse),
    ("AUC", {"curve": "PR"}, binary, unit),
    ("AUC", {"curve": "PR", "summation_method": "majoring", "num_thresholds": 30}, binary, unit),
    ("AUC", {"curve": "PRGAIN"}, binary, unit),
    ("AUC", {"summation_method": "minoring", "thresholds": [0.15, 0.4, 0.5]}, binary, unit),
    ("AUC", {"from_logits": True}, binary, real),
    ("AUC", {"multi_label": True}, binary, unit),
    ("AUC", {"multi_label": True, "num_labels": 4, "curve": "PR"}, binary, unit),
    ("AUC", {"multi_label": True, "label_weights": [1.0, 2.0, 0.5, 0.1]}, binary, unit),
    ("AUC", {"label_weights": [1.0, 2.0, 0.5, 0.1], "num_thresholds": 50}, binary, unit),
    ("FBetaScore", {"beta": 2.0}, one_hot, probabilities),
    ("FBetaScore", {"beta": 0.5, "threshold": 0.3, "average": "macro"}, binary, unit),
    ("F1Score", {"average": "micro", "threshold": 0.5}, binary, unit),
    ("F1Score", {"average": "weighted"}, one_hot, probabilities),
]


def near(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", [(7, 4), (4, 5, 4)], ids=str)
@pytest.mark.parametrize(
    "name, options, targets, outputs", MEANS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_means_equal_keras(name, options, targets, outputs, shape, weighted, rng):
    ours, theirs = getattr(metrics, name)(**options), getattr(keras.metrics, name)(**options)
    for size in (shape[0], 3):
        batch = (size, *shape[1:])
        y_true, y_pred = targets(rng, batch), outputs(rng, batch)
        weight = rng.uniform(0.0, 2.0, size).astype("float32") if weighted else None
        ours.update_state(y_true, y_pred, sample_weight=weight)
        theirs.update_state(y_true, y_pred, sample_weight=weight)
        near(ours.result(), theirs.result())
    assert ours.name == theirs.name
    ours.reset_state()
    assert float(ours.result()) == 0.0


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    "name, options, targets, outputs", COUNTS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_counts_equal_keras(name, options, targets, outputs, weighted, rng):
    ours, theirs = getattr(metrics, name)(**options), getattr(keras.metrics, name)(**options)
    for size in (40, 7):
        y_true, y_pred = targets(rng, (size, 4)), outputs(rng, (size, 4))
        weight = rng.uniform(0.0, 2.0, size).astype("float32") if weighted else None
        ours.update_state(y_true, y_pred, sample_weight=weight)
        theirs.update_state(y_true, y_pred, sample_weight=weight)
        with np.errstate(all="ignore"):  # Keras divides by zero and drops the result
            expected = theirs.result()
        near(ours.result(), expected)
    ours.reset_state()
    for variable in ours.variables:
        assert not variable.numpy().any()


def test_mean_and_sum_equal_keras(rng):
    for name in ("Mean", "Sum"):
        ours, theirs = getattr(metrics, name)(), getattr(keras.metrics, name)()
        batches = [
            (np.float32(2.0), None),
            (np.float32(3.0), 4.0),
            (real(rng, (3,)), None),
            (real(rng, (3, 2)), positive(rng, (3,))),
        ]
        batches += [(real(rng, (3, 2)), positive(rng, (3, 2))), (real(rng, (3,)), positive(rng, (3, 1)))]
        for values, weight in batches:
            ours.update_state(values, sample_weight=weight)
            theirs.update_state(values, sample_weight=weight)
            near(ours.result(), theirs.result())


def test_the_area_under_the_curve_equals_scikit_learn(rng):
    from sklearn.metrics import roc_auc_score

    y_true, y_pred = binary(rng, (500,)), unit(rng, (500,))
    y_pred = 0.6 * y_pred + 0.4 * y_true * unit(rng, (500,))
    metric = metrics.AUC(num_thresholds=5000)
    metric.update_state(y_true, y_pred)
    assert float(metric.result()) == pytest.approx(roc_auc_score(y_true, y_pred), abs=1e-3)


@pytest.mark.parametrize("name, options, targets, outputs", MEANS[::4] + COUNTS[::3])
def test_traced_equals_eager(name, options, targets, outputs, rng):
    traced, eager = getattr(metrics, name)(**options), getattr(metrics, name)(**options)

    @jit
    def step(y_true, y_pred):
        traced.update_state(y_true, y_pred)
        return traced.result()

    for _ in range(3):
        y_true, y_pred = targets(rng, (9, 4)), outputs(rng, (9, 4))
        near(step(Tensor.of(y_true), Tensor.of(y_pred)), eager(y_true, y_pred))
    assert step.traces == 1
    near(traced.result(), eager.result())


@pytest.mark.parametrize(
    "name", [name for name, *_ in MEANS if "Sparse" not in name] + ["Precision", "AUC", "FBetaScore"]
)
@pytest.mark.parametrize("true, pred", [((5,), (5, 5)), ((5, 1), (5, 5)), ((4, 3), (5, 3)), ((5, 3), (5, 4))], ids=str)
def test_metrics_never_broadcast(name, true, pred):
    with pytest.raises(TargetError):
        getattr(metrics, name)().update_state(np.ones(true, "float32"), np.ones(pred, "float32"))


@pytest.mark.parametrize("name", ["MeanSquaredError", "BinaryAccuracy", "Precision", "AUC", "MeanAbsoluteError"])
def test_a_last_axis_of_one_is_aligned_as_in_keras(name, rng):
    y_true, y_pred = binary(rng, (20,)), unit(rng, (20, 1))
    ours, theirs = getattr(metrics, name)(), getattr(keras.metrics, name)()
    theirs.update_state(y_true, y_pred)
    near(ours(y_true, y_pred), theirs.result())
    near(getattr(metrics, name)()(y_true[:, None], y_pred), theirs.result())


def test_ignored_classes_do_not_count():
    labels = np.array([0, 1, 255, 2])
    y_pred = np.full((4, 3), 1 / 3, "float32")
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=255)
    near(metric(labels, y_pred), np.log(3.0))


def test_top_k_of_sorted_ids():
    labels, ids = np.array([3, 7]), np.array([[1, 3, 5], [7, 2, 0]])
    metric = metrics.SparseTopKCategoricalAccuracy(k=1, from_sorted_ids=True)
    near(metric(labels, ids), 0.5)


def test_an_infinite_output_is_never_right():
    y_pred = np.array([[np.nan, 1.0], [np.inf, 0.0], [0.0, 1.0]], "float32")
    near(metrics.SparseTopKCategoricalAccuracy(k=1)(np.array([0, 0, 1]), y_pred), 1 / 3)


# Names ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "true, pred, expected",
    [
        ((8,), (8, 1), "BinaryAccuracy"),
        ((8, 1), (8, 1), "BinaryAccuracy"),
        ((8,), (8, 10), "SparseCategoricalAccuracy"),
        ((8, 1), (8, 10), "SparseCategoricalAccuracy"),
        ((8, 10), (8, 10), "CategoricalAccuracy"),
        ((8, 5), (8, 5, 10), "SparseCategoricalAccuracy"),
    ],
    ids=str,
)
def test_accuracy_fits_the_shapes(true, pred, expected):
    for word in ("accuracy", "acc"):
        metric = metrics.resolve_metric(word, spec(true), spec(pred))
        assert (type(metric).__name__, metric.name) == (expected, word)
    ours = type(metrics.resolve_metric("acc", spec(true), spec(pred))).__name__
    theirs = keras.src.trainers.compile_utils.get_metric("acc", np.zeros(true), np.zeros(pred))
    assert type(theirs).__name__ == ours


def test_metrics_have_the_name_that_was_asked_for():
    metric = metrics.resolve_metric("mse", spec((8, 2)), spec((8, 2)))
    assert (type(metric).__name__, metric.name) == ("MeanSquaredError", "mse")


def test_every_keras_name_of_a_metric_here_is_known():
    ours = {name.lower() for name in vars(metrics)}
    words = [word for word, cls in keras.src.metrics.ALL_OBJECTS_DICT.items() if cls.__name__.lower() in ours]
    needs = {
        "sensitivityatspecificity",
        "specificityatsensitivity",
        "precisionatrecall",
        "recallatprecision",
        "meanmetricwrapper",
    }
    found = [metrics.get(word) for word in words if word.lower().replace("_", "") not in needs | {"metric"}]
    assert len(found) > 50 and all(isinstance(metric, metrics.Metric) for metric in found)


def test_losses_and_functions_are_metrics(rng):
    y_true, y_pred = binary(rng, (6, 2)), unit(rng, (6, 2))
    near(metrics.get("huber")(y_true, y_pred), np.mean(keras.losses.huber(y_true, y_pred)))

    def gap(y_true, y_pred):
        return ops.max(ops.abs(y_true - y_pred), axis=-1)

    metric = metrics.get(gap)
    assert metric.name == "gap"
    near(metric(Tensor.of(y_true), Tensor.of(y_pred)), np.abs(y_true - y_pred).max(-1).mean())


@pytest.mark.parametrize("name, options, _targets, _outputs", MEANS[::3] + COUNTS[::2])
def test_metrics_survive_a_file(name, options, _targets, _outputs):
    metric = getattr(metrics, name)(name="mine", **options)
    again = deserialize(serialize(metric))
    assert type(again) is type(metric) and again.name == "mine" and again.get_config() == metric.get_config()


@pytest.mark.parametrize(
    "make",
    [
        lambda: metrics.get("acuracy"),
        lambda: metrics.AUC(curve="ROD"),
        lambda: metrics.AUC(summation_method="trapezoid"),
        lambda: metrics.AUC(num_thresholds=1),
        lambda: metrics.Precision(thresholds=1.5),
        lambda: metrics.BinaryAccuracy(threshold=2.0),
        lambda: metrics.FBetaScore(average="mean"),
        lambda: metrics.RecallAtPrecision(1.5),
    ],
)
def test_wrong_arguments_are_explained(make):
    with pytest.raises(ArgumentError):
        make()


def test_the_example_of_an_own_metric(rng):
    class Largest(metrics.Metric):
        def __init__(self, name="largest"):
            super().__init__(name=name)
            self.value = self.add_variable(name="value")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.value.assign(ops.maximum(self.value, ops.max(ops.abs(y_true - y_pred))))

        def result(self):
            return self.value.read()

    metric = Largest()
    y_true, y_pred = Tensor.of(real(rng, (5, 2))), Tensor.of(real(rng, (5, 2)))
    near(metric(y_true, y_pred), np.abs(y_true.numpy() - y_pred.numpy()).max())
    assert [variable.path for variable in metric.variables] == ["largest/value"]
