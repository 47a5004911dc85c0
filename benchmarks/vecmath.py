"""Times the native backend's mathematical functions beside NumPy's: ns per element of a million float32.

    python benchmarks/vecmath.py [--without avx512f] [NAME ...]

Calls of both are interleaved and medians of processor time compared, so that a busy machine disturbs both alike and
little. NumPy has no erf and no lgamma; beside them stand the interpreter's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.codegen.ufunc import ufunc
from highlevel.ir import special

COUNT = 1_000_000
CALLS = 16  # in a row, of a small array
UNIFORM = np.random.default_rng(0).uniform(-4.0, 4.0, COUNT)
POSITIVE = np.random.default_rng(1).uniform(0.01, 8.0, COUNT)
INSIDE = UNIFORM / 4.01
ROWS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "exp": (np.exp, (UNIFORM,)),
    "log": (np.log, (POSITIVE,)),
    "tanh": (np.tanh, (UNIFORM,)),
    "erf": (lambda x, out: special.erf(np, x), (UNIFORM,)),
    "sin": (np.sin, (UNIFORM,)),
    "cos": (np.cos, (UNIFORM,)),
    "pow": (np.power, (POSITIVE, UNIFORM)),
    "sqrt": (np.sqrt, (POSITIVE,)),
    "expm1": (np.expm1, (UNIFORM,)),
    "log1p": (np.log1p, (POSITIVE,)),
    "tan": (np.tan, (UNIFORM,)),
    "asin": (np.arcsin, (INSIDE,)),
    "atan": (np.arctan, (UNIFORM,)),
    "atan2": (np.arctan2, (UNIFORM, POSITIVE)),
    "sinh": (np.sinh, (UNIFORM,)),
    "cosh": (np.cosh, (UNIFORM,)),
    "asinh": (np.arcsinh, (UNIFORM,)),
    "lgamma": (lambda x, out: special.lgamma(np, x), (POSITIVE,)),
}


def measure(ours: Callable[[], Any], theirs: Callable[[], Any], count: int, rounds: int) -> tuple[float, float]:
    """Medians in ns per element, calls taking turns."""
    calls = 1 if count == COUNT else CALLS
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, found in zip((ours, theirs), times, strict=True):
            start = time.thread_time()
            for _ in range(calls):
                run()
            found.append((time.thread_time() - start) / (count * calls) * 1e9)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--without", action="append", default=[], help="a feature that the CPU shall not have")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--count", type=int, default=COUNT, help="elements; 50000 stay in the cache")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    target = host(options.without)
    print(f"{'':8}{'ours':>8}{'NumPy':>8}{'ratio':>8}   ns per element, {options.dtype}, {target.cpu}")
    for name in options.names or ROWS:
        reference, operands = ROWS[name]
        arrays = [array[: options.count].astype(options.dtype) for array in operands]
        function = ufunc(lambda k, *x, name=name: getattr(k, name)(*x), [options.dtype] * len(arrays), target)
        out, other = np.empty_like(arrays[0]), np.empty_like(arrays[0])
        with np.errstate(all="ignore"):
            ours, theirs = measure(
                lambda f=function, a=arrays, o=out: f(*a, out=o),  # type: ignore[misc]
                lambda f=reference, a=arrays, o=other: f(*a, out=o),  # type: ignore[misc]
                options.count,
                options.rounds,
            )
        print(f"{name:8}{ours:8.3f}{theirs:8.3f}{theirs / ours:8.2f}", flush=True)


if __name__ == "__main__":
    main()
