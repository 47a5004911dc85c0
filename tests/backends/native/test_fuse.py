"""Fusion against the interpreter: the kernels of a program, run by their definition, give what the program gives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import ops
from highlevel.backends.native.passes.pipeline import run_passes
from highlevel.backends.native.schedule.contraction import Contraction
from highlevel.backends.native.schedule.contraction import evaluate as evaluate_contraction
from highlevel.backends.native.schedule.fuse import Fusion, is_loop, plan_fusion
from highlevel.backends.native.schedule.kernel import LoopKernel, evaluate, format_term
from highlevel.ir import Graph, Spec, as_dtype, trace_graph
from highlevel.ir.evaluate import Program
from highlevel.ir.graph import key_of


def traced(function: Callable[..., Any], arrays: list[np.ndarray]) -> Graph:
    """The program of a function, calls written out."""
    specs = [Spec(array.shape, as_dtype(array.dtype)) for array in arrays]
    graph, _ = trace_graph(lambda *symbols: list(hl.tree.leaves(function(*symbols))), specs)
    return graph


def run(graph: Graph, fusion: Fusion, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Kernels and contractions by their definition, all other nodes by the interpreter's, as soon as they can run."""
    storage = {b.name: np.full(b.shape, 111, b.dtype.numpy) for b in fusion.buffers.values()}
    ready = set[str]()

    def buffer(symbol: Any) -> str:
        name = fusion.buffers[key_of(symbol)].name
        return fusion.aliases.get(name, name)

    def value(symbol: Any) -> np.ndarray:
        return storage[buffer(symbol)].reshape(symbol.shape)

    for symbol, array in zip(graph.inputs, arrays, strict=True):
        if key_of(symbol) in fusion.buffers:
            storage[buffer(symbol)] = array
            ready.add(buffer(symbol))
    tasks: list[tuple[set[str], tuple[str, ...], Callable[[], None]]] = []
    for kernel in fusion.kernels:
        assert not set(kernel.reads) & set(kernel.writes)
        tasks.append((set(kernel.reads), kernel.writes, lambda kernel=kernel: evaluate(kernel, storage)))
    for node in graph.nodes():
        if node.leaf is not None:
            if node.leaf.kind == "constant":
                storage[fusion.buffers[node.id, 0].name] = node.leaf.value.numpy()
            ready.add(fusion.buffers[node.id, 0].name)
        elif node.id in fusion.contractions:
            contraction = fusion.contractions[node.id]
            reads, writes = contraction.reads, (contraction.result.buffer.name,)
            tasks.append((set(reads), writes, lambda c=contraction: evaluate_contraction(c, storage)))
        elif not is_loop(node):

            def other(node: Any = node) -> None:
                found = node.primitive.numpy(np, *map(value, node.inputs), **node.attrs)
                for symbol, array in zip(node.outputs, found if node.primitive.multiple else [found], strict=True):
                    storage[buffer(symbol)] = np.asarray(array)

            tasks.append(({buffer(s) for s in node.inputs}, tuple(buffer(s) for s in node.outputs), other))
    written = [name for _, writes, _ in tasks for name in writes]
    assert len(set(written)) == len(written), "a buffer is written once"
    while tasks:
        able = [task for task in tasks if task[0] <= ready]
        assert able, "tasks wait for each other"
        for _, writes, compute in able:
            compute()
            ready.update(writes)
        tasks = [task for task in tasks if task not in able]
    return [value(symbol) for symbol in graph.results]


