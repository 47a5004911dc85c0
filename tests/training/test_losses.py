"""Losses against Keras, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel.errors import ArgumentError, TargetError
from highlevel.ir import Tensor, Variable, gradients, jit, spec, value_and_grad
from highlevel.serialization import FUNCTIONS as FUNCTIONS_BY_NAME
from highlevel.serialization import deserialize, serialize
from highlevel.training import loss_functions, losses

keras = pytest.importorskip("keras")

SIZES = [(6, 3), (4, 5, 3)]


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


def unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.02, 0.98, shape).astype("float32")


def classes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, shape[-1], shape[:-1])


# loss, options, targets, outputs
CASES = [
    ("MeanSquaredError", {}, real, real),
    ("MeanAbsoluteError", {}, real, real),
    ("MeanAbsolutePercentageError", {}, real, real),
    ("MeanSquaredLogarithmicError", {}, positive, positive),
    ("LogCosh", {}, real, real),
    ("Huber", {}, real, real),
    ("Huber", {"delta": 0.3}, real, real),
    ("CosineSimilarity", {}, real, real),
    ("CosineSimilarity", {"axis": 1}, real, real),
    ("KLDivergence", {}, probabilities, probabilities),
    ("Poisson", {}, positive, positive),
    ("Hinge", {}, binary, real),
    ("Hinge", {}, lambda rng, shape: 2 * binary(rng, shape) - 1, real),
    ("SquaredHinge", {}, binary, real),
    ("CategoricalHinge", {}, one_hot, real),
    ("BinaryCrossentropy", {}, binary, unit),
    ("BinaryCrossentropy", {"from_logits": True}, binary, real),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, binary, unit),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1, "axis": 0}, binary, real),
    ("BinaryFocalCrossentropy", {}, binary, unit),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5}, binary, unit),
    ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, binary, real),
    ("CategoricalCrossentropy", {}, one_hot, probabilities),
    ("CategoricalCrossentropy", {}, one_hot, unit),  # scaled to sum 1 by the loss
    ("CategoricalCrossentropy", {"from_logits": True}, one_hot, real),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, one_hot, real),
    ("CategoricalFocalCrossentropy", {}, one_hot, probabilities),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "alpha": [0.2, 0.5, 0.3], "gamma": 1.0}, one_hot, real),
    ("SparseCategoricalCrossentropy", {}, classes, probabilities),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, classes, real),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, classes, real),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.7}, classes, probabilities),
    ("Dice", {}, binary, unit),
    ("Dice", {"axis": -1}, binary, unit),
    ("Tversky", {"alpha": 0.3, "beta": 0.7}, binary, unit),
]


def near(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(
    "name, options, targets, outputs", CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_losses_equal_keras(name, options, targets, outputs, shape, rng):
    y_true, y_pred = targets(rng, shape), outputs(rng, shape)
    keras_options = {k: np.float32(v) if isinstance(v, list) else v for k, v in options.items()}
    weight = rng.uniform(0.0, 2.0, shape[:1]).astype("float32")
    for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None):
        ours = getattr(losses, name)(reduction=reduction, **options)
        theirs = getattr(keras.losses, name)(reduction=reduction, **keras_options)
        near(ours(y_true, y_pred), theirs(y_true, y_pred))
        values = np.asarray(theirs.call(y_true, y_pred))
        if values.ndim == 1 and values.shape == weight.shape:
            near(ours(y_true, y_pred, weight), theirs(y_true, y_pred, sample_weight=weight))
        if values.ndim == 2:
            full = rng.uniform(0.0, 2.0, values.shape).astype("float32")
            near(ours(y_true, y_pred, full), theirs(y_true, y_pred, sample_weight=full))


NAMES = keras.src.losses.ALL_OBJECTS_DICT  # every word that Keras knows
FUNCTIONS = sorted(name for name, function in FUNCTIONS_BY_NAME["loss"].items() if function.__name__ == name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_keras(name, rng):
    data = {
        "sparse_categorical_crossentropy": (classes, probabilities),
        "categorical_generalized_cross_entropy": (classes, probabilities),
        "categorical_crossentropy": (one_hot, probabilities),
        "categorical_hinge": (one_hot, real),
    }.get(name, (binary, unit))
    more = {"q": 0.5} if name == "categorical_generalized_cross_entropy" else {}
    y_true, y_pred = data[0](rng, (6, 3)), data[1](rng, (6, 3))
    expected = getattr(keras.losses, name)(y_true, y_pred, **more)
    near(getattr(loss_functions, name)(y_true, y_pred, **more), expected)


@pytest.mark.parametrize("name", ["MeanSquaredError", "BinaryCrossentropy", "Hinge", "Huber", "Poisson"])
@pytest.mark.parametrize(
    "true, pred", [((5,), (5, 1)), ((5, 1), (5,)), ((5, 4, 1), (5, 4)), ((5, 4), (5, 4, 1))], ids=str
)
def test_a_last_axis_of_one_is_aligned_as_in_keras(name, true, pred, rng):
    y_true, y_pred = binary(rng, true), unit(rng, pred)
    near(getattr(losses, name)()(y_true, y_pred), getattr(keras.losses, name)()(y_true, y_pred))


def test_labels_with_an_axis_of_one_are_class_numbers(rng):
    y_pred = probabilities(rng, (5, 3))
    labels = classes(rng, (5, 3))
    loss = losses.SparseCategoricalCrossentropy()
    near(loss(labels[:, None], y_pred), loss(labels, y_pred))
    near(loss(labels.astype("float32"), y_pred), loss(labels, y_pred))


@pytest.mark.parametrize(
    "true, pred", [((5,), (5, 5)), ((5, 1), (5, 5)), ((5,), (4,)), ((5, 3), (5, 4)), ((1, 5), (5, 1))], ids=str
)
@pytest.mark.parametrize(
    "name", ["MeanSquaredError", "BinaryCrossentropy", "CategoricalCrossentropy", "Hinge", "KLDivergence"]
)
def test_losses_never_broadcast(name, true, pred):
    with pytest.raises(TargetError, match="never broadcast") as error:
        getattr(losses, name)()(np.ones(true, "float32"), np.ones(pred, "float32"))
    text = str(error.value)
    assert str(true) in text and str(pred) in text and len(text.splitlines()) <= 10


def test_one_hot_targets_for_a_sparse_loss_are_explained(rng):
    with pytest.raises(TargetError, match="one-hot targets go with categorical_crossentropy"):
        losses.SparseCategoricalCrossentropy()(one_hot(rng, (5, 3)), probabilities(rng, (5, 3)))


def test_sparse_targets_for_a_categorical_loss_are_explained(rng):
    with pytest.raises(TargetError, match="sparse_categorical_crossentropy"):
        losses.CategoricalCrossentropy()(classes(rng, (5, 3)), probabilities(rng, (5, 3)))


def test_weights_do_not_broadcast_either(rng):
    y = real(rng, (5, 5, 2))
    loss = losses.MeanSquaredError(reduction=None)
    per_sample = np.arange(5, dtype="float32")
    near(loss(y, y + 1, per_sample), np.repeat(per_sample[:, None], 5, axis=1))  # along the batch, whatever the sizes
    near(loss(y, y + 1, per_sample[:, None]), np.repeat(per_sample[:, None], 5, axis=1))
    for wrong in ((4,), (5, 4), (1, 5), (5, 5, 2)):
        with pytest.raises(TargetError, match="weights do not fit"):
            loss(y, y, np.ones(wrong, "float32"))


def test_a_number_is_a_weight_for_all(rng):
    y = real(rng, (5, 2))
    near(losses.MeanSquaredError()(y, y + 1, 3.0), 3.0)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_masks_count_as_in_keras(reduction, rng):
    y_true, y_pred = real(rng, (4, 6, 2)), real(rng, (4, 6, 2))
    mask = rng.integers(0, 2, (4, 6)).astype(bool)
    weight = rng.uniform(0.5, 2.0, (4, 6)).astype("float32")
    theirs = keras.src.losses.loss.reduce_weighted_values
    values = ((y_true - y_pred) ** 2).mean(-1)
    loss = losses.MeanSquaredError(reduction=reduction)
    for sample_weight in (None, weight):
        expected = theirs(values, sample_weight=sample_weight, mask=mask, reduction=reduction)
        near(loss(y_true, y_pred, sample_weight, mask), expected)


def test_a_mask_and_an_ignored_class_go_together(rng):
    labels = np.array([[0, 1, 2, 1]])
    y_pred = probabilities(rng, (1, 4, 3))
    mask = np.array([[True, True, False, True]])
    found = losses.SparseCategoricalCrossentropy(ignore_class=0)(labels, y_pred, mask=mask)
    near(found, -np.log(y_pred[0, [1, 3], [1, 1]]).mean())


def test_everything_masked_is_zero(rng):
    y = real(rng, (3, 2))
    assert float(losses.MeanSquaredError()(y, y + 1, mask=np.zeros(3, bool))) == 0.0


def test_logits_far_from_zero_stay_finite():
    y_true, logits = np.array([[1.0, 0.0]], "float32"), np.array([[-300.0, 200.0]], "float32")
    near(losses.BinaryCrossentropy(from_logits=True)(y_true, logits), 250.0)
    near(losses.CategoricalCrossentropy(from_logits=True)(y_true, logits), 500.0)
    near(losses.SparseCategoricalCrossentropy(from_logits=True)(np.array([0]), logits), 500.0)


def test_classes_on_another_axis(rng):
    y_pred = probabilities(rng, (2, 5, 3))
    labels = classes(rng, (2, 5, 3))
    moved = np.moveaxis(y_pred, -1, 1)
    expected = losses.SparseCategoricalCrossentropy()(labels, y_pred)
    near(losses.SparseCategoricalCrossentropy(axis=1)(labels, moved), expected)
    near(losses.CategoricalCrossentropy(axis=1)(np.moveaxis(np.eye(3)[labels], -1, 1), moved), expected)


def test_half_precision_outputs_are_weighed_in_float32(rng):
    y = np.full((4096, 1), 100.0, "float16")
    assert losses.MeanSquaredError()(y, y + np.float16(1)).dtype == "float32"
    assert losses.MeanSquaredError(dtype="float64")(y, y).dtype == "float64"


def test_traced_equals_eager_and_has_gradients(rng):
    y_true, y_pred = classes(rng, (6, 3)), real(rng, (6, 3))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    value, gradient = value_and_grad(lambda p: loss(y_true, p))(Tensor.of(y_pred))
    near(value, loss(y_true, y_pred))
    softmax = np.exp(y_pred) / np.exp(y_pred).sum(-1, keepdims=True)
    near(gradient, (softmax - np.eye(3)[y_true]) / 6)


def test_a_loss_of_a_variable_inside_a_step(rng):
    w = Variable(real(rng, (3,)), name="w")

    @jit
    def step(x):
        loss = losses.MeanSquaredError()(x, w.read())
        return loss, gradients(loss, [w])[0]

    x = real(rng, (3,))
    loss, gradient = step(Tensor.of(x))
    near(loss, ((x - w.numpy()) ** 2).mean())
    near(gradient, 2 * (w.numpy() - x) / 3)


# Names and files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mse", "MSE", "mean_squared_error", "MeanSquaredError"])
def test_names(name):
    assert isinstance(losses.get(name), losses.MeanSquaredError)


def test_every_keras_name_of_a_loss_here_is_known():
    absent = {"Loss", "LossFunctionWrapper", "CTC", "Circle", "ctc", "circle", "loss", "loss_function_wrapper"}
    assert all(isinstance(losses.get(name), losses.Loss) for name in set(NAMES) - absent)


def test_unknown_names_are_explained():
    with pytest.raises(ArgumentError, match="mean_squared_error"):
        losses.get("mean_squared_eror")


def test_functions_become_losses(rng):
    y_true, y_pred = real(rng, (4, 2)), real(rng, (4, 2))

    def fourth(y_true, y_pred):
        return ((y_true - y_pred) ** 4).mean() if isinstance(y_true, np.ndarray) else loss_functions.ops.mean(
            (y_true - y_pred) ** 4, axis=-1
        )  # fmt: skip

    loss = losses.get(fourth)
    assert loss.name == "fourth"
    near(loss(y_true, y_pred), ((y_true - y_pred) ** 4).mean())


@pytest.mark.parametrize(
    "true, pred, kind", [((8, 1), (8, 1), "Binary"), ((8,), (8, 3), "Sparse"), ((8, 3), (8, 3), "Cat")]
)
def test_crossentropy_fits_the_shapes(true, pred, kind):
    loss = losses.get("crossentropy")
    assert type(loss.fitting(spec(true), spec(pred))).__name__.startswith(kind)
    y_true, y_pred = np.ones(true), np.full(pred, 0.25, "float32")
    near(loss(y_true, y_pred), loss.fitting(spec(true), spec(pred))(y_true, y_pred))


@pytest.mark.parametrize("name, options, _targets, _outputs", CASES[::2])
def test_losses_survive_a_file(name, options, _targets, _outputs):
    loss = getattr(losses, name)(reduction="sum", name="mine", **options)
    again = deserialize(serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("mine", "sum")
    wrapped = deserialize(serialize(losses.LossFunctionWrapper(loss_functions.huber, delta=2.0)))
    assert wrapped.fn is loss_functions.huber and wrapped.options == {"delta": 2.0}


def test_unknown_reductions_are_refused():
    with pytest.raises(ArgumentError, match="unknown reduction"):
        losses.MeanSquaredError(reduction="average")
    assert losses.MeanSquaredError(reduction="none").reduction is None
