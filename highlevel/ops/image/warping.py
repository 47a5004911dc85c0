"""Images sampled at computed places: affine and perspective transformations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import int32, int64
from highlevel.ir.operators import cast, match, operand

from ..linalg import solve
from ..movement import stack
from ..registry import op_in
from .layout import in_type, to_batch, widened

op = op_in("image")

FILL_MODES = ("constant", "nearest", "wrap", "mirror", "reflect")
ORDERS = {"nearest": 0, "bilinear": 1}


@op
def map_coordinates(
    inputs: Any, coordinates: Any, order: int, fill_mode: str = "constant", fill_value: float = 0
) -> Any:
    """The values at fractional places: coordinates (rank, …) give an array of their trailing shape.

    order:     0 takes the nearest value, 1 interpolates linearly
    fill_mode: beyond the ends, "constant" is `fill_value`, "nearest" the last value; "wrap" repeats the array, "mirror"
               and "reflect" turn around at the middle, or at the edge, of the last value
    """
    x, places = operand(inputs), widened(operand(coordinates))
    if order not in (0, 1) or fill_mode not in FILL_MODES:
        raise ArgumentError(
            "map_coordinates: unknown order or fill_mode", got=f"order={order}, fill_mode={fill_mode!r}",
            expected=f"order 0 or 1; {', '.join(FILL_MODES)}",
        )  # fmt: skip
    if places.ndim < 2 or places.shape[0] != x.ndim:
        raise ShapeError(
            "map_coordinates: one row of coordinates per axis",
            got=f"{places.spec} for {x.spec}",
            expected=f"({x.ndim}, …)",
        )
    values = widened(x)
    corners: list[tuple[list[Any], Any]] = [([], None)]
    for axis in range(x.ndim):
        corners = [
            ([*index, near], share if weight is None else weight if share is None else weight * share)
            for index, weight in corners
            for near, share in _neighbours(places[axis], order)
        ]
    total = None
    for index, weight in corners:
        part = _read(values, index, fill_mode, fill_value)
        part = part if weight is None else part * weight
        total = part if total is None else total + part
    return in_type(total, x.dtype)


def _neighbours(place: Any, order: int) -> list[tuple[Any, Any]]:
    """The elements beside a place, and their shares of it."""
    if order == 0:
        return [(cast(primitives.round(place), int32), None)]
    below = primitives.floor(place)
    share = place - below
    low = cast(below, int32)
    return [(low, 1.0 - share), (operators.add(low, 1), share)]


def _read(x: Any, index: list[Any], fill_mode: str, fill_value: float) -> Any:
    """x at integer places, which may lie outside; rows of the last axes, if there are fewer indices than axes."""
    inside: Any = None
    at: Any = None  # the place in all the indexed axes together, so that one number is looked up
    number = int32 if math.prod(x.shape[: len(index)]) < 2**31 else int64
    for place, size in zip(index, x.shape, strict=False):
        if fill_mode == "constant":
            within = operators.less_equal(0, place) & operators.less(place, size)
            inside = within if inside is None else inside & within
        folded = cast(_folded(place, size, fill_mode), number)
        at = folded if at is None else operators.add(operators.multiply(at, size), folded)
    rest = x.shape[len(index) :]
    found = primitives.gather(operators.reshape(x, -1, *rest), operators.reshape(at, *at.shape, 1))
    if inside is None:
        return found
    if found.ndim > inside.ndim:
        inside = operators.broadcast_to(operators.reshape(inside, *inside.shape, 1), found.shape)
    return primitives.select(inside, found, operators.full(found.shape, float(fill_value), found.dtype))


def _folded(place: Any, size: int, fill_mode: str) -> Any:
    """Integer places brought inside of 0 … size − 1."""
    if fill_mode in ("constant", "nearest"):
        low = primitives.maximum(place, operators.zeros_like(place))
        return primitives.minimum(low, operators.full(place.shape, size - 1, place.dtype))
    if fill_mode == "wrap":
        return operators.remainder(place, size)
    if size == 1:
        return operators.zeros_like(place)
    period = 2 * (size - 1) if fill_mode == "mirror" else 2 * size
    turned = operators.remainder(place, period)
    back = operators.subtract(period if fill_mode == "mirror" else period - 1, turned)
    return primitives.minimum(turned, back)


# Transformations -------------------------------------------------------------------------------------------------
def sampled(
    images: Any, name: str, interpolation: str, fill_mode: str, fill_value: float, data_format: str | None,
    locate: Callable[[Any, Any, Any, Any], tuple[Any, Any]],
) -> Any:  # fmt: skip
    """Images whose pixel (row, column) is the input's at `locate(x, y)`, given as (x, y)."""
    x, back = to_batch(images, name, data_format)
    if interpolation not in ORDERS:
        raise ArgumentError(
            f"{name}: unknown interpolation", got=repr(interpolation), expected="'nearest' or 'bilinear'"
        )
    batch, height, width, _ = x.shape
    shape = (batch, height, width, 1)
    dtype = widened(x).dtype
    row, column = (primitives.iota(shape=shape, axis=axis, dtype=dtype) for axis in (1, 2))
    at_x, at_y = (operators.reshape(place, shape[:3]) for place in locate(column, row, dtype, shape))
    return back(_pixels(x, at_y, at_x, ORDERS[interpolation], fill_mode, fill_value))


