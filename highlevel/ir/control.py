"""Control flow as functions: scan, cond, while_loop, checkpoint, custom_gradient, composites.

On numbers these are plain Python – a loop, an if – so that a body can be stepped through. On symbols the functions that they
are given are traced into sub-graphs. Variables assigned inside become state of the loop, and are assigned after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError

from . import operators, primitives, trace, tree
from .graph import Graph, Symbol, key_of, substitute
from .variable import Variable


def _symbols(leaves: Sequence[Any]) -> list[Symbol]:
    root = trace.open_traces()[0]
    return [trace.lift(operators.operand(leaf), root) for leaf in leaves]


def _is_symbolic(*trees: Any) -> bool:
    return any(isinstance(leaf, Symbol) for leaf in tree.leaves(trees))


def _restore_state(state: Sequence[Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(state, values, strict=True):
        variable.assign(value)


def inline(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a closed graph for other inputs, recorded in the open trace."""
    return list(substitute(graph.outputs, dict(zip(map(key_of, graph.inputs), inputs, strict=True))))


# scan --------------------------------------------------------------------------------------------------------------------
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """A loop with state: `carry, y = f(carry, x)` for each x along the leading axis of `xs`.

    init:    the first carry, a tree; f must return one of the same shapes and types
    xs:      a tree of arrays with one leading size, or None with `length`
    returns: the last carry, and the y's stacked along a new leading axis
    """
    leaves, structure = tree.flatten(xs)
    arrays = [] if xs is None else [operators.operand(leaf) for leaf in leaves]
    sizes = {array.shape[0] for array in arrays if array.ndim} | ({length} if length is not None else set())
    if len(sizes) != 1 or any(array.ndim == 0 for array in arrays):
        raise ShapeError(
            "scan: the number of steps is not clear",
            got=f"xs of {[array.spec for array in arrays]}, length={length}",
            expected="one leading size, or `length`",
        )
    (steps,) = sizes
    if trace.is_open():
        return _scan_symbolic(f, init, arrays, structure if xs is not None else None, steps, reverse)
    carry, outputs = init, []
    for t in reversed(range(steps)) if reverse else range(steps):
        carry, y = f(carry, None if xs is None else tree.unflatten(structure, [array[t] for array in arrays]))
        outputs.append(y)
    if not outputs:
        raise ArgumentError("scan: no steps", got="length 0", expected="at least one step outside of a traced function")
    ordered = outputs[::-1] if reverse else outputs
    return carry, tree.map(lambda *items: None if items[0] is None else stack(items), *ordered)


def stack(items: Sequence[Any]) -> Any:
    """Operands of one spec along a new leading axis."""
    matched = operators.match(*items, operator="stack")
    rows = [operators.reshape(item, 1, *item.shape) for item in matched]
    return rows[0] if len(rows) == 1 else primitives.concatenate(*rows, axis=0)


def _scan_symbolic(f: Any, init: Any, arrays: list[Any], structure: Any, steps: int, reverse: bool) -> tuple[Any, Any]:
    carry_leaves, carry_structure = tree.flatten(init)
    carry = _symbols(carry_leaves)
    sequences = _symbols(arrays)
    shapes: dict[str, Any] = {}

    def body(*symbols: Symbol) -> list[Any]:
        now = tree.unflatten(carry_structure, symbols[: len(carry)])
        x = None if structure is None else tree.unflatten(structure, symbols[len(carry) :])
        new_carry, y = f(now, x)
        new_leaves, new_structure = tree.flatten(new_carry)
        if new_structure != carry_structure:
            raise ArgumentError("scan: the body changes the carry's structure", got=new_structure, expected=carry_structure)
        ys, shapes["y"] = tree.flatten(y)
        shapes["present"] = [item is not None for item in ys]
        kept = [operators.operand(item) for item in ys if item is not None]
        ends = [operators.cast(n, c.dtype) for n, c in zip(new_leaves, carry, strict=True)]
        return [*ends, *kept]

    slices = [sequence.spec.with_shape(sequence.shape[1:]) for sequence in sequences]
    sub = trace.trace_subgraph(body, [*(s.spec for s in carry), *slices], hoist=True)
    graph, ys = _with_intermediates(_carry_first(sub, len(carry)), len(sub.captured), len(sub.state) + len(carry))
    state = _symbols([variable.read() for variable in sub.state])
    results = primitives.scan(
        *sub.captured, *state, *carry, *sequences,
        body=graph, constants=len(sub.captured), carries=len(state) + len(carry), length=steps, reverse=reverse,
    )  # fmt: skip
    _restore_state(sub.state, results[: len(state)])
    end = len(state) + len(carry)
    supply = iter(results[end : end + ys])
    outputs = [next(supply) if present else None for present in shapes["present"]]
    return tree.unflatten(carry_structure, results[len(state) : end]), tree.unflatten(shapes["y"], outputs)


