"""Control flow: dead results, state and operands; numbers that move inside; products that move outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.backends.native.passes.check import check_pass, check_shapes
from highlevel.backends.native.passes.driver import Sweep, sub_graphs
from highlevel.backends.native.passes.folding import FOLD_LIMIT_BYTES
from highlevel.backends.native.passes.hoist import hoist_products
from highlevel.backends.native.passes.invariants import hoist_invariants
from highlevel.backends.native.passes.loops import prune_loops
from highlevel.backends.native.passes.pipeline import run_passes
from highlevel.ir import Graph, Node, Symbol, control, gradients, trace_graph
from highlevel.ir.spec import spec

XS, H, W = spec((6, 3, 4)), spec((3, 4)), spec((4, 4))
fold_constants = Sweep(fold_bytes=FOLD_LIMIT_BYTES)
merge_equal = Sweep(merge=True)


def graph_of(function: Callable[..., Any], *specs: Any) -> Graph:
    def listed(*x: Symbol) -> list[Symbol]:
        found = function(*x)
        return list(found) if isinstance(found, (list, tuple)) else [found]

    return trace_graph(listed, specs)[0]


def only(graph: Graph, name: str) -> Node:
    (node,) = [node for node in graph.nodes() if node.name == name]
    return node


def names(graph: Graph) -> list[str]:
    return sorted(node.name for node in graph.nodes() if node.primitive is not None)


def pruned(graph: Graph) -> Graph:
    after = prune_loops(graph)
    check_pass(graph, after, "exact", "loops")
    return after


# scan ----------------------------------------------------------------------------------------------------------------
def test_results_that_nobody_reads_go_with_what_they_need() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        def step(carry: Symbol, x: Symbol) -> Any:
            return hl.ops.tanh(carry + x), hl.ops.exp(x)

        return control.scan(step, h, xs)[0]

    before = graph_of(function, XS, H)
    scan = only(pruned(before), "scan")
    assert names(scan.attrs["body"]) == ["add", "tanh"]
    assert len(scan.specs) == 1


def test_state_that_only_feeds_itself_goes() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        def step(carry: Any, x: Symbol) -> Any:
            a, b, c = carry
            return (a + x, b * c, c + b), None

        return control.scan(step, (h, h + 1.0, h + 2.0), xs)[0][0]

    scan = only(pruned(graph_of(function, XS, H)), "scan")
    assert (scan.attrs["carries"], len(scan.inputs)) == (1, 2)
    assert names(scan.attrs["body"]) == ["add"]


def test_state_that_is_needed_by_other_state_stays() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        def step(carry: Any, x: Symbol) -> Any:
            a, b = carry
            return (a + b, b + x), None

        return control.scan(step, (h, h), xs)[0][0]

    assert only(pruned(graph_of(function, XS, H)), "scan").attrs["carries"] == 2


def test_state_that_never_changes_becomes_an_operand() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        def step(carry: Any, x: Symbol) -> Any:
            a, b = carry
            return (a * b + x, b), b

        (a, b), bs = control.scan(step, (h, h + 1.0), xs)
        return [a, b, bs]

    after = pruned(graph_of(function, XS, H))
    scan = only(after, "scan")
    assert (scan.attrs["constants"], scan.attrs["carries"], len(scan.specs)) == (1, 1, 1)
    assert after.outputs[2].node.name == "broadcast"


def test_rows_that_are_the_sequence_itself_are_not_computed() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return control.scan(lambda carry, x: (carry + x, x), h, xs)

    after = pruned(graph_of(function, XS, H))
    assert after.outputs[1].key == after.inputs[0].key


def test_numbers_move_into_the_body_and_fold_there() -> None:
    def function(xs: Symbol) -> Any:
        ones = hl.ops.ones((3, 4))
        start = hl.ops.zeros((3, 4))
        return control.scan(lambda carry, x: (carry * ones + x, None), start, xs)[0]

    after = run_passes(graph_of(function, XS), check=True)
    assert names(only(after, "scan").attrs["body"]) == ["add"]


def test_the_same_operand_twice_comes_in_once() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return control.scan(lambda carry, x: (carry + x[0] * x[1], None), h, (xs, xs))[0]

    assert len(only(pruned(graph_of(function, XS, H)), "scan").inputs) == 2


# while, cond, call ---------------------------------------------------------------------------------------------------
def test_while_keeps_what_its_condition_asks_for() -> None:
    def function(x: Symbol) -> Any:
        def body(count: Symbol, y: Symbol, unused: Symbol) -> Any:
            return count + 1.0, y * 2.0, unused + y

        return control.while_loop(lambda count, y, unused: count < 4.0, body, (0.0 * x[0, 0], x, x))[1]

    loop = only(pruned(graph_of(function, H)), "while_loop")
    assert len(loop.specs) == 2


def test_cond_and_call_lose_dead_results_and_operands() -> None:
    def function(x: Symbol, y: Symbol) -> Any:
        first, _ = control.cond(x[0, 0] < 0.0, lambda: (x + 1.0, y), lambda: (x * 2.0, y * 3.0))
        second, _ = control.call("pair", lambda a, b: (hl.ops.exp(a), hl.ops.sin(b)), x, y)
        return [first, second]

    after = pruned(graph_of(function, H, H))
    for name in ("cond", "call"):
        node = only(after, name)
        assert len(node.specs) == 1
        assert after.inputs[1].key not in [symbol.key for symbol in node.inputs]


def test_a_condition_that_is_known_is_decided() -> None:
    def function(x: Symbol) -> Any:
        return control.cond(hl.ops.zeros(()) < hl.ops.ones(()), lambda: hl.ops.exp(x), lambda: hl.ops.sin(x))

    after = run_passes(graph_of(function, H), check=True)
    assert names(after) == ["exp"]


def test_equal_loops_are_one_loop() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return [control.scan(lambda carry, x: (hl.ops.tanh(carry * x), carry), h, xs)[0] for _ in range(2)]

    after = merge_equal(prune_loops(graph_of(function, XS, H)))
    assert only(after, "scan")
    assert after.outputs[0].key == after.outputs[1].key


def test_different_loops_stay_two() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return [control.scan(lambda c, x, k=k: (c * x + k, None), h, xs)[0] for k in (1.0, 2.0)]

    after = merge_equal(prune_loops(graph_of(function, XS, H)))
    assert names(after).count("scan") == 2


# Products ------------------------------------------------------------------------------------------------------------
def hoisted(graph: Graph) -> Graph:
    before = prune_loops(graph)
    after = hoist_products(before)
    check_pass(before, after, "reassociating", "products")
    return prune_loops(after)


def test_a_product_with_the_input_is_taken_before_the_loop() -> None:
    def function(xs: Symbol, h: Symbol, w: Symbol, u: Symbol) -> Any:
        return control.scan(lambda c, x: (hl.ops.tanh(x @ w + c @ u), None), h, xs)[0]

    after = hoisted(graph_of(function, XS, H, W, W))
    assert names(only(after, "scan").attrs["body"]).count("matmul") == 1
    assert [n.specs[0].shape for n in after.nodes() if n.name == "matmul"] == [(18, 4)]


def test_rows_that_are_products_are_taken_after_the_loop() -> None:
    def function(xs: Symbol, h: Symbol, w: Symbol) -> Any:
        def step(c: Symbol, x: Symbol) -> Any:
            c = hl.ops.tanh(c + x)
            return c, c @ w

        return control.scan(step, h, xs)

    after = hoisted(graph_of(function, XS, H, W))
    assert "matmul" not in names(only(after, "scan").attrs["body"])
    assert [n.specs[0].shape for n in after.nodes() if n.name == "matmul"] == [(18, 4)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_plain_recurrent_layer_and_its_gradient(reverse: bool) -> None:
    """Inside stay the two products with the state; four others – two sums over the steps – are taken at once."""

    def function(xs: Symbol, h: Symbol, w: Symbol, u: Symbol) -> Any:
        def step(c: Symbol, x: Symbol) -> Any:
            c = hl.ops.tanh(x @ w + c @ u)
            return c, c

        _, ys = control.scan(step, h, xs, reverse=reverse)
        loss = hl.ops.sum(ys * ys)
        return [loss, *gradients(loss, [xs, h, w, u])]

    before = graph_of(function, XS, H, W, W)
    after = run_passes(before, check=True)
    inside = [names(n.attrs["body"]).count("matmul") for n in after.nodes() if n.name == "scan"]
    assert inside == [1, 1]
    assert names(after).count("matmul") == 4
    check_pass(before, after, "reassociating", "all")


def test_state_that_is_read_is_no_mere_sum() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return control.scan(lambda c, x: (c + hl.ops.transpose(x) @ x, hl.ops.sum(c)), h, xs)

    graph = prune_loops(graph_of(function, spec((6, 3, 4)), W))
    assert hoist_products(graph) is graph


# Invariants ----------------------------------------------------------------------------------------------------------
def running(x: Any) -> Any:
    """1, 2, 3, …: made of nothing, and no number."""
    return hl.ops.cumsum(hl.ops.ones(x.shape), 1)


def while_running(x: Symbol, h: Symbol) -> Any:
    def body(i: Symbol, y: Symbol) -> Any:
        return i + 1.0, y * running(y)

    return control.while_loop(lambda i, y: i < hl.ops.sum(running(y)) / 8.0, body, (x[0, 0, 0], h))[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda xs, h: control.scan(lambda c, x: (c * running(c) + hl.ops.flip(running(c), 0), x * running(x)), h, xs),
        lambda xs, h: control.scan(lambda c, x: (c + x, hl.ops.argsort(running(x), 1)), h, xs),
        while_running,
        lambda xs, h: control.cond(xs[0, 0, 0] < 0.0, lambda: h + running(h), lambda: h * hl.ops.exp(running(h))),
        lambda xs, h: control.scan(
            lambda c, x: (control.scan(lambda d, y: (d + y * running(d)[0], None), c, x)[0], None), h, xs
        )[0],
    ],
)
def test_what_is_the_same_in_every_step_is_an_operand(function: Any) -> None:
    before = graph_of(function, XS, H)
    after = hoist_invariants(before)
    check_pass(before, after, "exact", "invariants")
    simple = run_passes(before, check=True)
    assert not {"cumsum", "argsort"} & {name for graph in with_bodies(simple) for name in names(graph)}
    assert run_passes(simple) is simple


def with_bodies(graph: Graph) -> list[Graph]:
    return [graph, *(g for node in graph.nodes() for body in sub_graphs(node) for g in with_bodies(body))]


def test_what_is_cheap_stays_in_the_loop() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        return control.scan(lambda c, x: (c * hl.ops.cast(hl.ops.arange(4) < 2, "float32") + x, None), h, xs)[0]

    graph = graph_of(function, XS, H)
    assert hoist_invariants(graph) is graph


# Constants and equal nodes -------------------------------------------------------------------------------------------
def test_constants_are_computed_while_compiling() -> None:
    table = np.arange(6, dtype="float32").reshape(2, 3)
    after = fold_constants(graph_of(lambda x: x + hl.ops.exp(hl.Tensor.of(table) * 2.0), spec((2, 3))))
    constant = next(n for n in after.nodes() if n.leaf is not None and n.leaf.kind == "constant")
    np.testing.assert_array_equal(constant.leaf.value.numpy(), np.exp(table * 2))
    assert names(after) == ["add"]


def test_large_constants_stay_expressions() -> None:
    table = hl.Tensor.of(np.arange(60_000, dtype="float32"))
    graph = graph_of(lambda x: x + hl.ops.exp(table), spec((60_000,)))
    assert fold_constants(graph) is graph


def test_what_is_one_number_becomes_a_fill() -> None:
    after = fold_constants(graph_of(lambda x: x * hl.Tensor.of(np.full((2, 3), 0.5, "float32")), spec((2, 3))))
    assert names(after) == ["full", "mul"]
    after = fold_constants(graph_of(lambda x: x * hl.ops.exp(hl.ops.ones((2, 3)) * 2.0), spec((2, 3))))
    (fill,) = [n for n in after.nodes() if n.name == "full"]
    assert fill.attrs["value"] == float(np.exp(np.float32(2)))


def test_zeros_of_both_signs_are_two_constants() -> None:
    def function(x: Symbol) -> Any:
        signed = [hl.Tensor.of(np.array([value, 1.0], "float32")) for value in (0.0, -0.0)]
        return [x / constant for constant in signed]

    after = merge_equal(graph_of(function, spec((2,))))
    assert names(after) == ["div", "div"]


def test_sums_either_way_round_are_equal() -> None:
    after = merge_equal(graph_of(lambda x, y: [x + y, y + x, x - y, y - x], H, H))
    assert names(after) == ["add", "sub", "sub"]


# Composites ----------------------------------------------------------------------------------------------------------
def test_composites_inside_of_loops_and_of_each_other() -> None:
    def function(xs: Symbol, h: Symbol) -> Any:
        def outer(x: Symbol) -> Symbol:
            return control.call("inner", lambda x: hl.ops.exp(x), x) + 1.0

        return control.scan(lambda c, x: (control.call("outer", outer, c * x), None), h, xs)[0]

    after = Sweep(inline=lambda name: True)(graph_of(function, XS, H))
    check_shapes(after)
    assert "call" not in names(only(after, "scan").attrs["body"])
    claimed = Sweep(inline=lambda name: name != "inner")(graph_of(function, XS, H))
    assert names(only(claimed, "scan").attrs["body"]).count("call") == 1
