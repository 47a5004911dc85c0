"""Results so large that they will have left the caches before they are read: written past them.

A store of a whole cache line past the caches saves reading it first. It needs addresses that are multiples of the
register's length, which is known of buffers only when the kernel runs, so that such kernels are there twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llvmlite import ir

from highlevel.ir import DType

from ...schedule.collapse import axes_of, coefficient
from ...schedule.kernel import LoopKernel, Output
from ...schedule.split import early_outputs, style_of
from .. import indexing as ix
from .terms import I64, i64

LEAST_BYTES = 16 << 20
LINE_BYTES = 64


def streamed_outputs(kernel: LoopKernel, target: Any) -> tuple[Output, ...]:
    """Outputs that are written past the caches where they begin at a cache line."""
    if target.arch != "x86_64":
        return ()
    candidates = kernel.outputs if style_of(kernel) == "map" else early_outputs(kernel)
    large = (o for o in candidates if math.prod(o.buffer.shape) * o.buffer.dtype.size_bytes >= LEAST_BYTES)
    return tuple(output for output in large if _is_regular(kernel, output))


def _is_regular(kernel: LoopKernel, output: Output) -> bool:
    """Whether neighbours along the axis in lanes are neighbours in memory, and others whole cache lines apart."""
    lane = _lane_axis(kernel)
    sizes = {name for name, size in (*kernel.rows, *kernel.columns)}
    steps = {name: coefficient(output.place, name) for name in axes_of(output.place)}
    if lane is None or steps.pop(lane, None) != 1 or not steps.keys() <= sizes:
        return False
    offset = int(ix.evaluate(output.place, dict.fromkeys(axes_of(output.place), 0)))
    size_bytes = output.buffer.dtype.size_bytes
    return all(step is not None and step * size_bytes % LINE_BYTES == 0 for step in (offset, *steps.values()))


def _lane_axis(kernel: LoopKernel) -> str | None:
    axes = {"map": (*kernel.rows, *kernel.columns), "along": kernel.columns}.get(style_of(kernel), kernel.rows)
    return axes[-1][0] if axes else None


def fits(
    builder: Any, kernel: LoopKernel, outputs: tuple[Output, ...], buffers: Mapping[str, Any], begin: Any,
    dtypes: Mapping[str, DType],
) -> Any:  # fmt: skip
    """Whether they begin at cache lines, and are not where something is read that is in the cache for that reason."""
    found: Any = ir.Constant(ir.IntType(1), 1)
    lane_is_outermost = kernel.rows and kernel.rows[0][0] == _lane_axis(kernel)
    for output in outputs:
        address = builder.ptrtoint(buffers[output.buffer.name], I64)
        start = builder.mul(begin, i64(output.buffer.dtype.size_bytes)) if lane_is_outermost else i64(0)
        below = builder.and_(builder.add(address, start), i64(LINE_BYTES - 1))
        found = builder.and_(found, builder.icmp_unsigned("==", below, i64(0)))
        for read in kernel.reads:
            if dtypes[read].size_bytes == output.buffer.dtype.size_bytes:
                apart = builder.icmp_unsigned("!=", buffers[read], buffers[output.buffer.name])
                found = builder.and_(found, apart)
    return found
