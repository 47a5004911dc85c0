from __future__ import annotations

import numpy as np
import pytest

import highlevel as hl


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": 1 / 255},
        {"scale": 1 / 127.5, "offset": -1},
        {"scale": [0.1, 0.2, 0.3], "offset": [1.0, 2.0, 3.0]},
        {"scale": np.float32([0.1, 0.2, 0.3])},
    ],
    ids=str,
)
def test_rescaling(agrees, rng, dtype, arguments):
    agrees("Rescaling", arguments, rng.integers(0, 256, (2, 4, 5, 3)).astype(dtype))


def test_channels_come_first_where_the_library_is_set_so(rng):
    x = rng.integers(0, 256, (2, 3, 4, 5)).astype("uint8")
    hl.config.set_image_data_format("channels_first")
    try:
        y = hl.layers.Rescaling([1.0, 2.0, 3.0], [0.0, 0.0, 1.0])(x)
    finally:
        hl.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(np.asarray(y)[:, 2], 3.0 * x[:, 2] + 1, rtol=1e-6)
