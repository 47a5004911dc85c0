"""Sorting, the largest elements and running sums as tasks.

Threads share lines. A few long lines are cut into parts – as many for any number of threads – that are brought together
in later phases.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from highlevel.ir import Node

from ..cache import Unit
from ..codegen import running
from ..codegen.lines import Lines
from ..codegen.running import Running
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, WORKSPACE, Call, Task

SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out
FEW_LINES = 8
LONG = 1 << 17  # elements that are worth cutting lines
PARTS = 16


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
