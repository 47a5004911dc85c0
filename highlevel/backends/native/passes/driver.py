"""The driver: graphs made anew, node by node, inputs first.

`Sweep` brings every operator into normal form: rules, constants computed, equal nodes merged, composites taken apart –
whatever it is told to do. A node is looked at once, when its inputs are final, and what takes its place is looked at
again; so nothing is left to do when the last node is done, and the work is linear in nodes. With `merge`, each distinct
expression is brought into normal form once, however often it stands in the program. `map_nodes` is for passes that are
no tables of rules.

Invariants. Inputs, outputs, reads and updates stay in number and order; a replaced symbol keeps its shape and type; new
nodes carry the origin (layer, line) of what they replace. Where nothing changes, the graph itself comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from highlevel.errors import BackendError
from highlevel.ir.graph import Graph, Node, Origin, Symbol
from highlevel.ir.operators import Scalar
from highlevel.ir.primitive import Primitive
from highlevel.ir.primitives.creation import full
from highlevel.ir.trace import Trace, suspended

from .equality import constant_key, operator_key
from .facts import fill_value
from .folding import folded, folded_leaf
from .pattern import Matcher, Rule

Outputs = Sequence[Symbol]
Known = dict[int, Outputs]  # what takes the place of the outputs of a node, by its id
Visit = Callable[[Node, Node], "Outputs | None"]
Path = tuple[str, ...]
LONGEST_CHAIN = 100  # rules applied one in place of the other: more is a loop
LOOKED_AT = 4  # operands that rules are chosen by


# Graphs made anew ----------------------------------------------------------------------------------------------------
class Bodies:
    """Sub-graphs made anew by a pass, each once: two nodes that shared a body go on sharing it."""

    def __init__(self, transform: Callable[[Graph], Graph]) -> None:
        self.transform = transform
        self._done: dict[int, tuple[Graph, Graph]] = {}

    def __call__(self, attrs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The attributes with each sub-graph transformed; the very same if none changed."""
        graphs = {name: self.of(value) for name, value in attrs.items() if isinstance(value, Graph)}
        changed = {name: new for name, new in graphs.items() if new is not attrs[name]}
        return {**attrs, **changed} if changed else attrs

    def of(self, body: Graph) -> Graph:
        if id(body) not in self._done:
            after = self.transform(body)
            self._done[id(body)] = body, after
            self._done[id(after)] = after, after
        return self._done[id(body)][1]


def map_nodes(graph: Graph, visit: Visit, transform: Callable[[Graph], Graph] | None = None) -> Graph:
    """The graph with each operator replaced by what `visit(node, old)` gives: a symbol for each output, or None.

    `node` is `old` on the inputs that came of its own, and with its sub-graphs put through `transform`. What is
    recorded inside `visit` belongs to the new graph.
    """
    known: Known = {}
    owner = graph.owner
    bodies = Bodies(transform) if transform else None
    with suspended(), Trace(serial=owner) as trace:
        for old in graph.nodes():
            if old.primitive is None:
                continue
            inputs = new_inputs(old, known)
            attrs = bodies(old.attrs) if bodies and old.primitive.family == "control" else old.attrs
            node = old if inputs is old.inputs and attrs is old.attrs else rebuilt(old, inputs, attrs, owner)
            trace.at = old.origin
            outputs = visit(node, old)
            if outputs is None:
                outputs = node.outputs if node is not old else None
            if outputs is not None and any([s.node is not old or s.index != i for i, s in enumerate(outputs)]):
                known[old.id] = outputs
    return replaced(graph, known)


def new_inputs(node: Node, known: Known) -> tuple[Symbol, ...]:
    """What takes the place of a node's inputs; the very same tuple if nothing does."""
    for symbol in node.inputs:
        if symbol.node.id in known:
            return tuple([known[s.node.id][s.index] if s.node.id in known else s for s in node.inputs])
    return node.inputs


def replaced(graph: Graph, known: Known) -> Graph:
    """The graph with other results, where `known` names them."""

    def now(symbol: Symbol) -> Symbol:
        outputs = known.get(symbol.node.id)
        return symbol if outputs is None else outputs[symbol.index]

    if not any(symbol.node.id in known for symbol in graph.results):
        return graph
    updates = tuple([(variable, now(symbol)) for variable, symbol in graph.updates])
    return Graph(graph.inputs, tuple([now(symbol) for symbol in graph.outputs]), graph.reads, updates)


