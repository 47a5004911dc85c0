"""Progress: a calm bar on a terminal, one line per epoch everywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

from .callback import Callback

REFRESH_SECONDS = 0.1


def is_interactive(file: Any) -> bool:
    """Whether a bar can be drawn in place: on a terminal or in a notebook."""
    return bool(getattr(file, "isatty", lambda: False)()) or type(file).__module__.startswith("ipykernel")


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(0.0123), duration(7.26), duration(95), duration(7320)
    ('12 ms', '7.3 s', '1 min 35 s', '2 h 2 min')
    """
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe(logs: Any) -> str:
    """The numbers of the logs in one line.

    >>> describe({"loss": 0.123456, "learning_rate": 1e-5})
    'loss 0.1235, learning_rate 1e-05'
    """
    parts = []
    for name, value in logs.items():
        parts.append(f"{name} {value:.4g}" if isinstance(value, (float, int)) else f"{name} {value}")
    return ", ".join(parts)


class ProgressBar(Callback):
    """Shows how far training is, the running means of loss and metrics, and the time left.

    verbose: 0 nothing; 1 or "auto" a bar (drawn at most ten times a second) where one can be; 2 one line per epoch
    file:    where to write; by default the standard output
    """

    def __init__(self, verbose: int | str = "auto", file: Any = None) -> None:
        super().__init__()
        self.verbose = 1 if verbose == "auto" else int(verbose)
        self.file = file
        self._bar: Any = None
        self._training = False
        self._first_epoch: int | None = None
        self._epoch = self._pending = 0
        self._started = self._stage_started = self._drawn = 0.0

    # Stages ---------------------------------------------------------------------------------------------------------
    def on_train_begin(self, logs: Any = None) -> None:
        self._training, self._first_epoch = True, None
        self._started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first_epoch = epoch if self._first_epoch is None else self._first_epoch
        self._epoch = epoch
        self._open(self._title(), self.params.get("steps"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._close()
        means = dict((logs or {}).items())
        validation = {name.removeprefix("val_"): means.pop(name) for name in list(means) if name.startswith("val_")}
        rate = {name: means.pop(name) for name in list(means) if name == "learning_rate"}
        parts = [f"{self._title()}: {duration(time.perf_counter() - self._stage_started)}"]
        if means:
            parts.append(f"running mean: {describe(means)}")
        if validation:
            parts.append(f"validation: {describe(validation)}")
        if rate:
            parts.append(describe(rate))
        left = self._time_left(epoch)
        if left is not None:
            parts.append(f"{duration(left)} left")
        self._write(" – ".join(parts))

    def on_train_end(self, logs: Any = None) -> None:
        self._close()
        self._training = False

    def on_test_begin(self, logs: Any = None) -> None:
        if self._training:
            self._close()
            self._bar = self._make_bar("validation", None)
        else:
            self._open("evaluate", self.params.get("steps"))

    def on_test_end(self, logs: Any = None) -> None:
        self._close()
        if not self._training:
            self._write(f"evaluate: {duration(time.perf_counter() - self._stage_started)} – {describe(logs or {})}")

    def on_predict_begin(self, logs: Any = None) -> None:
        self._open("predict", self.params.get("steps"))

    def on_predict_end(self, logs: Any = None) -> None:
        self._close()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(logs)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(None)

    # Drawing --------------------------------------------------------------------------------------------------------
    def _title(self) -> str:
        epochs = self.params.get("epochs")
        return f"Epoch {self._epoch + 1}/{epochs}" if epochs else f"Epoch {self._epoch + 1}"

    def _open(self, title: str, steps: int | None) -> None:
        self._stage_started = time.perf_counter()
        self._bar = self._make_bar(title, steps)

    def _make_bar(self, title: str, steps: int | None) -> Any:
        self._pending = 0
        self._drawn = time.perf_counter()
        file = self.file or sys.stdout
        if self.verbose != 1 or not is_interactive(file):
            return None
        from tqdm import tqdm

        form = "{desc} {bar:20} {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
        if steps is None:
            form = "{desc} {n_fmt} {elapsed}{postfix}"
        return tqdm(
            desc=title,
            total=steps,
            file=file,
            leave=False,
            bar_format=form,
            mininterval=0,
            miniters=1,
            dynamic_ncols=True,
        )

    def _advance(self, logs: Any) -> None:
        if self._bar is None:
            return
        self._pending += 1
        now = time.perf_counter()
        if now - self._drawn < REFRESH_SECONDS:
            return
        if logs:
            self._bar.set_postfix_str(f"running mean: {describe(logs)}", refresh=False)
        self._drawn = now
        self._bar.update(self._pending)
        self._pending = 0

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _time_left(self, epoch: int) -> float | None:
        epochs = self.params.get("epochs")
        if not epochs or self._first_epoch is None or epoch + 1 >= epochs:
            return None
        elapsed = time.perf_counter() - self._started
        return elapsed / (epoch + 1 - self._first_epoch) * float(epochs - epoch - 1)

    def _write(self, line: str) -> None:
        if self.verbose:
            print(line, file=self.file or sys.stdout, flush=True)
