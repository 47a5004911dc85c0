"""Summaries as text."""

from __future__ import annotations

import numpy as np

import highlevel as hl
from highlevel import layers as L
from highlevel.models.summary import format_bytes, format_summary

GOLDEN = """
Model: net
───────────────────────────────────────────────────────────
Layer (type)                Output shape         Parameters
───────────────────────────────────────────────────────────
conv2d (Conv2D)             (None, 26, 26, 20)          200
norm (BatchNormalization)   (None, 26, 26, 20)           80
flatten (Flatten)           (None, 13520)                 0
head (Dense)                (None, 10)              135,210
───────────────────────────────────────────────────────────
Parameters: 135,490 (542.0 kB)
  trainable: 135,450
  frozen:    40
"""

FROZEN = """
Model: net
───────────────────────────────────────────────────────────────────────
Layer (type)                Output shape         Parameters   Trainable
───────────────────────────────────────────────────────────────────────
conv2d (Conv2D)             (None, 26, 26, 20)          200   frozen
norm (BatchNormalization)   (None, 26, 26, 20)           80   frozen
flatten (Flatten)           (None, 13520)                 0   –
head (Dense)                (None, 10)              135,210   yes
───────────────────────────────────────────────────────────────────────
Parameters: 135,490 (542.0 kB)
  trainable: 135,210
  frozen:    280
"""


def net() -> hl.Sequential:
    layers = [L.Conv2D(20, 3), L.BatchNormalization(name="norm"), L.Flatten(), L.Dense(10, name="head")]
    return hl.Sequential([hl.Input((28, 28, 1)), *layers], name="net")


def test_a_small_model(capsys):
    model = net()
    assert format_summary(model) == GOLDEN.strip()
    model.summary()
    assert capsys.readouterr().out == GOLDEN.lstrip()


def test_frozen_layers_are_seen_at_once():
    model = net()
    model.freeze_to("head")
    assert format_summary(model) == FROZEN.strip()
    model.unfreeze()
    assert format_summary(model) == GOLDEN.strip()


def test_several_outputs_unbuilt_models_and_narrow_lines():
    x = hl.Input((4,), name="x")
    parts = hl.Model(x, [L.Dense(2)(x), L.Dense(3)(x)], name="parts")
    model = hl.Model(x, parts(x))
    assert "(None, 2), (None, 3)" in format_summary(model)
    unbuilt = hl.Sequential([L.Dense(3)])
    assert "? (not built)" in format_summary(unbuilt)
    assert max(map(len, format_summary(net(), line_length=50).splitlines())) <= 50
    lines = []
    net().summary(print_fn=lines.append)
    assert lines == [GOLDEN.strip()]


def test_a_subclassed_model():
    class Own(hl.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = L.Dense(2)

        def call(self, x):
            return self.head(x)

    model = Own()
    model(np.ones((1, 3), "float32"))
    assert "head (Dense)" in format_summary(model) and "Parameters: 8 (32 B)" in format_summary(model)


def test_bytes_for_people():
    assert [format_bytes(n) for n in (0, 999, 1000, 18_608_032, 5e12)] == [
        "0 B", "999 B", "1.0 kB", "18.6 MB", "5000.0 GB",
    ]  # fmt: skip
