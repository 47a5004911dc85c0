"""Batches from arrays and from iterables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from highlevel.data.loader import ArrayLoader, Batch, IterableLoader, arrays_of, count_samples, make_loader, to_batch
from highlevel.errors import ArgumentError
from highlevel.ir import Tensor

X = np.arange(10)[:, None]


def rows(loader: Any) -> list[list[int]]:
    return [np.asarray(batch.x)[:, 0].tolist() for batch in loader]


# Arrays --------------------------------------------------------------------------------------------------------------
def test_batches_in_order_with_a_short_one_at_the_end():
    loader = ArrayLoader(X, X[:, 0] * 2, batch_size=4)
    assert loader.steps == 3 and rows(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch.y.tolist() for batch in loader][2] == [16, 18]
    assert rows(loader) == rows(loader)


def test_shuffled_anew_in_every_epoch_and_the_same_from_the_same_seed():
    first, second = (ArrayLoader(X, batch_size=4, shuffle=True, seed=3) for _ in range(2))
    epochs = [rows(first), rows(first)]
    assert epochs == [rows(second), rows(second)] and epochs[0] != epochs[1]
    assert all(sorted(row for batch in epoch for row in batch) == list(range(10)) for epoch in epochs)


def test_rows_of_all_parts_stay_together():
    x = {"a": X, "b": [X * 10, X * 100]}
    for batch in ArrayLoader(x, X * 2, X[:, 0] * 3, batch_size=3, shuffle=True, seed=0):
        a = batch.x["a"]
        assert np.array_equal(batch.x["b"][0], a * 10) and np.array_equal(batch.x["b"][1], a * 100)
        assert np.array_equal(batch.y, a * 2) and np.array_equal(batch.weight, a[:, 0] * 3)


def test_trees_of_arrays():
    assert arrays_of([1, 2, 3], "x").tolist() == [1, 2, 3]
    assert arrays_of([[1, 2], [3, 4]], "x").shape == (2, 2)
    assert [a.shape for a in arrays_of([X, X[:, 0]], "x")] == [(10, 1), (10,)]
    assert isinstance(arrays_of(Tensor.of(np.ones(3, "float32")), "x"), np.ndarray)
    assert arrays_of(None, "x") is None
    with pytest.raises(ArgumentError, match="y is a single number"):
        arrays_of(3.0, "y")


def test_counts_must_agree():
    assert count_samples(x={"a": X, "b": X}, y=None) == 10
    with pytest.raises(ArgumentError, match="x has 10, y has 9"):
        count_samples(x=X, y=X[:9])
    with pytest.raises(ArgumentError, match="x has 9 and 10"):
        count_samples(x=[X, X[:9]])
    with pytest.raises(ArgumentError, match="no samples"):
        ArrayLoader(X[:0])
    for size in (0, -1):
        with pytest.raises(ArgumentError, match="batch_size"):
            make_loader(X, batch_size=size)


# Iterables -----------------------------------------------------------------------------------------------------------
class Numbers:
    """Gives batches of one number; counts how often it is begun."""

    def __init__(self, count: int) -> None:
        self.count, self.begun = count, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        self.begun += 1
        return (np.array([[i]]) for i in range(self.count))


def flat(loader: Any) -> list[int]:
    return [int(batch.x[0, 0]) for batch in loader]


def test_one_pass_is_an_epoch():
    loader = IterableLoader(Numbers(3))
    assert loader.steps is None
    assert flat(loader) == flat(loader) == [0, 1, 2]
    assert loader.source.begun == 2, "and nothing is begun in vain"
    assert IterableLoader([X, X]).steps == 2


def test_steps_cut_or_join_passes():
    assert [flat(IterableLoader(Numbers(3), steps=5)) for _ in range(1)] == [[0, 1, 2, 0, 1]]
    again = IterableLoader(Numbers(5), steps=2)
    assert [flat(again) for _ in range(3)] == [[0, 1], [0, 1], [0, 1]]
    going_on = IterableLoader(Numbers(5), steps=2, goes_on=True)
    assert [flat(going_on) for _ in range(4)] == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert flat(IterableLoader(Numbers(0), steps=3)) == [], "nothing without end is no loop without end"


def test_iterators_are_passed_through_once():
    loader = IterableLoader(iter(Numbers(5)), steps=2)
    assert [flat(loader) for _ in range(4)] == [[0, 1], [2, 3], [4], []]
    loader = IterableLoader(iter(Numbers(3)))
    assert flat(loader) == [0, 1, 2] and flat(loader) == []


@pytest.mark.parametrize(
    ("item", "parts"),
    [
        ((X, X, X), 3),
        ((X, X), 2),
        ((X,), 1),
        (X, 1),
        ([X, X], 2),
        ([X, X, X], 3),
        (({"a": X}, [X, X]), 2),
        ({"a": X}, 1),
        (Batch(X, X), 2),
    ],
    ids=["x y weight", "x y", "x alone", "array", "list", "list of three", "trees", "dictionary", "batch"],
)
def test_items_as_batches(item, parts):
    batch = to_batch(item)
    assert sum(part is not None for part in batch) == parts
    assert isinstance(batch, Batch) and np.array_equal(batch.x["a"] if isinstance(batch.x, dict) else batch.x, X)


# Which it is ---------------------------------------------------------------------------------------------------------
def test_arrays_are_told_from_iterables():
    for arrays in (X, [X, X], {"a": X}, X.tolist(), (X, X), Tensor.of(np.ones((3, 2), "float32"))):
        assert isinstance(make_loader(arrays), ArrayLoader)
    for iterable in ([(X, X), (X, X)], [(X,)], iter([X]), Numbers(2), [Batch(X, X)], [({"a": X}, X)]):
        assert isinstance(make_loader(iterable), IterableLoader)
    limited = make_loader(X, batch_size=2, steps=2)
    assert isinstance(limited, IterableLoader) and rows(limited) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": None}, "no data"),
        ({"x": object()}, "not data"),
        ({"x": Numbers(3), "y": X}, "y is given twice"),
        ({"x": Numbers(3), "weight": X}, "sample_weight is given twice"),
        ({"x": 3}, "single number"),
    ],
)
def test_what_is_no_data_is_explained(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        make_loader(**arguments)