def _pixels(x: Any, at_y: Any, at_x: Any, order: int, fill_mode: str, fill_value: float) -> Any:
    """Pixels of images at places (batch, height, width): one look-up for all channels of a pixel."""
    values, total = widened(x), None
    number = primitives.iota(shape=at_y.shape, axis=0, dtype=int32)
    for y, share_y in _neighbours(at_y, order):
        for across, share_x in _neighbours(at_x, order):
            part = _read(values, [number, y, across], fill_mode, fill_value)
            if share_y is not None:
                share = operators.reshape(share_y * share_x, *share_y.shape, 1)
                part = part * operators.broadcast_to(share, part.shape)
            total = part if total is None else total + part
    return in_type(total, x.dtype)


@op
def affine_transform(
    images: Any, transform: Any, interpolation: str = "bilinear", fill_mode: str = "constant", fill_value: float = 0,
    data_format: str | None = None,
) -> Any:  # fmt: skip
    """Pixel (x, y) of the result is the input's at (a₀x + a₁y + a₂, b₀x + b₁y + b₂).

    transform: (a₀, a₁, a₂, b₀, b₁, b₂, 0, 0), one for all images or one for each
    """
    t = widened(operand(transform))
    if t.ndim not in (1, 2) or t.shape[-1] != 8:
        raise ShapeError("affine_transform: not a transformation", got=t.spec, expected="(8,) or (batch, 8)")

    def locate(x: Any, y: Any, dtype: Any, shape: Any) -> tuple[Any, Any]:
        a0, a1, a2, b0, b1, b2 = (_per_image(t, i, dtype) for i in range(6))
        across = operators.add(operators.add(operators.multiply(x, a0), operators.multiply(y, a1)), a2)
        return across, operators.add(operators.add(operators.multiply(x, b0), operators.multiply(y, b1)), b2)

    if fill_mode not in FILL_MODES:
        raise ArgumentError("affine_transform: unknown fill_mode", got=repr(fill_mode), expected=", ".join(FILL_MODES))
    return sampled(images, "affine_transform", interpolation, fill_mode, fill_value, data_format, locate)


def _per_image(t: Any, i: int, dtype: Any) -> Any:
    return operators.reshape(cast(t[..., i], dtype), -1, 1, 1, 1)


@op
def perspective_transform(
    images: Any, start_points: Any, end_points: Any, interpolation: str = "bilinear", fill_value: float = 0,
    data_format: str | None = None,
) -> Any:  # fmt: skip
    """Images seen from elsewhere: the four `start_points` (x, y) of the input are found at the `end_points`.

    Points are (4, 2), for all images, or (batch, 4, 2).
    """
    start, end = (widened(operand(points)) for points in (start_points, end_points))
    if start.shape != end.shape or start.shape[-2:] != (4, 2) or start.ndim not in (2, 3):
        raise ShapeError(
            "perspective_transform: not four points",
            got=f"{start.spec} and {end.spec}",
            expected="(4, 2) or (batch, 4, 2)",
        )
    t = _homography(*(operators.reshape(points, -1, 4, 2) for points in match(start, end)))

    def locate(x: Any, y: Any, dtype: Any, shape: Any) -> tuple[Any, Any]:
        c = [_per_image(t, i, dtype) for i in range(8)]

        def form(a: Any, b: Any, d: Any) -> Any:
            return operators.add(operators.add(operators.multiply(x, a), operators.multiply(y, b)), d)

        depth = form(c[6], c[7], 1.0)
        return operators.divide(form(*c[:3]), depth), operators.divide(form(*c[3:6]), depth)

    return sampled(images, "perspective_transform", interpolation, "constant", fill_value, data_format, locate)


def _homography(start: Any, end: Any) -> Any:
    """The eight numbers of the projective map from the end points to the start points: two equations for each."""
    rows, sides = [], []
    for i in range(4):
        (u, v), (x, y) = ((points[:, i, 0], points[:, i, 1]) for points in (start, end))
        one, zero = operators.ones_like(u), operators.zeros_like(u)
        rows.append(stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1))
        rows.append(stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1))
        sides += [u, v]
    return solve(stack(rows, 1), stack(sides, -1))
