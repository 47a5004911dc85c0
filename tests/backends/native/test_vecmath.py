"""The mathematical functions of generated code: errors in units in the last place, special values, code without FMA.

float32 is compared with float64 of NumPy and SciPy, float64 with long doubles where they are wider, and with mpmath.
The limits are what is reached, rounded up; none of float32 is above 2.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

from highlevel.backends.native.codegen import polynomials
from highlevel.backends.native.codegen.registers import Code, Real, fma, two_product, two_sum
from highlevel.backends.native.codegen.scalar import LlvmScalars, Scalar
from highlevel.backends.native.codegen.targets import Target, host
from highlevel.backends.native.codegen.ufunc import ufunc
from highlevel.ir import as_dtype

LONG = np.longdouble
Function = Callable[..., Any]
# (reference, largest error in float32, in float64)
FUNCTIONS: dict[str, tuple[Function, float, float]] = {
    "exp": (np.exp, 1.1, 1.1),
    "expm1": (np.expm1, 1.5, 1.9),
    "log": (np.log, 0.9, 0.9),
    "log1p": (np.log1p, 1.5, 1.5),
    "sin": (np.sin, 1.6, 1.01),
    "cos": (np.cos, 1.6, 0.9),
    "tan": (np.tan, 0.51, 1.01),
    "asin": (np.arcsin, 1.7, 1.7),
    "acos": (np.arccos, 1.0, 1.1),
    "atan": (np.arctan, 1.3, 1.5),
    "sinh": (np.sinh, 1.7, 1.7),
    "cosh": (np.cosh, 1.6, 1.6),
    "tanh": (np.tanh, 1.5, 1.5),
    "asinh": (np.arcsinh, 0.51, 1.9),
    "acosh": (np.arccosh, 0.51, 2.7),
    "atanh": (np.arctanh, 0.51, 1.9),
    "erf": (scipy.special.erf, 1.3, 1.1),
    "erfinv": (scipy.special.erfinv, 0.51, 1.7),
    "lgamma": (scipy.special.gammaln, 0.51, 2.1),
    "digamma": (scipy.special.digamma, 0.51, 2.5),
}
SPECIAL = ("erf", "erfinv", "lgamma", "digamma")  # NumPy has no long doubles of them
EVEN_OR_ODD = ("sin", "cos", "tan", "asin", "atan", "sinh", "cosh", "tanh", "asinh", "atanh", "erf", "erfinv")
SMALL_CPU = ("avx512f", "avx2", "fma", "f16c", "avx", "sse3", "ssse3", "sse4.1", "sse4.2")


@functools.cache
def compiled(name: str, dtype: str, operands: int = 1, without: tuple[str, ...] = ()) -> Function:
    known = [feature for feature in without if f"+{feature}" in host(()).features]
    return ufunc(lambda k, *x: getattr(k, name)(*x), [dtype] * operands, host(known))


def errors(got: Any, exact: Any) -> Any:
    """In units in the last place of the exact result (of denormals: the smallest); inf where special values differ."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        _, exponent = np.frexp(np.where(np.isfinite(exact), exact, 1))
        digits = info.nmant + 1
        unit = np.ldexp(exact.dtype.type(1), np.maximum(exponent - digits, info.minexp - info.nmant))
        error = np.abs(got.astype(exact.dtype) - exact) / unit
    same = (got == rounded) & ~np.isfinite(rounded) | np.isnan(got) & np.isnan(exact)
    overflow = (np.abs(got) == info.max) & np.isinf(rounded)  # one step too early to overflow
    error = np.where(same, 0.0, np.where(overflow, 1.0, error))
    return np.where(np.isfinite(error), error, np.inf)


def assert_errors(got: Any, exact: Any, limit: float, *operands: Any) -> None:
    error = errors(got, exact)
    worst = int(np.argmax(error))
    place = [operand[worst] for operand in operands]
    assert error[worst] <= limit, f"{error[worst]:.3f} at {place}: {got[worst]!r} instead of {exact[worst]!r}"


