"""What factorisations do with rows: sums, multiples, rotations and reflections, products; and copies of buffers.

Ranges of columns begin and end at whole vectors. What lies in a row beyond its columns is zero or never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from highlevel.ir import DType
from highlevel.ir.dtypes import float32

from ..contraction.values import I32, I64, POINTER, Value
from .language import ACCUMULATORS, Language, Matrix, Number, Row, X

BLOCK = 32  # columns that are factored before all others are brought up to date by a product; whole vectors
TILE_ROWS = 4


# Rows ----------------------------------------------------------------------------------------------------------------
def sums(
    k: Language, start: X, stop: X, pairs: Sequence[tuple[Row, Row]], accumulators: int = ACCUMULATORS
) -> list[X]:
    """Σ x·y over a range of columns, for each pair of rows (x, y)."""
    totals = [[k.variable(0.0, k.vector) for _ in range(accumulators)] for _ in pairs]
    step = accumulators * k.lanes
    middle = start + (stop - start) // step * step

    def add(j: X, into: int) -> None:
        for total, (x, y) in zip(totals, pairs, strict=True):
            total[into].value = k.fma(x.vector(j), y.vector(j), total[into].value)

    with k.loop(start, middle, step) as j:
        for into in range(accumulators):
            add(j + into * k.lanes, into)
    with k.loop(middle, stop, k.lanes) as j:
        add(j, 0)
    return [k.total(_added([part.value for part in total])) for total in totals]


def _added(values: Sequence[X]) -> X:
    """The sum, by halves."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return _added(values[:half]) + _added(values[half:])


def dot(k: Language, x: Row, y: Row, start: X, stop: X) -> X:
    return sums(k, start, stop, [(x, y)])[0]


def add_multiple(k: Language, y: Row, factor: X, x: Row, start: X, stop: X) -> None:
    """y += factor · x"""
    with k.loop(start, stop, k.lanes) as j:
        y.put(j, k.fma(x.vector(j), factor, y.vector(j)))


def scale(k: Language, x: Row, factor: X, start: X, stop: X) -> None:
    with k.loop(start, stop, k.lanes) as j:
        x.put(j, x.vector(j) * factor)


def clear(k: Language, x: Row, start: X, stop: X) -> None:
    with k.loop(start, stop, k.lanes) as j:
        x.put(j, 0.0)


def copy(k: Language, goal: Row, source: Row, start: X, stop: X) -> None:
    with k.loop(start, stop, k.lanes) as j:
        goal.put(j, source.vector(j))


def swap(k: Language, x: Row, y: Row, stop: X) -> None:
    with k.loop(0, stop, k.lanes) as j:
        a, b = x.vector(j), y.vector(j)
        x.put(j, b)
        y.put(j, a)


def rotate(k: Language, x: Row, y: Row, cosine: X, sine: X, stop: X) -> None:
    """(x, y) = (c·x − s·y, s·x + c·y)"""
    with k.loop(0, stop, k.lanes) as j:
        a, b = x.vector(j), y.vector(j)
        x.put(j, k.fma(a, cosine, -(b * sine)))
        y.put(j, k.fma(a, sine, b * cosine))


def normalise(k: Language, a: Matrix, rows: X) -> tuple[X, X]:
    """(2ᵉ, whether all elements are finite): a becomes a · 2⁻ᵉ, whose largest element is near 1."""
    size, finite = k.variable(1.0), k.variable(k.flag(True))
    with k.loop(0, 2):  # denormals take two steps
        most, rest = k.variable(0.0, k.vector), k.variable(0.0, k.vector)
        with k.loop(0, rows) as i, k.loop(0, a.step, k.lanes) as j:
            x = a.row(i).vector(j)
            most.value = k.maximum(x.abs(), most.value)
            rest.value = rest.value + (x - x)  # NaN for what is not finite
        factor, inverse = power_of_two(k, maximum_lane(k, most.value))
        finite.value = k.total(rest.value).equals(0.0)
        size.value = size.value * factor
        with k.loop(0, rows) as i:
            scale(k, a.row(i), inverse, k.whole(0), a.step)
    return size.value, finite.value


def maximum_lane(k: Language, vector: X) -> X:
    most = k.variable(0.0)
    for lane in range(k.lanes):
        most.value = k.maximum(X(k.builder.extract_element(vector.value, I64(lane)), k), most.value)
    return most.value


def power_of_two(k: Language, x: X) -> tuple[X, X]:
    """(2ᵉ, 2⁻ᵉ) with x near 2ᵉ, unless x is so large or small that one of the two would be no normal number."""
    single = k.dtype is float32
    limit = 2.0**100 if single else 2.0**1000
    kind, shift, bias = (I32, 23, 127) if single else (I64, 52, 1023)
    inside = k.minimum(k.maximum(x, 1 / limit), limit)
    bits = k.builder.and_(k.builder.bitcast(inside.value, kind), kind((2 * bias + 1) << shift))
    inverse = k.builder.sub(kind((2 * bias) << shift), bits)
    return X(k.builder.bitcast(bits, k.real), k), X(k.builder.bitcast(inverse, k.real), k)





