"""Callbacks, driven by a small loop that calls the hooks as `fit` does, beside Keras where it has the same."""

from __future__ import annotations

import csv
import io
import time

import numpy as np
import pytest

from highlevel.errors import ArgumentError, HighlevelError
from highlevel.training import callbacks, metrics, optimizers
from highlevel.training.callback import HOOKS
from highlevel.training.progress import ProgressBar

keras = pytest.importorskip("keras")


class Model:
    """What callbacks touch of a model: weights, an optimizer, files."""

    def __init__(self, rate: float = 1.0) -> None:
        self.optimizer = optimizers.SGD(rate)
        self.stop_training = False
        self.metrics = [metrics.Mean(name="loss"), metrics.SparseCategoricalAccuracy(name="hits"), metrics.AUC()]
        self.weights = [np.zeros(1)]
        self.saved: list[tuple[str, float]] = []

    def get_weights(self):
        return [np.copy(w) for w in self.weights]

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append((str(path), float(self.weights[0][0])))

    save_weights = save


def run(model, given, rows, batches=2, **options):
    """Trains "for" len(rows) epochs: each row is the logs of one; the weights count the epochs, from 1."""
    options = {"verbose": 0, "epochs": len(rows), "steps": batches} | options
    listed = callbacks.CallbackList(given, model=model, add_history=True, **options)
    listed.on_train_begin()
    try:
        for epoch, logs in enumerate(rows):
            listed.on_epoch_begin(epoch)
            for batch in range(batches):
                listed.on_train_batch_begin(batch)
                listed.on_train_batch_end(batch, dict(logs))
            model.weights = [np.array([epoch + 1.0])]
            listed.on_epoch_end(epoch, dict(logs))
            if model.stop_training:
                break
    finally:
        listed.on_train_end()
    return listed.history


def rows_of(name, values):
    return [{name: value} for value in values]


def test_hooks_are_called_in_order_and_once():
    seen = []
    hooks = {name: (lambda *args, name=name: seen.append(name)) for name in HOOKS if "test" not in name}
    run(Model(), callbacks.LambdaCallback(**hooks), rows_of("loss", [1.0]), batches=1)
    assert seen == [
        *["on_train_begin", "on_epoch_begin", "on_train_batch_begin"],
        *["on_train_batch_end", "on_epoch_end", "on_train_end"],
    ]  # fmt: skip


def test_hooks_of_keras_are_all_here():
    theirs = {name for name in dir(keras.callbacks.Callback) if name.startswith("on_")}
    assert theirs <= set(dir(callbacks.Callback))


def test_on_batch_end_is_enough():
    class Old(callbacks.Callback):
        count = 0

        def on_batch_end(self, batch, logs=None):
            self.count += 1

    old = Old()
    run(Model(), [old], rows_of("loss", [1.0, 2.0]), batches=3)
    assert old.count == 6


def test_unused_hooks_cost_nothing():
    listed = callbacks.CallbackList([callbacks.History(), callbacks.EarlyStopping()], model=Model())
    assert listed.hooks("on_train_batch_end") == [] and len(listed.hooks("on_epoch_end")) == 2


