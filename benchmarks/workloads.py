"""The six workloads that this library is measured with, built with its own API; any backend can run them.

Shapes and sizes are those of the peers' scripts: an MLP, LeNet, ResNet-18 for 32² images, ResNet-50 at 224², an
LSTM, a transformer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import highlevel as hl
from highlevel import layers as L


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and the shape of its batch: `build()` gives the network, which ends in logits."""

    name: str
    build: Callable[[], hl.Model]
    batch_shape: tuple[int, ...]
    classes: int
    tokens: int | None = None  # inputs are token numbers below this

    def batch(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Random inputs and labels."""
        rng = np.random.default_rng(seed)
        if self.tokens:
            x: np.ndarray = rng.integers(0, self.tokens, self.batch_shape).astype("int32")
        else:
            x = rng.standard_normal(self.batch_shape, dtype="float32")
        return x, rng.integers(0, self.classes, self.batch_shape[0]).astype("int32")

    def compiled(self) -> hl.Model:
        """The network, compiled with Adam and cross-entropy on logits."""
        model = self.build()
        model.compile(hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model


def mlp() -> hl.Model:
    return hl.Sequential(
        [hl.Input((784,)), L.Dense(512, activation="relu"), L.Dense(512, activation="relu"), L.Dense(10)], name="mlp"
    )


def lenet() -> hl.Model:
    return hl.Sequential(
        [
            hl.Input((28, 28, 1)),
            L.Conv2D(20, 5),
            L.MaxPooling2D(2),
            L.Conv2D(50, 5),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(500, activation="relu"),
            L.Dense(10),
        ],
        name="lenet",
    )


def _conv(x: Any, filters: int, size: int, stride: int = 1, relu: bool = True) -> Any:
    x = L.BatchNormalization()(L.Conv2D(filters, size, stride, padding="same", use_bias=False)(x))
    return L.ReLU()(x) if relu else x


def resnet18() -> hl.Model:
    inputs = hl.Input((32, 32, 3))
    x, channels = _conv(inputs, 64, 3), 64
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        shortcut = x if stride == 1 and channels == filters else _conv(x, filters, 1, stride, relu=False)
        y = _conv(_conv(x, filters, 3, stride), filters, 3, relu=False)
        x, channels = L.ReLU()(L.Add()([y, shortcut])), filters
    return hl.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)), name="resnet18")


def resnet50() -> hl.Model:
    inputs = hl.Input((224, 224, 3))
    x = _conv(inputs, 64, 7, 2)
    x, channels = L.MaxPooling2D(3, 2, padding="same")(x), 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            shortcut = x if stride == 1 and channels == 4 * width else _conv(x, 4 * width, 1, stride, relu=False)
            y = _conv(_conv(_conv(x, width, 1), width, 3, stride), 4 * width, 1, relu=False)
            x, channels = L.ReLU()(L.Add()([y, shortcut])), 4 * width
    return hl.Model(inputs, L.Dense(1000)(L.GlobalAveragePooling2D()(x)), name="resnet50")


def lstm() -> hl.Model:
    return hl.Sequential(
        [hl.Input((100,), dtype="int32"), L.Embedding(10_000, 128), L.LSTM(128), L.Dense(2)], name="lstm"
    )


def transformer() -> hl.Model:
    inputs = hl.Input((128,), dtype="int32")
    x = L.Embedding(10_000, 256)(inputs)
    for _ in range(4):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(4, 64)(x, x)]))
        x = L.LayerNormalization()(L.Add()([x, L.Dense(256)(L.Dense(1024, activation="gelu")(x))]))
    return hl.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)), name="transformer")


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp", mlp, (128, 784), 10),
        Workload("lenet", lenet, (64, 28, 28, 1), 10),
        Workload("resnet18", resnet18, (32, 32, 32, 3), 10),
        Workload("resnet50", resnet50, (8, 224, 224, 3), 1000),
        Workload("lstm", lstm, (32, 100), 2, tokens=10_000),
        Workload("transformer", transformer, (16, 128), 2, tokens=10_000),
    )
}
