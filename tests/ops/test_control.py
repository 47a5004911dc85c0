"""Functions of functions: the same on numbers and on symbols, and differentiable."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

keras = pytest.importorskip("keras")

X = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(4, 3)


def both(function, *args):
    """The result on numbers, after checking that the compiled program gives the same."""
    eager = function(*args)
    compiled = hl.jit(function)(*args)
    for a, b in zip(hl.tree.leaves(eager), hl.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-6)
    return eager


@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_cond(value):
    x = np.float32(value)
    found = both(lambda x: ops.cond(x > 0, lambda: x * 2, lambda: x - 1), x)
    assert float(found) == (value * 2 if value > 0 else value - 1)
    slope = hl.grad(lambda x: ops.cond(x > 0, lambda: x * x, lambda: 3 * x))(x)
    assert float(slope) == (2 * value if value > 0 else 3)


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 3, 4, 9])
def test_switch(index):
    branches = [lambda x, n=n: x * n for n in range(5)]
    found = both(lambda i, x: ops.switch(i, branches, x), np.int32(index), np.float32(2.0))
    assert float(found) == float(keras.ops.switch(index, branches, 2.0))


def test_switch_without_branches():
    with pytest.raises(ArgumentError, match="switch"):
        ops.switch(0, [])


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse):
    def step(keras_or_ours):
        return lambda carry, x: (carry + x, keras_or_ours.sin(carry * x))

    found = both(lambda x: ops.scan(step(ops), np.zeros(3, np.float32), x, reverse=reverse), X)
    wanted = keras.ops.scan(step(keras.ops), np.zeros(3, np.float32), X, reverse=reverse)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-5, atol=1e-6)


def test_while_loop():
    found = both(lambda x: ops.while_loop(lambda i, y: i < 5, lambda i, y: (i + 1, y * 1.5), (0, x)), np.float32(1.0))
    assert int(found[0]) == 5
    assert float(found[1]) == 1.5**5
    single = both(lambda x: ops.while_loop(lambda y: y < 10.0, lambda y: y * 2, x), np.float32(1.0))
    assert float(single) == 16.0


def test_while_loop_is_differentiable_if_bounded():
    f = lambda x: ops.while_loop(lambda y: y < 10.0, lambda y: y * x, x, maximum_iterations=20)  # noqa: E731
    assert float(hl.grad(f)(np.float32(2.0))) == 4 * 2.0**3  # x⁴ at 2


@pytest.mark.parametrize(("lower", "upper"), [(0, 4), (2, 5), (3, 3), (5, 2)])
def test_fori_loop(lower, upper):
    body = lambda i, v: v + i * 2  # noqa: E731
    found = both(lambda x: ops.fori_loop(lower, upper, body, x), np.float32(1.0))
    assert float(found) == keras.ops.fori_loop(lower, upper, body, 1.0)
    found = both(lambda n, x: ops.fori_loop(lower, n, body, x), np.int32(upper), np.float32(1.0))
    assert float(found) == keras.ops.fori_loop(lower, upper, body, 1.0)


@pytest.mark.parametrize("name", ["map", "vectorized_map"])
def test_map(name):
    found = both(lambda x: getattr(ops, name)(lambda row: ops.sum(row) * row, x), X)
    np.testing.assert_allclose(found.numpy(), X.sum(1, keepdims=True) * X, rtol=1e-5, atol=1e-6)
    pair = getattr(ops, name)(lambda rows: {"sum": rows["a"] + rows["b"], "b": rows["b"]}, {"a": X, "b": X})
    np.testing.assert_array_equal(pair["sum"].numpy(), X + X)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(axis, reverse):
    x = np.random.default_rng(0).uniform(0.5, 1.5, (7, 5)).astype(np.float32)
    found = both(lambda x: ops.associative_scan(lambda a, b: a * b, x, reverse=reverse, axis=axis), x)
    wanted = np.flip(np.cumprod(np.flip(x, axis), axis), axis) if reverse else np.cumprod(x, axis)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_associative_scan_of_a_tree():
    """Not commutative: a linear recurrence, h = a·h + b."""
    a, b = np.float32([0.5, 2.0, -1.0, 3.0, 0.1]), np.float32([1.0, 2.0, 3.0, 4.0, 5.0])
    combine = lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1])  # noqa: E731
    _, h = both(lambda a, b: ops.associative_scan(combine, (a, b)), a, b)
    state, wanted = 0.0, []
    for i in range(5):
        state = a[i] * state + b[i]
        wanted.append(state)
    np.testing.assert_allclose(h.numpy(), wanted, rtol=1e-5)
    with pytest.raises(ShapeError, match="associative_scan"):
        ops.associative_scan(combine, (a, b[:3]))


def test_vectorize():
    plain = ops.vectorize(lambda x, y: x * y + 1)
    np.testing.assert_allclose(both(plain, X, X[0]).numpy(), X * X[0] + 1, rtol=1e-6)
    distance = ops.vectorize(lambda x, y: ops.sum((x - y) ** 2), signature="(n),(n)->()")
    np.testing.assert_allclose(both(distance, X, X[1]).numpy(), ((X - X[1]) ** 2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(distance(X[0], X[1]).numpy(), ((X[0] - X[1]) ** 2).sum(), rtol=1e-5)
    whole = ops.vectorize(lambda x, table: table[0] * x, excluded={1})
    np.testing.assert_allclose(whole(X, X[1]).numpy(), X * X[1, 0], rtol=1e-6)


def test_custom_gradient_and_jvp():
    @ops.custom_gradient
    def twice(x):
        return x * 2, lambda upstream: upstream * 10

    assert float(hl.grad(lambda x: ops.sum(twice(x)))(np.float32(3.0))) == 10
    y, slope = ops.jvp(lambda x: x * x, [np.float32(3.0)], [np.float32(2.0)])
    assert (float(y), float(slope)) == (9.0, 12.0)
    y, slope, more = ops.jvp(lambda x: (x * x, x + 1), [np.float32(3.0)], [np.float32(2.0)], has_aux=True)
    assert (float(y), float(slope), float(more)) == (9.0, 12.0, 4.0)


def test_slices_at_symbolic_places():
    found = hl.jit(lambda x, i: ops.slice(x, (i, 1), (2, 2)))(X, np.int32(1))
    np.testing.assert_array_equal(found.numpy(), X[1:3, 1:3])
    found = hl.jit(lambda x, i: ops.slice(x, (i, 1), (2, 2)))(X, np.int32(9))  # moved back inside
    np.testing.assert_array_equal(found.numpy(), X[2:4, 1:3])
    found = hl.jit(lambda x, i: ops.slice_update(x, (i, 1), np.ones((2, 2), np.float32)))(X, np.int32(1))
    wanted = X.copy()
    wanted[1:3, 1:3] = 1
    np.testing.assert_array_equal(found.numpy(), wanted)
    slope = hl.grad(lambda x, i: ops.sum(ops.slice(x, (i, 0), (1, 3)) ** 2))(X, np.int32(2))
    np.testing.assert_allclose(slope.numpy()[2], 2 * X[2], rtol=1e-6)


def test_lists_of_symbols_become_tensors():
    found = hl.jit(lambda x, y: ops.convert_to_tensor([[x, y], [y, 1.0]]))(np.float32(2.0), np.float32(3.0))
    np.testing.assert_array_equal(found.numpy(), [[2, 3], [3, 1]])
