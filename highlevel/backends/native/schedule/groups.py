"""Which buffers one kernel fills: values computed over the same rows and columns that read the same, or one another.

In: values, of which some are kept, and contractions with what they take in. Out: groups of values, each group one
kernel; fewer values kept. Invariants: no group waits for itself by way of another task; within a group a value is read
at its own place only, and a total only by what may follow it in the same pass over a row.

Everything starts as a group by itself, in the order of the program. A group joins that of a value that it reads, or
one that reads the same large buffer, where this is legal. At last, values that were kept for other groups are dropped
if computing them again takes less traffic: what a reader of x reads anyway is free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ..codegen import indexing as ix
from .absorb import Absorbed
from .keep import DEEPEST, MOST_INLINE, cost_of
from .places import (
    Indices,
    indices_at,
    joined_parts,
    move,
    own_indices,
    own_place,
    place_of,
    without_ones,
)
from .values import Kind, Value

Shape = tuple[int, ...]
ROW_ELEMENTS = 1 << 16  # rows up to this length are read again from the cache
FEW_ROWS, SHORT_ROW = 4, 1 << 13  # with fewer rows than this, longer rows are better shared out
ELEMENTWISE, MOVEMENT, DRAW = Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.DRAW
MOST_OPERATORS = 4 * MOST_INLINE
MOST_POINTERS = 24
SMALL = 8  # what has at most 1/8 of the elements costs nothing to read


@dataclass(frozen=True, slots=True)
class Space:
    """What a kernel walks: sizes of axes, those of size 1 left out; which of them are totalled (None: no totals)."""

    sizes: Shape
    columns: tuple[int, ...] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def rows(self) -> Shape:
        """The sizes of the other axes."""
        return tuple([size for axis, size in enumerate(self.sizes) if axis not in (self.columns or ())])

    @property
    def place(self) -> ix.Expr:
        """The place of an element among all elements."""
        return own_place(self.sizes)

    def is_per_row(self, sketch: Sketch) -> bool:
        """Whether a value that is computed here has one element for each row."""
        return self.columns is not None and (sketch.space.columns is not None or sketch.space.sizes != self.sizes)


@lru_cache(maxsize=1024)
def row_place(space: Space) -> ix.Expr:
    """The place of a row among all rows."""
    columns = space.columns or ()
    indices = [x for axis, x in enumerate(own_indices(space.sizes)) if axis not in columns]
    return ix.ravel(indices, space.rows)


@lru_cache(maxsize=1024)
def has_short_rows(space: Space) -> bool:
    """Whether a pass over a row may follow another one over the same row: it is still in the cache."""
    rank, columns = len(space.sizes), space.columns or ()
    length = math.prod(space.sizes[axis] for axis in columns)
    at_end = columns == tuple(range(rank - len(columns), rank))
    return at_end and length <= ROW_ELEMENTS and (math.prod(space.rows) >= FEW_ROWS or length <= SHORT_ROW)


@lru_cache(maxsize=4096)
def joint_space(a: Space, b: Space) -> Space | None:
    """The rows and columns over which both can be computed."""
    if (a.columns is None) == (b.columns is None):
        return a if a == b else None
    whole, plain = (a, b) if a.columns is not None else (b, a)
    return whole if plain.sizes in (whole.sizes, whole.rows) else None


@dataclass(slots=True, eq=False)
class Sketch:
    """A kept value, as what is read for it: the places of all loads, in variables of its own space.

    cost, operators, depth: of the term for one element
    centre:  for Σ (x − m)²: the value Σ x, of which m is the mean
    """

    value: Value
    space: Space
    loads: dict[Value, list[ix.Expr]]
    cost: int
    operators: int
    depth: int
    centre: Value | None = None


@dataclass(slots=True, eq=False)
class Group:
    """A task: sketches computed in one kernel, or none for a contraction or any other operator.

    reads:   buffers of other groups and leaves
    needs:   groups that write them; users: groups that need this one
    before:  bits of all tasks that have to run first, and of itself
    joined:  the group that this one has become a part of
    """

    number: int
    space: Space = Space(())
    members: list[Sketch] = field(default_factory=list)
    needs: set[Group] = field(default_factory=set)
    bits: int = 0
    before: int = 0
    reads: set[Value] = field(default_factory=set)
    operators: int = 0
    depth: int = 0
    absorbed: Absorbed | None = None
    users: set[Group] = field(default_factory=set)
    joined: Group | None = None


# Sketches ------------------------------------------------------------------------------------------------------------
def sketch(value: Value) -> Sketch:
    """What is read for a value."""
    if value.kind is Kind.REDUCTION:
        operand = value.inputs[0]
        start, indices, shape = operand, own_indices(operand.shape), operand.shape
        kept = [axis for axis, size in enumerate(shape) if size != 1]
        axes = value.attrs["axes"]
        columns: tuple[int, ...] | None = tuple([i for i, axis in enumerate(kept) if axis in axes])
    else:
        start, indices, shape, columns = value, own_indices(value.shape), value.shape, None
    loads, cost, operators, depth = trace(start, indices, value)
    found = Sketch(value, Space(without_ones(shape), columns), loads, cost, operators, depth)
    if columns is not None:
        found.centre = _centre(value)
    return found


def trace(
    start: Value, indices: Indices, root: Value | None = None, product: Value | None = None
) -> tuple[dict[Value, list[ix.Expr]], int, int, int]:
    """The loads that an element of a value takes, with its cost, operators in all and upon each other.

    `root` is computed even if it is kept; `product` is there.
    """
    loads: dict[Value, list[ix.Expr]] = {}
    seen: dict[Indices, set[Value]] = {}
    walks = [(start, indices, 0)]  # from values whose indices are known, along operators that keep them
    cost = operators = depth = 0
    for first, at, above in walks:
        known = seen.setdefault(at, set())
        stack = [(first, above)]
        while stack:
            value, level = stack.pop()
            if value in known or value is product:
                continue
            known.add(value)
            kind = value.kind
            if value.root.kept and value is not root:
                place = place_of(at, value.shape)
                places = loads.setdefault(value.root, [])
                if place not in places:
                    places.append(place)
                continue
            operators += 1
            level += 1
            if level > depth:
                depth = level
            if kind is ELEMENTWISE:
                cost += cost_of(value)
                for x in value.inputs:
                    stack.append((x, level))
            elif kind is MOVEMENT:
                for x, moved in moved_to(value, at):
                    walks.append((x, moved, level))
            elif kind is DRAW:
                cost += cost_of(value)
                loads.setdefault(value.inputs[0].root, []).append(ix.const(0))
    return loads, cost, operators, depth


def moved_to(value: Value, indices: Indices) -> Iterator[tuple[Value, Indices]]:
    """Where the element of a movement comes from; none if there is nothing but padding."""
    if value.name == "concatenate":
        for source, moved, _, _ in joined_parts(value, indices):
            yield source, moved
    elif value.inputs[0].size:
        yield value.inputs[0], move(value, indices).indices


def _centre(value: Value) -> Value | None:
    """Σ x if a value is Σ (x − Σ x / n)² over the same axes."""
    product = value.inputs[0]
    if value.name != "reduce_sum" or product.name != "mul" or product.inputs[0] is not product.inputs[1]:
        return None
    difference = product.inputs[0]
    if difference.name != "sub" or not value.dtype.is_float:
        return None
    x, mean = difference.inputs
    while mean.kind is Kind.MOVEMENT:
        if mean.name not in ("broadcast", "reshape"):
            return None
        mean = mean.inputs[0]
    total = _undone(mean, x.size // max(value.size, 1))
    if total is None or total.name != "reduce_sum" or total.inputs[0] is not x:
        return None
    return total if total.attrs["axes"] == value.attrs["axes"] else None


def _undone(mean: Value, count: int) -> Value | None:
    """The total of which a value is the mean of so many."""
    if mean.name not in ("mul", "div"):
        return None
    total, number = mean.inputs
    while total.root is not total:
        total = total.root
    while number.kind is Kind.MOVEMENT and number.name in ("broadcast", "reshape"):
        number = number.inputs[0]
    if number.name != "full":
        return None
    factor = float(number.attrs["value"]) * (count if mean.name == "mul" else 1 / count)
    return total if abs(factor - 1) < 1e-6 else None


# Groups --------------------------------------------------------------------------------------------------------------
class Grouper:
    """Forms groups out of sketches."""

    def __init__(self, values: Sequence[Value], absorbed: Sequence[Absorbed]) -> None:
        self.groups: list[Group] = []
        self.writer: dict[Value, Group] = {}
        self.readers: dict[Value, list[Group]] = {}
        tasks = {found.stored.root: found for found in absorbed}
        nodes: set[int] = set()
        for value in values:
            if value.root is not value or not value.kept:
                continue
            if value in tasks:
                self._add_contraction(tasks[value])
            elif value.kind is Kind.OTHER:
                if value.node.id not in nodes:
                    nodes.add(value.node.id)
                    self._add(Group(len(self.groups)), [x.root for x in value.inputs])
                self.writer[value] = self.groups[-1]
            elif value.kind is not Kind.LEAF:
                self._add_sketch(value)

    def _add(self, group: Group, reads: Iterable[Value]) -> None:
        group.bits = group.before = 1 << group.number
        group.reads = set(reads)
        for value in group.reads:
            writer = self.writer.get(value)
            if writer is not None:
                group.needs.add(writer)
                group.before |= writer.before
                writer.users.add(group)
        self.groups.append(group)

    def _add_contraction(self, found: Absorbed) -> None:
        reads = {operand.value for operand in found.operands} | set(epilogue_loads(found))
        self._add(Group(len(self.groups), absorbed=found), reads)
        self.writer[found.stored.root] = self.groups[-1]

    def _add_sketch(self, value: Value) -> None:
        found = sketch(value)
        group = Group(len(self.groups), found.space, [found])
        group.operators, group.depth = found.operators, found.depth
        self._add(group, found.loads)
        self.writer[value] = group
        for other in self._candidates(group):
            if self._may_merge(group, other):
                group = self._merge(other, group)
        for load, places in found.loads.items():
            if SMALL * load.size > found.space.elements and places == [found.space.place]:
                known = self.readers.setdefault(load, [])
                if group not in known:
                    known.append(group)

    def _candidates(self, group: Group) -> Iterable[Group]:
        """Groups that write what this one reads, then those that read the same."""
        (member,) = group.members
        found: dict[Group, None] = {}
        for load in member.loads:
            writer = self.writer.get(load)
            if writer is not None and writer.members:
                found[writer] = None
        for load in member.loads:
            for reader in self.readers.get(load, ()):
                found[reader] = None
        return found

    # Legality --------------------------------------------------------------------------------------------------------
    def _may_merge(self, group: Group, other: Group) -> bool:
        if not group.members or not other.members or group is other:
            return False
        space = joint_space(group.space, other.space)
        if space is None or group.depth + other.depth > 2 * DEEPEST:
            return False
        if group.operators + other.operators > MOST_OPERATORS:
            return False
        if len(group.reads) + len(other.reads) + len(group.members) + len(other.members) > MOST_POINTERS:
            return False
        return (
            self._reads_in_place(group, other, space)
            and self._reads_in_place(other, group, space)
            and not self._waits(group, other)
            and not self._waits(other, group)
        )

    def _waits(self, group: Group, other: Group) -> bool:
        """Whether a group has to wait for the other one by way of a third."""
        return any(need.before & other.bits for need in group.needs if _now(need) is not other)

    def _reads_in_place(self, group: Group, other: Group, space: Space) -> bool:
        """Whether what a group reads of another one can be handed over within one kernel."""
        if all(_now(need) is not other for need in group.needs):
            return True
        writers = {member.value: member for member in other.members}
        for member in group.members:
            for load, places in member.loads.items():
                writer = writers.get(load)
                if writer is not None and not _in_place(member, writer, places, space):
                    return False
        return True

    def _merge(self, group: Group, late: Group) -> Group:
        """Moves everything of the late group into the other one."""
        group.space = joint_space(group.space, late.space) or group.space
        group.members = sorted([*group.members, *late.members], key=lambda member: member.value.order)
        group.operators += late.operators
        group.depth += late.depth
        group.reads |= late.reads
        group.reads.difference_update([member.value for member in group.members])
        group.needs = {_now(need) for need in group.needs | late.needs} - {group, late}
        group.bits |= late.bits
        group.before |= late.before
        group.users |= late.users
        _tell_users(group, group.before & ~group.bits)  # of its own bits one is enough, which they have
        for member in late.members:
            self.writer[member.value] = group
        for value in late.reads:
            known = self.readers.get(value, [])
            if late in known:
                known.remove(late)
                if group not in known:
                    known.append(group)
        late.members, late.joined = [], group
        return group


def _tell_users(group: Group, bits: int) -> None:
    """Who waits for a group waits for what it waits for – tasks by their bits."""
    stack = [group]
    while stack:
        for found in stack.pop().users:
            user = _now(found)
            if bits & ~user.before:
                user.before |= bits
                stack.append(user)


def _now(group: Group) -> Group:
    """The group that a group has become a part of."""
    while group.joined is not None:
        group = group.joined
    return group


def _in_place(reader: Sketch, writer: Sketch, places: list[ix.Expr], space: Space) -> bool:
    """Whether a member of a kernel may take what another one computes instead of loading it."""
    per_row = space.is_per_row(writer)
    if reader.space.columns is None and space.is_per_row(reader):
        return per_row and places == [reader.space.place]
    if not per_row:
        return places == [space.place]
    return places == [row_place(space)] and (has_short_rows(space) or reader.centre is writer.value)


def epilogue_loads(found: Absorbed) -> dict[Value, list[ix.Expr]]:
    """What the epilogue of a contraction reads, with the places in variables of its result."""
    if found.end is found.value:
        return {}
    indices = indices_at(own_place(found.value.shape), found.end.shape)
    return trace(found.end, indices, found.end, found.value)[0]
