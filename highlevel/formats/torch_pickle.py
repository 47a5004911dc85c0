"""Reads PyTorch's files – `.pth`/`.pt` in both container formats, and TorchScript archives – without PyTorch.

Zip archives (PyTorch 1.6 and later) hold `<root>/data.pkl` and, per storage, raw bytes in `<root>/data/<key>`.
Legacy files are five pickles – magic number, version, system facts, the object, the storages' keys – followed by the
storages, each as an int64 length and raw bytes. A tensor is a view of a storage: type, offset, sizes and strides.
TorchScript archives are zip archives whose pickle holds instances of classes named `__torch__.…`; their attributes are
read, their code is not.

Arrays are views of their storages, as in PyTorch: nothing is copied, and tensors that shared memory still do.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from highlevel.errors import FormatError
from highlevel.formats import pickles
from highlevel.formats.archive import Archive
from highlevel.formats.guard import (
    SLACK_BYTES,
    Budget,
    bytes_of,
    check_bool,
    check_shape,
    fill,
    nearest,
    quote,
    reading,
    short,
    size_of,
)
from highlevel.formats.pickles import Call, Opaque, Record

_KIND = "PyTorch file"
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
# Tensors may share storages (tied weights) or repeat elements (expanded tensors); all of them together may have this
# many times the bytes of the file.
_MAX_SHARING = 16
_MAX_MODULES = 100_000

_TYPES: dict[str, Any] = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
_STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_WRAPPERS = ("state_dict", "model_state_dict")


def read(path: str | os.PathLike[str]) -> Any:
    """The object in the file: dicts, lists, tuples, numbers and strings, with a NumPy array for every tensor.

    Instances of TorchScript classes are `Record`s, dicts of their attributes; element types (`torch.float32`) are
    NumPy dtypes and devices are strings. Anything else is refused.
    """
    with reading(path, _KIND) as file:
        return _read(file)[0]


def state_dict(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """The weights in the file by name, in the file's order.

    A checkpoint that holds the weights under "state_dict" or "model_state_dict" is unwrapped; `key` names another
    entry ("model", "ema.state_dict"). Of a TorchScript module come its parameters and buffers, named as PyTorch does.
    """
    with reading(path, _KIND) as file:
        tree, archive = _read(file)
        for part in key.split(".") if key else ():
            if not isinstance(tree, dict) or part not in tree:
                known = tree if isinstance(tree, dict) else ()
                raise FormatError(f"the checkpoint has no entry {part!r}", hint=nearest(part, known))
            tree = tree[part]
        if isinstance(tree, Record):
            return dict(_module_tensors(tree, _declared_tensors(archive)))
        return _weights(tree if key else _unwrap(tree))


def _read(file: BinaryIO) -> tuple[Any, Archive | None]:
    head = file.read(512)
    file.seek(0)
    if head[:2] == b"PK":
        archive = Archive(file)
        return _read_zip(archive, size_of(file)), archive
    if head[257:262] == b"ustar":
        raise FormatError(
            "the file has the tar format of PyTorch before 0.1.10, which is not read",
            hint="load it with an old PyTorch and save it again with torch.save",
        )
    return _read_legacy(file, size_of(file)), None


# ---- storages and tensors


@dataclass(slots=True)
class _Storage:
    """Raw memory that tensors look into."""

    data: np.ndarray
    dtype: np.dtype[Any] | None  # None: untyped, the tensor says

    def typed(self, dtype: np.dtype[Any]) -> np.ndarray:
        count = self.data.nbytes // dtype.itemsize
        return self.data[: count * dtype.itemsize].view(dtype)


class _Loader:
    """Resolves what a PyTorch pickle refers to: names from a closed table, and storages from `open_storage`."""

    def __init__(self, file_bytes: int, open_storage: Callable[[str, int], np.ndarray], opaque: bool) -> None:
        self.open_storage = open_storage
        self.opaque = opaque
        self.storages: dict[str, _Storage] = {}
        self.unchecked: list[np.ndarray] = []  # boolean tensors, whose bytes may not be there yet
        self.budget = Budget(SLACK_BYTES + _MAX_SHARING * file_bytes)
        self.names = dict(_NAMES)
        self.names |= {
            ("torch._utils", "_rebuild_tensor"): Call("tensor", self.tensor),
            ("torch._utils", "_rebuild_tensor_v2"): Call("tensor", self.tensor_v2),
            ("torch._utils", "_rebuild_tensor_v3"): Call("tensor", self.tensor_v3),
        }

    def resolve(self, module: str, name: str) -> Any:
        if (module, name) in self.names:
            return self.names[module, name]
        if self.opaque and (module == "__torch__" or module.startswith("__torch__.")):
            return Opaque(f"{module}.{name}")
        raise pickles.blocked(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise FormatError(
                "the pickle refers to something that is no storage",
                got=quote(pid),
                hint="save weights only: torch.save(model.state_dict(), path)",
            )
        kind, key, count, view = pid[1], pid[2], pid[4], pid[5] if len(pid) == 6 else None
        if not isinstance(kind, _StorageType) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise FormatError("the pickle refers to an impossible storage", got=quote(pid))
        size_bytes = count * (kind.dtype.itemsize if kind.dtype else 1)
        if key not in self.storages:
            self.storages[key] = _Storage(self.open_storage(key, size_bytes), kind.dtype)
        storage = self.storages[key]
        if storage.data.nbytes != size_bytes or storage.dtype != kind.dtype:
            raise FormatError(f"the storage {quote(key)} is described in two ways")
        return _sub_storage(storage, view) if view is not None else storage

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: np.dtype[Any] | None = None
    ) -> np.ndarray:
        if not isinstance(storage, _Storage):
            raise FormatError("a tensor in the pickle has no storage", got=type(storage).__name__)
        dtype = dtype or storage.dtype
        if dtype is None:
            raise FormatError("a tensor in the pickle has no element type")
        shape, stride = check_shape(size, "a tensor"), check_shape(stride, "a tensor's strides")
        base = storage.typed(dtype)
        check_bounds(base.size, offset, shape, stride)
        self.budget.take(bytes_of(shape, dtype), "a tensor")
        if 0 in shape:
            return np.empty(shape, dtype)
        strides = tuple(step * dtype.itemsize for step in stride)
        array: np.ndarray = np.ndarray(shape, dtype, base, offset * dtype.itemsize, strides)
        if dtype == np.bool_:
            self.unchecked.append(base)
        return array

    def tensor_v2(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
    ) -> np.ndarray:
        _refuse_lazy_bits(metadata)
        return self.tensor(storage, offset, size, stride)

    def tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> np.ndarray:
        _refuse_lazy_bits(metadata)
        if not isinstance(dtype, np.dtype):
            raise FormatError("a tensor in the pickle has an unknown element type", got=quote(dtype))
        return self.tensor(storage, offset, size, stride, dtype)

    def check(self) -> None:
        """Looks at the bytes of boolean tensors, once all storages are filled."""
        for base in self.unchecked:
            check_bool(base, "a boolean storage")


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype[Any] | None


def check_bounds(elements: int, offset: Any, shape: Sequence[int], stride: Sequence[int]) -> None:
    """Checks that every element of a tensor lies inside its storage."""
    valid = type(offset) is int and offset >= 0 and len(shape) == len(stride)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=False)) if valid else 0
    if not valid or (0 not in shape and last >= elements):
        raise FormatError(
            "a tensor reaches outside of its storage",
            got=short(f"offset {offset!r}, sizes {tuple(shape)}, strides {tuple(stride)}"),
            expected=f"elements 0 to {elements - 1:,}",
        )


def _sub_storage(storage: _Storage, view: Any) -> _Storage:
    """A storage that is a slice of another one, as files of PyTorch 0.3 have them: (key, offset, size)."""
    if not isinstance(view, tuple) or len(view) != 3 or storage.dtype is None:
        raise FormatError("the pickle refers to an impossible part of a storage", got=quote(view))
    typed = storage.typed(storage.dtype)
    check_bounds(typed.size, view[1], check_shape(view[2:], "a part of a storage"), (1,))
    return _Storage(typed[view[1] : view[1] + view[2]].view(np.uint8), storage.dtype)


def _refuse_lazy_bits(metadata: Any) -> None:
    """Conjugated and negated tensors are stored as they were before; the bits say what is still to be done."""
    if metadata:
        raise FormatError(
            "a tensor is stored with a pending operation", got=quote(metadata), hint="save tensor.resolve_conj()"
        )


# ---- the closed table of names


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    items = items.items() if isinstance(items, dict) else items
    pairs = [(key, value) for key, value in items]
    pickles.check_keys(key for key, _ in pairs)
    return dict(pairs)


def _set(items: Any = ()) -> set[Any]:
    pickles.check_keys(items)
    return set(items)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _same_tensor(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes of its own: the attributes are dropped."""
    if not isinstance(function, Call) or not isinstance(arguments, tuple):
        raise FormatError("a tensor in the pickle is made by something that is no function")
    return function.function(*arguments)


