"""`EinsumDense`: a dense layer whose product is any Einstein summation of the inputs with one kernel."""

from __future__ import annotations

import copy
from typing import Any

from highlevel import activations, constraints, initializers, ops, regularizers
from highlevel.errors import ArgumentError, ShapeError
from highlevel.layers.arguments import check_known
from highlevel.layers.base import Layer, check_axis


class EinsumDense(Layer):
    """A dense layer over any axes: several at once, or one in the middle.

    Formula: y = activation(einsum(equation, x, kernel) + bias).

    Input shape: what the left term of the equation names, batch first; `...` stands for any axes.
    Output shape: what the right term names.

    equation:     "ab,bc->ac" is a plain dense layer, "abc,cde->abde" one with outputs (d, e) for each step of a
                  sequence
    output_shape: sizes of the output without the batch axis (and without the axes of `...`); None for those of the
                  input
    activation:   None for none
    bias_axes:    letters of the output axes along which the bias differs; no bias if None
    kernel_*, bias_*: initializers, regularizers and constraints; the kernel has the shape of the equation's second term

    >>> import numpy as np, highlevel as hl
    >>> layer = hl.layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 5), bias_axes="de")
    >>> layer(np.ones((2, 7, 3), "float32")).shape, layer.kernel.shape, layer.bias.shape
    ((2, 7, 4, 5), (3, 4, 5), (4, 5))
    """

    supports_masking = True

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.equation = equation
        self.terms = _terms(equation)
        self.output_sizes = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.bias_axes = bias_axes
        self.activation = activations.get(activation)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def check_input(self, input_shape: Any) -> None:
        named = [letter for letter in self.terms[0] if letter != "."]
        fits = len(input_shape) >= len(named) if "." in self.terms[0] else len(input_shape) == len(named)
        if not fits:
            raise ShapeError(
                f"{self.name}: the input has the wrong rank",
                got=f"shape {tuple(input_shape)} (rank {len(input_shape)})",
                expected=f"the axes {self.equation.partition(',')[0].strip()!r} of {self.equation!r}",
            )
        if self.built:
            sizes = dict(zip(self.terms[1], self.kernel.shape, strict=True))
            before, _, after = self.terms[0].rpartition(".")
            places = [*enumerate(before), *((i - len(after), letter) for i, letter in enumerate(after))]
            for axis, letter in places:
                if letter in sizes:
                    check_axis(self, input_shape, axis, sizes[letter])

    def build(self, input_shape: Any) -> None:
        left, middle, right = self.terms
        sizes = _named_sizes(self, left, right, tuple(input_shape))
        kernel_shape = tuple(sizes[letter] for letter in middle)
        self.kernel = self.add_weight(
            kernel_shape,
            self._scaled(self.kernel_initializer, middle, right),
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.bias_axes is not None:
            self.bias = self.add_weight(
                self._bias_shape(right, sizes, len(input_shape) - len(left.replace(".", ""))),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    @staticmethod
    def _scaled(initializer: Any, middle: str, right: str) -> Any:
        """The initializer, told which axes of the kernel lead to the outputs and which come from the inputs."""
        if not isinstance(initializer, initializers.VarianceScaling) or initializer.input_axes is not None:
            return initializer
        told = copy.copy(initializer)
        told.input_axes = [i for i, letter in enumerate(middle) if letter not in right]
        told.output_axes = [i for i, letter in enumerate(middle) if letter in right]
        return told

    def _bias_shape(self, right: str, sizes: dict[str, Any], elided: int) -> tuple[int, ...]:
        """Sizes of the output from the first axis that has a bias on; 1 where the bias is the same all along."""
        wrong = [letter for letter in self.bias_axes or "" if letter not in right or letter == "."]
        if wrong or not self.bias_axes:
            raise ArgumentError(
                f"{self.name}: bias_axes names axes of the output",
                got=f"bias_axes={self.bias_axes!r}, equation={self.equation!r}",
                expected=f"letters of {right.replace('.', '')!r}",
            )
        start = min(right.index(letter) for letter in self.bias_axes)
        shape: list[int] = []
        for letter in right[start:]:
            shape += [1] * elided if letter == "." else [sizes[letter] if letter in self.bias_axes else 1]
        return tuple(shape)

    def call(self, inputs: Any) -> Any:
        outputs = ops.einsum(self.equation, inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)


def _terms(equation: str) -> tuple[str, str, str]:
    """The three terms of "left,middle->right", with "." for the dots."""
    text = equation.replace(" ", "").replace("...", ".")
    left, comma, rest = text.partition(",")
    middle, arrow, right = rest.partition("->")
    dots = [term.count(".") for term in (left, middle, right)]
    letters = (left + middle + right).replace(".", "")
    if not (comma and arrow and left and middle and right and letters.isalpha()) or dots not in ([0, 0, 0], [1, 0, 1]):
        raise ArgumentError(
            "EinsumDense: this is not an equation with two operands",
            got=repr(equation),
            expected="'ab,bc->ac', '...b,bc->...c' or 'ab...,bc->ac...'",
        )
    return left, middle, right


def _named_sizes(layer: EinsumDense, left: str, right: str, shape: tuple[int | None, ...]) -> dict[str, Any]:
    """The size of each letter: those of the input from its shape, the others from `output_shape`."""
    sizes: dict[str, Any] = {}
    elided = len(shape) - len(left.replace(".", ""))
    position = 0
    for letter in left:
        if letter == ".":
            position += elided
            continue
        if letter in layer.terms[1]:
            check_known(layer, shape, position, f"the size of axis {letter!r}")
        sizes[letter] = shape[position]
        position += 1
    # `output_shape` speaks of the named axes of the output, but for the batch axis, unless that is among the dots.
    named = right.replace(".", "") if right.startswith(".") else right.replace(".", "")[1:]
    if len(layer.output_sizes) != len(named):
        raise ArgumentError(
            f"{layer.name}: output_shape does not fit the equation",
            got=f"output_shape={layer.output_sizes}, equation={layer.equation!r}",
            expected=f"a size (or None) for each of the axes {named!r}",
        )
    for letter, size in zip(named, layer.output_sizes, strict=True):
        known = sizes.get(letter)
        if known is not None and size is not None and known != size:
            raise ShapeError(
                f"{layer.name}: input and output_shape differ on axis {letter!r}",
                got=f"shape {shape}, output_shape={layer.output_sizes}",
                expected=f"{size} or {known} in both",
            )
        sizes[letter] = known if known is not None else size
    missing = [letter for letter in layer.terms[1] if not isinstance(sizes.get(letter), int)]
    if missing:
        raise ArgumentError(
            f"{layer.name}: the size of axis {missing[0]!r} of the kernel is not known",
            got=f"equation={layer.equation!r}, output_shape={layer.output_sizes}",
            expected="a size for every letter of the kernel, from the input or from output_shape",
        )
    return sizes
