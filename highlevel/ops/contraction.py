"""Products that add up: matmul and everything that is arranged around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.dtypes import int8, int32, to_float
from highlevel.ir.operators import cast, match, operand

from .arguments import floating, normalize_axis
from .creation import diagonal
from .movement import cut, moveaxis, stack
from .reduction import mean
from .reduction import sum as sum_over
from .registry import op


def _one_type(*values: Any) -> list[Any]:
    items = [operand(v) for v in values]
    dtype = operators.common_dtype(items, items)
    return [cast(item, dtype) for item in items]


def _roomy(*items: Any) -> list[Any]:
    """int8 operands as int32, in which their products add up."""
    return [cast(item, int32) for item in items] if all(item.dtype is int8 for item in items) else list(items)


@op
def matmul(x1: Any, x2: Any) -> Any:
    """The matrix product; leading axes broadcast; a vector is a row on the left and a column on the right."""
    return operators.matmul(*_one_type(*_roomy(operand(x1), operand(x2))))


@op
def dot(x1: Any, x2: Any) -> Any:
    """The sum of products over the last axis of x1 and the second-last (or only) one of x2."""
    a, b = _one_type(x1, x2)
    if a.ndim == 0 or b.ndim == 0:
        return operators.multiply(a, b)
    return tensordot(a, b, ((a.ndim - 1,), (max(b.ndim - 2, 0),)))


@op
def vdot(x1: Any, x2: Any) -> Any:
    """The sum of products of all elements in order."""
    a, b = _one_type(x1, x2)
    if a.size != b.size:
        raise ShapeError("vdot: sizes differ", got=f"{a.spec} and {b.spec}", expected="as many elements")
    return dot(operators.reshape(a, -1), operators.reshape(b, -1))


@op
def inner(x1: Any, x2: Any) -> Any:
    """The sum of products over the last axes."""
    a, b = _one_type(x1, x2)
    if a.ndim == 0 or b.ndim == 0:
        return operators.multiply(a, b)
    return tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


@op
def outer(x1: Any, x2: Any) -> Any:
    """All products of an element of x1 (rows) and one of x2 (columns)."""
    a, b = _one_type(x1, x2)
    return operators.multiply(operators.reshape(a, -1, 1), operators.reshape(b, 1, -1))


@op
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """The sum of products over several axes: the last n of x1 and first n of x2, or (axes of x1, axes of x2)."""
    a, b = _one_type(x1, x2)
    if isinstance(axes, int):
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        left, right = ([v] if isinstance(v, int) else list(v) for v in axes)
    left = [normalize_axis(v, a.ndim, "tensordot") for v in left]
    right = [normalize_axis(v, b.ndim, "tensordot") for v in right]
    if len(left) != len(right) or any(a.shape[i] != b.shape[j] for i, j in zip(left, right, strict=True)):
        raise ShapeError(
            "tensordot: the summed axes do not fit", got=f"axes {left} of {a.spec}, axes {right} of {b.spec}",
            expected="pairs of equal size",
        )  # fmt: skip
    rows, columns = ([i for i in range(v.ndim) if i not in axes] for v, axes in ((a, left), (b, right)))
    shape = (*(a.shape[i] for i in rows), *(b.shape[j] for j in columns))
    inside = math.prod(a.shape[i] for i in left)
    a = operators.reshape(operators.transpose(a, (*rows, *left)), math.prod(a.shape[i] for i in rows), inside)
    b = operators.reshape(operators.transpose(b, (*right, *columns)), inside, math.prod(b.shape[j] for j in columns))
    return operators.reshape(primitives.matmul(a, b), shape)


@op
def kron(x1: Any, x2: Any) -> Any:
    """Blocks of x2, each multiplied by an element of x1."""
    a, b = _one_type(x1, x2)
    rank = max(a.ndim, b.ndim)
    left, right = ((1,) * (rank - v.ndim) + v.shape for v in (a, b))
    a = operators.reshape(a, tuple(n for size in left for n in (size, 1)))
    b = operators.reshape(b, tuple(n for size in right for n in (1, size)))
    return operators.reshape(operators.multiply(a, b), tuple(m * n for m, n in zip(left, right, strict=True)))


@op
def cross(x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The cross product of vectors of 3 (or 2, with no third component) along an axis."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = _one_type(x1, x2)
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if a.shape[-1] not in (2, 3) or b.shape[-1] not in (2, 3):
        raise ShapeError("cross: not vectors of 2 or 3", got=f"{a.spec} and {b.spec}", expected="axes of size 2 or 3")
    (ax, ay), (bx, by) = ((v[..., 0], v[..., 1]) for v in (a, b))
    z = ax * by - ay * bx
    if a.shape[-1] == b.shape[-1] == 2:
        return z
    az = a[..., 2] if a.shape[-1] == 3 else None
    bz = b[..., 2] if b.shape[-1] == 3 else None
    x = _difference(ay, bz, az, by)
    y = _difference(az, bx, ax, bz)
    return moveaxis(stack(match(x, y, z), -1), -1, axisc)


def _difference(a: Any, b: Any, c: Any, d: Any) -> Any:
    """a·b − c·d, where a missing factor is zero."""
    if a is None or b is None:
        return -(c * d)
    return a * b if c is None or d is None else a * b - c * d


@op
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of the diagonal of the matrices formed by two axes."""
    return sum_over(diagonal(x, offset, axis1, axis2), -1)


