"""The loop: the numbers are those of a loop written by hand, whatever the data come as, and nothing is traced twice."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError, TargetError

F32 = "float32"
RNG = np.random.default_rng(7)
X = RNG.normal(size=(50, 6)).astype(F32)
Y = RNG.integers(0, 3, 50)
CROSS_ENTROPY = {"from_logits": True}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    hl.set_random_seed(0)


def classifier(dropout: float = 0.0, norm: bool = False) -> hl.Sequential:
    """The same weights whenever it is built after the same seed."""
    layers = [L.Dense(8, activation="relu", name="first")]
    layers += [L.BatchNormalization(name="norm")] if norm else []
    layers += [L.Dropout(dropout)] if dropout else []
    return hl.Sequential([hl.Input((6,)), *layers, L.Dense(3, name="head")])


def compiled(optimizer: Any = "sgd", metrics: Any = None, **options: Any) -> hl.Sequential:
    model = classifier(**options)
    model.compile(optimizer, hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=metrics)
    return model


def weights_of(model: hl.Model) -> list[np.ndarray]:
    return model.get_weights()


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(m, n) for m, n in zip(a, b, strict=True))


# The numbers ---------------------------------------------------------------------------------------------------------
def by_hand(model: hl.Model, optimizer: Any, epochs: int, seed: int, batch_size: int) -> dict[str, list[float]]:
    """Fifteen lines that do what `fit` does."""
    loss = hl.losses.SparseCategoricalCrossentropy(from_logits=True)

    @hl.jit
    def step(x: Any, y: Any) -> Any:
        prediction = model(x, training=True)
        value = loss(y, prediction)
        optimizer.minimize(value, model.trainable_variables)
        return value, ops.sum(ops.cast(ops.equal(ops.argmax(prediction, axis=-1), ops.cast(y, "int32")), F32))

    rng, history = np.random.default_rng(seed), {"loss": [], "accuracy": []}
    for _ in range(epochs):
        order = rng.permutation(len(X))
        total, right = np.float32(0), np.float32(0)
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            value, correct = step(X[rows], Y[rows])
            total += np.float32(value.item()) * np.float32(len(rows))
            right += np.float32(correct.item())
        history["loss"].append(float(total / np.float32(len(X))))
        history["accuracy"].append(float(right / np.float32(len(X))))
    return history


def test_history_equals_a_loop_written_by_hand_bit_for_bit():
    """Also with a short last batch, dropout and batch normalization."""
    one, optimizer = classifier(dropout=0.3, norm=True), hl.optimizers.Adam(0.05)
    expected = by_hand(one, optimizer, epochs=3, seed=11, batch_size=16)
    hl.set_random_seed(0)
    two = compiled(hl.optimizers.Adam(0.05), metrics=["accuracy"], dropout=0.3, norm=True)
    history = two.fit(X, Y, batch_size=16, epochs=3, seed=11, verbose=0)
    assert history.history == expected
    assert history.epoch == [0, 1, 2] and two.history is history
    assert same(weights_of(one), weights_of(two))


def test_with_a_rate_of_zero_the_logged_loss_is_that_of_evaluate():
    model = compiled(hl.optimizers.SGD(0.0), metrics=["accuracy"])
    logged = model.fit(X, Y, batch_size=16, verbose=0).history
    found = model.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)
    assert logged["loss"][0] == pytest.approx(found["loss"], rel=1e-5)
    assert logged["accuracy"][0] == pytest.approx(found["accuracy"])
    logits = model.predict(X, verbose=0).astype("float64")
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(50), Y]
    assert found["loss"] == pytest.approx(each.mean(), rel=1e-5)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx([found["loss"], found["accuracy"]])


def test_the_short_last_batch_counts_by_its_size():
    model = compiled()
    whole = model.evaluate(X, Y, batch_size=50, verbose=0)
    for size in (7, 16, 49):
        assert model.evaluate(X, Y, batch_size=size, verbose=0) == pytest.approx(whole, rel=1e-5)


def test_shuffling_follows_the_seed_and_nothing_else():
    def train(seed: int | None = None, **options: Any) -> list[np.ndarray]:
        hl.set_random_seed(5)
        model = compiled()
        np.random.default_rng().random()
        model.fit(X, Y, batch_size=8, epochs=2, seed=seed, verbose=0, **options)
        return weights_of(model)

    assert same(train(), train())
    assert same(train(3), train(3))
    assert not same(train(3), train(4))
    assert not same(train(), train(shuffle=False))
    assert same(train(1, shuffle=False), train(2, shuffle=False))


def test_sample_and_class_weights_are_those_of_numpy():
    model = compiled()
    weight = RNG.random(50).astype(F32)
    logits = model.predict(X, verbose=0).astype("float64")
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(50), Y]
    found = model.evaluate(X, Y, sample_weight=weight, verbose=0)
    assert found == pytest.approx((each * weight).mean(), rel=1e-5)
    table = {0: 0.2, 1: 3.0, 2: 1.0}
    model.compile(hl.optimizers.SGD(0.0), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    logged = model.fit(X, Y, class_weight=table, sample_weight=weight[:, None], verbose=0, batch_size=50).history
    weights = weight * np.array([table[label] for label in Y])
    assert logged["loss"][0] == pytest.approx((each * weights).mean(), rel=1e-5)


def test_averaged_weights_are_in_place_when_training_ends():
    optimizer = hl.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    model = compiled(optimizer)
    model.fit(X, Y, epochs=2, verbose=0)
    averages = [optimizer._state[id(variable)]["average"].numpy() for variable in model.trainable_variables]
    assert same(averages, [variable.numpy() for variable in model.trainable_variables])


def test_losses_that_layers_add_and_regularizers_count():
    class Adding(L.Layer):
        def call(self, inputs):
            self.add_loss(ops.mean(inputs) * 0.0 + 2.0)
            return inputs

    dense = L.Dense(3, kernel_regularizer=hl.regularizers.L1(0.1), bias_regularizer=hl.regularizers.L2(0.1))
    model = hl.Sequential([hl.Input((6,)), Adding(), dense])
    dense.bias.assign(np.float32([1, 2, 3]))
    model.compile(hl.optimizers.SGD(0.0), "mse")
    target = RNG.normal(size=(50, 3)).astype(F32)
    expected = np.mean((model.predict(X, verbose=0) - target) ** 2) + 2.0
    expected += 0.1 * np.abs(dense.kernel.numpy()).sum() + 0.1 * (dense.bias.numpy() ** 2).sum()
    assert model.evaluate(X, target, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.fit(X, target, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-5)


# What data may be ----------------------------------------------------------------------------------------------------
class DataSet:
    """Can be iterated over again and again."""

    def __iter__(self) -> Iterator[Any]:
        return ((X[i : i + 10], Y[i : i + 10]) for i in range(0, 50, 10))


def _torch_loader() -> Any:
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=10)


SOURCES: dict[str, Callable[[], Any]] = {
    "data set": DataSet,
    "list of batches": lambda: list(DataSet()),
    "generator": lambda: iter(list(DataSet()) * 2),
    "batches": lambda: [hl.data.Batch(*pair) for pair in DataSet()],
    "with weights": lambda: [(x, y, np.ones(len(y), F32)) for x, y in DataSet()],
    "torch": _torch_loader,
}


@pytest.mark.parametrize("source", SOURCES)
def test_iterables_give_the_numbers_of_arrays(source):
    expected = compiled(metrics=["accuracy"]).fit(X, Y, batch_size=10, epochs=2, shuffle=False, verbose=0).history
    hl.set_random_seed(0)
    model = compiled(metrics=["accuracy"])
    steps = 5 if source == "generator" else None
    found = model.fit(SOURCES[source](), epochs=2, steps_per_epoch=steps, verbose=0).history
    assert found == expected
    data = SOURCES[source]()
    results = model.evaluate(data, steps=steps, verbose=0)
    assert results == model.evaluate(X, Y, batch_size=10, verbose=0)


def test_predictions_of_iterables_are_in_order():
    model = classifier()
    expected = model.predict(X, verbose=0)
    assert np.allclose(model.predict(DataSet(), verbose=0), expected, atol=1e-6)
    assert np.allclose(model.predict((x for x, _ in DataSet()), verbose=0), expected, atol=1e-6)
    assert np.allclose(model.predict(_torch_loader(), verbose=0), expected, atol=1e-6)


def test_lists_numbers_and_other_types_are_data():
    model = hl.Sequential([hl.Input((2,)), L.Dense(1)])
    model.compile("sgd", "mse")
    rows, targets = [[1.0, 2.0], [3.0, 4.0]], [1.0, 0.0]
    model.fit(rows, targets, verbose=0)
    expected = model.predict(np.float32(rows), verbose=0)
    for data in (rows, np.array(rows), np.array(rows, int), hl.Tensor.of(np.float32(rows))):
        assert np.array_equal(model.predict(data, verbose=0), expected)


def test_an_iterator_for_several_epochs_is_refused_before_anything_runs():
    model = compiled()
    before = weights_of(model)
    with pytest.raises(ArgumentError, match="steps_per_epoch"):
        model.fit(iter(DataSet()), epochs=2, verbose=0)
    with pytest.raises(ArgumentError, match="validation_steps"):
        model.fit(X, Y, epochs=2, validation_data=iter(DataSet()), verbose=0)
    assert same(before, weights_of(model))
    model.fit(iter(DataSet()), epochs=1, validation_data=iter(DataSet()), verbose=0)


def test_data_that_end_too_early_end_training_with_a_warning():
    model = compiled()
    with pytest.warns(UserWarning, match="after 2 of 3 batches of epoch 2"):
        history = model.fit(iter(DataSet()), epochs=2, steps_per_epoch=3, verbose=0)
    assert len(history.history["loss"]) == 2
    with pytest.warns(UserWarning, match="after 0 of 5 batches of epoch 2"):
        history = model.fit(iter(DataSet()), epochs=3, steps_per_epoch=5, verbose=0)
    assert len(history.history["loss"]) == 1
    for run in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ArgumentError, match="no batches"):
            run(iter([]), verbose=0)


def test_steps_per_epoch_with_arrays_and_data_that_can_be_passed_again():
    """Training goes on where the last epoch ended; validation always sees the same."""
    seen: list[float] = []
    counted: list[int] = []
    model = hl.Sequential([hl.Input((1,)), L.Dense(1)])
    model.compile(hl.optimizers.SGD(0.0), "mae", run_eagerly=True)
    rows = np.arange(5, dtype=F32)[:, None]

    class Noting(hl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_loss"])

        def on_train_batch_end(self, batch, logs=None):
            counted.append(batch)

    batches = [(rows[i : i + 1], rows[i : i + 1]) for i in range(5)]
    for data in ((rows, rows), (batches, None)):
        counted.clear()
        history = model.fit(
            *data, batch_size=1, shuffle=False, epochs=3, steps_per_epoch=2, verbose=0, callbacks=[Noting()],
            validation_data=(rows, rows), validation_steps=2, validation_batch_size=1,
        )  # fmt: skip
        assert counted == [0, 1] * 3
        errors = np.abs(model.predict(rows, verbose=0) - rows)[:, 0]
        expected = [errors[[0, 1]].mean(), errors[[2, 3]].mean(), errors[[4, 0]].mean()]
        assert history.history["loss"] == pytest.approx(expected, rel=1e-5)
    assert seen == pytest.approx([errors[:2].mean()] * 6, rel=1e-5)


def test_dictionaries_in_and_out():
    inputs = {"a": hl.Input((2,)), "b": hl.Input((3,))}
    both = L.Concatenate()([inputs["a"], inputs["b"]])
    model = hl.Model(inputs, {"left": L.Dense(1)(both), "right": L.Dense(2)(both)})
    model.compile("sgd", {"left": "mse", "right": "mae"}, metrics={"left": ["mae"]})
    x = {"b": X[:, :3], "a": X[:, 3:5]}
    y = {"right": X[:, :2], "left": X[:, 5]}
    history = model.fit(x, y, epochs=2, validation_split=0.2, verbose=0).history
    assert list(history) == [
        "loss", "left_loss", "right_loss", "left_mae",
        "val_loss", "val_left_loss", "val_right_loss", "val_left_mae",
    ]  # fmt: skip
    found = model.predict(x, verbose=0)
    assert found["left"].shape == (50, 1) and found["right"].shape == (50, 2)
    results = model.evaluate(x, y, verbose=0, return_dict=True)
    assert results["left_loss"] == pytest.approx(np.mean((found["left"][:, 0] - y["left"]) ** 2), rel=1e-5)
    assert results["loss"] == pytest.approx(results["left_loss"] + results["right_loss"], rel=1e-5)
    batches = [({k: v[:25] for k, v in x.items()}, {k: v[:25] for k, v in y.items()})] * 2
    model.fit(batches, verbose=0)


def test_an_output_without_a_loss_needs_no_target():
    x = hl.Input((6,))
    model = hl.Model(x, {"a": L.Dense(1)(x), "b": L.Dense(2)(x)})
    model.compile("sgd", {"a": "mse"})
    history = model.fit(X, {"a": X[:, 0]}, verbose=0).history
    assert list(history) == ["loss", "a_loss"]
    with pytest.raises(ArgumentError, match="'a' is missing"):
        model.fit(X, {"b": X[:, :2]}, verbose=0)
    with pytest.raises(ArgumentError, match="no output 'aa'"):
        model.fit(X, {"aa": X[:, 0]}, verbose=0)


def test_validation_data_in_all_forms():
    expected = None
    for data in ((X[:20], Y[:20]), [X[:20], Y[:20]], (X[:20], Y[:20], np.ones(20, F32)), [(X[:20], Y[:20])]):
        hl.set_random_seed(0)
        history = compiled().fit(X, Y, validation_data=data, epochs=2, seed=0, verbose=0).history
        expected = expected or history
        assert list(history) == ["loss", "val_loss"]
        assert history["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-6)
    history = compiled().fit(X, Y, validation_data=(X, Y), validation_freq=2, epochs=5, verbose=0).history
    assert len(history["val_loss"]) == 2


# Checks --------------------------------------------------------------------------------------------------------------
def test_targets_are_checked_in_every_kind_of_data():
    """In memory as a whole, before anything runs; in iterables batch by batch, before the batch runs."""
    model = compiled()
    wrong = np.where(np.arange(50) == 40, 3, Y)
    batches = [(X[i : i + 10], wrong[i : i + 10]) for i in range(0, 50, 10)]
    before = weights_of(model)
    with pytest.raises(TargetError, match="label 3 at sample 40"):
        model.fit(X, wrong, verbose=0)
    assert same(before, weights_of(model))
    for run in (lambda: model.fit(batches, verbose=0), lambda: model.evaluate(iter(batches), verbose=0)):
        with pytest.raises(TargetError, match="label 3 at sample 0"):
            run()
    with pytest.raises(TargetError, match="label 3"):
        model.train_on_batch(X, wrong)
    with pytest.raises(TargetError, match="label 3"):
        model.fit(X, Y, validation_data=(X, wrong), verbose=0)
    with pytest.raises(ArgumentError, match="x has 50, y has 49"):
        model.fit([(X, Y[:49])], verbose=0)
    with pytest.raises(ShapeError, match=r"\(50, 5\)"):
        model.fit([(X[:, :5], Y)], verbose=0)


@pytest.mark.parametrize("loss", ["mse", "mae", "binary_crossentropy", "huber", "log_cosh", "kl_divergence", "poisson"])
def test_losses_and_metrics_never_broadcast_through_fit(loss):
    """Labels (N,) go with outputs (N, 1); anything else is an error, for arrays and for batches."""
    model = hl.Sequential([hl.Input((6,)), L.Dense(1, activation="sigmoid")])
    model.compile(hl.optimizers.SGD(0.0), loss, metrics=["mae"])
    y = RNG.random(50).astype(F32)
    flat = model.evaluate(X, y, verbose=0)
    assert flat == pytest.approx(model.evaluate(X, y[:, None], verbose=0), rel=1e-6)
    assert flat[1] == pytest.approx(np.abs(model.predict(X, verbose=0)[:, 0] - y).mean(), rel=1e-5)
    for wrong in (np.stack([y, y], 1), y[:, None, None] * np.ones((1, 1, 2), F32), np.ones((50, 50), F32)):
        for run in (
            lambda wrong=wrong: model.fit(X, wrong, verbose=0),
            lambda wrong=wrong: model.fit([(X, wrong)], verbose=0),
        ):
            with pytest.raises(TargetError):
                run()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.fit(X, Y, epoch=3), "fit: unknown argument 'epoch'[\\s\\S]*'epochs'"),
        (lambda model: model.evaluate(X, Y, batchsize=3), "'batch_size'"),
        (lambda model: model.predict(X, verbos=0), "'verbose'"),
        (lambda model: model.train_on_batch(X, Y, weight=1), "sample_weight"),
        (lambda model: model.compile("sgd", "mse", metric=["mae"]), "'metrics'"),
    ],
)
def test_misspelt_arguments_are_explained(call, words):
    with pytest.raises(ArgumentError, match=words):
        call(compiled())


def test_sample_weights_of_another_shape_are_errors():
    model = compiled()
    with pytest.raises(ArgumentError, match="sample_weight has 49"):
        model.fit(X, Y, sample_weight=np.ones(49, F32), verbose=0)
    with pytest.raises(TargetError, match="weights do not fit"):
        model.fit(X, Y, sample_weight=np.ones((50, 2), F32), verbose=0)
    with pytest.raises(ArgumentError, match="sample_weight is given twice"):
        model.fit([(X, Y)], sample_weight=np.ones(50, F32), verbose=0)


# Callbacks and ends --------------------------------------------------------------------------------------------------
def test_callbacks_come_in_order():
    calls: list[str] = []

    class Noting(hl.callbacks.Callback):
        pass

    def note(name: str) -> Callable[..., None]:
        def hook(self: Any, *args: Any) -> None:
            where = "".join(str(arg) for arg in args if isinstance(arg, int))
            calls.append(name.removeprefix("on_") + where)

        return hook

    for stage in ("train", "test", "predict"):
        for end in ("begin", "end"):
            setattr(Noting, f"on_{stage}_{end}", note(f"on_{stage}_{end}"))
            setattr(Noting, f"on_{stage}_batch_{end}", note(f"on_{stage}_batch_{end}"))
    for end in ("begin", "end"):
        setattr(Noting, f"on_epoch_{end}", note(f"on_epoch_{end}"))
    model = compiled()
    model.fit(X, Y, batch_size=25, epochs=2, validation_data=(X[:10], Y[:10]), callbacks=[Noting()], verbose=0)
    epoch = [
        "epoch_begin{}", "train_batch_begin0", "train_batch_end0", "train_batch_begin1", "train_batch_end1",
        "test_begin", "test_batch_begin0", "test_batch_end0", "test_end", "epoch_end{}",
    ]  # fmt: skip
    assert calls == ["train_begin", *(c.format(0) for c in epoch), *(c.format(1) for c in epoch), "train_end"]
    calls.clear()
    model.evaluate(X, Y, verbose=0, callbacks=[Noting()], batch_size=50)
    model.predict(X, verbose=0, callbacks=[Noting()], batch_size=50)
    assert calls == [
        "test_begin", "test_batch_begin0", "test_batch_end0", "test_end",
        "predict_begin", "predict_batch_begin0", "predict_batch_end0", "predict_end",
    ]  # fmt: skip


def test_logs_are_numbers_when_they_are_read():
    kinds = set()
    model = compiled(metrics=["accuracy"])
    note = hl.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: kinds.update(map(type, logs.values())))
    model.fit(X, Y, callbacks=[note], verbose=0)
    assert kinds == {float}


class Spoiling(hl.callbacks.Callback):
    """Makes the validation worse from the third epoch on, then ends training in some way."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch >= 2:
            for variable in self.model.weights:
                variable.assign(variable.numpy() * 0.0 + (np.nan if self.ending == "nan" else 3.0))
        if epoch == 4 and self.ending == "stop":
            self.model.stop_training = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.ending == "interrupt" and bool((self.model.weights[0].numpy() == 3.0).all()):
            raise KeyboardInterrupt


