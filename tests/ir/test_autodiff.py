"""Derivatives against JAX, PyTorch and differences."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from highlevel import ops
from highlevel.errors import GradientError
from highlevel.ir import (
    Symbol,
    Tensor,
    Variable,
    grad,
    gradients,
    jit,
    jvp,
    operators,
    primitives,
    spec,
    stop_gradient,
    trace_graph,
    value_and_grad,
    vjp,
)

# Functions of arrays over an array module, ours or JAX's --------------------------------------------------------------


def mixed(m: Any, x: Any, y: Any) -> Any:
    return m.sum(m.sin(x) * m.exp(-y) + x / (1.0 + y * y) - m.tanh(x - y) ** 3)


def network(m: Any, x: Any, w: Any) -> Any:
    hidden = m.tanh(m.matmul(x, w))
    return m.mean((m.matmul(hidden, m.transpose(w)) - x) ** 2)


def broadcasting(m: Any, x: Any, y: Any) -> Any:
    return m.sum(x[:, None, :] * y[None, :, :] + x[0] * 2.0) / m.sum(m.exp(y[:, :1]))


def shapes(m: Any, x: Any, y: Any) -> Any:
    z = m.concatenate([m.transpose(x), m.reshape(y, (4, 3))], axis=0)
    return m.sum(z[::-2, 1:] * z[1::2, :2]) + m.sum(m.flip(z, 0)[2] * z[-1])


def reductions(m: Any, x: Any, y: Any) -> Any:
    return m.max(x, axis=0)[1] * m.min(y) + m.sum(m.prod(x, axis=1)) - m.mean(m.max(m.abs(y), axis=1))


def gathering(m: Any, x: Any, y: Any) -> Any:
    return m.sum(x[np.array([2, 0, 2])] * y[np.array([1, 1, 0])] ** 2) + x[-1, 2] * y[0, 0]


def powers(m: Any, x: Any, y: Any) -> Any:
    base = m.abs(x) + 0.5
    return m.sum(base**y + base**2 + 2.0**y + base**-0.5)


def diamond(m: Any, x: Any, y: Any) -> Any:
    a = x * y
    b = m.sin(a)
    return m.sum(a * b + b * b * a + a)


FUNCTIONS: list[Callable[..., Any]] = [mixed, network, broadcasting, shapes, reductions, gathering, powers, diamond]
SHAPES = {network: ((3, 4), (4, 4))}
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@pytest.fixture
def jax() -> Any:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


def draw(function: Any, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    return [rng.standard_normal(shape) for shape in SHAPES.get(function, ((3, 4), (3, 4)))]


def ours(function: Any) -> Callable[..., Any]:
    return lambda *args: function(ops, *args)


def theirs(jax: Any, function: Any) -> Callable[..., Any]:
    return lambda *args: function(jax.numpy, *args)


def close(a: Any, b: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=rtol)


# First and second order ----------------------------------------------------------------------------------------------
@every_function
def test_gradients_are_those_of_jax(function: Any, rng: Any, jax: Any) -> None:
    arrays = draw(function, rng)
    value, found = value_and_grad(ours(function), (0, 1))(*map(Tensor.of, arrays))
    close(value, theirs(jax, function)(*map(jax.numpy.asarray, arrays)))
    for a, b in zip(found, jax.grad(theirs(jax, function), (0, 1))(*map(jax.numpy.asarray, arrays)), strict=True):
        assert a.dtype == "float64"
        close(a, b)


@every_function
def test_gradients_are_differences(function: Any, rng: Any, directional: Any) -> None:
    arrays, directions = draw(function, rng), draw(function, rng)
    found = grad(ours(function), (0, 1))(*map(Tensor.of, arrays))
    (want,) = directional(ours(function), arrays, directions)
    close(sum(float(np.sum(g.numpy() * d)) for g, d in zip(found, directions, strict=True)), want, 1e-7)


@every_function
def test_hessian_products_are_those_of_jax(function: Any, rng: Any, jax: Any, directional: Any) -> None:
    arrays, directions = draw(function, rng), draw(function, rng)

    def product(module: Any, gradient: Any, f: Any, *primals: Any) -> Any:
        def slope(*args: Any) -> Any:
            found = gradient(f, (0, 1))(*args)
            return sum(module.sum(g * d) for g, d in zip(found, directions, strict=True))

        return gradient(slope, (0, 1))(*primals)

    found = product(ops, grad, ours(function), *map(Tensor.of, arrays))
    want = product(jax.numpy, jax.grad, theirs(jax, function), *map(jax.numpy.asarray, arrays))
    for a, b in zip(found, want, strict=True):
        close(a, b, 1e-8)
    for a, b in zip(found, directional(grad(ours(function), (0, 1)), arrays, directions), strict=True):
        close(a, b, 1e-6)  # Schwarz: the Hessian is symmetric


@every_function
def test_jvp_is_that_of_jax(function: Any, rng: Any, jax: Any) -> None:
    arrays, directions = draw(function, rng), draw(function, rng)
    y, pushed = jvp(ours(function), [Tensor.of(a) for a in arrays], [Tensor.of(d) for d in directions])
    want_y, want = jax.jvp(theirs(jax, function), tuple(arrays), tuple(directions))
    close(y, want_y)
    close(pushed, want)


@every_function
def test_vjp_is_that_of_jax(function: Any, rng: Any, jax: Any) -> None:
    arrays = draw(function, rng)
    y, pull = vjp(ours(function), *map(Tensor.of, arrays))
    want_y, want_pull = jax.vjp(theirs(jax, function), *arrays)
    close(y, want_y)
    for a, b in zip(pull(2.5), want_pull(jax.numpy.asarray(2.5)), strict=True):
        close(a, b)


def test_derivatives_of_vectors_and_trees(rng: Any, jax: Any) -> None:
    def function(m: Any, x: Any) -> Any:
        return {"a": m.sin(x["w"]) * x["b"][0], "b": (m.sum(x["w"]), x["b"][0] ** 2)}

    primal = {"w": rng.standard_normal(3), "b": [rng.standard_normal(3)]}
    tangent = {"w": rng.standard_normal(3), "b": [rng.standard_normal(3)]}
    y, pushed = jvp(ours(function), [primal], [tangent])
    want_y, want = jax.jvp(theirs(jax, function), (primal,), (tangent,))
    assert set(y) == set(pushed) == {"a", "b"}
    jax.tree.map(close, jax.tree.map(lambda t: t.numpy(), (y, pushed)), (want_y, want))
    cotangent = {"a": rng.standard_normal(3), "b": (np.float64(0.5), rng.standard_normal(3))}
    _, pull = vjp(ours(function), primal)
    _, want_pull = jax.vjp(theirs(jax, function), primal)
    jax.tree.map(
        close, jax.tree.map(lambda t: t.numpy(), pull(cotangent)), want_pull(jax.tree.map(jax.numpy.asarray, cotangent))
    )


def test_gradients_are_those_of_torch(rng: Any) -> None:
    torch = pytest.importorskip("torch")
    x, w = rng.standard_normal((5, 3)), rng.standard_normal((3, 4))
    a, b = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    loss = torch.logsumexp(torch.relu(a @ b) - torch.sigmoid(a).sum(1, keepdim=True), 1).mean()
    loss.backward()

    def function(x: Any, w: Any) -> Any:
        return ops.mean(ops.logsumexp(ops.relu(x @ w) - ops.sum(ops.sigmoid(x), axis=1, keepdims=True), axis=1))

    value, (gx, gw) = value_and_grad(function, (0, 1))(x, w)
    close(value, loss.detach())
    close(gx, a.grad)
    close(gw, b.grad)


def test_third_order(jax: Any) -> None:
    def third(gradient: Any, m: Any) -> Any:
        return gradient(gradient(gradient(lambda x: m.exp(m.sin(x)) * x**4)))

    close(third(grad, ops)(Tensor.of(np.float64(0.7))), third(jax.grad, jax.numpy)(0.7), 1e-8)


def test_forward_over_reverse_over_forward(jax: Any) -> None:
    def nested(gradient: Any, push: Any, m: Any) -> Any:
        def inner(x: Any) -> Any:
            return push(lambda y: m.sin(y) * y**2, (x,), (m.ones_like(x),))[1]

        return push(gradient(inner), (np.float64(0.3),), (np.float64(1.0),))[1]

    close(nested(grad, jvp, ops), nested(jax.grad, jax.jvp, jax.numpy))


# Arguments are their own ---------------------------------------------------------------------------------------------
def test_derivatives_inside_of_derivatives_do_not_mix_up_their_arguments() -> None:
    """The derivative of y ↦ x·y is x, also where y happens to be x."""
    inner = grad(lambda x: x * grad(lambda y: x * y)(x))
    assert inner(3.0).item() == 6.0  # (x·x)′
    assert grad(lambda x: grad(lambda y: y * stop_gradient(y) + x)(x))(5.0).item() == 0.0


@pytest.mark.parametrize("compiled", [False, True])
def test_the_same_value_for_two_arguments(compiled: bool) -> None:
    def run(x: Any) -> Any:
        return grad(lambda a, b: a * a * b, (0, 1))(x, x)

    a, b = (jit(run) if compiled else run)(Tensor.of(3.0))
    assert (a.item(), b.item()) == (18.0, 9.0)

    def push(x: Any) -> Any:
        return jvp(lambda a, b: a * a * b, (x, x), (Tensor.of(1.0), Tensor.of(0.0)))[1]

    assert (jit(push) if compiled else push)(Tensor.of(3.0)).item() == 18.0

    def pull(x: Any) -> Any:
        return vjp(lambda a, b: a * a * b, x, x)[1](Tensor.of(1.0))

    assert [g.item() for g in (jit(pull) if compiled else pull)(Tensor.of(3.0))] == [18.0, 9.0]


def test_what_a_function_closes_over_is_constant() -> None:
    x = Tensor.of(2.0)
    assert grad(lambda y: x * y)(x).item() == 2.0
    assert jit(lambda x: grad(lambda y: x * y)(x))(x).item() == 2.0


def test_argnums_and_auxiliary_results() -> None:
    def function(a: Any, b: Any, scale: float, *, square: bool = False) -> Any:
        y = ops.sum(a * b["k"] * scale)
        return (y * y if square else y), {"scale": scale, "a": a}

    a, b = Tensor.of([1.0, 2.0]), {"k": Tensor.of([3.0, 4.0]), "unused": Tensor.of(1.0)}
    (value, more), found = value_and_grad(function, 1, has_aux=True)(a, b, 2.0, square=True)
    assert value.item() == 22.0**2
    assert more["scale"] == 2.0
    assert more["a"].tolist() == [1.0, 2.0]
    assert found["k"].tolist() == [2 * 22 * 2.0, 2 * 22 * 4.0]
    assert found["unused"].item() == 0.0
    _, (gb, ga) = value_and_grad(function, (1, 0), has_aux=True)(a, b, 2.0)
    assert ga.tolist() == [6.0, 8.0]
    assert gb["k"].tolist() == [2.0, 4.0]
    assert value_and_grad(function, [0], has_aux=True)(a, b, 2.0)[1][0].tolist() == [6.0, 8.0]


def test_numbers_as_arguments() -> None:
    assert grad(lambda x: x * x)(3.0).item() == 6.0
    assert grad(lambda x: x * x)(np.float64(3.0)).dtype == "float64"
    assert jvp(lambda x: x * x, [3.0], [1.0])[1].item() == 6.0
    assert vjp(lambda x: x * x, 3.0)[1](2.0)[0].item() == 12.0


def test_named_tuples_of_parameters() -> None:
    class Parameters(NamedTuple):
        w: Any
        b: Any

    found = grad(lambda p: ops.sum(p.w * 2.0 + p.b))(Parameters(Tensor.of([1.0, 2.0]), Tensor.of(0.0)))
    assert isinstance(found, Parameters)
    assert found.w.tolist() == [2, 2]
    assert found.b.item() == 2.0


def test_integers_ride_along() -> None:
    table, rows = Tensor.of([[1.0, 2.0], [3.0, 4.0]]), Tensor.of([1, 1])
    assert grad(lambda t, r: ops.sum(t[r] ** 2))(table, rows).tolist() == [[0, 0], [12, 16]]
    y, pull = vjp(lambda t, r: t[r], table, rows)
    assert y.shape == (2, 2)
    gt, gr = pull(np.ones((2, 2), np.float32))
    assert gt.tolist() == [[0, 0], [2, 2]]
    assert gr is None
    (y, n), (dy, dn) = jvp(lambda t, r: (t[r], r + 1), [table, rows], [table, rows])
    assert dy.tolist() == y.tolist()
    assert (dn.tolist(), dn.dtype) == ([0, 0], n.dtype)
    with pytest.raises(GradientError, match="only floating-point values have gradients"):
        grad(lambda x: ops.sum(x * 2.5))(Tensor.of([1, 2]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradients_have_the_type_of_their_operand(dtype: str) -> None:
    x, y = Tensor.of([1.0, 2.0], dtype), Tensor.of([3.0, 4.0])
    gx, gy = grad(lambda x, y: ops.sum(ops.cast(x, "float32") * y * ops.cast(x, "float32")), (0, 1))(x, y)
    assert gx.dtype == dtype
    assert gx.tolist() == [6, 16]
    assert gy.tolist() == [1, 4]


# gradients(…) in a trace ---------------------------------------------------------------------------------------------
def traced(function: Any, *args: Any) -> Any:
    return jit(function)(*args)


def test_weights_of_several_outputs() -> None:
    x = Tensor.of([1.0, 2.0])
    both = traced(lambda x: gradients([x * x, ops.sum(x)], x, [np.array([1.0, 10.0]), 100.0]), x)
    assert both.tolist() == [102, 140]
    assert traced(lambda x: gradients([x * x, ops.sum(x)], [x])[0], x).tolist() == [3, 5]
    with pytest.raises(GradientError, match="one cotangent per output"):
        traced(lambda x: gradients([x, x], x, [x]), x)


def test_what_has_no_influence() -> None:
    x, y = Tensor.of([1.0, 2.0]), Tensor.of([3.0])
    assert traced(lambda x, y: gradients(ops.sum(x), [x, y]), x, y)[1].tolist() == [0]
    assert traced(lambda x, y: gradients(ops.sum(x), [x, y], zeros=False), x, y)[1] is None
    assert traced(lambda x: gradients(Tensor.of(2.0), x), x).tolist() == [0, 0]
    assert traced(
        lambda x: gradients(ops.sum(ops.floor(x) + ops.sign(x) + ops.round(x) + ops.ceil(x)), x), x
    ).tolist() == [0, 0]
    assert traced(lambda x: gradients(ops.sum(stop_gradient(x * x)) + ops.sum(x), x), x).tolist() == [1, 1]


def test_intermediate_values_can_be_differentiated_by() -> None:
    def function(x: Any) -> Any:
        y = x * x
        z = y * 3.0
        return gradients(z * y, [x, y, z])

    assert [g.item() for g in traced(function, Tensor.of(2.0))] == [3 * 4 * 8, 6 * 4, 4]


def test_inputs_are_outputs() -> None:
    assert traced(lambda x: gradients(x, x), Tensor.of([1.0, 2.0])).tolist() == [1, 1]
    assert traced(lambda x: gradients([x, x], x), Tensor.of([1.0, 2.0])).tolist() == [2, 2]


def test_variables() -> None:
    v, w, unused = Variable([1.0, 2.0]), Variable(3.0), Variable(1.0)

    def function() -> Any:
        return gradients(ops.sum(v * v * w), {"v": v, "rest": [w, unused]})

    found = traced(function)
    assert found["v"].tolist() == [6, 12]
    assert [g.item() for g in found["rest"]] == [5, 0]
    both = value_and_grad(lambda p: ops.sum(p[0] * p[1]))([v, w])
    assert both[1][0].tolist() == [3, 3]
    assert both[1][1].item() == 3.0


def test_a_variable_counts_with_its_latest_value() -> None:
    """Two steps of gradient descent in one program are what two programs of one step are."""

    def step(v: Variable) -> None:
        v.assign_sub(0.1 * gradients(ops.sum(v * v * v), v))

    twice, once = Variable([1.0, 2.0]), Variable([1.0, 2.0])
    jit(lambda: [step(twice), step(twice)])()
    for _ in range(2):
        jit(lambda: step(once))()
    np.testing.assert_allclose(twice.numpy(), once.numpy(), rtol=1e-6)


def test_a_loss_from_before_the_assignment_counts_with_the_value_it_used() -> None:
    v = Variable(3.0)

    def function() -> Any:
        loss = v * v
        v.assign(0.0)
        return gradients(loss, v)

    assert traced(function).item() == 6.0
    assert v.item() == 0.0


def test_gradients_flow_through_assignments() -> None:
    v = Variable(2.0)

    def function(x: Any) -> Any:
        v.assign(v * x)
        v.assign_add(x)
        return gradients(v * v, x)

    assert traced(function, Tensor.of(3.0)).item() == 2 * (2 * 3 + 3) * (2 + 1)


# Errors --------------------------------------------------------------------------------------------------------------
def test_errors_say_what_to_do() -> None:
    with pytest.raises(GradientError, match=r"grad needs a scalar\n  got: +float32 \(2,\)"):
        grad(lambda x: x * x)(Tensor.of([1.0, 2.0]))
    with pytest.raises(GradientError, match="grad needs a scalar"):
        grad(lambda x: 1.0)(2.0)
    with pytest.raises(GradientError, match="only floating-point outputs"):
        traced(lambda x: gradients(ops.cast(x, "int32"), x), Tensor.of(1.0))
    with pytest.raises(GradientError, match="cannot differentiate by a number"):
        traced(lambda x: gradients(x, Tensor.of(1.0)), Tensor.of(1.0))
    with pytest.raises(GradientError, match="gradients need symbols"):
        traced(lambda x: gradients(1.0, x), Tensor.of(1.0))


def test_an_operator_without_gradient_names_itself_and_the_line() -> None:
    rough = dataclasses.replace(primitives.sin, name="rough", vjp=None)
    with pytest.raises(GradientError, match="rough has no gradient") as caught:
        traced(lambda x: gradients(rough(x), x), Tensor.of(1.0))
    assert "test_autodiff.py:" in str(caught.value)
    assert "ops.stop_gradient" in str(caught.value)


# Size ----------------------------------------------------------------------------------------------------------------
def test_deep_graphs_are_linear() -> None:
    """10,000 nodes in a row: no recursion, and well under a second."""
    seconds = {}

    def function(x: Symbol) -> list[Any]:
        y = x
        for _ in range(5000):
            y = primitives.add(primitives.sin(y), x)
        start = time.thread_time()
        found = gradients(y, x)
        seconds["backward"] = time.thread_time() - start
        return [found]

    graph, _ = trace_graph(function, [spec((2,))])
    assert len(graph.nodes()) > 15_000
    assert seconds["backward"] < 1.0


def test_wide_graphs_add_up() -> None:
    def function(x: Any) -> Any:
        total = operators.zeros_like(x)
        for i in range(300):
            total = total + x * float(i)
        return ops.sum(total)

    assert grad(function)(Tensor.of([1.0, 1.0])).tolist() == [44850, 44850]


# At the edges --------------------------------------------------------------------------------------------------------
def test_ties_share_the_gradient() -> None:
    x = Tensor.of([2.0, 2.0, 1.0])
    assert grad(ops.max)(x).tolist() == [0.5, 0.5, 0]
    assert grad(lambda a, b: ops.sum(ops.maximum(a, b)), (0, 1))(x, x)[0].tolist() == [0.5, 0.5, 0.5]


def test_zeros_in_products_and_powers() -> None:
    assert grad(ops.prod)(Tensor.of([0.0, 2.0, 3.0])).tolist() == [6, 0, 0]
    assert grad(ops.prod)(Tensor.of([0.0, 0.0, 3.0])).tolist() == [0, 0, 0]
    gx, gy = grad(lambda x, y: ops.sum(x**y), (0, 1))(Tensor.of([0.0, 0.0, 0.0]), Tensor.of([0.0, 1.0, 2.0]))
    assert gx.tolist() == [0, 1, 0]
    assert gy.tolist() == [0, 0, 0]


def test_the_branch_not_taken_adds_no_nan() -> None:
    x = Tensor.of([-1.0, 4.0])
    found = grad(lambda x: ops.sum(ops.where(x > 0.0, ops.sqrt(ops.where(x > 0.0, x, 1.0)), 0.0)))(x)
    assert found.tolist() == [0.0, 0.25]


def test_empty_arrays() -> None:
    assert grad(lambda x: ops.sum(x * x))(Tensor.of(np.zeros((0, 3), np.float32))).shape == (0, 3)
