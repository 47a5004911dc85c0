"""Control flow as functions: scan, cond, while_loop, checkpoint, custom_gradient, composites.

On numbers these are plain Python – a loop, an if – so that a body can be stepped through. On symbols the functions that
they are given are traced into sub-graphs. Variables assigned inside become state of the loop, and are assigned after
it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from . import operators, primitives, trace, tree
from .dtypes import holds_kind
from .graph import Graph, Replay, Symbol, key_of
from .spec import Spec
from .variable import Variable


def _symbols(operands: Sequence[Any]) -> list[Symbol]:
    return [trace.lift(operators.operand(operand)) for operand in operands]


def _read_state(state: Sequence[Variable]) -> list[Symbol]:
    return [variable.master() for variable in state]


def _restore_state(state: Sequence[Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(state, values, strict=True):
        variable.assign(value)


def _split(value: Any) -> tuple[list[Any], Any]:
    """The operands of a tree, and what `_join` needs to put it together; leaves that are None stay None."""
    leaves, structure = tree.flatten(value)
    present = tuple([leaf is not None for leaf in leaves])
    return [operators.operand(leaf) for leaf in leaves if leaf is not None], (structure, present)


def _join(shape: Any, operands: Sequence[Any]) -> Any:
    structure, present = shape
    supply = iter(operands)
    return tree.unflatten(structure, [next(supply) if here else None for here in present])


def _next_carry(name: str, value: Any, shape: Any, specs: Sequence[Spec]) -> list[Any]:
    """What a body returns as operands of the carry's specs: shapes must agree, types are cast within reason."""
    operands, new_shape = _split(value)
    if new_shape != shape:
        raise ArgumentError(f"{name}: the body changes the structure of the carry", got=new_shape[0], expected=shape[0])
    for i, (operand, spec) in enumerate(zip(operands, specs, strict=True)):
        if operand.shape != spec.shape:
            raise ShapeError(f"{name}: the body changes the shape of the carry", got=operand.spec, expected=spec)
        if not holds_kind(spec.dtype, operand.dtype):
            raise DTypeError(
                f"{name}: the body changes the type of the carry",
                got=operand.spec,
                expected=spec,
                hint="start with a carry of the final type, or cast inside the body",
            )
        operands[i] = operators.cast(operand, spec.dtype)
    return operands


def inline(graph: Graph, inputs: Sequence[Any]) -> list[Symbol]:
    """The outputs of a closed graph for other inputs, recorded in the open trace."""
    replay = Replay(dict(zip(map(key_of, graph.inputs), inputs, strict=True)))
    return [replay(symbol) for symbol in graph.outputs]


# scan ----------------------------------------------------------------------------------------------------------------
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
    sequences, xs_shape = _split(xs)
    carry, carry_shape = _split(init)
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
        new_carry, y = f(_join(carry_shape, carry), _join(xs_shape, now))
        return _next_carry("scan", new_carry, carry_shape, specs), y

    run = _scan_symbolic if trace.is_open() else _scan_now
    end, ys = run(step, carry, sequences, steps, reverse)
    return _join(carry_shape, end), ys


def _scan_now(step: Any, carry: list[Any], sequences: list[Any], steps: int, reverse: bool) -> tuple[list[Any], Any]:
    rows: list[Any] = []
    for t in reversed(range(steps)) if reverse else range(steps):
        carry, y = step(carry, [sequence[t] for sequence in sequences])
        operands, shape = _split(y)
        rows.append(operands)
    if not rows:
        raise ArgumentError("scan: no steps", got="length 0", expected="at least one step outside of a traced function")
    if reverse:
        rows.reverse()
    return carry, _join(shape, [stack(column) for column in zip(*rows, strict=True)])


def stack(items: Sequence[Any]) -> Any:
    """Operands of one spec along a new leading axis."""
    matched = operators.match(*items, operator="stack")
    rows = [operators.reshape(item, 1, *item.shape) for item in matched]
    return rows[0] if len(rows) == 1 else primitives.concatenate(*rows, axis=0)


