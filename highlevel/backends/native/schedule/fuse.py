"""Fusion: from a graph to kernels.

In: a graph of loop operators (elementwise, movement, reductions, fills) and others (contractions, sorts, …). Out: the
kernels of the loop operators, the contractions with what they take in, and which symbols are buffers. Invariants: every
other node reads buffers only; every result is a buffer; every buffer is written once; no kernel reads what it writes.

    values   the graph, with what has to be a buffer; reshapes of a buffer are that buffer
    recast   the same from other operands, so that less has to be stored
    absorb   contractions take in movement of their operands and what is done to their results
    keep     of all else, what may be worth a buffer
    groups   what is computed over the same rows and columns, and reads the same, is one kernel
    drop     of buffers that were kept for other kernels, those that these compute with less traffic are dropped
    terms    kernels

P. Tillet et al., "Triton", 2019, and T. Chen et al., "TVM", 2018, fuse along the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from highlevel.ir import Graph, Node
from highlevel.ir.trace import uncollected

from .absorb import Absorbed, absorb
from .contraction import Contraction
from .drop import Dropper, written
from .groups import Grouper
from .keep import Keeper
from .kernel import Buffer, LoopKernel
from .recast import compare_results
from .terms import contraction, loop_kernel
from .values import LOOPS, Key, Value, buffer_of, kind_of, read_values


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a graph is computed by.

    kernels:      in an order that can run, with other nodes in between where their operands are there
    buffers:      of each symbol that has one, by key: inputs, results, what kernels and other nodes read and write
    contractions: by node id
    aliases:      buffers that are another one under a different shape, by name
    """

    kernels: tuple[LoopKernel, ...]
    buffers: Mapping[Key, Buffer]
    contractions: Mapping[int, Contraction] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


def is_loop(node: Node) -> bool:
    """Whether the node is computed inside of loop kernels."""
    return kind_of(node) in LOOPS


def plan_fusion(graph: Graph, epilogues: bool = True) -> Fusion:
    """Chooses buffers, and makes the kernels and contractions that fill them."""
    values = read_values(graph)
    with uncollected():
        compared = compare_results(values)
        absorbed, final = absorb(compared, epilogues)
        fusion = _plan(absorbed, final)
    for value in {*values, *compared, *final}:
        value.release()
    return fusion


def _plan(absorbed: Sequence[Absorbed], values: Sequence[Value]) -> Fusion:
    Keeper(values, {value for found in absorbed for value in found.inside}).run()
    groups = Grouper(values, absorbed).groups
    dropper = Dropper(groups)
    dropper.run()
    kernels = written(dropper.groups)
    buffers = {value.key: buffer_of(value) for value in values if value.kept and value.kind not in LOOPS}
    stored = [found.stored.root for found in absorbed] + [x.value for members in kernels.values() for x in members]
    buffers.update({value.key: buffer_of(value) for value in stored})
    aliases = {}
    for value in values:
        if value.forced and value.root is not value:
            buffers[value.key] = buffer_of(value)
            aliases[value.label] = value.root.label
    return Fusion(
        tuple(loop_kernel(group, members, buffers) for group, members in kernels.items()),
        buffers,
        {found.value.node.id: contraction(found, buffers) for found in absorbed},
        aliases,
    )
