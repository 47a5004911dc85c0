"""Shapes of outputs from shapes of inputs, where sizes may be unknown.

The language knows integers only. So a function is traced for its specs alone with two different sizes in place of each
unknown one: what differs between the two is unknown in the output as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from highlevel.ir import DType, Spec, as_dtype, trace_graph, tree
from highlevel.ir.operand import Operand

Shape = tuple["int | None", ...]

# Two trial sizes for an unknown axis. The batch is small; other axes are multiples of 64, so that networks that halve
# images several times, and join branches again, fit.
_BATCH = (2, 3)
_OTHER = (256, 320)


@dataclass(frozen=True, slots=True)
class OpenSpec:
    """A spec in which sizes may be None."""

    shape: Shape
    dtype: DType


def trial_spec(shape: Shape, dtype: DType, trial: int) -> Spec:
    sizes = [(_BATCH if axis == 0 else _OTHER)[trial] if size is None else size for axis, size in enumerate(shape)]
    return Spec(tuple(sizes), dtype)


def infer(function: Callable[..., Any], inputs: Sequence[OpenSpec]) -> Any:
    """Open specs of what `function` returns (a tree) for inputs of those specs; nothing is computed."""
    structures: list[Any] = []

    def run(*symbols: Any) -> list[Any]:
        leaves, structure = tree.flatten(function(*symbols))
        structures.append((structure, [isinstance(leaf, (Operand, np.ndarray)) for leaf in leaves]))
        return [leaf for leaf in leaves if isinstance(leaf, Operand)]

    unknown = any(size is None for spec in inputs for size in spec.shape)
    trials = []
    for trial in range(2 if unknown else 1):
        graph, _ = trace_graph(run, [trial_spec(spec.shape, spec.dtype, trial) for spec in inputs])
        trials.append([symbol.spec for symbol in graph.outputs])
    first, second = trials[0], trials[-1]
    specs = [
        OpenSpec(tuple(a if a == b else None for a, b in itertools.zip_longest(x.shape, y.shape)), x.dtype)
        for x, y in zip(first, second, strict=True)
    ]
    return tree.unflatten(structures[0][0], specs)


def output_shape(layer: Any, *shapes: Any) -> Any:
    """The shape (or tree of shapes) that a layer returns for input shapes; builds it if it has not been built."""
    inputs = [_specs(shape, as_dtype(layer.compute_dtype)) for shape in shapes]
    flat, structure = tree.flatten(inputs)
    if not layer.built:
        bound = layer.bind_call(tuple(inputs), {})
        layer.build_from(bound)
    outputs = infer(lambda *symbols: layer(*tree.unflatten(structure, symbols)), flat)
    return tree.map(lambda spec: spec.shape, outputs)


def _specs(shape: Any, dtype: DType) -> Any:
    if isinstance(shape, dict):
        return {key: _specs(item, dtype) for key, item in shape.items()}
    if all(size is None or isinstance(size, (int, np.integer)) for size in shape):
        return OpenSpec(tuple(shape), dtype)
    return [_specs(item, dtype) for item in shape]


def known_size(shape: Shape) -> int | None:
    """The number of elements per sample, None if a size is unknown."""
    sizes = shape[1:]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