def all_exponents() -> Any:
    """Two million float32 evenly spread over all bit patterns, and the neighbours of numbers where formulas change."""
    bits = np.arange(1 << 21, dtype=np.uint64) * 2048 + np.random.default_rng(0).integers(0, 2048, 1 << 21).astype("u8")
    spread = bits.astype(np.uint32).view(np.float32)
    centres = np.array([1.0, 0.5, 0.55, 0.7071, 1.4142, 1.4616321, 2.0, 2.5, 3.0, 0.85, 8.0, 88.72, 103.97, 9.01, 4.0])
    near = centres.astype(np.float32).view(np.uint32)[:, None] + np.arange(-2000, 2000, dtype=np.int64)
    close = near.astype(np.uint32).view(np.float32).reshape(-1)
    return np.concatenate([spread, close, -close])


def wide_samples() -> Any:
    """float64: all exponents, and where functions bend."""
    rng, n = np.random.default_rng(0), 20_000
    spread = rng.integers(0, 1 << 63, n, dtype=np.uint64) * 2 + rng.integers(0, 2, n).astype(np.uint64)
    return np.concatenate([
        spread.view(np.float64), rng.standard_normal(n), rng.uniform(-1, 1, n), rng.uniform(-30, 30, n),
        np.exp(rng.uniform(-20, 20, n)), -np.exp(rng.uniform(-20, 7, n)), 1 + rng.standard_normal(n) * 1e-3,
        rng.uniform(-750, 720, n), np.ldexp(rng.uniform(0.5, 1, n), rng.integers(-1073, 1024, n)),
    ])  # fmt: skip


wider = pytest.mark.skipif(np.finfo(LONG).eps >= np.finfo(np.float64).eps, reason="long doubles are no wider here")


# Accuracy ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_over_all_exponents(name: str) -> None:
    reference, limit, _ = FUNCTIONS[name]
    x = all_exponents()
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
    got = compiled(name, "float32")(x)
    assert_errors(got, exact, limit, x)
    numeric = ~np.isnan(exact)
    np.testing.assert_array_equal(np.signbit(got)[numeric], np.signbit(exact)[numeric])


@wider
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in SPECIAL])
def test_float64_beside_long_doubles(name: str) -> None:
    reference, _, limit = FUNCTIONS[name]
    x = wide_samples()
    with np.errstate(all="ignore"):
        exact = reference(x.astype(LONG))
    assert_errors(compiled(name, "float64")(x), exact, limit, x)


def _erfinv(x: Any) -> Any:
    mp = pytest.importorskip("mpmath")
    y, left = mp.mpf(float(scipy.special.erfinv(float(x)))), 1 - abs(x)
    for _ in range(5):  # Newton: by erf itself in the middle, by the logarithm of erfc in the tails
        slope = mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        if abs(x) < 0.5:
            y -= (mp.erf(y) - x) * slope
        else:
            rest = mp.erfc(abs(y))
            y = mp.sign(y) * (abs(y) + (mp.log(rest) - mp.log(left)) * rest * slope)
    return y


def special_samples(name: str) -> Any:
    rng, n = np.random.default_rng(1), 400
    tiny = np.exp(rng.uniform(-300, 0, n))
    if name == "erf":
        return np.concatenate([rng.uniform(-6.5, 6.5, 3 * n), rng.standard_normal(n), tiny])
    if name == "erfinv":
        return np.concatenate([rng.uniform(-1, 1, 3 * n), 1 - np.exp(rng.uniform(-36, -1, n)), tiny])
    positive = [rng.uniform(0, 9, 3 * n), 1 + rng.normal(0, 1e-3, n), 2 + rng.normal(0, 1e-3, n), tiny]
    return np.concatenate([*positive, np.exp(rng.uniform(2, 300, n)), -np.exp(rng.uniform(-100, -2, n))])


@wider
@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_in_float64_beside_mpmath(name: str) -> None:
    mp = pytest.importorskip("mpmath")
    exact_of = {
        "erf": mp.erf, "erfinv": _erfinv, "lgamma": lambda x: mp.re(mp.loggamma(x)), "digamma": lambda x: mp.psi(0, x)
    }[name]  # fmt: skip
    x = special_samples(name)
    with mp.workdps(40):
        exact = np.array([LONG(mp.nstr(exact_of(mp.mpf(float(v))), 25)) for v in x])
    assert_errors(compiled(name, "float64")(x), exact, FUNCTIONS[name][2], x)


