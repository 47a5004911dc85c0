"""Optimizers: a few lines of maths each, on Variables.

`optimizer.minimize(loss, variables)` differentiates and updates, inside a traced step. A new optimizer says which
arrays it keeps per weight (`slots`) and how one weight moves (`update`):

    class Momentum(Optimizer):
        def slots(self):
            return (("velocity",),)

        def update(self, variable, gradient, rate, velocity):
            variable.assign_sub(velocity.assign(0.9 * velocity + rate * gradient))

All state is Variables with readable paths ("adam/momentum/dense/kernel"). Weights that are not trainable do not
move and have no state; state of weights that become trainable is added when they first move. Setting
`learning_rate` needs no retracing.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from highlevel import ir, ops, serialization
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import Setting, Variable
from highlevel.serialization import Configurable

from .schedules import LearningRateSchedule


class Optimizer(Configurable, kind="optimizer"):
    """Base of optimizers: rates, clipping, decay, averages and constraints around `update`.

    learning_rate:   a number, a `LearningRateSchedule` of the step, or a function without arguments
    weight_decay:    share of the weight, times the rate, that is taken away each step (decoupled from the gradient)
    clipnorm:        largest norm of each gradient
    global_clipnorm: largest norm of all gradients together
    clipvalue:       largest absolute value in the gradients; at most one of the three
    use_ema:         keep moving averages of the weights, with `ema_momentum`; they replace the weights every
                     `ema_overwrite_frequency` steps, and on `finalize_variable_values`
    gradient_accumulation_steps: move once in so many steps, by the mean of the gradients since the last time
    loss_scale_factor: factor of the loss in `minimize`, taken off the gradients again, against underflow in float16
    """

    multipliers = Setting(())  # (pattern, factor) pairs; a program is traced anew when they change
    _schedule = Setting(None)
    _no_decay = Setting(((), ()))  # identities of weights, and words in names, that do not decay

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._check_options()
        self._weights: dict[int, Variable] = {}  # by identity, in the order of building
        self._state: dict[int, dict[str, Variable]] = {}
        self.iterations = Variable(np.int64(0), trainable=False, name="iteration", path=f"{self.name}/iteration")
        self._rate: Variable | None = None
        self.learning_rate = learning_rate

    def _check_options(self) -> None:
        clips = {"clipnorm": self.clipnorm, "clipvalue": self.clipvalue, "global_clipnorm": self.global_clipnorm}
        given = {name: value for name, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ArgumentError(f"{self.name}: gradients can be clipped in one way only", got=given)
        for name, value in given.items():
            if value <= 0:
                raise ArgumentError(f"{self.name}: {name} has to be positive", got=value)
        if not 0.0 <= self.ema_momentum <= 1.0:
            raise ArgumentError(f"{self.name}: ema_momentum is out of range", got=self.ema_momentum, expected="0…1")
        steps = self.gradient_accumulation_steps
        if steps is not None and steps < 2:
            raise ArgumentError(f"{self.name}: gradient_accumulation_steps", got=steps, expected="at least 2, or None")

    # What an optimizer defines --------------------------------------------------------------------------------------
    def slots(self) -> tuple[tuple[str, ...], ...]:
        """Names of the arrays kept per weight, in the groups in which files list them."""
        return ()

    def initial(self, slot: str) -> float:
        """The value that a slot starts from."""
        return 0.0

    def begin_step(self, rate: Any) -> Any:
        """The rate for `update`, once per step; `self.step` counts the steps from 1."""
        return rate

    def update(self, variable: Variable, gradient: Any, rate: Any, **slots: Variable) -> None:
        """Moves one weight (and its slots) by one step."""
        raise NotImplementedError(f"{type(self).__name__} does not define update(variable, gradient, rate, …)")

    # State ----------------------------------------------------------------------------------------------------------
    @property
    def step(self) -> Any:
        """The number of this update, from 1, as float32."""
        return ops.cast(self._updates(), "float32") + 1.0

    def _updates(self) -> Any:
        """How often the weights have moved."""
        steps = self.gradient_accumulation_steps
        return self.iterations.read() if steps is None else self.iterations.read() // steps

    @property
    def learning_rate(self) -> Any:
        """The Variable that holds the rate; or, with a schedule, the rate of the current step."""
        schedule = self._schedule
        if schedule is None:
            return self._rate
        return schedule(self.iterations) if isinstance(schedule, LearningRateSchedule) else schedule()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, Mapping):
            value = serialization.deserialize(value, kind="schedule")
        if callable(value) and not isinstance(value, ir.operand.Operand):
            self._schedule = value
            return
        if isinstance(value, (int, float)) and not (value >= 0 and math.isfinite(value)):
            raise ArgumentError(f"{self.name}: the learning rate is out of range", got=value, expected="a number ≥ 0")
        if self._rate is None:
            path = f"{self.name}/learning_rate"
            self._rate = Variable(np.float32(value), trainable=False, name="learning_rate", path=path)
        else:
            self._rate.assign(value)
        self._schedule = None

    @property
    def variables(self) -> list[Variable]:
        """All state: the step count, the rate, then the slots, in Keras's order."""
        head = [self.iterations] if self._rate is None or self._schedule is not None else [self.iterations, self._rate]
        return head + self._slot_variables()

    def _slot_groups(self) -> tuple[tuple[str, ...], ...]:
        average = (("average",),) if self.use_ema else ()
        accumulator = (("gradient_accumulator",),) if self.gradient_accumulation_steps else ()
        return (*average, *accumulator, *self.slots())

    def _slot_variables(self) -> list[Variable]:
        return [self._state[key][slot] for group in self._slot_groups() for key in self._weights for slot in group]

    def build(self, variables: Sequence[Variable]) -> None:
        """Makes the state of weights that have none yet."""
        for variable in variables:
            if id(variable) in self._state:
                continue
            self._weights[id(variable)] = variable
            self._state[id(variable)] = {
                slot: Variable(
                    np.full(variable.shape, self._initial(slot), variable.dtype.numpy),
                    trainable=False,
                    name=slot,
                    path=f"{self.name}/{slot}/{variable.path}",
                )
                for group in self._slot_groups()
                for slot in group
            }

    def _initial(self, slot: str) -> float:
        return 0.0 if slot in ("average", "gradient_accumulator") else self.initial(slot)

    @property
    def built(self) -> bool:
        return bool(self._weights)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self._schedule is None and self._rate is not None:
            config["learning_rate"] = float(np.float32(self._rate.numpy()))
        return config

    # Rates and decay of single weights ------------------------------------------------------------------------------
    def set_multipliers(self, multipliers: Mapping[str, float], variables: Sequence[Variable] | None = None) -> None:
        """Factors of the learning rate for some weights, by their paths; the last pattern that matches counts.

        multipliers: {"backbone": 0.1, "head/bias": 2.0, "block?": 0.5}; whole parts of paths, with * and ?
        variables:   if given, a pattern that matches none of them is an error
        """
        for pattern, factor in multipliers.items():
            if not (factor >= 0 and math.isfinite(factor)):
                raise ArgumentError(
                    f"{self.name}: the multiplier of {pattern!r} is out of range", got=factor, expected="≥ 0"
                )
            if variables is not None and not any(matches(variable.path, pattern) for variable in variables):
                paths = [variable.path for variable in variables]
                hint = did_you_mean(pattern, paths)
                raise ArgumentError(
                    f"{self.name}: no weight matches {pattern!r}", got=f"{len(paths)} weights", hint=hint
                )
        self.multipliers = tuple((pattern, float(factor)) for pattern, factor in multipliers.items())

    def multiplier(self, variable: Variable) -> float:
        """The factor of the learning rate for one weight."""
        factor = 1.0
        for pattern, value in self.multipliers:
            if matches(variable.path, pattern):
                factor = value
        return factor

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Weights that do not decay, or words in their names ("bias", "gamma", "beta")."""
        self._no_decay = tuple(id(variable) for variable in var_list or ()), tuple(var_names or ())

    def decays(self, variable: Variable) -> bool:
        if not self.weight_decay:
            return False
        weights, words = self._no_decay
        return id(variable) not in weights and not any(word in variable.name for word in words)

    # The step -------------------------------------------------------------------------------------------------------
    def minimize(self, loss: Any, variables: Sequence[Variable]) -> None:
        """Moves the variables down the gradient of a (symbolic) loss."""
        variables = [variable for variable in variables if variable.trainable]
        self.apply(ir.gradients(self.scale_loss(loss), variables), variables)

    def scale_loss(self, loss: Any) -> Any:
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def apply(self, gradients: Sequence[Any], variables: Sequence[Variable] | None = None) -> None:
        """One step with given gradients (None for a weight that does not move)."""
        variables = list(self._weights.values()) if variables is None else list(variables)
        if len(gradients) != len(variables):
            raise ArgumentError(
                f"{self.name}: one gradient per weight", got=f"{len(gradients)} gradients", expected=len(variables)
            )
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None and v.trainable]
        self.build([variable for _, variable in pairs])
        pairs = [(ops.cast(gradient, variable.dtype), variable) for gradient, variable in pairs]
        if self.loss_scale_factor is not None:
            pairs = [(gradient / self.loss_scale_factor, variable) for gradient, variable in pairs]
        if self.gradient_accumulation_steps is None:
            self._move(pairs)
        else:
            self._accumulate(pairs, self.gradient_accumulation_steps)
        self.iterations.assign_add(1)

    def apply_gradients(self, grads_and_vars: Sequence[tuple[Any, Variable]]) -> None:
        """`apply` for (gradient, variable) pairs."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(gradients, variables)

    def _accumulate(self, pairs: list[tuple[Any, Variable]], steps: int) -> None:
        sums = [self._state[id(variable)]["gradient_accumulator"] for _, variable in pairs]

        def move() -> Any:
            self._move([((g + total) / float(steps), v) for (g, v), total in zip(pairs, sums, strict=True)])
            for total in sums:
                total.assign(ops.zeros_like(total))
            return ops.full((), 0)

        def wait() -> Any:
            for (gradient, _), total in zip(pairs, sums, strict=True):
                total.assign_add(gradient)
            return ops.full((), 0)

        ops.cond(ops.equal((self.iterations.read() + 1) % steps, 0), move, wait)

    def _move(self, pairs: list[tuple[Any, Variable]]) -> None:
        pairs = self._clip(pairs)
        base = ops.cast(ops.convert_to_tensor(self.learning_rate), "float32")
        rate = self.begin_step(base)
        for gradient, variable in pairs:
            factor = self.multiplier(variable)
            if self.decays(variable):
                decay = float(self.weight_decay or 0.0) * factor
                variable.assign_sub(variable * decay * ops.cast(base, variable.dtype))
            state = self._state[id(variable)]
            slots = {slot: state[slot] for group in self.slots() for slot in group}
            own_rate = rate if factor == 1.0 else rate * factor
            self.update(variable, gradient, ops.cast(own_rate, variable.dtype), **slots)
        if self.use_ema:
            self._average()
        for _, variable in pairs:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.read()))

    def _clip(self, pairs: list[tuple[Any, Variable]]) -> list[tuple[Any, Variable]]:
        if self.clipvalue is not None:
            return [(ops.clip(g, -self.clipvalue, self.clipvalue), v) for g, v in pairs]
        if self.clipnorm is not None:
            return [(g * self._shrinking(ops.sum(ops.square(g)), self.clipnorm), v) for g, v in pairs]
        if self.global_clipnorm is not None and pairs:
            squares = [ops.cast(ops.sum(ops.square(g)), "float32") for g, _ in pairs]
            factor = self._shrinking(sum(squares[1:], squares[0]), self.global_clipnorm)
            return [(g * ops.cast(factor, g.dtype), v) for g, v in pairs]
        return pairs

    @staticmethod
    def _shrinking(square: Any, limit: float) -> Any:
        """limit / max(norm, limit); NaN if the norm is not finite, so that overflow is seen and not clipped away."""
        norm = ops.sqrt(square)
        return limit / ops.maximum(norm, limit) + (norm - norm)

    # Averages of weights --------------------------------------------------------------------------------------------
    def _average(self) -> None:
        moved = self._updates()
        momentum = ops.where(ops.equal(moved, 0), 0.0, self.ema_momentum)
        for key, variable in self._weights.items():
            average = self._state[key]["average"]
            share = ops.cast(momentum, variable.dtype)
            average.assign(share * average + (1.0 - share) * variable)
        if self.ema_overwrite_frequency:
            now = ops.equal((moved + 1) % self.ema_overwrite_frequency, 0)
            for key, variable in self._weights.items():
                variable.assign(ops.where(now, self._state[key]["average"].read(), variable.read()))

    def finalize_variable_values(self, variables: Sequence[Variable] | None = None) -> None:
        """Replaces weights by their moving averages, at the end of training."""
        if self.use_ema:
            for variable in self._weights.values() if variables is None else variables:
                if id(variable) in self._state:
                    variable.assign(self._state[id(variable)]["average"].read())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def matches(path: str, pattern: str) -> bool:
    """Whether whole parts of a path, one after another, fit a pattern, which may have * and ?.

    >>> matches("net/body/conv/bias", "body"), matches("net/body2/bias", "body"), matches("net/b2/bias", "b*/bias")
    (True, False, True)
    """
    return fnmatch.fnmatchcase(f"/{path}/", f"*/{pattern}/*")
