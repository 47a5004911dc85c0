"""Layers around a layer: along time in both directions, or at each step of it."""

from __future__ import annotations

from typing import Any

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import control, tree
from highlevel.layers.arguments import is_shape, one_of
from highlevel.layers.base import Layer
from highlevel.layers.normalization import BatchNormalization


class Wrapper(Layer):
    """Base of layers around one layer, which they hold as `layer`.

    Input shape and output shape: up to the subclass.

    layer: the layer inside

    >>> import numpy as np, highlevel as hl
    >>> class Twice(hl.layers.Wrapper):
    ...     def call(self, inputs):
    ...         return self.layer(self.layer(inputs))
    >>> Twice(hl.layers.Dense(3))(np.ones((2, 3), "float32")).shape
    (2, 3)
    """

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = _checked(self, "layer", layer)

    def build(self, input_shape: Any = None) -> None:
        self.layer.build(input_shape)


class TimeDistributed(Wrapper):
    """A layer applied to each step of a sequence, with the same weights.

    Formula: y_t = layer(x_t) for t = 1, …, T.

    Input shape: (batch, time, …). Output shape: (batch, time, …), the rest being what the layer makes of it. The steps
    are run together, as one larger batch – but one after the other where statistics of a batch are taken.

    layer: what is applied to (batch, …)

    >>> import numpy as np, highlevel as hl
    >>> frames = hl.layers.TimeDistributed(hl.layers.Conv2D(4, 3))
    >>> frames(np.ones((2, 5, 8, 8, 3), "float32")).shape
    (2, 5, 6, 6, 4)
    """

    supports_masking = True

    def check_input(self, input_shape: Any) -> None:
        if not is_shape(input_shape) or len(input_shape) < 3:
            raise ShapeError(
                f"{self.name}: the input is not a batch of sequences",
                got=f"shape {input_shape}" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected="(batch, time, …), with at least one more axis",
            )

    def build(self, input_shape: Any = None) -> None:
        self.layer.build((input_shape[0], *input_shape[2:]))

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        batch, time = inputs.shape[:2]
        if mask is not None and mask.shape[:2] != (batch, time):
            raise ShapeError(
                f"{self.name}: the mask says for each step whether it counts",
                got=f"mask {mask.shape} for inputs {inputs.shape}",
                expected=f"mask {(batch, time)}, or more axes",
            )
        if training and any(isinstance(layer, BatchNormalization) for layer in self.layer.walk_layers()):
            return self._step_by_step(inputs, training, mask)
        outputs = self.layer(_joined(inputs), training=training, mask=None if mask is None else _joined(mask))
        return tree.map(lambda y: ops.reshape(y, (batch, time, *y.shape[1:])), outputs)

    def _step_by_step(self, inputs: Any, training: bool, mask: Any) -> Any:
        def step(_: Any, now: Any) -> tuple[Any, Any]:
            return None, self.layer(now[0], training=training, mask=now[1])

        steps = (ops.swapaxes(inputs, 0, 1), None if mask is None else ops.swapaxes(mask, 0, 1))
        _, outputs = control.scan(step, None, steps)
        return tree.map(lambda y: ops.swapaxes(y, 0, 1), outputs)


