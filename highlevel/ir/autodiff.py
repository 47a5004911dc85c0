"""Reverse-mode differentiation of graphs, and what follows from it.

`gradients` walks the nodes between the outputs and what they are differentiated by, backwards, and adds the nodes that
the `vjp` rules make. Rules are made of primitives, so gradients have gradients. Forward mode is reverse mode twice: the cotangent map g ↦ Jᵀg
is linear, and the derivative of a linear map by its argument is the map transposed, J.

See A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., SIAM 2008; and for the transposition, M. J. Innes et al. and
R. Frostig et al., "Decomposing reverse-mode automatic differentiation", 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from highlevel.errors import GradientError

from . import operators, primitives, trace, tree
from .dtypes import DType
from .graph import Graph, Node, Symbol, key_of, reachable, substitute
from .operand import Operand
from .variable import Variable

Key = tuple[int, int]


def flat(*_: Any, **__: Any) -> None:
    """The `vjp` of operators whose derivative is zero wherever it exists (floor, sign)."""


class Values:
    """Where rules find the primal values: the symbols themselves, or stand-ins for them in another trace.

    Stand-ins are given for inputs and for whatever was saved; the rest is recorded again from these when a rule asks.
    """

    def __init__(self, stand_ins: Mapping[Key, Symbol] | None = None) -> None:
        self._known = None if stand_ins is None else dict(stand_ins)

    def __call__(self, symbol: Symbol) -> Symbol:
        if self._known is None:
            return symbol
        key = key_of(symbol)
        if key not in self._known:
            self._known[key] = substitute([symbol], self._known)[0]
        return self._known[key]


def backward(
    outputs: Sequence[tuple[Symbol, Any]], wrt: Sequence[Symbol], values: Values | None = None
) -> list[Symbol | None]:
    """Cotangents of `wrt` for (output, cotangent) pairs; None where no output depends on it."""
    values = values or Values()
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
    for node in reversed(on_path):
        upstream = tuple(cotangents.get((node.id, i)) for i in range(len(node.specs)))
        if any(cotangent is not None for cotangent in upstream):
            needed = tuple(key_of(symbol) in active for symbol in node.inputs)
            for symbol, wanted, cotangent in zip(node.inputs, needed, _apply_rule(node, upstream, needed, values), strict=True):
                if wanted and cotangent is not None:
                    accumulate(symbol, cotangent)
    return [cotangents.get(key_of(symbol)) for symbol in wrt]


def _apply_rule(node: Node, upstream: tuple[Any, ...], needed: tuple[bool, ...], values: Values) -> Sequence[Any]:
    primitive = node.primitive
    assert primitive is not None
    if primitive.vjp is None:
        raise GradientError(
            f"{primitive.name} has no gradient",
            got=f"{', '.join(map(str, node.specs))} = {primitive.name}(…) on the way to the loss",
            layer=node.origin.layer or None,
            hint="ops.stop_gradient around it, or ops.custom_gradient",
        )
    attrs = dict(node.attrs)
    if primitive.selective:
        attrs["needed"] = needed
    operands = [values(symbol) for symbol in node.inputs]
    results = tuple(values(symbol) for symbol in node.outputs)
    if primitive.multiple:
        cotangents = primitive.vjp(upstream, results, *operands, **attrs)
    else:
        cotangents = primitive.vjp(upstream[0], results[0], *operands, **attrs)
    return (None,) * len(operands) if cotangents is None else cotangents


def gradients(outputs: Any, wrt: Any, cotangents: Any = None, *, zeros: bool = True) -> Any:
    """Gradients of the sum of `outputs` – weighted by `cotangents` – by each of `wrt` (symbols or variables).

    outputs, cotangents: a symbol or a tree of them; shapes equal; without `cotangents` all weights are 1
    wrt:                 a tree; the result has its structure, each gradient the shape of its operand
    zeros:               what does not influence the outputs gets zeros; if False, None
    """
    targets, structure = tree.flatten(wrt)
    symbols = [_as_symbol(target) for target in targets]
    ends = tree.leaves(outputs)
    if cotangents is None:
        weights = [operators.ones_like(end) for end in ends]
    else:
        weights = tree.leaves(cotangents)
    pairs = []
    for end, weight in zip(ends, weights, strict=True):
        if not isinstance(end, Symbol):
            if isinstance(end, Operand):
                continue  # a number depends on nothing
            raise GradientError("gradients need symbols", got=type(end).__name__, expected="results of traced operators")
        if not end.dtype.is_float:
            raise GradientError(
                "only floating-point outputs have gradients", got=end.spec, hint="cast the loss to float32"
            )
        pairs.append((end, operators.broadcast_to(operators.cast(weight, end.dtype), end.shape)))
    found = backward(pairs, symbols)
    if zeros:
        found = [operators.zeros_like(s) if g is None else g for s, g in zip(symbols, found, strict=True)]
    return tree.unflatten(structure, found)


def _as_symbol(target: Any) -> Symbol:
    if isinstance(target, Variable):
        for level in reversed(trace.open_traces()):
            if id(target) in level.reads:
                return level.reads[id(target)][1]
        symbol: Symbol = target.master()
        return symbol
    if isinstance(target, Symbol):
        return target
    raise GradientError(
        "cannot differentiate by a number",
        got=type(target).__name__,
        expected="a Variable or a symbol of the open trace",
        hint="hl.grad(function)(value) traces the function for you",
    )


def _symbolic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function that works on symbols: in the open trace, or in one of its own that is computed at once."""

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves = tree.leaves((args, kwargs))
        if any(isinstance(leaf, Symbol) for leaf in leaves) or trace.is_open():
            return function(*tree.map(_lift, args), **kwargs)
        return jit.Compiled(function)(*args, **kwargs)

    return run


