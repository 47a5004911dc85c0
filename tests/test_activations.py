"""Activations, regularizers and constraints against Keras."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel import activations, constraints, regularizers
from highlevel.errors import ArgumentError, HighlevelError, ShapeError
from highlevel.serialization import deserialize, serialize

keras = pytest.importorskip("keras")

NAMES = sorted(set(keras.src.activations.ALL_OBJECTS_DICT) - {"threshold", "sparsemax"})


def near(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_activations_equal_keras(name, rng):
    x = (3 * rng.normal(size=(5, 8))).astype("float32")
    near(activations.get(name)(x), getattr(keras.activations, name)(x))


@pytest.mark.parametrize(
    "name, options",
    [
        ("relu", {"negative_slope": 0.1}),
        ("relu", {"max_value": 1.0}),
        ("relu", {"threshold": 0.5}),
        ("relu", {"negative_slope": 0.2, "max_value": 1.5, "threshold": 0.3}),
        ("leaky_relu", {"negative_slope": 0.05}),
        ("elu", {"alpha": 0.5}),
        ("celu", {"alpha": 0.5}),
        ("gelu", {"approximate": True}),
        ("softmax", {"axis": 0}),
        ("log_softmax", {"axis": 0}),
        ("glu", {"axis": 1}),
        ("squareplus", {"b": 2}),
        ("hard_shrink", {"threshold": 1.0}),
        ("soft_shrink", {"threshold": 1.0}),
        ("threshold", {"threshold": 0.5, "default_value": -1.0}),
    ],
    ids=str,
)
def test_options_equal_keras(name, options, rng):
    x = (2 * rng.normal(size=(5, 8))).astype("float32")
    near(getattr(activations, name)(x, **options), getattr(keras.activations, name)(x, **options))


@pytest.mark.parametrize("axis", [0, -1])
def test_sparsemax_is_the_nearest_distribution(axis, rng):
    """max(x − τ, 0), with τ found by SciPy such that the sum is 1. (Keras's own does not sum to 1 on NumPy.)"""
    optimize = pytest.importorskip("scipy.optimize")
    x = (2 * rng.normal(size=(6, 6))).astype("float32")
    found = np.moveaxis(np.asarray(activations.sparsemax(x, axis=axis)), axis, -1)
    for row, p in zip(np.moveaxis(x, axis, -1), found, strict=True):
        tau = optimize.brentq(lambda t, row=row: np.maximum(row - t, 0).sum() - 1, row.min() - 1, row.max())
        near(p, np.maximum(row - tau, 0))
    assert activations.get("sparsemax") is activations.sparsemax


def test_names_and_functions():
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.get("silu")
    assert activations.get(np.tanh) is np.tanh
    for name in NAMES:
        assert activations.get(serialize(activations.get(name))) is activations.get(name)
    with pytest.raises(ArgumentError, match="softmax"):
        activations.get("sofmax")


REGULARIZERS = [
    ("L1", {}),
    ("L1", {"l1": 0.3}),
    ("L2", {}),
    ("L2", {"l2": 0.3}),
    ("L1L2", {}),
    ("L1L2", {"l1": 0.1, "l2": 0.2}),
    ("OrthogonalRegularizer", {}),
    ("OrthogonalRegularizer", {"factor": 0.5}),
]


@pytest.mark.parametrize("name, options", REGULARIZERS, ids=str)
def test_regularizers_equal_keras(name, options, rng):
    w = rng.normal(size=(4, 6)).astype("float32")
    regularizer = getattr(regularizers, name)(**options)
    near(regularizer(w), getattr(keras.regularizers, name)(**options)(w))
    near(deserialize(serialize(regularizer))(w), regularizer(w))


def test_columns_are_the_rows_of_the_transpose(rng):
    """Keras itself normalizes the wrong axis of NumPy's arrays for columns."""
    w = rng.normal(size=(4, 6)).astype("float32")
    near(regularizers.OrthogonalRegularizer(0.5, "columns")(w), keras.regularizers.OrthogonalRegularizer(0.5)(w.T))


def test_names_of_regularizers():
    for word in keras.src.regularizers.ALL_OBJECTS_DICT:
        if word.lower() != "regularizer":
            assert isinstance(regularizers.get(word), regularizers.Regularizer)
    for make in (lambda: regularizers.L2(-1.0), lambda: regularizers.L1(float("nan"))):
        with pytest.raises(ArgumentError):
            make()
    with pytest.raises(ShapeError):
        regularizers.OrthogonalRegularizer()(np.zeros(3, "float32"))


CONSTRAINTS = [
    ("NonNeg", {}),
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 0.5, "axis": 1}),
    ("MaxNorm", {"max_value": 0.5, "axis": [0, 1]}),
    ("UnitNorm", {}),
    ("UnitNorm", {"axis": 1}),
    ("MinMaxNorm", {}),
    ("MinMaxNorm", {"min_value": 1.5, "max_value": 2.0, "rate": 0.3, "axis": 1}),
]


@pytest.mark.parametrize("name, options", CONSTRAINTS, ids=str)
def test_constraints_equal_keras(name, options, rng):
    w = rng.normal(size=(4, 6)).astype("float32")
    constraint = getattr(constraints, name)(**options)
    theirs = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    near(constraint(w), getattr(keras.constraints, name)(**theirs)(w))
    near(deserialize(serialize(constraint))(w), constraint(w))


def test_names_of_constraints():
    for word in keras.src.constraints.ALL_OBJECTS_DICT:
        if word.lower() != "constraint":
            assert isinstance(constraints.get(word), constraints.Constraint)
    with pytest.raises(HighlevelError, match="max_norm"):
        constraints.get("max_nrom")
