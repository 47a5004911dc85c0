"""Identities of arithmetic, comparison and choice.

Exact ones hold bit by bit for every IEEE number – NaN stays NaN, infinities and signs of zeros stay – and for integers
that wrap around. That leaves out x · 0 → 0, x − x → 0, x + 0.0 → x (of −0.0) and (x + y) − y → x, but for types where
they hold. What a rule needs to know of types and signs stands in its `where`.
"""

from __future__ import annotations

import math
from typing import Any

from .facts import (
    divides_exactly,
    divides_gently,
    has_no_sign,
    is_bool,
    is_float,
    is_never_negative_zero,
    is_whole,
    scales_merge,
)
from .pattern import Rule
from .terms import (
    abs,
    bit_and,
    bit_or,
    bit_xor,
    cast,
    ceil,
    equal,
    floor,
    invert,
    isfinite,
    less,
    less_equal,
    maximum,
    minimum,
    neg,
    not_equal,
    pow,
    reduce_max,
    reduce_min,
    reduce_prod,
    reduce_sum,
    round,
    rsqrt,
    select,
    sign,
    sqrt,
    stop_gradient,
)


def _square(x: Any) -> Any:
    return x * x


def _one(x: Any) -> Any:
    return 1.0 if x.dtype.is_float else 1


SUMS = [
    Rule("x + −0 → x", lambda x: x + -0.0, lambda x: x),
    Rule("x + 0 → x, if x is never −0", lambda x: x + 0.0, lambda x: x, where=lambda x: is_never_negative_zero(x)),
    Rule("x − 0 → x", lambda x: x - 0.0, lambda x: x),
    Rule("−0 − x → −x", lambda x: -0.0 - x, lambda x: neg(x)),
    Rule("x + (−y) → x − y", lambda x, y: x + -y, lambda x, y: x - y),
    Rule("x − (−y) → x + y", lambda x, y: x - -y, lambda x, y: x + y),
    Rule("−(−x) → x", lambda x: neg(neg(x)), lambda x: x),
    Rule("x − x → 0, of integers", lambda x: x - x, lambda x: 0, where=is_whole),
    Rule("(x + y) − y → x, of integers", lambda x, y: (x + y) - y, lambda x: x, where=is_whole),
    Rule("(x − y) + y → x, of integers", lambda x, y: (x - y) + y, lambda x: x, where=is_whole),
    Rule("−(x − y) → y − x, of integers", lambda x, y: -(x - y), lambda x, y: y - x, where=is_whole),
]

PRODUCTS = [
    Rule("x · 1 → x", lambda x: x * 1, lambda x: x),
    Rule("x · −1 → −x", lambda x: x * -1, lambda x: neg(x), where=lambda x: not is_bool(x)),
    Rule("x · 0 → 0, of integers", lambda x: x * 0, lambda x: 0, where=is_whole),
    Rule("x / 1 → x", lambda x: x / 1, lambda x: x),
    Rule("x / −1 → −x", lambda x: x / -1, lambda x: neg(x)),
    Rule("(−x) · (−y) → x · y", lambda x, y: -x * -y, lambda x, y: x * y),
    Rule("(−x) / (−y) → x / y", lambda x, y: -x / -y, lambda x, y: x / y),
    Rule("(−x) · c → x · (−c)", lambda x, C: -x * C, lambda x, C: x * -C, where=is_float),
    Rule("(−x) / c → x / (−c)", lambda x, C: -x / C, lambda x, C: x / -C),
    Rule("|x| · |x| → x · x", lambda x: abs(x) * abs(x), lambda x: x * x),
    Rule("x / 2ⁿ → x · 2⁻ⁿ", lambda x, C: x / C, lambda x, C: x * (1.0 / C), where=divides_exactly),
    Rule("x / c → x · (1 / c)", lambda x, C: x / C, lambda x, C: x * (1.0 / C), "reassociating", divides_gently),
    Rule(
        "x · c · d → x · (c · d)", lambda x, C, D: x * C * D, lambda x, C, D: x * (C * D), "reassociating", scales_merge
    ),
    Rule("1 / √x → rsqrt(x)", lambda x: 1.0 / sqrt(x), lambda x: rsqrt(x)),
]

