"""Threefry-2x32 in the scalar language: random bits as a formula of a key and an element's number.

`bits` has neither branches nor memory, so it can stand wherever an elementwise operator can: in the loop that fills a
buffer with bits (lower/random.py), or in a kernel that uses them at once and stores a dropout mask, or nothing at all.
For the latter `random_term` makes a term that every code generator of terms understands: an elementwise operator,
applied to the two words of the key – loads at places 0 and 1, the same in every round of a loop, so LLVM moves them in
front of it – and to an index, the row-major place of the element in the shape that was drawn. An element's bits
depend on nothing else: any cut of the rows, and any order of the loops, gives the same ones.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

from highlevel.ir import Primitive, Spec
from highlevel.ir.dtypes import uint32, uint64
from highlevel.ir.primitives.random import PARITY, ROTATIONS
from highlevel.ir.scalar import NumpyScalars

from ..schedule.kernel import Apply, Index, Load
from . import indexing as ix


def bits(k: Any, key0: Any, key1: Any, index: Any) -> Any:
    """The uint32 of element `index` under a key of two uint32.

    The index is a uint32 or a uint64; the former saves the upper word of the counter.
    """
    x0, x1 = key0, k.add(k.cast(index, uint32), key1)
    if index.dtype == "uint64":
        x0 = k.add(k.cast(k.shift_right(index, k.constant(32, index)), uint32), key0)
    schedule = [key0, key1, k.bit_xor(k.bit_xor(key0, key1), k.constant(PARITY, key0))]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = k.add(x0, x1)
            x1 = k.bit_xor(_rotate(k, x1, rotation), x0)
        x0 = k.add(x0, schedule[(group + 1) % 3])
        x1 = k.add(x1, k.add(schedule[(group + 2) % 3], k.constant(group + 1, key0)))
    return k.bit_xor(x0, x1)


def _rotate(k: Any, x: Any, count: int) -> Any:
    left = k.shift_left(x, k.constant(count, x))
    return k.bit_or(left, k.shift_right(x, k.constant(32 - count, x)))


def _infer(key0: Spec, key1: Spec, index: Spec) -> Spec:
    return index.with_dtype(uint32)


# Not an operator of the language: `random_bits` is, and this is what becomes of it.
THREEFRY = Primitive(
    "threefry",
    "elementwise",
    infer=_infer,
    numpy=lambda xp, *operands: bits(NumpyScalars(xp), *operands),
    scalar=bits,
    summary="uint32 noise of an element's number, under a key of two words",
)


def random_term(key: str, place: ix.Expr) -> Apply:
    """The element at a place of a draw of `random_bits`; `key` is the buffer of its operand."""
    words = (Load(key, ix.const(word), uint32) for word in range(2))
    index = Index(place, uint32 if place.high < 2**32 else uint64)
    return Apply(THREEFRY, (*words, index), (), uint32)
