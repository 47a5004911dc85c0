from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

ELEMENTWISE = ["Add", "Multiply", "Average", "Maximum", "Minimum"]


def arrays(rng, *shapes):
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3), (2, 3)],
        [(2, 3), (2, 3), (2, 3)],
        [(2, 4, 5, 3), (2, 1, 1, 3)],
        [(2, 1, 3), (2, 4, 1)],
        [(2, 4, 3), (2, 3)],
        [(2, 3), (2, 5, 4, 3)],
        [(2, 3)],
    ],
    ids=str,
)
def test_elementwise(agrees, rng, name, shapes):
    agrees(name, {}, arrays(rng, *shapes))


@pytest.mark.parametrize("shapes", [[(2, 3), (2, 3)], [(2, 4, 3), (2, 3)]], ids=str)
def test_subtract(agrees, rng, shapes):
    agrees("Subtract", {}, arrays(rng, *shapes))


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_concatenate(agrees, rng, axis):
    other = [2, 4, 3]
    other[axis] = 7
    agrees("Concatenate", {"axis": axis}, arrays(rng, (2, 4, 3), other, (2, 4, 3)))


@pytest.mark.parametrize(
    ("axes", "shapes"),
    [
        (1, [(2, 3), (2, 3)]),
        (-1, [(2, 3), (2, 3)]),
        ((1, 2), [(2, 3, 5), (2, 4, 3)]),
        ((2, 1), [(2, 4, 3), (2, 3, 5)]),
        ((1, 1), [(2, 3), (2, 3, 5)]),
        ((2, 1), [(2, 5, 3), (2, 3)]),
        ((2, 3), [(2, 4, 3, 5), (2, 6, 7, 3)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("normalize", [False, True])
def test_dot(agrees, rng, axes, shapes, normalize):
    agrees("Dot", {"axes": axes, "normalize": normalize}, arrays(rng, *shapes))


def masked(x, mask):
    tensor = hl.Tensor.of(x)
    tensor.mask = hl.Tensor.of(mask)
    return tensor


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Concatenate"])
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), (0, 1, 2)], ids=str)
def test_masks(rng, name, which):
    keras = pytest.importorskip("keras")
    values, masks = arrays(rng, *[(2, 5, 3)] * 3), [rng.random((2, 5)) < 0.6 for _ in range(3)]
    ours = [masked(x, masks[i]) if i in which else hl.Tensor.of(x) for i, x in enumerate(values)]
    theirs = [keras.ops.convert_to_tensor(x).view(MaskedArray) for x in values]
    for i in which:
        theirs[i]._keras_mask = masks[i]
    found, expected = getattr(hl.layers, name)()(ours), getattr(keras.layers, name)()(theirs)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    expected_mask = getattr(keras.layers, name)().compute_mask(
        values, [masks[i] if i in which else None for i in range(3)]
    )
    if expected_mask is None:
        assert found.mask is None
    else:
        np.testing.assert_array_equal(found.mask, expected_mask)


class MaskedArray(np.ndarray):
    """An array that can carry a mask, as Keras's tensors do."""


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "average", "maximum", "minimum", "concatenate"])
def test_functions(rng, name):
    inputs = arrays(rng, (2, 3), (2, 3))
    layer = getattr(hl.layers, name.capitalize())
    np.testing.assert_array_equal(getattr(hl.layers, name)(inputs), layer()(inputs))


def test_dot_function(rng):
    a, b = arrays(rng, (2, 3), (2, 3))
    np.testing.assert_allclose(hl.layers.dot([a, b], axes=1), np.sum(a * b, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shapes", "words"),
    [
        (hl.layers.Add, [(2, 8, 8, 16), (2, 4, 4, 16)], ["axis 1", "stride"]),
        (hl.layers.Add, [(2, 8, 8, 16), (2, 8, 8, 32)], ["axis 3", "channels differ"]),
        (hl.layers.Add, [(2, 3), (4, 3)], ["number of samples", "x[None]"]),
        (hl.layers.Subtract, [(2, 3)], ["[a, b]"]),
        (hl.layers.Subtract, [(2, 3), (2, 3), (2, 3)], ["two inputs"]),
        (hl.layers.Concatenate, [(2, 8, 8, 16), (2, 4, 8, 16)], ["axis 1", "axis=1"]),
        (hl.layers.Concatenate, [(2, 8, 8, 16), (2, 4, 4, 16)], ["stride"]),
        (hl.layers.Concatenate, [(2, 8, 8, 16), (2, 16)], ["one rank", "Flatten"]),
        (hl.layers.Concatenate, [(2, 3), (4, 3)], ["axis 0", "x[None]"]),
        (lambda: hl.layers.Dot(axes=1), [(2, 3), (2, 4)], ["axes=(1, 1)"]),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_wrong_inputs(layer, shapes, words, symbolic):
    inputs = [hl.Input(batch_shape=s) if symbolic else np.ones(s, "float32") for s in shapes]
    with pytest.raises(ShapeError) as caught:
        layer()(inputs)
    message = str(caught.value)
    assert all(word in message for word in ["got:", "expected:", "layer:", *words]), message
    assert len(message.splitlines()) <= 10


def test_one_array_instead_of_a_list():
    with pytest.raises(ShapeError, match="joins several inputs"):
        hl.layers.Add()(np.ones((2, 3), "float32"))


def test_wrong_axes():
    with pytest.raises(ArgumentError, match="axis 5"):
        hl.layers.Concatenate(axis=5)([np.ones((2, 3), "float32")] * 2)
    with pytest.raises(ArgumentError, match="axes"):
        hl.layers.Dot(axes=(1, 2, 3))
