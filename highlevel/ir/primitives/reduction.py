"""Reductions: axes disappear. The order of a sum is a backend's own, but depends on shapes only.

With them stands `broadcast`, of the family "movement": the sum and it are each the other's derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from highlevel.errors import DTypeError, ShapeError

from ..dtypes import DType, int32
from ..primitive import Primitive, define
from ..sample import Sample, distinct, normal, positive
from ..spec import Spec
from .creation import zeros_like
from .elementwise import cast, equal, select
from .movement import check_axes, reshape
from .products import products_of_others

FAMILY = "reduction"


def expand(y: Any, like: Any, axes: tuple[int, ...]) -> Any:
    """A reduced value repeated to the shape from before the reduction."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(like.shape))
    return broadcast(reshape(y, shape=kept), shape=like.shape)


def _infer(name: str, needs_elements: bool) -> Callable[..., Spec]:
    def infer(x: Spec, *, axes: tuple[int, ...]) -> Spec:
        check_axes(name, x, axes)
        if needs_elements and any(x.shape[axis] == 0 for axis in axes):
            raise ShapeError(f"{name}: nothing to reduce", got=x, expected=f"at least one element along axes {axes}")
        return x.with_shape(size for axis, size in enumerate(x.shape) if axis not in axes)

    return infer


def _reduction(
    name: str,
    numpy: Callable[..., Any],
    vjp: Callable[..., Any],
    oracle: str,
    *,
    needs_elements: bool = False,
    **sample: Any,
) -> Primitive:
    draw = sample.pop("draw", normal(3, 4, 5))
    return define(
        name,
        FAMILY,
        infer=_infer(name, needs_elements),
        numpy=numpy,
        vjp=vjp,
        samples=tuple(
            Sample((draw,), oracle, lambda f, x, axes: f(x, axis=axes), {"axes": axes}) for axes in ((1,), (0, 2), ())
        ),
        **sample,
    )


def _sum(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    # Half types add up in float32; integers keep their width, as on every backend.
    wide = xp.float32 if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x.dtype
    return xp.sum(x, axis=axes, dtype=wide).astype(x.dtype)


def _extreme_vjp(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """Ties share the cotangent equally."""
    chosen = equal(x, expand(y, x, axes))
    count = reduce_sum(cast(chosen, dtype=x.dtype), axes=axes)
    return (select(chosen, expand(g / count, x, axes), zeros_like(x)),)


def _product_vjp(g: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    """The product of all other elements: right also where elements are zero."""
    return (expand(g, x, axes) * products_of_others(x, axes),)


reduce_sum = _reduction("reduce_sum", _sum, lambda g, y, x, *, axes: (expand(g, x, axes),), "numpy.sum")
reduce_prod = _reduction(
    "reduce_prod",
    lambda xp, x, *, axes: xp.prod(x, axis=axes, dtype=x.dtype),
    _product_vjp,
    "numpy.prod",
    draw=positive(2, 3, 2),
)
reduce_max = _reduction(
    "reduce_max",
    lambda xp, x, *, axes: xp.max(x, axis=axes),
    _extreme_vjp,
    "numpy.max",
    needs_elements=True,
    draw=distinct(3, 4, 5),
)
reduce_min = _reduction(
    "reduce_min",
    lambda xp, x, *, axes: xp.min(x, axis=axes),
    _extreme_vjp,
    "numpy.min",
    needs_elements=True,
    draw=distinct(3, 4, 5),
)


# broadcast: the sum transposed ----------------------------------------------------------------------------------------
def _infer_broadcast(x: Spec, *, shape: tuple[int, ...]) -> Spec:
    if len(shape) != x.ndim or any(a not in (1, b) for a, b in zip(x.shape, shape, strict=True)):
        raise ShapeError(
            "broadcast: sizes do not fit", got=x, expected=f"rank {len(shape)}, each size 1 or that of {shape}"
        )
    return x.with_shape(shape)


def _unbroadcast(g: Any, y: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    axes = tuple(axis for axis, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if a != b)
    return (reshape(reduce_sum(g, axes=axes), shape=x.shape) if axes else g,)


broadcast = define(
    "broadcast",
    "movement",
    infer=_infer_broadcast,
    numpy=lambda xp, x, *, shape: xp.broadcast_to(x, shape),
    vjp=_unbroadcast,
    samples=(Sample((normal(3, 1, 2),), "numpy.broadcast_to", lambda f, x, shape: f(x, shape), {"shape": (3, 4, 2)}),),
    summary="axes of size 1 repeated; the rank stays",
)


# The place of the extreme --------------------------------------------------------------------------------------------
def _infer_arg(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, axis: int, dtype: DType) -> Spec:
        if not dtype.is_integer:
            raise DTypeError(f"{name}: the index type is not an integer", got=dtype, expected="an integer type")
        return _infer(name, True)(x, axes=(axis,)).with_dtype(dtype)

    return infer


def _arg(name: str, numpy_name: str) -> Primitive:
    return define(
        name,
        FAMILY,
        infer=_infer_arg(name),
        numpy=lambda xp, x, *, axis, dtype: getattr(xp, numpy_name)(x, axis=axis).astype(dtype.numpy),
        samples=(
            Sample(
                (normal(3, 4, 5),),
                f"numpy.{numpy_name}",
                lambda f, x, axis, dtype: f(x, axis=axis).astype(dtype.numpy),
                {"axis": 1, "dtype": int32},
                gradient=False,
            ),
        ),
        summary="index of the first extreme; NaN counts as extreme",
    )


argmax = _arg("argmax", "argmax")
argmin = _arg("argmin", "argmin")
