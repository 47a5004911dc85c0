from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highlevel.ir import Graph, Symbol, Tensor, Variable, jit, operators, primitives, spec, trace, trace_graph
from highlevel.ir.evaluate import Program
from highlevel.ir.graph import attribute_key, captures, key_of, reachable
from highlevel.ir.rewrite import Replay, merge_common

FLOAT = spec((3,))


def run(graph: Graph, *arrays: Any) -> list[Any]:
    program = Program(graph)
    leaves = [leaf.value.numpy() for _, leaf in program.leaves]
    return program.run(np, arrays, leaves)


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes()]


def test_nodes_are_in_topological_order_and_only_those_needed() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        unused = primitives.exp(y)
        assert unused.shape == (3,)
        return [primitives.mul(primitives.sin(x), x)]

    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    assert names(graph) == ["input", "sin", "mul"]
    position = {node.id: i for i, node in enumerate(graph.nodes())}
    for node in graph.nodes():
        assert all(position[symbol.node.id] < position[node.id] for symbol in node.inputs)
        assert all(key_of(a) == key_of(b) for a, b in zip(node.outputs, node.outputs, strict=True))


def test_reachable_stops_where_it_is_told() -> None:
    graph, _ = trace_graph(lambda x: [primitives.cos(primitives.sin(x))], [FLOAT])
    found = reachable(graph.outputs, stop=lambda node: node.name == "sin")
    assert [node.name for node in found] == ["sin", "cos"]


def test_graphs_are_immutable() -> None:
    graph, _ = trace_graph(lambda x: [x], [FLOAT])
    with pytest.raises(AttributeError):
        graph.outputs = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        graph.nodes()[0].id = 3  # type: ignore[misc]


def test_order_of_reads_and_updates_is_that_of_the_program() -> None:
    variables = [Variable(float(i), name=f"v{i}") for i in range(8)]

    def function() -> list[Symbol]:
        total = sum((variables[i].value for i in (5, 2, 7)), 0.0)
        for i in (3, 1, 5):
            variables[i].assign(total)
        variables[3].assign(total * 2.0)
        return [total]

    for _ in range(3):
        graph, _ = trace_graph(function, [])
        assert [v.name for v, _ in graph.reads] == ["v5", "v2", "v7"]
        assert [v.name for v, _ in graph.updates] == ["v3", "v1", "v5"]
        assert graph.results == (*graph.outputs, *(symbol for _, symbol in graph.updates))


# Replay --------------------------------------------------------------------------------------------------------------
def test_replay_builds_anew_what_depends_on_a_stand_in_and_nothing_else() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        kept = primitives.exp(y)
        out = primitives.mul(primitives.sin(x), kept)
        replay = Replay({key_of(x): primitives.neg(x)})
        again = replay(out)
        assert again.key != out.key
        assert replay(out) is again
        assert again.node.inputs[1].key == kept.key
        assert again.node.origin == out.node.origin
        return [out, again]

    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    assert sorted(names(graph)) == ["exp", "input", "input", "mul", "mul", "neg", "sin", "sin"]
    x, y = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    out, again = run(graph, x, y)
    np.testing.assert_allclose(out, np.sin(x) * np.exp(y))
    np.testing.assert_allclose(again, np.sin(-x) * np.exp(y))


def test_replay_knows_some_outputs_of_a_node_with_several() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        pair = primitives.call(x, name="pair", body=body, rule=None, options={})
        replay = Replay({key_of(x): y, key_of(pair[0]): y})
        return [replay(pair[0]), replay(pair[1])]

    body, _ = trace_graph(lambda x: [primitives.sin(x), primitives.cos(x)], [FLOAT])
    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    x, y = np.zeros(3), np.array([1.0, 2.0, 3.0])
    first, second = run(graph, x, y)
    np.testing.assert_array_equal(first, y)
    np.testing.assert_allclose(second, np.cos(y))


def test_replays_are_linear() -> None:
    """One symbol after the other costs what all of them at once cost: each node is built once."""
    count = 4000

    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        chain = [x]
        for _ in range(count):
            chain.append(primitives.sin(chain[-1]))
        start = time.thread_time()
        replay = Replay({key_of(x): y})
        results = [replay(symbol) for symbol in chain]
        assert time.thread_time() - start < 2.0  # a walk of the whole graph for each took minutes
        return [results[-1]]

    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    assert len(graph.nodes()) == count + 1


def test_captures_are_in_order_of_creation() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        a, b = primitives.exp(x), primitives.exp(y)
        with trace.Trace() as inner:
            out = primitives.mul(primitives.add(b, y), a)
        assert [symbol.key for symbol in captures([out, x], inner.serial)] == [x.key, y.key, a.key, b.key]
        return []

    trace_graph(function, [FLOAT, FLOAT])


