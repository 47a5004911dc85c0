"""The driver: graphs made anew, node by node, inputs first.

`map_nodes` is what every pass is made of. It hands each node – on its new inputs, with its sub-graphs done – to a
function that says what takes its place. `rewrite` is that with tables of rules.

Invariants. Inputs, outputs, reads and updates stay in number and order; a replaced symbol keeps its shape and type; new
nodes carry the origin (layer, line) of what they replace. Where nothing changes, the graph itself comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from highlevel.errors import BackendError
from highlevel.ir.graph import Graph, Node, Origin, Symbol, key_of, reachable
from highlevel.ir.operators import Scalar
from highlevel.ir.primitive import Primitive
from highlevel.ir.primitives.creation import full
from highlevel.ir.trace import Trace, suspended

from .pattern import Rule

Key = tuple[int, int]
Visit = Callable[[Node, Node], "Sequence[Symbol] | None"]
LONGEST_CHAIN = 200  # rules applied in place of one node: more is a loop


# Graphs made anew ----------------------------------------------------------------------------------------------------
class Bodies:
    """Sub-graphs made anew by a pass, each once: two nodes that shared a body go on sharing it."""

    def __init__(self, transform: Callable[[Graph], Graph]) -> None:
        self.transform = transform
        self._done: dict[int, tuple[Graph, Graph]] = {}

    def __call__(self, attrs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The attributes with each sub-graph transformed; the very same if none changed."""
        graphs = {name: self._of(value) for name, value in attrs.items() if isinstance(value, Graph)}
        changed = {name: new for name, new in graphs.items() if new is not attrs[name]}
        return {**attrs, **changed} if changed else attrs

    def _of(self, body: Graph) -> Graph:
        if id(body) not in self._done:
            self._done[id(body)] = body, self.transform(body)
        return self._done[id(body)][1]


def map_nodes(
    graph: Graph,
    visit: Visit,
    transform: Callable[[Graph], Graph] | None = None,
    leaves: Callable[[Node], Symbol | None] | None = None,
) -> Graph:
    """The graph with each operator replaced by what `visit(node, old)` gives: a symbol for each output, or None.

    `node` is `old` on the inputs that came of its own, and with its sub-graphs put through `transform`. What is
    recorded inside `visit` belongs to the new graph. `leaves` gives what takes the place of a constant, or None.
    """
    known: dict[Key, Symbol] = {}
    owner = graph.owner
    bodies = Bodies(transform) if transform else None
    with suspended(), Trace(serial=owner):
        for old in graph.nodes():
            if old.primitive is None:
                constant = leaves(old) if leaves and old.leaf is not None and old.leaf.kind == "constant" else None
                if constant is not None:
                    known[old.id, 0] = constant
                continue
            node = old
            attrs = bodies(old.attrs) if bodies and old.primitive.family == "control" else old.attrs
            for symbol in old.inputs:
                if attrs is not old.attrs or (symbol.node.id, symbol.index) in known:
                    inputs = tuple([known.get((s.node.id, s.index), s) for s in old.inputs])
                    node = rebuilt(old, inputs, attrs, owner)
                    break
            outputs = visit(node, old)
            if outputs is None:
                if node is old:
                    continue
                outputs = node.outputs
            for index, symbol in enumerate(outputs):
                if symbol.node is not old or symbol.index != index:
                    known[old.id, index] = symbol
    return replaced(graph, known)


def replaced(graph: Graph, known: Mapping[Key, Symbol]) -> Graph:
    """The graph with other results, where `known` names them."""
    if not any(key_of(symbol) in known for symbol in graph.results):
        return graph
    return Graph(
        graph.inputs,
        tuple([known.get(key_of(symbol), symbol) for symbol in graph.outputs]),
        graph.reads,
        tuple([(variable, known.get(key_of(symbol), symbol)) for variable, symbol in graph.updates]),
    )


def rebuilt(
    node: Node, inputs: tuple[Symbol, ...], attrs: Mapping[str, Any], owner: int, at: Origin | None = None
) -> Node:
    """The same operator on other inputs of the same specs; shape rules need not be asked again."""
    return Node(node.primitive, inputs, attrs, node.specs, owner, at or node.origin)


