"""What a program is, told before it runs: the kernels in their order, the memory that they use and when, the passes.

    Program, Table → kernels_of, memory_of → Explanation, whose text is a report

Nothing is run. Times are estimates: the larger of operations ÷ the machine's rate and bytes ÷ the rate of its memory
(of its caches, if the arrays are small), each array counted once. A kernel can be faster where larger arrays are still
in a cache; one that is not well made is slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from highlevel.errors import size_text
from highlevel.ir import Graph, Spec

from .assemble import Table
from .devices import sequencer as op
from .lower.task import Task
from .passes import PassReport
from .program import Branch, Loop, Program, Step, While, size_bytes
from .schedule.kernel import Buffer

SHOWN = 8  # of the largest values
CACHED_BYTES = 2 << 20  # what a kernel touches in all, to be found in a cache
WIDTHS = {"kernel": 26, "layers": 34, "from": 28, "reads → writes": 60}


# Records -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine was seen to do with all threads: products of matrices, bytes from memory and from caches."""

    threads: int
    flops_per_s: float
    bytes_per_s: float
    cached_bytes_per_s: float

    def estimate_ms(self, flops: int, bytes_moved: int, alone: bool) -> float:
        """The time that so much work takes at the least. Small arrays are taken to be in a cache."""
        cached = bytes_moved <= CACHED_BYTES
        bytes_per_s = max(self.cached_bytes_per_s, self.bytes_per_s) if cached else self.bytes_per_s
        share = 1 / self.threads if alone else 1.0
        return 1e3 * max(flops / self.flops_per_s / share, bytes_moved / bytes_per_s / (share if cached else 1.0))

    def __str__(self) -> str:
        return (
            f"{self.threads} threads with {self.flops_per_s / 1e9:.0f} GFLOP/s, {self.bytes_per_s / 1e9:.0f} GB/s from "
            f"memory, {self.cached_bytes_per_s / 1e9:.0f} GB/s from caches"
        )


@dataclass(frozen=True, slots=True)
class Array:
    """A buffer that a kernel reads or writes."""

    name: str
    spec: Spec

    def __str__(self) -> str:
        short = self.spec.dtype.name.replace("float", "f").replace("uint", "u").replace("int", "i")
        return f"{short}[{', '.join(map(str, self.spec.shape))}]"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A task of the program.

    step:     which step of the program it is in: its own, or the loop or branch that it is part of
    within:   the loops and branches around it, from the outside
    times:    how often a run of the program carries it out; in a `while_loop`, which ends when it ends, counted once
    layers:   paths of the layers that it computes for; source: the line of code that made its (first) result
    flops, bytes_moved, estimate_ms: of all times together
    phases:   calls between which all threads meet; serial: too small to share, so that one thread does it
    in_place: it writes over what it reads; barrier: all threads meet before it
    """

    number: int
    name: str
    step: int
    within: tuple[str, ...]
    times: int
    layers: tuple[str, ...]
    source: str
    reads: tuple[Array, ...]
    writes: tuple[Array, ...]
    flops: int
    bytes_moved: int
    estimate_ms: float
    phases: int
    serial: bool
    in_place: bool
    barrier: bool

    @property
    def where(self) -> str:
        """The layers, shortened."""
        return ", ".join(self.layers[:2]) + (f" … ({len(self.layers)})" if len(self.layers) > 2 else "")


@dataclass(frozen=True, slots=True)
class Held:
    """A value in the arena from step `first`, which writes it, to step `last`; what it is, and of which layers."""

    name: str
    what: str
    size_bytes: int
    offset: int
    first: int
    last: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """What a run needs.

    arena_bytes:    memory for all values in between; bound_bytes: no arena could be smaller in this order of steps
    peak_step:      where most is alive
    values:         all that lies in the arena, largest first
    kept_bytes:     what is computed from weights once and kept between runs, such as weights in another order
    input_bytes, output_bytes, variable_bytes, constant_bytes: what lies elsewhere
    """

    arena_bytes: int
    bound_bytes: int
    peak_step: int
    values: tuple[Held, ...]
    kept_bytes: int
    input_bytes: int
    output_bytes: int
    variable_bytes: int
    constant_bytes: int

    @property
    def total_bytes(self) -> int:
        handed_over = self.input_bytes + self.output_bytes + self.variable_bytes + self.constant_bytes
        return self.arena_bytes + self.kept_bytes + handed_over

    @property
    def at_peak(self) -> tuple[Held, ...]:
        """What is alive at the peak, largest first."""
        return tuple(value for value in self.values if value.first <= self.peak_step <= value.last)


@dataclass(frozen=True, slots=True)
class Compilation:
    """Different pieces of machine code, and where they were found: in memory, on disk, or nowhere, hence compiled."""

    kernels: int
    in_memory: int
    on_disk: int
    compiled: int
    elapsed_ms: float

    def __str__(self) -> str:
        found = f"{self.in_memory} known, {self.on_disk} from disk, {self.compiled} compiled"
        return f"{self.kernels} pieces of machine code: {found} ({self.elapsed_ms:.0f} ms)"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a program consists of; as text, a report.

    once: kernels that run when weights have changed, before the others; what they compute is kept
    """

    machine: Machine
    nodes_traced: int
    passes: tuple[PassReport, ...]
    kernels: tuple[Kernel, ...]
    once: tuple[Kernel, ...]
    barriers: int
    memory: MemoryMap
    compilation: Compilation

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def bytes_moved(self) -> int:
        return sum(kernel.bytes_moved for kernel in self.kernels)

    @property
    def estimate_ms(self) -> float:
        return sum(kernel.estimate_ms for kernel in self.kernels)

    def __str__(self) -> str:
        return format_explanation(self)

    __repr__ = __str__


