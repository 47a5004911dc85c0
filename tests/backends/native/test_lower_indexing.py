"""Gather and scatter in machine code, against their definition on NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel import ops
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.lower.registry import LOWERINGS
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.backends.registry import get
from highlevel.errors import ArgumentError
from highlevel.ir import REGISTRY, Spec, as_dtype, trace_graph
from highlevel.ir.dtypes import ALL

TYPES = tuple(dtype.name for dtype in ALL)
INDEX_TYPES = tuple(dtype.name for dtype in ALL if dtype.is_integer)
WITHOUT = [(), ("avx512f",), ("avx",)]
SCATTERS = ("scatter_set", "scatter_add", "scatter_max", "scatter_min")

# (shape of x, outer shape of the indices, how many axes they address)
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "rows": ((10, 37), (25,), 1),
    "an embedding": ((50, 128), (4, 9), 1),
    "two axes": ((4, 5, 19), (3, 7), 2),
    "elements": ((6, 7), (40,), 2),
    "elements of a vector": ((9,), (5, 4), 1),
    "long rows": ((3, 5, 1111), (7,), 1),
    "very long rows": ((2, 17001), (3,), 1),
    "one row": ((12, 700), (1,), 1),
    "no axis": ((3, 5), (4,), 0),
    "all axes": ((2, 3, 2, 3), (11,), 4),
    "no indices": ((5, 40), (0,), 1),
    "no columns": ((5, 0), (3,), 1),
    "nothing": ((0, 4), (0,), 1),
}


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Whole numbers of either sign, whose sums all types hold."""
    kind = as_dtype(dtype)
    if kind.is_bool:
        return rng.random(shape) < 0.5
    return rng.integers(0 if kind.kind == "uint" else -9, 10, shape).astype(kind.numpy)


def places(
    rng: np.random.Generator, x: tuple[int, ...], outer: tuple[int, ...], k: int, dtype: str = "int32"
) -> np.ndarray:
    """Indices, of which some meet."""
    columns = [rng.integers(0, size, outer) for size in x[:k]]
    return np.stack(columns, -1).astype(dtype) if k else np.zeros((*outer, 0), dtype)


def operands(name: str, case: str, dtype: str, rng: np.random.Generator, indices: str = "int32") -> list[np.ndarray]:
    shape, outer, k = CASES[case]
    arrays = [values(rng, shape, dtype), places(rng, shape, outer, k, indices)]
    return arrays if name == "gather" else [*arrays, values(rng, (*outer, *shape[k:]), dtype)]


def equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Of one type and shape, and equal; NumPy knows no NaN of half types."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if as_dtype(found.dtype).is_float:
        found, expected = found.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(found, expected)


def check(lowered: Callable, name: str, arrays: list[np.ndarray], **how: Any) -> None:
    (found,) = lowered(name, *arrays, **how)
    with np.errstate(invalid="ignore"):
        equal(found, REGISTRY[name].numpy(np, *arrays))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gather", *SCATTERS])
def test_every_shape(lowered: Callable, name: str, case: str, rng: np.random.Generator) -> None:
    check(lowered, name, operands(name, case, "float32", rng))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("without", WITHOUT)
def test_every_type(lowered: Callable, dtype: str, without: tuple[str, ...], rng: np.random.Generator) -> None:
    for name in ("gather", *SCATTERS):
        check(lowered, name, operands(name, "rows", dtype, rng), target=host(without))


