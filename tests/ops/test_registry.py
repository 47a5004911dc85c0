"""The table of functions: placeholders take over, names are known, errors name the function."""

from __future__ import annotations

import time

import numpy as np
import pytest

from highlevel import ops
from highlevel.errors import ArgumentError, DTypeError, HighlevelError, ShapeError
from highlevel.ir import REGISTRY
from highlevel.ops.registry import COVERED, register


class Recorder:
    """Stands for a placeholder: remembers the call instead of making it."""

    def __highlevel_function__(self, name, args, kwargs):
        return name, args, kwargs


def test_placeholders_take_over():
    p = Recorder()
    assert ops.relu(p) == ("relu", (p,), {})
    assert ops.add(1, p) == ("add", (1, p), {})
    assert ops.concatenate([1.0, p], axis=0) == ("concatenate", ([1.0, p],), {"axis": 0})
    assert ops.sum(x=p, axis=1) == ("sum", (), {"x": p, "axis": 1})
    assert ops.stack(x=(p, p))[0] == "stack"
    assert ops.image.resize(p, (2, 2))[0] == "image.resize"
    assert ops.lgamma(p)[0] == "lgamma"


def test_operators_leave_placeholders_alone():
    class Deferred(Recorder):
        def __radd__(self, other):
            return "mine"

    assert ops.ones(2) + Deferred() == "mine"


def test_functions_by_name():
    assert ops.function_named("relu") is ops.relu
    with pytest.raises(ArgumentError, match="did you mean 'relu'"):
        ops.function_named("reluu")
    with pytest.raises(ArgumentError, match="twice"):
        register("relu", ops.relu)


def test_every_elementwise_primitive_has_a_function():
    elementwise = {name for name, p in REGISTRY.items() if p.family == "elementwise" and p.samples}
    assert elementwise - COVERED - set(ops.OPS) == set()
    assert {"lgamma", "digamma"} <= set(ops.__all__)


def test_exposed_primitives_promote_and_broadcast():
    assert ops.lgamma([1, 2, 3]).dtype == "float32"
    with pytest.raises(TypeError, match="1 operands"):
        ops.lgamma(1.0, 2.0)


def test_namespaces():
    assert ops.nn.relu is ops.relu
    assert ops.linalg.det is ops.det
    for name in ops.__all__:
        assert getattr(ops, name) is not None
        assert name.startswith("_") is False


def test_every_function_is_documented():
    undocumented = [name for name, function in ops.OPS.items() if not (function.__doc__ or "").strip()]
    assert undocumented == []


