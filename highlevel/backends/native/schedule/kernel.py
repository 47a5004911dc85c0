"""Kernels as data: loops over rows and columns, and what is computed in them.

A `LoopKernel` is the one shape of everything that is not a contraction: for every row, some totals over the columns –
each may use those before it – and then outputs, one per row or one per element.

    elementwise      rows = all axes, no columns, no totals; several outputs if they read the same: Adam's m, v and w
    sum over axes    columns = these axes, one total, one output per row
    softmax          totals max(x) and sum(exp(x − max)); an output per element, exp(x − max) / sum
    statistics       totals Σ x and Σ (x − mean)², of which the first is the second one's `centre`; outputs per row:
                     both, the moving averages, 1/√(variance + ε)
    a gradient that  one total, Σ dy, for the bias; an output per element, dy: it is computed and stored in the pass
    is totalled      that totals it

What may be relied on:

* Rows and columns are in the order of the axes of the array that is walked, those of size 1 left out; columns may be
  any of these axes. A size may be 0.
* Stages are in an order in which each uses totals of earlier ones only. Those that do not use one another are totals
  of the same pass.
* A kernel reads no buffer that it writes, and writes every buffer once, all elements of it. So the order of outputs
  means nothing, and an output per element that contains no total can be stored in any pass: in the first one, where its
  term is computed anyway.
* Where an output per element contains totals, rows are short and end with the last axis (`spaces.has_short_rows`), so
  that they are read a second time from the cache. So it is where a stage uses another one that is not its `centre`.
* Equal subterms are one object (`is`), in stages and in outputs alike: each is computed once in a pass. Terms without
  a column's variable are the same for a whole row.

Terms are trees of operators of the language (elementwise rows of the registry) over loads from buffers; where a load
reads is an index expression, so movement costs nothing. `evaluate` is the meaning, on NumPy: the oracle of the code
generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from highlevel.ir import DType, Primitive

from ..codegen import indexing as ix

PRODUCT = "product"  # the name of the total that is a contraction's value, in its epilogue
COMBINE = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True, slots=True)
class Buffer:
    """An array in memory, contiguous, row-major."""

    name: str
    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load:
    """An element of a buffer: at `place`, counted in elements."""

    buffer: str
    place: ix.Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: Any
    dtype: DType


@dataclass(frozen=True, slots=True)
class Index:
    """The value of an index expression, as a number of some type (`iota`)."""

    x: ix.Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Total:
    """The total of that name for the current row."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Choose:
    """`inside` where all conditions hold, else `outside`; loads in the branch that does not count are never made."""

    conditions: tuple[ix.Bound | ix.Steps, ...]
    inside: Term
    outside: Term
    dtype: DType


@dataclass(frozen=True, slots=True)
class Apply:
    """An elementwise operator of the language; attributes as sorted pairs."""

    primitive: Primitive
    operands: tuple[Term, ...]
    attrs: tuple[tuple[str, Any], ...]
    dtype: DType


Term = Load | Number | Index | Total | Choose | Apply


@dataclass(frozen=True, slots=True)
class Stage:
    """A total over the columns: `combine` of a term, added up in `dtype`, then cast to `result`.

    centre: of a total of squares Σ (x − m)², the name of the stage Σ x, where m is that divided by the number of
            columns. Both can be had in one pass: totals of blocks are put together as T. Chan et al., "Updating
            formulae and a pairwise algorithm for computing sample variances", 1979, do. The term is the meaning
    """

    name: str
    combine: str
    term: Term
    dtype: DType
    result: DType
    centre: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What is stored: a term, once per row, or – `per_element` – for every column of every row."""

    buffer: Buffer
    place: ix.Expr
    term: Term
    per_element: bool


@dataclass(frozen=True, slots=True)
class LoopKernel:
    """Loops over rows and columns; see the module. Axes are (name, size); origins are the layers that it came from."""

    name: str
    rows: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, int], ...]
    stages: tuple[Stage, ...]
    outputs: tuple[Output, ...]
    origins: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the buffers that it loads from, in order of use."""
        terms = [*(stage.term for stage in self.stages), *(output.term for output in self.outputs)]
        return tuple(dict.fromkeys(node.buffer for term in terms for node in walk(term) if isinstance(node, Load)))

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(output.buffer.name for output in self.outputs)

    def __str__(self) -> str:
        loops = ", ".join(f"{name} < {size}" for name, size in self.rows) or "one row"
        inner = ", ".join(f"{name} < {size}" for name, size in self.columns)
        lines = [f"{self.name}: rows {loops}" + (f"; columns {inner}" if inner else "")]
        lines += [f"  {stage.name} = {stage.combine} {format_term(stage.term)}" for stage in self.stages]
        for output in self.outputs:
            per = "each" if output.per_element and self.columns else "row"
            lines.append(f"  {per} {output.buffer.name}[{output.place}] = {format_term(output.term)}")
        return "\n".join(lines)


