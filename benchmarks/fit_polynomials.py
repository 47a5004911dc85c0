"""Makes the coefficients of the native backend's mathematical functions; needs mpmath.

    python benchmarks/fit_polynomials.py > highlevel/backends/native/codegen/polynomials.py

Polynomials and ratios interpolate the function, in 50 digits, at points near to those where the best approximation
does (Chebyshev's, or given ones); `exchange` then moves the points until the largest errors alternate and are equal
(Remez). Errors are relative to the whole function, not to the part that is fitted: log2 of the largest stands
beside each table. Coefficients count upwards from the constant term.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath as m
import numpy as np
from mpmath import mp, mpf

mp.dps = 50
Function = Callable[[Any], Any]
DIGITS = {"float32": lambda c: repr(float(str(np.float32(float(c))))), "float64": lambda c: repr(float(c))}
SQRT2 = m.sqrt(2)
HALF_LN2 = m.log(2) / 2 * mpf("1.001")
QUARTER_PI_SQUARED = (m.pi / 4 * mpf("1.02")) ** 2
LOG_SQUARED = ((SQRT2 - 1) / (SQRT2 + 1)) ** 2 * mpf("1.001")  # of s = (m − 1) / (m + 1) for √½ ≤ m ≤ √2
DIGAMMA_ROOT = m.findroot(m.digamma, 1.46)


@dataclass(frozen=True)
class Fit:
    """What to fit: `function` on low … high, by `degree` (numerator, denominator), so that weight · error is small."""

    name: str
    meaning: str
    function: Function
    low: Any
    high: Any
    degree: tuple[int, int]
    precision: str = "float64"
    weight: Function | None = None  # None: relative to the function itself
    exchange: bool = False
    nodes: Function | None = None  # from 0 … 1 to points


def chebyshev(count: int) -> list[Any]:
    """The Chebyshev points of 0 … 1."""
    return [(1 - m.cos(m.pi * (2 * i + 1) / (2 * count))) / 2 for i in range(count)]


def ratio(pair: Any, x: Any) -> Any:
    return m.polyval(pair[0][::-1], x) / m.polyval(pair[1][::-1], x)


def solve(rows: list[Any], values: list[Any], n: int, d: int) -> tuple[Any, Any]:
    """(numerator, denominator), and what follows them in the solution."""
    c = list(m.lu_solve(m.matrix(rows), m.matrix(values)))
    return (c[: n + 1], [mpf(1), *c[n + 1 : n + d + 1]]), c[n + d + 1 :]


def equation(x: Any, y: Any, n: int, d: int) -> list[Any]:
    return [x**j for j in range(n + 1)] + [-y * x**j for j in range(1, d + 1)]


def interpolate(fit: Fit) -> Any:
    (n, d), points = fit.degree, chebyshev(sum(fit.degree) + 1)
    place = fit.nodes or (lambda t: fit.low + (fit.high - fit.low) * t)
    xs = [mpf(place(t)) for t in points]
    ys = [fit.function(x) for x in xs]
    return solve([equation(x, y, n, d) for x, y in zip(xs, ys, strict=True)], ys, n, d)[0]


def grid(fit: Fit, count: int) -> tuple[list[Any], list[Any], list[Any]]:
    xs = [fit.low + (fit.high - fit.low) * t for t in chebyshev(count)]
    ys = [fit.function(x) for x in xs]
    return xs, ys, [fit.weight(x) if fit.weight else 1 / y for x, y in zip(xs, ys, strict=True)]


def exchange(fit: Fit, pair: Any, rounds: int = 8) -> Any:
    """The pair after Remez's exchanges, or as it is where the errors do not alternate often enough."""
    (n, d), (xs, ys, ws) = fit.degree, grid(fit, 600)
    level, best = mpf(0), (m.inf, pair)
    for _ in range(rounds):
        errors = [w * (y - ratio(pair, x)) for x, y, w in zip(xs, ys, ws, strict=True)]
        best = min(best, (max(map(abs, errors)), pair), key=lambda item: item[0])
        peaks = alternating(errors)
        if len(peaks) < n + d + 2:
            break
        while len(peaks) > n + d + 2:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        signs = [(-1) ** k / ws[i] for k, i in enumerate(peaks)]
        for _ in range(6):  # the equations are not linear in the level
            rows = [[*equation(xs[i], ys[i] - s * level, n, d), s] for s, i in zip(signs, peaks, strict=True)]
            pair, (level,) = solve(rows, [ys[i] for i in peaks], n, d)
    return best[1]


