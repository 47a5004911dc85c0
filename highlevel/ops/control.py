"""Functions of functions: conditions, loops, mapping. On numbers plain Python; on symbols they become sub-graphs."""

from __future__ import annotations

import builtins
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import control, operators, primitives, tree
from highlevel.ir.dtypes import int32
from highlevel.ir.graph import Symbol
from highlevel.ir.operators import cast, operand

from .arguments import normalize_axis
from .movement import along
from .registry import op


def _is_number(value: Any) -> bool:
    return not (isinstance(value, Symbol) and value.node.values is None)


@op
def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any]) -> Any:
    """`true_fn()` if the scalar holds, else `false_fn()`; only one of them is computed."""
    return control.cond(pred, true_fn, false_fn)


@op
def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """The result of the branch with that number (of the first or last one, if it is out of range)."""
    if not branches:
        raise ArgumentError("switch: no branches", expected="at least one function")
    index = operand(index)
    if _is_number(index):
        return branches[builtins.min(builtins.max(int(index), 0), len(branches) - 1)](*operands)
    return _choose(cast(index, int32), branches, 0, operands)


def _choose(index: Any, branches: Sequence[Callable[..., Any]], offset: int, operands: Sequence[Any]) -> Any:
    """Half of the branches at a time: as many conditions as the number has bits."""
    if len(branches) == 1:
        return branches[0](*operands)
    half = len(branches) // 2
    return control.cond(
        operators.less(index, offset + half),
        lambda: _choose(index, branches[:half], offset, operands),
        lambda: _choose(index, branches[half:], offset + half, operands),
    )


@op
def scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: Any = 1,
) -> tuple[Any, Any]:
    """A loop with state: `carry, y = f(carry, x)` for each x along the leading axis of `xs`.

    Returns the last carry, and the y's stacked. `unroll` is advice to backends, and changes nothing.
    """
    return control.scan(f, tree.map(operand, init), xs, length, reverse)


@op
def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeats `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds; differentiable if bounded."""
    if isinstance(loop_vars, (list, tuple)):
        start: Any = tuple(tree.map(operand, item) for item in loop_vars)
    else:
        start = tree.map(operand, loop_vars)
    return control.while_loop(cond, body, start, maximum_iterations)


@op
def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """`val = body_fun(i, val)` for i from `lower` up to, but without, `upper`."""
    first, last = operand(lower), operand(upper)
    start = tree.map(operand, init_val)
    if _is_number(first) and _is_number(last):
        count = builtins.max(int(last) - int(first), 0)
        if count == 0:
            return start
        numbers = operators.add(primitives.iota(shape=(count,), axis=0, dtype=int32), int(first))
        return control.scan(lambda value, i: (body_fun(i, value), None), start, numbers)[0]

    def step(i: Any, value: Any) -> Any:
        return operators.add(i, 1), body_fun(i, value)

    return control.while_loop(lambda i, _: operators.less(i, last), step, (cast(first, int32), start))[1]


@op
def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """f of each slice along the leading axis, one after the other, stacked."""
    return control.scan(lambda _, x: ((), f(x)), (), tree.map(operand, xs))[1]


@op
def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """f of each slice along the leading axis, stacked: `map` by another name."""
    return control.scan(lambda _, x: ((), function(x)), (), tree.map(operand, elements))[1]


@op
def associative_scan(f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Running results of an associative function along an axis, in as many rounds as the length has bits.

    `f(a, b)` combines whole slices. With f = add this is cumsum.
    """
    leaves, structure = tree.flatten(elems)
    arrays = [operand(leaf) for leaf in leaves]
    axis = normalize_axis(axis, arrays[0].ndim, "associative_scan")
    sizes = {array.shape[axis] for array in arrays}
    if len(sizes) != 1:
        raise ShapeError(
            "associative_scan: lengths differ", got=[a.spec for a in arrays], expected=f"one size of axis {axis}"
        )
    (length,) = sizes
    if reverse:
        arrays = [primitives.flip(array, axes=(axis,)) for array in arrays]

    def part(start: int, stop: int) -> Any:
        return tree.unflatten(structure, [array[along(axis, builtins.slice(start, stop))] for array in arrays])

    distance = 1
    while distance < length:  # Hillis and Steele (1986): each element takes in the one `distance` before it
        combined = tree.leaves(f(part(0, length - distance), part(distance, length)))
        heads = tree.leaves(part(0, distance))
        arrays = [
            primitives.concatenate(head, cast(new, head.dtype), axis=axis)
            for head, new in zip(heads, combined, strict=True)
        ]
        distance *= 2
    if reverse:
        arrays = [primitives.flip(array, axes=(axis,)) for array in arrays]
    return tree.unflatten(structure, arrays)


# vectorize -------------------------------------------------------------------------------------------------------
def vectorize(pyfunc: Callable[..., Any], *, excluded: Any = None, signature: str | None = None) -> Callable[..., Any]:
    """A function of single elements – or, with a signature like "(n),(n)->()", of small arrays – applied along all
    other axes of its operands, which broadcast.

    excluded: positions (or names) of arguments that are handed over whole
    """
    left_out = set(excluded or ())
    inputs = _core_ranks(signature.split("->")[0]) if signature else None

    @functools.wraps(pyfunc)
    def run(*args: Any, **kwargs: Any) -> Any:
        places = [i for i in range(len(args)) if i not in left_out]
        arrays = [operand(args[i]) for i in places]
        ranks = inputs if inputs is not None else [0] * len(arrays)
        if len(ranks) != len(arrays):
            raise ArgumentError(
                "vectorize: the signature has another number of arguments", got=len(arrays), expected=len(ranks)
            )
        outer = operators.broadcast_shapes(
            *(a.shape[: a.ndim - r] for a, r in zip(arrays, ranks, strict=True)), operator="vectorize"
        )
        rows = []
        for array, rank in zip(arrays, ranks, strict=True):
            core = array.shape[array.ndim - rank :]
            rows.append(operators.reshape(operators.broadcast_to(array, (*outer, *core)), (-1, *core)))

        def one(_: Any, items: Any) -> Any:
            full = list(args)
            for i, item in zip(places, items, strict=True):
                full[i] = item
            return (), pyfunc(*full, **kwargs)

        if not outer:
            return one((), [row[0] for row in rows])[1]
        results = control.scan(one, (), rows)[1]
        return tree.map(lambda y: operators.reshape(y, (*outer, *y.shape[1:])), results)

    return run


def _core_ranks(side: str) -> list[int]:
    return [len([name for name in group.split(",") if name.strip()]) for group in re.findall(r"\(([^()]*)\)", side)]
