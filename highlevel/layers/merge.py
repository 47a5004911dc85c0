"""Layers that make one array of several: sums, products, extremes, concatenation; and the same as functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir.operators import normalize_axis

from .arguments import check_axes, is_shape
from .base import Layer


class _Merge(Layer):
    """A layer that takes a list of inputs."""

    supports_masking = True
    least: ClassVar[int] = 1
    example: ClassVar[str] = "[a, b]"

    def check_input(self, input_shape: Any) -> None:
        if is_shape(input_shape) or len(input_shape) < self.least or not all(map(is_shape, input_shape)):
            raise ShapeError(
                f"{self.name}: this layer joins several inputs",
                got=f"one input of shape {tuple(input_shape)}"
                if is_shape(input_shape)
                else f"{len(input_shape)} inputs",
                expected=f"a list of {'arrays' if self.least == 1 else f'at least {self.least} arrays'}",
                hint=f"{type(self).__name__}()({self.example})",
            )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """A position counts if it does in any input; all do where an input has no mask."""
        if previous_mask is None or any(mask is None for mask in previous_mask):
            return None
        return functools.reduce(ops.logical_or, previous_mask)


def _check_batch(layer: Layer, shapes: Sequence[Any]) -> None:
    if len({shape[0] for shape in shapes if shape} - {None}) > 1:
        raise ShapeError(
            f"{layer.name}: the inputs differ in their number of samples",
            got=_listed(shapes),
            expected="equal sizes on axis 0",
            hint="is the batch axis missing somewhere? x[None]",
        )


def _check_two(layer: Layer, shapes: Sequence[Any]) -> None:
    if len(shapes) != 2:
        raise ShapeError(
            f"{layer.name}: this layer joins two inputs", got=f"{len(shapes)} inputs", expected="a list of two"
        )


def _listed(shapes: Sequence[Any]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)


class _Elementwise(_Merge):
    """Arrays whose shapes broadcast, combined element by element; arrays of lower rank get new axes after the batch."""

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        _check_batch(self, input_shape)
        rank = max(map(len, input_shape))
        for axis in range(1, rank):
            sizes = {shape[axis - rank] for shape in input_shape if len(shape) > rank - axis} - {None, 1}
            if len(sizes) > 1:
                raise ShapeError(
                    f"{self.name}: the inputs do not fit together",
                    got=_listed(input_shape),
                    expected=f"sizes that are equal or 1; axis {axis} has {' and '.join(map(str, sorted(sizes)))}",
                    hint=self._hint(input_shape),
                )

    def _hint(self, shapes: Sequence[Any]) -> str | None:
        first, *others = shapes
        if len(first) == 4 and any(len(o) == 4 and (o[1], o[2]) != (first[1], first[2]) for o in others):
            return "one branch has another stride or padding than the other"
        if all(len(shape) == len(first) for shape in others) and all(s[:-1] == first[:-1] for s in others):
            return "the channels differ: bring them to one number with Dense or Conv2D(…, 1), or use Concatenate"
        return None

    def call(self, inputs: Any) -> Any:
        rank = max(x.ndim for x in inputs)
        return self._combine([ops.reshape(x, (*x.shape[:1], *(1,) * (rank - x.ndim), *x.shape[1:])) for x in inputs])

    def _combine(self, inputs: list[Any]) -> Any:
        raise NotImplementedError


class Add(_Elementwise):
    """The sum of several inputs, as at the end of a residual block.

    Input shape: a list of shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Add()([np.float32([[1.0, 2.0]]), np.float32([[10.0, 20.0]])]).tolist()
    [[11.0, 22.0]]
    """

    def _combine(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.add, inputs)


class Subtract(_Elementwise):
    """The first input minus the second.

    Input shape: a list of two shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Subtract()([np.float32([[10.0, 20.0]]), np.float32([[1.0, 2.0]])]).tolist()
    [[9.0, 18.0]]
    """

    least = 2

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        _check_two(self, input_shape)

    def _combine(self, inputs: list[Any]) -> Any:
        return ops.subtract(*inputs)


class Multiply(_Elementwise):
    """The product of several inputs, element by element. What a mask leaves out counts as 1, and as 0 if all do.

    Input shape: a list of shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Multiply()([np.float32([[1.0, 2.0]]), np.float32([[10.0, 20.0]])]).tolist()
    [[10.0, 40.0]]
    """

    def call(self, inputs: Any) -> Any:
        masks = [_mask_over(x) for x in inputs]
        factors = [x if kept is None else ops.where(kept, x, 1.0) for x, kept in zip(inputs, masks, strict=True)]
        product = super().call(factors)
        if any(kept is None for kept in masks):
            return product
        return ops.where(functools.reduce(ops.logical_or, masks), product, 0.0)

    def _combine(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.multiply, inputs)


class Average(_Elementwise):
    """The mean of several inputs, element by element.

    Input shape: a list of shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Average()([np.float32([[1.0, 2.0]]), np.float32([[3.0, 4.0]])]).tolist()
    [[2.0, 3.0]]
    """

    def _combine(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.add, inputs) / len(inputs)


class _Extreme(_Elementwise):
    """The larger, or smaller, element of those that masks do not leave out."""

    operator: ClassVar[Callable[..., Any]]

    def call(self, inputs: Any) -> Any:
        if all(x.mask is None for x in inputs):
            return super().call(inputs)
        output, kept = inputs[0], _mask_over(inputs[0])
        for x in inputs[1:]:
            counts = _mask_over(x)
            value = x if counts is None else ops.where(counts, x, output)
            output = output if kept is None else ops.where(kept, output, value)
            kept = None if kept is None or counts is None else ops.logical_or(kept, counts)
            output = self.operator(output, value)
        return output

    def _combine(self, inputs: list[Any]) -> Any:
        return functools.reduce(self.operator, inputs)


def _mask_over(x: Any, mask: Any = None) -> Any:
    """A mask (that of the array itself if none is given) with axes of size 1 for what it does not tell apart."""
    mask = x.mask if mask is None else mask
    return None if mask is None else ops.reshape(mask, (*mask.shape, *(1,) * (x.ndim - mask.ndim)))


class Maximum(_Extreme):
    """The largest of several inputs, element by element. Where a mask leaves an input out, the others decide.

    Input shape: a list of shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Maximum()([np.float32([[1.0, 5.0]]), np.float32([[3.0, 4.0]])]).tolist()
    [[3.0, 5.0]]
    """

    operator = staticmethod(ops.maximum)


class Minimum(_Extreme):
    """The smallest of several inputs, element by element. Where a mask leaves an input out, the others decide.

    Input shape: a list of shapes that broadcast

    Output shape: the common shape

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Minimum()([np.float32([[1.0, 5.0]]), np.float32([[3.0, 4.0]])]).tolist()
    [[1.0, 4.0]]
    """

    operator = staticmethod(ops.minimum)


class Concatenate(_Merge):
    """Several inputs, one after the other along an axis.

    Arguments:
        axis: the axis along which sizes may differ, and add up

    Input shape: a list of shapes that are equal but for `axis`

    Output shape: the same, with the sum of the sizes on `axis`

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Concatenate()([np.ones((2, 3, 4), "float32"), np.ones((2, 3, 1), "float32")]).shape
    (2, 3, 5)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        ranks = {len(shape) for shape in input_shape}
        rank = max(ranks)
        if len(ranks) > 1:
            raise ShapeError(
                f"{self.name}: the inputs do not have one rank",
                got=_listed(input_shape),
                expected="shapes of one rank",
                hint="Flatten the images first, or add an axis to the others",
            )
        check_axes(self, [self.axis], input_shape[0])
        along = self.axis % rank
        for axis in range(rank):
            sizes = {shape[axis] for shape in input_shape} - {None}
            if axis != along and len(sizes) > 1:
                raise ShapeError(
                    f"{self.name}: the inputs do not fit together",
                    got=_listed(input_shape),
                    expected=f"equal sizes on every axis but {along}, on axis {axis}, too",
                    hint=_concatenation_hint(input_shape, along),
                )

    def call(self, inputs: Any) -> Any:
        return ops.concatenate(inputs, axis=self.axis)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        if previous_mask is None or all(mask is None for mask in previous_mask):
            return None
        masks = []
        for x, mask in zip(inputs, previous_mask, strict=True):
            if mask is None:
                masks.append(ops.ones(x.shape, dtype="bool"))
            else:
                masks.append(ops.broadcast_to(_mask_over(x, mask), x.shape))
        return ops.any(ops.concatenate(masks, axis=self.axis), axis=-1)