def alternating(errors: Sequence[Any]) -> list[int]:
    """The place of the largest error of every run of one sign."""
    peaks: list[int] = []
    for i, error in enumerate(errors):
        if peaks and (errors[peaks[-1]] >= 0) == (error >= 0):
            peaks[-1] = max(peaks[-1], i, key=lambda j: abs(errors[j]))
        else:
            peaks.append(i)
    return peaks


def of_square(f: Function) -> Function:
    """f(√z) / √z: an odd function as a function of the square."""
    return lambda z: f(m.sqrt(z)) / m.sqrt(z)


def _erfinv_by_r(r: Any) -> Any:
    """erfinv(x) for r = √−log((1 − x) / 2), by Newton on the logarithm of erfc."""
    target, y = 2 * m.exp(-r * r), r - mpf("0.3")
    for _ in range(80):
        g = m.erfc(y)
        step = (m.log(g) - m.log(target)) * g * m.sqrt(m.pi) / 2 * m.exp(y * y)
        y += step
        if abs(step) < mpf(10) ** -40:
            return y
    raise ArithmeticError("no root")


def _stirling(w: Any) -> Any:
    x = 1 / m.sqrt(w)
    return (m.loggamma(x) - ((x - 0.5) * m.log(x) - x + m.log(2 * m.pi) / 2)) * x


def _digamma_series(w: Any) -> Any:
    x = 1 / m.sqrt(w)
    return (m.log(x) - 0.5 / x - m.digamma(x)) / w


def _exp(name: str, degree: int, precision: str) -> Fit:
    return Fit(name, "(exp(r) − 1 − r) / r²", lambda r: (m.expm1(r) - r) / r**2, -HALF_LN2, HALF_LN2 * mpf("1.003"),
               (degree, 0), precision, lambda r: r**2 / m.expm1(r))  # fmt: skip


def _sin(name: str, degree: int, precision: str) -> Fit:
    f = of_square(m.sin)
    return Fit(name, "(sin(r) / r − 1) / r², by r²", lambda z: (f(z) - 1) / z, mpf(0), QUARTER_PI_SQUARED, (degree, 0),
               precision, lambda z: z / f(z))  # fmt: skip


def _cos(name: str, degree: int, precision: str) -> Fit:
    return Fit(name, "(cos(r) − 1 + r²/2) / r⁴, by r²", lambda z: (m.cos(m.sqrt(z)) - 1 + z / 2) / z**2, mpf(0),
               QUARTER_PI_SQUARED, (degree, 0), precision, lambda z: z * z)  # fmt: skip


def _odd(name: str, f: Function, text: str, high: Any, degree: int, precision: str) -> Fit:
    """An odd function with slope 1 at 0."""
    g = of_square(f)
    return Fit(name, f"({text}(x) / x − 1) / x², by x²", lambda z: (g(z) - 1) / z, mpf(0), mpf(high), (degree, 0),
               precision, lambda z: z / g(z))  # fmt: skip


def _erf(name: str, degree: int, precision: str) -> Fit:
    f = of_square(m.erf)
    return Fit(name, "erf(x) / x − 1, by x², for |x| ≤ 1", lambda z: f(z) - 1, mpf(0), mpf(1), (degree, 0), precision,
               lambda z: 1 / f(z))  # fmt: skip


