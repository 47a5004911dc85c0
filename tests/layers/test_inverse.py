from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ShapeError

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables


def test_of_a_convolution_is_the_transposed_one(rng):
    keras = pytest.importorskip("keras")
    conv = hl.layers.Conv2D(5, 3, strides=2, use_bias=False)
    x = rng.normal(size=(2, 9, 7, 3)).astype("float32")
    code = conv(x).numpy()
    inverse = hl.layers.Inverse(conv)
    found = inverse([code, x])
    twin = keras.layers.Conv2DTranspose(3, 3, strides=2, use_bias=False)
    twin.build(code.shape)
    twin.set_weights([conv.kernel.numpy()])
    np.testing.assert_allclose(found, twin(code), rtol=1e-5, atol=1e-5)
    assert [w.path for w in inverse.weights] == [w.path for w in conv.weights] and len(inverse.weights) == 1


def test_of_a_pooling_puts_values_where_they_came_from(rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 6, 8, 3)).astype("float32")
    pool = hl.layers.MaxPooling2D(2)
    code = pool(x)
    found = hl.jit(lambda x: hl.layers.Inverse(pool)([pool(x), x]))(x)
    y, places = torch.nn.functional.max_pool2d(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), 2, return_indices=True)
    expected = torch.nn.functional.max_unpool2d(y, places, 2).numpy()
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, -1), rtol=1e-6)
    assert code.shape == (2, 3, 4, 3)


def test_gradients_go_through_it(rng):
    """An auto-encoder of one matrix, code x·W and back with Wᵀ: both uses of W count."""
    dense = hl.layers.Dense(3, use_bias=False)
    inverse = hl.layers.Inverse(dense)
    x = rng.normal(size=(5, 4)).astype("float32")
    inverse([dense(x), x])
    w = dense.kernel.numpy()
    found = hl.grad(lambda ws: hl.ops.sum(hl.ops.square(inverse([dense(x), x]) - x)))([dense.kernel])[0]
    r = 2 * (x @ w @ w.T - x)
    np.testing.assert_allclose(found, x.T @ r @ w + r.T @ x @ w, rtol=1e-4, atol=1e-4)


def test_in_a_model(rng, tmp_path):
    start = hl.Input((6, 2))
    pool = hl.layers.AveragePooling1D(2, name="down")
    model = hl.Model(start, hl.layers.Inverse(pool, name="up")([pool(start), start]))
    x = rng.normal(size=(3, 6, 2)).astype("float32")
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(hl.models.load_model(tmp_path / "m.keras")(x), model(x))


def test_a_saved_model_shares_the_weights(rng, tmp_path):
    start = hl.Input((9, 9, 3))
    conv = hl.layers.Conv2D(4, 3)
    model = hl.Model(start, hl.layers.Inverse(conv)([conv(start), start]))
    x = rng.normal(size=(2, 9, 9, 3)).astype("float32")
    model.save(tmp_path / "m.keras")
    copy = hl.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(copy(x), model(x))
    assert [w.path for w in copy.weights] == [w.path for w in model.weights] and len(copy.weights) == 2


def test_what_cannot_be():
    inverse = hl.layers.Inverse(hl.layers.MaxPooling1D(2))
    x = np.ones((2, 6, 1), "float32")
    with pytest.raises(ShapeError, match="code"):
        inverse(x)
    with pytest.raises(ShapeError, match="not what the layer gives"):
        inverse([x, x])
