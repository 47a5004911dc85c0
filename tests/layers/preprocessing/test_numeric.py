"""Layers of numbers and sounds, beside Keras's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, ShapeError

keras = pytest.importorskip("keras")


def beside(name: str, arguments: dict[str, Any], x: Any, tolerance: float = 1e-5, **call: Any) -> Any:
    """Checks values and types against Keras's, in a program as well, and of a copy; returns the layer."""
    ours, theirs = getattr(hl.layers, name)(**arguments), getattr(keras.layers, name)(**arguments)
    expected = np.asarray(theirs(x, **call))
    found = ours(x, **call)
    assert found.shape == expected.shape and found.dtype == expected.dtype.name
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    compiled = hl.jit(lambda x, call: ours(x, **call))(x, call)
    np.testing.assert_allclose(compiled, expected, rtol=tolerance, atol=tolerance)
    copy = type(ours).from_config(json.loads(json.dumps(ours.get_config())))
    np.testing.assert_array_equal(copy(x, **call), found)
    return ours


# Normalization -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("axis", [-1, None, 1, (1, 2), (0, -1)], ids=str)
def test_normalization_adapts(rng, axis, invert):
    x = (rng.normal(size=(6, 4, 3)) * 5 + 7).astype("float32")
    ours, theirs = (module.layers.Normalization(axis=axis, invert=invert) for module in (hl, keras))
    ours.adapt(x), theirs.adapt(x)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert ours.trainable_weights == []
    compiled = hl.jit(lambda x: ours(x))
    np.testing.assert_allclose(compiled(x), theirs(x), rtol=1e-5, atol=1e-5)
    ours.adapt(x * 2)
    assert not np.allclose(compiled(x), theirs(x))  # programs read the means when they run


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": 3.0, "variance": 2.0},
        {"mean": [1.0, 2.0, 3.0], "variance": [1.0, 4.0, 9.0]},
        {"mean": [1.0, 2.0, 3.0], "variance": [1.0, 4.0, 9.0], "invert": True},
        {"axis": (1, 2), "mean": [1.0, 2.0, 3.0], "variance": [1.0, 0.0, 9.0]},
        {"axis": None, "mean": 1.0, "variance": 0.25},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_normalization_with_given_means(rng, arguments, dtype):
    beside("Normalization", arguments, (rng.normal(size=(5, 4, 3)) * 9).astype(dtype))


def test_normalization_by_batches(rng):
    x = (rng.normal(size=(50, 3)) * 5 + 1000).astype("float32")
    layers = [hl.layers.Normalization() for _ in range(4)]
    layers[0].adapt(x)
    layers[1].adapt(x[i : i + 7] for i in range(0, 50, 7))
    layers[2].adapt([(x[:49], None), (x[49:], None)])
    layers[3].adapt(x.tolist())
    for layer in layers:
        np.testing.assert_allclose(layer.mean[0], x.mean(0, dtype="float64"), rtol=1e-6)
        np.testing.assert_allclose(layer.variance[0], x.var(0, dtype="float64"), rtol=1e-5)


