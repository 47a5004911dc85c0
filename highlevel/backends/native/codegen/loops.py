"""From a `LoopKernel` to LLVM IR: plain loops, for LLVM's vectorizer.

In: a kernel (collapsed). Out: a function in an LLVM module,

    void name(i64 begin, i64 end, T* noalias buffer…)       buffers: what the kernel reads, then what it writes

that computes the rows begin … end − 1 of the outermost row axis – so that threads can share the work, and a row is
always computed whole by one of them: the result does not depend on their number. A kernel without row axes has one row.

No fast-math flags, but `reassoc` on the adding of totals alone, which lets the vectorizer keep lane accumulators; how
many lanes follows from the target, so equal machines get equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir

from highlevel.ir import DType, as_dtype

from ..schedule.kernel import Apply, Choose, Index, Load, LoopKernel, Number, Output, Stage, Term, Total
from . import indexing as ix
from .scalar import LlvmScalars, Machine, Scalar, memory_type

I64 = ir.IntType(64)
INT64 = as_dtype("int64")


def emit_kernel(
    module: Any, kernel: LoopKernel, name: str, dtypes: Mapping[str, DType], target: Machine | None = None
) -> Any:
    """Adds the kernel's function to a module; `dtypes` has the element type of each buffer by name."""
    names = tuple(dict.fromkeys((*kernel.reads, *kernel.writes)))
    pointers = [ir.PointerType()] * len(names)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64, *pointers]), name)
    for argument in function.args[2:]:
        argument.add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    begin, end, *buffers = function.args
    emitter = _KernelEmitter(builder, kernel, dict(zip(names, buffers, strict=True)), dtypes, target)
    emitter.emit(begin, end)
    builder.ret_void()
    return function


