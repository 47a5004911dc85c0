"""Recurrent layers against Keras and PyTorch: outputs, states, masks, gradients; then what holds of any loop."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

TOLERANCE = 1e-5
BATCH, TIME, FEATURES, UNITS = 4, 6, 3, 5
KINDS = ["SimpleRNN", "LSTM", "GRU"]
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)


def sequences(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape or (BATCH, TIME, FEATURES)).astype("float32")


def leaves(value: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in keras.tree.flatten(value)]


def randomize(layer: keras.Layer, rng: np.random.Generator) -> None:
    """Weights without zeros, so that nothing is compared by accident."""
    layer.set_weights([rng.normal(scale=0.6, size=w.shape).astype("float32") for w in layer.get_weights()])


def pair(
    kind: str, rng: np.random.Generator, shape: tuple[int, ...] = (BATCH, TIME, FEATURES), **arguments: object
) -> tuple:
    """Keras's layer and ours with the same weights."""
    theirs, ours = getattr(keras.layers, kind)(UNITS, **arguments), getattr(hl.layers, kind)(UNITS, **arguments)
    theirs.build(shape)
    ours.build(shape)
    randomize(theirs, rng)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def assert_same(ours: object, theirs: object, tolerance: float = TOLERANCE) -> None:
    a, b = leaves(ours), leaves(theirs)
    assert len(a) == len(b)
    for mine, other in zip(a, b, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=tolerance)


def assert_agrees(ours: hl.layers.Layer, theirs: keras.Layer, x: np.ndarray, **call: object) -> None:
    """Ours, eager and compiled, gives what theirs gives."""
    expected = theirs(x, **call)
    assert_same(ours(x, **call), expected)
    assert_same(hl.jit(lambda value: ours(value, **call))(x), expected)


# Against Keras --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("results", [(False, False), (True, False), (False, True), (True, True)])
def test_outputs_and_states(
    kind: str, unroll: bool, go_backwards: bool, masked: bool, results: tuple[bool, bool], rng: np.random.Generator
) -> None:
    options = {
        "unroll": unroll,
        "go_backwards": go_backwards,
        "return_sequences": results[0],
        "return_state": results[1],
    }
    theirs, ours = pair(kind, rng, **options)
    assert_agrees(ours, theirs, sequences(rng), **({"mask": MASK} if masked else {}))


GATED = ["LSTM", "GRU"]
ARGUMENTS: list[tuple[list[str], dict]] = [
    (KINDS, {"use_bias": False}),
    (KINDS, {"activation": "relu"}),
    (KINDS, {"activation": None}),
    (KINDS, {"dropout": 0.5, "recurrent_dropout": 0.5}),  # nothing is dropped outside of training
    (KINDS, {"dtype": "float64"}),
    (GATED, {"recurrent_activation": "hard_sigmoid"}),
    (GATED, {"recurrent_activation": None, "activation": "softsign"}),
    (GATED, {"recurrent_activation": "softmax"}),  # not elementwise: each gate has its own
    (GATED, {"implementation": 1}),
    (["GRU"], {"reset_after": False}),
    (["GRU"], {"reset_after": False, "use_bias": False, "return_sequences": True}),
    (["GRU"], {"reset_after": False, "implementation": 1, "recurrent_dropout": 0.2}),
]


@pytest.mark.parametrize(("kind", "options"), [(kind, options) for kinds, options in ARGUMENTS for kind in kinds])
def test_arguments(kind: str, options: dict, rng: np.random.Generator) -> None:
    theirs, ours = pair(kind, rng, **options)
    assert_agrees(ours, theirs, sequences(rng))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_initial_state_and_masked_outputs(
    kind: str, zero: bool, return_sequences: bool, rng: np.random.Generator
) -> None:
    options = {"return_sequences": return_sequences, "return_state": True, "zero_output_for_mask": zero}
    theirs, ours = pair(kind, rng, **options)
    states = [sequences(rng, BATCH, UNITS) for _ in range(2 if kind == "LSTM" else 1)]
    assert_agrees(ours, theirs, sequences(rng), initial_state=states, mask=MASK)


