"""Multi-head and grouped attention against Keras and PyTorch: outputs, weights of attention, masks, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

TOLERANCE = 1e-5
BATCH, TARGET, SOURCE, FEATURES = 3, 5, 7, 8
QUERY_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]], bool)
VALUE_MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1, 0]], bool)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def pair(
    rng: np.random.Generator,
    *arguments: object,
    kind: str = "MultiHeadAttention",
    shapes: tuple = ((BATCH, TARGET, FEATURES), (BATCH, SOURCE, FEATURES)),
    **options: object,
) -> tuple:
    """Keras's layer and ours with the same weights."""
    theirs, ours = getattr(keras.layers, kind)(*arguments, **options), getattr(hl.layers, kind)(*arguments, **options)
    theirs.build(*shapes)
    ours.build(*shapes)
    theirs.set_weights([normal(rng, *w.shape) for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def assert_same(ours: object, theirs: object, tolerance: float = TOLERANCE) -> None:
    a, b = keras.tree.flatten(ours), keras.tree.flatten(theirs)
    assert len(a) == len(b)
    for mine, other in zip(a, b, strict=True):
        assert tuple(mine.shape) == tuple(other.shape)
        np.testing.assert_allclose(np.asarray(mine), np.asarray(other), atol=tolerance, rtol=tolerance)


def assert_agrees(ours: object, theirs: object, *inputs: np.ndarray, **call: object) -> None:
    """Ours, eager and compiled, gives what theirs gives."""
    expected = theirs(*inputs, **call)
    assert_same(ours(*inputs, **call), expected)
    assert_same(hl.jit(lambda *values: ours(*values, **call))(*inputs), expected)


# Against Keras --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"value_dim": 3},
        {"use_bias": False},
        {"output_shape": 6},
        {"output_shape": (2, 3)},
        {"sliding_window": 2},
        {"use_gate": True},
        {"use_gate": True, "value_dim": 6, "use_bias": False},
        {"dropout": 0.5},  # another path; nothing is dropped outside of training
        {"attention_axes": 1},
        {"attention_axes": (-2,)},
        {"dtype": "float64"},
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"return_attention_scores": True},
        {"use_causal_mask": True},
        {"use_causal_mask": True, "return_attention_scores": True},
    ],
)
def test_arguments(options: dict, call: dict, rng: np.random.Generator) -> None:
    theirs, ours = pair(rng, 2, 4, **options)
    assert_agrees(ours, theirs, normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES), **call)


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(
    "masks",
    [
        ("value_mask",),
        ("value_mask", "key_mask"),
        ("attention_mask",),
        ("attention_mask", "value_mask"),
        ("head_mask",),
        ("integers",),
    ],
)
def test_masks(scores: bool, causal: bool, window: int | None, masks: tuple, rng: np.random.Generator) -> None:
    """Every combination of masks, with rows that see nothing at all among them."""
    theirs, ours = pair(rng, 2, 4, sliding_window=window)
    visible = rng.random((BATCH, TARGET, SOURCE)) < 0.6
    visible[1, 2] = False
    available = {
        "value_mask": {"value_mask": VALUE_MASK},
        "key_mask": {"key_mask": np.roll(VALUE_MASK, 1, axis=0)},
        "attention_mask": {"attention_mask": visible},
        "head_mask": {"attention_mask": rng.random((BATCH, 2, TARGET, SOURCE)) < 0.6},
        "integers": {"attention_mask": visible.astype("int32")},
    }
    call = {"return_attention_scores": scores, "use_causal_mask": causal}
    for name in masks:
        call.update(available[name])
    if "head_mask" in masks and (causal or window):
        causal_only = np.ones((1, 1, TARGET, SOURCE), bool)  # Keras cannot combine these: the masks are joined here
        offset = np.arange(SOURCE)[None, :] - np.arange(TARGET)[:, None]
        joined = call["attention_mask"] & (causal_only if not causal else (offset <= 0)[None, None])
        joined = joined & (True if window is None else (abs(offset) < window)[None, None])
        bare, _ = pair(rng, 2, 4)
        bare.set_weights(theirs.get_weights())
        q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
        expected = bare(q, v, attention_mask=joined, return_attention_scores=scores)
        assert_same(ours(q, v, **call), expected)
        return
    key = normal(rng, BATCH, SOURCE, FEATURES)
    inputs = (normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES), key)
    assert_agrees(ours, theirs, *inputs, **call)


