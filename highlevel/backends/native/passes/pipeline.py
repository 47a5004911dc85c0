"""The passes, in their order.

Each takes a graph and gives one that computes the same. With `check` – in tests, and when a rule is suspected – shape
rules are asked again after every pass and values are compared with those from before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache

from highlevel.ir.graph import Graph
from highlevel.ir.trace import uncollected

from .algebra import ALGEBRA
from .check import check_pass, count_nodes
from .driver import Sweep, Table
from .folding import FOLD_LIMIT_BYTES
from .hoist import hoist_products
from .invariants import hoist_invariants
from .layout import absorb_padding, settle_layout
from .loops import has_loops, prune_loops
from .movement import MOVEMENT
from .pattern import Rule
from .precision import PRECISION
from .stability import STABILITY

ROUNDS = 8  # of simplification at most; two or three are what programs with loops take
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class PassOptions:
    """What passes are told.

    claimed:          names of composites that the backend takes whole
    fold_limit_bytes: the largest constant that is computed while compiling
    rules:            the user's own, applied with those of algebra (see `register_rule`)
    """

    claimed: Collection[str] = frozenset()
    fold_limit_bytes: int = FOLD_LIMIT_BYTES
    rules: tuple[Rule, ...] = field(default_factory=lambda: tuple(USER_RULES))


@dataclass(frozen=True)
class Pass:
    """One step of the pipeline; `kind` as of rules: what may change in the values."""

    name: str
    run: Callable[[Graph], Graph]
    kind: str = "exact"


@dataclass(frozen=True)
class PassReport:
    """What a pass did: nodes before and after, those of sub-graphs included."""

    name: str
    nodes_before: int
    nodes_after: int
    elapsed_ms: float


USER_RULES: list[Rule] = []


@cache
def _table(rules: tuple[Rule, ...]) -> Table:
    """All rules of simplification, in their order; the user's own first."""
    return Table([*rules, *STABILITY, *ALGEBRA, *PRECISION, *MOVEMENT])


def _simplify(options: PassOptions) -> Sweep:
    """Rules, folding, merging, composites taken apart: in one sweep, since each gives the others something to do.

    Checkpoints stay: their point is that what they compute is not kept, and the second time it is computed it must not
    be merged with the first.
    """
    kept = {CHECKPOINT, *options.claimed}
    return Sweep(
        _table(options.rules), merge=True, fold_bytes=options.fold_limit_bytes, inline=lambda name: name not in kept
    )


LOOPS = (
    Pass("loops", prune_loops),
    Pass("invariants", hoist_invariants),
    Pass("products", hoist_products, "reassociating"),
)
LAST = (
    Pass("layout", settle_layout, "reassociating"),
    Pass("padding", absorb_padding, "reassociating"),
)


def run_passes(
    graph: Graph, options: PassOptions | None = None, check: bool = False, log: list[PassReport] | None = None
) -> Graph:
    """The graph after all passes; `log` gets a row for each that ran."""
    options = options or PassOptions()

    def run(step: Pass, graph: Graph) -> Graph:
        start = time.perf_counter()
        after = step.run(graph)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        if log is not None:
            log.append(PassReport(step.name, count_nodes(graph), count_nodes(after), elapsed_ms))
        if check:
            check_pass(graph, after, step.kind, step.name)
        return after

    simplify = Pass("simplify", _simplify(options), "stabilizing")
    with uncollected():
        if has_loops(graph):
            graph = run(LOOPS[0], graph)  # there is less to simplify
        graph = run(simplify, graph)
        for _ in range(ROUNDS):
            before = graph
            for step in LOOPS:
                graph = run(step, graph)
            if graph is before:
                break
            graph = run(simplify, graph)
        for step in LAST:
            graph = run(step, graph)
    return graph
