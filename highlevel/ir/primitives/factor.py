"""Factorisations of matrices, and solving with triangular ones; leading axes are batches.

Signs and phases are the backend's own: what is promised is the product of the factors, orthogonality, and the order of
eigenvalues (upwards) and singular values (downwards). Symmetric operators look at the symmetric part of their operand,
so that their gradients are symmetric and right in every direction.

Derivatives: M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation", 2008; I. Murray, "Differentiation of the Cholesky decomposition", 2016; J. Townsend, "Differentiating
the singular value decomposition", 2016; S. F. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra
functions", 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import oracles
from ..dtypes import int32
from ..primitive import define
from ..sample import Sample, normal, positive_definite, triangular
from ..spec import Spec
from .contraction import matmul, swap_last
from .creation import full_like, iota, zeros_like
from .elementwise import equal, less, less_equal, select
from .movement import concatenate, reshape, slice_
from .ordering import argsort, take_along
from .reduction import broadcast, expand
from .spatial import is_half

FAMILY = "factor"
LEAF_SIZE = 16  # triangular systems of this size are solved row by row; larger ones in halves


# Shapes and types ----------------------------------------------------------------------------------------------------
def _check_matrix(name: str, a: Spec, *, square: bool = False) -> None:
    if not a.dtype.is_float:
        raise DTypeError(f"{name}: wrong data type", got=a, expected="floating point", hint="cast the operand first")
    if a.ndim < 2 or min(a.shape[-2:]) == 0:
        raise ShapeError(f"{name}: not a matrix", got=a, expected="(…, m, n) with at least one row and column")
    if square and a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{name}: the matrix is not square", got=a, expected="(…, n, n)")


def _in_float(xp: Any, f: Callable[..., Any], *arrays: Any) -> tuple[Any, ...]:
    """The results of f in the type of the first array, half types computed in float32."""
    dtype = arrays[0].dtype
    if not is_half(arrays[0]):
        return tuple(f(*arrays))
    results = f(*(array.astype(xp.float32) for array in arrays))
    return tuple(result.astype(dtype) if result.dtype.kind == "f" else result for result in results)


def _symmetric_part(xp: Any, a: Any) -> Any:
    return (a + xp.swapaxes(a, -1, -2)) * a.dtype.type(0.5)


# Helpers of the derivatives ------------------------------------------------------------------------------------------
def _rows_and_columns(x: Any) -> tuple[Any, Any]:
    return tuple(iota(shape=x.shape, axis=x.ndim - 2 + i, dtype=int32) for i in range(2))


def lower_part(x: Any, *, strict: bool = False) -> Any:
    """The elements on and below the diagonal (strict: below), zeros elsewhere."""
    rows, columns = _rows_and_columns(x)
    inside = less(columns, rows) if strict else less_equal(columns, rows)
    return select(inside, x, zeros_like(x))


def upper_part(x: Any, *, strict: bool = False) -> Any:
    rows, columns = _rows_and_columns(x)
    inside = less(rows, columns) if strict else less_equal(rows, columns)
    return select(inside, x, zeros_like(x))


def diagonal_matrix(x: Any, like: Any) -> Any:
    """(…, n) as the diagonal of (…, n, n)."""
    rows, columns = _rows_and_columns(like)
    return select(equal(rows, columns), _as_columns(x, like), zeros_like(like))


def _as_columns(x: Any, like: Any) -> Any:
    """(…, n) repeated down the rows: element j stands in column j."""
    return expand(x, like, (like.ndim - 2,))


def _as_rows(x: Any, like: Any) -> Any:
    return expand(x, like, (like.ndim - 1,))


def _symmetrized(x: Any) -> Any:
    return (x + swap_last(x)) * 0.5


def _gaps(x: Any, like: Any) -> Any:
    """1 / (xⱼ − xᵢ), zero where the two are equal."""
    gap = _as_columns(x, like) - _as_rows(x, like)
    same = equal(gap, zeros_like(gap))
    return select(same, zeros_like(gap), 1.0 / select(same, full_like(gap, 1.0), gap))


def _block(x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    batch = x.ndim - 2
    start = (0,) * batch + (rows[0], columns[0])
    return slice_(x, start=start, stop=(*x.shape[:-2], rows[1], columns[1]), step=(1,) * x.ndim)


def _or_zeros(g: Any, y: Any) -> Any:
    return zeros_like(y) if g is None else g


# cholesky ------------------------------------------------------------------------------------------------------------
def _infer_cholesky(a: Spec) -> Spec:
    _check_matrix("cholesky", a, square=True)
    return a


def _cholesky(xp: Any, a: Any) -> Any:
    try:
        return _in_float(xp, lambda a: (xp.linalg.cholesky(_symmetric_part(xp, a)),), a)[0]
    except np.linalg.LinAlgError:
        raise ArgumentError(
            "cholesky: a matrix is not positive definite",
            got=f"{a.dtype} {a.shape}",
            expected="a symmetric matrix with positive eigenvalues",
            hint="add a small multiple of the identity",
        ) from None


def _cholesky_vjp(g: Any, y: Any, a: Any) -> Any:
    inner = lower_part(matmul(swap_last(y), g))
    rows, columns = _rows_and_columns(inner)
    inner = select(equal(rows, columns), inner * 0.5, inner)
    left = triangular_solve(y, inner, lower=True, transpose=True, unit_diagonal=False)
    both = triangular_solve(y, swap_last(left), lower=True, transpose=True, unit_diagonal=False)
    return (_symmetrized(both),)


cholesky = define(
    "cholesky",
    FAMILY,
    infer=_infer_cholesky,
    numpy=_cholesky,
    vjp=_cholesky_vjp,
    samples=(
        Sample((positive_definite(4, 4),), "scipy.linalg.cholesky", oracles.per_matrix(lower=True)),
        Sample((positive_definite(2, 3, 3),), "numpy.linalg.cholesky"),
        Sample((positive_definite(1, 1),), "numpy.linalg.cholesky"),
    ),
    summary="the lower triangle L with L Lᵀ = a, for the symmetric part of a",
)


# triangular_solve ----------------------------------------------------------------------------------------------------
def _infer_triangular(a: Spec, b: Spec, *, lower: bool, transpose: bool, unit_diagonal: bool) -> Spec:
    _check_matrix("triangular_solve", a, square=True)
    if b.dtype is not a.dtype:
        raise DTypeError("triangular_solve: data types differ", got=f"{a} and {b}", expected="one data type")
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise ShapeError(
            "triangular_solve: the right-hand sides do not fit",
            got=f"a {a}, b {b}",
            expected=f"b of shape {(*a.shape[:-1], 'k')}",
            hint="one right-hand side needs a last axis of size 1: b[..., None]" if b.ndim == a.ndim - 1 else None,
        )
    return b


def _triangular_solve(xp: Any, a: Any, b: Any, *, lower: bool, transpose: bool, unit_diagonal: bool) -> Any:
    def solve(a: Any, b: Any) -> tuple[Any]:
        x = xp.array(b, copy=True)
        matrix = xp.swapaxes(a, -1, -2) if transpose else a
        if lower == transpose:  # upper: the same from the other end
            _substitute(xp, matrix[..., ::-1, ::-1], x[..., ::-1, :], unit_diagonal)
        else:
            _substitute(xp, matrix, x, unit_diagonal)
        return (x,)

    return _in_float(xp, solve, a, b)[0]


def _substitute(xp: Any, a: Any, x: Any, unit_diagonal: bool) -> None:
    """Forward substitution in place: x becomes the solution, given the right-hand sides."""
    size = a.shape[-1]
    if size > LEAF_SIZE:
        half = size // 2
        _substitute(xp, a[..., :half, :half], x[..., :half, :], unit_diagonal)
        x[..., half:, :] -= xp.matmul(a[..., half:, :half], x[..., :half, :])
        _substitute(xp, a[..., half:, half:], x[..., half:, :], unit_diagonal)
        return
    for i in range(size):
        if i:
            x[..., i, :] -= xp.matmul(a[..., i : i + 1, :i], x[..., :i, :])[..., 0, :]
        if not unit_diagonal:
            x[..., i, :] /= a[..., i, i, None]


def _triangular_vjp(
    g: Any, y: Any, a: Any, b: Any, *, lower: bool, transpose: bool, unit_diagonal: bool
) -> Any:
    pulled = triangular_solve(a, g, lower=lower, transpose=not transpose, unit_diagonal=unit_diagonal)
    outer = matmul(y, swap_last(pulled)) if transpose else matmul(pulled, swap_last(y))
    part = lower_part if lower else upper_part
    return -part(outer, strict=unit_diagonal), pulled


triangular_solve = define(
    "triangular_solve",
    FAMILY,
    infer=_infer_triangular,
    numpy=_triangular_solve,
    vjp=_triangular_vjp,
    samples=tuple(
        Sample(
            (triangular(*batch, 4, 4) if lower else normal(*batch, 4, 4), normal(*batch, 4, 3)),
            "scipy.linalg.solve_triangular",
            oracles.scipy_triangular,
            {"lower": lower, "transpose": transpose, "unit_diagonal": unit or not lower},
        )
        for batch, lower, transpose, unit in (
            ((), True, False, False),
            ((2,), True, True, False),
            ((), True, False, True),
            ((2,), False, False, True),
            ((), False, True, True),
        )
    ),
    summary="x with op(a) x = b, for the lower or upper triangle of a, op(a) being a or its transpose",
)


# qr ------------------------------------------------------------------------------------------------------------------
def _infer_qr(a: Spec) -> tuple[Spec, Spec]:
    _check_matrix("qr", a)
    rank = min(a.shape[-2:])
    return a.with_shape((*a.shape[:-1], rank)), a.with_shape((*a.shape[:-2], rank, a.shape[-1]))


def _qr_vjp(g: Any, y: Any, a: Any) -> Any:
    q, r = y
    g_q, g_r = _or_zeros(g[0], q), _or_zeros(g[1], r)
    rows, columns = a.shape[-2:]
    if rows >= columns:
        return (_tall_qr_vjp(q, r, g_q, g_r),)
    # A wide matrix is [X Y] with X = q U square, and Y = q V follows from it.
    rest = _block(a, (0, rows), (rows, columns))
    u, g_u = (_block(x, (0, rows), (0, rows)) for x in (r, g_r))
    g_v = _block(g_r, (0, rows), (rows, columns))
    g_x = _tall_qr_vjp(q, u, g_q + matmul(rest, swap_last(g_v)), g_u)
    return (concatenate(g_x, matmul(q, g_v), axis=a.ndim - 1),)


def _tall_qr_vjp(q: Any, r: Any, g_q: Any, g_r: Any) -> Any:
    inner = matmul(r, swap_last(g_r)) - matmul(swap_last(g_q), q)
    symmetric = lower_part(inner) + swap_last(lower_part(inner, strict=True))
    whole = g_q + matmul(q, symmetric)
    solved = triangular_solve(r, swap_last(whole), lower=False, transpose=False, unit_diagonal=False)
    return swap_last(solved)


def _qr_invariant(q: Any, r: Any) -> tuple[Any, ...]:
    """What does not depend on the signs of the rows of r."""
    return matmul(q, r), matmul(swap_last(q), q), matmul(q, swap_last(q)), r * r


qr = define(
    "qr",
    FAMILY,
    infer=_infer_qr,
    numpy=lambda xp, a: _in_float(xp, xp.linalg.qr, a),
    vjp=_qr_vjp,
    multiple=True,
    samples=(
        Sample((normal(5, 3),), "scipy.linalg.qr", oracles.per_matrix(mode="economic"), invariant=_qr_invariant),
        Sample((normal(2, 3, 3),), "scipy.linalg.qr", oracles.per_matrix(mode="economic"), invariant=_qr_invariant),
        Sample((normal(3, 5),), "numpy.linalg.qr", invariant=_qr_invariant),
    ),
    summary="q with orthonormal columns and r upper triangular, a = q r (reduced)",
)


# eigh ----------------------------------------------------------------------------------------------------------------
def _infer_eigh(a: Spec) -> tuple[Spec, Spec]:
    _check_matrix("eigh", a, square=True)
    return a.with_shape(a.shape[:-1]), a


def _eigh_vjp(g: Any, y: Any, a: Any) -> Any:
    w, v = y
    inner = diagonal_matrix(_or_zeros(g[0], w), v)
    if g[1] is not None:
        inner = inner + _gaps(w, v) * matmul(swap_last(v), g[1])
    return (_symmetrized(matmul(matmul(v, inner), swap_last(v))),)


def _eigh_invariant(w: Any, v: Any) -> tuple[Any, ...]:
    """A function of the matrix, which does not depend on the signs of the eigenvectors."""
    return w, matmul(v * _as_columns(1.0 / w, v), swap_last(v)), v * v


eigh = define(
    "eigh",
    FAMILY,
    infer=_infer_eigh,
    numpy=lambda xp, a: _in_float(xp, lambda a: xp.linalg.eigh(_symmetric_part(xp, a)), a),
    vjp=_eigh_vjp,
    multiple=True,
    samples=(
        Sample((positive_definite(4, 4),), "scipy.linalg.eigh", oracles.per_matrix(), invariant=_eigh_invariant),
        Sample((positive_definite(2, 3, 3),), "numpy.linalg.eigh", invariant=_eigh_invariant),
    ),
    summary="eigenvalues (upwards) and eigenvectors (columns) of the symmetric part of a",
)


# svd -----------------------------------------------------------------------------------------------------------------
def _infer_svd(a: Spec) -> tuple[Spec, Spec, Spec]:
    _check_matrix("svd", a)
    rank = min(a.shape[-2:])
    batch = a.shape[:-2]
    return a.with_shape((*a.shape[:-1], rank)), a.with_shape((*batch, rank)), a.with_shape((*batch, rank, a.shape[-1]))


def _svd_vjp(g: Any, y: Any, a: Any) -> Any:
    u, s, vh = y
    square = matmul(swap_last(u), u)  # (…, k, k), for its shape
    inner = diagonal_matrix(_or_zeros(g[1], s), square)
    gaps = _gaps(s * s, square)
    outer = []
    if g[0] is not None:
        turned = matmul(swap_last(u), g[0])
        inner = inner + gaps * (turned - swap_last(turned)) * _as_columns(s, square)
        outside = g[0] - matmul(u, turned)
        outer.append(matmul(outside * _as_columns(1.0 / s, outside), vh))
    if g[2] is not None:
        v, g_v = swap_last(vh), swap_last(g[2])
        turned = matmul(vh, g_v)
        inner = inner + _as_rows(s, square) * (gaps * (turned - swap_last(turned)))
        outside = g_v - matmul(v, turned)
        outer.append(matmul(u * _as_columns(1.0 / s, u), swap_last(outside)))
    total = matmul(matmul(u, inner), vh)
    for term in outer:
        total = total + term
    return (total,)


def _svd_invariant(u: Any, s: Any, vh: Any) -> tuple[Any, ...]:
    """What does not depend on the signs of the singular vectors."""
    return s, matmul(u * _as_columns(s * s, u), vh), matmul(u, vh), matmul(u * _as_columns(s, u), swap_last(u))


_THIN = oracles.per_matrix(full_matrices=False)


def _svd(xp: Any, a: Any) -> tuple[Any, ...]:
    return _in_float(xp, lambda a: xp.linalg.svd(a, full_matrices=False), a)


svd = define(
    "svd",
    FAMILY,
    infer=_infer_svd,
    numpy=_svd,
    vjp=_svd_vjp,
    multiple=True,
    samples=(
        Sample((normal(5, 3),), "scipy.linalg.svd", _THIN, invariant=_svd_invariant),
        Sample((normal(3, 4),), "scipy.linalg.svd", _THIN, invariant=_svd_invariant),
        Sample((normal(2, 3, 3),), "numpy.linalg.svd", _THIN, invariant=_svd_invariant),
    ),
    summary="u, singular values (downwards) and vh, a = u diag(s) vh (reduced)",
)


# lu ------------------------------------------------------------------------------------------------------------------
def _infer_lu(a: Spec) -> tuple[Spec, Spec]:
    _check_matrix("lu", a)
    return a, Spec(a.shape[:-1], int32)


def _lu(xp: Any, a: Any) -> tuple[Any, ...]:
    return _in_float(xp, lambda a: _eliminate(xp, a), a)


def _eliminate(xp: Any, a: Any) -> tuple[Any, Any]:
    """Gaussian elimination with the largest pivot of each column, all matrices of the batch at once."""
    rows, columns = a.shape[-2:]
    lu = xp.array(a, copy=True).reshape(-1, rows, columns)
    order = xp.tile(xp.arange(rows, dtype=xp.int32), (lu.shape[0], 1))
    batch = xp.arange(lu.shape[0])
    for i in range(min(rows, columns)):
        pivot = xp.argmax(xp.abs(lu[:, i:, i]), axis=1) + i
        for array in (lu, order):
            swapped = array[batch, pivot].copy()
            array[batch, pivot] = array[:, i]
            array[:, i] = swapped
        diagonal = lu[:, i, i, None]
        lu[:, i + 1 :, i] /= xp.where(diagonal == 0, diagonal.dtype.type(1), diagonal)  # a column of zeros stays
        lu[:, i + 1 :, i + 1 :] -= lu[:, i + 1 :, i, None] * lu[:, i, None, i + 1 :]
    return lu.reshape(a.shape), order.reshape(a.shape[:-1])


def _lu_vjp(g: Any, y: Any, a: Any) -> Any:
    if g[0] is None:
        return (None,)
    rows, columns = a.shape[-2:]
    size = min(rows, columns)
    packed, g_packed = y[0], g[0]
    core, g_core = (_block(x, (0, size), (0, size)) for x in (packed, g_packed))
    g_lower, g_upper = lower_part(g_core, strict=True), upper_part(g_core)
    more = None
    if rows > size:  # further rows: L₂ = A₂ U⁻¹
        below = _block(packed, (size, rows), (0, size))
        more = _solve_right(core, _block(g_packed, (size, rows), (0, size)))
        g_upper = g_upper - upper_part(matmul(swap_last(below), more))
    elif columns > size:  # further columns: U₂ = L⁻¹ A₂
        right = _block(packed, (0, size), (size, columns))
        g_right = _block(g_packed, (0, size), (size, columns))
        more = triangular_solve(core, g_right, lower=True, transpose=True, unit_diagonal=True)
        g_lower = g_lower - lower_part(matmul(more, swap_last(right)), strict=True)
    lower = select(_is_diagonal(core), full_like(core, 1.0), lower_part(core))
    inner = lower_part(matmul(swap_last(lower), g_lower), strict=True)
    inner = inner + upper_part(matmul(g_upper, swap_last(upper_part(core))))
    solved = triangular_solve(core, inner, lower=True, transpose=True, unit_diagonal=True)
    total = _solve_right(core, solved)
    if more is not None:
        total = concatenate(total, more, axis=a.ndim - (2 if rows > size else 1))
    return (_unpermute(total, y[1]),)


def _solve_right(core: Any, x: Any) -> Any:
    """x U⁻ᵀ"""
    return swap_last(triangular_solve(core, swap_last(x), lower=False, transpose=False, unit_diagonal=False))


def _is_diagonal(x: Any) -> Any:
    return equal(*_rows_and_columns(x))


def _unpermute(x: Any, order: Any) -> Any:
    """Row i of x put where the permutation took it from."""
    axis = x.ndim - 2
    inverse = argsort(order, axis=axis, descending=False)
    return take_along(x, broadcast(reshape(inverse, shape=(*inverse.shape, 1)), shape=x.shape), axis)


lu = define(
    "lu",
    FAMILY,
    infer=_infer_lu,
    numpy=_lu,
    vjp=_lu_vjp,
    multiple=True,
    samples=(
        Sample((normal(4, 4),), "scipy.linalg.lu_factor", oracles.scipy_lu),
        Sample((normal(2, 3, 3),), "scipy.linalg.lu_factor", oracles.scipy_lu),
        Sample((normal(5, 3),), "scipy.linalg.lu_factor", oracles.scipy_lu),
        Sample((normal(3, 5),), "scipy.linalg.lu_factor", oracles.scipy_lu),
    ),
    summary="L (unit diagonal) and U in one matrix, and the order of rows: a[order] = L U",
)
