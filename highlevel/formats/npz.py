"""Reads and writes NumPy archives (`.npz`), without pickles.

A zip archive with one `.npy` member per array: a short header – a Python literal with type, order and shape – and the
array's bytes.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.archive import Archive, check_name, write_member
from highlevel.formats.atomic import replacing
from highlevel.formats.guard import as_bytes, bytes_of, check_bool, check_shape, reading, short

_KIND = "NumPy archive"
_MAX_HEADER_BYTES = 10_000
_KINDS = "biufcSU"


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
        raise FormatError(f"the archive holds {short(repr(member))}, which is no array", expected="members *.npy")
    return member[: -len(".npy")]


def _read_array(archive: Archive, member: str) -> np.ndarray:
    what = f"the array {_array_name(member)!r}"
    data = archive.read_array(member)
    head = io.BytesIO(data[: _MAX_HEADER_BYTES + 16].tobytes())
    shape, columns_first, dtype = _read_header(head, what)
    if dtype.hasobject or dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise FormatError(
            f"{short(what)} has a type that is never loaded",
            got=short(repr(dtype)),
            expected="numbers, truth values or text of fixed length",
        )
    body = data[head.tell() :]
    if body.nbytes != bytes_of(check_shape(shape, what), dtype):
        raise FormatError(
            f"{short(what)} has bytes that do not fit its shape",
            got=f"{body.nbytes:,} bytes for {dtype} {shape}",
            expected=f"{bytes_of(shape, dtype):,} bytes",
        )
    array: np.ndarray = np.ndarray(shape, dtype, body, order="F" if columns_first else "C")
    if dtype.kind == "U":
        points: np.ndarray = np.ndarray(body.nbytes // 4, np.dtype("u4").newbyteorder(dtype.byteorder), body)
        if points.size and int(points.max()) > sys.maxunicode:
            raise FormatError(f"{short(what)} holds text that is no Unicode")
    check_bool(body.view(np.bool_) if dtype == np.bool_ else array, what)
    return array.astype(dtype.newbyteorder("="), order="K", copy=False)


def _read_header(head: io.BytesIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(head)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FormatError(f"{short(what)} has an unknown version", got=version, expected="1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers that Python 2 wrote are fine
        return readers[version](head, max_header_size=_MAX_HEADER_BYTES)


def _portable(name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise FormatError("arrays need names of text", got=short(repr(name)))
    check_name(f"{name}.npy")
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS or array.dtype.isbuiltin == 2:
        raise FormatError(
            f"the array {short(repr(name))} has a type that NumPy archives do not have",
            got=str(array.dtype),
            hint="safetensors files hold every type of this library",
        )
    return array if array.flags.c_contiguous or array.flags.f_contiguous else np.ascontiguousarray(array)
