"""Linear algebra. Leading axes are batches throughout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import int32
from highlevel.ir.operators import cast, match, operand

from .arguments import axes_of, floating
from .creation import diagonal
from .indexing import take_along_axis
from .movement import moveaxis, swapaxes
from .reduction import reduce
from .registry import op


def _matrix(x: Any, name: str, *, square: bool = False) -> Any:
    x = floating(x)
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        wanted = "(…, n, n)" if square else "(…, m, n)"
        raise ShapeError(f"{name}: not a {'square ' if square else ''}matrix", got=x.spec, expected=wanted)
    return x


def _transposed(x: Any) -> Any:
    return swapaxes(x, -1, -2)


def identity_like(a: Any) -> Any:
    """The identity matrix for each matrix of a batch."""
    rows, columns = (primitives.iota(shape=a.shape, axis=a.ndim - 2 + i, dtype=int32) for i in range(2))
    return cast(primitives.equal(rows, columns), a.dtype)


# Factors ---------------------------------------------------------------------------------------------------------
@op
def cholesky(x: Any, upper: bool = False) -> Any:
    """The lower triangle L with L·Lᵀ = x, for symmetric positive definite x (or upper: Lᵀ)."""
    factor = primitives.cholesky(_matrix(x, "cholesky", square=True))
    return _transposed(factor) if upper else factor


@op
def cholesky_inverse(x: Any, upper: bool = False) -> Any:
    """The inverse of the matrix whose Cholesky factor is x."""
    factor = _matrix(x, "cholesky_inverse", square=True)
    inverse = primitives.triangular_solve(
        factor, identity_like(factor), lower=not upper, transpose=False, unit_diagonal=False
    )
    left, right = (inverse, _transposed(inverse)) if upper else (_transposed(inverse), inverse)
    return primitives.matmul(left, right)


@op
def qr(x: Any, mode: str = "reduced") -> tuple[Any, Any]:
    """Q with orthonormal columns and R upper triangular, Q·R = x; mode "complete" makes Q square."""
    a = _matrix(x, "qr")
    if mode not in ("reduced", "complete"):
        raise ArgumentError("qr: unknown mode", got=repr(mode), expected="'reduced' or 'complete'")
    rows, columns = a.shape[-2:]
    if mode == "reduced" or rows <= columns:
        q, r = primitives.qr(a)
        return q, r
    square = operators.full((*a.shape[:-1], rows), 0.0, a.dtype)
    q, r = primitives.qr(primitives.concatenate(a, identity_like(square), axis=a.ndim - 1))
    return q, r[..., :columns]


@op
def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """U, the singular values (downwards) and Vᵀ with U·diag(s)·Vᵀ = x; the values alone without `compute_uv`."""
    a = _matrix(x, "svd")
    u, s, vh = primitives.svd(a)
    if not compute_uv:
        return s
    return (_completed(u), s, _transposed(_completed(_transposed(vh)))) if full_matrices else (u, s, vh)


def _completed(u: Any) -> Any:
    """Orthonormal columns, and more of them until the matrix is square."""
    rows, columns = u.shape[-2:]
    if rows == columns:
        return u
    return primitives.concatenate(u, qr(u, "complete")[0][..., columns:], axis=u.ndim - 1)


@op
def eigh(x: Any) -> tuple[Any, Any]:
    """Eigenvalues (upwards) and eigenvectors (columns) of symmetric matrices."""
    w, v = primitives.eigh(_matrix(x, "eigh", square=True))
    return w, v


@op
def lu_factor(x: Any) -> tuple[Any, Any]:
    """L (without its diagonal of ones) and U in one matrix, and the pivots: row i was exchanged with row pivots[i]."""
    packed, order = primitives.lu(_matrix(x, "lu_factor"))
    return packed, _pivots(order, min(packed.shape[-2:]))


def _pivots(order: Any, count: int) -> Any:
    """Exchanges one after the other that bring the rows in that order."""
    rows = order.shape[-1]
    flat = operators.reshape(order, -1, rows)
    place = primitives.iota(shape=flat.shape, axis=1, dtype=int32)

    def step(current: Any, i: Any) -> Any:
        wanted = take_along_axis(flat, operators.broadcast_to(operators.reshape(i, 1, 1), (flat.shape[0], 1)), 1)
        at = primitives.argmax(primitives.equal(*match(current, wanted)), axis=1, dtype=int32)
        here = take_along_axis(current, operators.broadcast_to(operators.reshape(i, 1, 1), (flat.shape[0], 1)), 1)
        column = operators.reshape(at, -1, 1)
        swapped = primitives.select(operators.equal(place, column), operators.broadcast_to(here, flat.shape), current)
        first = primitives.equal(*match(place, i))
        return primitives.select(first, operators.broadcast_to(wanted, flat.shape), swapped), at

    steps = primitives.iota(shape=(count,), axis=0, dtype=int32)
    pivots = control.scan(step, place, steps)[1]
    return operators.reshape(operators.transpose(pivots), *order.shape[:-1], count)


# Solving ---------------------------------------------------------------------------------------------------------
def _system(a: Any, b: Any, name: str) -> tuple[Any, Any, bool]:
    """Both sides in one type, the right one a matrix; and whether it was a vector."""
    a, b = _matrix(a, name, square=True), floating(b)
    dtype = operators.common_dtype((a, b), (a, b))
    a, b = cast(a, dtype), cast(b, dtype)
    is_vector = b.ndim == a.ndim - 1
    if b.shape[b.ndim - (1 if is_vector else 2)] != a.shape[-1] or b.ndim not in (a.ndim, a.ndim - 1):
        raise ShapeError(
            f"{name}: the sides do not fit", got=f"{a.spec} and {b.spec}", expected="(…, n, n) and (…, n[, k])"
        )
    b = operators.reshape(b, *b.shape, 1) if is_vector else b
    batch = operators.broadcast_shapes(a.shape[:-2], b.shape[:-2], operator=name)
    a, b = (operators.broadcast_to(v, (*batch, *v.shape[-2:])) for v in (a, b))
    return a, b, is_vector


@op
def solve(a: Any, b: Any) -> Any:
    """x with a·x = b, for vectors or matrices b."""
    a, b, is_vector = _system(a, b, "solve")
    x = control.call("solve", _solve, a, b, rule=_solve_rule)
    return operators.reshape(x, x.shape[:-1]) if is_vector else x


def _solve(a: Any, b: Any) -> Any:
    packed, order = primitives.lu(a)
    rows = operators.broadcast_to(operators.reshape(order, *order.shape, 1), b.shape)
    b = take_along_axis(b, rows, b.ndim - 2)
    y = primitives.triangular_solve(packed, b, lower=True, transpose=False, unit_diagonal=True)
    return primitives.triangular_solve(packed, y, lower=False, transpose=False, unit_diagonal=False)


def _solve_rule(g: Any, y: Any, a: Any, b: Any) -> Any:
    pulled = solve(_transposed(a), g)
    return -primitives.matmul(pulled, _transposed(y)), pulled


@op
def solve_triangular(a: Any, b: Any, lower: bool = False) -> Any:
    """x with a·x = b, where only the upper (or lower) triangle of a counts."""
    a, b, is_vector = _system(a, b, "solve_triangular")
    x = primitives.triangular_solve(a, b, lower=bool(lower), transpose=False, unit_diagonal=False)
    return operators.reshape(x, x.shape[:-1]) if is_vector else x


@op
def inv(x: Any) -> Any:
    """The inverse."""
    a = _matrix(x, "inv", square=True)
    return solve(a, identity_like(a))


@op
def pinv(x: Any, rcond: float | None = None) -> Any:
    """The Moore–Penrose inverse; singular values below rcond · the largest count as zero."""
    a = _matrix(x, "pinv")
    u, s, vh = primitives.svd(a)
    inverse = _inverse_values(s, 10.0 * max(a.shape[-2:]) * _resolution(a) if rcond is None else rcond)
    return primitives.matmul(_transposed(vh) * _rows(inverse), _transposed(u))


def _resolution(a: Any) -> float:
    return float(np.finfo(a.dtype.numpy).eps)


def _rows(s: Any) -> Any:
    return operators.reshape(s, *s.shape[:-1], 1, s.shape[-1])


def _inverse_values(s: Any, rcond: float) -> Any:
    least = primitives.stop_gradient(s[..., :1] * rcond)
    keeps = primitives.less(*match(least, s))
    safe = primitives.select(keeps, s, operators.ones_like(s))
    return primitives.select(keeps, 1.0 / safe, operators.zeros_like(s))


@op
def lstsq(a: Any, b: Any, rcond: float | None = None) -> Any:
    """The x of least norm with the least ‖a·x − b‖, for vectors or matrices b."""
    a, b = _matrix(a, "lstsq"), floating(b)
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise ShapeError(
            "lstsq: the sides do not fit", got=f"{a.spec} and {b.spec}", expected="(m, n) and (m,) or (m, k)"
        )
    limit = _resolution(a) * max(a.shape) if rcond is None else rcond
    columns = operators.reshape(b, b.shape[0], -1)
    u, s, vh = primitives.svd(a)
    x = primitives.matmul(
        _transposed(vh) * _rows(_inverse_values(s, limit)), primitives.matmul(_transposed(u), columns)
    )
    return operators.reshape(x, a.shape[1], *b.shape[1:])


@op
def matrix_rank(x: Any, tol: Any = None) -> Any:
    """How many singular values exceed the tolerance (rounding error of the largest, if not given)."""
    a = _matrix(x, "matrix_rank")
    s = primitives.svd(a)[1]
    limit = s[..., :1] * (max(a.shape[-2:]) * _resolution(a)) if tol is None else operand(tol, s.dtype)
    above = primitives.less(*match(limit, s))
    return primitives.reduce_sum(cast(above, int32), axes=(s.ndim - 1,))


# Numbers of matrices ---------------------------------------------------------------------------------------------
def _parity(order: Any, like: Any) -> Any:
    """+1 or −1: whether the permutation takes an even number of exchanges."""
    n = order.shape[-1]
    later, earlier = (operators.reshape(order, *order.shape[:-1], *shape) for shape in ((1, n), (n, 1)))
    earlier, later = match(earlier, later)
    row, column = (primitives.iota(shape=earlier.shape, axis=earlier.ndim - 2 + i, dtype=int32) for i in range(2))
    crossed = primitives.bit_and(primitives.less(row, column), primitives.less(later, earlier))
    count = primitives.reduce_sum(cast(crossed, int32), axes=(crossed.ndim - 2, crossed.ndim - 1))
    return 1.0 - 2.0 * cast(operators.remainder(count, 2), like.dtype)


@op
def slogdet(x: Any) -> tuple[Any, Any]:
    """The sign of the determinant and the logarithm of its absolute value."""
    a = _matrix(x, "slogdet", square=True)
    packed, order = primitives.lu(primitives.stop_gradient(a))
    d = diagonal(packed, 0, -2, -1)
    sign = primitives.reduce_prod(primitives.sign(d), axes=(d.ndim - 1,)) * _parity(order, a)
    return sign, control.call("logabsdet", _logabsdet, a, rule=_logabsdet_rule)


def _logabsdet(a: Any) -> Any:
    d = diagonal(primitives.lu(a)[0], 0, -2, -1)
    return primitives.reduce_sum(primitives.log(primitives.abs(d)), axes=(d.ndim - 1,))


def _logabsdet_rule(g: Any, y: Any, a: Any) -> Any:
    return (_transposed(inv(a)) * operators.reshape(g, *g.shape, 1, 1),)


@op
def logdet(x: Any) -> Any:
    """The logarithm of the determinant (of its absolute value, if that is negative)."""
    return slogdet(x)[1]


@op
def det(x: Any) -> Any:
    """The determinant."""
    a = _matrix(x, "det", square=True)
    packed, order = primitives.lu(a)
    d = diagonal(packed, 0, -2, -1)
    return primitives.reduce_prod(d, axes=(d.ndim - 1,)) * _parity(order, a)


@op
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of all elements, of vectors along one axis, or of matrices along two.

    ord: of vectors 2 (if None), any number, ±inf, or 0 (how many are not zero); of matrices "fro" (if None), "nuc",
         ±1, ±2, ±inf
    """
    x = floating(x)
    if axis is None:
        if ord is None:
            flat = operators.reshape(x, -1)
            return operators.reshape(_euclidean(flat, (0,), False), (1,) * x.ndim if keepdims else ())
        if x.ndim not in (1, 2):
            raise ShapeError("norm: neither vector nor matrix", got=x.spec, expected="rank 1 or 2", hint="give an axis")
        axis = tuple(range(x.ndim))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes_of(given, x.ndim, "norm")
    axes = tuple(a % x.ndim for a in given)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes[0], keepdims)
    if len(axes) != 2:
        raise ArgumentError("norm: one axis or two", got=axis)
    y = _matrix_norm(moveaxis(x, axes, (-2, -1)), ord)
    return operators.reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else y


