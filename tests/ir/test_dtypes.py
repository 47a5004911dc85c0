"""Data types against JAX's promotion lattice and NumPy's dtypes."""

from __future__ import annotations

import copy
import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest

from highlevel.errors import DTypeError
from highlevel.ir import as_dtype, dtypes
from highlevel.ir.dtypes import ALL, DType, holds_kind, promote, promote_scalar, to_float


def test_promotion_is_that_of_jax() -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        for a, b in itertools.product(ALL, ALL):
            theirs = np.dtype(jax.numpy.promote_types(a.numpy, b.numpy))
            if "uint64" in (a.name, b.name) and "int" in (a.kind, b.kind):
                assert theirs == np.float64
                assert promote(a, b) is dtypes.float32  # never silently float64
            else:
                assert promote(a, b).numpy == theirs, (a, b)


def test_promotion_with_python_numbers_is_that_of_jax() -> None:
    jax = pytest.importorskip("jax")
    for dtype in ALL:
        if dtype.size_bytes == 8:
            continue  # JAX has these only in its 64-bit mode
        for number in (True, 2, 2.5):
            theirs = np.dtype(jax.dtypes.result_type(np.zeros((), dtype.numpy), number))
            assert promote_scalar(dtype, number).numpy == theirs, (dtype, number)


@pytest.mark.parametrize("number", [True, 2, 2.5])
def test_python_numbers_keep_wide_types(number: float) -> None:
    assert promote_scalar(dtypes.float64, number) is dtypes.float64
    assert promote_scalar(dtypes.int64, int(number)) is dtypes.int64


def test_promotion_is_a_join() -> None:
    for a, b, c in itertools.product(ALL, ALL, ALL):
        assert promote(a, b) is promote(b, a)
        mixed = {d.name for d in (a, b, c)}
        if "uint64" not in mixed:  # its exception gives associativity up
            assert promote(promote(a, b), c) is promote(a, promote(b, c)), (a, b, c)
    assert all(promote(a, a) is a for a in ALL)


def test_float64_comes_from_float64_only() -> None:
    for a, b in itertools.product(ALL, ALL):
        if promote(a, b) is dtypes.float64:
            assert dtypes.float64 in (a, b)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("float32", "float32"),
        (np.float16, "float16"),
        (np.dtype("int8"), "int8"),
        (ml_dtypes.bfloat16, "bfloat16"),
        ("bfloat16", "bfloat16"),
        (float, "float32"),
        (int, "int32"),
        (bool, "bool"),
        ("float", "float32"),
        ("int", "int32"),
        ("bool", "bool"),
        (">f4", "float32"),
        (np.dtype(">i8"), "int64"),
        (np.longlong, "int64"),
    ],
)
def test_as_dtype(value: object, name: str) -> None:
    assert as_dtype(value) is dtypes.BY_NAME[name]
    assert as_dtype(as_dtype(value)) is as_dtype(value)


@pytest.mark.parametrize("value", [None, "float33", "complex64", object, np.complex128, "U3", 7, [], object()])
def test_what_is_not_a_type(value: object) -> None:
    with pytest.raises(DTypeError, match="is not a data type of this library"):
        as_dtype(value)


def test_misspelt_names_are_answered() -> None:
    with pytest.raises(DTypeError, match=r"did you mean .*'float32'"):
        as_dtype("float_32")


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_a_type_equals_its_name_and_numpys_type(dtype: DType) -> None:
    assert dtype == dtype.name
    assert dtype == dtype.numpy
    assert dtype == dtype.numpy.type
    assert dtype.name == dtype
    assert hash(dtype) == hash(dtype.name)
    assert str(dtype) == repr(dtype) == dtype.name
    assert dtype != "nothing"
    assert dtype != None  # noqa: E711  # NumPy would take None for float64
    assert dtype.size_bytes == np.empty(1, dtype.numpy).nbytes


def test_types_are_one_object_each() -> None:
    for dtype in ALL:
        assert pickle.loads(pickle.dumps(dtype)) is dtype
        assert copy.deepcopy(dtype) is dtype


def test_kinds() -> None:
    assert [d.name for d in ALL if d.is_float] == ["float16", "bfloat16", "float32", "float64"]
    assert [d.name for d in ALL if d.is_bool] == ["bool"]
    assert len([d for d in ALL if d.is_integer]) == 8
    assert to_float(dtypes.int64) is dtypes.float32
    assert to_float(dtypes.bfloat16) is dtypes.bfloat16


def test_what_may_be_stored_is_numpys_same_kind_and_any_integer_in_any() -> None:
    for target, source in itertools.product(ALL, ALL):
        if dtypes.bfloat16 not in (target, source):
            numpys = np.can_cast(source.numpy, target.numpy, "same_kind")
            assert holds_kind(target, source) == (numpys or (target.kind, source.kind) == ("uint", "int"))
    assert holds_kind(dtypes.bfloat16, dtypes.float64)
    assert not holds_kind(dtypes.int64, dtypes.bfloat16)
