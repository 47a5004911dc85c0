"""Proof of a pass, or of one rule: shape rules asked again, values compared with the interpreter's.

Arrays are made contiguous between operators: in which order NumPy adds depends on how an array lies in memory, and
exact rules are held to equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from highlevel.errors import BackendError
from highlevel.ir.dtypes import float32, float64
from highlevel.ir.executor import executor
from highlevel.ir.graph import Graph, Node, Symbol, key_of
from highlevel.ir.spec import Spec

from .driver import sub_graphs

TOLERANCE = 64.0  # of one rule, in units of the type's resolution, relative to the size of the result
ROUNDING = 4e6  # of a whole program in float64, likewise: a relative 1e-9


# Values --------------------------------------------------------------------------------------------------------------
def evaluate(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """Arrays of the graph's results by the operators' definitions; variables are left as they are."""
    values = {key_of(symbol): array for symbol, array in zip(graph.inputs, inputs, strict=True)}
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            if node.primitive is None:
                if node.leaf is not None and node.leaf.kind != "input":
                    backend = executor()
                    array = np.asarray(backend.to_host(node.leaf.value.handle_on(backend)))
                    values[node.id, 0] = array.astype(node.specs[0].dtype.numpy)
                continue
            attrs = {**node.attrs, "wanted": (True,) * len(node.specs)} if node.primitive.selective else node.attrs
            found = node.primitive.numpy(np, *[values[key_of(symbol)] for symbol in node.inputs], **attrs)
            for index, array in enumerate(found if node.primitive.multiple else (found,)):
                values[node.id, index] = contiguous(array)
    return [values[key_of(symbol)] for symbol in graph.results]


def contiguous(array: Any) -> Any:
    array = np.asarray(array)
    return array if array.flags.c_contiguous else array.copy(order="C")


def draw(spec: Spec, rng: np.random.Generator) -> Any:
    """Plain random values; integers are 0 and 1, which index most things."""
    dtype = spec.dtype
    if dtype.is_float:
        return np.asarray(rng.standard_normal(spec.shape)).astype(dtype.numpy)
    return rng.integers(0, 2, spec.shape).astype(dtype.numpy)


def adversarial(spec: Spec, rng: np.random.Generator, *, overflow: bool = True) -> Any:
    """Numbers of which many are special: NaN, ±∞, ±0, denormals, the smallest, ±1; with `overflow` the largest, too."""
    dtype = spec.dtype
    some = rng.random(spec.shape) < 0.4
    if dtype.is_bool:
        return rng.integers(0, 2, spec.shape).astype(bool)
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        special = np.array([0, 1, 2, info.min, info.max, info.max // 2], dtype.numpy)
        small = rng.integers(max(info.min, -9), 10, spec.shape).astype(dtype.numpy)
        return np.where(some, rng.choice(special, spec.shape), small)
    limits = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    largest, tiny, least = (float(v) for v in (limits.max, limits.tiny, limits.smallest_subnormal))
    numbers = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, tiny, -tiny, least, -least]
    numbers += [largest, -largest, largest / 2] if overflow else []
    scales = [1e-3, 1.0, 30.0, 1e3] if overflow else [0.1, 1.0, 2.0]
    plain = rng.standard_normal(spec.shape) * rng.choice(scales, spec.shape)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(some, rng.choice(np.array(numbers), spec.shape), plain)).astype(dtype.numpy)


def far_from_zero(spec: Spec, rng: np.random.Generator) -> Any:
    """Numbers near one another and far from zero: what is taken apart here before they are subtracted, is lost."""
    if not spec.dtype.is_float:
        return draw(spec, rng)
    centre = rng.choice([-4096.0, 1.0, 4096.0])
    return np.asarray(centre + rng.standard_normal(spec.shape)).astype(spec.dtype.numpy)


# Comparison ----------------------------------------------------------------------------------------------------------
def differ(got: Any, expected: Any, kind: str, tolerance: float = TOLERANCE, scale: float = 0.0) -> str | None:
    """What is wrong with an array, or None, by the promise of a kind of rule; `scale`: size of what may cancel."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}"
    if got.dtype.kind in "biu":
        wrong = np.asarray(got != expected)
    else:
        a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
        if kind != "exact":
            same |= _near(a, b, got.dtype, tolerance, scale)
        if kind == "stabilizing":  # what had overflowed may be a number now
            same |= ~np.isfinite(b)
        wrong = ~same
    if not wrong.any():
        return None
    place = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(wrong)))
    shown = [np.atleast_1d(array)[place] for array in (got, expected)]
    return f"{int(wrong.sum())} of {wrong.size} differ; at {place}: {shown[0]!r} instead of {shown[1]!r}"


