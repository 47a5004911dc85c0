"""What a loop computes in every step, and is the same in every step, is computed before it.

Tracing leaves outside what depends on a loop's constants only. But operators without operands – fills and counts – are
traced where they stand, and with them what is made of them, say a running sum of ones. Such values become operands:
outside they may be folded, which inside they cannot, since sub-graphs hold no data. What costs next to nothing stays:
reading a value takes longer than filling, moving or adding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from highlevel.ir.graph import Graph, Leaf, Node, Symbol, key_of, reachable

from .driver import Known, map_nodes, new_inputs, rebuilt
from .folding import FOLD_LIMIT_BYTES
from .loops import Key, closed_over, has_loops

STAYING = frozenset({"elementwise", "movement", "creation", "random", "control", "factor"})  # which may be errors


@dataclass(frozen=True, slots=True)
class _Kind:
    """names: of the sub-graphs, which have the same inputs; first: the operand that is their first input"""

    names: tuple[str, ...]
    first: int = 0


_KINDS = {
    "scan": _Kind(("body",)),
    "while_loop": _Kind(("condition", "body")),
    "cond": _Kind(("then", "otherwise"), 1),  # what depends on nothing, and is small enough to be folded
}


def hoist_invariants(graph: Graph) -> Graph:
    """Takes what does not change out of loops, inner ones first."""
    if not has_loops(graph):
        return graph

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        kind = _KINDS.get(node.name)
        return _without_invariants(node, kind).outputs if kind is not None else None

    return map_nodes(graph, visit, hoist_invariants)


def _without_invariants(node: Node, kind: _Kind) -> Node:
    """The node, with what is the same in every step as operands."""
    count = node.attrs.get("constants", 0)
    operands: list[Symbol] = []
    leaves: list[Symbol] = []
    known: dict[str, dict[Key, Symbol]] = {}
    for name in kind.names:
        body: Graph = node.attrs[name]
        found = _invariants(body, count, FOLD_LIMIT_BYTES if kind.first else None)
        outside = _outside(node, body, count, found)
        known[name] = {}
        for symbol, value in zip(found, outside, strict=True):
            leaf = Leaf("input", f"invariant{len(leaves)}")
            new = Symbol(Node(None, (), {}, (symbol.spec,), body.owner, symbol.node.origin, leaf))
            known[name][key_of(symbol)] = new
            leaves.append(new)
            operands.append(value)
    if not leaves:
        return node
    bodies = {name: _with_inputs(node.attrs[name], count, leaves, known[name]) for name in kind.names}
    attrs = {**node.attrs, **bodies}
    if "constants" in attrs:
        attrs["constants"] = count + len(leaves)
    place = kind.first + count
    return rebuilt(node, (*node.inputs[:place], *operands, *node.inputs[place:]), attrs, node.owner)


def _invariants(body: Graph, constants: int, limit_bytes: int | None) -> list[Symbol]:
    """The last of what depends on constants only and is not cheap: symbols that all else needs."""
    same = {symbol.node.id for symbol in body.inputs[:constants]}
    for node in body.nodes():
        if node.primitive is not None and all([symbol.node.id in same for symbol in node.inputs]):
            same.add(node.id)
    found: dict[Key, Symbol] = {}
    seen: set[int] = set()
    stack = list(body.outputs)
    while stack:
        symbol = stack.pop()
        node = symbol.node
        small = limit_bytes is None or symbol.spec.size_bytes <= limit_bytes
        if node.id in same and node.primitive is not None and node.primitive.family not in STAYING and small:
            found[key_of(symbol)] = symbol
        elif node.id not in seen:
            seen.add(node.id)
            stack.extend(node.inputs)
    return [found[key] for key in sorted(found)]


def _outside(loop: Node, body: Graph, constants: int, symbols: Sequence[Symbol]) -> list[Symbol]:
    """Values of a body that depend on constants only, computed outside of it."""
    made: Known = {symbol.node.id: (loop.inputs[i],) for i, symbol in enumerate(body.inputs[:constants])}
    for node in reachable(symbols):
        if node.primitive is not None:
            made[node.id] = rebuilt(node, new_inputs(node, made), node.attrs, loop.owner).outputs
    return [made[symbol.node.id][symbol.index] for symbol in symbols]


def _with_inputs(body: Graph, place: int, leaves: Sequence[Symbol], known: dict[Key, Symbol]) -> Graph:
    """The sub-graph with further inputs, that stand for some of its symbols."""
    inner = closed_over(body, range(len(body.inputs)), body.outputs, known)
    return Graph((*inner.inputs[:place], *leaves, *inner.inputs[place:]), inner.outputs)
