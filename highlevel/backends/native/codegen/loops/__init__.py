"""Loop kernels as LLVM IR: values of terms (`terms`), loops around them (`nest`), whole kernels (`kernel`)."""

from .kernel import combine, emit_kernel, identity, levels_of, style_of

__all__ = ["combine", "emit_kernel", "identity", "levels_of", "style_of"]
