"""Control flow and calls: operators that carry sub-graphs. The functions that people call are in `ir.control`.

A sub-graph is closed: what it uses of its surroundings comes in as operands. All of these are differentiable
(`while_loop` by its bound on the number of steps).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import DTypeError, GradientError, ShapeError

from .. import oracles
from ..graph import Graph
from ..primitive import define
from ..sample import Sample, booleans, integers, normal, uniform
from ..spec import Spec

FAMILY = "control"


def _check_operands(name: str, graph: Graph, specs: Sequence[Spec]) -> None:
    wanted = [symbol.spec for symbol in graph.inputs]
    if list(specs) != wanted:
        raise ShapeError(f"{name}: operands do not fit the sub-graph", got=list(specs), expected=wanted)


def _present(cotangents: Sequence[Any], symbols: Sequence[Any]) -> list[Any]:
    """Cotangents with zeros for those that are absent."""
    return [zeros_like(s) if g is None else g for g, s in zip(cotangents, symbols, strict=True)]


# scan ----------------------------------------------------------------------------------------------------------------
def _infer_scan(
    *specs: Spec, body: Graph, constants: int, carries: int, length: int, reverse: bool
) -> tuple[Spec, ...]:
    sliced = [spec.with_shape(spec.shape[1:]) for spec in specs[constants + carries :]]
    _check_operands("scan", body, [*specs[: constants + carries], *sliced])
    if any(spec.shape[:1] != (length,) for spec in specs[constants + carries :]):
        raise ShapeError(
            "scan: sequences differ in length", got=specs[constants + carries :], expected=f"length {length}"
        )
    ends = [symbol.spec for symbol in body.outputs]
    if ends[:carries] != list(specs[constants : constants + carries]):
        raise ShapeError(
            "scan: the body changes the carry's shape or type",
            got=ends[:carries],
            expected=list(specs[constants : constants + carries]),
            hint="cast inside the body, or start with a carry of the final type",
        )
    return (*ends[:carries], *(spec.with_shape((length, *spec.shape)) for spec in ends[carries:]))


def _scan(
    xp: Any, *operands: Any, body: Graph, constants: int, carries: int, length: int, reverse: bool, wanted: Any = None
) -> tuple[Any, ...]:
    steps = program(body)
    fixed, carry = operands[:constants], list(operands[constants : constants + carries])
    sequences = operands[constants + carries :]
    stacked: list[Any] = [None] * (len(body.outputs) - carries)
    for i, symbol in enumerate(body.outputs[carries:]):
        if wanted is None or wanted[carries + i]:
            stacked[i] = xp.empty((length, *symbol.shape), dtype=symbol.dtype.numpy)
    for t in reversed(range(length)) if reverse else range(length):
        results = steps.run(xp, [*fixed, *carry, *(sequence[t] for sequence in sequences)])
        carry = results[:carries]
        for out, value in zip(stacked, results[carries:], strict=True):
            if out is not None:
                out[t] = value
    return (*carry, *stacked)


def _scan_vjp(
    g: Any, y: Any, *x: Any, body: Graph, constants: int, carries: int, length: int, reverse: bool, needed: Any
) -> Sequence[Any]:
    """A scan in the other direction: carries the cotangents of the carry and of what is constant.

    The forward scan offers every intermediate of its body as an extra output; the rules here take what they need of
    those, so nothing is computed twice and nothing is kept in vain.
    """
    fixed, sequences = x[:constants], x[constants + carries :]
    stacks = y[carries:]  # what the body produced in each step: results, then intermediates
    float_fixed = [i for i in range(constants) if needed[i] and fixed[i].dtype.is_float]
    float_carry = [i for i in range(carries) if body.outputs[i].dtype.is_float]
    float_sequence = [i for i, s in enumerate(sequences) if needed[constants + carries + i] and s.dtype.is_float]
    given = [i for i in range(len(stacks)) if g[carries + i] is not None]

    def step(carry: Any, now: Any) -> Any:
        carry_cotangents, sums = carry
        values_now, sequences_now, given_now = now
        saved = dict(zip(map(key_of, body.outputs[carries:]), values_now, strict=True))
        known = dict(zip(map(key_of, body.inputs[:constants]), fixed, strict=True))
        known.update(zip(map(key_of, body.inputs[constants + carries :]), sequences_now, strict=True))
        ends = [(body.outputs[i], c) for i, c in zip(float_carry, carry_cotangents, strict=True)]
        ends += [(body.outputs[carries + i], c) for i, c in zip(given, given_now, strict=True)]
        wrt = [body.inputs[i] for i in float_fixed]
        wrt += [body.inputs[constants + i] for i in float_carry]
        wrt += [body.inputs[constants + carries + i] for i in float_sequence]
        found = _present(backward(ends, wrt, Replay({**saved, **known})), wrt)
        n, m = len(float_fixed), len(float_fixed) + len(float_carry)
        new_sums = [a + b for a, b in zip(sums, found[:n], strict=True)]
        return (found[n:m], new_sums), found[m:]

    start = (
        [zeros_like(y[i]) if g[i] is None else g[i] for i in float_carry],
        [zeros_like(fixed[i]) for i in float_fixed],
    )
    steps = (list(stacks), list(sequences), [g[carries + i] for i in given])
    (first, sums), per_step = control.scan(step, start, steps, length=length, reverse=not reverse)
    cotangents: list[Any] = [None] * len(x)
    for i, c in zip(float_fixed, sums, strict=True):
        cotangents[i] = c
    for i, c in zip(float_carry, first, strict=True):
        cotangents[constants + i] = c
    for i, c in zip(float_sequence, per_step, strict=True):
        cotangents[constants + carries + i] = c
    return cotangents


scan = define(
    "scan",
    FAMILY,
    infer=_infer_scan,
    numpy=_scan,
    vjp=_scan_vjp,
    multiple=True,
    selective=True,
    samples=(
        Sample(
            (normal(3), normal(7, 3), uniform(low=-0.9, high=0.9)),
            "scipy.signal.lfilter",
            oracles.scipy_recurrence,
            function=lambda start, xs, rate: _recurrence(start, xs, rate),
        ),
        Sample(
            (normal(4, 2),),
            "numpy.cumsum",
            lambda cumsum, xs: (cumsum(xs[::-1], axis=0, dtype=xs.dtype)[::-1], xs.sum(0, dtype=xs.dtype)),
            function=lambda xs: _running_sum_from_the_end(xs),
        ),
    ),
    summary="a loop over the leading axis that carries state; intermediates of the body are extra, optional outputs",
)


# cond ----------------------------------------------------------------------------------------------------------------
def _infer_cond(predicate: Spec, *specs: Spec, then: Graph, otherwise: Graph) -> tuple[Spec, ...]:
    if predicate.shape != () or not predicate.dtype.is_bool:
        raise DTypeError("cond: the condition is not one bool", got=predicate, expected="bool ()")
    _check_operands("cond", then, specs)
    _check_operands("cond", otherwise, specs)
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
            found = _present(pull_graph(branch, x, g, flags), x)
            return [c for c, flag in zip(found, flags, strict=True) if flag]

        return run

    found = iter(control.cond(predicate, pull(then), pull(otherwise)))
    return (None, *(next(found) if flag else None for flag in flags))


cond = define(
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


# while_loop ----------------------------------------------------------------------------------------------------------
def _infer_while(
    *specs: Spec, condition: Graph, body: Graph, constants: int, max_steps: int | None
) -> tuple[Spec, ...]:
    _check_operands("while_loop", body, specs)
    _check_operands("while_loop", condition, specs)
    ends = [symbol.spec for symbol in body.outputs]
    if ends != list(specs[constants:]):
        raise ShapeError("while_loop: the body changes shapes or types", got=ends, expected=list(specs[constants:]))
    return tuple(ends)


def _while(
    xp: Any, *operands: Any, condition: Graph, body: Graph, constants: int, max_steps: int | None
) -> tuple[Any, ...]:
    test, step = program(condition), program(body)
    fixed, carry, count = operands[:constants], list(operands[constants:]), 0
    while (max_steps is None or count < max_steps) and bool(test.run(xp, [*fixed, *carry])[0]):
        carry = step.run(xp, [*fixed, *carry])
        count += 1
    return tuple(carry)


def _while_vjp(
    g: Any, y: Any, *x: Any, condition: Graph, body: Graph, constants: int, max_steps: int | None
) -> Sequence[Any]:
    """As many steps as there can be, those after the end doing nothing, differentiated as a scan."""
    if max_steps is None:
        raise GradientError(
            "while_loop without a bound has no gradient",
            expected="a largest number of steps, so that what the steps compute can be kept",
            hint="while_loop(..., maximum_iterations=n), or scan",
        )

    def bounded(*operands: Any) -> list[Any]:
        fixed = operands[:constants]

        def step(carry: Any, _: Any) -> Any:
            inputs = [*fixed, *carry]
            goes_on = inline(condition, inputs)[0]
            return control.cond(goes_on, lambda: inline(body, inputs), lambda: carry), None

        return list(control.scan(step, list(operands[constants:]), None, length=max_steps)[0])

    sub = trace.trace_subgraph(bounded, [operand.spec for operand in x])
    return pull_graph(sub.graph, x, g, [operand.dtype.is_float for operand in x])


while_loop = define(
    "while_loop",
    FAMILY,
    infer=_infer_while,
    numpy=_while,
    vjp=_while_vjp,
    multiple=True,
    samples=(
        Sample(
            (normal(3, 3), integers(low=0, high=6)),
            "numpy.linalg.matrix_power",
            lambda power, a, n: power(a, int(n)),
            function=lambda a, n: _matrix_power(a, n),
        ),
    ),
    summary="repeats a sub-graph while a condition holds",
)


# call ----------------------------------------------------------------------------------------------------------------
def _infer_call(*specs: Spec, name: str, body: Graph, rule: Any = None, options: Any = None) -> tuple[Spec, ...]:
    _check_operands(name, body, specs)
    return tuple(symbol.spec for symbol in body.outputs)


def _call_vjp(g: Any, y: Any, *x: Any, name: str, body: Graph, rule: Any = None, options: Any = None) -> Sequence[Any]:
    if rule is not None:
        found: Sequence[Any] = rule(g if len(y) > 1 else g[0], y if len(y) > 1 else y[0], *x, **(options or {}))
        return found
    return pull_graph(body, x, g, [operand.dtype.is_float for operand in x])


call = define(
    "call",
    FAMILY,
    infer=_infer_call,
    numpy=lambda xp, *x, name, body, rule=None, options=None: tuple(program(body).run(xp, x)),
    vjp=_call_vjp,
    multiple=True,
    samples=(
        Sample((normal(3, 4),), "numpy.tanh", function=lambda x: control.checkpoint(tanh)(x)),
        Sample(
            (normal(3, 4),),
            "numpy.square",
            function=lambda x: control.call("square", lambda x: x * x, x, rule=lambda g, y, x: (2.0 * x * g,)),
        ),
    ),
    summary="a named sub-graph: a composite that a backend may claim whole, or a checkpoint that is recomputed",
)


# identities with a meaning for gradients -----------------------------------------------------------------------------
stop_gradient = define(
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
    pulled = inline(rule, [*captured, *_present(g, y)])
    return [None] * results + pulled + [None] * len(captured)


custom_gradient = define(
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
            function=lambda x: control.custom_gradient(_exp_with_gradient)(x),
        ),
    ),
    summary="its first operands, differentiated by a rule of the user's",
)


# What the samples run ------------------------------------------------------------------------------------------------
def _recurrence(start: Any, xs: Any, rate: Any) -> Any:
    """y = rate · y + x, step by step."""

    def step(carry: Any, x: Any) -> Any:
        carry = operators.multiply(carry, rate) + x
        return carry, carry

    return control.scan(step, start, xs)


def _running_sum_from_the_end(xs: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        return carry + x, carry + x

    last, sums = control.scan(step, zeros_like(xs[0]), xs, reverse=True)
    return sums, last


def _choice(condition: Any, x: Any) -> Any:
    """sin(x) times the condition if it holds, else x²."""
    holds = condition if condition.dtype.is_bool else condition > 0
    return control.cond(holds, lambda: sin(x) * operators.cast(condition, x.dtype), lambda: x * x)


def _exp_with_gradient(x: Any) -> Any:
    return exp(x), lambda g: g * exp(x)


def _matrix_power(a: Any, n: Any) -> Any:
    def step(count: Any, product: Any) -> Any:
        return count + 1, matmul(product, a)

    rows, columns = (iota(shape=a.shape, axis=axis, dtype=n.dtype) for axis in range(2))
    identity = operators.cast(rows == columns, a.dtype)
    return control.while_loop(lambda count, _: count < n, step, (n * 0, identity), maximum_iterations=8)[1]


from .. import control, operators, trace  # noqa: E402
from ..autodiff import backward, pull_graph  # noqa: E402
from ..control import inline  # noqa: E402
from ..evaluate import program  # noqa: E402
from ..graph import Replay, key_of  # noqa: E402
from .contraction import matmul  # noqa: E402
from .creation import iota, zeros_like  # noqa: E402
from .elementwise import exp, sin, tanh  # noqa: E402
