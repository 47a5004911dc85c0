"""Every function, one row each (or more): compared with Keras on NumPy, differentiated, and run as a compiled program.

A row is a name, the arguments, and what is special about it. Arrays among the arguments are data; all else is fixed.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")

import highlevel as hl
from highlevel import ops
from highlevel.ir import tree

R = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    """Values away from zero, where kinks are."""
    x = R.standard_normal(shape)
    return (x + np.copysign(0.05, x)).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return R.uniform(0.3, 2.0, shape).astype(np.float32)


def unit(*shape: int) -> np.ndarray:
    return R.uniform(-0.85, 0.85, shape).astype(np.float32)


def whole(*shape: int, low: int = -5, high: int = 6) -> np.ndarray:
    return R.integers(low, high, shape).astype(np.int32)


def truth(*shape: int) -> np.ndarray:
    return R.integers(0, 2, shape).astype(bool)


def distinct(*shape: int) -> np.ndarray:
    size = int(np.prod(shape))
    return ((R.permutation(size).reshape(shape) - size / 2) * 0.3 + 0.07).astype(np.float32)


def spd(n: int, *batch: int) -> np.ndarray:
    a = R.standard_normal((*batch, n, n))
    return (a @ np.swapaxes(a, -1, -2) + n * np.eye(n)).astype(np.float32)


def with_nan(*shape: int) -> np.ndarray:
    x = distinct(*shape)
    x.reshape(-1)[1::4] = np.nan
    return x


@dataclass
class Row:
    """One call.

    oracle:    a function by somebody else; Keras's of the same name if not given
    gradient:  compared with finite differences (of floating arguments, in float64)
    shown:     what of the result is compared, where the result itself is not unique (signs of vectors)
    dtypes:    whether the type of the result is Keras's; where not, `why` says why not
    static:    arrays that are not data: they stay numbers in the compiled program
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    oracle: Callable[..., Any] | None = None
    gradient: bool = True
    shown: Callable[..., Any] | None = None
    dtypes: bool = True
    why: str = ""
    static: bool = False
    traced: bool = True
    atol: float = 1e-5


ROWS: list[Row] = []


def row(name: str, *args: Any, **options: Any) -> None:
    known = {key: options.pop(key) for key in list(options) if key in Row.__dataclass_fields__ and key != "name"}
    ROWS.append(Row(name, args, options, **known))


def flat(name: str, *args: Any, **options: Any) -> None:
    """A row without gradient: of whole numbers, truth, places, or steps."""
    row(name, *args, gradient=False, **options)


FLOAT64_KERAS = "Keras on NumPy widens int64 to float64 here; we never do"

# Elementwise -----------------------------------------------------------------------------------------------------
for name in (
    "abs",
    "absolute",
    "arcsinh",
    "arctan",
    "cos",
    "cosh",
    "deg2rad",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "negative",
    "rad2deg",
    "sin",
    "sinc",
    "sinh",
    "square",
    "tan",
    "tanh",
    "conj",
    "conjugate",
    "real",
    "copy",
    "i0",
    "nan_to_num",
    "cbrt",
    "reciprocal",
):
    row(name, normal(3, 4))
for name in ("arccos", "arcsin", "arctanh", "erfinv"):
    row(name, unit(3, 4))
for name in ("log", "log10", "log1p", "log2", "rsqrt", "sqrt"):
    row(name, positive(3, 4))
row("arccosh", positive(3, 4) + 1)
for name in (
    "sign",
    "signbit",
    "ceil",
    "floor",
    "trunc",
    "round",
    "isfinite",
    "isnan",
    "isinf",
    "isposinf",
    "isneginf",
    "isreal",
    "imag",
    "angle",
    "logical_not",
):
    flat(name, np.array([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, np.nan, np.inf, -np.inf], np.float32))
for name in (
    "absolute",
    "negative",
    "sign",
    "ceil",
    "floor",
    "trunc",
    "round",
    "square",
    "sin",
    "exp",
    "sqrt",
    "log1p",
    "isnan",
    "isfinite",
    "bitwise_invert",
    "bitwise_not",
    "logical_not",
    "fabs",
    "tanh",
):
    flat(name, whole(3, 4, low=1, high=9))
row("round", normal(3, 4), 2, gradient=False)
flat("round", whole(3, 4, low=10, high=99), -1)
row("clip", normal(3, 4), -0.5, 0.7)
flat("clip", whole(3, 4), -2, 3)
row("nan_to_num", np.array([np.nan, np.inf, -np.inf, 1.0], np.float32), 1.0, 2.0, -3.0, gradient=False)
for name in (
    "add",
    "subtract",
    "multiply",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "logaddexp",
    "logaddexp2",
    "arctan2",
    "hypot",
):
    row(name, normal(3, 4), normal(4))
    flat(name, whole(3, 4), normal(4))
for name in ("divide", "true_divide", "divide_no_nan", "power", "mod", "fmod"):
    row(name, positive(3, 4), positive(3, 1) + 2.1)
flat("divide_no_nan", normal(3), np.array([0.0, 1.0, 2.0], np.float32))
flat("mod", normal(3, 4), positive(4))
flat("fmod", normal(3, 4), normal(4))
flat("fmod", whole(3, 4), whole(3, 4, low=1, high=5))
for name in ("add", "multiply", "floor_divide", "mod", "divide", "subtract", "maximum"):
    flat(name, whole(3, 4), whole(4, low=1, high=5))
    flat(name, whole(3, 4), 2)
    flat(name, whole(3, 4), 2.5)
