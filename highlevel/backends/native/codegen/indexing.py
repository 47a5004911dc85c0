"""Index expressions: where an element of a result comes from, as arithmetic on loop variables.

Movement operators never copy. An element of their result at (i, j, …) is an element of their operand at indices that
are expressions in i, j, …; `move` says which. Chains of movements compose by substitution, and because every
expression knows its bounds, what reshapes introduce – divisions and remainders by constants – mostly cancels again:

    reshape (2, 3) → (6,) → (2, 3):  (i·3 + j) // 3 = i,  (i·3 + j) % 3 = j   for 0 ≤ j < 3

Expressions are immutable, simplified when they are made, and printed the same way every time; equal ones are one
object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary


@dataclass(frozen=True, eq=False)
class Expr:
    """An integer between `low` and `high` (both included). While it lives, no other object is that expression."""

    low: int
    high: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Const(Expr):
    """A number."""

    @property
    def value(self) -> int:
        return self.low


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """A loop variable: 0 … size − 1."""

    @property
    def name(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Sum(Expr):
    """offset + Σ factor · term; terms are neither sums nor numbers, each stands once, factors are not 0."""

    offset: int
    terms: tuple[tuple[Expr, int], ...]


@dataclass(frozen=True, eq=False)
class Quotient(Expr):
    """floor(x / divisor), divisor > 1."""

    x: Expr
    divisor: int


@dataclass(frozen=True, eq=False)
class Remainder(Expr):
    """x − divisor · floor(x / divisor), divisor > 1."""

    x: Expr
    divisor: int


_MADE: WeakValueDictionary[Any, Expr] = WeakValueDictionary()


def const(value: int) -> Expr:
    found = _MADE.get(value)
    return found or _MADE.setdefault(value, Const(value, value, str(value)))


def var(name: str, size: int) -> Expr:
    """A loop variable; one that takes a single value is that value."""
    if size <= 1:
        return const(0)
    found = _MADE.get((name, size))
    return found or _MADE.setdefault((name, size), Var(0, size - 1, name))


def linear(x: Expr) -> tuple[int, dict[Expr, int]]:
    """The expression as offset + Σ factor · term."""
    if isinstance(x, Const):
        return x.value, {}
    if isinstance(x, Sum):
        return x.offset, dict(x.terms)
    return 0, {x: 1}


def _sum(offset: int, factors: Mapping[Expr, int]) -> Expr:
    """The simplest expression of offset + Σ factor · term."""
    kept = {term: factor for term, factor in factors.items() if factor}
    if not kept:
        return const(offset)
    if offset == 0 and list(kept.values()) == [1]:
        return next(iter(kept))
    terms = tuple(sorted(kept.items(), key=lambda item: (-abs(item[1]), item[0].text)))
    found = _MADE.get((offset, terms))
    if found is not None:
        return found
    low = high = offset
    parts = []
    for term, factor in terms:
        low += factor * (term.low if factor > 0 else term.high)
        high += factor * (term.high if factor > 0 else term.low)
        parts.append(term.text if factor == 1 else f"{term.text}*{factor}")
    if offset:
        parts.append(str(offset))
    return _MADE.setdefault((offset, terms), Sum(low, high, f"({' + '.join(parts)})", offset, terms))


def add(*xs: Expr) -> Expr:
    """The sum."""
    offset, factors = 0, dict[Expr, int]()
    for x in xs:
        more, terms = linear(x)
        offset += more
        for term, factor in terms.items():
            factors[term] = factors.get(term, 0) + factor
    return _sum(offset, _joined(factors))


def _joined(factors: dict[Expr, int]) -> dict[Expr, int]:
    """d · (x // d) + (x % d) is x."""
    for term, factor in list(factors.items()):
        if isinstance(term, Remainder) and factors.get(term) == factor:
            whole = floor_div(term.x, term.divisor)
            offset, terms = linear(whole)
            if offset == 0 and len(terms) == 1:
                ((quotient, one),) = terms.items()
                if one == 1 and factors.get(quotient) == factor * term.divisor:
                    joined = {t: f for t, f in factors.items() if t not in (term, quotient)}
                    more, inner = linear(term.x)
                    if more == 0:
                        for t, f in inner.items():
                            joined[t] = joined.get(t, 0) + f * factor
                        return _joined(joined)
    return factors


def mul(x: Expr, factor: int) -> Expr:
    """The product with a number."""
    offset, terms = linear(x)
    return _sum(offset * factor, {term: f * factor for term, f in terms.items()})


def floor_div(x: Expr, divisor: int) -> Expr:
    """floor(x / divisor)."""
    if divisor == 1:
        return x
    if x.low // divisor == x.high // divisor:
        return const(x.low // divisor)
    if isinstance(x, Quotient):
        return floor_div(x.x, x.divisor * divisor)
    offset, terms = linear(x)
    whole = {term: f // divisor for term, f in terms.items() if f % divisor == 0}
    rest = _sum(offset % divisor, {term: f for term, f in terms.items() if f % divisor})
    if whole or offset // divisor:  # d·a + b over d is a + b // d
        return add(_sum(offset // divisor, whole), floor_div(rest, divisor))
    common = math.gcd(divisor, offset, *terms.values())
    if common > 1:  # (c·a) // (c·d) is a // d
        return floor_div(_sum(offset // common, {t: f // common for t, f in terms.items()}), divisor // common)
    shared = _largest_common(divisor, terms)
    if shared > 1:  # (c·a + b) // (c·d) is a // d where 0 ≤ b < c
        coarse = {t: f for t, f in terms.items() if f % shared == 0}
        fine = _sum(offset, {t: f for t, f in terms.items() if f % shared})
        if fine.low >= 0 and fine.high < shared:
            return floor_div(_sum(0, {t: f // shared for t, f in coarse.items()}), divisor // shared)
    key = "//", x, divisor
    found = _MADE.get(key)
    return found or _MADE.setdefault(
        key, Quotient(x.low // divisor, x.high // divisor, f"({x} // {divisor})", x, divisor)
    )


def _largest_common(divisor: int, terms: Mapping[Expr, int]) -> int:
    """The largest number, less than the divisor, that divides it and at least one factor."""
    candidates = {math.gcd(divisor, factor) for factor in terms.values()}
    return max((c for c in candidates if 1 < c < divisor), default=1)


def remainder(x: Expr, divisor: int) -> Expr:
    """x modulo divisor, 0 … divisor − 1."""
    if divisor == 1:
        return const(0)
    if x.low >= 0 and x.high < divisor:
        return x
    if isinstance(x, Remainder) and x.divisor % divisor == 0:
        return remainder(x.x, divisor)
    offset, terms = linear(x)
    rest = _sum(offset % divisor, {term: f % divisor if f > 0 else f for term, f in terms.items() if f % divisor})
    if rest != x:
        return remainder(rest, divisor)
    if x.low // divisor == x.high // divisor:
        return add(x, const(-divisor * (x.low // divisor)))
    common = math.gcd(divisor, offset, *terms.values())
    if common > 1:  # (c·a) % (c·d) is c·(a % d)
        inner = _sum(offset // common, {t: f // common for t, f in terms.items()})
        return mul(remainder(inner, divisor // common), common)
    shared = _largest_common(divisor, terms)
    if shared > 1:  # (c·a + b) % (c·d) is c·(a % d) + b where 0 ≤ b < c
        coarse = {t: f for t, f in terms.items() if f % shared == 0}
        fine = _sum(offset, {t: f for t, f in terms.items() if f % shared})
        if fine.low >= 0 and fine.high < shared:
            outer = remainder(_sum(0, {t: f // shared for t, f in coarse.items()}), divisor // shared)
            return add(mul(outer, shared), fine)
    key = "%", x, divisor
    found = _MADE.get(key)
    return found or _MADE.setdefault(key, Remainder(0, divisor - 1, f"({x} % {divisor})", x, divisor))


def evaluate(x: Expr, values: Mapping[str, Any]) -> Any:
    """The number for values of the loop variables (also arrays of them)."""
    if isinstance(x, Const):
        return x.value
    if isinstance(x, Var):
        return values[x.name]
    if isinstance(x, Sum):
        return x.offset + sum(factor * evaluate(term, values) for term, factor in x.terms)
    if isinstance(x, Quotient):
        return evaluate(x.x, values) // x.divisor
    assert isinstance(x, Remainder)
    return evaluate(x.x, values) % x.divisor


def mentions(x: Expr, name: str) -> bool:
    """Whether a variable occurs."""
    if isinstance(x, Sum):
        return any(mentions(term, name) for term, _ in x.terms)
    if isinstance(x, (Quotient, Remainder)):
        return mentions(x.x, name)
    return isinstance(x, Var) and x.text == name


def substitute(x: Expr, values: Mapping[str, Expr]) -> Expr:
    """The expression with others in place of loop variables."""
    if isinstance(x, Var):
        return values.get(x.name, x)
    if isinstance(x, Sum):
        return add(const(x.offset), *(mul(substitute(term, values), factor) for term, factor in x.terms))
    if isinstance(x, Quotient):
        return floor_div(substitute(x.x, values), x.divisor)
    if isinstance(x, Remainder):
        return remainder(substitute(x.x, values), x.divisor)
    return x


# Shapes --------------------------------------------------------------------------------------------------------------
def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """How far apart neighbours along each axis lie in memory, in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def ravel(indices: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The place of an element in row-major order."""
    return add(const(0), *(mul(index, stride) for index, stride in zip(indices, row_major(shape), strict=True)))


def unravel(place: Expr, shape: Sequence[int]) -> tuple[Expr, ...]:
    """The indices of the element at a place in row-major order."""
    strides = row_major(shape)
    return tuple(
        remainder(floor_div(place, stride), size) if axis else floor_div(place, stride)
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True))
    )


# Movement ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Bound:
    """A condition low ≤ x < high: outside of it, a padded operand gives the padding."""

    x: Expr
    low: int
    high: int

    @property
    def always(self) -> bool:
        return self.low <= self.x.low and self.x.high < self.high


def bound(x: Expr, low: int, high: int) -> Bound:
    """The simplest form of low ≤ x < high: offsets move to the other side, and so do divisors."""
    while True:
        offset, terms = linear(x)
        if isinstance(x, Quotient):
            divisor = x.divisor
            x, low, high = x.x, low * divisor, high * divisor
        elif offset and len(terms) == 1:
            x, low, high = _sum(0, terms), low - offset, high - offset
        else:
            return Bound(x, low, high)


@dataclass(frozen=True, slots=True)
class Steps:
    """A condition x % step = 0: between the elements of an operand with interior padding lies padding."""

    x: Expr
    step: int

    @property
    def always(self) -> bool:
        return remainder(self.x, self.step) == const(0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an element comes from: indices into the operand, valid where all conditions hold; else it is `padding`."""

    indices: tuple[Expr, ...]
    conditions: tuple[Bound | Steps, ...] = ()
    padding: float | int | bool = 0


def move(name: str, shape: Sequence[int], indices: Sequence[Expr], attrs: Mapping[str, Any]) -> Place:
    """The place in an operand of `shape` of the element of the movement's result at `indices`."""
    match name:
        case "reshape":
            return Place(unravel(ravel(indices, attrs["shape"]), shape))
        case "transpose":
            source = [const(0)] * len(shape)
            for position, axis in enumerate(attrs["axes"]):
                source[axis] = indices[position]
            return Place(tuple(source))
        case "broadcast":
            return Place(tuple(const(0) if size == 1 else index for index, size in zip(indices, shape, strict=True)))
        case "slice":
            starts_steps = zip(indices, attrs["start"], attrs["step"], strict=True)
            return Place(tuple(add(mul(index, step), const(start)) for index, start, step in starts_steps))
        case "flip":
            return Place(
                tuple(
                    add(mul(index, -1), const(size - 1)) if axis in attrs["axes"] else index
                    for axis, (index, size) in enumerate(zip(indices, shape, strict=True))
                )
            )
        case "pad":
            return _move_pad(shape, indices, attrs)
    raise AssertionError(f"{name} is not a movement of one operand")


def _move_pad(shape: Sequence[int], indices: Sequence[Expr], attrs: Mapping[str, Any]) -> Place:
    source: list[Expr] = []
    conditions: list[Bound | Steps] = []
    for index, size, low, interior in zip(indices, shape, attrs["low"], attrs["interior"], strict=True):
        shifted, step = add(index, const(-low)), interior + 1
        extent = (size - 1) * step + 1 if size else 0
        checks: list[Bound | Steps] = [bound(shifted, 0, extent)]
        if step > 1:
            checks.append(Steps(shifted, step))
        conditions += [check for check in checks if not check.always]
        source.append(floor_div(shifted, step))
    return Place(tuple(source), tuple(conditions), attrs["value"])


