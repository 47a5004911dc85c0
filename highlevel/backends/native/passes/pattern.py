"""Rules, written as algebra: a pattern and what replaces it, both functions over the terms of the language.

    Rule("−(−x) → x", lambda x: neg(neg(x)), lambda x: x)
    Rule("x / 2ⁿ → x · 2⁻ⁿ", lambda x, C: x / C, lambda x, C: x * (1.0 / C), where=divides_exactly)
    Rule("slice of a concatenate", lambda *xs, A, S, T, P: slice(concatenate(*xs, axis=A), start=S, stop=T, step=P), …)

The pattern is built by calling its function with holes, one per parameter:

    x       lower case: any symbol; where it stands twice, the same symbol
    *xs     the remaining operands of an operator
    P       upper case, as an attribute: any value; where it stands twice, equal values
    C       upper case, as an operand: any number (a `full`, or a constant of one number); bound to the number
    F, M    called: any elementwise operator, any that only rearranges one operand (`RANGES`), with its attributes
    1, -0.0 a number: a `full` or a constant of exactly that number

Operators that commute are matched either way round. `replace` and `where` take whichever of the names they want, and
`root` for what is replaced; parameters with a default value are left alone. `replace` gives a symbol, a number (that
often repeated), or None where the rule does not apply after all.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from highlevel.errors import ArgumentError
from highlevel.ir.graph import Symbol, attribute_key, key_of
from highlevel.ir.primitive import REGISTRY, Primitive

from .facts import FULL, fill_value, same_number

ROOT = "root"
KINDS = ("exact", "reassociating", "stabilizing")
COMMUTATIVE = frozenset({"add", "mul", "equal", "not_equal", "bit_and", "bit_or", "bit_xor"})
RANGES: dict[str, Callable[[Primitive], bool]] = {  # what called holes stand for
    "F": lambda primitive: primitive.family == "elementwise",
    "M": lambda primitive: primitive.name in ("reshape", "transpose", "slice", "flip"),
}
Bindings = dict[str, Any]
Matcher = Callable[[Symbol, Bindings], bool]


# Terms ---------------------------------------------------------------------------------------------------------------
class Term:
    """A part of a pattern, with the operators of arithmetic."""

    __slots__ = ()

    def __add__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["add"], (self, other))

    def __radd__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["add"], (other, self))

    def __sub__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["sub"], (self, other))

    def __rsub__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["sub"], (other, self))

    def __mul__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["mul"], (self, other))

    def __rmul__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["mul"], (other, self))

    def __truediv__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["div"], (self, other))

    def __rtruediv__(self, other: Any) -> Pattern:
        return Pattern(REGISTRY["div"], (other, self))

    def __neg__(self) -> Pattern:
        return Pattern(REGISTRY["neg"], (self,))


@dataclass(frozen=True, slots=True, eq=False)
class Hole(Term):
    """Any symbol; or, with `rest`, all further operands."""

    name: str
    rest: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Value(Term):
    """Any attribute, any number, or – called – any operator of a range."""

    name: str

    def __call__(self, *operands: Any) -> Pattern:
        if self.name not in RANGES:
            raise ArgumentError("a hole that is called has a range", got=self.name, expected=", ".join(RANGES))
        return Pattern(self, operands)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern(Term):
    """An operator (or a `Value` that stands for one) on terms and numbers, with attributes that may be `Value`s."""

    primitive: Primitive | Value
    operands: tuple[Any, ...]
    attrs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """What a called hole is bound to: an operator with the attributes that were found."""

    primitive: Primitive
    attrs: Mapping[str, Any]

    def __call__(self, *operands: Any) -> Any:
        return self.primitive(*operands, **self.attrs)


# Arguments -----------------------------------------------------------------------------------------------------------
class Wanted:
    """A function called with those of the bindings that its parameters name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        self.positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    @property
    def names(self) -> list[str]:
        return [*self.positional, *([self.rest] if self.rest else []), *self.named]

    def __call__(self, found: Bindings) -> Any:
        rest = found[self.rest] if self.rest else ()
        return self.function(*[found[n] for n in self.positional], *rest, **{n: found[n] for n in self.named})


def _holes(wanted: Wanted) -> Bindings:
    made: Bindings = {n: Value(n) if n.isupper() else Hole(n) for n in (*wanted.positional, *wanted.named)}
    if wanted.rest:
        made[wanted.rest] = (Hole(wanted.rest, rest=True),)
    return made


