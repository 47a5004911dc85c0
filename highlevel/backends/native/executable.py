"""Executables: programs as machine code, with the memory that they run on.

A run is one foreign call. What it needs is a frame – an array of addresses – whose inputs and outputs are filled in for
each run; the addresses of variables and constants stay the same from run to run, and are looked up again only after a
variable was given other data, or its data was handed out.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.ir import Graph
from highlevel.ir.variable import data_epoch

from .assemble import assemble, callbacks, units_of
from .codegen.targets import Target
from .devices.device import Code, Device, Memory
from .devices.sequencer import FAILED, HEAD
from .planner import leaves_of, plan_program
from .program import Program

LINE_BYTES = 64
ALIGNED_BYTES = 4096  # arrays from this size on begin with a cache line


class Arena:
    """The memory of a device that all programs use in turn: as large as the largest has needed."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.memory = device.allocate(0)

    def address(self, size_bytes: int) -> int:
        if size_bytes > self.memory.size_bytes:
            self.memory = self.device.allocate(size_bytes)
        return self.memory.address


class Updates:
    """Counts the steps that have changed variables where they lie."""

    count = 0


updates = Updates()


class Failures:
    """What functions that a step calls back have raised; the step ends at its next check."""

    def __init__(self, frame: np.ndarray[Any, Any]) -> None:
        self.frame = frame
        self.errors: list[BaseException] = []

    def note(self, number: int, error: BaseException) -> None:
        self.errors.append(error)
        self.frame[FAILED] = number

    def take(self) -> BaseException:
        """The first error; the others say the same. The next run begins without."""
        first = self.errors[0]
        self.errors.clear()
        self.frame[FAILED] = 0
        return first


def plan_graph(graph: Graph, target: Target, nthreads: int) -> Program:
    """The program of a whole graph: its variables are updated in place."""
    leaves = [leaf for _, leaf in leaves_of(graph)]
    places = {id(leaf.value): len(graph.inputs) + i for i, leaf in enumerate(leaves) if leaf.kind == "variable"}
    n = len(graph.outputs)
    donated = {n + i: places[id(v)] for i, (v, _) in enumerate(graph.updates) if id(v) in places}
    fixed = set(range(len(graph.inputs), len(graph.inputs) + len(leaves))) - set(donated.values())
    return plan_program(graph, target, nthreads, donated, fixed)


class Loaded:
    """A program's table and frame, with its functions' addresses filled in."""

    def __init__(self, program: Program, code: Code, device: Device) -> None:
        self.program, self.device = program, device
        self.table = assemble(program, device.threads)
        self.step = device.sequence(alone=self.table.alone)
        self.words = np.array(self.table.words, np.int64)
        for place, symbol in self.table.functions:
            self.words[place] = code.address(symbol)
        self.frame = np.zeros(HEAD + self.table.given, np.int64)
        self.frame[:3] = self.words.ctypes.data, self.table.given, self.table.needed
        self.memory = Memory(self.frame.ctypes.data, self.frame.nbytes, None)

    def run(self, arena: Arena) -> None:
        self.frame[HEAD] = arena.address(self.program.memory.size_bytes)
        self.device.run(self.step, self.memory)


