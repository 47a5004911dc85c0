"""Every elementwise record as machine code, beside the interpreter: values, types, targets."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel.backends.conformance import special_operands
from highlevel.backends.native.codegen.scalar import LlvmScalars, memory_type, register_type
from highlevel.backends.native.codegen.targets import Target, aarch64, assembly, compile_ir, host
from highlevel.backends.native.codegen.targets.symbols import foreign
from highlevel.backends.native.codegen.ufunc import loop_ir, ufunc
from highlevel.errors import HighlevelError
from highlevel.ir import REGISTRY, DType, Primitive, as_dtype, spec
from highlevel.ir.dtypes import ALL, FLOATS, bfloat16, float16, float32
from highlevel.ir.sample import Sample, mismatch
from highlevel.ir.scalar import NumpyScalars

RECORDS = [primitive for primitive in REGISTRY.values() if primitive.scalar is not None]
INTEGERS = [dtype for dtype in ALL if not dtype.is_float]
NOT_VECTORISED = {"floor_div", "mod", "bitcast"}  # which call a function of the module, or become memcpy
TARGETS: dict[str, Callable[[], Target]] = {
    "host": host,
    "no AVX-512": lambda: host(present("avx512f")),
    "SSE2": lambda: host(present("avx512f", "avx2", "fma", "f16c", "avx", "sse3", "ssse3", "sse4.1", "sse4.2")),
}


def present(*features: str) -> list[str]:
    """Those of the features that LLVM knows on this machine."""
    return [name for name in features if f"+{name}" in host(()).features.split(",") or f"-{name}" in host(()).features]


def formula(primitive: Primitive, attrs: dict[str, Any]) -> Callable[..., Any]:
    return lambda k, *x: primitive.scalar(k, *x, **attrs)  # type: ignore[misc]


def types(arrays: list[Any]) -> list[DType]:
    return [as_dtype(array.dtype) for array in arrays]


def compiled(primitive: Primitive, arrays: list[Any], attrs: dict[str, Any], target: Target | None = None) -> Any:
    return ufunc(formula(primitive, attrs), types(arrays), target)(*arrays)


def interpreted(primitive: Primitive, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(primitive.numpy(np, *arrays, **attrs))


def difference(got: Any, expected: Any) -> str | None:
    """Equal to the last bit, but for the sign of zero and the bits of NaN."""
    with np.errstate(all="ignore"):
        return mismatch(got, expected)


def cases(sample: Sample, dtype: DType) -> list[list[Any]]:
    drawn = [np.asarray(array) for array in sample.draw(np.random.default_rng(0), dtype)]
    return [drawn, special_operands(sample, dtype)] if sample.special else [drawn]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("primitive", RECORDS, ids=str)
def test_records_mean_what_the_interpreter_says(primitive: Primitive, target: str) -> None:
    for sample, dtype in itertools.product(primitive.samples, FLOATS):
        every = cases(sample, dtype)
        function = ufunc(formula(primitive, sample.attrs), types(every[0]), TARGETS[target]())
        for arrays in every:
            # Both are rounded results: two units in the last place of ours, as many of NumPy's.
            reason = mismatch(function(*arrays), interpreted(primitive, arrays, sample.attrs), 4.0, elementwise=True)
            assert reason is None, (dtype, reason)


def takes(primitive: Primitive, dtype: DType) -> bool:
    try:
        primitive.infer(*[spec((1,), dtype)] * len(primitive.samples[0].operands))
    except HighlevelError:
        return False
    return True


INTEGER_RECORDS = [
    (primitive, dtype)
    for primitive in RECORDS
    for dtype in INTEGERS
    if primitive.name not in ("select", "cast", "bitcast") and takes(primitive, dtype)
    if not (dtype.is_bool and primitive.name in ("shift_left", "shift_right"))  # NumPy makes them integers
]


def edges(dtype: DType) -> Any:
    if dtype.is_bool:
        return np.array([False, True])
    info, few = np.iinfo(dtype.numpy), [-9, -3, -2, -1, 0, 1, 2, 3, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100]
    ends = [info.min, info.min + 1, info.max - 1, info.max, info.max // 2]
    return np.array(sorted({value for value in few + ends if info.min <= value <= info.max}), dtype.numpy)


@pytest.mark.parametrize(("primitive", "dtype"), INTEGER_RECORDS, ids=str)
def test_integers_are_equal_at_all_edges(primitive: Primitive, dtype: DType) -> None:
    grid = np.meshgrid(*[edges(dtype)] * len(primitive.samples[0].operands))
    arrays = [array.reshape(-1) for array in grid]
    if primitive.name == "pow":  # the interpreter refuses negative exponents
        keep = arrays[1] >= 0
        arrays = [array[keep] for array in arrays]
    got, expected = compiled(primitive, arrays, {}), interpreted(primitive, arrays, {})
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["mod", "floor_div"])
def test_remainders_of_floats_are_equal_however_large_the_quotient(name: str, dtype: DType, target: str) -> None:
    rng, bits = np.random.default_rng(0), 8 * dtype.size_bytes
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -3.0, 2.5, 7.0, 0.1, -0.1])
    anything = [rng.integers(0, 1 << 63, 50_000).astype(f"u{bits // 8}").view(dtype.numpy) for _ in "ab"]
    ordinary = [rng.standard_normal(50_000) * 100, np.full(50_000, -3.0)]
    function = ufunc(formula(REGISTRY[name], {}), [dtype, dtype], TARGETS[target]())
    for pair in (np.meshgrid(special, special), anything, ordinary):
        with np.errstate(all="ignore"):
            a, b = (operand.reshape(-1).astype(dtype.numpy) for operand in pair)
        got, expected = function(a, b), interpreted(REGISTRY[name], [a, b], {})
        numeric = ~np.isnan(expected)
        assert np.isnan(got[~numeric]).all()
        np.testing.assert_array_equal(got[numeric], expected[numeric])
        np.testing.assert_array_equal(np.signbit(got)[numeric], np.signbit(expected)[numeric])


def test_integers_to_negative_powers_are_what_is_left_of_the_fraction() -> None:
    a = np.array([1, 1, -1, -1, 2, -3, 0], np.int32)
    b = np.array([-1, -2, -1, -2, -1, -3, -1], np.int32)
    assert compiled(REGISTRY["pow"], [a, b], {}).tolist() == [1, 1, -1, 1, 0, 0, 0]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_can_be_chosen(dtype: DType) -> None:
    a = edges(dtype)
    condition = np.arange(len(a)) % 3 == 0
    got = compiled(REGISTRY["select"], [condition, a, a[::-1]], {})
    np.testing.assert_array_equal(got, np.where(condition, a, a[::-1]))


# Conversion ----------------------------------------------------------------------------------------------------------
def numbers(dtype: DType) -> Any:
    """Values of a type where conversions go wrong: ends of all types, halfway cases, NaN and infinities."""
    rng = np.random.default_rng(0)
    if not dtype.is_float:
        return np.concatenate([edges(dtype), rng.integers(0, 2, 50).astype(dtype.numpy)])
    ends = [float(end) for d in INTEGERS[1:] for end in (np.iinfo(d.numpy).min, np.iinfo(d.numpy).max)]
    ends += [sign * (abs(end) + step) for end in ends for sign in (1, -1) for step in (-1, -0.5, 0.5, 1)]
    near = (0.0, 2.0**-40, -(2.0**-40))
    halves = [1 + k * 2.0**-e + tiny for k in range(8) for e in (8, 9, 11, 12, 24) for tiny in near]
    small = [k * 2.0**-e for k in range(40) for e in (26, 135)] + [65504.0, 65519.9, 65520.0, 65536.0]
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 1e38, 3.4e38, 5e-324]
    spread = rng.standard_normal(400) * np.exp(rng.uniform(-60, 60, 400))
    values = np.array([*ends, *halves, *small, *special, *spread])
    with np.errstate(all="ignore"):
        return np.concatenate([values, -values]).astype(dtype.numpy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts_between_all_types(source: DType, target: str) -> None:
    x = numbers(source)
    for dtype in ALL:
        got = compiled(REGISTRY["cast"], [x], {"dtype": dtype}, TARGETS[target]())
        expected = interpreted(REGISTRY["cast"], [x], {"dtype": dtype})
        assert got.dtype == expected.dtype
        assert difference(got, expected) is None, dtype
        if dtype.is_float:
            finite = ~np.isnan(expected)
            np.testing.assert_array_equal(np.signbit(got)[finite], np.signbit(expected)[finite])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", (float16, bfloat16), ids=str)
def test_half_types_are_loaded_stored_and_rounded_in_all_their_bits(dtype: DType, target: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    there = compiled(REGISTRY["cast"], [every], {"dtype": float32}, TARGETS[target]())
    np.testing.assert_array_equal(there, every.astype(np.float32))
    back = compiled(REGISTRY["cast"], [there], {"dtype": dtype}, TARGETS[target]())
    numeric = ~np.isnan(there)
    np.testing.assert_array_equal(back.view(np.uint16)[numeric], every.view(np.uint16)[numeric])
    assert np.isnan(back[~numeric]).all()
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 18, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits, (bits >> 13 << 13) | 0x1000, (bits >> 16 << 16) | 0x8000]).view(np.float32)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype.numpy)
    assert difference(compiled(REGISTRY["cast"], [x], {"dtype": dtype}, TARGETS[target]()), expected) is None


@pytest.mark.parametrize("source", ALL, ids=str)
def test_bits_are_read_as_other_types(source: DType) -> None:
    for dtype in ALL:
        if dtype.size_bytes == source.size_bytes and not (dtype.is_bool and not source.is_bool):
            x = numbers(source)
            x = x[~np.isnan(x)] if source.is_float else x
            expected = x.view(dtype.numpy)
            got = compiled(REGISTRY["bitcast"], [x], {"dtype": dtype})
            assert got.dtype == expected.dtype
            assert difference(got, expected) is None, dtype


# Form ----------------------------------------------------------------------------------------------------------------
def test_the_language_has_the_methods_of_the_interpreters() -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        found = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in found if not name.startswith("_")}

    ours, theirs = methods(LlvmScalars), methods(NumpyScalars)
    assert {name: ours.get(name) for name in theirs} == theirs


def test_constants_take_the_type_of_the_value_beside_them() -> None:
    def third(k: Any, x: Any) -> Any:
        return k.constant(1 / 3, x)

    for dtype in FLOATS:
        assert ufunc(third, [dtype])(np.zeros(2, dtype.numpy)).tolist() == [dtype.numpy.type(1 / 3)] * 2
    assert ufunc(lambda k, x: k.add(x, k.constant(7, x)), ["uint8"])(np.array([250], np.uint8)).tolist() == [1]
    big = ufunc(lambda k, x: k.constant(1e6, x), [float16])(np.zeros(1, np.float16))
    assert np.isinf(big[0])


def test_every_type_has_a_register_and_a_place_in_memory() -> None:
    assert [str(register_type(dtype)) for dtype in (ALL[0], ALL[1], *FLOATS)] == [
        "i1", "i8", "float", "float", "float", "double",
    ]  # fmt: skip
    for dtype in ALL:
        width = {"float": 32, "double": 64}.get(str(memory_type(dtype)), getattr(memory_type(dtype), "width", 0))
        assert width == 8 * dtype.size_bytes


@pytest.mark.parametrize("primitive", RECORDS, ids=str)
def test_code_for_arm_calls_nothing(primitive: Primitive) -> None:
    for sample, dtype in itertools.product(primitive.samples, FLOATS):
        module, _ = loop_ir(formula(primitive, sample.attrs), types(cases(sample, dtype)[0]), aarch64())
        assert foreign(compile_ir(str(module), aarch64(), 2)) == []


@pytest.mark.skipif(host(()).vector_bytes < 32, reason="needs AVX2")
@pytest.mark.parametrize("primitive", [p for p in RECORDS if p.name not in NOT_VECTORISED], ids=str)
def test_loops_are_vectorised(primitive: Primitive) -> None:
    """The vector loop has as many instructions as the scalar one that does the rest; without it there is none."""
    target, sample = host(()), primitive.samples[0]
    register = "zmm" if target.vector_bytes == 64 else "ymm"
    module, _ = loop_ir(formula(primitive, sample.attrs), types(cases(sample, float32)[0]))
    lines = assembly(str(module), target, 3).splitlines()
    of_vectors = sum(register in line for line in lines)
    of_scalars = sum(line.split("\t")[1][-2:] in ("ss", "sd") for line in lines if line.startswith("\tv"))
    assert of_vectors >= 4
    assert of_vectors > of_scalars / 2
