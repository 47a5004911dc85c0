"""Every test of models starts from the same seed."""

from __future__ import annotations

import pytest

import highlevel as hl


@pytest.fixture(autouse=True)
def _seeded() -> None:
    hl.set_random_seed(0)
