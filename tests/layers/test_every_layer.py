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
from highlevel.layers.preprocessing.strings import HostLayer
from highlevel.serialization import CLASSES

BASES = {"Layer", "Wrapper", "InputLayer"}  # compute nothing: a model puts an `Input` in the place of the last
PUBLIC = {getattr(hl.layers, name) for name in hl.layers.__all__}
NAMES = {cls.__name__ for cls in CLASSES["layer"].values() if cls in PUBLIC} - BASES


def check_layer(row: Row, folder: Path) -> None:
    """Tries a layer for all that holds of every layer.

    The declared shape is the actual one; eager, compiled and inside of a model it computes the same; its description
    and a saved model bring it back; it computes in each data type; its gradients are slopes; frozen it stays as it is.
    """
    rng = np.random.default_rng(0)
    layer, inputs = row.layer(hl), row.inputs(rng)
    config = layer.get_config()
    copy = type(layer).from_config(json.loads(json.dumps(config)))
    assert copy.get_config() == config and copy.name == layer.name
    if isinstance(layer, HostLayer):  # strings, which no program knows
        close(copy(*inputs), layer(*inputs), 0)
        return
    assert str(layer.compute_output_shape(*open_batch(inputs))) == str(open_batch(layer(*inputs, **row.call)))
    expected = layer(*inputs, **row.call)

    # Eager = compiled = as a part of a model, also with a batch of unknown size and after it has been saved.
    close(hl.jit(lambda *args: layer(*args, **row.call))(*inputs), expected)
    starts = tree.map(lambda x: hl.Input(x.shape[1:], dtype=x.dtype), inputs)
    model = hl.Model(tree.leaves(starts), layer(*starts, **row.call))
    close(model(tree.leaves(inputs)), expected)
    model.save(folder / "model.keras")
    close(hl.models.load_model(folder / "model.keras")(tree.leaves(inputs)), expected, 0)

    # Data types: weights and outputs are of them, and the values are about the same. float64 is that of the gradients.
    half = row.layer(hl, dtype="mixed_bfloat16")
    compute = hl.jit(lambda *args: half(*args, **row.call))
    compute(*inputs)
    half.set_weights(layer.get_weights())
    found = compute(*inputs)
    close(found, expected, 0.1)
    keeps = getattr(layer, "keeps_type", False)  # of images: the outputs are of the inputs' type
    assert kinds(expected) <= {"float32"} and kinds(found) <= {"float32" if keeps else "bfloat16"}
    assert kinds(layer.weights) | kinds(half.weights) <= {"float32"}

    check_gradient(row, rng)
    check_frozen(layer, inputs, row)


def check_gradient(row: Row, rng: np.random.Generator) -> None:
    """The gradient by all floating-point inputs and trainable weights, in a random direction, is the slope there."""
    layer, inputs = row.layer(hl, dtype="float64"), row.inputs(rng, "float64")
    layer.compute_output_shape(*tree.map(lambda x: x.shape, inputs))  # builds it
    variables = layer.trainable_variables
    floats = [x for x in tree.leaves(inputs) if x.dtype.kind == "f"]

    def loss(arguments: Any, _: Any) -> Any:
        supply = iter(arguments)
        filled = tree.map(lambda x: next(supply) if x.dtype.kind == "f" else x, inputs)
        outputs = [hl.ops.cast(y, "float64") for y in tree.leaves(layer(*filled, **row.call)) if y.dtype.is_float]
        weights = [np.random.default_rng(i).normal(size=y.shape) for i, y in enumerate(outputs)]
        return sum((hl.ops.sum(y * w) for y, w in zip(outputs, weights, strict=True)), hl.ops.zeros(()))

    compute = hl.jit(lambda *arguments: hl.value_and_grad(loss, (0, 1))(arguments, variables))
    points = [*floats, *(v.numpy().copy() for v in variables)]
    directions = [rng.normal(size=p.shape) for p in points]

    def along(distance: float) -> Any:
        moved = [p + distance * d for p, d in zip(points, directions, strict=True)]
        for variable, value in zip(variables, moved[len(floats) :], strict=True):
            variable.assign(value)
        return compute(*moved[: len(floats)])

    slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(tree.leaves(along(0)[1]), directions, strict=True))
    expected = (float(along(1e-6)[0]) - float(along(-1e-6)[0])) / 2e-6
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


def kinds(values: Any) -> set[str]:
    """The floating-point types among arrays or variables."""
    return {str(x.dtype) for x in tree.leaves(values) if x.dtype.is_float}


def open_batch(values: Any) -> Any:
    """The shapes of arrays, with None for the size of the batch."""
    if isinstance(values, dict):
        return {key: open_batch(x) for key, x in values.items()}
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


MASKABLE = [
    *("Activation", "ActivityRegularization", "AlphaDropout", "Dense", "Dropout", "EinsumDense", "ELU"),
    *("GaussianDropout", "GaussianNoise", "Identity", "LeakyReLU", "PReLU", "ReLU", "RReLU", "Softmax"),
    "SpatialDropout1D",
]


@pytest.mark.parametrize("name", MASKABLE)
def test_masks_pass_through_layers_that_keep_steps(rng, name):
    layer = TABLE[name][0].layer(hl)
    x = draw(rng, SEQUENCE)
    x[0, 3:] = 0
    masked = hl.layers.Masking()(x)
    assert layer(masked).mask.tolist() == (np.arange(6) < np.array([[3], [6], [6]])).tolist()
    compiled = hl.jit(lambda x: hl.ops.cast(layer(hl.layers.Masking()(x)).mask, "int32"))
    assert compiled(x).tolist()[0] == [1, 1, 1, 0, 0, 0]
