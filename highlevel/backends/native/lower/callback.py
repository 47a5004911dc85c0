"""Operators that nobody has written code for: the record's own definition, called back from the step.

A user's operator need not be compiled to be used. Its arrays are handed over as addresses; thread 0 makes the call,
while the others go on to the next barrier. An exception is kept, ends the step, and is raised when it is over.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from highlevel.ir import Node

from ..cache import Unit
from ..codegen.targets import Target
from ..schedule.kernel import Buffer
from .task import FUNCTION, Call, Task

FUNCTION_TYPE = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p))


@dataclass(frozen=True, slots=True, eq=False)
class Callback:
    """What is called: the operator, and the arrays that it is called with, results last."""

    node: Node
    operands: tuple[Buffer, ...]
    results: tuple[Buffer, ...]

    def function(self, fail: Callable[[BaseException], None]) -> Any:
        """A C function of an array of addresses; `fail` is told what goes wrong."""

        def call(addresses: Any) -> None:
            try:
                self._compute(addresses)
            except BaseException as error:
                fail(error)

        return FUNCTION_TYPE(call)

    def _compute(self, addresses: Any) -> None:
        node = self.node
        assert node.primitive is not None
        arrays = [_array(addresses[i], buffer) for i, buffer in enumerate((*self.operands, *self.results))]
        operands, results = arrays[: len(self.operands)], arrays[len(self.operands) :]
        with np.errstate(all="ignore"):
            found = node.primitive.numpy(np, *operands, **node.attrs)
        for goal, value in zip(results, found if node.primitive.multiple else (found,), strict=True):
            if value is not None:
                goal[...] = value


def _array(address: int | None, buffer: Buffer) -> np.ndarray[Any, Any]:
    size = math.prod(buffer.shape)
    if not size:
        return np.empty(buffer.shape, buffer.dtype.numpy)
    memory = (ctypes.c_char * (size * buffer.dtype.size_bytes)).from_address(address or 0)
    return np.frombuffer(memoryview(memory), np.uint8).view(buffer.dtype.numpy).reshape(buffer.shape)


def callback_task(node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None], target: Target) -> Task:
    """A task that computes a node by its definition; all its results have buffers."""
    results = tuple(buffer for buffer in writes if buffer is not None)
    assert len(results) == len(writes)
    names = (*(buffer.name for buffer in reads), *(buffer.name for buffer in results))
    return Task(
        name=node.name,
        reads=tuple(dict.fromkeys(buffer.name for buffer in reads)),
        writes=tuple(buffer.name for buffer in results),
        phases=(Call(_unit(len(names), target), (FUNCTION, *names), serial=True),),
        callback=Callback(node, tuple(reads), results),
        origins=(node.origin.layer,) if node.origin.layer else (),
    )


def _unit(count: int, target: Target) -> Unit:
    """`kernel(function, addresses…)`: calls the function with an array of the addresses."""
    lines = [f'target triple = "{target.triple}"']
    lines.append(f"define void @kernel({', '.join(['ptr %function', *(f'ptr %a{i}' for i in range(count))])}) {{")
    lines.append(f"  %addresses = alloca [{max(1, count)} x ptr]")
    for i in range(count):
        lines.append(f"  %p{i} = getelementptr ptr, ptr %addresses, i64 {i}")
        lines.append(f"  store ptr %a{i}, ptr %p{i}")
    lines += ["  call void %function(ptr %addresses)", "  ret void", "}"]
    return Unit("\n".join(lines) + "\n", target)
