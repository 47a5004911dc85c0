"""What the language asks of a backend, and the one place where the backend in use is found.

The language imports no backend: `highlevel.backends` installs a function that gives the current one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from highlevel.errors import BackendError

if TYPE_CHECKING:
    from .graph import Graph
    from .primitive import Primitive


class Executable(Protocol):
    """A compiled graph."""

    def run(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Handles of the outputs for handles of the inputs; variables are updated in place."""


class Executor(Protocol):
    """The backend in use, as far as the language knows it (see `highlevel.backends.protocol`)."""

    name: str

    def run(self, primitive: Primitive, handles: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Any]: ...
    def compile(self, graph: Graph, options: Mapping[str, Any]) -> Executable: ...
    def from_host(self, array: Any) -> Any: ...
    def to_host(self, handle: Any) -> Any: ...


_executor: Callable[[], Executor] | None = None


def install_executor(current: Callable[[], Executor]) -> None:
    """Called by `highlevel.backends`: `current()` gives the backend in use."""
    global _executor
    _executor = current


def executor() -> Executor:
    if _executor is None:
        raise BackendError("no backend is installed", hint="import highlevel, not highlevel.ir alone")
    return _executor()
