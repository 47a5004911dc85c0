"""Every layer of images in compiled programs, and on one image."""

from __future__ import annotations

import numpy as np

import highlevel as hl


def test_programs_give_the_same(make, name, pictures):
    layer, other = make(name), make(name)
    compiled = hl.jit(lambda x: other(x, training=True))
    for _ in range(2):
        expected = np.asarray(layer(pictures, training=True), "float32")
        found = np.asarray(compiled(pictures), "float32")
        wrong = np.abs(found - expected) > 1e-2
        assert wrong.mean() < 0.01 and found.shape == expected.shape  # staircases may be a step off
    assert compiled.traces == 1


def test_one_image_is_a_batch_of_one(make, name, pictures):
    np.testing.assert_array_equal(make(name)(pictures[0]), make(name)(pictures[:1])[0])