def _concatenation_hint(shapes: Sequence[Any], along: int) -> str | None:
    """Another axis along which the shapes would fit."""
    rank = len(shapes[0])
    if len({shape[0] for shape in shapes} - {None}) > 1:
        return "is the batch axis missing somewhere? x[None]"
    for axis in range(1, rank):
        if all(len({s[i] for s in shapes} - {None}) <= 1 for i in range(rank) if i != axis):
            return f"did you mean axis={axis}? There the shapes would fit"
    if rank == 4 and along == 3:
        return "one branch has another stride or padding than the other"
    return None


class Dot(_Merge):
    """Scalar products of the samples of two inputs along an axis of each.

    y[n, …, …] = Σ_k a[n, …, k, …] · b[n, …, k, …]

    Arguments:
        axes: the axis to sum over, or one for each of the inputs; not the batch
        normalize: whether vectors get length one first, so that products are cosines

    Input shape: a list of two shapes with equal sizes on `axes`

    Output shape: (batch, …, …), the other axes of the first input, then those of the second; (batch, 1) without any

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Dot(axes=(1, 2))([np.ones((2, 3, 5), "float32"), np.ones((2, 10, 3), "float32")]).shape
    (2, 5, 10)
    """

    least = 2

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = axes if isinstance(axes, (list, tuple)) else (axes, axes)
        if len(given) != 2 or any(not isinstance(axis, int) for axis in given):
            raise ArgumentError(f"{self.name}: not axes", got=f"axes={axes!r}", expected="an integer, or two")
        self.axes = given
        self.normalize = normalize

    def _positive_axes(self, shapes: Sequence[Any]) -> tuple[int, int]:
        first, second = (normalize_axis(axis, len(s), self.name) for axis, s in zip(self.axes, shapes, strict=True))
        return first, second

    def check_input(self, input_shape: Any) -> None:
        super().check_input(input_shape)
        _check_two(self, input_shape)
        _check_batch(self, input_shape)
        axes = self._positive_axes(input_shape)
        sizes = {shape[axis] for axis, shape in zip(axes, input_shape, strict=True)} - {None}
        if 0 in axes or len(sizes) > 1:
            raise ShapeError(
                f"{self.name}: the axes do not fit together",
                got=f"{_listed(input_shape)} with axes={tuple(self.axes)}",
                expected="axes of one size, other than the batch (axis 0)",
            )

    def call(self, inputs: Any) -> Any:
        a, b = inputs
        first, second = self._positive_axes([a.shape, b.shape])
        if self.normalize:
            a, b = _unit(a, first), _unit(b, second)
        a, b = ops.moveaxis(a, first, -1), ops.moveaxis(b, second, 1)
        rows, columns = a.shape[1:-1], b.shape[2:]
        size = a.shape[-1]
        product = ops.matmul(ops.reshape(a, (a.shape[0], -1, size)), ops.reshape(b, (b.shape[0], size, -1)))
        return ops.reshape(product, (a.shape[0], *((*rows, *columns) or (1,))))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


def _unit(x: Any, axis: int) -> Any:
    """Vectors along an axis with length one."""
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-14))


# The same as functions -------------------------------------------------------------------------------------------
def add(inputs: Any, **kwargs: Any) -> Any:
    """The sum of several inputs: `Add()(inputs)`."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """The first of two inputs minus the second: `Subtract()(inputs)`."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """The product of several inputs: `Multiply()(inputs)`."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """The mean of several inputs: `Average()(inputs)`."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """The largest of several inputs: `Maximum()(inputs)`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """The smallest of several inputs: `Minimum()(inputs)`."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """Several inputs one after the other along an axis: `Concatenate(axis)(inputs)`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """Scalar products of two inputs along an axis: `Dot(axes)(inputs)`."""
    return Dot(axes=axes, **kwargs)(inputs)
