"""The conformance command: the interpreter passes, and a backend with faults is told which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from highlevel.backends import get
from highlevel.backends.conformance import check_backend, main
from highlevel.backends.interpreter import NumpyBackend
from highlevel.errors import BackendError
from highlevel.ir import REGISTRY, Primitive


def test_the_interpreter_conforms() -> None:
    report = check_backend(get("numpy"))
    assert report.failures == ()
    assert report.score == 1.0
    assert {tally.family for tally in report.families} == {primitive.family for primitive in REGISTRY.values()}
    assert report.passed > 1000


class Faulty(NumpyBackend):
    """Wrong in tanh, missing the Fourier transform, and with a bit too much in one integer operator."""

    name = "faulty"

    def run(self, primitive: Primitive, handles: Sequence[Any], attrs: Any) -> Sequence[Any]:
        if primitive.name == "fft":
            raise NotImplementedError("fft is not there\nyet")
        results = super().run(primitive, handles, attrs)
        if primitive.name in ("tanh", "bit_and"):
            return [np.asarray(result + result.dtype.type(1)) for result in results]
        return results


def test_faults_are_named() -> None:
    report = check_backend(Faulty(), ["elementwise", "fourier", "movement"])
    assert {failure.operator for failure in report.failures} == {"tanh", "bit_and", "fft"}
    assert {failure.mode for failure in report.failures} <= {"eager", "eager special values"}
    assert 0.5 < report.score < 1.0
    lines = str(report).splitlines()
    assert lines[0].startswith("elementwise")
    assert any("NotImplementedError: fft is not there" in line for line in lines)
    assert any(line.startswith("movement") and line.endswith("0 failed") for line in lines)


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match="no family"):
        check_backend(get("numpy"), ["cookery"])
    assert main(["abacus"]) == 1
    assert "abacus" in capsys.readouterr().err


def test_the_command_prints_a_line_per_family_and_the_score() -> None:
    command = [sys.executable, "-m", "highlevel.backends.conformance", "numpy", "--family", "fourier"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    family, total = done.stdout.splitlines()
    assert family.startswith("fourier") and family.endswith("0 failed")
    assert total.startswith("numpy:") and total.endswith("score 100.0 %")