# Rules ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Rule:
    """One identity, read from left to right.

    name:    the identity as one would write it
    pattern: what is looked for
    replace: what takes its place: of the same shape and type
    kind:    "exact": the same bits for every input. "reassociating": rounding may differ, finiteness may not.
             "stabilizing": at least as near to the true value everywhere, and finite where that is
    where:   a further condition on what was found
    among:   names of operators, one of which has to have made one of the operands; empty: any may
    cases:   what to try it on where chance would not find it: shapes of symbols and values of attributes, by name
    """

    name: str
    pattern: Callable[..., Any]
    replace: Callable[..., Any]
    kind: str = "exact"
    where: Callable[..., bool] | None = None
    cases: tuple[Mapping[str, Any], ...] = ()
    among: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(f"rule {self.name!r}: unknown kind", got=self.kind, expected=", ".join(KINDS))
        if not isinstance(self.term, Pattern):
            raise ArgumentError(f"rule {self.name!r}: the pattern is no operator", got=type(self.term).__name__)
        known = {ROOT, *Wanted(self.pattern).names}
        for function in (self.replace, self.where):
            unknown = set(Wanted(function).names) - known if function else set()
            if unknown:
                raise ArgumentError(f"rule {self.name!r}: not in the pattern", got=", ".join(sorted(unknown)))

    @cached_property
    def term(self) -> Pattern:
        """The pattern as a term."""
        wanted = Wanted(self.pattern)
        made: Pattern = wanted(_holes(wanted))
        return made

    def ends_in(self, primitive: Primitive) -> bool:
        """Whether the pattern's last operator can be this one."""
        return _in_range(self.term.primitive, primitive)

    @cached_property
    def operators(self) -> frozenset[Primitive]:
        """Those that the pattern names: where one of them is missing, it does not fit."""
        return frozenset(_operators(self.term))

    @cached_property
    def _variants(self) -> tuple[tuple[Pattern, Matcher], ...]:
        return tuple([(variant, _matcher(variant)) for variant in _variants(self.term)])

    def matchers(self, made_by: Sequence[Primitive | None], limit: int) -> Iterator[Matcher]:
        """What tells whether the pattern fits, for its variants that could: by the operators that made the operands.

        made_by: None for leaves; there may be more of them than these if their number is the limit
        """
        if self.among and len(made_by) < limit and not any(p is not None and p.name in self.among for p in made_by):
            return
        for variant, matcher in self._variants:
            if _could_fit(variant, made_by, limit):
                yield matcher

    @cached_property
    def _replace(self) -> Wanted:
        return Wanted(self.replace)

    @cached_property
    def _where(self) -> Wanted | None:
        return Wanted(self.where) if self.where else None

    def match(self, symbol: Symbol) -> Bindings | None:
        """What the holes stand for, if the pattern fits the symbol."""
        found = (self.match_with(matcher, symbol) for _, matcher in self._variants)
        return next((bindings for bindings in found if bindings is not None), None)

    def match_with(self, matcher: Matcher, symbol: Symbol) -> Bindings | None:
        """The same for one variant of the pattern."""
        found: Bindings = {ROOT: symbol}
        return found if matcher(symbol, found) and (self._where is None or self._where(found)) else None

    def replacement(self, found: Bindings) -> Any:
        """What replaces what was found – recorded in the open trace – or None."""
        return self._replace(found)

    def __repr__(self) -> str:
        return f"Rule({self.name}, {self.kind})"


def _variants(term: Any) -> Iterator[Any]:
    """The pattern with the operands of commutative operators in either order, each arrangement once."""
    if not isinstance(term, Pattern):
        yield term
        return
    for operands in itertools.product(*[list(_variants(operand)) for operand in term.operands]):
        yield Pattern(term.primitive, operands, term.attrs)
        commutes = isinstance(term.primitive, Primitive) and term.primitive.name in COMMUTATIVE
        if commutes and operands[0] is not operands[1]:
            yield Pattern(term.primitive, operands[::-1], term.attrs)


def _operators(term: Any) -> Iterator[Primitive]:
    if isinstance(term, Pattern):
        if isinstance(term.primitive, Primitive):
            yield term.primitive
        for operand in term.operands:
            yield from _operators(operand)