def test_the_check_for_placeholders_is_cheap():
    """Under a microsecond a call, measured as the best of many against the function itself."""

    def best(function):
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(200):
                function(1, 2)
            times.append(time.perf_counter() - start)
        return min(times) / 200

    plain = lambda a, b: None  # noqa: E731
    wrapped = register("test_only", plain)
    del ops.OPS["test_only"]
    assert best(wrapped) - best(plain) < 1e-6


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: ops.add(X, np.ones(4)), ShapeError, "add"),
        (lambda: ops.matmul(X, X), ShapeError, "matmul"),
        (lambda: ops.tensordot(X, X, 1), ShapeError, "tensordot"),
        (lambda: ops.einsum("ij,jk->ik", X), ArgumentError, "einsum"),
        (lambda: ops.einsum("ij,jk->ik", X, X), ShapeError, "einsum"),
        (lambda: ops.einsum("ij->k", X), ArgumentError, "einsum"),
        (lambda: ops.einsum("ijk->i", X), ShapeError, "einsum"),
        (lambda: ops.sum(X, axis=2), ArgumentError, "sum"),
        (lambda: ops.mean(X, axis=(0, 0)), ArgumentError, "mean"),
        (lambda: ops.stack([X, X[:1]]), ShapeError, "stack"),
        (lambda: ops.concatenate([X, X[:, :1]]), ShapeError, "concatenate"),
        (lambda: ops.split(X, 2, axis=1), ArgumentError, "split"),
        (lambda: ops.squeeze(X, 0), ShapeError, "squeeze"),
        (lambda: ops.broadcast_to(X, (2, 1)), ShapeError, "broadcast_to"),
        (lambda: ops.reshape(X, (4, -1)), ShapeError, "reshape"),
        (lambda: ops.pad(X, ((1, 1, 1),)), ShapeError, "pad"),
        (lambda: ops.pad(X, 1, mode="odd"), ArgumentError, "pad"),
        (lambda: ops.take_along_axis(X, np.ones(3, np.int32), 1), ShapeError, "take_along_axis"),
        (lambda: ops.take(X, [0, 2], axis=0), ArgumentError, "take"),
        (lambda: ops.take(X, [0.5], axis=0), DTypeError, "take"),
        (lambda: ops.one_hot(X, 3), DTypeError, "one_hot"),
        (lambda: ops.top_k(X, 5), ArgumentError, "top_k"),
        (lambda: ops.bitwise_and(X, X), DTypeError, "bitwise_and"),
        (lambda: ops.conv(X, X), ShapeError, "conv"),
        (lambda: ops.conv(np.ones((1, 5, 3)), np.ones((2, 2, 1))), ShapeError, "conv"),
        (lambda: ops.conv(np.ones((1, 5, 3)), np.ones((2, 3, 1)), padding="odd"), ArgumentError, "conv"),
        (lambda: ops.conv(np.ones((1, 5, 3)), np.ones((2, 3, 1)), data_format="odd"), ArgumentError, "conv"),
        (lambda: ops.conv(np.ones((1, 5, 3)), np.ones((2, 3, 1)), strides=(1, 2)), ArgumentError, "conv"),
        (lambda: ops.max_pool(X, 2), ShapeError, "max_pool"),
        (lambda: ops.binary_crossentropy(X, X[:1]), ShapeError, "binary_crossentropy"),
        (lambda: ops.sparse_categorical_crossentropy(X, X), ShapeError, "sparse_categorical_crossentropy"),
        (lambda: ops.batch_normalization(X, np.ones(2), np.ones(3), -1), ShapeError, "batch_normalization"),
        (lambda: ops.dot_product_attention(X, X, X), ShapeError, "dot_product_attention"),
        (lambda: ops.det(X), ShapeError, "det"),
        (lambda: ops.solve(np.eye(3), np.ones(2)), ShapeError, "solve"),
        (lambda: ops.slice(X, (0, 2), (2, 2)), ShapeError, "slice"),
        (lambda: ops.slice_update(X, (1, 0), X), ShapeError, "slice_update"),
        (lambda: ops.scatter_update(X, [[0, 0, 0]], [1.0]), ShapeError, "scatter_update"),
        (lambda: ops.segment_sum(X, [0, 1, 1]), ShapeError, "segment_sum"),
        (lambda: ops.quantile(X, 0.5, method="odd"), ArgumentError, "quantile"),
        (lambda: ops.fft(X), ArgumentError, "fft"),
        (lambda: ops.stft(np.ones(20), 8, 4, 4), ArgumentError, "stft"),
        (lambda: ops.image.resize(X, (2, 2)), ShapeError, "resize"),
        (lambda: ops.image.resize(np.ones((4, 4, 1)), (2, 2), "odd"), ArgumentError, "resize"),
        (lambda: ops.image.crop_images(np.ones((4, 4, 1)), 3, 0, 3, 0), ArgumentError, "crop_images"),
        (lambda: ops.rearrange(X, "a b -> a"), ArgumentError, "rearrange"),
        (lambda: ops.rearrange(X, "a (b c) -> a b c", b=2), ShapeError, "rearrange"),
        (lambda: ops.bincount(X.astype(int).reshape(1, 2, 3)), ShapeError, "bincount"),
        (lambda: ops.arange(0, 3, 0), ArgumentError, "arange"),
        (lambda: ops.glu(X), ShapeError, "glu"),
    ],
)
def test_errors_name_the_function(call, error, name):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, HighlevelError)
    assert str(caught.value).startswith(name)
    assert len(str(caught.value).splitlines()) <= 10
