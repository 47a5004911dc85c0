"""Reverse-mode differentiation of graphs, and what follows from it.

`gradients` walks the nodes between the outputs and what they are differentiated by, backwards, and adds the nodes that
the `vjp` rules make. Rules are made of primitives, so gradients have gradients. Forward mode is reverse mode twice: the
cotangent map g ↦ Jᵀg is linear, and the derivative of a linear map by its argument is the map transposed, J.

See A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., SIAM 2008; and for the transposition, R. Frostig et
al., "Decomposing reverse-mode automatic differentiation", 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import GradientError

from . import jit, operators, primitives, trace, tree
from .graph import Graph, Node, Symbol, key_of, reachable
from .operand import Operand
from .rewrite import Replay
from .variable import Variable

Key = tuple[int, int]


def backward(
    outputs: Sequence[tuple[Symbol, Any]], wrt: Sequence[Symbol], values: Callable[[Symbol], Symbol] | None = None
) -> list[Symbol | None]:
    """Cotangents of `wrt` for (output, cotangent) pairs; None where no output depends on it.

    values: where rules find the primal values, if not in the symbols themselves: for the body of a loop, say, a
            `Replay` that knows what was saved and computes the rest again
    """
    nodes = reachable(symbol for symbol, _ in outputs)
    active = {key_of(symbol) for symbol in wrt}
    on_path: list[Node] = []
    for node in nodes:
        if node.primitive is not None and any(key_of(symbol) in active for symbol in node.inputs):
            on_path.append(node)
            active.update((node.id, i) for i, spec in enumerate(node.specs) if spec.dtype.is_float)
    cotangents: dict[Key, Any] = {}

    def accumulate(symbol: Symbol, cotangent: Any) -> None:
        key = key_of(symbol)
        cotangents[key] = cotangent if key not in cotangents else primitives.add(cotangents[key], cotangent)

    for symbol, cotangent in outputs:
        if cotangent is not None and key_of(symbol) in active:
            accumulate(symbol, cotangent)
    with trace.placed() as here:
        for node in reversed(on_path):
            upstream = tuple([cotangents.get((node.id, i)) for i in range(len(node.specs))])
            if all([cotangent is None for cotangent in upstream]):
                continue
            here.at = node.origin  # a layer's gradient counts as the layer's
            needed = tuple([key_of(symbol) in active for symbol in node.inputs])
            found = _apply_rule(node, upstream, needed, values)
            for symbol, wanted, cotangent in zip(node.inputs, needed, found, strict=True):
                if wanted and cotangent is not None:
                    accumulate(symbol, cotangent)
    return [cotangents.get(key_of(symbol)) for symbol in wrt]


def _apply_rule(
    node: Node, upstream: tuple[Any, ...], needed: tuple[bool, ...], values: Callable[[Symbol], Symbol] | None
) -> Sequence[Any]:
    primitive = node.primitive
    assert primitive is not None
    if primitive.vjp is None:
        raise GradientError(
            f"{primitive.name} has no gradient",
            got=f"{', '.join(map(str, node.specs))} of {primitive.name} on the way to the loss  {node.origin}".rstrip(),
            hint="ops.stop_gradient around it, or ops.custom_gradient",
        )
    attrs = dict(node.attrs)
    if primitive.selective:
        attrs["needed"] = needed
    operands, results = node.inputs, node.outputs
    if values is not None:
        operands, results = tuple(map(values, operands)), tuple(map(values, results))
    if primitive.multiple:
        cotangents = primitive.vjp(upstream, results, *operands, **attrs)
    else:
        cotangents = primitive.vjp(upstream[0], results[0], *operands, **attrs)
    return (None,) * len(operands) if cotangents is None else cotangents


def gradients(outputs: Any, wrt: Any, cotangents: Any = None, *, zeros: bool = True) -> Any:
    """Gradients of the sum of `outputs` – weighted by `cotangents` – by each of `wrt` (symbols or variables).

    outputs, cotangents: a symbol or a tree of them; shapes equal; without `cotangents` all weights are 1
    wrt:                 a tree; the result has its structure, each gradient the shape of its operand. A variable that
                         was assigned meanwhile counts with the latest of its values that the outputs depend on
    zeros:               what does not influence the outputs gets zeros; if False, None
    """
    targets, structure = tree.flatten(wrt)
    ends = tree.leaves(outputs)
    weights = [None] * len(ends) if cotangents is None else tree.leaves(cotangents)
    if len(weights) != len(ends):
        raise GradientError(
            "one cotangent per output", got=f"{len(weights)} cotangents", expected=f"{len(ends)} outputs"
        )
    pairs = []
    for end, weight in zip(ends, weights, strict=True):
        if isinstance(end, Symbol):
            pairs.append((end, _weight(end, weight)))
        elif not isinstance(end, Operand):  # a number depends on nothing
            raise GradientError(
                "gradients need symbols", got=type(end).__name__, expected="results of traced operators"
            )
    computed = {node.id for node in reachable(end for end, _ in pairs)}
    symbols = [_as_symbol(target, computed) for target in targets]
    found = backward(pairs, symbols)
    if zeros:
        found = [operators.zeros_like(s) if g is None else g for s, g in zip(symbols, found, strict=True)]
    return tree.unflatten(structure, found)


def _weight(end: Symbol, weight: Any) -> Any:
    if not end.dtype.is_float:
        raise GradientError("only floating-point outputs have gradients", got=end.spec, hint="cast the loss to float32")
    if weight is None:
        return operators.ones_like(end)
    return operators.broadcast_to(operators.cast(weight, end.dtype), end.shape)


def _as_symbol(target: Any, computed: set[int]) -> Symbol:
    """The symbol that a gradient is asked for by; of a variable's values the latest among the nodes `computed`."""
    if isinstance(target, Variable):
        values = target.values_in_trace()
        target = next((value for value in reversed(values) if value.node.id in computed), values[-1])
    if not isinstance(target, Symbol):
        raise GradientError(
            "cannot differentiate by a number",
            got=type(target).__name__,
            expected="a Variable or a symbol of the open trace",
            hint="hl.grad(function)(value) traces the function for you",
        )
    if not target.dtype.is_float:
        raise GradientError(
            "only floating-point values have gradients", got=target.spec, expected="a floating-point type",
            hint="cast the argument to float32, or choose others with argnums",
        )  # fmt: skip
    return target


