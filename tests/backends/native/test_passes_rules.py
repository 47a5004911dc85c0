"""Every rule of every table, tried on programs made of its own pattern; and rules that are wrong, found out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.backends.native.passes import pipeline
from highlevel.backends.native.passes.algebra import ALGEBRA
from highlevel.backends.native.passes.facts import is_float
from highlevel.backends.native.passes.layout import LAYOUT
from highlevel.backends.native.passes.movement import MOVEMENT
from highlevel.backends.native.passes.pattern import Rule
from highlevel.backends.native.passes.precision import PRECISION
from highlevel.backends.native.passes.stability import STABILITY
from highlevel.backends.native.passes.terms import (
    abs,
    add,
    cast,
    equal,
    exp,
    invert,
    less,
    less_equal,
    log,
    maximum,
    mul,
    neg,
    pow,
    reduce_sum,
    reshape,
    select,
    sqrt,
    sub,
    transpose,
)
from highlevel.backends.native.passes.verify import register_rule, verify_rule
from highlevel.errors import ArgumentError, BackendError
from highlevel.ir import Symbol, trace_graph
from highlevel.ir.dtypes import float16, float32
from highlevel.ir.spec import Spec

RULES = [*ALGEBRA, *STABILITY, *PRECISION, *MOVEMENT, *LAYOUT]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@every_rule
def test_a_rule_holds(rule: Rule) -> None:
    assert verify_rule(rule) >= 8


@pytest.mark.soak
@every_rule
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_rule_holds_on_many_programs(rule: Rule, seed: int) -> None:
    verify_rule(rule, seed=seed, count=100)


def test_rules_have_names_of_their_own() -> None:
    counts = Counter(rule.name for rule in RULES)
    assert [name for name, count in counts.items() if count > 1] == []


WRONG = [
    Rule("x · 0 → 0", lambda x: x * 0, lambda x: 0.0 if x.dtype.is_float else 0),
    Rule("x + 0 → x", lambda x: x + 0.0, lambda x: x),
    Rule("0 − x → −x", lambda x: 0.0 - x, lambda x: neg(x)),
    Rule("x − x → 0", lambda x: x - x, lambda x: 0.0 if x.dtype.is_float else 0),
    Rule("x / x → 1", lambda x: x / x, lambda x: 1.0),
    Rule("(x + y) − y → x", lambda x, y: (x + y) - y, lambda x: x, "reassociating"),
    Rule("a · b + a · c → a · (b + c)", lambda a, b, c: a * b + a * c, lambda a, b, c: a * (b + c), "reassociating"),
    Rule("x · 10³⁰ · 10⁻³⁰ → x", lambda x: (x * 1e30) * 1e-30, lambda x: x, "reassociating", is_float),
    Rule("√x · √x → |x|", lambda x: sqrt(x) * sqrt(x), lambda x: abs(x), "reassociating"),
    Rule("√x² → x", lambda x: sqrt(x * x), lambda x: x, "stabilizing"),
    Rule("x^½ → √x", lambda x: pow(x, 0.5), lambda x: sqrt(x), "reassociating"),
    Rule("e^(log x) → x", lambda x: exp(log(x)), lambda x: x, "stabilizing"),
    Rule("log(x · y) → log x + log y", lambda x, y: log(x * y), lambda x, y: log(x) + log(y), "stabilizing"),
    Rule("−(x − y) → y − x", lambda x, y: -(x - y), lambda x, y: y - x),
    Rule("x = x → true", lambda x: equal(x, x), lambda x: True),
    Rule("not x < y → y ≤ x", lambda x, y: invert(less(x, y)), lambda x, y: less_equal(y, x)),
    Rule("max(x, y) → max(y, x)", lambda x, y: maximum(x, y), lambda x, y: sub(add(x, y), x)),
    Rule("|−x| → |x|", lambda x: abs(-x), lambda x: abs(x)),
    Rule("c ? x : y → x", lambda c, x, y: select(c, x, y), lambda x: x),
    Rule("x / 3 → x · ⅓", lambda x: x / 3.0, lambda x: x * (1.0 / 3.0)),
    Rule(
        "casts merge",
        lambda x, D, E: cast(cast(x, dtype=D), dtype=E),
        lambda x, E: cast(x, dtype=E),
    ),
    Rule(
        "transposes merge the other way round",
        lambda x, P, Q: transpose(transpose(x, axes=P), axes=Q),
        lambda x, P, Q: transpose(x, axes=tuple(Q[axis] for axis in P)) if len(P) > 2 else None,
    ),
    Rule("reshape is transpose", lambda x, P: transpose(x, axes=P), lambda x, root: reshape(x, shape=root.shape)),
    Rule(
        "Σ g · (x − m) → Σ g · x − Σ g · m",
        lambda g, x, m, A: reduce_sum(g * (x - m), axes=A),
        lambda g, x, m, A: reduce_sum(g * x, axes=A) - reduce_sum(g * m, axes=A),
        "reassociating",
        lambda x: x.dtype == "float32",
    ),
    Rule(  # right for all special numbers
        "Σ (x − y) · (x + y) → Σ (x · x − y · y)",
        lambda x, y, A: reduce_sum((x - y) * (x + y), axes=A),
        lambda x, y, A: reduce_sum(x * x - y * y, axes=A),
        "reassociating",
        lambda x: x.dtype == "float32",
    ),
    Rule("Σ x · c → c · Σ x", lambda x, C, A: reduce_sum(x * C, axes=A), lambda x, C, A: reduce_sum(x, axes=A) * C),
]


@pytest.mark.parametrize("rule", WRONG, ids=lambda rule: rule.name)
def test_a_wrong_rule_is_found_out(rule: Rule) -> None:
    with pytest.raises((ArgumentError, BackendError), match=r"does not hold|changes what it replaces"):
        verify_rule(rule, count=200)


def test_the_error_shows_the_numbers() -> None:
    with pytest.raises(ArgumentError) as caught:
        verify_rule(Rule("x + 0 → x", lambda x: mul(x, 2.0), lambda x: x))
    assert "instead of" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10


# Rules of the user's own ---------------------------------------------------------------------------------------------
@pytest.fixture
def user_rules() -> Any:
    before = list(pipeline.USER_RULES)
    yield pipeline.USER_RULES
    pipeline.USER_RULES[:] = before


def test_a_registered_rule_is_applied(user_rules: list[Rule]) -> None:
    graph, _ = trace_graph(lambda x: [maximum(maximum(x, 0.0), 0.0)], [Spec((3,), float32)])
    rule = Rule("max(x, y) twice", lambda x, y: maximum(maximum(x, y), y), lambda x, y: maximum(x, y))
    assert register_rule(rule) is rule
    assert user_rules[-1] is rule
    assert [n.name for n in pipeline.run_passes(graph).nodes() if n.primitive] == ["full", "maximum"]


def test_a_wrong_rule_is_not_registered(user_rules: list[Rule]) -> None:
    with pytest.raises(ArgumentError, match="does not hold"):
        register_rule(WRONG[0])
    assert WRONG[0] not in user_rules


def test_a_rule_that_matches_nothing_is_not_registered() -> None:
    with pytest.raises(ArgumentError, match="could not be tried"):
        register_rule(Rule("never", lambda x: neg(x), lambda x: x, where=lambda x: False))


def test_a_rule_keeps_shape_and_type() -> None:
    narrow = Rule("x → narrow x", lambda x: neg(x), lambda x: cast(x, dtype=float16))
    with pytest.raises(BackendError, match="changes what it replaces"):
        verify_rule(narrow)


# Records -------------------------------------------------------------------------------------------------------------
def test_rules_are_checked_when_they_are_written() -> None:
    with pytest.raises(ArgumentError, match="unknown kind"):
        Rule("x", lambda x: neg(x), lambda x: x, "approximate")
    with pytest.raises(ArgumentError, match="not in the pattern"):
        Rule("x", lambda x: neg(x), lambda y: y)
    with pytest.raises(ArgumentError, match="no operator"):
        Rule("x", lambda x: x, lambda x: x)


def test_patterns_bind_symbols_numbers_attributes_and_operators() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        return [mul(add(x, y), 3.0), transpose(exp(x), axes=(1, 0)), sub(x, x), sub(x, y)]

    graph, _ = trace_graph(function, [Spec((2, 3), float32)] * 2)
    x, y = graph.inputs
    scaled, moved, same, other = graph.outputs
    found = Rule("", lambda a, b, C: (a + b) * C, lambda a: a).match(scaled)
    assert found is not None
    assert (found["a"].key, found["b"].key, found["C"], found["root"].key) == (x.key, y.key, 3.0, scaled.key)
    found = Rule("", lambda F, a, P: transpose(F(a), axes=P), lambda a: a).match(moved)
    assert found is not None
    assert (found["F"].primitive.name, found["P"]) == ("exp", (1, 0))
    twice = Rule("", lambda a: a - a, lambda a: a)
    assert twice.match(same) is not None
    assert twice.match(other) is None
    assert Rule("", lambda a, b: (a + b) * 2.0, lambda a: a).match(scaled) is None
    assert Rule("", lambda a, b: 3.0 * (a + b), lambda a: a).match(scaled) is not None  # the other way round


def test_numbers_in_patterns_are_bits() -> None:
    def sums(x: Symbol) -> list[Symbol]:
        return [add(x, 0.0), add(x, -0.0), mul(x, 0.1)]

    graph, _ = trace_graph(sums, [Spec((2,), float32)])
    plus, minus, tenth = graph.outputs
    rule = Rule("", lambda x: x + -0.0, lambda x: x)
    assert (rule.match(plus), rule.match(minus) is not None) == (None, True)
    assert Rule("", lambda x: x * 0.1, lambda x: x).match(tenth) is not None  # 0.1 as float32 holds it
