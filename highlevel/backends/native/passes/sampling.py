"""Instances of patterns: programs that a rule applies to, drawn at random.

A pattern says what operators it is made of, so its instances need not be written by hand: shapes, types, numbers and
attributes are drawn, operators refuse what does not fit them, and what the rule then matches is an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from highlevel.errors import HighlevelError
from highlevel.ir import dtypes
from highlevel.ir.dtypes import DType, weak_value
from highlevel.ir.graph import Graph, Symbol
from highlevel.ir.primitive import REGISTRY, Primitive
from highlevel.ir.primitives.creation import full
from highlevel.ir.spec import Spec
from highlevel.ir.trace import open_traces, trace_graph

from .driver import rewrite
from .pattern import RANGES, Hole, Pattern, Rule, Value

ATTEMPTS = 3000
_SHAPES: tuple[tuple[int, ...], ...] = (
    (3,),
    (2, 3),
    (3, 3),
    (1, 3),
    (2, 1),
    (2, 3, 4),
    (2, 1, 3),
    (1, 1, 4),
    (6, 4),
    (2, 2, 3, 2),
    (),
    (0, 3),
)
_TYPES = (
    dtypes.float32,
    dtypes.float64,
    dtypes.float32,
    dtypes.int32,
    dtypes.bool_,
    dtypes.float16,
    dtypes.bfloat16,
    dtypes.uint8,
    dtypes.int64,
)
_NUMBERS = (0.5, 2.0, 3.0, 1.0, -1.0, 0.0, -0.0, 7.0, -0.25, 0.1, 1e-3, 128.0, -6.0, 1e30, 1024.0, 4096.0)


@dataclass
class Sampler:
    """One attempt at an instance: the choices made so far.

    case:   shapes and attributes that are given
    found:  what holes and values stand for: symbols, numbers, attributes, operators
    inputs: the symbols that were drawn, in order
    """

    rng: np.random.Generator
    shape: tuple[int, ...]
    dtype: DType
    case: Mapping[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    inputs: list[Symbol] = field(default_factory=list)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    # Operands --------------------------------------------------------------------------------------------------------
    def build(self, term: Any, like: Spec | None = None) -> Symbol:
        """A symbol for a term; a hole that is free yet becomes an input of the spec asked for, or of any."""
        if isinstance(term, Pattern):
            return self._operator(term)
        spec = like or Spec(self.shape, self.dtype)
        if isinstance(term, Hole):
            if term.name in self.case:
                spec = Spec(self.case[term.name], self.dtype)
            if term.name not in self.found:
                symbol = open_traces()[0].leaf("input", len(self.inputs), spec)
                self.inputs.append(symbol)
                self.found[term.name] = symbol
            bound: Symbol = self.found[term.name]
            return bound
        number = self.found.setdefault(term.name, self.pick(_NUMBERS)) if isinstance(term, Value) else term
        if not spec.dtype.is_float:
            number = weak_value(int(number), spec.dtype)  # raises where it does not fit
        made: Symbol = full(shape=spec.shape, value=number, dtype=spec.dtype)
        return made

    def _operator(self, term: Pattern) -> Symbol:
        primitive, fixed = self._primitive(term.primitive, term.operands)
        operands = self._operands(primitive, term.operands)
        drawn: dict[str, Any] = {}
        for name, value in {**fixed, **(term.attrs or {})}.items():
            if isinstance(value, Value):
                if value.name in self.case:
                    self.found[value.name] = self.case[value.name]
                elif value.name not in self.found:
                    self.found[value.name] = self._attribute(primitive, name, operands, drawn)
                value = self.found[value.name]
            drawn[name] = value
        result: Symbol = primitive(*operands, **drawn)
        return result

    def _primitive(self, primitive: Any, operands: Sequence[Any]) -> tuple[Primitive, dict[str, Any]]:
        """The operator, drawn where it is a hole, with its attributes (which are values of their own)."""
        if isinstance(primitive, Primitive):
            return primitive, {}
        if primitive.name not in self.found:
            options = [p for p in REGISTRY.values() if RANGES[primitive.name](p)]
            if not any(isinstance(operand, Hole) and operand.rest for operand in operands):
                options = [p for p in options if _arity(p) == len(operands)]
            self.found[primitive.name] = self.pick(options)
        chosen: Primitive = self.found[primitive.name]
        return chosen, {name: Value(f"_{primitive.name}_{name}") for name in _ATTRIBUTES.get(chosen.name, ())}

    def _operands(self, primitive: Primitive, terms: Sequence[Any]) -> list[Symbol]:
        """Built patterns first; what is free takes after them, as the operator's family wants it."""
        terms = [part for term in terms for part in self._parts(term, primitive, len(terms))]
        done = {i: self.build(term) for i, term in enumerate(terms) if isinstance(term, Pattern)}
        for i, term in enumerate(terms):
            if isinstance(term, Hole) and term.name in self.found:
                done[i] = self.build(term)
        for i, term in enumerate(terms):
            if i not in done:
                known = [done[j].spec for j in sorted(done)]
                done[i] = self.build(term, self._fitting(primitive, i, known))
        return [done[i] for i in range(len(terms))]

    def _parts(self, term: Any, primitive: Primitive, count: int) -> list[Any]:
        if not (isinstance(term, Hole) and term.rest):
            return [term]
        number = int(self.rng.integers(1, 4)) if primitive.name == "concatenate" else _arity(primitive)
        return [self._rest_part(f"{term.name}{i}") for i in range(number - count + 1)]

    def _rest_part(self, name: str) -> Any:
        """An operand that is nothing special, a number, or made by an operator that rules look at."""
        kind = int(self.rng.integers(8))
        hole = Hole(name)
        if kind == 0:
            return 2.0
        if kind in (1, 2, 3):
            return Pattern(REGISTRY["broadcast"], (hole,), {"shape": Value("_rest_shape")})
        if kind in (4, 5):
            return Pattern(REGISTRY["transpose"], (hole,), {"axes": Value("_rest_axes")})
        if kind == 6:
            return Pattern(REGISTRY["reshape"], (hole,), {"shape": Value("_rest_reshape")})
        return hole

    def _fitting(self, primitive: Primitive, place: int, known: Sequence[Spec]) -> Spec | None:
        if primitive.name == "select" and place == 0:
            return Spec(known[-1].shape if known else self.shape, dtypes.bool_)
        if primitive.name == "select" and known and len(known) == 1 and known[0].dtype.is_bool:
            return Spec(known[0].shape, self.dtype)
        if primitive.name == "gather" and place == 1:
            return Spec((2, 1), dtypes.int32)
        if primitive.name == "matmul":
            if not known:
                return Spec(self.shape, self.dtype)
            (other,) = known
            shape = (*other.shape[:-2], other.shape[-1], 3) if place else (*other.shape[:-2], 3, other.shape[-2])
            return Spec(shape, other.dtype)
        return known[-1] if known else None

    # Attributes ------------------------------------------------------------------------------------------------------
    def _attribute(self, primitive: Primitive, name: str, operands: Sequence[Symbol], drawn: dict[str, Any]) -> Any:
        draw = _DRAWS.get((primitive.name, name)) or _DRAWS.get(("", name))
        if draw is None:
            raise HighlevelError(f"no way to draw {name!r} of {primitive.name}")
        return draw(self, operands[0].spec if operands else Spec(self.shape, self.dtype), drawn)


