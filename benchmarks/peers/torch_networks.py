"""The workloads as PyTorch modules; images have their channels first there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def dense_network(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet(relu: bool = False, dropout: float = 0.0) -> nn.Module:
    """LeNet; with ReLU after convolutions and dropout it is that of the example."""
    between = [nn.ReLU()] if relu else []
    features = [nn.Conv2d(1, 20, 5), *between, nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), *between, nn.MaxPool2d(2)]
    last = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), *last, nn.Linear(500, 10))


def conv(inputs: int, filters: int, size: int, stride: int = 1, relu: bool = True, groups: int = 1) -> list[nn.Module]:
    """A convolution with batch normalisation."""
    convolution = nn.Conv2d(inputs, filters, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(filters), *([nn.ReLU(inplace=True)] if relu else [])]


class Residual(nn.Module):
    """ReLU of a body and a shortcut, which is a convolution where shapes differ."""

    def __init__(self, body: list[nn.Module], inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        same = stride == 1 and inputs == filters
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv(inputs, filters, 1, stride, relu=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def resnet18() -> nn.Module:
    layers, channels = conv(3, 64, 3), 64
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        body = [*conv(channels, filters, 3, stride), *conv(filters, filters, 3, relu=False)]
        layers.append(Residual(body, channels, filters, stride))
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def resnet50() -> nn.Module:
    layers, channels = [*conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body = [*conv(channels, width, 1), *conv(width, width, 3, stride), *conv(width, 4 * width, 1, relu=False)]
            layers.append(Residual(body, channels, 4 * width, stride))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class LstmClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(10_000, 128), nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Linear(128, 2)

    def forward(self, tokens: torch.Tensor) -> Any:
        outputs, _ = self.lstm(self.embedding(tokens))
        return self.head(outputs[:, -1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, activation="gelu", batch_first=True)
        self.embedding = nn.Embedding(10_000, 256)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 2)

    def forward(self, tokens: torch.Tensor) -> Any:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: dense_network(784, 512, 512, 10),
    "lenet": lenet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "lstm": LstmClassifier,
    "transformer": Transformer,
    "tiny": lambda: dense_network(8, 16, 4),
}
