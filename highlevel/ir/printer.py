"""Graphs as text: one line per node, the same text for the same program in every run.

graph(%0: float32 (2, 3), %1: float32 (3,)) {
  %2 = broadcast(%1, shape=(2, 3)) : float32 (2, 3)    # dense
  …
  return %5
}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # graphs print themselves with this module, which takes them as they are
    from .graph import Graph, Leaf, Node, Symbol

LARGEST_CONSTANT_SHOWN = 8  # elements


def _is_graph(value: Any) -> bool:
    return hasattr(value, "nodes")


def format_value(value: Any) -> str:
    """An attribute's value, without addresses."""
    if _is_graph(value):
        return f"graph<{len(value.nodes())} nodes>"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(format_value, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, dict):
        return "{" + format_attrs(value) + "}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if callable(value) or " at 0x" in repr(value):
        return str(getattr(value, "__name__", type(value).__name__))
    return repr(value)


def format_attrs(attrs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={format_value(value)}" for name, value in attrs.items())


def format_node(node: Node, names: Mapping[tuple[int, int], str]) -> str:
    """The right-hand side of a node's line."""
    if node.leaf is not None:
        return f"{node.leaf.kind}({_format_leaf(node.leaf)})"
    operands = ", ".join(names[symbol.key] for symbol in node.inputs)
    attrs = format_attrs(node.attrs)
    return f"{node.name}({operands}{', ' if operands and attrs else ''}{attrs})"


def _format_leaf(leaf: Leaf) -> str:
    if leaf.kind == "variable":
        return str(leaf.value.path)
    if leaf.kind == "constant" and leaf.value.size <= LARGEST_CONSTANT_SHOWN:
        return str(leaf.value.tolist())
    return ""


def format_graph(graph: Graph) -> str:
    """The whole program, sub-graphs indented below the node that runs them."""
    names: dict[tuple[int, int], str] = {}

    def name(symbol: Symbol) -> str:
        return names.setdefault(symbol.key, f"%{len(names)}")

    header = ", ".join(f"{name(symbol)}: {symbol.spec}" for symbol in graph.inputs)
    lines = [f"graph({header}) {{"]
    inputs = {symbol.node.id for symbol in graph.inputs}
    for node in graph.nodes():
        if node.id in inputs:
            continue
        left = ", ".join(name(symbol) for symbol in node.outputs)
        types = ", ".join(map(str, node.specs))
        layer = f"    # {node.origin.layer}" if node.origin.layer else ""
        lines.append(f"  {left} = {format_node(node, names)} : {types}{layer}")
        for attr, value in node.attrs.items():
            if _is_graph(value):
                first, *rest = str(value).split("\n")
                lines += [f"    {attr}: {first}", *(f"    {line}" for line in rest)]
    for variable, symbol in graph.updates:
        lines.append(f"  {variable.path} <- {name(symbol)}")
    lines.append(f"  return {', '.join(name(symbol) for symbol in graph.outputs)}")
    return "\n".join([*lines, "}"])