def test_lgamma_below_zero_is_small_against_its_terms() -> None:
    x = -np.random.default_rng(0).uniform(0.1, 60.0, 20_000)
    got, expected = compiled("lgamma", "float64")(x), scipy.special.gammaln(x)
    magnitude = np.maximum(1.0, np.abs(scipy.special.gammaln(-x)))
    assert np.max(np.abs(got - expected) / magnitude) < 2e-14


def pairs(dtype: str) -> list[tuple[Any, Any]]:
    rng, n = np.random.default_rng(2), 200_000
    bits, kind = {"float32": (32, np.uint32), "float64": (64, np.uint64)}[dtype]
    anything = [rng.integers(0, 1 << (bits - 1), n, dtype=np.uint64).astype(kind).view(dtype) for _ in "ab"]
    sign = rng.choice([-1.0, 1.0], n)
    return [
        (np.exp(rng.uniform(-80, 80, n)), rng.uniform(-30, 30, n)),
        (np.exp(rng.standard_normal(n)), rng.standard_normal(n) * 5),
        (1 + rng.standard_normal(n) * 1e-3, rng.standard_normal(n) * 3e4),
        (sign * np.exp(rng.uniform(-3, 3, n)), np.rint(rng.uniform(-40, 40, n))),
        (rng.standard_normal(n), rng.standard_normal(n)),
        (anything[0], np.where(sign > 0, anything[1], -anything[1])),
    ]


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize(
    ("name", "dtype", "limit"),
    [("pow", "float32", 0.6), ("pow", "float64", 1.2), ("atan2", "float32", 1.7), ("atan2", "float64", 2.0)],
)
def test_two_operands(name: str, dtype: str, limit: float, case: int) -> None:
    if dtype == "float64" and np.finfo(LONG).eps >= np.finfo(np.float64).eps:
        pytest.skip("long doubles are no wider here")
    reference = {"pow": np.power, "atan2": np.arctan2}[name]
    with np.errstate(all="ignore"):
        a, b = (operand.astype(dtype) for operand in pairs(dtype)[case])
        exact = reference(a.astype(LONG), b.astype(LONG))
    assert_errors(compiled(name, dtype, 2)(a, b), exact, limit, a, b)


# Special values ------------------------------------------------------------------------------------------------------
VALUES = np.array([
    np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 2.5, -2.5, 7.0, 1e30, -1e30, 1e-40,
    -1e-40, 1e-45, 16777215.0, 16777216.0, -16777215.0, 33554432.0, 104.0, -104.0, 89.0, -150.0, 800.0, -800.0,
])  # fmt: skip


def assert_special(got: Any, exact: Any) -> None:
    with np.errstate(all="ignore"):
        assert errors(got, exact.astype(got.dtype).astype(exact.dtype)).max() <= 2
    numeric = ~np.isnan(exact)
    np.testing.assert_array_equal(np.signbit(got)[numeric], np.signbit(exact)[numeric])


