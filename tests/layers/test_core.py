from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError


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


def test_descriptions_of_layers():
    description = hl.layers.serialize(hl.layers.Conv2D(4, 3, name="stem"))
    copy = hl.layers.deserialize(description)
    assert isinstance(copy, hl.layers.Conv2D) and copy.name == "stem" and copy.filters == 4

    class Other(hl.layers.Dense):
        pass

    found = hl.layers.deserialize({"class_name": "Mine", "config": {"units": 2}}, custom_objects={"Mine": Other})
    assert type(found) is Other


@pytest.mark.parametrize(
    "arguments",
    [{"shape": (4,)}, {"shape": 4}, {"batch_shape": (None, 4)}, {"shape": (4,), "batch_size": 3, "name": "x"}],
    ids=str,
)
def test_an_input_as_the_first_layer(arguments):
    model = hl.Sequential([hl.layers.InputLayer(**arguments), hl.layers.Dense(2)])
    assert model.input_shape == (arguments.get("batch_size"), 4) and len(model.layers) == 1
    words = hl.Sequential([hl.layers.InputLayer((5,), dtype="int32"), hl.layers.Embedding(9, 2)])
    assert words.inputs[0].dtype == "int32" and words.output_shape == (None, 5, 2)
    assert hl.layers.Input is hl.Input


@pytest.mark.parametrize("arguments", [{}, {"shape": (3,), "batch_shape": (1, 3)}, {"shape": (3,), "sparse": True}])
def test_inputs_that_cannot_be(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.InputLayer(**arguments)


def test_other_names_of_layers():
    keras = pytest.importorskip("keras")
    for name in hl.layers.aliases.__all__:
        assert getattr(hl.layers, name).__name__ == getattr(keras.layers, name).__name__
