"""Fine-tuning: a pretrained network taught new classes, in two phases.

First only the new head is trained, on features computed once. Then layers are set free, the rates falling from the
head towards
the input, because early layers know what is common to all pictures (J. Yosinski et al., 2014; J. Howard and S.
Ruder, 2018). Batch normalisation stays in inference mode: a few dozen pictures make poor statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from highlevel import activations, layers
from highlevel.data.augment import ImageBatches
from highlevel.data.images import ImageFolder, load_image, scan_image_folder, stratified_split
from highlevel.data.preprocess import Preprocessing
from highlevel.errors import ArgumentError
from highlevel.models import Input, Model
from highlevel.training import callbacks as training_callbacks
from highlevel.training import losses, optimizers, schedules
from highlevel.zoo import create


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures in the network's size, uint8, and their classes."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fine-tune; see `finetune`. Pairs are for the two phases."""

    epochs: tuple[int, int]
    learning_rates: tuple[float, float]
    rate_decay: float
    batch_size: int
    unfreeze: int
    augment: bool
    freeze_batch_norm: bool
    restore_best: bool
    seed: int
    verbose: str | int


@dataclass(slots=True)
class FineTuned:
    """What fine-tuning returns.

    history: numbers per epoch by name ("loss", "accuracy", "val_loss", "val_accuracy"), over both phases
    phases:  (name, number of epochs)
    """

    model: Model
    class_names: tuple[str, ...]
    history: dict[str, list[float]] = field(default_factory=dict)
    phases: list[tuple[str, int]] = field(default_factory=list)

    def add(self, phase: str, history: dict[str, list[float]], epochs: int) -> None:
        self.phases.append((phase, epochs))
        for name, values in history.items():
            if name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                self.history.setdefault(name, []).extend(values)


def finetune(
    model: Model | str,
    data: Any,
    *,
    validation: Any = None,
    validation_split: float = 0.0,
    epochs: tuple[int, int] = (40, 2),
    learning_rates: tuple[float, float] = (3e-3, 1e-4),
    rate_decay: float = 0.75,
    batch_size: int = 16,
    unfreeze: int = 0,
    augment: bool = True,
    batch_norm: str = "frozen",
    restore_best: bool = True,
    input_size: int | tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
    callbacks: Iterable[Any] = (),
) -> FineTuned:
    """Teaches a pretrained network the classes of a folder of images (or of arrays).

    model:      a model that carries its preprocessing, or the name of one of the zoo (with ImageNet weights)
    data:       a folder with one sub-folder per class (perhaps divided into train/ and validation/), an
                `ImageFolder`, or (images uint8 (n, height, width, 3), integer labels)
    validation: as data; without it, `validation_split` holds out that part of each class
    epochs:     of the two phases; either may be 0
    learning_rates: of the two phases, at the head; each layer group before it has `rate_decay` times the rate of the
                    next
    unfreeze:   the first layer group that is set free in the second phase (0: all of them)
    augment:    mirrors and shifts the pictures at random in the second phase
    batch_norm: "frozen" keeps the pretrained statistics; "train" follows those of the batches
    restore_best: ends with the weights of the best epoch – of either phase – on the validation data, if there are any
    input_size: of the network made by name
    seed:       of the order and the variation of the pictures; the new head's weights come from the global seed
                (`hl.set_random_seed`)
    """
    if isinstance(model, str):
        model = create(model, weights="imagenet", input_size=input_size)
    if batch_norm not in ("frozen", "train"):
        raise ArgumentError("finetune: unknown batch_norm", got=repr(batch_norm), expected='"frozen" or "train"')
    if model.preprocessing is None:
        raise ArgumentError(
            f"{model.name}: the model does not know how its input is prepared",
            hint="model.preprocessing = hl.data.Preprocessing(…)",
        )
    recipe = Recipe(
        epochs,
        learning_rates,
        rate_decay,
        batch_size,
        unfreeze,
        augment,
        batch_norm == "frozen",
        restore_best,
        seed,
        verbose,
    )
    train, held_out = split_data(data, validation, validation_split, model.preprocessing, class_names, seed)
    _check_classes(train)
    model.reset_head(len(train.class_names), train.class_names)
    result = FineTuned(model, train.class_names)
    if epochs[0]:
        result.add("head", train_head(model, train, held_out, recipe), epochs[0])
    if epochs[1]:
        phase = "all layers" if unfreeze == 0 else f"groups from {unfreeze}"
        before, best = model.get_weights(), max(result.history.get("val_accuracy", [0.0]))
        found = train_body(model, train, held_out, recipe, callbacks)
        result.add(phase, found, epochs[1])
        if restore_best and max(found.get("val_accuracy", [best])) < best:
            model.set_weights(before)  # the head alone was better
    return result


