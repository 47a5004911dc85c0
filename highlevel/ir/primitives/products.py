"""Running products, and products of all other elements, made of movement and multiplication."""

from __future__ import annotations

import math
from typing import Any

from .movement import flip, inverse_permutation, pad, reshape, slice_, transpose


def running_products(x: Any, axis: int, *, reverse: bool = False, exclusive: bool = False) -> Any:
    """Running products along an axis in logarithmically many steps, each a product of x with itself shifted.

    (W. D. Hillis and G. L. Steele, "Data parallel algorithms", 1986.) Unlike a formula with quotients or logarithms it
    is right for zeros and negative numbers, and so are its derivatives.
    """
    y = flip(x, axes=(axis,)) if reverse else x
    if exclusive:
        y = _shifted(y, axis, 1)
    distance = 1
    while distance < x.shape[axis]:
        y = y * _shifted(y, axis, distance)
        distance *= 2
    return flip(y, axes=(axis,)) if reverse else y


def _shifted(x: Any, axis: int, distance: int) -> Any:
    """x moved up along an axis, ones moving in."""
    stop = tuple(size - distance if i == axis else size for i, size in enumerate(x.shape))
    low = tuple(distance if i == axis else 0 for i in range(x.ndim))
    zeros, ones = (0,) * x.ndim, (1,) * x.ndim
    return pad(slice_(x, start=zeros, stop=stop, step=ones), low=low, high=zeros, interior=zeros, value=1.0)


def products_of_others(x: Any, axes: tuple[int, ...]) -> Any:
    """For each element the product of all others along `axes`: the derivative of the product, right also at zeros."""
    rest = tuple(axis for axis in range(x.ndim) if axis not in axes)
    order = (*rest, *axes)
    moved = transpose(x, axes=order)
    count = math.prod(x.shape[axis] for axis in axes)
    rows = reshape(moved, shape=(x.size // count if count else 0, count))
    others = running_products(rows, 1, exclusive=True) * running_products(rows, 1, reverse=True, exclusive=True)
    return transpose(reshape(others, shape=moved.shape), axes=inverse_permutation(order))
