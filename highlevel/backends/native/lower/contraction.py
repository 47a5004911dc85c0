"""Contractions as tasks: matrix products, convolutions and their gradients.

In: a `Contraction` – a node, views of its operands, where its result goes. Out: a `Task`, one call for each phase of
the plan; micro-kernels and copies are helpers, named by their own hash, so that programs share them.

    matmul             C = A B, or Cᵀ = Bᵀ Aᵀ where that makes the columns of what is written consecutive
    conv, …            operands and result lie without gaps, wherever they begin

Batch axes that continue each other are one; a batch that shares its B is more rows of A.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from highlevel.errors import BackendError
from highlevel.ir import DType, Node

from ..cache import ENTRY, Unit
from ..codegen import indexing as ix
from ..codegen.contraction import (
    Conv,
    ConvPlan,
    Epilogue,
    Gemm,
    GemmPlan,
    Helper,
    Helpers,
    KernelGradPlan,
    Matrix,
    emit_conv_pack,
    emit_conv_phase,
    emit_gemm_phase,
    emit_kernel_grad_phase,
    helper_module,
    helpers_of,
    packed_bytes,
    part_of_plan,
    plan_conv,
    plan_conv_input_grad,
    plan_conv_kernel_grad,
    plan_gemm,
)
from ..codegen.contraction.finish import Finish
from ..codegen.targets import Target
from ..schedule.contraction import Contraction, View
from ..schedule.kernel import Buffer, Load, Term, format_term
from .described import Described, sources_of
from .epilogue import BATCH, COLUMN, ROW, in_numbers_of_product, is_supported, parts, term_epilogue
from .registry import lowers
from .task import THREADS, TID, WORKSPACE, Call, Task

Plan = GemmPlan | ConvPlan | KernelGradPlan


@lowers("matmul", "conv", "conv_input_grad", "conv_kernel_grad")
def lower_contraction(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """A node by itself: whole buffers, nothing done to the result."""
    (result,) = writes
    if result is None:
        raise BackendError(f"nobody takes the result of {node.name!r}", layer=node.origin.layer)
    a, b = map(View.whole, reads)
    origins = (node.origin.layer,) if node.origin.layer else ()
    return contraction_task(Contraction(node, (a, b), View.whole(result), origins=origins), target)


def contraction_task(c: Contraction, target: Target, packed: str | None = None) -> Task:
    """The task that computes a contraction.

    packed: the buffer in which `pack_task` has left the operand `packed_operand(c)`, which is not read then
    """
    arranged = _arrange(c)
    work = arranged.work if packed is None else dataclasses.replace(arranged.work, packed=True)
    plan = plan_work(work, c.node.name, target)
    first, second = (view.buffer.name for view in arranged.operands)
    second = packed or second
    epilogue: Epilogue | None = None
    more: tuple[str, ...] = ()
    if arranged.term is not None:
        if not arranged.supported:
            raise BackendError(
                f"{c.node.name}: no code for this epilogue",
                got=format_term(arranged.term),
                expected="a term for which supports_epilogue(…) holds",
            )
        epilogue, more = term_epilogue(arranged.term, arranged.work.dtype, plan.lanes, target)
    used: dict[str, Unit] = {}
    phases = []
    for phase in plan.phases:
        last = phase != "pack"
        unit, helpers = _phase(part_of_plan(plan, phase), phase, epilogue if last else None, target)
        used.update((helper.symbol, helper) for helper in helpers)
        names = first, second, c.result.buffer.name
        operands = more if last else ()
        phases.append(Call(unit, (*names, WORKSPACE, TID, THREADS, *operands), serial=plan.units <= 1))
    size_bytes = plan.packed.dtype.size_bytes
    return Task(
        name=c.node.name,
        reads=tuple(dict.fromkeys((first, second, *more))),
        writes=(c.result.buffer.name,),
        phases=tuple(phases),
        helpers=tuple(used.values()),
        shared_bytes=plan.shared_elements * size_bytes,
        thread_bytes=plan.private_elements * size_bytes,
        in_place=_in_place(c, arranged, plan),
        origins=c.origins,
        flops=arranged.work.flops,
    )


# Operands packed once ------------------------------------------------------------------------------------------------
def packed_operand(c: Contraction) -> int | None:
    """Which operand can be packed once for many runs, because it is a product's B or a convolution's kernel."""
    if c.node.name == "conv_kernel_grad":
        return None
    return 0 if c.node.name == "matmul" and _is_swapped(c) else 1


def packed_size_bytes(c: Contraction, target: Target) -> int:
    """The size of the buffer for it. What is in there depends on the whole contraction, also on the batch size."""
    return packed_bytes(_plan_for_packing(c, target))


def pack_task(c: Contraction, target: Target, packed: str) -> Task:
    """The task that packs the operand `packed_operand(c)` into a buffer of `packed_size_bytes` bytes."""
    arranged, plan = _arrange(c), _plan_for_packing(c, target)
    unit, helpers = _pack(part_of_plan(plan, "pack"), target)
    source = arranged.operands[1].buffer.name
    call = Call(unit, (source, packed, TID, THREADS))
    return Task(f"{c.node.name}_pack", (source,), (packed,), (call,), helpers, origins=c.origins)


def _plan_for_packing(c: Contraction, target: Target) -> GemmPlan | ConvPlan:
    plan = plan_work(_arrange(c).work, c.node.name, target)
    if c.node.name == "conv_kernel_grad" or isinstance(plan, KernelGradPlan):
        raise BackendError("conv_kernel_grad: nothing to pack once: both operands change")
    return plan


# Epilogues -----------------------------------------------------------------------------------------------------------
def supports_epilogue(c: Contraction) -> bool:
    """Whether `contraction_task` can make code of a contraction with its epilogue."""
    return c.epilogue is None or _arrange(c).supported


def _in_place(c: Contraction, arranged: _Arranged, plan: Plan) -> tuple[tuple[str, str], ...]:
    """What the epilogue reads where the result is written, and nowhere else, may be the same memory.

    Not where the result holds partial sums before.
    """
    if arranged.term is None or isinstance(plan, KernelGradPlan):
        return ()
    if not (plan.scratch or plan.phases[-1] == "combine"):
        return ()
    loads: dict[str, list[Load]] = {}
    for node in parts(arranged.term):
        if isinstance(node, Load):
            loads.setdefault(node.buffer, []).append(node)
    for view in c.operands:
        loads.pop(view.buffer.name, None)
    size_bytes = c.result.dtype.size_bytes
    return tuple(
        (c.result.buffer.name, name)
        for name, found in loads.items()
        if all(load.place == arranged.goal and load.dtype.size_bytes == size_bytes for load in found)
    )


# From nodes to work --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, slots=True)
class _Arranged:
    """What is to be computed.

    operands: in the order in which the generated functions take them
    term:     the epilogue over batch, row and column of the product
    goal:     where an element of the result is, over the same
    supported: whether there is code for it
    """

    work: Gemm | Conv
    operands: tuple[View, View]
    term: Term | None
    goal: ix.Expr
    supported: bool


def _arrange(c: Contraction) -> _Arranged:
    finished = None if c.epilogue is None else c.result.dtype
    operands = c.operands
    if c.node.name == "matmul":
        result = c.result
        swapped = _is_swapped(c)
        if swapped:  # Cᵀ = Bᵀ Aᵀ
            operands, result = (_swapped(operands[1]), _swapped(operands[0])), _swapped(result)
        product = matrix_product(*operands, result, finished)
        work: Gemm | Conv = product.gemm
        *outer, row, column = product.indices
        indices = (*outer, column, row) if swapped else product.indices
    else:
        work = _convolution(c, finished)
        shape = c.result.shape
        pixels = ix.unravel(ix.var(ROW, math.prod(shape[:-1])), shape[:-1])
        indices = (*pixels, ix.var(COLUMN, shape[-1]))
    values = {f"i{axis}": x for axis, x in enumerate(indices)}
    steps = zip(indices, c.result.strides, strict=True)
    goal = ix.add(ix.const(c.result.offset), *(ix.mul(x, step) for x, step in steps))
    term = None if c.epilogue is None else in_numbers_of_product(c.epilogue, values)
    supported = term is None or (c.node.name != "conv_kernel_grad" and is_supported(term))
    return _Arranged(work, operands, term, goal, supported)


def _is_swapped(c: Contraction) -> bool:
    return c.result.strides[-1] != 1 and c.result.shape[-1] > 1


def _swapped(view: View) -> View:
    """Each matrix transposed."""
    *batch, m, n = view.shape
    *steps, row, column = view.strides
    return dataclasses.replace(view, shape=(*batch, n, m), strides=(*steps, column, row))


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """A product as the generator takes it, and the indices of its result over batch, row and column."""

    gemm: Gemm
    indices: tuple[ix.Expr, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _BatchAxis:
    """An axis of the batch: steps of A, B and C, and which axes of the node it is."""

    size: int
    steps: tuple[int, int, int]
    members: tuple[int, ...]


def matrix_product(a: View, b: View, result: View, finished: DType | None = None) -> Product:
    """The product of views, with as few axes of the batch as there may be."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    if n > 1 and result.strides[-1] != 1:
        raise BackendError(
            "matmul: neither rows nor columns of the result are consecutive in memory",
            got=f"shape {result.shape}, steps {result.strides}",
            expected="a last or second-last step of 1",
        )
    axes: list[_BatchAxis] = []
    for axis, size in enumerate(batch):
        steps = (a.strides[axis], b.strides[axis], result.strides[axis])
        if size == 1:
            continue
        if axes and axes[-1].steps == tuple(size * step for step in steps):  # continues the one before
            axes[-1] = _BatchAxis(axes[-1].size * size, steps, (*axes[-1].members, axis))
        else:
            axes.append(_BatchAxis(size, steps, (axis,)))
    rows, folded = m, None
    if axes and m and axes[-1].steps == (m * a.strides[-2], 0, m * result.strides[-2]):  # more rows
        folded = axes.pop()
        rows = m * folded.size
    gemm = Gemm(
        rows,
        n,
        k,
        a.dtype,
        Matrix(a.strides[-2], a.strides[-1], tuple(axis.steps[0] for axis in axes)),
        Matrix(b.strides[-2], b.strides[-1], tuple(axis.steps[1] for axis in axes)),
        Matrix(result.strides[-2], 1, tuple(axis.steps[2] for axis in axes)),
        tuple(axis.size for axis in axes),
        offsets=(a.offset, b.offset, result.offset),
        finished=finished,
    )
    found: list[ix.Expr] = [ix.const(0)] * len(batch)
    numbers = ix.unravel(ix.var(BATCH, gemm.batches), gemm.batch)
    row = ix.var(ROW, rows)
    if folded:
        number, row = ix.unravel(row, (folded.size, m))
        axes, numbers = [*axes, folded], (*numbers, number)
    for merged, number in zip(axes, numbers, strict=True):
        members = ix.unravel(number, [batch[member] for member in merged.members])
        for member, x in zip(merged.members, members, strict=True):
            found[member] = x
    return Product(gemm, (*found, row, ix.var(COLUMN, n)))


