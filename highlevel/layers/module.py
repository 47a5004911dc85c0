"""`Module`: something that holds variables and other modules – what layers, models and cells have in common.

A module finds its variables and sub-layers in its own attributes (also in lists, tuples and dictionaries), so there is
nothing to register. Sub-layers that have no name of their own are called by the attribute that holds them, and a
variable's path is the names on the way to it – the same in every process, whatever else was built before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from highlevel.errors import ArgumentError, WeightsError
from highlevel.ir import Setting, Variable
from highlevel.serialization import Configurable, snake_case

M = TypeVar("M", bound="Module")


class Module(Configurable):
    """A named tree of variables.

    name:      unique among its siblings; given by the attribute or model that holds the module if None
    trainable: whether optimizers update the weights in it; takes effect at once
    """

    trainable = Setting(True)
    built = False
    _name: str | None = None
    _path: str | None = None
    _untracked = frozenset({"_config", "_weights_made"})  # attributes that are not looked into

    def __init__(self, name: str | None = None, trainable: bool = True) -> None:
        if name is not None and (not isinstance(name, str) or "/" in name or name in ("", ".", "..")):
            raise ArgumentError(
                f"{type(self).__name__}: a name cannot be {name!r}",
                expected='a string without "/", as it is a part of paths',
            )
        self._name = name
        self.trainable = trainable

    @property
    def name(self) -> str:
        return self._name or snake_case(type(self).__name__)

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def path(self) -> str:
        """The names on the way to this layer, from the model down."""
        return self._path or self.name

    # What it holds ---------------------------------------------------------------------------------------------------
    def own(self, variable: Variable) -> Variable:
        """Takes up a variable that was made for this module."""
        self.__dict__.setdefault("_weights_made", []).append(variable)
        variable.path = f"{self.path}/{variable.name}"
        return variable

    def _members(self) -> Iterator[tuple[str, Any]]:
        """(attribute, value) of each variable and sub-layer that the layer holds, each once, in order of creation."""
        seen: set[int] = {id(self)}

        def walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
            if type(value) in _PLAIN:
                return  # most attributes are: models are walked with every trace
            if isinstance(value, (Module, Variable)) or _holds_variables(value):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield name, value
            elif isinstance(value, (list, tuple)):
                for index, item in enumerate(value):
                    yield from walk(f"{name}_{index}", item)
            elif isinstance(value, dict):
                for key, item in value.items():
                    yield from walk(f"{name}_{key}", item)

        for variable in self.__dict__.get("_weights_made", ()):
            yield from walk(variable.name, variable)
        for name, value in self.__dict__.items():
            if name not in self._untracked:
                yield from walk(name, value)

    @property
    def sublayers(self) -> list[Any]:
        """The layers that this one holds directly."""
        return [member for _, member in self._members() if isinstance(member, Module)]

    def walk_layers(self) -> Iterator[Any]:
        """This layer and all below it, each once, outer before inner."""
        seen: set[int] = set()
        stack: list[Any] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) not in seen:
                seen.add(id(layer))
                yield layer
                stack.extend(reversed(layer.sublayers))

    def _walk_variables(self, trainable: bool = True) -> Iterator[tuple[Variable, bool]]:
        """(variable, whether it and all layers on the way to it are trainable), the layer's own variables first."""
        active = trainable and self.trainable
        members = list(self._members())
        for _, member in members:
            if isinstance(member, Variable):
                yield member, active and member.trainable
            elif not isinstance(member, Module):
                for variable in member.variables:
                    yield variable, False
        for _, member in members:
            if isinstance(member, Module):
                yield from member._walk_variables(active)

    def _all_variables(self) -> list[tuple[Variable, bool]]:
        found: dict[int, tuple[Variable, bool]] = {}
        for variable, trainable in self._walk_variables():
            before = found.get(id(variable))
            found[id(variable)] = variable, trainable or (before is not None and before[1])
        return list(found.values())

    @property
    def variables(self) -> list[Variable]:
        """All state: weights, and the states of random generators."""
        return [variable for variable, _ in self._all_variables()]

    @property
    def weights(self) -> list[Variable]:
        """All state but that of random generators."""
        return [variable for variable in self.variables if "seed" not in variable.tags]

    @property
    def trainable_variables(self) -> list[Variable]:
        return [variable for variable, trainable in self._all_variables() if trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [variable for variable, trainable in self._all_variables() if not trainable]

    @property
    def trainable_weights(self) -> list[Variable]:
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [variable for variable in self.non_trainable_variables if "seed" not in variable.tags]

    def count_params(self) -> int:
        return sum(variable.size for variable in self.weights)

    def freeze(self: M) -> M:
        """Stops training this layer and all below it; returns the layer."""
        for layer in self.walk_layers():
            layer.trainable = False
        return self

    def unfreeze(self: M) -> M:
        """Trains this layer and all below it again; returns the layer."""
        for layer in self.walk_layers():
            layer.trainable = True
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable" and not isinstance(value, bool):
            value = bool(value)
        if (
            name == "trainable"
            and self.__dict__.get("_config") is not None
            and value != self.__dict__.get("_setting_trainable", True)
        ):
            for layer in list(self.walk_layers())[1:]:
                layer.trainable = value
        object.__setattr__(self, name, value)
        if isinstance(value, Variable) and value.name == "variable":
            value.name = name.lstrip("_")
        if isinstance(value, (Module, list, tuple, dict)) and name not in self._untracked:
            self._adopt(name, value)

    def _adopt(self, name: str, value: Any) -> None:
        """Gives sub-layers without a name that of the attribute."""
        if isinstance(value, Module):
            if value._name is None:
                value._name = name.lstrip("_")
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self._adopt(f"{name}_{index}", item)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._adopt(f"{name}_{key}", item)

    def assign_paths(self, prefix: str = "") -> None:
        """Writes the path of every variable and sub-layer below this one."""
        self._path = f"{prefix}{self.name}"
        taken: set[str] = set()
        for attribute, member in self._members():
            if isinstance(member, Module):
                if member._name is None:
                    member._name = attribute.lstrip("_")
                if member.name in taken:
                    member._name = unique_name(member.name, taken)
                taken.add(member.name)
                member.assign_paths(f"{self._path}/")
            elif isinstance(member, Variable):
                if member.name == "variable":
                    member.name = attribute.lstrip("_")
                name = unique_name(member.name, taken)
                taken.add(name)
                member.path = f"{self._path}/{name}"
            else:
                for variable in member.variables:
                    variable.path = f"{self._path}/{attribute.lstrip('_')}/{variable.name}"

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, in the order of `weights`."""
        return [variable.numpy().copy() for variable in self.weights]

    def set_weights(self, weights: Iterable[Any]) -> None:
        """Sets all weights; the number and every shape must fit."""
        arrays, targets = [np.asarray(weight) for weight in weights], self.weights
        if len(arrays) != len(targets):
            raise WeightsError(
                f"{self.name}: wrong number of weights", got=len(arrays), expected=len(targets), layer=self.path,
                hint=None if self.built else "build the layer first, by calling it or with build(input_shape)",
            )  # fmt: skip
        for variable, array in zip(targets, arrays, strict=True):
            if variable.shape != array.shape:
                raise WeightsError(
                    f"{self.name}: a weight of another shape",
                    got=f"{array.shape} for {variable.path}",
                    expected=variable.shape,
                )
        for variable, array in zip(targets, arrays, strict=True):
            variable.assign(array)


_PLAIN = frozenset({type(None), bool, int, float, str})


def _holds_variables(value: Any) -> bool:
    """Whether it is a random generator or a metric: something with variables that is not a layer."""
    return isinstance(getattr(type(value), "variables", None), property) or type(value).__name__ == "SeedGenerator"


def unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken."""
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
