"""The optimizers that come with the library; see `optimizer` for how one is made."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel import ops, serialization
from highlevel.errors import ArgumentError
from highlevel.ir import Variable

from .optimizer import Optimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "get",
]


class SGD(Optimizer):
    """w ← w − rate · g; with momentum, v ← momentum · v − rate · g and w ← w + v

    momentum: share of the last step that is made again
    nesterov: takes the gradient's step from where the momentum leads (Yu. Nesterov, 1983)
    """

    def __init__(
        self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        _check_share("momentum", momentum)
        self.momentum, self.nesterov = momentum, nesterov

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum",),) if self.momentum else ()

    def update(self, variable: Variable, gradient: Any, rate: Any, momentum: Variable | None = None) -> None:  # type: ignore[override]
        step = -rate * gradient
        if momentum is not None:
            velocity = momentum.assign(self.momentum * momentum + step)
            step = self.momentum * velocity + step if self.nesterov else velocity
        variable.assign_add(step)


class Adam(Optimizer):
    """w ← w − rate · m̂ / (√v̂ + ε), m and v being moving averages of g and g², corrected for their start at 0

    amsgrad: divide by the largest v so far

    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        _check_share("beta_1", beta_1)
        _check_share("beta_2", beta_2)
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "velocity"), ("velocity_hat",)) if self.amsgrad else (("momentum", "velocity"),)

    def begin_step(self, rate: Any) -> Any:
        return rate * ops.sqrt(1.0 - self.beta_2**self.step) / (1.0 - self.beta_1**self.step)

    def update(  # type: ignore[override]
        self,
        variable: Variable,
        gradient: Any,
        rate: Any,
        momentum: Variable,
        velocity: Variable,
        velocity_hat: Any = None,
    ) -> None:
        m = momentum.assign_add((1.0 - self.beta_1) * (gradient - momentum))
        v = velocity.assign_add((1.0 - self.beta_2) * (gradient * gradient - velocity))
        if velocity_hat is not None:
            v = velocity_hat.assign(ops.maximum(velocity_hat, v))
        variable.assign_sub(rate * m / (ops.sqrt(v) + self.epsilon))


class AdamW(Adam):
    """Adam with weight decay that is decoupled from the gradient

    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)


class RMSprop(Optimizer):
    """w ← w − rate · g / √(v + ε), v being the moving average of g²

    rho:      share of the average that is kept
    momentum: share of the last step that is made again
    centered: divide by an estimate of the variance of g instead

    T. Tieleman and G. Hinton, lecture 6.5, 2012.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        _check_share("rho", rho)
        _check_share("momentum", momentum)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered

    def slots(self) -> tuple[tuple[str, ...], ...]:
        momentum = (("momentum",),) if self.momentum else ()
        average = (("average_gradient",),) if self.centered else ()
        return (("velocity",), *momentum, *average)

    def update(  # type: ignore[override]
        self,
        variable: Variable,
        gradient: Any,
        rate: Any,
        velocity: Variable,
        momentum: Variable | None = None,
        average_gradient: Variable | None = None,
    ) -> None:
        spread = velocity.assign(self.rho * velocity + (1.0 - self.rho) * gradient * gradient)
        if average_gradient is not None:
            mean = average_gradient.assign(self.rho * average_gradient + (1.0 - self.rho) * gradient)
            spread = spread - mean * mean
        step = rate * gradient / ops.sqrt(spread + self.epsilon)
        if momentum is not None:
            step = momentum.assign(self.momentum * momentum + step)
        variable.assign_sub(step)


