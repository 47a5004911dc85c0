"""Functions that products share: micro-kernels and copies, each named by all that its machine code depends on.

They are either defined in the module of the product, or only declared there, under a name that the caller gives them,
so that each is compiled once for a whole program: `helper_module` makes a module of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from llvmlite import ir

from .values import Value


class Helper(Protocol):
    """A function: its name, its type, and how its body is written."""

    @property
    def symbol(self) -> str: ...
    @property
    def type(self) -> Value: ...
    def emit(self, function: Value) -> None: ...
    def __hash__(self) -> int: ...


Helpers: TypeAlias = Callable[[Helper], str]  # takes note of a function that is called, says what it is called


def place(module: Value, helper: Helper, helpers: Helpers | None) -> Value:
    """The function as it is called in that module: defined there, or declared and made known to `helpers`."""
    symbol = helper.symbol if helpers is None else helpers(helper)
    function = module.globals.get(symbol)
    if function is None:
        function = ir.Function(module, helper.type, symbol)
        if helpers is None:
            function.linkage = "internal"
            _define(function, helper)
    return function


def helper_module(helper: Helper, triple: str, name: str | None = None) -> Value:
    """A module with that function alone, for others to call, by that name or its own."""
    module = ir.Module()
    module.triple = triple
    _define(ir.Function(module, helper.type, name or helper.symbol), helper)
    return module


def _define(function: Value, helper: Helper) -> None:
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    helper.emit(function)