def test_callbacks_share_the_logs():
    class Adds(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["extra"] = 7.0

    history = run(Model(), [Adds()], rows_of("loss", [1.0]))
    assert history.history == {"loss": [1.0], "extra": [7.0]}


def test_what_is_not_a_callback_is_refused():
    with pytest.raises(ArgumentError, match="not a callback"):
        callbacks.CallbackList([print])
    with pytest.raises(ArgumentError, match="on_epoch_end"):
        callbacks.LambdaCallback(on_epoch_ends=print)


# Early stopping and plateaus, beside Keras --------------------------------------------------------------------------
CURVES = [
    [5.0, 4.0, 3.0, 3.5, 3.6, 3.7, 2.0, 1.0],
    [1.0, 2.0, 3.0, 4.0],
    [3.0, 3.0, 3.0, 3.0, 3.0],
    [5.0, 4.9, 4.85, 4.84, 4.83, 4.82],
    [4.0, 3.0, 2.0],
]


def keras_run(callback, model, rows):
    callback.set_model(model)
    callback.set_params({"epochs": len(rows)})
    callback.on_train_begin()
    for epoch, logs in enumerate(rows):
        callback.on_epoch_begin(epoch)
        model.weights = [np.array([epoch + 1.0])]
        callback.on_epoch_end(epoch, dict(logs))
        if model.stop_training:
            break
    callback.on_train_end()


@pytest.mark.parametrize("curve", CURVES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patience": 2},
        {"patience": 2, "restore_best_weights": True},
        {"patience": 1, "min_delta": 0.1, "restore_best_weights": True},
        {"patience": 1, "baseline": 2.5, "restore_best_weights": True},
        {"patience": 1, "start_from_epoch": 2, "restore_best_weights": True},
        {"patience": 10, "restore_best_weights": True},
        {"patience": 1, "mode": "max", "restore_best_weights": True},
    ],
    ids=str,
)
def test_early_stopping_as_in_keras(options, curve):
    ours, theirs = Model(), Model()
    mine = callbacks.EarlyStopping(**options)
    history = run(ours, [mine], rows_of("val_loss", curve))
    reference = keras.callbacks.EarlyStopping(**options)
    keras_run(reference, theirs, rows_of("val_loss", curve))
    assert (mine.stopped_epoch, ours.stop_training) == (reference.stopped_epoch, theirs.stop_training)
    assert ours.weights == theirs.weights
    assert len(history.epoch) == (reference.stopped_epoch + 1 if reference.stopped_epoch else len(curve))


class FakeOptimizer:
    learning_rate = 1.0


@pytest.mark.parametrize("curve", CURVES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.5},
        {"patience": 1, "cooldown": 2, "factor": 0.5},
        {"patience": 1, "min_lr": 0.3},
    ],
    ids=str,
)
def test_plateaus_as_in_keras(options, curve):
    ours, theirs = Model(), Model()
    theirs.optimizer = FakeOptimizer()
    history = run(ours, [callbacks.ReduceLROnPlateau(**options)], rows_of("val_loss", curve))
    keras_run(keras.callbacks.ReduceLROnPlateau(**options), theirs, rows_of("val_loss", curve))
    assert float(ours.optimizer.learning_rate) == pytest.approx(theirs.optimizer.learning_rate)
    assert history.history["learning_rate"][0] == 1.0


@pytest.mark.parametrize("ending", ["patience", "last epoch", "interrupt", "error", "another callback"])
def test_the_best_weights_are_back_however_training_ends(ending):
    model = Model()

    class Ends(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3 and ending in ("interrupt", "error"):
                raise KeyboardInterrupt if ending == "interrupt" else RuntimeError("data")

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3 and ending == "another callback":
                self.model.stop_training = True

    stopping = callbacks.EarlyStopping(patience=2 if ending == "patience" else 50, restore_best_weights=True)
    rows = rows_of("val_loss", [3.0, 1.0, 2.0, 2.5, 2.6, 2.7])
    try:
        run(model, [stopping, Ends()], rows)
    except (KeyboardInterrupt, RuntimeError):
        assert ending in ("interrupt", "error")
    assert model.weights == [2.0]


def test_nan_is_never_the_best():
    model = Model()
    run(
        model,
        [callbacks.EarlyStopping(patience=9, restore_best_weights=True)],
        rows_of("val_loss", [np.nan, 2.0, np.nan]),
    )
    assert model.weights == [2.0]


@pytest.mark.parametrize(
    "monitor, larger",
    [("val_loss", False), ("val_hits", True), ("auc", True), ("val_head_accuracy", True), ("mae", False)],
)
def test_the_direction_of_a_metric_is_known(monitor, larger):
    callback, model = callbacks.EarlyStopping(monitor), Model()
    callback.set_model(model)
    assert callback.is_better(2.0, 1.0) is larger


def test_an_unknown_direction_is_asked_for():
    callback, model = callbacks.EarlyStopping("val_closeness"), Model()
    callback.set_model(model)
    with pytest.raises(ArgumentError, match="mode="):
        callback.is_better(2.0, 1.0)


def test_a_missing_metric_is_named():
    with pytest.warns(UserWarning, match="'val_loss', which is not logged"):
        run(Model(), [callbacks.EarlyStopping()], rows_of("loss", [1.0]))


# Rates --------------------------------------------------------------------------------------------------------------
def test_the_schedule_of_epochs():
    model = Model(rate=0.5)
    history = run(model, [callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)], rows_of("loss", [1.0] * 3))
    assert history.history["learning_rate"] == pytest.approx([0.25, 0.125, 0.0625])
    run(model, [callbacks.LearningRateScheduler(lambda epoch: 0.1 * (epoch + 1))], rows_of("loss", [1.0] * 3))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.3)


