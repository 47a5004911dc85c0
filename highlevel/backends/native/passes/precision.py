"""Where types change: as seldom as possible, and where there is least to move.

A conversion that loses nothing and is followed by another is left out. One that makes values wider comes late – after
what moves them –, one that makes them narrower early. Weights read in a narrower type are converted once, because equal
conversions are one node (see `folding`).
"""

from __future__ import annotations

from highlevel.ir.dtypes import DType
from highlevel.ir.graph import Symbol

from .facts import holds_all
from .pattern import Rule
from .terms import (
    cast,
    equal,
    gather,
    less,
    less_equal,
    not_equal,
    select,
)


def _loses_nothing(x: Symbol, D: DType, E: DType) -> bool:
    """Whether D holds all of x, and going on from there is as from x: integers wrap where floats saturate."""
    return holds_all(D, x.dtype) and not (x.dtype.is_integer and D.is_float and E.is_integer)


def _narrows(x: Symbol, D: DType) -> bool:
    return D.size_bytes < x.dtype.size_bytes


def _lose_nothing(x: Symbol, y: Symbol, D: DType) -> bool:
    return x.dtype is y.dtype and holds_all(D, x.dtype)


CASTS = [
    Rule("cast to its own type → x", lambda x, D: cast(x, dtype=D), lambda x: x, where=lambda x, D: x.dtype is D),
    Rule(
        "cast of a cast that loses nothing → one cast",
        lambda x, D, E: cast(cast(x, dtype=D), dtype=E),
        lambda x, E: cast(x, dtype=E),
        where=_loses_nothing,
    ),
]

MOVES = [
    Rule("narrow, then move", lambda M, x, D: cast(M(x), dtype=D), lambda M, x, D: M(cast(x, dtype=D)), where=_narrows),
    Rule(
        "move, then widen",
        lambda M, x, D: M(cast(x, dtype=D)),
        lambda M, x, D: cast(M(x), dtype=D),
        where=lambda x, D: not _narrows(x, D),
    ),
    Rule(
        "pick, then widen",
        lambda x, i, D: gather(cast(x, dtype=D), i),
        lambda x, i, D: cast(gather(x, i), dtype=D),
        where=lambda x, root: root.size <= x.size,
    ),
]

# What only looks at values, or picks one of them, does so in the type that they come in.
WIDENED = [
    *[
        Rule(
            f"{f.__name__} of widened values → of the values",
            lambda x, y, D, f=f: f(cast(x, dtype=D), cast(y, dtype=D)),
            lambda x, y, f=f: f(x, y),
            where=_lose_nothing,
        )
        for f in (less, less_equal, equal, not_equal)
    ],
    Rule(
        "choice of widened values → widened choice",
        lambda c, x, y, D: select(c, cast(x, dtype=D), cast(y, dtype=D)),
        lambda c, x, y, D: cast(select(c, x, y), dtype=D),
        where=_lose_nothing,
    ),
]

PRECISION = [*CASTS, *MOVES, *WIDENED]
