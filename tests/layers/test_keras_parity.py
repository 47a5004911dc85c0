"""Every layer beside the one that has its name in Keras: arguments, weights, values."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from layer_rows import TABLE, Row, made

import highlevel as hl
from highlevel.ir import tree
from highlevel.layers.base import Layer
from highlevel.serialization import accepted_arguments

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables

ELSEWHERE = "highlevel.layers.preprocessing"  # compared in that folder's tests: random, or TensorFlow only in Keras
COMMON = [
    name
    for name in TABLE
    if hasattr(keras.layers, name) and not getattr(hl.layers, name).__module__.startswith(ELSEWHERE)
]
ROWS = [row for name in COMMON for row in TABLE[name]]
EMPTY = inspect.Parameter.empty

# Where a signature is not Keras's: (layer, argument) or argument, and why.
DIFFERENCES = {
    "lora_rank": "adapters of low rank are a transformation of models, not an argument of layers",
    "lora_alpha": "see lora_rank",
    "quantization_config": "quantised variants are not part of this library",
    "gptq_unpacked_column_size": "see quantization_config",
    **{(f"AveragePooling{rank}D", "pool_size"): "2, as for the largest values; Keras has none" for rank in (1, 2, 3)},
}


def parameters(function: Any) -> dict[str, Any]:
    """Names and defaults of the arguments, in order, without self and what takes the rest."""
    found = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p.default for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    with np.errstate(all="ignore"):
        return function(*args, **kwargs)


def twin_names() -> list[str]:
    """All layers of this library that have the name of one of Keras."""
    ours = [name for name in hl.layers.__all__ if isinstance(getattr(hl.layers, name), type)]
    return [n for n in ours if issubclass(getattr(hl.layers, n), Layer) and hasattr(keras.layers, n)]


@pytest.mark.parametrize("twin", twin_names())
def test_arguments_are_those_of_keras(twin):
    cls = getattr(hl.layers, twin)
    name = cls.__name__  # the same for both names of a layer
    ours, theirs = parameters(cls.__init__), parameters(getattr(keras.layers, twin).__init__)
    beyond = set(theirs) - set(ours)
    allowed = {argument for argument in beyond if argument in DIFFERENCES or (name, argument) in DIFFERENCES}
    inherited = accepted_arguments(cls)[0]
    assert beyond - allowed <= inherited, "arguments that are missing here"
    shared = [argument for argument in theirs if argument in ours]
    assert shared == [argument for argument in ours if argument in theirs], "in another order"
    for argument in shared:
        if (name, argument) not in DIFFERENCES:
            assert same_default(ours[argument], theirs[argument]), argument


def test_every_difference_is_one():
    """An argument that is Keras's by now needs no reason."""
    for key in DIFFERENCES:
        names = [key[0]] if isinstance(key, tuple) else twin_names()
        argument = key[1] if isinstance(key, tuple) else key
        pairs = [[parameters(getattr(lib.layers, n).__init__) for lib in (hl, keras)] for n in names]
        assert any(argument in theirs and ours.get(argument, "none") != theirs[argument] for ours, theirs in pairs), key


def same_default(ours: Any, theirs: Any) -> bool:
    """Whether two defaults mean the same: 1 and (1, 1) for two axes, say."""
    if ours is EMPTY or theirs is EMPTY:
        return ours is theirs
    if isinstance(theirs, tuple) and not isinstance(ours, tuple):
        return all(same_default(ours, item) for item in theirs)
    return bool(ours == theirs) and type(ours) is type(theirs)


def test_every_layer_is_compared_in_five_ways():
    classes = {getattr(hl.layers, name) for name in twin_names()} - {Layer, hl.layers.Wrapper, hl.layers.InputLayer}
    classes = {cls for cls in classes if not cls.__module__.startswith(ELSEWHERE)}
    tried = {getattr(hl.layers, name): rows for name, rows in TABLE.items()}
    assert {cls.__name__ for cls in classes if len(tried.get(cls, ())) < 5} == set()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_values_and_weights(row: Row, rng):
    ours, theirs = row.layer(hl), row.layer(keras)
    inputs = row.inputs(rng)
    ours(*inputs, **row.call), quietly(theirs, *inputs, **row.call)
    weights = [rng.normal(size=w.shape).astype("float32") * 0.5 for w in ours.weights]
    weights = [
        np.abs(value) + 0.2 if w.name.endswith(("variance", "stddev")) else value
        for value, w in zip(weights, ours.weights, strict=True)
    ]
    assert [w.shape for w in weights] == [tuple(w.shape) for w in theirs.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    found, expected = ours(*inputs, **row.call), quietly(theirs, *inputs, **row.call)
    close(found, expected)
    close(ours.get_weights(), theirs.get_weights())


def close(found: Any, expected: Any) -> None:
    mine, other = tree.leaves(found), keras.tree.flatten(expected)
    for a, b in zip(mine, other, strict=True):
        assert a.shape == tuple(b.shape)
        assert str(a.dtype) == keras.backend.standardize_dtype(b.dtype)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


def test_rows_are_made_by_both_libraries():
    row = TABLE["TimeDistributed"][0]
    assert made(hl, row.arguments)["layer"].units == made(keras, row.arguments)["layer"].units == 3
