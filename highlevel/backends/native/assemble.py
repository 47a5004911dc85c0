"""From a program to the table that a step carries out: calls with addresses, and barriers where they are needed.

A barrier stands where a call needs what another thread may still be writing, or writes what another may still be
reading: calls that touch nothing in common run beside each other. Small calls are made by thread 0 alone, and need no
barriers among themselves. What rows are, see `devices/sequencer.py`.

Bases are numbered: 0 is the arena, then come the program's inputs, its results, what is kept between runs, and
functions that it calls back; after those, for each loop, the pointers that move with it and its counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .cache import Unit
from .devices import sequencer as op
from .lower.task import Argument, Call, Task
from .program import FLAG_BYTES, Branch, Loop, Program, Step, While, size_bytes

SPECIAL = {
    Argument.BEGIN: op.BASE_BEGIN,
    Argument.END: op.BASE_END,
    Argument.TID: op.BASE_TID,
    Argument.THREADS: op.BASE_THREADS,
}


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a program as words.

    words:     all rows; where `functions` says so – (place, symbol) – a function's address belongs
    given:     how many bases are given: the arena, inputs, results, what is kept, callbacks
    needed:    how many words each thread needs
    calls:     the task that each numbered call belongs to, for profiles
    alone:     thread 0 makes all calls: no other needs to be woken
    """

    words: list[int]
    functions: list[tuple[int, str]]
    given: int
    needed: int
    calls: list[tuple[Task, Call]]
    alone: bool


def callbacks(program: Program) -> list[Task]:
    """Tasks that call back."""
    return [task for task in program.tasks() if task.callback is not None]


def units_of(program: Program) -> list[Unit]:
    """All that has to be compiled: each once."""
    units: dict[str, Unit] = {}
    for task in (*program.tasks(), *(program.setup.tasks() if program.setup else ())):
        for unit in (*(call.unit for call in task.phases), *task.helpers):
            units.setdefault(unit.key, unit)
    return list(units.values())


def assemble(program: Program, nthreads: int) -> Table:
    """The table of a program that at most so many threads run."""
    foreign = callbacks(program)
    given = 1 + len(program.inputs) + len(program.results) + len(program.kept) + len(foreign)
    first_result = 1 + len(program.inputs)
    places = {name: (1 + i, 0) for i, name in enumerate(program.inputs)}
    places.update({name: (first_result + i, 0) for i, name in enumerate(program.results)})
    places.update({name: (first_result + len(program.results) + i, 0) for i, name in enumerate(program.kept)})
    functions = {id(task): (given - len(foreign) + i, 1 + i) for i, task in enumerate(foreign)}
    assembler = _Assembler(given, nthreads, functions)
    assembler.program(_Scope(program, (0, 0), places))
    assembler.row(op.END)
    alone = all(call.serial for _, call in assembler.calls)
    return Table(assembler.words, assembler.functions, given, assembler.needed, assembler.calls, alone)


Place = tuple[int, int]  # a base, and an offset in bytes


@dataclass(frozen=True, slots=True)
class Region:
    """Memory that a call touches: an external buffer by name, or bytes of the arena."""

    external: str
    start: int
    end: int


@dataclass
class _Scope:
    """A program while it is assembled: where its arena is, and the places that it was handed."""

    program: Program
    arena: Place
    places: dict[str, Place]

    def place(self, name: str) -> Place:
        found = self.places.get(name)
        return found if found is not None else self.inside(self.program.memory.offsets.get(name, 0))

    def inside(self, offset: int) -> Place:
        return self.arena[0], self.arena[1] + offset

    def region(self, name: str) -> Region:
        if name in self.places:
            return Region(self.program.donated.get(name, name), 0, 1)
        start = self.program.memory.offsets.get(name, 0)  # what is empty was given no place
        return Region("", start, start + size_bytes(self.program.buffers[name]))


