"""Sequential models: built with an Input or by their first data, taken apart and put together."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.errors import ArgumentError

F32 = "float32"
X = np.linspace(-1, 1, 15, dtype=F32).reshape(3, 5)


def test_without_an_input_it_is_built_by_its_first_data():
    model = hl.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
    assert not model.built and model.weights == []
    assert model.predict(X, verbose=0).shape == (3, 2)
    assert model.built and model.output_shape == (None, 2)
    assert next(v.path for v in model.weights) == "sequential/dense/kernel"


@pytest.mark.parametrize("how", ["build", "call", "fit", "input_shape"])
def test_ways_to_build(how):
    first = L.Dense(4, input_shape=(5,)) if how == "input_shape" else L.Dense(4)
    model = hl.Sequential([first, L.Dense(2)])
    if how == "build":
        model.build((None, 5))
    elif how == "call":
        model(X)
    elif how == "fit":
        model.compile("sgd", "mse")
        model.fit(X, X[:, :2], verbose=0)
    assert [v.shape for v in model.weights] == [(5, 4), (4,), (4, 2), (2,)]


def test_add_and_pop():
    model = hl.Sequential(name="net")
    model.add(hl.Input((5,)))
    model.add(L.Dense(4))
    model.add(L.Dense(2))
    assert model.output_shape == (None, 2)
    kernel = model.layers[0].kernel
    last = model.pop()
    assert last.name == "dense_1" and model.output_shape == (None, 4)
    assert model.layers[0].kernel is kernel, "what stays keeps its weights"
    model.add(L.Dense(3, name="head"))
    assert model.predict(X, verbose=0).shape == (3, 3)
    while model.layers:
        model.pop()
    with pytest.raises(ArgumentError, match="no layer"):
        model.pop()


def test_a_changed_model_does_not_run_its_old_program():
    model = hl.Sequential([hl.Input((5,)), L.Dense(4)])
    model.compile("sgd", "mse")
    assert model.predict(X, verbose=0).shape == (3, 4)
    model.add(L.Dense(2))
    assert model.predict(X, verbose=0).shape == (3, 2)
    with pytest.raises(ArgumentError, match="not compiled"):
        model.fit(X, X[:, :2], verbose=0)


def test_a_change_inside_of_another_model_is_seen():
    inner = hl.Sequential([hl.Input((5,)), L.Dense(4, name="first")], name="inner")
    outer = hl.Sequential([hl.Input((5,)), inner, L.Flatten()])
    outer.compile("sgd", "mse")
    outer.fit(X, X[:, :4], verbose=0)
    assert outer.predict(X, verbose=0).shape == (3, 4)
    inner.add(L.Dense(2, name="second"))
    assert outer.predict(X, verbose=0).shape == (3, 2)
    outer.fit(X, X[:, :2], verbose=0)


def test_mistakes():
    with pytest.raises(ArgumentError, match="only come first"):
        hl.Sequential([L.Dense(2), hl.Input((2,))])
    with pytest.raises(ArgumentError, match="not a layer"):
        hl.Sequential([lambda x: x])
    layer = L.Dense(2)
    with pytest.raises(ArgumentError, match="there already"):
        hl.Sequential([layer, layer])
    with pytest.raises(ArgumentError, match="one input"):
        hl.Sequential([L.Dense(2)])([X, X])


def test_calls_hand_training_on():
    seen = []

    class Noting(L.Layer):
        def call(self, inputs, training=None):
            seen.append(training)
            return inputs

    model = hl.Sequential([hl.Input((5,)), Noting(), hl.Sequential([Noting()])])
    seen.clear()
    model(X, training=True)
    model(X)
    assert seen == [True, True, False, False]
