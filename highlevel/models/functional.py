"""The graph of calls of a functional model: which layers run on what, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from highlevel.errors import ArgumentError, ShapeError, did_you_mean
from highlevel.ir import tree
from highlevel.layers import Layer
from highlevel.layers.module import unique_name
from highlevel.serialization import snake_case

from .placeholder import Call, Key, Placeholder


@dataclass(frozen=True, slots=True, eq=False)
class CallGraph:
    """Placeholders in, placeholders out, and the calls in between, in the order in which they were made."""

    inputs: Any
    outputs: Any
    calls: tuple[Call, ...]

    @classmethod
    def between(cls, inputs: Any, outputs: Any) -> CallGraph:
        """The calls that lead from `inputs` to `outputs`: trees of placeholders, also inside another model."""
        starts, ends = tree.leaves(inputs), tree.leaves(outputs)
        for leaf in (*starts, *ends):
            if not isinstance(leaf, Placeholder):
                raise ArgumentError(
                    "Model: inputs and outputs are placeholders",
                    got=type(leaf).__name__,
                    expected="results of Input(…), and of layers called on them",
                )
        known = {start.key for start in starts}
        found: dict[int, Call] = {}
        stack = [end for end in ends if end.key not in known]
        while stack:
            placeholder = stack.pop()
            call = placeholder.call
            if call is None:
                raise ArgumentError(
                    "Model: an output depends on something that is not an input",
                    got=repr(placeholder),
                    expected="every Input on the way to the outputs in `inputs`",
                )
            if call.serial not in found:
                found[call.serial] = call
                stack.extend(source for source in call.inputs if source.key not in known)
        return cls(inputs, outputs, tuple(found[serial] for serial in sorted(found)))

    @property
    def layers(self) -> list[Layer]:
        """The layers that are called, each once, in the order of their first call."""
        return list({id(call.target): call.target for call in self.calls if isinstance(call.target, Layer)}.values())

    def name_layers(self) -> None:
        """Gives every layer a name of its own: those without one are called after their class, in order."""
        taken: set[str] = set()
        for layer in self.layers:
            if layer._name is not None and layer._name in taken:
                raise ArgumentError(
                    f"two layers of the model are called {layer._name!r}", hint="give one of them another name="
                )
            taken.add(layer._name or "")
        for layer in self.layers:
            if layer._name is None:
                layer._name = unique_name(snake_case(type(layer).__name__), taken)
                taken.add(layer._name)

    def run(self, inputs: Any, **context: Any) -> Any:
        """The outputs for arrays in place of the inputs (a tree of the inputs' structure).

        Whole numbers are cast where an input was declared to be floating-point.
        """
        values: dict[Key, Any] = {}
        for placeholder, value in zip(tree.leaves(self.inputs), match_inputs(self.inputs, inputs), strict=True):
            cast = placeholder.dtype.is_float and not value.dtype.is_float
            values[placeholder.key] = value.astype(placeholder.dtype) if cast else value
        for call in self.calls:
            results = tree.leaves(call.run(values, **context))
            values.update(zip((output.key for output in call.outputs), results, strict=True))
        return tree.map(lambda placeholder: values[placeholder.key], self.outputs)


def input_names(inputs: Any) -> list[str]:
    """Names of the inputs: their own, the keys of a dictionary, or input, input_1, …"""
    if isinstance(inputs, dict):
        return list(inputs)
    names: set[str] = set()
    result = []
    for placeholder in tree.leaves(inputs):
        name = unique_name(placeholder.name or "input", names)
        names.add(name)
        result.append(name)
    return result


def match_inputs(inputs: Any, values: Any) -> list[Any]:
    """Arrays in the order of the model's inputs, for one array, a list, or a dictionary by name; checks shapes."""
    placeholders = tree.leaves(inputs)
    if isinstance(values, dict) and not isinstance(inputs, dict):
        names = input_names(inputs)
        missing = [name for name in names if name not in values]
        if missing:
            raise ArgumentError(f"input {missing[0]!r} is missing", got=sorted(values), expected=names)
        leaves = [values[name] for name in names]
    elif isinstance(inputs, dict) and isinstance(values, Mapping):
        unknown = [key for key in values if key not in inputs]
        absent = [key for key in inputs if key not in values]
        if absent:
            raise ArgumentError(
                f"input {absent[0]!r} is missing", got=sorted(values), expected=sorted(inputs),
                hint=did_you_mean(unknown[0], inputs) if unknown else None,
            )  # fmt: skip
        leaves = tree.leaves({key: values[key] for key in inputs})
    else:
        leaves = tree.leaves(values)
    if len(leaves) != len(placeholders):
        raise ArgumentError(
            "the model was called with another number of inputs", got=len(leaves), expected=_describe(placeholders)
        )
    for leaf, placeholder in zip(leaves, placeholders, strict=True):
        check_input(leaf, placeholder)
    return leaves


def _describe(placeholders: Iterable[Placeholder]) -> str:
    return ", ".join(f"{p.name or 'input'} {p.shape}" for p in placeholders)


def check_input(value: Any, placeholder: Placeholder) -> None:
    shape, wanted = tuple(value.shape), placeholder.shape
    if len(shape) == len(wanted) and all(w is None or n is None or n == w for n, w in zip(shape, wanted, strict=True)):
        return
    hint = None
    if len(shape) + 1 == len(wanted):
        hint = (
            "one sample has no batch axis: x[None]"
            if shape == wanted[1:]
            else "is an axis missing? x[..., None] adds the last"
        )
    elif len(shape) == len(wanted) == 4 and shape[1] == wanted[3]:
        hint = "channels come last here: np.moveaxis(x, 1, -1)"
    raise ShapeError(
        "an input does not fit the model",
        got=f"shape {shape}",
        expected=f"{placeholder.name or 'input'} of shape {wanted} (None: any size)",
        hint=hint,
    )
