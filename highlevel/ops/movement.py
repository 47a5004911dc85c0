"""The same elements in another arrangement: shapes, orders of axes, joining, splitting, repeating, padding."""

from __future__ import annotations

import builtins
import itertools
import math
import re
from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import operators, primitives
from highlevel.ir.operators import cast, operand

from .arguments import axes_of, check_rank, is_channels_first, moved, normalize_axis, sizes_of
from .registry import op


def along(axis: int, index: Any) -> tuple[Any, ...]:
    """An index that addresses one axis."""
    return (builtins.slice(None),) * axis + (index,)


def cut(x: Any, axis: int, start: int, stop: int) -> Any:
    """A range of one axis."""
    return x[along(axis, builtins.slice(start, stop))]


# Shape -----------------------------------------------------------------------------------------------------------
@op
def reshape(x: Any, newshape: Any) -> Any:
    """The elements in row-major order in another shape; one size may be −1."""
    return operators.reshape(x, sizes_of(newshape))


@op
def ravel(x: Any) -> Any:
    """All elements in one row."""
    return operators.reshape(x, -1)


@op
def expand_dims(x: Any, axis: Any) -> Any:
    """Axes of size 1 inserted, at these places of the result."""
    x = operand(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = axes_of(axis, x.ndim + count, "expand_dims")
    sizes = iter(x.shape)
    return operators.reshape(x, tuple(1 if a in axes else next(sizes) for a in range(x.ndim + count)))


@op
def squeeze(x: Any, axis: Any = None) -> Any:
    """Axes of size 1 removed: all of them, or those named."""
    x = operand(x)
    axes = [a for a, n in enumerate(x.shape) if n == 1] if axis is None else axes_of(axis, x.ndim, "squeeze")
    if builtins.any(x.shape[a] != 1 for a in axes):
        raise ShapeError("squeeze: an axis is longer than 1", got=f"axis={axis} of {x.spec}", expected="axes of size 1")
    return operators.reshape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


@op
def broadcast_to(x: Any, shape: Any) -> Any:
    """The value repeated along axes of size 1, and along new leading axes."""
    x, target = operand(x), sizes_of(shape)
    if operators.broadcast_shapes(x.shape, target, operator="broadcast_to") != target:
        raise ShapeError(
            "broadcast_to: a size would shrink", got=x.spec, expected=f"shape {target}, or sizes of 1 in it"
        )
    return operators.broadcast_to(x, target)


# Order of axes ---------------------------------------------------------------------------------------------------
@op
def transpose(x: Any, axes: Any = None) -> Any:
    """Axes in another order: reversed, or as listed."""
    return operators.transpose(x, axes)


@op
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    x = operand(x)
    a, b = normalize_axis(axis1, x.ndim, "swapaxes"), normalize_axis(axis2, x.ndim, "swapaxes")
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return operators.transpose(x, order)


@op
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to new places; the others keep their order."""
    x = operand(x)
    sources, targets = (list(a) if isinstance(a, (tuple, list)) else [a] for a in (source, destination))
    if len(sources) != len(targets):
        raise ArgumentError("moveaxis: as many destinations as sources", got=f"{source} to {destination}")
    sources = [normalize_axis(a, x.ndim, "moveaxis") for a in sources]
    targets = [normalize_axis(a, x.ndim, "moveaxis") for a in targets]
    order = [a for a in range(x.ndim) if a not in sources]
    for target, a in sorted(zip(targets, sources, strict=True)):
        order.insert(target, a)
    return operators.transpose(x, order)


def to_last(x: Any, axis: int) -> Any:
    """One axis moved to the end."""
    return operators.transpose(x, moved(x.ndim, axis, x.ndim - 1))


def from_last(x: Any, axis: int) -> Any:
    """The last axis moved to a place."""
    return operators.transpose(x, moved(x.ndim, x.ndim - 1, axis))


@op
def flip(x: Any, axis: Any = None) -> Any:
    """Axes in reverse order."""
    x = operand(x)
    axes = axes_of(axis, x.ndim, "flip")
    return primitives.flip(x, axes=axes) if axes else x


@op
def fliplr(x: Any) -> Any:
    """Axis 1 in reverse order."""
    return flip(x, 1)


@op
def flipud(x: Any) -> Any:
    """Axis 0 in reverse order."""
    return flip(x, 0)


@op
def rot90(array: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """A quarter turn in the plane of two axes, k times, from the first towards the second."""
    x = operand(array)
    a, b = (normalize_axis(axis, x.ndim, "rot90") for axis in axes)
    if a == b or x.ndim < 2:
        raise ArgumentError("rot90: two different axes are needed", got=f"axes {axes} of {x.spec}")
    k %= 4
    if k == 2:
        return flip(x, (a, b))
    if k == 1:
        return swapaxes(flip(x, b), a, b)
    return flip(swapaxes(x, a, b), b) if k == 3 else x


@op
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """Elements moved along axes; what leaves at one end enters at the other."""
    x = operand(x)
    if axis is None:
        return operators.reshape(roll(operators.reshape(x, -1), shift, 0), x.shape)
    shifts, axes = (list(v) if isinstance(v, (tuple, list)) else [v] for v in (shift, axis))
    count = builtins.max(len(shifts), len(axes))
    shifts, axes = (v * count if len(v) == 1 else v for v in (shifts, axes))
    for distance, a in zip(shifts, axes, strict=True):
        a = normalize_axis(a, x.ndim, "roll")
        at = -int(distance) % x.shape[a] if x.shape[a] else 0
        if at:
            x = primitives.concatenate(cut(x, a, at, x.shape[a]), cut(x, a, 0, at), axis=a)
    return x


# Joining and splitting -------------------------------------------------------------------------------------------
def _one_type(xs: Any, name: str) -> list[Any]:
    items = [operand(x) for x in xs]
    if not items:
        raise ArgumentError(f"{name}: nothing to join", expected="at least one operand")
    dtype = operators.common_dtype(items, items)
    return [cast(item, dtype) for item in items]


@op
def concatenate(xs: Any, axis: Any = 0) -> Any:
    """Operands one after the other along an axis; None joins all elements in one row."""
    items = _one_type(xs, "concatenate")
    if axis is None:
        items, axis = [operators.reshape(item, -1) for item in items], 0
    axis = normalize_axis(axis, items[0].ndim, "concatenate")
    return items[0] if len(items) == 1 else primitives.concatenate(*items, axis=axis)


@op
def stack(x: Any, axis: int = 0) -> Any:
    """Operands of one shape along a new axis."""
    items = _one_type(x, "stack")
    if builtins.any(item.shape != items[0].shape for item in items):
        raise ShapeError("stack: shapes differ", got=", ".join(str(i.spec) for i in items), expected="one shape")
    axis = normalize_axis(axis, items[0].ndim + 1, "stack")
    shape = (*items[0].shape[:axis], 1, *items[0].shape[axis:])
    rows = [operators.reshape(item, shape) for item in items]
    return rows[0] if len(rows) == 1 else primitives.concatenate(*rows, axis=axis)


def _at_least(x: Any, rank: int) -> Any:
    x = operand(x)
    if x.ndim >= rank:
        return x
    if rank == 3:  # NumPy's rule: (n) is (1, n, 1), (m, n) is (m, n, 1)
        return operators.reshape(x, {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}[x.ndim])
    return operators.reshape(x, (1,) * (rank - x.ndim) + x.shape)


@op
def hstack(xs: Any) -> Any:
    """Operands side by side: along axis 1, vectors along axis 0."""
    items = [_at_least(x, 1) for x in xs]
    return concatenate(items, 0 if items and items[0].ndim == 1 else 1)


@op
def vstack(xs: Any) -> Any:
    """Operands one above the other; vectors are rows."""
    return concatenate([_at_least(x, 2) for x in xs], 0)


@op
def dstack(xs: Any) -> Any:
    """Operands one behind the other, along axis 2."""
    return concatenate([_at_least(x, 3) for x in xs], 2)


@op
def append(x1: Any, x2: Any, axis: Any = None) -> Any:
    """x2 after x1 along an axis; without one, all elements in one row."""
    return concatenate([x1, x2], axis)


def _split(x: Any, where: Any, axis: int, name: str, *, uneven: bool) -> list[Any]:
    x = operand(x)
    axis = normalize_axis(axis, x.ndim, name)
    size = x.shape[axis]
    if isinstance(where, (tuple, list, np.ndarray)):
        bounds = [0, *(builtins.slice(None, int(p)).indices(size)[1] for p in where), size]
    else:
        parts = int(where)
        if parts < 1 or (size % parts and not uneven):
            raise ArgumentError(
                f"{name}: the axis does not divide evenly", got=f"{size} into {parts} parts",
                expected="a divisor of the size", hint="array_split makes parts of nearly equal size",
            )  # fmt: skip
        small, larger = divmod(size, parts)
        bounds = [i * small + builtins.min(i, larger) for i in range(parts + 1)]
    return [cut(x, axis, a, builtins.max(a, b)) for a, b in itertools.pairwise(bounds)]


@op
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis: so many of equal size, or cut at the listed places."""
    return _split(x, indices_or_sections, axis, "split", uneven=False)


@op
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis; if it does not divide evenly, the first parts are one longer."""
    return _split(x, indices_or_sections, axis, "array_split", uneven=True)


@op
def hsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along axis 1; of vectors along axis 0."""
    x = operand(x)
    return _split(x, indices_or_sections, 0 if x.ndim == 1 else 1, "hsplit", uneven=False)


@op
def vsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along axis 0."""
    return _split(x, indices_or_sections, 0, "vsplit", uneven=False)


@op
def dsplit(x: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along axis 2."""
    return _split(x, indices_or_sections, 2, "dsplit", uneven=False)


# Repeating -------------------------------------------------------------------------------------------------------
@op
def repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    """Each element repeated in place: all equally often, or each as often as listed (in numbers)."""
    x = operand(x)
    if axis is None:
        x, axis = operators.reshape(x, -1), 0
    axis = normalize_axis(axis, x.ndim, "repeat")
    counts = np.asarray(operand(repeats).numpy()).reshape(-1)
    if counts.size == 1:
        count = int(counts[0])
        shape = (*x.shape[: axis + 1], count, *x.shape[axis + 1 :])
        widened = operators.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        widened = operators.broadcast_to(widened, shape)
        return operators.reshape(widened, (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]))
    if counts.size != x.shape[axis]:
        raise ShapeError(
            "repeat: one count per element", got=f"{counts.size} counts", expected=f"{x.shape[axis]}, or one"
        )
    return x[along(axis, np.repeat(np.arange(x.shape[axis], dtype=np.int32), counts))]


