"""Our weight format: interchangeable with the `safetensors` package, strict, and aware of every damaged byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import safetensors

Saved = Callable[..., Path]

TENSORS: dict[str, np.ndarray] = {
    "layer/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flag": np.array([True, False, True]),
    "scalar": np.array(7, np.int64),
    "half": np.array([1.5, -2.0], np.float16),
    "nothing": np.zeros((0, 3), np.float64),
    "wide ü": np.array([2**63], np.uint64),
}
EXTRA: dict[str, np.ndarray] = {
    "bf16": np.array([1.5, np.inf, -0.0], ml_dtypes.bfloat16),
    "f8": np.array([1.5, 2.0], ml_dtypes.float8_e4m3fn),
    "complex": np.array([1 + 2j], np.complex64),
}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape)
        assert ours[name].tobytes() == theirs[name].tobytes()


def craft(header: Any, data: bytes = b"", padding: bytes = b"") -> bytes:
    """A file with the given header, right or wrong."""
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + padding
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_round_trip_keeps_order_bits_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = TENSORS | EXTRA
    safetensors.write(path, tensors, {"source": "test", "ü": "ö"})
    read, metadata = safetensors.read(path)
    assert list(read) == list(tensors)
    assert_same(read, tensors)
    assert metadata == {"source": "test", "ü": "ö"}
    read["layer/kernel"] += 1  # arrays are the reader's own


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        safetensors.write(tmp_path / name, TENSORS, {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_of_any_layout_and_byte_order_are_written(tmp_path: Path) -> None:
    grid = np.arange(24.0).reshape(4, 6)
    safetensors.write(tmp_path / "x", {"t": grid.T, "part": grid[::2, ::-1], "big": grid.astype(">f4")})
    read, _ = safetensors.read(tmp_path / "x")
    np.testing.assert_array_equal(read["t"], grid.T)
    np.testing.assert_array_equal(read["part"], grid[::2, ::-1])
    np.testing.assert_array_equal(read["big"], grid)
    assert read["big"].dtype == np.float32 and read["big"].dtype.isnative


def test_the_package_reads_our_files(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors.numpy")
    safetensors.write(tmp_path / "x", TENSORS, {"k": "v"})
    assert_same(theirs.load_file(tmp_path / "x"), TENSORS)
    package = pytest.importorskip("safetensors")
    with package.safe_open(tmp_path / "x", "np") as file:
        assert file.metadata()["k"] == "v"


def test_we_read_the_packages_files(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors.numpy")
    theirs.save_file(TENSORS, tmp_path / "x", metadata={"k": "v"})
    read, metadata = safetensors.read(tmp_path / "x")
    assert_same(read, TENSORS)
    assert metadata == {"k": "v"}


def test_types_that_numpy_lacks_are_exchanged_with_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    tensors = {"a": torch.tensor([1.5, -3.0], dtype=torch.bfloat16), "b": torch.tensor([2.0]).to(torch.float8_e5m2)}
    theirs.save_file(tensors, tmp_path / "x")
    read, _ = safetensors.read(tmp_path / "x")
    assert {name: str(array.dtype) for name, array in read.items()} == {"a": "bfloat16", "b": "float8_e5m2"}
    safetensors.write(tmp_path / "y", read)
    for name, tensor in theirs.load_file(tmp_path / "y").items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor.view(torch.uint8), tensors[name].view(torch.uint8))


def test_a_selection_reads_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "x"
    safetensors.write(path, TENSORS, {"k": "v"})
    data = bytearray(path.read_bytes())
    position = data.index(TENSORS["layer/kernel"].tobytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert list(safetensors.read(path, ["scalar", "flag"])[0]) == ["scalar", "flag"]
    assert safetensors.read(path, ()) == ({}, {"k": "v"})
    with pytest.raises(FormatError, match="'layer/kernel' is damaged"):
        safetensors.read(path, ["layer/kernel"])
    with pytest.raises(FormatError, match="no tensor 'layer/kernle'") as caught:
        safetensors.read(path, ["layer/kernle"])
    assert "'layer/kernel'" in str(caught.value)


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    safetensors.write(path, {"a": np.arange(3, dtype=np.float32), "b": np.array([True])}, {"key": "value"})
    good = path.read_bytes()
    random = np.random.default_rng(0)
    for position in range(len(good)):
        for change in (1 << int(random.integers(8)), int(random.integers(1, 256))):
            bad = bytearray(good)
            bad[position] ^= change
            path.write_bytes(bad)
            with pytest.raises(FormatError):
                safetensors.read(path)
    path.write_bytes(good)
    safetensors.read(path)


def test_every_missing_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    safetensors.write(path, {"a": np.arange(3, dtype=np.float32)})
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            safetensors.read(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(FormatError):
        safetensors.read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable"),
        (b"\x05", "not a readable"),
        (struct.pack("<Q", 1 << 40) + b"{}", "impossible length"),
        (struct.pack("<Q", 0), "impossible length"),
        (craft(b"[1, 2]"), "no JSON object"),
        (craft({"a": entry(0, 4, [4])}, b"1234", b"\n"), "no JSON object"),
        (craft({"a": entry(0, 4, [4])}, b"123"), "do not fill the file"),
        (craft({"a": entry(0, 4, [4])}, b"12345"), "do not fill the file"),
        (craft({"a": entry(1, 5, [4])}, b"12345"), "leaves a hole"),
        (craft({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}, b"123456"), "overlaps"),
        (craft({"a": entry(0, 4, [4]), "b": entry(0, 4, [4])}, b"1234"), "overlaps"),
        (craft({"a": entry(0, 4, [3])}, b"1234"), "do not fit its shape"),
        (craft({"a": entry(4, 0, [4])}, b"1234"), "do not fit its shape"),
        (craft({"a": entry(0, 4, [1 << 40, 1 << 40])}, b"1234"), "do not fit its shape"),
        (craft({"a": entry(0, 0, [0, 1 << 62, 1 << 62])}), "not a readable"),
        (craft({"a": entry(-4, 0, [4])}, b"1234"), "impossible shape"),
        (craft({"a": entry(0, 4, [-2, -2])}, b"1234"), "impossible shape"),
        (craft({"a": entry(0, 4, [4.0])}, b"1234"), "impossible shape"),  # type: ignore[list-item]
        (craft({"a": entry(0, 1, [True])}, b"1"), "impossible shape"),
        (craft({"a": entry(0, 4, [1] * 33)}, b"1234"), "impossible shape"),
        (craft({"a": entry(0, 4, [1], "F33")}, b"1234"), "unknown type"),
        (craft({"a": {**entry(0, 4, [4]), "more": 1}}, b"1234"), "not described"),
        (craft({"a": [0, 4]}, b"1234"), "not described"),
        (craft({"a": entry(0, 2, [2], "BOOL")}, b"\x01\x02"), "no truth values"),
        (craft({"__metadata__": {"a": 1}}), "more than strings"),
        (craft(b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{}}', b"1"), "twice"),
        (craft(b'{"a":{"dtype":"U8","shape":' + b"[" * 200_000 + b"]" * 200_000 + b"}}"), "not a readable"),
        (craft(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,' + b"9" * 5000 + b"]}}"), "not a readable"),
        (craft(b'{"a\xff":1}'), "not a readable"),
        (craft({"__metadata__": {"highlevel.crc32": "{}"}}), "unknown version"),
        (craft({"__metadata__": {"highlevel.format": "1"}}), "does not fit"),
        (craft({"__metadata__": {"highlevel.format": "2"}}), "unknown version"),
        (craft({"__metadata__": {"highlevel.format": "1", "highlevel.crc32": "[]"}}), "no JSON object"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(saved: Saved, data: bytes, message: str) -> None:
    path = saved(data)
    with pytest.raises(FormatError, match=message) as caught:
        safetensors.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10


def test_a_header_made_to_exhaust_memory_is_refused(saved: Saved) -> None:
    body = ",".join(f'"{index}":{{}}' for index in range(600_000)).encode()
    with pytest.raises(FormatError, match="beyond reason"):
        safetensors.read(saved(craft(b"{" + body + b"}")))


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    safetensors.write(path, {"a": np.zeros(2)})
    before = path.read_bytes()
    for tensors, metadata in (
        ({"a": np.array(["text"])}, {}),
        ({"a": np.array([object()])}, {}),
        ({"a": np.zeros(2, "c16")}, {}),
        ({1: np.zeros(2)}, {}),
        ({"__metadata__": np.zeros(2)}, {}),
        ({}, {"number": 1}),
        ({}, {"highlevel.crc32": "mine"}),
    ):
        with pytest.raises(FormatError):
            safetensors.write(path, tensors, metadata)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        safetensors.read(tmp_path / "missing")
