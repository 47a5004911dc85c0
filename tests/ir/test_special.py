"""Special functions over their whole range, against SciPy and Python's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special

from highlevel.ir import special

SPREAD = 10.0 ** np.linspace(-300, 300, 4001)
RANGES = {
    "erf": [np.linspace(-7, 7, 20001), SPREAD, -SPREAD],
    "erfinv": [np.linspace(-1, 1, 20001), 1 - 10.0 ** np.linspace(-16, -1, 2001), SPREAD[SPREAD < 1]],
    "lgamma": [np.linspace(1e-3, 0.95, 1001), np.linspace(2.05, 20, 5001), SPREAD],
    "digamma": [np.linspace(1e-3, 20, 20001), 1.4616321449683622 + np.linspace(-1e-3, 1e-3, 101), SPREAD],
}
ORACLES: dict[str, Any] = {**{name: getattr(scipy.special, name) for name in RANGES if name != "lgamma"},
                           "lgamma": scipy.special.gammaln}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_float64_to_a_few_units_in_the_last_place(name: str) -> None:
    for x in RANGES[name]:
        with np.errstate(all="ignore"):
            got = getattr(special, name)(np, x)
        np.testing.assert_allclose(got, ORACLES[name](x), rtol=2e-14, atol=0)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_types(name: str, dtype: Any) -> None:
    x = RANGES[name][0].astype(dtype)
    with np.errstate(all="ignore"):
        got = getattr(special, name)(np, x)
    assert got.dtype == dtype
    want = ORACLES[name](x.astype(np.float64)).astype(dtype)
    np.testing.assert_allclose(got, want, rtol=5 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", RANGES)
def test_negative_numbers(name: str) -> None:
    """By reflection; close to the zeros between the poles only the absolute error is small."""
    x = np.linspace(-0.9 if name == "erfinv" else -30.3, -0.1, 5001)
    x = x[np.abs(x - np.rint(x)) > 1e-6]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(getattr(special, name)(np, x), ORACLES[name](x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("root", [1.0, 2.0])
def test_lgamma_has_all_its_digits_at_its_roots(root: float) -> None:
    """By its series there: −γ d + ζ(2)/2 d² around 1, and log Γ(2 + d) = log(1 + d) + log Γ(1 + d)."""
    d = np.array([1e-9, -1e-9, 3e-7, -3e-7])
    x = root + d
    d = x - root
    series = -np.euler_gamma * d + math.pi**2 / 12 * d**2 - 0.4006856343865314 * d**3
    want = series if root == 1.0 else series + np.log1p(d)
    np.testing.assert_allclose(special.lgamma(np, x), want, rtol=1e-14)


def test_special_values_follow_c() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, -2.0, 5e-324, -5e-324])
    with np.errstate(all="ignore"):
        results = {name: getattr(special, name)(np, x) for name in RANGES}
    nan, inf = np.nan, np.inf
    log = -math.log(5e-324)
    np.testing.assert_array_equal(results["erf"][:5], [nan, 1, -1, 0, 0])
    np.testing.assert_array_equal(results["erfinv"], [nan, nan, nan, 0, 0, -inf, nan, 5e-324, -5e-324])
    np.testing.assert_allclose(results["lgamma"], [nan, inf, inf, inf, inf, inf, inf, log, log])
    np.testing.assert_array_equal(results["digamma"], [nan, inf, nan, -inf, inf, nan, nan, -inf, inf])
    assert np.signbit(results["erf"][4]) and np.signbit(results["erfinv"][4])


def test_shapes_and_blocks() -> None:
    x = np.linspace(-5, 5, 3 * special.BLOCK + 5, dtype=np.float32)
    np.testing.assert_allclose(special.erf(np, x), scipy.special.erf(x), rtol=1e-6)
    assert special.erf(np, np.float32(0.5).reshape(())).shape == ()
    assert special.erf(np, np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert special.lgamma(np, np.ones((2, 0))).shape == (2, 0)
