"""Loop kernels as tasks.

In: a `LoopKernel` and the element types of the buffers that it reads. Out: a `Task` whose unit knows nothing of names:
buffers are b0, b1, … and axes r0, …, c0, … in its text, so that equal kernels of different layers are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from highlevel.ir import DType
from llvmlite import ir

from ..cache import ENTRY, Unit
from ..codegen import indexing as ix
from ..codegen.loops import emit_kernel
from ..codegen.targets import Target
from ..schedule.collapse import collapse, substitute
from ..schedule.kernel import Apply, LoopKernel, walk
from .task import BEGIN, END, Call, Task

LINE_BYTES = 64
SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out


def loop_task(kernel: LoopKernel, dtypes: Mapping[str, DType], target: Target) -> Task:
    """The task of a kernel; `dtypes` has the element types of the buffers that it reads, by name."""
    reads, writes = kernel.reads, kernel.writes
    types = {**dtypes, **{output.buffer.name: output.buffer.dtype for output in kernel.outputs}}
    small = collapse(kernel)
    count = small.rows[0][1] if small.rows else 1
    elements = math.prod(size for _, size in (*small.rows, *small.columns))
    phases: tuple[Call, ...] = ()
    if math.prod(size for _, size in small.rows):
        names = tuple(dict.fromkeys((*small.reads, *small.writes)))
        module = ir.Module("")
        emit_kernel(module, _with_canonical_axes(small), ENTRY, types, target)
        unit = Unit(str(module), target)
        call = Call(unit, (BEGIN, END, *names), count, _grain(small, count), elements < SERIAL_ELEMENTS)
        phases = (call,)
    return Task(kernel.name, reads, writes, phases, origins=kernel.origins, flops=_flops(kernel))


def _with_canonical_axes(kernel: LoopKernel) -> LoopKernel:
    """The kernel with axes called by their position."""
    rows = tuple((f"r{i}", size) for i, (_, size) in enumerate(kernel.rows))
    columns = tuple((f"c{i}", size) for i, (_, size) in enumerate(kernel.columns))
    axes = zip((*kernel.rows, *kernel.columns), (*rows, *columns), strict=True)
    values = {old: ix.var(new, size) for (old, size), (new, _) in axes}
    return replace(substitute(kernel, values), rows=rows, columns=columns)


def _grain(kernel: LoopKernel, count: int) -> int:
    """How many units fill a cache line of every output, so that threads do not write into the same ones."""
    grain = 1
    for output in kernel.outputs:
        size_bytes = math.prod(output.buffer.shape) * output.buffer.dtype.size_bytes // max(count, 1)
        grain = max(grain, -(-LINE_BYTES // max(size_bytes, 1)))
    return grain


def _flops(kernel: LoopKernel) -> int:
    """Operators applied, once per element or per row."""
    rows = math.prod(size for _, size in kernel.rows)
    elements = rows * math.prod(size for _, size in kernel.columns)
    count = 0
    for stage in kernel.stages:
        count += elements * (1 + sum(isinstance(node, Apply) for node in walk(stage.term)))
    for output in kernel.outputs:
        each = elements if output.per_element else rows
        count += each * sum(isinstance(node, Apply) for node in walk(output.term))
    return count
