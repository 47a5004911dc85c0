"""HDF5: what h5py and Keras write is read, and whatever points outside of the file or claims too much is refused."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import hdf5

ARRAYS: dict[str, np.ndarray] = {
    "layers/dense/vars/0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layers/dense/vars/1": np.array([1.5, -2.0, np.inf], ml_dtypes.bfloat16),
    "layers/flag": np.array([True, False]),
    "scalar": np.array(3, np.int16),
    "nothing": np.zeros((0, 4)),
    "complex": np.array([1 + 2j], np.complex64),
    "text": np.array([b"ab", b"c"]),
    "wide": np.array([2**64 - 1], np.uint64),
}
ATTRS = {
    "": {"backend": "numpy", "version": 3, "ratio": 0.5, "flag": True, "none": None, "sizes": np.array([1, 2])},
    "layers/dense/vars": {"name": "dense", "names": ["kernel", "ü"]},
    "empty/group": {},
    "scalar": {"unit": "m"},
}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert ours[name].tobytes() == array.tobytes()


def test_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, ARRAYS, ATTRS)
    tree = hdf5.read(path)
    assert_same(tree.arrays, ARRAYS)
    for name, values in ATTRS.items():
        for key, value in values.items():
            np.testing.assert_array_equal(tree.attrs[name][key], value)
            assert type(tree.attrs[name][key]) is type(value)
    assert set(tree.attrs) == {*ATTRS, "empty", "layers", "layers/dense", "layers/dense/vars/1"}
    hdf5.write(tmp_path / "y.h5", tree.arrays, tree.attrs)
    again = hdf5.read(tmp_path / "y.h5")
    assert_same(again.arrays, tree.arrays)
    assert str(again.attrs) == str(tree.attrs)


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        hdf5.write(tmp_path / name, ARRAYS, ATTRS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_h5py_reads_our_files(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "x.h5", ARRAYS, ATTRS)
    with h5py.File(tmp_path / "x.h5") as file:
        for name, array in ARRAYS.items():
            stored = file[name][()]
            assert stored.tobytes() == array.tobytes()
        assert file.attrs["backend"] == "numpy"
        assert list(file["layers/dense/vars"].attrs["names"]) == [b"kernel", "ü".encode()]


def test_we_read_what_h5py_writes(tmp_path: Path) -> None:
    grid = np.arange(600.0).reshape(20, 30)
    with h5py.File(tmp_path / "x.h5", "w", track_order=True) as file:
        file.create_dataset("deflate", data=grid, compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("lzf", data=grid, compression="lzf", chunks=(7, 11))
        file.create_dataset("big", data=grid.astype(">i4"))
        file.create_dataset("half", data=grid.astype("f2"), maxshape=(None, 30))
        file.attrs["bytes"] = b"model"
        file.attrs["fixed"] = np.array([b"a", b"bc"])
        file.attrs["variable"] = ["a", "ü"]
        file.attrs["object"] = np.array(["x"], dtype=h5py.string_dtype())
        file.attrs["numpy text"] = np.bytes_("x")
        file.attrs["empty"] = h5py.Empty("f4")
    tree = hdf5.read(tmp_path / "x.h5")
    for name, dtype in {"deflate": "f8", "lzf": "f8", "big": "i4", "half": "f2"}.items():
        np.testing.assert_array_equal(tree.arrays[name], grid)
        assert tree.arrays[name].dtype == np.dtype(dtype)
    assert tree.attrs[""] == {
        "bytes": "model",
        "fixed": ["a", "bc"],
        "variable": ["a", "ü"],
        "object": ["x"],
        "numpy text": "x",
        "empty": None,
    }


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_old_and_new_layouts_of_the_library(tmp_path: Path, libver: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
        for index in range(40):
            file[f"group/{index}"] = np.full(3, index)
            file["group"].attrs[f"attribute {index}"] = index
    tree = hdf5.read(tmp_path / "x.h5")
    assert [int(tree.arrays[f"group/{index}"][0]) for index in range(40)] == list(range(40))
    assert tree.attrs["group"]["attribute 39"] == 39


def test_parts_of_a_tree() -> None:
    tree = hdf5.Hdf5Tree(
        {"a/b/x": np.zeros(1), "a/y": np.zeros(2), "ab": np.zeros(3)}, {"": {}, "a": {"k": 1}, "a/b": {}, "c": {}}
    )
    assert tree.children() == ("a", "ab", "c")
    assert tree.children("a") == ("b", "y")
    part = tree.subtree("a")
    assert list(part.arrays) == ["b/x", "y"]
    assert part.attrs == {"": {"k": 1}, "b": {}}
    assert list(tree.subtree("").arrays) == list(tree.arrays)
    with pytest.raises(FormatError, match="no group 'a/y'"):
        tree.subtree("a/y")


# ---- lists of names


def test_keras_reads_the_lists_that_we_split_and_we_read_its(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    from keras.src.legacy.saving import legacy_h5_format as legacy

    names = [f"layer-number-{index:06}-{'x' * 50}" for index in range(3000)]
    for name, values in {"long": names, "short": names[:3], "none": []}.items():
        ours, theirs = tmp_path / f"{name}-ours.h5", tmp_path / f"{name}-theirs.h5"
        hdf5.write(ours, {}, {"": hdf5.split_names("layer_names", values)})
        with h5py.File(ours) as file:
            assert legacy.load_attributes_from_hdf5_group(file, "layer_names") == values
        with h5py.File(theirs, "w") as file:
            legacy.save_attributes_to_hdf5_group(file, "layer_names", [value.encode() for value in values])
        assert hdf5.read(theirs).names("", "layer_names") == values
        assert hdf5.read(ours).names("", "layer_names") == values
    assert "layer_names0" in hdf5.read(tmp_path / "long-ours.h5").attrs[""]


def test_lists_of_names_that_are_none_are_refused() -> None:
    with pytest.raises(FormatError, match="missing"):
        hdf5.join_names({"other": ["a"]}, "layer_names")
    with pytest.raises(FormatError, match="no name"):
        hdf5.join_names({"layer_names": np.array([1.0])}, "layer_names")
    with pytest.raises(FormatError, match="too long"):
        hdf5.split_names("layer_names", ["x" * 70_000])


def test_a_model_that_keras_saved_as_h5(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras and h5py deprecate this and that
        model.save(tmp_path / "x.h5")
        model.save_weights(tmp_path / "x.weights.h5")
    tree = hdf5.read(tmp_path / "x.h5")
    assert json.loads(tree.attrs[""]["model_config"])["class_name"] == "Sequential"
    layers = tree.names("model_weights", "layer_names")
    assert layers == [layer.name for layer in model.layers]
    weights = [
        tree.arrays[f"model_weights/{layer}/{name}"]
        for layer in layers
        for name in tree.names(f"model_weights/{layer}", "weight_names")
    ]
    for ours, theirs in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs.value))
    flat = hdf5.read(tmp_path / "x.weights.h5").arrays
    np.testing.assert_array_equal(flat["layers/dense/vars/0"], np.asarray(model.layers[0].kernel.value))


# ---- refused

Build = Callable[[h5py.File, Path], None]


def _external_link(file: h5py.File, secret: Path) -> None:
    file["weights"] = h5py.ExternalLink(secret, "/secret")


def _soft_link(file: h5py.File, secret: Path) -> None:
    file["real"] = np.zeros(3)
    file["weights"] = h5py.SoftLink("/real")


def _external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (4,), "u1", external=[(str(secret), 0, 4)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(secret, "secret", (4,))
    file.create_virtual_dataset("weights", layout)


def _unlimited_virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f8", maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource(secret, "secret", (4,), maxshape=(None,))[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("weights", layout)


def _cycle(file: h5py.File, secret: Path) -> None:
    file.create_group("a")["b"] = file["/"]


def _second_link(file: h5py.File, secret: Path) -> None:
    file["a"] = np.zeros(3)
    file["b"] = file["a"]


def _contiguous_bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (1 << 50,), "f8")


def _chunked_bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (1 << 20, 1 << 20), "f8", chunks=(128, 128))


def _many_small_bombs(file: h5py.File, secret: Path) -> None:
    for index in range(20):
        file.create_dataset(f"{index}", (1 << 20,), "f8")


def _deflate_bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", data=np.zeros(32 << 20), compression="gzip", chunks=(4 << 20,))


def _big_chunk(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (4,), "f8", maxshape=(None,), chunks=(100 << 20,), compression="gzip")


def _text_bomb(file: h5py.File, secret: Path) -> None:
    """Four thousand elements, any of which could refer to the one long text."""
    file.attrs["long"] = "x" * 8_000_000
    file.attrs["many"] = ["y"] * 4000


def _references(file: h5py.File, secret: Path) -> None:
    file["real"] = np.zeros(3)
    file.create_dataset("weights", data=[file["real"].ref], dtype=h5py.ref_dtype)


def _ragged(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (2,), h5py.vlen_dtype("i4"))[0] = [1, 2]


def _texts(file: h5py.File, secret: Path) -> None:
    file["weights"] = ["a", "b"]


def _compound(file: h5py.File, secret: Path) -> None:
    file["weights"] = np.zeros(2, [("a", "f4"), ("b", "i4")])


def _opaque(file: h5py.File, secret: Path) -> None:
    file["weights"] = np.zeros(2, "V8")


def _opaque_with_a_false_mark(file: h5py.File, secret: Path) -> None:
    file["weights"] = np.zeros(2, "V8")
    file["weights"].attrs["dtype"] = "bfloat16"


def _enumeration(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", (2,), h5py.enum_dtype({"A": 1, "B": 2}))


def _named_type(file: h5py.File, secret: Path) -> None:
    file["weights"] = np.dtype("f4")


def _no_shape(file: h5py.File, secret: Path) -> None:
    file["weights"] = h5py.Empty("f4")


def _reference_attribute(file: h5py.File, secret: Path) -> None:
    file.attrs["a"] = file.ref


def _table_attribute(file: h5py.File, secret: Path) -> None:
    file.attrs["a"] = np.array([[b"a", b"b"]])


def _dots(file: h5py.File, secret: Path) -> None:
    file.create_group("..")


def _scale_offset(file: h5py.File, secret: Path) -> None:
    file.create_dataset("weights", data=np.arange(1000), scaleoffset=0)


def _deep(file: h5py.File, secret: Path) -> None:
    file.create_group("/".join("a" * 200))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_external_link, "a link, which is never followed"),
        (_soft_link, "a link, which is never followed"),
        (_external_storage, "data in other files"),
        (_virtual, "data in other files"),
        (_unlimited_virtual, "data in other files"),
        (_cycle, "second link"),
        (_second_link, "second link"),
        (_contiguous_bomb, "more memory"),
        (_chunked_bomb, "more memory"),
        (_many_small_bombs, "more memory"),
        (_deflate_bomb, "more memory"),
        (_big_chunk, "more memory"),
        (_text_bomb, "more text"),
        (_references, "never loaded"),
        (_ragged, "never loaded"),
        (_texts, "never loaded"),
        (_compound, "never loaded"),
        (_opaque, "never loaded"),
        (_opaque_with_a_false_mark, "never loaded"),
        (_enumeration, "never loaded"),
        (_named_type, "neither a group nor an array"),
        (_no_shape, "impossible shape"),
        (_reference_attribute, "never loaded"),
        (_table_attribute, "table of texts"),
        (_dots, "no name"),
        (_scale_offset, "unusual filter"),
        (_deep, "nested beyond reason"),
    ],
)
def test_what_is_not_plain_data_inside_the_file_is_refused(tmp_path: Path, build: Build, message: str) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.full(4, 42.0)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        build(file, secret)
    with pytest.raises(FormatError, match=message) as caught:
        hdf5.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10


@pytest.mark.parametrize("size", [0, 8, 2**64 - 16, 2**64 - 1, 1 << 20])
@pytest.mark.parametrize("index", [0, 1])
def test_a_heap_of_texts_without_end_is_refused(tmp_path: Path, index: int, size: int) -> None:
    """The HDF5 library walks from text to text by their sizes; a text of size zero would keep it for ever."""
    path = tmp_path / "x.h5"
    hdf5.write(path, {}, {"": {"model_config": "{}" * 100}})
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + 16
    data[start : start + 16] = struct.pack("<HHxxxxQ", index, 1, size)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="heap of texts is damaged"):
        hdf5.read(path)


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"hello", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(data)
    with pytest.raises(FormatError, match=r"x\.h5"):
        hdf5.read(tmp_path / "x.h5")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, {"a": np.arange(1000.0)})
    good = path.read_bytes()
    for length in range(0, len(good), 97):
        path.write_bytes(good[:length])
        with pytest.raises(FormatError):
            hdf5.read(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.array([object()])},
        {"a": np.array(["text"])},
        {"a/../b": np.zeros(1)},
        {"/a": np.zeros(1)},
        {"a//b": np.zeros(1)},
        {"": np.zeros(1)},
        {1: np.zeros(1)},
        {"a": np.zeros(1), "a/b": np.zeros(1)},
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path: Path, arrays: dict) -> None:
    path = tmp_path / "x.h5"
    hdf5.write(path, {"old": np.zeros(1)})
    with pytest.raises(FormatError):
        hdf5.write(path, arrays)
    assert list(hdf5.read(path).arrays) == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hdf5.read(tmp_path / "missing.h5")
