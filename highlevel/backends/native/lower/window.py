"""Reductions over sliding windows as tasks: rows of windows – or bands of elements – shared by the threads."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from highlevel.ir import DType, Node

from ..cache import Unit
from ..codegen.targets import Target
from ..codegen.window import Axis, Windows, forward_unit
from ..codegen.window_disjoint import disjoint_unit, is_disjoint, winner_bytes
from ..codegen.window_grad import Bands, overlapping_unit
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, TID, WORKSPACE, Argument, Call, Task

STREAMED_BYTES = 16 << 20  # results as large as this have left the caches before anybody reads them
SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out
LINE_BYTES = 64


@lowers("window_sum", "window_max", "window_max_take")
def lower_window(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """One element per window: their sums, their maxima, or what `t` holds where `x` is largest."""
    (result,) = writes
    assert result is not None
    windows = windows_of(node)
    unit = _forward(node.name.split("_")[-1], windows, tuple(buffer.dtype for buffer in reads), target)
    rows = result.shape[0] * windows.axes[0].windows
    return _task(node, reads, result, windows, unit, rows, (BEGIN, END, *_names(reads), result.name))


@lowers("window_max_grad")
def lower_window_max_grad(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """Cotangents of windows where `x` is largest; in one kernel, whether or not windows overlap."""
    (result,) = writes
    assert result is not None
    windows, (x, _) = windows_of(node), reads
    names = (*_names(reads), result.name)
    streamed = math.prod(result.shape) * result.dtype.size_bytes >= STREAMED_BYTES
    arguments: tuple[str | Argument, ...] = (BEGIN, END, *names, TID, WORKSPACE)
    if is_disjoint(windows):
        unit = _disjoint(windows, x.dtype, result.dtype, target, streamed)
        rows = result.shape[0] * windows.axes[0].windows
        return _task(node, reads, result, windows, unit, rows, arguments, winner_bytes(windows))
    if not math.prod(result.shape):
        return Task(node.name, _names(reads), (result.name,), (), origins=_origins(node))
    unit, bands = _overlapping(windows, x.dtype, result.dtype, target, streamed), Bands.of(windows)
    units = result.shape[0] * bands.count
    return _task(node, reads, result, windows, unit, units, arguments, bands.workspace_bytes)


def windows_of(node: Node) -> Windows:
    """The geometry that a node's attributes and operand have."""
    shape, attrs = node.inputs[0].spec.shape, node.attrs
    spatial = []
    for size, window, stride, dilation, (low, high) in zip(
        shape[1:-1], attrs["window"], attrs["strides"], attrs["dilation"], attrs["padding"], strict=True
    ):
        count = (size + low + high - (window - 1) * dilation - 1) // stride + 1
        # The steps between windows, and those inside, do not matter where there is only one.
        spatial.append(Axis(size, count, window, stride if count > 1 else 1, dilation if window > 1 else 1, low))
    return Windows.of(spatial, shape[-1])


def _task(
    node: Node,
    reads: Sequence[Buffer],
    result: Buffer,
    windows: Windows,
    unit: Unit,
    units: int,
    arguments: tuple[str | Argument, ...],
    thread_bytes: int = 0,
) -> Task:
    images = result.shape[0]
    work = images * windows.channels * math.prod(axis.windows * axis.window for axis in windows.axes)
    phases: tuple[Call, ...] = ()
    if math.prod(result.shape):
        row_bytes = math.prod(result.shape) * result.dtype.size_bytes // units
        grain = max(1, LINE_BYTES // max(1, row_bytes))
        phases = (Call(unit, arguments, units, grain, work < SERIAL_ELEMENTS),)
    return Task(
        node.name, _names(reads), (result.name,), phases, thread_bytes=thread_bytes, origins=_origins(node), flops=work
    )


def _names(buffers: Sequence[Buffer]) -> tuple[str, ...]:
    return tuple(buffer.name for buffer in buffers)


def _origins(node: Node) -> tuple[str, ...]:
    return (node.origin.layer,) if node.origin.layer else ()


# Equal kernels are written once.
@functools.lru_cache(maxsize=64)
def _forward(kind: str, windows: Windows, dtypes: tuple[DType, ...], target: Target) -> Unit:
    return forward_unit(kind, windows, dtypes, target)


@functools.lru_cache(maxsize=64)
def _disjoint(windows: Windows, dtype: DType, result: DType, target: Target, streamed: bool) -> Unit:
    return disjoint_unit(windows, dtype, result, target, streamed=streamed)


@functools.lru_cache(maxsize=64)
def _overlapping(windows: Windows, dtype: DType, result: DType, target: Target, streamed: bool) -> Unit:
    return overlapping_unit(windows, dtype, result, target, streamed=streamed)