def rebuilt(
    node: Node, inputs: tuple[Symbol, ...], attrs: Mapping[str, Any], owner: int, at: Origin | None = None
) -> Node:
    """The same operator on other inputs of the same specs; shape rules need not be asked again."""
    return Node(node.primitive, inputs, attrs, node.specs, owner, at or node.origin)


def sub_graphs(node: Node) -> list[Graph]:
    return [value for value in node.attrs.values() if isinstance(value, Graph)] if node.attrs else []


# Rules ---------------------------------------------------------------------------------------------------------------
class Table:
    """Rules by the operators that they look at: the pattern's last one, and those that its operands come from."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._ending: dict[Primitive, list[Rule]] = {}
        self._fitting: dict[tuple[Primitive | None, ...], tuple[tuple[Rule, Matcher], ...]] = {}

    def fitting(self, node: Node) -> Sequence[tuple[Rule, Matcher]]:
        """The rules that could apply to a node, in their order, with what tells whether they do."""
        primitive = node.primitive
        assert primitive is not None
        ending = self._ending.get(primitive)
        if ending is None:
            ending = [rule for rule in self.rules if not primitive.multiple and rule.ends_in(primitive)]
            self._ending[primitive] = ending
        if not ending:
            return ()
        made_by = (primitive, *[symbol.node.primitive for symbol in node.inputs[:LOOKED_AT]])
        found = self._fitting.get(made_by)
        if found is None:
            pairs = [(rule, matcher) for rule in ending for matcher in rule.matchers(made_by[1:], LOOKED_AT)]
            found = self._fitting[made_by] = tuple(pairs)
        return found

    def fits(self, graph: Graph) -> bool:
        """Whether any rule matches anywhere, in sub-graphs too: quicker to say than to try."""
        nodes = graph.nodes()
        present = {node.primitive for node in nodes}
        if any(rule.operators <= present for rule in self.rules):
            for node in nodes:
                if node.primitive is not None:
                    for rule, matcher in self.fitting(node):
                        if rule.match_with(matcher, Symbol(node)) is not None:
                            return True
        controls = [node for node in nodes if node.primitive is not None and node.primitive.family == "control"]
        return any(self.fits(body) for node in controls for body in sub_graphs(node))


# Sweeps --------------------------------------------------------------------------------------------------------------
class Sweep:
    """A pass that brings every operator into normal form.

    rules:      what applies, in this order
    merge:      equal operators on equal inputs become one node, equal constants one constant
    fold_bytes: what depends on constants only is computed, up to that size; None: it is not
    inline:     says of a composite, by its name, whether its body takes its place; None: no composite's does

    The same sweep may be run on several graphs: sub-graphs that it has met are not looked at again.
    """

    def __init__(
        self,
        rules: Table | Iterable[Rule] = (),
        *,
        merge: bool = False,
        fold_bytes: int | None = None,
        inline: Callable[[str], bool] | None = None,
    ) -> None:
        self.table = rules if isinstance(rules, Table) else Table(rules)
        self.merge = merge
        self.fold_bytes = fold_bytes
        self.inline = inline
        self.bodies = Bodies(lambda body: _Walk(self, body, nested=True).run())

    def __call__(self, graph: Graph) -> Graph:
        return _Walk(self, graph, nested=False).run()


class _Walk:
    """One graph being swept.

    seen: the normal form of each expression met so far
    """

    def __init__(self, sweep: Sweep, graph: Graph, nested: bool) -> None:
        self.sweep = sweep
        self.graph = graph
        self.nested = nested
        self.owner = graph.owner
        self.seen: dict[Any, Outputs] = {}
        self.trace = Trace(serial=self.owner)

    def run(self) -> Graph:
        known: Known = {}
        with suspended(), self.trace:
            self.walk(self.graph.nodes(), known)
        return replaced(self.graph, known)

    def walk(self, nodes: Sequence[Node], known: Known, foreign: bool = False) -> None:
        """Puts what becomes of the nodes into `known`; foreign ones come from another graph, and are made anew."""
        for old in nodes:
            if old.primitive is None:
                if old.leaf is None or old.leaf.kind != "constant":
                    continue
                outputs = self.constant(old)
            else:
                outputs = self.operator(old, new_inputs(old, known), foreign)
            if outputs[0].node is not old:
                known[old.id] = outputs

    def constant(self, leaf: Node) -> Outputs:
        """A number as a fill; of equal constants the first."""
        self.trace.at = leaf.origin
        if self.sweep.fold_bytes is not None:
            number = folded_leaf(leaf)
            if number is not None:
                return self.operator(number.node, ())
        if self.sweep.merge:
            key = constant_key(leaf)
            if key is not None:
                return self.seen.setdefault(key, leaf.outputs)
        return leaf.outputs

    def operator(
        self, old: Node, inputs: tuple[Symbol, ...], foreign: bool = False, path: Path = ()
    ) -> Outputs:
        """The normal form of an operator on inputs that are in normal form."""
        attrs, key = old.attrs, None
        primitive = old.primitive
        assert primitive is not None
        if primitive.family == "control":
            opened = self.opened(old, inputs)
            if opened is not None:
                return opened
            attrs = self.sweep.bodies(attrs)
        if self.sweep.merge:
            key = operator_key(primitive, inputs, attrs)
            found = self.seen.get(key)
            if found is not None:
                return found
        same = inputs is old.inputs and attrs is old.attrs and not foreign
        node = old if same else rebuilt(old, inputs, attrs, self.owner)
        outputs = node.outputs if primitive.multiple else (self.normal(Symbol(node), path),)
        if key is not None:
            self.seen[key] = outputs
        return outputs

    def opened(self, node: Node, inputs: tuple[Symbol, ...]) -> Outputs | None:
        """The body in place of a composite, the branch in place of a decision that is known."""
        name, attrs = node.name, node.attrs
        if name == "call" and self.sweep.inline is not None and self.sweep.inline(attrs["name"]):
            return self.spliced(attrs["body"], inputs)
        if name == "custom_gradient" and self.sweep.inline is not None:
            return inputs[: attrs["results"]]  # an identity, once gradients have been taken
        if name == "cond" and self.sweep.fold_bytes is not None:
            condition = fill_value(inputs[0])
            if condition is not None:
                return self.spliced(attrs["then" if condition else "otherwise"], inputs[1:])
        return None

    def spliced(self, body: Graph, inputs: Sequence[Symbol]) -> Outputs:
        """The outputs of a closed graph for other inputs, its nodes taken into this graph."""
        known: Known = {symbol.node.id: (x,) for symbol, x in zip(body.inputs, inputs, strict=True)}
        self.walk(body.nodes(), known, foreign=True)
        return [known[symbol.node.id][symbol.index] for symbol in body.outputs]

    def normal(self, symbol: Symbol, path: Path = ()) -> Symbol:
        """What rules and folding make of an expression whose inputs are in normal form.

        path: the names of the rules that led here, one in place of the other
        """
        node, sweep = symbol.node, self.sweep
        self.trace.at = node.origin
        new = None if sweep.fold_bytes is None else folded(node, sweep.fold_bytes, self.nested)
        if new is None:
            for rule, matcher in sweep.table.fitting(node):
                found = rule.match_with(matcher, symbol)
                new = None if found is None else rule.replacement(found)
                if new is not None:
                    break
            else:
                return symbol
            new = settled(new, symbol, rule)
            path = (*path, rule.name)
            if len(path) > LONGEST_CHAIN:
                raise BackendError(
                    "rules undo each other", got="; ".join(dict.fromkeys(path[-20:])),
                    expected="rules that lead to an end", layer=node.origin.layer or None,
                )  # fmt: skip
        return self.absorbed(new, node.id, path)

    def absorbed(self, made: Symbol, mark: int, path: Path) -> Symbol:
        """The normal form of what a rule made: all nodes younger than the mark. What was there is in normal form."""
        return self._normal(made, mark, path, {})

    def _normal(self, symbol: Symbol, mark: int, path: Path, known: Known) -> Symbol:
        node = symbol.node
        if node.id <= mark:
            return symbol
        if node.id not in known:
            inputs = tuple([self._normal(s, mark, path, known) for s in node.inputs])
            same = all([a.node is b.node and a.index == b.index for a, b in zip(inputs, node.inputs, strict=True)])
            inputs = node.inputs if same else inputs
            known[node.id] = self.operator(node, inputs, path=path) if node.primitive else self.constant(node)
        return known[node.id][symbol.index]


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


def rewrite(graph: Graph, rules: Iterable[Rule] | Table) -> Graph:
    """The graph with the rules applied, inputs before what uses them, until none applies; sub-graphs as well."""
    return Sweep(rules)(graph)