def _convolution(c: Contraction, finished: DType | None) -> Conv:
    node, (a, b) = c.node, c.operands
    for view in (a, b, c.result):
        if not view.is_contiguous:
            raise BackendError(f"{node.name}: an operand has gaps", got=f"shape {view.shape}, steps {view.strides}")
    shapes = {
        "conv": (a.shape, b.shape),
        "conv_input_grad": (c.result.shape, b.shape),
        "conv_kernel_grad": (a.shape, c.result.shape),
    }
    x, kernel = shapes[node.name]
    return Conv(
        images=x[0],
        sizes=x[1:-1],
        channels=x[-1],
        filters=kernel[-1],
        window=kernel[:-2],
        strides=tuple(node.attrs["strides"]),
        padding=tuple((low, high) for low, high in node.attrs["padding"]),
        dilation=tuple(node.attrs["dilation"]),
        groups=node.attrs["groups"],
        dtype=a.dtype,
        offsets=(a.offset, b.offset, c.result.offset),
        finished=finished,
    )


# From work to code ---------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=1024)
def plan_work(work: Gemm | Conv, kind: str, target: Target) -> Plan:
    """How it is computed."""
    if isinstance(work, Gemm):
        return plan_gemm(work, target)
    planners = {"conv": plan_conv, "conv_input_grad": plan_conv_input_grad, "conv_kernel_grad": plan_conv_kernel_grad}
    found: Plan = planners[kind](work, target)
    return found


