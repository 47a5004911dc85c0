"""The work of `highlevel demo` in PyTorch: the same pictures, batches, epochs and rates; the same report at the end."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from highlevel.data.augment import ImageBatches
from highlevel.data.demo import make_surfaces_dataset, simple_statistics_accuracy
from highlevel.demo import BUDGET, FROM_RANDOM, INPUT_SIZE
from highlevel.training.report import write_report
from highlevel.transfer.finetune import Labelled, load_labelled
from highlevel.zoo import ENTRIES
from highlevel.zoo.efficientnet_lite import STAGES

BATCH = BUDGET["batch_size"]


class Same(nn.Module):
    """A convolution with batch normalisation and ReLU6, padded as TensorFlow does: more at the end."""

    def __init__(self, inputs: int, filters: int, size: int, stride: int, groups: int = 1, relu: bool = True) -> None:
        super().__init__()
        low = (size - stride) // 2 if stride > 1 else size // 2
        high = size - stride - low if stride > 1 else low
        self.padding = (low, high, low, high) if low != high else None
        self.conv = nn.Conv2d(
            inputs, filters, size, stride, 0 if self.padding else size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1)
        self.activation = nn.ReLU6(inplace=True) if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        if self.padding:
            x = nn.functional.pad(x, self.padding)
        return self.activation(self.norm(self.conv(x)))


class Block(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes allow."""

    def __init__(self, inputs: int, filters: int, size: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        first = [Same(inputs, wide, 1, 1)] if expand != 1 else []
        self.body = nn.Sequential(
            *first, Same(wide, wide, size, stride, groups=wide), Same(wide, filters, 1, 1, relu=False)
        )
        self.adds = stride == 1 and inputs == filters

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.body(x) if self.adds else self.body(x)


def network(pretrained: bool, classes: int) -> tuple[list[nn.Module], nn.Module]:
    """The layer groups of EfficientNet-Lite0's body, and a new head."""
    groups: list[nn.Module] = [Same(3, 32, 3, 2)]
    channels = 32
    for stage in STAGES:
        blocks = []
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            blocks.append(Block(channels, stage.filters, stage.kernel, stride, stage.expand))
            channels = stage.filters
        groups.append(nn.Sequential(*blocks))
    groups.append(nn.Sequential(Same(channels, 1280, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    body = nn.Sequential(*groups)
    if pretrained:  # the checkpoint's arrays come in the same order
        path = ENTRIES["efficientnet_lite0"].weights["imagenet"].locate()
        arrays = [array for name, array in torch.load(path, weights_only=True).items() if not name.startswith("_fc")]
        body.load_state_dict(dict(zip(body.state_dict(), arrays, strict=True)))
    else:
        for module in body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    body.to(memory_format=torch.channels_last)
    return groups, nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Channels first in shape, last in memory: nothing is copied."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def evaluate(model: nn.Module, batches: ImageBatches) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        return np.concatenate([model(to_torch(batch.x)).numpy() for batch in batches])


def train_head(head: nn.Module, features: np.ndarray, labels: np.ndarray, epochs: int, rate: float) -> None:
    x, y = torch.from_numpy(features), torch.from_numpy(labels).long()
    optimizer = torch.optim.Adam(head.parameters(), rate)
    head.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()


def train_body(
    groups: list[nn.Module],
    head: nn.Module,
    batches: ImageBatches,
    *,
    epochs: int,
    rate: float,
    decay: float,
    frozen: bool,
) -> None:
    """All layers; rates fall towards the input, rise over the first third and fall as a cosine."""
    model = nn.Sequential(*groups, head)
    if frozen:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
    rows = [
        {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate * decay ** (len(groups) - i)}
        for i, part in enumerate([*groups, head])
    ]
    optimizer = torch.optim.Adam(rows)
    steps = len(batches) * epochs
    warm = round(0.3 * steps)

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(steps - warm, 1))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    if frozen:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            labels = torch.from_numpy(np.asarray(batch.y)).long()
            nn.functional.cross_entropy(model(to_torch(batch.x)), labels).backward()
            optimizer.step()
            schedule.step()


def fine_tune(
    pretrained: bool, train: Labelled, test: Labelled, preprocessing: Any, recipe: dict[str, Any]
) -> np.ndarray:
    """Head on features computed once, then all layers; probabilities of the test pictures."""
    groups, head = network(pretrained, len(train.class_names))
    body = nn.Sequential(*groups)
    features = evaluate(body, ImageBatches(train.images, None, preprocessing, batch_size=BATCH))
    (head_epochs, epochs), (head_rate, rate) = recipe["epochs"], recipe["learning_rates"]
    train_head(head, features, train.labels, head_epochs, head_rate)
    batches = ImageBatches(train.images, train.labels, preprocessing, batch_size=BATCH, shuffle=True, varied=True)
    frozen = recipe.get("batch_norm", "frozen") == "frozen"
    decay = recipe.get("rate_decay", 0.75)
    train_body(groups, head, batches, epochs=epochs, rate=rate, decay=decay, frozen=frozen)
    logits = evaluate(nn.Sequential(*groups, head), ImageBatches(test.images, None, preprocessing, batch_size=BATCH))
    return torch.softmax(torch.from_numpy(logits), -1).numpy()


def demo() -> dict[str, Any]:
    """All of it; `highlevel demo` prints more and saves its model, which takes no time to speak of."""
    torch.manual_seed(0)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        folder = make_surfaces_dataset(directory / "images", seed=0)
        full_size = ENTRIES["efficientnet_lite0"].preprocessing
        preprocessing = replace(full_size, size=(INPUT_SIZE, INPUT_SIZE), crop_fraction=1.0)
        train, test = load_labelled(folder, preprocessing), load_labelled(folder.test, preprocessing)
        simple_statistics_accuracy((train.images, train.labels), (test.images, test.labels))
        groups, head = network(True, len(train.class_names))
        evaluate(nn.Sequential(*groups, head), ImageBatches(test.images, None, preprocessing, batch_size=BATCH))
        probabilities = fine_tune(True, train, test, preprocessing, BUDGET)
        blank = fine_tune(False, train, test, preprocessing, BUDGET | FROM_RANDOM)
        write_report(
            directory,
            title="The same in PyTorch",
            history={"loss": [0.0, 0.0], "accuracy": [0.0, 0.0]},
            class_names=test.class_names,
            y_true=test.labels,
            probabilities=probabilities,
            images=test.images,
        )
    right = [float((found.argmax(-1) == test.labels).mean()) for found in (probabilities, blank)]
    return {"seconds": time.perf_counter() - start, "accuracy": right[0], "from_random": right[1]}

