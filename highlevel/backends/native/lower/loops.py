"""Loop kernels as tasks.

In: a `LoopKernel` and the element types of the buffers that it reads. Out: a `Task` with one phase or several. Units
know nothing of names: axes are r0, …, c0, … in their text, and buffers arguments, so that equal kernels of different
layers are one. The size of the outermost axis comes in as BEGIN and END.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llvmlite import ir

from highlevel.ir import DType

from ..cache import ENTRY, Unit
from ..codegen import indexing as ix
from ..codegen.loops import emit_kernel
from ..codegen.targets import Target
from ..schedule.collapse import collapse, substitute
from ..schedule.kernel import Apply, Load, LoopKernel, Output, Term, walk
from ..schedule.split import Split, early_outputs, levels_of, split, style_of
from .task import BEGIN, END, WORKSPACE, Argument, Call, Task

LINE_BYTES = 64
SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out


def loop_task(kernel: LoopKernel, dtypes: Mapping[str, DType], target: Target) -> Task:
    """The task of a kernel; `dtypes` has the element types of the buffers that it reads, by name."""
    types = {**dtypes, **{output.buffer.name: output.buffer.dtype for output in kernel.outputs}}
    phases: tuple[Call, ...] = ()
    parts, offsets, shared_bytes = Split((), {}), dict[str, int](), 0
    if _size(kernel.rows):
        parts = split(collapse(kernel))
        types |= {name: buffer.dtype for name, buffer in parts.buffers.items()}
        for name, buffer in parts.buffers.items():
            offsets[name] = shared_bytes
            size_bytes = math.prod(buffer.shape) * buffer.dtype.size_bytes
            shared_bytes += -(-size_bytes // LINE_BYTES) * LINE_BYTES
        phases = tuple(_call(part, types, offsets, target) for part in parts.kernels)
    return Task(
        kernel.name,
        kernel.reads,
        kernel.writes,
        phases,
        shared_bytes=shared_bytes,
        in_place=_in_place(parts.kernels, types) if phases else (),
        origins=kernel.origins,
        flops=_flops(kernel),
    )


def _size(axes: Sequence[tuple[str, int]]) -> int:
    return math.prod(size for _, size in axes)


def _call(kernel: LoopKernel, types: Mapping[str, DType], offsets: Mapping[str, int], target: Target) -> Call:
    used = dict.fromkeys((*kernel.reads, *kernel.writes))
    inside = {name: offsets[name] for name in used if name in offsets}
    arguments: list[str | Argument] = [BEGIN, END, *(name for name in used if name not in offsets)]
    if inside:
        arguments.append(WORKSPACE)
    module = ir.Module("")
    emit_kernel(module, _with_canonical_axes(kernel), ENTRY, types, target, inside)
    count = kernel.rows[0][1] if kernel.rows else 1
    serial = _size((*kernel.rows, *kernel.columns)) < SERIAL_ELEMENTS
    return Call(Unit(str(module), target), tuple(arguments), count, _grain(kernel, count), serial)


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
        elements = _size(kernel.rows) * (_size(kernel.columns) if output.per_element else 1)
        unit_bytes = elements * output.buffer.dtype.size_bytes // max(count, 1)
        grain = max(grain, -(-LINE_BYTES // max(unit_bytes, 1)))
    return grain if len(kernel.rows) > 1 or kernel.columns else max(grain, LINE_BYTES)


# In place ------------------------------------------------------------------------------------------------------------
def _in_place(kernels: Sequence[LoopKernel], types: Mapping[str, DType]) -> tuple[tuple[str, str], ...]:
    """Pairs (written, read) that may be the same memory.

    What was read in an earlier phase may be anywhere, nothing may be read in a later one, and in the phase itself
    every load must be at exactly the place of the element that is written.
    """
    pairs = []
    for i, kernel in enumerate(kernels):
        later = {name for other in kernels[i + 1 :] for name in other.reads}
        for output in kernel.outputs:
            written = output.buffer.name
            for read in kernel.reads:
                fits = read != written and types[read].size_bytes == output.buffer.dtype.size_bytes
                if fits and read not in later and _loads_in_place(kernel, output, read):
                    pairs.append((written, read))
    return tuple(pairs)


def _loads_in_place(kernel: LoopKernel, output: Output, read: str) -> bool:
    """Whether the kernel loads from a buffer only where it stores the output, and before it does so."""
    if style_of(kernel) == "map" and kernel.columns:
        return False  # outputs per row are stored before others are computed
    early = early_outputs(kernel)
    if output in early and style_of(kernel) != "across":
        _, *others = levels_of(kernel.stages)
        after = [stage.term for level in others for stage in level]
        after += [other.term for other in kernel.outputs if other not in early]
        if any(isinstance(node, Load) and node.buffer == read for term in after for node in walk(term)):
            return False  # read again after it is stored
    terms: list[Term] = [stage.term for stage in kernel.stages] + [other.term for other in kernel.outputs]
    loads = [node for term in terms for node in walk(term) if isinstance(node, Load) and node.buffer == read]
    return all(load.place == output.place for load in loads)


def _flops(kernel: LoopKernel) -> int:
    """Operators applied, once per element or per row."""
    rows = _size(kernel.rows)
    elements = rows * _size(kernel.columns)
    count = 0
    for stage in kernel.stages:
        count += elements * (1 + sum(isinstance(node, Apply) for node in walk(stage.term)))
    for output in kernel.outputs:
        each = elements if output.per_element else rows
        count += each * sum(isinstance(node, Apply) for node in walk(output.term))
    return count
