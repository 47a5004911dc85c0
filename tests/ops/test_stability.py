"""Where formulas overflow, cancel, or have kinks: values and slopes stay right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

import highlevel as hl
from highlevel import ops

EXTREME = np.float32([-1e30, -1e4, -100, -20, -1e-8, 0.0, 1e-8, 20, 100, 1e4, 1e30])


def slope(function, x):
    return hl.grad(lambda x: ops.sum(function(x)))(x).numpy()


@pytest.mark.parametrize(
    ("name", "oracle", "derivative"),
    [
        ("softplus", lambda x: np.logaddexp(0, x), scipy.special.expit),
        ("sigmoid", scipy.special.expit, lambda x: scipy.special.expit(x) * scipy.special.expit(-x)),
        ("log_sigmoid", scipy.special.log_expit, lambda x: scipy.special.expit(-x)),
        ("relu", lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
        ("tanh", np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda x: np.exp(np.minimum(x, 0))),
    ],
)
def test_activations_at_extremes(name, oracle, derivative):
    with np.errstate(all="ignore"):
        wide = EXTREME.astype(np.float64)
        np.testing.assert_allclose(getattr(ops, name)(EXTREME).numpy(), oracle(wide), rtol=2e-6, atol=1e-37)
        np.testing.assert_allclose(slope(getattr(ops, name), EXTREME), derivative(wide), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["silu", "gelu", "softsign", "selu", "celu", "hard_silu", "squareplus", "leaky_relu"])
def test_slopes_are_finite(name):
    x = np.clip(EXTREME, -1e6, 1e6)
    assert np.isfinite(getattr(ops, name)(x).numpy()).all()
    assert np.isfinite(slope(getattr(ops, name), x)).all()


def test_smooth_functions_have_curvature_at_zero():
    curvature = lambda f: float(hl.grad(hl.grad(f))(np.float32(0.0)))  # noqa: E731
    assert curvature(ops.softplus) == pytest.approx(0.25)
    assert curvature(lambda x: ops.logaddexp(x, 0.0)) == pytest.approx(0.25)
    assert curvature(ops.silu) == pytest.approx(0.5)
    assert curvature(ops.sinc) == pytest.approx(-(math.pi**2) / 3)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_huge_logits(name):
    x = np.float32([[1e4, 1e4 + 1, -1e4], [-1e30, 0, 1e30], [3e38, 3e38, 3e38]])
    oracle = getattr(scipy.special, name)
    options = {"axis": -1}
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            getattr(ops, name)(x, **options).numpy(), oracle(x.astype(np.float64), **options), rtol=1e-6
        )
    assert np.isfinite(slope(lambda x: getattr(ops, name)(x, **options), x)).all()


def test_masked_logits():
    """−∞ gives exactly 0, and no slope."""
    x = np.float32([[0.0, -np.inf, 1.0], [2.0, -np.inf, -np.inf]])
    y = ops.softmax(x).numpy()
    assert (y[np.isinf(x)] == 0).all()
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)
    g = slope(lambda x: ops.softmax(x)[:, 0], x)
    assert np.isfinite(g).all()
    assert (g[np.isinf(x)] == 0).all()
    assert ops.log_softmax(x).numpy()[1].tolist() == [0.0, -np.inf, -np.inf]
    total = np.float32([-np.inf, -np.inf])
    assert float(ops.logsumexp(total)) == -np.inf
    assert slope(ops.logsumexp, total).tolist() == [0.0, 0.0]


def test_logaddexp_at_infinity():
    a = np.float32([np.inf, -np.inf, -np.inf, np.inf, 1e4])
    b = np.float32([np.inf, -np.inf, 0.0, -np.inf, -1e4])
    np.testing.assert_array_equal(ops.logaddexp(a, b).numpy(), np.logaddexp(a, b))


def test_variance_of_large_means():
    """One pass over squares would lose all digits here."""
    x = (np.float32(1e5) + np.float32([0.0, 0.5, 1.0, 1.5])).astype(np.float32)
    assert float(ops.var(x)) == pytest.approx(0.3125)
    assert float(ops.moments(x, 0)[1]) == pytest.approx(0.3125)
    half = np.full((4096,), 60000.0, np.float16)  # the sum is beyond float16
    assert float(ops.mean(half)) == pytest.approx(60000.0, rel=1e-3)


def test_hypot_without_overflow():
    a, b = np.float32([3e30, 0.0, np.inf, 1e-30]), np.float32([4e30, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(ops.hypot(a, b).numpy(), np.hypot(a, b), rtol=1e-6)
    assert np.isfinite(slope(lambda x: ops.hypot(x, b[:2]), a[:2])).all()


def test_losses_from_logits():
    logits, target = np.float32([-1e4, -50, 0, 50, 1e4]), np.float32([1, 0, 0.5, 1, 0])
    wide = logits.astype(np.float64)
    wanted = -(target * scipy.special.log_expit(wide) + (1 - target) * scipy.special.log_expit(-wide))
    np.testing.assert_allclose(
        ops.binary_crossentropy(target, logits, from_logits=True).numpy(), wanted, rtol=1e-6, atol=1e-20
    )
    g = slope(lambda x: ops.binary_crossentropy(target, x, from_logits=True), logits)
    np.testing.assert_allclose(g, scipy.special.expit(wide) - target, atol=1e-7)
    loss = ops.sparse_categorical_crossentropy(np.array([0, 1]), np.float32([[1e4, 0], [1e4, 0]]), from_logits=True)
    np.testing.assert_allclose(loss.numpy(), [0, 1e4], rtol=1e-6)
    certain = ops.binary_crossentropy(np.float32([1, 0]), np.float32([0, 1])).numpy()
    assert np.isfinite(certain).all()
    assert (certain > 15).all()


def test_labels_that_name_no_class_cost_nothing():
    loss = ops.sparse_categorical_crossentropy(
        np.array([-1, 1]), np.float32([[1, 2], [3, 4]]), from_logits=True
    ).numpy()
    assert loss[0] == 0
    assert loss[1] > 0


def test_slopes_of_norms_at_zero():
    zeros = np.zeros((2, 3), np.float32)
    for function in (ops.norm, lambda x: ops.norm(x, axis=1), ops.normalize, lambda x: ops.cdist(x, x)):
        assert np.isfinite(slope(function, zeros)).all()


def test_attention_with_nothing_to_see():
    """A row without a single visible place is uniform, not NaN."""
    q, k, v = (np.random.default_rng(i).standard_normal((1, 2, 1, 4)).astype(np.float32) for i in range(3))
    mask = np.array([[[[False, False], [True, False]]]])
    y = ops.dot_product_attention(q, k, v, mask=mask).numpy()
    np.testing.assert_allclose(y[0, 0, 0], v[0, :, 0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(y[0, 1, 0], v[0, 0, 0], rtol=1e-6)


def test_grouped_attention_is_attention_with_repeated_heads():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    k, v = (rng.standard_normal((2, 6, 2, 5)).astype(np.float32) for _ in range(2))
    full = ops.dot_product_attention(q, np.repeat(k, 2, 2), np.repeat(v, 2, 2)).numpy()
    np.testing.assert_allclose(ops.dot_product_attention(q, k, v).numpy(), full, rtol=1e-6)
    capped = ops.dot_product_attention(q * 100, k, v, attn_logits_soft_cap=1e-6).numpy()
    np.testing.assert_allclose(capped, np.broadcast_to(np.repeat(v.mean(1), 2, 1)[:, None], capped.shape), atol=1e-5)


def test_products_with_zeros_have_slopes():
    x = np.float32([2.0, 0.0, 3.0])
    assert slope(ops.prod, x).tolist() == [0.0, 6.0, 0.0]
    weights = np.float32([1.0, 1.0, 1.0])
    np.testing.assert_allclose(slope(lambda x: ops.cumprod(x) * weights, x), [1, 2 + 6, 0])


def test_wide_pooling_counts_no_padding():
    x = np.ones((1, 5, 5, 1), np.float32)
    np.testing.assert_array_equal(ops.average_pool(x, 3, 1, "same").numpy(), x)
