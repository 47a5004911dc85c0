"""What is drawn, within five standard errors; labels mixed with their images; models that vary what they see."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl

N = 3000


def test_flips_are_fair_and_independent():
    corner = np.zeros((N, 2, 2, 1), "float32")
    corner[:, 0, 0] = 1
    found = np.asarray(hl.layers.RandomFlip(seed=1)(corner))[..., 0].mean(0)
    assert np.abs(found - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / N)


@pytest.mark.parametrize("factor", [0.2, (0.1, 0.5), (-0.5, -0.4)], ids=str)
def test_brightness_is_spread_evenly(factor):
    low, high = factor if isinstance(factor, tuple) else (-factor, factor)
    grey = np.full((N, 1, 1, 1), 0.0, "float32")
    deltas = np.asarray(hl.layers.RandomBrightness(factor, value_range=(-1, 1), seed=1)(grey)).ravel() / 2
    assert low - 1e-6 <= deltas.min() and deltas.max() <= high + 1e-6
    assert abs(deltas.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * N)


def test_crops_lie_everywhere():
    ramp = np.broadcast_to(np.arange(5, dtype="float32").reshape(1, 5, 1, 1), (N, 5, 3, 1))
    tops = np.asarray(hl.layers.RandomCrop(3, 3, seed=1)(ramp))[:, 0, 0, 0]
    assert np.abs(np.bincount(tops.astype(int)) / N - 1 / 3).max() < 5 * np.sqrt(2 / 9 / N)


@pytest.mark.parametrize(("name", "factor"), [("RandomGrayscale", 0.3), ("RandomInvert", (0.3, 0.3))])
def test_probabilities(name, factor):
    colour = np.broadcast_to(np.float32([200, 100, 0]), (N, 1, 1, 3))
    changed = (np.asarray(getattr(hl.layers, name)(factor, seed=1)(colour)) != colour).any(axis=(1, 2, 3)).mean()
    assert abs(changed - 0.3) < 5 * np.sqrt(0.21 / N)


def test_mixed_labels_belong_to_mixed_images(rng):
    count = 16
    pictures = np.broadcast_to(np.eye(count, dtype="float32")[:, None, None], (count, 8, 8, count))
    data = {"images": pictures, "labels": np.eye(count, dtype="float32")}
    for name in ("MixUp", "CutMix"):
        found = getattr(hl.layers, name)(seed=3)(data)
        shares = np.asarray(found["images"]).mean(axis=(1, 2))  # of each original in each image
        np.testing.assert_allclose(found["labels"].numpy().sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(found["labels"], shares, atol=1e-5 if name == "MixUp" else 0.3)
        assert (shares < 0.99).any()


def test_in_a_model_that_trains(rng, tmp_path):
    x, y = rng.integers(0, 255, (32, 8, 8, 3)).astype("uint8"), rng.integers(0, 2, 32)
    layers = hl.layers
    model = hl.Sequential(
        [
            hl.Input((8, 8, 3), dtype="uint8"),
            layers.Pipeline([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomCrop(6, 6)]),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    found = hl.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    np.testing.assert_array_equal(found, model.predict(x, verbose=0))
