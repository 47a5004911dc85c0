from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

SHAPES = {1: (2, 9, 3), 2: (2, 8, 7, 3), 3: (2, 5, 6, 4, 3)}


def images(rng, rank, data_format="channels_last"):
    x = rng.normal(size=SHAPES[rank]).astype("float32")
    return np.moveaxis(x, -1, 1).copy() if data_format == "channels_first" else x


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"padding": "same"}, {"pool_size": 3, "strides": 1}, {"pool_size": 3, "strides": 2, "padding": "same"}],
    ids=str,
)
def test_windows(agrees, rng, rank, kind, data_format, arguments):
    arguments = {"pool_size": 2, "data_format": data_format, **arguments}
    agrees(f"{kind}Pooling{rank}D", arguments, images(rng, rank, data_format))


def test_axes_may_differ(agrees, rng):
    agrees("MaxPooling2D", {"pool_size": (2, 3), "strides": (1, 2)}, images(rng, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_global(agrees, rng, rank, kind, data_format, keepdims):
    arguments = {"data_format": data_format, "keepdims": keepdims}
    agrees(f"Global{kind}Pooling{rank}D", arguments, images(rng, rank, data_format))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_masked_mean(agrees, rng, data_format, keepdims):
    mask = rng.random((2, 9)) < 0.6
    arguments = {"data_format": data_format, "keepdims": keepdims}
    agrees("GlobalAveragePooling1D", arguments, images(rng, 1, data_format), mask=mask)


def test_the_mask_comes_with_the_input_and_ends_here(rng):
    masked = hl.layers.Masking()(np.float32([[[1], [3], [0]]]))
    y = hl.layers.GlobalAveragePooling1D()(masked)
    assert y.tolist() == [[2.0]] and y.mask is None


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 8, 3), ["rank 4", "x[None]"]),
        ((2, 8, 8), ["x[..., None]"]),
        ((2, 64), ["Flatten"]),
        ((2, 1, 8, 3), ["window", "axis 1"]),
    ],
)
def test_wrong_inputs(shape, words):
    with pytest.raises(ShapeError) as caught:
        hl.layers.MaxPooling2D(name="pool")(np.ones(shape, "float32"))
    assert all(word in str(caught.value) for word in ["pool", "got:", "expected:", *words])


@pytest.mark.parametrize("arguments", [{"pool_size": 0}, {"pool_size": (2, 2, 2)}, {"padding": "full"}, {"strides": 0}])
def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.MaxPooling2D(**arguments)
