"""The callbacks that come with the library; see `callback` for the hooks."""

from __future__ import annotations

import csv
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from highlevel.errors import ArgumentError, HighlevelError, did_you_mean

from .callback import HOOKS, Callback, overrides
from .progress import ProgressBar

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]


class CallbackList(Callback):
    """Callbacks as one. Hooks that nobody overrides cost nothing.

    params: what callbacks find in `self.params` ("epochs", "steps", "verbose"); with verbose, there is a `ProgressBar`
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = True,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        given: list[Callback] = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        for callback in given:
            if not isinstance(callback, Callback):
                raise ArgumentError(
                    "this is not a callback",
                    got=repr(callback),
                    expected="objects of classes derived from hl.callbacks.Callback",
                )
        self.callbacks = given
        self.history: History | None = next((c for c in given if isinstance(c, History)), None)
        if add_history and self.history is None:
            self.history = History()
            self.callbacks.append(self.history)
        verbose = params.get("verbose", 0)
        if add_progbar and verbose and not any(isinstance(callback, ProgressBar) for callback in given):
            self.callbacks.append(ProgressBar(verbose))
        self._hooks: dict[str, list[Callable[..., None]]] = {}
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)
        self._hooks.clear()
        callback.set_params(self.params)
        if self.model is not None:
            callback.set_model(self.model)

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self.history is not None:
            model.history = self.history
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def hooks(self, name: str) -> list[Callable[..., None]]:
        """The callbacks' own methods of that name."""
        if name not in self._hooks:
            self._hooks[name] = [getattr(callback, name) for callback in self.callbacks if overrides(callback, name)]
        return self._hooks[name]

    def call(self, name: str, *args: Any, logs: Any = None) -> None:
        hooks = self.hooks(name)
        if hooks:
            shared = {} if logs is None else logs  # one object for all, so that a callback can add to it
            for hook in hooks:
                hook(*args, shared)


def _forward(name: str, numbered: bool) -> Callable[..., None]:
    def numbered_hook(self: CallbackList, index: int, logs: Any = None) -> None:
        self.call(name, index, logs=logs)

    def hook(self: CallbackList, logs: Any = None) -> None:
        self.call(name, logs=logs)

    return numbered_hook if numbered else hook


for _name in HOOKS:
    setattr(CallbackList, _name, _forward(_name, numbered="batch" in _name or "epoch" in _name))


class History(Callback):
    """Remembers the logs of all epochs: `history.history["val_loss"]`, `history.epoch`"""

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch = []
        self.history = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"


class LambdaCallback(Callback):
    """Functions as hooks: `LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch))`"""

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        super().__init__()
        for name, function in hooks.items():
            if name not in HOOKS:
                raise ArgumentError(f"LambdaCallback: unknown hook {name!r}", hint=did_you_mean(name, HOOKS))
            if function is not None:
                setattr(self, name, function)


# Watching a number --------------------------------------------------------------------------------------------------
class MonitorCallback(Callback):
    """Base of callbacks that compare a logged number from epoch to epoch.

    mode: "min", "max", or "auto": by the metric, and by what its name says
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(
                f"{type(self).__name__}: unknown mode", got=repr(mode), expected="'auto', 'min' or 'max'"
            )
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best: float | None = None

    def _larger_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        for metric in getattr(self.model, "metrics", ()):
            if metric.name == name and getattr(metric, "direction", None):
                return bool(metric.direction == "up")
        if (
            name == "loss"
            or name.endswith(("_loss", "error", "entropy"))
            or name in ("mse", "mae", "mape", "msle", "rmse")
        ):
            return False
        if name.endswith(("acc", "accuracy", "precision", "recall", "score", "auc")):
            return True
        raise ArgumentError(
            f"{type(self).__name__}: it is not known whether {self.monitor!r} should grow or shrink",
            hint="pass mode='max' or 'min'",
        )

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another by more than min_delta."""
        if than is None:
            return not math.isnan(value)
        return value - self.min_delta > than if self._larger_is_better() else value + self.min_delta < than

    def value(self, logs: Any) -> float | None:
        """The watched number of this epoch; a warning if there is none."""
        if logs is None or self.monitor not in logs:
            warnings.warn(
                f"{type(self).__name__} watches {self.monitor!r}, which is not logged; known {', '.join(logs or ())}",
                stacklevel=2,
            )
            return None
        return float(logs[self.monitor])


