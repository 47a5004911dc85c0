"""Loops, branches and functions with gradients of their own, against JAX, PyTorch, differences and plain Python."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from highlevel import ops
from highlevel.errors import ArgumentError, DTypeError, GradientError, HighlevelError, ShapeError
from highlevel.ir import (
    Graph,
    Tensor,
    Variable,
    checkpoint,
    cond,
    custom_gradient,
    grad,
    gradients,
    jit,
    jvp,
    primitives,
    scan,
    value_and_grad,
    while_loop,
)
from highlevel.ir.control import call

either = pytest.mark.parametrize("compiled", [False, True], ids=["now", "compiled"])


@pytest.fixture
def jax() -> Any:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


def close(a: Any, b: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=rtol)


def run(function: Any, compiled: bool, *args: Any) -> Any:
    return (jit(function) if compiled else function)(*args)


def count(graph: Graph, name: str, *, deep: bool = True) -> int:
    """How many nodes of that operator a program has, those of its sub-graphs included."""
    total = 0
    for node in graph.nodes():
        total += node.name == name
        if deep:
            total += sum(count(value, name) for value in node.attrs.values() if isinstance(value, Graph))
    return total


# The same programs over our functions and JAX's -----------------------------------------------------------------------
class Ours:
    m: Any = ops
    grad = staticmethod(grad)

    scan = staticmethod(scan)

    @staticmethod
    def cond(predicate: Any, then: Any, otherwise: Any, *operands: Any) -> Any:
        return cond(predicate, then, otherwise, *operands)

    @staticmethod
    def loop(test: Any, body: Any, start: Any, bound: int) -> Any:
        return while_loop(lambda *c: test(c), lambda *c: body(c), start, maximum_iterations=bound)

    checkpoint = staticmethod(checkpoint)


class Theirs:
    def __init__(self, jax: Any) -> None:
        self.m, self.grad, self.cond, self.checkpoint = jax.numpy, jax.grad, jax.lax.cond, jax.checkpoint
        self.jax = jax

    def scan(self, f: Any, init: Any, xs: Any = None, length: Any = None, reverse: bool = False) -> Any:
        return self.jax.lax.scan(f, init, xs, length=length, reverse=reverse)

    def loop(self, test: Any, body: Any, start: Any, bound: int) -> Any:
        """Reverse mode wants a bound here as well: a scan whose steps do nothing once the test fails."""
        step = lambda c, _: (self.jax.lax.cond(test(c), body, lambda c: c, c), None)  # noqa: E731
        return self.jax.lax.scan(step, start, None, length=bound)[0]


def rnn(k: Any, w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        new = k.m.tanh(k.m.matmul(h, w) + x)
        return new, k.m.sum(new * new)

    h, ys = k.scan(step, k.m.zeros_like(xs[0]), xs)
    return k.m.sum(h) + k.m.sum(ys)


def backwards(k: Any, w: Any, xs: Any) -> Any:
    h, ys = k.scan(lambda h, x: (h * w[0] + x, k.m.sin(h)), xs[0], xs, reverse=True)
    return k.m.sum(h * h) + k.m.sum(ys * xs)


def only_carry(k: Any, w: Any, xs: Any) -> Any:
    return k.m.sum(k.scan(lambda h, _: (k.m.sin(h * w[1]), None), xs[0], None, length=4)[0] ** 2)


def integers_in_the_carry(k: Any, w: Any, xs: Any) -> Any:
    def step(carry: Any, x: Any) -> Any:
        h, i = carry
        return (h * w[2] + x * (i * 1.0), i + 1), i * 1.0 + k.m.sum(h)

    (h, _), ys = k.scan(step, (xs[0], 0), xs)
    return k.m.sum(h * h) + k.m.sum(ys)


def nested_scans(k: Any, w: Any, xs: Any) -> Any:
    def outer(c: Any, row: Any) -> Any:
        def inner(d: Any, item: Any) -> Any:
            return k.m.sin(d * item + k.m.sum(c) * w[0, 0]), d * c[0]

        d, ds = k.scan(inner, k.m.sum(c), row)
        return c * k.m.cos(d) + k.m.matmul(w, c), k.m.sum(ds)

    c, ys = k.scan(outer, w[1], xs)
    return k.m.sum(c) + k.m.sum(ys * ys)


def branch_in_a_loop(k: Any, w: Any, xs: Any) -> Any:
    """The branches use the carry, the step's element and outer values."""
    outer = k.m.exp(w[0])

    def step(h: Any, x: Any) -> Any:
        new = k.cond(k.m.sum(x) > 0.0, lambda: h * outer + x, lambda: k.m.sin(h) * w[1])
        return new, k.m.sum(new)

    h, ys = k.scan(step, xs[0], xs)
    return k.m.sum(h) + k.m.sum(ys**2)


