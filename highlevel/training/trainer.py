"""`Trainer`: the loop. One training step is one compiled program; Python only hands batches over and reads results
late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from highlevel import random
from highlevel.data.loader import ArrayLoader, Batch, Loader, arrays_of, count_samples, make_loader
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import Compiled, Tensor, as_dtype, tree
from highlevel.layers import Layer
from highlevel.layers.base import collect_losses
from highlevel.layers.shapes import OpenSpec, infer

from . import optimizers
from .callbacks import CallbackList, History
from .compiled import Logs, LossSet, MetricSet
from .validation import split_validation


class Trainer:
    """Trains, evaluates and runs a model (anything that is a layer).

    A subclass may have another `train_step`; give it to `model.compile(..., trainer=…)`.
    """

    def __init__(
        self,
        model: Layer,
        *,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
    ) -> None:
        self.model = model
        self.optimizer = optimizers.get(optimizer) if optimizer is not None else None
        self.loss = loss
        self.losses = LossSet(loss, loss_weights)
        self.metrics = MetricSet(metrics, weighted_metrics)
        self.run_eagerly = run_eagerly
        self._train = Compiled(self._train_function, eager=run_eagerly)
        self._test = Compiled(self._test_function, eager=run_eagerly)
        self._predict = Compiled(self._predict_function, eager=run_eagerly)
        self._output_specs: Any = None

    # Steps -----------------------------------------------------------------------------------------------------------
    def train_step(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        """One step of training, traced once per signature; returns results by name. The one method to override."""
        with collect_losses() as added:
            prediction = self.model(x, training=True)
        loss, terms = self.compute_loss(y, prediction, weight, added)
        self.optimizer.minimize(loss, self.model.trainable_variables)
        return self.metrics.update(y, prediction, weight, self.output_names(prediction), loss, terms)

    def test_step(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        """The losses and metrics of one batch."""
        with collect_losses() as added:
            prediction = self.model(x, training=False)
        loss, terms = self.compute_loss(y, prediction, weight, added)
        return self.metrics.update(y, prediction, weight, self.output_names(prediction), loss, terms)

    def compute_loss(
        self, y: Any, prediction: Any, weight: Any, added: Sequence[Any] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """The number to minimize – losses of outputs, regularizers, losses added by layers – and the outputs' own by
        name.
        """
        total, terms = self.losses(y, prediction, weight, self.output_names(prediction))
        for variable in self.model.trainable_variables:
            if variable.regularizer is not None:
                total = total + variable.regularizer(variable.value)
        for term in added:
            total = total + term
        return total, terms

    def output_names(self, outputs: Any) -> list[str]:
        names = getattr(self.model, "output_names", None)
        count = len(tree.leaves(outputs))
        if names and len(names) == count:
            return list(names)
        return sorted(outputs) if isinstance(outputs, dict) else [f"output_{i}" for i in range(count)]

    def _train_function(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        return self.train_step(x, y, weight)

    def _test_function(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        return self.test_step(x, y, weight)

    def _predict_function(self, x: Any) -> Any:
        return self.model(x, training=False)

    # Loops -----------------------------------------------------------------------------------------------------------
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Iterable[Any] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        split: str = "tail",
        seed: int | None = None,
    ) -> History:
        """Trains the model.

        x, y:      arrays (trees of them for several inputs or outputs), or `x` alone: an iterable of batches (x, y[,
        weight])
        batch_size: samples per step (32); the last batch of an epoch may be smaller
        epochs:    passes through the data; counting starts at `initial_epoch`
        verbose:   0 silent, 1 a bar, 2 a line per epoch; "auto" is 1
        validation_split: the part of the data that is held out for validation: the last samples, as in Keras, or – with
                   `split="stratified"` – the same part of each class
        validation_data:  (x, y[, weight]) or an iterable of batches
        class_weight:     weight of the samples of each class
        seed:      of the shuffling; by default drawn from the global seed (`hl.set_random_seed`)

        Returns a `History`: `history.history["loss"]` and so on hold one number per epoch.
        """
        self._require_compiled("fit")
        if validation_split:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split, split)
        loader = make_loader(
            x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, seed=_draw_seed(seed), steps=steps_per_epoch
        )
        validation = _validation_loader(validation_data, validation_batch_size or batch_size, validation_steps)
        self._prepare(loader, validation)
        callback_list = CallbackList(
            callbacks, model=self.model, verbose=verbose, epochs=epochs, steps=loader.steps, add_history=True
        )
        self.model.stop_training = False
        callback_list.on_train_begin()
        logs: dict[str, Any] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                logs = self._run_epoch(epoch, loader, callback_list, class_weight)
                if validation is not None and (epoch + 1) % validation_freq == 0:
                    found = self._run_test(validation, callback_list)
                    logs.update({f"val_{name}": value for name, value in found.items()})
                callback_list.on_epoch_end(epoch, logs)
                if self.model.stop_training:
                    break
        finally:
            callback_list.on_train_end(logs)
        return callback_list.history

    def _run_epoch(
        self, epoch: int, loader: Loader, callbacks: CallbackList, class_weight: Mapping[int, float] | None
    ) -> dict[str, Any]:
        self.metrics.reset()
        callbacks.on_epoch_begin(epoch)
        logs = Logs()
        step = -1
        for step, batch in enumerate(loader):
            callbacks.on_train_batch_begin(step)
            x, y, weight = self._weighted(batch, class_weight)
            logs = self.metrics.ordered(self._train(x, y, weight))
            callbacks.on_train_batch_end(step, logs)
            if self.model.stop_training:
                break
        if step < 0:
            raise ArgumentError("there are no batches", got="an iterable that ended before its first batch")
        return logs.as_floats()

    def _run_test(self, loader: Loader, callbacks: CallbackList) -> dict[str, float]:
        self.metrics.reset()
        callbacks.on_test_begin()
        logs = Logs()
        for step, batch in enumerate(loader):
            callbacks.on_test_batch_begin(step)
            x, y, weight = self._weighted(batch, None)
            logs = self.metrics.ordered(self._test(x, y, weight))
            callbacks.on_test_batch_end(step, logs)
        found = logs.as_floats()
        callbacks.on_test_end(found)
        return found

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Iterable[Any] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on data, each batch in inference mode.

        Returns the loss alone, a list (loss, metrics…), or with `return_dict` a dictionary.
        """
        self._require_compiled("evaluate", needs_optimizer=False)
        loader = make_loader(x, y, sample_weight, batch_size=batch_size, steps=steps)
        self._prepare(loader)
        callback_list = CallbackList(
            callbacks, model=self.model, verbose=verbose, epochs=1, steps=loader.steps, add_history=False
        )
        found = self._run_test(loader, callback_list)
        if return_dict:
            return found
        values = list(found.values())
        return values[0] if len(values) == 1 else values

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Iterable[Any] | None = None,
    ) -> Any:
        """The outputs for data in inference mode, as NumPy arrays in the order of the data.

        Rows are independent in inference, so a short batch is filled up to a size that has a program already.
        """
        loader = make_loader(x, batch_size=batch_size, steps=steps)
        self._check_built(loader)
        single = isinstance(loader, ArrayLoader) and loader.steps == 1
        callback_list = CallbackList(
            callbacks, model=self.model, verbose=0 if single and verbose == "auto" else verbose, epochs=1,
            steps=loader.steps, add_history=False,
        )  # fmt: skip
        collected: list[list[np.ndarray]] = []
        structure: Any = None
        callback_list.on_predict_begin()
        for step, batch in enumerate(loader):
            callback_list.on_predict_batch_begin(step)
            rows = len(tree.leaves(batch.x)[0])
            full = loader.batch_size if isinstance(loader, ArrayLoader) else rows
            outputs = self._predict(_fill_up(batch.x, rows, full))
            leaves, structure = tree.flatten(outputs)
            collected.append([_rows(leaf, rows) for leaf in leaves])
            callback_list.on_predict_batch_end(step)
        callback_list.on_predict_end()
        if not collected:
            raise ArgumentError("there are no batches", got="an iterable that ended before its first batch")
        return tree.unflatten(structure, [np.concatenate(column) for column in zip(*collected, strict=True)])

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step of training; metrics go on from where they are."""
        self._require_compiled("train_on_batch")
        batch = self._single_batch(x, y, sample_weight, class_weight)
        return _results(self.metrics.ordered(self._train(*batch)).as_floats(), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and the metrics of one batch."""
        self._require_compiled("test_on_batch", needs_optimizer=False)
        batch = self._single_batch(x, y, sample_weight, None)
        return _results(self.metrics.ordered(self._test(*batch)).as_floats(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as NumPy arrays."""
        return tree.map(lambda leaf: leaf.numpy().copy(), self._predict(arrays_of(x, "x")))

    def all_metrics(self) -> list[Any]:
        return list(self.metrics)

    # Checks ----------------------------------------------------------------------------------------------------------
    def _require_compiled(self, what: str, needs_optimizer: bool = True) -> None:
        if (self.loss is None and self.optimizer is None) or (needs_optimizer and self.optimizer is None):
            raise ArgumentError(
                f"{what}: the model is not compiled", hint='model.compile(optimizer="adam", loss=…, metrics=[…]) first'
            )

    def _single_batch(self, x: Any, y: Any, weight: Any, class_weight: Any) -> tuple[Any, Any, Any]:
        batch = Batch(arrays_of(x, "x"), arrays_of(y, "y"), arrays_of(weight, "sample_weight"))
        count_samples(x=batch.x, y=batch.y, sample_weight=batch.weight)
        self._check_batch(batch)
        return self._weighted(batch, class_weight, check=False)

    def _prepare(self, *loaders: Loader | None) -> None:
        """Builds the model and looks at the targets in memory, before anything runs."""
        for loader in loaders:
            if isinstance(loader, ArrayLoader):
                self._check_batch(Batch(loader.x, loader.y, loader.weight))

    def _check_built(self, loader: Loader) -> None:
        if isinstance(loader, ArrayLoader):
            self.output_specs(loader.x)

    def _check_batch(self, batch: Batch) -> None:
        specs = self.output_specs(batch.x)
        names = self.output_names(specs)
        if batch.y is None and self.loss is not None and not isinstance(self.loss, dict):
            raise ArgumentError("there are no targets", got="y=None", expected=f"y for the loss {self.loss!r}")
        if batch.y is not None:
            self.losses.check(batch.y, specs, names)

    def output_specs(self, x: Any) -> Any:
        """Specs of the outputs for such inputs, with None for the batch size; builds the model. Nothing is computed."""
        leaves, structure = tree.flatten(x)
        specs = [OpenSpec((None, *leaf.shape[1:]), as_dtype(leaf.dtype)) for leaf in leaves]
        key = tuple((spec.shape, spec.dtype) for spec in specs)
        if hasattr(self.model, "check_inputs"):
            self.model.check_inputs(x)
        if self._output_specs is None or self._output_specs[0] != key:
            with collect_losses():
                found = infer(lambda *symbols: self.model(tree.unflatten(structure, symbols), training=False), specs)
            self._output_specs = key, found
        return self._output_specs[1]

    def _weighted(self, batch: Batch, class_weight: Any, check: bool = True) -> tuple[Any, Any, Any]:
        """The batch, with the weights of classes multiplied into those of samples."""
        if class_weight is None or batch.y is None:
            return batch.x, batch.y, batch.weight
        weights = class_weights(batch.y, class_weight)
        return batch.x, batch.y, weights if batch.weight is None else weights * batch.weight


def class_weights(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    """The weight of each sample from its class: labels (N,) or (N, 1), or one-hot (N, classes)."""
    leaves = tree.leaves(y)
    if len(leaves) != 1:
        raise ArgumentError(
            "class_weight needs a single output", got=f"{len(leaves)} outputs", hint="use sample_weight"
        )
    labels = np.asarray(leaves[0])
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    labels = labels.reshape(labels.shape[0], -1)[:, 0] if labels.ndim > 1 and labels.shape[-1] == 1 else labels
    present = {int(label) for label in np.unique(labels)}
    unknown = [key for key in class_weight if not isinstance(key, (int, np.integer))]
    missing = sorted(present - set(class_weight))
    if unknown or missing:
        raise ArgumentError(
            "class_weight does not fit the labels",
            got=f"keys {sorted(class_weight, key=str)}",
            expected=f"a weight for each class: {sorted(present)}",
            hint=did_you_mean(unknown[0], present) if unknown else None,
        )
    table = np.array([class_weight.get(label, 1.0) for label in range(max(present) + 1)], dtype="float32")
    return table[labels.astype(np.int64)]


def _results(found: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return found
    values = list(found.values())
    return values[0] if len(values) == 1 else values


def _fill_up(x: Any, rows: int, full: int) -> Any:
    """The batch with its last row repeated, up to the full batch or the next power of two, whichever is smaller."""
    target = min(full, 1 << max(rows - 1, 0).bit_length())
    if target <= rows:
        return x
    return tree.map(lambda a: np.concatenate([a, np.repeat(a[-1:], target - rows, axis=0)]), x)


def _rows(output: Tensor, rows: int) -> np.ndarray:
    return output.numpy()[:rows].copy() if output.ndim else output.numpy().copy()[None]


def _draw_seed(seed: int | None) -> int:
    return random.draw_seed() if seed is None else seed


def _validation_loader(data: Any, batch_size: int | None, steps: int | None) -> Loader | None:
    if data is None:
        return None
    if isinstance(data, tuple) and len(data) in (2, 3):
        return make_loader(*data, batch_size=batch_size, steps=steps)
    return make_loader(data, batch_size=batch_size, steps=steps)
