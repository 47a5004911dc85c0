"""`call` and `checkpoint`: functions as one node, which a backend may claim whole or a gradient compute again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError

from .. import operators, trace, tree
from ..autodiff import pull_graph
from ..evaluate import program
from ..graph import Graph, Symbol
from ..jit import is_array
from ..primitive import define
from ..primitives.elementwise import tanh
from ..sample import Sample, normal
from ..spec import Spec
from ..subgraph import trace_subgraph
from .structure import FAMILY, as_symbols, check_operands, join, read_state, restore_state, split


def call(
    name: str, function: Callable[..., Any], *operands: Any, rule: Callable[..., Any] | None = None, **options: Any
) -> Any:
    """Runs a function of arrays as one named node, which a backend may claim whole.

    rule: its gradient, `rule(g, y, *operands, **options)` → one cotangent per operand; without it the body is
          recomputed and differentiated
    """
    values = [operators.operand(operand) for operand in operands]
    if not any(isinstance(value, Symbol) for value in values):
        return function(*values, **options)
    return _call_symbolic(name, function, as_symbols(values), rule, options)


def _call_symbolic(name: str, function: Any, symbols: list[Symbol], rule: Any, options: dict[str, Any]) -> Any:
    shapes: list[Any] = []

    def body(*inputs: Symbol) -> list[Any]:
        results, shape = split(function(*inputs, **options))
        shapes[:] = [shape]
        return results

    sub = trace_subgraph(body, [symbol.spec for symbol in symbols])
    if rule is not None and (sub.captured or sub.state):
        raise ArgumentError(f"{name}: a function with its own gradient must take all it uses as operands")
    results = call_operator(
        *sub.captured, *read_state(sub.state), *symbols, name=name, body=sub.graph, rule=rule, options=options
    )
    count = len(results) - len(sub.state)
    restore_state(sub.state, results[count:])
    return join(shapes[0], results[:count])


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose intermediate values are not kept for the gradient but computed again.

    Saves memory for time (A. Griewank 1992; T. Chen et al., "Training deep nets with sublinear memory cost", 2016).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        if not trace.is_open():
            return function(*args, **kwargs)
        leaves, structure = tree.flatten((args, kwargs))
        data = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

        def body(*symbols: Any) -> Any:
            filled = list(leaves)
            for i, symbol in zip(data, symbols, strict=True):
                filled[i] = symbol
            inner_args, inner_kwargs = tree.unflatten(structure, filled)
            return function(*inner_args, **inner_kwargs)

        return _call_symbolic("checkpoint", body, as_symbols([leaves[i] for i in data]), None, {})

    return run


# The operator ---------------------------------------------------------------------------------------------------------
def _infer_call(*specs: Spec, name: str, body: Graph, rule: Any = None, options: Any = None) -> tuple[Spec, ...]:
    check_operands(name, body, specs)
    return tuple(symbol.spec for symbol in body.outputs)


def _call_vjp(g: Any, y: Any, *x: Any, name: str, body: Graph, rule: Any = None, options: Any = None) -> Sequence[Any]:
    if rule is not None:
        found: Sequence[Any] = rule(g if len(y) > 1 else g[0], y if len(y) > 1 else y[0], *x, **(options or {}))
        return found
    return pull_graph(body, x, g, [operand.dtype.is_float for operand in x])


call_operator = define(
    "call",
    FAMILY,
    infer=_infer_call,
    numpy=lambda xp, *x, name, body, rule=None, options=None: tuple(program(body).run(xp, x)),
    vjp=_call_vjp,
    multiple=True,
    samples=(
        Sample((normal(3, 4),), "numpy.tanh", function=lambda x: checkpoint(tanh)(x)),
        Sample(
            (normal(3, 4),),
            "numpy.square",
            function=lambda x: call("square", lambda x: x * x, x, rule=lambda g, y, x: (2.0 * x * g,)),
        ),
    ),
    summary="a named sub-graph: a composite that a backend may claim whole, or a checkpoint that is recomputed",
)