@pytest.mark.parametrize("scores", [False, True])
def test_rows_that_see_nothing_are_finite(scores: bool, rng: np.random.Generator) -> None:
    theirs, ours = pair(rng, 2, 4)
    q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
    nothing = np.zeros((BATCH, TARGET, SOURCE), bool)
    assert_agrees(ours, theirs, q, v, attention_mask=nothing, return_attention_scores=scores)
    x = Tensor.of(q)
    gradient = hl.grad(lambda x: hl.ops.sum(ours(x, v, attention_mask=nothing)))(x)
    assert np.isfinite(np.asarray(gradient)).all()


def test_masks_that_come_with_the_inputs(rng: np.random.Generator) -> None:
    """As of an `Embedding(mask_zero=True)`: taken from query and value, and handed on with the output."""
    ids = np.array([[3, 1, 4, 2, 0], [2, 1, 0, 0, 0], [4, 4, 4, 4, 4]])
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(5, FEATURES, mask_zero=True)(inputs)
    attended = keras.layers.MultiHeadAttention(2, 4)(embedded, embedded)
    theirs = keras.Model(inputs, [attended, keras.layers.GlobalAveragePooling1D()(attended)])
    weights = [normal(rng, *w.shape) for w in theirs.get_weights()]
    theirs.set_weights(weights)

    embedding, attention = hl.layers.Embedding(5, FEATURES, mask_zero=True), hl.layers.MultiHeadAttention(2, 4)
    pooling = hl.layers.GlobalAveragePooling1D()

    def ours(ids: object) -> list:
        x = embedding(ids)
        y = attention(x, x)
        return [y, pooling(y)]

    ours(ids)
    embedding.set_weights(weights[:1])
    attention.set_weights(weights[1:])
    assert_same(ours(ids), theirs(ids))
    assert_same(hl.jit(ours)(ids), theirs(ids))
    output = attention(embedding(ids), embedding(ids))
    np.testing.assert_array_equal(np.asarray(output.mask), ids != 0)


def test_masks_given_by_hand_are_those_of_the_inputs(rng: np.random.Generator) -> None:
    _, ours = pair(rng, 2, 4)
    q, v = Tensor.of(normal(rng, BATCH, TARGET, FEATURES)), Tensor.of(normal(rng, BATCH, SOURCE, FEATURES))
    given = ours(q, v, query_mask=QUERY_MASK, value_mask=VALUE_MASK)
    q.mask, v.mask = Tensor.of(QUERY_MASK), Tensor.of(VALUE_MASK)
    carried = ours(q, v)
    assert_same(carried, given)
    # The mask of the query decides which rows count: these are what they are without it.
    without = np.asarray(ours(np.asarray(q), np.asarray(v), value_mask=VALUE_MASK))
    np.testing.assert_array_equal(np.asarray(carried)[QUERY_MASK], without[QUERY_MASK])


@pytest.mark.parametrize(("axes", "scores"), [(None, False), (1, True), ((2,), True), ((1, 2), True), ((1, 2), False)])
def test_images_and_other_ranks(axes: object, scores: bool, rng: np.random.Generator) -> None:
    shape = (2, 3, 4, FEATURES)
    theirs, ours = pair(rng, 2, 4, attention_axes=axes, shapes=(shape, shape))
    assert_agrees(ours, theirs, normal(rng, *shape), normal(rng, *shape), return_attention_scores=scores)


def test_masks_of_positions_in_images(rng: np.random.Generator) -> None:
    """Attention along one axis of two is attention along that axis, for each place on the other."""
    shape = (2, 3, 4, FEATURES)
    x, mask = normal(rng, *shape), rng.random((2, 3, 4)) < 0.7
    mask[..., 0] = True
    _, along = pair(rng, 2, 4, attention_axes=(2,), shapes=(shape, shape))
    rows = hl.layers.MultiHeadAttention(2, 4)
    rows.build((6, 4, FEATURES), (6, 4, FEATURES))
    rows.set_weights(along.get_weights())
    flat = rows(x.reshape(6, 4, FEATURES), x.reshape(6, 4, FEATURES), value_mask=mask.reshape(6, 4))
    assert_same(along(x, x, value_mask=mask), np.asarray(flat).reshape(shape))
    _, both = pair(rng, 2, 4, attention_axes=(1, 2), shapes=(shape, shape))
    whole = hl.layers.MultiHeadAttention(2, 4)
    whole.build((2, 12, FEATURES), (2, 12, FEATURES))
    whole.set_weights(both.get_weights())
    flat = whole(x.reshape(2, 12, FEATURES), x.reshape(2, 12, FEATURES), value_mask=mask.reshape(2, 12))
    assert_same(both(x, x, value_mask=mask), np.asarray(flat).reshape(shape))


