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
        self.rng = np.random.default_rng(seed) if shuffle else None
        self.steps: int | None = -(-self.count // batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = None if self.rng is None else self.rng.permutation(self.count)
        for start in range(0, self.count, self.batch_size):
            rows: Any = slice(start, start + self.batch_size)
            if order is not None:
                rows = order[rows]
            yield Batch(*(_rows(part, rows) for part in self.parts))

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.x, self.y, self.weight


def _rows(part: Any, rows: Any) -> Any:
    return None if part is None else tree.map(lambda array: array[rows], part)


class IterableLoader:
    """Batches from anything that can be iterated over: generators, data sets, PyTorch's DataLoader.

    Each item is (x, y), (x, y, weight), or x alone.

    steps:   batches of an epoch, if that is not one pass through the source
    goes_on: whether an epoch of `steps` batches begins where the last one ended, as training wants it; otherwise it
             begins at the beginning, so that validation always sees the same data. Iterators cannot but go on
    """

    def __init__(self, source: Iterable[Any], *, steps: int | None = None, goes_on: bool = False) -> None:
        self.source = source
        self.restarts = not isinstance(source, Iterator)
        self.goes_on = goes_on or not self.restarts
        self._iterator: Iterator[Any] | None = None
        self._own_steps = steps
        self.steps: int | None = steps if steps is not None else _length(source)

    def __iter__(self) -> Iterator[Batch]:
        if self._iterator is None or not self.goes_on or self._own_steps is None:
            self._iterator = iter(self.source)
        count, empty = 0, False
        while self._own_steps is None or count < self._own_steps:
            item = next(self._iterator, _END)
            if item is not _END:
                count, empty = count + 1, False
                yield to_batch(item)
            elif self._own_steps is not None and self.restarts and not empty:
                self._iterator, empty = iter(self.source), True  # the next pass
            else:
                return


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
    if (isinstance(item, tuple) and 1 <= len(item) <= 3) or (isinstance(item, list) and len(item) in (2, 3)):
        parts = tuple(item)  # PyTorch's DataLoader gives lists
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
    goes_on: bool = False,
) -> Loader:
    """The loader for arrays (with `y` and `weight` beside them) or for an iterable of batches."""
    if x is None:
        raise ArgumentError("there is no data", got="x=None", expected="arrays, or an iterable of batches (x, y)")
    if not (y is None and _is_batches(x)) and _is_arrays(x):
        arrays = ArrayLoader(
            x, y, weight, batch_size=32 if batch_size is None else batch_size, shuffle=shuffle, seed=seed
        )
        return arrays if steps is None else IterableLoader(arrays, steps=steps, goes_on=goes_on)
    if not isinstance(x, Iterable):
        raise ArgumentError(
            "this is not data", got=type(x).__name__, expected="arrays, or an iterable of batches (x, y)"
        )
    for name, value in (("y", y), ("sample_weight", weight)):
        if value is not None:
            raise ArgumentError(
                f"{name} is given twice",
                got=f"an iterable as x, and {name}",
                expected="batches (x, y) or (x, y, sample_weight) from the iterable",
            )
    return IterableLoader(x, steps=steps, goes_on=goes_on)


def _is_batches(x: Any) -> bool:
    """Whether it is a list of batches (x, y[, weight]) rather than of arrays."""
    return isinstance(x, list) and bool(x) and all(isinstance(i, tuple) and _is_arrays_of_rows(i) for i in x)


def _is_arrays_of_rows(item: Any) -> bool:
    return all(getattr(leaf, "ndim", 0) > 0 or leaf is None for leaf in tree.leaves(item))


def _is_arrays(x: Any) -> bool:
    leaves = tree.leaves(x)
    return bool(leaves) and all(hasattr(leaf, "shape") or isinstance(leaf, (int, float, bool)) for leaf in leaves)
