"""What the table of all layers does not say: masks, states, dropout. The oracle is the cell, step by step."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

SHAPE = (2, 4, 5, 6, 3)
MASK = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)


def by_steps(layer, x, mask):
    """Outputs of all steps: where a step does not count, states and output stay."""
    states = [np.zeros(layer.cell.state_shape((2, *x.shape[2:])), "float32")] * 2
    outputs = []
    for t in range(x.shape[1]):
        _, new = layer.cell(x[:, t], states)
        counts = mask[:, t].reshape(2, 1, 1, 1)
        states = [np.where(counts, a, b) for a, b in zip(new, states, strict=True)]
        outputs.append(states[0])
    return np.stack(outputs, axis=1), states


@pytest.mark.parametrize("compiled", [False, True])
def test_masked_steps_leave_states_and_outputs_as_they_are(rng, compiled):
    layer = hl.layers.ConvLSTM2D(2, 3, return_sequences=True, return_state=True)
    x = rng.normal(size=SHAPE).astype("float32")
    call = lambda x: layer(x, mask=MASK)  # noqa: E731
    found = (hl.jit(call) if compiled else call)(x)
    outputs, states = by_steps(layer, x, MASK)
    for a, b in zip(found, [outputs, *states], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_first_state_and_a_state_that_is_kept(rng):
    x = rng.normal(size=SHAPE).astype("float32")
    layer = hl.layers.ConvLSTM2D(2, 3, return_state=True)
    whole = layer(x)
    _, *states = layer(x[:, :2])
    for a, b in zip(layer(x[:, 2:], initial_state=states), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    kept = hl.layers.ConvLSTM2D(2, 3, stateful=True)
    kept.build(SHAPE)
    kept.set_weights(layer.get_weights())
    run = hl.jit(lambda x: kept(x))
    run(x[:, :2])
    np.testing.assert_allclose(run(x[:, 2:]), whole[0], rtol=1e-5, atol=1e-5)
    kept.reset_state()
    np.testing.assert_allclose(run(x), whole[0], rtol=1e-5, atol=1e-5)


def test_images_of_another_size(rng):
    layer = hl.layers.ConvLSTM2D(2, 3, padding="same")
    model = hl.Sequential([hl.Input((None, None, None, 3)), layer])
    assert model.output_shape == (None, None, None, 2)
    assert model(rng.normal(size=SHAPE).astype("float32")).shape == (2, 5, 6, 2)
    assert model(rng.normal(size=(1, 3, 8, 4, 3)).astype("float32")).shape == (1, 8, 4, 2)


def test_dropout_is_the_same_in_all_steps_and_differs_by_gate(rng):
    layer = hl.layers.ConvLSTM1D(
        2, 1, dropout=0.5, use_bias=False, kernel_initializer="ones", recurrent_initializer="zeros", seed=3,
        activation="linear", recurrent_activation="linear", return_sequences=True,
    )  # fmt: skip
    x = np.ones((1, 3, 50, 1), "float32")
    a, b = layer(x, training=True).numpy(), layer(x, training=True).numpy()
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a[..., 0], a[..., 1])  # both filters see the same inputs
    assert set(np.unique(a[:, 0])) == {0.0, 8.0}  # o · i · c, each 0 or 2 – the product of independent choices
    np.testing.assert_array_equal(layer(x), layer(x, training=False))


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="rank"):
        hl.layers.ConvLSTMCell(4, 2, 3)
    layer = hl.layers.ConvLSTM2D(2, 3)
    with pytest.raises(ShapeError, match="batch, time, height, width, channels"):
        layer(np.ones((2, 5, 5, 3), "float32"))
    with pytest.raises(ShapeError, match="larger than the input"):
        layer(np.ones((2, 4, 2, 5, 3), "float32"))
    with pytest.raises(ShapeError, match="2 of shape"):
        layer(np.ones(SHAPE, "float32"), initial_state=[np.zeros((2, 9, 9, 2), "float32")] * 2)
