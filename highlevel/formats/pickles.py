"""Reads pickles as data: a small machine for the opcodes that build values, and none that could run code.

Python's own unpickler imports what a file names and calls it. This one never imports anything. A name in the file is
handed to `resolve`, a closed table of the caller's: it gives back a plain value, a `Call` (a function of ours that may
be applied to arguments from the file), or `OPAQUE` (instances become `Record`s: their attributes and nothing else).
Opcodes that are not listed here are refused.

The opcodes are documented in Python's `pickletools`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from highlevel.errors import FormatError
from highlevel.formats.guard import check_shape, quote, short

# Values cost memory that the file's size does not show (an empty dict is one byte in the file and 64 here), so the
# number of opcodes is bounded: a fixed part for small files, and one per 64 bytes of the whole file.
FREE_STEPS = 250_000
BYTES_PER_STEP = 64

_MAX_NAME_BYTES = 1024
_MAX_INTEGER_BYTES = 1024
_KEY_TYPES = frozenset([str, bytes, int, float, bool])


@dataclass(frozen=True, slots=True)
class Call:
    """A function of ours that a pickle may apply to values of its own. It must check them itself."""

    name: str
    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A class of which only the attributes of instances are read."""

    name: str


class Record(dict[Any, Any]):
    """An instance of an opaque class: its attributes. State that is not a set of attributes is kept under "state"."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self.class_name = class_name

    def __repr__(self) -> str:
        return f"<{self.class_name} with {len(self)} attributes>"


Resolve = Callable[[str, str], Any]
PersistentLoad = Callable[[Any], Any]


def load(file: BinaryIO, size_bytes: int, resolve: Resolve, persistent_load: PersistentLoad | None = None) -> Any:
    """Reads one pickle from the file's position and stops right behind it.

    `size_bytes` is the length of the file that the pickle belongs to; it bounds what the pickle may build.
    """
    return _Machine(file, size_bytes, resolve, persistent_load).run()


def blocked(module: str, name: str) -> FormatError:
    """The error for a name that is not in the caller's table."""
    return FormatError(
        f"the pickle refers to {short(f'{module}.{name}')}, which is never loaded",
        expected="tensors, numbers, strings and containers of them",
        hint="save weights only, e.g. torch.save(model.state_dict(), path)",
    )


def resolve_nothing(module: str, name: str) -> Any:
    """The table for pickles of numbers, strings and containers alone."""
    raise blocked(module, name)


