"""Contractions: matrix products and convolutions, from one micro-kernel generator.

A planner decides how the work is cut (`plan_gemm`, `plan_conv`, `plan_conv_input_grad`, `plan_conv_kernel_grad`: pure
functions of sizes and target), an emitter writes it as LLVM IR (`emit_gemm`, `emit_conv`, `emit_conv_kernel_grad`).
What comes out are functions

    void name(a, b, c, workspace, i32 tid, i32 nthreads, operands…)

one for each of `plan.phases`, which all threads run, meeting between two phases; `phase_names` has their names. The
workspace has `plan.workspace_bytes(nthreads)` bytes, uninitialised. Results are equal to the bit for any number of
threads.

Where to read: `blocking` for the ideas, `microkernel` for the tile in registers, `finish` for epilogues, `geometry` for
lattices, `called` for what a phase depends on.
"""

from .blocking import GemmPlan, plan_gemm
from .called import helpers_of, part_of_plan
from .conv import emit_conv, emit_conv_pack, emit_conv_phase, plan_conv, plan_conv_input_grad
from .convolution import ConvPlan
from .finish import Epilogue
from .gemm import emit_gemm, emit_gemm_phase, emit_pack, packed_bytes, phase_names
from .geometry import Conv
from .helpers import Helper, Helpers, helper_module
from .kernel_grad import emit_conv_kernel_grad, emit_kernel_grad_phase
from .kernel_grad_plan import KernelGradPlan, plan_conv_kernel_grad
from .products import Cut, Gemm, Matrix

__all__ = [
    "Conv",
    "ConvPlan",
    "Cut",
    "Epilogue",
    "Gemm",
    "GemmPlan",
    "Helper",
    "Helpers",
    "KernelGradPlan",
    "Matrix",
    "emit_conv",
    "emit_conv_kernel_grad",
    "emit_conv_pack",
    "emit_conv_phase",
    "emit_gemm",
    "emit_gemm_phase",
    "emit_kernel_grad_phase",
    "emit_pack",
    "helper_module",
    "helpers_of",
    "packed_bytes",
    "part_of_plan",
    "phase_names",
    "plan_conv",
    "plan_conv_input_grad",
    "plan_conv_kernel_grad",
    "plan_gemm",
]
