"""All primitives, by family. `primitives.NAME` is the primitive of that name; a new record needs no second entry here."""

from typing import TYPE_CHECKING

from ..primitive import REGISTRY, Primitive
from . import contraction, control, creation, elementwise, movement, reduction
from . import convolution, factor, fourier, indexing, ordering, random, window

globals().update(REGISTRY)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Primitive: ...


__all__ = ["REGISTRY", "Primitive"]
