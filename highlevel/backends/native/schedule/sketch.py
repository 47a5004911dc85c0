"""What a value takes to compute: what is read, where, and how many operators – before there is a kernel for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..codegen import indexing as ix
from .absorb import Absorbed
from .keep import cost_of
from .places import Indices, indices_at, joined_parts, move, own_indices, own_place, place_of, without_ones
from .spaces import Space
from .values import Kind, Value

ELEMENTWISE, MOVEMENT, DRAW = Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.DRAW


@dataclass(slots=True, eq=False)
class Sketch:
    """A kept value, as what is read for it: the places of all loads, in variables of its own space.

    cost, operators: of the term for one element
    depth:   of operators upon each other
    centre:  for Σ (x − m)²: the value Σ x, of which m is the mean
    """

    value: Value
    space: Space
    loads: dict[Value, list[ix.Expr]]
    cost: int
    operators: int
    depth: int
    centre: Value | None = None


def sketch(value: Value) -> Sketch:
    """What is read for a value."""
    if value.kind is Kind.REDUCTION:
        operand = value.inputs[0]
        start, indices, shape = operand, own_indices(operand.shape), operand.shape
        kept = [axis for axis, size in enumerate(shape) if size != 1]
        axes = value.attrs["axes"]
        columns: tuple[int, ...] | None = tuple([i for i, axis in enumerate(kept) if axis in axes])
    else:
        start, indices, shape, columns = value, own_indices(value.shape), value.shape, None
    loads, cost, operators = trace(start, indices, value)
    found = Sketch(value, Space(without_ones(shape), columns), loads, cost, operators, value.depth)
    if columns is not None:
        found.centre = _centre(value)
    return found


def trace(
    start: Value, indices: Indices, root: Value | None = None, product: Value | None = None
) -> tuple[dict[Value, list[ix.Expr]], int, int]:
    """The loads that an element of a value takes, with its cost and number of operators.

    `root` is computed even if it is kept; `product` is there.
    """
    loads: dict[Value, list[ix.Expr]] = {}
    seen: dict[Indices, set[Value]] = {}
    walks = [(start, indices)]  # from values whose indices are known, along operators that keep them
    cost = operators = 0
    for first, at in walks:
        known = seen.setdefault(at, set())
        stack = [first]
        while stack:
            value = stack.pop()
            if value in known or value is product:
                continue
            known.add(value)
            kind = value.kind
            if value.root.kept and value is not root:
                place = place_of(at, value.shape)
                places = loads.setdefault(value.root, [])
                if place not in places:
                    places.append(place)
                continue
            operators += 1
            if kind is ELEMENTWISE:
                cost += cost_of(value)
                stack += value.inputs
            elif kind is MOVEMENT:
                walks += moved_to(value, at)
            elif kind is DRAW:
                cost += cost_of(value)
                loads.setdefault(value.inputs[0].root, []).append(ix.const(0))
    return loads, cost, operators


def moved_to(value: Value, indices: Indices) -> Iterator[tuple[Value, Indices]]:
    """Where the element of a movement comes from; none if there is nothing but padding."""
    if value.name == "concatenate":
        for source, moved, _, _ in joined_parts(value, indices):
            yield source, moved
    elif value.inputs[0].size:
        yield value.inputs[0], move(value, indices).indices


def _centre(value: Value) -> Value | None:
    """Σ x if a value is Σ (x − Σ x / n)² over the same axes."""
    product = value.inputs[0]
    if value.name != "reduce_sum" or product.name != "mul" or product.inputs[0] is not product.inputs[1]:
        return None
    difference = product.inputs[0]
    if difference.name != "sub" or not value.dtype.is_float:
        return None
    x, mean = difference.inputs
    while mean.kind is Kind.MOVEMENT:
        if mean.name not in ("broadcast", "reshape"):
            return None
        mean = mean.inputs[0]
    total = _undone(mean, x.size // max(value.size, 1))
    if total is None or total.name != "reduce_sum" or total.inputs[0] is not x:
        return None
    return total if total.attrs["axes"] == value.attrs["axes"] else None


def _undone(mean: Value, count: int) -> Value | None:
    """The total of which a value is the mean of so many."""
    if mean.name not in ("mul", "div"):
        return None
    total, number = mean.inputs
    while total.root is not total:
        total = total.root
    while number.kind is Kind.MOVEMENT and number.name in ("broadcast", "reshape"):
        number = number.inputs[0]
    if number.name != "full":
        return None
    factor = float(number.attrs["value"]) * (count if mean.name == "mul" else 1 / count)
    return total if abs(factor - 1) < 1e-6 else None


def epilogue_loads(found: Absorbed) -> dict[Value, list[ix.Expr]]:
    """What the epilogue of a contraction reads, with the places in variables of its result."""
    if found.end is found.value:
        return {}
    indices = indices_at(own_place(found.value.shape), found.end.shape)
    return trace(found.end, indices, found.end, found.value)[0]
