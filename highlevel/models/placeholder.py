"""Placeholders: the inputs of functional models, and what layers and operators make of them.

A placeholder has a shape in which sizes may be None, and remembers the call that it comes from. Nothing is computed; a
`Functional` model runs the calls again on tensors or symbols.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from highlevel import config, ops
from highlevel.errors import ShapeError, TraceError
from highlevel.ir import DType, as_dtype, trace, tree
from highlevel.layers import Layer
from highlevel.layers.shapes import OpenSpec, Shape, infer
from highlevel.ops.registry import OPS

Key = tuple[int, int]

_serials = itertools.count(1)


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A layer or an operator applied to placeholders."""

    target: Layer | str  # an operator by its name
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    specs: tuple[OpenSpec, ...]
    structure: Any  # of what it returns
    serial: int = field(default_factory=_serials.__next__)

    @property
    def inputs(self) -> list[Placeholder]:
        return [leaf for leaf in tree.leaves((self.args, self.kwargs)) if isinstance(leaf, Placeholder)]

    @property
    def outputs(self) -> tuple[Placeholder, ...]:
        """What it returns. Made anew each time, so that calls do not hold on to what holds on to them."""
        return tuple(Placeholder(spec.shape, spec.dtype, call=self, index=i) for i, spec in enumerate(self.specs))

    def run(self, values: Mapping[Key, Any], **context: Any) -> Any:
        """The outputs for values of placeholders (by key)."""

        def value(leaf: Any) -> Any:
            return values[leaf.key] if isinstance(leaf, Placeholder) else leaf

        args, kwargs = tree.map(value, self.args), tree.map(value, self.kwargs)
        if isinstance(self.target, Layer):
            return self.target(*args, **{**context, **kwargs})
        return OPS[self.target](*args, **kwargs)


class Placeholder:
    """An array to come: a shape (with None for unknown sizes), a data type, and the call that makes it.

    key: what identifies it – two placeholders are the same if they are the same output of the same call
    """

    __array_priority__ = 200.0
    __slots__ = ("call", "dtype", "index", "key", "name", "shape")

    def __init__(self, shape: Shape, dtype: DType, *, call: Call | None = None, index: int = 0, name: str = "") -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.call = call
        self.index = index
        self.name = name
        self.key: Key = (call.serial if call is not None else next(_serials), index)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @classmethod
    def __highlevel_call__(cls, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer was called with placeholders."""
        with trace.scope(layer.name):
            layer.prepare(layer.bind_call(args, kwargs))
        return record(layer, lambda *a, **k: layer(*a, **k), args, kwargs)

    @classmethod
    def __highlevel_function__(cls, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator was called with placeholders."""
        return record(name, OPS[name], args, kwargs)

    def __bool__(self) -> bool:
        raise TraceError(
            "a placeholder of a functional model has no value yet",
            got=repr(self),
            hint="write the condition with ops, or inside the `call` of a Layer",
        )

    def __len__(self) -> int:
        if not self.shape or self.shape[0] is None:
            raise TypeError("the length of this placeholder is not known")
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceError(
            "a placeholder of a functional model is not a number", got=repr(self), hint="use ops, not NumPy"
        )

    def __getitem__(self, index: Any) -> Any:
        return ops.get_item(self, index)

    def reshape(self, *shape: Any) -> Any:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def astype(self, dtype: Any) -> Any:
        return ops.cast(self, dtype)

    @property
    def T(self) -> Any:
        return ops.transpose(self)

    def __neg__(self) -> Any:
        return ops.negative(self)

    def __abs__(self) -> Any:
        return ops.abs(self)

    def __repr__(self) -> str:
        return f"<Placeholder {self.name or ''} {self.dtype} {self.shape}>".replace("  ", " ")


def _operator(name: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    if reflected:
        return lambda self, other: OPS[name](other, self)
    return lambda self, other: OPS[name](self, other)


for _symbol, _name in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "mod",
    "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}.items():  # fmt: skip
    setattr(Placeholder, f"__{_symbol}__", _operator(_name))
    setattr(Placeholder, f"__r{_symbol}__", _operator(_name, reflected=True))
for _symbol, _name in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}.items():
    setattr(Placeholder, f"__{_symbol}__", _operator(_name))


def record(target: Layer | str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Makes a call and the placeholders that it returns."""
    leaves, structure = tree.flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Placeholder)]

    def run(*symbols: Any) -> Any:
        filled = list(leaves)
        for i, symbol in zip(places, symbols, strict=True):
            filled[i] = symbol
        inner_args, inner_kwargs = tree.unflatten(structure, filled)
        return function(*inner_args, **inner_kwargs)

    specs = infer(run, [OpenSpec(leaves[i].shape, leaves[i].dtype) for i in places])
    flat, call_structure = tree.flatten(specs)
    call = Call(target, args, kwargs, tuple(flat), call_structure)
    return tree.unflatten(call_structure, call.outputs)


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    batch_shape: Any = None,
    name: str | None = None,
) -> Placeholder:
    """An input of a functional model.

    shape: the shape of one sample, without the batch axis; sizes may be None
    batch_shape: the shape with the batch axis, instead of the other two

    >>> Input((28, 28, 1))
    <Placeholder float32 (None, 28, 28, 1)>
    """
    if batch_shape is None:
        if shape is None:
            raise ShapeError("Input: no shape", expected="shape=(…) of one sample, without the batch axis")
        if isinstance(shape, int):
            shape = (shape,)
        batch_shape = (batch_size, *shape)
    if any(size is not None and (not isinstance(size, int) or size < 0) for size in batch_shape):
        raise ShapeError(
            "Input: a size is not a number", got=batch_shape, expected="positive integers, or None if unknown"
        )
    return Placeholder(tuple(batch_shape), as_dtype(dtype or config.floatx()), name=name or "")
