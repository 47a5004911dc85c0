"""Order: sorting, ranks, quantiles, search and counting."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor, operators, primitives
from highlevel.ir.dtypes import int32
from highlevel.ir.graph import Symbol
from highlevel.ir.operators import cast, match, operand

from .arguments import axes_of, floating, normalize_axis
from .creation import linspace
from .indexing import pick_per_row, segment_sum, take_along_axis
from .registry import op


def _axis(x: Any, axis: int | None, name: str) -> tuple[Any, int]:
    x = operand(x)
    if axis is None:
        return operators.reshape(x, -1), 0
    return x, normalize_axis(axis, x.ndim, name)


@op
def sort(x: Any, axis: int | None = -1) -> Any:
    """The elements in rising order along an axis; NaN last."""
    x, axis = _axis(x, axis, "sort")
    return primitives.sort(x, axis=axis, descending=False)


@op
def argsort(x: Any, axis: int | None = -1) -> Any:
    """The places of the elements in rising order; equal ones keep their order."""
    x, axis = _axis(x, axis, "argsort")
    return cast(primitives.argsort(x, axis=axis, descending=False), int32)


@op
def argpartition(x: Any, kth: int, axis: int | None = -1) -> Any:
    """The places of the elements so that the kth is where sorting would put it: here, of all in rising order."""
    return argsort(x, axis)


@op
def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Any, Any]:
    """The k largest elements of each row in falling order, and their places."""
    x = operand(x)
    if x.ndim == 0 or not 0 <= k <= x.shape[-1]:
        raise ArgumentError("top_k: k does not fit the last axis", got=f"k={k} of {x.spec}", expected="0 … its size")
    values, places = primitives.top_k(x, k=int(k))
    return values, cast(places, int32)


@op
def in_top_k(targets: Any, predictions: Any, k: int) -> Any:
    """Whether the score of each row's target is among the k largest; ties with the kth count."""
    y, scores = operand(targets), operand(predictions)
    if y.ndim != 1 or scores.ndim != 2 or y.shape[0] != scores.shape[0]:
        raise ShapeError(
            "in_top_k: the ranks do not fit", got=f"{y.spec} and {scores.spec}", expected="(n,) and (n, classes)"
        )
    score = take_along_axis(scores, operators.reshape(y, -1, 1), 1)
    larger = primitives.less(operators.broadcast_to(score, scores.shape), scores)
    return operators.less(primitives.reduce_sum(cast(larger, int32), axes=(1,)), k)


# Quantiles -------------------------------------------------------------------------------------------------------
METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


