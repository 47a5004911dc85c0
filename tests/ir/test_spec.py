from __future__ import annotations

import numpy as np

from highlevel.ir import Spec, dtypes, spec


def test_a_spec_counts() -> None:
    for shape in [(), (3,), (2, 0, 4), (2, 3, 4)]:
        x = spec(shape, "float16")
        array = np.zeros(shape, np.float16)
        assert (x.shape, x.ndim, x.size, x.size_bytes) == (array.shape, array.ndim, array.size, array.nbytes)


def test_specs_are_values() -> None:
    a, b = spec([np.int64(2), 3]), Spec((2, 3), dtypes.float32)
    assert a == b
    assert hash(a) == hash(b)
    assert all(type(size) is int for size in a.shape)
    assert a.with_shape([4]) == spec((4,))
    assert a.with_dtype(dtypes.int8) == spec((2, 3), "int8")
    assert a != a.with_dtype(dtypes.float64)
    assert str(a) == repr(a) == "float32 (2, 3)"
