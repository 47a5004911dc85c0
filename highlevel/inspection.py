"""Looking into programs: `explain` what will run, `profile` what has run, `memory_plan` what it takes.

All of it is about the compiled program of a model, or of any function, for given arguments. See docs/inspection.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from highlevel.errors import ArgumentError, BackendError
from highlevel.ir import Compiled
from highlevel.ir.executor import executor
from highlevel.models import Model

if TYPE_CHECKING:
    from highlevel.backends.native.profile import Profile
    from highlevel.backends.native.report import Explanation
    from highlevel.training.memory import MemoryPlan


def explain(target: Any, *args: Any, **kwargs: Any) -> Explanation:
    """What a program consists of, without running it.

    target: a model – with `x`, what `predict` runs; with `x, y[, weight]`, a step of its training –, a function made by
            `hl.jit`, or any function of arrays
    args:   what it would be called with; a `hl.Spec` may stand for an array

    The text of what comes back is a report: the graph and what each pass left of it; kernels in their order with
    layers, lines of code, arrays, operations, bytes, and the least time that they take on this machine; the memory map;
    how much had to be compiled. All of that is in its fields as well.

    >>> import highlevel as hl
    >>> found = hl.explain(lambda x: hl.ops.sum(x * 2.0, axis=1), hl.ops.ones((8, 10)))
    >>> len(found.kernels), found.memory.output_bytes
    (1, 32)
    """
    program, args, kwargs = _program(target, args, kwargs)
    backend = _backend("explain")
    return backend.explain(program.traced(*args, **kwargs), program.options)  # type: ignore[no-any-return]


def profile(target: Any, *args: Any, steps: int = 10, **kwargs: Any) -> Profile:
    """Runs a program several times and says where its time goes.

    target, args: as for `explain`, with arrays
    steps:        how many times; figures are medians

    Variables that the program updates – a training step trains – have the values from before when this returns. The
    text of what comes back is a table of kernels, costliest first, and one of layers; `.chrome_trace(path)` writes one
    step as a trace for chrome://tracing or ui.perfetto.dev.
    """
    if steps < 1:
        raise ArgumentError("profile: steps is not positive", got=steps, expected="at least 1")
    program, args, kwargs = _program(target, args, kwargs)
    backend = _backend("profile")
    executable, inputs = program.prepared(*args, **kwargs)
    return backend.profile(executable, inputs, steps)  # type: ignore[no-any-return]


def memory_plan(model: Model, batch_size: int = 32, training: bool = True, **options: Any) -> MemoryPlan:
    """The memory that a model takes at a batch size; see `Model.memory_plan`."""
    return model.memory_plan(batch_size, training, **options)


def _program(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Compiled, tuple[Any, ...], Any]:
    """The compiled function that a target runs, and its arguments."""
    if isinstance(target, Model):
        if not 1 <= len(args) + len(kwargs) <= 3:
            raise ArgumentError(
                "a model is explained for x (inference), or for x, y[, weight] (training)",
                got=f"{len(args) + len(kwargs)} arguments",
            )
        program, batch = target.trainer.program(*args, **kwargs)
        return program, batch, {}
    if isinstance(target, Compiled):
        return target, args, kwargs
    if not callable(target):
        raise ArgumentError("there is no program", got=type(target).__name__, expected="a model or a function")
    return Compiled(target), args, kwargs


def _backend(what: str) -> Any:
    """The backend in use, if it can be looked into."""
    backend = executor()
    if not hasattr(backend, what):
        raise BackendError(
            f"the backend {backend.name!r} cannot {what}: it plans nothing before it runs",
            expected="the backend 'native'",
            hint='hl.config.set_backend("native")',
        )
    return backend
