from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


@pytest.mark.parametrize("function", ["max", "mean", "sum", "min"])
@pytest.mark.parametrize("axis", [1, -1])
def test_groups_of_neighbours(rng, function, axis):
    x = rng.normal(size=(3, 6, 5, 6)).astype("float32")
    found = hl.layers.FeaturePool(3, axis, function)(x)
    parts = np.split(x, 2, axis=axis)
    expected = np.stack([getattr(np, function)(part, axis=axis) for part in parts], axis=axis)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_winner_takes_all(rng):
    x = rng.normal(size=(3, 6, 5)).astype("float32")
    found = hl.layers.FeatureWTA(2, axis=1)(x).numpy()
    pooled = hl.layers.FeaturePool(2, axis=1)(x)
    np.testing.assert_array_equal(found.reshape(3, 3, 2, 5).sum(axis=2), pooled)
    assert ((found != 0).reshape(3, 3, 2, 5).sum(axis=2) == 1).all()


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="max"):
        hl.layers.FeaturePool(2, pool_function="median")
    with pytest.raises(ShapeError, match="split into groups"):
        hl.layers.FeaturePool(4)(np.ones((2, 6), "float32"))
