"""What an element of a kernel costs, and what follows: how many are worked on at once, how much code is worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from highlevel.ir import DType

from ...schedule.kernel import Apply, Choose, Load, LoopKernel, Number, Stage, Term, walk

SHORT = 1 << 15  # elements: for fewer it is the compiler's time that matters
SLOW = {"threefry": 90, "div": 4, "sqrt": 4, "rsqrt": 8, "pow": 60, "mod": 60, "floor_div": 40}
CHEAP = {
    "neg", "abs", "sign", "floor", "ceil", "round", "isfinite", "invert", "add", "sub", "mul", "maximum", "minimum",
    "equal", "not_equal", "less", "less_equal", "bit_and", "bit_or", "bit_xor", "shift_left", "shift_right", "select",
    "cast", "bitcast",
}  # fmt: skip


def terms_of(kernel: LoopKernel) -> list[Term]:
    """All that the kernel computes."""
    return [*(stage.term for stage in kernel.stages), *(output.term for output in kernel.outputs)]


def cost_of(terms: Sequence[Term]) -> int:
    """About how many instructions an element costs."""
    nodes = {id(node): node for term in terms for node in walk(term)}.values()
    count = 0
    for node in nodes:
        if isinstance(node, Apply):
            name = node.primitive.name
            count += 1 if name in CHEAP else SLOW.get(name, 24)
        elif isinstance(node, (Load, Choose)):
            count += 1
    return count


def is_short(kernel: LoopKernel) -> bool:
    """Whether code had better be short: there is little to compute, or much for each element."""
    elements = math.prod(size for _, size in (*kernel.rows, *kernel.columns))
    return elements < SHORT or cost_of(terms_of(kernel)) > 40


def lanes_for(
    kernel: LoopKernel,
    dtypes: Mapping[str, DType],
    target: Any,
    extent: int | None,
    level: Sequence[Stage] = (),
) -> int:
    """How many elements to work on at once: what a register holds; for cheap totals some more, lest they wait.

    extent: how many there are, if that is known; level: totals that go from element to element
    """
    terms = terms_of(kernel)
    widths = [_register_bytes(dtypes[name]) for name in (*kernel.reads, *kernel.writes)]
    widths += [_register_bytes(node.dtype) for term in terms for node in walk(term) if not isinstance(node, Number)]
    base: int = max(target.vector_bytes // max(widths, default=4), 2)
    lanes = base
    if level:
        cost = cost_of([stage.term for stage in level])
        lanes = base * (1 if cost > 16 else 2 if cost > 8 else 4)
    if extent is None:
        return lanes
    while lanes > base and extent % lanes and extent < 8 * lanes:
        lanes //= 2
    while lanes > 2 and lanes // 2 >= extent:
        lanes //= 2
    if not target.masking:
        while lanes > max(extent, 1):
            lanes //= 2
    return lanes


def _register_bytes(dtype: DType) -> int:
    return 4 if dtype.is_float and dtype.size_bytes == 2 else dtype.size_bytes
