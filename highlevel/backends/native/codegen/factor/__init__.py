"""Factorisations of matrices as machine code: one function per operator and type, for matrices of all sizes.

Where to read: `language` for how algorithms are written down, `rows` for what they are made of, `triangular` and
`orthogonal` for the algorithms, `cores` for the functions that come out.
"""

from .cores import CORES, Core

__all__ = ["CORES", "Core"]
