"""All primitives, by family. `primitives.NAME` is the primitive of that name; a new record needs no entry here."""

from typing import TYPE_CHECKING

from ..primitive import REGISTRY, Primitive
from . import (
    contraction,
    control,
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

if TYPE_CHECKING:

    def __getattr__(name: str) -> Primitive: ...


__all__ = [
    "REGISTRY",
    "Primitive",
    "contraction",
    "control",
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