POWERS = [
    Rule("x⁰ → 1", lambda x: pow(x, 0), _one),
    Rule("x¹ → x", lambda x: pow(x, 1), lambda x: x, "reassociating"),  # powers may be off by a rounding
    Rule("x² → x · x", lambda x: pow(x, 2), _square, "reassociating"),
    Rule("x³ → x² · x", lambda x: pow(x, 3), lambda x: _square(x) * x, "reassociating"),
    Rule("x⁴ → (x²)²", lambda x: pow(x, 4), lambda x: _square(_square(x)), "reassociating"),
    Rule("x⁻¹ → 1 / x", lambda x: pow(x, -1), lambda x: 1.0 / x, "reassociating", is_float),
    Rule("1ˣ → 1", lambda x: pow(1, x), _one, where=is_float),
]

SIGNS = [
    Rule("|−x| → |x|", lambda x: abs(-x), lambda x: abs(x), where=lambda x: x.dtype.kind != "uint"),
    Rule("||x|| → |x|", lambda x: abs(abs(x)), lambda x: abs(x)),
    Rule("|x| → x, if x has no sign", lambda x: abs(x), lambda x: x, where=lambda x: has_no_sign(x)),
    Rule("sign(sign(x)) → sign(x)", lambda x: sign(sign(x)), lambda x: sign(x)),
    Rule("isfinite(−x) → isfinite(x)", lambda x: isfinite(-x), lambda x: isfinite(x)),
    Rule("isfinite(|x|) → isfinite(x)", lambda x: isfinite(abs(x)), lambda x: isfinite(x)),
    *[
        Rule(f"{f.__name__}({g.__name__}(x)) → {g.__name__}(x)", lambda x, f=f, g=g: f(g(x)), lambda x, g=g: g(x))
        for f in (floor, ceil, round)
        for g in (floor, ceil, round)
    ],
]

EXTREMES = [
    Rule("max(x, x) → x", lambda x: maximum(x, x), lambda x: x),
    Rule("min(x, x) → x", lambda x: minimum(x, x), lambda x: x),
    Rule("max(x, −∞) → x", lambda x: maximum(x, -math.inf), lambda x: x, where=is_float),
    Rule("max(−∞, x) → x", lambda x: maximum(-math.inf, x), lambda x: x, where=is_float),
    Rule("min(x, ∞) → x", lambda x: minimum(x, math.inf), lambda x: x, where=is_float),
    Rule("min(∞, x) → x", lambda x: minimum(math.inf, x), lambda x: x, where=is_float),
    Rule("max(max(x, y), y) → max(x, y)", lambda x, y: maximum(maximum(x, y), y), lambda x, y: maximum(x, y)),
    Rule("min(min(x, y), y) → min(x, y)", lambda x, y: minimum(minimum(x, y), y), lambda x, y: minimum(x, y)),
]

COMPARISONS = [
    Rule("x < x → false", lambda x: less(x, x), lambda x: False),
    Rule("x ≤ x → true, of integers", lambda x: less_equal(x, x), lambda x: True, where=is_whole),
    Rule("x = x → true, of integers", lambda x: equal(x, x), lambda x: True, where=is_whole),
    Rule("x ≠ x → false, of integers", lambda x: not_equal(x, x), lambda x: False, where=is_whole),
    Rule("−x < −y → y < x", lambda x, y: less(-x, -y), lambda x, y: less(y, x), where=is_float),
    Rule("−x ≤ −y → y ≤ x", lambda x, y: less_equal(-x, -y), lambda x, y: less_equal(y, x), where=is_float),
    Rule("−x = −y → x = y", lambda x, y: equal(-x, -y), lambda x, y: equal(x, y)),
    Rule("−x ≠ −y → x ≠ y", lambda x, y: not_equal(-x, -y), lambda x, y: not_equal(x, y)),
    Rule("b = true → b", lambda x: equal(x, True), lambda x: x, where=is_bool),
    Rule("b = false → not b", lambda x: equal(x, False), lambda x: invert(x), where=is_bool),
    Rule("b ≠ false → b", lambda x: not_equal(x, False), lambda x: x, where=is_bool),
    Rule("b ≠ true → not b", lambda x: not_equal(x, True), lambda x: invert(x), where=is_bool),
]

