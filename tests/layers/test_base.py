from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError, WeightsError
from highlevel.serialization import deserialize

keras = pytest.importorskip("keras")

X = np.ones((2, 3), "float32")


class Block(hl.layers.Layer):
    """Layers as attributes, in a list and in a dictionary; one of them shared."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = hl.layers.Dense(4)
        self.rest = [hl.layers.Dense(4), hl.layers.Dense(4, name="named")]
        self.extra = {"norm": hl.layers.BatchNormalization(), "again": self.first}

    def call(self, inputs, training=None):
        x = self.first(inputs)
        for layer in self.rest:
            x = layer(x)
        return self.extra["norm"](x)


class Scale(hl.layers.Layer):
    def build(self, input_shape):
        super().build(input_shape)
        self.factor = self.add_weight(input_shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


def test_paths_are_the_names_on_the_way():
    block = Block(name="block")
    block(X)
    assert [w.path for w in block.weights][:4] == [
        "block/first/kernel",
        "block/first/bias",
        "block/rest_0/kernel",
        "block/rest_0/bias",
    ]
    assert [w.path for w in block.weights][4] == "block/named/kernel"
    assert len({w.path for w in block.weights}) == len(block.weights) == 10
    again = Block(name="block")
    again(X)
    assert [w.path for w in again.weights] == [w.path for w in block.weights]


def test_a_variable_is_called_by_its_attribute():
    layer = Scale()
    layer(X)
    assert [w.path for w in layer.weights] == ["scale/factor"]


def test_build_may_be_called_directly_and_runs_once():
    layer = Scale()
    layer.build((None, 3))
    factor = layer.factor
    layer.build((None, 3))
    layer(X)
    assert layer.built and layer.weights == [factor]


def test_building_inside_a_program_makes_real_variables():
    layer = hl.layers.Dense(4)
    y = hl.jit(lambda x: layer(x))(X)
    assert y.shape == (2, 4) and layer.kernel.numpy().any()


def test_training_reaches_inner_layers():
    block = Block()
    block(X)
    before = block.extra["norm"].moving_mean.numpy().copy()
    block(X)
    assert (block.extra["norm"].moving_mean.numpy() == before).all()
    block(X, training=True)
    assert (block.extra["norm"].moving_mean.numpy() != before).any()


def test_training_is_not_lost_on_the_way():
    class Through(hl.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = hl.layers.Dropout(1.0)

        def call(self, inputs):
            return self.dropout(inputs)

    class Outer(Through):
        def __init__(self):
            super().__init__()
            self.through = Through()

        def call(self, inputs, training=None):
            return self.through(inputs, training=None)

    assert not np.any(Outer()(X, training=True))
    assert np.all(Outer()(X) == X)


def test_freezing_goes_down_and_takes_effect_at_once():
    block = Block()
    block(X)
    assert len(block.trainable_weights) == 8
    block.rest[0].trainable = False
    assert len(block.trainable_weights) == 6
    block.trainable = False
    assert block.trainable_weights == [] and not block.first.trainable
    block.trainable = True
    assert len(block.trainable_weights) == 8


def test_weights_are_all_or_nothing():
    layer = hl.layers.Dense(4, name="head")
    with pytest.raises(WeightsError, match="build the layer first"):
        layer.set_weights([np.ones((3, 4)), np.ones(4)])
    layer(X)
    before = layer.get_weights()
    with pytest.raises(WeightsError, match="head/bias"):
        layer.set_weights([np.ones((3, 4)), np.ones(5)])
    assert all((a == b).all() for a, b in zip(before, layer.get_weights(), strict=True))


def test_an_input_is_not_given_a_mask():
    x = hl.Tensor.of(np.ones((2, 3, 4), "float32"))
    y = hl.layers.Identity()(x, mask=np.ones((2, 3), bool))
    assert x.mask is None and y.mask.tolist() == [[True] * 3] * 2


def test_layers_that_do_not_handle_masks_say_so():
    x = hl.layers.Masking()(np.ones((2, 6, 4), "float32"))
    with pytest.warns(UserWarning, match=r"conv1d \(Conv1D\) got an input with a mask"):
        y = hl.layers.Conv1D(3, 2)(x)
    assert y.mask is None


def test_errors_name_the_innermost_layer_by_its_path():
    class Outer(hl.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = hl.layers.Conv2D(4, 3)

        def call(self, inputs):
            return self.inner(inputs)

    with pytest.raises(ShapeError, match=r"layer: +outer/inner \(Conv2D\)"):
        Outer()(X)
    with pytest.raises(ShapeError, match=r"layer: +conv2d \(Conv2D\)"):
        hl.layers.Conv2D(4, 3)(hl.Input((3,)))


def test_errors_of_built_layers_show_open_shapes():
    layer = hl.layers.Conv2D(4, 3)
    layer(hl.Input((8, 8, 3)))
    with pytest.raises(ShapeError, match=r"\(None, 8, 8, 4\)"):
        layer(hl.Input((8, 8, 4)))


@pytest.mark.parametrize("name", ["a/b", "", 3, ".."])
def test_names(name):
    with pytest.raises(ArgumentError, match="name"):
        hl.layers.Dense(3, name=name)


def test_unknown_call_arguments_are_explained():
    with pytest.raises(ArgumentError, match="did you mean 'inputs'"):
        hl.layers.Dense(3)(X, input=X)


def test_the_image_format_is_part_of_the_config():
    hl.config.set_image_data_format("channels_first")
    try:
        config = hl.layers.Conv2D(4, 3).get_config()
    finally:
        hl.config.set_image_data_format("channels_last")
    assert config["data_format"] == "channels_first"


def test_arguments_that_mean_nothing_are_left_out():
    layer = hl.layers.Dense.from_config({"units": 3, "quantization_config": None})
    assert layer.units == 3
    with pytest.raises(ArgumentError, match="lora_rank"):
        hl.layers.Dense.from_config({"units": 3, "lora_rank": 4})


KERAS_LAYERS = [
    keras.layers.Dense(3, "relu", kernel_initializer="he_normal", kernel_regularizer="l2", bias_constraint="max_norm"),
    keras.layers.Dense(3, kernel_initializer=keras.initializers.Identity(), dtype="mixed_bfloat16", name="head"),
    keras.layers.Conv2D(4, (3, 5), padding="same", activation="gelu", data_format="channels_first"),
    keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
    keras.layers.BatchNormalization(momentum=0.9, gamma_initializer=keras.initializers.Constant(2.0)),
    keras.layers.LayerNormalization(axis=[1, 2]),
    keras.layers.Embedding(9, 4, mask_zero=True),
    keras.layers.Dropout(0.3, seed=3),
    keras.layers.ZeroPadding2D(((1, 2), (3, 4))),
    keras.layers.Concatenate(axis=1),
    keras.layers.Softmax(axis=1),
    keras.layers.ActivityRegularization(0.1, 0.2),
]


@pytest.mark.parametrize("theirs", KERAS_LAYERS, ids=lambda layer: layer.name)
def test_descriptions_by_keras_are_understood(theirs):
    description = json.loads(json.dumps(keras.saving.serialize_keras_object(theirs)))
    ours = deserialize(copy.deepcopy(description))
    assert type(ours).__name__ == type(theirs).__name__ and ours.name == theirs.name
    again = deserialize(json.loads(json.dumps(hl.serialization.serialize(ours))))
    assert again.get_config() == ours.get_config()
    for argument in ("kernel_initializer", "gamma_initializer"):
        if hasattr(theirs, argument):
            value = getattr(ours, argument)((3, 3), dtype="float32")
            if type(getattr(theirs, argument)).__name__ in ("Identity", "Constant", "Ones"):
                np.testing.assert_array_equal(value, getattr(theirs, argument)((3, 3)))


def test_descriptions_by_this_library_are_understood_by_keras():
    for ours in (
        hl.layers.Dense(3, activation="relu", name="a"),
        hl.layers.Conv2D(4, 3, padding="same", name="b"),
        hl.layers.BatchNormalization(epsilon=1e-5, name="c"),
        hl.layers.Dropout(0.3, name="d"),
    ):
        theirs = getattr(keras.layers, type(ours).__name__).from_config(ours.get_config())
        assert theirs.name == ours.name
