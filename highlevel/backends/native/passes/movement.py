"""Rearrangements: fewer of them, and each where there is least to rearrange.

Chains merge, inverses cancel, fills are fills whatever is done to them. What is computed on repeated values is computed
once and repeated then; what is cut out of a repeated value is cut out of its parts.
"""

from __future__ import annotations

import math
from typing import Any

from highlevel.ir.graph import Symbol
from highlevel.ir.primitive import REGISTRY
from highlevel.ir.primitives.movement import inverse_permutation

from .facts import fill_value, same_number
from .joining import JOINING
from .pattern import Rule
from .terms import (
    broadcast,
    flip,
    full,
    pad,
    reduce_max,
    reduce_min,
    reduce_sum,
    reshape,
    slice,
    transpose,
)

Sizes = tuple[int, ...]
_BROADCAST = REGISTRY["broadcast"]
_ORDERS = (REGISTRY["transpose"], REGISTRY["reshape"])


# Chains --------------------------------------------------------------------------------------------------------------
def _merged_slice(x: Any, S: Sizes, T: Sizes, P: Sizes, A: Sizes, B: Sizes, C: Sizes, root: Symbol) -> Any:
    """x[A:B:C] of what is x[S:T:P] already."""
    start = tuple(s + a * p for s, a, p in zip(S, A, P, strict=True))
    step = tuple(p * c for p, c in zip(P, C, strict=True))
    return cut(x, start, step, root.shape)


def cut(x: Any, start: Sizes, step: Sizes, shape: Sizes) -> Any:
    """The slice of that shape; one that holds nothing begins at 0."""
    start = tuple(a if n else 0 for a, n in zip(start, shape, strict=True))
    stop = tuple(a + (n - 1) * p + 1 if n else 0 for a, p, n in zip(start, step, shape, strict=True))
    return slice(x, start=start, stop=stop, step=step)


def _stays_in_order(x: Symbol, P: Sizes) -> bool:
    """Whether a transposition moves axes of size 1 only, so that the elements stay where they are."""
    moved = [axis for axis in P if x.shape[axis] != 1]
    return moved == sorted(moved)


def _flips_nothing(x: Symbol, A: Sizes) -> bool:
    return all(x.shape[axis] <= 1 for axis in A)


def _is_whole_slice(x: Symbol, S: Sizes, root: Symbol) -> bool:
    return x.shape == root.shape


CHAINS = [
    Rule(
        "reshape of a reshape", lambda x, S, T: reshape(reshape(x, shape=S), shape=T), lambda x, T: reshape(x, shape=T)
    ),
    Rule("reshape to its own shape", lambda x, S: reshape(x, shape=S), lambda x: x, where=lambda x, S: x.shape == S),
    Rule(
        "transpose of a transpose",
        lambda x, P, Q: transpose(transpose(x, axes=P), axes=Q),
        lambda x, P, Q: transpose(x, axes=tuple(P[axis] for axis in Q)),
    ),
    Rule(
        "transpose to its own order",
        lambda x, P: transpose(x, axes=P),
        lambda x: x,
        where=lambda P: list(P) == sorted(P),
    ),
    Rule(
        "transpose of axes of size 1 is a reshape",
        lambda x, P: transpose(x, axes=P),
        lambda x, root: reshape(x, shape=root.shape),
        where=_stays_in_order,
    ),
    Rule(
        "broadcast of a broadcast",
        lambda x, S, T: broadcast(broadcast(x, shape=S), shape=T),
        lambda x, T: broadcast(x, shape=T),
    ),
    Rule(
        "broadcast to its own shape", lambda x, S: broadcast(x, shape=S), lambda x: x, where=lambda x, S: x.shape == S
    ),
    Rule(
        "slice of a slice",
        lambda x, S, T, P, A, B, C: slice(slice(x, start=S, stop=T, step=P), start=A, stop=B, step=C),
        _merged_slice,
    ),
    Rule(
        "slice of everything", lambda x, S, T, P: slice(x, start=S, stop=T, step=P), lambda x: x, where=_is_whole_slice
    ),
    Rule(
        "flip of a flip",
        lambda x, A, B: flip(flip(x, axes=A), axes=B),
        lambda x, A, B: flip(x, axes=tuple(sorted(set(A) ^ set(B)))),
    ),
    Rule("flip of nothing", lambda x, A: flip(x, axes=A), lambda x: x, where=_flips_nothing),
]


