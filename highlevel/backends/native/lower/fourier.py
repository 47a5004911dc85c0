"""Fourier transforms as tasks: threads share the lines.

The inverse transform is the forward one with real and imaginary parts exchanged, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from highlevel.ir import Node

from ..codegen.fourier import Transform
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, TID, WORKSPACE, Argument, Call, Task

SERIAL_FLOPS = 50_000  # less than this is not worth sharing out


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
    phases = []
    if lines and transform.table_units:
        phases.append(Call(transform.tables_unit(), (BEGIN, END, WORKSPACE), transform.table_units, 64))
        if not transform.smooth:
            phases.append(Call(transform.filter_unit(), (TID, WORKSPACE), serial=True))
    if lines:
        call = (BEGIN, END, TID, WORKSPACE, *arguments)
        serial = lines <= transform.group or flops < SERIAL_FLOPS
        phases.append(Call(transform.unit(), call, lines, transform.group, serial))
    return Task(
        name=node.name,
        reads=tuple(dict.fromkeys((real, imaginary))),
        writes=tuple(buffer.name for buffer in goals),
        phases=tuple(phases),
        shared_bytes=transform.shared_bytes,
        thread_bytes=transform.thread_bytes,
        origins=(node.origin.layer,) if node.origin.layer else (),
        flops=flops,
    )
