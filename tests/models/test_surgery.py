"""Cutting and joining: features, new heads, groups of layers, replaced layers; weights stay where they are."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.errors import ArgumentError
from highlevel.models.surgery import replace_layer

F32 = "float32"
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(F32)


def convnet(functional: bool = True) -> hl.Model:
    layers = [
        L.Conv2D(4, 3, activation="relu", name="block1_conv"),
        L.BatchNormalization(name="block1_norm"),
        L.Conv2D(6, 3, activation="relu", name="block2_conv"),
        L.GlobalAveragePooling2D(name="pool"),
        L.Dense(10, name="classifier"),
        L.Softmax(name="probabilities"),
    ]
    if not functional:
        return hl.Sequential([hl.Input((8, 8, 3)), *layers], name="net")
    x = inputs = hl.Input((8, 8, 3))
    for layer in layers:
        x = layer(x)
    return hl.Model(inputs, x, name="net")


KINDS = pytest.mark.parametrize("functional", [True, False], ids=["functional", "sequential"])


# Features ------------------------------------------------------------------------------------------------------------
@KINDS
def test_features_are_what_the_head_sees(functional):
    model = convnet(functional)
    assert model.head.name == "classifier"
    body = model.features()
    assert body.output_shape == (None, 6)
    assert body.weights[0] is model.weights[0], "layers are shared"
    head = model.get_layer("classifier")
    scores = body.predict(X, verbose=0) @ head.kernel.numpy() + head.bias.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)


@KINDS
def test_features_at_a_layer(functional):
    model = convnet(functional)
    part = model.features("block1_norm")
    assert part.output_shape == (None, 6, 6, 4)
    assert [layer.name for layer in part.layers] == ["block1_conv", "block1_norm"]
    assert model.features(model.get_layer("pool")).output_shape == (None, 6)
    assert model.weights[0].path == "net/block1_conv/kernel", "names stay those of the whole"
    with pytest.raises(ArgumentError, match="'block1_conv'"):
        model.features("block_conv")


def test_features_inside_of_nested_models(tmp_path):
    """By path, through any depth, in a shared layer's model, and after a round trip through a file."""
    inner = hl.Sequential([hl.Input((5,)), L.Dense(4, name="one"), L.Dense(3, name="two")], name="inner")
    middle = hl.Sequential([hl.Input((5,)), inner, L.ReLU()], name="middle")
    x = hl.Input((5,))
    model = hl.Model(x, L.Dense(2, name="head")(middle(x * 2.0)))
    value = np.random.default_rng(1).normal(size=(3, 5)).astype(F32)
    one = inner.get_layer("one")
    expected = (2 * value) @ one.kernel.numpy() + one.bias.numpy()
    np.testing.assert_allclose(model.features("middle/inner/one").predict(value, verbose=0), expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.features("middle/inner/one").predict(value, verbose=0), expected, rtol=1e-5)
    with pytest.raises(ArgumentError, match="cannot be had"):
        model.features("head/kernel")


