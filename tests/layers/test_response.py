from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError


@pytest.mark.parametrize("n", [1, 3, 5, 9])
@pytest.mark.parametrize("axis", [-1, 1])
def test_local(rng, n, axis):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 6, 5, 6)).astype("float32") * 3
    found = hl.layers.LocalResponseNormalization(alpha=0.2, k=1.5, beta=0.6, n=n, axis=axis)(x)
    first = torch.from_numpy(np.moveaxis(x, axis, 1).copy())
    expected = torch.nn.functional.local_response_norm(first, n, alpha=0.2 * n, beta=0.6, k=1.5).numpy()
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, axis), rtol=1e-5, atol=1e-5)


def test_local_wants_a_middle():
    with pytest.raises(ArgumentError, match="odd"):
        hl.layers.LocalResponseNormalization(n=4)


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (2, 7, 3)])
def test_global(rng, shape):
    torch = pytest.importorskip("torch")
    layer = hl.layers.GlobalResponseNormalization()
    x = rng.normal(size=shape).astype("float32")
    layer(x)
    gamma, beta = weights = [rng.normal(size=shape[-1]).astype("float32") for _ in range(2)]
    layer.set_weights(weights)
    t = torch.from_numpy(x)
    strength = torch.linalg.vector_norm(t, dim=tuple(range(1, t.ndim - 1)), keepdim=True)
    relative = (t * strength / (strength.mean(-1, keepdim=True) + 1e-6)).numpy()
    np.testing.assert_allclose(layer(x), gamma * relative + beta + x, rtol=1e-5, atol=1e-5)


def test_a_silent_channel_has_a_finite_gradient():
    layer = hl.layers.GlobalResponseNormalization(gamma_initializer="ones")
    x = np.zeros((1, 3, 3, 2), "float32")
    x[..., 0] = 1
    gradient = hl.grad(lambda x: hl.ops.sum(layer(x)))(x)
    assert np.isfinite(gradient).all()
