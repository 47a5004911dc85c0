"""What stands around the loops of the trainer: loaders for the data of `fit`, batches filled up, results handed out."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from highlevel import random
from highlevel.data.loader import ArrayLoader, IterableLoader, Loader, arrays_of, make_loader
from highlevel.errors import ArgumentError, did_you_mean
from highlevel.ir import Spec, Tensor, tree

F = TypeVar("F", bound=Callable[..., Any])


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, for its own object to keep: it does not keep the object alive in turn."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        found = reference()
        assert found is not None
        return found(*args)

    return call


def explains_keywords(method: F) -> F:
    """Makes a misspelt keyword an error that suggests the right one."""
    names = list(inspect.signature(method).parameters)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for keyword in kwargs:
            if keyword not in names:
                raise ArgumentError(
                    f"{method.__name__}: unknown argument {keyword!r}",
                    got=f"{keyword}={kwargs[keyword]!r}"[:80],
                    expected=f"arguments of {method.__name__}",
                    hint=did_you_mean(keyword, names[1:]),
                )
        return method(*args, **kwargs)

    return cast(F, wrapped)


def data_or_specs(value: Any, name: str) -> Any:
    """A part of a batch: arrays, or specs in their place."""
    return value if any(isinstance(leaf, Spec) for leaf in tree.leaves(value)) else arrays_of(value, name)


def results_of(found: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return found
    values = list(found.values())
    return values[0] if len(values) == 1 else values


def filled_size(rows: int, batch_size: int) -> int:
    """The rows that a short batch is filled up to: the next power of two, or the full batch if that is less."""
    return max(rows, min(batch_size, 1 << max(rows - 1, 0).bit_length()))


def is_one_batch(x: Any, batch_size: int) -> bool:
    """Whether the data are a single array that is no larger than a batch."""
    return type(x) is np.ndarray and x.ndim > 0 and 0 < len(x) <= batch_size and x.dtype.kind in "biuf"


def fill_up(x: Any, size: int) -> Any:
    """The batch with its last row repeated up to a size."""

    def fill(array: np.ndarray) -> np.ndarray:
        missing = size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    return tree.map(fill, x)


def rows_of(output: Tensor, rows: int | None) -> np.ndarray:
    return output.numpy()[:rows].copy() if output.ndim else output.numpy().copy()[None]


def arrays_in(loader: Loader | None) -> ArrayLoader | None:
    """The arrays in memory that a loader gives batches of, if that is what it does."""
    source = loader.source if isinstance(loader, IterableLoader) else loader
    return source if isinstance(source, ArrayLoader) else None


def check_passes(loader: Loader | None, passes: int, argument: str) -> None:
    """Raises if an iterator, which ends after one pass, shall give several."""
    if isinstance(loader, IterableLoader) and not loader.restarts and loader.steps is None and passes > 1:
        raise ArgumentError(
            f"an iterator can be passed through once, and there are {passes} epochs",
            got=type(loader.source).__name__,
            expected=f"{argument}, for an iterator without end; or something that can be iterated over again",
        )


def no_batches() -> ArgumentError:
    return ArgumentError("there are no batches", got="an iterable that ended before its first batch")


def draw_seed(seed: int | None) -> int:
    return random.draw_seed() if seed is None else seed


def validation_loader(data: Any, batch_size: int | None, steps: int | None) -> Loader | None:
    if data is None:
        return None
    if isinstance(data, (tuple, list)) and len(data) in (2, 3) and not any(isinstance(part, tuple) for part in data):
        return make_loader(*data, batch_size=batch_size, steps=steps)
    return make_loader(data, batch_size=batch_size, steps=steps)
