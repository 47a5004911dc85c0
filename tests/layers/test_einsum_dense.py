"""`EinsumDense` against Keras, over the forms of its equation."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

FORMS = [
    ("ab,bc->ac", (4,), "c", (2, 3)),
    ("ab,bc->ac", 4, None, (2, 3)),
    ("abc,cd->abd", (None, 4), "d", (2, 5, 3)),
    ("abc,cde->abde", (None, 4, 6), "de", (2, 5, 3)),
    ("abc,cde->abde", (None, 4, 6), "d", (2, 5, 3)),
    ("abc,cde->abde", (5, 4, 6), "be", (2, 5, 3)),
    ("abcd,cde->abe", (None, 6), "e", (2, 5, 3, 4)),
    ("abc,bd->adc", (4, None), "d", (2, 5, 3)),
    ("...x,xy->...y", 4, "y", (2, 3)),
    ("...x,xy->...y", 4, "y", (2, 5, 6, 3)),
    ("...xy,yz->...xz", (None, 4), "z", (2, 5, 6, 3)),
    ("ab...,bc->ac...", (4,), "c", (2, 3, 5, 6)),
    ("ab...,bc->ac...", (4,), None, (2, 3)),
]


def pair(
    equation: str, sizes: object, bias: object, shape: tuple, rng: np.random.Generator, **options: object
) -> tuple:
    theirs = keras.layers.EinsumDense(equation, sizes, bias_axes=bias, **options)
    ours = hl.layers.EinsumDense(equation, sizes, bias_axes=bias, **options)
    theirs.build(shape)
    ours.build(shape)
    theirs.set_weights([rng.normal(size=w.shape).astype("float32") for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    return theirs, ours


@pytest.mark.parametrize(("equation", "sizes", "bias", "shape"), FORMS)
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_forms(
    equation: str, sizes: object, bias: object, shape: tuple, activation: object, rng: np.random.Generator
) -> None:
    theirs, ours = pair(equation, sizes, bias, shape, rng, activation=activation)
    x = rng.normal(size=shape).astype("float32")
    expected = np.asarray(theirs(x))
    np.testing.assert_allclose(np.asarray(ours(x)), expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(hl.jit(lambda x: ours(x))(x)), expected, atol=1e-5)
    assert [w.path.split("/", 1)[1] for w in ours.weights] == [w.path.split("/", 1)[1] for w in theirs.weights]
    assert ours.compute_output_shape((None, *shape[1:])) == (None, *expected.shape[1:])


def test_one_matrix_product() -> None:
    layer = hl.layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de")
    graph = hl.jit(lambda x: layer(x)).graph(np.zeros((2, 5, 3), "float32"))
    assert sum(node.primitive is not None and node.primitive.name == "matmul" for node in graph.nodes()) == 1


def test_first_weights_know_inputs_from_outputs() -> None:
    """The limit of Glorot's initializer is that of the flattened matrix."""
    layer = hl.layers.EinsumDense("abc,cde->abde", (None, 8, 8), kernel_initializer="glorot_uniform")
    layer.build((None, 5, 32))
    limit = np.sqrt(6 / (32 + 64))
    assert 0.97 * limit < np.abs(np.asarray(layer.kernel)).max() <= limit


def test_config_round_trip(rng: np.random.Generator) -> None:
    _, ours = pair("abc,cde->abde", (None, 4, 6), "de", (2, 5, 3), rng, activation="relu", kernel_regularizer="l1")
    copy = deserialize(serialize(ours))
    copy.build((2, 5, 3))
    copy.set_weights(ours.get_weights())
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(copy(x)), np.asarray(ours(x)))
    assert copy.get_config() == ours.get_config()


@pytest.mark.parametrize("equation", ["ab->ac", "ab,bc", "a...b,bc->ac", "ab,b1->a1", ",bc->c"])
def test_wrong_equations(equation: str) -> None:
    with pytest.raises(ArgumentError, match="not an equation with two operands"):
        hl.layers.EinsumDense(equation, 4)


@pytest.mark.parametrize(
    ("equation", "sizes", "bias", "shape", "words"),
    [
        ("ab,bc->ac", 4, None, (2, 3, 5), "wrong rank"),
        ("...ab,bc->...ac", (None, 4), None, (2,), "wrong rank"),
        ("abc,cde->abde", (4, 6), None, (2, 5, 3), "output_shape does not fit"),
        ("abc,cd->abd", (6, 4), None, (2, 5, 3), "differ on axis 'b'"),
        ("abc,cd->abd", (None, None), None, (2, 5, 3), "axis 'd' of the kernel is not known"),
        ("ab,bc->ac", 4, "x", (2, 3), "bias_axes names axes"),
        ("abc,cd->abd", (None, 4), None, (2, 5, None), "must be known"),
    ],
)
def test_mistakes(equation: str, sizes: object, bias: object, shape: tuple, words: str) -> None:
    with pytest.raises((ArgumentError, ShapeError), match=words):
        hl.layers.EinsumDense(equation, sizes, bias_axes=bias).build(shape)


@pytest.mark.parametrize(
    ("equation", "sizes", "shape", "other"),
    [
        ("abc,cd->abd", (None, 4), (2, 5, 3), (2, 5, 4)),
        ("...ab,bc->...ac", (None, 4), (2, 5, 3), (2, 5, 4)),
        ("ab...,bc->ac...", 4, (2, 3, 5), (2, 4, 5)),
    ],
)
def test_another_size_than_when_built(equation: str, sizes: object, shape: tuple, other: tuple) -> None:
    layer = hl.layers.EinsumDense(equation, sizes)
    layer(np.zeros(shape, "float32"))
    with pytest.raises(ShapeError, match="has changed its size"):
        layer(np.zeros(other, "float32"))
