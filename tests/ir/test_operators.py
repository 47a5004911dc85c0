"""Promotion, broadcasting, matrix products and indexing against NumPy."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from highlevel.errors import ArgumentError, DTypeError, HighlevelError, ShapeError
from highlevel.ir import Tensor, Variable, jit, operators
from highlevel.ir.dtypes import ALL, promote

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
BITS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
quick = settings(max_examples=60, deadline=None)


# Broadcasting --------------------------------------------------------------------------------------------------------
@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3, min_side=0))
def test_broadcasting_is_numpys(shapes: Any) -> None:
    assert operators.broadcast_shapes(*shapes.input_shapes) == shapes.result_shape
    a, b = (np.arange(np.prod(s), dtype=np.float32).reshape(s) for s in shapes.input_shapes[:2])
    np.testing.assert_array_equal((Tensor.of(a) + Tensor.of(b)).numpy(), a + b)


@quick
@given(hnp.array_shapes(max_dims=3, max_side=3), hnp.array_shapes(max_dims=3, max_side=3))
def test_what_numpy_does_not_broadcast_is_an_error(a: Any, b: Any) -> None:
    try:
        want = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError, match=r"add: shapes do not broadcast\n  got: .* and "):
            _ = Tensor.of(np.zeros(a)) + Tensor.of(np.zeros(b))
    else:
        assert operators.broadcast_shapes(a, b) == want


def test_the_missing_axis_is_hinted_at() -> None:
    with pytest.raises(ShapeError, match="add the missing axis with"):
        operators.broadcast_shapes((32,), (32, 10))


@pytest.mark.parametrize(("shape", "target"), [((3,), (2, 3)), ((1, 3), (4, 3)), ((), (2, 2)), ((2, 1), (2, 0))])
def test_broadcast_to(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(operators.broadcast_to(x, target).numpy(), np.broadcast_to(x, target))


@pytest.mark.parametrize("target", [(3,), (2, 4), (3, 2, 2)])
def test_broadcast_to_what_does_not_fit(target: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        operators.broadcast_to(np.zeros((2, 3)), target)


# Python's operators --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", ARITHMETIC + COMPARISONS, ids=lambda f: f.__name__)
def test_operators_with_arrays_and_numbers(function: Any, rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 3)).astype("float32")
    b = (rng.random((3,)) + 0.5).astype("float32")
    x, y = Tensor.of(a), Tensor.of(b)
    for ours, theirs in [
        (function(x, y), function(a, b)),
        (function(x, b), function(a, b)),
        (function(a, y), function(a, b)),
        (function(x, 2), function(a, np.float32(2))),
        (function(2.5, y), function(np.float32(2.5), b)),
        (function(x, Variable(b)), function(a, b)),
    ]:
        assert isinstance(ours, Tensor)
        assert ours.numpy().dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


@pytest.mark.parametrize("function", [*BITS, operator.floordiv, operator.mod, operator.pow], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_operators_on_integers(function: Any, dtype: str) -> None:
    a, b = np.array([7, 5, 100], dtype), np.array([2, 3, 1], dtype)
    for ours, theirs in [
        (function(Tensor.of(a), Tensor.of(b)), function(a, b)),
        (function(3, Tensor.of(b)), function(np.array(3, dtype), b)),
        (function(Tensor.of(a), 3), function(a, np.array(3, dtype))),
    ]:
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_unary_operators() -> None:
    a = np.array([-1.5, 2.0, -0.0], "float32")
    x = Tensor.of(a)
    np.testing.assert_array_equal((-x).numpy(), -a)
    np.testing.assert_array_equal(abs(x).numpy(), abs(a))
    assert (+x) is x
    np.testing.assert_array_equal((~Tensor.of([True, False])).numpy(), [False, True])
    np.testing.assert_array_equal((~Tensor.of([1, -5])).numpy(), [-2, 4])
    np.testing.assert_array_equal(abs(Tensor.of(np.array([1, 250], "uint8"))).numpy(), [1, 250])


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -0.5, -1, -2, 2.5, 4])
def test_powers(exponent: float) -> None:
    a = np.array([0.5, 1.0, 2.0], "float32")
    np.testing.assert_allclose((Tensor.of(a) ** exponent).numpy(), a ** np.float32(exponent), rtol=1e-6)
    assert (Tensor.of(a) ** exponent).dtype == "float32"
    np.testing.assert_allclose((2.0 ** Tensor.of(a)).numpy(), 2.0**a, rtol=1e-6)


def test_powers_of_integers_are_integers_unless_the_exponent_is_not() -> None:
    assert (Tensor.of([2, 3]) ** 2).tolist() == [4, 9]
    assert (Tensor.of([2, 3]) ** 2).dtype == "int32"
    assert (Tensor.of([4, 9]) ** 0.5).tolist() == [2, 3]


def test_types_are_promoted() -> None:
    for a, b in itertools.product(ALL, ALL):
        result = Tensor.of([1], a) * Tensor.of([1], b)
        assert result.dtype is promote(a, b)
    assert (Tensor.of([1]) / Tensor.of([2])).dtype == "float32"
    assert (Tensor.of([1.0], "float16") + 2.5).dtype == "float16"
    assert (Tensor.of([1.0]) * np.float64(2)).dtype == "float32"  # a float is a float, whoever computed it
    assert (Tensor.of([1.0]) * np.array([2.0])).dtype == "float64"


@pytest.mark.parametrize(("dtype", "number"), [("uint8", 256), ("uint8", -1), ("int8", 128), ("int32", 2**31)])
def test_numbers_that_do_not_fit_are_an_error(dtype: str, number: int) -> None:
    with pytest.raises(ArgumentError, match=f"{number} does not fit into {dtype}"):
        _ = Tensor.of([1], dtype) + number


# Shapes --------------------------------------------------------------------------------------------------------------
def test_reshape() -> None:
    x = Tensor.of(np.arange(12))
    assert x.reshape(3, 4).shape == x.reshape((3, 4)).shape == x.reshape([3, -1]).shape == (3, 4)
    assert x.reshape(-1).shape == (12,)
    assert Tensor.of(np.zeros((0, 3))).reshape(3, -1).shape == (3, 0)
    for sizes in [(5, -1), (-1, -1), (0, -1), (7,), (-2, 6)]:
        with pytest.raises(ShapeError, match="reshape"):
            x.reshape(*sizes)


def test_transpose() -> None:
    a = np.arange(24).reshape(2, 3, 4)
    x = Tensor.of(a)
    np.testing.assert_array_equal(x.T.numpy(), a.T)
    np.testing.assert_array_equal(operators.transpose(x, (0, -1, 1)).numpy(), a.transpose(0, 2, 1))
    with pytest.raises(ArgumentError, match="axis 3 does not exist"):
        operators.transpose(x, (0, 1, 3))
    with pytest.raises(ShapeError, match="permutation"):
        operators.transpose(x, (0, 1, 1))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((5, 2, 3), (5, 3, 1)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul_is_numpys(a: Any, b: Any, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    ours = Tensor.of(x) @ Tensor.of(y)
    np.testing.assert_allclose(ours.numpy(), x @ y, rtol=1e-12, atol=1e-12)
    assert ours.shape == (x @ y).shape
    np.testing.assert_allclose((x @ Tensor.of(y)).numpy(), x @ y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 3)), ((3,), (2,)), ((), (3,)), ((2, 2, 3), (3, 3, 4))])
def test_matmul_names_the_sizes(a: Any, b: Any) -> None:
    with pytest.raises(ShapeError, match=r"matmul"):
        _ = Tensor.of(np.zeros(a)) @ Tensor.of(np.zeros(b))


# Indexing ------------------------------------------------------------------------------------------------------------
@st.composite
def indexed(draw: Any) -> tuple[np.ndarray[Any, Any], Any]:
    """An array, and any mixture of integers, slices, None, `...`, index arrays and masks for it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    items: list[Any] = []
    axis = 0
    index_shape = draw(hnp.array_shapes(max_dims=2, max_side=3))
    dots = False
    while axis < len(shape):
        size = shape[axis]
        kinds = ["slice", "slice", "none", "stop"]
        kinds += ["int", "array", "array", "list"] if size else []
        kinds += ["mask"] + ([] if dots else ["dots"])
        kind = draw(st.sampled_from(kinds))
        if kind == "stop":
            break
        if kind == "none":
            items.append(None)
            continue
        if kind == "dots":
            dots = True
            items.append(...)
            axis += draw(st.integers(0, len(shape) - axis))
            continue
        if kind == "slice":
            items.append(draw(st.slices(size)))
        elif kind == "int":
            items.append(draw(st.integers(-size, size - 1)))
        elif kind == "list":
            items.append(draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=1)))
        elif kind == "array":
            dtype = draw(st.sampled_from(["int32", "int64", "int8"]))
            items.append(draw(hnp.arrays(dtype, index_shape, elements=st.integers(-size, size - 1))))
        else:
            items.append(draw(hnp.arrays(bool, (size,))))
        axis += 1
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return array, items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@settings(max_examples=400, deadline=None)
@given(indexed())
def test_indexing_is_numpys(case: Any) -> None:
    array, index = case
    try:
        want = array[index]
    except IndexError:
        with pytest.raises(HighlevelError):
            Tensor.of(array)[index]
        return
    try:
        got = Tensor.of(array)[index]
    except ShapeError as error:  # NumPy does not look at the sizes of masks if nothing is selected anyway
        assert "mask" in str(error)
        assert want.size == 0
        return
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.numpy(), want)
    if want.size < 50:
        np.testing.assert_array_equal(jit(lambda x: x[index])(Tensor.of(array)).numpy(), want)