class EarlyStopping(MonitorCallback):
    """Ends training when a number has not become better for `patience` epochs.

    min_delta:            what counts as better
    baseline:             value that has to be reached at all
    restore_best_weights: training ends with the weights of the best epoch – however it ends
    start_from_epoch:     epochs before this one are not looked at
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best, self.best_epoch, self.best_weights = None, 0, None

    def on_train_begin(self, logs: Any = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.is_better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.is_better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)
            if self.verbose:
                print(f"Weights of the best epoch restored: {self.best_epoch + 1}")


class ReduceLROnPlateau(MonitorCallback):
    """Multiplies the learning rate by `factor` when a number has not become better for `patience` epochs.

    cooldown: epochs to wait after that
    min_lr:   the rate does not go below it
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0.0 < factor < 1.0:
            raise ArgumentError("ReduceLROnPlateau: the factor does not reduce", got=factor, expected="0 < factor < 1")
        self.factor, self.patience, self.verbose, self.cooldown, self.min_lr = (
            factor,
            patience,
            verbose,
            cooldown,
            min_lr,
        )
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        if logs is not None:
            logs["learning_rate"] = rate
        value = self.value(logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                self.model.optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate reduced to {max(rate * self.factor, self.min_lr):.3g}")


class ModelCheckpoint(MonitorCallback):
    """Saves the model (or its weights) at the end of epochs, or every `save_freq` batches.

    filepath:       may name the epoch and logs: "run/{epoch:02d}-{val_loss:.3f}.keras"
    save_best_only: only when the watched number has become better (than `initial_value_threshold`, at first)
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ArgumentError(
                "ModelCheckpoint: save_freq", got=repr(save_freq), expected="'epoch' or a number of batches"
            )
        self.filepath, self.verbose, self.save_freq = str(filepath), verbose, save_freq
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.best = initial_value_threshold
        self._batches = self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if isinstance(self.save_freq, int):
            self._batches += 1
            if self._batches >= self.save_freq:
                self._batches = 0
                self._save(logs, batch=batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(logs)

    def _save(self, logs: Any, **more: int) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is not None and not self.is_better(value, self.best):
                return
            self.best = value
        try:
            path = Path(self.filepath.format(**{**dict((logs or {}).items()), "epoch": self._epoch + 1, **more}))
        except KeyError as error:
            raise ArgumentError(
                f"ModelCheckpoint: the path names {error}, which is not logged",
                got=self.filepath,
                expected=f"epoch, batch, {', '.join(logs or ())}",
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.model.save_weights if self.save_weights_only else self.model.save)(path, overwrite=True)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: saved {path}")


class TerminateOnNaN(Callback):
    """Ends training when the loss is not a finite number; with `raise_error`, by an error."""

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise HighlevelError(
                "the loss is not a finite number",
                got=f"{loss} after batch {batch + 1}",
                hint="a smaller learning rate, or clipnorm=1.0",
            )
        print(f"Batch {batch + 1}: the loss is {loss}, training ends")
        self.model.stop_training = True


# Rates and files ----------------------------------------------------------------------------------------------------
class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch to `schedule(epoch, rate)` (or `schedule(epoch)`)"""

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule, self.verbose = schedule, verbose
        parameters = inspect.signature(schedule).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._takes_rate = len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        old = float(np.asarray(optimizer.learning_rate))
        rate = self.schedule(epoch, old) if self._takes_rate else self.schedule(epoch)
        optimizer.learning_rate = float(np.asarray(rate))
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {float(np.asarray(rate)):.3g}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))


class CSVLogger(Callback):
    """Writes the logs of each epoch as a row of a file; `append` continues an existing one."""

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.path, self.separator, self.append = Path(filename), separator, append
        self._file: IO[str] | None = None
        self._columns: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._close()
        self._columns = []
        if self.append and self.path.exists():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator), [])
        self._file = self.path.open("a" if self.append else "w", newline="")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._file is None:
            return
        row = {"epoch": epoch, **{name: _as_text(value) for name, value in (logs or {}).items()}}
        if not self._columns:
            self._columns = list(row)
            csv.writer(self._file, delimiter=self.separator).writerow(self._columns)
        writer = csv.DictWriter(self._file, self._columns, "NA", "ignore", delimiter=self.separator)
        writer.writerow(row)
        self._file.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _as_text(value: Any) -> Any:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, Iterable) and not isinstance(value, str) else value
