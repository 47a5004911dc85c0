"""`scan` and `while_loop`: sub-graphs that run once per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError, GradientError, ShapeError

from .. import operators, oracles, trace, tree
from ..autodiff import backward, pull_graph
from ..evaluate import program
from ..graph import Graph, Symbol, key_of
from ..primitive import define
from ..primitives.contraction import matmul
from ..primitives.creation import iota, zeros_like
from ..primitives.movement import concatenate
from ..rewrite import Replay, inline
from ..sample import Sample, integers, normal, uniform
from ..spec import Spec
from ..subgraph import SubGraph, trace_subgraph
from .branch import cond
from .structure import (
    FAMILY,
    as_symbols,
    captured_by,
    check_operands,
    join,
    next_carry,
    present,
    read_state,
    restore_state,
    split,
    state_first,
    taking,
)


# scan -----------------------------------------------------------------------------------------------------------------
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """A loop with state: `carry, y = f(carry, x)` for each x along the leading axis of `xs`.

    init:    the first carry, a tree; f must return one of the same shapes and types
    xs:      a tree of arrays with one leading size, or None with `length`
    returns: the last carry, and the y's stacked along a new leading axis
    """
    sequences, xs_shape = split(xs)
    carry, carry_shape = split(init)
    sizes = {array.shape[0] for array in sequences if array.ndim} | ({length} if length is not None else set())
    if len(sizes) != 1 or any(array.ndim == 0 for array in sequences):
        raise ShapeError(
            "scan: the number of steps is not clear",
            got=f"xs of {[array.spec for array in sequences]}, length={length}",
            expected="one leading size, or `length`",
        )
    (steps,) = sizes
    specs = [operand.spec for operand in carry]

    def step(carry: Sequence[Any], now: Sequence[Any]) -> tuple[list[Any], Any]:
        new_carry, y = f(join(carry_shape, carry), join(xs_shape, now))
        return next_carry("scan", new_carry, carry_shape, specs), y

    run = _scan_symbolic if trace.is_open() else _scan_now
    end, ys = run(step, carry, sequences, steps, reverse)
    return join(carry_shape, end), ys


def _scan_now(step: Any, carry: list[Any], sequences: list[Any], steps: int, reverse: bool) -> tuple[list[Any], Any]:
    rows: list[Any] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        carry, y = step(carry, [sequence[t] for sequence in sequences])
        operands, shape = split(y)
        rows.append(operands)
    if not rows:
        raise ArgumentError("scan: no steps", got="length 0", expected="at least one step outside of a traced function")
    if reverse:
        rows.reverse()
    return carry, join(shape, [stack(column) for column in zip(*rows, strict=True)])


def stack(items: Sequence[Any]) -> Any:
    """Operands of one spec along a new leading axis."""
    matched = operators.match(*items, operator="stack")
    rows = [operators.reshape(item, 1, *item.shape) for item in matched]
    return rows[0] if len(rows) == 1 else concatenate(*rows, axis=0)


def _scan_symbolic(
    step: Any, carry: list[Any], sequences: list[Any], steps: int, reverse: bool
) -> tuple[Sequence[Any], Any]:
    carry, sequences = as_symbols(carry), as_symbols(sequences)
    shapes: list[Any] = []

    def body(*symbols: Symbol) -> list[Any]:
        ends, y = step(symbols[: len(carry)], symbols[len(carry) :])
        ys, shape = split(y)
        shapes[:] = [shape]
        return [*ends, *ys]

    slices = [sequence.spec.with_shape(sequence.shape[1:]) for sequence in sequences]
    sub = trace_subgraph(body, [*(s.spec for s in carry), *slices], hoist=True)
    constants, carries = len(sub.captured), len(sub.state) + len(carry)
    graph = state_first(sub, len(carry))
    ys = len(graph.outputs) - carries
    graph, used = _without_unused(_with_intermediates(graph, constants, carries), constants + carries)
    taken = [sequence for sequence, is_used in zip(sequences, used, strict=True) if is_used]
    results = scan_operator(
        *sub.captured, *read_state(sub.state), *carry, *taken,
        body=graph, constants=constants, carries=carries, length=steps, reverse=reverse,
    )  # fmt: skip
    restore_state(sub.state, results[: len(sub.state)])
    return results[len(sub.state) : carries], join(shapes[0], results[carries : carries + ys])


def _with_intermediates(graph: Graph, constants: int, carries: int) -> Graph:
    """Adds the carry that enters each step and every intermediate that is not mere movement as extra outputs."""
    extra = list(graph.inputs[constants : constants + carries])
    for node in graph.nodes():
        if node.primitive is not None and node.inputs and node.primitive.family != "movement":
            extra += node.outputs
    there = {key_of(symbol) for symbol in graph.outputs[carries:]}
    return Graph(graph.inputs, (*graph.outputs, *(symbol for symbol in extra if key_of(symbol) not in there)))


def _without_unused(graph: Graph, kept: int) -> tuple[Graph, list[bool]]:
    """The graph without inputs beyond the first `kept` that it does not use; which of those it uses.

    The loop of a gradient offers its body everything that the forward loop can save; what is not taken is never saved.
    """
    nodes = {node.id for node in graph.nodes()}
    used = [symbol.node.id in nodes for symbol in graph.inputs[kept:]]
    taken = [symbol for symbol, u in zip(graph.inputs[kept:], used, strict=True) if u]
    return Graph((*graph.inputs[:kept], *taken), graph.outputs), used


def _infer_scan(
    *specs: Spec, body: Graph, constants: int, carries: int, length: int, reverse: bool
) -> tuple[Spec, ...]:
    sliced = [spec.with_shape(spec.shape[1:]) for spec in specs[constants + carries :]]
    check_operands("scan", body, [*specs[: constants + carries], *sliced])
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
        found = present(backward(ends, wrt, Replay({**saved, **known})), wrt)
        n, m = len(float_fixed), len(float_fixed) + len(float_carry)
        new_sums = [a + b for a, b in zip(sums, found[:n], strict=True)]
        return (found[n:m], new_sums), found[m:]

    start = (
        [zeros_like(y[i]) if g[i] is None else g[i] for i in float_carry],
        [zeros_like(fixed[i]) for i in float_fixed],
    )
    steps = (list(stacks), list(sequences), [g[carries + i] for i in given])
    (first, sums), per_step = scan(step, start, steps, length=length, reverse=not reverse)
    cotangents: list[Any] = [None] * len(x)
    for i, c in zip(float_fixed, sums, strict=True):
        cotangents[i] = c
    for i, c in zip(float_carry, first, strict=True):
        cotangents[constants + i] = c
    for i, c in zip(float_sequence, per_step, strict=True):
        cotangents[constants + carries + i] = c
    return cotangents


scan_operator = define(
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


def _recurrence(start: Any, xs: Any, rate: Any) -> Any:
    """y = rate · y + x, step by step."""

    def step(carry: Any, x: Any) -> Any:
        carry = operators.multiply(carry, rate) + x
        return carry, carry

    return scan(step, start, xs)


def _running_sum_from_the_end(xs: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        return carry + x, carry + x

    last, sums = scan(step, zeros_like(xs[0]), xs, reverse=True)
    return sums, last


# while_loop -----------------------------------------------------------------------------------------------------------
def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeats `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds.

    Differentiable if `maximum_iterations` is given. Returns loop_vars, in their structure.
    """
    single = not isinstance(loop_vars, (list, tuple))
    start = (loop_vars,) if single else loop_vars
    carry, shape = split(start)
    specs = [operand.spec for operand in carry]
    items = [tree.flatten(item)[1] for item in start]

    def step(*operands: Any) -> list[Any]:
        result = body(*join(shape, operands))
        if isinstance(result, (list, tuple)) and [tree.flatten(item)[1] for item in result] == items:
            result = tree.unflatten(shape[0], tree.leaves(result))  # a list for a tuple is as good
        elif single:
            result = (result,)
        return next_carry("while_loop", result, shape, specs)

    def test(*operands: Any) -> list[Any]:
        return [operators.cast(cond(*join(shape, operands)), "bool")]

    if trace.is_open():
        carry = _while_symbolic(test, step, carry, maximum_iterations)
    else:
        count = 0
        while (maximum_iterations is None or count < maximum_iterations) and bool(test(*carry)[0]):
            carry = step(*carry)
            count += 1
    values = join(shape, carry)
    return values[0] if single else values


