"""What every reader shares: one error for all damage, and memory that is granted before it is allocated."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from highlevel.errors import FormatError, did_you_mean

# Reading a file may always take this much memory on top of what the file holds.
SLACK_BYTES = 64 << 20
# A compressed file may grow by this factor; deflate itself could reach 1030.
MAX_RATIO = 100
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 120, 120

# NumPy 1.26 has arrays of at most 32 axes.
MAX_AXES = 32

# Large reads go in pieces of this size.
CHUNK_BYTES = 1 << 20
# All that parsers are known to raise on damaged input. Broad, because a parser meets every kind of nonsense.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], kind: str) -> Iterator[BinaryIO]:
    """The file, open for reading; whatever a parser trips over inside the block becomes a `FormatError` naming it.

    Errors of the system (no such file, no permission, a failing disk) stay what they are.
    """
    with Path(path).open("rb") as file:
        try:
            yield file
        except FormatError as error:
            error.summary = f"{os.fspath(path)}: {error.summary}"
            raise
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise FormatError(
                f"{os.fspath(path)}: not a readable {kind}",
                got=short(f"{type(error).__name__}: {error}"),
                expected=f"an undamaged {kind}",
                hint="the file is damaged, incomplete or of another kind; fetch or save it again",
            ) from error


class Budget:
    """Memory that reading one file may still take. Asked before every allocation whose size the file dictates."""

    def __init__(self, size_bytes: int) -> None:
        self.total_bytes = size_bytes
        self.left_bytes = size_bytes

    def take(self, size_bytes: int, what: str) -> None:
        if size_bytes > self.left_bytes:
            raise FormatError(
                f"{short(what)} claims more memory than the file accounts for",
                got=f"{size_bytes:,} bytes",
                expected=f"at most {self.left_bytes:,} bytes (of {self.total_bytes:,} for the whole file)",
                hint="the file is damaged, or made to exhaust memory",
            )
        self.left_bytes -= size_bytes


def size_of(file: BinaryIO) -> int:
    """The length of an open file; the position stays."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def check_shape(shape: Any, what: str) -> tuple[int, ...]:
    """A shape that came from a file: a short sequence of non-negative integers."""
    valid = isinstance(shape, Sequence) and not isinstance(shape, (str, bytes)) and len(shape) <= MAX_AXES
    if not valid or any(type(size) is not int or size < 0 for size in shape):
        raise FormatError(
            f"{short(what)} has an impossible shape",
            got=quote(shape),
            expected=f"at most {MAX_AXES} sizes, none negative",
        )
    return tuple(shape)


def bytes_of(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Bytes of an array, in exact integers (NumPy's would wrap around)."""
    return math.prod(shape) * dtype.itemsize


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array as plain bytes, whatever its type."""
    return array.reshape(-1).view(np.uint8).data


def fill(file: Any, array: np.ndarray, what: str) -> None:
    """Reads a contiguous array's bytes from the file, in pieces: a zip member copies each piece once more."""
    view, done = as_bytes(array), 0
    while done < len(view):
        count = file.readinto(view[done : done + CHUNK_BYTES])
        if not count:
            raise FormatError(f"{short(what)} is cut short", got=f"{done:,} bytes", expected=f"{len(view):,} bytes")
        done += count


def check_bool(array: np.ndarray, what: str) -> None:
    """Truth values are the bytes 0 and 1: any other would make NumPy compute nonsense."""
    if array.dtype == np.bool_ and array.size and int(array.view(np.uint8).max()) > 1:
        raise FormatError(f"{short(what)} holds bytes that are no truth values", expected="0 or 1")


def parse_json(text: bytes, what: str, file_bytes: int) -> dict[str, Any]:
    """A JSON object in UTF-8. Keys must not repeat: programs disagree about which of two counts.

    Parsed JSON takes up to sixteen times the memory of its text, so the text may be 4 MiB and 1/16 of the file.
    """
    limit = SLACK_BYTES // 16 + file_bytes // 16
    if len(text) > limit:
        raise FormatError(
            f"{short(what)} is beyond reason", got=f"{len(text):,} bytes", expected=f"at most {limit:,} bytes"
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise FormatError(f"{short(what)} holds a key twice", got=quote([key for key, _ in pairs]))
        return values

    value = json.loads(text.decode(), object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise FormatError(f"{short(what)} is no JSON object", got=type(value).__name__)
    return value


def quote(value: object) -> str:
    """A value from a file as it would be written in Python, fit for one line, however large or nested it is."""
    return short(_REPR.repr(value))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest names; a file may have more of them than are worth comparing."""
    return did_you_mean(word, itertools.islice(known, 1000))


def short(text: object, limit: int = 160) -> str:
    """Text from a file, made fit for one line of an error message."""
    line = " ".join(str(text).split())
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
