"""Files of models and weights: what comes back is what went in, in any process; what does not fit is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel import ops
from highlevel.errors import ArgumentError, FormatError, WeightsError
from highlevel.formats import keras_archive
from highlevel.models.saving import assign_weights, read_weights, weights_by_path

F32 = "float32"
FORMATS = [".safetensors", ".weights.h5", ".h5", ".npz"]


# Models of all kinds -------------------------------------------------------------------------------------------------
def sequential() -> hl.Model:
    return hl.Sequential(
        [
            hl.Input((8, 6, 2)),
            L.Conv2D(4, 3, padding="same", activation="relu", kernel_regularizer=hl.regularizers.L2(1e-3)),
            L.BatchNormalization(),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dropout(0.3),
            L.Dense(3, activation="softmax", name="head"),
        ],
        name="net",
    )


def operators() -> hl.Model:
    """Operators between placeholders: sums, slices, comparisons, NumPy-named functions with axes and scalars."""
    x = hl.Input((6,), name="x")
    y = L.Dense(6)(x)
    z = ops.concatenate([x + y, y[:, 1:], 2.0 * x[:, ::2], -y], axis=-1)
    z = ops.where(z > 0.1, z, ops.tanh(z)) / (1.0 + ops.mean(ops.abs(z), axis=1, keepdims=True))
    return hl.Model(x, L.Dense(3)(ops.expand_dims(z, 1)[:, 0, :]))


def shared() -> hl.Model:
    """One layer called twice, two inputs, two outputs."""
    a, b = hl.Input((5,), name="a"), hl.Input((5,), name="b")
    both = L.Dense(4, activation="tanh", name="both")
    left, right = both(a), both(b)
    return hl.Model([a, b], [L.Dense(3, name="sum")(L.Add()([left, right])), left - right])


def dictionaries() -> hl.Model:
    inputs = {"image": hl.Input((4, 4, 1)), "words": hl.Input((5,), dtype="int32")}
    seen = L.Flatten()(L.Conv2D(3, 3)(inputs["image"]))
    read = L.LSTM(3)(L.Embedding(10, 4, mask_zero=True)(inputs["words"]))
    x = L.Concatenate()([seen, read])
    return hl.Model(inputs, {"kind": L.Dense(3)(x), "size": L.Dense(1)(x)})


def nested() -> hl.Model:
    body = hl.Sequential([hl.Input((5,)), L.Dense(4, activation="relu"), L.BatchNormalization()], name="body")
    y = hl.Input((4,))
    inner = hl.Model(y, L.Dense(4)(y) + y, name="inner")
    x = hl.Input((5,))
    return hl.Model(x, L.Dense(3)(inner(body(x)) + body(x * 0.5)), name="outer")


def states() -> hl.Model:
    """States handed to and taken from recurrent layers, keyword arguments of calls, wrappers."""
    x, h, c = hl.Input((4, 3)), hl.Input((6,)), hl.Input((6,))
    y = L.MultiHeadAttention(2, 2)(x, x, use_causal_mask=True)
    last, state, _ = L.LSTM(6, return_state=True)(y, initial_state=[h, c])
    steps = L.TimeDistributed(L.Dense(2))(L.Bidirectional(L.GRU(3, return_sequences=True))(x))
    return hl.Model([x, h, c], [L.Dense(2)(last + state), steps])


class Own(hl.Model):
    """A subclass with layers in a list and a dictionary, whose constructor takes no keywords of the base."""

    def __init__(self, units: int, depth: int = 2) -> None:
        super().__init__()
        self.blocks = [L.Dense(units, activation="relu") for _ in range(depth)]
        self.ends = {"head": L.Dense(3)}

    def call(self, x: Any, training: bool | None = None) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.ends["head"](x)


def subclass() -> hl.Model:
    model = Own(6, depth=3)
    model(np.zeros((1, 5), F32))
    return model


class OwnSequential(hl.Sequential):
    def __init__(self, units: int = 4) -> None:
        super().__init__([hl.Input((5,)), L.Dense(units), L.Dense(3)])


@hl.register_serializable("tests")
class Scale(L.Layer):
    """A layer of one's own, with an argument and a nested layer."""

    def __init__(self, factor: float, inner: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = inner

    def build(self, input_shape: Any) -> None:
        self.offset = self.add_weight((input_shape[-1],), initializer="ones", name="offset")

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs * self.factor + self.offset)


