"""What CONTRIBUTING.md promises: one record is a whole operator.

The record is taken from the document itself and carried out in a fresh process; the operator then has its function,
its gradient, its row in the documentation, and passes the tests that every operator passes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import sys
import numpy as np
from scipy.special import entr as oracle
sys.path.insert(0, {docs!r})
from highlevel.ir.primitives.elementwise import elementwise, log, positive
{record}
import highlevel as hl
x = np.linspace(0.1, 3, 8).astype("float32")
np.testing.assert_allclose(hl.ops.entr(x).numpy(), oracle(x), rtol=1e-5, atol=1e-6)
first = hl.grad(lambda v: hl.ops.sum(hl.ops.entr(v)))
np.testing.assert_allclose(first(x).numpy(), -np.log(x) - 1, rtol=1e-5, atol=1e-6)
second = hl.grad(lambda v: hl.ops.sum(first(v)))
np.testing.assert_allclose(second(x).numpy(), -1 / x, rtol=1e-5)
inputs = hl.Input((4,))
assert hl.Model(inputs, hl.ops.entr(inputs)).output_shape == (None, 4)
import make_operators
assert "| `entr` |" in make_operators.text()
from highlevel.backends import conformance, get
report = conformance.check_backend(get("numpy"), families=["elementwise"])
print(report)
"""


def documented_record() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diff = re.search(r"```diff\n(.*?)```", text, re.S)
    assert diff is not None
    lines = [line[1:] for line in diff.group(1).splitlines() if line.startswith("+") and not line.startswith("+++")]
    return "\n".join(lines)


def test_one_record_is_a_whole_operator() -> None:
    program = PROGRAM.format(docs=str(ROOT / "docs"), record=documented_record())
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "elementwise" in done.stdout


def test_the_operators_page_is_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import make_operators
    finally:
        sys.path.pop(0)
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert page == make_operators.text(), "run python docs/make_operators.py"
