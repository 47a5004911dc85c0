from __future__ import annotations

import gc
import inspect
import threading
import time
from typing import Any

import numpy as np
import pytest

from highlevel import layers, ops
from highlevel.errors import TraceError
from highlevel.ir import (
    Symbol,
    Tensor,
    Trace,
    Variable,
    cond,
    gradients,
    jit,
    operators,
    primitives,
    scan,
    scope,
    spec,
    trace,
    trace_graph,
)
from highlevel.ir.subgraph import trace_subgraph

FLOAT = spec((3,))


def test_symbols_are_not_numbers() -> None:
    def function(x: Symbol) -> list[Symbol]:
        y = x * 2.0
        for use in (
            float,
            int,
            bool,
            np.asarray,
            lambda s: s.item(),
            lambda s: s.tolist(),
            lambda s: [1, 2][s],
            lambda s: f"{s:.2f}",
        ):
            with pytest.raises(
                TraceError, match=r"a symbolic value was used as a number: float32 \(\) of mul"
            ) as caught:
                use(y)
            text = str(caught.value)
            assert "test_trace.py:" in text  # the line that made the symbol
            assert "ops.cond" in text
            assert len(text.splitlines()) <= 10
        assert repr(y) == "<Symbol float32 () of mul>"
        assert f"{y}" == repr(y)
        return [y]

    trace_graph(function, [spec(())])


def test_symbols_can_be_iterated() -> None:
    graph, _ = trace_graph(lambda x: list(x), [FLOAT])
    assert [symbol.shape for symbol in graph.outputs] == [(), (), ()]


def test_masks_need_numbers() -> None:
    with pytest.raises(TraceError):
        trace_graph(lambda x: [x[x > 0.0]], [FLOAT])


# Leaks ---------------------------------------------------------------------------------------------------------------
def leaked() -> Symbol:
    kept: list[Symbol] = []
    trace_graph(lambda x: kept.append(x * 2.0) or [], [FLOAT])
    return kept[0]


@pytest.mark.parametrize("traced", [False, True])
def test_a_symbol_used_after_its_function(traced: bool) -> None:
    symbol = leaked()
    uses: list[Any] = [
        lambda: symbol + 1.0,
        lambda: primitives.sin(symbol),
        lambda: symbol[0],
        lambda: Tensor.of([1.0, 2.0, 3.0]) * symbol,
        lambda: Variable([0.0, 0.0, 0.0]).assign(symbol),
    ]
    uses += [lambda: symbol] if traced else []  # returned as it is
    for use in uses:
        with pytest.raises(TraceError, match="outside of the function that made it") as caught:
            jit(use)() if traced else use()
        assert "test_trace.py" in str(caught.value)
        assert not trace.is_open()


def test_a_symbol_of_a_loop_does_not_leave_it() -> None:
    kept: list[Symbol] = []

    def function(xs: Symbol) -> Symbol:
        def body(c: Symbol, x: Symbol) -> tuple[Symbol, None]:
            kept.append(c * x)
            return kept[-1], None

        scan(body, 0.0, xs)
        return kept[-1] + 1.0  # type: ignore[no-any-return]

    with pytest.raises(TraceError, match="outside of the function that made it"):
        jit(function)(np.zeros(4, np.float32))


def test_a_symbol_of_one_branch_does_not_reach_the_other() -> None:
    kept: list[Symbol] = []

    def function(x: Symbol) -> Any:
        return cond(x > 0.0, lambda: kept.append(x + 1.0) or kept[0], lambda: kept[0] * 2.0)

    with pytest.raises(TraceError, match="outside of the function that made it"):
        jit(function)(np.float32(1.0))


def test_a_failed_trace_leaves_nothing_open() -> None:
    def function(x: Symbol) -> list[Symbol]:
        with scope("layer"):
            raise KeyError("no")

    for _ in range(2):
        with pytest.raises(KeyError):
            trace_graph(function, [FLOAT])
        assert not trace.is_open()
        assert trace.scope_path() == ""
    assert (Tensor.of(1.0) + 1).item() == 2


# Programs inside of programs -----------------------------------------------------------------------------------------
def test_a_graph_traced_while_another_is_open_is_its_own() -> None:
    v = Variable(2.0)
    inner_graphs = []

    def function(x: Symbol) -> list[Symbol]:
        inner, record = trace_graph(lambda y: [y * v], [FLOAT])
        inner_graphs.append(inner)
        assert [variable for variable, _ in inner.reads] == [v]
        assert len(record.reads) == 1
        return [x + 1.0]

    graph, record = trace_graph(function, [FLOAT])
    assert graph.reads == ()
    assert not record.reads
    assert len(inner_graphs[0].inputs) == 1
    compiled = jit(lambda x: x * 3.0)
    graph, _ = trace_graph(lambda x: [compiled.graph(Tensor.of(1.0)).outputs and x], [FLOAT])
    assert len(graph.nodes()) == 1


