"""Elementwise operators beyond their samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.ir import Tensor, grad
from highlevel.ir.primitives import digamma, lgamma, reduce_sum


def derivative(function: Any) -> Any:
    return grad(lambda x: reduce_sum(function(x), axes=(0,)))


def test_derivatives_of_lgamma() -> None:
    x = np.linspace(0.05, 30, 500)
    for order, function in enumerate([lgamma, digamma, derivative(digamma)]):
        got = derivative(function)(Tensor.of(x)).numpy()
        np.testing.assert_allclose(got, scipy.special.polygamma(order, x), rtol=1e-11, atol=1e-14)


def test_derivatives_of_lgamma_below_zero() -> None:
    """By the recurrence ψ′(x) = ψ′(x + 1) + 1 / x², up to where SciPy has it."""
    x = np.linspace(-5.4, -0.1, 107)
    x = x[np.abs(x - np.rint(x)) > 0.02]
    want = scipy.special.polygamma(1, x + 6) + sum(1 / (x + k) ** 2 for k in range(6))
    np.testing.assert_allclose(derivative(digamma)(Tensor.of(x)).numpy(), want, rtol=1e-11)
