"""Sub-graphs without what nobody asks for: dead results, dead state, operands that are not used or known.

A traced `scan` offers every intermediate of its body as a result, so that its gradient can take what it needs. Here go
those that were not taken, and with them what only they needed. State that never changes becomes an operand; a number
that is an operand goes into the body, where rules can see it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from highlevel.ir.graph import Graph, Node, Symbol, key_of, reachable

from .driver import map_nodes, rebuilt
from .facts import FULL, fill_value
from .terms import broadcast, reshape

Key = tuple[int, int]
_LOOPS = frozenset({"scan", "while_loop", "cond"})


def has_loops(graph: Graph) -> bool:
    """Whether there are loops or branches."""
    return any([node.primitive is not None and node.primitive.name in _LOOPS for node in graph.nodes()])


def prune_loops(graph: Graph) -> Graph:
    """Removes dead results, state and operands of control flow, in sub-graphs first."""
    if not any([node.primitive is not None and node.primitive.name in _PRUNERS for node in graph.nodes()]):
        return graph
    used = {key_of(symbol) for node in graph.nodes() for symbol in node.inputs} | set(map(key_of, graph.results))

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        prune = _PRUNERS.get(node.name)
        if prune is None:
            return None
        wanted = {index for index in range(len(old.specs)) if (old.id, index) in used}
        return prune(node, old, wanted) if wanted else node.outputs

    return map_nodes(graph, visit, prune_loops)


# Parts ---------------------------------------------------------------------------------------------------------------
def _needs(outputs: Sequence[Symbol], inputs: Sequence[Symbol]) -> list[bool]:
    """Which of the inputs the outputs depend on."""
    found = {node.id for node in reachable(outputs)}
    return [symbol.node.id in found for symbol in inputs]


def closed_over(body: Graph, keep: Sequence[int], outputs: Sequence[Symbol], known: Mapping[Key, Symbol]) -> Graph:
    """A sub-graph with some of its inputs and other outputs; `known` names what stands for the other inputs."""
    now: dict[Key, Symbol] = dict(known)
    if now:
        for node in reachable(outputs):
            if node.primitive is not None and any(key_of(symbol) in now for symbol in node.inputs):
                new = rebuilt(node, tuple([now.get(key_of(s), s) for s in node.inputs]), node.attrs, node.owner)
                now.update(((node.id, index), symbol) for index, symbol in enumerate(new.outputs))
    return Graph(tuple([body.inputs[i] for i in keep]), tuple([now.get(key_of(s), s) for s in outputs]))


def _number_inside(operand: Symbol, inner: Symbol) -> Symbol | None:
    """A fill like a sub-graph's input, if the operand that comes in there is one."""
    number = fill_value(operand)
    if number is None:
        return None
    attrs = {"shape": inner.shape, "value": number, "dtype": inner.dtype}
    return Symbol(Node(FULL, (), attrs, (inner.spec,), inner.node.owner, operand.node.origin))


def _stand_ins(operands: Sequence[Symbol], inputs: Sequence[Symbol]) -> dict[Key, Symbol]:
    """What stands for inputs that are known numbers, or the same operand as an earlier input."""
    known: dict[Key, Symbol] = {}
    first: dict[Key, Symbol] = {}
    for operand, inner in zip(operands, inputs, strict=True):
        number = _number_inside(operand, inner)
        if number is not None:
            known[key_of(inner)] = number
        elif key_of(operand) in first:
            known[key_of(inner)] = first[key_of(operand)]
        else:
            first[key_of(operand)] = inner
    return known


def _spread(node: Node, places: Mapping[int, Symbol]) -> list[Symbol]:
    """One symbol per output of the node as it was; dead ones stand for themselves."""
    return [places.get(index, symbol) for index, symbol in enumerate(node.outputs)]


def _state_alive(
    body: Graph, wanted: Collection[int], constants: int, carries: int, also: Sequence[Symbol] = ()
) -> tuple[list[int], list[int]]:
    """The outputs of a loop's body that matter – wanted, or state that those depend on – and the inputs they need."""
    live = set(wanted)
    while True:
        outputs = [*(body.outputs[i] for i in sorted(live)), *also]
        needed = [i for i, is_needed in enumerate(_needs(outputs, body.inputs)) if is_needed]
        state = {i - constants for i in needed if constants <= i < constants + carries}
        if state <= live:
            return sorted(live), needed
        live |= state