def test_suspended_computes_now() -> None:
    def function(x: Symbol) -> list[Symbol]:
        with trace.suspended():
            assert operators.full((2,), 1.0, x.dtype).tolist() == [1, 1]
            made = Variable([1.0, 2.0, 3.0])
            made.assign_add(1.0)
            assert made.tolist() == [2, 3, 4]
        return [x * made]

    graph, _ = trace_graph(function, [FLOAT])
    assert len(graph.reads) == 1
    assert graph.updates == ()


def test_constants_are_taken_up_once() -> None:
    table = Tensor.of(np.zeros((1000, 3), np.float32))

    def function(x: Symbol) -> list[Symbol]:
        inner = scan(lambda c, _: ((c * table)[0], None), x, None, length=3)[0]
        return [table @ x, inner, table + x]

    graph, _ = trace_graph(function, [FLOAT])
    constants = [node for node in graph.nodes() if node.leaf is not None and node.leaf.kind == "constant"]
    assert [node.leaf.value is table for node in constants if node.leaf] == [True]


# Sub-graphs ----------------------------------------------------------------------------------------------------------
def test_a_subgraph_is_closed() -> None:
    v = Variable([1.0, 1.0, 1.0])
    constant = Tensor.of([1.0, 2.0, 3.0])

    def function(x: Symbol, y: Symbol) -> list[Symbol]:
        outer = x * 2.0
        sub = trace_subgraph(lambda a: [a + outer * constant + v, y], [FLOAT])
        assert [symbol.key for symbol in sub.captured] == sorted(symbol.key for symbol in sub.captured)
        assert {symbol.key for symbol in sub.captured} >= {outer.key, y.key}
        assert len(sub.captured) == 4  # outer, y, the constant, the variable
        assert all(node.leaf is None or node.leaf.kind == "input" for node in sub.graph.nodes())
        assert all(node.owner == sub.graph.owner for node in sub.graph.nodes())
        assert [symbol.spec for symbol in sub.graph.inputs] == [FLOAT] * 5
        assert sub.state == ()
        return [outer]

    trace_graph(function, [FLOAT, FLOAT])


def test_what_does_not_depend_on_a_loop_is_hoisted_out_of_it() -> None:
    def function(x: Symbol, xs: Symbol) -> list[Symbol]:
        def outer(c: Symbol, row: Symbol) -> tuple[Symbol, None]:
            def inner(d: Symbol, item: Symbol) -> tuple[Symbol, None]:
                return d + item * primitives.exp(x) * primitives.sin(
                    c
                ), None  # exp leaves both loops, sin the inner one

            return scan(inner, c, row)[0], None

        return [scan(outer, 0.0, xs)[0]]

    graph, _ = trace_graph(function, [spec(()), spec((4, 5))])
    (loop,) = [node for node in graph.nodes() if node.name == "scan"]
    (inner_loop,) = [node for node in loop.attrs["body"].nodes() if node.name == "scan"]
    where = {
        name: [
            level
            for level, part in enumerate((graph, loop.attrs["body"], inner_loop.attrs["body"]))
            if any(n.name == name for n in part.nodes())
        ]
        for name in ("exp", "sin", "mul")
    }
    assert where == {"exp": [0], "sin": [1], "mul": [2]}


def test_nothing_is_hoisted_out_of_a_branch() -> None:
    """What a branch computes is computed only if it is taken, also in loops inside of it."""

    def function(p: Symbol, x: Symbol) -> list[Symbol]:
        def branch() -> Symbol:
            return scan(lambda c, _: (c + primitives.exp(x), None), 0.0, None, length=3)[0]  # type: ignore[no-any-return]

        return [cond(p, branch, lambda: x)]

    graph, _ = trace_graph(function, [spec((), "bool"), spec(())])
    assert not [node for node in graph.nodes() if node.name == "exp"]
    (node,) = [node for node in graph.nodes() if node.name == "cond"]
    assert [n.name for n in node.attrs["then"].nodes()].count("exp") == 1


# Origins -------------------------------------------------------------------------------------------------------------
def test_nodes_know_the_line_and_the_layer() -> None:
    def function(x: Symbol) -> list[Symbol]:
        with scope("block"), scope("dense"):
            return [x @ x]

    graph, _ = trace_graph(function, [spec((2, 2))])
    origin = graph.outputs[0].node.origin
    assert origin.layer == "block/dense"
    assert origin.file == __file__
    assert origin.line == function.__code__.co_firstlineno + 2
    assert str(origin) == f"block/dense  {__file__}:{origin.line}"


