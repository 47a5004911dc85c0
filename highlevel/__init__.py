"""A Keras-style deep-learning library over its own symbolic engine.

    import highlevel as hl

    model = hl.Sequential([hl.Input((784,)), hl.layers.Dense(64, activation="relu"), hl.layers.Dense(10)])
    model.compile("adam", hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x, y, epochs=5)

Importing the package loads the language and the backend; everything else when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from highlevel import backends, config, errors
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

if TYPE_CHECKING:
    from highlevel import (
        activations,
        constraints,
        data,
        initializers,
        layers,
        ops,
        random,
        regularizers,
        utils,
        zoo,
    )
    from highlevel.diagnostics import doctor
    from highlevel.dtype_policies import dtype_policy, set_dtype_policy
    from highlevel.inspection import explain, memory_plan, profile
    from highlevel.models import Input, Model, Sequential, load_model
    from highlevel.random import set_random_seed
    from highlevel.serialization import register_serializable
    from highlevel.training import callbacks, losses, metrics, optimizers, schedules
    from highlevel.training.trainer import Trainer
    from highlevel.transfer.finetune import finetune

__version__ = "0.1.0"

# Where each public name lives; None: it is a module itself.
_LAZY: dict[str, tuple[str, str | None]] = {
    **{
        name: (f"highlevel.{name}", None)
        for name in (
            "activations",
            "constraints",
            "data",
            "initializers",
            "layers",
            "models",
            "ops",
            "random",
            "regularizers",
            "utils",
            "zoo",
        )
    },
    **{
        name: (f"highlevel.training.{name}", None)
        for name in ("callbacks", "losses", "metrics", "optimizers", "schedules")
    },
    **{name: ("highlevel.models", name) for name in ("Input", "Model", "Sequential", "load_model")},
    "Trainer": ("highlevel.training.trainer", "Trainer"),
    "doctor": ("highlevel.diagnostics", "doctor"),
    **{name: ("highlevel.inspection", name) for name in ("explain", "memory_plan", "profile")},
    "dtype_policy": ("highlevel.dtype_policies", "dtype_policy"),
    "finetune": ("highlevel.transfer.finetune", "finetune"),
    "register_serializable": ("highlevel.serialization", "register_serializable"),
    "set_dtype_policy": ("highlevel.dtype_policies", "set_dtype_policy"),
    "set_random_seed": ("highlevel.random", "set_random_seed"),
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'highlevel' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = import_module(module)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


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
    "explain",
    "finetune",
    "grad",
    "gradients",
    "initializers",
    "jit",
    "jvp",
    "layers",
    "load_model",
    "losses",
    "memory_plan",
    "metrics",
    "ops",
    "optimizers",
    "profile",
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
