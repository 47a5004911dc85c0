"""Stages of a transform as instructions: butterflies, and the loops around them.

A stage reads one line and writes another. Where the stride is a vector or more, vectors lie along it; where it is less,
they lie across neighbouring transforms, and results are put in order by shuffling; what fits neither way is computed
number by number, by the same operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from ..contraction.values import I32, Literal, Value
from ..factor.language import Language, Number, Row, X
from .plan import Stage


# Complex numbers -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Z:
    """A complex number, or a vector of them, in registers."""

    re: X
    im: X

    def __add__(self, other: Z) -> Z:
        return Z(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Z) -> Z:
        return Z(self.re - other.re, self.im - other.im)

    def __mul__(self, other: Z) -> Z:
        k = self.re.k
        return Z(
            k.fma(self.re, other.re, -(self.im * other.im)),
            k.fma(self.re, other.im, self.im * other.re),
        )

    def scaled(self, factor: float) -> Z:
        return self if factor == 1.0 else Z(self.re * factor, self.im * factor)

    def plus(self, factor: float, other: Z) -> Z:
        """self + factor · other"""
        k = self.re.k
        return Z(k.fma(other.re, factor, self.re), k.fma(other.im, factor, self.im))

    @property
    def turned(self) -> Z:
        """−i · self"""
        return Z(self.im, -self.re)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Complex numbers in memory."""

    re: Row
    im: Row

    @classmethod
    def at(cls, k: Language, re: Value, im: Value) -> Line:
        return cls(k.row(re), k.row(im))

    def __getitem__(self, j: Number) -> Z:
        return Z(self.re[j], self.im[j])

    def __setitem__(self, j: Number, value: Z) -> None:
        self.re[j], self.im[j] = value.re, value.im

    def vector(self, j: Number) -> Z:
        return Z(self.re.vector(j), self.im.vector(j))

    def put(self, j: Number, value: Z) -> None:
        self.re.put(j, value.re)
        self.im.put(j, value.im)

    @property
    def swapped(self) -> Line:
        """Real and imaginary parts exchanged: what makes a transform its own inverse."""
        return Line(self.im, self.re)


