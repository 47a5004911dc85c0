"""What is known of a symbol's values without computing them: conditions that rules ask for."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from highlevel.ir.dtypes import DType
from highlevel.ir.graph import Symbol
from highlevel.ir.primitive import REGISTRY

FULL = REGISTRY["full"]
LARGEST_CONSTANT_LOOKED_AT = 64  # elements
DEPTH = 6  # how far up a fact is followed
_MOVEMENT = frozenset({"reshape", "transpose", "broadcast", "slice", "flip"})


# Numbers -------------------------------------------------------------------------------------------------------------
def fill_value(symbol: Symbol) -> Any:
    """The Python number that all elements are, if that is plain to see; else None."""
    node = symbol.node
    if node.primitive is FULL:
        return node.attrs["value"]
    if node.leaf is not None and node.leaf.kind == "constant" and 0 < symbol.spec.size <= LARGEST_CONSTANT_LOOKED_AT:
        return uniform_value(node.leaf.value.numpy())
    return None


def uniform_value(array: Any) -> Any:
    """The number that all elements of an array are, bit by bit, or None."""
    first = array.reshape(-1)[:1]
    if array.tobytes() != first.tobytes() * array.size:
        return None
    return first[0].item() if array.dtype.kind in "biu" else float(first[0])


def rounded(value: Any, dtype: DType) -> Any:
    """The number as the type holds it."""
    if not dtype.is_float:
        return bool(value) if dtype.is_bool else int(value)
    with np.errstate(over="ignore"):
        return float(dtype.numpy.type(value))


def same_number(a: Any, b: Any, dtype: DType) -> bool:
    """Whether two numbers are the same in a type: 0.0 and −0.0 are not, NaN and NaN are."""
    if not dtype.is_float:
        return bool(a == b)
    sign_a, sign_b = math.copysign(1.0, a), math.copysign(1.0, b)
    return sign_a == sign_b if a == b else _round_alike(a, b, sign_a, sign_b, dtype)


@lru_cache(4096)
def _round_alike(a: Any, b: Any, sign_a: float, sign_b: float, dtype: DType) -> bool:
    """Whether two numbers are the same once rounded; with their signs, since 0.0 and −0.0 are equal as arguments."""
    a, b = rounded(math.copysign(a, sign_a), dtype), rounded(math.copysign(b, sign_b), dtype)
    if a != a or b != b:
        return bool(a != a and b != b)
    return bool(a == b and math.copysign(1.0, a) == math.copysign(1.0, b))


def is_power_of_two(value: Any, dtype: DType) -> bool:
    """Whether value and 1 / value are both exact, normal numbers of the type, so that x / value is x · (1 / value)."""
    value = rounded(value, dtype)
    if not (math.isfinite(value) and value):
        return False
    mantissa, exponent = math.frexp(abs(value))
    return mantissa == 0.5 and abs(exponent) < (13 if dtype.size_bytes == 2 and dtype == "float16" else 120)


# Signs ---------------------------------------------------------------------------------------------------------------
def is_never_negative_zero(symbol: Symbol, depth: int = DEPTH) -> bool:
    """Whether no element can be −0.0, so that adding 0.0 changes nothing."""
    if not symbol.spec.dtype.is_float:
        return True
    node, value = symbol.node, fill_value(symbol)
    if value is not None:
        return not same_number(value, -0.0, symbol.spec.dtype)
    if depth == 0 or node.primitive is None:
        return False
    name, inputs = node.primitive.name, node.inputs
    if name == "add":  # −0.0 only if both are
        return any(is_never_negative_zero(operand, depth - 1) for operand in inputs)
    if name == "select":
        return all(is_never_negative_zero(operand, depth - 1) for operand in inputs[1:])
    if name in _MOVEMENT:
        return is_never_negative_zero(inputs[0], depth - 1)
    if name == "cast" and not inputs[0].spec.dtype.is_float:
        return True
    return has_no_sign(symbol, depth)


def has_no_sign(symbol: Symbol, depth: int = DEPTH) -> bool:
    """Whether the sign bit of no element is set, NaN aside: positive, or +0.0."""
    dtype, value = symbol.spec.dtype, fill_value(symbol)
    if dtype.kind in ("uint", "bool"):
        return True
    if value is not None:
        return bool(value >= 0) and not (dtype.is_float and same_number(value, -0.0, dtype))
    node = symbol.node
    if depth == 0 or node.primitive is None or not dtype.is_float:
        return False
    name, inputs = node.primitive.name, node.inputs
    if name in ("abs", "exp", "cosh", "iota"):
        return True
    if name == "mul" and inputs[0].node is inputs[1].node and inputs[0].index == inputs[1].index:
        return True
    if name in ("add", "mul", "div", "maximum", "minimum") or name in _MOVEMENT or name == "sqrt":
        return all(has_no_sign(operand, depth - 1) for operand in inputs)
    if name == "select":
        return all(has_no_sign(operand, depth - 1) for operand in inputs[1:])
    if name == "cast":
        return has_no_sign(inputs[0], depth - 1)
    return False


def is_nonpositive(symbol: Symbol, depth: int = DEPTH) -> bool:
    """Whether no element is greater than zero."""
    node, value = symbol.node, fill_value(symbol)
    if value is not None:
        return bool(value <= 0)
    if depth == 0 or node.primitive is None:
        return False
    if node.primitive.name == "neg" and symbol.spec.dtype.is_float:
        return has_no_sign(node.inputs[0], depth - 1)
    return node.primitive.name in _MOVEMENT and is_nonpositive(node.inputs[0], depth - 1)


# Types ---------------------------------------------------------------------------------------------------------------
def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether each value of `narrow` is one of `wide`, so that going there and back loses nothing."""
    if wide is narrow or narrow.is_bool:
        return True
    if wide.is_bool:
        return False
    if wide.is_float:
        info_wide = _float_bits(wide)
        if narrow.is_float:
            return all(a >= b for a, b in zip(info_wide, _float_bits(narrow), strict=True))
        return bool(info_wide[0] >= narrow.size_bytes * 8 - (narrow.kind == "int"))
    if narrow.is_float:
        return False
    a, b = np.iinfo(wide.numpy), np.iinfo(narrow.numpy)
    return bool(a.min <= b.min and a.max >= b.max)


