"""Placeholders: shapes with unknown sizes, operators, and what cannot be done with something that has no value."""

from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl
from highlevel import layers as L
from highlevel import ops
from highlevel.errors import ShapeError, TraceError

F32 = "float32"


def test_inputs_have_shapes_types_and_names():
    assert hl.Input((3,)).shape == (None, 3)
    assert hl.Input(3).shape == (None, 3)
    assert hl.Input(()).shape == (None,)
    assert hl.Input((None, 3), batch_size=7).shape == (7, None, 3)
    assert hl.Input(batch_shape=(2, 3)).shape == (2, 3)
    assert hl.Input((3,)).dtype.name == "float32"
    assert hl.Input((3,), dtype="int32").dtype.name == "int32"
    assert hl.Input((3,), name="x").name == "x"
    assert repr(hl.Input((3,), name="x")) == "<Placeholder x float32 (None, 3)>"


@pytest.mark.parametrize("shape", [("a",), (2.5,), (-1,), None])
def test_sizes_that_are_no_sizes(shape):
    with pytest.raises(ShapeError, match="Input"):
        hl.Input(shape)


# An expression of x and y (arrays or placeholders), which NumPy computes as well.
EXPRESSIONS = {
    "arithmetic": lambda x, y: (x + y) * 2.0 - x / (y + 3.0),
    "reflected": lambda x, y: 1.0 - x + 2.0 * y - 6.0 / (x + 5.0),
    "powers": lambda x, y: (x * x + 1.0) ** 2 + 2.0 ** (x * 0.1),
    "integers": lambda x, y: (x * 10.0) // 3.0 + (y * 10.0) % 3.0,
    "matrices": lambda x, y: x @ y.T if isinstance(x, np.ndarray) else ops.matmul(x, ops.transpose(y)),
    "negation": lambda x, y: -x + abs(y),
    "slices": lambda x, y: x[:, 1:] + y[:, :-1],
    "steps": lambda x, y: x[:, ::-2],
    "new axes": lambda x, y: x[:, None, :] * y[..., None],
    "reshape": lambda x, y: x.reshape(-1, 2, 2),
    "comparison": lambda x, y: (x > y) * 1.0 + (x <= 0.0) * 2.0,
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_operators_between_placeholders_equal_numpy(name, rng):
    expression = EXPRESSIONS[name]
    a, b = hl.Input((4,)), hl.Input((4,))
    model = hl.Model([a, b], expression(a, b))
    for rows in (3, 5):
        x, y = rng.normal(size=(rows, 4)).astype(F32), rng.normal(size=(rows, 4)).astype(F32)
        expected = expression(x, y)
        found = model.predict([x, y], batch_size=rows, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert len(model.output_shape) == expected.ndim


def test_a_placeholder_has_no_value():
    x = hl.Input((2,))
    with pytest.raises(TraceError, match="no value yet"):
        if ops.sum(x) > 0:
            raise AssertionError
    with pytest.raises(TraceError, match="use ops, not NumPy"):
        np.asarray(x)
    with pytest.raises(TypeError, match="length"):
        len(x)
    assert len(hl.Input(batch_shape=(3, 2))) == 3
    rows = list(hl.Input(batch_shape=(3, 2)))
    assert [row.shape for row in rows] == [(2,)] * 3


def test_shapes_are_checked_when_layers_are_called_not_later():
    x = hl.Input((4,), name="x")
    with pytest.raises(ShapeError, match="conv"):
        L.Conv2D(3, 3, name="conv")(x)
    with pytest.raises(ShapeError, match="5"):
        ops.add(x, hl.Input((5,)))


def test_layers_are_built_once_by_the_first_placeholder():
    layer = L.Dense(3)
    layer(hl.Input((4,)))
    kernel = layer.kernel
    layer(hl.Input((4,)))
    assert layer.kernel is kernel
    with pytest.raises(ShapeError, match="4"):
        layer(hl.Input((5,)))
