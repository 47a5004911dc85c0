"""What contractions take in: movement of their operands, elementwise operators after them, movement of their results.

In: the values of a graph. Out: an `Absorbed` for each contraction; the values that have to be buffers for it are
forced. Invariants: everything between a contraction and the value that it stores is used by nothing else; what the
epilogue reads lies in buffers, or is computed from them by a few lean operators.

A movement of an operand is taken in where elements then lie at constant steps (`places.strides_of`). Operators after
the product are taken in as long as they are lean and all values but the last are used only among them – so a bias, a
relu made of a comparison and a selection, the sum with a residual. An operand as large as the product that has to be
read for it is worth reading here only if the result is a buffer in any case, or if it is a plain sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..codegen import indexing as ix
from .places import Indices, indices_at, move, own_indices, own_place, place_of, strides_of
from .recast import read_moved
from .values import LOOPS, Kind, Value

# Operators that an epilogue may apply: few instructions each, so that the micro-kernel stays lean.
LEAN = frozenset({"add", "sub", "mul", "div", "neg", "abs", "maximum", "minimum", "select", "cast", "invert"}) | {
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "bit_and",
    "bit_or",
}
MOST_OPERATORS = 16  # in an epilogue
MOST_INLINE = 4  # operators between a buffer and an operand of the epilogue
SMALL = 8  # an operand with at most 1/8 of the product's elements costs nothing to read
TINY = 4  # an axis that short may have any step


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand: the value whose buffer it lies in, and how."""

    value: Value
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A contraction with what it takes in.

    end:     the value that is computed: the contraction's own, or what the epilogue makes of it
    inside:  what is computed on the way, or again for the epilogue, and is no buffer therefore
    stored:  the value whose buffer is written: `end`, or a movement of it
    strides, offset: where elements of the product go in that buffer
    """

    value: Value
    operands: tuple[Operand, Operand]
    end: Value
    inside: frozenset[Value]
    stored: Value
    strides: tuple[int, ...]
    offset: int


def absorb(values: Sequence[Value], epilogues: bool = True) -> tuple[list[Absorbed], list[Value]]:
    """What each contraction takes in, in topological order; the values, with new ones that follow from that."""
    contractions = [value for value in values if value.kind is Kind.CONTRACTION]
    operands = {}
    for value in contractions:
        a, b = value.inputs
        operands[value] = _operand(a, value), _operand(b, value)
    taken: set[Value] = set()
    found: list[Absorbed] = []
    after: dict[Value, Value] = {}
    for value in contractions:
        end, inside = value, frozenset[Value]()
        if epilogues and value.name != "conv_kernel_grad":  # whose threads hold parts of sums
            end, inside = _Epilogue(value, taken).grow()
        end = end.root
        if value.name == "matmul" and (moved := _copied_result(value, end)) is not None:
            after[moved] = read_moved(end, moved)
        found.append(_finish(value, operands[value], end, inside))
    return found, [x for value in values for x in (value, after.get(value)) if x is not None]


# Operands ------------------------------------------------------------------------------------------------------------
def _operand(x: Value, user: Value) -> Operand:
    """Where an operand is read: as far up through movements as its elements lie at constant steps."""
    best = _at_steps(x.root, own_place(x.shape), x, user)
    value, indices = x, own_indices(x.shape)
    while x.size:
        root = value.root
        place = place_of(indices, value.shape)
        found = _at_steps(root, place, x, user)
        if found is not None and _is_source(root, x):
            best = found
        if root.kind is not Kind.MOVEMENT or root.name == "concatenate":
            break
        moved = move(root, indices if root is value else indices_at(place, root.shape))
        if moved.conditions:
            break
        value, indices = root.inputs[0], moved.indices
    assert best is not None, "an operand by itself has no gaps"
    best.value.force()
    return best


def _is_source(root: Value, x: Value) -> bool:
    """Whether a value may be the buffer that an operand is seen in: it has one anyway, or is not made larger for it."""
    if root.kept or _ends_contraction(root):
        return True
    return root.kind in (Kind.ELEMENTWISE, Kind.REDUCTION) and root.size <= x.size


def _at_steps(root: Value, place: ix.Expr, x: Value, user: Value) -> Operand | None:
    """The operand as seen in a buffer, if its elements lie at steps that the code can follow."""
    known = strides_of(place, x.shape)
    if known is None:
        return None
    strides, offset = known
    if user.name == "matmul":
        last = list(zip(x.shape, strides, strict=True))[-2:]
        fine = min(strides, default=0) >= 0 and any(step == 1 or size <= TINY for size, step in last)
    else:
        fine = strides == ix.row_major(x.shape)
    return Operand(root, strides, offset) if fine or not x.size else None


# Epilogues -----------------------------------------------------------------------------------------------------------
class _Epilogue:
    """A region that grows from a contraction along the users of its values; it may end where one value leaves it."""

    def __init__(self, start: Value, taken: set[Value]) -> None:
        self.start = start
        self.taken = taken  # by any epilogue
        self.region = {start}
        self.forced: list[Value] = []  # operands that the region needs as buffers
        self.again: list[Value] = []  # what is computed again to make operands
        self.waits = False  # something large is read, which pays only if the end is a buffer in any case

    def grow(self) -> tuple[Value, frozenset[Value]]:
        """The value where the region ends, and what is no buffer therefore; what the epilogue reads is forced."""
        end, members, forced, again = self.start, set(self.region), 0, 0
        while not self._must_end() and len(self.region) < MOST_OPERATORS:
            following = self._following()
            if following is None or not self._takes(following):
                break
            self.region.add(following)
            if self._leaving() == [following]:
                if not self._reads_vectors(following):
                    break
                if following.root.forced or not self.waits:
                    end, members, forced, again = following, set(self.region), len(self.forced), len(self.again)
        self.taken |= members
        for value in self.forced[:forced]:
            value.force()
        return end, frozenset(members - {end.root}) | frozenset(self.again[:again])

    def _must_end(self) -> bool:
        """A value that is a buffer is the last one."""
        return any(value.root.forced for value in self.region)

    def _leaving(self) -> list[Value]:
        return [v for v in self.region if v.wanted or not v.users or any(u not in self.region for u in v.users)]

    def _following(self) -> Value | None:
        """The first user of the region's values."""
        users = [user for value in self.region for user in value.users if user not in self.region]
        return min(users, key=lambda user: user.order, default=None)

    def _takes(self, user: Value) -> bool:
        if user in self.taken or user.size != self.start.size or not user.size:
            return False
        if user.kind is Kind.MOVEMENT:
            return user.root is not user and user.name == "reshape"
        if user.kind is not Kind.ELEMENTWISE or user.name not in LEAN:
            return False
        return all(x in self.region or self._reads(x, user) for x in user.inputs)

    def _reads(self, x: Value, user: Value) -> bool:
        """Whether the epilogue can read an operand; notes what has to be a buffer for it."""
        source, large = _source(x)
        if source is None:
            return False
        if source.kind is Kind.FILL:
            return True
        large = large and source.size * SMALL > self.start.size
        if source.root.kept or source.kind in (Kind.LEAF, Kind.OTHER):
            self.waits |= large and user.name not in ("add", "sub")
            return True
        again: list[Value] = []
        buffers = _lean_sources(source, MOST_INLINE, again) if large else None
        if buffers is not None:
            self.again += again
            self.waits |= any(buffer.size * SMALL > self.start.size for buffer in buffers)
            return True
        if not large or _ends_contraction(source):
            self.waits |= large and user.name not in ("add", "sub")
            self.forced.append(source)
            return True
        return False


    def _reads_vectors(self, end: Value) -> bool:
        """Whether all that is read for the end lies in vectors along the product's last axis, or stays the same."""
        start = self.start
        column = own_indices(start.shape)[-1]
        stack = [(end, indices_at(own_place(start.shape), end.shape))]
        while stack:
            x, indices = stack.pop()
            if x is start or x.kind is Kind.FILL:
                continue
            if x not in self.region and (x.root.kept or x in self.forced):
                if not _is_vector(place_of(indices, x.shape), column):
                    return False
            elif x.kind is Kind.MOVEMENT:
                stack.append((x.inputs[0], move(x, indices).indices))
            else:
                stack += [(y, indices) for y in x.inputs]
        return True


