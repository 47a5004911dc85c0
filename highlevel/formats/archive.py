"""Zip archives as a mapping from names to bytes. Members are read in memory, never unpacked to disk."""

from __future__ import annotations

import io
import shutil
import zipfile
from typing import Any, BinaryIO

import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.guard import CHUNK_BYTES, MAX_RATIO, SLACK_BYTES, Budget, fill, nearest, quote, short, size_of

# Bounds the table of contents (some 50,000 members), which `zipfile` reads in one piece and then expands tenfold.
_MAX_READ_BYTES = 4 << 20


class Archive:
    """The members of an open zip file, checked as a whole before any is read.

    Refused: names given twice, names that could leave a folder, encrypted members, methods other than "stored" and
    "deflated", members that overlap, and contents that expand more than a hundredfold.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(_BoundedReads(file))
        self._members: dict[str, zipfile.ZipInfo] = {}
        archive_bytes = size_of(file)
        stored = Budget(archive_bytes)
        expanded = Budget(SLACK_BYTES + MAX_RATIO * archive_bytes)
        for member in self._zip.infolist():
            _check_member(member)
            if member.filename in self._members:
                raise FormatError(f"the archive holds {quote(member.filename)} twice")
            stored.take(member.compress_size, f"the archive's member {member.filename!r}")
            expanded.take(member.file_size, f"the archive's member {member.filename!r}")
            self._members[member.filename] = member

    @property
    def names(self) -> tuple[str, ...]:
        """All members but folders, in the order of the table of contents."""
        return tuple(name for name in self._members if not name.endswith("/"))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Bytes of a member, uncompressed."""
        return self._member(name).file_size

    def read(self, name: str) -> bytes:
        """A small member's bytes; its checksum is verified."""
        return self.read_array(name).tobytes()

    def read_array(self, name: str) -> np.ndarray:
        """A member's bytes as an array of uint8; its checksum is verified."""
        array = np.empty(self.size(name), np.uint8)
        self.read_into(name, array)
        return array

    def read_stream(self, name: str) -> io.BytesIO:
        """A member held in memory once, as a file that can be read at any position; its checksum is verified."""
        stream = io.BytesIO()
        with self._zip.open(self._member(name)) as source:
            shutil.copyfileobj(source, stream, CHUNK_BYTES)
        if stream.tell() != self.size(name):
            raise FormatError(f"the archive's member {quote(name)} is cut short")
        stream.seek(0)
        return stream

    def read_into(self, name: str, array: np.ndarray) -> None:
        """Fills a contiguous array with a member of the same size; its checksum is verified."""
        what = f"the archive's member {name!r}"
        if array.nbytes != self.size(name):
            raise FormatError(
                f"{short(what)} has the wrong size",
                got=f"{self.size(name):,} bytes",
                expected=f"{array.nbytes:,} bytes",
            )
        with self._zip.open(self._member(name)) as source:
            fill(source, array, what)
            source.read(1)  # `zipfile` compares the checksum when it meets the end

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise FormatError(f"the archive has no member {quote(name)}", hint=nearest(name, self._members))
        return self._members[name]


def check_name(name: str) -> None:
    """Names are keys here, but the next program may take them for paths: none may lead out of a folder."""
    parts = name.split("/")
    if ".." in parts or name.startswith("/") or "\\" in name or ":" in parts[0] or "\0" in name:
        raise FormatError(f"the archive's member {quote(name)} has a name that could leave its folder")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = quote(member.filename)
    check_name(member.filename)
    if member.flag_bits & 0x1:
        raise FormatError(f"the archive's member {name} is encrypted", expected="an archive without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"the archive's member {name} is packed by an unusual method",
            got=f"method {member.compress_type}",
            expected="stored or deflated",
        )
    limit = SLACK_BYTES + MAX_RATIO * member.compress_size
    if member.compress_type == zipfile.ZIP_STORED:
        limit = member.compress_size
    if member.file_size > limit:
        raise FormatError(
            f"the archive's member {name} would expand beyond reason",
            got=f"{member.file_size:,} bytes from {member.compress_size:,}",
            expected=f"at most {limit:,} bytes",
        )


class _BoundedReads:
    """A file whose single reads are bounded: the length of the table of contents is a claim of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_MAX_READ_BYTES + 1 if size < 0 else min(size, _MAX_READ_BYTES + 1))
        if len(data) > _MAX_READ_BYTES:
            raise FormatError(
                "the archive's table of contents is beyond reason", expected=f"at most {_MAX_READ_BYTES:,} bytes"
            )
        return data


def write_member(archive: zipfile.ZipFile, name: str) -> Any:
    """A stream for a new member: stored, not deflated, and with a fixed date, so that equal content is equal bytes."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.external_attr = 0o644 << 16
    return archive.open(member, "w", force_zip64=True)
