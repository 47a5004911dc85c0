"""Numbers by the interval that they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from highlevel import ops
from highlevel.errors import ArgumentError
from highlevel.ir import Setting

from ..base import Layer
from .encoding import dense_only, encode, mode_of
from .normalization import batches


class Discretization(Layer):
    """The number of the interval that each value lies in.

    Arguments:
        bin_boundaries: the values between the intervals, rising: n of them make n + 1 intervals, each with its lower
            bound
        num_bins: instead, the number of intervals, which `adapt` makes equally full
        epsilon: how exact `adapt` is, as a fraction of the values
        output_mode: "int", or rows: "one_hot", "multi_hot" or "count", as for `CategoryEncoding`
        sparse: only False

    Input shape: any

    Output shape: the same; with rows (…, number of intervals)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> hl.layers.Discretization([0.0, 1.0, 2.0])(np.float32([[-1.5, 1.0, 3.4, 0.5]])).tolist()
    [[0, 2, 3, 1]]
    """

    autocast = False
    bin_boundaries = Setting(None)  # programs are made for their boundaries

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        sparse: bool = False,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, **kwargs)
        if (bin_boundaries is None) == (num_bins is None):
            raise ArgumentError(
                f"{self.name}: either the boundaries or the number of intervals",
                got=f"bin_boundaries={bin_boundaries!r:.40}, num_bins={num_bins}",
                expected="one of them",
            )
        if num_bins is not None and (not isinstance(num_bins, int) or num_bins < 1):
            raise ArgumentError(f"{self.name}: not a number of intervals", got=repr(num_bins), expected="at least 1")
        if not 0 < epsilon <= 1:
            raise ArgumentError(f"{self.name}: epsilon is a fraction", got=epsilon, expected="between 0 and 1")
        self.num_bins = num_bins
        self.epsilon = epsilon
        self.output_mode = mode_of(self, output_mode)
        self.sparse = dense_only(self, sparse)
        self.summary = np.zeros((2, 0), "float32")
        if bin_boundaries is not None:
            self._set_boundaries(bin_boundaries)

    def _set_boundaries(self, values: Sequence[float]) -> None:
        boundaries = tuple(float(value) for value in values)
        if list(boundaries) != sorted(boundaries):
            raise ArgumentError(f"{self.name}: boundaries rise", got=f"{boundaries!r:.60}", expected="sorted numbers")
        self.bin_boundaries = boundaries

    def get_config(self) -> dict[str, Any]:
        found = self.bin_boundaries
        return {**super().get_config(), "bin_boundaries": None if found is None else list(found)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Discretization:
        """The layer that `get_config` described: with the boundaries that `adapt` found, if it has."""
        if config.get("num_bins") is None or config.get("bin_boundaries") is None:
            return super().from_config(config)
        layer = super().from_config({**config, "bin_boundaries": None})
        layer._set_boundaries(config["bin_boundaries"])
        return layer

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Finds boundaries that make the intervals equally full, for an array or the batches of an iterable."""
        if self.num_bins is None:
            raise ArgumentError(f"{self.name}: the boundaries are given", hint="Discretization(num_bins=…) finds them")
        self.reset_state()
        for batch in batches(data, steps):
            self.update_state(batch)
        self.finalize_state()

    def update_state(self, data: Any) -> None:
        """Takes up a batch: a sorted sample of it, each value standing for as many."""
        values = np.sort(np.asarray(data, "float32").reshape(-1))
        step = max(values.size * self.epsilon, 1)
        sample = values[int(step - 1) :: int(step)]
        both = np.concatenate([np.stack([sample, np.full_like(sample, step)]), self.summary], axis=1)
        self.summary = _compressed(both[:, np.argsort(both[0], kind="stable")], self.epsilon)

    def finalize_state(self) -> None:
        """Makes boundaries of what has been seen."""
        if self.num_bins is not None:
            if not self.summary.size:
                raise ArgumentError(f"{self.name}: there is no data", expected="an array, or an iterable of batches")
            self._set_boundaries(_compressed(self.summary, 1.0 / self.num_bins)[0, :-1].tolist())

    def reset_state(self) -> None:
        """Forgets what has been seen."""
        self.summary = np.zeros((2, 0), "float32")

    def call(self, inputs: Any) -> Any:
        boundaries = self.bin_boundaries
        if boundaries is None:
            raise ArgumentError(
                f"{self.name}: the intervals are not known yet", hint="layer.adapt(data), or bin_boundaries=[…]"
            )
        x = ops.convert_to_tensor(inputs)
        x = x if x.dtype.is_float else ops.cast(x, "float32")
        edges = ops.convert_to_tensor(np.asarray(boundaries, x.dtype.numpy))
        indices = ops.digitize(x, edges) if boundaries else ops.zeros(x.shape, "int32")
        dtype = "int32" if self.output_mode == "int" else self.compute_dtype
        return encode(indices, self.output_mode, len(boundaries) + 1, dtype)


def _compressed(summary: np.ndarray[Any, Any], epsilon: float) -> np.ndarray[Any, Any]:
    """Fewer (value, weight) pairs: the quantiles at all multiples of epsilon."""
    if summary.shape[1] * epsilon < 1:
        return summary
    parts = epsilon + np.arange(0.0, 1.0, epsilon)
    weights = summary[1].cumsum()
    shares = weights / weights[-1]
    values, weights = np.interp(parts, shares, summary[0]), np.interp(parts, shares, weights)
    return np.stack([values, np.diff(weights, prepend=0.0)]).astype("float32")