def _carry_first(sub: trace.SubGraph, carries: int) -> Graph:
    """Outputs (carry…, ys…, state…) in the order (state…, carry…, ys…) of the loop's operands."""
    outputs, n = sub.graph.outputs, len(sub.state)
    split = len(outputs) - n
    return Graph(sub.graph.inputs, (*outputs[split:], *outputs[:carries], *outputs[carries:split]))


def _with_intermediates(graph: Graph, constants: int, carries: int) -> tuple[Graph, int]:
    """Adds the carry that enters each step and every intermediate that is not mere movement as extra outputs."""
    ys = len(graph.outputs) - carries
    extra = list(graph.inputs[constants : constants + carries])
    for node in graph.nodes():
        if node.primitive is not None and node.inputs and node.primitive.family != "movement":
            extra += node.outputs
    return Graph(graph.inputs, (*graph.outputs, *extra)), ys


# cond --------------------------------------------------------------------------------------------------------------------
def cond(predicate: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """`true_fn(*operands)` if the predicate (a scalar) holds, else `false_fn(*operands)`; only one of them is computed."""
    if isinstance(predicate, bool):
        return (true_fn if predicate else false_fn)(*operands)
    predicate = operators.operand(predicate)
    if not isinstance(predicate, Symbol):
        return (true_fn if bool(predicate) else false_fn)(*operands)
    if predicate.shape != ():
        raise ShapeError("cond: the condition is not a scalar", got=predicate.spec, expected="shape ()", hint="ops.where")
    predicate = operators.cast(predicate, "bool")
    shapes: list[Any] = []

    def traced(branch: Callable[..., Any]) -> Callable[[], list[Any]]:
        def run() -> list[Any]:
            leaves, structure = tree.flatten(branch(*operands))
            shapes.append(structure)
            return [operators.operand(leaf) for leaf in leaves]

        return run

    then = trace.trace_subgraph(traced(true_fn), ())
    otherwise = trace.trace_subgraph(traced(false_fn), (), state=then.state)
    if len(otherwise.state) != len(then.state):
        then = trace.trace_subgraph(traced(true_fn), (), state=otherwise.state)
    if shapes[-1] != shapes[0]:
        raise ArgumentError("cond: the branches return different structures", got=shapes[-1], expected=shapes[0])
    merged = {key_of(s): s for s in (*then.captured, *otherwise.captured)}
    captured = [merged[key] for key in sorted(merged)]
    first, second = _widen(then, captured), _widen(otherwise, captured)
    state = _symbols([variable.read() for variable in then.state])
    results = primitives.cond(predicate, *captured, *state, then=first, otherwise=second)
    count = len(results) - len(state)
    _restore_state(then.state, results[count:])
    return tree.unflatten(shapes[0], results[:count])


def _widen(sub: trace.SubGraph, captured: Sequence[Symbol]) -> Graph:
    """The sub-graph with an input for each symbol of `captured`, used or not."""
    own = dict(zip(map(key_of, sub.captured), sub.graph.inputs, strict=False))
    with trace.Trace() as unused:
        inputs = [own[key_of(s)] if key_of(s) in own else unused.leaf("input", "unused", s.spec) for s in captured]
    return Graph((*inputs, *sub.graph.inputs[len(sub.captured) :]), sub.graph.outputs)


# while_loop ----------------------------------------------------------------------------------------------------------------
def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeats `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds.

    Differentiable if `maximum_iterations` is given. Returns loop_vars, in their structure.
    """
    single = not isinstance(loop_vars, (list, tuple))
    start = (loop_vars,) if single else loop_vars
    if not trace.is_open():
        values, count = start, 0
        while (maximum_iterations is None or count < maximum_iterations) and bool(cond(*values)):
            result = body(*values)
            values = result if isinstance(result, (list, tuple)) else (result,)
            count += 1
        return values[0] if single else values
    leaves, structure = tree.flatten(tuple(start))
    carry = _symbols(leaves)

    def step(*symbols: Symbol) -> list[Any]:
        result = body(*tree.unflatten(structure, symbols))
        new, new_structure = tree.flatten(tuple(result) if isinstance(result, (list, tuple)) else (result,))
        if new_structure != structure:
            raise ArgumentError("while_loop: the body changes the structure", got=new_structure, expected=structure)
        return [operators.cast(n, c.dtype) for n, c in zip(new, carry, strict=True)]

    def test(*symbols: Symbol) -> list[Any]:
        return [operators.cast(cond(*tree.unflatten(structure, symbols)), "bool")]

    specs = [symbol.spec for symbol in carry]
    stepped = trace.trace_subgraph(step, specs, hoist=True)
    tested = trace.trace_subgraph(test, specs, hoist=True, state=stepped.state)
    merged = {key_of(s): s for s in (*stepped.captured, *tested.captured)}
    captured = [merged[key] for key in sorted(merged)]
    count = len(stepped.state)
    state = _symbols([variable.read() for variable in stepped.state])
    graph = _carry_first(trace.SubGraph(_widen(stepped, captured), captured, stepped.state), len(carry))
    condition = _widen(tested, captured)
    results = primitives.while_loop(
        *captured, *state, *carry, condition=Graph(condition.inputs, condition.outputs[:1]), body=graph,
        constants=len(captured), max_steps=maximum_iterations,
    )  # fmt: skip
    _restore_state(stepped.state, results[:count])
    values = tree.unflatten(structure, results[count:])
    return values[0] if single else type(start)(values)


# calls -------------------------------------------------------------------------------------------------------------------
def call(
    name: str, function: Callable[..., Any], *operands: Any, rule: Callable[..., Any] | None = None, **options: Any
) -> Any:
    """Runs a function of arrays as one named node, which a backend may claim whole.

    rule: its gradient, `rule(g, y, *operands, **options)` → one cotangent per operand; without it the body is recomputed and
    differentiated
    """
    values = [operators.operand(operand) for operand in operands]
    if not _is_symbolic(values):
        return function(*values, **options)
    symbols = _symbols(values)
    structure: list[Any] = []

    def body(*inputs: Symbol) -> list[Any]:
        leaves, shape = tree.flatten(function(*inputs, **options))
        structure[:] = [shape]
        return [operators.operand(leaf) for leaf in leaves]

    sub = trace.trace_subgraph(body, [symbol.spec for symbol in symbols])
    state = _symbols([variable.read() for variable in sub.state])
    wrapped = None
    if rule is not None:
        if sub.captured or sub.state:
            raise ArgumentError(f"{name}: a function with its own gradient must take all it uses as operands")
        wrapped = rule
    results = primitives.call(*sub.captured, *state, *symbols, name=name, body=sub.graph, rule=wrapped, options=options)
    count = len(results) - len(state)
    _restore_state(sub.state, results[count:])
    return tree.unflatten(structure[0], results[:count])


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose intermediate values are not kept for the gradient but computed again.

    Saves memory for time (A. Griewank 1992; T. Chen et al., "Training deep nets with sublinear memory cost", 2016).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree.flatten((args, kwargs))
        data = [i for i, leaf in enumerate(leaves) if jit.is_array(leaf)]

        def body(*symbols: Any) -> Any:
            filled = list(leaves)
            for i, symbol in zip(data, symbols, strict=True):
                filled[i] = symbol
            inner_args, inner_kwargs = tree.unflatten(structure, filled)
            return function(*inner_args, **inner_kwargs)

        return call("checkpoint", body, *(leaves[i] for i in data))

    return run


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that brings its own gradient: it returns `(y, gradient)`.

    `gradient(*upstream)` (or `gradient(*args, upstream=…)`, Keras's form) returns one cotangent per argument.

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
        if not _is_symbolic(operands, y):
            return y
        results, structure = tree.flatten(y)
        results, operands = _symbols(results), _symbols(operands)

        def rule(*upstream: Symbol) -> list[Any]:
            cotangents = _call_gradient(gradient, operands, upstream)
            if len(cotangents) != len(operands):
                raise ArgumentError(
                    "custom_gradient: one cotangent per argument", got=len(cotangents), expected=len(operands)
                )
            return [
                operators.zeros_like(x) if c is None else operators.cast(operators.broadcast_to(c, x.shape), x.dtype)
                for c, x in zip(cotangents, operands, strict=True)
            ]

        sub = trace.trace_subgraph(rule, [result.spec for result in results])
        outputs = primitives.custom_gradient(
            *results, *operands, *sub.captured, results=len(results), operands=len(operands), rule=sub.graph
        )
        return tree.unflatten(structure, outputs)

    return run


def _call_gradient(gradient: Callable[..., Any], operands: Sequence[Any], upstream: Sequence[Any]) -> Sequence[Any]:
    import inspect

    if "upstream" in inspect.signature(gradient).parameters and len(upstream) == 1:
        parameters = inspect.signature(gradient).parameters
        keras_form = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        found = gradient(*operands, upstream=upstream[0]) if keras_form else gradient(upstream=upstream[0])
    else:
        found = gradient(*upstream)
    return found if isinstance(found, (list, tuple)) else (found,)


from . import jit  # noqa: E402
