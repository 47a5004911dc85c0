"""Sorting beyond its samples: stability and NaN in both directions; helpers along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import ArgumentError, DTypeError
from highlevel.ir import Tensor, grad, jit
from highlevel.ir.primitives import argsort, cumsum, reduce_sum, sort, top_k
from highlevel.ir.primitives.ordering import put_along, take_along


def floats(*values: float) -> Tensor:
    return Tensor.of(np.array(values, np.float32))


def test_nan_is_last_and_equals_keep_their_order_in_both_directions() -> None:
    x = floats(2, np.nan, 1, 2, np.nan, -np.inf, np.inf)
    assert argsort(x, axis=0, descending=False).tolist() == [5, 2, 0, 3, 6, 1, 4]
    assert argsort(x, axis=0, descending=True).tolist() == [6, 0, 3, 2, 5, 1, 4]
    np.testing.assert_array_equal(sort(x, axis=0, descending=True).numpy()[-2:], [np.nan, np.nan])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.uint32, bool])
def test_the_ends_of_integer_types_sort_downwards(dtype: Any) -> None:
    ends = (False, True) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = Tensor.of(np.array([ends[0], ends[1], ends[0]], dtype))
    assert argsort(x, axis=0, descending=True).tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_sort(dtype: str) -> None:
    x = floats(2, np.nan, -1).astype(dtype)
    assert argsort(x, axis=0, descending=False).tolist() == [2, 0, 1]


def test_top_k_takes_the_first_of_equals() -> None:
    values, indices = top_k(floats(1, 3, 3, 2, 3), k=2)
    assert values.tolist() == [3, 3]
    assert indices.tolist() == [1, 2]
    with pytest.raises(ArgumentError, match="k=6"):
        top_k(floats(1, 3, 3, 2, 3), k=6)


def test_sums_of_half_types_run_in_float32() -> None:
    ones = Tensor.of(np.ones(4096, np.float16))
    assert cumsum(ones, axis=0, reverse=False, exclusive=False).numpy()[-1] == 4096
    with pytest.raises(DTypeError, match="cast"):
        cumsum(Tensor.of([True]), axis=0, reverse=False, exclusive=False)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_take_and_put_along_an_axis(axis: int, rng: Any) -> None:
    x = rng.standard_normal((3, 4, 5))
    order = np.argsort(rng.standard_normal(x.shape), axis=axis).astype(np.int32)[:2]
    fitting = order if axis == 0 else np.concatenate([order, order[:1]])
    got = take_along(Tensor.of(x), Tensor.of(fitting), axis).numpy()
    np.testing.assert_array_equal(got, np.take_along_axis(x, fitting, axis))
    put = put_along(Tensor.of(np.zeros_like(x)), Tensor.of(fitting), Tensor.of(got), axis).numpy()
    np.testing.assert_array_equal(np.take_along_axis(put, fitting, axis), got)


def test_the_gradient_of_sorting_follows_the_elements() -> None:
    weights = floats(1, 10, 100)
    loss = jit(grad(lambda x: reduce_sum(sort(x, axis=0, descending=True) * weights, axes=(0,))))
    assert loss(floats(5, 9, 7)).tolist() == [100, 1, 10]
