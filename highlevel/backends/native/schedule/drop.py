"""Dropping values that were kept for other groups, where computing them again takes less traffic.

In: groups. Out: the same with fewer values kept, and which values are written at all. A value that is only read within
its own group needs no buffer. One that others read costs a write and a read for each of them; computed again, it costs
them what they do not read already.
"""

from __future__ import annotations

from collections.abc import Sequence

from .groups import Group
from .keep import BYTE, DEAR, DEEPEST, MOST_INLINE
from .sketch import Sketch, sketch
from .values import Kind, Value

SMALL = 8  # what has at most 1/8 of the elements costs nothing to read
TINY = 4096  # elements


class Dropper:
    """Knows who reads what."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = [group for group in groups if group.joined is None]
        self.readers: dict[Value, set[Group]] = {}
        for group in self.groups:
            for value in group.reads:
                self.readers.setdefault(value, set()).add(group)

    def run(self) -> None:
        for group in self.groups:
            for member in list(group.members):
                value = member.value
                if value.forced or value.kind not in (Kind.ELEMENTWISE, Kind.DRAW):
                    continue
                readers = self.readers.get(value, set())
                if not readers or self._pays(group, member, readers):
                    self._drop(group, member, readers)

    def _pays(self, group: Group, member: Sketch, readers: set[Group]) -> bool:
        value = member.value
        if any(reader.absorbed is not None or not reader.members for reader in readers):
            return False
        alone = len(group.members) == 1
        if alone and value.size <= TINY and member.cost <= DEAR and all(x.size <= value.size for x in member.loads):
            return True  # less than calling a kernel for it
        if group.space.has_per_row(member.space) or not all(self._reads_straight(reader, member) for reader in readers):
            return False
        if any(member.operators + x.operators > MOST_INLINE for reader in readers for x in reader.members):
            return False
        if any(member.depth + x.depth > 2 * DEEPEST for reader in readers for x in reader.members):
            return False
        large = [x for x in member.loads if x.size * SMALL > value.size]
        saved = value.size_bytes * (1 + len(readers))
        if all(x is member or self._is_silent(x) for x in group.members):
            saved += sum(x.size_bytes for x in large)  # nobody else reads them here
        extra = sum(x.size_bytes for reader in readers for x in large if x not in reader.reads)
        extra += member.cost * value.size * len(readers) // BYTE
        return saved > extra

    def _is_silent(self, member: Sketch) -> bool:
        """Whether nobody else reads it."""
        return not member.value.forced and not self.readers.get(member.value)

    def _reads_straight(self, reader: Group, member: Sketch) -> bool:
        straight = [member.space.place]
        return all(
            x.space.sizes == member.space.sizes and x.loads[member.value] == straight
            for x in reader.members
            if member.value in x.loads
        )

    def _drop(self, group: Group, member: Sketch, readers: set[Group]) -> None:
        """The value is computed wherever it is needed."""
        value = member.value
        value.kept = False
        group.members.remove(member)
        for other in (group, *readers):
            for x in other.members:
                if value in x.loads:
                    _compute_again(x, member)
            self._count_reads(other)
        self.readers.pop(value, None)

    def _count_reads(self, group: Group) -> None:
        own = {member.value for member in group.members}
        reads = {load for member in group.members for load in member.loads} - own
        for value in group.reads - reads:
            self.readers[value].discard(group)
        for value in reads - group.reads:
            self.readers.setdefault(value, set()).add(group)
        group.reads = reads


def _compute_again(reader: Sketch, member: Sketch) -> None:
    """Lets a sketch load what a dropped value takes instead of the value."""
    reader.depth += member.depth
    places = reader.loads[member.value]
    if reader.space.sizes == member.space.sizes and places == [member.space.place]:
        del reader.loads[member.value]
        for load, more in member.loads.items():
            known = reader.loads.setdefault(load, [])
            known += [place for place in more if place not in known]
        reader.cost += member.cost
        reader.operators += member.operators
    else:
        found = sketch(reader.value)
        reader.loads, reader.cost = found.loads, found.cost
        reader.operators = found.operators


def in_order(groups: Sequence[Group]) -> list[Group]:
    """Groups in an order that can run; otherwise as in the program."""
    writer = {member.value: group for group in groups for member in group.members}
    for group in groups:
        if group.absorbed is not None:
            writer[group.absorbed.stored.root] = group
    done: set[Group] = set()
    order: list[Group] = []
    for first in groups:
        stack = [first]
        while stack:
            group = stack[-1]
            waiting = [] if group in done else [
                found for x in group.reads if (found := writer.get(x)) is not None and found not in done
            ]
            if waiting:
                stack += sorted(waiting, key=lambda x: -x.number)
                continue
            stack.pop()
            if group not in done:
                done.add(group)
                order.append(group)
    return order


def written(groups: Sequence[Group]) -> dict[Group, list[Sketch]]:
    """The members of each group whose values are stored, groups in an order that can run; no group without any."""
    read: set[Value] = set()
    found: list[tuple[Group, list[Sketch]]] = []
    for group in reversed(in_order(groups)):
        if group.members:
            stored = [member for member in group.members if member.value.forced or member.value in read]
            if not stored:
                continue
            found.append((group, stored))
        read |= group.reads
    return dict(reversed(found))
