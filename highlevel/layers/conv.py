"""Convolutions over sequences, images and volumes: plain, depthwise and separable.

The classes differ in their number of spatial axes only; what they do is written once, in `_Convolution` and its
variations (a fourth is in `conv_transpose.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from highlevel import activations, config, constraints, initializers, ops, regularizers
from highlevel.errors import ArgumentError, ShapeError

from .arguments import check_floating, check_images, check_known, one_of, per_axis, whole
from .base import Layer, check_axis


class _Convolution(Layer):
    """What all convolutions share: their geometry, the bias and the activation."""

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = per_axis(self, kernel_size, self.rank, "kernel_size")
        self.strides = per_axis(self, strides, self.rank, "strides")
        self.dilation_rate = per_axis(self, dilation_rate, self.rank, "dilation_rate")
        self.padding = one_of(self, padding, "padding", self._paddings())
        self.data_format = config.data_format(data_format)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input_channels: int | None = None

    def _paddings(self) -> tuple[str, ...]:
        return ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)
        check_known(self, input_shape, self.channel_axis, "the number of channels")
        if self.input_channels is not None:
            other = 1 if self.channel_axis == -1 else -1
            hint = None
            if input_shape[other] == self.input_channels:
                given = "first" if other == 1 else "last"
                hint = f"the input looks channels-{given}: data_format='channels_{given}', or move axis {other}"
            check_axis(self, input_shape, self.channel_axis, self.input_channels, hint=hint)
        self._check_window(input_shape)

    def _check_window(self, shape: Any) -> None:
        """Raises if a window without padding is larger than the image."""
        if self.padding != "valid":
            return
        first = 1 if self.data_format == "channels_last" else 2
        for axis, (window, dilation) in enumerate(zip(self.kernel_size, self.dilation_rate, strict=True), start=first):
            extent = (window - 1) * dilation + 1
            if shape[axis] is not None and shape[axis] < extent:
                raise ShapeError(
                    f"{self.name}: the window is larger than the input",
                    got=f"shape {tuple(shape)}, a window of {extent} on axis {axis}",
                    expected=f"at least {extent} elements on axis {axis}",
                    hint="padding='same', a larger input, or fewer down-sampling layers before this one",
                )

    def _add_bias(self, filters: int) -> None:
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _finish(self, outputs: Any) -> Any:
        if self.bias is not None:
            bias = self.bias
            if self.data_format == "channels_first":
                bias = ops.reshape(bias, (*bias.shape, *(1,) * self.rank))
            outputs = ops.add(outputs, bias)
        return self.activation(outputs)

    def _padded(self, inputs: Any) -> tuple[Any, str]:
        """The inputs and the padding that is left to do: causal padding looks only backwards."""
        if self.padding != "causal":
            return inputs, self.padding
        before = (self.dilation_rate[0] * (self.kernel_size[0] - 1), 0)
        time_last = self.data_format == "channels_first"
        return ops.pad(inputs, ((0, 0), (0, 0), before) if time_last else ((0, 0), before, (0, 0))), "valid"


class _Conv(_Convolution):
    """Each filter looks at all channels of its group."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
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
        self.groups = whole(self, groups, "groups")
        if self.filters % self.groups:
            raise ArgumentError(
                f"{self.name}: the filters cannot be split into groups",
                got=f"filters={filters}, groups={groups}",
                expected="a number of groups that divides the filters",
            )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape: Any) -> None:
        self.input_channels = input_shape[self.channel_axis]
        if self.input_channels % self.groups:
            raise ShapeError(
                f"{self.name}: the channels cannot be split into groups",
                got=f"{self.input_channels} channels (shape {tuple(input_shape)}), groups={self.groups}",
                expected=f"a number of channels that {self.groups} divides",
                hint=f"is data_format={self.data_format!r} right?",
            )
        self.kernel = self.add_weight(
            (*self.kernel_size, self.input_channels // self.groups, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        inputs, padding = self._padded(inputs)
        outputs = ops.conv(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(outputs)


class Conv1D(_Conv):
    """Filters that slide over a sequence.

    y[t, o] = activation(Σ_k Σ_c x[t · stride + k · dilation, c] · kernel[k, c, o] + bias[o])

    Arguments: those of `Conv2D`, and padding "causal", which pads before the sequence only, so that no output sees what
    comes later.

    Weights: kernel (kernel_size, channels / groups, filters), bias (filters,)

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, filters), or (batch, filters, new_steps)

    Reference: A. van den Oord et al., "WaveNet: a generative model for raw audio", 2016 (causal padding)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Conv1D(8, 3, padding="causal")(np.ones((2, 10, 4), "float32")).shape
    (2, 10, 8)
    """

    rank = 1


class Conv2D(_Conv):
    """Filters that slide over an image.

    y[i, j, o] = activation(Σ_klc x[i · stride + k · dilation, j · stride + l · dilation, c] · kernel[k, l, c, o]
    + bias[o])

    Arguments:
        filters: number of filters, the channels of the output
        kernel_size: height and width of the window; one integer for both
        strides: steps of the window; one integer for both axes
        padding: "valid" (the window stays inside) or "same" (zeros around the image; with stride 1 the size stays)
        data_format: "channels_last" or "channels_first"; the library's setting if None
        dilation_rate: distance of the window's elements
        groups: channels and filters are split into so many groups, each convolved for itself
        activation: function or its name; none if None
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: what the weights start as
        kernel_regularizer, bias_regularizer: terms of the loss that weights cost
        activity_regularizer: term of the loss that outputs cost
        kernel_constraint, bias_constraint: applied to the weights after each update

    Weights: kernel (*kernel_size, channels / groups, filters), bias (filters,)

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, filters), or (batch, filters, new_height, new_width)

    Reference: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")
    >>> layer(np.ones((2, 28, 28, 1), "float32")).shape, layer.kernel.shape
    ((2, 14, 14, 16), (3, 3, 1, 16))
    """

    rank = 2


class Conv3D(_Conv):
    """Filters that slide over a volume, or a film.

    Arguments: those of `Conv2D`, for three axes.

    Weights: kernel (*kernel_size, channels / groups, filters), bias (filters,)

    Input shape: (batch, depth, height, width, channels), or (batch, channels, depth, height, width)

    Output shape: (batch, new_depth, new_height, new_width, filters), or with the filters on axis 1

    Reference: D. Tran et al., "Learning spatiotemporal features with 3D convolutional networks", 2015

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Conv3D(4, 2)(np.ones((1, 5, 6, 7, 2), "float32")).shape
    (1, 4, 5, 6, 4)
    """

    rank = 3


class _DepthwiseConv(_Convolution):
    """Each channel is convolved for itself, with `depth_multiplier` filters."""

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            bias_initializer, bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = whole(self, depth_multiplier, "depth_multiplier")
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)

    def build(self, input_shape: Any) -> None:
        self.input_channels = input_shape[self.channel_axis]
        self.kernel = self.add_weight(
            (*self.kernel_size, self.input_channels, self.depth_multiplier),
            initializer=self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
            name="kernel",
        )
        self._add_bias(self.input_channels * self.depth_multiplier)

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        inputs, padding = self._padded(inputs)
        outputs = ops.depthwise_conv(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(outputs)


class DepthwiseConv1D(_DepthwiseConv):
    """Filters that slide over each channel of a sequence for itself.

    Arguments: those of `DepthwiseConv2D`, and padding "causal".

    Weights: kernel (kernel_size, channels, depth_multiplier), bias (channels · depth_multiplier,)

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, channels · depth_multiplier), or (batch, channels · depth_multiplier, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.DepthwiseConv1D(3, depth_multiplier=2)(np.ones((2, 10, 4), "float32")).shape
    (2, 8, 8)
    """

    rank = 1


class DepthwiseConv2D(_DepthwiseConv):
    """Filters that slide over each channel of an image for itself.

    y[i, j, c · m + q] = activation(Σ_kl x[i · stride + k, j · stride + l, c] · kernel[k, l, c, q] + bias[c · m + q])

    Arguments:
        kernel_size: height and width of the window; one integer for both
        strides: steps of the window; one integer for both axes
        padding: "valid" (the window stays inside) or "same" (zeros around the image)
        depth_multiplier: number of filters per channel
        data_format: "channels_last" or "channels_first"; the library's setting if None
        dilation_rate: distance of the window's elements
        activation: function or its name; none if None
        use_bias: whether a bias is added
        depthwise_initializer, bias_initializer: what the weights start as
        depthwise_regularizer, bias_regularizer: terms of the loss that weights cost
        activity_regularizer: term of the loss that outputs cost
        depthwise_constraint, bias_constraint: applied to the weights after each update

    Weights: kernel (*kernel_size, channels, depth_multiplier), bias (channels · depth_multiplier,)

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, channels · depth_multiplier), or with the channels first

    Reference: L. Sifre and S. Mallat, "Rigid-motion scattering for texture classification", 2014

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
    >>> layer(np.ones((1, 8, 8, 3), "float32")).shape, layer.kernel.shape
    ((1, 8, 8, 6), (3, 3, 3, 2))
    """

    rank = 2


class _SeparableConv(_Convolution):
    """A depthwise convolution, and a 1×1 convolution that mixes its channels."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            bias_initializer, bias_regularizer, bias_constraint, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = whole(self, filters, "filters")
        self.depth_multiplier = whole(self, depth_multiplier, "depth_multiplier")
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.pointwise_constraint = constraints.get(pointwise_constraint)

    def build(self, input_shape: Any) -> None:
        self.input_channels = input_shape[self.channel_axis]
        self.depthwise_kernel = self.add_weight(
            (*self.kernel_size, self.input_channels, self.depth_multiplier),
            initializer=self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
            name="depthwise_kernel",
        )
        self.pointwise_kernel = self.add_weight(
            (*(1,) * self.rank, self.input_channels * self.depth_multiplier, self.filters),
            initializer=self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
            name="pointwise_kernel",
        )
        self._add_bias(self.filters)

    def call(self, inputs: Any) -> Any:
        check_floating(self, inputs)
        inputs, padding = self._padded(inputs)
        outputs = ops.separable_conv(
            inputs,
            self.depthwise_kernel,
            self.pointwise_kernel,
            strides=self.strides,
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return self._finish(outputs)


class SeparableConv1D(_SeparableConv):
    """A depthwise convolution over a sequence, followed by a product with a matrix at every step.

    Arguments: those of `SeparableConv2D`, and padding "causal".

    Weights: depthwise_kernel (kernel_size, channels, depth_multiplier),
    pointwise_kernel (1, channels · depth_multiplier, filters), bias (filters,)

    Input shape: (batch, steps, channels), or (batch, channels, steps) with data_format="channels_first"

    Output shape: (batch, new_steps, filters), or (batch, filters, new_steps)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SeparableConv1D(8, 3)(np.ones((2, 10, 4), "float32")).shape
    (2, 8, 8)
    """

    rank = 1


class SeparableConv2D(_SeparableConv):
    """A depthwise convolution over an image, followed by a 1×1 convolution that mixes its channels.

    y = activation(conv(depthwise_conv(x, depthwise_kernel), pointwise_kernel) + bias)

    Arguments: those of `DepthwiseConv2D`, and `filters`, the number of channels of the output. What is said of one
    kernel there is said of two here: depthwise_… and pointwise_initializer, _regularizer and _constraint.

    Weights: depthwise_kernel (*kernel_size, channels, depth_multiplier),
    pointwise_kernel (1, 1, channels · depth_multiplier, filters), bias (filters,)

    Input shape: (batch, height, width, channels), or (batch, channels, height, width) with data_format="channels_first"

    Output shape: (batch, new_height, new_width, filters), or (batch, filters, new_height, new_width)

    Reference: F. Chollet, "Xception: deep learning with depthwise separable convolutions", 2017

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.SeparableConv2D(8, 3, padding="same")(np.ones((2, 6, 6, 4), "float32")).shape
    (2, 6, 6, 8)
    """

    rank = 2
