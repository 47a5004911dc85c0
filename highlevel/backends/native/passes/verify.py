"""Rules of the user's own, and the proof that every rule has to pass.

    register_rule(Rule("√x · √x → |x|, wrong", lambda x: sqrt(x) * sqrt(x), lambda x: abs(x)))

raises with the numbers for which it does not hold (√−1 is not a number).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, HighlevelError
from highlevel.ir.graph import Graph

from .check import TOLERANCE, adversarial, check_shapes, differ, draw, evaluate, far_from_zero, widened
from .pattern import Rule
from .pipeline import USER_RULES
from .sampling import instances

INSTANCES = 24  # programs that a rule is tried on
DRAWS = 4  # sets of values for each
DIGITS_LOST = 16.0  # how many times the pattern's own error a rule may make, beside a few roundings of the result
_MODERATE = 300.0  # of which exponentials are finite in float64: what is not a number then, is not defined
_SUMS = {"reduction": 1, "contraction": 2, "convolution": 2}  # families that add up, and how many factors a term has


def register_rule(rule: Rule) -> Rule:
    """Adds a rule to those that programs are simplified with, if it passes `verify_rule`."""
    verify_rule(rule)
    USER_RULES.append(rule)
    return rule


def verify_rule(rule: Rule, *, seed: int = 0, count: int = INSTANCES) -> int:
    """Tries a rule on random programs, with random and adversarial values; returns on how many.

    Raises an `ArgumentError` with the first numbers that tell both sides apart, or if there is nothing to try it on.
    """
    rng = np.random.default_rng(seed)
    tried = 0
    for before, after in instances(rule, rng, count):
        check_shapes(after)
        # In which order a sum is taken is free, and decides whether sums of the largest numbers overflow on the way.
        sums = rule.kind != "exact" and bool(_families(before) & _SUMS.keys())
        for turn in range(DRAWS):
            specs = [symbol.spec for symbol in before.inputs]
            values = [adversarial(spec, rng, overflow=not sums) if turn else draw(spec, rng) for spec in specs]
            try:
                wrong = _wrong(rule, before, after, values)
            except (HighlevelError, ValueError):  # indices that lie outside, negative powers of integers
                values = [
                    draw(spec, rng) if spec.dtype.is_integer else v for spec, v in zip(specs, values, strict=True)
                ]
                wrong = _wrong(rule, before, after, values)
            if wrong is not None:
                raise ArgumentError(
                    f"rule {rule.name!r} does not hold ({rule.kind})",
                    got=wrong,
                    expected=f"what the pattern gives for {_shown(before, values)}",
                )
        _check_digits(rule, before, after, rng)
        tried += 1
    if not tried:
        raise ArgumentError(f"rule {rule.name!r} could not be tried", expected="a pattern that some program matches")
    return tried


def _check_digits(rule: Rule, before: Graph, after: Graph, rng: np.random.Generator) -> None:
    """Raises if numbers far from zero cost the replacement digits that they do not cost the pattern: it cancels.

    Σ g · (x − m) and Σ g · x − m · Σ g are equal but for rounding: the rounding of x − m, or of much larger products.
    """
    compared = [*before.results, *(symbol for symbol in before.inputs if symbol.dtype.is_float)]
    if rule.kind != "reassociating" or any(symbol.dtype != "float32" for symbol in compared):
        return  # a stabilizing one has to be nearer anyway
    values = [far_from_zero(symbol.spec, rng) for symbol in before.inputs]
    wide = [value.astype(np.float64) if value.dtype == np.float32 else value for value in values]
    with np.errstate(all="ignore"):
        ((old,), (new,), (true,)) = evaluate(before, values), evaluate(after, values), evaluate(widened(before), wide)
        sure = np.isfinite(true) & np.isfinite(old) & np.isfinite(new)
        sizes, old_error, new_error = (np.abs(np.where(sure, v, 0.0)) for v in (true, old - true, new - true))
        largest, allowed = (np.max(v, initial=0.0) for v in (sizes, DIGITS_LOST * old_error))
        allowed += TOLERANCE * float(np.finfo(np.float32).eps) * largest
    if np.max(new_error, initial=0.0) > allowed:
        raise ArgumentError(
            f"rule {rule.name!r} does not hold ({rule.kind}): it loses digits",
            got=f"an error of {np.max(new_error):.3g}, where that of the pattern is {np.max(old_error):.3g}",
            expected=f"what the pattern gives for {_shown(before, values)}",
        )


def _shown(graph: Graph, values: Any) -> str:
    rows = [
        f"{symbol.spec} {value.reshape(-1)[:4].tolist()}" for symbol, value in zip(graph.inputs, values, strict=True)
    ]
    return "; ".join(rows)[:300]


def _families(graph: Graph) -> set[str]:
    return {node.primitive.family for node in graph.nodes() if node.primitive is not None}


def _size_of_terms(graph: Graph, values: Any) -> float:
    """How large the terms of sums are that may cancel, by chance and all together; 0 where nothing is summed."""
    factors = max((_SUMS.get(family, 0) for family in _families(graph)), default=0)
    floats = [np.abs(value.astype(np.float64)) for value in values if value.dtype.kind not in "biu"]
    largest = max((float(np.max(v, initial=0.0, where=np.isfinite(v))) for v in floats), default=0.0)
    return float(largest**factors) * math.sqrt(_terms(graph)) if factors else 0.0


def _terms(graph: Graph) -> int:
    """How many terms the longest plain sum has; products of matrices and convolutions are small here."""
    sums = [node for node in graph.nodes() if node.primitive is not None and node.primitive.family == "reduction"]
    return max([node.inputs[0].size // max(node.specs[0].size, 1) for node in sums], default=1)


def _wrong(rule: Rule, before: Graph, after: Graph, values: Any) -> str | None:
    (old,), (new,) = evaluate(before, values), evaluate(after, values)
    if rule.kind != "stabilizing":
        return differ(new, old, rule.kind, scale=_size_of_terms(before, values))
    with np.errstate(all="ignore"):
        return _less_near(before, after, values, new, old)


def _less_near(before: Graph, after: Graph, values: Any, new: Any, old: Any) -> str | None:
    """Where a replacement in float32 is further from the true value than the pattern.

    The true value is the replacement's in float64, to which the pattern in float64 has to come a thousand times nearer
    than the pattern in float32: else they mean different things. NaN has to come out where it went in, and nowhere
    else. Errors smaller than the least normal number are not looked at.
    """
    wide = [value.astype(np.float64) for value in values]
    (pattern,), (true,) = evaluate(widened(before), wide), evaluate(widened(after), wide)
    limits = np.finfo(np.float32)
    finite = np.isfinite(pattern) & np.isfinite(true) & (np.abs(true) < float(limits.max))
    rounding = TOLERANCE * (float(limits.eps) * np.abs(true)) + float(limits.tiny)
    terms = _size_of_terms(before, values)
    rounding += 4.0 * float(limits.eps) * (1.0 + terms) if terms else 0.0
    before_error = np.where(np.isnan(old), np.inf, np.abs(old - true))
    wrong = finite & ~((np.abs(new - true) <= rounding) | (np.abs(new - true) <= before_error))
    wrong |= finite & ~(np.abs(pattern - true) <= 1e-3 * before_error + 1e-12 * (1.0 + np.abs(true)))
    if all(value.shape == new.shape for value in values):
        came_nan = np.logical_or.reduce([np.isnan(value) for value in values])
        came_infinite = np.logical_or.reduce([np.isinf(value) for value in values])
        wrong |= came_nan & np.isnan(old) & ~np.isnan(new)
        wrong |= came_infinite & ~np.isnan(old) & np.isnan(new)
        moderate = np.logical_and.reduce([np.abs(value) < _MODERATE for value in values])
        wrong |= moderate & np.isnan(pattern) & ~np.isnan(new)
    if not wrong.any():
        return None
    place = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(wrong)))
    rows = [np.atleast_1d(array)[place].item() for array in (new, old, true)]
    return f"{rows[0]} at {place}, where the pattern gives {rows[1]}, and {rows[2]} in float64"
