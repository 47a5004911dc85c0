"""Matrix products that a loop need not take step by step.

    before:  x_t · W for all steps at once, where x is a sequence and W stays: one product over all rows
    after:   Σ_t a_tᵀ · b_t, state of the loop that is only added to: one product of all a's with all b's
    after:   rows u_t · W that the loop only gives out: one product of all u's with W

That is where a recurrent layer's time goes: a product of a few rows reads all of W for little work. What is only known
step by step (the product with the state itself) stays inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from highlevel.ir.graph import Graph, Leaf, Node, Symbol, key_of

from .driver import map_nodes
from .facts import fill_value
from .loops import Key, closed_over, has_loops
from .terms import add, matmul, reshape, transpose


def hoist_products(graph: Graph) -> Graph:
    """Takes products out of scans, those in sub-graphs too."""
    if not has_loops(graph):
        return graph

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        return _hoisted(node) if node.name == "scan" else None

    return map_nodes(graph, visit, hoist_products)


@dataclass
class _Loop:
    """A scan being taken apart.

    taken: products inside → the new input that stands for them
    extra: new sequences, as (operand, input of the body)
    rows:  what has to be stacked: outputs of the body beyond the carry; the first ones are the loop's own
    gone:  carries that are computed after the loop
    """

    node: Node
    body: Graph
    constants: int
    carries: int
    length: int
    taken: dict[Key, Symbol] = field(default_factory=dict)
    extra: list[tuple[Symbol, Symbol]] = field(default_factory=list)
    rows: list[Symbol] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    def operand(self, symbol: Symbol, first: int, count: int) -> Symbol | None:
        """The operand behind an input of the body, if it is among `count` of them from `first` on."""
        for i in range(first, first + count):
            if key_of(self.body.inputs[i]) == key_of(symbol):
                return self.node.inputs[i]
        return None

    def constant(self, symbol: Symbol) -> Any:
        """What a symbol of the body is outside, if it is the same in every step."""
        found = self.operand(symbol, 0, self.constants)
        if found is None and symbol.node.name == "transpose":
            inner = self.operand(symbol.node.inputs[0], 0, self.constants)
            return None if inner is None else transpose(inner, axes=symbol.node.attrs["axes"])
        return found

    def sequence(self, symbol: Symbol) -> Symbol | None:
        first = self.constants + self.carries
        return self.operand(symbol, first, len(self.body.inputs) - first)

    def row(self, symbol: Symbol) -> int:
        """The place among the stacked outputs of a symbol, which becomes one if it is not."""
        for place, there in enumerate(self.rows):
            if key_of(there) == key_of(symbol):
                return place
        self.rows.append(symbol)
        return len(self.rows) - 1


def _is_product(symbol: Symbol) -> bool:
    return symbol.node.name == "matmul" and symbol.spec.ndim == 2


def _uses(body: Graph) -> dict[Key, int]:
    counts: dict[Key, int] = {}
    for symbol in [*(s for node in body.nodes() for s in node.inputs), *body.outputs]:
        counts[key_of(symbol)] = counts.get(key_of(symbol), 0) + 1
    return counts


def _hoisted(node: Node) -> Sequence[Symbol]:
    body: Graph = node.attrs["body"]
    loop = _Loop(node, body, node.attrs["constants"], node.attrs["carries"], node.attrs["length"])
    if loop.length < 2:
        return node.outputs
    loop.rows = list(body.outputs[loop.carries :])
    _take_before(loop)
    sums = _sums(loop)
    last = _given_out(loop)
    if not (loop.taken or sums or last):
        return node.outputs
    return _assembled(loop, sums, last)


def _take_before(loop: _Loop) -> None:
    """Products of a sequence with a constant, taken over all steps before the loop."""
    for node in loop.body.nodes():
        if node.primitive is None or not _is_product(Symbol(node)):
            continue
        xs, weight = loop.sequence(node.inputs[0]), loop.constant(node.inputs[1])
        if xs is None or weight is None:
            continue
        steps, rows, size = xs.shape
        product = matmul(reshape(xs, shape=(steps * rows, size)), weight)
        leaf = Node(None, (), {}, node.specs, node.owner, node.origin, Leaf("input", f"hoisted{len(loop.extra)}"))
        loop.extra.append((reshape(product, shape=(steps, *node.specs[0].shape)), Symbol(leaf)))
        loop.taken[node.id, 0] = Symbol(leaf)


def _sums(loop: _Loop) -> dict[int, tuple[Any, int]]:
    """Carries that products are added to: carry → (what aᵀ is a transposition of, row of b)."""
    found: dict[int, tuple[Any, int]] = {}
    uses = _uses(loop.body)
    for i in range(loop.carries):
        carry, end = loop.body.inputs[loop.constants + i], loop.body.outputs[i]
        if end.node.name != "add" or uses.get(key_of(carry)) != 1 or uses[key_of(end)] != 1:
            continue
        terms = [symbol for symbol in end.node.inputs if key_of(symbol) != key_of(carry)]
        if len(terms) != 1 or not _is_product(terms[0]) or uses[key_of(terms[0])] != 1:
            continue
        a, b = terms[0].node.inputs
        if a.node.name == "transpose":
            found[i] = a.node.inputs[0], loop.row(b)
            if loop.sequence(a.node.inputs[0]) is None:
                loop.row(a.node.inputs[0])
            loop.gone.add(i)
    return found


def _given_out(loop: _Loop) -> dict[int, tuple[int, Any]]:
    """Rows that are a product with a constant and nothing else: row → (row of u, the constant)."""
    found: dict[int, tuple[int, Any]] = {}
    uses = _uses(loop.body)
    for place, symbol in enumerate(list(loop.rows)):
        if not _is_product(symbol) or uses.get(key_of(symbol)) != 1 or key_of(symbol) in loop.taken:
            continue
        weight = loop.constant(symbol.node.inputs[1])
        if weight is not None and loop.sequence(symbol.node.inputs[0]) is None:
            found[place] = loop.row(symbol.node.inputs[0]), weight
    return found


def _assembled(loop: _Loop, sums: dict[int, tuple[Any, int]], last: dict[int, tuple[int, Any]]) -> Sequence[Symbol]:
    """The loop without what was taken out of it, and what follows it."""
    node, body = loop.node, loop.body
    state = [i for i in range(loop.carries) if i not in loop.gone]
    rows = [place for place in range(len(loop.rows)) if place not in last]
    outputs = [*(body.outputs[i] for i in state), *(loop.rows[place] for place in rows)]
    first = loop.constants + loop.carries
    keep = [*range(loop.constants), *(loop.constants + i for i in state), *range(first, len(body.inputs))]
    inner = closed_over(body, keep, outputs, loop.taken)
    inner = Graph((*inner.inputs, *(leaf for _, leaf in loop.extra)), inner.outputs)
    inputs = (*(node.inputs[i] for i in keep), *(operand for operand, _ in loop.extra))
    specs = [symbol.spec for symbol in outputs]
    specs = [s if n < len(state) else s.with_shape((loop.length, *s.shape)) for n, s in enumerate(specs)]
    attrs = {**node.attrs, "body": inner, "carries": len(state)}
    new = Node(node.primitive, inputs, attrs, tuple(specs), node.owner, node.origin)
    stacked = {place: Symbol(new, len(state) + n) for n, place in enumerate(rows)}

    def flat(symbol: Symbol) -> Any:
        steps, size, columns = symbol.shape
        return reshape(symbol, shape=(steps * size, columns))

    for place, (row, weight) in last.items():
        shape = (loop.length, *loop.rows[place].shape)
        stacked[place] = reshape(matmul(flat(stacked[row]), weight), shape=shape)
    results = {i: Symbol(new, n) for n, i in enumerate(state)}
    for i, (a, row) in sums.items():
        outside = loop.sequence(a)
        left = flat(stacked[loop.row(a)] if outside is None else outside)
        product = matmul(transpose(left, axes=(1, 0)), flat(stacked[row]))
        start = node.inputs[loop.constants + i]
        results[i] = product if fill_value(start) == 0 else add(start, product)
    own = len(node.specs) - loop.carries
    return [*(results[i] for i in range(loop.carries)), *(stacked[place] for place in range(own))]
