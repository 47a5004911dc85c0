"""Layers that read strings, against what Keras's give on TensorFlow: `keras_strings.json` holds its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, DTypeError, FormatError, ShapeError, TraceError

ROWS = json.loads((Path(__file__).parent / "keras_strings.json").read_text(encoding="utf-8"))
NAMES = sorted({row["layer"] for row in ROWS})
STRINGS = ("Hashing", "StringLookup", "TextVectorization")


def made(row: dict[str, Any]) -> Any:
    layer = getattr(hl.layers, row["layer"])(**row["arguments"])
    if row["adapt"] is not None:
        layer.adapt(row["adapt"])
    return layer


def agree(found: Any, row: dict[str, Any]) -> None:
    expected = np.array(row["output"]["value"]).reshape(row["output"]["shape"])
    assert tuple(found.shape) == expected.shape
    if row["output"]["dtype"] == "str":
        assert np.asarray(found).tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(np.asarray(found, "float64"), expected.astype("float64"), rtol=1e-6)


def test_there_are_enough_results():
    assert all(sum(row["layer"] == name for row in ROWS) >= 5 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_keras(name):
    for row in (row for row in ROWS if row["layer"] == name):
        layer = made(row)
        agree(layer(row["input"]), row)
        if "vocabulary" in row:
            assert layer.get_vocabulary() == row["vocabulary"]


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_hold_all(name):
    for row in (row for row in ROWS if row["layer"] == name):
        layer = made(row)
        config = json.loads(json.dumps(layer.get_config()))
        copy = type(layer).from_config(config)
        assert copy.get_config() == layer.get_config()
        agree(copy(row["input"]), row)


@pytest.mark.parametrize("name", STRINGS)
def test_arrays_lists_and_bytes_are_alike(name):
    layer = {
        "Hashing": lambda: hl.layers.Hashing(100),
        "StringLookup": lambda: hl.layers.StringLookup(vocabulary=["é", "b"]),
        "TextVectorization": lambda: hl.layers.TextVectorization(vocabulary=["é", "b"]),
    }[name]()
    words = ["é", "b", "c"]
    expected = np.asarray(layer(words)).tolist()
    for same in (np.array(words), np.array(words, dtype=object), [word.encode() for word in words], tuple(words)):
        assert np.asarray(layer(same)).tolist() == expected


# Text ----------------------------------------------------------------------------------------------------------------
@hl.register_serializable("tests")
def shout(texts):
    return np.char.upper(texts)


@hl.register_serializable("tests")
def halves(texts):
    return [text.split("/") for text in texts]


def test_functions_of_ones_own():
    layer = hl.layers.TextVectorization(standardize=shout, split=halves)
    layer.adapt(["a b/c", "a b/d"])
    assert layer.get_vocabulary() == ["", "[UNK]", "A B", "D", "C"]
    copy = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert copy(["a b/d/x"]).tolist() == [[2, 3, 1]]
    with pytest.raises(ArgumentError, match="not registered"):
        hl.layers.TextVectorization(split=lambda texts: texts).get_config()


def test_batches_and_steps():
    texts = ["b a", "b c", "b d", "c"]
    whole, parts, part = (hl.layers.TextVectorization() for _ in range(3))
    whole.adapt(texts)
    parts.adapt(iter([texts[:2], np.array(texts[2:])]))
    part.adapt(iter([texts[:2], texts[2:]]), steps=1)
    assert whole.get_vocabulary() == parts.get_vocabulary() == ["", "[UNK]", "b", "c", "d", "a"]
    assert part.get_vocabulary() == ["", "[UNK]", "b", "c", "a"]


def test_adapting_again_forgets():
    layer = hl.layers.StringLookup()
    layer.adapt(["a", "b"])
    layer.adapt(["c"])
    assert layer.get_vocabulary() == ["[UNK]", "c"]
    copy = type(layer).from_config(layer.get_config())
    copy.adapt(["d"])
    assert copy.get_vocabulary() == ["[UNK]", "d"] and layer.get_vocabulary() == ["[UNK]", "c"]
    with pytest.raises(ArgumentError, match="given"):
        hl.layers.StringLookup(vocabulary=["a"]).adapt(["b"])


def test_a_vocabulary_from_a_file(tmp_path):
    (tmp_path / "words.txt").write_text("a\nb\n", encoding="utf-8")
    layer = hl.layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    assert layer(["b", "z"]).tolist() == [2, 0]
    assert layer.get_config()["vocabulary"] == ["a", "b"]
    (tmp_path / "numbers.txt").write_text("7\n9\n", encoding="utf-8")
    assert hl.layers.IntegerLookup(vocabulary=str(tmp_path / "numbers.txt"))([9, 8]).tolist() == [2, 0]
    with pytest.raises(ArgumentError, match="no such file"):
        hl.layers.StringLookup(vocabulary=str(tmp_path / "missing.txt"))


def test_descriptions_open_no_files(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("password\n", encoding="utf-8")
    for name in ("StringLookup", "IntegerLookup", "TextVectorization"):
        with pytest.raises(FormatError, match="names a file"):
            getattr(hl.layers, name).from_config({"vocabulary": str(secret)})


def test_assets_as_in_files_of_keras():
    layer = hl.layers.StringLookup(vocabulary=["a", "b"], mask_token="")
    assert layer.assets() == {"vocabulary.txt": b"\n[UNK]\na\nb"}
    other = hl.layers.StringLookup(mask_token="")
    other.load_assets(layer.assets())
    assert other.get_vocabulary() == layer.get_vocabulary()
    numbers = hl.layers.IntegerLookup()
    numbers.load_assets({"vocabulary.txt": b"-1\n5\n7"})
    assert numbers([7, 5, 1]).tolist() == [2, 1, 0]


# Where strings may not be ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*STRINGS, "HashedCrossing"])
def test_symbols_are_turned_away(name):
    arguments = {"num_bins": 3} if "Hash" in name else {"vocabulary": ["a"]}
    layer = getattr(hl.layers, name)(**arguments)
    with pytest.raises(TraceError, match="strings cannot be in a compiled program") as error:
        layer(hl.Input((3,), dtype="int32"))
    assert "before the model" in str(error.value) and len(str(error.value).splitlines()) <= 10
    with pytest.raises(TraceError, match="strings cannot be in a compiled program"):
        hl.jit(lambda x: layer([x, x]))(np.arange(3))


def test_before_a_model():
    layer = hl.layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=3)
    model = hl.Sequential([hl.Input((3,), dtype="int64"), hl.layers.Embedding(4, 2), hl.layers.Flatten()])
    assert model(layer(["good", "so bad"])).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StringLookup", {"max_tokens": 1}),
        ("StringLookup", {"num_oov_indices": -1}),
        ("StringLookup", {"pad_to_max_tokens": True}),
        ("StringLookup", {"output_mode": "letters"}),
        ("StringLookup", {"invert": True, "output_mode": "count"}),
        ("StringLookup", {"sparse": True, "output_mode": "count"}),
        ("StringLookup", {"vocabulary": ["a", "a"]}),
        ("StringLookup", {"vocabulary": []}),
        ("StringLookup", {"vocabulary": ["a", ""], "mask_token": ""}),
        ("StringLookup", {"vocabulary": ["a", "b"], "max_tokens": 2}),
        ("StringLookup", {"vocabulary": ["a"], "output_mode": "tf_idf"}),
        ("StringLookup", {"vocabulary": ["a"], "idf_weights": [1.0]}),
        ("StringLookup", {"salt": "x"}),
        ("StringLookup", {"maks_token": ""}),
        ("IntegerLookup", {"vocabulary_dtype": "int32"}),
        ("IntegerLookup", {"salt": 3}),
        ("TextVectorization", {"standardize": "upper"}),
        ("TextVectorization", {"split": "comma"}),
        ("TextVectorization", {"ngrams": "2"}),
        ("TextVectorization", {"ragged": True}),
        ("TextVectorization", {"output_mode": "one_hot"}),
        ("TextVectorization", {"output_mode": "count", "output_sequence_length": 3}),
        ("Hashing", {"num_bins": 0}),
        ("Hashing", {"num_bins": 3, "dtype": "float32"}),
        ("HashedCrossing", {"num_bins": 3, "output_mode": "count"}),
    ],
    ids=str,
)
def test_wrong_arguments(name, arguments):
    with pytest.raises(ArgumentError):
        getattr(hl.layers, name)(**arguments)


def test_wrong_inputs():
    with pytest.raises(ArgumentError, match="no vocabulary yet"):
        hl.layers.StringLookup()(["a"])
    with pytest.raises(ArgumentError, match="not in the vocabulary"):
        hl.layers.StringLookup(vocabulary=["a"], num_oov_indices=0)(["a", "b"])
    with pytest.raises(ArgumentError, match="not in the vocabulary"):
        hl.layers.IntegerLookup(vocabulary=[4], num_oov_indices=0)([4, 5])
    with pytest.raises(DTypeError, match="not strings"):
        hl.layers.StringLookup(vocabulary=["a"])(np.arange(3))
    with pytest.raises(ShapeError, match="one text per sample"):
        hl.layers.TextVectorization(vocabulary=["a"])([["a", "b"]])
    with pytest.raises(ShapeError):
        hl.layers.HashedCrossing(3)([["a"], ["b", "c"]])
    with pytest.raises(ArgumentError, match="no tokens"):
        hl.layers.StringLookup().adapt([])


# Whole numbers are at home in programs --------------------------------------------------------------------------------
INTEGERS = [row for row in ROWS if row["layer"] == "IntegerLookup" and "oov_method" not in row["arguments"]]


def test_integers_in_programs():
    for row in INTEGERS[:12:2] + INTEGERS[-5:]:
        layer = made(row)
        x = np.array(row["input"])
        agree(hl.jit(lambda x, layer=layer: layer(x))(x), row)


def test_integers_in_a_model():
    layer = hl.layers.IntegerLookup(vocabulary=[10, 20])
    start = hl.Input((2,), dtype="int64")
    model = hl.Model(start, layer(start))
    assert model(np.array([[20, 10], [5, 20]])).tolist() == [[2, 1], [0, 2]]
    layer.set_vocabulary([20, 5])
    assert model(np.array([[20, 10], [5, 20]])).tolist() == [[1, 0], [2, 1]]
    assert hl.jit(lambda x: layer(x))(np.array([5])).tolist() == [2]


def test_programs_follow_the_vocabulary():
    layer = hl.layers.IntegerLookup(vocabulary=[10, 20])
    compiled = hl.jit(lambda x: layer(x))
    assert compiled(np.array([20])).tolist() == [2]
    layer.set_vocabulary([20, 30, 10])
    assert compiled(np.array([20, 10][:1])).tolist() == [1]
    with pytest.raises(ArgumentError, match="num_oov_indices=0"):
        hl.jit(lambda x: hl.layers.IntegerLookup(vocabulary=[1], num_oov_indices=0)(x))(np.array([1]))
    with pytest.raises(TraceError):
        hash_of = hl.layers.IntegerLookup(vocabulary=[1], num_oov_indices=2, oov_method="farmhash")
        hl.jit(lambda x: hash_of(x))(np.array([1]))


def test_saved_with_a_model(tmp_path):
    layer = hl.layers.IntegerLookup(output_mode="count")
    layer.adapt(np.array([3, 3, 8]))
    start = hl.Input((3,), dtype="int64")
    model = hl.Model(start, hl.layers.Dense(2)(layer(start)))
    model.save(tmp_path / "model.keras")
    x = np.array([[3, 8, 1]])
    np.testing.assert_array_equal(hl.load_model(tmp_path / "model.keras")(x), model(x))
