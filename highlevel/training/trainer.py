"""`Trainer`: the loop. One training step is one compiled program; Python hands batches over and reads results late."""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from highlevel import random
from highlevel.data.loader import ArrayLoader, Batch, IterableLoader, Loader, arrays_of, count_samples, make_loader
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import Compiled, Tensor, as_dtype, tree
from highlevel.ir.variable import epoch
from highlevel.layers import Layer
from highlevel.layers.base import collect_losses
from highlevel.layers.shapes import OpenSpec, infer

from . import optimizers
from .callbacks import CallbackList, History
from .compiled import Logs, LossSet, MetricSet, leaf_names
from .validation import class_weights, combine_weights, split_validation

F = TypeVar("F", bound=Callable[..., Any])


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, for its own object to keep: it does not keep the object alive in turn."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        found = reference()
        assert found is not None
        return found(*args)

    return call


def explains_keywords(method: F) -> F:
    """Makes a misspelt keyword an error that suggests the right one."""
    names = list(inspect.signature(method).parameters)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for keyword in kwargs:
            if keyword not in names:
                raise ArgumentError(
                    f"{method.__name__}: unknown argument {keyword!r}",
                    got=f"{keyword}={kwargs[keyword]!r}"[:80],
                    expected=f"arguments of {method.__name__}",
                    hint=did_you_mean(keyword, names[1:]),
                )
        return method(*args, **kwargs)

    return cast(F, wrapped)


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
        self._model = weakref.ref(model)  # the model holds its trainer, not the other way round
        self.optimizer: Any = optimizers.get(optimizer) if optimizer is not None else None
        self.loss = loss
        self.losses = LossSet(loss, loss_weights)
        self.metrics = MetricSet(metrics, weighted_metrics)
        self.run_eagerly = run_eagerly
        self._train = Compiled(_weakly(self._train_function), eager=run_eagerly)
        self._test = Compiled(_weakly(self._test_function), eager=run_eagerly)
        self._predict = Compiled(_weakly(self._predict_function), eager=run_eagerly)
        self._output_specs: Any = None
        self._structure: tuple[int, list[Any]] = 0, []

    @property
    def model(self) -> Any:
        """What is trained."""
        model = self._model()
        if model is None:
            raise ArgumentError("the model of this trainer no longer exists", hint="keep a reference to the model")
        return model

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
        """The number to minimize – losses of outputs, regularizers, layers' own – and the outputs' by name."""
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
        return leaf_names(outputs)

    def _train_function(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        self.model.assign_paths()  # rates go by path, and layers may have been part of another model in between
        return self.train_step(x, y, weight)

    def _test_function(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        return self.test_step(x, y, weight)

    def _predict_function(self, x: Any) -> Any:
        return self.model(x, training=False)

    # Loops -----------------------------------------------------------------------------------------------------------
    @explains_keywords
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
            x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, seed=_draw_seed(seed), steps=steps_per_epoch,
            goes_on=True,
        )  # fmt: skip
        validation = _validation_loader(validation_data, validation_batch_size or batch_size, validation_steps)
        check_passes(loader, epochs - initial_epoch, "steps_per_epoch")
        check_passes(validation, (epochs - initial_epoch) // validation_freq, "validation_steps")
        self._prepare(loader, validation)
        callback_list = CallbackList(
            callbacks, model=self.model, verbose=verbose, epochs=epochs, steps=loader.steps, add_history=True
        )
        self.model.stop_training = False
        callback_list.on_train_begin()
        logs: dict[str, Any] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                logs, steps = self._run_epoch(epoch, loader, callback_list, class_weight)
                if not steps and loader.steps is None:
                    raise no_batches()
                if not steps:
                    break
                if validation is not None and (epoch + 1) % validation_freq == 0:
                    found = self._run_test(validation, callback_list)
                    logs.update({f"val_{name}": value for name, value in found.items()})
                callback_list.on_epoch_end(epoch, logs)
                if self.model.stop_training:
                    break
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
        finally:
            callback_list.on_train_end(logs)
        assert callback_list.history is not None
        return callback_list.history

    def _run_epoch(
        self, epoch: int, loader: Loader, callbacks: CallbackList, class_weight: Mapping[int, float] | None
    ) -> tuple[dict[str, Any], int]:
        """The results of an epoch, and how many steps it had: 0 if the data have come to an end before."""
        self.metrics.reset()
        callbacks.on_epoch_begin(epoch)
        logs = Logs()
        step = -1
        for step, batch in enumerate(self._batches(loader)):
            callbacks.on_train_batch_begin(step)
            x, y, weight = self._weighted(batch, class_weight)
            logs = self.metrics.ordered(self._train(x, y, weight))
            callbacks.on_train_batch_end(step, logs)
            if self.model.stop_training:
                break
        if loader.steps is not None and step + 1 < loader.steps and not self.model.stop_training:
            warnings.warn(
                f"the data ended after {step + 1} of {loader.steps} batches of epoch {epoch + 1}", stacklevel=5
            )
        return logs.as_floats(), step + 1

    def _run_test(self, loader: Loader, callbacks: CallbackList) -> dict[str, float]:
        self.metrics.reset()
        callbacks.on_test_begin()
        logs = Logs()
        for step, batch in enumerate(self._batches(loader)):
            callbacks.on_test_batch_begin(step)
            logs = self.metrics.ordered(self._test(batch.x, batch.y, batch.weight))
            callbacks.on_test_batch_end(step, logs)
        if not logs:
            raise no_batches()
        found = logs.as_floats()
        callbacks.on_test_end(found)
        return found

    @explains_keywords
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

    @explains_keywords
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Iterable[Any] | None = None,
    ) -> Any:
        """The outputs for data in inference mode, as NumPy arrays in the order of the data.

        Rows are independent in inference, so a short batch is filled up to a size that has a program already. Where
        outputs do not have one row per sample, it is not.
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
            full = filled_size(rows, loader.batch_size) if isinstance(loader, ArrayLoader) else rows
            leaves, structure = tree.flatten(self._predict(_fill_up(batch.x, full)))
            if full > rows and any(leaf.shape[:1] != (full,) for leaf in leaves):
                leaves, full = tree.leaves(self._predict(batch.x)), rows
            collected.append([_rows(leaf, rows if full > rows else None) for leaf in leaves])
            callback_list.on_predict_batch_end(step)
        callback_list.on_predict_end()
        if not collected:
            raise no_batches()
        return tree.unflatten(structure, [np.concatenate(column) for column in zip(*collected, strict=True)])

    @explains_keywords
    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step of training; metrics go on from where they are."""
        self._require_compiled("train_on_batch")
        batch = self._single_batch(x, y, sample_weight, class_weight)
        return _results(self.metrics.ordered(self._train(*batch)).as_floats(), return_dict)

    @explains_keywords
    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and the metrics of one batch."""
        self._require_compiled("test_on_batch", needs_optimizer=False)
        batch = self._single_batch(x, y, sample_weight, None)
        return _results(self.metrics.ordered(self._test(*batch)).as_floats(), return_dict)

    @explains_keywords
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
        return self._weighted(batch, class_weight)

    def _prepare(self, *loaders: Loader | None) -> None:
        """Builds the model and looks at the targets in memory, before anything runs."""
        for loader in loaders:
            arrays = _arrays_in(loader)
            if arrays is not None:
                self._check_batch(Batch(arrays.x, arrays.y, arrays.weight))

    def _batches(self, loader: Loader) -> Iterator[Batch]:
        """The batches of an epoch; what has not been seen as a whole is looked at batch by batch."""
        seen = _arrays_in(loader) is not None
        for batch in loader:
            if not seen:
                count_samples(x=batch.x, y=batch.y, sample_weight=batch.weight)
                self._check_batch(batch)
            yield batch

    def _check_built(self, loader: Loader) -> None:
        arrays = _arrays_in(loader)
        if arrays is not None:
            self.output_specs(arrays.x)

    def _check_batch(self, batch: Batch) -> None:
        specs = self.output_specs(batch.x)
        if self.loss is None:
            return
        if batch.y is not None:
            self.losses.check(batch.y, specs, self.output_names(specs))
        elif not isinstance(self.loss, dict):
            raise ArgumentError("there are no targets", got="y=None", expected=f"y for the loss {self.loss!r}")

    def output_specs(self, x: Any) -> Any:
        """Specs of the outputs for such inputs, with None for the batch size; builds the model. Nothing is computed."""
        leaves, structure = tree.flatten(x)
        specs = [OpenSpec((None, *leaf.shape[1:]), as_dtype(leaf.dtype)) for leaf in leaves]
        key = (structure, tuple((spec.shape, spec.dtype) for spec in specs))
        if hasattr(self.model, "check_inputs"):
            self.model.check_inputs(x)
        if self._output_specs is None or self._output_specs[0] != key or not self._same_structure():
            with collect_losses():
                found = self._run_one_row(x) if self.run_eagerly else infer(
                    lambda *symbols: self.model(tree.unflatten(structure, symbols), training=False), specs
                )  # fmt: skip
            self._output_specs = key, found
            self._structure = epoch(), self._graphs()
        return self._output_specs[1]

    def _run_one_row(self, x: Any) -> Any:
        """Specs of the outputs by computing them: a model that runs step by step may look at values."""
        outputs = self.model(tree.map(lambda array: array[:1], x), training=False)
        return tree.map(lambda output: OpenSpec((None, *output.shape[1:]), output.dtype), outputs)

    def _same_structure(self) -> bool:
        """Whether the model and those inside of it consist of the same calls as at the last look."""
        now, (then, graphs) = epoch(), self._structure
        if now != then:
            if self._graphs() != graphs:
                return False
            self._structure = now, graphs
        return True

    def _graphs(self) -> list[Any]:
        return [getattr(layer, "_graph", None) for layer in self.model.walk_layers()]

    def _weighted(self, batch: Batch, class_weight: Any) -> tuple[Any, Any, Any]:
        """The batch, with the weights of classes multiplied into those of samples."""
        if class_weight is None or batch.y is None:
            return batch.x, batch.y, batch.weight
        specs = self.output_specs(batch.x)
        targets, outputs = tree.leaves(batch.y), tree.leaves(specs)
        if len(targets) != 1 or len(outputs) != 1:
            raise ArgumentError(
                "class_weight needs a single output", got=f"{len(outputs)} outputs", hint="use sample_weight"
            )
        loss = self.losses.resolved(specs, self.output_names(specs))[0][0]
        weights = class_weights(np.asarray(targets[0]), class_weight, loss, len(outputs[0].shape))
        return batch.x, batch.y, combine_weights(weights, batch.weight)


def _results(found: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return found
    values = list(found.values())
    return values[0] if len(values) == 1 else values


def filled_size(rows: int, batch_size: int) -> int:
    """The rows that a short batch is filled up to: the next power of two, or the full batch if that is less."""
    return max(rows, min(batch_size, 1 << max(rows - 1, 0).bit_length()))


def _fill_up(x: Any, size: int) -> Any:
    """The batch with its last row repeated up to a size."""

    def fill(array: np.ndarray) -> np.ndarray:
        missing = size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    return tree.map(fill, x)


def _rows(output: Tensor, rows: int | None) -> np.ndarray:
    return output.numpy()[:rows].copy() if output.ndim else output.numpy().copy()[None]


def _arrays_in(loader: Loader | None) -> ArrayLoader | None:
    """The arrays in memory that a loader gives batches of, if that is what it does."""
    source = loader.source if isinstance(loader, IterableLoader) else loader
    return source if isinstance(source, ArrayLoader) else None


def check_passes(loader: Loader | None, passes: int, argument: str) -> None:
    """Raises if an iterator, which ends after one pass, shall give several."""
    if isinstance(loader, IterableLoader) and not loader.restarts and loader.steps is None and passes > 1:
        raise ArgumentError(
            f"an iterator can be passed through once, and there are {passes} epochs",
            got=type(loader.source).__name__,
            expected=f"{argument}, for an iterator without end; or something that can be iterated over again",
        )


def no_batches() -> ArgumentError:
    return ArgumentError("there are no batches", got="an iterable that ended before its first batch")


def _draw_seed(seed: int | None) -> int:
    return random.draw_seed() if seed is None else seed


def _validation_loader(data: Any, batch_size: int | None, steps: int | None) -> Loader | None:
    if data is None:
        return None
    if isinstance(data, (tuple, list)) and len(data) in (2, 3) and not any(isinstance(part, tuple) for part in data):
        return make_loader(*data, batch_size=batch_size, steps=steps)
    return make_loader(data, batch_size=batch_size, steps=steps)
