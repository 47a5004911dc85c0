"""Maps that turn their operands: squares, so that both sides of the movement see whole cache lines.

An element that is neighbour to another in the result may be far from it in an operand. Then a square of that operand
is loaded line by line along the axis that is contiguous there, turned in registers, and put on the stack, where the
lines of the result find it. Squares that reach over an edge are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from highlevel.ir import DType

from ...schedule.collapse import axes_of, coefficient
from ...schedule.kernel import Choose, Load, LoopKernel, Term
from ...schedule.split import style_of
from ..registers import constant, mangled
from ..scalar import memory_type
from .cost import lanes_for
from .nest import Axis, Nest
from .terms import BIT, I32, POINTER, Terms, i64

BAND = 4  # squares side by side that are done together: memory gives neighbouring lines faster


@dataclass(frozen=True, slots=True)
class Tiles:
    """Squares of `lanes` by `lanes` elements along two row axes.

    lane, axis: along which results are contiguous, and the loads that are turned
    memory: for each such load, lines on the stack: line i has the elements at `i` further along `axis`
    """

    lane: str
    axis: str
    lanes: int
    memory: tuple[tuple[Load, Any], ...]

    @classmethod
    def reserve(cls, builder: Any, kernel: LoopKernel, dtypes: Mapping[str, DType], target: Any) -> Tiles | None:
        """Takes memory where the function begins; None if nothing has to be turned."""
        if style_of(kernel) != "map" or kernel.columns or len(kernel.rows) < 2 or not _masks(kernel, dtypes, target):
            return None
        (lane, size), sizes = kernel.rows[-1], dict(kernel.rows)
        lanes = lanes_for(kernel, dtypes, target, None)
        found = {axis: loads for axis, loads in _turned_loads(kernel, lane).items() if sizes[axis] >= lanes}
        if not found or size < lanes:
            return None
        axis = max(found, key=lambda name: len(found[name]))
        memory = []
        for load in found[axis]:
            place = builder.alloca(ir.ArrayType(memory_type(load.dtype), lanes * lanes))
            place.align = 64
            place.type = POINTER  # llvmlite would have it typed
            memory.append((load, place))
        return cls(lane, axis, lanes, tuple(memory))

    def emit(self, nest: Nest, rows: Sequence[Axis], store: Callable[[], Any]) -> None:
        """The loops of the kernel, around what stores its outputs."""
        (_, _, size), (_, start, stop) = rows[-1], next(row for row in rows if row[0] == self.axis)
        last = i64(stop) if isinstance(stop, int) else stop
        builder, lanes = nest.builder, self.lanes

        def smaller(a: Any, b: Any) -> Any:
            return builder.select(builder.icmp_signed("<", a, b), a, b)

        def band(first: Any, _: list[Any]) -> list[Any]:
            end = smaller(builder.add(first, i64(BAND * lanes)), last)

            def square(i: Any, j: Any) -> list[Any]:
                count = smaller(builder.sub(last, i), i64(lanes))
                self._square(nest, (i, count, nest.mask(i, stop, lanes)), (j, size), store)
                return []

            def squares(j: Any, _: list[Any]) -> list[Any]:
                return nest.count(first, end, [], lambda i, _: square(i, j), lanes)

            return nest.count(0, size, [], squares, lanes)

        outer = [row for row in rows[:-1] if row[0] != self.axis]
        nest.over(outer, [], lambda _: nest.count(start, stop, [], band, BAND * lanes))

    def _square(
        self, nest: Nest, along: tuple[Any, Any, Any], across: tuple[Any, int], store: Callable[[], Any]
    ) -> None:
        """One square: at `i`, so many lines – a mask says which; at `j` of so many elements of the axis in lanes."""
        terms, builder = nest.terms, nest.builder
        (i, count, mask), (j, size) = along, across
        with terms.scope():
            terms.variables |= {self.axis: i, self.lane: j}
            for load, memory in self.memory:
                self._fill(terms, load, memory, builder.sub(i64(size), j), mask)
        here = nest.mask(j, size, self.lanes)

        def line(n: Any, _: list[Any]) -> list[Any]:
            with terms.scope():
                terms.variables |= {self.axis: builder.add(i, n), self.lane: j}
                terms.along(self.lane, self.lanes, here)
                for load, memory in self.memory:
                    value = terms.language(self.lanes).load(self._line(builder, load, memory, n), load.dtype)
                    terms.give(load, value)
                store()
            return []

        nest.count(0, count, [], line)

    def _fill(self, terms: Terms, load: Load, memory: Any, lane_count: Any, mask: Any) -> None:
        """Loads a square, turned."""
        builder, lanes = terms.builder, self.lanes
        kind = ir.VectorType(memory_type(load.dtype), lanes)
        step, first = coefficient(load.place, self.lane) or 0, terms.index(load.place)
        nothing, align = constant(ir.VectorType(BIT, lanes), 0), I32(load.dtype.size_bytes)
        lines = []
        for i in range(lanes):
            address = terms.address(load.buffer, builder.add(first, i64(i * step)))
            here = builder.select(builder.icmp_signed("<", i64(i), lane_count), mask, nothing)
            name = f"llvm.masked.load.{mangled(kind)}.p0"
            lines.append(terms.language(lanes).code.call(name, kind, address, align, here, constant(kind, 0)))
        for i, line in enumerate(_turned(builder, lines)):
            builder.store(line, self._line(builder, load, memory, i64(i)), align=load.dtype.size_bytes)

    def _line(self, builder: Any, load: Load, memory: Any, number: Any) -> Any:
        place = builder.mul(number, i64(self.lanes))
        return builder.gep(memory, [place], inbounds=True, source_etype=memory_type(load.dtype))


def _masks(kernel: LoopKernel, dtypes: Mapping[str, DType], target: Any) -> bool:
    """Whether parts of registers can be loaded and stored in one instruction: AVX2 can, of 32 bits and more."""
    wide = all(dtypes[name].size_bytes >= 4 for name in (*kernel.reads, *kernel.writes))
    return bool(target.masking or (wide and target.arch == "x86_64" and target.vector_bytes >= 32))


def _turned_loads(kernel: LoopKernel, lane: str) -> dict[str, list[Load]]:
    """By axis: loads that are contiguous along it, and not along the axis in lanes. None of them under a choice."""
    found: dict[str, dict[tuple[str, str], Load]] = {}
    seen: set[int] = set()

    def visit(term: Term) -> None:
        if id(term) in seen or isinstance(term, Choose):
            return
        seen.add(id(term))
        if isinstance(term, Load) and coefficient(term.place, lane) not in (None, 0, 1, -1):
            for name in axes_of(term.place) - {lane}:
                if coefficient(term.place, name) == 1:
                    found.setdefault(name, {})[term.buffer, str(term.place)] = term
        for operand in getattr(term, "operands", ()):
            visit(operand)

    for output in kernel.outputs:
        visit(output.term)
    return {name: list(loads.values()) for name, loads in sorted(found.items())}


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """A square of registers, transposed: blocks of 1, 2, 4, … elements change places."""
    lanes, block = len(lines), 1
    while block < lanes:
        low = [j if not j & block else lanes + j - block for j in range(lanes)]
        high = [j + block if not j & block else lanes + j for j in range(lanes)]
        orders = [ir.Constant(ir.VectorType(I32, lanes), order) for order in (low, high)]
        found = list(lines)
        for i in range(lanes):
            if not i & block:
                pair = lines[i], lines[i + block]
                found[i], found[i + block] = (builder.shuffle_vector(*pair, order) for order in orders)
        lines, block = found, 2 * block
    return lines
