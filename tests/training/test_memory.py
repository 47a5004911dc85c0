"""Plans of memory, batch sizes that fit, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel.errors import ArgumentError, MemoryLimitError
from highlevel.training.memory import MOST, largest_batch, parse_bytes

F32 = np.float32


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highlevel.backends.registry._current", hl.backends.get("native"))


def made(loss: Any = "sparse_categorical_crossentropy", depth: int = 4) -> Any:
    hl.set_random_seed(1)
    hidden = [hl.layers.Dense(64, activation="tanh") for _ in range(depth)]
    model = hl.Sequential([hl.Input((32,)), *hidden, hl.layers.Dense(10, activation="softmax")])
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def test_a_plan_counts_everything() -> None:
    model = made()
    plan = model.memory_plan(128)
    weights = sum(variable.size for variable in model.variables) * 4
    assert plan.weight_bytes == weights
    assert plan.optimizer_bytes >= 2 * weights
    assert plan.input_bytes == 128 * 32 * 4 + 128 * 8
    assert plan.activation_bytes >= 4 * 128 * 64 * 4
    assert 0 < plan.state_bytes < 1000
    parts = (plan.weight_bytes, plan.optimizer_bytes, plan.state_bytes, plan.activation_bytes, plan.input_bytes)
    assert plan.total_bytes == sum(parts) + plan.output_bytes + plan.constant_bytes
    inference = model.memory_plan(128, training=False)
    assert inference.optimizer_bytes == 0
    assert inference.output_bytes == 128 * 10 * 4
    assert inference.total_bytes < plan.total_bytes
    for word in ("training with 128 samples", "weights", "optimizer", "activations", "total", "dense"):
        assert word in str(plan)


def test_planning_allocates_no_batch_and_leaves_metrics_alone() -> None:
    model = made()
    assert model.memory_plan(1 << 20).activation_bytes > 1 << 30
    assert model.metrics_names == ["loss"]
    y = np.eye(10, dtype=F32)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.memory_plan(10)
    model.fit(np.ones((10, 32), F32), y, verbose=0)
    assert model.metrics_names == ["loss", "accuracy"]


def test_inputs_of_unknown_size_are_asked_for() -> None:
    model = hl.Sequential([hl.Input((None, 4)), hl.layers.LSTM(3)])
    with pytest.raises(ArgumentError, match="not known"):
        model.memory_plan(8, training=False)
    plan = model.memory_plan(8, training=False, x=np.zeros((1, 20, 4), F32))
    assert plan.input_bytes == 8 * 20 * 4 * 4


def test_the_largest_batch_is_the_largest() -> None:
    plan = made().memory_plan(32)
    limit = made().memory_plan(777).total_bytes
    found = plan.largest_batch(limit)
    assert found >= 777
    model = made()
    assert model.memory_plan(found).total_bytes <= limit < model.memory_plan(found + 1).total_bytes
    assert plan.largest_batch(1000) == 0


@pytest.mark.parametrize("needed", [
    lambda n: 100 + 10 * n, lambda n: 100 + 64 * -(-n // 7), lambda n: 5 * n + (n * n) // 50, lambda n: 40 + n // 3
])  # fmt: skip
@pytest.mark.parametrize("limit", [1, 105, 110, 111, 5000, 123_456])
def test_the_search_is_exact(needed: Any, limit: int) -> None:
    asked = []

    def counted(size: int) -> int:
        asked.append(size)
        return int(needed(size))

    found = largest_batch(counted, limit)
    assert found == max((n for n in range(1, 200_000 * 3) if needed(n) <= limit), default=0)
    assert len(asked) <= 40


def test_the_search_ends() -> None:
    assert largest_batch(lambda size: 1, 10) == MOST


@pytest.mark.parametrize("text", ["", "many", "2 parsec", "-1GB", 0, "0"])
def test_amounts_that_are_none(text: Any) -> None:
    with pytest.raises(ArgumentError, match="amount of memory"):
        parse_bytes(text)


# Limits --------------------------------------------------------------------------------------------------------------
def trained(limit: Any, epochs: int = 2) -> Any:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 32)).astype(F32), rng.integers(0, 10, 256)
    model = made(depth=12)
    options = {} if limit is None else {"memory_limit": limit}
    history = model.fit(x, y, batch_size=256, epochs=epochs, verbose=0, seed=0, **options)
    return model, history.history["loss"]


def test_a_limit_that_is_kept_changes_nothing() -> None:
    free, losses = trained(None)
    plan = free.memory_plan(256)
    kept, others = trained(plan.total_bytes)
    assert losses == others
    for a, b in zip(free.variables, kept.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_less_memory_than_a_step_would_take_changes_nothing() -> None:
    free, losses = trained(None)
    plan = free.memory_plan(256)
    kept, others = trained(plan.total_bytes - int(0.4 * plan.activation_bytes))
    assert losses == others
    for a, b in zip(free.variables, kept.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_too_little_memory_names_a_batch_that_fits() -> None:
    model = made(depth=12)
    limit = model.memory_plan(8).total_bytes
    with pytest.raises(MemoryLimitError) as caught:
        model.fit(np.ones((512, 32), F32), np.zeros(512, "int64"), batch_size=512, verbose=0, memory_limit=limit)
    assert caught.value.needed_bytes > caught.value.limit_bytes == limit
    hint = str(caught.value.hint)
    size = int(hint.split("=")[1].split()[0])
    assert 8 <= size < 512
    model.fit(np.ones((size, 32), F32), np.zeros(size, "int64"), batch_size=size, verbose=0, memory_limit=limit)
    with pytest.raises(MemoryLimitError, match="not even one sample"):
        model.fit(np.ones((8, 32), F32), np.zeros(8, "int64"), verbose=0, memory_limit="1 kB")
    with pytest.raises(ArgumentError, match="amount of memory"):
        model.fit(np.ones((8, 32), F32), np.zeros(8, "int64"), verbose=0, memory_limit="lots")
