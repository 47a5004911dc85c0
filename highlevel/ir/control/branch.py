"""`cond`: one of two sub-graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import operators, oracles
from ..autodiff import pull_graph
from ..evaluate import program
from ..graph import Graph, Symbol
from ..primitive import define
from ..primitives.elementwise import sin
from ..sample import Sample, booleans, normal, uniform
from ..spec import Spec
from ..subgraph import trace_subgraph
from .structure import FAMILY, captured_by, check_operands, join, present, read_state, restore_state, split, taking


def cond(predicate: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """`true_fn(*operands)` if the predicate (a scalar) holds, else `false_fn(*operands)`; only one is computed."""
    if isinstance(predicate, bool):
        return (true_fn if predicate else false_fn)(*operands)
    predicate = operators.operand(predicate)
    if predicate.shape != ():
        raise ShapeError(
            "cond: the condition is not a scalar", got=predicate.spec, expected="shape ()", hint="ops.where"
        )
    if not isinstance(predicate, Symbol):
        return (true_fn if bool(predicate) else false_fn)(*operands)
    shapes: list[Any] = []

    def traced(branch: Callable[..., Any]) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            results, shape = split(branch(*operands))
            shapes.append(shape)
            return results

        return run

    then = trace_subgraph(traced(true_fn), ())
    otherwise = trace_subgraph(traced(false_fn), (), state=then.state)
    if len(otherwise.state) != len(then.state):
        then = trace_subgraph(traced(true_fn), (), state=otherwise.state)
    for shape in shapes:
        if shape != shapes[0]:
            raise ArgumentError("cond: the branches return different structures", got=shape[0], expected=shapes[0][0])
    captured = captured_by(then, otherwise)
    results = cond_operator(
        operators.cast(predicate, "bool"), *captured, *read_state(then.state),
        then=taking(captured, then), otherwise=taking(captured, otherwise),
    )  # fmt: skip
    count = len(results) - len(then.state)
    restore_state(then.state, results[count:])
    return join(shapes[0], results[:count])


# The operator ---------------------------------------------------------------------------------------------------------
def _infer_cond(predicate: Spec, *specs: Spec, then: Graph, otherwise: Graph) -> tuple[Spec, ...]:
    if predicate.shape != () or not predicate.dtype.is_bool:
        raise DTypeError("cond: the condition is not one bool", got=predicate, expected="bool ()")
    check_operands("cond", then, specs)
    check_operands("cond", otherwise, specs)
    first, second = ([symbol.spec for symbol in branch.outputs] for branch in (then, otherwise))
    if first != second:
        raise ShapeError(
            "cond: the branches return different things", got=f"{first} and {second}", expected="the same specs"
        )
    return tuple(first)


def _cond(xp: Any, predicate: Any, *operands: Any, then: Graph, otherwise: Graph) -> tuple[Any, ...]:
    return tuple(program(then if bool(predicate) else otherwise).run(xp, operands))


def _cond_vjp(g: Any, y: Any, predicate: Any, *x: Any, then: Graph, otherwise: Graph) -> Sequence[Any]:
    flags = [operand.dtype.is_float for operand in x]

    def pull(branch: Graph) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            found = present(pull_graph(branch, x, g, flags), x)
            return [c for c, flag in zip(found, flags, strict=True) if flag]

        return run

    found = iter(cond(predicate, pull(then), pull(otherwise)))
    return (None, *(next(found) if flag else None for flag in flags))


cond_operator = define(
    "cond",
    FAMILY,
    infer=_infer_cond,
    numpy=_cond,
    vjp=_cond_vjp,
    multiple=True,
    samples=tuple(
        Sample((draw, normal(3)), "numpy.where", oracles.numpy_choice, function=lambda c, x: _choice(c, x))
        for draw in (booleans(), uniform(low=0.1, high=0.2), uniform(low=-0.2, high=-0.1))
    ),
    summary="one of two sub-graphs",
)


def _choice(condition: Any, x: Any) -> Any:
    """sin(x) times the condition if it holds, else x²."""
    holds = condition if condition.dtype.is_bool else condition > 0
    return cond(holds, lambda: sin(x) * operators.cast(condition, x.dtype), lambda: x * x)
