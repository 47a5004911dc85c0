"""Learning rates that depend on the step: `schedule(step)`, a number for a number and a symbol for a symbol.

They are formulas of the optimizer's step count, so a traced step contains them and nothing is traced anew as the
rate changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from highlevel import ops, serialization
from highlevel.errors import ArgumentError
from highlevel.serialization import Configurable


def _positive(schedule: Any, **values: Any) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ArgumentError(f"{type(schedule).__name__}: {name} has to be positive", got=value)


class LearningRateSchedule(Configurable, kind="schedule"):
    """Base of schedules: `at(step)` with the step (from 0) as float32 gives the rate.

    >>> float(ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20))
    0.02500...
    """

    def at(self, step: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define at(step)")

    def __call__(self, step: Any) -> Any:
        return self.at(ops.cast(ops.convert_to_tensor(step), "float32"))


class ExponentialDecay(LearningRateSchedule):
    """initial · decay_rate^(step / decay_steps), in jumps if `staircase`"""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _positive(self, decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase, self.name = decay_rate, staircase, name

    def at(self, step: Any) -> Any:
        p = step / float(self.decay_steps)
        return self.initial_learning_rate * float(self.decay_rate) ** (ops.floor(p) if self.staircase else p)


class InverseTimeDecay(LearningRateSchedule):
    """initial / (1 + decay_rate · step / decay_steps), in jumps if `staircase`"""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        _positive(self, decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase, self.name = decay_rate, staircase, name

    def at(self, step: Any) -> Any:
        p = step / float(self.decay_steps)
        return self.initial_learning_rate / (1.0 + self.decay_rate * (ops.floor(p) if self.staircase else p))


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[0] up to and including step boundaries[0], then values[1] up to boundaries[1], …; values[-1] at last"""

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(values) != len(boundaries) + 1:
            raise ArgumentError(
                "PiecewiseConstantDecay: one value more than boundaries",
                got=f"{len(boundaries)} boundaries, {len(values)} values",
            )
        if list(boundaries) != sorted(boundaries):
            raise ArgumentError("PiecewiseConstantDecay: the boundaries do not rise", got=boundaries)
        self.boundaries, self.values, self.name = list(boundaries), list(values), name

    def at(self, step: Any) -> Any:
        rate = ops.full((), float(self.values[-1]), dtype="float32")
        for boundary, value in zip(reversed(self.boundaries), reversed(self.values[:-1]), strict=True):
            rate = ops.where(step <= float(boundary), float(value), rate)
        return rate


class PolynomialDecay(LearningRateSchedule):
    """(initial − end) · (1 − step / decay_steps)^power + end; `cycle`: begins anew with a multiple of decay_steps"""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _positive(self, decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.end_learning_rate, self.power, self.cycle, self.name = end_learning_rate, power, cycle, name

    def at(self, step: Any) -> Any:
        steps = float(self.decay_steps)
        if self.cycle:
            p = step / (steps * ops.maximum(ops.ceil(step / steps), 1.0))
        else:
            p = ops.minimum(step, steps) / steps
        return (self.initial_learning_rate - self.end_learning_rate) * (1.0 - p) ** self.power + self.end_learning_rate


def _half_cosine(p: Any) -> Any:
    """From 1 (p = 0) to 0 (p = 1) along a cosine."""
    return 0.5 * (1.0 + ops.cos(math.pi * p))


class CosineDecay(LearningRateSchedule):
    """Half a cosine from initial to alpha · initial over decay_steps, after a linear warm-up to `warmup_target`

    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        _positive(self, decay_steps=decay_steps)
        self.initial_learning_rate, self.decay_steps, self.alpha, self.name = (
            initial_learning_rate,
            decay_steps,
            alpha,
            name,
        )
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def at(self, step: Any) -> Any:
        if self.warmup_target is None:
            return self._decayed(step, self.initial_learning_rate)
        decayed = self._decayed(step - float(self.warmup_steps), self.warmup_target)
        if not self.warmup_steps:
            return decayed
        climb = (self.warmup_target - self.initial_learning_rate) / float(self.warmup_steps)
        return ops.where(step < float(self.warmup_steps), self.initial_learning_rate + climb * step, decayed)

    def _decayed(self, step: Any, start: float) -> Any:
        p = ops.minimum(step, float(self.decay_steps)) / float(self.decay_steps)
        return start * ((1.0 - self.alpha) * _half_cosine(p) + self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Half a cosine over first_decay_steps, again and again: each t_mul times as long, and m_mul times as high

    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _positive(self, first_decay_steps=first_decay_steps, t_mul=t_mul)
        self.initial_learning_rate, self.first_decay_steps = initial_learning_rate, first_decay_steps
        self.t_mul, self.m_mul, self.alpha, self.name = float(t_mul), float(m_mul), alpha, name

    def at(self, step: Any) -> Any:
        p = step / float(self.first_decay_steps)
        if self.t_mul == 1.0:
            restart = ops.floor(p)
            p = p - restart
        else:  # restart i begins at (1 − t_mul^i) / (1 − t_mul)
            restart = ops.floor(ops.log(1.0 - p * (1.0 - self.t_mul)) / math.log(self.t_mul))
            begin = (1.0 - self.t_mul**restart) / (1.0 - self.t_mul)
            p = (p - begin) / self.t_mul**restart
        return self.initial_learning_rate * ((1.0 - self.alpha) * self.m_mul**restart * _half_cosine(p) + self.alpha)


class OneCycle(LearningRateSchedule):
    """Up to max_learning_rate in the first part of training, then down to almost nothing, both along cosines

    total_steps: length of the cycle; after it the rate stays at its end
    warmup:      share of the steps that go up
    start, end:  the first rate is max_learning_rate / start, the last max_learning_rate / end

    L. N. Smith and N. Topin, "Super-convergence", 2018.
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup: float = 0.25,
        start: float = 25.0,
        end: float = 1e5,
        name: str = "OneCycle",
    ) -> None:
        _positive(self, max_learning_rate=max_learning_rate, total_steps=total_steps, start=start, end=end)
        if not 0.0 < warmup < 1.0:
            raise ArgumentError("OneCycle: warmup is a share of the steps", got=warmup, expected="0 < warmup < 1")
        self.max_learning_rate, self.total_steps, self.warmup = max_learning_rate, total_steps, warmup
        self.start, self.end, self.name = start, end, name

    def at(self, step: Any) -> Any:
        top, turn, last = self.max_learning_rate, self.warmup * self.total_steps, float(self.total_steps)
        low, bottom = top / self.start, top / self.end
        up = top + (low - top) * _half_cosine(step / turn)
        down = bottom + (top - bottom) * _half_cosine((ops.minimum(step, last) - turn) / (last - turn))
        return ops.where(step < turn, up, down)


def get(identifier: Any) -> Any:
    """A schedule for an object, a class or a description; None stays None."""
    return serialization.get(identifier, "schedule")
