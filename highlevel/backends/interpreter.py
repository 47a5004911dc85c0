"""The interpreter: graphs computed with NumPy, node by node, by the definitions in the operators' records.

It is the meaning of the language and the oracle of the tests; no cleverness belongs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from highlevel.errors import BackendError
from highlevel.ir import Graph, Primitive
from highlevel.ir.evaluate import Program


class Interpreted:
    """A graph that the interpreter runs."""

    def __init__(self, graph: Graph, backend: NumpyBackend) -> None:
        self.graph = graph
        self.backend = backend
        self.program = Program(graph)

    def run(self, inputs: Sequence[Any]) -> Sequence[Any]:
        leaves = [leaf.value.handle_on(self.backend) for _, leaf in self.program.leaves]
        with np.errstate(all="ignore"):
            results = self.program.run(np, inputs, leaves)
        count = len(self.graph.outputs)
        for (variable, _), value in zip(self.graph.updates, results[count:], strict=True):
            variable.set_handle(np.asarray(value), self.backend)
        return results[:count]


class NumpyBackend:
    """The backend "numpy"."""

    name = "numpy"

    def devices(self) -> list[str]:
        return ["cpu"]

    def from_host(self, array: Any) -> Any:
        return np.asarray(array)

    def to_host(self, handle: Any) -> Any:
        return np.asarray(handle)

    def compile(self, graph: Graph, options: Mapping[str, Any]) -> Interpreted:
        if options:
            raise BackendError("the backend 'numpy' has no options", got=", ".join(options), expected="none")
        return Interpreted(graph, self)

    def run(self, primitive: Primitive, handles: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Any]:
        with np.errstate(all="ignore"):
            results = primitive.numpy(np, *handles, **attrs)
        return tuple(results) if primitive.multiple else (results,)
