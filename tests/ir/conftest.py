"""An oracle for derivatives that needs nothing: differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from highlevel.ir import Tensor

Array = np.ndarray[Any, Any]


def differences(function: Callable[..., Any], primals: Sequence[Array], directions: Sequence[Array]) -> list[Array]:
    """d/dt function(primals + t·directions) at t = 0, one array per output, by Richardson's extrapolation."""

    def at(t: float) -> list[Array]:
        outputs = function(*(Tensor.of(p + t * d) for p, d in zip(primals, directions, strict=True)))
        return [np.asarray(output) for output in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]

    def central(h: float) -> list[Array]:
        return [(a - b) / (2 * h) for a, b in zip(at(h), at(-h), strict=True)]

    return [(4 * narrow - wide) / 3 for wide, narrow in zip(central(2e-3), central(1e-3), strict=True)]


@pytest.fixture
def directional() -> Callable[..., list[Array]]:
    """Derivatives in a direction, by differences."""
    return differences
