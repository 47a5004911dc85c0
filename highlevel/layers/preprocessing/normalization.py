"""Values brought to mean 0 and variance 1, by what is known of the data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from highlevel import config, ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir.operand import Operand
from highlevel.ir.tensor import to_numpy

from ..arguments import check_axes, check_known
from ..base import Layer


def batches(data: Any, steps: int | None = None) -> Iterator[np.ndarray[Any, Any]]:
    """The batches of what `adapt` was given: an array is one; of pairs (x, y) the first parts are taken."""
    numbers = isinstance(data, (list, tuple)) and bool(data) and isinstance(data[0], (int, float, list))
    if isinstance(data, (np.ndarray, Operand)) or hasattr(data, "__array__") or numbers:
        yield to_numpy(data)
        return
    if not isinstance(data, Iterable):
        raise ArgumentError("adapt: this is not data", got=type(data).__name__, expected="an array, or batches of them")
    for count, batch in enumerate(data):
        if steps is not None and count >= steps:
            return
        yield to_numpy(batch[0] if isinstance(batch, tuple) else batch)


class Normalization(Layer):
    """Brings values to mean 0 and variance 1.

    y = (x − mean) / √variance, with mean and variance of the data that `adapt` has seen, or as given

    Arguments:
        axis: the axis, or axes, along which each place has a mean and a variance of its own; None: one for all
        mean, variance: instead of `adapt`, numbers or arrays
        invert: whether to go the other way, x · √variance + mean

    Input shape: any

    Output shape: the same

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.Normalization()
    >>> layer.adapt(np.float32([[1, 10], [3, 30]]))
    >>> layer(np.float32([[1, 30]])).tolist()
    [[-1.0, 1.0]]
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        if (mean is None) != (variance is None) or np.shape(mean) != np.shape(variance):
            raise ArgumentError(
                f"{self.name}: mean and variance belong together",
                got=f"mean of shape {np.shape(mean)}, variance of shape {np.shape(variance)}"
                if mean is not None and variance is not None
                else f"mean={mean!r:.40}, variance={variance!r:.40}",
                expected="both, of one shape, or none",
            )
        if mean is not None and np.ndim(mean) > len(self.axis):
            raise ArgumentError(
                f"{self.name}: mean has more axes than are kept", got=np.shape(mean), expected=f"axis={self.axis}"
            )
        self.input_mean = mean
        self.input_variance = variance
        self.invert = invert

    def build(self, input_shape: Any) -> None:
        check_axes(self, self.axis, input_shape)
        self._kept = tuple(sorted(axis % len(input_shape) for axis in self.axis))
        what = "the size of an axis with means of its own"
        sizes = tuple(check_known(self, input_shape, axis, what) for axis in self._kept)
        self._broadcast = tuple(input_shape[i] if i in self._kept else 1 for i in range(len(input_shape)))
        if self.input_mean is None:
            self.adapt_mean = self.add_weight(sizes, "zeros", trainable=False, autocast=False, name="mean")
            self.adapt_variance = self.add_weight(sizes, "ones", trainable=False, autocast=False, name="variance")
            self.count = self.add_weight((), "zeros", dtype="int32", trainable=False, name="count")

    def check_input(self, input_shape: Any) -> None:
        if self.built and any(input_shape[axis] != self._broadcast[axis] for axis in self._kept):
            raise ShapeError(
                f"{self.name}: the input does not fit the means",
                got=f"shape {tuple(input_shape)}",
                expected=", ".join(f"{self._broadcast[axis]} on axis {axis}" for axis in self._kept),
            )

    @property
    def mean(self) -> Any:
        """The mean, in a shape that broadcasts with the inputs."""
        return self._shaped(self.adapt_mean if self.input_mean is None else self.input_mean)

    @property
    def variance(self) -> Any:
        """The variance, in a shape that broadcasts with the inputs."""
        return self._shaped(self.adapt_variance if self.input_variance is None else self.input_variance)

    def _shaped(self, value: Any) -> Any:
        value = ops.convert_to_tensor(value)
        sizes = [1] * len(self._broadcast)
        for size, axis in zip(reversed(value.shape), reversed(self._kept), strict=False):
            sizes[axis] = size
        return ops.broadcast_to(ops.cast(ops.reshape(value, sizes), self.compute_dtype), self._broadcast)

    def adapt(self, data: Any) -> None:
        """Finds mean and variance of an array, or of all batches of an iterable; what was known is forgotten."""
        if self.input_mean is not None:
            raise ArgumentError(f"{self.name}: mean and variance are given", hint="Normalization() learns them")
        total, mean, square = 0, np.float64(0), np.float64(0)
        for batch in batches(data):
            self.check_input(batch.shape)
            if not self.built:
                self.build(batch.shape)
            x = np.asarray(batch, "float64")
            others = tuple(i for i in range(x.ndim) if i not in self._kept)
            count = math.prod(x.shape[i] for i in others)
            if not count:
                continue
            own = x.mean(axis=others)
            shift = own - mean
            square = square + x.var(axis=others) * count + np.square(shift) * (total * count / (total + count))
            mean, total = mean + shift * (count / (total + count)), total + count
        if not total:
            raise ArgumentError(f"{self.name}: there is no data", expected="an array, or an iterable of batches")
        self.adapt_mean.assign(np.asarray(mean, self.variable_dtype))
        self.adapt_variance.assign(np.asarray(square / total, self.variable_dtype))
        self.count.assign(np.int32(min(total, 2**31 - 1)))

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        deviation = ops.maximum(ops.sqrt(self.variance), config.epsilon())
        return self.mean + x * deviation if self.invert else (x - self.mean) / deviation
