"""The `.keras` container: what Keras writes is read, what we write Keras opens, and damage has a name."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import keras_archive

Saved = Callable[..., Path]


def container(**members: bytes | None) -> bytes:
    """A small valid `.keras` file, with members replaced or (None) left out."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2), "f4")
    parts = {"config__json": b"{}", "metadata__json": b"{}", "model__weights__h5": weights.getvalue(), **members}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in parts.items():
            if data is not None:
                archive.writestr(name.replace("__", "."), data)
    return stream.getvalue()


def _model(keras: Any) -> Any:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, dtype="bfloat16")(inputs)
    x = keras.layers.BatchNormalization()(x)
    branch = keras.Sequential([keras.layers.Conv2D(4, 1), keras.layers.ReLU()], name="branch")
    x = keras.layers.Add()([branch(x), x])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_keras_files_come_and_go(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _model(keras)
        model.save(tmp_path / "theirs.keras")
        archive = keras_archive.read_archive(tmp_path / "theirs.keras")
        keras_archive.write(
            tmp_path / "ours.keras", archive.config, archive.metadata, archive.tree.arrays, archive.tree.attrs
        )
        again = keras.saving.load_model(tmp_path / "ours.keras")
        x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4")
        np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert archive.config["class_name"] == "Functional"
    assert archive.metadata["keras_version"] == keras.__version__
    arrays = archive.tree.arrays
    assert arrays["layers/conv2d/vars/0"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(arrays["layers/dense/vars/0"], np.asarray(model.layers[-1].kernel.value))
    assert "layers/sequential/layers/conv2d/vars/0" in arrays
    assert archive.tree.attrs["layers/dense/vars"]["name"] == model.layers[-1].name
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours.value), np.asarray(theirs.value))


def test_vocabularies_are_assets(tmp_path: Path) -> None:
    config = {"class_name": "X", "ü": [1.5, None, True]}
    assets = {"layers/string_lookup/vocabulary.txt": "a\nü\n".encode()}
    keras_archive.write(tmp_path / "x.keras", config, {"keras_version": "3"}, {"vars/0": np.ones(2)}, assets=assets)
    archive = keras_archive.read_archive(tmp_path / "x.keras")
    assert (archive.config, archive.metadata, archive.assets) == (config, {"keras_version": "3"}, assets)


def test_a_round_trip_of_nested_weights(tmp_path: Path) -> None:
    nested = {"layers": {"dense": {"vars": {"0": np.eye(2, dtype="f4"), "1": np.zeros(2)}}}, "vars/0": np.ones(1)}
    keras_archive.write(tmp_path / "x.keras", {"a": 1}, {"b": 2}, nested, {"layers/dense/vars": {"name": "dense"}})
    config, metadata, weights = keras_archive.read(tmp_path / "x.keras")
    assert (config, metadata) == ({"a": 1}, {"b": 2})
    assert sorted(weights) == ["layers/dense/vars/0", "layers/dense/vars/1", "vars/0"]
    np.testing.assert_array_equal(weights["layers/dense/vars/0"], np.eye(2))


def test_equal_content_is_equal_bytes_and_nothing_is_packed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        keras_archive.write(tmp_path / name, {"a": 1}, {"b": 2}, {"vars/0": np.zeros(1000)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
    assert len(list(tmp_path.iterdir())) == 2


def test_every_damaged_byte_of_a_member_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    keras_archive.write(path, {"a": 1}, {"b": 2}, {"vars/0": np.arange(10.0)})
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        start, size = member.header_offset + 30 + len(member.filename), member.file_size
        for position in range(start + 20, start + size, 29):  # 20: the zip64 field before the data
            bad = bytearray(good)
            bad[position] ^= 0x10
            path.write_bytes(bad)
            with pytest.raises(FormatError):
                keras_archive.read(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"config__json": None}, "has no config.json"),
        ({"model__weights__h5": None, "model__weights__npz": b""}, "has no model.weights.h5"),
        ({"config__json": b"[1]"}, "no JSON object"),
        ({"config__json": b"{"}, "not a readable"),
        ({"config__json": b"\xff"}, "not a readable"),
        ({"config__json": b'{"a":' * 200_000}, "not a readable"),
        ({"config__json": b'{"class_name": "A", "class_name": "B"}'}, "twice"),
        ({"config__json": b'{"a": "' + b"x" * (6 << 20) + b'"}'}, "beyond reason"),
        ({"model__weights__h5": b"not HDF5"}, "not a readable"),
        ({"assets/../../x": b"1"}, "leave its folder"),
    ],
)
def test_a_container_that_breaks_the_rules_is_refused(
    saved: Saved, members: dict[str, bytes | None], message: str
) -> None:
    path = saved(container(**members), "x.keras")
    with pytest.raises(FormatError, match=message) as caught:
        keras_archive.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10


def test_a_link_out_of_the_weights_is_refused(saved: Saved, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.ones(3)
    for link in (h5py.ExternalLink(tmp_path / "secret.h5", "/secret"), h5py.SoftLink("/x")):
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            file["layers"] = link
        with pytest.raises(FormatError, match="never followed"):
            keras_archive.read(saved(container(model__weights__h5=weights.getvalue())))


def test_nothing_that_a_configuration_names_is_looked_up(saved: Saved, tmp_path: Path) -> None:
    """Modules, functions, code and paths in a configuration are text here."""
    marker = tmp_path / "marker"
    config = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": f"touch {marker}",
        "vocabulary": "/etc/passwd",
        "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}},
    }
    path = saved(container(config__json=json.dumps(config).encode()))
    assert keras_archive.read(path).config == config
    assert not marker.exists()


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    keras_archive.write(path, {}, {}, {"vars/0": np.zeros(1)})
    before = path.read_bytes()
    with pytest.raises(FormatError, match="given twice"):
        keras_archive.write(path, {}, {}, {"vars": {"0": np.zeros(1)}, "vars/0": np.zeros(1)})
    with pytest.raises(FormatError, match="leave its folder"):
        keras_archive.write(path, {}, {}, {}, assets={"../x": b""})
    with pytest.raises(FormatError, match="never written"):
        keras_archive.write(path, {}, {}, {"vars/0": np.array([object()])})
    with pytest.raises(FormatError, match="no JSON"):
        keras_archive.write(path, {"a": object()}, {}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        keras_archive.read(tmp_path / "missing.keras")
