from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

PADDINGS = {"nearest": "border", "mirror": "reflection"}


@pytest.mark.parametrize("mode", ["nearest", "mirror"])
@pytest.mark.parametrize("factor", [1, 2, (1, 3)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_affine_maps_as_in_pytorch(rng, mode, factor, data_format):
    torch = pytest.importorskip("torch")
    images, theta = rng.normal(size=(3, 7, 6, 2)).astype("float32"), rng.normal(size=(3, 6)).astype("float32")
    given = images if data_format == "channels_last" else np.moveaxis(images, -1, 1).copy()
    layer = hl.layers.SpatialTransformer(factor, border_mode=mode, data_format=data_format)
    found = np.asarray(layer([given, theta]))
    found = found if data_format == "channels_first" else np.moveaxis(found, -1, 1)
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(theta).reshape(3, 2, 3), (3, 2, *found.shape[2:]), align_corners=True
    )
    first = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    expected = torch.nn.functional.grid_sample(first, grid, padding_mode=PADDINGS[mode], align_corners=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_around_the_image_it_begins_again():
    image = np.arange(4, dtype="float32").reshape(1, 1, 4, 1)
    shift = np.float32([[1, 0, 4 / 3, 0, 1, 0]])  # two pixels to the left
    found = hl.layers.SpatialTransformer(border_mode="wrap")([image, shift])
    np.testing.assert_allclose(np.ravel(found), [2, 3, 0, 1], atol=1e-5)


@pytest.mark.parametrize("count", [4, 16])
def test_thin_plate_splines_as_in_scipy(rng, count):
    interpolate = pytest.importorskip("scipy.interpolate")
    layer = hl.layers.TPSTransformer(control_points=count)
    points = layer.identity() + rng.normal(size=2 * count).astype("float32") * 0.1
    x, y = layer._points(hl.ops.convert_to_tensor(points[None]), 5, 6)
    grid = layer.identity().reshape(2, count).T
    v, u = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 6), indexing="ij")
    spline = interpolate.RBFInterpolator(grid, points.reshape(2, count).T, kernel="thin_plate_spline")
    expected = spline(np.stack([u.ravel(), v.ravel()], axis=1))
    np.testing.assert_allclose(np.stack([x[0], y[0]], axis=1), expected, rtol=1e-4, atol=1e-4)


def test_no_map_leaves_images_as_they_are(rng):
    images = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    still = np.tile(np.float32([1, 0, 0, 0, 1, 0]), (2, 1))
    np.testing.assert_allclose(hl.layers.SpatialTransformer()([images, still]), images, atol=1e-5)
    layer = hl.layers.TPSTransformer()
    np.testing.assert_allclose(layer([images, np.tile(layer.identity(), (2, 1))]), images, atol=1e-4)


def test_it_learns_where_to_look(rng):
    """Images that were moved are moved back, by six numbers that training finds."""
    x = np.linspace(-1, 1, 12)
    image = np.exp(-8 * (x[:, None] ** 2 + x[None] ** 2)).astype("float32")[None, :, :, None]
    layer, theta = hl.layers.SpatialTransformer(), hl.Variable(np.float32([[1, 0, 0.4, 0, 1, -0.3]]))
    goal = hl.jit(lambda: hl.ops.mean(hl.ops.square(layer([image, theta.read()]) - image)))
    before = float(goal())

    @hl.jit
    def step():
        loss = hl.ops.mean(hl.ops.square(layer([image, theta.read()]) - image))
        (gradient,) = hl.gradients(loss, [theta])
        theta.assign(theta - 2.0 * gradient)

    for _ in range(100):
        step()
    assert float(goal()) < before / 50


def test_what_cannot_be():
    with pytest.raises(ArgumentError, match="square"):
        hl.layers.TPSTransformer(control_points=5)
    with pytest.raises(ArgumentError, match="smaller"):
        hl.layers.SpatialTransformer(downsample_factor=0)
    with pytest.raises(ShapeError, match=r"Dense\(6\)"):
        hl.layers.SpatialTransformer()([np.ones((2, 5, 5, 1), "float32"), np.ones((2, 5), "float32")])
