"""Cutting and joining: slices of what was joined, joins of what was cut, and sums of pieces with zeros around them."""

from __future__ import annotations

from typing import Any

from highlevel.ir.graph import Symbol, key_of

from .pattern import Rule
from .terms import concatenate, pad, slice

Sizes = tuple[int, ...]


# Joined values -------------------------------------------------------------------------------------------------------
def _flat_concatenate(*xs: Symbol, A: int) -> Any:
    """Operands that are joined along the same axis themselves, taken apart; empty ones left out; runs put together."""
    parts: list[Symbol] = []
    for x in xs:
        node = x.node
        inner = node.primitive is not None and node.primitive.name == "concatenate" and node.attrs["axis"] == A
        parts += node.inputs if inner else [x]
    parts = [part for part in parts if part.shape[A]] or parts[:1]
    joined = parts[:1]
    for part in parts[1:]:
        run = _run(joined[-1], part, A)
        joined[-1:] = [run] if run is not None else [joined[-1], part]
    if len(joined) == len(xs):
        return None
    return joined[0] if len(joined) == 1 else concatenate(*joined, axis=A)


def _run(a: Symbol, b: Symbol, axis: int) -> Any:
    """Two slices of one thing, the second where the first ends, as one slice; or None."""
    first, second = a.node, b.node
    if first.primitive is None or first.primitive.name != "slice" or second.primitive is not first.primitive:
        return None
    if key_of(first.inputs[0]) != key_of(second.inputs[0]) or set(first.attrs["step"] + second.attrs["step"]) != {1}:
        return None
    start, stop = list(first.attrs["start"]), list(first.attrs["stop"])
    if second.attrs["start"][axis] != stop[axis]:
        return None
    stop[axis] = second.attrs["stop"][axis]
    others = [i for i in range(len(start)) if i != axis]
    if any((start[i], stop[i]) != (second.attrs["start"][i], second.attrs["stop"][i]) for i in others):
        return None
    return slice(first.inputs[0], start=tuple(start), stop=tuple(stop), step=first.attrs["step"])


def _slice_of_concatenate(*xs: Symbol, A: int, S: Sizes, T: Sizes, P: Sizes) -> Any:
    """The slices of those operands that a slice touches."""
    parts: list[Any] = []
    offset = 0
    for x in xs:
        size = x.shape[A]
        first, end = max(S[A] - offset, 0), min(T[A] - offset, size)
        if first < end:
            if P[A] != 1 and parts:
                return None
            start, stop = (
                tuple(v if i == A else given[i] for i in range(x.ndim)) for v, given in ((first, S), (end, T))
            )
            parts.append(slice(x, start=start, stop=stop, step=P))
        offset += size
    if not parts or len(parts) == len(xs):
        return None
    return parts[0] if len(parts) == 1 else concatenate(*parts, axis=A)


JOINED = [
    Rule("concatenate of one thing", lambda x, A: concatenate(x, axis=A), lambda x: x),
    Rule(
        "concatenate of concatenates, of nothing, of neighbours",
        lambda *xs, A: concatenate(*xs, axis=A),
        _flat_concatenate,
    ),
    Rule(
        "slice of a concatenate",
        lambda *xs, A, S, T, P: slice(concatenate(*xs, axis=A), start=S, stop=T, step=P),
        _slice_of_concatenate,
    ),
]


# Pieces --------------------------------------------------------------------------------------------------------------
# Where a value was cut into pieces, its gradient is the sum of theirs, each with zeros around it.
def _neighbours(x: Any, L: Sizes, H: Sizes, y: Any, A: Sizes, B: Sizes, V: float) -> Any:
    """Two pieces, one beginning where the other ends along the one axis that they are padded along, as one."""
    axes = [axis for axis in range(x.ndim) if L[axis] or H[axis] or A[axis] or B[axis]]
    if len(axes) != 1:
        return None
    (axis,) = axes
    if A[axis] < L[axis]:
        x, L, H, y, A, B = y, A, B, x, L, H
    if L[axis] + x.shape[axis] != A[axis]:
        return None
    return pad(concatenate(x, y, axis=axis), low=L, high=B, interior=(0,) * x.ndim, value=V)


def _are_zeros(G: Sizes, V: float) -> bool:
    return V == 0 and not any(G)


_PIECES = (
    {"x": (2, 3), "L": (0, 0), "H": (0, 1), "y": (2, 1), "A": (0, 3), "B": (0, 0), "G": (0, 0), "V": 0.0},
    {"x": (2, 3), "L": (4, 0), "H": (1, 0), "y": (3, 3), "A": (1, 0), "B": (3, 0), "G": (0, 0), "V": 0.0},
)
PIECES = [
    Rule(
        "pieces side by side → joined",
        lambda x, y, L, H, A, B, G, V: (
            pad(x, low=L, high=H, interior=G, value=V) + pad(y, low=A, high=B, interior=G, value=V)
        ),
        _neighbours,
        "reassociating",  # −0.0 + 0.0 is 0.0
        where=_are_zeros,
        cases=_PIECES,
    ),
    Rule(
        "pieces side by side in a sum → joined",
        lambda s, x, y, L, H, A, B, G, V: (
            (s + pad(x, low=L, high=H, interior=G, value=V)) + pad(y, low=A, high=B, interior=G, value=V)
        ),
        lambda s, x, y, L, H, A, B, V: _added(s, _neighbours(x, L, H, y, A, B, V)),
        "reassociating",
        where=_are_zeros,
        cases=_PIECES,
    ),
]


def _added(s: Any, joined: Any) -> Any:
    return None if joined is None else s + joined


JOINING = [*JOINED, *PIECES]
