"""Tensors: from and to NumPy, PyTorch and Python."""

from __future__ import annotations

import copy
import gc
import pickle

import ml_dtypes
import numpy as np
import pytest

from highlevel import config
from highlevel.errors import ArgumentError, DTypeError
from highlevel.ir import Tensor, dtypes, primitives
from highlevel.ir.dtypes import ALL, DType

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (1, "int32", ()),
        (2**31, "int64", ()),
        (-(2**31), "int32", ()),
        (1.5, "float32", ()),
        (True, "bool", ()),
        ([], "float32", (0,)),
        ([[1, 2], [3, 4]], "int32", (2, 2)),
        ([1, 2.0], "float32", (2,)),
        ([True, False], "bool", (2,)),
        (np.float64(1), "float64", ()),
        ([np.float64(1)], "float64", (1,)),
        ([np.int64(1), 2], "int64", (2,)),
        (np.zeros(3), "float64", (3,)),
        (np.zeros(3, np.int64), "int64", (3,)),
        (np.zeros((2, 0), np.uint8), "uint8", (2, 0)),
        (np.zeros(2, BFLOAT16), "bfloat16", (2,)),
        (np.arange(3, dtype=">i4"), "int32", (3,)),
        (range(3), "int64", (3,)),
    ],
)
def test_natural_types(value: object, dtype: str, shape: tuple[int, ...]) -> None:
    x = Tensor.of(value)
    assert (x.dtype, x.shape) == (dtype, shape)
    np.testing.assert_array_equal(x.numpy(), np.asarray(value))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_round_trip(dtype: DType) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype.numpy)
    x = Tensor.of(array)
    assert x.dtype is dtype
    for back in (
        x.numpy(),
        np.asarray(x),
        np.array(x),
        pickle.loads(pickle.dumps(x)).numpy(),
        copy.deepcopy(x).numpy(),
    ):
        assert back.dtype == dtype.numpy
        np.testing.assert_array_equal(back, array)
    assert x.tolist() == array.tolist()


def test_tensors_do_not_change() -> None:
    array = np.arange(4.0)
    x, view, fixed = Tensor.of(array), Tensor.of(array[:2]), Tensor.of(array.reshape(2, 2))
    array[:] = -1
    assert x.tolist() == [0, 1, 2, 3]
    assert view.tolist() == [0, 1]
    assert fixed.tolist() == [[0, 1], [2, 3]]
    for exported in (x.numpy(), np.asarray(x)):
        with pytest.raises(ValueError, match="read-only"):
            exported[0] = 5
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 5  # type: ignore[index]
    own = np.array(x)
    own[0] = 7
    assert x.tolist() == [0, 1, 2, 3]


def test_array_protocol_follows_numpy() -> None:
    x = Tensor.of([1.5, 2.5])
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        x.__array__(np.dtype(np.int8), copy=False)
    assert np.add(x, 1).tolist() == [2.5, 3.5]
    assert isinstance(np.ones(2) + x, Tensor)  # our operators win on the left, too
    assert (np.float32(2) * x).tolist() == [3.0, 5.0]


def test_the_array_interface_keeps_memory_alive() -> None:
    array = np.asarray(Tensor.of(np.arange(1000.0)) + 1)
    gc.collect()
    np.empty(1000)
    np.testing.assert_array_equal(array, np.arange(1, 1001.0))
    assert Tensor.of([1.0]).__array_interface__["typestr"] == "<f4"
    assert not hasattr(Tensor.of([1.0], "bfloat16"), "__array_interface__")
    assert np.asarray(Tensor.of([1.0], "bfloat16")).dtype == BFLOAT16


