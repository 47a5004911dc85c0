"""What holds for every layer of images: a layer without an example in `conftest.py` fails the suite."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.preprocessing import image
from highlevel.layers.preprocessing.image.base import RandomImageLayer
from highlevel.serialization import accepted_arguments

keras = pytest.importorskip("keras")

NAMES = image.__all__
RANDOM = [name for name in NAMES if issubclass(getattr(image, name), RandomImageLayer)]
# What leaves images alone at these strengths.
NOTHING: dict[str, dict[str, Any]] = {
    "RandomBrightness": {"factor": 0.0},
    "RandomColorDegeneration": {"factor": 0.0},
    "RandomColorJitter": {},
    "RandomContrast": {"factor": 0.0},
    "RandomElasticTransform": {"factor": 0.0},
    "RandomErasing": {"factor": 0.0},
    "RandomGaussianBlur": {"factor": 0.0},
    "RandomGrayscale": {"factor": 0.0},
    "RandomHue": {"factor": 0.0},
    "RandomInvert": {"factor": 0.0},
    "RandomPerspective": {"factor": 0.0},
    "RandomPosterization": {"factor": (8, 8)},
    "RandomRotation": {"factor": 0.0},
    "RandomSaturation": {"factor": (0.5, 0.5)},
    "RandomSharpness": {"factor": (0.5, 0.5)},
    "RandomShear": {},
    "RandomTranslation": {"height_factor": 0.0, "width_factor": 0.0},
    "RandomZoom": {"height_factor": 0.0},
    "RandAugment": {"num_ops": 0},
    "Solarization": {"threshold_factor": (1.0, 1.0)},
}


def test_bytes_and_numbers_are_alike(make, name, pictures):
    found, expected = np.asarray(make(name)(pictures)), np.asarray(make(name)(pictures.astype("float32")))
    assert found.shape == expected.shape and expected.dtype == np.float32
    assert (np.abs(found.astype("float32") - expected) > 1).mean() < 0.01
    assert found.dtype == ("uint8" if getattr(image, name).keeps_type else "float32")


def test_layouts_are_alike(make, name, pictures):
    expected = np.moveaxis(np.asarray(make(name)(pictures)), -1, 1)
    layer = make(name, data_format="channels_first")
    np.testing.assert_allclose(layer(np.moveaxis(pictures, -1, 1)), expected, atol=1e-3)  # sums in another order
    single = make(name, data_format="channels_first")(np.moveaxis(pictures[0], -1, 0))
    np.testing.assert_allclose(single, np.moveaxis(np.asarray(make(name)(pictures[0])), -1, 0), atol=1e-3)


def test_shape_rule(make, name, pictures):
    found = tuple(make(name)(pictures).shape)
    assert make(name).compute_output_shape((None, 8, 8, 3)) == (None, *found[1:])
    resizes = found[1:3] != (8, 8)
    expected = (None, *found[1:]) if resizes else (None, None, None, 3)
    assert make(name).compute_output_shape((None, None, None, 3)) == expected


def test_description(make, examples, name, pictures):
    layer = make(name, name="other")
    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    assert copy.get_config() == layer.get_config() and copy.name == "other"
    np.testing.assert_array_equal(copy(pictures), layer(pictures))
    with_theirs = json.loads(json.dumps(getattr(keras.layers, name)(**examples[name]).get_config()))
    np.testing.assert_array_equal(type(layer).from_config(with_theirs)(pictures).shape, layer(pictures).shape)


def test_only_training_varies(make, name, pictures):
    model = hl.Sequential([hl.Input((8, 8, 3), dtype="uint8"), make(name)])
    first = model(pictures)
    np.testing.assert_array_equal(model(pictures), first)
    np.testing.assert_array_equal(make(name)(pictures, training=False), first)
    if not getattr(image, name).always:
        np.testing.assert_array_equal(first, pictures)


def test_arguments_are_those_of_keras(make, name):
    def arguments(cls: Any) -> dict[str, Any]:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

    theirs, ours = arguments(getattr(keras.layers, name)), arguments(getattr(image, name))
    assert list(ours) == list(theirs) and ours == theirs
    both = {"data_format", "bounding_box_format", "name", "dtype", "trainable"}
    assert both <= accepted_arguments(getattr(image, name))[0]
    with pytest.raises(ArgumentError, match="unknown argument"):
        make(name, hight=3)


def test_narrow_types(make, name, pictures):
    layer = make(name, dtype="mixed_bfloat16")
    found = layer(pictures.astype("float32"))
    assert str(found.dtype) == ("float32" if getattr(image, name).keeps_type else "bfloat16")
    assert np.isfinite(np.asarray(found, "float32")).all()


@pytest.mark.parametrize("name", RANDOM)
def test_draws(make, name, rng):
    pictures = np.repeat(rng.integers(0, 255, (1, 8, 8, 3)), 24, axis=0).astype("float32")
    if name in ("MixUp", "CutMix"):
        pictures = pictures + np.arange(24.0, dtype="float32").reshape(-1, 1, 1, 1)
    layer, same, other = make(name), make(name), make(name, seed=8)
    first, second = np.asarray(layer(pictures)), np.asarray(layer(pictures))
    np.testing.assert_array_equal(same(pictures), first)
    assert (first != second).any() and (first != np.asarray(other(pictures))).any()
    assert (first != first[:1]).any()  # each image has a draw of its own
    assert layer.weights == [] and layer.trainable_variables == []


@pytest.mark.parametrize("name", NOTHING)
def test_no_strength_no_change(name, pictures):
    layer = getattr(hl.layers, name)(**NOTHING[name])
    np.testing.assert_allclose(layer(pictures, training=True), pictures, atol=2e-4)


@pytest.mark.parametrize("name", RANDOM)
def test_values_stay_in_their_range(make, name, pictures):
    found = np.asarray(make(name)(pictures), "float32")
    assert found.min() >= -1e-3 and found.max() <= 255.001


def test_every_layer_has_an_example(examples):
    assert sorted(examples) == sorted(NAMES)
    theirs = {n for n in dir(keras.layers) if n.startswith("Random")} | set(NAMES)
    assert theirs <= set(dir(hl.layers))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Resizing", {"height": 0}),
        ("Resizing", {"interpolation": "sharp"}),
        ("Resizing", {"fill_mode": "wrap"}),
        ("CenterCrop", {"width": 2.5}),
        ("RandomFlip", {"mode": "diagonal"}),
        ("RandomFlip", {"bounding_box_format": "corners"}),
        ("RandomRotation", {"factor": 1.5}),
        ("RandomRotation", {"factor": (0.1, 0.2, 0.3)}),
        ("RandomRotation", {"fill_mode": "mirror"}),
        ("RandomZoom", {"height_factor": -1.0}),
        ("RandomTranslation", {"width_factor": 2}),
        ("RandomShear", {"x_factor": -0.1}),
        ("RandomPerspective", {"scale": 1.2}),
        ("RandomBrightness", {"value_range": 255}),
        ("RandomBrightness", {"value_range": (3, 3)}),
        ("RandomContrast", {"factor": "strong"}),
        ("RandomGrayscale", {"factor": 2}),
        ("RandomPosterization", {"factor": 9}),
        ("RandomGaussianBlur", {"kernel_size": 4}),
        ("RandomErasing", {"fill_value": (1, 2)}),
        ("MixUp", {"alpha": 0}),
        ("RandAugment", {"num_ops": -1}),
        ("AugMix", {"alpha": -1.0}),
        ("ContrastLimitedAdaptiveHistogramEqualization", {"clip_limit": -1}),
    ],
    ids=str,
)
def test_wrong_arguments(make, name, arguments):
    with pytest.raises(ArgumentError):
        make(name, **arguments)


def test_wrong_inputs(pictures):
    with pytest.raises(ShapeError, match="wrong rank"):
        hl.layers.RandomFlip()(pictures[0, :, :, 0])
    with pytest.raises(ShapeError, match=r'data_format="channels_first"'):
        hl.layers.RandomHue(0.1)(np.moveaxis(pictures, -1, 1))
    with pytest.raises(ArgumentError, match="no images"):
        hl.layers.RandomFlip()({"labels": np.ones(3)})
    with pytest.raises(ArgumentError, match="cannot be mixed"):
        hl.layers.MixUp()({"images": pictures, "labels": np.arange(4)})
