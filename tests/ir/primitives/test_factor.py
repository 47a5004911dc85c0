"""Factorisations beyond their samples: larger systems, orthogonality, singular matrices, batches in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import Tensor, grad
from highlevel.ir.primitives import cholesky, eigh, lu, matmul, qr, reduce_sum, svd, triangular_solve
from highlevel.ir.primitives.factor import diagonal_matrix, lower_part, upper_part


@pytest.mark.parametrize("size", [1, 16, 17, 53])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_triangular_systems_of_any_size(size: int, lower: bool, transpose: bool, rng: Any) -> None:
    a = rng.uniform(-1, 1, (size, size)) / size + 2 * np.eye(size)
    b = rng.standard_normal((size, 3))
    got = triangular_solve(Tensor.of(a), Tensor.of(b), lower=lower, transpose=transpose, unit_diagonal=False)
    want = scipy.linalg.solve_triangular(a, b, lower=lower, trans=int(transpose))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(40, 40), (2, 50, 20), (20, 50)])
def test_factors_multiply_to_the_matrix(shape: Any, rng: Any) -> None:
    a = rng.standard_normal(shape)
    q, r = (part.numpy() for part in qr(Tensor.of(a)))
    np.testing.assert_allclose(q @ r, a, atol=1e-13)
    np.testing.assert_allclose(np.swapaxes(q, -1, -2) @ q - np.eye(q.shape[-1]), 0.0, atol=1e-13)
    np.testing.assert_array_equal(np.tril(r, -1), 0.0)
    u, s, vh = (part.numpy() for part in svd(Tensor.of(a)))
    np.testing.assert_allclose((u * s[..., None, :]) @ vh, a, atol=1e-12)
    assert (np.diff(s, axis=-1) <= 0).all()
    packed, order = (part.numpy() for part in lu(Tensor.of(a)))
    size = min(shape[-2:])
    lower = np.tril(packed, -1)[..., :size] + np.eye(shape[-2], size)
    ordered = np.take_along_axis(a, order[..., None], axis=-2)
    np.testing.assert_allclose(lower @ np.triu(packed)[..., :size, :], ordered, atol=1e-12)
    assert np.abs(lower).max() <= 1.0


def test_symmetric_operators_look_at_the_symmetric_part(rng: Any) -> None:
    a = rng.standard_normal((6, 6)) + 6 * np.eye(6)
    symmetric = (a + a.T) / 2
    np.testing.assert_allclose(cholesky(Tensor.of(a)).numpy(), np.linalg.cholesky(symmetric), rtol=1e-12, atol=1e-14)
    w, v = (part.numpy() for part in eigh(Tensor.of(a)))
    np.testing.assert_allclose((v * w) @ v.T, symmetric, atol=1e-12)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(ArgumentError, match="not positive definite") as caught:
        cholesky(Tensor.of(np.diag([1.0, -1.0])))
    assert "multiple of the identity" in str(caught.value)


def test_singular_matrices_have_an_lu() -> None:
    a = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    packed, order = (part.numpy() for part in lu(Tensor.of(a)))
    lower, upper = np.tril(packed, -1) + np.eye(3), np.triu(packed)
    np.testing.assert_allclose(lower @ upper, a[order])


def test_equal_eigenvalues_give_finite_gradients() -> None:
    """A function of the matrix – the sum of squares of its eigenvalues – at a multiple of the identity."""
    gradient = grad(lambda a: reduce_sum(eigh(a)[0] * eigh(a)[0], axes=(0,)))(Tensor.of(2 * np.eye(3)))
    np.testing.assert_allclose(gradient.numpy(), 4 * np.eye(3), atol=1e-14)


def test_triangles_and_diagonals(rng: Any) -> None:
    a = rng.standard_normal((2, 3, 4))
    for strict, k in ((False, 0), (True, 1)):
        np.testing.assert_array_equal(lower_part(Tensor.of(a), strict=strict).numpy(), np.tril(a, -k))
        np.testing.assert_array_equal(upper_part(Tensor.of(a), strict=strict).numpy(), np.triu(a, k))
    square = diagonal_matrix(Tensor.of(a[0, 0]), Tensor.of(np.zeros((4, 4))))
    np.testing.assert_array_equal(square.numpy(), np.diag(a[0, 0]))


@pytest.mark.parametrize("operator", [cholesky, qr, eigh, svd, lu])
def test_errors(operator: Any) -> None:
    with pytest.raises(ShapeError, match="not a matrix"):
        operator(Tensor.of([1.0, 2.0]))
    with pytest.raises(DTypeError, match="floating point"):
        operator(Tensor.of([[1, 2], [3, 4]]))
    if operator in (cholesky, eigh):
        with pytest.raises(ShapeError, match="not square"):
            operator(Tensor.of(np.zeros((2, 3))))


def test_solving_by_factors_is_solving(rng: Any) -> None:
    a, b = rng.standard_normal((30, 30)), rng.standard_normal((30, 2))
    q, r = qr(Tensor.of(a))
    rotated = matmul(Tensor.of(q.numpy().T.copy()), Tensor.of(b))
    x = triangular_solve(r, rotated, lower=False, transpose=False, unit_diagonal=False)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(a, b), rtol=1e-9)
