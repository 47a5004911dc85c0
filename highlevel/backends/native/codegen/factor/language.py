"""A small language for algorithms on matrices: loops, conditions and variables, written down as LLVM IR.

    with k.loop(0, n) as i, k.when(a[i, i] > pivot):
        pivot.value = a[i, i]

`X` is a value in a register – a whole number (64 bits), a real, a vector of reals, a truth value – with the operators
of Python; numbers beside it become constants of its type, scalars beside a vector go to all of its lanes. Rows of
matrices begin at multiples of a vector's size and are padded to whole vectors, so no loop has a remainder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

from highlevel.ir import DType
from highlevel.ir.dtypes import float32

from ..contraction.values import I1, I32, I64, VOID, Builder, Literal, Value, intrinsic, mangled, splat
from ..scalar import LlvmScalars, Scalar
from ..targets import Target

Number: TypeAlias = "X | int | float"
ACCUMULATORS = 4  # of a sum over a row: enough to hide the latency of additions


@dataclass(frozen=True, slots=True, eq=False)
class X:
    """A value in a register."""

    value: Value
    k: Language

    def _both(self, other: Number) -> tuple[Value, Value, bool]:
        """Two operands of one type, and whether they are real."""
        a, b = self.value, self.k.like(self, other).value
        if isinstance(b.type, ir.VectorType) and not isinstance(a.type, ir.VectorType):
            a = splat(self.k.builder, a, self.k.lanes)
        return a, b, _is_real(a.type)

    def _do(self, whole: str, real: str, other: Number, *, swap: bool = False) -> X:
        a, b, is_real = self._both(other)
        a, b = (b, a) if swap else (a, b)
        return X(getattr(self.k.builder, real if is_real else whole)(a, b), self.k)

    def __add__(self, other: Number) -> X:
        return self._do("add", "fadd", other)

    def __radd__(self, other: Number) -> X:
        return self._do("add", "fadd", other, swap=True)

    def __sub__(self, other: Number) -> X:
        return self._do("sub", "fsub", other)

    def __rsub__(self, other: Number) -> X:
        return self._do("sub", "fsub", other, swap=True)

    def __mul__(self, other: Number) -> X:
        return self._do("mul", "fmul", other)

    def __rmul__(self, other: Number) -> X:
        return self._do("mul", "fmul", other, swap=True)

    def __truediv__(self, other: Number) -> X:
        return self._do("sdiv", "fdiv", other)

    def __rtruediv__(self, other: Number) -> X:
        return self._do("sdiv", "fdiv", other, swap=True)

    def __floordiv__(self, other: Number) -> X:
        return self._do("sdiv", "fdiv", other)  # of numbers that are not negative

    def __mod__(self, other: Number) -> X:
        return self._do("srem", "frem", other)

    def __neg__(self) -> X:
        return X(self.k.builder.fneg(self.value), self.k) if _is_real(self.value.type) else 0 - self

    def _compare(self, predicate: str, other: Number) -> X:
        a, b, is_real = self._both(other)
        compare = self.k.builder.fcmp_ordered if is_real else self.k.builder.icmp_signed
        return X(compare(predicate, a, b), self.k)

    def __lt__(self, other: Number) -> X:
        return self._compare("<", other)

    def __le__(self, other: Number) -> X:
        return self._compare("<=", other)

    def __gt__(self, other: Number) -> X:
        return self._compare(">", other)

    def __ge__(self, other: Number) -> X:
        return self._compare(">=", other)

    def equals(self, other: Number) -> X:
        return self._compare("==", other)

    def __and__(self, other: X) -> X:
        return X(self.k.builder.and_(self.value, other.value), self.k)

    def __or__(self, other: X) -> X:
        return X(self.k.builder.or_(self.value, other.value), self.k)

    def __invert__(self) -> X:
        return X(self.k.builder.not_(self.value), self.k)

    def abs(self) -> X:
        return self.k.call("fabs", self)

    def sqrt(self) -> X:
        return self.k.call("sqrt", self)

    def is_nan(self) -> X:
        return X(self.k.builder.fcmp_unordered("uno", self.value, self.value), self.k)

    def is_finite(self) -> X:
        return (self - self).equals(0.0)


@dataclass(slots=True, eq=False)
class Variable:
    """A place for a value that changes."""

    place: Value
    type: Value
    k: Language

    @property
    def value(self) -> X:
        return X(self.k.builder.load(self.place, typ=self.type), self.k)

    @value.setter
    def value(self, value: Number) -> None:
        self.k.builder.store(self.k.constant(self.type, value).value, self.place)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Reals one after the other; vectors begin at multiples of the number of lanes."""

    pointer: Value
    k: Language

    def at(self, j: Number) -> Value:
        """The address of an element."""
        return self.k.builder.gep(self.pointer, [self.k.whole(j).value], source_etype=self.k.real)

    def __getitem__(self, j: Number) -> X:
        return X(self.k.builder.load(self.at(j), typ=self.k.real), self.k)

    def __setitem__(self, j: Number, value: Number) -> None:
        self.k.builder.store(self.k.constant(self.k.real, value).value, self.at(j))

    def vector(self, j: Number) -> X:
        return X(self.k.builder.load(self.at(j), typ=self.k.vector, align=self.k.dtype.size_bytes), self.k)

    def put(self, j: Number, value: Number) -> None:
        """Stores a vector."""
        self.k.builder.store(self.k.constant(self.k.vector, value).value, self.at(j), align=self.k.dtype.size_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Rows of reals, `step` apart."""

    pointer: Value
    step: X
    k: Language

    def row(self, i: Number, j: Number = 0) -> Row:
        """A row, from column j on."""
        return Row(Row(self.pointer, self.k).at(self.step * i + j), self.k)

    def __getitem__(self, place: tuple[Number, Number]) -> X:
        return self.row(place[0])[place[1]]

    def __setitem__(self, place: tuple[Number, Number], value: Number) -> None:
        self.row(place[0])[place[1]] = value


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """Integers of 32 bits."""

    pointer: Value
    k: Language

    def _at(self, i: Number) -> Value:
        return self.k.builder.gep(self.pointer, [self.k.whole(i).value], source_etype=I32)

    def __getitem__(self, i: Number) -> X:
        builder = self.k.builder
        return X(builder.sext(builder.load(self._at(i), typ=I32), I64), self.k)

    def __setitem__(self, i: Number, value: Number) -> None:
        self.k.builder.store(self.k.builder.trunc(self.k.whole(value).value, I32), self._at(i))


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """Where instructions go, the type of reals – float32 or float64 – and the CPU."""

    builder: Builder
    dtype: DType
    target: Target

    @property
    def real(self) -> Value:
        return ir.FloatType() if self.dtype is float32 else ir.DoubleType()

    @property
    def vector(self) -> Value:
        return ir.VectorType(self.real, self.lanes)

    @property
    def lanes(self) -> int:
        return self.target.lanes(8 * self.dtype.size_bytes)

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0**-23 if self.dtype is float32 else 2.0**-52

    # Values ----------------------------------------------------------------------------------------------------------
    def constant(self, kind: Value, value: Number) -> X:
        """A number as a value of an LLVM type; a scalar in all lanes of a vector."""
        if isinstance(value, X):
            if isinstance(kind, ir.VectorType) and not isinstance(value.value.type, ir.VectorType):
                return X(splat(self.builder, value.value, kind.count), self)
            return value
        if isinstance(kind, ir.VectorType):
            if value == 0:
                return X(Literal(kind, "zeroinitializer"), self)
            return X(splat(self.builder, self.constant(kind.element, value).value, kind.count), self)
        return X(ir.Constant(kind, float(value) if _is_real(kind) else int(value)), self)

    def like(self, x: X, other: Number) -> X:
        return self.constant(x.value.type, other)

    def whole(self, value: Number) -> X:
        return self.constant(I64, value)

    def number(self, value: Number) -> X:
        """A real; whole numbers are converted."""
        if isinstance(value, X) and not _is_real(value.value.type):
            return X(self.builder.sitofp(value.value, self.real), self)
        return self.constant(self.real, value)

    def flag(self, value: bool) -> X:
        return X(I1(int(value)), self)

    def variable(self, start: Number, kind: Value | None = None) -> Variable:
        """A variable; a Python number needs its type said, unless it is real."""
        kind = kind or (start.value.type if isinstance(start, X) else self.real)
        with self.builder.goto_entry_block():
            place = self.builder.alloca(kind)
        variable = Variable(place, kind, self)
        variable.value = start
        return variable

    def matrix(self, pointer: Value, step: Number) -> Matrix:
        return Matrix(pointer, self.whole(step), self)

    def row(self, pointer: Value) -> Row:
        return Row(pointer, self)

    # Arithmetic ------------------------------------------------------------------------------------------------------
    def call(self, name: str, *operands: X) -> X:
        """An intrinsic function of LLVM's, of reals or of vectors."""
        kind = operands[0].value.type
        suffix = mangled(kind) if isinstance(kind, ir.VectorType) else f"f{8 * self.dtype.size_bytes}"
        function = intrinsic(self.builder, f"llvm.{name}.{suffix}", kind, [x.value.type for x in operands])
        return X(self.builder.call(function, [x.value for x in operands]), self)

    def fma(self, a: X, b: Number, c: Number) -> X:
        """a · b + c; rounded once where the CPU can."""
        if not self.target.fma:
            return a * b + c
        kind = next((x.value.type for x in (a, b, c) if isinstance(x, X) and _is_vector(x)), a.value.type)
        return self.call("fma", *(self.constant(kind, x) for x in (a, b, c)))

    def select(self, condition: X, a: Number, b: Number) -> X:
        kind = next(x.value.type for x in (a, b) if isinstance(x, X))
        return X(self.builder.select(condition.value, *(self.constant(kind, x).value for x in (a, b))), self)

    def minimum(self, a: X, b: Number) -> X:
        return self.select(a < b, a, b)

    def maximum(self, a: X, b: Number) -> X:
        return self.select(a > b, a, b)

    def with_sign(self, a: Number, b: X) -> X:
        """|a| with the sign of b."""
        return self.call("copysign", self.like(b, a), b)

    def aligned(self, j: X) -> X:
        """The last multiple of the number of lanes that is not beyond j."""
        return X(self.builder.and_(j.value, I64(-self.lanes)), self)

    def lanes_from(self, first: X, start: X) -> X:
        """Which lanes of the vector at column `start` are columns from `first` on."""
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        limit = splat(self.builder, (first - start).value, self.lanes)
        return X(self.builder.icmp_signed(">=", numbers, limit), self)

    def total(self, vector: X) -> X:
        """The sum of the lanes: halves are added until one is left."""
        value, count = vector.value, self.lanes
        while count > 1:
            count //= 2
            nothing, kind = Literal(value.type, "poison"), ir.VectorType(I32, count)
            halves = [ir.Constant(kind, list(range(first, first + count))) for first in (0, count)]
            value = self.builder.fadd(*(self.builder.shuffle_vector(value, nothing, half) for half in halves))
        return X(self.builder.extract_element(value, I32(0)), self)

    # Control ---------------------------------------------------------------------------------------------------------
    @contextmanager
    def loop(self, start: Number, stop: Number, step: int = 1) -> Iterator[X]:
        """`for i in range(start, stop, step)`; step −1 counts down, from stop − 1 to start."""
        builder, first, last = self.builder, self.whole(start), self.whole(stop)
        body, after = builder.append_basic_block("loop"), builder.append_basic_block("end")
        before = builder.block
        builder.cbranch((first < last).value, body, after)
        builder.position_at_end(body)
        phi = builder.phi(I64)
        i = X(phi, self)
        if step > 0:
            phi.add_incoming(first.value, before)
            yield i
            following = builder.add(phi, I64(step), flags=("nsw",))
            more = builder.icmp_signed("<", following, last.value)
        else:
            phi.add_incoming(last.value, before)
            yield i + step
            following = builder.add(phi, I64(step), flags=("nsw",))
            more = builder.icmp_signed(">", following, first.value)
        phi.add_incoming(following, builder.block)
        builder.cbranch(more, body, after)
        builder.position_at_end(after)

    @contextmanager
    def when(self, condition: X) -> Iterator[None]:
        with self.builder.if_then(condition.value):
            yield

    @contextmanager
    def unless(self, condition: X) -> Iterator[None]:
        with self.when(~condition):
            yield

    @contextmanager
    def repeat(self, most: Number) -> Iterator[Callable[[X], None]]:
        """A loop that ends by itself after `most` rounds, and where `leave_if(condition)` – what is given – holds."""
        builder = self.builder
        after = builder.append_basic_block("after")

        def leave_if(condition: X) -> None:
            onward = builder.append_basic_block("onward")
            builder.cbranch(condition.value, after, onward)
            builder.position_at_end(onward)

        with self.loop(0, most):
            yield leave_if
        builder.branch(after)
        builder.position_at_end(after)

    def function(self, name: str, arguments: Sequence[Value], write: Callable[..., None]) -> Value:
        """A function of this module: `write(k, *arguments)` emits it once, however often it is called."""
        module = self.builder.module
        found = module.globals.get(name)
        if found is None:
            found = ir.Function(module, ir.FunctionType(VOID, arguments), name)
            found.linkage = "internal"
            for attribute in ("noinline", "nounwind"):
                found.attributes.add(attribute)
            inner = Language(ir.IRBuilder(found.append_basic_block("entry")), self.dtype, self.target)
            write(inner, *found.args)
            inner.builder.ret_void()
        return found

    # Elements in the types of buffers --------------------------------------------------------------------------------
    def read(self, pointer: Value, place: X, dtype: DType) -> X:
        """An element of a buffer as a real."""
        scalars, kind = LlvmScalars(self.builder, self.target), ir.ArrayType(ir.IntType(8), dtype.size_bytes)
        at = self.builder.gep(pointer, [place.value], source_etype=kind)
        return X(scalars.cast(scalars.load(at, dtype), self.dtype).value, self)

    def write(self, pointer: Value, place: X, dtype: DType, value: X) -> None:
        """A real into an element of a buffer."""
        scalars, kind = LlvmScalars(self.builder, self.target), ir.ArrayType(ir.IntType(8), dtype.size_bytes)
        at = self.builder.gep(pointer, [place.value], source_etype=kind)
        scalars.store(at, scalars.cast(Scalar(value.value, self.dtype), dtype))


def _is_vector(x: X) -> bool:
    return isinstance(x.value.type, ir.VectorType)


def _is_real(kind: Any) -> bool:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return isinstance(element, (ir.FloatType, ir.DoubleType))
