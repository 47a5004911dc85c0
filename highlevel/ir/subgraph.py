"""Sub-graphs: loop bodies, branches and composites, traced inside an open trace.

What a sub-graph uses of the enclosing traces is captured; what it assigns to variables is handed to the control-flow
operator as state. Once made it is closed: all that it uses comes in as inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .graph import Graph, Symbol, captures, key_of
from .rewrite import Replay
from .spec import Spec
from .trace import Trace, lift
from .variable import Variable


class SubGraph:
    """A traced loop body, branch or composite: inputs are captured symbols, then state, then arguments.

    graph:     inputs (captured…, state…, arguments…) → outputs (results…, new state…)
    captured:  symbols of the enclosing traces, to be handed in as operands
    state:     variables that the function assigns; their values enter and leave as operands
    """

    def __init__(self, graph: Graph, captured: Sequence[Symbol], state: Sequence[Variable]) -> None:
        self.graph = graph
        self.captured = tuple(captured)
        self.state = tuple(state)


def trace_subgraph(
    function: Callable[..., Sequence[Any]],
    specs: Sequence[Spec],
    *,
    hoist: bool = False,
    state: Sequence[Variable] = (),
) -> SubGraph:
    """Traces `function` inside the open trace.

    Variables that it assigns become state: the function is traced again with their values as inputs.
    """
    with Trace(hoist=hoist) as trace:
        state_inputs = [trace.leaf("input", f"state{i}", variable.spec) for i, variable in enumerate(state)]
        for variable, symbol in zip(state, state_inputs, strict=True):
            trace.read(variable, symbol)
        arguments = [trace.leaf("input", f"arg{i}", spec) for i, spec in enumerate(specs)]
        results = [lift(result) for result in function(*arguments)]
        assigned = [variable for variable, _ in trace.updates.values()]
    known = {id(variable) for variable in state}
    missing = [variable for variable in assigned if id(variable) not in known]
    if missing:
        return trace_subgraph(function, specs, hoist=hoist, state=[*state, *missing])
    ends = [trace.updates.get(id(v), (v, s))[1] for v, s in zip(state, state_inputs, strict=True)]
    return _close([*results, *ends], [*state_inputs, *arguments], trace.serial, state)


def _close(results: Sequence[Symbol], inputs: Sequence[Symbol], owner: int, state: Sequence[Variable]) -> SubGraph:
    """Makes a closed graph: captured symbols become inputs of their own."""
    outer = captures(results, owner)
    with Trace(serial=owner) as trace:
        stand_ins = [trace.leaf("input", f"captured{i}", symbol.spec) for i, symbol in enumerate(outer)]
        replay = Replay({key_of(symbol): stand_in for symbol, stand_in in zip(outer, stand_ins, strict=True)})
        closed = tuple([replay(result) for result in results])
    return SubGraph(Graph((*stand_ins, *inputs), closed), outer, state)
