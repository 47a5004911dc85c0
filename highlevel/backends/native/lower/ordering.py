"""Sorting, the largest elements and running sums as tasks.

Threads share lines. A few long lines are cut into parts – as many for any number of threads – that are brought together
in later phases.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from highlevel.ir import Node

from ..cache import Unit
from ..codegen import running, sorting
from ..codegen.lines import Lines
from ..codegen.running import Running
from ..codegen.sorting import Sorting
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, TID, WORKSPACE, Argument, Call, Task

SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out
FEW_LINES = 8
LONG = 1 << 17  # elements that are worth cutting lines
PARTS = 16
LONG_LINE = 1 << 14  # elements: a line that is worth cutting to sort it
MOST_CHOSEN = 64  # elements that are kept in order while a line is searched


def _origins(node: Node) -> tuple[str, ...]:
    return (node.origin.layer,) if node.origin.layer else ()


def _nothing(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> Task:
    """For results without elements."""
    return Task(node.name, tuple(b.name for b in reads), tuple(b.name for b in writes if b), (), origins=_origins(node))


# Running sums --------------------------------------------------------------------------------------------------------
@lowers("cumsum")
def lower_cumsum(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """One phase, or three where lines are cut: totals of parts, what comes before each part, sums."""
    (x,), (result,) = reads, writes
    lines = Lines.along(node.attrs["axis"], x.shape)
    if result is None or not lines.elements:
        return _nothing(node, reads, writes)
    few = lines.inner == 1 and lines.outer < FEW_LINES and lines.elements >= LONG
    parts = PARTS if few else 1
    job = Running(x.dtype, lines.size, lines.inner, parts, node.attrs["reverse"], node.attrs["exclusive"])
    units = job.units(lines.outer, target)
    if parts == 1:
        serial = lines.elements < SERIAL_ELEMENTS
        calls: tuple[Call, ...] = (Call(_lines(job, target), (BEGIN, END, x.name, result.name), units, serial=serial),)
        return Task(node.name, (x.name,), (result.name,), calls, origins=_origins(node))
    totals, before, sums = _parts(job, target)
    calls = (
        Call(totals, (BEGIN, END, x.name, WORKSPACE), units),
        Call(before, (BEGIN, END, WORKSPACE), lines.outer, serial=True),
        Call(sums, (BEGIN, END, x.name, WORKSPACE, result.name), units),
    )
    shared = units * job.total_bytes
    return Task(node.name, (x.name,), (result.name,), calls, shared_bytes=shared, origins=_origins(node))


@functools.lru_cache(maxsize=64)
def _lines(job: Running, target: Target) -> Unit:
    return running.lines_unit(job, target)


@functools.lru_cache(maxsize=64)
def _parts(job: Running, target: Target) -> tuple[Unit, Unit, Unit]:
    return running.totals_unit(job, target), running.before_unit(job, target), running.parts_unit(job, target)


# Sorting -------------------------------------------------------------------------------------------------------------
@lowers("sort", "argsort")
def lower_sort(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """The elements of lines in order, or their positions."""
    (x,), (result,) = reads, writes
    lines, falling = Lines.along(node.attrs["axis"], x.shape), node.attrs["descending"]
    if result is None or not lines.elements:
        return _nothing(node, reads, writes)
    values = node.name == "sort"
    job = Sorting(x.dtype, lines.size, lines.inner, falling, lines.size, values=values, positions=not values)
    return _sorted(node, job, lines.outer * lines.inner, x, [result], target)


@lowers("top_k")
def lower_top_k(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """The first few elements of lines in falling order, and their positions: chosen, or all are sorted."""
    (x,), (values, positions) = reads, writes
    k, size = node.attrs["k"], x.shape[-1]
    count = math.prod(x.shape[:-1])
    results = [buffer for buffer in writes if buffer is not None]
    if not results or not count:
        return _nothing(node, reads, writes)
    job = Sorting(x.dtype, size, 1, True, k, values=values is not None, positions=positions is not None)
    if k > MOST_CHOSEN or size < 4 * k or size <= job.run:
        return _sorted(node, job, count, x, results, target)
    names = tuple(buffer.name for buffer in results)
    call = Call(_first(job, target), (BEGIN, END, x.name, *names), count, serial=count * size < SERIAL_ELEMENTS)
    return Task(node.name, (x.name,), names, (call,), origins=_origins(node))


def _sorted(node: Node, job: Sorting, count: int, x: Buffer, results: Sequence[Buffer], target: Target) -> Task:
    """One phase; where lines are cut, parts, merges – as many levels as it takes – and results."""
    names = tuple(buffer.name for buffer in results)
    if count >= FEW_LINES or job.size < LONG_LINE:
        arguments: tuple[str | Argument, ...] = (BEGIN, END, x.name, *names, WORKSPACE, TID)
        serial = count * job.size < SERIAL_ELEMENTS // 4
        call = Call(_sort_lines(job, target), arguments, count, serial=serial)
        size_bytes = job.workspace_bytes()
        return Task(node.name, (x.name,), names, (call,), thread_bytes=size_bytes, origins=_origins(node))
    parts, merges, unpack = _sort_parts(job, target)
    segments = count * sorting.SEGMENTS
    calls = (
        Call(parts, (BEGIN, END, x.name, WORKSPACE), count * sorting.PARTS),
        *(Call(merge, (BEGIN, END, WORKSPACE), segments) for merge in merges),
        Call(unpack, (BEGIN, END, x.name, *names, WORKSPACE), segments),
    )
    size_bytes = count * job.workspace_bytes(sorting.PARTS)
    return Task(node.name, (x.name,), names, calls, shared_bytes=size_bytes, origins=_origins(node))


@functools.lru_cache(maxsize=64)
def _sort_lines(job: Sorting, target: Target) -> Unit:
    return sorting.lines_unit(job, target)


@functools.lru_cache(maxsize=64)
def _sort_parts(job: Sorting, target: Target) -> tuple[Unit, list[Unit], Unit]:
    levels = (sorting.PARTS - 1).bit_length()
    merges = [sorting.merge_unit(job, level, target) for level in range(levels)]
    return sorting.parts_unit(job, target), merges, sorting.results_unit(job, target)


@functools.lru_cache(maxsize=64)
def _first(job: Sorting, target: Target) -> Unit:
    return sorting.first_unit(job, target)
