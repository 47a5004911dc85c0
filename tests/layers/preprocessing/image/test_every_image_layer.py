"""What holds for every layer of images: a layer without an example here fails the suite."""

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

EXAMPLES: dict[str, dict[str, Any]] = {
    "AugMix": {"num_chains": 2, "chain_depth": 2},
    "AutoContrast": {},
    "CenterCrop": {"height": 5, "width": 4},
    "ContrastLimitedAdaptiveHistogramEqualization": {"tile_grid_size": (2, 2)},
    "CutMix": {},
    "Equalization": {},
    "MaxNumBoundingBoxes": {"max_number": 3, "bounding_box_format": "xyxy"},
    "MixUp": {"alpha": 1.0},
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.5},
    "RandomColorDegeneration": {"factor": 0.5},
    "RandomColorJitter": {
        "brightness_factor": 0.2, "contrast_factor": 0.2, "saturation_factor": (0.3, 0.7), "hue_factor": 0.2,
    },
    "RandomContrast": {"factor": 0.5},
    "RandomCrop": {"height": 5, "width": 4},
    "RandomElasticTransform": {"factor": (1.0, 1.0), "scale": (0.9, 1.0)},
    "RandomErasing": {"factor": (1.0, 1.0), "scale": (0.2, 0.5)},
    "RandomFlip": {},
    "RandomGaussianBlur": {"factor": (1.0, 1.0), "sigma": (0.5, 1.0)},
    "RandomGrayscale": {},
    "RandomHue": {"factor": 0.5},
    "RandomInvert": {"factor": (0.5, 0.5)},
    "RandomPerspective": {"factor": (1.0, 1.0)},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.3},
    "RandomSaturation": {"factor": (0.2, 0.9)},
    "RandomSharpness": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.3, "y_factor": 0.3},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.3},
    "Resizing": {"height": 5, "width": 4},
    "Solarization": {"threshold_factor": 0.9},
}  # fmt: skip
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


def make(which: str, **more: Any) -> Any:
    seed = {"seed": 7} if which in RANDOM and "seed" not in more else {}
    return getattr(hl.layers, which)(**{**EXAMPLES[which], **seed, **more})


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 255, (4, 8, 8, 3)).astype("uint8")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_programs_give_the_same(name, pictures):
    layer, other = make(name), make(name)
    compiled = hl.jit(lambda x: other(x, training=True))
    for _ in range(2):
        expected = np.asarray(layer(pictures, training=True), "float32")
        found = np.asarray(compiled(pictures), "float32")
        wrong = np.abs(found - expected) > 1e-2
        assert wrong.mean() < 0.01 and found.shape == expected.shape  # staircases may be a step off
    assert compiled.traces == 1


def test_bytes_and_numbers_are_alike(name, pictures):
    found, expected = np.asarray(make(name)(pictures)), np.asarray(make(name)(pictures.astype("float32")))
    assert found.shape == expected.shape and expected.dtype == np.float32
    assert (np.abs(found.astype("float32") - expected) > 1).mean() < 0.01
    assert found.dtype == ("uint8" if getattr(image, name).keeps_type else "float32")


def test_one_image_is_a_batch_of_one(name, pictures):
    np.testing.assert_array_equal(make(name)(pictures[0]), make(name)(pictures[:1])[0])


def test_layouts_are_alike(name, pictures):
    expected = np.moveaxis(np.asarray(make(name)(pictures)), -1, 1)
    layer = make(name, data_format="channels_first")
    np.testing.assert_array_equal(layer(np.moveaxis(pictures, -1, 1)), expected)
    single = make(name, data_format="channels_first")(np.moveaxis(pictures[0], -1, 0))
    np.testing.assert_array_equal(single, np.moveaxis(np.asarray(make(name)(pictures[0])), -1, 0))


def test_shape_rule(name, pictures):
    found = tuple(make(name)(pictures).shape)
    assert make(name).compute_output_shape((None, 8, 8, 3)) == (None, *found[1:])
    resizes = found[1:3] != (8, 8)
    expected = (None, *found[1:]) if resizes else (None, None, None, 3)
    assert make(name).compute_output_shape((None, None, None, 3)) == expected


def test_description(name, pictures):
    layer = make(name, name="other")
    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    assert copy.get_config() == layer.get_config() and copy.name == "other"
    np.testing.assert_array_equal(copy(pictures), layer(pictures))
    with_theirs = json.loads(json.dumps(getattr(keras.layers, name)(**EXAMPLES[name]).get_config()))
    np.testing.assert_array_equal(type(layer).from_config(with_theirs)(pictures).shape, layer(pictures).shape)


def test_only_training_varies(name, pictures):
    model = hl.Sequential([hl.Input((8, 8, 3), dtype="uint8"), make(name)])
    first = model(pictures)
    np.testing.assert_array_equal(model(pictures), first)
    np.testing.assert_array_equal(make(name)(pictures, training=False), first)
    if not getattr(image, name).always:
        np.testing.assert_array_equal(first, pictures)


def test_arguments_are_those_of_keras(name):
    def arguments(cls: Any) -> dict[str, Any]:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

    theirs, ours = arguments(getattr(keras.layers, name)), arguments(getattr(image, name))
    assert list(ours) == list(theirs) and ours == theirs
    both = {"data_format", "bounding_box_format", "name", "dtype", "trainable"}
    assert both <= accepted_arguments(getattr(image, name))[0]
    with pytest.raises(ArgumentError, match="unknown argument"):
        make(name, hight=3)


def test_narrow_types(name, pictures):
    layer = make(name, dtype="mixed_bfloat16")
    found = layer(pictures.astype("float32"))
    assert str(found.dtype) == ("float32" if getattr(image, name).keeps_type else "bfloat16")
    assert np.isfinite(np.asarray(found, "float32")).all()


@pytest.mark.parametrize("name", RANDOM)
def test_draws(name, rng):
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
def test_values_stay_in_their_range(name, pictures):
    found = np.asarray(make(name)(pictures), "float32")
    assert found.min() >= -1e-3 and found.max() <= 255.001


def test_every_layer_has_an_example():
    assert sorted(EXAMPLES) == sorted(NAMES)
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
def test_wrong_arguments(name, arguments):
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
