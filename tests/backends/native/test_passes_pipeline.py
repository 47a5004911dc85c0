"""The passes on whole programs: training steps of small real models, checked after every pass, and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel.backends.interpreter import NumpyBackend
from highlevel.backends.native.passes.check import check_pass, check_shapes, count_nodes
from highlevel.backends.native.passes.layout import elements_transposed
from highlevel.backends.native.passes.pipeline import ROUNDS, PassOptions, PassReport, run_passes
from highlevel.backends.native.schedule.fuse import plan_fusion
from highlevel.ir import Graph, Symbol, Tensor, control, gradients, trace_graph
from highlevel.ir.spec import spec

RNG = np.random.default_rng(5)


def training_step(model: hl.Model, x: Any, classes: int = 3) -> Graph:
    """The program of `train_on_batch`, by plain gradient descent (Adam divides rounding errors by themselves)."""
    model.compile(hl.optimizers.SGD(0.1, momentum=0.9), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(x)
    y = RNG.integers(0, classes, len(x)).astype("int32")
    graph: Graph = model.trainer._train.graph(Tensor.of(x), Tensor.of(y), None)
    return graph


def images(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype("float32")


def resnet_block(channels_first: bool = False) -> hl.Model:
    form, axis = ("channels_first", 1) if channels_first else ("channels_last", -1)
    inputs = hl.Input((3, 8, 8) if channels_first else (8, 8, 3))

    def conv(x: Any, filters: int, size: int, stride: int = 1) -> Any:
        x = L.Conv2D(filters, size, stride, padding="same", use_bias=False, data_format=form)(x)
        return L.BatchNormalization(axis=axis)(x)

    x = conv(L.ZeroPadding2D(1, data_format=form)(inputs), 4, 3, 2)
    y = conv(L.ReLU()(conv(x, 6, 3)), 6, 3)
    y = L.ReLU()(L.Add()([y, conv(x, 6, 1)]))
    y = L.MaxPooling2D(2, data_format=form)(y)
    return hl.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D(data_format=form)(y)))


def transformer_block() -> hl.Model:
    inputs = hl.Input((6, 8))
    x = L.LayerNormalization()(L.Add()([inputs, L.MultiHeadAttention(2, 4)(inputs, inputs)]))
    x = L.LayerNormalization()(L.Add()([x, L.Dense(8)(L.Dense(16, activation="gelu")(x))]))
    return hl.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def recurrent(layer: Any) -> hl.Model:
    return hl.Sequential([hl.Input((7, 5)), layer, L.Dense(3)])


def classifier() -> hl.Model:
    return hl.Sequential([hl.Input((8,)), L.Dense(16, activation="relu"), L.LayerNormalization(), L.Dense(3)])


# (model, batch, nodes at most after the passes: lower it when rules get better)
MODELS: dict[str, tuple[Any, Any, int]] = {
    "classifier": (classifier, images(4, 8), 165),
    "resnet block": (resnet_block, images(2, 8, 8, 3), 400),
    "channels first": (lambda: resnet_block(channels_first=True), images(2, 3, 8, 8), 420),
    "transformer block": (transformer_block, images(2, 6, 8), 425),
    "lstm": (lambda: recurrent(L.LSTM(4)), images(2, 7, 5), 190),
    "gru": (lambda: recurrent(L.GRU(4)), images(2, 7, 5), 200),
    "bidirectional": (lambda: recurrent(L.Bidirectional(L.SimpleRNN(4))), images(2, 7, 5), 190),
}
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_a_training_step_stays_what_it_is(name: str) -> None:
    """Checked after each pass: shape rules, the boundary, and values; then the whole against the whole."""
    build, x, most = MODELS[name]
    before = training_step(build(), x)
    log: list[PassReport] = []
    after = run_passes(before, check=True, log=log)
    assert count_nodes(after) <= most
    assert count_nodes(after) < 0.9 * count_nodes(before)
    check_pass(before, after, "stabilizing", "all of them", seed=1)
    assert len(log) < 3 * (ROUNDS - 1), "rounds end because nothing changes any more"
    names = [row.name for row in log]
    assert names[-2:] == ["layout", "padding"]
    assert names.count("simplify") <= (3 if "scan(" in str(before) else 1)


@every_model
def test_twice_is_once(name: str) -> None:
    build, x, _ = MODELS[name]
    once = run_passes(training_step(build(), x))
    assert run_passes(once) is once


def test_a_program_trained_with_them_learns_the_same() -> None:
    """Ten steps by the optimised program and by the one that was traced, from the same weights."""
    x = images(4, 8)
    y = np.asarray([0, 2, 1, 1], "int32")
    results = []
    for optimise in (False, True):
        hl.utils.set_random_seed(3)
        graph = training_step(classifier(), x)
        executable = NumpyBackend().compile(run_passes(graph) if optimise else graph, {})
        results.append([float(np.asarray(executable.run([x, y])[0])) for _ in range(10)])
    assert results[0][-1] < results[0][0]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


# Options -------------------------------------------------------------------------------------------------------------
def test_claimed_composites_stay_whole() -> None:
    graph, _ = trace_graph(lambda x: [hl.ops.softmax(hl.ops.sigmoid(x))], [spec((2, 3))])
    names = [n.attrs["name"] for n in run_passes(graph, PassOptions(claimed=["softmax"])).nodes() if n.name == "call"]
    assert names == ["softmax"]
    assert not [n for n in run_passes(graph).nodes() if n.name == "call"]


def test_checkpoints_are_computed_twice() -> None:
    def loss(x: Symbol) -> list[Symbol]:
        y = hl.ops.sum(control.checkpoint(lambda x: hl.ops.tanh(hl.ops.exp(x)))(x))
        return [y, gradients(y, x)]

    graph, _ = trace_graph(loss, [spec((2, 3))])
    after = run_passes(graph, check=True)
    assert [n.attrs["name"] for n in after.nodes() if n.name == "call"] == ["checkpoint"]
    assert sum(n.name == "exp" for n in after.nodes()) == 1, "the second time, outside"


def test_marks_for_gradients_go() -> None:
    def function(x: Symbol) -> list[Symbol]:
        y = control.custom_gradient(lambda x: (x * 2.0, lambda g: g))(x)
        return [control.stop_gradient(y) + 1.0]

    graph, _ = trace_graph(function, [spec((2,))])
    names = [node.name for node in run_passes(graph, check=True).nodes() if node.primitive]
    assert sorted(names) == ["add", "full", "full", "mul"]


# Layout --------------------------------------------------------------------------------------------------------------
def test_channels_first_costs_one_transposition_of_the_input() -> None:
    """All others – of activations, of gradients – meet their inverses."""
    x = images(2, 3, 8, 8)
    graph = training_step(resnet_block(channels_first=True), x)
    after = run_passes(graph)
    check_shapes(after)
    large = [n for n in after.nodes() if n.name == "transpose" and n.specs[0].ndim == 4]
    assert [n.specs[0].shape for n in large] == [(2, 8, 8, 3)] or [n.specs[0].shape for n in large] == [(2, 10, 10, 3)]
    assert elements_transposed(after) * 5 < elements_transposed(graph)


def test_a_graph_that_would_gain_nothing_keeps_its_layout() -> None:
    def function(x: Symbol) -> list[Symbol]:
        y = hl.ops.transpose(x)
        return [y @ x, hl.ops.exp(y)]

    graph, _ = trace_graph(function, [spec((4, 3))])
    assert run_passes(graph) is graph


REDUCING = ("reduce_sum", "reduce_max")


@pytest.mark.parametrize(
    ("normalize", "shape", "most"),
    [
        # Σ x and Σ (x − m)²; Σ g and Σ g·(x − m), which are the gradients of offset and scale as well
        (L.BatchNormalization, (8, 6, 6, 5), 4),
        # the same for each row, of g · γ; and the gradients of offset and scale, over the others
        (L.LayerNormalization, (8, 6, 6, 5), 6),
        (L.RMSNormalization, (8, 6, 6, 5), 3),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_passes_over_activations(normalize: Any, shape: Any, most: int) -> None:
    layer = normalize()
    layer.build(shape)

    def step(x: Symbol, g: Symbol) -> list[Symbol]:
        y = layer(x, training=True) if normalize is L.BatchNormalization else layer(x)
        return [y, *gradients(y, [x, *layer.trainable_variables], g)]

    graph, _ = trace_graph(step, [spec(shape, "float32")] * 2)
    size = int(np.prod(shape))
    totals = [n for n in run_passes(graph).nodes() if n.name in REDUCING and n.inputs[0].spec.size == size]
    assert len(totals) == most


@pytest.mark.parametrize("sparse", [False, True])
def test_passes_over_logits(sparse: bool) -> None:
    """The loss and its gradient, softmax less one-hot: three totals of each row (and that of labels), in one kernel."""

    def step(x: Symbol, labels: Symbol) -> list[Symbol]:
        entropy = hl.ops.sparse_categorical_crossentropy if sparse else hl.ops.categorical_crossentropy
        loss = hl.ops.mean(entropy(labels, x, from_logits=True))
        return [loss, *gradients(loss, [x])]

    labels = spec((64,), "int32") if sparse else spec((64, 10), "float32")
    graph, _ = trace_graph(step, [spec((64, 10), "float32"), labels])
    after = run_passes(graph)
    whole = [n.name for n in after.nodes() if n.primitive and any(s.spec.size == 640 for s in n.inputs)]
    totals = ["reduce_max", "reduce_sum", "reduce_sum"] if sparse else ["reduce_max", *["reduce_sum"] * 3]
    assert sorted(name for name in whole if name in REDUCING) == totals
    assert (whole.count("exp"), whole.count("log"), whole.count("div")) == (1, 0, 0)
    kernels = plan_fusion(after).kernels
    assert [len(kernel.stages) for kernel in kernels if len(kernel.outputs) > 1] == [len(totals)]