# Padding -------------------------------------------------------------------------------------------------------------
def _slice_of_pad(x: Any, L: Sizes, H: Sizes, G: Sizes, V: float, S: Sizes, T: Sizes, P: Sizes) -> Any:
    """What a slice leaves of the margins, if it takes a plain run of each axis."""
    if any(G) or any(p != 1 for p in P):
        return None
    start, stop, low, high = [], [], [], []
    for size, before, a, b in zip(x.shape, L, S, T, strict=True):
        first, end = min(max(a - before, 0), size), min(max(b - before, 0), size)
        if first >= end:
            return None
        start.append(first)
        stop.append(end)
        low.append(max(before - a, 0))
        high.append(max(b - before - size, 0))
    inner = slice(x, start=tuple(start), stop=tuple(stop), step=P)
    return pad(inner, low=tuple(low), high=tuple(high), interior=G, value=V)


PADDING = [
    Rule(
        "pad by nothing",
        lambda x, L, H, G, V: pad(x, low=L, high=H, interior=G, value=V),
        lambda x: x,
        where=lambda x, root: x.shape == root.shape,
    ),
    Rule(
        "pad of a pad",
        lambda x, L, H, G, V, A, B, C: pad(
            pad(x, low=L, high=H, interior=G, value=V), low=A, high=B, interior=C, value=V
        ),
        lambda x, L, H, G, V, A, B: pad(x, low=_sum(L, A), high=_sum(H, B), interior=G, value=V),
        where=lambda C: not any(C),
    ),
    Rule(
        "slice of a pad",
        lambda x, L, H, G, V, S, T, P: slice(pad(x, low=L, high=H, interior=G, value=V), start=S, stop=T, step=P),
        _slice_of_pad,
    ),
]


def _sum(a: Sizes, b: Sizes) -> Sizes:
    return tuple(i + j for i, j in zip(a, b, strict=True))


# Fills ---------------------------------------------------------------------------------------------------------------
FILLS = [
    Rule("a fill rearranged", lambda M, N: M(N), lambda N, root: _fill(root, N)),
    Rule("a fill repeated", lambda N, S: broadcast(N, shape=S), lambda N, root: _fill(root, N)),
    Rule(
        "a fill padded with its number",
        lambda N, L, H, G, V: pad(N, low=L, high=H, interior=G, value=V),
        lambda N, root: _fill(root, N),
        where=lambda N, V, root: same_number(N, V, root.dtype),
    ),
]


def _fill(like: Symbol, number: Any) -> Any:
    return full(shape=like.shape, value=number, dtype=like.dtype)


# Repeated values -----------------------------------------------------------------------------------------------------
def _source(x: Symbol) -> Symbol | None:
    """What an operand repeats; None for a fill, which repeats a number in any shape."""
    if x.node.primitive is _BROADCAST:
        return x.node.inputs[0]
    return None if fill_value(x) is not None else x


def _on_sources(F: Any, *xs: Symbol) -> Any:
    """An operator on values that are all repeated, computed once for all of them."""
    sources = [_source(x) for x in xs]
    shapes = [source.shape for source in sources if source is not None]
    if not shapes:
        return None
    shape = tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*shapes, strict=True))
    if math.prod(shape) >= xs[0].size:
        return None
    return broadcast(F(*[_repeated(s, x, shape) for s, x in zip(sources, xs, strict=True)]), shape=xs[0].shape)


def _repeated(source: Symbol | None, x: Symbol, shape: Sizes) -> Any:
    if source is None:
        return full(shape=shape, value=fill_value(x), dtype=x.dtype)
    return source if source.shape == shape else broadcast(source, shape=shape)


