"""What is computed at once, one operator or layer at a time: cases by name, "matmul 1024x1024 1024x1024"."""

from __future__ import annotations

import numpy as np

OPERATORS = (
    "add 16x16 16x16",
    "add 2048x2048 2048x2048",
    "exp 16x16",
    "exp 2048x2048",
    "sum 16x16",
    "sum 2048x2048",
    "softmax 16x16",
    "softmax 2048x2048",
    "transpose 16x16",
    "transpose 2048x2048",
    "matmul 16x16 16x16",
    "matmul 1024x1024 1024x1024",
)
LAYERS = (
    "layer Dense 16x16 16",
    "layer Dense 1024x1024 1024",
    "layer Conv2D 1x8x8x8 8,3",
    "layer Conv2D 16x56x56x64 64,3",
    "layer LayerNormalization 16x16",
    "layer LayerNormalization 4096x1024",
)
SMALL_ELEMENTS = 1024  # cases on fewer measure Python, the others machine code


def is_large(case: str) -> bool:
    return max(array.size for array in operands(case)) > SMALL_ELEMENTS


def operands(case: str) -> list[np.ndarray]:
    """Arrays of the shapes that a case names."""
    rng = np.random.default_rng(0)
    shapes = [word for word in case.split() if "x" in word and word.replace("x", "").isdigit()]
    return [rng.standard_normal([int(size) for size in shape.split("x")], dtype="float32") for shape in shapes]


def layer_arguments(case: str) -> tuple[str, str, tuple[int, ...]]:
    """A layer's name, the shape of its input as it stands in the case, its arguments."""
    _, name, shape, *arguments = case.split()
    return name, shape, tuple(int(size) for word in arguments for size in word.split(","))
