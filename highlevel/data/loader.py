"""Batches: what `fit`, `evaluate` and `predict` take, made into a sequence of (x, y, weight)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from highlevel.errors import ArgumentError
from highlevel.ir import tree
from highlevel.ir.tensor import to_numpy


class Batch(NamedTuple):
    """Trees of NumPy arrays; `y` and `weight` may be None."""

    x: Any
    y: Any = None
    weight: Any = None


class Loader(Protocol):
    """Gives the batches of an epoch each time it is iterated over."""

    steps: int | None  # batches per epoch, None if that is not known

    def __iter__(self) -> Iterator[Batch]: ...


def arrays_of(value: Any, what: str) -> Any:
    """A tree of arrays: lists of numbers count as arrays, lists of arrays as trees."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: arrays_of(item, what) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and value and all(hasattr(item, "shape") and len(item.shape) for item in value):
        return [to_numpy(item) for item in value]
    array = to_numpy(value)
    if array.ndim == 0:
        raise ArgumentError(
            f"{what} is a single number", got=value, expected="an array whose first axis counts the samples"
        )
    return array


def count_samples(**parts: Any) -> int:
    """The number of samples; all parts must agree."""
    sizes = {name: {len(leaf) for leaf in tree.leaves(part)} for name, part in parts.items() if part is not None}
    distinct = set().union(*sizes.values())
    if len(distinct) != 1:
        raise ArgumentError(
            "the numbers of samples differ",
            got=", ".join(f"{name} has {' and '.join(map(str, sorted(found)))}" for name, found in sizes.items()),
            expected="one number: the first axis counts the samples",
        )
    return distinct.pop()


class ArrayLoader:
    """Batches of arrays in memory, reshuffled every epoch by a generator of its own."""

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
    ) -> None:
        self.x, self.y, self.weight = arrays_of(x, "x"), arrays_of(y, "y"), arrays_of(weight, "sample_weight")
        self.count = count_samples(x=self.x, y=self.y, sample_weight=self.weight)
        if self.count == 0:
            raise ArgumentError("there are no samples", got="arrays of length 0", expected="at least one sample")
        if batch_size < 1:
            raise ArgumentError("batch_size is not positive", got=batch_size, expected="at least 1")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rng = np.random.default_rng(seed)
        self.steps: int | None = -(-self.count // batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self.rng.permutation(self.count) if self.shuffle else None
        for start in range(0, self.count, self.batch_size):
            rows: Any = slice(start, start + self.batch_size)
            if order is not None:
                rows = order[rows]
            yield Batch(*(None if part is None else tree.map(lambda a: a[rows], part) for part in self.parts))

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.x, self.y, self.weight


class IterableLoader:
    """Batches from anything that can be iterated over: generators, data sets, PyTorch's DataLoader.

    Each item is (x, y), (x, y, weight), or x alone. An iterator that ends is not begun again: `steps` says how many
    batches make an epoch of it.
    """

    def __init__(self, source: Iterable[Any], *, steps: int | None = None) -> None:
        self.source = source
        self.restarts = iter(source) is not source
        self._iterator: Iterator[Any] | None = None if self.restarts else iter(source)
        self._own_steps = steps
        self.steps: int | None = steps if steps is not None else _length(source)

    def __iter__(self) -> Iterator[Batch]:
        if self._own_steps is None:
            yield from map(to_batch, self.source if self._iterator is None else self._iterator)
            return
        for count in range(self._own_steps):  # an epoch of `steps` batches goes on where the last one ended
            if self._iterator is None:
                self._iterator = iter(self.source)
            item = next(self._iterator, _END)
            if item is _END and self.restarts and count > 0:
                self._iterator = iter(self.source)
                item = next(self._iterator, _END)
            if item is _END:
                self._iterator = None if self.restarts else self._iterator
                return
            yield to_batch(item)


_END = object()


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def to_batch(item: Any) -> Batch:
    """One item of a data set as a batch."""
    if isinstance(item, Batch):
        return item
    if (isinstance(item, tuple) and 1 <= len(item) <= 3) or (isinstance(item, list) and len(item) == 2):
        parts = tuple(item)  # a list of two is what PyTorch's DataLoader gives
    else:
        parts = (item,)
    names = ("x", "y", "sample_weight")
    return Batch(*(arrays_of(part, name) for part, name in zip(parts, names, strict=False)))


def make_loader(
    x: Any,
    y: Any = None,
    weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    steps: int | None = None,
) -> Loader:
    """The loader for arrays (with `y` and `weight` beside them) or for an iterable of batches."""
    if x is None:
        raise ArgumentError("there is no data", got="x=None", expected="arrays, or an iterable of batches (x, y)")
    if _is_arrays(x):
        return ArrayLoader(x, y, weight, batch_size=batch_size or 32, shuffle=shuffle, seed=seed)
    if not isinstance(x, Iterable):
        raise ArgumentError(
            "this is not data", got=type(x).__name__, expected="arrays, or an iterable of batches (x, y)"
        )
    if y is not None:
        raise ArgumentError(
            "y is given twice", got="an iterable as x, and y", expected="batches (x, y) from the iterable"
        )
    return IterableLoader(x, steps=steps)


def _is_arrays(x: Any) -> bool:
    leaves = tree.leaves(x)
    return bool(leaves) and all(hasattr(leaf, "shape") or isinstance(leaf, (int, float, bool)) for leaf in leaves)
