"""Learning-rate schedules against Keras and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from highlevel.errors import ArgumentError
from highlevel.ir import Tensor, jit
from highlevel.serialization import deserialize, serialize
from highlevel.training import schedules

keras = pytest.importorskip("keras")

CASES = [
    ("ExponentialDecay", (0.1, 10, 0.5), {}),
    ("ExponentialDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {}),
    ("InverseTimeDecay", (0.1, 10, 0.5), {"staircase": True}),
    ("PiecewiseConstantDecay", ([5, 20], [0.1, 0.02, 0.003]), {}),
    ("PiecewiseConstantDecay", ([7], [0.1, 0.02]), {}),
    ("PolynomialDecay", (0.1, 20), {}),
    ("PolynomialDecay", (0.1, 20), {"power": 2.0, "end_learning_rate": 0.01}),
    ("PolynomialDecay", (0.1, 8), {"power": 0.5, "cycle": True}),
    ("CosineDecay", (0.1, 20), {}),
    ("CosineDecay", (0.1, 20), {"alpha": 0.1}),
    ("CosineDecay", (0.0, 20), {"warmup_target": 0.2, "warmup_steps": 6}),
    ("CosineDecay", (0.1, 20), {"warmup_target": 0.2, "warmup_steps": 6, "alpha": 0.05}),
    ("CosineDecayRestarts", (0.1, 5), {}),
    ("CosineDecayRestarts", (0.1, 5), {"t_mul": 1.0, "m_mul": 0.5}),
    ("CosineDecayRestarts", (0.1, 4), {"t_mul": 1.5, "m_mul": 0.8, "alpha": 0.1}),
]


@pytest.mark.parametrize("name, arguments, options", CASES, ids=str)
def test_schedules_equal_keras(name, arguments, options):
    ours = getattr(schedules, name)(*arguments, **options)
    theirs = getattr(keras.optimizers.schedules, name)(*arguments, **options)
    traced = jit(lambda step: ours(step))
    for step in range(40):
        expected = np.asarray(theirs(step))
        np.testing.assert_allclose(float(ours(step)), expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(float(traced(Tensor.of(np.int64(step)))), expected, rtol=1e-5, atol=1e-7)
    again = deserialize(serialize(ours))
    assert float(again(13)) == float(ours(13))


def test_one_cycle_equals_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # torch takes its turns at whole steps: 4 up and 15 down make 20 rates
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=21, pct_start=0.25, div_factor=25.0, final_div_factor=4.0
    )
    ours = schedules.OneCycle(0.5, total_steps=20, warmup=0.2125, start=25.0, end=100.0)
    ours_by_step = [float(ours(step)) for step in range(21)]
    theirs_by_step = []
    for _ in range(21):
        theirs_by_step.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(theirs_by_step) < 21:
            theirs.step()
    np.testing.assert_allclose(ours_by_step, theirs_by_step, rtol=1e-5)


def test_one_cycle_rises_then_falls_and_stays():
    rates = [float(schedules.OneCycle(1.0, 100)(step)) for step in range(120)]
    assert rates[0] == pytest.approx(1 / 25) and rates[25] == pytest.approx(1.0)
    assert all(np.diff(rates[:26]) > 0) and all(np.diff(rates[25:101]) < 0)
    assert rates[100:] == pytest.approx([1e-5] * 20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.ExponentialDecay(0.1, 0, 0.5),
        lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]),
        lambda: schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]),
        lambda: schedules.OneCycle(0.1, 10, warmup=1.5),
        lambda: schedules.CosineDecay(0.1, -1),
    ],
)
def test_wrong_arguments_are_explained(make):
    with pytest.raises(ArgumentError):
        make()
