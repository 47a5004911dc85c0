"""Layout: transpositions that only lead from one order of axes to another and back.

The language convolves and pools with channels last; a network written with channels first is full of sandwiches – a
transposition, the operator, the inverse. Transpositions are pushed towards the results through whatever works in any
order, so that they meet their inverses, and two that multiply matrices are taken along by the product. A graph is only
changed if that leaves less to rearrange.
"""

from __future__ import annotations

from typing import Any

from highlevel.ir.graph import Graph, Symbol
from highlevel.ir.primitive import REGISTRY
from highlevel.ir.primitives.movement import inverse_permutation

from .driver import Sweep, Table, sub_graphs
from .facts import fill_value
from .movement import CHAINS, REDUCTIONS, REPEATED
from .pattern import Rule
from .terms import concatenate, conv, conv_input_grad, conv_kernel_grad, full, matmul, pad, slice, transpose

Axes = tuple[int, ...]
_TRANSPOSE = REGISTRY["transpose"]


def _permuted(values: tuple[Any, ...], axes: Axes) -> tuple[Any, ...]:
    return tuple(values[axis] for axis in axes)


def _is_free(x: Symbol) -> bool:
    """Whether transposing costs nothing, or next to nothing: fills, and what is repeated from something small."""
    if fill_value(x) is not None:
        return True
    node = x.node
    if node.primitive is None or node.primitive.name != "broadcast":
        return False
    return node.inputs[0].size * 8 <= x.size


def _through(F: Any, *xs: Symbol) -> Any:
    """f(xᴾ, y) as f(x, y⁻ᴾ)ᴾ, if the other operands are transposed by P too, or for free."""
    order = next((x.node.attrs["axes"] for x in xs if x.node.primitive is _TRANSPOSE), None)
    if order is None:
        return None
    back = inverse_permutation(order)
    operands = []
    for x in xs:
        if x.node.primitive is _TRANSPOSE and x.node.attrs["axes"] == order:
            operands.append(x.node.inputs[0])
        elif _is_free(x):
            operands.append(_transposed(x, back))
        else:
            return None
    return transpose(F(*operands), axes=order)


def _transposed(x: Symbol, axes: Axes) -> Any:
    number = fill_value(x)
    if number is not None:
        return full(shape=_permuted(x.shape, axes), value=number, dtype=x.dtype)
    return transpose(x, axes=axes)


def _cut_before(x: Any, P: Axes, S: Axes, T: Axes, Q: Axes) -> Any:
    back = inverse_permutation(P)
    inner = slice(x, start=_permuted(S, back), stop=_permuted(T, back), step=_permuted(Q, back))
    return transpose(inner, axes=P)


def _padded_before(x: Any, P: Axes, L: Axes, H: Axes, G: Axes, V: float) -> Any:
    back = inverse_permutation(P)
    inner = pad(x, low=_permuted(L, back), high=_permuted(H, back), interior=_permuted(G, back), value=V)
    return transpose(inner, axes=P)


def _joined_before(*xs: Symbol, A: int) -> Any:
    first = xs[0].node
    if any(x.node.name != "transpose" or x.node.attrs["axes"] != first.attrs["axes"] for x in xs):
        return None
    order = first.attrs["axes"]
    return transpose(concatenate(*[x.node.inputs[0] for x in xs], axis=order[A]), axes=order)


def _swaps_last(x: Symbol, P: Axes) -> bool:
    last = x.ndim - 1
    return tuple(P) == (*range(last - 1), last, last - 1)


def _product_swapped(a: Any, b: Any, P: Axes) -> Any:
    return matmul(transpose(b, axes=P), transpose(a, axes=P))


PUSHED = [
    Rule("f(xᴾ, y) → f(x, y⁻ᴾ)ᴾ", lambda F, *xs: F(*xs), _through, among=("transpose",)),
    Rule(
        "slice of a transpose",
        lambda x, P, S, T, Q: slice(transpose(x, axes=P), start=S, stop=T, step=Q),
        _cut_before,
    ),
    Rule(
        "pad of a transpose",
        lambda x, P, L, H, G, V: pad(transpose(x, axes=P), low=L, high=H, interior=G, value=V),
        _padded_before,
    ),
    Rule("concatenate of transposes", lambda *xs, A: concatenate(*xs, axis=A), _joined_before),
]

PRODUCTS = [
    Rule(
        "(aᵀ · b)ᵀ → bᵀ · a",
        lambda a, b, P, Q: transpose(matmul(transpose(a, axes=P), b), axes=Q),
        lambda a, b, P: matmul(transpose(b, axes=P), a),
        "reassociating",
        where=lambda a, b, P, Q: _swaps_last(a, P) and _swaps_last(b, Q),
    ),
    Rule(
        "(a · bᵀ)ᵀ → b · aᵀ",
        lambda a, b, P, Q: transpose(matmul(a, transpose(b, axes=P)), axes=Q),
        lambda a, b, P: matmul(b, transpose(a, axes=P)),
        "reassociating",
        where=lambda a, b, P, Q: _swaps_last(b, P) and _swaps_last(a, Q),
    ),
]



