"""Fourier transforms. A complex array is a pair (real part, imaginary part)."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.operators import match, operand

from .arguments import floating
from .movement import cut, swapaxes
from .padding import pad
from .registry import op


def _pair(x: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ArgumentError(f"{name}: not a complex array", got=type(x).__name__, expected="a pair (real, imaginary)")
    re, im = (operand(part) for part in x)
    if re.shape != im.shape:
        raise ShapeError(f"{name}: the parts differ in shape", got=f"{re.spec} and {im.spec}", expected="one shape")
    if not (re.dtype.is_float and im.dtype.is_float):
        raise DTypeError(f"{name}: the parts are not floating point", got=f"{re.spec} and {im.spec}")
    pair: tuple[Any, Any] = match(re, im)
    return pair


@op
def fft(x: Any) -> tuple[Any, Any]:
    """The Fourier transform over the last axis."""
    re, im = primitives.fft(*_pair(x, "fft"), inverse=False)
    return re, im


def _over_two(x: Any, name: str, inverse: bool) -> tuple[Any, Any]:
    re, im = _pair(x, name)
    if re.ndim < 2:
        raise ShapeError(f"{name}: no image", got=re.spec, expected="rank of at least 2")
    re, im = primitives.fft(re, im, inverse=inverse)
    re, im = primitives.fft(swapaxes(re, -1, -2), swapaxes(im, -1, -2), inverse=inverse)
    return swapaxes(re, -1, -2), swapaxes(im, -1, -2)


@op
def fft2(x: Any) -> tuple[Any, Any]:
    """The Fourier transform over the last two axes."""
    return _over_two(x, "fft2", False)


@op
def ifft2(x: Any) -> tuple[Any, Any]:
    """The inverse Fourier transform over the last two axes."""
    return _over_two(x, "ifft2", True)


def _fitted(x: Any, length: int) -> Any:
    """The last axis cut, or filled up with zeros, to a length."""
    size, axis = x.shape[-1], x.ndim - 1
    if size >= length:
        return cut(x, axis, 0, length)
    return pad(x, ((0, 0),) * axis + ((0, length - size),))


@op
def rfft(x: Any, fft_length: int | None = None) -> tuple[Any, Any]:
    """The Fourier transform of real numbers over the last axis: the frequencies from 0 to the half, both included."""
    x = floating(x)
    length = x.shape[-1] if fft_length is None else int(fft_length)
    x = _fitted(x, length)
    re, im = primitives.fft(x, operators.zeros_like(x), inverse=False)
    count = length // 2 + 1
    return cut(re, x.ndim - 1, 0, count), cut(im, x.ndim - 1, 0, count)


@op
def irfft(x: Any, fft_length: int | None = None) -> Any:
    """The real numbers with those frequencies from 0 to the half: the inverse of `rfft`."""
    re, im = _pair(x, "irfft")
    axis = re.ndim - 1
    length = 2 * (re.shape[-1] - 1) if fft_length is None else int(fft_length)
    if length < 1:
        raise ArgumentError("irfft: the result has no elements", got=f"fft_length={length}", expected="at least 1")
    count = length // 2 + 1
    re, im = _fitted(re, count), _fitted(im, count)
    mirrored = length - count
    tails = [primitives.flip(cut(part, axis, 1, 1 + mirrored), axes=(axis,)) for part in (re, im)]
    re = primitives.concatenate(re, tails[0], axis=axis)
    im = primitives.concatenate(im, -tails[1], axis=axis)
    return primitives.fft(re, im, inverse=True)[0]


# Short-time ------------------------------------------------------------------------------------------------------
def _frames(length: int, size: int, stride: int, name: str) -> np.ndarray[Any, Any]:
    """The places of each element of each frame."""
    if not 1 <= size <= length or stride < 1:
        raise ShapeError(
            f"{name}: no frame fits", got=f"frames of {size}, stride {stride}, in {length}", expected="shorter ones"
        )
    starts = np.arange((length - size) // stride + 1) * stride
    return (starts[:, None] + np.arange(size)).astype(np.int32)


@op
def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Any:
    """Overlapping pieces of the last axis: (…, length) gives (…, pieces, sequence_length)."""
    x = operand(x)
    return x[..., _frames(x.shape[-1], sequence_length, sequence_stride, "extract_sequences")]


def _window(window: Any, sequence_length: int, fft_length: int, like: Any, name: str) -> Any:
    """A window of fft_length elements, with zeros on both sides of the user's."""
    if fft_length < sequence_length:
        raise ArgumentError(f"{name}: fft_length is too short", got=fft_length, expected=f"at least {sequence_length}")
    if window is None:
        return operators.full((fft_length,), 1.0, like.dtype)
    if isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise ArgumentError(f"{name}: unknown window", got=repr(window), expected="'hann', 'hamming' or an array")
        base = 0.5 if window == "hann" else 0.54
        phase = (
            2.0 * np.pi * np.arange(sequence_length) / sequence_length
        )  # periodic: one sample longer, the last left out
        window = (base - (1.0 - base) * np.cos(phase)).astype(like.dtype.numpy)
    w = operand(window, like.dtype)
    if w.shape != (sequence_length,):
        raise ShapeError(f"{name}: the window does not fit", got=w.spec, expected=f"shape ({sequence_length},)")
    left = (fft_length - sequence_length) // 2
    return pad(w, ((left, fft_length - sequence_length - left),))


