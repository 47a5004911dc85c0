"""Backends: what runs graphs. Importing this package makes the language executable."""

from highlevel.ir.executor import install_executor

from .protocol import Backend, Executable
from .registry import available, current, get, register, set_backend

install_executor(current)

__all__ = ["Backend", "Executable", "available", "current", "get", "register", "set_backend"]
