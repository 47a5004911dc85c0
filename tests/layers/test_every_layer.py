"""What holds for every layer there is: a layer without an example here fails the suite."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.ir import tree
from highlevel.layers.base import Layer
from highlevel.serialization import CLASSES, accepted_arguments

keras = pytest.importorskip("keras")

ROWS, SEQUENCE, IMAGE, VOLUME, INTEGERS = (3, 4), (3, 6, 4), (3, 8, 8, 4), (3, 4, 4, 4, 2), (3, 6, -1)
KERNEL, POOL = {"filters": 4, "kernel_size": 3}, {"pool_size": 2}
EXAMPLES: dict[str, tuple[Any, ...]] = {  # constructor's arguments, then the shape (or list of shapes) of each argument
    **{name: ({"units": 3}, SEQUENCE) for name in ("Dense", "GRU", "LSTM", "SimpleRNN")},
    **{
        name: ({}, SEQUENCE)
        for name in ("ELU", "Flatten", "Identity", "LeakyReLU", "Masking", "PReLU", "ReLU", "Softmax")
    },
    **{f"{kind}Normalization": ({}, IMAGE) for kind in ("Batch", "Layer", "RMS", "Unit")},
    **{name: ({}, [SEQUENCE, SEQUENCE]) for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")},
    **{f"{c}{r}D": (KERNEL, s) for c in ("Conv", "SeparableConv") for r, s in [(1, SEQUENCE), (2, IMAGE)]},
    **{f"DepthwiseConv{r}D": ({"kernel_size": 3}, s) for r, s in [(1, SEQUENCE), (2, IMAGE)]},
    **{f"Conv{r}DTranspose": (KERNEL, s) for r, s in [(1, SEQUENCE), (2, IMAGE), (3, VOLUME)]},
    "Conv3D": (KERNEL, VOLUME),
    **{
        f"{kind}{r}D": (POOL if "Global" not in kind else {}, s)
        for kind in ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling")
        for r, s in [(1, SEQUENCE), (2, IMAGE), (3, VOLUME)]
    },
    **{f"{kind}1D": ({}, SEQUENCE) for kind in ("ZeroPadding", "Cropping", "UpSampling")},
    **{f"{kind}2D": ({}, IMAGE) for kind in ("ZeroPadding", "Cropping", "UpSampling")},
    **{f"{kind}3D": ({}, VOLUME) for kind in ("ZeroPadding", "Cropping", "UpSampling")},
    **{f"SpatialDropout{r}D": ({"rate": 0.3}, s) for r, s in [(1, SEQUENCE), (2, IMAGE), (3, VOLUME)]},
    **{name: ({"rate": 0.3}, SEQUENCE) for name in ("Dropout", "GaussianDropout", "AlphaDropout")},
    "GaussianNoise": ({"stddev": 0.3}, SEQUENCE),
    "ActivityRegularization": ({"l2": 0.1}, SEQUENCE),
    "Activation": ({"activation": "tanh"}, SEQUENCE),
    "GroupNormalization": ({"groups": 2}, IMAGE),
    "Concatenate": ({"axis": 1}, [SEQUENCE, (3, 2, 4)]),
    "Dot": ({"axes": 2}, [SEQUENCE, (3, 5, 4)]),
    "Reshape": ({"target_shape": (-1, 2)}, SEQUENCE),
    "Permute": ({"dims": (2, 1)}, SEQUENCE),
    "RepeatVector": ({"n": 3}, ROWS),
    "Rescaling": ({"scale": 0.5, "offset": 1.0}, IMAGE),
    "Embedding": ({"input_dim": 9, "output_dim": 4}, INTEGERS),
    "EinsumDense": ({"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"}, SEQUENCE),
    "MultiHeadAttention": ({"num_heads": 2, "key_dim": 3}, SEQUENCE, (3, 5, 4)),
    "GroupedQueryAttention": ({"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}, SEQUENCE, (3, 5, 4)),
    "Attention": ({"use_scale": True}, [SEQUENCE, (3, 5, 4)]),
    "AdditiveAttention": ({}, [SEQUENCE, (3, 5, 4)]),
    "SimpleRNNCell": ({"units": 3}, ROWS, [(3, 3)]),
    "GRUCell": ({"units": 3}, ROWS, [(3, 3)]),
    "LSTMCell": ({"units": 3}, ROWS, [(3, 3), (3, 3)]),
}
MADE = {  # layers that are made of layers
    "RNN": lambda **more: (hl.layers.RNN(hl.layers.GRUCell(3, **more), **more), SEQUENCE),
    "StackedRNNCells": lambda **more: (
        hl.layers.StackedRNNCells([hl.layers.GRUCell(n, **more) for n in (3, 2)], **more), ROWS, [(3, 3), (3, 2)]
    ),
    "TimeDistributed": lambda **more: (hl.layers.TimeDistributed(hl.layers.Dense(3, **more), **more), IMAGE),
    "Bidirectional": lambda **more: (hl.layers.Bidirectional(hl.layers.GRU(3, **more), **more), SEQUENCE),
}  # fmt: skip
BASES = {"Layer", "Wrapper"}
NOT_HERE = {
    "lora_rank",
    "lora_alpha",
    "quantization_config",
    "gptq_unpacked_column_size",
}  # fine-tuning and quantization
NAMES = [name for name, cls in CLASSES["layer"].items() if cls.__module__.startswith("highlevel.layers.")]


def make(which: str, **more: Any) -> tuple[Layer, list[Any]]:
    """The layer of the example, and the shapes of its arguments."""
    if which in MADE:
        layer, *shapes = MADE[which](**more)
        return layer, shapes
    arguments, *shapes = EXAMPLES[which]
    return CLASSES["layer"][which](**arguments, **more), shapes


def draw(rng: np.random.Generator, shapes: Any, dtype: str = "float32") -> Any:
    if isinstance(shapes, list):
        return [draw(rng, shape, dtype) for shape in shapes]
    return rng.integers(0, 9, shapes[:-1]) if shapes[-1] == -1 else rng.normal(size=shapes).astype(dtype)


def open_batch(inputs: Any) -> Any:
    return [open_batch(x) for x in inputs] if isinstance(inputs, list) else (None, *inputs.shape[1:])


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, "float64"), np.asarray(b, "float64"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BASES])
class TestEvery:
    def test_shape_rule(self, rng, name):
        layer, shapes = make(name)
        inputs = draw(rng, shapes)
        ruled = make(name)[0].compute_output_shape(*open_batch(inputs))
        values = tree.map(lambda y: (None, *y.shape[1:]), layer(*inputs))
        assert str(ruled) == str(values)

    def test_config_makes_the_same_layer(self, rng, name):
        layer, shapes = make(name, name="other")
        inputs = draw(rng, shapes)
        expected = layer(*inputs)
        config = layer.get_config()
        copy = type(layer).from_config(json.loads(json.dumps(config)))
        assert copy.get_config() == config and copy.name == "other"
        copy(*inputs)
        copy.set_weights(layer.get_weights())
        close(copy(*inputs), expected, 0)

    def test_functional_and_compiled_equal_eager(self, rng, name):
        layer, shapes = make(name)
        inputs = draw(rng, shapes)
        starts = tree.map(lambda x: hl.Input(x.shape[1:], dtype=x.dtype), inputs)
        model = hl.Model(tree.leaves(starts), layer(*starts))
        expected = layer(*inputs)
        close(model(tree.leaves(inputs)), expected)
        close(hl.jit(lambda *args: layer(*args))(*inputs), expected)

    def test_data_types(self, rng, name):
        layer, shapes = make(name)
        inputs = draw(rng, shapes)
        expected = layer(*inputs)
        for dtype, computed, kept, tolerance in [
            ("float64", "float64", "float64", 1e-5),
            ("mixed_bfloat16", "bfloat16", "float32", 0.1),
        ]:
            other, _ = make(name, dtype=dtype)
            other(*inputs)
            other.set_weights(layer.get_weights())
            found = other(*inputs)
            assert {str(y.dtype) for y in tree.leaves(found)} == {computed}
            assert {str(w.dtype) for w in other.weights} <= {kept}
            close(found, expected, tolerance)

    def test_arguments_are_those_of_keras(self, name):
        def arguments(cls: Any) -> dict[str, Any]:
            parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
            return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

        theirs = arguments(getattr(keras.layers, name.replace("Grouped", "Group")))
        ours = arguments(CLASSES["layer"][name])
        assert set(theirs) <= accepted_arguments(CLASSES["layer"][name])[0] | NOT_HERE
        common = [argument for argument in theirs if argument in ours]
        assert common == [argument for argument in ours if argument in theirs]
        for argument in common:
            given, expected = ours[argument], theirs[argument]
            if expected is not inspect.Parameter.empty:
                spread = (
                    (given,) * len(expected) if isinstance(expected, tuple) and not isinstance(given, tuple) else given
                )
                assert spread == expected, argument

    def test_freezing(self, rng, name):
        layer, shapes = make(name)
        layer(*draw(rng, shapes))
        trainable = [v.path for v in layer.trainable_variables]
        assert len(set(trainable)) == len(trainable)
        assert layer.freeze().trainable_variables == []
        assert [v.path for v in layer.unfreeze().trainable_variables] == trainable

    def test_gradients_against_differences(self, rng, name):
        layer, shapes = make(name, dtype="float64")
        inputs = draw(rng, shapes, "float64")
        ends = tree.leaves(layer(*inputs))
        weights = [rng.normal(size=y.shape) for y in ends]
        variables = layer.trainable_variables
        floats = [x for x in tree.leaves(inputs) if x.dtype.kind == "f"]

        def loss(arguments: Any, _: Any) -> Any:
            supply = iter(arguments)
            filled = tree.map(lambda x: next(supply) if x.dtype.kind == "f" else x, inputs)
            return sum(hl.ops.sum(y * w) for y, w in zip(tree.leaves(layer(*filled)), weights, strict=True))

        found = tree.leaves(hl.grad(loss, (0, 1))(floats, variables))
        points = [*floats, *(v.numpy().copy() for v in variables)]
        directions = [rng.normal(size=p.shape) for p in points]
        expected = 0.0
        for sign in (1, -1):
            moved = [p + sign * 1e-6 * d for p, d in zip(points, directions, strict=True)]
            for variable, value in zip(variables, moved[len(floats) :], strict=True):
                variable.assign(value)
            expected += sign * float(loss(moved[: len(floats)], None)) / 2e-6
        slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(found, directions, strict=True))
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


MASKABLE = (
    "Activation",
    "ActivityRegularization",
    "AlphaDropout",
    "Dense",
    "Dropout",
    "EinsumDense",
    "ELU",
    "GaussianDropout",
)
MASKABLE += ("GaussianNoise", "Identity", "LeakyReLU", "PReLU", "ReLU", "Softmax", "SpatialDropout1D")


@pytest.mark.parametrize("name", MASKABLE)
def test_masks_pass_through_layers_that_keep_steps(rng, name):
    layer, _ = make(name)
    x = draw(rng, SEQUENCE)
    x[0, 3:] = 0
    masked = hl.layers.Masking()(x)
    assert layer(masked).mask.tolist() == (np.arange(6) < np.array([[3], [6], [6]])).tolist()
    compiled = hl.jit(lambda x: hl.ops.cast(layer(hl.layers.Masking()(x)).mask, "int32"))
    assert compiled(x).tolist()[0] == [1, 1, 1, 0, 0, 0]
