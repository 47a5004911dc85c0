"""The place of the largest or smallest element along an axis, as tasks.

Threads share lines; few long lines are cut into parts – as many for any number of threads – and in a second phase the
best parts are chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from highlevel.ir import DType, Node

from ..cache import Unit
from ..codegen.extreme import Search, merge_unit, partial_unit, search_unit
from ..codegen.lines import Lines
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, WORKSPACE, Call, Task

SERIAL_ELEMENTS = 8192  # fewer than this are not worth sharing out
FEW_UNITS = 8
LONG = 1 << 17  # elements that are worth cutting lines
PARTS = 16


@lowers("argmax", "argmin")
def lower_arg(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """One phase, or two where lines are cut."""
    (x,), (result,) = reads, writes
    origins = (node.origin.layer,) if node.origin.layer else ()
    lines = Lines.along(node.attrs["axis"], x.shape)
    if result is None or not lines.elements:
        return Task(node.name, (x.name,), tuple(w.name for w in writes if w), (), origins=origins)
    if lines.size == 1:  # no lines to speak of: what is long should be what vectors run along
        lines = Lines(1, 1, lines.elements)
    search = Search(x.dtype, lines.size, lines.inner, _parts(lines, x.dtype, target), node.name == "argmin")
    units = search.units(lines.outer, target)
    serial = lines.elements < SERIAL_ELEMENTS
    grain = max(1, min(16, units // 16))  # of int32 in a cache line; fewer where that leaves too little to share
    if search.parts == 1:
        call = Call(_search(search, result.dtype, target), (BEGIN, END, x.name, result.name), units, grain, serial)
        return Task(node.name, (x.name,), (result.name,), (call,), origins=origins)
    count = lines.outer * lines.inner
    partial, merge = _partial(search, result.dtype, lines.outer, target)
    calls = (
        Call(partial, (BEGIN, END, x.name, WORKSPACE), units),
        Call(merge, (BEGIN, END, WORKSPACE, result.name), count, serial=True),
    )
    shared = 2 * count * search.parts * search.keys.bits // 8
    return Task(node.name, (x.name,), (result.name,), calls, shared_bytes=shared, origins=origins)


def _parts(lines: Lines, dtype: DType, target: Target) -> int:
    """How many parts each line is cut into."""
    few = Search(dtype, lines.size, lines.inner, 1, False).units(lines.outer, target) < FEW_UNITS
    return PARTS if few and lines.elements >= LONG and lines.size >= 4 * PARTS else 1


@functools.lru_cache(maxsize=64)
def _search(search: Search, result: DType, target: Target) -> Unit:
    return search_unit(search, result, target)


@functools.lru_cache(maxsize=64)
def _partial(search: Search, result: DType, outer: int, target: Target) -> tuple[Unit, Unit]:
    return partial_unit(search, outer, target), merge_unit(search, outer, result, target)
