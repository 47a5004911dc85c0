"""Callbacks: what happens beside training. Hooks are called by `fit`, `evaluate` and `predict`.

    on_train_begin(logs)   on_epoch_begin(epoch, logs)   on_train_batch_begin(batch, logs)
    on_train_end(logs)     on_epoch_end(epoch, logs)     on_train_batch_end(batch, logs)

and, except for epochs, the same with `test` and `predict`.

`logs` maps names ("loss", "val_accuracy") to numbers, which are fetched from the device when they are read. During
an epoch they are running means. `self.model` and `self.params` ("epochs", "steps", "verbose") are set before
training begins.
"""

from __future__ import annotations

import weakref
from typing import Any

HOOKS = tuple(
    [f"on_{stage}_{end}" for stage in ("train", "test", "predict", "epoch") for end in ("begin", "end")]
    + [f"on_{stage}_batch_{end}" for stage in ("train", "test", "predict") for end in ("begin", "end")]
)


class Callback:
    """Base of callbacks: override the hooks that matter. Set `self.model.stop_training = True` to end training."""

    params: dict[str, Any]
    _model: Any = None

    def __init__(self) -> None:
        self.params = {}

    @property
    def model(self) -> Any:
        """The model that is being trained; a callback does not keep it alive."""
        return None if self._model is None else self._model()

    def set_model(self, model: Any) -> None:
        self._model = None if model is None else weakref.ref(model)

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Any = None) -> None: ...
    def on_train_end(self, logs: Any = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...
    def on_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Any = None) -> None: ...
    def on_test_end(self, logs: Any = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Any = None) -> None: ...
    def on_predict_begin(self, logs: Any = None) -> None: ...
    def on_predict_end(self, logs: Any = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None: ...


_EMPTY = {name: getattr(Callback, name) for name in HOOKS}
_BATCH_ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


def overrides(callback: Callback, name: str) -> bool:
    """Whether a callback has a hook of its own."""
    alias = _BATCH_ALIASES.get(name)
    own = getattr(getattr(callback, name), "__func__", None) is not _EMPTY[name]
    return own or (alias is not None and getattr(type(callback), alias) is not getattr(Callback, alias))
