"""Layers of images beside Keras's: what theirs has drawn is put through both."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl

keras = pytest.importorskip("keras")

SHAPE = (4, 12, 9, 3)
Drawn = dict[str, Any]


def images(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE, top: float = 255.0) -> np.ndarray:
    return (rng.uniform(size=shape) * top).astype("float32")


def arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: arrays(item) for key, item in value.items()}
    return np.asarray(value)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1.0)
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, rtol=tolerance, atol=tolerance)


# What theirs draws, in our words -------------------------------------------------------------------------------------
def edges(mask: np.ndarray) -> Drawn:
    """First and end of the rows and columns of a rectangle."""
    plane = mask[..., 0]
    found: Drawn = {}
    for key, axis in (("rows", 2), ("columns", 1)):
        line = plane.any(axis=axis)
        length = line.shape[1]
        found[key] = np.stack([line.argmax(1), length - line[:, ::-1].argmax(1)]).astype("float32")
    return found


def of_flip(t: Any, arguments: Drawn) -> Drawn:
    mode = arguments.get("mode", "horizontal_and_vertical")
    return {axis: np.asarray(t["flips"]).ravel() for axis in ("horizontal", "vertical") if axis in mode}


def of_elastic(t: Any, arguments: Drawn) -> Drawn:
    from keras.src.random.seed_generator import draw_seed

    t["seed"] = 5
    theirs = np.random.default_rng(draw_seed(5))
    noise = np.stack([theirs.normal(size=SHAPE[:3]).astype("float32") for _ in range(2)], axis=-1)
    strength = np.broadcast_to(np.asarray(t["distortion_factor"], "float32"), SHAPE[:1])
    return {"apply_transform": t["apply_transform"], "distortion_factor": strength, "noise": noise}


WORDS: dict[str, Callable[[Any, Drawn], Drawn]] = {
    "RandomFlip": of_flip,
    "RandomRotation": lambda t, a: {"angle": t["angle"]},
    "RandomZoom": lambda t, a: {key: np.asarray(t[key])[:, 0] for key in ("height_zoom", "width_zoom")},
    "RandomTranslation": lambda t, a: {"right": t["translations"][:, 0], "down": t["translations"][:, 1]},
    "RandomShear": lambda t, a: {"shear_x": t["shear_factor"][:, 0], "shear_y": t["shear_factor"][:, 1]},
    "RandomGrayscale": lambda t, a: {"should_apply": np.asarray(t).ravel()},
    "RandomGaussianBlur": lambda t, a: {
        "should_apply_blur": t["should_apply_blur"],
        "blur_factor": np.broadcast_to(np.asarray(t["blur_factor"]), (SHAPE[0], 2)),
    },
    "RandomErasing": lambda t, a: {
        "apply_erasing": t["apply_erasing"], "noise": t["fill_value"], **edges(np.asarray(t["batch_masks"])),
    },
    "RandomElasticTransform": of_elastic,
    "RandomCrop": lambda t, a: {key: np.full(SHAPE[0], int(v)) for key, v in zip(("top", "left"), t, strict=True)},
    "RandomPosterization": lambda t, a: {"shift_factor": np.asarray(t["shift_factor"]).astype("int32")},
    "AutoContrast": lambda t, a: {},
    "Equalization": lambda t, a: {},
    "CutMix": lambda t, a: {
        "permutation_order": t["permutation_order"], "mix_weight": t["mix_weight"],
        **edges(np.asarray(t["batch_masks"])),
    },
}  # fmt: skip


def ours_of(name: str, drawn: Any, arguments: Drawn) -> Drawn:
    """What theirs has drawn, in the words of our layer."""
    words = WORDS.get(name, lambda t, a: dict(t))
    return arrays({key: value for key, value in words(drawn, arguments).items() if key != "input_shape"})


UNIT = {"value_range": (0, 1)}
CASES: list[tuple[str, Drawn]] = [
    *(("RandomFlip", {"mode": mode}) for mode in ("horizontal", "vertical", "horizontal_and_vertical")),
    ("RandomFlip", {"mode": "vertical", "seed": 9}),
    ("RandomFlip", {"mode": "horizontal", "seed": 9}),
    ("RandomRotation", {"factor": 0.2}),
    ("RandomRotation", {"factor": (0.23, 0.23), "interpolation": "nearest", "fill_mode": "constant"}),
    ("RandomRotation", {"factor": (-0.3, -0.1), "fill_mode": "wrap"}),
    ("RandomRotation", {"factor": 1.0, "fill_mode": "nearest"}),
    ("RandomRotation", {"factor": 0.1, "fill_mode": "constant", "fill_value": 7.0}),
    ("RandomZoom", {"height_factor": 0.4}),
    ("RandomZoom", {"height_factor": (0.2, 0.5), "width_factor": 0.3}),
    ("RandomZoom", {"height_factor": (-0.6, -0.2), "fill_mode": "constant", "fill_value": 3.0}),
    ("RandomZoom", {"height_factor": 0.5, "fill_mode": "wrap", "interpolation": "nearest"}),
    ("RandomZoom", {"height_factor": 0.9, "fill_mode": "nearest"}),
    ("RandomTranslation", {"height_factor": 0.4, "width_factor": 0.2}),
    ("RandomTranslation", {"height_factor": (0.2, 0.3), "width_factor": 0.0, "fill_mode": "constant"}),
    ("RandomTranslation", {"height_factor": 0.0, "width_factor": (-0.5, -0.2), "fill_mode": "wrap"}),
    ("RandomTranslation", {"height_factor": 0.9, "width_factor": 0.9, "interpolation": "nearest"}),
    ("RandomTranslation", {"height_factor": 1.0, "width_factor": 0.4, "fill_mode": "nearest"}),
    ("RandomShear", {"x_factor": 0.3}),
    ("RandomShear", {"y_factor": (0.1, 0.4), "fill_mode": "constant", "fill_value": 2.0}),
    ("RandomShear", {"x_factor": 0.2, "y_factor": 0.4, "fill_mode": "wrap"}),
    ("RandomShear", {"x_factor": (0.27, 0.27), "interpolation": "nearest"}),
    ("RandomShear", {"x_factor": 1.0, "y_factor": 0.2, "fill_mode": "nearest"}),
    ("RandomPerspective", {}),
    ("RandomPerspective", {"scale": 0.3, "fill_value": 5.0}),
    ("RandomPerspective", {"factor": (1.0, 1.0), "scale": 0.5, "interpolation": "nearest"}),
    ("RandomPerspective", {"factor": 0.5, "scale": 0.6}),
    ("RandomPerspective", {"factor": 0.0}),
    ("RandomElasticTransform", {"scale": (1.0, 1.0), "factor": (1.0, 1.0)}),
    ("RandomElasticTransform", {"scale": (0.8, 0.8), "fill_mode": "constant", "fill_value": 9.0}),
    ("RandomElasticTransform", {"scale": (0.6, 0.6), "fill_mode": "wrap", "interpolation": "nearest"}),
    ("RandomElasticTransform", {"scale": (1.0, 1.0), "factor": 0.5, "fill_mode": "nearest"}),
    ("RandomElasticTransform", {"scale": (1.0, 1.0), "factor": (1.0, 1.0), "fill_mode": "mirror"}),
    ("RandomBrightness", {"factor": 0.3}),
    ("RandomBrightness", {"factor": (0.2, 0.9)}),
    ("RandomBrightness", {"factor": (-1.0, -0.5)}),
    ("RandomBrightness", {"factor": 0.5, "value_range": (0, 100)}),
    ("RandomBrightness", {"factor": 0.0}),
    ("RandomContrast", {"factor": 0.5}),
    ("RandomContrast", {"factor": (0.2, 0.9)}),
    ("RandomContrast", {"factor": (0.9, 0.1)}),
    ("RandomContrast", {"factor": 1.0, "value_range": (50, 200)}),
    ("RandomContrast", {"factor": 0.0}),
    ("RandomHue", {"factor": 0.5}),
    ("RandomHue", {"factor": (0.5, 0.9)}),
    ("RandomHue", {"factor": 1.0, "seed": 8}),
    ("RandomHue", {"factor": 0.0}),
    ("RandomHue", {"factor": 0.3, **UNIT}),
    ("RandomSaturation", {"factor": (0.5, 0.9), **UNIT}),
    ("RandomSaturation", {"factor": (0.8, 1.0), **UNIT}),
    ("RandomSaturation", {"factor": 0.5, **UNIT}),
    ("RandomSaturation", {"factor": (0.0, 0.5)}),
    ("RandomSaturation", {"factor": (0.5, 0.5)}),
    ("RandomColorDegeneration", {"factor": 0.5}),
    ("RandomColorDegeneration", {"factor": (0.5, 1.0)}),
    ("RandomColorDegeneration", {"factor": 1.0, "value_range": (0, 200)}),
    ("RandomColorDegeneration", {"factor": (-1.0, -0.5)}),
    ("RandomColorDegeneration", {"factor": 0.0}),
    *(("RandomGrayscale", {"factor": f}) for f in (0.0, 0.3, 0.5, 0.8, 1.0)),
    *(("RandomInvert", {"factor": f}) for f in (0.0, 0.5, 1.0, (0.2, 0.7))),
    ("RandomInvert", {"factor": (1.0, 1.0), **UNIT}),
    *(("RandomPosterization", {"factor": f}) for f in (1, 4, 8, (3, 3), (2, 7))),
    ("RandomSharpness", {"factor": 1.0}),
    ("RandomSharpness", {"factor": (0.0, 0.3)}),
    ("RandomSharpness", {"factor": (0.8, 1.0)}),
    ("RandomSharpness", {"factor": 0.5, **UNIT}),
    ("RandomSharpness", {"factor": (0.5, 0.5)}),
    ("RandomGaussianBlur", {"factor": (1.0, 1.0)}),
    ("RandomGaussianBlur", {"kernel_size": 5, "sigma": (0.5, 1.0)}),
    ("RandomGaussianBlur", {"kernel_size": (3, 7), "sigma": (1.0, 1.0), "factor": (1.0, 1.0)}),
    ("RandomGaussianBlur", {"kernel_size": (7, 1), "factor": 0.5}),
    ("RandomGaussianBlur", {"factor": (1.0, 1.0), **UNIT}),
    ("RandomErasing", {}),
    ("RandomErasing", {"factor": (1.0, 1.0), "scale": (0.3, 0.8)}),
    ("RandomErasing", {"factor": (1.0, 1.0), "fill_value": 100.0, "scale": 0.9}),
    ("RandomErasing", {"factor": (1.0, 1.0), "fill_value": (1.0, 50.0, 300.0), "scale": (0.5, 0.5)}),
    ("RandomErasing", {"factor": 0.5, "scale": (0.9, 0.9), "fill_value": 0.0}),
    ("Solarization", {"threshold_factor": 0.5}),
    ("Solarization", {"addition_factor": 0.4, "threshold_factor": 0.9}),
    ("Solarization", {"addition_factor": (0.0, 1.0)}),
    ("Solarization", {"threshold_factor": 1.0, **UNIT}),
    ("Solarization", {}),
    *(("MixUp", {"alpha": alpha, "seed": 3}) for alpha in (0.1, 0.2, 0.5, 1.0, 5.0)),
    *(("CutMix", {"factor": f, "seed": 3}) for f in (0.3, 0.6, 1.0, (0.5, 0.5), (0.2, 0.9))),
    *(("RandomCrop", {"height": h, "width": w, "seed": 5}) for h, w in ((4, 4), (11, 8), (1, 3), (6, 2), (5, 7))),
]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_the_same_draw_gives_the_same(rng, name, arguments):
    x = images(rng, top=float(arguments.get("value_range", (0, 255))[1]))
    ours, theirs = (getattr(module.layers, name)(**{"seed": 1, **arguments}) for module in (hl, keras))
    drawn = theirs.get_random_transformation(x, training=True)
    mapped = {"size": SHAPE[1:3], **ours_of(name, drawn, arguments)}
    expected = theirs.transform_images(x.copy(), drawn)
    close(ours.transform_images(hl.ops.convert_to_tensor(x), mapped), expected, 2e-4 if "Elastic" in name else 2e-5)
    assert set(mapped) >= set(ours.get_random_transformation(x)) - {"noise"}
    if name in ("MixUp", "CutMix"):
        labels = rng.dirichlet(np.ones(5), SHAPE[0]).astype("float32")
        close(ours.transform_labels(hl.ops.convert_to_tensor(labels), mapped), theirs.transform_labels(labels, drawn))


def as_policy_draws(ours: Any, transforms: Drawn) -> Drawn:
    kinds = {key: type(getattr(ours, key)).__name__ for key in transforms}
    return {key: ours_of(kinds[key], value or {}, {}) for key, value in transforms.items()}


@pytest.mark.parametrize("number", range(11))
def test_rand_augment(rng, number):
    """Each of the changes by itself, then two of them after one another."""
    x = images(rng, (1, 12, 9, 3)).round()
    ours, theirs = (module.layers.RandAugment(num_ops=2, factor=0.7, seed=number) for module in (hl, keras))
    brighten = theirs.random_brightness.transform_images  # on NumPy it changes its argument, too
    theirs.random_brightness.transform_images = lambda images, drawn: brighten(images.copy(), drawn)
    drawn = theirs.get_random_transformation(x)
    assert tuple(drawn["transforms"]) == ours.changes
    transforms = as_policy_draws(ours, drawn["transforms"])
    theirs.num_ops = 1

    def step(start: np.ndarray, index: int) -> Any:
        expected = np.asarray(theirs.transform_images(start, {**drawn, "layer_idxes": np.array([index])}))
        found = ours.one_each(hl.ops.convert_to_tensor(start), np.array([index]), transforms)
        np.testing.assert_allclose(found, expected, atol=1e-2)
        return np.asarray(found)

    second = (number + 3) % 11
    last = step(step(x, number), second)
    indices = np.array([[number], [second]])
    whole = ours.transform_images(hl.ops.convert_to_tensor(x), {"layer_idxes": indices, "transforms": transforms})
    np.testing.assert_allclose(whole, last, atol=1e-3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("all_ops", [True, False])
def test_aug_mix(rng, seed, all_ops):
    """Step by step, each from the same images.

    As a whole it is ill-conditioned: equalisation after an interpolation turns a rounding into other tables, in Keras
    (with noise of one unit in the last place between its steps) as much as here.
    """
    x = images(rng, (1, 12, 9, 3)).round()
    ours, theirs = (module.layers.AugMix(factor=0.5, all_ops=all_ops, seed=seed) for module in (hl, keras))
    before = random.getstate()
    random.seed(seed)  # theirs chooses its chains with Python's generator
    drawn = theirs.get_random_transformation(x)
    random.setstate(before)
    depth, chains = ours.chain_depth, ours.num_chains
    index = np.full((depth, chains), len(ours.changes))
    draws = [arrays(ours.draw_changes((chains, *x.shape[1:]), 1)) for _ in range(depth)]
    for chain, steps in enumerate(drawn["chain_transforms"]):
        for step, row in enumerate(steps):
            name = row["layer_name"]
            index[step, chain] = ours.changes.index(name)
            for key, value in as_policy_draws(ours, {name: row["transformation"]})[name].items():
                draws[step][name][key] = draws[step][name][key].copy()
                draws[step][name][key][chain] = np.asarray(value).reshape(-1)[0]

    now = np.repeat(x, chains, axis=0)
    for step in range(depth):
        found = np.asarray(ours.one_each(hl.ops.convert_to_tensor(now), index[step], draws[step]))
        for chain, steps in enumerate(drawn["chain_transforms"]):
            expected = now[chain : chain + 1].copy()
            if step < len(steps):
                layer = getattr(theirs, steps[step]["layer_name"])
                expected = np.asarray(layer.transform_images(expected, steps[step]["transformation"]))
            np.testing.assert_allclose(found[chain], expected[0], atol=1e-2)
        now = found

    shares, share = np.asarray(drawn["chain_mixing_weights"]), np.asarray(drawn["weight_sample"])
    mixed = np.tensordot(shares, now, 1)
    transformation = {
        "chain_mixing_weights": shares[:, None],
        "weight_sample": share.reshape(1),
        "layer_idxes": index,
        "chain_transforms": draws,
    }
    whole = ours.transform_images(hl.ops.convert_to_tensor(x), transformation)
    close(whole, np.clip(share * x + (1 - share) * mixed, 0, 255))


# Without chance ------------------------------------------------------------------------------------------------------
FIXED: list[tuple[str, Drawn]] = [
    ("Resizing", {"height": 5, "width": 7}),
    ("Resizing", {"height": 20, "width": 7, "interpolation": "nearest"}),
    ("Resizing", {"height": 5, "width": 20, "interpolation": "bicubic", "antialias": True}),
    ("Resizing", {"height": 6, "width": 6, "crop_to_aspect_ratio": True}),
    ("Resizing", {"height": 8, "width": 8, "pad_to_aspect_ratio": True, "fill_value": 9.0}),
    ("Resizing", {"height": 5, "width": 4, "interpolation": "lanczos3"}),
    ("CenterCrop", {"height": 5, "width": 4}),
    ("CenterCrop", {"height": 12, "width": 9}),
    ("CenterCrop", {"height": 20, "width": 5}),
    ("CenterCrop", {"height": 6, "width": 15}),
    ("CenterCrop", {"height": 30, "width": 30}),
    *(("AutoContrast", {"value_range": r}) for r in ((0, 255), (0, 1), (-1, 1), (0, 300), (-100, 255))),
    *(
        ("ContrastLimitedAdaptiveHistogramEqualization", a)
        for a in ({}, {"clip_limit": 0.0}, {"tile_grid_size": (2, 3)}, {"tile_grid_size": (4, 3)}, {"clip_limit": 1.5})
    ),
]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(("name", "arguments"), FIXED, ids=str)
def test_fixed_layers(rng, name, arguments, dtype):
    x = images(rng).astype(dtype)
    if name == "AutoContrast" and arguments["value_range"][1] == 1 and dtype == "float32":
        x = x / 255
    ours, theirs = (getattr(module.layers, name)(**arguments) for module in (hl, keras))
    expected = np.asarray(theirs(x))
    found = ours(x)
    assert found.dtype == expected.dtype.name
    if dtype == "uint8":
        assert np.abs(np.asarray(found, "float32") - expected).max() <= 1  # ties of rounding
    else:
        close(found, expected)
    np.testing.assert_array_equal(ours(x, training=False), found)


@pytest.mark.parametrize("arguments", [{}, {"bins": 16}, {"bins": 100}, {"value_range": (0, 1)}, {"bins": 2}], ids=str)
def test_equalization_image_by_image(rng, arguments):
    x = images(rng, top=float(arguments.get("value_range", (0, 255))[1]))
    ours, theirs = (module.layers.Equalization(**arguments) for module in (hl, keras))
    found = np.asarray(ours(x))
    for image, expected in zip(found, (theirs(x[i : i + 1]) for i in range(len(x))), strict=True):
        assert (np.abs(image - np.asarray(expected)[0]) > 1e-3).mean() < 0.01  # steps of the staircase


def test_plain_images_stay_plain():
    x = np.full((2, 8, 8, 3), 77.0, "float32")
    for name in ("AutoContrast", "Equalization"):
        np.testing.assert_array_equal(getattr(hl.layers, name)()(x), x)