def _groups(old: Sizes, new: Sizes) -> list[tuple[Sizes, Sizes]] | None:
    """The shortest runs of axes of two shapes that hold the same number of elements; None where a size is 0."""
    if 0 in old:
        return None
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b = old[i : i + 1], new[j : j + 1]
        i, j = i + len(a), j + len(b)
        while math.prod(a) != math.prod(b):
            if math.prod(a) < math.prod(b):
                a, i = (*a, old[i]), i + 1
            else:
                b, j = (*b, new[j]), j + 1
        groups.append((a, b))
    return groups


def _reshape_of_broadcast(x: Any, S: Sizes, T: Sizes) -> Any:
    """The source reshaped and repeated then, if each run of axes is repeated as a whole or not at all."""
    groups = _groups(S, T)
    if groups is None:
        return None
    source: list[int] = []
    axis = 0
    for old, new in groups:
        have = x.shape[axis : axis + len(old)]
        axis += len(old)
        if have == old:
            source += new
        elif all(size == 1 for size in have):
            source += [1] * len(new)
        else:
            return None
    return broadcast(reshape(x, shape=tuple(source)), shape=T)


def _slice_of_broadcast(x: Any, S: Sizes, A: Sizes, P: Sizes, root: Symbol) -> Any:
    repeated = [size != whole for size, whole in zip(x.shape, S, strict=True)]
    start = tuple(0 if r else a for r, a in zip(repeated, A, strict=True))
    step = tuple(1 if r else p for r, p in zip(repeated, P, strict=True))
    shape = tuple(1 if r else n for r, n in zip(repeated, root.shape, strict=True))
    return broadcast(cut(x, start, step, shape), shape=root.shape)


def _reduced_once(reduce: Any, x: Any, S: Sizes, A: Sizes, root: Symbol) -> Any:
    return broadcast(reduce(x, axes=A), shape=root.shape)


def _times(x: Any, count: int) -> Any:
    return x if count == 1 else x * float(count)


def _copies(x: Symbol, S: Sizes, A: Sizes) -> int:
    """How often a sum over axes meets the same element."""
    return math.prod(S[axis] for axis in A if x.shape[axis] != S[axis])


REPEATED = [
    Rule("f(repeated) → repeated f", lambda F, *xs: F(*xs), _on_sources, among=("broadcast",)),
    Rule("reshape of a broadcast", lambda x, S, T: reshape(broadcast(x, shape=S), shape=T), _reshape_of_broadcast),
    Rule(
        "transpose of a broadcast",
        lambda x, S, P: transpose(broadcast(x, shape=S), axes=P),
        lambda x, P, root: broadcast(transpose(x, axes=P), shape=root.shape),
    ),
    Rule(
        "flip of a broadcast",
        lambda x, S, A: flip(broadcast(x, shape=S), axes=A),
        lambda x, S, A: broadcast(flip(x, axes=A), shape=S),
    ),
    Rule(
        "slice of a broadcast",
        lambda x, S, A, B, P: slice(broadcast(x, shape=S), start=A, stop=B, step=P),
        _slice_of_broadcast,
        where=lambda root: root.size > 0,
    ),
    *[
        Rule(
            f"{reduce.__name__} of a broadcast",
            lambda x, S, A, f=reduce: f(broadcast(x, shape=S), axes=A),
            lambda x, S, A, root, f=reduce: _reduced_once(f, x, S, A, root),
            "reassociating",
            where=lambda x, S: 0 not in S and x.shape != S,
        )
        for reduce in (reduce_max, reduce_min)
    ],
    Rule(
        "reduce_sum of a broadcast",
        lambda x, S, A: reduce_sum(broadcast(x, shape=S), axes=A),
        lambda x, S, A, root: _times(_reduced_once(reduce_sum, x, S, A, root), _copies(x, S, A)),
        "reassociating",
        where=lambda x, S, A: 0 not in S and x.shape != S and (x.dtype.is_float or _copies(x, S, A) == 1),
    ),
]


