"""Writes docs/keras-coverage.md: Keras's public names, and where each of them is here.

python docs/make_coverage.py

Whatever can be reached from `keras` in the installed version is looked up here, under the same name, then in PLACES and
OTHERWISE. Names that are not here on purpose stand in EXCEPTIONS, each group with one reason; everything else that is
not found is missing. The page says that a name is there; that it computes what Keras does is for the tests to say.
"""

from __future__ import annotations

import importlib
import os
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "numpy")

TARGET = Path(__file__).with_name("keras-coverage.md")

# Other places where the names of a namespace may be, looked at in turn.
PLACES: dict[str, tuple[str, ...]] = {
    "": ("layers", "losses", "metrics", "optimizers", "regularizers", "initializers", "dtype_policies"),
    "applications": ("zoo",),
    "backend": ("config", "utils"),
    "config": ("dtype_policies",),
    "mixed_precision": ("dtype_policies", "optimizers"),
    "ops.linalg": ("ops",),
    "ops.nn": ("ops",),
    "ops.numpy": ("ops",),
    "optimizers.schedules": ("schedules",),
    "preprocessing": ("utils", "data"),
    "preprocessing.image": ("utils", "ops.image"),
    "preprocessing.sequence": ("utils",),
    "saving": ("models", "serialization", "utils"),
    "tree": ("ir.tree",),
    "utils": ("data", "models", "serialization", "config"),
}

# Names that are called otherwise here.
OTHERWISE: dict[str, str] = {
    "saving.register_keras_serializable": "register_serializable",
    "utils.register_keras_serializable": "register_serializable",
    "saving.serialize_keras_object": "serialization.serialize",
    "saving.deserialize_keras_object": "serialization.deserialize",
    "utils.serialize_keras_object": "serialization.serialize",
    "utils.deserialize_keras_object": "serialization.deserialize",
    "KerasTensor": "models.Placeholder",
    "remat": "checkpoint",
    "version": "__version__",
}

# Names that are not here on purpose: patterns of names, and one reason for each group.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "Wrappers of models of other libraries, which this library converts instead": (
        "layers.FlaxLayer", "layers.JaxLayer", "layers.TFSMLayer", "layers.TorchModuleWrapper",
    ),
    "Quantised variants: weights and products of 8 bits or fewer are not part of this library": (
        "quantizers.*", "Quantizer", "dtype_policies.AWQDTypePolicy", "dtype_policies.GPTQDTypePolicy",
        "dtype_policies.Int4DTypePolicy", "dtype_policies.Quantized*",
    ),
    "TensorFlow only: its file format, and optimizers that Keras 3 names but does not have": (
        "export.ExportArchive", "optimizers.legacy.*",
    ),
    "Permits code in files to run, which this library never does": ("config.enable_unsafe_deserialization",),
}  # fmt: skip


@dataclass
class Coverage:
    """What became of Keras's public names: full names, and for exceptions the reason."""

    present: list[str] = field(default_factory=list)
    otherwise: dict[str, str] = field(default_factory=dict)
    exceptions: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def namespaces(self) -> list[str]:
        every = [*self.present, *self.otherwise, *self.exceptions, *self.missing]
        return sorted({namespace_of(name) for name in every})


def namespace_of(name: str) -> str:
    return name.rpartition(".")[0]


def public_names(module: types.ModuleType, path: tuple[str, ...] = (), seen: Any = None) -> Iterator[str]:
    """All names that can be reached from `keras`, with their namespaces; what was imported by the way is left out."""
    seen = set() if seen is None else seen
    for name in sorted(vars(module)):
        value = vars(module)[name]
        if name.startswith("_") or name == "src":
            continue
        if not isinstance(value, types.ModuleType):
            yield ".".join((*path, name))
        elif value.__name__.startswith("keras.") and value.__name__ not in seen:
            seen.add(value.__name__)
            yield from public_names(value, (*path, name), seen)


def found(path: str) -> bool:
    """Whether something – not a module – has that name here: "layers.Dense", say."""
    thing: Any = importlib.import_module("highlevel")
    words = [word for word in path.split(".") if word]
    for i, word in enumerate(words):
        if hasattr(thing, word):
            thing = getattr(thing, word)
            continue
        try:
            thing = importlib.import_module(".".join(["highlevel", *words[: i + 1]]))
        except ImportError:
            return False
    return not isinstance(thing, types.ModuleType)


def coverage() -> Coverage:
    """Looks up all names."""
    import keras

    result = Coverage()
    for name in public_names(keras):
        namespace, _, last = name.rpartition(".")
        elsewhere = [f"{place}.{last}" for place in PLACES.get(namespace, ())]
        other = next(filter(found, [*elsewhere, OTHERWISE.get(name, "")]), None)
        reason = next((why for why, them in EXCEPTIONS.items() if any(fnmatchcase(name, p) for p in them)), None)
        if found(name):
            result.present.append(name)
        elif other:
            result.otherwise[name] = other
        elif reason is not None:
            result.exceptions[name] = reason
        else:
            result.missing.append(name)
    return result


def keras_path(namespace: str) -> str:
    return f"keras.{namespace}".rstrip(".")


def shown(names: list[str]) -> str:
    return ", ".join(f"`{name.rpartition('.')[2]}`" for name in sorted(names))


def text() -> str:
    """The whole page."""
    import keras

    result = coverage()
    lines = [
        "# Keras's names",
        "",
        f"Keras {keras.__version__}'s public names, looked up in this library by `python docs/make_coverage.py`: "
        f"{len(result.present)} are here, {len(result.otherwise)} in another place or under another name, "
        f"{len(result.exceptions)} are not, for the reasons below, and {len(result.missing)} are missing.",
        "",
        "| namespace | here | elsewhere | exceptions | missing |",
        "|---|---|---|---|---|",
    ]
    groups = (result.present, result.otherwise, result.exceptions, result.missing)
    for namespace in result.namespaces():
        counts = [sum(namespace_of(name) == namespace for name in group) for group in groups]
        cells = " | ".join(str(count) if count else "" for count in counts)
        lines.append(f"| `{keras_path(namespace)}` | {cells} |")
    lines += ["", "## Exceptions", "", "| reason | names |", "|---|---|"]
    for reason in EXCEPTIONS:
        names = [f"`{name}`" for name, why in result.exceptions.items() if why == reason]
        lines += [f"| {reason} | {', '.join(names)} |"] if names else []
    lines += ["", "## Elsewhere", "", "| Keras | here |", "|---|---|"]
    groups_elsewhere: dict[tuple[str, str], list[str]] = {}
    for name, ours in result.otherwise.items():
        if name.rpartition(".")[2] == ours.rpartition(".")[2]:
            groups_elsewhere.setdefault((namespace_of(name), namespace_of(ours)), []).append(name)
        else:
            lines.append(f"| `keras.{name}` | `highlevel.{ours}` |")
    for (theirs, ours), names in groups_elsewhere.items():
        lines.append(f"| `{keras_path(theirs)}`: {shown(names)} | `highlevel.{ours}` |")
    if result.missing:
        lines += ["", "## Missing", ""]
        for namespace in sorted({namespace_of(name) for name in result.missing}):
            names = [name for name in result.missing if namespace_of(name) == namespace]
            lines += [f"* `{keras_path(namespace)}`: {shown(names)}"]
    lines += ["", "## Here", ""]
    for namespace in sorted({namespace_of(name) for name in result.present}):
        names = [name for name in result.present if namespace_of(name) == namespace]
        lines += [f"### `{keras_path(namespace)}` ({len(names)})", "", shown(names), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
