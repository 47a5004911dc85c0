"""Orthogonal factors: QR, eigenvectors of symmetric matrices, singular vectors.

Matrices lie transposed in the workspace, so that columns are rows of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .language import Integers, Language, Matrix, Row, X
from .rows import (
    Array,
    Factor,
    add_multiple,
    clear,
    copy,
    dot,
    identity,
    is_wanted,
    load,
    normalise,
    reflect,
    reflector,
    rotate,
    store,
    subtract_product,
    sums,
    swap,
)

PRECONDITIONED = 48  # rows from which on eigenvectors first are faster
ROUNDS = 60  # of iterations for one eigenvalue, of sweeps over all pairs of columns; a handful is usual


# QR ------------------------------------------------------------------------------------------------------------------
def qr(k: Language, a: Array, q: Array, r: Array, t: Matrix, v: Matrix, tau: Row, rows: X, columns: X) -> None:
    """a = q r by Householder's reflections; `t` holds the columns of a, then those of r, then those of q."""
    rank = k.minimum(rows, columns)
    load(k, t, columns, rows, t.step, lambda i, j: a.read(k, j, i))
    _triangularise(k, t, v, tau, rank, columns)
    store(k, r, rank, columns, lambda i, j: k.select(i <= j, t[j, i], 0.0))
    with k.when(is_wanted(k, q.pointer)):
        identity(k, t, rank, t.step)
        _reflect_back(k, t, v, tau, rank, rank)
        store(k, q, rows, rank, lambda i, j: t[j, i])


def _triangularise(k: Language, t: Matrix, v: Matrix, tau: Row, rank: X, columns: X) -> None:
    """r in `t` (column by column, upper triangle), the reflections in `v` and `tau`."""
    with k.loop(0, rank) as p:
        factor, diagonal = reflector(k, t.row(p), p, t.step, v.row(p))
        t[p, p] = diagonal
        tau[p] = factor
        with k.loop(p + 1, columns) as j:
            reflect(k, t.row(j), factor, v.row(p), p, t.step)


def _reflect_back(k: Language, t: Matrix, v: Matrix, tau: Row, count: X, columns: X, below: int = 0) -> None:
    """The product of `count` reflections times the columns in `t`; reflection p changes rows from p + below on.

    Columns are unit vectors at first, so that those before reflection p + below are not touched by it.
    """
    with k.loop(0, count, -1) as p, k.loop(p + below, columns) as j:
        reflect(k, t.row(j), tau[p], v.row(p), p + below, t.step)


# Eigenvalues ---------------------------------------------------------------------------------------------------------
def eigh(
    k: Language,
    a: Array,
    w: Array,
    vectors: Array,
    t: Matrix,
    v: Matrix,
    tau: Row,
    d: Row,
    e: Row,
    order: Integers,
    n: X,
) -> None:
    """Eigenvalues (upwards) and eigenvectors of the symmetric part of a.

    A tridiagonal matrix by reflections, then implicit QL with Wilkinson's shifts (J. H. Wilkinson and C. Reinsch,
    "Linear Algebra", 1971, II/2 and II/4), the rotations applied to the eigenvectors. `t` holds the matrix, then them.
    """
    load(k, t, n, n, t.step, lambda i, j: (a.read(k, i, j) + a.read(k, j, i)) * 0.5)
    size, finite = normalise(k, t, n)
    good = k.variable(finite)
    with k.when(finite):
        good.value = _diagonalise(k, t, v, tau, d, e, n)
    _sort(k, order, n, lambda i, j: d[i] < d[j])
    store(k, w, k.whole(1), n, lambda _, j: k.select(good.value, d[order[j]] * size, math.nan))
    store(k, vectors, n, n, lambda i, j: k.select(good.value, t[order[j], i], math.nan))


def _diagonalise(k: Language, t: Matrix, v: Matrix, tau: Row, d: Row, e: Row, n: X) -> X:
    """Eigenvalues in `d`, eigenvectors in the rows of `t`, in some order. Whether that went well."""
    _tridiagonalise(k, t, v, tau, d, e, n)
    identity(k, t, n, t.step)
    _reflect_back(k, t, v, tau, n - 2, n, below=1)
    return _iterate(k, t, d, e, n)


