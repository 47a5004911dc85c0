"""The discrete Fourier transform, on pairs of real arrays: the language has no complex type."""

from __future__ import annotations

from typing import Any

from highlevel.errors import DTypeError, ShapeError

from .. import oracles
from ..primitive import define
from ..sample import Sample, normal
from ..spec import Spec
from .creation import zeros_like
from .spatial import is_half

FAMILY = "fourier"


def _infer(re: Spec, im: Spec, *, inverse: bool) -> tuple[Spec, Spec]:
    if re != im:
        raise ShapeError("fft: real and imaginary parts differ", got=f"{re} and {im}", expected="one shape and type")
    if not re.dtype.is_float:
        raise DTypeError("fft: wrong data type", got=re, expected="floating point", hint="cast the operand first")
    if re.ndim == 0 or re.shape[-1] == 0:
        raise ShapeError("fft: nothing to transform", got=re, expected="a last axis of at least 1 element")
    return re, im


def _fft(xp: Any, re: Any, im: Any, *, inverse: bool) -> tuple[Any, Any]:
    wide = xp.float32 if is_half(re) else re.dtype
    z = re.astype(wide) + 1j * im.astype(wide)
    z = xp.fft.ifft(z, axis=-1) if inverse else xp.fft.fft(z, axis=-1)
    return z.real.astype(re.dtype), z.imag.astype(re.dtype)  # NumPy 1 transforms in double precision


def _vjp(g: Any, y: Any, re: Any, im: Any, *, inverse: bool) -> Any:
    """The transform is symmetric, so pulling back is transforming the conjugate and conjugating."""
    real = zeros_like(re) if g[0] is None else g[0]
    imaginary = zeros_like(im) if g[1] is None else g[1]
    pulled_re, pulled_im = fft(real, -imaginary, inverse=inverse)
    return pulled_re, -pulled_im


fft = define(
    "fft",
    FAMILY,
    infer=_infer,
    numpy=_fft,
    vjp=_vjp,
    multiple=True,
    samples=tuple(
        Sample((normal(*shape), normal(*shape)), f"{library}.fft.{name}", oracles.complex_fft, {"inverse": inverse})
        for shape in ((2, 8), (3, 2, 7), (1,))
        for name, inverse in (("fft", False), ("ifft", True))
        for library in ("scipy", "numpy")
    ),
    summary="the Fourier transform of re + i·im over the last axis; the inverse divides by its length",
)
