"""Models as wholes: what they compute against Keras, how they learn against PyTorch, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

keras = pytest.importorskip("keras")

F32 = "float32"
# Keras's variables on NumPy lack an argument that NumPy 2 wants.
KERAS_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# Forward, against Keras ----------------------------------------------------------------------------------------------
def mlp(k: Any, d: Any) -> Any:
    return k.Sequential(
        [k.Input((12,)), d.Dense(16, activation="relu"), d.Dropout(0.5), d.Dense(8, activation="tanh"), d.Dense(5)]
    )


def cnn(k: Any, d: Any) -> Any:
    """Two branches, strides, batch normalization, a residual sum, a concatenation."""
    inputs = k.Input((16, 12, 3))
    x = d.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = d.ReLU(max_value=6.0)(d.BatchNormalization()(x))
    y = d.DepthwiseConv2D(3, padding="same")(x)
    y = d.BatchNormalization(epsilon=1e-5)(d.Conv2D(8, 1)(y))
    x = d.Add()([x, y])
    a = d.MaxPooling2D(2)(x)
    b = d.AveragePooling2D(2)(d.ZeroPadding2D(((1, 0), (0, 1)))(x))
    x = d.Concatenate()([a, b[:, : a.shape[1], : a.shape[2]]])
    x = d.GlobalAveragePooling2D()(x)
    return k.Model(inputs, d.Dense(7, activation="softmax")(x))


def sequence(k: Any, d: Any) -> Any:
    inputs = k.Input((9,), dtype="int32")
    x = d.Embedding(20, 6)(inputs)
    x = d.LayerNormalization()(x + d.MultiHeadAttention(2, 3)(x, x))
    return k.Model(inputs, d.Dense(3)(d.LSTM(4)(x)))


def pair(build: Callable[[Any, Any], Any], seed: int = 0) -> tuple[hl.Model, Any]:
    """Our model and Keras's, with the same random weights (positive where they are variances)."""
    ours, theirs = build(hl, L), build(keras, keras.layers)
    rng = np.random.default_rng(seed)
    for mine, other in zip(by_layer(ours), by_layer(theirs), strict=True):
        assert tuple(mine.shape) == tuple(other.shape)
        value = rng.normal(scale=0.5, size=mine.shape).astype(F32)
        if mine.name.endswith("variance"):
            value = np.abs(value) + 0.5
        mine.assign(value)
        other.assign(value)
    return ours, theirs


def by_layer(model: Any) -> list[Any]:
    """Weights layer by layer, so that orders within models do not matter."""
    return [weight for layer in model.layers for weight in layer.weights]


@KERAS_WARNS
@pytest.mark.parametrize("build", [mlp, cnn, sequence], ids=lambda build: build.__name__)
def test_outputs_equal_keras(build, rng):
    ours, theirs = pair(build)
    shape = (5, *ours.input_shape[1:])
    x = rng.integers(0, 20, shape) if build is sequence else rng.normal(size=shape).astype(F32)
    expected = np.asarray(theirs(x, training=False))
    np.testing.assert_allclose(ours.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.asarray(ours(x)), expected, rtol=1e-5, atol=1e-5)
    assert ours.output_shape == theirs.output_shape
    assert ours.count_params() == theirs.count_params()


@KERAS_WARNS
def test_training_mode_equals_keras(rng):
    """Batch statistics, and how they enter the moving averages."""
    ours, theirs = pair(cnn)
    x = rng.normal(size=(6, 16, 12, 3)).astype(F32)
    np.testing.assert_allclose(
        np.asarray(ours(x, training=True)), np.asarray(theirs(x, training=True)), rtol=1e-5, atol=1e-5
    )
    for mine, other in zip(by_layer(ours), by_layer(theirs), strict=True):
        np.testing.assert_allclose(mine.numpy(), np.asarray(other), rtol=1e-5, atol=1e-5)