# Reflections ---------------------------------------------------------------------------------------------------------
def reflector(k: Language, x: Row, first: X, stop: X, v: Row) -> tuple[X, X]:
    """(τ, β) and v, so that (1 − τ v vᵀ) x = β e, for the part of x from column `first` on.

    v is 0 before that column and 1 there. Signs are LAPACK's: β has the one that x does not begin with.
    """
    start = k.aligned(first)
    alpha = x[first]
    most = k.variable(0.0, k.vector)
    with k.loop(start, stop, k.lanes) as j:
        inside = k.select(k.lanes_from(first, j), x.vector(j), 0.0)
        most.value = k.maximum(inside.abs(), most.value)
        v.put(j, inside)
    size, inverse = power_of_two(k, maximum_lane(k, most.value))
    scale(k, v, inverse, start, stop)
    v[first] = 0.0
    rest = dot(k, v, v, start, stop)
    tau, beta = k.variable(0.0), k.variable(alpha)
    with k.unless(rest.equals(0.0) & alpha.is_finite()):
        head = alpha * inverse
        norm = k.with_sign(k.fma(head, head, rest).sqrt(), -head)
        tau.value, beta.value = (norm - head) / norm, norm * size
        scale(k, v, 1.0 / (head - norm), start, stop)
    v[first] = 1.0
    return tau.value, beta.value


def reflect(k: Language, x: Row, tau: X, v: Row, first: X, stop: X) -> None:
    """x = (1 − τ v vᵀ) x"""
    start = k.aligned(first)
    add_multiple(k, x, -(tau * dot(k, x, v, start, stop)), v, start, stop)


# Products ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Factor:
    """The left factor of a product: its steps in memory, in elements."""

    pointer: Value
    row: X
    column: X


def subtract_product(
    k: Language, c: Row, c_step: X, a: Factor, b: Row, b_step: X, rows: X, columns: X, depth: X
) -> None:
    """c −= a b; the rows of b and c begin at whole vectors, and `columns` are whole vectors."""
    arguments = [c.pointer, c_step.value, a.pointer, a.row.value, a.column.value, b.pointer, b_step.value]
    arguments += [rows.value, columns.value, depth.value]
    function = k.function("product", [x.type for x in arguments], _product)
    k.builder.call(function, arguments)


def _product(k: Language, *arguments: Value) -> None:
    c, c_step, a, a_row, a_column, b, b_step, rows, columns, depth = (
        x if x.type == POINTER else X(x, k) for x in arguments
    )
    goal, factor, right = k.matrix(c, c_step), Factor(a, a_row, a_column), k.matrix(b, b_step)
    vectors = 4 if k.target.vector_registers >= 32 else 2
    whole, wide = rows // TILE_ROWS * TILE_ROWS, columns // (vectors * k.lanes) * (vectors * k.lanes)

    def across(i: X, height: int) -> None:
        with k.loop(0, wide, vectors * k.lanes) as j:
            _tile(k, goal, factor, right, i, j, depth, height, vectors)
        with k.loop(wide, columns, k.lanes) as j:
            _tile(k, goal, factor, right, i, j, depth, height, 1)

    with k.loop(0, whole, TILE_ROWS) as i:
        across(i, TILE_ROWS)
    with k.loop(whole, rows) as i:
        across(i, 1)


def _tile(k: Language, c: Matrix, a: Factor, b: Matrix, i: X, j: X, depth: X, height: int, vectors: int) -> None:
    places = [(r, v) for r in range(height) for v in range(vectors)]
    totals = {(r, v): k.variable(c.row(i + r, j).vector(v * k.lanes)) for r, v in places}
    with k.loop(0, depth) as p:
        right = [b.row(p, j).vector(v * k.lanes) for v in range(vectors)]
        left = [-k.row(a.pointer)[(i + r) * a.row + p * a.column] for r in range(height)]
        for r, v in places:
            totals[r, v].value = k.fma(right[v], left[r], totals[r, v].value)
    for r, v in places:
        c.row(i + r, j).put(v * k.lanes, totals[r, v].value)


# Buffers -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Array:
    """A matrix in a buffer: element (i, j) is `i · row + j · column` further on."""

    pointer: Value
    dtype: DType
    row: X
    column: X

    def read(self, k: Language, i: X, j: X) -> X:
        return k.read(self.pointer, i * self.row + j * self.column, self.dtype)

    def write(self, k: Language, i: X, j: X, value: X) -> None:
        k.write(self.pointer, i * self.row + j * self.column, self.dtype, value)


def load(k: Language, goal: Matrix, rows: X, columns: X, stop: X, element: Callable[[X, X], X]) -> None:
    """goal[i, j] = element(i, j), and zeros in the columns up to `stop`."""
    with k.loop(0, rows) as i:
        row = goal.row(i)
        with k.loop(0, columns) as j:
            row[j] = element(i, j)
        with k.loop(columns, stop) as j:
            row[j] = 0.0


def store(k: Language, array: Array, rows: X, columns: X, element: Callable[[X, X], X]) -> None:
    """array[i, j] = element(i, j), if there is somebody who takes it."""
    with k.when(is_wanted(k, array.pointer)), k.loop(0, rows) as i, k.loop(0, columns) as j:
        array.write(k, i, j, element(i, j))


def is_wanted(k: Language, pointer: Value) -> X:
    """Whether there is a buffer."""
    return X(k.builder.icmp_unsigned("!=", k.builder.ptrtoint(pointer, I64), I64(0)), k)


def identity(k: Language, a: Matrix, rows: X, stop: Number) -> None:
    with k.loop(0, rows) as i:
        clear(k, a.row(i), k.whole(0), k.whole(stop))
        a[i, i] = 1.0