class Bidirectional(Layer):
    """A recurrent layer and its copy that reads from the end (M. Schuster and K. Paliwal, "Bidirectional RNNs", 1997).

    Formula: y = merge(forward(x), backward(x)), the outputs of the latter put in the order of time again.

    Input shape: that of the layer; `initial_state` is a list of the states of the one, then of the other.

    Output shape: that of the layer, with twice the features for "concat"; a pair for None. With `return_state` followed
    by the states of the one, then of the other.

    layer:          a recurrent layer; it is copied, and gives the names: `forward_lstm`, `backward_lstm`
    merge_mode:     "concat", "sum", "mul", "ave", or None for both outputs
    weights:        first weights of both, the forward layer's first
    backward_layer: reads from the end; made from `layer` if None

    >>> import numpy as np, highlevel as hl
    >>> hl.layers.Bidirectional(hl.layers.LSTM(4, return_sequences=True))(np.ones((2, 5, 3), "float32")).shape
    (2, 5, 8)
    """

    supports_masking = True
    forward_layer: Any
    backward_layer: Any

    def __init__(
        self,
        layer: Layer,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_recurrent(self, "layer", layer)
        if merge_mode is not None:
            merge_mode = one_of(self, merge_mode, "merge_mode", ("concat", "sum", "mul", "ave"))
        self.merge_mode = merge_mode
        name = layer.name.removeprefix("forward_")
        self.forward_layer = _copy(layer, name=f"forward_{name}")
        if backward_layer is None:
            backward_layer = _copy(layer, name=f"backward_{name}", go_backwards=True)
        else:
            _check_recurrent(self, "backward_layer", backward_layer)
        self.backward_layer = backward_layer
        self._check_pair()
        self.return_sequences: bool = self.forward_layer.return_sequences
        self.return_state: bool = self.forward_layer.return_state
        self.stateful: bool = self.forward_layer.stateful
        for direction in (self.forward_layer, self.backward_layer):
            if hasattr(direction, "zero_output_for_mask"):  # or masked steps would repeat what another step has given
                direction.zero_output_for_mask = self.return_sequences
        self._first_weights = weights

    def _check_pair(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ArgumentError(
                f"{self.name}: both layers read in the same direction",
                got=f"go_backwards={forward.go_backwards} for both",
                expected="go_backwards=True for one of them",
            )
        for attribute in ("stateful", "return_sequences", "return_state"):
            values = getattr(forward, attribute), getattr(backward, attribute)
            if values[0] != values[1]:
                raise ArgumentError(
                    f"{self.name}: the layers do not return the same things",
                    got=f"{attribute}={values[0]} forward, {values[1]} backward",
                    expected=f"one value of {attribute}",
                )

    def check_input(self, input_shape: Any) -> None:
        self.forward_layer.check_input(input_shape)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        self.forward_layer.build(sequences_shape)
        self.backward_layer.build(sequences_shape)
        if self._first_weights is not None:
            half = len(self._first_weights) // 2
            self.forward_layer.set_weights(self._first_weights[:half])
            self.backward_layer.set_weights(self._first_weights[half:])

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        first: tuple[Any, Any] = (None, None)
        if initial_state is not None:
            half = len(initial_state) // 2
            first = initial_state[:half], initial_state[half:]
        results = [
            layer(sequences, initial_state=state, mask=mask, training=training)
            for layer, state in zip((self.forward_layer, self.backward_layer), first, strict=True)
        ]
        states: tuple[Any, ...] = ()
        if self.return_state:
            states = (*results[0][1:], *results[1][1:])
            results = [result[0] for result in results]
        forward, backward = (ops.cast(result, self.compute_dtype) for result in results)
        if self.return_sequences:
            backward = ops.flip(backward, axis=1)
            backward.mask = forward.mask
        merged = self._merge(forward, backward)
        outputs = (*merged, *states) if isinstance(merged, tuple) else (merged, *states)
        return outputs if len(outputs) > 1 else outputs[0]

    def _merge(self, forward: Any, backward: Any) -> Any:
        if self.merge_mode is None:
            return forward, backward
        if self.merge_mode == "concat":
            return ops.concatenate([forward, backward], axis=-1)
        if self.merge_mode == "mul":
            return forward * backward
        total = forward + backward
        return total / 2 if self.merge_mode == "ave" else total

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = previous_mask if self.return_sequences else None
        states = len(tree.leaves(self.forward_layer.state_size)) if self.return_state else 0
        return [mask] * (2 if self.merge_mode is None else 1) + [None] * (2 * states)

    @property
    def states(self) -> Any:
        """The states of both stateful layers, None if they are not."""
        if self.forward_layer.states is None or self.backward_layer.states is None:
            return None
        return [*self.forward_layer.states, *self.backward_layer.states]

    def reset_state(self) -> None:
        """Sets the states of both layers to zero."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """`reset_state` under its earlier name."""
        self.reset_state()


def _copy(layer: Layer, **changes: Any) -> Layer:
    """A layer with the same arguments but for some, and weights of its own."""
    return type(layer).from_config({**layer.get_config(), **changes})


def _checked(wrapper: Layer, argument: str, layer: Any) -> Any:
    if not isinstance(layer, Layer):
        raise ArgumentError(f"{wrapper.name}: {argument} is not a layer", got=repr(layer), expected="a layer")
    return layer


def _check_recurrent(wrapper: Layer, argument: str, layer: Any) -> None:
    needed = ("go_backwards", "return_sequences", "return_state", "stateful")
    if not all(hasattr(_checked(wrapper, argument, layer), name) for name in needed):
        raise ArgumentError(
            f"{wrapper.name}: {argument} is not a recurrent layer",
            got=repr(layer),
            expected="LSTM, GRU, SimpleRNN, RNN, or a layer with " + ", ".join(needed),
        )


def _joined(x: Any) -> Any:
    """The steps of all samples as one batch."""
    return ops.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
