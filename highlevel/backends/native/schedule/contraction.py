"""Contractions as data: which node, how its operands and its result lie in their buffers, and what is done at the end.

A transposed, sliced or reshaped operand is not copied where its elements lie at constant steps: it is a `View`. What is
done to the result before it is stored – bias, scale, activation, residual – is the `epilogue`. `evaluate` is the
meaning, on NumPy: the oracle of the code generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from highlevel.ir import DType, Node

from .kernel import PRODUCT, Buffer, Load, Term, evaluate_term, walk


@dataclass(frozen=True, slots=True)
class View:
    """An array in a buffer: element (i, j, …) is at `offset` + i · strides[0] + j · strides[1] + …, in elements."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def whole(cls, buffer: Buffer) -> View:
        """All of a buffer, row-major."""
        strides, step = [], 1
        for size in reversed(buffer.shape):
            strides.append(step)
            step *= size
        return cls(buffer, buffer.shape, tuple(reversed(strides)))

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def is_contiguous(self) -> bool:
        return self.strides == View.whole(Buffer("", self.shape, self.dtype)).strides


@dataclass(frozen=True, slots=True)
class Contraction:
    """A node of the families "contraction" and "convolution", ready to be generated.

    operands: views of its two operands, in order; of convolutions all are contiguous (their offset may not be 0)
              (steps in row-major order); of matrix products one of the last two axes has step 1 or is short, batch
              axes may have step 0
    result:   where the (finished) result is written: shape as of the node's result, steps in any order but for the
              last, which is 1; of convolutions contiguous
    epilogue: a term for each element, over variables i0, i1, … (the indices of the node's result: i{axis}), in which
              `Total("product")` is the value of the node; its type is that of `result`. None: the value as it is.
              Only operators of `absorb.LEAN` occur, no `Choose`; every load moves by one element, or not at all,
              with the last index; equal subterms are one object. Never at a `conv_kernel_grad`
    origins:  layers that all of it comes from

    What the epilogue loads is there before the contraction runs, and is not the buffer that is written.
    """

    node: Node
    operands: tuple[View, View]
    result: View
    epilogue: Term | None = None
    origins: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all buffers that are read: operands, then what the epilogue loads."""
        names = [view.buffer.name for view in self.operands]
        if self.epilogue is not None:
            names += [node.buffer for node in walk(self.epilogue) if isinstance(node, Load)]
        return tuple(dict.fromkeys(names))


# The meaning ---------------------------------------------------------------------------------------------------------
def evaluate(contraction: Contraction, buffers: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Computes a contraction on NumPy arrays by buffer name; the result is written into its own."""
    node = contraction.node
    assert node.primitive is not None
    operands = [buffers[view.buffer.name].reshape(-1)[_places(view)] for view in contraction.operands]
    product = node.primitive.numpy(np, *operands, **node.attrs)
    if contraction.epilogue is not None:
        shape = contraction.result.shape
        grids = np.meshgrid(*map(np.arange, shape), indexing="ij")
        values = {f"i{axis}": grid for axis, grid in enumerate(grids)}
        found = evaluate_term(contraction.epilogue, values, buffers, {PRODUCT: product})
        product = np.broadcast_to(found, shape)
    buffers[contraction.result.buffer.name].reshape(-1)[_places(contraction.result)] = product


def _places(view: View) -> np.ndarray[Any, Any]:
    """Where its elements are, counted in elements."""
    places: np.ndarray[Any, Any] = np.full(view.shape, view.offset)
    for axis, (size, step) in enumerate(zip(view.shape, view.strides, strict=True)):
        steps = step * np.arange(size)
        places += steps.reshape([-1 if i == axis else 1 for i in range(len(view.shape))])
    return places
