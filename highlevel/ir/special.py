"""Special functions on arrays of a module `xp`: erf, erfinv, lgamma, digamma.

float64 is accurate to about 1e-15. float32 has its own formula for erf, which networks use on millions of elements; the
others pass through float64, as half types pass through float32. NaN gives NaN; poles and infinities follow IEEE and C.

Rational approximations: erf – W. J. Cody, "Rational Chebyshev approximations for the error function", 1969; erfinv –
M. J. Wichura, Algorithm AS 241, 1988; lgamma – our own fit, and the series of S. L. Moshier, Methods and Programs for
Mathematical Functions, 1989; digamma – J. Maddock et al., Boost.Math.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

# Coefficients count upwards from the constant term.
_ERF32 = (
    (1.12837914, 0.193531951, 0.0530997122, 0.00388269805, 0.000284537986, 1.98671212e-06),
    (1.0, 0.504845786, 0.11534431, 0.0152059693, 0.00118538932, 3.7417974e-05),
)  # erf(x) / x by x² for |x| ≤ 4: our own least-maximum fit, relative error 2.5e-8
_ERF_SMALL = (
    (3.20937758913846947e03, 3.77485237685302021e02, 1.13864154151050156e02, 3.16112374387056560e00,
     1.85777706184603153e-1),
    (2.84423683343917062e03, 1.28261652607737228e03, 2.44024637934444173e02, 2.36012909523441209e01, 1.0),
)  # fmt: skip
_ERFC_MIDDLE = (
    (1.23033935479799725e03, 2.05107837782607147e03, 1.71204761263407058e03, 8.81952221241769090e02,
     2.98635138197400131e02, 6.61191906371416295e01, 8.88314979438837594e00, 5.64188496988670089e-1,
     2.15311535474403846e-8),
    (1.23033935480374942e03, 3.43936767414372164e03, 4.36261909014324716e03, 3.29079923573345963e03,
     1.62138957456669019e03, 5.37181101862009858e02, 1.17693950891312499e02, 1.57449261107098347e01, 1.0),
)  # fmt: skip
_ERFC_LARGE = (
    (6.58749161529837803e-4, 1.60837851487422766e-2, 1.25781726111229246e-1, 3.60344899949804439e-1,
     3.05326634961232344e-1, 1.63153871373020978e-2),
    (2.33520497626869185e-3, 6.05183413124413191e-2, 5.27905102951428412e-1, 1.87295284992346725e00,
     2.56852019228982242e00, 1.0),
)  # fmt: skip
_QUANTILE_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_QUANTILE_NEAR = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_QUANTILE_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip
_LGAMMA_1_TO_2 = (
    (0.483128950540980892, 0.901379710240177061, 0.624863475569384608, 0.196758572536631487, 0.0272294651591817832,
     0.00127737612038685337, 5.00069990795732765e-6),
    (1.0, 2.1678262190285443, 1.81808141035842141, 0.739042958059578687, 0.148606931900232203, 0.0132627349778864334,
     0.000368919929201350652),
)  # fmt: skip
# lgamma(x) / ((x − 1)(x − 2)) by x − 1.5 for 1 ≤ x ≤ 2: our own fit, relative error 6e-18
_LGAMMA_STIRLING = (8.33333333333331927722e-2, -2.77777777730099687205e-3, 7.93650340457716943945e-4,
                    -5.95061904284301438324e-4, 8.11614167470508450300e-4)  # fmt: skip
_DIGAMMA_1_TO_2 = (
    (0.25479851061131551, -0.32555031186804491, -0.65031853770896507, -0.28919126444774784, -0.045251321448739056,
     -0.0020713321167745952),
    (1.0, 2.0767117023730469, 1.4606242909763515, 0.43593529692665969, 0.054151797245674225, 0.0021284987017821144,
     -0.55789841321675513e-6),
)  # fmt: skip
_DIGAMMA_SLOPE = 0.99558162689208984
_DIGAMMA_ROOT = (1569415565 / 2**30, 381566830 / 2**60, 0.9016312093258695918615325266959189453125e-19)
_DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)

BLOCK = 1 << 15  # elements that stay in the cache while a polynomial passes over them


# Tools ---------------------------------------------------------------------------------------------------------------
def _polynomial(xp: Any, x: Any, coefficients: Sequence[float]) -> Any:
    result = xp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result *= x
        result += x.dtype.type(coefficient)
    return result


def _ratio(xp: Any, x: Any, pair: tuple[Sequence[float], Sequence[float]]) -> Any:
    return _polynomial(xp, x, pair[0]) / _polynomial(xp, x, pair[1])


def _in_float64(xp: Any, f: Callable[[Any, Any], Any], x: Any) -> Any:
    """f on a flat float64 copy; the result has the shape and type of x."""
    return f(xp, x.astype(xp.float64).reshape(-1)).reshape(x.shape).astype(x.dtype)


def _where(xp: Any, out: Any, mask: Any, f: Callable[[Any, Any], Any], x: Any) -> None:
    """out[mask] = f(x[mask])"""
    if mask.any():
        out[mask] = f(xp, x[mask])


# erf -----------------------------------------------------------------------------------------------------------------
def erf(xp: Any, x: Any) -> Any:
    """2/√π ∫₀ˣ exp(−t²) dt"""
    if x.dtype == xp.float64:
        return _in_float64(xp, _erf64, x)
    flat = x.astype(xp.float32).reshape(-1)
    out = xp.empty_like(flat)
    for start in range(0, flat.size, BLOCK) if xp.__name__ == "numpy" else (0,):
        stop = start + BLOCK if xp.__name__ == "numpy" else flat.size
        out[start:stop] = _erf32(xp, flat[start:stop])
    return out.reshape(x.shape).astype(x.dtype)


def _erf32(xp: Any, x: Any) -> Any:
    x = xp.clip(x, -4.0, 4.0)
    return xp.clip(x * _ratio(xp, x * x, _ERF32), -1.0, 1.0)


def _erf64(xp: Any, x: Any) -> Any:
    magnitude = xp.abs(x)
    out = xp.array(x)
    small = magnitude <= 0.46875
    _where(xp, out, small, lambda xp, x: x * _ratio(xp, x * x, _ERF_SMALL), x)
    large = magnitude > 0.46875
    _where(xp, out, large, lambda xp, x: xp.sign(x) * (0.5 - _erfc64(xp, xp.abs(x)) + 0.5), x)
    return out


def _erfc64(xp: Any, x: Any) -> Any:
    """1 − erf(x) for x > 0.46875."""
    out = xp.zeros_like(x)
    _where(xp, out, x <= 4.0, lambda xp, x: xp.exp(-x * x) * _ratio(xp, x, _ERFC_MIDDLE), x)
    _where(xp, out, (x > 4.0) & (x < 6.5), _erfc_large, x)  # beyond, 1 − erfc is 1
    return out


def _erfc_large(xp: Any, x: Any) -> Any:
    z = 1.0 / (x * x)
    return xp.exp(-x * x) / x * (1.0 / math.sqrt(math.pi) - z * _ratio(xp, z, _ERFC_LARGE))


# erfinv --------------------------------------------------------------------------------------------------------------
def erfinv(xp: Any, x: Any) -> Any:
    """The number whose erf is x; ±∞ at ±1, NaN outside."""
    return _in_float64(xp, _erfinv64, x)


def _erfinv64(xp: Any, x: Any) -> Any:
    magnitude = xp.abs(x)
    out = xp.where(magnitude == 1.0, xp.copysign(xp.inf, x), xp.nan)
    _where(xp, out, magnitude <= 0.85, _erfinv_centre, x)
    _where(xp, out, (magnitude > 0.85) & (magnitude < 1.0), _erfinv_tail, x)
    return out


def _erfinv_centre(xp: Any, x: Any) -> Any:
    q = 0.5 * x
    return x * (_ratio(xp, 0.180625 - q * q, _QUANTILE_CENTRE) / math.sqrt(8.0))


def _erfinv_tail(xp: Any, x: Any) -> Any:
    r = xp.sqrt(-xp.log(0.5 * (1.0 - xp.abs(x))))
    out = xp.empty_like(x)
    _where(xp, out, r <= 5.0, lambda xp, r: _ratio(xp, r - 1.6, _QUANTILE_NEAR), r)
    _where(xp, out, r > 5.0, lambda xp, r: _ratio(xp, r - 5.0, _QUANTILE_FAR), r)
    return xp.copysign(out, x) / math.sqrt(2.0)


# lgamma --------------------------------------------------------------------------------------------------------------
def lgamma(xp: Any, x: Any) -> Any:
    """log |Γ(x)|; +∞ at 0, at the negative integers and at ±∞."""
    return _in_float64(xp, _lgamma64, x)


def _lgamma64(xp: Any, x: Any) -> Any:
    out = xp.array(x)
    pole = ((x <= 0.0) & (x == xp.floor(x))) | xp.isinf(x)
    out[pole] = xp.inf
    _where(xp, out, (x > 0.0) & ~pole, _lgamma_positive, x)
    _where(xp, out, (x < 0.0) & ~pole, _lgamma_negative, x)
    return out


def _lgamma_negative(xp: Any, x: Any) -> Any:
    """By reflection: Γ(x) Γ(1 − x) = π / sin(π x)."""
    sine = xp.abs(xp.sin(math.pi * (x - xp.rint(x))))
    reflected = math.log(math.pi) - xp.log(sine) - xp.log(-x) - _lgamma_positive(xp, -x)
    return xp.where(x > -1e-20, -xp.log(-x), reflected)  # near 0 the sine of a denormal has few digits


def _lgamma_positive(xp: Any, x: Any) -> Any:
    out = xp.empty_like(x)
    _where(xp, out, x < 13.0, _lgamma_shifted, x)
    _where(xp, out, x >= 13.0, _lgamma_stirling, x)
    return out


def _lgamma_shifted(xp: Any, x: Any) -> Any:
    """Moved into 1…2 by Γ(x + 1) = x Γ(x); the distances from the roots 1 and 2 stay exact."""
    product = xp.ones_like(x)
    for _ in range(11):
        above = x > 2.0
        x = xp.where(above, x - 1.0, x)
        product = xp.where(above, product * x, product)
    below = x < 1.0
    from_1 = xp.where(below, x, x - 1.0)
    from_2 = xp.where(below, x - 1.0, x - 2.0)
    product = xp.where(below, x, product)
    logarithm = xp.where(below, -xp.log(product), xp.log(product))
    return logarithm + from_1 * from_2 * _ratio(xp, from_1 - 0.5, _LGAMMA_1_TO_2)


def _lgamma_stirling(xp: Any, x: Any) -> Any:
    series = _polynomial(xp, 1.0 / (x * x), _LGAMMA_STIRLING) / x
    return (x - 0.5) * xp.log(x) - x + 0.5 * math.log(2.0 * math.pi) + series


# digamma -------------------------------------------------------------------------------------------------------------
def digamma(xp: Any, x: Any) -> Any:
    """The derivative of lgamma; ∓∞ at ±0, NaN at the negative integers."""
    return _in_float64(xp, _digamma64, x)


def _digamma64(xp: Any, x: Any) -> Any:
    out = xp.where(x == 0.0, -xp.copysign(xp.inf, x), xp.nan)
    out[x == xp.inf] = xp.inf
    _where(xp, out, (x > 0.0) & xp.isfinite(x), _digamma_positive, x)
    _where(xp, out, (x < 0.0) & (x != xp.floor(x)), _digamma_negative, x)
    return out


def _digamma_negative(xp: Any, x: Any) -> Any:
    return _digamma_positive(xp, 1.0 - x) - math.pi / xp.tan(math.pi * (x - xp.rint(x)))


def _digamma_positive(xp: Any, x: Any) -> Any:
    out = xp.empty_like(x)
    _where(xp, out, x < 10.0, _digamma_shifted, x)
    _where(xp, out, x >= 10.0, _digamma_series, x)
    return out


def _digamma_shifted(xp: Any, x: Any) -> Any:
    """Moved into 1…2 by ψ(x + 1) = ψ(x) + 1/x, where ψ is a multiple of the distance from its root."""
    total = xp.zeros_like(x)
    below = x < 1.0
    total = xp.where(below, -1.0 / x, total)
    x = xp.where(below, x + 1.0, x)
    for _ in range(8):
        above = x > 2.0
        x = xp.where(above, x - 1.0, x)
        total = xp.where(above, total + 1.0 / x, total)
    distance = ((x - _DIGAMMA_ROOT[0]) - _DIGAMMA_ROOT[1]) - _DIGAMMA_ROOT[2]
    return total + (distance * _DIGAMMA_SLOPE + distance * _ratio(xp, x - 1.0, _DIGAMMA_1_TO_2))


def _digamma_series(xp: Any, x: Any) -> Any:
    z = 1.0 / (x * x)
    return xp.log(x) - 0.5 / x - z * _polynomial(xp, z, _DIGAMMA_SERIES)
