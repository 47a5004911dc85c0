"""`jit`: a Python function, traced once per signature and run as a compiled program from then on.

The signature is the structure of the arguments, the spec of each array, and the value of everything else (flags, strings,
Python numbers – a number that changes belongs in an array or a Variable). A program also remembers the settings that it
depends on (`trainable`, for one), and is set aside while they differ.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import trace, tree, variable
from .graph import Graph, Symbol
from .operand import Operand
from .spec import Spec
from .tensor import Tensor
from .variable import Variable

PROGRAMS_KEPT = 64


def is_array(leaf: Any) -> bool:
    """Whether an argument is data (an input of the program) rather than a part of the signature."""
    return isinstance(leaf, (Operand, np.ndarray, np.generic)) and not isinstance(leaf, Variable)


@dataclass(slots=True)
class Entry:
    """A traced and compiled signature."""

    graph: Graph
    executable: trace.Executable
    structure: Any
    backend: trace.Executor
    settings: list[tuple[Any, str, Any]]
    epoch: int

    def is_valid(self, backend: trace.Executor) -> bool:
        if self.backend is not backend:
            return False
        if self.epoch != variable.epoch():
            if any(getattr(owner, name) != value for owner, name, value in self.settings):
                return False
            self.epoch = variable.epoch()
        return True


class Compiled:
    """A function with its compiled programs, the most recently used of which are kept."""

    def __init__(self, function: Callable[..., Any], *, options: dict[str, Any] | None = None, eager: bool = False) -> None:
        self.function = function
        self.options = options or {}
        self.eager = eager
        self.traces = 0  # how often the function was traced: tells whether something is retraced by accident
        self._programs: OrderedDict[Any, list[Entry]] = OrderedDict()
        self._lock = threading.RLock()
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "compiled")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree.flatten((args, kwargs))
        if trace.is_open():
            return self.function(*args, **kwargs)  # part of the program being traced
        arrays = [_tensor(leaf) for leaf in leaves if is_array(leaf)]
        statics = tuple([(type(leaf), _hashable(leaf)) for leaf in leaves if not is_array(leaf)])
        positions = tuple([is_array(leaf) for leaf in leaves])
        specs = tuple([array.spec for array in arrays])
        if self.eager:
            return self._run_eagerly(leaves, structure, positions, arrays)
        entry = self.entry(leaves, structure, positions, specs, statics)
        handles = entry.executable.run([array.handle_on(entry.backend) for array in arrays])
        outputs = [Tensor(h, s.spec, entry.backend) for h, s in zip(handles, entry.graph.outputs, strict=True)]
        return tree.unflatten(entry.structure[0], _restore(entry.structure[1], outputs))

    def entry(
        self, leaves: Sequence[Any], structure: Any, positions: tuple[bool, ...], specs: tuple[Spec, ...], statics: Any
    ) -> Entry:
        backend = trace.executor()
        key = structure, positions, specs, statics
        with self._lock:
            entries = self._programs.setdefault(key, [])
            self._programs.move_to_end(key)
            for entry in entries:
                if entry.is_valid(backend):
                    return entry
            entries.append(self._trace(leaves, structure, positions, specs, backend))
            while len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
            return entries[-1]

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The program for these arguments, traced (and compiled) if it has not been."""
        leaves, structure = tree.flatten((args, kwargs))
        arrays = [_tensor(leaf) for leaf in leaves if is_array(leaf)]
        statics = tuple((type(leaf), _hashable(leaf)) for leaf in leaves if not is_array(leaf))
        positions = tuple(is_array(leaf) for leaf in leaves)
        return self.entry(leaves, structure, positions, tuple(a.spec for a in arrays), statics).graph

    def _traced(self, leaves: Sequence[Any], structure: Any, positions: Sequence[bool]) -> tuple[Callable[..., Any], list[Any]]:
        result_structure: list[Any] = []

        def body(*symbols: Symbol) -> list[Any]:
            supply = iter(symbols)
            call_args, call_kwargs = tree.unflatten(
                structure, [next(supply) if is_data else leaf for leaf, is_data in zip(leaves, positions, strict=True)]
            )
            results, shape = tree.flatten(self.function(*call_args, **call_kwargs))
            symbolic = [isinstance(r, Operand) for r in results]
            result_structure[:] = [shape, [None if is_op else (r,) for r, is_op in zip(results, symbolic, strict=True)]]
            return [r.read() for r, is_op in zip(results, symbolic, strict=True) if is_op]

        return body, result_structure

    def _trace(
        self, leaves: Sequence[Any], structure: Any, positions: Sequence[bool], specs: Sequence[Spec], backend: trace.Executor
    ) -> Entry:
        body, result_structure = self._traced(leaves, structure, positions)
        epoch = variable.epoch()
        graph, record = trace.trace_graph(body, specs)
        self.traces += 1
        settings = list(record.settings.values())
        executable = backend.compile(graph, self.options)
        return Entry(graph, executable, tuple(result_structure), backend, settings, epoch)

    def _run_eagerly(self, leaves: Sequence[Any], structure: Any, positions: Sequence[bool], arrays: Sequence[Tensor]) -> Any:
        """Traces with values: every symbol can be printed and inspected while the function runs."""
        backend = trace.executor()
        body, result_structure = self._traced(leaves, structure, positions)
        values = [array.handle_on(backend) for array in arrays]
        graph, _ = trace.trace_graph(body, [array.spec for array in arrays], eager_values=values)
        ends = [symbol.node.values[symbol.index] for symbol in graph.results if symbol.node.values is not None]
        for (target, _symbol), handle in zip(graph.updates, ends[len(graph.outputs) :], strict=True):
            target.set_handle(handle, backend)
        outputs = [Tensor(h, s.spec, backend) for h, s in zip(ends, graph.outputs, strict=False)]
        return tree.unflatten(result_structure[0], _restore(result_structure[1], outputs))


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compiles a function; also a decorator.

    Variables that the function assigns are updated by the program. Options are the backend's.

    >>> from highlevel import ops
    >>> counter = Variable(0.0)
    >>> @jit
    ... def step(x):
    ...     counter.assign_add(1.0)
    ...     return ops.sum(x) * counter
    >>> float(step(Tensor.of([1.0, 2.0]))), float(step(Tensor.of([1.0, 2.0]))), step.traces
    (3.0, 6.0, 1)
    """
    if function is None:
        return lambda wrapped: Compiled(wrapped, options=options)
    return Compiled(function, options=options)


def _tensor(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else Tensor.of(leaf)


def _hashable(leaf: Any) -> Any:
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return leaf


def _restore(places: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    supply = iter(outputs)
    return [next(supply) if place is None else place[0] for place in places]
