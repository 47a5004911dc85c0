"""Fourier transforms as tasks: threads share the lines.

The inverse transform is the forward one with real and imaginary parts exchanged, before and after.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

from highlevel.ir import Node

from ..cache import Unit
from ..codegen.fourier import Transform
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, TID, WORKSPACE, Argument, Call, Task

SERIAL_FLOPS = 50_000  # less than this is not worth sharing out
TABLE_GRAIN = 64  # entries of tables: whole cache lines


@lowers("fft")
def lower_fft(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """Lines by threads; where its tables are large, they are computed before."""
    *outer, size = reads[0].shape
    lines, inverse = math.prod(outer), node.attrs["inverse"]
    transform = Transform(size, reads[0].dtype, target, lines, 1.0 / size if inverse else 1.0)
    real, imaginary = (buffer.name for buffer in reads)
    goals = [buffer for buffer in writes if buffer is not None]
    assert len(goals) == len(writes), "both parts of a transform have a buffer"
    arguments: tuple[str | Argument, ...] = (real, imaginary, *(buffer.name for buffer in goals))
    if inverse:
        arguments = tuple(arguments[i] for i in (1, 0, 3, 2))
    flops = round(5 * lines * transform.length * math.log2(max(2, transform.length)) * (1 if transform.smooth else 2))
    return Task(
        name=node.name,
        reads=tuple(dict.fromkeys((real, imaginary))),
        writes=tuple(buffer.name for buffer in goals),
        phases=_phases(transform, arguments, flops) if lines else (),
        shared_bytes=transform.shared_bytes,
        thread_bytes=transform.thread_bytes,
        origins=(node.origin.layer,) if node.origin.layer else (),
        flops=flops,
    )


def _phases(transform: Transform, arguments: tuple[str | Argument, ...], flops: int) -> tuple[Call, ...]:
    serial = transform.lines <= transform.group or flops < SERIAL_FLOPS
    *tables, lines = _units(replace(transform, lines=min(transform.lines, transform.lanes)))
    phases = [Call(lines, (BEGIN, END, TID, WORKSPACE, *arguments), transform.lines, transform.group, serial)]
    if len(tables) > 1:
        phases.insert(0, Call(tables[1], (TID, WORKSPACE), serial=True))
    if tables:
        phases.insert(0, Call(tables[0], (BEGIN, END, WORKSPACE), transform.table_units, TABLE_GRAIN))
    return tuple(phases)


@functools.lru_cache(maxsize=64)
def _units(transform: Transform) -> tuple[Unit, ...]:
    """In the order of phases; equal ones are written once."""
    if transform.is_kept:
        return (transform.unit(),)
    filters = () if transform.smooth else (transform.filter_unit(),)
    return (transform.tables_unit(), *filters, transform.unit())
