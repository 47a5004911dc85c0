"""The step function of a program: every call with its addresses, shares and barriers.

    void step(i32 tid, i32 nthreads, ptr frame, ptr team_state)

`frame` is an array of addresses: of the arena, then of the program's inputs, its results, and functions that it calls
back. All threads run the function. A barrier stands where a call needs what another thread may still be writing, or writes what another may
still be reading: calls that touch nothing in common run beside each other. Small calls are made by thread 0 alone, and
need no barriers among themselves. Loops and branches are loops and branches of this function.

The code is as simple as it is long – it runs once – so LLVM is asked not to optimise it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from .cache import Unit
from .codegen.targets import Target
from .devices.team import emit_barrier
from .lower.task import Argument, Call, Task
from .program import FLAG_BYTES, Branch, Loop, Program, Step, While, size_bytes

I1, I8, I32, I64, PTR, VOID = (*(ir.IntType(bits) for bits in (1, 8, 32, 64)), ir.PointerType(), ir.VoidType())


def frame_names(program: Program) -> list[str]:
    """What the frame holds the addresses of, after that of the arena and before those of callbacks."""
    return [*program.inputs, *program.results]


def callbacks(program: Program) -> list[Task]:
    """Tasks that call back."""
    return [task for task in program.tasks() if task.callback is not None]


def emit_step(program: Program, target: Target) -> Unit:
    """The step function of a program."""
    module = ir.Module("step")
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(VOID, [I32, I32, PTR, PTR]), "kernel")
    for attribute in ("noinline", "optnone", "nounwind"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    tid, nthreads, frame, state = function.args
    foreign = callbacks(program)
    slots = [
        builder.load(builder.gep(frame, [I64(i)], source_etype=PTR), typ=PTR)
        for i in range(1 + len(frame_names(program)) + len(foreign))
    ]
    pointers = dict(zip(program.inputs, slots[1:], strict=False))
    pointers.update(zip(program.results, slots[1 + len(program.inputs) :], strict=False))
    functions = {id(task): slot for task, slot in zip(foreign, slots[1 + len(frame_names(program)) :], strict=True)}
    emitter = _Emitter(builder, tid, nthreads, state, functions)
    emitter.program(_Scope(program, slots[0], pointers))
    builder.ret_void()
    return Unit(str(module), target)


def is_serial(program: Program) -> bool:
    """Whether one thread makes all calls, so that no other needs to be woken."""
    for step in program.steps:
        match step:
            case Task():
                if not all(call.serial for call in step.phases):
                    return False
            case Loop():
                if not (_serial(step.prologue) and is_serial(step.body)):
                    return False
            case While():
                if not (_serial(step.prologue) and is_serial(step.test) and is_serial(step.body)):
                    return False
            case Branch():
                if not (is_serial(step.then) and is_serial(step.otherwise)):
                    return False
    return True


def _serial(tasks: Sequence[Task]) -> bool:
    return all(call.serial for task in tasks for call in task.phases)


@dataclass(frozen=True, slots=True)
class Region:
    """Memory that a call touches: an external buffer by name, or bytes of the arena."""

    external: str
    start: int
    end: int

    def meets(self, other: Region) -> bool:
        return self.external == other.external and self.start < other.end and other.start < self.end


@dataclass
class _Scope:
    """A program while it is emitted: where its arena is, and the addresses that it was handed."""

    program: Program
    arena: Any
    pointers: dict[str, Any]

    def region(self, name: str) -> Region:
        program = self.program
        if name in self.pointers:
            return Region(program.donated.get(name, name), 0, 1)
        start = program.memory.offsets[name]
        return Region("", start, start + size_bytes(program.buffers[name]))


@dataclass
class _Pending:
    """What has been touched since the last barrier, by all threads (shared) or by thread 0 alone."""

    written: list[tuple[Region, bool]] = field(default_factory=list)
    read: list[tuple[Region, bool]] = field(default_factory=list)

    def conflicts(self, reads: Sequence[Region], writes: Sequence[Region], serial: bool) -> bool:
        def clash(mine: Sequence[Region], theirs: Sequence[tuple[Region, bool]]) -> bool:
            return any(region.meets(other) for region in mine for other, alone in theirs if not (serial and alone))

        return clash(reads, self.written) or clash(writes, self.written) or clash(writes, self.read)

    def add(self, reads: Sequence[Region], writes: Sequence[Region], serial: bool) -> None:
        self.written += [(region, serial) for region in writes]
        self.read += [(region, serial) for region in reads]

    @property
    def any(self) -> bool:
        return bool(self.written or self.read)


class _Emitter:
    """Writes the calls of a program and of the programs inside of it."""

    def __init__(self, builder: Any, tid: Any, nthreads: Any, state: Any, functions: Mapping[int, Any]) -> None:
        self.builder = builder
        self.functions = functions  # of tasks that call back, by id
        self.tid, self.nthreads, self.state = tid, nthreads, state
        self.first = builder.icmp_signed("==", tid, I32(0))
        self.wide = builder.zext(tid, I64), builder.zext(nthreads, I64)
        self.pending = _Pending()

    def barrier(self) -> None:
        if self.pending.any:
            emit_barrier(self.builder, self.state, self.nthreads)
            self.pending = _Pending()

    def program(self, scope: _Scope) -> None:
        for i, step in enumerate(scope.program.steps):
            self.step(scope, i, step)

    def step(self, scope: _Scope, i: int, step: Step) -> None:
        work = scope.program.memory.offsets.get(f"work{i}")
        match step:
            case Task():
                self.task(scope, step, work)
            case Loop():
                self.loop(scope, step, self.at(scope.arena, work or 0))
            case While():
                self.while_loop(scope, step, self.at(scope.arena, work or 0))
                self.pending.add([Region("", work or 0, (work or 0) + FLAG_BYTES)], [], False)
            case Branch():
                self.branch(scope, step, self.at(scope.arena, work or 0))

    def at(self, base: Any, offset: int) -> Any:
        return self.builder.gep(base, [I64(offset)], source_etype=I8) if offset else base

    def pointer(self, scope: _Scope, name: str) -> Any:
        if name in scope.pointers:
            return scope.pointers[name]
        return self.at(scope.arena, scope.program.memory.offsets[name])

    # Tasks -----------------------------------------------------------------------------------------------------------
    def task(self, scope: _Scope, task: Task, work: int | None) -> None:
        reads = [scope.region(name) for name in task.reads]
        writes = [scope.region(name) for name in task.writes]
        if work is not None:
            writes.append(Region("", work, work + max(1, task.shared_bytes + task.thread_bytes)))
        for i, call in enumerate(task.phases):
            touched = [scope.region(a) for a in call.arguments if isinstance(a, str)]
            mine = [region for region in writes if region in touched or work is not None]
            if i and not (call.serial and task.phases[i - 1].serial):
                self.barrier()
            elif self.pending.conflicts(reads, writes, call.serial):
                self.barrier()
            self.call(scope, task, call, work)
            self.pending.add(reads, mine or writes, call.serial)

    def call(self, scope: _Scope, task: Task, call: Call, work: int | None) -> None:
        if call.serial:
            with self.builder.if_then(self.first):
                self._call(scope, task, call, work, (I64(0), I64(1)), (I32(0), I32(1)))
        else:
            self._call(scope, task, call, work, self.wide, (self.tid, self.nthreads))

    def _call(
        self, scope: _Scope, task: Task, call: Call, work: int | None, share: tuple[Any, Any], thread: tuple[Any, Any]
    ) -> None:
        builder = self.builder
        begin = end = None
        if Argument.BEGIN in call.arguments:
            begin, end = self._share(call, *share)
        arguments = []
        for argument in call.arguments:
            match argument:
                case str():
                    arguments.append(self.pointer(scope, argument))
                case Argument.BEGIN:
                    arguments.append(begin)
                case Argument.END:
                    arguments.append(end)
                case Argument.TID:
                    arguments.append(thread[0])
                case Argument.THREADS:
                    arguments.append(thread[1])
                case Argument.WORKSPACE:
                    arguments.append(self.at(scope.arena, work or 0))
                case Argument.FUNCTION:
                    arguments.append(self.functions[id(task)])
        builder.call(self._function(call.unit, [value.type for value in arguments]), arguments)

    def _share(self, call: Call, tid: Any, nthreads: Any) -> tuple[Any, Any]:
        """Thread `tid`'s part of the units: consecutive ones, cut at multiples of the grain."""
        builder, blocks = self.builder, -(-call.units // call.grain)
        if call.serial or blocks <= 1:
            alone = builder.icmp_unsigned("==", tid, I64(0))
            return I64(0), builder.select(alone, I64(call.units), I64(0))

        def start(number: Any) -> Any:
            return builder.mul(builder.udiv(builder.mul(number, I64(blocks)), nthreads), I64(call.grain))

        begin, end = start(tid), start(builder.add(tid, I64(1)))
        if blocks * call.grain == call.units:
            return begin, end
        return begin, builder.select(builder.icmp_unsigned("<", end, I64(call.units)), end, I64(call.units))

    def _function(self, unit: Unit, types: Sequence[Any]) -> Any:
        module = self.builder.module
        found = module.globals.get(unit.symbol)
        return found or ir.Function(module, ir.FunctionType(VOID, types), unit.symbol)

    # Loops and branches ----------------------------------------------------------------------------------------------
    @contextmanager
    def _counted(self, length: int) -> Iterator[Any]:
        """A counting loop; at the end of each round all threads meet."""
        builder = self.builder
        self.barrier()
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        before = builder.block
        builder.branch(head)
        builder.position_at_end(head)
        count = builder.phi(I64)
        count.add_incoming(I64(0), before)
        builder.cbranch(builder.icmp_unsigned("<", count, I64(length)), body, end)
        builder.position_at_end(body)
        yield count
        self.barrier()
        count.add_incoming(builder.add(count, I64(1)), builder.block)
        builder.branch(head)
        builder.position_at_end(end)

    def _prologue(self, scope: _Scope, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.task(scope, task, None)

    def loop(self, scope: _Scope, step: Loop, arena: Any) -> None:
        builder, body = self.builder, step.body
        self._prologue(scope, step.prologue)
        fixed = [self.pointer(scope, name) for name in (*step.constants, *step.ends)]
        with self._counted(step.length) as count:
            t = builder.sub(I64(step.length - 1), count) if step.reverse else count

            def row(name: str, inner: str) -> Any:
                offset = builder.mul(t, I64(size_bytes(body.buffers[inner])))
                return builder.gep(self.pointer(scope, name), [offset], source_etype=I8)

            n = len(fixed)
            pointers = dict(zip(body.inputs, fixed, strict=False))
            pointers.update((i, row(name, i)) for i, name in zip(body.inputs[n:], step.sequences, strict=True))
            pointers.update(zip(body.results, fixed[len(step.constants) :], strict=False))
            stacked = body.results[len(step.ends) :]
            pointers.update((i, row(name, i)) for i, name in zip(stacked, step.stacks, strict=True))
            self.program(_Scope(body, arena, pointers))

    def while_loop(self, scope: _Scope, step: While, arena: Any) -> None:
        builder = self.builder
        self._prologue(scope, step.prologue)
        fixed = [self.pointer(scope, name) for name in (*step.constants, *step.ends)]
        flag, inner = arena, self.at(arena, FLAG_BYTES)
        limit = (1 << 62) if step.max_steps is None else step.max_steps
        leave = builder.append_basic_block("leave")
        with self._counted(limit):
            pointers = dict(zip(step.test.inputs, fixed, strict=True))
            self.program(_Scope(step.test, inner, {**pointers, step.test.results[0]: flag}))
            self.barrier()
            goes_on = builder.append_basic_block("goes_on")
            builder.cbranch(self._is_set(flag), goes_on, leave)
            builder.position_at_end(goes_on)
            self.pending.read.append((Region("flag", 0, 1), False))  # the next test writes what others may be reading
            pointers = dict(zip(step.body.inputs, fixed, strict=True))
            pointers.update(zip(step.body.results, fixed[len(step.constants) :], strict=True))
            self.program(_Scope(step.body, inner, pointers))
        builder.branch(leave)
        builder.position_at_end(leave)

    def branch(self, scope: _Scope, step: Branch, arena: Any) -> None:
        builder = self.builder
        self.barrier()
        operands = [self.pointer(scope, name) for name in step.operands]
        results = [self.pointer(scope, name) for name in step.writes]
        with builder.if_else(self._is_set(self.pointer(scope, step.predicate))) as (then, otherwise):
            for side, program in ((then, step.then), (otherwise, step.otherwise)):
                with side:
                    pointers = dict(zip(program.inputs, operands, strict=True))
                    pointers.update(zip(program.results, results, strict=True))
                    self.program(_Scope(program, arena, pointers))
                    self.barrier()
        self.pending.add([scope.region(step.predicate)], [], False)

    def _is_set(self, address: Any) -> Any:
        return self.builder.icmp_unsigned("!=", self.builder.load(address, typ=I8), I8(0))


def units_of(program: Program, step: Unit) -> list[Unit]:
    """All that has to be compiled: each once."""
    units: dict[str, Unit] = {step.key: step}
    for task in program.tasks():
        for unit in (*(call.unit for call in task.phases), *task.helpers):
            units.setdefault(unit.key, unit)
    return list(units.values())