def _arity(primitive: Primitive) -> int:
    return len(primitive.samples[0].operands)


# Attributes by operator and name --------------------------------------------------------------------------------------
def _split_sizes(s: Sampler, x: Spec, drawn: Any) -> Any:
    """A shape of as many elements: sizes split, merged, ones put in."""
    sizes = list(x.shape)
    if s.rng.random() < 0.3:
        return x.shape
    for _ in range(int(s.rng.integers(1, 3))):
        move = int(s.rng.integers(4))
        at = int(s.rng.integers(len(sizes) + 1))
        if move == 0:
            sizes.insert(at, 1)
        elif move == 1 and at + 1 < len(sizes):
            sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
        elif move == 2 and at < len(sizes) and sizes[at] in (4, 6):
            sizes[at : at + 1] = [2, sizes[at] // 2]
        elif move == 3 and 1 in sizes:
            sizes.remove(1)
    return tuple(sizes)


def _some_axes(s: Sampler, x: Spec, drawn: Any) -> Any:
    return tuple(axis for axis in range(x.ndim) if s.rng.random() < 0.5)


def _repeated(s: Sampler, x: Spec, drawn: Any) -> Any:
    return tuple(s.pick((1, 3, 20)) if size == 1 else size for size in x.shape)


def _start(s: Sampler, x: Spec, drawn: Any) -> Any:
    return tuple(int(s.rng.integers(0, min(size, 2) + 1)) if s.rng.random() < 0.4 else 0 for size in x.shape)


def _stop(s: Sampler, x: Spec, drawn: Any) -> Any:
    starts = drawn.get("start", (0,) * x.ndim)
    ends = [
        size if s.rng.random() < 0.5 else int(s.rng.integers(min(a, size), size + 1))
        for a, size in zip(starts, x.shape, strict=False)
    ]
    return tuple(max(a, b) for a, b in zip(starts, ends, strict=True))


def _steps(s: Sampler, x: Spec, drawn: Any) -> Any:
    return tuple(s.pick((1, 1, 1, 2)) for _ in x.shape)


def _margins(s: Sampler, x: Spec, drawn: Any) -> Any:
    return tuple(s.pick((0, 0, 1, 2)) for _ in x.shape)


def _gaps(s: Sampler, x: Spec, drawn: Any) -> Any:
    return (0,) * x.ndim if s.rng.random() < 0.7 else tuple(s.pick((0, 1)) for _ in x.shape)


_DRAWS: dict[tuple[str, str], Callable[[Sampler, Spec, Any], Any]] = {
    ("transpose", "axes"): lambda s, x, drawn: tuple(int(axis) for axis in s.rng.permutation(x.ndim)),
    ("", "axes"): _some_axes,
    ("", "axis"): lambda s, x, drawn: int(s.rng.integers(max(x.ndim, 1))),
    ("", "dtype"): lambda s, x, drawn: s.pick(_TYPES),
    ("bitcast", "dtype"): lambda s, x, drawn: dtypes.int32 if x.dtype.is_float else dtypes.float32,
    ("reshape", "shape"): _split_sizes,
    ("broadcast", "shape"): _repeated,
    ("", "shape"): lambda s, x, drawn: s.shape,
    ("full", "value"): lambda s, x, drawn: s.pick(_NUMBERS),
    ("slice", "start"): _start,
    ("slice", "stop"): _stop,
    ("slice", "step"): _steps,
    ("pad", "low"): _margins,
    ("pad", "high"): _margins,
    ("pad", "interior"): _gaps,
    ("pad", "value"): lambda s, x, drawn: s.pick((0.0, 2.0)) if x.dtype.is_float else s.pick((0, 1)),
}
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "cast": ("dtype",),
    "bitcast": ("dtype",),
    "reshape": ("shape",),
    "transpose": ("axes",),
    "flip": ("axes",),
    "slice": ("start", "stop", "step"),
}


# Instances -----------------------------------------------------------------------------------------------------------
def instances(rule: Rule, rng: np.random.Generator, count: int) -> Iterator[tuple[Graph, Graph]]:
    """Up to `count` graphs that end in the rule's pattern, with what the rule makes of them."""
    for attempt in range(ATTEMPTS):
        if count == 0:
            return
        shape = _SHAPES[int(rng.integers(len(_SHAPES)))]
        other = attempt % 2 and rule.kind != "stabilizing"  # which is judged in float32, by float64
        dtype = _TYPES[int(rng.integers(len(_TYPES)))] if other else dtypes.float32
        case = rule.cases[int(rng.integers(len(rule.cases)))] if rule.cases else {}
        before = _attempt(rule, Sampler(rng, shape, dtype, case))
        if before is None:
            continue
        after = rewrite(before, [rule])
        if after is not before:
            count -= 1
            yield before, after


def _attempt(rule: Rule, sampler: Sampler) -> Graph | None:
    try:
        graph, _ = trace_graph(lambda: [sampler.build(rule.term)], [])
    except (HighlevelError, ValueError, OverflowError, IndexError):
        return None
    return Graph(tuple(sampler.inputs), graph.outputs)
