"""The driver: order, fixpoint, loops, origins, sub-graphs, the boundary, and time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.backends.native.passes.algebra import ALGEBRA
from highlevel.backends.native.passes.check import check_pass, check_shapes, count_nodes, evaluate
from highlevel.backends.native.passes.driver import Sweep, Table, rewrite
from highlevel.backends.native.passes.loops import prune_loops
from highlevel.backends.native.passes.movement import MOVEMENT
from highlevel.backends.native.passes.pattern import Rule
from highlevel.backends.native.passes.pipeline import run_passes
from highlevel.backends.native.passes.terms import add, exp, less, mul, neg, sin, sub, tanh, transpose
from highlevel.errors import BackendError
from highlevel.ir import Graph, Symbol, Variable, control, scope, trace_graph
from highlevel.ir.spec import spec

X = spec((3, 4))
NEGATIVES = [Rule("−(−x) → x", lambda x: neg(neg(x)), lambda x: x)]


def graph_of(function: Any, *specs: Any) -> Graph:
    return trace_graph(lambda *x: [function(*x)], specs or [X])[0]


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes() if node.primitive is not None]


def test_chains_go_to_their_end() -> None:
    def chain(x: Symbol) -> Symbol:
        for _ in range(101):
            x = neg(x)
        return x

    assert names(rewrite(graph_of(chain), NEGATIVES)) == ["neg"]


def test_what_a_rule_makes_is_looked_at_again() -> None:
    rules = [
        Rule("sin → −(−tanh)", lambda x: sin(x), lambda x: neg(neg(tanh(x))), "reassociating"),
        Rule("tanh → exp of −x", lambda x: tanh(x), lambda x: exp(neg(x)), "reassociating"),
        *NEGATIVES,
    ]
    assert names(rewrite(graph_of(lambda x: sin(neg(x))), rules)) == ["exp"]


def test_rules_that_undo_each_other_are_named() -> None:
    rules = [
        Rule("sin → tanh", lambda x: sin(x), lambda x: tanh(x), "reassociating"),
        Rule("tanh → sin", lambda x: tanh(x), lambda x: sin(x), "reassociating"),
    ]
    with pytest.raises(BackendError, match="undo each other") as caught:
        rewrite(graph_of(lambda x: sin(x)), rules)
    assert "sin → tanh" in str(caught.value)
    assert "tanh → sin" in str(caught.value)


def test_a_rule_that_grows_for_ever_is_named() -> None:
    with pytest.raises(BackendError, match="undo each other"):
        rewrite(graph_of(sin), [Rule("sin x → sin(−x)", lambda x: sin(x), lambda x: sin(neg(x)), "reassociating")])


def test_where_nothing_applies_the_graph_comes_back() -> None:
    graph = graph_of(lambda x: sin(x))
    assert rewrite(graph, [*ALGEBRA, *MOVEMENT]) is graph


def test_new_nodes_carry_the_origin_of_the_old() -> None:
    def function(x: Symbol) -> Symbol:
        with scope("encoder/dense"):
            y = sub(x, neg(x))
        return exp(y)

    before = graph_of(function)
    after = rewrite(before, ALGEBRA)
    old = next(node for node in before.nodes() if node.name == "sub")
    new = next(node for node in after.nodes() if node.name == "add")
    assert new.origin == old.origin
    assert (new.origin.layer, new.origin.file) == ("encoder/dense", __file__)


def test_inputs_reads_and_updates_stay() -> None:
    weight, count = Variable(np.ones((3, 4), "float32"), name="w"), Variable(0.0, name="n")

    def step(x: Symbol) -> list[Symbol]:
        y = mul(neg(neg(x)), neg(neg(weight.read())))
        weight.assign(sub(weight.read(), neg(y)))
        count.assign_add(1.0)
        return [y, neg(neg(x))]

    before, _ = trace_graph(step, [X])
    after = rewrite(before, ALGEBRA)
    check_pass(before, after, "exact", "algebra")
    assert [v for v, _ in after.updates] == [weight, count]
    assert after.outputs[1].key == after.inputs[0].key
    assert "neg" not in names(after)


def test_sub_graphs_are_rewritten_and_stay_shared() -> None:
    def function(x: Symbol) -> list[Symbol]:
        def step(carry: Symbol, row: Symbol) -> Any:
            return neg(neg(add(carry, neg(row)))), carry

        end, rows = control.scan(step, x[0], x)
        chosen = control.cond(less(end, end)[0], lambda: neg(neg(end)), lambda: exp(end))
        return [rows, chosen]

    before = prune_loops(trace_graph(function, [X])[0])  # a traced loop offers all that it computes
    after = rewrite(before, ALGEBRA)
    scan = next(node for node in after.nodes() if node.name == "scan")
    assert names(scan.attrs["body"]) == ["sub"]
    assert scan.attrs["constants"] == next(n for n in before.nodes() if n.name == "scan").attrs["constants"]
    check_pass(before, after, "exact", "algebra")


def test_linear_in_nodes() -> None:
    """10,000 nodes with all rules of algebra and movement."""

    def program(x: Symbol) -> Symbol:
        y = x
        for i in range(1000):
            y = add(mul(y, neg(x)), transpose(transpose(exp(y), axes=(1, 0)), axes=(1, 0)))
            y = sub(y, neg(mul(x, 1.0 if i % 2 else 0.5)))
        return y

    graph = graph_of(program)
    assert count_nodes(graph) > 10_000
    elapsed = []
    for _ in range(3):
        start = time.process_time()
        after = rewrite(graph, [*ALGEBRA, *MOVEMENT])
        elapsed.append(time.process_time() - start)
    check_shapes(after)
    assert names(after).count("transpose") == 0
    assert min(elapsed) < 0.3


def test_small_programs_take_little_time() -> None:
    """Operators on numbers are programs of one to three nodes, each of which goes through the passes."""
    graphs = [graph_of(lambda x: exp(x) * 2.0) for _ in range(100)]
    run_passes(graph_of(lambda x: exp(x) * 2.0))
    elapsed = []
    for graph in graphs:
        start = time.process_time()
        run_passes(graph)
        elapsed.append(time.process_time() - start)
    assert min(elapsed) < 0.3e-3


def test_equal_expressions_are_brought_into_normal_form_once() -> None:
    seen: list[Any] = []
    rules = [Rule("tanh → exp", lambda x: tanh(x), lambda x: [seen.append(x), exp(x)][1], "reassociating")]
    after = Sweep(rules, merge=True)(graph_of(lambda x: sub(mul(tanh(x), tanh(x)), tanh(x))))
    assert (names(after), len(seen)) == (["exp", "mul", "sub"], 1)
    assert len({node.id for node in after.nodes()}) == 4


def test_tables_look_only_at_rules_that_could_fit() -> None:
    table = Table([*ALGEBRA, *MOVEMENT])
    nodes = graph_of(lambda x: neg(neg(exp(x)))).nodes()
    fitting = [[rule.name for rule, _ in table.fitting(node)] for node in nodes[1:]]
    assert fitting == [[], [], ["−(−x) → x"]]
    assert table.fits(graph_of(lambda x: neg(neg(x))))
    assert not table.fits(graph_of(lambda x: neg(exp(neg(x)))))


def test_a_check_finds_a_pass_that_is_wrong() -> None:
    before = graph_of(lambda x: sin(x))
    after = rewrite(before, [Rule("sin → tanh", lambda x: sin(x), lambda x: tanh(x))])
    with pytest.raises(BackendError, match="changed result 0"):
        check_pass(before, after, "exact", "wrong")
    with pytest.raises(BackendError, match="changed the inputs"):
        check_pass(before, graph_of(lambda x: sin(x)), "exact", "other inputs")


def test_values_are_those_of_the_interpreter() -> None:
    graph, _ = trace_graph(lambda x, y: [exp(x) @ y.T, hl.ops.softmax(x)], [X, X])
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")
    got = evaluate(graph, [x, y])
    want = hl.jit(lambda x, y: (hl.ops.exp(x) @ y.T, hl.ops.softmax(x)))(x, y)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-6)
