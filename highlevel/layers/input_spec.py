"""What a layer expects of its inputs, for layers that say it with an attribute `input_spec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import as_dtype, tree


class InputSpec:
    """The data type, the shape or parts of the shape of an input.

    Arguments:
        dtype: data type
        shape: shape with the batch axis; None for sizes that may be any
        ndim, max_ndim, min_ndim: number of axes, or bounds of it
        axes: sizes by axis
        allow_last_axis_squeeze: whether a last axis of size 1 may be missing, or be there too many
        name: key of the input in a dictionary of inputs
        optional: whether the input may be None

    >>> import numpy as np
    >>> import highlevel as hl
    >>> class Images(hl.layers.Layer):
    ...     input_spec = hl.layers.InputSpec(ndim=4, axes={-1: 3})
    ...     def call(self, inputs):
    ...         return inputs
    >>> Images()(np.ones((2, 5, 5, 3), "float32")).shape
    (2, 5, 5, 3)
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: Mapping[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = None if dtype is None else as_dtype(dtype).name
        self.shape = None if shape is None else tuple(shape)
        self.ndim = ndim if self.shape is None else len(self.shape)
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name = name
        self.optional = optional
        most = self.ndim if self.ndim is not None else self.max_ndim
        if self.axes and most is not None and max(self.axes) >= most:
            raise ArgumentError("InputSpec: an axis that cannot be", got=f"axes={axes!r}", expected=f"less than {most}")

    def problem(self, shape: tuple[Any, ...], dtype: Any = None) -> str | None:
        """What an input should have been, None if it is what it should be."""
        rank = len(shape)
        if self.dtype is not None and dtype is not None and dtype.name != self.dtype:
            return f"data type {self.dtype}"
        if self.ndim is not None and rank != self.ndim and not self.allow_last_axis_squeeze:
            return f"rank {self.ndim}"
        if self.max_ndim is not None and rank > self.max_ndim:
            return f"rank {self.max_ndim} or less"
        if self.min_ndim is not None and rank < self.min_ndim:
            return f"rank {self.min_ndim} or more"
        for axis, size in self.axes.items():
            if size is not None and (not -rank <= axis < rank or shape[axis] not in (size, None)):
                return f"{size} on axis {axis}"
        if self.shape is None:
            return None
        expected, found = self.shape, tuple(shape)
        if self.allow_last_axis_squeeze:
            expected, found = (s[:-1] if s and s[-1] == 1 else s for s in (expected, found))
        fits = len(expected) == len(found) and all(
            wanted is None or size in (wanted, None) for wanted, size in zip(expected, found, strict=True)
        )
        return None if fits else f"shape {self.shape}"

    def get_config(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "shape": self.shape,
            "ndim": self.ndim,
            "max_ndim": self.max_ndim,
            "min_ndim": self.min_ndim,
            "axes": self.axes,
            "optional": self.optional,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InputSpec:
        return cls(**config)

    def __repr__(self) -> str:
        said = {name: value for name, value in self.get_config().items() if value not in (None, {}, False)}
        return f"InputSpec({', '.join(f'{name}={value}' for name, value in said.items())})"


def check_input_spec(layer: Any, spec: Any, inputs: Any) -> None:
    """Raises unless inputs (arrays or placeholders) are what a layer's `input_spec` says."""
    specs = [leaf for leaf in tree.leaves(spec) if leaf is not None]
    if isinstance(inputs, Mapping) and all(item.name for item in specs):
        found: list[Any] = [inputs.get(item.name) for item in specs]
    else:
        found = tree.leaves(inputs)
    if len(found) != len(specs):
        raise ShapeError(
            f"{layer.name}: the wrong number of inputs", got=f"{len(found)} inputs", expected=f"{len(specs)}"
        )
    for item, value in zip(specs, found, strict=True):
        if value is None and item.optional:
            continue
        problem = item.problem(tuple(value.shape), value.dtype) if value is not None else "an input"
        if problem is not None:
            kind = DTypeError if problem.startswith("data type") else ShapeError
            raise kind(
                f"{layer.name}: the input is not what `input_spec` says",
                got="None" if value is None else f"{value.dtype} {tuple(value.shape)}",
                expected=problem,
            )
