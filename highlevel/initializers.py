"""First values of weights: `initializer(shape, dtype=None)` gives an array.

Random initializers draw the same values for the same seed, on every backend, and each time they are called. Without
a seed they take one from `highlevel.random`, so `hl.seed(n)` decides them all. Besides initializers, layers take an
array, a number or a function of `(shape, dtype)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from highlevel import ops, random, serialization
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import as_dtype
from highlevel.ir.operand import Operand
from highlevel.serialization import Configurable

TRUNCATED_STD = 0.87962566103423978  # standard deviation of a normal distribution cut at ±2


class Initializer(Configurable, kind="initializer"):
    """Base of initializers: define `__call__(shape, dtype=None)`."""

    def __init__(self) -> None:
        """Without arguments of its own."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(shape, dtype)")


class Zeros(Initializer):
    """All 0"""

    aliases = ("zero",)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return ops.zeros(shape, dtype=dtype or "float32")


class Ones(Initializer):
    """All 1"""

    aliases = ("one",)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return ops.ones(shape, dtype=dtype or "float32")


class Constant(Initializer):
    """A number everywhere, or a given array of the weight's shape"""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        value = np.asarray(self.value)
        if value.ndim > 0 and value.shape != tuple(shape):
            raise ShapeError(
                "Constant: the array does not have the shape of the weight", got=value.shape, expected=tuple(shape)
            )
        return ops.convert_to_tensor(np.broadcast_to(value, tuple(shape)).astype(as_dtype(dtype or "float32").numpy))


class Identity(Initializer):
    """gain · the identity matrix; only for matrices"""

    aliases = ("eye", "IdentityInitializer")

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if len(shape) != 2:
            raise ShapeError("Identity: the weight is not a matrix", got=tuple(shape), expected="rank 2")
        return self.gain * ops.eye(shape[0], shape[1], dtype=dtype or "float32")


# Random -------------------------------------------------------------------------------------------------------------
class RandomInitializer(Initializer):
    """Base of initializers that draw: `seed` is an integer, a `SeedGenerator`, or None for one of the library's."""

    def __init__(self, seed: Any = None) -> None:
        if seed is not None and not isinstance(seed, (int, np.integer, random.SeedGenerator)):
            raise ArgumentError(
                f"{type(self).__name__}: unusable seed", got=repr(seed), expected="an integer or SeedGenerator"
            )
        self.seed = random.draw_seed() if seed is None else seed


class RandomNormal(RandomInitializer):
    """From the normal distribution"""

    aliases = ("normal",)

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return random.normal(tuple(shape), self.mean, self.stddev, dtype=dtype or "float32", seed=self.seed)


class TruncatedNormal(RandomInitializer):
    """From the normal distribution, without what is further than two standard deviations from the mean"""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return random.truncated_normal(tuple(shape), self.mean, self.stddev, dtype=dtype or "float32", seed=self.seed)


class RandomUniform(RandomInitializer):
    """Evenly from [minval, maxval)"""

    aliases = ("uniform",)

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        return random.uniform(tuple(shape), self.minval, self.maxval, dtype=dtype or "float32", seed=self.seed)


class VarianceScaling(RandomInitializer):
    """With the variance scale / n, n being the number of inputs, of outputs, or the mean of both

    mode:                    "fan_in", "fan_out" or "fan_avg"
    distribution:            "truncated_normal", "untruncated_normal" or "uniform"
    input_axes, output_axes: axes whose sizes make the inputs and outputs; by default the last two, times the rest
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        if scale <= 0.0:
            raise ArgumentError(f"{type(self).__name__}: scale has to be positive", got=scale)
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            expected = "'fan_in', 'fan_out' or 'fan_avg'"
            raise ArgumentError(f"{type(self).__name__}: unknown mode", got=repr(mode), expected=expected)
        distribution = {"normal": "truncated_normal"}.get(distribution.lower(), distribution.lower())
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            expected = "'truncated_normal', 'untruncated_normal' or 'uniform'"
            raise ArgumentError(
                f"{type(self).__name__}: unknown distribution", got=repr(distribution), expected=expected
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        inputs, outputs = fans(shape, self.input_axes, self.output_axes)
        count = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2.0}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, count))
        shape, dtype = tuple(shape), dtype or "float32"
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return random.uniform(shape, -limit, limit, dtype=dtype, seed=self.seed)
        if self.distribution == "truncated_normal":
            return random.truncated_normal(shape, 0.0, stddev / TRUNCATED_STD, dtype=dtype, seed=self.seed)
        return random.normal(shape, 0.0, stddev, dtype=dtype, seed=self.seed)


def fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """How many inputs one output of a weight of this shape sees, and how many outputs one input reaches.

    >>> fans((784, 10)), fans((3, 3, 16, 32)), fans((10,))
    ((784, 10), (144, 288), (10, 10))
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


class _Scaled(VarianceScaling):
    """Variance scaling with everything but the seed decided."""

    rule: tuple[float, str, str]

    def __init__(
        self, seed: Any = None, input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
    ) -> None:
        scale, mode, distribution = self.rule
        super().__init__(scale, mode, distribution, seed, input_axes, output_axes)


class GlorotUniform(_Scaled):
    """Evenly with variance 2 / (inputs + outputs) (X. Glorot and Y. Bengio, 2010)"""

    aliases = ("xavier_uniform",)
    rule = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal with variance 2 / (inputs + outputs) (X. Glorot and Y. Bengio, 2010)"""

    aliases = ("xavier_normal",)
    rule = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Evenly with variance 2 / inputs, for rectifiers (K. He et al., 2015)"""

    rule = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal with variance 2 / inputs, for rectifiers (K. He et al., 2015)"""

    rule = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Evenly with variance 1 / inputs (Y. LeCun et al., 1998)"""

    rule = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal with variance 1 / inputs (Y. LeCun et al., 1998)"""

    rule = (1.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """gain · a random matrix with orthonormal columns (or rows, if there are fewer); leading axes count as rows

    A. Saxe, J. McClelland and S. Ganguli, 2014.
    """

    aliases = ("OrthogonalInitializer",)

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if len(shape) < 2:
            raise ShapeError("Orthogonal: the weight is not a matrix", got=tuple(shape), expected="rank of at least 2")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = ops.qr(random.normal(tall, dtype="float32", seed=self.seed))
        q = q * ops.sign(ops.diagonal(r))  # with this sign all orthogonal matrices are equally likely
        q = ops.transpose(q) if rows < columns else q
        return ops.cast(self.gain * ops.reshape(q, tuple(shape)), dtype or "float32")


def get(identifier: Any) -> Any:
    """An initializer for a name, a class, an object, a function, a description, an array or a number; None stays None.

    >>> get("he_normal").mode, np.asarray(get(0.5)((2,)))
    ('fan_in', array([0.5, 0.5], dtype=float32))
    """
    if isinstance(identifier, (bool, int, float, list, tuple, np.ndarray, np.generic, Operand)):
        value = identifier if isinstance(identifier, (bool, int, float)) else np.asarray(identifier)
        return Constant(value)
    return serialization.get(identifier, "initializer")