def _scan_symbolic(
    step: Any, carry: list[Any], sequences: list[Any], steps: int, reverse: bool
) -> tuple[Sequence[Any], Any]:
    carry, sequences = _symbols(carry), _symbols(sequences)
    shapes: list[Any] = []

    def body(*symbols: Symbol) -> list[Any]:
        ends, y = step(symbols[: len(carry)], symbols[len(carry) :])
        ys, shape = _split(y)
        shapes[:] = [shape]
        return [*ends, *ys]

    slices = [sequence.spec.with_shape(sequence.shape[1:]) for sequence in sequences]
    sub = trace.trace_subgraph(body, [*(s.spec for s in carry), *slices], hoist=True)
    constants, carries = len(sub.captured), len(sub.state) + len(carry)
    graph = _state_first(sub, len(carry))
    ys = len(graph.outputs) - carries
    graph, used = _without_unused(_with_intermediates(graph, constants, carries), constants + carries)
    taken = [sequence for sequence, is_used in zip(sequences, used, strict=True) if is_used]
    results = primitives.scan(
        *sub.captured, *_read_state(sub.state), *carry, *taken,
        body=graph, constants=constants, carries=carries, length=steps, reverse=reverse,
    )  # fmt: skip
    _restore_state(sub.state, results[: len(sub.state)])
    return results[len(sub.state) : carries], _join(shapes[0], results[carries : carries + ys])


def _state_first(sub: trace.SubGraph, carries: int) -> Graph:
    """Outputs (carry…, ys…, state…) in the order (state…, carry…, ys…) of the loop's operands."""
    outputs, n = sub.graph.outputs, len(sub.state)
    split = len(outputs) - n
    return Graph(sub.graph.inputs, (*outputs[split:], *outputs[:carries], *outputs[carries:split]))


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


# cond ----------------------------------------------------------------------------------------------------------------
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
            results, shape = _split(branch(*operands))
            shapes.append(shape)
            return results

        return run

    then = trace.trace_subgraph(traced(true_fn), ())
    otherwise = trace.trace_subgraph(traced(false_fn), (), state=then.state)
    if len(otherwise.state) != len(then.state):
        then = trace.trace_subgraph(traced(true_fn), (), state=otherwise.state)
    for shape in shapes:
        if shape != shapes[0]:
            raise ArgumentError("cond: the branches return different structures", got=shape[0], expected=shapes[0][0])
    captured = _captured_by(then, otherwise)
    results = primitives.cond(
        operators.cast(predicate, "bool"), *captured, *_read_state(then.state),
        then=_taking(captured, then), otherwise=_taking(captured, otherwise),
    )  # fmt: skip
    count = len(results) - len(then.state)
    _restore_state(then.state, results[count:])
    return _join(shapes[0], results[:count])


def _captured_by(*subs: trace.SubGraph) -> list[Symbol]:
    """What any of the sub-graphs uses of its surroundings, in order of creation."""
    merged = {key_of(symbol): symbol for sub in subs for symbol in sub.captured}
    return [merged[key] for key in sorted(merged)]


def _taking(captured: Sequence[Symbol], sub: trace.SubGraph) -> Graph:
    """The sub-graph with an input for each symbol of `captured`, used or not, so that two sub-graphs take the same."""
    own = dict(zip(map(key_of, sub.captured), sub.graph.inputs, strict=False))
    unused = trace.Trace(serial=sub.graph.owner)
    inputs = [own[key_of(s)] if key_of(s) in own else unused.leaf("input", "unused", s.spec) for s in captured]
    return Graph((*inputs, *sub.graph.inputs[len(sub.captured) :]), sub.graph.outputs)


