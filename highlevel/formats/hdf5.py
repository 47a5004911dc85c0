"""Reads and writes HDF5 files as trees of groups, attributes and arrays.

HDF5 can point outside of itself – links to other files, raw data in other files, virtual arrays made of other files –
and can claim any shape for next to no bytes. A tree that comes from here has neither: what is not plain data inside
the file is refused before it is opened, and declared sizes are checked against stored bytes before memory is taken.

The tree is flat: `arrays` and `attrs` are keyed by path ("model_weights/dense/kernel:0"; "" is the root). Attributes
that are text come back as `str` or a list of them, whether they were stored as bytes or as text, fixed or variable.

Parsing is the HDF5 library's, so its faults are ours: what is known to hang it (heaps of texts without end, groups
whose index runs in circles) is checked or avoided; a file made by an attacker may still cost time, or 4 GiB for a text.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import h5py
import ml_dtypes
import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.atomic import replacing
from highlevel.formats.guard import (
    CHUNK_BYTES,
    MAX_RATIO,
    SLACK_BYTES,
    Budget,
    bytes_of,
    check_bool,
    check_shape,
    quote,
    reading,
    short,
    size_of,
)

_KIND = "HDF5 file"
_MAX_DEPTH = 100
# Keras marks arrays whose type HDF5 does not know by an attribute and stores their bytes as opaque values.
_TYPE_MARK = "dtype"
_MARKED_TYPES: dict[str, np.dtype[Any]] = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}
# HDF5 keeps attributes in headers of 64 KiB; Keras splits lists that are longer than this.
_MAX_ATTRIBUTE_BYTES = 64_512
# Text of variable length is stored once and may be referred to often; this much may come of that beyond the file.
_MAX_TEXT_BYTES = 256 << 20
_HEAP_HEADER_BYTES = 16  # of a heap and of each text in it
_MIN_HEAP_BYTES = 4096

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hdf5Tree:
    """The content of a file: arrays by path, and attributes by the path of the group or array that has them.

    Every group has an entry in `attrs`, if only an empty one; an array has one if it has attributes.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attrs: dict[str, Attributes] = field(default_factory=dict)

    def subtree(self, path: str) -> Hdf5Tree:
        """The part below a group, with paths that begin there."""
        if path not in self.attrs or path in self.arrays:
            raise FormatError(f"the file has no group {path!r}")
        prefix = f"{path}/" if path else ""
        return Hdf5Tree(
            {name[len(prefix) :]: array for name, array in self.arrays.items() if name.startswith(prefix)},
            {
                name[len(prefix) :]: attrs
                for name, attrs in self.attrs.items()
                if name == path or name.startswith(prefix)
            },
        )

    def children(self, path: str = "") -> tuple[str, ...]:
        """The names directly below a group, sorted."""
        prefix = f"{path}/" if path else ""
        below = {name[len(prefix) :].split("/")[0] for name in (*self.attrs, *self.arrays) if name.startswith(prefix)}
        return tuple(sorted(below - {""}))

    def names(self, path: str, attribute: str) -> list[str]:
        """A list of names kept as an attribute, also where Keras had to split it (see `split_names`)."""
        return join_names(self.attrs.get(path, {}), attribute)


