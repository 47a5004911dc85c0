"""Convolutions beyond their samples: blocks, precision of half types, errors that say what to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel.backends  # noqa: F401  (makes operators executable)
from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import Primitive, Tensor, as_dtype
from highlevel.ir.primitives import conv, conv_input_grad, conv_kernel_grad, convolve
from highlevel.ir.sample import Sample, mismatch

ONE = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
CASES = [
    pytest.param(primitive, sample, id=f"{primitive.name}-{i}")
    for primitive in (conv, conv_input_grad, conv_kernel_grad)
    for i, sample in enumerate(primitive.samples)
    if sample.oracle.startswith("scipy")
]


@pytest.mark.parametrize(("primitive", "sample"), CASES)
@pytest.mark.parametrize("limit", [1, 300, 1500], ids=["row by row", "some rows", "some images"])
@pytest.mark.parametrize("short_run", [0, 1000], ids=["windows", "planes"])
def test_the_size_of_blocks_does_not_matter(
    primitive: Primitive, sample: Sample, limit: int, short_run: int, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolve, "UNFOLDED_BYTES", limit)
    monkeypatch.setattr(convolve, "DEPTHWISE_BYTES", limit)
    monkeypatch.setattr(convolve, "SHORT_RUN", short_run)
    arrays = sample.draw(rng, as_dtype("float64"))
    (want,) = sample.expected(*arrays)
    assert mismatch(primitive.numpy(np, *arrays, **sample.attrs), want, 64.0) is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_add_up_in_float32(dtype: str) -> None:
    """4096 ones: float16 stops counting at 2048, bfloat16 at 256."""
    x = np.ones((1, 1, 1, 4096), as_dtype(dtype).numpy)
    y = conv(Tensor.of(x), Tensor.of(x.reshape(1, 1, 4096, 1)), **ONE)
    assert y.dtype == dtype
    assert float(y) == 4096.0


def test_empty_batch() -> None:
    x, k = np.zeros((0, 5, 5, 2), np.float32), np.zeros((3, 3, 2, 4), np.float32)
    y = conv(Tensor.of(x), Tensor.of(k), **ONE)
    assert y.shape == y.numpy().shape == (0, 3, 3, 4)
    gradient = conv_kernel_grad(Tensor.of(x), y, shape=k.shape, **ONE).numpy()
    assert gradient.shape == k.shape and not gradient.any()


def call(x: tuple[int, ...], kernel: tuple[int, ...], x_dtype: str = "float32", **attrs: Any) -> None:
    conv(Tensor.of(np.zeros(x, x_dtype)), Tensor.of(np.zeros(kernel, np.float32)), **{**ONE, **attrs})


@pytest.mark.parametrize(
    ("operands", "attrs", "error", "words"),
    [
        (((2, 3, 8, 8), (3, 3, 3, 5)), {}, ShapeError, ["3 channels on the last axis", "looks channels-first"]),
        (((2, 8, 8, 4), (3, 3, 3, 5)), {}, ShapeError, ["channels do not fit", "float32 (2, 8, 8, 4)"]),
        (((8, 8, 3), (3, 3, 3, 5)), {}, ShapeError, ["ranks do not fit", "batch axis"]),
        (((2, 8, 8, 4), (3, 3, 2, 5)), {"groups": 2}, ArgumentError, ["groups do not divide", "5 filters"]),
        (((2, 4, 8, 3), (5, 3, 3, 5)), {}, ShapeError, ["larger than the padded input", "axis 1", "padding='same'"]),
        (((2, 4, 8, 3), (3, 3, 3, 5)), {"strides": (0, 1)}, ArgumentError, ["start at 1"]),
        (((2, 4, 8, 3), (3, 3, 3, 5)), {"strides": (1,)}, ArgumentError, ["strides", "2 entries"]),
        (((2, 4, 8, 3), (3, 3, 3, 5)), {"padding": ((-1, 0), (0, 0))}, ArgumentError, ["negative padding"]),
        (((2, 4, 8, 3), (3, 3, 3, 5), "int32"), {}, DTypeError, ["data types", "int32"]),
    ],
)
def test_errors(operands: Any, attrs: Any, error: Any, words: list[str]) -> None:
    with pytest.raises(error) as caught:
        call(*operands, **attrs)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text.splitlines()) <= 10


def test_a_cotangent_of_another_shape_is_refused() -> None:
    g, k = Tensor.of(np.zeros((2, 5, 5, 4), np.float32)), Tensor.of(np.zeros((3, 3, 2, 4), np.float32))
    with pytest.raises(ShapeError, match="the cotangent does not fit"):
        conv_input_grad(g, k, shape=(2, 8, 8, 2), **ONE)
