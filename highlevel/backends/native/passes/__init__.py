"""Passes over graphs: tables of rules, and the driver that applies them.

Read `pipeline` first: it is the list of passes. Tables of rules: `algebra`, `stability`, `precision`, `movement`,
`joining`, `layout`; how rules are written: `pattern`; how they are applied: `driver`; how they are proved: `verify`.
What nodes are computed or merged: `folding`, `equality`. Passes that are no tables: `loops`,
`invariants`, `hoist`.
"""

from .pattern import Rule
from .pipeline import PassOptions, PassReport, run_passes
from .verify import register_rule

__all__ = ["PassOptions", "PassReport", "Rule", "register_rule", "run_passes"]
