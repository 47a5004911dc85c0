"""Gather and scatters beyond their samples: indices out of range, updates that meet, ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import Tensor, grad
from highlevel.ir.primitives import (
    gather,
    reduce_sum,
    scatter_add,
    scatter_max,
    scatter_min,
    scatter_set,
)


def floats(*values: float) -> Tensor:
    return Tensor.of(np.array(values, np.float32))


def column(*indices: int, dtype: Any = np.int32) -> Tensor:
    return Tensor.of(np.array(indices, dtype).reshape(-1, 1))


@pytest.mark.parametrize("index", [-1, 7, 2**31 - 1])
@pytest.mark.parametrize("operator", [gather, scatter_add, scatter_set, scatter_max, scatter_min])
def test_an_index_outside_is_named(operator: Any, index: int) -> None:
    x, indices = Tensor.of(np.zeros((4, 7), np.float32)), np.zeros((2, 3, 2), np.int32)
    indices[1, 2, 1] = index
    more = () if operator is gather else (Tensor.of(np.zeros((2, 3), np.float32)),)
    with pytest.raises(ArgumentError) as caught:
        operator(x, Tensor.of(indices), *more)
    text = str(caught.value)
    assert f"index {index} is outside of axis 1" in text
    assert "at position (1, 2)" in text
    assert "0…6 (size 7)" in text


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.int64, np.uint64])
def test_every_integer_type_indexes(dtype: Any) -> None:
    assert gather(floats(10, 11, 12), column(2, 0, dtype=dtype)).tolist() == [12, 10]


def test_updates_that_meet_are_combined_in_their_order() -> None:
    """In float32, 2²⁴ + 1 + 1 is 2²⁴ and 1 + 1 + 2²⁴ is not: the order shows."""
    big = 2.0**24
    assert scatter_add(floats(0), column(0, 0, 0), floats(big, 1, 1)).tolist() == [big]
    assert scatter_add(floats(0), column(0, 0, 0), floats(1, 1, big)).tolist() == [big + 2]
    assert scatter_set(floats(0, 0), column(1, 1), floats(3, 4)).tolist() == [0, 4]


def test_half_types_add_up_in_float32() -> None:
    ones = Tensor.of(np.ones(4096, np.float16))
    assert scatter_add(Tensor.of(np.zeros(1, np.float16)), column(*[0] * 4096), ones).tolist() == [4096]


def test_only_the_update_that_stays_has_a_gradient() -> None:
    def loss(x: Any, updates: Any) -> Any:
        return reduce_sum(scatter_set(x, column(1, 2, 1), updates) * floats(1, 10, 100), axes=(0,))

    of_x, of_updates = grad(loss, argnums=(0, 1))(floats(0, 0, 0), floats(5, 6, 7))
    assert of_x.tolist() == [1, 0, 0]
    assert of_updates.tolist() == [0, 100, 10]


@pytest.mark.parametrize("operator", [scatter_max, scatter_min])
def test_ties_share_the_gradient(operator: Any) -> None:
    def loss(x: Any, updates: Any) -> Any:
        return reduce_sum(operator(x, column(0, 0, 1), updates) * floats(6, 10), axes=(0,))

    of_x, of_updates = grad(loss, argnums=(0, 1))(floats(2, 3), floats(2, 2, 3))
    assert of_x.tolist() == [2, 5]
    assert of_updates.tolist() == [2, 2, 5]


def test_nan_is_an_extreme() -> None:
    assert np.isnan(scatter_max(floats(1), column(0), floats(np.nan)).numpy()).all()


@pytest.mark.parametrize(
    ("operands", "error", "words"),
    [
        ((floats(1, 2), floats(1.0)), DTypeError, "not integers"),
        ((floats(1, 2), Tensor.of(np.zeros((2, 2), np.int32))), ShapeError, r"indices\[..., None\]"),
        ((floats(1, 2), Tensor.of(np.int32(1))), ShapeError, "do not fit"),
    ],
)
def test_errors(operands: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        gather(*operands)