def softmax(x: Any) -> Any:
    e = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
    return e / ops.sum(e, axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    mean = ops.mean(x, axis=-1, keepdims=True)
    square = (x - mean) * (x - mean)
    return (x - mean) / ops.sqrt(ops.mean(square, axis=-1, keepdims=True) + 1e-3)


def cross_entropy(x: Any) -> Any:
    top = ops.max(x, axis=-1, keepdims=True)
    return ops.mean(ops.log(ops.sum(ops.exp(x - top), axis=-1)) + top[:, 0] - x[:, 0])


ROWS = (4, 5)
# name: (function, shapes of its operands, number of kernels)
PROGRAMS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "a chain": (lambda x: ops.tanh(x * 2.0 + 1.0) * x, [ROWS], 1),
    "two operands": (lambda x, y: (x + y) * ops.exp(-y), [ROWS, ROWS], 1),
    "broadcast": (lambda x, y: x * y[:, None] + y[None, :4].reshape((4, 1)), [ROWS, (4,)], 1),
    "movement alone": (lambda x: ops.flip(ops.transpose(x), axis=0)[1:, ::2].reshape((-1,)), [ROWS], 1),
    "padding and slices": (lambda x: ops.pad(x, ((1, 2), (0, 1)), constant_values=3.0)[1:, :4] * 2.0, [ROWS], 1),
    "concatenation": (lambda x, y: ops.concatenate([ops.exp(x), y, x[:, :2]], axis=1) + 1.0, [ROWS, (4, 3)], 1),
    "iota and select": (lambda x: ops.where(ops.arange(5) > 2, x, -x), [ROWS], 1),
    "sum": (lambda x: ops.sum(x * x, axis=1), [ROWS], 1),
    "sum of all": (lambda x: ops.sum(x), [ROWS], 1),
    "mean with what follows": (lambda x: ops.sqrt(ops.mean(x * x, axis=0) + 1.0), [ROWS], 1),
    "maximum over a middle axis": (lambda x: ops.max(x, axis=1) - ops.min(x, axis=1), [(3, 4, 5)], 1),
    "softmax": (softmax, [ROWS], 1),
    "layer norm": (layer_norm, [ROWS], 1),
    "cross-entropy": (cross_entropy, [ROWS], 2),
    "sums over different axes": (lambda x: x - ops.sum(x, axis=0) + ops.sum(x, axis=1, keepdims=True), [ROWS], 2),
    "a total of everything, used everywhere": (lambda x: x / ops.sum(x), [ROWS], 1),
    "a matrix product between": (lambda x, y: ops.tanh(ops.matmul(x + 1.0, y)) * 2.0, [ROWS, (5, 3)], 2),
    "two users of something dear": (lambda x: (ops.sum(ops.exp(x), 0), ops.matmul(ops.exp(x), x.T)), [ROWS], 1),
    "nothing": (lambda x: x[:0] * 2.0, [ROWS], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_kernels_give_what_the_program_gives(name: str, dtype: str, rng: np.random.Generator) -> None:
    function, shapes, count = PROGRAMS[name]
    arrays = [(rng.standard_normal(shape) + 0.1).astype(as_dtype(dtype).numpy) for shape in shapes]
    graph = traced(function, arrays)
    fusion = plan_fusion(graph)
    program = Program(graph)
    expected = program.run(np, arrays, [leaf.value.numpy() for _, leaf in program.leaves])
    for found, value in zip(run(graph, fusion, arrays), expected, strict=True):
        assert found.dtype == value.dtype and found.shape == value.shape
        tolerance = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 2e-2}[dtype]
        np.testing.assert_allclose(found.astype("float64"), value.astype("float64"), rtol=tolerance, atol=tolerance)
    assert len(fusion.kernels) == count, "\n".join(map(str, fusion.kernels))


def kernels_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[LoopKernel, ...]:
    return plan_fusion(traced(function, [np.zeros(shape, "float32") for shape in shapes])).kernels


def test_softmax_reads_as_its_formula() -> None:
    (kernel,) = kernels_of(softmax, (4, 5))
    text = str(kernel)
    assert "rows i0 < 4; columns i1 < 5" in text
    assert "t0 = max in0[(i0*5 + i1)]" in text
    assert "t1 = sum exp(sub(in0[(i0*5 + i1)], t0))" in text
    assert "= div(exp(sub(in0[(i0*5 + i1)], t0)), t1)" in text


def test_padding_is_a_choice() -> None:
    (kernel,) = kernels_of(lambda x: ops.pad(x, ((1, 1), (0, 0))), (2, 3))
    assert "(in0[(i0*3 + i1 + -3)] if 1 <= i0 < 3 else 0.0)" in str(kernel)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_training_step(name: str, rng: np.random.Generator) -> None:
    """All loop kernels of a real step; everything else by the interpreter."""
    if name == "mlp":
        model = hl.Sequential(
            [hl.Input((6,)), hl.layers.Dense(5, activation="tanh"), hl.layers.LayerNormalization(), hl.layers.Dense(3)]
        )
    else:
        model = hl.Sequential(
            [
                hl.Input((8, 8, 2)),
                hl.layers.Conv2D(3, 3, padding="same"),
                hl.layers.BatchNormalization(),
                hl.layers.ReLU(),
                hl.layers.GlobalAveragePooling2D(),
                hl.layers.Dense(3),
            ]
        )
    weights = model.trainable_variables
    x = rng.standard_normal((4, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, 3, 4).astype("int32")
    loss = hl.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x: Any, y: Any, *values: Any) -> Any:
        for variable, value in zip(weights, values, strict=True):
            variable.assign(value)
        total = loss(y, model(x, training=True))
        return [total, *hl.gradients(total, list(values))]

    arrays = [x, y, *(variable.numpy().copy() for variable in weights)]
    graph = traced(step, arrays)
    graph = Graph(graph.inputs, graph.outputs)
    program = Program(graph)
    leaves = [leaf.value.numpy() for _, leaf in program.leaves]
    expected = program.run(np, arrays, leaves)
    fusion = plan_fusion(graph)
    variables = {
        fusion.buffers[n.id, 0].name: n.leaf.value.numpy()
        for n in graph.nodes()
        if n.leaf and n.leaf.kind == "variable"
    }
    assert not variables or name == "cnn"
    for found, value in zip(run(graph, fusion, arrays), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    loops = [node for node in graph.nodes() if is_loop(node)]
    assert len(fusion.kernels) < 0.4 * len(loops), f"{len(fusion.kernels)} kernels of {len(loops)} operators"


# Passes over memory --------------------------------------------------------------------------------------------------
def planned(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Fusion:
    """The plan of a function after all passes."""
    return plan_fusion(run_passes(traced(function, [np.zeros(shape, "float32") for shape in shapes])))


def volumes(fusion: Fusion, size: int) -> float:
    """How often kernels read or write something as large as `size` float32 numbers."""
    sizes = {b.name: math.prod(b.shape) * b.dtype.size_bytes / 4 for b in fusion.buffers.values()}
    moved = [sizes[name] for kernel in fusion.kernels for name in (*kernel.reads, *kernel.writes)]
    return sum(n for n in moved if 8 * n > size) / size


def normalised(y: Any, gamma: Any, beta: Any, axes: tuple[int, ...]) -> Any:
    """Batch normalisation in training, layer normalisation: what the layers compute."""
    mean = ops.mean(y, axis=axes, keepdims=True)
    variance = ops.mean((y - mean) * (y - mean), axis=axes, keepdims=True)
    scale = ops.rsqrt(variance + 1e-3) * gamma if axes[-1] != y.ndim - 1 else ops.rsqrt(variance + 1e-3)
    if axes[-1] == y.ndim - 1:
        return (y - mean) * scale * gamma + beta
    return y * scale + (beta - mean * scale)


IMAGES, CHANNELS = (8, 6, 6, 16), (16,)
COUNT = math.prod(IMAGES)


def test_statistics_and_what_follows_are_one_pass_each() -> None:
    """Batch normalisation: one pass for mean and variance, one that applies them, with the relu."""
    fusion = planned(lambda y, g, b: ops.relu(normalised(y, g, b, (0, 1, 2))), IMAGES, CHANNELS, CHANNELS)
    statistics, apply = fusion.kernels
    assert [stage.centre for stage in statistics.stages] == [None, "t0"]
    assert not apply.columns and not apply.stages
    assert volumes(fusion, COUNT) == 3


def test_the_gradient_of_batch_normalisation_is_two_passes() -> None:
    """One that totals g and g·x̂, one that applies them, each making the relu's mask again of what it reads anyway."""

    def function(y: Any, gamma: Any, beta: Any, g: Any) -> Any:
        z = ops.relu(normalised(y, gamma, beta, (0, 1, 2)))
        return [z, *hl.gradients(ops.sum(z * g), [y, gamma, beta])]

    fusion = planned(function, IMAGES, CHANNELS, CHANNELS, IMAGES)
    sums = [kernel for kernel in fusion.kernels if len(kernel.stages) > 1 and not kernel.stages[1].centre]
    assert len(sums) == 1, "both totals in one kernel"
    assert not [b for b in fusion.buffers.values() if b.dtype.is_bool], "no mask is stored"
    # 3 forward; g and y twice, dy once – and once y for Σ (y − mean), which is zero but for rounding
    assert volumes(fusion, COUNT) <= 9
    assert len(fusion.kernels) <= 5


def test_a_residual_block_reads_its_shortcut_once() -> None:
    def function(y: Any, skip: Any, gamma: Any, beta: Any, g: Any) -> Any:
        z = ops.relu(normalised(y, gamma, beta, (0, 1, 2)) + skip)
        return [z, *hl.gradients(ops.sum(z * g), [y, skip, gamma, beta])]

    fusion = planned(function, IMAGES, IMAGES, CHANNELS, CHANNELS, IMAGES)
    # y; y, skip and g to z and what goes on to the skip; that and y; that and y to dy – and once y, as above
    assert volumes(fusion, COUNT) <= 1 + 5 + 2 + 3 + 1


def test_layer_normalisation_is_a_kernel_and_its_gradient_two() -> None:
    def function(x: Any, gamma: Any, beta: Any, g: Any) -> Any:
        y = normalised(x, gamma, beta, (1,))
        return [y, *hl.gradients(ops.sum(y * g), [x, gamma, beta])]

    fusion = planned(function, (32, 64), (64,), (64,), (32, 64))
    rows = [kernel for kernel in fusion.kernels if kernel.rows == (("i0", 32),)]
    columns = [kernel for kernel in fusion.kernels if kernel.rows == (("i1", 64),)]
    assert len(rows) + len(columns) == len(fusion.kernels) <= 3
    assert len(columns) == 1 and len(columns[0].outputs) == 2, "the gradients of gamma and beta together"


def test_cross_entropy_with_its_gradient_is_a_kernel_and_a_total() -> None:
    def function(x: Any, labels: Any) -> Any:
        loss = hl.losses.SparseCategoricalCrossentropy(from_logits=True)(ops.cast(labels, "int32"), x)
        return [loss, hl.gradients(loss, x)]

    fusion = planned(function, (32, 10), (32,))
    assert len(fusion.kernels) <= 2
    assert volumes(fusion, 320) <= 3, "logits twice, their gradient once"


def test_attention_copies_nothing() -> None:
    """Heads are views; products are written where they are needed; only the softmax is a kernel."""

    def function(x: Any, g: Any, wq: Any, wk: Any, wv: Any, wo: Any) -> Any:
        def heads(w: Any) -> Any:
            return ops.transpose(ops.reshape(ops.matmul(x, w), (2, 12, 4, 8)), (0, 2, 1, 3))

        scores = ops.matmul(heads(wq), ops.swapaxes(heads(wk), -1, -2)) * 0.35
        mixed = ops.matmul(ops.softmax(scores), heads(wv))
        y = ops.matmul(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (24, 32)), wo)
        return [y, *hl.gradients(ops.sum(y * g), [x, wq, wk, wv, wo])]

    fusion = planned(function, (24, 32), (24, 32), *[(32, 32)] * 4)
    assert sum(len(kernel.stages) for kernel in fusion.kernels) == 3, "of the softmax and of its gradient"
    assert all(kernel.stages for kernel in fusion.kernels)
    assert sum(not contraction.result.is_contiguous for contraction in fusion.contractions.values()) >= 4


def test_adam_is_one_pass_for_each_parameter() -> None:
    def function(w: Any, m: Any, v: Any, g: Any, rate: Any) -> Any:
        m = m + 0.1 * (g - m)
        v = v + 0.001 * (g * g - v)
        return w - rate * m / (ops.sqrt(v) + 1e-7), m, v

    fusion = planned(function, (30, 20), (30, 20), (30, 20), (30, 20), ())
    (kernel,) = fusion.kernels
    assert len(kernel.outputs) == 3 and set(kernel.reads) == {"in0", "in1", "in2", "in3", "in4"}


def test_a_step_of_dense_layers_does_nothing_but_products_and_updates() -> None:
    """Bias and relu end the products, forward and backward; gradients of biases are totalled where they are updated."""
    dense = [hl.layers.Dense(size, activation) for size, activation in ((32, "relu"), (32, "relu"), (5, None))]
    model = hl.Sequential([hl.Input((24,)), *dense])
    model.compile(hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((16, 24), "float32"), np.zeros(16, "int32")
    model(x)
    graph = run_passes(model.trainer._train.graph(hl.ir.Tensor.of(x), hl.ir.Tensor.of(y), None))
    fusion = plan_fusion(graph)
    epilogues = [c.epilogue for c in fusion.contractions.values() if c.epilogue is not None]
    assert len(fusion.contractions) == 8 and len(epilogues) == 5
    assert not any(16 * 32 in (math.prod(b.shape),) for k in fusion.kernels for b in [o.buffer for o in k.outputs])
    # per layer an update of its kernel and one of its bias; the loss, its total, and the step's scalars
    assert len(fusion.kernels) == 6 + 3, "\n".join(map(str, fusion.kernels))


def test_unrelated_kernels_stay_apart() -> None:
    assert len(planned(lambda x, y: (ops.exp(x), ops.exp(y)), (8, 5), (8, 5)).kernels) == 2
    assert len(planned(lambda x, y: (ops.exp(x), x * y), (8, 5), (8, 5)).kernels) == 1


def test_dropout_and_its_gradient_share_a_mask() -> None:
    def function(x: Any, g: Any, key: Any) -> Any:
        keep = hl.ir.primitives.random_bits(ops.cast(key, "uint32"), shape=(8, 32)) < 1 << 30
        y = ops.where(keep, x * 2.0, 0.0)
        return [ops.exp(y), hl.gradients(ops.sum(ops.exp(y) * g), x)]

    fusion = planned(function, (8, 32), (8, 32), (2,))
    (main,) = [kernel for kernel in fusion.kernels if "in0" in kernel.reads]
    assert len(main.outputs) == 2


def residual_network() -> hl.Model:
    """ResNet-50, for small pictures."""

    def conv(x: Any, filters: int, size: int, stride: int = 1, relu: bool = True) -> Any:
        x = hl.layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        x = hl.layers.BatchNormalization()(x)
        return hl.layers.ReLU()(x) if relu else x

    inputs = hl.Input((32, 32, 3))
    x, channels = conv(inputs, 8, 7, 2), 8
    for width, blocks, first in ((8, 3, 1), (16, 4, 2), (24, 6, 2), (32, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            shortcut = x if (stride, channels) == (1, 4 * width) else conv(x, 4 * width, 1, stride, relu=False)
            y = conv(conv(conv(x, width, 1), width, 3, stride), 4 * width, 1, relu=False)
            x, channels = hl.layers.ReLU()(hl.layers.Add()([y, shortcut])), 4 * width
    return hl.Model(inputs, hl.layers.Dense(10)(hl.layers.GlobalAveragePooling2D()(x)))


def test_a_large_step_is_planned_quickly() -> None:
    """6000 nodes become 525 tasks: 161 contractions, a few passes for each batch normalisation, and updates."""
    model = residual_network()
    model.compile(hl.optimizers.Adam(1e-3), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((4, 32, 32, 3), "float32"), np.zeros(4, "int32")
    graph = run_passes(model.trainer._train.graph(hl.ir.Tensor.of(x), hl.ir.Tensor.of(y), None))
    times = []
    for _ in range(3):
        start = time.process_time()
        fusion = plan_fusion(graph)
        times.append(time.process_time() - start)
    assert len(fusion.contractions) == 161
    assert len(fusion.kernels) <= 370
    assert min(times) < 0.4, "about 0.08 s on a machine with nothing else to do"


# Contractions --------------------------------------------------------------------------------------------------------
def contraction_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Contraction:
    (found,) = planned(function, *shapes).contractions.values()
    return found


def epilogue_of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> str:
    term = contraction_of(function, *shapes).epilogue
    return "" if term is None else format_term(term)


def test_epilogues_read_as_their_formulas() -> None:
    a, b = (4, 6), (6, 5)
    assert epilogue_of(lambda x, y: ops.matmul(x, y), a, b) == ""
    assert epilogue_of(lambda x, y, z: ops.matmul(x, y) + z, a, b, (5,)) == "add(product, in2[i1])"
    relu = "select(less_equal(add(product, in2[i1]), 0.0), 0.0, add(product, in2[i1]))"
    assert epilogue_of(lambda x, y, z: ops.relu(ops.matmul(x, y) + z), a, b, (5,)) == relu
    residual = "add(in2[(i0*5 + i1)], product)"
    assert epilogue_of(lambda x, y, z: z + ops.matmul(x, y), a, b, (4, 5)) == residual
    assert epilogue_of(lambda x, y: ops.tanh(ops.matmul(x, y)), a, b) == "", "not lean"
    assert epilogue_of(lambda x, y, z: ops.matmul(x, y) + ops.transpose(z), a, b, (5, 4)) == "", "not along the columns"


def test_what_is_used_twice_ends_an_epilogue() -> None:
    fusion = planned(lambda x, y: (ops.matmul(x, y) * 2.0, ops.tanh(ops.matmul(x, y) * 2.0)), (4, 6), (6, 5))
    (found,) = fusion.contractions.values()
    assert format_term(found.epilogue) == "mul(product, 2.0)"
    assert len(fusion.kernels) == 1


def test_batch_normalisation_in_inference_is_an_epilogue() -> None:
    def function(x: Any, k: Any, scale: Any, shift: Any, skip: Any) -> Any:
        return ops.relu(ops.conv(x, k, padding="same") * scale + shift + skip)

    found = contraction_of(function, (2, 5, 5, 3), (3, 3, 3, 8), (8,), (8,), (2, 5, 5, 8))
    assert found.epilogue is not None and found.result.is_contiguous
    assert format_term(found.epilogue).count("add(add(mul(product, in2[i3]), in3[i3]), in4[") == 2


def test_movement_of_operands_is_a_view() -> None:
    found = contraction_of(lambda x, y: ops.matmul(ops.transpose(x), y[1:, 2:]), (6, 4), (7, 9))
    a, b = found.operands
    assert (a.buffer.name, a.shape, a.strides, a.offset) == ("in0", (4, 6), (1, 4), 0)
    assert (b.buffer.name, b.shape, b.strides, b.offset) == ("in1", (6, 7), (9, 1), 11)
    a, b = contraction_of(lambda x, y: ops.matmul(ops.broadcast_to(x, (3, 4, 6)), y), (4, 6), (3, 6, 5)).operands
    assert a.strides == (0, 6, 1) and b.is_contiguous


def test_what_lies_at_no_constant_steps_is_copied() -> None:
    for function in (
        lambda x, y: ops.matmul(ops.flip(x, axis=0), y),
        lambda x, y: ops.matmul(ops.pad(x[1:], ((1, 0), (0, 0))), y),
        lambda x, y: ops.matmul(ops.reshape(ops.transpose(x), (12, 6)), y),
    ):
        (kernel,) = planned(function, (12, 6), (6, 40)).kernels
        assert kernel.reads == ("in0",)


def test_reshapes_are_the_same_buffer() -> None:
    fusion = planned(lambda x: (ops.exp(x).reshape((-1,)), x.reshape((20,)), ops.exp(x)), ROWS)
    (kernel,) = fusion.kernels
    assert len(kernel.outputs) == 1
    assert sorted(fusion.aliases.values()) == sorted(["in0", kernel.name])
    outer = plan_fusion(traced(lambda x: ops.transpose(x.reshape((4, 1, 5)), (1, 0, 2)), [np.zeros(ROWS)]))
    assert not outer.kernels and set(outer.aliases.values()) == {"in0"}


# Programs drawn at random --------------------------------------------------------------------------------------------
SHAPES = ((4, 5), (2, 3, 4), (1, 6), (5,), (), (0, 3), (3, 1, 4), (2, 1, 1, 3))


class Programmer:
    """Applies operators to what is there already, values reused freely."""

    def __init__(self, rng: np.random.Generator, operands: tuple[Any, ...]) -> None:
        self.rng = rng
        self.values = list(operands)

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def value(self) -> Any:
        """Late ones more often: programs are deep as well as wide."""
        count = len(self.values)
        return self.values[max(int(self.rng.integers(count)), int(self.rng.integers(count)))]

    def like(self, x: Any) -> Any:
        """Another value of that shape, or one that can be brought to it."""
        fitting = [y for y in self.values if y.shape == x.shape]
        small = [y for y in self.values if y.ndim <= x.ndim and _broadcasts(y.shape, x.shape)]
        y = self.pick((fitting or [x]) if self.rng.random() < 0.6 else small or [x])
        return ops.broadcast_to(y, x.shape)

    def step(self) -> None:
        makers = (self.unary, self.binary, self.binary, self.movement, self.movement, self.total, self.total)
        more = (self.relu, self.product, self.layer, self.other, self.normal, self.normal)
        found = self.pick((*makers, *more))(self.value())
        if found is not None and found.size <= 400 and found.ndim <= 4:
            self.values.append(found)

    def unary(self, x: Any) -> Any:
        return self.pick((ops.tanh, lambda x: -x, lambda x: x * 0.5, ops.abs, lambda x: ops.exp(-x * x)))(x)

    def binary(self, x: Any) -> Any:
        y = self.like(x)
        return self.pick((ops.add, ops.subtract, ops.multiply, ops.maximum))(x, y)

    def relu(self, x: Any) -> Any:
        return ops.where(x <= 0.0, 0.0, self.like(x)) if self.rng.random() < 0.4 else ops.relu(x)

    def movement(self, x: Any) -> Any:
        kind = int(self.rng.integers(7))
        if kind == 0:
            return ops.transpose(x, [int(a) for a in self.rng.permutation(x.ndim)])
        if kind == 1:
            return ops.reshape(x, self.pick(((-1,), (x.size, 1), (1, *x.shape), tuple(s for s in x.shape if s != 1))))
        if kind == 2 and x.ndim:
            return ops.concatenate([x, self.like(x)], axis=int(self.rng.integers(x.ndim)))
        if kind == 3 and x.ndim:
            return ops.pad(x, [(1, 0)] + [(0, 0)] * (x.ndim - 1), constant_values=2.0)
        if kind == 4 and x.ndim:
            return x[1:] if self.rng.random() < 0.5 else x[..., ::2]
        if kind == 5 and x.ndim:
            return ops.flip(x, axis=int(self.rng.integers(x.ndim)))
        return ops.broadcast_to(x, (2, *x.shape))

    def total(self, x: Any) -> Any:
        axes = tuple(axis for axis in range(x.ndim) if self.rng.random() < 0.5)
        keep = bool(self.rng.random() < 0.5)
        if x.size == 0 or self.rng.random() < 0.7:
            return ops.sum(x, axis=axes, keepdims=keep)
        return ops.max(x, axis=axes, keepdims=keep)

    def normal(self, x: Any) -> Any:
        """x about its mean, by its deviation: totals that follow one another."""
        if not x.size:
            return x + 1.0
        axes = tuple(axis for axis in range(x.ndim) if self.rng.random() < 0.5)
        mean = ops.mean(x, axis=axes, keepdims=True)
        square = ops.mean((x - mean) * (x - mean), axis=axes, keepdims=True)
        self.values += [mean, square]
        return (x - mean) * ops.rsqrt(square + 0.5)

    def product(self, x: Any) -> Any:
        if x.ndim < 2:
            return None
        y = self.pick([y for y in self.values if y.ndim == x.ndim])
        for b in (y, ops.swapaxes(y, -1, -2), ops.swapaxes(x, -1, -2)):
            if b.shape[:-2] == x.shape[:-2] and b.shape[-2] == x.shape[-1]:
                return ops.matmul(x, b) * 0.3
        return None

    def layer(self, x: Any) -> Any:
        """A product, and what often follows one."""
        y = self.product(x)
        if y is None:
            return None
        bias = [v for v in self.values if v.shape == y.shape[-1:]]
        if bias and self.rng.random() < 0.7:
            y = y + self.pick(bias)
        if self.rng.random() < 0.5:
            y = y + self.like(y)
        y = ops.relu(y) if self.rng.random() < 0.7 else y
        return ops.swapaxes(y, 0, -2) if self.rng.random() < 0.4 else y

    def other(self, x: Any) -> Any:
        return ops.cumsum(x, axis=0) * 0.2 if x.ndim else None


def _broadcasts(shape: tuple[int, ...], goal: tuple[int, ...]) -> bool:
    return all(a in (1, b) for a, b in zip(shape[::-1], goal[::-1], strict=False))


def check_program(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(SHAPES[int(rng.integers(len(SHAPES)))]) for _ in range(3)]

    def function(*operands: Any) -> Any:
        programmer = Programmer(rng, operands)
        for _ in range(int(rng.integers(1, 30))):
            programmer.step()
        results = [programmer.value() for _ in range(int(rng.integers(1, 6)))]
        if rng.random() < 0.4:
            total = sum(ops.sum(result * result) for result in results)
            results += [g for g in hl.gradients(total, list(operands)) if g is not None]
        return [*results, results[0]] if rng.random() < 0.2 else results

    graph = run_passes(traced(function, arrays)) if seed % 2 else traced(function, arrays)
    program = Program(graph)
    expected = program.run(np, arrays, [leaf.value.numpy() for _, leaf in program.leaves])
    for found, value in zip(run(graph, plan_fusion(graph), arrays), expected, strict=True):
        assert found.dtype == value.dtype and found.shape == value.shape
        np.testing.assert_allclose(found, value, rtol=1e-8, atol=1e-8, err_msg=str(graph))
    return graph


@pytest.mark.parametrize("seed", range(120))
def test_random_programs(seed: int) -> None:
    check_program(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 6000))
def test_many_random_programs(seed: int) -> None:
    check_program(seed)
