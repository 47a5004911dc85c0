"""Programs that compute values again rather than keep them, and take less memory therefore.

What is run again is a task as it stands, with other buffers: no kernel is added, and results stay the same to the bit.
Which tasks, and where: `schedule/remat.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .lower.task import Call, Task
from .planner import plan_arena
from .program import Branch, Loop, Program, Step, While, size_bytes
from .schedule.order import Task as Ordered
from .schedule.order import freeing_order
from .schedule.remat import Job, Rematerialisation, Run

ATTEMPTS = 8  # at a plan without gaps too large
FLOPS_PER_BYTE = 16.0  # computed while a byte is read or written


def fit_program(program: Program, arena_bytes: int, nthreads: int) -> Program:
    """The program, with as much computed again as it takes for its arena to become that small – or smallest."""
    if program.memory.size_bytes <= arena_bytes:
        return program
    external = {*program.inputs, *program.results, *program.kept}
    program = _in_freeing_order(program, external, nthreads)
    plan = Rematerialisation(
        [_job(program, step, nthreads) for step in program.steps],
        {name: size_bytes(buffer) for name, buffer in program.buffers.items()},
        external,
        _overwritten(program),
    )
    best, goal = program, arena_bytes
    for _ in range(ATTEMPTS):
        reached = plan.reduce(goal)
        found = _applied(program, plan, external, nthreads)
        if found.memory.size_bytes < best.memory.size_bytes:
            best = found
        too_much = found.memory.size_bytes - arena_bytes
        if too_much <= 0 or not reached:
            break
        goal -= max(too_much, arena_bytes // 256)
    return best


def _in_freeing_order(program: Program, external: set[str], nthreads: int) -> Program:
    """The program, but that variables are updated as soon as they can be, if that takes no more memory."""
    steps = program.steps
    readers: dict[str, set[int]] = {}
    for i, step in enumerate(steps):
        for name in step.reads:
            readers.setdefault(name, set()).add(i)
    fallible = {i for i, step in enumerate(steps) if isinstance(step, Task) and step.callback is not None}
    tasks = []
    for i, step in enumerate(steps):
        old = [program.donated[name] for name in step.writes if name in program.donated]
        after = set().union(*(readers.get(name, set()) | fallible for name in old)) - {i}
        tasks.append(Ordered(step.name, step.reads, step.writes, tuple(sorted(after))))
    sizes = {name: size_bytes(buffer) for name, buffer in program.buffers.items()}
    moved = tuple([steps[i] for i in freeing_order(tasks, sizes, external)])
    memory = plan_arena(moved, program.buffers, external, nthreads)
    return replace(program, steps=moved, memory=memory) if memory.size_bytes <= program.memory.size_bytes else program


def _job(program: Program, step: Step, nthreads: int) -> Job:
    return Job(step.reads, step.writes, step.in_place, step.workspace_bytes(nthreads), _cost(program, step))


def _cost(program: Program, step: Step) -> float | None:
    """What a step costs, in bytes read and written; None for what is not run again: it calls back, or goes on for a
    time that nobody knows."""
    match step:
        case Task():
            if step.callback is not None:
                return None
            traffic = sum(size_bytes(program.buffers[name]) for name in (*step.reads, *step.writes))
            return traffic + step.flops / FLOPS_PER_BYTE
        case Loop():
            costs = [_cost(step.body, inner) for inner in step.body.steps]
            known = [cost for cost in costs if cost is not None]
            return step.length * sum(known) if len(known) == len(costs) else None
    return None


def _overwritten(program: Program) -> dict[str, int]:
    """Inputs that a step writes over, by the number of that step."""
    inputs = {result: name for result, name in program.donated.items()}
    return {inputs[name]: i for i, step in enumerate(program.steps) for name in step.writes if name in inputs}


def _applied(program: Program, plan: Rematerialisation, external: set[str], nthreads: int) -> Program:
    """The program with these runs."""
    steps = tuple(_renamed(program.steps[run.job], _names(plan, run)) for run in plan.runs)
    added = {name: plan.value(name) for run in plan.runs for name in run.writes if name != plan.value(name)}
    buffers = dict(program.buffers)
    buffers.update((name, replace(buffers[value], name=name)) for name, value in added.items())
    sources = dict(program.sources)
    sources.update((name, sources[value]) for name, value in added.items() if value in sources)
    memory = plan_arena(steps, buffers, external, nthreads)
    return replace(program, steps=steps, buffers=buffers, sources=sources, memory=memory)


def _names(plan: Rematerialisation, run: Run) -> dict[str, str]:
    found = run.names(plan.jobs[run.job])
    return {old: new for old, new in found.items() if old != new}


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    """The step with other buffers."""
    if not names:
        return step

    def each(old: Iterable[str]) -> tuple[str, ...]:
        return tuple([names.get(name, name) for name in old])

    pairs = tuple([(names.get(a, a), names.get(b, b)) for a, b in step.in_place])
    match step:
        case Task():
            phases = tuple([_call(call, names) for call in step.phases])
            return replace(step, reads=each(step.reads), writes=each(step.writes), phases=phases, in_place=pairs)
        case Loop():
            return replace(
                step, prologue=_tasks(step.prologue, names), constants=each(step.constants), ends=each(step.ends),
                sequences=each(step.sequences), stacks=each(step.stacks), reads=each(step.reads),
                writes=each(step.writes), in_place=pairs,
            )  # fmt: skip
        case While():
            return replace(
                step, prologue=_tasks(step.prologue, names), constants=each(step.constants), ends=each(step.ends),
                reads=each(step.reads), writes=each(step.writes), in_place=pairs,
            )  # fmt: skip
        case Branch():
            return replace(
                step, predicate=names.get(step.predicate, step.predicate), operands=each(step.operands),
                reads=each(step.reads), writes=each(step.writes), in_place=pairs,
            )  # fmt: skip


def _tasks(tasks: Sequence[Task], names: Mapping[str, str]) -> tuple[Task, ...]:
    return tuple([task for task in (_renamed(task, names) for task in tasks) if isinstance(task, Task)])


def _call(call: Call, names: Mapping[str, str]) -> Call:
    return replace(call, arguments=tuple([names.get(a, a) if isinstance(a, str) else a for a in call.arguments]))
