"""Reductions over sliding windows in machine code, against their definition on NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel import ops
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.lower import window
from highlevel.backends.native.lower.registry import LOWERINGS
from highlevel.backends.native.schedule.kernel import Buffer
from highlevel.backends.registry import get
from highlevel.ir import REGISTRY, Spec, as_dtype, trace_graph
from highlevel.ir.dtypes import ALL

TYPES = tuple(dtype.name for dtype in ALL if not dtype.is_bool)
WITHOUT = [(), ("avx512f",), ("avx",)]
NAMES = ("window_sum", "window_max", "window_max_grad", "window_max_take")


def geometry(window: Any, strides: Any, padding: Any = None, dilation: Any = None) -> dict[str, Any]:
    rank = len(window)
    padding = padding or ((0, 0),) * rank
    return {"window": window, "strides": strides, "padding": padding, "dilation": dilation or (1,) * rank}


# (shape of x, geometry): what networks have, and what is hard
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2x2/2, 6 channels": ((3, 8, 10, 6), geometry((2, 2), (2, 2))),
    "2x2/2, a row left over": ((2, 7, 9, 5), geometry((2, 2), (2, 2))),
    "3x3/2, padded": ((2, 14, 12, 19), geometry((3, 3), (2, 2), ((1, 1), (1, 1)))),
    "3x3/2, padded at the end": ((2, 9, 11, 8), geometry((3, 3), (2, 2), ((0, 1), (0, 1)))),
    "3x3/1, padded": ((2, 7, 8, 70), geometry((3, 3), (1, 1), ((1, 1), (1, 1)))),
    "global": ((3, 7, 7, 40), geometry((7, 7), (1, 1))),
    "global, one image and many channels": ((1, 5, 6, 600), geometry((5, 6), (5, 6))),
    "7x7/3, of which most overlap": ((1, 16, 17, 3), geometry((7, 7), (3, 3), ((3, 2), (1, 4)))),
    "larger than is written out": ((1, 19, 20, 4), geometry((13, 12), (2, 3), ((4, 5), (7, 2)))),
    "large, dilated": ((1, 25, 26, 2), geometry((12, 11), (3, 2), ((4, 5), (7, 2)), (2, 2))),
    "steps larger than windows": ((2, 11, 13, 4), geometry((2, 2), (3, 4), ((1, 0), (0, 1)))),
    "dilated": ((2, 9, 12, 7), geometry((3, 2), (2, 1), ((1, 1), (0, 0)), (2, 3))),
    "windows without an element": ((2, 2, 1, 3), geometry((2, 2), (1, 1), ((2, 2), (2, 1)), (4, 3))),
    "one axis": ((3, 20, 5), geometry((4,), (2,), ((1, 1),))),
    "three axes": ((2, 5, 6, 7, 3), geometry((2, 3, 2), (2, 1, 2), ((0, 1), (1, 1), (0, 0)))),
    "three axes, 3x3x3/2": ((1, 6, 7, 8, 9), geometry((3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (1, 1)))),
    "one channel": ((2, 9, 9, 1), geometry((3, 3), (2, 2), ((1, 1), (1, 1)))),
    "windows of one": ((2, 5, 6, 3), geometry((1, 1), (2, 2))),
    "no images": ((0, 5, 6, 3), geometry((3, 3), (2, 2))),
    "no channels": ((2, 5, 6, 0), geometry((3, 3), (2, 2))),
    "no elements": ((2, 0, 6, 3), geometry((2, 2), (1, 1), ((1, 1), (0, 0)))),
}


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Few different numbers, so that there are ties; floats with infinities, NaN and both zeros."""
    kind = as_dtype(dtype)
    if kind.is_float:
        x = rng.choice([-np.inf, -1.5, -0.0, 0.0, 0.25, 2.0, 3.0], shape, p=[0.3, *[0.1] * 5, 0.2])
        return np.where(rng.random(shape) < 0.03, np.nan, x).astype(kind.numpy)
    limits = np.iinfo(kind.numpy)
    return rng.choice(np.array([limits.min, limits.max, 1, limits.max // 2], kind.numpy), shape)


def operands(name: str, shape: tuple[int, ...], attrs: dict[str, Any], dtype: str, rng: np.random.Generator) -> list:
    """x, and what goes with it: whole numbers, whose sums are exact in any order."""
    kind = as_dtype(dtype)
    if name == "window_sum":
        return [rng.integers(0, 4, shape).astype(kind.numpy)]
    x = drawn(rng, shape, dtype)
    if name == "window_max":
        return [x]
    like = Spec(shape, kind) if name == "window_max_take" else REGISTRY["window_max"].infer(Spec(shape, kind), **attrs)
    return [x, rng.integers(0, 4, like.shape).astype(kind.numpy)]


def check(lowered: Callable, name: str, arrays: list, attrs: dict[str, Any], **how: Any) -> None:
    (found,) = lowered(name, *arrays, **how, **attrs)
    with np.errstate(invalid="ignore"):
        expected = REGISTRY[name].numpy(np, *arrays, **attrs)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype.itemsize == 2 and as_dtype(found.dtype).is_float:  # NumPy knows no NaN there
        found, expected = found.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_every_geometry(lowered: Callable, name: str, case: str, rng: np.random.Generator) -> None:
    shape, attrs = CASES[case]
    check(lowered, name, operands(name, shape, attrs, "float32", rng), attrs)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("without", WITHOUT)
def test_every_type(lowered: Callable, dtype: str, without: tuple[str, ...], rng: np.random.Generator) -> None:
    for case in ("3x3/2, padded", "2x2/2, a row left over"):
        shape, attrs = CASES[case]
        for name in NAMES:
            check(lowered, name, operands(name, shape, attrs, dtype, rng), attrs, target=host(without))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.soak
def test_every_geometry_of_every_type_on_every_target(
    lowered: Callable, name: str, case: str, rng: np.random.Generator
) -> None:
    shape, attrs = CASES[case]
    for dtype, without in itertools.product(TYPES, WITHOUT):
        check(lowered, name, operands(name, shape, attrs, dtype, rng), attrs, target=host(without))


@pytest.mark.parametrize("case", ["3x3/2, padded", "2x2/2, 6 channels", "global", "larger than is written out"])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads_gives_the_same_bits(
    lowered: Callable, name: str, case: str, rng: np.random.Generator
) -> None:
    shape, attrs = CASES[case]
    x, *others = operands(name, (5, *shape[1:-1], 60), attrs, "float32", rng)
    if name == "window_sum":
        x = rng.standard_normal(x.shape).astype(np.float32)
    others = [rng.standard_normal(other.shape).astype(np.float32) for other in others]
    alone, *several = ([r.tobytes() for r in lowered(name, x, *others, nthreads=n, **attrs)] for n in (1, 2, 3, 4))
    assert all(each == alone for each in several)


@pytest.mark.parametrize("case", ["3x3/2, padded", "global", "one axis", "windows without an element"])
@pytest.mark.parametrize("name", NAMES)
def test_code_for_aarch64_is_accepted(
    accepted_for_aarch64: Callable, name: str, case: str, rng: np.random.Generator
) -> None:
    shape, attrs = CASES[case]
    for dtype in ("float32", "bfloat16", "float16", "uint8"):
        accepted_for_aarch64(name, *operands(name, shape, attrs, dtype, rng), **attrs)


def random_geometry(rng: np.random.Generator) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A shape and a geometry that fit each other."""
    rank = int(rng.integers(1, 4))
    window, strides, dilation = (tuple(map(int, rng.integers(1, 4, rank))) for _ in range(3))
    extents = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    padding = tuple((int(rng.integers(0, e)), int(rng.integers(0, e))) for e in extents)
    sizes = [
        max(0, e - low - high) + int(rng.integers(0, 5)) for e, (low, high) in zip(extents, padding, strict=True)
    ]
    shape = (int(rng.integers(1, 3)), *sizes, int(rng.choice([1, 3, 8, 17, 33, 150])))
    return shape, geometry(window, strides, padding, dilation)


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(i, marks=pytest.mark.soak) for i in range(12, 300))])
def test_random_geometries(lowered: Callable, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, attrs = random_geometry(rng)
    assert math.prod(shape) < 1 << 20
    for name in NAMES:
        dtype = str(rng.choice(["float32", "float64", "bfloat16", "int32"]))
        arrays = operands(name, shape, attrs, dtype, rng)
        check(lowered, name, arrays, attrs, nthreads=int(rng.integers(1, 5)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("k", [2, 3])
def test_large_gradients_are_written_past_the_caches(
    lowered: Callable, k: int, dtype: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(window, "STREAMED_BYTES", 0)
    attrs = geometry((k, k), (2, 2))
    x, g = operands("window_max_grad", (3, 12, 14, 64), attrs, dtype, rng)
    x[np.isnan(x)] = 0
    for without in WITHOUT:
        check(lowered, "window_max_grad", [x, g], attrs, target=host(without))  # wherever the result may begin
    graph, _ = trace_graph(  # … and at the beginning of a cache line: inside of a program
        lambda x, g: [ops.sum(REGISTRY["window_max_grad"](x, g, **attrs), axis=0)],
        [Spec(a.shape, as_dtype(a.dtype)) for a in (x, g)],
    )
    backend = get("native")
    (found,) = backend.compile(graph, {}).run([backend.from_host(a) for a in (x, g)])
    expected = REGISTRY["window_max_grad"].numpy(np, x, g, **attrs).astype(np.float64).sum(axis=0)
    np.testing.assert_array_equal(backend.to_host(found).astype(np.float64), expected)


def test_sums_of_large_windows_stay_exact(lowered: Callable, rng: np.random.Generator) -> None:
    x = rng.random((1, 200, 210, 3)).astype(np.float32)
    (found,) = lowered("window_sum", x, **geometry((200, 210), (1, 1)))
    np.testing.assert_allclose(found, x.sum(axis=(1, 2), keepdims=True, dtype=np.float64), rtol=1e-6)


def test_the_batch_is_no_part_of_the_code() -> None:
    def units(batch: int) -> list[str]:
        attrs = geometry((3, 3), (2, 2), ((1, 1), (1, 1)))
        x, g = Spec((batch, 12, 12, 8), as_dtype("float32")), Spec((batch, 6, 6, 8), as_dtype("float32"))
        found = []
        for name, specs in (("window_max", [x]), ("window_max_grad", [x, g])):
            graph, _ = trace_graph(lambda *a, name=name: [REGISTRY[name](*a, **attrs)], specs)
            node = graph.outputs[0].node
            buffers = [Buffer(f"b{i}", s.shape, s.dtype) for i, s in enumerate((*specs, *node.specs))]
            task = LOWERINGS[name](node, buffers[:-1], buffers[-1:], host())
            found += [call.unit.key for call in task.phases]
        return found

    assert units(2) == units(64)