# Training, against PyTorch's gradients -------------------------------------------------------------------------------
class Twin:
    """The same network in PyTorch, on the same weights, by path; in double precision the better oracle."""

    def __init__(self, model: hl.Model, frozen: tuple[str, ...] = ()) -> None:
        self.torch = pytest.importorskip("torch")
        model.assign_paths()
        self.weights = {
            v.path.removeprefix(f"{model.name}/"): self.torch.tensor(v.numpy(), dtype=self.torch.float64)
            for v in model.weights
        }
        self.trained = [v.path.removeprefix(f"{model.name}/") for v in model.trainable_variables]
        for name in self.trained:
            self.weights[name].requires_grad_()

    def parameters(self) -> list[Any]:
        return [self.weights[name] for name in self.trained]

    def dense(self, x: Any, name: str) -> Any:
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]

    def conv(self, x: Any, name: str, padding: int) -> Any:
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return self.torch.nn.functional.conv2d(x, kernel, self.weights.get(f"{name}/bias"), padding=padding)

    def norm(self, x: Any, name: str, training: bool, momentum: float = 0.99) -> Any:
        """Keras's: the biased variance enters the average."""
        w = self.weights
        mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
        if training:
            axes = [0, 2, 3]
            mean_now, variance_now = x.mean(axes), x.var(axes, unbiased=False)
            with self.torch.no_grad():
                mean.mul_(momentum).add_(mean_now * (1 - momentum))
                variance.mul_(momentum).add_(variance_now * (1 - momentum))
            mean, variance = mean_now, variance_now
        shape = (1, -1, 1, 1)
        x = (x - mean.reshape(shape)) / self.torch.sqrt(variance.reshape(shape) + 1e-3)
        return x * w[f"{name}/gamma"].reshape(shape) + w[f"{name}/beta"].reshape(shape)

    def agrees_with(self, model: hl.Model, tolerance: float = 1e-5) -> None:
        model.assign_paths()
        for variable in model.weights:
            path = variable.path.removeprefix(f"{model.name}/")
            expected = self.weights[path].detach().numpy()
            np.testing.assert_allclose(variable.numpy(), expected, rtol=tolerance, atol=tolerance, err_msg=path)


def small_cnn(l2: float = 0.0) -> hl.Sequential:
    regularizer = hl.regularizers.L2(l2) if l2 else None
    return hl.Sequential(
        [
            hl.Input((8, 6, 2)),
            L.Conv2D(4, 3, padding="same", name="conv", kernel_regularizer=regularizer, use_bias=False),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(3, name="head", kernel_regularizer=regularizer),
        ]
    )


def twin_cnn(twin: Twin, x: np.ndarray, training: bool = True) -> Any:
    torch = twin.torch
    y = torch.tensor(x, dtype=torch.float64).permute(0, 3, 1, 2)
    y = torch.relu(twin.norm(twin.conv(y, "conv", 1), "norm", training))
    y = torch.nn.functional.max_pool2d(y, 2).permute(0, 2, 3, 1).flatten(1)
    return twin.dense(y, "head")


OPTIMIZERS: list[tuple[str, Callable[[], Any], Callable[[Any, Any], Any]]] = [
    ("sgd", lambda: hl.optimizers.SGD(0.1), lambda torch, p: torch.optim.SGD(p, 0.1)),
    (
        "momentum",
        lambda: hl.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda torch, p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    ),
    (
        "adam",
        lambda: hl.optimizers.Adam(0.01, epsilon=1e-4),
        lambda torch, p: torch.optim.Adam(p, 0.01, eps=1e-4),
    ),
    (
        "adamw",
        lambda: hl.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-4),
        lambda torch, p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, eps=1e-4),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), [row[1:] for row in OPTIMIZERS], ids=[row[0] for row in OPTIMIZERS])
