"""The reference backend: a compiler from graphs to machine code, through LLVM."""