# while_loop ----------------------------------------------------------------------------------------------------------
def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeats `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds.

    Differentiable if `maximum_iterations` is given. Returns loop_vars, in their structure.
    """
    single = not isinstance(loop_vars, (list, tuple))
    start = (loop_vars,) if single else loop_vars
    carry, shape = _split(start)
    specs = [operand.spec for operand in carry]
    items = [tree.flatten(item)[1] for item in start]

    def step(*operands: Any) -> list[Any]:
        result = body(*_join(shape, operands))
        if isinstance(result, (list, tuple)) and [tree.flatten(item)[1] for item in result] == items:
            result = tree.unflatten(shape[0], tree.leaves(result))  # a list for a tuple is as good
        elif single:
            result = (result,)
        return _next_carry("while_loop", result, shape, specs)

    def test(*operands: Any) -> list[Any]:
        return [operators.cast(cond(*_join(shape, operands)), "bool")]

    if trace.is_open():
        carry = _while_symbolic(test, step, carry, maximum_iterations)
    else:
        count = 0
        while (maximum_iterations is None or count < maximum_iterations) and bool(test(*carry)[0]):
            carry = step(*carry)
            count += 1
    values = _join(shape, carry)
    return values[0] if single else values


def _while_symbolic(test: Any, step: Any, carry: list[Any], max_steps: int | None) -> list[Any]:
    carry = _symbols(carry)
    specs = [symbol.spec for symbol in carry]
    stepped = trace.trace_subgraph(step, specs, hoist=True)
    tested = trace.trace_subgraph(test, specs, hoist=True, state=stepped.state)
    if len(tested.state) != len(stepped.state):
        names = [variable.path for variable in tested.state[len(stepped.state) :]]
        raise ArgumentError(
            "while_loop: the condition assigns a variable",
            got=", ".join(names),
            expected="assignments in the body only",
        )
    captured = _captured_by(stepped, tested)
    condition = _taking(captured, tested)
    results = primitives.while_loop(
        *captured, *_read_state(stepped.state), *carry,
        condition=Graph(condition.inputs, condition.outputs[:1]),
        body=_state_first(trace.SubGraph(_taking(captured, stepped), captured, stepped.state), len(carry)),
        constants=len(captured), max_steps=max_steps,
    )  # fmt: skip
    _restore_state(stepped.state, results[: len(stepped.state)])
    return list(results[len(stepped.state) :])


# calls ---------------------------------------------------------------------------------------------------------------
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
    return _call_symbolic(name, function, _symbols(values), rule, options)


def _call_symbolic(name: str, function: Any, symbols: list[Symbol], rule: Any, options: dict[str, Any]) -> Any:
    shapes: list[Any] = []

    def body(*inputs: Symbol) -> list[Any]:
        results, shape = _split(function(*inputs, **options))
        shapes[:] = [shape]
        return results

    sub = trace.trace_subgraph(body, [symbol.spec for symbol in symbols])
    if rule is not None and (sub.captured or sub.state):
        raise ArgumentError(f"{name}: a function with its own gradient must take all it uses as operands")
    results = primitives.call(
        *sub.captured, *_read_state(sub.state), *symbols, name=name, body=sub.graph, rule=rule, options=options
    )
    count = len(results) - len(sub.state)
    _restore_state(sub.state, results[count:])
    return _join(shapes[0], results[:count])


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose intermediate values are not kept for the gradient but computed again.

    Saves memory for time (A. Griewank 1992; T. Chen et al., "Training deep nets with sublinear memory cost", 2016).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        if not trace.is_open():
            return function(*args, **kwargs)
        leaves, structure = tree.flatten((args, kwargs))
        data = [i for i, leaf in enumerate(leaves) if jit.is_array(leaf)]

        def body(*symbols: Any) -> Any:
            filled = list(leaves)
            for i, symbol in zip(data, symbols, strict=True):
                filled[i] = symbol
            inner_args, inner_kwargs = tree.unflatten(structure, filled)
            return function(*inner_args, **inner_kwargs)

        return _call_symbolic("checkpoint", body, _symbols([leaves[i] for i in data]), None, {})

    return run


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
        results, symbols = _symbols(results), _symbols(operands)

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

        sub = trace.trace_subgraph(rule, [result.spec for result in results])
        if sub.state:
            raise ArgumentError("custom_gradient: the gradient assigns a variable", got=sub.state[0].path)
        outputs = primitives.custom_gradient(
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


from . import jit  # noqa: E402
