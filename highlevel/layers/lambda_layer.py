"""A function as a layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from highlevel import activations
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ops.registry import OPS, function_named
from highlevel.serialization import FUNCTIONS, from_data, to_data

from .base import Layer, shapes_of

_OPS = "ops."  # how a file names a function of `ops`


class Lambda(Layer):
    """A function of the inputs as a layer.

    A file holds the name of the function, never its code: a model with this layer can be saved if the function is one
    of `ops`, of `activations`, or registered with `@hl.register_serializable()`, and read where it is registered.

    Arguments:
        function: called with the inputs and `arguments`, and with `mask` and `training` if it has such parameters;
            written with `ops`; also the name of a function of `ops` ("ops.exp") or of an activation
        output_shape: shape of the outputs without the batch, or a function from the inputs' shape to the outputs';
            need not be given, and is checked if it is
        mask: the mask of the outputs, or a function (inputs, mask) that makes it; none if None
        arguments: further arguments of the function, by name

    Input shape and output shape: up to the function

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Lambda(lambda x, power: x**power, arguments={"power": 3})(np.float32([1.0, 2.0])).tolist()
    [1.0, 8.0]
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        output_shape: Any = None,
        mask: Any = None,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.function = _function(self, function)
        self.output_shape = output_shape if callable(output_shape) or output_shape is None else tuple(output_shape)
        self.mask = mask
        self.supports_masking = mask is not None
        self.arguments = dict(arguments or {})
        try:
            self._parameters = frozenset(inspect.signature(self.function).parameters)
        except ValueError:  # a built-in function that does not say
            self._parameters = frozenset()

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        given = {"mask": mask, "training": training}
        known = {name: value for name, value in given.items() if name in self._parameters}
        outputs = self.function(inputs, **{**known, **self.arguments})
        if self.output_shape is not None:
            self._check_output(shapes_of(inputs), shapes_of(outputs))
        return outputs

    def _check_output(self, inputs: Any, outputs: Any) -> None:
        if callable(self.output_shape):
            expected = self.output_shape(inputs)
        else:
            expected = (outputs[0] if outputs else None, *self.output_shape)
        fits = len(outputs) == len(expected) and all(
            wanted in (None, size) for size, wanted in zip(outputs, expected, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"{self.name}: the function does not return what output_shape says",
                got=f"shape {outputs}",
                expected=f"shape {tuple(expected)}",
                hint="leave output_shape out: it is found by itself",
            )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.mask(inputs, previous_mask) if callable(self.mask) else self.mask

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as data, with functions by name."""
        given = self._config
        named = {key: _named(value) if callable(value) else value for key, value in given.items()}
        self.__dict__["_config"] = named
        try:
            return super().get_config()
        finally:
            self.__dict__["_config"] = given

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A layer like the one described. Functions are looked up by name; code in a file is not read."""
        found = {key: _from_description(key, value) for key, value in config.items()}
        return super().from_config(found)


def _function(layer: Layer, function: Any) -> Any:
    if isinstance(function, str):
        if function.startswith(_OPS):
            return function_named(function.removeprefix(_OPS))
        return activations.get(function)
    if not callable(function):
        raise ArgumentError(f"{layer.name}: not a function", got=repr(function), expected="a function of the inputs")
    return function


def _named(function: Callable[..., Any]) -> Any:
    name = next((name for name, known in OPS.items() if known is function), None)
    return to_data(function) if name is None else f"{_OPS}{name}"


def _from_description(argument: str, value: Any) -> Any:
    """Descriptions of functions made into these; anything else as it is."""
    if not isinstance(value, Mapping) or value.get("class_name") not in ("function", "__function__", "__lambda__"):
        return value
    if value["class_name"] == "__lambda__":
        raise ArgumentError(
            "Lambda: the description holds code, which is not run",
            got=f"{argument} as the bytes of a Python function",
            expected="the name of a function",
            hint="write the model anew with a function registered by @hl.register_serializable(), or a Layer",
        )
    names = [value.get("registered_name"), value["config"]]
    known = FUNCTIONS.get("custom", {})
    return from_data({"class_name": "__function__", "config": next((n for n in names if n in known), value["config"])})
