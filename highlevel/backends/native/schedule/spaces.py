"""What kernels walk: rows and columns, as data that groups agree upon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ..codegen import indexing as ix
from .places import own_indices, own_place

Shape = tuple[int, ...]
ROW_ELEMENTS = 1 << 16  # rows up to this length are read again from the cache
FEW_ROWS, SHORT_ROW = 4, 1 << 13  # with fewer rows than this, longer rows are better shared out


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

    def has_per_row(self, other: Space) -> bool:
        """Whether a value of another space that is computed here has one element for each row."""
        return self.columns is not None and (other.columns is not None or other.sizes != self.sizes)


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
