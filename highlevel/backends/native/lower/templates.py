"""Tasks of equal kernels, made once: of a network's hundreds of loop kernels few are different.

A kernel is known by its structure, in which buffers are numbers in the order in which they are met; its task is kept
with such numbers for names, and others get it with theirs. So planning a known program again writes no code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from highlevel.ir import DType
from highlevel.ir.graph import attribute_key

from ..codegen.targets import Target
from ..schedule.kernel import Apply, Choose, Index, Load, LoopKernel, Number, Term, Total
from . import loops
from .task import Task

KEPT = 1024
_templates: OrderedDict[Any, Task] = OrderedDict()


def loop_task(kernel: LoopKernel, dtypes: Mapping[str, DType], target: Target) -> Task:
    """The task of a kernel; `dtypes` has the element types of the buffers that it reads, by name."""
    found = Structure(kernel)
    key = found.key, target.key
    template = _templates.get(key)
    if template is None:
        numbers = {name: f"#{number}" for name, number in found.buffers.items()}
        task = loops.loop_task(kernel, dtypes, target)
        pairs = tuple(pair for pair in task.in_place if set(pair) <= set(numbers))  # others lie in the workspace
        template = _renamed(replace(task, in_place=pairs), numbers.__getitem__)
        _templates[key] = template
        if len(_templates) > KEPT:
            _templates.popitem(last=False)
    else:
        _templates.move_to_end(key)
    names = {f"#{number}": name for name, number in found.buffers.items()}
    return replace(_renamed(template, names.__getitem__), name=kernel.name, origins=kernel.origins)


def _renamed(task: Task, rename: Callable[[str], str]) -> Task:
    """The task with other names for its buffers."""
    return replace(
        task,
        reads=tuple(map(rename, task.reads)),
        writes=tuple(map(rename, task.writes)),
        phases=tuple(
            replace(call, arguments=tuple(rename(a) if isinstance(a, str) else a for a in call.arguments))
            for call in task.phases
        ),
        in_place=tuple((rename(written), rename(read)) for written, read in task.in_place),
    )


class Structure:
    """What decides a kernel's code: everything but the names of buffers and where it comes from."""

    def __init__(self, kernel: LoopKernel) -> None:
        self.buffers: dict[str, int] = {}
        self._nodes: dict[int, int] = {}
        self._parts: list[Any] = []
        stages = [(s.name, s.combine, self._term(s.term), s.dtype, s.result) for s in kernel.stages]
        outputs = [(self._term(o.term), o.place, o.per_element, o.buffer.shape, o.buffer.dtype) for o in kernel.outputs]
        written = [self._buffer(o.buffer.name) for o in kernel.outputs]
        self.key = (
            kernel.rows, kernel.columns, tuple(self._parts), tuple(stages), tuple(outputs), tuple(written)
        )  # fmt: skip

    def _buffer(self, name: str) -> int:
        return self.buffers.setdefault(name, len(self.buffers))

    def _term(self, term: Term) -> int:
        """The number of a term; each object is described once."""
        known = self._nodes.get(id(term))
        if known is not None:
            return known
        part: Any
        match term:
            case Load():
                part = ("load", self._buffer(term.buffer), term.place, term.dtype)
            case Number():
                part = ("number", attribute_key(term.value), term.dtype)
            case Index():
                part = ("index", term.x, term.dtype)
            case Total():
                part = ("total", term.name, term.dtype)
            case Choose():
                part = (term.conditions, self._term(term.inside), self._term(term.outside), term.dtype)
            case Apply():
                operands = tuple(map(self._term, term.operands))
                part = (term.primitive, operands, tuple((n, attribute_key(v)) for n, v in term.attrs), term.dtype)
        self._parts.append(part)
        self._nodes[id(term)] = len(self._parts) - 1
        return len(self._parts) - 1
