"""Contractions: matrix products and convolutions, from one micro-kernel generator.

`plan_gemm` decides how a product is cut, `emit_gemm` writes it as LLVM IR. See `blocking` for the ideas, `microkernel`
for the tile in registers and for epilogues.
"""

from .blocking import Cut, Gemm, GemmPlan, Matrix, plan_gemm
from .gemm import emit_gemm, emit_pack, packed_bytes, phase_names
from .helpers import Helpers, helper_module
from .microkernel import Epilogue, Tile

__all__ = [
    "Cut",
    "Epilogue",
    "Gemm",
    "GemmPlan",
    "Helpers",
    "Matrix",
    "Tile",
    "emit_gemm",
    "emit_pack",
    "helper_module",
    "packed_bytes",
    "phase_names",
    "plan_gemm",
]
