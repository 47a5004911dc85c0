"""Values computed again rather than kept: plans of chains that are known, and programs whose results stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.backends.native.recompute import fit_program
from highlevel.backends.native.schedule.order import Task, freeing_order
from highlevel.backends.native.schedule.remat import Job, Rematerialisation
from highlevel.errors import MemoryLimitError

F32 = np.float32
KB = 1024


# Plans ---------------------------------------------------------------------------------------------------------------
def chain(depth: int, cost: float | None = 1.0) -> list[Job]:
    """x → h0 → h1 → …, then gradients back: each reads the one before it and a value of the first half."""
    jobs = [Job((f"h{i - 1}" if i else "x",), (f"h{i}",), cost=cost) for i in range(depth)]
    jobs.append(Job((f"h{depth - 1}",), ("g",), cost=cost))
    last = "g"
    for i in reversed(range(depth - 1)):
        jobs.append(Job((last, f"h{i}"), (f"g{i}",), cost=cost))
        last = f"g{i}"
    return jobs


def planned(jobs: list[Job], overwritten: dict[str, int] | None = None, external: tuple[str, ...] = ()) -> Any:
    names = {name for job in jobs for name in (*job.reads, *job.writes)}
    return Rematerialisation(jobs, dict.fromkeys(names, KB), {"x", "g0", *external}, overwritten or {})


def values(jobs: list[Job], plan: Any) -> dict[str, Any]:
    """What ends up in external buffers if each job computes a text of its number and operands."""
    memory: dict[str, Any] = {"x": "x"}
    for run in plan.runs:
        results = [f"{run.job}({', '.join(memory[name] for name in run.reads)})" for _ in run.writes]
        memory.update(zip(run.writes, results, strict=True))
    return {name: memory[name] for name in plan.external}


@pytest.mark.parametrize("depth", [5, 12, 40])
@pytest.mark.parametrize("part", [0.8, 0.6, 0.4])
def test_a_chain_takes_as_much_as_it_may(depth: int, part: float) -> None:
    jobs = chain(depth)
    plan, free = planned(jobs), planned(jobs)
    goal = max(int(part * free.peak), 6 * KB)
    assert plan.reduce(goal)
    assert plan.peak <= goal
    assert values(jobs, plan) == values(jobs, free)
    assert plan.cost <= 2 * free.cost


def test_little_is_computed_again_where_little_is_missing() -> None:
    plan = planned(chain(20))
    assert plan.reduce(plan.peak - KB)
    assert len(plan.runs) == len(plan.jobs) + 1


def test_what_is_cheap_goes_first() -> None:
    """Every other value of the chain costs a hundred times as much: none of them is computed again."""
    jobs = [Job(job.reads, job.writes, cost=100.0 if i % 2 else 1.0) for i, job in enumerate(chain(16))]
    plan = planned(jobs)
    assert plan.reduce(int(0.75 * plan.peak))
    again = [run.job for run in plan.runs]
    assert all(again.count(i) == 1 for i, job in enumerate(jobs) if job.cost == 100.0)
    assert len(again) > len(jobs)


def test_what_must_not_be_repeated_is_kept() -> None:
    plan = planned(chain(10, cost=None))
    peak = plan.peak
    assert not plan.reduce(peak // 2)
    assert plan.peak == peak and len(plan.runs) == len(plan.jobs)


@pytest.mark.parametrize(("overwritten", "again"), [({}, 1), ({"w": 4}, 2)])
def test_what_has_been_written_over_is_not_read_again(overwritten: dict[str, int], again: int) -> None:
    """One of three values has to go, the first if it can: not if what it was made of is there no more."""
    jobs = [
        Job(("x",), ("h0",), cost=1.0),
        Job(("x", "w"), ("h1",), cost=1.0),
        Job(("h1",), ("h2",), cost=1.0),
        Job(("h2",), ("h3",), cost=1.0),
        Job(("h3",), ("new",), cost=1.0),
        *(Job((f"p{i - 1}" if i else "new",), (f"p{i}",), cost=1.0) for i in range(3)),
        Job(("p2", "h1", "h2", "h3"), ("g0",), cost=1.0),
    ]
    plan = planned(jobs, overwritten, ("w", "new"))
    assert plan.peak == 5 * KB
    assert plan.reduce(4 * KB)
    assert [run.job for run in plan.runs if run.writes[0] not in jobs[run.job].writes] == [again]


def test_variables_are_updated_as_soon_as_they_can_be() -> None:
    """The third task still reads the old variable; the fourth takes more than it frees."""
    tasks = [
        Task("a", (), ("a",)), Task("da", ("a",), ("da",)), Task("b", (), ("b",)), Task("c", ("b",), ("c",)),
        Task("new", ("da",), ("w",), after=(2,)), Task("d", ("c",), ("d",)),
    ]  # fmt: skip
    assert freeing_order(tasks, {"a": 8, "b": 8, "c": 16, "d": 8, "da": 8, "w": 8}, {"w"}) == [0, 1, 2, 4, 3, 5]


# Programs ------------------------------------------------------------------------------------------------------------
def residual() -> hl.Model:
    inputs = hl.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(inputs)))
    for _ in range(4):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x)))
        x = L.ReLU()(L.Add()([x, L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(y))]))
    return hl.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(L.Dropout(0.2)(x))))


def transformer() -> hl.Model:
    inputs = hl.Input((24, 32))
    x = inputs
    for _ in range(3):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 16)(x, x)]))
        x = L.LayerNormalization()(L.Add()([x, L.Dense(32)(L.Dense(64, activation="gelu")(x))]))
    return hl.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(x)))


def deep() -> hl.Model:
    return hl.Sequential([hl.Input((64,)), *[L.Dense(64, activation="relu") for _ in range(40)], L.Dense(10)])


def recurrent() -> hl.Model:
    hidden = [L.LSTM(16, return_sequences=True), L.Dropout(0.3), L.GRU(16, return_sequences=True), L.LSTM(8)]
    return hl.Sequential([hl.Input((30, 8)), *hidden, L.Dense(10)])


def trained(build: Any, rows: int, limit: int | None = None) -> tuple[Any, list[np.ndarray], list[float]]:
    hl.set_random_seed(3)
    model = build()
    model.compile(
        hl.optimizers.Adam(1e-2), hl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, *model.input_shape[1:])).astype(F32)
    options = {} if limit is None else {"memory_limit": limit}
    fitted = model.fit(x, rng.integers(0, 10, rows), batch_size=rows, epochs=3, seed=0, verbose=0, **options)
    return model, [variable.numpy() for variable in model.variables], fitted.history["loss"]


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Any:
    backend: Any = hl.backends.get("native")
    monkeypatch.setattr("highlevel.backends.registry._current", backend)
    return backend


@pytest.mark.parametrize(
    ("build", "rows", "parts"),
    [(residual, 8, (0.7, 0.4)), (transformer, 8, (0.75, 0.6)), (deep, 256, (0.6, 0.3)), (recurrent, 16, (0.95,))],
)
def test_training_in_less_memory_gives_the_same_weights(native: Any, build: Any, rows: int, parts: Any) -> None:
    model, expected, losses = trained(build, rows)
    free = model.memory_plan(rows)
    for part in parts:
        limit = free.total_bytes - int((1 - part) * free.activation_bytes)
        limited, found, others = trained(build, rows, limit)
        (program,) = limited.trainer._limited[limit]._programs.values()
        arena = program[0].executable.program.memory.size_bytes
        assert arena <= part * free.activation_bytes + 1
        assert others == losses
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_kernel_is_added(native: Any) -> None:
    """What is run again is machine code that is there."""
    from highlevel.backends.native.assemble import units_of

    model, _, _ = trained(deep, 64)
    ((found,),) = model.trainer._train._programs.values()
    program = found.executable.program
    smaller = fit_program(program, program.memory.size_bytes // 2, native.device.threads)
    assert smaller.memory.size_bytes <= program.memory.size_bytes // 2
    assert len(smaller.steps) > len(program.steps)
    assert {unit.key for unit in units_of(smaller)} == {unit.key for unit in units_of(program)}
    assert fit_program(program, program.memory.size_bytes, native.device.threads) is program


def test_the_least_is_named(native: Any) -> None:
    model, _, _ = trained(deep, 256)
    plan = model.memory_plan(256)
    least = plan.total_bytes - plan.activation_bytes
    with pytest.raises(MemoryLimitError) as caught:
        trained(deep, 256, least + 1000)
    needed = caught.value.needed_bytes
    assert least + 1000 < needed < plan.total_bytes - plan.activation_bytes // 2
    trained(deep, 256, needed)
