"""Which function makes tasks of which operator.

A lowering is `lower(node, reads, writes, target) -> Task`:

    node:   the operator's node: attributes, specs of operands and results, origin
    reads:  buffers of the operands, in their order; contiguous, row-major
    writes: buffers of the results, in their order; None for those that nobody takes
    target: the CPU that code is generated for

Elementwise operators, movement, fills and reductions are not here: fusion makes kernels of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from highlevel.ir import Node

from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .callback import callback_task
from .task import Task

Lowering: TypeAlias = Callable[[Node, Sequence[Buffer], Sequence[Buffer | None], Target], Task]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Registers a lowering for operators by name."""

    def register(lowering: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, lowering))
        return lowering

    return register


def lower(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """The task that computes a node; operators without code of their own are called back by their definition."""
    return LOWERINGS.get(node.name, callback_task)(node, reads, writes, target)
