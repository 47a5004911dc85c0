"""What all tests share: oracles that never reach for a GPU, one thread each, and no state left behind."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "numpy")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from highlevel.backends.native.executable import Executable

FOREIGN = ("matmul", "dot", "einsum", "tensordot", "convolve")  # what the compiler has to do without


@pytest.fixture(autouse=True, scope="session")
def native_computes_by_itself() -> Iterator[None]:
    """While a compiled program runs, NumPy's products and convolutions are out of order."""
    run, theirs = Executable.run, {name: getattr(np, name) for name in FOREIGN}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a compiled program has called NumPy to multiply")

    def guarded(self: Executable, inputs: Any) -> Any:
        for name in FOREIGN:
            setattr(np, name, refuse)
        try:
            return run(self, inputs)
        finally:
            for name, function in theirs.items():
                setattr(np, name, function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executable, "run", guarded)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)
