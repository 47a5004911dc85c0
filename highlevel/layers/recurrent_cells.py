"""Cells: one step of a recurrent network, `output, states = cell(inputs, states)`.

What a step needs of the inputs alone – their product with the kernel – does not have to wait for the state. `project`
computes it for all steps of a sequence at once, and returns the function of what is left; so the loop of a recurrent
layer holds one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from highlevel import activations, constraints, initializers, ops, random, regularizers
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.arguments import check_known, fraction, whole
from highlevel.layers.base import Layer, check_axis, check_rank

Step = Callable[[Any, Sequence[Any]], tuple[Any, list[Any]]]


class _Cell(Layer):
    """What the three cells have in common: a kernel for the inputs, one for the state, a bias, and dropout of both.

    `gates` is the number of blocks of `units` columns in the kernels, `state_count` the number of states.
    """

    gates = 1
    state_count = 1

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        super().__init__(**kwargs)
        self.units = whole(self, units, "units")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = fraction(self, dropout, "dropout")
        self.recurrent_dropout = fraction(self, recurrent_dropout, "recurrent_dropout")
        self.seed = seed
        self.separate_masks = False  # one dropout mask for all gates, or one for each
        if self.dropout or self.recurrent_dropout:
            self.seed_generator = random.SeedGenerator(seed)

    @property
    def state_size(self) -> Any:
        """The size of the state, or the list of the sizes of several."""
        return self.units if self.state_count == 1 else [self.units] * self.state_count

    @property
    def output_size(self) -> int:
        return self.units

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """Zeros for each state."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in range(self.state_count)]

    def check_input(self, input_shape: Any) -> None:
        check_rank(self, input_shape, 2, "(batch, features) of one step")
        check_known(self, input_shape, -1, "the number of features")
        if self.built:
            check_axis(self, input_shape, -1, self.kernel.shape[0])

    def build(self, input_shape: Any) -> None:
        columns = self.gates * self.units
        self.kernel = self.add_weight(
            (input_shape[-1], columns),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            (self.units, columns),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            name="recurrent_kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                self._bias_shape(),
                self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def _initial_bias(self, shape: Any, dtype: Any = None) -> Any:
        return self.bias_initializer(shape, dtype=dtype)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        given = list(states) if isinstance(states, (list, tuple)) else [states]
        self._check_states(given, inputs.shape)
        projected, step = self.project(inputs, training)
        output, new_states = step(projected, given)
        return output, new_states if isinstance(states, (list, tuple)) else new_states[0]

    def _check_states(self, states: Sequence[Any], input_shape: tuple[int, ...]) -> None:
        check_states(self, states, [self.units] * self.state_count, input_shape[0])

    def project(self, sequences: Any, training: bool = False) -> tuple[Any, Step]:
        """What depends on the inputs alone, for all steps at once, and the function of one step.

        sequences: ([time,] batch, features)
        returns:   ([time,] batch, gates · units), and `step(one of these, states) -> (output, new states)`
        """
        batch = sequences.shape[-2]
        masks = self._dropout_masks(self.dropout, (batch, sequences.shape[-1]), sequences.dtype, training)
        projected = self._product(sequences, self.kernel, masks)
        bias = self._input_bias()
        if bias is not None:
            projected = projected + bias
        state_masks = self._dropout_masks(self.recurrent_dropout, (batch, self.units), sequences.dtype, training)
        return projected, lambda inputs, states: self._step(inputs, states, state_masks)

    def _input_bias(self) -> Any:
        return self.bias

    def _step(self, projected: Any, states: Sequence[Any], masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        raise NotImplementedError

    def _dropout_masks(self, rate: float, shape: tuple[int, ...], dtype: Any, training: bool) -> list[Any]:
        """One mask for all gates, or one for each; none where nothing is dropped. The same for all steps.

        Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016.
        """
        if not training or rate == 0.0:
            return []
        ones = ops.ones(shape, dtype=dtype)
        count = self.gates if self.separate_masks else 1
        return [random.dropout(ones, rate, seed=self.seed_generator) for _ in range(count)]

    def _product(self, x: Any, kernel: Any, masks: Sequence[Any]) -> Any:
        """x · kernel, where each block of `units` columns may have a dropout mask of its own for x."""
        if len(masks) <= 1:
            return ops.matmul(x * masks[0] if masks else x, kernel)
        blocks = ops.split(kernel, len(masks), axis=-1)
        return ops.concatenate([ops.matmul(x * m, block) for m, block in zip(masks, blocks, strict=True)], axis=-1)


class SimpleRNNCell(_Cell):
    """One step of a fully-connected recurrent network (J. Elman, "Finding structure in time", 1990).

    Formula: h′ = activation(x · kernel + h · recurrent_kernel + bias); the output is h′.

    Input shape: `inputs` (batch, features), `states` [(batch, units)].
    Output shape: (batch, units), and the list of the new state.

    units:      size of the state and of the output
    activation: None for none; the other parameters are those of `SimpleRNN`

    >>> import numpy as np, highlevel as hl
    >>> cell = hl.layers.SimpleRNNCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), [np.zeros((2, 4), "float32")])
    >>> output.shape
    (2, 4)
    """

    def _step(self, projected: Any, states: Sequence[Any], masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        output = self.activation(projected + self._product(states[0], self.recurrent_kernel, masks))
        return output, [output]


class LSTMCell(_Cell):
    """One step of a long short-term memory (S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997).

    Formula, with the columns of the kernels and of the bias in the order i, f, c, o:

        i, f, o = recurrent_activation(x·kernel + h·recurrent_kernel + bias)   (their columns)
        c′ = f · c + i · activation(x·kernel + h·recurrent_kernel + bias)      (the columns of c)
        h′ = o · activation(c′); the output is h′

    Input shape: `inputs` (batch, features), `states` [h, c], each (batch, units).
    Output shape: (batch, units), and the list of the new states.

    unit_forget_bias: the bias of the forget gate f starts at one (R. Jozefowicz et al., 2015)
    implementation:   1 drops inputs by a mask for each gate, 2 by one for all of them; with `recurrent_dropout`
                      always 1

    >>> import numpy as np, highlevel as hl
    >>> cell = hl.layers.LSTMCell(4)
    >>> output, (h, c) = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> output.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates = 4
    state_count = 2

    def __init__(
        self,
        units: int,
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
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias
        self.separate_masks = implementation == 1 or self.recurrent_dropout > 0

    def _initial_bias(self, shape: Any, dtype: Any = None) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        parts = [self.bias_initializer((self.units,), dtype=dtype), ops.ones((self.units,), dtype=dtype)]
        return ops.concatenate([*parts, self.bias_initializer((2 * self.units,), dtype=dtype)])

    def _step(self, projected: Any, states: Sequence[Any], masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        h, c = states
        z = projected + self._product(h, self.recurrent_kernel, masks)
        z_i, z_f, z_c, z_o = ops.split(z, 4, axis=-1)
        c = self.recurrent_activation(z_f) * c + self.recurrent_activation(z_i) * self.activation(z_c)
        h = self.recurrent_activation(z_o) * self.activation(c)
        return h, [h, c]


class GRUCell(_Cell):
    """One step of a gated recurrent unit (K. Cho et al., "Learning phrase representations using RNN encoder–decoder",
    2014).

    Formula, with the columns of the kernels and of the bias in the order z, r, h:

        z, r = recurrent_activation(x·kernel + h·recurrent_kernel + bias)                  (their columns)
        ĥ = activation(x·kernel + bias₀ + r · (h·recurrent_kernel + bias₁))                (reset_after; columns of h)
        ĥ = activation(x·kernel + bias + (r · h)·recurrent_kernel)                         (otherwise)
        h′ = z · h + (1 − z) · ĥ; the output is h′

    Input shape: `inputs` (batch, features), `states` [(batch, units)].
    Output shape: (batch, units), and the list of the new state.

    reset_after: the reset gate r acts after the product with the state; the bias then has two rows, (2, 3·units)
    implementation: 1 drops inputs by a mask for each gate, 2 by one for all of them; with `recurrent_dropout` always 1

    >>> import numpy as np, highlevel as hl
    >>> cell = hl.layers.GRUCell(4)
    >>> output, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> output.shape
    (2, 4)
    """

    gates = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after
        self.separate_masks = implementation == 1 or self.recurrent_dropout > 0

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def _input_bias(self) -> Any:
        return self.bias[0] if self.bias is not None and self.reset_after else self.bias

    def _step(self, projected: Any, states: Sequence[Any], masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        (h,), n = states, self.units
        x_z, x_r, x_h = ops.split(projected, 3, axis=-1)
        if self.reset_after:
            inner = self._product(h, self.recurrent_kernel, masks)
            if self.bias is not None:
                inner = inner + self.bias[1]
            h_z, h_r, h_h = ops.split(inner, 3, axis=-1)
            z, r = self.recurrent_activation(x_z + h_z), self.recurrent_activation(x_r + h_r)
            candidate = self.activation(x_h + r * h_h)
        else:
            h_z, h_r = ops.split(self._product(h, self.recurrent_kernel[:, : 2 * n], masks[:2]), 2, axis=-1)
            z, r = self.recurrent_activation(x_z + h_z), self.recurrent_activation(x_r + h_r)
            candidate = self.activation(x_h + self._product(r * h, self.recurrent_kernel[:, 2 * n :], masks[2:]))
        output = z * h + (1 - z) * candidate
        return output, [output]


class StackedRNNCells(Layer):
    """Cells on top of one another, as one cell: each takes the output of the one below.

    Input shape: `inputs` (batch, features), `states` a list with the states of each cell.
    Output shape: that of the last cell, and the list of the new states of each cell.

    cells: recurrent cells, the lowest first

    >>> import numpy as np, highlevel as hl
    >>> stack = hl.layers.StackedRNNCells([hl.layers.LSTMCell(8), hl.layers.GRUCell(4)])
    >>> hl.layers.RNN(stack)(np.ones((2, 5, 3), "float32")).shape
    (2, 4)
    """

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for cell in cells:
            check_cell(type(self).__name__, cell)
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> int:
        return output_size(self.cells[-1])

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        return [initial_state(cell, batch_size) for cell in self.cells]

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(shape)
            shape = (*shape[:-1], output_size(cell))

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        new_states = []
        for cell, state in zip(self.cells, states, strict=True):
            inputs, new = call_cell(cell, inputs, state, training)
            new_states.append(new)
        return inputs, new_states


# What cells of users may leave out ------------------------------------------------------------------------------------
def output_size(cell: Any) -> int:
    """The size of a cell's output: that of its first state unless it says otherwise."""
    size = getattr(cell, "output_size", None)
    if size is None:
        size = cell.state_size[0] if isinstance(cell.state_size, (list, tuple)) else cell.state_size
    return int(size)


def initial_state(cell: Any, batch_size: int | None) -> list[Any]:
    """The states that a cell starts with, as a list; zeros if it does not say."""
    if hasattr(cell, "get_initial_state"):
        state = cell.get_initial_state(batch_size=batch_size)
        return list(state) if isinstance(state, (list, tuple)) else [state]
    sizes = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
    dtype = getattr(cell, "compute_dtype", None)
    return [
        ops.zeros((batch_size, *(size if isinstance(size, (list, tuple)) else (size,))), dtype=dtype) for size in sizes
    ]


def call_cell(cell: Any, inputs: Any, states: Any, training: bool) -> tuple[Any, Any]:
    """One step of any cell; states come back in the form in which they were given."""
    given = list(states) if isinstance(states, (list, tuple)) else [states]
    output, new = cell(inputs, given, training=training) if isinstance(cell, Layer) else cell(inputs, given)
    new = list(new) if isinstance(new, (list, tuple)) else [new]
    return output, new if isinstance(states, (list, tuple)) else new[0]


def projects(cell: Any) -> TypeGuard[_Cell]:
    """Whether it is a cell of this library, whose output is the first of its new states."""
    return isinstance(cell, _Cell) and type(cell).call is _Cell.call


def project(cell: Any, sequences: Any, training: bool) -> tuple[Any, Step]:
    """`_Cell.project` for any cell: those that bring a `call` of their own compute all of it step by step."""
    if projects(cell):
        return cell.project(sequences, training)
    return sequences, lambda inputs, states: call_cell(cell, inputs, states, training)


# Checks ---------------------------------------------------------------------------------------------------------------
def check_cell(name: str, cell: Any) -> None:
    """Raises unless it can be called for a step and says how large its state is."""
    if not callable(cell) or not hasattr(cell, "state_size"):
        raise ArgumentError(
            f"{name}: this is not a recurrent cell",
            got=repr(cell),
            expected="call(inputs, states) -> (output, states), and an attribute state_size",
            hint="a layer that reads whole sequences (LSTM) has a cell of its own: LSTMCell",
        )


def check_states(layer: Layer, states: Sequence[Any], sizes: Sequence[Any], batch: int) -> None:
    """Raises unless there is one state (batch, size) for each size; sizes that are not numbers are not looked at."""
    expected = [(batch, size) for size in sizes]
    shapes = [getattr(state, "shape", None) for state in states]
    fits = len(shapes) == len(expected) and all(
        shape == wanted or not isinstance(wanted[1], int) for shape, wanted in zip(shapes, expected, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"{layer.name}: the states have the wrong number or shape",
            got=f"{len(states)} of shape {', '.join(map(str, shapes))}",
            expected=f"{len(expected)} of shape {', '.join(map(str, expected))}",
        )
