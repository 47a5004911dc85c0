"""Random layers: what they leave alone, and the statistics of what they do, within five standard errors."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.base import collect_losses

N = 40_000
RANDOM = [
    hl.layers.Dropout(0.3),
    hl.layers.SpatialDropout1D(0.3),
    hl.layers.GaussianNoise(0.3),
    hl.layers.GaussianDropout(0.3),
    hl.layers.AlphaDropout(0.3),
]


@pytest.mark.parametrize("layer", RANDOM, ids=lambda layer: layer.name)
def test_only_training_is_random(rng, layer):
    x = rng.normal(size=(4, 50, 60)).astype("float32")
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    first, second = np.asarray(layer(x, training=True)), np.asarray(layer(x, training=True))
    assert (first != x).any() and (first != second).any()


@pytest.mark.parametrize("layer", RANDOM, ids=lambda layer: layer.name)
def test_seeds_repeat_in_and_out_of_programs(rng, layer):
    x = rng.normal(size=(4, 5, 6)).astype("float32")
    config = {**layer.get_config(), "seed": 11}
    one, two, other = type(layer).from_config(config), type(layer).from_config(config), type(layer)(0.3, seed=12)
    compiled = hl.jit(lambda x: two(x, training=True))
    for _ in range(3):
        expected = np.asarray(one(x, training=True))
        np.testing.assert_allclose(compiled(x), expected, rtol=1e-6)
        assert (np.asarray(other(x, training=True)) != expected).any()
    assert compiled.traces == 1


def test_the_generator_is_state_but_no_weight():
    layer = hl.layers.Dropout(0.3)
    layer.build((None, 3))
    assert layer.weights == [] and layer.trainable_variables == []
    assert [v.path for v in layer.variables] == ["dropout/seed_generator/seed_generator_state"]
    assert hl.layers.Dropout(0.0).variables == []


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate):
    y = np.asarray(hl.layers.Dropout(rate, seed=1)(np.ones(N, "float32"), training=True))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / N)


def test_ends_of_the_range():
    x = np.ones((3, 4), "float32")
    assert not np.any(hl.layers.Dropout(1.0)(x, training=True))
    np.testing.assert_array_equal(hl.layers.Dropout(0)(x, training=True), x)


@pytest.mark.parametrize(
    ("layer", "shape", "shared"),
    [
        (hl.layers.Dropout(0.5, noise_shape=(None, 1, None)), (20, 5, 30), (1,)),
        (hl.layers.Dropout(0.5, noise_shape=(20, 1, 1)), (20, 5, 30), (1, 2)),
        (hl.layers.SpatialDropout1D(0.5), (20, 5, 30), (1,)),
        (hl.layers.SpatialDropout2D(0.5), (20, 4, 5, 30), (1, 2)),
        (hl.layers.SpatialDropout2D(0.5, data_format="channels_first"), (20, 30, 4, 5), (2, 3)),
        (hl.layers.SpatialDropout3D(0.5), (20, 2, 3, 4, 30), (1, 2, 3)),
    ],
    ids=str,
)
def test_shared_choices(layer, shape, shared):
    y = np.asarray(layer(np.ones(shape, "float32"), training=True))
    assert (y == y.max(axis=shared, keepdims=True)).all()
    own = y.max(axis=shared)
    assert 0.2 < (own == 0).mean() < 0.8


def test_gaussian_noise():
    y = np.asarray(hl.layers.GaussianNoise(0.5, seed=1)(np.full(N, 3, "float32"), training=True))
    assert abs(y.mean() - 3) < 5 * 0.5 / np.sqrt(N)
    assert abs(y.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * N)


def test_gaussian_dropout():
    y = np.asarray(hl.layers.GaussianDropout(0.2, seed=1)(np.full(N, 2, "float32"), training=True))
    deviation = 2 * np.sqrt(0.2 / 0.8)
    assert abs(y.mean() - 2) < 5 * deviation / np.sqrt(N)
    assert abs(y.std() - deviation) < 5 * deviation / np.sqrt(2 * N)


def test_alpha_dropout_keeps_mean_and_variance(rng):
    x = rng.normal(size=N).astype("float32")
    y = np.asarray(hl.layers.AlphaDropout(0.3, seed=1)(x, training=True))
    assert abs(y.mean()) < 0.03 and abs(y.std() - 1) < 0.03
    values, counts = np.unique(y, return_counts=True)
    assert abs(counts.max() / N - 0.3) < 5 * np.sqrt(0.3 * 0.7 / N)  # all dropped elements have one value …
    assert values[counts.argmax()] < -1  # … far below zero


def test_masks_pass():
    x = hl.layers.Masking()(np.float32([[[1], [0]]]))
    for layer in RANDOM:
        for training in (False, True):
            assert layer(x, training=training).mask.tolist() == [[True, False]]


def test_activity_regularization(agrees, rng):
    x = rng.normal(size=(4, 3)).astype("float32")
    layer = agrees("ActivityRegularization", {"l1": 0.1, "l2": 0.2}, x)
    with collect_losses() as losses:
        layer(x)
    np.testing.assert_allclose(losses[0], (0.1 * np.abs(x).sum() + 0.2 * np.square(x).sum()) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Dropout", {"rate": 1.5}),
        ("Dropout", {"rate": "0.5"}),
        ("Dropout", {"rate": 0.5, "noise_shape": (0, 1)}),
        ("GaussianNoise", {"stddev": -1}),
        ("GaussianDropout", {"rate": 1}),
        ("AlphaDropout", {"rate": 1}),
    ],
    ids=str,
)
def test_wrong_arguments(name, arguments):
    with pytest.raises(ArgumentError):
        getattr(hl.layers, name)(**arguments)


def test_wrong_inputs():
    with pytest.raises(ShapeError, match="rank 4"):
        hl.layers.SpatialDropout2D(0.5)(np.ones((2, 3, 4), "float32"))
    with pytest.raises(ArgumentError, match="noise_shape"):
        hl.layers.Dropout(0.5, noise_shape=(1, 2))(np.ones((2, 3, 4), "float32"), training=True)
