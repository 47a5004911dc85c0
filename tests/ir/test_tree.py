from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import NamedTuple

import pytest

from highlevel.errors import ArgumentError
from highlevel.ir import tree


class Point(NamedTuple):
    x: object
    y: object


TREES = [
    1,
    None,
    [],
    {},
    (),
    [1, (2, 3), {"b": 4, "a": [5]}],
    Point(1, [2, None]),
    OrderedDict(z=1, a=2),
    {"outer": Point({"k": 1}, ())},
]


@pytest.mark.parametrize("value", TREES, ids=repr)
def test_flatten_and_back(value: object) -> None:
    leaves, structure = tree.flatten(value)
    again = tree.unflatten(structure, leaves)
    assert again == value
    assert type(again) is type(value)
    assert tree.flatten(again)[1] == structure
    hash(structure)


def test_jax_flattens_in_the_same_order() -> None:
    jax = pytest.importorskip("jax")
    for value in TREES:
        theirs = jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None)
        assert tree.leaves(value) == theirs


def test_the_order_of_keys_does_not_matter() -> None:
    assert tree.flatten({"a": 1, "b": 2}) == tree.flatten({"b": 2, "a": 1})
    assert tree.flatten({1: "x", "1": "y"}) == tree.flatten({"1": "y", 1: "x"})


def test_structures_tell_trees_apart() -> None:
    different = [[1], (1,), {"a": 1}, {"b": 1}, [[1]], Point(1, 2), (1, 2), OrderedDict(a=1)]
    structures = [tree.flatten(value)[1] for value in different]
    assert len(set(structures)) == len(different)


def test_derived_classes_become_what_they_derive_from() -> None:
    class Tracked(list):  # type: ignore[type-arg]
        def __init__(self, values: object, owner: object) -> None:
            super().__init__(values)  # type: ignore[call-overload]

    assert tree.map(lambda x: x + 1, Tracked([1, 2], owner="layer")) == [2, 3]
    assert tree.map(lambda x: x + 1, defaultdict(int, a=1)) == {"a": 2}


def test_map_takes_several_trees() -> None:
    assert tree.map(lambda a, b: a * b, [1, {"k": 2}], [3, {"k": 4}]) == [3, {"k": 8}]
    with pytest.raises(ArgumentError, match="the structures differ"):
        tree.map(lambda a, b: a, [1, 2], [1, (2,)])


@pytest.mark.parametrize("leaves", [[1], [1, 2, 3]])
def test_the_number_of_leaves_is_checked(leaves: list[int]) -> None:
    _, structure = tree.flatten([0, 0])
    with pytest.raises(ArgumentError, match="the leaves do not fit"):
        tree.unflatten(structure, leaves)


def test_deep_trees_of_many_leaves() -> None:
    value: object = 0
    for _ in range(200):
        value = [value, 1]
    assert len(tree.leaves(value)) == 201
