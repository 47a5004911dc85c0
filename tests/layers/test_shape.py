from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


def data(rng, *shape):
    return rng.normal(size=shape).astype("float32")


FORMATS = [{}, {"data_format": "channels_first"}]


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4)])
@pytest.mark.parametrize("arguments", FORMATS, ids=str)
def test_flatten(agrees, rng, shape, arguments):
    agrees("Flatten", arguments, data(rng, *shape))


@pytest.mark.parametrize("target", [(12,), (3, 4), (2, -1), (-1,), (1, 12, 1), (-1, 2, 3)], ids=str)
def test_reshape(agrees, rng, target):
    agrees("Reshape", {"target_shape": target}, data(rng, 2, 6, 2))


def test_reshape_of_nothing_and_of_unknown_sizes(rng):
    assert hl.layers.Reshape((-1, 2))(data(rng, 0, 6)).shape == (0, 3, 2)
    assert hl.layers.Reshape((-1, 8))(hl.Input((None, 4))).shape == (None, None, 8)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Permute", {"dims": (2, 1)}, (2, 3, 4)),
        ("Permute", {"dims": (3, 1, 2)}, (2, 3, 4, 5)),
        ("RepeatVector", {"n": 3}, (2, 4)),
        ("ZeroPadding1D", {}, (2, 5, 3)),
        ("ZeroPadding1D", {"padding": (2, 0)}, (2, 5, 3)),
        ("ZeroPadding1D", {"padding": 2, "data_format": "channels_first"}, (2, 3, 5)),
        ("Cropping1D", {}, (2, 5, 3)),
        ("Cropping1D", {"cropping": 2}, (2, 5, 3)),
        ("UpSampling1D", {}, (2, 5, 3)),
        ("UpSampling1D", {"size": 3}, (2, 5, 3)),
    ],
    ids=str,
)
def test_sequences(agrees, rng, name, arguments, shape):
    agrees(name, arguments, data(rng, *shape))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ZeroPadding2D", {}),
        ("ZeroPadding2D", {"padding": 2}),
        ("ZeroPadding2D", {"padding": (0, 2)}),
        ("ZeroPadding2D", {"padding": ((0, 1), (2, 3))}),
        ("Cropping2D", {}),
        ("Cropping2D", {"cropping": 1}),
        ("Cropping2D", {"cropping": (1, 2)}),
        ("Cropping2D", {"cropping": ((0, 1), (2, 0))}),
        ("UpSampling2D", {}),
        ("UpSampling2D", {"size": (1, 3)}),
        ("UpSampling2D", {"interpolation": "bilinear"}),
        ("UpSampling2D", {"size": (3, 2), "interpolation": "bicubic"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("data_format", FORMATS, ids=str)
def test_images(agrees, rng, name, arguments, data_format):
    agrees(name, {**arguments, **data_format}, data(rng, 2, 4, 5, 6))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ZeroPadding3D", {}),
        ("ZeroPadding3D", {"padding": ((0, 1), (2, 0), (1, 1))}),
        ("ZeroPadding3D", {"padding": (1, 0, 2)}),
        ("Cropping3D", {}),
        ("Cropping3D", {"cropping": ((0, 1), (2, 0), (1, 1))}),
        ("UpSampling3D", {}),
        ("UpSampling3D", {"size": (1, 2, 3)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("data_format", FORMATS, ids=str)
def test_volumes(agrees, rng, name, arguments, data_format):
    agrees(name, {**arguments, **data_format}, data(rng, 2, 4, 5, 6, 3))


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (lambda: hl.layers.Reshape((5, 5)), (2, 24), ["24 elements", "25"]),
        (lambda: hl.layers.Reshape((-1, 5)), (2, 24), ["multiple of 5"]),
        (lambda: hl.layers.Reshape((2, 4, 3)), (2, 4, 3), ["does not hold the batch axis"]),
        (lambda: hl.layers.Permute((2, 1)), (2, 3), ["rank 3"]),
        (lambda: hl.layers.RepeatVector(2), (2, 3, 4), ["(batch, features)"]),
        (lambda: hl.layers.ZeroPadding2D(), (4, 5, 3), ["rank 4", "x[None]"]),
        (lambda: hl.layers.Cropping2D(3), (2, 6, 8, 3), ["nothing would be left", "axis 1"]),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_wrong_inputs(layer, shape, words, symbolic):
    with pytest.raises(ShapeError) as caught:
        layer()(hl.Input(batch_shape=shape) if symbolic else np.ones(shape, "float32"))
    message = str(caught.value)
    assert all(word in message for word in ["got:", "expected:", "layer:", *words]), message


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Reshape", {"target_shape": (-1, -1)}, "one of which may be −1"),
        ("Reshape", {"target_shape": (2.5,)}, "sizes"),
        ("Permute", {"dims": (0, 1)}, "batch axis"),
        ("Permute", {"dims": (1, 3)}, "each of 1…2 once"),
        ("RepeatVector", {"n": 0}, "n is"),
        ("ZeroPadding2D", {"padding": (1, 2, 3)}, "pairs"),
        ("ZeroPadding1D", {"padding": -1}, "integer ≥ 0"),
        ("UpSampling2D", {"interpolation": "cubic"}, "bicubic"),
    ],
)
def test_wrong_arguments(name, arguments, words):
    with pytest.raises(ArgumentError, match=words):
        getattr(hl.layers, name)(**arguments)
