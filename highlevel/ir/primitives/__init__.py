"""All primitives, by family. `primitives.NAME` is the primitive of that name; a new record needs no entry here."""

from collections.abc import Callable
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
    __getattr__: Callable[[str], Primitive]  # a def would be analysed too late in this circle of imports


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
