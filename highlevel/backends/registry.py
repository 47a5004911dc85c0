"""Which backends there are, and which one is in use.

Chosen by `hl.config.set_backend(name)` or the environment variable HIGHLEVEL_BACKEND; packages add theirs through the
entry point `highlevel.backends`.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from highlevel.errors import BackendError, did_you_mean

from .interpreter import NumpyBackend
from .protocol import Backend

ENTRY_POINT = "highlevel.backends"
DEFAULT = "native"


def _native() -> Backend:
    from .native.backend import NativeBackend  # llvmlite is loaded when it is needed

    return NativeBackend()


_factories: dict[str, Any] = {"numpy": NumpyBackend, "native": _native}
_instances: dict[str, Backend] = {}
_current: Backend | None = None


def register(name: str, factory: Any) -> None:
    """Adds a backend by hand, or replaces one; packages use the entry point instead."""
    _factories[name] = factory
    _instances.pop(name, None)


def available() -> list[str]:
    """Names of all backends that are installed."""
    return sorted({*_factories, *(entry.name for entry in entry_points(group=ENTRY_POINT))})


def get(name: str) -> Backend:
    """The backend of that name; there is one instance of each."""
    if name not in _instances:
        _instances[name] = _load(name)
    return _instances[name]


def _load(name: str) -> Backend:
    factory = _factories.get(name)
    if factory is None:
        found = [entry for entry in entry_points(group=ENTRY_POINT) if entry.name == name]
        if not found:
            raise BackendError(f"there is no backend {name!r}", hint=did_you_mean(name, available()))
        factory = found[0].load()
    backend = factory()
    if not isinstance(backend, Backend):
        missing = [
            part for part in ("name", "devices", "from_host", "to_host", "compile", "run") if not hasattr(backend, part)
        ]
        raise BackendError(
            f"backend {name!r} is incomplete", got=type(backend).__name__, expected=f"also {', '.join(missing)}"
        )
    return backend


def current() -> Backend:
    """The backend in use."""
    global _current
    if _current is None:
        _current = get(os.environ.get("HIGHLEVEL_BACKEND", DEFAULT))
    return _current


def set_backend(name: str) -> None:
    """Switches to another backend; variables move to it when they are next used."""
    global _current
    _current = get(name)
