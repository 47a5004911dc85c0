"""Whatever elementwise primitive no function stands for is a function by its own name."""

from __future__ import annotations

from typing import Any

from highlevel.errors import DTypeError
from highlevel.ir import REGISTRY, Primitive
from highlevel.ir.dtypes import int32
from highlevel.ir.operators import match
from highlevel.ir.spec import Spec

from .elementwise import Function, named
from .registry import COVERED, OPS


def _exposed(primitive: Primitive) -> Function:
    """An elementwise primitive as a function: promotion and broadcasting, floats where it takes nothing else."""
    arity = len(primitive.samples[0].operands)
    try:
        primitive.infer(*[Spec((), int32)] * arity)
        real = False
    except DTypeError:
        real = True

    def call(*operands: Any) -> Any:
        if len(operands) != arity:
            raise TypeError(f"{primitive.name} takes {arity} operands but got {len(operands)}")
        return primitive(*match(*operands, operator=primitive.name, floating=real))

    return named(primitive.name, call, primitive.summary or f"{primitive.name}, elementwise.")


def expose() -> dict[str, Function]:
    """Functions for all elementwise primitives that have none; called when all others are defined."""
    return {
        name: _exposed(primitive)
        for name, primitive in REGISTRY.items()
        if primitive.family == "elementwise" and name not in OPS and name not in COVERED and primitive.samples
    }
