"""Reads and writes `.safetensors`, our own format for weights, with checksums.

The file is a header length (uint64), a JSON header `{name: {dtype, shape, data_offsets}}` with an optional
`__metadata__` of strings, and the tensors' bytes, little-endian, side by side without holes.

The format itself notices no damage: a flipped bit loads as a weight. So `write` adds two entries to `__metadata__`:
"highlevel.format", a version, and "highlevel.crc32", a JSON object with one checksum per tensor – over its name, type,
shape and bytes – and one over the rest of the metadata. `read` verifies them when either is there, so that every single
damaged byte is found; other programs ignore them.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.atomic import replacing
from highlevel.formats.guard import (
    as_bytes,
    bytes_of,
    check_bool,
    check_shape,
    fill,
    nearest,
    parse_json,
    quote,
    reading,
    short,
    size_of,
)

_KIND = "safetensors file"
_MAX_HEADER_BYTES = 100_000_000
_METADATA = "__metadata__"
_VERSION_KEY, _VERSION = "highlevel.format", "1"
_CRC_KEY = "highlevel.crc32"

_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies in the data part, and what it is."""

    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return _TYPES[self.kind]


def read(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by name, in the header's order, and the metadata.

    `names` selects tensors; the bytes of the others are not read, and `names=()` gives the metadata alone. Checksums
    are verified for what is read and are not part of the metadata that comes back.
    """
    with reading(path, _KIND) as file:
        entries, metadata, data_start = _read_header(file)
        checksums = _checksums(entries, metadata, size_of(file))
        tensors: dict[str, np.ndarray] = {}
        for name in entries if names is None else names:
            if name not in entries:
                raise FormatError(f"the file has no tensor {name!r}", hint=nearest(name, entries))
            entry = entries[name]
            file.seek(data_start + entry.begin)
            array = np.empty(entry.shape, entry.dtype)
            fill(file, array, f"the tensor {name!r}")
            if checksums is not None and checksums[name] != _checksum(entry, array):
                raise FormatError(
                    f"the tensor {quote(name)} is damaged: its checksum differs",
                    got=_checksum(entry, array),
                    expected=checksums[name],
                    hint="fetch or save the file again",
                )
            check_bool(array, f"the tensor {name!r}")
            tensors[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
        return tensors, {key: text for key, text in metadata.items() if key not in (_VERSION_KEY, _CRC_KEY)}


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors and metadata with checksums; after a crash the old file or the new one is there."""
    metadata = dict(metadata or {})
    _check_metadata(metadata)
    sources = {name: _portable(name, value) for name, value in tensors.items()}
    # Larger element types first, so that every tensor is aligned; the header keeps the caller's order.
    order = sorted(sources, key=lambda name: -sources[name].dtype.itemsize)
    entries, position = {}, 0
    for name in order:
        array = sources[name]
        entries[name] = _Entry(name, _NAMES[array.dtype], array.shape, position, position + array.nbytes)
        position += array.nbytes
    entries = {name: entries[name] for name in sources}
    checksums = {name: _checksum(entry, sources[name]) for name, entry in entries.items()}
    header = {
        _METADATA: {
            **metadata,
            _VERSION_KEY: _VERSION,
            _CRC_KEY: _dumps({"metadata": _metadata_checksum(metadata), "tensors": checksums}),
        },
        **{
            name: {"dtype": entry.kind, "shape": list(entry.shape), "data_offsets": [entry.begin, entry.end]}
            for name, entry in entries.items()
        },
    }
    encoded = _dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > _MAX_HEADER_BYTES:
        raise FormatError(
            "names and metadata are too large for a safetensors file",
            got=f"{len(encoded):,} bytes",
            expected=f"at most {_MAX_HEADER_BYTES:,}",
        )
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in order:
            file.write(as_bytes(sources[name]))


# ---- the header


def _read_header(file: BinaryIO) -> tuple[dict[str, _Entry], dict[str, str], int]:
    size_bytes = size_of(file)
    (header_bytes,) = struct.unpack("<Q", file.read(8))
    if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise FormatError(
            "the header has an impossible length",
            got=f"{header_bytes:,} bytes in a file of {size_bytes:,}",
            expected=f"at most {_MAX_HEADER_BYTES:,} bytes, inside the file",
        )
    text = file.read(header_bytes)
    if text[:1] != b"{" or text.rstrip(b" ")[-1:] != b"}":
        raise FormatError("the header is no JSON object", got=quote(text[:40]))
    header = parse_json(text, "the header", size_bytes)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("the metadata holds more than strings", got=quote(metadata))
    entries = {name: _parse_entry(name, value) for name, value in header.items()}
    data_start = 8 + header_bytes
    _check_coverage(entries.values(), size_bytes - data_start)
    return entries, metadata, data_start


def _parse_entry(name: str, value: Any) -> _Entry:
    what = f"the tensor {name!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(
            f"{short(what)} is not described as it must be",
            got=quote(value),
            expected="dtype, shape and data_offsets",
        )
    if value["dtype"] not in _TYPES:
        raise FormatError(f"{short(what)} has an unknown type", got=quote(value["dtype"]), expected=", ".join(_TYPES))
    shape = check_shape(value["shape"], what)
    begin, end = check_shape(value["data_offsets"], f"the place of {what}")
    if end - begin != bytes_of(shape, _TYPES[value["dtype"]]):
        raise FormatError(
            f"{short(what)} has bytes that do not fit its shape",
            got=f"{end - begin:,} bytes for {value['dtype']} {shape}",
            expected=f"{bytes_of(shape, _TYPES[value['dtype']]):,} bytes",
        )
    return _Entry(name, value["dtype"], shape, begin, end)