@dataclass
class _Touched:
    """What has been touched since the last barrier: bytes of the arena, and external buffers; by all or by thread 0."""

    ranges: list[tuple[int, int, bool]] = field(default_factory=list)
    names: dict[str, bool] = field(default_factory=dict)  # whether thread 0 alone

    def meets(self, regions: Iterable[Region], serial: bool) -> bool:
        for region in regions:
            if region.external:
                alone = self.names.get(region.external)
                if alone is not None and not (serial and alone):
                    return True
            elif any(
                start < region.end and region.start < end and not (serial and alone)
                for start, end, alone in self.ranges
            ):
                return True
        return False

    def add(self, regions: Iterable[Region], serial: bool) -> None:
        for region in regions:
            if region.external:
                self.names[region.external] = serial and self.names.get(region.external, True)
            else:
                self.ranges.append((region.start, region.end, serial))


class _Assembler:
    """Writes the rows of a program and of the programs inside of it."""

    def __init__(self, given: int, nthreads: int, callbacks: Mapping[int, tuple[int, int]]) -> None:
        self.words: list[int] = []
        self.functions: list[tuple[int, str]] = []
        self.calls: list[tuple[Task, Call]] = []
        self.needed = given
        self.nthreads = nthreads
        self._callbacks = callbacks  # of tasks by id: the base of the function, and the number by which it fails
        self._clear()

    def _clear(self) -> None:
        self.written, self.read = _Touched(), _Touched()
        self.any = False

    def row(self, operation: int, *words: int, number: int = 0) -> int:
        """Appends a row; where it is."""
        place = len(self.words)
        self.words += [operation, 3 + len(words), number, *words]
        return place

    def base(self) -> int:
        """The number of a new base."""
        self.needed += 1
        return self.needed - 1

    def barrier(self) -> None:
        if self.any:
            self.row(op.BARRIER)
            self._clear()

    def program(self, scope: _Scope) -> None:
        for i, step in enumerate(scope.program.steps):
            self.step(scope, step, scope.program.memory.offsets.get(f"work{i}", 0))

    def step(self, scope: _Scope, step: Step, work: int) -> None:
        match step:
            case Task():
                self.task(scope, step, work)
            case Loop():
                self.loop(scope, step, scope.inside(work))
            case While():
                self.while_loop(scope, step, scope.inside(work))
                self._touch([Region("", work, work + FLAG_BYTES)], [], False)
            case Branch():
                self.branch(scope, step, scope.inside(work))

    # Tasks -----------------------------------------------------------------------------------------------------------
    def task(self, scope: _Scope, task: Task, work: int) -> None:
        reads = [scope.region(name) for name in task.reads]
        writes = [scope.region(name) for name in task.writes]
        if scratch := task.workspace_bytes(self.nthreads):
            writes.append(Region("", work, work + scratch))
        for i, call in enumerate(task.phases):
            alone = call.serial and i > 0 and task.phases[i - 1].serial
            if (i and not alone) or (not i and self._conflicts(reads, writes, call.serial)):
                self.barrier()
            self.call(scope, task, call, work)
            self._touch(reads, writes, call.serial)
        if task.callback is not None:
            self.barrier()
            self.row(op.CHECK, self._callbacks[id(task)][1])
            self.any = True  # all must have looked before another call can fail

    def _conflicts(self, reads: Sequence[Region], writes: Sequence[Region], serial: bool) -> bool:
        return (
            self.written.meets(reads, serial) or self.written.meets(writes, serial) or self.read.meets(writes, serial)
        )

    def _touch(self, reads: Sequence[Region], writes: Sequence[Region], serial: bool) -> None:
        self.read.add(reads, serial)
        self.written.add(writes, serial)
        self.any = True

    def call(self, scope: _Scope, task: Task, call: Call, work: int) -> None:
        arguments: list[int] = []
        for argument in call.arguments:
            if isinstance(argument, str):
                arguments += scope.place(argument)
            elif argument is Argument.WORKSPACE:
                arguments += scope.inside(work)
            elif argument is Argument.FUNCTION:
                arguments += (self._callbacks[id(task)][0], 0)
            else:
                arguments += (SPECIAL[argument], 0)
        count = len(call.arguments)
        assert count <= op.MOST_ARGUMENTS, f"{task.name} has {count} arguments"
        units = call.units if Argument.BEGIN in call.arguments else 0
        blocks = -(-units // call.grain)
        number = len(self.calls)
        place = self.row(
            op.CALL, 0, int(call.serial), units, call.grain, blocks, count, *arguments, number=number
        )  # fmt: skip
        self.functions.append((place + 3, call.unit.symbol))
        self.calls.append((task, call))

    # Loops and branches ----------------------------------------------------------------------------------------------
    @contextmanager
    def _counted(self, first: int, change: int, end: int) -> Iterator[int]:
        """A counting loop, run at least once; at the end of each round all threads meet. Gives the counter."""
        self.barrier()
        counter = self.base()
        self.row(op.COUNT, counter, first)
        start = len(self.words)
        yield counter
        self.barrier()
        self.row(op.NEXT, counter, change, end, start)

    def loop(self, scope: _Scope, step: Loop, arena: Place) -> None:
        body = step.body
        for task in step.prologue:
            self.task(scope, task, 0)
        if not step.length:
            return
        fixed = [scope.place(name) for name in (*step.constants, *step.ends)]
        first, change, end = (step.length - 1, -1, -1) if step.reverse else (0, 1, step.length)
        with self._counted(first, change, end) as counter:

            def row(name: str, inner: str) -> Place:
                pitch = size_bytes(body.buffers[inner])
                base, offset = scope.place(name)
                if step.length == 1 or not pitch:
                    return base, offset
                moving = self.base()
                self.row(op.SET, moving, base, offset, counter, pitch)
                return moving, 0

            places = dict(zip(body.inputs, fixed, strict=False))
            places.update((i, row(n, i)) for i, n in zip(body.inputs[len(fixed) :], step.sequences, strict=True))
            places.update(zip(body.results, fixed[len(step.constants) :], strict=False))
            stacked = body.results[len(step.ends) :]
            places.update((i, row(name, i)) for i, name in zip(stacked, step.stacks, strict=True))
            self.program(_Scope(body, arena, places))

    def while_loop(self, scope: _Scope, step: While, arena: Place) -> None:
        for task in step.prologue:
            self.task(scope, task, 0)
        if step.max_steps == 0:
            return
        fixed = [scope.place(name) for name in (*step.constants, *step.ends)]
        inner = arena[0], arena[1] + FLAG_BYTES
        limit = (1 << 62) if step.max_steps is None else step.max_steps
        with self._counted(0, 1, limit):
            places = dict(zip(step.test.inputs, fixed, strict=True))
            self.program(_Scope(step.test, inner, {**places, step.test.results[0]: arena}))
            self.barrier()
            leave = self.row(op.UNLESS, *arena, 0)
            self.any = True  # the next test writes what others may still be reading
            places = dict(zip(step.body.inputs, fixed, strict=True))
            places.update(zip(step.body.results, fixed[len(step.constants) :], strict=True))
            self.program(_Scope(step.body, inner, places))
        self.words[leave + 5] = len(self.words)

    def branch(self, scope: _Scope, step: Branch, arena: Place) -> None:
        self.barrier()
        operands = [scope.place(name) for name in step.operands]
        results = [scope.place(name) for name in step.writes]
        otherwise = self.row(op.UNLESS, *scope.place(step.predicate), 0)
        self._side(step.then, operands, results, arena)
        out = self.row(op.GO, 0)
        self.words[otherwise + 5] = len(self.words)
        self._side(step.otherwise, operands, results, arena)
        self.words[out + 3] = len(self.words)
        self._touch([scope.region(step.predicate)], [], False)

    def _side(self, program: Program, operands: Sequence[Place], results: Sequence[Place], arena: Place) -> None:
        places = dict(zip(program.inputs, operands, strict=True))
        places.update(zip(program.results, results, strict=True))
        self.program(_Scope(program, arena, places))
        self.barrier()
