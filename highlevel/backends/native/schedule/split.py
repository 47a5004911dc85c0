"""One kernel as several: work that many threads can share, and memory walked in order.

In: a kernel (collapsed). Out: kernels that run one after the other, and buffers between them. A kernel whose totals run
over much memory but has few rows, or rows that lie side by side, becomes

    partial totals    columns are cut into pieces; the rows of this kernel are pieces and rows
    totals            the pieces of each row are combined, in their order; outputs per row
    elements          outputs per element, with totals loaded; axes in the order of memory

once for each level of totals that need each other. Squares about a mean are totalled in the pass of the mean, about
that of their piece – which is in the cache –, and put together by what the means differ. How columns are cut depends
on shapes alone, so results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from highlevel.ir import REGISTRY, DType

from ..codegen import indexing as ix
from .collapse import Axis, axes_of, coefficient, collapse, cut, map_terms, substitute
from .kernel import Apply, Buffer, Choose, Load, LoopKernel, Number, Output, Stage, Term, Total, walk

SMALL = 1 << 15  # elements that are not worth a second phase
PIECE = 1 << 15  # elements of a piece, about
PIECES = 128  # at most
MANY_ROWS = 4096  # side by side: enough to be shared out without cutting columns
FEW_ROWS = 16  # fewer than this do not keep several threads busy
TAPS = 27  # columns that are written out, where rows are in lanes


@dataclass(frozen=True, slots=True)
class Split:
    """Kernels in order, and the buffers that they hand each other, by name."""

    kernels: tuple[LoopKernel, ...]
    buffers: Mapping[str, Buffer]


def style_of(kernel: LoopKernel) -> str:
    """How a kernel is best walked through: see codegen/loops/kernel.py.

    "map" without totals; "along" where neighbouring columns are neighbours in memory; where neighbouring rows are,
    "across" for few columns and "down" for many. Places count by how many elements are there.
    """
    if not kernel.stages:
        return "map"
    if not kernel.columns:
        return "across"
    if not kernel.rows:
        return "along"
    row, column = kernel.rows[-1][0], kernel.columns[-1][0]
    terms = [*(stage.term for stage in kernel.stages), *(o.term for o in kernel.outputs if o.per_element)]
    places = {node.place for term in terms for node in walk(term) if isinstance(node, Load)}
    sizes = dict((*kernel.rows, *kernel.columns))
    votes = 0
    for place in places | {o.place for o in kernel.outputs if o.per_element}:
        elements = math.prod(sizes[name] for name in axes_of(place))
        votes += elements * (abs(coefficient(place, column) or 0) == 1)
        votes -= elements * (abs(coefficient(place, row) or 0) == 1)
    if votes >= 0:
        return "along"
    return "across" if _count(kernel.columns) <= TAPS else "down"


def levels_of(stages: Sequence[Stage], *, with_centres: bool = False) -> list[list[Stage]]:
    """Stages that can run at the same time, since none uses another, but – `with_centres` – squares their mean."""
    depth: dict[str, int] = {}
    for stage in stages:
        used = [node.name for node in walk(stage.term) if isinstance(node, Total)]
        centre = stage.centre if with_centres else None
        depth[stage.name] = max((depth[name] + (name != centre) for name in used), default=0)
    count = max(depth.values(), default=-1) + 1
    return [[stage for stage in stages if depth[stage.name] == level] for level in range(count)]


def early_outputs(kernel: LoopKernel) -> tuple[Output, ...]:
    """Outputs per element that no total is needed for: they are stored in the pass of the first totals."""
    if not kernel.stages:
        return ()
    each = (output for output in kernel.outputs if output.per_element)
    return tuple(output for output in each if not any(isinstance(node, Total) for node in walk(output.term)))


def split(kernel: LoopKernel) -> Split:
    """The kernels that do the work of one."""
    if not kernel.stages:
        return Split(tuple(_maps(kernel)), {})
    style, rows, columns = style_of(kernel), _count(kernel.rows), _count(kernel.columns)
    if style == "across" or rows * columns < SMALL or (style == "along" and rows >= FEW_ROWS):
        return Split((with_units(kernel),), {})
    return _Phases(kernel, style).split()


def _count(axes: Sequence[Axis]) -> int:
    return math.prod(size for _, size in axes)


# Maps ----------------------------------------------------------------------------------------------------------------
def _maps(kernel: LoopKernel) -> list[LoopKernel]:
    """Kernels without totals: outputs per row and outputs per element apart, rows and columns as one."""
    once = tuple(output for output in kernel.outputs if not output.per_element)
    each = tuple(output for output in kernel.outputs if output.per_element)
    if not kernel.columns:
        once, each = (), kernel.outputs
    found = []
    if once:
        found.append(with_units(arranged(replace(kernel, columns=(), outputs=once))))
    if each and _count(kernel.columns):
        whole = replace(kernel, rows=(*kernel.rows, *kernel.columns), columns=(), outputs=each)
        found.append(with_units(arranged(whole)))
    return found


def arranged(kernel: LoopKernel) -> LoopKernel:
    """A map with its axes in the order in which its first output lies in memory, then collapsed."""
    steps = [coefficient(kernel.outputs[0].place, name) for name, _ in kernel.rows]
    if None not in steps:
        order = sorted(range(len(steps)), key=lambda axis: -abs(steps[axis] or 0))
        kernel = replace(kernel, rows=tuple(kernel.rows[axis] for axis in order))
    return collapse(kernel)


def with_units(kernel: LoopKernel) -> LoopKernel:
    """The kernel with enough rows along its first axis for several threads: short outer axes become one."""
    in_lanes = style_of(kernel) != "along"
    if _count((*kernel.rows, *kernel.columns)) < SMALL:
        return kernel
    while len(kernel.rows) >= 2 and kernel.rows[0][1] < FEW_ROWS:
        (name, size), (other, width), *rest = kernel.rows
        last = in_lanes and not rest  # work along lanes is cut into large pieces or not at all
        least = 256 if last else 16
        piece = divisor_near(width, max(width * size // (4 * FEW_ROWS), 2 * least)) or width
        if least <= piece < width:
            kernel = cut(kernel, other, piece)
            (other, width), *rest = kernel.rows[1:]
        elif last:
            break
        joint = ix.var(name, size * width)
        values = {name: ix.floor_div(joint, width), other: ix.remainder(joint, width)}
        kernel = replace(substitute(kernel, values), rows=((name, size * width), *rest))
    return kernel


def divisor_near(size: int, wanted: int) -> int | None:
    """The divisor nearest to a number, as a ratio; None if there is none within a factor of two."""
    found = [n for n in range(max(1, wanted // 2), min(size, 2 * wanted) + 1) if size % n == 0]
    return min(found, key=lambda n: abs(math.log(n / wanted)), default=None)


# Totals in phases ----------------------------------------------------------------------------------------------------
class _Phases:
    """Builds the kernels of a kernel with totals."""

    def __init__(self, kernel: LoopKernel, style: str) -> None:
        self.kernel = _without_casts(kernel)
        self.rows = _count(kernel.rows)
        self.row = ix.ravel([ix.var(*axis) for axis in kernel.rows], [size for _, size in kernel.rows])
        self.once = tuple(output for output in kernel.outputs if not output.per_element)
        self.piece = self._piece(style)
        whole = self.kernel.columns[0][1] % self.piece == 0
        self.early = early_outputs(kernel) if whole else ()
        self.each = tuple(output for output in kernel.outputs if output.per_element and output not in self.early)
        self.buffers: dict[str, Buffer] = {}

    def _piece(self, style: str) -> int:
        """How much of the first column axis is in a piece."""
        _, size = self.kernel.columns[0]
        each = self.rows * _count(self.kernel.columns[1:])
        least = 32 if style == "down" and len(self.kernel.columns) == 1 else 1
        wanted = max(PIECE // each, least, -(-size // PIECES))
        if 2 * wanted > size or (style == "down" and self.rows >= MANY_ROWS):
            return size
        return divisor_near(size, wanted) or wanted

    def split(self) -> Split:
        levels = levels_of(self.kernel.stages, with_centres=True)
        kernels: list[LoopKernel] = []
        for level in levels:
            kernels += self._level(level, self.early if level is levels[0] else (), last=level is levels[-1])
        if self.each:
            outputs = tuple(replace(output, term=self._loaded(output.term)) for output in self.each)
            kernels += _maps(replace(self.kernel, stages=(), outputs=outputs))
        return Split(tuple(kernels), self.buffers)

    def _level(self, level: Sequence[Stage], early: tuple[Output, ...], last: bool) -> list[LoopKernel]:
        """The kernels that compute the totals of a level, and early outputs; after the last one, outputs per row."""
        mine = {stage.name for stage in level}
        stages = tuple(replace(stage, term=self._loaded(stage.term, mine)) for stage in level)
        outputs = [replace(output, term=self._loaded(output.term, mine)) for output in self.once] if last else []
        for stage in level:
            if self._is_kept(stage, last):
                total = self._new(f"total.{stage.name}", (self.rows,), stage)
                outputs.append(Output(total, self.row, Total(stage.name, stage.result), False))
        if self.piece == self.kernel.columns[0][1]:
            return [with_units(collapse(replace(self.kernel, stages=stages, outputs=(*early, *outputs))))]
        return self._in_pieces(stages, early, outputs)

    def _in_pieces(
        self, stages: Sequence[Stage], early: Sequence[Output], outputs: Sequence[Output]
    ) -> list[LoopKernel]:
        """A kernel for totals of pieces, and one that combines them."""
        (axis, size), *inner = self.kernel.columns
        pieces = -(-size // self.piece)
        piece = ix.var(f"{axis}p", pieces)
        place = ix.add(ix.mul(piece, self.rows), self.row)
        means = _Means(piece, self.piece, size, _count(inner))
        terms = {stage.name: stage.term for stage in stages}
        parts: list[Stage] = []
        combined: list[Stage] = []
        for stage in stages:
            more = means.of_piece(stage, terms[stage.centre]) if stage.centre else [stage]
            parts += more
            loads = [Load(f"part.{part.name}", place, part.dtype) for part in more]
            term: Term = loads[0]
            if stage.centre:
                term = means.of_all(stage, Load(f"part.{stage.centre}", place, stage.dtype), *loads)
            combined.append(replace(stage, term=term, centre=None))
        partial: list[Output] = []
        for i, part in enumerate(parts):
            term = part.term if pieces * self.piece == size else _within(part, axis, size)
            parts[i] = replace(part, term=term, result=part.dtype, centre=None)
            buffer = self._new(f"part.{part.name}", (pieces, self.rows), parts[i])
            partial.append(Output(buffer, place, Total(part.name, part.dtype), False))
        rows = ((f"{axis}p", pieces), *self.kernel.rows)
        first = replace(self.kernel, rows=rows, columns=((axis, self.piece), *inner), outputs=tuple(early))
        first = replace(first, stages=tuple(parts))
        first = substitute(first, {axis: ix.add(ix.mul(piece, self.piece), ix.var(axis, self.piece))})
        first = replace(first, outputs=(*first.outputs, *partial))
        second = replace(self.kernel, columns=rows[:1], stages=tuple(combined), outputs=tuple(outputs))
        return [collapse(first), collapse(second)]

    def _new(self, name: str, shape: tuple[int, ...], stage: Stage) -> Buffer:
        self.buffers[name] = Buffer(name, shape, stage.result)
        return self.buffers[name]

    def _is_kept(self, stage: Stage, last: bool) -> bool:
        """Whether a total is needed after its level."""
        terms = [other.term for other in self.kernel.stages if other.centre != stage.name]
        terms += [output.term for output in self.each]
        terms += [] if last else [output.term for output in self.once]
        return any(isinstance(node, Total) and node.name == stage.name for term in terms for node in walk(term))

    def _loaded(self, term: Term, but: Collection[str] = ()) -> Term:
        """The term with loads in place of totals that are in memory."""

        def load(node: Term) -> Term:
            if isinstance(node, Total) and node.name not in but:
                return Load(f"total.{node.name}", self.row, node.dtype)
            return node

        return map_terms(term, load)


@dataclass(frozen=True, slots=True)
class _Means:
    """Squares about the mean of all, from those about means of pieces.

    A piece has `length` of the `size` steps along an axis, the last one may have fewer, and `inner` columns at each.
    With s the sum of its n numbers, q that of their squares about m = s/n, r that of x − m – it would be 0 if m were
    exact –, the squares about the mean M of all add up to q + δ·(2·r + n·δ), where δ = m − M.
    """

    piece: ix.Expr
    length: int
    size: int
    inner: int

    def of_piece(self, stage: Stage, x: Term) -> list[Stage]:
        """q and r, where `stage` is to be the squares of all."""
        rest = _apply("sub", x, self._mean(Total(str(stage.centre), stage.dtype)))
        return [replace(stage, term=_apply("mul", rest, rest)), replace(stage, name=f"{stage.name}.rest", term=rest)]

    def of_all(self, stage: Stage, s: Term, q: Term, r: Term) -> Term:
        """What is to be added up to the squares about the mean of all."""
        mean = _apply("mul", Total(str(stage.centre), stage.dtype), Number(1.0 / (self.size * self.inner), stage.dtype))
        delta = _apply("sub", self._mean(s), mean)
        more = _apply("add", _apply("add", r, r), _apply("mul", self._of_count(float, stage.dtype), delta))
        return _apply("add", q, _apply("mul", delta, more))

    def _mean(self, s: Term) -> Term:
        return _apply("mul", s, self._of_count(lambda n: 1.0 / n, s.dtype))

    def _of_count(self, function: Callable[[int], float], dtype: DType) -> Term:
        """A function of the number of columns of a piece."""
        pieces = -(-self.size // self.length)
        whole = Number(function(self.length * self.inner), dtype)
        rest = Number(function((self.size - (pieces - 1) * self.length) * self.inner), dtype)
        return Choose((ix.Bound(self.piece, 0, pieces - 1),), whole, rest, dtype) if rest != whole else whole


def _without_casts(kernel: LoopKernel) -> LoopKernel:
    """The kernel with centres only where all is of one type."""
    types = {stage.name: {stage.dtype, stage.result, stage.term.dtype} for stage in kernel.stages}
    stages = []
    for stage in kernel.stages:
        alike = stage.centre is not None and len(types[stage.name] | types[stage.centre]) == 1
        stages.append(stage if alike else replace(stage, centre=None))
    return replace(kernel, stages=tuple(stages))


def _apply(name: str, *operands: Term) -> Term:
    return Apply(REGISTRY[name], operands, (), operands[0].dtype)


def _within(stage: Stage, axis: str, size: int) -> Term:
    """The term, but behind the end of an axis what changes no total."""
    outside = Number(identity(stage.combine, stage.term.dtype), stage.term.dtype)
    return Choose((ix.Bound(ix.var(axis, size), 0, size),), stage.term, outside, stage.term.dtype)


def identity(name: str, dtype: DType) -> Any:
    """The number that changes no total of that kind."""
    if name in ("sum", "prod"):
        return 0 if name == "sum" else 1
    if dtype.is_bool:
        return name == "min"
    if dtype.is_float:
        return -math.inf if name == "max" else math.inf
    bits, signed = 8 * dtype.size_bytes, dtype.kind == "int"
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return lowest if name == "max" else highest
