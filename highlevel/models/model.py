"""`Model`: a layer that can be trained, saved and looked into."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError, HighlevelError, did_you_mean
from highlevel.ir import Setting, Spec, Tensor, as_dtype, tree
from highlevel.ir.operand import Operand
from highlevel.layers import Layer
from highlevel.layers.module import unique_name
from highlevel.training.compiled import leaf_names
from highlevel.training.feeding import explains_keywords
from highlevel.training.memory import MemoryPlan, resized, specs_of
from highlevel.training.trainer import Trainer

from . import surgery
from .functional import CallGraph, match_inputs
from .placeholder import Placeholder


class _Head:
    """The last layer with weights; a subclass may call an attribute so."""

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        return self if model is None else surgery.find_head(model)


class Model(Layer):
    """A network that trains.

    Made from placeholders, `Model(inputs, outputs)`; from a list of layers, `Sequential([…])`; or as a subclass with
    layers as attributes and a `call`. Then `compile`, `fit`, `evaluate`, `predict`, as in Keras.

    inputs, outputs: placeholders, or lists or dictionaries of them

    >>> import highlevel as hl
    >>> x = hl.Input((4,))
    >>> model = hl.Model(x, hl.layers.Dense(2)(x))
    >>> model.predict(np.zeros((3, 4), "float32"), verbose=0).shape
    (3, 2)
    """

    _untracked = Layer._untracked | {
        *("_setting__graph", "_first_call", "_trainer", "history"),
        *("preprocessing", "class_names", "group_patterns", "origin"),
    }
    stop_training = False  # callbacks set it to end `fit`
    history: Any = None  # the `History` of the last `fit`
    _graph: Any = Setting(None)  # a `CallGraph`; a program that ran it is traced anew when it changes
    _trainer: Trainer | None = None
    _first_call: dict[str, Any] | None = None  # placeholders like the arguments that a subclassed model was built with
    preprocessing: Preprocessing | None = None  # how images become its input; saved with it
    class_names: list[str] | None = None  # what its outputs mean; saved with it
    group_patterns: list[str] | None = None  # patterns of layer names, from input to output
    origin: dict[str, Any] | None = None  # where its architecture and weights come from

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if (inputs is None) != (outputs is None):
            raise ArgumentError("Model: give both inputs and outputs, or neither (and write `call`)")
        if inputs is not None:
            self._set_graph(CallGraph.between(inputs, outputs))

    def _set_graph(self, graph: CallGraph) -> None:
        graph.name_layers()
        self._graph = graph
        self.mark_built()

    def build_from(self, bound: inspect.BoundArguments) -> None:
        self._first_call = {
            name: tree.map(_placeholder_like, value)
            for name, value in bound.arguments.items()
            if any(hasattr(leaf, "shape") for leaf in tree.leaves(value))
        }
        super().build_from(bound)

    def __setattr__(self, name: str, value: Any) -> None:
        taken = getattr(type(self), name, None)
        if isinstance(taken, property) and taken.fset is None:
            raise ArgumentError(
                f"{type(self).__name__}: the attribute {name!r} is the model's own", hint="call it otherwise"
            )
        super().__setattr__(name, value)

    # Structure -------------------------------------------------------------------------------------------------------
    @property
    def layers(self) -> list[Layer]:
        """The layers that the model holds directly, in order."""
        return self._graph.layers if self._graph is not None else self.sublayers

    def _members(self) -> Iterator[tuple[str, Any]]:
        found: set[int] = set()
        if self._graph is not None:
            for layer in self._graph.layers:
                found.add(id(layer))
                yield layer.name, layer
        for name, member in super()._members():
            if id(member) not in found:
                yield name, member

    @property
    def inputs(self) -> list[Placeholder]:
        return tree.leaves(self._require_graph("inputs").inputs)

    @property
    def outputs(self) -> list[Placeholder]:
        return tree.leaves(self._require_graph("outputs").outputs)

    @property
    def input(self) -> Any:
        return self._require_graph("input").inputs

    @property
    def output(self) -> Any:
        return self._require_graph("output").outputs

    @property
    def input_shape(self) -> Any:
        return tree.map(lambda placeholder: placeholder.shape, self.input)

    @property
    def output_shape(self) -> Any:
        return tree.map(lambda placeholder: placeholder.shape, self.output)

    @property
    def output_names(self) -> list[str]:
        """A name for each output: the keys of a dictionary, or the layers that make them."""
        if self._graph is None:
            return []
        outputs = self._graph.outputs
        if isinstance(outputs, dict):
            return leaf_names(outputs)
        names: list[str] = []
        for i, call in enumerate(placeholder.call for placeholder in tree.leaves(outputs)):
            name = call.target.name if call and isinstance(call.target, Layer) else f"output_{i}"
            names.append(unique_name(name, set(names)))  # a layer that is called twice makes two outputs
        return names

    def _require_graph(self, what: str) -> CallGraph:
        if self._graph is None:
            raise ArgumentError(
                f"{self.name}: a subclassed model has no {what} until it is called on an Input",
                hint="hl.Model(x, model(x)) with x = hl.Input(…)",
            )
        graph: CallGraph = self._graph
        return graph

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name (or path: "backbone/stage3"), or at that place."""
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ArgumentError(f"{self.name}: there is no layer {index}", expected=f"0…{len(self.layers) - 1}")
            return self.layers[index]
        layer: Layer = self
        for part in str(name).split("/"):
            below = {child.name: child for child in (layer.layers if isinstance(layer, Model) else layer.sublayers)}
            if part not in below:
                raise ArgumentError(f"{layer.name}: there is no layer {part!r}", hint=did_you_mean(part, below))
            layer = below[part]
        return layer

    # Running ---------------------------------------------------------------------------------------------------------
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self._graph is None:
            raise NotImplementedError(f"{type(self).__name__} has neither inputs and outputs nor a `call`")
        return self._graph.run(inputs)

    def check_inputs(self, x: Any) -> None:
        """Raises unless arrays fit the inputs of the model in number, rank and size."""
        if self._graph is not None:
            try:
                match_inputs(self._graph.inputs, x)
            except HighlevelError as error:
                raise error.within(f"{self.name} ({type(self).__name__})") from None

    def _to_operands(self, value: Any) -> Any:
        # Layers cast for themselves: a model hands its inputs on as they came.
        def convert(leaf: Any) -> Any:
            return (
                leaf.read() if isinstance(leaf, Operand) else Tensor.of(leaf) if isinstance(leaf, np.ndarray) else leaf
            )

        return tree.map(convert, value)

    # Training --------------------------------------------------------------------------------------------------------
    @explains_keywords
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        trainer: type[Trainer] = Trainer,
    ) -> None:
        """Chooses how the model is trained.

        optimizer, loss, metrics: names or objects; lists or dictionaries for several outputs
        loss_weights: factors of the outputs' losses
        run_eagerly:  runs step by step, so that values can be printed and breakpoints work
        trainer:      a subclass of `Trainer` with another `train_step`
        """
        self.assign_paths()  # layers may have been part of another model in between
        self._trainer = trainer(
            self,
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
        )

    @property
    def trainer(self) -> Trainer:
        """What trains and runs the model; before `compile`, one that can only predict."""
        if self._trainer is None:
            self._trainer = Trainer(self)
        return self._trainer

    @property
    def optimizer(self) -> Any:
        return self.trainer.optimizer

    @property
    def loss(self) -> Any:
        return self.trainer.loss

    @property
    def metrics(self) -> list[Any]:
        return self.trainer.all_metrics()

    @property
    def metrics_names(self) -> list[str]:
        """The names in logs: the loss, losses of outputs, metrics (which are made in the first step)."""
        return self.trainer.metrics.names

    def reset_metrics(self) -> None:
        """Sets metrics back, for a loop of one's own over `train_on_batch`."""
        self.trainer.metrics.reset()

    def fit(self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1, **options: Any) -> Any:
        """Trains for a number of epochs; see `Trainer.fit` for all arguments. Returns a `History`."""
        return self.trainer.fit(x, y, batch_size=batch_size, epochs=epochs, **options)

    def evaluate(self, x: Any = None, y: Any = None, batch_size: int | None = None, **options: Any) -> Any:
        """The loss and the metrics on data; see `Trainer.evaluate`."""
        return self.trainer.evaluate(x, y, batch_size=batch_size, **options)

    def predict(self, x: Any, batch_size: int | None = None, **options: Any) -> Any:
        """The outputs for data, as NumPy arrays; see `Trainer.predict`."""
        return self.trainer.predict(x, batch_size=batch_size, **options)

    def train_on_batch(self, x: Any, y: Any = None, **options: Any) -> Any:
        """One training step; see `Trainer.train_on_batch`."""
        return self.trainer.train_on_batch(x, y, **options)

    def test_on_batch(self, x: Any, y: Any = None, **options: Any) -> Any:
        """The loss and the metrics on one batch."""
        return self.trainer.test_on_batch(x, y, **options)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        return self.trainer.predict_on_batch(x)

    def memory_plan(self, batch_size: int = 32, training: bool = True, x: Any = None, y: Any = None) -> MemoryPlan:
        """The memory that training, or inference, takes at a batch size, by planning alone: no batch is allocated.

        x, y: arrays or specs like a batch's, where the model does not say what they look like – sizes of inputs that
              are not known, targets of a loss of one's own –; their number of samples does not matter

        `plan.total_bytes`, `plan.activation_bytes` and so on; `plan.largest_batch("2GB")` is the most that fits.
        """
        x = self._input_specs(batch_size) if x is None else resized(specs_of(x), batch_size)
        return self.trainer.memory_plan(x, None if y is None else resized(specs_of(y), batch_size), training=training)

    def _input_specs(self, batch_size: int) -> Any:
        """Specs of a batch, where the model knows its inputs."""

        def spec(placeholder: Placeholder) -> Spec:
            sizes = placeholder.shape[1:]
            if any(size is None for size in sizes):
                raise ArgumentError(
                    f"{self.name}: sizes of an input are not known", got=f"shape {placeholder.shape}",
                    hint=f"memory_plan({batch_size}, x=…) with an array like a batch's",
                )  # fmt: skip
            return Spec((batch_size, *(size for size in sizes if size is not None)), placeholder.dtype)

        return tree.map(spec, self._require_graph("inputs").inputs)

    # Transfer --------------------------------------------------------------------------------------------------------
    def preprocess(self, images: Any) -> np.ndarray:
        """Images – uint8 RGB (batch, height, width, 3), or a list of any sizes – as the network's input."""
        if self.preprocessing is None:
            raise ArgumentError(
                f"{self.name}: the model does not know how its input is prepared",
                hint="model.preprocessing = hl.data.Preprocessing(size=…, mean=…, std=…)",
            )
        return self.preprocessing(images)

    head = _Head()

    def features(self, at: str | Layer | None = None) -> Model:
        """The model up to a layer, or up to what its head sees; layers are shared."""
        return surgery.features(self, at)

    def reset_head(self, num_classes: int, class_names: Sequence[str] | None = None) -> Model:
        """A new head for another number of classes, in place; returns the model."""
        return surgery.reset_head(self, num_classes, class_names)

    def layer_groups(self) -> list[list[Layer]]:
        """Layers with weights in groups from input to output."""
        return surgery.layer_groups(self)

    def freeze_to(self, layer: str | int) -> Model:
        """Freezes all before a layer, or before a group by number (−1: all but the last); returns the model."""
        return surgery.freeze_to(self, layer)

    def _replace_member(self, old: Layer, new: Layer) -> None:
        """Puts a layer in the place of another in the attributes of the model."""
        for name, value in list(self.__dict__.items()):
            if value is old:
                setattr(self, name, new)

    # Looking and keeping ---------------------------------------------------------------------------------------------
    def summary(self, line_length: int | None = None, print_fn: Any = None, show_trainable: bool = False) -> None:
        """Prints the layers, their output shapes and numbers of parameters."""
        from .summary import format_summary

        text = format_summary(self, line_length=line_length, show_trainable=show_trainable)
        (print_fn or print)(text)

    def save(self, path: Any, overwrite: bool = True) -> None:
        """Writes the whole model to a `.keras` file: structure, weights, and how it was compiled."""
        from .saving import save_model

        save_model(self, path, overwrite=overwrite)

    def save_weights(self, path: Any, overwrite: bool = True) -> None:
        """Writes the weights by path, to a `.safetensors`, `.weights.h5` or `.npz` file."""
        from .saving import save_weights

        save_weights(self, path, overwrite=overwrite)

    def load_weights(self, path: Any, strict: bool = True) -> Any:
        """Reads weights by path. All must fit; with `strict=False`, a report says what was loaded."""
        from .saving import load_weights

        return load_weights(self, path, strict=strict)

    def get_config(self) -> dict[str, Any]:
        if self._graph is not None and type(self) is Model:
            from .saving import graph_config

            return graph_config(self)
        return super().get_config()

    @classmethod
    def from_config(cls, config: Any) -> Any:
        if cls is Model:
            from .saving import model_from_graph_config

            return model_from_graph_config(config)
        return super().from_config(config)


def _placeholder_like(leaf: Any) -> Any:
    """A placeholder for an array, of any batch size; anything else as it is."""
    if not hasattr(leaf, "shape"):
        return leaf
    shape = tuple(leaf.shape)
    return Placeholder((None, *shape[1:]) if shape else shape, as_dtype(leaf.dtype))
