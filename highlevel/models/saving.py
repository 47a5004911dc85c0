"""Models and weights as files.

A `.keras` file holds the structure (descriptions of layers, and the calls between them), the weights by path, how the
model was compiled, and the state of its optimizer. It is data: classes and operators are looked up by name in the
closed registry. Weights are keyed by their path inside the model, `block/conv/kernel`, never by a counter.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError, FormatError, WeightsError, did_you_mean
from highlevel.ir import Variable, tree
from highlevel.layers import Layer
from highlevel.ops.registry import function_named
from highlevel.serialization import CLASSES, FUNCTIONS, deserialize, from_data, serialize, to_data
from highlevel.training.trainer import Trainer

from .placeholder import Input, Key, Placeholder

if TYPE_CHECKING:
    from .model import Model

VERSION = 1
_OPTIMIZER = ".optimizer/"  # where a .keras file keeps the optimizer's state, beside the weights


# Weights by path -----------------------------------------------------------------------------------------------------
def weights_by_path(model: Layer) -> dict[str, Variable]:
    """The variables of a model, keyed by their path inside it."""
    if not model.built:
        raise WeightsError(
            f"{model.name} is not built, so it has no weights yet",
            hint="call it on data once, or start it with an Input",
        )
    model.assign_paths()
    prefix = f"{model.name}/"
    found: dict[str, Variable] = {}
    for variable in model.variables:
        path = variable.path.removeprefix(prefix)
        if path in found:
            raise WeightsError(
                f"{model.name}: two variables have the path {path!r}", hint="give the layers distinct names"
            )
        found[path] = variable
    return found


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading did: paths that were loaded, that the file lacks, that the model lacks, of another shape."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.missing) + len(self.mismatched)} weights"]
        for title, rows in (
            ("not in the file", self.missing),
            ("not in the model", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            if rows:
                lines.append(
                    f"  {title}: {', '.join(rows[:4])}" + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")
                )
        return "\n".join(lines)


def assign_weights(
    model: Layer, arrays: Mapping[str, Any], *, strict: bool = True, source: str = "the weights"
) -> LoadReport:
    """Sets variables by path. All fit, or – unless `strict` is False – nothing is changed and an error says why."""
    targets = weights_by_path(model)
    wanted = {path: variable for path, variable in targets.items() if "seed" not in variable.tags or path in arrays}
    mismatched = [
        f"{path} {np.shape(arrays[path])} for {variable.shape}"
        for path, variable in wanted.items()
        if path in arrays and tuple(np.shape(arrays[path])) != variable.shape
    ]
    bad = {row.split(" ")[0] for row in mismatched}
    loaded = [path for path in wanted if path in arrays and path not in bad]
    report = LoadReport(
        tuple(loaded),
        tuple(path for path in wanted if path not in arrays),
        tuple(path for path in arrays if path not in targets),
        tuple(mismatched),
    )
    if (not loaded and (wanted or arrays)) or (strict and (report.missing or report.unexpected or report.mismatched)):
        near = did_you_mean(report.missing[0], report.unexpected) if report.missing and report.unexpected else None
        raise WeightsError(
            f"{model.name}: {source} do not fit the model",
            got=str(report),
            expected="every weight of the model, and no other, of its shape",
            hint="strict=False loads what fits and reports the rest" if loaded else near,
        )
    for path in loaded:
        wanted[path].assign(np.asarray(arrays[path]).astype(wanted[path].dtype.numpy))
    return report


def save_weights(model: Layer, path: Any, overwrite: bool = True) -> None:
    """Writes the weights to a file whose ending says the format: .safetensors, .weights.h5, .h5 or .npz."""
    target = _writable(path, overwrite)
    arrays = {name: variable.numpy() for name, variable in weights_by_path(model).items()}
    if target.suffix == ".safetensors":
        from highlevel.formats import safetensors

        safetensors.write(target, arrays, {"format": "highlevel", "version": str(VERSION)})
    elif target.suffix == ".h5":
        from highlevel.formats import hdf5

        hdf5.write(target, arrays, {"": {"format": "highlevel", "version": str(VERSION)}})
    elif target.suffix == ".npz":
        from highlevel.formats import npz

        npz.write(target, arrays)
    else:
        raise _unknown_format(target)


def read_weights(path: Any) -> dict[str, np.ndarray]:
    """The arrays of a weights file (or of a `.keras` file) by path."""
    source = Path(path)
    if source.suffix == ".safetensors":
        from highlevel.formats import safetensors

        return dict(safetensors.read(source)[0])
    if source.suffix == ".h5":
        from highlevel.formats import hdf5

        return dict(hdf5.read(source).arrays)
    if source.suffix == ".npz":
        from highlevel.formats import npz

        return dict(npz.read(source))
    if source.suffix == ".keras":
        from highlevel.formats import keras_archive

        weights = keras_archive.read(source).weights
        return {name: array for name, array in weights.items() if not name.startswith(_OPTIMIZER)}
    raise _unknown_format(source)


def load_weights(model: Layer, path: Any, strict: bool = True) -> LoadReport:
    """Reads weights by path into a model."""
    return assign_weights(model, read_weights(path), strict=strict, source=f"the weights in {Path(path).name}")


def _unknown_format(path: Path) -> ArgumentError:
    return ArgumentError(
        f"{path.name}: the ending does not say a format of weights",
        expected=".safetensors, .weights.h5, .npz or .keras",
    )


def _writable(path: Any, overwrite: bool) -> Path:
    target = Path(path)
    if target.exists() and not overwrite:
        raise ArgumentError(f"{target} exists already", hint="overwrite=True")
    if not target.parent.is_dir():
        raise ArgumentError(f"there is no folder {target.parent}", hint="create it first")
    return target


# Structure -----------------------------------------------------------------------------------------------------------
def graph_config(model: Model) -> dict[str, Any]:
    """A functional model as data: its layers, and the calls between its inputs and outputs."""
    graph = model._require_graph("graph")
    numbers: dict[Key, int] = {}
    for placeholder in tree.leaves(graph.inputs):
        numbers[placeholder.key] = len(numbers)
    calls = []
    for call in graph.calls:
        target = {"layer": call.target.name} if isinstance(call.target, Layer) else {"op": call.target}
        args, kwargs = _encode(call.args, numbers), _encode(call.kwargs, numbers)
        for placeholder in call.outputs:
            numbers[placeholder.key] = len(numbers)
        calls.append({**target, "args": args, "kwargs": kwargs, "outputs": [numbers[p.key] for p in call.outputs]})
    return {
        "name": model.name,
        "trainable": bool(model.trainable),
        "layers": [serialize(layer) for layer in graph.layers],
        "inputs": [_describe_input(placeholder) for placeholder in tree.leaves(graph.inputs)],
        "input_structure": _encode(graph.inputs, numbers),
        "calls": calls,
        "outputs": _encode(graph.outputs, numbers),
    }


def _describe_input(placeholder: Placeholder) -> dict[str, Any]:
    return {"shape": list(placeholder.shape), "dtype": placeholder.dtype.name, "name": placeholder.name}


def _input(row: Mapping[str, Any]) -> Placeholder:
    return Input(batch_shape=tuple(row["shape"]), dtype=row["dtype"], name=row["name"] or None)


def model_from_graph_config(config: Mapping[str, Any]) -> Model:
    """The functional model that `graph_config` described, with new weights."""
    from .model import Model

    layers = {layer.name: layer for layer in (deserialize(item, kind="layer") for item in config["layers"])}
    values: dict[int, Any] = dict(enumerate(map(_input, config["inputs"])))
    for row in config["calls"]:
        target = _target(row, layers)
        results = tree.leaves(target(*_decode(row["args"], values), **_decode(row["kwargs"], values)))
        values.update(zip(row["outputs"], results, strict=True))
    inputs, outputs = _decode(config["input_structure"], values), _decode(config["outputs"], values)
    return Model(inputs, outputs, name=config.get("name"), trainable=config.get("trainable", True))


def _target(row: Mapping[str, Any], layers: Mapping[str, Layer]) -> Any:
    if "op" in row:
        return function_named(row["op"])
    if row["layer"] not in layers:
        raise FormatError(
            f"the description calls an unknown layer {row['layer']!r}", hint=did_you_mean(row["layer"], layers)
        )
    return layers[row["layer"]]


def _encode(value: Any, numbers: Mapping[Key, int]) -> Any:
    """Arguments of a call as data; placeholders by number."""
    if isinstance(value, Placeholder):
        return {"placeholder": numbers[value.key]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, numbers) for item in value]}
    if isinstance(value, list):
        return [_encode(item, numbers) for item in value]
    if isinstance(value, dict):
        return {"dict": [[key, _encode(item, numbers)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if value is Ellipsis:
        return {"ellipsis": True}
    return {"data": to_data(np.asarray(value) if hasattr(value, "numpy") and hasattr(value, "spec") else value)}


def _decode(value: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, values) for item in value]
    (kind, content), *_ = value.items()
    if kind == "placeholder":
        return values[content]
    if kind == "tuple":
        return tuple(_decode(item, values) for item in content)
    if kind == "dict":
        return {key: _decode(item, values) for key, item in content}
    if kind == "slice":
        return slice(*content)
    return Ellipsis if kind == "ellipsis" else from_data(content)


# Whole models --------------------------------------------------------------------------------------------------------
def save_model(model: Model, path: Any, overwrite: bool = True) -> None:
    """Writes a model to a `.keras` file."""
    from highlevel import __version__
    from highlevel.formats import keras_archive

    target = _writable(path, overwrite)
    if target.suffix != ".keras":
        raise ArgumentError(
            f"{target.name}: whole models are saved as .keras", hint="model.save_weights for weights alone"
        )
    arrays = {name: variable.numpy() for name, variable in weights_by_path(model).items()}
    config = {
        **serialize(model),
        "first_call": _first_call(model),
        "compile_config": _compile_config(model),
        "facts": _facts(model),
    }
    if config["compile_config"] is not None:
        state = optimizer_state(model)
        arrays.update({_OPTIMIZER + name: variable.numpy() for name, variable in state.items()})
    metadata = {"highlevel_version": __version__, "format_version": VERSION, "python": platform.python_version()}
    keras_archive.write(target, config, metadata, arrays)


def load_model(path: Any, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Model:
    """Reads a model from a `.keras` file: structure, weights, and – if `compile` – how it was trained.

    custom_objects: classes and functions of your own by name, where they are not registered with
                    `@hl.register_serializable()`
    """
    from highlevel.formats import keras_archive

    name = Path(path).name
    config, metadata, arrays = keras_archive.read(path)
    if "highlevel_version" not in metadata:
        raise FormatError(
            f"{name} was not written by this library",
            got=f"metadata {', '.join(sorted(metadata)) or 'empty'}",
            expected="a file from model.save",
        )
    try:
        with known_objects(custom_objects or {}):
            model = _open(config)
        weights = {key: array for key, array in arrays.items() if not key.startswith(_OPTIMIZER)}
        assign_weights(model, weights, source=f"the weights in {name}")
        _set_facts(model, config.get("facts") or {})
        if compile and config.get("compile_config"):
            with known_objects(custom_objects or {}):
                _compile(model, config["compile_config"])
            _restore_optimizer(model, {k.removeprefix(_OPTIMIZER): a for k, a in arrays.items() if k not in weights})
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(
            f"the description of the model in {name} makes no sense", got=f"{type(error).__name__}: {error}"
        ) from error
    return model


@contextmanager
def known_objects(objects: Mapping[str, Any]) -> Iterator[None]:
    """Makes classes and functions known by these names, before all others, for a while."""
    tables: list[dict[str, Any]] = [*CLASSES.values(), FUNCTIONS.setdefault("custom", {})]
    before = [dict(table) for table in tables]
    for name, thing in objects.items():
        table = CLASSES.get(getattr(thing, "kind", "object"), {}) if isinstance(thing, type) else FUNCTIONS["custom"]
        table[name] = thing
    try:
        yield
    finally:
        for table, content in zip(tables, before, strict=True):
            table.clear()
            table.update(content)


def _open(config: Mapping[str, Any]) -> Model:
    """The model that a file describes, built, with new weights."""
    from .model import Model

    model = deserialize(config, kind="layer")
    if not isinstance(model, Model):
        raise FormatError("the file does not describe a model", got=type(model).__name__)
    if not model.built and config.get("first_call"):
        row = config["first_call"]
        model(**_decode(row["arguments"], dict(enumerate(map(_input, row["inputs"])))))
    return model


def _first_call(model: Model) -> dict[str, Any] | None:
    """What a subclassed model was built with: its layers are built again by a call on such placeholders."""
    if model._graph is not None or model._first_call is None:
        return None
    inputs = tree.leaves(model._first_call)
    placeholders = [leaf for leaf in inputs if isinstance(leaf, Placeholder)]
    numbers = {placeholder.key: number for number, placeholder in enumerate(placeholders)}
    return {"inputs": list(map(_describe_input, placeholders)), "arguments": _encode(model._first_call, numbers)}


# What travels with the weights: preprocessing, class names, layer groups, origin, frozen layers.
_FACTS = ("class_names", "group_patterns", "origin")


def _layers_by_path(model: Model) -> dict[str, Layer]:
    model.assign_paths()
    return {layer.path.removeprefix(model.name): layer for layer in model.walk_layers()}


def _facts(model: Model) -> dict[str, Any]:
    return {
        **{name: getattr(model, name) for name in _FACTS},
        "preprocessing": model.preprocessing.to_dict() if model.preprocessing else None,
        "frozen": sorted(path for path, layer in _layers_by_path(model).items() if not layer.trainable),
    }


def _set_facts(model: Model, facts: Mapping[str, Any]) -> None:
    for name in _FACTS:
        setattr(model, name, facts.get(name))
    if facts.get("preprocessing"):
        model.preprocessing = Preprocessing.from_dict(facts["preprocessing"])
    frozen = set(facts.get("frozen") or ())
    for path, layer in _layers_by_path(model).items():
        object.__setattr__(layer, "trainable", path not in frozen)  # each for itself: layers below keep their own


# How it was trained --------------------------------------------------------------------------------------------------
def _compile_config(model: Model) -> dict[str, Any] | None:
    trainer = model._trainer
    if trainer is None or trainer.optimizer is None:
        return None
    try:
        if type(trainer) is not Trainer:
            raise ArgumentError(f"the trainer {type(trainer).__name__} is code, which files do not hold")
        return {
            "optimizer": serialize(trainer.optimizer),
            "rate_multipliers": to_data(trainer.optimizer.multipliers),
            "no_decay": to_data(trainer.optimizer._no_decay),
            "loss": to_data(trainer.losses.loss),
            "loss_weights": to_data(trainer.losses.weights),
            "metrics": to_data(trainer.metrics.requested),
            "weighted_metrics": to_data(trainer.metrics.requested_weighted),
        }
    except ArgumentError as error:
        warnings.warn(
            f"{model.name}: how the model was compiled is not saved, because {error.summary}; "
            "it has to be compiled again after loading",
            stacklevel=4,
        )
        return None


def _compile(model: Model, row: Mapping[str, Any]) -> None:
    optimizer = deserialize(row["optimizer"], kind="optimizer")
    optimizer.multipliers = tuple((pattern, factor) for pattern, factor in row.get("rate_multipliers") or ())
    optimizer._no_decay = tuple(row.get("no_decay") or ())
    names = ("loss", "loss_weights", "metrics", "weighted_metrics")
    model.compile(optimizer, **{name: from_data(row.get(name)) for name in names})


def optimizer_state(model: Model) -> dict[str, Variable]:
    """The optimizer's variables by name: "iteration", or – for each weight that has moved – "momentum/dense/kernel"."""
    optimizer = model.optimizer
    paths = {id(variable): path for path, variable in weights_by_path(model).items()}
    state: dict[str, Variable] = {}
    of_weights: set[int] = set()
    for key, slots in optimizer._state.items():
        for slot, variable in slots.items():
            of_weights.add(id(variable))
            if key in paths:  # a weight may have left the model since
                state[f"{slot}/{paths[key]}"] = variable
    return {v.name: v for v in optimizer.variables if id(v) not in of_weights} | state


def _restore_optimizer(model: Model, arrays: Mapping[str, np.ndarray]) -> None:
    weights = weights_by_path(model)
    moved = {path for _, slash, path in (name.partition("/") for name in arrays) if slash}
    model.optimizer.build([variable for path, variable in weights.items() if path in moved])
    state = optimizer_state(model)
    for name, array in arrays.items():
        if name not in state or state[name].shape != array.shape:
            raise FormatError(
                f"{model.name}: the optimizer's state does not fit the model",
                got=f"{name} {array.shape}",
                expected=f"{state[name].shape}" if name in state else f"one of {len(state)} arrays",
                hint="load_model(path, compile=False) leaves it out",
            )
        state[name].assign(array)