# Stages --------------------------------------------------------------------------------------------------------------
def butterfly(a: Sequence[Z]) -> list[Z]:
    """The transform of a few numbers."""
    if len(a) == 2:
        return [a[0] + a[1], a[0] - a[1]]
    if len(a) == 4:
        even, odd = (a[0] + a[2], a[0] - a[2]), (a[1] + a[3], (a[1] - a[3]).turned)
        return [even[0] + odd[0], even[1] + odd[1], even[0] - odd[0], even[1] - odd[1]]
    size, half = len(a), range(1, len(a) // 2 + 1)
    sums, differences = [a[j] + a[-j] for j in half], [(a[j] - a[-j]).turned for j in half]
    first = a[0]
    for total in sums:
        first = first + total
    results = [first] * size
    for i in half:
        cosines, sines = a[0], differences[0].scaled(_part(math.sin, i, size))
        for j in half:
            cosines = cosines.plus(_part(math.cos, i * j, size), sums[j - 1])
            if j > 1:
                sines = sines.plus(_part(math.sin, i * j, size), differences[j - 1])
        results[i], results[size - i] = cosines + sines, cosines - sines
    return results


def _part(function: Callable[[float], float], i: int, size: int) -> float:
    return function(2 * math.pi * (i % size) / size)


def emit_stage(k: Language, stage: Stage, size: int, x: Line, y: Line, table: Line, scale: float) -> None:
    """y = one stage of x; `size` elements, those of lines side by side included."""
    step = size // stage.radix  # between the numbers that are transformed together
    if stage.stride >= k.lanes:
        _emit_wide(k, stage, step, x, y, table, scale)
    elif k.lanes % stage.stride == 0 and step % k.lanes == 0:
        _emit_narrow(k, stage, step, x, y, table, scale)
    else:
        with k.loop(0, stage.count) as p:
            factors = _factors(stage, lambda j: table[_entry(stage, j, p)])
            with k.loop(0, stage.stride) as q:
                read = [x[p * stage.stride + q + step * j] for j in range(stage.radix)]
                for j, value in enumerate(_transformed(read, factors, scale)):
                    y[(p * stage.radix + j) * stage.stride + q] = value


def _emit_wide(k: Language, stage: Stage, step: int, x: Line, y: Line, table: Line, scale: float) -> None:
    """Vectors along the stride; what is left over by scalars."""
    whole = stage.stride // k.lanes * k.lanes
    with k.loop(0, stage.count) as p:
        factors = _factors(stage, lambda j: table[_entry(stage, j, p)])
        source, goal = p * stage.stride, p * (stage.radix * stage.stride)
        with k.loop(0, whole, k.lanes) as q:
            read = [x.vector(source + q + step * j) for j in range(stage.radix)]
            for j, value in enumerate(_transformed(read, factors, scale)):
                y.put(goal + q + stage.stride * j, value)
        with k.loop(whole, stage.stride) as q:
            read = [x[source + q + step * j] for j in range(stage.radix)]
            for j, value in enumerate(_transformed(read, factors, scale)):
                y[goal + q + stage.stride * j] = value


def _emit_narrow(k: Language, stage: Stage, step: int, x: Line, y: Line, table: Line, scale: float) -> None:
    """Vectors across several p, whose results are put in order by shuffling."""
    with k.loop(0, step, k.lanes) as t:
        p = t // stage.stride
        factors = _factors(stage, lambda j: _repeated(k, table, _entry(stage, j, p), stage.stride))
        read = [x.vector(t + step * j) for j in range(stage.radix)]
        results = _transformed(read, factors, scale)
        real = _interleaved(k, [value.re for value in results], stage.stride)
        imaginary = _interleaved(k, [value.im for value in results], stage.stride)
        for j, (re, im) in enumerate(zip(real, imaginary, strict=True)):
            y.put(t * stage.radix + j * k.lanes, Z(re, im))


def _entry(stage: Stage, j: int, p: X) -> X:
    return p + (stage.table + (j - 1) * stage.count)


def _factors(stage: Stage, load: Callable[[int], Z]) -> list[Z] | None:
    return [load(j) for j in range(1, stage.radix)] if stage.count > 1 else None


def _transformed(read: Sequence[Z], factors: Sequence[Z] | None, scale: float) -> list[Z]:
    results = butterfly(read)
    if factors is not None:
        results = [results[0], *(value * factor for value, factor in zip(results[1:], factors, strict=True))]
    return [value.scaled(scale) for value in results]


def _repeated(k: Language, table: Line, start: X, times: int) -> Z:
    """Consecutive elements, each in as many lanes."""

    def part(row: Row) -> X:
        kind = ir.VectorType(k.real, k.lanes // times)
        loaded = k.builder.load(row.at(start), typ=kind, align=k.dtype.size_bytes)
        return _shuffled(k, loaded, [lane // times for lane in range(k.lanes)])

    return Z(part(table.re), part(table.im))


def _interleaved(k: Language, vectors: Sequence[X], stride: int) -> list[X]:
    """Runs of `stride` lanes, from each vector in turn."""
    parts = [vector.value for vector in vectors]
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        parts = [k.builder.shuffle_vector(a, b, mask) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    lanes, count = k.lanes, len(vectors)

    def source(place: int) -> int:
        run, lane = divmod(place, stride)
        return run % count * lanes + run // count * stride + lane

    return [_shuffled(k, parts[0], [source(v * lanes + lane) for lane in range(lanes)]) for v in range(count)]


def _shuffled(k: Language, vector: Value, lanes: Sequence[int]) -> X:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
    return X(k.builder.shuffle_vector(vector, Literal(vector.type, "poison"), mask), k)


def emit_stages(
    k: Language,
    stages: Sequence[Stage],
    size: int,
    source: Line,
    work: tuple[Line, Line],
    table: Line,
    goal: Line | None = None,
    scale: float = 1.0,
) -> Line:
    """The transform of `source`, which may be work[0]; in `goal`, or where it is returned."""
    lines = [source, *(work[(i + 1) % 2] for i in range(len(stages)))]
    if goal is not None:
        lines[-1] = goal
    for i, stage in enumerate(stages):
        last = i == len(stages) - 1
        emit_stage(k, stage, size, lines[i], lines[i + 1], table, scale if last else 1.0)
    return lines[-1]