@functools.lru_cache(maxsize=1024)
def _phase(plan: Plan, phase: str, epilogue: Epilogue | None, target: Target) -> tuple[Unit, tuple[Unit, ...]]:
    """The function of a phase, and those that it calls."""

    def write(module: Any, name: Helpers) -> None:
        if isinstance(plan, GemmPlan):
            emit_gemm_phase(module, ENTRY, plan, phase, epilogue, name)
        elif isinstance(plan, ConvPlan):
            emit_conv_phase(module, ENTRY, plan, phase, epilogue, name)
        else:
            emit_kernel_grad_phase(module, ENTRY, plan, phase, name)

    return _driver(f"{phase} {plan} {epilogue}", helpers_of(plan, phase, epilogue), write, target)


@functools.lru_cache(maxsize=1024)
def _pack(plan: Plan, target: Target) -> tuple[Unit, tuple[Unit, ...]]:
    """The function that packs an operand once, and those that it calls."""

    def write(module: Any, name: Helpers) -> None:
        assert not isinstance(plan, KernelGradPlan)
        emit_conv_pack(module, ENTRY, plan, name)

    return _driver(f"pack once {plan}", helpers_of(plan, "pack"), write, target)


def _driver(
    description: str, helpers: tuple[Helper, ...], write: Callable[[Any, Helpers], None], target: Target
) -> tuple[Unit, tuple[Unit, ...]]:
    """A function that calls helpers, written when it has to be compiled, and the helpers' units."""
    units = {helper: _helper(helper, target) for helper in helpers}

    def text() -> str:
        module = ir.Module()
        module.triple = target.triple
        write(module, lambda helper: units[helper].symbol)
        return str(module)

    called = tuple(units.values())
    symbols = " ".join(unit.symbol for unit in called)
    return Described(f"{description} {symbols}", _sources(), text, target), called


@functools.lru_cache(maxsize=1024)
def _helper(helper: Helper, target: Target) -> Unit:
    """A micro-kernel, a copy or an epilogue."""

    def text() -> str:
        return str(helper_module(helper, target.triple, ENTRY))

    if isinstance(helper, Finish):  # what operators mean is written elsewhere
        return Unit(text(), target)
    return Described(repr(helper), _sources(), text, target)


def _sources() -> str:
    return sources_of("codegen/contraction")