def test_the_users_line_is_the_nearest_one() -> None:
    """A layer's nodes are of the line that calls the layer; those of a function that the user hands in, of that one."""

    def square(x: Any) -> Any:
        return x * x

    layer = layers.Dense(2, activation=square)
    layer.build((None, 3))

    def function(x: Symbol) -> list[Symbol]:
        y = layer(x)
        return [y + 1.0, layer(y[:, :1] * spread)]

    spread = Tensor.of(np.ones(3, "float32"))
    graph, _ = trace_graph(function, [spec((4, 3))])
    first = inspect.getsourcelines(function)[1]
    lines = [(n.name, n.origin.line - first, n.origin.layer) for n in graph.nodes() if n.primitive is not None]
    inside = inspect.getsourcelines(square)[1] + 1 - first
    assert [line for line in lines if line[1] == inside] == [("mul", inside, "dense")] * 2
    assert [line for line in lines if line[0] == "matmul"] == [("matmul", 1, "dense"), ("matmul", 2, "dense")]
    assert [line for line in lines if line[0] == "slice"] == [("slice", 2, "")]
    assert {line[1] for line in lines} == {1, 2, inside}


def test_gradients_belong_to_the_layer_that_they_are_the_gradient_of() -> None:
    def function(x: Symbol) -> list[Symbol]:
        with scope("encoder/dense"):
            y = operators.multiply(x, x)
        with scope("loss"):
            loss = ops.sum(y)
        with scope("optimizer"):
            gradient = gradients(loss, x)
            return [gradient * 0.5]

    graph, _ = trace_graph(function, [FLOAT])
    layers = [(node.name, node.origin.layer) for node in graph.nodes() if node.primitive and node.name != "full"]
    assert layers[:2] == [("reshape", "loss"), ("broadcast", "loss")]
    assert set(layers[2:-1]) == {("mul", "encoder/dense"), ("add", "encoder/dense")}
    assert layers[-1] == ("mul", "optimizer")
    assert all(node.origin.file == __file__ for node in graph.nodes())


def test_garbage_is_not_looked_for_while_tracing() -> None:
    seen = []
    trace_graph(lambda x: [x * float(len(seen.append(gc.isenabled()) or seen))], [FLOAT])
    assert (seen, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        trace_graph(lambda x: [x], [FLOAT])
        assert not gc.isenabled(), "who switched it off switches it on again"
    finally:
        gc.enable()


def test_code_typed_in_by_hand_has_an_origin_too() -> None:
    space: dict[str, Any] = {}
    exec(compile("def function(x):\n    return [x * x]", "<stdin>", "exec"), space)
    graph, _ = trace_graph(space["function"], [FLOAT])
    assert (graph.outputs[0].node.origin.file, graph.outputs[0].node.origin.line) == ("<stdin>", 2)


# Threads and time ----------------------------------------------------------------------------------------------------
def test_threads_trace_side_by_side() -> None:
    v = Variable([1.0, 2.0, 3.0])
    barrier = threading.Barrier(4)
    results: dict[int, list[str]] = {}

    def work(i: int) -> None:
        def function(x: Symbol) -> list[Symbol]:
            with scope(f"layer{i}"):
                for _ in range(50):
                    barrier.wait(10)
                    x = x * v + float(i)
            return [x]

        graph, _ = trace_graph(function, [FLOAT])
        results[i] = [str(graph)]
        assert {node.origin.layer for node in graph.nodes() if node.primitive} == {f"layer{i}"}

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert {
        text[0].replace(f"layer{i}", "layer").replace(f"value={i}.0", "value=?") for i, text in results.items()
    }.__len__() == 1


def test_another_thread_is_not_in_the_trace() -> None:
    seen = []

    def function(x: Symbol) -> list[Symbol]:
        thread = threading.Thread(target=lambda: seen.append((Tensor.of(1.0) + 1).item()))
        thread.start()
        thread.join()
        return [x]

    trace_graph(function, [FLOAT])
    assert seen == [2.0]


def test_tracing_is_fast() -> None:
    """About 8 µs per node on an idle machine; the bound leaves room for a busy one."""

    def chain(count: int) -> Any:
        def function(x: Symbol) -> list[Symbol]:
            for _ in range(count // 2):
                x = primitives.add(x, primitives.sin(x))
            return [x]

        return function

    best = min(_seconds(chain(4000)) for _ in range(5)) / 4000
    assert best < 40e-6


def _seconds(function: Any) -> float:
    start = time.thread_time()
    trace_graph(function, [FLOAT])
    return time.thread_time() - start


def test_an_open_trace_is_seen() -> None:
    assert not trace.is_open()
    with Trace() as outer, Trace() as inner:
        assert trace.is_open()
        assert trace.open_traces() == [outer, inner]
        assert inner.serial > outer.serial
    assert not trace.is_open()
