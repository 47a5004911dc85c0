"""Sorting, the largest elements, and running sums.

Sorting is stable, in both directions: equal elements keep their order. NaN comes last, in both directions.
"""

from __future__ import annotations

import math
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import oracles
from ..dtypes import int32
from ..primitive import define
from ..sample import Sample, distinct, integers, normal
from ..spec import Spec
from .creation import iota, zeros_like
from .indexing import gather, scatter_add
from .movement import check_axes, inverse_permutation, reshape, transpose
from .spatial import is_half, widen

FAMILY = "ordering"


# Along one axis ------------------------------------------------------------------------------------------------------
def _elements(indices: Any, axis: int, size: int) -> Any:
    """Positions along an axis as positions among all elements of an array with that axis last: (count, 1)."""
    last = move_last(indices, axis)
    flat = reshape(last, shape=(math.prod(last.shape[:-1]), last.shape[-1]))
    rows = iota(shape=flat.shape, axis=0, dtype=flat.dtype)
    return reshape(rows * size + flat, shape=(last.size, 1))


def move_last(x: Any, axis: int) -> Any:
    return transpose(x, axes=(*(i for i in range(x.ndim) if i != axis), axis))


def move_back(x: Any, axis: int) -> Any:
    """Undoes `move_last`."""
    axes = (*(i for i in range(x.ndim) if i != axis), axis)
    return transpose(x, axes=inverse_permutation(axes))


def take_along(x: Any, indices: Any, axis: int) -> Any:
    """`numpy.take_along_axis`: the elements of x at positions along one axis, of which there may be more or fewer."""
    flat = reshape(move_last(x, axis), shape=(x.size,))
    picked = gather(flat, _elements(indices, axis, x.shape[axis]))
    return move_back(reshape(picked, shape=move_last(indices, axis).shape), axis)


def put_along(x: Any, indices: Any, updates: Any, axis: int) -> Any:
    """x with updates added at positions along one axis: what `take_along` is transposed to."""
    last = move_last(x, axis)
    values = reshape(move_last(updates, axis), shape=(updates.size,))
    summed = scatter_add(reshape(last, shape=(x.size,)), _elements(indices, axis, x.shape[axis]), values)
    return move_back(reshape(summed, shape=last.shape), axis)


# Sorting -------------------------------------------------------------------------------------------------------------
def _infer_sort(x: Spec, *, axis: int, descending: bool) -> Spec:
    check_axes("sort", x, (axis,))
    return x


def _infer_argsort(x: Spec, *, axis: int, descending: bool) -> Spec:
    check_axes("argsort", x, (axis,))
    return x.with_dtype(int32)


def _order(xp: Any, x: Any, axis: int, descending: bool) -> Any:
    (key,) = widen(xp, x)
    if descending:
        # Both keep the order of equal elements and leave NaN last, which a reversed result would not.
        key = xp.invert(key) if key.dtype.kind in "biu" else xp.negative(key)
    return xp.argsort(key, axis=axis, kind="stable")


def _argsort(xp: Any, x: Any, *, axis: int, descending: bool) -> Any:
    return _order(xp, x, axis, descending).astype(xp.int32)


def _sort(xp: Any, x: Any, *, axis: int, descending: bool) -> Any:
    return xp.take_along_axis(x, _order(xp, x, axis, descending), axis=axis)


def _sort_vjp(g: Any, y: Any, x: Any, *, axis: int, descending: bool) -> Any:
    order = argsort(x, axis=axis, descending=descending)
    return (take_along(g, argsort(order, axis=axis, descending=False), axis),)


argsort = define(
    "argsort",
    FAMILY,
    infer=_infer_argsort,
    numpy=_argsort,
    samples=tuple(
        Sample((draw,), "numpy.argsort", oracles.numpy_argsort, {"axis": axis, "descending": down}, gradient=False)
        for draw, axis, down in (
            (normal(3, 6, 2), 1, False),
            (normal(3, 6), 1, True),
            (integers(4, 9, low=0, high=4), 1, True),
            (integers(9, low=0, high=4, dtype="uint8"), 0, True),
            (integers(9, low=0, high=4, dtype="uint8"), 0, False),
        )
    ),
    summary="the int32 positions that sort an axis, stably; NaN last",
)
sort = define(
    "sort",
    FAMILY,
    infer=_infer_sort,
    numpy=_sort,
    vjp=_sort_vjp,
    samples=(
        Sample((distinct(3, 6, 2),), "numpy.sort", oracles.numpy_sort, {"axis": 1, "descending": False}),
        Sample((distinct(3, 6),), "numpy.sort", oracles.numpy_sort, {"axis": 0, "descending": True}),
        Sample((distinct(7),), "numpy.sort", oracles.numpy_sort, {"axis": 0, "descending": True}),
    ),
    summary="an axis in order; NaN last",
)


