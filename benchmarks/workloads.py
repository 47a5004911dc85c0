"""The six workloads that libraries are compared with, written once for Keras's interface: `build(highlevel)` and
`build(keras)` give the same network. (PyTorch's are in peers/torch_networks.py.)

An MLP, LeNet, ResNet-18 for 32² images, ResNet-50 at 224², an LSTM, a transformer; and a tiny one for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Workload:
    """A network and the shape of its batch.

    build:  `build(library)` gives the network, which ends in logits
    tokens: inputs are token numbers below this, or (None) normally distributed
    """

    name: str
    build: Callable[[Any], Any]
    batch_shape: tuple[int, ...]
    classes: int
    tokens: int | None = None

    @property
    def has_images(self) -> bool:
        return len(self.batch_shape) == 4

    def batch(self, size: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Random inputs and labels; images have their channels last."""
        rng = np.random.default_rng(seed)
        shape = (size or self.batch_shape[0], *self.batch_shape[1:])
        if self.tokens:
            x: np.ndarray = rng.integers(0, self.tokens, shape).astype("int32")
        else:
            x = rng.standard_normal(shape, dtype="float32")
        return x, rng.integers(0, self.classes, shape[0]).astype("int32")

    def compiled(self, library: Any) -> Any:
        """The network, compiled with Adam and cross-entropy on logits."""
        model = self.build(library)
        model.compile(library.optimizers.Adam(1e-3), library.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model


def dense_network(library: Any, *sizes: int) -> Any:
    """Dense layers with ReLU between them; the first size is that of the input."""
    layers = [library.layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    return library.Sequential([library.Input((sizes[0],)), *layers, library.layers.Dense(sizes[-1])])


def lenet(library: Any) -> Any:
    L = library.layers
    features = [L.Conv2D(20, 5), L.MaxPooling2D(2), L.Conv2D(50, 5), L.MaxPooling2D(2), L.Flatten()]
    return library.Sequential([library.Input((28, 28, 1)), *features, L.Dense(500, activation="relu"), L.Dense(10)])


def _conv(library: Any, x: Any, filters: int, size: int, stride: int = 1, relu: bool = True) -> Any:
    L = library.layers
    x = L.BatchNormalization()(L.Conv2D(filters, size, stride, padding="same", use_bias=False)(x))
    return L.ReLU()(x) if relu else x


def resnet18(library: Any) -> Any:
    L = library.layers
    inputs = library.Input((32, 32, 3))
    x, channels = _conv(library, inputs, 64, 3), 64
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        same = stride == 1 and channels == filters
        shortcut = x if same else _conv(library, x, filters, 1, stride, relu=False)
        y = _conv(library, _conv(library, x, filters, 3, stride), filters, 3, relu=False)
        x, channels = L.ReLU()(L.Add()([y, shortcut])), filters
    return library.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)), name="resnet18")


def resnet50(library: Any) -> Any:
    L = library.layers
    inputs = library.Input((224, 224, 3))
    x = L.MaxPooling2D(3, 2, padding="same")(_conv(library, inputs, 64, 7, 2))
    channels = 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            same = stride == 1 and channels == 4 * width
            shortcut = x if same else _conv(library, x, 4 * width, 1, stride, relu=False)
            y = _conv(library, _conv(library, x, width, 1), width, 3, stride)
            y = _conv(library, y, 4 * width, 1, relu=False)
            x, channels = L.ReLU()(L.Add()([y, shortcut])), 4 * width
    return library.Model(inputs, L.Dense(1000)(L.GlobalAveragePooling2D()(x)), name="resnet50")


def lstm(library: Any) -> Any:
    L = library.layers
    inputs = library.Input((100,), dtype="int32")
    return library.Sequential([inputs, L.Embedding(10_000, 128), L.LSTM(128), L.Dense(2)], name="lstm")


def transformer(library: Any) -> Any:
    L = library.layers
    inputs = library.Input((128,), dtype="int32")
    x = L.Embedding(10_000, 256)(inputs)
    for _ in range(4):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(4, 64)(x, x)]))
        x = L.LayerNormalization()(L.Add()([x, L.Dense(256)(L.Dense(1024, activation="gelu")(x))]))
    return library.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)), name="transformer")


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp", lambda library: dense_network(library, 784, 512, 512, 10), (128, 784), 10),
        Workload("lenet", lenet, (64, 28, 28, 1), 10),
        Workload("resnet18", resnet18, (32, 32, 32, 3), 10),
        Workload("resnet50", resnet50, (8, 224, 224, 3), 1000),
        Workload("lstm", lstm, (32, 100), 2, tokens=10_000),
        Workload("transformer", transformer, (16, 128), 2, tokens=10_000),
    )
}
TINY = Workload("tiny", lambda library: dense_network(library, 8, 16, 4), (16, 8), 4)


def find(name: str) -> Workload:
    """A workload by name."""
    return TINY if name == TINY.name else WORKLOADS[name]
