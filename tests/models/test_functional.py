"""Graphs of calls: what runs, in which order, on which inputs, under which names."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.models.functional import CallGraph, input_names

F32 = "float32"


def test_only_the_calls_on_the_way_are_part_of_it():
    x = hl.Input((4,))
    y = L.Dense(3, name="used")(x)
    L.Dense(9, name="unused")(x)
    model = hl.Model(x, y)
    assert [layer.name for layer in model.layers] == ["used"]
    assert len(model.weights) == 2


def test_a_model_may_begin_in_the_middle_of_another():
    x = hl.Input((4,))
    y = L.Dense(3, name="first")(x)
    z = L.Dense(2, name="second")(y)
    tail = hl.Model(y, z)
    value = np.ones((2, 3), F32)
    whole = hl.Model(x, z)
    assert [layer.name for layer in tail.layers] == ["second"]
    np.testing.assert_array_equal(np.asarray(tail(value)), np.asarray(whole.get_layer("second")(value)))


def test_an_output_may_be_an_input_and_inputs_may_stay_unused(rng):
    a, b = hl.Input((2,), name="a"), hl.Input((3,), name="b")
    model = hl.Model([a, b], [a, L.Dense(2)(a)])
    x = rng.normal(size=(3, 2)).astype(F32)
    same, other = model.predict([x, np.zeros((3, 3), F32)], verbose=0)
    assert np.array_equal(same, x) and other.shape == (3, 2)


def test_a_missing_input_is_explained():
    a, b = hl.Input((2,)), hl.Input((2,), name="forgotten")
    with pytest.raises(ArgumentError, match="forgotten"):
        hl.Model(a, a + b)
    with pytest.raises(ArgumentError, match="placeholders"):
        hl.Model(a, np.zeros(3))
    with pytest.raises(ArgumentError, match="both inputs and outputs"):
        hl.Model(a)


def test_names_are_given_by_class_in_order_around_those_that_exist():
    x = hl.Input((4,))
    y = L.Dense(2)(L.Dense(2, name="dense_1")(L.Dense(2)(x)))
    names = [layer.name for layer in hl.Model(x, L.ReLU()(y)).layers]
    assert names == ["dense", "dense_1", "dense_2", "re_lu"]


def test_names_of_inputs():
    a, b, c = hl.Input((1,)), hl.Input((1,), name="b"), hl.Input((1,))
    assert input_names([a, b, c]) == ["input", "b", "input_1"]
    assert input_names({"z": a, "y": b}) == ["z", "y"]


def test_calls_run_in_the_order_in_which_they_were_made():
    order = []

    class Noting(L.Layer):
        def call(self, inputs):
            order.append(self.name)
            return inputs * 1.0

    x = hl.Input((2,))
    first = Noting(name="first")(x)
    second = Noting(name="second")(x)
    model = hl.Model(x, second + first)
    order.clear()
    model(np.ones((1, 2), F32))
    assert order == ["first", "second"]
    assert [call.target if isinstance(call.target, str) else call.target.name for call in model._graph.calls] == [
        "first", "second", "add",
    ]  # fmt: skip


def test_nested_structures_of_inputs_and_outputs(rng):
    inputs = {"pair": [hl.Input((2,)), hl.Input((2,))], "one": hl.Input((2,))}
    total = inputs["pair"][0] + inputs["pair"][1] * inputs["one"]
    model = hl.Model(inputs, {"total": total, "parts": (ops.sum(total, axis=1), total[:, 0])})
    values = {"pair": [rng.random((3, 2), F32), rng.random((3, 2), F32)], "one": rng.random((3, 2), F32)}
    found = model.predict(values, verbose=0)
    expected = values["pair"][0] + values["pair"][1] * values["one"]
    np.testing.assert_allclose(found["total"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["parts"][0], expected.sum(1), rtol=1e-6)
    np.testing.assert_allclose(found["parts"][1], expected[:, 0], rtol=1e-6)
    assert model.output_shape == {"total": (None, 2), "parts": ((None,), (None,))}


def test_extra_entries_of_a_dictionary_are_left_alone_and_misspelt_ones_are_found():
    inputs = {"left": hl.Input((1,)), "right": hl.Input((1,))}
    model = hl.Model(inputs, inputs["left"] + inputs["right"])
    one = np.ones((2, 1), F32)
    assert model.predict({"left": one, "right": one, "id": one}, verbose=0).tolist() == [[2.0], [2.0]]
    with pytest.raises(ArgumentError, match=r"did you mean 'right'\?"):
        model.predict({"left": one, "rihgt": one}, verbose=0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 4, 3), r"x\[None\]"),
        ((2, 3, 4, 4), r"np.moveaxis\(x, 1, -1\)"),
        ((2, 4, 4), r"x\[..., None\]"),
        ((2, 4, 5, 3), r"\(None, 4, 4, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_explained(shape, words):
    model = hl.Model(x := hl.Input((4, 4, 3), name="picture"), L.Flatten()(x))
    with pytest.raises(ShapeError, match=words):
        model.predict(np.zeros(shape, F32), verbose=0)


def test_unknown_sizes_stay_unknown(rng):
    x = hl.Input((None, None, 3))
    y = L.Conv2D(4, 3, padding="same")(x)
    model = hl.Model(x, [L.GlobalAveragePooling2D()(y), y, L.UpSampling2D(2)(y) if hasattr(L, "UpSampling2D") else y])
    assert model.output_shape[0] == (None, 4) and model.output_shape[1] == (None, None, None, 4)
    for size in (5, 8):
        found = model.predict(rng.random((2, size, size + 1, 3), F32), verbose=0)
        assert found[0].shape == (2, 4) and found[1].shape == (2, size, size + 1, 4)


def test_whole_numbers_are_cast_where_an_input_is_floating_point(rng):
    """Bytes of pictures, for one; token numbers stay what they are."""
    picture = hl.Input((4,))
    words = hl.Input((3,), dtype="int32")
    model = hl.Model([picture, words], [L.Dense(2)(picture), L.Flatten()(L.Embedding(9, 2)(words)), words * 1])
    x, w = rng.integers(0, 255, (5, 4)), rng.integers(0, 9, (5, 3))
    expected = model.predict([x.astype(F32), w.astype("int32")], verbose=0)
    for dtype in ("uint8", "int64", "float64"):
        found = model.predict([x.astype(dtype), w], verbose=0)
        for a, b in zip(found, expected, strict=True):
            assert np.array_equal(a, b)
        assert found[2].dtype.kind == "i"


def test_masks_flow_through_functional_models(rng):
    words = hl.Input((4,), dtype="int32")
    x = L.Embedding(5, 3, mask_zero=True)(words)
    model = hl.Model(words, L.LSTM(2)(x))
    short = np.array([[1, 2, 0, 0]], "int32")
    shorter = hl.Model(y := hl.Input((2,), dtype="int32"), model.layers[1](model.layers[0](y)))
    np.testing.assert_allclose(
        model.predict(short, verbose=0), shorter.predict(short[:, :2], verbose=0), rtol=1e-6, atol=1e-7
    )


def test_graphs_between_placeholders_need_no_model():
    x = hl.Input((2,))
    graph = CallGraph.between(x, ops.exp(x) + 1.0)
    assert len(graph.calls) == 2
    value = hl.Tensor.of(np.zeros((1, 2), F32))
    assert graph.run(value).tolist() == [[2.0, 2.0]]
