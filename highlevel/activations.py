"""Activation functions by name: Keras's thirty, from `ops`.

activations.get("relu")       # the function
activations.get(None)         # linear
"""

from __future__ import annotations

from typing import Any

from highlevel import ops, serialization
from highlevel.serialization import register_function


def linear(x: Any) -> Any:
    """x"""
    return x


def exponential(x: Any) -> Any:
    """eˣ"""
    return ops.exp(x)


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:
    """x above the threshold, negative_slope · (x − threshold) below it, at most max_value"""
    if negative_slope == 0.0 and threshold == 0.0:
        y = ops.relu(x)
    elif threshold == 0.0:
        y = ops.leaky_relu(x, negative_slope=negative_slope)
    else:
        y = ops.where(ops.greater(x, threshold), x, negative_slope * (x - threshold))
    return y if max_value is None else ops.minimum(y, max_value)


def mish(x: Any) -> Any:
    """x · tanh(log(1 + eˣ)) (D. Misra, 2019)"""
    return x * ops.tanh(ops.softplus(x))


def softmax(x: Any, axis: int = -1) -> Any:
    """eˣ / Σ eˣ"""
    return ops.softmax(x, axis=axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x − log Σ eˣ"""
    return ops.log_softmax(x, axis=axis)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """The nearest distribution to x; most of it exactly 0 (A. Martins and R. Astudillo, 2016)"""
    return ops.sparsemax(x, axis=axis)


def glu(x: Any, axis: int = -1) -> Any:
    """a · sigmoid(b), a and b being the halves of x"""
    return ops.glu(x, axis=axis)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x where positive, negative_slope · x elsewhere"""
    return ops.leaky_relu(x, negative_slope=negative_slope)


def gelu(x: Any, approximate: bool = False) -> Any:
    """x · Φ(x), Φ being the normal distribution (D. Hendrycks and K. Gimpel, 2016)"""
    return ops.gelu(x, approximate=approximate)


celu = ops.celu
elu = ops.elu
hard_shrink = ops.hard_shrink
hard_sigmoid = ops.hard_sigmoid
hard_silu = ops.hard_silu
hard_tanh = ops.hard_tanh
log_sigmoid = ops.log_sigmoid
relu6 = ops.relu6
selu = ops.selu
sigmoid = ops.sigmoid
silu = ops.silu
soft_shrink = ops.soft_shrink
softplus = ops.softplus
softsign = ops.softsign
sparse_plus = ops.sparse_plus
sparse_sigmoid = ops.sparse_sigmoid
squareplus = ops.squareplus
tanh = ops.tanh
tanh_shrink = ops.tanh_shrink
threshold = ops.threshold

for _function, *_names in (
    (celu,),
    (elu,),
    (exponential,),
    (gelu,),
    (glu,),
    (hard_shrink,),
    (hard_sigmoid,),
    (hard_silu, "hard_swish"),
    (hard_tanh,),
    (leaky_relu,),
    (linear,),
    (log_sigmoid,),
    (log_softmax,),
    (mish,),
    (relu,),
    (relu6,),
    (selu,),
    (sigmoid,),
    (silu, "swish"),
    (soft_shrink,),
    (softmax,),
    (softplus,),
    (softsign,),
    (sparse_plus,),
    (sparse_sigmoid,),
    (sparsemax,),
    (squareplus,),
    (tanh,),
    (tanh_shrink,),
    (threshold,),
):
    register_function("activation", _function, *_names)


def get(identifier: Any) -> Any:
    """The activation function for a name, a function, a layer or a description; None is `linear`."""
    return linear if identifier is None else serialization.get(identifier, "activation")
