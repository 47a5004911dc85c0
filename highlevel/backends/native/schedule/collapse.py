"""Fewer, longer loops: neighbouring axes of a kernel that are walked in one stride everywhere become one axis.

In: a kernel. Out: the same kernel with the fewest axes. Axes a (outer) and b (inner, of size B) are replaced by one, k,
with a = k // B and b = k % B. Where every expression simplifies until no such division or remainder is left, the two
were one walk through memory all along: an elementwise kernel over (8, 56, 56, 64) is one loop over 1,605,632 elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ..codegen import indexing as ix
from .kernel import Apply, Choose, Index, Load, LoopKernel, Term, walk

Axis = tuple[str, int]


def collapse(kernel: LoopKernel) -> LoopKernel:
    """The kernel with as few axes as its expressions allow; rows merge with rows, columns with columns.

    Before, axes that are divided somewhere are taken apart, so that fewer divisions are left.
    """
    kernel = _taken_apart(_without_single(kernel))
    rows = _merge_all(kernel, kernel.rows, lambda k, axes: replace(k, rows=axes))
    return _merge_all(rows, rows.columns, lambda k, axes: replace(k, columns=axes))


def _without_single(kernel: LoopKernel) -> LoopKernel:
    """Axes of size 1 need no loop: their variable is 0 already."""
    rows = tuple(axis for axis in kernel.rows if axis[1] != 1)
    return replace(kernel, rows=rows, columns=tuple(axis for axis in kernel.columns if axis[1] != 1))


def _taken_apart(kernel: LoopKernel) -> LoopKernel:
    """Axes i of which an expression has i // d or i % d, where d divides their size, become two."""
    done = False
    while not done:
        done = True
        sizes = dict((*kernel.rows, *kernel.columns))
        for x in expressions(kernel):
            name, divisor = _divided(x, sizes)
            if divisor:
                kernel, done = cut(kernel, name, divisor), False
                break
    return kernel


def _divided(x: ix.Expr, sizes: Mapping[str, int]) -> tuple[str, int]:
    if isinstance(x, ix.Sum):
        found = (_divided(term, sizes) for term, _ in x.terms)
        return next(((name, divisor) for name, divisor in found if divisor), ("", 0))
    if isinstance(x, (ix.Quotient, ix.Remainder)):
        if isinstance(x.x, ix.Var) and sizes.get(x.x.name, 1) % x.divisor == 0:
            return x.x.name, x.divisor
        return _divided(x.x, sizes)
    return "", 0