def test_weights_are_those_of_keras(rng: np.random.Generator) -> None:
    theirs, ours = pair(rng, 2, 4, value_dim=3, use_gate=True)
    assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.path.split("/", 1)[1] for w in ours.weights] == [w.path.split("/", 1)[1] for w in theirs.weights]


def test_first_weights_have_the_spread_of_keras() -> None:
    """Glorot's limit, from the number of features and that of heads · size."""
    layer = hl.layers.MultiHeadAttention(4, 16, kernel_initializer=hl.initializers.GlorotUniform(seed=1))
    layer.build((None, None, 32), (None, None, 32))
    limit = np.sqrt(6 / (32 + 64))
    for dense in (layer._query_dense, layer._output_dense):
        kernel = np.asarray(dense.kernel)
        assert 0.98 * limit < np.abs(kernel).max() <= limit
    fresh = hl.layers.MultiHeadAttention(4, 16)
    fresh.build((None, None, 32), (None, None, 32))
    assert not np.allclose(np.asarray(fresh._query_dense.kernel), np.asarray(fresh._key_dense.kernel))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("call", [{}, {"return_attention_scores": True}, {"use_causal_mask": True}])
@pytest.mark.parametrize("options", [{}, {"use_gate": True, "use_bias": False, "sliding_window": 3}])
def test_grouped_queries(groups: int, call: dict, options: dict, rng: np.random.Generator) -> None:
    theirs, ours = pair(rng, 4, 4, groups, kind="GroupQueryAttention", **options)
    inputs = (normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES))
    assert_agrees(ours, theirs, *inputs, value_mask=VALUE_MASK, **call)


# Gradients ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_values_and_gradients_against_pytorch(scores: bool, causal: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    heads, size = 2, 4
    theirs = torch.nn.MultiheadAttention(FEATURES, heads, batch_first=True).double()
    theirs.in_proj_bias.data.normal_()
    ours = hl.layers.MultiHeadAttention(heads, size, dtype="float64")
    q, v = rng.normal(size=(BATCH, TARGET, FEATURES)), rng.normal(size=(BATCH, SOURCE, FEATURES))
    ours.build(q.shape, v.shape)

    def as_ours(in_weight: object, in_bias: object, out_weight: object, out_bias: object) -> list[np.ndarray]:
        arrays: list[np.ndarray] = []
        for matrix, bias in zip(np.split(in_weight.numpy(), 3), np.split(in_bias.numpy(), 3), strict=True):
            arrays += [matrix.T.reshape(FEATURES, heads, size), bias.reshape(heads, size)]
        return [*arrays, out_weight.numpy().T.reshape(heads, size, FEATURES), out_bias.numpy()]

    parameters = [theirs.in_proj_weight, theirs.in_proj_bias, theirs.out_proj.weight, theirs.out_proj.bias]
    ours.set_weights(as_ours(*(p.detach() for p in parameters)))
    padding = ~VALUE_MASK
    ahead = np.triu(np.ones((TARGET, SOURCE), bool), 1) if causal else None
    padding[2, 0] = False  # with the causal mask, no row sees nothing
    tq = torch.tensor(q, requires_grad=True)
    blocked = None if ahead is None else torch.tensor(ahead)
    expected, weights = theirs(
        tq, torch.tensor(v), torch.tensor(v), key_padding_mask=torch.tensor(padding), attn_mask=blocked,
        average_attn_weights=False,
    )  # fmt: skip
    call = {"value_mask": ~padding, "use_causal_mask": causal, "return_attention_scores": scores}
    got = ours(q, v, **call)
    assert_same(
        got, [expected.detach().numpy(), weights.detach().numpy()] if scores else expected.detach().numpy(), 1e-10
    )
    direction = rng.normal(size=expected.shape)
    (expected * torch.tensor(direction)).sum().backward()

    @hl.jit
    def gradients(q: object) -> object:
        output = ours(q, v, **call)
        return hl.gradients(hl.ops.sum((output[0] if scores else output) * direction), [q, *ours.weights])

    by_query, *by_weights = gradients(q)
    np.testing.assert_allclose(np.asarray(by_query), tq.grad.numpy(), atol=1e-10)
    for mine, other in zip(by_weights, as_ours(*(p.grad for p in parameters)), strict=True):
        np.testing.assert_allclose(np.asarray(mine), other, atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"use_gate": True}, {"sliding_window": 2}])
