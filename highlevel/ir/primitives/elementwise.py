"""Elementwise operators: one row each, meaning given on scalars; operands have one shape and (mostly) one type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from highlevel.errors import DTypeError, ShapeError

from .. import oracles
from ..dtypes import DType, bool_, float32
from ..primitive import Primitive, define
from ..sample import Draw, Sample, booleans, integers, normal, positive, uniform
from ..scalar import NumpyScalars
from ..spec import Spec
from .creation import full_like, zeros_like

FAMILY = "elementwise"
_TAKES: dict[str, Callable[[DType], bool]] = {
    "any": lambda dtype: True,
    "number": lambda dtype: not dtype.is_bool,
    "float": lambda dtype: dtype.is_float,
    "bits": lambda dtype: not dtype.is_float,
}


def same_shape(name: str, specs: tuple[Spec, ...]) -> tuple[int, ...]:
    shape = specs[0].shape
    for spec in specs:
        if spec.shape != shape:
            raise ShapeError(f"{name}: shapes differ", got=" and ".join(map(str, specs)), expected="equal shapes")
    return shape


def _infer(name: str, takes: str, result: DType | None) -> Callable[..., Spec]:
    def infer(*specs: Spec) -> Spec:
        shape = same_shape(name, specs)
        dtype = specs[0].dtype
        for spec in specs:
            if spec.dtype is not dtype:
                raise DTypeError(f"{name}: types differ", got=" and ".join(map(str, specs)), expected="one data type")
        if not _TAKES[takes](dtype):
            wanted = {"number": "numbers", "float": "floating point", "bits": "integers or bool"}[takes]
            raise DTypeError(f"{name}: wrong data type", got=specs[0], expected=wanted, hint="cast the operand first")
        return Spec(shape, result or dtype)

    return infer


def elementwise(
    name: str,
    scalar: Callable[..., Any],
    *,
    vjp: Callable[..., Any] | None = None,
    oracle: str,
    draws: tuple[Draw, ...],
    takes: str = "float",
    result: DType | None = None,
    special: bool = True,
    call: Callable[..., Any] | None = None,
    tolerance: float = 64.0,
    summary: str = "",
) -> Primitive:
    """A row: `scalar(k, *values)` is the meaning; `vjp(g, y, *x)` gives one cotangent per operand."""
    return define(
        name,
        FAMILY,
        infer=_infer(name, takes, result),
        numpy=lambda xp, *arrays: scalar(NumpyScalars(xp), *arrays),
        vjp=vjp,
        scalar=scalar,
        samples=(Sample(draws, oracle, call=call, gradient=vjp is not None, special=special, tolerance=tolerance),),
        summary=summary,
    )


def _one(
    name: str, derivative: Callable[[Any, Any], Any], oracle: str, draw: Draw | None = None, **more: Any
) -> Primitive:
    """A function of one number: the method of that name of the scalar language, and dy/dx from (y, x)."""
    return elementwise(
        name,
        lambda k, x: getattr(k, name)(x),
        vjp=lambda g, y, x: (g * derivative(y, x),),
        oracle=oracle,
        draws=(draw or normal(3, 5),),
        **more,
    )


# One operand ---------------------------------------------------------------------------------------------------------
neg = elementwise(
    "neg",
    lambda k, x: k.neg(x),
    takes="number",
    oracle="numpy.negative",
    draws=(normal(3, 5),),
    vjp=lambda g, y, x: (-g,),
)
abs_ = elementwise(
    "abs",
    lambda k, x: k.abs(x),
    takes="number",
    oracle="numpy.abs",
    draws=(normal(3, 5),),
    vjp=lambda g, y, x: (g * sign(x),),
)


def _step(name: str, oracle: str, **more: Any) -> Primitive:
    """A function that is constant between its jumps, so that its derivative is zero."""
    return elementwise(
        name,
        lambda k, x: getattr(k, name)(x),
        vjp=lambda g, y, x: (None,),
        oracle=oracle,
        draws=(normal(3, 5),),
        **more,
    )


sign: Primitive = _step("sign", "numpy.sign", takes="number")
floor = _step("floor", "numpy.floor")
ceil = _step("ceil", "numpy.ceil")
round_ = _step("round", "numpy.rint", summary="half to even")
sqrt = _one("sqrt", lambda y, x: 0.5 / y, "numpy.sqrt", positive(3, 5))
rsqrt = elementwise(
    "rsqrt",
    lambda k, x: k.div(k.constant(1.0, x), k.sqrt(x)),
    vjp=lambda g, y, x: (g * (-0.5 * y / x),),
    oracle="numpy.sqrt",
    call=lambda sqrt, x: 1 / sqrt(x),
    draws=(positive(3, 5),),
    summary="1 / sqrt(x)",
)
exp = _one("exp", lambda y, x: y, "numpy.exp")
expm1 = _one("expm1", lambda y, x: y + 1.0, "numpy.expm1")
log = _one("log", lambda y, x: 1.0 / x, "numpy.log", positive(3, 5))
log1p = _one("log1p", lambda y, x: 1.0 / (1.0 + x), "numpy.log1p", positive(3, 5))
sin = _one("sin", lambda y, x: cos(x), "numpy.sin")
cos: Primitive = _one("cos", lambda y, x: -sin(x), "numpy.cos")
tan = _one("tan", lambda y, x: 1.0 + y * y, "numpy.tan", uniform(3, 5, low=-1.2, high=1.2))
asin = _one("asin", lambda y, x: rsqrt(1.0 - x * x), "numpy.arcsin", uniform(3, 5, low=-0.9, high=0.9))
acos = _one("acos", lambda y, x: -rsqrt(1.0 - x * x), "numpy.arccos", uniform(3, 5, low=-0.9, high=0.9))
atan = _one("atan", lambda y, x: 1.0 / (1.0 + x * x), "numpy.arctan")
sinh = _one("sinh", lambda y, x: cosh(x), "numpy.sinh")
cosh: Primitive = _one("cosh", lambda y, x: sinh(x), "numpy.cosh")
tanh = _one("tanh", lambda y, x: 1.0 - y * y, "numpy.tanh")
asinh = _one("asinh", lambda y, x: rsqrt(x * x + 1.0), "numpy.arcsinh")
acosh = _one("acosh", lambda y, x: rsqrt(x * x - 1.0), "numpy.arccosh", uniform(3, 5, low=1.3, high=4.0))
atanh = _one("atanh", lambda y, x: 1.0 / (1.0 - x * x), "numpy.arctanh", uniform(3, 5, low=-0.8, high=0.8))
erf = _one("erf", lambda y, x: (2.0 / math.sqrt(math.pi)) * exp(-(x * x)), "scipy.special.erf")
erfinv = _one(
    "erfinv",
    lambda y, x: (math.sqrt(math.pi) / 2.0) * exp(y * y),
    "scipy.special.erfinv",
    uniform(3, 5, low=-0.9, high=0.9),
    tolerance=256.0,
)
lgamma = _one(
    "lgamma", lambda y, x: digamma(x), "math.lgamma", positive(3, 5), call=oracles.per_number, tolerance=256.0
)
digamma: Primitive = _one(
    "digamma", lambda y, x: _trigamma(x), "scipy.special.digamma", positive(3, 5), tolerance=512.0
)


def _trigamma(x: Any) -> Any:
    """The derivative of digamma: eight terms of Σ 1 / (x + k)², then Euler and Maclaurin's series for the rest."""
    reflected = less(x, full_like(x, 0.5))
    z = select(reflected, 1.0 - x, x)
    total = zeros_like(x)
    for _ in range(8):
        total = total + 1.0 / (z * z)
        z = z + 1.0
    w = 1.0 / (z * z)
    series = 7 / 6
    for coefficient in (-691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6, 1.0):
        series = series * w + coefficient
    total = total + series / z + 0.5 * w
    sine = sin(math.pi * x)
    return select(reflected, (math.pi * math.pi) / (sine * sine) - total, total)


