"""What a phase depends on, known before anything is written: its part of the plan, the functions that it calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from .blocking import GemmPlan
from .convolution import ConvPlan
from .finish import Epilogue, Finish
from .geometry import Conv
from .helpers import Helper
from .kernel_grad_plan import KernelGradPlan
from .packing import Copy
from .products import Cut, Matrix

Plan = GemmPlan | ConvPlan | KernelGradPlan
ONE = Cut(1, 1)


def part_of_plan(plan: Plan, phase: str) -> Plan:
    """The plan without what does not matter for a phase: what is packed is the same for all batch sizes."""
    if isinstance(plan, GemmPlan):
        return _part_of_gemm(plan, phase)
    if isinstance(plan, KernelGradPlan):
        return _part_of_kernel_grad(plan, phase)
    if phase != "pack":
        return plan
    conv = dataclasses.replace(_without_points(plan.conv), offsets=(0, plan.conv.offsets[1], 0), finished=None)
    return dataclasses.replace(plan, conv=conv, b="shared", lattices=(), panel_groups=ONE, reduction=ONE)


def _part_of_gemm(plan: GemmPlan, phase: str) -> GemmPlan:
    gemm = plan.gemm
    nowhere = Matrix(0, 1, (0,) * len(gemm.batch))
    if phase == "compute" and plan.b in ("direct", "private"):
        return plan
    if phase == "compute":  # B is not read where it was
        offsets = gemm.offsets[0], 0, gemm.offsets[2]
        return dataclasses.replace(plan, gemm=dataclasses.replace(gemm, b=nowhere, offsets=offsets))
    plan = dataclasses.replace(plan, rows=ONE, row_blocks=ONE, panel_groups=ONE, reduction=ONE, a="direct")
    if phase == "pack":
        gemm = dataclasses.replace(gemm, m=1, a=nowhere, c=nowhere, offsets=(0, gemm.offsets[1], 0), finished=None)
        return dataclasses.replace(plan, gemm=gemm, b="shared", parts=ONE)
    depth = gemm.k if plan.b == "shared" else 1  # packed B lies before the sums
    gemm = dataclasses.replace(gemm, k=depth, a=nowhere, b=nowhere, offsets=(0, 0, gemm.offsets[2]))
    b: Literal["shared", "direct"] = "shared" if plan.b == "shared" else "direct"
    return dataclasses.replace(plan, gemm=gemm, b=b, parts=Cut(plan.parts.pieces, plan.parts.pieces))


def _part_of_kernel_grad(plan: KernelGradPlan, phase: str) -> KernelGradPlan:
    if phase == "compute":
        return plan
    conv = dataclasses.replace(_without_points(plan.conv), offsets=(0, 0, plan.conv.offsets[2]))
    cuts = {"rows": ONE, "row_blocks": ONE, "columns": ONE, "panel_groups": ONE, "images": ONE, "bands": ONE}
    return dataclasses.replace(plan, conv=conv, parts=Cut(plan.parts.pieces, plan.parts.pieces), **cuts)  # type: ignore[arg-type]


def _without_points(conv: Conv) -> Conv:
    """The smallest convolution with the same kernel."""
    return dataclasses.replace(
        conv, images=1, sizes=conv.window, strides=(1, 1, 1), padding=((0, 0),) * 3, dilation=(1, 1, 1)
    )


def helpers_of(plan: Plan, phase: str, epilogue: Epilogue | None = None) -> tuple[Helper, ...]:
    """Micro-kernels, copies and the epilogue of a phase, each once; some may not be called in the end."""
    found: Iterator[Helper]
    if isinstance(plan, GemmPlan):
        found = _of_gemm(plan, phase, epilogue)
    elif isinstance(plan, ConvPlan):
        found = _of_conv(plan, phase, epilogue)
    else:
        found = _of_kernel_grad(plan, phase)
    return tuple(dict.fromkeys(found))


def _of_gemm(plan: GemmPlan, phase: str, epilogue: Epilogue | None) -> Iterator[Helper]:
    if phase == "pack":
        yield plan.copy(plan.gemm.b)[0]
    elif phase == "compute":
        if plan.a == "copy":
            yield plan.copy(plan.gemm.a)[0]
        if plan.b == "private":
            yield plan.copy(plan.gemm.b)[0]
        for _, _, rows in plan.rows.segments:
            for _, _, vectors, ragged in plan.panels():
                yield plan.micro_kernel(rows, vectors, ragged)
        if epilogue and plan.parts.pieces == 1:
            yield Finish(plan.stored, plan.result, epilogue)


def _of_conv(plan: ConvPlan, phase: str, epilogue: Epilogue | None) -> Iterator[Helper]:
    if phase == "pack":
        yield Copy.of(plan.stored, plan.packed, plan.kernel.row, plan.kernel.column)
        return
    for lattice in plan.lattices:
        if lattice.copy:
            yield Copy.of(plan.stored, plan.packed, 0, 1)
        for _, _, height in lattice.tiles.segments:
            for _, _, vectors, ragged in plan.panels():
                yield plan.micro_kernel(lattice, height, vectors, ragged)
    if epilogue:
        yield Finish(plan.stored, plan.result, epilogue)


def _of_kernel_grad(plan: KernelGradPlan, phase: str) -> Iterator[Helper]:
    if phase == "compute":
        yield Copy.of(plan.stored, plan.packed, 0, 1)
        for _, _, rows in plan.rows.segments:
            for _, _, vectors, ragged in plan.panels():
                yield plan.micro_kernel(rows, vectors, ragged)
