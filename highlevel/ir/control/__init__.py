"""Control flow as functions, each beside the operator that it records.

On numbers these are plain Python – a loop, an if – so that a body can be stepped through. On symbols the functions that
they are given are traced into sub-graphs. Variables assigned inside become state of the loop, and are assigned after
it.

A sub-graph is closed: what it uses of its surroundings comes in as operands. All of the operators are differentiable
(`while_loop` by its bound on the number of steps). Their rules need differentiation and the functions themselves; that
is why their records stand here, after both, and not among those of `primitives`.
"""

from .branch import cond
from .calls import call, checkpoint
from .gradients import custom_gradient, stop_gradient
from .loops import scan, stack, while_loop

__all__ = ["call", "checkpoint", "cond", "custom_gradient", "scan", "stack", "stop_gradient", "while_loop"]
