"""All primitives, by family. `primitives.NAME` is the primitive of that name; a new record needs no entry here.

The operators that carry sub-graphs are in `ir.control`, beside the functions that record them.
"""

from ..primitive import REGISTRY, Primitive
from . import (
    contraction,
    convolution,
    creation,
    elementwise,
    factor,
    fourier,
    indexing,
    movement,
    ordering,
    random,
    reduction,
    window,
)

globals().update(REGISTRY)


def __getattr__(name: str) -> Primitive:
    """Records that are made after this module: those of control flow, and the user's own."""
    if name not in REGISTRY:
        raise AttributeError(f"there is no primitive {name!r}")
    return REGISTRY[name]


__all__ = [
    "REGISTRY",
    "Primitive",
    "contraction",
    "convolution",
    "creation",
    "elementwise",
    "factor",
    "fourier",
    "indexing",
    "movement",
    "ordering",
    "random",
    "reduction",
    "window",
]
