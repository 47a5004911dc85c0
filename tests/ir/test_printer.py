"""Golden text: the same program prints the same text, in every run and every process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from functools import partial
from typing import Any

from highlevel.ir import Graph, Symbol, Tensor, Variable, operators, primitives, scan, spec, trace, trace_graph
from highlevel.ir.printer import format_value

DENSE = """
graph(%0: float32 (2, 3)) {
  %1 = variable(dense/kernel) : float32 (3, 4)    # dense
  %2 = matmul(%0, %1) : float32 (2, 4)    # dense
  %3 = constant([0.5, 1.0, 1.5, 2.0]) : float32 (4,)    # dense
  %4 = reshape(%3, shape=(1, 4)) : float32 (1, 4)    # dense
  %5 = broadcast(%4, shape=(2, 4)) : float32 (2, 4)    # dense
  %6 = add(%2, %5) : float32 (2, 4)    # dense
  %7 = full(shape=(3, 4), value=0.0, dtype=float32) : float32 (3, 4)
  %8 = constant() : float32 (2, 64)
  dense/kernel <- %7
  return %6, %8
}
"""

LOOP = """
graph(%0: float32 (), %1: float32 (5,)) {
  %2, %3, %4 = scan(%0, %0, body=graph<3 nodes>, constants=1, carries=1, length=5, reverse=False) : float32 (), float32 (5,), float32 (5,)
    body: graph(%0: float32 (), %1: float32 ()) {
      %2 = mul(%1, %0) : float32 ()
      return %2, %1, %2
    }
  return %2, %2
}
"""  # noqa: E501


def dense() -> Graph:
    kernel = Variable(operators.full((3, 4), 1.0, operators.as_dtype("float32")), path="dense/kernel")
    bias = Tensor.of([0.5, 1.0, 1.5, 2.0])
    table = operators.full((2, 64), 1.0, operators.as_dtype("float32"))

    def function(x: Symbol) -> list[Any]:
        with trace.scope("dense"):
            y = x @ kernel + bias
        kernel.assign(operators.full((3, 4), 0.0, kernel.dtype))
        return [y, table]

    return trace_graph(function, [spec((2, 3))])[0]


def loop() -> Graph:
    def function(x: Symbol, xs: Symbol) -> list[Any]:
        end, _ = scan(lambda c, _: (c * x, None), x, xs)
        return [end, end]

    return trace_graph(function, [spec(()), spec((5,))])[0]


def test_golden_text() -> None:
    assert str(dense()) == DENSE.strip()
    assert repr(dense()) == str(dense())


def test_golden_text_of_a_loop() -> None:
    assert str(loop()) == LOOP.strip()


def test_the_same_in_another_process() -> None:
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import highlevel, test_printer
        print(test_printer.dense())
        print(test_printer.loop())
    """)
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__)],  # noqa: PTH120
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout == f"{dense()}\n{loop()}\n"


def test_attributes_are_printed_without_addresses() -> None:
    def named(x: Any) -> Any:
        return x

    values = [
        1,
        1.0,
        True,
        "a",
        None,
        (1,),
        (),
        [1, 2],
        {"k": (1.5,)},
        operators.as_dtype("int8"),
        named,
        partial(named),
        object(),
    ]
    text = [format_value(value) for value in values]
    assert text == [
        "1",
        "1.0",
        "True",
        "'a'",
        "None",
        "(1,)",
        "()",
        "(1, 2)",
        "{k=(1.5,)}",
        "int8",
        "named",
        "partial",
        "object",
    ]
    assert format_value(operators.np.float32(1.5)) == "1.5"


def test_printing_leaves_no_trace() -> None:
    graph = dense()
    count = len(graph.nodes())
    str(graph)
    assert len(graph.nodes()) == count
    assert [node.name for node in graph.nodes() if node.name == "full"] == ["full"]
    assert isinstance(primitives.add.name, str)