def _lift(leaf: Any) -> Any:
    if isinstance(leaf, Operand) and not isinstance(leaf, Variable):
        return trace.lift(leaf, trace.open_traces()[0])
    return trace.lift(operators.operand(leaf), trace.open_traces()[0]) if jit.is_array(leaf) else leaf


def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns `(value, gradient)` of a scalar-valued function.

    argnums: which positional arguments to differentiate by (trees of arrays, or variables)
    has_aux: the function returns `(value, more)`; the result is `((value, more), gradient)`
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        value = result[0] if has_aux else result
        if value.shape != ():
            raise GradientError(
                "grad needs a scalar", got=value.spec, expected="shape ()", hint="return ops.mean(…) or ops.sum(…)"
            )
        wrt = args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)
        return result, gradients(value, wrt)

    return _symbolic(run)


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar-valued function, as a function.

    >>> from highlevel import ops
    >>> grad(lambda x: ops.sum(x * x * x))(Tensor.of([1.0, 2.0])).numpy()
    array([ 3., 12.], dtype=float32)
    """
    both = value_and_grad(function, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """`(y, pullback)`: the outputs, and the function from a cotangent of y to a tuple of cotangents of the primals."""
    if any(isinstance(leaf, Symbol) for leaf in tree.leaves(primals)):
        y = function(*primals)
        return y, lambda cotangent: gradients(y, primals, cotangent)
    pull = _symbolic(lambda cotangent, *args: gradients(function(*args), args, cotangent))
    return _symbolic(function)(*primals), lambda cotangent: pull(cotangent, *primals)


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """`(y, J·tangent)`: the outputs, and their derivative in the direction of the tangents."""

    def run(xs: Any, directions: Any) -> Any:
        y = function(*xs)
        ends, structure = tree.flatten(y)
        dummies = [operators.zeros_like(end) for end in ends]
        pulled = gradients(ends, tree.leaves(xs), dummies)
        pushed = gradients(pulled, dummies, tree.leaves(directions))
        return y, tree.unflatten(structure, pushed)

    y, direction = _symbolic(run)(tuple(primals), tuple(tangents))
    return y, direction


def stop_gradient(x: Any) -> Any:
    """The same value, through which no gradient flows."""
    return tree.map(lambda leaf: primitives.stop_gradient(operators.operand(leaf)), x)


def pull_graph(graph: Graph, inputs: Sequence[Symbol], cotangents: Sequence[Any], needed: Sequence[bool]) -> list[Any]:
    """Cotangents of a sub-graph's inputs, its forward pass recorded again from `inputs`; None where not needed."""
    values = Values({key_of(symbol): stand_in for symbol, stand_in in zip(graph.inputs, inputs, strict=True)})
    wanted = [symbol for symbol, flag in zip(graph.inputs, needed, strict=True) if flag]
    found = iter(backward(list(zip(graph.outputs, cotangents, strict=True)), wanted, values))
    return [next(found) if flag else None for flag in needed]


def float_flags(symbols: Sequence[Any], needed: Sequence[bool]) -> list[bool]:
    return [flag and symbol.dtype.is_float for symbol, flag in zip(symbols, needed, strict=True)]


def zero(shape: tuple[int, ...], dtype: DType) -> Any:
    return operators.full(shape, 0.0, dtype)


from . import jit  # noqa: E402