# Reductions ----------------------------------------------------------------------------------------------------------
def _axes_before(A: Sizes, B: Sizes, x: Symbol) -> Sizes:
    """Axes A of x, and then axes B of what is left, as axes of x."""
    left = [axis for axis in range(x.ndim) if axis not in A]
    return tuple(sorted((*A, *(left[axis] for axis in B))))


def _reduce_of_transpose(reduce: Any, x: Any, P: Sizes, A: Sizes) -> Any:
    """The reduction in x's own order, transposed: there is less to transpose then."""
    axes = tuple(sorted(P[axis] for axis in A))
    left = [axis for axis in range(x.ndim) if axis not in axes]
    order = tuple(left.index(P[axis]) for axis in range(x.ndim) if axis not in A)
    return transpose(reduce(x, axes=axes), axes=order)


def _drops_ones(x: Symbol, A: Sizes) -> bool:
    return bool(A) and all(x.shape[axis] == 1 for axis in A)


# In which order a product is taken decides whether 0 meets ∞ on the way, so products stay as they are. That of a sum
# decides on rounding, that of a maximum on which zero it is, 0.0 or −0.0.
REDUCTIONS = [
    rule
    for reduce in (reduce_sum, reduce_max, reduce_min)
    for rule in (
        Rule(
            f"{reduce.__name__} of a {reduce.__name__}",
            lambda x, A, B, f=reduce: f(f(x, axes=A), axes=B),
            lambda x, A, B, f=reduce: f(x, axes=_axes_before(A, B, x)),
            "reassociating",
        ),
        Rule(
            f"{reduce.__name__} of a transpose",
            lambda x, P, A, f=reduce: f(transpose(x, axes=P), axes=A),
            lambda x, P, A, f=reduce: _reduce_of_transpose(f, x, P, A),
            "reassociating",
        ),
        Rule(
            f"{reduce.__name__} over axes of size 1 is a reshape",
            lambda x, A, f=reduce: f(x, axes=A),
            lambda x, root: reshape(x, shape=root.shape),
            "reassociating",  # a sum may begin with 0.0, and make −0.0 that
            where=_drops_ones,
        ),
    )
]


# Rearranged operands -------------------------------------------------------------------------------------------------
def _together(F: Any, *xs: Symbol) -> Any:
    """An operator on values that are all rearranged the same way: on the values, and rearranged once."""
    nodes = [x.node for x in xs]
    moved = [n for n, x in zip(nodes, xs, strict=True) if fill_value(x) is None]
    if len(moved) < 2 or any(n.primitive not in _ORDERS for n in moved):
        return None
    first = moved[0]
    same = all(n.primitive is first.primitive and n.attrs == first.attrs for n in moved)
    shape = first.inputs[0].shape
    if not same or any(n.inputs[0].shape != shape for n in moved) or len({n.id for n in moved}) == 1:
        return None
    operands = [
        n.inputs[0] if fill_value(x) is None else full(shape=shape, value=fill_value(x), dtype=x.dtype)
        for n, x in zip(nodes, xs, strict=True)
    ]
    assert first.primitive is not None
    return first.primitive(F(*operands), **first.attrs)


def _flows_back(P: Sizes, Q: Sizes) -> bool:
    return tuple(Q) == inverse_permutation(tuple(P))


TOGETHER = [
    Rule("f(xᴾ, yᴾ) → f(x, y)ᴾ", lambda F, *xs: F(*xs), _together, among=("transpose", "reshape")),
    Rule(
        "f(xᴾ)ꟴ → f(x), if Q undoes P",
        lambda F, x, P, Q: transpose(F(transpose(x, axes=P)), axes=Q),
        lambda F, x: F(x),
        where=_flows_back,
    ),
    Rule(
        "f of a reshape, reshaped back → f(x)",
        lambda F, x, S, T: reshape(F(reshape(x, shape=S)), shape=T),
        lambda F, x: F(x),
        where=lambda x, T: x.shape == T,
    ),
]

MOVEMENT = [*CHAINS, *PADDING, *FILLS, *REPEATED, *REDUCTIONS, *JOINING, *TOGETHER]
