"""Strings live on the host, as NumPy arrays; a compiled program knows numbers only."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import DTypeError, TraceError
from highlevel.ir import Symbol, tree
from highlevel.ir.operand import Operand

from ..base import Layer


class HostLayer(Layer):
    """Base of layers that read strings: they run before a model, or in a data pipeline, never in a program."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for leaf in tree.leaves((args, kwargs)):
            if isinstance(leaf, Symbol) or hasattr(type(leaf), "__highlevel_call__"):
                raise outside(self, leaf)
        return super().__call__(*args, **kwargs)

    def _to_operands(self, value: Any) -> Any:
        return value  # strings cannot be tensors


def outside(layer: Layer, value: Any) -> TraceError:
    """The error of a layer that works on the host when it meets a symbol or a placeholder."""
    return TraceError(
        f"{layer.name}: strings cannot be in a compiled program",
        got=f"a symbolic tensor {getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}".rstrip(),
        expected="NumPy arrays (or lists) of strings",
        layer=f"{layer.path} ({type(layer).__name__})",
        hint="call the layer before the model, model(layer(strings)), or in the data pipeline, "
        "dataset.map(lambda x, y: (layer(x), y)); the model starts with an Input of its numbers",
    )


def is_text(x: Any) -> bool:
    """Whether it is a string, or an array or a list of strings."""
    if isinstance(x, (list, tuple)):
        return bool(x) and is_text(x[0])
    return isinstance(x, (str, bytes)) or (isinstance(x, np.ndarray) and x.dtype.kind in "OSUT")


def as_strings(layer: Layer, value: Any, encoding: str = "utf-8") -> np.ndarray[Any, Any]:
    """An array of Python strings, of any rank."""
    array = np.asarray(value, dtype=object) if not isinstance(value, Operand) else np.asarray(value)
    flat = [_text(item, encoding) for item in array.ravel().tolist()]
    wrong = next((item for item in flat if not isinstance(item, str)), None)
    if wrong is not None:
        raise DTypeError(
            f"{layer.name}: these are not strings",
            got=f"{type(wrong).__name__} {wrong!r:.40}",
            expected="strings, all rows of one length",
            hint="numbers: hl.layers.IntegerLookup, or array.astype(str)",
        )
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(array.shape)


def _text(item: Any, encoding: str) -> Any:
    return item.decode(encoding) if isinstance(item, bytes) else item


def text_array(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Strings as people get them: an array of type str."""
    return np.asarray(words.tolist(), dtype=str).reshape(words.shape)