isfinite = elementwise(
    "isfinite", lambda k, x: k.isfinite(x), result=bool_, oracle="numpy.isfinite", draws=(normal(3, 5),)
)
invert = elementwise(
    "invert", lambda k, x: k.invert(x), takes="bits", oracle="numpy.invert", draws=(integers(3, 5),), special=False,
    summary="bits flipped; for bool: logical not",
)  # fmt: skip


# Two operands --------------------------------------------------------------------------------------------------------
def _two(name: str, oracle: str, vjp: Callable[..., Any] | None = None, **more: Any) -> Primitive:
    more.setdefault("draws", (normal(3, 5), normal(3, 5)))
    more.setdefault("takes", "number")
    return elementwise(name, lambda k, a, b: getattr(k, name)(a, b), vjp=vjp, oracle=oracle, **more)


def _share(g: Any, mine: Any, other: Any) -> Any:
    """The cotangent of the larger operand of a maximum; ties share it."""
    whole = select(less(other, mine), g, zeros_like(g))
    return select(equal(mine, other), g * 0.5, whole)


add = _two("add", "numpy.add", lambda g, y, a, b: (g, g), takes="any")
sub = _two("sub", "numpy.subtract", lambda g, y, a, b: (g, -g))
mul = _two("mul", "numpy.multiply", lambda g, y, a, b: (g * b, g * a), takes="any")
div = _two(
    "div", "numpy.divide", lambda g, y, a, b: (g / b, -(g * y / b)), takes="float", draws=(normal(3, 5), positive(3, 5))
)
floor_div = _two(
    "floor_div",
    "numpy.floor_divide",
    lambda g, y, a, b: (None, None),
    draws=(normal(3, 5), positive(3, 5)),
    special=False,
    summary="rounded towards −∞",
)
mod = _two(
    "mod",
    "numpy.remainder",
    lambda g, y, a, b: (g, -(g * floor(a / b))),
    draws=(normal(3, 5), positive(3, 5)),
    special=False,
    summary="a − b·floor(a / b): the sign of b, as in Python",
)
pow_ = _two(
    "pow",
    "numpy.power",
    lambda g, y, a, b: (_pow_base(g, a, b), _pow_exponent(g, y, a)),
    draws=(positive(3, 5), normal(3, 5)),
    tolerance=256.0,
)
atan2 = _two(
    "atan2",
    "numpy.arctan2",
    lambda g, y, a, b: (g * b / (a * a + b * b), -(g * a / (a * a + b * b))),
    takes="float",
)
maximum = _two("maximum", "numpy.maximum", lambda g, y, a, b: (_share(g, a, b), _share(g, b, a)), takes="any")
minimum = _two("minimum", "numpy.minimum", lambda g, y, a, b: (_share(g, -a, -b), _share(g, -b, -a)), takes="any")
equal = _two("equal", "numpy.equal", takes="any", result=bool_)
not_equal = _two("not_equal", "numpy.not_equal", takes="any", result=bool_)
less = _two("less", "numpy.less", takes="any", result=bool_)
less_equal = _two("less_equal", "numpy.less_equal", takes="any", result=bool_)
_bits: dict[str, Any] = {"takes": "bits", "special": False, "draws": (integers(3, 5), integers(3, 5))}
bit_and = _two("bit_and", "numpy.bitwise_and", **_bits)
bit_or = _two("bit_or", "numpy.bitwise_or", **_bits)
bit_xor = _two("bit_xor", "numpy.bitwise_xor", **_bits)
_shift: dict[str, Any] = {"takes": "bits", "special": False, "draws": (integers(3, 5), integers(3, 5, low=0, high=9))}
shift_left = _two("shift_left", "numpy.left_shift", **_shift)
shift_right = _two("shift_right", "numpy.right_shift", **_shift)


