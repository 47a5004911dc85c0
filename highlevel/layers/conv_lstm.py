"""Recurrent layers whose states are images: an LSTM in which convolutions take the place of the products.

The convolution of the inputs is taken for all steps at once; the loop holds that of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from highlevel import config, ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.arguments import check_images, check_known, image_axes, one_of, per_axis, spatial_axes, whole
from highlevel.layers.base import check_axis
from highlevel.layers.recurrent import RNN, _GatedRNN
from highlevel.layers.recurrent_cells import LSTMCell, Step


class ConvLSTMCell(LSTMCell):
    """One step of a convolutional LSTM.

    Formula: that of `LSTMCell`, with convolutions in place of the products; that of h keeps its size.

    Input shape: `inputs` (batch, *sizes, channels), `states` [h, c], each (batch, *new sizes, filters).
    Output shape: (batch, *new sizes, filters), and the list of the new states.

    rank: number of spatial axes, 1 to 3; the other parameters are those of `ConvLSTM2D`

    >>> import numpy as np, highlevel as hl
    >>> cell = hl.layers.ConvLSTMCell(2, filters=4, kernel_size=3, padding="same")
    >>> x = np.ones((2, 8, 8, 3), "float32")
    >>> output, (h, c) = cell(x, [np.zeros((2, 8, 8, 4), "float32")] * 2)
    >>> output.shape
    (2, 8, 8, 4)
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters, activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer,
            bias_initializer, unit_forget_bias, kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint, dropout, recurrent_dropout, seed, 1, **kwargs,
        )  # fmt: skip
        if rank not in (1, 2, 3):
            raise ArgumentError(f"{self.name}: rank is a number of spatial axes", got=repr(rank), expected="1, 2 or 3")
        self.rank = rank
        self.filters = whole(self, filters, "filters")
        self.kernel_size = per_axis(self, kernel_size, rank, "kernel_size")
        self.strides = per_axis(self, strides, rank, "strides")
        self.dilation_rate = per_axis(self, dilation_rate, rank, "dilation_rate")
        self.padding = one_of(self, padding, "padding", ("valid", "same"))
        self.data_format = config.data_format(data_format)
        self._build_shape: tuple[int | None, ...] = ()

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def state_size(self) -> list[None]:
        """Two states, whose sizes depend on those of the inputs."""
        return [None, None]

    def check_input(self, input_shape: Any) -> None:
        check_images(self, input_shape, self.rank, self.data_format)
        check_known(self, input_shape, self.channel_axis, "the number of channels")
        if self.built:
            check_axis(self, input_shape, self.channel_axis, self.kernel.shape[-2])

    def build(self, input_shape: Any) -> None:
        self._build_shape = tuple(input_shape)
        columns = self.gates * self.filters
        self.kernel = self.add_weight(
            (*self.kernel_size, input_shape[self.channel_axis], columns),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            (*self.kernel_size, self.filters, columns),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            name="recurrent_kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (columns,),
                self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def state_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        """The shape of each state for the shape of a step's inputs."""
        axes = spatial_axes(self.rank, self.data_format)
        sizes = []
        for axis, window, stride, dilation in zip(
            axes, self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            size = check_known(self, input_shape, axis, "the size of the images")
            extent = 1 if self.padding == "same" else (window - 1) * dilation + 1
            if size < extent:
                raise ShapeError(
                    f"{self.name}: the window is larger than the input",
                    got=f"shape {tuple(input_shape)}, a window of {extent} on axis {axis}",
                    expected=f"at least {extent} elements on axis {axis}",
                    hint="padding='same', or larger inputs",
                )
            sizes.append((size - extent) // stride + 1)
        channels_last = self.data_format == "channels_last"
        return (input_shape[0], *sizes, self.filters) if channels_last else (input_shape[0], self.filters, *sizes)

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """Zeros for each state, in the size that follows from the inputs that the cell was built for."""
        return self.zero_states((batch_size, *self._build_shape[1:]))

    def zero_states(self, input_shape: Sequence[Any]) -> list[Any]:
        """Zeros for each state, for the shape of a step's inputs."""
        shape = self.state_shape(input_shape)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(self.state_count)]

    def _check_states(self, states: Sequence[Any], input_shape: Sequence[Any]) -> None:
        """Raises unless there are two states of the shape that follows from the inputs."""
        expected, found = self.state_shape(input_shape), [tuple(state.shape) for state in states]
        if found != [expected, expected]:
            raise ShapeError(
                f"{self.name}: the states have the wrong number or shape",
                got=f"{len(found)} of shape {', '.join(map(str, found))}",
                expected=f"2 of shape {expected}",
            )

    def project(self, sequences: Any, training: bool = False) -> tuple[Any, Step]:
        """`LSTMCell.project` for sequences ([time,] batch, …) of images."""
        lead = sequences.shape[: sequences.ndim - self.rank - 1]
        step_shape = (lead[-1], *sequences.shape[len(lead) :])
        masks = self._dropout_masks(self.dropout, step_shape, sequences.dtype, training)
        images = [ops.reshape(sequences * mask if mask is not None else sequences, (-1, *step_shape[1:]))
                  for mask in masks or [None]]  # fmt: skip
        projected = self._convolved(images, self.kernel, self.strides, self.padding, self.dilation_rate)
        if self.bias is not None:
            along = (1,) * self.rank if self.data_format == "channels_first" else ()
            projected = projected + ops.reshape(self.bias, (*self.bias.shape, *along))
        projected = ops.reshape(projected, (*lead, *projected.shape[1:]))
        state_masks = self._dropout_masks(
            self.recurrent_dropout, self.state_shape(step_shape), sequences.dtype, training
        )
        return projected, lambda inputs, states: self._step(inputs, states, state_masks)

    def _step(self, projected: Any, states: Sequence[Any], masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        h, c = states
        ones = (1,) * self.rank
        z = projected + self._convolved([h * mask for mask in masks] or [h], self.recurrent_kernel, ones, "same", ones)
        z_i, z_f, z_c, z_o = ops.split(z, 4, axis=self.channel_axis)
        c = self.recurrent_activation(z_f) * c + self.recurrent_activation(z_i) * self.activation(z_c)
        h = self.recurrent_activation(z_o) * self.activation(c)
        return h, [h, c]

    def _convolved(self, images: Sequence[Any], kernel: Any, strides: Any, padding: str, dilation: Any) -> Any:
        """The convolution for all gates, of one batch of images or of one for each gate."""
        blocks = ops.split(kernel, len(images), axis=-1) if len(images) > 1 else [kernel]
        parts = [
            ops.conv(x, block, strides, padding, data_format=self.data_format, dilation_rate=dilation)
            for x, block in zip(images, blocks, strict=True)
        ]
        return ops.concatenate(parts, axis=self.channel_axis) if len(parts) > 1 else parts[0]


class _ConvLSTM(_GatedRNN):
    """A convolutional LSTM along sequences of images."""

    rank: ClassVar[int]
    cell: ConvLSTMCell

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = ConvLSTMCell(
            self.rank, filters, kernel_size, strides, padding, data_format, dilation_rate, activation,
            recurrent_activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            unit_forget_bias, kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint,
            recurrent_constraint, bias_constraint, dropout, recurrent_dropout, seed, dtype=kwargs.get("dtype"),
            name="conv_lstm_cell",
        )  # fmt: skip
        super().__init__(
            cell, return_sequences, return_state, go_backwards, stateful,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.data_format = cell.data_format

    def check_input(self, input_shape: Any) -> None:
        RNN.check_input(self, input_shape)
        if len(input_shape) != self.rank + 3:
            axes = image_axes(self.rank, self.data_format).replace("batch", "batch, time")
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {tuple(input_shape)} (rank {len(input_shape)})",
                expected=f"rank {self.rank + 3}: {axes}",
            )
        self.cell.check_input((input_shape[0], *input_shape[2:]))

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        step_shape = (sequences.shape[0], *sequences.shape[2:])
        if initial_state is not None:
            self.cell._check_states(initial_state, step_shape)
        elif self.states is None:
            initial_state = self.cell.zero_states(step_shape)
        return super().call(sequences, initial_state, mask, training)


class ConvLSTM1D(_ConvLSTM):
    """A convolutional LSTM along sequences whose steps are themselves sequences.

    Arguments: those of `ConvLSTM2D`, for one axis.

    Weights: kernel (kernel_size, channels, 4 · filters), recurrent_kernel (kernel_size, filters, 4 · filters), bias

    Input shape: (batch, time, steps, channels), or (batch, time, channels, steps) with data_format="channels_first"

    Output shape: that of `ConvLSTM2D`, with one axis

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ConvLSTM1D(4, 3, return_sequences=True)(np.ones((2, 5, 8, 3), "float32")).shape
    (2, 5, 6, 4)
    """

    rank = 1


class ConvLSTM2D(_ConvLSTM):
    """A long short-term memory along a sequence of images, such as a film; its states are images, too.

    i, f, o = σ(x_t ∗ kernel + h ∗ recurrent_kernel + bias) (their filters), c′ = f · c + i · activation(…),
    h′ = o · activation(c′), with σ the recurrent activation and ∗ a convolution; that of h keeps its size

    Arguments:
        filters: number of filters, the channels of the outputs and of both states
        kernel_size: height and width of the windows; one integer for both
        strides, padding, dilation_rate: of the convolution of the inputs, as for `Conv2D`
        data_format: "channels_last" or "channels_first"; the library's setting if None
        activation, recurrent_activation: None for none
        use_bias: whether a bias is added
        kernel_initializer, recurrent_initializer, bias_initializer: what the weights start as
        unit_forget_bias: the bias of the forget gate f starts at one
        kernel_regularizer, recurrent_regularizer, bias_regularizer: terms of the loss that weights cost
        activity_regularizer: term of the loss that outputs cost
        kernel_constraint, recurrent_constraint, bias_constraint: applied to the weights after each update
        dropout, recurrent_dropout: fraction of the inputs, of h that is dropped in training, for each gate; the same
            in all steps
        seed: of the dropout
        return_sequences, return_state, go_backwards, stateful: see `RNN`

    Call arguments: initial_state [h, c], mask (batch, time) and training, as for `RNN`

    Weights: kernel (*kernel_size, channels, 4 · filters), recurrent_kernel (*kernel_size, filters, 4 · filters),
    bias (4 · filters,), the filters in the order i, f, c, o

    Input shape: (batch, time, height, width, channels), or (batch, time, channels, height, width)

    Output shape: (batch, new_height, new_width, filters), or with an axis for time after the batch with
    `return_sequences`; with `return_state` also the last h and c; filters before the sizes with "channels_first"

    Reference: X. Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting",
    2015 (without the peepholes)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ConvLSTM2D(4, 3, padding="same")(np.ones((2, 5, 8, 6, 3), "float32")).shape
    (2, 8, 6, 4)
    """

    rank = 2


class ConvLSTM3D(_ConvLSTM):
    """A convolutional LSTM along sequences of volumes.

    Arguments: those of `ConvLSTM2D`, for three axes.

    Weights: kernel (*kernel_size, channels, 4 · filters), recurrent_kernel (*kernel_size, filters, 4 · filters), bias

    Input shape: (batch, time, depth, height, width, channels), or with the channels on axis 2

    Output shape: that of `ConvLSTM2D`, with three axes

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ConvLSTM3D(2, 2)(np.ones((1, 3, 4, 5, 6, 2), "float32")).shape
    (1, 3, 4, 5, 2)
    """

    rank = 3
