"""What belongs to images follows them: boxes, against Keras's and against painted rectangles; masks; labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.preprocessing.image import boxes

keras = pytest.importorskip("keras")

SIZE = (40, 60)
BOXES = np.float32(
    [[[5, 6, 25, 16], [30, 20, 44, 35]], [[10, 10, 50, 30], [2, 3, 12, 9]], [[0, 0, 60, 40], [1, 1, 9, 5]]]
)
LABELS = np.array([[1, 2], [3, 4], [5, 6]])


def data(form: str = "xyxy", **more: Any) -> dict[str, Any]:
    own = np.asarray(boxes.convert(hl.ops.convert_to_tensor(BOXES), "xyxy", form, *SIZE))
    images = np.zeros((3, *SIZE, 3), "float32")
    return {"images": images, "bounding_boxes": {"boxes": own, "labels": LABELS.copy()}, **more}


@pytest.mark.parametrize("target", boxes.FORMATS)
@pytest.mark.parametrize("source", boxes.FORMATS)
def test_formats(source, target):
    own = np.asarray(boxes.convert(hl.ops.convert_to_tensor(BOXES), "xyxy", source, *SIZE))
    found = boxes.convert(hl.ops.convert_to_tensor(own), source, target, *SIZE)
    expected = keras.utils.bounding_boxes.convert_format(own, source, target, height=SIZE[0], width=SIZE[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


# Beside Keras's -------------------------------------------------------------------------------------------------------
def seeded(name: str, arguments: dict[str, Any], form: str) -> tuple[Any, Any]:
    return tuple(getattr(m.layers, name)(**arguments, bounding_box_format=form) for m in (hl, keras))


@pytest.mark.parametrize("form", ["xyxy", "rel_xywh", "center_yxhw"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Resizing", {"height": 20, "width": 90}),
        ("Resizing", {"height": 30, "width": 30, "pad_to_aspect_ratio": True}),
        ("Resizing", {"height": 20, "width": 20, "crop_to_aspect_ratio": True}),
        ("CenterCrop", {"height": 20, "width": 30}),
        ("CenterCrop", {"height": 50, "width": 20}),
        ("CenterCrop", {"height": 80, "width": 90}),
    ],
    ids=str,
)
def test_fixed_layers(name, arguments, form):
    ours, theirs = seeded(name, arguments, form)
    found, expected = ours(data(form))["bounding_boxes"], theirs(data(form))["bounding_boxes"]
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found["labels"], expected["labels"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandomTranslation", {"height_factor": (0.2, 0.2), "width_factor": (-0.3, -0.3)}),
        ("RandomTranslation", {"height_factor": (-0.8, -0.8), "width_factor": (0.5, 0.5)}),
        ("RandomZoom", {"height_factor": (0.3, 0.3), "width_factor": (0.1, 0.1)}),
        ("RandomZoom", {"height_factor": (-0.5, -0.5)}),
        ("RandomRotation", {"factor": (0.1, 0.1)}),
        ("RandomRotation", {"factor": (-0.4, -0.4)}),
    ],
    ids=str,
)
def test_random_layers_with_one_choice(name, arguments):
    ours, theirs = seeded(name, arguments, "xyxy")
    found, expected = ours(data())["bounding_boxes"], theirs(data())["bounding_boxes"]
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-3, atol=0.05)
    np.testing.assert_array_equal(found["labels"], expected["labels"])


def test_max_num_bounding_boxes():
    for count in (1, 2, 5):
        ours, theirs = seeded("MaxNumBoundingBoxes", {"max_number": count}, "xyxy")
        found, expected = ours(data())["bounding_boxes"], theirs(data())["bounding_boxes"]
        for key in ("boxes", "labels"):
            np.testing.assert_array_equal(found[key], expected[key])


# Painted rectangles ---------------------------------------------------------------------------------------------------
def painted(own: np.ndarray) -> np.ndarray:
    images = np.zeros((len(own), *SIZE, 3), "float32")
    for image, (x1, y1, x2, y2) in zip(images, own.astype(int), strict=True):
        image[y1:y2, x1:x2] = 255
    return images


def outline(image: np.ndarray) -> np.ndarray | None:
    rows, columns = (np.flatnonzero((image[..., 0] > 100).any(axis=axis)) for axis in (1, 0))
    return None if not rows.size else np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


MOVING = {
    "RandomFlip": {},
    "RandomRotation": {"factor": 0.3, "fill_mode": "constant", "interpolation": "nearest"},
    "RandomZoom": {"height_factor": 0.4, "width_factor": 0.4, "fill_mode": "constant", "interpolation": "nearest"},
    "RandomTranslation": {
        "height_factor": 0.4, "width_factor": 0.4, "fill_mode": "constant", "interpolation": "nearest",
    },
    "RandomShear": {"x_factor": 0.4, "y_factor": 0.3, "fill_mode": "constant", "interpolation": "nearest"},
    "RandomPerspective": {"scale": 0.6, "interpolation": "nearest"},
    "RandomCrop": {"height": 30, "width": 40},
    "CenterCrop": {"height": 30, "width": 40},
    "Resizing": {"height": 80, "width": 90, "interpolation": "nearest"},
    "Resizing cropped": {"height": 33, "width": 33, "interpolation": "nearest", "crop_to_aspect_ratio": True},
    "Resizing padded": {"height": 75, "width": 75, "interpolation": "nearest", "pad_to_aspect_ratio": True},
}  # fmt: skip


@pytest.mark.parametrize("form", ["xyxy", "rel_yxyx", "center_xywh"])
@pytest.mark.parametrize("name", MOVING)
def test_boxes_stay_around_what_they_held(rng, name, form):
    count = 24
    corner = np.stack([rng.integers(0, 40, count), rng.integers(0, 25, count)], axis=1)
    own = np.concatenate([corner, corner + rng.integers(6, 15, (count, 2))], axis=1).astype("float32")
    given = boxes.convert(hl.ops.convert_to_tensor(own[:, None]), "xyxy", form, *SIZE)
    seed = {} if name.startswith(("CenterCrop", "Resizing")) else {"seed": 2}
    layer = getattr(hl.layers, name.split()[0])(**MOVING[name], **seed, bounding_box_format=form)
    labels = np.ones((count, 1), "int32")
    found = layer({"images": painted(own), "bounding_boxes": {"boxes": np.asarray(given), "labels": labels}})
    size = found["images"].shape[1:3]
    moved = np.asarray(boxes.convert(found["bounding_boxes"]["boxes"], form, "xyxy", *size))[:, 0]
    seen = 0
    for image, box, label in zip(np.asarray(found["images"]), moved, found["bounding_boxes"]["labels"], strict=True):
        expected = outline(image)
        if expected is None:
            continue
        seen += 1
        exact = name not in ("RandomRotation", "RandomShear", "RandomPerspective")
        if exact and int(label[0]) == 1:
            assert np.abs(box - expected).max() <= 2.1  # pixels have a size
        # Corners may be cut off by the edge, so boxes of turned rectangles hold at least what is seen.
        assert (box[:2] <= expected[:2] + 2.1).all() and (box[2:] >= expected[2:] - 2.1).all()
    assert seen > count / 3


def test_boxes_of_a_policy_stay_around_what_they_held(rng):
    count = 16
    own = np.tile(np.float32([20, 14, 40, 26]), (count, 1))
    layer = hl.layers.RandAugment(num_ops=2, factor=0.2, seed=1, bounding_box_format="xyxy", interpolation="nearest")
    drawn = layer.get_random_transformation(np.zeros((count, *SIZE, 3)))
    drawn["layer_idxes"] = hl.ops.convert_to_tensor(rng.integers(0, 3, (2, count)))  # only what moves
    images = layer.transform_images(hl.ops.convert_to_tensor(painted(own)), drawn)
    bounding = {"boxes": hl.ops.convert_to_tensor(own[:, None]), "labels": hl.ops.ones((count, 1), "int32")}
    moved = np.asarray(layer.transform_bounding_boxes(bounding, drawn)["boxes"])[:, 0]
    middle = np.asarray(images)[:, 8:32, 12:48]  # without reflections from the edges
    for image, box in zip(middle, moved - [12, 8, 12, 8], strict=True):
        expected = outline(image)
        assert (box[:2] <= expected[:2] + 2.1).all() and (box[2:] >= expected[2:] - 2.1).all()


def test_vanished_boxes_lose_their_label():
    layer = hl.layers.RandomTranslation(0.0, (0.5, 0.5), bounding_box_format="xyxy")
    found = layer(data())["bounding_boxes"]
    assert found["labels"].tolist() == [[1, -1], [3, 4], [5, 6]]
    assert found["boxes"][0, 1].tolist() == [60.0, 20.0, 60.0, 35.0]


def test_boxes_are_mixed():
    found = hl.layers.MixUp(seed=1, bounding_box_format="xyxy")(data())["bounding_boxes"]
    assert found["boxes"].shape == (3, 4, 4) and found["labels"].shape == (3, 4)
    np.testing.assert_array_equal(found["boxes"][:, :2], BOXES)
    assert sorted(found["labels"].numpy()[:, 2:].ravel()) == sorted(LABELS.ravel())
    with pytest.raises(ArgumentError, match="MixUp"):
        hl.layers.CutMix(bounding_box_format="xyxy")(data())


def test_one_image():
    layer = hl.layers.RandomFlip("horizontal", seed=3, bounding_box_format="xyxy")
    other = hl.layers.RandomFlip("horizontal", seed=3, bounding_box_format="xyxy")
    batch = layer({key: hl.ir.tree.map(lambda x: x[:1], value) for key, value in data().items()})
    single = other({key: hl.ir.tree.map(lambda x: x[0], value) for key, value in data().items()})
    np.testing.assert_array_equal(single["bounding_boxes"]["boxes"], batch["bounding_boxes"]["boxes"][0])
    assert single["bounding_boxes"]["labels"].shape == (2,)


def test_boxes_complain():
    with pytest.raises(ArgumentError, match="unknown format"):
        hl.layers.RandomFlip()(data())
    layer = hl.layers.RandomFlip(bounding_box_format="xyxy")
    with pytest.raises(ArgumentError, match="boxes with labels"):
        layer({**data(), "bounding_boxes": {"boxes": BOXES}})
    with pytest.raises(ShapeError, match="do not fit"):
        layer({**data(), "bounding_boxes": {"boxes": BOXES, "labels": LABELS[:, :1]}})


# Masks, and whole dictionaries ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in MOVING if name != "RandomPerspective"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_masks_follow(rng, name, data_format):
    masks = rng.integers(0, 200, (3, *SIZE, 1)).astype("int32")
    images = np.repeat(masks, 3, axis=-1).astype("float32")
    if data_format == "channels_first":
        images, masks = np.moveaxis(images, -1, 1), np.moveaxis(masks, -1, 1)
    layer = getattr(hl.layers, name.split()[0])(**MOVING[name], data_format=data_format)
    given = {"images": images, "segmentation_masks": masks, "labels": np.arange(3), "name": np.arange(3.0)}
    found = layer(given)
    channel = np.asarray(found["images"]).take([0], axis=-1 if data_format == "channels_last" else 1)
    np.testing.assert_array_equal(found["segmentation_masks"], channel)
    assert str(found["segmentation_masks"].dtype) == "int32"
    assert found["labels"].tolist() == [0, 1, 2] and found["name"].tolist() == [0, 1, 2]
    assert set(given) == set(found) and given["images"] is images


@pytest.mark.parametrize("name", ["RandAugment", "RandomElasticTransform", "RandomPerspective"])
def test_masks_keep_their_numbers(rng, name):
    masks = rng.choice([3, 77], (3, *SIZE, 1)).astype("uint8")
    strong = {"scale": (1.0, 1.0), "factor": (1.0, 1.0)}
    more = {"RandomPerspective": {"fill_value": 3.0}, "RandomElasticTransform": strong}.get(name, {})
    layer = getattr(hl.layers, name)(seed=2, **more)
    found = layer({"images": np.zeros((3, *SIZE, 3)), "segmentation_masks": masks})
    assert set(np.unique(found["segmentation_masks"])) == {3, 77}
    assert (np.asarray(found["segmentation_masks"]) != masks).any()


def test_a_dictionary_in_a_functional_model():
    start = {"images": hl.Input((8, 8, 3)), "labels": hl.Input((2,))}
    model = hl.Model(start, hl.layers.MixUp(seed=1)(start))
    given = {"images": np.ones((4, 8, 8, 3), "float32"), "labels": np.eye(2, dtype="float32")[[0, 1, 0, 1]]}
    found = model(given)
    np.testing.assert_array_equal(found["labels"], given["labels"])
    mixed = model(given, training=True)
    np.testing.assert_allclose(mixed["labels"].numpy().sum(1), 1, rtol=1e-6)
    assert (mixed["labels"].numpy() != given["labels"]).any()