# From a program to records -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Place:
    """A task, and where in the program it is."""

    task: Task
    program: Program
    step: int
    within: tuple[str, ...]
    times: int


def _places(program: Program, outer: _Place | None = None) -> Iterator[_Place]:
    """All tasks in the order in which they are carried out."""
    for i, step in enumerate(program.steps):
        number, within, times = (outer.step, outer.within, outer.times) if outer else (i, (), 1)
        inner = (*within, _title(step))
        tasks: tuple[Task, ...] = (step,) if isinstance(step, Task) else getattr(step, "prologue", ())
        for task in tasks:
            yield _Place(task, program, number, within, times)
        bodies: tuple[tuple[Program, int], ...] = ()
        match step:
            case Loop():
                bodies = ((step.body, step.length),)
            case While():
                bodies = () if step.max_steps == 0 else ((step.test, 1), (step.body, 1))
            case Branch():
                bodies = ((step.then, 1), (step.otherwise, 1))
        for body, count in bodies:
            if count:
                around = _Place(Task("", (), (), ()), program, number, inner, times * count)
                yield from _places(body, around)


def _title(step: Step) -> str:
    return f"{step.name} × {step.length}" if isinstance(step, Loop) and step.length != 1 else step.name


def kernels_of(program: Program, table: Table, machine: Machine) -> tuple[list[Kernel], dict[int, int]]:
    """The kernels of a program, and the number of each by the identity of its task."""
    meet = _after_barriers(table)
    kernels: list[Kernel] = []
    numbers: dict[int, int] = {}
    for place in _places(program):
        task = place.task
        if id(task) in numbers or not task.phases:
            continue
        numbers[id(task)] = len(kernels)
        kernels.append(_kernel(place, len(kernels), machine, id(task) in meet))
    return kernels, numbers


def _kernel(place: _Place, number: int, machine: Machine, barrier: bool) -> Kernel:
    task, program, times = place.task, place.program, place.times
    reads, writes = ([program.buffers[name] for name in names] for names in (task.reads, task.writes))
    flops, moved = times * task.flops, times * sum(map(size_bytes, (*reads, *writes)))
    serial = all(call.serial for call in task.phases)
    made = {name: program.sources[name] for name in task.writes if name in program.sources}
    lines = [f"{origin.file}:{origin.line}" for _, origin in made.values() if origin.file]
    name = task.name
    if name in task.writes:  # a loop kernel is called after its first result: what computes its results says more
        name = " + ".join(dict.fromkeys(operator for operator, _ in made.values())) or name
    return Kernel(
        number=number,
        name=name,
        step=place.step,
        within=place.within,
        times=times,
        layers=tuple(layer for layer in task.origins if layer),
        source=lines[0] if lines else "",
        reads=tuple(map(_array, reads)),
        writes=tuple(map(_array, writes)),
        flops=flops,
        bytes_moved=moved,
        estimate_ms=machine.estimate_ms(flops, moved, serial),
        phases=len(task.phases),
        serial=serial,
        in_place=_writes_over(program, task),
        barrier=barrier,
    )


