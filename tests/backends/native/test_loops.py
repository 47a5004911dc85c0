"""Loop kernels as machine code against their definition, on everything that fusion makes."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from highlevel import ops
from highlevel.backends.native.cache import Object
from highlevel.backends.native.codegen.loops import emit_kernel
from highlevel.backends.native.codegen.targets import Target, aarch64, compile_ir, host
from highlevel.backends.native.devices.loader import link
from highlevel.backends.native.schedule.collapse import collapse
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.backends.native.schedule.kernel import LoopKernel, evaluate
from highlevel.ir import DType, Spec, as_dtype, trace_graph, tree

_numbers = itertools.count()


def softmax(x: Any) -> Any:
    e = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return e / ops.sum(e, axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    return centred / ops.sqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + 1e-3)


# name: (function of arrays, their shapes)
PROGRAMS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "a chain": (lambda x, y: ops.tanh(x * y + 1.0) * ops.exp(-y), [(3, 70), (3, 70)]),
    "bias and ReLU": (lambda x, b: ops.maximum(x + b, 0.0), [(5, 4, 33), (33,)]),
    "a transposed product": (lambda x, y: ops.transpose(x, (2, 0, 1)) * y, [(3, 4, 5), (5, 3, 4)]),
    "padding": (lambda x: ops.pad(x, ((1, 2), (3, 0)), constant_values=-1.0) * 2.0, [(4, 5)]),
    "padding of padding": (lambda x: ops.pad(ops.pad(x, ((1, 1), (0, 0))) + 1.0, ((0, 1), (1, 1))), [(4, 5)]),
    "a slice with steps, flipped": (lambda x: ops.flip(x[1:, ::2], axis=1) + 1.0, [(6, 9)]),
    "reshapes that divide": (lambda x: ops.swapaxes(x.reshape((3, 4, 5)), 0, 1).reshape((6, 10)) * 2.0, [(12, 5)]),
    "concatenation": (lambda x, y: ops.concatenate([x, y * 2.0, x[:, :1]], axis=1), [(4, 5), (4, 3)]),
    "iota": (lambda x: ops.where(ops.arange(7) > 3, x, -x), [(4, 7)]),
    "sum of all": (lambda x: ops.sum(x * x), [(9, 31)]),
    "sum over rows": (lambda x: ops.sum(x, axis=0), [(40, 33)]),
    "mean over images": (lambda x: ops.mean(x, axis=(1, 2)), [(2, 5, 6, 7)]),
    "extremes": (lambda x: ops.max(x, axis=1) - ops.min(x, axis=1), [(5, 33)]),
    "product": (lambda x: ops.prod(x, axis=1), [(5, 9)]),
    "softmax": (softmax, [(6, 37)]),
    "layer norm": (layer_norm, [(6, 37)]),
    "nothing": (lambda x: x[:0] * 2.0, [(3, 4)]),
    "a number": (lambda x: ops.sin(x), [()]),
}  # fmt: skip


def kernels_of(function: Callable[..., Any], shapes: list[tuple[int, ...]], dtype: str) -> tuple[LoopKernel, ...]:
    specs = [Spec(shape, as_dtype(dtype)) for shape in shapes]
    graph, _ = trace_graph(lambda *symbols: tree.leaves(function(*symbols)), specs)
    return plan_fusion(graph).kernels


def text_of(kernel: LoopKernel, dtypes: dict[str, DType], target: Target) -> tuple[str, str]:
    name = f"loops_{next(_numbers)}"
    module = ir.Module(name)
    emit_kernel(module, kernel, name, dtypes, target)
    return name, str(module)


def run(kernel: LoopKernel, buffers: dict[str, np.ndarray], target: Target, parts: int = 1) -> None:
    """Compiles a kernel and runs it, its rows cut into parts."""
    dtypes = {name: as_dtype(array.dtype) for name, array in buffers.items()}
    name, text = text_of(kernel, dtypes, target)
    library = link([Object(name, compile_ir(text, target, 0))])
    names = (*kernel.reads, *kernel.writes)
    function = library.function(name, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * len(names))
    count = kernel.rows[0][1] if kernel.rows else 1
    cuts = [count * part // parts for part in range(parts + 1)]
    for begin, end in itertools.pairwise(cuts):
        function(begin, end, *(buffers[buffer].ctypes.data for buffer in names))


def compare(name: str, dtype: str, target: Target, rng: np.random.Generator, parts: int = 1) -> None:
    function, shapes = PROGRAMS[name]
    numpy = as_dtype(dtype).numpy
    values = {f"in{i}": np.asarray(rng.standard_normal(shape) * 1.5, numpy) for i, shape in enumerate(shapes)}
    expected = dict(values)
    for kernel in kernels_of(function, shapes, dtype):
        output = kernel.outputs[0].buffer
        expected[kernel.name] = np.zeros(output.shape, output.dtype.numpy)
        found = {**expected, kernel.name: np.full(output.shape, 77, output.dtype.numpy)}
        evaluate(kernel, expected)
        run(collapse(kernel), found, target, parts)
        tolerance = {"float32": 2e-5, "float64": 1e-12, "bfloat16": 3e-2, "float16": 4e-3}.get(dtype, 0)
        got, want = (a[kernel.name].astype("float64") for a in (found, expected))
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_machine_code_gives_what_the_definition_gives(name: str, dtype: str, rng: np.random.Generator) -> None:
    compare(name, dtype, host(), rng)


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_avx512(name: str, rng: np.random.Generator) -> None:
    compare(name, "float32", host(without=("avx512f",)), rng)


@pytest.mark.parametrize("name", PROGRAMS)
def test_code_for_aarch64_is_accepted(name: str) -> None:
    function, shapes = PROGRAMS[name]
    for kernel in kernels_of(function, shapes, "float32"):
        dtypes = {buffer: as_dtype("float32") for buffer in (*kernel.reads, *kernel.writes)}
        assert compile_ir(text_of(collapse(kernel), dtypes, aarch64())[1], aarch64(), 2)


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("name", ["a chain", "softmax", "sum over rows", "sum of all"])
def test_any_cut_of_the_rows_gives_the_same_bits(name: str, parts: int, rng: np.random.Generator) -> None:
    function, shapes = PROGRAMS[name]
    values = {f"in{i}": rng.standard_normal(shape).astype("float32") for i, shape in enumerate(shapes)}
    (kernel,) = kernels_of(function, shapes, "float32")
    results = []
    for count in (1, parts):
        buffers = {**values, kernel.name: np.zeros(kernel.outputs[0].buffer.shape, "float32")}
        run(collapse(kernel), buffers, host(), count)
        results.append(buffers[kernel.name])
    np.testing.assert_array_equal(results[0], results[1])


def test_integers_and_bools(rng: np.random.Generator) -> None:
    x = rng.integers(-9, 9, (4, 17)).astype("int32")
    for function in (
        lambda x: ops.sum(x, axis=1),
        lambda x: ops.max(x, axis=0),
        lambda x: ops.any(x > 7, axis=1),
        lambda x: x // 3 + x % 4,
    ):
        expected = {"in0": x}
        for kernel in kernels_of(function, [x.shape], "int32"):
            output = kernel.outputs[0].buffer
            expected[kernel.name] = np.zeros(output.shape, output.dtype.numpy)
            found = {**expected, kernel.name: np.zeros(output.shape, output.dtype.numpy)}
            evaluate(kernel, expected)
            run(collapse(kernel), found, host())
            np.testing.assert_array_equal(found[kernel.name], expected[kernel.name])


def test_a_masked_softmax_is_exactly_zero() -> None:
    x = np.array([[0.0, -np.inf, 1.0, -np.inf]], "float32")
    (kernel,) = kernels_of(softmax, [x.shape], "float32")
    buffers = {"in0": x, kernel.name: np.ones_like(x)}
    run(collapse(kernel), buffers, host())
    assert buffers[kernel.name][0, 1] == 0.0 and buffers[kernel.name][0, 3] == 0.0
    assert np.isclose(buffers[kernel.name].sum(), 1.0)