@op
def tile(x: Any, repeats: Any) -> Any:
    """The whole array repeated along its axes, the last of which belong to the last repeats."""
    x, counts = operand(x), sizes_of(repeats)
    rank = builtins.max(x.ndim, len(counts))
    counts = (1,) * (rank - len(counts)) + counts
    sizes = (1,) * (rank - x.ndim) + x.shape
    pairs = [(count, n) for count, n in zip(counts, sizes, strict=True)]
    x = operators.reshape(x, tuple(n for _, n in pairs for n in (1, n)))
    x = operators.broadcast_to(x, tuple(v for pair in pairs for v in pair))
    return operators.reshape(x, tuple(count * n for count, n in pairs))


@op
def meshgrid(*x: Any, indexing: str = "xy") -> list[Any]:
    """Coordinate arrays from coordinate vectors; "xy" exchanges the first two axes of the result, "ij" does not."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError("meshgrid: unknown indexing", got=repr(indexing), expected="'xy' or 'ij'")
    vectors = [operators.reshape(v, -1) for v in x]
    sizes = [v.size for v in vectors]
    order = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        order[:2] = [1, 0]
    shape = tuple(sizes[i] for i in order)
    grids = []
    for i, vector in enumerate(vectors):
        place = order.index(i)
        columns = operators.reshape(vector, tuple(-1 if a == place else 1 for a in range(len(shape))))
        grids.append(operators.broadcast_to(columns, shape))
    return grids


# Names of axes ---------------------------------------------------------------------------------------------------
@op
def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """Axes by name, after einops: "b (h w) c -> b c h w" splits, orders and joins them.

    A group in brackets is one axis; of the sizes in a group of the left side all but one must be given.
    """
    x = operand(tensor)
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ArgumentError("rearrange: the pattern has no arrow", got=repr(pattern), expected="'left -> right'")
    sources, targets = _groups(left), _groups(right)
    names = [name for group in sources for name in group]
    if sorted(names) != sorted(name for group in targets for name in group) or len(set(names)) != len(names):
        raise ArgumentError("rearrange: each name stands once on each side", got=repr(pattern))
    if len(sources) != x.ndim:
        raise ShapeError(
            "rearrange: the rank does not fit", got=f"{x.spec} for {pattern!r}", expected=f"rank {len(sources)}"
        )
    sizes = dict(axes_lengths)
    for group, size in zip(sources, x.shape, strict=True):
        unknown = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(unknown) > 1 or size % builtins.max(known, 1) or (not unknown and known != size):
            raise ShapeError(
                f"rearrange: the sizes of ({' '.join(group)}) do not fit", got=f"{size}, with {axes_lengths}",
                expected="a size for all but one name, and a product that divides",
            )  # fmt: skip
        if unknown:
            sizes[unknown[0]] = size // known
    x = operators.reshape(x, tuple(sizes[name] for name in names))
    x = operators.transpose(x, [names.index(name) for group in targets for name in group])
    return operators.reshape(x, tuple(math.prod(sizes[name] for name in group) for group in targets))


def _groups(side: str) -> list[list[str]]:
    parts = re.findall(r"\([^()]*\)|[^\s()]+", side)
    return [part.strip("()").split() for part in parts]


def _image_batch(x: Any, block_size: int, data_format: str | None, name: str) -> tuple[Any, bool]:
    x = operand(x)
    check_rank(name, x, (4,), "a batch of images")
    first = is_channels_first(name, data_format)
    if block_size < 1:
        raise ArgumentError(f"{name}: the block size is not positive", got=block_size)
    return x, first


@op
def depth_to_space(x: Any, block_size: int, data_format: str = "channels_last") -> Any:
    """Channels spread over blocks of `block_size` × `block_size` pixels.

    With channels first, the place in the block is the faster part of a channel's number; with channels last the slower.
    """
    x, first = _image_batch(x, block_size, data_format, "depth_to_space")
    b = block_size
    channels = x.shape[1 if first else 3]
    if channels % (b * b):
        raise ShapeError("depth_to_space: the channels do not divide", got=x.spec, expected=f"a multiple of {b * b}")
    pattern = "n (c a b) h w -> n c (h a) (w b)" if first else "n h w (a b c) -> n (h a) (w b) c"
    return rearrange(x, pattern, a=b, b=b)


@op
def space_to_depth(x: Any, block_size: int, data_format: str = "channels_last") -> Any:
    """Blocks of `block_size` × `block_size` pixels gathered into channels: the inverse of `depth_to_space`."""
    x, first = _image_batch(x, block_size, data_format, "space_to_depth")
    b = block_size
    height, width = x.shape[2:] if first else x.shape[1:3]
    if height % b or width % b:
        raise ShapeError(
            "space_to_depth: the image does not divide into blocks", got=x.spec, expected=f"multiples of {b}"
        )
    pattern = "n c (h a) (w b) -> n (c a b) h w" if first else "n (h a) (w b) c -> n h w (a b c)"
    return rearrange(x, pattern, a=b, b=b)
