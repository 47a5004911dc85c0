"""Random numbers, with the names and arguments of `keras.random`.

All of them are made of `random_bits`, a pure function of a key: the same seed gives the same numbers on every
backend and device, eagerly and inside a compiled program. `seed` is an integer (the same numbers each time), a
`SeedGenerator` (new numbers each time), or None for the global generator, which `set_random_seed` sets.
"""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor, Variable, control, operators, primitives
from highlevel.ir.dtypes import DType, as_dtype, bool_, float32, float64, int32, promote, to_float, uint32, uint64
from highlevel.ir.operand import Operand
from highlevel.ir.operators import cast, operand
from highlevel.ops.arguments import DEFAULT_FLOAT, dtype_or, normalize_axis, sizes_of
from highlevel.ops.indexing import take
from highlevel.ops.registry import op_in

op = op_in("random")


# Seeds -----------------------------------------------------------------------------------------------------------
class SeedGenerator:
    """A source of keys: a seed, and a counter that moves on with every draw.

    The state is a variable (seed, counter), so that a compiled program moves it on, too, and checkpoints hold it.

    seed: a non-negative integer; if None, one is drawn
    name: name of the generator

    >>> generator = SeedGenerator(seed=7)
    >>> generator.next().numpy(), generator.next().numpy()
    (array([7, 0], dtype=uint32), array([7, 1], dtype=uint32))
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        if seed is None:
            seed = draw_seed()
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ArgumentError(
                "SeedGenerator: the seed is not a number to count with", got=seed, expected="an integer ≥ 0"
            )
        self.seed = int(seed)
        self.name = name or "seed_generator"
        self.state = Variable(_key(self.seed), trainable=False, name="seed_generator_state", tags=("seed",))

    @property
    def variables(self) -> list[Variable]:
        """The state: layers that hold the generator count it among theirs."""
        return [self.state]

    def next(self, ordered: bool = True) -> Any:
        """The key for one draw, uint32 (2,)."""
        key = self.state.read()
        self.state.assign(primitives.add(key, operand(np.array([0, 1], np.uint32))))
        return key

    def reset(self) -> None:
        """Back to the state after construction."""
        self.state.assign(_key(self.seed))

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        return cls(**config)

    def __repr__(self) -> str:
        return f"SeedGenerator(seed={self.seed})"


def _key(seed: int) -> Tensor:
    """Seeds of any length in one word: those below 2³² as they are."""
    word = 0
    while seed:
        word, seed = ((word * 0x9E3779B1) ^ seed) & 0xFFFFFFFF, seed >> 32
    return Tensor.of(np.array([word, 0], np.uint32))


_global: list[SeedGenerator] = []


def global_generator() -> SeedGenerator:
    """The generator of draws without a seed."""
    if not _global:
        _global.append(SeedGenerator(draw_seed(), "global_seed_generator"))
    return _global[0]


def draw_seed() -> int:
    """A new seed, from Python's generator: `set_random_seed` makes it repeatable."""
    return python_random.randint(1, 10**9)


def set_random_seed(seed: int) -> None:
    """Sets Python's, NumPy's and this library's seed: the whole program, from here on, is repeatable."""
    python_random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - people's own code shuffles with it
    fresh = SeedGenerator(seed, "global_seed_generator")
    if _global:
        _global[0].seed = fresh.seed
        _global[0].reset()
    else:
        _global.append(fresh)


def key_from(seed: Any) -> Any:
    """The key for one draw."""
    if seed is None:
        return global_generator().next()
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if isinstance(seed, Operand):
        key = seed.read()
        return cast(key, uint32)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ArgumentError(
            "the seed is neither a number nor a SeedGenerator", got=repr(seed), expected="an integer ≥ 0"
        )
    return _key(int(seed))


def split_key(key: Any, count: int) -> list[Any]:
    """Keys of independent streams, made of one."""
    words = primitives.random_bits(key, shape=(count, 2))
    return [words[i] for i in range(count)]


