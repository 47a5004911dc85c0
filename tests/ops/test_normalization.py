"""Gradients of normalisation beside PyTorch in float64: first and second ones, and where the mean is large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import ops

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(3)
EPSILON = 1e-3


def batch(x: Any, scale: Any, offset: Any) -> Any:
    axes = tuple(range(x.ndim - 1))
    mean, variance = ops.moments(x, axes)
    return ops.batch_normalization(x, mean, variance, axis=-1, offset=offset, scale=scale, epsilon=EPSILON)


def batch_without_parameters(x: Any, scale: Any, offset: Any) -> Any:
    mean, variance = ops.moments(x, (0, 1), keepdims=True)
    return ops.batch_normalization(x, mean, variance, axis=-1, epsilon=EPSILON) * scale + offset


def layer(x: Any, scale: Any, offset: Any) -> Any:
    return ops.layer_normalization(x, scale, offset, axis=-1, epsilon=EPSILON)


def rows_by_variance(x: Any, scale: Any, offset: Any) -> Any:
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    return centred / ops.sqrt(ops.var(x, axis=-1, keepdims=True) + EPSILON) * scale + offset


def torch_batch(x: Any, scale: Any, offset: Any) -> Any:
    mean, variance = x.mean((0, 1)), x.var((0, 1), correction=0)
    return (x - mean) / torch.sqrt(variance + EPSILON) * scale + offset


def torch_layer(x: Any, scale: Any, offset: Any) -> Any:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], scale, offset, EPSILON)


CASES = [
    (batch, torch_batch),
    (batch_without_parameters, torch_batch),
    (layer, torch_layer),
    (rows_by_variance, torch_layer),
]
every_case = pytest.mark.parametrize(("ours", "theirs"), CASES, ids=lambda f: f.__name__)


def draw(mean: float, dtype: str) -> list[Any]:
    """x, scale, offset, and what weighs the outputs."""
    x = (RNG.standard_normal((6, 7, 5)) + mean).astype(dtype)
    scale, offset = RNG.standard_normal((2, 5)).astype(dtype)
    return [x, scale, offset, RNG.standard_normal(x.shape).astype(dtype)]


def slopes(function: Any, values: Any) -> list[Any]:
    found = hl.grad(lambda x, s, o, w: ops.sum(function(x, s, o) * w), argnums=(0, 1, 2))(*values)
    return [np.asarray(g) for g in found]


def torch_slopes(function: Any, values: Any) -> list[Any]:
    x, s, o, w = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values)
    return [g.numpy() for g in torch.autograd.grad((function(x, s, o) * w).sum(), (x, s, o))]


@every_case
@pytest.mark.parametrize("mean", [0.0, 30.0, 1000.0])
def test_gradients_where_the_mean_is_large(ours: Any, theirs: Any, mean: float) -> None:
    """What a large mean costs is its own rounding."""
    values = draw(mean, "float32")
    for got, expected in zip(slopes(ours, values), torch_slopes(theirs, values), strict=True):
        gap = np.max(np.abs(got - expected)) / np.max(np.abs(expected))
        assert gap < 2e-6 + 10 * mean * 2.0**-24


@every_case
def test_second_derivatives(ours: Any, theirs: Any) -> None:
    x, s, o, w = draw(0.5, "float64")
    by = RNG.standard_normal(x.shape)

    def slope(x: Any) -> Any:
        return ops.sum(hl.grad(lambda x: ops.sum(ops.sin(ours(x, s, o)) * w))(x) * by)

    tx, ts, to, tw, tby = (torch.tensor(value) for value in (x, s, o, w, by))
    tx.requires_grad_()
    (first,) = torch.autograd.grad((torch.sin(theirs(tx, ts, to)) * tw).sum(), tx, create_graph=True)
    (second,) = torch.autograd.grad((first * tby).sum(), tx)
    np.testing.assert_allclose(hl.grad(slope)(x), second.numpy(), rtol=1e-8, atol=1e-9)
