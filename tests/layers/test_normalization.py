from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

SHAPES = [(6, 8), (5, 6, 8), (3, 5, 6, 8)]


def data(rng, shape):
    return (3 * rng.normal(size=shape) + 1).astype("float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"axis": 1},
        {"momentum": 0.5, "epsilon": 1e-5},
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"renorm": True, "renorm_momentum": 0.8},
        {"renorm": True, "scale": False, "renorm_clipping": {"rmin": 0.5, "rmax": 2.0, "dmax": 0.3}},
    ],
    ids=str,
)
def test_batch_normalization(agrees, rng, shape, training, arguments):
    agrees("BatchNormalization", arguments, data(rng, shape), training=training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_masked_batch_normalization(agrees, rng, shape, training):
    agrees("BatchNormalization", {}, data(rng, shape), training=training, mask=rng.random(shape[:-1]) < 0.6)


def test_masked_positions_do_not_count(rng):
    x, mask = data(rng, (4, 6, 3)), np.arange(6) < np.array([[6], [2], [4], [1]])
    layer, other = (hl.layers.BatchNormalization(momentum=0.0, axis=axis) for axis in (-1, 1))
    layer(x, training=True, mask=mask)
    other(np.moveaxis(x, -1, 1), training=True, mask=mask)
    for found in (layer, other):
        np.testing.assert_allclose(found.moving_mean, x[mask].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.moving_variance, x[mask].var(axis=0), rtol=1e-5)


def test_frozen_batch_normalization_is_inference_and_does_not_move(rng):
    layer, x = hl.layers.BatchNormalization(), data(rng, (8, 3))
    step = hl.jit(lambda x: layer(x, training=True))
    layer.build((None, 3))
    layer.set_weights([np.abs(rng.normal(size=3)) + 0.5 for _ in range(4)])
    expected, before = np.asarray(layer(x)), layer.get_weights()
    layer.trainable = False
    for run in (lambda x: layer(x, training=True), step):
        np.testing.assert_allclose(run(x), expected, rtol=1e-6)
        assert all((a == b).all() for a, b in zip(before, layer.get_weights(), strict=True))
    assert layer.trainable_variables == []
    layer.trainable = True  # takes effect at once, in compiled programs as well
    assert not np.allclose(step(x), expected)
    assert not (layer.moving_mean.numpy() == before[2]).any()


@pytest.mark.parametrize("arguments", [{}, {"axis": 1}, {"renorm": True}], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_while_training(rng, arguments, masked):
    layer = hl.layers.BatchNormalization(dtype="float64", **arguments)
    x, weight = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 3))
    mask = (rng.random((4, 3 if arguments.get("axis") == 1 else 5)) < 0.7) if masked else None
    layer.build(x.shape)

    def loss(x):
        return hl.ops.sum(layer(x, training=True, mask=mask) * weight)

    def run(x):
        start = layer.get_weights()
        y = float(loss(x))
        layer.set_weights(start)  # the averages move with each call
        return y

    direction = rng.normal(size=x.shape)
    if arguments.get("renorm"):  # the correction is held fixed: the gradient of plain normalization, r times
        plain = hl.layers.BatchNormalization(dtype="float64")
        r = np.sqrt(x.reshape(-1, 3).var(axis=0) + 1e-3) if not masked else np.sqrt(x[mask].var(axis=0) + 1e-3)
        other = hl.grad(lambda x: hl.ops.sum(plain(x, training=True, mask=mask) * weight * r))(x)
        np.testing.assert_allclose(hl.grad(loss)(x), other, rtol=1e-5, atol=1e-6)
    else:
        expected = (run(x + 1e-6 * direction) - run(x - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(np.sum(np.asarray(hl.grad(loss)(x)) * direction), expected, rtol=1e-5)


def test_moving_averages_are_not_trained(rng):
    layer = hl.layers.BatchNormalization(name="bn")
    layer.build((None, 3))
    assert [w.path for w in layer.trainable_weights] == ["bn/gamma", "bn/beta"]
    assert [w.path for w in layer.non_trainable_weights] == ["bn/moving_mean", "bn/moving_variance"]
    assert all("moving_average" in w.tags for w in layer.non_trainable_weights)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["BatchNormalization", "LayerNormalization", "GroupNormalization"])
def test_half_types_have_statistics_in_float32(rng, policy, name):
    arguments = {"groups": 2} if name == "GroupNormalization" else {}
    x = (300 + 20 * rng.normal(size=(64, 4))).astype("float32")  # squares overflow float16, the sum's steps bfloat16
    layer, exact = (getattr(hl.layers, name)(dtype=dtype, **arguments) for dtype in (policy, "float32"))
    y = layer(x, training=True)
    assert y.dtype == layer.compute_dtype
    rounded = hl.ops.cast(x, layer.compute_dtype if layer.autocast else "float32")
    expected = exact(hl.ops.cast(rounded, "float32"), training=True)
    np.testing.assert_allclose(np.asarray(y, "float32"), expected, atol=0.02)
    if name == "BatchNormalization":
        assert layer.moving_mean.dtype == "float32"
        np.testing.assert_allclose(layer.moving_mean, exact.moving_mean, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"axis": 1}, {"axis": [-1]}, {"epsilon": 1e-6}, {"center": False}, {"scale": False}],
    ids=str,
)
def test_layer_normalization(agrees, rng, shape, arguments):
    agrees("LayerNormalization", arguments, data(rng, shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "arguments",
    [{"groups": 2}, {"groups": -1}, {"groups": 1}, {"groups": 4, "center": False}, {"groups": 2, "scale": False}],
    ids=str,
)
def test_group_normalization(agrees, rng, shape, arguments):
    agrees("GroupNormalization", arguments, data(rng, shape))


@pytest.mark.parametrize("axis", [[-2, -1], [1, 2, 3], (2, 3)], ids=str)
def test_layer_normalization_over_several_axes(agrees, rng, axis):
    agrees("LayerNormalization", {"axis": axis}, data(rng, (3, 5, 6, 4)))


def test_unit_normalization_over_several_axes(agrees, rng):
    agrees("UnitNormalization", {"axis": [1, 2]}, data(rng, (3, 5, 6, 4)))


def test_group_normalization_of_another_axis(agrees, rng):
    agrees("GroupNormalization", {"groups": 3, "axis": 1}, data(rng, (2, 6, 5, 4)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arguments", [{}, {"axis": [-1]}, {"epsilon": 0.1}], ids=str)
def test_rms_normalization(agrees, rng, shape, arguments):
    agrees("RMSNormalization", arguments, data(rng, shape))


@pytest.mark.parametrize("axis", [1, (1, 2)])
def test_rms_normalization_of_another_axis(rng, axis):
    x = data(rng, (3, 5, 6, 4))  # Keras takes the last axis only
    layer = hl.layers.RMSNormalization(axis=axis)
    layer.build(x.shape)
    scale = rng.normal(size=layer.scale.shape).astype("float32")
    layer.set_weights([scale])
    expected = x / np.sqrt(np.mean(x**2, axis=axis, keepdims=True) + 1e-6)
    np.testing.assert_allclose(
        layer(x), expected * np.expand_dims(scale, (0, 3) if axis == (1, 2) else (0, 2, 3)), 1e-5
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [-1, 1, [-1]])
def test_unit_normalization(agrees, rng, shape, axis):
    agrees("UnitNormalization", {"axis": axis}, data(rng, shape))


def test_wrong_inputs():
    layer = hl.layers.BatchNormalization(name="bn")
    layer(np.ones((2, 3), "float32"))
    with pytest.raises(ShapeError, match="axis -1"):
        layer(np.ones((2, 4), "float32"))
    with pytest.raises(ArgumentError, match="axis 3 does not exist"):
        hl.layers.LayerNormalization(axis=3)(np.ones((2, 4), "float32"))
    with pytest.raises(ShapeError, match="must be known"):
        hl.layers.LayerNormalization()(hl.Input((None,)))
    with pytest.raises(ShapeError, match="groups=3"):
        hl.layers.GroupNormalization(3)(np.ones((2, 4), "float32"))
    with pytest.raises(ShapeError, match="mask"):
        layer(np.ones((2, 3), "float32"), training=True, mask=np.ones((2, 3), bool))


@pytest.mark.parametrize(
    "arguments",
    [{"axis": 1.5}, {"renorm_clipping": {"rmin": 2, "rmax": 1}}, {"renorm_clipping": {"x": 1}}],
    ids=str,
)
def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.BatchNormalization(**arguments)


def test_one_device_is_all_devices(rng):
    """On one device, synchronised statistics are the ordinary ones; Keras cannot compute them on NumPy."""
    x = rng.normal(size=(8, 3)).astype("float32")
    layers = [hl.layers.BatchNormalization(synchronized=flag) for flag in (False, True)]
    for a, b in zip(*([layer(x, training=True), *layer.get_weights()] for layer in layers), strict=True):
        np.testing.assert_array_equal(a, b)
    assert layers[1].get_config()["synchronized"] is True
