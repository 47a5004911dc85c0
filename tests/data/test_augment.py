"""Batches of pictures, varied a little."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel.data.augment import ImageBatches, vary
from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError

PREPROCESSING = Preprocessing(size=(8, 16), mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 16, 3)).astype(np.uint8)
LABELS = np.arange(7)


def test_pictures_are_normalised_batch_by_batch():
    batches = ImageBatches(IMAGES, LABELS, PREPROCESSING, batch_size=3)
    assert len(batches) == 3
    found = list(batches)
    assert [len(batch.x) for batch in found] == [3, 3, 1]
    x = np.concatenate([batch.x for batch in found])
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, (IMAGES - np.array([10.0, 20, 30])) / [2, 4, 8], rtol=1e-6)
    assert np.concatenate([batch.y for batch in found]).tolist() == LABELS.tolist()
    assert all(batch.y is None for batch in ImageBatches(IMAGES, None, PREPROCESSING))


def test_shuffled_pictures_keep_their_labels():
    batches = ImageBatches(IMAGES, LABELS, PREPROCESSING, batch_size=2, shuffle=True, seed=1)
    orders = []
    for _ in range(2):
        found = list(batches)
        labels = np.concatenate([batch.y for batch in found])
        np.testing.assert_array_equal(np.concatenate([b.x for b in found]), PREPROCESSING.normalize(IMAGES[labels]))
        orders.append(labels.tolist())
    assert orders[0] != orders[1] and sorted(orders[0]) == LABELS.tolist()
    again = ImageBatches(IMAGES, LABELS, PREPROCESSING, batch_size=2, shuffle=True, seed=1)
    assert np.concatenate([batch.y for batch in again]).tolist() == orders[0]


def test_one_label_per_picture():
    with pytest.raises(ArgumentError, match="one label per picture"):
        ImageBatches(IMAGES, LABELS[:3], PREPROCESSING)


def test_variations_are_shifts_and_mirrors_by_an_eighth_at_most():
    """Each is found among all of them; all directions come up; the pictures themselves stay."""
    ramp = np.arange(8 * 16 * 3).reshape(8, 16, 3).astype(np.float32)
    padded = np.pad(ramp, ((1, 1), (2, 2), (0, 0)), mode="reflect")
    known = {}
    for top in range(3):
        for left in range(5):
            piece = padded[top : top + 8, left : left + 16]
            known[piece.tobytes()], known[piece[:, ::-1].tobytes()] = (top, left, False), (top, left, True)
    many = np.repeat(ramp[None], 400, axis=0)
    found = {known[picture.tobytes()] for picture in vary(many, np.random.default_rng(0))}
    assert len(found) == 30
    assert (many == ramp).all()


def test_variations_are_new_in_every_epoch_and_follow_the_seed():
    batches = ImageBatches(IMAGES, LABELS, PREPROCESSING, varied=True, seed=2)
    first, second = next(iter(batches)).x, next(iter(batches)).x
    assert not np.array_equal(first, second)
    assert np.array_equal(first, next(iter(ImageBatches(IMAGES, LABELS, PREPROCESSING, varied=True, seed=2))).x)