LOGIC = [
    Rule("not not x → x", lambda x: invert(invert(x)), lambda x: x),
    Rule("not x = y → x ≠ y", lambda x, y: invert(equal(x, y)), lambda x, y: not_equal(x, y)),
    Rule("not x ≠ y → x = y", lambda x, y: invert(not_equal(x, y)), lambda x, y: equal(x, y)),
    Rule(
        "not x < y → y ≤ x, of integers", lambda x, y: invert(less(x, y)), lambda x, y: less_equal(y, x), where=is_whole
    ),
    Rule(
        "not x ≤ y → y < x, of integers", lambda x, y: invert(less_equal(x, y)), lambda x, y: less(y, x), where=is_whole
    ),
    Rule("x and x → x", lambda x: bit_and(x, x), lambda x: x),
    Rule("x or x → x", lambda x: bit_or(x, x), lambda x: x),
    Rule("x xor x → 0", lambda x: bit_xor(x, x), lambda x: 0),
    Rule("x and 0 → 0", lambda x: bit_and(x, 0), lambda x: 0),
    Rule("x or 0 → x", lambda x: bit_or(x, 0), lambda x: x),
    Rule("x xor 0 → x", lambda x: bit_xor(x, 0), lambda x: x),
    Rule("b and true → b", lambda x: bit_and(x, True), lambda x: x, where=is_bool),
    Rule("b or true → true", lambda x: bit_or(x, True), lambda x: True, where=is_bool),
]

CHOICES = [
    Rule("c ? x : x → x", lambda c, x: select(c, x, x), lambda x: x),
    Rule("true ? x : y → x", lambda x, y: select(True, x, y), lambda x: x),
    Rule("false ? x : y → y", lambda x, y: select(False, x, y), lambda y: y),
    Rule("not c ? x : y → c ? y : x", lambda c, x, y: select(invert(c), x, y), lambda c, x, y: select(c, y, x)),
    Rule("c ? 1 : 0 → c as a number", lambda c: select(c, 1, 0), lambda c, root: cast(c, dtype=root.dtype)),
    Rule(
        "c ? (c ? x : y) : z → c ? x : z",
        lambda c, x, y, z: select(c, select(c, x, y), z),
        lambda c, x, z: select(c, x, z),
    ),
    Rule(
        "c ? x : (c ? y : z) → c ? x : z",
        lambda c, x, y, z: select(c, x, select(c, y, z)),
        lambda c, x, z: select(c, x, z),
    ),
]

# Signs wait for the sum. Over no axis there is nothing to reduce (but a sum may begin with 0.0, and make −0.0 that).
REDUCTIONS = [
    Rule(
        "Σ −x → −Σ x",
        lambda x, A: reduce_sum(-x, axes=A),
        lambda x, A: neg(reduce_sum(x, axes=A)),
        "reassociating",
        where=is_float,
    ),
    Rule("Σ over no axis → x", lambda x: reduce_sum(x, axes=()), lambda x: x, "reassociating"),
    Rule("Π over no axis → x", lambda x: reduce_prod(x, axes=()), lambda x: x),
    Rule("max over no axis → x", lambda x: reduce_max(x, axes=()), lambda x: x),
    Rule("min over no axis → x", lambda x: reduce_min(x, axes=()), lambda x: x),
]

# Gradients have been taken when a program is compiled; what only they look at is an identity by then.
MARKS = [Rule("stop_gradient(x) → x", lambda x: stop_gradient(x), lambda x: x)]

ALGEBRA = [*SUMS, *PRODUCTS, *POWERS, *SIGNS, *EXTREMES, *COMPARISONS, *LOGIC, *CHOICES, *REDUCTIONS, *MARKS]