def _could_fit(term: Pattern, made_by: Sequence[Primitive | None], limit: int) -> bool:
    firsts = [o for o in term.operands if not (isinstance(o, Hole) and o.rest)]
    if len(made_by) < len(firsts) or (len(made_by) < limit and len(firsts) == len(term.operands) != len(made_by)):
        return len(made_by) == limit
    return all(_could_be(part, primitive) for part, primitive in zip(firsts, made_by, strict=False))


def _could_be(term: Any, primitive: Primitive | None) -> bool:
    """Whether a part of a pattern could be what this operator made (None: a leaf)."""
    if isinstance(term, Hole):
        return True
    if isinstance(term, Pattern):
        return _in_range(term.primitive, primitive)
    return primitive is None or primitive is FULL  # a number


def _in_range(wanted: Primitive | Value, primitive: Primitive | None) -> bool:
    if primitive is None or isinstance(wanted, Primitive):
        return wanted is primitive
    return RANGES[wanted.name](primitive)


# Matching ------------------------------------------------------------------------------------------------------------
def _matcher(term: Any) -> Matcher:
    if isinstance(term, Hole):
        return _match_symbol(term.name)
    if isinstance(term, Value):
        return _match_any_number(term.name)
    if isinstance(term, Pattern):
        return _match_operator(term)
    return lambda symbol, found: _is_number(symbol, term)


def _match_symbol(name: str) -> Matcher:
    def match(symbol: Symbol, found: Bindings) -> bool:
        bound = found.get(name)
        if bound is None:
            found[name] = symbol
            return True
        return bound.node is symbol.node and bound.index == symbol.index

    return match


def _is_number(symbol: Symbol, number: float) -> bool:
    value = fill_value(symbol)
    return value is not None and same_number(value, number, symbol.spec.dtype)


def _match_any_number(name: str) -> Matcher:
    def match(symbol: Symbol, found: Bindings) -> bool:
        value = fill_value(symbol)
        if value is None:
            return False
        if name not in found:
            found[name] = value
            return True
        return _is_number(symbol, found[name])

    return match


def _match_operator(term: Pattern) -> Matcher:
    primitive = term.primitive
    wanted = primitive if isinstance(primitive, Primitive) else None
    rest = next((o.name for o in term.operands if isinstance(o, Hole) and o.rest), None)
    firsts = [o for o in term.operands if not (isinstance(o, Hole) and o.rest)]
    # What fails soonest is looked at first: numbers and operators before holes.
    order = sorted(range(len(firsts)), key=lambda i: isinstance(firsts[i], Hole))
    operands = [(i, _matcher(firsts[i])) for i in order]
    attrs = [(name, _match_attribute(value)) for name, value in (term.attrs or {}).items()]
    count = len(firsts)

    def match(symbol: Symbol, found: Bindings) -> bool:
        node = symbol.node
        if node.primitive is not wanted and wanted is not None:
            return False
        inputs = node.inputs
        if len(inputs) != count and (rest is None or len(inputs) < count):
            return False
        if isinstance(primitive, Value) and not _bind_operator(primitive.name, symbol, found):
            return False
        for position, matches in operands:
            if not matches(inputs[position], found):
                return False
        if rest is not None and not _bind_rest(rest, inputs[count:], found):
            return False
        return not attrs or all(matches(node.attrs[name], found) for name, matches in attrs)

    return match


def _bind_operator(name: str, symbol: Symbol, found: Bindings) -> bool:
    node = symbol.node
    if node.primitive is None or not RANGES[name](node.primitive):
        return False
    bound = found.setdefault(name, Applied(node.primitive, node.attrs))
    same = bound.primitive is node.primitive
    return bool(same and (bound.attrs is node.attrs or _same_attribute(dict(bound.attrs), dict(node.attrs))))


def _bind_rest(name: str, symbols: tuple[Symbol, ...], found: Bindings) -> bool:
    bound = found.setdefault(name, symbols)
    return bound is symbols or list(map(key_of, bound)) == list(map(key_of, symbols))


def _same_attribute(a: Any, b: Any) -> bool:
    return bool(attribute_key(a) == attribute_key(b))


def _match_attribute(wanted: Any) -> Callable[[Any, Bindings], bool]:
    if not isinstance(wanted, Value):
        return lambda value, found: _same_attribute(value, wanted)
    name = wanted.name

    def match(value: Any, found: Bindings) -> bool:
        if name not in found:
            found[name] = value
            return True
        return _same_attribute(found[name], value)

    return match