# Uniform ---------------------------------------------------------------------------------------------------------
def _fraction(key: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """Multiples of 2^−digits in [0, 1), as many digits as the type holds exactly."""
    if dtype is float64:
        high, low = split_key(key, 2)
        upper = cast(primitives.random_bits(high, shape=shape) >> 5, float64)
        lower = cast(primitives.random_bits(low, shape=shape) >> 6, float64)
        return (upper * 2.0**26 + lower) * 2.0**-53
    digits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype.name]
    bits = primitives.random_bits(key, shape=shape) >> (32 - digits)
    return cast(primitives.bitcast(bits, dtype=int32), dtype) * 2.0**-digits


def _symmetric(key: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """Numbers in (−1, 1), as likely as their negatives, never 0 or ±1."""
    if dtype is float64:
        return _fraction(key, shape, float64) * 2.0 - (1.0 - 2.0**-53)
    bits = primitives.bitcast(primitives.random_bits(key, shape=shape) >> 9, dtype=int32)
    return (cast(bits, float32) + 0.5) * 2.0**-22 - 1.0


def _float_type(dtype: Any, name: str) -> DType:
    kind = dtype_or(dtype, DEFAULT_FLOAT)
    if not kind.is_float:
        raise ArgumentError(
            f"{name}: not a floating-point type", got=kind, expected="float32, float64, float16 or bfloat16"
        )
    return kind


@op
def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Numbers spread evenly over [minval, maxval); with an integer type, integers."""
    kind = dtype_or(dtype, DEFAULT_FLOAT)
    if not kind.is_float:
        return randint(shape, minval, maxval, dtype, seed)
    sizes = sizes_of(shape)
    u = _fraction(key_from(seed), sizes, kind)
    if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)):
        if (minval, maxval) == (0, 1):
            return u
        values = u * float(maxval - minval) + float(minval)
        top = float(np.nextafter(kind.numpy.type(maxval), kind.numpy.type(minval)))  # rounding may reach maxval
        return primitives.minimum(*operators.match(values, top)) if minval < maxval else values
    low, high = operand(minval, kind), operand(maxval, kind)
    values = operators.add(operators.multiply(u, high - low), low)
    _, low, high = operators.match(values, low, high)
    return primitives.select(primitives.less(values, high), values, low)


@op
def randint(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Any:
    """Integers spread evenly over [minval, maxval)."""
    kind = as_dtype(dtype)
    if not kind.is_integer:
        raise ArgumentError("randint: not an integer type", got=kind, expected="an integer type")
    sizes = sizes_of(shape)
    if all(isinstance(v, (int, np.integer, float)) for v in (minval, maxval)) and maxval <= minval:
        raise ArgumentError("randint: an empty range", got=f"[{minval}, {maxval})", expected="minval < maxval")
    low, high = (operand(int(v) if isinstance(v, float) else v, kind) for v in (minval, maxval))
    first, second = split_key(key_from(seed), 2)
    words = [cast(primitives.random_bits(k, shape=sizes), uint64) for k in (first, second)]
    span = cast(high, uint64) - cast(low, uint64)  # two's complement: right also where minval is negative
    offset = operators.remainder((words[0] << 32) | words[1], span)
    return cast(cast(low, uint64) + offset, kind) if kind.size_bytes == 8 else _narrow(low, offset, kind)


def _narrow(low: Any, offset: Any, kind: DType) -> Any:
    wide = as_dtype("int64")
    return cast(operators.add(cast(low, wide), cast(offset, wide)), kind)


@op
def bernoulli(shape: Any, probability: Any = 0.5, dtype: Any = "bool", seed: Any = None) -> Any:
    """True with a probability."""
    u = _fraction(key_from(seed), sizes_of(shape), float32)
    return cast(operators.less(u, operand(probability, float32)), dtype)


# Normal ----------------------------------------------------------------------------------------------------------
def _wide(kind: DType) -> DType:
    return promote(kind, float32)


def _standard_normal(key: Any, shape: tuple[int, ...], kind: DType) -> Any:
    """Φ⁻¹ of uniform numbers: one word for each."""
    return primitives.erfinv(_symmetric(key, shape, kind)) * math.sqrt(2.0)


@op
def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers."""
    kind = _float_type(dtype, "normal")
    z = _standard_normal(key_from(seed), sizes_of(shape), _wide(kind))
    return cast(_scaled(z, mean, stddev), kind)


def _scaled(z: Any, mean: Any, stddev: Any) -> Any:
    z = z if isinstance(stddev, (int, float)) and stddev == 1 else operators.multiply(z, stddev)
    return z if isinstance(mean, (int, float)) and mean == 0 else operators.add(z, mean)


@op
def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Normally distributed numbers, none further from the mean than two standard deviations."""
    kind = _float_type(dtype, "truncated_normal")
    within = math.erf(math.sqrt(2.0))  # the probability of ±2σ
    u = _symmetric(key_from(seed), sizes_of(shape), _wide(kind)) * within
    z = primitives.erfinv(u) * math.sqrt(2.0)
    bound = operators.full(z.shape, 2.0, z.dtype)
    z = primitives.minimum(primitives.maximum(z, -bound), bound)
    return cast(_scaled(z, mean, stddev), kind)


# Choices ---------------------------------------------------------------------------------------------------------
@op
def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Each value set to 0 with probability `rate`, the others scaled by 1 / (1 − rate).

    noise_shape: shape of the choices, which broadcast: with size 1 a whole axis shares one; None is the input's size
    """
    x = operand(inputs)
    if not 0 <= rate <= 1:
        raise ArgumentError("dropout: the rate is not a probability", got=rate, expected="0 ≤ rate ≤ 1")
    x = cast(x, to_float(x.dtype))
    if rate == 0:
        return x
    if rate == 1:
        return operators.zeros_like(x)
    shape = x.shape
    if noise_shape is not None:
        given = tuple(noise_shape)
        if len(given) != x.ndim:
            raise ShapeError("dropout: noise_shape has another rank", got=given, expected=f"rank {x.ndim}")
        shape = tuple(n if g is None else int(g) for g, n in zip(given, x.shape, strict=True))
    bits = primitives.random_bits(key_from(seed), shape=shape)
    limit = operators.full(shape, min(round((1.0 - rate) * 2.0**32), 2**32 - 1), uint32)
    kept = operators.broadcast_to(primitives.less(bits, limit), x.shape)
    return primitives.select(kept, x * (1.0 / (1.0 - rate)), operators.zeros_like(x))


@op
def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Classes drawn by their unnormalised log probabilities: (batch, classes) gives (batch, num_samples).

    The largest of logits plus Gumbel noise is a draw (E. J. Gumbel, 1954).
    """
    scores = operand(logits)
    if scores.ndim != 2:
        raise ShapeError("categorical: wrong rank", got=scores.spec, expected="(batch, classes)")
    scores = cast(scores, promote(to_float(scores.dtype), float32))
    batch, classes = scores.shape
    shape = (batch, int(num_samples), classes)
    u = (_symmetric(key_from(seed), shape, scores.dtype) + 1.0) * 0.5
    noise = -primitives.log(-primitives.log(u))
    best = operators.add(operators.reshape(scores, batch, 1, classes), noise)
    return primitives.argmax(best, axis=2, dtype=as_dtype(dtype))


@op
def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """The slices along an axis in random order."""
    x = operand(x)
    axis = normalize_axis(axis, x.ndim, "shuffle")
    return take(x, permutation(x.shape[axis], seed), axis)


def permutation(size: int, seed: Any = None) -> Any:
    """0 … size − 1 in random order: the places of random words in rising order."""
    words = primitives.random_bits(key_from(seed), shape=(int(size),))
    return cast(primitives.argsort(words, axis=0, descending=False), int32)


# By rejection ----------------------------------------------------------------------------------------------------
def _until_accepted(key: Any, shape: tuple[int, ...], dtype: DType, propose: Callable[[Any], tuple[Any, Any]]) -> Any:
    """Draws `(value, accepted)` again and again until each place has accepted one."""

    def goes_on(key: Any, done: Any, value: Any) -> Any:
        return cast(primitives.reduce_sum(cast(~done, int32), axes=tuple(range(len(shape)))), bool_)

    def step(key: Any, done: Any, value: Any) -> Any:
        now, later = split_key(key, 2)
        fresh, accepted = propose(now)
        return later, done | accepted, primitives.select(done, value, fresh)

    start = (key, operators.full(shape, False, bool_), operators.full(shape, 0.0, dtype))
    return control.while_loop(goes_on, step, start)[2]


def _gamma(key: Any, shape: tuple[int, ...], alpha: Any) -> Any:
    """G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", 2000."""
    dtype = alpha.dtype
    alpha = operators.broadcast_to(alpha, shape)
    boosted = operators.less(alpha, 1.0)
    main, power = split_key(key, 2)
    d = primitives.select(boosted, alpha + 1.0, alpha) - 1.0 / 3.0
    c = primitives.rsqrt(d * 9.0)

    def propose(key: Any) -> tuple[Any, Any]:
        for_x, for_u = split_key(key, 2)
        x = _standard_normal(for_x, shape, dtype)
        root = 1.0 + c * x
        v = root * root * root
        u = (_symmetric(for_u, shape, dtype) + 1.0) * 0.5
        positive = operators.less(0.0, v)
        safe = primitives.select(positive, v, operators.ones_like(v))
        limit = 0.5 * x * x + d * (1.0 - safe + primitives.log(safe))
        return d * safe, positive & primitives.less(primitives.log(u), limit)

    value = _until_accepted(main, shape, dtype, propose)
    u = (_symmetric(power, shape, dtype) + 1.0) * 0.5
    factor = primitives.exp(primitives.log(u) / alpha)  # u^(1/α): from Γ(α + 1) to Γ(α)
    return value * primitives.select(boosted, factor, operators.ones_like(factor))


@op
def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Gamma distributed numbers of shape α and scale 1."""
    kind = _float_type(dtype, "gamma")
    return cast(_gamma(key_from(seed), sizes_of(shape), operand(alpha, _wide(kind))), kind)


@op
def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Beta distributed numbers: x / (x + y) of two gamma distributed ones."""
    kind = _float_type(dtype, "beta")
    wide = _wide(kind)
    return cast(_beta(key_from(seed), sizes_of(shape), operand(alpha, wide), operand(beta, wide)), kind)


def _beta(key: Any, shape: tuple[int, ...], alpha: Any, beta: Any) -> Any:
    first, second = split_key(key, 2)
    x, y = _gamma(first, shape, alpha), _gamma(second, shape, beta)
    return x / (x + y)


FEW = 16  # trials that are made one by one


@op
def binomial(shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """How many of `counts` trials succeed, each with its probability.

    The median of n uniform numbers is Beta distributed; whether it is below p settles half of the trials (D. A. Relles,
    1972).
    """
    kind = _float_type(dtype, "binomial")
    wide, sizes = _wide(kind), sizes_of(shape)
    n = operators.broadcast_to(operand(counts, wide), sizes)
    p = operators.broadcast_to(operand(probabilities, wide), sizes)

    def goes_on(key: Any, n: Any, p: Any, k: Any) -> Any:
        return operators.less(FEW, primitives.reduce_max(n, axes=tuple(range(n.ndim))))

    def step(key: Any, n: Any, p: Any, k: Any) -> Any:
        now, later = split_key(key, 2)
        many = operators.less(FEW, n)
        half = primitives.floor(primitives.select(many, n, operators.full(sizes, 2.0 * FEW, wide)) * 0.5) + 1.0
        rest = primitives.select(many, n, operators.full(sizes, 2.0 * FEW, wide)) + 1.0 - half
        middle = _beta(now, sizes, half, rest)
        below = primitives.less_equal(middle, p)
        fewer = primitives.select(below, n - half, half - 1.0)
        chance = primitives.select(below, (p - middle) / (1.0 - middle), p / middle)
        won = primitives.select(below, half, operators.zeros_like(half))
        return (
            later,
            primitives.select(many, fewer, n),
            primitives.select(many, chance, p),
            primitives.select(many, k + won, k),
        )

    key = key_from(seed)
    if n.size:
        key, n, p, k = control.while_loop(goes_on, step, (key, n, p, operators.zeros_like(n)))
    else:
        k = n
    u = _fraction(key, (FEW, *sizes), wide)
    trial = primitives.iota(shape=(FEW, *sizes), axis=0, dtype=wide)
    success = operators.less(u, p) & operators.less(trial, n)
    return cast(k + primitives.reduce_sum(cast(success, wide), axes=(0,)), kind)