flat("floor_divide", normal(3, 4), positive(4))
flat("power", whole(3, 4, low=1), whole(4, low=0))
row("power", normal(3, 4), 3)
row("power", positive(3, 4), 0.5)
for name in (
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "isclose",
    "allclose",
):
    flat(name, whole(3, 4, low=0, high=2).astype(np.float32), whole(4, low=0, high=2))
flat(
    "isclose",
    np.array([1.0, np.nan, np.inf], np.float32),
    np.array([1.000001, np.nan, np.inf], np.float32),
    equal_nan=True,
)
for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "gcd", "lcm"):
    flat(name, whole(3, 4, low=1, high=99), whole(4, low=1, high=99))
for name in ("bitwise_left_shift", "left_shift", "bitwise_right_shift", "right_shift"):
    flat(name, whole(3, 4), whole(4, low=0, high=4))
flat("heaviside", np.array([-1.0, 0.0, 2.0, np.nan], np.float32), np.float32(0.5))
row("ldexp", normal(3), np.array([-3, 0, 4], np.int32))
flat(
    "nextafter",
    np.array([1.0, -1.0, 0.0, 0.0, 3.0, np.nan], np.float32),
    np.array([2.0, 2.0, 1.0, -1.0, 3.0, 1.0], np.float32),
)
flat("lgamma", positive(3, 4), oracle=lambda x: _special("gammaln", x))
flat("digamma", positive(3, 4), oracle=lambda x: _special("digamma", x))


def _special(name: str, x: np.ndarray) -> np.ndarray:
    import scipy.special

    return getattr(scipy.special, name)(x).astype(np.float32)


# Reductions ------------------------------------------------------------------------------------------------------
for name in ("sum", "mean", "max", "min", "amax", "amin", "prod", "ptp", "var", "std", "logsumexp", "median"):
    row(name, distinct(2, 3, 4))
    row(name, distinct(2, 3, 4), axis=1)
    row(name, distinct(2, 3, 4), axis=(0, -1), keepdims=True)
for name in ("nansum", "nanprod", "nanmax", "nanmin", "nanmean", "nanvar", "nanstd", "nanmedian"):
    flat(name, with_nan(3, 4, 2))
    flat(name, with_nan(3, 4, 2), axis=1, keepdims=True)
for name in ("sum", "mean", "max", "prod", "var", "std", "any", "all", "ptp", "nansum", "nanprod", "nanmean", "median"):
    flat(name, whole(3, 4, low=1, high=4), axis=1)
for dtype in ("bool", "uint8", "int8", "int16", "float16"):
    flat("sum", whole(3, 4, low=0, high=4).astype(dtype))
    flat("mean", whole(3, 4, low=0, high=4).astype(dtype))
    flat("prod", whole(2, 2, low=1, high=4).astype(dtype))
flat("all", truth(3, 4), axis=0)
flat("any", truth(3, 4), axis=1, keepdims=True)
flat("count_nonzero", whole(3, 4, low=0, high=2), axis=1)
row("max", distinct(3, 4), axis=1, initial=0.5)
row("min", distinct(3, 4), initial=-0.5)
row("average", normal(3, 4), axis=1, weights=positive(4))
row("average", normal(3, 4), weights=positive(3, 4))
row("average", normal(3, 4), axis=0)
row("cumsum", normal(3, 4))
row("cumsum", normal(3, 4), axis=1)
row("cumprod", normal(3, 5), axis=1)
flat("cumsum", truth(5))
flat("cumprod", whole(7, low=1, high=3))
flat("nancumsum", with_nan(3, 4), axis=1)
flat("nancumprod", with_nan(2, 4), axis=1)
row("moments", normal(4, 3, 2), (0, 1))
row("moments", normal(4, 3), 0, keepdims=True)

# Movement --------------------------------------------------------------------------------------------------------
row("reshape", normal(3, 4), (2, -1))
row("ravel", normal(3, 4))
row("expand_dims", normal(3, 4), 1)
row("expand_dims", normal(3, 4), (0, -1))
row("squeeze", normal(3, 1, 4, 1))
row("squeeze", normal(3, 1, 4, 1), axis=1)
row("broadcast_to", normal(3, 1), (2, 3, 4))
row("transpose", normal(2, 3, 4))
row("transpose", normal(2, 3, 4), (1, 2, 0))
row("swapaxes", normal(2, 3, 4), 0, -1)
row("moveaxis", normal(2, 3, 4), 0, -1)
row("moveaxis", normal(2, 3, 4), (0, 1), (-1, 0))
row("flip", normal(2, 3))
row("flip", normal(2, 3), axis=1)
row("fliplr", normal(2, 3))
row("flipud", normal(2, 3))
for k in range(4):
    row("rot90", normal(2, 3), k)
