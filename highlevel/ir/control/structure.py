"""What the operators with sub-graphs have in common: trees as lists of operands, state, and closed graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import operators, trace, tree
from ..dtypes import holds_kind
from ..graph import Graph, Symbol, key_of
from ..primitives.creation import zeros_like
from ..spec import Spec
from ..subgraph import SubGraph
from ..variable import Variable

FAMILY = "control"


def as_symbols(operands: Sequence[Any]) -> list[Symbol]:
    return [trace.lift(operators.operand(operand)) for operand in operands]


def read_state(state: Sequence[Variable]) -> list[Symbol]:
    return [variable.master() for variable in state]


def restore_state(state: Sequence[Variable], values: Sequence[Any]) -> None:
    for variable, value in zip(state, values, strict=True):
        variable.assign(value)


def split(value: Any) -> tuple[list[Any], Any]:
    """The operands of a tree, and what `join` needs to put it together; leaves that are None stay None."""
    leaves, structure = tree.flatten(value)
    present = tuple([leaf is not None for leaf in leaves])
    return [operators.operand(leaf) for leaf in leaves if leaf is not None], (structure, present)


def join(shape: Any, operands: Sequence[Any]) -> Any:
    structure, present = shape
    supply = iter(operands)
    return tree.unflatten(structure, [next(supply) if here else None for here in present])


def next_carry(name: str, value: Any, shape: Any, specs: Sequence[Spec]) -> list[Any]:
    """What a body returns as operands of the carry's specs: shapes must agree, types are cast within reason."""
    operands, new_shape = split(value)
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


def state_first(sub: SubGraph, carries: int) -> Graph:
    """Outputs (carry…, ys…, state…) in the order (state…, carry…, ys…) of the loop's operands."""
    outputs, n = sub.graph.outputs, len(sub.state)
    split = len(outputs) - n
    return Graph(sub.graph.inputs, (*outputs[split:], *outputs[:carries], *outputs[carries:split]))


def captured_by(*subs: SubGraph) -> list[Symbol]:
    """What any of the sub-graphs uses of its surroundings, in order of creation."""
    merged = {key_of(symbol): symbol for sub in subs for symbol in sub.captured}
    return [merged[key] for key in sorted(merged)]


def taking(captured: Sequence[Symbol], sub: SubGraph) -> Graph:
    """The sub-graph with an input for each symbol of `captured`, used or not, so that two sub-graphs take the same."""
    own = dict(zip(map(key_of, sub.captured), sub.graph.inputs, strict=False))
    unused = trace.Trace(serial=sub.graph.owner)
    inputs = [own[key_of(s)] if key_of(s) in own else unused.leaf("input", "unused", s.spec) for s in captured]
    return Graph((*inputs, *sub.graph.inputs[len(sub.captured) :]), sub.graph.outputs)


def check_operands(name: str, graph: Graph, specs: Sequence[Spec]) -> None:
    wanted = [symbol.spec for symbol in graph.inputs]
    if list(specs) != wanted:
        raise ShapeError(f"{name}: operands do not fit the sub-graph", got=list(specs), expected=wanted)


def present(cotangents: Sequence[Any], symbols: Sequence[Any]) -> list[Any]:
    """Cotangents with zeros for those that are absent."""
    return [zeros_like(s) if g is None else g for g, s in zip(cotangents, symbols, strict=True)]
