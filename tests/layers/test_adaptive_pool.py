"""What the table of all layers does not say: pyramids, unknown sizes, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pyramid_as_in_pytorch(rng, mode, data_format):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, 13, 9)).astype("float32")
    given = x if data_format == "channels_first" else np.moveaxis(x, 1, -1).copy()
    found = np.asarray(hl.layers.SpatialPyramidPooling((4, 3, 1), mode, data_format)(given))
    pool = getattr(torch.nn.functional, f"adaptive_{mode.replace('average', 'avg')}_pool2d")
    expected = np.concatenate([pool(torch.from_numpy(x), n).flatten(2).numpy() for n in (4, 3, 1)], axis=2)
    np.testing.assert_allclose(
        found, expected if data_format == "channels_first" else np.moveaxis(expected, 1, -1), rtol=1e-5, atol=1e-6
    )


def test_images_of_any_size_have_one_length():
    model = hl.Sequential([hl.Input((None, None, 3)), hl.layers.SpatialPyramidPooling(), hl.layers.Flatten()])
    assert model.output_shape == (None, 63)
    for size in [(5, 8), (17, 4)]:
        assert model(np.ones((1, *size, 3), "float32")).shape == (1, 63)


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="output_size"):
        hl.layers.AdaptiveMaxPooling2D((1, 2, 3))
    with pytest.raises(ArgumentError, match="mode"):
        hl.layers.SpatialPyramidPooling(mode="median")
    with pytest.raises(ShapeError, match="rank 4"):
        hl.layers.AdaptiveAveragePooling2D(2)(np.ones((4, 4, 1), "float32"))