row("rot90", normal(2, 3, 4), 1, (1, 2))
row("roll", normal(3, 4), 2)
row("roll", normal(3, 4), -1, axis=1)
row("roll", normal(3, 4), (1, 2), axis=(0, 1))
row("concatenate", [normal(2, 3), normal(2, 1)], axis=1)
flat("concatenate", [whole(2, 3), normal(1, 3)])
row("stack", [normal(2, 3), normal(2, 3)], axis=1)
row("hstack", [normal(2, 3), normal(2, 1)])
row("vstack", [normal(3), normal(3)])
row("dstack", [normal(2, 3), normal(2, 3)])
row("append", normal(2, 3), normal(4))
row("append", normal(2, 3), normal(1, 3), axis=0)
row("split", normal(6, 2), 3)
row("split", normal(7, 2), (2, 5))
row("array_split", normal(7, 2), 3)
row("hsplit", normal(3, 4), 2)
row("vsplit", normal(4, 3), 2)
row("dsplit", normal(2, 3, 4), 2)
row("repeat", normal(2, 3), 2)
row("repeat", normal(2, 3), 3, axis=1)
row("repeat", normal(3, 2), np.array([1, 0, 2]), axis=0, static=True)
row("tile", normal(2, 3), (2, 2))
row("tile", normal(2, 3), (3, 1, 2))
row("meshgrid", normal(3), normal(2))
row("meshgrid", normal(3), normal(2), normal(4), indexing="ij")
row("pad", normal(2, 3), ((1, 2), (0, 1)))
row("pad", normal(2, 3), 1, mode="constant", constant_values=2.5)
for mode in ("edge", "reflect", "symmetric", "wrap"):
    row("pad", normal(3, 4), ((2, 1), (1, 3)), mode=mode)
for mode in ("maximum", "minimum", "mean", "median", "linear_ramp"):
    row("pad", distinct(3, 4), ((2, 1), (1, 3)), mode=mode, oracle=np.pad)
row("rearrange", normal(4, 6), "b (h w) -> h b w", h=2)
for data_format in ("channels_last", "channels_first"):
    row("depth_to_space", normal(2, 8, 4, 8), 2, data_format=data_format)
    row("space_to_depth", normal(2, 4, 4, 4), 2, data_format=data_format)

# Creation --------------------------------------------------------------------------------------------------------
for name in ("zeros", "ones", "empty"):
    flat(name, (2, 3), oracle=None if name != "empty" else lambda shape: np.zeros(shape, np.float32))
    flat(name + "_like", whole(2, 3), oracle=None if name != "empty" else lambda x: np.zeros_like(x))
flat("zeros", 3, dtype="int32")
flat("ones_like", normal(2, 3), dtype="int32")
flat("full", (2, 3), 1.5)
flat("full", (2,), 3, dtype="int32")
flat("full_like", normal(2, 3), 2.0)
for args in ((5,), (2, 9), (1.0, 3.0, 0.5), (10, 0, -3), (2, 2)):
    flat("arange", *args)
flat("arange", 5, dtype="float32")
row("linspace", np.float32(0.0), np.float32(1.0), num=5)
row("linspace", normal(2), normal(2), num=4, endpoint=False, axis=1)
flat("linspace", 0.0, 1.0, num=5, retstep=True, dtypes=False, why="Keras on NumPy: the step in float64")
flat("logspace", 0.0, 2.0, num=5, atol=1e-3)
flat("geomspace", 1.0, 100.0, num=5, atol=1e-3)
flat("eye", 3, 4, 1)
flat("eye", 3, dtype="int32")
flat("identity", 3)
flat("tri", 3, 4, -1)
row("tril", normal(2, 3, 4), 1)
row("triu", normal(2, 3, 4), -1)
for k in (-1, 0, 2):
    row("diag", normal(3), k)
    row("diag", normal(3, 4), k)
    row("diagonal", normal(3, 4, 2), k, 0, 1)
row("diagonal", normal(3, 4, 2), 1, -1, 0)
row("diagflat", normal(2, 2), 1)
row("vander", normal(3), 4)
row("vander", normal(3), increasing=True)
for name in ("bartlett", "blackman", "hamming", "hanning"):
    flat(name, 7)
    flat(name, 1)
flat("kaiser", 7, 3.5)

# Picking ---------------------------------------------------------------------------------------------------------
row("take", normal(4, 3), np.array([[0, 2], [-1, 1]]))
row("take", normal(4, 3, 2), np.array([[0, 2], [-1, 1]]), axis=1)
row("take", normal(4, 3), 1, axis=0)
row("take_along_axis", normal(4, 3), whole(4, 2, low=-3, high=3), axis=1)
row("take_along_axis", normal(4, 3), whole(1, 3, low=0, high=4), axis=0)
row("take_along_axis", normal(4, 3), whole(5, low=0, high=12))
row("where", truth(3, 4), normal(3, 4), normal(4))
flat("where", truth(3, 4), traced=False, dtypes=False, why="Keras on NumPy: int64 places")
flat("where", truth(3), whole(3), 1.5)
row("select", [truth(3), truth(3)], [normal(3), normal(3)], 1.5)
flat("nonzero", whole(3, 4, low=0, high=2), traced=False)
for name in ("argmax", "argmin", "nanargmax", "nanargmin"):
    x = with_nan(4, 4) if name.startswith("nan") else distinct(4, 4)
    flat(name, x)
    flat(name, x, axis=1)
    flat(name, x, axis=0, keepdims=True)
flat("isin", whole(3, 4), whole(5))
flat("isin", whole(3, 4), whole(5), invert=True)
flat("one_hot", whole(3, 2, low=-1, high=4), 4)
flat("one_hot", whole(3, 2, low=0, high=4), 4, axis=1, dtype="int32")
flat("multi_hot", whole(3, 2, low=0, high=4), 4)
flat("multi_hot", whole(3, low=0, high=4), 4)
flat("unravel_index", np.array([3, 7, 11]), (3, 4), dtypes=False, why="Keras on NumPy gives the indices' own type")
row("get_item", normal(3, 4), (slice(1, None), 2))
for name in ("segment_sum", "segment_max", "segment_min", "segment_prod"):
    row(name, distinct(6, 2), np.array([0, 2, 2, 0, 1, 1]), num_segments=3)
    flat(name, distinct(6), np.array([0, 2, -1, 0, 2, 0]), num_segments=4)
