"""Writes docs/operators.md: the tables of primitives and of functions, from their records.

python docs/make_operators.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

import highlevel as hl
import highlevel.random  # its functions are in the table, too
from highlevel.ir import REGISTRY, Primitive
from highlevel.ops.registry import OPS

TARGET = Path(__file__).with_name("operators.md")


def attributes(primitive: Primitive) -> str:
    """Names of the attributes: the keyword arguments of the definition."""
    parameters = inspect.signature(primitive.numpy).parameters.values()
    return ", ".join(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("wanted", "needed"))


def gradient(primitive: Primitive) -> str:
    if primitive.vjp is None:
        return "–"
    return "yes" if any(sample.gradient for sample in primitive.samples) else "zero"


def primitive_table() -> list[str]:
    lines = [f"## Primitives ({len(REGISTRY)})", ""]
    families: dict[str, list[Primitive]] = {}
    for primitive in REGISTRY.values():
        families.setdefault(primitive.family, []).append(primitive)
    for family, primitives in sorted(families.items()):
        lines += [f"### {family}", "", "| name | attributes | gradient | compared with | |", "|---|---|---|---|---|"]
        for primitive in sorted(primitives, key=lambda p: p.name):
            oracles = ", ".join(dict.fromkeys(f"`{sample.oracle}`" for sample in primitive.samples))
            cells = (f"`{primitive.name}`", attributes(primitive), gradient(primitive), oracles, primitive.summary)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def function_table() -> list[str]:
    names = sorted(name for name in OPS)
    lines = [f"## Functions ({len(names)})", "", "With Keras's names, arguments and semantics: `hl.ops.NAME`.", ""]
    lines += ["| function | |", "|---|---|"]
    for name in names:
        summary = (inspect.getdoc(OPS[name]) or "").split("\n")[0]
        lines.append(f"| `{name}` | {summary.replace('|', chr(92) + '|')} |")
    return lines


def text() -> str:
    """The whole page."""
    intro = [
        "# Operators",
        "",
        f"Made from the records of version {hl.__version__} by `python docs/make_operators.py`.",
        "",
    ]
    return "\n".join([*intro, *primitive_table(), *function_table(), ""])


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
