"""Object code into executable memory, through LLVM's ORC linker.

One linker serves the process: it loads 40 micro-kernels in 1.3 ms (a new linker for them: 2.3 ms; MCJIT: 2.7 ms). A
missing symbol is an error that names it. Code is unloaded when its `Library` is no longer referred to.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm

from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.codegen.targets.compiler import create_machine, exclusive
from highlevel.backends.native.codegen.targets.symbols import undefined
from highlevel.errors import BackendError

_linker: Any = None
_inherited: list[Any] = []  # linkers from before a fork: their code stays where it is, and they are not used again
_numbers = itertools.count()


def c_functions() -> dict[str, int]:
    """Addresses of what generated code may call of the C library (`memmove` does what `memcpy` does)."""
    move = ctypes.cast(ctypes.memmove, ctypes.c_void_p).value
    fill = ctypes.cast(ctypes.memset, ctypes.c_void_p).value
    assert move and fill
    return {"memcpy": move, "memmove": move, "memset": fill}


class Library:
    """Loaded objects. Addresses are valid for as long as the library is there."""

    def __init__(self, tracker: Any, addresses: Mapping[str, int], code_bytes: int) -> None:
        self._tracker = tracker
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
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            if self._process == os.getpid():
                with exclusive():
                    tracker.close()
            else:
                _inherited.append(tracker)

    def __del__(self) -> None:
        if not sys.is_finalizing():
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
            tracker = builder.link(_the_linker(), f"library{next(_numbers)}")
        except RuntimeError as error:
            missing = [name for made in distinct.values() for name in undefined(made.code)]
            missing = sorted(set(missing) - set(distinct) - set(c_functions()) - set(imports or {}))
            raise BackendError(
                "generated code cannot be linked",
                got=f"{error}" + (f"; undefined: {', '.join(missing[:8])}" if missing else ""),
                expected="calls of other units, of the device's functions, memcpy, memmove and memset only",
            ) from None
    return Library(tracker, {name: tracker[name] for name in wanted}, sum(len(made.code) for made in distinct.values()))


def _the_linker() -> Any:
    global _linker
    if _linker is None:
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
