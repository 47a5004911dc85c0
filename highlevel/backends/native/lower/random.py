"""Random bits as a task: element i is a function of the key and of i alone, so threads share the elements."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from highlevel.ir import Node
from highlevel.ir.dtypes import uint32, uint64

from ..cache import Unit
from ..codegen import threefry
from ..codegen.contraction.values import I64, POINTER, Builder, Value, counted
from ..codegen.kernel import element, kernel
from ..codegen.scalar import LlvmScalars, Scalar
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .registry import lowers
from .task import BEGIN, END, Call, Task

LINE_ELEMENTS = 16  # of a cache line
SERIAL_ELEMENTS = 4096  # fewer than this are not worth sharing out


@lowers("random_bits")
def lower_random_bits(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """One loop over the elements. The code is the same for all shapes (of up to 2³² elements)."""
    (key,), (result,) = reads, writes
    origins = (node.origin.layer,) if node.origin.layer else ()
    if result is None or not (size := math.prod(result.shape)):
        return Task(node.name, (key.name,), tuple(w.name for w in writes if w), (), origins=origins)
    unit = random_unit(size > 2**32, target)
    call = Call(unit, (BEGIN, END, key.name, result.name), size, LINE_ELEMENTS, size < SERIAL_ELEMENTS)
    return Task(node.name, (key.name,), (result.name,), (call,), origins=origins)


@functools.lru_cache(maxsize=16)
def random_unit(wide: bool, target: Target) -> Unit:
    """`kernel(begin, end, key, result)`; `wide` means that numbers of elements may need more than 32 bits."""

    def write(builder: Builder, begin: Value, end: Value, key: Value, result: Value) -> None:
        k = LlvmScalars(builder, target)
        key0, key1 = (k.load(element(builder, key, word, uint32), uint32) for word in range(2))

        def draw(i: Value, _: list[Value]) -> None:
            index = Scalar(i, uint64) if wide else k.cast(Scalar(i, uint64), uint32)
            k.store(element(builder, result, i, uint32), threefry.bits(k, key0, key1, index))

        counted(builder, begin, end, draw)

    return kernel(target, (I64, I64, POINTER, POINTER), write, level=2, noalias=(2, 3))
