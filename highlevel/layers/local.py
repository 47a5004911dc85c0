"""Locally connected layers: convolutions whose filters differ from position to position."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

from highlevel import constraints, initializers, ops, regularizers
from highlevel.errors import ShapeError

from .arguments import check_floating, check_known, spatial_axes, whole
from .base import check_axis
from .conv import _Convolution


class _LocallyConnected(_Convolution):
    """Windows as rows, each multiplied by the kernel of its own position."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, 1, activation, use_bias,
            bias_initializer, bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = whole(self, filters, "filters")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def _paddings(self) -> tuple[str, ...]:
        return ("valid", "same")

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        for i, axis in enumerate(spatial_axes(self.rank, self.data_format)):
            check_known(self, input_shape, axis, "the size, as every position has weights of its own,")
            if self.built:
                check_axis(self, input_shape, axis, self.input_sizes[i])

    def build(self, input_shape: Any) -> None:
        self.input_channels = input_shape[self.channel_axis]
        self.input_sizes = [input_shape[axis] for axis in spatial_axes(self.rank, self.data_format)]
        self.sizes = [self._count(size, axis) for axis, size in enumerate(self.input_sizes)]
        if 0 in self.sizes:
            raise ShapeError(f"{self.name}: there is no position", got=f"shape {input_shape}", expected="sizes ≥ 1")
        self.kernel = self.add_weight(
            (math.prod(self.sizes), math.prod(self.kernel_size) * self.input_channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (*self.sizes, self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _count(self, size: int, axis: int) -> int:
        """The number of positions along an axis."""
        extent = self.kernel_size[axis] if self.padding == "valid" else 1
        return (size - extent) // self.strides[axis] + 1

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        channels_first = self.data_format == "channels_first"
        x = ops.moveaxis(inputs, 1, -1) if channels_first else inputs
        batch = x.shape[0]
        rows = ops.reshape(self._windows(x), (batch, *self.kernel.shape[:2]))
        outputs = ops.reshape(ops.einsum("bpk,pkf->bpf", rows, self.kernel), (batch, *self.sizes, self.filters))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(ops.moveaxis(outputs, -1, 1) if channels_first else outputs)

    def _windows(self, x: Any) -> Any:
        """(batch, *positions, window · channels)"""
        if self.padding == "same":
            missing = [
                max((count - 1) * stride + window - size, 0)
                for count, stride, window, size in zip(
                    self.sizes, self.strides, self.kernel_size, self.input_sizes, strict=True
                )
            ]
            x = ops.pad(x, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
        taps = []
        for corner in itertools.product(*map(range, self.kernel_size)):
            spans = (
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(corner, self.sizes, self.strides, strict=True)
            )
            taps.append(x[(slice(None), *spans)])
        return ops.concatenate(taps, axis=-1)


class LocallyConnected1D(_LocallyConnected):
    """A convolution over a sequence whose filters differ from step to step.

    y[t, o] = activation(Σ_k Σ_c x[t · stride + k, c] · kernel[t, (k, c), o] + bias[t, o])

    Arguments: those of `LocallyConnected2D`, for one axis.

    Weights: kernel (new_steps, kernel_size · channels, filters), bias (new_steps, filters)

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, filters), or (batch, filters, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.LocallyConnected1D(8, 3)
    >>> layer(np.ones((2, 10, 4), "float32")).shape, layer.kernel.shape
    ((2, 8, 8), (8, 12, 8))
    """

    rank: ClassVar[int] = 1


class LocallyConnected2D(_LocallyConnected):
    """A convolution over an image whose filters differ from position to position: for faces that are centred, say.

    y[i, j, o] = activation(Σ_klc x[i · stride + k, j · stride + l, c] · kernel[(i, j), (k, l, c), o] + bias[i, j, o])

    Arguments:
        filters: number of filters at each position, the channels of the output
        kernel_size: height and width of the window; one integer for both
        strides: steps of the window; one integer for both axes
        padding: "valid" (the window stays inside) or "same" (zeros around the image)
        data_format: "channels_last" or "channels_first"; the library's setting if None
        activation: function or its name; none if None
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: what the weights start as
        kernel_regularizer, bias_regularizer: terms of the loss that weights cost
        activity_regularizer: term of the loss that outputs cost
        kernel_constraint, bias_constraint: applied to the weights after each update

    Weights: kernel (positions, window · channels, filters), bias (new_height, new_width, filters)

    Input shape: (batch, height, width, channels), or (batch, channels, height, width); sizes must be known

    Output shape: (batch, new_height, new_width, filters), or (batch, filters, new_height, new_width)

    Reference: Y. Taigman et al., "DeepFace: closing the gap to human-level performance in face verification", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.LocallyConnected2D(5, 3, strides=2)
    >>> layer(np.ones((2, 9, 7, 1), "float32")).shape, layer.kernel.shape
    ((2, 4, 3, 5), (12, 9, 5))
    """

    rank: ClassVar[int] = 2