# Files --------------------------------------------------------------------------------------------------------------
def test_checkpoints(tmp_path):
    model = Model()
    path = tmp_path / "deep" / "{epoch:02d}-{val_loss:.1f}.keras"
    run(model, [callbacks.ModelCheckpoint(path)], rows_of("val_loss", [3.0, 2.0]))
    assert model.saved == [
        (str(tmp_path / "deep" / "01-3.0.keras"), 1.0),
        (str(tmp_path / "deep" / "02-2.0.keras"), 2.0),
    ]
    assert (tmp_path / "deep").is_dir()


def test_only_the_best_is_saved(tmp_path):
    model = Model()
    path = tmp_path / "best.weights.h5"
    checkpoint = callbacks.ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
    run(model, [checkpoint], rows_of("val_loss", [3.0, np.nan, 4.0, 2.0, 2.5]))
    assert [epoch for _, epoch in model.saved] == [1.0, 4.0]
    model = Model()
    checkpoint = callbacks.ModelCheckpoint(path, save_best_only=True, initial_value_threshold=2.2)
    run(model, [checkpoint], rows_of("val_loss", [3.0, 4.0, 2.0]))
    assert [epoch for _, epoch in model.saved] == [3.0]


def test_checkpoints_every_few_batches(tmp_path):
    model = Model()
    run(
        model,
        [callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=2)],
        rows_of("loss", [1.0] * 2),
        batches=3,
    )
    names = [path.rsplit("/", 1)[-1] for path, _ in model.saved]
    assert names == ["1-2.keras", "2-1.keras", "2-3.keras"]


def test_a_checkpoint_path_with_an_unknown_name():
    with pytest.raises(ArgumentError, match="val_los"):
        run(Model(), [callbacks.ModelCheckpoint("{val_los}.keras")], rows_of("val_loss", [3.0]))


def test_csv(tmp_path):
    path = tmp_path / "log.csv"
    rows = [{"loss": 1.5, "val_loss": 2.0}, {"loss": 1.25, "val_loss": 1.0}]
    run(Model(), [callbacks.CSVLogger(path)], rows)
    run(Model(), [callbacks.CSVLogger(path, append=True)], [{"loss": 0.5, "other": 3.0}])
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["loss"] for row in read] == ["1.5", "1.25", "0.5"] and [row["epoch"] for row in read] == ["0", "1", "0"]
    assert read[2]["val_loss"] == "NA" and list(read[0]) == ["epoch", "loss", "val_loss"]
    run(Model(), [callbacks.CSVLogger(path, separator=";")], rows[:1])
    assert path.read_text().splitlines() == ["epoch;loss;val_loss", "0;1.5;2.0"]


# Numbers that are none ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_ends_when_the_loss_is_no_number(value, capsys):
    model = Model()
    history = run(model, [callbacks.TerminateOnNaN()], rows_of("loss", [1.0, value, 1.0]))
    assert history.epoch == [0, 1] and "training ends" in capsys.readouterr().out
    with pytest.raises(HighlevelError, match="clipnorm"):
        run(Model(), [callbacks.TerminateOnNaN(raise_error=True)], rows_of("loss", [value]))