class Times(L.Layer):
    """A layer whose constructor takes nothing that all layers have."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor


def own_layer() -> hl.Model:
    return hl.Sequential([hl.Input((5,)), Scale(2.0, inner=L.Dense(4)), Times(3.0), L.Dense(3)])


BUILDERS: list[Callable[[], hl.Model]] = [
    sequential, operators, shared, dictionaries, nested, states, subclass, OwnSequential, own_layer,
]  # fmt: skip


def data_for(model: hl.Model, rows: int = 12) -> tuple[Any, Any]:
    """Random inputs, and targets for "mse"."""
    rng = np.random.default_rng(1)

    def array(placeholder: Any) -> np.ndarray:
        shape = (rows, *placeholder.shape[1:])
        if placeholder.dtype.name == "int32":
            return rng.integers(0, 10, shape).astype("int32")
        return rng.normal(size=shape).astype(F32)

    if model._graph is None:
        x: Any = rng.normal(size=(rows, 5)).astype(F32)
    else:
        x = hl.tree.map(array, model.input)
    y = hl.tree.map(lambda out: rng.normal(size=out.shape).astype(F32), model.predict(x, verbose=0))
    return x, y


def leaves_equal(a: Any, b: Any) -> bool:
    return all(np.array_equal(m, n) for m, n in zip(hl.tree.leaves(a), hl.tree.leaves(b), strict=True))


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_models_come_back(build, tmp_path):
    """Predictions bit for bit, evaluation, and – optimizer state and random generators – the next steps of training."""
    model = build()
    x, y = data_for(model)
    model.compile(hl.optimizers.Adam(0.01, amsgrad=True), "mse", metrics=["mae"])
    model.fit(x, y, epochs=2, batch_size=5, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    again = hl.load_model(path)
    assert type(again) is type(model) and again.name == model.name
    assert [v.path for v in again.weights] == [v.path for v in model.weights]
    assert leaves_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert again.evaluate(x, y, verbose=0, return_dict=True) == model.evaluate(x, y, verbose=0, return_dict=True)
    assert int(again.optimizer.iterations) == 6
    histories = [m.fit(x, y, epochs=2, batch_size=5, verbose=0, seed=3).history for m in (model, again)]
    assert histories[0] == histories[1]
    assert leaves_equal(again.get_weights(), model.get_weights())


def test_a_new_process_continues(tmp_path):
    """What a second process reads, predicts and trains equals what this one goes on to do."""
    model = nested()
    x, y = data_for(model)
    model.compile(hl.optimizers.SGD(hl.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9), "mse")
    model.fit(x, y, epochs=1, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    code = (
        "import sys, numpy as np, highlevel as hl\n"
        "hl.Sequential([hl.Input((2,)), hl.layers.Dense(3)])\n"  # names do not depend on it
        "folder = sys.argv[1]\n"
        "data = np.load(folder + '/data.npz')\n"
        "x, y = data['x'], data['y']\n"
        "model = hl.load_model(folder + '/model.keras')\n"
        "found = {'predict': model.predict(x, verbose=0), 'evaluate': model.evaluate(x, y, verbose=0)}\n"
        "found['loss'] = model.fit(x, y, epochs=1, batch_size=4, verbose=0, seed=1).history['loss']\n"
        "found |= {f'w{i}': w for i, w in enumerate(model.get_weights())}\n"
        "np.savez(folder + '/found.npz', **found)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    found = np.load(tmp_path / "found.npz")
    assert np.array_equal(found["predict"], model.predict(x, verbose=0))
    assert float(found["evaluate"]) == model.evaluate(x, y, verbose=0)
    assert found["loss"].tolist() == model.fit(x, y, epochs=1, batch_size=4, verbose=0, seed=1).history["loss"]
    for i, weight in enumerate(model.get_weights()):
        assert np.array_equal(found[f"w{i}"], weight)


def test_a_new_process_opens_every_kind_of_model(tmp_path):
    """Predictions to the bit, and every number of `evaluate`."""
    kinds = [sequential, operators, shared, dictionaries, nested, states]
    expected = {}
    for build in kinds:
        model = build()
        x, y = data_for(model)
        model.compile("adam", "mse", metrics=["mae", hl.metrics.RootMeanSquaredError()], loss_weights=0.5)
        model.fit(x, y, verbose=0)
        model.save(tmp_path / f"{build.__name__}.keras")
        arrays = {f"{part}{i}": a for part, tree in (("x", x), ("y", y)) for i, a in enumerate(hl.tree.leaves(tree))}
        np.savez(tmp_path / f"{build.__name__}.npz", **arrays)
        expected[build.__name__] = (hl.tree.leaves(model.predict(x, verbose=0)), model.evaluate(x, y, verbose=0))
    code = (
        "import sys, json, numpy as np, highlevel as hl\n"
        "for name in sys.argv[2:]:\n"
        "    model = hl.load_model(f'{sys.argv[1]}/{name}.keras')\n"
        "    data = np.load(f'{sys.argv[1]}/{name}.npz')\n"
        "    def like(tree, part):\n"
        "        structure = hl.tree.flatten(tree)[1]\n"
        "        return hl.tree.unflatten(structure, [data[k] for k in sorted(data.files) if k[0] == part])\n"
        "    x, y = like(model.input, 'x'), like(model.output, 'y')\n"
        "    found = hl.tree.leaves(model.predict(x, verbose=0))\n"
        "    numbers = model.evaluate(x, y, verbose=0)\n"
        "    np.savez(f'{sys.argv[1]}/{name}_found.npz', *found, numbers=numbers)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *expected], check=True)
    for name, (outputs, numbers) in expected.items():
        found = np.load(tmp_path / f"{name}_found.npz")
        assert found["numbers"].tolist() == numbers
        assert leaves_equal([found[f"arr_{i}"] for i in range(len(outputs))], outputs)


@pytest.mark.parametrize(
    "optimizer",
    [
        hl.optimizers.Nadam(0.01),
        hl.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
        hl.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.8),
        hl.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_the_state_of_every_kind_of_optimizer_comes_back(optimizer, tmp_path):
    model = hl.Sequential([hl.Input((5,)), L.Dense(4), L.Dense(3)])
    x, y = data_for(model)
    model.compile(optimizer, "mse")
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras")
    assert [v.path for v in again.optimizer.variables] == [v.path for v in optimizer.variables]
    assert leaves_equal([v.numpy() for v in again.optimizer.variables], [v.numpy() for v in optimizer.variables])
    model.reset_metrics()
    for _ in range(3):
        assert model.train_on_batch(x, y) == again.train_on_batch(x, y)


def test_rates_of_layers_and_a_changed_rate_come_back(tmp_path):
    model = hl.Sequential([hl.Input((5,)), L.Dense(4, name="first"), L.Dense(3, name="head")], name="net")
    x, y = data_for(model)
    optimizer = hl.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.set_multipliers({"net/first": 0.0})
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    model.train_on_batch(x, y)
    optimizer.learning_rate = 0.25
    model.reset_metrics()
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras")
    assert float(again.optimizer.learning_rate.numpy()) == 0.25
    first = again.get_layer("first").kernel.numpy().copy()
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    assert np.array_equal(again.get_layer("first").kernel.numpy(), first)
    assert leaves_equal(again.get_weights(), model.get_weights())


def test_frozen_layers_come_back_frozen(tmp_path):
    """Each for itself: also in models whose layers are made by code."""
    for number, model in enumerate((sequential(), nested(), subclass())):
        layers = list(model.walk_layers())
        layers[-1].trainable = False
        layers[2].trainable = False
        layers[1].trainable = True
        model.save(tmp_path / f"{number}.keras")
        again = hl.load_model(tmp_path / f"{number}.keras")
        assert [layer.trainable for layer in again.walk_layers()] == [layer.trainable for layer in layers]
        assert [v.path for v in again.trainable_variables] == [v.path for v in model.trainable_variables]


def test_what_belongs_to_the_weights_travels_with_them(tmp_path):
    model = sequential()
    model.preprocessing = hl.data.Preprocessing(size=(8, 6), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channels="BGR")
    model.class_names = ["häuser", "b", "c"]
    model.group_patterns = ["conv*", "head"]
    model.origin = {"architecture": "net", "weights": None}
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras")
    for name in ("preprocessing", "class_names", "group_patterns", "origin"):
        assert getattr(again, name) == getattr(model, name)
    assert again._trainer is None  # it was not compiled


def test_a_model_without_weights_comes_back(tmp_path):
    x = hl.Input((5,))
    model = hl.Model(x, ops.where(ops.add(x, np.arange(5, dtype=F32)) > 1.0, ops.cast(x, "int32"), 7))
    model.save(tmp_path / "model.keras")
    value = np.random.default_rng(0).normal(size=(3, 5)).astype(F32)
    again = hl.load_model(tmp_path / "model.keras").predict(value, verbose=0)
    assert again.dtype.kind == "i" and np.array_equal(again, model.predict(value, verbose=0))


def test_compile_false_opens_without_training(tmp_path):
    model = operators()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    assert hl.load_model(tmp_path / "model.keras", compile=False).optimizer is None


def test_losses_of_ones_own(tmp_path):
    """A registered function comes back; for one that is not, the model opens uncompiled, after a warning at saving."""

    def plain(y_true, y_pred):
        return ops.mean(ops.abs(y_pred - y_true), axis=-1)

    @hl.register_serializable("tests")
    def known(y_true, y_pred):
        return ops.mean(ops.square(y_pred - y_true), axis=-1) * 2.0

    model = hl.Sequential([hl.Input((5,)), L.Dense(3)])
    x, y = data_for(model)
    model.compile("sgd", known)
    model.save(tmp_path / "known.keras")
    assert hl.load_model(tmp_path / "known.keras").evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    model.compile("sgd", plain)
    with pytest.warns(UserWarning, match="'plain' is not registered"):
        model.save(tmp_path / "plain.keras")
    again = hl.load_model(tmp_path / "plain.keras")
    assert again.optimizer is None
    assert np.array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_class_named_like_one_of_ours_is_not_mistaken_for_it(tmp_path):
    class Dense(L.Dense):
        def call(self, inputs):
            return 3.0 * super().call(inputs)

    model = hl.Sequential([hl.Input((5,)), Dense(3)])
    with pytest.raises(ArgumentError, match="could not tell them apart"):
        model.save(tmp_path / "model.keras")
    hl.register_serializable("tests")(Dense)
    model.save(tmp_path / "model.keras")
    assert type(hl.load_model(tmp_path / "model.keras").layers[0]) is Dense


def test_classes_given_at_loading_come_before_registered_ones(tmp_path):
    def make() -> type:
        class Doubling(L.Layer):
            def call(self, inputs):
                return inputs * 2.0

        return Doubling

    saved, given, _latest = make(), make(), make()
    x = hl.Input((5,))
    model = hl.Model(x, L.Dense(2)(saved()(x)))
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras", custom_objects={"Doubling": given})
    assert type(again.layers[0]) is given
    assert type(hl.load_model(tmp_path / "model.keras").layers[0]) is _latest


# Weights alone -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("build", [sequential, nested, dictionaries, subclass], ids=lambda build: build.__name__)
def test_weights_come_back_in_every_format(build, ending, tmp_path):
    model, other = build(), build()
    x, _ = data_for(model)
    path = tmp_path / f"w{ending}"
    model.save_weights(path)
    assert not leaves_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
    report = other.load_weights(path)
    assert leaves_equal(model.predict(x, verbose=0), other.predict(x, verbose=0))
    assert not (report.missing or report.unexpected or report.mismatched)
    assert set(read_weights(path)) == set(weights_by_path(model))


def test_weights_are_read_from_a_model_file(tmp_path):
    """… and the optimizer's state that lies beside them is left alone."""
    model, other = operators(), operators()
    x, y = data_for(model)
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    other.load_weights(tmp_path / "model.keras")
    assert leaves_equal(model.get_weights(), other.get_weights())


