"""One function for each operator: it factors one matrix of any size, in any strides, in memory that it is given.

    void kernel(ptr array, i64 row step, i64 column step, …, ptr workspace, …, i64 number, …)

An array that nobody takes is a null pointer. `Core.numbers` and `Core.work` say what else it is given, in terms of the
sizes of the matrix; a module depends on the type of the elements and on the CPU only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from highlevel.ir import DType

from ...cache import Unit
from ..contraction.values import I64, POINTER, Builder, Value, computed_in
from ..kernel import kernel
from ..targets import Target
from .language import Integers, Language, X
from .orthogonal import eigh, qr, svd
from .rows import Array
from .triangular import cholesky, eliminate, solve


@dataclass(frozen=True, slots=True)
class Core:
    """A function that factors one matrix.

    arrays:  operands and results, each a pointer and two steps
    work:    pointers to memory; numbers: further whole numbers
    write:   emits the body, given these
    """

    arrays: int
    work: int
    numbers: int
    write: Callable[[Language, Sequence[Array], Sequence[Value], Sequence[X]], None]

    def unit(self, dtype: DType, target: Target) -> Unit:
        """The function for elements of a type; half types are computed in float32."""
        kinds = [POINTER, I64, I64] * self.arrays + [POINTER] * self.work + [I64] * self.numbers

        def write(builder: Builder, *values: Value) -> None:
            k = Language(builder, computed_in(dtype), target)
            split = 3 * self.arrays
            arrays = [
                Array(values[i], dtype, X(values[i + 1], k), X(values[i + 2], k)) for i in range(0, split, 3)
            ]
            work, numbers = values[split : split + self.work], values[split + self.work :]
            self.write(k, arrays, work, [X(number, k) for number in numbers])

        return kernel(target, kinds, write, level=2)


def _cholesky(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, goal), (n, step) = arrays, numbers
    cholesky(k, a, goal, k.matrix(work[0], step), n)


def _solve(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, b, goal), (n, columns, step, x_step, unit) = arrays, numbers
    solve(k, a, b, goal, k.matrix(work[0], step), k.matrix(work[1], x_step), n, columns, unit)


def _lu(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, goal), (rows, columns, step) = arrays, numbers
    eliminate(k, a, goal, Integers(work[1], k), k.matrix(work[0], step), rows, columns)


def _qr(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, q, r), (rows, columns, step) = arrays, numbers
    t, v, tau = work
    qr(k, a, q, r, k.matrix(t, step), k.matrix(v, step), k.row(tau), rows, columns)


def _eigh(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, w, vectors), (n, step) = arrays, numbers
    t, v = (k.matrix(pointer, step) for pointer in work[:2])
    tau, d, e = (k.row(pointer) for pointer in work[2:5])
    eigh(k, a, w, vectors, t, v, tau, d, e, Integers(work[5], k), n)


def _svd(k: Language, arrays: Sequence[Array], work: Sequence[Value], numbers: Sequence[X]) -> None:
    (a, u, values, vh), (rows, n, step, small) = arrays, numbers
    t, v = (k.matrix(pointer, step) for pointer in work[:2])
    g, turn, y = (k.matrix(pointer, small) for pointer in work[2:5])
    tau, s, *more = (k.row(pointer) for pointer in work[5:9])
    order, places = (Integers(pointer, k) for pointer in work[9:])
    svd(k, a, u, values, vh, t, v, tau, more, g, turn, y, s, order, places, rows, n)


CORES = {
    "cholesky": Core(2, 1, 2, _cholesky),
    "triangular_solve": Core(3, 2, 5, _solve),
    "lu": Core(2, 2, 3, _lu),
    "qr": Core(3, 3, 3, _qr),
    "eigh": Core(3, 6, 2, _eigh),
    "svd": Core(4, 11, 4, _svd),
}