class Adagrad(Optimizer):
    """w ← w − rate · g / √(Σ g² + ε)

    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods", 2011.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("accumulator",),)

    def initial(self, slot: str) -> float:
        return self.initial_accumulator_value

    def update(self, variable: Variable, gradient: Any, rate: Any, accumulator: Variable) -> None:  # type: ignore[override]
        total = accumulator.assign_add(gradient * gradient)
        variable.assign_sub(rate * gradient / ops.sqrt(total + self.epsilon))


class Adadelta(Optimizer):
    """Steps of the size of the past steps: w ← w − rate · g · rms(past steps) / rms(past gradients)

    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012.
    """

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        _check_share("rho", rho)
        self.rho, self.epsilon = rho, epsilon

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("accumulated_grad", "accumulated_delta_var"),)

    def update(  # type: ignore[override]
        self, variable: Variable, gradient: Any, rate: Any, accumulated_grad: Variable, accumulated_delta_var: Variable
    ) -> None:
        past = accumulated_delta_var.read()
        squares = accumulated_grad.assign(self.rho * accumulated_grad + (1.0 - self.rho) * gradient * gradient)
        step = ops.sqrt(past + self.epsilon) * gradient / ops.sqrt(squares + self.epsilon)
        accumulated_delta_var.assign(self.rho * past + (1.0 - self.rho) * step * step)
        variable.assign_sub(rate * step)


class Adamax(Optimizer):
    """Adam with the largest past gradient in place of the root of the mean square

    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, section 7.1.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "norm"),)

    def begin_step(self, rate: Any) -> Any:
        return rate / (1.0 - self.beta_1**self.step)

    def update(self, variable: Variable, gradient: Any, rate: Any, momentum: Variable, norm: Variable) -> None:  # type: ignore[override]
        m = momentum.assign_add((1.0 - self.beta_1) * (gradient - momentum))
        u = norm.assign(ops.maximum(self.beta_2 * norm, ops.abs(gradient)))
        variable.assign_sub(rate * m / (u + self.epsilon))


class Nadam(Optimizer):
    """Adam with Nesterov's momentum

    T. Dozat, "Incorporating Nesterov momentum into Adam", 2016.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        path = f"{self.name}/momentum_product"
        self._product = Variable(np.float32(1.0), trainable=False, name="momentum_product", path=path)

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "velocity"),)

    def _slot_variables(self) -> list[Variable]:
        return [*super()._slot_variables(), self._product] if self.built else []

    def _momentum_at(self, step: Any) -> Any:
        return self.beta_1 * (1.0 - 0.5 * 0.96**step)

    def begin_step(self, rate: Any) -> Any:
        self._product.assign(self._product * self._momentum_at(self.step))
        return rate

    def update(self, variable: Variable, gradient: Any, rate: Any, momentum: Variable, velocity: Variable) -> None:  # type: ignore[override]
        now, following, product = self._momentum_at(self.step), self._momentum_at(self.step + 1.0), self._product.read()
        correction = 1.0 - self.beta_2**self.step
        of_average, of_gradient = following / (1.0 - product * following), (1.0 - now) / (1.0 - product)
        correction, of_average, of_gradient = (
            ops.cast(x, variable.dtype) for x in (correction, of_average, of_gradient)
        )
        m = momentum.assign_add((1.0 - self.beta_1) * (gradient - momentum))
        v = velocity.assign_add((1.0 - self.beta_2) * (gradient * gradient - velocity))
        variable.assign_sub(
            rate * (of_average * m + of_gradient * gradient) / (ops.sqrt(v / correction) + self.epsilon)
        )


class Lion(Optimizer):
    """w ← w − rate · sign(β₁ m + (1 − β₁) g); rates are about ten times smaller than Adam's

    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023.
    """

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        _check_share("beta_1", beta_1)
        _check_share("beta_2", beta_2)
        self.beta_1, self.beta_2 = beta_1, beta_2

    def slots(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum",),)

    def update(self, variable: Variable, gradient: Any, rate: Any, momentum: Variable) -> None:  # type: ignore[override]
        past = momentum.read()
        variable.assign_sub(rate * ops.sign(self.beta_1 * past + (1.0 - self.beta_1) * gradient))
        momentum.assign(self.beta_2 * past + (1.0 - self.beta_2) * gradient)


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ArgumentError(f"{name} is a share", got=value, expected="0…1")


def get(identifier: Any) -> Any:
    """An optimizer for a name ("adam"), a class, an object or a description; None stays None."""
    return serialization.get(identifier, "optimizer")
