"""What a backend is: anything that can run graphs of the language.

A third party adds one as an installable package with the entry point `highlevel.backends`, and proves it with
`python -m highlevel.backends.conformance NAME`. The minimum is `name`, `from_host`, `to_host` and `compile`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from highlevel.ir import Graph, Primitive


class Executable(Protocol):
    """A compiled graph. Running it updates the graph's variables in place."""

    def run(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Handles of the outputs for handles of the inputs, in the graph's order."""


@runtime_checkable
class Backend(Protocol):
    """A device (or several) that holds arrays behind handles of its own kind and runs graphs on them."""

    name: str

    def devices(self) -> list[str]:
        """Names of the devices that it can use on this machine."""

    def from_host(self, array: Any) -> Any:
        """A handle for a NumPy array; the array is not changed afterwards by either side."""

    def to_host(self, handle: Any) -> Any:
        """The NumPy array of a handle."""

    def compile(self, graph: Graph, options: Mapping[str, Any]) -> Executable:
        """Makes a graph runnable. Options that a backend does not know are an error."""

    def run(self, primitive: Primitive, handles: Sequence[Any], attrs: Mapping[str, Any]) -> Sequence[Any]:
        """Computes one operator now; a tuple of handles, one per output."""
