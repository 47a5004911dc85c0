"""Categories as numbers without a vocabulary: hashes of strings and whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel import config, ops
from highlevel.errors import ArgumentError, DTypeError, ShapeError
from highlevel.ir import as_dtype

from ..arguments import whole
from ..base import Layer
from . import hashes
from .encoding import dense_only, encode, mode_of
from .strings import HostLayer, as_strings, is_text


def salt_of(layer: Layer, salt: Any) -> tuple[int, int] | None:
    """A key of two numbers; one number stands for both."""
    if salt is None:
        return None
    numbers = [salt, salt] if isinstance(salt, int) else list(salt) if isinstance(salt, (tuple, list)) else []
    if len(numbers) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise ArgumentError(f"{layer.name}: not a salt", got=repr(salt), expected="an integer, or two")
    return numbers[0], numbers[1]


def host_values(layer: Layer, value: Any) -> np.ndarray[Any, Any]:
    """Strings, or numbers made whole, as an array."""
    if is_text(value):
        return as_strings(layer, value)
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise DTypeError(f"{layer.name}: neither strings nor numbers", got=array.dtype, expected="strings or integers")
    return array.astype("int64")


def words_of(values: np.ndarray[Any, Any]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """The distinct values as text, and the place of each value among them."""
    items = values.ravel().tolist()
    words = [item if isinstance(item, str) else str(item) for item in items]
    known = {word: place for place, word in enumerate(dict.fromkeys(words))}
    return list(known), np.array([known[word] for word in words], "int64").reshape(values.shape)


class Hashing(HostLayer):
    """Strings or whole numbers as numbers of bins, by a hash that is the same on every machine.

    It needs no vocabulary, but different words may share a bin. As all layers that read strings, it runs before the
    model, or in a data pipeline.

    Arguments:
        num_bins: the number of bins, with that of the mask
        mask_value: what becomes 0; all else is numbered from 1 then
        salt: a number, or two, that select another hash (SipHash instead of FarmHash's fingerprint)
        output_mode: "int", or rows: "one_hot", "multi_hot" or "count", as for `CategoryEncoding`
        sparse: only False

    Input shape: any

    Output shape: the same; with rows (…, num_bins)

    >>> import highlevel as hl
    >>> hl.layers.Hashing(num_bins=3)([["A"], ["B"], ["C"], ["D"], ["E"]]).tolist()
    [[1], [0], [1], [1], [2]]
    """

    def __init__(
        self,
        num_bins: int,
        mask_value: Any = None,
        salt: Any = None,
        output_mode: str = "int",
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        self._kind = as_dtype(kwargs.pop("dtype", None) or ("int64" if output_mode == "int" else config.floatx()))
        super().__init__(**kwargs)
        self.num_bins = whole(self, num_bins, "num_bins")
        self.mask_value = mask_value
        self.salt = salt_of(self, salt)
        self.output_mode = mode_of(self, output_mode)
        self.sparse = dense_only(self, sparse)
        if self.output_mode == "int" and self._kind.name not in ("int32", "int64"):
            raise ArgumentError(f"{self.name}: numbers of bins are integers", got=self._kind, expected="int32 or int64")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self._kind.name}

    def call(self, inputs: Any) -> Any:
        values = host_values(self, inputs)
        words, places = words_of(values)
        masked = self.mask_value is not None and self.num_bins > 1
        found = hashes.buckets(words, self.num_bins - masked, self.salt)
        if masked:
            found = np.where(np.array(words) == str(self.mask_value), 0, found + 1)
        indices = ops.convert_to_tensor(found[places] if words else np.zeros(values.shape, "int64"))
        return encode(indices, self.output_mode, self.num_bins, self._kind)


class HashedCrossing(HostLayer):
    """Pairs (or more) of features, each combination as the number of a bin.

    Arguments:
        num_bins: the number of bins
        output_mode: "int" or "one_hot"
        sparse: only False

    Input: a list of arrays of strings or integers, all of shape (batch,) or (batch, 1), or single values

    Output shape: that of one of them; with "one_hot" (batch, num_bins)

    >>> import numpy as np
    >>> import highlevel as hl
    >>> layer = hl.layers.HashedCrossing(num_bins=5)
    >>> layer((np.array(["A", "B", "A", "B", "A"]), np.array([101, 101, 101, 102, 102]))).tolist()
    [1, 4, 1, 1, 3]
    """

    def __init__(
        self,
        num_bins: int,
        output_mode: str = "int",
        sparse: bool = False,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.output_mode = mode_of(self, output_mode, ("int", "one_hot"))
        self._kind = as_dtype(dtype or ("int64" if self.output_mode == "int" else config.floatx()))
        self.num_bins = whole(self, num_bins, "num_bins")
        self.sparse = dense_only(self, sparse)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self._kind.name}

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
            raise ArgumentError(f"{self.name}: nothing to cross", got=type(inputs).__name__, expected="two arrays")
        columns = [host_values(self, column) for column in inputs]
        shapes = [column.shape for column in columns]
        if len(set(shapes)) > 1 or len(shapes[0]) > 2 or (len(shapes[0]) == 2 and shapes[0][1] != 1):
            raise ShapeError(f"{self.name}: shapes do not fit", got=shapes, expected="all (), (batch,) or (batch, 1)")
        numbers = []
        for row in zip(*(column.ravel().tolist() for column in columns), strict=True):
            total = 0xDECAFCAFFE
            for item in row:
                own = hashes.fingerprint(item.encode("utf-8")) if isinstance(item, str) else item & (2**64 - 1)
                total = hashes.joined(total, own)
            numbers.append(total % self.num_bins)
        indices = ops.convert_to_tensor(np.array(numbers, "int64").reshape(shapes[0]))
        return encode(indices, self.output_mode, self.num_bins, self._kind)