@op
def median(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The middle value; of an even number the mean of the two in the middle."""
    return quantile(x, 0.5, axis, "linear", keepdims)


@op
def quantile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which a fraction q (0 … 1) lies; several fractions make a new first axis. NaN if there is one.

    method: between two values, "linear", "lower", "higher", "midpoint" or "nearest"
    """
    return _quantile(x, q, axis, method, keepdims, "quantile", skip_nan=False)


@op
def percentile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which q per cent lie; see `quantile`."""
    return _quantile(x, _hundredth(q), axis, method, keepdims, "percentile", skip_nan=False)


@op
def nanmedian(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The middle value of what is not NaN."""
    return _quantile(x, 0.5, axis, "linear", keepdims, "nanmedian", skip_nan=True)


@op
def nanquantile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which a fraction q of what is not NaN lies; see `quantile`."""
    return _quantile(x, q, axis, method, keepdims, "nanquantile", skip_nan=True)


@op
def nanpercentile(x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False) -> Any:
    """The value below which q per cent of what is not NaN lie; see `quantile`."""
    return _quantile(x, _hundredth(q), axis, method, keepdims, "nanpercentile", skip_nan=True)


def _hundredth(q: Any) -> Any:
    return q / 100.0 if isinstance(q, operators.Scalar) else floating(q) / 100.0


def _quantile(x: Any, q: Any, axis: Any, method: str, keepdims: bool, name: str, *, skip_nan: bool) -> Any:
    if method not in METHODS:
        raise ArgumentError(f"{name}: unknown method", got=repr(method), expected=", ".join(METHODS))
    x = floating(x)
    axes = axes_of(axis, x.ndim, name)
    rest = tuple(a for a in range(x.ndim) if a not in axes)
    kept = tuple(x.shape[a] for a in rest)
    fractions = operand(q)
    rows = operators.reshape(
        operators.transpose(x, (*rest, *axes)), math.prod(kept), math.prod(x.shape[a] for a in axes)
    )
    if rows.shape[1] == 0:
        raise ShapeError(f"{name}: nothing to order", got=x.spec, expected=f"at least one element along axes {axes}")
    ordered = primitives.sort(rows, axis=1, descending=False)
    values = _between(ordered, operators.reshape(cast(fractions, x.dtype), -1), method, skip_nan)
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if keepdims else kept
    return operators.reshape(operators.transpose(values), *fractions.shape, *shape)


def _between(ordered: Any, fractions: Any, method: str, skip_nan: bool) -> Any:
    """Quantiles (rows, fractions) of rows in rising order, NaN last."""
    rows, size = ordered.shape
    is_nan = primitives.not_equal(ordered, ordered)
    nans = primitives.reduce_sum(cast(is_nan, int32), axes=(1,))
    last = cast(size - nans - 1, ordered.dtype) if skip_nan else operators.full((rows,), float(size - 1), ordered.dtype)
    place = operators.multiply(operators.reshape(last, rows, 1), operators.reshape(fractions, 1, -1))
    place = primitives.maximum(*match(place, 0.0))
    low, high = primitives.floor(place), primitives.ceil(place)
    if method == "nearest":
        low = high = primitives.round(place)
    low, high = (high if method == "higher" else low), (low if method == "lower" else high)
    below, above = (pick_per_row(ordered, cast(p, int32)) for p in (low, high))
    weight = operators.full(place.shape, 0.5, place.dtype) if method == "midpoint" else place - low
    gap = primitives.select(primitives.equal(below, above), operators.zeros_like(below), above - below)
    value = below + gap * primitives.stop_gradient(weight)
    if skip_nan:
        return value
    spoilt = operators.broadcast_to(operators.reshape(operators.less(0, nans), rows, 1), value.shape)
    return primitives.select(spoilt, operators.full(value.shape, math.nan, value.dtype), value)


# Search and counting ---------------------------------------------------------------------------------------------
@op
def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Any:
    """Where in a rising sequence values would have to be inserted: before ("left") or after ("right") equal ones."""
    sequence, wanted = match_types(sorted_sequence, values)
    if sequence.ndim != 1:
        raise ShapeError("searchsorted: the sequence is not a vector", got=sequence.spec, expected="rank 1")
    if side not in ("left", "right"):
        raise ArgumentError("searchsorted: unknown side", got=repr(side), expected="'left' or 'right'")
    size = sequence.shape[0]
    place = operators.full(wanted.shape, 0, int32)
    if size == 0:
        return place
    is_before = primitives.less if side == "left" else primitives.less_equal
    for bit in reversed(range(size.bit_length())):  # bisection: the place is found bit by bit
        further = operators.add(place, 1 << bit)
        inside = operators.less_equal(further, size)
        at = primitives.select(inside, operators.subtract(further, 1), operators.zeros_like(further))
        seen = primitives.gather(sequence, operators.reshape(at, *at.shape, 1))
        place = primitives.select(inside & is_before(seen, wanted), further, place)
    return place


def match_types(*values: Any) -> list[Any]:
    """Operands of one type, whatever their shapes."""
    items = [operand(v) for v in values]
    dtype = operators.common_dtype(items, items)
    return [cast(item, dtype) for item in items]


@op
def digitize(x: Any, bins: Any) -> Any:
    """The number of the bin that each value falls in: how many of the rising edges it reaches."""
    return searchsorted(bins, x, side="right")


@op
def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each of 0, 1, 2, … occurs (or the sum of its weights). The rows of a matrix are counted apart.

    Of numbers the result is as long as the largest needs; of symbols it has `minlength` bins, and larger values are not
    counted.
    """
    if sparse:
        raise ArgumentError("bincount: tensors are dense", got="sparse=True")
    x = operand(x)
    if isinstance(x, Symbol) and x.node.values is None:
        if minlength <= 0:
            raise ArgumentError("bincount: the length of the result is not known", hint="give minlength")
        length = minlength
    else:
        length = builtins.max(minlength, int(np.max(x.numpy(), initial=-1)) + 1)
    counted = operators.full(x.shape, 1, int32) if weights is None else operand(weights)
    if x.ndim == 1:
        return segment_sum(counted, x, length)
    if x.ndim != 2:
        raise ShapeError("bincount: neither vector nor matrix", got=x.spec, expected="rank 1 or 2")
    row = primitives.iota(shape=x.shape, axis=0, dtype=int32)
    inside = operators.less_equal(0, x) & operators.less(x, length)
    place = primitives.select(inside, cast(x, int32) + row * length, operators.full(x.shape, -1, int32))
    flat = segment_sum(operators.reshape(counted, -1), operators.reshape(place, -1), x.shape[0] * length)
    return operators.reshape(flat, x.shape[0], length)


@op
def histogram(x: Any, bins: int = 10, range: Any = None) -> tuple[Any, Any]:
    """How many values fall in each of so many bins of equal width, and the edges of the bins.

    range: (low, high) of the bins; the smallest and largest value if not given
    """
    x = operators.reshape(floating(x), -1)
    if not isinstance(bins, int) or bins < 1:
        raise ArgumentError("histogram: bins is not a positive number", got=bins)
    axes = (0,)
    low = primitives.reduce_min(x, axes=axes) if range is None else operand(float(range[0]), x.dtype)
    high = primitives.reduce_max(x, axes=axes) if range is None else operand(float(range[1]), x.dtype)
    flat = primitives.equal(low, high)
    low, high = primitives.select(flat, low - 0.5, low), primitives.select(flat, high + 0.5, high)
    edges = linspace(low, high, bins + 1)
    place = searchsorted(edges, x, side="right") - 1
    place = primitives.select(primitives.equal(*match(x, high)), operators.full(x.shape, bins - 1, int32), place)
    return segment_sum(operators.full(x.shape, 1, int32), place, bins), edges


@op
def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The different values, in rising order. Of numbers only, since how many there are is not known before.

    size: cut or filled up (with `fill_value`, or the first value) to that many
    """
    values = operand(x).numpy()
    found = np.unique(values, True, True, True, axis=axis)
    different, first, inverse, counts = found
    if axis is None:
        inverse = inverse.reshape(values.shape)
    if size is not None:
        along = 0 if axis is None else axis
        different = different.take(np.arange(builtins.min(size, different.shape[along])), along)
        missing = size - different.shape[along]
        if missing > 0:
            shape = tuple(missing if a == along else n for a, n in enumerate(different.shape))
            filler = different.take([0], along) if fill_value is None else np.asarray(fill_value, different.dtype)
            different = np.concatenate([different, np.broadcast_to(filler, shape)], along)
            first, counts = (np.concatenate([v, np.zeros(missing, v.dtype)]) for v in (first, counts))
        first, counts = first[:size], counts[:size]
    wanted = [(True, different), (return_index, first), (return_inverse, inverse), (return_counts, counts)]
    results = [Tensor.of(v if i == 0 else v.astype(np.int32)) for i, (flag, v) in enumerate(wanted) if flag]
    return results[0] if len(results) == 1 else tuple(results)