# top_k ---------------------------------------------------------------------------------------------------------------
def _infer_top_k(x: Spec, *, k: int) -> tuple[Spec, Spec]:
    if x.ndim == 0:
        raise ShapeError("top_k: a scalar has no axis", got=x, expected="rank of at least 1")
    if not 1 <= k <= x.shape[-1]:
        raise ArgumentError(f"top_k: k={k} is out of range", got=x, expected=f"1…{x.shape[-1]}, the last axis's size")
    values = x.with_shape((*x.shape[:-1], k))
    return values, values.with_dtype(int32)


def _top_k(xp: Any, x: Any, *, k: int) -> tuple[Any, Any]:
    order = _order(xp, x, x.ndim - 1, descending=True)[..., :k]
    return xp.take_along_axis(x, order, axis=-1), order.astype(xp.int32)


def _top_k_vjp(g: Any, y: Any, x: Any, *, k: int) -> Any:
    if g[0] is None:
        return (None,)
    return (put_along(zeros_like(x), y[1], g[0], x.ndim - 1),)


top_k = define(
    "top_k",
    FAMILY,
    infer=_infer_top_k,
    numpy=_top_k,
    vjp=_top_k_vjp,
    multiple=True,
    samples=(
        Sample((distinct(3, 4, 7),), "numpy.argsort", oracles.numpy_top_k, {"k": 3}),
        Sample((distinct(8),), "numpy.argsort", oracles.numpy_top_k, {"k": 8}),
        Sample((distinct(3, 7),), "torch.topk", oracles.torch_top_k, {"k": 2}),
        Sample((integers(3, 7, low=0, high=3),), "numpy.argsort", oracles.numpy_top_k, {"k": 4}, gradient=False),
    ),
    summary="the k largest elements of the last axis and their int32 positions, sorted; ties by position",
)


# Running sums --------------------------------------------------------------------------------------------------------
def _infer_cumsum(x: Spec, *, axis: int, reverse: bool, exclusive: bool) -> Spec:
    check_axes("cumsum", x, (axis,))
    if x.dtype.is_bool:
        raise DTypeError("cumsum: wrong data type", got=x, expected="numbers", hint="cast the operand first")
    return x


def _cumsum(xp: Any, x: Any, *, axis: int, reverse: bool, exclusive: bool) -> Any:
    (wide,) = widen(xp, xp.flip(x, axis) if reverse else x)
    total = xp.cumsum(wide, axis=axis, dtype=wide.dtype)
    if exclusive:
        shifted = xp.zeros_like(total)
        before = (slice(None),) * axis
        shifted[(*before, slice(1, None))] = total[(*before, slice(None, -1))]
        total = shifted
    total = xp.flip(total, axis) if reverse else total
    return total.astype(x.dtype) if is_half(x) else total


def _cumsum_vjp(g: Any, y: Any, x: Any, *, axis: int, reverse: bool, exclusive: bool) -> Any:
    return (cumsum(g, axis=axis, reverse=not reverse, exclusive=exclusive),)


cumsum = define(
    "cumsum",
    FAMILY,
    infer=_infer_cumsum,
    numpy=_cumsum,
    vjp=_cumsum_vjp,
    samples=tuple(
        Sample((draw,), "numpy.cumsum", oracles.numpy_cumsum, dict(axis=axis, reverse=reverse, exclusive=exclusive))
        for draw, axis in ((normal(3, 5, 2), 1), (normal(6), 0))
        for reverse in (False, True)
        for exclusive in (False, True)
    ),
    summary="running sums along an axis, from either end, with or without the element itself",
)
