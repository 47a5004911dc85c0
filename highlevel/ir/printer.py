"""Graphs as text: one line per node, the same text for the same program in every run.

    graph(%0: float32 (2, 3), %1: float32 (3,)) {
      %2 = broadcast(%1', shape=(2, 3))      : float32 (2, 3)     # dense
      ...
      return %5
    }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .graph import Graph, Node, Symbol, key_of


def format_value(value: Any) -> str:
    """An attribute's value, without addresses."""
    if isinstance(value, Graph):
        return f"graph<{len(value.nodes())} nodes>"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(format_value, value)) + ("," if len(value) == 1 else "") + ")"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, np.generic):
        return repr(value.item())
    return repr(value)


def format_attrs(attrs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={format_value(value)}" for name, value in attrs.items())


def format_node(node: Node, names: Mapping[tuple[int, int], str]) -> str:
    """The right-hand side of a node's line."""
    if node.leaf is not None:
        shown = getattr(node.leaf.value, "path", "") if node.leaf.kind == "variable" else ""
        return f"{node.leaf.kind}({shown})"
    operands = ", ".join(names[key_of(symbol)] for symbol in node.inputs)
    attrs = format_attrs(node.attrs)
    return f"{node.name}({operands}{', ' if operands and attrs else ''}{attrs})"


def format_graph(graph: Graph) -> str:
    """The whole program, sub-graphs indented below the node that runs them."""
    names: dict[tuple[int, int], str] = {}

    def name(symbol: Symbol) -> str:
        return names.setdefault(key_of(symbol), f"%{len(names)}")

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
            if isinstance(value, Graph):
                lines += [f"    {attr}: {line}" if i == 0 else f"    {line}" for i, line in enumerate(str(value).split("\n"))]
    for variable, symbol in graph.updates:
        lines.append(f"  {variable.path} <- {name(symbol)}")
    lines.append(f"  return {', '.join(name(symbol) for symbol in graph.outputs)}")
    return "\n".join([*lines, "}"])
