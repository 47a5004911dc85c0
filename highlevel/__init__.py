"""A Keras-style deep-learning library over its own symbolic engine.

    import highlevel as hl

    model = hl.Sequential([hl.Input((784,)), hl.layers.Dense(64, activation="relu"), hl.layers.Dense(10)])
    model.compile("adam", hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x, y, epochs=5)
"""

from highlevel import backends, config, data, errors, ops, random
from highlevel.dtype_policies import dtype_policy, set_dtype_policy
from highlevel.ir import (
    Graph,
    Spec,
    Tensor,
    Variable,
    checkpoint,
    custom_gradient,
    grad,
    gradients,
    jit,
    jvp,
    stop_gradient,
    tree,
    value_and_grad,
    vjp,
)
from highlevel.random import set_random_seed
from highlevel.serialization import register_serializable

from highlevel import activations, constraints, initializers, regularizers  # isort: skip
from highlevel import layers  # isort: skip
from highlevel.training import callbacks, losses, metrics, optimizers, schedules  # isort: skip
from highlevel.training.trainer import Trainer  # isort: skip
from highlevel.models import Input, Model, Sequential, load_model  # isort: skip
from highlevel import zoo  # isort: skip
from highlevel.transfer import finetune  # isort: skip
from highlevel import utils  # isort: skip
from highlevel.doctor import doctor  # isort: skip

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Input",
    "Model",
    "Sequential",
    "Spec",
    "Tensor",
    "Trainer",
    "Variable",
    "activations",
    "backends",
    "callbacks",
    "checkpoint",
    "config",
    "constraints",
    "custom_gradient",
    "data",
    "doctor",
    "dtype_policy",
    "errors",
    "finetune",
    "grad",
    "gradients",
    "initializers",
    "jit",
    "jvp",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "random",
    "register_serializable",
    "regularizers",
    "schedules",
    "set_dtype_policy",
    "set_random_seed",
    "stop_gradient",
    "tree",
    "utils",
    "value_and_grad",
    "vjp",
    "zoo",
]