def test_cached_features_train_the_same_head():
    """Training the head on features computed once equals training the frozen whole."""
    model = convnet()
    model.freeze_to("classifier")
    start = [w.copy() for w in model.head.get_weights()]
    y = np.arange(4) % 10
    model.compile(hl.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model.fit(X, y, epochs=3, shuffle=False, verbose=0)
    whole = [w.copy() for w in model.head.get_weights()]
    model.head.set_weights(start)
    features = model.features().predict(X, verbose=0)
    head = hl.Sequential([hl.Input((6,)), model.head, L.Softmax()])
    head.compile(hl.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    head.fit(features, y, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(head.weights, whole, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, atol=1e-6)


# Heads ---------------------------------------------------------------------------------------------------------------
@KINDS
def test_a_new_head(functional, tmp_path):
    model = convnet(functional)
    body = {v.path: v.numpy().copy() for v in model.weights if "classifier" not in v.path}
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.predict(X, verbose=0)
    assert model.reset_head(3, class_names=["a", "b", "c"]) is model
    assert model.output_shape == (None, 3) and model.predict(X, verbose=0).shape == (4, 3)
    assert model.class_names == ["a", "b", "c"] and model.head.name == "classifier"
    assert [layer.name for layer in model.layers] == [layer.name for layer in convnet(functional).layers]
    for variable in model.weights:
        if variable.path in body:
            assert np.array_equal(variable.numpy(), body[variable.path])
    with pytest.raises(ArgumentError, match="not compiled"):
        model.fit(X, np.zeros(4, int), verbose=0)
    model.save(tmp_path / "model.keras")
    assert hl.load_model(tmp_path / "model.keras").output_shape == (None, 3)


def test_a_head_of_convolutions():
    layers = [L.Conv2D(4, 3), L.Conv2D(5, 1, name="head"), L.GlobalAveragePooling2D()]
    model = hl.Sequential([hl.Input((8, 8, 3)), *layers])
    model.reset_head(2)
    assert model.output_shape == (None, 2)


def test_a_frozen_head_is_trained_again():
    model = convnet()
    model.freeze()
    model.reset_head(3)
    assert [v.path for v in model.trainable_variables] == []  # the model itself is still frozen
    model.freeze_to(-1)
    assert [v.path for v in model.trainable_variables] == ["net/classifier/kernel", "net/classifier/bias"]


def test_heads_that_cannot_be():
    model = convnet()
    with pytest.raises(ArgumentError, match="not positive"):
        model.reset_head(0)
    with pytest.raises(ArgumentError, match="one name per class"):
        model.reset_head(2, class_names=["a"])
    with pytest.raises(ArgumentError, match="no layer has weights"):
        _ = hl.Sequential([hl.Input((3,)), L.ReLU()]).head
    with pytest.raises(ArgumentError, match="no number of outputs"):
        hl.Sequential([hl.Input((3,)), L.LayerNormalization(name="norm")]).reset_head(2)


# Replaced layers -----------------------------------------------------------------------------------------------------
@KINDS
def test_replaced_layers(functional):
    model = convnet(functional)
    old, new = model.get_layer("block1_norm"), L.LayerNormalization(name="block1_norm")
    conv = model.get_layer("block2_conv").kernel
    before = model.predict(X, verbose=0)
    replace_layer(model, old, new)
    assert model.get_layer("block1_norm") is new and old not in model.layers
    assert model.get_layer("block2_conv").kernel is conv
    assert not np.array_equal(model.predict(X, verbose=0), before)
    assert "moving_mean" not in " ".join(v.path for v in model.weights)


def test_replacing_a_layer_that_attributes_hold():
    class Own(hl.Model):
        def __init__(self) -> None:
            x = hl.Input((3,))
            head = L.Dense(2, name="head")
            super().__init__(x, head(L.ReLU()(x)))
            self.last = head

    model = Own()
    model.reset_head(5)
    assert model.last is model.head and model.last.units == 5
    assert [v.shape for v in model.weights] == [(3, 5), (5,)]


# Groups --------------------------------------------------------------------------------------------------------------
def names(groups: list[list[L.Layer]]) -> list[list[str]]:
    return [[layer.name for layer in group] for group in groups]


def test_groups_by_patterns():
    model = convnet()
    assert names(model.layer_groups()) == [["block1_conv"], ["block1_norm"], ["block2_conv"], ["classifier"]]
    model.group_patterns = ["block1_*", "nothing*", "block2_*", "classifier"]
    assert names(model.layer_groups()) == [["block1_conv", "block1_norm"], ["block2_conv"], ["classifier"]]


def test_freeze_to_a_layer_or_a_group():
    model = convnet()
    model.group_patterns = ["block1_*", "block2_*", "classifier"]

    def trained() -> list[str]:
        return sorted({v.path.split("/")[1] for v in model.trainable_variables})

    assert model.freeze_to("block2_conv") is model
    assert trained() == ["block2_conv", "classifier"]
    model.freeze_to(-1)
    assert trained() == ["classifier"]
    model.freeze_to(0)
    assert trained() == ["block1_conv", "block1_norm", "block2_conv", "classifier"]
    with pytest.raises(ArgumentError, match=r"0…2"):
        model.freeze_to(3)
    with pytest.raises(ArgumentError, match="block2_conv"):
        model.freeze_to("block3_conv")