# Merging -------------------------------------------------------------------------------------------------------------
def fills(*values: Any, dtype: Any = "float32") -> int:
    """How many fills are left of fills with these values."""

    def function() -> list[Symbol]:
        return [primitives.full(shape=(2,), value=value, dtype=operators.as_dtype(dtype)) for value in values]

    graph, _ = trace_graph(function, [])
    merged = merge_common(graph)
    assert [symbol.spec for symbol in merged.outputs] == [symbol.spec for symbol in graph.outputs]
    for ours, theirs in zip(run(merged), run(graph), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    return len(merged.nodes())


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ((1.0, 1.0), 1),
        ((1, 1.0, True), 3),
        ((0.0, -0.0), 2),
        ((math.nan, math.nan), 1),
        ((float("nan"), -float("nan")), 2),
        ((math.inf, -math.inf, math.inf), 2),
        ((0, False, 0.0), 3),
    ],
)
def test_attributes_are_told_apart_by_type_and_bits(values: tuple[Any, ...], left: int) -> None:
    assert fills(*values) == left


def test_attribute_keys() -> None:
    apart = [
        1,
        1.0,
        True,
        0.0,
        -0.0,
        "1",
        None,
        (1,),
        (1.0,),
        ((1,),),
        {"a": 1},
        {"a": 1.0},
        {"b": 1},
        np.float32(1),
        np.int8(1),
    ]
    keys = [attribute_key(value) for value in apart]
    assert len(set(keys)) == len(apart)
    assert attribute_key([1, 2]) == attribute_key((1, 2))
    assert attribute_key({"a": 1, "b": 2}) == attribute_key({"b": 2, "a": 1})
    assert attribute_key(np.float32(1)) == attribute_key(np.float32(1))


def test_equal_expressions_become_one() -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        def f() -> Symbol:
            return primitives.mul(primitives.sin(x), primitives.exp(y))  # type: ignore[no-any-return]

        return [primitives.add(f(), f()), f(), primitives.sub(y, x), primitives.sub(x, y)]

    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    merged = merge_common(graph)
    assert sorted(names(merged)) == ["add", "exp", "input", "input", "mul", "sin", "sub", "sub"]
    x, y = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    for ours, theirs in zip(run(merged, x, y), run(graph, x, y), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = merge_common(merged)
    assert [symbol.key for symbol in again.outputs] == [symbol.key for symbol in merged.outputs]


def test_inputs_constants_and_variables_stay_apart() -> None:
    a, b = Tensor.of([1.0, 1.0, 1.0]), Tensor.of([1.0, 1.0, 1.0])
    v, w = Variable([1.0, 1.0, 1.0]), Variable([1.0, 1.0, 1.0])

    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        v.assign(w.value)
        return [primitives.add(x, s) for s in (x, y, a, b, a, v, w)]

    merged = merge_common(trace_graph(function, [FLOAT, FLOAT])[0])
    assert names(merged).count("add") == 5  # to x, y, a, b, w: a twice, and v has become w
    assert [variable for variable, _ in merged.updates] == [v]


def test_merging_updates_and_several_outputs() -> None:
    v = Variable([0.0, 0.0, 0.0])

    def function(x: Symbol) -> list[Symbol]:
        first = primitives.call(x, name="pair", body=body, rule=None, options=None)
        second = primitives.call(x, name="pair", body=body, rule=None, options=None)
        v.assign(second[1])
        return [first[0], second[0]]

    body, _ = trace_graph(lambda x: [primitives.sin(x), primitives.cos(x)], [FLOAT])
    graph, _ = trace_graph(function, [FLOAT])
    merged = merge_common(graph)
    assert names(merged) == ["input", "call"]
    assert merged.outputs[0].key == merged.outputs[1].key
    assert merged.updates[0][1].index == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "mul", "sin", "neg"]), st.integers(0, 30), st.integers(0, 30)), max_size=40
    )
)
def test_merging_keeps_values(steps: list[tuple[str, int, int]]) -> None:
    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        values = [x, y]
        for name, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(getattr(primitives, name)(*((a, b) if name in ("add", "mul") else (a,))))
        return values

    graph, _ = trace_graph(function, [FLOAT, FLOAT])
    merged = merge_common(graph)
    expressions = {(node.name, tuple(map(key_of, node.inputs))) for node in merged.nodes() if node.primitive}
    assert len(expressions) == sum(1 for node in merged.nodes() if node.primitive)
    x, y = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    with np.errstate(all="ignore"):
        for ours, theirs in zip(run(merged, x, y), run(graph, x, y), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# Programs ------------------------------------------------------------------------------------------------------------
def test_a_program_drops_values_after_their_last_use() -> None:
    graph, _ = trace_graph(lambda x: [primitives.cos(primitives.exp(primitives.sin(x)))], [FLOAT])
    drops = [step.drops for step in Program(graph).steps]
    outputs = [step.outputs[0] for step in Program(graph).steps]
    assert drops == [(), (outputs[0],), (outputs[1],)]


def test_outputs_that_nobody_reads_are_dropped_at_once() -> None:
    body, _ = trace_graph(lambda x: [primitives.sin(x), primitives.cos(x)], [FLOAT])
    graph, _ = trace_graph(lambda x: [primitives.call(x, name="pair", body=body, rule=None, options=None)[1]], [FLOAT])
    (step,) = Program(graph).steps
    assert step.drops == (step.outputs[0],)


def test_inputs_may_be_outputs() -> None:
    x = Tensor.of([1.0, 2.0])
    a, b, c = jit(lambda x: (x, x, x + 1))(x)
    assert a.tolist() == b.tolist() == [1, 2]
    assert c.tolist() == [2, 3]