# Convolutions pad by themselves ---------------------------------------------------------------------------------------
def _is_spatial(L: Axes, H: Axes, G: Axes, V: float) -> bool:
    """Whether zeros are put around the spatial axes of (N, *S, C), and nothing else."""
    return V == 0 and not any(G) and not any((L[0], H[0], L[-1], H[-1]))


def _wider(P: Any, L: Axes, H: Axes) -> Any:
    return tuple((low + a, high + b) for (low, high), a, b in zip(P, L[1:-1], H[1:-1], strict=True))


def _margins_of(X: Axes, S: Axes, T: Axes) -> tuple[Axes, Axes]:
    """What a slice leaves out of a shape, before and after."""
    return S, tuple(size - stop for size, stop in zip(X, T, strict=True))


def _cuts_margins(X: Axes, S: Axes, T: Axes, Q: Axes) -> bool:
    low, high = _margins_of(X, S, T)
    return all(step == 1 for step in Q) and not any((low[0], high[0], low[-1], high[-1]))


_GEOMETRY = {"Z": (2, 1), "P": ((0, 1), (1, 0)), "D": (1, 1), "N": 1}
_PADDED = {"L": (0, 1, 2, 0), "H": (0, 2, 0, 0), "G": (0, 0, 0, 0), "V": 0.0}

ABSORBED = [
    Rule(
        "transpose of a pad",  # so that it comes to stand before a convolution
        lambda x, P, L, H, G, V: transpose(pad(x, low=L, high=H, interior=G, value=V), axes=P),
        lambda x, P, L, H, G, V: pad(
            transpose(x, axes=P), low=_permuted(L, P), high=_permuted(H, P), interior=_permuted(G, P), value=V
        ),
    ),
    Rule(
        "convolution of a pad",
        lambda x, k, L, H, G, V, Z, P, D, N: conv(
            pad(x, low=L, high=H, interior=G, value=V), k, strides=Z, padding=P, dilation=D, groups=N
        ),
        lambda x, k, L, H, Z, P, D, N: conv(x, k, strides=Z, padding=_wider(P, L, H), dilation=D, groups=N),
        "reassociating",
        where=_is_spatial,
        cases=({"x": (2, 5, 4, 3), "k": (3, 2, 3, 2), **_PADDED, **_GEOMETRY},),
    ),
    Rule(
        "kernel's gradient with a pad",
        lambda x, g, K, L, H, G, V, Z, P, D, N: conv_kernel_grad(
            pad(x, low=L, high=H, interior=G, value=V), g, shape=K, strides=Z, padding=P, dilation=D, groups=N
        ),
        lambda x, g, K, L, H, Z, P, D, N: conv_kernel_grad(
            x, g, shape=K, strides=Z, padding=_wider(P, L, H), dilation=D, groups=N
        ),
        "reassociating",
        where=_is_spatial,
        cases=({"x": (2, 5, 4, 3), "g": (2, 4, 6, 2), "K": (3, 2, 3, 2), **_PADDED, **_GEOMETRY},),
    ),
    Rule(
        "input's gradient without margins",
        lambda g, k, X, Z, P, D, N, S, T, Q: slice(
            conv_input_grad(g, k, shape=X, strides=Z, padding=P, dilation=D, groups=N), start=S, stop=T, step=Q
        ),
        lambda g, k, root, X, Z, P, D, N, S, T: conv_input_grad(
            g, k, shape=root.shape, strides=Z, padding=_wider(P, *_margins_of(X, S, T)), dilation=D, groups=N
        ),
        "reassociating",
        where=_cuts_margins,
        cases=(
            {"g": (2, 4, 6, 2), "k": (3, 2, 3, 2), "X": (2, 8, 6, 3), **_GEOMETRY,
             "S": (0, 1, 2, 0), "T": (2, 6, 6, 3), "Q": (1, 1, 1, 1)},
        ),
    ),
]  # fmt: skip

LAYOUT = [*PUSHED, *PRODUCTS, *ABSORBED]
_MOVES = Table([*PUSHED, *PRODUCTS])
_TABLE = Table([*CHAINS, *REPEATED, *REDUCTIONS, *PUSHED, *PRODUCTS])
_ABSORBED = Table(ABSORBED)


def settle_layout(graph: Graph) -> Graph:
    """The graph with transpositions pushed together, if less has to be rearranged then."""
    if not _MOVES.fits(graph):
        return graph
    pushed = Sweep(_TABLE, merge=True)(graph)
    return pushed if elements_transposed(pushed) < elements_transposed(graph) else graph


def absorb_padding(graph: Graph) -> Graph:
    """The graph with zeros around the operands of convolutions put there by the convolutions."""
    return Sweep(_ABSORBED, merge=True)(graph) if _ABSORBED.fits(graph) else graph


def elements_transposed(graph: Graph) -> int:
    """How many elements all transpositions rearrange, those in sub-graphs once."""
    return sum(
        (node.specs[0].size if node.name == "transpose" else 0) + sum(map(elements_transposed, sub_graphs(node)))
        for node in graph.nodes()
    )