def _is_vector(place: ix.Expr, column: ix.Expr) -> bool:
    """Whether a place moves by one element, or not at all, with the column."""
    _, terms = ix.linear(place)
    if terms.pop(column, 0) not in (0, 1):
        return False
    return isinstance(column, ix.Const) or not any(ix.mentions(term, column.text) for term in terms)


def _source(x: Value) -> tuple[Value | None, bool]:
    """What an operand of an epilogue is a movement of, and whether it is read as a whole, not repeated."""
    large = True
    while x.kind is Kind.MOVEMENT and not x.root.kept:
        if x.name in ("pad", "concatenate"):
            return None, large
        large &= x.name != "broadcast" or x.inputs[0].size * SMALL > x.size
        x = x.inputs[0]
    return x, large


def _ends_contraction(x: Value, depth: int = 6) -> bool:
    """Whether a value could be what an epilogue stores."""
    if x.kind is Kind.CONTRACTION:
        return True
    if depth == 0 or not (x.root is not x or (x.kind is Kind.ELEMENTWISE and x.name in LEAN)):
        return False
    return any(y.size == x.size and _ends_contraction(y, depth - 1) for y in x.inputs)


def _lean_sources(x: Value, depth: int, again: list[Value]) -> list[Value] | None:
    """The buffers from which a value is computed by a few lean operators, which are noted; None if it is not."""
    source, _ = _source(x)
    if source is None:
        return None
    if source.root.kept:
        return [source.root]
    if source.kind is Kind.FILL:
        return []
    if source.kind is not Kind.ELEMENTWISE or source.name not in LEAN or depth == 0:
        return None
    found: list[Value] = []
    again.append(source)
    for operand in source.inputs:
        below = _lean_sources(operand, depth - 1, again)
        if below is None:
            return None
        found += below
    return found