def _fit(name: str, meaning: str, f: Function, minus: str, low: Any, high: str, degree: tuple[int, int],
         crowding: float) -> Fit:
    """A ratio for f minus a constant, its error relative to f; points crowd towards the lower end."""
    begin, end = mpf(low), mpf(high)
    return Fit(name, meaning, lambda u: f(u) - mpf(minus), begin, end, degree, weight=lambda u: 1 / f(u), exchange=True,
               nodes=lambda t: begin + (end - begin) * t**crowding)  # fmt: skip


FITS = (
    _exp("EXP32", 4, "float32"),
    _exp("EXP64", 9, "float64"),
    _exp("EXPM1_32", 5, "float32"),
    _exp("EXPM1_64", 10, "float64"),
    Fit("EXP_POW", "exp(r), enough for pow in float32", m.exp, -HALF_LN2, HALF_LN2, (6, 0)),
    Fit("LOG32", "(log(1 + f) − f + f²/2) / f³", lambda f: (m.log1p(f) - f + f * f / 2) / f**3, 1 / SQRT2 - 1,
        SQRT2 - 1, (8, 0), "float32", lambda f: f**3 / m.log1p(f)),
    Fit("LOG_POW", "log(1 + f) / f, enough for pow in float32", lambda f: m.log1p(f) / f, 1 / SQRT2 - 1, SQRT2 - 1,
        (12, 0)),
    Fit("LOG64", "(2 atanh(s) / s − 2) / s², by s²", lambda z: (2 * of_square(m.atanh)(z) - 2) / z, mpf(0), LOG_SQUARED,
        (6, 0), weight=lambda z: z / 2),
    Fit("LOG_WIDE", "(atanh(s) / s − 1 − s²/3) / s⁴, by s²", lambda z: (of_square(m.atanh)(z) - 1 - z / 3) / z**2,
        mpf(0), LOG_SQUARED, (7, 0), weight=lambda z: z * z),
    _sin("SIN32", 2, "float32"),
    _sin("SIN64", 5, "float64"),
    _cos("COS32", 2, "float32"),
    _cos("COS64", 5, "float64"),
    _odd("ASIN32", m.asin, "asin", 0.25, 5, "float32"),
    _odd("ASIN64", m.asin, "asin", 0.25, 12, "float64"),
    _odd("ATAN32", m.atan, "atan", 1, 9, "float32"),
    _odd("ATAN64", m.atan, "atan", "0.2501", 12, "float64"),
    _odd("SINH32", m.sinh, "sinh", 1, 3, "float32"),
    _odd("SINH64", m.sinh, "sinh", 1, 7, "float64"),
    _odd("TANH32", m.tanh, "tanh", 0.3025, 4, "float32"),
    _odd("TANH64", m.tanh, "tanh", 0.3025, 10, "float64"),
    _erf("ERF32", 6, "float32"),
    _erf("ERF64", 12, "float64"),
    Fit("ERFC32", "log erfc(x) for 1 ≤ x ≤ 4", lambda x: m.log(m.erfc(x)), mpf(1), mpf(4), (6, 0), "float32",
        weight=lambda x: m.erfc(x) / m.erf(x), exchange=True),
    Fit("ERFC64", "exp(x²) erfc(x) for 1 ≤ x ≤ 6", lambda x: m.exp(x * x) * m.erfc(x), mpf(1), mpf(6), (6, 6),
        weight=lambda x: m.exp(-x * x) / m.erf(x), nodes=lambda t: 1 / (mpf(1) / 6 + mpf(5) / 6 * t)),
    _fit("ERFINV_CENTRE", "erfinv(x) / x − 0.875, by 0.7225 − x², for |x| ≤ 0.85",
         lambda u: of_square(m.erfinv)(mpf("0.7225") - u), "0.875", 0, "0.7225", (8, 8), 1.75),
    Fit("ERFINV_NEAR", "r − erfinv(x) by r − 1.6, for r = √−log((1 − x) / 2) ≤ 3.3",
        lambda u: u + mpf("1.6") - _erfinv_by_r(u + mpf("1.6")), mpf(0), mpf("1.7"), (7, 7), exchange=True,
        nodes=lambda t: mpf("1.7") * t**1.5),
    Fit("ERFINV_FAR", "r − erfinv(x) by r − 3.3, for 3.3 ≤ r ≤ 6.2",
        lambda u: u + mpf("3.3") - _erfinv_by_r(u + mpf("3.3")), mpf(0), mpf("2.9"), (7, 7), exchange=True),
    _fit("LGAMMA", "lgamma(x) / ((x − 1)(x − 2)) − ½, by x − ½, for ½ ≤ x ≤ 3",
         lambda u: m.loggamma(u + 0.5) / ((u - 0.5) * (u - 1.5)), "0.5", 0, "2.5", (10, 10), 1.75),
    Fit("LGAMMA_MIDDLE", "lgamma(x) − (1.25 u + 0.6875) by u = x − 3, for 3 ≤ x ≤ 8",
        lambda u: m.loggamma(u + 3) - 1.25 * u - 0.6875, mpf(0), mpf(5), (8, 8), weight=lambda u: 1 / m.loggamma(u + 3),
        nodes=lambda t: 5 * t**1.25),
    Fit("LGAMMA_SERIES", "x (lgamma(x) − (x − ½) log x + x − ½ log 2π), by 1/x², for x ≥ 8", _stirling, mpf(10) ** -12,
        1 / mpf(64), (6, 0), weight=lambda w: m.sqrt(w)),
    _fit("DIGAMMA", "digamma(x) / (x − root) − ½, by x − 1, for 1 ≤ x ≤ 2.5",
         lambda u: m.digamma(u + 1) / (u + 1 - DIGAMMA_ROOT), "0.5", 0, "1.5", (7, 7), 1.5),
    _fit("DIGAMMA_MIDDLE", "log(x) − digamma(x) by x − 2.5, for 2.5 ≤ x ≤ 8",
         lambda u: m.log(u + 2.5) - m.digamma(u + 2.5), "0", 0, "5.5", (7, 7), 1.25),
    Fit("DIGAMMA_SERIES", "x² (log x − 1/(2x) − digamma(x)), by 1/x², for x ≥ 8", _digamma_series, mpf(10) ** -12,
        1 / mpf(64), (7, 0), weight=lambda w: w / 2),
)  # fmt: skip


