"""`Trainer`: the loop. One training step is one compiled program; Python hands batches over and reads results late."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from highlevel.data.loader import ArrayLoader, Batch, Loader, arrays_of, count_samples, make_loader
from highlevel.errors import ArgumentError, MemoryLimitError
from highlevel.ir import Compiled, Graph, as_dtype, trace, tree
from highlevel.ir.variable import epoch
from highlevel.layers import Layer
from highlevel.layers.base import collect_losses
from highlevel.layers.shapes import OpenSpec, infer

from . import optimizers
from .callbacks import CallbackList, History
from .compiled import Logs, LossSet, MetricSet, leaf_names
from .feeding import (
    arrays_in,
    check_passes,
    data_or_specs,
    draw_seed,
    explains_keywords,
    fill_up,
    filled_size,
    is_one_batch,
    no_batches,
    results_of,
    rows_of,
    validation_loader,
    weakly,
)
from .memory import MemoryPlan, batch_that_fits, parse_bytes, plan_memory, specs_of, target_specs
from .validation import class_weights, combine_weights, split_validation


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
        self._train = self._training_program({})
        self._test = Compiled(weakly(self._test_function), eager=run_eagerly)
        self._predict = Compiled(weakly(self._predict_function), eager=run_eagerly)
        self._limited: dict[int, Compiled] = {}
        self._output_specs: Any = None
        self._seen: Any = None  # what was looked at last: inputs of these shapes, while all settings are the same
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
        with trace.scope("loss"):
            loss, terms = self.compute_loss(y, prediction, weight, added)
        with trace.scope("optimizer"):
            self.optimizer.minimize(loss, self.model.trainable_variables)
        with trace.scope("metrics"):
            return self.metrics.update(y, prediction, weight, self.output_names(prediction), loss, terms)

    def test_step(self, x: Any, y: Any, weight: Any) -> dict[str, Any]:
        """The losses and metrics of one batch."""
        with collect_losses() as added:
            prediction = self.model(x, training=False)
        with trace.scope("loss"):
            loss, terms = self.compute_loss(y, prediction, weight, added)
        with trace.scope("metrics"):
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

    def _training_program(self, options: dict[str, Any]) -> Compiled:
        return Compiled(weakly(self._train_function), options=options, eager=self.run_eagerly)

    # Looking at programs ---------------------------------------------------------------------------------------------
    def program(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Compiled, tuple[Any, ...]]:
        """What runs for such data – specs may stand for arrays –, and its arguments: inference for x, else training."""
        if y is None:
            return self._predict, (data_or_specs(x, "x"),)
        self._require_compiled("a program of training")
        named = {"x": x, "y": y, "sample_weight": sample_weight}
        return self._train, tuple(data_or_specs(part, name) for name, part in named.items())

    def traced(self, batch: tuple[Any, Any, Any], training: bool) -> Graph:
        """The graph of a step for a batch of specs. Metrics, which come to be with the first step, are left alone."""
        if not training:
            return self._predict.traced(batch[0])
        metrics, self.metrics = self.metrics, MetricSet(self.metrics.requested, self.metrics.requested_weighted)
        try:
            return self._train.traced(*batch)
        finally:
            self.metrics = metrics

    def memory_plan(self, x: Any, y: Any = None, weight: Any = None, training: bool = True) -> MemoryPlan:
        """The memory that a step takes for a batch like this – of arrays or specs –; nothing is run."""
        x = specs_of(x)
        if training:
            self._require_compiled("a plan of training")
            if y is None and self.loss is not None:
                leaves, structure = tree.flatten(x)
                outputs = infer(lambda *symbols: self.model(tree.unflatten(structure, symbols), training=False), leaves)
                y = target_specs(self.losses, outputs, self.output_names(outputs))
        batch = (x, None if y is None else specs_of(y), None if weight is None else specs_of(weight))
        return plan_memory(self, batch, training)

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
        memory_limit: int | str | None = None,
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
        memory_limit: the most that a step may take – bytes, or text such as "2GB" – with weights, optimizer and batch.
                   To stay below it, a step computes values again rather than keep them, no more of them than it takes;
                   results stay the same to the bit. Where that is too little, an error says so before anything runs,
                   and names the largest batch size that fits. It is a matter of the machine, not of the model: so it
                   is said here, not in `compile`

        Returns a `History`: `history.history["loss"]` and so on hold one number per epoch.
        """
        self._require_compiled("fit")
        if validation_split:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split, split)
        loader = make_loader(
            x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, seed=draw_seed(seed), steps=steps_per_epoch,
            goes_on=True,
        )  # fmt: skip
        validation = validation_loader(validation_data, validation_batch_size or batch_size, validation_steps)
        check_passes(loader, epochs - initial_epoch, "steps_per_epoch")
        check_passes(validation, (epochs - initial_epoch) // validation_freq, "validation_steps")
        self._prepare(loader, validation)
        train = self._train if memory_limit is None else self._within(parse_bytes(memory_limit))
        callback_list = CallbackList(
            callbacks, model=self.model, verbose=verbose, epochs=epochs, steps=loader.steps, add_history=True
        )
        self.model.stop_training = False
        callback_list.on_train_begin()
        logs: dict[str, Any] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                logs, steps = self._run_epoch(epoch, loader, callback_list, class_weight, train)
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

    def _within(self, limit_bytes: int) -> Callable[..., Any]:
        """A step of training that takes no more than so much memory."""
        if limit_bytes not in self._limited:
            self._limited[limit_bytes] = self._training_program({"memory_limit": limit_bytes})
        program = self._limited[limit_bytes]

        def step(x: Any, y: Any, weight: Any) -> Any:
            try:
                return program(x, y, weight)
            except MemoryLimitError as error:
                batch = tuple(None if part is None else specs_of(part) for part in (x, y, weight))
                raise batch_that_fits(self, batch, error, program.options) from None

        return step

    def _run_epoch(
        self,
        epoch: int,
        loader: Loader,
        callbacks: CallbackList,
        class_weight: Mapping[int, float] | None,
        train: Callable[..., Any],
    ) -> tuple[dict[str, Any], int]:
        """The results of an epoch, and how many steps it had: 0 if the data have come to an end before."""
        self.metrics.reset()
        callbacks.on_epoch_begin(epoch)
        logs = Logs()
        step = -1
        for step, batch in enumerate(self._batches(loader)):
            callbacks.on_train_batch_begin(step)
            x, y, weight = self._weighted(batch, class_weight)
            logs = self.metrics.ordered(train(x, y, weight))
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
        size = 32 if batch_size is None else batch_size
        if callbacks is None and steps is None and verbose in ("auto", 0) and is_one_batch(x, size):
            self.output_specs(x)
            arrays, shape = self._predict_rows(x, len(x), filled_size(len(x), size))
            return tree.unflatten(shape, arrays)
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
            leaves, structure = self._predict_rows(batch.x, rows, full)
            collected.append(leaves)
            callback_list.on_predict_batch_end(step)
        callback_list.on_predict_end()
        if not collected:
            raise no_batches()
        return tree.unflatten(structure, [np.concatenate(column) for column in zip(*collected, strict=True)])

    def _predict_rows(self, x: Any, rows: int, full: int) -> tuple[list[np.ndarray], Any]:
        """The outputs for a batch that is filled up to a number of rows, as arrays, and their structure."""
        leaves, structure = tree.flatten(self._predict(fill_up(x, full) if full > rows else x))
        if full > rows and any(leaf.shape[:1] != (full,) for leaf in leaves):
            leaves, full = tree.leaves(self._predict(x)), rows
        return [rows_of(leaf, rows if full > rows else None) for leaf in leaves], structure

    @explains_keywords
    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step of training; metrics go on from where they are."""
        self._require_compiled("train_on_batch")
        batch = self._single_batch(x, y, sample_weight, class_weight)
        return results_of(self.metrics.ordered(self._train(*batch)).as_floats(), return_dict)

    @explains_keywords
    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and the metrics of one batch."""
        self._require_compiled("test_on_batch", needs_optimizer=False)
        batch = self._single_batch(x, y, sample_weight, None)
        return results_of(self.metrics.ordered(self._test(*batch)).as_floats(), return_dict)

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
            arrays = arrays_in(loader)
            if arrays is not None:
                self._check_batch(Batch(arrays.x, arrays.y, arrays.weight))

    def _batches(self, loader: Loader) -> Iterator[Batch]:
        """The batches of an epoch; what has not been seen as a whole is looked at batch by batch."""
        seen = arrays_in(loader) is not None
        for batch in loader:
            if not seen:
                count_samples(x=batch.x, y=batch.y, sample_weight=batch.weight)
                self._check_batch(batch)
            yield batch

    def _check_built(self, loader: Loader) -> None:
        arrays = arrays_in(loader)
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
        seen = structure, [(leaf.shape, leaf.dtype) for leaf in leaves], epoch()
        if seen == self._seen:
            return self._output_specs[1]
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
        self._seen = seen
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
