"""The planners of memory and order: what must hold for any program, and what they are worth on known ones."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highlevel.backends.native.schedule.memory import ALIGNMENT, Value, aligned, join_in_place, peak_bytes, plan_memory
from highlevel.backends.native.schedule.order import Task, lifetimes, peak, plan_order
from highlevel.errors import BackendError


@st.composite
def programs(draw: Any) -> list[Value]:
    values: list[Value] = []
    for index in range(draw(st.integers(0, 40))):
        start = draw(st.integers(0, 30))
        end = start + draw(st.integers(0, 10))
        hosts = [v.name for v in values if v.end == start] if draw(st.booleans()) else []
        values.append(Value(f"v{index}", draw(st.integers(0, 5000)), start, end, hosts[0] if hosts else None))
    return values


@settings(max_examples=300, deadline=None)
@given(programs())
def test_what_lives_at_once_never_shares_a_byte(values: list[Value]) -> None:
    plan = plan_memory(values)
    shared = {name: block.names for block in join_in_place(values) for name in block.names}
    assert set(plan.offsets) == {value.name for value in values}
    assert all(offset % ALIGNMENT == 0 for offset in plan.offsets.values())
    for i, a in enumerate(values):
        assert plan.offsets[a.name] + a.size_bytes <= plan.size_bytes
        for b in values[:i]:
            if shared[a.name] is shared[b.name]:
                first, second = sorted((a, b), key=lambda v: (v.start, v.end))
                assert first.end <= second.start or first.name == second.name
                continue
            apart_in_time = a.end < b.start or b.end < a.start
            low, high = sorted((a, b), key=lambda v: plan.offsets[v.name])
            apart_in_space = plan.offsets[low.name] + aligned(low.size_bytes) <= plan.offsets[high.name]
            assert apart_in_time or apart_in_space or 0 in (a.size_bytes, b.size_bytes)
    assert plan.bound_bytes <= plan.size_bytes <= max(2 * plan.bound_bytes, ALIGNMENT)


def test_a_chain_needs_two_places_and_one_where_it_is_written_in_place() -> None:
    chain = [Value(f"v{i}", 1024, i, i + 1) for i in range(20)]
    assert plan_memory(chain).size_bytes == 2048
    inside = [Value(f"v{i}", 1024, i, i + 1, f"v{i - 1}" if i else None) for i in range(20)]
    assert plan_memory(inside).size_bytes == 1024


def test_a_training_step_reaches_the_bound() -> None:
    """Activations live from the forward to the backward pass: nested lifetimes, the case of every network."""
    depth = 50
    activations = [Value(f"a{i}", 1000 * (1 + i % 7), i, 2 * depth - i) for i in range(depth)]
    gradients = [Value(f"g{i}", 1000 * (1 + i % 7), 2 * depth - i, 2 * depth - i + 1) for i in range(depth)]
    plan = plan_memory([*activations, *gradients])
    assert plan.size_bytes <= 1.05 * plan.bound_bytes


@st.composite
def task_graphs(draw: Any) -> tuple[list[Task], dict[str, int], frozenset[str]]:
    tasks, sizes = [], {"input": 64}
    names = ["input"]
    for index in range(draw(st.integers(1, 25))):
        reads = tuple(draw(st.lists(st.sampled_from(names), max_size=3)))
        name = f"t{index}"
        sizes[name] = 64 * draw(st.integers(1, 50))
        after = draw(st.sets(st.integers(0, index - 1), max_size=2)) if index and draw(st.booleans()) else ()
        tasks.append(Task(name, reads, (name,), tuple(after)))
        names.append(name)
    return tasks, sizes, frozenset(draw(st.sets(st.sampled_from(names), max_size=3)))


@settings(max_examples=300, deadline=None)
@given(task_graphs())
def test_an_order_is_topological_and_never_worse(drawn: Any) -> None:
    tasks, sizes, kept = drawn
    order = plan_order(tasks, sizes, kept)
    assert sorted(order) == list(range(len(tasks)))
    written = {"input"}
    for step, position in enumerate(order):
        assert set(tasks[position].reads) <= written
        assert set(tasks[position].after) <= set(order[:step])
        written.update(tasks[position].writes)
    assert peak(tasks, order, sizes, kept) <= peak(tasks, range(len(tasks)), sizes, kept)
    assert (
        peak_bytes(lifetimes(tasks, order, sizes, kept)) <= plan_memory(lifetimes(tasks, order, sizes, kept)).size_bytes
    )


@pytest.mark.parametrize("branches", [2, 8])
def test_branches_run_one_after_the_other(branches: int) -> None:
    """Wide branches made breadth first are ordered depth first, so that one of them lives at a time."""
    tasks = [Task(f"wide{i}", ("input",), (f"wide{i}",)) for i in range(branches)]
    tasks += [Task(f"narrow{i}", (f"wide{i}",), (f"narrow{i}",)) for i in range(branches)]
    tasks.append(Task("sum", tuple(f"narrow{i}" for i in range(branches)), ("sum",)))
    sizes = {
        "input": 64,
        "sum": 64,
        **{f"wide{i}": 64_000 for i in range(branches)},
        **{f"narrow{i}": 64 for i in range(branches)},
    }
    order = plan_order(tasks, sizes, frozenset({"sum"}))
    assert peak(tasks, order, sizes, frozenset({"sum"})) < 66_000


def test_who_overwrites_a_variable_comes_after_all_who_read_it() -> None:
    """The update frees most, and would go first, but the old value is read by what is dear."""
    tasks = [
        Task("gradient", ("w",), ("gradient",)),
        Task("dear", ("w",), ("dear",)),
        Task("update", ("w", "gradient"), ("new",), after=(1,)),
        Task("norm", ("dear",), ("norm",)),
    ]
    sizes = {"w": 0, "gradient": 6400, "dear": 64_000, "new": 0, "norm": 64}
    free = [Task(task.name, task.reads, task.writes) for task in tasks]
    assert plan_order(free, sizes, frozenset({"norm"})).index(2) < 2
    assert plan_order(tasks, sizes, frozenset({"norm"})).index(2) > 1


def test_steps_that_wait_for_each_other_are_an_error() -> None:
    tasks = [Task("a", (), ("a",), after=(1,)), Task("b", (), ("b",), after=(0,))]
    with pytest.raises(BackendError, match="steps wait for each other"):
        plan_order(tasks, {"a": 64, "b": 64})


def reuse(tasks: list[Task], order: list[int]) -> float:
    """The share of readings that come at most two steps after the writing."""
    written = {name: step for step, position in enumerate(order) for name in tasks[position].writes}
    steps = [step - written[n] for step, position in enumerate(order) for n in tasks[position].reads if n in written]
    return sum(1 for distance in steps if distance <= 2) / len(steps)


def test_ties_go_to_what_reads_the_latest() -> None:
    """Equal chains made side by side: one after the other, each value is read right after it is written."""
    tasks = [Task("wide", (), ("wide",)), Task("narrow", ("wide",), ("c0.0", "c1.0", "c2.0", "c3.0"))]
    for step in range(1, 6):
        tasks += [Task(f"c{i}.{step}", (f"c{i}.{step - 1}",), (f"c{i}.{step}",)) for i in range(4)]
    tasks += [Task(f"later{i}", ("wide",), (f"later{i}",)) for i in range(4)]
    sizes = {name: 64 for task in tasks for name in task.writes} | {"wide": 640}
    order = plan_order(tasks, sizes, frozenset())
    assert peak(tasks, order, sizes, frozenset()) < peak(tasks, range(len(tasks)), sizes, frozenset())
    assert reuse(tasks, order) > 2 * reuse(tasks, list(range(len(tasks))))


def training_step(depth: int) -> tuple[list[Task], dict[str, int], dict[str, int]]:
    """Forward, backward, and all updates at the end; with workspaces by task."""
    tasks, sizes, work = [], {}, {}
    for i in range(depth):
        sizes |= {f"y{i}": 1000 * (1 + i * 7 % 13), f"a{i}": 1000 * (1 + i * 7 % 13)}
        tasks.append(Task(f"conv{i}", (f"a{i - 1}",) if i else (), (f"y{i}",)))
        tasks.append(Task(f"act{i}", (f"y{i}",), (f"a{i}",)))
        work[f"conv{i}"] = 5000 + i
    before = f"a{depth - 1}"
    for i in reversed(range(depth)):
        sizes |= {f"da{i}": sizes[f"y{i}"], f"dy{i}": sizes[f"y{i}"], f"dw{i}": 20_000}
        tasks.append(Task(f"dact{i}", (before, f"y{i}"), (f"dy{i}",)))
        tasks.append(Task(f"dw{i}", (f"dy{i}", *([f"a{i - 1}"] if i else [])), (f"dw{i}",)))
        tasks.append(Task(f"dx{i}", (f"dy{i}",), (f"da{i}",)))
        work[f"dw{i}"], before = 7000, f"da{i}"
    readers = {i: tuple(p for p, t in enumerate(tasks) if t.name in (f"conv{i}", f"dx{i}")) for i in range(depth)}
    sizes |= {f"w{i}": 0 for i in range(depth)}
    tasks += [Task(f"update{i}", (f"dw{i}",), (f"w{i}",), readers[i]) for i in range(depth)]
    return tasks, sizes, work


def test_a_plan_holds_up_when_the_bytes_are_counted() -> None:
    """Every step's values and workspace are marked in an arena: no byte has two owners, all end within the plan."""
    tasks, sizes, work = training_step(12)
    order = plan_order(tasks, sizes)
    values = [v for v in lifetimes(tasks, order, sizes, frozenset()) if v.size_bytes]
    steps = {tasks[position].name: step for step, position in enumerate(order)}
    values += [Value(f"work of {name}", size, steps[name], steps[name]) for name, size in work.items()]
    plan = plan_memory(values)
    for step in range(len(order)):
        owner = [""] * plan.size_bytes
        for value in values:
            if value.start <= step <= value.end:
                place = slice(plan.offsets[value.name], plan.offsets[value.name] + value.size_bytes)
                assert not any(owner[place]), f"{value.name} over {set(owner[place])}"
                owner[place] = [value.name] * value.size_bytes
        assert len(owner) == plan.size_bytes
    assert plan.size_bytes <= 1.05 * plan.bound_bytes
    assert peak(tasks, order, sizes, frozenset()) < 0.95 * peak(tasks, range(len(tasks)), sizes, frozenset())
    assert reuse(tasks, order) >= 0.8 * reuse(tasks, list(range(len(tasks))))


def test_planning_is_fast_enough_for_large_programs() -> None:
    """More than a ResNet-50 training step has: 2,400 tasks, 3,000 values."""
    tasks, sizes, work = training_step(400)
    start = time.process_time()
    order = plan_order(tasks, sizes)
    values = lifetimes(tasks, order, sizes, frozenset())
    values += [Value(f"work{i}", size, i, i) for i, size in enumerate(work.values())]
    plan = plan_memory(values)
    assert time.process_time() - start < 0.5
    assert (len(tasks), len(values)) == (2400, 3200)
    assert plan.size_bytes <= 1.05 * plan.bound_bytes