row("segment_sum", normal(4), np.array([0, 0, 1, 2]), traced=False)

# Sorting ---------------------------------------------------------------------------------------------------------
row("sort", distinct(3, 5))
row("sort", distinct(3, 5), axis=0)
flat("sort", whole(7))
flat("argsort", distinct(3, 5))
flat("argsort", distinct(3, 5), axis=0)
flat("argpartition", distinct(7), 2, oracle=lambda x, kth: np.argsort(x).astype(np.int32))
row(
    "top_k",
    distinct(3, 5),
    2,
    shown=lambda r: (r[0], r[1].astype(np.int32)),
    dtypes=False,
    why="Keras on NumPy: int64 places",
)
flat("in_top_k", np.array([1, 0, 2]), distinct(3, 4), 2)
for q in (0.3, np.array([0.1, 0.5, 0.9], np.float32)):
    row("quantile", distinct(3, 5), q, axis=1, static=True)
    row("nanquantile", with_nan(3, 5), q, axis=1, static=True, gradient=False)
for method in ("lower", "higher", "midpoint", "nearest"):
    row("quantile", distinct(3, 4), 0.4, method=method)
row("quantile", distinct(3, 4, 2), 0.25, axis=(0, 2), keepdims=True)
row("percentile", distinct(3, 5), 30.0, axis=0)
row("nanpercentile", with_nan(3, 5), 30.0, axis=0, gradient=False)
row("nanquantile", with_nan(3, 5), 0.6, axis=1, method="lower", gradient=False)
for side in ("left", "right"):
    flat("searchsorted", np.sort(whole(7)), whole(3, 4), side=side)
flat("searchsorted", np.sort(normal(6)), normal(5))
flat("digitize", normal(5), np.array([-1.0, 0.0, 1.0], np.float32))
flat("bincount", whole(7, low=0, high=4), traced=False)
flat("bincount", whole(7, low=0, high=4), minlength=6)
flat(
    "bincount",
    whole(7, low=0, high=4),
    weights=normal(7),
    minlength=5,
    dtypes=False,
    why="Keras: float64 for int32 with float32",
)
flat("bincount", whole(2, 7, low=0, high=4), minlength=4)
flat("histogram", normal(20), 5, dtypes=False, why="Keras on NumPy: int64 counts")
flat("histogram", normal(20), 5, range=(-1.0, 1.0), dtypes=False, why="Keras on NumPy: int64 counts")
flat("unique", whole(7), traced=False)
flat(
    "unique",
    whole(7),
    return_index=True,
    return_inverse=True,
    return_counts=True,
    traced=False,
    dtypes=False,
    why="int64",
)
flat("unique", whole(3, 2, low=0, high=2), axis=0, traced=False)

# Products --------------------------------------------------------------------------------------------------------
for a, b in (
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (3, 4, 2)),
):
    row("matmul", normal(*a), normal(*b))
row("dot", normal(3, 4), normal(4, 2))
row("dot", normal(2, 3, 4), normal(5, 4, 2))
row("dot", normal(3), normal(3))
row("vdot", normal(3, 2), normal(3, 2))
row("inner", normal(2, 3), normal(4, 3))
row("outer", normal(2), normal(3))
row("tensordot", normal(2, 3, 4), normal(3, 4, 5))
row("tensordot", normal(2, 3, 4), normal(4, 5, 2), axes=((0, 2), (2, 0)))
row("tensordot", normal(2), normal(3), axes=0)
row("kron", normal(2, 3), normal(3, 2))
row("kron", normal(2), normal(3, 2))
row("cross", normal(4, 3), normal(4, 3))
row("cross", normal(3, 4), normal(3, 4), axis=0)
row("trace", normal(3, 4))
row("trace", normal(2, 3, 4), 1, 1, 2)
row("cdist", normal(3, 4), normal(2, 4))
for mode in ("valid", "same", "full"):
    for sizes in ((6, 3), (6, 4), (3, 6), (3, 7), (4, 7), (5, 5)):
        row("correlate", normal(sizes[0]), normal(sizes[1]), mode)
