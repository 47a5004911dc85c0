"""Costly terms that several walks over the columns need: computed in the first, kept on the stack for the others.

The exponential of a softmax is one: it is added up, and then it is what is divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ...schedule.kernel import Apply, LoopKernel, Term, walk
from ..scalar import memory_type
from .cost import cost_of
from .terms import Terms

MOST = 4096  # columns
PADDING = 256  # elements behind them: no register has more lanes
COSTLY = 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A term, and its values in memory, one for each column; `walk` is the first that computes it."""

    term: Apply
    memory: Any
    walk: int


@dataclass(frozen=True, slots=True)
class KeptTerms:
    """What is kept in a kernel with one column axis."""

    column: str
    kept: tuple[Kept, ...] = ()

    @classmethod
    def reserve(cls, builder: Any, terms: Terms, kernel: LoopKernel, walks: Sequence[Sequence[Term]]) -> KeptTerms:
        """Chooses among the terms of each walk, and takes memory for them where the function begins."""
        column, size = kernel.columns[-1]
        if len(kernel.columns) > 1 or size > MOST:
            return cls(column)
        numbers = [{terms.number(node) for root in roots for node in walk(root)} for roots in walks]
        found: dict[int, Kept] = {}
        for i, roots in enumerate(walks):
            later = set().union(*numbers[i + 1 :])
            stack = [root for root in roots if isinstance(root, Apply)]
            while stack:
                node = stack.pop()
                number = terms.number(node)
                if number in found:
                    continue
                if number in later and column in terms.axes(number) and cost_of([node]) >= COSTLY:
                    memory = builder.alloca(ir.ArrayType(memory_type(node.dtype), size + PADDING))
                    memory.align = 64
                    memory.type = ir.PointerType()  # llvmlite would have it typed
                    found[number] = Kept(node, memory, i)
                else:
                    stack += [operand for operand in node.operands if isinstance(operand, Apply)]
        return cls(column, tuple(found.values()))

    def store(self, terms: Terms, walk: int) -> None:
        """Keeps what a walk has computed at the current column."""
        for kept in self.kept:
            if kept.walk == walk:
                terms.language(terms.lanes).store(self._address(terms, kept), terms.vector(kept.term))

    def recall(self, terms: Terms, roots: Sequence[Term], walk_number: int) -> None:
        """Has the terms of a later walk take what is kept at the current column."""
        if not self.kept:
            return
        used = {terms.number(node) for root in roots for node in walk(root)}
        for kept in self.kept:
            if kept.walk < walk_number and terms.number(kept.term) in used:
                value = terms.language(terms.lanes).load(self._address(terms, kept), kept.term.dtype)
                terms.give(kept.term, value)

    def _address(self, terms: Terms, kept: Kept) -> Any:
        place = terms.variables[self.column]
        return terms.builder.gep(kept.memory, [place], inbounds=True, source_etype=memory_type(kept.term.dtype))
