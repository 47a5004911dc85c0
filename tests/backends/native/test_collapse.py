"""Merged axes: the same values, and as few loops as there are walks through memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel import ops
from highlevel.backends.native.schedule.collapse import collapse
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import evaluate
from highlevel.ir import Spec, as_dtype, trace_graph, tree

FLOAT = as_dtype("float32")
CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int, int]] = {
    "elementwise": (lambda x, y: x * y + 1.0, [(2, 3, 4), (2, 3, 4)], 1, 0),
    "bias along the last axis": (lambda x, b: x + b, [(2, 3, 4), (4,)], 2, 0),
    "scale of the first axis": (lambda x, s: x * s[:, None, None], [(2, 3, 4), (2,)], 2, 0),
    "transposed": (lambda x: ops.transpose(x, (1, 0, 2)) * 2.0, [(2, 3, 4)], 3, 0),
    "transposed as matrices": (lambda x: ops.transpose(x, (2, 0, 1)) * 2.0, [(2, 3, 4)], 2, 0),
    "sum over all but the last": (lambda x: ops.sum(x, axis=(0, 1, 2)), [(2, 3, 4, 5)], 1, 1),
    "sum over the middle": (lambda x: ops.sum(x, axis=(1, 2)), [(2, 3, 4, 5)], 2, 1),
    "softmax of images": (lambda x: ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True), [(2, 3, 4, 5)], 1, 1),
    "padding": (lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0))), [(2, 3, 4)], 2, 0),
    "axes of size one": (lambda x: x * 2.0, [(1, 3, 1, 4)], 1, 0),
    "a single number": (lambda x: x * 2.0, [()], 0, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_values_in_fewer_loops(name: str, rng: np.random.Generator) -> None:
    function, shapes, rows, columns = CASES[name]
    graph, _ = trace_graph(lambda *s: tree.leaves(function(*s)), [Spec(shape, FLOAT) for shape in shapes])
    (kernel,) = plan_fusion(graph).kernels
    merged = collapse(kernel)
    found = []
    arrays = {f"in{i}": rng.standard_normal(shape).astype("float32") for i, shape in enumerate(shapes)}
    for candidate in (kernel, merged):
        buffers = {**arrays, kernel.name: np.zeros(kernel.outputs[0].buffer.shape, "float32")}
        evaluate(candidate, buffers)
        found.append(buffers[kernel.name])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    assert (len(merged.rows), len(merged.columns)) == (rows, columns), str(merged)
