"""Which values of loop operators get buffers, before kernels are formed.

A value that several others use can be stored, or computed again by each of them. It is computed again where reading
what it is made of costs no more than reading it would – relu's mask of one array, x − mean – and operators are cheap.
All else that has several users is kept for the time being: `groups` knows what kernels read, and drops what does not
pay. Totals are kept as well until it is known whether the kernel that uses them can take them in.

Costs are counted in units of about a tenth of a nanosecond: reading or writing a byte costs `BYTE`.
"""

from __future__ import annotations

from collections.abc import Sequence

from .values import Kind, Value

BYTE = 4
COSTS = {
    **dict.fromkeys(("div", "sqrt", "rsqrt", "mod", "floor_div"), 4),
    **dict.fromkeys(("exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "sinh", "cosh"), 16),
    **dict.fromkeys(("pow", "tan", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "erfinv"), 32),
    **dict.fromkeys(("lgamma", "digamma", "random_bits"), 64),
}
REPEATED = 4  # how often an element has to be read to be worth a buffer
DEAR = 3  # a value that is read so often and costs more than this is kept
MOST_INLINE = 192  # operators in one term
DEEPEST = 48  # operators upon each other


def cost_of(value: Value) -> int:
    """Of one element, operands apart."""
    return COSTS.get(value.name, 1)


class Keeper:
    """Decides for one value after the other, in topological order."""

    def __init__(self, values: Sequence[Value], absorbed: set[Value]) -> None:
        self.values = values
        self.absorbed = absorbed  # computed by contractions on the way
        self.uses: dict[Value, int] = {}
        self.sources: dict[Value, frozenset[Value]] = {}  # large buffers that are read for an element
        self.costs: dict[Value, int] = {}
        self.sizes: dict[Value, int] = {}  # operators for an element

    def run(self) -> None:
        """Marks values as kept."""
        self._count_uses()
        for value in self.values:
            value.depth = 1 + max([0 if x.root.kept else x.depth for x in value.inputs], default=0)
            if value.root.kept:
                self._is_buffer(value)
            elif value in self.absorbed:
                self._set(value, *self._below(value), self._size_of(value))
            elif value.kind is Kind.REDUCTION:
                self._keep(value)
            elif value.kind is Kind.FILL:
                self._set(value, _NONE, 0, 1)
            elif value.kind is Kind.MOVEMENT:
                self._movement(value)
            else:
                self._operator(value)

    def _count_uses(self) -> None:
        """How many operators use a value; movements pass on what uses them."""
        for value in reversed(self.values):
            count = 0
            for user in value.users:
                moves = user.kind is Kind.MOVEMENT and not user.root.forced
                count += self.uses.get(user, 1) if moves else 1
            self.uses[value] = count

    def _set(self, value: Value, sources: frozenset[Value], cost: int, size: int) -> None:
        self.sources[value], self.costs[value], self.sizes[value] = sources, cost, size

    def _keep(self, value: Value) -> None:
        value.root.kept = True
        self._is_buffer(value)

    def _is_buffer(self, value: Value) -> None:
        self._set(value, frozenset((value.root,)), 0, 1)

    def _movement(self, value: Value) -> None:
        source = value.inputs[0] if value.inputs else None
        if source is None or not value.size:
            self._set(value, _NONE, 0, 1)
        elif value.size >= REPEATED * source.size:
            self._keep_dear(source)
            self._set(value, _NONE, self.costs[source], self._size_of(value))
        else:
            self._set(value, *self._below(value), self._size_of(value))

    def _keep_dear(self, source: Value) -> None:
        """What is repeated is computed once, unless that is nothing."""
        while source.kind is Kind.MOVEMENT and not source.root.kept and source.name != "concatenate":
            source = source.inputs[0]
        if source.kind in (Kind.ELEMENTWISE, Kind.DRAW) and not source.root.kept and self.costs[source] > DEAR:
            self._keep(source)

    def _below(self, value: Value) -> tuple[frozenset[Value], int]:
        """Sources and costs of all operands."""
        sources, cost = _NONE, 0
        for x in value.inputs:
            found = self.sources[x]
            if found is not sources:
                sources = sources | found if sources else found
            cost += self.costs[x]
        return sources, cost

    def _size_of(self, value: Value) -> int:
        return 1 + sum([self.sizes[x] for x in value.inputs])

    def _operator(self, value: Value) -> None:
        sources, cost = self._below(value) if value.kind is Kind.ELEMENTWISE else (_NONE, 0)
        cost += cost_of(value)
        size = self._size_of(value)
        too_long = size > MOST_INLINE or value.depth > DEEPEST
        if too_long or (self.uses[value] > 1 and not self._is_free(value, sources, cost)):
            self._keep(value)
        else:
            self._set(value, sources, cost, size)

    def _is_free(self, value: Value, sources: frozenset[Value], cost: int) -> bool:
        """Whether computing it again is no dearer than keeping it: n (r + c) ≤ r + c + w + n w, by element."""
        if len(sources) > 1:
            return False
        bytes_read = sum(x.dtype.size_bytes for x in sources)
        count = min(self.uses[value], 3)
        again = count * (BYTE * bytes_read + cost)
        kept = BYTE * bytes_read + cost + BYTE * value.dtype.size_bytes * (1 + count)
        return bytes_read <= value.dtype.size_bytes and again <= kept


_NONE: frozenset[Value] = frozenset()
