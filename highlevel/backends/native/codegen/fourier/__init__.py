"""Fourier transforms as machine code.

Where to read: `plan` for how a length is cut into stages, `stages` for what one of them does, `transform` for the
functions that come out.
"""

from .transform import Transform

__all__ = ["Transform"]