# Progress -----------------------------------------------------------------------------------------------------------
class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_one_line_per_epoch():
    out = io.StringIO()
    rows = [{"loss": 0.51234, "accuracy": 0.75, "val_loss": 0.6}, {"loss": 0.4, "accuracy": 0.8, "val_loss": 0.5}]
    run(Model(), [ProgressBar(file=out)], rows, batches=500, verbose=1)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and not any(character in out.getvalue() for character in "\r\x1b\b")
    assert lines[0].startswith("Epoch 1/2: ") and lines[0].endswith(" left")
    assert "running mean: loss 0.5123, accuracy 0.75" in lines[0] and "validation: loss 0.6" in lines[0]
    assert "left" not in lines[1]


def test_a_terminal_gets_a_bar_at_most_ten_times_a_second():
    out = Terminal()
    bar = ProgressBar(file=out)
    began = time.perf_counter()
    run(Model(), [bar], rows_of("loss", [0.5]), batches=20_000, verbose=1)
    seconds = time.perf_counter() - began
    drawn = out.getvalue().count("\r")
    assert drawn <= 10 * seconds + 6
    assert out.getvalue().rstrip().splitlines()[-1].split("\r")[-1].startswith("Epoch 1/1: ")


def test_a_bar_shows_the_running_mean_and_the_time_left():
    out = Terminal()
    bar = ProgressBar(file=out)
    bar.set_params({"epochs": 1, "steps": 4})
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for batch in range(2):
        time.sleep(0.12)
        bar.on_train_batch_end(batch, {"loss": 0.5})
    text = out.getvalue()
    assert "2/4" in text and "running mean: loss 0.5" in text and "00:00<00:00" in text
    bar.on_train_end()


def test_a_bar_costs_little():
    bar = ProgressBar(file=Terminal())
    bar.set_params({"epochs": 1, "steps": 100_000})
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    began = time.perf_counter()
    for batch in range(100_000):
        bar.on_train_batch_end(batch, None)
    assert (time.perf_counter() - began) / 100_000 < 5e-6  # seconds per step
    bar.on_epoch_end(0, {})


def test_logs_are_read_only_when_drawn():
    class Lazy(dict):
        read = 0

        def items(self):
            Lazy.read += 1
            return super().items()

    bar = ProgressBar(file=Terminal())
    bar.set_params({"epochs": 1, "steps": 1000})
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    for batch in range(1000):
        bar.on_train_batch_end(batch, Lazy(loss=1.0))
    bar.on_train_end()
    assert Lazy.read <= 2


def test_evaluation_and_prediction():
    out = io.StringIO()
    listed = callbacks.CallbackList([ProgressBar(file=out)], model=Model(), verbose=1, steps=3)
    listed.on_test_begin()
    for batch in range(3):
        listed.on_test_batch_end(batch, {"loss": 1.0})
    listed.on_test_end({"loss": 0.25})
    listed.on_predict_begin()
    listed.on_predict_batch_end(0)
    listed.on_predict_end()
    assert out.getvalue().splitlines()[0].endswith("loss 0.25") and len(out.getvalue().splitlines()) == 1


def test_validation_inside_of_training_is_quiet():
    out = io.StringIO()
    listed = callbacks.CallbackList([ProgressBar(file=out)], model=Model(), verbose=1, epochs=1, steps=1)
    listed.on_train_begin()
    listed.on_epoch_begin(0)
    listed.on_test_begin()
    listed.on_test_end({"loss": 1.0})
    listed.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})
    listed.on_train_end()
    assert len(out.getvalue().splitlines()) == 1


def test_verbosity(capsys):
    assert not any(isinstance(c, ProgressBar) for c in callbacks.CallbackList(verbose=0))
    assert sum(isinstance(c, ProgressBar) for c in callbacks.CallbackList(verbose="auto")) == 1
    own = ProgressBar()
    assert [c for c in callbacks.CallbackList([own], verbose=1) if isinstance(c, ProgressBar)] == [own]
