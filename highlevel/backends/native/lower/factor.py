"""Factorisations as tasks: threads share the matrices of a batch, each is factored by one of them.

What factors a matrix is a helper that knows no sizes, so programs share it; the function that is called has the sizes
and strides, and goes through its share of the batch. Matrices that have no factor of Cholesky's are reported by the
operator's definition, which is called back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from llvmlite import ir

from highlevel.ir import DType, Node

from ..cache import Unit
from ..codegen.contraction.values import I32, I64, POINTER, VOID, Builder, Value, computed_in, counted
from ..codegen.factor import CORES
from ..codegen.kernel import call, element, forward, kernel
from ..codegen.scalar import LlvmScalars
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .callback import Callback
from .registry import lowers
from .task import BEGIN, END, FUNCTION, TID, WORKSPACE, Argument, Call, Task

LINE_BYTES = 64
SERIAL_FLOPS = 50_000  # less than this is not worth sharing out
PAGE_BYTES = 1024  # rows a multiple of this apart fall into the same few lines of a cache


@dataclass(frozen=True, slots=True)
class Strided:
    """The matrices of a buffer – None if nobody takes them: steps of rows and columns, where the first element is."""

    buffer: Buffer | None
    row: int
    column: int
    first: int = 0

    @property
    def transposed(self) -> Strided:
        return Strided(self.buffer, self.column, self.row, self.first)

    def reversed(self, rows: int, columns: int) -> Strided:
        """Seen from the other end, along axes of these sizes; an axis of size 0 stays as it is."""
        row, column = (-step if size else step for step, size in ((self.row, rows), (self.column, columns)))
        first = self.first + self.row * max(rows - 1, 0) + self.column * max(columns - 1, 0)
        return Strided(self.buffer, row, column, first)


@dataclass(frozen=True, slots=True)
class Private:
    """Memory of a thread: that many elements of a size."""

    count: int
    size_bytes: int

    @property
    def bytes(self) -> int:
        return -(-self.count * self.size_bytes // LINE_BYTES) * LINE_BYTES


Memory: TypeAlias = "Private | Buffer"  # a buffer: one row for each matrix


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of workspaces: in elements of the type that is computed in."""

    dtype: DType
    target: Target

    @property
    def element_bytes(self) -> int:
        return computed_in(self.dtype).size_bytes

    def padded(self, count: int) -> int:
        """Whole vectors; one more where rows would meet in a cache."""
        lanes = self.target.lanes(8 * self.element_bytes)
        step = -(-count // lanes) * lanes
        return step + lanes * (step * self.element_bytes % PAGE_BYTES == 0)

    def reals(self, count: int) -> Private:
        return Private(max(count, 1), self.element_bytes)

    def integers(self, count: int) -> Private:
        return Private(max(count, 1), 4)


def dense(buffer: Buffer | None, columns: int) -> Strided:
    return Strided(buffer, columns, 1)


def _task(
    node: Node,
    target: Target,
    arrays: Sequence[Strided],
    memory: Sequence[Memory],
    numbers: Sequence[int],
    flops: int,
) -> Task:
    """The task: `arrays`, `memory` and `numbers` are what the core is given, `flops` what one matrix takes."""
    shape = node.inputs[0].spec.shape
    batch = math.prod(shape[:-2])
    core = _core(node.name, node.inputs[0].spec.dtype, target)
    buffers = [array.buffer for array in arrays] + [part for part in memory if isinstance(part, Buffer)]
    distinct = {buffer.name: buffer for buffer in buffers if buffer is not None}
    private = sum(part.bytes for part in memory if isinstance(part, Private))
    phases: tuple[Call, ...] = ()
    if batch:
        unit = _batch_unit(target, core, list(distinct.values()), batch, arrays, memory, numbers)
        arguments: tuple[str | Argument, ...] = (BEGIN, END, TID, WORKSPACE, *distinct)
        phases = (Call(unit, arguments, batch, serial=batch == 1 or batch * flops < SERIAL_FLOPS),)
    read = {array.buffer.name for array in arrays[: len(node.inputs)] if array.buffer is not None}
    return Task(
        name=node.name,
        reads=tuple(name for name in distinct if name in read),
        writes=tuple(name for name in distinct if name not in read),
        phases=phases,
        helpers=(core,) if batch else (),
        thread_bytes=private,
        origins=(node.origin.layer,) if node.origin.layer else (),
        flops=batch * flops,
    )


@functools.lru_cache(maxsize=64)
def _core(name: str, dtype: DType, target: Target) -> Unit:
    return CORES[name].unit(dtype, target)


def _batch_unit(
    target: Target,
    core: Unit,
    buffers: Sequence[Buffer],
    batch: int,
    arrays: Sequence[Strided],
    memory: Sequence[Memory],
    numbers: Sequence[int],
) -> Unit:
    """A function that calls the core for matrices begin … end − 1 of a batch."""
    private_bytes = sum(part.bytes for part in memory if isinstance(part, Private))

    def write(builder: Builder, begin: Value, end: Value, tid: Value, workspace: Value, *pointers: Value) -> None:
        base = forward(builder, workspace, builder.mul(builder.sext(tid, I64), I64(private_bytes)))
        place = {buffer.name: pointer for buffer, pointer in zip(buffers, pointers, strict=True)}

        def matrix(i: Value, buffer: Buffer, first: int = 0) -> Value:
            elements = math.prod(buffer.shape) // batch
            offset = builder.add(builder.mul(i, I64(elements)), I64(first))
            return forward(builder, place[buffer.name], offset, buffer.dtype.size_bytes)

        def one(i: Value, _: list[Value]) -> None:
            values: list[Value] = []
            for array in arrays:
                nowhere = ir.Constant(POINTER, None)
                pointer = nowhere if array.buffer is None else matrix(i, array.buffer, array.first)
                values += [pointer, I64(array.row), I64(array.column)]
            offset = 0
            for part in memory:
                if isinstance(part, Buffer):
                    values.append(matrix(i, part))
                else:
                    values.append(forward(builder, base, offset))
                    offset += part.bytes
            values += [I64(number) for number in numbers]
            kind = ir.FunctionType(VOID, [value.type for value in values])
            function = builder.module.globals.get(core.symbol) or ir.Function(builder.module, kind, core.symbol)
            builder.call(function, values)

        counted(builder, begin, end, one, name="matrix")

    kinds = [I64, I64, I32, POINTER, *[POINTER] * len(buffers)]
    return kernel(target, kinds, write, plain=True)


@lowers("cholesky")
def lower_cholesky(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, n = Sizes(reads[0].dtype, target), reads[0].shape[-1]
    step = sizes.padded(n)
    arrays = [dense(buffer, n) for buffer in (*reads, *writes)]
    task = _task(node, target, arrays, [sizes.reals(n * step)], [n, step], n**3 // 3)
    (result,) = writes
    if result is None or not task.phases:
        return task
    check = Call(_check_unit(result, target), (FUNCTION, reads[0].name, result.name), serial=True)
    return replace(task, phases=(*task.phases, check), callback=Callback(node, tuple(reads), (result,)))


def _check_unit(result: Buffer, target: Target) -> Unit:
    """`kernel(function, a, result)`: where a result is NaN, the operator's own definition says what is wrong."""
    size = math.prod(result.shape[-2:])

    def write(builder: Builder, function: Value, a: Value, goal: Value) -> None:
        addresses = builder.alloca(POINTER, size=I64(2))
        for i, pointer in enumerate((a, goal)):
            builder.store(pointer, builder.gep(addresses, [I64(i)], source_etype=POINTER))

        def one(i: Value, _: list[Value]) -> None:
            scalars, place = LlvmScalars(builder, target), builder.mul(i, I64(size))
            first = scalars.load(element(builder, goal, place, result.dtype), result.dtype)
            with builder.if_then(builder.fcmp_unordered("uno", first.value, first.value)):
                call(builder, function, [addresses])
                builder.ret_void()

        counted(builder, 0, math.prod(result.shape[:-2]), one, name="matrix")

    return kernel(target, [POINTER] * 3, write)


@lowers("triangular_solve")
def lower_triangular(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, (n, columns) = Sizes(reads[0].dtype, target), reads[1].shape[-2:]
    step, x_step = sizes.padded(n), sizes.padded(columns)
    a, b, x = dense(reads[0], n), dense(reads[1], columns), dense(writes[0], columns)
    if node.attrs["transpose"]:
        a = a.transposed
    if node.attrs["lower"] == node.attrs["transpose"]:  # upper: the same from the other end
        a, b, x = a.reversed(n, n), b.reversed(n, 0), x.reversed(n, 0)
    numbers = [n, columns, step, x_step, int(node.attrs["unit_diagonal"])]
    memory = [sizes.reals(n * step), sizes.reals(n * x_step)]
    return _task(node, target, [a, b, x], memory, numbers, n * n * columns)


@lowers("lu")
def lower_lu(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, (rows, columns) = Sizes(reads[0].dtype, target), reads[0].shape[-2:]
    step = sizes.padded(columns)
    arrays = [dense(reads[0], columns), dense(writes[0], columns)]
    order: Memory = writes[1] or sizes.integers(rows)
    memory = [sizes.reals(rows * step), order]
    return _task(node, target, arrays, memory, [rows, columns, step], rows * columns * min(rows, columns))


@lowers("qr")
def lower_qr(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, (rows, columns) = Sizes(reads[0].dtype, target), reads[0].shape[-2:]
    step, rank = sizes.padded(rows), min(rows, columns)
    arrays = [dense(reads[0], columns), dense(writes[0], rank), dense(writes[1], columns)]
    memory = [sizes.reals(columns * step), sizes.reals(rank * step), sizes.reals(rank)]
    return _task(node, target, arrays, memory, [rows, columns, step], 4 * rows * columns * rank)


@lowers("eigh")
def lower_eigh(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, n = Sizes(reads[0].dtype, target), reads[0].shape[-1]
    step = sizes.padded(n)
    arrays = [dense(reads[0], n), dense(writes[0], n), dense(writes[1], n)]
    memory = [sizes.reals(n * step)] * 2 + [sizes.reals(step)] * 3 + [sizes.integers(n)]
    return _task(node, target, arrays, memory, [n, step], 9 * n**3)


@lowers("svd")
def lower_svd(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    sizes, (rows, columns) = Sizes(reads[0].dtype, target), reads[0].shape[-2:]
    rank = min(rows, columns)
    a, u, vh = dense(reads[0], columns), dense(writes[0], rank), dense(writes[2], columns)
    if rows < columns:  # the factors of the transposed matrix
        rows, a, u, vh = columns, a.transposed, vh.transposed, u.transposed
    step, small = sizes.padded(rows), sizes.padded(rank)
    memory = [sizes.reals(rank * step)] * 2 + [sizes.reals(rank * small)] * 3 + [sizes.reals(small)] * 4
    memory += [sizes.integers(rank)] * 2
    arrays = [a, u, dense(writes[1], rank), vh]
    return _task(node, target, arrays, memory, [rows, rank, step, small], 60 * rank**3 + 4 * rows * rank**2)
