"""Convolution: three operators that are each other's derivatives. Channels last, kernels `(*K, C / groups, O)`.

    conv(x, kernel)          y[n, p, o] = Σ_k,c x[n, p·stride + k·dilation − low, c] · kernel[k, c, o]
    conv_input_grad(g, k)    the transposed map: what `g` weighs each input with
    conv_kernel_grad(x, g)   what `g` weighs each kernel entry with
"""

from __future__ import annotations

from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError

from .. import oracles
from ..primitive import define
from ..sample import Sample, normal
from ..spec import Spec
from . import convolve
from .spatial import check_geometry, extents, output_sizes

FAMILY = "convolution"


# Shapes --------------------------------------------------------------------------------------------------------------
def _infer(name: str, x: Spec, kernel: Spec, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    """The shape of a convolution of `x` with `kernel`."""
    if x.ndim < 3 or kernel.ndim != x.ndim:
        raise ShapeError(
            f"{name}: ranks do not fit",
            got=f"x {x}, kernel {kernel}",
            expected="x (batch, *spatial, channels) and kernel (*window, channels / groups, filters)",
            hint="x[None] adds a batch axis, x[..., None] a channel axis" if x.ndim == kernel.ndim - 1 else None,
        )
    if x.dtype is not kernel.dtype or x.dtype.is_bool:
        raise DTypeError(f"{name}: data types do not fit", got=f"{x} and {kernel}", expected="numbers of one data type")
    check_geometry(name, x.ndim - 2, strides, padding, dilation, kernel.shape[:-2])
    channels, filters = kernel.shape[-2:]
    if groups < 1 or filters % groups or x.shape[-1] % groups:
        raise ArgumentError(
            f"{name}: groups do not divide the channels",
            got=f"groups={groups} for {x.shape[-1]} channels and {filters} filters",
            expected="a number that divides both",
        )
    if x.shape[-1] != channels * groups:
        raise ShapeError(
            f"{name}: the channels do not fit the kernel",
            got=f"x {x}, kernel {kernel}, groups={groups}",
            expected=f"{channels * groups} channels on the last axis",
            hint=_channels_hint(x, channels * groups),
        )
    sizes = output_sizes(name, x, kernel.shape[:-2], strides, padding, dilation)
    return Spec((x.shape[0], *sizes, filters), x.dtype)


def _channels_hint(x: Spec, channels: int) -> str | None:
    if x.shape[1] == channels:
        return "the input looks channels-first: data_format='channels_first', or move axis 1 to the end"
    return None


def _infer_conv(x: Spec, kernel: Spec, *, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    return _infer("conv", x, kernel, strides, padding, dilation, groups)


def _infer_input_grad(
    g: Spec, kernel: Spec, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> Spec:
    x = g.with_shape(shape)
    _check_cotangent("conv_input_grad", g, _infer("conv_input_grad", x, kernel, strides, padding, dilation, groups))
    return x


def _infer_kernel_grad(x: Spec, g: Spec, *, shape: Any, strides: Any, padding: Any, dilation: Any, groups: int) -> Spec:
    kernel = x.with_shape(shape)
    _check_cotangent("conv_kernel_grad", g, _infer("conv_kernel_grad", x, kernel, strides, padding, dilation, groups))
    return kernel


def _check_cotangent(name: str, g: Spec, expected: Spec) -> None:
    if g != expected:
        raise ShapeError(f"{name}: the cotangent does not fit", got=g, expected=f"{expected}, what conv gives")


# Records -------------------------------------------------------------------------------------------------------------
def _conv(xp: Any, x: Any, kernel: Any, *, strides: Any, padding: Any, dilation: Any, groups: int) -> Any:
    gaps = zip(x.shape[1:-1], extents(kernel.shape[:-2], dilation), strides, padding, strict=True)
    sizes = [(size + low + high - extent) // stride + 1 for size, extent, stride, (low, high) in gaps]
    return convolve.conv(
        xp, x, kernel, sizes=sizes, strides=strides, padding=padding, dilation=dilation, groups=groups
    )


def _conv_vjp(g: Any, y: Any, x: Any, kernel: Any, **attrs: Any) -> Any:
    return (
        conv_input_grad(g, kernel, shape=x.shape, **attrs),
        conv_kernel_grad(x, g, shape=kernel.shape, **attrs),
    )


def _conv_input_grad_vjp(c: Any, y: Any, g: Any, kernel: Any, *, shape: Any, **attrs: Any) -> Any:
    return conv(c, kernel, **attrs), conv_kernel_grad(c, g, shape=kernel.shape, **attrs)


def _conv_kernel_grad_vjp(c: Any, y: Any, x: Any, g: Any, *, shape: Any, **attrs: Any) -> Any:
    return conv_input_grad(g, c, shape=x.shape, **attrs), conv(x, c, **attrs)


def _geometry(rank: int, stride: int = 1, padding: tuple[int, int] = (0, 0), dilation: int = 1, groups: int = 1) -> Any:
    return {
        "strides": (stride,) * rank,
        "padding": (padding,) * rank,
        "dilation": (dilation,) * rank,
        "groups": groups,
    }


_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 9, 3), (4, 3, 5), _geometry(1, stride=2, padding=(1, 2))),
    ((2, 6, 7, 3), (3, 3, 3, 4), _geometry(2)),
    ((2, 5, 6, 4), (1, 1, 4, 3), _geometry(2, stride=2)),
    ((1, 7, 9, 2), (3, 2, 2, 3), _geometry(2, stride=2, padding=(0, 1), dilation=2)),
    ((2, 5, 6, 4), (3, 3, 2, 6), _geometry(2, padding=(1, 1), groups=2)),
    ((2, 6, 5, 3), (3, 3, 1, 3), _geometry(2, stride=2, padding=(1, 0), groups=3)),
    ((2, 5, 5, 3), (3, 2, 1, 6), _geometry(2, padding=(1, 1), groups=3)),
    ((1, 4, 5, 4, 2), (2, 3, 2, 2, 3), _geometry(3, stride=2, padding=(1, 0))),
)


def _samples(kind: str, scipy_name: str, torch_name: str) -> tuple[Sample, ...]:
    """Each case against SciPy's correlation, and against PyTorch's operator for that rank."""
    samples = []
    for x_shape, k_shape, attrs in _CASES:
        x, k = (Spec(shape, oracles.FLOAT64) for shape in (x_shape, k_shape))
        g_shape = _infer_conv(x, k, **attrs).shape
        shapes = {"conv": (x_shape, k_shape), "input": (g_shape, k_shape), "kernel": (x_shape, g_shape)}[kind]
        extra = {"conv": {}, "input": {"shape": x_shape}, "kernel": {"shape": k_shape}}[kind]
        draws = tuple(normal(*shape) for shape in shapes)
        torch = torch_name.format(rank=len(x_shape) - 2)
        samples.append(Sample(draws, scipy_name, oracles.SCIPY_CONV[kind], {**extra, **attrs}))
        samples.append(Sample(draws, torch, oracles.TORCH_CONV[kind], {**extra, **attrs}))
    return tuple(samples)


conv = define(
    "conv",
    FAMILY,
    infer=_infer_conv,
    numpy=_conv,
    vjp=_conv_vjp,
    samples=_samples("conv", "scipy.signal.correlate", "torch.nn.functional.conv{rank}d"),
    summary="convolution (correlation) of (N, *S, C) with (*K, C / groups, O)",
)
conv_input_grad = define(
    "conv_input_grad",
    FAMILY,
    infer=_infer_input_grad,
    numpy=convolve.conv_input_grad,
    vjp=_conv_input_grad_vjp,
    samples=_samples("input", "scipy.signal.convolve", "torch.nn.grad.conv{rank}d_input"),
    summary="the transposed convolution: the cotangent of conv's input, of the given shape",
)
conv_kernel_grad = define(
    "conv_kernel_grad",
    FAMILY,
    infer=_infer_kernel_grad,
    numpy=convolve.conv_kernel_grad,
    vjp=_conv_kernel_grad_vjp,
    samples=_samples("kernel", "scipy.signal.correlate", "torch.nn.grad.conv{rank}d_weight"),
    summary="the cotangent of conv's kernel, of the given shape",
)
