"""What holds for every layer there is: a layer without a row in `rows.py` fails the suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_rows import SEQUENCE, TABLE, Row, draw

import highlevel as hl
import highlevel.layers  # registers them
from highlevel.ir import tree
from highlevel.serialization import CLASSES

BASES = {"Layer", "Wrapper", "InputLayer"}  # compute nothing: a model puts an `Input` in the place of the last
NAMES = {
    cls.__name__ for cls in CLASSES["layer"].values() if cls.__module__.startswith("highlevel.layers.")
} - BASES  # fmt: skip


def check_layer(row: Row, folder: Path) -> None:
    """Tries a layer for all that holds of every layer.

    The declared shape is the actual one; eager, compiled and inside of a model it computes the same; its description
    and a saved model bring it back; it computes in each data type; its gradients are slopes; frozen it stays as it is.
    """
    rng = np.random.default_rng(0)
    layer, inputs = row.layer(hl), row.inputs(rng)
    assert str(layer.compute_output_shape(*open_batch(inputs))) == str(open_batch(layer(*inputs, **row.call)))
    expected = layer(*inputs, **row.call)

    # Eager = compiled = as a part of a model, also with a batch of unknown size and after it has been saved.
    close(hl.jit(lambda *args: layer(*args, **row.call))(*inputs), expected)
    starts = tree.map(lambda x: hl.Input(x.shape[1:], dtype=x.dtype), inputs)
    model = hl.Model(tree.leaves(starts), layer(*starts, **row.call))
    close(model(tree.leaves(inputs)), expected)
    model.save(folder / "model.keras")
    close(hl.models.load_model(folder / "model.keras")(tree.leaves(inputs)), expected, 0)
    config = layer.get_config()
    copy = type(layer).from_config(json.loads(json.dumps(config)))
    assert copy.get_config() == config and copy.name == layer.name

    # Data types: weights and outputs are of them, and the values are about the same.
    for policy, computed, kept, tolerance in [
        ("float32", "float32", "float32", 1e-5),
        ("float64", "float64", "float64", 1e-5),
        ("mixed_bfloat16", "bfloat16", "float32", 0.1),
        ("bfloat16", "bfloat16", None, 0.1),
    ]:
        other = row.layer(hl, dtype=policy)
        other(*inputs, **row.call)
        other.set_weights(layer.get_weights())
        found = other(*inputs, **row.call)
        kinds = {str(y.dtype) for y in tree.leaves(found) if y.dtype.is_float}
        assert kinds <= {computed}
        assert kept is None or {str(w.dtype) for w in other.weights} <= {kept}
        close(found, expected, tolerance)

    check_gradient(row, rng)
    check_frozen(layer, inputs, row)


def check_gradient(row: Row, rng: np.random.Generator) -> None:
    """The gradient by all floating-point inputs and trainable weights, in a random direction, is the slope there."""
    layer, inputs = row.layer(hl, dtype="float64"), row.inputs(rng, "float64")
    ends = tree.leaves(layer(*inputs, **row.call))
    weights = [rng.normal(size=y.shape) * y.dtype.is_float for y in ends]
    variables = layer.trainable_variables
    floats = [x for x in tree.leaves(inputs) if x.dtype.kind == "f"]

    def loss(arguments: Any, _: Any) -> Any:
        supply = iter(arguments)
        filled = tree.map(lambda x: next(supply) if x.dtype.kind == "f" else x, inputs)
        outputs = tree.leaves(layer(*filled, **row.call))
        return sum(hl.ops.sum(hl.ops.cast(y, "float64") * w) for y, w in zip(outputs, weights, strict=True))

    found = tree.leaves(hl.grad(loss, (0, 1))(floats, variables))
    points = [*floats, *(v.numpy().copy() for v in variables)]
    directions = [rng.normal(size=p.shape) for p in points]
    expected = 0.0
    for sign in (1, -1):
        moved = [p + sign * 1e-6 * d for p, d in zip(points, directions, strict=True)]
        for variable, value in zip(variables, moved[len(floats) :], strict=True):
            variable.assign(value)
        expected += sign * float(loss(moved[: len(floats)], None)) / 2e-6
    slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(found, directions, strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


def check_frozen(layer: Any, inputs: list[Any], row: Row) -> None:
    """A frozen layer has nothing to train, and a training call leaves its weights as they are; both end with it."""
    trainable = [v.path for v in layer.trainable_variables]
    assert len(set(trainable)) == len(trainable)
    assert layer.freeze().trainable_variables == []
    before = layer.get_weights()
    hl.jit(lambda *args: layer(*args, **{**row.call, "training": True}))(*inputs)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert [v.path for v in layer.unfreeze().trainable_variables] == trainable


def open_batch(values: Any) -> Any:
    """The shapes of arrays, with None for the size of the batch."""
    if isinstance(values, (list, tuple)):
        return type(values)(open_batch(x) for x in values)
    return (None, *values.shape[1:])


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, "float64"), np.asarray(b, "float64"), rtol=tolerance, atol=tolerance)


def test_every_layer_has_a_row():
    tried = {getattr(hl.layers, name).__name__ for name in TABLE}
    assert NAMES - tried == set(), "layers without a row in rows.py"


@pytest.mark.parametrize("row", [rows[0] for rows in TABLE.values()], ids=str)
def test_layer(row: Row, tmp_path: Path):
    check_layer(row, tmp_path)


MASKABLE = (
    "Activation ActivityRegularization AlphaDropout Dense Dropout EinsumDense ELU GaussianDropout GaussianNoise "
    "Identity LeakyReLU PReLU ReLU RReLU Softmax SpatialDropout1D"
).split()


@pytest.mark.parametrize("name", MASKABLE)
def test_masks_pass_through_layers_that_keep_steps(rng, name):
    layer = TABLE[name][0].layer(hl)
    x = draw(rng, SEQUENCE)
    x[0, 3:] = 0
    masked = hl.layers.Masking()(x)
    assert layer(masked).mask.tolist() == (np.arange(6) < np.array([[3], [6], [6]])).tolist()
    compiled = hl.jit(lambda x: hl.ops.cast(layer(hl.layers.Masking()(x)).mask, "int32"))
    assert compiled(x).tolist()[0] == [1, 1, 1, 0, 0, 0]
