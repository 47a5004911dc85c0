from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ShapeError


def test_identity(agrees, rng):
    agrees("Identity", {}, rng.normal(size=(2, 3)).astype("float32"))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_masking(agrees, rng, value):
    x = rng.normal(size=(3, 5, 2)).astype("float32")
    x[0, 2:] = value
    x[1, 1, 0] = value
    layer = agrees("Masking", {"mask_value": value}, x)
    expected = np.ones((3, 5), bool)
    expected[0, 2:] = False
    np.testing.assert_array_equal(layer(x).mask, expected)


def test_masking_wants_features():
    with pytest.raises(ShapeError, match="features"):
        hl.layers.Masking()(np.ones(3, "float32"))
