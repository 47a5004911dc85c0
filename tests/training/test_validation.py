"""Holding out data, and weights of classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.errors import ArgumentError
from highlevel.training.validation import class_weights, combine_weights, split_validation

F32 = "float32"
RNG = np.random.default_rng(0)


# Splits --------------------------------------------------------------------------------------------------------------
def test_the_tail_is_held_out_as_it_stands():
    x, y = np.arange(10)[:, None].astype(F32), np.arange(10) / 10
    weight = np.arange(10) / 5
    kept, held = split_validation(x, y, weight, 0.25, "tail")
    assert kept[0][:, 0].tolist() == list(range(7)) and held[0][:, 0].tolist() == [7, 8, 9]  # as in Keras
    assert held[1].tolist() == [0.7, 0.8, 0.9] and held[2].tolist() == [1.4, 1.6, 1.8]
    tree = {"a": x, "b": [x, x]}
    kept, held = split_validation(tree, None, None, 0.5, "tail")
    assert kept[0]["b"][1].shape == (5, 1) and held[0]["a"].shape == (5, 1) and kept[1] is None


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_tail_without_some_classes_is_warned_about(one_hot):
    x, labels = np.zeros((30, 2), F32), np.repeat([0, 1, 2], 10)
    y = np.eye(3)[labels] if one_hot else labels
    with pytest.warns(UserWarning, match=r'classes \[0, 1\] not in validation[\s\S]*split="stratified"'):
        split_validation(x, y, None, 0.2, "tail")
    with pytest.warns(UserWarning, match=r"classes \[2\] only in validation"):
        split_validation(x, y, None, 0.4, "tail")
    order = np.random.default_rng(1).permutation(30)
    split_validation(x, y[order], None, 0.4, "tail")


def test_quantities_and_several_targets_are_not_warned_about():
    x = np.zeros((30, 2), F32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split_validation(x, np.linspace(0, 1, 30), None, 0.2, "tail")
        split_validation(x, RNG.normal(size=(30, 4)), None, 0.2, "tail")
        split_validation(x, [np.arange(30), np.arange(30)], None, 0.2, "tail")


@pytest.mark.parametrize("one_hot", [False, True])
def test_a_stratified_split_holds_out_the_same_part_of_each_class(one_hot):
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    y = np.eye(3)[labels] if one_hot else labels
    x = np.arange(70)[:, None]
    kept, held = split_validation(x, y, None, 0.2, "stratified")
    assert sorted([*kept[0][:, 0], *held[0][:, 0]]) == list(range(70))
    found = held[1].argmax(1) if one_hot else held[1]
    assert np.bincount(found).tolist() == [8, 4, 2]
    assert np.array_equal(labels[held[0][:, 0]], found)


@pytest.mark.parametrize(
    ("fraction", "how", "words"),
    [
        (1.5, "tail", r"0 and 1"),
        (0.0, "tail", r"0 and 1"),
        (0.01, "head", "tail"),
    ],
)
def test_splits_that_make_no_sense(fraction, how, words):
    with pytest.raises(ArgumentError, match=words):
        split_validation(np.zeros((10, 1)), np.zeros(10), None, fraction, how)
    with pytest.raises(ArgumentError, match="one part empty"):
        split_validation(np.zeros((3, 1)), np.zeros(3), None, 0.999, "tail")
    with pytest.raises(ArgumentError, match="needs one target"):
        split_validation(np.zeros((9, 1)), None, None, 0.3, "stratified")
    with pytest.raises(ArgumentError, match="numbers of samples differ"):
        split_validation(np.zeros((9, 1)), np.zeros(8), None, 0.3, "tail")


def test_fit_trains_and_validates_on_the_parts():
    x, y = RNG.normal(size=(40, 3)).astype(F32), np.arange(40) % 2
    model = hl.Sequential([hl.Input((3,)), L.Dense(2)])
    model.compile(hl.optimizers.SGD(0.0), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, validation_split=0.25, verbose=0).history
    assert history["loss"][0] == pytest.approx(model.evaluate(x[:30], y[:30], verbose=0), rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x[30:], y[30:], verbose=0), rel=1e-5)
    model.fit(x, np.sort(y), validation_split=0.25, split="stratified", verbose=0)


# Weights of classes --------------------------------------------------------------------------------------------------
SPARSE = hl.losses.SparseCategoricalCrossentropy()
WEIGHTS = {0: 0.5, 1: 2.0, 2: 3.0}


def test_weights_follow_the_classes_however_they_are_written():
    labels = RNG.integers(0, 3, 12)
    expected = np.array([WEIGHTS[label] for label in labels], F32)
    for y, loss in (
        (labels, SPARSE),
        (labels[:, None], SPARSE),
        (labels.astype(F32), SPARSE),
        (np.eye(3)[labels], hl.losses.CategoricalCrossentropy()),
    ):
        found = class_weights(y, WEIGHTS, loss, 2)
        assert found.dtype == np.float32 and np.array_equal(found, expected)
    binary = RNG.integers(0, 2, (12, 1))
    assert class_weights(binary, WEIGHTS, hl.losses.BinaryCrossentropy(), 2).tolist() == [
        WEIGHTS[label] for label in binary[:, 0]
    ]


def test_pixels_and_steps_have_weights_of_their_own():
    """Labels (batch, steps) are classes and not one-hot rows, whatever the number of steps."""
    labels = RNG.integers(0, 3, (2, 4, 5))
    expected = np.vectorize(WEIGHTS.get)(labels)
    assert np.array_equal(class_weights(labels, WEIGHTS, SPARSE, 4), expected)
    assert np.array_equal(class_weights(labels[..., None], WEIGHTS, SPARSE, 4), expected)
    one_hot = hl.losses.CategoricalCrossentropy()
    assert np.array_equal(class_weights(np.eye(3)[labels], WEIGHTS, one_hot, 4), expected)
    steps = labels[:, :, 0]
    assert np.array_equal(class_weights(steps, WEIGHTS, SPARSE, 3), expected[:, :, 0])


def test_a_segmentation_is_weighted_as_by_numpy():
    x = RNG.normal(size=(3, 4, 5, 2)).astype(F32)
    y = RNG.integers(0, 3, (3, 4, 5))
    model = hl.Sequential([hl.Input((4, 5, 2)), L.Conv2D(3, 1, activation="softmax")])
    model.compile(hl.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    p = model.predict(x, verbose=0)
    each = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0])
    sample = RNG.random(3).astype(F32)
    weights = np.vectorize(WEIGHTS.get)(y) * sample[:, None, None]
    found = model.fit(x, y, class_weight=WEIGHTS, sample_weight=sample, verbose=0).history["loss"][0]
    assert found == pytest.approx((each * weights).mean(), rel=1e-5)


def test_ignored_classes_need_no_weight():
    loss = hl.losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert class_weights(np.array([0, 255, 1]), WEIGHTS, loss, 2).tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("y", "weights", "loss", "words"),
    [
        (np.array([0, 1, 3]), WEIGHTS, SPARSE, r"\[0, 1, 3\]"),
        (np.array([0, 1]), {"0": 1.0, 1: 2.0}, SPARSE, "class numbers"),
        (np.array([0.5, 1.0]), WEIGHTS, hl.losses.MeanSquaredError(), "not classes"),
        (np.ones((2, 4)), WEIGHTS, hl.losses.BinaryCrossentropy(), "4 answers"),
    ],
)
def test_weights_that_do_not_fit_are_explained(y, weights, loss, words):
    with pytest.raises(ArgumentError, match=words):
        class_weights(y, weights, loss, 2)


def test_two_kinds_of_weights_are_multiplied_sample_by_sample():
    a, b = RNG.random(4), RNG.random((4, 5))
    assert np.array_equal(combine_weights(a, None), a)
    assert np.array_equal(combine_weights(a, a * 2), a * a * 2)
    assert np.array_equal(combine_weights(a, (a * 2)[:, None]), a * a * 2)
    assert np.array_equal(combine_weights(b, a), b * a[:, None])
    assert np.array_equal(combine_weights(a, b), b * a[:, None])
    assert np.array_equal(combine_weights(a, {"out": a}), a * a)
    with pytest.raises(ArgumentError, match=r"sample_weight \(5,\)"):
        combine_weights(a, np.ones(5))