def _tridiagonalise(k: Language, t: Matrix, v: Matrix, tau: Row, d: Row, e: Row, n: X) -> None:
    """Diagonal d and off-diagonal e of Hᵀ t H, the reflections H in `v` and `tau`; e has one element more, 0."""
    product = v.row(n - 1)  # there are n − 2 reflections
    with k.loop(0, n - 2) as p:
        first, x = p + 1, v.row(p)
        factor, beta = reflector(k, t.row(p), first, t.step, x)
        d[p], e[p], tau[p] = t[p, p], beta, factor
        start = k.aligned(first)
        clear(k, product, start, t.step)
        with k.loop(first, n) as i:
            product[i] = factor * dot(k, t.row(i), x, start, t.step)
        add_multiple(k, product, factor * dot(k, product, x, start, t.step) * -0.5, x, start, t.step)
        with k.loop(first, n) as i:
            row, a, b = t.row(i), -x[i], -product[i]
            with k.loop(start, t.step, k.lanes) as j:
                row.put(j, k.fma(x.vector(j), b, k.fma(product.vector(j), a, row.vector(j))))
    with k.loop(k.maximum(n - 2, 0), n) as p:
        d[p] = t[p, p]
        e[p] = 0.0
        with k.when(p + 1 < n):
            e[p] = t[p, p + 1]


def _iterate(k: Language, t: Matrix, d: Row, e: Row, n: X) -> X:
    """Rotates until e is zero: d becomes the eigenvalues, the rows of `t` the eigenvectors. Whether it ended well."""
    good, most = k.variable(k.flag(True)), k.variable(0.0)
    with k.loop(0, n) as i:
        most.value = k.maximum(d[i].abs() + e[i].abs(), most.value)
    negligible = most.value * (k.epsilon / 2)
    with k.loop(0, n) as low:
        done = k.variable(k.flag(False))
        with k.repeat(ROUNDS) as leave_if:
            end = _next_split(k, e, low, n, negligible)
            done.value = end.equals(low)
            leave_if(done.value)
            _chase(k, t, d, e, low, end)
        good.value = good.value & done.value
    return good.value


def _next_split(k: Language, e: Row, low: X, n: X, negligible: X) -> X:
    """The first index from `low` on after which the matrix falls apart."""
    place = k.variable(low)
    with k.repeat(n - 1 - low) as leave_if:
        leave_if(e[place.value].abs() <= negligible)
        place.value = place.value + 1
    return place.value


def _chase(k: Language, t: Matrix, d: Row, e: Row, low: X, end: X) -> None:
    """One step of implicit QL on the rows low … end."""
    theta = (d[low + 1] - d[low]) / (e[low] * 2.0)
    root = k.with_sign(_hypotenuse(k, theta, k.number(1.0)), theta)
    g = k.variable(d[end] - d[low] + e[low] / (theta + root))
    sine, cosine, shift = k.variable(1.0), k.variable(1.0), k.variable(0.0)
    split = k.variable(k.flag(False))
    with k.loop(low, end, -1) as i, k.unless(split.value):
        f, b = sine.value * e[i], cosine.value * e[i]
        length = _hypotenuse(k, f, g.value)
        e[i + 1] = length
        split.value = length.equals(0.0)
        with k.when(split.value):
            d[i + 1] = d[i + 1] - shift.value
            e[end] = 0.0
        with k.unless(split.value):
            sine.value, cosine.value = f / length, g.value / length
            rest = d[i + 1] - shift.value
            slope = (d[i] - rest) * sine.value + cosine.value * b * 2.0
            shift.value = sine.value * slope
            d[i + 1] = rest + shift.value
            g.value = cosine.value * slope - b
            rotate(k, t.row(i), t.row(i + 1), cosine.value, sine.value, t.step)
    with k.unless(split.value):
        d[low] = d[low] - shift.value
        e[low] = g.value
        e[end] = 0.0


