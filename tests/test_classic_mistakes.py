"""Forty mistakes that everybody makes, each of which gets an error that says what came, what was expected, and how to mend it.

Each error has the one layout, at most ten lines, names the layer or argument, comes before anything runs, and ends the traceback
outside of the engine.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.errors import HighlevelError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 12, 12, 3), dtype="float32")
ROWS = RNG.random((8, 5), dtype="float32")
LABELS = np.arange(8) % 3


def classifier(activation: str | None = "softmax") -> hl.Sequential:
    model = hl.Sequential(
        [hl.Input((12, 12, 3)), L.Conv2D(4, 3, name="conv"), L.Flatten(), L.Dense(3, activation=activation, name="head")],
        name="net",
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def regressor(outputs: int = 1) -> hl.Sequential:
    model = hl.Sequential([hl.Input((5,)), L.Dense(outputs, name="out")], name="net")
    model.compile("sgd", "mse")
    return model


def with_loss(loss: object, outputs: int, activation: str | None = None) -> hl.Sequential:
    model = hl.Sequential([hl.Input((5,)), L.Dense(outputs, activation=activation, name="out")], name="net")
    model.compile("sgd", loss)
    return model


def two_inputs() -> hl.Model:
    a, b = hl.Input((5,), name="left"), hl.Input((5,), name="right")
    return hl.Model([a, b], L.Dense(1)(L.Concatenate()([a, b])))


def stale_head() -> None:
    model = classifier()
    features = model.features(at="conv")
    hl.Sequential([features, L.Flatten(), L.Dense(3, name="head")])(IMAGES[:, :10, :10])


# (name, the mistake, words that the message must have)
MISTAKES: list[tuple[str, Callable[[], object], tuple[str, ...]]] = [
    ("batch axis missing", lambda: classifier().predict(IMAGES[0]), ("got:", "(12, 12, 3)", "expected:", "x[None]")),
    ("batch axis missing in a layer", lambda: L.Conv2D(4, 3, name="conv")(IMAGES[0]), ("conv", "rank", "hint:", "None")),
    ("channels first", lambda: classifier().predict(IMAGES.transpose(0, 3, 1, 2)), ("(8, 3, 12, 12)", "channels")),
    ("grey pictures for a colour network", lambda: classifier().predict(IMAGES[..., :1]), ("(8, 12, 12, 1)", "expected:")),
    ("flat rows for a convolution", lambda: L.Conv2D(4, 3, name="conv")(ROWS), ("conv", "rank 2", "expected:")),
    ("another width than at building", lambda: regressor().predict(RNG.random((8, 6))), ("(8, 6)", "(None, 5)")),
    ("a built layer sees another width", lambda: _twice(L.Dense(2, name="dense")), ("dense", "6", "5")),
    ("three numbers for a vector model", lambda: regressor().predict(RNG.random((8, 5, 2))), ("(8, 5, 2)", "expected:")),
    ("concatenation of different sizes", lambda: L.Concatenate(axis=1, name="join")([ROWS, ROWS[:4]]), ("join", "(4, 5)")),
    ("concatenation of one thing", lambda: L.Concatenate(name="join")(ROWS), ("join", "list")),
    ("addition of different shapes", lambda: L.Add(name="sum")([ROWS, RNG.random((8, 4))]), ("sum", "(8, 4)", "(8, 5)")),
    ("reshape to another number of elements", lambda: L.Reshape((7,), name="reshape")(ROWS), ("reshape", "7", "5")),
    ("two labels for three classes out of range", lambda: classifier().fit(IMAGES, LABELS + 1, verbose=0), ("3", "0…2", "head")),
    ("negative label", lambda: classifier().fit(IMAGES, LABELS - 1, verbose=0), ("-1",)),
    ("one-hot labels for a sparse loss", lambda: classifier().fit(IMAGES, np.eye(3)[LABELS], verbose=0), ("(8, 3)", "categorical_crossentropy")),
    ("integer labels for a one-hot loss", lambda: with_loss("categorical_crossentropy", 3, "softmax").fit(ROWS, LABELS, verbose=0), ("sparse_categorical_crossentropy",)),
    ("one-hot labels of another width", lambda: with_loss("categorical_crossentropy", 3, "softmax").fit(ROWS, np.eye(4)[LABELS], verbose=0), ("4", "3")),
    ("fractional class numbers", lambda: classifier().fit(IMAGES, LABELS + 0.5, verbose=0), ("0.5", "class number")),
    ("labels of another length", lambda: classifier().fit(IMAGES, LABELS[:5], verbose=0), ("x has 8", "y has 5")),
    ("targets that would broadcast", lambda: regressor(5).fit(ROWS, ROWS[:, 0], verbose=0), ("(batch,)", "(batch, 5)", "never broadcast")),
    ("targets of one row for all", lambda: regressor(5).fit(ROWS, ROWS[:, :2], verbose=0), ("got:", "expected:")),
    ("probabilities outside of 0…1 for binary loss", lambda: with_loss("binary_crossentropy", 1, "sigmoid").fit(ROWS, LABELS, verbose=0), ("0", "1")),
    ("stale head after another input size", stale_head, ("got:", "expected:")),
    ("misspelt layer argument", lambda: L.Dense(3, activaton="relu"), ("activaton", "'activation'")),
    ("misspelt activation", lambda: L.Dense(3, activation="rleu"), ("rleu", "'relu'")),
    ("misspelt optimizer", lambda: regressor().compile("adm", "mse"), ("adm", "'adam'")),
    ("misspelt loss", lambda: with_loss("mean_square_error", 1).fit(ROWS, ROWS[:, 0], verbose=0), ("mean_square_error", "mean_squared_error")),
    ("misspelt metric", lambda: _with_metric("acuracy"), ("acuracy", "accuracy")),
    ("misspelt padding", lambda: L.Conv2D(4, 3, padding="sane", name="conv"), ("sane", "same")),
    ("misspelt initializer", lambda: L.Dense(3, kernel_initializer="glorot"), ("glorot", "glorot_normal")),
    ("a misspelt network of the zoo", lambda: hl.zoo.create("efficientnet_lite"), ("efficientnet_lite0",)),
    ("fit before compile", lambda: hl.Sequential([hl.Input((5,)), L.Dense(1)]).fit(ROWS, ROWS[:, 0]), ("not compiled", "compile(")),
    ("no targets", lambda: regressor().fit(ROWS), ("y=None", "expected:")),
    ("one input of two", lambda: two_inputs().predict([ROWS]), ("left", "right")),
    ("misspelt input name", lambda: two_inputs().predict({"left": ROWS, "rihgt": ROWS}), ("right",)),
    ("token numbers beyond the embedding", lambda: L.Embedding(10, 4, name="words")(np.array([[3, 12]])), ("12", "10")),
    ("a class instead of a layer", lambda: hl.Sequential([hl.Input((5,)), L.Flatten]), ("Flatten", "brackets")),
    ("two layers of one name", lambda: hl.Sequential([L.Dense(2, name="a"), L.Dense(2, name="a")]), ("'a'", "name")),
    ("an input that is not in inputs", lambda: _disconnected(), ("Input", "inputs")),
    ("weights of another model", lambda: regressor(2).set_weights(regressor(1).get_weights()), ("(5, 1)", "(5, 2)")),
    ("window larger than the picture", lambda: L.Conv2D(4, 20, name="conv")(IMAGES), ("conv", "20")),
    ("a recurrent layer without time", lambda: L.LSTM(4, name="lstm")(ROWS), ("lstm", "(8, 5)", "time")),
    ("strings as data", lambda: regressor().predict(np.array(["a", "b"])), ("got:", "numbers")),
    ("ragged lists as data", lambda: regressor().fit([[1.0], [1.0, 2.0]], [1, 2], verbose=0), ("rectangular",)),
    ("if on a symbolic value", lambda: _if_on_symbol(), ("number", "ops.cond")),
]  # fmt: skip


def _twice(layer: L.Layer) -> None:
    layer(ROWS)
    layer(RNG.random((8, 6), dtype="float32"))


def _with_metric(name: str) -> None:
    model = hl.Sequential([hl.Input((5,)), L.Dense(1)])
    model.compile("sgd", "mse", metrics=[name])
    model.fit(ROWS, ROWS[:, 0], verbose=0)


def _disconnected() -> None:
    a, b = hl.Input((5,)), hl.Input((5,))
    hl.Model(a, L.Add()([a, b]))


def _if_on_symbol() -> None:
    hl.jit(lambda x: x if hl.ops.sum(x) > 0 else -x)(ROWS)


def test_there_are_at_least_forty() -> None:
    assert len({name for name, _, _ in MISTAKES}) >= 40


@pytest.mark.parametrize(("mistake", "words"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_mistake_is_explained(mistake: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(HighlevelError) as caught:
        mistake()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert len(text.splitlines()) <= 10, text
    assert len(text.splitlines()) >= 2, f"no more than a summary: {text}"
    assert all(line.startswith("  ") for line in text.splitlines()[1:]), text


def test_errors_of_layers_end_outside_of_the_engine() -> None:
    """The traceback of an error in a layer ends in `Layer.__call__`: no frame of the engine is on top."""
    with pytest.raises(HighlevelError) as caught:
        classifier()(IMAGES[0])
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(last.filename).name == "base.py" and last.name == "__call__"


def test_errors_name_the_path_of_the_layer() -> None:
    inner = hl.Sequential([L.Dense(4, name="first"), L.Conv2D(2, 3, name="second")], name="block")
    with pytest.raises(HighlevelError, match=r"layer: +outer/block/second \(Conv2D\)"):
        hl.Sequential([inner], name="outer")(ROWS)
