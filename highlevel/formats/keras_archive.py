"""Reads and writes the container of `.keras` files: a configuration, facts about the file, and a tree of weights.

A `.keras` file is a zip archive with `config.json`, `metadata.json`, `model.weights.h5` and, for layers with
vocabularies and the like, files under `assets/`. Here it is data from end to end: which layers the configuration may
name, and which weights belong to which layer, is decided by others.

Weights are keyed by path. Keras 3 numbers layers by class, in order, and weights by position, so a path reads
"layers/conv2d_1/vars/0"; nested models and attributes of layers are further groups in between. The group of a layer's
weights has its name as the attribute "name".
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from highlevel.errors import FormatError
from highlevel.formats import hdf5
from highlevel.formats.archive import Archive, check_name, write_member
from highlevel.formats.atomic import replacing, scratch
from highlevel.formats.guard import CHUNK_BYTES, parse_json, quote, reading, short, size_of

_KIND = ".keras file"
_CONFIG, _METADATA, _WEIGHTS, _ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets/"


class KerasModel(NamedTuple):
    """What most callers need of a `.keras` file."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    weights: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class KerasArchive:
    """All of a `.keras` file: `tree` has the weights and the attributes of their groups, `assets` files by name."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    tree: hdf5.Hdf5Tree
    assets: dict[str, bytes] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> KerasModel:
    """The configuration, the metadata and the weights by path."""
    archive = read_archive(path)
    return KerasModel(archive.config, archive.metadata, archive.tree.arrays)


def read_archive(path: str | os.PathLike[str]) -> KerasArchive:
    """The whole file, with attributes of groups (names of layers) and assets."""
    with reading(path, _KIND) as file:
        archive, file_bytes = Archive(file), size_of(file)
        for name in (_CONFIG, _METADATA, _WEIGHTS):
            if name not in archive:
                raise FormatError(
                    f"the archive has no {name}",
                    got=short(", ".join(archive.names)),
                    expected=f"{_CONFIG}, {_METADATA} and {_WEIGHTS}",
                    hint="weights in shards or as .npz are not read; save the model as one .keras file",
                )
        config = parse_json(archive.read(_CONFIG), _CONFIG, file_bytes)
        metadata = parse_json(archive.read(_METADATA), _METADATA, file_bytes)
        assets = {name[len(_ASSETS) :]: archive.read(name) for name in archive.names if name.startswith(_ASSETS)}
        tree = hdf5.read_tree(archive.read_stream(_WEIGHTS))
        return KerasArchive(config, metadata, tree, assets)


def write(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    weights: Mapping[str, Any],
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
    assets: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a `.keras` file; after a crash the old file or the new one is there.

    `weights` maps paths to arrays, or names to nested mappings of the same kind. `attrs` are attributes of groups by
    path, such as `{"layers/dense/vars": {"name": "dense"}}`. Equal content gives equal bytes.
    """
    documents = {_METADATA: _encode(metadata, _METADATA), _CONFIG: _encode(config, _CONFIG)}
    arrays = flatten(weights)
    for name in assets or {}:
        check_name(name)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, document in documents.items():
            with write_member(archive, name) as member:
                member.write(document)
        # HDF5 writes here and there, a zip member is written in one go: the weights pass through a nameless file.
        with scratch(path) as stream, write_member(archive, _WEIGHTS) as member:
            hdf5.write_tree(stream, arrays, attrs or {})
            stream.seek(0)
            while piece := stream.read(CHUNK_BYTES):
                member.write(piece)
        for name, data in (assets or {}).items():
            with write_member(archive, _ASSETS + name) as member:
                member.write(data)


def _encode(document: Mapping[str, Any], name: str) -> bytes:
    try:
        return json.dumps(document).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"what shall go into {name} is no JSON", got=short(error)) from error


def flatten(weights: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Nested mappings of arrays as one mapping, keyed by path.

    >>> flatten({"layers": {"dense": {"vars": {"0": 1.0, "1": 2.0}}}})
    {'layers/dense/vars/0': 1.0, 'layers/dense/vars/1': 2.0}
    """
    flat: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        path = f"{prefix}{name}"
        new = flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
        twice = sorted(flat.keys() & new.keys())
        if twice:
            raise FormatError(f"the weights {quote(twice[0])} are given twice")
        flat |= new
    return flat
