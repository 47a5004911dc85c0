"""One kernel as several: work that many threads can share, and memory walked in order.

In: a kernel (collapsed). Out: kernels that run one after the other, and buffers between them. A kernel whose totals run
over much memory but has few rows, or rows that lie side by side, becomes

    partial totals    columns are cut into pieces; the rows of this kernel are pieces and rows
    totals            the pieces of each row are combined, in their order; outputs per row
    elements          outputs per element, with totals loaded; axes in the order of memory

once for each level of totals that need each other. How columns are cut depends on shapes alone, so results do not
depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from highlevel.ir import DType

from ..codegen import indexing as ix
from .collapse import Axis, axes_of, coefficient, collapse, cut, map_terms, substitute
from .kernel import Buffer, Choose, Load, LoopKernel, Number, Output, Stage, Term, Total, walk

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


def levels_of(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages that can run at the same time, since none uses another."""
    depth: dict[str, int] = {}
    for stage in stages:
        used = [node.name for node in walk(stage.term) if isinstance(node, Total)]
        depth[stage.name] = 1 + max((depth[name] for name in used), default=-1)
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
    lanes = style_of(kernel) != "along"
    while len(kernel.rows) >= 2 and kernel.rows[0][1] < FEW_ROWS:
        (name, size), (other, width), *rest = kernel.rows
        if _count(kernel.rows) * _count(kernel.columns) < SMALL:
            break
        if not rest and lanes:  # the axis in lanes: cut into pieces first
            piece = divisor_near(width, max(width * size // (4 * FEW_ROWS), 512))
            if piece is None or piece < 256 or piece == width:
                break
            kernel = cut(kernel, other, piece)
            continue
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
        self.kernel = kernel
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
        levels = levels_of(self.kernel.stages)
        kernels: list[LoopKernel] = []
        for level in levels:
            kernels += self._level(level, self.early if level is levels[0] else (), last=level is levels[-1])
        if self.each:
            outputs = tuple(replace(output, term=self._loaded(output.term)) for output in self.each)
            kernels += _maps(replace(self.kernel, stages=(), outputs=outputs))
        return Split(tuple(kernels), self.buffers)

    def _level(self, level: Sequence[Stage], early: tuple[Output, ...], last: bool) -> list[LoopKernel]:
        """The kernels that compute the totals of a level, and early outputs; after the last one, outputs per row."""
        stages = tuple(replace(stage, term=self._loaded(stage.term)) for stage in level)
        mine = {stage.name for stage in level}
        outputs = [replace(output, term=self._loaded(output.term, mine)) for output in self.once] if last else []
        for stage in level:
            if self._is_kept(stage, last):
                total = self._new(f"total.{stage.name}", (self.rows,), stage)
                outputs.append(Output(total, self.row, Total(stage.name, stage.result), False))
        (axis, size), *inner = self.kernel.columns
        if self.piece == size:
            return [with_units(collapse(replace(self.kernel, stages=stages, outputs=(*early, *outputs))))]
        pieces = -(-size // self.piece)
        piece = ix.var(f"{axis}p", pieces)
        part = ix.add(ix.mul(piece, self.piece), ix.var(axis, self.piece))
        if pieces * self.piece != size:
            stages = tuple(replace(stage, term=_within(stage, axis, size)) for stage in stages)
        place = ix.add(ix.mul(piece, self.rows), self.row)
        partial, combined = [], []
        for stage in stages:
            wide = replace(stage, result=stage.dtype)
            buffer = self._new(f"part.{stage.name}", (pieces, self.rows), wide)
            partial.append(Output(buffer, place, Total(stage.name, stage.dtype), False))
            combined.append(replace(stage, term=Load(buffer.name, place, stage.dtype)))
        first = replace(
            self.kernel,
            rows=((f"{axis}p", pieces), *self.kernel.rows),
            columns=((axis, self.piece), *inner),
            stages=tuple(replace(stage, result=stage.dtype) for stage in stages),
            outputs=early,
        )
        first = substitute(first, {axis: part})
        second = replace(
            self.kernel, columns=((f"{axis}p", pieces),), stages=tuple(combined), outputs=tuple(outputs)
        )
        return [collapse(replace(first, outputs=(*first.outputs, *partial))), collapse(second)]

    def _new(self, name: str, shape: tuple[int, ...], stage: Stage) -> Buffer:
        self.buffers[name] = Buffer(name, shape, stage.result)
        return self.buffers[name]

    def _is_kept(self, stage: Stage, last: bool) -> bool:
        """Whether a total is needed after its level."""
        terms = [other.term for other in self.kernel.stages] + [output.term for output in self.each]
        terms += [] if last else [output.term for output in self.once]
        return any(isinstance(node, Total) and node.name == stage.name for term in terms for node in walk(term))

    def _loaded(self, term: Term, but: Collection[str] = ()) -> Term:
        """The term with loads in place of totals that are in memory."""

        def load(node: Term) -> Term:
            if isinstance(node, Total) and node.name not in but:
                return Load(f"total.{node.name}", self.row, node.dtype)
            return node

        return map_terms(term, load)


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
