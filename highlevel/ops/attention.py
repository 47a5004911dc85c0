"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

from highlevel.errors import ShapeError
from highlevel.ir import control, operators, primitives
from highlevel.ir.dtypes import bool_, float32, int32, promote, to_float
from highlevel.ir.operators import cast, operand

from .activation import softmax
from .arguments import check_rank
from .registry import op

MASKED = {
    "float16": -0.7 * 65500.0
}  # the logit of a place that is not to be seen; finite, so that a row of them is uniform
MASKED_OTHERWISE = -0.7 * 3.38953e38


@op
def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Any:
    """softmax(query · keyᵀ · scale + bias) · value, for each head.

    query:      (batch, T, heads, size); key, value: (batch, S, heads, size) – heads may be a divisor of the query's
    bias, mask: broadcast to (batch, heads, T, S); where the mask is false, nothing is seen
    is_causal:  place t sees no place after t
    flash_attention: whether a backend is to take a kernel that never stores the logits; advice, the result is the same
    attn_logits_soft_cap: logits are bounded to ± this, by tanh
    """
    items = [operand(v) for v in (query, key, value)]
    for x, what in zip(items, ("query", "key", "value"), strict=True):
        check_rank("dot_product_attention", x, (4,), f"{what} (batch, length, heads, size)")
    dtype = to_float(operators.common_dtype(items, items))
    q, k, v = (cast(x, dtype) for x in items)
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[2] % k.shape[2]:
        raise ShapeError(
            "dot_product_attention: the shapes do not fit", got=f"query {q.spec}, key {k.spec}, value {v.spec}",
            expected="(batch, T, heads, size), (batch, S, heads, size), (batch, S, heads, …)",
        )  # fmt: skip
    logits_shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    extras = []
    if bias is not None:
        extras.append(_at_rank_four(operand(bias, dtype), logits_shape, "bias"))
    if mask is not None:
        extras.append(_at_rank_four(cast(mask, bool_), logits_shape, "mask"))
    return control.call(
        "attention", _attention, q, k, v, *extras, has_bias=bias is not None, has_mask=mask is not None,
        scale=1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale), is_causal=bool(is_causal),
        soft_cap=attn_logits_soft_cap,
    )  # fmt: skip


def _at_rank_four(x: Any, target: tuple[int, ...], what: str) -> Any:
    if x.ndim > 4 or operators.broadcast_shapes(x.shape, target, operator="dot_product_attention") != target:
        raise ShapeError(
            f"dot_product_attention: the {what} does not fit", got=x.spec, expected=f"broadcasts to {target}"
        )
    return operators.reshape(x, (1,) * (4 - x.ndim) + x.shape)


def _attention(
    q: Any,
    k: Any,
    v: Any,
    *extras: Any,
    has_bias: bool,
    has_mask: bool,
    scale: float,
    is_causal: bool,
    soft_cap: float | None,
) -> Any:
    original = q.dtype
    q, k, v = (operators.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    heads, groups = q.shape[1], k.shape[1]
    if groups != heads:
        k, v = (_repeat_heads(x, heads // groups) for x in (k, v))
    logits = primitives.matmul(q, operators.transpose(k, (0, 1, 3, 2)))
    logits = cast(logits, promote(original, float32)) * scale
    if soft_cap is not None:
        logits = primitives.tanh(logits / soft_cap) * soft_cap
    rest = list(extras)
    if has_bias:
        logits = operators.add(logits, cast(rest.pop(0), logits.dtype))
    seen = operators.broadcast_to(rest.pop(0), logits.shape) if has_mask else None
    if is_causal:
        row = primitives.iota(shape=logits.shape, axis=2, dtype=int32)
        past = primitives.less_equal(primitives.iota(shape=logits.shape, axis=3, dtype=int32), row)
        seen = past if seen is None else primitives.bit_and(seen, past)
    if seen is not None:
        hidden = MASKED.get(original.name, MASKED_OTHERWISE)
        logits = primitives.select(seen, logits, operators.full(logits.shape, hidden, logits.dtype))
    weights = cast(softmax(logits), original)
    return operators.transpose(primitives.matmul(weights, v), (0, 2, 1, 3))


def _repeat_heads(x: Any, times: int) -> Any:
    batch, groups, length, size = x.shape
    wide = operators.broadcast_to(
        operators.reshape(x, batch, groups, 1, length, size), (batch, groups, times, length, size)
    )
    return operators.reshape(wide, batch, groups * times, length, size)
