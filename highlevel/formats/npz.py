"""Reads and writes NumPy archives (`.npz`), without pickles.

A zip archive with one `.npy` member per array: a short header – a Python literal with type, order and shape – and the
array's bytes.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.archive import Archive, check_name, write_member
from highlevel.formats.atomic import replacing
from highlevel.formats.guard import as_bytes, bytes_of, check_bool, check_shape, quote, reading, short

_KIND = "NumPy archive"
_KINDS = "biufcSU"
_MAX_HEADER_BYTES = 10_000
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}
_HEADER = re.compile(
    r"\{'descr': ?'(?P<type>[<>|=][biufcSU][1-9]\d{0,8})', ?'fortran_order': ?(?P<order>True|False), ?"
    r"'shape': ?\((?P<shape>(?:\d+L?, ?)*(?:\d+L?)?)\),? ?\}\s*"
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays by name, in the archive's order; `np.savez(path, a, b)` names them "arr_0", "arr_1"."""
    with reading(path, _KIND) as file:
        archive = Archive(file)
        return {_array_name(member): _read_array(archive, member) for member in archive.names}


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, not compressed; after a crash the old file or the new one is there."""
    sources = {name: _portable(name, value) for name, value in arrays.items()}
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in sources.items():
            with write_member(archive, f"{name}.npy") as member:
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
                member.write(header.getvalue())
                member.write(as_bytes(array if array.flags.c_contiguous else array.T))


def _array_name(member: str) -> str:
    if not member.endswith(".npy"):
        raise FormatError(f"the archive holds {quote(member)}, which is no array", expected="members *.npy")
    return member[: -len(".npy")]


def _read_array(archive: Archive, member: str) -> np.ndarray:
    what = f"the array {_array_name(member)!r}"
    data = archive.read_array(member)
    dtype, columns_first, shape, start = _read_header(data, what)
    body = data[start:]
    if body.nbytes != bytes_of(shape, dtype):
        raise FormatError(
            f"{short(what)} has bytes that do not fit its shape",
            got=f"{body.nbytes:,} bytes for {dtype} {shape}",
            expected=f"{bytes_of(shape, dtype):,} bytes",
        )
    array: np.ndarray = np.ndarray(shape, dtype, body, order="F" if columns_first else "C")
    if dtype.kind == "U" and array.size:
        points: np.ndarray = np.ndarray(body.nbytes // 4, np.dtype("u4").newbyteorder(dtype.byteorder), body)
        if int(points.max()) > sys.maxunicode:
            raise FormatError(f"{short(what)} holds text that is no Unicode")
    check_bool(body.view(np.bool_) if dtype == np.bool_ else array, what)
    return array.astype(dtype.newbyteorder("="), order="K", copy=False)


def _read_header(data: np.ndarray, what: str) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Type, order, shape and length of an array's header, which is read as text, not evaluated."""
    magic = data[:8].tobytes()
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in _LENGTHS:
        raise FormatError(f"{short(what)} is no array of NumPy", got=quote(magic))
    layout = _LENGTHS[magic[6:]]
    start = 8 + struct.calcsize(layout)
    (length,) = struct.unpack(layout, data[8:start].tobytes())
    if length > _MAX_HEADER_BYTES:
        raise FormatError(f"{short(what)} has a header beyond reason", got=f"{length:,} bytes")
    text = data[start : start + length].tobytes().decode("latin-1")
    match = _HEADER.fullmatch(text)
    if not match:
        raise FormatError(
            f"{short(what)} has a type that is never loaded, or a damaged header",
            got=short(text),
            expected="numbers, truth values or text of fixed length",
        )
    sizes = [int(size.rstrip("L")) for size in match["shape"].replace(" ", "").split(",") if size]
    return np.dtype(match["type"]), match["order"] == "True", check_shape(sizes, what), start + length


def _portable(name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise FormatError("arrays need names of text", got=quote(name))
    check_name(f"{name}.npy")
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS or array.dtype.isbuiltin == 2:
        raise FormatError(
            f"the array {quote(name)} has a type that NumPy archives do not have",
            got=str(array.dtype),
            hint="safetensors files hold every type of this library",
        )
    return array if array.flags.c_contiguous or array.flags.f_contiguous else np.ascontiguousarray(array)