# einsum ----------------------------------------------------------------------------------------------------------
@op
def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
    """Einstein's summation: letters name axes, repeated ones are multiplied together, missing ones summed over.

    "ij,jk->ik" is the matrix product, "ii->i" the diagonal, "b...i->b..." keeps whatever stands for the dots. Without
    an arrow the result has the letters that occur once, in alphabetical order. Operands are contracted pairwise, each
    time the pair with the smallest result.

    >>> einsum("ij,ij->i", [[1, 2], [3, 4]], [[1, 1], [2, 2]]).numpy()
    array([ 3, 14], dtype=int32)
    """
    items = _roomy(*_one_type(*operands))
    terms, output = _parse(subscripts, items)
    sizes: dict[str, int] = {}
    for term, x in zip(terms, items, strict=True):
        for letter, size in zip(term, x.shape, strict=True):
            if sizes.setdefault(letter, size) != size and 1 not in (sizes[letter], size):
                raise ShapeError(
                    f"einsum: the sizes of axis {letter!r} differ", got=f"{sizes[letter]} and {size} in {subscripts!r}",
                    expected="one size per letter",
                )  # fmt: skip
            sizes[letter] = max(sizes[letter], size) if size else 0
    pairs = [_without_repeats(term, x, sizes) for term, x in zip(terms, items, strict=True)]
    while len(pairs) > 1:
        i, j = _cheapest(pairs, output, sizes)
        second, first = pairs.pop(j), pairs.pop(i)
        pairs.append(_contract(first, second, _needed(pairs, output)))
    term, x = pairs[0]
    summed = [i for i, letter in enumerate(term) if letter not in output]
    x = primitives.reduce_sum(x, axes=tuple(summed)) if summed else x
    term = "".join(letter for letter in term if letter in output)
    return operators.transpose(x, [term.index(letter) for letter in output])