@pytest.mark.parametrize("ending", ["patience", "epochs", "nan", "stop", "interrupt"])
def test_the_best_weights_are_restored_however_training_ends(ending):
    model = compiled(hl.optimizers.Adam(0.01))
    best: dict[str, list[np.ndarray]] = {}

    class Noting(hl.callbacks.Callback):
        lowest = np.inf

        def on_epoch_end(self, epoch, logs=None):
            if logs["val_loss"] < self.lowest:
                self.lowest, best["weights"] = logs["val_loss"], model.get_weights()

    stopping = hl.callbacks.EarlyStopping(patience=1 if ending == "patience" else 9, restore_best_weights=True)
    chosen = [Spoiling(ending), Noting(), stopping]
    chosen += [hl.callbacks.TerminateOnNaN()] if ending == "nan" else []
    try:
        model.fit(X, Y, epochs=6, validation_data=(X, Y), callbacks=chosen, verbose=0)
    except KeyboardInterrupt:
        assert ending == "interrupt"
    assert same(weights_of(model), best["weights"])
    if ending == "patience":
        assert len(model.history.history["loss"]) < 6


def test_training_goes_on_from_an_epoch():
    history = compiled().fit(X, Y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    assert compiled().fit(X, Y, epochs=3, initial_epoch=3, verbose=0).history == {}


def test_a_printed_epoch_is_one_line(capsys):
    compiled().fit(X, Y, epochs=2, validation_data=(X, Y), verbose="auto")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "loss" in lines[0] and "validation" in lines[0].lower()
    compiled().predict(X, batch_size=50)
    assert capsys.readouterr().out == "", "a single batch is silent"


# Eager ---------------------------------------------------------------------------------------------------------------
class Looking(hl.Model):
    """Prints and compares what it sees, as nothing compiled could."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.looks = looks
        self.parts = [L.Dense(8, activation="relu"), L.BatchNormalization(), L.Dropout(0.2)]
        self.last = L.Dense(3)

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        if self.looks and float(ops.max(x)) > 0:
            print("seen", x.numpy().shape)
        return self.last(x)


def test_run_eagerly_gives_the_same_numbers_and_lets_models_look_at_values(capsys):
    def train(eagerly: bool) -> tuple[dict[str, Any], list[np.ndarray], np.ndarray]:
        hl.set_random_seed(0)
        model = Looking(looks=eagerly)
        loss = hl.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], run_eagerly=eagerly)
        history = model.fit(X, Y, batch_size=20, epochs=2, seed=0, verbose=0).history
        return history, model.get_weights(), model.predict(X, verbose=0)

    plain, eager = train(eagerly=False), train(eagerly=True)
    assert eager[0] == plain[0] and same(eager[1], plain[1]) and np.array_equal(eager[2], plain[2])
    printed = capsys.readouterr().out.splitlines()
    assert printed.count("seen (20, 8)") == 4 and printed.count("seen (10, 8)") == 2


# Single batches ------------------------------------------------------------------------------------------------------
def test_single_batches_are_the_steps_of_fit():
    one, two = compiled("adam", metrics=["accuracy"]), None
    history = one.fit(X, Y, batch_size=25, shuffle=False, verbose=0).history
    hl.set_random_seed(0)
    two = compiled("adam", metrics=["accuracy"])
    for start in (0, 25):
        found = two.train_on_batch(X[start : start + 25], Y[start : start + 25], return_dict=True)
    assert found == {name: values[-1] for name, values in history.items()}
    assert same(weights_of(one), weights_of(two))
    two.reset_metrics()
    assert two.test_on_batch(X, Y) == pytest.approx(two.evaluate(X, Y, batch_size=50, verbose=0))
    assert two.metrics_names == ["loss", "accuracy"]
    np.testing.assert_array_equal(two.predict_on_batch(X), two.predict(X, batch_size=50, verbose=0))


# Training steps of one's own -----------------------------------------------------------------------------------------
class Weighted(hl.Trainer):
    """Adds a penalty on the outputs, and reports it."""

    def train_step(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        prediction = self.model(x, training=True)
        loss, _ = self.compute_loss(y, prediction, weight)
        penalty = ops.mean(ops.square(prediction))
        self.optimizer.minimize(loss + 0.1 * penalty, self.model.trainable_variables)
        return {"loss": loss, "penalty": penalty}


def test_a_training_step_of_ones_own(tmp_path):
    model = classifier()
    model.compile(
        hl.optimizers.SGD(0.5), hl.losses.SparseCategoricalCrossentropy(from_logits=True), trainer=Weighted
    )
    history = model.fit(X, Y, batch_size=50, epochs=20, verbose=0).history
    assert list(history) == ["loss", "penalty"] and history["loss"][-1] < history["loss"][0]
    assert isinstance(model.trainer, Weighted) and model.trainer._train.traces == 1
    with pytest.warns(UserWarning, match="Weighted"):
        model.save(tmp_path / "model.keras")  # a trainer is code, which is not in files
    assert hl.load_model(tmp_path / "model.keras").optimizer is None


class Reconstruction(hl.Trainer):
    """Has neither a loss nor targets."""

    def train_step(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        loss = ops.mean(ops.square(self.model(x, training=True) - x))
        self.optimizer.minimize(loss, self.model.trainable_variables)
        return {"error": loss}


def test_a_training_step_without_targets():
    model = hl.Sequential([hl.Input((6,)), L.Dense(2), L.Dense(6)])
    model.compile(hl.optimizers.Adam(0.05), trainer=Reconstruction)
    for data in (X, [(X,)], ((x,) for x in [X])):
        history = model.fit(data, epochs=1, verbose=0).history
    assert list(history) == ["error"]
    errors = model.fit(X, epochs=60, verbose=0).history["error"]
    assert errors[-1] < 0.8 * errors[0]


# Programs ------------------------------------------------------------------------------------------------------------
def test_programs_of_a_long_training():
    """1,037 samples at batch 32, three epochs with validation: full batches, and the short last one."""
    x = RNG.normal(size=(1037, 6)).astype(F32)
    y = RNG.integers(0, 3, 1037)
    model = compiled("adam", metrics=["accuracy"])
    model.fit(x, y, batch_size=32, epochs=3, validation_data=(x[:333], y[:333]), verbose=0)
    trainer = model.trainer
    assert (trainer._train.traces, trainer._test.traces) == (2, 2)
    model.fit(x, y, batch_size=32, epochs=1, class_weight={0: 1.0, 1: 1.0, 2: 1.0}, verbose=0)
    model.fit(x, y, batch_size=32, epochs=1, class_weight={0: 2.0, 1: 1.0, 2: 0.5}, verbose=0)
    model.optimizer.learning_rate = 1e-4
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    assert (trainer._train.traces, trainer._test.traces) == (4, 2), "weights make other programs, rates do not"


def test_predictions_of_any_number_of_rows_need_few_programs():
    model = classifier(norm=True)
    expected = model.predict(X, batch_size=50, verbose=0)
    for rows in range(1, 41):
        found = model.predict(X[:rows], verbose=0)
        assert found.shape == (rows, 3)
        np.testing.assert_allclose(found, expected[:rows], rtol=1e-5, atol=1e-6)
    assert model.trainer._predict.traces <= 7


def test_outputs_without_a_row_per_sample_are_not_filled_up():
    """A model that mixes rows gives what it gives for just these rows."""
    x = hl.Input((6,))
    model = hl.Model(x, [ops.sum(x, axis=0), ops.reshape(x, (-1, 2)), x])
    total, pairs, same_rows = model.predict(X[:5], batch_size=32, verbose=0)
    np.testing.assert_allclose(total, X[:5].sum(0), rtol=1e-5)
    assert np.array_equal(pairs, X[:5].reshape(-1, 2)) and np.array_equal(same_rows, X[:5])


# Freezing ------------------------------------------------------------------------------------------------------------
def test_freezing_takes_effect_at_once():
    """Between epochs, in a callback: frozen weights stay to the bit; statistics too; and it comes back."""
    model = compiled(hl.optimizers.Adam(0.05), norm=True)
    frozen = [model.get_layer("first"), model.get_layer("norm")]
    snapshots: list[list[np.ndarray]] = []

    class Toggling(hl.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            for layer in frozen:
                layer.trainable = epoch not in (1, 2)
            snapshots.append([w for layer in frozen for w in layer.get_weights()])

    model.fit(X, Y, batch_size=25, epochs=4, callbacks=[Toggling()], verbose=0)
    first, second, third, fourth = snapshots
    assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True)), "all moved, statistics too"
    assert same(second, third) and same(third, fourth)
    after = [w for layer in frozen for w in layer.get_weights()]
    assert not any(np.array_equal(a, b) for a, b in zip(fourth, after, strict=True))
    assert model.trainer._train.traces == 2, "frozen and free; going back finds the first program"


def test_frozen_normalization_runs_in_inference_mode():
    model = compiled(hl.optimizers.SGD(0.0), norm=True)
    model.get_layer("norm").moving_mean.assign(RNG.normal(size=8).astype(F32))
    shifted = X + 3.0
    free = model.fit(shifted, Y, batch_size=50, verbose=0).history["loss"][0]
    model.get_layer("norm").trainable = False
    loss = model.evaluate(shifted, Y, batch_size=50, verbose=0)
    frozen = model.fit(shifted, Y, batch_size=50, verbose=0).history["loss"][0]
    assert frozen == pytest.approx(loss, rel=1e-5)
    assert abs(free - loss) > 1e-3


def test_a_frozen_beginning_has_no_gradients_in_the_program():
    """Freezing everything before a layer leaves out the backward pass through it."""
    layers = [L.Conv2D(4, 3, name=f"conv{i}", activation="relu", padding="same") for i in range(3)]
    model = hl.Sequential([hl.Input((8, 8, 2)), *layers, L.GlobalAveragePooling2D(), L.Dense(2, name="head")])
    model.compile("sgd", "mse")
    x, y = np.zeros((2, 8, 8, 2), F32), np.zeros((2, 2), F32)

    def backward() -> dict[str, int]:
        counts = Counter(node.name for node in model.trainer._train.graph(x, y, None).nodes())
        return {name: counts[name] for name in ("conv", "conv_kernel_grad", "conv_input_grad")}

    assert backward() == {"conv": 3, "conv_kernel_grad": 3, "conv_input_grad": 2}
    model.freeze_to("conv2")
    assert backward() == {"conv": 3, "conv_kernel_grad": 1, "conv_input_grad": 0}
    model.freeze_to("head")
    assert backward() == {"conv": 3, "conv_kernel_grad": 0, "conv_input_grad": 0}
    assert len(model.trainer._train.graph(x, y, None).updates) < 12
    model.unfreeze()
    model.get_layer("conv0").kernel.trainable = False
    model.get_layer("conv0").bias.trainable = False
    assert backward() == {"conv": 3, "conv_kernel_grad": 2, "conv_input_grad": 1}


def test_two_models_that_share_layers_train_in_turns():
    """The pattern of adversarial training: two programs in all, and each step moves its own half."""
    generator = hl.Sequential([hl.Input((2,)), L.Dense(6, name="make")], name="generator")
    discriminator = hl.Sequential([hl.Input((6,)), L.Dense(4, activation="relu"), L.Dense(1)], name="discriminator")
    both = hl.Sequential([hl.Input((2,)), generator, discriminator], name="both")
    loss = hl.losses.BinaryCrossentropy(from_logits=True)
    discriminator.compile(hl.optimizers.Adam(0.01), loss)
    both.compile(hl.optimizers.Adam(0.01), loss)
    noise, yes = RNG.normal(size=(50, 2)).astype(F32), np.ones(50, F32)
    for _ in range(5):
        made = generator.predict(noise, verbose=0)
        kept = generator.get_weights()
        discriminator.trainable = True
        before = discriminator.get_weights()
        discriminator.train_on_batch(np.concatenate([X, made]), np.concatenate([yes, 0 * yes]))
        assert same(generator.get_weights(), kept)
        after = discriminator.get_weights()
        assert not np.array_equal(before[0], after[0])
        discriminator.trainable = False
        both.train_on_batch(noise, yes)
        assert same(discriminator.get_weights(), after)
        assert not np.array_equal(generator.get_weights()[0], kept[0])
    assert discriminator.trainer._train.traces == 1 and both.trainer._train.traces == 1
    assert len(both.optimizer._state) == 2, "frozen weights have no state"


def test_everything_frozen_trains_nothing():
    model = compiled("adam")
    model.trainable = False
    before = weights_of(model)
    model.fit(X, Y, verbose=0)
    assert same(weights_of(model), before)


def test_rates_by_path_hold_after_layers_were_part_of_another_model():
    model = compiled(optimizer := hl.optimizers.SGD(0.5))
    optimizer.set_multipliers({f"{model.name}/first": 0.0})
    model.features("first").predict(X, verbose=0)
    kept = model.get_layer("first").get_weights()
    model.fit(X, Y, verbose=0)
    assert same(model.get_layer("first").get_weights(), kept)


def calls_of(function: Any) -> int:
    """How many calls, of Python functions and built-in ones, running a function makes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_a_step_s_way_through_python_does_not_grow_with_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highlevel.backends.registry._current", hl.backends.get("native"))
    x, y = np.zeros((2, 8), "float32"), np.zeros((2, 8), "float32")

    def counts(depth: int) -> tuple[int, int]:
        model = hl.Sequential([hl.Input((8,)), *(hl.layers.Dense(8, activation="relu") for _ in range(depth))])
        model.compile("adam", "mse", metrics=["mae"])
        steps = (lambda: model.train_on_batch(x, y)), (lambda: model.predict(x, verbose=0))
        for _ in range(3):
            for step in steps:
                step()
        train, predict = (min(calls_of(step) for _ in range(3)) for step in steps)
        return train, predict

    shallow, deep = counts(4), counts(40)
    assert shallow == deep
    assert shallow[0] < 350
    assert shallow[1] < 150
