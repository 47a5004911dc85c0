"""From operators to tasks: one module for each family that has code of its own."""

import importlib
import pkgutil

from .contraction import contraction_task, supports_epilogue
from .templates import loop_task
from .registry import lower, lowers

for module in pkgutil.iter_modules(__path__):  # each registers its lowerings
    importlib.import_module(f"{__name__}.{module.name}")

__all__ = ["contraction_task", "loop_task", "lower", "lowers", "supports_epilogue"]