def sub_graphs(node: Node) -> list[Graph]:
    return [value for value in node.attrs.values() if isinstance(value, Graph)]


def spliced(body: Graph, inputs: Sequence[Symbol], owner: int) -> list[Symbol]:
    """The outputs of a closed graph for other inputs, its nodes taken into the graph of that owner."""
    known: dict[Key, Symbol] = dict(zip(map(key_of, body.inputs), inputs, strict=True))
    for node in body.nodes():
        if node.primitive is not None:
            new = rebuilt(node, tuple([known[key_of(symbol)] for symbol in node.inputs]), node.attrs, owner)
            known.update(((node.id, index), symbol) for index, symbol in enumerate(new.outputs))
    return [known[key_of(symbol)] for symbol in body.outputs]


# Rules ---------------------------------------------------------------------------------------------------------------
class Table:
    """Rules by the operator that their pattern ends in, in their order."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._at: dict[Primitive, list[Rule]] = {}

    def at(self, node: Node) -> Sequence[Rule]:
        """The rules that could apply to a node."""
        primitive = node.primitive
        if primitive is None or primitive.multiple:
            return ()
        if primitive not in self._at:
            self._at[primitive] = [rule for rule in self.rules if rule.ends_in(primitive)]
        return self._at[primitive]


def rewrite(graph: Graph, rules: Iterable[Rule] | Table) -> Graph:
    """The graph with the rules applied, inputs before what uses them, until none applies; sub-graphs as well.

    Linear in nodes: what a rule put in place is looked at again, nothing else is. Rules that undo each other are found
    out and named.
    """
    table = rules if isinstance(rules, Table) else Table(rules)

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        return [_normalized(Symbol(node), table, [])] if table.at(node) else None

    return map_nodes(graph, visit, lambda body: rewrite(body, table))


def _normalized(symbol: Symbol, table: Table, applied: list[str]) -> Symbol:
    """What rules make of an expression whose inputs are in normal form; `applied` collects their names."""
    while True:
        for rule in table.at(symbol.node):
            found = rule.apply(symbol)
            if found is not None:
                break
        else:
            return symbol
        applied.append(rule.name)
        if len(applied) > LONGEST_CHAIN:
            loop = list(dict.fromkeys(applied[-20:]))
            raise BackendError(
                "rules undo each other", got="; ".join(loop), expected="rules that lead to an end",
                layer=symbol.node.origin.layer or None,
            )  # fmt: skip
        new = settled(found, symbol, rule)
        if new.node.id < symbol.node.id:
            return new  # a part of what was there, which is in normal form
        symbol = _with_normal_inputs(new, symbol.node, table, applied)


def _with_normal_inputs(new: Symbol, old: Node, table: Table, applied: list[str]) -> Symbol:
    """The replacement with the origin of what it replaces, and all of its new nodes but the last in normal form."""
    known: dict[Key, Symbol] = {}
    last = new.node
    for node in reachable([new], stop=lambda node: node.id <= old.id):
        if node.id <= old.id or node.leaf is not None:
            continue
        inputs = tuple([known.get(key_of(symbol), symbol) for symbol in node.inputs])
        again = rebuilt(node, inputs, node.attrs, old.owner, old.origin)
        if node is last:
            return Symbol(again, new.index)
        for index, symbol in enumerate(again.outputs):
            done = symbol if node.primitive and node.primitive.multiple else _normalized(symbol, table, applied)
            known[node.id, index] = done
    return known.get(key_of(new), new)


def settled(found: Any, symbol: Symbol, rule: Rule) -> Symbol:
    """A replacement as a symbol; it has to be of the shape and type of what it replaces."""
    if isinstance(found, Scalar):
        found = full(shape=symbol.shape, value=found, dtype=symbol.dtype)
    if not isinstance(found, Symbol) or found.spec != symbol.spec:
        raise BackendError(
            f"rule {rule.name!r} changes what it replaces",
            got=found.spec if isinstance(found, Symbol) else type(found).__name__, expected=symbol.spec,
        )  # fmt: skip
    return found
