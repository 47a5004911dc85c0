"""`InputSpec` beside Keras's: which inputs it lets pass."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, DTypeError, ShapeError

SPECS = [
    {"ndim": 3},
    {"min_ndim": 2, "max_ndim": 3},
    {"shape": (None, 4)},
    {"shape": (2, None, 3)},
    {"axes": {-1: 3}},
    {"axes": {1: 4, -1: None}},
    {"ndim": 2, "axes": {1: 4}},
]
SHAPES = [(2,), (2, 4), (2, 3), (2, 4, 1), (2, 5, 3), (2, 4, 3), (1, 4, 3), (2, 4, 3, 3)]


def layer_of(library, spec):
    class Checked(library.layers.Layer):
        def __init__(self):
            super().__init__()
            self.input_spec = spec

        def call(self, inputs):
            return inputs

    return Checked()


@pytest.mark.parametrize("arguments", SPECS, ids=str)
def test_what_passes(arguments):
    keras = pytest.importorskip("keras")
    ours = layer_of(hl, hl.layers.InputSpec(**arguments))
    theirs = layer_of(keras, keras.layers.InputSpec(**arguments))

    def passes(layer, shape, errors):
        try:
            layer(np.ones(shape, "float32"))
        except errors:
            return False
        return True

    for shape in SHAPES:
        assert passes(ours, shape, ShapeError) == passes(theirs, shape, (ValueError, IndexError)), shape


@pytest.mark.parametrize(("shape", "squeezed"), [((None, 4, 1), (2, 4)), ((None, 4), (2, 4, 1))])
def test_a_last_axis_of_one_may_be_missing_or_too_many(shape, squeezed):
    """As Keras's documentation says; what it does lets other ranks pass, too."""
    layer = layer_of(hl, hl.layers.InputSpec(shape=shape, allow_last_axis_squeeze=True))
    layer(np.ones(squeezed, "float32")), layer(np.ones((2, *shape[1:]), "float32"))
    for other in [(2,), (2, 3), (2, 4, 3)]:
        with pytest.raises(ShapeError):
            layer(np.ones(other, "float32"))


def test_types_and_several_inputs():
    spec = hl.layers.InputSpec
    a, b = np.ones((2, 3), "float32"), np.ones((2, 3), "int32")
    with pytest.raises(DTypeError, match="int32"):
        layer_of(hl, spec(dtype="int32"))(a)
    layer_of(hl, [spec(ndim=2), spec(dtype="int32")])([a, b])
    with pytest.raises(ShapeError, match="number of inputs"):
        layer_of(hl, [spec(ndim=2)])([a, b])
    named = [spec(name="left", ndim=2), spec(name="right", ndim=1)]
    with pytest.raises(ShapeError, match="rank 1"):
        layer_of(hl, named)({"left": a, "right": a})
    with pytest.raises(ShapeError, match="rank 1"):
        layer_of(hl, spec(ndim=1))(hl.Input((3,)))


def test_description():
    spec = hl.layers.InputSpec(shape=(None, 3), dtype="float32")
    assert repr(spec) == "InputSpec(dtype=float32, shape=(None, 3), ndim=2)"
    assert hl.layers.InputSpec.from_config(spec.get_config()).shape == (None, 3)
    with pytest.raises(ArgumentError, match="axis"):
        hl.layers.InputSpec(ndim=2, axes={2: 1})