# Derivatives of functions --------------------------------------------------------------------------------------------
def _symbolic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function that works on symbols: in the open trace, or in one of its own that is computed at once."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if trace.is_open():
            return function(*tree.map(_lift, args), **kwargs)
        return jit.Compiled(function)(*args, **kwargs)

    return run


def _lift(leaf: Any) -> Any:
    return trace.lift(operators.operand(leaf)) if jit.is_array(leaf) else leaf


def _number(leaf: Any) -> Any:
    """Python's numbers as tensors: what is differentiated by has to be an array."""
    return operators.operand(leaf) if isinstance(leaf, (int, float)) and not isinstance(leaf, bool) else leaf


def _own(leaf: Any) -> Any:
    """A symbol of its own for an argument: other uses of the same value do not count as uses of the argument."""
    return primitives.reshape(leaf, shape=leaf.shape) if isinstance(leaf, Symbol) else leaf


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns `(value, gradient)` of a scalar-valued function.

    argnums: which positional arguments to differentiate by (trees of arrays, or variables)
    has_aux: the function returns `(value, more)`; the result is `((value, more), gradient)`
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def run(*args: Any, **kwargs: Any) -> Any:
        inputs = list(args)
        for i in positions:
            inputs[i] = tree.map(_own, inputs[i])
        result = function(*inputs, **kwargs)
        value = result[0] if has_aux else result
        if not isinstance(value, Operand) or value.shape != ():
            raise GradientError(
                "grad needs a scalar",
                got=value.spec if isinstance(value, Operand) else type(value).__name__,
                expected="shape ()",
                hint="return ops.mean(…) or ops.sum(…)",
            )
        found = gradients(value, tuple(inputs[i] for i in positions))
        return result, found[0] if isinstance(argnums, int) else found

    def call(*args: Any, **kwargs: Any) -> Any:
        inputs = list(args)
        for i in positions:
            inputs[i] = tree.map(_number, inputs[i])
        return _symbolic(run)(*inputs, **kwargs)

    return call


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar-valued function, as a function.

    >>> from highlevel import ops
    >>> grad(lambda x: ops.sum(x * x * x))(ops.array([1.0, 2.0])).numpy()
    array([ 3., 12.], dtype=float32)
    """
    both = value_and_grad(function, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def _differentiable(arguments: Any) -> list[Any]:
    """The floating-point symbols and variables among arguments; integers ride along."""
    return [leaf for leaf in tree.leaves(arguments) if _is_differentiable(leaf)]


def _is_differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Operand) and leaf.dtype.is_float


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`(y, pullback)`: the outputs, and the function from a cotangent of y to a tuple of cotangents of the primals.

    Primals that are not floating-point have the cotangent None.
    """
    primals = tree.map(_number, primals)

    def pull_back(y: Any, arguments: Any, cotangent: Any) -> Any:
        found = iter(gradients(y, _differentiable(arguments), cotangent))
        return tree.map(lambda leaf: next(found) if _is_differentiable(leaf) else None, arguments)

    if trace.is_open():
        arguments = tree.map(_own, tree.map(_lift, primals))
        y = function(*arguments)
        return y, lambda cotangent: pull_back(y, arguments, cotangent)

    def pull(cotangent: Any, *args: Any) -> Any:
        return pull_back(function(*args), args, cotangent)

    return _symbolic(function)(*primals), lambda cotangent: _symbolic(pull)(tree.map(_number, cotangent), *primals)


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """`(y, J·tangents)`: the outputs, and their derivative in the direction of the tangents."""

    def run(xs: Any, directions: Any) -> Any:
        xs = tree.map(_own, xs)
        y = function(*xs)
        ends, structure = tree.flatten(y)
        smooth = [end for end in ends if isinstance(end, Symbol) and end.dtype.is_float]
        dummies = [operators.zeros_like(end) for end in smooth]
        pulled = gradients(smooth, _differentiable(xs), dummies)
        given = [t for x, t in zip(tree.leaves(xs), tree.leaves(directions), strict=True) if _is_differentiable(x)]
        pushed = iter(gradients(pulled, dummies, given))
        moved = [next(pushed) if any(end is s for s in smooth) else operators.zeros_like(end) for end in ends]
        return y, tree.unflatten(structure, moved)

    y, direction = _symbolic(run)(tree.map(_number, tuple(primals)), tree.map(_number, tuple(tangents)))
    return y, direction


# Sub-graphs ----------------------------------------------------------------------------------------------------------
def pull_graph(graph: Graph, inputs: Sequence[Symbol], cotangents: Sequence[Any], needed: Sequence[bool]) -> list[Any]:
    """Cotangents of a sub-graph's inputs, its forward pass recorded again from `inputs`; None where not needed."""
    values = Replay({key_of(symbol): stand_in for symbol, stand_in in zip(graph.inputs, inputs, strict=True)})
    wanted = [symbol for symbol, flag in zip(graph.inputs, needed, strict=True) if flag]
    found = iter(backward(list(zip(graph.outputs, cotangents, strict=True)), wanted, values))
    return [next(found) if flag else None for flag in needed]
