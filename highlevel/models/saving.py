"""Models and weights as files.

A `.keras` file holds the structure (descriptions of layers, and the calls between them), the weights by path, and
how the model was
compiled. It is data: classes and operators are looked up by name in the closed registry. Weights are keyed by their
path inside the model, `block/conv/kernel`, never by a counter.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError, FormatError, WeightsError, did_you_mean
from highlevel.ir import Variable, tree
from highlevel.layers import Layer
from highlevel.ops.registry import function_named
from highlevel.serialization import deserialize, from_data, serialize, to_data

from .placeholder import Placeholder

if TYPE_CHECKING:
    from .model import Model

VERSION = 1


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
    """What loading weights did: paths that were loaded, that the file lacks, that the model lacks, that have another
    shape.
    """

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
    """Sets variables by path. Either all fit, or – unless `strict` is False – nothing is changed and an error says
    why.
    """
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
    if not loaded or (strict and (report.missing or report.unexpected or report.mismatched)):
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

        return dict(keras_archive.read(source).weights)
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
    numbers: dict[int, int] = {}
    for placeholder in tree.leaves(graph.inputs):
        numbers[id(placeholder)] = len(numbers)
    calls = []
    for call in graph.calls:
        target = {"layer": call.target.name} if isinstance(call.target, Layer) else {"op": call.target}
        args, kwargs = _encode(call.args, numbers), _encode(call.kwargs, numbers)
        for placeholder in call.outputs:
            numbers[id(placeholder)] = len(numbers)
        calls.append({**target, "args": args, "kwargs": kwargs, "outputs": [numbers[id(p)] for p in call.outputs]})
    return {
        "name": model.name,
        "trainable": bool(model.trainable),
        "layers": [serialize(layer) for layer in graph.layers],
        "inputs": [{"shape": list(p.shape), "dtype": p.dtype.name, "name": p.name} for p in tree.leaves(graph.inputs)],
        "input_structure": _encode(graph.inputs, numbers),
        "calls": calls,
        "outputs": _encode(graph.outputs, numbers),
    }


def model_from_graph_config(config: Mapping[str, Any]) -> Model:
    """The functional model that `graph_config` described, with new weights."""
    from .model import Model
    from .placeholder import Input

    layers = {layer.name: layer for layer in (deserialize(item, kind="layer") for item in config["layers"])}
    values: dict[int, Any] = {}
    for number, item in enumerate(config["inputs"]):
        values[number] = Input(batch_shape=tuple(item["shape"]), dtype=item["dtype"], name=item["name"] or None)
    for row in config["calls"]:
        target = _target(row, layers)
        results = tree.leaves(target(*_decode(row["args"], values), **_decode(row["kwargs"], values)))
        values.update(zip(row["outputs"], results, strict=True))
    inputs, outputs = _decode(config["input_structure"], values), _decode(config["outputs"], values)
    model = Model(inputs, outputs, name=config.get("name"))
    if not config.get("trainable", True):
        model.trainable = False
    return model


def _target(row: Mapping[str, Any], layers: Mapping[str, Layer]) -> Any:
    if "op" in row:
        return function_named(row["op"])
    if row["layer"] not in layers:
        raise FormatError(
            f"the description calls an unknown layer {row['layer']!r}", hint=did_you_mean(row["layer"], layers)
        )
    return layers[row["layer"]]


def _encode(value: Any, numbers: Mapping[int, int]) -> Any:
    """Arguments of a call as data; placeholders by number."""
    if isinstance(value, Placeholder):
        return {"placeholder": numbers[id(value)]}
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
    weights = {name: variable.numpy() for name, variable in weights_by_path(model).items()}
    config = {**serialize(model), "compile_config": _compile_config(model), "facts": _facts(model)}
    metadata = {"highlevel_version": __version__, "format_version": VERSION, "python": platform.python_version()}
    keras_archive.write(target, config, metadata, weights)


def load_model(path: Any, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Model:
    """Reads a model from a `.keras` file: structure, weights, and – if `compile` – how it was trained.

    custom_objects: classes of your own by name, where they are not registered with `@hl.register_serializable()`
    """
    from highlevel.formats import keras_archive

    config, metadata, weights = keras_archive.read(path)
    if "highlevel_version" not in metadata:
        raise FormatError(
            f"{Path(path).name} was not written by this library",
            got=f"metadata {', '.join(sorted(metadata)) or 'empty'}",
            expected="a file from model.save",
        )
    model: Model = deserialize(config, kind="layer", custom_objects=custom_objects)
    assign_weights(model, weights, source=f"the weights in {Path(path).name}")
    _set_facts(model, config.get("facts") or {})
    if compile and config.get("compile_config"):
        model.compile(**{name: from_data(value) for name, value in config["compile_config"].items()})
    return model


def _facts(model: Model) -> dict[str, Any]:
    """What travels with the weights: preprocessing, class names, layer groups, origin."""
    facts = {name: getattr(model, name) for name in ("class_names", "group_patterns", "origin")}
    return {**facts, "preprocessing": model.preprocessing.to_dict() if model.preprocessing else None}


def _set_facts(model: Model, facts: Mapping[str, Any]) -> None:
    for name in ("class_names", "group_patterns", "origin"):
        setattr(model, name, facts.get(name))
    if facts.get("preprocessing"):
        model.preprocessing = Preprocessing.from_dict(facts["preprocessing"])


def _compile_config(model: Model) -> dict[str, Any] | None:
    trainer = model._trainer
    if trainer is None or trainer.optimizer is None:
        return None
    try:
        return {
            "optimizer": serialize(trainer.optimizer),
            "loss": to_data(trainer.losses.loss),
            "loss_weights": to_data(trainer.losses.weights),
            "metrics": to_data(trainer.metrics.requested),
            "weighted_metrics": to_data(trainer.metrics.requested_weighted),
        }
    except ArgumentError:
        return None  # functions without a registered name: the model opens uncompiled
