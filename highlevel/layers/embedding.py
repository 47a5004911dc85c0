"""Vectors for indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel import constraints, initializers, ops, regularizers
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor, as_dtype

from .arguments import whole
from .base import Layer


class Embedding(Layer):
    """A vector for each index: of a word, a class, a user.

    y[…, :] = embeddings[x[…], :]

    Arguments:
        input_dim: number of indices, which run from 0 to input_dim − 1
        output_dim: length of the vectors
        embeddings_initializer: what the vectors start as
        embeddings_regularizer: term of the loss that they cost
        embeddings_constraint: applied to them after each update
        mask_zero: whether index 0 stands for padding that later layers shall ignore
        weights: initial vectors (input_dim, output_dim) instead

    Weights: embeddings (input_dim, output_dim)

    Input shape: (batch, …), integers

    Output shape: (batch, …, output_dim)

    Reference: Y. Bengio et al., "A neural probabilistic language model", 2003

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Embedding(1000, 64)(np.array([[3, 14, 15], [92, 6, 5]])).shape
    (2, 3, 64)
    """

    autocast = False  # indices that come as floats must not be rounded to a half type

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = whole(self, input_dim, "input_dim")
        self.output_dim = whole(self, output_dim, "output_dim")
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, (list, tuple)) and len(weights) == 1 else [weights])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as data, without initial vectors, which are saved as weights."""
        given = self._config
        self.__dict__["_config"] = {**given, "weights": None}
        try:
            return super().get_config()
        finally:
            self.__dict__["_config"] = given

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            name="embeddings",
        )

    def call(self, inputs: Any) -> Any:
        indices = inputs if inputs.dtype.is_integer else ops.cast(inputs, "int32")
        if isinstance(indices, Tensor):
            self._check_range(indices.numpy())
        return ops.cast(ops.take(self.embeddings, indices, axis=0), self.compute_dtype)

    def _check_range(self, indices: np.ndarray[Any, Any]) -> None:
        """Raises for indices without a vector (inside of compiled programs nothing can raise)."""
        if indices.size and (indices.min() < 0 or indices.max() >= self.input_dim):
            wrong = indices[(indices < 0) | (indices >= self.input_dim)]
            raise ArgumentError(
                f"{self.name}: an index has no vector",
                got=f"{wrong.flat[0]} (and {wrong.size - 1} more)" if wrong.size > 1 else str(wrong.flat[0]),
                expected=f"0…{self.input_dim - 1}",
                hint=f"input_dim={self.input_dim} is the number of indices: the largest one + 1",
            )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None


class ReversibleEmbedding(Embedding):
    """An embedding that also goes back: from vectors to a score for each index, as at the end of a language model.

    y[…, :] = embeddings[x[…], :], and with `reverse`: y = x · embeddingsᵀ, or x · reverse_embeddings if weights are
    not tied; with a cap c of the scores y ← c · tanh(y / c)

    Arguments:
        input_dim: number of indices
        output_dim: length of the vectors
        tie_weights: whether both directions share their weights
        embeddings_initializer, embeddings_regularizer, embeddings_constraint, mask_zero: those of `Embedding`
        reverse_dtype: data type of the way back; that in which the layer computes if None
        logit_soft_cap: bound of the scores

    Call argument: reverse

    Weights: embeddings (input_dim, output_dim), and without tie_weights reverse_embeddings (output_dim, input_dim)

    Input shape: (batch, …), integers; with `reverse` (batch, …, output_dim)

    Output shape: (batch, …, output_dim); with `reverse` (batch, …, input_dim)

    Reference: O. Press and L. Wolf, "Using the output embedding to improve language models", 2016

    >>> import numpy as np
    >>> import highlevel as hl
    >>> embedding = hl.layers.ReversibleEmbedding(100, 8)
    >>> vectors = embedding(np.array([[3, 14, 15]]))
    >>> vectors.shape, embedding(vectors, reverse=True).shape
    ((1, 3, 8), (1, 3, 100))
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        reverse_dtype: Any = None,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim, output_dim, embeddings_initializer, embeddings_regularizer, embeddings_constraint, mask_zero,
            **kwargs,
        )  # fmt: skip
        self.tie_weights = tie_weights
        self.reverse_dtype = None if reverse_dtype is None else as_dtype(reverse_dtype)
        self.logit_soft_cap = logit_soft_cap

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if not self.tie_weights:
            self.reverse_embeddings = self.add_weight(
                (self.output_dim, self.input_dim), initializer=self.embeddings_initializer, name="reverse_embeddings"
            )

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        if not reverse:
            outputs = super().call(inputs)
            outputs.mask = ops.not_equal(inputs, 0) if self.mask_zero else None
            return outputs
        if inputs.shape[-1] != self.output_dim:
            raise ShapeError(
                f"{self.name}: the way back takes vectors of the embedding's length",
                got=f"shape {tuple(inputs.shape)}",
                expected=f"(batch, …, {self.output_dim})",
            )
        kernel = ops.transpose(self.embeddings) if self.tie_weights else self.reverse_embeddings
        dtype = self.reverse_dtype or self.compute_dtype
        logits = ops.matmul(ops.cast(inputs, dtype), ops.cast(kernel, dtype))
        if self.logit_soft_cap is None:
            return logits
        return ops.tanh(logits / self.logit_soft_cap) * self.logit_soft_cap

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None  # `call` has set it: the way back has none