def test_training_steps_equal_pytorch(ours, theirs, rng):
    """Convolution, batch normalization (its averages too), pooling, regularizers, class and sample weights."""
    model = small_cnn(l2=0.01)
    model.get_layer("norm").gamma.assign(rng.random(4, F32) + 0.5)
    twin = Twin(model)
    torch = twin.torch
    optimizer = theirs(torch, twin.parameters())
    model.compile(ours(), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    class_weight = {0: 0.5, 1: 2.0, 2: 1.5}
    table = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    for step in range(1, 5):
        x, y = rng.normal(size=(10, 8, 6, 2)).astype(F32), rng.integers(0, 3, 10)
        weight = rng.random(10, F32)
        for group in optimizer.param_groups:
            if "eps" in group:  # Keras adds ε before the second moment is corrected, PyTorch after
                group["eps"] = 1e-4 / np.sqrt(1 - 0.999**step)
        labels = torch.tensor(y)
        optimizer.zero_grad()
        each = torch.nn.functional.cross_entropy(twin_cnn(twin, x), labels, reduction="none")
        loss = (each * table[labels] * torch.tensor(weight)).mean()
        loss = loss + 0.01 * sum((twin.weights[name] ** 2).sum() for name in ("conv/kernel", "head/kernel"))
        loss.backward()
        optimizer.step()
        model.reset_metrics()
        found = model.train_on_batch(x, y, sample_weight=weight, class_weight=class_weight)
        assert found == pytest.approx(loss.item(), rel=1e-5)
    twin.agrees_with(model)


@pytest.mark.parametrize("frozen", ["norm", "conv"])
def test_frozen_layers_train_like_constants_of_pytorch(frozen, rng):
    model = small_cnn()
    model.get_layer(frozen).trainable = False
    model.get_layer("norm").moving_mean.assign(rng.normal(size=4).astype(F32))
    before = {v.path: v.numpy().copy() for v in model.get_layer(frozen).weights}
    twin = Twin(model)
    torch = twin.torch
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    model.compile(hl.optimizers.SGD(0.1), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(3):
        x, y = rng.normal(size=(10, 8, 6, 2)).astype(F32), rng.integers(0, 3, 10)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin_cnn(twin, x, training=frozen != "norm"), torch.tensor(y)).backward()
        optimizer.step()
        model.train_on_batch(x, y)
    twin.agrees_with(model)
    for variable in model.get_layer(frozen).weights:
        assert np.array_equal(variable.numpy(), before[variable.path])


def two_headed() -> hl.Model:
    x = hl.Input((6,), name="x")
    shared = L.Dense(8, activation="tanh", name="shared")(x)
    return hl.Model(x, {"kind": L.Dense(3, name="kinds")(shared), "size": L.Dense(1, name="sizes")(shared)})


def test_several_outputs_with_weights_equal_pytorch(rng):
    model = two_headed()
    twin = Twin(model)
    torch = twin.torch
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    model.compile(
        hl.optimizers.SGD(0.1),
        {"kind": hl.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
        loss_weights={"kind": 0.3, "size": 2.0},
        metrics={"kind": "accuracy", "size": ["mae"]},
    )
    for _ in range(3):
        x, kind, size = rng.normal(size=(9, 6)).astype(F32), rng.integers(0, 3, 9), rng.normal(size=9).astype(F32)
        weight = rng.random(9, F32)
        y = torch.tensor(x, dtype=torch.float64)
        y = torch.tanh(twin.dense(y, "shared"))
        kinds, sizes = twin.dense(y, "kinds"), twin.dense(y, "sizes")
        kind_loss = torch.nn.functional.cross_entropy(kinds, torch.tensor(kind))
        size_loss = ((sizes[:, 0] - torch.tensor(size)) ** 2 * torch.tensor(weight)).mean()
        optimizer.zero_grad()
        (0.3 * kind_loss + 2.0 * size_loss).backward()
        optimizer.step()
        model.reset_metrics()
        found = model.train_on_batch(
            x, {"size": size, "kind": kind}, sample_weight={"size": weight}, return_dict=True
        )
        assert list(found) == ["loss", "kind_loss", "size_loss", "kind_accuracy", "size_mae"]
        assert found["kind_loss"] == pytest.approx(kind_loss.item(), rel=1e-5)
        assert found["size_loss"] == pytest.approx(size_loss.item(), rel=1e-5)
        assert found["loss"] == pytest.approx((0.3 * kind_loss + 2 * size_loss).item(), rel=1e-5)
        assert found["kind_accuracy"] == pytest.approx(float((kinds.argmax(1).numpy() == kind).mean()))
        assert found["size_mae"] == pytest.approx((sizes[:, 0] - torch.tensor(size)).abs().mean().item(), rel=1e-5)
    twin.agrees_with(model)


# Subclasses ----------------------------------------------------------------------------------------------------------
class Branching(hl.Model):
    """Layers as attributes, in lists and in dictionaries, and a weight of its own."""

    def __init__(self, units: int = 4) -> None:
        super().__init__()
        self.first = L.Dense(units, activation="relu")
        self.stack = [L.Dense(units), L.Dense(units)]
        self.heads = {"a": L.Dense(2), "b": L.Dense(1)}
        self.scale = self.add_weight((), initializer="ones", name="scale")

    def call(self, x, training=None):
        x = self.first(x)
        for layer in self.stack:
            x = x + layer(x)
        return {name: head(x) * self.scale for name, head in self.heads.items()}


def test_subclasses_find_their_layers_and_name_them_by_attribute():
    model = Branching()
    model(np.ones((2, 3), F32))
    assert [v.path for v in model.weights] == [
        "branching/scale",
        *(f"branching/{layer}/{part}" for layer in ("first", "stack_0", "stack_1", "heads_a", "heads_b")
          for part in ("kernel", "bias")),
    ]  # fmt: skip
    assert [layer.name for layer in model.layers] == ["first", "stack_0", "stack_1", "heads_a", "heads_b"]
    assert model.get_layer("stack_1") is model.stack[1]


def test_subclasses_train(rng):
    model = Branching()
    model.compile(hl.optimizers.Adam(0.05), {"a": "mse", "b": "mae"})
    x = rng.normal(size=(32, 3)).astype(F32)
    y = {"a": x[:, :2], "b": x[:, 2]}
    first = model.evaluate(x, y, verbose=0, return_dict=True)
    model.fit(x, y, epochs=40, verbose=0)
    last = model.evaluate(x, y, verbose=0, return_dict=True)
    assert last["loss"] < 0.5 * first["loss"]
    assert set(last) == {"loss", "a_loss", "b_loss"}
    assert model.scale.numpy() != 1.0


def test_a_subclass_without_call_says_so():
    with pytest.raises(NotImplementedError, match="call"):
        hl.Model()(np.ones((1, 2), F32))


def test_attributes_of_subclasses():
    """`head` may be one's own; what the model needs for itself is explained."""

    class Holding(hl.Model):
        def __init__(self, attribute: str, part: Any) -> None:
            super().__init__()
            setattr(self, attribute, part)

    assert Holding("head", head := L.Dense(2)).head is head
    with pytest.raises(ArgumentError, match="'layers' is the model's own"):
        Holding("layers", [L.Dense(2)])


def test_models_are_layers_and_nest(rng):
    inner = hl.Sequential([L.Dense(4, activation="relu"), L.Dense(3)], name="inner")
    x = hl.Input((5,))
    outer = hl.Model(x, L.Dense(2, name="head")(inner(x) + inner(x * 2.0)))
    value = rng.normal(size=(4, 5)).astype(F32)
    once, twice = np.asarray(inner(value)), np.asarray(inner(value * 2))
    head = outer.get_layer("head")
    expected = (once + twice) @ head.kernel.numpy() + head.bias.numpy()
    np.testing.assert_allclose(outer.predict(value, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert len(outer.weights) == 6
    assert outer.weights[0].path == "model/inner/dense/kernel"
    assert outer.get_layer("inner/dense_1") is inner.layers[1]


def test_names_do_not_depend_on_what_was_built_before():
    def build() -> list[str]:
        x = hl.Input((5,))
        y = L.Dense(3)(x)
        model = hl.Model(x, L.Dense(2)(L.BatchNormalization()(y) + y))
        return [v.path for v in model.weights]

    first = build()
    for _ in range(3):
        L.Dense(2)(np.ones((1, 2), F32))
        assert build() == first
    assert first[0] == "model/dense/kernel" and first[-1] == "model/dense_1/bias"


def test_get_layer_explains():
    model = mlp(hl, L)
    assert model.get_layer(index=0) is model.layers[0]
    with pytest.raises(ArgumentError, match="'dense_1'"):
        model.get_layer("dens_1")
    with pytest.raises(ArgumentError, match=r"0…3"):
        model.get_layer(index=9)
    with pytest.raises(ArgumentError, match=r"hl.Model\(x, model\(x\)\)"):
        _ = Branching().inputs


def test_inputs_by_name_and_in_order(rng):
    a, b = hl.Input((2,), name="a"), hl.Input((3,), name="b")
    model = hl.Model([a, b], L.Dense(2)(ops.concatenate([a, b], axis=-1)))
    x, y = rng.normal(size=(4, 2)).astype(F32), rng.normal(size=(4, 3)).astype(F32)
    expected = model.predict([x, y], verbose=0)
    assert np.array_equal(model.predict({"b": y, "a": x}, verbose=0), expected)
    assert np.array_equal(np.asarray(model([x, y])), expected)
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        model.predict([y, x], verbose=0)
    with pytest.raises(ArgumentError, match="'b' is missing"):
        model.predict({"a": x}, verbose=0)


def test_trainer_of_an_uncompiled_model_only_predicts(rng):
    model = mlp(hl, L)
    assert model.predict(rng.normal(size=(3, 12)), verbose=0).shape == (3, 5)
    assert model.optimizer is None and model.loss is None
    with pytest.raises(ArgumentError, match="not compiled"):
        model.evaluate(np.ones((3, 12)), np.ones((3, 5)), verbose=0)
