"""One row for each way in which a layer is tried: its arguments, and the shapes of what it is called with.

A layer's first row is tried for all that holds of every layer (`check_layer`), and all its rows are compared with the
layer of that name in Keras. Shapes: a tuple for an array, a list for a list of arrays; the last size says of which kind
other arrays are: INDICES below 9, BYTES (any numbers from 0 to 255), or WORDS. `Of("Dense", units=3)` stands for a
layer, made by the library in question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INDICES, BYTES, WORDS = -1, -2, -3
ROWS, SEQUENCE, IMAGE, VOLUME = (3, 4), (3, 6, 4), (3, 8, 7, 4), (2, 4, 5, 4, 4)
SHAPES = {1: SEQUENCE, 2: IMAGE, 3: VOLUME}
FIRST = "channels_first"


class Of:
    """A layer inside of a layer."""

    def __init__(self, name: str, **arguments: Any) -> None:
        self.name, self.arguments = name, arguments

    def __repr__(self) -> str:
        return self.name


def made(library: Any, value: Any, **more: Any) -> Any:
    """Arguments of a row with their layers made by a library (Keras, or this one)."""
    if isinstance(value, Of):
        return getattr(library.layers, value.name)(**made(library, value.arguments), **more)
    if isinstance(value, Mapping):
        return {key: made(library, item, **more) for key, item in value.items()}
    return [made(library, item, **more) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Row:
    """A layer with its arguments, the shapes of a call's arguments, and what else is given in the call."""

    name: str
    arguments: Mapping[str, Any]
    shapes: tuple[Any, ...]
    call: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = (f"{key}={value.name if isinstance(value, Of) else value}" for key, value in self.arguments.items())
        return f"{self.name}({','.join(said)})"

    def layer(self, library: Any, **more: Any) -> Any:
        """The layer as a library makes it; `more` goes to all layers in it, too."""
        arguments = made(library, self.arguments, **more)
        if "function" in arguments:  # of `Lambda`
            arguments["function"] = getattr(library.ops, arguments["function"])
        return getattr(library.layers, self.name)(**{**arguments, **more})

    def inputs(self, rng: np.random.Generator, dtype: str = "float32") -> list[Any]:
        """Arrays for a call."""
        return [draw(rng, shape, dtype) for shape in self.shapes]


def draw(rng: np.random.Generator, shapes: Any, dtype: str = "float32") -> Any:
    if isinstance(shapes, dict):
        return {key: draw(rng, shape, dtype) for key, shape in shapes.items()}
    if isinstance(shapes, list):
        return [draw(rng, shape, dtype) for shape in shapes]
    if shapes[-1] == INDICES:
        return rng.integers(0, 9, shapes[:-1])
    if shapes[-1] == BYTES:
        return rng.uniform(0, 255, shapes[:-1]).astype(dtype)
    if shapes[-1] == WORDS:
        return rng.choice(["ab", "cde", "f g"], shapes[:-1])
    return rng.normal(size=shapes).astype(dtype)


def turned(shape: Any) -> Any:
    """A shape of channels-last images with the channels first."""
    return (shape[0], shape[-1], *shape[1:-1])


TABLE: dict[str, list[Row]] = {}


def rows(names: str, shapes: Any, *ways: Mapping[str, Any], **common: Any) -> None:
    """Rows for layers (names with a space between), one per way: arguments beside the common ones.

    In a way, `at` is other shapes, and `call` what is given in the call. A tuple of shapes is for several arguments.
    """
    for name in names.split():
        for way in ways:
            arguments = {**common, **{key: value for key, value in way.items() if key not in ("at", "call")}}
            place = way.get("at", shapes)
            if arguments.get("data_format") == FIRST and "at" not in way:
                place = turned(place)
            place = place if isinstance(place, tuple) and isinstance(place[0], (tuple, list)) else (place,)
            TABLE.setdefault(name, []).append(Row(name, arguments, place, way.get("call", {})))


def each_rank(name: str, *ways: Mapping[str, Any], ranks: tuple[int, ...] = (1, 2, 3), **common: Any) -> None:
    """Rows for the layers of a name for sequences, images and volumes: "Conv{}D"."""
    for rank in ranks:
        rows(name.format(rank), SHAPES[rank], *ways, **common)


