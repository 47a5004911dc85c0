from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, DTypeError, ShapeError

SHAPES = {1: (2, 9, 4), 2: (2, 8, 7, 4), 3: (2, 5, 6, 4, 4)}
GEOMETRY = [
    {},
    {"padding": "same"},
    {"strides": 2},
    {"strides": 2, "padding": "same"},
    {"dilation_rate": 2},
    {"dilation_rate": 2, "padding": "same"},
    {"use_bias": False, "activation": "relu"},
]


def images(rng, rank, data_format="channels_last"):
    x = rng.normal(size=SHAPES[rank]).astype("float32")
    return np.moveaxis(x, -1, 1).copy() if data_format == "channels_first" else x


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("arguments", [*GEOMETRY, {"groups": 2}, {"padding": "SAME"}], ids=str)
def test_conv(agrees, rng, rank, arguments):
    size = 3 if rank < 3 else 2
    agrees(f"Conv{rank}D", {"filters": 6, "kernel_size": size, **arguments}, images(rng, rank))


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": (2, 3), "strides": (1, 2)},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": (3, 1), "padding": "same", "dilation_rate": (2, 1)},
        {"kernel_size": 5, "padding": "same", "strides": (3, 2)},
    ],
    ids=str,
)
def test_conv2d_axes_differ(agrees, rng, arguments):
    agrees("Conv2D", {"filters": 3, **arguments}, images(rng, 2))


CHANNELS_FIRST = [
    ("Conv{}D", (1, 2, 3), {"filters": 6, "kernel_size": 2}),
    ("Conv{}D", (1, 2, 3), {"filters": 6, "kernel_size": 2, "groups": 2, "padding": "same"}),
    ("Conv{}D", (1, 2, 3), {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("DepthwiseConv{}D", (1, 2), {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}),
    ("SeparableConv{}D", (1, 2), {"filters": 3, "kernel_size": 3}),
]


@pytest.mark.parametrize(
    ("name", "rank", "arguments"),
    [(n, rank, options) for n, ranks, options in CHANNELS_FIRST for rank in ranks],
    ids=str,
)
def test_channels_first(agrees, rng, name, rank, arguments):
    agrees(name.format(rank), {"data_format": "channels_first", **arguments}, images(rng, rank, "channels_first"))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("arguments", [*GEOMETRY, {"depth_multiplier": 3}], ids=str)
def test_depthwise(agrees, rng, rank, arguments):
    agrees(f"DepthwiseConv{rank}D", {"kernel_size": 3, **arguments}, images(rng, rank))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("arguments", [*GEOMETRY, {"depth_multiplier": 2}], ids=str)
def test_separable(agrees, rng, rank, arguments):
    agrees(f"SeparableConv{rank}D", {"filters": 5, "kernel_size": 3, **arguments}, images(rng, rank))


@pytest.mark.parametrize("arguments", [{}, {"dilation_rate": 2}, {"strides": 2}, {"groups": 2}], ids=str)
def test_causal(agrees, rng, arguments):
    agrees("Conv1D", {"filters": 6, "kernel_size": 3, "padding": "causal", **arguments}, images(rng, 1))


@pytest.mark.parametrize("name", ["Conv1D", "DepthwiseConv1D", "SeparableConv1D"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_causal_outputs_do_not_see_what_comes_later(rng, name, data_format):
    filters = {} if name == "DepthwiseConv1D" else {"filters": 5}
    options = {"kernel_size": 3, "dilation_rate": 2, "padding": "causal", "data_format": data_format}
    layer = getattr(hl.layers, name)(**filters, **options)
    axis = 1 if data_format == "channels_last" else 2
    x = images(rng, 1, data_format)
    later = x.copy()
    later[(slice(None),) * axis + (slice(4, None),)] += 1.0
    before, after = np.moveaxis(layer(x), axis, 1), np.moveaxis(layer(later), axis, 1)
    assert before.shape[1] == 9
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.isclose(before[:, 4:], after[:, 4:]).all(axis=(0, 2)).any()


def fails(layer, x, error, *words):
    with pytest.raises(error) as caught:
        layer(x)
    message = str(caught.value)
    assert all(word in message for word in ["got:", "expected:", *words]), message
    assert len(message.splitlines()) <= 10


def test_wrong_inputs():
    conv = hl.layers.Conv2D(4, 3, name="stem")
    fails(
        conv, np.ones((28, 28, 3), "float32"), ShapeError, "stem", "rank 4: (batch, height, width, channels)", "x[None]"
    )
    fails(conv, np.ones((5, 28, 28), "float32"), ShapeError, "x[..., None]")
    fails(conv, np.ones((5, 28, 28, 3), "uint8"), DTypeError, "uint8", "/ 255")
    fails(conv, np.ones((5, 2, 28, 3), "float32"), ShapeError, "window", "padding='same'")
    fails(conv, hl.Input((None, None, None)), ShapeError, "number of channels")
    conv(np.ones((1, 8, 8, 3), "float32"))
    fails(conv, np.ones((1, 3, 8, 8), "float32"), ShapeError, "axis -1", "channels_first")
    fails(hl.layers.Conv2D(4, 3, groups=2), np.ones((1, 8, 8, 3), "float32"), ShapeError, "groups=2")


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": 0},
        {"filters": 3, "groups": 2},
        {"kernel_size": (3, 3, 3)},
        {"kernel_size": 0},
        {"padding": "causal"},
        {"padding": 1},
        {"strides": 0},
        {"data_format": "NCHW"},
    ],
    ids=str,
)
def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.Conv2D(**{"filters": 4, "kernel_size": 3, **arguments})


def test_strides_and_dilation_together(rng):
    torch = pytest.importorskip("torch")
    x = images(rng, 2)
    layer = hl.layers.Conv2D(6, 3, strides=2, dilation_rate=2)
    y = np.asarray(layer(x))
    kernel = torch.from_numpy(np.transpose(layer.kernel.numpy(), (3, 2, 0, 1)).copy())
    expected = torch.nn.functional.conv2d(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), kernel, stride=2, dilation=2)
    np.testing.assert_allclose(y, np.moveaxis(expected.numpy(), 1, -1), rtol=1e-5, atol=1e-5)