def _pow_base(g: Any, a: Any, b: Any) -> Any:
    # x ** 0 has slope 0 everywhere, also where a ** −1 is infinite.
    zero = equal(b, zeros_like(b))
    safe = select(zero, full_like(b, 1.0), b)
    return select(zero, zeros_like(g), g * safe * pow_(a, safe - 1))


def _pow_exponent(g: Any, y: Any, a: Any) -> Any:
    # log of the base where it exists; 0 ** b does not move with b > 0.
    inside = less(zeros_like(a), a)
    return select(inside, g * y * log(select(inside, a, full_like(a, 1.0))), zeros_like(g))


# Choice and conversion -----------------------------------------------------------------------------------------------
def _infer_select(condition: Spec, a: Spec, b: Spec) -> Spec:
    shape = same_shape("select", (condition, a, b))
    if not condition.dtype.is_bool or a.dtype is not b.dtype:
        raise DTypeError(
            "select: wrong data types", got=f"{condition}, {a}, {b}", expected="bool, then two operands of one type"
        )
    return Spec(shape, a.dtype)


select: Primitive = define(
    "select",
    FAMILY,
    infer=_infer_select,
    numpy=lambda xp, c, a, b: xp.where(c, a, b),
    scalar=lambda k, c, a, b: k.select(c, a, b),
    vjp=lambda g, y, c, a, b: (None, select(c, g, zeros_like(g)), select(c, zeros_like(g), g)),
    samples=(Sample((booleans(3, 5), normal(3, 5), normal(3, 5)), "numpy.where", special=True),),
    summary="a where the condition holds, else b; the branch not taken adds nothing, not even NaN",
)


def _cast_vjp(g: Any, y: Any, x: Any, *, dtype: DType) -> Any:
    return (cast(g, dtype=x.dtype),) if x.dtype.is_float and dtype.is_float else (None,)


cast = define(
    "cast",
    FAMILY,
    infer=lambda x, *, dtype: Spec(x.shape, dtype),
    numpy=lambda xp, x, *, dtype: NumpyScalars(xp).cast(x, dtype),
    scalar=lambda k, x, *, dtype: k.cast(x, dtype),
    vjp=_cast_vjp,
    samples=(
        Sample(
            (normal(3, 5),), "numpy.asarray", lambda f, x, dtype: f(x).astype("bool"), {"dtype": bool_}, gradient=False
        ),
    ),
    summary="another data type; floats to integers towards zero, saturating, NaN to 0",
)


def _infer_bitcast(x: Spec, *, dtype: DType) -> Spec:
    if x.dtype.size_bytes != dtype.size_bytes:
        raise DTypeError("bitcast: types of different width", got=x, expected=f"{dtype.size_bytes} bytes per element")
    return Spec(x.shape, dtype)


bitcast = define(
    "bitcast",
    FAMILY,
    infer=_infer_bitcast,
    numpy=lambda xp, x, *, dtype: NumpyScalars(xp).bitcast(x, dtype),
    scalar=lambda k, x, *, dtype: k.bitcast(x, dtype),
    samples=(
        Sample(
            (integers(3, 5, low=0, high=2**30, dtype="uint32"),),
            "numpy.ndarray.view",
            lambda view, x, dtype: view(x, dtype.numpy),
            {"dtype": float32},
            gradient=False,
        ),
    ),
    summary="the same bits read as another type of the same width",
)