def test_the_same_model_built_again_and_again_takes_the_weights(tmp_path):
    model = nested()
    model.save_weights(tmp_path / "w.safetensors")
    for _ in range(3):
        again = nested()
        again.load_weights(tmp_path / "w.safetensors")
        assert leaves_equal(again.get_weights(), model.get_weights())


def two_layers(units: int = 4, name: str = "first", extra: bool = False) -> hl.Sequential:
    more = [L.Dense(2, name="more")] if extra else []
    return hl.Sequential([hl.Input((5,)), L.Dense(units, name=name), L.Dense(3, name="head"), *more], name="net")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (two_layers(units=6), ("of another shape: first/kernel (5, 4) for (5, 6)", "loaded 1 of 4")),
        (two_layers(name="fist"), ("not in the file: fist/kernel", "not in the model: first/kernel", "loaded 2 of 4")),
        (two_layers(extra=True), ("not in the file: more/kernel, more/bias", "strict=False")),
    ],
    ids=["shape", "name", "missing"],
)
def test_loading_is_strict_and_says_what_does_not_fit(other, words, tmp_path):
    two_layers().save_weights(tmp_path / "w.safetensors")
    before = other.get_weights()
    with pytest.raises(WeightsError) as caught:
        other.load_weights(tmp_path / "w.safetensors")
    for word in words:
        assert word in str(caught.value)
    assert leaves_equal(before, other.get_weights()), "all or nothing"


