"""Texts as numbers of words, or as rows of what words occur."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from highlevel import ops
from highlevel.errors import ArgumentError, ShapeError

from .lookup import StringLookup, encoded
from .strings import as_strings

_CAPITALS = {ord(capital): small for capital, small in zip(string.ascii_uppercase, string.ascii_lowercase, strict=True)}
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))
_BLANKS = re.compile("[ \t\n\v\f\r]+")
STANDARDS: dict[str, dict[int, Any]] = {
    "lower_and_strip_punctuation": {**_CAPITALS, **_PUNCTUATION},
    "lower": _CAPITALS,
    "strip_punctuation": _PUNCTUATION,
}


class TextVectorization(StringLookup):
    """Texts as numbers of words, or as rows of what words occur.

    Each text is standardised, split into words, these are joined to n-grams, and looked up in a vocabulary, which
    `adapt` finds. As all layers that read strings, it runs before the model, or in a data pipeline.

    Arguments:
        max_tokens: the most numbers there may be, with 0 for padding and 1 for unknown words
        standardize: "lower_and_strip_punctuation", "lower", "strip_punctuation" (these know ASCII's letters and signs),
            None, or a registered function of an array of strings
        split: "whitespace", "character", None (texts are words already), or a registered function that makes a list of
            words of each string of an array
        ngrams: a number n for words and all sequences of up to n words, or a tuple of lengths; None: words
        output_mode: "int", or rows: "multi_hot", "count" or "tf_idf"
        output_sequence_length: for "int", the length to which all are cut or padded with 0; None: that of the longest
        pad_to_max_tokens: whether rows have max_tokens elements
        vocabulary: the words, or the path of a file with one on each line; None: `adapt` finds them
        idf_weights: for "tf_idf", the weight of each word
        sparse, ragged: only False
        encoding: of bytes

    Input shape: (batch,) or (batch, 1), or one text; with split=None also (batch, words)

    Output shape: (batch, words); with rows (batch, numbers)

    >>> import highlevel as hl
    >>> layer = hl.layers.TextVectorization(output_sequence_length=4)
    >>> layer.adapt(["The cat sat.", "The dog ran!"])
    >>> layer.get_vocabulary()
    ['', '[UNK]', 'the', 'sat', 'ran', 'dog', 'cat']
    >>> layer(["A cat ran", "the"]).tolist()
    [[1, 6, 4, 0], [2, 0, 0, 0]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        standardize: Any = "lower_and_strip_punctuation",
        split: Any = "whitespace",
        ngrams: Any = None,
        output_mode: str = "int",
        output_sequence_length: int | None = None,
        pad_to_max_tokens: bool = False,
        vocabulary: Any = None,
        idf_weights: Any = None,
        sparse: bool = False,
        ragged: bool = False,
        encoding: str = "utf-8",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            max_tokens=max_tokens, mask_token="", vocabulary=vocabulary, idf_weights=idf_weights, sparse=sparse,
            output_mode=output_mode, pad_to_max_tokens=pad_to_max_tokens, encoding=encoding, name=name, **kwargs,
        )  # fmt: skip
        self.standardize = self._word_or_function(standardize, "standardize", tuple(STANDARDS))
        self.split = self._word_or_function(split, "split", ("whitespace", "character"))
        self.ngrams = self._lengths(ngrams)
        if output_sequence_length is not None and (
            self.output_mode != "int" or not isinstance(output_sequence_length, int) or output_sequence_length < 1
        ):
            raise ArgumentError(
                f"{self.name}: not the length of a sequence",
                got=f"output_sequence_length={output_sequence_length!r}, output_mode={output_mode!r}",
                expected='a number of words, with output_mode="int"',
            )
        if ragged:
            raise ArgumentError(f"{self.name}: there are no ragged tensors", got="ragged=True", expected="ragged=False")
        if self.output_mode == "one_hot":
            raise ArgumentError(
                f"{self.name}: texts have many words", got="output_mode='one_hot'", expected="multi_hot, count or int"
            )
        self.output_sequence_length = output_sequence_length

    def _word_or_function(self, value: Any, what: str, choices: tuple[str, ...]) -> Any:
        if value is None or callable(value):
            return value
        if value not in choices:
            raise ArgumentError(
                f"{self.name}: unknown {what}",
                got=repr(value),
                expected=" | ".join(map(repr, choices)) + ", None or a function",
            )
        return str(value)

    def _lengths(self, value: Any) -> tuple[int, ...] | None:
        numbers = range(1, value + 1) if isinstance(value, int) and not isinstance(value, bool) else value
        if numbers is None:
            return None
        if not isinstance(numbers, (range, tuple, list)) or any(not isinstance(n, int) or n < 1 for n in numbers):
            raise ArgumentError(f"{self.name}: not lengths of n-grams", got=repr(value), expected="a number, or some")
        return tuple(numbers)

    # Words ------------------------------------------------------------------------------------------------------------
    def words(self, texts: Any) -> tuple[list[list[str]], tuple[int, ...] | None]:
        """The words (or n-grams) of each text, and the shape of the input if texts are words already."""
        values = self._standardized(as_strings(self, texts, self.encoding))
        if self.split is None:
            if values.ndim < 2:
                return [[word] for word in values.ravel().tolist()], values.shape
            return self._grams(values.reshape(-1, values.shape[-1]).tolist()), None
        if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
            raise ShapeError(
                f"{self.name}: one text per sample, please",
                got=f"shape {values.shape}",
                expected="(batch,) or (batch, 1)",
                hint="split=None, if these are words already",
            )
        return self._grams(self._split(values.ravel())), None

    def _standardized(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.standardize is None:
            return values
        if callable(self.standardize):
            return as_strings(self, self.standardize(np.asarray(values.tolist(), dtype=str)))
        table = STANDARDS[self.standardize]
        found = np.empty(values.size, dtype=object)
        found[:] = [text.translate(table) for text in values.ravel().tolist()]
        return found.reshape(values.shape)

    def _split(self, texts: np.ndarray[Any, Any]) -> list[list[str]]:
        if callable(self.split):
            return [list(map(str, row)) for row in self.split(np.asarray(texts.tolist(), dtype=str))]
        if self.split == "character":
            return [list(text) for text in texts.tolist()]
        return [[word for word in _BLANKS.split(text) if word] for text in texts.tolist()]

    def _grams(self, rows: list[list[str]]) -> list[list[str]]:
        if self.ngrams is None:
            return rows
        return [
            [" ".join(row[i : i + n]) for n in self.ngrams for i in range(len(row) - n + 1)] for row in rows
        ]

    def documents(self, data: Any) -> Iterable[Sequence[str]]:
        return self.words(data)[0]

    def call(self, inputs: Any) -> Any:
        self.require_vocabulary()
        rows, shape = self.words(inputs)
        single = np.ndim(inputs) == 0 and shape is None
        if shape is not None and self.output_mode == "int":
            return ops.convert_to_tensor(self.numbers([row[0] for row in rows]).reshape(shape))
        length = max(map(len, rows), default=0)
        wanted = self.output_sequence_length or length
        found = np.full((len(rows), max(length, wanted)), 0 if self.output_mode == "int" else -1, "int64")
        numbers = self.numbers([word for row in rows for word in row])
        start = 0
        for number, row in enumerate(rows):
            found[number, : len(row)] = numbers[start : start + len(row)]
            start += len(row)
        result = encoded(self, ops.convert_to_tensor(found[:, :wanted] if self.output_mode == "int" else found))
        return result[0] if single else result

