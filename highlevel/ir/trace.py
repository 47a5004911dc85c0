"""Tracing: running Python on symbols to obtain a graph.

There is no graph mode. An operator looks at its operands only: symbols are recorded, numbers are computed at once by
the installed executor. Just two things ask whether a trace is open: variables (reading gives a symbol; assigning
becomes an update of the graph) and operators without operands (`iota`, `full`).

A trace inside a trace makes a sub-graph (a loop body, a branch; see `subgraph`).
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highlevel.errors import TraceError

from .executor import executor
from .graph import Graph, Leaf, Node, Origin, Symbol, key_of
from .operand import Operand
from .spec import Spec

if TYPE_CHECKING:
    from .dtypes import DType
    from .primitive import Primitive
    from .tensor import Tensor
    from .variable import Variable

_PACKAGE = str(Path(__file__).parents[1] / "_")[:-1]  # as code objects spell it, with the separator at the end
_serials = itertools.count(1)
_is_engine_file: dict[str, bool] = {}


class _State(threading.local):
    """Per thread: the open traces, innermost last; the path of the running layer; the type variables are read in."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.scope = ""
        self.autocast: DType | None = None
        self.outside: tuple[Any, str, int] | None = None  # a frame of ours, and the user's file and line that it serves


_state = _State()

class Trace:
    """What is collected while a function runs on symbols."""

    def __init__(self, *, eager: bool = False, hoist: bool = False, serial: int | None = None) -> None:
        self.serial = serial or next(_serials)  # one of an earlier trace continues it: its nodes are told apart by it
        self.eager = eager  # every node is also computed at once, so that values can be looked at
        self.hoist = hoist  # what does not depend on the inputs belongs to the enclosing trace (loop bodies)
        self.reads: dict[int, tuple[Variable, Symbol]] = {}
        self.updates: dict[int, tuple[Variable, Symbol]] = {}
        self.values: dict[int, list[Symbol]] = {}  # of each variable, in the order in which it has had them
        self.settings: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.at: Origin | None = None  # where nodes come from, if not from the line of code that is running
        self._constants: dict[int, tuple[Tensor, Symbol]] = {}

    def leaf(self, kind: str, value: Any, spec: Spec, values: tuple[Any, ...] | None = None) -> Symbol:
        return Symbol(Node(None, (), {}, (spec,), self.serial, origin(), Leaf(kind, value), values))

    def constant(self, tensor: Tensor) -> Symbol:
        """The symbol of a number that the traced function uses; each tensor is taken up once."""
        if id(tensor) not in self._constants:
            values = (tensor.handle_on(executor()),) if self.eager else None
            self._constants[id(tensor)] = tensor, self.leaf("constant", tensor, tensor.spec, values)
        return self._constants[id(tensor)][1]

    def read(self, variable: Variable, symbol: Symbol) -> None:
        """The variable has this value when the trace starts."""
        self.reads[id(variable)] = variable, symbol
        self.values[id(variable)] = [symbol]

    def update(self, variable: Variable, symbol: Symbol) -> None:
        """The variable has this value from now on."""
        self.updates[id(variable)] = variable, symbol
        self.values.setdefault(id(variable), []).append(symbol)

    def __enter__(self) -> Trace:
        _state.traces.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _state.traces.pop()


def is_open() -> bool:
    return bool(_state.traces)


def open_traces() -> list[Trace]:
    return _state.traces


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Names the layer that is running: nodes and errors carry the path."""
    state = _state
    outer, outside = state.scope, state.outside
    state.outside = _outside(sys._getframe(2))
    state.scope = f"{outer}/{name}" if outer else name
    try:
        yield
    finally:
        state.scope, state.outside = outer, outside


@contextmanager
def placed() -> Iterator[Trace]:
    """What is recorded inside comes from `at` of the trace, not from the line of code that is running: gradients."""
    level = _state.traces[-1] if _state.traces else Trace()
    outer = level.at
    try:
        yield level
    finally:
        level.at = outer


@contextmanager
def suspended() -> Iterator[None]:
    """Computes at once, whatever trace is open: for creating variables in the middle of a trace."""
    outer, _state.traces = _state.traces, []
    try:
        yield
    finally:
        _state.traces = outer


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's search for garbage in cycles waits (in all threads): graphs are many objects, none of them such garbage,
    and it would look through all that the process has, again and again. What nothing refers to is freed as ever."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def autocast(dtype: DType | None) -> Iterator[None]:
    """Floating-point variables are read as `dtype` inside (mixed precision); None reads them as they are."""
    outer, _state.autocast = _state.autocast, dtype
    try:
        yield
    finally:
        _state.autocast = outer


def autocast_dtype() -> DType | None:
    return _state.autocast


def scope_path() -> str:
    return _state.scope


def origin() -> Origin:
    """The layer that is running, and the nearest line of code that is not this library's."""
    return Origin(_state.scope, *_users_line(sys._getframe(1), _state.outside))


