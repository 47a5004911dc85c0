"""Results as tables: what was promised beside what was measured, then all figures.

    python benchmarks/report.py benchmarks/results/cpu.json     # writes cpu.md again
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eager_cases import is_large

OURS = "highlevel"
NOT_PEERS = (OURS, "peak")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: written by benchmarks/run.py --publish -->", "<!-- end of figures -->"
FLOOR_WORKLOADS = ("resnet50", "transformer")


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: `measured` is to be at most (or at least) `bound`; None where it was not measured."""

    what: str
    bound: float
    measured: float | None
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def row(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        measured = "–" if self.measured is None else f"{_number(self.measured)}{self.unit}"
        verdict = {True: "yes", False: "**no**", None: "not measured"}[self.met]
        return [self.what, f"{sign} {_number(self.bound)}{self.unit}", measured, verdict]


# Figures derived from results ----------------------------------------------------------------------------------------
def best_peer(record: dict[str, Any]) -> tuple[str, float] | None:
    """The fastest peer's label, and its time ÷ ours."""
    if OURS not in record["figures"]:
        return None
    ratios = {label: row["ratio_to_ours"] for label, row in record["figures"].items() if label not in NOT_PEERS}
    return min(ratios.items(), key=lambda item: item[1]) if ratios else None


def ratios_to_best(results: dict[str, Any], kind: str) -> dict[str, float]:
    """Best peer ÷ ours by workload."""
    workloads = results.get("steps", {}).get("workloads", {})
    found = {name: best_peer(entry[kind]) for name, entry in workloads.items()}
    return {name: best[1] for name, best in found.items() if best}


def share_of_floor(results: dict[str, Any], name: str, kind: str) -> float | None:
    """The time that the arithmetic alone would take at the micro-kernel's rate of the same rounds, ÷ ours."""
    steps = results.get("steps", {})
    entry = steps.get("workloads", {}).get(name)
    flops = (entry or {}).get("count", {}).get(f"{kind}_flops")
    if not flops or not {OURS, "peak"} <= set(entry[kind]["figures"]):
        return None
    peak_per_ours = entry[kind]["figures"]["peak"]["ratio_to_ours"]
    return float(flops / steps["peak_flops_per_call"] * peak_per_ours)


def geometric_mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def targets(results: dict[str, Any]) -> list[Target]:
    """All that was promised, with what these results say."""
    found = []
    for kind, label, mean, least in (("train", "training step", 1.6, 1.1), ("infer", "inference", 1.15, 0.95)):
        ratios = ratios_to_best(results, kind)
        middle, lowest = geometric_mean(ratios.values()), min(ratios.values(), default=None)
        found.append(Target(f"{label}, best peer ÷ ours, geometric mean", mean, middle, " ×", True))
        found.append(Target(f"{label}, best peer ÷ ours, the least", least, lowest, " ×", True))
    compilation = results.get("compilation", {})
    case = compilation.get("case", "resnet50")

    def seconds(state: str, name: str) -> float | None:
        rows = compilation.get(state)
        return statistics.median(row[name] for row in rows) if rows else None

    found.append(Target(f"{case}, first training step, cold cache", 3.0, seconds("cold", "first_s"), " s"))
    found.append(Target(f"{case}, first training step, warm cache", 0.5, seconds("warm", "first_s"), " s"))
    again = seconds("warm", "other_compile_s")
    found.append(Target(f"{case}, planning for another batch size, kernels known", 0.3, again, " s"))
    for name in FLOOR_WORKLOADS:
        share = share_of_floor(results, name, "train")
        found.append(Target(f"{name}, training, share of the arithmetic floor", 0.7, share, "", True))
    ratios = [ratio for row, ratio in eager_ratios(results) if is_large(row["case"])]
    found.append(Target("eager on large tensors, ours ÷ PyTorch, the worst", 2.0, max(ratios, default=None), " ×"))
    memory = results.get("memory", {})
    rows = {label: row["steady_bytes"] for label, row in memory.items() if isinstance(row, dict) and "error" not in row}
    ours, peers = rows.pop(OURS, None), list(rows.values())
    share = ours / min(peers) if ours and peers else None
    case = memory.get("case", "resnet50")
    found.append(Target(f"{case}, peak memory of a training step, ours ÷ PyTorch", 0.7, share, " ×"))
    overhead = results.get("overhead", {})
    found.append(Target("`predict` of one sample, small MLP", 100.0, overhead.get("predict_us"), " µs"))
    found.append(Target("`train_on_batch` of one sample, small MLP", 150.0, overhead.get("train_on_batch_us"), " µs"))
    for job, label in (("lenet_example", "LeNet example"), ("demo", "`highlevel demo`")):
        found.append(Target(f"{label}, ours ÷ PyTorch", 0.7, _application_ratio(results, job), " ×"))
    return found


def eager_ratios(results: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """Cases with ours ÷ PyTorch."""
    rows = results.get("eager", {}).get("cases", [])
    both = [row for row in rows if {OURS, "torch"} <= set(row["figures"])]
    return [(row, 1 / row["figures"]["torch"]["ratio_to_ours"]) for row in both]


def _application_ratio(results: dict[str, Any], job: str) -> float | None:
    entry = results.get("applications", {}).get(job, {})
    ours, torch = (entry.get(label, {}).get("seconds") for label in (OURS, "torch"))
    return ours / torch if ours and torch else None


# Tables --------------------------------------------------------------------------------------------------------------
def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine_line(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads used; caches {caches}; "
        f"{machine['memory_gib']} GiB of memory; {machine['system']}; Python {machine['python']}, {versions}; "
        f"{machine['date']}; backend {results['backend']}; OMP_WAIT_POLICY "
        f"{results['wait'] or 'not set'}; load before the run {machine['load_before']}.\n"
    )


def steps_table(results: dict[str, Any], kind: str) -> str:
    """Times of all contestants, the best peer's ratio, the share of the floor."""
    workloads = results["steps"]["workloads"]
    labels = list(dict.fromkeys(label for entry in workloads.values() for label in entry[kind]["figures"]))
    labels = [label for label in labels if label != "peak"]
    failed = {label for entry in workloads.values() for label in entry[kind]["errors"]} - set(labels)
    labels += sorted(failed)
    rows = []
    for name, entry in workloads.items():
        record = entry[kind]
        cells = [_cell(record, label) for label in labels]
        best, share = best_peer(record), share_of_floor(results, name, kind)
        flops = entry["count"].get(f"{kind}_flops")
        rows.append(
            [
                name,
                *cells,
                f"**{best[1]:.2f}** ({best[0]})" if best else "–",
                f"{flops / 1e9:.1f}" if flops else "–",
                f"{share:.0%}" if share else "–",
            ]
        )
    return table(["ms", *labels, "best peer ÷ ours", "GFLOP", "share of the floor"], rows)


def _cell(record: dict[str, Any], label: str) -> str:
    if label in record["errors"]:
        return "failed"
    row = record["figures"].get(label)
    return f"{_number(row['ms'])} ({_number(row['low_ms'])}–{_number(row['high_ms'])})" if row else "–"


def report(results: dict[str, Any]) -> str:
    """All tables."""
    sections = (_steps, _compilation, _memory, _overhead, _eager, _applications)
    head = ["# Benchmarks on the CPU\n\n", machine_line(results), targets_table(results)]
    return "".join([*head, *[section(results) for section in sections]])


def _steps(results: dict[str, Any]) -> str:
    workloads = results.get("steps", {}).get("workloads")
    if not workloads:
        return ""
    parts = ["\n## Training step\n\n", steps_table(results, "train"), "\n## Inference\n\n"]
    parts += [steps_table(results, "infer"), "\nMedians over rounds, quartiles in brackets; ratios are medians of the "]
    parts.append("ratios within rounds.\n")
    errors = [
        f"* {name}, {kind}, {label}: `{message}`\n"
        for name, entry in workloads.items()
        for kind in ("train", "infer")
        for label, message in entry[kind]["errors"].items()
    ]
    return "".join([*parts, *(["\nFailed:\n\n", *errors] if errors else [])])


def _compilation(results: dict[str, Any]) -> str:
    found = results.get("compilation", {})
    if not found.get("cold"):
        return ""
    batch = f"batch {found['other_batch']}"
    labels = {
        "first_s": "first step",
        "step_s": "a later step",
        "compile_s": "difference",
        "other_first_s": f"first step, {batch}",
        "other_step_s": f"a later step, {batch}",
        "other_compile_s": f"difference, {batch}",
    }
    rows = []
    for name, label in labels.items():
        medians = [statistics.median(row[name] for row in found[state]) for state in ("cold", "warm")]
        rows.append([label, *map(_number, medians)])
    return f"\n## Compilation of {found['case']}\n\n" + table(["seconds", "cold cache", "warm cache"], rows)


def _memory(results: dict[str, Any]) -> str:
    found = results.get("memory", {})
    named = {label: row for label, row in found.items() if isinstance(row, dict)}
    if not named:
        return ""
    rows = [[label, _mib(row, "first_bytes"), _mib(row, "steady_bytes")] for label, row in named.items()]
    count = results.get("steps", {}).get("workloads", {}).get(found["case"], {}).get("count", {})
    planned = count.get("train_arena_bytes")
    note = f"\nPlanned arena: {planned / 2**20:,.0f} MiB.\n" if planned else ""
    head = f"\n## Memory of a training step of {found['case']}\n\n"
    return head + table(["MiB above model and data", "first step", "later steps"], rows) + note


def _overhead(results: dict[str, Any]) -> str:
    found = results.get("overhead", {})
    if "predict_us" not in found:
        return ""
    labels = {
        "predict_us": "`predict`, one sample, µs",
        "predict_on_batch_us": "`predict_on_batch`, one sample, µs",
        "train_on_batch_us": "`train_on_batch`, one sample, µs",
        "python_calls_4_layers": "calls in Python per training step, 4 layers",
        "python_calls_40_layers": "… 40 layers",
    }
    return "\n## Python\n\n" + table(["what", "figure"], [[labels[name], _number(found[name])] for name in labels])


def _eager(results: dict[str, Any]) -> str:
    rows = [
        [row["case"], *[_number(row["figures"][label]["ms"] * 1e3) for label in (OURS, "torch")], f"{ratio:.2f}"]
        for row, ratio in eager_ratios(results)
    ]
    errors = [
        f"* {row['case']}, {label}: `{message}`\n"
        for row in results.get("eager", {}).get("cases", [])
        for label, message in row["errors"].items()
    ]
    if not rows and not errors:
        return ""
    failed = ["\nFailed:\n\n", *errors] if errors else []
    return "\n## Computed at once\n\n" + table(["µs", OURS, "torch", "ours ÷ torch"], rows) + "".join(failed)


def _applications(results: dict[str, Any]) -> str:
    rows = [
        [job, label, *_application(row)]
        for job, entry in results.get("applications", {}).items()
        if isinstance(entry, dict)
        for label, row in entry.items()
    ]
    return "\n## Whole scripts\n\n" + table(["script", "by", "seconds", "accuracy"], rows) if rows else ""


def _application(row: dict[str, Any]) -> list[str]:
    return [row["error"], "–"] if "error" in row else [_number(row["seconds"]), f"{row['accuracy']:.3f}"]


def _mib(row: dict[str, Any], name: str) -> str:
    return "failed" if "error" in row else f"{row[name] / 2**20:,.0f}"


def targets_table(results: dict[str, Any]) -> str:
    return "\n" + table(["what", "target", "measured", "met"], [target.row() for target in targets(results)])


def write_report(results: dict[str, Any], path: Path) -> None:
    path.write_text(report(results), encoding="utf-8")


def publish(results: dict[str, Any], page: Path = PAGE) -> None:
    """Writes the summary into the documentation, between its marks."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    figures = f"{BEGIN}\n\n{machine_line(results)}{targets_table(results)}\n{END}"
    page.write_text(f"{before}{figures}{after}", encoding="utf-8")


if __name__ == "__main__":
    source = Path(sys.argv[1])
    write_report(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".md"))