def _check_coverage(entries: Iterable[_Entry], data_bytes: int) -> None:
    """Tensors must lie side by side and fill the data part: no overlap, no hole, nothing hidden behind them."""
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            fault = "overlaps another" if entry.begin < position else "leaves a hole"
            raise FormatError(
                f"the tensor {quote(entry.name)} {fault}",
                got=f"begins at byte {entry.begin:,}",
                expected=f"byte {position:,}",
            )
        position = entry.end
    if position != data_bytes:
        raise FormatError(
            "the tensors do not fill the file", got=f"{data_bytes:,} bytes of data", expected=f"{position:,} bytes"
        )


# ---- checksums


def _checksums(entries: Mapping[str, _Entry], metadata: Mapping[str, str], file_bytes: int) -> dict[str, str] | None:
    """The checksum of each tensor, or None in a file of another program."""
    if _VERSION_KEY not in metadata and _CRC_KEY not in metadata:
        return None
    if metadata.get(_VERSION_KEY) != _VERSION:
        raise FormatError(
            "the file has an unknown version of our checksums",
            got=quote(metadata.get(_VERSION_KEY)),
            expected=_VERSION,
            hint="the file is damaged, or a newer version of this library wrote it",
        )
    table = parse_json(metadata.get(_CRC_KEY, "{}").encode(), "the table of checksums", file_bytes)
    tensors = table.get("tensors")
    if set(table) != {"metadata", "tensors"} or not isinstance(tensors, dict) or set(tensors) != set(entries):
        raise FormatError("the table of checksums does not fit the file", hint="fetch or save the file again")
    rest = {key: text for key, text in metadata.items() if key not in (_VERSION_KEY, _CRC_KEY)}
    if table["metadata"] != _metadata_checksum(rest):
        raise FormatError("the metadata is damaged: its checksum differs", hint="fetch or save the file again")
    return tensors


def _checksum(entry: _Entry, array: np.ndarray) -> str:
    label = _dumps([entry.name, entry.kind, list(entry.shape)])
    return f"{zlib.crc32(as_bytes(array), zlib.crc32(label.encode())):08x}"


def _metadata_checksum(metadata: Mapping[str, str]) -> str:
    return f"{zlib.crc32(_dumps(sorted(metadata.items())).encode()):08x}"


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


# ---- what may be written


def _check_metadata(metadata: Mapping[Any, Any]) -> None:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or key in (_VERSION_KEY, _CRC_KEY):
            raise FormatError(
                "metadata must be text under keys that are not ours",
                got=short(f"{key!r}: {value!r}"),
                expected=f"strings; {_VERSION_KEY!r} and {_CRC_KEY!r} are written by the library",
            )


def _portable(name: Any, value: Any) -> np.ndarray:
    """The array, contiguous and little-endian; no copy where it is so already."""
    if not isinstance(name, str) or name == _METADATA:
        raise FormatError("tensors need names of text", got=quote(name))
    array = np.asarray(value)
    little = array.dtype.newbyteorder("<") if array.dtype.isbuiltin != 2 else array.dtype  # 2: of ml_dtypes
    if little not in _NAMES:
        raise FormatError(
            f"the tensor {quote(name)} has a type that safetensors files do not have",
            got=str(array.dtype),
            expected=", ".join(str(dtype) for dtype in _TYPES.values()),
        )
    return np.ascontiguousarray(array, little).reshape(array.shape)
