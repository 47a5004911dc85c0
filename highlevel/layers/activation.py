"""Activation functions as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highlevel import activations, constraints, initializers, ops, random, regularizers
from highlevel.errors import ArgumentError, ShapeError

from .arguments import check_axes, check_known
from .base import Layer, check_axis


class Activation(Layer):
    """A function of every element, or of every row.

    Arguments:
        activation: function or its name: "relu", "softmax", …

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Activation("relu")(np.float32([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    supports_masking = True

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)


def _not_negative(layer: Layer, value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ArgumentError(f"{layer.name}: {what} is negative or no number", got=repr(value), expected="a number ≥ 0")
    return value


class ReLU(Layer):
    """Negative values become zero.

    y = max(x, 0); in general y = min(x, max_value) for x ≥ threshold, negative_slope · (x − threshold) below

    Arguments:
        max_value: the largest value; none if None
        negative_slope: what values below the threshold are multiplied by
        threshold: where the function begins

    Input shape: any

    Output shape: the same

    Reference: X. Glorot et al., "Deep sparse rectifier neural networks", 2011

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ReLU(max_value=6)(np.float32([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]
    """

    supports_masking = True

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else _not_negative(self, max_value, "max_value")
        self.negative_slope = _not_negative(self, negative_slope, "negative_slope")
        self.threshold = _not_negative(self, threshold, "threshold")

    def call(self, inputs: Any) -> Any:
        return activations.relu(
            inputs, negative_slope=self.negative_slope, max_value=self.max_value, threshold=self.threshold
        )


class LeakyReLU(Layer):
    """Negative values become small.

    y = x for x ≥ 0, negative_slope · x below

    Arguments:
        negative_slope: what negative values are multiplied by

    Input shape: any

    Output shape: the same

    Reference: A. Maas et al., "Rectifier nonlinearities improve neural network acoustic models", 2013

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.LeakyReLU(0.5)(np.float32([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    supports_masking = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = _not_negative(self, negative_slope, "negative_slope")

    def call(self, inputs: Any) -> Any:
        return ops.leaky_relu(inputs, self.negative_slope)


class ELU(Layer):
    """Negative values go towards −alpha smoothly.

    y = x for x ≥ 0, alpha · (exp(x) − 1) below

    Arguments:
        alpha: minus the limit

    Input shape: any

    Output shape: the same

    Reference: D.-A. Clevert et al., "Fast and accurate deep network learning by exponential linear units", 2015

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.ELU()(np.float32([-100.0, 2.0])).tolist()
    [-1.0, 2.0]
    """

    supports_masking = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs: Any) -> Any:
        return ops.elu(inputs, self.alpha)


class PReLU(Layer):
    """Negative values are multiplied by a factor that is learned.

    y = x for x ≥ 0, alpha · x below

    Arguments:
        alpha_initializer: what the factors start as
        alpha_regularizer: term of the loss that they cost
        alpha_constraint: applied to them after each update
        shared_axes: axes whose positions share a factor: [1, 2] for one per channel of images

    Weights: alpha, of the shape of a sample, 1 on shared axes

    Input shape: any with known sizes, but for the batch and shared axes

    Output shape: the same

    Reference: K. He et al., "Delving deep into rectifiers", 2015

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.PReLU(alpha_initializer="ones", shared_axes=[1, 2])
    >>> layer(-np.ones((2, 4, 4, 3), "float32")).shape, layer.alpha.shape
    ((2, 4, 4, 3), (1, 1, 3))
    """

    supports_masking = True

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes = _shared_axes(self, shared_axes)

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, self.shared_axes, input_shape)
        for axis in range(1, len(input_shape)):
            if axis not in self.shared_axes:
                check_known(self, input_shape, axis, "the size of an axis that is not shared")
                if self.built:
                    check_axis(self, input_shape, axis, self.alpha.shape[axis - 1])

    def build(self, input_shape: Any) -> None:
        sizes = [1 if axis in self.shared_axes else size for axis, size in enumerate(input_shape)]
        self.alpha = self.add_weight(
            sizes[1:],
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            name="alpha",
        )

    def call(self, inputs: Any) -> Any:
        return ops.relu(inputs) - self.alpha * ops.relu(-inputs)


class RReLU(Layer):
    """Negative values are multiplied by factors that are random while training, and their mean otherwise.

    y = x for x ≥ 0, a · x below, with a drawn evenly from lower…upper; a = (lower + upper) / 2 otherwise

    Arguments:
        lower, upper: bounds of the factors
        shared_axes: axes whose positions share a factor: [1, 2] for one per channel of images
        seed: of the layer's random generator

    Call argument: training

    Input shape: any

    Output shape: the same

    Reference: B. Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RReLU(0.2, 0.4)(np.float32([-10.0, 2.0])).numpy().round(4).tolist()
    [-3.0, 2.0]
    """

    supports_masking = True

    def __init__(
        self,
        lower: float = 1 / 8,
        upper: float = 1 / 3,
        shared_axes: int | Sequence[int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lower = _not_negative(self, lower, "lower")
        self.upper = _not_negative(self, upper, "upper")
        if lower > upper:
            raise ArgumentError(f"{self.name}: nothing to draw from", got=f"{lower}…{upper}", expected="lower ≤ upper")
        self.shared_axes = _shared_axes(self, shared_axes)
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, self.shared_axes, input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.lower == self.upper:
            return ops.leaky_relu(inputs, (self.lower + self.upper) / 2)
        shape = tuple(1 if axis in self.shared_axes else size for axis, size in enumerate(inputs.shape))
        factors = random.uniform(shape, self.lower, self.upper, dtype=inputs.dtype, seed=self.seed_generator)
        return ops.where(ops.less(inputs, 0), factors * inputs, inputs)


def _shared_axes(layer: Layer, shared_axes: Any) -> list[int]:
    """The axes of a sample whose positions share a factor."""
    axes = shared_axes if isinstance(shared_axes, (list, tuple)) else [] if shared_axes is None else [shared_axes]
    if any(not isinstance(axis, int) or axis < 1 for axis in axes):
        raise ArgumentError(
            f"{layer.name}: these axes cannot be shared", got=f"shared_axes={shared_axes!r}", expected="axes from 1 on"
        )
    return list(axes)


class Softmax(Layer):
    """Positive numbers that sum to one, from any numbers.

    y_i = exp(x_i) / Σ_j exp(x_j)

    Arguments:
        axis: the axis, or axes, to sum over

    Call argument: mask, of a shape that broadcasts to the input's; where it is false the result is zero. A mask that
    comes with the input, as of a sequence, marks steps.

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Softmax()(np.float32([3.0, 3.0, 9.0]), mask=np.array([True, True, False])).tolist()
    [0.5, 0.5, 0.0]
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis if isinstance(axis, int) else tuple(axis)

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, (self.axis,) if isinstance(self.axis, int) else self.axis, input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return self._softmax(inputs)
        kept = mask if mask.dtype.is_bool else ops.greater(mask, 0.5)
        if mask is inputs.mask:  # it came with a sequence, and says which steps count
            kept = ops.reshape(kept, (*kept.shape, *(1,) * (inputs.ndim - kept.ndim)))
        if kept.ndim > inputs.ndim or any(
            m not in (1, n) for m, n in zip(reversed(kept.shape), reversed(inputs.shape), strict=False)
        ):
            raise ShapeError(
                f"{self.name}: the mask does not fit the input",
                got=f"mask {tuple(kept.shape)}, inputs {tuple(inputs.shape)}",
                expected="on every axis, counted from the last, 1 or the input's size",
            )
        lowest = -3e4 if inputs.dtype == "float16" else -1e9
        return ops.where(kept, self._softmax(ops.where(kept, inputs, lowest)), 0.0)

    def _softmax(self, x: Any) -> Any:
        if isinstance(self.axis, int):
            return ops.softmax(x, axis=self.axis)
        exponentials = ops.exp(x - ops.max(x, axis=self.axis, keepdims=True))
        return exponentials / ops.sum(exponentials, axis=self.axis, keepdims=True)
