"""Cutting and joining functional models: features, new heads, groups of layers, replaced layers.

The layers themselves are shared, so weights stay where they are; only the calls between placeholders are made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import tree
from highlevel.layers import Layer

from .functional import CallGraph
from .placeholder import Call, Key, Placeholder

if TYPE_CHECKING:
    from .model import Model


def find_head(model: Model) -> Layer:
    """The last layer with weights: what decides between classes."""
    graph = model._require_graph("head")
    for layer in reversed(graph.layers):
        if layer.weights:
            return layer
    raise ArgumentError(f"{model.name}: no layer has weights, so there is no head")


def call_of(model: Model, layer: Layer) -> Call:
    """The call of a layer in a model; it must be called once."""
    calls = [call for call in model._require_graph("layers").calls if call.target is layer]
    if len(calls) != 1:
        raise ArgumentError(f"{model.name}: the layer {layer.name!r} is called {len(calls)} times", expected="one call")
    return calls[0]


def features(model: Model, at: str | Layer | None = None, name: str | None = None) -> Model:
    """The part of a model from its inputs to the output of a layer, or – without one – to what its head sees."""
    from .model import Model

    if at is None:
        end: Any = call_of(model, find_head(model)).args[0]
    else:
        end = _output_of(model, at)
    part = Model(model.input, end, name=name or f"{model.name}_features")
    model.assign_paths()  # the layers go on to be called after the model that they come from
    return part


def _output_of(model: Model, at: str | Layer) -> Any:
    """The placeholders that a layer makes; for "body/conv", that the layer makes inside the model "body"."""
    from .model import Model

    first, _, rest = at.partition("/") if isinstance(at, str) else (at, "", "")
    layer = model.get_layer(first) if isinstance(first, str) else first
    call = call_of(model, layer)
    if not rest:
        return tree.unflatten(call.structure, call.outputs)
    if not isinstance(layer, Model) or layer._graph is None:
        raise ArgumentError(
            f"{model.name}: the outputs inside of {first!r} ({type(layer).__name__}) cannot be had",
            expected="a path through functional or sequential models",
        )
    return features(layer, rest)(*call.args)


def replace_layer(model: Model, old: Layer, new: Layer) -> None:
    """Puts another layer in the place of one, in place; what follows is called again."""
    graph = model._require_graph("layers")
    known: dict[Key, Placeholder] = {}

    def current(leaf: Any) -> Any:
        return known.get(leaf.key, leaf) if isinstance(leaf, Placeholder) else leaf

    for call in graph.calls:
        target = new if call.target is old else call.target
        args, kwargs = tree.map(current, call.args), tree.map(current, call.kwargs)
        if target is call.target and all(a is b for a, b in zip(call.inputs, _placeholders(args, kwargs), strict=True)):
            continue
        if isinstance(target, Layer):
            outputs = target(*args, **kwargs)
        else:
            outputs = Placeholder.__highlevel_function__(target, args, kwargs)
        for before, after in zip(call.outputs, tree.leaves(outputs), strict=True):
            known[before.key] = after
    model._replace_member(old, new)
    model._set_graph(CallGraph.between(graph.inputs, tree.map(current, graph.outputs)))
    model._trainer = None  # how it was trained belongs to the model that it was


def _placeholders(args: Any, kwargs: Any) -> list[Placeholder]:
    return [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Placeholder)]


def reset_head(model: Model, num_classes: int, class_names: Sequence[str] | None = None) -> Model:
    """Gives a model a new head with random weights for another number of classes, in place; returns the model."""
    if num_classes < 1:
        raise ArgumentError("reset_head: the number of classes is not positive", got=num_classes)
    if class_names is not None and len(class_names) != num_classes:
        raise ArgumentError("reset_head: one name per class", got=len(class_names), expected=num_classes)
    old = find_head(model)
    config = old.get_config()
    size = "units" if "units" in config else "filters" if "filters" in config else None
    if size is None:
        raise ArgumentError(
            f"{model.name}: the head {old.name!r} ({type(old).__name__}) has no number of outputs to change",
            expected="a Dense or a convolution as the last layer with weights",
        )
    config[size] = num_classes
    new = type(old).from_config(config)
    new.trainable = True
    replace_layer(model, old, new)
    model.class_names = list(class_names) if class_names is not None else None
    return model


def layer_groups(model: Model) -> list[list[Layer]]:
    """Layers with weights in groups from input to output: by the model's own patterns, or one group per layer.

    Patterns that fit no layer give no group; a layer that fits no pattern joins the group of the layer before it.
    """
    layers = [layer for layer in model.layers if layer.weights]
    patterns = model.group_patterns
    if not patterns:
        return [[layer] for layer in layers]
    groups: list[list[Layer]] = [[] for _ in patterns]
    last = 0
    for layer in layers:
        last = next((i for i, pattern in enumerate(patterns) if fnmatchcase(layer.name, pattern)), last)
        groups[last].append(layer)
    return [group for group in groups if group]


def freeze_to(model: Model, layer: str | int) -> Model:
    """Freezes everything before a layer (by name) or before a group (by number; −1 is the last) and trains the rest."""
    if isinstance(layer, int):
        groups = layer_groups(model)
        if not -len(groups) <= layer < len(groups):
            raise ArgumentError(
                f"{model.name}: there is no group {layer}", expected=f"0…{len(groups) - 1}, or from the end"
            )
        first = groups[layer][0]
    else:
        first = model.get_layer(layer)
    layers = model.layers
    position = next((i for i, candidate in enumerate(layers) if candidate is first), None)
    if position is None:
        raise ArgumentError(
            f"{model.name}: {layer!r} is not one of its own layers", hint=did_you_mean(layer, [x.name for x in layers])
        )
    model.trainable = True  # first, for it sets all layers
    for i, candidate in enumerate(layers):
        (candidate.freeze if i < position else candidate.unfreeze)()
    return model