def test_masked_steps_change_nothing(rng: np.random.Generator) -> None:
    _, ours = pair("LSTM", rng, return_sequences=True, return_state=True)
    x = sequences(rng)
    state = [sequences(rng, BATCH, UNITS), sequences(rng, BATCH, UNITS)]
    outputs, h, c = (np.asarray(v) for v in ours(x, initial_state=state, mask=MASK))
    np.testing.assert_array_equal(h[3], state[0][3])  # the fourth sequence has no step that counts
    np.testing.assert_array_equal(c[3], state[1][3])
    np.testing.assert_array_equal(outputs[1, 3:], np.broadcast_to(outputs[1, 2], (3, UNITS)))
    other = np.where(MASK[..., None], x, 1e6).astype("float32")
    np.testing.assert_array_equal(np.asarray(ours(other, initial_state=state, mask=MASK)[0]), outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_keras(kind: str, rng: np.random.Generator) -> None:
    theirs, ours = pair(kind, rng)
    assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.path.split("/", 1)[1] for w in ours.weights] == [w.path.split("/", 1)[1] for w in theirs.weights]
    fresh = getattr(hl.layers, kind)(UNITS)
    fresh.build((None, None, FEATURES))
    bias = np.asarray(fresh.cell.bias)
    start = getattr(keras.layers, kind)(UNITS)
    start.build((None, None, FEATURES))
    np.testing.assert_array_equal(bias, np.asarray(start.cell.bias))  # with ones for the forget gate of an LSTM
    u = np.asarray(fresh.cell.recurrent_kernel)
    np.testing.assert_allclose(u @ u.T, np.eye(UNITS), atol=1e-5)  # orthogonal


def test_masks_that_come_with_the_input(rng: np.random.Generator) -> None:
    theirs, ours = pair("GRU", rng, return_sequences=True, return_state=True)
    x = Tensor.of(sequences(rng))
    x.mask = Tensor.of(MASK)
    outputs, state = ours(x)
    assert_same((outputs, state), theirs(np.asarray(x), mask=MASK))
    np.testing.assert_array_equal(np.asarray(outputs.mask), MASK)
    assert state.mask is None
    last = hl.layers.GRU(UNITS)(x)
    assert last.mask is None

    def compiled(value: object, mask: object) -> object:
        value.mask = mask
        return ours(value)[0]

    assert_same(hl.jit(compiled)(np.asarray(x), MASK), outputs)


def test_embedding_hands_its_mask_on(rng: np.random.Generator) -> None:
    ids = np.array([[3, 1, 0, 0], [2, 0, 4, 1]])
    theirs = keras.Sequential(
        [
            keras.layers.Embedding(5, FEATURES, mask_zero=True),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.GRU(2),
        ]
    )
    theirs.build((None, 4))
    weights = [rng.normal(size=w.shape).astype("float32") for w in theirs.get_weights()]
    theirs.set_weights(weights)
    ours = hl.Sequential(
        [
            hl.layers.Embedding(5, FEATURES, mask_zero=True),
            hl.layers.LSTM(UNITS, return_sequences=True),
            hl.layers.GRU(2),
        ]
    )
    ours.build((None, 4))
    ours.set_weights(weights)
    assert_same(ours(ids), theirs(ids))


def test_masking_hands_its_mask_on(rng: np.random.Generator) -> None:
    x = np.where(MASK[..., None], sequences(rng), -1.0).astype("float32")

    def build(library: object) -> object:
        layers = [
            library.layers.Masking(-1.0),
            library.layers.GRU(UNITS, return_sequences=True),
            library.layers.LSTM(2),
        ]
        model = library.Sequential([library.Input((TIME, FEATURES)), *layers])
        return model

    theirs, ours = build(keras), build(hl)
    randomize(theirs, rng)
    ours.set_weights(theirs.get_weights())
    assert_agrees(ours, theirs, x)


