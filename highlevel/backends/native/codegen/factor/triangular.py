"""Triangular factors: Cholesky's, those of Gaussian elimination, and solving with them.

Blocks of columns are factored one column after the other; what is right of and below them is then brought up to date by
one product (G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th ed., §3.2.11, §4.2.9).
"""

from __future__ import annotations

import math

from .language import Integers, Language, Matrix, X
from .rows import (
    BLOCK,
    Array,
    Factor,
    add_multiple,
    load,
    store,
    subtract_product,
    swap,
)


def cholesky(k: Language, a: Array, goal: Array, u: Matrix, n: X) -> None:
    """The lower triangle L with L Lᵀ = a, its transpose found in `u`; NaN where a is not positive definite.

    What lies below the diagonal of `u` is never looked at.
    """
    load(k, u, n, n, u.step, lambda i, j: (a.read(k, i, j) + a.read(k, j, i)) * 0.5)
    definite = k.variable(k.flag(True))
    with k.loop(0, n, BLOCK) as first:
        end = k.minimum(first + BLOCK, n)
        with k.loop(first, end) as p:
            pivot = u[p, p]
            definite.value = definite.value & (pivot > 0.0)
            root, row, start = pivot.sqrt(), u.row(p), k.aligned(p)
            with k.loop(start, u.step, k.lanes) as j:
                row.put(j, row.vector(j) / root)
            with k.loop(p + 1, end) as i:
                add_multiple(k, u.row(i), -row[i], row, start, u.step)
        with k.loop(end, n, BLOCK) as i:
            height = k.minimum(n - i, BLOCK)
            left = Factor(u.row(first, i).pointer, k.whole(1), u.step)
            right, depth = u.row(first, i), end - first
            subtract_product(k, u.row(i, i), u.step, left, right, u.step, height, u.step - i, depth)

    def element(i: X, j: X) -> X:
        inside = k.select(definite.value, u[j, i], math.nan)
        return k.select(j <= i, inside, 0.0)

    store(k, goal, n, n, element)


def solve(k: Language, a: Array, b: Array, goal: Array, t: Matrix, x: Matrix, n: X, columns: X, unit: X) -> None:
    """x with T x = b; T is the lower triangle of a, with ones on its diagonal if `unit` is not 0.

    An upper triangle is a lower one seen from the other end: steps of the arrays may be negative.
    """
    load(k, t, n, n, t.step, lambda i, j: a.read(k, i, j))
    load(k, x, n, columns, x.step, lambda i, j: b.read(k, i, j))
    with k.loop(0, n, BLOCK) as first:
        end = k.minimum(first + BLOCK, n)
        with k.loop(first, end) as i:
            _subtract_solved(k, t, x, first, i, k.whole(1), i - first)
            with k.when(unit.equals(0)):
                row, diagonal = x.row(i), t[i, i]
                with k.loop(0, x.step, k.lanes) as j:
                    row.put(j, row.vector(j) / diagonal)
        _subtract_solved(k, t, x, first, end, n - end, end - first)
    store(k, goal, n, columns, lambda i, j: x[i, j])


def _subtract_solved(k: Language, t: Matrix, x: Matrix, first: X, i: X, rows: X, depth: X) -> None:
    """What the unknowns `first` … contribute to some rows."""
    left = Factor(t.row(i, first).pointer, t.step, k.whole(1))
    subtract_product(k, x.row(i), x.step, left, x.row(first), x.step, rows, x.step, depth)


def eliminate(k: Language, a: Array, goal: Array, order: Integers, lu: Matrix, rows: X, columns: X) -> None:
    """L (unit diagonal) and U in one matrix, and the order of rows: a[order] = L U, with the largest pivots."""
    load(k, lu, rows, columns, lu.step, lambda i, j: a.read(k, i, j))
    with k.loop(0, rows) as i:
        order[i] = i
    size = k.minimum(rows, columns)
    with k.loop(0, size, BLOCK) as first:
        end, right = k.minimum(first + BLOCK, size), k.minimum(first + BLOCK, lu.step)
        with k.loop(first, end) as p:
            _exchange(k, lu, order, p, rows)
            _eliminate_column(k, lu, p, first, right, rows)
        width = lu.step - right
        with k.when(width > 0):
            with k.loop(first + 1, end) as i:
                left = Factor(lu.row(i, first).pointer, lu.step, k.whole(1))
                c, b = lu.row(i, right), lu.row(first, right)
                subtract_product(k, c, lu.step, left, b, lu.step, k.whole(1), width, i - first)
            left = Factor(lu.row(end, first).pointer, lu.step, k.whole(1))
            c, b = lu.row(end, right), lu.row(first, right)
            subtract_product(k, c, lu.step, left, b, lu.step, rows - end, width, end - first)
    store(k, goal, rows, columns, lambda i, j: lu[i, j])


def _exchange(k: Language, lu: Matrix, order: Integers, p: X, rows: X) -> None:
    """The largest element of column p on or below the diagonal – the first NaN, if there is one – becomes the pivot."""
    most, place = k.variable(lu[p, p].abs()), k.variable(p)
    with k.loop(p + 1, rows) as i:
        size = lu[i, p].abs()
        with k.when(~most.value.is_nan() & ~(size <= most.value)):
            most.value, place.value = size, i
    with k.unless(place.value.equals(p)):
        found = place.value
        swap(k, lu.row(p), lu.row(found), lu.step)
        old = order[p]
        order[p] = order[found]
        order[found] = old


def _eliminate_column(k: Language, lu: Matrix, p: X, first: X, right: X, rows: X) -> None:
    """Column p of L, and what it takes from the columns of its block that follow."""
    pivot, upper = k.variable(lu[p, p]), lu.row(p)
    with k.when(pivot.value.equals(0.0)):  # a column of zeros stays
        pivot.value = 1.0
    with k.loop(p + 1, rows) as i:
        row = lu.row(i)
        factor = row[p] / pivot.value
        row[p] = factor
        with k.loop(k.aligned(p), right, k.lanes) as j:
            old = row.vector(j)
            new = k.fma(upper.vector(j), -factor, old)
            row.put(j, k.select(k.lanes_from(p + 1, j), new, old))
