"""Threefry-2x32 on registers: random bits as a formula of a key and an element's number.

`bits` is scalar code without branches or memory, so a loop around it is vectorised, and it can stand wherever an
elementwise operator can. A loop kernel that draws its own bits never stores them: what it takes is a term that holds
the two words of the key (loads at places 0 and 1 of the key's buffer, the same in every round of the loop, which
LLVM moves in front of it) and an index expression, the row-major place of the element in the shape of the draw. An
element's bits depend on nothing else, so any cut of the rows, and any order of the loops, gives the same ones.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from llvmlite import ir

from highlevel.ir.dtypes import uint32
from highlevel.ir.primitives.random import PARITY, ROTATIONS

from .scalar import LlvmScalars, Scalar

I32 = ir.IntType(32)


def bits(k: LlvmScalars, key0: Scalar, key1: Scalar, index: Scalar) -> Scalar:
    """The uint32 of element `index` under a key of two uint32.

    An index of 32 bits saves the upper word of the counter: right for draws of up to 2³² elements.
    """
    low, high = k.cast(index, uint32), k.number(0, uint32)
    if index.dtype.size_bytes == 8:
        upper = k.builder.lshr(index.value, ir.Constant(index.value.type, 32))
        high = Scalar(k.builder.trunc(upper, I32), uint32)
    schedule = [key0, key1, k.bit_xor(k.bit_xor(key0, key1), k.number(PARITY, uint32))]
    x0, x1 = k.add(high, schedule[0]), k.add(low, schedule[1])
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = k.add(x0, x1)
            x1 = k.bit_xor(_rotate(k, x1, rotation), x0)
        x0 = k.add(x0, schedule[(group + 1) % 3])
        x1 = k.add(x1, k.add(schedule[(group + 2) % 3], k.number(group + 1, uint32)))
    return k.bit_xor(x0, x1)


def _rotate(k: LlvmScalars, x: Scalar, count: int) -> Scalar:
    return Scalar(k.code.call("llvm.fshl.i32", I32, x.value, x.value, ir.Constant(I32, count)), uint32)
