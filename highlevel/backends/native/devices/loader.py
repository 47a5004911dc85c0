"""Object code into executable memory, through LLVM's ORC linker.

A linker loads 40 micro-kernels in 1.3 ms (a new linker for each load: 2.3 ms; MCJIT: 2.7 ms), and keeps 9 KiB of each
load until it ends itself. So one serves a number of loads, and ends with the last library that it has loaded. A missing
symbol is an error that names it. Code is unloaded when its `Library` is no longer referred to.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.codegen.targets.compiler import create_machine, exclusive
from highlevel.backends.native.codegen.targets.symbols import undefined
from highlevel.errors import BackendError

LOADS = 64  # by one linker
_linker: Any = None
_loads = itertools.count()
_inherited: list[Any] = []  # what was loaded before a fork: it stays where it is, in the child


def c_functions() -> dict[str, int]:
    """Addresses of what generated code may call of the C library (`memmove` does what `memcpy` does)."""
    move = ctypes.cast(ctypes.memmove, ctypes.c_void_p).value
    fill = ctypes.cast(ctypes.memset, ctypes.c_void_p).value
    assert move and fill
    return {"memcpy": move, "memmove": move, "memset": fill}


class Library:
    """Loaded objects. Addresses are valid for as long as the library is there."""

    def __init__(self, tracker: Any, linker: Any, addresses: Mapping[str, int], code_bytes: int) -> None:
        self._tracker, self._linker = tracker, linker
        self._process = os.getpid()
        self.addresses = addresses
        self.code_bytes = code_bytes

    def address(self, symbol: str) -> int:
        return self.addresses[symbol]

    def function(self, symbol: str, *arguments: Any, result: Any = None) -> Any:
        """A function as ctypes calls it: without Python's lock. It keeps the library."""
        function = ctypes.CFUNCTYPE(result, *arguments)(self.addresses[symbol])
        function.library = self  # type: ignore[attr-defined]
        return function

    def close(self) -> None:
        """Unloads the code; nobody may be running it."""
        if self._tracker is not None:
            if self._process == os.getpid():
                with exclusive():
                    self._tracker.close()
                    self._tracker = self._linker = None
            else:
                _inherited.append((self._tracker, self._linker))
                self._tracker = self._linker = None

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # at the very end modules are empty, and memory goes with the process
            self.close()


def link(objects: Iterable[Object], imports: Mapping[str, int] | None = None, exports: Sequence[str] = ()) -> Library:
    """Loads objects that may call each other, what `imports` names, and memcpy, memmove and memset.

    exports: symbols whose addresses are wanted, by default those of all objects
    """
    distinct = {made.symbol: made for made in objects}
    wanted = list(exports) or list(distinct)
    builder = llvm.JITLibraryBuilder()
    for made in distinct.values():
        builder.add_object_img(made.code)
    for name, address in {**c_functions(), **(imports or {})}.items():
        builder.import_symbol(name, address)
    for name in wanted:
        builder.export_symbol(name)
    with exclusive():
        try:
            number = next(_loads)
            linker = _current_linker(number)
            tracker = builder.link(linker, f"library{number}")
        except RuntimeError as error:
            missing = [name for made in distinct.values() for name in undefined(made.code)]
            missing = sorted(set(missing) - set(distinct) - set(c_functions()) - set(imports or {}))
            raise BackendError(
                "generated code cannot be linked",
                got=f"{error}" + (f"; undefined: {', '.join(missing[:8])}" if missing else ""),
                expected="calls of other units, of the device's functions, memcpy, memmove and memset only",
            ) from None
    code_bytes = sum(len(made.code) for made in distinct.values())
    return Library(tracker, linker, {name: tracker[name] for name in wanted}, code_bytes)


def _current_linker(load: int) -> Any:
    global _linker
    if _linker is None or load % LOADS == 0:
        target = host()
        machine = create_machine(target.triple, target.cpu, target.features, jit=True)
        # ORC's newer half does not have all of x86's object formats, its older half not all of ARM's.
        _linker = llvm.create_lljit_compiler(machine, use_jit_link=target.arch != "x86_64", suppress_errors=True)
    return _linker


def _forget_linker() -> None:
    global _linker
    if _linker is not None:
        _inherited.append(_linker)
        _linker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_linker)