def test_loading_what_fits_returns_a_report(tmp_path):
    model, other = two_layers(), two_layers(units=6, extra=True)
    model.save_weights(tmp_path / "w.npz")
    report = other.load_weights(tmp_path / "w.npz", strict=False)
    assert report.loaded == ("head/bias",)
    assert report.missing == ("more/kernel", "more/bias")
    assert [row.split(" ")[0] for row in report.mismatched] == ["first/kernel", "first/bias", "head/kernel"]
    assert str(report).splitlines()[0] == "loaded 1 of 6 weights"
    assert np.array_equal(other.get_layer("head").bias.numpy(), model.get_layer("head").bias.numpy())


def test_nothing_that_fits_is_always_an_error(tmp_path):
    two_layers().save_weights(tmp_path / "w.npz")
    other = hl.Sequential([hl.Input((5,)), L.Dense(9, name="else")])
    with pytest.raises(WeightsError, match="loaded 0 of 2"):
        other.load_weights(tmp_path / "w.npz", strict=False)


def test_a_model_without_weights_yet_says_so(tmp_path):
    with pytest.raises(WeightsError, match="not built"):
        hl.Sequential([L.Dense(2)]).save_weights(tmp_path / "w.npz")


def test_weights_keep_the_types_of_the_model():
    model = two_layers()
    arrays = {path: variable.numpy().astype("float64") for path, variable in weights_by_path(model).items()}
    assign_weights(model, arrays)
    assert {variable.dtype.name for variable in model.weights} == {"float32"}


