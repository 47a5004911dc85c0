"""Is a backend right? Every sample of every operator, run by it and by the interpreter, compared.

    python -m highlevel.backends.conformance NAME [--family FAMILY]

Each sample is drawn in every floating-point type and run twice: operator by operator (`Backend.run`) and as a compiled
graph (`Backend.compile`). Elementwise operators also meet NaN, ±inf, ±0 and denormals. Integers have to be equal;
tolerances of floats stand in the samples. The exit code is 0 if nothing differs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from highlevel.errors import BackendError
from highlevel.ir import REGISTRY, DType, Graph, Primitive, spec
from highlevel.ir.dtypes import FLOATS
from highlevel.ir.sample import Sample, mismatch
from highlevel.ir.trace import trace_graph

from . import registry
from .interpreter import NumpyBackend
from .protocol import Backend

Arrays = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """One comparison that went wrong."""

    operator: str
    sample: int
    dtype: str
    mode: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator}, sample {self.sample}, {self.dtype}, {self.mode}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Tally:
    """The comparisons of one family of operators."""

    family: str
    passed: int
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        lines = [f"{self.family:<14}{self.passed:>6} passed {len(self.failures):>5} failed"]
        return "\n".join([*lines, *(f"    {failure}" for failure in self.failures)])


@dataclass(frozen=True, slots=True)
class Report:
    """What `check_backend` found."""

    backend: str
    families: tuple[Tally, ...]

    @property
    def passed(self) -> int:
        return sum(tally.passed for tally in self.families)

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for tally in self.families for failure in tally.failures)

    @property
    def score(self) -> float:
        """The share of comparisons that passed, 0…1."""
        return self.passed / max(1, self.passed + len(self.failures))

    def __str__(self) -> str:
        total = self.passed + len(self.failures)
        return "\n".join(
            [*map(str, self.families), f"{self.backend}: {self.passed} of {total}, score {100 * self.score:.1f} %"]
        )


def check_backend(backend: Backend, families: Sequence[str] | None = None) -> Report:
    """Compares a backend with the interpreter on all operators, or on those of some families."""
    known = dict.fromkeys(primitive.family for primitive in REGISTRY.values())
    tallies = []
    for family in known if families is None else families:
        if family not in known:
            raise BackendError(f"there is no family {family!r} of operators", expected=", ".join(known))
        outcomes = [
            outcome
            for primitive in REGISTRY.values()
            if primitive.family == family
            for index, sample in enumerate(primitive.samples)
            for outcome in _check_sample(backend, primitive, index, sample)
        ]
        failures = tuple(outcome for outcome in outcomes if outcome is not None)
        tallies.append(Tally(family, len(outcomes) - len(failures), failures))
    return Report(backend.name, tuple(tallies))


def _check_sample(backend: Backend, primitive: Primitive, index: int, sample: Sample) -> Iterator[Failure | None]:
    """A failure or None for each type, set of operands and way to run."""
    depends_on_type = any(draw.dtype is None for draw in sample.operands)
    for dtype in FLOATS if depends_on_type else FLOATS[-1:]:
        cases = [("", sample.draw(np.random.default_rng(0), dtype))]
        if sample.special:
            cases.append((" special values", special_operands(sample, dtype)))
        for label, arrays in cases:
            for mode, reason in _check_operands(backend, primitive, sample, arrays):
                yield None if reason is None else Failure(primitive.name, index, dtype.name, mode + label, reason)


def _check_operands(
    backend: Backend, primitive: Primitive, sample: Sample, arrays: Arrays
) -> Iterator[tuple[str, str | None]]:
    """(way to run, what is wrong or None)"""
    graph = _trace(lambda *symbols: sample.apply(primitive, *symbols), arrays)
    ways: dict[str, Callable[[], list[Any]]] = {"compiled": lambda: _compiled(backend, graph, arrays)}
    if sample.function is None:  # what has sub-graphs is run by programs only
        ways["eager"] = lambda: _eager(backend, primitive, sample, arrays)
    expected = _interpret(graph, arrays)
    for mode, run in ways.items():
        yield mode, _difference(run, expected, primitive, sample)


def special_operands(sample: Sample, dtype: DType) -> list[Any]:
    """All combinations of NaN, ±inf, ±0, denormals, the largest and some ordinary numbers, one operand each."""
    tiny = np.ldexp(1.0, {"float16": -24, "bfloat16": -133, "float32": -149, "float64": -1074}[dtype.name])
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, tiny, -tiny]
    floats = [draw.dtype is None for draw in sample.operands]
    grid = np.array(list(itertools.product(values, repeat=sum(floats))), dtype=dtype.numpy)
    columns = iter(grid.T.copy())
    other = np.arange(len(grid)) % 2
    return [
        other.astype(draw.dtype.numpy) if draw.dtype is not None else next(columns) for draw in sample.operands
    ]


def _trace(function: Callable[..., Any], arrays: Arrays) -> Graph:
    return trace_graph(function, [spec(array.shape, array.dtype) for array in arrays])[0]


def _interpret(graph: Graph, arrays: Arrays) -> list[Any]:
    return [np.asarray(result) for result in NumpyBackend().compile(graph, {}).run(arrays)]


def _compiled(backend: Backend, graph: Graph, arrays: Arrays) -> list[Any]:
    results = backend.compile(graph, {}).run([backend.from_host(array) for array in arrays])
    return [np.asarray(backend.to_host(result)) for result in results]


def _eager(backend: Backend, primitive: Primitive, sample: Sample, arrays: Arrays) -> list[Any]:
    handles = backend.run(primitive, [backend.from_host(array) for array in arrays], sample.attrs)
    results = [np.asarray(backend.to_host(handle)) for handle in handles]
    if sample.invariant is None:
        return results
    return _interpret(_trace(sample.comparable, results), results)


def _difference(
    run: Callable[[], list[Any]], expected: list[Any], primitive: Primitive, sample: Sample
) -> str | None:
    try:
        results = run()
    except Exception as error:  # a backend may fail in any way; each is a finding, none ends the check
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if len(results) != len(expected):
        return f"{len(results)} results instead of {len(expected)}"
    found = (
        mismatch(got, want, sample.tolerance, elementwise=primitive.family == "elementwise")
        for got, want in zip(results, expected, strict=True)
    )
    return next((reason for reason in found if reason is not None), None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m highlevel.backends.conformance", description="Compares a backend with the interpreter."
    )
    parser.add_argument("backend", metavar="NAME", help="a registered backend")
    parser.add_argument("--family", action="append", help="only operators of this family (may be repeated)")
    options = parser.parse_args(arguments)
    try:
        report = check_backend(registry.get(options.backend), options.family)
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
