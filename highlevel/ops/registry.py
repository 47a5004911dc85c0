"""The table of functions, and the one thing that all of them do: hand a call on placeholders over to the placeholder.

A placeholder of a functional model is anything whose type has `__highlevel_function__(name, args, kwargs)`. Since
calls are known by name, a model made of them is written to a file, and read again, as names and arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from highlevel.errors import ArgumentError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

OPS: dict[str, Callable[..., Any]] = {}
COVERED: set[str] = set()  # elementwise primitives that a function stands for under another name
HOOK = "__highlevel_function__"


def op(function: F) -> F:
    """Registers a function under its own name; calls on placeholders go to the placeholder."""
    return cast(F, register(function.__name__.rstrip("_"), function))


class op_in:
    """The decorator of functions that live in a namespace: `image.resize`."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def __call__(self, function: F) -> F:
        return cast(F, register(f"{self.namespace}.{function.__name__}", function))


def register(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name in OPS:
        raise ArgumentError(f"function {name!r} is defined twice", hint="choose another name")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            kind = type(arg)
            if kind is list or kind is tuple:
                found = _placeholder_among(arg)
                if found is not None:
                    return found.__highlevel_function__(name, args, kwargs)
            elif hasattr(kind, HOOK):
                return arg.__highlevel_function__(name, args, kwargs)
        if kwargs:
            for arg in kwargs.values():
                found = _placeholder_among(arg if isinstance(arg, (list, tuple)) else (arg,))
                if found is not None:
                    return found.__highlevel_function__(name, args, kwargs)
        return function(*args, **kwargs)

    OPS[name] = call
    return call


def _placeholder_among(items: Iterable[Any]) -> Any:
    for item in items:
        if hasattr(type(item), HOOK):
            return item
    return None


def function_named(name: str) -> Callable[..., Any]:
    """The function of that name, as calls in files have it."""
    if name not in OPS:
        raise ArgumentError(f"no function is called {name!r}", hint=did_you_mean(name, OPS))
    return OPS[name]
