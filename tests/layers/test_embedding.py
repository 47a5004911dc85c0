from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_outputs(agrees, rng, shape, dtype):
    agrees("Embedding", {"input_dim": 10, "output_dim": 4}, rng.integers(0, 10, shape).astype(dtype))


def test_gradient_reaches_used_rows_only(rng):
    layer = hl.layers.Embedding(5, 2)
    layer.build()
    found = hl.grad(lambda w, x: hl.ops.sum(layer(x)), 0)(layer.trainable_variables, np.array([[1, 3, 3]]))[0]
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [0, 0], [2, 2], [0, 0]])


def test_mask():
    x = np.array([[3, 1, 0], [2, 0, 0]])
    assert hl.layers.Embedding(5, 2, mask_zero=True)(x).mask.tolist() == [[True, True, False], [True, False, False]]
    assert hl.layers.Embedding(5, 2)(x).mask is None


def test_initial_vectors(rng):
    vectors = rng.normal(size=(5, 2)).astype("float32")
    for given in (vectors, [vectors]):
        layer = hl.layers.Embedding(5, 2, weights=given)
        np.testing.assert_array_equal(layer(np.array([4, 0])), vectors[[4, 0]])
        assert layer.get_config()["weights"] is None


def test_float_indices_are_not_rounded_in_half_types():
    layer = hl.layers.Embedding(1000, 1, dtype="mixed_bfloat16", weights=np.arange(1000.0)[:, None])
    assert layer(np.float32([257, 259])).dtype == "bfloat16"
    layer = hl.layers.Embedding(1000, 1, weights=np.arange(1000.0)[:, None])
    assert layer(np.float32([257, 999])).tolist() == [[257.0], [999.0]]


@pytest.mark.parametrize("indices", [[[1, 5]], [[-1, 2]], [[7, 8, 9]]])
def test_indices_without_a_vector(indices):
    with pytest.raises(ArgumentError) as caught:
        hl.layers.Embedding(5, 2, name="words")(np.array(indices))
    message = str(caught.value)
    assert all(word in message for word in ["words", "expected: 0…4", "hint:"]), message


@pytest.mark.parametrize("arguments", [{"input_dim": 0}, {"output_dim": 1.5}])
def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.Embedding(**{"input_dim": 3, "output_dim": 2, **arguments})
