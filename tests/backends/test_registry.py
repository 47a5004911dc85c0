from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from highlevel import backends, config
from highlevel.backends import registry
from highlevel.backends.interpreter import NumpyBackend
from highlevel.errors import BackendError
from highlevel.ir import Tensor, Variable


class Counting(NumpyBackend):
    """The interpreter, which also counts what passes between it and the host."""

    name = "counting"

    def __init__(self) -> None:
        self.up = self.down = 0

    def from_host(self, array: Any) -> Any:
        self.up += 1
        return np.array(array)

    def to_host(self, handle: Any) -> Any:
        self.down += 1
        return np.array(handle)


class Half:
    """A backend with parts missing."""

    name = "half"

    def from_host(self, array: Any) -> Any:
        return array


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registrations and the choice of backend end with the test."""
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.setattr(registry, "_instances", dict(registry._instances))
    monkeypatch.setattr(registry, "_current", registry._current)
    return iter([None])  # type: ignore[return-value]


def test_numpy_is_there_and_is_one_object() -> None:
    assert "numpy" in backends.available()
    assert backends.get("numpy") is backends.get("numpy")
    assert isinstance(backends.get("numpy"), backends.Backend)


def test_a_registered_backend_can_be_used() -> None:
    backends.register("counting", Counting)
    assert "counting" in backends.available()
    v, x = Variable([1.0, 2.0]), Tensor.of([3.0, 4.0])
    config.set_backend("counting")
    assert config.backend() == "counting"
    counting: Any = backends.current()
    y = v + x
    assert (y.device, y.tolist()) == ("counting", [4, 6])
    assert (counting.up, counting.down) == (2, 1)  # the variable moved, the tensor was copied; one was looked at
    _ = v + y
    assert counting.up == 2  # both are there
    backends.set_backend("numpy")
    assert (v * 1.0).tolist() == [1, 2]
    assert Tensor.of(1.0).device == "numpy"


def test_registering_again_replaces() -> None:
    backends.register("counting", Counting)
    first = backends.get("counting")
    backends.register("counting", Counting)
    assert backends.get("counting") is not first


def test_unknown_names_are_answered() -> None:
    before = backends.current()
    with pytest.raises(BackendError, match=r"there is no backend 'nunpy'\n  hint: .*did you mean 'numpy'"):
        backends.set_backend("nunpy")
    assert backends.current() is before


def test_incomplete_backends_are_refused() -> None:
    backends.register("half", Half)
    with pytest.raises(BackendError, match="'half' is incomplete") as caught:
        backends.get("half")
    assert "devices, to_host, compile, run" in str(caught.value)


def test_packages_add_backends_by_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A real installed distribution, as `pip install` leaves it."""
    (tmp_path / "third_party.py").write_text(
        "from highlevel.backends.interpreter import NumpyBackend\n\nclass Mine(NumpyBackend):\n    name = 'mine'\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[highlevel.backends]\nmine = third_party:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" in {entry.name for entry in metadata.entry_points(group=registry.ENTRY_POINT)}
    assert "mine" in backends.available()
    assert backends.get("mine").name == "mine"


@pytest.mark.parametrize(("name", "answer"), [("numpy", "numpy"), ("nonsense", "there is no backend 'nonsense'")])
def test_the_environment_chooses(name: str, answer: str) -> None:
    code = (
        "import highlevel as hl\n"
        "try:\n    print(hl.backends.current().name)\n"
        "except hl.errors.BackendError as error:\n    print(error)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HIGHLEVEL_BACKEND": name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.startswith(answer)