def _near(a: Any, b: Any, dtype: Any, tolerance: float, least: float) -> Any:
    """Finite both, and apart by no more than rounding; the scale of sums is that of the whole array."""
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    finite = np.isfinite(a) & np.isfinite(b)
    sizes = np.where(finite, np.abs(b), 0.0)
    with np.errstate(all="ignore"):
        typical = math.sqrt(float(np.mean(np.square(sizes)))) if sizes.size and math.isfinite(sizes.max()) else 0.0
        scale = np.maximum(sizes, max(typical if sizes.size and sizes.max() < 1e6 else 0.0, least))
        allowed = tolerance * (float(limits.eps) * scale + float(limits.smallest_subnormal))
        return finite & (np.abs(a - b) <= allowed)


# Graphs --------------------------------------------------------------------------------------------------------------
def check_shapes(graph: Graph) -> None:
    """Asks every shape rule again, in sub-graphs too."""
    for node in graph.nodes():
        if node.primitive is None:
            continue
        specs = node.primitive.specs(tuple([symbol.spec for symbol in node.inputs]), node.attrs)
        if specs != node.specs:
            raise BackendError(f"a pass left wrong specs at {node.name}", got=node.specs, expected=specs)
        if any(key_of(symbol)[0] >= node.id for symbol in node.inputs):
            raise BackendError("a pass left a node before its inputs", got=node)
        for body in sub_graphs(node):
            check_shapes(body)


def widened(graph: Graph) -> Graph:
    """The program with float64 in place of float32, in sub-graphs too."""
    known: dict[tuple[int, int], Symbol] = {}
    for node in [*(symbol.node for symbol in graph.inputs), *graph.nodes()]:
        if (node.id, 0) in known:
            continue
        inputs = tuple([known[key_of(symbol)] for symbol in node.inputs])
        attrs = {name: _wide(value) for name, value in node.attrs.items()}
        specs = tuple([spec.with_dtype(_wide(spec.dtype)) for spec in node.specs])
        new = Node(node.primitive, inputs, attrs, specs, node.owner, node.origin, node.leaf)
        known.update(((node.id, index), symbol) for index, symbol in enumerate(new.outputs))
    return Graph(
        tuple([known[key_of(symbol)] for symbol in graph.inputs]),
        tuple([known[key_of(symbol)] for symbol in graph.outputs]),
        graph.reads,
        tuple([(variable, known[key_of(symbol)]) for variable, symbol in graph.updates]),
    )


def _wide(value: Any) -> Any:
    return float64 if value is float32 else widened(value) if isinstance(value, Graph) else value


def check_pass(before: Graph, after: Graph, kind: str, name: str, *, seed: int = 0) -> None:
    """Raises unless a pass kept the boundary, obeyed the shape rules and computes the same on random inputs.

    Exact passes are held to equal bits. Others are looked at in float64, where rounding does not hide what is wrong.
    """
    if after is before:
        return
    check_shapes(after)
    for what, a, b in (
        ("inputs", [*map(key_of, before.inputs)], [*map(key_of, after.inputs)]),
        ("results", [symbol.spec for symbol in before.results], [symbol.spec for symbol in after.results]),
        ("reads", [id(variable) for variable, _ in before.reads], [id(variable) for variable, _ in after.reads]),
        ("updates", [id(variable) for variable, _ in before.updates], [id(variable) for variable, _ in after.updates]),
    ):
        if a != b:
            raise BackendError(f"pass {name!r} changed the {what} of a program")
    if kind != "exact":
        before, after = widened(before), widened(after)
    rng = np.random.default_rng(seed)
    inputs = [draw(symbol.spec, rng) for symbol in before.inputs]
    for position, (got, expected) in enumerate(zip(evaluate(after, inputs), evaluate(before, inputs), strict=True)):
        wrong = differ(got, expected, kind, ROUNDING)
        if wrong is not None and not _only_rounding(got, expected):
            raise BackendError(f"pass {name!r} changed result {position}", got=wrong, expected=f"{kind} equality")


def _only_rounding(got: Any, expected: Any) -> bool:
    """Whether numbers in float64 are noise: small beside 1, the size of inputs and weights."""
    return got.dtype == np.float64 and bool(np.all(np.abs(got - expected) <= 1e-12))


def count_nodes(graph: Graph) -> int:
    """Nodes, those of sub-graphs included."""

    def weight(node: Node) -> int:
        return 1 + sum(map(count_nodes, sub_graphs(node)))

    return sum(map(weight, graph.nodes()))
