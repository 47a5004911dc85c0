from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, DTypeError, ShapeError

SHAPES = {1: (2, 9, 4), 2: (2, 8, 7, 4), 3: (2, 5, 6, 4, 4)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"strides": 3, "kernel_size": 2},
        {"strides": 2, "output_padding": 1, "padding": "same"},
        {"strides": 2, "output_padding": 0},
        {"use_bias": False, "activation": "tanh"},
    ],
    ids=str,
)
def test_transposed(agrees, rng, rank, arguments):
    agrees(
        f"Conv{rank}DTranspose",
        {"filters": 3, "kernel_size": 3, **arguments},
        rng.normal(size=SHAPES[rank]).astype("float32"),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_channels_first(agrees, rng, rank):
    x = np.moveaxis(rng.normal(size=SHAPES[rank]).astype("float32"), -1, 1).copy()
    options = {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"}
    agrees(f"Conv{rank}DTranspose", options, x)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_it_is_the_gradient_of_the_convolution(rng, padding):
    x, y = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(2, 4, 4, 5))
    conv = hl.layers.Conv2D(5, 2, strides=2, padding=padding, use_bias=False, dtype="float64")
    transposed = hl.layers.Conv2DTranspose(3, 2, strides=2, padding=padding, use_bias=False, dtype="float64")
    conv(x), transposed(y)
    transposed.set_weights(conv.get_weights())
    found = hl.grad(lambda x: hl.ops.sum(conv(x) * y))(x)
    np.testing.assert_allclose(transposed(y), found, rtol=1e-12)


def test_output_padding_is_less_than_the_stride():
    with pytest.raises(ArgumentError, match="output_padding"):
        hl.layers.Conv2DTranspose(4, 3, strides=2, output_padding=2)


def test_wrong_inputs():
    layer = hl.layers.Conv2DTranspose(4, 3, name="up")
    with pytest.raises(ShapeError, match="rank 4"):
        layer(np.ones((2, 8), "float32"))
    with pytest.raises(DTypeError, match="uint8"):
        layer(np.ones((2, 8, 8, 3), "uint8"))
    with pytest.raises(ArgumentError, match="padding"):
        hl.layers.Conv2DTranspose(4, 3, padding="causal")
