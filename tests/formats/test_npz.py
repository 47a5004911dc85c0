"""NumPy archives: interchangeable with `np.savez` and `np.load`, without pickles, and not larger than they say."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import npz

Saved = Callable[..., Path]
GRID = np.arange(24.0).reshape(4, 6)
ARRAYS: dict[str, np.ndarray] = {
    "grid": GRID,
    "columns": GRID.T,
    "part": GRID[::2, ::3],
    "scalar": np.array(3, np.int8),
    "nothing": np.zeros((2, 0, 3), np.float16),
    "flags": np.array([[True], [False]]),
    "text": np.array(["a", "üü"]),
    "bytes": np.array([b"ab", b"c"]),
    "complex": np.array([1 + 2j]),
    "folder/name": np.arange(3, dtype=np.uint64),
}


def archive_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + data


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape
        np.testing.assert_array_equal(ours[name], array)


def test_a_round_trip_and_what_numpy_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    npz.write(path, ARRAYS)
    assert_same(npz.read(path), ARRAYS)
    with np.load(path, allow_pickle=False) as theirs:
        assert_same(dict(theirs), ARRAYS)
    npz.read(path)["grid"][...] = 0  # arrays are the reader's own


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "x.npz"
    save(path, GRID, GRID.T, big=GRID.astype(">i4"), **ARRAYS)
    read = npz.read(path)
    np.testing.assert_array_equal(read["arr_0"], GRID)
    np.testing.assert_array_equal(read["arr_1"], GRID.T)
    np.testing.assert_array_equal(read["big"], GRID)
    assert read["big"].dtype == np.int32
    assert_same({name: read[name] for name in ARRAYS}, ARRAYS)


def test_long_headers_and_those_of_python_2(saved: Saved) -> None:
    old = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }   \n", np.zeros(6, "<f4").tobytes())
    header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }"
    new = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + np.ones(2, "<f4").tobytes()
    read = npz.read(saved(archive_of(old=old, new=new)))
    assert read["old"].shape == (2, 3)
    assert read["new"].tolist() == [1, 1]


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", objects=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FormatError, match="never loaded"):
        npz.read(tmp_path / "x.npz")


FLOATS = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy(FLOATS.format("(2,)"), b"1234"), "do not fit its shape"),
        (npy(FLOATS.format("(1000000000000,)"), b"1234"), "do not fit its shape"),
        (npy(FLOATS.format("(99999999999, 99999999999, 0)")), "not a readable"),
        (npy(FLOATS.format("(-1,)"), b"1234"), "never loaded"),
        (npy(FLOATS.format("(1,) + (1,)"), b"1234"), "never loaded"),
        (npy(FLOATS.format("(" + "1, " * 40 + ")"), b"1234"), "impossible shape"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"12345678"), "never loaded"),
        (npy("{'descr': '|V4', 'fortran_order': False, 'shape': (1,), }", b"1234"), "never loaded"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"1234"), "never loaded"),
        (npy("{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }", b"123"), "not a readable"),
        (npy("__import__('os').system('true')"), "never loaded"),
        (npy(FLOATS.format("(1,)"), b"1234", version=b"\x09\x00"), "no array of NumPy"),
        (npy("{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }", b"\x02"), "no truth values"),
        (npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff\xff\xff\xff"), "no Unicode"),
        (npy(" " * 20_000), "beyond reason"),
        (b"\x93NUM", "no array of NumPy"),
        (b"", "no array of NumPy"),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(saved: Saved, member: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        npz.read(saved(archive_of(x=member)))
    assert "file.bin" in str(caught.value)


def test_a_member_that_is_no_array_is_refused(saved: Saved) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError, match="no array"):
        npz.read(saved(stream.getvalue()))


@pytest.mark.parametrize(
    "arrays",
    [{"x": np.array([object()])}, {"../x": np.zeros(1)}, {"/x": np.zeros(1)}, {1: np.zeros(1)}],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(FormatError):
        npz.write(tmp_path / "x.npz", arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        npz.read(tmp_path / "missing.npz")