def cut(kernel: LoopKernel, axis: str, piece: int) -> LoopKernel:
    """An axis as two: pieces of that size (which divides its own), and what is in a piece."""
    taken = {name for name, _ in (*kernel.rows, *kernel.columns)}
    outer = axis
    while outer in taken:
        outer += "p"
    count = dict((*kernel.rows, *kernel.columns))[axis] // piece

    def apart(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        found: list[Axis] = []
        for name, size in axes:
            found += [(outer, count), (axis, piece)] if name == axis else [(name, size)]
        return tuple(found)

    values = {axis: ix.add(ix.mul(ix.var(outer, count), piece), ix.var(axis, piece))}
    return replace(substitute(kernel, values), rows=apart(kernel.rows), columns=apart(kernel.columns))


def axes_of(x: ix.Expr) -> frozenset[str]:
    """The loop variables in an expression."""
    match x:
        case ix.Var():
            return frozenset((x.name,))
        case ix.Sum():
            return frozenset().union(*(axes_of(term) for term, _ in x.terms))
        case ix.Quotient() | ix.Remainder():
            return axes_of(x.x)
    return frozenset()


def coefficient(x: ix.Expr, name: str) -> int | None:
    """How far apart neighbours along an axis are; None where that varies."""
    if isinstance(x, ix.Var):
        return int(x.name == name)
    if isinstance(x, ix.Sum):
        found = 0
        for term, factor in x.terms:
            step = coefficient(term, name)
            if step is None:
                return None
            found += step * factor
        return found
    return 0 if name not in axes_of(x) else None


def _merge_all(
    kernel: LoopKernel, axes: tuple[Axis, ...], with_axes: Callable[[LoopKernel, tuple[Axis, ...]], LoopKernel]
) -> LoopKernel:
    position = len(axes) - 2
    while position >= 0:
        merged = _merge(kernel, axes[position], axes[position + 1])
        if merged is not None:
            (name, outer), (_, inner) = axes[position], axes[position + 1]
            axes = (*axes[:position], (name, outer * inner), *axes[position + 2 :])
            kernel = with_axes(merged, axes)
        position -= 1
    return kernel


def _merge(kernel: LoopKernel, outer: Axis, inner: Axis) -> LoopKernel | None:
    """The kernel with one axis, called like the outer one, for the two; None if that leaves divisions."""
    (name, size), (other, width) = outer, inner
    if not width:
        return None
    joint = ix.var(name, size * width)
    values = {name: ix.floor_div(joint, width), other: ix.remainder(joint, width)}
    before = sum(_divisions(x) for x in expressions(kernel))
    merged = substitute(kernel, values)
    return merged if sum(_divisions(x) for x in expressions(merged)) <= before else None


def _divisions(x: ix.Expr) -> int:
    if isinstance(x, ix.Sum):
        return sum(_divisions(term) for term, _ in x.terms)
    return 1 + _divisions(x.x) if isinstance(x, (ix.Quotient, ix.Remainder)) else 0


def expressions(kernel: LoopKernel) -> Iterator[ix.Expr]:
    """Every index expression of the kernel."""
    for output in kernel.outputs:
        yield output.place
    for term in (*(stage.term for stage in kernel.stages), *(output.term for output in kernel.outputs)):
        for node in walk(term):
            if isinstance(node, Load):
                yield node.place
            elif isinstance(node, Index):
                yield node.x
            elif isinstance(node, Choose):
                yield from (condition.x for condition in node.conditions)


def substitute(kernel: LoopKernel, values: Mapping[str, ix.Expr]) -> LoopKernel:
    """The kernel with expressions in place of loop variables; its axes are the caller's business."""
    def moved(node: Term) -> Term:
        match node:
            case Load():
                return replace(node, place=ix.substitute(node.place, values))
            case Index():
                return replace(node, x=ix.substitute(node.x, values))
            case Choose():
                return replace(node, conditions=tuple(_condition(c, values) for c in node.conditions))
        return node

    known: dict[int, Term] = {}

    def term(root: Term) -> Term:
        return map_terms(root, moved, known)

    return replace(
        kernel,
        stages=tuple(replace(stage, term=term(stage.term)) for stage in kernel.stages),
        outputs=tuple(
            replace(output, place=ix.substitute(output.place, values), term=term(output.term))
            for output in kernel.outputs
        ),
    )


def map_terms(term: Term, change: Callable[[Term], Term], known: dict[int, Term] | None = None) -> Term:
    """The term with every node changed, operands first; shared nodes stay shared."""
    known = {} if known is None else known

    def visit(node: Term) -> Term:
        if id(node) not in known:
            rebuilt = node
            if isinstance(node, Apply):
                operands = tuple(map(visit, node.operands))
                if any(new is not old for new, old in zip(operands, node.operands, strict=True)):
                    rebuilt = replace(node, operands=operands)
            elif isinstance(node, Choose):
                rebuilt = replace(node, inside=visit(node.inside), outside=visit(node.outside))
            known[id(node)] = change(rebuilt)
        return known[id(node)]

    return visit(term)


def _condition(condition: ix.Bound | ix.Steps, values: Mapping[str, ix.Expr]) -> ix.Bound | ix.Steps:
    x = ix.substitute(condition.x, values)
    if isinstance(condition, ix.Bound):
        return ix.bound(x, condition.low, condition.high)
    return ix.Steps(x, condition.step)
