"""Index expressions against NumPy: chains of movements drawn at random, read element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highlevel.backends.native.codegen import indexing as ix
from highlevel.ir import REGISTRY, Spec, as_dtype

SIZES = st.integers(1, 5)


@st.composite
def chains(draw: Any) -> tuple[tuple[int, ...], list[tuple[str, dict[str, Any]]]]:
    """A shape and a chain of movements that fit it."""
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    start, chain = shape, []
    for _ in range(draw(st.integers(1, 5))):
        name, attrs = draw(movements(shape))
        spec = REGISTRY[name].infer(Spec(shape, as_dtype("float32")), **attrs)
        if spec.size > 3000 or not spec.size:
            continue
        chain.append((name, attrs))
        shape = spec.shape
    return start, chain


@st.composite
def movements(draw: Any, shape: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    rank = len(shape)
    name = draw(st.sampled_from(["reshape", "transpose", "broadcast", "slice", "flip", "pad"]))
    if name == "reshape":
        size = int(np.prod(shape))
        sizes: list[int] = []
        while size > 1 and len(sizes) < 4:
            divisor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
            sizes.append(divisor)
            size //= divisor
        return name, {"shape": (*sizes, size)}
    if name == "transpose":
        return name, {"axes": tuple(draw(st.permutations(range(rank))))}
    if name == "broadcast":
        return name, {"shape": tuple(draw(SIZES) if size == 1 else size for size in shape)}
    if name == "flip":
        return name, {"axes": tuple(axis for axis in range(rank) if draw(st.booleans()))}
    if name == "slice":
        start = tuple(draw(st.integers(0, size - 1)) for size in shape)
        stop = tuple(draw(st.integers(a + 1, size)) for a, size in zip(start, shape, strict=True))
        return name, {"start": start, "stop": stop, "step": tuple(draw(st.integers(1, 3)) for _ in shape)}
    small = st.integers(0, 2)
    low, high, interior = (tuple(draw(small) for _ in shape) for _ in range(3))
    return name, {"low": low, "high": high, "interior": interior, "value": -1.0}


def read(array: np.ndarray, chain: list[tuple[str, dict[str, Any]]]) -> tuple[np.ndarray, tuple[ix.Expr, ...]]:
    """The result of a chain, computed through index expressions alone."""
    shapes = [array.shape]
    for name, attrs in chain:
        shapes.append(REGISTRY[name].infer(Spec(shapes[-1], as_dtype("float32")), **attrs).shape)
    final = shapes[-1]
    indices = tuple(ix.var(f"i{axis}", size) for axis, size in enumerate(final))
    values = {f"i{axis}": grid for axis, grid in enumerate(np.indices(final))}
    result = np.full(final, np.nan)
    undecided = np.ones(final, bool)
    for (name, attrs), shape in zip(reversed(chain), reversed(shapes[:-1]), strict=True):
        place = ix.move(name, shape, indices, attrs)
        for condition in place.conditions:
            x = ix.evaluate(condition.x, values)
            if isinstance(condition, ix.Bound):
                holds = (condition.low <= x) & (x < condition.high)
            else:
                holds = x % condition.step == 0
            holds = np.broadcast_to(holds, final)
            result[undecided & ~holds] = place.padding
            undecided &= holds
        indices = place.indices
    found = [np.broadcast_to(ix.evaluate(x, values), final) for x in indices]
    places = [np.clip(x, 0, size - 1) for x, size in zip(found, array.shape, strict=True)]
    return np.where(undecided, array[tuple(places)], result), indices


@settings(max_examples=400, deadline=None)
@given(chains())
def test_chains_of_movements_are_numpys(drawn: Any) -> None:
    shape, chain = drawn
    array = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    expected = array
    for name, attrs in chain:
        expected = REGISTRY[name].numpy(np, expected, **attrs)
    found, _ = read(array, chain)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_bounds_hold_and_simplification_keeps_values(data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=3))
    variables = [ix.var(f"i{k}", size) for k, size in enumerate(sizes)]
    values = {f"i{k}": grid for k, grid in enumerate(np.indices(sizes))}
    x: ix.Expr = ix.const(data.draw(st.integers(-9, 9)))
    expected: Any = np.full(sizes, x.low)
    for _ in range(data.draw(st.integers(1, 7))):
        kind = data.draw(st.sampled_from(["add", "mul", "div", "mod"]))
        number = data.draw(st.integers(1, 12))
        if kind == "add":
            term = data.draw(st.sampled_from(variables))
            x, expected = ix.add(x, ix.mul(term, number)), expected + number * ix.evaluate(term, values)
        elif kind == "mul":
            factor = data.draw(st.sampled_from([-2, 2, 3, number]))
            x, expected = ix.mul(x, factor), expected * factor
        elif kind == "div":
            x, expected = ix.floor_div(x, number), expected // number
        else:
            x, expected = ix.remainder(x, number), expected % number
        np.testing.assert_array_equal(np.broadcast_to(ix.evaluate(x, values), sizes), expected)
        assert x.low <= expected.min() and expected.max() <= x.high


@pytest.mark.parametrize(
    ("shape", "chain", "expected"),
    [
        ((2, 3), [("reshape", {"shape": (6,)}), ("reshape", {"shape": (2, 3)})], ["i0", "i1"]),
        ((4, 6), [("reshape", {"shape": (4, 2, 3)}), ("transpose", {"axes": (1, 0, 2)})], ["i1", "(i0*3 + i2)"]),
        (
            (2, 4, 4, 3),
            [
                ("reshape", {"shape": (2, 2, 2, 2, 2, 3)}),
                ("transpose", {"axes": (0, 1, 3, 2, 4, 5)}),
                ("reshape", {"shape": (8, 4, 3)}),
            ],
            ["(i0 // 4)", "((i1 // 2) + ((i0 // 2) % 2)*2)", "((i0 % 2)*2 + (i1 % 2))", "i2"],
        ),
        ((8,), [("flip", {"axes": (0,)}), ("flip", {"axes": (0,)})], ["i0"]),
        (
            (12,),
            [("reshape", {"shape": (3, 4)}), ("slice", {"start": (1, 0), "stop": (3, 4), "step": (1, 2)})],
            ["(i0*4 + i1*2 + 4)"],
        ),
    ],
)  # fmt: skip
def test_what_reshapes_introduce_cancels(shape: tuple[int, ...], chain: Any, expected: list[str]) -> None:
    _, indices = read(np.zeros(shape, "float32"), chain)
    assert [sorted(str(x)) for x in indices] == [sorted(text) for text in expected]
