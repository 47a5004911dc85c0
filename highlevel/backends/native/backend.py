"""The backend "native": our compiler, on the CPU of this machine."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from highlevel.errors import BackendError, MemoryLimitError
from highlevel.ir import Graph, Primitive, Spec, as_dtype
from highlevel.ir.graph import attribute_key
from highlevel.ir.trace import trace_graph

from .assemble import assemble, units_of
from .devices.cpu import CpuDevice, default_cpu
from .executable import Arena, Executable, plan_graph
from .passes import PassReport, run_passes
from .program import Program
from .recompute import fit_program

if TYPE_CHECKING:
    from .profile import Profile
    from .report import Explanation, Kernel, MemoryMap

OPERATORS_KEPT = 4096  # compiled operators, for computing at once
MEMORY_LIMIT = "memory_limit"


class NativeBackend:
    """The reference backend. Handles are NumPy arrays, contiguous and row-major."""

    name = "native"

    def __init__(self, device: CpuDevice | None = None) -> None:
        self.device = device or default_cpu()
        self.arena = Arena(self.device)
        self._operators: OrderedDict[Any, Executable] = OrderedDict()

    def devices(self) -> list[str]:
        return ["cpu"]

    def from_host(self, array: Any) -> Any:
        return np.asarray(array, order="C")

    def to_host(self, handle: Any) -> Any:
        return handle

    def compile(self, graph: Graph, options: Mapping[str, Any]) -> Executable:
        """The program of a graph. Options: "memory_limit", in bytes, of which `MemoryMap.total_bytes` takes no more."""
        after = self._passed(graph, options)
        return Executable(after, self._plan(after, options), self.device, self.arena, self)

    def _passed(self, graph: Graph, options: Mapping[str, Any], log: list[PassReport] | None = None) -> Graph:
        """The graph as it is compiled."""
        if unknown := sorted(options.keys() - {MEMORY_LIMIT}):
            raise BackendError(
                "the backend 'native' has no such option", got=", ".join(unknown), expected=MEMORY_LIMIT
            )
        return run_passes(graph, log=log)

    def _plan(self, graph: Graph, options: Mapping[str, Any]) -> Program:
        """The program of a graph that has been through the passes, so that it fits into the memory that it may have."""
        program = plan_graph(graph, self.device.target, self.device.threads)
        limit = options.get(MEMORY_LIMIT)
        if limit is None:
            return program
        memory = self._map(graph, program)
        others = memory.total_bytes - memory.arena_bytes
        program = fit_program(program, limit - others, self.device.threads)
        needed = self._map(graph, program).total_bytes
        if needed > limit:
            summary = "the program does not fit into the memory that it may have"
            raise MemoryLimitError.of(summary, needed_bytes=needed, limit_bytes=limit)
        return program

    def _map(self, graph: Graph, program: Program) -> MemoryMap:
        from .report import memory_of

        return memory_of(graph, program, self.device.threads)

    # Looking into programs -------------------------------------------------------------------------------------------
    def memory_map(self, graph: Graph, options: Mapping[str, Any]) -> MemoryMap:
        """The memory that a program would need; nothing is compiled."""
        graph = self._passed(graph, options)
        return self._map(graph, self._plan(graph, options))

    def explain(self, graph: Graph, options: Mapping[str, Any]) -> Explanation:
        """What a program consists of; it is compiled, and not run."""
        from .passes.check import count_nodes
        from .profile import measure_machine
        from .report import Compilation, Explanation, barriers_of, kernels_of

        log: list[PassReport] = []
        after = self._passed(graph, options, log)
        program = self._plan(after, options)
        units, counts = units_of(program), self.device.cache.counts
        before = counts.memory, counts.disk, counts.compiled
        start = time.perf_counter()
        self.device.compile(units)
        elapsed_ms = 1e3 * (time.perf_counter() - start)
        found = [now - old for now, old in zip((counts.memory, counts.disk, counts.compiled), before, strict=True)]
        table, machine = assemble(program, self.device.threads), measure_machine(self)
        kernels, _ = kernels_of(program, table, machine)
        once: list[Kernel] = []
        if program.setup is not None:
            once, _ = kernels_of(program.setup, assemble(program.setup, self.device.threads), machine)
        return Explanation(
            machine=machine,
            nodes_traced=count_nodes(graph),
            passes=tuple(log),
            kernels=tuple(kernels),
            once=tuple(once),
            barriers=barriers_of(table),
            memory=self._map(after, program),
            compilation=Compilation(len(units), found[0], found[1], found[2], elapsed_ms),
        )

    def profile(self, executable: Executable, inputs: Sequence[Any], steps: int) -> Profile:
        """Runs a program of this backend so many times and says where its time goes; variables keep their values."""
        from .profile import measure_machine, profile_program

        return profile_program(executable, inputs, steps, measure_machine(self))

    def run(self, primitive: Primitive, handles: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Any]:
        key = primitive, attribute_key(dict(attrs)), tuple([(h.shape, h.dtype) for h in handles])
        executable = self._operators.get(key)
        if executable is None:
            executable = self._operator(primitive, handles, attrs)
            self._operators[key] = executable
            if len(self._operators) > OPERATORS_KEPT:
                self._operators.popitem(last=False)
        return executable.run(handles)

    def _operator(self, primitive: Primitive, handles: Sequence[Any], attrs: Mapping[str, Any]) -> Executable:
        def apply(*operands: Any) -> Sequence[Any]:
            found = primitive(*operands, **attrs)
            return found if primitive.multiple else (found,)

        graph, _ = trace_graph(apply, [Spec(handle.shape, as_dtype(handle.dtype)) for handle in handles])
        return self.compile(graph, {})