flat("correlate", whole(6), whole(3), "full")
row("corrcoef", normal(3, 6))
row("diff", normal(3, 5))
row("diff", normal(3, 5), 2, axis=0)
flat("diff", truth(6))
row("trapezoid", normal(3, 5))
row("trapezoid", normal(3, 5), dx=0.3, axis=0)
row("trapezoid", normal(3, 5), normal(5))
for subscripts, shapes in (
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("ii->i", ((3, 3),)),
    ("ii", ((3, 3),)),
    ("ij->ji", ((2, 3),)),
    ("ij->", ((2, 3),)),
    ("i,j->ij", ((2,), (3,))),
    ("ij,ij->i", ((2, 3), (2, 3))),
    ("b...i,ij->b...j", ((2, 3, 4), (4, 5))),
    ("...ij,...jk->...ik", ((2, 1, 3, 4), (5, 4, 2))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
    ("ij,kl->", ((2, 3), (3, 2))),
    ("abc,cd,ad->b", ((2, 3, 4), (4, 5), (2, 5))),
    ("iij,j->i", ((3, 3, 2), (2,))),
    ("bqhd,bkhd->bhqk", ((2, 3, 2, 4), (2, 5, 2, 4))),
    ("...->...", ((2, 3),)),
    ("ij,j->ji", ((2, 3), (3,))),
):
    row("einsum", subscripts, *(normal(*shape) for shape in shapes))
flat("einsum", "ij,jk->ik", whole(2, 3), whole(3, 2))

# Linear algebra --------------------------------------------------------------------------------------------------
row("cholesky", spd(4, 2), gradient=False)
row("cholesky", spd(3), upper=True, gradient=False)
row("cholesky_inverse", np.linalg.cholesky(spd(3)).astype(np.float32), gradient=False)
row("det", spd(3, 2), atol=1e-3)
row("det", normal(4, 4))
row("inv", spd(3, 2))
row("logdet", spd(4))
row("slogdet", normal(4, 4), oracle=lambda x: tuple(np.asarray(v, np.float32) for v in np.linalg.slogdet(x)))
row("slogdet", spd(3, 2) - 1.5, oracle=lambda x: tuple(np.asarray(v, np.float32) for v in np.linalg.slogdet(x)))
row("solve", spd(3), normal(3))
row("solve", spd(3, 2), normal(2, 3, 2))
row("solve", normal(4, 4), normal(4, 2), atol=1e-4)
row("solve_triangular", np.triu(spd(3)), normal(3))
row("solve_triangular", np.tril(spd(3, 2)), normal(2, 3, 2), lower=True)
row("norm", normal(2, 3, 4))
row("norm", normal(3, 4), ord="fro", keepdims=True)
for order in (None, 1, 2, 3, np.inf, -np.inf, 0.5):
    row("norm", distinct(3, 4), ord=order, axis=1)
flat("norm", whole(3, 4), ord=0, axis=1)
for order in ("nuc", 1, -1, 2, -2, np.inf, -np.inf):
    row("norm", distinct(3, 4), ord=order)
row("norm", normal(2, 3, 4), ord=1, axis=(0, 2), keepdims=True)


def product(r: Any) -> Any:
    """What is unique of factors: their product, and the orthogonality of each."""
    q, rest = r[0], r[1]
    return (q @ rest, np.swapaxes(q, -1, -2) @ q)


row("qr", normal(4, 3), shown=product, gradient=False)
row("qr", normal(2, 3, 4), shown=product, gradient=False)
row("qr", normal(4, 2), mode="complete", shown=product, gradient=False)
row(
    "svd",
    normal(4, 3),
    shown=lambda r: (r[1], (r[0][:, :3] * r[1]) @ r[2], r[0].T @ r[0], r[2].T @ r[2]),
    gradient=False,
)
row("svd", normal(2, 3, 5), full_matrices=False, shown=lambda r: (r[1], (r[0] * r[1][:, None]) @ r[2]), gradient=False)
row("svd", normal(4, 3), compute_uv=False)
row("eigh", spd(4), shown=lambda r: (r[0], (r[1] * r[0]) @ r[1].T), gradient=False, atol=1e-4)
flat("lu_factor", normal(4, 4))
flat("lu_factor", normal(2, 3, 3))
row("lstsq", normal(5, 3), normal(5))
row("lstsq", normal(5, 3), normal(5, 2))
row("pinv", normal(5, 3))
flat("matrix_rank", np.outer(normal(4), normal(3)).astype(np.float32))


def on_simplex(x: np.ndarray) -> np.ndarray:
    """The nearest points with sum 1, by their definition. (Keras 3.15 adds up the wrong sums here.)"""
    from scipy.optimize import brentq

    levels = [brentq(lambda t, r=r: np.maximum(r - t, 0).sum() - 1, r.min() - 1, r.max()) for r in x]
    return np.maximum(x - np.array(levels)[:, None], 0).astype(np.float32)


# Activations -----------------------------------------------------------------------------------------------------
for name in (
    "relu",
    "relu6",
    "leaky_relu",
    "sigmoid",
    "log_sigmoid",
    "softplus",
    "softsign",
    "silu",
    "swish",
    "gelu",
    "elu",
    "selu",
    "celu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "hard_shrink",
    "soft_shrink",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh_shrink",
    "glu",
    "softmax",
    "log_softmax",
):
    row(name, normal(3, 4) * 2)
row("gelu", normal(3, 4), approximate=False)
row("threshold", normal(3, 4), 0.3, -2.0)
row("elu", normal(3, 4), alpha=0.5)
row("softmax", normal(2, 3, 4), axis=1)
row("softmax", normal(2, 3, 4), axis=(1, 2))
row("log_softmax", normal(2, 3, 4), axis=0)
row("sparsemax", normal(3, 4), oracle=lambda x: on_simplex(x))
row("sparsemax", normal(4, 3), axis=0, oracle=lambda x, axis: on_simplex(x.T).T)
row("glu", normal(4, 3), axis=0)
flat("relu", whole(3, 4))
row("normalize", normal(3, 4))
row("normalize", normal(3, 4), axis=0, order=3)
row("layer_normalization", normal(3, 4), positive(4), normal(4))
row("layer_normalization", normal(2, 3, 4), axis=(1, 2), epsilon=1e-3)
row("rms_normalization", normal(3, 4), positive(4))
row("batch_normalization", normal(3, 2, 4), normal(4), positive(4), -1, normal(4), positive(4))
row("batch_normalization", normal(3, 4, 2), normal(4), positive(4), 1)
row("psnr", normal(3, 4), normal(3, 4), 2.0)

# Losses ----------------------------------------------------------------------------------------------------------
probabilities = np.exp(normal(3, 4)) / np.exp(normal(3, 4)).sum(-1, keepdims=True)
row("binary_crossentropy", R.uniform(0, 1, (3, 4)).astype(np.float32), R.uniform(0.1, 0.9, (3, 4)).astype(np.float32))
row("binary_crossentropy", R.uniform(0, 1, (3, 4)).astype(np.float32), normal(3, 4), from_logits=True)
row("categorical_crossentropy", np.eye(4, dtype=np.float32)[[0, 3, 1]], probabilities)
row("categorical_crossentropy", np.eye(4, dtype=np.float32)[[0, 3, 1]], normal(3, 4), from_logits=True)
row("categorical_crossentropy", positive(4, 3), normal(4, 3), from_logits=True, axis=0)
row("sparse_categorical_crossentropy", np.array([0, 3, 1]), probabilities)
row("sparse_categorical_crossentropy", np.array([0, 3, 1]), normal(3, 4), from_logits=True)
row("ctc_loss", whole(2, 3, low=1, high=5), normal(2, 8, 5), np.array([3, 2]), np.array([8, 6]), atol=1e-4)
row(
    "ctc_loss",
    np.array([[1, 1, 2], [2, 2, 2]], np.int32),
    normal(2, 7, 4),
    np.array([3, 3]),
    np.array([7, 7]),
    atol=1e-4,
)
flat("ctc_decode", normal(2, 7, 4), np.array([7, 5]))
flat("ctc_decode", normal(2, 7, 4), np.array([7, 5]), merge_repeated=False, mask_index=3)
flat(
    "ctc_decode",
    normal(2, 5, 3),
    np.array([5, 4]),
    strategy="beam_search",
    beam_width=40,
    top_paths=2,
    mask_index=0,
    traced=False,
)
q, k, v = normal(2, 3, 2, 4), normal(2, 5, 2, 4), normal(2, 5, 2, 4)
row("dot_product_attention", q, k, v)
row("dot_product_attention", q, k, v, bias=normal(2, 2, 3, 5), scale=0.3)
row("dot_product_attention", q, k, v, mask=np.array(R.uniform(size=(2, 1, 3, 5)) < 0.7))
row("dot_product_attention", q, q, q, is_causal=True)


def pool_with_strides(x: np.ndarray, size: int, strides: Any = None, *rest: Any) -> Any:
    """Keras on NumPy mixes up strides that are not given."""
    return keras_function("max_pool")(x, size, size, *rest)


# Convolution -----------------------------------------------------------------------------------------------------
for padding in ("valid", "same"):
    row("conv", normal(2, 7, 3), normal(3, 3, 4), 2, padding)
    row("conv", normal(2, 6, 5, 4), normal(3, 2, 2, 4), (1, 2), padding)
    row("conv", normal(2, 4, 6, 5), normal(3, 2, 4, 3), 2, padding, "channels_first")
    row("conv", normal(1, 5, 6, 4, 2), normal(2, 3, 2, 2, 3), 1, padding)
    row("conv", normal(2, 7, 7, 2), normal(3, 3, 2, 3), 1, padding, dilation_rate=2)
    row("depthwise_conv", normal(2, 6, 5, 3), normal(3, 2, 3, 2), 2, padding)
    row("depthwise_conv", normal(2, 3, 6), normal(3, 3, 1), 1, padding, "channels_first")
    row("separable_conv", normal(2, 6, 5, 3), normal(3, 2, 3, 2), normal(1, 1, 6, 4), 1, padding)
    for size, stride in ((3, 2), (2, 3), (4, 2), (3, 1), (1, 2)):
        row("conv_transpose", normal(2, 4, 3), normal(size, 2, 3), stride, padding)
    row("conv_transpose", normal(1, 3, 4, 2), normal(3, 2, 3, 2), (2, 1), padding)
    row("conv_transpose", normal(1, 2, 3, 4), normal(3, 2, 3, 2), 2, padding, data_format="channels_first")
    row("conv_transpose", normal(1, 4, 3), normal(3, 2, 3), 1, padding, dilation_rate=2)
    row("conv_transpose", normal(1, 4, 3), normal(3, 2, 3), 3, padding, output_padding=1)
    row("max_pool", distinct(2, 7, 6, 3), 3, 2, padding)
    row("max_pool", distinct(2, 3, 7), 2, None, padding, "channels_first", oracle=pool_with_strides)
    row("average_pool", normal(2, 7, 6, 3), (3, 2), 2, padding)
    row("average_pool", normal(2, 3, 7), 2, 1, padding, "channels_first")
row("max_pool", distinct(1, 4, 4, 4, 2), 2, oracle=pool_with_strides)
for name in ("adaptive_average_pool", "adaptive_max_pool"):
    row(name, distinct(2, 7, 6, 3), (3, 2))
    row(name, distinct(2, 3, 7), 3, "channels_first")
row("unfold", normal(2, 3, 5, 6), (2, 3), stride=2, padding=1)
row("unfold", normal(1, 2, 6, 6), 2, dilation=2)
row("fold", normal(2, 18, 9), (5, 6), (2, 3), padding=1, stride=2)

# Fourier ---------------------------------------------------------------------------------------------------------
for name in ("fft", "fft2", "ifft2"):
    row(name, (normal(3, 8), normal(3, 8)), atol=1e-4)
row("rfft", normal(3, 7))
row("rfft", normal(3, 8), 5)
row("rfft", normal(3, 5), 8)
row("irfft", (normal(3, 5), normal(3, 5)))
row("irfft", (normal(3, 5), normal(3, 5)), 9)
row("irfft", (normal(3, 5), normal(3, 5)), 6)
row("stft", normal(2, 40), 8, 4, 10)
row("stft", normal(40), 8, 3, 8, window="hamming", center=False)
row("stft", normal(40), 8, 3, 8, window=None)
row("istft", (normal(2, 9, 5), normal(2, 9, 5)), 8, 4, 8, gradient=False)
row("istft", (normal(9, 6), normal(9, 6)), 8, 4, 10, length=30, gradient=False)
row("extract_sequences", normal(2, 20), 6, 4)

# Pieces ----------------------------------------------------------------------------------------------------------
row("array", [[1.0, 2.0], [3.0, 4.0]], gradient=False)
row("convert_to_tensor", normal(2, 3))
flat("convert_to_tensor", [1, 2], dtype="float32")
row("cast", normal(3), "float16", gradient=False)
flat("cast", normal(3) * 3, "int32")
flat("saturate_cast", np.array([-300.0, 2.7, 300.0], np.float32), "uint8")
flat("saturate_cast", np.array([-300, 2, 300], np.int32), "int8")
flat("view", normal(3), "int32")
flat("size", normal(3, 4), traced=False, dtypes=False, why="a number")
row("stop_gradient", normal(3), gradient=False)
row("slice", normal(4, 5), (1, 2), (2, 3), static=True)
row("slice_update", normal(4, 5), (1, 2), normal(2, 3))
row("scatter", np.array([[0, 1], [2, 0], [0, 1]]), normal(3), (3, 2))
for reduction in (None, "add", "max", "min", "mul"):
    row("scatter_update", distinct(4, 3), np.array([[0, 1], [3, 2]]), distinct(2) + 0.01, reduction=reduction)
row("scatter_update", normal(4, 3), np.array([[1], [3]]), normal(2, 3), reduction="mul")
row("unstack", normal(3, 2), axis=1)

# Images ----------------------------------------------------------------------------------------------------------
for interpolation in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
    row("image.resize", normal(2, 5, 6, 3), (7, 4), interpolation)
    row("image.resize", normal(9, 8, 2), (4, 3), interpolation, antialias=True)
row("image.resize", normal(2, 3, 8, 6), (4, 4), crop_to_aspect_ratio=True, data_format="channels_first")
row("image.resize", normal(8, 6, 2), (4, 4), pad_to_aspect_ratio=True, fill_value=2.0)
flat("image.resize", whole(2, 5, 6, 3, low=0, high=255).astype(np.uint8), (7, 9), "bicubic")
row("image.crop_images", normal(2, 6, 7, 3), 1, 2, target_height=3, target_width=4)
row("image.pad_images", normal(6, 7, 3), 1, 2, target_height=9, target_width=12)
row("image.extract_patches", normal(2, 6, 7, 3), (2, 3), strides=2, padding="same")
row("image.extract_patches", normal(6, 7, 3), 3)
row("image.extract_patches_3d", normal(1, 4, 4, 5, 2), 2)
row("image.rgb_to_grayscale", normal(2, 4, 5, 3))
row("image.rgb_to_grayscale", normal(3, 4, 5), data_format="channels_first")
row("image.rgb_to_hsv", positive(2, 4, 5, 3) / 2)
row("image.hsv_to_rgb", R.uniform(0.05, 0.95, (2, 4, 5, 3)).astype(np.float32))
turn = np.array(
    [[0.93, -0.31, 1.33, 0.21, 1.13, -0.64, 0, 0], [1.17, 0.13, -1.113, 0.33, 0.71, 0.642, 0, 0]], np.float32
)
for mode in ("constant", "nearest", "wrap", "mirror", "reflect"):
    row("image.affine_transform", normal(2, 5, 6, 2), turn, fill_mode=mode, atol=1e-4)
    row(
        "image.map_coordinates", normal(5, 6), R.uniform(-4, 9, (2, 7)).astype(np.float32), 1, fill_mode=mode, atol=1e-4
    )
    row(
        "image.map_coordinates",
        normal(5, 6),
        R.uniform(-4, 9, (2, 7)).astype(np.float32),
        0,
        fill_mode=mode,
        gradient=False,
    )
row("image.affine_transform", normal(5, 6, 2), turn[0], "nearest", fill_value=3.0, gradient=False)
corners = np.array([[0, 0], [5, 0], [0, 4], [5, 4]], np.float32)
row(
    "image.perspective_transform",
    normal(2, 5, 6, 2),
    corners,
    corners + R.uniform(0, 0.5, (4, 2)).astype(np.float32),
    gradient=False,
    atol=1e-4,
)
row("image.gaussian_blur", normal(2, 6, 7, 2), (3, 5), (0.8, 1.2))
row("image.sobel_edges", normal(2, 6, 7, 2))
row("image.ssim", positive(2, 12, 13, 2), positive(2, 12, 13, 2), atol=1e-4)
row(
    "image.scale_and_translate",
    normal(5, 6, 2),
    (7, 8, 2),
    np.array([1.3, 0.8], np.float32),
    np.array([0.2, 0.5], np.float32),
    (0, 1),
    "cubic",
    static=True,
)

# Functions of functions have tests of their own, and so have random numbers.
ELSEWHERE = {"cond", "switch", "scan", "while_loop", "fori_loop", "map", "vectorized_map", "associative_scan"}


# The tests -------------------------------------------------------------------------------------------------------
def keras_function(name: str) -> Callable[..., Any]:
    found: Any = pytest.importorskip("keras").ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def as_arrays(result: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in tree.leaves(result)]


def copied(value: Any) -> Any:
    return tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, value)


