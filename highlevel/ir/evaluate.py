"""The meaning of a graph: its nodes computed one after the other by the definitions in their records.

A `Program` is a graph made ready for that: slots instead of dictionaries, and each value dropped after its last use.
The interpreter backend runs whole programs with it; control-flow operators run their bodies with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from .graph import Graph, Leaf, key_of
from .primitive import Primitive


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: the slots it reads and writes, and those of them that nobody reads after it."""

    primitive: Primitive
    attrs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    drops: tuple[int, ...]


class Program:
    """A graph in the order in which it is computed.

    inputs: slot of each input; leaves: (slot, leaf) of constants and variables; results: slot of each output and update
    """

    def __init__(self, graph: Graph) -> None:
        nodes = graph.nodes()
        slots: dict[tuple[int, int], int] = {}
        for symbol in graph.inputs:
            slots[key_of(symbol)] = len(slots)
        for node in nodes:
            for index in range(len(node.specs)):
                slots.setdefault((node.id, index), len(slots))
        self.size = len(slots)
        self.inputs = tuple(slots[key_of(symbol)] for symbol in graph.inputs)
        self.results = tuple(slots[key_of(symbol)] for symbol in graph.results)
        self.leaves: list[tuple[int, Leaf]] = [
            (slots[node.id, 0], node.leaf) for node in nodes if node.leaf is not None and node.leaf.kind != "input"
        ]
        used = set(self.results) | set(self.inputs)  # never dropped, and what later steps read
        steps: list[Step] = []
        for node in reversed(nodes):
            if node.primitive is None:
                continue
            reads = tuple(slots[key_of(symbol)] for symbol in node.inputs)
            writes = tuple(slots[node.id, index] for index in range(len(node.specs)))
            drops = tuple(sorted({*reads, *writes} - used))
            attrs = dict(node.attrs)
            if node.primitive.selective:
                attrs["wanted"] = tuple(slot in used for slot in writes)
            used.update(reads)
            steps.append(Step(node.primitive, attrs, reads, writes, drops))
        self.steps = tuple(reversed(steps))

    def run(self, xp: Any, inputs: Sequence[Any], leaves: Sequence[Any] = ()) -> list[Any]:
        """Arrays of all results; `leaves` holds the values of `self.leaves`."""
        values: list[Any] = [None] * self.size
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        for (slot, _), value in zip(self.leaves, leaves, strict=True):
            values[slot] = value
        for step in self.steps:
            results = step.primitive.numpy(xp, *[values[slot] for slot in step.inputs], **step.attrs)
            if step.primitive.multiple:
                for slot, value in zip(step.outputs, results, strict=True):
                    values[slot] = value
            else:
                values[step.outputs[0]] = results
            for slot in step.drops:
                values[slot] = None
        return [values[slot] for slot in self.results]


_programs: WeakKeyDictionary[Graph, Program] = WeakKeyDictionary()


def program(graph: Graph) -> Program:
    """The program of a sub-graph, made ready once: loop bodies run many times."""
    if graph not in _programs:
        _programs[graph] = Program(graph)
    return _programs[graph]