def _float_bits(dtype: DType) -> tuple[int, int]:
    """(digits of the mantissa, width of the exponent)."""
    return {"float16": (11, 5), "bfloat16": (8, 8), "float32": (24, 8), "float64": (53, 11)}[dtype.name]


# Factors -------------------------------------------------------------------------------------------------------------
def is_float(x: Symbol) -> bool:
    return x.spec.dtype.is_float


def is_whole(x: Symbol) -> bool:
    """Integers and bool: no NaN, no −0.0, sums that wrap around."""
    return not x.spec.dtype.is_float


def is_bool(x: Symbol) -> bool:
    return x.spec.dtype.is_bool


def is_normal(value: float, dtype: DType) -> bool:
    """Whether the type holds a number of that size with all of its digits."""
    smallest = {"float16": 2.0**-14, "float64": 2.0**-1022}.get(dtype.name, 2.0**-126)
    return bool(smallest <= abs(rounded(value, dtype)) < math.inf)


def scales_merge(x: Symbol, C: float, D: float) -> bool:
    """Whether x · c · d is x · (c · d) up to rounding.

    Nothing may overflow on the way that comes back, and what became denormal not grow again by much.
    """
    return is_float(x) and abs(C) <= 1 and abs(D) <= 8 and abs(C * D) <= 1 and is_normal(C * D, x.spec.dtype)


def divides_gently(x: Symbol, C: float) -> bool:
    """Whether x / c is x · (1 / c) up to rounding: neither overflows where the other does not."""
    return is_float(x) and 1 < abs(C) < math.inf and is_normal(1.0 / C, x.spec.dtype)


def divides_exactly(x: Symbol, C: float) -> bool:
    """Whether x / c is x · (1 / c) bit by bit."""
    return abs(C) != 1 and is_power_of_two(C, x.spec.dtype)
