from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from highlevel import backends, ops
from highlevel.errors import BackendError
from highlevel.ir import REGISTRY, Tensor, Variable, jit, primitives, spec, trace_graph
from highlevel.ir.dtypes import ALL, DType


@pytest.fixture
def backend() -> Any:
    return backends.get("numpy")


def test_handles_are_numpy_arrays(backend: Any) -> None:
    array = np.arange(3.0)
    assert backend.to_host(backend.from_host(array)) is array
    assert backend.devices() == ["cpu"]
    assert backend.name == "numpy"


def test_one_operator(backend: Any) -> None:
    (out,) = backend.run(REGISTRY["add"], [np.array([1.0]), np.array([2.0])], {})
    assert out.tolist() == [3.0]
    body, _ = trace_graph(lambda x: [ops.sin(x), ops.cos(x)], [spec((2,))])
    pair = backend.run(REGISTRY["call"], [np.zeros(2)], {"name": "pair", "body": body})
    assert [p.tolist() for p in pair] == [[0, 0], [1, 1]]


def test_programs_return_outputs_and_update_variables(backend: Any) -> None:
    v, w = Variable([1.0, 2.0]), Variable([0.0, 0.0])

    def function(x: Any) -> Any:
        w.assign(v * 10.0)
        v.assign_add(x)
        return [v.value, x, Tensor.of([7.0])]

    graph, _ = trace_graph(function, [spec((2,))])
    executable = backend.compile(graph, {})
    for i in (1, 2):
        outputs = executable.run([np.array([1.0, 1.0], np.float32)])
        assert [o.tolist() for o in outputs] == [[1 + i, 2 + i], [1, 1], [7]]
        assert (v.tolist(), w.tolist()) == ([1 + i, 2 + i], [10 * i, 10 * (i + 1)])


def test_updates_happen_after_everything_was_computed(backend: Any) -> None:
    a, b = Variable(1.0), Variable(2.0)

    def swap() -> list[Any]:
        first = a.value
        a.assign(b)
        b.assign(first)
        return []

    executable = backend.compile(trace_graph(swap, [])[0], {})
    executable.run([])
    assert (a.item(), b.item()) == (2.0, 1.0)


def test_a_failed_run_updates_nothing() -> None:
    v, table = Variable(1.0), Tensor.of([1.0, 2.0])

    @jit
    def function(i: Any) -> Any:
        v.assign_add(1.0)
        return ops.take(table, i)

    with pytest.raises(ValueError, match="outside"):
        function(Tensor.of(5))
    assert v.item() == 1.0
    assert function(Tensor.of(1)).item() == 2.0
    assert v.item() == 2.0


def test_options_are_refused(backend: Any) -> None:
    graph, _ = trace_graph(lambda x: [x], [spec((2,))])
    with pytest.raises(BackendError, match="has no options"):
        backend.compile(graph, {"threads": 4})


def test_ieee_values_come_without_warnings() -> None:
    x = Tensor.of([0.0, -1.0, np.inf, np.nan, 3e38])
    function = lambda x: (1.0 / x, ops.log(x), ops.sqrt(x), x * 10.0, x - x, ops.cast(x, "int32"))  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for out in (*function(x), *jit(function)(x)):
            assert out.shape == (5,)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(jit(function)(x)[0].numpy(), np.float32(1.0) / x.numpy())


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_results_have_the_promised_types(dtype: DType) -> None:
    """Also where NumPy would widen: sums of small integers, quotients of half types."""
    x = Tensor.of(np.ones((2, 3)), dtype)
    for out in (
        primitives.reduce_sum(x, axes=(0,)),
        primitives.reduce_prod(x, axes=(0, 1)),
        primitives.reduce_max(x, axes=(1,)),
        primitives.concatenate(x, x, axis=0),
        primitives.select(x == x, x, x),
    ):
        assert out.numpy().dtype == dtype.numpy
        assert out.shape == out.numpy().shape


def test_half_types_add_up_in_float32() -> None:
    x = Tensor.of(np.full(4096, 1.0), "float16")
    assert ops.sum(x).item() == 4096.0  # one at a time, float16 would stop at 2048
    assert (ops.reshape(x, (1, -1)) @ ops.reshape(x, (-1, 1))).item() == 4096.0
