"""The arithmetic that this machine is capable of, as a worker: the micro-kernel of large matrix products on data that
stay in the first-level cache, on all threads."""

from __future__ import annotations

import os
from typing import Any

from contraction import peak_program
from serving import Call, serve

from highlevel.backends.native.devices.team import Team, default_runtime


def prepare(case: str, kind: str, variant: str) -> Call:
    program, _ = peak_program(_team())
    return program


def flops() -> dict[str, Any]:
    """Of one call."""
    return {"flops": peak_program(_team())[1]}


def _team() -> Team:
    return Team(int(os.environ["HIGHLEVEL_THREADS"]), default_runtime())


if __name__ == "__main__":
    serve(prepare, flops=flops)
