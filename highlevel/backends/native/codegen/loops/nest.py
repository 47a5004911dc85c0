"""Counted loops, with values that go from round to round, and loops along lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ...schedule.kernel import Term
from .. import indexing as ix
from ..scalar import Scalar
from .terms import BIT, I32, I64, INT64, Terms, i64

Values = list[Any]
Body = Callable[[Values], Values]
Axis = tuple[str, Any, Any]  # name, start and stop: numbers or registers


class Nest:
    """Emits loops around what `Terms` emits.

    masking: whether the target loads and stores part of a register
    short:   code should be short rather than fast: every step along lanes is masked, which saves a second body
    """

    def __init__(self, builder: Any, terms: Terms, masking: bool, short: bool) -> None:
        self.builder = builder
        self.terms = terms
        self.masking = masking
        self.short = short

    def count(
        self, start: Any, stop: Any, carried: Values, body: Callable[[Any, Values], Values], step: int = 1
    ) -> Values:
        """For start, start + step, … below stop: carried = body(i, carried)."""
        known = isinstance(start, int) and isinstance(stop, int)
        if known and start >= stop:
            return carried
        if known and start + step >= stop:
            return body(i64(start), carried)
        builder = self.builder
        first, last = (i64(x) if isinstance(x, int) else x for x in (start, stop))
        before = builder.block
        loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        if known:
            builder.branch(loop)
        else:
            builder.cbranch(builder.icmp_signed("<", first, last), loop, after)
        builder.position_at_end(loop)
        i = builder.phi(I64)
        phis = [builder.phi(value.type) for value in carried]
        results = body(i, list(phis))
        following = builder.add(i, i64(step), flags=("nsw",))
        i.add_incoming(first, before)
        i.add_incoming(following, builder.block)
        for phi, value, result in zip(phis, carried, results, strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(result, builder.block)
        end = builder.block
        builder.cbranch(builder.icmp_signed("<", following, last), loop, after)
        builder.position_at_end(after)
        if known:
            return results
        finals = []
        for value, result in zip(carried, results, strict=True):
            final = builder.phi(value.type)
            final.add_incoming(value, before)
            final.add_incoming(result, end)
            finals.append(final)
        return finals

    def over(
        self,
        axes: Sequence[Axis],
        carried: Values,
        body: Body,
        roots: Sequence[Term] = (),
        places: Sequence[ix.Expr] = (),
        lanes: int = 1,
    ) -> Values:
        """Nested loops; what in `roots` and `places` is known at a level is computed there, for lanes further in."""
        if not axes:
            return body(carried)
        (name, start, stop), inner = axes[0], axes[1:]

        def level(i: Any, values: Values) -> Values:
            with self.terms.scope():
                self.terms.variables[name] = i
                self.terms.prepare(roots, places, lanes)
                return self.over(inner, values, body, roots, places, lanes)

        return self.count(start, stop, carried, level)

    def along(
        self, axis: Axis, lanes: int, body: Body, carried: Values | None = None, single: Values | None = None
    ) -> tuple[Values, Values]:
        """An axis in steps of lanes. The rest is a masked step, or – where masks cost much – steps of one.

        carried: values in lanes; single: those that steps of one carry. Both are returned.
        """
        name, start, stop = axis
        carried, single = carried or [], single or []

        def step(width: int, mask: Any) -> Callable[[Any, Values], Values]:
            def run(i: Any, values: Values) -> Values:
                with self.terms.scope():
                    self.terms.variables[name] = i
                    self.terms.along(name, width, mask(i) if mask else None)
                    return body(values)

            return run

        if lanes == 1:
            return carried, self.count(start, stop, single, step(1, None))
        middle = self._whole_steps(start, stop, lanes)
        known = isinstance(middle, int)
        if self.short and self.masking and not (known and (middle == stop or middle - start <= lanes)):
            return self.count(start, stop, carried, step(lanes, lambda i: self.mask(i, stop, lanes)), lanes), single
        carried = self.count(start, middle, carried, step(lanes, None), lanes)
        # (LLVM 22 stores too many bytes where a constant mask leaves one lane of a number that is cut off.)
        one_left = known and middle + 1 == stop
        if not self.masking or one_left:
            return carried, self.count(middle, stop, single, step(1, None))
        return self.count(middle, stop, carried, step(lanes, lambda i: self.mask(i, stop, lanes)), lanes), single

    def _whole_steps(self, start: Any, stop: Any, lanes: int) -> Any:
        if isinstance(start, int) and isinstance(stop, int):
            return start + max(stop - start, 0) // lanes * lanes
        start, stop = (i64(x) if isinstance(x, int) else x for x in (start, stop))
        return self.builder.sub(stop, self.builder.urem(self.builder.sub(stop, start), i64(lanes)))

    def mask(self, i: Any, stop: Any, lanes: int) -> Any:
        """The lanes that are left."""
        if isinstance(i, ir.Constant) and isinstance(stop, int):
            return ir.Constant(ir.VectorType(BIT, lanes), [int(i.constant + lane < stop) for lane in range(lanes)])
        builder = self.builder
        left = builder.trunc(builder.sub(i64(stop) if isinstance(stop, int) else stop, i), I32)
        numbers = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        left = self.terms.language(lanes).spread(Scalar(left, INT64)).value
        return builder.icmp_unsigned("<", numbers, left)

    def total_of_lanes(self, x: Scalar, combine: Callable[[Any, Scalar, Scalar], Scalar]) -> Scalar:
        """All lanes in one: halves are combined until one is left."""
        while isinstance(x.value.type, ir.VectorType):
            half = x.value.type.count // 2
            k = self.terms.language(half)
            if half == 1:
                parts = [Scalar(self.builder.extract_element(x.value, I32(i)), x.dtype) for i in range(2)]
            else:
                orders = [list(range(half)), list(range(half, 2 * half))]
                parts = [
                    Scalar(
                        self.builder.shuffle_vector(x.value, x.value, ir.Constant(ir.VectorType(I32, half), order)),
                        x.dtype,
                    )
                    for order in orders
                ]
            x = combine(k, parts[0], parts[1])
        return x