def _euclidean(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """√Σx², with slope 0 (not NaN) at zero."""
    squares = reduce(primitives.reduce_sum, x * x, axes, keepdims, "norm")
    at_zero = operators.equal(squares, 0.0)
    root = primitives.sqrt(primitives.select(at_zero, operators.ones_like(squares), squares))
    return primitives.select(at_zero, operators.zeros_like(root), root)


def _vector_norm(x: Any, order: Any, axis: int, keepdims: bool) -> Any:
    if order is None or order == 2:
        return _euclidean(x, (axis,), keepdims)
    if isinstance(order, str):
        raise ArgumentError("norm: vectors have no such norm", got=repr(order), expected="a number")
    size = primitives.abs(x)
    extremes = {math.inf: primitives.reduce_max, -math.inf: primitives.reduce_min}
    if order in extremes:
        return reduce(extremes[order], size, axis, keepdims, "norm")
    if order == 0:
        size = cast(operators.not_equal(x, 0.0), x.dtype)
    if order in (0, 1):
        return reduce(primitives.reduce_sum, size, axis, keepdims, "norm")
    total = reduce(primitives.reduce_sum, operators.power(size, float(order)), axis, keepdims, "norm")
    return operators.power(total, 1.0 / order)


def _matrix_norm(x: Any, order: Any) -> Any:
    rows, columns = x.ndim - 2, x.ndim - 1
    if order is None or order == "fro":
        return _euclidean(x, (rows, columns), False)
    if order in ("nuc", 2, -2):
        s = primitives.svd(x)[1]
        pick: Callable[..., Any] = {
            "nuc": primitives.reduce_sum, 2: primitives.reduce_max, -2: primitives.reduce_min
        }[order]  # fmt: skip
        return pick(s, axes=(s.ndim - 1,))
    if order not in (1, -1, math.inf, -math.inf):
        raise ArgumentError("norm: matrices have no such norm", got=repr(order), expected="'fro', 'nuc', ±1, ±2, ±inf")
    first, second = (rows, rows) if order in (1, -1) else (columns, rows)
    sums = primitives.reduce_sum(primitives.abs(x), axes=(first,))
    return (primitives.reduce_max if order > 0 else primitives.reduce_min)(sums, axes=(second,))
