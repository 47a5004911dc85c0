"""The Fourier transform beyond its samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import DTypeError, ShapeError
from highlevel.ir import Tensor
from highlevel.ir.primitives import fft


def test_there_and_back(rng: Any) -> None:
    re, im = rng.standard_normal((2, 3, 11))
    there = fft(Tensor.of(re), Tensor.of(im), inverse=False)
    back = fft(*there, inverse=True)
    np.testing.assert_allclose(back[0].numpy(), re, atol=1e-14)
    np.testing.assert_allclose(back[1].numpy(), im, atol=1e-14)


def test_half_types_transform_in_float32() -> None:
    ones = Tensor.of(np.ones(4096, np.float16))
    re, im = fft(ones, Tensor.of(np.zeros(4096, np.float16)), inverse=False)
    assert re.numpy()[0] == 4096
    assert re.dtype == im.dtype == "float16"


def test_errors() -> None:
    x = Tensor.of([1.0, 2.0])
    with pytest.raises(ShapeError, match="differ"):
        fft(x, Tensor.of([1.0]), inverse=False)
    with pytest.raises(DTypeError, match="cast"):
        fft(Tensor.of([1, 2]), Tensor.of([1, 2]), inverse=False)
    with pytest.raises(ShapeError, match="nothing to transform"):
        fft(Tensor.of(np.zeros((2, 0))), Tensor.of(np.zeros((2, 0))), inverse=False)
