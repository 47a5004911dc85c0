"""What programs look like after simplification: one line per idea, as operators that remain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import ops
from highlevel.backends.native.passes.check import evaluate
from highlevel.backends.native.passes.pipeline import run_passes
from highlevel.ir import Symbol, gradients, primitives, trace_graph
from highlevel.ir.dtypes import bfloat16, bool_, float32, float64, int32
from highlevel.ir.operators import cast
from highlevel.ir.spec import spec

A, B, ROW = spec((2, 3, 4)), spec((6, 4)), spec((4,))
N, F64, HALF, FLAGS = spec((6, 4), int32), spec((6, 4), float64), spec((6, 4), bfloat16), spec((6, 4), bool_)


def gradient(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *x: gradients(ops.sum(loss(*x)), x[0])


def pieces(x: Symbol) -> Any:
    a, b, c = ops.split(x, 3, axis=1)
    return ops.concatenate([b * b, a * 2.0, ops.exp(c)], axis=1)


CASES: list[tuple[str, Callable[..., Any], list[Any], str]] = [
    # Algebra
    ("nothing is added", lambda x: x - 0.0, [B], ""),
    ("−0.0 is not", lambda x: x + 0.0, [B], "add full"),
    ("unless it cannot be there", lambda x: ops.exp(x) + 0.0, [B], "exp"),
    ("signs cancel", lambda x, y: -x * -y - (-x), [B, B], "add mul"),
    ("integers cancel", lambda x, y: (x + y) - y, [N, N], ""),
    ("floats do not", lambda x, y: (x + y) - y, [B, B], "add sub"),
    ("halves", lambda x: x / 2.0, [B], "full mul"),
    ("a mean divides once", lambda x: ops.mean(x) / 3.0, [B], "full mul reduce_sum"),
    ("choice of one thing", lambda c, x: ops.where(c, x, x), [FLAGS, B], ""),
    ("double negation", lambda c, x: ops.where(~~c, x, ops.negative(-x)), [FLAGS, B], ""),
    # Movement
    ("transposes cancel", lambda x: ops.transpose(ops.exp(ops.transpose(x, (2, 0, 1))), (1, 2, 0)), [A], "exp"),
    ("reshapes merge", lambda x: ops.reshape(ops.reshape(x, (24,)), (4, 6)), [A], "reshape"),
    ("and vanish", lambda x: ops.reshape(ops.exp(ops.reshape(x, (24,))), (2, 3, 4)), [A], "exp"),
    ("flips cancel", lambda x: ops.flip(ops.flip(x, 1), 1), [B], ""),
    ("slices merge", lambda x: x[1:5, ::2][1:, 1:], [B], "slice"),
    ("slices of joined things", lambda x, y: ops.concatenate([x, y], 0)[6:], [B, B], ""),
    ("joined slices", lambda x: ops.concatenate([x[:2], x[2:5], x[5:]], 0), [B], ""),
    ("a margin cut off", lambda x: ops.pad(x, ((1, 1), (2, 0)))[1:7, 2:], [B], ""),
    ("pads merge", lambda x: ops.pad(ops.pad(x, ((1, 1), (2, 0))), ((0, 1), (1, 0))), [B], "pad"),
    ("what is repeated is computed once", lambda x: ops.exp(ops.broadcast_to(x, (6, 4))) * 2.0, [ROW],
     "broadcast exp full mul reshape"),
    ("the largest of copies", lambda x: ops.max(ops.broadcast_to(x, (6, 4)), 0), [ROW], ""),
    ("the sum of copies", lambda x: ops.sum(ops.broadcast_to(x, (6, 4)), 0), [ROW], "full mul"),
    ("sums of sums", lambda x: ops.sum(ops.sum(x, 2), 0), [A], "reduce_sum"),
    ("sums of transposes", lambda x: ops.sum(ops.transpose(x, (2, 0, 1)), (1, 2)), [A], "reduce_sum"),
    ("the gradient of a split is joined", gradient(pieces), [spec((2, 6))], "add concatenate exp full slice slice"),
    # Stability
    ("log of 1 + eˣ", lambda x: ops.log(1.0 + ops.exp(x)), [B], "abs add exp full log1p maximum neg"),
    ("log of a softmax", lambda x: ops.log(ops.softmax(x)), [B],
     "broadcast broadcast exp full isfinite log reduce_max reduce_sum reshape reshape select sub sub"),
    ("log of a sigmoid", lambda x: ops.log(ops.sigmoid(x)), [B], "abs add exp full log1p maximum neg neg neg"),
    ("eˣ − 1", lambda x: ops.exp(x) - 1.0, [B], "expm1"),
    ("root of a square", lambda x: ops.sqrt(x * x), [B], "abs"),
    # Precision
    ("there and back", lambda x: cast(cast(x, float32), bfloat16), [HALF], ""),
    ("back and there", lambda x: cast(cast(x, bfloat16), float32), [B], "cast cast"),
    ("move, then widen", lambda x: cast(ops.transpose(cast(x, float32)), bfloat16), [HALF], "transpose"),
    ("compared as they are", lambda x, y: cast(x, float32) < cast(y, float32), [HALF, HALF], "less"),
    ("weights once", lambda w, x, y: (x @ cast(w, bfloat16).T) @ cast(w, bfloat16) + y @ cast(w, bfloat16).T.T,
     [spec((4, 4)), HALF, HALF], "add cast matmul matmul matmul transpose"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "specs", "remain"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_remains(function: Any, specs: Any, remain: str) -> None:
    graph, _ = trace_graph(lambda *x: [function(*x)], specs)
    after = run_passes(graph, check=True)
    assert " ".join(sorted(node.name for node in after.nodes() if node.primitive is not None)) == remain


def test_convolutions_pad_by_themselves() -> None:
    """The layer that pads, the convolution, and both of its gradients."""

    def function(x: Symbol, k: Symbol) -> list[Symbol]:
        padded = ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))
        y = primitives.conv(padded, k, strides=(2, 1), padding=((0, 0),) * 2, dilation=(1, 1), groups=1)
        return [y, *gradients(ops.sum(y * y), [x, k])]

    graph, _ = trace_graph(function, [spec((2, 5, 4, 3)), spec((3, 2, 3, 2))])
    after = run_passes(graph, check=True)
    names = [node.name for node in after.nodes() if node.primitive is not None]
    assert not {"pad", "slice"} & set(names)
    padding = [node.attrs["padding"] for node in after.nodes() if node.name.startswith("conv")]
    assert padding == [((1, 2), (0, 1))] * 3


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (lambda x: ops.log(1.0 + ops.exp(x)), [1000.0, -1000.0, 0.0], [1000.0, 0.0, np.log(2.0)]),
        (lambda x: ops.log(1.0 / (1.0 + ops.exp(-x))), [1000.0, -1000.0], [0.0, -1000.0]),
        (lambda x: ops.exp(x) / (1.0 + ops.exp(x)), [1000.0, -1000.0], [1.0, 0.0]),
        (lambda x: ops.log(1.0 + x), [1e-10], [1e-10]),
        (lambda x: ops.sqrt(x * x), [1e30, -1e-30], [1e30, 1e-30]),
    ],
)
def test_what_overflowed_is_right(function: Any, x: Any, expected: Any) -> None:
    graph, _ = trace_graph(lambda x: [function(x)], [spec((len(x),))])
    (got,) = evaluate(run_passes(graph), [np.asarray(x, "float32")])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_softmax_of_a_masked_row_is_still_exactly_zero() -> None:
    graph, _ = trace_graph(lambda x: [ops.softmax(x), ops.log_softmax(x)], [spec((2, 3))])
    x = np.array([[1.0, -np.inf, 2.0], [-np.inf, -np.inf, 0.0]], "float32")
    soft, log_soft = evaluate(run_passes(graph), [x])
    assert (soft[0, 1], soft[1].tolist()) == (0.0, [0.0, 0.0, 1.0])
    assert log_soft[1].tolist() == [-np.inf, -np.inf, 0.0]


def test_dropout_and_its_gradient_stay_random() -> None:
    """Random bits are no constants, and those of two layers are not merged."""
    seed = hl.random.SeedGenerator(3)

    def function(x: Symbol) -> list[Symbol]:
        y = hl.random.dropout(hl.random.dropout(x, 0.5, seed=seed), 0.5, seed=seed)
        return [y, gradients(ops.sum(y), x)]

    graph, _ = trace_graph(function, [B])
    after = run_passes(graph, check=True)
    assert sum(node.name == "random_bits" for node in after.nodes()) == 2
