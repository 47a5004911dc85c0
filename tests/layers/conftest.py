"""The oracle of all layers: Keras on NumPy, with the same weights and the same inputs."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highlevel as hl

# The table of all layers, for several files of tests: `from layer_rows import TABLE`.
_spec = importlib.util.spec_from_file_location("layer_rows", Path(__file__).with_name("rows.py"))
assert _spec is not None and _spec.loader is not None
sys.modules["layer_rows"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["layer_rows"])


def random_weights(rng: np.random.Generator, layer: Any) -> list[np.ndarray]:
    """Weights that hide nothing: no zeros, no ones; variances positive."""
    values = [rng.normal(size=variable.shape).astype("float32") * 0.5 for variable in layer.weights]
    positive = ("variance", "stddev")
    return [np.abs(v) + 0.2 if w.name.endswith(positive) else v for v, w in zip(values, layer.weights, strict=True)]


def quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the oracle is warned of is not our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def pair_of(rng: np.random.Generator, name: str, arguments: dict[str, Any], inputs: Any) -> tuple[Any, Any]:
    """The layer here and in Keras, built for the inputs, with the same random weights."""
    keras = pytest.importorskip("keras")
    ours, theirs = getattr(hl.layers, name)(**arguments), getattr(keras.layers, name)(**arguments)
    ours(inputs), quietly(theirs, inputs)
    weights = random_weights(rng, ours)
    assert [w.shape for w in weights] == [tuple(w.shape) for w in theirs.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs


@pytest.fixture
def agrees(rng: np.random.Generator) -> Callable[..., Any]:
    """Checks that a layer gives what Keras gives – outputs, and the weights after the call; returns the layer."""

    def check(name: str, arguments: dict[str, Any], inputs: Any, **call: Any) -> Any:
        ours, theirs = pair_of(rng, name, arguments, inputs)
        found, expected = ours(inputs, **call), quietly(theirs, inputs, **call)
        assert found.shape == tuple(expected.shape)
        assert found.dtype == str(expected.dtype)
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)
        for variable, target in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_allclose(variable, np.asarray(target), rtol=1e-5, atol=1e-5, err_msg=variable.path)
        return ours

    return check