def table(fit: Fit, name: str, coefficients: Sequence[Any]) -> list[str]:
    texts = [DIGITS[fit.precision](c) for c in coefficients]
    lines, line = [f"{name} = ("], "   "
    for text in texts:
        if len(line) + len(text) + 2 > 119:
            lines, line = [*lines, line], "   "
        line += f" {text},"
    return [*lines, line, ")  # fmt: skip"]


def expansion(value: Any, parts: int) -> str:
    """A number as a sum of float64."""
    numbers = []
    for _ in range(parts):
        numbers.append(float(value))
        value -= mpf(numbers[-1])
    return f"({', '.join(map(repr, numbers))})"


def main() -> None:
    print('"""Coefficients of the mathematical functions, made by benchmarks/fit_polynomials.py.')
    print("\nThey count upwards from the constant term; a ratio is (numerator, denominator). In brackets: log2 of the")
    print('largest error, relative to the function, before the coefficients are rounded.\n"""\n')
    print(f"DIGAMMA_ROOT = {expansion(DIGAMMA_ROOT, 2)}")
    for fit in FITS:
        pair = interpolate(fit)
        if fit.exchange:
            pair = exchange(fit, pair)
        error = max(abs(w * (y - ratio(pair, x))) for x, y, w in zip(*grid(fit, 333), strict=True))
        print(f"\n# {fit.meaning} [{float(m.log(error, 2)):.1f}]")
        if fit.degree[1]:
            print("\n".join(table(fit, fit.name + "_TOP", pair[0]) + table(fit, fit.name + "_BOTTOM", pair[1])))
        else:
            print("\n".join(table(fit, fit.name, pair[0])))


if __name__ == "__main__":
    main()