def _parse(subscripts: str, items: Sequence[Any]) -> tuple[list[str], str]:
    """One string of letters per operand, and the result's; dots are replaced by letters of their own."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(items):
        raise ArgumentError("einsum: one term per operand", got=f"{len(items)} operands for {subscripts!r}")
    used = set(subscripts)
    spare = [chr(code) for code in range(0x3B1, 0x3B1 + 64) if chr(code) not in used]
    dots = [x.ndim - len(term.replace("...", "")) for term, x in zip(terms, items, strict=True)]
    for term, x, count in zip(terms, items, dots, strict=True):
        if count < 0 or (count > 0 and "..." not in term):
            raise ShapeError(
                "einsum: the rank does not fit", got=f"{x.spec} for {term!r}", expected="one letter per axis"
            )
    most = max((count for term, count in zip(terms, dots, strict=True) if "..." in term), default=0)
    spare = spare[:most]
    terms = [term.replace("...", "".join(spare[most - n :]) if n else "") for term, n in zip(terms, dots, strict=True)]
    letters = "".join(terms)
    if arrow:
        output = right.replace("...", "".join(spare))
    else:
        output = "".join(spare) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in spare))
    bad = [c for c in output if c not in letters or output.count(c) > 1]
    if bad:
        raise ArgumentError(
            f"einsum: axis {bad[0]!r} of the result", got=repr(subscripts), expected="each once, from the left"
        )
    return terms, output


def _without_repeats(term: str, x: Any, sizes: dict[str, int]) -> tuple[str, Any]:
    """Diagonals taken for letters that stand twice in a term; axes of size 1 that broadcast dropped."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            i = term.index(letter)
            j = term.index(letter, i + 1)
            x = diagonal(x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + letter
    broadcast = [i for i, letter in enumerate(term) if x.shape[i] == 1 and sizes[letter] != 1]
    if broadcast:
        x = operators.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in broadcast))
        term = "".join(letter for i, letter in enumerate(term) if i not in broadcast)
    return term, x


def _needed(others: Sequence[tuple[str, Any]], output: str) -> set[str]:
    return set(output).union(*(term for term, _ in others))