class Executable:
    """A program that is ready to run."""

    def __init__(self, graph: Graph, program: Program, device: Device, arena: Arena, backend: Any) -> None:
        self.graph, self.program, self.device, self.arena, self.backend = graph, program, device, arena, backend
        self.code = device.load(device.compile(units_of(self.program)))
        self.main = Loaded(self.program, self.code, device)
        self.table, self.frame = self.main.table, self.main.frame
        self.failures = Failures(self.frame)
        self.functions = [
            task.callback.function(functools.partial(self.failures.note, number))
            for number, task in enumerate(callbacks(self.program), start=1)
            if task.callback is not None
        ]
        if self.functions:
            self.frame[-len(self.functions) :] = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in self.functions]
        self._lay_out([leaf for _, leaf in leaves_of(graph)])
        self._set_up()

    def _lay_out(self, leaves: Sequence[Any]) -> None:
        """Which words of the frame are whose."""
        graph = self.graph
        first_leaf = HEAD + 1 + len(graph.inputs)
        self.first_output = HEAD + 1 + len(self.program.inputs)
        first_update = self.first_output + len(graph.outputs)
        self.updates = [(variable, first_update + i) for i, (variable, _) in enumerate(graph.updates)]
        self.reads = [(first_leaf + i, leaf.value) for i, leaf in enumerate(leaves) if leaf.kind == "variable"]
        places = [(first_leaf + i, leaf.value) for i, leaf in enumerate(leaves) if leaf.kind != "variable"]
        self.constants = [tensor.handle_on(self.backend) for _, tensor in places]
        for (place, _), constant in zip(places, self.constants, strict=True):
            self.frame[place] = address_of(constant)
        self.outputs = [(symbol.shape, symbol.dtype.numpy) for symbol in graph.outputs]
        self.bound = -1

    def _set_up(self) -> None:
        """Memory for what is kept between runs, and the program that computes it."""
        self.setup: Loaded | None = None
        self.kept = [empty(b.shape, b.dtype.numpy) for b in (self.program.buffers[name] for name in self.program.kept)]
        self.computed_from: tuple[int, int] | None = None  # of which data `kept` is
        if self.program.setup is not None:
            self.setup = Loaded(self.program.setup, self.code, self.device)
            addresses = [address_of(array) for array in self.kept]
            first = HEAD + 1 + len(self.program.inputs)
            self.setup.frame[first:] = addresses
            first += len(self.program.results)
            self.frame[first : first + len(addresses)] = addresses

    def run(self, inputs: Sequence[Any]) -> Sequence[Any]:
        with self.device.exclusive():
            if self.bound != data_epoch():
                self._bind()
            if self.setup is not None and self.computed_from != (data_epoch(), updates.count):
                self.setup.run(self.arena)
                self.computed_from = data_epoch(), updates.count
            frame = self.frame
            for place, array in enumerate(inputs, start=HEAD + 1):
                frame[place] = address_of(array)
            results = []
            for place, (shape, dtype) in enumerate(self.outputs, start=self.first_output):
                array = empty(shape, dtype)
                frame[place] = address_of(array)
                results.append(array)
            self.main.run(self.arena)
            if self.updates:
                updates.count += 1
            if self.failures.errors:
                raise self.failures.take()
        return results

    def _bind(self) -> None:
        """Finds the data of all variables; those that are updated get memory that is theirs alone."""
        for variable, place in self.updates:
            handle = variable.handle_on(self.backend)
            if not is_exclusive(handle):
                del handle
                variable.set_handle(own_copy(variable.handle_on(self.backend)), self.backend)
                handle = variable.handle_on(self.backend)
            self.frame[place] = address_of(handle)
        for place, variable in self.reads:
            self.frame[place] = address_of(variable.handle_on(self.backend))
        if self.setup is not None:
            inputs = slice(HEAD + 1, HEAD + 1 + len(self.program.inputs))
            self.setup.frame[inputs] = self.frame[inputs]
        self.bound = data_epoch()


def address_of(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def is_exclusive(handle: Any) -> bool:
    """Whether an array can be written: nobody refers to it or to its memory but one owner and the caller's frame."""
    if not (handle.flags.writeable and handle.flags.c_contiguous and handle.flags.aligned):
        return False
    if not (handle.base is None or isinstance(handle.base, np.ndarray)):
        return False
    return all(count <= alone for count, alone in zip(_references(handle), _alone(), strict=True))


def _references(handle: Any) -> tuple[int, int]:
    """How many references there are to an array and to the array in whose memory it lies."""
    return sys.getrefcount(handle), sys.getrefcount(handle.base) if handle.base is not None else 0


@functools.cache
def _alone() -> tuple[int, int]:
    """The counts of an array that has one owner and is passed on as in `is_exclusive`, in this version of Python."""
    owner = [np.empty(4)[:2]]

    def passed_on(handle: Any) -> tuple[int, int]:
        return _references(handle)

    handle = owner[0]
    return passed_on(handle)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array; a large one begins with a cache line."""
    array = np.empty(shape, dtype)
    if array.nbytes < ALIGNED_BYTES:
        return array
    memory = np.empty(array.nbytes + LINE_BYTES, np.uint8)
    start = -address_of(memory) % LINE_BYTES
    return memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def own_copy(array: Any) -> Any:
    """A copy in memory of its own."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy
