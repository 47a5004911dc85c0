"""`jit`: a Python function, traced once per signature and run as a compiled program from then on.

The signature is the structure of the arguments, the spec of each array, and the value of everything else (flags,
strings, Python numbers – a number that changes belongs in an array or a Variable). A program also remembers the
settings that it depends on (`trainable`, for one), and is set aside while they differ.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from highlevel.errors import ArgumentError

from . import dtypes, operators, trace, tree, variable
from .dtypes import as_dtype
from .executor import Executable, Executor, executor
from .graph import Graph, Symbol, attribute_key
from .operand import Operand
from .spec import Spec
from .tensor import Tensor
from .variable import Variable

PROGRAMS_KEPT = 64
_clock = itertools.count()


def is_array(leaf: Any) -> bool:
    """Whether an argument is data (an input of the program) rather than a part of the signature."""
    return isinstance(leaf, (Operand, np.ndarray, np.generic)) and not isinstance(leaf, Variable)


def _spec_of(leaf: Any) -> Spec:
    """What is known of an argument that is data; the data are not touched."""
    if isinstance(leaf, Spec):
        return leaf
    return leaf.spec if isinstance(leaf, Operand) else Spec(leaf.shape, as_dtype(leaf.dtype))


_KNOWN = {dtype.numpy for dtype in dtypes.ALL}  # types of NumPy that are ours as they are
_NONE = attribute_key(None)


@functools.lru_cache(maxsize=1024)
def _array_spec(shape: tuple[int, ...], dtype: Any) -> Spec:
    return Spec(shape, as_dtype(dtype))


_GONE = object()  # in place of an attribute whose owner no longer exists


class Signature(NamedTuple):
    """What a program is traced for: the tree of arguments, which leaves are data, their specs, and the other leaves."""

    structure: Any
    is_data: tuple[bool, ...]
    specs: tuple[Spec, ...]
    statics: tuple[Any, ...]


@dataclass(slots=True)
class Entry:
    """A traced and compiled signature.

    structure, places: of the results; a place holds a result that is not an array, or None where an output belongs
    specs:             of the outputs
    settings:          (owner, name, value) of what the program depends on, known to hold at `epoch`
    """

    graph: Graph
    executable: Executable
    structure: Any
    places: Sequence[Any]
    specs: Sequence[Spec]
    backend: Executor
    settings: list[tuple[weakref.ref[Any], str, Any]]
    epoch: int
    used: int = 0

    def is_valid(self, backend: Executor) -> bool:
        if self.backend is not backend:
            return False
        now = variable.epoch()
        if self.epoch != now:
            if any(getattr(owner(), name, _GONE) != value for owner, name, value in self.settings):
                return False
            self.epoch = now
        return True


class Compiled:
    """A function with its compiled programs, the most recently used of which are kept.

    eager:  nothing is compiled: the function runs on symbols that have values, which can be printed
    traces: how often the function was traced; tells whether something is retraced by accident
    """

    def __init__(
        self, function: Callable[..., Any], *, options: dict[str, Any] | None = None, eager: bool = False
    ) -> None:
        self.function = function
        self.options = options or {}
        self.eager = eager
        self.traces = 0
        self._programs: dict[Signature, list[Entry]] = {}
        self._lock = threading.RLock()
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "compiled")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if trace.is_open():
            return self.function(*args, **kwargs)  # part of the program being traced
        backend = executor()
        leaves, handles, signature = self._sign(args, kwargs, backend)
        if self.eager:
            return self._run_eagerly(leaves, handles, signature)
        entry = self._entry(leaves, signature, backend)
        found = entry.executable.run(handles)
        outputs = [Tensor(handle, spec, backend) for handle, spec in zip(found, entry.specs, strict=True)]
        return _assemble(entry.structure, entry.places, outputs)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The program for these arguments, traced (and compiled) if it has not been."""
        backend = executor()
        leaves, _, signature = self._sign(args, kwargs, backend)
        return self._entry(leaves, signature, backend).graph

    def prepared(self, *args: Any, **kwargs: Any) -> tuple[Executable, list[Any]]:
        """The compiled program for these arguments, and what it is to be run with."""
        backend = executor()
        leaves, handles, signature = self._sign(args, kwargs, backend)
        return self._entry(leaves, signature, backend).executable, handles

    def traced(self, *args: Any, **kwargs: Any) -> Graph:
        """The program for these arguments, traced anew and not compiled; a `Spec` stands for data that is not there."""
        leaves, structure = tree.flatten((args, kwargs))
        is_data = tuple([is_array(leaf) or isinstance(leaf, Spec) for leaf in leaves])
        specs = tuple([_spec_of(leaf) for leaf, data in zip(leaves, is_data, strict=True) if data])
        statics = tuple([_static_key(leaf) for leaf, data in zip(leaves, is_data, strict=True) if not data])
        body, _ = self._body(leaves, Signature(structure, is_data, specs, statics))
        graph, _ = trace.trace_graph(body, specs)
        return graph

    @staticmethod
    def _sign(
        args: tuple[Any, ...], kwargs: dict[str, Any], backend: Executor
    ) -> tuple[list[Any], list[Any], Signature]:
        """The leaves of the arguments, handles of those that are data, and the signature."""
        leaves, structure = tree.flatten((args, kwargs))
        is_data, handles, specs, statics = [], [], [], []
        for leaf in leaves:
            data = is_array(leaf)
            is_data.append(data)
            if not data:
                statics.append(_static_key(leaf))
            elif type(leaf) is np.ndarray and leaf.dtype in _KNOWN:
                handles.append(backend.from_host(leaf.copy()))  # the caller may write to his array, and own the result
                specs.append(_array_spec(leaf.shape, leaf.dtype))
            else:
                tensor = Tensor.of(leaf)
                handles.append(tensor.handle_on(backend))
                specs.append(tensor.spec)
        return leaves, handles, Signature(structure, tuple(is_data), tuple(specs), tuple(statics))

    def _entry(self, leaves: Sequence[Any], signature: Signature, backend: Executor) -> Entry:
        with self._lock:
            for entry in self._programs.get(signature, ()):
                if entry.is_valid(backend):
                    entry.used = next(_clock)
                    return entry
            entry = self._trace(leaves, signature, backend)
            entry.used = next(_clock)
            self._programs.setdefault(signature, []).append(entry)
            self._forget_oldest()
            return entry

    def _forget_oldest(self) -> None:
        """Keeps the number of programs – for all signatures and settings – within its bound."""
        programs = [(entry.used, signature) for signature, entries in self._programs.items() for entry in entries]
        for used, signature in sorted(programs, key=lambda program: program[0])[:-PROGRAMS_KEPT]:
            kept = [entry for entry in self._programs.pop(signature) if entry.used != used]
            if kept:
                self._programs[signature] = kept

    def _body(self, leaves: Sequence[Any], signature: Signature) -> tuple[Callable[..., Any], list[Any]]:
        """The function from symbols to symbols, and the (structure, places) of its results once it has run."""
        shape: list[Any] = []

        def body(*symbols: Symbol) -> list[Any]:
            supply = iter(symbols)
            filled = [next(supply) if data else leaf for leaf, data in zip(leaves, signature.is_data, strict=True)]
            args, kwargs = tree.unflatten(signature.structure, filled)
            results, structure = tree.flatten(self.function(*args, **kwargs))
            is_data = [isinstance(result, (Operand, np.ndarray, np.generic)) for result in results]
            places = [None if data else (result,) for result, data in zip(results, is_data, strict=True)]
            shape[:] = [structure, places]
            return [operators.operand(result) for result, data in zip(results, is_data, strict=True) if data]

        return body, shape

    def _trace(self, leaves: Sequence[Any], signature: Signature, backend: Executor) -> Entry:
        body, shape = self._body(leaves, signature)
        epoch = variable.epoch()
        with trace.uncollected():
            graph, record = trace.trace_graph(body, signature.specs)
            self.traces += 1
            executable = backend.compile(graph, self.options)
        structure, places = shape
        settings = [(weakref.ref(owner), name, value) for owner, name, value in record.settings.values()]
        specs = [symbol.spec for symbol in graph.outputs]
        return Entry(graph, executable, structure, places, specs, backend, settings, epoch)

    def _run_eagerly(self, leaves: Sequence[Any], values: Sequence[Any], signature: Signature) -> Any:
        """Traces with values: every symbol can be printed and inspected while the function runs."""
        backend = executor()
        body, shape = self._body(leaves, signature)
        graph, _ = trace.trace_graph(body, signature.specs, eager_values=values)
        results = [Tensor(s.node.values[s.index], s.spec, backend) for s in graph.results if s.node.values is not None]
        outputs, ends = results[: len(graph.outputs)], results[len(graph.outputs) :]
        for (target, _symbol), end in zip(graph.updates, ends, strict=True):
            target.set_handle(end.handle_on(backend), backend)
        structure, places = shape
        return _assemble(structure, places, outputs)


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


def _static_key(leaf: Any) -> Any:
    """What stands for an argument that is not data: 1, 1.0 and True are different, and NaN is the same as NaN."""
    if leaf is None:
        return _NONE
    if isinstance(leaf, (bool, int, float, str, bytes)):
        return attribute_key(leaf)
    try:
        hash(leaf)
    except TypeError:
        raise ArgumentError(
            "an argument of a compiled function is neither data nor hashable",
            got=type(leaf).__name__,
            expected="arrays, trees of arrays, and values that can be compared from call to call",
            hint="pass an array, or close over the object",
        ) from None
    return type(leaf), leaf


def _assemble(structure: Any, places: Sequence[Any], outputs: Sequence[Tensor]) -> Any:
    if len(places) == len(outputs):
        return tree.unflatten(structure, outputs)
    supply = iter(outputs)
    return tree.unflatten(structure, [next(supply) if place is None else place[0] for place in places])