def _hypotenuse(k: Language, a: X, b: X) -> X:
    """√(a² + b²) without overflow."""
    a, b = a.abs(), b.abs()
    most, least = k.maximum(a, b), k.minimum(a, b)
    ratio = least / k.select(most.equals(0.0), 1.0, most)
    return most * k.fma(ratio, ratio, 1.0).sqrt()


def _sort(k: Language, order: Integers, n: X, before: Callable[[X, X], X]) -> None:
    """The order of 0 … n − 1 by `before`, by selection; equals stay as they were but for exchanges."""
    with k.loop(0, n) as i:
        order[i] = i
    with k.loop(0, n - 1) as i:
        best = k.variable(i)
        with k.loop(i + 1, n) as j, k.when(before(order[j], order[best.value])):
            best.value = j
        found, old = order[best.value], order[i]
        order[best.value] = old
        order[i] = found


# Singular values -----------------------------------------------------------------------------------------------------
def svd(
    k: Language,
    a: Array,
    u: Array,
    values: Array,
    vh: Array,
    t: Matrix,
    v: Matrix,
    tau: Row,
    more: Sequence[Row],
    g: Matrix,
    turn: Matrix,
    y: Matrix,
    s: Row,
    order: Integers,
    places: Integers,
    rows: X,
    n: X,
) -> None:
    """a = u diag(values) vh, for at least as many rows as columns.

    Hestenes' rotations, applied to the transposed triangle of a QR factorisation with exchanges of columns, which makes
    them converge quickly (Z. Drmač and K. Veselić, "New fast and accurate Jacobi SVD algorithm", 2008): a P = Q R and
    Rᵀ J = W S give u = Q J and v = P W. Large matrices start from the eigenvectors of R Rᵀ, from where two or three
    sweeps are enough. Columns of W are made exactly orthonormal by another QR, which also finds those of zeros.
    """
    load(k, t, n, rows, t.step, lambda i, j: a.read(k, j, i))
    size, finite = normalise(k, t, n)
    with k.when(finite):
        _triangularise_by_size(k, t, v, tau, s, places, n)
        load(k, g, n, n, g.step, lambda i, j: k.select(i <= j, t[j, i], 0.0))
        identity(k, turn, n, turn.step)
        with k.when(n >= PRECONDITIONED):
            _turn_nearly(k, g, turn, y, s, more[0], more[1], order, n)
        _orthogonalise(k, g, turn, n)
        _order_by_size(k, g, y, s, order, n)
        with k.loop(0, n) as i:  # u = Q J
            copy(k, t.row(i), turn.row(order[i]), k.whole(0), turn.step)
            clear(k, t.row(i), turn.step, t.step)
        with k.loop(0, n, -1) as p, k.loop(0, n) as j:
            reflect(k, t.row(j), tau[p], v.row(p), p, t.step)
        _triangularise(k, y, g, tau, n, n)
        _take_diagonal(k, y, s, n)
        identity(k, y, n, y.step)
        _reflect_back(k, y, g, tau, n, n)
    with k.unless(finite), k.loop(0, n) as i:
        s[i], places[i] = math.nan, i
    store(k, values, k.whole(1), n, lambda _, j: s[j].abs() * size)
    store(k, u, rows, n, lambda i, j: k.select(finite, t[j, i], math.nan))
    with k.when(is_wanted(k, vh.pointer)), k.loop(0, n) as i, k.loop(0, n) as j:
        signed = k.select(s[i] < 0.0, -y[i, j], y[i, j])
        vh.write(k, i, places[j], k.select(finite, signed, math.nan))


