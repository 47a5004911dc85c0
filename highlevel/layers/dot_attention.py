"""Attention without projections: scores of queries and keys, and values averaged by them."""

from __future__ import annotations

from typing import Any

from highlevel import ops, random
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Variable
from highlevel.layers.arguments import check_known, fraction, is_shape, one_of
from highlevel.layers.base import Layer


class Attention(Layer):
    """Dot-product attention (M.-T. Luong et al., "Effective approaches to attention-based neural machine
    translation", 2015).

    Formula: weights = softmax(scores), output = weights · value, with

        scores = scale · query · keyᵀ                                ("dot")
        scores = w · Σ tanh(scale · (query + key))                   ("concat", over the features).

    Input shape: a list [query, value] or [query, value, key]: (batch, target, features), (batch, source, …), (batch,
    source, features); `mask` is a list [query mask (batch, target), value mask (batch, source)]: positions that do
    not count are given no weight, and an output of zero.

    Output shape: (batch, target, features of the value); with `return_attention_scores` also the weights (batch,
    target, source).

    use_scale:  a scale that is learned; 1 otherwise
    score_mode: "dot" or "concat"
    dropout:    fraction of the weights that is dropped in training; seed: of the dropout

    >>> import numpy as np, highlevel as hl
    >>> query, value = np.ones((3, 5, 8), "float32"), np.ones((3, 7, 8), "float32")
    >>> hl.layers.Attention()([query, value], use_causal_mask=True).shape
    (3, 5, 8)
    """

    supports_masking = True

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_scale = use_scale
        self.score_mode = one_of(self, score_mode, "score_mode", ("dot", "concat"))
        self.dropout = fraction(self, dropout, "dropout")
        self.seed = seed
        self.scale: Variable | None = None
        self.concat_score_weight: Variable | None = None
        if self.dropout:
            self.seed_generator = random.SeedGenerator(seed)

    def check_input(self, input_shape: Any) -> None:
        if is_shape(input_shape) or len(input_shape) not in (2, 3):
            raise ArgumentError(
                f"{self.name}: this layer takes a list of two or three inputs",
                got=f"shape {input_shape}" if is_shape(input_shape) else f"{len(input_shape)} inputs",
                expected="[query, value] or [query, value, key]",
            )
        query, value, key = input_shape[0], input_shape[1], input_shape[-1]
        if any(len(shape) < 3 for shape in (query, value, key)) or not len(query) == len(value) == len(key):
            raise ShapeError(
                f"{self.name}: an input has the wrong rank",
                got=f"query {query}, value {value}, key {key}",
                expected="(batch, time, features) for all of them",
            )
        check_known(self, query, -1, "the number of features")
        if query[-1] != key[-1] and None not in (query[-1], key[-1]):
            raise ShapeError(
                f"{self.name}: query and key are compared feature by feature",
                got=f"query {query}, key {key}",
                expected="equal last axes",
            )
        if value[-2] != key[-2] and None not in (value[-2], key[-2]):
            raise ShapeError(
                f"{self.name}: a key belongs to each value", got=f"value {value}, key {key}", expected="as many of both"
            )

    def build(self, input_shape: Any) -> None:
        if self.use_scale:
            self.scale = self.add_weight((), "ones", name="scale")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight((), "ones", name="concat_score_weight")

    def _calculate_scores(self, query: Any, key: Any) -> Any:
        """(batch, target, features) and (batch, source, features) to (batch, target, source)."""
        if self.concat_score_weight is None:
            scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
            return scores if self.scale is None else scores * self.scale
        pairs = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)
        return self.concat_score_weight * ops.sum(
            ops.tanh(pairs if self.scale is None else self.scale * pairs), axis=-1
        )

    def call(
        self,
        inputs: Any,
        mask: Any = None,
        training: bool = False,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        query, value, key = inputs[0], inputs[1], inputs[-1]
        query_mask, value_mask = self._masks(mask)
        scores = self._calculate_scores(query, key)
        allowed = None if value_mask is None else ops.expand_dims(value_mask, -2)
        if use_causal_mask:
            target, source = (ops.arange(size, dtype="int32") for size in scores.shape[-2:])
            causal = ops.greater_equal(ops.expand_dims(target, -1), ops.expand_dims(source, -2))
            allowed = causal if allowed is None else ops.logical_and(allowed, causal)
        if allowed is not None:
            low = 65504.0 if scores.dtype == "float16" else 1e9
            scores = ops.where(allowed, scores, scores - low)
        scores = ops.softmax(scores, axis=-1)
        if training and self.dropout:
            scores = random.dropout(scores, self.dropout, seed=self.seed_generator)
        output = ops.matmul(scores, value)
        if query_mask is not None:
            output = ops.where(ops.expand_dims(query_mask, -1), output, 0.0)
            output.mask = query_mask
        return (output, scores) if return_attention_scores else output

    def _masks(self, mask: Any) -> tuple[Any, Any]:
        if mask is None:
            return None, None
        if not isinstance(mask, (list, tuple)) or len(mask) not in (2, 3):
            raise ArgumentError(
                f"{self.name}: masks come as a list", got=type(mask).__name__, expected="[query_mask, value_mask]"
            )
        query_mask, value_mask = (None if item is None else ops.cast(item, "bool") for item in mask[:2])
        return query_mask, value_mask

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None if previous_mask is None else previous_mask[0]


class AdditiveAttention(Attention):
    """Additive attention (D. Bahdanau et al., "Neural machine translation by jointly learning to align and
    translate", 2015).

    Formula: weights = softmax(Σ scale · tanh(query + key)) over the features, output = weights · value.

    Input shape, masks and output shape: as for `Attention`.

    use_scale: a scale for each feature that is learned; 1 otherwise
    dropout:   fraction of the weights that is dropped in training; seed: of the dropout

    >>> import numpy as np, highlevel as hl
    >>> query, value = np.ones((3, 5, 8), "float32"), np.ones((3, 7, 8), "float32")
    >>> hl.layers.AdditiveAttention()([query, value]).shape
    (3, 5, 8)
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, seed=seed, **kwargs)

    def build(self, input_shape: Any) -> None:
        if self.use_scale:
            self.scale = self.add_weight((input_shape[0][-1],), "glorot_uniform", name="scale")

    def _calculate_scores(self, query: Any, key: Any) -> Any:
        terms = ops.tanh(ops.expand_dims(query, -2) + ops.expand_dims(key, -3))
        return ops.sum(terms if self.scale is None else self.scale * terms, axis=-1)
