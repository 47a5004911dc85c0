"""The operators of the language as functions of symbols, of patterns and of plain numbers.

    from .terms import neg, transpose

`neg(x)` is the primitive where x is a symbol, and a `Pattern` where it is a hole, so that both sides of a rule are
written in the same words. Numbers beside symbols are as many as these have elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from highlevel.ir.operators import Scalar
from highlevel.ir.primitive import REGISTRY
from highlevel.ir.primitives.creation import full_like

from .pattern import Pattern, Term, Value


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in REGISTRY:
        raise AttributeError(f"there is no primitive {name!r}")
    primitive = REGISTRY[name]

    def term(*operands: Any, **attrs: Any) -> Any:
        abstract = any(isinstance(operand, Term) for operand in operands)
        if abstract or any(isinstance(value, Value) for value in attrs.values()):
            return Pattern(primitive, operands, attrs)
        return primitive(*_filled(operands), **attrs)

    term.__name__ = term.__qualname__ = name
    return term


def _filled(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers as arrays like the last of the other operands."""
    if not any(isinstance(operand, Scalar) for operand in operands):
        return operands
    like = next(operand for operand in reversed(operands) if not isinstance(operand, Scalar))
    return tuple([full_like(like, o) if isinstance(o, Scalar) else o for o in operands])
