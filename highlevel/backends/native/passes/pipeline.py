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

from .algebra import ALGEBRA
from .check import check_pass, count_nodes
from .composite import inline_composites
from .driver import Table, rewrite
from .folding import FOLD_LIMIT_BYTES, fold_constants, merge_equal
from .hoist import hoist_products
from .layout import ABSORBED, settle_layout
from .loops import prune_loops
from .movement import MOVEMENT
from .pattern import Rule
from .precision import PRECISION
from .stability import STABILITY

ROUNDS = 8  # of simplification at most; two or three are what programs take


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
    run: Callable[[Graph, PassOptions], Graph]
    kind: str = "exact"


@dataclass(frozen=True)
class PassReport:
    """What a pass did: nodes before and after, those of sub-graphs included."""

    name: str
    nodes_before: int
    nodes_after: int
    elapsed_ms: float


USER_RULES: list[Rule] = []
_STABILITY, _ABSORBED = Table(STABILITY), Table(ABSORBED)


@cache
def _table(rules: tuple[Rule, ...]) -> Table:
    """All rules of simplification, in their order; the user's own first."""
    return Table([*rules, *ALGEBRA, *PRECISION, *MOVEMENT])


FIRST = (
    Pass("composites", lambda graph, options: inline_composites(graph, options.claimed)),
    Pass("loops", lambda graph, options: prune_loops(graph)),
    Pass("folding", lambda graph, options: fold_constants(graph, options.fold_limit_bytes)),
    Pass("common", lambda graph, options: merge_equal(graph)),
    Pass("stability", lambda graph, options: rewrite(graph, _STABILITY), "stabilizing"),
)

# Each gives the others something to do, so they take turns until nothing changes.
SIMPLIFY = (
    Pass("simplify", lambda graph, options: rewrite(graph, _table(options.rules)), "reassociating"),
    Pass("folding", lambda graph, options: fold_constants(graph, options.fold_limit_bytes)),
    Pass("common", lambda graph, options: merge_equal(graph)),
    Pass("loops", lambda graph, options: prune_loops(graph)),
    Pass("products", lambda graph, options: hoist_products(graph), "reassociating"),
)

LAST = (
    Pass("layout", lambda graph, options: settle_layout(graph), "reassociating"),
    Pass("padding", lambda graph, options: rewrite(graph, _ABSORBED), "reassociating"),
    Pass("common", lambda graph, options: merge_equal(graph)),
)


def run_passes(
    graph: Graph, options: PassOptions | None = None, check: bool = False, log: list[PassReport] | None = None
) -> Graph:
    """The graph after all passes; `log` gets a row for each that ran."""
    options = options or PassOptions()

    def run(step: Pass, graph: Graph) -> Graph:
        start = time.perf_counter()
        after = step.run(graph, options)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        if log is not None:
            log.append(PassReport(step.name, count_nodes(graph), count_nodes(after), elapsed_ms))
        if check:
            check_pass(graph, after, step.kind, step.name)
        return after

    for step in FIRST:
        graph = run(step, graph)
    settled: dict[str, Graph] = {}  # what a pass gave, to which it has nothing to add
    for _ in range(ROUNDS):
        before = graph
        for step in SIMPLIFY:
            if settled.get(step.name) is not graph:
                graph = settled[step.name] = run(step, graph)
        if graph is before:
            break
    for step in LAST:
        graph = run(step, graph)
    return graph
