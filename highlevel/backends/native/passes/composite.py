"""Composites: named sub-graphs that a backend may claim whole. Those that it does not claim become plain nodes.

Checkpoints stay: their point is that what they compute is not kept, and the second time it is computed it must not be
merged with the first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from highlevel.ir.graph import Graph, Node, Symbol

from .driver import map_nodes, spliced

CHECKPOINT = "checkpoint"


def inline_composites(graph: Graph, claimed: Collection[str] = ()) -> Graph:
    """Puts the bodies of `call` nodes in their place, innermost first, except those that are claimed, and checkpoints.

    `custom_gradient`, which is an identity once gradients have been taken, goes as well.
    """
    kept = {CHECKPOINT, *claimed}

    def visit(node: Node, old: Node) -> Sequence[Symbol] | None:
        if node.name == "call" and node.attrs["name"] not in kept:
            return spliced(node.attrs["body"], node.inputs, node.owner)
        if node.name == "custom_gradient":
            return node.inputs[: node.attrs["results"]]
        return None

    return map_nodes(graph, visit, lambda body: inline_composites(body, claimed))
