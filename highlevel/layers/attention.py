"""Multi-head attention: every position of one sequence looks at the positions of another, in several ways at once."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

from highlevel import constraints, initializers, ops, random, regularizers
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.arguments import check_known, fraction, is_shape, whole
from highlevel.layers.base import Layer
from highlevel.layers.einsum_dense import EinsumDense
from highlevel.serialization import Configurable


class _Attention(Layer):
    """What the layers below share: four projections, masks, and the weighted sum of values between them."""

    supports_masking = True

    def __init__(
        self,
        dropout: float,
        use_bias: bool,
        sliding_window: int | None,
        flash_attention: bool | None,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        activity_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        use_gate: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dropout = fraction(self, dropout, "dropout")
        self.use_bias = use_bias
        self.sliding_window = None if sliding_window is None else whole(self, sliding_window, "sliding_window")
        self.flash_attention = flash_attention
        self.use_gate = use_gate
        self.seed = seed
        self._projection = {
            "kernel_initializer": initializers.get(kernel_initializer),
            "bias_initializer": initializers.get(bias_initializer),
            "kernel_regularizer": regularizers.get(kernel_regularizer),
            "bias_regularizer": regularizers.get(bias_regularizer),
            "activity_regularizer": regularizers.get(activity_regularizer),
            "kernel_constraint": constraints.get(kernel_constraint),
            "bias_constraint": constraints.get(bias_constraint),
        }
        if self.dropout:
            self.seed_generator = random.SeedGenerator(seed)

    _query_dense: EinsumDense
    _key_dense: EinsumDense
    _value_dense: EinsumDense
    _output_dense: EinsumDense
    _gate_dense: EinsumDense | None

    def _run(
        self, query: Any, value: Any, key: Any, query_mask: Any, value_mask: Any, key_mask: Any, attention_mask: Any,
        return_attention_scores: bool, training: bool, use_causal_mask: bool, axes: Sequence[int],
    ) -> Any:  # fmt: skip
        key = value if key is None else key
        self._check_shapes(query.shape, value.shape, key.shape)
        masks = {"query": query_mask, "value": value_mask, "key": key_mask, "attention": attention_mask}
        gate = None if self._gate_dense is None else self._gate_dense(query)
        q, k, v = self._query_dense(query), self._key_dense(key), self._value_dense(value)
        output, scores = self._attend(q, k, v, masks, use_causal_mask, training, return_attention_scores, axes)
        output = self._output_dense(output if gate is None else output * gate)
        output.mask = query_mask
        return (output, scores) if return_attention_scores else output

    # Projections ------------------------------------------------------------------------------------------------------
    def _project(
        self, name: str, shape: Any, bound: int, outputs: Sequence[int], activation: Any = None
    ) -> EinsumDense:
        """A dense layer from the last `bound` axes of the shape to axes of the sizes `outputs`."""
        letters = string.ascii_lowercase
        free = letters[: len(shape) - bound]
        inner = letters[len(free) : len(shape)]
        outer = letters[len(shape) : len(shape) + len(outputs)]
        options = {key: _clone(value) for key, value in self._projection.items()}
        layer = EinsumDense(
            f"{free}{inner},{inner}{outer}->{free}{outer}",
            output_shape=(*(None,) * (len(free) - 1), *outputs),
            activation=activation,
            bias_axes=outer if self.use_bias else None,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )
        layer.build(tuple(shape))
        return layer

    def _check_shapes(self, query: Any, value: Any, key: Any) -> None:
        for name, shape in (("query", query), ("value", value), ("key", key)):
            if not is_shape(shape) or len(shape) < 3 or len(shape) != len(query):
                raise ShapeError(
                    f"{self.name}: {name} has the wrong rank",
                    got=f"query {query}, value {value}, key {key}",
                    expected="(batch, time, features) for all of them, or as many axes between the first and the last",
                    hint="add the batch axis: x[None]" if is_shape(shape) and len(shape) == 2 else None,
                )
            check_known(self, shape, -1, f"the number of features of {name}")
        if any(None not in (a, b) and a != b for a, b in zip(value[:-1], key[:-1], strict=True)):
            raise ShapeError(
                f"{self.name}: a key belongs to each value",
                got=f"value {value}, key {key}",
                expected="equal sizes on all axes but the last",
            )
        if None not in (query[0], value[0]) and query[0] != value[0]:
            raise ShapeError(
                f"{self.name}: the batch sizes differ", got=f"query {query}, value {value}", expected="one batch size"
            )

    # Masks ------------------------------------------------------------------------------------------------------------
    def _mask(self, masks: dict[str, Any], scores: tuple[int, ...], axes: Sequence[int], causal: bool) -> Any:
        """Where query positions may look at value positions: all masks must agree. None if there are none.

        scores: the shape (batch …, heads, target …, source …) that the mask is for, with one target and one source
                size per axis
        """
        found = []
        for name, mask in masks.items():
            if mask is not None:
                mask = ops.cast(mask, "bool")
                mask = mask if name == "attention" else self._of_positions(mask, axes, name == "query")
                found.append(self._fitted(mask, scores, axes))
        if causal or self.sliding_window is not None:
            if len(axes) != 1:
                raise ArgumentError(
                    f"{self.name}: before and after need one axis of time",
                    got=f"attention over the axes {tuple(axes)}",
                    expected="one of them, with use_causal_mask or sliding_window",
                )
            target, source = (ops.arange(size, dtype="int32") for size in scores[-2:])
            ahead = ops.expand_dims(source, 0) - ops.expand_dims(target, 1)
            if causal:
                found.append(self._fitted(ops.less_equal(ahead, 0), scores, axes))
            if self.sliding_window is not None:
                found.append(self._fitted(ops.less(ops.abs(ahead), self.sliding_window), scores, axes))
        combined = None
        for mask in found:
            combined = mask if combined is None else ops.logical_and(combined, mask)
        return combined

    @staticmethod
    def _of_positions(mask: Any, axes: Sequence[int], is_target: bool) -> Any:
        """A mask of positions (batch, …) as one of scores without heads: (batch …, target …, source …)."""
        kept = [axis for axis in range(mask.ndim) if axis not in axes]
        mask = ops.transpose(mask, (*kept, *(axis for axis in axes if axis < mask.ndim)))
        ones = (1,) * len(axes)
        lead, positions = mask.shape[: len(kept)], mask.shape[len(kept) :]
        return ops.reshape(mask, (*lead, *positions, *ones) if is_target else (*lead, *ones, *positions))

    def _fitted(self, mask: Any, scores: tuple[int, ...], axes: Sequence[int]) -> Any:
        """The mask in the rank of the scores; it may lack the heads, and axes of the batch."""
        missing, tail = len(scores) - mask.ndim, mask.ndim - 2 * len(axes)
        shape = (*mask.shape[:tail], *(1,) * missing, *mask.shape[tail:])
        if missing < 0 or tail < 0 or any(size not in (1, full) for size, full in zip(shape, scores, strict=True)):
            raise ShapeError(
                f"{self.name}: the mask does not fit the attention",
                got=f"mask {mask.shape}",
                expected=f"sizes that are 1 or those of the scores {scores}; the axis of the heads may be left out",
            )
        return ops.reshape(mask, shape)

    # Attention --------------------------------------------------------------------------------------------------------
    def _attend(
        self, query: Any, key: Any, value: Any, masks: dict[str, Any], causal: bool, training: bool, needs_scores: bool,
        axes: Sequence[int],
    ) -> tuple[Any, Any]:  # fmt: skip
        """Values averaged with weights softmax(query · key / √size), and the weights.

        query, key, value: (batch, …, heads, size of a head); key and value may have fewer heads, each for a group of
                           the query's
        axes:              those that are attended over
        """
        scale = 1.0 / math.sqrt(query.shape[-1])
        kept = [size for axis, size in enumerate(query.shape[:-2]) if axis not in axes]
        shape = (*kept, query.shape[-2], *(x.shape[axis] for x in (query, key) for axis in axes))
        if query.ndim == 4 and not self.dropout and not needs_scores:
            mask = self._mask(masks, shape, axes, causal=False)
            return ops.dot_product_attention(query, key, value, mask=mask, scale=scale, is_causal=causal), None
        repeats = query.shape[-2] // key.shape[-2]
        if repeats > 1:
            key, value = (ops.repeat(x, repeats, axis=-2) for x in (key, value))
        multiply, combine = _equations(query.ndim, axes)
        scores = ops.einsum(multiply, query * scale, key)
        mask = self._mask(masks, shape, axes, causal)
        last = tuple(range(scores.ndim - len(axes), scores.ndim))
        if mask is None:
            scores = ops.softmax(scores, axis=last)
        else:
            low = -3e4 if scores.dtype == "float16" else -1e9
            scores = ops.softmax(ops.where(mask, scores, low), axis=last)
            scores = ops.where(mask, scores, 0.0)  # a row that sees nothing is zero
        weights = scores
        if training and self.dropout:
            weights = random.dropout(scores, self.dropout, seed=self.seed_generator)
        return ops.einsum(combine, weights, value), scores


class MultiHeadAttention(_Attention):
    """Multi-head attention (A. Vaswani et al., "Attention is all you need", 2017).

    Formula, for each head with projections q = query·W_q + b_q and k, v alike:

        weights = softmax(q · kᵀ / √key_dim),    output = concat over heads(weights · v) · W_o + b_o.

    Input shape: `query` (batch, target, features); `value` and `key` (batch, source, features), `key` being `value` if
    not given; there may be more than one axis between the first and the last. `query_mask` (batch, target),
    `value_mask` and `key_mask` (batch, source) are true where a position counts, `attention_mask`
    (batch, target, source) or (batch, heads, target, source) where the one may look at the other; `use_causal_mask`
    keeps every position from looking ahead. All masks must agree. Masks that inputs carry (from
    `Embedding(mask_zero=True)`, say) are taken by themselves.

    Output shape: (batch, target, features of the query), or `output_shape` for the last axis; with
    `return_attention_scores` also the weights (batch, heads, target, source).

    num_heads:      number of heads
    key_dim:        size of a head for query and key; value_dim: for values, as `key_dim` if None
    dropout:        fraction of the weights that is dropped in training
    use_bias:       whether the projections add biases
    output_shape:   size (or sizes) of the last axis of the output
    attention_axes: axes attended over; all but the first and the last if None
    sliding_window: positions look no further than this, exclusive, in both directions
    flash_attention: accepted, and without effect: which kernels run is up to the backend, and the result is the same
    kernel_*, bias_*, activity_regularizer: of the projections, whose kernels are (features, heads, size) and (heads,
                        size, features)
    use_gate:       multiplies what the heads give by sigmoid(query · W_g + b_g) (Z. Qiu et al., "Gated attention",
                    2025)
    seed:           of the dropout

    >>> import numpy as np, highlevel as hl
    >>> layer = hl.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    >>> query, value = np.ones((3, 5, 16), "float32"), np.ones((3, 7, 16), "float32")
    >>> output, weights = layer(query, value, return_attention_scores=True)
    >>> output.shape, weights.shape
    ((3, 5, 16), (3, 2, 5, 7))
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: Any = None,
        attention_axes: Any = None,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dropout, use_bias, sliding_window, flash_attention, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint,
            use_gate, seed, **kwargs,
        )  # fmt: skip
        self.num_heads = whole(self, num_heads, "num_heads")
        self.key_dim = whole(self, key_dim, "key_dim")
        self.value_dim = self.key_dim if value_dim is None else whole(self, value_dim, "value_dim")
        sizes = (output_shape,) if isinstance(output_shape, int) else output_shape
        self.output_sizes = None if not sizes else tuple(whole(self, size, "output_shape") for size in sizes)
        if attention_axes is not None and not isinstance(attention_axes, (int, list, tuple)):
            raise ArgumentError(
                f"{self.name}: attention_axes is a number or a list of numbers",
                got=f"attention_axes={attention_axes!r}",
            )
        self.attention_axes = (attention_axes,) if isinstance(attention_axes, int) else attention_axes

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        self._check_shapes(query_shape, value_shape, key_shape)
        rank = len(query_shape)
        given = range(1, rank - 1) if self.attention_axes is None else self.attention_axes
        self._axes = tuple(axis % rank for axis in given)
        if any(not 1 <= axis < rank - 1 for axis in self._axes) or len(set(self._axes)) < len(self._axes):
            raise ArgumentError(
                f"{self.name}: attention_axes names axes that cannot be attended over",
                got=f"attention_axes={self.attention_axes} of a query of shape {query_shape}",
                expected=f"distinct axes in 1…{rank - 2}",
            )
        heads = self.num_heads
        self._query_dense = self._project("query", query_shape, 1, (heads, self.key_dim))
        self._key_dense = self._project("key", key_shape, 1, (heads, self.key_dim))
        self._gate_dense = None
        if self.use_gate:
            self._gate_dense = self._project("gate", query_shape, 1, (heads, self.value_dim), "sigmoid")
        self._value_dense = self._project("value", value_shape, 1, (heads, self.value_dim))
        inner = (*query_shape[:-1], heads, self.value_dim)
        self._output_dense = self._project("attention_output", inner, 2, self.output_sizes or (query_shape[-1],))

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        return self._run(
            query, value, key, query_mask, value_mask, key_mask, attention_mask, return_attention_scores, training,
            use_causal_mask, self._axes,
        )  # fmt: skip


