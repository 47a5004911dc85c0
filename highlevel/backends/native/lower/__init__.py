"""From operators to tasks: one module for each family that has code of its own."""

from . import contraction, loops
from .contraction import contraction_task
from .loops import loop_task
from .registry import lower, lowers

__all__ = ["contraction", "contraction_task", "loop_task", "loops", "lower", "lowers"]
