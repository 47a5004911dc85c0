from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import Setting, Spec, Symbol, Tensor, Variable, jit, operators, spec, trace, trace_graph
from highlevel.ir.variable import epoch


def test_a_variable_is_an_array() -> None:
    v = Variable([1.0, 2.0, 3.0], name="kernel", path="dense/kernel")
    assert (v.shape, v.dtype, v.ndim, v.size, len(v)) == ((3,), "float32", 1, 3, 3)
    assert (v * 2).tolist() == [2, 4, 6]
    assert (1 - v).tolist() == [0, -1, -2]
    assert v[1].item() == 2.0
    assert [x.item() for x in v] == [1, 2, 3]
    np.testing.assert_array_equal(np.asarray(v), [1, 2, 3])
    np.testing.assert_array_equal(v.numpy(), [1, 2, 3])
    assert v.tolist() == [1, 2, 3]
    assert isinstance(v.value, Tensor)
    assert repr(v) == "<Variable dense/kernel: float32 (3,)>"
    assert float(Variable(2.5)) == 2.5
    assert f"{Variable(2.25):.1f}" == "2.2"


def test_initial_values() -> None:
    def ones(shape: tuple[int, ...], dtype: object) -> np.ndarray:  # type: ignore[type-arg]
        return np.ones(shape, str(dtype))

    v = Variable(ones, shape=(2, 3), dtype="float16")
    assert (v.spec, v.tolist()) == (spec((2, 3), "float16"), [[1, 1, 1], [1, 1, 1]])
    assert Variable(1, dtype="int64").dtype == "int64"
    assert Variable(Tensor.of([1])).dtype == "int32"
    with pytest.raises(ShapeError, match="the initial value has another shape"):
        Variable([1.0], shape=(2,))


def test_the_initial_value_is_the_variables_own() -> None:
    array = np.zeros(3)
    v, w = Variable(array), Variable(Tensor.of(array))
    array[:] = 5
    assert v.tolist() == w.tolist() == [0, 0, 0]
    kept = v.numpy()
    v.assign(array)
    assert kept.tolist() == [0, 0, 0]
    assert v.tolist() == [5, 5, 5]


@pytest.mark.parametrize("traced", [False, True])
def test_assign(traced: bool) -> None:
    v = Variable(np.zeros(2, np.float32))

    def run() -> None:
        v.assign([1.0, 2.0])
        v.assign_add(1)
        v.assign_sub(Tensor.of([0.5, 0.5]))
        v.assign(v * 2)

    (jit(run) if traced else run)()
    assert v.tolist() == [3, 5]
    assert v.dtype == "float32"


@pytest.mark.parametrize("traced", [False, True])
def test_assign_checks_the_shape(traced: bool) -> None:
    v = Variable(np.zeros((2, 3), np.float32), path="dense/kernel")
    for value in (0.0, np.zeros((3, 2), "float32"), np.zeros(3, "float32"), Tensor.of(np.zeros((1, 3)))):
        with pytest.raises(ShapeError, match="'dense/kernel': cannot assign a value of another shape"):
            (jit(lambda value=value: v.assign(value)) if traced else lambda value=value: v.assign(value))()
    assert v.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("float32", 1, True),
        ("float32", np.float64(0.5), True),
        ("float16", np.array(0.5), True),
        ("float32", np.array(3), True),
        ("int32", 3, True),
        ("uint32", 3, True),
        ("uint32", np.array(3, "int64"), True),
        ("bool", True, True),
        ("float32", True, True),
        ("int32", 1.5, False),
        ("int32", np.array(1.0), False),
        ("int64", Tensor.of(1.0), False),
        ("bool", 1, False),
        ("bool", np.array(2), False),
    ],
)
def test_assign_checks_the_type(dtype: str, value: object, fits: bool) -> None:
    v = Variable(0 if dtype != "bool" else False, dtype=dtype)
    if fits:
        v.assign(value)
        assert v.dtype == dtype
        assert v.item() == np.asarray(value, dtype).item()
    else:
        with pytest.raises(DTypeError, match="cannot assign"):
            v.assign(value)


