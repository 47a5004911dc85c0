"""`Attention` and `AdditiveAttention` against Keras."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

QUERY_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1]], bool)
VALUE_MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1, 0]], bool)
KINDS = [
    ("Attention", {}),
    ("Attention", {"use_scale": True}),
    ("Attention", {"score_mode": "concat"}),
    ("Attention", {"score_mode": "concat", "use_scale": True}),
    ("Attention", {"dropout": 0.3}),
    ("AdditiveAttention", {}),
    ("AdditiveAttention", {"use_scale": False}),
]


def inputs(rng: np.random.Generator, with_key: bool) -> list[np.ndarray]:
    shapes = [(3, 5, 8), (3, 7, 8), (3, 7, 8)][: 3 if with_key else 2]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def pair(kind: str, options: dict, values: list[np.ndarray], rng: np.random.Generator) -> tuple:
    theirs, ours = getattr(keras.layers, kind)(**options), getattr(hl.layers, kind)(**options)
    shapes = [value.shape for value in values]
    theirs.build(shapes)
    ours.build(shapes)
    theirs.set_weights([rng.normal(size=w.shape).astype("float32") for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def assert_same(ours: object, theirs: object, tolerance: float = 1e-5) -> None:
    a, b = keras.tree.flatten(ours), keras.tree.flatten(theirs)
    assert len(a) == len(b)
    for mine, other in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(other), atol=tolerance)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("masked", [None, "value", "both"])
@pytest.mark.parametrize("call", [{}, {"return_attention_scores": True, "use_causal_mask": True}])
def test_values(
    kind: str, options: dict, with_key: bool, masked: str | None, call: dict, rng: np.random.Generator
) -> None:
    values = inputs(rng, with_key)
    theirs, ours = pair(kind, options, values, rng)
    masks = {None: None, "value": [None, VALUE_MASK], "both": [QUERY_MASK, VALUE_MASK]}[masked]
    expected = theirs(values, mask=masks, **call)
    assert_same(ours(values, mask=masks, **call), expected)
    assert_same(hl.jit(lambda *arrays: ours(list(arrays), mask=masks, **call))(*values), expected)
    assert [w.path.split("/", 1)[1] for w in ours.weights] == [w.path.split("/", 1)[1] for w in theirs.weights]


def test_masks_that_come_with_the_inputs(rng: np.random.Generator) -> None:
    values = [Tensor.of(value) for value in inputs(rng, False)]
    values[0].mask, values[1].mask = Tensor.of(QUERY_MASK), Tensor.of(VALUE_MASK)
    layer = hl.layers.Attention()
    output = layer(values)
    assert_same(output, layer([np.asarray(v) for v in values], mask=[QUERY_MASK, VALUE_MASK]))
    np.testing.assert_array_equal(np.asarray(output.mask), QUERY_MASK)
    assert not np.any(np.asarray(output)[~QUERY_MASK])


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_gradients_against_finite_differences(kind: str, options: dict, rng: np.random.Generator) -> None:
    layer = getattr(hl.layers, kind)(dtype="float64", **options)
    q, v = rng.normal(size=(3, 5, 8)), rng.normal(size=(3, 7, 8))
    layer.build([q.shape, v.shape])
    weight = rng.normal(size=q.shape)

    def loss(q: object, v: object) -> object:
        return hl.ops.sum(layer([q, v], mask=[QUERY_MASK, VALUE_MASK]) * weight)

    found = [np.asarray(g) for g in hl.jit(lambda q, v: hl.gradients(loss(q, v), [q, v, *layer.weights]))(q, v)]
    start = layer.get_weights()
    directions = [rng.normal(size=a.shape) for a in (q, v, *start)]

    def at(scale: float) -> float:
        layer.set_weights([w + scale * d for w, d in zip(start, directions[2:], strict=True)])
        return float(loss(q + scale * directions[0], v + scale * directions[1]))

    numeric = (at(1e-6) - at(-1e-6)) / 2e-6
    exact = sum(float(np.sum(g * d)) for g, d in zip(found, directions, strict=True))
    assert abs(exact - numeric) < 1e-6 * max(1.0, abs(numeric))


def test_dropout_in_training_only(rng: np.random.Generator) -> None:
    values = inputs(rng, False)
    layer = hl.layers.Attention(dropout=0.5, seed=2)
    assert_same(layer(values), layer(values))
    assert not np.allclose(np.asarray(layer(values, training=True)), np.asarray(layer(values)))


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_config_round_trip(kind: str, options: dict, rng: np.random.Generator) -> None:
    values = inputs(rng, True)
    _, ours = pair(kind, options, values, rng)
    copy = deserialize(serialize(ours))
    copy.build([value.shape for value in values])
    copy.set_weights(ours.get_weights())
    assert_same(copy(values), ours(values))


def test_mistakes(rng: np.random.Generator) -> None:
    q, v, k = inputs(rng, True)
    layer = hl.layers.Attention()
    with pytest.raises(ArgumentError, match="a list of two or three inputs"):
        layer(q)
    with pytest.raises(ArgumentError, match="a list of two or three inputs"):
        layer([q])
    with pytest.raises(ShapeError, match="wrong rank"):
        layer([q[0], v[0]])
    with pytest.raises(ShapeError, match="feature by feature"):
        layer([q, v, k[..., :4]])
    with pytest.raises(ShapeError, match="a key belongs to each value"):
        layer([q, v, k[:, :4]])
    with pytest.raises(ArgumentError, match="masks come as a list"):
        layer([q, v], mask=VALUE_MASK)
    with pytest.raises(ArgumentError, match="score_mode"):
        hl.layers.Attention(score_mode="product")