def test_gradients_against_finite_differences(options: dict, rng: np.random.Generator) -> None:
    layer = hl.layers.MultiHeadAttention(2, 3, dtype="float64", **options)
    q, v = rng.normal(size=(BATCH, TARGET, FEATURES)), rng.normal(size=(BATCH, SOURCE, FEATURES))
    layer.build(q.shape, v.shape)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.weights])
    weight = rng.normal(size=q.shape)

    def loss(q: object, v: object) -> object:
        return hl.ops.sum(layer(q, v, value_mask=VALUE_MASK, use_causal_mask=True) * weight)

    @hl.jit
    def gradients(q: object, v: object) -> object:
        return hl.gradients(loss(q, v), [q, v, *layer.weights])

    found = [np.asarray(g) for g in gradients(q, v)]
    start = layer.get_weights()
    directions = [rng.normal(size=a.shape) for a in (q, v, *start)]

    def at(scale: float) -> float:
        layer.set_weights([w + scale * d for w, d in zip(start, directions[2:], strict=True)])
        return float(loss(q + scale * directions[0], v + scale * directions[1]))

    numeric = (at(1e-6) - at(-1e-6)) / 2e-6
    exact = sum(float(np.sum(g * d)) for g, d in zip(found, directions, strict=True))
    assert abs(exact - numeric) < 1e-6 * max(1.0, abs(numeric))


# The rest -------------------------------------------------------------------------------------------------------------
def test_dropout_drops_weights_in_training_only(rng: np.random.Generator) -> None:
    _, ours = pair(rng, 2, 4, dropout=0.5, seed=1)
    q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
    still = ours(q, v)
    assert_same(still, ours(q, v))
    first, scores = ours(q, v, training=True, return_attention_scores=True)
    assert not np.allclose(np.asarray(first), np.asarray(still))
    assert not np.allclose(np.asarray(first), np.asarray(ours(q, v, training=True)))
    np.testing.assert_allclose(np.asarray(scores).sum(-1), 1.0, atol=1e-5)  # before anything is dropped
    many = np.mean([np.asarray(ours(q, v, training=True)) for _ in range(300)], axis=0)
    spread = np.abs(np.asarray(still)).mean()
    assert np.abs(many - np.asarray(still)).mean() < 0.2 * spread  # what is kept is scaled up


def test_functional_models_with_unknown_lengths(rng: np.random.Generator) -> None:
    query, value = hl.Input((None, FEATURES)), hl.Input((None, FEATURES))
    output, scores = hl.layers.MultiHeadAttention(2, 4, output_shape=3)(query, value, return_attention_scores=True)
    assert output.shape == (None, None, 3)
    assert scores.shape == (None, 2, None, None)
    model = hl.Model([query, value], [output, scores])
    for target, source in ((2, 3), (6, 4)):
        y, weights = model([normal(rng, 2, target, FEATURES), normal(rng, 2, source, FEATURES)])
        assert y.shape == (2, target, 3) and weights.shape == (2, 2, target, source)


def test_mixed_precision(rng: np.random.Generator) -> None:
    _, full = pair(rng, 2, 4)
    for scores in (False, True):
        half = hl.layers.MultiHeadAttention(2, 4, dtype="mixed_bfloat16")
        q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
        half.build(q.shape, v.shape)
        half.set_weights([0.3 * w for w in full.get_weights()])
        full.set_weights(half.get_weights())
        call = {"value_mask": VALUE_MASK, "return_attention_scores": scores}
        for a, b in zip(hl.tree.leaves(half(q, v, **call)), hl.tree.leaves(full(q, v, **call)), strict=True):
            assert a.dtype == "bfloat16"
            np.testing.assert_allclose(np.asarray(a).astype("float32"), np.asarray(b), atol=0.05)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_config_round_trip(kind: str, rng: np.random.Generator) -> None:
    arguments = (2, 4) if kind == "MultiHeadAttention" else (4, 4, 2)
    _, ours = pair(rng, *arguments, kind=kind, use_gate=True, kernel_regularizer="l2", name="looking")
    copy = deserialize(serialize(ours))
    assert copy.get_config() == ours.get_config()
    assert ours._query_dense.get_config()["dtype"] == "float32"  # given as a policy
    q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
    copy.build(q.shape, v.shape)
    copy.set_weights(ours.get_weights())
    assert_same(copy(q, v), ours(q, v))