@pytest.mark.parametrize("without", [(), ("avx512f",), SMALL_CPU], ids=["host", "no AVX-512", "SSE2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name: str, dtype: str, without: tuple[str, ...]) -> None:
    x = VALUES.astype(dtype)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][0](x.astype(np.float64))
    if name == "lgamma":
        exact[x == -np.inf] = np.inf  # as in C; SciPy says −∞
        x, exact = x[x != -2.5], exact[x != -2.5]  # which is next to a zero
    elif name == "digamma":
        exact[x == -np.inf] = np.nan
    elif name == "erfinv":
        exact[(x == 0) & np.signbit(x)] = -0.0
    assert_special(compiled(name, dtype, 1, without)(x), exact)


@pytest.mark.parametrize("without", [(), ("avx512f",), SMALL_CPU], ids=["host", "no AVX-512", "SSE2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_special_pairs(name: str, dtype: str, without: tuple[str, ...]) -> None:
    a, b = (grid.reshape(-1) for grid in np.meshgrid(VALUES.astype(dtype), VALUES.astype(dtype)))
    with np.errstate(all="ignore"):
        exact = {"pow": np.power, "atan2": np.arctan2}[name](a.astype(LONG), b.astype(LONG))
    assert_special(compiled(name, dtype, 2, without)(a, b), exact)


def test_a_mask_of_minus_infinity_leaves_exactly_nothing() -> None:
    x = np.array([-np.inf, -1e38, -104.0, -103.0, 0.0, 88.8], np.float32)
    assert compiled("exp", "float32")(x).tolist() == [0.0, 0.0, 0.0, np.float32(2.0**-149), 1.0, np.inf]


# Other CPUs ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_without_avx512_are_the_same(name: str) -> None:
    x = all_exponents()[::16]
    here, there = compiled(name, "float32")(x), compiled(name, "float32", 1, ("avx512f",))(x)
    if host(()).fma and host([f for f in ("avx512f",) if f"+{f}" in host(()).features]).fma:
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_fma_errors_are_hardly_larger(name: str) -> None:
    reference, limit, wide_limit = FUNCTIONS[name]
    x = all_exponents()[::16]
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
    assert_errors(compiled(name, "float32", 1, SMALL_CPU)(x), exact, min(2.0, limit + 0.7), x)
    if name not in SPECIAL and np.finfo(LONG).eps < np.finfo(np.float64).eps:
        x = wide_samples()[::8]
        with np.errstate(all="ignore"):
            exact = reference(x.astype(LONG))
        assert_errors(compiled(name, "float64", 1, SMALL_CPU)(x), exact, wide_limit + 1.0, x)


@pytest.mark.parametrize("without", [(), SMALL_CPU], ids=["FMA", "no FMA"])
def test_sums_of_two_floats_are_exact(without: tuple[str, ...]) -> None:
    known = [feature for feature in without if f"+{feature}" in host(()).features]
    target = host(known)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(500) * np.exp(rng.uniform(-30, 30, 500)), rng.standard_normal(500)

    def part(operation: Function, which: int) -> Any:
        def formula(k: LlvmScalars, x: Scalar, y: Scalar) -> Scalar:
            code = Code(k.builder, fma=target.fma)
            return Scalar(operation(Real(x.value, code), Real(y.value, code))[which].value, x.dtype)

        return ufunc(formula, ["float64", "float64"], target)(a, b)

    high, low = part(two_sum, 0), part(two_sum, 1)
    for x, y, h, lo in zip(a, b, high, low, strict=True):
        assert Fraction(x) + Fraction(y) == Fraction(h) + Fraction(lo)
    high, low = part(two_product, 0), part(two_product, 1)
    for x, y, h, lo in zip(a, b, high, low, strict=True):
        assert Fraction(x) * Fraction(y) == Fraction(h) + Fraction(lo)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_composed_fma_keeps_what_cancels(dtype: str) -> None:
    known = [feature for feature in SMALL_CPU if f"+{feature}" in host(()).features]
    target: Target = host(known)

    def formula(k: LlvmScalars, x: Scalar) -> Scalar:
        code = Code(k.builder, fma=target.fma)
        real = Real(x.value, code)
        return Scalar(fma(real, real, -(real * real)).value, x.dtype)

    x = np.random.default_rng(0).uniform(1, 2, 1000).astype(dtype)
    exact = [float(Fraction(float(v)) ** 2 - Fraction(float(v * v))) for v in x]
    np.testing.assert_array_equal(ufunc(formula, [as_dtype(dtype)], target)(x), np.array(exact, dtype))


# Soak ----------------------------------------------------------------------------------------------------------------
@pytest.mark.soak
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float32(name: str) -> None:
    """All 2³² numbers (of even and odd functions, those without sign): one minute per function."""
    reference, limit, _ = FUNCTIONS[name]
    function, block = compiled(name, "float32"), 1 << 20
    for start in range(0, 1 << (31 if name in EVEN_OR_ODD else 32), block):
        x = np.arange(start, start + block, dtype=np.uint32).view(np.float32)
        got = function(x)
        with np.errstate(all="ignore"):
            exact = reference(x.astype(np.float64))
            differs = got != exact.astype(np.float32)
        if name in ("lgamma", "digamma"):  # next to the zeros below 0 the reference is worse
            differs &= x > 0
        assert_errors(got[differs], exact[differs], limit, x[differs]) if differs.any() else None


@pytest.mark.soak
def test_coefficients_are_those_that_the_script_makes() -> None:
    pytest.importorskip("mpmath")
    script = Path(__file__).parents[3] / "benchmarks" / "fit_polynomials.py"
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert made == Path(str(polynomials.__file__)).read_text(encoding="utf-8")