@pytest.mark.parametrize("dtype", INDEX_TYPES)
def test_every_type_of_indices(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    for name in ("gather", "scatter_add"):
        check(lowered, name, operands(name, "two axes", "float32", rng, dtype))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gather", *SCATTERS])
@pytest.mark.soak
def test_every_shape_of_every_type_on_every_target(
    lowered: Callable, name: str, case: str, rng: np.random.Generator
) -> None:
    for dtype, without in itertools.product(TYPES, WITHOUT):
        check(lowered, name, operands(name, case, dtype, rng), target=host(without), nthreads=3)


@pytest.mark.parametrize("case", ["rows", "an embedding", "elements", "long rows"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_number_of_threads_gives_the_same_bits(
    lowered: Callable, case: str, dtype: str, rng: np.random.Generator
) -> None:
    shape, outer, k = CASES[case]
    x, indices, updates = operands("scatter_add", case, dtype, rng)
    x, updates = (rng.standard_normal(a.shape).astype(a.dtype) for a in (x, updates))
    indices = np.repeat(indices, 20, axis=0)  # many meet
    updates = rng.standard_normal((20 * outer[0], *outer[1:], *shape[k:])).astype(x.dtype)
    for name in SCATTERS:
        alone, *several = (lowered(name, x, indices, updates, nthreads=n)[0].tobytes() for n in (1, 2, 3, 4))
        assert all(each == alone for each in several)
    alone, *several = (lowered("gather", x, indices, nthreads=n)[0].tobytes() for n in (1, 2, 3, 4))
    assert all(each == alone for each in several)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sums_are_added_in_order_and_rounded_once(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    kind = as_dtype(dtype).numpy
    x, updates = rng.standard_normal((3, 5)).astype(kind), rng.standard_normal((400, 5)).astype(kind)
    arrays = [x, rng.integers(0, 3, (400, 1)), updates]
    (found,) = lowered("scatter_add", *arrays)
    assert found.tobytes() == REGISTRY["scatter_add"].numpy(np, *arrays).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_extremes_of_special_numbers(lowered: Callable, dtype: str, rng: np.random.Generator) -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 2.0]).astype(as_dtype(dtype).numpy)
    x, indices, updates = rng.choice(special, (4, 33)), rng.integers(0, 4, (9, 1)), rng.choice(special, (9, 33))
    for name in ("scatter_max", "scatter_min", "scatter_set"):
        check(lowered, name, [x, indices, updates])


@pytest.mark.parametrize("case", ["rows", "long rows", "elements"])
@pytest.mark.parametrize("name", ["gather", "scatter_add", "scatter_set"])
def test_code_for_aarch64_is_accepted(
    accepted_for_aarch64: Callable, name: str, case: str, rng: np.random.Generator
) -> None:
    for dtype in ("float32", "bfloat16", "float16", "bool"):
        accepted_for_aarch64(name, *operands(name, case, dtype, rng))


# Indices outside -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [-1, 4, 127, -128])
@pytest.mark.parametrize("name", ["gather", *SCATTERS])
def test_an_index_outside_is_an_error_that_names_it(lowered: Callable, name: str, bad: int) -> None:
    x, indices = np.zeros((3, 4, 5), np.float32), np.zeros((6, 2), np.int8)
    indices[4, 1] = bad
    arrays = [x, indices] if name == "gather" else [x, indices, np.ones((6, 5), np.float32)]
    for nthreads in (1, 3):
        with pytest.raises(ArgumentError, match=rf"{name}: index {bad} is outside of axis 1"):
            lowered(name, *arrays, nthreads=nthreads)


def test_large_unsigned_indices_are_outside(lowered: Callable) -> None:
    with pytest.raises(ArgumentError, match="18446744073709551615 is outside of axis 0"):
        lowered("gather", np.zeros((3, 4), np.float32), np.array([[0], [2**64 - 1]], np.uint64))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_an_index_into_nothing_is_outside(lowered: Callable, shape: tuple[int, ...]) -> None:
    x, indices, updates = np.zeros(shape), np.full((2, 1), 3), np.zeros((2, shape[1]))
    for name, arrays in (("gather", [x, indices]), ("scatter_add", [x, indices, updates])):
        with pytest.raises(ArgumentError, match="index 3 is outside of axis 0"):
            lowered(name, *arrays)


def test_programs_raise_it_and_go_on() -> None:
    backend = get("native")
    x, good, bad = np.arange(20_000.0, dtype=np.float32).reshape(5000, 4), np.full((4000, 1), 7), np.full((4000, 1), -3)
    specs = [Spec(a.shape, as_dtype(a.dtype)) for a in (x, good)]
    graph, _ = trace_graph(lambda x, i: [REGISTRY["gather"](x, i)], specs)
    program = backend.compile(graph, {})
    for indices in (good, bad, bad, good):
        handles = [backend.from_host(a) for a in (x, indices)]
        if indices is bad:
            with pytest.raises(ArgumentError, match="index -3 is outside of axis 0"):
                program.run(handles)
        else:
            np.testing.assert_array_equal(backend.to_host(program.run(handles)[0]), x[good[:, 0]])


# Tasks ---------------------------------------------------------------------------------------------------------------
def task(shared: bool) -> Any:
    """scatter_add(x, indices, updates), where updates may be x itself."""
    spec, places_ = Spec((8, 4), as_dtype("float32")), Spec((8, 1), as_dtype("int32"))
    graph, _ = trace_graph(lambda x, i, u: [REGISTRY["scatter_add"](x, i, u)], [spec, places_, spec])
    x, i, u, y = (Buffer(name, s.shape, s.dtype) for name, s in zip("xiuy", (spec, places_, spec, spec), strict=True))
    return LOWERINGS["scatter_add"](graph.outputs[0].node, [x, i, x if shared else u], [y], host())


def test_a_scatter_may_overwrite_its_operand_but_not_its_updates() -> None:
    assert task(shared=False).in_place == (("y", "x"),)
    assert task(shared=True).in_place == ()


def test_scatters_in_place_in_a_program(rng: np.random.Generator) -> None:
    x, updates = rng.standard_normal((40, 3)).astype(np.float32), rng.standard_normal((90, 3)).astype(np.float32)
    indices = rng.integers(0, 40, (90, 1))

    def function(x: Any, i: Any, u: Any) -> Any:
        y = REGISTRY["scatter_add"](ops.exp(x), i, u)
        z = REGISTRY["scatter_max"](y, i, u)
        return [REGISTRY["scatter_add"](z, i, REGISTRY["gather"](z, i)), REGISTRY["scatter_set"](x, i, u)]

    graph, _ = trace_graph(function, [Spec(a.shape, as_dtype(a.dtype)) for a in (x, indices, updates)])

    def results(backend: Any) -> list[np.ndarray]:
        handles = [backend.from_host(a) for a in (x, indices, updates)]
        return [backend.to_host(r) for r in backend.compile(graph, {}).run(handles)]

    for got, wanted in zip(results(get("native")), results(get("numpy")), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