def _size(items: Any = ()) -> tuple[int, ...]:
    return check_shape(items, "torch.Size")


def _device(*parts: Any) -> str:
    return ":".join(str(part) for part in parts[:2] if isinstance(part, (str, int)))


def _typed_list(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise FormatError("a typed list in the pickle is none", got=type(items).__name__)
    return items


def _tagged(value: Any, *_: Any) -> Any:
    return value


_NAMES: dict[tuple[str, str], Any] = {
    **pickles.NUMPY_NAMES,
    **{("torch", name): _StorageType(np.dtype(_TYPES[kind])) for name, kind in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): _StorageType(None),
    **{("torch", name): np.dtype(kind) for name, kind in _TYPES.items()},
    ("collections", "OrderedDict"): Call("OrderedDict", _ordered_dict),
    ("builtins", "set"): Call("set", _set),
    ("__builtin__", "set"): Call("set", _set),  # its name in Python 2
    ("torch", "Size"): Call("torch.Size", _size),
    ("torch", "device"): Call("torch.device", _device),
    ("torch", "Tensor"): "torch.Tensor",
    ("torch.nn.parameter", "Parameter"): "torch.nn.parameter.Parameter",
    ("torch._utils", "_rebuild_parameter"): Call("parameter", _parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Call("parameter", _parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Call("tensor", _same_tensor),
    **{
        ("torch.jit._pickle", name): Call(name, _typed_list)
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
    },
    ("torch.jit._pickle", "restore_type_tag"): Call("restore_type_tag", _tagged),
    ("argparse", "Namespace"): Opaque("argparse.Namespace"),
}


# ---- the two containers


def _read_zip(archive: Archive, file_bytes: int) -> Any:
    roots = [name[: -len("data.pkl")] for name in archive.names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1:
        raise FormatError(
            "the archive is none of PyTorch's",
            got=f"{len(roots)} members <name>/data.pkl",
            expected="one",
            hint="TorchScript archives of PyTorch before 1.4 are not read",
        )
    root = roots[0]
    if f"{root}byteorder" in archive:
        _check_little_endian(archive.read(f"{root}byteorder") == b"little")
    allowance = Budget(SLACK_BYTES + file_bytes)

    def open_storage(key: str, size_bytes: int) -> np.ndarray:
        allowance.take(size_bytes, f"the storage {key!r}")
        if archive.size(f"{root}data/{key}") != size_bytes:
            raise FormatError(
                f"the storage {quote(key)} has the wrong size",
                got=f"{archive.size(f'{root}data/{key}'):,} bytes",
                expected=f"{size_bytes:,} bytes",
            )
        data = np.empty(size_bytes, np.uint8)
        archive.read_into(f"{root}data/{key}", data)
        return data

    script = f"{root}constants.pkl" in archive
    loader = _Loader(file_bytes, open_storage, opaque=script)
    stream = io.BytesIO(archive.read(f"{root}data.pkl"))
    tree = pickles.load(stream, file_bytes, loader.resolve, loader.persistent_load)
    loader.check()
    return tree


def _read_legacy(file: BinaryIO, file_bytes: int) -> Any:
    def unpickle(loader: _Loader | None = None) -> Any:
        if loader is None:
            return pickles.load(file, file_bytes, pickles.resolve_nothing)
        return pickles.load(file, file_bytes, loader.resolve, loader.persistent_load)

    if unpickle() != _MAGIC:
        raise FormatError("the file does not begin with PyTorch's magic number")
    if unpickle() != _LEGACY_VERSION:
        raise FormatError("the file has an unknown version of PyTorch's legacy format", expected=_LEGACY_VERSION)
    facts = unpickle()
    _check_little_endian(isinstance(facts, dict) and facts.get("little_endian") is True)
    claims = Budget(file_bytes)  # the storages follow the pickles, so they cannot be longer than the file

    def open_storage(key: str, size_bytes: int) -> np.ndarray:
        claims.take(size_bytes, f"the storage {key!r}")
        return np.empty(size_bytes, np.uint8)

    loader = _Loader(file_bytes, open_storage, opaque=False)
    tree = unpickle(loader)
    keys = unpickle()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("the file has no list of its storages", got=quote(keys))
    if len(set(keys)) != len(keys) or set(keys) != set(loader.storages):
        raise FormatError("the file's list of storages differs from the storages in use")
    for key in keys:
        _fill_storage(file, key, loader.storages[key])
    loader.check()
    return tree


def _fill_storage(file: BinaryIO, key: str, storage: _Storage) -> None:
    what = f"the storage {key!r}"
    length = np.empty(1, "<i8")
    fill(file, length, what)
    expected = storage.data.nbytes // (storage.dtype.itemsize if storage.dtype else 1)
    if int(length[0]) != expected:
        raise FormatError(f"{short(what)} has the wrong length", got=int(length[0]), expected=expected)
    fill(file, storage.data, what)


def _check_little_endian(little: bool) -> None:
    if not little:
        raise FormatError(
            "the file was written on a big-endian machine, which is not read",
            hint="load it with PyTorch and save it again",
        )


# ---- from objects to weights


def _unwrap(tree: Any) -> Any:
    if isinstance(tree, dict):
        return next((tree[name] for name in _WRAPPERS if isinstance(tree.get(name), dict)), tree)
    return tree


def _weights(tree: Any) -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        raise FormatError("the file holds no weights by name", got=type(tree).__name__, expected="a state dict")
    others = [name for name, value in tree.items() if not isinstance(name, str) or not isinstance(value, np.ndarray)]
    if others:
        nested = [name for name in others if isinstance(tree[name], dict)]
        raise FormatError(
            "the file holds more than weights by name",
            got=short(", ".join(f"{name!r}: {type(tree[name]).__name__}" for name in others)),
            expected="names and tensors",
            hint=f"choose an entry, e.g. key={quote(nested[0])}" if nested else None,
        )
    return dict(tree)


def _declared_tensors(archive: Archive | None) -> dict[str, frozenset[str]]:
    """The names of parameters and buffers by class, which only the archive's source text tells apart from others."""
    declared: dict[str, frozenset[str]] = {}
    for member in archive.names if archive else ():
        match = re.fullmatch(r"[^/]+/code/(__torch__(?:/.*)?)\.py", member)
        if not match or archive is None:
            continue
        module = match[1].replace("/", ".")
        text = archive.read(member).decode()
        for name, body in re.findall(r"^class (\w+)\(Module\):\n((?:  __\w+__ = .*\n)*)", text, re.MULTILINE):
            lists = dict(re.findall(r"  (__\w+__) = \[(.*)\]", body))
            if "__parameters__" in lists and "__buffers__" in lists:
                declared[f"{module}.{name}"] = frozenset(re.findall(r'"([^"]*)"', "".join(lists.values())))
    return declared


def _module_tensors(root: Record, declared: dict[str, frozenset[str]]) -> Iterator[tuple[str, np.ndarray]]:
    """Walks a tree of TorchScript modules; without declarations every tensor attribute counts as a weight."""
    visits = 0

    def walk(module: Record, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
        nonlocal visits
        visits += 1
        if visits > _MAX_MODULES:
            raise FormatError("the module tree has no end", expected=f"at most {_MAX_MODULES:,} modules")
        names = declared.get(module.class_name, module)
        for name, value in module.items():
            if isinstance(value, np.ndarray) and name in names:
                yield f"{prefix}{name}", value
        for name, value in module.items():
            if isinstance(value, Record):
                yield from walk(value, f"{prefix}{name}.")

    yield from walk(root, "")
