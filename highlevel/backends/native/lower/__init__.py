"""From operators to tasks: one module for each family that has code of its own."""

from . import arguments, factor, fourier, indexing, ordering, random, window  # each registers its lowerings
from .contraction import contraction_task, pack_task, packed_operand, packed_size_bytes, supports_epilogue
from .registry import lower, lowers
from .templates import loop_task

FAMILIES = (arguments, factor, fourier, indexing, ordering, random, window)

__all__ = [
    "FAMILIES",
    "contraction_task",
    "loop_task",
    "lower",
    "lowers",
    "pack_task",
    "packed_operand",
    "packed_size_bytes",
    "supports_epilogue",
]