TRAINED = {"call": {"training": True}}
L2 = {"class_name": "L2", "config": {"l2": 0.1}}

# Dense, embedding, core -----------------------------------------------------------------------------------------------
rows("Dense", SEQUENCE, {}, {"activation": "relu"}, {"use_bias": False}, {"at": ROWS, "activation": "softmax"},
     {"kernel_initializer": "zeros", "bias_initializer": "ones", "at": IMAGE}, units=3)  # fmt: skip
rows("EinsumDense", SEQUENCE,
     {"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"},
     {"equation": "ab,bc->ac", "output_shape": 5, "at": ROWS, "activation": "tanh"},
     {"equation": "...x,xy->...y", "output_shape": 5, "bias_axes": "y"},
     {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
     {"equation": "abc,bcd->ad", "output_shape": 3})  # fmt: skip
INTEGERS = (3, 6, INDICES)
rows("Embedding ReversibleEmbedding", INTEGERS, {}, {"mask_zero": True}, {"embeddings_initializer": "ones"},
     {"at": (3, INDICES)}, {"at": (2, 3, 4, INDICES)}, input_dim=9, output_dim=4)  # fmt: skip
rows("ReversibleEmbedding", (2, 5, 4), *({"call": {"reverse": True}, **way} for way in (
     {}, {"tie_weights": False}, {"logit_soft_cap": 2.0}, {"tie_weights": False, "logit_soft_cap": 1.0, "at": (2, 4)},
     {"reverse_dtype": "float32"})), input_dim=9, output_dim=4)  # fmt: skip
rows("Identity", SEQUENCE, {}, {"at": ROWS}, {"at": IMAGE}, {"at": VOLUME}, {"at": (3,)})
rows("Masking", SEQUENCE, {}, {"mask_value": 1.0}, {"at": IMAGE}, {"mask_value": -1, "at": ROWS}, {"at": (2, 1, 3)})
rows("Lambda", SEQUENCE, {"function": "square"}, {"function": "square", "at": ROWS}, {"function": "tanh"},
     *({"function": "roll", "arguments": options} for options in ({"shift": 1}, {"shift": 2, "axis": 1})))  # fmt: skip

# Activations ----------------------------------------------------------------------------------------------------------
rows("Activation", SEQUENCE, *({"activation": name} for name in
     ("tanh", "relu", "softmax", "gelu", "hard_sigmoid", "silu", "elu", "linear")))  # fmt: skip
rows("ReLU", SEQUENCE, {}, {"max_value": 0.5}, {"negative_slope": 0.1}, {"threshold": 0.3},
     {"max_value": 0.8, "negative_slope": 0.2, "threshold": 0.1})  # fmt: skip
rows("LeakyReLU", SEQUENCE, {}, {"negative_slope": 0.1}, {"negative_slope": 0.0}, {"at": IMAGE}, {"at": ROWS})
rows("ELU", SEQUENCE, {}, {"alpha": 0.5}, {"alpha": 2.0}, {"at": IMAGE}, {"at": ROWS})
rows("PReLU", SEQUENCE, {}, {"shared_axes": [1]}, {"shared_axes": [1, 2], "at": IMAGE},
     {"alpha_initializer": "ones", "at": ROWS}, {"shared_axes": 2})  # fmt: skip
rows("Softmax", SEQUENCE, {}, {"axis": 1}, {"axis": (1, 2)}, {"at": ROWS}, {"axis": (2, 3), "at": IMAGE})

# Convolutions ---------------------------------------------------------------------------------------------------------
GEOMETRY = (
    {}, {"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}, {"data_format": FIRST},
    {"use_bias": False, "activation": "relu"}, {"strides": 2, "padding": "same"},
)  # fmt: skip
each_rank("Conv{}D", *GEOMETRY, {"groups": 2}, filters=4, kernel_size=2)
each_rank("DepthwiseConv{}D", *GEOMETRY, {"depth_multiplier": 2}, ranks=(1, 2), kernel_size=2)
each_rank("SeparableConv{}D", *GEOMETRY, {"depth_multiplier": 2}, ranks=(1, 2), filters=4, kernel_size=2)
each_rank("Conv{}DTranspose", {}, {"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}, {"data_format": FIRST},
          {"strides": 2, "padding": "same", "output_padding": 1}, {"use_bias": False, "activation": "relu"},
          filters=4, kernel_size=2)  # fmt: skip
rows("Conv1D", SEQUENCE, {"padding": "causal", "dilation_rate": 2}, filters=4, kernel_size=3)

# Pooling --------------------------------------------------------------------------------------------------------------
WINDOWS = ({}, {"padding": "same"}, {"strides": 1}, {"pool_size": 3, "strides": 2, "padding": "same"},
           {"data_format": FIRST})  # fmt: skip
for _kind in ("Max", "Average"):
    each_rank(_kind + "Pooling{}D", *({"pool_size": 2, **way} for way in WINDOWS))
    each_rank(f"Global{_kind}Pooling" + "{}D", {}, {"keepdims": True}, {"data_format": FIRST},
              {"data_format": FIRST, "keepdims": True})  # fmt: skip
    each_rank(f"Adaptive{_kind}Pooling" + "{}D", {"output_size": 2}, {"output_size": 1}, {"output_size": 3},
              {"output_size": 4}, {"output_size": 2, "data_format": FIRST})  # fmt: skip
    for _rank, _shape in {1: (2, 3, 1), 2: (1, 2, 3, 1), 3: (1, 2, 2, 2, 1)}.items():
        rows(f"Global{_kind}Pooling{_rank}D", _shape, {})

# Normalization --------------------------------------------------------------------------------------------------------
rows("BatchNormalization", IMAGE, {}, TRAINED, {"axis": 1, **TRAINED}, {"scale": False, "epsilon": 0.1, **TRAINED},
     {"center": False, "momentum": 0.5, **TRAINED}, {"at": ROWS, **TRAINED}, {"renorm": True, **TRAINED})  # fmt: skip
rows("LayerNormalization", IMAGE, {}, {"axis": 1}, {"axis": [1, 2]}, {"scale": False, "epsilon": 0.1},
     {"center": False, "at": ROWS})  # fmt: skip
rows("GroupNormalization", IMAGE, {"groups": 2}, {"groups": -1}, {"groups": 1, "epsilon": 0.1},
     {"groups": 4, "axis": 1, "at": (3, 4, 5, 2)}, {"groups": 2, "scale": False, "at": SEQUENCE})  # fmt: skip
rows("RMSNormalization", IMAGE, {}, {"axis": -1, "at": SEQUENCE}, {"axis": [2, 3]}, {"epsilon": 0.1}, {"at": ROWS})
rows("UnitNormalization", IMAGE, {}, {"axis": 1}, {"axis": [2, 3]}, {"at": ROWS}, {"axis": [1, 2, 3]})
rows("SpectralNormalization", ROWS, {"layer": Of("Dense", units=3)}, {"layer": Of("Dense", units=3), **TRAINED},
     {"layer": Of("Dense", units=3), "power_iterations": 4, **TRAINED},
     {"layer": Of("Conv2D", filters=3, kernel_size=2), "at": IMAGE, **TRAINED},
     {"layer": Of("Conv1D", filters=3, kernel_size=2, use_bias=False), "at": SEQUENCE, **TRAINED})  # fmt: skip

# Merging, reshaping ---------------------------------------------------------------------------------------------------
rows("Add Multiply Average Maximum Minimum", [SEQUENCE, SEQUENCE], {}, {"at": [SEQUENCE] * 3}, {"at": [IMAGE] * 2},
     {"at": [SEQUENCE, (3, 1, 4)]}, {"at": [ROWS] * 4})  # fmt: skip
rows("Subtract", [SEQUENCE, SEQUENCE], {}, {"at": [ROWS] * 2}, {"at": [IMAGE] * 2}, {"at": [SEQUENCE, (3, 1, 4)]},
     {"at": [(3, 1, 4), SEQUENCE]})  # fmt: skip
rows("Concatenate", [SEQUENCE, (3, 2, 4)], {"axis": 1}, {"at": [SEQUENCE, (3, 6, 2)]}, {"at": [ROWS] * 3},
     {"axis": 2, "at": [IMAGE, IMAGE]}, {"axis": -2, "at": [SEQUENCE, (3, 1, 4)]})  # fmt: skip
rows("Dot", [SEQUENCE, (3, 5, 4)], {"axes": 2}, {"axes": (2, 2), "normalize": True}, {"axes": 1, "at": [ROWS, ROWS]},
     {"axes": (1, 2), "at": [SEQUENCE, (3, 5, 6)]}, {"axes": -1, "at": [ROWS, ROWS], "normalize": True})  # fmt: skip
rows("Flatten", SEQUENCE, {}, {"at": IMAGE}, {"at": (3,)}, {"data_format": FIRST, "at": IMAGE}, {"at": VOLUME})
rows("Reshape", SEQUENCE, *({"target_shape": shape} for shape in ((-1, 2), (24,), (4, 6), (2, 3, 4), (3, -1, 2))))
rows("Permute", SEQUENCE, {"dims": (2, 1)}, {"dims": (1, 2)}, {"dims": (3, 1, 2), "at": IMAGE},
     {"dims": (2, 1, 3), "at": IMAGE}, {"dims": (4, 3, 2, 1), "at": VOLUME})  # fmt: skip
rows("RepeatVector", ROWS, *({"n": n} for n in (3, 1, 2, 5)), {"n": 2, "at": (1, 7)})
rows("ZeroPadding1D", SEQUENCE, {}, *({"padding": p} for p in (2, (1, 2), (0, 1), (2, 0))))
rows("Cropping1D", SEQUENCE, {}, *({"cropping": p} for p in (2, (1, 2), (0, 1), (2, 0))))
rows("ZeroPadding2D", IMAGE, {}, {"padding": 2}, {"padding": (1, 2)}, {"padding": ((1, 2), (0, 1))},
     {"padding": 1, "data_format": FIRST})  # fmt: skip
rows("Cropping2D", IMAGE, {}, {"cropping": 2}, {"cropping": (1, 2)}, {"cropping": ((1, 2), (0, 1))},
     {"cropping": 1, "data_format": FIRST})  # fmt: skip
rows("ZeroPadding3D", VOLUME, {}, {"padding": 2}, {"padding": (1, 2, 0)}, {"padding": ((1, 2), (0, 1), (1, 0))},
     {"padding": 1, "data_format": FIRST})  # fmt: skip
rows("Cropping3D", VOLUME, {}, {"cropping": 0}, {"cropping": (1, 2, 0)}, {"cropping": ((1, 2), (0, 1), (1, 0))},
     {"cropping": 1, "data_format": FIRST})  # fmt: skip
rows("UpSampling1D", SEQUENCE, {}, *({"size": n} for n in (1, 3, 4)), {"size": 2, "at": (1, 2, 1)})
rows("UpSampling2D", IMAGE, {}, {"size": 3}, {"size": (1, 2)}, {"interpolation": "bilinear"}, {"data_format": FIRST})
rows("UpSampling3D", VOLUME, {}, {"size": 1}, {"size": (1, 2, 3)}, {"size": 3}, {"data_format": FIRST})

# Noise: what is random is compared elsewhere --------------------------------------------------------------------------
rows("Dropout AlphaDropout", SEQUENCE, {"rate": 0.3}, {"rate": 0.0, **TRAINED}, {"rate": 0.5, "seed": 1, "at": ROWS},
     {"rate": 0.5, "noise_shape": (3, 1, 4)}, {"rate": 0.9, "at": IMAGE})  # fmt: skip
rows("GaussianDropout", SEQUENCE, {"rate": 0.3}, {"rate": 0.0, **TRAINED}, {"rate": 0.5, "seed": 1, "at": ROWS},
     {"rate": 0.9, "at": IMAGE}, {"rate": 0.1, "at": VOLUME})  # fmt: skip
rows("GaussianNoise", SEQUENCE, {"stddev": 0.3}, {"stddev": 0.0, **TRAINED}, {"stddev": 1, "seed": 1, "at": ROWS},
     {"stddev": 0.9, "at": IMAGE}, {"stddev": 0.1, "at": VOLUME})  # fmt: skip
each_rank("SpatialDropout{}D", {"rate": 0.3}, {"rate": 0.0, **TRAINED}, {"rate": 0.5, "seed": 1}, {"rate": 0.9},
          {"rate": 0.1, "dtype": "float32"})  # fmt: skip
rows("ActivityRegularization", SEQUENCE, {"l2": 0.1}, {"l1": 0.1}, {}, {"l1": 0.1, "l2": 0.2}, {"at": IMAGE})

# Recurrent ------------------------------------------------------------------------------------------------------------
WAYS = ({}, {"return_sequences": True}, {"go_backwards": True}, {"use_bias": False, "activation": "relu"},
        {"return_state": True, "unroll": True}, {"return_sequences": True, "return_state": True})  # fmt: skip
rows("SimpleRNN LSTM GRU", SEQUENCE, *WAYS, units=3)
rows("LSTM", SEQUENCE, {"units": 3, "unit_forget_bias": False, "recurrent_activation": "tanh"})
rows("GRU", SEQUENCE, {"units": 3, "reset_after": False})
rows("RNN", SEQUENCE, {"cell": Of("GRUCell", units=3)}, {"cell": Of("LSTMCell", units=3), "return_sequences": True},
     {"cell": Of("SimpleRNNCell", units=3), "go_backwards": True}, {"cell": Of("LSTMCell", units=3), "unroll": True},
     {"cell": [Of("GRUCell", units=3), Of("LSTMCell", units=2)], "return_sequences": True})  # fmt: skip
CELLS = ({}, {"use_bias": False}, {"activation": "relu"}, {"kernel_initializer": "ones"})
for _name, _states in {"SimpleRNNCell": 1, "GRUCell": 1, "LSTMCell": 2}.items():
    rows(_name, (ROWS, [(3, 3)] * _states), *CELLS, units=3)
rows("SimpleRNNCell", (ROWS, [(3, 2)]), {"units": 2})
rows("GRUCell", (ROWS, [(3, 3)]), {"units": 3, "reset_after": False})
rows("LSTMCell", (ROWS, [(3, 3)] * 2), {"units": 3, "recurrent_activation": "hard_sigmoid"})
rows("StackedRNNCells", (ROWS, [[(3, 3)], [(3, 2)]]),
     *({"cells": [Of(a, units=3), Of(b, units=2)]} for a in ("SimpleRNNCell", "GRUCell")
       for b in ("SimpleRNNCell", "GRUCell")),
     {"cells": [Of("GRUCell", units=2)], "at": (ROWS, [[(3, 2)]])})  # fmt: skip
rows("TimeDistributed", IMAGE, *({"layer": layer} for layer in (
     Of("Dense", units=3), Of("Flatten"), Of("Conv1D", filters=3, kernel_size=2), Of("LSTM", units=3), Of("ReLU")
)))  # fmt: skip
BOTH_WAYS = Of("LSTM", units=3, return_sequences=True)
rows("Bidirectional", SEQUENCE, {"layer": Of("GRU", units=3)}, *({"layer": BOTH_WAYS, "merge_mode": mode} for mode in
     ("concat", "sum", "mul", "ave")))  # fmt: skip
MOVIES = {1: (2, 3, 5, 3), 2: (2, 3, 4, 5, 3), 3: (2, 3, 3, 4, 3, 2)}
for _rank, _shape in MOVIES.items():
    rows(f"ConvLSTM{_rank}D", _shape, {}, {"padding": "same", "return_sequences": True},
         {"strides": 2, "return_state": True}, {"use_bias": False, "go_backwards": True, "unit_forget_bias": False},
         {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
         {"data_format": FIRST, "at": (*_shape[:2], _shape[-1], *_shape[2:-1])}, filters=2, kernel_size=2)  # fmt: skip
rows("ConvLSTMCell", ((3, 5, 3), [(3, 5, 2)] * 2), {"rank": 1, "filters": 2, "kernel_size": 2, "padding": "same"})

# Attention ------------------------------------------------------------------------------------------------------------
KEYS = (3, 5, 4)
rows("MultiHeadAttention", (SEQUENCE, KEYS), {}, {"value_dim": 5}, {"use_bias": False}, {"output_shape": 6},
     {"at": (SEQUENCE, SEQUENCE), "call": {"use_causal_mask": True}}, num_heads=2, key_dim=3)  # fmt: skip
rows("GroupQueryAttention", (SEQUENCE, KEYS), {}, {"use_bias": False}, {"num_key_value_heads": 4},
     {"num_key_value_heads": 1}, {"at": (SEQUENCE, SEQUENCE), "call": {"use_causal_mask": True}},
     **{"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2})  # fmt: skip
rows("Attention AdditiveAttention", [SEQUENCE, KEYS], {"use_scale": True}, {"use_scale": False},
     {"use_scale": False, "at": [SEQUENCE, (3, 5, 2), KEYS]}, {"use_scale": True, "at": [SEQUENCE, KEYS, KEYS]},
     {"at": [SEQUENCE, SEQUENCE], "call": {"use_causal_mask": True}})  # fmt: skip
rows("Attention", [SEQUENCE, KEYS], {"score_mode": "concat"})

# Layers that Keras does not have ------------------------------------------------------------------------------------
rows("SpatialPyramidPooling", IMAGE, {})
rows("RReLU", SEQUENCE, {})
rows("FeaturePool FeatureWTA", SEQUENCE, {"pool_size": 2})
rows("LocalResponseNormalization", IMAGE, {"alpha": 0.5, "n": 3})
rows("GlobalResponseNormalization", IMAGE, {"gamma_initializer": "ones"})
rows("LocallyConnected1D", SEQUENCE, {"filters": 3, "kernel_size": 2})
rows("LocallyConnected2D", (2, 5, 4, 2), {"filters": 3, "kernel_size": 2})
rows("Autocrop", [IMAGE, (3, 6, 6, 4)], {"cropping": [None, "center", "lower"]})
rows("Inverse", [(2, 3, 2), (2, 6, 2)], {"layer": Of("AveragePooling1D", pool_size=2)})
rows("SpatialTransformer", [(2, 5, 6, 2), (2, 6)], {})
rows("TPSTransformer", [(2, 5, 6, 2), (2, 18)], {"control_points": 9})

# Preprocessing: compared with Keras in the tests of that folder -------------------------------------------------------
rows("Rescaling", IMAGE, {"scale": 0.5, "offset": 1.0})
rows("Normalization", SEQUENCE, {"mean": 0.5, "variance": 2.0})
rows("Discretization", SEQUENCE, {"bin_boundaries": [-0.5, 0.0, 0.5]})
rows("CategoryEncoding", INTEGERS, {"num_tokens": 9})
rows("Hashing", INTEGERS, {"num_bins": 5})
rows("HashedCrossing", [(3, INDICES), (3, INDICES)], {"num_bins": 5})
rows("IntegerLookup", INTEGERS, {"vocabulary": [1, 2, 3]})
rows("StringLookup", (3, 2, WORDS), {"vocabulary": ["ab", "cde"]})
rows("TextVectorization", (3, WORDS), {"vocabulary": ["ab", "g"], "output_sequence_length": 3})
rows("STFTSpectrogram", (2, 64, 1), {"frame_length": 16, "frame_step": 8, "fft_length": 16})
rows("MelSpectrogram", (2, 64), {"fft_length": 16, "sequence_stride": 8, "num_mel_bins": 4, "power_to_db": False})
rows("Pipeline", IMAGE, {"layers": [Of("Rescaling", scale=0.5), Of("Dense", units=3)]})

PHOTOS, STILL = (2, 8, 7, 3, BYTES), {"call": {"training": False}}  # random layers are at work unless they are told
rows("Resizing CenterCrop RandomCrop", PHOTOS, STILL, height=5, width=4)
rows("RandomBrightness RandomContrast RandomHue RandomSaturation RandomColorDegeneration RandomSharpness "
     "RandomRotation", PHOTOS, {"factor": 0.2, **STILL})  # fmt: skip
rows("RandomColorJitter RandomGrayscale RandomFlip RandomShear RandomGaussianBlur RandomErasing RandomPerspective "
     "RandomElasticTransform RandomInvert RandAugment AugMix MixUp CutMix AutoContrast Equalization Solarization",
     PHOTOS, STILL)  # fmt: skip
rows("ContrastLimitedAdaptiveHistogramEqualization", PHOTOS, {"tile_grid_size": (2, 2), **STILL})
rows("RandomPosterization", PHOTOS, {"factor": 4, **STILL})
rows("RandomTranslation RandomZoom", PHOTOS, {"height_factor": 0.1, "width_factor": 0.1, **STILL})
BOXES = {"boxes": (2, 4, 4, INDICES), "labels": (2, 4, INDICES)}
rows("MaxNumBoundingBoxes", {"images": PHOTOS, "bounding_boxes": BOXES},
     {"max_number": 3, "bounding_box_format": "xyxy", **STILL})  # fmt: skip
