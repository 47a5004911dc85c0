"""From groups to kernels: the terms of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from highlevel.ir import DType, as_dtype

from ..codegen import indexing as ix
from ..codegen.threefry import random_term
from .absorb import Absorbed, Operand
from .contraction import Contraction, View
from .groups import Group
from .kernel import PRODUCT, Apply, Buffer, Choose, Index, Load, LoopKernel, Number, Output, Stage, Term, Total
from .places import Indices, axis_indices, indices_at, joined_parts, move, own_indices, place_of
from .sketch import Sketch
from .spaces import Space, row_place
from .values import REDUCTIONS, Key, Kind, Value


class TermBuilder:
    """Terms of values at indices; the same value at the same indices is the same object."""

    def __init__(self, here: Mapping[Value, Indices | None]) -> None:
        """here: values that are computed although they are kept, always at these indices; None for totals."""
        self.here = here
        self.origins: dict[str, None] = {}
        self.stages: list[Stage] = []
        self.totals: dict[Value, Term] = {}
        self._known: dict[tuple[Value, Indices], Term] = {}
        self._loads: dict[tuple[Value, ix.Expr], Load] = {}

    def term(self, value: Value, indices: Indices) -> Term:
        """The element of a value at indices."""
        root = value.root
        if root in self.here:
            at = self.here[root]
            return self._total(root) if at is None else self._built(root, at)
        if root.kept:
            place = place_of(indices, value.shape)
            found = self._loads.get((root, place))
            if found is None:
                found = self._loads[root, place] = Load(root.label, place, root.dtype)
            return found
        return self._built(value, indices)

    def _built(self, value: Value, indices: Indices) -> Term:
        known = self._known.get((value, indices))
        if known is not None:
            return known
        self.origins[value.node.origin.layer] = None
        term = self._known[value, indices] = self._make(value, indices)
        return term

    def _make(self, value: Value, indices: Indices) -> Term:
        if value.kind is Kind.ELEMENTWISE:
            operands = tuple([self.term(x, indices) for x in value.inputs])
            attrs = tuple(sorted(value.attrs.items())) if value.attrs else ()
            assert value.primitive is not None
            return Apply(value.primitive, operands, attrs, value.dtype)
        if value.kind is Kind.DRAW:
            return random_term(value.inputs[0].root.label, place_of(indices, value.shape))
        if value.name == "full":
            return Number(value.attrs["value"], value.dtype)
        if value.name == "iota":
            return Index(indices[value.attrs["axis"]], value.dtype)
        if value.name == "concatenate":
            return self._concatenated(value, indices)
        return self._moved(value, indices)

    def _moved(self, value: Value, indices: Indices) -> Term:
        source = value.inputs[0]
        if not source.size:
            return Number(value.attrs.get("value", 0), source.dtype)  # nothing but padding
        place = move(value, indices)
        inside = self.term(source, place.indices)
        if not place.conditions:
            return inside
        return Choose(place.conditions, inside, Number(place.padding, source.dtype), source.dtype)

    def _concatenated(self, value: Value, indices: Indices) -> Term:
        axis = indices[value.attrs["axis"]]
        result: Term | None = None
        for source, moved, start, end in reversed(joined_parts(value, indices)):
            inside = self.term(source, moved)
            bound = ix.Bound(axis, start, end)
            result = inside if result is None else Choose((bound,), inside, result, source.dtype)
        return result if result is not None else Number(0, value.dtype)

    def _total(self, value: Value) -> Term:
        """The total of a reduction; its stage is made when it is first asked for."""
        if value not in self.totals:
            operand = value.inputs[0]
            term = self.term(operand, own_indices(operand.shape))
            self.origins[value.node.origin.layer] = None
            name = f"t{len(self.stages)}"
            wide = accumulator(operand.dtype, value.name)
            self.stages.append(Stage(name, REDUCTIONS[value.name], term, wide, operand.dtype))
            self.totals[value] = Total(name, operand.dtype)
        return self.totals[value]


def accumulator(dtype: DType, name: str) -> DType:
    """Half types add up in float32, as the interpreter does."""
    return as_dtype("float32") if name == "reduce_sum" and dtype.is_float and dtype.size_bytes == 2 else dtype


def loop_kernel(group: Group, stored: Sequence[Sketch], buffers: Mapping[Key, Buffer]) -> LoopKernel:
    """The kernel of a group that stores some of its values."""
    space, columns = group.space, group.space.columns or ()
    axes = [(f"i{axis}", size) for axis, size in enumerate(space.sizes)]
    here: dict[Value, Indices | None] = {}
    for member in group.members:
        shape = member.value.shape
        if member.space.columns is not None:
            here[member.value] = None
        elif space.has_per_row(member.space):
            here[member.value] = _row_indices(space, shape)
        else:
            here[member.value] = own_indices(shape)
    builder = TermBuilder(here)
    outputs = []
    for member in stored:
        value = member.value
        per_row = space.has_per_row(member.space)
        place = row_place(space) if per_row else space.place
        outputs.append(Output(buffers[value.key], place, builder.term(value, ()), not per_row))
    return LoopKernel(
        outputs[0].buffer.name,
        tuple([axis for i, axis in enumerate(axes) if i not in columns]),
        tuple([axis for i, axis in enumerate(axes) if i in columns]),
        _with_centres(builder, group),
        tuple(outputs),
        tuple(filter(None, builder.origins)),
    )


def _row_indices(space: Space, shape: tuple[int, ...]) -> Indices:
    """Indices into a value with an element for each row."""
    rows = iter([x for axis, x in enumerate(own_indices(space.sizes)) if axis not in (space.columns or ())])
    return tuple([ix.const(0) if size == 1 else next(rows) for size in shape])


def _with_centres(builder: TermBuilder, group: Group) -> tuple[Stage, ...]:
    """The stages, those that total squares about a mean with the stage of that mean."""
    names = {value: total.name for value, total in builder.totals.items() if isinstance(total, Total)}
    centres = {names[m.value]: names.get(m.centre) for m in group.members if m.centre and m.value in names}
    return tuple([replace(stage, centre=centres.get(stage.name)) for stage in builder.stages])


def contraction(found: Absorbed, buffers: Mapping[Key, Buffer]) -> Contraction:
    """A contraction with what it takes in."""
    value, end = found.value, found.end
    origins = {value.node.origin.layer: None}
    epilogue: Term | None = None
    if end is not value:
        indices = axis_indices(value.shape)
        at = indices if end.shape == value.shape else indices_at(place_of(indices, value.shape), end.shape)
        builder = TermBuilder({value: None, end: at})
        builder.totals[value] = Total(PRODUCT, value.dtype)
        epilogue = builder.term(end, at)
        origins.update(builder.origins)
    a, b = (
        _view(operand, x.shape, buffers) for operand, x in zip(found.operands, value.inputs, strict=True)
    )
    result = View(buffers[found.stored.root.key], value.shape, found.strides, found.offset)
    return Contraction(value.node, (a, b), result, epilogue, tuple(filter(None, origins)))


def _view(operand: Operand, shape: tuple[int, ...], buffers: Mapping[Key, Buffer]) -> View:
    return View(buffers[operand.value.key], shape, operand.strides, operand.offset)
