"""Nested structures of lists, tuples, named tuples and dictionaries, flattened in a fixed order: keys are sorted.

Named tuples stay what they are, and so does OrderedDict, order included. Other classes derived from lists, tuples and
dictionaries are taken for these.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from highlevel.errors import ArgumentError

LEAF = "*"  # the structure of a leaf


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves, and the structure that puts them together again; structures are hashable.

    >>> flatten({"b": [1, 2], "a": 3})[0]
    [3, 1, 2]
    """
    if not isinstance(tree, (list, tuple, dict)):
        return [tree], LEAF
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Any:
    if isinstance(tree, (list, tuple)):
        kind: type = type(tree)
        if not hasattr(kind, "_fields"):
            kind = tuple if isinstance(tree, tuple) else list
        return kind, tuple([_flatten(item, leaves) for item in tree])
    if isinstance(tree, dict):
        kind = OrderedDict if isinstance(tree, OrderedDict) else dict
        keys = list(tree) if kind is OrderedDict else sorted(tree, key=lambda key: (str(key), type(key).__name__))
        return kind, tuple(keys), tuple([_flatten(tree[key], leaves) for key in keys])
    leaves.append(tree)
    return LEAF


def unflatten(structure: Any, leaves: Any) -> Any:
    """The tree of that structure with other leaves."""
    leaves = list(leaves)
    if structure == LEAF and len(leaves) == 1:
        return leaves[0]
    if len(leaves) != _count(structure):
        raise ArgumentError("tree.unflatten: the leaves do not fit", got=len(leaves), expected=_count(structure))
    return _unflatten(structure, iter(leaves))


def _count(structure: Any) -> int:
    return 1 if structure == LEAF else sum([1 if child == LEAF else _count(child) for child in structure[-1]])


def _unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure == LEAF:
        return next(leaves)
    if len(structure) == 3:
        kind, keys, children = structure
        items = [next(leaves) if child == LEAF else _unflatten(child, leaves) for child in children]
        return kind(zip(keys, items, strict=True))
    kind, children = structure
    items = [next(leaves) if child == LEAF else _unflatten(child, leaves) for child in children]
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def leaves(tree: Any) -> list[Any]:
    return flatten(tree)[0]


def map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of `function(leaf, *other_leaves)`; all trees must have one structure.

    >>> map(lambda a, b: a + b, {"x": 1, "y": (2, 3)}, {"x": 10, "y": (20, 30)})
    {'x': 11, 'y': (22, 33)}
    """
    first, structure = flatten(tree)
    columns = [first]
    for other in others:
        items, other_structure = flatten(other)
        if other_structure != structure:
            raise ArgumentError("tree.map: the structures differ", got=other_structure, expected=structure)
        columns.append(items)
    return unflatten(structure, [function(*row) for row in zip(*columns, strict=True)])