def _while_symbolic(test: Any, step: Any, carry: list[Any], max_steps: int | None) -> list[Any]:
    carry = as_symbols(carry)
    specs = [symbol.spec for symbol in carry]
    stepped = trace_subgraph(step, specs, hoist=True)
    tested = trace_subgraph(test, specs, hoist=True, state=stepped.state)
    if len(tested.state) != len(stepped.state):
        names = [variable.path for variable in tested.state[len(stepped.state) :]]
        raise ArgumentError(
            "while_loop: the condition assigns a variable",
            got=", ".join(names),
            expected="assignments in the body only",
        )
    captured = captured_by(stepped, tested)
    condition = taking(captured, tested)
    results = while_operator(
        *captured, *read_state(stepped.state), *carry,
        condition=Graph(condition.inputs, condition.outputs[:1]),
        body=state_first(SubGraph(taking(captured, stepped), captured, stepped.state), len(carry)),
        constants=len(captured), max_steps=max_steps,
    )  # fmt: skip
    restore_state(stepped.state, results[: len(stepped.state)])
    return list(results[len(stepped.state) :])


def _infer_while(
    *specs: Spec, condition: Graph, body: Graph, constants: int, max_steps: int | None
) -> tuple[Spec, ...]:
    check_operands("while_loop", body, specs)
    check_operands("while_loop", condition, specs)
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
            return cond(goes_on, lambda: inline(body, inputs), lambda: carry), None

        return list(scan(step, list(operands[constants:]), None, length=max_steps)[0])

    sub = trace_subgraph(bounded, [operand.spec for operand in x])
    return pull_graph(sub.graph, x, g, [operand.dtype.is_float for operand in x])


while_operator = define(
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


def _matrix_power(a: Any, n: Any) -> Any:
    def step(count: Any, product: Any) -> Any:
        return count + 1, matmul(product, a)

    rows, columns = (iota(shape=a.shape, axis=axis, dtype=n.dtype) for axis in range(2))
    identity = operators.cast(rows == columns, a.dtype)
    return while_loop(lambda count, _: count < n, step, (n * 0, identity), maximum_iterations=8)[1]