def classification_loss(model: Model) -> Any:
    """Cross-entropy for what a model's output is: probabilities after a softmax, or logits."""
    call = model.outputs[0].call
    target = call.target if call is not None else None
    activation = getattr(target, "activation", None)
    if isinstance(target, layers.Softmax) or target == "softmax" or activation is activations.softmax:
        return losses.SparseCategoricalCrossentropy()
    if target is model.head and activation in (None, activations.linear):
        return losses.SparseCategoricalCrossentropy(from_logits=True)
    raise ArgumentError(
        f"{model.name}: finetune cannot tell what the outputs mean",
        got=f"outputs of {getattr(target, 'name', target)}",
        expected="a softmax at the end, or the head's own outputs as logits",
        hint="train it with model.compile and model.fit",
    )


# Phases --------------------------------------------------------------------------------------------------------------
def train_head(model: Model, train: Labelled, held_out: Labelled | None, recipe: Recipe) -> dict[str, list[float]]:
    """Trains the head alone, on features that are computed once; returns the history."""
    model.trainable = True
    for layer in model.layers:
        layer.trainable = layer is model.head
    body, preprocessing = model.features(), _preprocessing(model)
    x = _features(body, train.images, preprocessing)
    validation = None if held_out is None else (_features(body, held_out.images, preprocessing), held_out.labels)
    inputs = Input(x.shape[1:], dtype="float32")
    head = Model(inputs, _tail(model, inputs), name=f"{model.name}_head")
    head.compile(optimizers.Adam(recipe.learning_rates[0]), classification_loss(model), metrics=["accuracy"])
    found: dict[str, list[float]] = head.fit(
        x, train.labels, batch_size=recipe.batch_size, epochs=recipe.epochs[0], validation_data=validation,
        verbose=2 if recipe.verbose == 2 else 0, seed=recipe.seed, callbacks=_keep_best(validation, recipe, 0),
    ).history  # fmt: skip
    model.assign_paths()  # the layers belong to the whole model again
    if recipe.verbose:
        ends = ", ".join(f"{name} {values[-1]:.4g}" for name, values in found.items())
        print(f"head, {recipe.epochs[0]} epochs on features computed once: {ends}")
    return found


