"""Networks by name: every way to call `create` keeps its promises, for every network."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, FormatError, ShapeError, WeightsError
from highlevel.zoo import ENTRIES
from highlevel.zoo.registry import adapt_channels

F32 = "float32"
NAMES = pytest.mark.parametrize("name", sorted(ENTRIES))


@NAMES
def test_the_surface_is_the_same_for_all(name, rng, tmp_path):
    """Shapes, groups, a new head, preprocessing, features without a head, and a file of it all."""
    model = hl.zoo.create(name, num_classes=7, input_size=64, class_names=list("abcdefg"))
    images = rng.integers(0, 256, (2, 50, 70, 3)).astype(np.uint8)
    x = model.preprocess(images)
    assert x.shape == (2, 64, 64, 3) and x.dtype == F32
    scores = model.predict(x, verbose=0)
    assert scores.shape == (2, 7)
    np.testing.assert_allclose(scores.sum(1), 1.0, rtol=1e-5)
    assert model.head.name == ENTRIES[name].head
    assert [layer.name for layer in model.layer_groups()[-1]] == [model.head.name]
    assert set(model.layer_groups()[0]) <= set(model.layers)
    width = model.features().output_shape[-1]
    bare = hl.zoo.create(name, num_classes=0, input_size=64)
    assert bare.output_shape == (None, width)
    model.reset_head(3, ["x", "y", "z"])
    assert model.predict(x, verbose=0).shape == (2, 3)
    model.save(tmp_path / "model.keras")
    again = hl.load_model(tmp_path / "model.keras")
    assert np.array_equal(again.predict(again.preprocess(images), verbose=0), model.predict(x, verbose=0))
    assert again.class_names == ["x", "y", "z"] and again.group_patterns == list(ENTRIES[name].groups)


@NAMES
@pytest.mark.parametrize(("size", "expected"), [(96, (96, 96)), ((96, 128), (96, 128)), (None, (224, 224))])
def test_input_sizes(name, size, expected):
    model = hl.zoo.create(name, num_classes=2, input_size=size)
    assert model.input_shape == (None, *expected, 3)
    assert model.preprocessing.size == expected


@NAMES
def test_random_weights_are_random_and_follow_the_seed(name):
    hl.set_random_seed(1)
    first = hl.zoo.create(name, num_classes=2, input_size=32)
    hl.set_random_seed(1)
    second = hl.zoo.create(name, num_classes=2, input_size=32)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    third = hl.zoo.create(name, num_classes=2, input_size=32)
    assert not np.array_equal(first.get_weights()[0], third.get_weights()[0])
    assert first.class_names is None and first.origin == {"architecture": name, "weights": None}


# Pretrained weights --------------------------------------------------------------------------------------------------
def test_another_number_of_classes_gives_a_new_head_on_the_same_body(lite0, rng):
    model = hl.zoo.create("efficientnet_lite0", weights="imagenet", num_classes=5, input_size=64)
    bare = hl.zoo.create("efficientnet_lite0", weights="imagenet", num_classes=0, input_size=64)
    assert model.output_shape == (None, 5) and model.class_names is None
    x = rng.normal(size=(1, 64, 64, 3)).astype(F32)
    features = model.features().predict(x, verbose=0)
    np.testing.assert_array_equal(bare.predict(x, verbose=0), features)
    for ours, theirs in zip(bare.weights, lite0.weights, strict=False):
        assert np.array_equal(ours.numpy(), theirs.numpy())
    assert np.abs(model.head.kernel.numpy()).max() > 0


def test_grey_pictures(lite0, photographs):
    """One channel: a grey picture gives what it gives in three equal channels."""
    grey = hl.zoo.create("efficientnet_lite0", weights="imagenet", in_channels=1)
    x = grey.preprocess(photographs)
    assert x.shape == (2, 224, 224, 1)
    expected = lite0.predict(np.repeat(x, 3, axis=-1), verbose=0)
    found = grey.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.argmax(1)[1] == 967


def test_more_channels(lite0, rng):
    """Four channels: the fourth sees what the first sees; how pictures become four channels, nobody knows."""
    more = hl.zoo.create("efficientnet_lite0", weights="imagenet", in_channels=4, input_size=96)
    kernel = more.layers[0].kernel.numpy()
    assert kernel.shape == (3, 3, 4, 32)
    np.testing.assert_allclose(kernel, lite0.layers[0].kernel.numpy()[:, :, [0, 1, 2, 0]] * 0.75, rtol=1e-6)
    assert more.predict(rng.normal(size=(1, 96, 96, 4)).astype(F32), verbose=0).shape == (1, 1000)
    assert more.preprocessing is None
    with pytest.raises(ArgumentError, match="does not know how its input is prepared"):
        more.preprocess(np.zeros((96, 96, 3), np.uint8))


def test_kernels_for_other_numbers_of_channels(rng):
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(F32)
    np.testing.assert_allclose(adapt_channels(kernel, 1)[:, :, 0], kernel.sum(2), rtol=1e-6)
    for channels in (2, 3, 4, 6, 9):
        adapted = adapt_channels(kernel, channels)
        assert adapted.shape == (3, 3, channels, 8) and adapted.dtype == F32
    np.testing.assert_allclose(adapt_channels(kernel, 6).sum(2), kernel.sum(2), rtol=1e-5)


def test_weights_from_a_file_of_ones_own(tmp_path, rng):
    model = hl.zoo.create("efficientnet_lite0", num_classes=3, input_size=32)
    x = rng.normal(size=(1, 32, 32, 3)).astype(F32)
    for name in ("own.safetensors", "own.keras"):
        (model.save if name.endswith("keras") else model.save_weights)(tmp_path / name)
        for path in (tmp_path / name, str(tmp_path / name)):
            again = hl.zoo.create("efficientnet_lite0", weights=path, num_classes=3, input_size=32)
            assert np.array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    with pytest.raises(WeightsError, match=r"classifier/kernel \(1280, 3\) for \(1280, 4\)"):
        hl.zoo.create("efficientnet_lite0", weights=tmp_path / "own.safetensors", num_classes=4, input_size=32)


def test_what_the_zoo_does_not_have():
    with pytest.raises(ArgumentError, match="efficientnet_lite0"):
        hl.zoo.create("efficientnet_lite1")
    with pytest.raises(ArgumentError, match="imagenet"):
        hl.zoo.create("efficientnet_lite0", weights="imagnet")
    with pytest.raises(FileNotFoundError):
        hl.zoo.create("efficientnet_lite0", weights="missing.safetensors")
    assert "efficientnet_lite0" in hl.zoo.list_models()


def test_names_of_classes():
    names = hl.zoo.imagenet_classes()
    assert len(names) == 1000 and len(set(names)) >= 997  # ILSVRC has two cranes and two maillots
    assert [names[i] for i in (0, 207, 281, 967, 985, 999)] == [
        "tench", "golden retriever", "tabby", "espresso", "daisy", "toilet tissue",
    ]  # fmt: skip


def test_pictures_of_the_wrong_kind(lite0):
    with pytest.warns(UserWarning, match="normalised before"):
        lite0.preprocess(np.full((10, 10, 3), 0.5, F32))
    with pytest.raises(ArgumentError, match="normalised already"):
        lite0.preprocess(lite0.preprocess(np.full((10, 10, 3), 3, np.uint8)))
    with pytest.raises(ShapeError, match="moveaxis"):
        lite0.predict(np.zeros((1, 3, 224, 224), F32), verbose=0)
    with pytest.raises(ShapeError, match="moveaxis"):
        lite0.preprocess(np.zeros((3, 224, 224), np.uint8))


def test_a_file_that_is_something_else(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError):
        hl.zoo.create("efficientnet_lite0", weights=tmp_path / "w.safetensors")
