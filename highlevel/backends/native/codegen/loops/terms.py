"""The values of terms inside of loops: each computed once, as far out as possible, in lanes where it has to be.

Loops open scopes; a value belongs to the scope in which it was made, and is there for all scopes inside. One axis may
run along the lanes of vector registers. What does not depend on it is computed once, as a scalar. Loads become
vector loads where neighbours in lanes are neighbours in memory, else gathers.

Loads under a choice are made only where they count: masked. No function argument is said not to alias: the order of
loads and stores is right as it stands, also where a kernel works in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from highlevel.ir import DType, as_dtype

from ...schedule.collapse import axes_of, coefficient
from ...schedule.kernel import Apply, Choose, Index, Load, Number, Output, Term, Total
from .. import indexing as ix
from ..registers import constant, mangled
from ..scalar import LlvmScalars, Machine, Scalar, memory_type

I32, I64 = ir.IntType(32), ir.IntType(64)
BIT = ir.IntType(1)
POINTER = ir.PointerType()
BOOL, INT64 = as_dtype("bool"), as_dtype("int64")
Guard = tuple[tuple[int, bool], ...]  # conditions by number, and whether they hold


def i64(value: int) -> Any:
    return ir.Constant(I64, value)


@dataclass(frozen=True, slots=True)
class Node:
    """A term among others: structurally equal terms are one.

    variables: axes that it depends on; totals: those in it; loads: whether there are any; condition: of a choice
    """

    term: Term
    operands: tuple[int, ...]
    variables: frozenset[str]
    totals: frozenset[str]
    loads: bool
    condition: int = -1


class Terms:
    """Values where the builder stands.

    pointers, dtypes: of buffers, by name
    rows:   the axes that totals depend on
    totals: what gives the value of a total that has been computed
    streamed: buffers that are written past the caches
    """

    def __init__(
        self,
        builder: Any,
        pointers: Mapping[str, Any],
        dtypes: Mapping[str, DType],
        rows: frozenset[str],
        target: Machine | None,
    ) -> None:
        self.builder = builder
        self.pointers = pointers
        self.dtypes = dtypes
        self.rows = rows
        self.target = target
        self.variables: dict[str, Any] = {}
        self.lane = ""
        self.lanes = 1
        self.mask: Any = None
        self.totals: dict[str, Callable[[], Scalar]] = {}
        self.streamed: frozenset[str] = frozenset()
        self._scopes: list[dict[Any, Any]] = [{}]
        self._languages: dict[int, LlvmScalars] = {}
        self._numbers: dict[int, int] = {}
        self._known: dict[Any, int] = {}
        self._nodes: list[Node] = []
        self._conditions: list[tuple[ix.Bound | ix.Steps, ...]] = []

    # Scopes ----------------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What is set and computed inside is forgotten at its end."""
        before = dict(self.variables), self.lane, self.lanes, self.mask, dict(self.totals)
        self._scopes.append({})
        yield
        self._scopes.pop()
        self.variables, self.lane, self.lanes, self.mask, self.totals = before

    def along(self, name: str, lanes: int, mask: Any = None) -> None:
        """From now on, in this scope, the axis runs along lanes; its variable is that of the first lane."""
        self.lane, self.lanes, self.mask = name, lanes, mask

    def _find(self, key: Any) -> Any:
        for scope in reversed(self._scopes):
            if key in scope:
                return scope[key]
        return None

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        found = self._find(key)
        if found is None:
            found = self._scopes[-1][key] = make()
        return found

    def language(self, lanes: int) -> LlvmScalars:
        if lanes not in self._languages:
            self._languages[lanes] = LlvmScalars(self.builder, self.target, lanes)
        return self._languages[lanes]

    # Terms as numbers ------------------------------------------------------------------------------------------------
    def number(self, term: Term) -> int:
        """The number of a term, the same for equal ones."""
        if id(term) not in self._numbers:
            self._numbers[id(term)] = self._number(term)
        return self._numbers[id(term)]

    def _number(self, term: Term) -> int:
        operands: tuple[int, ...] = ()
        condition = -1
        key: tuple[Any, ...]
        match term:
            case Load():
                key, variables = ("load", term.buffer, str(term.place), term.dtype), axes_of(term.place)
            case Number():
                key, variables = ("number", type(term.value), repr(term.value), term.dtype), frozenset()
            case Index():
                key, variables = ("index", str(term.x), term.dtype), axes_of(term.x)
            case Total():
                key, variables = ("total", term.name), self.rows
            case Choose():
                condition = self._condition(term.conditions)
                operands = self.number(term.inside), self.number(term.outside)
                key = "choose", condition, operands
                variables = frozenset().union(*(axes_of(c.x) for c in term.conditions))
            case Apply():
                operands = tuple(map(self.number, term.operands))
                key, variables = (term.primitive.name, repr(term.attrs), term.dtype, operands), frozenset()
        if key not in self._known:
            below = [self._nodes[i] for i in operands]
            variables = variables.union(*(node.variables for node in below))
            totals = frozenset({term.name} if isinstance(term, Total) else ()).union(*(node.totals for node in below))
            loads = isinstance(term, Load) or any(node.loads for node in below)
            self._known[key] = len(self._nodes)
            self._nodes.append(Node(term, operands, variables, totals, loads, condition))
        return self._known[key]

    def _condition(self, conditions: tuple[ix.Bound | ix.Steps, ...]) -> int:
        if conditions not in self._conditions:
            self._conditions.append(conditions)
        return self._conditions.index(conditions)

    # Values ----------------------------------------------------------------------------------------------------------
    def value(self, term: Term) -> Scalar:
        """The term in lanes, or – where there are none, or it is the same in all – as a scalar."""
        return self._value(self.number(term), ())

    def vector(self, term: Term) -> Scalar:
        """The term, in all lanes."""
        return self._spread(self.number(term), ())

    def axes(self, number: int) -> frozenset[str]:
        """The axes that a term depends on, given its number."""
        return self._nodes[number].variables

    def give(self, term: Term, value: Scalar) -> None:
        """In this scope, the term has that value."""
        self._scopes[-1]["value", self.number(term), ()] = value

    def _guard(self, number: int, guard: Guard) -> Guard:
        return guard if self._nodes[number].loads else ()

    def _value(self, number: int, guard: Guard) -> Scalar:
        guard = self._guard(number, guard)
        found: Scalar = self._keep(("value", number, guard), lambda: self._emit(number, guard))
        return found

    def _spread(self, number: int, guard: Guard) -> Scalar:
        guard = self._guard(number, guard)
        x = self._value(number, guard)
        if self.lanes == 1 or isinstance(x.value.type, ir.VectorType):
            return x
        k = self.language(self.lanes)
        found: Scalar = self._keep(("spread", number, guard, self.lanes), lambda: k.spread(x))
        return found

    def _in_lanes(self, variables: frozenset[str]) -> bool:
        return self.lanes > 1 and self.lane in variables

    def _emit(self, number: int, guard: Guard) -> Scalar:
        node = self._nodes[number]
        term = node.term
        match term:
            case Load():
                return self._load(term, guard)
            case Number():
                return self.language(1).number(term.value, term.dtype)
            case Index():
                if not self._in_lanes(node.variables):
                    return self.language(1).cast(Scalar(self.index(term.x), INT64), term.dtype)
                return self.language(self.lanes).cast(Scalar(self.indices(term.x, I64), INT64), term.dtype)
            case Total():
                return self.totals[term.name]()
            case Choose():
                return self._choose(node, guard)
            case Apply():
                values = [self._value(operand, guard) for operand in node.operands]
                lanes = 1
                if any(isinstance(x.value.type, ir.VectorType) for x in values):
                    lanes, values = self.lanes, [self._spread(operand, guard) for operand in node.operands]
                assert term.primitive.scalar is not None
                found: Scalar = term.primitive.scalar(self.language(lanes), *values, **dict(term.attrs))
                return found
        raise AssertionError(f"not a term: {term}")

    def _choose(self, node: Node, guard: Guard) -> Scalar:
        here = self._holds(node.condition)
        condition = node.condition
        inside, outside = node.operands
        guards = (*guard, (condition, True)), (*guard, (condition, False))
        values = self._value(inside, guards[0]), self._value(outside, guards[1])
        if any(isinstance(x.type, ir.VectorType) for x in (here, *(v.value for v in values))):
            values = self._spread(inside, guards[0]), self._spread(outside, guards[1])
        return self.language(1).select(Scalar(here, BOOL), *values)

    # Loads and stores ------------------------------------------------------------------------------------------------
    def _load(self, term: Load, guard: Guard) -> Scalar:
        place = term.place
        if not self._in_lanes(axes_of(place)):
            if not self._in_lanes(self._guard_axes(guard)):
                index = self.index(place)
                if guard:
                    index = self.builder.select(self._guard_bit(guard), index, i64(0))
                return self.language(1).load(self.address(term.buffer, index), term.dtype)
            return self._gather(term, self._mask(guard))
        step, mask = coefficient(place, self.lane), self._mask(guard)
        k = self.language(self.lanes)
        if step == 1:
            return k.load(self.address(term.buffer, self.index(place)), term.dtype, mask)
        if step == -1:
            last = self.builder.sub(self.index(place), i64(self.lanes - 1))
            backwards = None if mask is None else self._reversed(mask)
            found = k.load(self.address(term.buffer, last), term.dtype, backwards)
            return Scalar(self._reversed(found.value), term.dtype)
        return self._gather(term, mask)

    def _reversed(self, vector: Any) -> Any:
        order = ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes - 1, -1, -1)))
        return self.builder.shuffle_vector(vector, vector, order)

    def _gather(self, term: Load, mask: Any) -> Scalar:
        """Elements that are anywhere."""
        k = self.language(self.lanes)
        kind = ir.VectorType(memory_type(term.dtype), self.lanes)
        addresses = self._addresses(term.buffer, term.place, term.dtype)
        name = f"llvm.masked.gather.{mangled(kind)}.v{self.lanes}p0"
        mask = constant(ir.VectorType(BIT, self.lanes), 1) if mask is None else mask
        value = k.code.call(name, kind, addresses, I32(term.dtype.size_bytes), mask, constant(kind, 0))
        return k._from_memory(value, term.dtype)

    def _addresses(self, buffer: str, place: ix.Expr, dtype: DType) -> Any:
        builder, lanes = self.builder, self.lanes
        start = builder.ptrtoint(self.pointers[buffer], I64)
        size = constant(ir.VectorType(I64, lanes), dtype.size_bytes)
        offsets = builder.mul(self.indices(place, I64), size)
        start = self.language(lanes).spread(Scalar(start, INT64)).value
        return builder.inttoptr(builder.add(start, offsets), ir.VectorType(POINTER, lanes))

    def store(self, output: Output) -> None:
        """Computes and stores an output."""
        self.store_value(output.buffer.name, output.place, self.vector(output.term))

    def store_value(self, buffer: str, place: ix.Expr, x: Scalar) -> None:
        """Stores lanes, or a scalar."""
        k = self.language(self.lanes)
        if self.lanes == 1:
            k.store(self.address(buffer, self.index(place)), x)
        elif coefficient(place, self.lane) == 1:
            k.store(self.address(buffer, self.index(place)), x, self.mask)
            if buffer in self.streamed and self.mask is None:
                self._stream(self.builder.block.instructions[-1], self.lanes * x.dtype.size_bytes)
        else:
            value = k._to_memory(x)
            name = f"llvm.masked.scatter.{mangled(value.type)}.v{self.lanes}p0"
            mask = constant(ir.VectorType(BIT, self.lanes), 1) if self.mask is None else self.mask
            addresses = self._addresses(buffer, place, x.dtype)
            k.code.call(name, ir.VoidType(), value, addresses, I32(x.dtype.size_bytes), mask)

    def _stream(self, store: Any, size_bytes: int) -> None:
        """Has whole registers written past the caches."""
        store.align = min(size_bytes, 64)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([I32(1)]))

    def address(self, buffer: str, index: Any) -> Any:
        """Of an element."""
        etype = memory_type(self.dtypes[buffer])
        return self.builder.gep(self.pointers[buffer], [index], inbounds=True, source_etype=etype)

    # Conditions ------------------------------------------------------------------------------------------------------
    def _guard_axes(self, guard: Guard) -> frozenset[str]:
        return frozenset().union(*(axes_of(c.x) for number, _ in guard for c in self._conditions[number]))

    def _guard_bit(self, guard: Guard) -> Any:
        """Whether a guard lets through: bits, or lanes of them where one of its conditions has lanes."""
        return self._keep(("guard", guard), lambda: self._emit_guard(guard))

    def _emit_guard(self, guard: Guard) -> Any:
        single, lanes = None, None
        for number, wanted in guard:
            bit = self._holds(number)
            bit = bit if wanted else self._not(bit)
            if isinstance(bit.type, ir.VectorType):
                lanes = bit if lanes is None else self.builder.and_(lanes, bit)
            else:
                single = bit if single is None else self.builder.and_(single, bit)
        if lanes is None or single is None:
            return single if lanes is None else lanes
        return self.builder.and_(lanes, self._spread_bit(single))

    def _not(self, bit: Any) -> Any:
        return self.builder.xor(bit, constant(bit.type, 1))

    def _spread_bit(self, bit: Any) -> Any:
        return self.language(self.lanes).spread(Scalar(bit, BOOL)).value

    def _mask(self, guard: Guard) -> Any:
        """Which lanes may be loaded; None for all."""
        if self.lanes == 1 or not guard:
            return self.mask
        bit = self._guard_bit(guard)

        def make() -> Any:
            lanes = bit if isinstance(bit.type, ir.VectorType) else self._spread_bit(bit)
            return lanes if self.mask is None else self.builder.and_(lanes, self.mask)

        return self._keep(("mask", guard, self.lanes), make)

    def _holds(self, number: int) -> Any:
        """Whether all of the conditions hold: one bit, or one for each lane."""
        return self._keep(("holds", number), lambda: self._emit_holds(self._conditions[number]))

    def _emit_holds(self, conditions: Sequence[ix.Bound | ix.Steps]) -> Any:
        builder = self.builder
        in_lanes = self._in_lanes(frozenset().union(*(axes_of(c.x) for c in conditions)))
        result = None
        for condition in conditions:
            x = condition.x
            if in_lanes:
                kind = I32 if max(-x.low, x.high, _largest(condition)) < 2**31 else I64
                value = self.indices(x, kind)
            else:
                value = self.index(x)
            parts = []
            if isinstance(condition, ix.Steps):
                rest = self._floor(value, x, condition.step)[1]
                parts.append(builder.icmp_signed("==", rest, constant(value.type, 0)))
            else:
                if x.low < condition.low:
                    parts.append(builder.icmp_signed(">=", value, constant(value.type, condition.low)))
                if x.high >= condition.high:
                    parts.append(builder.icmp_signed("<", value, constant(value.type, condition.high)))
            for part in parts:
                result = part if result is None else builder.and_(result, part)
        if result is None:
            return constant(ir.VectorType(BIT, self.lanes) if in_lanes else BIT, 1)
        return result

    # Indices ---------------------------------------------------------------------------------------------------------
    def index(self, x: ix.Expr) -> Any:
        """An index expression as a 64-bit integer: that of the first lane."""
        match x:
            case ix.Const():
                return i64(x.value)
            case ix.Var():
                return self.variables[x.name]
            case ix.Sum():
                return self._keep(("index", str(x)), lambda: self._sum(x))
        assert isinstance(x, (ix.Quotient, ix.Remainder))
        both = self._keep(("floor", str(x.x), x.divisor), lambda: self._floor(self.index(x.x), x.x, x.divisor))
        return both[0 if isinstance(x, ix.Quotient) else 1]

    def _sum(self, x: ix.Sum) -> Any:
        total, rest = self._find(("part", str(x))) or (None, x.terms)
        if total is None and x.offset:
            total = i64(x.offset)
        return self._added(total, rest)

    def _added(self, total: Any, terms: Sequence[tuple[ix.Expr, int]]) -> Any:
        builder = self.builder
        for term, factor in terms:
            value = self.index(term)
            product = value if factor == 1 else builder.mul(value, i64(factor), flags=("nsw",))
            total = product if total is None else builder.add(total, product, flags=("nsw",))
        return total

    def indices(self, x: ix.Expr, kind: Any) -> Any:
        """An index expression in all lanes."""
        wide = ir.VectorType(kind, self.lanes)
        if self.lane not in axes_of(x):
            value = self.index(x)
            value = value if kind is I64 else self.builder.trunc(value, kind)
            return self.language(self.lanes).spread(Scalar(value, INT64)).value
        step = coefficient(x, self.lane)
        if step is not None:
            start = self.index(x)
            start = start if kind is I64 else self.builder.trunc(start, kind)
            start = self.language(self.lanes).spread(Scalar(start, INT64)).value
            return self.builder.add(start, ir.Constant(wide, [step * lane for lane in range(self.lanes)]))
        if isinstance(x, ix.Sum):
            total = constant(wide, x.offset)
            for term, factor in x.terms:
                product = self.builder.mul(self.indices(term, kind), constant(wide, factor))
                total = self.builder.add(total, product)
            return total
        assert isinstance(x, (ix.Quotient, ix.Remainder))
        narrow = x.x.low > -(2**30) and x.x.high < 2**30 and x.divisor < 2**30
        inner = I32 if narrow else I64
        found = self._floor(self.indices(x.x, inner), x.x, x.divisor)[0 if isinstance(x, ix.Quotient) else 1]
        if inner is kind:
            return found
        return self.builder.sext(found, wide) if inner is I32 else self.builder.trunc(found, wide)

    def _floor(self, value: Any, x: ix.Expr, divisor: int) -> tuple[Any, Any]:
        """Quotient and remainder rounded down; for numbers that may be negative the operand is shifted up first."""
        builder, kind = self.builder, value.type
        shift = -(x.low // divisor) if x.low < 0 else 0
        raised = builder.add(value, constant(kind, shift * divisor)) if shift else value
        quotient = builder.udiv(raised, constant(kind, divisor))
        rest = builder.sub(raised, builder.mul(quotient, constant(kind, divisor)))
        return (builder.sub(quotient, constant(kind, shift)) if shift else quotient), rest

    # Ahead of loops --------------------------------------------------------------------------------------------------
    def prepare(self, roots: Sequence[Term], places: Sequence[ix.Expr] = (), lanes: int = 1) -> None:
        """Computes here, before the next loop begins, what in the terms depends on no further axis."""
        ready = frozenset(self.variables)
        seen: set[tuple[int, Guard]] = set()
        for place in places:
            self._prepare_index(place, ready)
        before, self.lanes = self.lanes, lanes
        for term in roots:
            self._prepare(self.number(term), (), ready, seen)
        self.lanes = before

    def _prepare(self, number: int, guard: Guard, ready: frozenset[str], seen: set[tuple[int, Guard]]) -> None:
        node = self._nodes[number]
        guard = self._guard(number, guard)
        if (number, guard) in seen:
            return
        seen.add((number, guard))
        if isinstance(node.term, Number):
            return
        if node.variables | self._guard_axes(guard) <= ready and node.totals <= self.totals.keys():
            self._spread(number, guard)
            return
        if isinstance(node.term, Load):
            self._prepare_index(node.term.place, ready)
        elif isinstance(node.term, Choose):
            axes = frozenset().union(*(axes_of(c.x) for c in node.term.conditions))
            if axes <= ready:
                self._holds(node.condition)
            for operand, holds in zip(node.operands, (True, False), strict=True):
                self._prepare(operand, (*guard, (node.condition, holds)), ready, seen)
        else:
            for operand in node.operands:
                self._prepare(operand, guard, ready, seen)

    def _prepare_index(self, x: ix.Expr, ready: frozenset[str]) -> None:
        if not isinstance(x, ix.Sum):
            return
        total, rest = self._find(("part", str(x))) or (None, x.terms)
        here = [(term, factor) for term, factor in rest if axes_of(term) <= ready]
        if here:
            if total is None and x.offset:
                total = i64(x.offset)
            left = [item for item in rest if item not in here]
            self._scopes[-1]["part", str(x)] = self._added(total, here), left


def _largest(condition: ix.Bound | ix.Steps) -> int:
    return max(abs(condition.low), abs(condition.high)) if isinstance(condition, ix.Bound) else condition.step