@settings(max_examples=100, deadline=None)
@given(hnp.array_shapes(max_dims=3, max_side=4), st.data())
def test_basic_indexing_of_hypothesis(shape: Any, data: Any) -> None:
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    array = np.arange(np.prod(shape)).reshape(shape)
    want = array[index]
    got = Tensor.of(array)[index]
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.numpy(), want)


@settings(max_examples=100, deadline=None)
@given(hnp.array_shapes(min_dims=2, max_dims=3, max_side=3), st.data())
def test_masks_of_several_axes(shape: Any, data: Any) -> None:
    mask = data.draw(hnp.arrays(bool, shape[:2]))
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(Tensor.of(array)[mask].numpy(), array[mask])
    np.testing.assert_array_equal(Tensor.of(array)[Tensor.of(mask)].numpy(), array[mask])


@quick
@given(hnp.array_shapes(min_dims=2, max_dims=3, max_side=3), st.data())
def test_traced_indices(shape: Any, data: Any) -> None:
    """Indices that are symbols – also scalar ones – give what NumPy gives for their values."""
    assume(all(shape))
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    row = data.draw(
        hnp.arrays(
            "int32", data.draw(st.sampled_from([(), (2,), (2, 2)])), elements=st.integers(-shape[0], shape[0] - 1)
        )
    )
    column = data.draw(st.integers(-shape[1], shape[1] - 1))
    pick = jit(lambda x, i, j: (x[i], x[i, j], x[:, j], x[j - j, :], x[i, :, None]))
    got = pick(Tensor.of(array), Tensor.of(row), Tensor.of(column))
    for ours, theirs in zip(
        got, (array[row], array[row, column], array[:, column], array[0], array[row, :, None]), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_empty_lists_index_nothing() -> None:
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(Tensor.of(array)[[]].numpy(), array[[]])
    np.testing.assert_array_equal(Tensor.of(array)[:, []].numpy(), array[:, []])


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (5, ArgumentError),
        (-6, ArgumentError),
        (np.array([0, 5]), ArgumentError),
        ([-6], ArgumentError),
        ((0, 0, 0), ShapeError),
        ((..., ...), ArgumentError),
        (1.0, DTypeError),
        ("a", DTypeError),
        (True, DTypeError),
        (np.array([0.5]), DTypeError),
        (np.array([True, False]), ShapeError),
        (np.zeros((5, 2), bool), ShapeError),
    ],
)
def test_indices_that_do_not_fit(index: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Tensor.of(np.zeros((5, 3)))[index]