def _features(body: Model, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    found: np.ndarray = body.predict(ImageBatches(images, None, preprocessing, batch_size=16), verbose=0)
    return found


def _tail(model: Model, features: Any) -> Any:
    """The head and what follows it (an activation), applied to features."""
    graph = model._require_graph("head")
    outputs = features
    started = False
    for call in graph.calls:
        started = started or call.target is model.head
        if started:
            outputs = call.target(outputs)  # type: ignore[operator]
    return outputs


def train_body(
    model: Model, train: Labelled, held_out: Labelled | None, recipe: Recipe, callbacks: Iterable[Any] = ()
) -> dict[str, list[float]]:
    """Trains the layer groups from `unfreeze` on, with rates that fall towards the input; returns the history."""
    groups = model.layer_groups()
    model.freeze_to(recipe.unfreeze)
    for layer in model.walk_layers():
        if recipe.freeze_batch_norm and isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    batches = ImageBatches(
        train.images, train.labels, _preprocessing(model), batch_size=recipe.batch_size, shuffle=True,
        varied=recipe.augment, seed=recipe.seed,
    )  # fmt: skip
    validation = _batches(held_out, _preprocessing(model))
    epochs = recipe.epochs[1]
    optimizer = optimizers.Adam(_warm_cosine(recipe.learning_rates[1], len(batches) * epochs))
    optimizer.set_multipliers(
        {layer.path: recipe.rate_decay ** (len(groups) - 1 - i) for i, group in enumerate(groups) for layer in group}
    )
    model.compile(optimizer, classification_loss(model), metrics=["accuracy"])
    chosen = [*callbacks, *_keep_best(validation, recipe, 1)]
    options: dict[str, Any] = {"validation_data": validation, "verbose": recipe.verbose, "callbacks": chosen}
    history: dict[str, list[float]] = model.fit(batches, epochs=epochs, **options).history
    return history


def _keep_best(validation: Any, recipe: Recipe, phase: int) -> list[Any]:
    """The callback that ends a phase with the weights of its best epoch."""
    if validation is None or not recipe.restore_best:
        return []
    patience = recipe.epochs[phase]
    return [training_callbacks.EarlyStopping("val_accuracy", mode="max", patience=patience, restore_best_weights=True)]


def _warm_cosine(rate: float, steps: int) -> schedules.CosineDecay:
    """Rises over the first third, then falls as a cosine to zero."""
    warmup = round(0.3 * steps)
    return schedules.CosineDecay(0.0, max(steps - warmup, 1), warmup_target=rate, warmup_steps=warmup)


def _preprocessing(model: Model) -> Preprocessing:
    assert model.preprocessing is not None
    return model.preprocessing


# Data ----------------------------------------------------------------------------------------------------------------
def _batches(part: Labelled | None, preprocessing: Preprocessing) -> ImageBatches | None:
    return None if part is None else ImageBatches(part.images, part.labels, preprocessing, batch_size=32)


def split_data(
    data: Any, validation: Any, fraction: float, preprocessing: Preprocessing, names: Sequence[str] | None, seed: int
) -> tuple[Labelled, Labelled | None]:
    if isinstance(data, (str, PathLike)):
        data = scan_image_folder(Path(data))
    if validation is None and isinstance(data, ImageFolder) and data.validation is not None:
        validation = data.validation
    train = load_labelled(data, preprocessing, names)
    if validation is not None:
        return train, load_labelled(validation, preprocessing, train.class_names)
    if fraction:
        kept, held = stratified_split(train.labels, fraction, seed=seed)
        return _rows(train, kept), _rows(train, held)
    return train, None


def _rows(part: Labelled, rows: np.ndarray) -> Labelled:
    return Labelled(part.images[rows], part.labels[rows], part.class_names)


def load_labelled(data: Any, preprocessing: Preprocessing, names: Sequence[str] | None = None) -> Labelled:
    """A folder or arrays as pictures in the network's size."""
    if isinstance(data, (str, PathLike)):
        data = scan_image_folder(Path(data))
    if isinstance(data, Labelled):
        return data
    if isinstance(data, ImageFolder):
        images = np.stack([preprocessing.fit(load_image(path)) for path in data.paths])
        return Labelled(images, np.asarray(data.labels), tuple(data.class_names))
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ArgumentError(
            "finetune: this is not data", got=type(data).__name__, expected="a folder of images, or (images, labels)"
        )
    images = preprocessing.fit_all(data[0])
    labels = np.asarray(data[1])
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ArgumentError(
            "finetune: labels are class numbers", got=f"{labels.dtype} {labels.shape}", expected="integers (n,)"
        )
    count = int(labels.max(initial=0)) + 1
    return Labelled(images, labels, tuple(names) if names else tuple(f"class {i}" for i in range(count)))


def _check_classes(train: Labelled) -> None:
    if len(train.class_names) < 2:
        raise ArgumentError(
            "finetune: there is only one class",
            got=", ".join(train.class_names),
            expected="at least two sub-folders with images",
        )
    if train.labels.max() >= len(train.class_names):
        raise ArgumentError(
            "finetune: a label has no name", got=int(train.labels.max()), expected=f"0…{len(train.class_names) - 1}"
        )
