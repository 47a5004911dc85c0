"""Padding: elements added before and after each axis."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import to_float, weak_value
from highlevel.ir.operators import cast, operand

from . import reduction, sorting
from .movement import cut, flip
from .registry import op

PAD_MODES = (
    "constant",
    "edge",
    "reflect",
    "symmetric",
    "wrap",
    "linear_ramp",
    "maximum",
    "mean",
    "median",
    "minimum",
    "empty",
)


@op
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """Elements added before and after each axis.

    pad_width: ((before, after), …) for each axis; (before, after) or one number for all axes
    mode:      "constant" (`constant_values`, 0 if not given), "edge", "reflect" (without the edge), "symmetric"
               (with it), "wrap", or a statistic of each row: "maximum", "minimum", "mean", "median"; "linear_ramp" goes
               down to zero
    """
    x = operand(x)
    if mode not in PAD_MODES:
        raise ArgumentError("pad: unknown mode", got=repr(mode), expected=", ".join(PAD_MODES))
    if constant_values is not None and mode != "constant":
        raise ArgumentError("pad: constant_values belongs to the mode 'constant'", got=f"mode={mode!r}")
    widths = _pad_widths(pad_width, x)
    if mode in ("constant", "empty"):
        return _pad_constant(x, widths, 0 if constant_values is None else constant_values)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            x = _pad_axis(x, axis, before, after, mode)
    return x


def _pad_widths(pad_width: Any, x: Any) -> list[tuple[int, int]]:
    try:
        array = np.broadcast_to(np.asarray(pad_width, dtype=np.int64), (x.ndim, 2))
    except ValueError:
        raise ShapeError(
            "pad: the widths do not fit", got=f"{pad_width} for {x.spec}", expected=f"{x.ndim} pairs (before, after)"
        ) from None
    if array.size and array.min() < 0:
        raise ArgumentError("pad: a width is negative", got=pad_width, expected="widths of at least 0")
    return [(int(a), int(b)) for a, b in array]


def _pad_constant(x: Any, widths: Sequence[tuple[int, int]], value: Any) -> Any:
    low, high = tuple(a for a, _ in widths), tuple(b for _, b in widths)
    if not builtins.any((*low, *high)):
        return x
    zero = (0,) * x.ndim
    if not isinstance(value, operators.Scalar):
        return _pad_symbolic(x, widths, value)
    return primitives.pad(x, low=low, high=high, interior=zero, value=weak_value(value, x.dtype))


def _pad_symbolic(x: Any, widths: Sequence[tuple[int, int]], value: Any) -> Any:
    for axis, (before, after) in enumerate(widths):
        for count, first in ((before, True), (after, False)):
            if count:
                shape = tuple(count if a == axis else n for a, n in enumerate(x.shape))
                block = operators.broadcast_to(operand(value, x.dtype), shape)
                x = primitives.concatenate(*((block, x) if first else (x, block)), axis=axis)
    return x


def _pad_axis(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    size = x.shape[axis]
    if size == 0 or (mode == "reflect" and size == 1 and before + after == 0):
        raise ShapeError(f"pad: nothing to repeat on axis {axis}", got=x.spec, expected="at least one element")
    if mode in ("edge", "reflect", "symmetric", "wrap"):
        places = np.pad(np.arange(size, dtype=np.int32), (before, after), mode=mode)  # type: ignore[call-overload]
        return _by_places(x, axis, places)
    left, right = _pad_blocks(x, axis, before, after, mode)
    return primitives.concatenate(*[p for p in (left, x, right) if p.shape[axis]], axis=axis)


def _by_places(x: Any, axis: int, places: np.ndarray[Any, Any]) -> Any:
    """The listed places of an axis, put together from ranges: movement alone, no gather."""
    pieces, start = [], 0
    steps = np.diff(places)
    while start < len(places):
        step = int(steps[start]) if start < len(steps) and steps[start] in (0, 1, -1) else 0
        stop = start + 1
        while stop < len(places) and places[stop] - places[stop - 1] == step:
            stop += 1
        a, count = int(places[start]), stop - start
        if step == 0:
            shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
            pieces.append(operators.broadcast_to(cut(x, axis, a, a + 1), shape))
        elif step == 1:
            pieces.append(cut(x, axis, a, a + count))
        else:
            pieces.append(flip(cut(x, axis, a - count + 1, a + 1), axis))
        start = stop
    return pieces[0] if len(pieces) == 1 else primitives.concatenate(*pieces, axis=axis)


def _pad_blocks(x: Any, axis: int, before: int, after: int, mode: str) -> tuple[Any, Any]:
    def block(count: int, value: Any) -> Any:
        return operators.broadcast_to(value, tuple(count if a == axis else n for a, n in enumerate(x.shape)))

    if mode == "linear_ramp":
        size = x.shape[axis]
        ends = cut(x, axis, 0, 1), cut(x, axis, size - 1, size)
        ramps = np.arange(before) / builtins.max(before, 1), np.arange(after)[::-1] / builtins.max(after, 1)
        shape = tuple(-1 if a == axis else 1 for a in range(x.ndim))
        kind = x.dtype if x.dtype.is_float else to_float(x.dtype)
        left, right = (
            cast(cast(end, kind) * operand(ramp.astype(kind.numpy).reshape(shape)), x.dtype)
            for end, ramp in zip(ends, ramps, strict=True)
        )
        return left, right
    statistic = {
        "maximum": reduction.max, "minimum": reduction.min, "mean": reduction.mean, "median": sorting.median
    }[mode](x, axis, keepdims=True)  # fmt: skip
    if not x.dtype.is_float and statistic.dtype.is_float:
        statistic = primitives.round(statistic)
    value = cast(statistic, x.dtype)
    return block(before, value), block(after, value)
