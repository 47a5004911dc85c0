"""Initializers: distributions against SciPy, fans and constants against Keras."""

from __future__ import annotations

import os

import numpy as np
import pytest

from highlevel import initializers
from highlevel.errors import ArgumentError, HighlevelError, ShapeError
from highlevel.ir import Tensor, Variable
from highlevel.serialization import deserialize, serialize

os.environ.setdefault("KERAS_BACKEND", "numpy")
keras = pytest.importorskip("keras")

RANDOM = [
    ("RandomNormal", {"mean": 1.0, "stddev": 2.0}),
    ("TruncatedNormal", {"mean": -1.0, "stddev": 0.5}),
    ("RandomUniform", {"minval": -3.0, "maxval": 1.0}),
    ("VarianceScaling", {}),
    ("VarianceScaling", {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}),
    ("VarianceScaling", {"scale": 0.5, "mode": "fan_avg", "distribution": "uniform"}),
    ("VarianceScaling", {"input_axes": [2], "output_axes": [0, 1]}),
    ("GlorotUniform", {}),
    ("GlorotNormal", {}),
    ("HeUniform", {}),
    ("HeNormal", {}),
    ("LecunUniform", {}),
    ("LecunNormal", {}),
]


@pytest.mark.parametrize("name, options", RANDOM, ids=str)
def test_distributions_equal_keras(name, options):
    """The same distribution: no test of Kolmogorov and Smirnov on 23,040 numbers each tells them apart."""
    stats = pytest.importorskip("scipy.stats")
    shape = (6, 5, 24, 32)
    ours = np.asarray(getattr(initializers, name)(seed=3, **options)(shape)).ravel()
    theirs = np.asarray(getattr(keras.initializers, name)(seed=5, **options)(shape)).ravel()
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    assert abs(ours).max() == pytest.approx(abs(theirs).max(), rel=0.3)


@pytest.mark.parametrize("name, options", RANDOM, ids=str)
def test_a_seed_decides(name, options):
    make = getattr(initializers, name)
    first, again, other = (np.asarray(make(seed=seed, **options)((4, 5, 6))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    initializer = make(seed=1, **options)
    np.testing.assert_array_equal(initializer((4, 5, 6)), initializer((4, 5, 6)))


def test_without_a_seed_objects_differ_and_the_global_seed_decides():
    from highlevel.random import set_random_seed

    found = []
    for _ in range(2):
        set_random_seed(11)
        found.append([np.asarray(initializers.HeNormal()((3, 4))) for _ in range(2)])
    assert (found[0][0] != found[0][1]).any()
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("shape", [(), (7,), (7, 5), (3, 7, 5), (3, 2, 7, 5)], ids=str)
def test_fans_equal_keras(shape):
    assert initializers.fans(shape) == keras.src.initializers.random_initializers.compute_fans(shape)


@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8), (3, 3, 4, 6)], ids=str)
def test_orthogonal_is_orthogonal(shape):
    matrix = np.asarray(initializers.Orthogonal(gain=2.0, seed=1)(shape)).reshape(-1, shape[-1]).astype("float64")
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 4.0 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_matrices_are_evenly_distributed():
    """The sign of the diagonal is as often negative as positive; QR alone would fix it."""
    signs = [np.sign(np.asarray(initializers.Orthogonal(seed=seed)((2, 2)))[0, 0]) for seed in range(200)]
    assert abs(np.mean(signs)) < 0.3


@pytest.mark.parametrize(
    "name, options", [("Zeros", {}), ("Ones", {}), ("Constant", {"value": 2.5}), ("Identity", {"gain": 3.0})]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_constants_equal_keras(name, options, dtype):
    ours = getattr(initializers, name)(**options)((4, 3), dtype=dtype)
    assert ours.dtype == dtype or name == "Identity"
    np.testing.assert_array_equal(ours, getattr(keras.initializers, name)(**options)((4, 3), dtype=dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["GlorotUniform", "HeNormal", "RandomNormal", "Orthogonal"])
def test_types(name, dtype):
    assert getattr(initializers, name)(seed=0)((4, 4), dtype=dtype).dtype == dtype


def test_anything_may_be_an_initializer():
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(initializers.get(array)((2, 3)), array)
    np.testing.assert_array_equal(initializers.get(array.tolist())((2, 3)), array)
    np.testing.assert_array_equal(initializers.get(Tensor.of(array))((2, 3)), array)
    np.testing.assert_array_equal(initializers.get(Variable(array))((2, 3)), array)
    np.testing.assert_array_equal(initializers.get(0.5)((2,)), [0.5, 0.5])
    assert isinstance(initializers.get("he_normal"), initializers.HeNormal)
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    assert initializers.get(None) is None
    own = lambda shape, dtype=None: np.zeros(shape)  # noqa: E731
    assert initializers.get(own) is own
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        initializers.get(array)((3, 2))
    with pytest.raises(ArgumentError, match="he_normal"):
        initializers.get("he_normel")


def test_every_keras_name_is_known():
    absent = {"initializer", "stft", "random_initializer"}
    words = {word for word in keras.src.initializers.ALL_OBJECTS_DICT if not word.lower().startswith("stft")}
    known = [initializers.get(word) for word in words if word.lower() not in absent]
    assert len(known) > 20


def test_variables_take_initializers():
    variable = Variable(initializers.HeNormal(seed=1), shape=(3, 4), dtype="float32")
    np.testing.assert_array_equal(variable.numpy(), initializers.HeNormal(seed=1)((3, 4)))


@pytest.mark.parametrize(
    "name, options", [*RANDOM, ("Constant", {"value": 3.0}), ("Orthogonal", {"gain": 2.0})], ids=str
)
def test_initializers_survive_a_file(name, options):
    more = {} if name == "Constant" else {"seed": 9}
    initializer = getattr(initializers, name)(**options, **more)
    again = deserialize(serialize(initializer))
    np.testing.assert_array_equal(again((2, 3, 4)), initializer((2, 3, 4)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: initializers.VarianceScaling(scale=-1.0),
        lambda: initializers.VarianceScaling(mode="fan"),
        lambda: initializers.VarianceScaling(distribution="cauchy"),
        lambda: initializers.HeNormal(seed="today"),
        lambda: initializers.Identity()((2, 2, 2)),
        lambda: initializers.Orthogonal()((3,)),
    ],
)
def test_wrong_arguments_are_explained(make):
    with pytest.raises(HighlevelError):
        make()
