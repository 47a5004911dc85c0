"""`stop_gradient` and `custom_gradient`: identities with a meaning for gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError

from .. import operators, tree
from ..graph import Graph, Symbol
from ..primitive import define
from ..primitives.elementwise import exp
from ..rewrite import inline
from ..sample import Sample, normal
from ..subgraph import trace_subgraph
from .structure import FAMILY, as_symbols, present


def stop_gradient(x: Any) -> Any:
    """The same value, through which no gradient flows."""
    return tree.map(lambda leaf: stop_gradient_operator(operators.operand(leaf)), x)


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that brings its own gradient: it returns `(y, gradient)`.

    `gradient(*upstream)` (or `gradient(*args, upstream=…)`, Keras's form) returns one cotangent per argument. Variables
    that the function reads on its own account get no gradient.

    >>> from highlevel import grad, ops
    >>> @custom_gradient
    ... def log1pexp(x):
    ...     e = ops.exp(x)
    ...     return ops.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))
    >>> float(grad(log1pexp)(100.0))
    1.0
    """

    def run(*args: Any) -> Any:
        operands = [operators.operand(arg) for arg in args]
        y, gradient = function(*operands)
        if not any(isinstance(leaf, Symbol) for leaf in (*operands, *tree.leaves(y))):
            return y
        results, structure = tree.flatten(y)
        results, symbols = as_symbols(results), as_symbols(operands)

        def rule(*upstream: Symbol) -> list[Any]:
            cotangents = _call_gradient(gradient, operands, upstream)
            if len(cotangents) != len(symbols):
                raise ArgumentError(
                    "custom_gradient: one cotangent per argument", got=len(cotangents), expected=len(symbols)
                )
            return [
                operators.zeros_like(x) if c is None else operators.cast(operators.broadcast_to(c, x.shape), x.dtype)
                for c, x in zip(cotangents, symbols, strict=True)
            ]

        sub = trace_subgraph(rule, [result.spec for result in results])
        if sub.state:
            raise ArgumentError("custom_gradient: the gradient assigns a variable", got=sub.state[0].path)
        outputs = custom_gradient_operator(
            *results, *symbols, *sub.captured, results=len(results), operands=len(symbols), rule=sub.graph
        )
        return tree.unflatten(structure, outputs)

    return run


def _call_gradient(gradient: Callable[..., Any], operands: Sequence[Any], upstream: Sequence[Any]) -> Sequence[Any]:
    parameters = inspect.signature(gradient).parameters
    if "upstream" in parameters and len(upstream) == 1:
        keras_form = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        found = gradient(*operands, upstream=upstream[0]) if keras_form else gradient(upstream=upstream[0])
    else:
        found = gradient(*upstream)
    return found if isinstance(found, (list, tuple)) else (found,)


# The operators --------------------------------------------------------------------------------------------------------
stop_gradient_operator = define(
    "stop_gradient",
    FAMILY,
    infer=lambda x: x,
    numpy=lambda xp, x: x,
    vjp=lambda g, y, x: (None,),
    samples=(Sample((normal(3, 4),), "numpy.asarray", gradient=False),),
    summary="its operand, through which no gradient flows",
)


def _custom_gradient_vjp(g: Any, y: Any, *x: Any, results: int, operands: int, rule: Graph) -> Sequence[Any]:
    captured = x[results + operands :]
    pulled = inline(rule, [*captured, *present(g, y)])
    return [None] * results + pulled + [None] * len(captured)


custom_gradient_operator = define(
    "custom_gradient",
    FAMILY,
    infer=lambda *specs, results, operands, rule: tuple(specs[:results]),
    numpy=lambda xp, *x, results, operands, rule: tuple(x[:results]),
    vjp=_custom_gradient_vjp,
    multiple=True,
    samples=(
        Sample(
            (normal(3, 4),),
            "numpy.exp",
            function=lambda x: custom_gradient(_exp_with_gradient)(x),
        ),
    ),
    summary="its first operands, differentiated by a rule of the user's",
)


def _exp_with_gradient(x: Any) -> Any:
    return exp(x), lambda g: g * exp(x)
