from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError


@pytest.mark.parametrize("inner", [hl.layers.Dense(6), hl.layers.Conv2D(6, 2), hl.layers.Embedding(9, 6)], ids=repr)
def test_the_norm_becomes_one(rng, inner):
    layer = hl.layers.SpectralNormalization(inner, power_iterations=100)
    x = rng.integers(0, 9, (2, 4)) if "Embedding" in repr(inner) else rng.normal(size=(2, 5, 5, 4)).astype("float32")
    layer(x, training=True)
    matrix = layer.kernel.numpy().reshape(-1, 6)
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1.0, rtol=1e-4)
    before = layer.get_weights()
    layer(x)
    layer.freeze()
    layer(x, training=True)
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_kernel_of_zeros_stays():
    layer = hl.layers.SpectralNormalization(hl.layers.Dense(3, kernel_initializer="zeros"))
    layer(np.ones((2, 4), "float32"), training=True)
    assert not layer.kernel.numpy().any() and np.isfinite(layer.vector_u).all()


def test_training_keeps_the_norm_near_one(rng):
    """The kernel is projected before each step, and the optimizer moves it from there."""
    x = rng.normal(size=(64, 8)).astype("float32")
    y = 20 * x @ rng.normal(size=(8, 4)).astype("float32")
    model = hl.Sequential([hl.Input((8,)), hl.layers.SpectralNormalization(hl.layers.Dense(4), power_iterations=5)])
    model.compile(hl.optimizers.SGD(1e-3), "mse")
    model.fit(x, y, epochs=20, batch_size=64, verbose=0)
    model(x, training=True)
    assert abs(np.linalg.norm(model.layers[0].kernel.numpy(), 2) - 1) < 0.02
    history = model.fit(x, y, epochs=2, batch_size=64, verbose=0)
    assert history.history["loss"][0] > 10  # the target needs a larger norm than is allowed


def test_layers_without_a_kernel():
    with pytest.raises(ArgumentError, match="nothing to normalize"):
        hl.layers.SpectralNormalization(hl.layers.ReLU())(np.ones((2, 3), "float32"))