def _array(buffer: Buffer) -> Array:
    return Array(buffer.name, Spec(buffer.shape, buffer.dtype))


def _writes_over(program: Program, task: Task) -> bool:
    """Whether a task writes where it reads: in the arena, or to a variable."""
    offsets = program.memory.offsets
    for written in task.writes:
        if program.donated.get(written) in task.reads:
            return True
        place = offsets.get(written)
        if place is not None and any(offsets.get(read) == place for read in task.reads):
            return True
    return False


def _rows(table: Table) -> Iterator[tuple[int, int]]:
    """(operation, number) of all rows."""
    at = 0
    while at < len(table.words):
        yield table.words[at], table.words[at + 2]
        at += table.words[at + 1]


def _after_barriers(table: Table) -> set[int]:
    """The tasks (by identity) before whose first call all threads meet."""
    found, met, seen = set(), False, set()
    for operation, number in _rows(table):
        if operation == op.BARRIER:
            met = True
        elif operation == op.CALL:
            task = id(table.calls[number][0])
            if met and task not in seen:
                found.add(task)
            seen.add(task)
            met = False
    return found


def barriers_of(table: Table) -> int:
    """How often all threads meet, rows in loops counted once."""
    return sum(operation == op.BARRIER for operation, _ in _rows(table))


def memory_of(graph: Graph, program: Program, nthreads: int) -> MemoryMap:
    """The memory of a program: what it is handed, and what lies in its arena."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    layers: dict[str, tuple[str, ...]] = {}
    what: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for i, step in enumerate(program.steps):
        for name in (*step.writes, *step.reads):
            last[name] = i
        for name in step.writes:
            first[name] = i
            layers[name] = step.origins
            what[name] = str(_array(program.buffers[name]))
            sizes[name] = size_bytes(program.buffers[name])
        if work := step.workspace_bytes(nthreads):
            name = f"work{i}"
            first[name] = last[name] = i
            layers[name], what[name], sizes[name] = step.origins, f"workspace of {step.name}", work
    offsets = program.memory.offsets
    held = [
        Held(name, what[name], sizes[name], offsets[name], first[name], last[name], tuple(filter(None, layers[name])))
        for name in offsets
        if name in first and sizes[name]
    ]
    held.sort(key=lambda value: (-value.size_bytes, value.first, value.name))
    variables = {id(v): v.spec.size_bytes for v, _ in graph.updates}
    variables |= {id(leaf.value): leaf.value.spec.size_bytes for leaf in program.leaves if leaf.kind == "variable"}
    before = program.setup.memory.size_bytes if program.setup is not None else 0
    return MemoryMap(
        arena_bytes=max(program.memory.size_bytes, before),
        bound_bytes=program.memory.bound_bytes,
        peak_step=_peak(held),
        values=tuple(held),
        kept_bytes=sum(size_bytes(program.buffers[name]) for name in program.kept),
        input_bytes=sum(symbol.spec.size_bytes for symbol in graph.inputs),
        output_bytes=sum(symbol.spec.size_bytes for symbol in graph.outputs),
        variable_bytes=sum(variables.values()),
        constant_bytes=sum(leaf.value.spec.size_bytes for leaf in program.leaves if leaf.kind != "variable"),
    )


def _peak(held: Sequence[Held]) -> int:
    """The step at which most is alive; a value written over one that dies there counts from the next step on."""
    ends = {(value.offset, value.last) for value in held if value.last > value.first}
    changes: dict[int, int] = {}
    for value in held:
        over_another = value.last > value.first and (value.offset, value.first) in ends
        for step, size in ((value.first + over_another, value.size_bytes), (value.last + 1, -value.size_bytes)):
            changes[step] = changes.get(step, 0) + size
    alive, most, peak = 0, 0, 0
    for step in sorted(changes):
        alive += changes[step]
        if alive > most:
            most, peak = alive, step
    return peak


# Text ----------------------------------------------------------------------------------------------------------------
def format_table(columns: Mapping[str, str], rows: Sequence[Sequence[str]], widths: Mapping[str, int] = WIDTHS) -> str:
    """Lines of a table; columns are names with "<" or ">" for the side on which they are flush."""
    names = list(columns)
    cut = [[_cut(cell, widths.get(name, 200)) for name, cell in zip(names, row, strict=True)] for row in rows]
    wide = [max(len(row[i]) for row in [names, *cut]) for i in range(len(names))]
    lines = []
    for row in [names, *cut]:
        cells = [f"{cell:{columns[name]}{width}}" for cell, name, width in zip(row, names, wide, strict=True)]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def count_text(number: float) -> str:
    """A number of operations for people."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f} "