# Results -------------------------------------------------------------------------------------------------------------
def _finish(value: Value, operands: tuple[Operand, Operand], end: Value, inside: frozenset[Value]) -> Absorbed:
    """Where the result goes: into the buffer of the end, or of what it is moved to."""
    indices = indices_at(own_place(value.shape), end.shape) if end is not value else own_indices(value.shape)
    strides, offset, stored = ix.row_major(value.shape), 0, end
    if value.name == "matmul" and not end.forced and value.size:
        moved = _moved_result(value, end, indices)
        if moved is not None:
            stored, strides, offset = moved
    stored.force()
    return Absorbed(value, operands, end, inside, stored, strides, offset)


def _copied_result(value: Value, end: Value) -> Value | None:
    """A transposition of the result that is a buffer in any case, if all others could as well read that one."""
    if end.forced or len(end.users) < 2 or not value.size or end.shape != value.shape:
        return None
    copies = [user for user in end.users if user.name == "transpose" and user.root is user and user.forced]
    if len(copies) != 1:
        return None
    (moved,) = copies
    others = [user for user in end.users if user is not moved]
    if any(user.order < moved.order or user.kind not in LOOPS for user in others):
        return None
    indices = tuple([own_indices(end.shape)[axis] for axis in moved.attrs["axes"]])
    known = strides_of(place_of(indices, moved.shape), value.shape)
    return moved if known is not None and _is_writable(known[0], value, end) else None


def _is_writable(strides: tuple[int, ...], value: Value, end: Value) -> bool:
    """Whether a product can be written at such steps: along its rows or, with nothing done to it, its columns."""
    steps = list(zip(value.shape, strides, strict=True))[-2:]
    fitting = steps[-1:] if end is not value else steps
    return any(step == 1 or size == 1 for size, step in fitting)


def _moved_result(value: Value, end: Value, indices: Indices) -> tuple[Value, tuple[int, ...], int] | None:
    """A buffer that is nothing but the result in another order, and where elements of the product lie in it."""
    cursor = end
    while len(cursor.users) == 1 and not cursor.root.forced:
        (user,) = cursor.users
        if user.name == "reshape":
            indices = indices_at(place_of(indices, cursor.shape), user.shape)
        elif user.name == "transpose":
            indices = tuple([indices[axis] for axis in user.attrs["axes"]])
        else:
            return None
        cursor = user
    if cursor is end or not cursor.root.forced:
        return None
    known = strides_of(place_of(indices, cursor.shape), value.shape)
    if known is None or not _is_writable(known[0], value, end):
        return None
    return cursor, *known