def walk(term: Term) -> Iterator[Term]:
    """The term and all below it, each object once."""
    seen: set[int] = set()
    stack: list[Term] = [term]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Apply):
            stack.extend(node.operands)
        elif isinstance(node, Choose):
            stack += [node.inside, node.outside]


def format_term(term: Term) -> str:
    """The term as text, the same in every run."""
    match term:
        case Load():
            return f"{term.buffer}[{term.place}]"
        case Number():
            return repr(term.value)
        case Index():
            return str(term.x)
        case Total():
            return term.name
        case Choose():
            conditions = " and ".join(map(_format_condition, term.conditions))
            return f"({format_term(term.inside)} if {conditions} else {format_term(term.outside)})"
    attrs = ", ".join(f"{name}={value}" for name, value in term.attrs)
    operands = ", ".join(map(format_term, term.operands))
    return f"{term.primitive.name}({operands}{', ' if attrs else ''}{attrs})"


def _format_condition(condition: ix.Bound | ix.Steps) -> str:
    if isinstance(condition, ix.Bound):
        return f"{condition.low} <= {condition.x} < {condition.high}"
    return f"{condition.x} % {condition.step} == 0"


# The meaning ---------------------------------------------------------------------------------------------------------
def evaluate(kernel: LoopKernel, buffers: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Runs a kernel on NumPy arrays by buffer name; outputs are written into theirs."""
    axes = (*kernel.rows, *kernel.columns)
    grids = np.meshgrid(*(np.arange(size) for _, size in axes), indexing="ij") if axes else []
    values = {name: grid for (name, _), grid in zip(axes, grids, strict=True)}
    shape = tuple(size for _, size in axes)
    inner = tuple(range(len(kernel.rows), len(axes)))
    totals: dict[str, Any] = {}
    for stage in kernel.stages:
        terms = np.broadcast_to(evaluate_term(stage.term, values, buffers, totals), shape).astype(stage.dtype.numpy)
        total = COMBINE[stage.combine].reduce(terms, axis=inner, dtype=stage.dtype.numpy, keepdims=True)
        totals[stage.name] = total.astype(stage.result.numpy)
    rows = [np.arange(1 if axis in inner else size) for axis, (_, size) in enumerate(axes)]
    per_row = {name: grid for (name, _), grid in zip(axes, np.meshgrid(*rows, indexing="ij"), strict=True)}
    for output in kernel.outputs:
        at = values if output.per_element else per_row
        space = shape if output.per_element else tuple(1 if i in inner else n for i, n in enumerate(shape))
        found = np.broadcast_to(evaluate_term(output.term, at, buffers, totals), space)
        place = np.broadcast_to(ix.evaluate(output.place, at), space)
        buffers[output.buffer.name].reshape(-1)[place.reshape(-1)] = found.reshape(-1)


def evaluate_term(term: Term, values: Mapping[str, Any], buffers: Mapping[str, Any], totals: Mapping[str, Any]) -> Any:
    """The value of a term, for arrays of values of the loop variables."""
    match term:
        case Load():
            flat, place = buffers[term.buffer].reshape(-1), ix.evaluate(term.place, values)
            if not flat.size:  # read for no element
                return np.zeros(np.shape(place), flat.dtype)
            return flat[np.clip(place, 0, flat.size - 1)]
        case Number():
            return np.asarray(term.value, dtype=term.dtype.numpy)
        case Index():
            return np.asarray(ix.evaluate(term.x, values)).astype(term.dtype.numpy)
        case Total():
            return totals[term.name]
        case Choose():
            holds: Any = True
            for condition in term.conditions:
                x = ix.evaluate(condition.x, values)
                if isinstance(condition, ix.Bound):
                    holds = holds & (condition.low <= x) & (x < condition.high)
                else:
                    holds = holds & (x % condition.step == 0)
            inside = evaluate_term(term.inside, values, buffers, totals)
            return np.where(holds, inside, evaluate_term(term.outside, values, buffers, totals))
    operands = [evaluate_term(operand, values, buffers, totals) for operand in term.operands]
    with np.errstate(all="ignore"):
        return np.asarray(term.primitive.numpy(np, *np.broadcast_arrays(*operands), **dict(term.attrs)))
