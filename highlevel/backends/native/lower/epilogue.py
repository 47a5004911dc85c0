"""Epilogues from terms: what is done with each element of a contraction's result, as vector code.

In: a term over the indices of the result, i0, i1, …, and which of the product's numbers – batch, row, column – these
are made of. Out: an `Epilogue`. A load whose place moves with the column reads a vector, one that does not is read
once per row; all else that depends on rows alone is computed there as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llvmlite import ir

from highlevel.ir import DType, as_dtype

from ..codegen import indexing as ix
from ..codegen.contraction import Epilogue
from ..codegen.contraction.finish import WriteVector
from ..codegen.contraction.values import I64, Builder, Value
from ..codegen.scalar import LlvmScalars, Scalar, memory_type
from ..codegen.targets import Target
from ..schedule.kernel import Apply, Choose, Index, Load, Number, Term, Total

BATCH, ROW, COLUMN = "batch", "row", "column"
INT64 = as_dtype("int64")


# Places --------------------------------------------------------------------------------------------------------------
def mentions(x: ix.Expr, name: str) -> bool:
    """Whether a variable occurs."""
    match x:
        case ix.Var():
            return x.name == name
        case ix.Sum():
            return any(mentions(term, name) for term, _ in x.terms)
        case ix.Quotient() | ix.Remainder():
            return mentions(x.x, name)
    return False


def along_columns(x: ix.Expr) -> tuple[int, ix.Expr] | None:
    """(step, rest) with x = step · column + rest, where there are such; the rest depends on batch and row alone."""
    terms = x.terms if isinstance(x, ix.Sum) else ((x, 1),)
    step = 0
    rest: list[ix.Expr] = [ix.const(x.offset if isinstance(x, ix.Sum) else 0)]
    for term, factor in terms:
        if isinstance(term, ix.Var) and term.name == COLUMN:
            step = factor
        elif mentions(term, COLUMN):
            return None
        else:
            rest.append(ix.mul(term, factor))
    return step, ix.add(*rest)


def parts(term: Term) -> Iterator[Term]:
    """The term and all below it: operands first, each object once, in the same order every time."""
    seen: set[int] = set()

    def visit(node: Term) -> Iterator[Term]:
        if id(node) in seen:
            return
        seen.add(id(node))
        below = node.operands if isinstance(node, Apply) else ()
        below = (node.inside, node.outside) if isinstance(node, Choose) else below
        for operand in below:
            yield from visit(operand)
        yield node

    return visit(term)


def in_numbers_of_product(term: Term, indices: Mapping[str, ix.Expr]) -> Term:
    """The term with places in terms of batch, row and column; what is shared stays so."""
    known: dict[int, Term] = {}
    for node in parts(term):
        match node:
            case Load():
                known[id(node)] = Load(node.buffer, ix.substitute(node.place, indices), node.dtype)
            case Index():
                known[id(node)] = Index(ix.substitute(node.x, indices), node.dtype)
            case Apply():
                operands = tuple(known[id(operand)] for operand in node.operands)
                known[id(node)] = Apply(node.primitive, operands, node.attrs, node.dtype)
            case _:
                known[id(node)] = node
    return known[id(term)]


def is_supported(term: Term) -> bool:
    """Whether `term_epilogue` can make code of a term (over batch, row and column)."""
    for node in parts(term):
        match node:
            case Choose():
                return False
            case Load():
                found = along_columns(node.place)
                if found is None or found[0] not in (0, 1):
                    return False
            case Index():
                if along_columns(node.x) is None:
                    return False
            case Apply():
                if node.primitive.scalar is None:
                    return False
    return True


# Code ----------------------------------------------------------------------------------------------------------------
def term_epilogue(term: Term, product: DType, lanes: int, target: Target) -> tuple[Epilogue, tuple[str, ...]]:
    """The epilogue of a supported term, and the buffers that are its operands, in order."""
    buffers = tuple(dict.fromkeys(node.buffer for node in parts(term) if isinstance(node, Load)))
    numbers = {name: number for number, name in enumerate(buffers)}

    def row(builder: Builder, batch: Value, row: Value, operands: tuple[Value, ...]) -> WriteVector:
        pointers = dict(zip(buffers, operands, strict=True))
        writer = _Row(builder, target, lanes, term, product, pointers, {BATCH: batch, ROW: row})
        return writer.write

    return Epilogue(_name(term, product, numbers), term.dtype, len(buffers), row), buffers


def _name(term: Term, product: DType, numbers: Mapping[str, int]) -> str:
    """A name that stands for the instructions: a hash of the term with buffers called by their number."""
    lines, order = [str(product)], dict[int, int]()
    for node in parts(term):
        order[id(node)] = len(order)
        match node:
            case Load():
                what = f"load {numbers[node.buffer]} {node.place}"
            case Number():
                what = f"number {node.value!r}"
            case Index():
                what = f"index {node.x}"
            case Apply():
                what = f"{node.primitive.name} {[order[id(operand)] for operand in node.operands]} {node.attrs}"
            case _:
                what = "product"
        lines.append(f"{what} {node.dtype}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Row:
    """One row while it is finished."""

    builder: Builder
    target: Target
    lanes: int
    term: Term
    product: DType
    pointers: Mapping[str, Value]
    variables: Mapping[str, Value]
    k: LlvmScalars = field(init=False)
    fixed: dict[int, Scalar] = field(default_factory=dict)  # values that all columns share
    places: dict[int, Value] = field(default_factory=dict)  # where loads begin, what indices begin with

    def __post_init__(self) -> None:
        self.k = LlvmScalars(self.builder, self.target, self.lanes)
        for node in parts(self.term):
            if isinstance(node, (Load, Index)):
                self._start(node)
            elif isinstance(node, Number):
                self.fixed[id(node)] = self.k.number(node.value, node.dtype)
            elif isinstance(node, Apply) and all(id(operand) in self.fixed for operand in node.operands):
                self.fixed[id(node)] = self._apply(node, self.fixed)

    def _start(self, node: Load | Index) -> None:
        found = along_columns(node.place if isinstance(node, Load) else node.x)
        assert found is not None
        step, rest = found
        begin = index(self.builder, rest, self.variables)
        if isinstance(node, Load):
            begin = self.builder.gep(self.pointers[node.buffer], [begin], source_etype=memory_type(node.dtype))
        if step:
            self.places[id(node)] = begin
        elif isinstance(node, Load):
            self.fixed[id(node)] = self.k.spread(self._load_one(begin, node.dtype))
        else:
            self.fixed[id(node)] = self.k.cast(self.k.spread(Scalar(begin, INT64)), node.dtype)

    def _load_one(self, pointer: Value, dtype: DType) -> Scalar:
        return LlvmScalars(self.builder, self.target).load(pointer, dtype)

    def _apply(self, node: Apply, values: Mapping[int, Scalar]) -> Scalar:
        assert node.primitive.scalar is not None
        operands = [values[id(operand)] for operand in node.operands]
        found: Scalar = node.primitive.scalar(self.k, *operands, **dict(node.attrs))
        return found

    def write(self, column: Value, source: Value, goal: Value, mask: Value | None) -> None:
        """The lanes of one vector."""
        builder, values = self.builder, dict(self.fixed)
        for node in parts(self.term):
            if id(node) in values:
                continue
            match node:
                case Total():
                    values[id(node)] = self.k.load(source, self.product)
                case Load():
                    begin = self.places[id(node)]
                    pointer = builder.gep(begin, [column], source_etype=memory_type(node.dtype))
                    values[id(node)] = self.k.load(pointer, node.dtype, mask)
                case Index():
                    values[id(node)] = self._indices(node, column)
                case Apply():
                    values[id(node)] = self._apply(node, values)
        self.k.store(goal, values[id(self.term)], mask)

    def _indices(self, node: Index, column: Value) -> Scalar:
        builder, found = self.builder, along_columns(node.x)
        assert found is not None
        step = found[0]
        first = builder.add(self.places[id(node)], builder.mul(column, I64(step)))
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), [step * lane for lane in range(self.lanes)])
        whole = builder.add(self.k.spread(Scalar(first, INT64)).value, numbers)
        return self.k.cast(Scalar(whole, INT64), node.dtype)


def index(builder: Builder, x: ix.Expr, variables: Mapping[str, Value]) -> Value:
    """An index expression as a 64-bit integer."""
    match x:
        case ix.Const():
            return I64(x.value)
        case ix.Var():
            return variables[x.name]
        case ix.Sum():
            total: Value = I64(x.offset)
            for term, factor in x.terms:
                total = builder.add(total, builder.mul(index(builder, term, variables), I64(factor)))
            return total
        case ix.Quotient() | ix.Remainder():  # rounded down: what may be negative is shifted up first
            shift = -(x.x.low // x.divisor) if x.x.low < 0 else 0
            raised = builder.add(index(builder, x.x, variables), I64(shift * x.divisor))
            if isinstance(x, ix.Remainder):
                return builder.urem(raised, I64(x.divisor))
            return builder.sub(builder.udiv(raised, I64(x.divisor)), I64(shift))
    raise AssertionError(f"not an index expression: {x}")
