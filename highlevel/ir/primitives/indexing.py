"""Reading and writing at computed places.

`indices` is an integer array `(..., k)` that addresses the first k axes of `x`; a gather gives
`indices.shape[:-1] + x.shape[k:]`, and a scatter takes updates of that shape. Indices count from 0; one outside of its
axis is an error, not a wrapped or clipped value. Where several updates meet, they are combined in their order; of
several that are set, the last one stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import oracles
from ..dtypes import int32
from ..primitive import Primitive, define
from ..sample import Draw, Sample, distinct, integers, normal
from ..spec import Spec
from .creation import full, iota, zeros_like
from .elementwise import cast, equal, select
from .movement import reshape
from .reduction import broadcast
from .spatial import is_half, widen

FAMILY = "indexing"


# Shapes --------------------------------------------------------------------------------------------------------------
def _picked_shape(name: str, x: Spec, indices: Spec) -> tuple[int, ...]:
    if not indices.dtype.is_integer:
        raise DTypeError(f"{name}: indices are not integers", got=indices, expected="an integer type")
    if indices.ndim == 0 or not 0 <= indices.shape[-1] <= x.ndim:
        raise ShapeError(
            f"{name}: the indices do not fit the operand",
            got=f"x {x}, indices {indices}",
            expected=f"indices (..., k) with k of at most {x.ndim}, the rank of x",
            hint="one index per element needs a last axis of size 1: indices[..., None]",
        )
    return (*indices.shape[:-1], *x.shape[indices.shape[-1] :])


def _infer_gather(x: Spec, indices: Spec) -> Spec:
    return x.with_shape(_picked_shape("gather", x, indices))


def _infer_scatter(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, indices: Spec, updates: Spec) -> Spec:
        shape = _picked_shape(name, x, indices)
        if updates.shape != shape:
            raise ShapeError(
                f"{name}: the updates do not fit",
                got=f"x {x}, indices {indices}, updates {updates}",
                expected=f"updates of shape {shape}",
            )
        if updates.dtype is not x.dtype:
            raise DTypeError(f"{name}: data types differ", got=f"x {x}, updates {updates}", expected="one data type")
        return x

    return infer


# Meaning -------------------------------------------------------------------------------------------------------------
def _positions(xp: Any, name: str, shape: tuple[int, ...], indices: Any) -> Any:
    """Each index row as one position among the first k axes, flattened: (rows,)."""
    k = indices.shape[-1]
    rows = indices.reshape(-1, k) if k else indices.reshape(math.prod(indices.shape[:-1]), 0)
    total = xp.zeros(rows.shape[0], dtype=xp.intp)
    for axis, size in enumerate(shape[:k]):
        column = rows[:, axis]
        if column.size and (column.min() < 0 or column.max() >= size):
            _raise_outside(xp, name, indices, axis, size)
        total *= size
        total += column.astype(xp.intp)
    return total


def _raise_outside(xp: Any, name: str, indices: Any, axis: int, size: int) -> None:
    column = xp.atleast_1d(indices[..., axis])
    wrong = xp.nonzero((column < 0) | (column >= size))
    place = tuple(int(positions[0]) for positions in wrong)
    raise ArgumentError(
        f"{name}: index {int(column[place])} is outside of axis {axis}",
        got=f"{int(column[place])} at position {place} of the indices",
        expected=f"0…{size - 1} (size {size})",
    )


def _gather(xp: Any, x: Any, indices: Any) -> Any:
    k = indices.shape[-1]
    positions = _positions(xp, "gather", x.shape, indices)
    rows = x.reshape(math.prod(x.shape[:k]), *x.shape[k:])
    return xp.take(rows, positions, axis=0).reshape((*indices.shape[:-1], *x.shape[k:]))


def _scatter_set(xp: Any, x: Any, indices: Any, updates: Any) -> Any:
    k = indices.shape[-1]
    out = xp.array(x, copy=True, order="C")
    rows = out.reshape(math.prod(x.shape[:k]), *x.shape[k:])
    positions = _positions(xp, "scatter_set", x.shape, indices)
    rows[positions] = updates.reshape(positions.shape[0], *x.shape[k:])
    return out


def _scatter_with(name: str, ufunc: str) -> Callable[..., Any]:
    """`ufunc.at` on flat element numbers: in order, and by far its fastest path."""

    def scatter(xp: Any, x: Any, indices: Any, updates: Any) -> Any:
        k, (wide,) = indices.shape[-1], widen(xp, x)
        out = xp.array(wide, copy=True, order="C")
        inner = math.prod(x.shape[k:])
        positions = _positions(xp, name, x.shape, indices)
        elements = (positions[:, None] * inner + xp.arange(inner)).reshape(-1)
        getattr(xp, ufunc).at(out.reshape(-1), elements, updates.astype(out.dtype).reshape(-1))
        return out.astype(x.dtype) if is_half(x) else out

    return scatter


# Derivatives ---------------------------------------------------------------------------------------------------------
def _gather_vjp(g: Any, y: Any, x: Any, indices: Any) -> Any:
    return scatter_add(zeros_like(x), indices, g), None


def _scatter_add_vjp(g: Any, y: Any, x: Any, indices: Any, updates: Any) -> Any:
    return g, None, gather(g, indices)


def _scatter_set_vjp(g: Any, y: Any, x: Any, indices: Any, updates: Any) -> Any:
    """What was overwritten does not matter, be it of `x` or an earlier update of the same place."""
    k = indices.shape[-1]
    outer = indices.shape[:-1]
    order = reshape(iota(shape=(math.prod(outer),), axis=0, dtype=int32), shape=outer)
    last = scatter_set(full(shape=x.shape[:k], value=-1, dtype=int32), indices, order)
    stays = equal(gather(last, indices), order)
    stays = broadcast(reshape(stays, shape=outer + (1,) * (x.ndim - k)), shape=updates.shape)
    picked = gather(g, indices)
    return scatter_set(g, indices, zeros_like(updates)), None, select(stays, picked, zeros_like(picked))


def _extreme_vjp(g: Any, y: Any, x: Any, indices: Any, updates: Any) -> Any:
    """The operand and all updates that reach the extreme share the cotangent equally."""
    kept, reached = equal(x, y), equal(updates, gather(y, indices))
    count = scatter_add(cast(kept, dtype=x.dtype), indices, cast(reached, dtype=x.dtype))
    share = g / count
    picked = gather(share, indices)
    return select(kept, share, zeros_like(share)), None, select(reached, picked, zeros_like(picked))


# Records -------------------------------------------------------------------------------------------------------------
def _indices(*shape: int, sizes: tuple[int, ...]) -> Draw:
    """Index rows within `sizes`, of which some meet."""
    return Draw(shape, lambda rng, shape: rng.integers(0, sizes, shape), int32)


def _unique(*shape: int, sizes: tuple[int, ...]) -> Draw:
    """Index rows within `sizes`, no two of them equal."""

    def values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        chosen = rng.choice(math.prod(sizes), math.prod(shape[:-1]), replace=False)
        return np.stack(np.unravel_index(chosen, sizes), axis=-1).reshape(shape)

    return Draw(shape, values, int32)


gather = define(
    "gather",
    FAMILY,
    infer=_infer_gather,
    numpy=_gather,
    vjp=_gather_vjp,
    samples=(
        Sample((normal(7, 3), _indices(4, 2, 1, sizes=(7,))), "numpy.take", lambda f, x, i: f(x, i[..., 0], axis=0)),
        Sample((normal(4, 5, 3), _indices(6, 2, sizes=(4, 5))), "numpy.ndarray.__getitem__", oracles.numpy_gather),
        Sample((normal(4, 5), _indices(3, 2, sizes=(4, 5))), "numpy.ndarray.__getitem__", oracles.numpy_gather),
        Sample((normal(4, 5), integers(0, 1)), "numpy.ndarray.__getitem__", oracles.numpy_gather),
    ),
    summary="elements (or blocks) of x at the places that the indices name",
)


def _scatter(name: str, numpy: Callable[..., Any], vjp: Callable[..., Any], summary: str, **more: Any) -> Primitive:
    draw: Callable[..., Draw] = more.pop("draw", normal)
    indices: Callable[..., Draw] = more.pop("indices", _indices)
    return define(
        name,
        FAMILY,
        infer=_infer_scatter(name),
        numpy=numpy,
        vjp=vjp,
        samples=(
            Sample((draw(7, 3), indices(5, 1, sizes=(7,)), draw(5, 3)), **more),
            Sample((draw(4, 5, 3), indices(3, 2, 2, sizes=(4, 5)), draw(3, 2, 3)), **more),
            Sample((draw(3, 4), indices(6, 2, sizes=(3, 4)), draw(6)), **more),
        ),
        summary=summary,
    )


scatter_add = _scatter(
    "scatter_add",
    _scatter_with("scatter_add", "add"),
    _scatter_add_vjp,
    "x with the updates added at their places",
    oracle="numpy.add.at",
    call=oracles.numpy_scatter,
)
scatter_set = _scatter(
    "scatter_set",
    _scatter_set,
    _scatter_set_vjp,
    "x with the updates written to their places",
    oracle="numpy.ndarray.__setitem__",
    call=oracles.numpy_scatter,
    indices=_unique,
)
scatter_max = _scatter(
    "scatter_max",
    _scatter_with("scatter_max", "maximum"),
    _extreme_vjp,
    "the largest of x and the updates at each place",
    oracle="numpy.maximum.at",
    call=oracles.numpy_scatter,
    draw=distinct,
)
scatter_min = _scatter(
    "scatter_min",
    _scatter_with("scatter_min", "minimum"),
    _extreme_vjp,
    "the smallest of x and the updates at each place",
    oracle="numpy.minimum.at",
    call=oracles.numpy_scatter,
    draw=distinct,
)
