"""Damaged files of every format: one kind of error, quickly, within bounded memory, and with no effect outside.

Random mutations of valid files, seeded. A reader either refuses the result with `FormatError` or returns a value;
meanwhile it may open nothing for writing, start nothing, import nothing by name and compile nothing.
"""

from __future__ import annotations

import ast
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import highlevel.formats
from highlevel.errors import FormatError
from highlevel.formats import guard, hdf5, keras_archive, npz, safetensors, torch_pickle

Build = Callable[[Path, type], None]
Read = Callable[[Path], Any]

ARRAYS = {
    "kernel": np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5),
    "bias": np.arange(5, dtype=np.float64),
    "steps": np.array(3),
    "mask": np.array([True, False, True]),
}


def _torch_body(p: Any) -> bytes:
    weights = p.dict(
        **{
            "conv.weight": p.tensor(p.storage("0", 60), size=(3, 4, 5), stride=(20, 5, 1)),
            "conv.bias": p.tensor(p.storage("1", 6, "BFloat16Storage"), size=(3, 2), stride=(1, 3)),
            "steps": p.tensor(p.storage("2", 1, "LongStorage"), size=(), stride=()),
            "mask": p.tensor(p.storage("3", 3, "BoolStorage"), size=(3,), stride=(1,)),
        }
    )
    extras = pickle.dumps({"best": np.float64(0.5), "list": [1, 2.5, None, ("a", b"b")], "array": np.arange(3)}, 2)
    return p.dict(state_dict=weights, epoch=p.number(7), extras=extras[2:-1])


_STORAGES = {
    "0": ARRAYS["kernel"].tobytes(),
    "1": np.arange(6).astype(ml_dtypes.bfloat16).tobytes(),
    "2": (7).to_bytes(8, "little"),
    "3": b"\x01\x00\x01",
}


def _build_torch_zip(path: Path, p: Any) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", p.whole(_torch_body(p)))
        archive.writestr("archive/byteorder", b"little")
        for key, data in _STORAGES.items():
            archive.writestr(f"archive/data/{key}", data)


def _build_torchscript(path: Path, p: Any) -> None:
    layer = p.name("__torch__.nn", "Layer") + b")\x81" + p.dict(weight=p.tensor(), other=p.tensor()) + b"b"
    body = p.name("__torch__", "Net") + b")\x81" + p.dict(layer=layer, training=b"\x89") + b"b"
    source = 'class Layer(Module):\n  __parameters__ = ["weight", ]\n  __buffers__ = []\n  weight : Tensor\n'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", p.whole(body))
        archive.writestr("net/constants.pkl", b"\x80\x02).")
        archive.writestr("net/code/__torch__/nn.py", source)
        archive.writestr("net/data/0", np.arange(6, dtype="<f4").tobytes())


def _build_torch_legacy(path: Path, p: Any) -> None:
    head = p.number(0x1950A86A20F9469CFC6C), p.number(1001), p.dict(little_endian=b"\x88")
    keys = b"](" + b"".join(map(p.text, _STORAGES)) + b"e"
    counts = {"0": 60, "1": 6, "2": 1, "3": 3}
    tail = b"".join(struct.pack("<q", counts[key]) + data for key, data in _STORAGES.items())
    path.write_bytes(b"".join(map(p.whole, (*head, _torch_body(p), keys))) + tail)


def _build_safetensors(path: Path, p: Any) -> None:
    safetensors.write(path, ARRAYS, {"source": "test"})


def _build_foreign_safetensors(path: Path, p: Any) -> None:
    """Without checksums, so that damage reaches the parser's depths."""
    a, b = b'"dtype":"F32","shape":[3,4],"data_offsets":[0,48]', b'"dtype":"BOOL","shape":[],"data_offsets":[48,49]'
    header = b'{"a":{' + a + b'},"b":{' + b + b"}}"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(49))


def _build_hdf5(path: Path, p: Any) -> None:
    attrs = {"": {"model_config": "{}" * 50, "layer_names": ["a", "b"]}, "layer": {"size": 3}}
    hdf5.write(path, {f"layer/{name}": array for name, array in ARRAYS.items()}, attrs)


