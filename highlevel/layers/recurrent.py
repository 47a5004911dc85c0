"""Recurrent layers: a cell applied to one step of a sequence after another.

Time runs along the second axis of the inputs, (batch, time, features). Inside it comes first, for `scan`: the product
of the inputs with the kernel is taken for all steps at once, and the loop holds the product with the state and the
mathematics of the gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Variable, control, trace, tree
from highlevel.layers.arguments import check_known, is_shape
from highlevel.layers.base import Layer, check_axis, check_rank
from highlevel.layers.recurrent_cells import (
    GRUCell,
    LSTMCell,
    SimpleRNNCell,
    StackedRNNCells,
    check_cell,
    check_states,
    initial_state,
    output_size,
    project,
    projects,
)


class RNN(Layer):
    """A cell, or a stack of cells, run along a sequence.

    Formula: y_t, s_t = cell(x_t, s_{t−1}) for t = 1, …, T; s_0 is zero unless given.

    Input shape: `sequences` (batch, time, …); `initial_state` a state (batch, size) or the list of them; `mask`
    (batch, time), true where a step counts. A step that does not count leaves the states as they are, and its output
    is the previous one.

    Output shape: (batch, size) – the last output –, or (batch, time, size) with `return_sequences`; with `return_state`
    followed by the last states, each (batch, size).

    cell:             `LSTMCell`, `GRUCell`, `SimpleRNNCell`, a list of cells, or an object of yours with
                      `call(inputs, states) -> (output, states)` and `state_size` (also `output_size`,
                      `get_initial_state(batch_size)`)
    return_sequences: the outputs of all steps instead of the last
    return_state:     also the states after the last step
    go_backwards:     from the last step to the first; the outputs come in that order
    stateful:         a call starts where the last one ended, sample by sample; needs a fixed batch size
    unroll:           write the loop out, step by step: for short sequences
    zero_output_for_mask: outputs of steps that do not count are zero

    >>> import numpy as np, highlevel as hl
    >>> layer = hl.layers.RNN([hl.layers.GRUCell(8), hl.layers.GRUCell(4)], return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    (2, 5, 4)
    """

    supports_masking = True
    _untracked = Layer._untracked | {"states"}  # the states are not weights

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        cell = StackedRNNCells(cell) if isinstance(cell, (list, tuple)) else cell
        check_cell(type(self).__name__, cell)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.states: list[Any] | None = None

    @property
    def state_size(self) -> list[Any]:
        size = self.cell.state_size
        return list(size) if isinstance(size, (list, tuple)) else [size]

    # Building ---------------------------------------------------------------------------------------------------------
    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        batch, time, *rest = sequences_shape
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build((batch, *rest))
        if self.unroll and time is None:
            raise ShapeError(
                f"{self.name}: a loop of unknown length cannot be unrolled",
                got=f"shape {tuple(sequences_shape)}",
                expected="a number of time steps",
                hint="give Input the time axis, or use unroll=False",
            )
        if self.stateful:
            self._make_states(batch)

    def _make_states(self, batch: int | None) -> None:
        if batch is None:
            raise ShapeError(
                f"{self.name}: a stateful layer keeps a state for each sample of a batch",
                got="an unknown batch size",
                expected="a fixed one",
                hint="Input(batch_shape=(batch, time, features))",
            )

        def variable(value: Any) -> Variable:
            path = f"{self.path}/rnn_state"
            return Variable(value, dtype=self.variable_dtype, trainable=False, name="rnn_state", path=path)

        self.states = tree.map(variable, self.get_initial_state(batch))

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """The states that a sequence starts with: zeros, or what the cell says."""
        return initial_state(self.cell, batch_size)

    def reset_state(self) -> None:
        """Sets the states of a stateful layer to zero."""
        for variable in tree.leaves(self.states or []):
            variable.assign(ops.zeros(variable.shape, dtype=variable.dtype))

    def reset_states(self) -> None:
        """`reset_state` under its earlier name."""
        self.reset_state()

    # Calling ----------------------------------------------------------------------------------------------------------
    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        states = self._first_states(initial_state, sequences.shape[0])
        output, states = self._run(sequences, states, self._check_mask(mask, sequences), training)
        if self.states is not None:
            for variable, value in zip(tree.leaves(self.states), tree.leaves(states), strict=True):
                variable.assign(value)
        return (output, *states) if self.return_state else output

    def _run(self, sequences: Any, states: list[Any], mask: Any, training: bool) -> tuple[Any, list[Any]]:
        """The output and the last states. Cells of a stack run one after the other, each along the whole sequence."""
        sequences = _swap_time(sequences)
        mask = None if mask is None else _swap_time(ops.cast(mask, "bool"))
        is_stack = isinstance(self.cell, StackedRNNCells) and type(self.cell).call is StackedRNNCells.call
        cells, given = (self.cell.cells, states) if is_stack else ([self.cell], [states])
        ends: list[Any] = []
        for cell, state in zip(cells, given, strict=True):
            is_last = cell is cells[-1]
            sequences, last, end = self._run_cell(cell, sequences, state, mask, training, is_last)
            ends.append(end if isinstance(state, (list, tuple)) else end[0])
        if self.return_sequences:
            last = _swap_time(ops.flip(sequences, axis=0) if self.go_backwards else sequences)
        return ops.cast(last, self.compute_dtype), ends if is_stack else ends[0]

    def _run_cell(
        self, cell: Any, sequences: Any, state: Any, mask: Any, training: bool, is_last: bool
    ) -> tuple[Any, Any, list[Any]]:
        """Outputs of all steps (None if nobody asks for them), the last one, and the last states. Time comes first."""
        keep = not is_last or self.return_sequences
        zero = is_last and self.zero_output_for_mask
        policy = cell.dtype_policy if isinstance(cell, Layer) else self.dtype_policy
        states = list(state) if isinstance(state, (list, tuple)) else [state]
        with trace.autocast(policy.compute_dtype):
            states = tree.map(lambda leaf: ops.cast(leaf, policy.compute_dtype), states)
            inputs, step = project(cell, ops.cast(sequences, policy.compute_dtype), training)
            # A masked step repeats the output before it. That is the first state of all common cells; others carry it.
            held = [] if mask is None else _separate_output(cell, states)

            def body(carry: Any, now: Any) -> tuple[Any, Any]:
                before, repeated = carry
                output, after = step(now[0], before)
                if mask is not None:
                    valid = now[1]
                    selected = tree.map(lambda new, old: _where(valid, new, old), after, before)
                    if zero:
                        output = _where(valid, output, ops.zeros_like(output))
                    elif output is after[0]:
                        output = selected[0]
                    else:
                        output = _where(valid, output, repeated[0] if repeated else before[0])
                    after, repeated = selected, [output] if repeated else []
                return (after, repeated), output if keep or output is not after[0] else None

            loop = _unrolled if self.unroll else control.scan
            xs = (inputs,) if mask is None else (inputs, mask)
            (states, _), outputs = loop(body, (states, held), xs, reverse=self.go_backwards)
        if outputs is None:
            return None, states[0], states
        return outputs, outputs[0 if self.go_backwards else -1], states

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        return [mask] + [None] * len(tree.leaves(self.state_size)) if self.return_state else mask

    # Checks -----------------------------------------------------------------------------------------------------------
    def check_input(self, input_shape: Any) -> None:
        if not is_shape(input_shape) or len(input_shape) < 3:
            raise ShapeError(
                f"{self.name}: the input is not a batch of sequences",
                got=f"shape {input_shape}" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected="(batch, time, features)",
                hint="add the missing axis: x[:, :, None] if each step is one number, x[None] for one sequence",
            )
        if input_shape[1] == 0:
            raise ShapeError(f"{self.name}: a sequence without steps", got=f"shape {input_shape}", expected="time ≥ 1")

    def _first_states(self, given: Any, batch: int) -> list[Any]:
        if given is None and self.states is None:
            return self.get_initial_state(batch)
        if self.states is not None and tree.leaves(self.states)[0].shape[0] != batch:
            raise ShapeError(
                f"{self.name}: a stateful layer keeps a state for each sample of a batch",
                got=f"{batch} samples",
                expected=f"{tree.leaves(self.states)[0].shape[0]}, as when the layer was built",
            )
        if given is None:
            return list(tree.map(lambda variable: variable.read(), self.states))
        states = list(given) if isinstance(given, (list, tuple)) else [given]
        check_states(self, tree.leaves(states), tree.leaves(self.state_size), batch)
        return states

    def _check_mask(self, mask: Any, sequences: Any) -> Any:
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if mask is not None and mask.shape != sequences.shape[:2]:
            raise ShapeError(
                f"{self.name}: the mask says for each step of each sample whether it counts",
                got=f"mask {mask.shape} for inputs {sequences.shape}",
                expected=f"mask {sequences.shape[:2]}",
            )
        return mask


class _GatedRNN(RNN):
    """A recurrent layer with one of the cells of this library, whose arguments are also its attributes."""

    cell: Any

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        check_rank(self, input_shape, 3, "(batch, time, features)")
        check_known(self, input_shape, -1, "the number of features")
        if self.cell.built:
            check_axis(self, input_shape, -1, self.cell.kernel.shape[0])

    def __getattr__(self, name: str) -> Any:
        if name in _CELL_ATTRIBUTES:
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_CELL_ATTRIBUTES = frozenset(
    f"{part}_{kind}"
    for part in ("kernel", "recurrent", "bias")
    for kind in ("initializer", "regularizer", "constraint")
) | {
    "units", "activation", "recurrent_activation", "use_bias", "unit_forget_bias", "dropout", "recurrent_dropout",
    "reset_after", "seed", "filters", "kernel_size", "strides", "padding", "dilation_rate",
}  # fmt: skip


class SimpleRNN(_GatedRNN):
    """A fully-connected recurrent layer (J. Elman, "Finding structure in time", 1990).

    Formula: h_t = activation(x_t · kernel + h_{t−1} · recurrent_kernel + bias).

    Input shape: (batch, time, features). Output shape: (batch, units), or (batch, time, units) with
    `return_sequences`; with `return_state` also the last state, (batch, units). Call arguments (`initial_state`,
    `mask`) are those of `RNN`.

    units:       size of the state
    activation:  None for none
    kernel_*:    for the kernel (features, units); recurrent_*: for the recurrent kernel (units, units); bias_*: for
                 the bias (units)
    dropout:     fraction of the inputs that is dropped in training; the same ones in all steps
    recurrent_dropout: fraction of the state that is dropped; the same in all steps
    seed:        of the dropout
    return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`

    >>> import numpy as np, highlevel as hl
    >>> hl.layers.SimpleRNN(4)(np.ones((2, 5, 3), "float32")).shape
    (2, 4)
    """

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        cell = SimpleRNNCell(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout, recurrent_dropout, seed, dtype=kwargs.get("dtype"), name="simple_rnn_cell",
        )  # fmt: skip
        super().__init__(
            cell, return_sequences, return_state, go_backwards, stateful, unroll,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip


class LSTM(_GatedRNN):
    """A long short-term memory (S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997).

    Formula: with z = x_t · kernel + h_{t−1} · recurrent_kernel + bias, whose columns are those of i, f, c, o in this
    order,

        c_t = σ(z_f) · c_{t−1} + σ(z_i) · activation(z_c),    h_t = σ(z_o) · activation(c_t),

    σ being the recurrent activation.

    Input shape: (batch, time, features). Output shape: (batch, units), or (batch, time, units) with
    `return_sequences`; with `return_state` also the last h and c, each (batch, units). Call arguments
    (`initial_state` = [h, c], `mask`) are those of `RNN`.

    units:       size of the states
    activation, recurrent_activation: None for none
    unit_forget_bias: the bias of the forget gate f starts at one (R. Jozefowicz et al., 2015)
    kernel_*:    for the kernel (features, 4·units); recurrent_*: for the recurrent kernel (units, 4·units); bias_*:
                 for the bias
    dropout:     fraction of the inputs that is dropped in training; the same ones in all steps
    recurrent_dropout: fraction of h that is dropped before its product, for each gate; the same in all steps
    seed:        of the dropout
    return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`; implementation: see `LSTMCell`
    use_cudnn:   without effect: which kernels run is up to the backend

    >>> import numpy as np, highlevel as hl
    >>> layer = hl.layers.LSTM(4, return_sequences=True, return_state=True)
    >>> outputs, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> outputs.shape, h.shape, c.shape
    ((2, 5, 4), (2, 4), (2, 4))
    """

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
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        _check_use_cudnn("LSTM", use_cudnn)
        cell = LSTMCell(
            units, activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer,
            bias_initializer, unit_forget_bias, kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout, recurrent_dropout, seed, implementation, dtype=kwargs.get("dtype"), name="lstm_cell",
        )  # fmt: skip
        super().__init__(
            cell, return_sequences, return_state, go_backwards, stateful, unroll,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip


class GRU(_GatedRNN):
    """Gated recurrent units (K. Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014).

    Formula: with the columns of kernels and bias in the order z, r, h, and σ the recurrent activation,

        z = σ(x_t·W_z + h_{t−1}·U_z + b_z),    r = σ(x_t·W_r + h_{t−1}·U_r + b_r),    h_t = z · h_{t−1} + (1 − z) · ĥ,
        ĥ = activation(x_t·W_h + b_h + r · (h_{t−1}·U_h + b′_h))  with `reset_after` (as in cuDNN and PyTorch),
        ĥ = activation(x_t·W_h + b_h + (r · h_{t−1})·U_h)         without (as in the paper).

    Input shape: (batch, time, features). Output shape: (batch, units), or (batch, time, units) with
    `return_sequences`; with `return_state` also the last state, (batch, units). Call arguments (`initial_state`,
    `mask`) are those of `RNN`.

    units:       size of the state
    activation, recurrent_activation: None for none
    kernel_*:    for the kernel (features, 3·units); recurrent_*: for the recurrent kernel (units, 3·units); bias_*:
                 for the bias, (2, 3·units) with `reset_after` – the second row is added to the product with the state
                 –, else (3·units)
    dropout:     fraction of the inputs that is dropped in training; the same ones in all steps
    recurrent_dropout: fraction of the state that is dropped before its product, for each gate; the same in all steps
    seed:        of the dropout
    return_sequences, return_state, go_backwards, stateful, unroll: see `RNN`
    use_cudnn:   accepted, and without effect: which kernels run is up to the backend
    implementation: see `GRUCell`

    >>> import numpy as np, highlevel as hl
    >>> hl.layers.GRU(4, return_sequences=True)(np.ones((2, 5, 3), "float32")).shape
    (2, 5, 4)
    """

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
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        implementation: int = 2,
        **kwargs: Any,
    ) -> None:
        _check_use_cudnn("GRU", use_cudnn)
        cell = GRUCell(
            units, activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer,
            bias_initializer, kernel_regularizer, recurrent_regularizer, bias_regularizer,
            kernel_constraint, recurrent_constraint, bias_constraint,
            dropout, recurrent_dropout, reset_after, seed, implementation, dtype=kwargs.get("dtype"), name="gru_cell",
        )  # fmt: skip
        super().__init__(
            cell, return_sequences, return_state, go_backwards, stateful, unroll,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip


# Pieces ---------------------------------------------------------------------------------------------------------------
def _swap_time(x: Any) -> Any:
    return ops.swapaxes(x, 0, 1)


def _where(valid: Any, new: Any, old: Any) -> Any:
    """`new` for samples whose step counts, `old` for the others; `valid` has one value per sample."""
    return ops.where(ops.reshape(valid, (*valid.shape, *(1,) * (new.ndim - 1))), new, old)


def _separate_output(cell: Any, states: Sequence[Any]) -> list[Any]:
    """Zeros in the shape of the cell's output if that cannot be the first state, which repeats the output otherwise."""
    first = states[0]
    if projects(cell) or first.shape == (first.shape[0], output_size(cell)):
        return []
    return [ops.zeros((first.shape[0], output_size(cell)), dtype=first.dtype)]


def _unrolled(f: Any, init: Any, xs: Any, reverse: bool) -> tuple[Any, Any]:
    """What `scan` computes, with the body written out for each step."""
    carry, length = init, tree.leaves(xs)[0].shape[0]
    outputs: list[Any] = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, outputs[t] = f(carry, tree.map(lambda x, t=t: x[t], xs))
    return carry, None if outputs[0] is None else control.stack(outputs)


def _check_use_cudnn(name: str, use_cudnn: Any) -> None:
    if use_cudnn not in ("auto", True, False):
        raise ArgumentError(f"{name}: unknown use_cudnn", got=repr(use_cudnn), expected="'auto', True or False")
