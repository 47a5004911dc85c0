"""A layer whose kernel has spectral norm one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from highlevel import initializers, ops
from highlevel.errors import ArgumentError
from highlevel.ir import Variable

from .arguments import whole
from .base import Layer
from .wrappers import Wrapper


class SpectralNormalization(Wrapper):
    """A layer whose kernel is divided by its largest singular value before each training call.

    W ← W / σ,  σ = v W uᵀ, where u and v follow the leading singular vectors by power iteration: v ← u Wᵀ / ‖u Wᵀ‖,
    u ← v W / ‖v W‖. The kernel is the matrix W with its last axis as columns.

    Arguments:
        layer: a layer with a `kernel` (Dense, Conv2D, …) or with `embeddings`
        power_iterations: iterations before each training call

    Call argument: training; otherwise the kernel is used as it is

    Weights: those of the layer, and vector_u (1, filters), which is not trainable

    Input shape and output shape: those of the layer

    Reference: T. Miyato et al., "Spectral normalization for generative adversarial networks", 2018

    >>> import numpy as np
    >>> import highlevel as hl
    >>> dense = hl.layers.SpectralNormalization(hl.layers.Dense(3), power_iterations=50)
    >>> _ = dense(np.ones((2, 4), "float32"), training=True)
    >>> float(np.linalg.norm(dense.layer.kernel.numpy(), 2).round(4))
    1.0
    """

    def __init__(self, layer: Layer, power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.power_iterations = whole(self, power_iterations, "power_iterations")

    def check_input(self, input_shape: Any) -> None:
        self.layer.check_input(input_shape)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if not any(hasattr(self.layer, name) for name in ("kernel", "embeddings")):
            raise ArgumentError(
                f"{self.name}: the layer has nothing to normalize",
                got=repr(self.layer),
                expected="a layer with a kernel or embeddings",
            )
        self.vector_u = self.add_weight(
            (1, self.kernel.shape[-1]),
            initializers.TruncatedNormal(stddev=0.02),
            self.kernel.dtype,
            trainable=False,
            name="vector_u",
        )

    @property
    def kernel(self) -> Any:
        """The variable of the layer that is normalized."""
        return self.layer.kernel if hasattr(self.layer, "kernel") else self.layer.embeddings

    def _walk_variables(self, trainable: bool = True) -> Iterator[tuple[Variable, bool]]:
        """The kernel first, then u, then what else the layer has: the order of Keras's files."""
        inner = list(self.layer._walk_variables(trainable and self.trainable))
        first = self.kernel if self.built else None
        yield from (row for row in inner if row[0] is first)
        if self.built:
            yield self.vector_u, False
        yield from (row for row in inner if row[0] is not first)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and self.trainable:
            u, kernel = self.normalized_weights()
            self.vector_u.assign(u)
            self.kernel.assign(kernel)
        return self.layer(inputs, training=training)

    def normalized_weights(self) -> tuple[Any, Any]:
        """The next u, and the kernel divided by its largest singular value; both as they are if the kernel is zero."""
        kernel, u = self.kernel.read(), self.vector_u.read()
        weights = ops.reshape(ops.stop_gradient(kernel), (-1, kernel.shape[-1]))
        first = u
        for _ in range(self.power_iterations):
            v = _unit(ops.matmul(u, ops.transpose(weights)))
            u = _unit(ops.matmul(v, weights))
        matrix = ops.reshape(kernel, weights.shape)
        sigma = ops.sum(ops.matmul(v, matrix) * u)
        is_zero = ops.all(ops.equal(weights, 0))
        return ops.where(is_zero, first, u), kernel / ops.where(is_zero, ops.ones_like(sigma), sigma)


def _unit(vector: Any) -> Any:
    """The vector in length one."""
    return vector * ops.rsqrt(ops.maximum(ops.sum(ops.square(vector)), 1e-12))
