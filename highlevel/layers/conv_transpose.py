"""Transposed convolutions over sequences, images and volumes, which make them larger."""

from __future__ import annotations

from typing import Any

from highlevel import constraints, initializers, ops, regularizers
from highlevel.errors import ArgumentError

from .arguments import check_floating, per_axis, whole
from .conv import _Convolution


class _ConvTranspose(_Convolution):
    """The transposed map of a convolution: from what a convolution gives to what it takes."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
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
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            bias_initializer, bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = whole(self, filters, "filters")
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis(self, output_padding, self.rank, "output_padding", least=0)
            for more, stride in zip(self.output_padding, self.strides, strict=True):
                if more >= stride:
                    raise ArgumentError(
                        f"{self.name}: output_padding is too large",
                        got=f"output_padding={output_padding}, strides={strides}",
                        expected="less than the stride, on each axis",
                    )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def _paddings(self) -> tuple[str, ...]:
        return "valid", "same"

    def _check_window(self, shape: Any) -> None:
        """Nothing to check: any input fits, since the window lies in the output."""

    def build(self, input_shape: Any) -> None:
        self.input_channels = input_shape[self.channel_axis]
        self.kernel = self.add_weight(
            (*self.kernel_size, self.filters, self.input_channels),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        outputs = ops.conv_transpose(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(outputs)


class Conv1DTranspose(_ConvTranspose):
    """The transposed convolution over a sequence, which makes it longer.

    Arguments: those of `Conv2DTranspose`.

    Weights: kernel (kernel_size, filters, channels), bias (filters,)

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, filters), or (batch, filters, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Conv1DTranspose(8, 3, strides=2, padding="same")(np.ones((2, 10, 4), "float32")).shape
    (2, 20, 8)
    """

    rank = 1


class Conv2DTranspose(_ConvTranspose):
    """The transposed convolution over an image, which makes it larger ("deconvolution").

    Every pixel puts a copy of the kernel, times its value, into the output; copies that overlap add up. It is the map
    by which gradients flow through `Conv2D`.

    Arguments: those of `Conv2D` without groups, and
        padding: "valid" (size (n − 1) · stride + max(kernel_size, stride)) or "same" (size n · stride)
        output_padding: how much longer than necessary the output is, to choose among the sizes that a convolution maps
            to the same one; less than the stride

    Weights: kernel (*kernel_size, filters, channels), bias (filters,)

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, filters), or (batch, filters, new_height, new_width)

    Reference: M. Zeiler et al., "Deconvolutional networks", 2010

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Conv2DTranspose(8, 3, strides=2, padding="same")(np.ones((2, 5, 5, 4), "float32")).shape
    (2, 10, 10, 8)
    """

    rank = 2


class Conv3DTranspose(_ConvTranspose):
    """The transposed convolution over a volume, which makes it larger.

    Arguments: those of `Conv2DTranspose`, for three axes.

    Weights: kernel (*kernel_size, filters, channels), bias (filters,)

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: (batch, new_depth, new_height, new_width, filters), or with the filters on axis 1

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Conv3DTranspose(2, 2, strides=2)(np.ones((1, 2, 3, 4, 1), "float32")).shape
    (1, 4, 6, 8, 2)
    """

    rank = 3

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,  # Keras has these two in another order for volumes
        output_padding: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, output_padding, data_format, **kwargs)
