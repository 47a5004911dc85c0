"""Random bits as a task of their own: for draws that fusion has not made a part of the kernels that use them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from highlevel.ir import Node

from ..codegen import indexing as ix
from ..codegen.targets import Target
from ..codegen.threefry import random_term
from ..schedule.kernel import Buffer, LoopKernel, Output
from .loops import loop_task
from .registry import lowers
from .task import Task


@lowers("random_bits")
def lower_random_bits(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """One loop over the elements. The code is the same for all shapes (of up to 2³² elements)."""
    (key,), (result,) = reads, writes
    origins = (node.origin.layer,) if node.origin.layer else ()
    if result is None:
        return Task(node.name, (key.name,), (), (), origins=origins)
    size = math.prod(result.shape)
    place = ix.var("i", size)
    output = Output(result, place, random_term(key.name, place), True)
    kernel = LoopKernel(node.name, (("i", size),), (), (), (output,), origins)
    return loop_task(kernel, {key.name: key.dtype}, target)