def _triangularise_by_size(k: Language, t: Matrix, v: Matrix, tau: Row, sizes: Row, places: Integers, n: X) -> None:
    """QR with the largest column first; `places` says where columns came from."""
    with k.loop(0, n) as j:
        places[j] = j
        sizes[j] = dot(k, t.row(j), t.row(j), k.whole(0), t.step)
    with k.loop(0, n) as p:
        best = k.variable(p)
        with k.loop(p + 1, n) as j, k.when(sizes[j] > sizes[best.value]):
            best.value = j
        found = best.value
        with k.unless(found.equals(p)):
            swap(k, t.row(p), t.row(found), t.step)
            old = places[p]
            places[p] = places[found]
            places[found] = old
            sizes[found] = sizes[p]
        factor, diagonal = reflector(k, t.row(p), p, t.step, v.row(p))
        t[p, p] = diagonal
        tau[p] = factor
        with k.loop(p + 1, n) as j:
            reflect(k, t.row(j), factor, v.row(p), p, t.step)
            sizes[j] = sizes[j] - t[j, p] * t[j, p]  # roughly: it only matters for speed


def _turn_nearly(
    k: Language, g: Matrix, turn: Matrix, y: Matrix, d: Row, e: Row, tau: Row, order: Integers, n: X
) -> None:
    """`turn` becomes the eigenvectors of g gᵀ, g becomes turn · g: its rows are as orthogonal as squares can tell."""
    with k.loop(0, n) as i, k.loop(0, i + 1) as j:
        product = dot(k, g.row(i), g.row(j), k.aligned(i), g.step)  # row i is zero before column i
        y[i, j], y[j, i] = product, product
    with k.loop(0, n) as i, k.loop(n, y.step) as j:
        y[i, j] = 0.0
    _diagonalise(k, y, turn, tau, d, e, n)
    _sort(k, order, n, lambda i, j: d[i] > d[j])
    with k.loop(0, n) as i:
        copy(k, turn.row(i), y.row(order[i]), k.whole(0), y.step)
    with k.loop(0, n) as i:
        clear(k, y.row(i), k.whole(0), y.step)
    left = Factor(turn.pointer, turn.step, k.whole(1))
    subtract_product(k, y.row(0), y.step, left, g.row(0), g.step, n, g.step, n)
    with k.loop(0, n) as i, k.loop(0, g.step, k.lanes) as j:
        g.row(i).put(j, -y.row(i).vector(j))


def _orthogonalise(k: Language, g: Matrix, turn: Matrix, n: X) -> None:
    """Rotates rows of g until any two are orthogonal, and those of `turn` with them."""
    least = k.epsilon**2  # squares below it do not count: such rows are zero beside the largest
    tolerance = k.number(n).sqrt() * k.epsilon
    with k.repeat(ROUNDS) as leave_if:
        turned = k.variable(k.flag(False))
        with k.loop(0, n) as i, k.loop(i + 1, n) as j:
            x, y = g.row(i), g.row(j)
            a, b, c = sums(k, k.whole(0), g.step, [(x, x), (y, y), (x, y)], 2)
            sizes = (k.maximum(a, least) * k.maximum(b, least)).sqrt()
            with k.when(c.abs() > tolerance * sizes):
                turned.value = k.flag(True)
                ratio = (b - a) / (c * 2.0)
                tangent = 1.0 / (ratio + k.with_sign(_hypotenuse(k, ratio, k.number(1.0)), ratio))
                cosine = 1.0 / k.fma(tangent, tangent, 1.0).sqrt()
                rotate(k, x, y, cosine, cosine * tangent, g.step)
                rotate(k, turn.row(i), turn.row(j), cosine, cosine * tangent, turn.step)
        leave_if(~turned.value)


def _order_by_size(k: Language, g: Matrix, y: Matrix, sizes: Row, order: Integers, n: X) -> None:
    """The rows of g into y, the largest first."""
    with k.loop(0, n) as i:
        sizes[i] = dot(k, g.row(i), g.row(i), k.whole(0), g.step)
    _sort(k, order, n, lambda i, j: sizes[i] > sizes[j])
    with k.loop(0, n) as i:
        copy(k, y.row(i), g.row(order[i]), k.whole(0), y.step)


def _take_diagonal(k: Language, y: Matrix, s: Row, n: X) -> None:
    """The diagonal with its signs, no number larger than the one before."""
    most = k.variable(math.inf)
    with k.loop(0, n) as i:
        value = y[i, i]
        most.value = k.minimum(value.abs(), most.value)
        s[i] = k.with_sign(most.value, value)
