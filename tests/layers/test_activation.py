from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


def data(rng, shape=(3, 4, 5)):
    return (3 * rng.normal(size=shape)).astype("float32")


@pytest.mark.parametrize("name", ["relu", "softmax", "gelu", "linear", "swish", "hard_sigmoid", "tanh", "selu"])
def test_activation(agrees, rng, name):
    agrees("Activation", {"activation": name}, data(rng))


def test_activation_takes_functions(rng):
    x = data(rng)
    np.testing.assert_array_equal(hl.layers.Activation(lambda x: x * 2)(x), 2 * x)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_value": 6},
        {"negative_slope": 0.2},
        {"threshold": 1.0},
        {"max_value": 2.0, "negative_slope": 0.1, "threshold": 0.5},
    ],
    ids=str,
)
def test_relu(agrees, rng, arguments):
    agrees("ReLU", arguments, data(rng))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("LeakyReLU", {}), ("LeakyReLU", {"negative_slope": 0.1}), ("ELU", {}), ("ELU", {"alpha": 0.5})],
    ids=str,
)
def test_leaky(agrees, rng, name, arguments):
    agrees(name, arguments, data(rng))


@pytest.mark.parametrize("arguments", [{}, {"shared_axes": [1]}, {"shared_axes": 2}, {"shared_axes": [1, 2]}], ids=str)
def test_prelu(agrees, rng, arguments):
    agrees("PReLU", arguments, data(rng))


@pytest.mark.parametrize("axis", [-1, 1, 0, (1, 2), (2,)])
def test_softmax(agrees, rng, axis):
    agrees("Softmax", {"axis": axis}, data(rng))


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 5), (4, 5), (5,)])
@pytest.mark.parametrize("axis", [-1, (1, 2)])
def test_masked_softmax(agrees, rng, shape, axis):
    mask = rng.random(shape) < 0.6
    agrees("Softmax", {"axis": axis}, data(rng), mask=mask)


def test_softmax_of_nothing_is_zero(agrees, rng):
    layer = agrees("Softmax", {}, data(rng), mask=np.zeros((3, 4, 5), bool))
    assert not np.any(layer(data(rng), mask=np.zeros((3, 4, 5), bool)))


def test_wrong_inputs():
    with pytest.raises(ArgumentError, match="axis 2 does not exist"):
        hl.layers.Softmax(axis=2)(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError, match="mask"):
        hl.layers.Softmax()(np.ones((2, 3), "float32"), mask=np.ones((2, 4), bool))
    layer = hl.layers.PReLU()
    layer(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError, match="axis 1"):
        layer(np.ones((2, 4), "float32"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ReLU", {"max_value": -1}),
        ("ReLU", {"negative_slope": None}),
        ("LeakyReLU", {"negative_slope": -0.1}),
        ("PReLU", {"shared_axes": [0]}),
        ("Activation", {"activation": "rellu"}),
    ],
    ids=str,
)
def test_wrong_arguments(name, arguments):
    with pytest.raises(ArgumentError):
        getattr(hl.layers, name)(**arguments)


def test_random_rectifier_at_rest_as_in_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(4, 5)).astype("float32")
    expected = torch.nn.RReLU().eval()(torch.from_numpy(x))
    np.testing.assert_allclose(hl.layers.RReLU()(x), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(("shared", "count"), [(None, 6 * 5 * 3), ([1], 5 * 3), ([1, 2], 3)])
def test_random_rectifier_while_training(shared, count):
    layer = hl.layers.RReLU(0.2, 0.6, shared_axes=shared, seed=1)
    x = np.full((1, 6, 5, 3), -1.0, "float32")
    slopes = -layer(x, training=True).numpy()
    assert len(np.unique(slopes)) == count and slopes.min() >= 0.2 and slopes.max() < 0.6
    np.testing.assert_array_equal(layer(-x, training=True), -x)
    assert not np.array_equal(slopes, -layer(x, training=True).numpy())
    with pytest.raises(ArgumentError, match="lower"):
        hl.layers.RReLU(0.5, 0.2)
