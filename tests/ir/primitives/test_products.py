"""Running products, and products of all others, which are right at zeros too, and so are their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.ir import Tensor, grad
from highlevel.ir.primitives import reduce_prod
from highlevel.ir.primitives.products import products_of_others, running_products


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_products(size: int, reverse: bool, rng: Any) -> None:
    x = rng.standard_normal((2, size, 3))
    got = running_products(Tensor.of(x), 1, reverse=reverse).numpy()
    want = np.flip(np.cumprod(np.flip(x, 1), 1), 1) if reverse else np.cumprod(x, 1)
    np.testing.assert_allclose(got, want, rtol=1e-13)
    exclusive = running_products(Tensor.of(x), 1, reverse=reverse, exclusive=True).numpy()
    np.testing.assert_allclose(exclusive * x, want, rtol=1e-13)


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_products_and_their_derivatives_at_zeros(zeros: int, rng: Any) -> None:
    x = rng.uniform(0.5, 2.0, 5)
    x[:zeros] = 0.0
    others = np.array([np.prod(np.delete(x, i)) for i in range(5)])
    np.testing.assert_allclose(products_of_others(Tensor.of(x), (0,)).numpy(), others, rtol=1e-13)
    gradient = grad(lambda x: reduce_prod(x, axes=(0,)))
    np.testing.assert_allclose(gradient(Tensor.of(x)).numpy(), others, rtol=1e-13)
    hessian_row = grad(lambda x: gradient(x)[4])(Tensor.of(x)).numpy()
    pairs = [0.0 if i == 4 else np.prod(np.delete(x, [i, 4])) for i in range(5)]
    np.testing.assert_allclose(hessian_row, pairs, rtol=1e-13)
