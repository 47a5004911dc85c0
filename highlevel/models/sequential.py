"""`Sequential`: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from highlevel.errors import ArgumentError
from highlevel.layers import InputLayer, Layer
from highlevel.layers.module import unique_name
from highlevel.serialization import deserialize, serialize, snake_case

from .functional import CallGraph
from .model import Model
from .placeholder import Input, Placeholder


class Sequential(Model):
    """Layers, each fed with the output of the one before.

    layers: the layers; the first may be an `Input`. Without one the model is built when it first sees data.

    >>> import highlevel as hl
    >>> model = hl.Sequential([hl.Input((784,)), hl.layers.Dense(10)])
    >>> model.output_shape
    (None, 10)
    """

    _untracked = Model._untracked | {"_stack", "_input"}
    _stack: list[Layer]

    def __init__(
        self, layers: Iterable[Any] = (), *, name: str | None = None, trainable: bool = True, dtype: Any = None
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self._stack = []
        self._input: Placeholder | None = None
        for layer in layers or ():
            self._push(layer)
        self._rebuild()

    def add(self, layer: Any) -> None:
        """Adds a layer at the end. A compiled model has to be compiled again."""
        self._push(layer)
        self._rebuild()
        self._trainer = None

    def pop(self) -> Layer:
        """Takes the last layer away and returns it. A compiled model has to be compiled again."""
        if not self._stack:
            raise ArgumentError(f"{self.name}: there is no layer to take away")
        layer = self._stack.pop()
        self._rebuild()
        self._trainer = None
        return layer

    def _replace_member(self, old: Layer, new: Layer) -> None:
        self._stack = [new if layer is old else layer for layer in self._stack]
        super()._replace_member(old, new)

    def _push(self, layer: Any) -> None:
        if isinstance(layer, InputLayer):
            layer = Input(batch_shape=layer.batch_shape, dtype=layer.input_dtype, name=layer._name)
        if isinstance(layer, Placeholder):
            if self._stack or self._input is not None:
                raise ArgumentError(f"{self.name}: an Input can only come first")
            self._input = layer
            return
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"{self.name}: not a layer", got=repr(layer), expected="layers, the first of which may be an Input",
                hint="a class needs brackets: Flatten()" if isinstance(layer, type) else None,
            )  # fmt: skip
        if any(layer is other for other in self._stack):
            raise ArgumentError(
                f"{self.name}: the layer {layer.name!r} is there already",
                hint="share layers with Model(inputs, outputs)",
            )
        if not self._stack and self._input is None and getattr(layer, "input_shape_argument", None) is not None:
            self._input = Input(layer.input_shape_argument)
        self._stack.append(layer)

    def _rebuild(self) -> None:
        taken: set[str] = set()
        for layer in self._stack:
            if layer._name is not None:
                if layer._name in taken:
                    raise ArgumentError(
                        f"two layers of the model are called {layer._name!r}", hint="give one another name="
                    )
                taken.add(layer._name)
        for layer in self._stack:
            if layer._name is None:
                layer._name = unique_name(snake_case(type(layer).__name__), taken)
                taken.add(layer._name)
        self._graph = None
        self.built = False
        if self._input is not None and self._stack:
            x: Any = self._input
            for layer in self._stack:
                x = layer(x)
            self._set_graph(CallGraph.between(self._input, x))

    @property
    def layers(self) -> list[Layer]:
        return list(self._stack)

    def _members(self) -> Any:
        for layer in self._stack:
            yield layer.name, layer

    def build(self, input_shape: Any = None, dtype: Any = None) -> None:
        """Builds all layers for inputs of that shape (batch axis included)."""
        if input_shape is not None and self._input is None and self._stack:
            self._input = Input(batch_shape=(None, *input_shape[1:]), dtype=dtype)
            self._rebuild()

    def build_from(self, bound: Any) -> None:
        first = next(iter(bound.arguments.values()))
        if isinstance(first, (list, tuple, dict)):
            raise ArgumentError(
                f"{self.name}: a Sequential has one input", got=type(first).__name__, hint="use Model(inputs, outputs)"
            )
        self.build(first.shape, first.dtype)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self._graph is not None:
            return super().call(inputs, training=training, mask=mask)
        for layer in self._stack:
            inputs = layer(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        if type(self).__init__ is not Sequential.__init__:
            return Layer.get_config(self)  # a subclass makes its layers itself
        config: dict[str, Any] = {"name": self.name, "trainable": bool(self.trainable)}
        if self._policy is not None:
            config["dtype"] = self._policy.name
        config["layers"] = [serialize(layer) for layer in self._stack]
        if self._input is not None:
            config["build_input_shape"] = list(self._input.shape)
            config["input_dtype"] = self._input.dtype.name
        return config

    @classmethod
    def from_config(cls, config: Any) -> Any:
        if cls.__init__ is not Sequential.__init__:
            return super().from_config(config)
        layers: list[Any] = [deserialize(item, kind="layer") for item in config["layers"]]
        if config.get("build_input_shape"):
            layers.insert(0, Input(batch_shape=tuple(config["build_input_shape"]), dtype=config.get("input_dtype")))
        return cls(layers, name=config.get("name"), trainable=config.get("trainable", True), dtype=config.get("dtype"))
