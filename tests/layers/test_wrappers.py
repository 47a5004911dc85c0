"""`Bidirectional` and `TimeDistributed` against Keras."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

BATCH, TIME, FEATURES, UNITS = 4, 6, 3, 5
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape or (BATCH, TIME, FEATURES)).astype("float32")


def copy_weights(theirs: keras.Layer, ours: hl.layers.Layer, shape: tuple, rng: np.random.Generator) -> None:
    theirs.build(shape)
    ours.build(shape)
    theirs.set_weights([normal(rng, *w.shape) if w.ndim else w for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())


def assert_same(ours: object, theirs: object) -> None:
    a, b = keras.tree.flatten(ours), keras.tree.flatten(theirs)
    assert len(a) == len(b)
    for mine, other in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(other), atol=1e-5)


def bidirectional(kind: str, rng: np.random.Generator, outer: dict | None = None, **options: object) -> tuple:
    layers = [
        library.layers.Bidirectional(getattr(library.layers, kind)(UNITS, name="inner", **options), **(outer or {}))
        for library in (keras, hl)
    ]
    copy_weights(*layers, (BATCH, TIME, FEATURES), rng)
    return tuple(layers)


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("results", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("masked", [False, True])
def test_merges(
    kind: str, merge_mode: str | None, results: tuple[bool, bool], masked: bool, rng: np.random.Generator
) -> None:
    options = {"return_sequences": results[0], "return_state": results[1]}
    theirs, ours = bidirectional(kind, rng, {"merge_mode": merge_mode}, **options)
    x, call = normal(rng), {"mask": MASK} if masked else {}
    expected = theirs(x, **call)
    assert_same(ours(x, **call), expected)
    assert_same(hl.jit(lambda value: ours(value, **call))(x), expected)
    names = [w.path.split("/", 1)[1] for w in theirs.weights]
    assert [w.path.split("/", 1)[1] for w in ours.weights] == names


def test_initial_states_and_a_layer_of_ones_own(rng: np.random.Generator) -> None:
    options = {"return_sequences": True, "return_state": True}
    layers = []
    for library in (keras, hl):
        backward = library.layers.GRU(UNITS, go_backwards=True, activation="relu", **options)
        layers.append(library.layers.Bidirectional(library.layers.GRU(UNITS, **options), backward_layer=backward))
    theirs, ours = layers
    copy_weights(theirs, ours, (BATCH, TIME, FEATURES), rng)
    states = [normal(rng, BATCH, UNITS), normal(rng, BATCH, UNITS)]
    x = normal(rng)
    assert_same(ours(x, initial_state=states), theirs(x, initial_state=states))


def test_masks_go_on(rng: np.random.Generator) -> None:
    x = Tensor.of(normal(rng))
    x.mask = Tensor.of(MASK)
    both = hl.layers.Bidirectional(hl.layers.LSTM(UNITS, return_sequences=True), merge_mode=None)(x)
    for output in both:
        np.testing.assert_array_equal(np.asarray(output.mask), MASK)
    output, *states = hl.layers.Bidirectional(hl.layers.LSTM(UNITS, return_sequences=True, return_state=True))(x)
    np.testing.assert_array_equal(np.asarray(output.mask), MASK)
    assert len(states) == 4 and all(state.mask is None for state in states)
    assert not np.any(np.asarray(output)[~MASK])
    assert hl.layers.Bidirectional(hl.layers.LSTM(UNITS))(x).mask is None


def test_stateful(rng: np.random.Generator) -> None:
    theirs, ours = bidirectional("LSTM", rng, stateful=True)
    x = normal(rng)
    for _ in range(2):
        assert_same(ours(x), theirs(x))
    first = ours.states
    assert len(first) == 4
    ours.reset_state()
    theirs.reset_state()
    assert_same(ours(x), theirs(x))


def test_functional_and_description(rng: np.random.Generator) -> None:
    inputs = hl.Input((None, FEATURES))
    layer = hl.layers.Bidirectional(hl.layers.GRU(UNITS, return_sequences=True, name="reader"), merge_mode="sum")
    outputs = layer(inputs)
    assert outputs.shape == (None, None, UNITS)
    copy = deserialize(serialize(layer))
    assert copy.get_config() == layer.get_config()
    assert [part.name for part in copy.sublayers] == ["forward_reader", "backward_reader"]
    x = normal(rng)
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    assert_same(copy(x), hl.Model(inputs, outputs)(x))
    again = hl.layers.Bidirectional(
        hl.layers.GRU(UNITS, return_sequences=True), merge_mode="sum", weights=layer.get_weights()
    )
    assert_same(again(x), copy(x))


# TimeDistributed ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "arguments", "shape"),
    [
        ("Dense", (4,), (2, 5, 3)),
        ("Conv2D", (4, 3), (2, 3, 7, 6, 2)),
        ("LSTM", (4,), (2, 3, 5, 2)),
        ("BatchNormalization", (), (2, 3, 4)),
        ("Flatten", (), (2, 3, 4, 5)),
    ],
)
def test_each_step(kind: str, arguments: tuple, shape: tuple, rng: np.random.Generator) -> None:
    theirs, ours = (
        library.layers.TimeDistributed(getattr(library.layers, kind)(*arguments)) for library in (keras, hl)
    )
    copy_weights(theirs, ours, shape, rng)
    if kind == "BatchNormalization":
        positive = [np.abs(w) + 0.5 for w in theirs.get_weights()]
        theirs.set_weights(positive)
        ours.set_weights(positive)
    x = normal(rng, *shape)
    expected = theirs(x)
    assert_same(ours(x), expected)
    assert_same(hl.jit(lambda value: ours(value))(x), expected)
    assert ours.compute_output_shape((None, None, *shape[2:])) == (None, None, *expected.shape[2:])


@pytest.mark.parametrize("compiled", [False, True])
def test_statistics_of_batches_are_taken_step_by_step(compiled: bool, rng: np.random.Generator) -> None:
    shape = (8, 3, 4)
    theirs = keras.layers.TimeDistributed(keras.layers.BatchNormalization())
    ours = hl.layers.TimeDistributed(hl.layers.BatchNormalization())
    theirs.build(shape)
    ours.build(shape)
    x = 3 * normal(rng, *shape) + 1
    run = hl.jit(lambda value: ours(value, training=True)) if compiled else lambda value: ours(value, training=True)
    assert_same(run(x), theirs(x, training=True))
    assert_same(ours.get_weights(), theirs.get_weights())


def test_masks_of_steps(rng: np.random.Generator) -> None:
    x = Tensor.of(normal(rng))
    x.mask = Tensor.of(MASK)
    np.testing.assert_array_equal(np.asarray(hl.layers.TimeDistributed(hl.layers.Dense(2))(x).mask), MASK)
    words, mask = normal(rng, 2, 3, 5, 4), rng.random((2, 3, 5)) < 0.6
    theirs, ours = (library.layers.TimeDistributed(library.layers.LSTM(3)) for library in (keras, hl))
    copy_weights(theirs, ours, words.shape, rng)
    assert_same(ours(words, mask=mask), theirs(words, mask=mask))


# Mistakes -------------------------------------------------------------------------------------------------------------
def test_mistakes(rng: np.random.Generator) -> None:
    with pytest.raises(ArgumentError, match="is not a recurrent layer"):
        hl.layers.Bidirectional(hl.layers.Dense(3))
    with pytest.raises(ArgumentError, match="is not a layer"):
        hl.layers.TimeDistributed(3)
    with pytest.raises(ArgumentError, match="merge_mode"):
        hl.layers.Bidirectional(hl.layers.LSTM(3), merge_mode="max")
    with pytest.raises(ArgumentError, match="same direction"):
        hl.layers.Bidirectional(hl.layers.LSTM(3), backward_layer=hl.layers.LSTM(3))
    with pytest.raises(ArgumentError, match="return_sequences"):
        backward = hl.layers.LSTM(3, go_backwards=True)
        hl.layers.Bidirectional(hl.layers.LSTM(3, return_sequences=True), backward_layer=backward)
    with pytest.raises(ShapeError, match="not a batch of sequences"):
        hl.layers.TimeDistributed(hl.layers.Dense(3))(normal(rng, 4, 3))
    with pytest.raises(ShapeError, match="whether it counts"):
        hl.layers.TimeDistributed(hl.layers.Dense(3))(normal(rng), mask=MASK[:, 1:])