def short_source(source: str) -> str:
    """The file's own name, and the line."""
    return source.replace("\\", "/").rpartition("/")[2]


def format_explanation(found: Explanation) -> str:
    """The report."""
    memory, parts = found.memory, []
    last = found.passes[-1].nodes_after if found.passes else found.nodes_traced
    elapsed = sum(row.elapsed_ms for row in found.passes)
    parts.append(f"Graph: {found.nodes_traced} nodes, {last} after passes ({elapsed:.1f} ms)")
    rows = [[row.name, f"{row.nodes_before} → {row.nodes_after}", f"{row.elapsed_ms:.1f}"] for row in found.passes]
    parts.append(format_table({"pass": "<", "nodes": ">", "ms": ">"}, rows))
    parts.append(
        f"Kernels: {len(found.kernels)}, {found.barriers} barriers; {count_text(found.flops)}FLOP, "
        f"{size_text(found.bytes_moved)} moved; at the least {found.estimate_ms:.3g} ms on {found.machine}"
    )
    parts.append(_kernel_table(found.kernels))
    if found.once:
        estimate = sum(kernel.estimate_ms for kernel in found.once)
        parts.append(f"Before that, once for given weights: {len(found.once)} kernels, at the least {estimate:.3g} ms")
        parts.append(_kernel_table(found.once))
    parts.append(_memory_text(memory))
    parts.append(f"Compilation: {found.compilation}")
    return "\n\n".join(parts)


def _kernel_table(kernels: Sequence[Kernel]) -> str:
    columns = {
        "#": ">", "kernel": "<", "layers": "<", "from": "<", "reads → writes": "<", "FLOP": ">", "bytes": ">",
        "est. µs": ">", "how": "<",
    }  # fmt: skip
    rows = []
    for kernel in kernels:
        notes = {"serial": kernel.serial, "in place": kernel.in_place, "| before": kernel.barrier}
        how = [text for text, holds in notes.items() if holds] + list(kernel.within)
        if kernel.phases > 1:
            how.append(f"{kernel.phases} phases")
        arrays = f"{', '.join(map(str, kernel.reads))} → {', '.join(map(str, kernel.writes))}"
        rows.append([
            str(kernel.number), kernel.name, kernel.where, short_source(kernel.source), arrays,
            count_text(kernel.flops), size_text(kernel.bytes_moved), f"{1e3 * kernel.estimate_ms:.3g}", ", ".join(how),
        ])  # fmt: skip
    return format_table(columns, rows)


def _memory_text(memory: MemoryMap) -> str:
    above = memory.arena_bytes / memory.bound_bytes - 1 if memory.bound_bytes else 0.0
    sizes = {
        "kept between runs": memory.kept_bytes, "variables": memory.variable_bytes,
        "constants": memory.constant_bytes, "inputs": memory.input_bytes, "outputs": memory.output_bytes,
    }  # fmt: skip
    others = ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items())
    head = (
        f"Memory: {size_text(memory.total_bytes)}: arena {size_text(memory.arena_bytes)} "
        f"({above:.1%} above the least), {others}"
    )
    if not memory.values:
        return head
    peak = set(memory.at_peak)
    rows = [
        [
            value.what, size_text(value.size_bytes), f"{value.first}–{value.last}", f"{value.offset:,}",
            "yes" if value in peak else "", ", ".join(value.layers[:2]),
        ]
        for value in memory.values[:SHOWN]
    ]  # fmt: skip
    columns = {"largest values": "<", "size": ">", "steps": "<", "offset": ">", "at peak": "<", "layers": "<"}
    text = f"{head}\nMost is alive at step {memory.peak_step}: {len(peak)} values."
    return f"{text}\n{format_table(columns, rows)}"
