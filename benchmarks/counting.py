"""What a compiled program consists of: arithmetic counted in the graph, memory as planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from highlevel import backends
from highlevel.ir import Graph


def contraction_flops(graph: Graph) -> int:
    """Multiplications and additions of all matrix products and convolutions; loops count as often as they run."""
    return sum(_node_flops(node) for node in graph.nodes())


def _node_flops(node: Any) -> int:
    shapes = [symbol.shape for symbol in node.inputs]
    match node.name:
        case "matmul":
            return 2 * math.prod(node.outputs[0].shape) * shapes[0][-1]
        case "conv":  # of x and a kernel: (…, channels, filters)
            return 2 * math.prod(node.outputs[0].shape) * math.prod(shapes[1][:-1])
        case "conv_input_grad":  # of g and a kernel
            return 2 * math.prod(shapes[0]) * math.prod(shapes[1][:-1])
        case "conv_kernel_grad":  # of x and g
            return 2 * math.prod(shapes[1]) * math.prod(node.outputs[0].shape[:-1])
        case "scan":
            return int(node.attrs["length"]) * contraction_flops(node.attrs["body"])
        case "cond":
            return max(contraction_flops(node.attrs["then"]), contraction_flops(node.attrs["otherwise"]))
    return 0


@contextmanager
def recorded() -> Iterator[list[tuple[Graph, Any]]]:
    """All (graph, executable) that the backend in use compiles meanwhile."""
    backend: Any = backends.current()
    compile_graph: Callable[..., Any] = backend.compile
    found: list[tuple[Graph, Any]] = []

    def record(graph: Graph, options: Any) -> Any:
        executable = compile_graph(graph, options)
        found.append((graph, executable))
        return executable

    backend.compile = record
    try:
        yield found
    finally:
        del backend.compile


def largest(programs: list[tuple[Graph, Any]]) -> tuple[Graph, Any]:
    """The program with the most nodes: the training step, where a training step was compiled."""
    return max(programs, key=lambda program: len(program[0].nodes()))
