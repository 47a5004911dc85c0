"""Movement: the same elements in another arrangement. Index arithmetic; compilers melt these into their consumers.

One more, `broadcast`, stands beside its transpose, the sum, in `reduction`.
"""

from __future__ import annotations

import math
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from ..primitive import Primitive, define
from ..sample import Sample, normal
from ..spec import Spec

FAMILY = "movement"


# reshape -------------------------------------------------------------------------------------------------------------
def _infer_reshape(x: Spec, *, shape: tuple[int, ...]) -> Spec:
    if math.prod(shape) != x.size or any(size < 0 for size in shape):
        raise ShapeError(
            "reshape: the number of elements changes", got=f"{x} ({x.size})", expected=f"{shape} ({math.prod(shape)})"
        )
    return x.with_shape(shape)


reshape: Primitive = define(
    "reshape",
    FAMILY,
    infer=_infer_reshape,
    numpy=lambda xp, x, *, shape: x.reshape(shape),
    vjp=lambda g, y, x, *, shape: (reshape(g, shape=x.shape),),
    samples=(Sample((normal(2, 6),), "numpy.reshape", lambda f, x, shape: f(x, shape), {"shape": (3, 2, 2)}),),
    summary="the same elements in row-major order, another shape",
)


# transpose -----------------------------------------------------------------------------------------------------------
def _infer_transpose(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(
            "transpose: axes are not a permutation", got=f"axes {axes}", expected=f"each of 0…{x.ndim - 1}"
        )
    return x.with_shape(x.shape[axis] for axis in axes)


def inverse_permutation(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


transpose: Primitive = define(
    "transpose",
    FAMILY,
    infer=_infer_transpose,
    numpy=lambda xp, x, *, axes: xp.transpose(x, axes),
    vjp=lambda g, y, x, *, axes: (transpose(g, axes=inverse_permutation(axes)),),
    samples=(Sample((normal(2, 3, 4),), "numpy.transpose", lambda f, x, axes: f(x, axes), {"axes": (2, 0, 1)}),),
    summary="axes in another order",
)


# slice ---------------------------------------------------------------------------------------------------------------
def _infer_slice(x: Spec, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Spec:
    if not len(start) == len(stop) == len(step) == x.ndim:
        raise ShapeError("slice: one start, stop and step per axis", got=f"{start}, {stop}, {step}", expected=x)
    sizes = []
    for size, a, b, s in zip(x.shape, start, stop, step, strict=True):
        if not (0 <= a <= b <= size and s > 0):
            raise ShapeError(
                "slice: outside of the operand", got=f"{start} to {stop} step {step}", expected=f"within {x}"
            )
        sizes.append(-(-(b - a) // s))
    return x.with_shape(sizes)


def _slice_vjp(g: Any, y: Any, x: Any, *, start: Any, stop: Any, step: Any) -> Any:
    high = []
    for size, length, a, s in zip(x.shape, y.shape, start, step, strict=True):
        covered = 0 if length == 0 else (length - 1) * s + 1
        high.append(size - a - covered)
    return (pad(g, low=start, high=tuple(high), interior=tuple(s - 1 for s in step), value=0.0),)


slice_ = define(
    "slice",
    FAMILY,
    infer=_infer_slice,
    numpy=lambda xp, x, *, start, stop, step: x[tuple(map(slice, start, stop, step))],
    vjp=_slice_vjp,
    samples=(
        Sample(
            (normal(5, 7),),
            "numpy.ndarray.__getitem__",
            lambda get, x, start, stop, step: get(x, tuple(map(slice, start, stop, step))),
            {"start": (1, 0), "stop": (4, 6), "step": (1, 2)},
        ),
    ),
    summary="a range of each axis, with steps",
)


# pad -----------------------------------------------------------------------------------------------------------------
def _infer_pad(x: Spec, *, low: Any, high: Any, interior: Any, value: float) -> Spec:
    if not len(low) == len(high) == len(interior) == x.ndim or min((*low, *high, *interior), default=0) < 0:
        raise ShapeError(
            "pad: one non-negative low, high and interior per axis", got=f"{low}, {high}, {interior}", expected=x
        )
    sizes = (a + b + size + i * max(size - 1, 0) for size, a, b, i in zip(x.shape, low, high, interior, strict=True))
    return x.with_shape(sizes)


def _padded_region(x: Any, low: Any, interior: Any) -> tuple[slice, ...]:
    return tuple(
        slice(a, a + size + i * max(size - 1, 0), i + 1) for size, a, i in zip(x.shape, low, interior, strict=True)
    )


def _pad(xp: Any, x: Any, *, low: Any, high: Any, interior: Any, value: float) -> Any:
    spec = (a + b + n + i * max(n - 1, 0) for n, a, b, i in zip(x.shape, low, high, interior, strict=True))
    out = xp.full(tuple(spec), value, dtype=x.dtype)
    out[_padded_region(x, low, interior)] = x
    return out


def _pad_vjp(g: Any, y: Any, x: Any, *, low: Any, high: Any, interior: Any, value: float) -> Any:
    region = _padded_region(x, low, interior)
    start = tuple(r.start for r in region)
    return (slice_(g, start=start, stop=tuple(r.stop for r in region), step=tuple(r.step for r in region)),)


pad = define(
    "pad",
    FAMILY,
    infer=_infer_pad,
    numpy=_pad,
    vjp=_pad_vjp,
    samples=(
        Sample(
            (normal(3, 4),),
            "numpy.pad",
            lambda f, x, low, high, interior, value: f(x, list(zip(low, high, strict=True)), constant_values=value),
            {"low": (1, 0), "high": (2, 3), "interior": (0, 0), "value": 0.5},
        ),
        Sample(
            (normal(3, 4),),
            "jax.lax.pad",
            lambda f, x, low, high, interior, value: f(
                x, x.dtype.type(value), list(zip(low, high, interior, strict=True))
            ),
            {"low": (1, 0), "high": (0, 2), "interior": (2, 1), "value": 0.0},
        ),
    ),
    summary="a number added before, after and between the elements of each axis",
)


# flip ----------------------------------------------------------------------------------------------------------------
def check_axes(name: str, x: Spec, axes: tuple[int, ...]) -> None:
    if any(not 0 <= axis < x.ndim for axis in axes) or len(set(axes)) != len(axes):
        raise ArgumentError(f"{name}: axes do not fit the operand", got=f"axes {axes} of {x}", expected="distinct axes")


def _infer_flip(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    check_axes("flip", x, axes)
    return x


flip: Primitive = define(
    "flip",
    FAMILY,
    infer=_infer_flip,
    numpy=lambda xp, x, *, axes: xp.flip(x, axes),
    vjp=lambda g, y, x, *, axes: (flip(g, axes=axes),),
    samples=(Sample((normal(3, 4),), "numpy.flip", lambda f, x, axes: f(x, axes), {"axes": (0, 1)}),),
    summary="axes in reverse order",
)


# concatenate ---------------------------------------------------------------------------------------------------------
def _infer_concatenate(*specs: Spec, axis: int) -> Spec:
    first = specs[0]
    check_axes("concatenate", first, (axis,))
    for spec in specs[1:]:
        if spec.dtype is not first.dtype:
            raise DTypeError("concatenate: data types differ", got=", ".join(map(str, specs)), expected="one data type")
        if spec.ndim != first.ndim or any(
            a != b for i, (a, b) in enumerate(zip(spec.shape, first.shape, strict=True)) if i != axis
        ):
            raise ShapeError(
                "concatenate: shapes differ off the axis",
                got=", ".join(map(str, specs)),
                expected=f"equal sizes on every axis but {axis}",
            )
    shape = list(first.shape)
    shape[axis] = sum(spec.shape[axis] for spec in specs)
    return first.with_shape(shape)


def _concatenate_vjp(g: Any, y: Any, *x: Any, axis: int) -> Any:
    cotangents, offset = [], 0
    for operand in x:
        start = tuple(offset if i == axis else 0 for i in range(g.ndim))
        offset += operand.shape[axis]
        stop = tuple(offset if i == axis else size for i, size in enumerate(g.shape))
        cotangents.append(slice_(g, start=start, stop=stop, step=(1,) * g.ndim))
    return tuple(cotangents)


concatenate = define(
    "concatenate",
    FAMILY,
    infer=_infer_concatenate,
    numpy=lambda xp, *x, axis: xp.concatenate(x, axis),
    vjp=_concatenate_vjp,
    samples=(
        Sample(
            (normal(2, 3), normal(2, 1), normal(2, 2)), "numpy.concatenate", lambda f, *x, axis: f(x, axis), {"axis": 1}
        ),
    ),
    summary="operands one after the other along an axis",
)
