"""Contraction: matrix products, batched. All else that multiplies and adds is arranged around it or convolved."""

from __future__ import annotations

from typing import Any

from highlevel.errors import DTypeError, ShapeError

from ..primitive import Primitive, define
from ..sample import Sample, normal
from ..spec import Spec
from .movement import transpose

FAMILY = "contraction"


def _infer(a: Spec, b: Spec) -> Spec:
    if a.dtype is not b.dtype:
        raise DTypeError("matmul: data types differ", got=f"{a} and {b}", expected="one data type")
    if a.ndim < 2 or a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(
            "matmul: ranks or batch sizes differ", got=f"{a} and {b}", expected="(…, m, k) and (…, k, n) with equal …"
        )
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            "matmul: the inner sizes differ",
            got=f"{a} and {b}",
            expected=f"last size of the first ({a.shape[-1]}) = second-last of the second ({b.shape[-2]})",
        )
    return Spec((*a.shape[:-1], b.shape[-1]), a.dtype)


def multiply_matrices(xp: Any, a: Any, b: Any) -> Any:
    """The product, with half types added up in float32 (NumPy would add in half precision, and slowly)."""
    if a.dtype.itemsize == 2 and a.dtype.kind not in "iu":
        return xp.matmul(a.astype(xp.float32), b.astype(xp.float32)).astype(a.dtype)
    return xp.matmul(a, b)


def swap_last(x: Any) -> Any:
    """The matrix transposed, batch axes left alone."""
    last = x.ndim - 1
    return transpose(x, axes=(*range(last - 1), last, last - 1))


matmul: Primitive = define(
    "matmul",
    FAMILY,
    infer=_infer,
    numpy=multiply_matrices,
    vjp=lambda g, y, a, b: (matmul(g, swap_last(b)), matmul(swap_last(a), g)),
    samples=(
        Sample((normal(3, 4), normal(4, 5)), "numpy.matmul"),
        Sample((normal(2, 3, 3, 4), normal(2, 3, 4, 2)), "numpy.matmul"),
        Sample((normal(3, 0), normal(0, 5)), "numpy.matmul"),
    ),
    summary="(…, m, k) times (…, k, n); batch axes equal",
)