class _Machine:
    def __init__(
        self, file: BinaryIO, size_bytes: int, resolve: Resolve, persistent_load: PersistentLoad | None
    ) -> None:
        self.file = file
        self.resolve = resolve
        self.persistent_load = persistent_load
        self.left_bytes = size_bytes - file.tell()
        self.left_steps = FREE_STEPS + size_bytes // BYTES_PER_STEP
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below the open marks
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            self.spend(1)
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise FormatError(
                    f"the pickle uses opcode {code!r}, which is never executed",
                    expected="the opcodes of plain data, protocols 2 to 5",
                )
            operation(self)

    def spend(self, steps: int) -> None:
        self.left_steps -= steps
        if self.left_steps < 0:
            raise FormatError(
                "the pickle builds more objects than the file accounts for",
                hint="the file is damaged, or made to exhaust memory",
            )

    def take(self, count: int) -> bytes:
        """The next bytes; asks for no more than the file has."""
        if not 0 <= count <= self.left_bytes:
            raise FormatError("the pickle is cut short", got=f"{self.left_bytes:,} bytes", expected=f"{count:,}")
        data = self.file.read(count)
        if len(data) != count:
            raise FormatError("the pickle is cut short", got=f"{len(data):,} bytes", expected=f"{count:,}")
        self.left_bytes -= count
        return data

    def unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        data = self.file.readline(_MAX_NAME_BYTES)
        self.left_bytes -= len(data)
        if not data.endswith(b"\n"):
            raise FormatError("the pickle holds a name without an end")
        return data[:-1].decode()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """All values above the last mark."""
        values, self.stack = self.stack, self.outer.pop()
        return values

    def resolve_name(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise FormatError("the pickle names a class by something that is no text")
        return self.resolve(module, name)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise FormatError("the pickle calls with arguments that are no tuple", got=type(arguments).__name__)
        if isinstance(function, Opaque):
            if arguments:
                raise FormatError(f"the pickle creates {short(function.name)} with arguments", expected="none")
            return Record(function.name)
        if not isinstance(function, Call):
            raise FormatError("the pickle calls something that is no function", got=type(function).__name__)
        result = function.function(*arguments)
        self.spend(sys.getsizeof(result) // BYTES_PER_STEP)  # one long value of the file may be an argument many times
        return result


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {}


def _operation(code: bytes) -> Callable[[Callable[[_Machine], None]], Callable[[_Machine], None]]:
    def add(function: Callable[[_Machine], None]) -> Callable[[_Machine], None]:
        _OPERATIONS[code] = function
        return function

    return add


def _reads(layouts: dict[bytes, str], value: Callable[[_Machine, Any], Any]) -> None:
    """Adds opcodes that push what `value` makes of one number, laid out as given, that follows the opcode."""

    def add(code: bytes, layout: str) -> None:
        _OPERATIONS[code] = lambda m: m.push(value(m, m.unpack(layout)))

    for code, layout in layouts.items():
        add(code, layout)


def _integer(m: _Machine, count: int) -> int:
    if count > _MAX_INTEGER_BYTES:
        raise FormatError("the pickle holds an integer beyond reason", got=f"{count:,} bytes")
    return int.from_bytes(m.take(count), "little", signed=True)


def _text_or_bytes(m: _Machine, count: int) -> str | bytes:
    """Python 2 had one type for both. UTF-8 is text; what is not stays bytes, so that nothing is lost."""
    data = m.take(count)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


_reads({b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}, lambda m, number: number)
_reads({b"\x8a": "<B", b"\x8b": "<i"}, _integer)
_reads({b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}, lambda m, count: m.take(count).decode("utf-8", "surrogatepass"))
_reads({b"B": "<I", b"C": "<B", b"\x8e": "<Q"}, lambda m, count: m.take(count))
_reads({b"T": "<i", b"U": "<B"}, _text_or_bytes)


@_operation(b"N")
def _none(m: _Machine) -> None:
    m.push(None)


@_operation(b"\x88")
def _true(m: _Machine) -> None:
    m.push(True)


@_operation(b"\x89")
def _false(m: _Machine) -> None:
    m.push(False)


@_operation(b")")
def _empty_tuple(m: _Machine) -> None:
    m.push(())


@_operation(b"\x80")
def _protocol(m: _Machine) -> None:
    version = m.unpack("<B")
    if not 2 <= version <= 5:
        raise FormatError("the pickle has an unknown protocol", got=version, expected="2 to 5")


@_operation(b"\x95")
def _frame(m: _Machine) -> None:
    m.unpack("<Q")  # a hint for buffering


@_operation(b"(")
def _mark(m: _Machine) -> None:
    m.outer.append(m.stack)
    m.stack = []


@_operation(b"0")
def _pop(m: _Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


@_operation(b"1")
def _pop_mark(m: _Machine) -> None:
    m.pop_mark()


@_operation(b"2")
def _duplicate(m: _Machine) -> None:
    m.push(m.stack[-1])


@_operation(b"]")
def _empty_list(m: _Machine) -> None:
    m.push([])


@_operation(b"l")
def _list(m: _Machine) -> None:
    m.push(m.pop_mark())


@_operation(b"a")
def _append(m: _Machine) -> None:
    value = m.stack.pop()
    _extend(m, [value])


@_operation(b"e")
def _appends(m: _Machine) -> None:
    _extend(m, m.pop_mark())


def _extend(m: _Machine, values: list[Any]) -> None:
    target = m.stack[-1]
    if not isinstance(target, list):
        raise FormatError("the pickle appends to something that is no list", got=type(target).__name__)
    target.extend(values)


@_operation(b"t")
def _tuple(m: _Machine) -> None:
    m.push(tuple(m.pop_mark()))


@_operation(b"\x85")
def _tuple1(m: _Machine) -> None:
    m.stack[-1:] = [(m.stack[-1],)]


@_operation(b"\x86")
def _tuple2(m: _Machine) -> None:
    m.stack[-2:] = [(m.stack[-2], m.stack[-1])]


@_operation(b"\x87")
def _tuple3(m: _Machine) -> None:
    m.stack[-3:] = [(m.stack[-3], m.stack[-2], m.stack[-1])]


@_operation(b"}")
def _empty_dict(m: _Machine) -> None:
    m.push({})


@_operation(b"d")
def _dict(m: _Machine) -> None:
    values = m.pop_mark()
    m.push({})
    _set_items(m, values)


@_operation(b"s")
def _set_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_items(m, [key, value])


@_operation(b"u")
def _set_items_to_mark(m: _Machine) -> None:
    _set_items(m, m.pop_mark())


def _set_items(m: _Machine, values: list[Any]) -> None:
    target = m.stack[-1]
    if not isinstance(target, dict) or isinstance(target, Record):
        raise FormatError("the pickle sets items of something that is no dict", got=type(target).__name__)
    if len(values) % 2:
        raise FormatError("the pickle sets an item without a value")
    check_keys(values[::2])
    target.update(zip(values[::2], values[1::2], strict=True))


@_operation(b"\x8f")
def _empty_set(m: _Machine) -> None:
    m.spend(3)  # a set takes four times the memory of other values
    m.push(set())


@_operation(b"\x90")
def _add_items(m: _Machine) -> None:
    values = m.pop_mark()
    target = m.stack[-1]
    if not isinstance(target, set):
        raise FormatError("the pickle adds to something that is no set", got=type(target).__name__)
    check_keys(values)
    target.update(values)


@_operation(b"\x91")
def _frozen_set(m: _Machine) -> None:
    m.spend(3)
    values = m.pop_mark()
    check_keys(values)
    m.push(frozenset(values))


def check_keys(values: Iterable[Any]) -> None:
    """Keys are plain values or flat tuples of them: to hash tuples within tuples can take forever."""
    for value in values:
        parts = value if type(value) is tuple else (value,)
        if not all(part is None or type(part) in _KEY_TYPES for part in parts):
            raise FormatError("the pickle uses something unusual as a key", got=quote(value))


@_operation(b"q")
def _put(m: _Machine) -> None:
    m.memo[m.unpack("<B")] = m.stack[-1]


@_operation(b"r")
def _long_put(m: _Machine) -> None:
    m.memo[m.unpack("<I")] = m.stack[-1]


@_operation(b"\x94")
def _memoize(m: _Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


@_operation(b"h")
def _get(m: _Machine) -> None:
    m.push(m.memo[m.unpack("<B")])


@_operation(b"j")
def _long_get(m: _Machine) -> None:
    m.push(m.memo[m.unpack("<I")])


@_operation(b"c")
def _global(m: _Machine) -> None:
    module = m.line()
    m.push(m.resolve_name(module, m.line()))


@_operation(b"\x93")
def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.push(m.resolve_name(module, name))


@_operation(b"R")
@_operation(b"\x81")
def _call(m: _Machine) -> None:
    arguments, function = m.stack.pop(), m.stack.pop()
    m.push(m.call(function, arguments))


@_operation(b"b")
def _build(m: _Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(target, Record):
        attributes = state if isinstance(state, dict) else {"state": state}
        m.spend(len(attributes))
        check_keys(attributes)
        target.update(attributes)
    elif isinstance(target, np.ndarray):
        _set_array_state(target, state)
        m.spend(target.nbytes // BYTES_PER_STEP)
    elif isinstance(target, np.dtype):
        _set_dtype_state(target, state)
    elif not isinstance(target, dict):  # attributes of a dict, such as `_metadata` of a state dict, are dropped
        raise FormatError("the pickle sets the state of a value that has none", got=type(target).__name__)


@_operation(b"Q")
def _persistent_id(m: _Machine) -> None:
    if m.persistent_load is None:
        raise FormatError("the pickle refers to data outside of itself")
    m.push(m.persistent_load(m.stack.pop()))


# NumPy values inside pickles: a dtype, a scalar, an array. What NumPy needs is checked here, then NumPy's own
# `__setstate__` is used, because an array may be referred to before its content is known.

_NUMPY_TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])


def _numpy_dtype(name: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in _NUMPY_TYPES:
        raise FormatError("the pickle holds NumPy values of a type that is never loaded", got=quote(name))
    fresh: np.dtype[Any] = np.dtype(name, align=False, copy=True)  # its byte order may be set below
    return fresh


def _set_dtype_state(dtype: np.dtype[Any], state: Any) -> None:
    if not isinstance(state, tuple) or len(state) < 8 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
        raise FormatError("the pickle holds an unusual NumPy type", got=quote(state))
    dtype.__setstate__((3, state[1], None, None, None, -1, -1, 0))  # type: ignore[attr-defined]


def _raw(data: Any) -> bytes:
    """Bytes, which Python 2 may have left as text."""
    return data.encode() if isinstance(data, str) else bytes(memoryview(data))


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    values = np.frombuffer(_raw(data), _known(dtype))
    if values.size != 1:
        raise FormatError("the pickle holds a NumPy scalar of the wrong size")
    return values[0]


def _numpy_empty(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    return np.empty(0, np.uint8)


def _set_array_state(array: np.ndarray, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5 or array.base is not None or array.size:
        raise FormatError("the pickle holds an unusual NumPy array")
    shape, dtype, data = check_shape(state[1], "a NumPy array in the pickle"), _known(state[2]), _raw(state[4])
    array.__setstate__((1, shape, dtype, bool(state[3]), data))  # type: ignore[arg-type]


def _known(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype) or dtype.str[1:] not in _NUMPY_TYPES:
        raise FormatError("the pickle holds NumPy values of a type that is never loaded", got=quote(dtype))
    return dtype


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FormatError("the pickle encodes text in an unusual way", got=quote(encoding))
    return text.encode("latin-1")


_NUMPY_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): Call("numpy.dtype", _numpy_dtype),
    ("numpy", "ndarray"): "numpy.ndarray",
    ("_codecs", "encode"): Call("_codecs.encode", _encode),
    **{(module, "scalar"): Call("numpy.scalar", _numpy_scalar) for module in _NUMPY_CORE},
    **{(module, "_reconstruct"): Call("numpy.empty", _numpy_empty) for module in _NUMPY_CORE},
}