# Cells ----------------------------------------------------------------------------------------------------------------
CELLS = [
    ("SimpleRNNCell", {}),
    ("LSTMCell", {"unit_forget_bias": False}),
    ("GRUCell", {}),
    ("GRUCell", {"reset_after": False}),
]


@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_one_step(kind: str, options: dict, rng: np.random.Generator) -> None:
    theirs, ours = getattr(keras.layers, kind)(UNITS, **options), getattr(hl.layers, kind)(UNITS, **options)
    theirs.build((BATCH, FEATURES))
    ours.build((BATCH, FEATURES))
    randomize(theirs, rng)
    ours.set_weights(theirs.get_weights())
    x = sequences(rng, BATCH, FEATURES)
    states = [sequences(rng, BATCH, UNITS) for _ in range(2 if kind == "LSTMCell" else 1)]
    assert_same(ours(x, states), theirs(x, states))
    assert_same(ours.get_initial_state(7), theirs.get_initial_state(7))
    assert ours.state_size == theirs.state_size and ours.output_size == theirs.output_size


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_stacks_of_cells(go_backwards: bool, masked: bool, return_sequences: bool, rng: np.random.Generator) -> None:
    def build(library: object) -> object:
        cells = [library.layers.LSTMCell(7), library.layers.GRUCell(5), library.layers.LSTMCell(4)]
        options = {"return_sequences": return_sequences, "return_state": True, "go_backwards": go_backwards}
        layer = library.layers.RNN(cells, **options)
        layer.build((BATCH, TIME, FEATURES))
        return layer

    theirs, ours = build(keras), build(hl)
    randomize(theirs, rng)
    ours.set_weights(theirs.get_weights())
    assert_agrees(ours, theirs, sequences(rng), **({"mask": MASK} if masked else {}))
    first = [[sequences(rng, BATCH, 7), sequences(rng, BATCH, 7)], [sequences(rng, BATCH, 5)]]
    first.append([sequences(rng, BATCH, 4), sequences(rng, BATCH, 4)])
    assert_agrees(ours, theirs, sequences(rng), initial_state=first)


