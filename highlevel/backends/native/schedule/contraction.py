"""Contractions as data: which node, how its operands and its result lie in their buffers, and what is done at the end.

A transposed, sliced or reshaped operand is not copied where its elements lie at constant steps: it is a `View`. What is
done to the result before it is stored – bias, scale, activation, residual – is the `epilogue`.
"""

from __future__ import annotations

from dataclasses import dataclass

from highlevel.ir import DType, Node

from .kernel import Buffer, Term


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
    result:   where the (finished) result is written: shape as of the node's result, any order of axes but the last
    epilogue: a term for each element, over variables i0, i1, … (the indices of the node's result), in which
              `Total("product")` is the value of the node; its type is that of `result`. None: the value as it is
    origins:  layers that all of it comes from
    """

    node: Node
    operands: tuple[View, View]
    result: View
    epilogue: Term | None = None
    origins: tuple[str, ...] = ()