def _build_rich_hdf5(path: Path, p: Any) -> None:
    """The parts of the format that Keras and other writers use and we do not."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("packed", data=np.arange(500.0), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("chunks", data=np.arange(60.0), chunks=(7,), maxshape=(None,))
        file.attrs["names"] = ["a", "b", "c"]
        for index in range(12):
            file.create_group(f"group {index}").attrs["index"] = index


def _build_keras(path: Path, p: Any) -> None:
    config = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"units": 3}}]}}
    keras_archive.write(path, config, {"keras_version": "3"}, {"layers/dense/vars/0": ARRAYS["kernel"]})


def _build_npz(path: Path, p: Any) -> None:
    npz.write(path, ARRAYS)


def _build_packed_npz(path: Path, p: Any) -> None:
    np.savez_compressed(path.with_suffix(".npz"), **ARRAYS)
    path.with_suffix(".npz").rename(path)


FORMATS: dict[str, tuple[Build, Read]] = {
    "torch zip": (_build_torch_zip, torch_pickle.state_dict),
    "torchscript": (_build_torchscript, torch_pickle.state_dict),
    "torch legacy": (_build_torch_legacy, torch_pickle.state_dict),
    "safetensors": (_build_safetensors, safetensors.read),
    "foreign safetensors": (_build_foreign_safetensors, safetensors.read),
    "hdf5": (_build_hdf5, hdf5.read),
    "rich hdf5": (_build_rich_hdf5, hdf5.read),
    "keras": (_build_keras, keras_archive.read),
    "npz": (_build_npz, npz.read),
    "packed npz": (_build_packed_npz, npz.read),
}
EVERY_FORMAT = pytest.mark.parametrize("name", FORMATS)


# ---- damage


def _mutate(good: bytes, random: np.random.Generator) -> bytes:
    """One to three changes of the kinds that disks, networks and ill will make."""
    data = bytearray(good)
    for _ in range(int(random.integers(1, 4))):
        position = int(random.integers(len(data))) if data else 0
        length = int(random.integers(1, 33))
        kind = random.integers(8)
        if kind == 0:
            data[position : position + 1] = bytes([int(random.integers(256))])
        elif kind == 1 and data:
            data[position] ^= 1 << int(random.integers(8))
        elif kind == 2:
            del data[position : position + length]
        elif kind == 3:
            data[position:position] = random.bytes(length)
        elif kind == 4:
            del data[position:]
        elif kind == 5:
            data[position:position] = data[position : position + length] * int(random.integers(1, 50))
        elif kind == 6:
            value = int(random.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            data[position : position + 4] = struct.pack("<I", value)
        else:
            value = int(random.choice(np.array([0, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1], np.uint64)))
            data[position : position + 8] = struct.pack("<Q", value)
    return bytes(data)


def _resealed(good: bytes, random: np.random.Generator) -> bytes:
    """A zip archive whose members are damaged and whose checksums are right, so that the damage gets past them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(stream, "w") as target:
        names = source.namelist()
        chosen = names[int(random.integers(len(names)))]
        for name in names:
            data = source.read(name)
            target.writestr(name, _mutate(data, random) if name == chosen else data)
    return stream.getvalue()