def read(path: str | os.PathLike[str]) -> Hdf5Tree:
    """The whole file as a tree."""
    with reading(path, _KIND) as file:
        return read_tree(file)


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes arrays and attributes by path; after a crash the old file or the new one is there.

    `write(path, tree.arrays, tree.attrs)` writes a tree as it was read. Equal content gives equal bytes.
    """
    with replacing(path) as file:
        write_tree(file, arrays, attrs or {})


def join_names(attrs: Mapping[str, Any], name: str) -> list[str]:
    """A list of names from attributes: `name` itself, or the parts `name0`, `name1`, … that Keras splits it into."""
    parts = [attrs[name]] if name in attrs else []
    while not parts or name not in attrs:
        part = f"{name}{len(parts)}"
        if part not in attrs:
            break
        parts.append(attrs[part])
    if not parts:
        raise FormatError(f"the list {name!r} is missing", got=short(", ".join(attrs) or "no attributes"))
    names: list[str] = []
    for values in parts:
        if isinstance(values, np.ndarray) and values.size == 0:
            continue  # an empty list has no type: it was stored as one of floats
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise FormatError(f"the list {name!r} holds something that is no name", got=quote(values))
        names += values
    return names


def split_names(name: str, values: Sequence[str]) -> dict[str, np.ndarray]:
    """Attributes that keep a list of names as Keras does: in parts `name0`, `name1`, … when one would be too long."""
    if any(len(value.encode()) > _MAX_ATTRIBUTE_BYTES for value in values):
        raise FormatError(f"a name in {name!r} is too long for HDF5", expected=f"{_MAX_ATTRIBUTE_BYTES:,} bytes")
    encoded = np.array([value.encode() for value in values]) if values else np.array([])
    parts = 1
    while any(part.nbytes > _MAX_ATTRIBUTE_BYTES for part in np.array_split(encoded, parts)):
        parts += 1
    if parts == 1:
        return {name: encoded}
    return {f"{name}{index}": part for index, part in enumerate(np.array_split(encoded, parts))}


# ---- reading


def read_tree(file: BinaryIO) -> Hdf5Tree:
    """The tree in an open file; errors are those of h5py, for the caller's `reading` to name."""
    tree = Hdf5Tree()
    with h5py.File(file, "r") as root:
        if root.id.get_create_plist().get_sizes() != (8, 8):
            raise FormatError("the file counts bytes in an unusual way", expected="addresses and sizes of 8 bytes")
        _Reader(file, tree).read_group(root, "", 0)
    return tree


