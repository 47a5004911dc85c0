from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

X = np.float32([[1.0, -2.0], [3.0, 0.0]])


@hl.register_serializable("tests")
def doubled_if_training(x, power=1, training=False, mask=None):
    y = x**power
    return y * 2 if training else y


def test_arguments_training_and_mask_are_handed_on():
    layer = hl.layers.Lambda(doubled_if_training, arguments={"power": 2})
    np.testing.assert_array_equal(layer(X), X**2)
    np.testing.assert_array_equal(layer(X, training=True), 2 * X**2)
    masked = hl.layers.Lambda(lambda x, mask: hl.ops.where(mask[..., None], x, -1.0))
    assert masked(X[None], mask=np.array([[True, False]])).tolist() == [[[1, -2], [-1, -1]]]


FUNCTIONS = [doubled_if_training, hl.ops.square, hl.ops.image.rgb_to_grayscale, "relu", "ops.exp"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_saved_by_name(tmp_path, function):
    shape = (4, 4, 3) if "gray" in str(getattr(function, "__name__", "")) else (2,)
    start = hl.Input(shape)
    model = hl.Model(start, hl.layers.Lambda(function)(start))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    np.testing.assert_array_equal(hl.models.load_model(tmp_path / "m.keras")(x), model(x))


def test_code_is_neither_written_nor_read(tmp_path):
    start = hl.Input((2,))
    model = hl.Model(start, hl.layers.Lambda(lambda x: x + 1)(start))
    with pytest.raises(ArgumentError, match="register_serializable"):
        model.save(tmp_path / "m.keras")
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    with pytest.raises(ArgumentError, match="holds code, which is not run"):
        hl.layers.deserialize({"class_name": "Lambda", "config": {"function": code, "arguments": {}}})


def test_what_keras_writes_for_registered_functions():
    function = {
        "module": "builtins",
        "class_name": "function",
        "config": "doubled_if_training",
        "registered_name": "tests>doubled_if_training",
    }
    layer = hl.layers.deserialize({"class_name": "Lambda", "config": {"function": function, "arguments": {"power": 3}}})
    np.testing.assert_array_equal(layer(X), X**3)
    with pytest.raises(ArgumentError, match="unknown function"):
        hl.layers.Lambda.from_config({"function": {**function, "config": "other", "registered_name": "other"}})


def test_the_declared_shape_is_checked():
    assert hl.layers.Lambda(lambda x: x[:, :1], output_shape=(1,))(X).shape == (2, 1)
    assert hl.layers.Lambda(lambda x: x.T, output_shape=lambda shape: shape[::-1])(X).shape == (2, 2)
    with pytest.raises(ShapeError, match="output_shape"):
        hl.layers.Lambda(lambda x: x, output_shape=(3,))(X)


def test_masks():
    masked = hl.layers.Masking()(np.float32([[[1], [0]]]))
    kept = hl.layers.Lambda(lambda x: x + 1, mask=lambda inputs, mask: mask)(masked)
    assert kept.mask.tolist() == [[True, False]]
    with pytest.raises(ArgumentError, match="not a function"):
        hl.layers.Lambda(3)
