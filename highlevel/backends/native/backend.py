"""The backend "native": our compiler, on the CPU of this machine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from highlevel.errors import BackendError
from highlevel.ir import Graph, Primitive, Spec, as_dtype
from highlevel.ir.graph import attribute_key
from highlevel.ir.trace import trace_graph

from .devices.cpu import CpuDevice, default_cpu
from .executable import Arena, Executable
from .passes import run_passes

OPERATORS_KEPT = 4096  # compiled operators, for computing at once


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
        if options:
            raise BackendError("the backend 'native' has no such option", got=", ".join(options), expected="none")
        return Executable(run_passes(graph), self.device, self.arena, self, self.device.threads)

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