def _users_line(frame: Any, outside: tuple[Any, str, int] | None) -> tuple[str, int]:
    """The user's file and line nearest to a frame; `outside` says it for a frame that may be on the way there."""
    known = outside[0] if outside is not None else None
    while frame is not None:
        if frame is known and outside is not None:
            return outside[1:]
        file = frame.f_code.co_filename
        inside = _is_engine_file.get(file)
        if inside is None:
            inside = _is_engine_file[file] = file.startswith((_PACKAGE, "<frozen"))
        if not inside:
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0


def _outside(frame: Any) -> tuple[Any, str, int] | None:
    """What spares looking beyond this frame, if it is one of ours: while it runs, the user's line stays where it is."""
    if frame is None or not _is_engine_file.get(frame.f_code.co_filename):
        return _state.outside
    return frame, *_users_line(frame, _state.outside)


def note_setting(owner: Any, name: str, value: Any) -> None:
    """Remembers that the program being traced depends on an attribute; when it changes, the program is traced anew."""
    for trace in _state.traces[:1]:
        trace.settings.setdefault((id(owner), name), (owner, name, value))


def lift(operand: Any) -> Symbol:
    """The operand as a symbol of the traces that are open; numbers become constants of the outermost one."""
    if isinstance(operand, Symbol):
        owner = operand.node.owner
        for level in _state.traces:
            if level.serial == owner:
                return operand
        raise _leaked(operand)
    return _state.traces[0].constant(operand)


def _leaked(symbol: Symbol) -> TraceError:
    return TraceError(
        "a symbol was used outside of the function that made it",
        got=f"{symbol.spec} of {symbol.node.name}  {symbol.node.origin}",
        expected="results of the function that is being traced, or of those around it",
        hint="return it from the traced function, or assign it to a Variable",
    )


def _home(trace: Trace, inputs: Sequence[Symbol]) -> int:
    """The trace that a node belongs to: out of as many loop bodies as do not make any of its inputs."""
    if not (trace.hoist and inputs):
        return trace.serial
    newest = max(symbol.node.owner for symbol in inputs)
    return next(level.serial for level in reversed(_state.traces) if not level.hoist or level.serial <= newest)


def record(primitive: Primitive, operands: tuple[Operand, ...], attrs: Mapping[str, Any]) -> Any:
    """Adds a node to the innermost trace and returns its output, or the tuple of its outputs."""
    if not _state.traces:
        raise _leaked(next(operand for operand in operands if isinstance(operand, Symbol)))
    outputs = record_many(primitive, operands, attrs)
    return outputs if primitive.multiple else outputs[0]


def record_many(
    primitive: Primitive,
    operands: Sequence[Operand],
    attrs: Mapping[str, Any],
    at: Origin | None = None,
    specs: tuple[Spec, ...] | None = None,
) -> tuple[Symbol, ...]:
    """All outputs of a new node; `specs`, where they are known, spare asking the shape rule."""
    root, trace = _state.traces[0], _state.traces[-1]
    own = trace.serial
    inputs = tuple([x if type(x) is Symbol and x.node.owner == own else lift(x) for x in operands])
    if specs is None:
        specs = primitive.specs(tuple([symbol.node.specs[symbol.index] for symbol in inputs]), attrs)
    owner = _home(trace, inputs) if trace.hoist else own
    values = None
    if root.eager and all(symbol.node.values is not None for symbol in inputs):
        handles = [symbol.node.values[symbol.index] for symbol in inputs if symbol.node.values is not None]
        values = tuple(executor().run(primitive, handles, attrs))
    return Node(primitive, inputs, attrs, specs, owner, at or trace.at or origin(), None, values).outputs


def trace_graph(
    function: Callable[..., Sequence[Symbol]], specs: Sequence[Spec], *, eager_values: Sequence[Any] | None = None
) -> tuple[Graph, Trace]:
    """Runs `function` on one symbol per spec; returns the graph, and the trace with what it depended on.

    A program of its own: traces that are open are suspended.
    """
    outside, _state.outside = _state.outside, _outside(sys._getframe(0))
    try:
        with uncollected(), suspended(), Trace(eager=eager_values is not None) as trace:
            inputs = []
            for position, spec in enumerate(specs):
                values = None if eager_values is None else (eager_values[position],)
                inputs.append(trace.leaf("input", position, spec, values))
            outputs = tuple([lift(result) for result in function(*inputs)])
    finally:
        _state.outside = outside
    updates = tuple(
        (variable, symbol)
        for variable, symbol in trace.updates.values()
        if id(variable) not in trace.reads or key_of(trace.reads[id(variable)][1]) != key_of(symbol)
    )
    return Graph(tuple(inputs), outputs, tuple(trace.reads.values()), updates), trace