class Averaging(hl.layers.Layer):
    """A cell of a user's: its state is a running mean, its output twice as wide."""

    def __init__(self, units: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.state_size = units
        self.output_size = 2 * units

    def build(self, input_shape: tuple) -> None:
        self.kernel = self.add_weight((input_shape[-1], self.state_size), name="kernel")

    def call(self, inputs: object, states: list) -> tuple:
        state = 0.5 * states[0] + 0.5 * hl.ops.matmul(inputs, self.kernel)
        return hl.ops.concatenate([state, -state], axis=-1), [state]


@pytest.mark.parametrize("masked", [False, True])
def test_cells_of_users(masked: bool, rng: np.random.Generator) -> None:
    layer = hl.layers.RNN(Averaging(4), return_sequences=True, return_state=True)
    x, mask = sequences(rng), MASK if masked else np.ones_like(MASK)
    outputs, state = layer(x, mask=mask) if masked else layer(x)
    expected, held, rows = np.zeros((BATCH, 4)), np.zeros((BATCH, 8)), []
    for t in range(TIME):
        new = 0.5 * expected + 0.5 * x[:, t] @ np.asarray(layer.cell.kernel)
        expected = np.where(mask[:, t, None], new, expected)
        held = np.where(mask[:, t, None], np.concatenate([new, -new], -1), held)
        rows.append(held)
    np.testing.assert_allclose(np.asarray(outputs), np.stack(rows, 1), atol=TOLERANCE)
    np.testing.assert_allclose(np.asarray(state), expected, atol=TOLERANCE)
    compiled = hl.jit(lambda value: layer(value, mask=mask) if masked else layer(value))(x)
    assert_same(compiled, (outputs, state))
    stacked = hl.layers.RNN([Averaging(4), hl.layers.GRUCell(3)])
    assert stacked(x).shape == (BATCH, 3)


def test_a_subclass_that_changes_the_step_is_asked_for_every_step(rng: np.random.Generator) -> None:
    class Doubled(hl.layers.GRUCell):
        def call(self, inputs: object, states: list, training: bool = False) -> tuple:
            output, new = super().call(inputs, states, training)
            return 2 * output, [2 * new[0]]

    layer = hl.layers.RNN(Doubled(UNITS))
    plain = hl.layers.GRU(UNITS)
    x = sequences(rng)
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    first = 2 * np.asarray(plain(x[:, :1]))
    np.testing.assert_allclose(np.asarray(layer(x[:, :1])), first, atol=1e-6)
    second = 2 * np.asarray(plain(x[:, 1:2], initial_state=first))
    np.testing.assert_allclose(np.asarray(layer(x[:, :2])), second, atol=1e-5)


# State ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_stateful_layers_go_on(kind: str, compiled: bool, rng: np.random.Generator) -> None:
    theirs, ours = pair(kind, rng, stateful=True, return_sequences=True)
    _, whole = pair(kind, rng, return_sequences=True)
    whole.set_weights(ours.get_weights())
    x = sequences(rng, BATCH, 8, FEATURES)
    run = hl.jit(lambda value: ours(value)) if compiled else ours
    parts = [np.asarray(run(x[:, :5])), np.asarray(run(x[:, 5:]))]
    assert_same(np.concatenate(parts, axis=1), whole(x))
    assert_same(parts[0], theirs(x[:, :5]))
    assert_same(parts[1], theirs(x[:, 5:]))
    for state in hl.tree.leaves(ours.states):
        assert isinstance(state, hl.Variable) and not state.trainable and np.any(np.asarray(state))
    ours.reset_state()
    assert_same(run(x[:, :5]), parts[0])
    assert len(ours.weights) == len(theirs.weights)  # states are not weights


def test_stateful_stack(rng: np.random.Generator) -> None:
    def make(stateful: bool) -> hl.layers.Layer:
        return hl.layers.RNN([hl.layers.LSTMCell(4), hl.layers.GRUCell(3)], stateful=stateful, return_sequences=True)

    x = sequences(rng)
    ours, whole = make(True), make(False)
    parts = [np.asarray(ours(x[:, :2])), np.asarray(ours(x[:, 2:]))]
    whole.build(x.shape)
    whole.set_weights(ours.get_weights())
    assert_same(np.concatenate(parts, axis=1), whole(x))


# Dropout --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_dropout_is_the_same_in_all_steps(kind: str, compiled: bool) -> None:
    """Without memory, and fed the same in all steps, it gives the same in all steps if the same inputs are dropped."""
    layer = getattr(hl.layers, kind)(UNITS, dropout=0.5, return_sequences=True, seed=3)
    x = np.ones((64, TIME, 16), "float32")
    layer.build(x.shape)
    kernel, recurrent, bias = layer.get_weights()
    layer.set_weights([kernel, 0 * recurrent, bias])
    run = hl.jit(lambda value: layer(value, training=True)) if compiled else lambda value: layer(value, training=True)
    first = run(x)
    if kind == "SimpleRNN":
        assert_same(first[:, 1:], first[:, :-1])
    assert np.unique(np.asarray(first[:, 0]), axis=0).shape[0] > 32  # samples differ
    assert not np.allclose(np.asarray(run(x)), np.asarray(first))  # and so does the next call
    assert_same(layer(x), layer(x))  # nothing is dropped outside of training


def test_dropout_rate_and_scale() -> None:
    layer = hl.layers.SimpleRNN(
        400, activation=None, use_bias=False, dropout=0.25, kernel_initializer="identity", seed=1
    )
    x = np.ones((50, 1, 400), "float32")
    y = np.asarray(layer(x, training=True))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(np.mean(y == 0) - 0.25) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout(kind: str, rng: np.random.Generator) -> None:
    layer = getattr(hl.layers, kind)(UNITS, recurrent_dropout=0.5, seed=5)
    x = sequences(rng)
    trained = np.asarray(layer(x, training=True))
    assert not np.allclose(trained, np.asarray(layer(x)))
    single = layer(x[:, :1])
    assert_same(layer(x[:, :1], training=True), single)  # the first state is zero: there is nothing to drop
    again = getattr(hl.layers, kind)(UNITS, recurrent_dropout=0.5, seed=5)
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    assert_same(again(x, training=True), trained)  # the seed decides


def test_gates_are_dropped_separately() -> None:
    """With implementation 1 each gate has a mask of its own, with 2 there is one for all."""
    x = np.ones((200, 1, 1), "float32")
    for implementation, shared in ((1, False), (2, True)):
        options = {"recurrent_activation": None, "activation": None, "use_bias": False, "kernel_initializer": "ones"}
        layer = hl.layers.LSTM(1, dropout=0.5, implementation=implementation, seed=0, return_state=True, **options)
        output, _, c = (np.asarray(v) for v in layer(x, training=True))
        i_times_c, o = c[:, 0], np.divide(output[:, 0], c[:, 0], out=np.zeros(200, "float32"), where=c[:, 0] != 0)
        alone = np.mean((i_times_c != 0) & (o == 0))
        assert (alone == 0) == shared


# Gradients ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "options"), [("SimpleRNN", {}), ("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False})]
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_gradients_against_finite_differences(
    kind: str, options: dict, masked: bool, unroll: bool, rng: np.random.Generator
) -> None:
    layer = getattr(hl.layers, kind)(
        4, dtype="float64", return_sequences=True, go_backwards=masked, unroll=unroll, **options
    )
    x = rng.normal(size=(BATCH, TIME, FEATURES))
    layer.build(x.shape)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.weights])
    weight = rng.normal(size=(BATCH, TIME, 4))
    mask = MASK if masked else None

    def loss(value: object) -> object:
        return hl.ops.sum(layer(value, mask=mask) * weight)

    @hl.jit
    def gradients(value: object) -> object:
        symbols = [value, *layer.weights]
        return hl.gradients(loss(value), symbols)

    found = [np.asarray(g) for g in gradients(x)]
    start, step = layer.get_weights(), 1e-6
    directions = [rng.normal(size=x.shape), *(rng.normal(size=w.shape) for w in start)]

    def at(scale: float) -> float:
        layer.set_weights([w + scale * d for w, d in zip(start, directions[1:], strict=True)])
        return float(loss(x + scale * directions[0]))

    numeric = (at(step) - at(-step)) / (2 * step)
    exact = sum(float(np.sum(g * d)) for g, d in zip(found, directions, strict=True))
    assert abs(exact - numeric) < 1e-6 * max(1.0, abs(numeric))
    if masked:
        assert not np.any(found[0][~MASK])  # steps that do not count have no influence


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind: str, rng: np.random.Generator) -> None:
    """The derivative of the gradient along a direction, against the difference of two gradients."""
    layer = getattr(hl.layers, kind)(3, dtype="float64")
    x, direction = rng.normal(size=(2, 4, FEATURES)), rng.normal(size=(2, 4, FEATURES))
    gradient = hl.grad(lambda value: hl.ops.sum(layer(value) ** 2))
    along = hl.grad(lambda value: hl.ops.sum(gradient(value) * direction))
    step = 1e-5
    numeric = (np.asarray(gradient(x + step * direction)) - np.asarray(gradient(x - step * direction))) / (2 * step)
    np.testing.assert_allclose(np.asarray(along(x)), numeric, atol=1e-8)