_FORBIDDEN = ("exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "subprocess.", "socket.")
_watching: list[Path] = []
_seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (isinstance(path, (str, bytes, os.PathLike)) and Path(os.fsdecode(path)) != _watching[0]):
            _seen.append(f"open {path} {mode}")
    elif event.startswith(_FORBIDDEN) or event in ("pickle.find_class", "marshal.loads", "code.__new__"):
        _seen.append(f"{event} {arguments}")


sys.addaudithook(_audit)


@contextmanager
def no_effects(path: Path) -> Iterator[None]:
    """Fails if anything but `path` is opened, or anything is run, imported or compiled."""
    _seen.clear()
    _watching.append(path)
    try:
        yield
    finally:
        _watching.clear()
    assert _seen == []


def _damage(name: str, path: Path, assembler: type, count: int, seed: int) -> tuple[int, int]:
    """Reads `count` mutations; returns how many were refused and how many were read."""
    build, read = FORMATS[name]
    build(path, assembler)
    good = path.read_bytes()
    original = read(path)  # whatever is imported late is imported now, too
    random = np.random.default_rng([seed, *name.encode()])
    refused = 0
    for index in range(count):
        resealed = good[:2] == b"PK" and index % 2
        path.write_bytes(_resealed(good, random) if resealed else _mutate(good, random))
        size_bytes = path.stat().st_size
        started = time.perf_counter()
        tracemalloc.start()
        try:
            with no_effects(path):
                result = read(path)
            if name == "safetensors":  # checksums: what is read is what was written
                assert _listed(result) == _listed(original)
        except FormatError as error:
            refused += 1
            assert str(path) in str(error)
            assert len(str(error).splitlines()) <= 10
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 3 * size_bytes + guard.SLACK_BYTES, f"mutation {index} took {peak:,} bytes"
        assert time.perf_counter() - started < 5, f"mutation {index} took too long"
    return refused, count - refused


def _listed(content: tuple[dict[str, np.ndarray], dict[str, str]]) -> list[Any]:
    tensors, metadata = content
    return [*((name, array.dtype, array.shape, array.tobytes()) for name, array in tensors.items()), metadata]


@EVERY_FORMAT
def test_damaged_files_are_refused_or_read(tmp_path: Path, assembler: type, name: str) -> None:
    refused, _ = _damage(name, tmp_path / "file", assembler, count=300, seed=0)
    assert refused > 30


@pytest.mark.soak
@EVERY_FORMAT
def test_ten_thousand_damaged_files_are_refused_or_read(tmp_path: Path, assembler: type, name: str) -> None:
    refused, read = _damage(name, tmp_path / "file", assembler, count=10_000, seed=1)
    print(f"{name}: {refused} refused, {read} read of 10000, seed 1")
    assert refused > 1000


def test_the_watch_notices_effects(tmp_path: Path) -> None:
    """The checks above can fail: each of these is seen."""
    path = tmp_path / "file"
    for act in (
        lambda: path.with_name("other").write_bytes(b""),
        lambda: eval("1 + 1"),
        lambda: subprocess.run(["true"], check=True),
        lambda: pickle.loads(pickle.dumps(Path)),
    ):
        with pytest.raises(AssertionError), no_effects(path):
            act()


# ---- memory


_MEASURE = """
import sys
from pathlib import Path
import numpy, h5py
from highlevel.formats import hdf5, keras_archive, npz, safetensors, torch_pickle
def peak():
    fields = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(fields[0]) * 1024
format, function, path = sys.argv[1:]
before = peak()
tensors = getattr(globals()[format], function)(path)
print(peak() - before)
"""


@EVERY_FORMAT
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_reading_takes_little_more_than_the_file(tmp_path: Path, assembler: Any, name: str) -> None:
    big = np.random.default_rng(0).normal(size=(8 << 20)).astype(np.float32)
    path = tmp_path / "file"
    if name.startswith("torch"):
        body = assembler.dict(w=assembler.tensor(assembler.storage(count=big.size), size=big.shape, stride=(1,)))
        if name == "torch legacy":
            head = assembler.number(0x1950A86A20F9469CFC6C), assembler.number(1001)
            parts = *head, assembler.dict(little_endian=b"\x88"), body, b"](" + assembler.text("0") + b"e"
            path.write_bytes(b"".join(map(assembler.whole, parts)) + struct.pack("<q", big.size) + big.tobytes())
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/data.pkl", assembler.whole(body))
                archive.writestr("a/data/0", big.tobytes())
    elif name == "keras":
        keras_archive.write(path, {}, {}, {"w": big})
    else:
        module = {"hdf5": hdf5, "npz": npz, "safetensors": safetensors}[name.split()[-1]]
        module.write(path, {"w": big})
    read = FORMATS[name][1]
    module_name = read.__module__.rsplit(".", 1)[1]
    command = [sys.executable, "-c", _MEASURE, module_name, read.__name__, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak_bytes = int(result.stdout)
    assert 0.9 * big.nbytes <= peak_bytes <= 3 * path.stat().st_size + guard.SLACK_BYTES


# ---- rules for the source


_BANNED_IMPORTS = {"pickle", "marshal", "importlib", "subprocess", "ctypes", "shelve", "runpy", "code"}
_BANNED_NAMES = {"eval", "exec", "compile", "__import__", "globals", "extractall", "extract", "system", "popen"}


_SOURCES = sorted(Path(highlevel.formats.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", _SOURCES, ids=lambda path: path.stem)
def test_no_reader_can_run_what_it_reads(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & _BANNED_IMPORTS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in _BANNED_IMPORTS
        elif isinstance(node, ast.Name):
            assert node.id not in _BANNED_NAMES
        elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "re"):
            assert node.attr not in _BANNED_NAMES
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"
