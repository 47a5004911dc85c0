"""Builders of files that the tests of several formats share. What is hostile here is so with harmless payloads."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


class Pickle:
    """Writes pickles opcode by opcode, so that tests can say what no pickler would."""

    @staticmethod
    def name(module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    @staticmethod
    def text(text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text.encode())) + text.encode()

    @staticmethod
    def number(value: int) -> bytes:
        size = (value.bit_length() + 8) // 8
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)

    @staticmethod
    def tuple(*items: bytes) -> bytes:
        return b"(" + b"".join(items) + b"t"

    @classmethod
    def shape(cls, *sizes: int) -> bytes:
        return cls.tuple(*(cls.number(size) for size in sizes))

    @classmethod
    def call(cls, module: str, name: str, *arguments: bytes) -> bytes:
        return cls.name(module, name) + cls.tuple(*arguments) + b"R"

    @classmethod
    def dict(cls, **items: bytes) -> bytes:
        return b"}(" + b"".join(cls.text(key) + value for key, value in items.items()) + b"u"

    @classmethod
    def storage(cls, key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
        parts = cls.text("storage"), cls.name("torch", kind), cls.text(key), cls.text("cpu"), cls.number(count)
        return cls.tuple(*parts) + b"Q"

    @classmethod
    def tensor(
        cls,
        storage: bytes | None = None,
        offset: int = 0,
        size: tuple[int, ...] = (2, 3),
        stride: tuple[int, ...] = (3, 1),
    ) -> bytes:
        return cls.call(
            "torch._utils",
            "_rebuild_tensor_v2",
            storage or cls.storage(),
            cls.number(offset),
            cls.shape(*size),
            cls.shape(*stride),
            b"\x89",
            cls.call("collections", "OrderedDict"),
        )

    @staticmethod
    def whole(body: bytes, protocol: int = 2) -> bytes:
        return b"\x80" + bytes([protocol]) + body + b"."


def torch_zip(body: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> bytes:
    """A file as `torch.save` writes it, with a pickle of our own making."""
    if storages is None:
        storages = {"0": np.arange(6, dtype="<f4").tobytes()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", Pickle.whole(body))
        archive.writestr("archive/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in members.items():
            archive.writestr(f"archive/{name.replace('__', '.')}", data)
    return stream.getvalue()


def torch_legacy(body: bytes, keys: bytes, tail: bytes, little: bytes = b"\x88") -> bytes:
    """A file as `torch.save` wrote it before 1.6."""
    head = Pickle.number(0x1950A86A20F9469CFC6C), Pickle.number(1001), Pickle.dict(little_endian=little)
    return b"".join(map(Pickle.whole, head)) + Pickle.whole(body) + Pickle.whole(keys) + tail


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Puts bytes into a file."""

    def save(data: bytes, name: str = "file.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


@pytest.fixture
def assembler() -> type[Pickle]:
    return Pickle


@pytest.fixture
def make_torch_zip() -> Callable[..., bytes]:
    return torch_zip


@pytest.fixture
def make_torch_legacy() -> Callable[..., bytes]:
    return torch_legacy
