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
from collections.abc import Sequence

from llvmlite import ir

from highlevel.errors import BackendError
from highlevel.ir import Node

from ..cache import ENTRY, Unit
from ..codegen.contraction import (
    Conv,
    ConvPlan,
    Gemm,
    GemmPlan,
    Helper,
    KernelGradPlan,
    Matrix,
    emit_conv_phase,
    emit_gemm_phase,
    emit_kernel_grad_phase,
    helper_module,
    plan_conv,
    plan_conv_input_grad,
    plan_conv_kernel_grad,
    plan_gemm,
)
from ..codegen.targets import Target
from ..schedule.contraction import Contraction, View
from ..schedule.kernel import Buffer
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


def contraction_task(c: Contraction, target: Target) -> Task:
    """The task that computes a contraction."""
    arranged = _arrange(c)
    plan = plan_work(arranged.work, arranged.kind, target)
    first, second = arranged.operands
    used: dict[str, Unit] = {}
    phases = []
    for phase in plan.phases:
        unit, helpers = _phase(plan, phase, target)
        used.update((helper.symbol, helper) for helper in helpers)
        names = first.buffer.name, second.buffer.name, c.result.buffer.name
        phases.append(Call(unit, (*names, WORKSPACE, TID, THREADS)))
    size_bytes = plan.packed.dtype.size_bytes
    return Task(
        name=c.node.name,
        reads=tuple(dict.fromkeys(view.buffer.name for view in c.operands)),
        writes=(c.result.buffer.name,),
        phases=tuple(phases),
        helpers=tuple(used.values()),
        shared_bytes=plan.shared_elements * size_bytes,
        thread_bytes=plan.private_elements * size_bytes,
        origins=c.origins,
        flops=arranged.work.flops,
    )


# From nodes to work --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, slots=True)
class _Arranged:
    """What is to be computed, and its operands in the order in which the generated functions take them."""

    kind: str
    work: Gemm | Conv
    operands: tuple[View, View]


def _arrange(c: Contraction) -> _Arranged:
    if c.node.name != "matmul":
        return _Arranged(c.node.name, _convolution(c), c.operands)
    a, b, result = *c.operands, c.result
    if result.strides[-1] != 1 and result.shape[-1] > 1:  # Cᵀ = Bᵀ Aᵀ
        a, b, result = _swapped(b), _swapped(a), _swapped(result)
    return _Arranged("matmul", matrix_product(a, b, result), (a, b))


def _swapped(view: View) -> View:
    """Each matrix transposed."""
    *batch, m, n = view.shape
    *steps, row, column = view.strides
    return dataclasses.replace(view, shape=(*batch, n, m), strides=(*steps, column, row))


def matrix_product(a: View, b: View, result: View) -> Gemm:
    """The product as the generator takes it."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    if n > 1 and result.strides[-1] != 1:
        raise BackendError(
            "matmul: neither rows nor columns of the result are consecutive in memory",
            got=f"shape {result.shape}, steps {result.strides}",
            expected="a last or second-last step of 1",
        )
    axes = _merged_batch(
        [step for step in zip(batch, a.strides, b.strides, result.strides, strict=False) if step[0] != 1]
    )
    if axes and m and (only := axes[-1])[2] == 0 and (only[1], only[3]) == (m * a.strides[-2], m * result.strides[-2]):
        axes, m = axes[:-1], m * only[0]
    a_batch, b_batch, c_batch = (tuple(axis[i] for axis in axes) for i in (1, 2, 3))
    return Gemm(
        m,
        n,
        k,
        a.dtype,
        Matrix(a.strides[-2], a.strides[-1], a_batch),
        Matrix(b.strides[-2], b.strides[-1], b_batch),
        Matrix(result.strides[-2], 1, c_batch),
        tuple(axis[0] for axis in axes),
        offsets=(a.offset, b.offset, result.offset),
    )


_BatchAxis = tuple[int, int, int, int]  # size, steps of A, B and C


def _merged_batch(axes: list[_BatchAxis]) -> list[_BatchAxis]:
    """Axes of which one continues the other, in all three, are one axis."""
    found: list[_BatchAxis] = []
    for axis in axes:
        size, *steps = axis
        if found and list(found[-1][1:]) == [size * step for step in steps]:
            found[-1] = (found[-1][0] * size, *axis[1:])
        else:
            found.append(axis)
    return found


def _convolution(c: Contraction) -> Conv:
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
def _phase(plan: Plan, phase: str, target: Target) -> tuple[Unit, tuple[Unit, ...]]:
    """The function of a phase, and those that it calls."""
    called: dict[str, Unit] = {}

    def name(helper: Helper) -> str:
        unit = _helper(helper, target)
        called[unit.symbol] = unit
        return unit.symbol

    module = ir.Module()
    module.triple = target.triple
    if isinstance(plan, GemmPlan):
        emit_gemm_phase(module, ENTRY, plan, phase, helpers=name)
    elif isinstance(plan, ConvPlan):
        emit_conv_phase(module, ENTRY, plan, phase, helpers=name)
    else:
        emit_kernel_grad_phase(module, ENTRY, plan, phase, helpers=name)
    return Unit(str(module), target), tuple(called.values())


@functools.lru_cache(maxsize=1024)
def _helper(helper: Helper, target: Target) -> Unit:
    """A micro-kernel or a copy."""
    return Unit(str(helper_module(helper, target.triple, ENTRY)), target)