class _Reader:
    def __init__(self, file: BinaryIO, tree: Hdf5Tree) -> None:
        self.file = file
        self.tree = tree
        self.file_bytes = size_of(file)
        self.stored = Budget(self.file_bytes)  # bytes of arrays inside the file
        self.unbacked = Budget(SLACK_BYTES)  # bytes of arrays that nothing in the file stands for
        self.seen: set[int] = set()
        self.longest_text: int | None = None

    def read_group(self, group: h5py.Group, path: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise FormatError("the groups are nested beyond reason", expected=f"at most {_MAX_DEPTH} levels")
        self.tree.attrs[path] = self.read_attributes(group, path)
        for name in group:
            child_path = f"{path}/{name}" if path else name
            check_path(child_path)
            self.check_link(group, name, child_path)
            child = group[name]
            if isinstance(child, h5py.Group):
                self.read_group(child, child_path, depth + 1)
            elif isinstance(child, h5py.Dataset):
                self.read_dataset(child, child_path)
            else:
                raise FormatError(f"{quote(child_path)} is neither a group nor an array")

    def check_link(self, group: h5py.Group, name: str, path: str) -> None:
        """Only links to objects in the file are followed, and each object has one place.

        A second link to an object would make the tree a graph, perhaps one without an end. (Objects are told apart by
        the links' addresses: the library's information about an object walks structures that damage can make endless.)
        """
        link = group.id.links.get_info(name.encode())
        if link.type != h5py.h5l.TYPE_HARD:
            raise FormatError(
                f"{quote(path)} is a link, which is never followed",
                got=_LINKS.get(link.type, "a link of a user's own kind"),
                expected="data inside the file",
            )
        if link.u in self.seen:
            raise FormatError(f"{quote(path)} is a second link to the same object", expected="a tree")
        self.seen.add(link.u)

    def read_dataset(self, dataset: h5py.Dataset, path: str) -> None:
        what = f"the array {path!r}"
        creation = dataset.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise FormatError(
                f"{short(what)} keeps its data in other files, which are never opened",
                got="a virtual array" if creation.get_layout() == h5py.h5d.VIRTUAL else "external storage",
                expected="data inside the file",
            )
        attrs = self.read_attributes(dataset, path)
        if attrs:
            self.tree.attrs[path] = attrs
        dtype = _array_type(dataset.dtype, attrs.get(_TYPE_MARK), what)
        shape = check_shape(dataset.shape, what)
        self.grant(dataset, creation, bytes_of(shape, dataset.dtype), what)
        array = np.empty(shape, dtype)
        if array.size:
            dataset.read_direct(array.view(dataset.dtype) if dataset.dtype.kind == "V" else array)
        check_bool(array, what)
        self.tree.arrays[path] = array

    def grant(self, dataset: h5py.Dataset, creation: Any, declared: int, what: str) -> None:
        """Compares what an array claims to be with what the file stores for it."""
        filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
        unknown = [number for number in filters if number not in _FILTERS]
        if unknown:
            raise FormatError(
                f"{short(what)} is packed by an unusual filter",
                got=f"filter {unknown[0]}",
                expected=", ".join(_FILTERS.values()),
            )
        if dataset.chunks:  # the library allocates whole chunks
            declared = max(declared, bytes_of(dataset.chunks, dataset.dtype))
        stored = dataset.id.get_storage_size()
        self.stored.take(stored, what)
        self.unbacked.take(max(0, declared - stored * (MAX_RATIO if filters else 1)), what)

    def read_attributes(self, item: Any, path: str) -> Attributes:
        attrs: Attributes = {}
        for name in item.attrs:
            what = f"the attribute {name!r} of {path!r}"
            identity = item.attrs.get_id(name)
            if identity.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                attrs[name] = None
                continue
            dtype = identity.dtype
            shape = check_shape(identity.shape, what)
            if bytes_of(shape, dtype) > self.file_bytes:
                raise FormatError(f"{short(what)} claims more bytes than the file has")
            if dtype.kind == "O" and h5py.check_string_dtype(dtype) is not None:
                self.check_text(math.prod(shape), what)
            elif dtype.kind not in "biufcS" or h5py.check_enum_dtype(dtype):
                raise FormatError(f"{short(what)} has a type that is never loaded", got=quote(dtype))
            attrs[name] = _plain(item.attrs[name], what)
        return attrs

    def check_text(self, count: int, what: str) -> None:
        """Checks text of variable length before it is read: many elements may refer to the same long text."""
        if self.longest_text is None:
            self.longest_text = _check_heaps(self.file, self.file_bytes)
        limit = _MAX_TEXT_BYTES + MAX_RATIO * self.file_bytes
        if count * self.longest_text > limit:
            raise FormatError(
                f"{short(what)} may hold more text than the file accounts for",
                got=f"{count:,} texts of up to {self.longest_text:,} bytes",
                expected=f"at most {limit:,} bytes",
            )


def _check_heaps(file: BinaryIO, file_bytes: int) -> int:
    """Checks the heaps that hold text of variable length, and returns the size of the longest text.

    The HDF5 library trusts the sizes inside a heap: a damaged one sends it round in circles for ever. A heap is marked
    "GCOL" and a version; then come its size and, one after the other, its texts with sizes of their own.
    """
    longest = 0
    heaps = Budget(file_bytes)  # they do not overlap
    for position in _find(file, b"GCOL\x01"):
        file.seek(position)
        header = file.read(_HEAP_HEADER_BYTES)
        size_bytes = int.from_bytes(header[8:], "little")
        if not _MIN_HEAP_BYTES <= size_bytes <= file_bytes - position:
            continue  # four bytes of some array that happen to look like a heap; the library refuses such heaps
        heaps.take(size_bytes, "the heaps of texts")
        heap = file.read(size_bytes - _HEAP_HEADER_BYTES)
        offset = 0
        while offset + _HEAP_HEADER_BYTES <= len(heap):
            index, _, length = struct.unpack_from("<HHxxxxQ", heap, offset)
            used = length if index == 0 else _HEAP_HEADER_BYTES + (length + 7) // 8 * 8  # 0: the rest is free
            if not _HEAP_HEADER_BYTES <= used <= len(heap) - offset:
                raise FormatError("a heap of texts is damaged", got=f"a text of {length:,} bytes")
            longest = max(longest, length if index else 0)
            offset += used
    return longest


def _find(file: BinaryIO, mark: bytes) -> list[int]:
    """All positions of some bytes in a file."""
    positions, overlap, base = [], b"", 0
    file.seek(0)
    while piece := file.read(CHUNK_BYTES):
        data = overlap + piece
        start = data.find(mark)
        while start >= 0:
            positions.append(base + start)
            start = data.find(mark, start + 1)
        overlap = data[len(data) - len(mark) + 1 :]
        base += len(data) - len(overlap)
    return positions


def _array_type(dtype: np.dtype[Any], mark: Any, what: str) -> np.dtype[Any]:
    """The type in memory of an array with the given type in the file."""
    marked = _MARKED_TYPES.get(mark) if isinstance(mark, str) else None
    if dtype.kind == "V" and dtype.names is None and dtype.subdtype is None and marked is not None:
        if dtype.itemsize == marked.itemsize:
            return marked
    elif dtype.kind in "biufcS" and not h5py.check_enum_dtype(dtype):
        return dtype.newbyteorder("=")
    raise FormatError(
        f"{short(what)} has a type that is never loaded",
        got=quote(dtype),
        expected="numbers, truth values or text of fixed length",
    )


def _plain(value: Any, what: str) -> Any:
    """An attribute's value as Python sees it: text, a list of texts, a number, or an array of numbers."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        value.encode()  # h5py hides bytes that are no UTF-8; this brings them to light
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        if value.ndim != 1:
            raise FormatError(f"{short(what)} is a table of texts", expected="a text or a list of texts")
        return [_plain(item, what) for item in value.tolist()]
    if isinstance(value, np.ndarray):
        check_bool(value, what)
        return value
    return value.item()


def check_path(path: Any) -> None:
    """Names are keys here, but the next program may take them for paths."""
    if not isinstance(path, str) or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise FormatError(f"{quote(path)} is no name for a group or an array")


# ---- writing


def write_tree(file: BinaryIO, arrays: Mapping[str, Any], attrs: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes arrays and attributes into an empty file that is open for reading and writing."""
    sources = {path: _portable(path, value) for path, value in arrays.items()}
    groups = {path for path in attrs if path and path not in sources}
    for path in (*groups, *sources):
        check_path(path)
        taken = [parent for parent in _parents(path) if parent in sources]
        if taken:
            raise FormatError(f"{quote(path)} lies below {quote(taken[0])}, which is an array", expected="a group")
    with h5py.File(file, "w") as root:
        for path in sorted(groups):
            root.require_group(path)
        for path, array in sources.items():
            marks = [name for name, dtype in _MARKED_TYPES.items() if dtype == array.dtype]
            data = array.view(np.dtype(("V", array.dtype.itemsize))) if marks else array
            dataset = root.create_dataset(path, data=data)
            if marks:
                dataset.attrs[_TYPE_MARK] = marks[0]
        for path, values in attrs.items():
            item = root[path] if path else root
            for name, value in values.items():
                item.attrs[name] = _storable(value)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _portable(path: Any, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype not in _MARKED_TYPES.values() and (array.dtype.kind not in "biufcS" or array.dtype.isbuiltin == 2):
        raise FormatError(
            f"the array {quote(path)} has a type that is never written to HDF5",
            got=str(array.dtype),
            expected="numbers or truth values",
        )
    return array


def _storable(value: Any) -> Any:
    if value is None:
        return h5py.Empty("f4")
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return np.array([item.encode() for item in value])
    return value
