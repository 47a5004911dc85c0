"""Which buffers one kernel fills: values computed over the same rows and columns that read the same, or one another.

In: values, of which some are kept, and contractions with what they take in. Out: groups of values, each group one
kernel; fewer values kept. Invariants: no group waits for itself by way of another task; within a group a value is read
at its own place only, and a total only by what may follow it in the same pass over a row.

Everything starts as a group by itself, in the order of the program. A group joins that of a value that it reads, or
one that reads the same large buffer, where this is legal. At last, values that were kept for other groups are dropped
if computing them again takes less traffic: what a reader of x reads anyway is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..codegen import indexing as ix
from .absorb import Absorbed
from .keep import DEEPEST, MOST_INLINE
from .sketch import Sketch, epilogue_loads, sketch
from .spaces import Space, has_short_rows, joint_space, row_place
from .values import Kind, Value

MOST_OPERATORS = 4 * MOST_INLINE
MOST_POINTERS = 24
SMALL = 8  # what has at most 1/8 of the elements costs nothing to read


@dataclass(slots=True, eq=False)
class Group:
    """A task: sketches computed in one kernel, or none for a contraction or any other operator.

    reads:   buffers of other groups and leaves
    needs:   groups that write them; users: groups that need this one
    before:  bits of all tasks that have to run first, and of itself
    joined:  the group that this one has become a part of
    """

    number: int
    space: Space = field(default_factory=lambda: Space(()))
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
    per_row = space.has_per_row(writer.space)
    if reader.space.columns is None and space.has_per_row(reader.space):
        return per_row and places == [reader.space.place]
    if not per_row:
        return places == [space.place]
    return places == [row_place(space)] and (has_short_rows(space) or reader.centre is writer.value)