def torch_weights(kind: str, theirs: object) -> list[np.ndarray]:
    """PyTorch's (rows of gates, biases apart) as ours: gates i f g o stay; r z n become z r h."""
    w_ih, w_hh, b_ih, b_hh = (
        p.detach().numpy() for p in (theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0, theirs.bias_hh_l0)
    )
    if kind == "LSTM":
        return [w_ih.T, w_hh.T, b_ih + b_hh]

    def reorder(array: np.ndarray) -> np.ndarray:
        r, z, n = np.split(array, 3)
        return np.concatenate([z, r, n])

    return [reorder(w_ih).T, reorder(w_hh).T, np.stack([reorder(b_ih), reorder(b_hh)])]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_values_and_gradients_against_pytorch(kind: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(FEATURES, UNITS, batch_first=True).double()
    ours = getattr(hl.layers, kind)(UNITS, return_sequences=True, return_state=True, dtype="float64")
    x = rng.normal(size=(BATCH, TIME, FEATURES))
    ours.build(x.shape)
    ours.set_weights(torch_weights(kind, theirs))
    tx = torch.tensor(x, requires_grad=True)
    outputs, states = theirs(tx)
    states = list(states) if kind == "LSTM" else [states]
    got = ours(x)
    assert_same(got, [outputs.detach().numpy(), *(s[0].detach().numpy() for s in states)], 1e-12)
    weight = rng.normal(size=outputs.shape)
    (outputs * torch.tensor(weight)).sum().backward()

    @hl.jit
    def gradients(value: object) -> object:
        return hl.gradients(hl.ops.sum(ours(value)[0] * weight), [value, *ours.weights])

    by_input, *by_weights = gradients(x)
    np.testing.assert_allclose(np.asarray(by_input), tx.grad.numpy(), atol=1e-10)
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    expected = torch_weights(kind, theirs)
    if kind == "LSTM":
        expected[2] = theirs.bias_ih_l0.data.numpy()  # one bias instead of two
    for mine, other in zip(by_weights, expected, strict=True):
        np.testing.assert_allclose(np.asarray(mine), other, atol=1e-10)


# The loop -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_input_projection_is_one_product_outside_of_the_loop(kind: str) -> None:
    layer = getattr(hl.layers, kind)(UNITS)
    graph = hl.jit(lambda value: layer(value)).graph(np.zeros((BATCH, TIME, FEATURES), "float32"))
    outside = [node.primitive.name for node in graph.nodes() if node.primitive]
    (loop,) = [node for node in graph.nodes() if node.primitive and node.primitive.name == "scan"]
    inside = [node.primitive.name for node in loop.attrs["body"].nodes() if node.primitive]
    assert outside.count("matmul") == 1
    assert inside.count("matmul") == 1


def test_unknown_lengths_in_functional_models(rng: np.random.Generator) -> None:
    inputs = hl.Input((None, FEATURES))
    hidden = hl.layers.LSTM(UNITS, return_sequences=True)(inputs)
    outputs, state = hl.layers.GRU(2, return_sequences=True, return_state=True)(hidden)
    assert hidden.shape == (None, None, UNITS)
    assert outputs.shape == (None, None, 2) and state.shape == (None, 2)
    model = hl.Model(inputs, [outputs, state])
    for batch, time in ((1, 3), (4, 9)):
        y, end = model(sequences(rng, batch, time, FEATURES))
        assert y.shape == (batch, time, 2)
        np.testing.assert_array_equal(np.asarray(y)[:, -1], np.asarray(end))


def test_encoder_and_decoder(rng: np.random.Generator) -> None:
    """The last states of one layer are the first of another, as in sequence-to-sequence models."""

    def build(library: object) -> object:
        source, target = library.Input((None, FEATURES)), library.Input((None, 2))
        _, h, c = library.layers.LSTM(UNITS, return_state=True)(source)
        outputs = library.layers.LSTM(UNITS, return_sequences=True)(target, initial_state=[h, c])
        return library.Model([source, target], library.layers.Dense(2)(outputs))

    theirs, ours = build(keras), build(hl)
    randomize(theirs, rng)
    ours.set_weights(theirs.get_weights())
    values = [sequences(rng, 2, 7, FEATURES), sequences(rng, 2, 4, 2)]
    assert_same(ours(values), theirs(values))


def test_stateful_models_need_and_keep_a_batch_size(rng: np.random.Generator) -> None:
    inputs = hl.Input(batch_shape=(BATCH, None, FEATURES))
    layer = hl.layers.GRU(UNITS, stateful=True)
    model = hl.Model(inputs, layer(inputs))
    x = sequences(rng)
    first, second = np.asarray(model(x)), np.asarray(model(x))
    assert not np.allclose(first, second)
    layer.reset_state()
    assert_same(model(x), first)


def test_shapes_without_values() -> None:
    layer = hl.layers.LSTM(4, return_sequences=True, return_state=True)
    assert tuple(layer.compute_output_shape((None, None, 3))) == ((None, None, 4), (None, 4), (None, 4))
    assert hl.layers.GRU(4).compute_output_shape((None, 7, 3)) == (None, 4)


def test_mixed_precision(rng: np.random.Generator) -> None:
    _, full = pair("LSTM", rng)
    half = hl.layers.LSTM(UNITS, dtype="mixed_bfloat16")
    x = sequences(rng)
    half.build(x.shape)
    half.set_weights(full.get_weights())
    y = half(x)
    assert y.dtype == "bfloat16" and half.cell.kernel.dtype == "float32"
    np.testing.assert_allclose(np.asarray(y).astype("float32"), np.asarray(full(x)), atol=0.05)


# Descriptions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(kind: str, rng: np.random.Generator) -> None:
    _, ours = pair(kind, rng, return_sequences=True, kernel_regularizer="l2", bias_constraint="non_neg", name="memory")
    again = deserialize(serialize(ours))
    assert again.get_config() == ours.get_config()
    x = sequences(rng)
    again.build(x.shape)
    again.set_weights(ours.get_weights())
    assert_same(again(x), ours(x))


@pytest.mark.parametrize("kind", KINDS)
def test_configs_of_keras_and_ours_are_understood_by_the_other(kind: str) -> None:
    plain = {"activation": "relu", "dropout": 0.1, "go_backwards": True, "return_state": True}
    theirs = getattr(keras.layers, kind)(7, **plain)
    names = {"activation", "use_bias", "dropout", "go_backwards", "return_state", "unroll", "units", "name", "stateful"}
    config = {name: value for name, value in theirs.get_config().items() if name in names}
    ours = getattr(hl.layers, kind).from_config(config)
    assert {name: ours.get_config()[name] for name in names} == config
    back = getattr(keras.layers, kind)(**{n: v for n, v in ours.get_config().items() if not isinstance(v, dict)})
    assert {name: back.get_config()[name] for name in names} == config


def test_cells_in_descriptions() -> None:
    layer = hl.layers.RNN(
        [hl.layers.LSTMCell(3, name="low"), hl.layers.GRUCell(2, reset_after=False)], return_sequences=True
    )
    again = deserialize(serialize(layer))
    assert [type(cell).__name__ for cell in again.cell.cells] == ["LSTMCell", "GRUCell"]
    assert again.cell.cells[1].reset_after is False and again.return_sequences


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_independent(duplicate: object, rng: np.random.Generator) -> None:
    layer, x = hl.layers.LSTM(UNITS, dropout=0.1), sequences(rng)
    before = np.asarray(layer(x))
    other = duplicate(layer)
    assert_same(other(x), before)
    other.set_weights([0 * w for w in other.get_weights()])
    assert_same(layer(x), before)


# Mistakes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("shape", "words"),
    [((4, 3), "(batch, time, features)"), ((4, 0, 3), "time ≥ 1"), ((4, 6, 3, 1), "rank 3"), ((4, 6, 2), "3 on axis")],
)
def test_wrong_inputs(shape: tuple, words: str, compiled: bool) -> None:
    layer = hl.layers.LSTM(UNITS)
    layer.build((None, None, FEATURES))
    run = hl.jit(lambda value: layer(value)) if compiled else layer
    with pytest.raises(ShapeError) as caught:
        run(np.zeros(shape, "float32"))
    text = str(caught.value)
    assert words in text and "lstm" in text and len(text.splitlines()) <= 10


