"""Small helpers, against Keras's."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from highlevel import utils
from highlevel.errors import ArgumentError

LABELS = [[0, 2, 1], np.array([3]), np.array([[1], [0]]), np.array([[0, 1], [2, 0]])]


@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize("classes", [None, 5])
def test_one_hot_rows_are_those_of_keras(labels, classes):
    found = utils.to_categorical(labels, classes)
    expected = keras.utils.to_categorical(labels, classes)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(utils.to_categorical(np.asarray(labels, "float64"), classes), expected)


@pytest.mark.parametrize(("labels", "words"), [([0, 3], "3 at"), ([0, -1], "-1 at"), ([0.5], "not integers")])
def test_labels_that_are_none(labels, words):
    with pytest.raises(ArgumentError, match=words):
        utils.to_categorical(labels, 3)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("order", [1, 2])
def test_normalized_vectors_are_those_of_scikit_learn(axis, order, rng):
    """Keras's own function fails for axis 0."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = rng.normal(size=(3, 4))
    x[1] = 0
    expected = preprocessing.normalize(x, f"l{order}", axis=axis)
    np.testing.assert_allclose(utils.normalize(x, axis, order), expected, rtol=1e-6)
    if axis:
        np.testing.assert_allclose(keras.utils.normalize(x, axis, order), expected, rtol=1e-6)
        np.testing.assert_allclose(utils.normalize(x, -1, order), expected, rtol=1e-6)


SEQUENCES = [[[1, 2, 3], [4], [], [5, 6]], [np.ones((2, 3)), np.full((4, 3), 2.0)]]


@pytest.mark.parametrize("sequences", SEQUENCES, ids=["numbers", "vectors"])
@pytest.mark.parametrize("maxlen", [None, 2, 6])
@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
def test_padded_sequences_are_those_of_keras(sequences, maxlen, padding, truncating):
    options = {"maxlen": maxlen, "padding": padding, "truncating": truncating, "dtype": "float32", "value": -1.0}
    expected = keras.utils.pad_sequences(sequences, **options)
    found = utils.pad_sequences(sequences, **options)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_padding_that_is_not_known():
    for name in ("padding", "truncating"):
        with pytest.raises(ArgumentError, match=f"unknown {name}"):
            utils.pad_sequences([[1]], **{name: "both"})
    assert utils.pad_sequences([]).shape == (0, 0)
    assert utils.pad_sequences([[1]]).dtype == np.int32