def test_dlpack_with_numpy() -> None:
    x = Tensor.of(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(np.from_dlpack(x), np.arange(6.0).reshape(2, 3))
    fill = primitives.full(shape=(2, 3), value=1.5, dtype=dtypes.float32)
    np.testing.assert_array_equal(np.from_dlpack(fill), np.full((2, 3), 1.5))


def test_torch_both_ways() -> None:
    torch = pytest.importorskip("torch")
    x = Tensor.of([[1.0, 2.0], [3.0, 4.0]])
    theirs = torch.from_dlpack(x)
    assert theirs.tolist() == x.tolist()
    assert torch.as_tensor(np.array(x)).tolist() == x.tolist()
    ours = Tensor.of(torch.arange(6, dtype=torch.int64).reshape(2, 3))
    assert (ours.dtype, ours.tolist()) == ("int64", [[0, 1, 2], [3, 4, 5]])

    class OnlyDLPack:
        """A producer that speaks nothing but DLPack."""

        def __dlpack__(self, **options: object) -> object:
            return theirs.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return theirs.__dlpack_device__()  # type: ignore[no-any-return]

    assert Tensor.of(OnlyDLPack()).tolist() == x.tolist()
    for fill in (primitives.full(shape=(3,), value=2.0, dtype=dtypes.float32), Tensor.of(np.zeros((0, 2)))):
        assert torch.from_dlpack(fill).tolist() == fill.tolist()


def test_jax_arrays_become_tensors() -> None:
    jax = pytest.importorskip("jax")
    assert Tensor.of(jax.numpy.arange(3.0)).tolist() == [0, 1, 2]
    assert Tensor.of(jax.numpy.zeros(2, "bfloat16")).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([[1, 2], [3]], "unequal lengths"),
        ("text", "strings need a lookup"),
        (["a", "b"], "strings need a lookup"),
        (None, "cannot make a tensor"),
        (object(), "cannot make a tensor"),
        ({"a": 1}, "cannot make a tensor"),
        ([None, 1.0], "cannot make a tensor"),
    ],
)
def test_what_is_not_an_array(value: object, hint: str) -> None:
    with pytest.raises(ArgumentError, match=hint):
        Tensor.of(value)


def test_complex_numbers_are_not_supported() -> None:
    with pytest.raises(DTypeError, match="not a data type"):
        Tensor.of(1j)


def test_as_python_numbers() -> None:
    x = Tensor.of(2.75)
    assert (float(x), int(x), bool(x), x.item(), f"{x:.1f}") == (2.75, 2, True, 2.75, "2.8")
    assert [10, 20, 30][Tensor.of(1)] == 20
    assert list(range(5))[Tensor.of(1) : Tensor.of(3)] == [1, 2]
    with pytest.raises(TypeError):
        _ = [1, 2][Tensor.of(1.0)]  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="the truth of an array"):
        bool(Tensor.of([1, 2]))
    with pytest.raises(ArgumentError, match="the truth of an array"):
        bool(Tensor.of([]))
    with pytest.raises(ValueError, match="size 1"):
        float(Tensor.of([1.0, 2.0]))


def test_sequences() -> None:
    x = Tensor.of([[1, 2], [3, 4]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert [row.tolist() for row in reversed(x)] == [[3, 4], [1, 2]]
    _, second = x
    assert second.tolist() == [3, 4]
    with pytest.raises(TypeError, match="no length"):
        len(Tensor.of(1))
    with pytest.raises(TypeError, match="no length"):
        list(Tensor.of(1))


def test_tensors_are_hashed_by_identity_and_compared_by_value() -> None:
    x, y = Tensor.of([1, 2]), Tensor.of([1, 2])
    assert len({x, y}) == 2
    assert (x == y).tolist() == [True, True]
    assert (x != Tensor.of([1, 3])).tolist() == [False, True]
    assert (x == None) is False  # noqa: E711
    assert (x != "text") is True
    assert (x == object()) is False
    assert (x == [1, 5]).tolist() == [True, False]


def test_repr() -> None:
    assert repr(Tensor.of([1.0, 2.5])) == "Tensor([1. , 2.5], float32 (2,))"
    assert str(Tensor.of(3)) == "Tensor(3, int32 ())"
    assert len(repr(Tensor.of(np.zeros(100_000)))) < 120


def test_a_tensor_of_a_tensor_is_itself() -> None:
    x = Tensor.of([1.0])
    assert Tensor.of(x) is x
    assert Tensor.of(x, "float32") is x
    assert Tensor.of(x, "int8").dtype == "int8"
    assert x.device == config.backend()