def test_normalization_is_saved(rng, tmp_path):
    x = rng.normal(size=(20, 3)).astype("float32")
    layer = hl.layers.Normalization()
    layer.adapt(x)
    model = hl.Sequential([hl.Input((3,)), layer, hl.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(hl.load_model(tmp_path / "model.keras")(x), model(x))


def test_normalization_complains():
    with pytest.raises(ArgumentError, match="belong together"):
        hl.layers.Normalization(mean=1.0)
    with pytest.raises(ArgumentError, match="more axes"):
        hl.layers.Normalization(mean=[[1.0]], variance=[[1.0]])
    with pytest.raises(ArgumentError, match="given"):
        hl.layers.Normalization(mean=1.0, variance=1.0).adapt(np.ones((2, 3)))
    with pytest.raises(ArgumentError, match="no data"):
        hl.layers.Normalization().adapt(iter([]))
    layer = hl.layers.Normalization()
    layer.adapt(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="does not fit the means"):
        layer(np.ones((2, 4)))
    with pytest.raises(ShapeError, match="must be known"):
        hl.layers.Normalization()(hl.Input((None,)))


# Discretization ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 3)], ids=str)
def test_discretization(rng, shape, mode, dtype):
    x = (rng.normal(size=shape) * 3).astype(dtype)
    x.flat[0] = 1  # a boundary itself
    beside("Discretization", {"bin_boundaries": [-2.0, 0.5, 1.0], "output_mode": mode}, x)


def adapt_theirs(layer: Any, batches: list[np.ndarray]) -> None:
    """Their `adapt` asks TensorFlow what the data is."""
    layer.reset_state()
    for batch in batches:
        layer.update_state(batch)
    layer.finalize_state()


@pytest.mark.parametrize(("bins", "epsilon", "count"), [(4, 0.01, 1000), (3, 0.2, 50), (10, 0.01, 37), (2, 0.01, 5)])
def test_discretization_adapts(rng, bins, epsilon, count):
    x = rng.normal(size=(count, 2)).astype("float32")
    ours, theirs = (module.layers.Discretization(num_bins=bins, epsilon=epsilon) for module in (hl, keras))
    ours.adapt(x), adapt_theirs(theirs, [x])
    np.testing.assert_allclose(ours.bin_boundaries, theirs.bin_boundaries, rtol=1e-6)
    np.testing.assert_array_equal(ours(x), theirs(x))
    if count == 1000:
        filled = np.bincount(np.asarray(ours(x)).ravel())
        assert abs(filled / x.size - 1 / bins).max() < 0.02
    ours.adapt(x[i : i + 8] for i in range(0, count, 8))
    adapt_theirs(theirs, [x[i : i + 8] for i in range(0, count, 8)])
    np.testing.assert_allclose(ours.bin_boundaries, theirs.bin_boundaries, rtol=1e-6)


def test_discretization_in_programs_and_files(rng):
    x = rng.normal(size=(100,)).astype("float32")
    layer = hl.layers.Discretization(num_bins=4)
    layer.adapt(x)
    compiled = hl.jit(lambda x: layer(x))
    np.testing.assert_array_equal(compiled(x), layer(x))
    copy = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    np.testing.assert_array_equal(copy(x), layer(x))
    layer.adapt(x + 1)
    np.testing.assert_array_equal(compiled(x), layer(x))
    assert (np.asarray(layer(x)) != np.asarray(copy(x))).any()
    copy.adapt(x + 1)
    assert copy.bin_boundaries == layer.bin_boundaries


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_bins": 3, "bin_boundaries": [1.0]},
        {"num_bins": 0},
        {"bin_boundaries": [2.0, 1.0]},
        {"num_bins": 3, "epsilon": 0},
        {"num_bins": 3, "output_mode": "tf_idf"},
        {"num_bins": 3, "output_mode": "count", "sparse": True},
    ],
    ids=str,
)
def test_discretization_complains(arguments):
    with pytest.raises(ArgumentError):
        hl.layers.Discretization(**arguments)


def test_discretization_needs_boundaries():
    with pytest.raises(ArgumentError, match="not known yet"):
        hl.layers.Discretization(num_bins=3)(np.ones(3))
    with pytest.raises(ArgumentError, match="are given"):
        hl.layers.Discretization([1.0]).adapt(np.ones(3))


# CategoryEncoding ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(), (4,), (5, 1), (5, 4), (5, 3, 2)], ids=str)
@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count", "binary"])
def test_category_encoding(rng, shape, mode):
    beside("CategoryEncoding", {"num_tokens": 6, "output_mode": mode}, np.array(rng.integers(-1, 6, shape)))


@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=str)
def test_weights_are_counted(rng, shape):
    weights = rng.uniform(size=shape).astype("float32")
    arguments = {"num_tokens": 4, "output_mode": "count"}
    beside("CategoryEncoding", arguments, rng.integers(0, 4, shape), count_weights=weights)


def test_category_encoding_complains():
    wrong = ({}, {"num_tokens": 0}, {"num_tokens": 3, "output_mode": "int"}, {"num_tokens": 3, "sparse": True})
    for arguments in wrong:
        with pytest.raises(ArgumentError):
            hl.layers.CategoryEncoding(**arguments)
    with pytest.raises(ArgumentError, match="weights are for counting"):
        hl.layers.CategoryEncoding(3)(np.array([1, 2]), count_weights=np.ones(2))


