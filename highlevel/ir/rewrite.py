"""Graphs made from graphs: expressions recorded again, with some of their symbols replaced or equal nodes merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .graph import Graph, Node, Symbol, attribute_key, key_of
from .trace import Trace, record_many


class Replay:
    """Expressions recorded again in the open trace, with stand-ins for some of their symbols.

    Built anew is what depends on a stand-in – and fills, which are cheaper to repeat than to hand over – each node
    once, however often it is asked for; all else stands for itself.
    """

    def __init__(self, stand_ins: Mapping[tuple[int, int], Symbol]) -> None:
        self._known = dict(stand_ins)

    def __call__(self, symbol: Symbol) -> Symbol:
        key = key_of(symbol)
        if key not in self._known:
            self._record_inputs_first(symbol.node)
        return self._known[key]

    def _record_inputs_first(self, last: Node) -> None:
        known, stack = self._known, [last]
        while stack:
            node = stack[-1]
            missing = [symbol.node for symbol in node.inputs if key_of(symbol) not in known]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            if any((node.id, index) not in known for index in range(len(node.specs))):
                for index, symbol in enumerate(self._record(node)):
                    known.setdefault((node.id, index), symbol)

    def _record(self, node: Node) -> tuple[Symbol, ...]:
        if node.primitive is None:
            return node.outputs
        same, alike, inputs = bool(node.inputs), True, []
        for old in node.inputs:
            new = self._known[old.node.id, old.index]
            inputs.append(new)
            if new.node is not old.node or new.index != old.index:
                same = False
                alike = alike and (new.spec is old.spec or new.spec == old.spec)
        if same:
            return node.outputs
        return record_many(node.primitive, inputs, node.attrs, node.origin, node.specs if alike else None)


def inline(graph: Graph, inputs: Sequence[Any]) -> list[Symbol]:
    """The outputs of a closed graph for other inputs, recorded in the open trace."""
    replay = Replay(dict(zip(map(key_of, graph.inputs), inputs, strict=True)))
    return [replay(symbol) for symbol in graph.outputs]


def merge_common(graph: Graph) -> Graph:
    """Hash-consing: equal operators on equal inputs become one node. Two different constants or inputs stay apart.

    Sub-graphs of control flow are left as they are.
    """
    known: dict[tuple[int, int], Symbol] = {}
    seen: dict[Any, tuple[Symbol, ...]] = {}

    def lookup(symbol: Symbol) -> Symbol:
        return known.get(key_of(symbol), symbol)

    with Trace(serial=graph.owner):
        for node in graph.nodes():
            if node.primitive is None:
                continue
            inputs = tuple(map(lookup, node.inputs))
            key = (node.name, tuple(map(key_of, inputs)), attribute_key(dict(node.attrs)))
            if key not in seen:
                changed = any(key_of(a) != key_of(b) for a, b in zip(inputs, node.inputs, strict=True))
                again = record_many(node.primitive, inputs, node.attrs, node.origin) if changed else node.outputs
                seen[key] = again
            known.update(((node.id, index), symbol) for index, symbol in enumerate(seen[key]))
    return Graph(
        graph.inputs,
        tuple(map(lookup, graph.outputs)),
        graph.reads,
        tuple((variable, lookup(symbol)) for variable, symbol in graph.updates),
    )
