"""Places: where the elements of values lie, as index expressions; the same few are asked for again and again.

The axes of a shape are counted without those of size 1, so that (1, 8, 5) and (8, 5) are walked by the same variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..codegen import indexing as ix
from .values import Value

Indices = tuple[ix.Expr, ...]


def without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple([size for size in shape if size != 1])


@lru_cache(maxsize=4096)
def own_indices(shape: tuple[int, ...]) -> Indices:
    """An index for each axis: variables i0, i1, … along the axes that have more (or less) than one element."""
    indices: list[ix.Expr] = []
    count = 0
    for size in shape:
        if size == 1:
            indices.append(ix.const(0))
        else:
            indices.append(ix.var(f"i{count}", size))
            count += 1
    return tuple(indices)


@lru_cache(maxsize=1024)
def axis_indices(shape: tuple[int, ...]) -> Indices:
    """As `own_indices`, but with variables called by the number of their axis among all axes."""
    return tuple([ix.var(f"i{axis}", size) for axis, size in enumerate(shape)])


@lru_cache(maxsize=16384)
def place_of(indices: Indices, shape: tuple[int, ...]) -> ix.Expr:
    """Where the element at indices lies in a buffer of that shape."""
    return ix.ravel(indices, shape)


@lru_cache(maxsize=4096)
def own_place(shape: tuple[int, ...]) -> ix.Expr:
    return place_of(own_indices(shape), shape)


@lru_cache(maxsize=4096)
def indices_at(place: ix.Expr, shape: tuple[int, ...]) -> Indices:
    """The indices of the element at a place; the inverse of `place_of`."""
    return ix.unravel(place, shape)


@lru_cache(maxsize=16384)
def _moved(name: str, shape: tuple[int, ...], indices: Indices, *attrs: tuple[int, ...]) -> Indices:
    names = _ATTRS[name]
    return ix.move(name, shape, indices, dict(zip(names, attrs, strict=True))).indices


_ATTRS = {
    "reshape": ("shape",),
    "transpose": ("axes",),
    "broadcast": ("shape",),
    "slice": ("start", "step"),
    "flip": ("axes",),
}


def move(value: Value, indices: Indices) -> ix.Place:
    """Where a movement's element at indices comes from."""
    attrs = value.attrs
    known = _ATTRS.get(value.name)
    source = value.inputs[0].shape
    if known is None:
        return ix.move(value.name, source, indices, attrs)
    return ix.Place(_moved(value.name, source, indices, *[tuple(attrs[name]) for name in known]))


def joined_parts(value: Value, indices: Indices) -> list[tuple[Value, Indices, int, int]]:
    """The parts of a concatenation that have elements: value, indices into it, and the range that it covers."""
    axis, start = value.attrs["axis"], 0
    parts = []
    for source in value.inputs:
        end = start + source.shape[axis]
        if end > start:
            moved = tuple([ix.add(x, ix.const(-start)) if a == axis else x for a, x in enumerate(indices)])
            parts.append((source, moved, start, end))
        start = end
    return parts


def strides_of(place: ix.Expr, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int] | None:
    """Steps and offset if a place is offset + Σ step · index over `own_indices(shape)`; None if it is not.

    Axes of size 1 get the step that they have in an array without gaps.
    """
    offset, terms = ix.linear(place)
    factors = {}
    for term, factor in terms.items():
        if not isinstance(term, ix.Var):
            return None
        factors[term.name] = factor
    strides = [factors.pop(x.text, 0) if isinstance(x, ix.Var) else None for x in own_indices(shape)]
    if factors:
        return None
    following = 1
    for axis in reversed(range(len(shape))):
        step = strides[axis]
        if step is None:
            step = strides[axis] = following
        following = step * shape[axis]
    return tuple(step or 0 for step in strides), offset
