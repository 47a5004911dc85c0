"""Pooling over channels: maxout, and the winner that takes all."""

from __future__ import annotations

from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

from .arguments import check_axes, check_known, whole
from .base import Layer

FUNCTIONS = {"max": ops.max, "mean": ops.mean, "sum": ops.sum, "min": ops.min}


class _ChannelGroups(Layer):
    """Neighbouring channels in groups of `pool_size`."""

    supports_masking = True

    def __init__(self, pool_size: int, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size = whole(self, pool_size, "pool_size")
        self.axis = axis

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, (self.axis,), input_shape)
        size = check_known(self, input_shape, self.axis, "the number of channels")
        if size % self.pool_size:
            raise ShapeError(
                f"{self.name}: the channels cannot be split into groups",
                got=f"{size} channels (shape {tuple(input_shape)}), pool_size={self.pool_size}",
                expected=f"a number of channels that {self.pool_size} divides",
            )

    def _split(self, x: Any) -> tuple[Any, int]:
        """The groups as an axis of their own, and the axis of the channels in a group."""
        axis = self.axis % x.ndim
        groups = x.shape[axis] // self.pool_size
        return ops.reshape(x, (*x.shape[:axis], groups, self.pool_size, *x.shape[axis + 1 :])), axis + 1


class FeaturePool(_ChannelGroups):
    """One value for each group of neighbouring channels: maxout, after a Dense or convolution without activation.

    y_g = max over the channels c of group g of x_c

    Arguments:
        pool_size: channels in a group
        axis: the channels
        pool_function: "max", "mean", "sum" or "min"

    Input shape: any with channels on `axis`, a multiple of pool_size

    Output shape: the same, with 1/pool_size of the channels

    Reference: I. Goodfellow et al., "Maxout networks", 2013

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.FeaturePool(2)(np.float32([[1.0, 5.0, 4.0, 2.0]])).tolist()
    [[5.0, 4.0]]
    """

    def __init__(self, pool_size: int, axis: int = -1, pool_function: str = "max", **kwargs: Any) -> None:
        super().__init__(pool_size, axis, **kwargs)
        if pool_function not in FUNCTIONS:
            raise ArgumentError(
                f"{self.name}: unknown pool_function", got=repr(pool_function), expected=" | ".join(FUNCTIONS)
            )
        self.pool_function = pool_function

    def call(self, inputs: Any) -> Any:
        groups, axis = self._split(inputs)
        return FUNCTIONS[self.pool_function](groups, axis=axis)


class FeatureWTA(_ChannelGroups):
    """The largest channel of each group of neighbouring ones stays, the others become zero: the winner takes all.

    Arguments:
        pool_size: channels in a group
        axis: the channels

    Input shape: any with channels on `axis`, a multiple of pool_size

    Output shape: the same

    Reference: R. K. Srivastava et al., "Compete to compute", 2013

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.FeatureWTA(2)(np.float32([[1.0, 5.0, 4.0, 2.0]])).tolist()
    [[0.0, 5.0, 4.0, 0.0]]
    """

    def call(self, inputs: Any) -> Any:
        groups, axis = self._split(inputs)
        winner = ops.argmax(groups, axis=axis)
        mask = ops.one_hot(winner, self.pool_size, axis=axis, dtype=inputs.dtype)
        return ops.reshape(groups * mask, inputs.shape)
