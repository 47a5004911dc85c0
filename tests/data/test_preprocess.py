"""From pictures to the input of a network, and back to the question whether they were normalised before."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import highlevel as hl
from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (30, 40, 3)).astype(np.uint8)
LITE = Preprocessing(size=(24, 24), interpolation="bilinear", mean=(127.0,) * 3, std=(128.0,) * 3)


def test_the_values_are_those_of_pillow_and_the_formula():
    """Resized so that the crop keeps its part, cut out of the middle, normalised."""
    steps = Preprocessing((14, 14), crop_fraction=0.875, interpolation="bilinear", mean=(1.0, 2, 3), std=(4.0, 5, 6))
    resized = np.asarray(Image.fromarray(PICTURE).resize((21, 16), Image.Resampling.BILINEAR), np.float32)
    crop = resized[1:15, 3:17]
    found = steps(PICTURE)
    assert found.shape == (1, 14, 14, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], (crop - [1, 2, 3]) / [4, 5, 6], atol=1.01 / 4)  # a rounding of the pixels


def test_a_picture_of_the_right_size_is_only_normalised():
    image = PICTURE[:24, :24]
    np.testing.assert_allclose(LITE(image)[0], (image.astype("float32") - 127) / 128, rtol=1e-6)


def test_one_picture_a_batch_or_a_list_of_any_sizes():
    batch = np.stack([PICTURE, PICTURE[::-1]])
    assert np.array_equal(LITE(batch), LITE([PICTURE, PICTURE[::-1]]))
    assert np.array_equal(LITE(batch)[:1], LITE(PICTURE))
    assert LITE([PICTURE, PICTURE[:20, :13], np.repeat(PICTURE, 3, axis=0)]).shape == (3, 24, 24, 3)


def test_orders_of_colours():
    plain = Preprocessing(size=(30, 40))
    assert np.array_equal(plain(PICTURE)[0], PICTURE)
    assert np.array_equal(Preprocessing(size=(30, 40), channels="BGR")(PICTURE)[0], PICTURE[..., ::-1])
    grey = Preprocessing(size=(30, 40), channels="grey", mean=(0.0,), std=(1.0,))(PICTURE)
    expected = np.asarray(Image.fromarray(PICTURE).convert("L"), np.float32)
    assert grey.shape == (1, 30, 40, 1) and np.abs(grey[0, ..., 0] - expected).max() < 1.0


def test_it_is_data_and_comes_back_from_it():
    steps = Preprocessing(size=(14, 16), crop_fraction=0.9, channels="BGR", mean=(1.0, 2, 3), std=(4.0, 5, 6))
    values = steps.to_dict()
    assert values["size"] == (14, 16)
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    assert Preprocessing.from_dict(listed) == steps


def test_pictures_that_were_normalised_before_are_noticed():
    floats = PICTURE.astype(np.float32)
    np.testing.assert_allclose(LITE(floats), LITE(PICTURE), atol=1.01 / 128)  # pixels as floats are pixels
    with pytest.warns(UserWarning, match="0 to 1 where pixels"):
        LITE(floats / 255)
    for normalised in ((floats - 127) / 128, floats * 2.0):
        with pytest.raises(ArgumentError, match="outside of 0…255"):
            LITE(normalised)
    LITE(np.zeros((30, 40, 3), np.float32))  # a black picture is a picture


def test_there_is_one_warning_and_it_points_at_the_user():
    model = hl.Model(x := hl.Input((24, 24, 3)), x * 1.0)
    model.preprocessing = LITE
    with pytest.warns(UserWarning) as caught:
        model.preprocess([PICTURE / 255, PICTURE / 255])
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PICTURE[..., 0], r"np.stack\(\[image\] \* 3"),
        (PICTURE.transpose(2, 0, 1), r"np.moveaxis\(image, 0, -1\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(height, width, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), r"\(1, 2, 4, 4, 3\)"),
    ],
)
def test_what_is_no_picture_is_explained(image, words):
    with pytest.raises(ShapeError, match=words):
        LITE(image)
