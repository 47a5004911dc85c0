"""The planners of memory and order: what must hold for any program, and what they are worth on known ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highlevel.backends.native.schedule.memory import ALIGNMENT, Value, aligned, join_in_place, peak_bytes, plan_memory
from highlevel.backends.native.schedule.order import Task, lifetimes, peak, plan_order


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
        tasks.append(Task(name, reads, (name,)))
        names.append(name)
    return tasks, sizes, frozenset(draw(st.sets(st.sampled_from(names), max_size=3)))


@settings(max_examples=300, deadline=None)
@given(task_graphs())
def test_an_order_is_topological_and_never_worse(drawn: Any) -> None:
    tasks, sizes, kept = drawn
    order = plan_order(tasks, sizes, kept)
    assert sorted(order) == list(range(len(tasks)))
    written = {"input"}
    for position in order:
        assert set(tasks[position].reads) <= written
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


def test_planning_is_fast_enough_for_large_programs() -> None:
    """3,000 values, more than a ResNet-50 training step has: the planner's work grows with what lives at once."""
    depth = 1500
    values = [Value(f"a{i}", 64 * (1 + i % 97), i, 2 * depth - i) for i in range(depth)]
    values += [Value(f"g{i}", 64 * (1 + i % 97), 2 * depth - i, 2 * depth - i + 1) for i in range(depth)]
    assert plan_memory(values).size_bytes >= plan_memory(values).bound_bytes