# Files that are refused ----------------------------------------------------------------------------------------------
def test_paths_that_make_no_sense(tmp_path):
    model = two_layers()
    with pytest.raises(ArgumentError, match=r"\.safetensors, \.weights\.h5, \.npz"):
        model.save_weights(tmp_path / "w.bin")
    with pytest.raises(ArgumentError, match=r"saved as \.keras"):
        model.save(tmp_path / "model.h5")
    with pytest.raises(ArgumentError, match="no folder"):
        model.save(tmp_path / "missing" / "model.keras")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ArgumentError, match="overwrite=True"):
        model.save(tmp_path / "model.keras", overwrite=False)
    with pytest.raises(FileNotFoundError):
        hl.load_model(tmp_path / "other.keras")


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The file with another configuration or other arrays."""
    config, metadata, weights = keras_archive.read(path)
    change(config, weights)
    target = path.with_name("changed.keras")
    keras_archive.write(target, config, metadata, weights)
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = two_layers()
    model.compile(hl.optimizers.SGD(0.1, momentum=0.9), "mse")
    x, y = data_for(model)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def _unknown_class(config: dict[str, Any], weights: dict[str, Any]) -> None:
    config["config"]["layers"][0]["class_name"] = "Dens"


def _dangerous_class(config: dict[str, Any], weights: dict[str, Any]) -> None:
    config["config"]["layers"][0] = {"module": "os", "class_name": "system", "config": {"command": "true"}}


def _no_model(config: dict[str, Any], weights: dict[str, Any]) -> None:
    config.update(config["config"]["layers"][0])


def _nonsense(config: dict[str, Any], weights: dict[str, Any]) -> None:
    del config["config"]["layers"]


def _other_state(config: dict[str, Any], weights: dict[str, Any]) -> None:
    weights[".optimizer/momentum/first/kernel"] = np.zeros((7, 7), F32)


def _missing_weight(config: dict[str, Any], weights: dict[str, Any]) -> None:
    del weights["first/kernel"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (_unknown_class, ArgumentError, ("unknown layer: 'Dens'", "'Dense'")),
        (_dangerous_class, ArgumentError, ("unknown layer: 'system'",)),
        (_no_model, FormatError, ("does not describe a model", "Dense")),
        (_nonsense, FormatError, ("makes no sense", "layers")),
        (_other_state, FormatError, ("optimizer's state", "(7, 7)", "compile=False")),
        (_missing_weight, WeightsError, ("not in the file: first/kernel",)),
    ],
)
def test_files_that_do_not_make_sense_are_explained(change, error, words, saved):
    with pytest.raises(error) as caught:
        hl.load_model(rewritten(saved, change))
    for word in words:
        assert word in str(caught.value)


def test_damaged_files_are_format_errors(saved):
    data = saved.read_bytes()
    rng = np.random.default_rng(0)
    damaged = saved.with_name("damaged.keras")
    for _ in range(100):
        changed = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        for place in rng.integers(0, len(changed), 20):
            changed[place] ^= int(rng.integers(1, 256))
        damaged.write_bytes(bytes(changed))
        with pytest.raises(FormatError):
            hl.load_model(damaged)


def test_files_of_others_are_told_apart(tmp_path):
    keras_archive.write(tmp_path / "a.keras", {"class_name": "Functional"}, {"keras_version": "3.12.0"}, {})
    with pytest.raises(FormatError, match="not written by this library"):
        hl.load_model(tmp_path / "a.keras")