class GroupedQueryAttention(_Attention):
    """Attention in which several heads of the query share one head of key and value (J. Ainslie et al., "GQA", 2023).

    Formula: that of `MultiHeadAttention`, where head i of the query meets head i // (query heads / key-value heads)
    of key and value.

    Input shape, masks and output shape: as for `MultiHeadAttention`, with one axis of time.

    head_dim:            size of a head
    num_query_heads:     number of heads of the query
    num_key_value_heads: number of heads of key and value; divides the former
    The other arguments are those of `MultiHeadAttention`.

    >>> import numpy as np, highlevel as hl
    >>> layer = hl.layers.GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2)
    >>> layer(np.ones((3, 5, 16), "float32"), np.ones((3, 7, 16), "float32")).shape
    (3, 5, 16)
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        sliding_window: int | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dropout, use_bias, sliding_window, flash_attention, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint,
            use_gate, seed, **kwargs,
        )  # fmt: skip
        self.head_dim = whole(self, head_dim, "head_dim")
        self.num_query_heads = whole(self, num_query_heads, "num_query_heads")
        self.num_key_value_heads = whole(self, num_key_value_heads, "num_key_value_heads")
        if self.num_query_heads % self.num_key_value_heads:
            raise ArgumentError(
                f"{self.name}: the heads do not form equal groups",
                got=f"num_query_heads={num_query_heads}, num_key_value_heads={num_key_value_heads}",
                expected="a multiple of num_key_value_heads",
            )

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        self._check_shapes(query_shape, value_shape, key_shape)
        if len(query_shape) != 3:
            raise ShapeError(f"{self.name}: wrong rank", got=f"query {query_shape}", expected="(batch, time, features)")
        heads, groups, size = self.num_query_heads, self.num_key_value_heads, self.head_dim
        self._query_dense = self._project("query", query_shape, 1, (heads, size))
        self._key_dense = self._project("key", key_shape, 1, (groups, size))
        self._gate_dense = self._project("gate", query_shape, 1, (heads, size), "sigmoid") if self.use_gate else None
        self._value_dense = self._project("value", value_shape, 1, (groups, size))
        inner = (*query_shape[:-1], heads, size)
        self._output_dense = self._project("attention_output", inner, 2, (query_shape[-1],))

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        return self._run(
            query, value, key, query_mask, value_mask, key_mask, attention_mask, return_attention_scores, training,
            use_causal_mask, (1,),
        )  # fmt: skip


GroupQueryAttention = GroupedQueryAttention  # its name in `hl.layers`; files have the other


def _clone(value: Any) -> Any:
    """An object of its own: an initializer draws the same numbers each time, and each projection needs others."""
    return type(value).from_config(value.get_config()) if isinstance(value, Configurable) else value


def _equations(rank: int, axes: Sequence[int]) -> tuple[str, str]:
    """Einstein summations of query with key, and of weights with values.

    (batch …, target …, heads, size) · (batch …, source …, heads, size) → (batch …, heads, target …, source …), and
    back.
    """
    query = string.ascii_lowercase[:rank]
    key = "".join(letter.upper() if axis in axes else letter for axis, letter in enumerate(query))
    kept = "".join(letter for axis, letter in enumerate(query[:-1]) if axis not in axes)
    scores = kept + "".join(query[axis] for axis in axes) + "".join(key[axis] for axis in axes)
    return f"{query},{key}->{scores}", f"{scores},{key}->{query}"