class _KernelEmitter:
    """Emits one kernel: the loops, and the terms inside of them."""

    def __init__(
        self,
        builder: Any,
        kernel: LoopKernel,
        pointers: Mapping[str, Any],
        dtypes: Mapping[str, DType],
        target: Machine | None,
    ) -> None:
        self.builder = builder
        self.kernel = kernel
        self.pointers = pointers
        self.dtypes = dtypes
        self.k = LlvmScalars(builder, target)
        self.variables: dict[str, Any] = {}
        self.totals: dict[str, Scalar] = {}
        self.slots = {stage.name: builder.alloca(memory_type(stage.dtype), name=stage.name) for stage in kernel.stages}

    def emit(self, begin: Any, end: Any) -> None:
        rows = self.kernel.rows
        if not rows:
            with self.builder.if_then(self.builder.icmp_signed("<", begin, end)):
                self._row()
            return
        bounds = [(begin, end), *((_i64(0), _i64(size)) for _, size in rows[1:])]
        self._loops([name for name, _ in rows], bounds, self._row)

    def _row(self) -> None:
        self.totals = {}
        for stage in self.kernel.stages:
            self._stage(stage)
        for output in self.kernel.outputs:
            if output.per_element:
                self._over_columns(lambda output=output: self._store(output))  # type: ignore[misc]
            else:
                self._store(output)

    def _stage(self, stage: Stage) -> None:
        slot = self.slots[stage.name]
        self.k.store(slot, self.k.number(identity(stage.combine, stage.dtype), stage.dtype))

        def step() -> None:
            value = self.k.cast(_Terms(self).value(stage.term), stage.dtype)
            self.k.store(slot, combine(self.k, stage.combine, self.k.load(slot, stage.dtype), value))

        self._over_columns(step)
        self.totals[stage.name] = self.k.cast(self.k.load(slot, stage.dtype), stage.result)

    def _store(self, output: Output) -> None:
        value = _Terms(self).value(output.term)
        self.k.store(self.element(output.buffer.name, self.index(output.place)), value)

    def element(self, buffer: str, place: Any) -> Any:
        """The address of an element."""
        etype = memory_type(self.dtypes[buffer])
        return self.builder.gep(self.pointers[buffer], [place], inbounds=True, source_etype=etype)

    def _over_columns(self, body: Callable[[], None]) -> None:
        columns = self.kernel.columns
        self._loops([name for name, _ in columns], [(_i64(0), _i64(size)) for _, size in columns], body)

    def _loops(self, names: Sequence[str], bounds: Sequence[tuple[Any, Any]], body: Callable[[], None]) -> None:
        """Nested counting loops around a body; the variables are there under their names while it is emitted."""
        if not names:
            body()
            return
        builder, (start, stop) = self.builder, bounds[0]
        before = builder.block
        loop, after = builder.append_basic_block(f"{names[0]}.loop"), builder.append_basic_block(f"{names[0]}.end")
        builder.cbranch(builder.icmp_signed("<", start, stop), loop, after)
        builder.position_at_end(loop)
        variable = builder.phi(I64, names[0])
        variable.add_incoming(start, before)
        self.variables[names[0]] = variable
        self._loops(names[1:], bounds[1:], body)
        following = builder.add(variable, _i64(1), flags=("nsw",))
        variable.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
        builder.position_at_end(after)

    # Indices ---------------------------------------------------------------------------------------------------------
    def index(self, x: ix.Expr) -> Any:
        """An index expression as a 64-bit integer."""
        builder = self.builder
        match x:
            case ix.Const():
                return _i64(x.value)
            case ix.Var():
                return self.variables[x.name]
            case ix.Sum():
                total: Any = None
                for term, factor in x.terms:
                    value = self.index(term)
                    product = value if factor == 1 else builder.mul(value, _i64(factor), flags=("nsw",))
                    total = product if total is None else builder.add(total, product, flags=("nsw",))
                return builder.add(total, _i64(x.offset), flags=("nsw",)) if x.offset else total
            case ix.Quotient():
                return self._floor(x.x, x.divisor)[0]
            case ix.Remainder():
                return self._floor(x.x, x.divisor)[1]
        raise AssertionError(f"not an index expression: {x}")

    def _floor(self, x: ix.Expr, divisor: int) -> tuple[Any, Any]:
        """Quotient and remainder rounded down; for numbers that may be negative the operand is shifted up first."""
        builder, value = self.builder, self.index(x)
        shift = -(x.low // divisor) if x.low < 0 else 0
        raised = builder.add(value, _i64(shift * divisor), flags=("nsw",)) if shift else value
        quotient = builder.udiv(raised, _i64(divisor))
        quotient = builder.sub(quotient, _i64(shift), flags=("nsw",)) if shift else quotient
        return quotient, builder.urem(raised, _i64(divisor))

    def holds(self, conditions: Sequence[ix.Bound | ix.Steps]) -> Any:
        """Whether all conditions hold, as one bit."""
        builder, result = self.builder, None
        for condition in conditions:
            value = self.index(condition.x)
            if isinstance(condition, ix.Steps):
                parts = [builder.icmp_signed("==", self._floor(condition.x, condition.step)[1], _i64(0))]
            else:
                parts = []
                if condition.x.low < condition.low:
                    parts.append(builder.icmp_signed(">=", value, _i64(condition.low)))
                if condition.x.high >= condition.high:
                    parts.append(builder.icmp_signed("<", value, _i64(condition.high)))
            for part in parts:
                result = part if result is None else builder.and_(result, part)
        return ir.Constant(ir.IntType(1), 1) if result is None else result


class _Terms:
    """The terms of one stage or output, each emitted once; under a choice, loads that do not count read element 0."""

    def __init__(self, emitter: _KernelEmitter) -> None:
        self.emitter = emitter
        self.k = emitter.k
        self.guard: Any | None = None
        self._known: dict[tuple[int, int], Scalar] = {}

    def value(self, term: Term) -> Scalar:
        key = id(term), id(self.guard)
        if key not in self._known:
            self._known[key] = self._emit(term)
        return self._known[key]

    def _emit(self, term: Term) -> Scalar:
        emitter, builder = self.emitter, self.emitter.builder
        match term:
            case Load():
                place = emitter.index(term.place)
                if self.guard is not None:
                    place = builder.select(self.guard, place, _i64(0))
                return self.k.load(emitter.element(term.buffer, place), term.dtype)
            case Number():
                return self.k.number(term.value, term.dtype)
            case Index():
                return self.k.cast(Scalar(emitter.index(term.x), INT64), term.dtype)
            case Total():
                return emitter.totals[term.name]
            case Choose():
                return self._choose(term)
            case Apply():
                operands = [self.value(operand) for operand in term.operands]
                assert term.primitive.scalar is not None
                found: Scalar = term.primitive.scalar(self.k, *operands, **dict(term.attrs))
                return found
        raise AssertionError(f"not a term: {term}")

    def _choose(self, term: Choose) -> Scalar:
        builder, outer = self.emitter.builder, self.guard
        here = self.emitter.holds(term.conditions)
        self.guard = here if outer is None else builder.and_(outer, here)
        inside = self.value(term.inside)
        self.guard = builder.not_(here) if outer is None else builder.and_(outer, builder.not_(here))
        outside = self.value(term.outside)
        self.guard = outer
        return self.k.select(Scalar(here, as_dtype("bool")), inside, outside)


def _i64(value: int) -> Any:
    return ir.Constant(I64, value)


def identity(name: str, dtype: DType) -> Any:
    """The number that changes no total of that kind."""
    if name in ("sum", "prod"):
        return 0 if name == "sum" else 1
    if dtype.is_bool:
        return name == "min"
    if dtype.is_float:
        return -math.inf if name == "max" else math.inf
    bits, signed = 8 * dtype.size_bytes, dtype.kind == "int"
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return lowest if name == "max" else highest


def combine(k: LlvmScalars, name: str, total: Scalar, value: Scalar) -> Scalar:
    """One more value in a total; floats may be added in another order, nothing else may change."""
    if name == "sum" and total.dtype.is_float:
        return Scalar(k.builder.fadd(total.value, value.value, flags=("reassoc",)), total.dtype)
    operation = {"sum": k.add, "prod": k.mul, "max": k.maximum, "min": k.minimum}[name]
    return operation(total, value)
