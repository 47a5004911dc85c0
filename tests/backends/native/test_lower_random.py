"""Random bits in machine code: those of the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from highlevel import ops
from highlevel.backends.native.codegen import indexing as ix
from highlevel.backends.native.codegen import threefry
from highlevel.backends.native.codegen.targets import host
from highlevel.backends.native.codegen.ufunc import ufunc
from highlevel.backends.native.lower import loop_task, lower
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import Apply, Buffer, Load, LoopKernel, Number, Output, evaluate
from highlevel.ir import REGISTRY, Node, Spec, trace_graph
from highlevel.ir.dtypes import bool_, float32, uint32
from highlevel.ir.primitives import random_bits
from highlevel.ir.primitives.random import threefry as definition

KEY = np.array([0x13198A2E, 0x03707344], np.uint32)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 2), (17,), (64, 129), (0, 3), (3, 0)])
@pytest.mark.parametrize("without", [(), ("avx512f",), ("avx",)])
def test_bits_are_the_interpreters(lowered: Callable, shape: tuple[int, ...], without: tuple[str, ...]) -> None:
    (found,) = lowered("random_bits", KEY, target=host(without), shape=shape)
    np.testing.assert_array_equal(found, REGISTRY["random_bits"].numpy(np, KEY, shape=shape), strict=True)


def test_any_number_of_threads_gives_the_same_bits(lowered: Callable) -> None:
    wanted = REGISTRY["random_bits"].numpy(np, KEY, shape=(100_003,))
    for nthreads in (1, 2, 3, 4):
        (found,) = lowered("random_bits", KEY, nthreads=nthreads, shape=(100_003,))
        np.testing.assert_array_equal(found, wanted)


def test_numbers_of_elements_beyond_32_bits(rng: np.random.Generator) -> None:
    index = rng.integers(0, 2**64, 100, np.uint64)
    keys = [np.full(100, word, np.uint32) for word in KEY]
    found = ufunc(threefry.bits, ["uint32", "uint32", "uint64"])(*keys, index)
    words = definition(np, KEY.reshape(2, 1), (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32))
    np.testing.assert_array_equal(found, words[0] ^ words[1])
    np.testing.assert_array_equal(threefry.THREEFRY.numpy(np, *keys, index), words[0] ^ words[1])


def test_a_kernel_that_draws_its_own_mask(run_task: Callable) -> None:
    """x where the bits of a draw of shape (5, 70) are small, transposed: no bits in memory."""
    shape = (5, 70)
    i, j = ix.var("i", shape[0]), ix.var("j", shape[1])
    place = ix.ravel((i, j), shape)
    limit = Number(1 << 31, uint32)
    keep = Apply(REGISTRY["less"], (threefry.random_term("key", place), limit), (), bool_)
    kept = Apply(REGISTRY["select"], (keep, Load("x", place, float32), Number(0.0, float32)), (), float32)
    output = Output(Buffer("y", shape[::-1], float32), ix.ravel((j, i), shape[::-1]), kept, True)
    kernel = LoopKernel("dropout", (("j", shape[1]), ("i", shape[0])), (), (), (output,))
    x = np.arange(1.0, 351.0, dtype="float32").reshape(shape)
    wanted = np.where(REGISTRY["random_bits"].numpy(np, KEY, shape=shape) < 1 << 31, x, 0).T
    meant = np.empty(shape[::-1], "float32")
    evaluate(kernel, {"key": KEY, "x": x, "y": meant})
    np.testing.assert_array_equal(meant, wanted)
    task = loop_task(kernel, {"key": uint32, "x": float32}, host())
    found = np.empty(shape[::-1], "float32")
    run_task(task, {"key": KEY.ctypes.data, "x": x.ctypes.data, "y": found.ctypes.data}, 3)
    np.testing.assert_array_equal(found, wanted)


def test_code_for_aarch64_is_accepted(accepted_for_aarch64: Callable) -> None:
    accepted_for_aarch64("random_bits", KEY, shape=(3, 5))


def test_draws_of_all_sizes_share_their_code() -> None:
    specs = [Spec((rows, 12), uint32) for rows in (2, 1000)]
    key = Node(None, (), {}, (Spec((2,), uint32),), 0).outputs[0]
    nodes = [Node(REGISTRY["random_bits"], (key,), {"shape": spec.shape}, (spec,), 0) for spec in specs]
    buffers = [Buffer("bits", node.specs[0].shape, uint32) for node in nodes]
    tasks = [lower(n, [Buffer("key", (2,), uint32)], [b], host()) for n, b in zip(nodes, buffers, strict=True)]
    assert len({call.unit.key for task in tasks for call in task.phases}) == 1


def kernels_of(function: Callable, shape: tuple[int, ...]) -> tuple[LoopKernel, ...]:
    specs = [Spec(shape, float32), Spec((2,), uint32)]
    graph, _ = trace_graph(lambda x, key: [function(x, key)], specs)
    return plan_fusion(graph).kernels


def test_dropout_is_one_kernel_and_stores_no_mask() -> None:
    def dropout(x: Any, key: Any) -> Any:
        bits = random_bits(key, shape=x.shape)
        return ops.where(bits < 1 << 30, x, 0.0)

    (kernel,) = kernels_of(dropout, (6, 33))
    assert set(kernel.reads) == {"in0", "in1"}
    x = np.arange(1.0, 199.0, dtype="float32").reshape(6, 33)
    buffers = {"in0": x, "in1": KEY, kernel.name: np.empty_like(x)}
    evaluate(kernel, buffers)
    bits = random_bits.numpy(np, KEY, shape=x.shape)
    np.testing.assert_array_equal(buffers[kernel.name], np.where(bits < 1 << 30, x, 0))


def test_what_is_repeated_is_drawn_once() -> None:
    def noise(x: Any, key: Any) -> Any:
        return x * ops.cast(random_bits(key, shape=(4, 1, 8)), "float32")

    draw, product = kernels_of(noise, (4, 5, 8))
    assert (draw.outputs[0].buffer.shape, product.outputs[0].buffer.shape) == ((4, 1, 8), (4, 5, 8))
    assert "threefry" in str(draw) and "threefry" not in str(product)
