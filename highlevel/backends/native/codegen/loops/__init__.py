"""Loop kernels as LLVM IR: values of terms (`terms`), loops around them (`nest`), whole kernels (`kernel`)."""

from ...schedule.split import identity
from .kernel import combine, emit_kernel

__all__ = ["combine", "emit_kernel", "identity"]