# Sounds --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mode": "magnitude", "frame_step": 10},
        {"mode": "psd", "padding": "same"},
        {"mode": "real", "window": "hamming", "scaling": "spectrum"},
        {"mode": "imag", "window": "blackman", "periodic": True},
        {"mode": "stft", "fft_length": 64, "expand_dims": True, "scaling": None},
        {"mode": "magnitude", "window": None, "frame_step": 32},
        {"mode": "log", "window": "flattop", "expand_dims": True, "data_format": "channels_first"},
        {"mode": "stft", "window": "bartlett", "data_format": "channels_first"},
        {"mode": "real", "window": "cosine"},
        {"mode": "real", "window": "nuttall", "periodic": True},
        {"mode": "real", "window": "blackmanharris"},
        {"mode": "real", "window": "boxcar"},
    ],
    ids=str,
)
def test_stft_spectrogram(rng, arguments):
    x = rng.normal(size=(2, 96, 3)).astype("float32")
    x = np.swapaxes(x, 1, 2) if arguments.get("data_format") == "channels_first" else x
    exact = "mode" in arguments and arguments.get("scaling", "density") is not None  # theirs are cosines in float32
    layer = beside("STFTSpectrogram", {"frame_length": 32, **arguments}, x, 1e-5 if exact else 2e-4)
    theirs = keras.layers.STFTSpectrogram(frame_length=32, **arguments)
    theirs(x)
    assert [(w.name, w.shape) for w in layer.weights] == [(w.name, tuple(w.shape)) for w in theirs.weights]
    assert len(layer.trainable_weights) == len(theirs.trainable_weights)


def test_angles_of_strong_frequencies(rng):
    x = rng.normal(size=(1, 96, 1)).astype("float32")
    arguments = {"frame_length": 32, "mode": "angle", "scaling": None}
    found, expected = (np.asarray(module.layers.STFTSpectrogram(**arguments)(x)) for module in (hl, keras))
    np.testing.assert_allclose(np.cos(found - expected)[..., 1:-1], 1, atol=1e-5)  # of real numbers: rounding decides


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_mel_bins": 20, "sampling_rate": 8000},
        {"power_to_db": False, "mag_exp": 1.0},
        {"sequence_length": 100, "window": "hamming"},
        {"min_freq": 100.0, "max_freq": 3000.0, "top_db": 20.0},
        {"ref_power": 5.0, "min_power": 1e-3, "sequence_stride": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(600,), (2, 600)], ids=str)
def test_mel_spectrogram(rng, arguments, shape):
    small = {"fft_length": 128, "sequence_stride": 64, "num_mel_bins": 12, **arguments}
    beside("MelSpectrogram", small, rng.normal(size=shape).astype("float32"), 2e-4)


def test_sounds_complain():
    for arguments in ({"mode": "loud"}, {"frame_step": 300}, {"fft_length": 100}, {"window": "x"}, {"scaling": "x"}):
        with pytest.raises(ArgumentError):
            hl.layers.STFTSpectrogram(**arguments)
    with pytest.raises(ShapeError, match="wrong rank"):
        hl.layers.STFTSpectrogram()(np.ones((2, 300), "float32"))
    with pytest.raises(ArgumentError):
        hl.layers.MelSpectrogram(fft_length=8, sequence_length=16)
    with pytest.raises(ShapeError, match="wrong rank"):
        hl.layers.MelSpectrogram()(np.ones((2, 4000, 1), "float32"))


# Pipeline ------------------------------------------------------------------------------------------------------------
def test_pipeline(rng):
    x = rng.integers(0, 256, (2, 8, 8, 3)).astype("uint8")

    def build(module: Any) -> Any:
        layers = module.layers
        return layers.Pipeline([layers.Resizing(4, 6), layers.Rescaling(1 / 255), layers.RandomFlip(seed=1)], name="p")

    ours = build(hl)
    np.testing.assert_allclose(ours(x, training=False), build(keras)(x, training=False), rtol=1e-6)
    copy = type(ours).from_config(json.loads(json.dumps(ours.get_config())))
    for _ in range(3):
        np.testing.assert_array_equal(copy(x), ours(x))
    model = hl.Sequential([hl.Input((8, 8, 3), dtype="uint8"), ours])
    np.testing.assert_array_equal(model(x), model(x))  # no chance outside of training
    with pytest.raises(ArgumentError, match="not layers"):
        hl.layers.Pipeline([3])


def test_pipeline_of_strings():
    layer = hl.layers.Pipeline(
        [hl.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=2), hl.layers.Rescaling(2.0)]
    )
    assert layer(["a b", "c"]).tolist() == [[4.0, 6.0], [2.0, 0.0]]
