"""LLVM: IR text in, object code out. One module, two uses: imported, and run as a script by worker processes.

The script reads requests from its standard input and writes objects to its standard output until the input ends, so a
worker ends with the process that started it, however that one ended. It imports llvmlite and the standard library
alone, which makes it quick to start, and never the program that started it, so scripts need no `__main__` guard.

A frame is a length (8 bytes, little-endian) and as many bytes. A request holds one JSON list
`[text, triple, cpu, features, level]`; a reply holds one byte – "+" or "-" – and the object code or the reason.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm

LENGTH = struct.Struct("<Q")
IDLE_S = 60.0  # a worker that nobody has asked for so long ends by itself

# llvmlite has a lock around every call, which no fork may catch in a locked state.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Around calls of LLVM: one thread at a time, and no fork in the middle."""
    with _lock:
        yield


@functools.cache
def _native() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def _foreign() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def create_machine(triple: str, cpu: str, features: str, *, jit: bool = False) -> Any:
    """A new target machine of llvmlite. Position and distance of code and data are not assumed (large code model)."""
    _native()
    if triple != llvm.get_process_triple():
        _foreign()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3, jit=jit)


@functools.lru_cache(maxsize=8)
def _machine(triple: str, cpu: str, features: str) -> Any:
    return create_machine(triple, cpu, features)


def compile_text(text: str, triple: str, cpu: str, features: str, level: int, *, assembly: bool = False) -> bytes:
    """Object code (or assembly) of an IR module. Level 0 runs no optimiser pass; 1 to 3 are LLVM's pipelines.

    Invalid IR is a RuntimeError with LLVM's message. Each module has a context of its own: what it allocates goes
    with it, except about 0.1 MB that every run of a pipeline leaks in llvmlite.
    """
    with exclusive():
        machine = _machine(triple, cpu, features)
        context = llvm.create_context()
        try:
            with llvm.parse_assembly(text, context) as module:
                module.triple = machine.triple
                module.data_layout = str(machine.target_data)
                module.verify()
                if level:
                    _optimise(module, machine, level)
                return machine.emit_assembly(module).encode() if assembly else bytes(machine.emit_object(module))
        finally:
            context.close()


def _optimise(module: Any, machine: Any, level: int) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = options.slp_vectorization = True
    options.loop_interleaving = options.loop_unrolling = True
    with options, llvm.create_pass_builder(machine, options) as builder, builder.getModulePassManager() as passes:
        passes.run(module, builder)


# Frames --------------------------------------------------------------------------------------------------------------
def write_frame(pipe: int, payload: bytes) -> None:
    """Writes to a file descriptor: nothing is buffered on this side, so nothing can be written twice after a fork."""
    rest = memoryview(LENGTH.pack(len(payload)) + payload)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def read_frame(pipe: int) -> bytes | None:
    """The next frame, or None where the stream ends (even in the middle of a frame)."""
    head = _read(pipe, LENGTH.size)
    return None if head is None else _read(pipe, LENGTH.unpack(head)[0])


def _read(pipe: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        if not (piece := os.read(pipe, min(size - len(data), 1 << 20))):
            return None
        data += piece
    return bytes(data)


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; a worker ends when its input does
    replies = os.dup(1)
    os.dup2(2, 1)  # nothing that LLVM prints may mix with replies
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        while (request := read_frame(sys.stdin.fileno())) is not None:
            requests.put(request)
        os._exit(0)  # the parent is gone: at once, even in the middle of a compilation

    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(queue.Empty, OSError):  # nothing to do for long, or nobody to tell
        while True:
            request = requests.get(timeout=IDLE_S)
            try:
                reply = b"+" + compile_text(*json.loads(request))
            except Exception as error:
                reply = b"-" + str(error).encode()
            write_frame(replies, reply)
    os._exit(0)


if __name__ == "__main__":
    _serve()
