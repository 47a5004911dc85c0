"""Rounds: contestants take turns, so that what slows the machine for a while slows all of them alike.

A round is one turn of each; its figure is the median of the turn's calls. Times are medians over rounds, and ratios
medians of the ratios within rounds, which drift does not touch.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving import Worker, WorkerError

PAUSE_S = 0.03  # between turns: threads of the one before stop spinning


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to compute the workloads.

    label:   in the results; `variant` is what it is to its worker
    kinds:   of work that it can do; images: for networks on images only
    """

    label: str
    worker: Worker
    variant: str = ""
    kinds: tuple[str, ...] = ("train", "infer")
    images: bool = False

    def turn(self, case: str, kind: str, seconds: float) -> float:
        reply = self.worker.ask("turn", case=case, kind=kind, variant=self.variant, seconds=seconds)
        return statistics.median(reply["times_ms"])


@dataclass
class Comparison:
    """Figures of a case and a kind: milliseconds by contestant, one per round; first calls; errors."""

    case: str
    kind: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def ratio(self, label: str, to: str) -> float:
        """How many times as long as `to` it takes."""
        pairs = zip(self.rounds[label], self.rounds[to], strict=True)
        return statistics.median([mine / its for mine, its in pairs])

    def record(self, ours: str) -> dict[str, Any]:
        """All of it as numbers for a file."""
        rows = {}
        for label, times in self.rounds.items():
            low, middle, high = quartiles(times)
            row = {"ms": middle, "low_ms": low, "high_ms": high, "first_s": self.first_s.get(label)}
            if ours in self.rounds:
                row["ratio_to_ours"] = self.ratio(label, ours)
            rows[label] = {key: value if value is None else round(value, 4) for key, value in row.items()}
        count = max((len(times) for times in self.rounds.values()), default=0)
        return {"case": self.case, "kind": self.kind, "rounds": count, "figures": rows, "errors": self.errors}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(
    case: str,
    kind: str,
    contestants: Sequence[Contestant],
    *,
    seconds: float,
    turn_s: float,
    least_rounds: int = 3,
    say: bool = True,
) -> Comparison:
    """Rounds of all contestants, for about that many seconds. Who fails is out, and the others go on."""
    found = Comparison(case, kind)
    racing = [contestant for contestant in contestants if kind in contestant.kinds]

    def attempt(contestant: Contestant, action: Any) -> Any:
        try:
            return action()
        except WorkerError as error:
            found.errors[contestant.label] = error.summary
            racing.remove(contestant)
            if say:
                print(f"{contestant.label}, {case}, {kind}: {error.summary}\n{error.details}", file=sys.stderr)
            return None

    for contestant in list(racing):
        variant, worker = contestant.variant, contestant.worker
        request = {"case": case, "kind": kind, "variant": variant}
        reply = attempt(contestant, lambda worker=worker, request=request: worker.ask("prepare", **request))
        if reply is not None:
            found.first_s[contestant.label] = reply["first_s"]
    rounds: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    while racing and (len(rounds) < least_rounds or time.perf_counter() < end):
        times: dict[str, float] = {}
        for contestant in racing[::-1] if len(rounds) % 2 else list(racing):
            time.sleep(PAUSE_S)
            figure = attempt(contestant, lambda contestant=contestant: contestant.turn(case, kind, turn_s))
            if figure is not None:
                times[contestant.label] = figure
        rounds.append(times)
    for contestant in racing:
        found.rounds[contestant.label] = [times[contestant.label] for times in rounds]
    for contestant in list(racing):
        attempt(contestant, lambda contestant=contestant: contestant.worker.ask("release", case=case))
    return found