# scan ----------------------------------------------------------------------------------------------------------------
def _prune_scan(node: Node, old: Node, wanted: set[int]) -> Sequence[Symbol]:
    body: Graph = node.attrs["body"]
    constants, carries, length = node.attrs["constants"], node.attrs["carries"], node.attrs["length"]
    results: dict[int, Symbol] = {}
    # State that stays what it is, and rows that are an operand's own, are not computed by the loop.
    still = {i for i in range(carries) if key_of(body.outputs[i]) == key_of(body.inputs[constants + i])}
    places = {key_of(symbol): i for i, symbol in enumerate(body.inputs)}
    for index in sorted(wanted):
        source = places.get(key_of(body.outputs[index]))
        if index in still:
            results[index] = node.inputs[constants + index]
        elif index >= carries and source is not None and source >= constants + carries:
            results[index] = node.inputs[source]
        elif index >= carries and source is not None and (source < constants or source - constants in still):
            results[index] = _each_step(node.inputs[source], length)
    live, needed = _state_alive(body, wanted - set(results), constants, carries)
    live = [i for i in live if i not in still]
    fixed = [i for i in needed if i < constants or i - constants in still]
    state = [constants + i for i in live if i < carries]
    sequences = [i for i in needed if i >= constants + carries]
    known = _stand_ins([node.inputs[i] for i in fixed], [body.inputs[i] for i in fixed])
    known.update(_stand_ins([node.inputs[i] for i in sequences], [body.inputs[i] for i in sequences]))
    fixed, sequences = ([i for i in group if key_of(body.inputs[i]) not in known] for group in (fixed, sequences))
    outputs = _distinct(body, live, carries)
    keep = [*fixed, *state, *sequences]
    if len(keep) == len(body.inputs) and len(outputs) == len(body.outputs) and not results:
        return node.outputs
    if outputs:
        attrs = {
            **node.attrs,
            "body": closed_over(body, keep, [body.outputs[i] for i in outputs], known),
            "constants": len(fixed),
            "carries": len(state),
        }
        inputs = tuple([node.inputs[i] for i in keep])
        new = Node(node.primitive, inputs, attrs, tuple([node.specs[i] for i in outputs]), node.owner, node.origin)
        place = {key_of(body.outputs[i]): n for n, i in enumerate(outputs) if i >= carries}
        for i in live:
            results[i] = Symbol(new, outputs.index(i) if i in outputs else place[key_of(body.outputs[i])])
    return _spread(old, results)


def _distinct(body: Graph, live: Sequence[int], carries: int) -> list[int]:
    """The live outputs, each stacked result once."""
    seen: set[Key] = set()
    outputs = []
    for i in live:
        key = key_of(body.outputs[i])
        if i < carries or key not in seen:
            outputs.append(i)
        if i >= carries:
            seen.add(key)
    return outputs


def _each_step(x: Symbol, length: int) -> Symbol:
    row = reshape(x, shape=(1, *x.shape))
    repeated: Symbol = row if length == 1 else broadcast(row, shape=(length, *x.shape))
    return repeated


# while_loop ----------------------------------------------------------------------------------------------------------
def _prune_while(node: Node, old: Node, wanted: set[int]) -> Sequence[Symbol]:
    body, condition = node.attrs["body"], node.attrs["condition"]
    constants, carries = node.attrs["constants"], len(node.specs)
    tested = _needs(condition.outputs, condition.inputs)
    always = {i - constants for i in range(constants, constants + carries) if tested[i]}
    live, needed = _state_alive(body, wanted | always, constants, carries)
    fixed = [i for i in range(constants) if i in needed or tested[i]]
    keep = [*fixed, *(constants + i for i in live)]
    if len(keep) == len(body.inputs):
        return node.outputs
    attrs = {
        **node.attrs,
        "body": closed_over(body, keep, [body.outputs[i] for i in live], {}),
        "condition": closed_over(condition, keep, condition.outputs, {}),
        "constants": len(fixed),
    }
    inputs = tuple([node.inputs[i] for i in keep])
    new = Node(node.primitive, inputs, attrs, tuple([node.specs[i] for i in live]), node.owner, node.origin)
    return _spread(old, {i: Symbol(new, n) for n, i in enumerate(live)})


# cond and call -------------------------------------------------------------------------------------------------------
def _prune_bodies(names: Sequence[str], first: int) -> Any:
    """For operators whose sub-graphs take the operands from `first` on and give the results."""

    def prune(node: Node, old: Node, wanted: set[int]) -> Sequence[Symbol]:
        live, operands = sorted(wanted), node.inputs[first:]
        everything = range(len(operands))
        bodies: dict[str, Graph] = {}
        for name in names:
            body: Graph = node.attrs[name]
            known = _stand_ins(operands, body.inputs)
            bodies[name] = closed_over(body, everything, [body.outputs[i] for i in live], known)
        needs = [_needs(body.outputs, body.inputs) for body in bodies.values()]
        keep = [i for i in everything if any(need[i] for need in needs)]
        if len(keep) == len(operands) and len(live) == len(node.specs):
            return node.outputs
        bodies = {name: closed_over(body, keep, body.outputs, {}) for name, body in bodies.items()}
        inputs = (*node.inputs[:first], *(operands[i] for i in keep))
        specs = tuple([node.specs[i] for i in live])
        new = Node(node.primitive, inputs, {**node.attrs, **bodies}, specs, node.owner, node.origin)
        return _spread(old, {i: Symbol(new, n) for n, i in enumerate(live)})

    return prune


_PRUNERS: dict[str, Any] = {
    "scan": _prune_scan,
    "while_loop": _prune_while,
    "cond": _prune_bodies(("then", "otherwise"), 1),
    "call": _prune_bodies(("body",), 0),
}