def label(r: Row) -> str:
    parts = [str(a.shape).replace(" ", "") if isinstance(a, np.ndarray) else str(a)[:12] for a in r.args]
    return f"{r.name}-{'-'.join(parts)}-{'-'.join(f'{k}={str(v)[:12]}' for k, v in r.kwargs.items())}"


IDS = [f"{i:03}-{label(r)}" for i, r in enumerate(ROWS)]


def test_every_function_has_a_row() -> None:
    covered = {r.name for r in ROWS} | ELSEWHERE
    missing = [name for name in ops.OPS if name not in covered and not name.startswith("random.")]
    assert missing == []


@pytest.mark.parametrize("r", ROWS, ids=IDS)
def test_values(r: Row) -> None:
    """Equal to Keras (or another oracle): values, shape, type."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the oracle has to say about its own arithmetic
        expected = (r.oracle or keras_function(r.name))(*copied(list(r.args)), **copied(r.kwargs))
    found = ops.OPS[r.name](*r.args, **r.kwargs)
    if r.shown is not None:
        expected = r.shown([np.asarray(leaf) for leaf in tree.leaves(expected)])
        found = r.shown([np.asarray(leaf) for leaf in tree.leaves(found)])
    wanted, got = as_arrays(expected), as_arrays(found)
    assert len(wanted) == len(got)
    for a, b in zip(wanted, got, strict=True):
        assert a.shape == b.shape
        if r.dtypes and r.shown is None and r.oracle is None:
            assert a.dtype == b.dtype
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=1e-5, atol=r.atol)


@pytest.mark.parametrize(
    "r", [r for r in ROWS if r.traced], ids=[i for r, i in zip(ROWS, IDS, strict=True) if r.traced]
)
def test_compiled_is_eager(r: Row) -> None:
    """The traced program computes what the functions compute one by one; to the bit, but where a compiler reorders."""
    leaves, structure = tree.flatten([list(r.args), r.kwargs])
    places = [i for i, v in enumerate(leaves[: 1 if r.static else None]) if isinstance(v, np.ndarray)]

    def run(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            filled[i] = array
        args, kwargs = tree.unflatten(structure, filled)
        return ops.OPS[r.name](*args, **kwargs)

    found = hl.jit(run)([leaves[i] for i in places])
    for a, b in zip(as_arrays(ops.OPS[r.name](*r.args, **r.kwargs)), as_arrays(found), strict=True):
        assert a.dtype == b.dtype
        if hl.config.backend() == "numpy" or a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=r.atol)


def differentiable(r: Row) -> bool:
    return r.gradient and any(
        isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" for leaf in tree.leaves([list(r.args), r.kwargs])
    )


GRADIENT_ROWS = [(r, i) for r, i in zip(ROWS, IDS, strict=True) if differentiable(r)]


@pytest.mark.parametrize("r", [r for r, _ in GRADIENT_ROWS], ids=[i for _, i in GRADIENT_ROWS])
def test_gradient(r: Row) -> None:
    """First and second derivative along random directions, in float64, against differences."""
    leaves, structure = tree.flatten([list(r.args), r.kwargs])
    limit = 1 if r.static else len(leaves)
    places = [i for i, v in enumerate(leaves[:limit]) if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    start = [np.asarray(leaves[i], np.float64) for i in places]
    rng = np.random.default_rng(zlib.crc32(r.name.encode()))
    directions = [rng.standard_normal(x.shape) for x in start]
    weights: list[np.ndarray] = []

    def scalar(*values: Any) -> Any:
        filled = list(leaves)
        for i, value in zip(places, values, strict=True):
            filled[i] = value
        args, kwargs = tree.unflatten(structure, filled)
        results = [y for y in tree.leaves(ops.OPS[r.name](*args, **kwargs)) if y.dtype.is_float]
        if not weights:
            weights.extend(rng.standard_normal(y.shape) for y in results)
        return sum((ops.sum(y * w) for y, w in zip(results, weights, strict=True)), start=ops.zeros((), "float64"))

    def slope(*values: Any) -> Any:
        g = hl.grad(scalar, argnums=tuple(range(len(places))))(*values)
        return sum((ops.sum(a * d) for a, d in zip(g, directions, strict=True)), start=ops.zeros((), "float64"))

    def difference(function: Callable[..., Any], step: float) -> float:
        ends = [float(function(*(x + s * step * d for x, d in zip(start, directions, strict=True)))) for s in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    step = 1e-6
    first = float(slope(*start))
    scale = max(1.0, abs(first))
    assert abs(first - difference(scalar, step)) < 2e-5 * scale
    second = hl.grad(lambda *values: slope(*values), argnums=tuple(range(len(places))))(*start)
    curvature = float(sum(np.sum(np.asarray(a) * d) for a, d in zip(second, directions, strict=True)))
    assert abs(curvature - difference(slope, step)) < 1e-4 * max(1.0, abs(curvature), scale)
