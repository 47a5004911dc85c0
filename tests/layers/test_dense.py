from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, DTypeError, ShapeError


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 4, 5, 3), (0, 3)])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"activation": "relu"}, {"activation": "softmax"}, {"use_bias": False}, {"kernel_initializer": "he_normal"}],
    ids=str,
)
def test_outputs(agrees, rng, shape, arguments):
    agrees("Dense", {"units": 4, **arguments}, rng.normal(size=shape).astype("float32"))


def test_weights_and_their_paths():
    layer = hl.layers.Dense(4, name="head", kernel_regularizer="l2", bias_constraint="non_neg")
    layer.build((None, 3))
    assert [(w.path, w.shape) for w in layer.weights] == [("head/kernel", (3, 4)), ("head/bias", (4,))]
    assert layer.kernel.regularizer is not None and layer.bias.constraint is not None
    assert layer.count_params() == 16


def test_building_twice_makes_the_weights_once():
    layer = hl.layers.Dense(4)
    layer.build((None, 3))
    kernel = layer.kernel
    layer.build((None, 3))
    layer(np.ones((2, 3), "float32"))
    assert layer.kernel is kernel and len(layer.weights) == 2


def test_activity_regularizer_adds_to_the_loss(rng):
    from highlevel.layers.base import collect_losses

    layer = hl.layers.Dense(4, activity_regularizer=hl.regularizers.L2(0.1))
    with collect_losses() as losses:
        y = layer(rng.normal(size=(5, 3)).astype("float32"))
    np.testing.assert_allclose(losses[0], 0.1 * np.sum(np.square(y)) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.ones(3, "float32"), ShapeError, ["(batch, …, features)", "x[None]"]),
        (np.ones((2, 3), "int32"), DTypeError, ["int32", "one_hot"]),
        (np.ones((2, 3), "uint8"), DTypeError, ["uint8", "/ 255"]),
    ],
)
def test_wrong_inputs(x, error, words):
    with pytest.raises(error) as caught:
        hl.layers.Dense(4, name="head")(x)
    assert all(word in str(caught.value) for word in ["head", "got:", "expected:", *words])
    assert len(str(caught.value).splitlines()) <= 10


def test_the_last_axis_may_not_change():
    layer = hl.layers.Dense(4, name="head")
    layer(np.ones((2, 6), "float32"))
    with pytest.raises(ShapeError, match="axis -1") as caught:
        layer(np.ones((2, 3, 2), "float32"))
    assert "Flatten" in str(caught.value)
    with pytest.raises(ShapeError, match=r"\(None, 5\)"):
        layer(hl.Input((5,)))


@pytest.mark.parametrize("units", [0, -1, 2.5, "4", True])
def test_wrong_units(units):
    with pytest.raises(ArgumentError, match="units"):
        hl.layers.Dense(units)


def test_misspelt_argument():
    with pytest.raises(ArgumentError, match="did you mean 'activation'"):
        hl.layers.Dense(4, activaton="relu")
