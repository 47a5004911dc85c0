from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


@pytest.mark.parametrize(("way", "start"), [("lower", 0), ("center", 1), ("upper", 3)])  # 5 of 8; the middle as Lasagne
def test_where_it_cuts(rng, way, start):
    a, b = rng.normal(size=(2, 8, 3)).astype("float32"), rng.normal(size=(2, 5, 4)).astype("float32")
    found = hl.layers.Autocrop([None, way])([a, b])
    np.testing.assert_array_equal(found[0], a[:, start : start + 5])
    np.testing.assert_array_equal(found[1], b)


def test_before_a_merging_layer():
    inputs = [hl.Input((9, 9, 4)), hl.Input((5, 7, 4))]
    model = hl.Model(inputs, hl.layers.Concatenate()(hl.layers.Autocrop([None, "center", "center"])(inputs)))
    assert model.output_shape == (None, 5, 7, 8)


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="cropping"):
        hl.layers.Autocrop(["middle"])
    with pytest.raises(ArgumentError, match="list"):
        hl.layers.Autocrop("center")
    with pytest.raises(ShapeError, match="several"):
        hl.layers.Autocrop([None])(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError, match="ranks 2, 3"):
        hl.layers.Autocrop([None])([np.ones((2, 3), "float32"), np.ones((2, 3, 1), "float32")])
