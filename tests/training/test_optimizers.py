"""Optimizer steps against Keras, and what surrounds them."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel import ops
from highlevel.errors import ArgumentError
from highlevel.ir import Tensor, Variable, jit
from highlevel.serialization import deserialize, serialize
from highlevel.training import optimizers, schedules

keras = pytest.importorskip("keras")

SHAPES = [(3, 4), (5,), ()]

# optimizer, options
CASES = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.5, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 0.1, "clipnorm": 0.5}),
    ("SGD", {"learning_rate": 0.1, "clipvalue": 0.2}),
    ("SGD", {"learning_rate": 0.1, "global_clipnorm": 1.0}),
    ("SGD", {"learning_rate": 0.1, "global_clipnorm": 100.0}),
    ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 3}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "gradient_accumulation_steps": 2}),
    ("SGD", {"learning_rate": 0.1, "loss_scale_factor": 4.0}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.8, "epsilon": 1e-3}),
    ("Adam", {"learning_rate": 0.1, "amsgrad": True, "beta_2": 0.5}),
    ("Adam", {"learning_rate": 0.1, "weight_decay": 0.05, "clipnorm": 1.0}),
    ("Adam", {"learning_rate": 0.1, "gradient_accumulation_steps": 3}),
    ("AdamW", {"learning_rate": 0.1}),
    ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.2, "amsgrad": True}),
    ("RMSprop", {"learning_rate": 0.01}),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9, "rho": 0.7}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True}),
    ("RMSprop", {"learning_rate": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"learning_rate": 0.1}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.5}),
    ("Adadelta", {"learning_rate": 1.0}),
    ("Adamax", {"learning_rate": 0.1}),
    ("Nadam", {"learning_rate": 0.1}),
    ("Nadam", {"learning_rate": 0.1, "beta_1": 0.5, "weight_decay": 0.1}),
    ("Lion", {"learning_rate": 0.1}),
    ("Lion", {"learning_rate": 0.1, "weight_decay": 0.1}),
]


def values(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=shape).astype("float32") for shape in SHAPES]


def variables(start: list[np.ndarray]) -> list[Variable]:
    return [Variable(value, name=f"w{i}", path=f"layer{i}/w{i}") for i, value in enumerate(start)]


def near(actual: object, expected: object, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def compiled(optimizer: optimizers.Optimizer, weights: list[Variable]):
    return jit(lambda *gradients: optimizer.apply(gradients, weights) or ops.zeros(()))


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_steps_equal_keras(name, options, traced, rng):
    start = values(rng)
    theirs = getattr(keras.optimizers, name)(**options)
    expected = [keras.Variable(value) for value in start]
    ours = getattr(optimizers, name)(**options)
    weights = variables(start)
    step = compiled(ours, weights) if traced else lambda *gradients: ours.apply(gradients, weights)
    for _ in range(7):
        gradients = values(rng)
        theirs.apply(gradients, expected)
        step(*map(Tensor.of, gradients))
        for weight, target in zip(weights, expected, strict=True):
            near(weight, target)
    if traced:
        assert step.traces == 1
    assert int(ours.iterations) == 7
    theirs.finalize_variable_values(expected)
    ours.finalize_variable_values(weights)
    for weight, target in zip(weights, expected, strict=True):
        near(weight, target)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_state_is_in_the_order_of_keras(name, options, rng):
    """Files list optimizer state by position, so the order is part of the format."""
    start = values(rng)
    theirs = getattr(keras.optimizers, name)(**options)
    expected = [keras.Variable(value) for value in start]
    ours = getattr(optimizers, name)(**options)
    weights = variables(start)
    for _ in range(2):
        gradients = values(rng)
        theirs.apply(gradients, expected)
        ours.apply(gradients, weights)
    assert [v.shape for v in ours.variables] == [tuple(v.shape) for v in theirs.variables]
    for own, their in zip(ours.variables, theirs.variables, strict=True):
        near(own, their)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras's own variables
def test_defaults_equal_keras():
    for name in {name for name, _ in CASES}:
        ours, theirs = getattr(optimizers, name)(), getattr(keras.optimizers, name)()
        for attribute, value in theirs.get_config().items():
            if attribute == "learning_rate":
                near(ours.learning_rate, value)
            elif attribute != "name":
                assert getattr(ours, attribute) == value, (name, attribute)


def test_clipping_shows_overflow_instead_of_hiding_it():
    w = Variable(np.zeros(2, "float32"))
    optimizers.SGD(1.0, global_clipnorm=1.0).apply([np.array([np.inf, 0.0], "float32")], [w])
    assert np.isnan(w.numpy()).all()


def test_minimize_in_a_step_reaches_the_minimum():
    w = Variable(np.array([3.0, -2.0], "float32"), path="w")
    optimizer = optimizers.Adam(0.3)

    @jit
    def step():
        loss = ops.sum((w - Tensor.of([1.0, 2.0])) ** 2)
        optimizer.minimize(loss, [w])
        return loss

    losses = [float(step()) for _ in range(150)]
    assert step.traces == 1 and losses[-1] < 1e-3 < losses[0]
    near(w, [1.0, 2.0], 0.05)


def test_loss_scale_is_taken_off_again(rng):
    start = rng.normal(size=3).astype("float32")
    found = []
    for factor in (None, 128.0):
        w = Variable(start)
        optimizer = optimizers.SGD(0.1, loss_scale_factor=factor)
        jit(lambda w=w, optimizer=optimizer: optimizer.minimize(ops.sum(w * w * w), [w]) or ops.zeros(()))()
        found.append(w.numpy())
    near(found[0], found[1])


def test_the_rate_changes_without_retracing():
    w = Variable(np.float32(0.0))
    optimizer = optimizers.SGD(1.0)
    step = compiled(optimizer, [w])
    step(Tensor.of(1.0))
    optimizer.learning_rate = 10.0
    step(Tensor.of(1.0))
    optimizer.learning_rate.assign(100.0)
    step(Tensor.of(1.0))
    assert float(w) == -111.0 and step.traces == 1


def test_a_schedule_runs_inside_the_step(rng):
    schedule = schedules.PiecewiseConstantDecay([1, 2], [1.0, 10.0, 100.0])
    w = Variable(np.float32(0.0))
    optimizer = optimizers.SGD(schedule)
    step = compiled(optimizer, [w])
    moved = []
    for _ in range(5):
        before = float(w)
        step(Tensor.of(1.0))
        moved.append(before - float(w))
    near(moved, [1, 1, 10, 100, 100])
    assert step.traces == 1 and float(optimizer.learning_rate) == 100.0
    optimizer.learning_rate = 0.5  # a number takes over from a schedule
    step(Tensor.of(1.0))
    assert float(w) == pytest.approx(-212.5)


def test_a_function_is_a_rate():
    w = Variable(np.float32(0.0))
    optimizers.SGD(lambda: 0.25).apply([np.float32(1.0)], [w])
    assert float(w) == -0.25


def test_frozen_weights_do_not_move_and_have_no_state():
    a, b = Variable(np.ones(2, "float32"), path="a"), Variable(np.ones(2, "float32"), path="b", trainable=False)
    optimizer = optimizers.Adam(0.1)

    @jit
    def step():
        optimizer.minimize(ops.sum(a * a + b * b), [a, b])
        return ops.zeros(())

    step()
    assert (b.numpy() == 1).all() and (a.numpy() < 1).all()
    assert [v.path for v in optimizer.variables] == [
        "adam/iteration", "adam/learning_rate", "adam/momentum/a", "adam/velocity/a"
    ]  # fmt: skip
    b.trainable, a.trainable = True, False
    frozen = a.numpy().copy()
    step()  # takes effect at once; the new state starts from nothing
    assert (b.numpy() < 1).all() and (a.numpy() == frozen).all()
    assert len(optimizer.variables) == 6


def test_multipliers_scale_the_steps_of_groups():
    names = ["net/body/conv/kernel", "net/body/conv/bias", "net/head/kernel", "net/head/bias"]
    weights = [Variable(np.zeros(2, "float32"), path=name) for name in names]
    optimizer = optimizers.SGD(1.0, weight_decay=0.0)
    step = compiled(optimizer, weights)
    ones = [Tensor.of(np.ones(2, "float32"))] * 4
    step(*ones)
    optimizer.set_multipliers({"body": 0.1, "*bias": 2.0, "head/bias": 5.0}, weights)
    step(*ones)
    near([w.numpy()[0] for w in weights], [-1.1, -3.0, -2.0, -6.0])
    optimizer.set_multipliers({})
    step(*ones)
    near([w.numpy()[0] for w in weights], [-2.1, -4.0, -3.0, -7.0])
    assert step.traces == 2  # the first program is found again
    with pytest.raises(ArgumentError, match="no weight matches 'haed'"):
        optimizer.set_multipliers({"haed": 0.1}, weights)


def test_multipliers_scale_the_decay_too():
    w = Variable(np.ones(1, "float32"), path="w")
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.set_multipliers({"w": 0.1})
    optimizer.apply([np.zeros(1, "float32")], [w])
    near(w, [1 - 0.1 * 0.1 * 0.5])


def test_some_weights_do_not_decay():
    weights = [
        Variable(np.ones(1, "float32"), name=name, path=f"bias_layer/{name}") for name in ("kernel", "bias", "scale")
    ]
    optimizer = optimizers.SGD(1.0, weight_decay=0.5)
    step = compiled(optimizer, weights)
    optimizer.exclude_from_weight_decay(var_list=weights[2:], var_names=["bias"])
    step(*[Tensor.of(np.zeros(1, "float32"))] * 3)
    near([weight.numpy()[0] for weight in weights], [0.5, 1.0, 1.0])
    optimizer.exclude_from_weight_decay()  # takes effect at once
    step(*[Tensor.of(np.zeros(1, "float32"))] * 3)
    near([weight.numpy()[0] for weight in weights], [0.25, 0.5, 0.5])


def test_constraints_apply_after_the_step():
    w = Variable(np.array([0.5, -0.5], "float32"), constraint=lambda value: ops.maximum(value, 0.0))
    optimizers.SGD(1.0).apply([np.array([1.0, -1.0], "float32")], [w])
    near(w, [0.0, 0.5])


def test_gradients_may_be_missing():
    a, b = Variable(np.zeros(1, "float32")), Variable(np.zeros(1, "float32"))
    optimizers.SGD(1.0).apply([None, np.ones(1, "float32")], [a, b])
    near([a.numpy()[0], b.numpy()[0]], [0.0, -1.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_keep_their_type(dtype):
    w = Variable(np.ones(3), dtype=dtype, path="w")
    optimizer = optimizers.Adam(0.125, weight_decay=0.1, clipnorm=1.0)
    for _ in range(3):
        optimizer.apply([np.ones(3, "float32")], [w])
    assert w.dtype == dtype and 0.5 < float(w.numpy()[0].astype("float64")) < 0.65


@pytest.mark.parametrize("name, options", [case for case in CASES if len(case[1]) > 1], ids=str)
def test_optimizers_survive_a_file(name, options):
    optimizer = getattr(optimizers, name)(**options)
    again = deserialize(serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()
    near(again.learning_rate, optimizer.learning_rate)


def test_the_current_rate_is_written():
    optimizer = optimizers.SGD(0.1)
    optimizer.learning_rate = 0.02
    near(deserialize(serialize(optimizer)).learning_rate, 0.02)
    scheduled = optimizers.SGD(schedules.ExponentialDecay(0.1, 10, 0.5))
    scheduled.iterations.assign(20)
    again = deserialize(serialize(scheduled))
    near(again.learning_rate, 0.1)
    again.iterations.assign(20)
    near(again.learning_rate, scheduled.learning_rate)


@pytest.mark.parametrize(
    "word", ["sgd", "SGD", "adam", "adamw", "AdamW", "rmsprop", "RMSprop", "nadam", "lion", "adagrad"]
)
def test_names(word):
    assert type(optimizers.get(word)).__name__.lower() == word.lower()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"learning_rate": -1.0}, "learning rate"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "in one way only"),
        ({"clipnorm": -1.0}, "clipnorm"),
        ({"momentum": 2.0}, "momentum"),
        ({"momentun": 0.9}, "momentum"),
        ({"gradient_accumulation_steps": 1}, "at least 2"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        optimizers.SGD(**arguments)


def test_the_example_of_an_own_optimizer():
    class Momentum(optimizers.Optimizer):
        def slots(self):
            return (("velocity",),)

        def update(self, variable, gradient, rate, velocity):
            variable.assign_sub(velocity.assign(0.9 * velocity + rate * gradient))

    w, expected = Variable(np.zeros(2, "float32")), keras.Variable(np.zeros(2, "float32"))
    ours, theirs = Momentum(0.1), keras.optimizers.SGD(0.1, momentum=0.9)
    for _ in range(3):
        ours.apply([np.ones(2, "float32")], [w])
        theirs.apply([np.ones(2, "float32")], [expected])
    near(w, expected)
