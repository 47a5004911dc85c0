"""Zip archives as data: what could leave a folder, expand without end or be read in two ways is refused."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import archive as archives
from highlevel.formats.archive import Archive


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return bytearray(stream.getvalue())


def test_members_by_name() -> None:
    archive = Archive(io.BytesIO(zipped({"b": b"2", "a/": b"", "a/x": b"one"}, zipfile.ZIP_DEFLATED)))
    assert archive.names == ("b", "a/x")
    assert archive.read("a/x") == archive.read_stream("a/x").read() == b"one"
    array = np.empty(1, np.uint8)
    archive.read_into("b", array)
    assert array.tolist() == [ord("2")]
    with pytest.raises(FormatError, match="wrong size"):
        archive.read_into("a/x", array)
    with pytest.raises(FormatError, match="no member 'a/y'"):
        archive.read("a/y")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:/x", "a\\..\\x"])
def test_names_that_could_leave_a_folder_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="leave its folder"):
        Archive(io.BytesIO(zipped({name: b"1"})))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_given_twice_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", b"good")
        archive.writestr("config.json", b"evil")
    with pytest.raises(FormatError, match="twice"):
        Archive(io.BytesIO(stream.getvalue()))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    data = zipped({"zeros": bytes(200 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20
    with pytest.raises(FormatError, match="beyond reason"):
        Archive(io.BytesIO(data))


def test_small_members_may_expand_a_lot() -> None:
    archive = Archive(io.BytesIO(zipped({"zeros": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)))
    assert archive.read("zeros") == bytes(1 << 20)


def test_many_members_may_not_add_up_to_a_bomb() -> None:
    data = zipped({f"zeros{index}": bytes(40 << 20) for index in range(5)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="claims more memory"):
        Archive(io.BytesIO(data))


def test_members_that_share_bytes_are_refused() -> None:
    """The same stored bytes, listed a hundred times under other names."""
    data = zipped({"a": bytes(10_000)})
    start = data.index(b"PK\x01\x02")
    record, end = data[start : data.index(b"PK\x05\x06")], data[data.index(b"PK\x05\x06") :]
    records = b"".join(record[:46] + bytes([65 + index % 26 + 32 * (index // 26)]) for index in range(40))
    end[8:12] = struct.pack("<HH", 40, 40)
    end[12:16] = struct.pack("<I", len(records))
    with pytest.raises((FormatError, zipfile.BadZipFile)):
        Archive(io.BytesIO(data[:start] + records + end))


def test_a_claimed_size_does_not_allocate() -> None:
    data = zipped({"a": b"1234"})
    start = data.index(b"PK\x01\x02")
    data[start + 20 : start + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    with pytest.raises(FormatError, match="claims more memory"):
        Archive(io.BytesIO(data))


def test_a_wrong_checksum_is_found() -> None:
    data = zipped({"a": b"weights"})
    data[data.index(b"weights")] ^= 1
    with pytest.raises(zipfile.BadZipFile):
        Archive(io.BytesIO(data)).read("a")


def test_encrypted_and_unusually_packed_members_are_refused() -> None:
    data = zipped({"a": b"1234"})
    start = data.index(b"PK\x01\x02")
    encrypted, packed = data.copy(), zipped({"a": b"1234"}, zipfile.ZIP_LZMA)
    encrypted[start + 8] |= 1
    with pytest.raises(FormatError, match="encrypted"):
        Archive(io.BytesIO(encrypted))
    with pytest.raises(FormatError, match="unusual method"):
        Archive(io.BytesIO(packed))


def test_a_table_of_contents_beyond_reason_is_refused() -> None:
    data = zipped({f"member-with-a-long-name-{index:08}-{'x' * 200}": b"" for index in range(20_000)})
    with pytest.raises(FormatError, match="table of contents"):
        Archive(io.BytesIO(data))


def test_members_are_written_stored_and_dateless() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archives.write_member(archive, "a") as member:
        member.write(b"data")
    info = zipfile.ZipFile(stream).getinfo("a")
    assert info.compress_type == zipfile.ZIP_STORED
    assert info.date_time == (1980, 1, 1, 0, 0, 0)
