"""Random numbers: repeatable, equal in compiled programs, and distributed as they should be."""

from __future__ import annotations

import random as python_random

import numpy as np
import pytest
import scipy.stats

import highlevel as hl
from highlevel import random
from highlevel.errors import ArgumentError, ShapeError

keras = pytest.importorskip("keras")

N = 20_000
DRAWS = {
    "uniform": lambda seed: random.uniform((N,), -2.0, 3.0, seed=seed),
    "normal": lambda seed: random.normal((N,), 1.0, 2.0, seed=seed),
    "truncated_normal": lambda seed: random.truncated_normal((N,), 1.0, 2.0, seed=seed),
    "randint": lambda seed: random.randint((N,), -3, 8, seed=seed),
    "bernoulli": lambda seed: random.bernoulli((N,), 0.3, seed=seed),
    "dropout": lambda seed: random.dropout(np.ones(N, np.float32), 0.3, seed=seed),
    "categorical": lambda seed: random.categorical(np.log(np.float32([[0.2, 0.5, 0.3]])), N, seed=seed),
    "shuffle": lambda seed: random.shuffle(np.arange(1000), seed=seed),
    "gamma": lambda seed: random.gamma((N,), 2.5, seed=seed),
    "beta": lambda seed: random.beta((N,), 2.0, 0.7, seed=seed),
    "binomial": lambda seed: random.binomial((N,), 40.0, 0.3, seed=seed),
}


@pytest.mark.parametrize("name", DRAWS)
def test_seeds(name):
    """The same seed, the same numbers; another seed, others; a generator, new ones each time."""
    draw = DRAWS[name]
    first = draw(5).numpy()
    np.testing.assert_array_equal(first, draw(5).numpy())
    assert (first != draw(6).numpy()).any()
    generator = random.SeedGenerator(5)
    np.testing.assert_array_equal(first, draw(generator).numpy())
    assert (first != draw(generator).numpy()).any()
    generator.reset()
    np.testing.assert_array_equal(first, draw(generator).numpy())


@pytest.mark.parametrize("name", DRAWS)
def test_compiled_programs_draw_the_same_numbers(name):
    draw = DRAWS[name]
    compiled = hl.jit(lambda: draw(5))
    np.testing.assert_array_equal(compiled().numpy(), draw(5).numpy())
    ours, other = random.SeedGenerator(9), random.SeedGenerator(9)
    step = hl.jit(lambda: draw(ours))
    for _ in range(3):
        np.testing.assert_array_equal(step().numpy(), draw(other).numpy())
    assert step.traces == 1
    np.testing.assert_array_equal(ours.state.numpy(), other.state.numpy())


