"""Tokens as numbers, and back: strings on the host, whole numbers in programs as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from highlevel import config, ops
from highlevel.errors import ArgumentError
from highlevel.ir import Symbol, tree
from highlevel.ir.tensor import to_numpy

from ..base import Layer
from . import hashes
from .encoding import encode
from .hashing import words_of
from .strings import HostLayer, as_strings, outside, text_array
from .vocabulary import VocabularyLayer


def encoded(layer: VocabularyLayer, indices: Any) -> Any:
    """Numbers of tokens in the layer's output mode."""
    if layer.output_mode == "int":
        return indices
    if layer.output_mode == "tf_idf":
        return encode(indices, "count", layer.depth, config.floatx()) * ops.convert_to_tensor(layer.idf)
    return encode(indices, layer.output_mode, layer.depth, config.floatx())


def unknown(layer: Layer, tokens: Any) -> ArgumentError:
    return ArgumentError(
        f"{layer.name}: tokens that are not in the vocabulary",
        got=f"{tokens!r:.80}",
        expected="tokens of the vocabulary",
        hint="num_oov_indices=1 gives them a number",
    )


class StringLookup(HostLayer, VocabularyLayer):
    """Strings as numbers of a vocabulary, or numbers as strings.

    As all layers that read strings, it runs before the model, or in a data pipeline. Numbers start with the mask (if
    there is a mask token), then come unknown strings, then the vocabulary.

    Arguments:
        max_tokens: the most numbers there may be, special ones included
        num_oov_indices: how many numbers unknown strings share, by a hash; at 0 they are an error
        mask_token: the string with number 0; None: there is none
        oov_token: what numbers of unknown strings become again
        vocabulary: the strings, or the path of a file with one on each line; None: `adapt` finds them
        idf_weights: for "tf_idf", the weight of each string
        invert: whether numbers become strings
        output_mode: "int", or rows: "one_hot", "multi_hot", "count", or "tf_idf" (count · weight)
        pad_to_max_tokens: whether rows have max_tokens elements
        sparse: only False
        encoding: of bytes
        salt: a number, or two, for the hash of unknown strings

    Input shape: any

    Output shape: the same; with rows (batch, numbers)

    >>> import highlevel as hl
    >>> layer = hl.layers.StringLookup(vocabulary=["a", "b", "c"])
    >>> layer([["a", "c"], ["z", "b"]]).tolist()
    [[1, 3], [0, 2]]
    >>> hl.layers.StringLookup(vocabulary=["a", "b", "c"], invert=True)([1, 3, 0]).tolist()
    ['a', 'c', '[UNK]']
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: str | None = None,
        oov_token: str | None = "[UNK]",
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        sparse: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        salt: Any = None,
        oov_method: str = "floormod",
        **kwargs: Any,
    ) -> None:
        self.encoding = encoding
        super().__init__(
            max_tokens=max_tokens, num_oov_indices=num_oov_indices, mask_token=mask_token, oov_token=oov_token,
            vocabulary=vocabulary, idf_weights=idf_weights, invert=invert, output_mode=output_mode, sparse=sparse,
            pad_to_max_tokens=pad_to_max_tokens, oov_method=oov_method, salt=salt, name=name, **kwargs,
        )  # fmt: skip

    def token(self, value: Any) -> str:
        return value.decode(self.encoding) if isinstance(value, bytes) else str(value)

    def documents(self, data: Any) -> Iterable[Sequence[str]]:
        return documents_of(data, lambda row: as_strings(self, row, self.encoding))

    def call(self, inputs: Any) -> Any:
        self.require_vocabulary()
        return self._strings(inputs) if self.invert else encoded(self, ops.convert_to_tensor(self.numbers(inputs)))

    def numbers(self, inputs: Any) -> np.ndarray[Any, Any]:
        """The number of each string, int64; in rows, a mask has none (−1)."""
        values = as_strings(self, inputs, self.encoding)
        words, places = words_of(values)
        found = np.array([self.places.get(word, -1) for word in words], "int64")
        missing = found < 0
        masked = np.array([word == self.mask_token for word in words], bool)
        if (missing & ~masked).any():
            found[missing] = self._unknown([words[i] for i in np.flatnonzero(missing)])
        found[masked] = 0 if self.output_mode == "int" else -1
        return found[places] if words else np.zeros(values.shape, "int64")

    def _unknown(self, words: list[str]) -> Any:
        if not self.num_oov_indices:
            raise unknown(self, [word for word in words if word != self.mask_token])
        if self.num_oov_indices == 1:
            return self.first_oov
        return hashes.buckets(words, self.num_oov_indices, self.salt) + self.first_oov

    def _strings(self, inputs: Any) -> np.ndarray[Any, Any]:
        numbers = to_numpy(inputs).astype("int64")
        table = np.array([*self.get_vocabulary(), self.oov_token or ""], dtype=object)
        known = (numbers >= 0) & (numbers < len(table) - 1)
        return text_array(np.asarray(table[np.where(known, numbers, len(table) - 1)], dtype=object))


def documents_of(data: Any, read: Any) -> Iterable[Sequence[Any]]:
    """Rows of tokens: of a list or an array each element is a document, also of a list of rows of unequal lengths."""
    if isinstance(data, (list, tuple)) and any(isinstance(row, (list, tuple, np.ndarray)) for row in data):
        return [read(row).ravel().tolist() for row in data]
    values = read(data)
    return [np.ravel(row).tolist() for row in (values if values.ndim else values[None])]


class IntegerLookup(VocabularyLayer):
    """Whole numbers, such as identifiers, as numbers of a vocabulary, or back.

    It may be part of a model. Numbers start with the mask (if there is a mask token), then come unknown values, then
    the vocabulary.

    Arguments:
        max_tokens: the most numbers there may be, special ones included
        num_oov_indices: how many numbers unknown values share, by their remainder; at 0 they are an error
        mask_token: the value with number 0; None: there is none
        oov_token: what numbers of unknown values become again
        vocabulary: the values, or the path of a file with one on each line; None: `adapt` finds them
        vocabulary_dtype: only "int64"
        idf_weights: for "tf_idf", the weight of each value
        invert: whether numbers become values
        output_mode: "int", or rows: "one_hot", "multi_hot", "count", or "tf_idf" (count · weight)
        sparse: only False
        pad_to_max_tokens: whether rows have max_tokens elements
        oov_method: "floormod", or "farmhash" (on the host only), by which unknown values share numbers
        salt: a number, or two, for "farmhash"

    Input shape: any

    Output shape: the same; with rows (batch, numbers)

    >>> import highlevel as hl
    >>> hl.layers.IntegerLookup(vocabulary=[12, 36, 1138])([[12, 1138], [36, 7]]).tolist()
    [[1, 3], [2, 0]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: int | None = None,
        oov_token: int | None = -1,
        vocabulary: Any = None,
        vocabulary_dtype: str = "int64",
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        sparse: bool = False,
        pad_to_max_tokens: bool = False,
        oov_method: str = "floormod",
        salt: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if vocabulary_dtype != "int64":
            raise ArgumentError(
                "IntegerLookup: the vocabulary has one type", got=repr(vocabulary_dtype), expected='"int64"'
            )
        if salt is not None and oov_method != "farmhash":
            raise ArgumentError("IntegerLookup: the salt is of a hash", got=f"salt={salt!r}", expected='"farmhash"')
        super().__init__(
            max_tokens=max_tokens, num_oov_indices=num_oov_indices, mask_token=mask_token, oov_token=oov_token,
            vocabulary=vocabulary, idf_weights=idf_weights, invert=invert, output_mode=output_mode, sparse=sparse,
            pad_to_max_tokens=pad_to_max_tokens, oov_method=oov_method, salt=salt, name=name, **kwargs,
        )  # fmt: skip

    def _to_operands(self, value: Any) -> Any:
        as_lists = isinstance(value, (list, tuple)) and not any(hasattr(leaf, "shape") for leaf in tree.leaves(value))
        return super()._to_operands(np.asarray(value) if as_lists or isinstance(value, int) else value)

    def token(self, value: Any) -> int:
        return int(value)

    def documents(self, data: Any) -> Iterable[Sequence[int]]:
        return documents_of(data, lambda row: to_numpy(row).astype("int64"))

    def call(self, inputs: Any) -> Any:
        _ = self.version
        self.require_vocabulary()
        x = ops.cast(ops.convert_to_tensor(inputs), "int64")
        if self.invert:
            table = ops.convert_to_tensor(self._table())
            known = ops.logical_and(ops.greater_equal(x, 0), ops.less(x, table.shape[0] - 1))
            return ops.take(table, ops.where(known, x, table.shape[0] - 1))
        return encoded(self, self._numbers(x))

    def _table(self) -> np.ndarray[Any, Any]:
        oov = -1 if self.oov_token is None else self.oov_token
        return np.array([oov if token is None else token for token in self.get_vocabulary()] + [oov], "int64")

    def _numbers(self, x: Any) -> Any:
        order = np.argsort(np.array(self.tokens, "int64"))
        keys = ops.convert_to_tensor(np.array(self.tokens, "int64")[order])
        at = ops.minimum(ops.searchsorted(keys, ops.reshape(x, (-1,))), len(order) - 1)
        at = ops.reshape(at, x.shape)
        known = ops.equal(ops.take(keys, at), x)
        masked = None if self.mask_token is None else ops.equal(x, self.mask_token)
        numbers = ops.take(ops.convert_to_tensor(order.astype("int64") + self.first_token), at)
        found = ops.where(known, numbers, self._unknown(x, known if masked is None else ops.logical_or(known, masked)))
        nothing = 0 if self.output_mode == "int" else -1
        return found if masked is None else ops.where(masked, ops.full_like(found, nothing), found)

    def _unknown(self, x: Any, known: Any) -> Any:
        if self.num_oov_indices == 1:
            return ops.full_like(x, self.first_oov)
        if self.num_oov_indices and self.oov_method == "floormod":
            return ops.mod(x, self.num_oov_indices) + self.first_oov
        if isinstance(x, Symbol):
            what = "a hash of numbers" if self.num_oov_indices else "an error for unknown values"
            raise outside(self, x) if self.num_oov_indices else ArgumentError(
                f"{self.name}: {what} cannot be part of a program",
                got="num_oov_indices=0",
                hint="num_oov_indices=1, or call the layer before the model",
            )
        if not self.num_oov_indices:
            missing = to_numpy(x)[~to_numpy(known)]
            if missing.size:
                raise unknown(self, missing.tolist())
            return ops.zeros_like(x)
        words, places = words_of(to_numpy(x))
        return ops.convert_to_tensor(hashes.buckets(words, self.num_oov_indices, self.salt)[places] + self.first_oov)