@pytest.mark.parametrize("batch_and_size", [(BATCH, UNITS + 1), (BATCH + 1, UNITS)])
def test_wrong_states(batch_and_size: tuple[int, int], rng: np.random.Generator) -> None:
    state = np.zeros(batch_and_size, "float32")
    for given in ([state, state], [np.zeros((BATCH, UNITS), "float32")]):
        with pytest.raises(ShapeError, match=r"the states have the wrong number or shape"):
            hl.layers.LSTM(UNITS)(sequences(rng), initial_state=given)


def test_wrong_masks(rng: np.random.Generator) -> None:
    with pytest.raises(ShapeError, match="whether it counts"):
        hl.layers.GRU(UNITS)(sequences(rng), mask=MASK[:, :-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": 0}, "units"),
        ({"units": 2.5}, "units"),
        ({"units": 2, "dropout": 20}, "dropout"),
        ({"units": 2, "recurent_dropout": 0.1}, "did you mean 'recurrent_dropout'"),
        ({"units": 2, "use_cudnn": "yes"}, "use_cudnn"),
    ],
)
def test_wrong_arguments(options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        hl.layers.LSTM(**options)


def test_other_mistakes(rng: np.random.Generator) -> None:
    with pytest.raises(ArgumentError, match="not a recurrent cell"):
        hl.layers.RNN(hl.layers.Dense(3))
    with pytest.raises(ShapeError, match="fixed one"):
        hl.layers.LSTM(3, stateful=True)(hl.Input((5, 2)))
    with pytest.raises(ShapeError, match="cannot be unrolled"):
        hl.layers.LSTM(3, unroll=True)(hl.Input((None, 2)))
    with pytest.raises(ShapeError, match="must be known"):
        hl.layers.LSTM(3)(hl.Input((5, None)))
    stateful = hl.layers.LSTM(3, stateful=True)
    stateful(sequences(rng))
    with pytest.raises(ShapeError, match="as when the layer was built"):
        stateful(sequences(rng, BATCH + 1, TIME, FEATURES))


# Learning -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_learns_digits_read_row_by_row(kind: str) -> None:
    """The 1,797 digits of scikit-learn, 8×8: eight steps of eight numbers."""
    from sklearn.datasets import load_digits

    hl.set_random_seed(1)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).reshape(-1, 8, 8).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1300], order[1300:]
    model = hl.Sequential([hl.Input((8, 8)), getattr(hl.layers, kind)(32), hl.layers.Dense(10)])
    model.compile(
        hl.optimizers.Adam(0.01), hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(images[train], labels[train], batch_size=50, epochs=12, verbose=0)
    scores = np.asarray(model.predict(images[test], verbose=0))
    assert np.mean(scores.argmax(-1) == labels[test]) > 0.9


def test_every_combination_is_finite(rng: np.random.Generator) -> None:
    """Huge inputs saturate the gates; nothing overflows."""
    for kind, sign in itertools.product(KINDS, (-1e30, 1e30)):
        _, ours = pair(kind, rng, return_sequences=True)
        assert np.isfinite(np.asarray(ours(np.full((BATCH, TIME, FEATURES), sign, "float32")))).all()