def test_numbers_that_do_not_fit_are_not_wrapped() -> None:
    with pytest.raises((ArgumentError, OverflowError)):
        Variable(0, dtype="uint8").assign(300)


def test_in_a_trace_reading_gives_symbols_and_assigning_updates() -> None:
    v = Variable([1.0, 2.0])
    seen = []

    def run(x: Symbol) -> list[Symbol]:
        before = v.value
        v.assign(before + x)
        seen.append((before, v.value, v.value))
        return [v * 1.0]

    graph, record = trace_graph(run, [spec((2,))])
    ((before, after, again),) = seen
    assert isinstance(before, Symbol)
    assert before.key != after.key
    assert after.key == again.key
    assert [variable for variable, _ in graph.reads] == [v]
    assert [(variable, symbol.key) for variable, symbol in graph.updates] == [(v, after.key)]
    assert v.tolist() == [1, 2]  # tracing computes nothing
    assert record.reads[id(v)][1].key == before.key


def test_an_assignment_of_the_same_value_is_no_update() -> None:
    v, w = Variable(1.0), Variable(2.0)

    def run() -> list[Symbol]:
        v.assign(v)
        w.assign(w + 1)
        w.assign(3.0)
        return []

    graph, _ = trace_graph(run, [])
    assert [variable for variable, _ in graph.updates] == [w]


def test_copies_and_pickles_are_variables_of_their_own() -> None:
    v = Variable(np.arange(3.0), name="w", path="a/w", trainable=False, tags=("slow",))
    for other in (copy.deepcopy(v), copy.copy(v), pickle.loads(pickle.dumps(v))):
        assert (other.tolist(), other.name, other.path, other.trainable, other.tags) == (
            [0, 1, 2],
            "w",
            "a/w",
            False,
            ("slow",),
        )
        other.assign(np.ones(3))
        other.trainable = True
        assert v.tolist() == [0, 1, 2]
        assert not v.trainable


def test_a_copy_made_while_a_trace_is_open_holds_numbers() -> None:
    v = Variable([1.0])
    copies = []
    trace_graph(lambda: copies.append(copy.deepcopy(v)) or [], [])
    assert copies[0].tolist() == [1.0]


def test_settings_count_changes() -> None:
    class Thing:
        size = Setting(3)

    thing = Thing()
    start = epoch()
    assert thing.size == 3
    thing.size = 3
    assert epoch() == start
    thing.size = 4
    assert epoch() > start
    assert isinstance(Thing.size, Setting)


def test_reading_a_setting_is_noted_only_where_it_happens() -> None:
    v = Variable(1.0)
    _, record = trace_graph(lambda: [v * 2.0], [])
    assert not record.settings  # a program that only computes with a variable does not depend on who trains it
    _, record = trace_graph(lambda: [v * 2.0] if v.trainable else [], [])
    assert [(owner, name, value) for owner, name, value in record.settings.values()] == [(v, "trainable", True)]


def test_autocast_reads_floats_in_another_type() -> None:
    v, w, n = Variable([1.0]), Variable([1.0], autocast=False), Variable([1])
    with trace.autocast(operators.as_dtype("bfloat16")):
        assert (v + 0.0).dtype == "bfloat16"
        assert v.read().dtype == "bfloat16"
        assert v.value.dtype == "float32"
        assert w.read().dtype == "float32"
        assert n.read().dtype == "int32"
        v.assign_add(1.0)
    assert v.dtype == "float32"
    assert v.tolist() == [2.0]


def test_variables_are_freed() -> None:
    gc.disable()
    try:
        v = Variable(np.zeros(3))
        alive = weakref.ref(v)
        assert Spec((3,), v.dtype) == v.spec
        _ = (v + 1.0) * v
        del v
        assert alive() is None
    finally:
        gc.enable()