@op
def stft(
    x: Any, sequence_length: int, sequence_stride: int, fft_length: int, window: Any = "hann", center: bool = True
) -> tuple[Any, Any]:
    """The Fourier transforms of overlapping pieces of the last axis: (…, length) gives (…, pieces, frequencies).

    window: "hann", "hamming", an array, or None; center: whether piece i is centred at i · stride (the ends reflected)
    """
    x = floating(x)
    w = _window(window, sequence_length, fft_length, x, "stft")
    if center:
        x = pad(x, ((0, 0),) * (x.ndim - 1) + ((fft_length // 2, fft_length // 2),), mode="reflect")
    pieces = x[..., _frames(x.shape[-1], fft_length, sequence_stride, "stft")]
    return rfft(operators.multiply(pieces, w))


@op
def istft(
    x: Any, sequence_length: int, sequence_stride: int, fft_length: int, length: int | None = None,
    window: Any = "hann", center: bool = True,
) -> Any:  # fmt: skip
    """The signal of which these are the pieces' transforms: pieces are weighted by the window and added up."""
    re, im = _pair(x, "istft")
    w = _window(window, sequence_length, fft_length, re, "istft")
    pieces = operators.multiply(irfft((re, im), fft_length), w)
    count = pieces.shape[-2]
    total = fft_length + sequence_stride * (count - 1)
    squares = operators.broadcast_to(w * w, (count, fft_length))
    weight = _overlap_add(squares, total, sequence_stride)
    safe = primitives.select(operators.less(1e-10, weight), weight, operators.ones_like(weight))
    signal = operators.divide(_overlap_add(pieces, total, sequence_stride), safe)
    start = fft_length // 2 if center else 0
    stop = start + length if length is not None else total - start if center else total
    return cut(signal, signal.ndim - 1, start, min(stop, total))


def _overlap_add(pieces: Any, total: int, stride: int) -> Any:
    *batch, count, size = pieces.shape
    places = _frames(total, size, stride, "istft")[:count]
    front = operators.transpose(pieces, (pieces.ndim - 2, pieces.ndim - 1, *range(pieces.ndim - 2)))
    zeros = operators.full((total, *batch), 0.0, pieces.dtype)
    added = primitives.scatter_add(zeros, operators.reshape(operand(places), count, size, 1), front)
    return operators.transpose(added, (*range(1, added.ndim), 0))
