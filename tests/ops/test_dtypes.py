"""The types of results are Keras's, for all pairs of narrow types; 64-bit types stay, where Keras narrows them."""

from __future__ import annotations

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

from highlevel import ops

keras = pytest.importorskip("keras")

NARROW = ("bool", "uint8", "int8", "int16", "int32", "uint32", "float16", "bfloat16", "float32")
FLOATS = ("float16", "bfloat16", "float32")
ANY_TYPE = [
    "abs", "arccos", "arctan", "cbrt", "ceil", "cos", "cumprod", "cumsum", "deg2rad", "diff", "erfc", "erfinv",
    "exp", "exp2", "expm1", "fabs", "floor", "isfinite", "log", "log10", "log1p", "log2", "max", "mean", "median",
    "min", "nan_to_num", "nanmax", "nanmean", "nanmedian", "nanprod", "nanstd", "nansum", "prod", "sin", "sinc",
    "sort", "sqrt", "square", "std", "sum", "tanh", "trunc", "var", "angle", "argmax", "tril", "trace", "diag",
    "logical_not", "any", "count_nonzero", "zeros_like", "average", "norm",
]  # fmt: skip
FLOAT_ONLY = [
    "erf", "gelu", "elu", "selu", "silu", "sigmoid", "softmax", "log_softmax", "softplus", "softsign",
    "leaky_relu", "hard_sigmoid", "rms_normalization", "layer_normalization", "rsqrt", "reciprocal", "normalize",
    "relu6", "celu", "glu", "tanh_shrink", "squareplus", "log_sigmoid",
]  # fmt: skip
PAIRS = [
    "add", "multiply", "divide", "maximum", "minimum", "arctan2", "logaddexp", "matmul", "dot", "outer", "inner",
    "tensordot", "kron", "equal", "greater", "fmax", "vdot", "logical_and", "isclose", "true_divide", "mod",
    "fmod",
]  # fmt: skip


def ones(dtype: str, shape: tuple[int, ...] = (4, 4)) -> np.ndarray:
    return np.ones(shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def types(name: str, *args: np.ndarray) -> tuple[str, str]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = str(np.asarray(getattr(keras.ops, name)(*[a.copy() for a in args])).dtype)
    return str(getattr(ops, name)(*args).dtype), wanted


@pytest.mark.parametrize("name", ANY_TYPE)
def test_one_operand(name: str) -> None:
    for dtype in NARROW:
        found, wanted = types(name, ones(dtype))
        assert found == wanted, dtype


@pytest.mark.parametrize("name", FLOAT_ONLY)
def test_one_floating_operand(name: str) -> None:
    """NumPy gives integers types of their own here; ours become float32."""
    for dtype in FLOATS:
        found, wanted = types(name, ones(dtype))
        assert found == wanted, dtype
    assert str(getattr(ops, name)(ones("int32")).dtype) in ("float32", "int32")


@pytest.mark.parametrize("name", PAIRS)
def test_two_operands(name: str) -> None:
    without_uint32 = [dtype for dtype in NARROW if dtype != "uint32"]  # which meets signed integers in 64 bits
    for a, b in itertools.product(without_uint32, without_uint32):
        found, wanted = types(name, ones(a), ones(b))
        assert found == wanted, (a, b)


@pytest.mark.parametrize("scalar", [True, 2, 2.5])
@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "power", "divide", "subtract", "where"])
def test_python_numbers_are_weak(name: str, scalar: float) -> None:
    for dtype in NARROW[1:]:
        if name == "subtract" and scalar is True:
            continue  # NumPy has no difference of truths
        args = (np.ones((4, 4), bool),) if name == "where" else ()
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = str(np.asarray(getattr(keras.ops, name)(*args, ones(dtype), scalar)).dtype)
        assert str(getattr(ops, name)(*args, ones(dtype), scalar).dtype) == wanted, dtype


def test_wide_types_stay_wide() -> None:
    assert ops.sin(ones("float64")).dtype == "float64"
    assert ops.add(ones("int64"), ones("int32")).dtype == "int64"
    assert ops.add(ones("int64"), ones("float32")).dtype == "float32"
    assert ops.mean(ones("int64")).dtype == "float32"