def fits(sample, distribution, *parameters):
    law = getattr(scipy.stats, distribution)(*parameters)
    return scipy.stats.kstest(np.asarray(sample, np.float64), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_continuous_distributions(dtype):
    assert fits(random.uniform((N,), -2.0, 3.0, dtype, seed=1), "uniform", -2, 5)
    assert fits(random.normal((N,), 1.0, 2.0, dtype, seed=1), "norm", 1, 2)
    assert fits(random.truncated_normal((N,), 1.0, 2.0, dtype, seed=1), "truncnorm", -2, 2, 1, 2)
    for alpha in (0.3, 1.0, 7.5):
        assert fits(random.gamma((N,), alpha, dtype, seed=2), "gamma", alpha)
        assert fits(random.beta((N,), alpha, 2.0, dtype, seed=3), "beta", alpha, 2)


def agrees(sample, values, probabilities):
    counts = np.array([(sample == v).sum() for v in values])
    assert counts.sum() == sample.size
    return scipy.stats.chisquare(counts, np.asarray(probabilities) * sample.size).pvalue > 1e-3


def test_discrete_distributions():
    assert agrees(random.randint((N,), -3, 8, seed=1).numpy(), range(-3, 8), [1 / 11] * 11)
    assert agrees(random.bernoulli((N,), 0.3, dtype="int32", seed=1).numpy(), [0, 1], [0.7, 0.3])
    p = np.float32([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    classes = random.categorical(np.log(p), N, seed=1).numpy()
    assert classes.shape == (2, N)
    for row in range(2):
        assert agrees(classes[row], range(3), p[row] / p[row].sum())
    order = random.shuffle(np.tile(np.arange(5), (4000, 1)).T.reshape(5, 4000), seed=1).numpy()
    assert sorted(order[:, 0]) == [0, 1, 2, 3, 4]
    firsts = np.array([random.shuffle(np.arange(4), seed=s).numpy()[0] for s in range(400)])
    assert agrees(firsts, range(4), [0.25] * 4)


@pytest.mark.parametrize(("n", "p"), [(10, 0.3), (16, 0.5), (17, 0.5), (40, 0.05), (1000, 0.7)])
def test_binomial(n, p):
    sample = random.binomial((N,), float(n), p, seed=n).numpy()
    law = scipy.stats.binom(n, p)
    assert sample.min() >= 0
    assert sample.max() <= n
    assert abs(sample.mean() - law.mean()) < 5 * law.std() / np.sqrt(N)
    edges = law.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    found = np.array([(sample <= e).mean() for e in edges])
    np.testing.assert_allclose(found, law.cdf(edges), atol=0.02)


def test_parameters_broadcast():
    assert random.normal((2, 3), mean=np.float32([0, 100, 200]), seed=1).numpy()[:, 2].min() > 100
    assert random.gamma((2, 3), alpha=np.float32([1, 1000, 1]), seed=1).numpy()[:, 1].min() > 500
    assert random.uniform((4, 2), np.float32([0, 5]), np.float32([1, 6]), seed=1).numpy()[:, 1].min() >= 5
    assert random.binomial((4, 2), np.float32([0, 5]), np.float32([0.5, 1.0]), seed=1).numpy().tolist() == [[0, 5]] * 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_ranges(dtype):
    u = random.uniform((N,), dtype=dtype, seed=1).numpy().astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    narrow = random.uniform((N,), 1.0, 1.25, dtype=dtype, seed=1).numpy().astype(np.float64)
    assert narrow.min() >= 1
    assert narrow.max() < 1.25
    z = random.truncated_normal((N,), dtype=dtype, seed=1).numpy().astype(np.float64)
    assert np.abs(z).max() <= 2
    assert np.isfinite(random.normal((N,), dtype=dtype, seed=1).numpy().astype(np.float64)).all()


def test_whole_numbers_of_all_widths():
    for dtype in ("int8", "uint8", "int16", "int32", "uint32", "int64"):
        sample = random.randint((N,), 0, 100, dtype, seed=1).numpy()
        assert sample.dtype == dtype
        assert (sample.min(), sample.max()) == (0, 99)
    wide = random.randint((N,), -(2**62), 2**62, "int64", seed=1).numpy()
    assert wide.min() < -(2**61)
    assert wide.max() > 2**61
    assert random.uniform((5,), 0, 10, dtype="int32", seed=1).dtype == "int32"


def test_dropout():
    x = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    y = random.dropout(x, 0.25, seed=3).numpy()
    kept = y != 0
    np.testing.assert_allclose(y[kept], (x / 0.75)[kept], rtol=1e-6)
    rows = random.dropout(x, 0.5, noise_shape=(None, 1), seed=3).numpy() != 0
    assert (rows.all(1) | ~rows.any(1)).all()
    assert random.dropout(x, 0.0).numpy().tolist() == x.tolist()
    assert not random.dropout(x, 1.0).numpy().any()
    slope = hl.grad(lambda x: hl.ops.sum(random.dropout(x, 0.25, seed=3)))(x)
    np.testing.assert_allclose(slope.numpy(), kept / 0.75, rtol=1e-6)


def test_shapes_and_types_are_those_of_keras():
    for name, args in {
        "uniform": ((2, 3),), "normal": ((2, 3),), "truncated_normal": ((2, 3),), "randint": ((2, 3), 0, 5),
        "gamma": ((2, 3), 1.0), "beta": ((2, 3), 1.0, 1.0), "binomial": ((2, 3), 5.0, 0.5),
        "categorical": (np.zeros((2, 4), np.float32), 3), "shuffle": (np.arange(6).reshape(2, 3),),
        "dropout": (np.ones((2, 3), np.float32), 0.5),
    }.items():  # fmt: skip
        ours, theirs = getattr(random, name)(*args, seed=1), getattr(keras.random, name)(*args, seed=1)
        assert ours.shape == np.shape(theirs)
        assert ours.dtype == np.asarray(theirs).dtype


def test_shuffle_moves_whole_slices():
    x = np.arange(12).reshape(3, 4)
    y = random.shuffle(x, axis=1, seed=2).numpy()
    assert sorted(map(tuple, y.T)) == sorted(map(tuple, x.T))


def test_the_global_seed():
    state = python_random.getstate()
    try:
        hl.set_random_seed(3)
        a, b = random.normal((4,)).numpy(), random.normal((4,)).numpy()
        seed = random.SeedGenerator().seed
        hl.set_random_seed(3)
        np.testing.assert_array_equal(random.normal((4,)).numpy(), a)
        np.testing.assert_array_equal(random.normal((4,)).numpy(), b)
        assert random.SeedGenerator().seed == seed
        assert (a != b).all()
    finally:
        python_random.setstate(state)


def test_generators():
    g = random.SeedGenerator(7, name="g")
    assert g.state.shape == (2,)
    assert g.state.trainable is False
    assert g.get_config() == {"seed": 7}
    assert random.SeedGenerator.from_config(g.get_config()).seed == 7
    keys = {tuple(g.next().numpy().tolist()) for _ in range(5)}
    assert keys == {(7, i) for i in range(5)}
    large = random.SeedGenerator(2**40 + 1)
    assert large.next().numpy()[0] != random.SeedGenerator(1).next().numpy()[0]
    for seed in (-1, "a", 1.5, True):
        with pytest.raises(ArgumentError):
            random.SeedGenerator(seed)
        with pytest.raises(ArgumentError):
            random.normal((2,), seed=seed)


def test_draws_are_independent():
    """Numbers of neighbouring seeds and counters do not correlate."""
    g = random.SeedGenerator(1)
    columns = [random.normal((N,), seed=g).numpy() for _ in range(4)] + [
        random.normal((N,), seed=s).numpy() for s in range(2, 6)
    ]
    correlation = np.corrcoef(columns) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(N)


def test_errors():
    with pytest.raises(ArgumentError, match="dropout"):
        random.dropout(np.ones(3), 1.5)
    with pytest.raises(ShapeError, match="noise_shape"):
        random.dropout(np.ones((2, 3)), 0.5, noise_shape=(1,))
    with pytest.raises(ArgumentError, match="randint"):
        random.randint((2,), 3, 3)
    with pytest.raises(ArgumentError, match="normal"):
        random.normal((2,), dtype="int32")
    with pytest.raises(ShapeError, match="categorical"):
        random.categorical(np.zeros(3), 2)
