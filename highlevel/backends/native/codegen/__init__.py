"""Code: from kernels to LLVM IR."""
