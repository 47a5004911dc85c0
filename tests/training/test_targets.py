"""Targets are looked at before anything runs, and what is wrong with them is said in a few lines."""

from __future__ import annotations

import time

import numpy as np
import pytest

from highlevel.errors import TargetError
from highlevel.ir import spec
from highlevel.training import loss_functions, losses
from highlevel.training.losses import check_targets

SPARSE = losses.SparseCategoricalCrossentropy
LABELS = np.arange(40) % 4


def message(loss, y, shape) -> str:
    with pytest.raises(TargetError) as error:
        check_targets(loss, y, spec(shape))
    text = str(error.value)
    assert len(text.splitlines()) <= 10 and "got:" in text and "expected:" in text
    return text


@pytest.mark.parametrize(
    "loss, y, shape",
    [
        (SPARSE(), LABELS, (8, 4)),
        (SPARSE(), LABELS[:, None], (8, 4)),
        (SPARSE(), LABELS.astype("float32"), (8, 4)),
        (SPARSE(), list(range(4)), (8, 4)),
        (SPARSE(), LABELS.astype("uint8"), (8, 4)),
        (SPARSE(ignore_class=-1), LABELS - 1, (8, 3)),
        (SPARSE(ignore_class=255), np.where(LABELS == 3, 255, LABELS), (8, 3)),
        (SPARSE(), np.zeros((6, 5, 5), int), (8, 5, 5, 3)),
        (SPARSE(axis=1), np.full((6, 5, 5), 2), (8, 3, 5, 5)),
        (losses.CategoricalCrossentropy(), np.eye(4)[LABELS], (8, 4)),
        (losses.CategoricalCrossentropy(), np.full((6, 4), 0.25), (8, 4)),
        (losses.BinaryCrossentropy(), LABELS % 2, (8, 1)),
        (losses.BinaryCrossentropy(), (LABELS % 2)[:, None], (8, 1)),
        (losses.BinaryCrossentropy(), LABELS % 2 == 0, (8, 1)),
        (losses.BinaryCrossentropy(), np.zeros((6, 4)), (8, 4)),
        (losses.MeanSquaredError(), np.ones(6), (8, 1)),
        (losses.MeanSquaredError(), np.ones((6, 3), int), (8, 3)),
        (losses.Poisson(), np.arange(6), (8, 1)),
        (losses.get(loss_functions.mean_squared_error), np.ones((6, 3)), (8, 3)),
        (losses.get(lambda y_true, y_pred: y_pred), np.ones((6, 3, 9)), (8, 3)),  # a user's loss may take anything
        (SPARSE(), np.zeros(0, int), (8, 4)),
        (losses.get("crossentropy"), LABELS, (8, 4)),
        (losses.get("ce"), np.eye(4)[LABELS], (8, 4)),
    ],
)
def test_good_targets_pass(loss, y, shape):
    check_targets(loss, y, spec(shape))


@pytest.mark.parametrize(
    "loss, y, shape, words",
    [
        (SPARSE(), np.where(np.arange(40) == 17, 4, LABELS), (8, 4), ["label 4 at sample 17", "0…3", "5"]),
        (SPARSE(), np.where(np.arange(40) == 3, -2, LABELS), (8, 4), ["label -2 at sample 3", "ignore_class=-2"]),
        (SPARSE(ignore_class=-1), np.where(LABELS == 1, -1, LABELS), (8, 2), ["label 2 at sample 2", "and 19 more"]),
        (SPARSE(), LABELS + 1, (8, 4), ["label 4 at sample 3", "counted from 1: use y - 1"]),
        (SPARSE(), np.eye(4)[LABELS], (8, 4), ["class numbers", "categorical_crossentropy", "np.argmax"]),
        (SPARSE(), LABELS + 0.5, (8, 4), ["0.5 at sample 0", "whole numbers 0…3", "mean_squared_error"]),
        (SPARSE(), np.zeros((40, 2), int), (8, 4), ["(batch, 2)"[:6], "(batch,)"]),
        (
            SPARSE(),
            np.where(np.arange(75).reshape(3, 5, 5) == 33, 9, 0),
            (8, 5, 5, 3),
            ["label 9", "sample 1, position (1, 3)"],
        ),
        (losses.CategoricalCrossentropy(), LABELS, (8, 4), ["sparse_categorical_crossentropy"]),
        (losses.CategoricalCrossentropy(), LABELS[:, None], (8, 4), ["sparse_categorical_crossentropy"]),
        (losses.CategoricalCrossentropy(), np.eye(4)[LABELS], (8, 3), ["3 units", "4 values"]),
        (losses.CategoricalCrossentropy(), -np.eye(4)[LABELS], (8, 4), ["-1.0 at sample 0", "0…1"]),
        (losses.BinaryCrossentropy(), LABELS, (8, 1), ["2 at sample 2", "head of 4 units"]),
        (losses.BinaryCrossentropy(), 2 * (LABELS % 2) - 1, (8, 1), ["-1 at sample 0", "hinge"]),
        (losses.BinaryCrossentropy(), 255.0 * (LABELS % 2), (8, 1), ["255.0 at sample 1", "y / 255"]),
        (losses.BinaryCrossentropy(), LABELS % 2, (8, 2), ["head of 1 unit", "2 classes"]),
        (losses.MeanSquaredError(), np.ones((6, 3)), (8, 1), ["1 units", "3 values", "never broadcast"]),
        (losses.MeanSquaredError(), np.ones(6), (8, 3), ["(batch,)", "(batch, 3)"]),
        (losses.MeanSquaredError(), np.array([1.0, np.nan, 2.0]), (8, 1), ["nan at sample 1", "finite"]),
        (losses.Huber(), np.array([1.0, np.inf, np.inf]), (8, 1), ["inf at sample 1 (and 1 more)"]),
        (losses.Poisson(), np.array([1.0, -1.0]), (8, 1), ["-1.0 at sample 1", "counts"]),
        (SPARSE(), np.array(["cat", "dog"]), (8, 2), ["not numbers", "np.unique"]),
        (losses.get("crossentropy"), LABELS, (8, 3), ["label 3 at sample 3"]),
        (losses.get("crossentropy"), LABELS, (8, 1), ["2 at sample 2", "head of 4 units"]),
        (losses.get("mse"), np.float32(3.0), (8, 1), ["single number", "one row per sample"]),
        (losses.get(loss_functions.binary_crossentropy), LABELS, (8, 1), ["2 at sample 2"]),
    ],
)
def test_bad_targets_are_explained(loss, y, shape, words):
    text = message(loss, y, shape)
    for word in words:
        assert word in text, f"{word!r} is not in\n{text}"


def test_the_shape_may_come_without_a_batch_size():
    class Open:
        shape = (None, 4)

    check_targets(SPARSE(), LABELS, Open())
    with pytest.raises(TargetError):
        check_targets(SPARSE(), LABELS + 1, Open())


def test_the_check_is_cheap():
    y = np.random.default_rng(0).integers(0, 1000, 1_000_000)
    start = time.perf_counter()
    check_targets(SPARSE(), y, spec((32, 1000)))
    assert time.perf_counter() - start < 0.5
