"""Locally connected layers. The oracle is Keras's convolution, with the kernel of one position after another."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ShapeError

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables


def expected(layer, x, rank):
    kernels, bias = layer.kernel.numpy(), layer.bias.numpy()
    twin = getattr(keras.layers, f"Conv{rank}D")(
        layer.filters, layer.kernel_size, strides=layer.strides, padding=layer.padding, use_bias=False
    )
    twin.build(x.shape)
    positions = list(np.ndindex(*layer.sizes))
    y = np.zeros((x.shape[0], *layer.sizes, layer.filters), "float32")
    for number, place in enumerate(positions):
        twin.set_weights([kernels[number].reshape(*layer.kernel_size, x.shape[-1], layer.filters)])
        y[(slice(None), *place)] = np.asarray(twin(x))[(slice(None), *place)] + bias[place]
    return y


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("options", [
    {}, {"padding": "same"}, {"strides": 2}, {"strides": 2, "padding": "same", "kernel_size": 3}, {"kernel_size": 1},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_every_position_has_a_kernel_of_its_own(rng, rank, options, data_format):
    x = rng.normal(size={1: (2, 7, 3), 2: (2, 5, 6, 3)}[rank]).astype("float32")
    given = x if data_format == "channels_last" else np.moveaxis(x, -1, 1).copy()
    layer = getattr(hl.layers, f"LocallyConnected{rank}D")(
        4, **{"kernel_size": 2, "data_format": data_format, **options}
    )
    layer(given)
    layer.set_weights([rng.normal(size=w.shape).astype("float32") for w in layer.weights])
    found = np.asarray(layer(given))
    found = found if data_format == "channels_last" else np.moveaxis(found, 1, -1)
    np.testing.assert_allclose(found, expected(layer, x, rank), rtol=1e-5, atol=1e-5)


def test_sizes_must_be_known_and_stay():
    layer = hl.layers.LocallyConnected2D(3, 2)
    with pytest.raises(ShapeError, match="weights of its own"):
        layer(hl.Input((None, 5, 3)))
    layer(np.ones((1, 5, 5, 3), "float32"))
    with pytest.raises(ShapeError, match="axis 1"):
        layer(np.ones((1, 6, 5, 3), "float32"))
