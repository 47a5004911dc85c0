"""Pooling windows beyond their samples: ties, NaN, padding that never wins, integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import DTypeError, ShapeError
from highlevel.ir import Tensor
from highlevel.ir.primitives import window_max, window_max_grad, window_max_take, window_sum

TWO = {"window": (2,), "strides": (2,), "padding": ((0, 0),), "dilation": (1,)}
PADDED = {"window": (3,), "strides": (1,), "padding": ((1, 1),), "dilation": (1,)}


def line(*values: float, dtype: Any = np.float32) -> Tensor:
    return Tensor.of(np.array(values, dtype).reshape(1, -1, 1))


def flat(x: Any) -> list[float]:
    return x.numpy().reshape(-1).tolist()


def test_the_first_of_equals_wins() -> None:
    x = line(3, 3, 1, 1)
    assert flat(window_max_grad(x, line(10, 20), **TWO)) == [10, 0, 20, 0]
    assert flat(window_max_take(x, line(1, 2, 3, 4), **TWO)) == [1, 3]


def test_nan_is_largest() -> None:
    x = line(1, np.nan, 5, 2)
    np.testing.assert_array_equal(flat(window_max(x, **TWO)), [np.nan, 5])
    assert flat(window_max_grad(x, line(10, 20), **TWO)) == [0, 10, 20, 0]
    assert flat(window_max_take(x, line(1, 2, 3, 4), **TWO)) == [2, 3]


def test_padding_never_wins_even_against_infinity() -> None:
    x = line(-np.inf, -np.inf, -5)
    assert flat(window_max(x, **PADDED)) == [-np.inf, -5, -5]
    assert flat(window_max_grad(x, line(1, 2, 4), **PADDED)) == [1, 0, 6]
    assert flat(window_max_take(x, line(7, 8, 9), **PADDED)) == [7, 9, 9]


def test_integers() -> None:
    x = line(-5, -7, -128, 3, dtype=np.int8)
    assert flat(window_max(x, **PADDED)) == [-5, -5, 3, 3]
    assert flat(window_sum(line(1, 2, 3, dtype=np.int32), **PADDED)) == [3, 6, 5]


def test_half_types_add_up_in_float32() -> None:
    x = Tensor.of(np.ones((1, 4096, 1), np.float16))
    assert flat(window_sum(x, window=(4096,), strides=(1,), padding=((0, 0),), dilation=(1,))) == [4096.0]


@pytest.mark.parametrize(
    ("x", "attrs", "error", "words"),
    [
        (np.zeros((2, 4)), TWO, ShapeError, "no spatial axis"),
        (np.zeros((2, 4, 1), bool), TWO, DTypeError, "cast the operand first"),
        (np.zeros((2, 1, 1)), TWO, ShapeError, "larger than the padded input"),
        (np.zeros((2, 4, 1)), {**TWO, "padding": ((2, 0),)}, ShapeError, "nothing but padding"),
    ],
)
def test_errors(x: Any, attrs: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        window_max(Tensor.of(x), **attrs)
