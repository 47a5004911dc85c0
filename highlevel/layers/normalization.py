"""Normalization: zero mean and unit variance, over the batch, the features, or groups of them.

Statistics are kept and computed in float32 where the layer computes in a half type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from highlevel import config, constraints, initializers, ops, regularizers
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Variable, as_dtype
from highlevel.ir.dtypes import promote
from highlevel.ops.reduction import squared_distance

from .arguments import check_axes, check_known, whole
from .base import Layer, check_axis


def widened(inputs: Any) -> Any:
    """Half types as float32, anything else as it is."""
    if inputs.dtype.is_float and inputs.dtype.size_bytes > 2:
        return inputs
    return ops.cast(inputs, "float32")


def _axis(layer: Layer, axis: Any) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ArgumentError(f"{layer.name}: not an axis", got=f"axis={axis!r}", expected="an integer")
    return axis


def _axes(layer: Layer, axis: Any) -> int | list[int]:
    """One axis, or a list of them."""
    return [_axis(layer, item) for item in axis] if isinstance(axis, (list, tuple)) else _axis(layer, axis)


class _AlongAxes(Layer):
    """A layer that depends on the sizes of one axis or several."""

    axis: int | Sequence[int]
    _sizes: dict[int, int] | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        return (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, self.axes, input_shape)
        for axis in self.axes:
            check_known(self, input_shape, axis, "the size of the normalized axis")
        for axis, size in (self._sizes or {}).items():
            check_axis(self, input_shape, axis, size)

    def _note_sizes(self, input_shape: Sequence[Any]) -> tuple[int, ...]:
        """Remembers the sizes of the axes, and returns them in the order of the axes."""
        self._sizes = {axis: input_shape[axis] for axis in sorted(self.axes, key=lambda axis: axis % len(input_shape))}
        return tuple(self._sizes.values())


class _Normalization(_AlongAxes):
    """What normalizing layers share: scale γ and offset β, of the sizes of the normalized axes."""

    supports_masking = True
    gamma: Variable | None = None
    beta: Variable | None = None

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def _add_scale_and_offset(self, input_shape: Sequence[Any]) -> tuple[int, ...]:
        sizes = self._note_sizes(input_shape)
        if self.scale:
            self.gamma = self.add_weight(
                sizes,
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                autocast=False,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                sizes,
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
                name="beta",
            )
        return sizes


class BatchNormalization(_Normalization):
    """Zero mean and unit variance per channel: over the batch while training, by moving averages afterwards.

    y = γ · (x − mean) / √(variance + ε) + β

    While training, mean and variance are those of the batch, and the moving averages follow them:
    moving ← momentum · moving + (1 − momentum) · batch. Otherwise the moving averages take their place. A frozen layer
    (`trainable=False`) is never in training: it uses its moving averages, and they do not move.

    Arguments:
        axis: the channels; all other axes are averaged over
        momentum: of the moving averages
        epsilon: ε, keeps the division finite
        center, scale: whether there are β and γ
        beta_initializer, gamma_initializer: what β and γ start as
        moving_mean_initializer, moving_variance_initializer: what the moving averages start as
        beta_regularizer, gamma_regularizer: terms of the loss that β and γ cost
        beta_constraint, gamma_constraint: applied to β and γ after each update
        renorm: batch renormalization: the batch's statistics are corrected towards moving ones while training, too
        renorm_clipping: bounds of the correction: {"rmin": …, "rmax": …, "dmax": …}
        renorm_momentum: of the moving statistics that it corrects towards
        synchronized: the batch is that of all devices together, not of each for itself; on one device they are the same

    Call arguments: training; mask (the input's shape without the channels), true where a position counts.

    Weights: gamma, beta, moving_mean, moving_variance (channels,) each; the moving averages are not trainable

    Input shape: any with channels on `axis`

    Output shape: the same

    References: S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal
    covariate shift", 2015; S. Ioffe, "Batch renormalization", 2017

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.BatchNormalization(momentum=0.5)
    >>> layer(np.float32([[1.0], [3.0]]), training=True).numpy().round(2).tolist()
    [[-1.0], [1.0]]
    >>> layer.moving_mean.numpy().tolist()
    [1.0]
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.synchronized = synchronized
        self.axis = _axis(self, axis)
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.renorm = renorm
        self.renorm_clipping = _renorm_bounds(self, renorm_clipping)
        self.renorm_momentum = float(renorm_momentum)

    def build(self, input_shape: Any) -> None:
        sizes = self._add_scale_and_offset(input_shape)

        def average(name: str, initializer: Any) -> Variable:
            dtype = promote(
                as_dtype(self.variable_dtype), as_dtype("float32")
            )  # a half type would swallow the small steps
            return self.add_weight(
                sizes, initializer, dtype, trainable=False, autocast=False, name=name, tags=("moving_average",)
            )

        self.moving_mean = average("moving_mean", self.moving_mean_initializer)
        self.moving_variance = average("moving_variance", self.moving_variance_initializer)
        if self.renorm:
            deviation = ops.sqrt(self.moving_variance)
            self.moving_stddev = average("moving_stddev", "ones")
            self.renorm_mean = average("renorm_mean", "zeros")
            self.renorm_stddev = average("renorm_stddev", "ones")
            self.moving_stddev.assign(deviation)
            self.renorm_mean.assign(self.moving_mean)
            self.renorm_stddev.assign(deviation)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = widened(inputs)
        gamma = None if self.gamma is None else ops.cast(self.gamma, x.dtype)
        beta = None if self.beta is None else ops.cast(self.beta, x.dtype)
        if training and self.trainable:
            mean, variance = self._moments(x, mask)
            if self.renorm:
                gamma, beta = self._renormalize(mean, variance, gamma, beta)
            else:
                _follow(self.moving_mean, mean, self.momentum)
                _follow(self.moving_variance, variance, self.momentum)
        else:
            mean, variance = ops.cast(self.moving_mean, x.dtype), ops.cast(self.moving_variance, x.dtype)
        outputs = ops.batch_normalization(
            x, mean, variance, axis=self.axes[0], offset=beta, scale=gamma, epsilon=self.epsilon
        )
        return ops.cast(outputs, self.compute_dtype)

    def _moments(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """Mean and variance per channel, of the positions that count."""
        channels = self.axis % x.ndim
        others = tuple(axis for axis in range(x.ndim) if axis != channels)
        if mask is None:
            return ops.moments(x, axes=others)
        if mask.ndim != x.ndim - 1:
            raise ShapeError(
                f"{self.name}: the mask does not fit the input",
                got=f"mask {tuple(mask.shape)}, inputs {tuple(x.shape)}",
                expected="the shape of the input without the channels",
            )
        counted = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), channels), x.shape)
        count = ops.sum(ops.cast(counted, x.dtype), axis=others, keepdims=True) + config.epsilon()
        mean = ops.sum(ops.where(counted, x, 0.0), axis=others, keepdims=True) / count
        variance = squared_distance(x, mean, others, counted, count)
        return ops.reshape(mean, (x.shape[channels],)), ops.reshape(variance, (x.shape[channels],))

    def _renormalize(self, mean: Any, variance: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        """Scale and offset that correct the batch's statistics towards the moving ones, which then follow the batch."""
        deviation = ops.sqrt(variance + self.epsilon)
        target = ops.maximum(ops.cast(self.renorm_stddev, mean.dtype), self.epsilon**0.5)
        r = deviation / target
        d = (mean - ops.cast(self.renorm_mean, mean.dtype)) / target
        bounds = self.renorm_clipping
        if "rmin" in bounds:
            r = ops.maximum(r, bounds["rmin"])
        if "rmax" in bounds:
            r = ops.minimum(r, bounds["rmax"])
        if "dmax" in bounds:
            d = ops.clip(d, -bounds["dmax"], bounds["dmax"])
        r, d = ops.stop_gradient(r), ops.stop_gradient(d)
        _follow(self.renorm_mean, mean, self.renorm_momentum)
        _follow(self.renorm_stddev, deviation, self.renorm_momentum)
        _follow(self.moving_mean, mean, self.momentum)
        moving = _follow(self.moving_stddev, deviation, self.momentum)
        self.moving_variance.assign(ops.relu(moving * moving - self.epsilon))
        scale = r if gamma is None else r * gamma
        offset = d if gamma is None else d * gamma
        return scale, offset if beta is None else offset + beta


def _follow(average: Variable, value: Any, momentum: float) -> Any:
    """Moves an average towards a value; returns the new one, in the value's type."""
    new = ops.cast(average, value.dtype) * momentum + value * (1.0 - momentum)
    average.assign(new)
    return new


def _renorm_bounds(layer: Layer, clipping: Mapping[str, float] | None) -> dict[str, float]:
    bounds = {name: float(value) for name, value in (clipping or {}).items() if value is not None}
    unknown = set(bounds) - {"rmin", "rmax", "dmax"}
    if unknown or bounds.get("rmin", 0.0) > bounds.get("rmax", float("inf")) or bounds.get("dmax", 0.0) < 0:
        raise ArgumentError(
            f"{layer.name}: these bounds are not possible",
            got=f"renorm_clipping={clipping!r}",
            expected='{"rmin": …, "rmax": …, "dmax": …} with rmin ≤ rmax and dmax ≥ 0',
        )
    return bounds


class LayerNormalization(_Normalization):
    """Zero mean and unit variance within each sample.

    y = γ · (x − mean) / √(variance + ε) + β, with mean and variance over `axis`

    Arguments:
        axis: the axis, or axes, to normalize over
        epsilon: ε, keeps the division finite
        center, scale: whether there are β and γ
        beta_initializer, gamma_initializer: what β and γ start as
        beta_regularizer, gamma_regularizer: terms of the loss that β and γ cost
        beta_constraint, gamma_constraint: applied to β and γ after each update

    Weights: gamma, beta, of the sizes of the normalized axes

    Input shape: any with known sizes on `axis`

    Output shape: the same

    Reference: J. L. Ba et al., "Layer normalization", 2016

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.LayerNormalization()(np.float32([[1.0, 3.0]])).numpy().round(2).tolist()
    [[-1.0, 1.0]]
    """

    autocast = False

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.axis = _axes(self, axis)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A layer like the one described; Keras's files also hold `rms_scaling`, which it has given up."""
        unused = ("rms_scaling",) if not config.get("rms_scaling") else ()
        return super().from_config({name: value for name, value in config.items() if name not in unused})

    def build(self, input_shape: Any) -> None:
        self._add_scale_and_offset(input_shape)

    def call(self, inputs: Any) -> Any:
        outputs = ops.layer_normalization(
            widened(inputs), gamma=self.gamma, beta=self.beta, axis=list(self.axes), epsilon=self.epsilon
        )
        return ops.cast(outputs, self.compute_dtype)


class GroupNormalization(_Normalization):
    """Zero mean and unit variance within groups of channels of each sample.

    y = γ · (x − mean) / √(variance + ε) + β, with mean and variance over a group's channels and all positions

    Arguments:
        groups: number of groups, which divides the channels; −1 for one per channel (instance normalization)
        axis: the channels
        and the others of `LayerNormalization`

    Weights: gamma, beta (channels,)

    Input shape: (batch, …) with channels on `axis`

    Output shape: the same

    Reference: Y. Wu and K. He, "Group normalization", 2018

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.GroupNormalization(groups=2)(np.ones((2, 5, 5, 4), "float32")).shape
    (2, 5, 5, 4)
    """

    autocast = False

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            epsilon, center, scale, beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer,
            beta_constraint, gamma_constraint, **kwargs,
        )  # fmt: skip
        self.groups = groups if groups == -1 else whole(self, groups, "groups")
        self.axis = _axis(self, axis)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[self.axis]
        if self.groups != -1 and channels % self.groups:
            raise ShapeError(
                f"{self.name}: the channels cannot be split into groups",
                got=f"{channels} channels (shape {tuple(input_shape)}), groups={self.groups}",
                expected="a number of groups that divides the channels",
            )
        self._add_scale_and_offset(input_shape)

    def call(self, inputs: Any) -> Any:
        x = widened(inputs)
        channels = self.axis % x.ndim
        size = x.shape[channels]
        groups = size if self.groups == -1 else self.groups
        split = ops.reshape(x, (*x.shape[:channels], groups, size // groups, *x.shape[channels + 1 :]))
        within = tuple(axis for axis in range(1, split.ndim) if axis != channels)
        outputs = ops.reshape(ops.layer_normalization(split, axis=within, epsilon=self.epsilon), x.shape)
        along = tuple(size if axis == channels else 1 for axis in range(x.ndim))
        if self.gamma is not None:
            outputs = outputs * ops.reshape(ops.cast(self.gamma, x.dtype), along)
        if self.beta is not None:
            outputs = outputs + ops.reshape(ops.cast(self.beta, x.dtype), along)
        return ops.cast(outputs, self.compute_dtype)


class RMSNormalization(_AlongAxes):
    """Unit mean square within each sample.

    y = x / √(mean(x²) + ε) · scale, with the mean over `axis`

    Arguments:
        axis: the axis, or axes, to normalize over
        epsilon: ε, keeps the division finite

    Weights: scale, of the sizes of the normalized axes

    Input shape: any with known sizes on `axis`

    Output shape: the same

    Reference: B. Zhang and R. Sennrich, "Root mean square layer normalization", 2019

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.RMSNormalization()(np.float32([[1.0, 7.0]])).numpy()
    array([[0.2, 1.4]], dtype=float32)
    """

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = _axes(self, axis)
        self.epsilon = float(epsilon)

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(self._note_sizes(input_shape), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        own = {axis % inputs.ndim for axis in self.axes}
        along = tuple(size if axis in own else 1 for axis, size in enumerate(inputs.shape))
        scale = ops.reshape(self.scale, along)
        return ops.rms_normalization(inputs, scale=scale, axis=list(self.axes), epsilon=self.epsilon)


class UnitNormalization(_AlongAxes):
    """Every sample as a vector of length one.

    y = x / √Σx², with the sum over `axis`

    Arguments:
        axis: the axis, or axes, to normalize over

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.UnitNormalization()(np.float32([[3.0, 4.0]])).numpy()
    array([[0.6, 0.8]], dtype=float32)
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = _axes(self, axis)

    def check_input(self, input_shape: Any) -> None:
        check_axes(self, self.axes, input_shape)

    def call(self, inputs: Any) -> Any:
        squares = ops.sum(ops.square(inputs), axis=self.axes, keepdims=True)
        return inputs * ops.rsqrt(ops.maximum(squares, 1e-24))