def _cheapest(pairs: Sequence[tuple[str, Any]], output: str, sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest; the first two of only two."""
    best, choice = math.inf, (0, 1)
    for j in range(1, len(pairs)):
        for i in range(j):
            others = [pair for k, pair in enumerate(pairs) if k not in (i, j)]
            kept = (set(pairs[i][0]) | set(pairs[j][0])) & _needed(others, output)
            cost = math.prod(sizes[letter] for letter in kept)
            if cost < best:
                best, choice = cost, (i, j)
    return choice


def _contract(first: tuple[str, Any], second: tuple[str, Any], needed: set[str]) -> tuple[str, Any]:
    """The product of two operands as one batched matmul; letters needed nowhere else are summed over."""
    (left, a), (right, b) = _sum_private(*first, second[0], needed), _sum_private(*second, first[0], needed)
    shared = [c for c in left if c in right]
    batch = [c for c in shared if c in needed]
    inside = [c for c in shared if c not in needed]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]
    term = "".join((*batch, *rows, *columns))
    size = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))

    def arrange(x: Any, letters: str, order: Sequence[Sequence[str]]) -> Any:
        x = operators.transpose(x, [letters.index(c) for group in order for c in group])
        return operators.reshape(x, [math.prod(size[c] for c in group) for group in order])

    if not inside:  # nothing is summed: a product of elements, which fuses with its neighbours
        a = operators.reshape(
            operators.transpose(a, [left.index(c) for c in (*batch, *rows)]),
            [size[c] for c in (*batch, *rows)] + [1] * len(columns),
        )
        b = operators.transpose(b, [right.index(c) for c in (*batch, *columns)])
        b = operators.reshape(b, [size[c] for c in batch] + [1] * len(rows) + [size[c] for c in columns])
        return term, operators.multiply(a, b)
    if batch:
        product = primitives.matmul(
            arrange(a, left, (batch, rows, inside)), arrange(b, right, (batch, inside, columns))
        )
    else:
        product = primitives.matmul(arrange(a, left, (rows, inside)), arrange(b, right, (inside, columns)))
    return term, operators.reshape(product, [size[c] for c in term])


def _sum_private(term: str, x: Any, other: str, needed: set[str]) -> tuple[str, Any]:
    """Letters that only this operand has, and nobody needs, summed over at once."""
    axes = tuple(i for i, letter in enumerate(term) if letter not in other and letter not in needed)
    if not axes:
        return term, x
    return "".join(c for i, c in enumerate(term) if i not in axes), primitives.reduce_sum(x, axes=axes)


@op
def cdist(x: Any, y: Any) -> Any:
    """The distance of each row of x from each row of y: (…, n, d) and (…, m, d) give (…, n, m)."""
    a, b = floating(x), floating(y)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(
            "cdist: not two sets of points", got=f"{a.spec} and {b.spec}", expected="(…, n, d) and (…, m, d)"
        )
    gap = operators.reshape(a, *a.shape[:-1], 1, a.shape[-1]) - operators.reshape(b, *b.shape[:-2], 1, *b.shape[-2:])
    squared = primitives.reduce_sum(gap * gap, axes=(gap.ndim - 1,))
    apart = operators.less(0.0, squared)  # √ has no slope at zero; a point's distance from itself has slope 0
    safe = primitives.select(apart, squared, operators.ones_like(squared))
    return primitives.select(apart, primitives.sqrt(safe), operators.zeros_like(squared))


# Sequences -------------------------------------------------------------------------------------------------------
@op
def correlate(x1: Any, x2: Any, mode: str = "valid") -> Any:
    """The products of x1 with x2 at every distance, added up: Σₙ x1[n + k]·x2[n].

    mode: "valid" (no further than the shorter one lies inside), "same" (as long as the longer one), "full"
    """
    a, b = (floating(v) for v in _one_type(x1, x2))
    if a.ndim != 1 or b.ndim != 1 or min(a.size, b.size) == 0:
        raise ShapeError("correlate: not two vectors", got=f"{a.spec} and {b.spec}", expected="rank 1, not empty")
    if mode not in ("valid", "same", "full"):
        raise ArgumentError("correlate: unknown mode", got=repr(mode), expected="'valid', 'same' or 'full'")
    m, n = a.shape[0], b.shape[0]
    swapped = m < n and mode != "full"  # the shorter one moves along the longer one
    long, short = (b, a) if swapped else (a, b)
    edge = short.shape[0] - 1
    padded = primitives.pad(long, low=(edge,), high=(edge,), interior=(0,), value=0.0)
    count = m + n - 1
    place = primitives.iota(shape=(count, short.shape[0]), axis=0, dtype=int32)
    place = place + primitives.iota(shape=place.shape, axis=1, dtype=int32)
    products = primitives.gather(padded, operators.reshape(place, *place.shape, 1)) * operators.broadcast_to(
        short, place.shape
    )
    full = primitives.reduce_sum(products, axes=(1,))
    if mode == "valid":
        full = full[edge : edge + abs(m - n) + 1]
    elif mode == "same":
        start = edge - short.shape[0] // 2
        full = full[start : start + max(m, n)]
    return primitives.flip(full, axes=(0,)) if swapped else full


@op
def corrcoef(x: Any) -> Any:
    """The correlation of each pair of rows, which are variables."""
    x = operand(x)
    x = cast(x, to_float(x.dtype))
    if x.ndim not in (1, 2):
        raise ShapeError("corrcoef: wrong rank", got=x.spec, expected="(variables, observations)")
    rows = operators.reshape(x, 1, -1) if x.ndim == 1 else x
    centred = rows - mean(rows, 1, True)
    products = primitives.matmul(centred, operators.transpose(centred))
    spread = primitives.rsqrt(diagonal(products))
    ratio = products * operators.reshape(spread, -1, 1) * spread
    return operators.reshape(ratio, ()) if x.ndim == 1 else ratio


@op
def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    """The differences of neighbours along an axis, taken n times."""
    x = operand(a)
    axis = normalize_axis(axis, x.ndim, "diff")
    for _ in range(n):
        later, earlier = cut(x, axis, 1, x.shape[axis]), cut(x, axis, 0, max(x.shape[axis] - 1, 0))
        x = operators.not_equal(later, earlier) if x.dtype.is_bool else operators.subtract(later, earlier)
    return x


@op
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral along an axis by the trapezoid rule, at places x or at the distance dx."""
    y = floating(y)
    axis = normalize_axis(axis, y.ndim, "trapezoid")
    size = y.shape[axis]
    middle = (cut(y, axis, 1, size) + cut(y, axis, 0, size - 1)) * 0.5
    if x is None:
        return sum_over(operators.multiply(middle, dx), axis)
    places = floating(x)
    if places.ndim == 1:
        widths = operators.reshape(diff(places), tuple(-1 if a == axis else 1 for a in range(y.ndim)))
    else:
        widths = diff(places, 1, axis)
    return sum_over(operators.multiply(middle, widths), axis)