def loop_in_a_branch(k: Any, w: Any, xs: Any) -> Any:
    def taken(a: Any) -> Any:
        return k.scan(lambda h, x: (k.m.tanh(h * x + w[0]), None), a, xs)[0]

    first = k.cond(k.m.sum(w) < 1e9, taken, lambda a: a * 2.0, xs[0])
    second = k.cond(k.m.sum(w) > 1e9, taken, lambda a: a * w[1], xs[1])
    return k.m.sum(first * second)


def bounded_loop(k: Any, w: Any, xs: Any) -> Any:
    def body(carry: Any) -> Any:
        h, i = carry
        return k.m.tanh(k.m.matmul(w, h)) + xs[0], i + 1

    h, _ = k.loop(lambda carry: carry[1] < 3, body, (xs[1], 0), 5)
    return k.m.sum(h * h)


def the_same_twice_in_a_loop(k: Any, w: Any, xs: Any) -> Any:
    a, b = k.loop(lambda c: k.m.sum(c[0]) < 1e9, lambda c: (c[0] * c[1], c[1] + c[0] * w[0]), (xs[0], xs[0]), 3)
    return k.m.sum(a) + k.m.sum(b)


def loop_in_a_loop(k: Any, w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        new, _ = k.loop(lambda c: c[1] < 2, lambda c: (k.m.sin(c[0] * w[1] + x), c[1] + 1), (h, 0), 3)
        return new, new[0]

    h, ys = k.scan(step, xs[0], xs)
    return k.m.sum(h) + k.m.sum(ys)


def checkpointed_loop(k: Any, w: Any, xs: Any) -> Any:
    body = k.checkpoint(lambda h, x: k.m.tanh(k.m.matmul(w, k.m.sin(h))) * x)
    h, _ = k.scan(lambda h, x: (body(h, x), None), xs[0], xs)
    return k.m.sum(h * h)


def gradient_in_a_loop(k: Any, w: Any, xs: Any) -> Any:
    """Descent inside of the function that is differentiated."""

    def step(h: Any, x: Any) -> Any:
        slope = k.grad(lambda h: k.m.sum(k.m.sin(h * w[0]) * x))(h)
        return h - 0.1 * slope, None

    return k.m.sum(k.scan(step, xs[0], xs)[0] ** 2)


PROGRAMS = [
    rnn,
    backwards,
    only_carry,
    integers_in_the_carry,
    nested_scans,
    branch_in_a_loop,
    loop_in_a_branch,
    bounded_loop,
    the_same_twice_in_a_loop,
    loop_in_a_loop,
    checkpointed_loop,
    gradient_in_a_loop,
]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


@pytest.fixture
def arrays(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.standard_normal((3, 3)) * 0.7, rng.standard_normal((4, 3))


@every_program
def test_values_and_gradients_are_those_of_jax(program: Any, arrays: Any, jax: Any) -> None:
    value, found = value_and_grad(lambda *args: program(Ours, *args), (0, 1))(*arrays)
    want_value, want = jax.value_and_grad(lambda *args: program(Theirs(jax), *args), (0, 1))(*arrays)
    close(value, want_value)
    for a, b in zip(found, want, strict=True):
        close(a, b)


@every_program
def test_now_is_what_is_compiled(program: Any, arrays: Any) -> None:
    tensors = [Tensor.of(a) for a in arrays]
    close(program(Ours, *tensors), jit(lambda *args: program(Ours, *args))(*tensors), 1e-12)


@every_program
def test_gradients_are_differences(program: Any, arrays: Any, rng: Any, directional: Any) -> None:
    directions = [rng.standard_normal(a.shape) for a in arrays]
    found = grad(lambda *args: program(Ours, *args), (0, 1))(*arrays)
    (want,) = directional(lambda *args: program(Ours, *args), arrays, directions)
    close(sum(float(np.sum(g.numpy() * d)) for g, d in zip(found, directions, strict=True)), want, 1e-6)


@every_program
def test_second_order(program: Any, arrays: Any, rng: Any, jax: Any) -> None:
    directions = [rng.standard_normal(a.shape) for a in arrays]

    def product(m: Any, gradient: Any, k: Any) -> Any:
        def slope(*args: Any) -> Any:
            return sum(
                m.sum(g * d)
                for g, d in zip(gradient(lambda *a: program(k, *a), (0, 1))(*args), directions, strict=True)
            )

        return gradient(slope, (0, 1))

    found = product(ops, grad, Ours)(*arrays)
    want = product(jax.numpy, jax.grad, Theirs(jax))(*map(jax.numpy.asarray, arrays))
    for a, b in zip(found, want, strict=True):
        close(a, b, 1e-8)


@pytest.mark.parametrize("program", [rnn, nested_scans, branch_in_a_loop, bounded_loop], ids=lambda p: p.__name__)
def test_forward_mode(program: Any, arrays: Any, rng: Any, jax: Any) -> None:
    directions = [rng.standard_normal(a.shape) for a in arrays]
    _, pushed = jvp(lambda *args: program(Ours, *args), arrays, directions)
    close(pushed, jax.jvp(lambda *args: program(Theirs(jax), *args), arrays, tuple(directions))[1])


def test_an_lstm_cell_is_torchs(rng: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4).double()
    x = rng.standard_normal((5, 2, 3))
    their_x = torch.tensor(x, requires_grad=True)
    ys, (h, c) = lstm(their_x)
    (ys.pow(2).sum() + h.sin().sum() + c.sum()).backward()
    weights = [parameter.detach().numpy() for parameter in lstm.parameters()]

    def loss(x: Any, wx: Any, wh: Any, bx: Any, bh: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            gates = x @ wx.T + h @ wh.T + bx + bh
            i, f, g, o = (gates[:, n * 4 : n * 4 + 4] for n in range(4))
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            return (h, c), h

        zero = np.zeros((2, 4))
        (h, c), ys = scan(step, (zero, zero), x)
        return ops.sum(ys**2) + ops.sum(ops.sin(h)) + ops.sum(c)

    found = grad(loss, (0, 1, 2, 3, 4))(x, *weights)
    close(found[0], their_x.grad)
    for ours, theirs in zip(found[1:], lstm.parameters(), strict=True):
        close(ours, theirs.grad)


# scan ----------------------------------------------------------------------------------------------------------------
class State(NamedTuple):
    h: Any
    extra: Any


@either
def test_trees_and_none_in_carry_elements_and_results(compiled: bool) -> None:
    def function(x: Any) -> Any:
        def step(state: State, now: Any) -> Any:
            assert state.extra is None
            assert now["mask"] is None
            return State(state.h + now["x"], None), {"a": state.h, "none": None, "b": [now["x"] * 2.0]}

        return scan(step, State(0.0, None), {"x": x, "mask": None})

    end, ys = run(function, compiled, Tensor.of([1.0, 2.0, 3.0]))
    assert end.h.item() == 6.0
    assert end.extra is None
    assert (ys["a"].tolist(), ys["none"], ys["b"][0].tolist()) == ([0, 1, 3], None, [2, 4, 6])


@either
@pytest.mark.parametrize("reverse", [False, True])
def test_order_of_steps(compiled: bool, reverse: bool) -> None:
    end, ys = run(lambda x: scan(lambda c, x: (c * 10 + x, c), 0, x, reverse=reverse), compiled, Tensor.of([1, 2, 3]))
    assert end.item() == (321 if reverse else 123)
    assert ys.tolist() == ([32, 3, 0] if reverse else [0, 1, 12])


@either
def test_counting_steps_without_elements(compiled: bool) -> None:
    end, ys = run(lambda x: scan(lambda c, _: (c + x, None), x, length=4), compiled, Tensor.of(1.5))
    assert end.item() == 7.5
    assert ys is None
    end, ys = run(lambda x: scan(lambda c, x: (c, x), (), x), compiled, Tensor.of([1.5]))
    assert end == ()
    assert ys.tolist() == [1.5]


def test_no_steps_in_a_trace() -> None:
    def function(x: Any, xs: Any) -> Any:
        end, ys = scan(lambda c, x: (c * x, c + x), x, xs)
        return ops.sum(end * 3.0) + ops.sum(ys), ys

    value, ys = jit(function)(Tensor.of(2.0), np.zeros((0,), np.float32))
    assert value.item() == 6.0
    assert ys.shape == (0,)
    gx, gs = grad(lambda *args: function(*args)[0], (0, 1))(Tensor.of(2.0), np.zeros((0,), np.float32))
    assert gx.item() == 3.0
    assert gs.shape == (0,)
    with pytest.raises(ArgumentError, match="at least one step outside of a traced function"):
        function(Tensor.of(2.0), Tensor.of(np.zeros((0,), np.float32)))


@either
@pytest.mark.parametrize(
    ("body", "init", "error", "message"),
    [
        (lambda c, x: (c + x, None), 0, DTypeError, "changes the type of the carry"),
        (lambda c, x: (c > x, None), True, DTypeError, None),
        (lambda c, x: ((c, c), None), 0.0, ArgumentError, "changes the structure of the carry"),
        (lambda c, x: (ops.stack([c, c]), None), 0.0, ShapeError, "changes the shape of the carry"),
    ],
)
def test_the_carry_stays_what_it_is(compiled: bool, body: Any, init: Any, error: Any, message: str | None) -> None:
    xs = Tensor.of([0.5, 1.5])
    if message is None:
        assert run(lambda xs: scan(body, init, xs)[0], compiled, xs).dtype == "bool"
        return
    with pytest.raises(error, match=message):
        run(lambda xs: scan(body, init, xs), compiled, xs)


@either
def test_the_type_of_the_carry_is_kept(compiled: bool) -> None:
    end, _ = run(
        lambda xs: scan(lambda c, x: (c * ops.cast(x, "float32"), None), np.float16(1), xs),
        compiled,
        Tensor.of([1, 2, 3]),
    )
    assert end.dtype == "float16"
    assert end.item() == 6.0
    end, _ = run(lambda xs: scan(lambda c, x: (x, None), 0.0, xs), compiled, Tensor.of([1, 2, 3]))
    assert (end.item(), end.dtype) == (3.0, "float32")


@either
def test_the_number_of_steps_must_be_clear(compiled: bool) -> None:
    for arguments in [
        (0.0, (np.zeros(2), np.zeros(3))),
        (0.0, np.float32(1.0)),
        (0.0, None),
        (0.0, np.zeros(2), 3),
    ]:
        with pytest.raises(ShapeError, match="the number of steps is not clear"):
            run(lambda a=arguments: scan(lambda c, x: (c, None), *a), compiled)


def test_what_is_saved_for_the_gradient_is_what_the_rules_need() -> None:
    """tanh needs its result, a product of weights and state needs the state: one stack serves both."""

    def loss(w: Any, xs: Any) -> Any:
        return ops.sum(scan(lambda h, x: (ops.tanh(h * w) + x, None), ops.zeros_like(xs[0]), xs)[0])

    graph = jit(grad(loss)).graph(np.ones(3, np.float32), np.ones((4, 3), np.float32))
    forward, backward = [node for node in graph.nodes() if node.name == "scan"]
    used = {symbol.key for node in graph.nodes() for symbol in node.inputs}
    saved = [symbol for symbol in forward.outputs[1:] if symbol.key in used]
    assert len(saved) == 2  # the state that enters each step, and tanh
    assert len(backward.inputs) == 1 + 2 + 2  # the weights; cotangents of state and weights; the two stacks


# Variables -----------------------------------------------------------------------------------------------------------
@either
def test_variables_assigned_in_a_loop(compiled: bool) -> None:
    total, calls, other = Variable(10.0), Variable(0), Variable(5.0)

    def function(xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            calls.assign_add(1)
            total.assign(total + x * other)
            return c + total, calls.value

        return (*scan(step, 0.0, xs), total * 1.0)

    end, seen, after = run(function, compiled, Tensor.of([1.0, 2.0, 3.0]))
    assert (total.item(), calls.item(), other.item()) == (40.0, 3, 5.0)
    assert end.item() == 15 + 25 + 40
    assert seen.tolist() == [1, 2, 3]
    assert after.item() == 40.0


@either
def test_variables_assigned_in_nested_control_flow(compiled: bool) -> None:
    """A loop in a branch in a loop, each assigning; what is not taken does nothing."""
    ups, downs, steps = Variable(0.0), Variable(0.0), Variable(0)

    def function(xs: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            def up() -> Any:
                def inner(d: Any, _: Any) -> Any:
                    ups.assign_add(x)
                    return d + ups, None

                return scan(inner, c, length=2)[0]

            def down() -> Any:
                downs.assign_sub(x)
                return c - downs

            steps.assign_add(1)
            return cond(x > 0.0, up, down), ups + downs

        return scan(step, 0.0, xs)

    def python(xs: list[float]) -> Any:
        c, up, down, ys = 0.0, 0.0, 0.0, []
        for x in xs:
            if x > 0:
                for _ in range(2):
                    up += x
                    c += up
            else:
                down -= x
                c -= down
            ys.append(up + down)
        return c, up, down, ys

    data = [1.0, -2.0, 3.0, -0.5]
    end, ys = run(function, compiled, Tensor.of(data))
    assert (end.item(), ups.item(), downs.item(), ys.tolist()) == python(data)
    assert steps.item() == 4


@either
def test_variables_assigned_in_one_branch_only(compiled: bool) -> None:
    a, b = Variable(1.0), Variable(2.0)

    def function(p: Any) -> Any:
        return cond(p, lambda: a.assign_add(10.0), lambda: b.assign_add(100.0))

    assert run(function, compiled, Tensor.of(True)).item() == 11.0
    assert run(function, compiled, Tensor.of(False)).item() == 102.0
    assert (a.item(), b.item()) == (11.0, 102.0)


@either
def test_variables_assigned_in_a_while_loop(compiled: bool) -> None:
    seen = Variable(0)

    def function(x: Any) -> Any:
        def body(x: Any) -> Any:
            seen.assign_add(1)
            return x * 2.0

        return while_loop(lambda x: ops.logical_and(x < 100.0, seen < 5), body, x)

    assert run(function, compiled, Tensor.of(1.0)).item() == 32.0
    assert seen.item() == 5


def test_gradients_flow_through_state() -> None:
    total = Variable(1.0)

    def loss(x: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            total.assign(total * x)
            return c + total, None

        return scan(step, 0.0, length=3)[0]

    assert jit(grad(loss))(2.0).item() == 1 + 2 * 2 + 3 * 4  # d(x + x² + x³)


def test_training_in_a_loop_is_training_step_by_step(rng: Any) -> None:
    """An epoch as one program: gradients by variables that are state of the loop."""
    xs, ys = rng.standard_normal((8, 5, 3)).astype("f"), rng.standard_normal((8, 5)).astype("f")

    def step(w: Variable, momentum: Variable, x: Any, y: Any) -> Any:
        loss = ops.mean((x @ w - y) ** 2)
        momentum.assign(0.9 * momentum + gradients(loss, w))
        w.assign_sub(0.1 * momentum)
        return loss

    a, b, m, n = (Variable(np.zeros(3, np.float32)) for _ in range(4))
    _, losses = jit(lambda xs, ys: scan(lambda _, xy: ((), step(a, m, *xy)), (), (xs, ys)))(xs, ys)
    single = jit(lambda x, y: step(b, n, x, y))
    want = [single(x, y).item() for x, y in zip(xs, ys, strict=True)]
    close(losses, want, 1e-5)
    close(a, b, 1e-5)


# cond ----------------------------------------------------------------------------------------------------------------
@either
def test_branches_return_trees_and_none(compiled: bool) -> None:
    def function(p: Any, x: Any) -> Any:
        return cond(p, lambda a: {"v": a + 1.0, "n": None}, lambda a: {"v": a * x, "n": None}, x)

    out = run(function, compiled, Tensor.of(True), Tensor.of(3.0))
    assert (out["v"].item(), out["n"]) == (4.0, None)
    assert run(function, compiled, Tensor.of(False), Tensor.of(3.0))["v"].item() == 9.0


def test_only_the_branch_taken_is_computed() -> None:
    def function(p: Any, x: Any) -> Any:
        return cond(p, lambda: x[ops.cast(ops.sum(x), "int32")], lambda: x[0])

    x = Tensor.of([7.0, 8.0])
    assert jit(function)(Tensor.of(False), x).item() == 7.0
    with pytest.raises(ArgumentError, match="index 15 is outside"):
        jit(function)(Tensor.of(True), x)


def test_conditions_that_are_known_are_pythons_if() -> None:
    graph = jit(lambda x: cond(True, lambda: x, lambda: x / 0.0)).graph(Tensor.of(1.0))
    assert count(graph, "cond") == count(graph, "div") == 0
    assert cond(np.bool_(False), lambda: 1, lambda: 2) == 2
    assert jit(lambda x: cond(x, lambda: 1.0, lambda: 2.0))(Tensor.of(3)).item() == 1.0  # a number, as in Python


@pytest.mark.parametrize(
    ("then", "otherwise", "message"),
    [
        (lambda: (1.0, 2.0), lambda: 1.0, "return different structures"),
        (lambda: (1.0, None), lambda: (1.0, 2.0), "return different structures"),
        (lambda: 1.0, lambda: 1, "return different things"),
        (lambda: np.zeros(2), lambda: np.zeros(3), "return different things"),
    ],
)
def test_branches_must_agree(then: Any, otherwise: Any, message: str) -> None:
    with pytest.raises(HighlevelError, match=message):
        jit(lambda p: cond(p, then, otherwise))(Tensor.of(True))


def test_branches_that_assign_different_variables_must_agree_too() -> None:
    """Both are traced again with the state of the other, and compared all the same."""
    a, b = Variable(1.0), Variable(2.0)
    with pytest.raises(ArgumentError, match="return different structures"):
        jit(lambda p: cond(p, lambda: (a.assign(0.0), 1.0), lambda: [b.assign(0.0), 1.0]))(Tensor.of(True))


@either
def test_the_condition_is_a_scalar(compiled: bool) -> None:
    with pytest.raises(ShapeError, match="the condition is not a scalar"):
        run(lambda p: cond(p, lambda: 1, lambda: 2), compiled, Tensor.of([True, False]))


# while_loop ----------------------------------------------------------------------------------------------------------
@either
def test_loop_variables_of_any_structure(compiled: bool) -> None:
    def single(x: Any) -> Any:
        return while_loop(lambda x: x < 50.0, lambda x: x * 3.0, x)

    assert run(single, compiled, Tensor.of(1.0)).item() == 81.0
    assert run(lambda x: while_loop(lambda x: x < 5, lambda x: [x + 2], x), compiled, Tensor.of(0)).item() == 6

    def pair(x: Any) -> Any:
        return while_loop(lambda i, x: i < 3, lambda i, x: [i + 1, x * x], (0, x))

    i, x = run(pair, compiled, Tensor.of(2.0))
    assert (i.item(), x.item()) == (3, 256.0)

    def named(x: Any) -> Any:
        return while_loop(lambda h, e: h < 9.0, lambda h, e: State(h + 4.0, None), State(x, None))

    out = run(named, compiled, Tensor.of(2.0))
    assert isinstance(out, State)
    assert out.h.item() == 10.0

    def tree(x: Any) -> Any:
        return while_loop(
            lambda d: d["x"] < 9.0, lambda d: {"x": d["x"] + d["y"][0], "y": d["y"]}, {"x": x, "y": [3.0]}
        )

    assert run(tree, compiled, Tensor.of(2.0))["x"].item() == 11.0


@either
def test_bounds_and_loops_that_never_run(compiled: bool) -> None:
    def function(x: Any, bound: Any) -> Any:
        return while_loop(lambda x: x > 0, lambda x: x + 1, x, maximum_iterations=bound)

    assert run(lambda x: function(x, 7), compiled, Tensor.of(1)).item() == 8
    assert run(lambda x: function(x, None), compiled, Tensor.of(-1)).item() == -1
    assert run(lambda x: function(x, 0), compiled, Tensor.of(1)).item() == 1


@either
def test_the_body_keeps_shapes_and_types(compiled: bool) -> None:
    for body, error in [
        (lambda x: x * 0.5, DTypeError),
        (lambda x: ops.stack([x, x]), ShapeError),
        (lambda x: (x, x), ArgumentError),
    ]:
        with pytest.raises(error):
            run(lambda x, body=body: while_loop(lambda x: ops.all(x < 3), body, x), compiled, Tensor.of(1))


def test_conditions_assign_nothing() -> None:
    v = Variable(0.0, path="counter")
    with pytest.raises(ArgumentError, match=r"the condition assigns a variable\n  got: +counter"):
        jit(lambda x: while_loop(lambda x: v.assign_add(1.0) < 3.0, lambda x: x, x))(Tensor.of(1.0))


def test_a_loop_without_bound_has_no_gradient() -> None:
    with pytest.raises(GradientError, match="maximum_iterations"):
        grad(lambda x: while_loop(lambda x: x < 5.0, lambda x: x * 2.0, x))(1.0)
    assert grad(lambda x: while_loop(lambda x: x < 5.0, lambda x: x * 2.0, x, maximum_iterations=9))(1.0).item() == 8.0


# checkpoint ----------------------------------------------------------------------------------------------------------
def test_checkpoint_computes_again() -> None:
    def body(x: Any) -> Any:
        return ops.sin(ops.exp(ops.tanh(x)))

    x = Tensor.of([0.5, 1.0])
    plain = jit(grad(lambda x: ops.sum(body(x)))).graph(x)
    saving = jit(grad(lambda x: ops.sum(checkpoint(body)(x)))).graph(x)
    assert [count(plain, name) for name in ("exp", "tanh")] == [1, 1]
    assert [count(saving, name) for name in ("exp", "tanh")] == [1, 1]  # value_and_grad's value is not asked for …
    both = jit(value_and_grad(lambda x: ops.sum(checkpoint(body)(x)))).graph(x)
    assert [count(both, name) for name in ("exp", "tanh", "call")] == [2, 2, 1]  # … and here it is
    assert count(both, "sin") == 1  # nobody needs it again
    used = {symbol.node.id for node in both.nodes() for symbol in node.inputs}
    (node,) = [node for node in both.nodes() if node.name == "call"]
    assert node.id in used
    close(grad(lambda x: ops.sum(checkpoint(body)(x)))(x), grad(lambda x: ops.sum(body(x)))(x), 1e-6)


@either
def test_checkpoint_takes_any_function(compiled: bool) -> None:
    v, calls = Variable(3.0), Variable(0)

    @checkpoint
    def function(tree: Any, scale: float, *, flag: bool, none: Any = None) -> Any:
        assert isinstance(flag, bool)
        assert none is None
        calls.assign_add(1)
        return {"y": tree["x"] * v * scale if flag else tree["x"], "none": None}

    def loss(x: Any) -> Any:
        return ops.sum(function({"x": x}, 2.0, flag=True)["y"])

    assert run(loss, compiled, Tensor.of([1.0, 2.0])).item() == 18.0
    assert calls.item() == 1
    assert grad(loss)(Tensor.of([1.0, 2.0])).tolist() == [6, 6]
    assert calls.item() == 2


def test_gradients_by_variables_used_inside_of_a_checkpoint() -> None:
    v = Variable(3.0)
    found = jit(lambda x: gradients(checkpoint(lambda x: x * v * v)(x), [v, x]))(Tensor.of(2.0))
    assert [g.item() for g in found] == [12.0, 9.0]


# custom_gradient -----------------------------------------------------------------------------------------------------
@custom_gradient
def clipped(x: Any) -> Any:
    """The identity, whose gradient is clipped."""
    return x * 1.0, lambda upstream: ops.clip(upstream, -1.0, 1.0)


@custom_gradient
def log1pexp(x: Any) -> Any:
    e = ops.exp(x)
    return ops.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))


@either
def test_the_custom_gradient_is_used(compiled: bool) -> None:
    x = Tensor.of([0.1, 5.0])
    assert run(clipped, compiled, x).tolist() == x.tolist()
    close(run(grad(lambda x: ops.sum(clipped(x) * np.array([0.5, 9.0], np.float32))), compiled, x), [0.5, 1.0])
    assert run(grad(log1pexp), compiled, Tensor.of(100.0)).item() == 1.0


def test_it_has_a_gradient_of_its_own(jax: Any) -> None:
    @jax.custom_vjp
    def f(x: Any) -> Any:
        return jax.numpy.log(1 + jax.numpy.exp(x))

    f.defvjp(
        lambda x: (f(x), jax.numpy.exp(x)),
        lambda e, g: (g * (1 - 1 / (1 + e)),),
    )
    x = np.float64(0.3)
    close(grad(log1pexp)(x), jax.grad(f)(x))
    close(grad(grad(log1pexp))(x), jax.grad(jax.grad(lambda x: jax.numpy.log(1 + jax.numpy.exp(x))))(x))


def test_in_loops_branches_and_checkpoints() -> None:
    xs = Tensor.of([3.0, -4.0])

    def loop(x: Any) -> Any:
        return scan(lambda c, x: (clipped(c * 3.0) + x, None), x, xs)[0]

    assert grad(loop)(1.0).item() == 3.0  # 3·clip(3·clip(1))
    assert grad(lambda x: 7.0 * loop(x))(1.0).item() == 3.0
    assert grad(lambda x: cond(x > 0.0, lambda: clipped(x) * 7.0, lambda: x))(1.0).item() == 1.0
    assert grad(lambda x: checkpoint(clipped)(x) * 7.0)(1.0).item() == 1.0


def test_several_arguments_results_and_absent_cotangents() -> None:
    @custom_gradient
    def function(a: Any, b: Any, n: Any) -> Any:
        def gradient(up_y: Any, up_rank: Any, up_z: Any) -> Any:
            return up_y * 10.0, up_z * 100.0, None

        return (a * b, n + 1, a + b), gradient

    def loss(a: Any, b: Any) -> Any:
        y, n, _ = function(a, b, np.int32(3))
        assert n.dtype == "int32"
        return y

    assert [g.item() for g in grad(loss, (0, 1))(2.0, 3.0)] == [10.0, 0.0]


def test_keras_form() -> None:
    @custom_gradient
    def square(x: Any) -> Any:
        def gradient(*args: Any, upstream: Any = None) -> Any:
            return args[0] * upstream * 50.0

        return x * x, gradient

    assert grad(square)(2.0).item() == 100.0

    @custom_gradient
    def double(x: Any) -> Any:
        return x * 2.0, lambda upstream: upstream * 7.0

    assert grad(double)(2.0).item() == 7.0


def test_mistakes_in_custom_gradients() -> None:
    v = Variable(0.0, path="counter")
    with pytest.raises(ArgumentError, match="one cotangent per argument"):
        grad(custom_gradient(lambda x: (x, lambda up: (up, up))))(1.0)
    with pytest.raises(ArgumentError, match=r"the gradient assigns a variable\n  got: +counter"):
        grad(custom_gradient(lambda x: (x, lambda up: v.assign(up))))(1.0)


# call ----------------------------------------------------------------------------------------------------------------
def test_named_functions_stay_in_one_piece() -> None:
    def softmax(x: Any, axis: int = -1) -> Any:
        return call("softmax", lambda x, axis: ops.exp(x) / ops.sum(ops.exp(x), axis=axis, keepdims=True), x, axis=axis)

    x = Tensor.of([[1.0, 2.0], [3.0, 5.0]])
    graph = jit(softmax).graph(x)
    (node,) = [node for node in graph.nodes() if node.name == "call"]
    assert (node.attrs["name"], node.attrs["options"]) == ("softmax", {"axis": -1})
    close(softmax(x), jit(softmax)(x))
    weights = Tensor.of([[1.0, -2.0], [0.5, 3.0]])
    close(
        grad(lambda x: ops.sum(softmax(x) * weights))(x),
        grad(lambda x: ops.sum(ops.softmax(x) * weights))(x),
        1e-6,
    )


def test_a_rule_replaces_the_gradient() -> None:
    def function(x: Any) -> Any:
        return call("double", lambda x: x * 2.0, x, rule=lambda g, y, x: (g * y * 100.0,))

    assert grad(function)(3.0).item() == 600.0
    outer = Variable(1.0)
    with pytest.raises(ArgumentError, match="must take all it uses as operands"):
        jit(lambda x: call("bad", lambda x: x * outer, x, rule=lambda g, y, x: (g,)))(Tensor.of(1.0))


def test_operands_of_control_flow_are_checked() -> None:
    body = jit(lambda x: x * 2.0).graph(Tensor.of([1.0, 2.0]))
    with pytest.raises(ShapeError, match="operands do not fit the sub-graph"):
        primitives.call(Tensor.of(1.0), name="f", body=body, rule=None, options=None)
