"""Gather and scatter as tasks.

An index outside of its axis is an error with the operator's own message: the kernel calls back to its definition, which
raises it. Nothing else ever calls it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from highlevel.ir import Node

from ..cache import Unit
from ..codegen.indexed import CHUNK_BYTES, Rows, Scatter, gather_unit, scatter_unit
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .callback import Callback
from .registry import lowers
from .task import BEGIN, END, FUNCTION, WORKSPACE, Call, Task

SERIAL_BYTES = 16 << 10  # fewer than this are not worth sharing out
LINE_BYTES = 64


@lowers("gather")
def lower_gather(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """Rows copied; threads share those of the result."""
    x, indices = reads
    rows, count = _rows(x, indices)
    result = _result(writes)
    names = (x.name, indices.name, result.name)
    unit = _gather(rows, target)
    units = count * rows.chunks
    grain = max(1, LINE_BYTES // max(1, min(rows.row_bytes, CHUNK_BYTES)))
    call = Call(unit, (BEGIN, END, FUNCTION, *names), units, grain, count * rows.row_bytes < SERIAL_BYTES)
    return _task(node, reads, result, (call,) if count else ())


@lowers("scatter_set", "scatter_add", "scatter_max", "scatter_min")
def lower_scatter(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """Updates brought into a copy of the operand, or into the operand itself; threads share its rows or columns."""
    x, indices, updates = reads
    rows, count = _rows(x, indices)
    result = _result(writes)
    scatter = Scatter(rows, count, node.name.removeprefix("scatter_"))
    size = math.prod(x.shape)
    arguments = (BEGIN, END, FUNCTION, x.name, indices.name, updates.name, result.name, WORKSPACE)
    unit_bytes = rows.dtype.size_bytes if scatter.by_columns else max(1, rows.row_bytes)
    serial = (size + count * rows.inner) * rows.dtype.size_bytes < SERIAL_BYTES
    call = Call(_scatter(scatter, target), arguments, scatter.units, max(1, LINE_BYTES // unit_bytes), serial)
    alone = x.name not in (indices.name, updates.name)
    return _task(
        node,
        reads,
        result,
        (call,) if count or size else (),
        shared_bytes=scatter.workspace_bytes,
        in_place=((result.name, x.name),) if alone else (),
        flops=0 if scatter.kind == "set" else count * rows.inner,
    )


def _rows(x: Buffer, indices: Buffer) -> tuple[Rows, int]:
    """The operand as rows, and how many of them the indices name."""
    *outer, k = indices.shape
    return Rows(x.shape[:k], math.prod(x.shape[k:]), x.dtype, indices.dtype), math.prod(outer)


def _result(writes: Sequence[Buffer | None]) -> Buffer:
    (result,) = writes
    assert result is not None
    return result


def _task(
    node: Node,
    reads: Sequence[Buffer],
    result: Buffer,
    phases: tuple[Call, ...],
    *,
    shared_bytes: int = 0,
    in_place: tuple[tuple[str, str], ...] = (),
    flops: int = 0,
) -> Task:
    return Task(
        node.name,
        tuple(buffer.name for buffer in reads),
        (result.name,),
        phases,
        shared_bytes=shared_bytes,
        in_place=in_place,
        callback=Callback(node, tuple(reads), (result,)) if phases else None,
        origins=(node.origin.layer,) if node.origin.layer else (),
        flops=flops,
    )


# Equal kernels are written once.
@functools.lru_cache(maxsize=64)
def _gather(rows: Rows, target: Target) -> Unit:
    return gather_unit(rows, target)


@functools.lru_cache(maxsize=64)
def _scatter(scatter: Scatter, target: Target) -> Unit:
    return scatter_unit(scatter, target)