def test_configs_of_keras_and_ours_are_understood_by_the_other() -> None:
    theirs = keras.layers.MultiHeadAttention(2, 4, value_dim=3, dropout=0.1, output_shape=(5,), attention_axes=(1,))
    config = {name: value for name, value in theirs.get_config().items() if not isinstance(value, dict)}
    ours = hl.layers.MultiHeadAttention.from_config(config)
    plain = {name: value for name, value in ours.get_config().items() if not isinstance(value, dict)}
    back = keras.layers.MultiHeadAttention(**plain)
    same = [name for name in config if name not in ("output_shape", "attention_axes", "dtype")]
    assert {name: back.get_config()[name] for name in same} == {name: config[name] for name in same}


def test_regularizers_and_constraints_reach_the_projections() -> None:
    layer = hl.layers.MultiHeadAttention(2, 4, kernel_regularizer="l2", bias_constraint="non_neg")
    layer.build((None, None, FEATURES), (None, None, FEATURES))
    kernels = [w for w in layer.weights if w.name == "kernel"]
    biases = [w for w in layer.weights if w.name == "bias"]
    assert len(kernels) == len(biases) == 4
    assert all(w.regularizer is not None for w in kernels) and all(w.constraint is not None for w in biases)


# Mistakes -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 0}, "num_heads"),
        ({"key_dim": -1}, "key_dim"),
        ({"value_dim": 1.5}, "value_dim"),
        ({"dropout": 7}, "dropout"),
        ({"attention_axes": "all"}, "attention_axes"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"num_head": 2}, "did you mean 'num_heads'"),
    ],
)
def test_wrong_arguments(options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        hl.layers.MultiHeadAttention(**{"num_heads": 2, "key_dim": 4, **options})


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    ("query", "value", "words"),
    [
        ((5, 8), (7, 8), "add the batch axis"),
        ((3, 5, 8), (7, 8), "value has the wrong rank"),
        ((3, 5, 8), (2, 7, 8), "one batch size"),
    ],
)
def test_wrong_inputs(query: tuple, value: tuple, words: str, built: bool) -> None:
    layer = hl.layers.MultiHeadAttention(2, 4)
    if built:
        layer.build((None, None, 8), (None, None, 8))
    with pytest.raises(ShapeError) as caught:
        layer(np.zeros(query, "float32"), np.zeros(value, "float32"))
    text = str(caught.value)
    assert words in text and "multi_head_attention" in text and len(text.splitlines()) <= 10


def test_wrong_sizes(rng: np.random.Generator) -> None:
    _, layer = pair(rng, 2, 4)
    q, v = normal(rng, BATCH, TARGET, FEATURES), normal(rng, BATCH, SOURCE, FEATURES)
    with pytest.raises(ShapeError, match="a key belongs to each value"):
        layer(q, v, v[:, 1:])
    with pytest.raises(ShapeError, match="the mask does not fit"):
        layer(q, v, value_mask=QUERY_MASK)
    with pytest.raises(ShapeError, match="the mask does not fit"):
        layer(q, v, attention_mask=np.ones((BATCH, SOURCE, TARGET), bool))
    with pytest.raises(ShapeError, match="built"):
        layer(normal(rng, BATCH, TARGET, FEATURES + 1), v)
    with pytest.raises(ArgumentError, match="cannot be attended over"):
        hl.layers.MultiHeadAttention(2, 4, attention_axes=2)(q, v)
    with pytest.raises(ArgumentError, match="one axis of time"):
        image = normal(rng, 2, 3, 4, FEATURES)
        hl.layers.MultiHeadAttention(2, 4)(image, image, use_causal_mask=True)
    with pytest.raises(ArgumentError, match="equal groups"):
        hl.layers.GroupQueryAttention(4, 3, 2)


# Learning -------------------------------------------------------------------------------------------------------------
def test_learns_digits_from_rows_that_look_at_each_other() -> None:
    """The 1,797 digits of scikit-learn: eight rows of eight numbers, which attend to one another."""
    from sklearn.datasets import load_digits

    hl.set_random_seed(1)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).reshape(-1, 8, 8).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1300], order[1300:]
    rows = hl.Input((8, 8))
    x = hl.layers.Dense(32)(rows)
    x = x + hl.layers.MultiHeadAttention(4, 8)(x, x)
    x = hl.layers.Flatten()(x)
    model = hl.Model(rows, hl.layers.Dense(10)(hl.layers.Dense(64, activation="relu")(x)))
    model.compile(
        hl.optimizers.Adam(0.003), hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(images[train], labels[train], batch_size=50, epochs=8, verbose=0)
    scores = np.asarray(model.predict(images[test], verbose=0))
    assert np.mean(scores.argmax(-1) == labels[test]) > 0.9
