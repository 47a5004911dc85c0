"""The native backend as a whole: whole training steps, their bits, their memory, and who may see a variable's data."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import highlevel as hl
from highlevel import backends, layers, ops
from highlevel.backends.native.backend import NativeBackend
from highlevel.backends.native.codegen.targets import aarch64, host
from highlevel.backends.native.devices.cpu import CpuDevice
from highlevel.backends.native.devices.null import NullDevice
from highlevel.backends.native.executable import Executable
from highlevel.ir import Spec, Tensor, Variable
from highlevel.ir.primitive import REGISTRY, define


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> NativeBackend:
    """The native backend, whatever the tests run on."""
    found = backends.get("native")
    monkeypatch.setattr(backends.registry, "_current", found)
    assert isinstance(found, NativeBackend)
    return found


def network() -> hl.Model:
    """Convolutions, normalisation, dropout, recurrence and attention, small."""
    hl.set_random_seed(3)
    inputs = hl.Input((12, 12, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(20, 3, padding="same")(inputs)))
    x = layers.Dropout(0.3)(layers.MaxPooling2D(2)(x))
    x = layers.LSTM(9, return_sequences=True)(layers.Reshape((36, 20))(x))
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(3, 5)(x, x)]))
    return hl.Model(inputs, layers.Dense(7)(layers.GlobalAveragePooling1D()(x)))


def trained(steps: int = 3) -> list[np.ndarray]:
    """The weights and the losses of some training."""
    model = network()
    model.compile(hl.optimizers.SGD(0.1, momentum=0.9), hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 12, 12, 3), "float32"), rng.integers(0, 7, 10)
    losses = [model.train_on_batch(x, y) for _ in range(steps)]
    return [np.asarray(losses), model.predict(x, verbose=0), *model.get_weights()]


# Bits ----------------------------------------------------------------------------------------------------------------
def test_bits_do_not_depend_on_the_number_of_threads(native: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for threads in (1, 2, 3, 4):
        device = CpuDevice(threads)
        monkeypatch.setattr(backends.registry, "_current", NativeBackend(device))
        runs.append(trained())
        device.close()
    for run in runs[1:]:
        assert [a.tobytes() for a in run] == [a.tobytes() for a in runs[0]]


def test_training_is_what_the_interpreter_computes(native: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trained(2)
    monkeypatch.setattr(backends.registry, "_current", backends.get("numpy"))
    for a, b in zip(ours, trained(2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_cpu_without_wide_vectors(native: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = NativeBackend(CpuDevice(2, target=host(without=("avx512f", "fma", "avx2"))))
    ours = trained(2)
    monkeypatch.setattr(backends.registry, "_current", narrow)
    for a, b in zip(trained(2), ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_training_step_for_another_cpu_is_accepted(native: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM verifies and compiles every kernel of it; nothing runs."""
    model = network()
    model.compile("adam", hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((4, 12, 12, 3), "float32"), np.zeros(4, "int64")
    model.train_on_batch(x, y)
    graphs = [entry.graph for entries in model.trainer._train._programs.values() for entry in entries]
    device = NullDevice(aarch64())
    backend = NativeBackend(device)
    for graph in graphs:
        made = backend.compile(graph, {})
        assert len(made.table.calls) > 20


# Who sees a variable's data ------------------------------------------------------------------------------------------
def test_what_was_read_from_a_variable_stays_as_it_was(native: NativeBackend) -> None:
    v = Variable(np.ones(5, "float32"))
    step = hl.jit(lambda: v.assign_add(1.0))
    tensor, array = v.value, v.numpy()
    shared = np.from_dlpack(v.value)
    step()
    assert (v.numpy() == 2).all()
    assert (tensor.numpy() == 1).all() and (array == 1).all() and (shared == 1).all()
    step()
    assert (v.numpy() == 3).all() and (array == 1).all()


def test_two_variables_of_one_tensor_are_two(native: NativeBackend) -> None:
    start = Tensor.of([1.0, 2.0])
    a, b = Variable(start), Variable(start)
    hl.jit(lambda: (a.assign_add(1.0), b.assign_sub(1.0)))()
    assert a.numpy().tolist() == [2, 3] and b.numpy().tolist() == [0, 1] and start.tolist() == [1, 2]


def test_variables_are_updated_where_they_lie(native: NativeBackend) -> None:
    v, w = Variable(np.zeros(100, "float32")), Variable(np.ones(100, "float32"))

    @hl.jit
    def step(x: Any) -> Any:
        v.assign(v * 0.9 + x)
        w.assign_sub(0.1 * v)
        return ops.sum(w)

    x = np.ones(100, "float32")
    step(x)
    places = [u._handle.ctypes.data for u in (v, w)]
    for _ in range(5):
        step(x)
    assert places == [u._handle.ctypes.data for u in (v, w)]
    v.assign(np.zeros(100, "float32"))  # other data: found at the next step
    step(x)
    np.testing.assert_allclose(v.numpy(), 1.0)


def test_variables_that_change_places(native: NativeBackend) -> None:
    a, b, c = (Variable(np.full(3, i, "float32")) for i in (1.0, 2.0, 3.0))

    @hl.jit
    def turn() -> Any:
        first, second, third = a.value, b.value, c.value
        a.assign(second)
        b.assign(third)
        c.assign(first)
        return first, a.value

    old, new = turn()
    assert [v.numpy()[0] for v in (a, b, c)] == [2, 3, 1] and (old[0].item(), new[0].item()) == (1, 2)
    turn()
    assert [v.numpy()[0] for v in (a, b, c)] == [3, 1, 2]


def test_one_foreign_call_a_step_however_deep(native: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = type(native.device).run
    monkeypatch.setattr(type(native.device), "run", lambda *a: (calls.append(1), run(*a))[1])
    for depth in (1, 12):
        model = hl.Sequential([hl.Input((8,)), *(layers.Dense(8, activation="relu") for _ in range(depth))])
        model.compile("adam", "mse")
        x = np.ones((4, 8), "float32")
        model.train_on_batch(x, x)
        calls.clear()
        model.train_on_batch(x, x)
        assert len(calls) == 1


def test_weights_are_packed_once_and_anew_after_they_change(native: NativeBackend) -> None:
    model = hl.Sequential([hl.Input((40,)), layers.Dense(64, activation="relu"), layers.Dense(5)])
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(0).standard_normal((32, 40), "float32"), np.zeros((32, 5), "float32")

    def check() -> None:
        w = [v.numpy().astype(np.float64) for v in model.weights]
        wanted = np.maximum(x @ w[0] + w[1], 0) @ w[2] + w[3]
        np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-5)

    check()
    ((entry,),) = model.trainer._predict._programs.values()
    assert [step.name for step in entry.executable.program.setup.steps] == ["matmul_pack", "matmul_pack"]
    check()
    model.train_on_batch(x, y)  # changed where they lie
    check()
    model.weights[0].assign(model.weights[0] * 2.0)  # changed by hand
    check()


# Operators without code ----------------------------------------------------------------------------------------------
def test_a_users_operator_is_called_back(native: NativeBackend) -> None:
    half = define("half_of_it", "test", infer=lambda x: x, numpy=lambda xp, x: x / 2, vjp=lambda g, y, x: (g / 2,))
    try:
        x = np.arange(6, dtype="float32").reshape(2, 3)
        np.testing.assert_array_equal(half(Tensor.of(x)).numpy(), x / 2)
        gradient = hl.grad(lambda v: ops.sum(half(v) * half(v)))
        np.testing.assert_allclose(gradient(x).numpy(), x / 2)
        ends, _ = hl.jit(lambda v: ops.scan(lambda c, row: (half(c) + row, row), v[0] * 0, v))(x)
        np.testing.assert_allclose(ends.numpy(), x[0] / 2 + x[1])
    finally:
        del REGISTRY["half_of_it"]


def test_what_a_users_operator_raises_is_raised_and_nothing_is_updated(native: NativeBackend) -> None:
    def refuse(xp: Any, x: Any) -> Any:
        if (x < 0).any():
            raise ValueError("negative")
        return x

    checked = define("checked", "test", infer=lambda x: x, numpy=refuse)
    try:
        v = Variable(1.0)

        @hl.jit
        def step(x: Any) -> Any:
            v.assign_add(1.0)
            return checked(x)

        step(np.ones(3, "float32"))
        with pytest.raises(ValueError, match="negative"):
            step(-np.ones(3, "float32"))
        assert v.item() == 2.0
        step(np.ones(3, "float32"))
        assert v.item() == 3.0
    finally:
        del REGISTRY["checked"]


# Threads, processes --------------------------------------------------------------------------------------------------
def test_several_python_threads_at_once(native: NativeBackend) -> None:
    functions = [hl.jit(lambda x, k=k: ops.sum(ops.exp(x * k))) for k in range(4)]
    x = np.linspace(0, 1, 20_000, dtype="float32")
    wanted = [float(f(x)) for f in functions]
    wrong: list[Any] = []

    def work(k: int) -> None:
        for _ in range(50):
            if (got := float(functions[k](x))) != wanted[k]:
                wrong.append((k, got))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork(native: NativeBackend) -> None:
    program = """
import os, warnings
import numpy as np
import highlevel as hl
f = hl.jit(lambda x: hl.ops.sum(hl.ops.tanh(x)))
x = np.linspace(-1, 2, 50_000, dtype="float32")
before = float(f(x))
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    os._exit(0 if float(f(x)) == before and float(hl.ops.sum(x + 1.0)) > 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert float(f(x)) == before
"""
    environment = {**os.environ, "HIGHLEVEL_BACKEND": "native"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


# Memory --------------------------------------------------------------------------------------------------------------
def test_values_alive_at_one_time_never_overlap(native: NativeBackend) -> None:
    model = network()
    model.compile("adam", hl.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(np.zeros((4, 12, 12, 3), "float32"), np.zeros(4, "int64"))
    ((entry,),) = model.trainer._train._programs.values()
    made = entry.executable
    assert isinstance(made, Executable)
    assert native.arena.memory.size_bytes >= made.program.memory.size_bytes >= made.program.memory.bound_bytes


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a file on a disk
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(action: Callable[[int], Any], warm_up: int, count: int) -> int:
    """How much larger the process is after `count` more calls."""
    for i in range(warm_up):
        action(i)
    gc.collect()
    before = resident_bytes()
    for i in range(warm_up, warm_up + count):
        action(i)
    gc.collect()
    return resident_bytes() - before


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")  # noqa: PTH110


@needs_proc
@pytest.mark.parametrize(
    "count", [pytest.param(1, id="some"), pytest.param(10, id="many", marks=pytest.mark.soak)]
)
def test_memory_stays_flat(native: NativeBackend, count: int) -> None:
    model = hl.Sequential([hl.Input((16,)), layers.Dense(32, activation="relu"), layers.Dense(4)])
    model.compile("adam", "mse")
    x, y = np.ones((8, 16), "float32"), np.ones((8, 4), "float32")
    assert growth(lambda _: model.predict(x, verbose=0), 200, 1000 * count) < 5 << 20
    assert growth(lambda _: model.train_on_batch(x, y), 50, 100 * count) < 5 << 20


@needs_proc
@pytest.mark.soak
def test_models_come_and_go(native: NativeBackend) -> None:
    """100 models built, trained and dropped, over 500 shapes in all."""

    def cycle(i: int) -> None:
        model = hl.Sequential([hl.Input((8 + i % 100,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
        model.compile("adam", "mse")
        for rows in range(5):
            x = np.ones((4 + rows + i % 7, 8 + i % 100), "float32")
            model.train_on_batch(x, np.ones((len(x), 3), "float32"))

    assert growth(cycle, 100, 100) < 5 << 20


def test_empty_arrays_and_numbers(native: NativeBackend) -> None:
    f = hl.jit(lambda x, y: (ops.matmul(x, y), ops.sum(x), ops.max(y * 1.0, axis=1), ops.concatenate([x, x])))
    product, total, largest, both = f(np.ones((3, 0), "float32"), np.ones((0, 4), "float32"))
    assert product.numpy().tolist() == [[0.0] * 4] * 3 and total.item() == 0
    assert largest.shape == (0,) and both.shape == (6, 0)
    assert hl.jit(lambda x: x)(np.float32(2)).item() == 2
    assert Spec((), "float32") == hl.jit(lambda: ops.ones(()))().spec
