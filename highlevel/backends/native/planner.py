"""From a graph to a program: what is computed by which step, in which order, and where everything lies.

    Graph ─plan_fusion→ kernels, contractions ─lower→ tasks ─order→ steps ─plan_memory→ Program

A result may be *donated* the memory of an input: a variable that is updated, the carry of a loop. Its writer then comes
after all readers of the old value, or – where it cannot – writes elsewhere, and the value is copied at the end.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from highlevel.ir import Graph, Node, Symbol, as_dtype
from highlevel.ir.graph import Leaf, key_of

from .codegen import indexing as ix
from .codegen.targets import Target
from .lower import contraction_task, loop_task, lower, pack_task, packed_operand, packed_size_bytes, supports_epilogue
from .lower.task import Task
from .program import Branch, Loop, Program, Step, While, size_bytes
from .schedule.contraction import Contraction, View
from .schedule.fuse import is_loop, plan_fusion
from .schedule.kernel import Apply, Buffer, Load, LoopKernel, Output, Term, Total
from .schedule.memory import MemoryPlan, Value, plan_memory
from .schedule.order import Task as Ordered
from .schedule.order import plan_order


def plan_program(
    graph: Graph,
    target: Target,
    nthreads: int,
    donated: Mapping[int, int] | None = None,
    fixed: Collection[int] = (),
) -> Program:
    """The program of a graph (that has been through the passes).

    donated: results (by position) that get the memory of an input (by position, leaves counted after inputs)
    fixed:   inputs, by position, that stay the same from run to run
    """
    return _Planner(graph, target, nthreads, donated or {}, fixed).plan()


def leaves_of(graph: Graph) -> list[tuple[Symbol, Leaf]]:
    """The constants and variables that a graph uses, in order of creation."""
    return [(n.outputs[0], n.leaf) for n in graph.nodes() if n.leaf is not None and n.leaf.kind != "input"]


@dataclass
class _Planner:
    """The state of planning one graph."""

    graph: Graph
    target: Target
    nthreads: int
    donated: Mapping[int, int]
    fixed: Collection[int]
    buffers: dict[str, Buffer] = field(default_factory=dict)
    steps: list[tuple[int, Step]] = field(default_factory=list)  # with a position: that of the node
    _numbers: Any = field(default_factory=itertools.count)

    def plan(self) -> Program:
        self.fusion = plan_fusion(self.graph)
        self.buffers.update({buffer.name: buffer for buffer in self.fusion.buffers.values()})
        leaves = leaves_of(self.graph)
        self.inputs = tuple(self._input(symbol) for symbol in (*self.graph.inputs, *(symbol for symbol, _ in leaves)))
        self.fixed_buffers = self._fixed_buffers()
        self._lower()
        lowered = len(self.steps)
        for direct in (True, False):  # the second time if results over their inputs made steps wait for each other
            del self.steps[lowered:]
            results, after = self._results(direct)
            steps = self._in_order(after)
            if steps is not None:
                break
        assert steps is not None, "steps that wait for each other"
        donated = {results[r]: self.inputs[i] for r, i in self.donated.items()}
        origins = {node.id: (node.name, node.origin) for node in self.graph.nodes()}
        sources = {buffer.name: origins[key[0]] for key, buffer in self.fusion.buffers.items()}
        leaves_only = tuple(leaf for _, leaf in leaves)
        setup, kept, steps = self._apart(steps, results)
        before = plan_arena(setup, self.buffers, {*self.inputs, *kept}, self.nthreads)
        memory = plan_arena(steps, self.buffers, {*self.inputs, *results, *kept}, self.nthreads)
        whole = Program(self.inputs, leaves_only, results, donated, self.buffers, tuple(steps), memory, sources)
        if not setup:
            return whole
        first = replace(whole, results=kept, donated={}, steps=tuple(setup), memory=before)
        return replace(whole, kept=kept, setup=first)

    def _fixed_buffers(self) -> set[str]:
        """Buffers of what depends on fixed leaves alone."""
        leaves = {self.inputs[position] for position in self.fixed}
        keys = {key for key, buffer in self.fusion.buffers.items() if buffer.name in leaves}
        for node in self.graph.nodes() if keys else ():
            if node.primitive is not None and node.inputs and all(key_of(symbol) in keys for symbol in node.inputs):
                keys.update(map(key_of, node.outputs))
        return {self.fusion.buffers[key].name for key in keys if key in self.fusion.buffers}

    def _apart(
        self, steps: Sequence[Step], results: Sequence[str]
    ) -> tuple[list[Step], tuple[str, ...], list[Step]]:
        """The steps that depend on fixed leaves alone, those of their results that others read, and the others."""
        fixed = {self.inputs[position] for position in self.fixed}
        setup: list[Step] = []
        rest: list[Step] = []
        for step in steps:
            alone = isinstance(step, Task) and not step.callback and step.reads and fixed.issuperset(step.reads)
            if alone and not set(results) & set(step.writes):
                setup.append(step)
                fixed.update(step.writes)
            else:
                rest.append(step)
        written = [name for step in setup for name in step.writes]
        used = {name for step in rest for name in step.reads}
        return setup, tuple(name for name in written if name in used), rest

    def _input(self, symbol: Symbol) -> str:
        buffer = self.fusion.buffers.get(key_of(symbol))
        if buffer is None:  # nobody reads it
            buffer = self._new_buffer("unused", symbol.spec)
        return buffer.name

    def _new_buffer(self, kind: str, like: Any) -> Buffer:
        buffer = Buffer(f"{kind}{next(self._numbers)}", tuple(like.shape), like.dtype)
        self.buffers[buffer.name] = buffer
        return buffer

    def name_of(self, symbol: Symbol) -> str:
        """The buffer that holds a symbol, aliases followed."""
        name = self.fusion.buffers[key_of(symbol)].name
        return self.fusion.aliases.get(name, name)

    # Steps -----------------------------------------------------------------------------------------------------------
    def _lower(self) -> None:
        fusion = self.fusion
        nodes = self.graph.nodes()
        used = {key_of(s) for node in nodes for s in node.inputs} | {key_of(s) for s in self.graph.results}
        positions = {fusion.buffers[key].name: key[0] for key in fusion.buffers}
        dtypes = {name: buffer.dtype for name, buffer in self.buffers.items()}
        for kernel in fusion.kernels:
            if any(size_bytes(output.buffer) for output in kernel.outputs):
                position = max(positions[name] for name in kernel.writes)
                self.steps.append((position, loop_task(kernel, dtypes, self.target)))
        for node in nodes:
            if node.primitive is None or is_loop(node):
                continue
            contraction = fusion.contractions.get(node.id)
            if contraction is not None:
                if size_bytes(contraction.result.buffer):
                    position = positions[contraction.result.buffer.name]
                    self.steps += [(position, task) for task in self._contraction(contraction)]
                continue
            # A view has the shape that the node sees, in the memory of what it is a view of.
            reads = [replace(self.buffers[self.name_of(s)], shape=s.shape) for s in node.inputs]
            writes = [fusion.buffers[key_of(s)] if key_of(s) in used else None for s in node.outputs]
            if not any(buffer is not None and size_bytes(buffer) for buffer in writes):
                continue
            self.steps.append((node.id, self._step(node, reads, writes)))

    def _step(self, node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> Step:
        match node.name:
            case "scan":
                return self._loop(node, reads, writes)
            case "while_loop":
                return self._while(node, reads, writes)
            case "cond":
                return self._branch(node, reads, writes)
            case "call":
                return self._call(node, reads, writes)
        pairs = zip(writes, node.specs, strict=True)
        spare = [self._new_buffer("spare", spec) if buffer is None else buffer for buffer, spec in pairs]
        return lower(node, reads, spare, self.target)

    def _contraction(self, c: Contraction) -> list[Task]:
        """A contraction; where its code cannot do what is done to its result, that is a kernel of its own."""
        if supports_epilogue(c):
            packs = packed_operand(c)
            if packs is None or c.operands[packs].buffer.name not in self.fixed_buffers:
                return [contraction_task(c, self.target)]
            packed = Buffer(f"packed{next(self._numbers)}", (packed_size_bytes(c, self.target),), as_dtype("uint8"))
            self.buffers[packed.name] = packed
            return [pack_task(c, self.target, packed.name), contraction_task(c, self.target, packed.name)]
        assert c.epilogue is not None
        raw = self._new_buffer("product", c.node.specs[0])
        axes = tuple((f"i{axis}", size) for axis, size in enumerate(raw.shape))
        at = tuple(ix.var(name, size) for name, size in axes)
        places = (ix.mul(x, step) for x, step in zip(at, c.result.strides, strict=True))
        goal = ix.add(*places, ix.const(c.result.offset))
        term = _with_product(c.epilogue, Load(raw.name, ix.ravel(at, raw.shape), raw.dtype))
        kernel = LoopKernel(c.node.name, axes, (), (), (Output(c.result.buffer, goal, term, True),), c.origins)
        dtypes = {name: buffer.dtype for name, buffer in self.buffers.items()}
        plain = replace(c, result=View.whole(raw), epilogue=None)
        return [contraction_task(plain, self.target), loop_task(kernel, dtypes, self.target)]

    def copy(self, source: Buffer, goal: Buffer) -> Task:
        """A task that copies a buffer; shapes may differ, the elements are the same."""
        size = math.prod(goal.shape)
        i = ix.var("i", size)
        rows = (("i", size),)
        kernel = LoopKernel("copy", rows, (), (), (Output(goal, i, Load(source.name, i, source.dtype), True),))
        return loop_task(kernel, {source.name: source.dtype, goal.name: goal.dtype}, self.target)

    # Loops and branches ----------------------------------------------------------------------------------------------
    def _carry(self, starts: Sequence[Buffer], writes: Sequence[Buffer | None]) -> tuple[list[Buffer], list[Task]]:
        """Where a carry lies during a loop, and the copies that bring its first value there."""
        ends = [self._new_buffer("spare", start) if w is None else w for start, w in zip(starts, writes, strict=True)]
        return ends, [self.copy(a, b) for a, b in zip(starts, ends, strict=True) if size_bytes(b)]

    def _loop(self, node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> Loop:
        attrs, body = node.attrs, node.attrs["body"]
        n, m = attrs["constants"], attrs["constants"] + attrs["carries"]
        carries = attrs["carries"]
        ends, prologue = self._carry(reads[n:m], writes[:carries])
        kept = [i for i, buffer in enumerate(writes[carries:]) if buffer is not None]
        graph = Graph(body.inputs, (*body.outputs[:carries], *(body.outputs[carries + i] for i in kept)))
        donated = {i: n + i for i in range(carries)}
        stacks = tuple(buffer.name for buffer in writes[carries:] if buffer is not None)
        return Loop(
            name="scan",
            body=plan_program(graph, self.target, self.nthreads, donated),
            length=attrs["length"],
            reverse=attrs["reverse"],
            prologue=tuple(prologue),
            constants=tuple(buffer.name for buffer in reads[:n]),
            ends=tuple(buffer.name for buffer in ends),
            sequences=tuple(buffer.name for buffer in reads[m:]),
            stacks=stacks,
            reads=tuple(dict.fromkeys(buffer.name for buffer in reads)),
            writes=(*(buffer.name for buffer in ends), *stacks),
            in_place=self._in_place(reads[n:m], ends, reads),
            origins=_origins(node),
        )

    def _call(self, node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> Loop:
        """A function that stays one (`checkpoint`): a loop that runs once and carries nothing."""
        kept = [i for i, buffer in enumerate(writes) if buffer is not None]
        body = Graph(node.attrs["body"].inputs, tuple(node.attrs["body"].outputs[i] for i in kept))
        names = tuple(buffer.name for buffer in reads)
        written = tuple(buffer.name for buffer in writes if buffer is not None)
        program = plan_program(body, self.target, self.nthreads)
        name = str(node.attrs["name"])
        return Loop(name, program, 1, False, (), names, (), (), written, names, written, origins=_origins(node))

    def _while(self, node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> While:
        test, body, n = node.attrs["condition"], node.attrs["body"], node.attrs["constants"]
        ends, prologue = self._carry(reads[n:], writes)
        return While(
            name="while_loop",
            test=plan_program(test, self.target, self.nthreads),
            body=plan_program(body, self.target, self.nthreads, {i: n + i for i in range(len(writes))}),
            max_steps=node.attrs["max_steps"],
            prologue=tuple(prologue),
            constants=tuple(buffer.name for buffer in reads[:n]),
            ends=tuple(buffer.name for buffer in ends),
            reads=tuple(dict.fromkeys(buffer.name for buffer in reads)),
            writes=tuple(buffer.name for buffer in ends),
            in_place=self._in_place(reads[n:], ends, reads),
            origins=_origins(node),
        )

    def _in_place(
        self, starts: Sequence[Buffer], ends: Sequence[Buffer], reads: Sequence[Buffer]
    ) -> tuple[tuple[str, str], ...]:
        """Carries that may begin where they end: those that the loop reads as nothing else."""
        names = [buffer.name for buffer in reads]
        return tuple((b.name, a.name) for a, b in zip(starts, ends, strict=True) if names.count(a.name) == 1)

    def _branch(self, node: Node, reads: Sequence[Buffer], writes: Sequence[Buffer | None]) -> Branch:
        kept = [i for i, buffer in enumerate(writes) if buffer is not None]
        then, otherwise = (
            Graph(graph.inputs, tuple(graph.outputs[i] for i in kept))
            for graph in (node.attrs["then"], node.attrs["otherwise"])
        )
        return Branch(
            name="cond",
            predicate=reads[0].name,
            then=plan_program(then, self.target, self.nthreads),
            otherwise=plan_program(otherwise, self.target, self.nthreads),
            operands=tuple(buffer.name for buffer in reads[1:]),
            reads=tuple(dict.fromkeys(buffer.name for buffer in reads)),
            writes=tuple(buffer.name for buffer in writes if buffer is not None),
            origins=_origins(node),
        )

    # Results ---------------------------------------------------------------------------------------------------------
    def _results(self, over_inputs: bool) -> tuple[tuple[str, ...], dict[int, set[int]]]:
        """The buffer of each result, with the copies that this takes, and which steps must follow which.

        over_inputs: whether steps may write donated results over their inputs, rather than elsewhere to be copied
        """
        writers = {name: i for i, (_, step) in enumerate(self.steps) for name in step.writes}
        readers: dict[str, set[int]] = {}
        for i, (_, step) in enumerate(self.steps):
            for name in step.reads:
                readers.setdefault(name, set()).add(i)
        fallible = {i for i, (_, step) in enumerate(self.steps) if isinstance(step, Task) and step.callback}
        ancestors = self._ancestors(writers) if over_inputs and self.donated else []
        results: list[str] = []
        after: dict[int, set[int]] = {}
        late: list[tuple[Task, str | None]] = []  # copies at the end, and the input over which they write
        last = max((position for position, _ in self.steps), default=0)
        for place, symbol in enumerate(self.graph.results):
            name = self.name_of(symbol)
            old = self.inputs[self.donated[place]] if place in self.donated else None
            empty = not size_bytes(self.buffers[name])
            direct = (name in writers or empty) and name not in results and name not in self.inputs
            if direct and old is not None and name in writers:
                before = readers.get(old, set()) | fallible
                direct = over_inputs and self._may_overwrite(writers[name], name, old, before, ancestors)
                if direct:
                    after.setdefault(writers[name], set()).update(before - {writers[name]})
            if direct or (old == name):
                results.append(name)
                continue
            goal = self._new_buffer("result", self.buffers[name])
            source = self.buffers[name]
            if name in self.inputs and self.donated:  # it may be overwritten before the end
                source = self._new_buffer("kept", source)
                readers.setdefault(name, set()).add(len(self.steps))
                self.steps.append((0, self.copy(self.buffers[name], source)))
            late.append((self.copy(source, goal), old))
            results.append(goal.name)
        for task, old in late:
            if size_bytes(self.buffers[task.writes[0]]):
                if old is not None:
                    after[len(self.steps)] = readers.get(old, set()) | fallible
                self.steps.append((last + 1, task))
        return tuple(results), after

    def _ancestors(self, writers: Mapping[str, int]) -> list[int]:
        """For each step, those that it needs, directly or not, as bits of a number."""
        found = [0] * len(self.steps)
        for i in _topological(self.steps, {}) or ():
            for name in self.steps[i][1].reads:
                j = writers.get(name, i)
                found[i] |= found[j] | 1 << j if j != i else 0
        return found

    def _may_overwrite(self, writer: int, name: str, old: str, before: set[int], ancestors: Sequence[int]) -> bool:
        """Whether a step can write its result over the old value: none that comes before needs it, and it reads
        the old value at most element by element."""
        step = self.steps[writer][1]
        if old in step.reads and (name, old) not in step.in_place:
            return False
        known = [i for i in before if i < len(ancestors) and i != writer]  # copies of inputs, added since, need nothing
        return not any(ancestors[i] >> writer & 1 for i in known)

    # Order and memory ------------------------------------------------------------------------------------------------
    def _in_order(self, after: Mapping[int, set[int]]) -> list[Step] | None:
        """The steps in an order that can run and keeps little alive; None if there is none."""
        order = _topological(self.steps, after)
        if order is None:
            return None
        steps = [self.steps[i][1] for i in order]
        place = {old: new for new, old in enumerate(order)}
        tasks = [
            Ordered(str(i), step.reads, step.writes, tuple(sorted(place[j] for j in after.get(old, ()))))
            for i, (old, step) in enumerate(zip(order, steps, strict=True))
        ]
        external = {*self.inputs}
        sizes = {name: 0 if name in external else size_bytes(buffer) for name, buffer in self.buffers.items()}
        return [steps[i] for i in plan_order(tasks, sizes)]


def plan_arena(
    steps: Sequence[Step], buffers: Mapping[str, Buffer], external: Collection[str], nthreads: int
) -> MemoryPlan:
    """Places for all buffers that steps write, but for external ones, and for workspaces."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    inside: dict[str, str] = {}
    values = []
    for i, step in enumerate(steps):
        for name in step.writes:
            starts[name] = ends[name] = i
        for name in step.reads:
            ends[name] = i
    for i, step in enumerate(steps):
        taken: set[str] = set()
        for written, read in step.in_place:
            host = read in starts and read not in external and ends[read] == i and read not in taken
            if host and written not in inside and written not in external:
                inside[written] = read
                taken.add(read)
        if work := step.workspace_bytes(nthreads):
            values.append(Value(f"work{i}", work, i, i))
    for name, start in starts.items():
        if name not in external:
            values.append(Value(name, size_bytes(buffers[name]), start, ends[name], inside.get(name)))
    return plan_memory(values)


def _with_product(term: Term, value: Term) -> Term:
    """An epilogue with a term in the place of the contraction's value."""
    match term:
        case Total():
            return value
        case Apply():
            return replace(term, operands=tuple(_with_product(operand, value) for operand in term.operands))
    return term


def _origins(node: Node) -> tuple[str, ...]:
    return (node.origin.layer,) if node.origin.layer else ()


def _topological(steps: Sequence[tuple[int, Step]], after: Mapping[int, set[int]]) -> list[int] | None:
    """An order in which every step comes after what it reads was written; by position where there is a choice.

    None if steps wait for each other.
    """
    writers = {name: i for i, (_, step) in enumerate(steps) for name in step.writes}
    needs = [
        {writers[name] for name in step.reads if name in writers} - {i} | after.get(i, set())
        for i, (_, step) in enumerate(steps)
    ]
    waiting = [len(found) for found in needs]
    unlocks: dict[int, list[int]] = {}
    for i, found in enumerate(needs):
        for j in found:
            unlocks.setdefault(j, []).append(i)
    ready = [(steps[i][0], i) for i, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, i = heapq.heappop(ready)
        order.append(i)
        for j in unlocks.get(i, ()):
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(ready, (steps[j][0], j))
    return order if len(order) == len(steps) else None
