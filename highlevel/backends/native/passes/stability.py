"""Formulas that overflow or cancel, written so that they do not.

In exact arithmetic both sides are equal. In floating point the right side is at least as near to that value for every
input, and finite wherever it is: log(1 + eˣ) is x for large x, where eˣ is infinite. Rules of this kind are checked
against the left side computed in a wider type.
"""

from __future__ import annotations

from typing import Any

from .facts import is_nonpositive
from .pattern import Rule
from .terms import (
    abs,
    broadcast,
    div,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    neg,
    pow,
    reduce_sum,
    reshape,
    sqrt,
    tanh,
)


def softplus(x: Any) -> Any:
    """log(1 + eˣ)."""
    return maximum(x, 0.0) + log1p(exp(-abs(x)))


def _overflows(x: Any) -> bool:
    """Whether eˣ can: not where x was made so that it cannot, which ends the rules below."""
    return not is_nonpositive(x)


LOGARITHMS = [
    Rule("log eˣ → x", lambda x: log(exp(x)), lambda x: x, "stabilizing"),
    Rule("log(1 + x) → log1p(x)", lambda x: log(1.0 + x), lambda x: log1p(x), "stabilizing"),
    Rule("log(1 − x) → log1p(−x)", lambda x: log(1.0 - x), lambda x: log1p(-x), "stabilizing"),
    Rule("log1p(eˣ − 1) → x", lambda x: log1p(expm1(x)), lambda x: x, "stabilizing"),
    Rule("log1p(eˣ) → softplus(x)", lambda x: log1p(exp(x)), softplus, "stabilizing", where=_overflows),
    Rule(
        "log sigmoid(x) → −softplus(−x)",
        lambda x: log(1.0 / (1.0 + exp(x))),
        lambda x: neg(softplus(x)),
        "stabilizing",
    ),
    Rule(
        "log softmax(x) → x − log Σ eˣ",
        lambda x, A, S, T: log(exp(x) / broadcast(reshape(reduce_sum(exp(x), axes=A), shape=S), shape=T)),
        lambda x, A, S, T: x - broadcast(reshape(log(reduce_sum(exp(x), axes=A)), shape=S), shape=T),
        "stabilizing",
    ),
]

EXPONENTIALS = [
    Rule("eˣ − 1 → expm1(x)", lambda x: exp(x) - 1.0, lambda x: expm1(x), "stabilizing"),
    Rule("eˣ + −1 → expm1(x)", lambda x: exp(x) + -1.0, lambda x: expm1(x), "stabilizing"),
    Rule(
        "eˣ / (1 + eˣ) → 1 / (1 + e⁻ˣ)",
        lambda x: exp(x) / (1.0 + exp(x)),
        lambda x: 1.0 / (1.0 + exp(-x)),
        "stabilizing",
    ),
    Rule(
        "(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ) → tanh(x)",
        lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)),
        lambda x: tanh(x),
        "stabilizing",
    ),
]

ROOTS = [
    Rule("√(x · x) → |x|", lambda x: sqrt(x * x), lambda x: abs(x), "stabilizing"),
    Rule("√(x²) → |x|", lambda x: sqrt(pow(x, 2)), lambda x: abs(x), "stabilizing"),
    Rule("x / (1 / y) → x · y", lambda x, y: div(x, 1.0 / y), lambda x, y: x * y, "stabilizing"),
]

STABILITY = [*LOGARITHMS, *EXPONENTIALS, *ROOTS]
