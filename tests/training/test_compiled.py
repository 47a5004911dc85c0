"""Losses and metrics of a compiled model: which belongs to which output, under which name, with which weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.errors import ArgumentError
from highlevel.ir import Tensor
from highlevel.training.compiled import Logs, LossSet, MetricSet, leaves_like, per_output

F32 = "float32"
RNG = np.random.default_rng(3)
X = RNG.normal(size=(20, 4)).astype(F32)
A, B = RNG.integers(0, 3, 20), RNG.normal(size=(20, 2)).astype(F32)


def two_outputs(as_dict: bool = False) -> hl.Model:
    x = hl.Input((4,))
    a, b = L.Dense(3, activation="softmax", name="kind")(x), L.Dense(2, name="place")(x)
    return hl.Model(x, {"kind": a, "place": b} if as_dict else [a, b])


# Arguments, one per output -------------------------------------------------------------------------------------------
OUTPUTS, NAMES = [0, 0], ["kind", "place"]


def test_arguments_are_given_once_in_order_or_by_name():
    assert per_output("mse", OUTPUTS, NAMES, "loss") == ["mse", "mse"]
    assert per_output(["mse", None], OUTPUTS, NAMES, "loss") == ["mse", None]
    assert per_output({"place": "mae"}, OUTPUTS, NAMES, "loss") == [None, "mae"]
    with pytest.raises(ArgumentError, match=r"loss: one entry per output"):
        per_output(["mse"] * 3, OUTPUTS, NAMES, "loss")
    with pytest.raises(ArgumentError, match=r"no output 'plac'[\s\S]*did you mean 'place'"):
        per_output({"plac": "mae"}, OUTPUTS, NAMES, "loss")


def test_targets_are_given_in_order_or_by_name():
    assert leaves_like([1, 2], OUTPUTS, NAMES, "y") == [1, 2]
    assert leaves_like(None, OUTPUTS, NAMES, "y") == [None, None]
    assert leaves_like({"place": 2, "kind": 1}, OUTPUTS, NAMES, "y", NAMES) == [1, 2]
    assert leaves_like({"place": 2}, OUTPUTS, NAMES, "y", ["place"]) == [None, 2]
    for value, required, words in (
        ([1], (), "one array per output"),
        ({"place": 2}, NAMES, "'kind' is missing"),
        ({"plac": 2, "kind": 1}, (), "did you mean 'place'"),
    ):
        with pytest.raises(ArgumentError, match=words):
            leaves_like(value, OUTPUTS, NAMES, "y", required)


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        (["sparse_categorical_crossentropy", "mse"], [0.5, 2.0]),
        ({"kind": "sparse_categorical_crossentropy", "place": "mse"}, {"kind": 0.5, "place": 2.0}),
        ([hl.losses.SparseCategoricalCrossentropy(), hl.losses.MeanSquaredError()], {"place": 2.0, "kind": 0.5}),
    ],
    ids=["lists", "dictionaries", "objects"],
)
@pytest.mark.parametrize("as_dict", [False, True], ids=["list of outputs", "dictionary of outputs"])
def test_the_loss_is_the_weighted_sum(loss, weights, as_dict):
    model = two_outputs(as_dict)
    model.compile("sgd", loss, loss_weights=weights)
    y: Any = {"kind": A, "place": B} if as_dict else [A, B]
    p, q = hl.tree.leaves(model.predict(X, verbose=0))
    cross_entropy, square = -np.log(p[np.arange(20), A]).mean(), np.mean((q - B) ** 2)
    found = model.evaluate(X, y, verbose=0, return_dict=True)
    assert list(found) == ["loss", "kind_loss", "place_loss"]
    expected = [0.5 * cross_entropy + 2.0 * square, cross_entropy, square]
    assert list(found.values()) == pytest.approx(expected, rel=1e-5)


def test_a_layer_called_twice_makes_two_outputs():
    a, b = hl.Input((4,)), hl.Input((4,))
    both = L.Dense(2, name="both")
    model = hl.Model([a, b], [both(a), both(b)])
    model.compile("sgd", "mse")
    p, q = model.predict([X, 2 * X], verbose=0)
    found = model.evaluate([X, 2 * X], [B, B], verbose=0, return_dict=True)
    assert model.output_names == ["both", "both_1"] and list(found) == ["loss", "both_loss", "both_1_loss"]
    assert found["both_loss"] == pytest.approx(np.mean((p - B) ** 2), rel=1e-5)
    assert found["both_1_loss"] == pytest.approx(np.mean((q - B) ** 2), rel=1e-5)


def test_outputs_in_nested_structures_are_named_by_the_keys_on_the_way():
    x = hl.Input((4,))
    model = hl.Model(x, {"near": {"a": L.Dense(2)(x), "b": L.Dense(2)(x)}, "far": L.Dense(2)(x)})
    assert model.output_names == ["far", "near_a", "near_b"]
    model.compile("sgd", {"far": "mse", "near_a": "mae", "near_b": "mse"})
    y = {"near": {"a": B, "b": B * 2}, "far": B}
    p = model.predict(X, verbose=0)
    found = model.evaluate(X, y, verbose=0, return_dict=True)
    assert found["near_a_loss"] == pytest.approx(np.abs(p["near"]["a"] - B).mean(), rel=1e-5)
    assert found["near_b_loss"] == pytest.approx(np.mean((p["near"]["b"] - 2 * B) ** 2), rel=1e-5)
    assert found == model.evaluate(X, {"far": B, "near_a": B, "near_b": B * 2}, verbose=0, return_dict=True)


def test_no_loss_at_all_is_zero():
    total, terms = LossSet(None)([None], [Tensor.of(np.ones((2, 3), F32))], None, ["out"])
    assert float(total) == 0.0 and terms == {}


# Metrics -------------------------------------------------------------------------------------------------------------
METRICS: list[tuple[Any, list[str]]] = [
    (["accuracy", "mae"], ["kind_accuracy", "place_mean_absolute_error"]),
    ([["accuracy"], ["mae", "mse"]], ["kind_accuracy", "place_mean_absolute_error", "place_mean_squared_error"]),
    ({"place": "mae"}, ["place_mean_absolute_error"]),
    ({"place": ["mae", hl.metrics.MeanAbsoluteError(name="other")]}, ["place_mean_absolute_error", "place_other"]),
    ({"place": [hl.metrics.MeanSquaredError(), hl.metrics.MeanSquaredError()]},
     ["place_mean_squared_error", "place_mean_squared_error_1"]),
]  # fmt: skip


@pytest.mark.parametrize(("metrics", "names"), METRICS, ids=[str(i) for i in range(len(METRICS))])
def test_metrics_are_named_after_their_outputs(metrics, names):
    model = two_outputs()
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"], metrics=metrics)
    found = model.evaluate(X, [A, B], verbose=0, return_dict=True)
    short = {"place_mae": "place_mean_absolute_error", "place_mse": "place_mean_squared_error"}
    assert [short.get(name, name) for name in found] == ["loss", "kind_loss", "place_loss", *names]
    assert model.metrics_names == list(found)


def test_one_metric_object_for_several_outputs_counts_each_apart():
    x = hl.Input((4,))
    model = hl.Model(x, [L.Dense(2, name="a")(x), L.Dense(2, name="b")(x)])
    model.compile("sgd", "mse", metrics=hl.metrics.MeanAbsoluteError(name="error"))
    p, q = model.predict(X, verbose=0)
    found = model.evaluate(X, [B, B], verbose=0, return_dict=True)
    assert found["a_error"] == pytest.approx(np.abs(p - B).mean(), rel=1e-5)
    assert found["b_error"] == pytest.approx(np.abs(q - B).mean(), rel=1e-5)


def test_sample_weights_count_in_weighted_metrics_only():
    model = hl.Sequential([hl.Input((4,)), L.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=[hl.metrics.MeanAbsoluteError(name="weighted")])
    weight = RNG.random(20).astype(F32)
    errors = np.abs(model.predict(X, verbose=0) - B).mean(1)
    found = list(model.evaluate(X, B, sample_weight=weight, verbose=0, return_dict=True).values())
    assert found[1] == pytest.approx(errors.mean(), rel=1e-5)
    assert found[2] == pytest.approx((errors * weight).sum() / weight.sum(), rel=1e-5)


def test_masked_steps_do_not_count():
    """Neither in the loss nor in metrics: the padded end of sequences."""
    model = hl.Sequential(
        [hl.Input((5,), dtype="int32"), L.Embedding(9, 4, mask_zero=True), L.LSTM(3, return_sequences=True), L.Dense(1)]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    words = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], "int32")
    y = RNG.normal(size=(2, 5, 1)).astype(F32)
    counted = (words != 0)[..., None]
    errors = (model.predict(words, verbose=0) - y)[counted]
    loss, error = model.evaluate(words, y, verbose=0)
    assert error == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert loss == pytest.approx((errors**2).mean(), rel=1e-5)


def test_metrics_begin_anew_in_every_epoch():
    model = hl.Sequential([hl.Input((4,)), L.Dense(2)])
    model.compile(hl.optimizers.SGD(0.0), "mse", metrics=["mae"])
    history = model.fit(X, B, epochs=3, batch_size=7, shuffle=False, verbose=0).history
    assert all(len(set(values)) == 1 for values in history.values())


def test_metrics_without_targets_are_left_out():
    model = hl.Sequential([hl.Input((4,)), L.Dense(2, activity_regularizer=hl.regularizers.L2(0.1))])
    model.compile("sgd", metrics=["mae"])
    assert list(model.fit(X, verbose=0).history) == ["loss"]


def test_results_are_in_the_order_in_which_they_were_asked_for():
    metrics = MetricSet()
    metrics._found = [[("b", SimpleNamespace(), False), ("a", SimpleNamespace(), False)]]
    assert list(metrics.ordered({"own": 1.0, "a": 2.0, "loss": 3.0, "b": 4.0})) == ["loss", "b", "a", "own"]


def test_logs_become_numbers_late():
    logs = Logs(loss=Tensor.of(np.float32(1.5)), rate=2.0)
    assert logs["loss"] == 1.5 and logs.get("loss") == 1.5 and logs.get("other", 0) == 0
    assert logs.items() == [("loss", 1.5), ("rate", 2.0)] and logs.values() == [1.5, 2.0]
    assert logs.as_floats() == {"loss": 1.5, "rate": 2.0} and type(logs.as_floats()["loss"]) is float
    assert isinstance(dict.__getitem__(logs, "loss"), Tensor)
